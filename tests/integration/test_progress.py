"""Long work shows how far it is where somebody looks, and an interrupt leaves nothing half done, neither here nor in the gateway."""

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import time

import pytest

from harness import audits, wait
from harness.gateway import BUILD, sanitized
from harness.terminal import Terminal

CTL = os.path.join(BUILD, "admin", "gatewayctl")
INTERRUPT = "\x03"

INTERRUPTED_AT_GETLINE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>

static ssize_t next(char **line, size_t *size, int end, FILE *file)
{
	ssize_t (*real)(char **, size_t *, int, FILE *) = (ssize_t (*)(char **, size_t *, int, FILE *))dlsym(RTLD_NEXT, "getdelim");

	raise(SIGINT);
	return real(line, size, end, file);
}

ssize_t getline(char **line, size_t *size, FILE *file) { return next(line, size, '\n', file); }
ssize_t getdelim(char **line, size_t *size, int end, FILE *file) { return next(line, size, end, file); }
ssize_t __getdelim(char **line, size_t *size, int end, FILE *file) { return next(line, size, end, file); }
"""


@contextlib.contextmanager
def stopped(*pids):
    """These do not run meanwhile: whoever asks them waits for as long as the test likes."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def patient(gateway, *args, **kwargs):
    """One that does not end processes that stand still."""
    return gateway(*args, process_timeout=600000, worker_timeout=600000, recorder_timeout=600000, **kwargs)


def terminal(g, *words, **kwargs):
    return Terminal([CTL, "--socket", g.socket, *words], **kwargs)


def filled(gateway):
    """A gateway with a month of rows, and its state directory is as it was."""
    g = patient(gateway)
    g.stop()
    rows = audits.Rows(os.path.join(g.state, "audit"))
    audits.month(rows, int(time.time() * 1e6), sessions=2500)
    rows.close()
    return g.start()


def waits_at(pid, where):
    def is_there():
        with open(f"/proc/{pid}/wchan", encoding="ascii") as f:
            return where in f.read()  # where the kernel waits for it

    wait.until(is_there, f"it waits at {where}")


def waits_for_answer(t):
    """It has asked, and waits: it is not somewhere before that, on a busy machine."""
    waits_at(t.process.pid, "poll")


def readers(g):
    return [p["pid"] for p in g.status()["processes"] if p["role"] == "reader"]


def test_an_order_is_seen_to_go_on_and_is_carried_out(gateway):
    g = patient(gateway)
    with open(g.path("new.policy"), "w", encoding="utf-8") as f:
        f.write("rule one allow to cidr 127.0.0.1\n")
    with stopped(g.process.pid):  # whoever is to start a compiler
        with terminal(g, "policy", "apply", g.path("new.policy")) as t:
            t.shows("gatewayd compiles the policy: 1 s")
            t.press(INTERRUPT)
            assert t.ends() == 1
            assert "interrupted: it is ordered, and gatewayd carries it out all the same" in t.text()
            assert "compiles the policy: " not in t.text()
    wait.until(lambda: g.revision() == 2, "it is in force")


def test_an_order_that_has_not_left_is_not_said_to_be_ordered(tmp_path):
    """It stands before a socket whose queue is full."""
    path = str(tmp_path / "s")
    with contextlib.ExitStack() as stack:
        listener, filler = (stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) for _ in range(2))
        listener.bind(path)
        listener.listen(0)
        filler.connect(path)
        t = stack.enter_context(Terminal([CTL, "--socket", path, "policy", "rollback", "1"]))
        waits_at(t.process.pid, "unix_wait")
        t.press(INTERRUPT)
        assert t.ends() == 1 and "interrupted: nothing was ordered" in t.text(), t.text()


def test_an_import_that_is_interrupted_changes_nothing(gateway):
    g = patient(gateway, "set bad domain { a.example }\nrule one deny to domain @bad\nrule loopback allow to cidr 127.0.0.1\n")
    with open(g.path("list"), "w", encoding="utf-8") as f:
        f.writelines(f"h{i}.example\n" for i in range(1000))
    before = sorted(os.listdir(g.dir))
    with stopped(*g.pids("control")):
        with terminal(g, "set", "import", "bad", g.path("list")) as t:
            t.shows("reading the policy in force: 1 s")
            t.press(INTERRUPT)
            assert t.ends() == 1 and "interrupted: nothing was changed" in t.text()
    assert g.revision() == 1 and sorted(os.listdir(g.dir)) == before
    assert "1000 values, 1000 of them new" in g.ctl("set", "import", "bad", g.path("list"), cwd=g.dir).err


def test_questions_show_that_they_wait_and_only_on_a_terminal(gateway):
    g = patient(gateway)
    words = ("audit", "sql", "SELECT count(*) AS n FROM event")
    with stopped(*g.pids("control")):
        piped = subprocess.Popen([CTL, "--socket", g.socket, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        t = terminal(g, *words)
        t.shows("reading the audit: 1 s")
    with t:
        assert t.ends() == 0
        assert "reading the audit" not in t.text() and "n" in t.text()
    out, err = piped.communicate(timeout=wait.seconds(60))
    assert piped.returncode == 0 and err == b"" and b"\r" not in out, (out, err)


def test_a_question_that_is_interrupted_ends_its_reader(gateway):
    """More rows than anybody takes: the reader stands at its pipe until it is told by the pipe's end."""
    g = filled(gateway)
    with terminal(g, "audit", "query", "--format", "json", "--limit", "0") as t:
        wait.until(lambda: readers(g), "a reader")
        os.kill(t.process.pid, signal.SIGINT)
        assert t.ends() == 1
        assert "interrupted: what is shown is not all" in t.text(), t.text()
    wait.until(lambda: not readers(g), "it is gone")


@pytest.mark.skipif(sanitized(), reason="the sanitizers' runtime must be loaded first")
def test_an_interrupt_just_before_it_waits_for_rows_is_not_lost(tmp_path):
    """It comes when the last look for one is over and nothing has been read yet; and no row ever comes."""
    path = str(tmp_path / "s")
    (tmp_path / "shim.c").write_text(INTERRUPTED_AT_GETLINE)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "shim.so", tmp_path / "shim.c"], check=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(1)
        listener.settimeout(wait.seconds(60))
        rows, never_written = os.pipe()
        with Terminal([CTL, "--socket", path, "audit", "query"], LD_PRELOAD=str(tmp_path / "shim.so")) as t:
            with listener.accept()[0] as s:
                assert s.recv(65536)
                socket.send_fds(s, [b'{"ok": true}'], [rows])
            assert t.ends() == 1 and "interrupted: what is shown is not all" in t.text(), t.text()
    os.close(rows)
    os.close(never_written)


def test_an_export_that_is_interrupted_leaves_nothing(gateway):
    g = patient(gateway)
    g.ctl("audit", "export", "--new-key", g.path("key"))
    with stopped(g.process.pid):
        with terminal(g, "audit", "export", "-o", g.path("out"), "--key", g.path("key")) as t:
            wait.until(lambda: os.path.exists(g.path("out", "events.csv")), "it has begun")
            t.press(INTERRUPT)
            assert t.ends() == 1 and "interrupted" in t.text(), t.text()
        assert not os.path.exists(g.path("out"))
    wait.until(lambda: not readers(g), "no reader is left")
    g.ctl("audit", "export", "-o", g.path("out"), "--key", g.path("key"))
    assert sorted(os.listdir(g.path("out"))) == ["events.csv", "manifest.json", "manifest.sig"]


def test_a_report_that_is_interrupted_leaves_nothing(gateway):
    g = patient(gateway)
    before = sorted(os.listdir(g.dir))
    with stopped(g.process.pid):
        with terminal(g, "audit", "report", "-o", g.path("r.html")) as t:
            waits_for_answer(t)
            t.press(INTERRUPT)
            assert t.ends() == 1 and "interrupted" in t.text(), t.text()
    assert sorted(os.listdir(g.dir)) == before


def test_verify_shows_how_far_it_is(gateway):
    """It is kept waiting for its anchors until a second is over."""
    g = patient(gateway)
    key = g.path("first.key")
    os.rename(os.path.join(g.state, "audit", "first.key"), key)
    anchor = next(line for line in g.log().splitlines() if "audit anchor " in line)
    os.mkfifo(g.path("anchors"))
    with terminal(g, "audit", "verify", "--key", key, "--dir", os.path.join(g.state, "audit"), "--anchor", g.path("anchors")) as t:
        with open(g.path("anchors"), "w", encoding="utf-8") as f:
            began = time.monotonic()
            wait.until(lambda: time.monotonic() > began + 1.5, "a second is over")
            f.write(anchor + "\n")
        assert t.ends() == 0, t.text()
        assert b" rows (" in t.raw and "The audit is what was recorded." in t.text(), t.text()
    assert json.loads(g.ctl("audit", "verify", "--key", key, "--dir", os.path.join(g.state, "audit"), "--json").out.splitlines()[-1])["sound"]


def verifying(g):
    """The words to verify it with, what a pipe at the place of the anchors is called, and an anchor of it."""
    key = g.path("first.key")
    os.rename(os.path.join(g.state, "audit", "first.key"), key)
    os.mkfifo(g.path("anchors"))
    anchor = next(line for line in g.log().splitlines() if "audit anchor " in line)
    return ("audit", "verify", "--key", key, "--dir", os.path.join(g.state, "audit"), "--anchor", g.path("anchors")), g.path("anchors"), anchor


def test_verify_is_interrupted_before_it_reads(gateway):
    g = patient(gateway)
    words, anchors, _ = verifying(g)
    with terminal(g, *words) as t:
        with open(anchors, "w", encoding="utf-8"):  # when it is opened, it is waited at
            t.press(INTERRUPT)
            assert t.ends() == 1, t.text()
        assert "interrupted: the audit was not read" in t.text(), t.text()


def test_verify_is_interrupted_while_it_reads(gateway):
    """It has more to say of the first entry than is taken from it: there it stands when it is interrupted."""
    g = patient(gateway)
    words, anchors, anchor = verifying(g)
    wrong = anchor[:-1] + ("0" if anchor[-1] != "0" else "1")
    out, full = os.pipe()
    fcntl.fcntl(full, fcntl.F_SETPIPE_SZ, 4096)
    os.write(full, b"x" * 4096)
    p = subprocess.Popen([CTL, "--socket", g.socket, *words], stdout=full, stderr=subprocess.PIPE)
    os.close(full)
    try:
        with open(anchors, "w", encoding="utf-8") as f:
            f.write((wrong + "\n") * 100)

        def stands():
            with open(f"/proc/{p.pid}/wchan", encoding="ascii") as f:
                return "pipe_write" in f.read()

        wait.until(stands, "it stands at its pipe")
        p.send_signal(signal.SIGINT)
        with open(out, "rb", closefd=False) as f:
            assert b"is not the one that an anchor tells of" in f.read()
        _, err = p.communicate(timeout=wait.seconds(60))
        assert p.returncode == 1 and b"interrupted: the audit was not read to its end" in err, (p.returncode, err)
    finally:
        os.close(out)
        p.kill()
        p.wait()


def test_the_line_that_shows_progress_ends_no_wait(tmp_path):
    """A gateway whose socket's queue is full is waited for as without a terminal: its answer comes after ticks while connecting and while reading."""
    path = str(tmp_path / "s")
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        listener.bind(path)
        listener.listen(0)
        listener.settimeout(wait.seconds(60))
        filler = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        filler.connect(path)
        t = stack.enter_context(Terminal([CTL, "--socket", path, "rule", "list"]))

        def ticks(n):
            def seen():
                t.text()
                return t.raw.count(b"reading the policy in force: ") >= n

            wait.until(seen, lambda: f"{n} ticks: {t.raw!r}")

        ticks(3)
        stack.enter_context(listener.accept()[0])
        client = stack.enter_context(listener.accept()[0])
        client.settimeout(wait.seconds(60))
        assert json.loads(client.recv(65536))["command"] == "policy-get"
        ticks(t.raw.count(b"reading the policy in force: ") + 2)
        client.send(json.dumps({"ok": False, "error": "there is no policy today"}).encode())
        assert t.ends() != 0 and "refused: there is no policy today" in t.text(), t.text()
