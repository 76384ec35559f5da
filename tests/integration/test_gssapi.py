"""GSSAPI (RFC 1961) with Kerberos: a real KDC, real tickets, and clients that do it right and wrong."""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

from harness import kdc, processes, servers, socks, wait
from harness.gateway import sanitized

pytestmark = pytest.mark.skipif(not kdc.available(), reason="needs krb5-kdc, krb5-admin-server, krb5-user and python3-gssapi")

USERS = {"ann": "ann-secret", "bob": "bob-secret"}
SKEW = 4
DCE = 0x1000 | 0x2 | 0x4 | 0x8 | 0x10 | 0x20  # a third token of the client is needed


@pytest.fixture(scope="module")
def realm():
    r = kdc.Realm({**USERS, "ann/admin": "x", "stranger/nowhere": "x"}, rules=["RULE:[2:$1-$2](.*-admin)s/-admin//", "DEFAULT"])
    yield r
    r.close()


@pytest.fixture(scope="module")
def ann(realm):
    return realm.kinit("ann", USERS["ann"])


def gssapi_gateway(gateway, realm, **options):
    return gateway(**{"listener_methods": ["gssapi", "password"], "listener_gssapi_protection": "none", "gssapi_keytab": realm.keytab,
                      "gssapi_krb5_conf": realm.conf, "listener_commands": ["connect", "bind", "udp"], **options})


@pytest.mark.parametrize("level", [kdc.NONE, kdc.INTEGRITY, kdc.CONFIDENTIALITY])
def test_levels(gateway, realm, ann, echo, level):
    g = gssapi_gateway(gateway, realm)
    with kdc.Client(g.address, ann) as c:
        assert c.login(level) == level
        assert c.request("127.0.0.1", echo.port) == socks.OK
        c.echo(b"hello")
        c.echo(bytes(range(256)) * 4000)
    row = g.row(event="open")
    assert (row["user"], row["method"], row["detail"]["groups"]) == ("ann", "gssapi", ["staff"])
    assert row["detail"]["principal"] == f"ann@{kdc.REALM}"
    assert row["detail"]["protection"] == ("none", "integrity", "confidentiality")[level]
    ended = g.row(event="ended")
    assert (ended["bytes_up"], ended["bytes_down"]) == (1024005, 1024005)


def refusal(g, **equal):
    return g.wait_rows(1, event="login-failed", **equal)[-1]["reason"]


def established(g, environment, **kwargs):
    c = kdc.Client(g.address, environment, **kwargs)
    assert c.greet(socks.GSSAPI) == socks.GSSAPI
    assert c.establish()
    return c


def works(g, environment, echo):
    """True if a whole session does: a GSSAPI process may be on its way, or busy machines too late for a short gssapi-timeout."""
    try:
        session(g, environment, echo, kdc.INTEGRITY).close()
        return True
    except (AssertionError, OSError):
        return False


def session(g, environment, echo, level):
    c = kdc.Client(g.address, environment)
    assert c.login(level) == level
    assert c.request("127.0.0.1", echo.port) == socks.OK
    return c


# ---- which protection ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("least, asked, answer", [
    ("none", kdc.NONE, kdc.NONE), ("none", kdc.SELECTIVE, kdc.CONFIDENTIALITY), ("integrity", kdc.NONE, kdc.INTEGRITY),
    ("integrity", kdc.CONFIDENTIALITY, kdc.CONFIDENTIALITY), ("confidentiality", kdc.INTEGRITY, kdc.CONFIDENTIALITY),
    (None, kdc.NONE, kdc.INTEGRITY)])
def test_no_less_than_the_listener_demands(gateway, realm, ann, echo, least, asked, answer):
    g = gssapi_gateway(gateway, realm, listener_gssapi_protection=least)
    with kdc.Client(g.address, ann) as c:
        assert c.login(asked) == answer
        assert c.request("127.0.0.1", echo.port) == socks.OK
        c.echo(b"x")


def test_policy_demands_a_strength(gateway, realm, ann, echo):
    g = gssapi_gateway(gateway, realm, policy="""\
rule secret allow strength gssapi-confidentiality to cidr 127.0.0.0/8
default deny
""")
    for level, code in ((kdc.NONE, socks.NOT_ALLOWED), (kdc.INTEGRITY, socks.NOT_ALLOWED), (kdc.CONFIDENTIALITY, socks.OK)):
        with kdc.Client(g.address, ann) as c:
            assert c.login(level) == level
            assert c.request("127.0.0.1", echo.port) == code
    with g.session("127.0.0.1", echo.port) as c:
        assert c.code == socks.NOT_ALLOWED
    assert g.rows(event="open")[0]["detail"]["protection"] == "confidentiality"


def test_a_protection_that_there_is_not(gateway, realm, ann):
    g = gssapi_gateway(gateway, realm)
    with established(g, ann) as c:
        assert c.protect(4) is None
    assert g.row(event="denied")["reason"] == "protocol error: the client wants a protection that there is not"


def test_nec_variant_only_where_it_is_allowed(gateway, realm, ann, echo):
    """The word about protection in plain, as curl --socks5-gssapi-nec sends it."""
    g = gssapi_gateway(gateway, realm)
    with established(g, ann) as c:
        assert c.protect(kdc.NONE, nec=True) is None
    assert "gssapi-nec would allow it" in g.row(event="denied")["reason"]
    g = gssapi_gateway(gateway, realm, listener_gssapi_nec=True)
    for level in (kdc.NONE, kdc.INTEGRITY):
        with established(g, ann) as c:
            assert c.protect(level, nec=True) == level
            assert c.request("127.0.0.1", echo.port) == socks.OK
            c.echo(b"x")
    with established(g, ann) as c:  # and the other way still works there
        assert c.protect(kdc.INTEGRITY) == kdc.INTEGRITY


# ---- what is not as agreed ------------------------------------------------------------------------------------------


def test_plain_request_after_protection(gateway, realm, ann, echo):
    g = gssapi_gateway(gateway, realm)
    with kdc.Client(g.address, ann) as c:
        assert c.login(kdc.INTEGRITY) == kdc.INTEGRITY
        c.send(socks.request("127.0.0.1", echo.port))
        kind, token = c.receive_message()
        assert kind == kdc.DATA and c.context.unwrap(token).message[:2] == b"\5\1"
    assert g.row(event="denied")["reason"] == "protocol error: plain bytes where GSSAPI protection was agreed on"


def test_plain_data_after_protection(gateway, realm, ann, echo):
    g = gssapi_gateway(gateway, realm)
    with session(g, ann, echo, kdc.CONFIDENTIALITY) as c:
        c.echo(b"x")
        c.send(b"GET / HTTP/1.0\r\n\r\n")
        assert c.receive_all() == b""
    assert g.row(event="ended")["reason"] == "plain bytes where GSSAPI protection was agreed on"


def test_integrity_where_confidentiality_was_agreed(gateway, realm, ann, echo):
    g = gssapi_gateway(gateway, realm)
    with session(g, ann, echo, kdc.CONFIDENTIALITY) as c:
        c.send_message(kdc.DATA, c.context.wrap(b"readable", False).message)
        assert c.receive_all() == b""
    assert g.row(event="ended")["reason"] == "a message without the confidentiality that was agreed on"


@pytest.mark.parametrize("spoil, words", [
    (lambda c: [c.wrap(b"one")] * 2, "a message of the client came twice"),
    (lambda c: [c.wrap(b"one"), (c.wrap(b"lost"), c.wrap(b"two"))[1]], "a message of the client is missing, or out of its place"),
    (lambda c: [c.wrap(b"one")[:-1] + b"\0", b""], "GSSAPI: A token had an invalid Message Integrity Check (MIC) ("),
    (lambda c: [b"x" * 65535], "GSSAPI: Invalid token was supplied (Token header is malformed"),
])
def test_messages_that_somebody_touched(gateway, realm, ann, echo, spoil, words):
    g = gssapi_gateway(gateway, realm)
    with session(g, ann, echo, kdc.INTEGRITY) as c:
        for token in spoil(c):
            if token:
                c.send_message(kdc.DATA, token)
        c.receive_all()
    assert g.row(event="ended")["reason"].startswith(words)


@pytest.mark.parametrize("bytes_, words", [
    (b"\1\1\0\0", "an empty GSSAPI token"), (b"\2\1\0\1x", "version is not 1"), (b"\1\2\0\1x", "no token"),
    (b"\1\xff", "the client aborted"), (b"\5\1\0", "version is not 1")])
def test_malformed_tokens(gateway, realm, bytes_, words):
    g = gssapi_gateway(gateway, realm)
    with g.client() as c:
        assert c.greet(socks.GSSAPI) == socks.GSSAPI
        c.send(bytes_)
        assert c.receive_all() == b"\1\xff"
    assert words in g.row(event="denied")["reason"]


def test_largest_token_and_garbage(gateway, realm, ann, echo):
    g = gssapi_gateway(gateway, realm)
    for token in (b"\0" * 65535, b"`" * 65535, b"\x60\x82\xff\xff" + b"\x06" * 40000, b"x"):
        with kdc.Client(g.address, ann) as c:
            assert c.greet(socks.GSSAPI) == socks.GSSAPI
            c.send_message(kdc.TOKEN, token)
            assert c.receive_all() == b"\1\xff"
    assert all(r["reason"].startswith("log-in denied: Kerberos: ") for r in g.wait_rows(4, event="login-failed"))
    session(g, ann, echo, kdc.INTEGRITY).close()


def test_one_byte_at_a_time(gateway, realm, ann, echo):
    g = gssapi_gateway(gateway, realm)
    with kdc.Client(g.address, ann) as c:
        whole = c.send
        c.send = lambda data: [whole(data[i:i + 1]) for i in range(len(data))]
        assert c.login(kdc.CONFIDENTIALITY) == kdc.CONFIDENTIALITY
        assert c.request("127.0.0.1", echo.port) == socks.OK
        c.echo(b"hello")


def test_all_in_one_piece(gateway, realm, ann, echo):
    """The request, and data behind it, in one message and in many, before the reply."""
    g = gssapi_gateway(gateway, realm)
    with kdc.Client(g.address, ann) as c:
        assert c.login(kdc.CONFIDENTIALITY) == kdc.CONFIDENTIALITY
        messages = [socks.request("127.0.0.1", echo.port) + b"first "] + [b"%d " % i for i in range(500)]
        c.send(b"".join(kdc.frame(c.wrap(m)) for m in messages))
        assert c.receive_plain(10)[1] == socks.OK
        want = b"first " + b"".join(messages[1:])
        assert c.receive_plain(len(want)) == want


def test_more_than_a_request(gateway, realm, ann):
    g = gssapi_gateway(gateway, realm)
    with kdc.Client(g.address, ann) as c:
        assert c.login(kdc.INTEGRITY) == kdc.INTEGRITY
        c.send_plain(b"\5\1\0\3" + b"\xff" + b"x" * 5000)
        c.receive_message()
    assert g.row(event="denied")["reason"] == "protocol error: more bytes than a request has"


# ---- tickets ---------------------------------------------------------------------------------------------------------


def test_first_token_twice(gateway, realm, ann, echo):
    """Whoever listened cannot log in with what was heard; not even after the process that heard it first is gone."""
    g = gssapi_gateway(gateway, realm)
    c = established(g, ann)
    for _ in range(2):
        with g.client(source="127.0.0.6") as thief:
            assert thief.greet(socks.GSSAPI) == socks.GSSAPI
            thief.send(kdc.frame(c.first, kdc.TOKEN))
            assert thief.receive_all() == b"\1\xff"
        processes.kill(processes.of_role(g, "gssapi")[0])
        wait.until(lambda: works(g, ann, echo), "another serves")
    assert all("replay" in r["reason"] for r in g.wait_rows(2, event="login-failed", client="127.0.0.6"))
    c.close()


def test_key_that_the_keytab_does_not_have(gateway, realm, ann):
    other = kdc.Realm({"ann": "x"})
    try:
        g = gssapi_gateway(gateway, realm)
        with kdc.Client(g.address, other.kinit("ann", "x")) as c:
            assert c.greet(socks.GSSAPI) == socks.GSSAPI
            assert not c.establish()
        assert refusal(g).startswith("log-in denied: Kerberos: ")
    finally:
        other.close()


def test_new_keys_are_read_at_reload(gateway, echo):
    r = kdc.Realm({"ann": "x"})
    try:
        g = gssapi_gateway(gateway, r)
        session(g, r.kinit("ann", "x"), echo, kdc.INTEGRITY).close()
        r.change_keys()
        later = r.kinit("ann", "x")
        with kdc.Client(g.address, later) as c:
            assert c.greet(socks.GSSAPI) == socks.GSSAPI
            assert not c.establish()
        before = g.pids("gssapi")
        g.reload()
        wait.until(lambda: g.pids("gssapi") not in ([], before), "another GSSAPI process")

        wait.until(lambda: works(g, later, echo), "the new keys are known")
    finally:
        r.close()


def keytab_of(realm):
    """One key of socks/localhost in that realm, as the file format has it."""
    parts = [realm, b"socks", b"localhost"]
    entry = struct.pack(">H", 2) + b"".join(struct.pack(">H", len(p)) + p for p in parts) + struct.pack(">IIB", 1, 1, 1)
    entry += struct.pack(">HH", 18, 32) + b"k" * 32
    return b"\5\2" + struct.pack(">i", len(entry)) + entry


@pytest.mark.parametrize("content, words", [
    (None, "not found"), (b"", "cannot read gssapi-keytab"), (b"\5\2", "holds no key"), (b"no keytab at all", "cannot read gssapi-keytab"),
    (b"\5\2\0\0\0\x20" + b"x" * 32, "gssapi-keytab"), (keytab_of(b"ELSEWHERE.TEST"), "realms only that krb5.conf does not know")])
def test_bad_keytab_at_reload_costs_nothing(gateway, echo, content, words):
    """The answer says what is wrong with it, and log-ins go on with the keys of before; nothing that was restarted waits."""
    r = kdc.Realm({"ann": "x"})
    try:
        g = gssapi_gateway(gateway, r)
        ticket, before = r.kinit("ann", "x"), g.pids("gssapi")
        with open(r.keytab, "rb") as f:
            good = f.read()
        os.unlink(r.keytab)
        if content is not None:
            with open(r.keytab, "wb") as f:
                f.write(content)
        told = g.ctl("reload", check=False)
        assert words in told.out + told.err and "go on with what was read before" in told.out + told.err, (told.out, told.err)
        session(g, ticket, echo, kdc.INTEGRITY).close()
        assert g.pids("gssapi") == before
        with open(r.keytab, "wb") as f:
            f.write(good)
        assert "gssapi" not in g.ctl("reload").out
        wait.until(lambda: g.pids("gssapi") not in ([], before) and len(g.pids("gssapi")) == 1, "the mended one is read")
        session(g, ticket, echo, kdc.INTEGRITY).close()
    finally:
        r.close()


def test_bad_krb5_conf_at_reload_costs_nothing(gateway, echo):
    r = kdc.Realm({"ann": "x"})
    try:
        g = gssapi_gateway(gateway, r)
        ticket, before = r.kinit("ann", "x"), g.pids("gssapi")
        with open(r.conf, encoding="utf-8") as f:
            good = f.read()
        for bad, words in (("[libdefaults\nx", "is not valid"), (None, "cannot read gssapi-krb5-conf")):
            os.unlink(r.conf)
            if bad is not None:
                with open(r.conf, "w", encoding="utf-8") as f:
                    f.write(bad)
            told = g.ctl("reload", check=False)
            assert words in told.out + told.err, (told.out, told.err)
            assert g.pids("gssapi") == before
            with open(r.conf, "w", encoding="utf-8") as f:
                f.write(good)
            session(g, ticket, echo, kdc.INTEGRITY).close()
    finally:
        r.close()


def test_a_new_process_that_does_not_start(gateway, realm, ann, echo):
    """It is given its time, ended, and told of; the one that serves is asked all the while."""
    g = gssapi_gateway(gateway, realm, gssapi_timeout=1000)
    before = g.pids("gssapi")
    with open(realm.keytab, "rb") as f:
        good = f.read()
    os.unlink(realm.keytab)
    os.mkfifo(realm.keytab)  # who opens it waits for a writer
    try:
        told = g.ctl("reload", check=False)
        assert "ended: signal 9" in told.out + told.err, (told.out, told.err)
        wait.until(lambda: works(g, ann, echo), "log-ins")
        assert g.pids("gssapi") == before
    finally:
        os.unlink(realm.keytab)
        with open(realm.keytab, "wb") as f:
            f.write(good)


def test_log_in_under_way_at_a_reload(gateway, realm, ann, echo):
    """Its context stays where it is until it is done; then the process that had it goes."""
    g = gssapi_gateway(gateway, realm)
    before = g.pids("gssapi")
    with kdc.Client(g.address, ann, flags=DCE) as c:
        assert c.greet(socks.GSSAPI) == socks.GSSAPI
        c.send_message(kdc.TOKEN, c.first)
        kind, token = c.receive_message()
        assert kind == kdc.TOKEN
        g.reload()
        wait.until(lambda: len(g.pids("gssapi")) == 2, "both are there")
        session(g, ann, echo, kdc.INTEGRITY).close()
        assert set(before) < set(g.pids("gssapi"))
        c.send_message(kdc.TOKEN, c.context.step(token))
        assert c.protect(kdc.INTEGRITY) == kdc.INTEGRITY
        assert c.request("127.0.0.1", echo.port) == socks.OK
        wait.until(lambda: len(g.pids("gssapi")) == 1 and g.pids("gssapi") != before, "the old one is gone")
        c.echo(b"x")


@pytest.mark.parametrize("role", ["gssapi", "auth"])
def test_context_that_is_lost_between_two_tokens(gateway, realm, ann, role):
    """The client is told at once, and need not try its luck with the next token."""
    g = gssapi_gateway(gateway, realm)
    with kdc.Client(g.address, ann, flags=DCE) as c:
        assert c.greet(socks.GSSAPI) == socks.GSSAPI
        c.send_message(kdc.TOKEN, c.first)
        assert c.receive_message()[0] == kdc.TOKEN
        processes.kill(processes.of_role(g, role)[0])
        assert c.receive_all() == b"\1\xff"
    assert refusal(g) == {"gssapi": "log-in could not be judged: the GSSAPI process ended during the log-in",
                          "auth": "log-in could not be judged: the authenticator ended"}[role]


def test_crash_while_the_keytab_is_away(gateway, echo):
    """Log-ins are refused and say why, the log says what to mend, and nobody need reload afterwards."""
    r = kdc.Realm({"ann": "x"})
    try:
        g = gssapi_gateway(gateway, r)
        ticket = r.kinit("ann", "x")
        os.rename(r.keytab, r.keytab + ".away")
        processes.kill(processes.of_role(g, "gssapi")[0])
        wait.until(lambda: "cannot read gssapi-keytab" in g.log(), "the next one has tried")
        with kdc.Client(g.address, ticket) as c:
            assert c.greet(socks.GSSAPI) == socks.GSSAPI
            assert not c.establish()
        assert refusal(g).startswith("log-in could not be judged: the GSSAPI process "), refusal(g)
        os.rename(r.keytab + ".away", r.keytab)

        wait.until(lambda: works(g, ticket, echo), "it is read")
    finally:
        r.close()


def test_reload_beside_log_ins(gateway, realm, ann, echo):
    """Not one of them is lost."""
    g = gssapi_gateway(gateway, realm)
    reloads = threading.Thread(target=lambda: [g.ctl("reload") for _ in range(4)])
    reloads.start()
    n = 0
    while reloads.is_alive() or n < 20:
        session(g, ann, echo, kdc.INTEGRITY).close()
        n += 1
    reloads.join()
    wait.until(lambda: len(g.pids("gssapi")) == 1, "one is left")
    assert g.rows(event="login-failed") == []


@pytest.fixture(scope="module")
def strict():
    """Clocks that may differ by a few seconds, which a log-in on a busy machine may take."""
    r = kdc.Realm(USERS, clockskew=SKEW)
    yield r
    r.close()


def test_clock_skew(gateway, strict):
    g = gssapi_gateway(gateway, strict)
    with kdc.Client(g.address, strict.kinit("ann", USERS["ann"])) as c:
        made = time.time()
        assert c.greet(socks.GSSAPI) == socks.GSSAPI
        wait.until(lambda: time.time() > made + SKEW + 2, "the token is old")
        assert not c.establish()
    assert refusal(g) == "log-in could not be judged: Kerberos: Clock skew too great"


def test_expired_ticket(gateway, strict):
    g = gssapi_gateway(gateway, strict)
    import gssapi

    for seconds in (4, 16, 64):
        got = time.time()
        try:
            c = kdc.Client(g.address, strict.kinit("ann", USERS["ann"], "-l", f"{seconds}s"))
            break
        except gssapi.exceptions.GSSError:
            if time.time() < got + seconds or seconds == 64:  # a slow machine has it expire before it is used
                raise
    with c:
        assert c.greet(socks.GSSAPI) == socks.GSSAPI
        wait.until(lambda: time.time() > got + seconds + SKEW + 2, "the ticket has expired", 100)
        assert not c.establish()
    assert "expired" in refusal(g)


def all_kinds(g, clients, echo, destination, stack):
    """A relay, an association that has carried a datagram, a BIND that waits for its peer, and one that has it: the peer."""
    relay, association, waits, bound = clients
    for c in clients:
        assert c.login(kdc.INTEGRITY) == kdc.INTEGRITY
    assert relay.request("127.0.0.1", echo.port) == socks.OK
    relay.echo(b"x")
    assert association.request("0.0.0.0", 0, socks.UDP) == socks.OK
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(wait.seconds(40))
        s.bind(("127.0.0.1", 0))
        s.sendto(kdc.frame(association.wrap(socks.datagram("127.0.0.1", destination.port, b"hello"))), association.bound)
        assert association.context.unwrap(s.recvfrom(65536)[0][4:]).message == socks.datagram("127.0.0.1", destination.port, b"hello")
    assert waits.request("127.0.0.1", 0, socks.BIND) == socks.OK
    assert bound.request("127.0.0.1", 0, socks.BIND) == socks.OK
    peer = stack.enter_context(socket.create_connection(bound.bound, timeout=wait.seconds(60)))
    assert bound.receive_plain(10)[:2] == b"\5\0"
    peer.sendall(b"x")
    assert bound.receive_plain(1) == b"x"
    return peer


def test_ticket_that_expires_in_mid_session(gateway, strict, echo, server):
    """Whatever goes on then.  A machine that takes longer than a ticket lives to begin all that gets one that lives longer."""
    destination = server(servers.UdpEcho)
    for seconds in (8, 16, 32, 64):
        g = gssapi_gateway(gateway, strict)
        with contextlib.ExitStack() as stack:
            got = time.time()
            ticket = strict.kinit("ann", USERS["ann"], "-l", f"{seconds}s")
            clients = [kdc.Client(g.address, ticket, timeout=120) for _ in range(4)]
            for c in clients:
                stack.callback(c.close)
            try:
                peer = all_kinds(g, clients, echo, destination, stack)
            except Exception:
                if time.time() < got + SKEW or seconds == 64:
                    raise
                continue
            for c in clients:
                assert c.receive_all() == b"", clients.index(c)
            assert peer.recv(1) == b""
        break
    assert [r["reason"] for r in g.wait_rows(4, event="ended")] == ["the client's ticket has expired"] * 4
    assert g.row(event="flow-ended")["bytes_up"] == 5


def test_principals_and_users(gateway, realm, echo):
    g = gssapi_gateway(gateway, realm)
    session(g, realm.kinit("ann/admin", "x"), echo, kdc.INTEGRITY).close()
    row = g.row(event="open")
    assert (row["user"], row["detail"]["principal"]) == ("ann", f"ann/admin@{kdc.REALM}")
    with kdc.Client(g.address, realm.kinit("stranger/nowhere", "x")) as c:
        assert c.greet(socks.GSSAPI) == socks.GSSAPI
        assert not c.establish()
    row = g.row(event="login-failed")
    assert row["user"] == f"stranger/nowhere@{kdc.REALM}"
    assert row["reason"].endswith("maps to no user (auth_to_local in krb5.conf)")


# ---- accounts, and the processes behind ------------------------------------------------------------------------------


def test_account_that_is_barred(gateway, realm, ann):
    g = gssapi_gateway(gateway, realm, pam="auth required pam_permit.so\naccount required pam_deny.so\n")
    with kdc.Client(g.address, ann) as c:
        assert c.greet(socks.GSSAPI) == socks.GSSAPI
        assert not c.establish()
    row = g.row(event="login-failed")
    assert row["user"] == f"ann@{kdc.REALM}" and "pam_acct_mgmt" in row["reason"], row


def test_an_account_that_takes_long_delays_nobody_else(gateway, realm, ann, echo):
    g = gssapi_gateway(gateway, realm, start=False)
    g.write("slow.sh", '#!/bin/sh\n[ "$PAM_USER" = bob ] && exec sleep 600\nexit 0\n')
    os.chmod(g.path("slow.sh"), 0o755)
    g.write("pam.d/gatewayd", f"auth required pam_permit.so\naccount required pam_exec.so quiet {g.path('slow.sh')}\n")
    g.start()
    with kdc.Client(g.address, realm.kinit("bob", USERS["bob"])) as slow:
        assert slow.greet(socks.GSSAPI) == socks.GSSAPI
        slow.send_message(kdc.TOKEN, slow.first)
        wait.until(lambda: g.status()["auth"]["busy"] == 1, "bob's account is looked at")
        with session(g, ann, echo, kdc.INTEGRITY) as c:
            c.echo(b"x")


def test_several_tokens(gateway, realm, ann, echo):
    """DCE style takes a third token of the client: the context waits in the GSSAPI child meanwhile."""
    g = gssapi_gateway(gateway, realm)
    with kdc.Client(g.address, ann, flags=DCE) as c:
        assert c.greet(socks.GSSAPI) == socks.GSSAPI
        c.send_message(kdc.TOKEN, c.first)
        kind, token = c.receive_message()
        assert kind == kdc.TOKEN
        assert g.status()["auth"]["gss_under_way"] == 1
        session(g, ann, echo, kdc.INTEGRITY).close()  # beside it
        c.send_message(kdc.TOKEN, c.context.step(token))
        assert c.protect(kdc.INTEGRITY) == kdc.INTEGRITY
        assert c.request("127.0.0.1", echo.port) == socks.OK
    wait.until(lambda: g.status()["auth"]["gss_under_way"] == 0, "nothing is left")


def test_unfinished_contexts_are_bounded(gateway, realm, ann, echo):
    g = gssapi_gateway(gateway, realm, gssapi_contexts=8)
    waiting = []
    for i in range(3):
        c = kdc.Client(g.address, ann, flags=0x1000 | 0x2 | 0x20, source="127.0.0.5")
        assert c.greet(socks.GSSAPI) == socks.GSSAPI
        c.send_message(kdc.TOKEN, c.first)
        waiting.append(c)
        if i < 2:
            assert c.receive_message()[0] == kdc.TOKEN
        else:
            assert c.receive_all() == b"\1\xff"
    assert refusal(g) == "log-in could not be judged: this client has its share of GSSAPI log-ins under way"
    session(g, ann, echo, kdc.INTEGRITY).close()
    for c in waiting:
        c.close()
    wait.until(lambda: g.status()["auth"]["gss_under_way"] == 0, "they are dropped with their clients")


def test_death_of_the_gssapi_process(gateway, realm, ann, echo):
    g = gssapi_gateway(gateway, realm)
    with kdc.Client(g.address, ann, flags=0x1000 | 0x2 | 0x20) as c, session(g, ann, echo, kdc.INTEGRITY) as established_one:
        assert c.greet(socks.GSSAPI) == socks.GSSAPI
        c.send_message(kdc.TOKEN, c.first)
        token = c.receive_message()[1]
        processes.kill(processes.of_role(g, "gssapi")[0])
        c.send_message(kdc.TOKEN, c.context.step(token))
        assert c.receive_all() in (b"\1\xff", b"")
        established_one.echo(b"still there")
    wait.until(lambda: processes.of_role(g, "gssapi"), "another is there")

    wait.until(lambda: works(g, ann, echo), "log-ins work again")


def test_a_process_that_does_not_answer(gateway, realm, ann, echo):
    g = gssapi_gateway(gateway, realm, gssapi_timeout=1000)
    os.kill(processes.of_role(g, "gssapi")[0], signal.SIGSTOP)
    with kdc.Client(g.address, ann) as c:
        assert c.greet(socks.GSSAPI) == socks.GSSAPI
        assert not c.establish()
    assert refusal(g) == "log-in could not be judged: the GSSAPI process did not answer in time"
    wait.until(lambda: processes.of_role(g, "gssapi"), "another is there")


def test_a_process_that_hangs_while_nobody_asks(gateway, realm, ann, echo):
    """Nobody's log-in has to fail for it to be missed."""
    g = gssapi_gateway(gateway, realm, process_timeout=1000)
    old = processes.of_role(g, "gssapi")
    os.kill(old[0], signal.SIGSTOP)
    wait.until(lambda: processes.of_role(g, "gssapi") not in ([], old), "another is there")
    assert "gssapi/0 has given no sign of life for 1000 ms and is ended" in g.log()

    wait.until(lambda: works(g, ann, echo), "log-ins work")


def test_garbage_does_not_lock_the_neighbours_out(gateway, realm, ann):
    """A ticket cannot be guessed: what is no token makes nobody wait."""
    g = gssapi_gateway(gateway, realm, throttle_client_failures=3, throttle_first_wait=60000)
    for i in range(8):
        with g.client() as c:
            assert c.greet(socks.GSSAPI) == socks.GSSAPI
            c.send(kdc.frame(b"guess", kdc.TOKEN))
            assert c.receive_all() == b"\1\xff"
    assert all(r["reason"].startswith("log-in denied: Kerberos: ") for r in g.wait_rows(8, event="login-failed"))
    established(g, ann).close()


def test_key_of_another_principal(gateway, realm, ann):
    """A keytab without the key is ours to mend: no denial."""
    other = kdc.Realm({"ann": "x", "socks/other": "x"})
    try:
        os.unlink(other.keytab)
        other._kadmin(f"ktadd -k {other.keytab} socks/other")
        g = gssapi_gateway(gateway, realm, gssapi_keytab=other.keytab)
        with kdc.Client(g.address, ann) as c:
            assert c.greet(socks.GSSAPI) == socks.GSSAPI
            assert not c.establish()
        assert refusal(g).startswith("log-in could not be judged: Kerberos: ")
    finally:
        other.close()


@pytest.mark.parametrize("flags", [0x2 | 0x10 | 0x20, 0x2 | 0x4 | 0x10 | 0x20, 0x2 | 0x8 | 0x10 | 0x20])
def test_context_that_does_not_tell_what_is_missing(gateway, realm, ann, echo, flags):
    """Mutual, integrity and confidentiality, but not both of replay and sequence: good for no protection."""
    g = gssapi_gateway(gateway, realm)
    for level in (kdc.INTEGRITY, kdc.CONFIDENTIALITY, kdc.SELECTIVE):
        with established(g, ann, flags=flags) as c:
            assert c.protect(level) is None
    assert all("tells no repeated or missing messages" in r["reason"] for r in g.wait_rows(3, event="denied"))
    with established(g, ann, flags=flags) as c:
        assert c.protect(kdc.NONE) == kdc.NONE
        assert c.request("127.0.0.1", echo.port) == socks.OK
        c.echo(b"x")


@pytest.mark.skipif(sanitized(), reason="a build with sanitizers is not confined")
def test_who_may_what(gateway, realm, ann, echo):
    """The keytab is for root alone: the GSSAPI process has read it before it gave up root, and nobody else has."""
    g = gssapi_gateway(gateway, realm)
    with session(g, ann, echo, kdc.INTEGRITY) as c:
        c.echo(b"x")
        for pid in g.pids("gssapi") + g.pids("worker") + g.pids("auth"):
            assert processes.status(pid)["Seccomp"] == "2"
            if os.geteuid() == 0:
                assert processes.confined(pid)
                assert not [d for d in processes.descriptors(pid) if realm.dir in d]


NO_LANDLOCK = r"""
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int argc, char **argv)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_landlock_create_ruleset, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof code / sizeof *code, code};
	if (argc < 2 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
		return 99;
	execv(argv[1], argv + 1);
	return 98;
}
"""


@pytest.mark.root
@pytest.mark.skipif(sanitized(), reason="a build with sanitizers is not confined")
def test_kernel_without_landlock(gateway, realm, ann, echo, tmp_path):
    """A worker opens nothing there, either: its system-call filter lets it look at paths, and no more."""
    source, without = tmp_path / "without.c", tmp_path / "without"
    source.write_text(NO_LANDLOCK)
    subprocess.run(["cc", "-o", str(without), str(source)], check=True)
    g = gateway(start=False)
    g.prefix = [str(without)]
    g.start()
    g.close()
    g = gssapi_gateway(gateway, realm, start=False)
    g.prefix = [str(without)]
    g.start()
    assert "this kernel has no Landlock" in g.log()
    session(g, ann, echo, kdc.CONFIDENTIALITY).close()


def test_krb5_conf_that_changes_under_way(gateway, echo):
    r = kdc.Realm({"ann": "x"})
    try:
        g = gssapi_gateway(gateway, r)
        environment = r.kinit("ann", "x")
        session(g, environment, echo, kdc.INTEGRITY).close()
        with open(r.conf, "a", encoding="utf-8") as f:
            f.write("# changed\n")
        os.utime(r.conf, (1, 1))
        wait.until(lambda: time.time() % 1 < 0.5, "another second")
        session(g, environment, echo, kdc.INTEGRITY).close()
    finally:
        r.close()


def test_krb5_conf_that_is_replaced(gateway, echo):
    """As editors and packages do it: nothing changes before a reload, and afterwards the new rules hold."""
    r = kdc.Realm(USERS)
    try:
        g = gssapi_gateway(gateway, r)
        environment = r.kinit("ann", USERS["ann"])
        session(g, environment, echo, kdc.INTEGRITY).close()
        with open(r.conf, encoding="utf-8") as f:
            text = f.read()
        with open(r.conf + ".new", "w", encoding="utf-8") as f:
            f.write(text.replace("        kdc = ", "        auth_to_local = RULE:[1:$1](ann)s/ann/bob/\n        kdc = ", 1))
        os.chmod(r.conf + ".new", 0o644)
        os.utime(r.conf + ".new", (1, 1))
        os.rename(r.conf + ".new", r.conf)
        replaced = time.time()
        wait.until(lambda: time.time() > replaced + 2, "libkrb5 looks once in a second")
        for _ in range(4):  # of every worker
            session(g, environment, echo, kdc.CONFIDENTIALITY).close()
        assert {row["user"] for row in g.wait_rows(5, event="open")} == {"ann"}
        g.reload()

        def maps_anew():
            try:
                session(g, environment, echo, kdc.INTEGRITY).close()
            except AssertionError:
                return False  # the GSSAPI process is being replaced
            return any(row["user"] == "bob" for row in g.rows(event="open"))

        wait.until(maps_anew, "the new rules")
    finally:
        r.close()


# ---- what passes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [kdc.INTEGRITY, kdc.CONFIDENTIALITY])
def test_much_in_both_directions_and_half_close(gateway, realm, ann, echo, level):
    g = gssapi_gateway(gateway, realm)
    data = os.urandom(1 << 20) * 8
    with session(g, ann, echo, level) as c:
        # python-gssapi's contexts are no place for two threads: messages are made first.
        frames = [kdc.frame(c.wrap(data[i:i + 50000])) for i in range(0, len(data), 50000)]
        t = threading.Thread(target=lambda: (c.send(b"".join(frames)), c.socket.shutdown(socket.SHUT_WR)))
        t.start()
        assert c.receive_plain(len(data)) == data
        assert c.receive_all() == b""
        t.join()
    ended = g.row(event="ended")
    assert (ended["reason"], ended["bytes_up"], ended["bytes_down"]) == ("done", len(data), len(data))


def test_end_inside_a_message(gateway, realm, ann, echo):
    g = gssapi_gateway(gateway, realm)
    with session(g, ann, echo, kdc.INTEGRITY) as c:
        c.send(kdc.frame(c.wrap(b"cut"))[:-5])
        c.socket.shutdown(socket.SHUT_WR)
        assert c.receive_all() == b""
    assert g.row(event="ended")["reason"] == "the client ended inside a message"


def test_messages_that_are_never_whole(gateway, realm, ann, echo):
    """Clients that have not logged in press on each other only: sessions go on, and others log in."""
    g = gssapi_gateway(gateway, realm, workers=1)
    flood = []
    with session(g, ann, echo, kdc.INTEGRITY) as c:
        for i in range(300):
            f = g.client(source=f"127.0.0.{9 + i // 50}")
            f.send(socks.greeting(socks.GSSAPI) + b"\1\1\xff\xff" + b"x" * 65534)
            flood.append(f)
        g.wait_rows(1, event="denied", reason="limit reached: GSSAPI clients have sent too much of messages that are not whole, "
                                              "and this one's waited for longest")
        half = kdc.frame(c.wrap(b"b" * 20000))
        c.send(half[:5000])
        session(g, ann, echo, kdc.INTEGRITY).close()
        c.send(half[5000:])
        assert c.receive_plain(20000) == b"b" * 20000
    for f in flood:
        f.close()


def test_messages_that_come_in_pieces_where_much_is_kept(gateway, realm, ann, echo):
    """Nobody's session ends because others keep much: messages wait until they are whole."""
    g = gssapi_gateway(gateway, realm, workers=1)
    many = [session(g, ann, echo, kdc.INTEGRITY) for _ in range(262)]
    frames = [kdc.frame(c.wrap(bytes([i % 256]) * 30000)) for i, c in enumerate(many)]
    for c, f in zip(many, frames):
        c.send(f[:1 + len(f) // 2])
    with session(g, ann, echo, kdc.CONFIDENTIALITY) as late:
        late.echo(os.urandom(65000) + b"x")  # whole ones pass
        last = kdc.frame(late.wrap(b"last"))
        late.send(last[:3])
        many[0].send(frames[0][1 + len(frames[0]) // 2:])
        assert many[0].receive_plain(30000) == bytes(30000)
        late.send(last[3:])
        assert late.receive_plain(4) == b"last"
        urgent = kdc.frame(late.wrap(b"urgent" * 20))
        late.send(urgent[:50])
        late.socket.send(urgent[50:60], socket.MSG_OOB)
        late.send(urgent[60:])
        assert late.receive_plain(120) == b"urgent" * 20
        late.send(kdc.frame(late.wrap(b"cut"))[:-5])
        late.socket.shutdown(socket.SHUT_WR)
        assert late.receive_all() == b""
    assert g.row(event="ended")["reason"] == "the client ended inside a message"
    for i, (c, f) in enumerate(list(zip(many, frames))[1:], 1):
        c.send(f[1 + len(f) // 2:])
        assert c.receive_plain(30000) == bytes([i % 256]) * 30000
    for c in many:
        c.close()


@pytest.mark.parametrize("level", [kdc.NONE, kdc.INTEGRITY, kdc.CONFIDENTIALITY])
def test_datagrams(gateway, realm, ann, server, level):
    destination = server(servers.UdpEcho)
    g = gssapi_gateway(gateway, realm)
    with kdc.Client(g.address, ann) as c, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        assert c.login(level) == level
        assert c.request("0.0.0.0", 0, socks.UDP) == socks.OK
        s.settimeout(wait.seconds(40))
        s.bind(("127.0.0.1", 0))
        if level != kdc.NONE:  # plain ones are dropped
            s.sendto(socks.datagram("127.0.0.1", destination.port, b"plain"), c.bound)
        for payload in (b"hello", b"x" * 1400, b"y" * 30000):
            plain = socks.datagram("127.0.0.1", destination.port, payload)
            sealed = plain if level == kdc.NONE else kdc.frame(c.wrap(plain))
            s.sendto(sealed, c.bound)
            if level != kdc.NONE:
                s.sendto(sealed, c.bound)  # twice counts once
            got, _ = s.recvfrom(65536)
            if level != kdc.NONE:
                assert got[:2] == b"\1\3"
                opened = c.context.unwrap(got[4:])
                assert opened.encrypted == (level == kdc.CONFIDENTIALITY)
                got = opened.message
            assert got == socks.datagram("127.0.0.1", destination.port, payload)
        s.settimeout(0.2)
        with pytest.raises(socket.timeout):
            s.recvfrom(65536)
    ended = g.row(event="flow-ended")
    assert (ended["bytes_up"], ended["bytes_down"]) == (31405, 31405)


def test_datagram_of_a_neighbour_first(gateway, realm, ann, server):
    """Who shares the client's address, and cannot make its messages, does not take its association."""
    destination = server(servers.UdpEcho)
    g = gssapi_gateway(gateway, realm)
    with kdc.Client(g.address, ann) as c, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s, \
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as neighbour:
        assert c.login(kdc.CONFIDENTIALITY) == kdc.CONFIDENTIALITY
        assert c.request("0.0.0.0", 0, socks.UDP) == socks.OK
        neighbour.bind(("127.0.0.1", 0))
        for junk in (b"x", kdc.frame(b"x" * 60), socks.datagram("127.0.0.1", destination.port, b"plain")):
            neighbour.sendto(junk, c.bound)
        s.bind(("127.0.0.1", 0))
        s.settimeout(wait.seconds(40))
        s.sendto(kdc.frame(c.wrap(socks.datagram("127.0.0.1", destination.port, b"hello"))), c.bound)
        assert c.context.unwrap(s.recvfrom(65536)[0][4:]).message == socks.datagram("127.0.0.1", destination.port, b"hello")
    assert g.row(event="ended")["detail"]["dropped"]["malformed"] == 3


def test_bind(gateway, realm, ann):
    g = gssapi_gateway(gateway, realm)
    with kdc.Client(g.address, ann) as c:
        assert c.login(kdc.CONFIDENTIALITY) == kdc.CONFIDENTIALITY
        assert c.request("127.0.0.1", 0, socks.BIND) == socks.OK
        with socket.create_connection(c.bound, source_address=("127.0.0.1", 0)) as peer:
            second = c.receive_plain(10)
            assert second[:2] == b"\5\0"
            peer.sendall(b"from the peer")
            assert c.receive_plain(13) == b"from the peer"
            c.send_plain(b"to the peer")
            assert peer.recv(100) == b"to the peer"


@pytest.mark.parametrize("option, words", [
    ("gssapi_keytab", "cannot read gssapi-keytab"), ("gssapi_krb5_conf", "cannot read gssapi-krb5-conf")])
def test_start_without_what_it_needs(gateway, realm, option, words):
    g = gssapi_gateway(gateway, realm, start=False, **{option: "/nonexistent/file"})
    code, lines = g.run("-c", g.conf)
    assert code > 0
    assert g.run("-n", "-c", g.conf)[0] != 0
    said = [line for line in lines if "gssapi" in line and " error: " in line]
    assert any(words in line and "/nonexistent/file" in line for line in said), lines


PLUGIN = r"""
#include <krb5/krb5.h>
#include <krb5/localauth_plugin.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
static krb5_error_code an2ln(krb5_context c, krb5_localauth_moddata d, const char *type, const char *residual,
                             krb5_const_principal p, char **out)
{
	struct sockaddr_un a = {AF_UNIX, "/nonexistent/socket"};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	(void)c, (void)d, (void)type, (void)residual, (void)p;
	if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0)
		close(fd);
	*out = NULL;
	return KRB5_LNAME_NOTRANS;
}
krb5_error_code localauth_asks_initvt(krb5_context c, int major, int minor, krb5_plugin_vtable v);
krb5_error_code localauth_asks_initvt(krb5_context c, int major, int minor, krb5_plugin_vtable v)
{
	krb5_localauth_vtable t = (krb5_localauth_vtable)v;
	(void)c, (void)major, (void)minor;
	t->name = "asks";
	t->an2ln = an2ln;
	return 0;
}
"""


def test_plugin_that_wants_to_ask_somebody(gateway, echo, tmp_path):
    """As sssd's does: in its sandbox it is told that it cannot, and the names are mapped without it."""
    source, plugin = tmp_path / "asks.c", tmp_path / "asks.so"
    source.write_text(PLUGIN)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(plugin), str(source)], check=True)
    r = kdc.Realm({"ann": "x"})
    try:
        with open(r.conf, "a", encoding="utf-8") as f:
            f.write(f"[plugins]\n    localauth = {{\n        module = asks:{plugin}\n    }}\n")
        for path in (tmp_path.parent.parent, tmp_path.parent, tmp_path):
            os.chmod(path, 0o755)
        g = gssapi_gateway(gateway, r)
        session(g, r.kinit("ann", "x"), echo, kdc.INTEGRITY).close()
        assert g.row(event="open")["user"] == "ann"
    finally:
        r.close()
