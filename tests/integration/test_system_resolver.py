"""The system's name servers: a change counts from SIGHUP on, also when a query was in flight."""

import os
import shutil
import signal
import socket
import threading

import pytest

from harness import dns, socks, wait


def usable():
    """True if we may give the gateway files of its own in place of /etc/resolv.conf and /etc/hosts, and have port 53."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or os.system("unshare -m true 2>/dev/null") != 0:
        return False
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind((loopback(3), 53))
    except OSError:
        return False
    return True


def loopback(n):
    """An address of this process's own: port 53 is one for all tests."""
    return f"127.{53 + os.getpid() % 65536 // 256 % 128}.{os.getpid() % 256}.{n}"


pytestmark = [pytest.mark.root, pytest.mark.skipif(not usable(), reason="needs root, mount namespaces and port 53")]

MOUNT = 'mount --bind "$0/resolv.conf" /etc/resolv.conf && mount --bind "$0/hosts" /etc/hosts && exec "$@"'


def with_files(g, nameserver):
    g.write("resolv.conf", f"search wrong.test\nnameserver {nameserver}\n")
    g.write("hosts", "127.0.0.1 in-hosts.test\n")
    g.prefix = ["unshare", "-m", "--propagation", "private", "sh", "-c", MOUNT, g.dir]
    return g.start()


def test_servers_change_while_a_query_runs(gateway, dns_server, echo):
    arrived, go = threading.Event(), threading.Event()

    def slow(name, kind, nth):
        arrived.set()
        go.wait(wait.seconds(60))
        return [dns.record(name, dns.A, "127.0.0.1")] if kind == dns.A else []

    old = dns_server(slow, loopback(1), 53)
    new = dns_server(lambda name, kind, nth: [dns.record(name, dns.A, "127.0.0.1")] if kind == dns.A else [], loopback(2), 53)
    g = with_files(gateway(start=False, resolver=None, resolver_timeout=30000, workers=1, listener_methods=["none"]), old.host)
    try:
        first = g.client()
        assert first.greet(socks.NONE) == socks.NONE
        first.send(socks.request("first.test", echo.port))
        assert arrived.wait(wait.seconds(40))

        g.write("resolv.conf", f"nameserver {new.host}\n")
        g.write("hosts", "127.0.0.1 new-in-hosts.test\n")
        g.process.send_signal(signal.SIGHUP)
        wait.until(lambda: g.log().count("is in force") >= 2, "the reload")
        wait.until(lambda: code(g, "new-in-hosts.test", echo) == socks.OK, "the new hosts file")
    finally:
        go.set()
    with first:
        assert first.reply() == socks.OK
    assert code(g, "second.test", echo) == socks.OK
    assert new.names() and set(new.names()) == {"second.test"}
    assert set(old.names()) == {"first.test"}


def code(g, name, echo):
    with g.session(name, echo.port, user=None) as c:
        return c.code
