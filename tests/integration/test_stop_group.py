"""SIGTERM to the whole process group, as a terminal or a service manager sends it: everything is still recorded."""

import os
import signal

import pytest

from harness import socks, wait


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_the_group(gateway, echo, sig):
    g = gateway()
    clients = [g.session("127.0.0.1", echo.port) for _ in range(10)]
    for c in clients:
        assert c.code == socks.OK
        c.echo(b"x")
    os.killpg(g.process.pid, sig)
    assert g.process.wait(wait.seconds(40)) == 0, g.log()
    for c in clients:
        c.close()
    g.start()
    assert len(g.rows(event="stop")) == 1
    assert len(g.rows(event="ended")) == 10
