"""Names: judged before they are looked up, looked up once, and only judged addresses connected to."""

import pytest

from harness import dns, servers, socks

pytestmark = pytest.mark.hostile


def a(*addresses):
    """A resolver's answer that gives these IPv4 addresses for every name."""
    return lambda name, kind, nth: [dns.record(name, dns.A, x) for x in addresses] if kind == dns.A else []


def denied(row):
    return row["verdict"] == "deny"


def test_denied_name_is_never_looked_up(gateway, dns_server, echo):
    d = dns_server(a("127.0.0.1"))
    g = gateway("rule no deny to domain .secret.test\nrule yes allow to cidr 127.0.0.0/8\n", resolver=[d.address])
    with g.session("data.in.a.name.secret.test", echo.port) as c:
        assert c.code == socks.NOT_ALLOWED
    assert d.asked == []
    row = g.row(event="denied")
    assert (row["name"], row["rule"]) == ("data.in.a.name.secret.test", "no")


def test_name_that_no_rule_allows_is_never_looked_up(gateway, dns_server, echo):
    d = dns_server(a("127.0.0.1"))
    g = gateway("rule yes allow to domain .good.test\n", resolver=[d.address])
    with g.session("exfiltrate.example", echo.port) as c:
        assert c.code == socks.NOT_ALLOWED
    assert d.asked == []


def test_mixed_answer_connects_to_the_allowed_address_alone(gateway, dns_server, server):
    port_holder = server(servers.Named, b"good", "127.0.0.2")
    other = server(servers.Named, b"bad", "127.0.0.3", port_holder.port)
    d = dns_server(a("127.0.0.3", "127.0.0.2", "10.0.0.1"))
    g = gateway("rule no deny to cidr 127.0.0.3/32\nrule yes allow to domain .test to cidr 127.0.0.0/8\n", resolver=[d.address])
    for _ in range(5):
        with g.session("mixed.test", port_holder.port) as c:
            assert c.code == socks.OK
            assert c.receive(4) == b"good"
    assert other.peers == []
    assert all(r["address"] == "127.0.0.2" for r in g.connected(5))


def test_second_address_when_the_first_refuses(gateway, dns_server, server):
    s = server(servers.Named, b"second", "127.0.0.2")
    d = dns_server(a("127.0.0.4", "127.0.0.2"))
    g = gateway("rule yes allow to cidr 127.0.0.0/8\n", resolver=[d.address])
    with g.session("two.test", s.port) as c:
        assert c.code == socks.OK
        assert c.receive(6) == b"second"


def test_all_answers_guarded(gateway, dns_server, echo):
    d = dns_server(a("127.0.0.1", "10.1.2.3", "169.254.169.254"))
    g = gateway("rule yes allow to domain .test\n", resolver=[d.address])
    with g.session("rebind.test", echo.port) as c:
        assert c.code == socks.NOT_ALLOWED
    assert d.asked
    row = g.row(event="denied")
    assert row["name"] == "rebind.test"


def test_rebinding_between_two_lookups_changes_nothing(gateway, dns_server, server):
    """TTL 0 and another address at each query: the judged address is the connected one, from one lookup."""
    good = server(servers.Named, b"good", "127.0.0.2")
    bad = server(servers.Named, b"bad", "127.0.0.3", good.port)
    d = dns_server(lambda name, kind, nth: [dns.record(name, dns.A, "127.0.0.2" if nth == 1 else "127.0.0.3")] if kind == dns.A else [])
    g = gateway("rule yes allow to domain .test to cidr 127.0.0.2/32\n", resolver=[d.address])
    with g.session("rebind.test", good.port) as c:
        assert c.code == socks.OK
        assert c.receive(4) == b"good"
    assert [k for _, k in d.asked].count(dns.A) == 1
    with g.session("rebind.test", good.port) as c:
        assert c.code == socks.NOT_ALLOWED
    assert bad.peers == []
    assert [r["address"] for r in g.connected()] == ["127.0.0.2"]


def test_alias_is_denied(gateway, dnsmasq, echo):
    dns_ = dnsmasq("--host-record=evil.test,127.0.0.1", "--cname=good.test,evil.test", "--host-record=fine.test,127.0.0.1")
    g = gateway("rule no deny to domain evil.test\nrule yes allow to domain .test to cidr 127.0.0.1/32\n", resolver=[dns_.address])
    with g.session("good.test", echo.port) as c:
        assert c.code == socks.NOT_ALLOWED
    row = g.row(event="denied")
    assert (row["name"], row["rule"]) == ("good.test", "no")
    with g.session("fine.test", echo.port) as c:
        assert c.code == socks.OK


def test_alias_in_the_middle_of_a_chain_is_denied(gateway, dns_server, echo):
    def answer(name, kind, nth):
        chain = [dns.record(name, dns.CNAME, "Evil.Test"), dns.record("evil.test", dns.CNAME, "end.test")]
        return chain + ([dns.record("end.test", dns.A, "127.0.0.1")] if kind == dns.A else [])

    d = dns_server(answer)
    g = gateway("rule no deny to domain evil.test\nrule yes allow to domain .test to cidr 127.0.0.1/32\n", resolver=[d.address])
    with g.session("start.test", echo.port) as c:
        assert c.code == socks.NOT_ALLOWED


def test_an_alias_satisfies_no_allow_rule(gateway, dns_server, echo):
    d = dns_server(lambda name, kind, nth: [dns.record(name, dns.CNAME, "good.test")]
                   + ([dns.record("good.test", dns.A, "127.0.0.1")] if kind == dns.A else []))
    g = gateway("rule yes allow to domain good.test to cidr 127.0.0.1/32\n", resolver=[d.address])
    with g.session("other.example", echo.port) as c:
        assert c.code == socks.NOT_ALLOWED
    assert d.asked == []


@pytest.mark.parametrize("n, code", [(1, socks.OK), (64, socks.OK), (65, socks.HOST_UNREACHABLE), (200, socks.HOST_UNREACHABLE)])
def test_at_most_64_addresses(gateway, dns_server, echo, n, code):
    d = dns_server(a("127.0.0.1", *(f"127.0.9.{i + 1}" for i in range(n - 1))))
    g = gateway(resolver=[d.address])
    with g.session("many.test", echo.port) as c:
        assert c.code == code


def test_too_many_aliases_refuse_the_name(gateway, dns_server, echo):
    def answer(name, kind, nth):
        chain = [dns.record(name if i == 0 else f"a{i}.test", dns.CNAME, f"a{i + 1}.test") for i in range(20)]
        return chain + ([dns.record("a20.test", dns.A, "127.0.0.1")] if kind == dns.A else [])

    g = gateway(resolver=[dns_server(answer).address])
    with g.session("long.test", echo.port) as c:
        assert c.code not in (socks.OK, None)


def test_no_search_list_and_no_second_spelling(gateway, dns_server, echo):
    d = dns_server(lambda name, kind, nth: 3)
    g = gateway(resolver=[d.address])
    for name in ("single", "two.labels"):
        with g.session(name, echo.port) as c:
            assert c.code == socks.HOST_UNREACHABLE
    assert set(d.names()) == {"single", "two.labels"}


def test_search_domain_completes_a_dotless_name_before_policy(gateway, dns_server, echo):
    d = dns_server(a("127.0.0.1"))
    g = gateway("rule yes allow to domain .corp.test to cidr 127.0.0.1/32\n", resolver=[d.address], search_domain="corp.test")
    with g.session("intra", echo.port) as c:
        assert c.code == socks.OK
    assert set(d.names()) == {"intra.corp.test"}
    assert g.row(event="open")["name"] == "intra.corp.test"


@pytest.mark.parametrize("answer", [
    lambda name, kind, nth: 2,  # SERVFAIL
    lambda name, kind, nth: 5,  # REFUSED
    lambda name, kind, nth: [],  # no data
    lambda name, kind, nth: b"",  # the ID alone
    lambda name, kind, nth: b"\x81\x80",
    lambda name, kind, nth: b"\x81\x80" + b"\xff" * 500,
    lambda name, kind, nth: b"\x81\x80\0\1\0\1\0\0\0\0\xc0\x0c\0\1\0\1\xc0\x0c\0\1\0\1\0\0\0\0\0\4\x7f\0\0\1",  # a name that points at itself
    lambda name, kind, nth: [dns.record(name, dns.A, "127.0.0.1")[:-6] + b"\0\2\x7f\0"],  # an address of two bytes
    lambda name, kind, nth: [dns.record(name, dns.CNAME, name)],  # an alias of itself
    lambda name, kind, nth: [dns.record("other.test", dns.A, "127.0.0.1")] if kind == dns.A else [],  # somebody else's address
], ids=["servfail", "refused", "nodata", "id", "short", "counts", "loop", "shortaddr", "selfalias", "other"])
def test_broken_answers_are_refused(gateway, dns_server, echo, answer):
    d = dns_server(answer)
    g = gateway(resolver=[d.address], resolver_timeout=300)
    with g.session("broken.test", echo.port) as c:
        assert c.code == socks.HOST_UNREACHABLE
    with g.session("127.0.0.1", echo.port) as c:
        assert c.code == socks.OK


def test_names_in_an_answer_that_are_no_names(gateway, dns_server, echo):
    """Aliases with NUL, dots and control bytes inside labels never become a judged name."""
    def answer(name, kind, nth):
        hostile = b"\x0bgood.test\0x\x04test\0"
        data = dns.name_bytes(name) + b"\0\5\0\1\0\0\0\0" + len(hostile).to_bytes(2, "big") + hostile
        return [data] + ([hostile + b"\0\1\0\1\0\0\0\0\0\4\x7f\0\0\1"] if kind == dns.A else [])

    g = gateway(resolver=[dns_server(answer).address], resolver_timeout=300)
    with g.session("alias.test", echo.port) as c:
        assert c.code not in (socks.OK, None)


def test_ipv6_answers(gateway, dns_server, server):
    from harness import ports

    if not ports.has_ipv6():
        pytest.skip("no IPv6 loopback")
    s = server(servers.Named, b"six", "::1")
    d = dns_server(lambda name, kind, nth: [dns.record(name, dns.AAAA, "::1")] if kind == dns.AAAA else [])
    g = gateway(resolver=[d.address])
    with g.session("six.test", s.port) as c:
        assert c.code == socks.OK
        assert c.receive(3) == b"six"
    assert [r["address"] for r in g.connected()] == ["::1"]


def test_mapped_ipv6_answer_is_judged_as_ipv4(gateway, dns_server, echo):
    d = dns_server(lambda name, kind, nth: [dns.record(name, dns.AAAA, "::ffff:127.0.0.1")] if kind == dns.AAAA else [])
    g = gateway("rule no deny to cidr 127.0.0.1/32\nrule yes allow to cidr ::/0 127.0.0.0/8\n", resolver=[d.address])
    with g.session("mapped.test", echo.port) as c:
        assert c.code == socks.NOT_ALLOWED


def test_many_lookups_at_once(gateway, dns_server, echo):
    d = dns_server(a("127.0.0.1"))
    # One server in Python answers them all, on a machine that may be busy; what its socket has no room for is asked again.
    g = gateway(resolver=[d.address], resolver_timeout=2000, resolver_tries=6)
    clients = []
    for i in range(200):
        c = g.client(timeout=100)
        c.send(socks.greeting(socks.PASSWORD) + socks.login("ann", "ann-pass") + socks.request(f"n{i}.test", echo.port))
        clients.append(c)
    for c in clients:
        with c:
            assert c.receive(4) == b"\5\2\1\0"
            assert c.reply() == socks.OK
