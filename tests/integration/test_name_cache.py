"""What a name has resolved to is used again for as long as its records live, and judged anew each time."""

import signal

import pytest

from harness import dns, ports, socks, wait

ALLOW = "rule yes allow to domain .test to cidr 127.0.0.0/8\n"


def a(address, ttl=3600, alias=None):
    """A resolver's answer: this address, by way of an alias or not."""
    def answer(name, kind, nth):
        chain = [dns.record(name, dns.CNAME, alias, ttl)] if alias else []
        return chain + ([dns.record(alias or name, dns.A, address, ttl)] if kind == dns.A else [])

    return answer


@pytest.fixture
def one_worker(gateway):
    """What one worker knows, another does not."""
    return lambda *args, **kwargs: gateway(*args, **{"workers": 1, "resolver_timeout": 60000, **kwargs})


def code(g, name, port):
    with g.session(name, port) as c:
        return c.code


def is_asked(d, g, name, port, want=socks.OK):
    before = len(d.asked)
    assert code(g, name, port) == want
    return len(d.asked) > before


def apply(g, text):
    g.write_policy(text)
    g.ctl("policy", "apply", g.policy_file)


def test_asked_again_only_when_the_records_are_over(one_worker, dns_server, echo):
    d = dns_server(a("127.0.0.1"))
    g = one_worker(ALLOW, resolver=[d.address], resolver_cache_longest=86400000, clock=True)
    g.set_time("2026-11-20 10:00")
    assert is_asked(d, g, "www.test", echo.port)
    assert not is_asked(d, g, "WWW.test.", echo.port)
    g.set_time("2026-11-20 10:30")
    assert not is_asked(d, g, "www.test", echo.port)
    assert is_asked(d, g, "ww.test", echo.port)
    g.set_time("2026-11-20 11:01")
    assert is_asked(d, g, "www.test", echo.port)
    # Nobody knows how long ago that is.
    g.set_time("2026-11-20 09:00")
    assert is_asked(d, g, "www.test", echo.port)


def test_the_longest_time(one_worker, dns_server, echo):
    d = dns_server(a("127.0.0.1", 7 * 86400))
    g = one_worker(ALLOW, resolver=[d.address], resolver_cache_longest=7200000, clock=True)
    g.set_time("2026-11-20 10:00")
    assert is_asked(d, g, "www.test", echo.port)
    g.set_time("2026-11-20 11:00")
    assert not is_asked(d, g, "www.test", echo.port)
    g.set_time("2026-11-20 12:01")
    assert is_asked(d, g, "www.test", echo.port)


@pytest.mark.parametrize("answer, options, want", [
    (a("127.0.0.1", 0), {}, socks.OK),
    (a("127.0.0.1", 1 << 31), {}, socks.OK),
    (a("127.0.0.1"), {"resolver_cache": 0}, socks.OK),
    (lambda name, kind, nth: 3, {}, socks.HOST_UNREACHABLE),
    (lambda name, kind, nth: 2, {}, socks.HOST_UNREACHABLE),
], ids=["ttl 0", "ttl too large", "off", "no such name", "failure"])
def test_what_is_asked_each_time(one_worker, dns_server, echo, answer, options, want):
    d = dns_server(answer)
    g = one_worker(ALLOW, resolver=[d.address], **options)
    for _ in range(3):
        assert is_asked(d, g, "www.test", echo.port, want)


def test_a_bound_of_names(one_worker, dns_server, echo):
    d = dns_server(a("127.0.0.1"))
    g = one_worker(ALLOW, resolver=[d.address], resolver_cache=2)
    for name in ("a.test", "b.test", "c.test"):
        assert is_asked(d, g, name, echo.port)
    assert not is_asked(d, g, "b.test", echo.port)
    assert not is_asked(d, g, "c.test", echo.port)
    assert is_asked(d, g, "a.test", echo.port)
    assert is_asked(d, g, "b.test", echo.port)


@pytest.mark.hostile
def test_addresses_and_aliases_are_judged_anew(one_worker, dns_server, echo):
    d = dns_server(a("127.0.0.1", alias="evil.test"))
    g = one_worker(ALLOW, resolver=[d.address])
    assert is_asked(d, g, "good.test", echo.port)
    for rule in ("to domain evil.test", "to cidr 127.0.0.1/32"):
        apply(g, f"rule no deny {rule}\n" + ALLOW)
        assert not is_asked(d, g, "good.test", echo.port, socks.NOT_ALLOWED)
        assert g.wait_rows(1, event="denied")[-1]["rule"] == "no"
        apply(g, ALLOW)
        assert not is_asked(d, g, "good.test", echo.port)
    # And by the guard of addresses that no rule names.
    apply(g, "rule yes allow to domain .test\n")
    assert not is_asked(d, g, "good.test", echo.port, socks.NOT_ALLOWED)
    # By its name first: what is denied so is denied as if nobody had ever asked.
    apply(g, "rule no deny to domain good.test\n" + ALLOW)
    assert not is_asked(d, g, "good.test", echo.port, socks.NOT_ALLOWED)


@pytest.mark.hostile
def test_another_name_of_the_same_address_is_another(one_worker, dns_server, echo):
    """What is known of one name says nothing of its aliases, nor of who has the same address."""
    d = dns_server(a("127.0.0.1", alias="shared.test"))
    g = one_worker(ALLOW, resolver=[d.address])
    assert is_asked(d, g, "one.test", echo.port)
    assert is_asked(d, g, "shared.test", echo.port)
    assert is_asked(d, g, "two.test", echo.port)


def test_the_records_say_the_same(one_worker, dns_server, echo):
    d = dns_server(a("127.0.0.1", alias="other.test"))
    g = one_worker(ALLOW, resolver=[d.address])
    for _ in range(2):
        with g.session("www.test", echo.port) as c:
            c.echo(b"x")
    assert set(d.names()) == {"www.test"} and len(d.asked) == 2

    def told(rows):
        own = ("id", "event", "session", "time", "time_us", "client_port", "port_client", "duration_us", "duration", "hash", "seq", "client",
               "bytes_up", "bytes_down", "reason", "detail")
        return [{k: v for k, v in r.items() if k not in own} for r in rows]

    opened = g.wait_rows(2, event="open")
    assert opened[0]["detail"] == opened[1]["detail"]
    for rows in (told(opened), told(g.connected(2))):
        assert len(rows) == 2 and rows[0] == rows[1]
        assert rows[0]["name"] == "www.test"


@pytest.mark.parametrize("how", ["reload", "SIGHUP"])
def test_a_reload_forgets(one_worker, dns_server, echo, how):
    d = dns_server(a("127.0.0.1"))
    g = one_worker(ALLOW, resolver=[d.address])
    assert is_asked(d, g, "www.test", echo.port)
    assert not is_asked(d, g, "www.test", echo.port)
    if how == "reload":
        g.reload()
        assert is_asked(d, g, "www.test", echo.port)
    else:
        g.process.send_signal(signal.SIGHUP)
        wait.until(lambda: is_asked(d, g, "www.test", echo.port), "it is asked again")


def test_where_nobody_answers_is_asked_again(one_worker, dns_server, echo):
    d = dns_server(a("127.0.0.1"))
    g = one_worker(ALLOW, resolver=[d.address])
    assert is_asked(d, g, "www.test", ports.free(), socks.REFUSED)
    assert is_asked(d, g, "www.test", echo.port)
    assert not is_asked(d, g, "www.test", echo.port)


def test_status_tells_what_memory_answers(one_worker, dns_server, echo):
    d = dns_server(a("127.0.0.1"))
    g = one_worker(ALLOW, resolver=[d.address])
    keys = ("names_hits", "names_joined", "names_misses", "names_kept")

    def counts():
        w = g.status()["workers"]
        return tuple(w[k] for k in keys)

    assert counts() == (0, 0, 0, 0) and "names " not in g.ctl("status").out
    for name in ("www.test", "www.test", "ww.test", "WWW.test"):
        assert code(g, name, echo.port) == socks.OK
    assert counts() == (2, 0, 2, 2)
    assert g.status()["workers"]["names_bytes"] > 0
    assert "4 lookups: 2 from memory, 0 shared, 2 asked; 2 kept" in g.ctl("status").out
    g.reload()
    wait.until(lambda: counts() == (2, 0, 2, 0), counts)
