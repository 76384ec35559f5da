"""A worker that dies again and again before it is ready leaves nothing behind in its sibling."""

import os
import signal

import pytest

from harness import processes, wait

pytestmark = pytest.mark.long


def others(g):
    """Pids of everybody but worker 0; what has just been forked, and shows no role yet, is worker 0."""
    return {pid for pid, line in processes.children(g.process.pid).items() if "--role=" in line and not line.endswith("--role=worker --slot=0")}


@pytest.mark.root
def test_a_worker_that_hangs_before_it_is_ready_is_replaced(gateway, echo):
    g = gateway(workers=2, worker_timeout=1000)
    old = processes.of_role(g, "worker", 0)[0]
    control = processes.of_role(g, "control")[0]
    os.kill(control, signal.SIGSTOP)  # without a policy it does not get ready
    try:
        processes.kill(old)
        pid = wait.until(lambda: set(processes.of_role(g, "worker", 0)) - {old}, "the next worker 0", interval=0.0005).pop()
        os.kill(pid, signal.SIGSTOP)
    finally:
        os.kill(control, signal.SIGCONT)
    wait.until(lambda: not set(processes.of_role(g, "worker", 0) or [pid]) & {pid}, "another worker 0")
    assert "worker/0 has given no sign of life" in g.log()
    wait.until(lambda: g.status()["workers"]["max_sessions"], "its answer")
    assert processes.serves(g, echo)


@pytest.mark.root
def test_siblings_descriptors_do_not_grow(gateway, echo):
    g = gateway(workers=2)
    sibling = processes.of_role(g, "worker", 1)[0]
    before = processes.descriptors(sibling)
    seen = {processes.of_role(g, "worker", 0)[0]}
    processes.kill(*seen)
    while len(seen) < 7:
        pid = wait.until(lambda: set(processes.children(g.process.pid)) - others(g) - seen, "the next worker 0", interval=0.0005).pop()
        processes.kill(pid)
        seen.add(pid)
    wait.until(lambda: set(processes.of_role(g, "worker", 0)) - seen, "worker 0 stays")
    wait.until(lambda: processes.descriptors(sibling) == before, lambda: f"{before}, not {processes.descriptors(sibling)}\n{g.log()}")
    assert processes.of_role(g, "worker", 1) == [sibling]
    assert processes.serves(g, echo)
