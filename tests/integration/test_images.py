"""An image that has been replaced is gone when its last user is: no worker, and not control, keeps what nobody decides by."""

import os

import pytest

from harness import socks, wait

POLICY = "rule loopback allow to cidr 127.0.0.0/8\ndefault deny\n"


def mapped(pid):
    """Images and tables that a process has mapped: a name of each."""
    with open(f"/proc/{pid}/maps", encoding="utf-8") as f:
        return [line.split(maxsplit=5)[4] for line in f if "gatewayd-table" in line]


def held(pid):
    """Descriptors of images and tables."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except FileNotFoundError:
            pass
    return [f for f in found if "gatewayd-table" in f]


@pytest.mark.root
def test_one_image_a_worker(gateway, echo, geo_database):
    g = gateway(POLICY, geoip_database=geo_database)
    workers, control = g.pids("worker"), g.pids("control")[0]
    assert [len(mapped(pid)) for pid in workers] == [2, 2]  # the policy and the countries
    for i in range(12):
        g.write_policy(POLICY + f"# {i}\n")
        g.reload()
        with g.session("127.0.0.1", echo.port) as c:
            assert c.code == socks.OK
    wait.until(lambda: [len(set(mapped(pid))) for pid in workers] == [2, 2], "each worker has one image and one table")
    wait.until(lambda: len(held(control)) == 2, "so has control")
    wait.until(lambda: [held(pid) for pid in workers] == [[], []], "without descriptors of them")
    policy = g.status()["policy"]
    assert policy["image_bytes"] > 0 and policy["switch_us"] >= 0


@pytest.mark.root
def test_a_session_keeps_the_image_that_it_was_decided_by(gateway):
    g = gateway(POLICY, workers=1, listener_commands=["connect", "bind"], live_sessions="keep")
    worker = g.pids("worker")[0]
    first = mapped(worker)
    with g.client() as c:
        c.greet(socks.PASSWORD)
        c.login("ann", "ann-pass")
        assert c.request("127.0.0.1", 80, command=socks.BIND) == socks.OK
        for i in range(3):
            g.write_policy(POLICY + f"# {i}\n")
            g.reload()
        wait.until(lambda: len(now := mapped(worker)) == 2 and set(first) < set(now), "the BIND's image and the newest, and none between")
    wait.until(lambda: len(mapped(worker)) == 1 and not set(first) & set(mapped(worker)), "the first image is gone with the BIND")


@pytest.mark.root
def test_a_session_that_is_decided_again_keeps_the_image_no_longer(gateway):
    g = gateway(POLICY, workers=1, listener_commands=["connect", "bind"])
    worker = g.pids("worker")[0]
    first = mapped(worker)
    with g.client() as c:
        c.greet(socks.PASSWORD)
        c.login("ann", "ann-pass")
        assert c.request("127.0.0.1", 80, command=socks.BIND) == socks.OK
        g.write_policy(POLICY + "# another\n")
        g.reload()
        wait.until(lambda: len(mapped(worker)) == 1 and not set(first) & set(mapped(worker)), "the waiting BIND is decided by the newest")
