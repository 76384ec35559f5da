"""Programs of their own, so that they take no turn of the test's: an origin that answers at once, and clients at a steady rate.

    load.py origin                             says its port, serves until its input ends
    load.py clients HOST PORT ORIGIN-PORT RATE until its input ends; then says what came of it, as a JSON object
"""

import json
import queue
import socket
import struct
import subprocess
import sys
import threading
import time

ANSWER = b"served\n"
_THREADS = 48


def start(*arguments):
    return subprocess.Popen([sys.executable, __file__, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def finish(process):
    """Ends its input, and gives what it says."""
    process.stdin.close()
    try:
        return process.stdout.read()
    finally:
        process.stdout.close()
        process.wait(60)


def _origin():
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    print(listener.getsockname()[1], flush=True)

    def serve():
        while True:
            s, _ = listener.accept()
            s.sendall(ANSWER)
            s.close()

    threading.Thread(target=serve, daemon=True).start()
    sys.stdin.read()


def _one(address, request):
    """One whole session, as a client in a hurry has it: everything in one segment."""
    with socket.create_connection(address, 60) as s:
        s.sendall(request)
        got = b""
        while piece := s.recv(1000):
            got += piece
    if got[:4] != b"\5\0\5\0" or got[12:] != ANSWER:
        raise ValueError(f"answered {got!r}")


def _clients(host, port, origin_port, rate):
    request = b"\5\1\0" + b"\5\1\0\1\x7f\0\0\1" + struct.pack(">H", int(origin_port))
    jobs, done, errors, waits = queue.SimpleQueue(), [], [], []
    stop = threading.Event()

    def work():
        while (due := jobs.get()) is not None:
            try:
                _one((host, int(port)), request)
                done.append(1)
                waits.append(time.monotonic() - due)
            except (OSError, ValueError) as e:
                errors.append(str(e))

    threads = [threading.Thread(target=work) for _ in range(_THREADS)]
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    for t in threads:
        t.start()
    began = due = time.monotonic()
    while not stop.is_set():
        due += 1 / float(rate)
        time.sleep(max(0, due - time.monotonic()))
        jobs.put(due)
    for _ in threads:
        jobs.put(None)
    for t in threads:
        t.join()
    waits.sort()
    print(json.dumps({"served": len(done), "errors": len(errors), "first_errors": errors[:5], "seconds": time.monotonic() - began,
                      "per_second": len(done) / (time.monotonic() - began),
                      "median_ms": 1000 * waits[len(waits) // 2], "p99_ms": 1000 * waits[len(waits) * 99 // 100],
                      "worst_ms": 1000 * waits[-1]} if waits else {"served": 0, "errors": len(errors), "first_errors": errors[:5]}))


if __name__ == "__main__":
    {"origin": _origin, "clients": _clients}[sys.argv[1]](*sys.argv[2:])
