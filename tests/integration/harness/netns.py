"""Hosts of our own: network namespaces, joined by cables (veth pairs). Root alone can make them, and not everywhere."""

import ctypes
import itertools
import os
import subprocess
import threading

from . import wait

_CLONE_NEWNET = 0x40000000
_count = itertools.count()


def _ip(*arguments, check=True):
    return subprocess.run(["ip", *arguments], check=check, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          timeout=wait.seconds(60)).returncode


class Space:
    """A host, with its own loopback."""

    def __init__(self):
        self.name = f"gwt{os.getpid() % 1000000}x{next(_count)}"
        _ip("netns", "add", self.name)
        self.prefix = ["ip", "netns", "exec", self.name]
        self.ip("link", "set", "lo", "up")

    def ip(self, *arguments, check=True):
        return _ip("-n", self.name, *arguments, check=check)

    def sysctl(self, name, value):
        def write():
            with open("/proc/sys/" + name, "w", encoding="ascii") as f:
                f.write(str(value))

        self.inside(write)

    def inside(self, make, *args, **kwargs):
        """make(...) on this host: sockets that it opens are the host's."""
        result, failure = [], []

        def work():
            try:
                with open(f"/run/netns/{self.name}", "rb") as f:
                    if ctypes.CDLL(None, use_errno=True).setns(f.fileno(), _CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), "setns")
                result.append(make(*args, **kwargs))
            except BaseException as e:
                failure.append(e)

        t = threading.Thread(target=work)
        t.start()
        t.join()
        if failure:
            raise failure[0]
        return result[0]

    def close(self):
        _ip("netns", "del", self.name, check=False)


def cable(one, other, *addresses):
    """Joins two hosts (None: the one we are on); addresses: pairs of one each, with prefix lengths. Gives the devices' names."""
    n = next(_count)
    devices = [f"gw{os.getpid() % 1000000}{end}{n}" for end in "ab"]
    _ip("link", "add", devices[0], *(("netns", one.name) if one else ()), "type", "veth", "peer", "name", devices[1],
        *(("netns", other.name) if other else ()))
    for end, (space, device) in enumerate(zip((one, other), devices)):
        ip = space.ip if space else _ip
        for pair in addresses:
            ip("addr", "add", pair[end], "dev", device, *(("nodad",) if ":" in pair[end] else ()), check=":" not in pair[end])
        ip("link", "set", device, "up")
    return devices


def usable():
    """True if hosts can be made here."""
    if os.geteuid() != 0:
        return False
    try:
        Space().close()
        return True
    except (OSError, subprocess.SubprocessError):
        return False
