"""Retention: gatewayctl audit prune, and the holds that keep rows from it."""

import concurrent.futures
import json
import os
import shutil

from harness import socks, wait

SUMMARY = "The audit is what was recorded."


def take_key(g):
    key = g.path("auditor.key")
    shutil.move(os.path.join(g.state, "audit", "first.key"), key)
    return key


def verify(g, key):
    done = g.ctl("audit", "verify", "--key", key, "--dir", os.path.join(g.state, "audit"), "--json", check=False)
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert done.returncode == 0 and lines[-1]["sound"], done.out + done.err
    return lines[-1]


def plain(g):
    """Segments that are written no more have given up their logs: all of them would be looked at."""
    wait.until(lambda: json.loads(g.ctl("audit", "prune", "--keep", "1d", "--dry-run", "--json").out)["skipped"] == 0, "plain files",
               90)  # a reader that had one open puts that off by a minute


def days(g, echo, first, last):
    """A session by ann and one by bob, and a refusal, on each day of November; each day has its segment."""
    for day in range(first, last + 1):
        g.nobody_reads()
        g.set_time(f"2026-11-{day:02} 12:00:00")
        for user in ("ann", "bob"):
            g.session("127.0.0.1", echo.port, user=user, password=f"{user}-pass").close()
        g.wait_segment(day - first + 1)
        g.wait_rows(2 * (day - first + 1), event="ended")


def test_prune_and_holds(gateway, echo):
    g = gateway(clock=True, start=False)
    g.set_time("2026-11-01 10:00:00")
    g.start()
    key = take_key(g)
    days(g, echo, 1, 6)
    plain(g)
    g.set_time("2026-11-06 18:00:00")
    everything = g.rows()
    kept = [r["id"] for r in everything if r.get("user") == "ann" and r["time"] < "2026-11-03"]
    assert len(kept) >= 4

    # A hold keeps what it matches; it is listed, recorded, and known by its name.
    assert g.ctl("audit", "hold", "list").out == "no hold stands\n"
    assert "placed" in g.ctl("audit", "hold", "place", "case-7", "--user", "ann", "--until", "2026-11-02").out
    assert "case-7" in g.ctl("audit", "hold", "list").out
    (hold,) = json.loads(g.ctl("audit", "hold", "list", "--json").out)
    assert hold["name"] == "case-7" and hold["filter"]["user"] == "ann" and hold["by"] == f"uid {os.getuid()}"
    assert "another filter" in g.ctl("audit", "hold", "place", "case-7", "--user", "bob", check=False).err
    row = g.row(event="admin", reason="hold placed: case-7")
    assert row["user"] == f"uid {os.getuid()}" and row["detail"]["retention"] == "hold-placed"
    assert row["detail"]["filter"]["user"] == "ann" and row["detail"]["standing"] == ["case-7"]

    # What cannot be meant is refused, and nothing is pruned.
    for words, said in ((["--keep", "0d"], "at least a day"), (["--keep", "1h"], "at least a day"),
                        (["--keep", "3d", "--class", "all"], "a class is"), (["--keep", "3d", "--hold", "x"], "does not stand")):
        done = g.ctl("audit", "prune", *words, check=False)
        assert done.returncode == 1 and said in done.err, done
    assert g.ctl("audit", "prune", check=False).returncode == 2
    assert g.ctl("audit", "prune", "--keep", "2026-11-03", check=False).returncode == 2

    # To look only.
    dry = json.loads(g.ctl("audit", "prune", "--keep", "3d", "--dry-run", "--json").out)
    assert dry["before"].startswith("2026-11-03T18:00") and dry["segments"] == 0
    assert [r["id"] for r in g.rows() if r["event"] != "admin"] == [r["id"] for r in everything if r["event"] != "admin"]

    # In earnest: ann's rows of the first two days stay, all others of before then go.
    done = json.loads(g.ctl("audit", "prune", "--keep", "3d", "--hold", "case-7", "--json").out)
    assert done["rows"] == dry["rows"] > 0 and done["held"] == dry["held"] == len(kept)
    old = [r for r in g.rows() if r["time"] < done["before"]]
    assert [r["id"] for r in old] == kept
    assert len(g.rows(user="bob", event="ended")) == 3
    begun, end = g.row(reason=f"prune begun: rows of all classes, before {done['before']}"), g.rows(event="admin")
    assert begun["user"] == f"uid {os.getuid()}" and begun["detail"]["standing"] == ["case-7"]
    (end,) = [r for r in end if r.get("detail", {}).get("retention") == "prune-done"]
    assert end["user"] == f"uid {os.getuid()}" and end["detail"]["rows"] == done["rows"] and end["detail"]["held"] == len(kept)
    assert verify(g, key)["pruned"] == done["rows"]

    # A class alone; then, without the hold, whole segments.
    assert json.loads(g.ctl("audit", "prune", "--keep", "1d", "--class", "denials", "--json").out)["rows"] == 0
    assert "released" in g.ctl("audit", "hold", "release", "case-7").out
    assert g.row(reason="hold released: case-7")["detail"]["standing"] == []
    again = json.loads(g.ctl("audit", "prune", "--keep", "3d", "--json").out)
    # The third day's has no row left, and goes once the one behind it has begun long enough ago, too.
    assert again["rows"] == len(kept) and again["held"] == 0 and again["segments"] == 2
    assert verify(g, key)["pruned_segments"] == 2
    assert g.status()["audit"]["segments"] == 4
    # It is all the same for who comes next.
    g.restart()
    g.session("127.0.0.1", echo.port).close()
    g.stop()
    assert verify(g, key)["pruned_segments"] == 2
    done = g.ctl("audit", "verify", "--key", key, "--dir", os.path.join(g.state, "audit"))
    assert SUMMARY in done.out and "rows are pruned, as the audit declares" in done.out
    # Each order that is told of, with who gave it; and a report says that its sums lack what was pruned.
    assert f"by uid {os.getuid()}: prune begun: rows of all classes" in done.out
    g.ctl("audit", "report", "--key", key, "--dir", os.path.join(g.state, "audit"), "-o", g.path("report.html"))
    with open(g.path("report.html"), encoding="utf-8") as f:
        assert "rows were pruned by order" in f.read()


def test_who_had_to_wait_and_a_hold_of_one_row(gateway, echo):
    g = gateway(clock=True, start=False, throttle_user_failures=1, throttle_first_wait=60000)
    g.set_time("2026-11-01 10:00:00")
    g.start()
    for guess in ("one", "two"):
        with g.client() as c:
            assert c.greet(socks.PASSWORD) == socks.PASSWORD
            assert c.login("ann", guess) != 0
    g.wait_rows(2, event="login-failed")
    g.wait_rows(1, event="throttle")
    g.ctl("auth", "unlock")
    g.wait_rows(2, event="throttle")
    days(g, echo, 1, 3)
    plain(g)
    g.set_time("2026-11-03 18:00:00")
    ended = g.rows(event="ended", user="ann")[0]
    for wrong in ("0", "x"):
        assert g.ctl("audit", "hold", "place", "one", "--id", wrong, check=False).returncode == 2
    g.ctl("audit", "hold", "place", "one", "--id", str(ended["id"]))
    assert [h["filter"] for h in json.loads(g.ctl("audit", "hold", "list", "--json").out)] == [{"id": ended["id"]}]
    done = json.loads(g.ctl("audit", "prune", "--keep", "1d", "--class", "logins", "--json").out)
    assert done["rows"] == 4 and done["held"] == 0
    assert g.rows(event="throttle") == g.rows(event="login-failed") == []
    done = json.loads(g.ctl("audit", "prune", "--keep", "1d", "--json").out)
    assert done["rows"] > 0 and done["held"] == 1
    assert [r["id"] for r in g.rows() if r["time"] < done["before"]] == [ended["id"]]


def test_a_recorder_that_is_killed_while_it_prunes(gateway, echo):
    g = gateway(clock=True, start=False)
    g.set_time("2026-11-01 10:00:00")
    g.start()
    key = take_key(g)
    days(g, echo, 1, 8)
    plain(g)
    g.set_time("2026-11-08 18:00:00")
    kept = [r["id"] for r in g.rows(user="bob") if r["time"] < "2026-11-03"]
    g.ctl("audit", "hold", "place", "case-1", "--user", "bob", "--until", "2026-11-02")
    for keep in ("6d", "5d", "4d", "3d"):
        (recorder,) = g.pids("recorder")
        with concurrent.futures.ThreadPoolExecutor() as pool:
            ordered = pool.submit(g.ctl, "audit", "prune", "--keep", keep, check=False)
            while not ordered.done() and not os.path.exists(os.path.join(g.state, "audit", "prune.new")):
                pass
            os.kill(recorder, 9)
            done = ordered.result()
            assert done.returncode == 0 or "recorder" in done.err, done.err
        wait.until(lambda old=recorder: g.pids("recorder") not in ([], [old]), "a recorder")
        g.session("127.0.0.1", echo.port).close()
        verify(g, key)
    done = json.loads(g.ctl("audit", "prune", "--keep", "3d", "--json").out)
    assert done["held"] == len(kept) >= 4
    assert [r["id"] for r in g.rows() if r["time"] < done["before"]] == kept
    verify(g, key)


def test_a_damaged_list_of_holds_prunes_nothing(gateway, echo):
    g = gateway(clock=True, start=False)
    g.set_time("2026-11-01 10:00:00")
    g.start()
    days(g, echo, 1, 3)
    plain(g)
    with open(os.path.join(g.state, "audit", "holds.json"), "w", encoding="utf-8") as f:
        f.write("{}")
    rows = len(g.rows())
    done = g.ctl("audit", "prune", "--keep", "1d", check=False)
    assert done.returncode == 1 and "holds.json" in done.err
    g.row(event="admin", user=f"uid {os.getuid()}", reason="refused: audit-retention: holds.json: it is damaged: nothing is pruned until it is as it was, "
          "or was moved away and the holds were placed again")
    assert len(g.rows()) == rows + 1


def write_holds(g, text):
    with open(os.path.join(g.state, "audit", "holds.json"), "w", encoding="utf-8") as f:
        f.write(text)


def findings(g, key):
    done = g.ctl("audit", "verify", "--key", key, "--dir", os.path.join(g.state, "audit"), check=False)
    assert done.returncode == 1, done.out + done.err
    return done.out


def test_holds_that_were_edited_prune_nothing_and_are_found(gateway, echo):
    """However the file is edited, removed or put back, and though the recorder starts again: only what it said itself counts."""
    g = gateway(clock=True, start=False)
    g.set_time("2026-11-01 10:00:00")
    g.start()
    key = take_key(g)
    g.ctl("audit", "hold", "place", "case-1", "--user", "bob")
    with open(os.path.join(g.state, "audit", "holds.json"), encoding="utf-8") as f:
        one = f.read()
    days(g, echo, 1, 4)
    plain(g)
    g.ctl("audit", "hold", "place", "case-2", "--user", "eve")
    g.ctl("audit", "hold", "release", "case-2")
    g.ctl("audit", "hold", "place", "case-3", "--user", "eve")
    verify(g, key)
    with open(os.path.join(g.state, "audit", "holds.json"), encoding="utf-8") as f:
        whole = f.read()
    rows = len(g.rows(user="bob"))
    for text in ('{"holds":[]}', '{"holds":[],"told":false}', '{"holds":[],"told":true}', one):
        write_holds(g, text)
        for again in (False, True):
            if again:
                g.restart()
            done = g.ctl("audit", "prune", "--keep", "1d", check=False)
            assert done.returncode == 1 and "not the holds that were recorded" in done.err, done.err
            assert g.ctl("audit", "hold", "place", "case-4", "--user", "ann", check=False).returncode == 1
            assert "holds.json does not say which holds were recorded" in findings(g, key)
    assert len(g.rows(user="bob")) == rows
    write_holds(g, whole)
    verify(g, key)
    g.ctl("audit", "prune", "--keep", "1d")
    assert len(g.rows(user="bob")) == rows
    verify(g, key)
    # A file that is gone is begun anew by who places a hold, and that it was is found.
    os.unlink(os.path.join(g.state, "audit", "holds.json"))
    assert g.ctl("audit", "prune", "--keep", "1d", check=False).returncode == 1
    g.ctl("audit", "hold", "place", "case-1", "--user", "bob")
    assert "holds were changed that were others than were recorded before" in findings(g, key)


def test_holds_whose_proof_is_gone_are_said_to_be(gateway, echo):
    g = gateway(clock=True, start=False)
    g.set_time("2026-11-01 10:00:00")
    g.start()
    key = take_key(g)
    g.ctl("audit", "hold", "place", "case-1", "--user", "bob")
    g.stop()
    write_holds(g, '{"holds":[]}')
    head = os.path.join(g.state, "audit", "chain.head")
    os.truncate(head, 1024)
    assert "chain.head does not prove which holds stand" in findings(g, key)
    g.start()
    assert [r for r in g.rows(event="admin") if r["reason"].startswith("holds are taken as they were found")]
    assert "the recorder began with holds that nothing proved" in findings(g, key)


def test_a_change_of_holds_that_was_cut_short(gateway, echo):
    """Before the chain's head knows of it, it is undone and that is recorded; after, it is done."""
    g = gateway(clock=True, start=False)
    g.set_time("2026-11-01 10:00:00")
    g.start()
    key = take_key(g)
    holds = os.path.join(g.state, "audit", "holds.json")
    g.ctl("audit", "hold", "place", "case-1", "--user", "bob")
    os.rename(holds, holds + ".new")
    g.restart()
    assert "case-1" in g.ctl("audit", "hold", "list").out
    verify(g, key)
    with open(holds + ".new", "w", encoding="utf-8") as f:
        f.write('{"holds":[]}')
    g.restart()
    assert g.row(event="admin", reason="a change of the holds was cut short: they are as they were before")
    assert "case-1" in g.ctl("audit", "hold", "list").out and not os.path.exists(holds + ".new")
    verify(g, key)
