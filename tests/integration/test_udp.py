"""UDP ASSOCIATE (RFC 1928 sections 4 and 7): each destination decided and recorded, and only the client may send."""

import os
import signal
import socket
import threading
import time

import pytest

from harness import dns, ports, processes, servers, socks, wait

SERVED = {"listener_commands": ["connect", "udp"]}
ALLOW = "rule loopback allow to cidr 127.0.0.0/8 ::1/128\ndefault deny\n"
DENY = "rule no deny to cidr 127.0.0.0/8\ndefault deny\n"


def start(gateway, **options):
    return gateway(**{**SERVED, **options})


@pytest.fixture
def target(server):
    return server(servers.UdpEcho)


def test_echo_by_address(gateway, target):
    g = start(gateway)
    with g.associate() as a:
        assert a.code == socks.OK
        assert a.relay[0] == "127.0.0.1" and a.relay[1] > 0
        for size in (0, 1, 1400, 9000, 60000):
            assert a.echo("127.0.0.1", target.port, b"x" * size) == ("127.0.0.1", target.port)


def test_echo_by_name(gateway, target, dnsmasq):
    resolver = dnsmasq("--host-record=echo.test,127.0.0.1")
    g = start(gateway, resolver=[resolver.address])
    with g.associate() as a:
        assert a.echo("echo.test", target.port, b"hello") == ("127.0.0.1", target.port)
        assert a.echo("Echo.TEST.", target.port, b"again") == ("127.0.0.1", target.port)
    assert g.row(event="flow")["name"] == "echo.test"


@pytest.mark.skipif(not ports.has_ipv6(), reason="no IPv6 loopback")
def test_echo_by_ipv6(gateway, server, target):
    six = server(servers.UdpEcho, "::1")
    g = start(gateway)
    with g.associate() as a:
        assert a.echo("::1", six.port, b"six") == ("::1", six.port)
        assert a.echo("127.0.0.1", target.port, b"four") == ("127.0.0.1", target.port)
        assert a.echo("::ffff:127.0.0.1", target.port, b"mapped") == ("127.0.0.1", target.port)


@pytest.mark.skipif(not ports.has_ipv6(), reason="no IPv6 loopback")
def test_client_by_ipv6(gateway, target):
    g = start(gateway, ipv6=True)
    with socks.Association(("::1", g.port), declared=("::", 0)) as a:
        assert (a.code, a.relay[0]) == (socks.OK, "::1")
        assert a.echo("127.0.0.1", target.port, b"hello") == ("127.0.0.1", target.port)


def stranger(a, host, port, data, source="127.0.0.1"):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind((source, 0))
        s.sendto(socks.datagram(host, port, data), a.relay)


def test_a_strangers_datagram_does_not_capture_the_association(gateway, target):
    """Not his address, though he is first; not another port, once the client has spoken."""
    g = start(gateway)
    with g.associate() as a:
        stranger(a, "127.0.0.1", target.port, b"captured", "127.0.0.2")
        a.echo("127.0.0.1", target.port, b"mine")
        stranger(a, "127.0.0.1", target.port, b"other port")
        stranger(a, "127.0.0.1", target.port, b"other address", "127.0.0.2")
        a.echo("127.0.0.1", target.port, b"still mine")
        assert target.received == [b"mine", b"still mine"]


def test_the_declared_port_is_pinned(gateway, target):
    g = start(gateway)
    with g.associate(declared=("127.0.0.1", None)) as a:
        stranger(a, "127.0.0.1", target.port, b"other port")
        a.echo("127.0.0.1", target.port, b"mine")
        assert target.received == [b"mine"]


def test_the_declared_address_is_not_believed(gateway, target):
    """The client's address is that of its TCP connection, whatever it says."""
    g = start(gateway)
    with g.associate(declared=("127.0.0.2", None)) as a:
        stranger(a, "127.0.0.1", target.port, b"no", "127.0.0.2")
        a.echo("127.0.0.1", target.port, b"mine")
        assert target.received == [b"mine"]


@pytest.mark.hostile
def test_fragments_are_dropped(gateway, target):
    g = start(gateway)
    with g.associate() as a:
        for fragment in (1, 2, 127, 128, 129, 255):
            a.send("127.0.0.1", target.port, b"fragment", fragment)
        a.echo("127.0.0.1", target.port, b"whole")
        assert target.received == [b"whole"]


@pytest.mark.hostile
def test_malformed_datagrams_are_dropped(gateway, target):
    g = start(gateway)
    whole = socks.datagram("127.0.0.1", target.port, b"")
    with g.associate() as a:
        for n in range(len(whole)):
            a.socket.sendto(whole[:n], a.relay)
        for bad in (b"\0\1" + whole[2:], b"\1\0" + whole[2:], b"\0\0\0\2" + bytes(20), b"\0\0\0\xff" + bytes(20),
                    b"\0\0\0\3\0\0\x35x", b"\0\0\0\3\xffshort", b"\0\0\0\3\3a\0b\0\x35x", b"\xff" * 1000):
            a.socket.sendto(bad, a.relay)
        a.echo("127.0.0.1", target.port, b"whole")
        assert target.received == [b"whole"]


def test_replies_of_a_third_address_do_not_pass(gateway, target):
    g = start(gateway)
    with g.associate() as a:
        a.echo("127.0.0.1", target.port, b"x")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as third:
            third.bind(("127.0.0.3", 0))
            third.sendto(b"unasked", target.peers[0])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as third:
            third.sendto(b"another port", target.peers[0])
        a.echo("127.0.0.1", target.port, b"only this comes")


def test_a_denied_destination_in_an_allowed_association(gateway, target):
    g = start(gateway, policy=f"rule one allow to cidr 127.0.0.0/8 port {target.port}\ndefault deny\n")
    with g.associate() as a:
        for _ in range(5):
            a.send("127.0.0.1", 9, b"denied")
        a.send("192.0.2.1", target.port, b"denied")
        a.echo("127.0.0.1", target.port, b"allowed")
        assert target.received == [b"allowed"]
    rows = g.wait_rows(2, event="denied")
    assert sorted((r["address"], r["port"], r["command"]) for r in rows) == [("127.0.0.1", 9, "udp"), ("192.0.2.1", target.port, "udp")]
    assert {r["session"] for r in rows} == {g.row(event="open")["session"]}


def test_the_guard_holds_for_datagrams(gateway, target):
    """Nothing guarded is reached because a default allows."""
    g = start(gateway, policy="rule all allow\ndefault deny\n")
    with g.associate() as a:
        a.send("127.0.0.1", target.port, b"guarded")
        assert g.wait_rows(1, event="denied")[0]["address"] == "127.0.0.1"
        assert target.received == []


def test_policy_sees_names_before_they_are_looked_up(gateway, dns_server):
    d = dns_server(lambda name, kind, nth: [dns.record(name, kind, "127.0.0.1")] if kind == dns.A else [])
    g = start(gateway, policy="rule named allow to domain good.test to cidr 127.0.0.0/8\ndefault deny\n", resolver=[d.address])
    with g.associate() as a:
        a.send("secret.bad.test", 53, b"x")
        g.wait_rows(1, event="denied", name="secret.bad.test")
    assert d.asked == []


def test_what_still_waits_at_the_end_is_counted(gateway, server):
    silent = server(servers.UdpEcho, answer=False)
    g = start(gateway, resolver=[f"127.0.0.1:{silent.port}"], resolver_timeout=20000)
    with g.associate() as a:
        for _ in range(3):
            a.send("slow.test", 53, b"x")
        wait.until(lambda: silent.received, "the lookup")
        a.send("127.0.0.1", 9, b"x")
        g.row(event="flow")
    assert g.row(event="ended")["detail"]["dropped"]["unsent"] == 3


def test_an_unknown_name_is_recorded(gateway, dns_server):
    d = dns_server(lambda name, kind, nth: 3)
    g = start(gateway, resolver=[d.address])
    with g.associate() as a:
        a.send("unknown.test", 53, b"x")
        assert "does not exist" in g.row(event="denied")["reason"]


def test_a_slow_lookup_holds_nobody_up(gateway, target, dns_server):
    asked, go = threading.Event(), threading.Event()

    def answer(name, kind, nth):
        asked.set()
        go.wait(wait.seconds(40))
        return [dns.record(name, kind, "127.0.0.1")] if kind == dns.A else []

    d = dns_server(answer)
    g = start(gateway, workers=1, resolver=[d.address], resolver_timeout=20000)
    with g.associate() as a, g.associate() as b:
        for i in range(3):
            a.send("slow.test", target.port, b"slow %d" % i)
        assert asked.wait(wait.seconds(40))
        a.echo("127.0.0.1", target.port, b"the same association")
        b.echo("127.0.0.1", target.port, b"another")
        go.set()
        assert [a.receive()[1] for _ in range(3)] == [b"slow %d" % i for i in range(3)]


def test_an_address_that_cannot_be_sent_to_is_passed_over(gateway, target, dns_server):
    """There is no answer to wait for, as TCP has one; but whether there is a way is known at once."""
    d = dns_server(lambda name, kind, nth: [dns.record(name, dns.A, a) for a in ("255.255.255.255", "127.0.0.1")] if kind == dns.A else [])
    g = start(gateway, policy="rule all allow to cidr 127.0.0.0/8 255.255.255.255/32\ndefault deny\n", resolver=[d.address])
    with g.associate() as a:
        assert a.echo("both.test", target.port, b"x") == ("127.0.0.1", target.port)
    assert g.row(event="flow")["address"] == "127.0.0.1"


def test_rows_of_a_flow(gateway, target):
    g = start(gateway)
    with g.associate() as a:
        for size in (10, 20, 30):
            a.echo("127.0.0.1", target.port, b"x" * size)
        flow = g.row(event="flow")
    ended = g.row(event="flow-ended")
    opened, whole = g.row(event="open"), g.row(event="ended")
    assert (flow["address"], flow["port"], flow["rule"], flow["user"], flow["command"]) == (
        "127.0.0.1", target.port, "loopback", "ann", "udp")
    assert (ended["bytes_up"], ended["bytes_down"]) == (60, 60)
    assert (ended["detail"]["datagrams_up"], ended["detail"]["datagrams_down"]) == (3, 3)
    assert ended["duration_us"] > 0
    assert (whole["bytes_up"], whole["bytes_down"]) == (60, 60)
    assert {r["session"] for r in (flow, ended, whole)} == {opened["session"]}


def test_an_idle_flow_ends_and_its_association_goes_on(gateway, target):
    g = start(gateway, udp_idle_timeout=1000)
    with g.associate() as a:
        a.echo("127.0.0.1", target.port, b"x")
        assert "idle" in g.row(event="flow-ended")["reason"]
        a.echo("127.0.0.1", target.port, b"y")
        assert len(g.wait_rows(2, event="flow")) == 2


def test_a_flow_that_only_receives_keeps_no_other(gateway, server, target):
    """The first destination goes on answering; the second, used once, ends on time."""
    source = server(servers.UdpEcho, "127.0.0.4")

    def attempt(ms):
        g = start(gateway, udp_idle_timeout=ms)
        over = threading.Event()

        def answer_on(peer):
            while not over.wait(ms / 20000):
                source.socket.sendto(b"more", peer)

        with g.associate() as a:
            a.echo("127.0.0.4", source.port, b"first")
            goes_on = threading.Thread(target=answer_on, args=(source.peers[-1],))
            goes_on.start()
            try:
                a.send("127.0.0.1", target.port, b"second")
                g.wait_rows(1, event="flow-ended", address="127.0.0.1")
                assert "idle" in g.row(event="flow-ended", address="127.0.0.1")["reason"]
                if g.rows(event="flow-ended", address="127.0.0.4"):
                    raise wait.TooSlow("the first was silent for that long, too")
            finally:
                over.set()
                goes_on.join()
        assert target.received[-1] == b"second"

    wait.with_time_enough(attempt, 1000, 4000, 20000)


def test_the_association_ends_with_its_connection(gateway, target):
    g = start(gateway)
    with g.associate() as a:
        a.echo("127.0.0.1", target.port, b"x")
        a.control.close()
        g.row(event="ended")
        a.send("127.0.0.1", target.port, b"too late")
        a.send("127.0.0.1", target.port, b"too late")
        assert a.silent_or_refused(0.3)
        assert target.received == [b"x"]
    assert "association ended" in g.row(event="flow-ended")["reason"]


@pytest.mark.hostile
def test_bytes_on_the_control_connection_change_nothing(gateway, target):
    g = start(gateway)
    with g.associate() as a:
        a.control.send(b"noise" * 10000)
        a.echo("127.0.0.1", target.port, b"x")


def test_decided_anew_after_a_reload(gateway, target):
    g = start(gateway)
    with g.associate() as a:
        a.echo("127.0.0.1", target.port, b"before")
        g.write_policy(DENY)
        g.reload()
        a.send("127.0.0.1", target.port, b"after")
        assert "denied" in g.row(event="flow-ended")["reason"]
        a.send("127.0.0.1", target.port, b"after")
        assert g.row(event="denied")["rule"] == "no"
        assert target.received == [b"before"]
        g.write_policy(ALLOW)
        g.reload()
        a.send("127.0.0.1", target.port, b"asks for a decision")
        a.echo("127.0.0.1", target.port, b"allowed again")


def test_first_datagrams_wait_for_their_row(gateway, target):
    g = start(gateway, audit_timeout=60000)
    with g.associate() as a:
        recorder = g.pids("recorder")[0]
        os.kill(recorder, signal.SIGSTOP)
        try:
            for i in range(8):
                a.send("127.0.0.1", target.port, b"%d" % i)
            assert a.silent_for(0.5)
            assert target.received == []
        finally:
            os.kill(recorder, signal.SIGCONT)
        assert [a.receive()[1] for _ in range(8)] == [b"%d" % i for i in range(8)]


def test_the_reply_waits_for_its_row(gateway):
    g = start(gateway, audit_timeout=60000)
    recorder = g.pids("recorder")[0]
    with g.client() as c:
        c.greet(socks.PASSWORD)
        assert c.login("ann", "ann-pass") == 0
        os.kill(recorder, signal.SIGSTOP)
        try:
            c.send(socks.request("0.0.0.0", 0, socks.UDP))
            assert c.silent_for(0.5)
        finally:
            os.kill(recorder, signal.SIGCONT)
        assert c.reply() == socks.OK
    row = g.row(event="open")
    assert (row["command"], row.get("address"), row["user"]) == ("udp", None, "ann")


@pytest.mark.hostile
def test_destinations_of_an_association_are_bounded(gateway, target):
    """256 at a time; who has one keeps it."""
    g = start(gateway)
    with g.associate() as a:
        a.echo("127.0.0.1", target.port, b"first")
        for i in range(300):
            a.send(f"127.0.1.{i % 250 + 1}", 20000 + i, b"x")
            if i % 50 == 49:
                a.echo("127.0.0.1", target.port, b"%d" % i)
        assert len(g.wait_rows(256, event="flow")) == 256
    assert len(g.wait_rows(256, event="flow-ended")) == 256


@pytest.mark.hostile
def test_errors_of_destinations_stop_nothing(gateway, target, server):
    """ICMP says that nobody listens there; the next datagram leaves all the same."""
    deaf = server(servers.Refusing).port
    g = start(gateway)
    with g.associate() as a:
        for i in range(100):
            a.send("127.0.0.1", deaf, b"nobody")
            a.echo("127.0.0.1", target.port, b"%d" % i)
        for pid in g.pids("worker"):
            processes.rests(pid)


def test_an_error_alone_does_not_spin(gateway, server):
    deaf = server(servers.Refusing).port
    g = start(gateway)
    with g.associate() as a:
        for _ in range(50):
            a.send("127.0.0.1", deaf, b"nobody")
        g.row(event="flow")
        for pid in g.pids("worker"):
            processes.rests(pid)


@pytest.mark.root
def test_descriptors_return(gateway, target):
    g = start(gateway, workers=1)
    worker = g.pids("worker")[0]

    def count():
        return len(os.listdir(f"/proc/{worker}/fd"))

    with g.associate() as a:
        a.echo("127.0.0.1", target.port, b"x")
    wait.until(lambda: len(g.rows(event="ended")) == 1, "the first ends")
    first = count()
    many = [g.associate() for _ in range(50)]
    for a in many:
        a.echo("127.0.0.1", target.port, b"x")
    assert count() >= first + 150
    for a in many:
        a.close()
    wait.until(lambda: count() <= first, lambda: f"{first} descriptors, not {count()}")


def test_silence_ends_the_association(gateway, target):
    """Neither strangers nor what is dropped keeps it."""
    def attempt(ms):
        g = start(gateway, idle_timeout=ms, udp_idle_timeout=1000)
        with wait.within(ms):
            a = g.associate()
            a.send("127.0.0.1", target.port, b"x")
            assert a.receive(ms / 1000)[1] == b"x"
        with a:
            deadline = time.monotonic() + wait.seconds(40)
            a.control.socket.settimeout(0.1)
            while True:
                stranger(a, "127.0.0.1", target.port, b"stranger", "127.0.0.2")
                try:
                    assert a.control.socket.recv(1) == b""
                    break
                except TimeoutError:
                    assert time.monotonic() < deadline, "a stranger keeps the association"
        assert "idle" in g.row(event="ended")["reason"]

    wait.with_time_enough(attempt, 1500, 6000, 24000)


def test_a_log_in_is_needed_where_one_is(gateway):
    g = start(gateway)
    with g.client() as c:
        assert c.greet(socks.NONE) == socks.NO_METHOD


def test_a_stop_ends_associations_with_their_rows(gateway, target):
    g = start(gateway)
    with g.associate() as a:
        a.echo("127.0.0.1", target.port, b"hello")
        assert g.stop() == 0
    assert not [line for line in g.log().splitlines() if "error" in line]
    g.start()
    assert g.row(event="flow-ended")["bytes_up"] == 5
    assert g.row(event="ended", command="udp")["reason"] == "gateway is stopping"


ANY = {"listener_udp_replies": "any"}


def speak(to, data, source="127.0.0.3"):
    """A datagram from who was not asked; gives where it came from."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as third:
        third.bind((source, 0))
        third.sendto(data, to)
        return third.getsockname()


def test_others_may_answer_where_the_listener_says_so(gateway, target):
    """`udp-replies = "any"`: who was not contacted speaks first, is decided and recorded, and can be answered."""
    g = start(gateway, **ANY)
    with g.associate() as a, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as third:
        a.echo("127.0.0.1", target.port, b"x")
        third.bind(("127.0.0.3", 0))
        third.settimeout(wait.seconds(40))
        for data in (b"hello", b"", b"x" * 9000):
            third.sendto(data, target.peers[0])
            assert a.receive() == (third.getsockname(), data)
        a.send(*third.getsockname(), b"answer")
        assert third.recvfrom(100) == (b"answer", target.peers[0])
        row = g.row(event="flow", address="127.0.0.3")
        assert (row["detail"]["opened_by"], row["rule"], row["port"]) == ("destination", "loopback", third.getsockname()[1])
    ended = g.row(event="flow-ended", address="127.0.0.3")
    assert (ended["bytes_up"], ended["bytes_down"]) == (6, 9005)


def test_policy_decides_who_may_answer(gateway, target):
    g = start(gateway, policy=f"rule one allow to cidr 127.0.0.1/32 port {target.port}\ndefault deny\n", **ANY)
    with g.associate() as a:
        a.echo("127.0.0.1", target.port, b"x")
        speak(target.peers[0], b"denied")
        a.echo("127.0.0.1", target.port, b"only this comes")
        assert g.row(event="denied")["address"] == "127.0.0.3"
    assert g.row(event="ended")["detail"]["dropped"] == {"denied": 1}


def what_knocking_does(g, target):
    """How many of those who speak to an association unasked are denied and unsolicited, and the rows of flows and denials."""
    with g.associate() as a:
        a.echo("127.0.0.1", target.port, b"x")
        port = target.peers[-1]
        for i in range(1, 101):
            speak(port, b"denied", f"127.0.2.{i}")
        for i in range(1, 101):
            speak(port, b"allowed", f"127.0.1.{i}")
            if i <= 64:
                assert a.receive()[1] == b"allowed"
        for i in range(150):
            a.send("127.0.0.1", 20000 + i, b"x")
        a.echo("127.0.0.1", target.port, b"the client has its own share")
    dropped = g.row(event="ended")["detail"]["dropped"]
    rows = g.rows("--limit", "0")
    return (dropped["denied"], dropped["unsolicited"],
            len([r for r in rows if r["event"] == "flow" and r.get("detail", {}).get("opened_by")]),
            len([r for r in rows if r["event"] == "denied"]))


@pytest.mark.hostile
def test_those_who_knock_are_bounded(gateway, target):
    """They take no more than their share of an association, and fill no audit.  Who else uses this machine's loopback may knock, too (seen
    once in some hundred runs of everything): then all of it is done again."""
    for _ in range(3):
        g = start(gateway, policy="rule some allow to cidr 127.0.0.1/32 127.0.1.0/24\ndefault deny\n", **ANY)
        seen = what_knocking_does(g, target)
        if seen[0] == 100:
            break
    assert seen == (100, 36, 64, 32)


@pytest.mark.hostile
@pytest.mark.parametrize("by", ["address", "name"])
def test_denials_of_an_association_are_bounded(gateway, target, by):
    """A client that names ever new destinations fills neither the audit nor the log; the end tells how many there were."""
    g = start(gateway, policy=f"rule one allow to cidr 127.0.0.1/32 port {target.port}\nrule rest deny log alert\ndefault deny\n")
    began = time.monotonic()
    with g.associate() as a:
        for i in range(2000):
            a.send(f"127.{i // 250 + 1}.1.{i % 250 + 1}" if by == "address" else f"n{i}.test", 9, b"denied")
            if i % 50 == 49:
                a.echo("127.0.0.1", target.port, b"%d" % i)
    assert g.row(event="ended")["detail"]["dropped"] == {"denied": 2000}
    bound = 64 + time.monotonic() - began + 1
    rows = g.rows("--limit", "0", event="denied")
    assert 64 <= len(rows) <= bound
    assert {r["rule"] for r in rows} == {"rest"}
    wait.until(lambda: g.log().count("ALERT: ") == len(rows), "a line for each row")


@pytest.mark.hostile
def test_log_lines_of_those_who_knock_are_bounded(gateway, target):
    g = start(gateway, policy=f"rule one allow to cidr 127.0.0.1/32 port {target.port}\nrule rest deny log alert\ndefault deny\n", **ANY)
    with g.associate() as a:
        a.echo("127.0.0.1", target.port, b"x")
        for i in range(1, 101):
            speak(target.peers[0], b"denied", f"127.0.2.{i}")
        a.echo("127.0.0.1", target.port, b"y")
    assert g.row(event="ended")["detail"]["dropped"] == {"denied": 100}
    assert len(g.rows("--limit", "0", event="denied")) == 32
    assert g.log().count("ALERT: ") == 32


def test_what_was_dropped_is_in_the_record_of_the_end(gateway, target, server):
    g = start(gateway, policy="rule some allow to cidr 127.0.0.1/32\ndefault deny\n", workers=1)
    deaf = server(servers.Refusing).port
    with g.associate() as a:
        a.echo("127.0.0.1", target.port, b"x")
        for _ in range(3):
            a.send("127.0.0.1", target.port, b"fragment", 1)
        for _ in range(4):
            a.socket.sendto(b"\0\0\0\2", a.relay)
        for _ in range(5):
            stranger(a, "127.0.0.1", target.port, b"stranger", "127.0.0.2")
        for _ in range(6):
            a.send("127.0.0.9", target.port, b"denied")
        for _ in range(7):
            speak(target.peers[0], b"unsolicited")
        a.send("127.0.0.1", deaf, b"nobody")
        a.echo("127.0.0.1", target.port, b"y")
        wait.until(lambda: g.status()["workers"]["udp_icmp_errors"] == 1, "word that nobody listens")
        status = g.status()["workers"]
    detail = g.row(event="ended")["detail"]
    assert detail == {"dropped": {"fragments": 3, "malformed": 4, "strangers": 5, "denied": 6, "unsolicited": 7}, "icmp_errors": 1}
    for key, count in detail["dropped"].items():
        assert status["udp_" + key] == count == g.status()["workers"]["udp_" + key]


def test_an_association_that_dropped_nothing_says_nothing(gateway, target):
    g = start(gateway)
    with g.associate() as a:
        a.echo("127.0.0.1", target.port, b"x")
    assert "dropped" not in (g.row(event="ended").get("detail") or {})


def test_groups_and_monitors_are_in_the_rows_of_flows(gateway, target):
    g = start(gateway, policy=f"rule watch monitor deny group staff\nrule one allow to cidr 127.0.0.0/8 port {target.port}\ndefault deny\n")
    with g.associate() as a:
        a.echo("127.0.0.1", target.port, b"x")
        a.send("127.0.0.1", 9, b"denied")
        for row in (g.row(event="flow"), g.row(event="denied")):
            assert row["detail"] == {"groups": ["staff"], "monitors": [{"rule": "watch", "would": "deny"}]}
