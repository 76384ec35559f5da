"""What stands where the control socket is to be."""

import json
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


def test_unread_revisions_are_bounded_and_shared(gateway):
    """Whoever asks and does not read pins memory: the same for all, and only so many may."""
    g = gateway()
    request = json.dumps({"command": "policy-get", "revision": 0}).encode()
    asking = []
    for _ in range(20):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        s.connect(g.socket)
        s.send(request)
        asking.append(s)
    done = g.ctl("policy", "show", check=False)
    assert done.returncode == 1 and "not read it yet" in done.err, (done.out, done.err)
    bundles, refused = set(), 0
    for s in asking:
        text, fds, _, _ = socket.recv_fds(s, 1 << 16, 1)
        refused += not json.loads(text)["ok"]
        for fd in fds:
            bundles.add(os.fstat(fd).st_ino)
            os.close(fd)
    assert len(bundles) == 1 and refused == 12, (bundles, refused)
    for s in asking:
        s.close()
    wait.until(lambda: g.ctl("policy", "show", check=False).returncode == 0, "revisions are given out again")
    for _ in range(10):
        assert "rule loopback" in g.ctl("policy", "export").out
