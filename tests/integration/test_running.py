"""The gateway as a whole: drained, its log level, and what status tells of rates and errors."""

import json
import os
import signal
import socket
import subprocess

import pytest

from harness import admin, processes, socks, wait
from harness.gateway import BUILD

NONE = {"listener_methods": ["none"]}


def refused(g):
    try:
        socket.create_connection(g.address, wait.seconds(40)).close()
        return False
    except ConnectionRefusedError:
        return True


def serves(g, echo):
    with g.session("127.0.0.1", echo.port, user=None) as c:
        return c.code == socks.OK


def test_a_drained_gateway_takes_nobody_and_ends_nobody(gateway, echo):
    g = gateway(ipv6=True, **NONE)
    with g.session("127.0.0.1", echo.port, user=None) as c:
        said = g.ctl("drain").out
        assert said == "new connections are not taken any more; 1 session remains\n", said
        wait.until(lambda: refused(g), "connections are refused")
        c.echo(b"x" * 100000)
        assert g.status()["draining"] and "draining" in g.ctl("status").out
        # Whoever is restarted meanwhile begins so, and control still knows.
        for role in ("worker", "control"):
            before = processes.of_role(g, role)
            processes.kill(before[0])
            wait.until(lambda: len(processes.of_role(g, role)) == len(before) and before[0] not in processes.of_role(g, role), f"another {role}")
        wait.until(lambda: g.ctl("status", check=False).returncode == 0 and g.status()["draining"], "it still drains")
        assert refused(g)
    assert json.loads(g.ctl("drain", "--undo", "--json").out)["draining"] is False
    # Every worker's share of the address listens again.
    for _ in range(40):
        wait.until(lambda: not refused(g), "it listens")
        assert serves(g, echo)
    assert not g.status()["draining"]
    reasons = [r["reason"] for r in g.rows(event="admin")]
    assert reasons == ["drain", "drain undone"], reasons


def test_drain_waits_until_none_remains(gateway, echo):
    g = gateway(**NONE)
    with g.session("127.0.0.1", echo.port, user=None) as c:
        p = subprocess.Popen([os.path.join(BUILD, "admin", "gatewayctl"), "--socket", g.socket, "drain", "--wait", "--json"], stdout=subprocess.PIPE)
        wait.until(lambda: refused(g), "connections are refused")
        assert p.poll() is None
        c.echo(b"still here")
    out, _ = p.communicate(timeout=wait.seconds(60))
    assert p.returncode == 0 and json.loads(out) == {"draining": True, "sessions": 0}
    # A new start takes connections.
    g.restart()
    assert serves(g, echo)


def listen_at(host, port, together=False):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, together)
    try:
        s.bind((host, port))
        s.listen(1)
    except OSError:
        s.close()
        raise
    return s


@pytest.mark.parametrize("workers", [1, 2])
def test_a_drained_gateways_address_is_nobody_elses(gateway, echo, workers):
    g = gateway(workers=workers, **NONE)
    with g.session("127.0.0.1", echo.port, user=None) as c:
        g.ctl("drain")
        for host in ("127.0.0.1", ""):
            with pytest.raises(OSError, match="in use"):
                listen_at(host, g.port).close()
        c.echo(b"x")
        # Told once it is so.
        g.ctl("drain", "--undo")
        assert serves(g, echo)


def test_a_listener_that_cannot_listen_again_is_told(gateway, echo):
    """The kernel lets nobody in between but a program of our own user that shares the address first, and then no more."""
    g = gateway(workers=2, **NONE)
    g.ctl("drain")
    with listen_at("127.0.0.1", g.port, True) as other, listen_at("127.0.0.2", g.port):
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
        done = g.ctl("drain", "--undo", check=False)
        assert done.returncode == 1 and f"127.0.0.1:{g.port}" in done.err and "another program holds it" in done.err, done.err
        s = g.status()
        assert (s["draining"], s["not_listening"]) == (False, 2)
        assert "do not listen again" in g.ctl("status").out
    wait.until(lambda: "not_listening" not in g.status(), "it listens again by itself")
    assert serves(g, echo)


def test_an_undo_that_is_no_truth_value_does_nothing(gateway):
    g = gateway(workers=1)
    for undo in ("yes", 1, "true", None):
        reply, _ = admin.ask(g.socket, {"command": "drain", "undo": undo})
        assert not reply["ok"] and "true or false" in reply["error"], reply
    assert not g.status()["draining"]
    assert {r["reason"] for r in g.wait_rows(4, event="admin")} == {"refused: drain: undo is true or false"}


def test_drain_waits_for_a_worker_that_is_silent(gateway, echo):
    g = gateway(workers=1, worker_timeout=60000, **NONE)
    worker = processes.of_role(g, "worker")[0]
    with g.session("127.0.0.1", echo.port, user=None) as c:
        os.kill(worker, signal.SIGSTOP)
        try:
            assert json.loads(g.ctl("drain", "--json").out) == {"draining": True, "sessions": 0, "silent_workers": 1}
            p = subprocess.Popen([os.path.join(BUILD, "admin", "gatewayctl"), "--socket", g.socket, "drain", "--wait", "--json"], stdout=subprocess.PIPE)
            # It has asked, been told of a silent worker, and asked again.
            wait.until(lambda: g.log().count("worker/0 does not answer") >= 3, g.log)
            assert p.poll() is None
        finally:
            os.kill(worker, signal.SIGCONT)
        c.echo(b"still here")
        assert p.poll() is None
    out, _ = p.communicate(timeout=wait.seconds(60))
    assert p.returncode == 0 and json.loads(out) == {"draining": True, "sessions": 0}


def test_log_level_is_everybodys(gateway, echo):
    g = gateway(**NONE)
    assert g.ctl("log", "level").out == "info\n"
    assert "debug" not in g.log()
    g.ctl("log", "level", "debug")

    def told():
        serves(g, echo)
        return "debug: session" in g.log()

    wait.until(told, "workers log at the new level")
    assert g.ctl("log", "level").out == "debug\n"
    before = processes.of_role(g, "worker")
    for pid in before:
        processes.kill(pid)
    wait.until(lambda: len(processes.of_role(g, "worker")) == 2 and not set(before) & set(processes.of_role(g, "worker")), "other workers")
    wait.until(lambda: serves(g, echo), "they serve")
    g.ctl("log", "level", "error")
    assert g.ctl("log", "level").out == "error\n"
    assert [r["reason"] for r in g.rows(event="admin")] == ["log level: debug", "log level: error"]
    done = g.ctl("log", "level", "loud", check=False)
    assert done.returncode == 1 and "error, warning, info or debug" in done.err


def test_log_level_reaches_those_who_judge_passwords(gateway):
    g = gateway(workers=1, pam_processes=1, throttle_user_failures=0, throttle_client_failures=0)
    with open(g.path("groups"), "w", encoding="utf-8") as f:
        f.write("this is no line of a group file\n")

    def warned():
        before = g.log().count("cannot be told")
        with g.client() as c:
            c.greet(socks.PASSWORD)
            c.login("ann", "ann-pass")
        return g.log().count("cannot be told") > before

    assert warned()
    g.ctl("log", "level", "error")
    wait.until(lambda: not warned(), "it logs errors alone")
    g.ctl("log", "level", "info")
    wait.until(warned, "it logs warnings again")


def test_rates_are_of_a_period_that_is_told(gateway, echo):
    g = gateway(**NONE)
    g.status()
    with g.session("127.0.0.1", echo.port, user=None) as c:
        c.echo(b"x" * 50000)

        def seen():
            s = g.status()
            return s["rates"]["bytes_up"] > 0 and s["rates"]["granted"] > 0 and s

        found = []
        wait.until(lambda: found.append(seen()) or found[-1], "rates are told")
        rates = found[-1]["rates"]
        assert rates["period_us"] >= 1000000
        assert rates["bytes_up"] * rates["period_us"] / 1e6 == pytest.approx(50000) and rates["granted"] * rates["period_us"] / 1e6 == pytest.approx(1)
        assert "granted/s" in g.ctl("status").out


def test_the_last_error_is_told(gateway):
    g = gateway()
    assert "last_error" not in g.status()
    g.write_policy("rule broken alow\n")
    g.process.send_signal(1)  # SIGHUP: the reload is refused, and the log has an error
    wait.until(lambda: "last_error" in g.status(), "the error is known")
    e = g.status()["last_error"]
    assert e["process"].startswith("control") and "revision 1 stays in force" in e["text"], e
    assert "revision 1 stays in force" in g.ctl("status").out
