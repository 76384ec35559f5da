"""The rows of a session: what they say, and when they are there."""

import csv
import datetime
import io
import json
import os
import socket
import subprocess

from harness import servers, socks
from harness.gateway import BUILD


def test_rows_of_a_session(gateway, dnsmasq, echo):
    dns = dnsmasq("--host-record=echo.test,127.0.0.1")
    g = gateway("rule web allow group staff to domain .test to cidr 127.0.0.1/32\ndefault deny\n", resolver=[dns.address])
    with g.session("Echo.Test.", echo.port, source="127.0.0.9") as c:
        assert c.code == socks.OK
        opened = g.row(event="open")  # there when the client has its reply, or before
        c.echo(b"x" * 1000)
        c.socket.shutdown(socket.SHUT_WR)
        c.receive_all()
        port = c.socket.getsockname()[1]
    ended, connected = g.row(event="ended"), g.connected()[0]
    for row in (opened, connected, ended):
        assert row["session"] == opened["session"]
        assert (row["user"], row["client"], row["client_port"], row["listener"]) == ("ann", "127.0.0.9", port, "main")
        assert (row["name"], row["port"], row["command"], row["method"]) == ("echo.test", echo.port, "connect", "password")
        assert (row["rule"], row["revision"]) == ("web", opened["revision"])
    assert opened["revision"] >= 1
    assert opened["verdict"] == "allow"
    assert opened["detail"]["candidates"] == [{"address": "127.0.0.1", "rule": "web"}]
    assert connected["address"] == ended["address"] == "127.0.0.1"
    assert (ended["bytes_up"], ended["bytes_down"]) == (1000, 1000)
    assert ended["duration_us"] > 0
    assert ended["reason"]
    assert opened["id"] < connected["id"] <= ended["id"]


def test_the_row_is_durable_before_the_reply(gateway, echo):
    """Asked from outside of the gateway's processes, right after the reply: the grant is in the store."""
    g = gateway()
    for n in range(1, 11):
        with g.session("127.0.0.1", echo.port) as c:
            assert c.code == socks.OK
            assert len(g.rows(event="open")) == n


def test_denial(gateway):
    g = gateway("rule no-smtp deny port 25\ndefault deny\n")
    with g.session("mail.example", 25) as c:
        assert c.code == socks.NOT_ALLOWED
    row = g.row(event="denied")
    assert (row["name"], row["port"], row["rule"], row["user"], row["verdict"]) == ("mail.example", 25, "no-smtp", "ann", "deny")
    assert "address" not in row or not row["address"]


def test_failed_connection_has_its_rows(gateway, server):
    port = server(servers.Refusing).port
    g = gateway()
    with g.session("127.0.0.1", port) as c:
        assert c.code == socks.REFUSED
    opened = g.row(event="open")
    last = g.wait_rows(2, session=opened["session"])[-1]
    assert last["event"] in ("ended", "denied") and "refused" in last["reason"]


def test_start_and_stop_are_recorded(gateway):
    g = gateway()
    assert g.row(event="start")
    g.restart()
    assert len(g.wait_rows(2, event="start")) == 2
    assert len(g.rows(event="stop")) == 1


def test_sessions_that_a_stop_ends_are_recorded(gateway, echo):
    g = gateway()
    clients = [g.session("127.0.0.1", echo.port) for _ in range(20)]
    for c in clients:
        c.echo(b"x")
    g.restart()
    ended = g.wait_rows(20, event="ended")
    assert {r["session"] for r in ended} == {r["session"] for r in g.rows("--limit", "1000", event="open")}
    for c in clients:
        c.close()


def test_filters(gateway, echo):
    g = gateway(listener_methods=["password", "none"])
    g.session("127.0.0.1", echo.port).close()
    g.session("127.0.0.1", echo.port, user="bob", password="bob-pass", source="127.0.0.9").close()
    g.session("198.51.100.7", 80).close()
    g.wait_rows(2, event="ended")
    g.wait_rows(1, event="denied")

    def query(*arguments):
        return [r for r in g.rows(*arguments) if "session" in r and r["session"]]

    assert {r["user"] for r in query("--user", "bob")} == {"bob"}
    assert {r["client"] for r in query("--client", "127.0.0.9")} == {"127.0.0.9"}
    assert {r["address"] for r in query("--to", "198.51.100.0/24")} == {"198.51.100.7"}
    assert {r["verdict"] for r in query("--verdict", "deny")} == {"deny"}
    assert len(g.ctl("audit", "query", "--format", "json", "--limit", "2").out.splitlines()) == 2
    assert query("--since", "2000-01-01", "--until", "2001-01-01") == []
    assert query("--since", "2000-01-01", "--until", "2100-01-01")


def test_csv_and_table(gateway, echo):
    g = gateway()
    g.session("127.0.0.1", echo.port).close()
    g.wait_rows(1, event="ended")
    rows = list(csv.DictReader(io.StringIO(g.ctl("audit", "query", "--format", "csv").out)))
    assert {"ann"} == {r["user"] for r in rows if r["event"] == "open"}
    table = g.ctl("audit", "query").out
    assert "ann" in table and "loopback" in table


def test_csv_cells_are_no_formulas(gateway):
    users = ["=1+1", "+1", "-1", "@x"]
    g = gateway()
    for user in users:
        with g.client() as c:
            c.greet(socks.PASSWORD)
            c.login(user, "x")
    g.wait_rows(4, event="login-failed")
    cells = [r["user"] for r in csv.DictReader(io.StringIO(g.ctl("audit", "query", "--format", "csv").out)) if r["event"] == "login-failed"]
    assert len(cells) == 4
    assert not any(cell[0] in "=+-@" for cell in cells)


def test_many_rows_come_back_whole(gateway, echo):
    g = gateway()
    for _ in range(150):
        g.session("127.0.0.1", echo.port).close()
    opened = g.wait_rows(150, event="open")
    ended = g.wait_rows(150, event="ended")
    assert {r["session"] for r in opened} == {r["session"] for r in ended}
    assert len({r["id"] for r in opened}) == 150


def test_floods_are_folded_and_counted_exactly(gateway):
    """300 denials of one client: few rows, and none is missing from their counts."""
    g = gateway("rule no deny port 25\ndefault deny\n", audit_fold_after=5)
    for _ in range(300):
        with g.session("203.0.113.7", 25) as c:
            assert c.code == socks.NOT_ALLOWED

    def counted():
        rows = g.rows("--limit", "0", event="denied")
        return rows, sum(r.get("detail", {}).get("folded", 1) if isinstance(r.get("detail"), dict) else 1 for r in rows)

    g.restart()
    rows, total = counted()
    assert total == 300
    assert len(rows) < 200
    row = [r for r in rows if "folded" in (r.get("detail") or {})][0]
    assert (row["client"], row["address"], row["port"], row["rule"]) == ("127.0.0.1", "203.0.113.7", 25, "no")
    assert "session" not in row and row["detail"]["first"] <= row["detail"]["last"] == row["time"]


def test_more_filters(gateway, echo):
    g = gateway("rule no-smtp deny port 25\nrule staff allow group staff to cidr 127.0.0.0/8\ndefault deny\n")
    g.session("127.0.0.1", echo.port).close()
    g.session("mail.example", 25).close()
    g.wait_rows(1, event="ended")
    g.wait_rows(1, event="denied")
    assert [r["event"] for r in g.rows("--rule", "no-smtp")] == ["denied"]
    assert [r["event"] for r in g.rows("--port", "25")] == ["denied"]
    assert [r["event"] for r in g.rows("--text", "mail.exam")] == ["denied"]
    assert {r["event"] for r in g.rows("--group", "staff")} >= {"open"}
    assert g.rows("--group", "nobody") == [] and g.rows("--text", "no such text") == []
    assert {r["event"] for r in g.rows("--event", "denied,ended")} == {"denied", "ended"}
    one = g.rows("--rule", "no-smtp")[0]
    assert g.rows("--id", str(one["id"])) == [one] and g.rows("--id", str(10**9)) == [] and g.rows("--id", "1")[0]["id"] == 1
    # Columns, and the zone that times are shown in.
    row = json.loads(g.ctl("audit", "query", "--id", str(one["id"]), "--columns", "port,rule,groups", "--format", "json").out)
    assert row == {"port": 25, "rule": "no-smtp", "groups": ["staff"]}
    cells = list(csv.reader(io.StringIO(g.ctl("audit", "query", "--id", str(one["id"]), "--columns", "rule,port", "--format", "csv").out)))
    assert cells == [["rule", "port"], ["no-smtp", "25"]]
    there = datetime.datetime.fromisoformat(one["time"][:19]) + datetime.timedelta(hours=9)
    table = g.ctl("audit", "query", "--id", str(one["id"]), "--columns", "time,rule", "--zone", "Asia/Tokyo").out.splitlines()
    assert table[0].split() == ["TIME", "RULE"] and table[1].split() == [*str(there).split(), "no-smtp"]
    assert g.rows("--id", str(one["id"]), "--since", f"{there}+09:00") == [one]
    assert g.rows("--id", str(one["id"]), "--until", f"{there}", "--zone", "Asia/Tokyo") == []
    revision = g.revision()
    assert {r["revision"] for r in g.rows("--revision", str(revision))} == {revision}
    assert g.rows("--revision", str(revision + 1)) == []
    for wrong in (["--port", "0"], ["--port", "65536"], ["--port", "x"], ["--revision", "0"], ["--rule", ""], ["-f"],
                  ["--id", "0"], ["--columns", "rule,x"], ["--columns", ""], ["--zone", "../etc"], ["--zone", "Mars"], ["--event", "open,"],
                  ["--country", "DEU"], ["-o", "x"], ["--nope"]):
        assert g.ctl("audit", "query", *wrong, check=False).returncode == 2


def test_tail_follows(gateway, echo):
    g = gateway()
    for n in range(15):
        g.session("127.0.0.1", echo.port).close()
    g.wait_rows(15, event="ended")
    last = g.rows(event="open")[-10:]
    shown = [json.loads(line) for line in g.ctl("audit", "tail", "--event", "open", "--format", "json").out.splitlines()]
    assert [r["id"] for r in shown] == [r["id"] for r in last]
    lines = g.ctl("audit", "tail", "--limit", "3").out.splitlines()
    assert len(lines) == 3 and all("  " in line for line in lines)
    command = [os.path.join(BUILD, "admin", "gatewayctl"), "--socket", g.socket, "audit", "tail", "-f", "--event", "denied", "--format", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tail:
        try:
            for n in range(1, 4):
                g.session("198.51.100.7", n).close()
                assert json.loads(tail.stdout.readline())["port"] == n
        finally:
            tail.terminate()
    # The same without a gateway.
    g.stop()
    offline = g.ctl("audit", "tail", "--event", "denied", "--format", "json", "--dir", os.path.join(g.state, "audit")).out.splitlines()
    assert [json.loads(line)["port"] for line in offline] == [1, 2, 3]
    assert g.ctl("audit", "tail", "--dir", "/", check=False).returncode == 1


def test_stats(gateway, echo):
    g = gateway("rule no-smtp deny port 25\nrule all allow to cidr 127.0.0.0/8\ndefault deny\n", audit_fold_after=2)
    for user, n in (("ann", 3), ("bob", 1)):
        for _ in range(n):
            with g.session("127.0.0.1", echo.port, user=user, password=f"{user}-pass") as c:
                c.echo(b"x" * 100)
    for _ in range(30):
        g.session("mail.example", 25).close()
    g.restart()  # all is recorded, what was folded, too

    def stats(by, *arguments):
        out = g.ctl("audit", "stats", "--by", by, "--format", "json", *arguments).out
        return [json.loads(line) for line in out.splitlines()]

    rows = stats("user")
    assert [(r["key"], r["sessions"], r["denied"], r["bytes_up"], r["bytes_down"]) for r in rows] == [
        ("ann", 3, 30, 300, 300), ("bob", 1, 0, 100, 100)]
    assert {r["key"]: r["denied"] for r in stats("rule")} == {"all": 0, "no-smtp": 30}
    assert [r["key"] for r in stats("dest", "--verdict", "deny")] == ["mail.example"]
    assert sum(r["sessions"] for r in stats("hour")) == sum(r["sessions"] for r in stats("day")) == 4
    assert len(stats("user", "--limit", "1")) == 1
    table = g.ctl("audit", "stats", "--by", "user").out
    assert "SESSIONS" in table and "ann" in table
    csv_rows = list(csv.DictReader(io.StringIO(g.ctl("audit", "stats", "--by", "port", "--format", "csv").out)))
    assert {r["key"] for r in csv_rows} == {"25", str(echo.port)}
    assert stats("group")[0]["key"] == "staff" and stats("reason", "--verdict", "deny")[0]["denied"] == 30
    assert stats("user", "--dir", os.path.join(g.state, "audit")) == rows
    for wrong in (["--by", "colour"], []):
        assert g.ctl("audit", "stats", *wrong, check=False).returncode == 2
