"""What log-ins and GSSAPI cost: prints a table. Each figure that is compared comes from the same run."""

import os
import statistics
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
root = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
sys.path.insert(0, os.path.join(root, "tests", "integration"))

from harness import kdc, servers, socks, wait  # noqa: E402
from harness.gateway import BUILD, Gateway  # noqa: E402

SLOW = """\
auth optional pam_exec.so quiet {dir}/module.sh
auth required pam_pwdfile.so nodelay pwdfile={dir}/users
account required pam_permit.so
"""


def say(what, *values):
    print(f"| {what} | " + " | ".join(values) + " |", flush=True)


def cpu_s(pids):
    """User and system time of processes, in seconds."""
    ticks = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def login(g, user, password):
    with g.client() as c:
        c.send(socks.greeting(socks.PASSWORD) + socks.login(user, password))
        assert c.receive(4) == b"\5\2\1\0"


def none(g):
    with g.client() as c:
        c.send(socks.greeting(socks.NONE) + socks.request("203.0.113.1", 1))
        assert c.receive(2) == b"\5\0" and c.reply() == socks.NOT_ALLOWED


def latencies_us(n, *acts):
    """The medians of acts that take turns: whatever else the machine does, it does to all of them."""
    times = [[] for _ in acts]
    for _ in range(n):
        for act, into in zip(acts, times):
            begin = time.perf_counter()
            act()
            into.append((time.perf_counter() - begin) * 1e6)
    return [statistics.median(t) for t in times]


def remembered():
    users = {f"user{i}": f"pass{i}" for i in range(50)}
    g = Gateway(users=users).start()
    try:
        for user, password in users.items():
            login(g, user, password)
        before = g.status()["auth"]["conversations"]
        n, begin = 4000, time.monotonic()
        busy = cpu_s(g.pids("auth") + g.pids("worker"))
        names = list(users)
        for i in range(n):
            login(g, names[i % 50], users[names[i % 50]])
        seconds = time.monotonic() - begin
        busy = cpu_s(g.pids("auth") + g.pids("worker")) - busy
        calls = g.status()["auth"]["conversations"] - before
        say("log-ins of remembered users, one after the other", f"{n / seconds:.0f}/s", f"{calls} PAM conversations",
            f"{busy / n * 1e6:.0f} us of CPU in workers and auth")
    finally:
        g.close()


def beside_a_sleeper():
    """Two gateways: at one, a user whose module sleeps tries again and again."""
    made = []
    for _ in range(2):
        g = Gateway(users={"ann": "ann-pass", "sleepy": "x"}, pam=SLOW, listener_methods=["password", "none"], throttle_user_failures=0,
                    throttle_client_failures=0, pam_timeout=40000)
        g.write("module.sh", '#!/bin/sh\n[ "$PAM_USER" = sleepy ] && exec sleep 30\nexit 0\n')
        os.chmod(g.path("module.sh"), 0o755)
        made.append(g.start())
    quiet, troubled = made
    stop = threading.Event()

    def try_again_and_again():
        i, clients = 0, []
        while not stop.is_set():
            try:
                c = troubled.client(source="127.0.0.9")
                c.send(socks.greeting(socks.PASSWORD) + socks.login("sleepy", f"try{i}"))
                clients.append(c)
            except OSError:
                pass
            i += 1
            if len(clients) > 100:
                clients.pop(0).close()
            stop.wait(0.01)
        for c in clients:
            c.close()

    t = threading.Thread(target=try_again_and_again)
    try:
        for g in made:
            login(g, "ann", "ann-pass")
        t.start()
        wait.until(lambda: troubled.status()["auth"]["busy"] >= 2 and troubled.status()["auth"]["queued"] > 20, "modules sleep, and tries wait")
        for what, act in (("a remembered user", lambda g: login(g, "ann", "ann-pass")), ("the method none", none)):
            alone, beside = latencies_us(2000, lambda: act(quiet), lambda: act(troubled))
            say(f"{what}: median where nobody else is, and beside a user whose module sleeps 30 s", f"{alone:.0f} us", f"{beside:.0f} us",
                f"{beside / alone:.2f} times")
    finally:
        stop.set()
        t.join()
        for g in made:
            g.close()


def bare(realm, environment):
    """{level: bytes per CPU second} of libgssapi alone, in C."""
    e = {**os.environ, "KRB5_CONFIG": environment["KRB5_CONFIG"], "KRB5CCNAME": environment["KRB5CCNAME"], "KRB5_KTNAME": realm.keytab,
         "KRB5RCACHENAME": "none:"}
    out = subprocess.run([os.path.join(BUILD, "tests", "bench", "gss-bench"), "socks@localhost", "3"], env=e, stdout=subprocess.PIPE,
                         check=True).stdout.decode()
    return {line.split()[0]: float(line.split()[1]) for line in out.splitlines()}


def gssapi(realm, environment, level, name, base):
    """Bytes that an echo sends back: each is opened once and made once, as in gss-bench."""
    size, piece = 256 << 20, 16 << 10
    echo = servers.Echo()
    g = Gateway(listener_methods=["gssapi"], gssapi_keytab=realm.keytab, gssapi_krb5_conf=realm.conf, workers=1,
                listener_gssapi_protection="none").start()
    try:
        with kdc.Client(g.address, environment, timeout=120) as c:
            assert c.login(level) == level and c.request("127.0.0.1", echo.port) == socks.OK
            data = os.urandom(piece)
            frames = [data if level == kdc.NONE else kdc.frame(c.wrap(data)) for _ in range(size // piece)]
            worker = g.pids("worker")
            before = cpu_s(worker)
            t = threading.Thread(target=lambda: [c.send(f) for f in frames])
            t.start()
            got = 0
            while got < size:  # opened for the count of its bytes only: the client's own time is not measured
                if level == kdc.NONE:
                    got += len(c.receive(1 << 16))
                else:
                    got += len(c.context.unwrap(c.receive_message()[1]).message)
            t.join()
            relayed = size / (cpu_s(worker) - before)
        if base is None:
            say("GSSAPI without protection: MiB per CPU second through the relay", f"{relayed / 2**20:.0f}", "", "")
        else:
            say(f"GSSAPI with {name}: MiB per CPU second, made and opened in a bare loop in C, and through the relay", f"{base / 2**20:.0f}",
                f"{relayed / 2**20:.0f}", f"{relayed / base:.2f} times")
    finally:
        g.close()
        echo.close()


def gssapi_logins(realm, environment):
    """Contexts as a client makes them, one after the other, in processes of their own: the gateway's side is what is measured."""
    g = Gateway(listener_methods=["gssapi"], gssapi_keytab=realm.keytab, gssapi_krb5_conf=realm.conf, workers=1).start()
    try:
        def login_once():
            with kdc.Client(g.address, environment) as c:
                assert c.login(kdc.INTEGRITY) == kdc.INTEGRITY

        login_once()
        pids = {role: g.pids(role) for role in ("worker", "auth", "gssapi")}
        n, begin, before = 1000, time.monotonic(), {role: cpu_s(p) for role, p in pids.items()}
        for _ in range(n):
            login_once()
        seconds = time.monotonic() - begin
        busy = {role: (cpu_s(p) - before[role]) / n * 1e6 for role, p in pids.items()}
        say("GSSAPI log-ins, one after the other, by one client in Python", f"{n / seconds:.0f}/s",
            ", ".join(f"{role} {us:.0f} us" for role, us in busy.items()) + " of CPU each",
            f"{1e6 / max(busy.values()):.0f}/s at most, by the busiest process")
    finally:
        g.close()


def main():
    print("| figure | | | |\n|---|---|---|---|")
    remembered()
    beside_a_sleeper()
    if kdc.available():
        realm = kdc.Realm({"ann": "ann-secret"})
        try:
            environment = realm.kinit("ann", "ann-secret")
            base = bare(realm, environment)
            gssapi(realm, environment, kdc.NONE, "none", None)
            for level, name in ((kdc.INTEGRITY, "integrity"), (kdc.CONFIDENTIALITY, "confidentiality")):
                gssapi(realm, environment, level, name, base[name])
            gssapi_logins(realm, environment)
        finally:
            realm.close()


main()
