"""Datagrams that pass through the kernel joined (UDP_SEGMENT and UDP_GRO of udp(7)): each is decided, carried and counted as one, byte
for byte and in order, whether they come joined, leave joined, or neither.

UDP_SCHEDULES and UDP_SEED say how many random schedules and which."""

import os
import random
import socket
import struct

import pytest

from harness import netns, socks, wait
from harness.gateway import Gateway

SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104
COUNT = int(os.environ.get("UDP_SCHEDULES", "60"))
SEED = int(os.environ.get("UDP_SEED", "1"))
HEADER = 10  # of an IPv4 destination
LARGEST = 65507 - HEADER  # that the client's datagram has room for
OPTIONS = {"listener_commands": ["connect", "udp"], "listener_methods": ["none"], "workers": 1}


def _offered():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.setsockopt(SOL_UDP, UDP_GRO, 1)
            s.setsockopt(SOL_UDP, UDP_SEGMENT, 0)
            return True
        except OSError:
            return False


pytestmark = pytest.mark.skipif(not _offered(), reason="this kernel joins no datagrams")


def bound(host="127.0.0.1", gro=False):
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    if gro:
        s.setsockopt(SOL_UDP, UDP_GRO, 1)
    s.settimeout(20)
    s.bind((host, 0))
    return s


def send_joined(s, to, datagrams):
    """All but the last are of one size."""
    size = len(datagrams[0])
    assert all(len(d) == size for d in datagrams[:-1]) and 0 < len(datagrams[-1]) <= size
    s.sendmsg([b"".join(datagrams)], [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", size))], 0, to)


def receive(s, n):
    """n datagrams: (data, sender), and how many pieces they came in."""
    got, pieces = [], 0
    while len(got) < n:
        data, control, _, sender = s.recvmsg(1 << 16, 64)
        pieces += 1
        size = next((struct.unpack("=i", c[2])[0] for c in control if c[:2] == (SOL_UDP, UDP_GRO)), 0) or max(len(data), 1)
        got += [(data[i:i + size], sender) for i in range(0, max(len(data), 1), size)]
    return got, pieces


class Way:
    """An association, two destinations, and flows to them that are open."""

    def __init__(self, g, hosts=("127.0.0.1", "127.0.0.2"), gro=False):
        self.association = g.associate(user=None)
        assert self.association.code == socks.OK
        self.client, self.relay = self.association.socket, self.association.relay
        self.client.settimeout(20)
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        if gro:
            self.client.setsockopt(SOL_UDP, UDP_GRO, 1)
        self.ends = [bound(h, gro) for h in hosts]
        self.addresses = [e.getsockname()[:2] for e in self.ends]
        self.peers = []
        for i, end in enumerate(self.ends):
            self.client.sendto(self.wrap(i, b"open"), self.relay)
            data, peer = end.recvfrom(100)
            assert data == b"open"
            self.peers.append(peer)

    def wrap(self, i, data, fragment=0):
        return socks.datagram(*self.addresses[i], data, fragment)

    def close(self):
        self.association.close()
        for e in self.ends:
            e.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def numbered(n, size):
    return [bytes([i]) + random.Random(i).randbytes(size - 1) for i in range(n)]


def ended(g, i, way):
    host, port = way.addresses[i]
    row = g.row(event="flow-ended", address=host, port=port)
    return row["detail"]["datagrams_up"], row["bytes_up"], row["detail"]["datagrams_down"], row["bytes_down"]


@pytest.mark.parametrize("offload", [True, False])
@pytest.mark.parametrize("size, last", [(1, 1), (7, 3), (1000, 1000), (1000, 1), (1421, 800)])
def test_what_comes_joined_is_carried_one_by_one(gateway, offload, size, last):
    g = gateway(udp_offload=offload, **OPTIONS)
    data = numbered(39, size) + numbered(1, last)
    with Way(g) as w:
        send_joined(w.client, w.relay, [w.wrap(0, d) for d in data])
        got, _ = receive(w.ends[0], 40)
        assert got == [(d, w.peers[0]) for d in data]
        send_joined(w.ends[0], w.peers[0], data)
        got, _ = receive(w.client, 40)
        assert got == [(w.wrap(0, d), w.relay) for d in data]
    total = 39 * size + last
    assert ended(g, 0, w) == (41, total + 4, 40, total)
    whole = g.row(event="ended")
    assert (whole["bytes_up"], whole["bytes_down"]) == (total + 8, total)
    assert "dropped" not in (whole.get("detail") or {})


@pytest.mark.parametrize("offload", [True, False])
def test_what_follows_one_another_leaves_joined(gateway, offload):
    """Of a loopback, whoever wants to can see that; without offload it never happens."""
    g = gateway(udp_offload=offload, **OPTIONS)
    data = numbered(40, 1000)
    with Way(g, gro=True) as w:
        send_joined(w.client, w.relay, [w.wrap(0, d) for d in data])
        got, pieces = receive(w.ends[0], 40)
        assert ([d for d, _ in got], pieces < 40) == (data, offload)
        send_joined(w.ends[0], w.peers[0], data)
        got, pieces = receive(w.client, 40)
        assert ([d for d, _ in got], pieces < 40) == ([w.wrap(0, d) for d in data], offload)


@pytest.mark.hostile
@pytest.mark.parametrize("offload", [True, False])
def test_each_of_those_that_come_joined_is_decided(gateway, offload):
    """Two destinations, one that is denied, fragments, and what is malformed, all of one size and in one piece."""
    g = gateway(policy="rule some allow to cidr 127.0.0.1/32 127.0.0.2/32\ndefault deny\n", udp_offload=offload, **OPTIONS)
    data = numbered(40, 500)
    with Way(g) as w:
        kinds = [lambda d: w.wrap(0, d), lambda d: w.wrap(1, d), lambda d: socks.datagram("127.0.0.3", 9, d),
                 lambda d: w.wrap(0, d, 1), lambda d: b"\0\1" + w.wrap(0, d)[2:]]
        send_joined(w.client, w.relay, [kinds[i % 5](d) for i, d in enumerate(data)])
        for k in (0, 1):
            got, _ = receive(w.ends[k], 8)
            assert got == [(d, w.peers[k]) for d in data[k::5]]
        w.client.sendto(w.wrap(0, b"after all of them"), w.relay)
        assert w.ends[0].recv(100) == b"after all of them"
    assert g.row(event="ended")["detail"]["dropped"] == {"denied": 8, "fragments": 8, "malformed": 8}
    assert ended(g, 1, w) == (9, 4004, 0, 0)


@pytest.mark.hostile
@pytest.mark.parametrize("offload", [True, False])
def test_strangers_in_one_piece(gateway, offload):
    """Neither another address, nor another port of the client's, nor who was not contacted; each of their datagrams is counted."""
    g = gateway(udp_offload=offload, **OPTIONS)
    data = numbered(20, 300)
    with Way(g) as w, bound("127.0.0.9") as other, bound() as port:
        send_joined(other, w.relay, [w.wrap(0, d) for d in data])
        send_joined(port, w.relay, [w.wrap(0, d) for d in data])
        send_joined(other, w.peers[0], data)
        w.client.sendto(w.wrap(0, b"mine"), w.relay)
        assert w.ends[0].recv(1000) == b"mine"
        w.ends[0].sendto(b"yours", w.peers[0])
        assert w.client.recv(1000) == w.wrap(0, b"yours")
    assert g.row(event="ended")["detail"]["dropped"] == {"strangers": 40, "unsolicited": 20}


def test_replies_of_several_destinations_leave_together(gateway):
    """Of one size, whoever sent them: each has its own header."""
    g = gateway(**OPTIONS)
    with Way(g) as w:
        for i in range(30):
            w.ends[i % 2].sendto(b"%500d" % i, w.peers[i % 2])
        got, _ = receive(w.client, 30)
        assert sorted(d for d, _ in got) == sorted(w.wrap(i % 2, b"%500d" % i) for i in range(30))
    assert ended(g, 0, w)[2:] == ended(g, 1, w)[2:] == (15, 7500)


def test_first_datagrams_wait_one_by_one(gateway):
    """What comes joined before its record is durable: as many of them wait as of others, and the rest is counted."""
    g = gateway(**OPTIONS)
    data = numbered(20, 100)
    with Way(g) as w, bound() as new:
        send_joined(w.client, w.relay, [socks.datagram(*new.getsockname(), d) for d in data])
        got, _ = receive(new, 8)
        assert [d for d, _ in got] == data[:8]
    assert g.row(event="ended")["detail"]["dropped"] == {"over_bounds": 12}


def test_ends_of_what_is_too_large(gateway):
    """The largest that the client's datagram has room for, alone and between others."""
    g = gateway(**OPTIONS)
    data = [b"a" * LARGEST, b"b" * LARGEST, b"", b"c", b"d" * (LARGEST - 1), b"e"]
    with Way(g) as w:
        for d in data:
            w.client.sendto(w.wrap(0, d), w.relay)
            assert w.ends[0].recv(1 << 16) == d
            w.ends[0].sendto(d, w.peers[0])
            assert w.client.recv(1 << 16) == w.wrap(0, d)
    total = sum(map(len, data))
    assert ended(g, 0, w) == (7, total + 4, 6, total)


def pieces_of(rng):
    """Runs of datagrams that may be sent joined: (size, how many, the last one's size)."""
    size = rng.choice((0, 1, 2, 11, 64, 333, 1200, 1201, 1472, 4000, 9001, 30000, rng.randint(1, 65000)))
    n = 1 if size == 0 else rng.randint(1, min(60, max(1, 60000 // (size + HEADER))))
    return size, n, rng.choice((size, rng.randint(min(1, size), size)))


def exchange(w, rng):
    """Bursts from the client to both ends, and back, joined or not; what was sent is there, in order, before the next."""
    for _ in range(rng.randint(1, 4)):
        sent = [[], []]
        back = rng.random() < 0.5
        room = 180_000  # of a receive buffer of the gateway's, should it not be scheduled meanwhile: nothing may be lost
        while rng.random() < 0.85:
            k = rng.randrange(2)
            size, n, last = pieces_of(rng)
            data = [rng.randbytes(size) for _ in range(n - 1)] + [rng.randbytes(last)]
            room -= sum(2 * len(d) + 1500 for d in data)
            if room < 0:
                break
            s, to, burst = (w.ends[k], w.peers[k], data) if back else (w.client, w.relay, [w.wrap(k, d) for d in data])
            if n > 1 and len(burst[-1]) > 0 and rng.random() < 0.7:
                send_joined(s, to, burst)
            else:
                for d in burst:
                    s.sendto(d, to)
            sent[k] += data
        if back:
            got, _ = receive(w.client, len(sent[0]) + len(sent[1]))
            for k in (0, 1):
                head = w.wrap(k, b"")
                assert [d[HEADER:] for d, _ in got if d[:HEADER] == head] == sent[k]
        else:
            for k in (0, 1):
                got, _ = receive(w.ends[k], len(sent[k]))
                assert [d for d, _ in got] == sent[k]


@pytest.mark.parametrize("gro", [True, False])
@pytest.mark.parametrize("offload", [True, False])
def test_random_sizes(gateway, offload, gro):
    g = gateway(udp_offload=offload, **OPTIONS)
    with Way(g, gro=gro) as w:
        for i in range(COUNT // 4):
            try:
                exchange(w, random.Random(SEED * 1_000_000 + i))
            except (AssertionError, OSError) as e:
                raise AssertionError(f"UDP_SEED={SEED}, schedule {i}: {e}") from e


@pytest.mark.skipif(not netns.usable(), reason="no network namespaces here")
def test_datagrams_larger_than_the_path_takes(gateway):
    """What cannot leave joined leaves one by one, in IP fragments as without; smaller ones go on leaving joined."""
    space = netns.Space()
    try:
        space.ip("link", "set", "lo", "mtu", "1500")
        g = gateway(start=False, **OPTIONS)
        g.prefix = space.prefix
        g.start()
        with space.inside(Way, g, gro=True) as w:
            for size, n in ((3000, 8), (1000, 8), (3000, 8), (20000, 2)):
                data = numbered(n, size)
                for d in data:
                    w.client.sendto(w.wrap(0, d), w.relay)
                got, _ = receive(w.ends[0], n)
                assert [d for d, _ in got] == data
                for d in data:
                    w.ends[0].sendto(d, w.peers[0])
                got, _ = receive(w.client, n)
                assert [d for d, _ in got] == [w.wrap(0, d) for d in data]
        row = g.row(event="ended")
        assert "dropped" not in (row.get("detail") or {})
    finally:
        space.close()


@pytest.mark.skipif(not netns.usable(), reason="no network namespaces here")
def test_errors_that_say_nothing_of_joining(gateway):
    """A destination that cannot be reached for a while: what is sent afterwards leaves joined as before."""
    space = netns.Space()
    try:
        g = gateway(start=False, **OPTIONS)
        g.prefix = space.prefix
        g.start()
        data = numbered(20, 1000)
        with space.inside(Way, g, gro=True) as w:
            space.ip("route", "add", "unreachable", "127.0.0.2/32", "table", "local")
            send_joined(w.client, w.relay, [w.wrap(1, d) for d in data])
            w.client.sendto(w.wrap(0, b"behind them"), w.relay)
            assert w.ends[0].recv(100) == b"behind them"
            space.ip("route", "del", "unreachable", "127.0.0.2/32", "table", "local")
            send_joined(w.client, w.relay, [w.wrap(1, d) for d in data])
            got, pieces = receive(w.ends[1], 20)
            assert [d for d, _ in got] == data and pieces < 20
        assert g.row(event="ended")["detail"]["dropped"] == {"unsent": 20}
    finally:
        space.close()
