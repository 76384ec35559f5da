"""Fixtures. Each test has gateways of its own, in a directory of its own, ended by pid when the test ends."""

import os
import signal
import sys

import pytest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(__file__))

from harness import dns, geo, servers, wait  # noqa: E402
from harness.gateway import BUILD, Gateway  # noqa: E402

TEST_SECONDS = wait.seconds(240)


def pytest_collection_modifyitems(items):
    if os.geteuid() != 0:
        for item in items:
            if item.get_closest_marker("root"):
                item.add_marker(pytest.mark.skip(reason="only root sees privileges dropped, and into processes that are closed to others"))


def pytest_configure(config):
    for program in ("gatewayd/gatewayd", "admin/gatewayctl"):
        if not os.access(os.path.join(BUILD, program), os.X_OK):
            raise pytest.UsageError(f"{program} is not built in {BUILD}: run make, or set GATEWAYD_BUILD")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """A test that hangs fails with a traceback of where it hung."""

    def late(_signal, _frame):
        raise TimeoutError(f"the test took more than {TEST_SECONDS:g} s")

    previous = signal.signal(signal.SIGALRM, late)
    signal.alarm(int(TEST_SECONDS))
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


@pytest.fixture
def gateway():
    """A factory: gateway(policy=..., option=...) starts one and gives it; all of them are ended, and judged, afterwards."""
    made = []

    def start(*args, **kwargs):
        ready = kwargs.pop("start", True)
        g = Gateway(*args, **kwargs)
        made.append(g)
        if ready:
            g.start()
        return g

    yield start
    problems = []
    for g in reversed(made):
        try:
            g.close()
        except AssertionError as e:
            problems.append(str(e))
    assert not problems, "\n".join(problems)


@pytest.fixture(scope="module")
def shared():
    """One gateway for tests that only look at what it answers: methods none and password, IPv6 where there is any, and a
    resolver that knows no name."""
    d = dns.Scripted(lambda name, kind, nth: 3)
    g = Gateway(
        ipv6=True, listener_methods=["password", "none"], listener_versions=["4", "5"], listener_commands=["connect", "bind", "udp"],
        resolver=[d.address],
    )
    try:
        yield g.start()
    finally:
        d.close()
        g.close()


def _factory(kind):
    made = []

    def start(*args, **kwargs):
        made.append(kind(*args, **kwargs))
        return made[-1]

    return made, start


@pytest.fixture(scope="module")
def echo():
    s = servers.Echo()
    yield s
    s.close()


@pytest.fixture
def server():
    """A factory for origin servers: server(servers.Source, 1 << 24)."""
    made = []

    def start(kind, *args, **kwargs):
        made.append(kind(*args, **kwargs))
        return made[-1]

    yield start
    for s in made:
        s.close()


@pytest.fixture
def dnsmasq():
    made, start = _factory(dns.Dnsmasq)
    yield start
    for d in made:
        d.close()


@pytest.fixture
def dns_server():
    made, start = _factory(dns.Scripted)
    yield start
    for d in made:
        d.close()


@pytest.fixture(scope="session")
def geo_database(tmp_path_factory):
    """An mmdb in which loopback addresses have countries: 127.0.1.0/24 DE, 127.0.2.0/24 KP; 127.0.3.0/24 has none."""
    return geo.build(tmp_path_factory.mktemp("geo") / "test.mmdb", {"127.0.1.0/24": "DE", "127.0.2.0/24": "KP", "198.51.100.0/24": "FR"})
