"""kill -9 of all workers at once: the supervisor stays, service returns, and who was granted has a row."""

import threading

from harness import processes, servers, socks, wait


def test_all_workers_at_once(gateway, server):
    s = server(servers.Echo)
    g = gateway(workers=3)
    stop, ports = threading.Event(), []

    def ask():
        while not stop.is_set():
            try:
                with g.session("127.0.0.1", s.port, timeout=20) as c:
                    if c.code == socks.OK:
                        ports.append(c.socket.getsockname()[1])
            except (OSError, AssertionError):
                pass  # its worker was killed

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for t in threads:
        t.start()
    try:
        for _ in range(4):
            wait.until(lambda n=len(ports): len(ports) > n + 10, "clients are served", 40)
            old = wait.until(lambda: len(w := processes.of_role(g, "worker")) == 3 and w, "three workers")
            for pid in old:
                processes.kill(pid)
            wait.until(lambda: g.process.poll() is not None or len(set(processes.of_role(g, "worker")) - set(old)) == 3, "three new workers")
            assert g.process.poll() is None, g.log()
        wait.until(lambda n=len(ports): len(ports) > n + 10, "clients are served again", 40)
    finally:
        stop.set()
        for t in threads:
            t.join()
    recorded = {r["client_port"] for r in g.wait_rows(len(ports), event="open")}
    assert set(ports) <= recorded, (set(ports) - recorded, g.log())
