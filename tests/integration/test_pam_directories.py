"""PAM modules that ask something else: a data base, a table, a KDC, a directory that takes its time."""

import glob
import os
import subprocess

import pytest

from harness import kdc, socks, wait
from harness.gateway import ROOT, crypt


def login(g, user="ann", password="ann-pass", source=None):
    with g.client(source=source) as c:
        assert c.greet(socks.PASSWORD) == socks.PASSWORD
        return c.login(user, password)


def reason(g, **equal):
    return g.wait_rows(1, event="login-failed", **equal)[-1]["reason"]


def module(name):
    """Where a module is: installed, or unpacked by bootstrap."""
    for pattern in ("/usr/lib/*/security/", "/lib/*/security/", "/usr/lib/*/pam_wrapper/",
                    os.path.join(ROOT, "build", "unpacked", "**", "security", "")):
        found = glob.glob(pattern + name, recursive=True)
        if found:
            return found[0]
    pytest.skip(f"needs {name}")


# ---- tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hashed", [False, True])
def test_pam_userdb(gateway, hashed):
    """A Berkeley data base as db5.3_load makes it, with passwords as they are and hashed."""
    if not os.access("/usr/bin/db5.3_load", os.X_OK):
        pytest.skip("needs db5.3-util")
    # The module copies hashes, which end with no NUL, by strndup(3): a strict AddressSanitizer takes exception to that.
    g = gateway(start=False, environment={"ASAN_OPTIONS": "detect_stack_use_after_return=1"})
    passwords = {"ann": "ann-pass", "bob": "bob-pass"}
    values = crypt(passwords.values()) if hashed else list(passwords.values())
    text = "".join(f"{user}\n{value}\n" for user, value in zip(passwords, values))
    subprocess.run(["db5.3_load", "-T", "-t", "hash", g.path("accounts.db")], input=text.encode(), check=True)
    g.write("pam.d/gatewayd", f"""\
auth required {module("pam_userdb.so")} db={g.path("accounts")} crypt={"crypt" if hashed else "none"}
account required {module("pam_userdb.so")} db={g.path("accounts")}
""")
    g.start()
    assert login(g) == 0 and login(g, "bob", "bob-pass") == 0
    assert login(g, password="bob-pass") != 0
    assert reason(g, user="ann").startswith("log-in denied: wrong password (pam_authenticate")
    assert login(g, "carol", "x") != 0
    assert reason(g, user="carol").startswith("log-in denied: unknown user (pam_authenticate")


def test_pam_matrix(gateway):
    """pam_wrapper's module, whose table says which user may use which service."""
    path = module("pam_matrix.so")
    g = gateway(start=False)
    g.write("matrix", "ann:ann-pass:gatewayd\nbob:bob-pass:another\n")
    g.write("pam.d/gatewayd", f"auth required {path} passdb={g.path('matrix')}\naccount required {path} passdb={g.path('matrix')}\n")
    g.start()
    assert login(g) == 0
    assert login(g, password="wrong") != 0
    assert "(pam_authenticate" in reason(g, user="ann")
    assert login(g, "bob", "bob-pass") != 0  # the password is right, the service is not his
    assert "(pam_acct_mgmt" in reason(g, user="bob")
    assert login(g, "carol", "x") != 0


# ---- Kerberos with a password -------------------------------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.skipif(not kdc.available(), reason="needs krb5-kdc, krb5-admin-server, krb5-user and python3-gssapi")
def test_pam_krb5(gateway):
    """The password is asked of the KDC, whose answer is checked with a keytab; krb5.conf is another's in a mount namespace only."""
    path = module("pam_krb5.so")
    if subprocess.run(["unshare", "-m", "true"], check=False, stderr=subprocess.DEVNULL).returncode != 0 or not os.path.exists("/etc/krb5.conf"):
        pytest.skip("needs mount namespaces, and an /etc/krb5.conf to hide")
    realm = kdc.Realm({"ann": "ann-krb", "late": "late-krb", "gone": "gone-krb"})
    try:
        realm.admin("modprinc +needchange late", "modprinc -expire 2020-01-01 gone")
        g = gateway(start=False)
        options = f"realm={kdc.REALM} keytab={realm.keytab} no_ccache ignore_k5login ignore_root"
        g.write("pam.d/gatewayd", f"auth required {path} {options}\naccount required {path} {options}\n")
        g.prefix = ["unshare", "-m", "sh", "-ec", f'mount --bind {realm.conf} /etc/krb5.conf; exec "$@"', "sh"]
        g.start()
        assert login(g, "ann", "ann-krb") == 0
        assert login(g, "ann", "guess") != 0
        assert reason(g, user="ann").startswith("log-in denied: "), reason(g, user="ann")
        assert login(g, "nobody-there", "x") != 0
        assert login(g, "gone", "gone-krb") != 0
        assert reason(g, user="gone").startswith("log-in denied: the account has expired (pam_authenticate")
        assert login(g, "late", "late-krb") != 0  # it would ask for a new password
        assert "asked" in reason(g, user="late"), reason(g, user="late")
        realm.stop()  # nobody can say: no denial, and no failure that counts
        assert login(g, "ann", "ann-krb", source="127.0.0.2") != 0
        told = [r for r in g.wait_rows(2, event="login-failed", user="ann") if r["client"].startswith("127.0.0.2")]
        assert told[0]["reason"].startswith("log-in could not be judged: the user data base cannot be reached"), told
    finally:
        realm.close()


# ---- a directory that takes its time ------------------------------------------------------------------------------------

SLOW = r"""
#include <security/pam_appl.h>
#include <security/pam_modules.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
/* directory=PATH: a user waits in a step as long as PATH/auth-USER or PATH/account-USER is there, as for a server's answer. */
static int wait_for(pam_handle_t *pam, const char *step, int argc, const char **argv)
{
	const char *user = NULL;
	char path[512];

	if (argc != 1 || strncmp(argv[0], "directory=", 10) != 0 || pam_get_user(pam, &user, NULL) != PAM_SUCCESS)
		return PAM_SERVICE_ERR;
	snprintf(path, sizeof path, "%s/%s-%s", argv[0] + 10, step, user);
	while (access(path, F_OK) == 0)
		usleep(10000);
	return PAM_SUCCESS;
}
int pam_sm_authenticate(pam_handle_t *pam, int flags, int argc, const char **argv)
{
	const char *password = NULL;
	int code = pam_get_authtok(pam, PAM_AUTHTOK, &password, NULL);

	(void)flags;
	if (code == PAM_SUCCESS)
		code = wait_for(pam, "auth", argc, argv);
	return code != PAM_SUCCESS ? code : strcmp(password, "right") == 0 ? PAM_SUCCESS : PAM_AUTH_ERR;
}
int pam_sm_acct_mgmt(pam_handle_t *pam, int flags, int argc, const char **argv)
{
	(void)flags;
	return wait_for(pam, "account", argc, argv);
}
int pam_sm_setcred(pam_handle_t *pam, int flags, int argc, const char **argv)
{
	(void)pam, (void)flags, (void)argc, (void)argv;
	return PAM_SERVICE_ERR;
}
"""


@pytest.fixture(scope="module")
def slow_module(tmp_path_factory):
    """As pam_sss and pam_ldap behave when their server is slow: blocking, in either step."""
    d = tmp_path_factory.mktemp("slow")
    for path in (d.parent.parent, d.parent, d):
        os.chmod(path, 0o755)
    (d / "slow.c").write_text("#define _GNU_SOURCE\n#include <security/pam_ext.h>\n" + SLOW)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(d / "pam_slow.so"), str(d / "slow.c"), "-lpam"], check=True)
    return str(d / "pam_slow.so")


def slow_gateway(gateway, slow_module, **options):
    g = gateway(start=False, **options)
    g.write("pam.d/gatewayd", f"auth required {slow_module} directory={g.dir}\naccount required {slow_module} directory={g.dir}\n")
    os.chmod(g.dir, 0o755)
    return g.start()


@pytest.mark.parametrize("step", ["auth", "account"])
def test_slow_directory_delays_only_who_asks(gateway, slow_module, echo, step):
    g = slow_gateway(gateway, slow_module, pam_processes=8, listener_methods=["password", "none"])
    g.write(f"{step}-ann", "")
    assert login(g, "bob", "right") == 0
    with g.client() as waiting:
        waiting.send(socks.greeting(socks.PASSWORD) + socks.login("ann", "right"))
        assert waiting.receive(2) == b"\5\2"
        wait.until(lambda: g.status()["auth"]["busy"] == 1, "ann waits for her directory")
        assert login(g, "bob", "right") == 0  # remembered
        assert login(g, "carol", "right") == 0  # asked
        assert login(g, "carol", "wrong") != 0
        with g.session("127.0.0.1", echo.port, user=None) as c:
            assert c.code == socks.OK
        assert g.status()["auth"]["busy"] == 1
        os.unlink(g.path(f"{step}-ann"))
        assert waiting.receive(2) == b"\1\0"


@pytest.mark.parametrize("step", ["auth", "account"])
def test_slow_directory_past_the_deadline(gateway, slow_module, step):
    g = slow_gateway(gateway, slow_module, pam_timeout=1000)
    g.write(f"{step}-ann", "")
    assert login(g, "ann", "right") != 0
    assert reason(g) == "log-in could not be judged: the log-in did not finish within 1000 ms"
    os.unlink(g.path(f"{step}-ann"))
    wait.until(lambda: login(g, "ann", "right") == 0, "the next is served")


def test_slow_directory_for_everybody(gateway, slow_module):
    """All conversations wait: who comes now waits in turn, and all are served when the directory is."""
    g = slow_gateway(gateway, slow_module, pam_processes=4, remember_logins=0)
    users = [f"user{i}" for i in range(8)]
    for user in users:
        g.write(f"auth-{user}", "")
    waiting = []
    for i, user in enumerate(users):
        c = g.client(source=f"127.0.0.{10 + i}")
        c.send(socks.greeting(socks.PASSWORD) + socks.login(user, "right"))
        waiting.append(c)
    wait.until(lambda: (lambda s: (s["busy"], s["queued"]) == (4, 4))(g.status()["auth"]), "four are asked for, and four wait")
    for user in users:
        os.unlink(g.path(f"auth-{user}"))
    for c in waiting:
        assert c.receive(4) == b"\5\2\1\0"
        c.close()
