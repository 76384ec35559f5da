"""Guessing is slow for who guesses, and for nobody else."""

import json
import os
import socket
import threading

from harness import processes, socks, wait

FAST_PAM = "auth required pam_pwdfile.so nodelay pwdfile={dir}/users\naccount required pam_permit.so\n"


def login(g, user="ann", password="ann-pass", source=None):
    with g.client(source=source) as c:
        assert c.greet(socks.PASSWORD) == socks.PASSWORD
        return c.login(user, password)


def reasons(g, n, **equal):
    return [r["reason"] for r in g.wait_rows(n, event="login-failed", **equal)]


def test_who_guesses_waits(gateway):
    g = gateway(throttle_user_failures=3, throttle_first_wait=60000, remember_logins=0)
    for i in range(4):
        assert login(g, password=f"guess{i}", source="127.0.0.2") != 0
    assert login(g, source="127.0.0.2") != 0  # also with the right password
    assert login(g, source="127.0.0.3") == 0
    assert login(g, "bob", "bob-pass", source="127.0.0.2") == 0
    told = reasons(g, 5)
    denied = [r for r in told if r.startswith("log-in denied: wrong password")]  # rows of two workers: in no order
    assert len(denied) == 4 and sum(r.endswith("judged in 60 s") for r in denied) == 1, told
    assert sum(r.startswith("log-in throttled: too many") for r in told) == 1, told


def test_a_clock_that_is_set_ends_no_wait(gateway):
    g = gateway(clock=True, throttle_user_failures=2, throttle_first_wait=600000, throttle_longest_wait=600000, remember_logins=0)
    for i in range(3):
        login(g, password=f"guess{i}", source="127.0.0.2")
    for moment in ("2036-11-20 10:00", "2016-11-20 10:00"):
        g.set_time(moment)
        assert login(g, source="127.0.0.2") != 0
        waits = [r["wait_ms"] for r in json.loads(g.ctl("auth", "list", "--format", "json").out)["throttled"] if r["user"] == "ann"]
        assert len(waits) == 1 and 0 < waits[0] <= 600000, waits


def test_listed_and_unlocked(gateway):
    g = gateway(throttle_user_failures=2, throttle_first_wait=60000)
    for i in range(3):
        login(g, password=f"guess{i}", source="127.0.0.2")
    listed = json.loads(g.ctl("auth", "list", "--format", "json").out)
    assert [(r["client"], r["user"], r["failures"], r["wait_ms"] > 0) for r in listed["throttled"]] == [
        ("127.0.0.2/32", "ann", 3, True), ("127.0.0.2/32", "", 3, False)]
    table = g.ctl("auth", "list").out
    assert "127.0.0.2/32" in table and "ann" in table and "(all)" in table
    assert login(g, source="127.0.0.2") != 0
    assert g.ctl("auth", "unlock", "--user", "ann", "--client", "127.0.0.0/8").out.startswith("1 record")
    assert login(g, source="127.0.0.2") == 0
    assert g.row(event="admin")["reason"] == "auth unlock: 127.0.0.0/8, user ann"


def test_throttles_are_recorded(gateway):
    """An episode is a row when it begins and one when it ends, whoever tries how often in between."""
    g = gateway(throttle_user_failures=2, throttle_first_wait=60000, throttle_prefix_ipv4=24, remember_logins=0)
    for i in range(9):
        login(g, password=f"guess{i}", source=f"127.0.4.{i + 1}")
    row = g.row(event="throttle")
    assert (row["user"], row["client"]) == ("ann", "127.0.4.0")
    assert row["reason"] == "begun: log-ins of this user from 127.0.4.0/24 are refused for 60.0 s, 3 were denied"
    assert row["detail"] == {"network": "127.0.4.0/24", "failures": 3, "wait_ms": 60000}
    g.ctl("auth", "unlock", "--user", "ann")
    over = g.wait_rows(2, event="throttle")[-1]
    assert over["reason"].startswith("unlocked: log-ins of this user from 127.0.4.0/24 are judged again; 6 were refused in ")
    assert over["detail"] == {"network": "127.0.4.0/24", "failures": 3, "refused": 6}
    table = g.ctl("audit", "query", "--event", "throttle").out
    assert table.count("127.0.4.0") >= 2 and "begun: " in table
    assert login(g, source="127.0.4.77") == 0


def test_a_success_ends_a_throttle(gateway):
    g = gateway(throttle_user_failures=2, throttle_first_wait=100, remember_logins=0)
    for i in range(3):
        login(g, password=f"guess{i}", source="127.0.0.2")
    wait.until(lambda: login(g, source="127.0.0.2") == 0, "the wait is over")
    told = [r["reason"].split(":")[0] for r in g.wait_rows(2, event="throttle")]
    assert told == ["begun", "over"]


def test_throttles_are_recorded_by_another_control(gateway):
    """One that takes over hears of the episodes that begin, and of the end of those that it has not heard begin."""
    g = gateway(throttle_user_failures=2, throttle_first_wait=60000)
    for i in range(3):
        login(g, password=f"guess{i}", source="127.0.0.2")
    g.row(event="throttle", user="ann")
    control = processes.of_role(g, "control")[0]
    processes.kill(control)
    wait.until(lambda: processes.of_role(g, "control") not in ([], [control]), "another control")
    for i in range(3):
        login(g, "bob", f"guess{i}", source="127.0.0.2")
    g.wait_rows(1, event="throttle", user="bob")
    g.ctl("auth", "unlock")
    assert g.wait_rows(2, event="throttle", user="ann")[-1]["reason"].startswith("unlocked: ")


def test_long_names_are_listed_as_far_as_they_fit(gateway):
    """Each byte of such a name takes five in the answer."""
    g = gateway(throttle_user_failures=2, throttle_client_failures=100, pam=FAST_PAM)
    for i in range(60):
        with g.client(source="127.0.0.2") as c:
            assert c.greet(socks.PASSWORD) == socks.PASSWORD
            c.send(b"\1\xff" + b"%02d" % i + b"\xff" * 253 + b"\1x")
            assert c.receive_all() == b"\1\1"
    listed = json.loads(g.ctl("auth", "list", "--format", "json").out)
    assert len(listed["throttled"]) > 20 and len(listed["throttled"]) + listed["left_off"] == 61, listed


def test_a_network_that_tries_many_names_waits(gateway):
    g = gateway(throttle_client_failures=5, throttle_first_wait=60000, throttle_prefix_ipv4=24)
    assert login(g, "bob", "bob-pass", source="127.0.5.9") == 0
    for i in range(6):
        assert login(g, f"nobody{i}", "x", source=f"127.0.5.{i + 1}") != 0
    assert login(g, "ann", "ann-pass", source="127.0.5.200") != 0
    assert login(g, "ann", "ann-pass", source="127.0.6.1") == 0
    # Bob has logged in from there lately.
    assert login(g, "bob", "bob-pass", source="127.0.5.77") == 0


def test_unknown_users_read_what_others_read(gateway):
    g = gateway(throttle_user_failures=2, throttle_first_wait=60000)
    answers = {}
    for source, user in (("127.0.0.2", "ann"), ("127.0.0.3", "there-is-no-such-user")):
        answers[user] = []
        for i in range(4):
            with g.client(source=source) as c:
                c.send(socks.greeting(socks.PASSWORD) + socks.login(user, f"guess{i}"))
                answers[user].append(c.receive_all())
    assert answers["ann"] == answers["there-is-no-such-user"] == [b"\5\2\1\1"] * 4


def test_the_same_wrong_password_again(gateway):
    """A program with an old password asks PAM once in a while, whether guesses are slowed down or not."""
    g = gateway(throttle_user_failures=0, throttle_client_failures=0)
    for _ in range(5):
        assert login(g, password="old") != 0
    told = reasons(g, 5)
    assert sum(r == "log-in denied: the same password was denied a moment ago" for r in told) == 4, told
    assert g.status()["auth"]["conversations"] == 1
    assert json.loads(g.ctl("auth", "list", "--format", "json").out)["throttled"] == []
    assert login(g) == 0


def test_bad_commands(gateway):
    g = gateway()
    for arguments in (["auth"], ["auth", "open"], ["auth", "forget"], ["auth", "list", "--user", "ann"], ["auth", "forget", "a", "b"],
                      ["auth", "unlock", "--client"]):
        assert g.ctl(*arguments, check=False).returncode == 2, arguments
    done = g.ctl("auth", "unlock", "--client", "10.0.0.1/8", check=False)
    assert done.returncode == 1 and "prefix" in done.err


# Of each of 50 addresses; "make check-long" has all 10,000.
GUESSES = 200 if os.environ.get("GATEWAYD_TEST_FULL") else 40


def test_ten_thousand_guesses_do_not_keep_the_user_out(gateway, echo):
    """50 addresses guess at ann's password all the time; ann, from her own address, is never refused."""
    g = gateway(pam=FAST_PAM, remember_logins=0)
    guesses, refused = [0], [0]
    lock = threading.Lock()
    done = threading.Event()

    def guess(address):
        for i in range(GUESSES):
            try:
                with g.client(source=address) as c:
                    c.send(socks.greeting(socks.PASSWORD) + socks.login("ann", f"{address} {i}"))
                    answer = c.receive(4)
            except (ConnectionError, socket.timeout):
                answer = None
            with lock:
                guesses[0] += 1
                refused[0] += answer == b"\5\2\1\1"

    attackers = [threading.Thread(target=guess, args=(f"127.0.77.{i + 1}",)) for i in range(50)]
    for t in attackers:
        t.start()

    def watch():
        for t in attackers:
            t.join()
        done.set()

    threading.Thread(target=watch, daemon=True).start()
    tries = 0
    while not done.is_set() or tries < 20:
        with g.session("127.0.0.1", echo.port, source="127.0.88.1") as c:
            assert c.code == socks.OK
        tries += 1
    assert (guesses[0], refused[0]) == (50 * GUESSES, 50 * GUESSES)
    status = g.status()["auth"]
    # Few of the guesses were judged at all: what is free of charge, and what the waits let through.
    assert status["conversations"] - tries <= 50 * 20, status
    assert status["throttled"] > 50 * (GUESSES - 20) * 4 // 5, status
    assert all(r["user"] == "ann" and r["client"].startswith("127.0.77.") for r in g.rows("--limit", "20000", event="login-failed"))
