"""Garbage in every stage: a refusal or an end, never a crash (the sanitized build looks on), and the next client is served."""

import random
import socket

import pytest

from harness import socks

pytestmark = pytest.mark.hostile

GARBAGE = [
    b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
    b"CONNECT example.org:443 HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    b"\x04\x01\x00\x50\x7f\x00\x00\x01ann\x00",
    b"\x04\x01\x00\x50\x00\x00\x00\x01ann\x00localhost\x00",
    b"\x00" * 1000, b"\xff" * 1000, b"\x05\xff", b"\x05\x00" * 500, b"SSH-2.0-OpenSSH_9.2\r\n", b"\n" * 5000, b"\x01\x03ann\x03foo",
]


def alive(g, echo):
    with g.session("127.0.0.1", echo.port) as c:
        assert c.code == socks.OK
        c.echo(b"still here")


def end(c):
    """Everything that still comes, after our own end."""
    try:
        c.socket.shutdown(socket.SHUT_WR)
    except OSError:
        pass
    return c.receive_all()


def send(c, data):
    try:
        c.send(data)
    except (BrokenPipeError, ConnectionResetError):
        pass  # it has been refused before it was all sent


@pytest.mark.parametrize("stage", ["greeting", "login", "request"])
@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage(shared, echo, stage, garbage):
    with shared.client() as c:
        if stage == "login":
            c.greet(socks.PASSWORD)
        elif stage == "request":
            c.greet(socks.NONE)
        send(c, garbage)
        answer = end(c)
        if stage == "request":
            assert not answer.startswith(b"\5\0")
    alive(shared, echo)


def test_random_bytes_behind_each_valid_beginning(shared, echo):
    rnd = random.Random(1)
    beginnings = [b"", b"\5", socks.greeting(socks.PASSWORD), socks.greeting(socks.NONE), socks.greeting(socks.NONE) + b"\5\1\0",
                  socks.greeting(socks.NONE) + b"\5\1\0\3", socks.greeting(socks.PASSWORD) + b"\1"]
    for i in range(300):
        with shared.client() as c:
            send(c, beginnings[i % len(beginnings)] + rnd.randbytes(rnd.choice([1, 2, 5, 30, 300, 3000])))
            end(c)
    alive(shared, echo)


def test_flipped_bits_of_a_valid_handshake(shared, echo):
    whole = socks.greeting(socks.NONE) + socks.request(b"localhost.test", echo.port)
    for bit in range(len(whole) * 8):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        with shared.client() as c:
            send(c, bytes(changed))
            end(c)
    alive(shared, echo)


def test_a_flood_before_the_answer(shared, echo):
    """More than the handshake's buffer, while the gateway thinks: it is not read, and nothing of it is lost."""
    data = random.Random(2).randbytes(1 << 20)
    with shared.client() as c:
        import threading

        sender = threading.Thread(target=lambda: c.send(socks.greeting(socks.PASSWORD) + socks.login("ann", "ann-pass")
                                                        + socks.request("127.0.0.1", echo.port) + data))
        sender.start()
        assert c.receive(14)[4:6] == b"\5\0"
        assert c.receive(len(data)) == data
        sender.join()


def test_many_clients_that_say_nothing(shared, echo):
    silent = [shared.client() for _ in range(300)]
    alive(shared, echo)
    for c in silent:
        c.abort()
    alive(shared, echo)
