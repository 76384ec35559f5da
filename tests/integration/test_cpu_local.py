"""cpu-local: a worker has CPUs of its own, and is given the connections that come there."""

import contextlib
import os
import re
import socket

import pytest

from harness import processes, wait

CPUS = sorted(os.sched_getaffinity(0))


@contextlib.contextmanager
def on(cpu):
    """Packets over loopback are handled where they were sent."""
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, set(CPUS))


def inode(connection, port):
    """Of the gateway's end of it."""
    client = connection.getsockname()[1]
    with open("/proc/net/tcp", encoding="ascii") as f:
        for line in f:
            fields = line.split()
            if fields[1].endswith(f":{port:04X}") and fields[2].endswith(f":{client:04X}"):
                return int(fields[9])
    return 0


def holder(g, connection):
    """The worker that accepted it, or None."""
    wanted = f"socket:[{inode(connection, g.port)}]"
    for pid in g.pids("worker"):
        with contextlib.suppress(FileNotFoundError):
            if any(os.readlink(f"/proc/{pid}/fd/{fd}") == wanted for fd in os.listdir(f"/proc/{pid}/fd")):
                return pid
    return None


def listens(pid, inodes):
    """On how many of these sockets."""
    fds = f"/proc/{pid}/fd"
    return sum(os.stat(f"{fds}/{fd}").st_ino in inodes for fd in os.listdir(fds))


def workers_by_cpu(g):
    """{cpu: the worker that stays on it}, once each accepts from a socket of its own, and from no other's."""
    with open("/proc/net/tcp", encoding="ascii") as f:
        inodes = {int(fields[9]) for fields in map(str.split, f) if fields[1].endswith(f":{g.port:04X}") and fields[3] == "0A"}
    pids = processes.of_role(g, "worker")
    try:
        if len(pids) < 2 or any(listens(pid, inodes) != 1 for pid in pids):
            return None
        return {cpu: pid for pid in pids for cpu in os.sched_getaffinity(pid)}
    except OSError:
        return None  # one has ended, or does not yet have what it had


def accepts_where_packets_come(g):
    of = wait.until(lambda: workers_by_cpu(g), "each worker listens")
    assert sorted(of) == CPUS and len(set(of.values())) == 2
    for cpu in CPUS[:8] * 3:
        with on(cpu), socket.create_connection(g.address) as s:
            assert wait.until(lambda s=s: holder(g, s), "somebody accepts it") == of[cpu]


@pytest.mark.root
@pytest.mark.skipif(len(CPUS) < 2, reason="with one CPU there is nothing to choose")
def test_each_accepts_what_comes_to_its_cpu(gateway, echo):
    g = gateway(workers=2, cpu_local=True)
    accepts_where_packets_come(g)
    with on(CPUS[0]), g.session("127.0.0.1", echo.port) as c:
        c.echo(b"hello")


@pytest.mark.root
@pytest.mark.skipif(len(CPUS) < 2, reason="with one CPU there is nothing to choose")
def test_after_a_drain_as_before(gateway):
    g = gateway(workers=2, cpu_local=True)
    g.ctl("drain")
    g.ctl("drain", "--undo")
    accepts_where_packets_come(g)


@pytest.mark.root
@pytest.mark.skipif(len(CPUS) < 2, reason="with one CPU there is nothing to choose")
def test_a_dead_workers_cpu_is_served(gateway, echo):
    g = gateway(workers=2, cpu_local=True)
    of = wait.until(lambda: workers_by_cpu(g), "each worker listens")
    os.kill(of[CPUS[0]], 9)
    for _ in range(10):
        with on(CPUS[0]), g.session("127.0.0.1", echo.port) as c:
            c.echo(b"hello")
    wait.until(lambda: not processes.lives(of[CPUS[0]]), "it is gone")
    # Its successor stays there, too, and nobody stands in for it any more.
    accepts_where_packets_come(g)


@pytest.mark.skipif(len(CPUS) >= 64, reason="there is a CPU for as many workers as there may be")
def test_more_workers_than_cpus_are_refused(gateway):
    g = gateway(start=False, workers=len(CPUS) + 1, cpu_local=True)
    with pytest.raises(AssertionError):
        g.start()
    g.expected_exit = g.process.returncode
    assert re.search(rf"cpu-local: there are {len(CPUS) + 1} workers and {len(CPUS)} CPUs.*lower workers", g.log())
