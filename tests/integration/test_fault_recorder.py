"""A recorder whose descriptors run out, whose disk is slow, or whose clock steps: what was granted has its row, and it comes back."""

import concurrent.futures
import json
import os
import shutil
import subprocess

import pytest

from harness import socks, wait
from harness.gateway import sanitized

pytestmark = pytest.mark.long

# Files in the recorder's own directory say what is to go wrong.
SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void wait_a_while(void)
{
	char text[16] = "";
	int fd = (int)syscall(SYS_openat, AT_FDCWD, "slow", O_RDONLY | O_CLOEXEC), n = fd < 0 ? 0 : (int)read(fd, text, sizeof text - 1);
	long ms = n > 0 ? atol(text) : 0;
	struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	if (fd >= 0)
		close(fd);
	if (ms > 0)
		nanosleep(&t, NULL);
}

/* Another says that there is no descriptor left. */
static int none_left(void)
{
	if (access("no-descriptors", F_OK) != 0)
		return 0;
	errno = EMFILE;
	return 1;
}

#define OPEN(name)                                                                                                     \
	int name(const char *path, int flags, ...)                                                                     \
	{                                                                                                              \
		static int (*real)(const char *, int, ...);                                                            \
		va_list ap;                                                                                            \
		va_start(ap, flags);                                                                                   \
		int mode = va_arg(ap, int);                                                                            \
		va_end(ap);                                                                                            \
		if (real == NULL)                                                                                      \
			real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name);                               \
		return none_left() ? -1 : real(path, flags, mode);                                                     \
	}

OPEN(open)
OPEN(open64)

#define SLOW(name)                                                                                                     \\
	int name(int fd)                                                                                               \\
	{                                                                                                              \\
		static int (*real)(int);                                                                               \\
		if (real == NULL)                                                                                      \\
			real = (int (*)(int))dlsym(RTLD_NEXT, #name);                                                  \\
		wait_a_while();                                                                                        \\
		return real(fd);                                                                                       \\
	}

SLOW(fsync)
SLOW(fdatasync)

/* Children get no environment of ours: the shim goes with them. */
int execve(const char *path, char *const argv[], char *const env[])
{
	static char preload[4200] = "LD_PRELOAD=";
	char *with[32] = {preload};

	strncpy(preload + 11, SELF, sizeof preload - 20);
	for (int i = 0; i < 30 && env[i] != NULL; i++)
		with[i + 1] = env[i];
	return (int)syscall(SYS_execve, path, argv, with);
}
"""


def take_key(g):
    key = g.path("auditor.key")
    shutil.move(os.path.join(g.state, "audit", "first.key"), key)
    return key


def verify(g, key):
    done = g.ctl("audit", "verify", "--key", key, "--dir", os.path.join(g.state, "audit"), check=False)
    assert done.returncode == 0, done.out + done.err


def granted(g, echo):
    with g.session("127.0.0.1", echo.port, timeout=20) as c:
        if c.code != socks.OK:
            return 0
        c.echo(b"x")
        return 1


# ---- a slow disk -----------------------------------------------------------------------------------------------------


@pytest.fixture
def shimmed(gateway, tmp_path):
    if sanitized():
        pytest.skip("the sanitizers' runtime must be loaded first")
    shim = tmp_path / "shim.so"
    (tmp_path / "shim.c").write_text(SHIM)
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", f'-DSELF="{shim}"', "-o", shim, tmp_path / "shim.c", "-ldl"], check=True)
    tmp_path.chmod(0o755)
    return lambda **kwargs: gateway(environment={"LD_PRELOAD": str(shim)}, **kwargs)


def slow(g, ms):
    path = os.path.join(g.state, "audit", "slow")
    with open(path + ".new", "w", encoding="ascii") as f:
        f.write(str(ms))
    os.chmod(path + ".new", 0o644)
    os.rename(path + ".new", path)


def test_slow_syncs_are_shared(shimmed, echo):
    """Each sync takes long: many grants wait for one, and none is answered without."""
    g = shimmed(audit_timeout=60000)
    key = take_key(g)
    assert granted(g, echo)
    g.wait_rows(1, event="ended")
    before = g.status()["audit"]["commits"]
    slow(g, 500)
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        assert sum(pool.map(lambda _: granted(g, echo), range(40))) == 40
    g.wait_rows(41, event="ended")
    slow(g, 0)
    assert g.status()["audit"]["commits"] - before < 2 * 40  # of three rows each
    g.stop()
    verify(g, key)


def test_syncs_slower_than_anybody_waits(shimmed, echo):
    g = shimmed(audit_timeout=1000)
    key = take_key(g)
    must_grant(g, echo)
    slow(g, 2500)
    with g.session("127.0.0.1", echo.port, timeout=30) as c:
        assert c.code == socks.FAILURE
    slow(g, 0)
    must_grant(g, echo)
    g.stop()
    verify(g, key)


def must_grant(g, echo):
    """Sooner or later: on a busy machine a commit may take longer than the gateway waits for it."""
    wait.until(lambda: granted(g, echo), "service", deadline=60)


# ---- descriptors -----------------------------------------------------------------------------------------------------


def test_recorder_out_of_descriptors(shimmed, echo):
    """No file can be opened: the segment there is goes on, and the next begins when one can be."""
    g = shimmed(clock=True, start=False, audit_timeout=1000)
    g.set_time("2026-11-20 12:00:00")
    g.start()
    key = take_key(g)
    must_grant(g, echo)
    g.wait_rows(1, event="ended")
    exhausted = os.path.join(g.state, "audit", "no-descriptors")
    with open(exhausted, "w", encoding="ascii"):
        pass
    g.set_time("2026-11-21 12:00:00")
    for _ in range(3):
        must_grant(g, echo)
    assert "the next segment of the audit cannot be begun" in g.log() and "Too many open files" in g.log()
    assert g.status()["audit"]["segments"] == 1 and g.status()["audit"]["state"] == "ok"
    # A recorder that cannot even begin is tried again, and nothing is granted meanwhile.
    (recorder,) = g.pids("recorder")
    os.kill(recorder, 9)
    with g.session("127.0.0.1", echo.port, timeout=30) as c:
        assert c.code == socks.FAILURE
    os.unlink(exhausted)
    must_grant(g, echo)
    wait.until(lambda: g.status()["audit"]["segments"] == 2, "a segment")
    assert len(g.rows("--limit", "0", event="open")) >= 5
    g.stop()
    verify(g, key)


def test_no_hold_is_placed_while_it_is_pruned(shimmed, echo):
    """Whoever is told that rows are held can rely on it: what is under way would not know of it."""
    g = shimmed(clock=True, start=False, audit_timeout=60000)
    g.set_time("2026-11-01 12:00:00")
    g.start()
    key = take_key(g)
    for day in (1, 2, 3, 4, 5):
        g.set_time(f"2026-11-{day:02} 12:00:00")
        assert granted(g, echo)
        g.wait_segment(day)
    audit = os.path.join(g.state, "audit")
    wait.until(lambda: json.loads(g.ctl("audit", "prune", "--keep", "1d", "--dry-run", "--json").out)["skipped"] == 0, "plain files", 90)
    for keep in ("3d", "2d", "1d"):  # again if the machine was too slow to ask while it is pruned
        slow(g, 1000)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            # One class: the segment is written anew.
            ordered = pool.submit(g.ctl, "audit", "prune", "--keep", keep, "--class", "sessions", check=False)
            wait.until(lambda: ordered.done() or os.path.exists(os.path.join(audit, "prune.new")), "work to begin", deadline=60)
            done = g.ctl("audit", "hold", "place", "case-1", check=False)
            slow(g, 0)
            assert not ordered.done() or done.returncode == 0
            assert ordered.result().returncode == 0
        if done.returncode == 1:
            break
        g.ctl("audit", "hold", "release", "case-1")
    assert done.returncode == 1 and "being pruned" in done.err, done.err
    g.ctl("audit", "hold", "place", "case-1")
    verify(g, key)


# ---- clocks ----------------------------------------------------------------------------------------------------------


def test_a_clock_that_steps(gateway, echo):
    """Back two days, forward ten: the order of recording stands, queries go by the time that was told, and all verifies."""
    g = gateway(clock=True, start=False)
    g.set_time("2026-11-20 12:00:00")
    g.start()
    key = take_key(g)
    times = ["2026-11-20 12:00:00", "2026-11-18 06:00:00", "2026-11-28 18:00:00", "2026-11-19 09:00:00"]
    with g.session("127.0.0.1", echo.port) as held:
        for n, now in enumerate(times):
            g.set_time(now)
            held.echo(b"y")
            assert granted(g, echo)
            g.wait_rows(n + 1, event="ended")
        ids = [r["session"] for r in g.rows(event="ended")]  # in the order of recording
        assert len(set(ids)) == len(times)
        for n, now in enumerate(times):
            found = g.rows("--since", now[:13].replace(" ", "T") + ":00:00Z", "--until", now[:13].replace(" ", "T") + ":59:59Z", event="ended")
            assert [r["session"] for r in found] == [ids[n]], (n, found)
        for order, reverse in (("oldest", False), ("newest", True)):
            out = g.ctl("audit", "query", "--format", "json", "--limit", "0", "--event", "ended", "--order", order).out
            shown = [json.loads(line)["time"] for line in out.splitlines()]
            assert len(shown) == len(times) and shown == sorted(shown, reverse=reverse)
        # No duration is anything but what passed: it is measured by another clock.
        assert all(0 <= r["duration_us"] < 600_000_000 for r in g.rows(event="ended"))
    g.wait_rows(len(times) + 1, event="ended")
    assert g.row(session=g.rows(event="open")[0]["session"], event="ended")["duration_us"] < 600_000_000
    verify(g, key)
    g.restart()
    assert granted(g, echo)
    g.stop()
    verify(g, key)
