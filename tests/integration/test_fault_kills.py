"""kill -9 of any process, or of all, at random moments under load: every success reply that a client saw has its row, no row is
there twice, every session is closed, and the chain verifies.  AUDIT_KILL_ROUNDS times AUDIT_KILLS, from AUDIT_SEED."""

import collections
import os
import random
import shutil
import threading
import time

import pytest

from harness import processes, servers, socks, wait

pytestmark = pytest.mark.long

KILLS = int(os.environ.get("AUDIT_KILLS", "50"))
ROUNDS = int(os.environ.get("AUDIT_KILL_ROUNDS", "1"))
SEED = int(os.environ.get("AUDIT_SEED", "20261126"))
VICTIMS = ["recorder", "worker", "worker", "recorder+worker", "control", "supervisor", "all"]


class Load:
    """Clients without pause; some keep their sessions for a while."""

    def __init__(self, g, port, seed):
        self.g, self.port = g, port
        self.granted = []  # client ports of success replies, once each
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(random.Random(seed + i),)) for i in range(4)]
        for t in self.threads:
            t.start()

    def run(self, rng):
        kept = collections.deque()
        while not self.stop.is_set():
            try:
                c = self.g.session("127.0.0.1", self.port, timeout=5)
            except (OSError, AssertionError, EOFError):
                time.sleep(0.01)  # nobody listens at the moment
                continue
            if c.code != socks.OK:
                c.close()
                continue
            self.granted.append(c.socket.getsockname()[1])
            kept.append(c)
            try:
                c.send(b"x" * rng.randrange(1, 5000))
            except OSError:
                pass
            while len(kept) > rng.randrange(0, 8):
                kept.popleft().close()
        for c in kept:
            c.close()

    def end(self):
        self.stop.set()
        for t in self.threads:
            t.join()


def strike(g, victim, rng):
    """True if the gateway as a whole has ended."""
    roles = victim.split("+")
    if victim == "all":
        pids = [*processes.children(g.process.pid), g.process.pid]
        rng.shuffle(pids)
    elif victim == "supervisor":
        pids = [g.process.pid]
    else:
        found = [processes.of_role(g, role) for role in roles]
        pids = [rng.choice(p) for p in found if p]
    family = [pid for pid, line in processes.family(g.process.pid).items() if "--role=recorder" not in line]
    for pid in pids:
        processes.kill(pid)
    if victim not in ("all", "supervisor"):
        return False
    g.process.wait(wait.seconds(40))
    # They die with it, and the sockets with them; a recorder that lives on for a moment is for the next one to wait for.
    wait.until(lambda: not [line for line in processes.of_session(g.process.pid) if "--role=recorder" not in line], "the end of the others")
    wait.until(lambda: not any(processes.lives(pid) for pid in family), "the end of those with a session of their own")
    return True


def check(g, granted, key):
    rows = g.rows("--dir", os.path.join(g.state, "audit"), looks=True)
    ids = [r["id"] for r in rows]
    assert len(set(ids)) == len(ids) and ids == list(range(1, len(ids) + 1))
    of = collections.defaultdict(list)
    for r in rows:
        if "session" in r and r["event"] in ("open", "ended", "connected"):
            of[r["event"]].append(r["session"])
    for event, sessions in of.items():
        twice = [s for s, n in collections.Counter(sessions).items() if n > 1]
        assert not twice, (event, twice)
    assert set(of["open"]) == set(of["ended"])
    recorded = collections.Counter(r["client_port"] for r in rows if r["event"] == "open")
    missing = {p: n for p, n in collections.Counter(granted).items() if recorded[p] < n}
    assert not missing, missing
    done = g.ctl("audit", "verify", "--key", key, "--dir", os.path.join(g.state, "audit"), check=False)
    assert done.returncode == 0, done.out
    return sum(r["event"] == "ended" and r["reason"].startswith("lost") for r in rows)


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_kills_at_random_moments(gateway, server, round_):
    rng = random.Random(SEED + round_)
    s = server(servers.Echo)
    g = gateway(workers=2, audit_timeout=3000)
    key = g.path("auditor.key")
    shutil.move(os.path.join(g.state, "audit", "first.key"), key)
    load = Load(g, s.port, SEED + 1000 * round_)
    try:
        for _ in range(KILLS):
            served = len(load.granted)
            wait.until(lambda n=served: len(load.granted) > n, lambda: "clients are served\n" + g.log(), 60)
            time.sleep(rng.random() * 0.1)  # a random moment of the load, not a wait for anything
            if strike(g, rng.choice(VICTIMS), rng):
                g.start()
    finally:
        load.end()

    def settled():
        rows = g.rows(looks=True)
        return {r["session"] for r in rows if r["event"] == "open"} == {r["session"] for r in rows if r["event"] == "ended"}

    wait.until(settled, lambda: "the end of every session\n" + g.log(), 60, 0.2)
    g.stop()
    lost = check(g, load.granted, key)
    assert lost > 0  # some were carried by a process that was killed
