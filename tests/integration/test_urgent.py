"""Urgent data (RFC 6093): it may lose its mark on the way, and nothing else."""

import socket

from harness import socks


class Sink:
    """Takes one connection, its urgent byte in line."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def accept(self):
        s, _ = self._listener.accept()
        s.settimeout(10)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        return s

    def close(self):
        self._listener.close()


def read_all(s):
    got = b""
    while piece := s.recv(1000):
        got += piece
    return got


def test_urgent_bytes_of_the_client_arrive_in_their_place(gateway, server):
    sink = server(Sink)
    g = gateway()
    with g.session("127.0.0.1", sink.port) as c, sink.accept() as s:
        assert c.code == socks.OK
        c.send(b"before")
        c.socket.send(b"!", socket.MSG_OOB)
        c.send(b"after")
        c.socket.shutdown(socket.SHUT_WR)
        assert read_all(s) == b"before!after"


def test_urgent_bytes_of_the_server_arrive_in_their_place(gateway, server):
    sink = server(Sink)
    g = gateway()
    with g.session("127.0.0.1", sink.port) as c, sink.accept() as s:
        assert c.code == socks.OK
        s.sendall(b"before")
        s.send(b"!", socket.MSG_OOB)
        s.sendall(b"after")
        s.shutdown(socket.SHUT_WR)
        assert c.receive_all() == b"before!after"
