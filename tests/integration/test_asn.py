"""Autonomous systems: decided by a table of their own, for every command, and made anew when the database changes."""

import json
import os
import shutil
import signal

import pytest

from harness import dns, geo, processes, servers, socks, wait

pytestmark = pytest.mark.long

POLICY = """\
rule bad  deny  to asn AS64500
rule good allow to asn 64501 to cidr 127.0.0.0/8
rule none allow to asn unknown to cidr 127.0.0.0/8
"""
NETWORKS = {"127.0.1.0/24": 64500, "127.0.2.0/24": 64501, "127.0.3.0/24": 64502}


def code(g, host, port, **kwargs):
    with g.session(host, port, **kwargs) as c:
        return c.code


def codes(g, port):
    return [code(g, f"127.0.{n}.1", port) for n in (1, 2, 3, 4)]


def start(gateway, policy=POLICY, networks=None, **options):
    g = gateway(policy, start=False)
    file = geo.build_asn(g.path("asn.mmdb"), networks or NETWORKS)
    g.configure(asn_database=file, **options)
    g.start()
    return g, file


EXPECTED = [socks.NOT_ALLOWED, socks.OK, socks.NOT_ALLOWED, socks.OK]


def test_connect(gateway, server):
    s = server(servers.Echo, "0.0.0.0")
    g, _ = start(gateway)
    assert codes(g, s.port) == EXPECTED
    assert g.wait_rows(1, event="denied", address="127.0.1.1")[0]["rule"] == "bad"
    assert {r["rule"] for r in g.wait_rows(2, event="open")} == {"good", "none"}


def test_a_name_by_its_addresses(gateway, server, dns_server):
    s = server(servers.Echo, "0.0.0.0")
    d = dns_server(lambda n, kind, nth: [dns.record(n, dns.A, "127.0.1.1" if n.startswith("bad") else "127.0.2.1")] if kind == dns.A else [])
    g, _ = start(gateway, resolver=[d.address])
    assert code(g, "good.test", s.port) == socks.OK
    assert code(g, "bad.test", s.port) == socks.NOT_ALLOWED


def test_bind_and_udp(gateway, server):
    s = server(servers.UdpEcho, "127.0.2.1")
    g, _ = start(gateway, listener_commands=["connect", "bind", "udp"])
    with g.client() as c:
        c.greet(socks.PASSWORD)
        c.login("ann", "ann-pass")
        assert c.request("127.0.1.1", 80, command=socks.BIND) == socks.NOT_ALLOWED
    with g.client() as c:
        c.greet(socks.PASSWORD)
        c.login("ann", "ann-pass")
        assert c.request("127.0.2.1", 80, command=socks.BIND) == socks.OK
    with g.associate() as a:
        a.send("127.0.1.1", s.port, b"no")
        a.send("127.0.2.1", s.port, b"yes")
        assert a.receive()[1] == b"yes"
    assert g.wait_rows(1, event="denied", address="127.0.1.1", command="udp")[0]["rule"] == "bad"


def test_without_a_database_what_asks_is_denied(gateway, server):
    s = server(servers.Echo, "0.0.0.0")
    g = gateway(POLICY)
    assert codes(g, s.port) == [socks.NOT_ALLOWED] * 4


def test_countries_and_systems_side_by_side(gateway, server):
    s = server(servers.Echo, "0.0.0.0")
    g = gateway("rule both allow to asn 64500 to country DE to cidr 127.0.0.0/8\n", start=False)
    g.configure(asn_database=geo.build_asn(g.path("asn.mmdb"), {"127.0.1.0/24": 64500, "127.0.2.0/24": 64500}),
                geoip_database=geo.build(g.path("geo.mmdb"), {"127.0.1.0/24": "DE", "127.0.2.0/24": "FR", "127.0.3.0/24": "DE"}))
    g.start()
    assert codes(g, s.port) == [socks.OK] + [socks.NOT_ALLOWED] * 3
    tables = g.status()["tables"]
    assert {t["state"] for t in tables.values()} == {"current"} and set(tables) == {"countries", "asns"}
    # A worker that is new gets both.
    for pid in processes.of_role(g, "worker"):
        processes.kill(pid)
    wait.until(lambda: processes.serves(g, s) or True, "a worker")
    wait.until(lambda: len(g.pids("worker")) == 2, "new workers", 40)
    assert codes(g, s.port) == [socks.OK] + [socks.NOT_ALLOWED] * 3


def test_a_changed_database_counts_without_a_word(gateway, server):
    s = server(servers.Echo, "0.0.0.0")
    g, file = start(gateway, database_check_interval=100)
    assert codes(g, s.port) == EXPECTED
    geo.replace(file, geo.build_asn, {"127.0.1.0/24": 64501, "127.0.2.0/24": 64500})
    wait.until(lambda: codes(g, s.port) == [socks.OK, socks.NOT_ALLOWED, socks.OK, socks.OK], "the new table")
    assert g.revision() == 1
    assert any("autonomous systems" in r["reason"] for r in g.wait_rows(2, event="policy"))


@pytest.mark.parametrize("how", ["reload", "watch"])
@pytest.mark.parametrize("damage", ["garbage", "short", "gone", "directory"])
def test_a_damaged_database_changes_nothing(gateway, server, how, damage):
    s = server(servers.Echo, "0.0.0.0")
    g, file = start(gateway, database_check_interval=100 if how == "watch" else 0)
    shutil.copy(file, file + ".good")
    with open(file, "rb") as f:
        good = f.read()
    os.unlink(file)
    if damage == "directory":
        os.mkdir(file)
    elif damage != "gone":
        with open(file, "wb") as f:
            f.write(b"no database" if damage == "garbage" else good[: len(good) // 2])
    if how == "reload":
        g.write_policy(POLICY + "# changed\n")
        assert file in g.reload().err
    table = wait.until(lambda: (t := g.status()["tables"]["asns"])["state"] == "stale" and t, "the fault shows in status")
    assert file in table["fault"]
    assert "stale" in g.ctl("status").out
    assert codes(g, s.port) == EXPECTED
    if how == "watch":  # each fault is told once; it may have looked before the file was there again
        told = [line.split(" warning: ")[-1] for line in g.log().splitlines() if "the former one stays" in line]
        assert told and len(told) == len(set(told)) <= 2, told
    # And all is well when it is mended.
    if damage == "directory":
        os.rmdir(file)
    os.rename(file + ".good", file)
    if how == "reload":
        g.ctl("reload")
    wait.until(lambda: g.status()["tables"]["asns"]["state"] == "current", "the mended table")
    assert codes(g, s.port) == EXPECTED


def test_a_country_database_is_no_asn_database(gateway):
    """It has no number anywhere: a rule that denies some systems would deny none."""
    g = gateway(POLICY, start=False)
    g.configure(asn_database=geo.build(g.path("asn.mmdb"), {"127.0.1.0/24": "DE"}))
    code_, lines = g.run("-n", "-c", g.conf)
    assert code_ == 78 and any("asn-database" in line for line in lines), (code_, lines)


def test_damaged_at_the_start(gateway):
    g = gateway(POLICY, start=False)
    with open(g.path("asn.mmdb"), "wb") as f:
        f.write(b"nothing")
    g.configure(asn_database=g.path("asn.mmdb"))
    code_, lines = g.run("-c", g.conf)
    assert code_ != 0 and any("asn-database" in line and g.path("asn.mmdb") in line for line in lines), lines


def test_a_damaged_database_and_a_control_that_dies(gateway, server):
    """The table outlives the control that had it made: a worker that is new gets it from the next one."""
    s = server(servers.Echo, "0.0.0.0")
    g, file = start(gateway, workers=1)
    with open(file, "wb") as f:
        f.write(b"no database")
    old = g.pids("control")[0]
    processes.kill(old)
    wait.until(lambda: set(processes.of_role(g, "control")) - {old}, "another control")
    assert wait.until(lambda: (done := g.ctl("status", "--json", check=False)).returncode == 0 and json.loads(done.out)["revision"] == 1,
                      "it has the policy in force")
    assert g.status()["tables"]["asns"]["state"] == "stale"
    assert codes(g, s.port) == EXPECTED
    worker = g.pids("worker")[0]
    processes.kill(worker)
    wait.until(lambda: set(processes.of_role(g, "worker")) - {worker}, "another worker")
    assert codes(g, s.port) == EXPECTED
    both = g.pids("worker") + g.pids("control")
    for pid in both:
        processes.kill(pid)
    wait.until(lambda: not set(both) & set(processes.children(g.process.pid)) and len(processes.of_role(g, "worker") + processes.of_role(g, "control")) == 2,
               "others of both", 40)
    wait.until(lambda: codes(g, s.port) == EXPECTED, "a worker with everything", 40)


def test_sighup_looks_at_once(gateway, server):
    s = server(servers.Echo, "0.0.0.0")
    g, file = start(gateway)
    geo.replace(file, geo.build_asn, {"127.0.1.0/24": 64501})
    g.process.send_signal(signal.SIGHUP)
    wait.until(lambda: code(g, "127.0.1.1", s.port) == socks.OK, "the new table")
