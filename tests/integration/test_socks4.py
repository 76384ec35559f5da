"""SOCKS4 and 4a: CONNECT and BIND, their replies, and a user id that is a claim and never a log-in."""

import json
import socket

import pytest

from harness import servers, socks, wait

SERVED = {"listener_versions": ["4", "5"], "listener_methods": ["none"], "listener_commands": ["connect", "bind"]}


def open4(gateway, **options):
    return gateway(**{**SERVED, **options})


def test_connect_by_address(gateway, server):
    s = server(servers.Echo)
    g = open4(gateway)
    with g.client4() as c:
        assert c.request("127.0.0.1", s.port, user="ann") == socks.GRANTED4
        s.wait_connected()
        assert c.bound == s.peers[0]
        c.echo(b"hello")
    row = g.row(event="open")
    assert (row.get("user"), row["method"], row["command"]) == (None, "socks4", "connect")
    assert row["detail"]["claimed_user"] == "ann"


def test_connect_by_name(gateway, dnsmasq, echo):
    dns = dnsmasq("--host-record=echo.test,127.0.0.1")
    g = open4(gateway, resolver=[dns.address])
    with g.client4() as c:
        assert c.request(b"Echo.Test", echo.port) == socks.GRANTED4
        c.echo(b"hello")
    row = g.row(event="open")
    assert row["name"] == "echo.test"
    assert "claimed_user" not in row["detail"]


def test_socks5_on_the_same_port(gateway, echo):
    g = open4(gateway)
    with g.session("127.0.0.1", echo.port, user=None) as c:
        assert c.code == socks.OK
        c.echo(b"five")


def test_early_data_goes_through(gateway, echo):
    g = open4(gateway)
    with g.client4() as c:
        c.send(socks.request4("127.0.0.1", echo.port, user="ann") + b"early")
        assert c.reply() == socks.GRANTED4
        assert c.receive(5) == b"early"


def test_byte_by_byte(gateway, echo):
    g = open4(gateway)
    with g.client4() as c:
        for b in socks.request4(b"127.0.0.1", echo.port, user="ann"):
            c.send(bytes([b]))
        assert c.reply() == socks.GRANTED4
        c.echo(b"hello")


def test_denied_by_policy(gateway):
    g = open4(gateway, policy="rule no deny\ndefault deny\n")
    with g.client4() as c:
        c.send(socks.request4("127.0.0.1", 80, user="root"))
        assert c.receive_all() == b"\0\x5b" + bytes(6)
    row = g.row(event="denied")
    assert (row.get("user"), row["detail"]["claimed_user"]) == (None, "root")


def test_refused_by_the_destination(gateway, server):
    g = open4(gateway)
    with g.client4() as c:
        c.send(socks.request4("127.0.0.1", server(servers.Refusing).port))
        assert c.receive_all() == b"\0\x5b" + bytes(6)


def test_a_rule_for_users_ignores_the_claim(gateway, echo):
    g = open4(gateway, policy="rule ann allow user ann to cidr 127.0.0.0/8\ndefault deny\n")
    with g.client4() as c:
        assert c.request("127.0.0.1", echo.port, user="ann") == socks.REJECTED4


def test_a_rule_may_leave_socks4_out(gateway, echo):
    g = open4(gateway, policy="rule five allow method none to cidr 127.0.0.0/8\ndefault deny\n")
    with g.client4() as c:
        assert c.request("127.0.0.1", echo.port, user="ann") == socks.REJECTED4
    with g.session("127.0.0.1", echo.port, user=None) as c:
        assert c.code == socks.OK


@pytest.mark.parametrize("claim", ["b\\c", "j\u00f6rg", "b\\x5cc"])
def test_a_rule_is_asked_about_a_claim_as_it_was_made(gateway, echo, claim):
    """What is shown of it is escaped; what is decided is not, now and when it is decided again."""
    g = open4(gateway, policy=f'rule no deny claimed-user "{claim}"\nrule loopback allow to cidr 127.0.0.0/8\ndefault deny\n')
    with g.client4() as c:
        assert c.request("127.0.0.1", echo.port, user=claim.encode()) == socks.REJECTED4
    row = g.row(event="denied")
    assert row["rule"] == "no" and row["detail"]["claimed_user"].isascii(), row
    done = g.ctl("audit", "why", "--json", row["session"])
    assert json.loads(done.out)[0]["same"] is True, done.out
    with g.client4() as c:
        assert c.request("127.0.0.1", echo.port, user=claim.encode() + b"x") == socks.GRANTED4
        shown, = [json.loads(line) for line in g.ctl("session", "list", "--json").out.splitlines()]
        assert shown["claimed_user"] == row["detail"]["claimed_user"] + "x", shown


@pytest.mark.hostile
def test_a_claim_is_escaped(gateway, echo):
    g = open4(gateway)
    with g.client4() as c:
        assert c.request("127.0.0.1", echo.port, user=b"a\n\x1b[2J\xff\"") == socks.GRANTED4
    claimed = g.row(event="open")["detail"]["claimed_user"]
    assert claimed.isprintable() and claimed.isascii()
    assert claimed.startswith("a")


@pytest.mark.hostile
@pytest.mark.parametrize("length", [255, 256, 4000])
def test_user_ids_at_their_bound(gateway, echo, length):
    g = open4(gateway)
    with g.client4() as c:
        c.send(socks.request4("127.0.0.1", echo.port, user=b"u" * length))
        assert c.reply() == (socks.GRANTED4 if length <= 255 else socks.REJECTED4)
    if length <= 255:
        assert g.row(event="open")["detail"]["claimed_user"] == "u" * length
    else:
        assert "255" in g.row(event="denied")["reason"]


@pytest.mark.hostile
def test_a_string_without_end_is_refused(gateway):
    g = open4(gateway)
    with g.client4() as c:
        c.send(b"\4\1\0\x50\x7f\0\0\1" + b"u" * 256)
        assert c.receive_all() == b"\0\x5b" + bytes(6)


@pytest.mark.hostile
@pytest.mark.parametrize("name", [b"", b"a" * 254, b"a" * 256, b"a b", b"a..b", b"\xff"])
def test_hostile_names(gateway, name):
    g = open4(gateway)
    with g.client4() as c:
        assert c.request(name, 80, user="ann") == socks.REJECTED4
        assert c.receive_all() == b""
    assert g.row(event="denied").get("user") is None


@pytest.mark.hostile
@pytest.mark.parametrize("command", [0, 3, 4, 0x7F, 0xFF])
def test_unknown_commands(gateway, command):
    g = open4(gateway)
    with g.client4() as c:
        assert c.request("127.0.0.1", 80, command) == socks.REJECTED4
        assert c.receive_all() == b""


def test_refused_where_it_is_not_served(gateway, echo):
    g = gateway(listener_methods=["none"])
    with g.client4() as c:
        c.send(socks.request4("127.0.0.1", echo.port))
        assert c.receive_all() == b""
    assert "version" in g.row(event="denied")["reason"]


def test_socks5_refused_where_only_4_is_served(gateway, echo):
    g = open4(gateway, listener_versions=["4"])
    with g.client() as c:
        c.send(socks.greeting(socks.NONE))
        assert c.receive_all() == b""
    with g.client4() as c:
        assert c.request("127.0.0.1", echo.port) == socks.GRANTED4


def test_a_command_that_the_listener_does_not_serve(gateway, echo):
    g = open4(gateway, listener_commands=["connect"])
    with g.client4() as c:
        assert c.request("127.0.0.1", echo.port, socks.BIND) == socks.REJECTED4
    assert "command" in g.row(event="denied")["reason"]


def test_bind(gateway):
    g = open4(gateway)
    with g.client4() as c:
        assert c.request("127.0.0.1", 21, socks.BIND, user="ann") == socks.GRANTED4
        assert c.bound[0] == "127.0.0.1" and c.bound[1] > 0
        with socket.create_connection(c.bound, wait.seconds(40)) as peer:
            assert c.reply() == socks.GRANTED4
            assert c.bound == peer.getsockname()
            c.send(b"to the peer")
            assert peer.recv(100) == b"to the peer"
            peer.sendall(b"to the client")
            assert c.receive(13) == b"to the client"
    row = g.row(event="open")
    assert (row["command"], row["detail"]["claimed_user"]) == ("bind", "ann")


def test_bind_that_nobody_answers(gateway):
    g = open4(gateway, bind_timeout=300)
    with g.client4() as c:
        assert c.request("127.0.0.1", 21, socks.BIND) == socks.GRANTED4
        assert c.receive_all() == b"\0\x5b" + bytes(6)


def test_the_address_0_is_no_name(gateway):
    """0.0.0.0 is not 4a, and no destination."""
    g = open4(gateway)
    for command in (socks.CONNECT, socks.BIND):
        with g.client4() as c:
            assert c.request("0.0.0.0", 80, command) == socks.REJECTED4
