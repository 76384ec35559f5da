"""Where the programs run. As root: clients and origins are hosts of their own (network namespaces) that reach nothing but the
gateway, which stands between them. Otherwise everything is loopback."""

import ctypes
import os
import random
import subprocess
import threading

from harness import ports

_CLONE_NEWNET = 0x40000000


class World:
    def __init__(self):
        self.client_prefix, self.origin_prefix, self.clients, self._spaces, self._started = [], [], None, [], []
        self.listen, self.v4, self.v6 = "127.0.0.1", "127.0.0.1", "::1" if ports.has_ipv6() else None
        if os.geteuid() == 0 and self._run("ip", "netns", "list", check=False) == 0:
            self._separate()

    @staticmethod
    def _run(*command, check=True):
        return subprocess.run(command, check=check, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=20).returncode

    def _separate(self):
        tag = f"{os.getpid() % 100000}"
        net = random.SystemRandom().randrange(256)
        try:
            for i, what in enumerate(("c", "o")):
                space, ours, theirs = f"gwi{what}{tag}", f"gwi{what}a{tag}", f"gwi{what}b{tag}"
                self._run("ip", "netns", "add", space)
                self._spaces.append(space)
                self._run("ip", "link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", space)
                for prefix, device, host in ((["ip"], ours, 1), (["ip", "-n", space], theirs, 2)):
                    self._run(*prefix, "addr", "add", f"198.18.{net}.{i * 4 + host}/30", "dev", device)
                    self._run(*prefix, "addr", "add", f"fd00:{net:x}:{i}::{host}/64", "dev", device, "nodad", check=False)
                    self._run(*prefix, "link", "set", device, "up")
                self._run("ip", "-n", space, "link", "set", "lo", "up")
        except subprocess.CalledProcessError:
            self.close()
            return  # namespaces may be forbidden even to root: loopback then
        self.client_prefix, self.origin_prefix = (["ip", "netns", "exec", space] for space in self._spaces)
        self.listen, self.v4 = f"198.18.{net}.1", f"198.18.{net}.6"
        self.v6 = f"fd00:{net:x}:1::2" if ports.has_ipv6() else None
        self.clients = [f"198.18.{net}.0/30"]

    def at_origin(self, make, *args):
        """make(*args) where the origins are: sockets that it opens are theirs."""
        result = []

        def work():
            if self._spaces:
                with open(f"/run/netns/{self._spaces[1]}", "rb") as f:
                    if ctypes.CDLL(None, use_errno=True).setns(f.fileno(), _CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), "setns")
            result.append(make(*args))

        t = threading.Thread(target=work)
        t.start()
        t.join()
        self._started.append(result[0])
        return result[0]

    def run(self, *command, timeout=40, **kwargs):
        """A client program, to its end."""
        environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        environment.update(kwargs.pop("environment", {}))
        return subprocess.run([*self.client_prefix, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout,
                              env=environment, **{"stdin": subprocess.DEVNULL, **kwargs})

    def spawn_origin(self, *command):
        """A server program; ended with the world."""
        p = subprocess.Popen([*self.origin_prefix, *command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._started.append(p)
        return p

    def close(self):
        for s in self._started:
            if isinstance(s, subprocess.Popen):
                s.terminate()
                s.wait(10)
            elif not self._spaces:
                s.close()
        for space in self._spaces:
            self._run("ip", "netns", "del", space, check=False)
        self._spaces = []
