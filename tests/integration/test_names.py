"""What a client may call a name: one canonical form, addresses in disguise judged as addresses, the rest refused."""

import pytest

from harness import dns, socks, wait
from harness.gateway import Gateway

pytestmark = pytest.mark.hostile

POLICY = """\
rule bad   deny  to domain .bad.test
rule named allow to domain .good.test to cidr 127.0.0.0/8
rule one   allow by address to cidr 127.0.0.1/32
default deny
"""


class Fixture:
    def __init__(self):
        self.resolver = dns.Scripted(lambda name, kind, nth: [dns.record(name, dns.A, "127.0.0.1")] if kind == dns.A else [])
        self.gateway = Gateway(POLICY, resolver=[self.resolver.address], listener_methods=["none"]).start()

    def ask(self, name, port):
        self.resolver.asked.clear()
        with self.gateway.client() as c:
            c.greet(socks.NONE)
            return c.request(name, port)


@pytest.fixture(scope="module")
def names():
    f = Fixture()
    yield f
    f.resolver.close()
    f.gateway.close()


@pytest.mark.parametrize("name", [b"good.test", b"GOOD.test", b"a.Good.TEST", b"good.test.", b"a_b.good.test", b"x--y.good.test",
                                  b"a" * 63 + b".good.test"])
def test_accepted_and_asked_in_canonical_form(names, echo, name):
    assert names.ask(name, echo.port) == socks.OK
    assert set(names.resolver.names()) == {name.decode().lower().rstrip(".")}


@pytest.mark.parametrize("name", [
    b"", b".", b"..", b"good.test..", b".good.test", b"a..good.test",
    b"good.test\0", b"localhost\0.good.test", b"bad.test\0.good.test", b"\0",
    b"good .test", b" good.test", b"good.test ", b"good.test\n", b"good\t.test", b"good.test\r\n", b"\x7f.good.test", b"\x01good.test",
    b"a/b.good.test", b"a:80.good.test", b"a@good.test", b"%67ood.test", b"\\103.good.test", b"good\\.test", b"*.good.test",
    b"g\xc3\xb6\xc3\xb6d.test", b"\xff\xfe.good.test", b"good\xe3\x80\x82test", b"good.test#", b"a'b.good.test", b'a"b.good.test',
    b"a" * 64 + b".good.test", b"a." * 123 + b"good.test", b"a" * 255, b"[::1]", b"[127.0.0.1]", b"127.0.0.1:80", b"fe80::1%lo", b"fe80::1%1",
    b"1.2.3.4.5", b"256.256.256.256", b"0x.1", b"1.2.3.0x100", b"good.test.123", b"4294967296", b"0x1ffffffff", b"127.0.0.08",
])
def test_refused_without_a_lookup(names, echo, name):
    code = names.ask(name, echo.port)
    assert code not in (socks.OK, None), name
    assert names.resolver.asked == []


@pytest.mark.parametrize("name", [
    b"127.0.0.1", b"127.1", b"127.0.1", b"2130706433", b"0x7f000001", b"0x7f.1", b"0177.0.0.1", b"017700000001", b"0x7F.0x0.0x0.0x1",
    b"127.000.000.001", b"127.0.0.1.", b"::ffff:127.0.0.1", b"::FFFF:7f00:1", b"0:0:0:0:0:ffff:127.0.0.1",
])
def test_an_address_in_disguise_is_that_address(names, echo, name):
    assert names.ask(name, echo.port) == socks.OK
    assert names.resolver.asked == []


@pytest.mark.parametrize("name", [
    b"127.0.0.2", b"127.2", b"2130706434", b"0x7f000002", b"0177.0.0.2", b"10.0.0.1", b"0xa.1", b"012.0.0.1", b"0", b"0.0.0.0", b"0x0", b"00",
    b"169.254.169.254", b"0xa9fea9fe", b"2852039166", b"::", b"::1", b"::ffff:169.254.169.254", b"::ffff:a9fe:a9fe", b"64:ff9b::7f00:1",
    b"2002:7f00:1::", b"::127.0.0.1", b"fd00:ec2::254", b"fe80::1", b"ff02::1",
])
def test_a_denied_address_in_disguise_is_denied(names, echo, name):
    assert names.ask(name, echo.port) == socks.NOT_ALLOWED
    assert names.resolver.asked == []


@pytest.mark.parametrize("name", [b"bad.test", b"x.bad.test", b"BAD.TEST", b"bad.test.", b"X.Bad.Test.", b"evilgood.test", b"good.test.example",
                                  b"test", b"localhost", b"good.tes"])
def test_denied_names_are_never_looked_up(names, echo, name):
    assert names.ask(name, echo.port) == socks.NOT_ALLOWED
    assert names.resolver.asked == []


def test_the_longest_name(names, echo):
    name = (b"a" * 63 + b".") * 3 + b"b" * 51 + b".good.test"
    assert len(name) == 253
    assert names.ask(name, echo.port) == socks.OK
    assert names.ask(b"b" + name, echo.port) not in (socks.OK, None)
    assert names.resolver.asked == []


def test_what_was_refused_stands_escaped_in_the_audit(names, echo):
    names.ask(b"evil\0\x1b[2J.good.test", echo.port)

    def found():
        rows = names.gateway.rows(event="denied")
        return [r["name"] for r in rows if r.get("name", "").startswith("evil") and r["name"].endswith(".good.test")]

    wait.until(found, "the row of the refusal")
    assert "\x1b" not in found()[-1] and "\0" not in found()[-1]
