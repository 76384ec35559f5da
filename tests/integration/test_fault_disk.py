"""A disk that is full, or read-only: nothing is granted, everybody who looks can see why, and service returns by itself."""

import contextlib
import json
import os
import shutil
import subprocess

import pytest

from harness import processes, socks, wait

pytestmark = [pytest.mark.root, pytest.mark.long]


@contextlib.contextmanager
def disk(g, megabytes):
    """The audit on a disk of its own; mounted where only this host's tests see it."""
    audit = os.path.join(g.state, "audit")
    os.makedirs(audit, exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "none", audit], check=False).returncode != 0:
        pytest.skip("no file system can be mounted here")
    shutil.chown(audit, "nobody")
    try:
        yield audit
    finally:
        g.stop()
        subprocess.run(["umount", audit], check=True)


def fill(audit):
    with contextlib.suppress(OSError), open(os.path.join(audit, "filler"), "wb", buffering=0) as f:
        while True:
            f.write(bytes(4096))


def refused(g, echo):
    with g.session("127.0.0.1", echo.port, timeout=20) as c:
        return c.code == socks.FAILURE


def granted(g, echo):
    with g.session("127.0.0.1", echo.port, timeout=20) as c:
        return c.code == socks.OK


def take_key(g, audit):
    key = g.path("auditor.key")
    shutil.move(os.path.join(audit, "first.key"), key)
    return key


def verify(g, audit, key):
    done = g.ctl("audit", "verify", "--key", key, "--dir", audit, check=False)
    assert done.returncode == 0, done.out


def test_full_disk_with_a_reserve(gateway, echo):
    g = gateway(start=False, workers=1, audit_reserve_megabytes=4, audit_fold_after=0)
    with disk(g, 24) as audit:
        g.start()
        key = take_key(g, audit)
        established = g.session("127.0.0.1", echo.port)
        established.echo(b"x" * 1000)
        fill(audit)
        # What is left of the log's room is used up, then the reserve is given up, and nothing more is granted.
        wait.until(lambda: refused(g, echo), "a refusal", 60)
        status = g.status()["audit"]
        assert status["state"] == "full" and "full" in status["error"]
        assert "full" in g.ctl("status").out
        grants = len(g.rows(event="open"))
        for _ in range(20):
            assert refused(g, echo)
        # Ends and refusals are recorded all the same.
        established.echo(b"y" * 1000)
        established.close()
        assert g.wait_rows(grants, event="ended")
        assert len(g.wait_rows(21, event="denied")) >= 21
        assert len(g.rows(event="open")) == grants
        assert "its disk is full" in g.rows(event="denied")[-1]["reason"]
        os.unlink(os.path.join(audit, "filler"))
        wait.until(lambda: granted(g, echo), "service", 60)
        assert g.status()["audit"]["state"] == "ok"
        opened = len(g.rows(event="open"))
        assert len({r["session"] for r in g.wait_rows(opened, event="ended")}) == opened
        verify(g, audit, key)


def test_pruning_on_a_full_disk(gateway, echo):
    """Whole segments go without any room for more than the declaration."""
    g = gateway(start=False, workers=1, clock=True, audit_reserve_megabytes=4, audit_fold_after=0)
    with disk(g, 24) as audit:
        g.set_time("2026-11-01 12:00:00")
        g.start()
        key = take_key(g, audit)
        for day in (1, 2, 3):
            g.set_time(f"2026-11-{day:02} 12:00:00")
            assert granted(g, echo)
            g.wait_segment(day)
        g.wait_rows(3, event="ended")
        wait.until(lambda: json.loads(g.ctl("audit", "prune", "--keep", "1d", "--dry-run", "--json").out)["skipped"] == 0, "plain files",
                   90)  # a reader that had one open puts that off by a minute
        fill(audit)
        wait.until(lambda: refused(g, echo), "a refusal", 60)
        assert g.status()["audit"]["state"] == "full"
        pruned = json.loads(g.ctl("audit", "prune", "--keep", "1d", "--json").out)
        assert pruned["segments"] >= 1
        verify(g, audit, key)
        os.unlink(os.path.join(audit, "filler"))
        wait.until(lambda: granted(g, echo), "service", 60)
        verify(g, audit, key)


def test_full_disk_without_a_reserve(gateway, echo):
    g = gateway(start=False, workers=1, audit_reserve_megabytes=0, audit_timeout=500)
    with disk(g, 24) as audit:
        g.start()
        key = take_key(g, audit)
        fill(audit)
        wait.until(lambda: refused(g, echo), "a refusal", 60)
        status = g.status()["audit"]
        assert status["state"] == "failing" and "full" in status["error"]
        os.unlink(os.path.join(audit, "filler"))
        wait.until(lambda: granted(g, echo), "service", 60)
        verify(g, audit, key)
    assert g.stop() == 0


def test_read_only(gateway, echo):
    g = gateway(start=False, workers=1, audit_timeout=500)
    with disk(g, 64) as audit:
        g.start()
        key = take_key(g, audit)
        assert granted(g, echo)

        def remounted():
            """While files are open for writing, a remount is refused: between one recorder and the next it is not."""
            if subprocess.run(["mount", "-o", "remount,ro", audit], check=False, stderr=subprocess.DEVNULL).returncode == 0:
                return True
            for pid in processes.of_role(g, "recorder"):
                processes.kill(pid)
            return False

        wait.until(remounted, "a read-only disk", 60)
        wait.until(lambda: refused(g, echo), "a refusal", 60)
        subprocess.run(["mount", "-o", "remount,rw", audit], check=True)
        wait.until(lambda: granted(g, echo), "service", 60)
        verify(g, audit, key)


def test_no_room_for_the_reserve_at_the_start(gateway, echo):
    g = gateway(start=False, workers=1, audit_reserve_megabytes=64)
    with disk(g, 24) as audit:
        g.start()
        key = take_key(g, audit)
        assert refused(g, echo)
        assert "reserve" in g.status()["audit"]["error"]
        assert g.row(event="denied")
        verify(g, audit, key)
