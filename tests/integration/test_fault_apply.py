"""kill -9 at any point of an apply: the old revision rules, or the new one, and the store agrees with what is decided."""

import json
import os
import signal
import subprocess

import pytest

from harness import admin, processes, servers, socks, wait
from harness.gateway import BUILD, sanitized

pytestmark = pytest.mark.long

NAMES = 3000 if sanitized() else 20000


def policy(g, which, names=NAMES):
    """Policy `which` (0 or 1) denies 127.0.0.2 or 127.0.0.3; its list makes compiling and storing take a while."""
    os.makedirs(g.path("p"), exist_ok=True)
    with open(g.path("p", f"names{which}"), "w", encoding="utf-8") as f:
        f.writelines(f".n{i}.p{which}.example\n" for i in range(names))
    with open(g.path("p", f"{which}.policy"), "w", encoding="utf-8") as f:
        f.write(f'set names domain file "names{which}"\nrule names deny to domain @names\nrule nobody deny group root\n'
                f"rule closed deny to cidr 127.0.0.{2 + which}/32\nrule all allow to cidr 127.0.0.0/8\n")
    return g.path("p", f"{which}.policy")


def start_apply(g, file):
    return subprocess.Popen(
        [os.path.join(BUILD, "admin", "gatewayctl"), "--socket", g.socket, "policy", "apply", file],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=g._environment(),
    )


def which_rules(g, s):
    """0 or 1: by which of the two requests are decided; every worker agrees."""
    seen = set()
    for _ in range(6):
        codes = []
        for host in ("127.0.0.2", "127.0.0.3"):
            with g.session(host, s.port, timeout=30) as c:
                codes.append(c.code)
        seen.add(tuple(codes))
    assert len(seen) == 1, seen
    return [(socks.NOT_ALLOWED, socks.OK), (socks.OK, socks.NOT_ALLOWED)].index(seen.pop())


def check(g, s, before, applied):
    """applied: what gatewayctl was told.  Gives the revision that rules now."""
    def answers():
        done = g.ctl("policy", "log", "--json", "--limit", "1", check=False)
        return done.returncode == 0 and json.loads(done.out)[0]

    top = wait.until(answers, "control is back", 60)
    assert top["active"] and top["revision"] in (before, before + 1), (before, top)
    assert not applied or top["revision"] == before + 1, "a revision that was told to be active is not"
    wait.until(lambda: g.revision() == top["revision"], "the store's revision is in force", 60)
    wanted = g.ctl("policy", "show").out.count("127.0.0.3/32")
    wait.until(lambda: which_rules(g, s) == wanted, "decisions follow the store", 60)
    return top["revision"]


def at(g, stage):
    """Waits until the change under way has come so far."""
    wait.until(lambda: g.status()["policy"].get("change", {}).get("stage") == stage, f"a change is {stage}", 60)


def keeper(g):
    return list(processes.children(g.pids("control")[0]))


def ended(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as f:
            return f.read().rsplit(")", 1)[1].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


class Held:
    """An apply that comes as far as a stage and stays there, since a process that it needs is stopped: the supervisor, who would start
    its compiler; those who would look for its groups; a worker, who would tell which sessions end; control's keeper, who would store it;
    the recorder, whose word ends it.
    The transaction in the store is killed at each of its writes by tests/unit/test_policy_power.c."""

    NEEDED = {"looking for groups": "pam", "previewing": "worker", "settling": "recorder"}

    def __init__(self, g, stage, file):
        self.g = g
        if stage == "compiling":
            self.pids = [g.process.pid]
        elif stage == "storing":
            self.pids = keeper(g)
        else:
            self.pids = g.pids(self.NEEDED[stage])
        for pid in self.pids:
            os.kill(pid, signal.SIGSTOP)
        self.apply = start_apply(g, file)
        at(g, stage)

    def go_on(self):
        for pid in self.pids:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass

    def end(self):
        out, err = self.apply.communicate(timeout=wait.seconds(60))
        return self.apply.returncode, (out, err)


STAGES = ["compiling", "previewing", "storing", "settling"]


@pytest.mark.parametrize("stage", ["looking for groups", *STAGES])
def test_control_killed_at_each_stage(gateway, server, stage):
    s = server(servers.Echo, "0.0.0.0")
    g = gateway(workers=2)
    files = [policy(g, 0), policy(g, 1)]
    g.ctl("policy", "apply", files[0])
    pid = g.pids("control")[0]
    held = Held(g, stage, files[1])
    processes.kill(pid)
    if stage == "storing":
        # It goes with control, and must not go on a moment before.
        wait.until(lambda: all(ended(p) for p in held.pids), "the keeper is gone", 60)
    held.go_on()
    code, said = held.end()
    assert code == 3, said
    assert check(g, s, 2, False) == (3 if stage == "settling" else 2)
    g.restart()
    assert check(g, s, 2, False) == (3 if stage == "settling" else 2)
    assert g.ctl("policy", "apply", files[0]).returncode == 0


@pytest.mark.parametrize("stage", STAGES)
def test_the_whole_gateway_killed_at_each_stage(gateway, server, stage):
    """As by a loss of power, as far as processes are concerned."""
    s = server(servers.Echo, "0.0.0.0")
    g = gateway(workers=2)
    files = [policy(g, 0), policy(g, 1)]
    g.ctl("policy", "apply", files[1])
    held = Held(g, stage, files[0])
    children = processes.children(g.process.pid)
    for pid in children:
        processes.kill(pid)
    g.stop(signal.SIGKILL)
    code, said = held.end()
    assert code == 3, said
    wait.until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children), "its children are gone", 60)
    g.start()
    assert check(g, s, 2, False) == (3 if stage == "settling" else 2)


def test_a_keeper_that_hangs(gateway):
    """It does not stand in the way of every change for good, nor of the rollback of a trial."""
    g = gateway(workers=1, compile_timeout=5000)
    files = [policy(g, 0, 10), policy(g, 1, 10)]  # small, so that a compiler has time enough
    assert g.ctl("policy", "apply", files[0], "--confirm", "1h").returncode == 0
    held = Held(g, "storing", files[1])
    code, said = held.end()
    assert code == 3, said
    wait.until(lambda: all(ended(p) for p in held.pids), "the keeper is gone", 60)
    assert "the keeper of the policy store has not answered" in g.log()
    wait.until(lambda: g.ctl("status", check=False).returncode == 0 and g.revision() == 2, "control is back", 60)
    assert g.ctl("policy", "apply", files[1]).returncode == 0


def test_who_looks_at_a_revision_waits_for_the_keeper_alone(gateway):
    """A large one takes long to be read: control answers others meanwhile, and a change goes first."""
    g = gateway(workers=1, compile_timeout=600000)
    files = [policy(g, 0), policy(g, 1)]
    for file in files:
        g.ctl("policy", "apply", file)
    pids = keeper(g)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    # As many as may be asked for, one of them twice, and one that there is not.
    asked = [admin.begin(g.socket, {"command": "policy-get", "revision": n}) for n in (2, 3, 2, 9, 1, 0)]
    for _ in range(2):  # each is read after what was sent before it
        assert g.revision() == 3
    apply = start_apply(g, files[0])
    at(g, "storing")
    for _ in range(2):
        asked.append(admin.begin(g.socket, {"command": "policy-get", "revision": 2}))
    done, _ = admin.ask(g.socket, {"command": "policy-get", "revision": 2})
    assert not done["ok"] and "too many have asked for a revision" in done["error"], done
    asked.pop(2).close()  # who leaves is nobody's concern
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    got = [admin.end(s) for s in asked]
    assert [r["ok"] and r["revision"]["revision"] for r, _ in got] == [2, 3, False, 1, 3, 2, 2], got
    assert "there is no revision 9" in got[2][0]["error"]
    texts = [b"" if fd is None else os.pread(fd, 1 << 24, 0) for _, fd in got]
    assert texts[0] == texts[5] == texts[6] and texts[1] == texts[4] and len(set(texts)) == 4
    assert b"127.0.0.2/32" in texts[0] and b"127.0.0.3/32" in texts[1]
    for _, fd in got:
        if fd is not None:
            os.close(fd)
    apply.communicate(timeout=wait.seconds(60))
    assert apply.returncode == 0 and g.revision() == 4
    for s in asked:
        s.close()
    wait.until(lambda: g.ctl("policy", "show", "2", check=False).returncode == 0, "others may ask again")


def test_the_keeper_killed(gateway, server):
    """Nobody can tell what became of the order: control begins anew, with what the store has."""
    s = server(servers.Echo, "0.0.0.0")
    g = gateway(workers=2)
    files = [policy(g, 0), policy(g, 1)]
    g.ctl("policy", "apply", files[0])
    held = Held(g, "storing", files[1])
    for pid in held.pids:
        processes.kill(pid)
    code, said = held.end()
    assert code == 3, said
    assert check(g, s, 2, False) == 2
    assert g.ctl("policy", "apply", files[1]).returncode == 0
    assert check(g, s, 2, True) == 3


def test_control_answers_while_a_revision_is_stored(gateway):
    g = gateway(workers=1)
    held = Held(g, "storing", policy(g, 1))
    assert g.status()["policy"]["change"]["stage"] == "storing"
    assert len(json.loads(g.ctl("policy", "log", "--json").out)) == 1
    assert "a change by" in g.ctl("status").out
    held.go_on()
    code, said = held.end()
    assert code == 0 and g.revision() == 2, said


def test_the_compiler_killed(gateway, server):
    s = server(servers.Echo, "0.0.0.0")
    g = gateway(workers=2)
    files = [policy(g, 0), policy(g, 1)]
    g.ctl("policy", "apply", files[0])
    revision, caught = 2, 0
    # One that was done before it was seen is no fault, and tells nothing.
    for turn in range(1, 41):
        os.kill(g.process.pid, signal.SIGSTOP)
        apply = start_apply(g, files[turn % 2])
        at(g, "compiling")
        before = set(processes.children(g.process.pid))
        os.kill(g.process.pid, signal.SIGCONT)
        while apply.poll() is None:
            for pid in set(processes.of_role(g, "compiler")) - before:
                processes.kill(pid)
        out, err = apply.communicate(timeout=wait.seconds(60))
        revision = check(g, s, revision, apply.returncode == 0)
        caught += apply.returncode == 1 and b"compiler" in err
        if caught == 3:
            break
    assert caught == 3
    assert g.ctl("policy", "apply", files[turn % 2]).returncode == 0


def test_a_full_disk_changes_nothing(gateway, server):
    """The new revision does not fit into the store: the old one rules, and the next one that fits is taken."""
    import resource

    s = server(servers.Echo, "0.0.0.0")
    g = gateway(workers=1, limits={resource.RLIMIT_FSIZE: 1024 * 1024}, audit_reserve_megabytes=0)
    file = policy(g, 0)
    with open(g.path("p", "names0"), "a", encoding="utf-8") as f:
        f.write("# remark\n" * 300000)
    done = g.ctl("policy", "apply", file, check=False)
    assert done.returncode == 1 and "stored" in done.err, done.err
    assert g.revision() == 1
    g.write_policy("rule closed deny to cidr 127.0.0.2/32\nrule all allow to cidr 127.0.0.0/8\n")
    g.reload()
    assert which_rules(g, s) == 0 and g.revision() == 2


def test_nothing_is_in_force_without_a_record(gateway):
    """A recorder that hangs: whoever changes the policy is told; and once all is killed, the next start records what it finds."""
    g = gateway(workers=1)
    g.write("new.policy", "rule all allow to cidr 127.0.0.0/8\n")
    g.wait_rows(1, event="policy")  # of the start, which waits for nobody
    os.kill(g.pids("recorder")[0], signal.SIGSTOP)
    done = g.ctl("policy", "apply", g.path("new.policy"))
    assert "the audit does not hold yet that revision 2 is in force" in done.err, (done.out, done.err)
    children = processes.children(g.process.pid)
    g.stop(signal.SIGKILL)
    for pid in children:
        processes.kill(pid)
    wait.until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children), "its children are gone", 60)
    g.start()
    row = [r for r in g.wait_rows(2, event="policy") if r["revision"] == 2]
    assert [r["reason"] for r in row] == ["revision 2 is found in force"], row


def test_what_is_acknowledged_is_recorded(gateway):
    """The row can be read as soon as the change is told to be active."""
    g = gateway(workers=1)
    for i in range(10):
        g.write("new.policy", f"rule all allow to cidr 127.0.0.0/8\n# {i}\n")
        g.ctl("policy", "apply", g.path("new.policy"))
        assert g.rows(event="policy", revision=i + 2), i
