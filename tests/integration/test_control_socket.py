"""What stands where the control socket is to be."""

import os
import socket

import pytest

from harness import admin, processes, wait
from harness.starts import refused


def test_plain_file_is_not_removed(gateway):
    g = gateway(start=False)
    with open(g.socket, "w", encoding="utf-8") as f:
        f.write("precious")
    refused(g, g.socket)
    with open(g.socket, encoding="utf-8") as f:
        assert f.read() == "precious"


def test_link_is_not_removed(gateway):
    g = gateway(start=False)
    os.symlink(g.path("nowhere"), g.socket)
    refused(g, g.socket)
    assert os.path.islink(g.socket)


def test_somebody_who_hangs_is_somebody(gateway):
    """A socket with a full queue that nobody accepts from: the start neither hangs nor takes it away."""
    g = gateway(start=False)
    waiting = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
        s.bind(g.socket)
        s.listen(0)
        while True:
            c = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            c.setblocking(False)
            waiting.append(c)
            try:
                c.connect(g.socket)
            except BlockingIOError:
                break
        refused(g, g.socket)
        assert os.path.exists(g.socket)
    for c in waiting:
        c.close()


@pytest.mark.parametrize("count", [1, 2, 8])
def test_descriptors_that_nobody_wants_are_closed(gateway, count):
    g = gateway()
    pid = g.pids("control")[0]

    def held():
        return len(os.listdir(f"/proc/{pid}/fd"))

    processes.rests(pid)
    before = held()
    fds = [os.open("/etc/hostname", os.O_RDONLY) for _ in range(count)]
    for _ in range(5):
        admin.ask(g.socket, {"command": "policy-head"}, fds)
    for fd in fds:
        os.close(fd)
    wait.until(lambda: held() <= before, lambda: f"control holds {held()} descriptors, not {before}")
