"""A gateway's processes, seen from outside: also those that status does not tell of, or not yet."""

import os
import signal
import time

from . import socks, wait


def children(pid):
    """{pid: command line} of a process's children."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", encoding="latin-1") as f:
                state, parent = f.read().rsplit(")", 1)[1].split()[:2]
            if int(parent) != pid or state in "ZX":
                continue
            with open(f"/proc/{entry}/cmdline", "rb") as f:
                found[int(entry)] = f.read().decode("latin-1").replace("\0", " ").strip()
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def family(pid):
    """{pid: command line} of its children, and of theirs: some have a session of their own."""
    found = children(pid)
    for child in list(found):
        found.update(family(child))
    return found


def of_role(g, role, slot=None):
    """Pids of a role, of one slot of it; from the kernel, so also when control cannot tell."""
    wanted = f"--role={role}" + ("" if slot is None else f" --slot={slot}")
    return sorted(pid for pid, line in children(g.process.pid).items() if wanted in line + " " and (slot is None or line.endswith(wanted)))


def of_session(leader):
    """Command lines of the processes of a session: also of those whose parent has ended."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat", encoding="latin-1") as f:
                fields = f.read().rsplit(")", 1)[1].split()
            if fields[0] not in "ZX" and int(fields[3]) == leader:
                with open(f"/proc/{entry}/cmdline", "rb") as f:
                    found.append(f.read().decode("latin-1").replace("\0", " "))
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def lives(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def kill(pid):
    """kill -9, of what may have ended already."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def stop_compiler(g, order):
    """Stops the compiler that works for an order (a Popen): its pid; None if the order ended before one was seen.  One that was seen may
    still have been done."""
    pids = []

    def seen():
        pids[:] = of_role(g, "compiler")
        return pids or order.poll() is not None

    wait.until(seen, "a compiler", 60, 0.002)
    for pid in pids:
        try:
            os.kill(pid, signal.SIGSTOP)
            return pid
        except ProcessLookupError:
            pass
    return None


def go_on(pid):
    """Ends a stop, of what may have ended already."""
    try:
        if pid is not None:
            os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        pass


def status(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


def confined(pid):
    """True if it is filtered, gains no privileges, has no capabilities, and is not root."""
    s = status(pid)
    caps = [int(s[c], 16) for c in ("CapInh", "CapPrm", "CapEff", "CapAmb")]
    return s["Seccomp"] == "2" and s["NoNewPrivs"] == "1" and not any(caps) and "0" not in s["Uid"].split() + s["Gid"].split()


def _turns(pid):
    """(asleep, what changes when it runs): a process that spins never sleeps, one that wakes for nothing is soon seen to."""
    with open(f"/proc/{pid}/stat", encoding="latin-1") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return fields[0] == "S", (fields[11], fields[12], status(pid)["voluntary_ctxt_switches"])


def rests(pid, seconds=0.05):
    """Waits until it has been asleep for so long without a single turn of its loop: whatever was due meanwhile has been done."""

    def asleep():
        before = _turns(pid)
        time.sleep(seconds)
        return before[0] and _turns(pid) == before

    wait.until(asleep, f"process {pid} comes to rest")


def descriptors(pid):
    return sorted(os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd"))


def serves(g, echo):
    """True if a whole session works now."""
    try:
        with g.session("127.0.0.1", echo.port, timeout=30) as c:
            if c.code != socks.OK:
                return False
            c.echo(b"hello")
            return True
    except (OSError, AssertionError):
        return False
