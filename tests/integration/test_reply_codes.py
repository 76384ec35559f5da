"""Each reply code of RFC 1928 section 6 that a gateway can cause, and its row in the audit."""

import pytest

from harness import servers, socks

POLICY = "rule loopback allow by address to cidr 127.0.0.0/8\nrule named allow to domain .test to cidr 127.0.0.0/8\ndefault deny\n"


@pytest.fixture(scope="module")
def judge():
    """A gateway whose resolver knows nothing."""
    from harness import dns
    from harness.gateway import Gateway

    resolver = dns.Dnsmasq("--host-record=known.test,127.0.0.1")
    g = Gateway(POLICY, resolver=[resolver.address], connect_timeout=500)
    try:
        yield g.start()
    finally:
        resolver.close()
        g.close()


def ask(g, host, port, command=socks.CONNECT):
    with g.client() as c:
        c.greet(socks.PASSWORD)
        assert c.login("ann", "ann-pass") == 0
        code = c.request(host, port, command)
        if code != socks.OK:
            assert c.receive_all() == b""
        return code


def test_not_allowed_by_default(judge):
    assert ask(judge, "198.51.100.1", 80) == socks.NOT_ALLOWED
    row = judge.row(event="denied", address="198.51.100.1")
    assert (row["user"], row["port"], row["verdict"]) == ("ann", 80, "deny")
    assert row["revision"] >= 1


def test_name_not_allowed_by_default(judge):
    assert ask(judge, "elsewhere.example", 80) == socks.NOT_ALLOWED
    assert judge.row(event="denied", name="elsewhere.example")["port"] == 80


def test_refused(judge, server):
    port = server(servers.Refusing).port
    assert ask(judge, "127.0.0.1", port) == socks.REFUSED
    row = judge.row(port=port, event="denied") if judge.rows(port=port, event="denied") else judge.row(port=port, event="ended")
    assert "refused" in row["reason"]


def test_refused_by_name(judge, server):
    assert ask(judge, "known.test", server(servers.Refusing).port) == socks.REFUSED


def test_no_such_name_is_host_unreachable(judge):
    assert ask(judge, "unknown.test", 80) == socks.HOST_UNREACHABLE
    assert judge.row(name="unknown.test")["verdict"] == "deny"


def test_nobody_answers_the_syn(judge, server):
    assert ask(judge, "127.0.0.1", server(servers.Deaf).port) in (socks.HOST_UNREACHABLE, socks.TTL)


@pytest.mark.hostile
@pytest.mark.parametrize("command", [0, 2, 3, 4, 0x7F, 0xFF])
def test_command_not_supported(judge, command):
    assert ask(judge, "127.0.0.1", 80, command) == socks.COMMAND


@pytest.mark.hostile
@pytest.mark.parametrize("kind", [0, 2, 5, 0x7F, 0xFF])
def test_address_type_not_supported(judge, kind):
    with judge.client() as c:
        c.greet(socks.PASSWORD)
        assert c.login("ann", "ann-pass") == 0
        c.send(bytes([5, 1, 0, kind]) + bytes(6))
        assert c.reply() == socks.ADDRESS_TYPE
        assert c.receive_all() == b""


@pytest.mark.hostile
def test_request_of_another_version(judge):
    with judge.client() as c:
        c.greet(socks.PASSWORD)
        assert c.login("ann", "ann-pass") == 0
        c.send(b"\x04" + socks.request("127.0.0.1", 80)[1:])
        assert c.reply() in (socks.FAILURE, None)
        assert c.receive_all() == b""


def test_port_zero_is_never_a_crash(judge):
    assert ask(judge, "127.0.0.1", 0) != socks.OK
