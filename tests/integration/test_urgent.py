"""Urgent data (RFC 6093): it may lose its mark on the way, and nothing else; in every stage of a session."""

import os
import signal
import socket

from harness import servers, socks, wait


class Sink:
    """Takes one connection, its urgent byte in line."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def accept(self):
        s, _ = self._listener.accept()
        s.settimeout(wait.seconds(40))
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


def urgently(c, data):
    """Every byte of it with the mark."""
    for b in data:
        c.socket.send(bytes([b]), socket.MSG_OOB)


def test_an_urgent_handshake_is_a_handshake(shared, echo):
    with shared.client() as c:
        urgently(c, socks.greeting(socks.PASSWORD) + socks.login("ann", "ann-pass") + socks.request("127.0.0.1", echo.port) + b"early")
        assert c.receive(4) == b"\5\2\1\0"
        assert c.reply() == socks.OK
        assert c.receive(5) == b"early"
    with shared.client4() as c:
        urgently(c, socks.request4("127.0.0.1", echo.port) + b"early")
        assert c.reply() == socks.GRANTED4
        assert c.receive(5) == b"early"


def test_urgent_bytes_before_the_relay_arrive_in_their_place(gateway, server):
    """Both sides speak, urgently, while the grant is not yet durable."""
    sink = server(Sink)
    g = gateway(audit_timeout=60000)
    recorder = g.pids("recorder")[0]
    with g.client() as c:
        assert c.greet(socks.PASSWORD) == socks.PASSWORD
        assert c.login("ann", "ann-pass") == 0
        os.kill(recorder, signal.SIGSTOP)
        try:
            c.send(socks.request("127.0.0.1", sink.port) + b"a")
            with sink.accept() as s:
                urgently(c, b"bc")
                c.send(b"d")
                s.send(b"w", socket.MSG_OOB)
                s.send(b"x", socket.MSG_OOB)
                s.send(b"y", socket.MSG_OOB)
                s.sendall(b"z")
                s.shutdown(socket.SHUT_WR)
                assert c.silent_for(0.3)
                os.kill(recorder, signal.SIGCONT)
                assert c.reply() == socks.OK
                c.socket.shutdown(socket.SHUT_WR)
                assert read_all(s) == b"abcd"
                assert c.receive_all() == b"wxyz"
        finally:
            os.kill(recorder, signal.SIGCONT)


def test_urgent_bytes_on_both_sides_of_a_bind(shared):
    with shared.client() as c:
        assert c.greet(socks.NONE) == socks.NONE
        assert c.request("127.0.0.1", 20, socks.BIND) == socks.OK
        urgently(c, b"ab")
        with socket.create_connection(c.bound, wait.seconds(40)) as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
            peer.send(b"x", socket.MSG_OOB)
            peer.sendall(b"y")
            peer.shutdown(socket.SHUT_WR)
            assert c.reply() == socks.OK
            c.socket.shutdown(socket.SHUT_WR)
            assert read_all(peer) == b"ab"
            assert c.receive_all() == b"xy"


def test_urgent_bytes_of_a_peer_that_nobody_has_accepted_yet(gateway):
    g = gateway(workers=1, listener_methods=["none"], listener_commands=["bind"])
    worker = g.pids("worker")[0]
    with g.client() as c:
        assert c.greet(socks.NONE) == socks.NONE
        assert c.request("127.0.0.1", 20, socks.BIND) == socks.OK
        os.kill(worker, signal.SIGSTOP)
        try:
            peer = socket.create_connection(c.bound, wait.seconds(40))
            for byte in b"xy":
                peer.send(bytes([byte]), socket.MSG_OOB)
            peer.sendall(b"z")
            peer.shutdown(socket.SHUT_WR)
        finally:
            os.kill(worker, signal.SIGCONT)
        with peer:
            assert c.reply() == socks.OK
            assert c.receive_all() == b"xyz"


def test_urgent_bytes_do_not_end_an_association(shared, server):
    target = server(servers.UdpEcho)
    with shared.associate() as a:
        urgently(a.control, b"!!!")
        assert a.echo("127.0.0.1", target.port, b"x") == ("127.0.0.1", target.port)
