"""BIND (RFC 1928 section 4): one connection back, from the peer that the request named and from nobody else."""

import os
import signal
import socket

import pytest

from harness import dns, ports, servers, socks, wait

SERVED = {"listener_commands": ["connect", "bind"]}
FTP_DATA = 20


def start(gateway, **options):
    return gateway(**{**SERVED, **options})


def ask(g, host="127.0.0.1", port=FTP_DATA, **kwargs):
    """A client whose BIND was answered once: .code, .bound."""
    c = g.client(**kwargs)
    assert c.greet(socks.PASSWORD) == socks.PASSWORD
    assert c.login("ann", "ann-pass") == 0
    c.code = c.request(host, port, socks.BIND)
    return c


def come(where, source="127.0.0.1"):
    s = socket.socket(socket.AF_INET6 if ":" in where[0] else socket.AF_INET)
    s.settimeout(wait.seconds(40))
    s.bind((source, 0))
    s.connect(where)
    return s


def turned_away(where, source):
    """True if who comes from there is closed without a byte."""
    with come(where, source) as s:
        try:
            return s.recv(1) == b""
        except ConnectionResetError:
            return True


def test_both_replies_are_true(gateway):
    g = start(gateway)
    with ask(g) as c:
        assert c.code == socks.OK
        assert c.bound[0] == "127.0.0.1" and c.bound[1] > 0
        with come(c.bound) as peer:
            assert c.reply() == socks.OK
            assert c.bound == peer.getsockname()


def test_data_both_ways_and_its_rows(gateway):
    g = start(gateway)
    with ask(g) as c, come(c.bound) as peer:
        assert c.reply() == socks.OK
        c.send(b"up" * 50000)
        got = b""
        while len(got) < 100000:
            got += peer.recv(1 << 16)
        assert got == b"up" * 50000
        peer.sendall(b"down")
        peer.shutdown(socket.SHUT_WR)
        assert c.receive_all() == b"down"
    opened, connected, ended = (g.row(event=e) for e in ("open", "connected", "ended"))
    assert (opened["command"], opened["port"], opened["user"]) == ("bind", FTP_DATA, "ann")
    assert (connected["address"], connected["session"]) == ("127.0.0.1", opened["session"])
    assert (ended["bytes_up"], ended["bytes_down"]) == (100000, 4)


@pytest.mark.skipif(not ports.has_ipv6(), reason="no IPv6 loopback")
@pytest.mark.parametrize("version", [4, 5])
def test_a_name_listens_in_the_family_that_it_can(gateway, dnsmasq, version):
    """A name with addresses of both, of which the IPv6 one can reach nothing here (its rule's source is not ours)."""
    resolver = dnsmasq("--host-record=both.test,127.0.0.1,::1")
    g = start(gateway, policy="rule six allow to cidr ::1/128 source 2001:db8::1\nrule four allow to cidr 127.0.0.0/8\ndefault deny\n",
              resolver=[resolver.address], listener_versions=["4", "5"], listener_methods=["none"])
    with g.client4() if version == 4 else g.client() as c:
        if version == 4:
            assert c.request(b"both.test", FTP_DATA, socks.BIND) == socks.GRANTED4
        else:
            assert c.greet(socks.NONE) == socks.NONE
            assert c.request("both.test", FTP_DATA, socks.BIND) == socks.OK
        assert c.bound[0] == "127.0.0.1"
        with come(c.bound) as peer:
            assert c.reply() in (socks.OK, socks.GRANTED4)
            assert c.bound == peer.getsockname()
    row = g.row(event="connected")
    assert (row["address"], row["rule"]) == ("127.0.0.1", "four")


def test_no_way_to_any_address_of_a_name(gateway, dnsmasq):
    resolver = dnsmasq("--host-record=both.test,127.0.0.1,::1")
    g = start(gateway, policy="rule all allow to cidr ::1/128 127.0.0.0/8 source 192.0.2.1\ndefault deny\n", resolver=[resolver.address])
    with ask(g, "both.test") as c:
        assert c.code == socks.FAILURE
    assert g.row(event="ended")["rule"] == "all"


@pytest.mark.skipif(not ports.has_ipv6(), reason="no IPv6 loopback")
def test_ipv6(gateway):
    g = start(gateway)
    with ask(g, "::1") as c:
        assert (c.code, c.bound[0]) == (socks.OK, "::1")
        with come(c.bound, "::1") as peer:
            assert c.reply() == socks.OK
            assert c.bound == peer.getsockname()[:2]


def test_by_name(gateway, dnsmasq):
    dns = dnsmasq("--host-record=peer.test,127.0.0.5")
    g = start(gateway, resolver=[dns.address])
    with ask(g, "peer.test") as c:
        assert c.code == socks.OK
        assert turned_away(c.bound, "127.0.0.1")
        with come(c.bound, "127.0.0.5"):
            assert c.reply() == socks.OK
            assert c.bound[0] == "127.0.0.5"


def test_a_stranger_is_refused_and_recorded(gateway):
    g = start(gateway)
    with ask(g) as c:
        where = c.bound
        for _ in range(3):
            assert turned_away(where, "127.0.0.2")
        assert c.silent_for(0.1), "a stranger is not the client's affair"
        with come(where) as peer:
            assert c.reply() == socks.OK
            c.send(b"x")
            assert peer.recv(1) == b"x"
    rows = g.wait_rows(3, event="denied")
    assert {r["address"] for r in rows} == {"127.0.0.2"}
    assert all("not the peer" in r["reason"] for r in rows)


@pytest.mark.hostile
def test_rows_of_strangers_are_bounded(gateway):
    g = start(gateway)
    with ask(g) as c:
        where = c.bound
        for _ in range(60):
            assert turned_away(where, "127.0.0.2")
        with come(where):
            assert c.reply() == socks.OK
    assert g.row(event="ended")["detail"] == {"dropped": {"strangers": 60}}
    assert len(g.rows("--limit", "1000", event="denied")) == 32


def test_the_end_of_a_bind_that_failed_tells_of_strangers_too(gateway):
    def attempt(ms):
        g = start(gateway, bind_timeout=ms)
        with ask(g) as c:
            with wait.within(ms):
                assert turned_away(c.bound, "127.0.0.2")
            assert c.reply() == socks.HOST_UNREACHABLE
        assert g.row(event="ended")["detail"] == {"dropped": {"strangers": 1}}

    wait.with_time_enough(attempt, 1500, 6000, 30000)


def test_only_one_peer(gateway):
    g = start(gateway)
    with ask(g) as c:
        where = c.bound
        with come(where):
            assert c.reply() == socks.OK
            wait.until(lambda: refused(where), "nobody listens any more")


def refused(where):
    try:
        come(where).close()
        return False
    except ConnectionRefusedError:
        return True


def test_nobody_comes(gateway):
    g = start(gateway, bind_timeout=300)
    with ask(g) as c:
        where = c.bound
        assert c.reply() == socks.HOST_UNREACHABLE
        assert c.receive_all() == b""
    assert "bind timeout" in g.row(event="ended")["reason"]
    assert refused(where)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_bind_must_name_its_peer(gateway, host):
    g = start(gateway)
    with ask(g, host) as c:
        assert c.code == socks.NOT_ALLOWED
        assert c.receive_all() == b""
    assert "must name its peer" in g.row(event="denied")["reason"]


def test_denied_by_policy(gateway):
    g = start(gateway, policy="rule out allow command connect to cidr 127.0.0.0/8\ndefault deny\n")
    with ask(g) as c:
        assert c.code == socks.NOT_ALLOWED
    assert g.row(event="denied")["command"] == "bind"


def test_the_port_that_policy_sees_is_the_requests(gateway):
    g = start(gateway, policy=f"rule data allow command bind to cidr 127.0.0.0/8 port {FTP_DATA}\ndefault deny\n")
    with ask(g, port=FTP_DATA + 1) as c:
        assert c.code == socks.NOT_ALLOWED
    with ask(g) as c, come(c.bound):
        assert c.reply() == socks.OK


def test_policy_denies_the_peer_that_it_allowed_before(gateway, dns_server):
    """Of two peers that the name has: the wait for the other goes on."""
    d = dns_server(lambda name, kind, nth: [dns.record(name, dns.A, x) for x in ("127.0.0.2", "127.0.0.3")] if kind == dns.A else [])
    g = start(gateway, resolver=[d.address])
    with ask(g, "two.test") as c:
        assert c.code == socks.OK
        g.write_policy("rule no deny to cidr 127.0.0.2/32\nrule yes allow to cidr 127.0.0.0/8\n")
        g.reload()
        assert turned_away(c.bound, "127.0.0.2")
        with come(c.bound, "127.0.0.3"):
            assert c.reply() == socks.OK
            ended = g.rows(event="ended")
            assert ended == []
    row = g.wait_rows(1, event="denied")[0]
    assert (row["address"], "policy denies this peer" in row["reason"], row["rule"]) == ("127.0.0.2", True, "no")


def test_the_client_leaves_first(gateway):
    g = start(gateway)
    with ask(g) as c:
        where = c.bound
    assert "client left" in g.row(event="ended")["reason"]
    wait.until(lambda: refused(where), "the port is closed")


def test_early_data_of_the_client_is_kept(gateway):
    g = start(gateway)
    with ask(g) as c:
        c.send(b"early")
        assert c.silent_for(0.1)
        with come(c.bound) as peer:
            assert c.reply() == socks.OK
            c.send(b" and late")
            got = b""
            while len(got) < 14:
                got += peer.recv(100)
            assert got == b"early and late"


def test_more_early_data_than_is_kept(gateway):
    """What does not fit waits with the client; nothing is lost."""
    data = bytes(range(256)) * 400
    g = start(gateway)
    with ask(g) as c:
        c.send(data)
        with come(c.bound) as peer:
            assert c.reply() == socks.OK
            c.socket.shutdown(socket.SHUT_WR)
            got = b""
            while piece := peer.recv(1 << 16):
                got += piece
    assert got == data


def test_each_reply_waits_for_its_row(gateway):
    g = start(gateway, audit_timeout=60000)
    recorder = g.pids("recorder")[0]
    c = g.client()
    c.greet(socks.PASSWORD)
    assert c.login("ann", "ann-pass") == 0
    os.kill(recorder, signal.SIGSTOP)
    try:
        c.send(socks.request("127.0.0.1", FTP_DATA, socks.BIND))
        assert c.silent_for(0.5)
    finally:
        os.kill(recorder, signal.SIGCONT)
    assert c.reply() == socks.OK
    os.kill(recorder, signal.SIGSTOP)
    try:
        peer = come(c.bound)
        peer.sendall(b"early")
        assert c.silent_for(0.5)
    finally:
        os.kill(recorder, signal.SIGCONT)
    with c, peer:
        assert c.reply() == socks.OK
        assert c.receive(5) == b"early"


def test_a_peer_whose_row_cannot_be_written_is_refused(gateway):
    """The row of the peer cannot be written: the client is told, the peer is closed."""
    g = start(gateway, audit_timeout=400)
    recorder = g.pids("recorder")[0]

    def asked():
        c = ask(g)
        if c.code == socks.OK:
            return c
        c.close()  # a busy machine took longer than that for the first row
        return None

    with wait.until(asked, "a BIND is granted") as c:
        os.kill(recorder, signal.SIGSTOP)
        try:
            with come(c.bound) as peer:
                assert c.reply() == socks.FAILURE
                assert c.receive_all() == b""
                try:
                    assert peer.recv(1) == b""
                except ConnectionResetError:
                    pass
        finally:
            os.kill(recorder, signal.SIGCONT)


def test_a_listener_without_the_command(gateway):
    g = gateway()
    for command in (socks.BIND, socks.UDP):
        with g.client() as c:
            c.greet(socks.PASSWORD)
            assert c.login("ann", "ann-pass") == 0
            assert c.request("127.0.0.1", 80, command) == socks.COMMAND
            assert c.receive_all() == b""
    assert {r["command"] for r in g.wait_rows(2, event="denied")} == {"bind", "udp"}
