"""audit sql: SELECTs over all segments as one table, and nothing else."""

import csv
import io
import json
import os
import sqlite3
import subprocess
import time

import pytest

from harness import audits, socks, wait
from harness.gateway import BUILD


def select(g, sql, *arguments, check=True):
    done = g.ctl("audit", "sql", "--format", "json", sql, *arguments, check=check)
    return [json.loads(line) for line in done.out.splitlines()] if check else done


def test_it_is_what_query_tells(gateway, echo):
    g = gateway("rule no-smtp deny port 25\nrule loopback allow to cidr 127.0.0.0/8\ndefault deny\n")
    for user in ("ann", "bob"):
        with g.session("127.0.0.1", echo.port, user=user, password=f"{user}-pass") as c:
            c.echo(b"x" * 100)
    with g.session("mail.example", 25) as c:
        assert c.code == socks.NOT_ALLOWED
    g.wait_rows(2, event="ended")
    g.wait_rows(1, event="denied")
    rows = g.rows()
    columns = "id, time, event, verdict, session, client, client_port, listener, user, method, command, name, address, port, rule, revision, reason"
    said = select(g, f"SELECT {columns} FROM event WHERE event <> 'look' ORDER BY time, id")
    assert [{k: v for k, v in r.items() if v is not None} for r in said] == [
        {k: v for k, v in r.items() if k in columns.split(", ")} for r in rows]
    assert select(g, "SELECT user, sum(bytes_up) AS up FROM event WHERE event = 'ended' GROUP BY user ORDER BY user") == [
        {"user": "ann", "up": 100}, {"user": "bob", "up": 100}]
    assert select(g, "SELECT count(*) AS n FROM event WHERE detail ->> '$.groups[0]' = 'staff'")[0]["n"] == sum(
        "staff" in (r.get("detail") or {}).get("groups", []) for r in rows)
    # What is looked up by an index, or by time, is what a scan finds.
    one = rows[-2]
    for condition in (f"id = {one['id']}", f"session = '{one['session']}' AND event = '{one['event']}'",
                      f"time >= '{one['time']}' AND time <= '{one['time']}'", f"user = '{one['user']}' AND +id = {one['id']}",
                      f"time_us = (SELECT time_us FROM event WHERE id = {one['id']})"):
        assert one["id"] in [r["id"] for r in select(g, f"SELECT id FROM event WHERE {condition}")], condition
    for order in ("time DESC", "time_us", "time_us DESC, id DESC", "id DESC", "time, id DESC"):
        ids = [r["id"] for r in select(g, f"SELECT id FROM event WHERE event <> 'look' ORDER BY {order}")]
        assert sorted(ids) == [r["id"] for r in rows] and (ids[0] > ids[-1]) == order.startswith(("time DESC", "time_us DESC", "id DESC")), order
    table = g.ctl("audit", "sql", "SELECT user, count(*) FROM event GROUP BY user").out
    assert "count(*)" in table.splitlines()[0] and "ann" in table
    done = g.ctl("audit", "sql", "--limit", "2", "SELECT id FROM event")
    assert len(done.out.splitlines()) == 3 and "there are more" in done.err
    assert select(g, "SELECT user, user FROM event WHERE user = 'ann' LIMIT 1") == [{"user": "ann", "user_2": "ann"}]


def test_what_is_equal_to_another_collation(gateway, echo):
    """What the query looks for by itself are bytes; a condition that says otherwise is SQLite's to judge."""
    g = gateway()
    g.session("127.0.0.1", echo.port, user="ann").close()
    g.wait_rows(1, event="ended")
    rows = len(g.rows(user="ann"))
    for condition in ("user = 'ANN' COLLATE NOCASE", "'ANN' COLLATE NOCASE = user", "user LIKE 'ANN'"):
        assert select(g, f"SELECT count(*) AS n FROM event WHERE {condition}") == [{"n": rows}], condition
    assert g.ctl("audit", "sql", "--format", "csv", "SELECT 12345678.9 AS r").out.split() == ['"r"', "12345678.9"]


def test_a_time_before_the_epoch(gateway, echo):
    g = gateway()
    g.session("127.0.0.1", echo.port).close()
    g.wait_rows(1, event="ended")
    g.stop()
    path = os.path.join(g.state, "audit", "audit-00000001.db")
    with sqlite3.connect(path) as db:
        db.execute("UPDATE event SET time = -86400000000 * 6")
    db.close()
    out = g.ctl("audit", "stats", "--by", "weekday", "--json", "--dir", os.path.join(g.state, "audit")).out
    assert [json.loads(line)["key"] for line in out.splitlines()] == ["-"]


WRITES = [
    "DELETE FROM event", "UPDATE event SET user = 'x'", "INSERT INTO event (id) VALUES (1)", "CREATE TABLE x (a)", "DROP TABLE event",
    "CREATE TEMP TABLE x AS SELECT * FROM event", "ATTACH 'audit-00000001.db' AS a", "PRAGMA query_only = OFF", "PRAGMA user_version",
    "VACUUM INTO '/tmp/x'", "SELECT * FROM sqlite_schema", "SELECT * FROM pragma_database_list", "SELECT load_extension('x')",
    "SELECT 1; SELECT 2", "SELECT 1; DELETE FROM event", "", ";", "/* nothing */", "SELECT", "SELECT * FROM chain", "BEGIN", "REINDEX",
    "WITH x AS (SELECT 1) DELETE FROM event", "SELECT readfile('/etc/passwd')", "SELECT \"no such column\" FROM event", "EXPLAIN DELETE FROM event",
]


def test_nothing_else_than_a_select(gateway):
    g = gateway()
    audit = os.path.join(g.state, "audit")
    g.wait_rows(1, event="policy")
    before = g.rows()
    for sql in WRITES:
        done = select(g, sql, check=False)
        assert done.returncode == 1 and "SQL: " in done.err and done.out == "", (sql, done.out, done.err)
        done = select(g, sql, "--dir", audit, check=False)
        assert done.returncode == 1, sql
    assert g.rows() == before
    assert "the one table is event" in select(g, "SELECT * FROM audit", check=False).err
    for wrong in ([], ["SELECT 1", "SELECT 2"], ["--format", "xml", "SELECT 1"], ["--limit", "-1", "SELECT 1"], ["--seconds", "x", "SELECT 1"], ["--colour", "SELECT 1"]):
        assert g.ctl("audit", "sql", *wrong, check=False).returncode == 2
    assert g.ctl("audit", "sql", "--help").out.startswith("usage:")


def test_bounds(gateway):
    """Memory, and whoever has left: a statement that would go on for ever ends."""
    g = gateway()
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT "
    done = select(g, "SELECT hex(zeroblob(900000))", check=False)
    assert done.returncode == 1 and "too big" in done.err
    done = select(g, endless + "i, randomblob(1000) AS b FROM n ORDER BY b", "--dir", os.path.join(g.state, "audit"), check=False)
    assert done.returncode == 1 and "more memory" in done.err
    for where in ([], ["--dir", os.path.join(g.state, "audit")]):
        done = select(g, endless + "count(*) FROM n", "--seconds", "1", *where, check=False)
        assert done.returncode == 1 and "took more than 1 s: ask for a shorter time" in done.err, done.err
    for seconds in ("0", "61"):
        assert "from 1 to 60 seconds" in select(g, "SELECT 1", "--seconds", seconds, check=False).err
    # One function call cannot take long: what it works on is bounded.
    long = "replace(hex(zeroblob(15000)), '00', 'aa')"
    assert select(g, f"SELECT instr({long} || {long}, {long} || 'b') AS n")[0]["n"] == 0
    done = select(g, f"SELECT trim({long}, {long} || 'b')", check=False)
    assert done.returncode == 1 and "one argument" in done.err
    assert select(g, "SELECT trim('  a ') AS a, 12345678.25 AS r") == [{"a": "a", "r": 12345678.25}]
    # Its caller leaves: the reader notices while it looks for the next row, and ends.
    ctl = subprocess.Popen([os.path.join(BUILD, "admin", "gatewayctl"), "--socket", g.socket, "audit", "sql", endless + "count(*) FROM n"])

    def readers():
        return [p for p in g.status()["processes"] if p["role"] == "reader"]

    wait.until(readers, "a reader")
    ctl.kill()
    ctl.wait()
    wait.until(lambda: not readers(), "the reader has ended", 30)


def test_many_segments(gateway):
    """More of them than SQLite attaches."""
    g = gateway(start=False, clock=True)
    g.set_time("2026-01-01 12:00:00")
    g.start()
    g.stop()
    audit = os.path.join(g.state, "audit")
    first = os.path.join(audit, "audit-00000001.db")
    with sqlite3.connect(first) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("PRAGMA journal_mode=DELETE")
    db.close()
    with open(first, "rb") as f:
        data = f.read()
    count = 16
    for n in range(2, count + 1):
        with open(os.path.join(audit, f"audit-{n:08}.db"), "wb") as f:
            f.write(data)
    start = int(time.mktime((2026, 1, 1, 12, 0, 0, 0, 0, 0))) * 10**6
    for n in range(1, count + 1):
        with sqlite3.connect(os.path.join(audit, f"audit-{n:08}.db")) as db:
            db.execute("PRAGMA synchronous=OFF")
            db.execute("DELETE FROM event")
            db.executemany("INSERT INTO event (id, time, kind, user, name, port) VALUES (?, ?, 2, ?, 'x.example', 80)",
                           [(100 * n + i, start + n * 86400 * 10**6 + i, f"user{i}") for i in range(10)])
        db.close()
    where = ("--dir", audit)
    assert select(g, "SELECT count(*) AS n, count(DISTINCT user) AS u FROM event", *where) == [{"n": 10 * count, "u": 10}]
    ids = [r["id"] for r in select(g, "SELECT id FROM event WHERE user = 'user3' ORDER BY time DESC LIMIT 3", *where)]
    assert ids == [100 * count + 3, 100 * (count - 1) + 3, 100 * (count - 2) + 3]
    assert select(g, "SELECT count(*) AS n FROM event a, event b WHERE a.id = b.id", *where) == [{"n": 10 * count}]


def test_what_it_shows_harms_nobody(gateway):
    g = gateway()
    g.stop()
    audit = os.path.join(g.state, "audit")
    rows = audits.Rows(audit)
    for text in audits.HOSTILE:
        rows.add("denied", 10**15, user=text, name=text)
    rows.close()
    for form in ("table", "csv", "json"):
        out = g.ctl("audit", "sql", "--dir", audit, "--format", form, "SELECT user, name AS \"=1\x1b[31m\" FROM event WHERE event = 'denied'").out
        assert not [c for c in out if c not in "\r\n" and not " " <= c <= "~"]
        if form == "csv":
            cells = [c for row in csv.reader(io.StringIO(out)) for c in row]
            assert len(cells) == 2 * len(audits.HOSTILE) + 2 and not [c for c in cells if c[:1] in tuple("=+-@")]
    assert pytest.approx(1.5) == select(g, "SELECT 1.5 AS n, 9e999 AS inf", "--dir", audit)[0]["n"]
