"""What a change does to what lives: sessions are decided again by the new policy, and at every moment at which an answer may change."""

import contextlib
import datetime
import json
import os
import pty
import select
import signal
import socket
import subprocess

import pytest

from harness import dns, geo, processes, servers, socks, wait
from harness.gateway import BUILD, POLICY, sanitized

SERVED = {"listener_commands": ["connect", "bind", "udp"]}
FORBID = "rule closed deny to cidr 127.0.0.0/8\nrule rest allow\n"


# They take a compiler so long that it is seen at work.
SLOW_RULES = "".join(f"rule r{i} allow to domain .n{i}.example\n" for i in range(4000 if sanitized() else 30000))


def order(g, *arguments):
    return subprocess.Popen([os.path.join(BUILD, "admin", "gatewayctl"), "--socket", g.socket, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env=g._environment())


class Lives:
    """A session of each kind that carries bytes: TCP, a BIND whose peer has come, a BIND that waits, UDP."""

    def __init__(self, g, server, host="127.0.0.1"):
        self.g, self.host = g, host
        self.echo, self.udp_echo = server(servers.Echo, "0.0.0.0"), server(servers.UdpEcho)
        self.tcp = g.session(host, self.echo.port)
        assert self.tcp.code == socks.OK
        self.bound, self.waiting = self._bind(host), self._bind(host)
        self.peer = socket.create_connection(self.bound.bound, wait.seconds(40))
        assert self.bound.reply() == socks.OK
        self.udp = g.associate()
        assert self.udp.code == socks.OK
        self.check()

    def _bind(self, host):
        c = self.g.client()
        assert c.greet(socks.PASSWORD) == socks.PASSWORD
        assert c.login("ann", "ann-pass") == 0
        assert c.request(host, 20, socks.BIND) == socks.OK
        return c

    def check(self):
        """All of them still carry."""
        self.tcp.echo(b"tcp")
        self.bound.send(b"bind")
        assert self.peer.recv(4, socket.MSG_WAITALL) == b"bind"
        self.udp.echo("127.0.0.1", self.udp_echo.port, b"udp")

    def check_ended(self, waiting=True):
        """All of them are cut."""
        assert self.tcp.receive(1) == b"" and self.bound.receive(1) == b""
        assert not waiting or self.waiting.reply() == socks.NOT_ALLOWED
        with pytest.raises(ConnectionResetError):
            assert self.peer.recv(1) != b""
        self.g.wait_rows(3, event="ended")
        self.g.wait_rows(1, event="flow-ended")

    def close(self):
        for each in (self.tcp, self.bound, self.waiting, self.peer, self.udp):
            each.close()


@pytest.fixture
def lives(server):
    made = []

    def start(g, **kwargs):
        made.append(Lives(g, server, **kwargs))
        return made[-1]

    yield start
    for each in made:
        each.close()


def change(g, text):
    g.write_policy(text)
    g.reload()


def kinds(rows):
    return sorted((r["command"], r["rule"], r["revision"]) for r in rows)


def test_a_harmless_change_ends_nothing(gateway, lives):
    g = gateway(**SERVED)
    all_ = lives(g)
    change(g, "rule other deny to cidr 10.0.0.0/8\nrule again allow to cidr 127.0.0.0/8\n")
    all_.check()
    assert g.rows(event="ended") == [] and g.rows(event="flow-ended") == []
    # The rows of their ends tell by what they were allowed last.
    all_.tcp.close()
    row = g.row(event="ended")
    assert (row["rule"], row["revision"], row["reason"]) == ("again", 2, "done")


def test_what_is_forbidden_ends_and_says_why(gateway, lives):
    g = gateway(**SERVED)
    all_ = lives(g)
    change(g, FORBID)
    all_.check_ended()
    ended = g.wait_rows(3, event="ended") + g.wait_rows(1, event="flow-ended")
    assert kinds(ended) == [("bind", "closed", 2)] * 2 + [("connect", "closed", 2), ("udp", "closed", 2)]
    assert all(r["reason"].startswith("denied by policy") and "rule closed" in r["reason"] for r in ended), ended


def test_only_who_is_meant(gateway, echo):
    g = gateway()
    with g.session("127.0.0.1", echo.port) as ann, g.session("127.0.0.1", echo.port, user="bob", password="bob-pass") as bob:
        change(g, "rule hr deny group hr\n" + POLICY)
        assert bob.receive(1) == b""
        ann.echo(b"still here")
    assert (lambda r: (r["user"], r["rule"]))(g.row(event="ended", rule="hr")) == ("bob", "hr")


def test_a_window_that_shuts(gateway, lives):
    g = gateway("window office { 08:00-18:00 }\nrule work allow to cidr 127.0.0.0/8 during office\n", clock=True, start=False, **SERVED)
    g.start()
    g.set_time("2026-11-20 12:00")
    all_ = lives(g)
    g.set_time("2026-11-20 17:59:59")
    all_.check_ended()
    assert {(r["rule"], r["revision"]) for r in g.rows(event="ended")} == {("default", 1)}


def test_a_rule_that_expires(gateway, echo):
    g = gateway("rule trial allow to cidr 127.0.0.0/8 until 2026-11-20\n", clock=True)
    g.set_time("2026-11-20 23:59:00")
    with g.session("127.0.0.1", echo.port) as c:
        c.echo(b"before")
        g.set_time("2026-11-20 23:59:59")
        assert c.receive(1) == b""


def test_a_clock_that_is_set_back(gateway, echo):
    """Before its `from`, a rule counts no more than after its `until`."""
    g = gateway("rule later allow to cidr 127.0.0.0/8 from 2026-11-20\n", clock=True)
    g.set_time("2026-11-20 12:00")
    with g.session("127.0.0.1", echo.port) as c:
        c.echo(b"before")
        g.set_time("2026-11-19 12:00")
        assert c.receive(1) == b""


def test_countries_that_change(gateway, server):
    s = server(servers.Echo, "0.0.0.0")
    g = gateway("rule german allow to country DE to cidr 127.0.0.0/16\n", start=False)
    file = geo.build(g.path("country.mmdb"), {"127.0.1.0/24": "DE", "127.0.2.0/24": "DE"})
    g.configure(geoip_database=file)
    g.start()
    with g.session("127.0.1.1", s.port) as stays, g.session("127.0.2.1", s.port) as goes:
        geo.build(file, {"127.0.1.0/24": "DE", "127.0.2.0/24": "KP", "198.51.100.0/24": "FR"})
        g.reload()
        assert goes.receive(1) == b""
        stays.echo(b"still here")
    # Two workers may have held them: their rows come in either order.
    assert sorted(r["rule"] for r in g.wait_rows(2, event="ended")) == ["default", "german"]


@pytest.mark.parametrize("policy", [
    "rule cdn deny to domain .cdn.test\nrule all allow to cidr 127.0.0.0/8\n",
    "answers all\nrule one deny to cidr 127.0.0.9/32\nrule all allow to cidr 127.0.0.0/8\n",
    "rule named deny by name\nrule all allow to cidr 127.0.0.0/8\n",
    "rule name deny to domain www.test\nrule all allow to cidr 127.0.0.0/8\n",
])
def test_names_are_asked_of_as_they_were(gateway, dns_server, server, policy):
    """The name, its aliases, and the addresses that were not used."""
    s = server(servers.Echo, "127.0.0.2")
    d = dns_server(lambda name, kind, nth: [dns.record(name, dns.CNAME, "x.cdn.test")] + [
        dns.record("x.cdn.test", dns.A, x) for x in ("127.0.0.2", "127.0.0.9")] if kind == dns.A else [])
    g = gateway(resolver=[d.address])
    with g.session("www.test", s.port) as c, g.session("127.0.0.2", s.port) as plain:
        assert c.code == socks.OK
        change(g, POLICY + "# harmless\n")
        c.echo(b"still here")
        change(g, policy)
        assert c.receive(1) == b""
        plain.echo(b"still here")
    assert g.wait_rows(1, event="ended")[0]["rule"] == policy.split("rule ")[1].split()[0]


def test_grace(gateway, lives):
    """Whoever is refused goes on for a while; who is allowed again in time notices nothing; and without grace it is over."""
    g = gateway(POLICY + "grace 1h\n", **SERVED)
    all_ = lives(g)
    change(g, FORBID + "grace 1h\n")
    assert all_.waiting.reply() == socks.NOT_ALLOWED  # it has carried nothing yet
    all_.check()
    with g.session("127.0.0.1", all_.echo.port) as c:
        assert c.code == socks.NOT_ALLOWED
    change(g, POLICY)
    all_.check()
    change(g, FORBID + "grace 1s\n")
    all_.check_ended(waiting=False)
    assert {(r["rule"], r["revision"]) for r in g.rows(event="ended")} == {("closed", 2), ("closed", 4)}


def test_grace_is_taken_back(gateway, echo):
    g = gateway()
    with g.session("127.0.0.1", echo.port) as c:
        change(g, FORBID + "grace 12h\n")
        c.echo(b"still here")
        change(g, FORBID)
        assert c.receive(1) == b""
    assert g.row(event="ended")["revision"] == 3


def test_kept_by_choice(gateway, lives):
    g = gateway(live_sessions="keep", **SERVED)
    all_ = lives(g)
    change(g, FORBID)
    all_.check()
    with g.session("127.0.0.1", all_.echo.port) as c:
        assert c.code == socks.NOT_ALLOWED
    assert g.rows(event="ended") == []


def test_a_grant_under_way_is_of_the_new_policy(gateway, server):
    """The recorder hangs, so that the grant waits; what the policy forbids meanwhile never gets its first byte."""
    s = server(servers.Echo)
    g = gateway(workers=1, audit_timeout=60000)
    recorder = g.pids("recorder")[0]
    os.kill(recorder, signal.SIGSTOP)
    try:
        c = g.client()
        assert c.greet(socks.PASSWORD) == socks.PASSWORD and c.login("ann", "ann-pass") == 0
        c.send(socks.request("127.0.0.1", s.port))
        s.wait_connected()
        g.write_policy(FORBID)
        g.reload()
        assert c.reply() == socks.NOT_ALLOWED
        c.close()
    finally:
        os.kill(recorder, signal.SIGCONT)
    row = g.row(event="ended")
    assert (row["rule"], row["revision"]) == ("closed", 2)


def test_while_sessions_come_and_go(gateway, echo):
    """A policy that changes all the time, and sessions that begin and end meanwhile."""
    g = gateway(workers=2)
    for i in range(10):
        with g.session("127.0.0.1", echo.port) as a, g.session("127.0.0.1", echo.port) as b:
            change(g, (FORBID if i % 2 else POLICY) + f"# {i}\n")
            if i % 2:
                assert a.receive(1) == b"" and b.receive(1) == b""
                change(g, POLICY + f"# again {i}\n")
            else:
                a.echo(b"a")
                b.echo(b"b")
    wait.until(lambda: g.status()["workers"]["sessions"] == 0, "all sessions have ended")


# ---- the preview: what a change would end is known before it is made --------------------------------------------------------


def written(g, text, name="new.policy"):
    g.write(name, text)
    return g.path(name)


def apply(g, text, *options, **kwargs):
    return g.ctl("policy", "apply", written(g, text), *options, **kwargs)


def test_nothing_ends_unasked(gateway, lives):
    g = gateway(**SERVED)
    all_ = lives(g)
    done = apply(g, FORBID, check=False)
    assert done.returncode == 1 and "4 live sessions would end" in done.err and "--yes" in done.err, done.err
    assert done.err.count("closed") == 4 and "ann" in done.err, done.err
    assert g.revision() == 1 and len(json.loads(g.ctl("policy", "log", "--json").out)) == 1
    all_.check()
    done = apply(g, FORBID, "--dry-run")
    assert "4 live sessions would end" in done.out and done.out.count("closed") == 4, done.out
    assert apply(g, FORBID, "--max-ended", "3", check=False).returncode == 1
    all_.check()
    done = apply(g, FORBID, "--max-ended", "4")
    assert "revision 2 is active" in done.out and "4 live sessions end" in done.out
    all_.check_ended()


def test_what_ends_nothing_asks_nothing(gateway, lives):
    g = gateway(**SERVED)
    all_ = lives(g)
    assert "end" not in apply(g, POLICY + "# other\n").out
    done = apply(g, FORBID, "--json", "--dry-run")
    reply = json.loads(done.out)
    assert reply["ok"] and reply["ended"] == 4 and reply["ends_too_many"]
    told = {(s["command"], s["user"], s["client"], s["destination"], s["port"], s["rule"]) for s in reply["sessions"]}
    assert told == {("connect", "ann", "127.0.0.1", "127.0.0.1", all_.echo.port, "closed"), ("bind", "ann", "127.0.0.1", "127.0.0.1", 20, "closed"),
                    ("udp", "ann", "127.0.0.1", "127.0.0.1", all_.udp_echo.port, "closed")}
    all_.check()


def test_rollback_asks_too(gateway, echo):
    g = gateway(FORBID)
    apply(g, POLICY)
    with g.session("127.0.0.1", echo.port) as c:
        done = g.ctl("policy", "rollback", "1", check=False)
        assert done.returncode == 1 and "1 live sessions would end" in done.err
        c.echo(b"still here")
        g.ctl("policy", "rollback", "1", "--yes")
        assert c.receive(1) == b""


def test_a_reload_does_not_ask(gateway, echo):
    g = gateway()
    with g.session("127.0.0.1", echo.port) as c:
        change(g, FORBID)
        assert c.receive(1) == b""


def test_of_many_only_the_first_are_shown(gateway, echo):
    g = gateway(workers=2)
    open_ = [g.session("127.0.0.1", echo.port) for _ in range(60)]
    try:
        reply = json.loads(apply(g, FORBID, "--json", "--dry-run").out)
        assert reply["ended"] == 60 and 0 < len(reply["sessions"]) <= 20
        assert "and 40 more" in apply(g, FORBID, "--dry-run").out
    finally:
        for c in open_:
            c.close()


class Terminal:
    """gatewayctl at a terminal of its own."""

    def __init__(self, g, *arguments):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen([os.path.join(BUILD, "admin", "gatewayctl"), "--socket", g.socket, *arguments], stdin=slave, stdout=slave,
                                        stderr=slave, env=g._environment())
        os.close(slave)
        self.said = ""

    def wait_for(self, text):
        while text not in self.said:
            assert select.select([self.master], [], [], wait.seconds(60))[0], self.said
            try:
                got = os.read(self.master, 65536)
            except OSError:
                got = b""
            assert got, self.said
            self.said += got.decode()

    def answer(self, text):
        os.write(self.master, text.encode() + b"\n")

    def end(self):
        code = self.process.wait(wait.seconds(60))
        os.close(self.master)
        return code


def test_at_a_terminal_one_is_asked(gateway, echo):
    g = gateway()
    with g.session("127.0.0.1", echo.port) as c:
        file = written(g, FORBID)
        t = Terminal(g, "policy", "apply", file)
        t.wait_for("End 1 live sessions? [y/N]")
        assert "closed" in t.said
        t.answer("n")
        assert t.end() == 1 and g.revision() == 1
        c.echo(b"still here")
        t = Terminal(g, "policy", "apply", file)
        t.wait_for("End 1 live sessions? [y/N]")
        t.answer("y")
        t.wait_for("revision 2 is active")
        assert t.end() == 0
        assert c.receive(1) == b""


def test_an_answer_is_for_what_was_shown(gateway, echo):
    """Somebody else is faster while one thinks it over; and what is asked for is no more than was shown."""
    g = gateway()
    with g.session("127.0.0.1", echo.port) as c:
        t = Terminal(g, "policy", "apply", written(g, FORBID, "other.policy"))
        t.wait_for("[y/N]")
        with g.session("127.0.0.1", echo.port) as d:
            t.answer("y")
            t.wait_for("End 2 live sessions? [y/N]")
            apply(g, POLICY + "# faster\n")
            t.answer("y")
            t.wait_for("somebody else was faster")
            assert t.end() == 1 and g.revision() == 2
            c.echo(b"c")
            d.echo(b"d")


def test_a_worker_that_hangs_is_not_guessed_at(gateway, echo):
    """Nobody knows what would end: it is refused, unless that does not matter."""
    g = gateway(workers=1, worker_timeout=600000)
    pid = g.pids("worker")[0]
    with g.session("127.0.0.1", echo.port) as c:
        os.kill(pid, signal.SIGSTOP)
        try:
            done = apply(g, POLICY + "# other\n", check=False)
            assert done.returncode == 1 and "not known" in done.err, done.err
            assert len(json.loads(g.ctl("policy", "log", "--json").out)) == 1
        finally:
            os.kill(pid, signal.SIGCONT)
        c.echo(b"still here")
        apply(g, POLICY + "# other\n")


def test_a_dry_run_is_in_nobodys_way(gateway, echo):
    """A dry run whose compiler hangs: others change the policy meanwhile."""
    g = gateway(workers=1, compile_timeout=600000)
    for turn in range(20):
        g.write("slow.policy", POLICY + f"# dry {turn}\n" + SLOW_RULES)
        dry = order(g, "policy", "apply", "--dry-run", g.path("slow.policy"))
        pid = processes.stop_compiler(g, dry)
        try:
            apply(g, POLICY + f"# real {turn}\n")
            hung = dry.poll() is None
        finally:
            processes.go_on(pid)
        out, err = dry.communicate(timeout=wait.seconds(120))
        assert dry.returncode == 0 and b"nothing was changed" in out, (out, err)
        if hung:  # else it was done before anybody could stop it
            return
    raise AssertionError("no dry run was caught under way")


# ---- on trial: what nobody confirms goes by itself ---------------------------------------------------------------------------


def log(g):
    return json.loads(g.ctl("policy", "log", "--json").out)


def rolled_back(g, revision):
    """And done with: workers have it before it is on record, and until then no other change begins."""

    def done():
        status = g.status()
        return status["revision"] == revision and not {"trial", "change"} & set(status["policy"])

    wait.until(done, f"revision {revision} is in force by itself", 60)
    return log(g)


def test_a_trial_that_nobody_confirms(gateway, lives):
    """Who is kept out by it is let in again; what was cut stays cut; and what only the trial allowed ends with it."""
    g = gateway(POLICY.replace("127.0.0.0/8", "127.0.0.1/32"), **SERVED)
    all_ = lives(g)
    other = servers.Echo("127.0.0.2")
    try:
        apply(g, POLICY + "# wider\n", "--confirm", "1h")
        with g.session("127.0.0.2", other.port) as late:
            assert late.code == socks.OK
            all_.check()
            # On trial again: what returns is still what nobody has tried.
            done = apply(g, POLICY + "# again\n", "--confirm", "1s")
            assert "on trial" in done.out and "revision 2 was on trial" in done.err, (done.out, done.err)
            top = rolled_back(g, 4)[0]
            assert late.receive(1) == b""
            all_.check()
    finally:
        other.close()
    assert (top["source"], top["author_uid"]) == ("unconfirmed", os.geteuid())
    assert top["comment"] == "revision 3 was not confirmed in time: rollback to revision 1"
    assert [r.get("trial", {}).get("state") for r in log(g)] == [None, "over", "over", None]
    assert g.row(event="ended", revision=4)["reason"].startswith("denied by policy now")
    row = [r for r in g.wait_rows(4, event="policy") if r["revision"] == 4][0]
    assert "not confirmed in time" in row["reason"] and row["user"] == f"uid {os.geteuid()}", row
    assert "not confirmed" in g.ctl("policy", "log").out


def test_a_trial_that_locks_out(gateway, lives):
    g = gateway(**SERVED)
    all_ = lives(g)
    apply(g, FORBID, "--yes", "--confirm", "2s")
    all_.check_ended()
    rolled_back(g, 3)
    with g.session("127.0.0.1", all_.echo.port) as c:
        assert c.code == socks.OK
    with g.associate() as u:
        u.echo("127.0.0.1", all_.udp_echo.port, b"again")
    assert {r["revision"] for r in g.rows(event="ended", rule="closed")} == {2}


def test_a_trial_that_is_confirmed(gateway):
    g = gateway()
    assert g.ctl("policy", "confirm", check=False).returncode == 1
    apply(g, POLICY + "# tried\n", "--confirm", "1h")
    shown = g.status()["policy"]["trial"]
    assert (shown["revision"], shown["previous"]) == (2, 1) and 3500 < shown["left_s"] <= 3600
    assert "on trial: revision 1 returns at" in g.ctl("status").out and "apply, on trial" in g.ctl("policy", "log").out
    assert g.ctl("policy", "confirm", "1", check=False).returncode == 1
    assert "revision 2 is confirmed" in g.ctl("policy", "confirm", "2").out
    assert "trial" not in g.status()["policy"]
    assert "apply, confirmed" in g.ctl("policy", "log").out
    assert g.ctl("policy", "confirm", check=False).returncode == 1
    row = g.wait_rows(1, event="policy", reason="revision 2 is confirmed")[0]
    assert (row["revision"], row["user"]) == (2, f"uid {os.geteuid()}")
    g.restart()
    assert g.revision() == 2 and "trial" not in g.status()["policy"]


def test_who_confirmed_is_on_record(gateway):
    """Nobody is told that an order is carried out as if it were recorded, when it is not."""
    g = gateway(workers=1)
    apply(g, POLICY + "# tried\n", "--confirm", "1h")
    control, recorder = g.pids("control")[0], g.pids("recorder")[0]
    os.kill(recorder, signal.SIGSTOP)
    done = g.ctl("log", "level", "info", check=False)
    assert done.returncode == 0 and "not in the audit yet" in done.err, done.err
    confirm = subprocess.Popen([os.path.join(BUILD, "admin", "gatewayctl"), "--socket", g.socket, "policy", "confirm"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=g._environment())
    wait.until(lambda: log(g)[0]["trial"]["state"] == "confirmed", "it is confirmed")
    # What the recorder has not read goes with both.
    processes.kill(control)
    processes.kill(recorder)
    _, err = confirm.communicate(timeout=wait.seconds(60))
    assert confirm.returncode == 3 or b"not in the audit yet" in err, err
    wait.until(lambda: g.ctl("status", check=False).returncode == 0, "control is back", 60)
    wait.until(lambda: any(r["reason"].startswith(f"revision 2 is found in force, confirmed by uid {os.geteuid()}") for r in g.rows(event="policy")),
               "who confirmed is recorded", 60)


@pytest.mark.parametrize("how", ["stopped", "killed", "control"])
def test_a_trial_outlives_every_process(gateway, how):
    """The time passes while nobody is there to look; or control alone is gone for a moment."""
    g = gateway(clock=True)
    apply(g, POLICY + "# tried\n", "--confirm", "1h")
    until = log(g)[0]["trial"]["until_us"]
    if how == "control":
        old = g.pids("control")[0]
        os.kill(old, signal.SIGKILL)
        wait.until(lambda: g.ctl("status", "--json", check=False).returncode == 0 and g.pids("control") not in ([], [old]), "control is back", 60)
        assert wait.until(lambda: g.status()["policy"].get("trial"), "control knows of the trial")["until"] == until // 1000000
        g.ctl("policy", "confirm")
        return
    if how == "killed":
        children = processes.children(g.process.pid)
        g.stop(signal.SIGKILL)
        wait.until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children), "its children are gone", 60)
    else:
        g.stop()
    g.start()
    assert g.status()["policy"]["trial"]["until"] == until // 1000000 and g.revision() == 2
    g.stop()
    g.set_time(datetime.datetime.fromtimestamp(until / 1e6 + 1, datetime.timezone.utc).replace(tzinfo=None).isoformat())
    g.start()
    assert rolled_back(g, 3)[0]["source"] == "unconfirmed"
    assert [r["reason"] for r in g.wait_rows(1, event="policy", revision=3)][0].startswith("revision 3 is in force")


def test_a_trial_whose_rollback_fails(gateway):
    """It is tried again, more and more seldom, and recorded once; when it can be, it is."""

    def store(sql):
        subprocess.run(["sqlite3", os.path.join(g.state, "policy", "policy.db"), sql], check=True)

    g = gateway(clock=True)
    apply(g, POLICY + "# tried\n", "--confirm", "1h")
    until = log(g)[0]["trial"]["until_us"]
    g.stop()
    store("UPDATE content SET text = CAST(text || x'0a' AS BLOB) WHERE id = (SELECT content FROM revision WHERE id = 1)")
    g.set_time(datetime.datetime.fromtimestamp(until / 1e6 + 1, datetime.timezone.utc).replace(tzinfo=None).isoformat())
    g.start()
    wait.until(lambda: "it is tried again in 5 s" in g.log(), "it fails")
    for again in (10, 20):
        # What ends a change looks again at once.
        g.ctl("policy", "rollback", "99", check=False)
        wait.until(lambda s=again: f"it is tried again in {s} s" in g.log(), "it fails again", 60)
    assert g.revision() == 2
    wait.until(lambda: any("99" in r["reason"] for r in g.rows(event="policy")), "what was refused is recorded")
    failed = [r for r in g.rows(event="policy") if r["reason"].startswith("refused: ") and "99" not in r["reason"]]
    assert len(failed) == 1 and "damaged" in failed[0]["reason"], failed
    g.stop()
    store("UPDATE content SET text = CAST(substr(text, 1, length(text) - 1) AS BLOB) WHERE id = (SELECT content FROM revision WHERE id = 1)")
    g.start()
    assert rolled_back(g, 3)[0]["source"] == "unconfirmed"


def test_no_trial_is_longer_than_it_was_ordered(gateway):
    """A clock that is set back while nobody looks."""
    g = gateway(clock=True)
    apply(g, POLICY + "# tried\n", "--confirm", "1h")
    g.stop()
    g.set_time("2020-01-01 00:00")
    g.start()
    assert g.status()["policy"]["trial"]["left_s"] <= 3600


def at(us):
    return datetime.datetime.fromtimestamp(us / 1e6, datetime.timezone.utc).replace(tzinfo=None).isoformat()


def test_no_trial_is_longer_than_it_was_a_moment_ago(gateway):
    """A clock that is set back while control runs."""
    g = gateway(clock=True)
    apply(g, POLICY + "# tried\n", "--confirm", "1h")
    g.set_time(at(log(g)[0]["trial"]["until_us"] - 600 * 1000000))
    # What ends a change, also one that is refused, looks again.
    g.ctl("policy", "rollback", "99", check=False)
    assert g.status()["policy"]["trial"]["left_s"] <= 600
    g.set_time("2020-01-01 00:00")
    g.ctl("policy", "rollback", "99", check=False)
    assert g.status()["policy"]["trial"]["left_s"] <= 600


def test_what_is_over_serves_nobody_after_a_start(gateway):
    """Nor is it needed any more: a start does without its text."""
    g = gateway(clock=True)
    apply(g, POLICY + "# tried\n", "--confirm", "1h")
    until = log(g)[0]["trial"]["until_us"]
    g.stop()
    subprocess.run(["sqlite3", os.path.join(g.state, "policy", "policy.db"), "UPDATE content SET text = CAST(text || x'0a' AS BLOB) "
                    "WHERE id = (SELECT content FROM revision WHERE id = 2)"], check=True)
    g.set_time(at(until + 1000000))
    g.start()
    assert g.revision() == 3 and "trial" not in g.status()["policy"]
    assert (log(g)[0]["source"], log(g)[0]["author_uid"]) == ("unconfirmed", os.geteuid())
    rows = g.wait_rows(1, event="policy", revision=3)
    assert [r["reason"] for r in rows] == ["revision 3 is in force: revision 2 was not confirmed in time: rollback to revision 1"]
    assert not any("found" in r["reason"] for r in g.rows(event="policy", revision=2))


@contextlib.contextmanager
def change_whose_compiler_hangs(g):
    """What is ordered, under way. On a slow machine it may be over, or never begin: then it has ended."""
    g.write("slow.policy", POLICY + "# slow\n" + SLOW_RULES)
    other = order(g, "policy", "apply", g.path("slow.policy"))
    pid = processes.stop_compiler(g, other)
    try:
        yield other
    finally:
        processes.go_on(pid)


@contextlib.contextmanager
def reload_that_the_supervisor_does_not_answer(g):
    os.kill(g.process.pid, signal.SIGSTOP)
    try:
        g.write_policy(POLICY + "# file\n")
        yield order(g, "reload", "--force")
    finally:
        os.kill(g.process.pid, signal.SIGCONT)


def ends(process, seconds):
    try:
        process.wait(wait.seconds(seconds))
        return True
    except subprocess.TimeoutExpired:
        return False


@contextlib.contextmanager
def refused_when_a_trial_ends(g, held):
    """What held is still under way when the time of a trial is over, and is refused for it; gives the revision that was on trial.
    Where it took so long to get there that the trial was over before: once more, with more time."""
    said = []
    for seconds in (2, 4, 8, 16, 32, 64):
        apply(g, POLICY + f"# tried for {seconds} s\n", "--confirm", f"{seconds}s")
        tried = [r["revision"] for r in log(g) if "trial" in r][0]
        with held(g) as other:
            wait.until(lambda: other.poll() is not None or log(g)[0]["source"] == "unconfirmed", "the trial is over", 180)
            # It is refused before that; but on a busy machine gatewayctl may say so only afterwards.
            if ends(other, 5):
                err = other.communicate()[1].decode()
                said.append(err)
                if f"revision {tried} was not confirmed in time" in err and "order this again when it has" in err:
                    assert other.returncode == 1
                    yield tried
                    return
        if not other.stderr.closed:
            other.communicate(timeout=wait.seconds(120))
        wait.until(lambda: not {"trial", "change"} & set(g.status()["policy"]), "the trial is over, and whatever else was under way", 60)
        wait.until(lambda: not processes.of_role(g, "compiler"), "no compiler is left", 60)
    raise AssertionError(f"nothing was under way when a trial was over: {said}")


def test_a_trial_ends_in_time_whatever_is_under_way(gateway):
    """Somebody else's change, whose compiler hangs."""
    g = gateway(workers=1, compile_timeout=600000)
    with refused_when_a_trial_ends(g, change_whose_compiler_hangs) as tried:
        assert rolled_back(g, tried + 1)[0]["source"] == "unconfirmed"
    wait.until(lambda: not any(p["role"] == "compiler" and p["pid"] for p in g.status()["processes"]), "it ends", 60)
    apply(g, POLICY + "# other\n")
    assert g.revision() == tried + 2


def test_what_is_put_into_force_ends_a_trial(gateway):
    g = gateway()
    apply(g, POLICY + "# tried\n", "--confirm", "1h")
    done = apply(g, POLICY + "# for good\n")
    assert "revision 2 was on trial" in done.err
    assert "trial" not in g.status()["policy"]
    assert g.ctl("policy", "confirm", check=False).returncode == 1


@pytest.mark.parametrize("awaited", ["policy file", "database"])
def test_a_trial_ends_in_time_whatever_is_awaited(gateway, awaited):
    """A reload that the supervisor does not answer.  What it answers in the end is nobody's: neither the rollback's, nor the next one's."""
    g = gateway(start=False, workers=1)
    if awaited == "database":
        g.configure(geoip_database=geo.build(g.path("country.mmdb"), {"127.0.1.0/24": "DE"}))
    g.start()
    with refused_when_a_trial_ends(g, reload_that_the_supervisor_does_not_answer) as tried:
        pass
    assert rolled_back(g, tried + 1)[0]["source"] == "unconfirmed"
    g.write_policy(POLICY + "# news\n")
    g.ctl("reload", "--force")
    assert g.revision() == tried + 2 and "# news" in g.ctl("policy", "show").out


@pytest.mark.parametrize("time", ["0s", "5", "m", "25h", "-1s", "1d", ""])
def test_times_that_are_none(gateway, time):
    g = gateway(start=False)
    g.write("new.policy", POLICY)
    assert g.ctl("policy", "apply", g.path("new.policy"), "--confirm", time, check=False).returncode == 2
