"""One gateway under test: its directory, its configuration, its process, and what it says about itself."""

import datetime
import functools
import json
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import tempfile
import time

from . import admin, ports, socks, wait
from .build import BUILD, ROOT, sanitized  # noqa: F401

START_SECONDS = 60.0
STOP_SECONDS = 40.0

# Opens loopback, which is guarded otherwise, to whoever is logged in.
POLICY = """\
rule loopback allow to cidr 127.0.0.0/8 ::1/128
default deny
"""

USERS = {"ann": "ann-pass", "bob": "bob-pass"}
GROUPS = {"staff": ["ann"], "hr": ["bob"]}

# What a sanitizer says when it found something.
_REPORTS = re.compile(r"ERROR: \w+Sanitizer|runtime error:|SUMMARY: \w+Sanitizer|Assertion .* failed|stack smashing|\*\*\* buffer overflow")


@functools.lru_cache(maxsize=64)
def _crypt(passwords):
    script = 'while (<STDIN>) { chomp; print crypt($_, q($6$rounds=1000$gatewaydtest$)), "\\n" }'
    out = subprocess.run(
        ["/usr/bin/perl", "-e", script], input="".join(p + "\n" for p in passwords).encode("latin-1"), stdout=subprocess.PIPE, check=True
    )
    return out.stdout.decode().split()


def crypt(passwords):
    """SHA-512 crypt(3) of each password, with few rounds: tests log in thousands of times."""
    return list(_crypt(tuple(passwords)))


class Gateway:
    """options are those of gatewayd.conf with '_' for '-'; a list becomes a list, None leaves one out.
    A listener's own options start with listener_. as_user: run it as that user instead of root."""

    def __init__(self, policy=POLICY, users=None, groups=None, pam=None, clock=False, ipv6=False, limits=None,
                 as_user=None, environment=None, listen="127.0.0.1", **options):
        self.dir = tempfile.mkdtemp(prefix="gw", dir="/tmp")
        os.chmod(self.dir, 0o700)
        self.host = listen
        self.port = ports.free()
        self.process = None
        self.environment = dict(environment or {})
        self._limits = limits or {}
        self._as_user = as_user
        self._ipv6 = ipv6 and ports.has_ipv6()
        self._closed = False
        self.expected_exit = 0
        self.allowed_reports = None
        self.prefix = []  # of the command line: a program that ends by executing its arguments
        self.state = self.path("state")
        self.socket = self.path("control.sock")
        self.conf = self.path("gatewayd.conf")
        self.policy_file = self.path("gateway.policy")
        os.makedirs(self.path("pam.d"))
        os.makedirs(self.state)
        self.write_policy(policy)
        self.write_users(USERS if users is None else users)
        self.write("groups", "".join(f"{g}:x:{50000 + i}:{','.join(m)}\n" for i, (g, m) in enumerate((groups or GROUPS).items())))
        self.write("pam.d/gatewayd", pam.format(dir=self.dir) if pam else self.pam_lines())
        if clock:
            self.clock_file = self.path("clock")
            self.environment["GATEWAYD_CLOCK_FILE"] = self.clock_file
            with open(self.clock_file, "wb") as f:
                f.write(struct.pack("=q", 0))
            os.chmod(self.clock_file, 0o644)
        self._options = self._defaults()
        if "pam_processes" not in options:
            options.setdefault("pam_processes_min", 2)  # the pool grows when a test needs it to; each costs its start and its end
        self._listener = {"methods": ["password"], "pam-service": "gatewayd", "clients": ["127.0.0.0/8", "::1/128"]}
        self.configure(**options)
        if as_user:
            subprocess.run(["chown", "-R", as_user, self.dir], check=True)

    # ---- files ------------------------------------------------------------------------------------------------

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as f:
            f.write(text)

    def write_policy(self, text):
        self.write("gateway.policy", text)

    def write_users(self, users):
        hashes = crypt(users.values())
        self.write("users", "".join(f"{u}:{h}\n" for u, h in zip(users, hashes)))

    def pam_lines(self):
        return f"auth required pam_pwdfile.so nodelay pwdfile={self.path('users')}\naccount required pam_permit.so\n"

    def _defaults(self):
        options = {
            "workers": 2,
            "state-dir": self.state,
            "control-socket": self.socket,
            "policy-file": self.policy_file,
            "pam-config-dir": self.path("pam.d"),
            "pam-groups-file": self.path("groups"),
            "resolver": [f"127.0.0.1:{ports.free()}"],  # nobody answers there: no test asks the machine's own resolver
            # A machine that stops for a while refuses nobody: tests of such a time's end set it.
            "resolver-timeout": 20000,
            "resolver-tries": 1,
            "audit-timeout": 60000,
            "handshake-timeout": 120000,
        }
        if os.geteuid() == 0 and not self._as_user:
            options["user"] = "nobody"
        return options

    def configure(self, **options):
        for key, value in options.items():
            key = key.replace("_", "-")
            into = self._options
            if key.startswith("listener-"):
                into, key = self._listener, key[len("listener-"):]
            if value is None:
                into.pop(key, None)
            else:
                into[key] = value
        addresses = [f"{self.host}:{self.port}"] + ([f"[::1]:{self.port}"] if self._ipv6 else [])
        listener = {"address": addresses, **self._listener}
        lines = ['listener "main" {', *(f"\t{k} = {_conf(v)}" for k, v in listener.items()), "}"]
        lines += [f"{k} = {_conf(v)}" for k, v in self._options.items()]
        self.write("gatewayd.conf", "\n".join(lines) + "\n")

    # ---- process ----------------------------------------------------------------------------------------------

    @property
    def program(self):
        return os.path.join(BUILD, "gatewayd", "gatewayd")

    def command(self, *arguments):
        """The command line that runs gatewayd; as another user from a copy, which that user can surely read."""
        if not self._as_user:
            return [self.program, *arguments]
        copy = self.path("gatewayd")
        if not os.path.exists(copy):
            shutil.copy(self.program, copy)
            os.chmod(copy, 0o755)
        return ["setpriv", f"--reuid={self._as_user}", "--regid=nogroup", "--clear-groups", copy, *arguments]

    def _environment(self):
        e = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        e.setdefault("ASAN_OPTIONS", "detect_stack_use_after_return=1:strict_string_checks=1")
        e.setdefault("UBSAN_OPTIONS", "print_stacktrace=1")
        e.update(self.environment)
        return e

    def _limit(self):
        for what, value in self._limits.items():
            resource.setrlimit(what, (value, value))

    def spawn(self):
        """Starts the daemon and does not wait for anything."""
        with open(self.path("log"), "ab") as log:
            self._log_start = log.tell()
            self.process = subprocess.Popen(
                [*self.prefix, *self.command("-c", self.conf)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment(),
                preexec_fn=self._limit if self._limits else None, start_new_session=True, cwd="/",
            )
        return self

    def start(self):
        self.spawn()
        try:
            wait.until(self._ready, "gatewayd is ready", START_SECONDS)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.log()}") from None
        return self

    def _ready(self):
        code = self.process.poll()
        assert code is None, f"gatewayd ended with {code} instead of getting ready"
        with open(self.path("log"), "rb") as f:
            f.seek(self._log_start)
            return b"gatewayd is ready" in f.read()

    def run(self, *arguments, timeout=60):
        """Runs gatewayd to its end: (exit code, what it said, in lines)."""
        done = subprocess.run(
            self.command(*arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=wait.seconds(timeout),
            env=self._environment(), start_new_session=True,
        )
        return done.returncode, done.stdout.decode("utf-8", "replace").splitlines()

    def stop(self, sig=signal.SIGTERM):
        """Ends it and gives its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
            try:
                self.process.wait(wait.seconds(STOP_SECONDS))
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGKILL)
                self.process.wait()
                raise AssertionError(f"gatewayd did not end within {wait.seconds(STOP_SECONDS):g} s of a signal\n{self.log()}") from None
        return self.process.returncode

    def restart(self):
        code = self.stop()
        assert code == 0, f"gatewayd ended with {code}\n{self.log()}"
        return self.start()

    def close(self):
        """Ends it, judges how it ended, and removes its files."""
        if self._closed:
            return
        self._closed = True
        try:
            if self.process is not None:
                code = self.stop()
                assert code == self.expected_exit, f"gatewayd ended with {code}\n{self.log()}"
                reports = _REPORTS.search(self.log())
                assert reports is None, self.log()
        finally:
            keep = os.environ.get("GATEWAYD_TEST_KEEP")
            if not keep:
                shutil.rmtree(self.dir, ignore_errors=True)

    def log(self):
        try:
            with open(self.path("log"), encoding="utf-8", errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    # ---- clients ----------------------------------------------------------------------------------------------

    @property
    def address(self):
        return (self.host, self.port)

    def client(self, **kwargs):
        return socks.Client(self.address, **kwargs)

    def session(self, host, port, **kwargs):
        return socks.open_session(self.address, host, port, **kwargs)

    def client4(self, **kwargs):
        return socks.Client4(self.address, **kwargs)

    def associate(self, **kwargs):
        return socks.Association(self.address, **kwargs)

    def curl(self, *arguments, user="ann", password="ann-pass"):
        timeout = wait.seconds(60)
        return subprocess.run(
            ["curl", "-sS", "--noproxy", "", "--max-time", str(timeout), "--socks5-hostname", f"{user}:{password}@127.0.0.1:{self.port}",
             *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout + 10,
        )

    # ---- administration ---------------------------------------------------------------------------------------

    def ctl(self, *arguments, check=True, **kwargs):
        done = subprocess.run(
            [os.path.join(BUILD, "admin", "gatewayctl"), "--socket", self.socket, *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=wait.seconds(100), env=self._environment(), **kwargs,
        )
        done.out, done.err = done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
        if check:
            assert done.returncode == 0, (arguments, done.returncode, done.out, done.err, self.log())
        return done

    def reload(self, check=True):
        return self.ctl("reload", check=check)

    def status(self):
        """What `gatewayctl status --json` shows, without the time that a program takes to start: tests ask for it again and again."""
        try:
            reply, _ = admin.ask(self.socket, {"command": "status"})
        except (OSError, ValueError) as e:
            raise AssertionError(f"no status: {e}\n{self.log()}") from None
        assert reply["ok"], reply
        return reply["status"]

    def revision(self):
        return self.status()["revision"]

    def pids(self, role=None):
        """{pid: role} of the lasting processes, or the pids of a role: a reader or compiler may be gone before one looks."""
        processes = {p["pid"]: p["role"] for p in self.status()["processes"] if p["role"] not in ("reader", "compiler")}
        return processes if role is None else sorted(pid for pid, r in processes.items() if r == role)

    def rows(self, *arguments, looks=False, **equal):
        """Audit rows, oldest first; equal keeps those with these values. arguments: more words of `gatewayctl audit query`.  That
        somebody looked is left out unless it is asked for: each call of this is a look."""
        if not arguments or (len(arguments) == 2 and arguments[0] == "--limit"):
            rows = self._all_rows(*map(int, arguments[1:]))
        else:
            out = self.ctl("audit", "query", "--format", "json", *arguments).out
            rows = [json.loads(line) for line in out.splitlines() if line.strip()]
        rows.sort(key=lambda r: r.get("id", 0))
        if not looks and equal.get("event") != "look":
            rows = [r for r in rows if r.get("event") != "look"]
        return [r for r in rows if all(r.get(k) == v for k, v in equal.items())]

    def _all_rows(self, limit=0):
        """What `gatewayctl audit query --format json --limit N` shows, without the time that a program takes to start."""

        def answered():
            try:
                reply, fd = admin.query(self.socket, **({"limit": limit} if limit else {}))
            except (OSError, ValueError) as e:
                raise AssertionError(f"no rows: {e}\n{self.log()}") from None
            # The readers of the queries before may still be on their way out.
            assert reply["ok"] or "too many queries" in reply["error"], reply
            return fd

        fd = wait.until(answered, "a query is answered")
        with os.fdopen(fd, encoding="utf-8") as f:
            lines = [json.loads(line) for line in f]
        assert lines and lines[-1].get("end") and "damage" not in lines[-1], lines[-1:]
        return [line for line in lines[:-1] if "progress" not in line]

    def nobody_reads(self):
        """Waits for the ends of readers: a segment that one has open when it ends becomes a plain file a minute later only."""
        wait.until(lambda: not any(p["role"] == "reader" for p in self.status()["processes"]), "no reader is left")

    def wait_segment(self, n):
        """Waits for the nth segment of the audit, and until the one before it, which nobody is to read meanwhile, is a plain file."""
        wait.until(lambda: self.status()["audit"]["segments"] == n, f"segment {n}")
        former = os.path.join(self.state, "audit", f"audit-{n - 1:08}.db")

        def plain():
            with open(former, "rb") as f:
                return f.read(20)[18] == 1 and not os.path.exists(former + "-wal")  # no write-ahead log, and none meant

        if n > 1:
            wait.until(plain, f"segment {n - 1} as a plain file", 90)

    def row(self, deadline=wait.DEADLINE, **equal):
        """The one row with these values, waited for."""
        rows = self.wait_rows(1, deadline, **equal)
        assert len(rows) == 1, rows
        return rows[0]

    def wait_rows(self, n, deadline=wait.DEADLINE, **equal):
        found = []

        def enough():
            found[:] = self.rows("--limit", "100000", **equal)
            return len(found) >= n

        wait.until(enough, lambda: f"{n} audit rows with {equal}, not {self.rows('--limit', '100000')}", deadline, 0.05)
        return list(found)

    def connected(self, n=1, **equal):
        """The rows that tell with whom n sessions were connected: rows of their own, or their ends."""
        found = []

        def enough():
            found[:] = [r for r in self.rows("--limit", "100000", **equal)
                        if r["event"] == "connected" or "connected" in r.get("detail", {})]
            return len(found) >= n

        wait.until(enough, lambda: f"{n} sessions that say with whom, not {self.rows('--limit', '100000')}", interval=0.05)
        return list(found)

    # ---- time -------------------------------------------------------------------------------------------------

    def set_time(self, text):
        """Wall time in the gateway becomes this UTC time, and goes on from there."""
        moment = datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.timezone.utc)
        offset = int((moment.timestamp() - time.time()) * 1e6)
        with open(self.clock_file, "r+b") as f:
            f.write(struct.pack("=q", offset))


def _conf(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, (list, tuple)):
        return "{" + ", ".join(_conf(v) for v in value) + "}"
    return '"' + value + '"'
