"""Completion in bash, zsh and fish: what gatewayctl offers, and that each shell puts it into the line."""

import os
import re
import shlex
import subprocess

import pytest

from harness import wait
from harness.gateway import BUILD, ROOT, sanitized
from harness.terminal import Terminal

pytestmark = pytest.mark.long

COMPLETIONS = os.path.join(ROOT, "packaging", "completions")
CTL = os.path.join(BUILD, "admin", "gatewayctl")

POLICY = """\
set partners domain { .example.com }
window office { mon-fri 08:00-18:00 }
rule payroll allow to cidr 127.0.0.1/32
rule partners allow to domain @partners during office
default deny
"""


@pytest.fixture(scope="module")
def g(request):
    from harness.gateway import Gateway
    from harness.servers import Echo

    echo = Echo()
    g = Gateway(POLICY, policy_approval=True, users={"ann": "ann-pass", "bob": "bob-pass", "$(touch pwned)": "evil-pass"})
    g.start()
    g.ctl("policy", "rollback", "1")  # waits, as revision 2
    clients = [g.session("127.0.0.1", echo.port, user=u, password=p) for u, p in
               (("ann", "ann-pass"), ("bob", "bob-pass"), ("$(touch pwned)", "evil-pass"))]
    yield g
    for c in clients:
        c.close()
    g.close()
    echo.close()


def offered(g, *words):
    return g.ctl("complete", "--", *words).out.split()


def test_names_of_the_gateway_that_runs(g):
    assert offered(g, "rule", "remove", "") == ["payroll", "partners"]
    assert offered(g, "rule", "move", "payroll", "--after", "par") == ["partners"]
    assert offered(g, "set", "show", "") == ["partners"]
    assert offered(g, "window", "remove", "o") == ["office"]
    assert offered(g, "policy", "rollback", "") == ["1"] and offered(g, "policy", "show", "") == ["2", "1"]
    assert offered(g, "policy", "approve", "") == offered(g, "policy", "reject", "") == ["2"]
    assert set(offered(g, "audit", "query", "--user", "")) == {"ann", "bob"}
    assert set(offered(g, "session", "kill", "user=")) == {"user=ann", "user=bob"}
    assert offered(g, "audit", "query", "--rule=pay") == ["--rule=payroll"]
    assert len(offered(g, "session", "show", "")) == 3
    assert offered(g, "session", "list", "--sort", "b") == ["bytes"]
    assert offered(g, "session", "kill", "po") == ["port="]
    assert offered(g, "policy", "check", "") == ["@file"]
    assert offered(g, "se") == ["set", "session"]
    assert offered(g, "session", "bl") == ["block", "blocks"]


def test_retention_and_holds(g):
    g.ctl("audit", "hold", "place", "case-7")
    assert offered(g, "audit", "hold", "") == ["place", "release", "list"]
    assert offered(g, "audit", "hold", "release", "") == offered(g, "audit", "prune", "--hold", "") == ["case-7"]
    assert offered(g, "audit", "hold", "place", "") == offered(g, "audit", "hold", "place", "case-8", "") == []
    assert {"--user", "--verdict", "--event", "--session", "--since", "--id", "--json", "--help"} <= set(offered(g, "audit", "hold", "place", "x", "--"))
    assert set(offered(g, "audit", "hold", "place", "x", "--user", "")) == {"ann", "bob"}
    assert offered(g, "audit", "prune", "--") == ["--keep", "--class", "--hold", "--dry-run", "--json", "--help"]
    assert offered(g, "audit", "prune", "--class", "l") == ["logins", "looks"]
    assert offered(g, "audit", "prune", "--keep=9") == ["--keep=90d"]


def test_without_a_gateway_and_with_nonsense(gateway):
    g = gateway(start=False)
    assert offered(g, "rule", "remove", "") == []
    assert offered(g, "policy", "r") == ["rollback", "reject"]
    for words in (("nonsense", ""), ("policy", "nonsense", ""), ("--socket",), ("--socket", "x"), ("", "", ""), ("x" * 5000,), ("--x=" + "y" * 5000, ""),
                  ("session", "kill", "=" * 200), ("session", "list", "--sort=" + "z" * 2000)):
        done = g.ctl("complete", "--", *words)
        assert done.err == "" and len(done.out) < 100, (words, done.out, done.err)
    assert g.ctl("complete", check=False).returncode == 2


@pytest.mark.skipif(sanitized(), reason="a hundred programs, which all end before they have done anything")
def test_the_grammar_is_that_of_the_help(g):
    """Nouns, verbs and options that --help tells of, and no others."""
    nouns = re.findall(r"^  (\w+) ", g.ctl("--help").out, re.MULTILINE)
    assert offered(g, "") == nouns
    for noun in nouns:
        text = g.ctl(noun, "--help").out
        helps = {v: g.ctl(noun, v, "--help", check=False).out for v in offered(g, noun, "")}
        more = "".join(helps.values())
        verbs = set(re.findall(rf"gatewayctl {noun} +([a-z]+)", text + more))
        told = offered(g, noun, "")
        assert set(re.findall(rf"gatewayctl {noun} +([a-z]+)", text)) <= set(told), (noun, told)
        for verb in set(told) - {"--help", "@file"} if verbs else ():
            assert verb in verbs, (noun, verb, "is not in the help")
        for option in re.findall(r"--[a-z-]+", g.ctl("complete", "--", noun, "--").out if not verbs else
                                 "".join(g.ctl("complete", "--", noun, v, "--").out for v in verbs)):
            assert option == "--help" or re.search(rf"{option}\b", text + more), (noun, option, "is not in the help")
        for verb in verbs:
            if set(re.findall(rf"gatewayctl {noun} +([a-z]+)", helps.get(verb, ""))) == {verb}:  # nothing in it is another's
                missing = set(re.findall(r"^  (--[a-z0-9-]+)", helps[verb], re.MULTILINE)) - set(offered(g, noun, verb, "--"))
                assert not missing, (noun, verb, missing, "are not offered")


def bash(g, line):
    """What bash puts into COMPREPLY for a line that ends at the cursor."""
    script = f"""
source {shlex.quote(os.path.join(COMPLETIONS, 'gatewayctl'))}
COMP_LINE={shlex.quote(CTL + ' ' + line)}
COMP_POINT=${{#COMP_LINE}}
compopt() {{ :; }}
_gatewayctl
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    out = subprocess.run(["bash", "--norc", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=wait.seconds(60), cwd=g.dir,
                         env={**os.environ, "GATEWAYD_SOCKET": g.socket})
    assert out.stderr == b"", out.stderr
    return out.stdout.decode().split()


def test_bash(g):
    assert bash(g, "session ki") == ["kill"]
    assert bash(g, "rule remove ") == ["payroll", "partners"]
    assert bash(g, "policy approve ") == ["2"]
    assert bash(g, "--socket /nowhere rule remove ") == []
    assert set(bash(g, "session kill user=")) == {"ann", "bob"}  # bash keeps what stands before the "="
    assert "gateway.policy" in bash(g, "policy check ")
    assert not os.path.exists(g.path("pwned"))


def test_bash_with_a_real_tab(g):
    with Terminal(["bash", "--norc", "--noprofile", "-i"], 120, 10, GATEWAYD_SOCKET=g.socket, PS1="$ ", PATH=os.path.dirname(CTL) + ":" + os.environ["PATH"],
                  INPUTRC="/dev/null", HISTFILE="") as t:
        t.press(f"cd {g.dir}; source {COMPLETIONS}/gatewayctl; clear; echo ready; \n")
        t.shows("ready")
        t.press("gatewayctl rule remove pay\t")
        t.shows("gatewayctl rule remove payroll")
        t.press("\x15gatewayctl session kill user=a\t")
        t.shows("gatewayctl session kill user=ann")
        t.press("\x15gatewayctl session kill us\t")
        t.shows("gatewayctl session kill user=")
    assert not os.path.exists(g.path("pwned"))


def test_zsh(g):
    with Terminal(["zsh", "-f", "-i"], 120, 20, GATEWAYD_SOCKET=g.socket, PS1="$ ", PATH=os.path.dirname(CTL) + ":" + os.environ["PATH"], HOME=g.dir) as t:
        t.press(f"cd {g.dir}; fpath=({COMPLETIONS} $fpath); autoload -Uz compinit; compinit -u -D; clear; echo rea''dy\n")
        t.shows("ready")
        t.press("gatewayctl rule remove pay\t")
        t.shows("gatewayctl rule remove payroll")
        t.press("\x15gatewayctl policy approve \t")
        t.shows("gatewayctl policy approve 2")
        t.press("\x15gatewayctl session ki\t")
        t.shows("gatewayctl session kill")
        t.press("\x15gatewayctl session kill user=a\t")
        t.shows("gatewayctl session kill user=ann")
        t.press("\x15gatewayctl policy check gatew\t")
        wait.until(lambda: "gatewayctl policy check gateway" in t.text(), lambda: t.text())
    assert not os.path.exists(g.path("pwned"))


def test_fish(g):
    def complete(line):
        script = f"source {COMPLETIONS}/gatewayctl.fish; complete -C {shlex.quote(line)}"
        out = subprocess.run(["fish", "--no-config", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=wait.seconds(60), cwd=g.dir,
                             env={**os.environ, "GATEWAYD_SOCKET": g.socket, "PATH": os.path.dirname(CTL) + ":" + os.environ["PATH"], "HOME": g.dir})
        assert out.stderr == b"", out.stderr
        return out.stdout.decode().split()

    assert complete("gatewayctl session ki") == ["kill"]
    assert set(complete("gatewayctl rule remove ")) == {"payroll", "partners"}
    assert complete("gatewayctl policy approve ") == ["2"]
    assert "gateway.policy" in complete("gatewayctl policy check gatew")
    assert set(complete("gatewayctl session kill user=")) == {"user=ann", "user=bob"}
    assert not os.path.exists(g.path("pwned"))
