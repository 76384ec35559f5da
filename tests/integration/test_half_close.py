"""One direction ends, the other goes on: 16 MiB each way (what tunnels lose first)."""

import hashlib
import random
import socket
import struct
import threading

import pytest

from harness import servers, socks, wait

SIZE = 16 << 20
DATA = random.Random(7).randbytes(1 << 20) * (SIZE >> 20)
SUM = hashlib.sha256(DATA).digest()


def test_client_ends_first_and_reads_the_answer(gateway, server):
    s = server(servers.AnswerAfterEnd, DATA)
    g = gateway()
    with g.session("127.0.0.1", s.port) as c:
        assert c.code == socks.OK
        c.send(DATA)
        c.socket.shutdown(socket.SHUT_WR)
        assert hashlib.sha256(c.receive_all()).digest() == SUM
    assert hashlib.sha256(s.received).digest() == SUM
    row = g.row(event="ended")
    assert (row["bytes_up"], row["bytes_down"]) == (SIZE, SIZE)
    assert row["duration_us"] > 0


def test_server_ends_first_and_reads_on(gateway, server):
    s = server(servers.EndThenRead, DATA)
    g = gateway()
    with g.session("127.0.0.1", s.port) as c:
        assert c.code == socks.OK
        assert hashlib.sha256(c.receive_all()).digest() == SUM
        c.send(DATA)
        c.socket.shutdown(socket.SHUT_WR)
        assert s.done.wait(wait.seconds(60))
    assert hashlib.sha256(s.received).digest() == SUM
    row = g.row(event="ended")
    assert (row["bytes_up"], row["bytes_down"]) == (SIZE, SIZE)


def test_both_directions_at_once(shared, echo):
    with shared.session("127.0.0.1", echo.port) as c:
        sender = threading.Thread(target=lambda: (c.send(DATA), c.socket.shutdown(socket.SHUT_WR)))
        sender.start()
        assert hashlib.sha256(c.receive_all()).digest() == SUM
        sender.join()


def test_a_slow_reader_holds_the_sender_back(shared, server):
    """The gateway's memory stays bounded: what the client does not read, the server cannot send."""
    s = server(servers.EndThenRead, DATA)
    with shared.session("127.0.0.1", s.port, receive_buffer=4096) as c:
        assert c.code == socks.OK
        got = c.receive(1000)
        assert not s.done.is_set()
        got += c.receive_all()
        assert hashlib.sha256(got).digest() == SUM


class Resetting(servers._Server):
    """Reads a byte and answers with a reset; or tells how its peer ended."""

    def __init__(self, reset):
        self.reset, self.end, self.done = reset, None, threading.Event()
        super().__init__(servers._Handler)

    def talk(self, s):
        try:
            while s.recv(1):
                if self.reset:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    s.close()
                    return
            self.end = "end"
        except ConnectionResetError:
            self.end = "reset"
        finally:
            self.done.set()


def test_a_reset_of_either_side_is_one_at_the_other(gateway, server):
    """Not an end in good order: who reads must not take what came so far for all of it."""
    there, here = server(Resetting, False), server(Resetting, True)
    g = gateway()
    c = g.session("127.0.0.1", there.port)
    c.send(b"x")
    c.abort()
    assert there.done.wait(wait.seconds(40)) and there.end == "reset"
    with g.session("127.0.0.1", here.port) as c:
        c.send(b"x")
        with pytest.raises(ConnectionResetError):
            c.socket.recv(1)
    assert {r["reason"] for r in g.wait_rows(2, event="ended")} == {"client reset", "server reset"}


def test_a_reset_by_the_client_reaches_the_server(gateway, server):
    s = server(servers.Silent)
    g = gateway()
    c = g.session("127.0.0.1", s.port)
    assert c.code == socks.OK
    c.send(b"something")
    c.abort()
    assert s.ended.wait(wait.seconds(40))
    assert g.row(event="ended")["bytes_up"] in (0, 9)


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_reset_after_an_end_is_noticed(gateway, who):
    """Whoever has ended its direction vanishes, and the other says nothing."""
    g = gateway()
    with socket.create_server(("127.0.0.1", 0)) as listener, g.session("127.0.0.1", listener.getsockname()[1]) as c:
        with listener.accept()[0] as peer:
            ends, stays = (c.socket, peer) if who == "client" else (peer, c.socket)
            ends.shutdown(socket.SHUT_WR)
            stays.settimeout(wait.seconds(40))
            assert stays.recv(1) == b""
            ends.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            ends.close()
            assert g.row(event="ended")["reason"] == f"{who} reset"
