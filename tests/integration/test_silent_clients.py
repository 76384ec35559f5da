"""Clients that say nothing are held until their deadline, and nobody else suffers from it. GATEWAYD_TEST_FULL=1: in full size."""

import json
import os
import selectors
import time

import pytest

from harness import load, processes, wait
from harness.gateway import sanitized

pytestmark = [pytest.mark.load, pytest.mark.root, pytest.mark.long]

FULL = os.environ.get("GATEWAYD_TEST_FULL") == "1"
SILENT, RATE, DEADLINE_MS = (2000, 1000, 30000) if FULL else (500, 200, 4000)
# What both workers may hold more than at their start: code and tables that are touched for the first time.
MEMORY_KIB = 1536


def descriptors(pids):
    return {pid: len(processes.descriptors(pid)) for pid in pids}


def resident_kib(pids):
    return sum(int(processes.status(pid)["VmRSS"].split()[0]) for pid in pids)


def ends(silent, each, ms):
    """Waits for the end of all, calls each(when it began) for one after the other."""
    with selectors.DefaultSelector() as s:
        for c, began in silent:
            c.socket.setblocking(False)
            s.register(c.socket, selectors.EVENT_READ, (c, began))
        end = time.monotonic() + ms / 1000 + wait.seconds(60)
        while s.get_map():
            assert time.monotonic() < end, f"{len(s.get_map())} silent clients are still there"
            for key, _ in s.select(1):
                c, began = key.data
                assert c.socket.recv(1) == b""
                each(began)
                s.unregister(c.socket)
                c.close()


def hold_and_serve(g, origin, ms):
    clients = load.start("clients", g.host, g.port, origin, RATE)
    silent, held = [], []
    try:
        with wait.within(ms):
            for _ in range(SILENT):
                began = time.monotonic()
                silent.append((g.client(), began))
            wait.until(lambda: g.status()["workers"]["sessions"] >= SILENT, "all of them are held")
        ends(silent, lambda began: held.append(time.monotonic() - began), ms)
    finally:
        result = json.loads(load.finish(clients))
    # Never before their time (a loop may take it from a moment ago).
    assert len(held) == SILENT and min(held) >= ms / 1000 - 0.1
    if result["errors"] != 0:
        raise wait.TooSlow(f"a machine that serves nobody in {ms} ms, or a gateway that does not: {result}")
    return result, held


def test_silent_clients_cost_nobody_a_request(gateway):
    wait.with_time_enough(lambda ms: silent_clients(gateway, ms), DEADLINE_MS, 4 * DEADLINE_MS)


def silent_clients(gateway, ms):
    g = gateway(listener_methods=["none"], handshake_timeout=ms)
    process = load.start("origin")
    try:
        origin = int(process.stdout.readline())
        workers = g.pids("worker")
        lasting = sorted(p for p, role in g.pids().items() if role in ("supervisor", "worker", "auth", "pam", "recorder", "control"))
        for pid in workers:
            processes.rests(pid)
        fds, memory = descriptors(lasting), resident_kib(workers)
        result, held = hold_and_serve(g, origin, ms)
        wait.until(lambda: descriptors(lasting) == fds, lambda: f"descriptors {fds}, not {descriptors(lasting)}")
        for pid in workers:
            processes.rests(pid, 1.2)  # a second after the flood they give memory back
        after = resident_kib(workers)
        print(f"{SILENT} silent clients, held {min(held):.2f} to {max(held):.2f} s; {json.dumps(result)}; "
              f"descriptors {sum(fds.values())} before and after; memory of workers {memory} KiB before, {after} KiB after")
        assert sanitized() or after <= memory + MEMORY_KIB
        wait.until(lambda: g.status()["workers"]["audit_waiting"] == 0, "all of it is durable")
        assert len(g.rows("--limit", "0", "--event", "ended")) == result["served"]
        assert g.pids("worker") == workers
    finally:
        load.finish(process)
