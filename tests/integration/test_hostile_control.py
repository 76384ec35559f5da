"""Who comes to the control socket with the worst intentions, as somebody who may connect: administrators are served meanwhile, the
gateway serves, and nothing of it stays."""

import array
import json
import os
import random
import resource
import socket

import pytest

from harness import admin, processes, wait

pytestmark = pytest.mark.hostile

FULL = bool(os.environ.get("GATEWAYD_TEST_FULL"))


def connect(g, blocking=True):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.settimeout(30 if blocking else 0)
    s.connect(g.socket)
    return s


def commands():
    from test_roles import commands as table

    return [request for request, _ in table() if request["command"] != "drain"]


def held(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.parametrize("approval", [False, True])
def test_requests_that_are_half_right(gateway, approval):
    """Every command with values of every wrong kind: an answer, always, and the same control at the end."""
    g = gateway(policy_approval=approval)
    g.ctl("policy", "rollback", "1")
    pid = g.pids("control")[0]
    r = random.Random(4711)
    wrong = [None, True, -1, 0, 2**62, 1.5, "", "x" * 3000, "\x1b[2J", [], {}, {"a": 1}, [[[[[]]]]], {"user": 5}, {"to": "10.0.0.1/8"}, {"session": "\u0000"}]
    keys = ["filter", "revision", "comment", "level", "reason", "seconds", "sort", "limit", "verb", "user", "clients", "block", "before", "if_revision",
            "force", "undo", "all", "stats", "id", "after", "confirm_s", "max_ended", "yes", "dry_run"]
    processes.rests(pid)
    before = held(pid)
    for request in commands() * (20 if FULL else 4):
        request = {**request, **{k: r.choice(wrong) for k in r.sample(keys, r.randint(1, len(keys)))}}
        for _ in range(3):
            reply, fd = admin.ask(g.socket, request)
            if fd is not None:
                os.close(fd)
            if "too many" not in reply.get("error", ""):
                break
        assert isinstance(reply["ok"], bool), (request, reply)
        assert reply["ok"] or reply["error"], (request, reply)
        assert "\x1b" not in json.dumps(reply, ensure_ascii=False), (request, reply)
    assert g.pids("control")[0] == pid
    wait.until(lambda: held(pid) <= before, lambda: f"control holds {held(pid)} descriptors, not {before}")


def test_bytes_that_are_no_request(gateway):
    g = gateway()
    pid = g.pids("control")[0]
    r = random.Random(1)
    whole = json.dumps({"command": "session-list", "filter": {"user": "ann"}, "sort": "bytes", "limit": 5}).encode()
    for i in range(300 if FULL else 60):
        data = bytearray(whole)
        for _ in range(r.randint(1, 4)):
            data[r.randrange(len(data))] = r.randrange(256)
        with connect(g) as s:
            s.send(bytes(data[:r.randint(1, len(data))]))
            text, fds, _, _ = socket.recv_fds(s, 1 << 16, 4)
            assert "ok" in json.loads(text)
            for fd in fds:
                os.close(fd)
    with connect(g) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        s.send(b" " * 100000)
        assert "too large" in json.loads(s.recv(1 << 16))["error"]
    with connect(g) as s:  # nested deeper than anybody reads
        s.send(b'{"command":' * 5000)
        assert not json.loads(s.recv(1 << 16))["ok"]
    with connect(g) as s:  # many descriptors with one request
        fds = array.array("i", [os.open("/dev/null", os.O_RDONLY) for _ in range(200)])
        s.sendmsg([b'{"command":"policy-head"}'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        assert json.loads(s.recv(1 << 16))["ok"]
        for fd in fds:
            os.close(fd)
    assert g.pids("control")[0] == pid
    processes.rests(pid)


def test_ten_thousand_connections(gateway, echo):
    """Ten thousand come, one after the other, each in its turn: some leave at once, some ask and do not read, some say nothing until
    there is no room; what room there is comes back."""
    g = gateway()
    pid = g.pids("control")[0]
    n = 10000
    silent = []
    for i in range(n):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        s.setblocking(False)
        try:
            s.connect(g.socket)
            if i % 3:
                s.send(b'{"command":"status"}')
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            pass  # its queue is full: that is the caller's to wait for
        if i % 50 == 0 and len(silent) < 40:
            silent.append(s)
        else:
            s.close()
        if i % (n // 8) == 0:
            g.ctl("policy", "log")  # waits in the queue like anybody
            assert processes.serves(g, echo)
    for s in silent:
        s.close()
    g.ctl("status")
    assert g.pids("control")[0] == pid
    processes.rests(pid)
    assert held(pid) < 40, held(pid)


@pytest.mark.skipif(not FULL, reason="ten seconds of waiting: in check-long")
def test_slow_ones_are_let_go_of(gateway):
    """As many as are served at a time, who say nothing: their time is up, and the next is served."""
    g = gateway()
    slow = [connect(g) for _ in range(64)]
    # In the queue behind them.
    with connect(g) as s:
        s.send(b'{"command":"policy-head"}')
        assert json.loads(s.recv(1 << 16))["ok"]
    assert all(s.recv(10) == b"" for s in slow)
    for s in slow:
        s.close()
