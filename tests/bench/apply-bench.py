#!/usr/bin/python3
"""What it costs to change the policy of a running gateway: 100,000 rules, and a list of a million names.

usage: GATEWAYD_BUILD=build tests/bench/apply-bench.py [NAMES RULES]

Prints how long each command of gatewayctl takes, how long the worker that was kept longest from its clients was kept, and how long
control needed to answer others meanwhile.  Time is wall clock: run it on a machine that has nothing else to do."""

import os
import random
import statistics
import sys
import threading
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "integration"))

from harness import servers  # noqa: E402
from harness.gateway import Gateway  # noqa: E402

ROUNDS = 10


def write_policy(directory, names, rules):
    draw = random.Random(1)
    with open(os.path.join(directory, "names"), "w", encoding="utf-8") as f:
        for i in range(names):
            f.write("." + "".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=10)) + f".host{i}.example\n")
    with open(os.path.join(directory, "p"), "w", encoding="utf-8") as f:
        f.write('set malware domain file "names"\nrule malware deny to domain @malware log notice\nrule loopback allow to cidr 127.0.0.0/8\n')
        f.writelines(f"rule r{i} allow group g{i % 500} to domain .d{i}.example port 443\n" for i in range(rules))
    return os.path.join(directory, "p")


class Watch(threading.Thread):
    """Asks control for its status, again and again: the longest that it took."""

    def __init__(self, g):
        super().__init__(daemon=True)
        self.g, self.over, self.longest = g, False, 0.0

    def run(self):
        while not self.over:
            begin = time.monotonic()
            self.g.ctl("policy", "log", "--limit", "1")
            self.longest = max(self.longest, time.monotonic() - begin)


def timed(g, *arguments):
    begin = time.monotonic()
    g.ctl(*arguments)
    return time.monotonic() - begin


def main():
    names, rules = (int(a) for a in sys.argv[1:3]) if len(sys.argv) > 2 else (1000000, 100000)
    g, echo = Gateway(), servers.Echo()
    try:
        g.start()
        file = write_policy(g.dir, names, rules)
        print(f"{rules} rules, {os.path.getsize(file) / 1e6:.1f} MB; a list of {names} names, {os.path.getsize(file[:-1] + 'names') / 1e6:.1f} MB")
        print(f"apply --dry-run              {timed(g, 'policy', 'apply', '--dry-run', file):6.2f} s")
        print(f"apply, all of it new         {timed(g, 'policy', 'apply', file):6.2f} s")
        with open(file, "a", encoding="utf-8") as f:
            f.write("# one edit\n")
        print(f"apply, the list as before    {timed(g, 'policy', 'apply', file):6.2f} s")
        print(f"rollback                     {timed(g, 'policy', 'rollback', '2'):6.2f} s")
        watch, switches = Watch(g), []
        watch.start()
        for i in range(ROUNDS):
            for _ in range(100):
                with g.session("127.0.0.1", echo.port):
                    pass
            g.ctl("policy", "rollback", str(2 + i % 2))
            switches.append(g.status()["policy"]["switch_us"] / 1000)
        watch.over = True
        watch.join()
        print(f"image                        {g.status()['policy']['image_bytes'] / 1e6:6.1f} MB")
        print(f"longest pause of a worker    {statistics.median(switches):6.2f} ms (median of {ROUNDS}), {max(switches):.2f} ms (worst)")
        print(f"control's slowest answer     {watch.longest:6.2f} s")
        begin = time.monotonic()
        g.restart()
        print(f"restart                      {time.monotonic() - begin:6.2f} s")
    finally:
        g.close()
        echo.close()


main()
