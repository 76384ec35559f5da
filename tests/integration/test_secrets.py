"""No password anywhere: not in a log, an audit file, an environment, a core file, nor left over in a process' memory."""

import os
import re
import resource
import signal
import subprocess

import pytest

from harness import kdc, processes, socks, wait
from harness.gateway import sanitized

USERS = {"ann": "Correct-Horse-0417-ann", "bob": "Battery-Staple-9923-bob"}
WRONG = "Wrong-Guess-5531-ann"
UNUSUAL = "Unusual\x01Byte-7781-ann"


def use(g, echo):
    """Log-ins of every outcome: granted, denied, refused by the throttle, never judged, given up, remembered."""
    for user, password in USERS.items():
        for _ in range(2):
            with g.session("127.0.0.1", echo.port, user=user, password=password) as c:
                assert c.code == socks.OK
                c.echo(b"x")
    for i in range(8):
        with g.client(source="127.0.0.2") as c:
            c.greet(socks.PASSWORD)
            assert c.login("ann", f"{WRONG}{i}") != 0
    with g.client() as c:
        c.greet(socks.PASSWORD)
        assert c.login("ann", UNUSUAL) != 0
    with g.client() as c:  # cut in the middle of the password
        c.greet(socks.PASSWORD)
        c.send(socks.login("ann", USERS["ann"])[:-3])
    clients = [g.client() for _ in range(50)]  # gone before they are answered
    for c in clients:
        c.send(socks.greeting(socks.PASSWORD) + socks.login("bob", USERS["bob"]))
    for c in clients:
        c.close()
    wait.until(lambda: g.status()["auth"]["queued"] == 0 and g.status()["auth"]["busy"] == 0, "all log-ins are over")


SECRETS = re.compile(b"|".join(re.escape(t) for t in (b"Correct-Horse-0417", b"Battery-Staple-9923", b"Wrong-Guess-5531", b"Byte-7781")))


def files_with_secrets(top):
    found = []
    for directory, _, names in os.walk(top):
        for name in names:
            path = os.path.join(directory, name)
            if os.path.isfile(path):
                with open(path, "rb") as f:
                    if SECRETS.search(f.read()):
                        found.append(os.path.relpath(path, top))
    return found


def memory_with_secrets(pid):
    """What of the passwords is in a process' writable memory, and where."""
    found = []
    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem:
        for line in maps:
            span, mode, *rest = line.split(maxsplit=5)
            if "w" not in mode or "r" not in mode:
                continue
            begin, end = (int(x, 16) for x in span.split("-"))
            mem.seek(begin)
            try:
                data = mem.read(end - begin)
            except OSError:
                continue
            found += [(rest[-1] if len(rest) > 3 else "anonymous", data[max(0, m.start() - 160):m.end() + 64]) for m in SECRETS.finditer(data)]
    return found


def test_no_file_and_no_environment(gateway, echo):
    g = gateway(users=USERS, log_level="debug", throttle_user_failures=3)
    use(g, echo)
    g.wait_rows(8, event="login-failed", user="ann")
    assert files_with_secrets(g.dir) == []
    for pid in g.pids():
        with open(f"/proc/{pid}/environ", "rb") as f:
            assert not SECRETS.search(f.read()), pid
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            assert not SECRETS.search(f.read()), pid


@pytest.mark.root
@pytest.mark.skipif(sanitized(), reason="a sanitizer keeps freed memory as it was written by others")
def test_no_memory_after_log_ins(gateway, echo):
    g = gateway(users=USERS, throttle_user_failures=3)
    use(g, echo)
    for pid, role in g.pids().items():
        if role != "pam":
            assert memory_with_secrets(pid) == [], role


@pytest.mark.root
@pytest.mark.skipif(sanitized(), reason="a sanitizer keeps freed memory as it was written by others")
def test_what_modules_leave_is_a_child_s_own(gateway, echo):
    """A module may leave what it likes in the memory of its process: our own copies there are gone all the same."""
    g = gateway(users=USERS, pam="auth required pam_pwdfile.so nodelay pwdfile={dir}/users\naccount required pam_permit.so\n")
    use(g, echo)
    left = [found for pid in g.pids("pam") for found in memory_with_secrets(pid)]
    assert left == []


# ---- memory that stays in memory, and cores that are none ----------------------------------------------------------------


def test_secrets_wait_in_locked_memory(gateway):
    g = gateway()
    for role in ("worker", "auth", "pam"):
        for pid in g.pids(role):
            assert int(processes.status(pid)["VmLck"].split()[0]) > 0, role
    assert "swapped out" not in g.log()


@pytest.mark.root
@pytest.mark.skipif(sanitized(), reason="a sanitizer has a heap of its own, and locks nothing")
def test_what_modules_copy_is_locked_too(gateway, echo):
    """Heap and stack of each conversation child, as large as they get by log-ins."""
    g = gateway(remember_logins=0)
    for user in ("ann", "bob"):
        with g.session("127.0.0.1", echo.port, user=user, password=f"{user}-pass") as c:
            assert c.code == socks.OK
    for pid in g.pids("pam"):
        locked = {}
        with open(f"/proc/{pid}/smaps", encoding="ascii") as f:
            for line in f:
                if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                    name = line.split()[-1]
                elif line.startswith("VmFlags:"):
                    locked.setdefault(name, []).append("lo" in line.split())
        assert locked["[heap]"] == locked["[stack]"] == [True], locked
    assert "swapped out" not in g.log()


@pytest.mark.root
def test_without_a_right_to_locked_memory(gateway, echo):
    """It works all the same, and the log says what that means."""
    g = gateway(as_user="nobody", limits={resource.RLIMIT_MEMLOCK: 0})
    with g.session("127.0.0.1", echo.port, user="ann", password="ann-pass") as c:
        assert c.code == socks.OK
    assert "secrets in memory may be swapped out: " in g.log() and "RLIMIT_MEMLOCK is 0 bytes" in g.log()
    assert g.log().count("what PAM modules copy of passwords may be swapped out: ") == 1


def cores(g):
    return [n for where in (g.dir, *(g.path("state", d) for d in ("", "audit", "policy", "gssapi")), "/") if os.path.isdir(where)
            for n in os.listdir(where) if n.startswith("core")]


def slow_and_password(gateway, **options):
    """One whose first log-in waits for a module."""
    g = gateway(users=USERS, start=False, **options)
    g.write("slow.sh", "#!/bin/sh\nexec sleep 600\n")
    os.chmod(g.path("slow.sh"), 0o755)
    g.write("pam.d/gatewayd", f"auth optional pam_exec.so quiet {g.path('slow.sh')}\n{g.pam_lines()}")
    return g


@pytest.mark.root
def test_no_core_file(gateway):
    """A crash with a password in hand leaves nothing: cores are off, and the process is closed to others."""
    before = cores(gateway(start=False))
    g = slow_and_password(gateway, limits={resource.RLIMIT_CORE: resource.RLIM_INFINITY})
    g.start()
    with g.client() as c:
        c.send(socks.greeting(socks.PASSWORD) + socks.login("ann", USERS["ann"]))
        wait.until(lambda: g.status()["auth"]["busy"] == 1, "a conversation is under way")
        if not sanitized():  # the child that is at it holds it (so the search finds what there is), and nobody else
            wait.until(lambda: sum(memory_with_secrets(pid) != [] for pid in processes.of_role(g, "pam")) == 1, "it has got it")
            others = processes.of_role(g, "auth") + processes.of_role(g, "worker")
            wait.until(lambda: [memory_with_secrets(pid) for pid in others] == [[], [], []], "who handed it on has wiped it")
        for role in ("pam", "auth", "worker", "control", "recorder"):
            for pid in processes.of_role(g, role):
                with open(f"/proc/{pid}/limits", encoding="utf-8") as f:
                    assert re.search(r"^Max core file size +0 +0 ", f.read(), re.M), role
                assert os.stat(f"/proc/{pid}/mem").st_uid == 0 and os.stat(f"/proc/{pid}/environ").st_mode & 0o77 == 0
                os.kill(pid, signal.SIGQUIT)  # it dumps core like a fault, and no sanitizer catches it
            wait.until(lambda: all(processes.of_role(g, r) for r in ("pam", "auth", "worker", "control", "recorder")), "they are replaced")
    assert cores(g) == before and files_with_secrets(g.dir) == []


@pytest.mark.root
@pytest.mark.skipif(not kdc.available(), reason="needs krb5-kdc, krb5-admin-server, krb5-user and python3-gssapi")
def test_no_key_in_any_file(gateway, echo):
    """Neither passwords nor keys, of tickets or of the gateway, nor what was protected, are in the log, the audit, the policy store, or
    another file of the gateway; nor in an environment; nor in a core, of which there is none."""
    realm = kdc.Realm({"ann": USERS["ann"]})
    try:
        before = cores(gateway(start=False))
        g = gateway(users=USERS, log_level="debug", listener_methods=["gssapi", "password"], gssapi_keytab=realm.keytab,
                    gssapi_krb5_conf=realm.conf, listener_gssapi_protection="none", limits={resource.RLIMIT_CORE: resource.RLIM_INFINITY})
        use(g, echo)
        ticket = realm.kinit("ann", USERS["ann"])
        payload = b"Plain-Payload-6620-" * 50
        for level in (kdc.NONE, kdc.INTEGRITY, kdc.CONFIDENTIALITY):
            with kdc.Client(g.address, ticket) as c:
                assert c.login(level) == level
                assert c.request("127.0.0.1", echo.port) == socks.OK
                c.echo(payload)
        with kdc.Client(g.address, ticket) as c:  # cut in the middle of a message
            assert c.login(kdc.CONFIDENTIALITY) == kdc.CONFIDENTIALITY
            c.send(kdc.frame(c.wrap(payload))[:-7])
        g.wait_rows(3, event="open", method="gssapi")
        keys = kdc.ticket_keys(ticket) + kdc.keytab_keys(realm.keytab)
        assert len(keys) >= 3 and all(len(k) >= 16 for k in keys)
        texts = [*USERS.values(), WRONG, "Byte-7781", "Plain-Payload-6620"]
        needles = [t.encode() for t in texts] + keys + [k.hex().encode() for k in keys]
        for pid, role in g.pids().items():
            with open(f"/proc/{pid}/environ", "rb") as f:
                environment = f.read()
            assert not any(n in environment for n in needles), role
        for pid in g.pids("gssapi"):
            os.kill(pid, signal.SIGQUIT)
        wait.until(lambda: g.pids("gssapi") and len(g.pids("gssapi")) == 1, "another is there")
        found = []
        for directory, _, names in os.walk(g.dir):
            for name in names:
                path = os.path.join(directory, name)
                if os.path.isfile(path):
                    with open(path, "rb") as f:
                        content = f.read()
                    found += [(os.path.relpath(path, g.dir), n) for n in needles if n in content]
        assert found == []
        assert cores(g) == before
    finally:
        realm.close()


def test_a_core_would_be_found(tmp_path):
    """Where this host writes cores beside the process that died: so that a search that finds none means something."""
    with open("/proc/sys/kernel/core_pattern", encoding="utf-8") as f:
        if not f.read().startswith("core"):
            pytest.skip("this host writes cores elsewhere")
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        pytest.skip("this host allows no cores")
    limit = lambda: resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
    p = subprocess.Popen(["sleep", "600"], cwd=tmp_path, preexec_fn=limit)
    p.send_signal(signal.SIGQUIT)
    assert p.wait(wait.seconds(40)) == -signal.SIGQUIT
    assert [n for n in os.listdir(tmp_path) if n.startswith("core")] != []
