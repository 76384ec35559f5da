"""Where a change of the policy takes two administrators: what one orders waits, what another approves is in force, and nothing else is."""

import datetime
import json
import os
import signal
import threading

import pytest

from harness import admin, people, processes, servers, socks, wait

pytestmark = pytest.mark.root

BASE = "set closed cidr { 127.0.0.9 }\nwindow always { mon-sun 00:00-24:00 }\nrule closed deny to cidr @closed\nrule all allow to cidr 127.0.0.0/8\n"
SECOND = f"uid {people.UIDS['administrator']}"


@pytest.fixture
def two(gateway):
    """A factory: root is one administrator, and there is another."""

    def start(**options):
        g = gateway(BASE, policy_approval=True, **people.OPTIONS, **options)
        people.let_in(g)
        return g

    return start


def second(g, command, **members):
    """The reply to the other administrator."""
    return people.ask(g, "administrator", [{"command": command, **members}])[0]


def pending(g):
    return json.loads(g.ctl("policy", "pending", "--json").out)


def log(g):
    return {r["revision"]: r for r in json.loads(g.ctl("policy", "log", "--json").out)}


def propose(g, text, *options):
    """Root proposes: the number of what waits."""
    g.write("new.policy", text)
    reply = json.loads(g.ctl("policy", "apply", g.path("new.policy"), "--json", *options).out)
    assert reply["ok"] and reply["needs_approval"], reply
    return reply["pending"]


def after(g, n):
    """The time when one that waits has expired."""
    until = {r["revision"]: r for r in pending(g)}[n]["approval"]["until_us"] / 1e6
    return datetime.datetime.fromtimestamp(until + 60, datetime.timezone.utc).replace(tzinfo=None).isoformat()


def denying(n):
    return f"rule shut deny to cidr 127.0.0.{n}\n" + BASE


def reasons(g, **equal):
    return [r["reason"] for r in g.rows("--limit", "0", event="policy", **equal)]


def test_every_way_to_change_the_policy_waits(two, echo):
    g = two(workers=1)
    assert g.row(event="start")["reason"].endswith("policy-approval true")
    g.write("new.policy", BASE + "# new\n")
    g.write("list", "127.0.0.7\n")
    ways = [("policy", "apply", g.path("new.policy")), ("policy", "rollback", "1"),
            ("rule", "disable", "closed"), ("rule", "add", "more", "deny", "to", "cidr", "127.0.0.8"), ("set", "add", "closed", "127.0.0.8"),
            ("set", "import", "closed", g.path("list")), ("window", "remove", "always")]
    for n, words in enumerate(ways):
        done = g.ctl(*words, "--comment", f"way {n}")
        assert f"revision {n + 2} waits for approval; revision 1 stays active" in done.out, (words, done.out)
        assert f"gatewayctl policy approve {n + 2}" in done.out
    g.write_policy(BASE + "# reloaded\n")
    by_reload = len(ways) + 2
    assert f"revision {by_reload} waits for approval" in g.ctl("reload").out
    # What waits already is not proposed again, by whatever way the reload is ordered.
    assert f"proposed as revision {by_reload}" in g.ctl("reload").err
    g.process.send_signal(signal.SIGHUP)
    wait.until(lambda: f"revision {by_reload} waits for an administrator's approval" in g.log(), "the reload by signal is done")
    # Whoever may write the file and have it read by a signal is nobody whom an approval could be told from.
    g.write_policy(BASE + "# by a signal\n")
    g.process.send_signal(signal.SIGHUP)
    path = g.path("gateway.policy")
    g.row(event="policy", reason=f"{path} has changed, and is not proposed by a signal: it waits for a reload")
    told = f"{path} has changed, and waits for an administrator's `gatewayctl reload`"
    wait.until(lambda: told in g.log(), "the reload by signal is done")
    assert len(pending(g)) == by_reload - 1 and g.revision() == 1
    assert second(g, "reload")["pending"] == by_reload + 1
    reply = second(g, "policy-rollback", revision=1)
    assert reply["ok"] and reply["revision"] == 1 and reply["pending"] == by_reload + 2, reply

    waiting = pending(g)
    assert [r["revision"] for r in waiting] == list(range(2, by_reload + 3))
    assert all(r["approval"]["state"] == "pending" and r["approval"]["base"] == 1 and not r["active"] for r in waiting), waiting
    assert [r["author"] for r in waiting] == ["uid 0"] * (by_reload - 1) + [SECOND, SECOND]
    assert [r["comment"] for r in waiting[:len(ways)]] == [f"way {n}" for n in range(len(ways))]
    status = g.status()
    assert status["revision"] == 1 and status["policy"]["approval"] == {"required": True, "pending": len(waiting)}, status
    assert f"{len(waiting)} revision(s) wait for approval" in g.ctl("status").out
    with g.session("127.0.0.9", echo.port) as c:
        assert c.code == socks.NOT_ALLOWED
    g.restart()
    assert g.revision() == 1 and [r["revision"] for r in pending(g)] == [r["revision"] for r in waiting]
    for r in waiting:
        assert reasons(g, revision=r["revision"])[0].startswith(f"revision {r['revision']} is proposed, to take the place of revision 1"), r
    found = {f"revision {r['revision']} is found to wait for approval, to take the place of revision 1" for r in waiting}
    wait.until(lambda: found <= {r.split(":")[0] for r in reasons(g)}, "what waits is recorded at a start")
    # Nobody approves alone, whoever proposed it.
    assert "it takes another administrator" in g.ctl("policy", "approve", "2", check=False).err
    assert "it takes another administrator" in second(g, "policy-approve", revision=by_reload + 2)["error"]
    assert g.revision() == 1


def test_a_second_administrator_approves(two, server):
    s = server(servers.Echo, "0.0.0.0")
    g = two(workers=2)
    with g.session("127.0.0.2", s.port) as live:
        n = propose(g, denying(2), "--comment", "TICKET-7")
        shown = g.ctl("policy", "show", str(n)).out
        assert f"# revision {n}, proposed " in shown and "# waits for approval until" in shown and "# TICKET-7" in shown, shown
        assert g.ctl("policy", "diff", "1", str(n), check=False).returncode == 1
        assert g.ctl("policy", "explain", "--revision", str(n), "127.0.0.2", check=False).returncode == 1
        live.echo(b"as ever")
        # It is tried against what lives now: more than may end refuses it, and it goes on waiting.
        reply = second(g, "policy-approve", revision=n)
        assert not reply["ok"] and reply["ends_too_many"] and reply["ended"] == 1, reply
        g.row(event="policy", user=SECOND, reason=f"refused: approval of revision {n}: 1 live sessions would end, of 0 that may")
        assert g.ctl("policy", "approve", str(n), "--dry-run").out.count("1 live sessions would end") == 1  # its author may look
        live.echo(b"as ever")
        assert [r["revision"] for r in pending(g)] == [n] and g.revision() == 1
        reply = second(g, "policy-approve", revision=n, yes=True, comment="looked at")
        assert reply["ok"] and reply["revision"] == n and reply["ended"] == 1 and "pending" not in reply, reply
        assert live.receive(1) == b""
    for _ in range(4):
        with g.session("127.0.0.2", s.port) as c:
            assert c.code == socks.NOT_ALLOWED
    assert pending(g) == [] and "no revision waits" in g.ctl("policy", "pending").out
    assert reasons(g, revision=n, user="uid 0") == [f"revision {n} is proposed, to take the place of revision 1: TICKET-7"]
    in_force = f"revision {n} is in force, proposed by uid 0 and approved by {SECOND}: looked at"
    assert in_force in reasons(g, revision=n, user=SECOND)
    top = log(g)[n]
    assert top["active"] and top["author"] == "uid 0" and top["comment"] == "TICKET-7"
    approval = top["approval"]
    assert (approval["state"], approval["author"], approval["author_uid"], approval["comment"]) == (
        "approved", SECOND, people.UIDS["administrator"], "looked at")
    assert f"apply, approved by {SECOND}" in g.ctl("policy", "log").out
    assert "# approved " in g.ctl("policy", "show").out
    reply = second(g, "policy-approve", revision=n)
    assert f"has been approved already, by {SECOND}" in reply["error"]
    g.restart()
    assert g.revision() == n
    found = f"revision {n} is found in force, proposed by uid 0 and approved by {SECOND}"
    wait.until(lambda: found in reasons(g, revision=n), found)
    # The other way round, with gatewayctl.
    m = second(g, "policy-rollback", revision=1, comment="back")["pending"]
    done = g.ctl("policy", "approve", str(m), "--comment", "yes")
    assert done.out == f"policy revision {m} is active\n", done.out
    with g.session("127.0.0.2", s.port) as c:
        assert c.code == socks.OK


def test_what_cannot_be_approved(two):
    g = two(workers=1, clock=True, policy_approval_within=3600000)

    def refused(reply, why):
        assert not reply["ok"] and why in reply["error"], reply

    a, b, c, d = (propose(g, denying(n)) for n in range(2, 6))
    refused(second(g, "policy-approve", revision=99), "there is no revision 99")
    refused(second(g, "policy-approve", revision=1), "waits for nobody's approval")
    refused(second(g, "policy-approve", revision=0), "there is no revision 0")
    refused(second(g, "policy-approve", revision="2"), "no number of a revision")
    assert g.ctl("policy", "reject", str(a), check=False).returncode == 2  # why?
    refused(second(g, "policy-reject", revision=a), "the reason is to be one line of text")
    refused(second(g, "policy-reject", revision=a, reason="a\nb"), "the reason is to be one line of text")
    assert second(g, "policy-reject", revision=a, reason="too wide")["state"] == "rejected"
    refused(second(g, "policy-approve", revision=a), f"has been rejected already, by {SECOND}")
    refused(second(g, "policy-reject", revision=a, reason="again"), "has been rejected already")
    assert g.ctl("policy", "reject", str(b), "--reason", "a mistake").out == f"policy revision {b} is withdrawn\n"
    refused(second(g, "policy-approve", revision=b), "has been withdrawn already, by uid 0")
    assert reasons(g, revision=a)[-1] == f"revision {a} is rejected: too wide" and reasons(g, revision=b)[-1] == f"revision {b} is withdrawn: a mistake"
    # What never ruled is nothing that could be returned to.
    for n in (a, c):
        done = g.ctl("policy", "rollback", str(n), check=False)
        assert done.returncode == 1 and f"revision {n} was never in force" in done.err, done.err
    assert second(g, "policy-approve", revision=c)["ok"]
    refused(second(g, "policy-approve", revision=d), f"revision {d} was proposed while revision 1 was in force, and revision {c} is now")
    assert pending(g) == []
    assert log(g)[d]["approval"]["state"] == "outdated" and "apply, outdated" in g.ctl("policy", "log").out
    g.row(event="policy", revision=d, user=SECOND, reason=f"revision {d} is outdated: revision {c} took effect")
    said = [r for r in reasons(g, user=SECOND) if r.startswith("refused: ")]
    assert any("was proposed while" in r for r in said) and any("has been rejected" in r for r in said), said
    # Its hour is over.
    e = propose(g, denying(6))
    g.set_time(after(g, e))
    refused(second(g, "policy-approve", revision=e), "has expired")
    assert pending(g) == [] and g.status()["policy"]["approval"]["pending"] == 0
    assert log(g)[d]["approval"]["state"] == "outdated" and log(g)[e]["approval"]["state"] == "expired"
    g.row(event="policy", reason=f"revision {e} has expired: nobody approved it in time")
    assert "apply, expired" in g.ctl("policy", "log").out
    assert g.revision() == c


def test_two_at_once(two):
    """Two who approve one, and approvals of two: one of them is the first."""
    g = two(workers=2)
    mine = [second(g, "policy-rollback", revision=1)["pending"] for _ in range(2)]
    replies = []

    def approve(revision):
        replies.append((revision, admin.ask(g.socket, {"command": "policy-approve", "revision": revision})[0]))

    threads = [threading.Thread(target=approve, args=(mine[i % 2],)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    won = [n for n, r in replies if r["ok"]]
    assert len(won) == 1 and len(replies) == 8, replies
    for n, r in replies:
        assert r["ok"] or any(w in r["error"] for w in ("under way", "has been approved already", f"revision {won[0]} is now")), (n, r)
    assert g.revision() == won[0]
    assert pending(g) == [] and {log(g)[n]["approval"]["state"] for n in mine} == {"approved", "outdated"}
    assert sum(f"revision {won[0]} is in force" in r for r in reasons(g, revision=won[0])) == 1


def test_a_trial_is_confirmed_by_another_than_its_author(two):
    g = two(workers=1, clock=True)
    n = propose(g, denying(2), "--confirm", "1h")
    assert second(g, "policy-approve", revision=n)["ok"]
    done = g.ctl("policy", "confirm", str(n), check=False)
    assert done.returncode == 1 and f"you proposed revision {n}: it takes another administrator to confirm it" in done.err, done.err
    g.row(event="policy", revision=n, user="uid 0", reason=f"refused: whoever proposed revision {n} does not confirm it")
    assert g.status()["policy"]["trial"]["revision"] == n
    assert second(g, "policy-confirm", revision=n)["ok"]
    assert "trial" not in g.status()["policy"] and g.revision() == n
    # What a start finds on trial for too long is on record, too: control may have been killed before that was.
    m = propose(g, denying(3), "--confirm", "1h")
    later = after(g, m)
    assert second(g, "policy-approve", revision=m)["ok"]
    g.stop()
    g.set_time(later)
    g.start()
    assert g.revision() == m + 1
    g.row(event="policy", revision=m, reason=f"revision {m} was in force before this start, proposed by uid 0 and approved by {SECOND}")
    g.row(event="policy", revision=m + 1, user=SECOND, reason=f"revision {m + 1} is in force: revision {m} was not confirmed in time: rollback to revision {n}")


def test_a_file_that_was_rejected_is_not_proposed_again(two):
    g = two(workers=1, clock=True)
    g.write_policy(BASE + "# never\n")
    assert "revision 2 waits for approval" in g.ctl("reload").out
    assert second(g, "policy-reject", revision=2, reason="never")["ok"]
    assert "was rejected as revision 2, and is not proposed again without --force" in g.ctl("reload").err
    assert pending(g) == [] and list(log(g)) == [2, 1]
    assert "revision 3 waits for approval" in g.ctl("reload", "--force").out
    # A verdict that nobody recorded since control was killed is made up for: the last of them is, at each start, also if that has more.
    n = propose(g, denying(2))
    assert second(g, "policy-reject", revision=3, reason="again")["ok"]
    at = after(g, n)
    g.stop()
    g.set_time(at)
    g.start()
    g.row(event="policy", revision=3, user=SECOND, reason="revision 3 is found rejected: again")
    g.row(event="policy", revision=n, reason=f"revision {n} has expired: nobody approved it in time")
    g.write_policy(BASE + "# perhaps\n")
    assert f"revision {n + 1} waits for approval" in g.ctl("reload").out


@pytest.mark.long
def test_a_trial_ends_without_approval(two):
    g = two(workers=1)
    n = propose(g, denying(2), "--confirm", "1h")
    reply = second(g, "policy-approve", revision=n)
    assert reply["ok"] and reply["confirm_s"] == 3600 and g.status()["policy"]["trial"]["previous"] == 1, reply
    assert "waits for approval" in g.ctl("policy", "rollback", "1").out  # by hand it is a change like any
    m = second(g, "policy-rollback", revision=1)["pending"]
    assert g.ctl("policy", "approve", str(m), "--confirm", "1s").returncode == 0
    wait.until(lambda: g.revision() == m + 1, "the trial is rolled back", 60)
    assert log(g)[m + 1]["source"] == "unconfirmed" and "approval" not in log(g)[m + 1]


@pytest.mark.long
def test_it_can_be_switched_off(two):
    g = two(workers=1)
    n, m, more = (propose(g, denying(i)) for i in (2, 3, 4))
    g.stop()
    g.configure(policy_approval=None)
    g.start()
    assert g.status()["policy"]["approval"] == {"required": False, "pending": 3}
    g.ctl("policy", "reject", str(m), "--reason", "not needed any more")
    assert second(g, "policy-approve", revision=n)["ok"] and g.revision() == n
    assert g.ctl("policy", "rollback", "1").out.startswith(f"policy revision {more + 1} is active")
    assert "need none here" in g.ctl("policy", "pending").out


@pytest.mark.long
def test_what_is_wrong_does_not_wait(two):
    g = two(workers=1)
    g.write("bad.policy", BASE + "expect deny to 127.0.0.1\n")
    done = g.ctl("policy", "apply", g.path("bad.policy"), check=False)
    assert done.returncode == 1 and "expect-failed" in done.err
    g.write("shadowed.policy", BASE + "rule again allow to cidr 127.0.0.1/32\n")
    assert g.ctl("policy", "apply", g.path("shadowed.policy"), "--strict", check=False).returncode == 1
    done = g.ctl("policy", "apply", g.path("shadowed.policy"), "--dry-run")
    assert "it could be proposed, with 2 warnings" in done.out
    assert pending(g) == [] and list(log(g)) == [1]
    n = propose(g, BASE + "rule again allow to cidr 127.0.0.1/32\n")
    assert "[shadowed]" in g.ctl("policy", "show", str(n)).out
    reply = second(g, "policy-approve", revision=n, strict=True)
    assert not reply["ok"] and "--strict" in reply["error"], reply
    assert second(g, "policy-approve", revision=n)["ok"]
    assert any("[shadowed]" in w for w in g.status()["policy"]["warnings"])


def at(g, stage):
    wait.until(lambda: g.status()["policy"].get("change", {}).get("stage") == stage, f"a change is {stage}", 60)


def signal_all(pids, sig):
    for pid in pids:
        os.kill(pid, sig)


@pytest.mark.long
@pytest.mark.parametrize("stage", ["previewing", "storing", "settling"])
@pytest.mark.parametrize("what", ["proposal", "approval"])
def test_control_killed(two, what, stage):
    """What is not stored is not there; what is stored is, and is on record.  Nothing is in force that was not approved."""
    g = two(workers=1)
    if what == "approval":
        propose(g, denying(2))
    pid, workers = g.pids("control")[0], g.pids("worker")
    # The keeper reads the revision first, so it is stopped while the worker tells which sessions would end.
    pids = list(processes.children(pid)) if stage == "storing" else g.pids("recorder")
    signal_all(pids if stage == "settling" else workers, signal.SIGSTOP)
    request = {"command": "policy-approve", "revision": 2} if what == "approval" else {"command": "policy-rollback", "revision": 1}
    replies = []
    asked = threading.Thread(target=lambda: replies.append(people.try_to_ask(g, "administrator", request)))
    asked.start()
    if stage == "storing":
        at(g, "previewing")
        signal_all(pids, signal.SIGSTOP)
        signal_all(workers, signal.SIGCONT)
    at(g, stage)
    processes.kill(pid)
    if stage == "storing":
        wait.until(lambda: not any(os.path.exists(f"/proc/{p}") for p in pids), "the keeper is gone", 60)
    else:
        signal_all(pids if stage == "settling" else workers, signal.SIGCONT)
    asked.join()
    assert replies == [None]  # nobody was told that it is done
    wait.until(lambda: g.ctl("status", "--json", check=False).returncode == 0 and g.pids("control") not in ([], [pid]), "control is back", 60)
    wait.until(lambda: g.revision() != 0, "a revision is in force", 60)
    stored = stage == "settling"
    if what == "proposal":
        assert g.revision() == 1 and [r["revision"] for r in pending(g)] == ([2] if stored else [])
        if stored:
            g.wait_rows(1, 60, event="policy", revision=2, user=SECOND)
    else:
        assert g.revision() == (2 if stored else 1) and len(pending(g)) == (not stored)
        if stored:
            wait.until(lambda: any(f"approved by {SECOND}" in r for r in reasons(g, revision=2)), "who approved is on record", 60)
        else:
            assert second(g, "policy-approve", revision=2)["ok"] and g.revision() == 2


def test_nobody_to_approve(gateway):
    warned = "policy-approval: root is the only administrator, and nobody can approve what root proposes: set control-group"
    assert warned in gateway(workers=1, policy_approval=True).log()
    assert warned not in gateway(workers=1, policy_approval=True, control_group=people.GROUPS["administrator"]).log()


def test_completion_offers_what_waits(two):
    g = two(workers=1)
    n, m = propose(g, denying(2)), propose(g, denying(3))
    for verb in ("approve", "reject"):
        assert g.ctl("complete", "--", "policy", verb, "").out.split() == [str(n), str(m)]
    assert "--reason" in g.ctl("complete", "--", "policy", "reject", str(n), "--").out.split()
