"""Editing the policy in force: rules, sets and windows one by one, each a revision, and everything else byte for byte as it was."""

import json
import os

import pytest

from harness import servers, socks

TEXT = """# The policy of this test.
tz UTC   # wherever it runs

# Who is shut out.
set closed   cidr {
\t127.0.0.3   # the printer
\t127.0.0.9
}
window office { mon-fri 08:00-18:00 }

rule   closed deny to cidr @closed   # never
include "teams/hr.policy"

# The rest.
rule loopback   allow   to cidr 127.0.0.0/8
default deny
"""
TEAM = """# What HR may not reach.
set servers cidr file "lists/servers"

rule servers deny to cidr @servers  log notice
"""
LIST = "# sorted\n127.0.0.2\n127.0.0.5  # five\n127.0.0.8\n"


@pytest.fixture(scope="module")
def echo():
    s = servers.Echo("0.0.0.0")
    yield s
    s.close()


def code(g, echo, host):
    with g.session(host, echo.port) as c:
        return c.code


@pytest.fixture
def g(gateway):
    g = gateway("default deny\n")
    os.makedirs(g.path("policies", "teams", "lists"))
    g.write("policies/main.policy", TEXT)
    g.write("policies/teams/hr.policy", TEAM)
    g.write("policies/teams/lists/servers", LIST)
    g.ctl("policy", "apply", g.path("policies", "main.policy"))
    return g


def texts(g):
    """The policy in force and its files, as the store has them."""
    out = g.path(f"out-{len(os.listdir(g.dir))}")
    g.ctl("policy", "export", "-o", out)

    def read(*name):
        with open(os.path.join(out, *name), encoding="utf-8") as f:
            return f.read()

    return read("main.policy"), read("teams", "hr.policy"), read("teams", "lists", "servers")


def test_rules(g, echo):
    assert texts(g) == (TEXT, TEAM, LIST)
    done = g.ctl("rule", "add", "web", "allow", "group", "staff", "to", "regex", r"ads?[0-9]*\..*", "port", "443", "--comment", "the web")
    assert "policy revision 3 is active" in done.out
    line = 'rule web allow group staff to regex "ads?[0-9]*\\..*" port 443\n'
    assert texts(g)[0] == TEXT.replace("127.0.0.0/8\n", "127.0.0.0/8\n" + line)
    log = json.loads(g.ctl("policy", "log", "--json").out)
    assert log[0]["comment"] == "the web" and log[0]["author_uid"] == os.geteuid() and log[0]["source"] == "apply"
    g.ctl("rule", "remove", "web")
    assert texts(g) == (TEXT, TEAM, LIST)

    assert code(g, echo, "127.0.0.3") == socks.NOT_ALLOWED
    g.ctl("rule", "disable", "closed")
    assert texts(g)[0] == TEXT.replace("rule   closed deny", "rule   closed disabled deny")
    assert code(g, echo, "127.0.0.3") == socks.OK
    shown = json.loads(g.ctl("rule", "list", "--json").out)
    assert [(r["name"], r["disabled"]) for r in shown] == [("closed", True), ("servers", False), ("loopback", False)]
    assert "disabled deny" in g.ctl("rule", "list").out
    assert "(rule closed is disabled, and was not looked at)" in g.ctl("policy", "explain", "127.0.0.3").out
    assert json.loads(g.ctl("policy", "explain", "--json", "127.0.0.3").out)["disabled"] == ["closed"]
    assert json.loads(g.ctl("rule", "disable", "closed", "--json").out) == {"ok": True, "changed": False, "revision": g.revision()}
    g.ctl("rule", "enable", "closed")
    assert texts(g)[0] == TEXT
    assert code(g, echo, "127.0.0.3") == socks.NOT_ALLOWED

    g.ctl("rule", "move", "loopback", "--before", "closed")
    moved = "\n# The rest.\nrule loopback   allow   to cidr 127.0.0.0/8\n"
    assert texts(g)[0].index("rule loopback") < texts(g)[0].index("rule   closed")
    assert code(g, echo, "127.0.0.3") == socks.OK
    assert moved[1:] in texts(g)[0]
    g.ctl("rule", "insert", "strict", "deny", "to", "cidr", "127.0.0.3", "--first", "--until", "2099-01-31")
    assert "rule strict deny to cidr 127.0.0.3 until 2099-01-31\n" in texts(g)[0]
    assert code(g, echo, "127.0.0.3") == socks.NOT_ALLOWED
    g.ctl("rule", "replace", "loopback deny to cidr 127.0.0.0/8   # for now")
    assert code(g, echo, "127.0.0.1") == socks.NOT_ALLOWED
    assert "# The rest.\nrule loopback deny to cidr 127.0.0.0/8   # for now\n" in texts(g)[0]


def test_an_end_goes_before_a_remark(g):
    rule = "contractor allow group c to domain .github.com # ticket 12"
    g.ctl("rule", "add", rule, "--until", "2027-12-31")
    line = "rule contractor allow group c to domain .github.com until 2027-12-31 # ticket 12\n"
    assert line in texts(g)[0]
    g.ctl("rule", "replace", rule.replace("12", "13"), "--until", "2027-11-30 18:00")
    assert line[:-1].replace("2027-12-31 # ticket 12", '"2027-11-30 18:00" # ticket 13') in texts(g)[0]
    g.ctl("rule", "insert", "other deny port 25#remark", "--until", "2027-12-31", "--first")
    listed = {r["name"]: r for r in json.loads(g.ctl("rule", "list", "--no-hits", "--json").out)}
    assert listed["contractor"]["until"] == "2027-11-30 18:00" and listed["other"]["until"] == "2027-12-31"


def test_an_edit_goes_to_the_file_that_holds_the_rule(g, echo):
    g.ctl("rule", "disable", "servers")
    assert texts(g) == (TEXT, TEAM.replace("servers deny", "servers disabled deny"), LIST)
    assert code(g, echo, "127.0.0.2") == socks.OK
    g.ctl("rule", "enable", "servers", "--until", "2099-12-31 18:00")
    assert texts(g) == (TEXT, TEAM.replace("log notice", 'log notice until "2099-12-31 18:00"'), LIST)
    assert code(g, echo, "127.0.0.2") == socks.NOT_ALLOWED
    g.ctl("rule", "insert", "again", "deny", "to", "cidr", "127.0.0.7", "--before", "servers")
    assert texts(g)[1].startswith('# What HR may not reach.\nset servers cidr file "lists/servers"\n\nrule again deny to cidr 127.0.0.7\nrule servers')
    assert texts(g)[0] == TEXT


def test_sets(g, echo):
    assert g.ctl("set", "show", "closed").out == "127.0.0.3\n127.0.0.9\n"
    g.ctl("set", "add", "closed", "127.0.0.4")
    assert texts(g) == (TEXT.replace("# the printer\n", "# the printer\n\t127.0.0.4\n"), TEAM, LIST)
    assert code(g, echo, "127.0.0.4") == socks.NOT_ALLOWED
    done = g.ctl("set", "add", "closed", "127.0.0.4")
    assert "has '127.0.0.4' already" in done.err and "nothing is to be changed" in done.out and g.revision() == 3
    g.ctl("set", "remove", "closed", "127.0.0.4")
    assert texts(g) == (TEXT, TEAM, LIST)
    done = g.ctl("set", "remove", "closed", "127.0.0.3", "127.0.0.44", check=False)
    assert done.returncode == 1 and "no value '127.0.0.44'; nothing was changed" in done.err

    g.ctl("set", "add", "servers", "127.0.0.6", "127.0.0.1")
    assert texts(g) == (TEXT, TEAM, LIST.replace("127.0.0.2\n", "127.0.0.1\n127.0.0.2\n").replace("# five\n", "# five\n127.0.0.6\n"))
    assert code(g, echo, "127.0.0.6") == socks.NOT_ALLOWED
    g.ctl("set", "remove", "servers", "127.0.0.1", "127.0.0.6")
    assert texts(g) == (TEXT, TEAM, LIST)
    listed = {s["name"]: s for s in json.loads(g.ctl("set", "list", "--json").out)}
    assert listed["servers"]["values"] == 3 and listed["servers"]["file"].endswith("lists/servers") and listed["closed"]["used_by"] == 1

    g.ctl("set", "create", "names", "domain", "b\u00fccher.example", "xn--bcher-kva.test")
    g.write("shown", g.ctl("set", "show", "names").out)
    g.ctl("set", "import", "names", g.path("shown"), "--replace")
    g.ctl("set", "delete", "names")
    g.ctl("set", "create", "extra", "domain", ".example.com")
    assert 'set extra domain { .example.com }\n' in texts(g)[0]
    g.ctl("set", "delete", "extra")
    assert texts(g) == (TEXT, TEAM, LIST)
    done = g.ctl("set", "delete", "servers", check=False)
    assert done.returncode == 1 and "unknown-set" not in done.out and "servers" in done.err


def test_an_import_is_whole_or_nothing(g, echo):
    g.write("new", "# more\n127.0.0.6\n127.0.0.300\n127.0.0.7\n")
    done = g.ctl("set", "import", "servers", g.path("new"), check=False)
    assert done.returncode == 1 and f"{g.path('new')}:3:1: error" in done.err and "nothing was changed" in done.err
    assert texts(g) == (TEXT, TEAM, LIST) and g.revision() == 2
    g.write("new", "127.0.0.6\n127.0.0.2\n127.0.0.7\n")
    for options, expected in (([], "# sorted\n127.0.0.2\n127.0.0.5  # five\n127.0.0.6\n127.0.0.7\n127.0.0.8\n"),
                              (["--replace"], "# sorted\n127.0.0.2\n127.0.0.6\n127.0.0.7\n")):
        g.ctl("set", "import", "servers", g.path("new"), *options)
        assert texts(g) == (TEXT, TEAM, expected)
    assert code(g, echo, "127.0.0.7") == socks.NOT_ALLOWED and code(g, echo, "127.0.0.8") == socks.OK
    os.mkfifo(g.path("pipe"))
    for path in ("none", "pipe"):
        assert g.ctl("set", "import", "servers", g.path(path), check=False).returncode == 1


TWICE = """set inner cidr { 127.0.0.7 }
set open cidr { 127.0.0.1 127.0.0.2
\t127.0.0.1/32   # again
\t@inner }
rule open allow to cidr @open
default deny
"""


def test_a_value_leaves_however_it_is_written(gateway, echo):
    g = gateway(TWICE)
    done = g.ctl("set", "add", "open", "127.0.0.1-127.0.0.1")
    assert "has '127.0.0.1-127.0.0.1' already" in done.err and g.revision() == 1
    assert g.ctl("set", "remove", "open", "127.0.0.1").err == ""
    assert g.ctl("set", "show", "open").out == "127.0.0.2\n@inner\n"
    assert [code(g, echo, f"127.0.0.{n}") for n in (1, 2, 7)] == [socks.NOT_ALLOWED, socks.OK, socks.OK]
    g.write("new", "127.0.0.2/32\n127.0.0.3\n")
    g.ctl("set", "import", "open", g.path("new"), "--replace")
    assert g.ctl("set", "show", "open").out == "127.0.0.2\n127.0.0.3\n"
    assert [code(g, echo, f"127.0.0.{n}") for n in (1, 2, 3, 7)] == [socks.NOT_ALLOWED, socks.OK, socks.OK, socks.NOT_ALLOWED]


def test_an_entry_of_a_list_leaves_however_it_is_written(g, echo):
    g.ctl("set", "add", "servers", "127.0.0.6/31")
    assert code(g, echo, "127.0.0.7") == socks.NOT_ALLOWED
    g.ctl("set", "add", "servers", "127.0.0.7")
    done = g.ctl("set", "remove", "servers", "127.0.0.7")
    assert done.err.startswith("gatewayctl: set 'servers' still matches '127.0.0.7', by its value '127.0.0.6/31'\n"), done.err
    done = g.ctl("set", "remove", "servers", "127.0.0.6-127.0.0.7", "127.0.0.5/32")
    assert "still matches" not in done.err, done.err
    assert texts(g)[2] == LIST.replace("127.0.0.5  # five\n", "")
    assert code(g, echo, "127.0.0.7") == socks.OK and code(g, echo, "127.0.0.5") == socks.OK


def test_windows(g):
    g.ctl("window", "add", "night", "--tz", "Europe/Berlin", "mon-fri", "22:00-06:00", "except", "2026-12-25")
    assert texts(g)[0] == TEXT.replace("18:00 }\n", "18:00 }\nwindow night tz Europe/Berlin { mon-fri 22:00-06:00 except 2026-12-25 }\n")
    g.ctl("window", "except", "night", "2026-12-26", "2027-01-01")
    assert "except 2026-12-25 2026-12-26 2027-01-01 }" in texts(g)[0]
    listed = {w["name"]: w for w in json.loads(g.ctl("window", "list", "--json").out)}
    assert listed["night"]["tz"] == "Europe/Berlin" and listed["office"]["tz"] == "UTC" and listed["office"]["open"] == "mon-fri 08:00-18:00"
    g.ctl("window", "replace", "night", "mon", "22:00-23:00")
    assert "window night { mon 22:00-23:00 }\n" in texts(g)[0]
    g.ctl("window", "remove", "night")
    assert texts(g) == (TEXT, TEAM, LIST)
    g.ctl("rule", "replace", "loopback", "allow", "to", "cidr", "127.0.0.0/8", "during", "office")
    assert g.ctl("window", "remove", "office", check=False).returncode == 1


@pytest.mark.parametrize("words, said", [
    (["rule", "add", "x", "alow"], "did you mean 'allow'?"),
    (["rule", "add", "x", "allow", "prot", "22"], "'prot'"),
    (["rule", "add", "closed", "deny"], "[duplicate-name]"),
    (["rule", "add", "x allow\nrule y deny"], "not one rule"),
    (["rule", "add", "x", "allow", "to", "cidr", "@nothing"], "nothing"),
    (["rule", "add", "x", "deny", "--until", "tomorrow"], "tomorrow"),
    (["rule", "add", "x deny until 2027-01-01", "--until", "2027-01-31"], "when it ends"),
    (["rule", "move", "lopback", "--first"], "did you mean 'loopback'?"),
    (["rule", "insert", "x", "deny", "--before", "y"], "no rule 'y'"),
    (["rule", "remove", "loopback", "loopback"], "named twice"),
    (["rule", "remove", "loopback", "nobody"], "no rule 'nobody'"),
    (["set", "add", "closed", "127.0.0.300"], "127.0.0.300"),
    (["set", "add", "closed", "a\nb"], "cannot be written"),
    (["set", "add", "closed", "}\nrule all allow"], "cannot be written"),
    (["set", "add", "servers", "127.0.0.4 # no"], "cannot be written"),
    (["set", "create", "x", "kind", "y"], "set"),
    (["window", "add", "w", "mon", "25:00-26:00"], "25:00"),
])
def test_a_mistake_changes_nothing(g, words, said):
    done = g.ctl(*words, check=False)
    assert done.returncode == 1, done
    assert said in done.err, done.err
    assert g.revision() == 2 and texts(g) == (TEXT, TEAM, LIST)


@pytest.mark.parametrize("words", [
    ["rule"], ["rule", "frob"], ["rule", "add"], ["rule", "insert", "x", "deny"], ["rule", "move", "a", "b", "--first"],
    ["rule", "move", "a"], ["rule", "remove", "a", "--first"], ["rule", "disable", "a", "--until", "2027-01-01"],
    ["rule", "add", "x", "deny", "--first", "--last"], ["set"], ["set", "add", "x"], ["set", "add", "x", "y", "--replace"],
    ["set", "import", "x"], ["window"], ["window", "except", "w"],
])
def test_wrong_usage(g, words):
    done = g.ctl(*words, check=False)
    assert done.returncode == 2 and "usage: gatewayctl" in done.err


def test_who_was_faster(g):
    done = g.ctl("rule", "disable", "closed", "--if-revision", "1", check=False)
    assert done.returncode == 1 and g.revision() == 2
    done = g.ctl("rule", "disable", "closed", "--dry-run")
    assert "main.policy:11:\n- rule   closed deny to cidr @closed   # never\n+ rule   closed disabled deny to cidr @closed   # never\n" in done.out
    assert "it could be applied" in done.out and g.revision() == 2
    assert json.loads(g.ctl("rule", "disable", "closed", "--if-revision", "2", "--json").out)["revision"] == 3


def test_a_list_of_two_sets_is_not_edited_by_the_name_of_one(g):
    g.write("policies/teams/hr.policy", TEAM + 'set also cidr file "lists/servers"\nrule also deny to cidr @also\n')
    g.ctl("policy", "apply", g.path("policies", "main.policy"))
    done = g.ctl("set", "add", "also", "127.0.0.1", check=False)
    assert done.returncode == 1 and "set 'servers' too" in done.err
