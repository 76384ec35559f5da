"""rule list, unused and expiring: what the rules in force did, as the audit tells."""

import json
import os
import random
import re
import time

import pytest

from harness import audits, servers, socks

POLICY = """tz "Europe/Berlin"
rule watch monitor deny group staff to cidr 127.0.0.1 owner security
rule staff allow group staff to cidr 127.0.0.0/29 owner it until 2026-12-20
rule hr allow group hr to cidr 127.0.0.0/30 until "2026-11-20 12:00"
rule old disabled deny to cidr 127.0.0.9
rule never deny to cidr 127.0.0.7
default deny
"""


@pytest.fixture(scope="module")
def echo():
    s = servers.Echo("0.0.0.0")
    yield s
    s.close()


def by_name(done):
    return {r["name"]: r for r in json.loads(done.out)}


def utc(us):
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(us // 1000000)) + f".{us % 1000000:06}Z" if us else None


def test_hits(gateway, echo):
    g = gateway(POLICY, start=False, clock=True)
    g.set_time("2026-11-20 10:00:00")
    g.start()
    for host, n in (("127.0.0.1", 3), ("127.0.0.2", 2)):
        for _ in range(n):
            with g.session(host, echo.port) as c:
                assert c.code == socks.OK
                c.echo(b"x" * 100)
    g.session("127.0.0.9", 80).close()
    g.wait_rows(5, event="ended")
    rules = by_name(g.ctl("rule", "list", "--json"))
    assert {n: r["hits"] for n, r in rules.items()} == {"watch": 3, "staff": 5, "hr": 0, "old": 0, "never": 0}
    assert rules["staff"]["bytes"] == 1000 and rules["staff"]["last_hit"].startswith("2026-11-20T10:0") and "last_hit" not in rules["hr"]
    assert rules["staff"]["owner"] == "it" and rules["staff"]["until"] == "2026-12-20"
    text = g.ctl("rule", "list").out
    assert re.search(r"^ *2 staff +allow +5 +1000 B +2026-11-20 \d\d:0\d +it +2026-12-20 +group staff", text, re.M), text
    assert "hits since 2026-10-21" in text and "the audit begins at 2026-11-20" in text
    assert "HITS" not in g.ctl("rule", "list", "--no-hits").out

    g.set_time("2026-12-19 09:00:00")
    assert list(by_name(g.ctl("rule", "unused", "90d", "--json"))) == ["hr", "old", "never"]
    assert list(by_name(g.ctl("rule", "unused", "1d", "--json"))) == ["watch", "staff", "hr", "old", "never"]
    # A date is meant whole, on the policy's clock; what has ended is shown too.
    assert list(by_name(g.ctl("rule", "expiring", "30h", "--json"))) == ["hr"]
    assert list(by_name(g.ctl("rule", "expiring", "40h", "--json"))) == ["staff", "hr"]
    assert by_name(g.ctl("rule", "list", "--since", "1d", "--json"))["staff"]["hits"] == 0


def test_hits_of_many_rows(gateway):
    """Each request counts once for each rule that it tells of."""
    names = ["plain", "plain-too", "two.words", "p", "unused"]
    g = gateway("".join(f'rule {n} allow port {1 + i}\n' for i, n in enumerate(names)))
    g.stop()
    rng, expected = random.Random(5), {n: [0, 0, 0] for n in names}
    rows = audits.Rows(os.path.join(g.state, "audit"))
    now = int(time.time() * 1e6)
    for i in range(3000):
        at = now - (40 if i < 1000 else 29) * 86400_000000 + i * 1000_000  # in the 30 days, or before
        decided = rng.choice(["", *names[:4]])
        told = [rng.choice(names[:4]) for _ in range(rng.randrange(4))]
        watched = [rng.choice(names[:4]) for _ in range(rng.randrange(3))]
        flood = rng.choice([1, 1, 1, 40])
        kind = "denied" if flood > 1 else rng.choice(["open", "denied", "flow", "ended", "connected", "login-failed"])
        detail = {"folded": flood} if flood > 1 else {}
        detail.update(candidates=[{"address": "192.0.2.1", "rule": n} for n in told], monitors=[{"rule": n, "would": "deny"} for n in watched])
        rows.add(kind, at, rule=decided, bytes_up=i, bytes_down=1, detail=detail)
        if i < 1000 or kind not in ("open", "denied", "flow", "ended"):
            continue
        for n in {decided, *told, *watched} - {""} if kind != "ended" else {decided} - {""}:
            if kind == "ended":
                expected[n][2] += i + 1
            else:
                expected[n][0] += flood
                expected[n][1] = at
    rows.close()
    g.start()
    rules = by_name(g.ctl("rule", "list", "--json"))
    assert {n: [r["hits"], r.get("last_hit"), r["bytes"]] for n, r in rules.items()} == {
        n: [hits, utc(last), size]
        for n, (hits, last, size) in expected.items()}
    assert list(by_name(g.ctl("rule", "unused", "30d", "--json"))) == ["unused"]


@pytest.mark.parametrize("words", [["unused"], ["unused", "soon"], ["expiring", "30d", "x"], ["list", "x"], ["unused", "30d", "--no-hits"]])
def test_wrong_usage(gateway, words):
    assert gateway(POLICY).ctl("rule", *words, check=False).returncode == 2
