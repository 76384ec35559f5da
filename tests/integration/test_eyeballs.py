"""Several addresses of a name (RFC 8305): one that does not answer costs a moment, not the connection."""

import resource

import pytest

from harness import dns, ports, servers, socks, wait

POLICY = "rule all allow to cidr 127.0.0.0/8 ::1/128 192.0.2.0/24\ndefault deny\n"


def answering(dns_server, **records):
    kinds = {dns.A: records.get("a", []), dns.AAAA: records.get("aaaa", [])}
    return dns_server(lambda name, kind, nth: [dns.record(name, kind, v) for v in kinds.get(kind, [])])


def black_hole(server, port):
    """The same port on another loopback address: its queue is full, so that a SYN gets no answer."""
    return server(servers.Deaf, "127.0.0.9", port)


def test_a_black_hole_and_a_good_address(gateway, server, echo, dns_server):
    black_hole(server, echo.port)
    d = answering(dns_server, a=["127.0.0.9", "127.0.0.1"])
    g = gateway(POLICY, resolver=[d.address], connect_timeout=600000)  # the half of that would be more than this test's own time
    with g.session("both.test", echo.port) as c:
        assert c.code == socks.OK
        c.echo(b"hello")
    assert g.row(event="connected")["address"] == "127.0.0.1"


def test_without_descriptors_for_two_each_address_has_its_time(gateway, server, dns_server):
    """The first would answer, but not within a quarter of a second; it is not given up for another that refuses."""
    target = server(servers.UdpEcho)
    slow = server(servers.Deaf, "127.0.0.9")
    d = answering(dns_server, a=["127.0.0.9", "127.0.0.1"])
    g = gateway(POLICY, resolver=[d.address], connect_timeout=30000, workers=1, max_sessions=90,
                limits={resource.RLIMIT_NOFILE: 256}, listener_commands=["connect", "udp"])
    held = [g.associate() for _ in range(40)]
    for a in held:
        a.send("127.0.0.1", target.port, b"x")
    wait.until(lambda: len(target.received) + g.status()["workers"]["udp_unsent"] == 40, "all of them have sent")
    assert g.status()["workers"]["udp_unsent"] > 0, "descriptors are left"
    with g.client() as c:
        assert c.greet(socks.PASSWORD) == socks.PASSWORD
        assert c.login("ann", "ann-pass") == 0
        c.send(socks.request("both.test", slow.port))
        assert c.silent_for(0.6)
        with slow.answer():
            assert c.reply() == socks.OK
    for a in held:
        a.close()


def test_a_refusing_and_a_good_address(gateway, echo, dns_server):
    d = answering(dns_server, a=["127.0.0.8", "127.0.0.7", "127.0.0.1"])
    g = gateway(POLICY, resolver=[d.address])
    with g.session("both.test", echo.port) as c:
        assert c.code == socks.OK
        c.echo(b"hello")
    assert g.row(event="connected")["address"] == "127.0.0.1"


@pytest.mark.skipif(not ports.has_ipv6(), reason="no IPv6 loopback")
def test_ipv6_refuses_and_ipv4_is_good(gateway, echo, dns_server):
    d = answering(dns_server, a=["127.0.0.1"], aaaa=["::1"])
    g = gateway(POLICY, resolver=[d.address])
    with g.session("both.test", echo.port) as c:
        assert c.code == socks.OK
        c.echo(b"hello")


@pytest.mark.skipif(not ports.has_ipv6(), reason="no IPv6 loopback")
def test_ipv6_comes_first(gateway, server, dns_server):
    six = server(servers.Named, b"six", "::1")
    server(servers.Named, b"four", "127.0.0.1", six.port)
    d = answering(dns_server, a=["127.0.0.1"], aaaa=["::1"])
    g = gateway(POLICY, resolver=[d.address])
    with g.session("both.test", six.port) as c:
        assert c.receive_all() == b"six"


def test_more_black_holes_than_attempts_at_a_time(gateway, server, echo, dns_server):
    """The seventh address is the good one; the oldest attempt makes room."""
    bad = [f"127.0.0.{i}" for i in range(20, 27)]
    for address in bad:
        server(servers.Deaf, address, echo.port)
    d = answering(dns_server, a=[*bad, "127.0.0.1"])
    g = gateway(POLICY, resolver=[d.address])
    with g.session("many.test", echo.port) as c:
        assert c.code == socks.OK


def test_a_denied_address_is_never_tried(gateway, server, dns_server):
    bad = server(servers.Silent, "127.0.0.6")
    good = server(servers.Named, b"good", "127.0.0.1", bad.port)
    d = answering(dns_server, a=["127.0.0.6", "127.0.0.1"])
    g = gateway("rule one allow to cidr 127.0.0.1/32\ndefault deny\n", resolver=[d.address])
    with g.session("both.test", good.port) as c:
        assert c.receive_all() == b"good"
    assert bad.peers == []


def test_all_are_black_holes(gateway, server, dns_server):
    first = server(servers.Deaf, "127.0.0.9")
    server(servers.Deaf, "127.0.0.10", first.port)
    d = answering(dns_server, a=["127.0.0.9", "127.0.0.10"])
    g = gateway(POLICY, resolver=[d.address], connect_timeout=700)
    with g.session("none.test", first.port) as c:
        assert c.code == socks.HOST_UNREACHABLE
    assert "timeout" in g.row(event="ended")["reason"]


def test_all_refuse(gateway, server, dns_server):
    port = server(servers.Refusing).port
    d = answering(dns_server, a=["127.0.0.9", "127.0.0.1"])
    g = gateway(POLICY, resolver=[d.address])
    with g.session("none.test", port) as c:
        assert c.code == socks.REFUSED
