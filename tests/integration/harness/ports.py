"""Free ports, below the kernel's ephemeral range: no outgoing connection can take one between our look and our use."""

import os
import random
import socket

_random = random.Random(os.getpid() * 7919 + random.SystemRandom().randrange(1 << 30))
_given = set()


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
        port = _random.randrange(11000, 32000)
        if port not in _given and _free(port):
            _given.add(port)
            return port


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as s:
            s.bind(("::1", 0))
        return True
    except OSError:
        return False
