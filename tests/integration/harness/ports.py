"""Free ports, below the kernel's ephemeral range: no outgoing connection can take one between our look and our use, and no other
process of the tests can, since each draws from blocks of ports that it alone has."""

import os
import random
import socket

FIRST, LAST, BLOCK = 11000, 32000, 100

_random = random.Random(os.getpid() * 7919 + random.SystemRandom().randrange(1 << 30))
_mine = []  # sockets, each of which says whose a block is for as long as this process lives
_left = []


def _take_block():
    """An abstract name is one process's, and gone with it."""
    blocks = list(range(FIRST, LAST, BLOCK))
    _random.shuffle(blocks)
    for first in blocks:
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            s.bind(f"\0gatewayd-test-ports-{first}")
        except OSError:
            s.close()
            continue
        _mine.append(s)
        _left.extend(_random.sample(range(first, first + BLOCK), BLOCK))
        return
    raise AssertionError(f"all ports from {FIRST} to {LAST} are other tests'")


def _free(port):
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            try:
                with socket.socket(family, kind) as s:
                    s.bind((host, port))
            except OSError as e:
                if family == socket.AF_INET6 and e.errno != 98:
                    continue  # no IPv6 here
                return False
    return True


def free():
    while True:
        if not _left:
            _take_block()
        port = _left.pop()
        if _free(port):
            return port


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as s:
            s.bind(("::1", 0))
        return True
    except OSError:
        return False
