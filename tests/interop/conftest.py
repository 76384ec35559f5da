"""Real programs through a real gateway. Origin servers are on hosts of their own where root can make them (network namespaces),
on loopback addresses otherwise. Each result becomes a row of the table that INTEROP_TABLE names."""

import os
import shutil
import sys

import pytest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "integration"))

from harness import dns, servers  # noqa: E402
from harness.gateway import Gateway  # noqa: E402

from world import World  # noqa: E402

_rows = []

_HEAD = """\
# Programs that have been tried

Made by `make interop-table`, which runs every program below through a gateway: clients as Debian ships them, with their own way
to speak SOCKS. Address is what the client names: an IPv4 or IPv6 address, or a name that the gateway resolves. Client, gateway
and origin are hosts of their own (network namespaces); only the gateway reaches both.

ssh goes as far as the server's host key and its refusal of a log-in, which are encrypted end to end. A program that is not
installed is "not tried".

GSSAPI: "cannot" means that the program's own words, quoted, say why it cannot be tried. Debian 12's curl (7.88.1) offers the method,
makes the context, agrees on the protection ("SOCKS5 access without GSS-API data protection granted"), and ends before it sends a
request; or, when the answer to its greeting takes a moment, it has forgotten that it offered the method. Debian's Dante, server and
client library, is built without GSSAPI. The rows of python3-gssapi are of a client of a few lines.

"""


def pytest_configure(config):
    config.addinivalue_line("markers", "program(name, command, address): what a test shows, for the table")
    config.addinivalue_line("markers", "needs(path, ...): programs or files that must be installed")


def _installed(what):
    return os.path.exists(what) if what.startswith("/") else shutil.which(what, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")


def pytest_runtest_setup(item):
    for mark in item.iter_markers("needs"):
        for what in mark.args:
            if not _installed(what):
                pytest.skip(f"{what} is not installed")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    mark = item.get_closest_marker("program")
    if mark is None or not (report.when == "call" or report.skipped or report.failed):
        return
    address = item.callspec.params.get("address", "") if hasattr(item, "callspec") else ""
    version = item.callspec.params.get("version", "") if hasattr(item, "callspec") else ""
    said = dict(item.user_properties).get("result")
    result = said or "works" if report.passed else "not tried" if report.skipped else "FAILS"
    version = version.replace("_v", "") or "socks5"
    address = (address or mark.kwargs.get("address", "")).replace("name4", "name")
    _rows.append((mark.args[0], version, mark.args[1], address, result))


def pytest_sessionfinish(session):
    path = os.environ.get("INTEROP_TABLE")
    if not path or not _rows:
        return
    head = ("program", "version", "command", "address", "result")
    with open(path, "w", encoding="utf-8") as f:
        f.write(_HEAD)
        f.write("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|\n")
        for row in sorted(set(_rows)):
            f.write("| " + " | ".join(row) + " |\n")


@pytest.fixture(scope="session")
def world():
    w = World()
    yield w
    w.close()


@pytest.fixture(scope="session")
def gateway(world):
    """Everything served, without a log-in as SOCKS4 wants it, to clients on this host; the world's hosts are the destinations."""
    names = dns.Dnsmasq(*(f"--host-record=origin.test,{','.join(filter(None, (world.v4, world.v6)))}",
                          f"--host-record=four.test,{world.v4}"))
    g = Gateway(
        f"rule origin allow to cidr {' '.join(filter(None, (world.v4, world.v6)))}\ndefault deny\n",
        listener_methods=["none", "password"], listener_versions=["4", "5"], listener_commands=["connect", "bind", "udp"],
        resolver=[names.address], resolver_timeout=2000,
        **({"listener_clients": [*world.clients]} if world.clients else {}),
        listen=world.listen,
    )
    g.configure(listener_address=[f"{g.host}:{g.port}", *([f"[{world.listen6}]:{g.port}"] if world.listen6 else [])])
    g.start()
    yield g
    g.close()
    names.close()


@pytest.fixture
def address_of(world):
    def find(kind):
        if kind == "ipv6" and not world.v6:
            pytest.skip("no IPv6 here")
        return {"ipv4": world.v4, "ipv6": world.v6, "name": "origin.test", "name4": "four.test"}[kind]

    return find
