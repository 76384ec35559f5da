"""gatewayctl policy suggest: rules out of what was seen, which allow that and no more, whatever the names in the audit are."""

import json
import os
import re

import pytest

from harness import servers, socks
from harness.gateway import ROOT

HOSTILE = ['x" allow', "@staff", "deny", "a b", "back\\slash", 'q\\"', "end\\", "# no", "{", "-", "\u00fc"]
USERS = {u: "pass" for u in ["ann", "bob", *HOSTILE]}
POLICY = """rule watch monitor allow to cidr 127.0.0.4
rule local allow to cidr 127.0.0.0/29
rule names allow internal to domain .test
default deny
"""


@pytest.fixture(scope="module")
def echo():
    s = servers.Echo("0.0.0.0")
    yield s
    s.close()


def ask(g, host, port, user="ann"):
    with g.session(host, port, user=user, password="pass") as c:
        return c.code


def suggest(g, *options):
    return g.ctl("policy", "suggest", *options).out


def rules(text):
    return [line for line in text.replace(" \\\n\t", " ").split("\n") if line.startswith("rule")]


def test_what_was_granted(gateway, echo):
    g = gateway(POLICY, users=USERS, groups={"eng": ["ann"]})
    for host in ("127.0.0.1", "127.0.0.1", "127.0.0.2"):
        assert ask(g, host, echo.port) == socks.OK
    assert ask(g, "127.0.0.5", echo.port, "bob") == socks.OK
    assert ask(g, "127.0.0.7", echo.port, "bob") == socks.OK
    assert ask(g, "127.0.0.9", echo.port, "bob") == socks.NOT_ALLOWED
    g.wait_rows(5, event="open")
    g.wait_rows(1, event="denied")
    text = suggest(g)
    assert rules(text) == [
        f"rule suggested-1 allow user ann command connect by address to cidr 127.0.0.1 127.0.0.2 port {echo.port}",
        f"rule suggested-2 allow user bob command connect by address to cidr 127.0.0.5 127.0.0.7 port {echo.port}",
    ]
    assert "granted since" in text and "5 requests.\n# These rules allow 5 of them" in text and "# 3 requests, " in text
    assert re.search(r"e\.g\. ann from 127\.0\.0\.1 to 127\.0\.0\.1 port \d+ at 20", text)
    # In place of what was so wide, it lets the same through, and nothing else.
    g.write("new.policy", text)
    g.ctl("policy", "apply", g.path("new.policy"))
    assert ask(g, "127.0.0.2", echo.port) == socks.OK and ask(g, "127.0.0.2", echo.port, "bob") == socks.NOT_ALLOWED
    g.ctl("policy", "rollback", "1")

    assert rules(suggest(g, "--prefix", "29", "--user", "bob"))[0].count("127.0.0.0/29") == 1
    assert len(rules(suggest(g, "--min-count", "2"))) == 1
    assert "Left out: 2 that were asked for less than 2 times" in suggest(g, "--min-count", "2")
    denied = rules(suggest(g, "--denied"))
    assert denied == [f"rule suggested-1 allow user bob command connect by address to cidr 127.0.0.2 127.0.0.9 port {echo.port}"]
    assert rules(suggest(g, "--until", "2020-01-01", "--since", "2019-01-01")) == []
    directory = suggest(g, "--dir", g.path("state", "audit"))
    assert rules(directory) == rules(suggest(g))


def test_names_groups_and_guarded_addresses(gateway, dnsmasq, echo):
    dns = dnsmasq("--host-record=a.one.test,127.0.0.1", "--host-record=b.one.test,127.0.0.1", "--host-record=c.two.test,127.0.0.1")
    g = gateway("rule names allow group eng to cidr 127.0.0.0/8\n", users=USERS, groups={"eng": ["ann", "bob"]}, resolver=[dns.address])
    for name, user in (("a.one.test", "ann"), ("b.one.test", "bob"), ("c.two.test", "ann")):
        assert ask(g, name, echo.port, user) == socks.OK
    g.wait_rows(3, event="open")
    text = suggest(g, "--group", "eng")
    assert rules(text) == [f"rule suggested-1 allow group eng command connect to cidr 127.0.0.1 to domain a.one.test b.one.test c.two.test port {echo.port}"]
    assert "These rules allow 3 of them" in text
    merged = rules(suggest(g, "--suffix", "2", "--group", "eng"))
    assert len(merged) == 1 and " to domain .one.test .two.test port " in merged[0]
    each = "\n".join(rules(suggest(g)))
    assert sorted(re.findall(r"user (\S+) .*to domain (.*) port", each)) == [("ann", "a.one.test c.two.test"), ("bob", "b.one.test")]


def test_from_a_monitor(gateway, echo):
    g = gateway(POLICY, users=USERS, groups={"eng": ["ann"]})
    for host in ("127.0.0.1", "127.0.0.4"):
        ask(g, host, echo.port)
    g.wait_rows(2, event="open")
    text = suggest(g, "--from-monitor", "watch")
    assert rules(text) == [f"rule suggested-1 allow user ann command connect by address to cidr 127.0.0.4 port {echo.port}"]
    assert "# The monitor rule is watch." in text
    assert rules(suggest(g, "--from-monitor", "other")) == []


def test_hostile_names_stay_values(gateway, echo):
    g = gateway(POLICY, users=USERS)
    for user in HOSTILE:
        assert ask(g, "127.0.0.1", echo.port, user) == socks.OK, user
    g.wait_rows(len(HOSTILE), event="open")
    text = suggest(g)
    # Two of them no policy can hold: a backslash before a quote or an end.
    assert "Left out: 2 of users or destinations whose names no policy can hold" in text
    assert len(rules(text)) == 1
    g.write("new.policy", text)
    assert "fine" in g.ctl("policy", "check", g.path("new.policy")).out
    g.ctl("policy", "apply", g.path("new.policy"))
    for user in HOSTILE:
        expected = socks.NOT_ALLOWED if user in ('q\\"', "end\\") else socks.OK
        assert ask(g, "127.0.0.1", echo.port, user) == expected, user
    assert ask(g, "127.0.0.1", echo.port, "bob") == socks.NOT_ALLOWED
    shown = json.loads(g.ctl("rule", "list", "--no-hits", "--json").out)
    assert [r["name"] for r in shown] == ["suggested-1"]


def language_words():
    """Every word that the language gives a meaning to."""
    with open(os.path.join(ROOT, "policy", "words.c"), encoding="utf-8") as f:
        return sorted(set(re.findall(r'\{"([a-z0-9-]+)", [A-Z]', f.read())))


def test_destinations_that_are_words_of_the_language_stay_values(gateway):
    """Whoever asks for the name "internal" must not open the address guard by what is suggested from it."""
    g = gateway("rule known allow user nobody to domain known.example\ndefault deny\n", users={"ann": "pass"})
    names = ["app.example", *language_words()]
    assert "internal" in names and len(names) > 35
    for name in names:
        assert ask(g, name, 443) == socks.NOT_ALLOWED, name
    g.wait_rows(len(names), event="denied")
    text = suggest(g, "--denied")
    assert "no policy can hold" not in text
    g.write("new.policy", text)
    assert "fine" in g.ctl("policy", "check", g.path("new.policy")).out
    for name in ("app.example", "internal"):
        told = g.ctl("policy", "explain", "--policy", g.path("new.policy"), "--user", "ann", "--port", "443", "--resolves", "10.1.2.3", name, check=False)
        assert told.returncode == 1, told.out


@pytest.mark.parametrize("words", [["x"], ["--since", "soon"], ["--suffix", "0"], ["--prefix", "33"], ["--min-count", "x"],
                                   ["--denied", "--from-monitor", "x"]])
def test_wrong_usage(gateway, words):
    assert gateway(POLICY).ctl("policy", "suggest", *words, check=False).returncode == 2
