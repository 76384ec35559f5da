"""A reload is reported when every worker decides by it."""

import os
import resource
import signal
import subprocess

import pytest

from harness import processes, socks, wait
from harness.gateway import sanitized

POLICIES = [("rule no deny to cidr 127.0.0.0/8\n", socks.NOT_ALLOWED), ("rule yes allow to cidr 127.0.0.0/8\n", socks.OK)]


def test_requests_right_after_many_reloads(gateway, echo):
    """The clients are there before: their requests are the first thing that both workers get to see."""
    g = gateway(listener_methods=["none"])
    for i in range(30):
        text, expected = POLICIES[i % 2]
        clients = [g.client() for _ in range(8)]
        for c in clients:
            assert c.greet(socks.NONE) == socks.NONE
        g.write_policy(f"{text}# {i}\n")
        g.reload()
        for c in clients:
            c.send(socks.request("127.0.0.1", echo.port))
        assert [c.reply() for c in clients] == [expected] * 8
        for c in clients:
            c.close()


def test_worker_that_does_not_take_it_is_named(gateway):
    g = gateway(workers=2)
    worker = processes.of_role(g, "worker", 1)[0]
    os.kill(worker, signal.SIGSTOP)
    try:
        g.write_policy(POLICIES[0][0])
        done = g.reload()
    finally:
        os.kill(worker, signal.SIGCONT)
    assert "worker/1 has not taken revision" in done.err, (done.out, done.err)


@pytest.mark.skipif(sanitized(), reason="the sanitizers' runtime needs more memory than the bound leaves")
def test_worker_that_cannot_take_it_decides_nothing_more(gateway, echo):
    """It has no memory for the new image: it is ended, and what takes its place decides by the new one."""
    g = gateway(workers=2)
    worker = processes.of_role(g, "worker", 0)[0]
    s = processes.status(worker)
    with open(f"/proc/{worker}/statm", encoding="utf-8") as f:
        bound = int(f.read().split()[0]) * resource.getpagesize() + 300000
    # Limits of a process that gained no privileges are its own user's to set.
    subprocess.run(["setpriv", "--reuid=" + s["Uid"].split()[0], "--regid=" + s["Gid"].split()[0], "--clear-groups", "prlimit",
                    f"--pid={worker}", f"--as={bound}"], check=True)
    with open(g.path("names"), "w", encoding="utf-8") as f:
        f.writelines(f".n{i}.example\n" for i in range(60000))
    g.write("new.policy", 'set names domain file "names"\nrule names deny to domain @names\n' + POLICIES[0][0])
    done = g.ctl("policy", "apply", "--yes", g.path("new.policy"))
    assert "worker/0 could not take revision 2 and was ended" in done.err, (done.out, done.err)
    assert not os.path.exists(f"/proc/{worker}")
    for _ in range(10):
        with g.session("127.0.0.1", echo.port) as c:
            assert c.code == socks.NOT_ALLOWED
    wait.until(lambda: processes.of_role(g, "worker", 0), "another worker takes its place")
