"""The same handshake in every division into segments; data that comes with or right behind it."""

import pytest

from harness import socks

pytestmark = pytest.mark.hostile


def handshake(port, data=b""):
    return socks.greeting(socks.PASSWORD) + socks.login("ann", "ann-pass") + socks.request("127.0.0.1", port) + data


ANSWER_TO_ALL = 2 + 2 + 10


def check(c, data):
    got = c.receive(ANSWER_TO_ALL + len(data))
    assert got[:4] == b"\5\2\1\0" and got[4:6] == b"\5\0", got
    assert got[ANSWER_TO_ALL:] == data


def test_all_in_one_segment_with_early_data(shared, echo):
    with shared.client() as c:
        c.send(handshake(echo.port, b"early data"))
        check(c, b"early data")
        c.echo(b"and on")


def test_much_early_data(shared, echo):
    data = bytes(range(256)) * 256
    with shared.client() as c:
        c.send(handshake(echo.port, data))
        check(c, data)


def test_byte_at_a_time(shared, echo):
    with shared.client() as c:
        for b in handshake(echo.port, b"early"):
            c.send(bytes([b]))
        check(c, b"early")


def test_every_split_in_two(shared, echo):
    """The second part is sent when the gateway has surely read the first: another client has been served after it."""
    whole = handshake(echo.port, b"early")
    clients = [(shared.client(), at) for at in range(1, len(whole))]
    for c, at in clients:
        c.send(whole[:at])
    for _ in range(4):
        with shared.session("127.0.0.1", echo.port) as c:
            c.echo(b"in between")
    for c, at in clients:
        c.send(whole[at:])
    for c, _ in clients:
        with c:
            check(c, b"early")


def test_every_split_in_three_of_the_request_by_name(shared, echo):
    """Parts are separated by the answers of the earlier stages."""
    for host in (b"127.0.0.1", "127.0.0.1", "::ffff:127.0.0.1"):
        request = socks.request(host, echo.port)
        for at in range(1, len(request)):
            with shared.client() as c:
                assert c.greet(socks.NONE) == socks.NONE
                c.send(request[:at])
                c.send(request[at:] + b"x")
                assert c.reply() == socks.OK
                assert c.receive(1) == b"x"


def test_client_sends_all_and_ends_its_direction(shared, echo):
    with shared.client() as c:
        c.send(handshake(echo.port, b"only this"))
        c.socket.shutdown(1)
        check(c, b"only this")
        assert c.receive_all() == b""


def test_every_truncation_ends_quietly(shared, echo):
    whole = handshake(echo.port)
    for at in range(len(whole)):
        with shared.client() as c:
            c.send(whole[:at])
            c.socket.shutdown(1)
            c.receive_all()
    with shared.session("127.0.0.1", echo.port) as c:
        c.echo(b"still here")


def test_every_truncation_with_a_reset(shared, echo):
    whole = handshake(echo.port, b"data")
    for at in range(len(whole)):
        c = shared.client()
        c.send(whole[:at])
        c.abort()
    with shared.session("127.0.0.1", echo.port) as c:
        c.echo(b"still here")
