"""Each stage has its deadline."""

import pytest

from harness import servers, socks, wait

pytestmark = pytest.mark.long


def test_silent_handshake_is_closed(gateway):
    g = gateway(handshake_timeout=300)
    with g.client() as c:
        assert c.receive_all() == b""


def test_dripping_handshake_has_one_deadline(gateway):
    """Bytes that keep coming do not move it."""
    g = gateway(handshake_timeout=500)
    with g.client() as c:
        c.socket.settimeout(0.05)
        sent = 0
        for b in socks.greeting(*[0x80] * 250):
            try:
                c.socket.send(bytes([b]))
                sent += 1
                if c.socket.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except (BrokenPipeError, ConnectionResetError):
                break
        assert 1 <= sent < 250


def test_unfinished_login_is_recorded(gateway):
    def attempt(ms):
        g = gateway(handshake_timeout=ms)
        with g.client() as c:
            with wait.within(ms):
                c.greet(socks.PASSWORD)
                c.send(b"\1\3an")
            c.receive_all()
        rows = g.wait_rows(1, verdict="deny")
        assert "timeout" in rows[0]["reason"]

    wait.with_time_enough(attempt, 300, 3000, 30000)


def test_idle_session_is_ended(gateway, server):
    s = server(servers.Silent)
    g = gateway(idle_timeout=400)
    with g.session("127.0.0.1", s.port) as c:
        assert c.code == socks.OK
        assert c.receive_all() == b""
    assert s.ended.wait(wait.seconds(40))
    assert "idle" in g.row(event="ended")["reason"]


def test_a_busy_session_is_not_idle(gateway, echo):
    """Bytes now and then keep it, for longer than the timeout."""
    def attempt(ms):
        g = gateway(idle_timeout=ms)
        with g.session("127.0.0.1", echo.port) as c:
            for _ in range(5):
                with wait.within(ms):
                    assert c.silent_for(0.4 * ms / 1000)
                    c.echo(b"x")

    wait.with_time_enough(attempt, 1000, 4000, 20000)


def test_connect_timeout(gateway, server):
    g = gateway(connect_timeout=300)
    with g.session("127.0.0.1", server(servers.Deaf).port) as c:
        assert c.code in (socks.HOST_UNREACHABLE, socks.TTL)


def test_resolver_that_never_answers(gateway, dns_server):
    d = dns_server(lambda name, kind, nth: None)
    g = gateway(resolver=[d.address], resolver_timeout=200, resolver_tries=2)
    with g.session("slow.test", 80) as c:
        assert c.code == socks.HOST_UNREACHABLE
    assert d.asked
    assert g.row(name="slow.test")["verdict"] == "deny"
