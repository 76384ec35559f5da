"""What is sent arrives, byte for byte and in order, whatever the two ends do: random schedules of writes of one byte and of many, early
data, slow readers, ends of one direction and resets, over sessions that copy, that splice, and that change over.

RELAY_SCHEDULES and RELAY_SEED say how many and which; a failure tells the seed that repeats it.
"""

import contextlib
import errno
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time

import pytest

from harness import socks, wait

COUNT = int(os.environ.get("RELAY_SCHEDULES", "150"))
SEED = int(os.environ.get("RELAY_SEED", "1"))
DEADLINE = 60
DATA = memoryview(random.Random(1).randbytes(8 << 20))
MIXES = {  # sizes of writes, and how much in all at most
    "small": ((1, 2, 64, 700), 20_000),
    "bulk": ((65536, 200_000, 1 << 20), 3 << 20),
    "both": ((1, 64, 1000, 65536, 300_000), 2 << 20),
}


class End:
    """One end of a session: what it still has to send, and what it must get."""

    def __init__(self, sock, rng, mix):
        sizes, most = MIXES[mix]
        self.socket, self.rng, self.sizes = sock, rng, sizes
        self.total = rng.choice((0, 1, rng.randint(1, most), rng.randint(1, most)))
        self.base = rng.randrange(len(DATA) - (4 << 20))
        self.sent = self.got = 0
        self.ended = self.saw_end = self.saw_reset = False
        self.reset_at = None
        self.slow = rng.random() < 0.3
        self.urgent = rng.random() < 0.1

    def wants(self):
        return not self.saw_reset and (self.sent < self.total or not self.ended)

    def write(self):
        if self.sent == self.total:
            self.socket.shutdown(socket.SHUT_WR)
            self.ended = True
            return
        n = min(self.rng.choice(self.sizes), self.total - self.sent)
        at = self.base + self.sent
        flags = socket.MSG_OOB if self.urgent and n == 1 else 0
        try:
            self.sent += self.socket.send(DATA[at:at + n], flags)
        except BlockingIOError:
            pass

    def read(self, peer):
        if self.slow and self.rng.random() < 0.8:
            return
        try:
            piece = self.socket.recv(self.rng.choice((1, 100, 4096, 262144)) if self.slow else 262144)
        except BlockingIOError:
            return
        if not piece:
            self.saw_end = True
            return
        at = peer.base + self.got
        assert DATA[at:at + len(piece)] == piece, f"bytes {self.got} to {self.got + len(piece)} are not what was sent"
        self.got += len(piece)
        assert self.got <= peer.total

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def _open(gateway, listener, rng, early):
    """The session's two sockets; early: bytes that go with the request, before anything is answered."""
    c = gateway.client()
    c.send(socks.greeting(socks.NONE))
    assert c.receive(2) == b"\5\0"
    c.send(socks.request("127.0.0.1", listener.getsockname()[1]) + bytes(early))
    server, _ = listener.accept()
    assert c.reply() == socks.OK
    for s in (c.socket, server):
        s.setblocking(False)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return c.socket, server


def _attempt(end, act, *args):
    try:
        act(*args)
    except OSError as e:
        assert e.errno in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN)
        end.saw_reset = True


def run(gateway, listener, rng):
    mix = rng.choice(tuple(MIXES))
    up = End(None, rng, mix)
    early = min(up.total, rng.choice((0, 0, 1, 500, 2000)))
    if rng.random() < 0.2:  # a window that fills at once
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    up.socket, server = _open(gateway, listener, rng, DATA[up.base:up.base + early])
    up.sent = early
    down = End(server, rng, mix)
    if rng.random() < 0.2:
        one = rng.choice((up, down))
        one.reset_at = rng.randint(0, one.total)
    ends, deadline = {up.socket: (up, down), server: (down, up)}, time.monotonic() + DEADLINE
    try:
        while not all(e.saw_end and e.ended for e in (up, down)):
            for e, peer in ((up, down), (down, up)):
                if e.reset_at is not None and e.sent >= e.reset_at:
                    return _after_reset(e, peer, deadline)
            assert time.monotonic() < deadline, f"stuck at {up.sent}/{up.total} {up.got} {up.saw_end}, {down.sent}/{down.total} {down.got}"
            readers = [s for s, (e, _) in ends.items() if not e.saw_end]
            writers = [s for s, (e, _) in ends.items() if not e.ended]
            readable, writable, _ = select.select(readers, writers, [], 5)
            for s in readable:
                ends[s][0].read(ends[s][1])
            for s in writable:
                ends[s][0].write()
        assert (up.got, down.got) == (down.total, up.total)
    finally:
        for e in (up, down):
            e.socket.close()


def _after_reset(e, peer, deadline):
    """Its peer is told so, and not of an end in good order."""
    had_end = peer.saw_end or e.ended  # which may have passed before the reset
    e.reset()
    while not peer.saw_reset and not (peer.saw_end and had_end and peer.ended):
        assert time.monotonic() < deadline, "the reset did not arrive"
        assert had_end or not peer.saw_end, "an end in good order instead of a reset"
        select.select([peer.socket], [], [], 0.05)
        _attempt(peer, peer.read, e)
        if not peer.ended and not peer.saw_reset:
            _attempt(peer, peer.write)


def run_all(gateway, seed, count):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for i in range(count):
            try:
                run(gateway, listener, random.Random(seed * 1_000_000 + i))
            except (AssertionError, OSError) as e:
                raise AssertionError(f"RELAY_SEED={seed}, schedule {i}: {e}\n{gateway.log()[-2000:]}") from e


def pipes_of(g):
    """Pipes of the workers, in ends."""
    ends = 0
    for pid in g.pids("worker"):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                ends += os.readlink(f"/proc/{pid}/fd/{fd}").startswith("pipe:")
            except FileNotFoundError:
                pass
    return ends


def test_byte_for_byte(gateway):
    g = gateway(listener_methods=["none"], workers=1, audit_durability="relaxed", audit_fold_after=0)
    before = pipes_of(g)
    run_all(g, SEED, COUNT)
    assert pipes_of(g) > before, "nothing was spliced"


# Takes every pipe that the kernel gives the user, then says so, and keeps them until its input ends.
_HOARD = """
import fcntl, os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
kept, small = [], 0
while small < 3 and len(kept) < 2000:
    r, w = os.pipe()
    kept.append((r, w))
    try:
        fcntl.fcntl(w, 1031, 262144)
    except OSError:
        small += 1
print(small, flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def a_user_of_ones_own():
    """One that nobody else's test takes pipes of."""
    for user in ("games", "man", "lp", "mail", "news", "uucp", "backup", "list"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            try:
                s.bind(f"\0gatewayd-test-user-{user}")
            except OSError:
                continue
            yield user
            return
    raise AssertionError("all of them are taken")


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user's pipes")
def test_without_pipes(gateway):
    """Where the kernel gives a user none, everything is copied."""
    with a_user_of_ones_own() as user:
        without_pipes(gateway, user)


def without_pipes(gateway, user):
    g = gateway(user=user, listener_methods=["none"], workers=1, audit_durability="relaxed", audit_fold_after=0)
    before = pipes_of(g)
    hoard = subprocess.Popen(["setpriv", f"--reuid={user}", "--regid=nogroup", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all",
                              sys.executable, "-c", _HOARD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        refused = hoard.stdout.readline().strip() == b"3"
        run_all(g, SEED + 1000, COUNT // 3)
        if refused:
            assert pipes_of(g) == before
    finally:
        hoard.stdin.close()
        hoard.wait(wait.seconds(40))
        hoard.stdout.close()
