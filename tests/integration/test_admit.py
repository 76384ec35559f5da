"""A client that no rule can admit is closed at accept: it is not worth a handshake, a log-in or a lookup."""

import pytest

from harness import ports, socks, wait

POLICY = "rule one allow client 127.0.0.1/32 to cidr 127.0.0.0/8\ndefault deny\n"


def closed(g, source="127.0.0.2"):
    """True if the connection ends without an answer to its greeting."""
    try:
        with g.client(source=source) as c:
            c.send(socks.greeting(socks.PASSWORD))
            return c.receive(2) == b""
    except ConnectionError:
        return True


def test_closed_and_recorded(gateway, echo):
    g = gateway(policy=POLICY)
    with g.session("127.0.0.1", echo.port) as c:
        assert c.code == socks.OK
    assert closed(g)
    row = g.row(event="denied")
    assert (row["client"], row["reason"], row["verdict"]) == ("127.0.0.2", "denied by policy: no rule can admit this client", "deny")
    assert row["revision"] == g.revision()
    assert g.status()["workers"]["turned_away"] == 1


def test_what_a_client_may_ask_for_is_asked_of_policy(gateway, echo):
    """Where a rule could admit it, it gets its reply."""
    g = gateway(policy=POLICY + "rule two allow client 127.0.0.2/32 group nobody\n")
    with g.client(source="127.0.0.2") as c:
        assert c.greet(socks.PASSWORD) == socks.PASSWORD
        assert c.login("ann", "ann-pass") == 0
        assert c.request("127.0.0.1", echo.port) == socks.NOT_ALLOWED


def test_a_policy_that_allows_nobody_anything_answers(gateway, echo):
    g = gateway(policy="default deny\n")
    with g.session("127.0.0.1", echo.port) as c:
        assert c.code == socks.NOT_ALLOWED


def test_a_new_policy_is_asked_anew(gateway, echo):
    g = gateway(policy=POLICY)
    for _ in range(8):
        assert closed(g)
        assert not closed(g, "127.0.0.1")
    g.write_policy(POLICY.replace("127.0.0.1/32", "127.0.0.2/32"))
    g.reload()
    wait.until(lambda: not closed(g) and closed(g, "127.0.0.1"), "the new policy")
    for _ in range(8):
        assert not closed(g)
        assert closed(g, "127.0.0.1")


@pytest.mark.skipif(not ports.has_ipv6(), reason="no IPv6 loopback")
def test_of_another_family(gateway):
    g = gateway(policy=POLICY, ipv6=True)
    with socks.Client(("::1", g.port)) as c:
        c.send(socks.greeting(socks.PASSWORD))
        assert c.receive(2) == b""
    assert g.row(event="denied")["client"] == "::1"
