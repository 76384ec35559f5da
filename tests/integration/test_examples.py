"""The packaged policies: nothing is wrong with them, their own expectations hold and reach every rule, and explain says the same."""

import glob
import json
import os
import re
import shlex
import subprocess

import pytest

from harness import geo, socks, wait
from harness.gateway import BUILD, ROOT

EXAMPLES = sorted(glob.glob(os.path.join(ROOT, "packaging", "examples", "*.policy")))
GROUPS = ["staff", "agents", "coding-agents", "browsing-agents", "bankers", "payments", "traders", "data-exchange", "analysts", "ci", "release"]
example = pytest.mark.parametrize("file", EXAMPLES, ids=[os.path.basename(f) for f in EXAMPLES])


def ctl(*arguments):
    return subprocess.run([os.path.join(BUILD, "admin", "gatewayctl"), *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=wait.seconds(60))


def expectations(file):
    """[(allow or deny, {word: [values]}, the line)] of a file's expect lines."""
    with open(file, encoding="utf-8") as f:
        text = f.read().replace("\\\n", " ")
    found = []
    for line in text.splitlines():
        if not line.startswith("expect"):
            continue
        words = shlex.split(line.split("#")[0])
        clauses, word = {}, None
        for w in words[2:]:
            if w in ("user", "group", "client", "listener", "claimed-user", "method", "command", "port", "to", "resolves", "alias", "at", "country",
                     "asn", "rule"):
                word = w
                clauses[word] = []
            else:
                clauses[word].append(w)
        found.append((words[1], clauses, line))
    return found


def test_there_are_examples():
    assert len(EXAMPLES) >= 5


@example
def test_strict(file, tmp_path):
    groups = tmp_path / "groups"
    groups.write_text("".join(f"{g}:x:1:\n" for g in GROUPS))
    done = ctl("policy", "check", "--strict", "--groups", str(groups), file)
    assert done.returncode == 0, done.stdout.decode()
    groups.write_text("staffx:x:1:\n")
    done = ctl("policy", "check", "--strict", "--groups", str(groups), file)
    assert done.returncode == 1 and b"[unknown-group]" in done.stdout


@example
def test_expectations_hold_and_reach_every_rule(file):
    done = ctl("policy", "test", "--json", file)
    assert done.returncode == 0, done.stdout.decode()
    said = json.loads(done.stdout)
    assert said["unreached"] == [] and said["failed"] == 0 and said["expectations"] == len(expectations(file)) > 0


@example
def test_explain_agrees(file, tmp_path, geo_database):
    for n, (verdict, clauses, line) in enumerate(expectations(file)):
        countries = dict.fromkeys((a + "/32" for a in clauses.get("resolves", []) if "country" in clauses), *clauses.get("country", []))
        options = ["--geoip", geo.build(tmp_path / f"{n}.mmdb", countries) if countries else geo_database]
        for word, values in clauses.items():
            if word not in ("to", "rule", "country"):
                options += [o for v in values for o in ("--" + word, v)]
        if "at" not in clauses:
            options += ["--at", "2026-11-20 10:00"]
        # Without addresses, an expectation's name stands for one public one.
        if "resolves" not in clauses and not re.fullmatch(r"[0-9.]+|.*:.*", clauses["to"][0]):
            options += ["--resolves", "203.0.113.200"]
        done = ctl("policy", "explain", "--policy", file, "--json", *options, clauses["to"][0])
        said = json.loads(done.stdout)
        assert said["decision"]["verdict"] == verdict, (line, said)
        assert done.returncode == (0 if verdict == "allow" else 1)
        if "rule" in clauses:
            assert said["decision"]["rule"] == clauses["rule"][0], (line, said)


def test_the_gateway_takes_each(gateway, echo):
    g = gateway(groups={group: ["ann"] for group in GROUPS})
    for n, file in enumerate(EXAMPLES):
        assert f"revision {n + 2} is active" in g.ctl("policy", "apply", "--strict", file).out
    g.ctl("policy", "rollback", "1")
    with g.session("127.0.0.1", echo.port) as c:
        assert c.code == socks.OK
