"""Conditions that need the world: time, country, group, client, regular expression, port."""

import pytest

from harness import socks


def code(g, host, port, **kwargs):
    with g.session(host, port, **kwargs) as c:
        return c.code


def test_window_follows_the_clock(gateway, echo):
    g = gateway('tz "Europe/Berlin"\nwindow office { mon-fri 08:00-18:00 }\nrule work allow to cidr 127.0.0.1/32 during office\n', clock=True)
    for moment, expected in [
        ("2026-11-20 06:59:00", socks.NOT_ALLOWED),  # Friday, 07:59 in Berlin
        ("2026-11-20 07:00:00", socks.OK),
        ("2026-11-20 16:59:00", socks.OK),
        ("2026-11-20 17:00:00", socks.NOT_ALLOWED),
        ("2026-11-21 10:00:00", socks.NOT_ALLOWED),  # Saturday
        ("2026-07-17 06:00:00", socks.OK),  # Friday in summer: 08:00 in Berlin
        ("2026-07-17 05:59:00", socks.NOT_ALLOWED),
    ]:
        g.set_time(moment)
        assert code(g, "127.0.0.1", echo.port) == expected, moment


def test_window_past_midnight(gateway, echo):
    g = gateway("window night { fri 22:00-06:00 }\nrule work allow to cidr 127.0.0.1/32 during night\n", clock=True)
    for moment, expected in [
        ("2026-11-20 21:59:00", socks.NOT_ALLOWED), ("2026-11-20 22:00:00", socks.OK), ("2026-11-21 05:59:00", socks.OK),
        ("2026-11-21 06:00:00", socks.NOT_ALLOWED), ("2026-11-21 22:30:00", socks.NOT_ALLOWED), ("2026-11-20 05:00:00", socks.NOT_ALLOWED),
    ]:
        g.set_time(moment)
        assert code(g, "127.0.0.1", echo.port) == expected, moment


def test_audit_time_is_the_shifted_one(gateway, echo):
    g = gateway(clock=True)
    g.set_time("2031-05-06 07:08:09")
    code(g, "127.0.0.1", echo.port)
    assert g.row(event="open")["time"].startswith("2031-05-06T07:08:")


COUNTRY = """\
rule embargo deny  to country KP
rule german  allow to country DE to cidr 127.0.1.0/24
rule any     allow not to country DE to cidr 127.0.2.0/23
"""


def test_country(gateway, geo_database, server):
    from harness import servers

    s = server(servers.Echo, "127.0.1.1")
    g = gateway(COUNTRY, geoip_database=geo_database)
    assert code(g, "127.0.1.1", s.port) == socks.OK
    assert code(g, "127.0.2.1", s.port) == socks.NOT_ALLOWED
    assert code(g, "127.0.3.1", s.port) == socks.NOT_ALLOWED  # no country: a negated condition of an allow rule is false too
    assert code(g, "127.0.4.1", s.port) == socks.NOT_ALLOWED
    assert g.row(event="open")["rule"] == "german"
    assert [r["rule"] for r in g.wait_rows(1, event="denied", address="127.0.2.1")] == ["embargo"]


def test_country_without_a_database_denies(gateway, echo):
    g = gateway("rule embargo deny to country KP\nrule all allow to cidr 127.0.0.0/8\n")
    assert code(g, "127.0.0.1", echo.port) == socks.NOT_ALLOWED


def test_groups(gateway, echo):
    g = gateway("rule hr allow group hr to cidr 127.0.0.1/32\ndefault deny\n")
    assert code(g, "127.0.0.1", echo.port, user="bob", password="bob-pass") == socks.OK
    assert code(g, "127.0.0.1", echo.port) == socks.NOT_ALLOWED


def test_user(gateway, echo):
    g = gateway("rule no-bob deny user bob\nrule all allow to cidr 127.0.0.1/32\n", listener_methods=["password", "none"])
    assert code(g, "127.0.0.1", echo.port, user="bob", password="bob-pass") == socks.NOT_ALLOWED
    assert code(g, "127.0.0.1", echo.port) == socks.OK
    assert code(g, "127.0.0.1", echo.port, user=None) == socks.OK


def test_nobody_is_no_user(gateway, echo):
    """A negated user is false in an allow rule when there is no user at all."""
    g = gateway("rule not-bob allow not user bob to cidr 127.0.0.1/32\n", listener_methods=["password", "none"])
    assert code(g, "127.0.0.1", echo.port) == socks.OK
    assert code(g, "127.0.0.1", echo.port, user=None) == socks.NOT_ALLOWED


def test_client_address(gateway, echo):
    g = gateway("rule desk allow client 127.0.7.0/24 to cidr 127.0.0.1/32\nrule bobs allow client 127.0.8.0/24 user bob\n")
    assert code(g, "127.0.0.1", echo.port, source="127.0.7.9") == socks.OK
    assert code(g, "127.0.0.1", echo.port, source="127.0.8.9") == socks.NOT_ALLOWED


def test_client_that_the_listener_does_not_serve(gateway, echo):
    g = gateway(listener_clients=["127.0.7.0/24"])
    assert code(g, "127.0.0.1", echo.port, source="127.0.7.1") == socks.OK
    with g.client(source="127.0.8.1") as c:
        assert c.receive_all() == b""


def test_ports(gateway, echo):
    g = gateway(f"rule some allow to cidr 127.0.0.1/32 port 1 {echo.port - 1}-{echo.port}\n")
    assert code(g, "127.0.0.1", echo.port) == socks.OK
    assert code(g, "127.0.0.1", echo.port + 1) == socks.NOT_ALLOWED


@pytest.mark.parametrize("name, expected", [("ads12.test", socks.NOT_ALLOWED), ("ad.test", socks.NOT_ALLOWED), ("bads.test", socks.OK), ("ads.test.org", socks.OK)])
def test_regex_matches_the_whole_name(gateway, dns_server, echo, name, expected):
    from harness import dns

    d = dns_server(lambda n, kind, nth: [dns.record(n, dns.A, "127.0.0.1")] if kind == dns.A else [])
    g = gateway('rule ads deny to regex "ads?[0-9]*\\.test"\nrule all allow to cidr 127.0.0.1/32\n', resolver=[d.address])
    assert code(g, name, echo.port) == expected


def test_first_rule_decides_and_is_named(gateway, echo):
    g = gateway("rule one allow to cidr 127.0.0.1/32\nrule two deny\n")
    assert code(g, "127.0.0.1", echo.port) == socks.OK
    assert code(g, "127.0.0.2", echo.port) == socks.NOT_ALLOWED
    assert g.row(event="open")["rule"] == "one"
    assert g.row(event="denied")["rule"] == "two"


def test_empty_policy_denies(gateway, echo):
    g = gateway("")
    assert code(g, "127.0.0.1", echo.port) == socks.NOT_ALLOWED
    assert code(g, "198.51.100.1", 80) == socks.NOT_ALLOWED


def test_monitor_rule_decides_nothing(gateway, dns_server, echo):
    d = dns_server(lambda n, kind, nth: [])
    g = gateway("rule try monitor allow to domain .test\nrule one allow by address to cidr 127.0.0.1/32\n", resolver=[d.address])
    assert code(g, "x.test", echo.port) == socks.NOT_ALLOWED
    assert d.asked == []
    assert code(g, "127.0.0.1", echo.port) == socks.OK
