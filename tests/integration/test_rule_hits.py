"""rule list, unused and expiring: what the rules in force did, as the audit tells."""

import json
import re

import pytest

from harness import servers, socks

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


@pytest.mark.parametrize("words", [["unused"], ["unused", "soon"], ["expiring", "30d", "x"], ["list", "x"], ["unused", "30d", "--no-hits"]])
def test_wrong_usage(gateway, words):
    assert gateway(POLICY).ctl("rule", *words, check=False).returncode == 2
