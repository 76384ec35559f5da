"""Every command is on record, with who gave it: what changes something, what only looks, and what is refused."""

import contextlib
import json
import os

import pytest

from harness import admin, people, wait

pytestmark = pytest.mark.root

UID = f"uid {os.geteuid()}"
# Of each command one that is answered, and what its row says.  Those that change something end in rows of their own kind.
ANSWERED = {
    "status": ({}, "look", "status"),
    "policy-head": ({}, "look", "policy-head"),
    "policy-log": ({}, "look", "policy-log"),
    "policy-pending": ({}, "look", "policy-pending"),
    "policy-get": ({"revision": 0}, "look", 'policy-get {"revision":0}'),
    "session-list": ({"filter": {"user": "zoe"}}, "look", 'session-list {"filter":{"user":"zoe"}}'),
    "session-recent": ({}, "look", "session-recent"),
    "session-show": ({"session": "0123-4567-89AB-C"}, "look", 'session-show {"session":"0123-4567-89AB-C"}'),
    "session-blocks": ({}, "look", "session-blocks"),
    "auth list": ({"verb": "list"}, "look", 'auth {"verb":"list"}'),
    "audit-query": ({"filter": {"user": "zoe"}}, "look", 'audit-query {"filter":{"user":"zoe"}}'),
    "audit-retention holds": ({"verb": "holds"}, "look", 'audit-retention {"verb":"holds"}'),
    "audit-retention": ({"verb": "place", "name": "case", "filter": {"user": "zoe"}}, "admin", "hold placed: case"),
    "reload": ({}, "look", "reload"),
    "reload force": ({"force": True}, "policy", "revision 2 is in force"),
    "drain": ({"undo": True}, "admin", "drain undone"),
    "log-level": ({"level": "info"}, "admin", "log level: info"),
    "session-kill": ({"filter": {"user": "zoe"}, "reason": "x"}, "admin", 'session kill: {"user":"zoe"}: x'),
    "session-block": ({"filter": {"user": "zoe"}, "reason": "x", "seconds": 60}, "admin", 'session block: {"user":"zoe"}: x'),
    "session-unblock": ({"block": 1}, "admin", "session unblock: 1"),
    "auth": ({"verb": "forget"}, "admin", "auth forget: user (all)"),
    "policy-rollback": ({"revision": 1, "yes": True, "confirm_s": 600}, "policy", "revision 3 is in force, to be confirmed within 600 s"),
    "policy-confirm": ({}, "policy", "revision 3 is confirmed"),
}
# Of each command one that is refused for what it says, and the beginning of why; some cannot be said wrongly.
WRONG = {
    "policy-log": ({"before": -1}, "before or limit is out of range"),
    "policy-get": ({"revision": "x"}, "revision is no number"),
    "session-list": ({"filter": {"country": 5}}, ""),
    "session-show": ({"session": 5}, "a session id looks like"),
    "audit-query": ({"filter": 1}, "the query has no filter object"),
    "audit-retention": ({"verb": "prune", "keep_us": 1}, "at least a day is kept"),
    "drain": ({"undo": "x"}, "undo is true or false"),
    "log-level": ({"level": "x"}, "a level is error"),
    "session-kill": ({"filter": {"user": "zoe"}}, "a reason has 1 to 150 bytes"),
    "session-block": ({"filter": {"user": "zoe"}, "reason": "x"}, "a block lasts"),
    "session-unblock": ({"block": 99}, "there is no such block"),
    "auth": ({"verb": "frob"}, "the request's verb is list"),
    "reload": ({"if_revision": "x"}, "if_revision is no number"),
    "policy-apply": ({}, "the request brings no memory file"),
    "policy-rollback": ({"revision": "x"}, "revision is no number"),
    "policy-confirm": ({"revision": "x"}, "revision is no number"),
    "policy-approve": ({"revision": "x"}, "revision is no number"),
    "policy-reject": ({"revision": "x", "reason": "y"}, "revision is no number"),
    "policy-pending": ({"after": -1}, "after is no number of a revision"),
}


def command(key, request):
    return {"command": key.split()[0], **request}


def found(rows, event, reason, uid=os.geteuid()):
    return [r for r in rows if r["event"] == event and r["reason"].startswith(reason) and r.get("user") == f"uid {uid}"]


def all_rows(g):
    out = g.ctl("audit", "query", "--format", "json", "--limit", "0").out
    return [json.loads(line) for line in out.splitlines()]


def test_every_command_that_is_answered(gateway):
    from test_roles import LEAST

    g = gateway()
    # Those that need a file, or two administrators, are seen to below, and in test_approval.py.
    assert {r["command"] for r, _ in LEAST} - {"policy-apply", "policy-approve", "policy-reject"} == {k.split()[0] for k in ANSWERED}
    for key, (request, event, reason) in ANSWERED.items():
        reply, fd = admin.ask(g.socket, command(key, request))
        if fd is not None:
            os.close(fd)
        assert reply["ok"], (key, reply)
        wait.until(lambda: found(all_rows(g), event, reason), lambda: f"{key}: {event} {reason}: {all_rows(g)}")
    for row in found(all_rows(g), "look", ""):
        assert row["detail"]["uid"] == os.geteuid() and row["detail"]["command"] in row["reason"], row
    g.write_policy("rule one allow to cidr 127.0.0.1\n")
    g.ctl("policy", "apply", g.policy_file)
    wait.until(lambda: found(all_rows(g), "policy", "revision 4 is in force"), "it is recorded")
    # What changed something, once.
    assert len([r for r in all_rows(g) if r["event"] == "look" and r["detail"]["command"] in ("policy-apply", "policy-rollback", "session-kill")]) == 0


def test_every_command_that_is_refused(gateway):
    """For what it says: the reason is in the row; for who gives it: what it takes."""
    from test_roles import LEAST, RIGHTS

    g = gateway(**people.OPTIONS)
    people.let_in(g)
    for key, (request, why) in WRONG.items():
        reply, _ = admin.ask(g.socket, command(key, request))
        assert not reply["ok"] and reply["error"].startswith(why), (key, reply)
        wait.until(lambda: found(all_rows(g), "admin", f"refused: {key}: {why}"), lambda: f"{key}: {all_rows(g)}")
        row, = [r for r in found(all_rows(g), "admin", f"refused: {key}: {why}") if r["detail"].get("asked", {}) == request]
        assert row["detail"]["command"] == key and reply["error"].startswith(row["detail"]["why"][:100]), row
    for request, said in (({"command": "frobnicate", "x": 1}, "there is no such command"), ({}, "the request is no JSON object")):
        reply, _ = admin.ask(g.socket, request)
        assert not reply["ok"] and reply["error"].startswith(said), reply
        wait.until(lambda: found(all_rows(g), "admin", f"refused: no known command: {said}"), said)
    refused = [r for r, right in LEAST if right not in RIGHTS["viewer"]]
    people.ask(g, "viewer", refused)
    for request in refused:
        name = request["command"] + (" with force" if "force" in request else "")
        wait.until(lambda: found(all_rows(g), "admin", f"refused: {name}: it takes an ", people.UIDS["viewer"]), name)


def looks(g, name, uid=os.geteuid()):
    """Of one command, how often it was given as the rows have it, and how many rows that is."""
    rows = [r for r in all_rows(g) if r["event"] == "look" and r.get("user") == f"uid {uid}" and r["detail"]["command"] == name]
    return sum(r["detail"].get("times", 1) for r in rows), len(rows)


def test_who_looks_all_the_time_is_counted(gateway):
    g = gateway(**people.OPTIONS)
    people.let_in(g)
    n = 200
    people.ask(g, "viewer", [{"command": "policy-head"}] * n + [{"command": "session-recent"}])
    g.restart()  # what was only counted was told at the end
    assert looks(g, "policy-head", people.UIDS["viewer"])[0] == n
    assert looks(g, "policy-head", people.UIDS["viewer"])[1] <= 4
    assert looks(g, "session-recent", people.UIDS["viewer"]) == (1, 1)
    counted = max((r for r in all_rows(g) if r["event"] == "look"), key=lambda r: r["detail"].get("times", 0))
    assert counted["reason"] == f"policy-head, {counted['detail']['times']} more times", counted
    assert counted["detail"]["first"] <= counted["detail"]["last"] <= counted["time"], counted
    audit = os.path.join(g.state, "audit")
    g.ctl("audit", "verify", "--dir", audit, "--key", os.path.join(audit, "first.key"))


def test_a_flood_of_kinds_is_bounded_and_keeps_who_it_was(gateway):
    """A table that somebody can fill would hide others."""
    g = gateway(**people.OPTIONS)
    people.let_in(g)
    n = 300
    people.ask(g, "viewer", [{"command": "policy-log", "limit": i} for i in range(n)] + [{"command": "session-list", "filter": {}, "limit": i} for i in range(n)])
    people.ask(g, "operator", [{"command": "policy-head"}])
    g.restart()
    viewer = [r for r in all_rows(g) if r.get("user") == f"uid {people.UIDS['viewer']}"]
    assert sum(r["detail"].get("times", 1) for r in viewer) == 2 * n
    assert len(viewer) < 60, len(viewer)
    assert {r["detail"]["command"] for r in viewer if "(various)" in r["reason"]} == {"policy-log", "session-list"}
    assert looks(g, "policy-head", people.UIDS["operator"]) == (1, 1)


def test_a_flood_of_kinds_hides_no_other_command_of_the_same_user(gateway):
    """What is refused, too: that somebody tried a kill is not lost among attempts at something else."""
    g = gateway(**people.OPTIONS)
    people.let_in(g)
    people.ask(g, "operator", [{"command": "session-unblock", "block": 1000 + i} for i in range(60)]
               + [{"command": "session-kill", "filter": {"user": "zoe"}}, {"command": "log-level", "level": "x"}])
    g.restart()
    rows = found(all_rows(g), "admin", "refused: ", people.UIDS["operator"])
    assert sum(r["detail"].get("times", 1) for r in rows) == 62
    assert sorted({r["detail"]["command"] for r in rows}) == ["log-level", "session-kill", "session-unblock"], rows
    assert [r["reason"] for r in rows if r["detail"]["command"] == "session-kill"] == ["refused: session-kill (various): for several reasons"]


def test_a_broader_look_is_another_one(gateway):
    """Whoever asked for what is new has not read all, and the row says what was read."""
    g = gateway()
    for after in (100000, 0):
        reply, fd = admin.ask(g.socket, {"command": "audit-query", "filter": {"after": after, "user": "zoe"}})
        os.close(fd)
        assert reply["ok"], reply
    g.restart()
    asked = [r["detail"]["asked"]["filter"] for r in found(all_rows(g), "look", "audit-query") if "zoe" in r["reason"]]
    assert sorted(f["after"] for f in asked) == [0, 100000], asked


@pytest.mark.parametrize("request_", [{"command": "session-list", "pad": "x" * 5000, "filter": {"user": "zoe"}},
                                      {"command": "audit-query", "pad": '"' * 20000, "filter": {"user": "zoe"}}], ids=["list", "query"])
def test_a_padded_request_keeps_its_content_in_the_row(gateway, request_):
    g = gateway()
    reply, fd = admin.ask(g.socket, request_)
    if fd is not None:
        os.close(fd)
    g.restart()
    assert reply["ok"], reply
    row, = [r for r in found(all_rows(g), "look", request_["command"]) if "asked" not in r["detail"]]
    assert row["detail"]["command"] == request_["command"], row
    assert row["detail"]["asked_cut"].startswith('{"filter":{"user":"zoe"},"pad":') and row["detail"]["asked_bytes"] > 5000, row


def test_looks_can_be_left_out_and_nothing_else(gateway):
    g = gateway(audit_looks=False)
    g.status()
    assert not admin.ask(g.socket, {"command": "session-unblock", "block": 7})[0]["ok"]
    os.close(admin.ask(g.socket, {"command": "audit-query", "filter": {"user": "zoe"}})[1])  # root's, too
    g.restart()
    rows = all_rows(g)
    assert not [r for r in rows if r["event"] == "look" and r["detail"]["command"] != "audit-query"], rows
    assert found(rows, "look", 'audit-query {"filter":{"user":"zoe"}}'), rows
    assert found(rows, "admin", "refused: session-unblock: there is no such block")
    assert [r for r in rows if r["event"] == "start" and r["reason"].endswith("; audit-looks off")]


def test_names_stand_beside_uids(gateway):
    """The uid is who it was; the name is what the name service calls it, and a uid without one is no obstacle."""
    import pwd

    g = gateway(**people.OPTIONS)
    people.let_in(g)
    name = pwd.getpwuid(os.geteuid()).pw_name

    def named():
        """Until the first answer has come: a slow name service is not waited for."""
        admin.ask(g.socket, {"command": "log-level", "level": "info"})
        return [r for r in found(all_rows(g), "admin", "log level") if r.get("detail", {}).get("login") == name]

    row = wait.until(named, "the name is there")[0]
    assert row["user"] == UID and row["detail"] == {"uid": os.geteuid(), "login": name}, row
    assert f"{UID} ({name})" in g.ctl("audit", "query", "--event", "admin").out
    g.ctl("session", "block", "user=zoe", "--for", "1h", "--reason", "x")
    assert f"{UID} ({name})" in g.ctl("session", "blocks").out
    g.ctl("audit", "hold", "place", "case")
    assert found(all_rows(g), "admin", "hold placed: case")[0]["detail"]["login"] == name
    g.write_policy("rule one allow to cidr 127.0.0.1\n")
    g.reload()
    assert found(all_rows(g), "policy", "revision 2 is in force")[0]["detail"]["login"] == name
    people.ask(g, "viewer", [{"command": "status"}])
    row = wait.until(lambda: found(all_rows(g), "look", "status", people.UIDS["viewer"]), "a uid that has no name")[0]
    assert "login" not in row["detail"] and row["detail"]["uid"] == people.UIDS["viewer"], row


def test_a_name_service_that_hangs_keeps_nobody_waiting(gateway):
    """Nobody tells the names: commands are heard all the same, without."""
    import signal

    g = gateway(pam_processes=1, **people.OPTIONS)
    people.let_in(g)
    pid, = g.pids("pam")
    os.kill(pid, signal.SIGSTOP)
    try:
        reply, = people.ask(g, "operator", [{"command": "log-level", "level": "debug"}])
        assert reply["ok"], reply
        row, = found(all_rows(g), "admin", "log level: debug", people.UIDS["operator"])
        assert "detail" not in row, row
        # Whoever hangs over a name is replaced, as over a log-in.
        wait.until(lambda: g.pids("pam") not in ([], [pid]), "another pam process", 60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
