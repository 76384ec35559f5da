"""The rule's source address is where connections leave from, or there is no connection."""

import pytest

from harness import servers, socks


def test_server_sees_the_source(gateway, server):
    s = server(servers.Echo)
    g = gateway("rule out allow to cidr 127.0.0.1/32 source 127.0.0.5\n")
    with g.session("127.0.0.1", s.port) as c:
        assert c.code == socks.OK
        c.echo(b"x")
        assert c.bound[0] == "127.0.0.5"
    assert [host for host, _ in s.peers] == ["127.0.0.5"]


@pytest.mark.parametrize("source", ["198.51.100.77", "::1"], ids=["not-ours", "of-another-family"])
def test_source_that_cannot_be_used(gateway, server, source):
    s = server(servers.Echo)
    g = gateway(f"rule out allow to cidr 127.0.0.1/32 source {source}\n")
    with g.session("127.0.0.1", s.port) as c:
        assert c.code == socks.FAILURE
    row = g.row(event="ended")
    assert row["rule"] == "out" and "source address is not usable" in row["reason"], row
    assert s.peers == []
