"""What the operator may do without, explicitly: waiting for the disk, or the audit itself while it fails."""

import os
import signal
import time

from harness import servers, socks, wait
from harness.processes import of_role


def stopped_recorder(g):
    pid = of_role(g, "recorder")[0]
    os.kill(pid, signal.SIGSTOP)
    return pid


def test_relaxed_does_not_wait(gateway, echo):
    g = gateway(audit_durability="relaxed", audit_timeout=60000)
    assert g.status()["audit"]["durability"] == "relaxed"
    assert "relaxed" in g.ctl("status").out
    assert "audit-durability relaxed" in g.row(event="start")["reason"]
    pid = stopped_recorder(g)
    try:
        with g.session("127.0.0.1", echo.port) as c:
            assert c.code == socks.OK
            c.echo(b"hello")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert g.row(event="ended")["bytes_up"] == 5


def test_allow_grants_what_is_recorded_late(gateway, echo):
    g = gateway(on_audit_failure="allow", audit_timeout=300)
    assert g.status()["audit"]["on_failure"] == "allow"
    assert "on-audit-failure is allow" in g.ctl("status").out
    assert "on-audit-failure allow" in g.row(event="start")["reason"]
    pid = stopped_recorder(g)
    try:
        began = time.monotonic()
        with g.session("127.0.0.1", echo.port) as c:
            assert c.code == socks.OK
            assert time.monotonic() - began >= 0.29  # it was waited for; a loop counts from when its turn began
            c.echo(b"hello")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert g.row(event="ended")["bytes_up"] == 5
    assert len(g.rows(event="open")) == 1


def test_allow_holds_for_destinations_of_udp(gateway, server):
    """What was waiting is sent in time; recorded it is later, once."""
    target = server(servers.UdpEcho)
    g = gateway(on_audit_failure="allow", audit_timeout=300, listener_commands=["connect", "udp"])
    with g.associate() as a:
        assert a.code == socks.OK
        pid = stopped_recorder(g)
        try:
            for size in (5, 7, 9):
                assert a.echo("127.0.0.1", target.port, b"x" * size) == ("127.0.0.1", target.port)
        finally:
            os.kill(pid, signal.SIGCONT)
        flow = g.row(event="flow", address="127.0.0.1")
    assert g.row(event="flow-ended", address="127.0.0.1")["bytes_up"] == 21
    assert len(g.rows(event="flow", session=flow["session"], address="127.0.0.1")) == 1


def test_the_default_refuses(gateway, echo):
    g = gateway(audit_timeout=300)
    assert "durability" not in g.status()["audit"] and "on_failure" not in g.status()["audit"]
    assert g.row(event="start")["reason"].startswith("gatewayd ") and ";" not in g.row(event="start")["reason"]
    pid = stopped_recorder(g)
    try:
        with g.session("127.0.0.1", echo.port) as c:
            assert c.code == socks.FAILURE
    finally:
        os.kill(pid, signal.SIGCONT)
    wait.until(lambda: g.session("127.0.0.1", echo.port).code == socks.OK, "service")
