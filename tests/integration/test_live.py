"""What a change does to what lives: sessions are decided again by the new policy, and at every moment at which an answer may change."""

import os
import signal
import socket

import pytest

from harness import dns, geo, servers, socks, wait
from harness.gateway import POLICY

SERVED = {"listener_commands": ["connect", "bind", "udp"]}
FORBID = "rule closed deny to cidr 127.0.0.0/8\ndefault deny\n"


class Lives:
    """A session of each kind that carries bytes: TCP, a BIND whose peer has come, a BIND that waits, UDP."""

    def __init__(self, g, server, host="127.0.0.1"):
        self.g, self.host = g, host
        self.echo, self.udp_echo = server(servers.Echo, "0.0.0.0"), server(servers.UdpEcho)
        self.tcp = g.session(host, self.echo.port)
        assert self.tcp.code == socks.OK
        self.bound, self.waiting = self._bind(host), self._bind(host)
        self.peer = socket.create_connection(self.bound.bound, 30)
        assert self.bound.reply() == socks.OK
        self.udp = g.associate()
        assert self.udp.code == socks.OK
        self.check()

    def _bind(self, host):
        c = self.g.client()
        assert c.greet(socks.PASSWORD) == socks.PASSWORD
        assert c.login("ann", "ann-pass") == 0
        assert c.request(host, 20, socks.BIND) == socks.OK
        return c

    def check(self):
        """All of them still carry."""
        self.tcp.echo(b"tcp")
        self.bound.send(b"bind")
        assert self.peer.recv(4, socket.MSG_WAITALL) == b"bind"
        self.udp.echo("127.0.0.1", self.udp_echo.port, b"udp")

    def check_ended(self, waiting=True):
        """All of them are cut."""
        assert self.tcp.receive(1) == b"" and self.bound.receive(1) == b""
        assert not waiting or self.waiting.reply() == socks.NOT_ALLOWED
        with pytest.raises(ConnectionResetError):
            assert self.peer.recv(1) != b""
        self.g.wait_rows(3, event="ended")
        self.g.wait_rows(1, event="flow-ended")

    def close(self):
        for each in (self.tcp, self.bound, self.waiting, self.peer, self.udp):
            each.close()


@pytest.fixture
def lives(server):
    made = []

    def start(g, **kwargs):
        made.append(Lives(g, server, **kwargs))
        return made[-1]

    yield start
    for each in made:
        each.close()


def change(g, text):
    g.write_policy(text)
    g.reload()


def kinds(rows):
    return sorted((r["command"], r["rule"], r["revision"]) for r in rows)


def test_a_harmless_change_ends_nothing(gateway, lives):
    g = gateway(**SERVED)
    all_ = lives(g)
    change(g, "rule other deny to cidr 10.0.0.0/8\nrule again allow to cidr 127.0.0.0/8\n")
    all_.check()
    assert g.rows(event="ended") == [] and g.rows(event="flow-ended") == []
    # The rows of their ends tell by what they were allowed last.
    all_.tcp.close()
    row = g.row(event="ended")
    assert (row["rule"], row["revision"], row["reason"]) == ("again", 2, "done")


def test_what_is_forbidden_ends_and_says_why(gateway, lives):
    g = gateway(**SERVED)
    all_ = lives(g)
    change(g, FORBID)
    all_.check_ended()
    ended = g.wait_rows(3, event="ended") + g.wait_rows(1, event="flow-ended")
    assert kinds(ended) == [("bind", "closed", 2)] * 2 + [("connect", "closed", 2), ("udp", "closed", 2)]
    assert all(r["reason"].startswith("denied by policy") and "rule closed" in r["reason"] for r in ended), ended


def test_only_who_is_meant(gateway, echo):
    g = gateway()
    with g.session("127.0.0.1", echo.port) as ann, g.session("127.0.0.1", echo.port, user="bob", password="bob-pass") as bob:
        change(g, "rule hr deny group hr\n" + POLICY)
        assert bob.receive(1) == b""
        ann.echo(b"still here")
    assert (lambda r: (r["user"], r["rule"]))(g.row(event="ended", rule="hr")) == ("bob", "hr")


def test_a_window_that_shuts(gateway, lives):
    g = gateway("window office { 08:00-18:00 }\nrule work allow to cidr 127.0.0.0/8 during office\n", clock=True, start=False, **SERVED)
    g.start()
    g.set_time("2026-11-20 12:00")
    all_ = lives(g)
    g.set_time("2026-11-20 17:59:59")
    all_.check_ended()
    assert {(r["rule"], r["revision"]) for r in g.rows(event="ended")} == {("default", 1)}


def test_a_rule_that_expires(gateway, echo):
    g = gateway("rule trial allow to cidr 127.0.0.0/8 until 2026-11-20\n", clock=True)
    g.set_time("2026-11-20 23:59:00")
    with g.session("127.0.0.1", echo.port) as c:
        c.echo(b"before")
        g.set_time("2026-11-20 23:59:59")
        assert c.receive(1) == b""


def test_a_clock_that_is_set_back(gateway, echo):
    """Before its `from`, a rule counts no more than after its `until`."""
    g = gateway("rule later allow to cidr 127.0.0.0/8 from 2026-11-20\n", clock=True)
    g.set_time("2026-11-20 12:00")
    with g.session("127.0.0.1", echo.port) as c:
        c.echo(b"before")
        g.set_time("2026-11-19 12:00")
        assert c.receive(1) == b""


def test_countries_that_change(gateway, server):
    s = server(servers.Echo, "0.0.0.0")
    g = gateway("rule german allow to country DE to cidr 127.0.0.0/16\n", start=False)
    file = geo.build(g.path("country.mmdb"), {"127.0.1.0/24": "DE", "127.0.2.0/24": "DE"})
    g.configure(geoip_database=file)
    g.start()
    with g.session("127.0.1.1", s.port) as stays, g.session("127.0.2.1", s.port) as goes:
        geo.build(file, {"127.0.1.0/24": "DE", "127.0.2.0/24": "KP", "198.51.100.0/24": "FR"})
        g.reload()
        assert goes.receive(1) == b""
        stays.echo(b"still here")
    assert g.wait_rows(1, event="ended")[0]["rule"] == "default"


@pytest.mark.parametrize("policy", [
    "rule cdn deny to domain .cdn.test\nrule all allow to cidr 127.0.0.0/8\n",
    "answers all\nrule one deny to cidr 127.0.0.9/32\nrule all allow to cidr 127.0.0.0/8\n",
    "rule named deny by name\nrule all allow to cidr 127.0.0.0/8\n",
    "rule name deny to domain www.test\nrule all allow to cidr 127.0.0.0/8\n",
])
def test_names_are_asked_of_as_they_were(gateway, dns_server, server, policy):
    """The name, its aliases, and the addresses that were not used."""
    s = server(servers.Echo, "127.0.0.2")
    d = dns_server(lambda name, kind, nth: [dns.record(name, dns.CNAME, "x.cdn.test")] + [
        dns.record("x.cdn.test", dns.A, x) for x in ("127.0.0.2", "127.0.0.9")] if kind == dns.A else [])
    g = gateway(resolver=[d.address])
    with g.session("www.test", s.port) as c, g.session("127.0.0.2", s.port) as plain:
        assert c.code == socks.OK
        change(g, POLICY + "# harmless\n")
        c.echo(b"still here")
        change(g, policy)
        assert c.receive(1) == b""
        plain.echo(b"still here")
    assert g.wait_rows(1, event="ended")[0]["rule"] == policy.split("rule ")[1].split()[0]


def test_grace(gateway, lives):
    """Whoever is refused goes on for a while; who is allowed again in time notices nothing; and without grace it is over."""
    g = gateway(POLICY + "grace 1h\n", **SERVED)
    all_ = lives(g)
    change(g, FORBID + "grace 1h\n")
    assert all_.waiting.reply() == socks.NOT_ALLOWED  # it has carried nothing yet
    all_.check()
    with g.session("127.0.0.1", all_.echo.port) as c:
        assert c.code == socks.NOT_ALLOWED
    change(g, POLICY)
    all_.check()
    change(g, FORBID + "grace 1s\n")
    all_.check_ended(waiting=False)
    assert {(r["rule"], r["revision"]) for r in g.rows(event="ended")} == {("closed", 2), ("closed", 4)}


def test_grace_is_taken_back(gateway, echo):
    g = gateway()
    with g.session("127.0.0.1", echo.port) as c:
        change(g, FORBID + "grace 12h\n")
        c.echo(b"still here")
        change(g, FORBID)
        assert c.receive(1) == b""
    assert g.row(event="ended")["revision"] == 3


def test_kept_by_choice(gateway, lives):
    g = gateway(live_sessions="keep", **SERVED)
    all_ = lives(g)
    change(g, FORBID)
    all_.check()
    with g.session("127.0.0.1", all_.echo.port) as c:
        assert c.code == socks.NOT_ALLOWED
    assert g.rows(event="ended") == []


def test_a_grant_under_way_is_of_the_new_policy(gateway, server):
    """The recorder hangs, so that the grant waits; what the policy forbids meanwhile never gets its first byte."""
    s = server(servers.Echo)
    g = gateway(workers=1, audit_timeout=60000)
    recorder = g.pids("recorder")[0]
    os.kill(recorder, signal.SIGSTOP)
    try:
        c = g.client()
        assert c.greet(socks.PASSWORD) == socks.PASSWORD and c.login("ann", "ann-pass") == 0
        c.send(socks.request("127.0.0.1", s.port))
        s.wait_connected()
        g.write_policy(FORBID)
        g.reload()
        assert c.reply() == socks.NOT_ALLOWED
        c.close()
    finally:
        os.kill(recorder, signal.SIGCONT)
    row = g.row(event="ended")
    assert (row["rule"], row["revision"]) == ("closed", 2)


def test_while_sessions_come_and_go(gateway, echo):
    """A policy that changes all the time, and sessions that begin and end meanwhile."""
    g = gateway(workers=2)
    for i in range(10):
        with g.session("127.0.0.1", echo.port) as a, g.session("127.0.0.1", echo.port) as b:
            change(g, (FORBID if i % 2 else POLICY) + f"# {i}\n")
            if i % 2:
                assert a.receive(1) == b"" and b.receive(1) == b""
                change(g, POLICY + f"# again {i}\n")
            else:
                a.echo(b"a")
                b.echo(b"b")
    wait.until(lambda: g.status()["workers"]["sessions"] == 0, "all sessions have ended")
