"""The commands that the manual shows are commands that work: each is run, in the order in which it stands there."""

import json
import os
import re
import shlex

import pytest

from harness import people
from harness.gateway import ROOT

POLICY = """\
set malware domain { evil.example }
rule no-malware deny to domain @malware
rule trial monitor allow to domain .example.ai
rule loopback allow to cidr 127.0.0.0/8
default deny
"""


APPROVAL = re.compile(r"^\.Sh APPROVAL$.*?(?=^\.Sh )", re.MULTILINE | re.DOTALL)


def examples(page, approval=False):
    """Those of a page: of its section on approval, or all others."""
    with open(os.path.join(ROOT, "doc", page), encoding="utf-8") as f:
        text = f.read()
    text = APPROVAL.search(text)[0] if approval else APPROVAL.sub("", text)
    lines = re.findall(r"^\.Dl gatewayctl (.*)$", text, re.MULTILINE)
    assert len(lines) >= 5, lines
    return [shlex.split(line.replace(r"\(dq", '"').replace(r"\(aq", "'").replace(r"\-", "-").replace(r"\&", "")) for line in lines]


def test_examples_of_gatewayctl(gateway, echo):
    g = gateway(POLICY)
    while g.revision() < 7:
        with open(g.policy_file, "a", encoding="utf-8") as f:
            f.write("# once more\n")
        g.ctl("policy", "apply", g.policy_file)
    with g.session("127.0.0.1", echo.port):
        for words in examples("gatewayctl.8"):
            words = [w.replace("/var/lib/gatewayd", g.state) for w in words]
            done = g.ctl(*words, check=False, cwd=g.dir)
            assert done.returncode == 0, (words, done.returncode, done.out, done.err)
    assert g.rows(event="ended", user="ann")[0]["reason"].startswith("ended by an operator: left the company")


@pytest.mark.root
def test_examples_of_approval(gateway):
    """What somebody else has asked for is looked at, approved and rejected."""
    g = gateway(POLICY, policy_approval=True, **people.OPTIONS)
    people.let_in(g)
    proposed = people.ask(g, "administrator", [{"command": "policy-rollback", "revision": 1}] * 2)
    assert [r["pending"] for r in proposed] == [2, 3], proposed
    for words in examples("gatewayctl.8", approval=True):
        done = g.ctl(*words, check=False)
        assert done.returncode == 0, (words, done.returncode, done.out, done.err)
    assert g.revision() == 2 and json.loads(g.ctl("policy", "pending", "--json").out) == []


def test_every_page_says_what_exit_codes_mean(gateway):
    """0 fine, 1 refused, 2 usage, 3 unreachable: for each noun alike."""
    g = gateway()
    nouns = re.findall(r"^  (\w+) ", g.ctl("--help").out, re.MULTILINE)
    assert len(nouns) >= 10
    for noun in nouns:
        done = g.ctl(noun, "--help")
        assert done.out.startswith("usage: gatewayctl " + noun) and done.err == "", (noun, done.out, done.err)
        assert len(done.out.splitlines()) <= 60, noun
        assert g.ctl(noun, "--no-such-option", check=False).returncode == 2, noun
    for words in (("status",), ("reload",), ("session", "blocks"), ("auth", "list"), ("policy", "log"), ("rule", "list"), ("drain", "--undo")):
        done = g.ctl(*words, "--json")
        assert done.err == "" and (done.out == "" or json.loads(done.out.splitlines()[0] if words[0] in ("session",) else done.out) is not None), words
    assert g.ctl("policy", "rollback", "99", check=False).returncode == 1
    g.stop()
    for words in (("status",), ("session", "list"), ("policy", "log"), ("audit", "query"), ("drain",), ("log", "level"), ("auth", "list")):
        done = g.ctl(*words, check=False)
        assert done.returncode == 3 and g.socket in done.err, (words, done.returncode, done.err)
