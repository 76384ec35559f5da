"""One worker in its pauses, and a sibling that dies too: the sibling's successor accepts for both."""

from harness import processes, socks, wait


def kill_next(g, deaths):
    pid = wait.until(lambda: [p for p in processes.of_role(g, "worker", 0) if p not in deaths], "the next worker 0", 40)[0]
    processes.kill(pid)
    deaths.append(pid)


def test_sibling_dies_while_a_worker_is_kept_down(gateway, echo):
    """Each death of worker 0 makes its pause longer.  Within one of them worker 1 dies, and 40 clients are answered."""
    g = gateway(workers=2, listener_methods=["none"])
    deaths, served = [], []
    for _ in range(5):
        kill_next(g, deaths)
    for _ in range(5):  # more than once if the machine was too slow for the pause
        kill_next(g, deaths)
        old = wait.until(lambda: processes.of_role(g, "worker", 1), "worker 1")
        processes.kill(old[0])
        wait.until(lambda: g.process.poll() is not None or set(processes.of_role(g, "worker", 1)) - set(old), "a new worker 1")
        assert g.process.poll() is None, g.log()
        served.clear()
        for _ in range(40):
            with g.session("127.0.0.1", echo.port, user=None, timeout=20) as c:
                served.append(c.code)
        if set(processes.of_role(g, "worker", 0)) <= set(deaths):
            break
    else:
        raise AssertionError(f"clients are not served before worker 0 is back\n{g.log()}")
    assert served == [socks.OK] * 40
