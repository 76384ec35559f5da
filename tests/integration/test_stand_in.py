"""What a worker keeps of the sockets of another that it stood in for: nothing."""

import os

import pytest

from harness import processes, wait

NONE = {"listener_methods": ["none"]}


def stand_in_and_back(g):
    """Kills worker 0, whose sockets worker 1 serves until it is back: the pid of worker 1, which still has to hear of that."""
    before = processes.of_role(g, "worker", 0)[0]
    processes.kill(before)

    def back():
        return [p for p in g.status()["processes"] if (p["role"], p["slot"], p["state"]) == ("worker", 0, "running") and p["pid"] != before]

    wait.until(back, "worker 0 is back")
    return processes.of_role(g, "worker", 1)[0]


def watched(pid):
    """What the event loop watches: pairs of a descriptor's number and the inode behind it."""
    found = set()
    for fd in os.listdir(f"/proc/{pid}/fdinfo"):
        try:
            with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii") as f:
                lines = [line.split() for line in f if line.startswith("tfd:")]
        except FileNotFoundError:
            continue
        found |= {(int(line[1]), int(next(word for word in line if word.startswith("ino:"))[4:], 16)) for line in lines}
    return found


def opened(pid):
    """Likewise, of all its descriptors."""
    found = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.add((int(fd), os.stat(f"/proc/{pid}/fd/{fd}").st_ino))
        except FileNotFoundError:
            pass
    return found


def test_a_drained_gateway_rests_after_a_worker_has_stood_in(gateway):
    g = gateway(workers=2, **NONE)
    worker = stand_in_and_back(g)
    # Over the same link, and after it, the worker is told that it stands in no more.
    g.ctl("drain")
    processes.rests(worker)


@pytest.mark.root
def test_nothing_is_watched_that_was_given_back(gateway):
    g = gateway(workers=2, **NONE)
    worker = stand_in_and_back(g)
    wait.until(lambda: watched(worker) <= opened(worker), lambda: (watched(worker), opened(worker)))
