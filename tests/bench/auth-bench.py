"""What log-ins and GSSAPI cost: prints a table. Each figure that is compared comes from the same run."""

import os
import statistics
import sys
import threading
import time

sys.dont_write_bytecode = True
root = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
sys.path.insert(0, os.path.join(root, "tests", "integration"))

from harness import kdc, servers, socks, wait  # noqa: E402
from harness.gateway import Gateway  # noqa: E402

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


def latency_us(n, act):
    times = []
    for _ in range(n):
        begin = time.perf_counter()
        act()
        times.append((time.perf_counter() - begin) * 1e6)
    return statistics.median(times)


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
    g = Gateway(users={"ann": "ann-pass", "sleepy": "x"}, pam=SLOW, listener_methods=["password", "none"], throttle_user_failures=0,
                throttle_client_failures=0, pam_timeout=40000)
    g.write("module.sh", '#!/bin/sh\n[ "$PAM_USER" = sleepy ] && exec sleep 30\nexit 0\n')
    os.chmod(g.path("module.sh"), 0o755)
    g.start()
    stop = threading.Event()

    def try_again_and_again():
        i, clients = 0, []
        while not stop.is_set():
            try:
                c = g.client(source="127.0.0.9")
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

    try:
        login(g, "ann", "ann-pass")
        acts = {"a remembered user": lambda: login(g, "ann", "ann-pass"), "the method none": lambda: none(g)}
        alone = {what: latency_us(1500, act) for what, act in acts.items()}
        t = threading.Thread(target=try_again_and_again)
        t.start()
        wait.until(lambda: g.status()["auth"]["busy"] >= 2 and g.status()["auth"]["queued"] > 20, "modules sleep, and tries wait")
        beside = {what: latency_us(1500, act) for what, act in acts.items()}
        stop.set()
        t.join()
        for what in acts:
            say(f"{what}: median alone, and beside a user whose module sleeps 30 s", f"{alone[what]:.0f} us", f"{beside[what]:.0f} us",
                f"{beside[what] / alone[what]:.2f} times")
    finally:
        stop.set()
        g.close()


def gssapi(realm, level, name):
    size, piece = 192 << 20, 16 << 10
    echo = servers.Echo()
    g = Gateway(listener_methods=["gssapi"], gssapi_keytab=realm.keytab, gssapi_krb5_conf=realm.conf, workers=1).start()
    environment = realm.kinit("ann", "ann-secret")
    try:
        with kdc.Client(g.address, environment, timeout=120) as c:
            assert c.login(level) == level and c.request("127.0.0.1", echo.port) == socks.OK
            data = os.urandom(piece)
            # Bare: what the relay has to do, and nothing else; with a context of both ends in one process.
            peer = bare_peer(realm, environment)
            begin = time.process_time()
            for _ in range(4096):
                peer[1].unwrap(peer[0].wrap(data, level == kdc.CONFIDENTIALITY).message)
            bare = 4096 * piece / (time.process_time() - begin)
            frames = [kdc.frame(c.wrap(data)) for _ in range(size // piece)]
            worker = g.pids("worker")
            before = cpu_s(worker)
            t = threading.Thread(target=lambda: [c.send(f) for f in frames])
            t.start()
            got = 0
            while got < size:  # opened for the count of its bytes only: the client's own time is not measured
                kind, token = c.receive_message()
                got += len(c.context.unwrap(token).message)
            t.join()
            relayed = size / (cpu_s(worker) - before)
        say(f"GSSAPI with {name}: MiB per CPU second, opened and made again: bare, and through the relay", f"{bare / 2**20:.0f}",
            f"{relayed / 2**20:.0f}", f"{relayed / bare:.2f} times")
    finally:
        g.close()
        echo.close()


def bare_peer(realm, environment):
    import gssapi as api

    old = {k: os.environ.get(k) for k in ("KRB5_CONFIG", "KRB5CCNAME", "KRB5_KTNAME", "KRB5RCACHENAME")}
    os.environ.update({"KRB5_CONFIG": environment["KRB5_CONFIG"], "KRB5CCNAME": environment["KRB5CCNAME"],
                       "KRB5_KTNAME": realm.keytab, "KRB5RCACHENAME": "none:"})
    try:
        ours = api.SecurityContext(name=api.Name("socks@localhost", api.NameType.hostbased_service), usage="initiate",
                                   mech=api.MechType.kerberos)
        theirs = api.SecurityContext(usage="accept")
        token = ours.step()
        while token:
            token = theirs.step(token)
            token = ours.step(token) if token else None
        return ours, theirs
    finally:
        for k, v in old.items():
            os.environ.pop(k, None) if v is None else os.environ.__setitem__(k, v)


def main():
    print("| figure | | | |\n|---|---|---|---|")
    remembered()
    beside_a_sleeper()
    if kdc.available():
        realm = kdc.Realm({"ann": "ann-secret"})
        try:
            gssapi(realm, kdc.INTEGRITY, "integrity")
            gssapi(realm, kdc.CONFIDENTIALITY, "confidentiality")
        finally:
            realm.close()


main()
