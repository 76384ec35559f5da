"""How many sessions a listener, a client and a user may have and begin, over all workers; and how old one may grow."""

import os
import signal
import time

from harness import socks, wait


def several(g, echo, n, **kwargs):
    return [g.session("127.0.0.1", echo.port, **kwargs) for _ in range(n)]


def close(sessions):
    for s in sessions:
        s.close()


def test_sessions_of_a_client_over_all_workers(gateway, echo):
    g = gateway(workers=2, listener_max_sessions_per_client=4)
    held = several(g, echo, 4)
    assert [s.code for s in held] == [socks.OK] * 4
    with g.session("127.0.0.1", echo.port) as late:
        assert late.code == socks.FAILURE
    row = g.row(event="denied")
    assert row["reason"] == "limit reached: this client has as many sessions as it may"
    held.pop().close()

    def again():
        with g.session("127.0.0.1", echo.port) as s:
            return s.code == socks.OK

    wait.until(again, "one more session")
    held[0].echo(b"the others go on")
    close(held)


def test_sessions_of_a_user(gateway, echo):
    g = gateway(users={"ann": "ann-pass", "bob": "bob-pass"}, listener_max_sessions_per_user=1)
    with g.session("127.0.0.1", echo.port) as first:
        assert first.code == socks.OK
        with g.session("127.0.0.1", echo.port) as second:
            assert second.code == socks.FAILURE
        with g.session("127.0.0.1", echo.port, user="bob", password="bob-pass") as other:
            assert other.code == socks.OK


def test_rate_of_a_client(gateway, echo):
    """Ten at once, then ten a second: however slow the machine, no more than its time allows."""
    g = gateway(listener_max_rate_per_client=10)
    codes = []
    began = time.monotonic()
    while socks.FAILURE not in codes:
        with g.session("127.0.0.1", echo.port) as s:
            codes.append(s.code)
        assert codes.count(socks.OK) <= 10 + 10 * (time.monotonic() - began) + 1
    assert codes[:10] == [socks.OK] * 10
    assert g.row(event="denied")["reason"] == "limit reached: this client begins as many sessions a second as it may"


def test_counts_survive_the_death_of_who_counts(gateway, echo):
    g = gateway(workers=2, listener_max_sessions=3)
    held = several(g, echo, 3)
    old = g.pids("auth")
    os.kill(old[0], signal.SIGKILL)
    wait.until(lambda: g.pids("auth") not in ([], old), "a new auth master")

    def refused():
        with g.session("127.0.0.1", echo.port) as s:
            return s.code == socks.FAILURE

    wait.until(refused, "a refusal by the new master")
    assert "as many sessions as it may" in g.wait_rows(1, event="denied")[0]["reason"]
    close(held)


def test_a_dead_worker_gives_back_what_it_held(gateway, echo):
    g = gateway(workers=1, listener_max_sessions=2)
    held = several(g, echo, 2)
    os.kill(g.pids("worker")[0], signal.SIGKILL)

    def served():
        try:
            with g.session("127.0.0.1", echo.port) as s:
                return s.code == socks.OK
        except (OSError, AssertionError):
            return False

    wait.until(served, "a session of the new worker")
    close(held)


def test_max_session_age(gateway, echo):
    g = gateway(max_session_age=300)
    with g.session("127.0.0.1", echo.port) as s:
        assert s.code == socks.OK
        s.echo(b"young")
        assert s.receive_all() == b""
    assert g.row(event="ended")["reason"] == "maximum session age"
