"""A reload is reported when every worker decides by it."""

import os
import signal

from harness import processes, socks

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
