"""How many sessions a listener, a client and a user may have and begin, over all workers; and how old one may grow."""

import os
import signal
import time

import pytest

from harness import ports, socks, wait


def several(g, echo, n, **kwargs):
    return [g.session("127.0.0.1", echo.port, **kwargs) for _ in range(n)]


def close(sessions):
    for s in sessions:
        s.close()


def turned_away(g):
    """True if a new connection is closed without a byte; False if it is served."""
    try:
        with g.client() as c:
            c.send(socks.greeting(socks.PASSWORD))
            return c.receive(2) == b""
    except ConnectionError:
        return True


def test_sessions_of_a_client_over_all_workers(gateway, echo):
    g = gateway(workers=2, listener_max_sessions_per_client=4)
    held = several(g, echo, 4)
    assert [s.code for s in held] == [socks.OK] * 4
    assert turned_away(g)
    row = g.row(event="denied")
    assert row["reason"] == "limit reached: this client has as many sessions as it may"
    assert row["client"] == "127.0.0.1"
    held.pop().close()

    wait.until(lambda: not turned_away(g), "one more session")
    held[0].echo(b"the others go on")
    close(held)


def test_silent_connections_count(gateway, echo):
    """From the connection on, over all workers; what gives them back is the deadline of the handshake."""

    def attempt(ms):
        g = gateway(workers=2, listener_max_sessions_per_client=4, listener_handshake_timeout=ms, handshake_timeout=600000)
        with wait.within(ms):
            silent = [g.client() for _ in range(4)]
            wait.until(lambda: g.status()["workers"]["sessions"] == 4, "all of them are held", 10)
            assert turned_away(g)
            with g.client(source="127.0.0.2") as other:
                assert other.greet(socks.PASSWORD) == socks.PASSWORD
        for c in silent:
            assert c.receive_all() == b""
        wait.until(lambda: not turned_away(g), "room again")
        close(silent)

    wait.with_time_enough(attempt, 3000, 9000, 60000)


def test_silent_clients_do_not_close_a_listener(gateway, echo):
    """One address takes all of it and says nothing: it presses on itself, and nobody else is kept out."""
    g = gateway(workers=1, listener_max_sessions=8, listener_handshake_timeout=600000, handshake_timeout=600000)
    with g.client(source="127.0.0.3") as slow:  # the oldest of all, but one of its address
        assert slow.greet(socks.PASSWORD) == socks.PASSWORD
        silent = [g.client() for _ in range(7)]
        wait.until(lambda: g.status()["workers"]["sessions"] == 8, "all of them are held")
        with g.session("127.0.0.1", echo.port, source="127.0.0.2") as s:
            assert s.code == socks.OK
            s.echo(b"served")
            assert silent[0].receive_all() == b""
            assert slow.login("ann", "ann-pass") == 0
    assert g.row(event="denied")["reason"] == "limit reached: the listener is full, and this client was silent for long"
    close(silent)


# A module that has every refused client wait for as long as it may.
SLOW_REFUSALS = """\
auth optional pam_faildelay.so delay=600000000
auth required pam_pwdfile.so nodelay pwdfile={dir}/users
account required pam_permit.so
"""


def delayed_guesses(g, n):
    """Log-ins that have been refused, and whose clients have yet to hear of it."""
    guesses = [g.client(source="127.0.0.3") for _ in range(n)]
    for i, c in enumerate(guesses):
        assert c.greet(socks.PASSWORD) == socks.PASSWORD
        c.send(socks.login("ann", f"guess {i}"))
        wait.until(lambda i=i: g.ctl("session", "list", "--json").out.count('"state":"delaying"') > i, "it is delayed")
    return guesses


@pytest.mark.parametrize("limit", ["listener_max_sessions", "max_sessions"])
def test_guesses_do_not_close_a_listener(gateway, echo, limit):
    """Whose refusal is only delayed gives way, the oldest first, without a word; it is recorded as what it is."""
    g = gateway(workers=1, pam=SLOW_REFUSALS, handshake_timeout=600000, throttle_user_failures=0, throttle_client_failures=0, **{limit: 2})
    guesses = delayed_guesses(g, 2)
    with g.session("127.0.0.1", echo.port, source="127.0.0.2") as s:
        assert s.code == socks.OK
        assert guesses[0].receive_all() == b""
        s.echo(b"served")
        row = g.row(event="login-failed")
        assert (row["user"], row["client"], row["client_port"]) == ("ann", "127.0.0.3", guesses[0].socket.getsockname()[1])
        assert row["reason"].startswith("log-in denied")
        with g.session("127.0.0.1", echo.port, source="127.0.0.2") as other:
            assert other.code == socks.OK
            assert guesses[1].receive_all() == b""
        assert len(g.rows(event="login-failed")) == 2
    close(guesses)


def test_a_flood_of_one_address_ends_no_handshake_of_another(gateway):
    g = gateway(workers=1, listener_max_sessions=1, listener_handshake_timeout=600000, handshake_timeout=600000)
    with g.client(source="127.0.0.3") as slow:
        assert slow.greet(socks.PASSWORD) == socks.PASSWORD
        auth = g.pids("auth")[0]
        os.kill(auth, signal.SIGSTOP)
        try:
            flood = [g.client() for _ in range(20)]
            wait.until(lambda: g.status()["workers"]["sessions"] == 21, "all of them ask")
        finally:
            os.kill(auth, signal.SIGCONT)
        # As long as it has more of them than the other.
        for c in flood[:19]:
            assert c.receive_all() == b""
        close(flood)


def test_clients_that_are_not_served_are_counted_and_take_no_room(gateway):
    g = gateway(workers=1, max_sessions=1, listener_clients=["127.0.0.1/32"], handshake_timeout=600000)
    with g.client() as c:
        assert c.greet(socks.PASSWORD) == socks.PASSWORD
        with g.client(source="127.0.0.2") as other:
            assert other.receive_all() == b""
        assert c.login("ann", "ann-pass") == 0
    assert g.status()["workers"]["turned_away"] == 1


def test_a_client_that_leaves_at_once_is_given_back(gateway, echo):
    g = gateway(workers=2, listener_max_sessions=3)
    for _ in range(50):
        g.client().abort()
        with g.client() as c:
            c.send(b"\5")

    def served():
        try:
            sessions = several(g, echo, 3)
        except (OSError, AssertionError):
            return False
        close(sessions)
        return True

    wait.until(served, "three at a time")


def test_a_flood_is_counted_and_not_all_of_it_recorded(gateway, echo):
    g = gateway(workers=1, listener_max_sessions=1)
    began = time.monotonic()
    with g.session("127.0.0.1", echo.port) as first:
        for _ in range(300):
            assert turned_away(g)
        seconds = time.monotonic() - began
        first.echo(b"goes on")
    assert g.status()["workers"]["turned_away"] == 300
    g.row(event="ended")
    rows = g.rows("--limit", "0", event="denied")
    assert 20 <= len(rows) <= 20 * (seconds + 2)
    assert {r["reason"] for r in rows} == {"limit reached: the listener has as many sessions as it may"}


def test_sessions_of_a_user(gateway, echo):
    g = gateway(users={"ann": "ann-pass", "bob": "bob-pass"}, listener_max_sessions_per_user=1)
    with g.session("127.0.0.1", echo.port) as first:
        assert first.code == socks.OK
        with g.session("127.0.0.1", echo.port) as second:
            assert second.code == socks.FAILURE
        with g.session("127.0.0.1", echo.port, user="bob", password="bob-pass") as other:
            assert other.code == socks.OK


def test_a_refused_user_leaves_the_connection_counted_until_it_ends(gateway, echo):
    g = gateway(workers=2, listener_max_sessions_per_user=1, listener_max_sessions=2)
    with g.session("127.0.0.1", echo.port) as first:
        for _ in range(20):
            wait.until(lambda: not turned_away(g), "the refused ones are given back")
            wait.until(lambda: g.status()["workers"]["sessions"] == 1, "there is room for one")
            with g.session("127.0.0.1", echo.port) as second:
                assert second.code == socks.FAILURE
        first.echo(b"goes on")
    wait.until(lambda: not turned_away(g), "room")
    assert "limit reached: this user has as many sessions as they may" in {r["reason"] for r in g.rows(event="denied")}


def listening(g):
    """A second listener of the same gateway, in the configuration behind the first."""
    port = ports.free()
    with open(g.path("gatewayd.conf"), "a", encoding="ascii") as f:
        f.write(f'listener "other" {{ address = {{"127.0.0.1:{port}"}} pam-service = "gatewayd" }}\n')
    return "127.0.0.1", port


def test_limits_over_all_listeners(gateway, echo):
    """What is said outside of any listener counts them together; what one says counts it alone."""
    g = gateway(users={"ann": "ann-pass", "bob": "bob-pass"}, workers=1, max_sessions_per_client=3, max_sessions_per_user=2,
                listener_max_sessions_per_client=2, start=False)
    other = listening(g)
    g.start()

    def session(at, user="ann"):
        c = socks.Client(at)
        assert c.greet(socks.PASSWORD) == socks.PASSWORD
        assert c.login(user, f"{user}-pass") == 0
        c.code = c.request("127.0.0.1", echo.port)
        return c

    first, second = session(g.address), session(other)
    assert (first.code, second.code) == (socks.OK, socks.OK)
    with session(other) as third:  # of her, at two listeners
        assert third.code == socks.FAILURE
    wait.until(lambda: g.status()["workers"]["sessions"] == 2, "it is given back")
    with session(other, "bob") as third:
        assert third.code == socks.OK
        assert turned_away(g)
    assert {r["reason"] for r in g.wait_rows(2, event="denied")} == {
        "limit reached: this user has as many sessions as they may at all listeners",
        "limit reached: this client has as many sessions as it may at all listeners"}
    close([first, second])


def test_rate_of_a_client(gateway, echo):
    """Ten at once, then ten a second: however slow the machine, no more than its time allows."""
    g = gateway(listener_max_rate_per_client=10)
    served = refused = 0
    began = time.monotonic()
    while refused == 0:
        clients = [g.client() for _ in range(30)]  # faster than any machine serves them
        for c in clients:
            with c:
                try:
                    c.send(socks.greeting(socks.PASSWORD))
                    answered = c.receive(2) != b""
                except ConnectionError:
                    answered = False
            served, refused = served + answered, refused + (not answered)
        assert served <= 10 + 10 * (time.monotonic() - began) + 1
    assert served >= 10
    assert g.wait_rows(1, event="denied")[0]["reason"] == "limit reached: this client begins as many sessions a second as it may"


def test_counts_survive_the_death_of_who_counts(gateway, echo):
    g = gateway(workers=2, listener_max_sessions=3)
    held = several(g, echo, 3)
    old = g.pids("auth")
    os.kill(old[0], signal.SIGKILL)
    wait.until(lambda: g.pids("auth") not in ([], old), "a new auth master")

    wait.until(lambda: turned_away(g) and any("as many sessions as it may" in r["reason"] for r in g.rows(event="denied")),
               "a refusal by the new master")
    held[0].echo(b"going on")
    close(held)


def test_no_end_is_lost_when_who_counts_is_slow(gateway, echo):
    """What waits to be told is bounded: nobody new is accepted until it is told."""
    g = gateway(workers=1, max_sessions=100, listener_max_sessions=3, handshake_timeout=600000, process_timeout=600000)
    auth = g.pids("auth")[0]
    os.kill(auth, signal.SIGSTOP)
    try:
        for _ in range(100):
            for _ in range(500):
                g.client().abort()
            if "the authenticator does not keep up" in g.log():
                break
        else:
            raise AssertionError("all of 50000 are accepted")
    finally:
        os.kill(auth, signal.SIGCONT)

    def served():
        try:
            sessions = several(g, echo, 3)
        except (OSError, AssertionError):
            return False
        codes = [s.code for s in sessions]
        close(sessions)
        return codes == [socks.OK] * 3

    wait.until(served, "three at a time")
    assert "its link is cut" not in g.log()


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
    def attempt(ms):
        g = gateway(max_session_age=ms)
        with wait.within(ms):
            s = g.session("127.0.0.1", echo.port)
            assert s.code == socks.OK
            s.echo(b"young")
        with s:
            assert s.receive_all() == b""
        assert g.row(event="ended")["reason"] == "maximum session age"

    wait.with_time_enough(attempt, 300, 3000, 30000)


def test_a_listener_has_times_of_its_own(gateway, echo):
    def of_its_age(ms):
        g = gateway(listener_max_session_age=ms, max_session_age=0)
        with wait.within(ms):
            s = g.session("127.0.0.1", echo.port)
        with s:
            assert s.receive_all() == b""
        assert g.row(event="ended")["reason"] == "maximum session age"

    def of_silence(ms):
        g = gateway(listener_idle_timeout=ms, listener_handshake_timeout=ms)
        with wait.within(ms):
            s = g.session("127.0.0.1", echo.port)
        with s, g.client() as dripping:
            dripping.send(b"\5")
            assert s.receive_all() == b""
            assert dripping.receive_all() == b""
        assert g.row(event="ended")["reason"] == "idle timeout"
        assert "handshake timeout" in g.row(event="denied")["reason"]

    wait.with_time_enough(of_its_age, 300, 3000, 30000)
    wait.with_time_enough(of_silence, 500, 3000, 30000)
