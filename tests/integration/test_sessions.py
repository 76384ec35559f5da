"""gatewayctl session: live sessions listed, ended, blocked."""

import contextlib
import datetime
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading

import pytest

from harness import admin, dns, people, processes, servers, socks, wait
from harness.gateway import BUILD

BOTH = {"listener_methods": ["password", "none"], "listener_commands": ["connect", "udp"]}


def listed(g, *words):
    return [json.loads(line) for line in g.ctl("session", "list", "--json", *words).out.splitlines()]


def ended(client):
    """True once the other side has gone."""
    client.socket.settimeout(wait.seconds(40))
    return client.receive_all() == b""


def test_a_session_is_seen(gateway, echo):
    g = gateway(**BOTH)
    with g.session("127.0.0.1", echo.port) as ann, g.session("127.0.0.1", echo.port, user="bob", password="bob-pass"):
        ann.echo(b"x" * 1000)
        row, = listed(g, "--user", "ann")
        assert (row["state"], row["address"], row["port"], row["rule"]) == ("relaying", "127.0.0.1", echo.port, "loopback"), row
        assert (row["bytes_up"], row["bytes_down"], row["command"], row["revision"]) == (1000, 1000, "connect", 1), row
        assert len(listed(g)) == 2
        assert [r["user"] for r in listed(g, "user=bob", "to=127.0.0.0/8", "rule=loopback", f"port={echo.port}")] == ["bob"]
        assert listed(g, "--to", "10.0.0.0/8") == [] and listed(g, "--client", "127.0.0.2") == []
        assert [r["user"] for r in listed(g, "--sort", "bytes", "--limit", "1")] == ["ann"]
        assert [r["user"] for r in listed(g, "--sort", "age")] == ["ann", "bob"]
        shown = g.ctl("session", "show", row["session"]).out
        assert f"user          ann\n" in shown and "relaying" in shown, shown
        assert json.loads(g.ctl("session", "show", row["session"], "--json").out)["user"] == "ann"
        table = g.ctl("session", "list").out
        assert row["session"] in table and f"127.0.0.1:{echo.port}" in table, table
    done = g.ctl("session", "show", "0123-4567-89AB-C", check=False)
    assert done.returncode == 1 and "audit query --session" in done.err, done.err


def test_words_that_are_wrong(gateway):
    g = gateway()
    for words, code, said in (
        (("list", "--port", "http"), 2, "no number"), (("list", "--sort", "name"), 2, "bytes, age or rate"), (("list", "colour=red"), 2, "no filter"),
        (("list", "--to", "10.0.0.1/8"), 1, "prefix"), (("kill", "--reason", "x"), 2, "say which sessions"), (("kill", "user=x"), 2, "--reason"),
        (("block", "user=x", "--reason", "y"), 2, "--for"), (("block", "user=x", "--for", "1y", "--reason", "y"), 2, "30s, 15m"),
        (("block", "session=0123-4567-89AB-C", "--for", "1h", "--reason", "y"), 1, "has begun already"), (("unblock", "7"), 1, "no such block"),
        (("block", "user=x", "--for", "31d", "--reason", "y"), 1, "30 days"), (("kill", "user=x", "--reason", "a\nb"), 1, "control character"),
        (("kill", "user=x", "--reason", "y" * 151), 1, "150 bytes"), (("frobnicate",), 2, "no verb"), (("kill", "ann", "--reason", "y"), 2, "user=ann"),
        (("kill", "user=ann", "user=bob", "--reason", "y"), 2, "twice"), (("list", "--port", "1", "port=2"), 2, "twice"),
    ):
        done = g.ctl("session", *words, check=False)
        assert done.returncode == code and said in done.err, (words, done.returncode, done.err)


def test_kill_ends_what_matches_and_says_why(gateway, echo):
    g = gateway(**BOTH)
    mine = [g.session("127.0.0.1", echo.port) for _ in range(40)]
    with g.session("127.0.0.1", echo.port, user="bob", password="bob-pass") as other:
        assert json.loads(g.ctl("session", "kill", "user=ann", "--dry-run", "--json").out) == {"would_end": 40}
        assert "40 sessions ended" in g.ctl("session", "kill", "user=ann", "--reason", "left the company").out
        assert all(ended(c) for c in mine)
        other.echo(b"still here")
        rows = g.wait_rows(40, event="ended", user="ann")
        assert {r["reason"] for r in rows} == {f"ended by an operator: left the company (uid {os.geteuid()})"}, rows
        g.row(event="admin", user=f"uid {os.geteuid()}", reason='session kill: {"user":"ann"}: left the company')
        assert len(listed(g)) == 1


@pytest.mark.root
def test_a_viewer_who_asks_oddly_ends_nothing(gateway, echo):
    """Whatever is asked, no worker takes it amiss."""
    g = gateway(**BOTH, **people.OPTIONS)
    people.let_in(g)
    workers = processes.of_role(g, "worker")
    odd = [{"filter": {}, "limit": n} for n in (0, 1, 201, -1, 1 << 40, "x", None, 2.5)]
    odd += [{"filter": {}, "sort": "bytes", "limit": n} for n in (0, 201, -1, (1 << 32) + 5, "x", None)]
    odd += [{"filter": {}, "sort": s, "limit": 1} for s in (1, "", "name", [], "rate\0")]
    odd += [{"filter": f} for f in ([], None, "user", {"user": ""}, {"user": "x" * 300}, {"text": "x" * 5000}, {"port": 70000}, {"to": "10.0.0.1/8"}, {"to": ""})]
    with g.session("127.0.0.1", echo.port) as c:
        replies = people.ask(g, "viewer", [{"command": "session-list", **request} for request in odd])
        for request, reply in zip(odd, replies):
            assert not reply["ok"], (request, reply)
        assert len(listed(g, "--sort", "age")) == 1
        c.echo(b"alive")
    assert processes.of_role(g, "worker") == workers


def test_filters_that_no_session_is_held_against(gateway, echo):
    """They would match all of them."""
    g = gateway(**BOTH)
    with g.session("127.0.0.1", echo.port) as c:
        for filter_ in ({"limit": 0}, {"order": "oldest"}, {"order": "newest"}, {"id": 1}, {"after": 0}, {"event": "open"}, {"verdict": "allow"},
                        {"user": "ann", "event": "open"}):
            for command in ("session-kill", "session-block", "session-list"):
                reply, _ = admin.ask(g.socket, {"command": command, "filter": filter_, "reason": "x", "seconds": 60})
                assert not reply["ok"] and "user, client, to" in reply["error"], (command, filter_, reply)
        c.echo(b"alive")
    assert admin.ask(g.socket, {"command": "session-blocks"})[0]["blocks"] == []


def test_filters_of_groups_countries_and_times(gateway, server, geo_database):
    """To list, to end and to block alike."""
    de, fr = server(servers.Echo, "127.0.1.1"), server(servers.Echo, "127.0.3.1")
    g = gateway(geoip_database=str(geo_database), **BOTH)

    def live(user="ann", at=de):
        return g.session(at.host, at.port, user=user, password=f"{user}-pass")

    with live() as ann, live("bob", fr) as bob, live("bob") as other:
        for words, users in ((("group=staff",), ["ann"]), (("group=hr",), ["bob", "bob"]), (("country=DE",), ["ann", "bob"]), (("country=FR",), []),
                             (("group=hr", "country=DE"), ["bob"]), (("since=1h",), ["ann", "bob", "bob"]), (("until=1h",), []),
                             (("--until", "1h", "--country", "DE"), []), (("--group", "staff", "--since", "1d"), ["ann"])):
            assert sorted(r["user"] for r in listed(g, *words)) == users, words
        assert "1 session ended" in g.ctl("session", "kill", "group=hr", "country=DE", "--reason", "x").out
        assert ended(other)
        assert "0 sessions ended" in g.ctl("session", "kill", "until=1h", "--reason", "x").out
        assert "1 session ended" in g.ctl("session", "block", "group=staff", "--for", "1h", "--reason", "no").out
        assert ended(ann)
        with live() as c:
            assert c.code == socks.NOT_ALLOWED
        assert "0 sessions ended" in g.ctl("session", "block", "country=DE", "--for", "1h", "--reason", "no").out
        with live("bob") as c:
            assert c.code == socks.NOT_ALLOWED
        bob.echo(b"alive")
    for words, said in ((("since=1h",), "begun already"), (("until=1h",), "begun already")):
        done = g.ctl("session", "block", *words, "--for", "1h", "--reason", "x", check=False)
        assert done.returncode == 1 and said in done.err, done.err
    done = g.ctl("session", "list", "since=yesterdayish", check=False)
    assert done.returncode == 2 and "since" in done.err, done.err


def test_a_country_is_no_filter_without_a_database(gateway):
    """A block that could never hold must not look as if it did."""
    g = gateway(**BOTH)
    done = g.ctl("session", "block", "country=DE", "--for", "1h", "--reason", "x", check=False)
    assert done.returncode == 1 and "no database of countries" in done.err, done.err


def test_flows_are_shown_one_by_one(gateway, server):
    one, two = server(servers.UdpEcho), server(servers.UdpEcho)
    g = gateway("rule loopback allow to cidr 127.0.0.0/24\ndefault deny\n", **BOTH)
    with g.associate() as a:
        for i in range(3):
            a.echo("127.0.0.1", one.port, b"x" * 10)
        a.echo("127.0.0.1", two.port, b"y" * 7)
        a.send("127.0.2.1", 9, b"z")
        row = wait.until(lambda: next((r for r in listed(g) if r.get("flows") == 3), None), "all of its flows")
        shown = json.loads(g.ctl("session", "show", row["session"], "--json").out)
        flows = {f["port"]: f for f in shown["udp_flows"]}
        assert len(shown["udp_flows"]) == 3 and shown["flows"] == 3 and shown["session"] == row["session"], shown
        f = flows[one.port]
        assert (f["address"], f["rule"], f["state"], f["opened_by"], f["revision"]) == ("127.0.0.1", "loopback", "open", "client", 1), f
        assert (f["bytes_up"], f["bytes_down"], f["datagrams_up"], f["datagrams_down"]) == (30, 30, 3, 3), f
        assert flows[two.port]["datagrams_up"] == 1 and flows[two.port]["bytes_down"] == 7, flows
        assert (flows[9]["state"], flows[9]["address"], flows[9]["bytes_up"]) == ("denied", "127.0.2.1", 0), flows
        assert set(f) == {"address", "port", "rule", "revision", "bytes_up", "bytes_down", "duration_us", "state", "datagrams_up", "datagrams_down",
                          "idle_us", "opened_by"}, f
        text = g.ctl("session", "show", row["session"]).out
        assert "FLOW" in text and f"127.0.0.1:{two.port}" in text and "3/3" in text and "denied" in text, text
        assert "udp_flows" not in json.dumps(listed(g))


def test_an_association_of_very_many_flows_is_shown(gateway):
    """As many as there may be: more than a message holds."""
    g = gateway("rule loopback allow to domain .example to cidr 127.0.0.0/8\ndefault deny\n", resolver_timeout=60000, **BOTH)
    with g.associate() as a:

        def all_there():
            """A datagram may be lost: then it is sent again."""
            for i in range(256):
                a.send(b"x" * 60 + b"." + b"y" * 60 + b".denied", i + 1, b"z")
            return next((r for r in listed(g) if r.get("flows") == 256), None)

        row = wait.until(all_there, lambda: listed(g))
        shown = json.loads(g.ctl("session", "show", row["session"], "--json").out)
        assert sorted(f["port"] for f in shown["udp_flows"]) == list(range(1, 257))


def test_who_may_come_to_a_bind_is_shown(gateway, dns_server):
    g = gateway("rule eight allow to cidr 127.0.0.8\nrule nine allow to cidr 127.0.0.9\n", listener_commands=["bind"],
                resolver=[answers(dns_server, ["127.0.0.8", "127.0.0.9"])])
    with g.client() as c:
        assert c.greet(socks.PASSWORD) == socks.PASSWORD
        assert c.login("ann", "ann-pass") == 0
        assert c.request("peer.test", 20, socks.BIND) == socks.OK
        row, = listed(g)
        shown = json.loads(g.ctl("session", "show", row["session"], "--json").out)
        host, port = shown["listens"].rsplit(":", 1)
        assert shown["state"] == "binding" and host == "127.0.0.1", shown
        assert {(p["address"], p["rule"]) for p in shown["peers"]} == {("127.0.0.8", "eight"), ("127.0.0.9", "nine")}, shown
        with socket.create_connection((host, int(port)), source_address=("127.0.0.7", 0)) as stranger:
            assert stranger.recv(1) == b""
        assert json.loads(g.ctl("session", "show", row["session"], "--json").out)["strangers"] == 1
        text = g.ctl("session", "show", row["session"]).out
        assert "MAY COME" in text and "127.0.0.9" in text and "nine" in text, text
        with socket.create_connection((host, int(port)), source_address=("127.0.0.9", 0)):
            assert c.reply() == socks.OK
            shown = json.loads(g.ctl("session", "show", row["session"], "--json").out)
            assert (shown["address"], shown["rule"]) == ("127.0.0.9", "nine") and "peers" not in shown, shown


def test_the_audit_tells_all_of_a_filter(gateway):
    g = gateway(**BOTH)
    filter_ = {"text": "A" * 200, "user": "ann", "to": ".example"}
    for command, what in (("session-kill", "session kill"), ("session-block", "session block")):
        reply, _ = admin.ask(g.socket, {"command": command, "filter": filter_, "reason": "r" * 150, "seconds": 60})
        assert reply["ok"], reply
        row = wait.until(lambda w=what: next((r for r in g.rows(event="admin") if r["reason"].startswith(w)), None), what)
        assert row["detail"]["filter"] == filter_ and row["reason"].endswith(": " + "r" * 150), row


def ask_in_threads(g, requests):
    """Asks all of them at once: a function that gives the replies."""
    replies = [None] * len(requests)

    def ask(i):
        replies[i] = admin.ask(g.socket, requests[i])[0]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(requests))]
    for t in threads:
        t.start()

    def join():
        for t in threads:
            t.join()
        return replies

    return join


def test_a_worker_that_is_busy_ends_them_later(gateway, echo):
    """More at once than there is room for, too: what is refused is not in force."""
    g = gateway(workers=1, worker_timeout=600000, **BOTH)
    worker, control = g.pids("worker")[0], g.pids("control")[0]
    with g.session("127.0.0.1", echo.port) as c:
        os.kill(worker, signal.SIGSTOP)
        try:
            kill = ask_in_threads(g, [{"command": "session-kill", "filter": {"user": "ann"}, "reason": "x"}])
            wait.until(lambda: any(r["reason"].startswith("session kill") for r in g.rows(event="admin")), "the kill is on its way")
            processes.rests(control)
            blocks = ask_in_threads(g, [{"command": "session-block", "filter": {"user": f"u{i}"}, "seconds": 3600, "reason": "x"} for i in range(15)])
            assert kill() == [{"ok": True, "ended": 0, "silent": [], "later": [0]}], kill()
            replies = blocks()
        finally:
            os.kill(worker, signal.SIGCONT)
        assert ended(c)
    in_force = {b["filter"]["user"] for b in admin.ask(g.socket, {"command": "session-blocks"})[0]["blocks"]}
    assert in_force == {f"u{i}" for i, r in enumerate(replies) if r["ok"]}, replies
    for r in replies:
        assert r["ok"] or "too many" in r["error"], r
    with g.session("127.0.0.1", echo.port) as c:
        c.echo(b"only those that lived then")


def test_workers_that_are_stopped_delay_no_other(gateway, echo):
    """All are told at once: the last is done while the first ones say nothing, and is waited for no longer than they."""
    g = gateway(workers=3, worker_timeout=600000, **BOTH)
    workers = {w["slot"]: w["pid"] for w in g.status()["processes"] if w["role"] == "worker"}
    with contextlib.ExitStack() as all_of_them:
        for _ in range(30):
            all_of_them.enter_context(g.session("127.0.0.1", echo.port))
        last = [r for r in listed(g) if r["worker"] == 2]
        for slot in (0, 1):
            os.kill(workers[slot], signal.SIGSTOP)
        try:
            kill = ask_in_threads(g, [{"command": "session-kill", "filter": {"user": "ann"}, "reason": "x"}])
            reply, = kill()
            assert reply == {"ok": True, "ended": len(last), "silent": [], "later": [0, 1]}, reply
            assert g.log().count("has yet to do with its sessions") == 2
        finally:
            for slot in (0, 1):
                os.kill(workers[slot], signal.SIGCONT)
        g.wait_rows(30, event="ended", user="ann")


def test_kill_of_one_by_its_id_and_of_all(gateway, echo):
    g = gateway(**BOTH)
    with g.session("127.0.0.1", echo.port) as one, g.session("127.0.0.1", echo.port) as two, g.client() as silent:
        wait.until(lambda: len(listed(g)) == 3, "all are there")
        first = max(listed(g, "user=ann"), key=lambda r: r["duration_us"])["session"]
        assert "1 session ended" in g.ctl("session", "kill", "--session", first, "--reason", "x").out
        assert ended(one)
        two.echo(b"y")
        assert "2 sessions ended" in g.ctl("session", "kill", "--all", "--reason", "maintenance").out
        assert ended(two) and ended(silent)


def test_hundreds_are_ended_at_once(gateway, echo):
    n = 1000 if os.environ.get("GATEWAYD_TEST_FULL") else 200
    g = gateway(**BOTH)
    clients = [g.session("127.0.0.1", echo.port) for _ in range(n)]
    try:
        reply, _ = admin.ask(g.socket, {"command": "session-kill", "filter": {"user": "ann"}, "reason": "all of them"})
        assert reply == {"ok": True, "ended": n, "silent": []}, reply
        assert all(ended(c) for c in clients)
    finally:
        for c in clients:
            c.close()
    rows = g.wait_rows(n, event="ended")
    assert len(rows) == n and all("all of them" in r["reason"] for r in rows)


def test_many_are_asked_about_on_a_terminal(gateway, echo):
    g = gateway(**BOTH)
    with g.session("127.0.0.1", echo.port) as a, g.session("127.0.0.1", echo.port):
        for answer, code in ((b"\n", 1), (b"y\n", 0)):
            leader, follower = pty.openpty()
            p = subprocess.Popen([os.path.join(BUILD, "admin", "gatewayctl"), "--socket", g.socket, "session", "kill", "user=ann", "--reason", "x"],
                                 stdin=follower, stdout=subprocess.DEVNULL, stderr=follower)
            os.close(follower)
            said = b""
            while b"[y/N]" not in said:
                said += os.read(leader, 1000)
            assert b"end 2 sessions?" in said, said
            os.write(leader, answer)
            assert p.wait(wait.seconds(40)) == code
            os.close(leader)
            if code == 1:
                a.echo(b"alive")
        assert ended(a)


def test_a_block_ends_and_keeps_out(gateway, echo):
    g = gateway(**BOTH)
    with g.session("127.0.0.1", echo.port) as c:
        said = g.ctl("session", "block", "user=ann", "--for", "1h", "--reason", "infected host").out
        assert said == "block 1 is in force; 1 session ended\n", said
        assert ended(c)
    with g.session("127.0.0.1", echo.port) as c:
        assert c.code == socks.NOT_ALLOWED
    row = g.row(event="denied", user="ann")
    assert row["reason"] == "blocked by an operator: infected host", row
    with g.session("127.0.0.1", echo.port, user="bob", password="bob-pass") as c:
        assert c.code == socks.OK
    table = g.ctl("session", "blocks").out
    assert "user=ann" in table and "infected host" in table and f"uid {os.geteuid()}" in table, table
    # It outlives control, a worker, and the gateway.
    for role in ("control", "worker"):
        before = processes.of_role(g, role)
        for pid in before:
            processes.kill(pid)
        wait.until(lambda: len(set(processes.of_role(g, role)) - set(before)) == len(before), f"another {role}")

        def refused():
            with g.session("127.0.0.1", echo.port) as c:
                return c.code

        wait.until(lambda: refused() == socks.NOT_ALLOWED, "it is blocked")
    g.restart()
    with g.session("127.0.0.1", echo.port) as c:
        assert c.code == socks.NOT_ALLOWED
    g.ctl("session", "unblock", "1")
    with g.session("127.0.0.1", echo.port) as c:
        assert c.code == socks.OK
    g.restart()
    assert json.loads(json.dumps(admin.ask(g.socket, {"command": "session-blocks"})[0]["blocks"])) == []
    g.row(event="admin", reason="session unblock: 1")


def _code(g, echo):
    with g.session("127.0.0.1", echo.port) as c:
        return c.code


def test_a_block_is_over_in_time(gateway, echo):
    g = gateway(clock=True, **BOTH)
    g.set_time("2026-11-20 10:00")
    g.ctl("session", "block", "user=bob", "--for", "1h", "--reason", "other")
    assert g.ctl("session", "block", "user=ann", "--for", "1s", "--reason", "pause").out.startswith("block 2 is in force")
    # Not even a clock that is set back makes it longer.
    g.set_time("2026-11-19 10:00")
    wait.until(lambda: _code(g, echo) == socks.OK, "the block is over")
    assert [b["reason"] for b in map(json.loads, g.ctl("session", "blocks", "--json").out.splitlines())] == ["other"]


def test_a_clock_that_is_set_lifts_no_block(gateway, echo):
    g = gateway(clock=True, **BOTH)
    g.set_time("2026-11-20 10:00")
    g.ctl("session", "block", "user=ann", "--for", "30m", "--reason", "pause")
    assert _code(g, echo) == socks.NOT_ALLOWED
    g.set_time("2036-11-20 10:00")
    assert _code(g, echo) == socks.NOT_ALLOWED
    # It is shown to end half an hour from now, whatever the clock says now is.
    ends = json.loads(g.ctl("session", "blocks", "--json").out)["until_us"] / 1e6
    assert "2036-11-20T10:2" in datetime.datetime.fromtimestamp(ends, datetime.timezone.utc).isoformat()
    # Nor do those lift it who come after, and read the file.
    before, = processes.of_role(g, "control")
    processes.kill(before)
    wait.until(lambda: set(processes.of_role(g, "control")) - {before}, "another control")
    wait.until(lambda: g.ctl("session", "blocks", "--json", check=False).out, "it tells of the block")
    assert _code(g, echo) == socks.NOT_ALLOWED
    g.restart()
    assert _code(g, echo) == socks.NOT_ALLOWED
    g.ctl("session", "unblock", "1")
    assert _code(g, echo) == socks.OK


def test_a_block_of_before_the_host_was_started(gateway, echo):
    """Then the wall clock tells what is left; and if that stood wrong and is put right, it holds again."""
    g = gateway(clock=True, **BOTH)
    g.set_time("2026-11-20 10:00")
    g.ctl("session", "block", "user=ann", "--for", "30m", "--reason", "pause")
    g.stop()
    with open(g.path("state", "policy", "blocks.json"), "r+", encoding="utf-8") as f:
        blocks = json.load(f)
        blocks[0].update(boot="00000000-0000-0000-0000-000000000000", until_boot_us=1 << 60)
        f.seek(0)
        f.truncate()
        json.dump(blocks, f)
    g.set_time("2026-11-20 10:31")
    g.start()
    assert _code(g, echo) == socks.OK
    assert g.ctl("session", "blocks", "--json").out == ""
    # Other commands in between have not made it forgotten.
    g.ctl("session", "block", "user=bob", "--for", "1m", "--reason", "other")
    g.set_time("2026-11-20 10:10")
    assert _code(g, echo) == socks.NOT_ALLOWED
    g.ctl("session", "unblock", "1")
    assert _code(g, echo) == socks.OK


@pytest.mark.parametrize("filter_", ["to=127.0.0.0/8", "rule=loopback", "text=loop", "client=127.0.0.1"])
def test_blocks_by_what_is_known_late(gateway, echo, filter_):
    g = gateway(**BOTH)
    g.ctl("session", "block", filter_, "--for", "1h", "--reason", "no")
    with g.session("127.0.0.1", echo.port) as c:
        assert c.code == socks.NOT_ALLOWED, c.code
    g.row(event="denied", reason="blocked by an operator: no")


def test_blocks_by_name_are_not_even_looked_up(gateway, dns_server, echo):
    d = dns_server(lambda name, kind, nth: 3)
    g = gateway("rule all allow to domain .example\n", resolver=[d.address], **BOTH)
    g.ctl("session", "block", "to=.bad.example", "--for", "1h", "--reason", "no")
    with g.session(b"www.bad.example", echo.port) as c:
        assert c.code == socks.NOT_ALLOWED
    assert d.names() == []


def test_flows_are_blocked(gateway, server):
    origin = server(servers.UdpEcho)
    g = gateway(**BOTH)
    with g.associate() as a:
        a.echo("127.0.0.1", origin.port, b"hello")
        row, = listed(g, f"port={origin.port}")
        assert (row["command"], row["flows"]) == ("udp", 1), row
        g.ctl("session", "block", "to=127.0.0.1", f"port={origin.port}", "--for", "1h", "--reason", "no")
        assert ended(a.control)
    with g.associate() as a:
        a.send("127.0.0.1", origin.port, b"hello")
        g.row(event="denied", reason="blocked by an operator: no", port=origin.port)
        g.ctl("session", "unblock", "1")


def answers(dns_server, addresses, alias=None):
    """A resolver that answers every name with these addresses, over an alias if need be."""

    def answer(name, kind, nth):
        chain = [dns.record(name, dns.CNAME, alias)] if alias else []
        return chain + [dns.record(alias or name, dns.A, a) for a in addresses if kind == dns.A]

    return dns_server(answer).address


@pytest.mark.parametrize("where", ["to=127.0.0.8", "to=127.0.0.9", "rule=eight", "rule=nine", "to=cdn.example"])
def test_a_block_finds_who_is_on_the_way(gateway, server, dns_server, where):
    """Neither address answers yet; it might come to use either."""
    first = server(servers.Deaf, "127.0.0.8")
    server(servers.Deaf, "127.0.0.9", first.port)
    g = gateway("rule eight allow to cidr 127.0.0.8\nrule nine allow to cidr 127.0.0.9\n", connect_timeout=120000,
                resolver=[answers(dns_server, ["127.0.0.8", "127.0.0.9"], "cdn.example")], **BOTH)
    with g.client() as c:
        assert c.greet(socks.PASSWORD) == socks.PASSWORD
        assert c.login("ann", "ann-pass") == 0
        c.send(socks.request("www.test", first.port))
        wait.until(lambda: [r["state"] for r in listed(g)] == ["granting"], "it is on its way")
        assert len(listed(g, where)) == 1
        said = g.ctl("session", "block", where, "--for", "1h", "--reason", "no").out
        assert "1 session ended" in said, said
        assert c.reply() == socks.FAILURE


@pytest.mark.parametrize("where", ["to=127.0.0.8", "to=127.0.0.9", "rule=nine", "to=.cdn.example"])
def test_a_block_finds_who_waits_for_a_peer(gateway, dns_server, where):
    g = gateway("rule eight allow to cidr 127.0.0.8\nrule nine allow to cidr 127.0.0.9\n", listener_commands=["bind"],
                resolver=[answers(dns_server, ["127.0.0.8", "127.0.0.9"], "cdn.example")])
    with g.client() as c:
        assert c.greet(socks.PASSWORD) == socks.PASSWORD
        assert c.login("ann", "ann-pass") == 0
        assert c.request("peer.test", 20, socks.BIND) == socks.OK
        said = g.ctl("session", "block", where, "--for", "1h", "--reason", "no").out
        assert "1 session ended" in said, said
        assert c.reply() == socks.FAILURE


def test_a_block_finds_aliases(gateway, server, dns_server, echo):
    origin = server(servers.UdpEcho)
    g = gateway(resolver=[answers(dns_server, ["127.0.0.1"], "cdn.example")], **BOTH)
    with g.session("www.test", echo.port) as c, g.associate() as a:
        c.echo(b"x")
        a.echo("www.test", origin.port, b"x")
        assert len(listed(g, "to=cdn.example")) == 2 and listed(g, "to=other.example") == []
        assert "2 sessions ended" in g.ctl("session", "block", "to=cdn.example", "--for", "1h", "--reason", "no").out
        assert ended(c) and ended(a.control)


def test_a_block_by_a_rule_finds_who_comes_to_be_allowed_by_it(gateway, server, echo):
    """A change of policy hands sessions from rule to rule."""
    origin = server(servers.UdpEcho)
    g = gateway(**BOTH)
    with g.session("127.0.0.1", echo.port) as c, g.associate() as a:
        c.echo(b"x")
        a.echo("127.0.0.1", origin.port, b"x")
        assert "0 sessions ended" in g.ctl("session", "block", "rule=other", "--for", "1h", "--reason", "no").out
        g.write_policy("rule other allow to cidr 127.0.0.0/8\n")
        g.reload()
        assert ended(c)
        row = g.row(event="ended", command="connect")
        assert (row["rule"], row["reason"]) == ("other", "blocked by an operator: no"), row
        row = g.row(event="flow-ended")
        assert row["reason"] == "blocked by an operator: no", row


def test_who_asks_and_does_not_read_costs_nothing(gateway, echo):
    """More than a pipe holds, for as many who do not read as may ask; others are served, and control rests."""
    g = gateway(listener_methods=["none"])
    clients = [g.session("127.0.0.1", echo.port, user=None) for _ in range(240)]
    pipes = []
    try:
        for _ in range(8):
            reply, fd = admin.ask(g.socket, {"command": "session-list", "filter": {}})
            assert reply["ok"], reply
            pipes.append(fd)
        reply, _ = admin.ask(g.socket, {"command": "session-list", "filter": {}})
        assert not reply["ok"] and "too many" in reply["error"], reply
        processes.rests(g.pids("control")[0])
        clients[0].echo(b"served")
        # Ending has places of its own, and lists of those who are gone go on.
        reply, _ = admin.ask(g.socket, {"command": "session-kill", "filter": {}, "all": True, "reason": "x"})
        assert reply["ended"] == 240, reply
        for fd in pipes:
            with os.fdopen(fd) as f:
                lines = [json.loads(line) for line in f]
            assert lines[-1]["end"] and len(lines) - 1 == lines[-1]["sessions"], lines[-1]
            assert 0 < lines[-1]["sessions"] <= 240
        pipes.clear()
    finally:
        for fd in pipes:
            os.close(fd)
        for c in clients:
            c.close()
    assert listed(g) == []


@pytest.mark.root
def test_who_may_less_leaves_places_to_administrators(gateway, echo):
    g = gateway(listener_methods=["none"], **people.OPTIONS)
    people.let_in(g)
    script = """
import json, socket, sys
path, held, oks = sys.argv[1], [], []
for _ in range(3):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
        s.settimeout(100)
        s.connect(path)
        s.send(b'{"command": "session-list", "filter": {}}')
        text, fds, _, _ = socket.recv_fds(s, 1 << 16, 1)
        held += fds
        oks.append(json.loads(text)["ok"])
print(json.dumps(oks), flush=True)
sys.stdin.read()
"""
    clients = [g.session("127.0.0.1", echo.port, user=None) for _ in range(400)]
    holders, pipes = [], []
    try:
        for who, oks in (("viewer", b"[true, true, true]\n"), ("operator", b"[true, true, true]\n"), ("auditor", b"[false, false, false]\n")):
            p = subprocess.Popen([sys.executable, "-I", "-c", script, g.socket], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/",
                                 **people.identity(who))
            holders.append(p)
            assert p.stdout.readline() == oks, who
        for _ in range(2):
            reply, fd = admin.ask(g.socket, {"command": "session-list", "filter": {}})
            assert reply["ok"], reply
            pipes.append(fd)
    finally:
        for fd in pipes:
            os.close(fd)
        for p in holders:
            p.communicate()
        for c in clients:
            c.close()


def test_damaged_blocks_let_nobody_through(gateway):
    g = gateway()
    g.stop()
    with open(os.path.join(g.state, "policy", "blocks.json"), "w", encoding="utf-8") as f:
        f.write("[{}]")
    g.spawn()
    assert g.process.wait(wait.seconds(60)) == 1
    assert "blocks.json is damaged" in g.log()
    g.expected_exit = 1


def test_status_adds_up_what_lives_and_what_has_ended(gateway, server, echo):
    """Bytes are counted as they are carried, over connections, through pipes, and in datagrams; dropped datagrams likewise."""
    u = server(servers.UdpEcho)
    g = gateway(workers=1, **BOTH)

    def counted():
        w = g.status()["workers"]
        return tuple(w[k] for k in ("live_bytes_up", "live_bytes_down", "bytes_up", "bytes_down", "udp_fragments"))

    with g.associate() as a:
        with g.session("127.0.0.1", echo.port) as c:
            for _ in range(8):
                c.echo(b"x" * (1 << 20))
            a.echo("127.0.0.1", u.port, b"datagram")
            a.send("127.0.0.1", u.port, b"part", fragment=1)
            n = (8 << 20) + len(b"datagram")
            wait.until(lambda: counted() == (n, n, 0, 0, 1), counted)
        n = 8 << 20
        wait.until(lambda: counted() == (8, 8, n, n, 1), counted)
    wait.until(lambda: counted() == (0, 0, n + 8, n + 8, 1), counted)
