"""Choosing a method (RFC 1928 section 3) and logging in (RFC 1929)."""

import pytest

from harness import socks


def test_server_order_decides(shared):
    with shared.client() as c:
        assert c.greet(socks.NONE, socks.PASSWORD) == socks.PASSWORD


def test_no_acceptable_method(gateway):
    g = gateway(listener_methods=["password"])
    with g.client() as c:
        assert c.greet(socks.NONE, socks.GSSAPI) == socks.NO_METHOD
        assert c.receive_all() == b""
    assert "method" in g.row(event="denied")["reason"]


def test_listener_without_password_does_not_take_one(gateway):
    g = gateway(listener_methods=["none"])
    with g.client() as c:
        assert c.greet(socks.PASSWORD) == socks.NO_METHOD


@pytest.mark.hostile
def test_no_method_offered(shared):
    with shared.client() as c:
        assert c.greet() == socks.NO_METHOD
        assert c.receive_all() == b""


@pytest.mark.hostile
@pytest.mark.parametrize("count", [1, 2, 127, 128, 254, 255])
def test_method_lists_of_every_size(shared, echo, count):
    methods = [0x80 + i % 0x7F for i in range(count - 1)] + [socks.NONE]
    with shared.client() as c:
        assert c.greet(*methods) == socks.NONE
        assert c.request("127.0.0.1", echo.port) == socks.OK
        c.echo(b"x")


@pytest.mark.hostile
def test_255_methods_none_of_ours(shared):
    with shared.client() as c:
        assert c.greet(*[0x90] * 255) == socks.NO_METHOD


def test_wrong_password(gateway):
    g = gateway()
    with g.client() as c:
        c.greet(socks.PASSWORD)
        assert c.login("ann", "ann-pass!") != 0
        assert c.receive_all() == b""
    row = g.row(event="login-failed")
    assert (row["user"], row["client"], row["listener"], row["verdict"]) == ("ann", "127.0.0.1", "main", "deny")
    assert "ann-pass" not in str(row)
    assert "ann-pass" not in g.log()


def test_unknown_user(gateway):
    g = gateway()
    with g.client() as c:
        c.greet(socks.PASSWORD)
        assert c.login("nobody-here", "x") != 0
    assert g.row(event="login-failed")["user"] == "nobody-here"


def test_nothing_is_read_after_a_refused_login(shared, echo):
    with shared.client() as c:
        c.send(socks.greeting(socks.PASSWORD) + socks.login("ann", "wrong") + socks.login("ann", "ann-pass")
               + socks.request("127.0.0.1", echo.port) + b"data")
        assert c.receive(4)[3:4] != b"\0"
        assert c.receive_all() == b""


def test_a_password_of_255_bytes(gateway, echo):
    user, password = "u" * 255, "p" * 255
    g = gateway(users={user: password})
    with g.session("127.0.0.1", echo.port, user=user, password=password) as c:
        assert c.code == socks.OK
    assert g.row(event="open")["user"] == user


@pytest.mark.hostile
@pytest.mark.parametrize("user, password", [
    (b"", b"ann-pass"), (b"ann", b""), (b"", b""),
    (b"ann\0", b"ann-pass"), (b"ann\0junk", b"ann-pass"), (b"ann", b"ann-pass\0"), (b"ann", b"ann-pass\0junk"),
    (b"ann\n", b"ann-pass"), (b"ann", b"ann-pass\x7f"), (b"\x1b[2Jann", b"ann-pass"), (b"ann ", b"ann-pass"), (b" ann", b"ann-pass"),
    (b"\xff" * 255, b"\xff" * 255), (b"\0" * 255, b"\0" * 255), (b"ann:x", b"ann-pass"), (b"../../etc/passwd", b"x"),
])
def test_hostile_logins_never_succeed(shared, user, password):
    with shared.client() as c:
        assert c.greet(socks.PASSWORD) == socks.PASSWORD
        assert c.login(user, password) != 0
        assert c.receive_all() == b""


@pytest.mark.hostile
def test_rows_of_hostile_users_are_escaped(gateway):
    g = gateway()
    for user in (b"a\0b", b"a\nb", b"\x1b[2J", b"=cmd()", b"\xff\xfe"):
        with g.client() as c:
            c.greet(socks.PASSWORD)
            c.login(user, "x")
    rows = g.wait_rows(5, event="login-failed")
    assert len(rows) == 5
    for form in ("table", "csv"):
        text = g.ctl("audit", "query", "--format", form).stdout
        assert not any(b in text for b in (b"\x1b", b"\0", b"\xff", b"a\nb")), text


@pytest.mark.hostile
@pytest.mark.parametrize("version", [0, 2, 5, 0xFF])
def test_wrong_version_of_the_login(shared, version):
    with shared.client() as c:
        assert c.greet(socks.PASSWORD) == socks.PASSWORD
        c.send(bytes([version]) + socks.login("ann", "ann-pass")[1:])
        answer = c.receive_all()
        assert answer == b"" or answer[1] != 0
