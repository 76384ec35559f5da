"""The audit's chain, as people meet it: the first key, segments, anchors, and verify."""

import json
import os
import shutil
import sqlite3
import subprocess

from harness import wait

SUMMARY = "The audit is what was recorded."


def take_key(g):
    """What the auditor does once."""
    key = g.path("auditor.key")
    shutil.move(os.path.join(g.state, "audit", "first.key"), key)
    return key


def verify(g, key, *arguments, directory=None):
    done = g.ctl("audit", "verify", "--key", key, "--dir", directory or os.path.join(g.state, "audit"), *arguments, check=False)
    return done.returncode, done.out + done.err


def test_verify_while_it_runs_and_afterwards(gateway, echo):
    g = gateway()
    assert g.status()["audit"]["chain"]["first_key_waits"]
    assert "first.key" in g.ctl("status").out
    assert os.stat(os.path.join(g.state, "audit", "first.key")).st_mode & 0o777 == 0o600
    key = take_key(g)
    assert not g.status()["audit"]["chain"]["first_key_waits"]
    assert "first.key" not in g.ctl("status").out
    for _ in range(20):
        g.session("127.0.0.1", echo.port).close()
        code, said = verify(g, key)
        assert code == 0 and SUMMARY in said, said
    g.wait_rows(20, event="ended")
    g.restart()
    g.stop()
    code, said = verify(g, key)
    assert code == 0 and SUMMARY in said, said
    assert not os.path.exists(os.path.join(g.state, "audit", "first.key"))


def test_an_edit_with_the_shell_is_found(gateway, echo):
    g = gateway()
    key = take_key(g)
    g.session("127.0.0.1", echo.port).close()
    g.wait_rows(1, event="ended")
    g.stop()
    segment = os.path.join(g.state, "audit", "audit-00000001.db")
    subprocess.run(["sqlite3", segment, "UPDATE event SET user = 'bob' WHERE user = 'ann' AND kind = 0"], check=True)
    code, said = verify(g, key)
    assert code == 1
    first = said.splitlines()[0]
    assert "segment 1" in first and "was changed" in first and ", open)" in first, said
    lines = [json.loads(line) for line in verify(g, key, "--json")[1].splitlines()]
    assert lines[-1]["sound"] is False and lines[-1]["findings"] == 1 and "finding" in lines[0]


def test_another_audits_key_and_no_key(gateway):
    one, two = gateway(), gateway()
    key = take_key(two)
    code, said = verify(one, key)
    assert code == 1 and "another audit" in said
    assert one.ctl("audit", "verify", check=False).returncode == 2
    code, said = verify(one, one.conf)
    assert code == 1 and "no key" in said


def test_segments_of_a_running_gateway(gateway, echo):
    """A day ends, twice: queries see one table, what is open goes on, and the key of before verifies all."""
    g = gateway(clock=True, start=False)
    g.set_time("2026-11-20 23:00:00")
    g.start()
    key = take_key(g)
    with g.session("127.0.0.1", echo.port) as c:
        g.wait_rows(1, event="connected")
        for day in (21, 22):
            g.nobody_reads()
            g.set_time(f"2026-11-{day} 00:30:00")
            c.echo(b"x" * day)
            g.session("127.0.0.1", echo.port).close()
            g.wait_segment(day - 19)
    g.wait_rows(3, event="ended")
    assert g.status()["audit"]["segments"] == 3
    opened = g.rows(event="open")
    assert [r["time"][:10] for r in opened] == ["2026-11-20", "2026-11-21", "2026-11-22"]
    rows = g.rows("--session", opened[0]["session"])
    assert [r["event"] for r in rows] == ["open", "connected", "checkpoint", "checkpoint", "ended"]

    def agree():
        """Once it is recorded that somebody looks."""
        ids = [json.loads(line)["id"] for line in g.ctl("audit", "query", "--format", "json").out.splitlines()]
        return len(set(ids)) == len(ids) == g.status()["audit"]["rows"]

    wait.until(agree, "every row is told once")
    assert len(g.rows("--since", "2026-11-21T00:00:00Z", "--until", "2026-11-21T23:00:00Z", event="open")) == 1
    code, said = verify(g, key)
    assert code == 0 and "3 segments" in said, said
    for name in ("audit-00000001.db", "audit-00000002.db"):
        assert os.stat(os.path.join(g.state, "audit", name)).st_mode & 0o777 == 0o600
        assert not os.path.exists(os.path.join(g.state, "audit", name + "-wal"))
    # A clock that is set back changes no segment.
    g.set_time("2026-11-19 12:00:00")
    g.session("127.0.0.1", echo.port).close()
    assert g.status()["audit"]["segments"] == 3
    assert verify(g, key)[0] == 0


def test_anchors(gateway, echo):
    anchors = None
    g = gateway(start=False, audit_anchor_interval=1)
    anchors = g.path("anchors")
    open(anchors, "w", encoding="utf-8").close()
    os.chmod(anchors, 0o666)
    os.chmod(g.dir, 0o755)
    g.configure(audit_anchor_file=anchors)
    g.start()
    key = take_key(g)
    audit, backup = os.path.join(g.state, "audit"), g.path("backup")
    g.stop()
    shutil.copytree(audit, backup)
    g.start()
    g.session("127.0.0.1", echo.port).close()
    g.wait_rows(1, event="ended")

    def anchored():
        with open(anchors, encoding="utf-8") as f:
            return f.read().count("\n")

    seen = anchored()
    wait.until(lambda: anchored() >= seen + 2, "anchors")
    g.stop()
    code, said = verify(g, key, "--anchor", anchors, "--anchor", g.path("log"))
    assert code == 0 and f"{2 * anchored()} of {2 * anchored()} anchors fit" in said, said
    # All of it put back, key and head included: only the anchor knows.
    assert verify(g, key, directory=backup)[0] == 0
    code, said = verify(g, key, "--anchor", anchors, directory=backup)
    assert code == 1 and "anchor" in said.splitlines()[0]


def test_a_backup_that_is_put_back_is_recorded(gateway, echo):
    g = gateway()
    key = take_key(g)
    audit, backup = os.path.join(g.state, "audit"), g.path("backup")
    g.stop()
    shutil.copytree(audit, backup)
    g.start()
    g.session("127.0.0.1", echo.port).close()
    g.wait_rows(1, event="ended")
    g.stop()
    # The database alone, as a restore would do it; then the gateway goes on.
    shutil.copy(os.path.join(backup, "audit-00000001.db"), audit)
    for suffix in ("-wal", "-shm"):
        if os.path.exists(os.path.join(audit, "audit-00000001.db" + suffix)):
            os.unlink(os.path.join(audit, "audit-00000001.db" + suffix))
    assert verify(g, key)[0] == 1
    g.start()
    assert "put back" in g.row(event="admin")["reason"]
    g.restart()
    assert len(g.rows(event="admin")) == 1


def test_the_single_file_of_before(gateway, echo):
    """A store of the first version is taken over with its rows."""
    g = gateway()
    g.stop()
    audit = os.path.join(g.state, "audit")
    owner = os.stat(os.path.join(audit, "audit-00000001.db"))
    with sqlite3.connect(os.path.join(audit, "audit-00000001.db")) as db:
        rows = db.execute("SELECT count(*) FROM event").fetchone()[0]
        db.execute("DROP TABLE chain")
        db.execute("DROP TABLE open_session")
        db.execute("PRAGMA user_version=1")
    db.close()
    for name in os.listdir(audit):
        if name != "audit-00000001.db":
            os.unlink(os.path.join(audit, name))
    os.rename(os.path.join(audit, "audit-00000001.db"), os.path.join(audit, "audit.db"))
    os.chown(os.path.join(audit, "audit.db"), owner.st_uid, owner.st_gid)
    g.start()
    g.session("127.0.0.1", echo.port).close()
    g.wait_rows(1, event="ended")
    assert len(g.rows()) >= rows + 3
    assert verify(g, take_key(g))[0] == 0


def test_a_large_segment_is_finished_aside(gateway, echo):
    """Its indexes are a child's work, within the recorder's own walls; the recorder goes on meanwhile."""
    g = gateway(clock=True, start=False)
    g.set_time("2026-11-20 23:00:00")
    g.start()
    key = take_key(g)
    g.session("127.0.0.1", echo.port).close()
    g.wait_rows(1, event="ended")
    g.stop()
    segment = os.path.join(g.state, "audit", "audit-00000001.db")
    db = sqlite3.connect(segment)
    db.execute("CREATE TABLE ballast (bytes BLOB)")
    db.executemany("INSERT INTO ballast VALUES (zeroblob(100000))", [()] * 60)
    db.commit()
    db.close()
    owner = os.stat(os.path.join(g.state, "audit"))
    for name in os.listdir(os.path.join(g.state, "audit")):
        os.chown(os.path.join(g.state, "audit", name), owner.st_uid, owner.st_gid)
    g.start()
    recorder = g.pids("recorder")
    g.nobody_reads()
    g.set_time("2026-11-21 00:30:00")
    g.session("127.0.0.1", echo.port).close()

    def plain():
        with open(segment, "rb") as f:
            return f.read(20)[18] == 1 and not os.path.exists(segment + "-wal")

    wait.until(plain, "a plain file", 90)
    with sqlite3.connect(f"file:{segment}?mode=ro", uri=True) as db:
        assert db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'event_user'").fetchone() == (1,)
    assert g.pids("recorder") == recorder
    wait.until(lambda: len(g.rows("--user", "ann", event="ended")) == 2, "both sessions' ends")
    assert verify(g, key)[0] == 0


def test_a_lost_key_and_a_new_chain(gateway, echo):
    g = gateway()
    old = take_key(g)
    g.session("127.0.0.1", echo.port).close()
    g.wait_rows(1, event="ended")
    g.stop()
    audit = os.path.join(g.state, "audit")
    os.unlink(os.path.join(audit, "chain.key"))
    # It does not start, and says why, and what to do.
    code, said = g.run("-c", g.conf)
    assert code != 0 and any("chain.key" in line and "begin-new-chain" in line for line in said), said
    with open(os.path.join(audit, "begin-new-chain"), "w", encoding="ascii"):
        pass
    g.start()
    assert g.status()["audit"]["chain"]["first_key_waits"]
    assert not os.path.exists(os.path.join(audit, "begin-new-chain"))
    g.session("127.0.0.1", echo.port).close()
    g.wait_rows(2, event="ended")
    (row,) = [r for r in g.rows(event="admin") if "a new chain begins" in r["reason"]]
    assert row["user"] == f"uid {os.getuid()}"
    done = g.ctl("audit", "verify", "--key", old, "--key", os.path.join(audit, "first.key"), "--dir", audit, check=False)
    lines = done.out.splitlines()
    assert done.returncode == 1 and "segment 2: a new chain begins here" in lines[0] and f"row {row['id']} tells of it" in lines[0], done.out
    assert "1 findings" in lines[-1], done.out
