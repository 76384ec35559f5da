"""What carrying bytes costs: gatewayd with everything switched on, beside bare relays and beside the proxies that Debian packages.

Every figure is CPU time of a whole process tree for one unit of work, pinned to one CPU while clients and servers have another one;
what is compared was measured in the same rounds, one after the other, and medians are told with their spread. What is measured and what
measures it have the processors before whatever else the machine does, where it has the control group for that. Nothing here is a test:
no figure is a threshold. Needs root (a network namespace of its own); what is missing is named, and left out.
"""

import argparse
import ctypes
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
root = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
sys.path.insert(0, os.path.join(root, "tests", "integration"))

from harness import ports, wait  # noqa: E402
from harness.gateway import BUILD, Gateway  # noqa: E402

CPUS = sorted(os.sched_getaffinity(0))
LOAD_CPU, PROXY_CPU = CPUS[0], CPUS[-1]
NAME = "www.bench.test"
TARGET, JOINED_TARGET = "127.0.9.1", "127.0.9.2"
USER, PASSWORD = "ann", "ann-pass"
PACKAGES = {"microsocks": "microsocks", "danted": "dante-server", "squid": "squid", "haproxy": "haproxy"}
_CLONE_NEWNS, _CLONE_NEWNET = 0x20000, 0x40000000


def say(text):
    print(text, file=sys.stderr, flush=True)


# ---- a world of its own ------------------------------------------------------------------------------------------------


def _write(path, text):
    with open(path, "w", encoding="ascii") as f:
        f.write(text)


def enter_namespace(directory):
    """Own loopback, own name server; connections that have ended are soon forgotten, so that ports do not run out."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS | _CLONE_NEWNET) != 0:
        raise SystemExit(f"bench: cannot make a network namespace ({os.strerror(ctypes.get_errno())}): run it as root")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    for name, text in (("resolv.conf", "nameserver 127.0.0.1\n"), ("hosts", "127.0.0.1 localhost\n")):
        _write(os.path.join(directory, name), text)
        subprocess.run(["mount", "--bind", os.path.join(directory, name), os.path.realpath(f"/etc/{name}")], check=True)
    for name, value in {"net/ipv4/tcp_max_tw_buckets": "64", "net/ipv4/ip_local_port_range": "1024 65535",
                        "net/core/somaxconn": "8192", "net/ipv4/tcp_max_syn_backlog": "8192"}.items():
        try:
            _write("/proc/sys/" + name, value)
        except OSError as e:
            say(f"bench: {name} stays as it is: {e}")


def control_group(controller, name):
    """Its directory, or None where there is no such controller."""
    path = f"/sys/fs/cgroup/{controller}/gwbench{os.getpid()}-{name}"
    try:
        os.mkdir(path)
        with open(os.path.join(path, "cgroup.procs"), encoding="ascii"):
            return path
    except OSError:
        return None


def first_served(name):
    """A control group whose processes have the processors before strangers; among them all is as it was."""
    path = control_group("cpu", name)
    if path is not None:
        _write(os.path.join(path, "cpu.shares"), "262144")
    return path


def in_groups(*groups):
    """The beginning of a command line that is to run in them."""
    return ["sh", "-c", "for g; do shift; [ \"$g\" != -- ] || break; echo $$ >\"$g/cgroup.procs\"; done; exec \"$@\"", "sh",
            *[g for g in groups if g], "--"]


def remove_group(path):
    if path:
        try:
            wait.until(lambda: not open(os.path.join(path, "cgroup.procs"), encoding="ascii").read(), "its processes end", 10)
            os.rmdir(path)
        except (OSError, AssertionError) as e:
            say(f"bench: {path} stays: {e}")


class Group:
    """The processes of one proxy: what they use, and have used."""

    def __init__(self, name, cpus):
        self.pid = None
        self.cpu = control_group("cpuacct", name)
        self.memory = control_group("memory", name)
        self.first = first_served(name)
        self.prefix = [*in_groups(self.cpu, self.memory, self.first), "taskset", "-c", cpus]

    def join(self):
        """Of the calling process: it runs where these do."""
        os.sched_setaffinity(0, {PROXY_CPU})
        if self.first:
            _write(os.path.join(self.first, "cgroup.procs"), str(os.getpid()))

    def pids(self):
        if self.cpu:
            with open(os.path.join(self.cpu, "cgroup.procs"), encoding="ascii") as f:
                return [int(line) for line in f]
        found, parents = [self.pid], {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    with open(f"/proc/{entry}/stat", encoding="latin-1") as f:
                        parents.setdefault(int(f.read().rsplit(")", 1)[1].split()[1]), []).append(int(entry))
                except OSError:
                    pass
        for pid in found:
            found += parents.get(pid, [])
        return found

    def cpu_ns(self):
        """Without the control group, the time of processes that have ended is missing."""
        if self.cpu:
            with open(os.path.join(self.cpu, "cpuacct.usage"), encoding="ascii") as f:
                return int(f.read())
        total = 0
        for pid in self.pids():
            try:
                with open(f"/proc/{pid}/schedstat", encoding="ascii") as f:
                    total += int(f.read().split()[0])
            except OSError:
                pass
        return total

    def roles(self):
        """The first process of each role, of gatewayd."""
        found = {}
        for pid in self.pids():
            try:
                with open(f"/proc/{pid}/cmdline", encoding="ascii") as f:
                    words = f.read().split("\0")
            except OSError:
                continue
            for word in words:
                if word.startswith("--role="):
                    found.setdefault(word[7:], pid)
        return found

    def user_bytes(self):
        total = 0
        for pid in self.pids():
            try:
                with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
                    total += sum(1024 * int(line.split()[1]) for line in f if line.startswith("Pss:"))
            except OSError:
                pass
        return total

    def all_bytes(self):
        """User and kernel memory, without the cache of files; None where nobody counts it."""
        if not self.memory:
            return None
        with open(os.path.join(self.memory, "memory.stat"), encoding="ascii") as f:
            stat = dict(line.split() for line in f)
        with open(os.path.join(self.memory, "memory.usage_in_bytes"), encoding="ascii") as f:
            return int(f.read()) - int(stat["cache"])

    def close(self):
        for path in (self.cpu, self.memory, self.first):
            remove_group(path)


# ---- what is measured --------------------------------------------------------------------------------------------------------


class Proxy:
    """A program under measurement; its configuration is text with {port}, {dir}, {sink}."""

    via, options = "socks5", ()

    def __init__(self, name, directory, sink, cpus=str(PROXY_CPU)):
        self.name, self.sink = name, sink
        self.dir = os.path.join(directory, name)
        os.mkdir(self.dir)
        os.chmod(self.dir, 0o777)
        self.port = ports.free()
        self.group = Group(name, cpus)
        self.process = None

    def spawn(self, *command):
        with open(os.path.join(self.dir, "log"), "ab") as log:
            self.process = subprocess.Popen([*self.group.prefix, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            start_new_session=True)
        self.group.pid = self.process.pid
        wait.until(self.listens, f"{self.name} listens", 60)

    def listens(self):
        if self.process.poll() is not None:
            with open(os.path.join(self.dir, "log"), encoding="utf-8", errors="replace") as f:
                raise SystemExit(f"bench: {self.name} ended: {f.read()}")
        with open("/proc/net/tcp", encoding="ascii") as f, open("/proc/net/udp", encoding="ascii") as g:
            return f":{self.port:04X} " in f.read() + g.read()

    def arguments(self):
        return [f"via={self.via}", f"proxy=127.0.0.1:{self.port}", *self.options]

    def configure(self, name, text):
        path = os.path.join(self.dir, name)
        _write(path, text.format(port=self.port, dir=self.dir, sink=self.sink, target=TARGET))
        return path

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        for pid in self.group.pids() if self.group.cpu else []:
            os.kill(pid, signal.SIGKILL)
        self.group.close()


class Bare(Proxy):
    """What one relays to is fixed at its start: one of the sink's ports."""

    via = "direct"

    def __init__(self, name, directory, sink, kind, offset=0, count=1, target=TARGET):
        super().__init__(name, directory, sink)
        if kind == "socks":
            self.via = "socks5"
        self.spawn(os.path.join(BUILD, "tests", "bench", "relay"), kind, "127.0.0.1", str(self.port), target, str(sink + offset), str(count))


class Microsocks(Proxy):
    def __init__(self, name, directory, sink):
        super().__init__(name, directory, sink)
        self.spawn("microsocks", "-i", "127.0.0.1", "-p", str(self.port))


class Dante(Proxy):
    def __init__(self, name, directory, sink):
        super().__init__(name, directory, sink)
        self.spawn("danted", "-f", self.configure("danted.conf", """\
errorlog: {dir}/errors
internal: 127.0.0.1 port = {port}
external: 127.0.0.1
socksmethod: none
clientmethod: none
user.unprivileged: nobody
client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
"""))


class Squid(Proxy):
    via = "http"

    def __init__(self, name, directory, sink):
        super().__init__(name, directory, sink)
        self.spawn("squid", "-N", "-f", self.configure("squid.conf", """\
http_port 127.0.0.1:{port}
http_access allow all
cache deny all
cache_mem 8 MB
access_log none
cache_log {dir}/cache.log
cache_store_log none
pid_filename {dir}/squid.pid
coredump_dir {dir}
netdb_filename none
max_filedescriptors 20000
shutdown_lifetime 0 seconds
via off
forwarded_for delete
"""))


class Haproxy(Proxy):
    via = "direct"

    def __init__(self, name, directory, sink, splice=False, offset=0):
        super().__init__(name, directory, sink + offset)
        self.spawn("haproxy", "-db", "-f", self.configure("haproxy.cfg", """\
global
	maxconn 4500
	nbthread 1
	tune.pipesize 262144
defaults
	mode tcp
	timeout connect 10s
	timeout client 1h
	timeout server 1h
	""" + ("option splice-request\n\toption splice-response" if splice else "") + """
listen bench
	bind 127.0.0.1:{port}
	server sink {target}:{sink}
"""))


def policy_text(rules=10000):
    """Rules of every kind that an office has, none of which is about what is measured; that rule comes last."""
    kinds = ("deny  to domain .n{i}.example", "allow group g{g} to cidr 10.{a}.{b}.0/24 port 443", "deny  client 192.0.{b}.0/28",
             "allow user u{i} to domain www.n{i}.test port 22 443", "allow group g{g} command connect to domain .m{i}.example port 80 443")
    lines = ["rule r{i} ".format(i=i) + kinds[i % len(kinds)].format(i=i, g=i % 50, a=i // 256 % 256, b=i % 256) for i in range(rules - 2)]
    lines += [f"rule staff allow group staff to cidr 127.0.0.0/8", "rule anybody allow to cidr 127.0.0.0/8", "default deny", ""]
    return "\n".join(lines)


class Gatewayd(Proxy):
    """With 10,000 rules; log-ins of PAM that are remembered and a strict audit, or (relaxed) neither; in memory: without a disk."""

    def __init__(self, name, directory, sink, relaxed=False, workers=1, policy=None, in_memory=False, cpus=str(PROXY_CPU), **more):
        super().__init__(name, directory, sink, cpus)
        self.in_memory = in_memory
        self.options = () if relaxed else (f"user={USER}:{PASSWORD}",)
        if relaxed:
            more = {"listener_methods": ["none"], "audit_durability": "relaxed", **more}
        self.gateway = Gateway(policy=policy or policy_text(), workers=workers, resolver=["127.0.0.1:53"], remember_logins=3600000,
                               listener_commands=["connect", "udp"], pam_processes=1, **more)
        self.gateway.prefix = self.group.prefix
        if in_memory:
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", self.gateway.state], check=True)
        self.gateway.start()
        self.process, self.port = self.gateway.process, self.gateway.port
        self.group.pid = self.process.pid

    def close(self):
        if self.in_memory:
            self.gateway.stop()
            subprocess.run(["umount", "-l", self.gateway.state], check=True)
        self.gateway.close()
        super().close()


class Load:
    """One run of the load generator: opened, then started by a word."""

    group = None

    def __init__(self, mode, *options, cpu=LOAD_CPU):
        self.process = subprocess.Popen([*in_groups(self.group), "taskset", "-c", str(cpu), os.path.join(BUILD, "tests", "bench", "load"), mode, *options],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ready(self):
        line = self.process.stdout.readline()
        if line != b"ready\n":
            self.process.wait()
            raise RuntimeError(f"the load did not start: {self.process.args}")
        return self

    def go(self):
        self.process.stdin.write(b"go\n")
        self.process.stdin.flush()

    def result(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the load broke: {self.process.args}")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def measure(group, mode, *options, cpus=(LOAD_CPU,)):
    """One run of a load on each of the CPUs: what they say together, and the CPU time of the group meanwhile."""
    loads = []
    try:
        for cpu in cpus:
            loads.append(Load(mode, *options, cpu=cpu))
        for load in loads:
            load.ready()
        before = group.cpu_ns()
        for load in loads:
            load.go()
        results = [load.result() for load in loads]
        result = results[0]
        for other in results[1:]:
            for key in ("units", "bytes", "failures"):
                result[key] += other[key]
            for key in ("p50_us", "p99_us", "max_us"):
                result[key] = max(result[key], other[key])
        result["cpu_ns"] = group.cpu_ns() - before
        return result
    finally:
        for load in loads:
            load.close()


# ---- figures --------------------------------------------------------------------------------------------------------------------


class Table:
    """One figure of several proxies, in interleaved rounds."""

    def __init__(self, key, title, unit, base):
        self.key, self.title, self.unit, self.base = key, title, unit, base
        self.values, self.notes = {}, {}

    def add(self, name, value, **notes):
        self.values.setdefault(name, []).append(value)
        for k, v in notes.items():
            self.notes.setdefault(name, {}).setdefault(k, []).append(v)

    def ratios(self, name):
        return [a / b for a, b in zip(self.values[name], self.values[self.base])] if self.base in self.values else []

    def json(self):
        return {"title": self.title, "unit": self.unit, "base": self.base, "rounds": self.values, "notes": self.notes,
                "median": {n: statistics.median(v) for n, v in self.values.items()},
                "ratio": {n: statistics.median(self.ratios(n)) for n in self.values if self.ratios(n)}}

    def markdown(self):
        notes = sorted({k for n in self.notes.values() for k in n})
        lines = [f"## {self.title}", "", "| | " + self.unit + " | spread | " + (f"times {self.base} | spread |" if self.base else "")
                 + "".join(f" {k} |" for k in notes)]
        lines.append("|---|" + "---:|" * (lines[-1].count("|") - 2))
        for name, values in sorted(self.values.items(), key=lambda kv: statistics.median(kv[1])):
            row = f"| {name} | {statistics.median(values):.4g} | {min(values):.4g}-{max(values):.4g} |"
            ratios = self.ratios(name)
            if self.base:
                row += f" {statistics.median(ratios):.2f} | {min(ratios):.2f}-{max(ratios):.2f} |" if ratios else " | |"
            for k in notes:
                v = self.notes.get(name, {}).get(k)
                row += f" {statistics.median(v):.4g} |" if v else " |"
            lines.append(row)
        return "\n".join(lines) + "\n"


class Bench:
    def __init__(self, arguments):
        self.a = arguments
        self.dir = tempfile.mkdtemp(prefix="gwbench", dir="/tmp")
        os.chmod(self.dir, 0o755)
        enter_namespace(self.dir)
        self.sink = 20000
        self.proxies, self.tables, self.helpers, self.sinks = {}, [], [], []
        self.missing = sorted({p for program, p in PACKAGES.items() if shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin") is None})
        os.environ["PATH"] += ":/usr/sbin"
        if self.missing:
            say("bench: these are left out, since they are missing: " + " ".join(self.missing)
                + "\n       apt-get install --no-install-recommends " + " ".join(self.missing))

    # ---- servers ----

    def _helper(self, *command, ready=None):
        process = subprocess.Popen([*in_groups(Load.group), "taskset", "-c", str(LOAD_CPU), *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.helpers.append(process)
        if ready:
            process.stdout.readline()

    def start(self):
        Load.group = first_served("load")
        self._helper(os.path.join(BUILD, "tests", "bench", "load"), "sink", str(self.sink), str(self.a.sinks), ready=True)
        parent = self.helpers[-1].pid
        self.sinks = [parent, *map(int, subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False).stdout.split())]
        self._helper("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--no-poll", "--pid-file=",
                     "--listen-address=127.0.0.1", "--bind-interfaces", "--local=/test/", "--user=root", "--group=root",
                     f"--host-record={NAME},{TARGET},60")
        makers = {
            "bare copy": lambda n: Bare(n, self.dir, self.sink, "copy"),
            "gatewayd": lambda n: Gatewayd(n, self.dir, self.sink),
            "gatewayd, none, relaxed": lambda n: Gatewayd(n, self.dir, self.sink, relaxed=True),
        }
        if not self.a.ours:
            for name, make in {"microsocks": Microsocks, "danted": Dante, "squid": Squid, "haproxy": Haproxy}.items():
                if PACKAGES[name] not in self.missing:
                    makers[name] = lambda n, make=make: make(n, self.dir, self.sink)
        for name, make in makers.items():
            self.proxies[name] = make(name)

    def close(self):
        for p in list(self.proxies.values()):
            p.close()
        for h in self.helpers:
            h.kill()
            h.wait()
            h.stdout.close()
        remove_group(Load.group)
        shutil.rmtree(self.dir, ignore_errors=True)

    # ---- figures ----

    def rounds(self, table, runs, per=1.0, notes=lambda r: {}, cpus=(LOAD_CPU,)):
        """runs: {name: (group, mode, options)}; per: of the load's units or bytes."""
        self.tables.append(table)
        for _ in range(self.a.rounds):
            for name, (group, mode, options) in runs.items():
                r, n = self._one(table.key, name, group, mode, options, cpus)
                if r is not None:
                    table.add(name, r["cpu_ns"] / n * per, **notes(r))
            say(f"bench: {table.key}: " + ", ".join(f"{n} {v[-1]:.4g}" for n, v in table.values.items()))

    def _one(self, key, name, group, mode, options, cpus):
        """What one run says, and how many units it carried; longer where the machine was too busy to let it. Datagrams may get lost."""
        for seconds in (self.a.seconds, 4 * self.a.seconds, 16 * self.a.seconds):
            try:
                r = measure(group, mode, f"seconds={seconds}", *options, cpus=cpus)
            except RuntimeError as e:
                say(f"bench: {key}, {name}: {e}")
                continue
            n = r["bytes"] / 2**30 if mode == "bulk" else r["units"]
            if n > 0 and r["cpu_ns"] > 0 and (mode == "udp" or r["failures"] <= n / 100):
                return r, n
            say(f"bench: {key}, {name}: {r}")
        return None, 0

    def setup(self):
        to = f"to={TARGET}:{self.sink}"
        more = {
            # What any gateway has to do that is asked in SOCKS5.
            "bare socks": Bare("bare-socks", self.dir, self.sink, "socks"),
            # What a client waits for the disk is the difference.
            "gatewayd, audit in memory": Gatewayd("setup-memory", self.dir, self.sink, in_memory=True),
        }
        table = Table("setup", "Set-up by address, 64 bytes there and back, end", "us", "bare copy")
        self.rounds(table, {n: (p.group, "setup", [*p.arguments(), to, "n=64"]) for n, p in {**self.proxies, **more}.items()}, 1e-3,
                    lambda r: {"p50, ms": r["p50_us"] / 1e3, "p99, ms": r["p99_us"] / 1e3, "a second": r["units"] / r["seconds"]})
        for notes in table.notes.values() if "haproxy" in table.notes else ():
            notes["p99 to haproxy's"] = [a / b for a, b in zip(notes["p99, ms"], table.notes["haproxy"]["p99, ms"])]
        for p in more.values():
            p.close()
        named = {n: (p.group, "setup", [*p.arguments(), to, "n=64", *([f"name={NAME}"] if p.via == "socks5" else [])])
                 for n, p in self.proxies.items() if p.via == "socks5" or n == "bare copy"}
        self.rounds(Table("setup-name", "The same by name", "us", "bare copy"), named, 1e-3,
                    lambda r: {"p99, ms": r["p99_us"] / 1e3})

    def requests(self):
        self.rounds(Table("requests", "64 bytes there and back on open sessions", "us", "bare copy"),
                    {n: (p.group, "rr", [*p.arguments(), f"to={TARGET}:{self.sink}", "n=64"]) for n, p in self.proxies.items()}, 1e-3)

    def bulk(self):
        for direction, offset in (("down", 1), ("up", 2), ("both", 3)):
            fixed = {"bare copy": Bare(f"bare-copy-{direction}", self.dir, self.sink, "copy", offset),
                     "bare splice": Bare(f"bare-splice-{direction}", self.dir, self.sink, "splice", offset),
                     "bare splice, 1 MiB pipes": Bare(f"bare-splice-wide-{direction}", self.dir, self.sink, "splice-wide", offset)}
            if "haproxy" in self.proxies:
                fixed["haproxy"] = Haproxy(f"haproxy-{direction}", self.dir, self.sink, offset=offset)
                fixed["haproxy, splice"] = Haproxy(f"haproxy-splice-{direction}", self.dir, self.sink, True, offset)
            proxies = {**fixed, **{n: p for n, p in self.proxies.items() if p.via != "direct"}}
            for n in (1, 16):
                self.rounds(Table(f"bulk-{n}-{direction}", f"Bulk, {n} stream{'s' if n > 1 else ''}, {direction}", "CPU s/GiB", "bare splice"),
                            {name: (p.group, "bulk", [*p.arguments(), f"to={TARGET}:{self.sink + offset}", f"n={n}", f"direction={direction}"])
                             for name, p in proxies.items()}, 1e-9,
                            lambda r: {"Gbit/s": r["bytes"] * 8e-9 / r["seconds"]})
            for p in fixed.values():
                p.close()

    def udp(self):
        n = 4
        proxies = {name: p for name, p in self.proxies.items() if name.startswith("gatewayd") or name == "danted"}
        proxies["gatewayd, udp-offload off"] = apart = Gatewayd("no-offload", self.dir, self.sink, udp_offload=False)
        for key, title, more in (("udp", "UDP round trip, 64 bytes, 16 under way", []),
                                 ("udp-stream", "UDP stream, 1200 bytes, 64 under way", ["size=1200", "window=64"]),
                                 ("udp-joined", "The same between ends that join datagrams (UDP_SEGMENT, UDP_GRO)",
                                  ["size=1200", "window=64", "joined=1"])):
            target = JOINED_TARGET if "joined=1" in more else TARGET
            bare = Bare(f"bare-{key}", self.dir, self.sink, "udp", count=n, target=target)
            more = [*more, f"n={n}", f"to={target}:{self.sink}"]
            runs = {"bare udp": (bare.group, "udp", ["via=direct", f"proxy=127.0.0.1:{bare.port}", *more])}
            runs.update({name: (p.group, "udp", [*p.arguments(), *more]) for name, p in proxies.items()})
            self.rounds(Table(key, title, "us", "bare udp"), runs, 1e-3, lambda r: {"lost": r["failures"], "a second": r["units"] / r["seconds"]})
            bare.close()
        apart.close()

    def idle(self):
        table = Table("idle", f"Memory of an idle session ({self.a.idle} of them), user and kernel", "bytes", "bare copy")
        self.tables.append(table)
        settle = 2.5 if self.a.idle >= 1000 else 0.1  # what a gateway gives back a moment later is no session's
        for name, p in self.proxies.items():
            if name == "danted" and self.a.idle > 300:
                n = 300  # a process serves few: it would start hundreds
            else:
                n = self.a.idle
            before = p.group.user_bytes(), p.group.all_bytes()
            load = Load("idle", *p.arguments(), f"to={TARGET}:{self.sink}", f"n={n}")
            try:
                load.ready()
                time.sleep(settle)
                user, whole = p.group.user_bytes(), p.group.all_bytes()
                # Caches that fill once are in what the first ones took, and not in what more of them take.
                more = Load("idle", *p.arguments(), f"to={TARGET}:{self.sink}", f"n={n // 2}")
                try:
                    more.ready()
                    time.sleep(settle)
                    table.add(name, (whole - before[1]) / n if whole is not None else (user - before[0]) / n, user=(user - before[0]) / n,
                              **{"user, half as many more": (p.group.user_bytes() - user) / (n // 2)})
                finally:
                    more.close()
            except RuntimeError as e:
                say(f"bench: idle, {name}: {e}")
            finally:
                load.close()
            say(f"bench: idle: {name} {table.values.get(name)} {table.notes.get(name)}")

    def disk(self):
        table = Table("disk", "The disk: write 4 KiB and fdatasync(2)", "ms", None)
        self.tables.append(table)
        with open(os.path.join(self.dir, "disk"), "wb", buffering=0) as f:
            for _ in range(100):
                f.write(bytes(4096))
                began = time.perf_counter()
                os.fdatasync(f.fileno())
                table.add("fdatasync", (time.perf_counter() - began) * 1e3)

    def workers(self):
        """What sharing costs: the same work for each of more workers, all on the one CPU."""
        setup = Table("workers-setup", "Set-up by number of workers, 64 connections at a time for each", "us", "1 worker")
        bulk = Table("workers-bulk", "Bulk by number of workers, 16 streams for each", "CPU s/GiB", "1 worker")
        several = {f"{n} worker{'s' if n > 1 else ''}": Gatewayd(f"workers{n}", self.dir, self.sink, workers=n) for n in (1, 2, 4, 8)}
        runs = {n: (p.group, "setup", [*p.arguments(), f"to={TARGET}:{self.sink}", f"n={64 * int(n.split()[0])}"])
                for n, p in several.items()}
        # So many connections cost more than 64 do, whoever carries them.
        group, mode, options = runs["1 worker"]
        runs["1 worker, 512 at a time"] = (group, mode, [*options[:-1], "n=512"])
        self.rounds(setup, runs, 1e-3)
        self.rounds(bulk, {n: (p.group, "bulk", [*p.arguments(), f"to={TARGET}:{self.sink + 1}", f"n={16 * int(n.split()[0])}"])
                           for n, p in several.items()}, 1e-9)
        for p in several.values():
            p.close()

    def local(self):
        """Clients on both CPUs, and a worker on each: what it saves that a session stays on one."""
        table = Table("cpu-local", "Set-up with clients and workers on two CPUs, 32 connections at a time from each", "us", "by hash, none, relaxed")
        both = CPUS[0], CPUS[-1]
        several = {f"{'by CPU' if local else 'by hash'}{', none, relaxed' if relaxed else ''}":
                   Gatewayd(f"local{local:d}{relaxed:d}", self.dir, self.sink, relaxed=relaxed, workers=2, cpus=f"{both[0]},{both[1]}", cpu_local=local)
                   for relaxed in (True, False) for local in (False, True)}
        self.rounds(table, {n: (p.group, "setup", [*p.arguments(), f"to={TARGET}:{self.sink}", "n=32"]) for n, p in several.items()}, 1e-3,
                    lambda r: {"p50, ms": r["p50_us"] / 1e3, "p99, ms": r["p99_us"] / 1e3, "a second": r["units"] / r["seconds"]}, cpus=both)
        for p in several.values():
            p.close()

    def crowd(self):
        """Many idle sessions, and what a new one costs then."""
        table = Table("crowd", f"A new session beside {self.a.crowd} idle ones", "us", "100 idle")
        self.tables.append(table)
        p = Gatewayd("crowd", self.dir, self.sink, workers=max(2, -(-self.a.crowd // 8000)))
        options = [*p.arguments(), f"to={TARGET}:{self.sink}"]
        loads = []
        try:
            for label, sizes in (("100 idle", [100]), (f"{self.a.crowd} idle", [self.a.crowd // 4] * 4)):
                loads += [Load("idle", *options, f"n={n}", "sources=64", "targets=16").ready() for n in sizes]
                held = p.gateway.status()["sessions"] if "sessions" in p.gateway.status() else None
                for _ in range(self.a.rounds):
                    r = measure(p.group, "setup", f"seconds={self.a.seconds}", *options, "n=64")
                    table.add(label, r["cpu_ns"] / r["units"] * 1e-3)
                say(f"bench: crowd: {label} (held: {held}): {table.values[label]}")
        except RuntimeError as e:
            say(f"bench: crowd: {e}")
        finally:
            for load in loads:
                load.close()
            p.close()

    def watched(self, p, during):
        """What sessions see while during() goes on, and what the processes on their way did in the longest silence."""
        names = {"the load": None, **{f"sink {i}": pid for i, pid in enumerate(self.sinks)}, **p.group.roles()}
        pids = [f"look={pid}" for pid in names.values() if pid is not None]
        load = Load("watch", *p.arguments(), f"to={TARGET}:{self.sink}", "n=16", *pids).ready()
        load.go()
        took = during()
        load.go()
        r = load.result()
        load.close()
        r["gap"] = {name: {"ran": did["ran_us"] / 1e3, "waited": did["waited_us"] / 1e3} for name, did in zip(names, r["gap"])}
        return r, took

    def reload(self):
        """A new policy, in force while sessions are opened and carry small requests; all that makes it shares the worker's CPU."""
        table = Table("reload", "A policy of 10,000 rules and a list of 1,000,000 names put into force under load", "ms of silence at most", None)
        self.tables.append(table)

        def add(name, r, took):
            gap = r["gap"]
            table.add(name, r["silence_us"] / 1e3, **{
                "worst answer, ms": r["max_us"] / 1e3, "p99, ms": r["p99_us"] / 1e3, "failures": r["failures"], "applied in, s": took,
                "in it, ms: worker ran": gap["worker"]["ran"], "worker kept waiting": gap["worker"]["waited"],
                "load kept waiting": gap["the load"]["waited"],
                "a sink kept waiting": max(g["waited"] for n, g in gap.items() if n.startswith("sink "))})
            say(f"bench: reload: {name}: {r['silence_us'] / 1e3} ms of silence, {r['failures']} failures, {took:.1f} s, {gap}")

        def idle():
            time.sleep(3)  # what is silence of the machine's, not of the change's
            return 0

        def apply(p, i):
            g = p.gateway
            g.write_policy(head + f"rule turn{i} deny to domain turn{i}.example\n" + policy_text())
            began = time.monotonic()
            g.ctl("policy", "apply", g.policy_file, preexec_fn=p.group.join)
            return time.monotonic() - began

        head = 'set listed domain file "names.txt"\nrule listed deny to domain @listed\n'
        several = {"strict": Gatewayd("reload", self.dir, self.sink), "relaxed": Gatewayd("reload-relaxed", self.dir, self.sink, relaxed=True)}
        try:
            for p in several.values():
                p.gateway.write("names.txt", "".join(f"n{i}.list{i % 1000}.example\n" for i in range(self.a.names)))
            for i in range(2 if self.a.quick else 5):
                for name, p in several.items():
                    add(f"{name}, nothing changes", *self.watched(p, idle))
                    add(f"{name}, changed", *self.watched(p, lambda p=p, i=i: apply(p, i)))
        finally:
            for p in several.values():
                p.close()

    def markdown(self):
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            cpu = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), "?")
        head = [f"# What carrying bytes costs: {time.strftime('%Y-%m-%d %H:%M')} UTC", "",
                f"{cpu}, {len(CPUS)} CPUs, Linux {platform.release()}; load average {self.load[0]:.1f} before, {os.getloadavg()[0]:.1f} after.",
                f"{self.a.rounds} interleaved rounds of {self.a.seconds} s; medians, spread, and the median of the ratios of each round.", ""]
        return "\n".join(head) + "\n" + "\n".join(t.markdown() for t in self.tables)

    def write(self):
        with open(os.path.join(self.a.output, "bench.md"), "w", encoding="utf-8") as f:
            f.write(self.markdown())
        with open(os.path.join(self.a.output, "bench.json"), "w", encoding="utf-8") as f:
            json.dump({t.key: t.json() for t in self.tables}, f, indent=1)

    def run(self):
        """True if all that was wanted was measured."""
        self.load = os.getloadavg()
        figures = {"setup": self.setup, "requests": self.requests, "bulk": self.bulk, "udp": self.udp, "idle": self.idle, "disk": self.disk,
                   "workers": self.workers, "local": self.local, "crowd": self.crowd, "reload": self.reload}
        wanted = self.a.figures.split(",") if self.a.figures else [f for f in figures if not self.a.quick or f not in ("workers", "local", "crowd")]
        self.start()
        failed = []
        for name in wanted:
            try:
                figures[name]()
            except (AssertionError, OSError, RuntimeError, subprocess.SubprocessError) as e:
                failed.append(name)
                say(f"bench: {name} is not measured: {e}")
            self.write()
        print(self.markdown())
        say(f"bench: {os.path.join(self.a.output, 'bench.md')} and bench.json beside it")
        return not failed


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--quick", action="store_true", help="in three minutes")
    p.add_argument("--rounds", type=int, help="5; quick: 3")
    p.add_argument("--seconds", type=float, help="of one run: 1.5; quick: 0.3")
    p.add_argument("--figures", help="some of them, with commas between")
    p.add_argument("--idle", type=int, default=4000, help="sessions for the memory of one")
    p.add_argument("--crowd", type=int, default=50000, help="idle sessions beside which new ones are opened")
    p.add_argument("--names", type=int, default=1000000, help="in the list of the reload")
    p.add_argument("--sinks", type=int, default=4, help="processes that serve")
    p.add_argument("--ours", action="store_true", help="gatewayd and the bare relays alone")
    p.add_argument("--output", default=".", help="directory of bench.md and bench.json")
    a = p.parse_args()
    a.rounds = a.rounds or (3 if a.quick else 5)
    a.seconds = a.seconds or (0.3 if a.quick else 1.5)
    bench = Bench(a)
    try:
        return 0 if bench.run() else 1
    finally:
        bench.close()


sys.exit(main())
