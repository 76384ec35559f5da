"""CONNECT by IPv4, IPv6 and name, with and without a log-in, by a raw client and by curl."""

import subprocess

import pytest

from harness import ports, servers, socks, wait


def test_ipv4_with_password(shared, echo):
    with shared.session("127.0.0.1", echo.port) as c:
        assert c.code == socks.OK
        c.echo(b"hello")


def test_ipv4_without_login(shared, echo):
    with shared.session("127.0.0.1", echo.port, user=None) as c:
        assert c.code == socks.OK
        c.echo(b"hello")


@pytest.mark.skipif(not ports.has_ipv6(), reason="no IPv6 loopback")
def test_ipv6_destination(shared, server):
    with shared.session("::1", server(servers.Echo, "::1").port) as c:
        assert c.code == socks.OK
        assert c.bound[0] == "::1"
        c.echo(b"hello")


@pytest.mark.skipif(not ports.has_ipv6(), reason="no IPv6 loopback")
def test_ipv6_client(shared, echo):
    with socks.open_session(("::1", shared.port), "127.0.0.1", echo.port) as c:
        assert c.code == socks.OK
        c.echo(b"hello")


def test_mapped_ipv4_is_ipv4(shared, echo):
    with shared.session("::ffff:127.0.0.1", echo.port) as c:
        assert c.code == socks.OK
        assert c.bound[0] == "127.0.0.1"
        c.echo(b"hello")


def test_name(gateway, dnsmasq, echo):
    dns = dnsmasq("--host-record=echo.test,127.0.0.1")
    g = gateway("rule named allow to domain .test to cidr 127.0.0.0/8\ndefault deny\n", resolver=[dns.address])
    with g.session("echo.test", echo.port) as c:
        assert c.code == socks.OK
        c.echo(b"hello")
    assert set(dns.queries()) == {"echo.test"}
    row = g.row(event="open")
    assert (row["name"], row["rule"], row["user"]) == ("echo.test", "named", "ann")


def test_bound_address_is_the_gateways_end(shared, server):
    s = server(servers.Silent)
    with shared.session("127.0.0.1", s.port) as c:
        assert c.code == socks.OK
        s.wait_connected()
        assert c.bound == s.peers[0]


def test_curl_with_a_name_that_the_gateway_resolves(gateway, dnsmasq, server, tmp_path):
    (tmp_path / "page.txt").write_text("a page\n")
    web = server(servers.Http, tmp_path)
    dns = dnsmasq("--host-record=www.test,127.0.0.1")
    g = gateway(resolver=[dns.address])
    got = g.curl(f"http://www.test:{web.port}/page.txt")
    assert (got.returncode, got.stdout) == (0, b"a page\n"), got.stderr


def test_curl_is_denied(shared):
    got = shared.curl("http://10.0.0.1/")
    assert got.returncode == 97
    assert b"(2)" in got.stderr


def test_curl_with_a_wrong_password(shared):
    got = shared.curl("http://127.0.0.1/", password="wrong")
    assert got.returncode == 97


def test_many_sessions_one_after_another(shared, echo):
    for i in range(200):
        with shared.session("127.0.0.1", echo.port) as c:
            assert c.code == socks.OK
            c.echo(b"%d" % i)


def kept_alive(port, peer_port):
    """Waits until the connection from peer_port at port is asked for signs of life: once all else is acknowledged."""

    def asked():
        out = subprocess.run(["ss", "-Htno", "state", "established", f"( sport = :{port} and dport = :{peer_port} )"],
                             stdout=subprocess.PIPE, check=True).stdout
        return b"timer:(keepalive," in out

    wait.until(asked, f"a keep-alive timer from {port} to {peer_port}")


def test_who_vanishes_is_noticed(gateway, server, echo):
    """On both sides of a session, and on the connection that an association hangs on."""
    silent = server(servers.Silent)
    g = gateway(listener_commands=["connect", "udp"])
    with g.session("127.0.0.1", silent.port) as c:
        assert c.code == socks.OK
        kept_alive(g.port, c.socket.getsockname()[1])
        kept_alive(c.bound[1], silent.port)
    with g.associate() as a:
        assert a.code == socks.OK
        kept_alive(g.port, a.control.socket.getsockname()[1])
