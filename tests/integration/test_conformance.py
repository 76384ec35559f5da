"""What each message may hold, field by field at its bounds, and what the gateway answers to the byte. Every case names the section
that its expectation comes from, and is sent in one segment (all messages of the conversation pipelined, with early data) and byte
by byte: the answer must be the same.

RFC 1928 is SOCKS5, RFC 1929 its log-in; SOCKS4 and SOCKS4A are the two protocol texts of those names. "1928-6" is section 6."""

import collections
import os
import socket
import struct

import pytest

from harness import dns, ports, processes, servers, socks, wait
from harness.gateway import Gateway

pytestmark = pytest.mark.hostile

POLICY = "rule loopback allow to cidr 127.0.0.0/8 ::1/128\ndefault deny\n"
PORT = b"<P>"  # stands for an echo server's port

END = "END"  # the gateway closes
RELAY = "RELAY"  # a success reply with a true address; then bytes flow, early ones first
MORE = "MORE"  # no answer: it waits for the rest, until the handshake's deadline

Case = collections.namedtuple("Case", "section name sent answer")
CASES = []


def case(section, name, sent, *answer):
    CASES.append(Case(section, name, sent, answer))


def refused(code):
    return bytes([5, code, 0, 1]) + bytes(6)


def v5(port=PORT, version=5, command=1, reserved=0, kind=1, address=b"\x7f\0\0\1"):
    return bytes([version, command, reserved, kind]) + address + port


def name5(text):
    return v5(kind=3, address=bytes([len(text)]) + text)


def v4(port=PORT, version=4, command=1, address=b"\x7f\0\0\1", user=b"ann", name=b""):
    return bytes([version, command]) + port + address + user + b"\0" + name


def login(user=b"ann", password=b"ann-pass", version=1):
    return bytes([version, len(user)]) + user + bytes([len(password)]) + password


NONE, PASSWORD = b"\5\1\0", b"\5\1\2"
EDGES = [0, 1, 2, 3, 4, 5, 6, 0x7F, 0x80, 0xFE, 0xFF]


def edges(*but):
    return [b for b in EDGES if b not in but]


# ---- the first byte, for every version ----------------------------------------------------------------------------

for byte in [*edges(4, 5), ord("G"), 0x16, ord("\n")]:
    case("1928-3", f"version-{byte:#04x}", bytes([byte, 1, 0]), END)

# ---- method selection ------------------------------------------------------------------------------------------------

case("1928-3", "no-methods", b"\5\0", b"\5\xff", END)
for byte in range(256):
    if byte == 0:
        case("1928-3", "method-none", NONE + v5(), b"\5\0", RELAY)
    elif byte == 2:
        case("1928-3", "method-password", PASSWORD + login() + v5(), b"\5\2\1\0", RELAY)
    else:  # 0xff is what the server says when none fits: a client that offers it has offered nothing
        case("1928-3", f"method-{byte:#04x}-alone", bytes([5, 1, byte]), b"\5\xff", END)
for count in (2, 127, 128, 254, 255):
    case("1928-3", f"{count}-methods-the-last-is-ours", bytes([5, count]) + b"\x90" * (count - 1) + b"\0" + v5(), b"\5\0", RELAY)
    case("1928-3", f"{count}-methods-the-first-is-ours", bytes([5, count]) + b"\0" + b"\x90" * (count - 1) + v5(), b"\5\0", RELAY)
    case("1928-3", f"{count}-methods-none-is-ours", bytes([5, count]) + b"\x90" * count, b"\5\xff", END)
case("1928-3", "255-times-0xff", b"\5\xff" + b"\xff" * 255, b"\5\xff", END)
case("1928-3", "every-method-there-is", b"\5\xff" + bytes(range(255)) + login() + v5(), b"\5\2\1\0", RELAY)
case("1928-3", "the-server-prefers-the-log-in", b"\5\2\0\2" + login() + v5(), b"\5\2\1\0", RELAY)
case("1928-3", "one-method-twice", b"\5\2\0\0" + v5(), b"\5\0", RELAY)
case("1928-3", "bytes-behind-a-refusal", b"\5\1\x80" + v5() + b"data", b"\5\xff", END)
for cut in (b"\5", b"\5\1", b"\5\xff" + b"\x90" * 254):
    case("1928-3", f"cut-at-{len(cut)}", cut, MORE)

# ---- log-in --------------------------------------------------------------------------------------------------------

NO = b"\5\2\1\1"
for byte in edges(1):
    case("1929-2", f"version-{byte:#04x}", PASSWORD + login(version=byte), NO, END)
case("1929-2", "empty-user", PASSWORD + login(user=b""), NO, END)
case("1929-2", "empty-password", PASSWORD + login(password=b""), NO, END)
case("1929-2", "both-empty", PASSWORD + login(b"", b""), NO, END)
for count in (1, 254, 255):
    case("1929-2", f"user-of-{count}", PASSWORD + login(user=b"u" * count), NO, END)
    case("1929-2", f"password-of-{count}", PASSWORD + login(password=b"p" * count), NO, END)
case("1929-2", "both-of-255", PASSWORD + login(b"u" * 255, b"p" * 255), NO, END)
for byte in (*range(0x20), 0x7F):  # never to PAM
    case("1929-2", f"user-with-{byte:#04x}", PASSWORD + login(user=b"an" + bytes([byte]) + b"n"), NO, END)
    case("1929-2", f"password-with-{byte:#04x}", PASSWORD + login(password=b"ann-pass" + bytes([byte])), NO, END)
for byte in (0x80, 0xC3, 0xFF):
    case("1929-2", f"user-with-{byte:#04x}", PASSWORD + login(user=bytes([byte]) * 3), NO, END)
case("1929-2", "a-second-log-in-after-a-refusal", PASSWORD + login(password=b"wrong") + login() + v5() + b"data", NO, END)
case("1929-2", "a-request-in-place-of-a-log-in", PASSWORD + v5(), NO, END)
case("1929-2", "a-log-in-where-none-was-chosen", NONE + login(), b"\5\0" + refused(1), END)
for cut in (b"", b"\1", b"\1\3", b"\1\3ann", b"\1\3ann\x08", b"\1\3ann\x08ann-pas"):
    case("1929-2", f"cut-at-{len(cut)}", PASSWORD + cut, b"\5\2", MORE)

# ---- request -------------------------------------------------------------------------------------------------------

for byte in edges(5):
    case("1928-4", f"version-{byte:#04x}", NONE + v5(version=byte), b"\5\0" + refused(1), END)
for byte in edges(1, 2, 3):
    case("1928-6", f"command-{byte:#04x}", NONE + v5(command=byte), b"\5\0" + refused(7), END)
    case("1928-6", f"command-{byte:#04x}-with-a-name", NONE + v5(command=byte, kind=3, address=b"\4a.bc"), b"\5\0" + refused(7), END)
for byte in edges(0):  # "must be set to X'00'" binds the sender: nothing hangs on it here
    case("1928-4", f"reserved-{byte:#04x}", NONE + v5(reserved=byte), b"\5\0", RELAY)
for byte in edges(1, 3, 4):
    case("1928-6", f"address-type-{byte:#04x}", NONE + v5(kind=byte), b"\5\0" + refused(8), END)
case("1928-6", "command-and-address-type-unknown", NONE + v5(command=9, kind=9), b"\5\0" + refused(7), END)

for text in ("0.0.0.0", "255.255.255.255", "224.0.0.1", "169.254.169.254", "10.0.0.1", "192.0.2.1", "126.255.255.255", "128.0.0.0"):
    case("1928-5", f"ipv4-{text}", NONE + v5(address=socket.inet_aton(text)), b"\5\0" + refused(2), END)
for text in ("127.0.0.1",):
    case("1928-5", f"ipv4-{text}", NONE + v5(address=socket.inet_aton(text)), b"\5\0", RELAY)
for text in ("::", "ff02::1", "fe80::1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:db8::1",
             "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"):
    case("1928-5", f"ipv6-{text}", NONE + v5(kind=4, address=socket.inet_pton(socket.AF_INET6, text)), b"\5\0" + refused(2), END)
case("1928-5", "ipv6-mapped", NONE + v5(kind=4, address=socket.inet_pton(socket.AF_INET6, "::ffff:127.0.0.1")), b"\5\0", RELAY)
case("1928-4", "port-0", NONE + v5(port=b"\0\0"), b"\5\0" + refused(5), END)
case("1928-4", "port-0-of-a-name", NONE + v5(port=b"\0\0", kind=3, address=b"\x09127.0.0.1"), b"\5\0" + refused(5), END)

UNKNOWN = b"\5\0" + refused(4)  # well formed, and the resolver does not know it
BAD = b"\5\0" + refused(1)


def of(n):
    """A well-formed name of n bytes."""
    labels = [b"a" * 63] * (n // 64)
    rest = n - 64 * len(labels)
    return b".".join([*labels, b"b" * rest] if rest else [*labels[:-1], b"a" * 62, b"c"])


for n in (1, 2, 63, 64, 65, 127, 128, 252, 253):
    if n != 64:
        case("1928-5", f"name-of-{n}", NONE + name5(of(n)), UNKNOWN, END)
for n in (254, 255):
    case("1928-5", f"name-of-{n}", NONE + name5(of(n)), BAD, END)  # longer than DNS has them
case("1928-5", "name-of-253-and-a-dot", NONE + name5(of(253) + b"."), UNKNOWN, END)
case("1928-5", "name-of-0", NONE + name5(b""), BAD, END)
case("1928-5", "label-of-63", NONE + name5(b"a" * 63 + b".test"), UNKNOWN, END)
case("1928-5", "label-of-64", NONE + name5(b"a" * 64 + b".test"), BAD, END)
case("1928-5", "255-zeros", NONE + name5(bytes(255)), BAD, END)
case("1928-5", "255-dots", NONE + name5(b"." * 255), BAD, END)
for text in (b".", b"..", b".a.test", b"a..test", b"a.test..", b"localhost\0.test", b"\0", b" ", b"a.test\n", b"[::1]", b"127.0.0.1:80", b"1.2.3.256"):
    case("1928-5", f"name-{text!r}", NONE + name5(text), BAD, END)
for text in (b"127.0.0.1", b"127.0.0.1.", b"127.1", b"2130706433", b"0x7f000001", b"0177.0.0.1", b"::ffff:127.0.0.1"):
    case("1928-5", f"name-{text!r}-is-an-address", NONE + name5(text), b"\5\0", RELAY)
GOOD = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
for byte in range(256):
    case("1928-5", f"name-with-{byte:#04x}", NONE + name5(b"a" + bytes([byte]) + b"b.test"), UNKNOWN if byte in GOOD else BAD, END)

whole = v5()
for cut in range(len(whole) - len(PORT) + 2):
    case("1928-4", f"cut-at-{cut}", NONE + whole.replace(PORT, b"\0\1")[:cut], b"\5\0", MORE)
for cut in (name5(b"a.test")[:-3] + b"\0", NONE[:0] + v5(kind=3, address=b"\xff" + b"a" * 200, port=b""), v5(kind=4, address=b"\0" * 15, port=b"")):
    case("1928-4", f"cut-name-or-ipv6-at-{len(cut)}", NONE + cut, b"\5\0", MORE)

case("1928-4", "early-data", NONE + v5() + b"early data", b"\5\0", RELAY, b"early data")
case("1928-4", "early-data-like-a-greeting", NONE + v5() + NONE + v5(port=b"\0\1"), b"\5\0", RELAY, NONE + v5(port=b"\0\1"))
case("1928-4", "early-data-behind-a-log-in", PASSWORD + login() + v5() + b"\0\xff", b"\5\2\1\0", RELAY, b"\0\xff")
case("1928-4", "bytes-behind-a-refusal", NONE + v5(address=b"\x0a\0\0\1") + b"x" * 5000, b"\5\0" + refused(2), END)

# BIND must name its peer; UDP ASSOCIATE may name anything as its own end.
for text in ("0.0.0.0", "::", "::ffff:0.0.0.0"):
    packed = socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    case("1928-4", f"bind-for-{text}", NONE + v5(command=2, kind=4 if ":" in text else 1, address=packed), b"\5\0" + refused(2), END)
case("1928-6", "bind-for-a-denied-peer", NONE + v5(command=2, address=b"\x0a\0\0\1"), b"\5\0" + refused(2), END)
case("1928-5", "bind-for-a-bad-name", NONE + v5(command=2, kind=3, address=b"\1 "), BAD, END)
case("1928-5", "bind-for-an-unknown-name", NONE + v5(command=2, kind=3, address=b"\6a.test"), UNKNOWN, END)
case("1928-5", "udp-for-a-bad-name", NONE + v5(command=3, kind=3, address=b"\1 "), BAD, END)
case("1928-6", "udp-of-an-unknown-address-type", NONE + v5(command=3, kind=2), b"\5\0" + refused(8), END)

# ---- SOCKS4 and 4A -------------------------------------------------------------------------------------------------


def refused4(code=91):
    return bytes([0, code]) + bytes(6)


for byte in edges(1, 2):
    case("SOCKS4", f"command-{byte:#04x}", v4(command=byte), refused4(), END)
for n in (0, 1, 254, 255):
    case("SOCKS4", f"user-id-of-{n}", v4(user=b"u" * n), RELAY)
for n in (256, 1000, 4000):
    case("SOCKS4", f"user-id-of-{n}", v4(user=b"u" * n), refused4(), END)
case("SOCKS4", "user-id-without-an-end", v4(user=b"u" * 300)[:-1], refused4(), END)
for byte in (1, 0x0A, 0x1B, 0x20, 0x7F, 0x80, 0xFF):  # a claim, escaped wherever it is shown
    case("SOCKS4", f"user-id-with-{byte:#04x}", v4(user=b"a" + bytes([byte]) + b"b"), RELAY)
for text in ("0.0.0.0", "0.0.1.0", "0.1.0.1", "1.0.0.1", "255.255.255.255", "10.0.0.1"):
    case("SOCKS4", f"address-{text}", v4(address=socket.inet_aton(text)), refused4(), END)
case("SOCKS4", "port-0", v4(port=b"\0\0"), refused4(), END)
case("SOCKS4", "early-data", v4() + b"early", RELAY, b"early")
case("SOCKS4", "bind-for-0.0.0.0", v4(command=2, address=bytes(4)), refused4(), END)
for last in (1, 2, 127, 128, 255):
    case("SOCKS4A", f"0.0.0.{last}-of-an-unknown-name", v4(address=bytes([0, 0, 0, last]), name=b"a.test\0"), refused4(), END)
    case("SOCKS4A", f"0.0.0.{last}-of-an-address", v4(address=bytes([0, 0, 0, last]), name=b"127.0.0.1\0"), RELAY)
for n in (254, 255, 256, 1000):
    case("SOCKS4A", f"name-of-{n}", v4(address=b"\0\0\0\1", name=b"a" * n + b"\0"), refused4(), END)
case("SOCKS4A", "name-of-0", v4(address=b"\0\0\0\1", name=b"\0"), refused4(), END)
case("SOCKS4A", "name-without-an-end", v4(address=b"\0\0\0\1", name=b"a" * 300), refused4(), END)
case("SOCKS4A", "both-of-255", v4(address=b"\0\0\0\1", user=b"u" * 255, name=of(253) + b"..\0"), refused4(), END)
case("SOCKS4A", "early-data", v4(address=b"\0\0\0\1", name=b"127.0.0.1\0early"), RELAY, b"early")
for byte in range(1, 256):
    case("SOCKS4A", f"name-with-{byte:#04x}", v4(address=b"\0\0\0\1", name=b"a" + bytes([byte]) + b"b.test\0"), refused4(), END)
whole4 = v4(port=b"\0\1", address=b"\0\0\0\1", name=b"a.test\0")
for cut in range(1, len(whole4)):
    case("SOCKS4A", f"cut-at-{cut}", whole4[:cut], MORE)

# ---- running them ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nobody_knows():
    d = dns.Scripted(lambda name, kind, nth: 3)
    yield d.address
    d.close()


SERVED = {"listener_methods": ["password", "none"], "listener_versions": ["4", "5"], "listener_commands": ["connect", "bind", "udp"]}


@pytest.fixture(scope="module")
def gate(nobody_knows):
    g = Gateway(POLICY, resolver=[nobody_knows], ipv6=True, **SERVED)
    try:
        g.start()
        g.descriptors = held(g)
        yield g
    finally:
        g.close()


def held(g):
    """Descriptors of the workers; root alone may look."""
    return sum(len(processes.descriptors(pid)) for pid in g.pids("worker")) if os.geteuid() == 0 else 0


def client(g, sent):
    return g.client4() if sent[:1] == b"\4" else g.client()


def send(c, data, mode):
    try:
        for piece in [data] if mode == "at once" else [data[i:i + 1] for i in range(len(data))]:
            c.send(piece)
    except (BrokenPipeError, ConnectionResetError):
        pass  # it has been refused before it was all sent


def check_relay(c, early, sent):
    assert c.reply() == (socks.GRANTED4 if sent[:1] == b"\4" else socks.OK)
    assert c.bound[0] == "127.0.0.1" and c.bound[1] > 0
    assert c.receive(len(early)) == early
    c.echo(b"and on")
    c.socket.shutdown(socket.SHUT_WR)
    assert c.receive_all() == b""


@pytest.mark.parametrize("mode", ["at once", "byte by byte"])
@pytest.mark.parametrize("case", [c for c in CASES if MORE not in c.answer], ids=lambda c: f"{c.section} {c.name}")
def test_answer(gate, echo, case, mode):
    sent = case.sent.replace(PORT, struct.pack(">H", echo.port))
    with client(gate, sent) as c:
        send(c, sent, mode)
        answer = list(case.answer)
        if answer[0] not in (END, RELAY):
            want = answer.pop(0)
            assert c.receive(len(want)) == want
        if answer[0] == END:
            assert c.receive_all() == b""
        else:
            check_relay(c, b"".join(answer[1:]), sent)


def test_those_who_wait_for_more_are_ended_by_the_deadline(gateway, nobody_knows):
    """Every unfinished message, held at the same time: nothing but what is due is said before the deadline ends them."""
    def held_for(ms):
        g = gateway(POLICY, resolver=[nobody_knows], handshake_timeout=ms, **SERVED)
        with wait.within(ms):
            waiting = []
            for one in (c for c in CASES if MORE in c.answer):
                c = client(g, one.sent)
                c.send(one.sent)
                waiting.append((one, c))
            for one, c in waiting:
                due = b"".join(a for a in one.answer if a is not MORE)
                assert c.receive(len(due)) == due, one
            assert not any(ends_now(c) for _, c in waiting)
        return waiting

    waiting = wait.with_time_enough(held_for, 3000, 9000, 60000)
    assert len(waiting) >= 40
    for one, c in waiting:
        got = c.receive_all()
        if one.section == "1928-3":  # no method has been chosen: there is no form to say it in
            assert got == b"", one
        else:
            assert got == {"1929-2": b"\1\1", "1928-4": refused(1), "SOCKS4A": refused4()}[one.section], one
        c.close()


def ends_now(c):
    c.socket.setblocking(False)
    try:
        return c.socket.recv(1, socket.MSG_PEEK) is not None
    except BlockingIOError:
        return False
    finally:
        c.socket.settimeout(wait.seconds(40))


# ---- datagrams ---------------------------------------------------------------------------------------------------------

# What becomes of it: it comes back, or is counted under this word.
Datagram = collections.namedtuple("Datagram", "name sent fate")
DATAGRAMS = []


def d(name, fate, reserved=b"\0\0", fragment=0, kind=1, address=b"\x7f\0\0\1", port=PORT, data=b"x"):
    DATAGRAMS.append(Datagram(name, reserved + bytes([fragment, kind]) + address + port + data, fate))


for n in (0, 1, 2, 1472, 1473, 9000, 65507 - 10):
    d(f"data-of-{n}", "echo", data=b"x" * n)
for reserved in (b"\0\1", b"\1\0", b"\xff\xff"):
    d(f"reserved-{reserved.hex()}", "malformed", reserved=reserved)
for fragment in edges(0):
    d(f"fragment-{fragment}", "fragments", fragment=fragment)
for kind in edges(1, 3, 4):
    d(f"address-type-{kind}", "malformed", kind=kind)
for n in range(10):
    d(f"cut-at-{n}", "malformed", data=b"")
    DATAGRAMS[-1] = DATAGRAMS[-1]._replace(sent=DATAGRAMS[-1].sent.replace(PORT, b"\0\1")[:n])
d("ipv6-cut", "malformed", kind=4, address=b"\0" * 15, port=b"\0", data=b"")
d("name-of-0", "malformed", kind=3, address=b"\0")
d("name-cut", "malformed", kind=3, address=b"\xffshort", data=b"")
for text in (b"a..test", b" ", b"\0", b"localhost\0.test", bytes(255), b"a" * 255, b"a" * 64 + b".test"):
    d(f"name-{text[:20]!r}-of-{len(text)}", "malformed", kind=3, address=bytes([len(text)]) + text)
for text in (b"127.0.0.1", b"127.1", b"0x7f000001", b"::ffff:127.0.0.1"):
    d(f"name-{text!r}-is-an-address", "echo", kind=3, address=bytes([len(text)]) + text)
d("ipv6-mapped", "echo", kind=4, address=socket.inet_pton(socket.AF_INET6, "::ffff:127.0.0.1"))
for text in ("0.0.0.0", "10.0.0.1", "224.0.0.1", "255.255.255.255"):
    d(f"ipv4-{text}", "denied", address=socket.inet_aton(text))
d("an-unknown-name", "denied", kind=3, address=b"\6a.test")
d("name-of-253", "denied", kind=3, address=b"\xfd" + of(253))


@pytest.fixture
def udp_echo(server):
    return server(servers.UdpEcho)


def test_datagrams(gate, udp_echo):
    """RFC 1928 section 7, in one association: each comes back or is dropped and counted, and the next is served."""
    want = collections.Counter(one.fate for one in DATAGRAMS if one.fate != "echo")
    before = gate.status()["workers"]["udp_denied"]
    with gate.associate(user=None) as a:
        session = gate.wait_rows(1, event="open", command="udp")[-1]["session"]
        for n, one in enumerate(DATAGRAMS):
            a.socket.sendto(one.sent.replace(PORT, struct.pack(">H", udp_echo.port)), a.relay)
            if one.fate == "echo":
                data = one.sent[one.sent.index(PORT) + len(PORT):]
                assert a.receive() == (("127.0.0.1", udp_echo.port), data), one.name
            a.echo("127.0.0.1", udp_echo.port, b"%d" % n)
        wait.until(lambda: gate.status()["workers"]["udp_denied"] == before + want["denied"], "the lookups are over")
    assert gate.wait_rows(1, event="ended", session=session)[0]["detail"] == {"dropped": dict(want)}


def test_oversize_datagrams_of_a_destination(gate, udp_echo):
    """What fits no datagram with its header is not passed on in part."""
    with gate.associate(user=None) as a:
        a.echo("127.0.0.1", udp_echo.port, b"x")
        for n in (65507, 65507 - 9):
            udp_echo.socket.sendto(b"x" * n, udp_echo.peers[-1])
        udp_echo.socket.sendto(b"y" * (65507 - 10), udp_echo.peers[-1])
        assert a.receive() == (("127.0.0.1", udp_echo.port), b"y" * (65507 - 10))


@pytest.mark.parametrize("declared", [
    ("0.0.0.0", 0), ("127.0.0.1", 0), ("127.0.0.9", 0), ("192.0.2.1", 0), ("::", 0), ("::1", 0), (b"a.test", 0), ("0.0.0.0", None), ("192.0.2.1", None)])
def test_associate_whatever_it_names(gate, udp_echo, declared):
    """RFC 1928 sections 4 and 6: its own end, of which the port alone is believed."""
    with gate.associate(user=None, declared=declared) as a:
        assert (a.code, a.relay[0]) == (socks.OK, "127.0.0.1")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind(("127.0.0.9", 0))
            stranger.sendto(socks.datagram("127.0.0.1", udp_echo.port, b"from another address"), a.relay)
        a.echo("127.0.0.1", udp_echo.port, b"mine")
        assert udp_echo.received == [b"mine"]


# ---- an end at every step -------------------------------------------------------------------------------------------------

CONVERSATIONS = {
    "connect": NONE + v5() + b"data",
    "connect-log-in": PASSWORD + login() + v5() + b"data",
    "connect-name": NONE + name5(b"127.0.0.1") + b"data",
    "bind": NONE + v5(command=2) + b"data",
    "udp": NONE + v5(command=3) + b"data",
    "socks4": v4() + b"data",
    "socks4a": v4(address=b"\0\0\0\1", name=b"127.0.0.1\0") + b"data",
    "socks4-bind": v4(command=2) + b"data",
}


@pytest.mark.parametrize("how", ["reset", "end", "reset after the answer"])
@pytest.mark.parametrize("what", CONVERSATIONS)
def test_an_end_at_every_step(gate, echo, what, how):
    whole = CONVERSATIONS[what].replace(PORT, struct.pack(">H", echo.port))
    answered = 3 if whole[:1] == b"\5" else len(whole) - len(b"data")  # from so many bytes on
    for cut in range(len(whole) + 1):
        c = client(gate, whole)
        c.send(whole[:cut])
        if how == "end":
            c.socket.shutdown(socket.SHUT_WR)
            if what.startswith("connect") or what.startswith("socks4") and "bind" not in what:
                c.receive_all()
            c.close()
        else:
            if how != "reset" and cut >= answered:
                c.receive(1)
            c.abort()
    with gate.session("127.0.0.1", echo.port, user=None) as c:
        assert c.code == socks.OK
        c.echo(b"still here")


def test_afterwards_nothing_is_left(gate):
    """Of all the above: no session, no descriptor, and workers that rest."""
    wait.until(lambda: gate.status()["workers"]["sessions"] == 0, lambda: f"no session: {gate.status()['workers']}")
    for pid in gate.pids("worker"):
        processes.rests(pid)
    assert held(gate) == gate.descriptors


def test_every_case_says_where_it_comes_from():
    sections = collections.Counter(c.section for c in CASES)
    assert set(sections) == {"1928-3", "1928-4", "1928-5", "1928-6", "1929-2", "SOCKS4", "SOCKS4A"}
    assert len({(c.section, c.name) for c in CASES}) == len(CASES)
    assert len({one.name for one in DATAGRAMS}) == len(DATAGRAMS)
    print(f"{len(CASES)} cases of streams, {len(DATAGRAMS)} datagrams, {sum(map(len, CONVERSATIONS.values()))} steps that end; {dict(sections)}")
