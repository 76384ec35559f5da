"""Roles on the control socket: who may what, by the kernel's word about the peer."""

import os
import re
import stat

import pytest

from harness import admin, people, wait
from harness.gateway import ROOT
from harness.starts import refused

pytestmark = pytest.mark.root

RIGHTS = {
    "viewer": {"VIEW"},
    "auditor": {"VIEW", "AUDIT"},
    "operator": {"VIEW", "OPERATE"},
    "administrator": {"VIEW", "AUDIT", "OPERATE", "ADMINISTER"},
    "both": {"VIEW", "AUDIT", "OPERATE"},
    "stranger": set(),
}
# What people rely on, whatever the table says: a request, and the least right for it.  A command that is not here is one that nobody
# has thought about.
LEAST = [
    ({"command": "status"}, "VIEW"),
    ({"command": "policy-head"}, "VIEW"),
    ({"command": "policy-log"}, "VIEW"),
    ({"command": "policy-get"}, "VIEW"),
    ({"command": "session-list"}, "VIEW"),
    ({"command": "session-show"}, "VIEW"),
    ({"command": "session-recent"}, "VIEW"),
    ({"command": "session-blocks"}, "VIEW"),
    ({"command": "auth", "verb": "list"}, "VIEW"),
    ({"command": "audit-query"}, "AUDIT"),
    ({"command": "audit-retention", "verb": "holds"}, "AUDIT"),
    ({"command": "reload"}, "OPERATE"),
    ({"command": "drain"}, "OPERATE"),
    ({"command": "log-level"}, "OPERATE"),
    ({"command": "session-kill"}, "OPERATE"),
    ({"command": "session-block"}, "OPERATE"),
    ({"command": "session-unblock"}, "OPERATE"),
    ({"command": "auth"}, "OPERATE"),
    ({"command": "reload", "force": True}, "ADMINISTER"),
    ({"command": "policy-apply"}, "ADMINISTER"),
    ({"command": "policy-rollback"}, "ADMINISTER"),
    ({"command": "policy-confirm"}, "ADMINISTER"),
    ({"command": "policy-pending"}, "VIEW"),
    ({"command": "policy-approve"}, "ADMINISTER"),
    ({"command": "policy-reject"}, "ADMINISTER"),
    ({"command": "audit-retention"}, "ADMINISTER"),
]
# Verbs of a command whose table row names none, and what else a request may say: no less than the row's right.
ALSO = [
    ({"command": "auth", "verb": "unlock"}, "OPERATE"),
    ({"command": "auth", "verb": "forget"}, "OPERATE"),
    ({"command": "auth", "verb": "List"}, "OPERATE"),
    ({"command": "auth", "verb": 1}, "OPERATE"),
    ({"command": "audit-retention", "verb": "prune"}, "ADMINISTER"),
    ({"command": "audit-retention", "verb": "place"}, "ADMINISTER"),
    ({"command": "audit-retention", "verb": "release"}, "ADMINISTER"),
    ({"command": "audit-retention", "verb": "holds "}, "ADMINISTER"),
    ({"command": "session-kill", "verb": "list"}, "OPERATE"),
    ({"command": "policy-apply", "verb": "holds"}, "ADMINISTER"),
]


def commands():
    """The table in admin.c: (request, right)."""
    with open(os.path.join(ROOT, "gatewayd", "control", "admin.c"), encoding="utf-8") as f:
        table = re.search(r"^\} commands\[\] = \{\n(.*?)^\};$", f.read(), re.MULTILINE | re.DOTALL).group(1)
    rows = re.findall(r'^\t\{"([a-z-]+)", \w+,\s+RIGHT_(\w+), (?:NULL|"(\w+)"), (?:NULL|"(\w+)")\},$', table, re.MULTILINE)
    assert len(rows) == table.count("RIGHT_") == table.count("{"), table
    found = []
    for name, right, verb, flag in rows:
        found.append(({"command": name, **({"verb": verb} if verb else {}), **({flag: True} if flag else {})}, right))
    return found


@pytest.fixture
def peopled(gateway):
    g = gateway(**people.OPTIONS)
    people.let_in(g)
    return g


def test_every_command_by_every_role(peopled):
    def in_order(rows):
        return sorted(rows, key=str)

    assert in_order(commands()) == in_order(LEAST)
    assert stat.S_IMODE(os.stat(peopled.socket).st_mode) == 0o666
    table = LEAST + ALSO
    for who, rights in RIGHTS.items():
        for (request, right), reply in zip(table, people.ask(peopled, who, [r for r, _ in table])):
            wrong_role = not reply["ok"] and ("you are" in reply["error"] or "no role" in reply["error"])
            assert wrong_role == (right not in rights), (who, request, right, reply)
    assert peopled.status()["policy"]["rules"] == 1


def test_refusals_say_what_it_takes_and_are_on_record(peopled):
    reply, = people.ask(peopled, "viewer", [{"command": "policy-rollback", "revision": 1}])
    assert reply["error"].startswith("policy-rollback takes an administrator, and you are viewer"), reply
    reply, = people.ask(peopled, "both", [{"command": "reload", "force": True}])
    assert "reload with force takes an administrator, and you are operator and auditor" in reply["error"], reply
    reply, = people.ask(peopled, "stranger", [{"command": "status"}])
    assert "you have no role" in reply["error"], reply
    for who, reason in (("viewer", "refused: policy-rollback: it takes an administrator"),
                        ("both", "refused: reload with force: it takes an administrator"),
                        ("stranger", "refused: a connection of somebody without a role")):
        peopled.row(event="admin", user=f"uid {people.UIDS[who]}", reason=reason)


def test_a_flood_of_refused_commands_is_counted(peopled):
    n = 300
    people.ask(peopled, "viewer", [{"command": "policy-apply"}] * n)
    peopled.stop()
    peopled.start()  # what was only counted was told at the end
    rows = peopled.rows("--limit", "0", event="admin", user=f"uid {people.UIDS['viewer']}")
    counted = [int(m.group(1)) for m in (re.fullmatch(r"refused: policy-apply, (\d+) more times within 10 s", r["reason"]) for r in rows) if m]
    single = sum(r["reason"] == "refused: policy-apply: it takes an administrator" for r in rows)
    assert single + sum(counted) == n and counted, rows
    assert len(rows) < n / 5, len(rows)


def test_who_may_less_does_not_keep_administrators_out(peopled):
    """Connections that say nothing, as many as one user gets, and then as many as all of them get."""
    script = """
import socket, sys
path, n = sys.argv[1], int(sys.argv[2])
held = []
for _ in range(n):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.settimeout(100)
    s.connect(path)
    held.append(s)
print(held[-1].recv(4096).decode(), flush=True)
sys.stdin.read()
"""
    import subprocess
    import sys

    holders = []
    try:
        for who in ("viewer", "auditor", "operator", "both"):
            for turn in range(5):
                p = subprocess.Popen([sys.executable, "-I", "-c", script, peopled.socket, "40"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                     cwd="/", **people.identity(who))
                said = p.stdout.readline()  # to the last of them, at once: the first may be let go of in ten seconds
                if said.strip() or turn == 4:
                    break
                p.communicate()  # it took longer than those, and its last one was one of the few
            holders.append(p)
            assert b"too many connections" in said, said
        assert peopled.status()["revision"] == 1
        reply, = people.ask(peopled, "administrator", [{"command": "policy-head"}])
        assert reply["ok"], reply
    finally:
        for p in holders:
            p.communicate()
    wait.until(lambda: people.ask(peopled, "viewer", [{"command": "policy-head"}])[0]["ok"], "places are free again")
    for who in ("viewer", "both"):
        wait.until(lambda: any(r["reason"] == "refused: a connection beyond its share"
                               for r in peopled.rows("--limit", "0", event="admin", user=f"uid {people.UIDS[who]}")), f"{who} is on record")


def test_socket_is_as_open_as_it_has_to_be(gateway):
    assert stat.S_IMODE(os.stat(gateway().socket).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(gateway(control_group="proxy").socket).st_mode) == 0o660


@pytest.mark.parametrize("option", ["viewer_group", "auditor_group", "operator_group"])
def test_a_group_that_is_not_there(gateway, option):
    g = gateway(start=False, **{option: "nosuchgroup"})
    refused(g, option.replace("_", "-"))


def test_a_group_among_very_many(peopled):
    """The kernel tells all groups of a peer or none."""
    import grp
    import json
    import subprocess
    import sys

    gid = grp.getgrnam(people.GROUPS["operator"]).gr_gid
    for n in (4096, 65535):
        done = subprocess.run([sys.executable, "-I", "-c", people._ASK, peopled.socket], input=b'[{"command": "log-level"}, {"command": "audit-query"}]',
                              stdout=subprocess.PIPE, cwd="/", timeout=wait.seconds(60), check=True, user=61010, group=61010,
                              extra_groups=[*range(100000, 100000 + n), gid])
        level, query = json.loads(done.stdout)
        assert "you are" not in str(level) and "no role" not in str(level), (n, level)
        assert "you are operator" in query["error"], (n, query)


def test_a_group_by_its_primary_group(peopled):
    """Primary and supplementary groups count alike."""
    import grp
    import json
    import subprocess
    import sys

    gid = grp.getgrnam(people.GROUPS["operator"]).gr_gid
    done = subprocess.run([sys.executable, "-I", "-c", people._ASK, peopled.socket], input=b'[{"command": "reload"}, {"command": "audit-query"}]',
                          stdout=subprocess.PIPE, cwd="/", timeout=wait.seconds(60), check=True, user=61010, group=gid, extra_groups=[])
    reload, query = json.loads(done.stdout)
    assert reload["ok"] and not query["ok"], (reload, query)
    assert admin.ask(peopled.socket, {"command": "status"})[0]["ok"]
