"""Many sessions, much data, few descriptors; and afterwards everything is as it was."""

import hashlib
import os
import random
import resource
import subprocess
import threading

import pytest

from harness import processes, servers, socks, wait
from harness.gateway import sanitized

pytestmark = [pytest.mark.load, pytest.mark.long]

CURLS = 1000


def test_a_thousand_concurrent_curls(gateway, server, tmp_path):
    """Four curls of 250 transfers each; the origin answers none before all thousand stand side by side."""
    (tmp_path / "page").write_bytes(b"x" * 1000)
    web = server(servers.Http, tmp_path, barrier=CURLS)
    g = gateway(handshake_timeout=120000)
    urls = [f'url = "http://127.0.0.1:{web.port}/page?{i}"\noutput = "/dev/null"\n' for i in range(CURLS)]
    processes = []
    for part in range(4):
        config = tmp_path / f"curl{part}"
        config.write_text("".join(urls[part::4]))
        processes.append(subprocess.Popen(
            ["curl", "-sS", "--noproxy", "", "--parallel", "--parallel-immediate", "--parallel-max", "300", "--max-time", str(int(wait.seconds(110))),
             "--socks5-hostname", f"ann:ann-pass@127.0.0.1:{g.port}", "--write-out", "%{http_code} %{size_download}\n", "-K", config],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    outputs = [p.communicate(timeout=wait.seconds(120)) for p in processes]
    lines = b"".join(out for out, _ in outputs).split(b"\n")
    assert lines.count(b"200 1000") == CURLS, [err[-2000:] for _, err in outputs]
    assert [p.returncode for p in processes] == [0] * 4
    assert len(g.wait_rows(CURLS, event="open")) == CURLS
    assert len(g.wait_rows(CURLS, event="ended")) == CURLS


def test_one_gibibyte_through_curl(gateway, server, tmp_path):
    size, rnd = 1 << 30, random.Random(3)
    with open(tmp_path / "big", "wb") as f:
        f.truncate(size)
        for _ in range(500):
            f.seek(rnd.randrange(size - 65536))
            f.write(rnd.randbytes(rnd.randrange(1, 65536)))
    expected = {}

    def digest():
        sum_ = hashlib.sha256()
        with open(tmp_path / "big", "rb") as f:
            while piece := f.read(1 << 20):
                sum_.update(piece)
        expected["sum"] = sum_.digest()

    g = gateway()
    web = server(servers.Http, tmp_path)
    curl = subprocess.Popen(
        ["curl", "-sS", "--noproxy", "", "--max-time", str(int(wait.seconds(120))), "--socks5-hostname", f"ann:ann-pass@127.0.0.1:{g.port}",
         f"http://127.0.0.1:{web.port}/big"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    thread = threading.Thread(target=digest)
    thread.start()
    got, n = hashlib.sha256(), 0
    while piece := curl.stdout.read(1 << 20):
        got.update(piece)
        n += len(piece)
    thread.join()
    curl.stdout.close()
    assert curl.wait(wait.seconds(40)) == 0
    assert n == size
    assert got.digest() == expected["sum"]
    assert g.row(event="ended")["bytes_down"] >= size


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident_kib(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


@pytest.mark.root
def test_descriptors_and_memory_return(gateway, echo):
    g = gateway(remember_logins=0, throttle_user_failures=0, throttle_client_failures=0)
    workers = g.pids("worker")
    others = [p for p in g.pids() if p not in workers and g.pids()[p] in ("supervisor", "auth", "recorder", "control", "pam")]

    def load():
        clients = [g.session("127.0.0.1", echo.port) for _ in range(300)]
        for c in clients:
            c.echo(b"x" * 5000)
        for c in clients:
            c.close()
        for _ in range(50):  # and those that never become sessions
            with g.client() as c:
                c.send(b"\5\1")
            with g.session("198.51.100.1", 80) as c:
                assert c.code == socks.NOT_ALLOWED
            with g.client() as c:
                c.send(socks.greeting(socks.PASSWORD) + socks.login("ann", "wrong"))

    def settled(pids):
        return sum(descriptors(p) for p in pids)

    start = settled(workers)
    start_others = settled(others)
    load()
    wait.until(lambda: settled(workers) <= start, lambda: f"{start} descriptors in workers, not {settled(workers)}")
    wait.until(lambda: settled(others) <= start_others, lambda: f"{start_others} descriptors elsewhere, not {settled(others)}")
    after_first = sum(resident_kib(p) for p in workers)
    for _ in range(3):
        load()
    wait.until(lambda: settled(workers) <= start, lambda: f"{start} descriptors in workers, not {settled(workers)}")
    if not sanitized():
        assert sum(resident_kib(p) for p in workers) < after_first + 4096
    assert g.pids("worker") == workers


def test_few_descriptors(gateway, echo):
    """More clients than descriptors: nobody crashes or spins, and when some leave, others are served."""
    g = gateway(limits={resource.RLIMIT_NOFILE: 256}, workers=1, handshake_timeout=60000)
    clients = []
    for _ in range(400):
        c = g.client()
        c.send(socks.greeting(socks.PASSWORD) + socks.login("ann", "ann-pass") + socks.request("127.0.0.1", echo.port))
        clients.append(c)
    served = []
    for c in clients[:50]:
        if c.receive(4) == b"\5\2\1\0" and c.reply() == socks.OK:
            served.append(c)
    assert served
    for c in served[:10]:
        c.echo(b"x")
    processes.rests(g.pids("worker")[0])
    for c in clients:
        c.close()

    def works():
        with g.session("127.0.0.1", echo.port) as c:
            return c.code == socks.OK

    wait.until(works, "service after the flood")
    assert len(g.log()) < 200000


def test_max_sessions(gateway, echo):
    g = gateway(max_sessions=5, workers=1)
    clients = [g.session("127.0.0.1", echo.port) for _ in range(5)]
    assert all(c.code == socks.OK for c in clients)
    late = g.client()
    try:  # turned away at once, not left waiting in a queue for somebody else to go
        late.send(socks.greeting(socks.PASSWORD))
        assert late.receive_all() == b""
    except ConnectionError:
        pass
    for c in clients:
        c.echo(b"x")
        c.close()
    late.close()

    def works():
        try:
            with g.session("127.0.0.1", echo.port) as c:
                return c.code == socks.OK
        except (OSError, AssertionError):
            return False

    wait.until(works, "room again")


def test_the_silent_give_way_when_a_worker_is_full(gateway, echo):
    """Oldest first: whoever means it is served, whoever is established goes on, and the flood presses on itself."""
    g = gateway(max_sessions=20, workers=1, handshake_timeout=600000)
    established = g.session("127.0.0.1", echo.port)
    silent = [g.client() for _ in range(19)]
    wait.until(lambda: g.status()["workers"]["sessions"] == 20, "it is full")
    for i in range(5):
        with g.session("127.0.0.1", echo.port) as c:
            assert c.code == socks.OK
            c.echo(b"served")
    assert silent[0].receive_all() == b""
    late = [g.client() for _ in range(100)]
    for c in (silent[18], late[0], late[50]):
        assert c.receive_all() == b""
    assert late[99].greet(socks.PASSWORD) == socks.PASSWORD
    established.echo(b"goes on")
    assert g.status()["workers"]["sessions"] <= 20
    assert "silent for longest" in g.wait_rows(1, event="denied")[0]["reason"]
    for c in (*silent, *late, established):
        c.close()


def test_the_refused_give_way_when_a_worker_is_full(gateway, echo):
    """Their reply has been sent: whoever stays on after it keeps nobody out."""
    g = gateway(max_sessions=20, workers=1, listener_methods=["none"])
    for _ in range(3):
        refused = [g.session("192.0.2.1", 80, user=None) for _ in range(20)]
        assert {c.code for c in refused} == {socks.NOT_ALLOWED}
        sessions = [g.session("127.0.0.1", echo.port, user=None) for _ in range(20)]
        assert {c.code for c in sessions} == {socks.OK}
        for c in (*refused, *sessions):
            c.close()
        wait.until(lambda: g.status()["workers"]["sessions"] == 0, "all are gone")
    assert g.status()["workers"]["turned_away"] == 0


def test_descriptors_above_1023(gateway, echo):
    """600 sessions in one worker have 1,200 sockets: nothing there may depend on select(2)."""
    g = gateway(workers=1)
    clients = [g.session("127.0.0.1", echo.port) for _ in range(600)]
    for c in clients:
        c.echo(b"hello")
    for c in clients:
        c.close()
    assert len(g.wait_rows(600, event="ended")) == 600
