"""With whom a session was connected: who ends soon tells it in the closing row, everybody else in a row of its own."""

import datetime
import os
import signal

import pytest

from harness import dns, servers, socks, wait


def events(g, session):
    return [r["event"] for r in g.rows("--session", session)]


def now():
    """As rows tell it."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def soon_over(g, host, port):
    """The rows of a session that was over within a second, which takes a few tries where the machine is busy."""
    found = []

    def over():
        with g.session(host, port) as c:
            assert c.code == socks.OK
            c.echo(b"x")
            client_port = c.socket.getsockname()[1]
        ended = g.row(event="ended", client_port=client_port)
        found[:] = g.rows("--session", ended["session"])
        return len(found) == 2

    wait.until(over, lambda: f"a session that is soon over, not {found}", 60)
    return found


def test_who_ends_soon_says_it_at_the_end(gateway, echo, dnsmasq):
    d = dnsmasq("--host-record=echo.test,127.0.0.1")
    g = gateway("rule web allow to domain .test to cidr 127.0.0.1/32\n", resolver=[d.address])
    opened, ended = soon_over(g, "echo.test", echo.port)
    assert (opened["event"], ended["event"]) == ("open", "ended") and "address" not in opened
    assert (ended["address"], ended["port"], ended["rule"], ended["revision"]) == ("127.0.0.1", echo.port, "web", opened["revision"])
    assert list(ended["detail"]) == ["connected"]
    assert opened["time"] <= ended["detail"]["connected"] <= ended["time"]
    # Whoever asks for the address finds it there.
    assert ended["id"] in {r["id"] for r in g.rows("--to", "127.0.0.1")}
    assert opened["id"] not in {r["id"] for r in g.rows("--to", "127.0.0.1")}


def test_who_lives_says_it_in_a_row_of_its_own(gateway, echo):
    g = gateway()
    with g.session("127.0.0.1", echo.port) as c:
        c.echo(b"x")
        later = now()
        row = g.row(event="connected")
        # When it was connected, not when the row was written.
        assert g.row(event="open")["time"] <= row["time"] <= later
        assert (row["address"], row["port"], row["rule"]) == ("127.0.0.1", echo.port, "loopback")
    ended = g.row(event="ended")
    assert events(g, ended["session"]) == ["open", "connected", "ended"]
    assert "detail" not in ended


def test_many_that_live_each_have_one(gateway, echo):
    """They are told in groups; who ends meanwhile is not among them, and nobody is told twice."""
    g = gateway(workers=2)
    clients = [g.session("127.0.0.1", echo.port) for _ in range(30)]
    ports = [c.socket.getsockname()[1] for c in clients]
    for c in clients[::3]:
        c.close()
    g.wait_rows(10, event="ended")
    live = set(ports) - set(ports[::3])
    wait.until(lambda: live <= {r["client_port"] for r in g.rows(event="connected")}, "those that live say so")
    for c in clients:
        c.close()
    ended = g.wait_rows(30, event="ended")
    connected = [r["session"] for r in g.rows("--limit", "0", event="connected")]
    assert len(connected) == len(set(connected))
    for r in ended:
        assert (r["session"] in connected) != ("connected" in r.get("detail", {})), r


@pytest.mark.parametrize("other", ["before", "after"])
def test_of_several_candidates_it_is_said_at_once(gateway, dns_server, server, other):
    """One that failed, or that was not tried: the row of the grant does not say which, and a crash takes nothing with it."""
    s = server(servers.Named, b"named!", "127.0.0.2")
    addresses = ("127.0.0.4", "127.0.0.2") if other == "before" else ("127.0.0.2", "127.0.0.4")
    d = dns_server(lambda name, kind, nth: [dns.record(name, dns.A, x) for x in addresses] if kind == dns.A else [])
    g = gateway("rule yes allow to cidr 127.0.0.0/8\n", resolver=[d.address])
    with g.session("two.test", s.port) as c:
        assert c.code == socks.OK and c.receive(6) == b"named!"
    ended = g.row(event="ended")
    assert events(g, ended["session"]) == ["open", "connected", "ended"]
    assert g.row(event="connected")["address"] == "127.0.0.2" and "detail" not in ended


def test_another_policy_makes_it_be_said_before(gateway, echo):
    """By what it was connected is not lost when something else allows, or refuses, it now."""
    g = gateway("rule first allow to cidr 127.0.0.0/8\n")
    with g.session("127.0.0.1", echo.port) as c:
        c.echo(b"x")
        g.write_policy("rule second allow to cidr 127.0.0.0/8\n")
        g.reload()
        c.echo(b"x")
        wait.until(lambda: g.rows(event="connected"), "the row of before")
    ended = g.row(event="ended")
    assert [(r["event"], r["rule"], r["revision"]) for r in g.rows("--session", ended["session"])] == [
        ("open", "first", 1), ("connected", "first", 1), ("ended", "second", 2)]


def test_bytes_are_told_behind_it(gateway, echo):
    g = gateway(checkpoint_megabytes=1)
    with g.session("127.0.0.1", echo.port) as c:
        c.echo(b"x" * (1 << 20))
        g.wait_rows(1, event="checkpoint")
    ended = g.row(event="ended")
    told = events(g, ended["session"])
    assert told[:3] == ["open", "connected", "checkpoint"] and told[-1] == "ended" and "detail" not in ended


def test_a_crash_before_it_was_said(gateway, echo, dnsmasq):
    """The closing row says what is known: of a name, what was granted."""
    d = dnsmasq("--host-record=echo.test,127.0.0.1")
    g = gateway("rule web allow to domain .test to cidr 127.0.0.1/32\n", workers=1, resolver=[d.address])
    with g.session("echo.test", echo.port) as c:
        c.echo(b"x")
        os.kill(g.pids("worker")[0], signal.SIGKILL)
        ended = g.row(event="ended")
    opened = g.row(event="open")
    assert ended["reason"].startswith("lost") and ended["detail"]["lost"] is True and "connected" not in ended["detail"]
    for key in ("session", "user", "client_port", "name", "port", "rule", "revision"):
        assert ended[key] == opened[key]
    assert opened["detail"]["candidates"] == [{"address": "127.0.0.1", "rule": "web"}]


def test_a_gateway_that_stops_says_it_at_the_end(gateway, echo):
    g = gateway()
    with g.session("127.0.0.1", echo.port) as c:
        c.echo(b"x")
        g.stop()
        g.start()
    ended = g.row(event="ended")
    assert ended["reason"] == "gateway is stopping" and ended["address"] == "127.0.0.1"
    assert ("connected" in ended.get("detail", {})) == (events(g, ended["session"]) == ["open", "ended"])
