"""The address guard: what is refused unless the deciding rule opens it."""

import pytest

from harness import socks

EVERYTHING = "rule all allow\n"


@pytest.fixture(scope="module")
def guarded():
    from harness.gateway import Gateway

    g = Gateway(EVERYTHING, listener_methods=["none"]).start()
    yield g
    g.close()


def ask(g, host, port):
    with g.client() as c:
        c.greet(socks.NONE)
        return c.request(host, port)


@pytest.mark.parametrize("address", [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.254", "169.254.169.254",
    "172.16.0.1", "172.31.255.255", "192.168.0.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254",
    "::", "::1", "fc00::1", "fdff::1", "fe80::1", "febf::1", "fec0::1", "ff02::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b:1::10.0.0.1", "2002:a00:1::1", "::10.0.0.1", "::ffff:0:10.0.0.1",
    "2001:0:4136:e378:8000:63bf:f5ff:fffe", "fe80::5efe:10.0.0.1",
])
def test_guarded(guarded, address):
    assert ask(guarded, address, 9) == socks.NOT_ALLOWED


def test_reason_names_the_guard(guarded):
    ask(guarded, "169.254.169.254", 80)
    row = guarded.wait_rows(1, event="denied", address="169.254.169.254", port=80)[0]
    assert "guard" in row["reason"] or "guard" in str(row.get("detail", ""))


def test_opened_by_a_prefix_inside(gateway, echo):
    g = gateway("rule one allow to cidr 127.0.0.1/32\nrule rest allow\n")
    with g.session("127.0.0.1", echo.port) as c:
        assert c.code == socks.OK
    with g.session("127.0.0.2", echo.port) as c:
        assert c.code == socks.NOT_ALLOWED


def test_not_opened_by_everything(gateway, echo):
    g = gateway("rule all allow to cidr 0.0.0.0/0 ::/0\n")
    with g.session("127.0.0.1", echo.port) as c:
        assert c.code == socks.NOT_ALLOWED


def test_not_opened_by_a_negation(gateway, echo):
    g = gateway("rule all allow not to cidr 127.0.0.2/32\n")
    with g.session("127.0.0.1", echo.port) as c:
        assert c.code == socks.NOT_ALLOWED


def test_our_own_listener_is_guarded(gateway):
    g = gateway("rule all allow to cidr 127.0.0.0/8\n")
    with g.session("127.0.0.1", g.port) as c:
        assert c.code == socks.NOT_ALLOWED
