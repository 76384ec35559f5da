"""PAM: modules that sleep, fail, delay; nobody else waits for them."""

import os

from harness import processes, servers, socks, wait
from harness.gateway import crypt

SLOW = """\
auth optional pam_exec.so quiet {dir}/slow.sh
auth required pam_pwdfile.so nodelay pwdfile={dir}/users
account required pam_permit.so
"""

USERS = {f"user{i}": f"pass{i}" for i in range(100)}


def slow_gateway(gateway, **kwargs):
    g = gateway(users={**USERS, "sleepy": "x"}, pam=SLOW, start=False, **kwargs)
    g.write("slow.sh", '#!/bin/sh\n[ "$PAM_USER" = sleepy ] && exec sleep 200\nexit 0\n')
    os.chmod(g.path("slow.sh"), 0o755)
    return g.start()


def begin(g, user, password, source):
    c = g.client(source=source)
    c.send(socks.greeting(socks.PASSWORD) + socks.login(user, password))
    return c


def test_a_module_that_sleeps_for_one_user_delays_nobody_else(gateway, echo):
    g = slow_gateway(gateway)
    sleepers = [begin(g, "sleepy", "x", "127.0.2.1") for _ in range(4)]
    clients = [begin(g, user, password, f"127.0.1.{i + 1}") for i, (user, password) in enumerate(USERS.items())]
    for c in clients:
        assert c.receive(4) == b"\5\2\1\0"
    assert all(c.silent_for(0.01) for c in [sleepers[0]] + sleepers[1:] if c.receive(2) == b"\5\2")
    for c in clients:
        with c:
            assert c.request("127.0.0.1", echo.port) == socks.OK
            c.echo(b"x")
    for c in sleepers:
        c.close()
    assert len(g.wait_rows(100, event="open")) == 100


def test_a_conversation_past_its_deadline_is_ended(gateway, echo):
    g = slow_gateway(gateway, pam_timeout=1000)
    with begin(g, "sleepy", "x", "127.0.2.1") as c:
        assert c.receive(2) == b"\5\2"
        assert c.receive(2)[1] != 0
    row = g.row(event="login-failed")
    assert row["user"] == "sleepy"

    def served():
        with begin(g, "user1", "pass1", "127.0.2.2") as c:
            return c.receive(4) == b"\5\2\1\0" and c.request("127.0.0.1", echo.port) == socks.OK

    wait.until(served, "the next one, who on a busy machine may be late, too")


def test_the_fail_delay_blocks_no_conversation(gateway, echo):
    """pam_pwdfile asks for two seconds after a wrong password: they pass beside other log-ins, in one PAM process."""
    g = gateway(pam="auth required pam_pwdfile.so pwdfile={dir}/users\naccount required pam_permit.so\n", pam_processes=1)
    wrong = [begin(g, "ann", "wrong", f"127.0.3.{i + 1}") for i in range(10)]
    for c in wrong:
        assert c.receive(2) == b"\5\2"
    with g.session("127.0.0.1", echo.port) as c:
        assert c.code == socks.OK
    for c in wrong:
        with c:
            assert c.receive(2)[1] != 0


def test_pool_grows_and_shrinks(gateway):
    """Between its bounds: as many as log-ins wait for, and back to the fewest when they are through."""
    g = slow_gateway(gateway, pam_processes=8, pam_processes_min=1, pam_idle_timeout=200)
    assert len(g.pids("pam")) == 1
    waiting = [begin(g, "sleepy", "x", f"127.0.2.{i}") for i in range(1, 3)]
    wait.until(lambda: len(g.pids("pam")) >= 2, "one more for the second who waits")
    clients = [begin(g, user, password, f"127.0.1.{i + 1}") for i, (user, password) in enumerate(USERS.items())]
    for c in clients:
        assert c.receive(4) == b"\5\2\1\0"
        c.close()
    assert len(g.pids("pam")) <= 8
    for c in waiting:
        c.close()
    for pid in processes.of_role(g, "pam"):
        processes.kill(pid)  # who sleeps
    wait.until(lambda: len(g.pids("pam")) == 1, "the fewest again")
    wait.until(lambda: len(processes.of_role(g, "pam")) == 1, "and no other lives")
    with begin(g, "user1", "pass1", "127.0.1.1") as c:
        assert c.receive(4) == b"\5\2\1\0"


def test_account_that_is_barred(gateway):
    g = gateway(pam="auth required pam_pwdfile.so nodelay pwdfile={dir}/users\naccount required pam_deny.so\n")
    with g.client() as c:
        c.greet(socks.PASSWORD)
        assert c.login("ann", "ann-pass") != 0
    assert g.row(event="login-failed")["user"] == "ann"


def test_missing_service_denies(gateway):
    g = gateway(listener_pam_service="absent")
    with g.client() as c:
        c.greet(socks.PASSWORD)
        assert c.login("ann", "ann-pass") != 0
    assert g.row(event="login-failed")["user"] == "ann"


def test_missing_module_denies(gateway):
    g = gateway(pam="auth required pam_that_is_not_there.so\naccount required pam_permit.so\n")
    with g.client() as c:
        c.greet(socks.PASSWORD)
        assert c.login("ann", "ann-pass") != 0


def test_changed_password_counts_at_once(gateway, echo):
    g = gateway()
    g.session("127.0.0.1", echo.port).close()
    g.write("users", "ann:" + crypt(["other"])[0] + "\n")
    with g.session("127.0.0.1", echo.port, user="ann", password="other") as c:
        assert c.code == socks.OK


def test_user_case_is_folded_only_on_demand(gateway, echo):
    for fold in (False, True):
        g = gateway(fold_user_case=fold)
        with g.client() as c:
            c.greet(socks.PASSWORD)
            assert (c.login("ANN", "ann-pass") == 0) == fold
            if fold:
                assert c.request("127.0.0.1", echo.port) == socks.OK
                assert g.row(event="open")["user"] == "ann"


def test_password_of_any_bytes_but_control(gateway, echo):
    password = "pä ss:$`'\"\\#=%-ÿ"
    g = gateway(start=False)
    g.write("users", "ann:" + crypt_bytes(password.encode()) + "\n")
    g.start()
    with g.session("127.0.0.1", echo.port, password=password.encode()) as c:
        assert c.code == socks.OK


def crypt_bytes(password):
    return crypt([password.decode("latin-1")])[0]
