"""PAM modules as Debian ships them, through a gateway: what each says, and what the audit says about it."""

import os
import subprocess
import time

import pytest

from harness import socks, wait
from harness.gateway import GROUPS, crypt, sanitized

ACCOUNT = "account required pam_permit.so\n"


def login(g, user="ann", password="ann-pass", source=None):
    with g.client(source=source) as c:
        assert c.greet(socks.PASSWORD) == socks.PASSWORD
        return c.login(user, password)


def reason(g, **equal):
    return g.wait_rows(1, event="login-failed", **equal)[-1]["reason"]


def script(g, name, text):
    g.write(name, f"#!/bin/sh\n{text}")
    os.chmod(g.path(name), 0o755)
    return g.path(name)


def with_script(gateway, text, after="", **options):
    g = gateway(start=False, **options)
    path = script(g, "module.sh", text.format(dir=g.dir))
    g.write("pam.d/gatewayd", f"auth required pam_exec.so quiet expose_authtok {path}\n{after}{ACCOUNT}")
    return g.start()


# ---- pam_unix: users that exist in a mount namespace only ------------------------------------------------------------

DAY = int(time.time() // 86400)

# name: (password, fields of the shadow file behind it: last change, min, max, warn, inactive, expires), see shadow(5)
ACCOUNTS = {
    "plain": ("plain-pass", f"{DAY - 10}:0:99999:7::"),
    "expired": ("expired-pass", f"{DAY - 10}:0:99999:7::{DAY - 1}"),
    "aged": ("aged-pass", f"{DAY - 100}:0:30:7:10:"),
    "mustchange": ("mustchange-pass", "0:0:99999:7::"),
    "locked": ("!", f"{DAY - 10}:0:99999:7::"),
}


@pytest.fixture(scope="module")
def unix(tmp_path_factory):
    """A wrapper that runs a command with passwd, shadow and group files of our own; the host's stay as they are."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False, stderr=subprocess.DEVNULL).returncode != 0:
        pytest.skip("needs mount namespaces")
    top = tmp_path_factory.mktemp("etc")
    with open("/etc/passwd", encoding="utf-8") as f:
        passwd = f.read()
    with open("/etc/group", encoding="utf-8") as f:
        group = f.read()
    hashes = crypt([p for p, _ in ACCOUNTS.values()])
    shadow = ""
    for i, (name, (password, fields)) in enumerate(ACCOUNTS.items()):
        passwd += f"gwt-{name}:x:{52000 + i}:52000:::/bin/false\n"
        shadow += f"gwt-{name}:{'!' if password == '!' else hashes[i]}:{fields}:\n"
    group += "gwt-primary:x:52000:\ngwt-second:x:52001:gwt-plain\n"
    for name, text, mode in (("passwd", passwd, 0o644), ("group", group, 0o644), ("shadow", shadow, 0o600)):
        (top / name).write_text(text)
        (top / name).chmod(mode)
    mounts = "; ".join(f"mount --bind {top}/{n} /etc/{n}" for n in ("passwd", "group", "shadow"))
    return ["unshare", "-m", "sh", "-ec", f'{mounts}; exec "$@"', "sh"]


def unix_gateway(gateway, unix, **options):
    g = gateway(pam="auth required pam_unix.so nodelay\naccount required pam_unix.so\n", start=False, **options)
    g.prefix = unix
    return g.start()


def test_pam_unix_grants_with_groups_of_nss(gateway, unix, echo):
    g = unix_gateway(gateway, unix, policy="rule second allow group gwt-second to cidr 127.0.0.0/8\ndefault deny\n")
    with g.session("127.0.0.1", echo.port, user="gwt-plain", password="plain-pass") as c:
        assert c.code == socks.OK
    assert set(g.row(event="open")["detail"]["groups"]) == {"gwt-primary", "gwt-second"}


@pytest.mark.parametrize("name, password, words", [
    ("plain", "wrong", "wrong password (pam_authenticate"),
    ("expired", "expired-pass", "the account has expired (pam_acct_mgmt"),
    ("aged", "aged-pass", "expired (pam_acct_mgmt"),
    ("mustchange", "mustchange-pass", "the password must be changed first (pam_acct_mgmt"),
    ("locked", "locked-pass", "wrong password (pam_authenticate"),
    ("nobody-at-all", "x", "(pam_authenticate"),
])
def test_pam_unix_refuses(gateway, unix, name, password, words):
    g = unix_gateway(gateway, unix)
    with g.client() as c:
        c.send(socks.greeting(socks.PASSWORD) + socks.login(f"gwt-{name}", password))
        assert c.receive_all() == b"\5\2\1\1"  # the client learns nothing of why
    told = reason(g, user=f"gwt-{name}")
    assert told.startswith("log-in denied: ") and words in told, told


# ---- other modules ---------------------------------------------------------------------------------------------------


def test_pam_faillock_locks_and_says_so(gateway):
    """Its own tally: locked there, the right password is refused, with the module's reason in the audit."""
    g = gateway(start=False, remember_logins=0)
    os.mkdir(g.path("tally"))
    options = f"dir={g.path('tally')} deny=3 unlock_time=600"
    g.write("pam.d/gatewayd", f"""\
auth requisite pam_faillock.so preauth {options}
auth sufficient pam_pwdfile.so nodelay pwdfile={g.path('users')}
auth [default=die] pam_faillock.so authfail {options}
account required pam_permit.so
""")
    g.write_users({"nobody": "nobody-pass"})  # pam_faillock tallies users that the system knows
    g.start()
    assert login(g, "nobody", "nobody-pass") == 0
    for i in range(3):
        assert login(g, "nobody", f"guess{i}") != 0
    assert login(g, "nobody", "nobody-pass") != 0
    assert "pam_authenticate" in reason(g)


def test_pam_time_bars(gateway):
    g = gateway(start=False)
    g.write("time.conf", "gatewayd;*;ann;!Al0000-2400\n")
    g.write("pam.d/gatewayd", g.pam_lines().replace("account required pam_permit.so",
                                                    f"account required pam_time.so conffile={g.path('time.conf')}"))
    g.start()
    assert login(g) != 0
    told = reason(g)
    assert "pam_acct_mgmt" in told and told.startswith("log-in denied: "), told
    assert login(g, "bob", "bob-pass") == 0


def test_pam_access_sees_the_client(gateway):
    """PAM_RHOST is the client's address.  (The module wants users that the system knows.)"""
    g = gateway(start=False, users={"nobody": "nobody-pass"})
    g.write("access.conf", "+:nobody:127.0.0.1\n-:ALL:ALL\n")
    g.write("pam.d/gatewayd", g.pam_lines().replace("account required pam_permit.so",
                                                    f"account required pam_access.so accessfile={g.path('access.conf')}"))
    g.start()
    assert login(g, "nobody", "nobody-pass") == 0
    assert login(g, "nobody", "nobody-pass", source="127.0.0.2") != 0
    assert "access is denied to this user (pam_acct_mgmt" in reason(g)


def test_service_of_the_listener(gateway):
    g = gateway(start=False, listener_pam_service="socks-lan")
    path = script(g, "module.sh", f'echo "$PAM_SERVICE $PAM_TYPE $PAM_RHOST" >>{g.path("seen")}\n')
    g.write("pam.d/socks-lan", f"auth required pam_exec.so quiet {path}\naccount required pam_exec.so quiet {path}\n")
    g.start()
    assert login(g) == 0
    with open(g.path("seen"), encoding="utf-8") as f:
        assert f.read().splitlines() == ["socks-lan auth 127.0.0.1", "socks-lan account 127.0.0.1"]


def test_second_factor_in_one_prompt(gateway):
    """Password and code in one answer, as modules with one prompt take them; each part wrong is refused."""
    g = with_script(gateway, '[ "$(tr -d "\\000")" = "ann-pass123456" ]\n')
    assert login(g, password="ann-pass123456") == 0
    assert login(g, password="ann-pass654321") != 0
    assert login(g, password="ann-pass") != 0


@pytest.mark.parametrize("text", ["kill -KILL $PPID\n"] + ([] if sanitized() else ["kill -SEGV $PPID\n"]))
def test_module_that_crashes(gateway, echo, text):
    """The conversation's process dies: its log-in is refused with a reason, the next is served."""
    g = with_script(gateway, '[ "$PAM_USER" = bob ] || {{ ' + text.strip() + '; sleep 60; }}\n', pam_processes=1)
    assert login(g) != 0
    assert reason(g) == "log-in could not be judged: the authentication process ended during the log-in"
    wait.until(lambda: login(g, "bob") == 0, "a new process serves")


def test_module_that_talks_garbage(gateway):
    """What a module prints, on all its descriptors, reaches neither client nor log; where it ends is all that counts."""
    g = with_script(gateway, "head -c 100000 /dev/urandom; head -c 100000 /dev/urandom >&2; echo x >&3; echo x >&7; exit 1\n")
    with g.client() as c:
        c.send(socks.greeting(socks.PASSWORD) + socks.login("ann", "ann-pass"))
        assert c.receive_all() == b"\5\2\1\1"
    assert "pam_authenticate" in reason(g)
    assert all(line.isprintable() for line in g.log().splitlines())


def test_module_that_sleeps(gateway, echo):
    g = with_script(gateway, '[ "$PAM_USER" = bob ] || exec sleep 600\n', pam_timeout=1000)
    assert login(g) != 0
    assert reason(g) == "log-in could not be judged: the log-in did not finish within 1000 ms"
    wait.until(lambda: login(g, "bob", "x") == 0, "the next one, who on a busy machine may be late, too")


def test_programs_of_modules_inherit_nothing(gateway):
    """Neither links between our processes, nor the configuration, nor the environment of the starter."""
    g = with_script(gateway, "ls -l /proc/$$/fd >{dir}/fds; env >{dir}/env; exit 0\n", environment={"SECRET_OF_THE_STARTER": "x"})
    assert login(g) == 0
    with open(g.path("fds"), encoding="utf-8") as f:
        held = f.read()
    assert "socket:" not in held and "memfd:" not in held, held
    with open(g.path("env"), encoding="utf-8") as f:
        assert "SECRET_OF_THE_STARTER" not in f.read()


@pytest.mark.parametrize("user, password, words", [
    (b"ann\0junk", b"ann-pass", "holds a NUL"),
    (b"ann", b"ann-pass\0junk", "holds a NUL"),
    (b"ann\n", b"ann-pass", "holds a control byte"),
    (b"ann", b"ann-pass\x7f", "holds a control byte"),
    (b"", b"ann-pass", "is empty"),
    (b"ann", b"", "is empty"),
])
def test_bytes_that_never_reach_pam(gateway, user, password, words):
    g = with_script(gateway, "echo >>{dir}/asked\n")
    assert login(g, user, password) != 0
    assert words in g.wait_rows(1, event="login-failed")[0]["reason"]
    assert not os.path.exists(g.path("asked"))


def test_longest_user_and_password(gateway):
    user, password = "u" * 255, "p" * 255
    g = gateway(users={user: password})
    assert login(g, user, password) == 0
    assert login(g, user, password[:-1]) != 0
    assert login(g, user[:-1], password) != 0


def test_name_that_a_module_maps(gateway, echo):
    """What PAM ends with is the user: rules and audit know that name, and its groups."""
    g = gateway(start=False, fold_user_case=True, policy="rule staff allow user ann group staff to cidr 127.0.0.0/8\ndefault deny\n")
    g.start()
    assert GROUPS["staff"] == ["ann"]
    with g.session("127.0.0.1", echo.port, user="ANN") as c:
        assert c.code == socks.OK
    assert g.row(event="open")["user"] == "ann"
