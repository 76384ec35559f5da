"""No password anywhere: not in a log, an audit file, an environment, a core file, nor left over in a process' memory."""

import os
import re
import signal

import pytest

from harness import processes, socks, wait
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


@pytest.mark.root
def test_no_core_file(gateway, echo):
    """A crash with a password in hand leaves nothing: cores are off, and the process is closed to others."""
    g = gateway(users=USERS, start=False)
    g.write("slow.sh", "#!/bin/sh\nexec sleep 600\n")
    os.chmod(g.path("slow.sh"), 0o755)
    g.write("pam.d/gatewayd", f"auth optional pam_exec.so quiet {g.path('slow.sh')}\n{g.pam_lines()}")
    g.start()
    with g.client() as c:
        c.send(socks.greeting(socks.PASSWORD) + socks.login("ann", USERS["ann"]))
        wait.until(lambda: g.status()["auth"]["busy"] == 1, "a conversation is under way")
        if not sanitized():  # the child that is at it holds it (so the search finds what there is), and nobody else
            assert sum(memory_with_secrets(pid) != [] for pid in processes.of_role(g, "pam")) == 1
            assert [memory_with_secrets(pid) for pid in processes.of_role(g, "auth") + processes.of_role(g, "worker")] == [[], [], []]
        for pid in processes.of_role(g, "pam") + processes.of_role(g, "auth"):
            with open(f"/proc/{pid}/limits", encoding="utf-8") as f:
                assert re.search(r"^Max core file size +0 +0 ", f.read(), re.M)
            assert os.stat(f"/proc/{pid}/mem").st_uid == 0 and os.stat(f"/proc/{pid}/environ").st_mode & 0o77 == 0
            os.kill(pid, signal.SIGQUIT)  # it dumps core like a fault, and no sanitizer catches it
        assert c.receive_all()[2:] == b"\1\1"
    cores = [n for where in (g.dir, g.path("state"), "/tmp", "/") for n in os.listdir(where) if n.startswith("core")]
    assert cores == [] and files_with_secrets(g.dir) == []
