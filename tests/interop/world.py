"""Where the programs run. As root: clients and origins are hosts of their own (network namespaces) that reach nothing but the
gateway, which stands between them. Otherwise everything is loopback."""

import os
import random
import subprocess

from harness import netns, ports


class World:
    def __init__(self):
        self.client_prefix, self.origin_prefix, self.clients, self._spaces, self._started = [], [], None, [], []
        self.listen, self.v4, self.v6 = "127.0.0.1", "127.0.0.1", "::1" if ports.has_ipv6() else None
        self.listen6 = self.v6
        if netns.usable():
            self._separate()

    def _separate(self):
        net = random.SystemRandom().randrange(256)
        for i in range(2):
            pairs = [(f"198.18.{net}.{i * 4 + 1}/30", f"198.18.{net}.{i * 4 + 2}/30")]
            if ports.has_ipv6():
                pairs.append((f"fd00:{net:x}:{i}::1/64", f"fd00:{net:x}:{i}::2/64"))
            self._spaces.append(netns.Space())
            netns.cable(None, self._spaces[i], *pairs)
        self.client_prefix, self.origin_prefix = (space.prefix for space in self._spaces)
        self.listen6 = f"fd00:{net:x}:0::1" if ports.has_ipv6() else None
        self.listen, self.v4 = f"198.18.{net}.1", f"198.18.{net}.6"
        self.v6 = f"fd00:{net:x}:1::2" if ports.has_ipv6() else None
        self.clients = [f"198.18.{net}.0/30", f"fd00:{net:x}:0::/64"]

    def at_origin(self, make, *args):
        """make(*args) where the origins are: sockets that it opens are theirs."""
        made = self._spaces[1].inside(make, *args) if self._spaces else make(*args)
        self._started.append(made)
        return made

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
            space.close()
        self._spaces = []
