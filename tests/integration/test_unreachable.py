"""Reply codes that need a network: a gateway, a router behind it and a destination behind that, each a host of its own."""

import errno
import socket

import pytest

from harness import netns, ports, servers, socks, wait
from harness.gateway import Gateway

pytestmark = [pytest.mark.root, pytest.mark.long]

POLICY = """\
rule everywhere allow to cidr 198.18.0.0/15 192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 2001:db8::/32
default deny
"""

# By version: the destination; addresses that the router knows no way to, says are unreachable, says are not for us, and drops;
# one beyond every route of the gateway's; and neighbours, of ours and of the router's, that are not there.
PLACES = {
    4: {"there": "198.18.2.2", "no way": "203.0.113.1", "unreachable": "198.51.100.1", "prohibited": "198.51.100.129",
        "dropped": "198.51.100.65", "no route": "192.0.2.1", "nobody": "198.18.1.77", "absent": "198.18.2.77"},
    6: {"there": "2001:db8:2::2", "no way": "2001:db8:f::1", "unreachable": "2001:db8:a::1", "prohibited": "2001:db8:b::1",
        "dropped": "2001:db8:c::1", "no route": "2001:db8:ffff::1", "nobody": "2001:db8:1::77", "absent": "2001:db8:2::77"},
}


class Route:
    """gateway -- router -- destination"""

    def __init__(self):
        self.hosts = []
        try:
            self.gateway, self.router, self.destination = (self._host() for _ in range(3))
            self.device, _ = netns.cable(self.gateway, self.router, ("198.18.1.1/24", "198.18.1.2/24"), ("2001:db8:1::1/64", "2001:db8:1::2/64"))
            netns.cable(self.router, self.destination, ("198.18.2.1/24", "198.18.2.2/24"), ("2001:db8:2::1/64", "2001:db8:2::2/64"))
            self._routes()
            self._reach()
        except BaseException:
            self.close()
            raise

    def _host(self):
        self.hosts.append(netns.Space())
        return self.hosts[-1]

    def _routes(self):
        self.router.sysctl("net/ipv4/ip_forward", 1)
        for host in (self.router, self.destination):
            host.sysctl("net/ipv4/icmp_ratelimit", 0)
        for to in ("198.18.2.0/24", "203.0.113.0/24", "198.51.100.0/24"):
            self.gateway.ip("route", "add", to, "via", "198.18.1.2")
        self.destination.ip("route", "add", "198.18.1.0/24", "via", "198.18.2.1")
        for kind, to in (("unreachable", "198.51.100.0/26"), ("blackhole", "198.51.100.64/26"), ("prohibit", "198.51.100.128/26")):
            self.router.ip("route", "add", kind, to)
        if not ports.has_ipv6():
            return
        self.router.sysctl("net/ipv6/conf/all/forwarding", 1)
        for host in (self.router, self.destination):
            host.sysctl("net/ipv6/icmp/ratelimit", 0)
        for to in ("2001:db8:2::/64", "2001:db8:f::/64", "2001:db8:a::/64", "2001:db8:b::/64", "2001:db8:c::/64"):
            self.gateway.ip("route", "add", to, "via", "2001:db8:1::2")
        self.destination.ip("route", "add", "2001:db8:1::/64", "via", "2001:db8:2::1")
        for kind, to in (("unreachable", "2001:db8:a::/64"), ("prohibit", "2001:db8:b::/64"), ("blackhole", "2001:db8:c::/64")):
            self.router.ip("route", "add", kind, to)

    def _reach(self):
        """Neighbours have found each other: on a busy machine the first look for one may be given up."""

        def refused(host):
            try:
                socket.create_connection((host, 9), wait.seconds(40)).close()
            except ConnectionRefusedError:
                return True
            except OSError:
                return False

        for family in (4, 6) if ports.has_ipv6() else (4,):
            self.gateway.inside(wait.until, lambda: refused(PLACES[family]["there"]), "a way to the destination")

    def hops(self, n):
        """What the gateway sends dies after so many."""
        self.gateway.sysctl("net/ipv4/ip_default_ttl", n)
        if ports.has_ipv6():
            self.gateway.sysctl(f"net/ipv6/conf/{self.device}/hop_limit", n)

    def close(self):
        for host in self.hosts:
            host.close()


@pytest.fixture(scope="module")
def route():
    if not netns.usable():
        pytest.skip("no network namespaces here")
    r = Route()
    yield r
    r.close()


@pytest.fixture(scope="module")
def judge(route):
    g = Gateway(POLICY, listener_methods=["none"], listener_versions=["4", "5"], listener_commands=["connect", "bind", "udp"],
                connect_timeout=30000, workers=1)
    g.prefix = route.gateway.prefix
    try:
        yield g.start()
    finally:
        g.close()


@pytest.fixture(scope="module")
def origin(route):
    """A port of the destination, and one where nobody listens."""
    made = [route.destination.inside(servers.Echo, host) for host in ("0.0.0.0", "::") if host == "0.0.0.0" or ports.has_ipv6()]
    yield made
    for s in made:
        s.close()


def ask(route, g, host, port, version=5, command=socks.CONNECT):
    with route.gateway.inside(g.client4 if version == 4 else g.client) as c:
        if version == 5:
            assert c.greet(socks.NONE) == socks.NONE
        return c.request(host, port, command)


each_family = pytest.mark.parametrize("family", [4, pytest.param(6, marks=pytest.mark.skipif(not ports.has_ipv6(), reason="no IPv6"))])


def reason(g, host, **equal):
    return g.wait_rows(1, event="ended", address=host, **equal)[-1]["reason"]


@each_family
def test_the_destination_is_there(route, judge, origin, family):
    server = origin[family == 6]
    with route.gateway.inside(judge.client) as c:
        assert c.greet(socks.NONE) == socks.NONE
        assert c.request(PLACES[family]["there"], server.port) == socks.OK
        assert c.bound[0] == {4: "198.18.1.1", 6: "2001:db8:1::1"}[family]
        c.echo(b"over the router")


@each_family
@pytest.mark.parametrize("place, code, word", [
    ("no route", socks.NETWORK_UNREACHABLE, "network unreachable"),  # our own kernel knows no way
    ("no way", socks.NETWORK_UNREACHABLE, "network unreachable"),  # the router says that it knows none
    ("unreachable", None, None),
    ("absent", socks.HOST_UNREACHABLE, "host unreachable"),  # the same, for its neighbour
    ("prohibited", socks.HOST_UNREACHABLE, "host unreachable"),
    ("nobody", socks.HOST_UNREACHABLE, "host unreachable"),  # nobody answers for its address on the wire
])
def test_what_the_network_says(route, judge, family, place, code, word):
    host = PLACES[family][place]
    if place == "unreachable":  # of such routes an IPv6 router says that there is no way, an IPv4 one that there is no host
        code, word = ((socks.HOST_UNREACHABLE, "host unreachable"), (socks.NETWORK_UNREACHABLE, "network unreachable"))[family == 6]
    assert ask(route, judge, host, 80) == code
    assert reason(judge, host) == word


@each_family
def test_nobody_listens_there(route, judge, family):
    host = PLACES[family]["there"]
    assert ask(route, judge, host, 9) == socks.REFUSED
    assert reason(judge, host, port=9) == "connection refused"


@each_family
def test_packets_run_out_of_hops(route, judge, family, origin):
    """RFC 1928 has a reply for it: TTL expired."""
    host, port = PLACES[family]["there"], origin[family == 6].port
    route.hops(1)
    try:
        assert ask(route, judge, host, port) == socks.TTL
        assert judge.wait_rows(1, event="ended", address=host, reason="ttl expired")
    finally:
        route.hops(64)
    assert ask(route, judge, host, port) == socks.OK


@each_family
def test_silence_is_a_timeout(route, gateway, family):
    g = gateway(POLICY, listener_methods=["none"], connect_timeout=500, workers=1, start=False)
    g.prefix = route.gateway.prefix
    g.start()
    host = PLACES[family]["dropped"]
    # An IPv6 router answers even for what it drops, in some kernels.
    assert ask(route, g, host, 80) in (socks.HOST_UNREACHABLE, *((socks.FAILURE,) if family == 6 else ()))
    assert "timeout" in reason(g, host)


def test_socks4_knows_one_word_for_all(route, judge, origin):
    for place in ("no route", "no way", "unreachable"):
        assert ask(route, judge, PLACES[4][place], 80, version=4) == socks.REJECTED4
    assert ask(route, judge, PLACES[4]["there"], origin[0].port, version=4) == socks.GRANTED4


def dial(address):
    """None while a busy machine has not found its neighbour in time."""
    try:
        return socket.create_connection(address, wait.seconds(40))
    except OSError as e:
        if e.errno != errno.EHOSTUNREACH:
            raise
        return None


@each_family
def test_a_bind_faces_its_peer(route, judge, family):
    """The address of the first reply is one that the peer can reach, over the router; without a way to it there is none."""
    host = PLACES[family]["there"]
    with route.gateway.inside(judge.client) as c:
        assert c.greet(socks.NONE) == socks.NONE
        assert c.request(host, 20, socks.BIND) == socks.OK
        assert c.bound[0] == {4: "198.18.1.1", 6: "2001:db8:1::1"}[family]
        with route.destination.inside(wait.until, lambda: dial(c.bound), "a way to the gateway") as peer:
            assert c.reply() == socks.OK
            assert c.bound == peer.getsockname()[:2]
    assert ask(route, judge, PLACES[family]["no route"], 20, command=socks.BIND) == socks.NETWORK_UNREACHABLE


@each_family
def test_datagrams_that_the_network_refuses_are_counted(route, judge, family, origin):
    def counted():
        workers = judge.status()["workers"]
        return [workers["udp_icmp_errors"], workers["udp_unsent"]]

    echo, before = route.destination.inside(servers.UdpEcho, PLACES[family]["there"]), counted()
    try:
        with route.gateway.inside(judge.associate, user=None) as a:
            a.echo(PLACES[family]["there"], echo.port, b"x")
            for n in range(1, 3):
                a.send(PLACES[family]["there"], 9, b"nobody listens")
                a.echo(PLACES[family]["there"], echo.port, b"y")
                # One word of the network takes the place of another that nobody has read yet.
                wait.until(lambda n=n: counted()[0] == before[0] + n, lambda: f"{n} more than {before}, not {counted()}")
            a.send(PLACES[family]["no route"], 53, b"unsent")
            wait.until(lambda: counted() == [before[0] + 2, before[1] + 1], lambda: f"not {before}, two and one more, but {counted()}")
            a.echo(PLACES[family]["there"], echo.port, b"z")
            session = judge.rows(event="open", command="udp")[-1]["session"]
        detail = judge.wait_rows(1, event="ended", session=session)[0]["detail"]
        assert detail == {"icmp_errors": 2, "dropped": {"unsent": 1}}
    finally:
        echo.socket.close()
