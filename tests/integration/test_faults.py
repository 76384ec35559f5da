"""kill -9 of each process: service goes on or refuses, and no granted session lacks its rows."""

import os
import signal
import threading
import time

import pytest

from harness import servers, socks, wait
from harness.processes import serves


def replaced(g, role, old):
    try:
        now = g.pids(role)
    except AssertionError:
        return False  # control itself is being replaced
    return len(now) == len(old) and not set(now) & {old[0]} and all(now)


@pytest.mark.parametrize("role", ["worker", "auth", "pam", "recorder", "control"])
def test_killed_process_comes_back(gateway, echo, role):
    g = gateway()
    for _ in range(2):
        old = g.pids(role)
        os.kill(old[0], signal.SIGKILL)
        wait.until(lambda: replaced(g, role, old), f"a new {role}")
        wait.until(lambda: serves(g, echo), f"service after the end of a {role}")
    assert g.process.poll() is None


@pytest.mark.parametrize("role", ["auth", "pam", "recorder", "control"])
def test_established_sessions_go_on(gateway, echo, role):
    g = gateway()
    with g.session("127.0.0.1", echo.port) as c:
        old = g.pids(role)
        os.kill(old[0], signal.SIGKILL)
        c.echo(b"going on")
        wait.until(lambda: replaced(g, role, old), f"a new {role}")
        c.echo(b"and on")
    assert g.row(event="ended")["bytes_up"] == len(b"going on" + b"and on")


@pytest.mark.parametrize("role", ["worker", "recorder", "control", "auth"])
def test_every_granted_session_has_its_row(gateway, server, role):
    """Clients come without pause while processes are killed; whoever read a success reply is in the audit."""
    s = server(servers.Echo)
    g = gateway()
    stop, ports, failed = threading.Event(), [], []

    def ask():
        while not stop.is_set():
            try:
                with g.session("127.0.0.1", s.port, timeout=20) as c:
                    if c.code == socks.OK:
                        ports.append(c.socket.getsockname()[1])
                    else:
                        failed.append(c.code)
            except (OSError, AssertionError):
                failed.append(None)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for t in threads:
        t.start()
    for _ in range(3):
        wait.until(lambda n=len(ports): len(ports) > n + 20, "clients are served", 40)
        old = wait.until(lambda: _pids(g, role), f"the pid of {role}")
        os.kill(old[0], signal.SIGKILL)
        wait.until(lambda: replaced(g, role, old), f"a new {role}", 40)
    wait.until(lambda n=len(ports): len(ports) > n + 20, "clients are served", 40)
    stop.set()
    for t in threads:
        t.join()
    recorded = [r["client_port"] for r in g.wait_rows(len(ports), event="open")]
    missing = set(ports) - set(recorded)
    assert not missing, (missing, g.log())


def _pids(g, role):
    try:
        return g.pids(role)
    except AssertionError:
        return None


def test_sessions_of_a_killed_worker_end_and_keep_their_rows(gateway, echo):
    g = gateway(workers=1)
    clients = [g.session("127.0.0.1", echo.port) for _ in range(5)]
    os.kill(g.pids("worker")[0], signal.SIGKILL)
    for c in clients:
        assert c.receive_all() == b""
        c.close()
    assert len({r["session"] for r in g.wait_rows(5, event="open")}) == 5


def test_listener_of_a_dead_worker_is_served_meanwhile(gateway, echo):
    """A client that comes while a worker is down is not left hanging in that worker's queue."""
    g = gateway(workers=2)
    for _ in range(3):
        os.kill(g.pids("worker")[0], signal.SIGKILL)
        for _ in range(20):
            with g.session("127.0.0.1", echo.port, timeout=20) as c:
                pass
    assert g.process.poll() is None


def test_supervisors_end_is_everybodys_end(gateway, echo):
    g = gateway()
    pids = [p for p, role in g.pids().items() if role != "supervisor"]
    g.expected_exit = -signal.SIGKILL
    with g.session("127.0.0.1", echo.port) as c:
        os.kill(g.process.pid, signal.SIGKILL)
        g.process.wait(wait.seconds(40))
        assert c.receive_all() == b""
    wait.until(lambda: not any(_running(p) for p in pids), lambda: f"all end: {[p for p in pids if _running(p)]}")


def test_start_after_kill_of_everything(gateway, echo):
    g = gateway()
    with g.session("127.0.0.1", echo.port) as c:
        c.echo(b"x")
        for pid in g.pids():
            os.kill(pid, signal.SIGKILL)
        g.process.wait(wait.seconds(40))
    g.start()
    assert serves(g, echo)
    assert len({r["session"] for r in g.wait_rows(2, event="open")}) == 2


def _running(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_recorder_stopped_no_grant_is_answered(gateway, echo):
    """SIGSTOP of the recorder: no success reply until it goes on; what is established relays meanwhile."""
    g = gateway(audit_timeout=60000)
    established = g.session("127.0.0.1", echo.port)
    established.echo(b"before")
    recorder = g.pids("recorder")[0]
    os.kill(recorder, signal.SIGSTOP)
    try:
        waiting = []
        for _ in range(5):
            c = g.client()
            c.greet(socks.PASSWORD)
            assert c.login("ann", "ann-pass") == 0
            c.send(socks.request("127.0.0.1", echo.port) + b"payload")
            waiting.append(c)
        for _ in range(20):
            established.echo(b"x" * 10000)
        assert waiting[0].silent_for(1.0)
        assert all(c.silent_for(0.05) for c in waiting)
        established.echo(b"going on")
    finally:
        os.kill(recorder, signal.SIGCONT)
    for c in waiting:
        with c:
            assert c.reply() == socks.OK
            assert c.receive(7) == b"payload"
    established.close()
    assert len(g.wait_rows(6, event="open")) == 6
    assert len(g.wait_rows(6, event="ended")) == 6


def test_recorder_stopped_too_long_refuses(gateway, echo):
    g = gateway(audit_timeout=500)
    recorder = g.pids("recorder")[0]
    os.kill(recorder, signal.SIGSTOP)
    try:
        with g.session("127.0.0.1", echo.port) as c:
            assert c.code == socks.FAILURE
    finally:
        os.kill(recorder, signal.SIGCONT)
    wait.until(lambda: serves(g, echo), "service when the recorder goes on")


def test_payload_waits_for_the_row(gateway, server):
    """Before the row is durable the destination may see a SYN, but not one byte."""
    s = server(servers.AnswerAfterEnd, b"")
    g = gateway(audit_timeout=60000)
    recorder = g.pids("recorder")[0]
    os.kill(recorder, signal.SIGSTOP)
    try:
        c = g.client()
        c.send(socks.greeting(socks.PASSWORD) + socks.login("ann", "ann-pass") + socks.request("127.0.0.1", s.port) + b"early")
        c.socket.shutdown(1)
        assert c.receive(4) == b"\5\2\1\0"
        assert c.silent_for(0.7)
        assert s.received == b""
    finally:
        os.kill(recorder, signal.SIGCONT)
    with c:
        assert c.reply() == socks.OK
        assert c.receive_all() == b""
    assert s.received == b"early"


def lost(g, n):
    """The closing rows of n lost sessions."""
    return [r for r in g.wait_rows(n, event="ended") if r["reason"].startswith("lost")]


def test_sessions_of_a_killed_worker_get_their_closing_rows(gateway, echo):
    g = gateway(workers=2, checkpoint_megabytes=1)
    clients = [g.session("127.0.0.1", echo.port) for _ in range(8)]
    clients[0].echo(b"x" * (1 << 20))
    g.wait_rows(1, event="checkpoint")
    for pid in g.pids("worker"):
        os.kill(pid, signal.SIGKILL)
    rows = lost(g, 8)
    checkpoint = g.rows(event="checkpoint")[-1]
    assert checkpoint["bytes_up"] + checkpoint["bytes_down"] >= 1 << 20
    opened = {r["session"]: r for r in g.rows(event="open")}
    assert {r["session"] for r in rows} == set(opened)
    for r in rows:
        assert r["detail"]["lost"] is True
        for key in ("user", "client", "client_port", "listener", "method", "command", "port", "rule", "revision"):
            assert r[key] == opened[r["session"]][key]
        assert r["address"] == "127.0.0.1"
        if r["session"] == checkpoint["session"]:
            assert all(r[k] == checkpoint[k] for k in ("bytes_up", "bytes_down", "duration_us"))
    for c in clients:
        c.close()
    wait.until(lambda: serves(g, echo), "service after the end of the workers")
    assert len(lost(g, 9)) == 8


def test_everything_killed_settles_before_anything_is_granted(gateway, echo):
    g = gateway()
    clients = [g.session("127.0.0.1", echo.port) for _ in range(5)]
    g.wait_rows(5, event="connected")
    for pid in g.pids():
        os.kill(pid, signal.SIGKILL)
    g.process.wait(wait.seconds(40))
    g.start()
    with g.session("127.0.0.1", echo.port):
        pass
    rows = g.wait_rows(6, event="ended")
    begun = [r["id"] for r in g.rows(event="open")]
    settled = [r["id"] for r in rows if r["reason"].startswith("lost")]
    assert len(settled) == 5
    assert begun[4] < min(settled) and max(settled) < begun[5]
    for c in clients:
        c.close()


def test_sessions_that_outlive_the_recorder_are_not_lost(gateway, echo):
    g = gateway(workers=2)
    clients = [g.session("127.0.0.1", echo.port) for _ in range(6)]
    for _ in range(2):
        old = g.pids("recorder")
        os.kill(old[0], signal.SIGKILL)
        wait.until(lambda: replaced(g, "recorder", old), "a new recorder")
        wait.until(lambda: serves(g, echo), "service after the end of the recorder")
    # Those who looked whether it serves have left, also in the audit.
    wait.until(lambda: len(g.rows(event="open")) - len(g.rows(event="ended")) == len(clients), "only these live")
    # One worker dies together with the recorder: its sessions are lost, the other's are not.
    old = g.pids("recorder")
    victim = g.pids("worker")[0]
    os.kill(old[0], signal.SIGKILL)
    os.kill(victim, signal.SIGKILL)
    wait.until(lambda: replaced(g, "recorder", old), "a new recorder")
    wait.until(lambda: serves(g, echo), "service after the end of both")
    alive = 0
    for c in clients:
        try:
            c.echo(b"still here")
            alive += 1
        except (OSError, AssertionError, EOFError):
            pass
        c.close()
    served = len(g.rows(event="open"))
    ended = g.wait_rows(served, event="ended")
    assert len({r["session"] for r in ended}) == len(ended) == served
    assert sum(r["reason"].startswith("lost") for r in ended) == len(clients) - alive


def test_flows_of_a_killed_worker_get_their_closing_rows(gateway, server):
    g = gateway(workers=1, listener_commands=["connect", "udp"], checkpoint_interval=1000, udp_idle_timeout=60000)
    s = server(servers.UdpEcho)
    with g.associate() as a:
        a.echo("127.0.0.1", s.port, b"datagram")
        flow = g.row(event="flow-checkpoint")
        g.row(event="checkpoint")
        os.kill(g.pids("worker")[0], signal.SIGKILL)
        ended = g.row(event="flow-ended")
        assert ended["reason"].startswith("lost") and ended["session"] == flow["session"]
        assert ended["bytes_up"] == flow["bytes_up"] == len(b"datagram")
        assert g.row(event="ended")["bytes_up"] == len(b"datagram")


def test_a_worker_that_hangs_is_replaced(gateway, echo):
    """It lives, but takes no turn: its clients would wait for ever."""
    g = gateway(workers=2, worker_timeout=1000)
    old = g.pids("worker")
    session = g.session("127.0.0.1", echo.port)
    for pid in old:
        os.kill(pid, signal.SIGSTOP)
    wait.until(lambda: not set(_pids(g, "worker") or old) & set(old), "new workers")
    assert session.receive_all() == b""
    wait.until(lambda: serves(g, echo), "service by the new workers")
    for slot in (0, 1):
        assert f"worker/{slot} has given no sign of life for 1000 ms and is ended" in g.log()


@pytest.mark.parametrize("role", ["control", "auth"])
def test_a_process_that_hangs_is_replaced(gateway, echo, role):
    g = gateway(process_timeout=1000)
    with g.session("127.0.0.1", echo.port) as c:
        old = g.pids(role)
        os.kill(old[0], signal.SIGSTOP)
        wait.until(lambda: f"{role}/0 has given no sign of life for 1000 ms and is ended" in g.log(), "it is missed")
        wait.until(lambda: _pids(g, role) not in (None, [], old), "another")
        c.echo(b"going on")
    wait.until(lambda: serves(g, echo), "service with another")


def test_a_recorder_that_hangs_is_replaced(gateway, echo):
    """What it has acknowledged is still there, and what waits for it is recorded by its successor."""
    g = gateway(workers=1, recorder_timeout=2000, audit_timeout=60000)
    acknowledged = [g.session("127.0.0.1", echo.port) for _ in range(3)]
    assert [c.code for c in acknowledged] == [socks.OK] * 3
    old = g.pids("recorder")
    os.kill(old[0], signal.SIGSTOP)
    for c in acknowledged:
        c.echo(b"going on")
        c.close()
    with g.session("127.0.0.1", echo.port, timeout=60) as waits:  # for the successor: nobody lets the other go on
        assert waits.code == socks.OK
    assert "recorder/0 has given no sign of life for 2000 ms and is ended" in g.log()
    assert g.pids("recorder") != old
    opened, ended = ({r["session"] for r in g.wait_rows(4, event=e)} for e in ("open", "ended"))
    assert len(opened) == 4 and opened == ended


def test_workers_that_live_are_left_alone(gateway, echo):
    def attempt(ms):
        g = gateway(workers=1, worker_timeout=ms)
        old = g.pids("worker")
        with g.session("127.0.0.1", echo.port) as c:
            began = last = time.monotonic()
            slowest = 0
            try:
                while last < began + 2.5 * ms / 1000:  # twice as long as a hanging one has
                    c.echo(b"x")
                    slowest, last = max(slowest, time.monotonic() - last), time.monotonic()
                assert g.pids("worker") == old
            except (AssertionError, OSError) as e:
                if max(slowest, time.monotonic() - last) > ms / 4000:
                    raise wait.TooSlow("it got no turn, and cannot be told from one that hangs") from e
                raise

    wait.with_time_enough(attempt, 1000, 4000, 20000)
