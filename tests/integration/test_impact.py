"""gatewayctl policy impact: what was asked for, decided again by a policy that is not in force yet."""

import json
import os

import pytest

from harness import servers, socks

POLICY = "rule staff allow group staff to cidr 127.0.0.0/29\nrule hr allow group hr to cidr 127.0.0.0/30\ndefault deny\n"


@pytest.fixture(scope="module")
def echo():
    s = servers.Echo("0.0.0.0")
    yield s
    s.close()


def impact(g, text, *options):
    g.write("new.policy", text)
    done = g.ctl("policy", "impact", g.path("new.policy"), "--json", *options, check=False)
    assert done.returncode in (0, 1), done.err
    told = json.loads(done.out)
    assert done.returncode == (1 if told["differ"] else 0)
    return told


def ask(g, echo, host, user="ann", count=1):
    codes = []
    for _ in range(count):
        with g.session(host, echo.port, user=user, password=f"{user}-pass") as c:
            codes.append(c.code)
    return codes


@pytest.fixture
def g(gateway, echo):
    g = gateway(POLICY)
    assert ask(g, echo, "127.0.0.1", count=3) + ask(g, echo, "127.0.0.1", "bob") + ask(g, echo, "127.0.0.2") == [socks.OK] * 5
    assert ask(g, echo, "127.0.0.5", "bob", 2) == [socks.NOT_ALLOWED] * 2
    g.wait_rows(5, event="open")
    g.wait_rows(2, event="denied", address="127.0.0.5")
    return g


def test_what_would_change(g, echo):
    told = impact(g, POLICY)
    assert told["requests"] == 7 and told["kinds"] == 4 and told["differ"] == 0 and told["differences"] == []

    told = impact(g, "rule one deny to cidr 127.0.0.1\n" + POLICY.replace("127.0.0.0/30", "127.0.0.0/29"))
    assert told["differ"] == 6
    lost, lost_hr, gained = told["differences"]
    assert (lost["would_be"], lost["count"], lost["before_rule"], lost["after_rule"], lost["users"]) == ("denied", 3, "staff", "one", {"ann": 3})
    assert (lost_hr["would_be"], lost_hr["count"], lost_hr["before_rule"], lost_hr["users"]) == ("denied", 1, "hr", {"bob": 1})
    assert (gained["would_be"], gained["count"], gained["before_rule"], gained["after_rule"]) == ("allowed", 2, "default", "hr")
    example = lost["examples"][0]
    assert example["user"] == "ann" and example["address"] == "127.0.0.1" and example["count"] == 3
    assert any(r["session"] == example["session"] for r in g.rows(event="open"))

    text = g.ctl("policy", "impact", g.path("new.policy"), check=False).out
    assert "3 would be denied: rule one, now rule staff\n    users: ann (3)\n    e.g. ann from 127.0.0.1 to 127.0.0.1 port" in text
    assert "7 requests of 4 kinds decided again: 6 differ" in text
    # Of one user, of one group, of no time at all.
    assert impact(g, "default deny\n", "--user", "bob")["differ"] == 1
    assert impact(g, "default deny\n", "--group", "staff")["differ"] == 4
    assert impact(g, "default deny\n", "--until", "2020-01-01", "--since", "2019-01-01")["requests"] == 0


def test_from_a_directory(g):
    g.ctl("policy", "apply", g.policy_file)  # another revision, of the same meaning
    g.write("new.policy", "default deny\n")
    asked = g.ctl("policy", "impact", g.path("new.policy"), "--json", check=False).out
    read = g.ctl("policy", "impact", g.path("new.policy"), "--json", "--dir", os.path.join(g.state, "audit"), check=False).out
    assert sorted(d["before_rule"] for d in json.loads(asked)["differences"]) == ["hr", "staff"]

    def without_order(text):
        told = json.loads(text)
        for d in told["differences"]:
            d["examples"].sort(key=lambda e: e["id"])
        return told

    assert without_order(read) == without_order(asked)
    # Between any two.
    done = g.ctl("policy", "impact", "1", "--before", g.path("new.policy"), "--json", check=False)
    assert {d["would_be"] for d in json.loads(done.out)["differences"]} == {"allowed"}


def test_what_the_answer_rests_on(g, echo):
    ask(g, echo, "a b.test")
    g.wait_rows(1, event="denied", name="a b.test")
    told = impact(g, "rule x deny group newcomers\n" + POLICY)
    assert "1 cannot be decided again: they were refused before the policy was asked" in told["notes"]
    assert told["differ"] == 0 and any("group 'newcomers' is new to the policy" in n for n in told["notes"])
    g.ctl("rule", "insert", "names", "deny", "to", "domain", ".test", "--first")
    ask(g, echo, "www.test")
    g.wait_rows(1, event="denied", name="www.test")
    told = impact(g, POLICY + "rule world allow to domain .test\n")
    assert [d["count"] for d in told["differences"]] == [1]
    assert any("1 are for names that were never looked up" in n for n in told["notes"]), told["notes"]


def test_windows_are_those_of_then(gateway, echo):
    g = gateway(POLICY, start=False, clock=True)
    g.set_time("2026-11-20 10:00:00")  # a Friday
    g.start()
    ask(g, echo, "127.0.0.1", count=2)
    g.set_time("2026-11-21 10:00:00")
    ask(g, echo, "127.0.0.1", count=3)
    g.set_time("2026-11-23 10:00:00")
    ask(g, echo, "127.0.0.1", count=4)
    g.wait_rows(9, event="open")
    told = impact(g, "window week { mon-fri 08:00-18:00 }\n" + POLICY.replace("/29", "/29 during week"))
    assert told["differ"] == 3 and told["differences"][0]["examples"][0]["time"].startswith("2026-11-21T10:00")
    assert impact(g, POLICY.replace("/29", "/29 until 2026-11-21"))["differ"] == 4
    assert impact(g, POLICY.replace("/29", '/29 from "2026-11-20 10:30"'))["differ"] == 2


def test_a_flood_counts(gateway, echo):
    g = gateway("default deny\n", audit_fold_after=5)
    ask(g, echo, "127.0.0.1", count=40)
    g.stop()
    g.start()
    told = impact(g, "rule all allow to cidr 127.0.0.0/8\n")
    assert told["differ"] == 40 and any("in a flood" in n for n in told["notes"])


@pytest.mark.parametrize("words", [[], ["a", "b"], ["x", "--since", "soon"], ["x", "--frob"]])
def test_wrong_usage(gateway, words):
    assert gateway(POLICY).ctl("policy", "impact", *words, check=False).returncode == 2


def test_a_bad_policy(gateway):
    g = gateway(POLICY)
    g.write("bad.policy", "rule x alow\n")
    done = g.ctl("policy", "impact", g.path("bad.policy"), check=False)
    assert done.returncode == 1 and "did you mean 'allow'?" in done.err
    assert g.ctl("policy", "impact", g.path("none"), check=False).returncode == 1
