"""Origin servers on loopback. Each closes with everything that it started."""

import http.server
import os
import socket
import socketserver
import threading

from . import wait


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 4096
    block_on_close = False

    def __init__(self, handler, host="127.0.0.1", port=0):
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.peers = []
        self.connected = threading.Semaphore(0)
        super().__init__((host, port), handler)
        self.host, self.port = self.server_address[:2]
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def process_request(self, request, client_address):
        self.peers.append(client_address)
        self.connected.release()
        super().process_request(request, client_address)

    def wait_connected(self):
        assert self.connected.acquire(timeout=wait.seconds(40)), "nobody connected to the server"

    def handle_error(self, request, client_address):
        pass  # a client that goes away is part of many tests

    def close(self):
        self.shutdown()
        self.server_close()


class _Handler(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.settimeout(wait.seconds(120))
        self.server.talk(self.request)


class Echo(_Server):
    """Sends back what comes, until its end; then ends."""

    def __init__(self, host="127.0.0.1", port=0):
        super().__init__(_Handler, host, port)

    @staticmethod
    def talk(s):
        while True:
            data = s.recv(1 << 16)
            if not data:
                break
            s.sendall(data)
        s.shutdown(socket.SHUT_WR)


class AnswerAfterEnd(_Server):
    """Reads to the end of what the client sends, and only then sends its answer: needs half-close."""

    def __init__(self, answer):
        self.answer, self.received = answer, b""
        super().__init__(_Handler)

    def talk(self, s):
        got = []
        while True:
            data = s.recv(1 << 16)
            if not data:
                break
            got.append(data)
        self.received = b"".join(got)
        s.sendall(self.answer)
        s.shutdown(socket.SHUT_WR)


class EndThenRead(_Server):
    """Sends its answer and ends that direction at once, then reads on: half-close the other way."""

    def __init__(self, answer):
        self.answer, self.received = answer, b""
        self.done = threading.Event()
        super().__init__(_Handler)

    def talk(self, s):
        s.sendall(self.answer)
        s.shutdown(socket.SHUT_WR)
        got = []
        while True:
            data = s.recv(1 << 16)
            if not data:
                break
            got.append(data)
        self.received = b"".join(got)
        self.done.set()


class Silent(_Server):
    """Accepts, reads, and never says a word."""

    def __init__(self, host="127.0.0.1", port=0):
        self.ended = threading.Event()
        super().__init__(_Handler, host, port)

    def talk(self, s):
        try:
            while s.recv(1 << 16):
                pass
        finally:
            self.ended.set()


class Named(_Server):
    """Says its name, and ends."""

    def __init__(self, name, host="127.0.0.1", port=0):
        self.name = name
        super().__init__(_Handler, host, port)

    def talk(self, s):
        s.sendall(self.name)
        s.shutdown(socket.SHUT_WR)
        s.recv(1)


class Deaf:
    """A port whose queue is full: a SYN gets no answer."""

    def __init__(self, host="127.0.0.1", port=0):
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((host, port))
        self._socket.listen(0)
        self.host, self.port = self._socket.getsockname()
        self._fill = []
        for _ in range(4):
            s = socket.socket()
            s.setblocking(False)
            s.connect_ex((self.host, self.port))
            self._fill.append(s)

    def answer(self):
        """From now on it does; gives the connection of who has waited for that."""
        mine = {s.getsockname() for s in self._fill}
        for s in self._fill:
            s.close()
        self._socket.settimeout(wait.seconds(40))
        while True:
            s, peer = self._socket.accept()
            if peer not in mine:
                return s
            s.close()

    def close(self):
        for s in (*self._fill, self._socket):
            s.close()


class Refusing:
    """A port that nobody listens on, and that nobody else can take meanwhile."""

    def __init__(self):
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.host, self.port = self._socket.getsockname()

    def close(self):
        self._socket.close()


class Http(_Server):
    """Files of a directory. barrier: answers wait until that many requests stand side by side."""

    def __init__(self, directory, barrier=None):
        gate = threading.Barrier(barrier) if barrier else None

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args):
                super().__init__(*args, directory=os.fspath(directory))

            def do_GET(self):
                if gate is not None:
                    gate.wait(wait.seconds(100))
                super().do_GET()

            def copyfile(self, source, outputfile):
                self.wfile.flush()
                self.request.sendfile(source)

            def log_message(self, *args):
                pass

        super().__init__(Handler)


class UdpEcho:
    """Sends each datagram back to where it came from; remembers what came."""

    def __init__(self, host="127.0.0.1", port=0, answer=True):
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((host, port))
        self.host, self.port = self.socket.getsockname()[:2]
        self.received, self.peers = [], []
        self._answer, self._closed = answer, False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        while True:
            try:
                data, peer = self.socket.recvfrom(1 << 17)
            except OSError:
                return
            if self._closed:
                return
            self.received.append(data)
            self.peers.append(peer[:2])
            if self._answer:
                try:
                    self.socket.sendto(data, peer)
                except OSError:
                    pass

    def close(self):
        self._closed = True
        with socket.socket(self.socket.family, socket.SOCK_DGRAM) as s:
            s.sendto(b"", (self.host, self.port))
        self._thread.join(wait.seconds(5))
        self.socket.close()
