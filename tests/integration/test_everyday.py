"""gatewayctl as people use it every day: into a pipe, onto a full disk, without a gateway, and over names that somebody chose to harm."""

import json
import os
import signal
import stat
import subprocess

import pytest

from harness import audits, socks, wait
from harness.gateway import BUILD

CTL = os.path.join(BUILD, "admin", "gatewayctl")
POLICY = """\
set malware domain { evil.example }
window office { 08:00-18:00 }
rule no-malware deny to domain @malware
rule loopback allow to cidr 127.0.0.0/8
default deny
expect allow to 127.0.0.1
"""
# What each noun shows, and the policy file in the place of POLICY.
SHOWING = [
    ("status",), ("policy", "log"), ("policy", "show"), ("policy", "explain", "127.0.0.1"), ("policy", "check", "POLICY"), ("policy", "test", "POLICY"),
    ("policy", "impact", "POLICY"),
    ("rule", "list"), ("rule", "unused", "1d"), ("set", "list"), ("set", "show", "malware"), ("window", "list"), ("session", "list"), ("session", "blocks"),
    ("auth", "list"), ("log", "level"), ("audit", "query"), ("audit", "tail"), ("audit", "stats", "--by", "user"), ("audit", "sql", "SELECT * FROM event"),
    ("audit", "hold", "list"),
]


def run(g, words, stdout=subprocess.PIPE):
    words = [g.policy_file if w == "POLICY" else w for w in words]

    def ran():
        done = subprocess.run([CTL, "--socket", g.socket, *words], stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE,
                              timeout=wait.seconds(100), check=False)
        # The readers of questions before may still be on their way out.
        return done if b"too many queries" not in done.stderr else None

    return wait.until(ran, "it is answered")


@pytest.fixture
def shown(gateway, echo):
    """A gateway of which each of these has something to show."""
    g = gateway(POLICY)
    with g.session("127.0.0.1", echo.port):
        g.wait_rows(1, event="connected")
        g.ctl("session", "block", "user=zoe", "--for", "1h", "--reason", "x")
        g.ctl("audit", "hold", "place", "case")
        yield g


def test_output_that_nobody_takes(shown):
    """Whoever reads a pipe no more ends the command without a word; a disk that is full is told, and no success."""
    g = shown
    for words in SHOWING:
        reading, writing = os.pipe()
        os.close(reading)
        try:
            done = run(g, words, writing)
        finally:
            os.close(writing)
        assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b""), (words, done)
        with open("/dev/full", "wb") as full:
            done = run(g, words, full)
        assert done.returncode == 1 and b"cannot write all of the output" in done.stderr, (words, done)
    assert g.status()


def test_json_is_json_wherever_something_is_shown(shown):
    for words in SHOWING:
        done = run(shown, (*words, "--json"))
        assert done.returncode == 0 and done.stderr == b"", (words, done)
        text = done.stdout.decode("ascii")
        try:
            json.loads(text)
        except ValueError:
            assert all(isinstance(json.loads(line), dict) for line in text.splitlines()), (words, text)
    assert json.loads(run(shown, ("set", "show", "malware", "--json")).stdout) == {
        "name": "malware", "kind": "domain", "values": ["evil.example"], "used_by": 1}
    assert json.loads(run(shown, ("log", "level", "--json")).stdout) == {"level": run(shown, ("log", "level")).stdout.decode().strip()}
    assert json.loads(run(shown, ("log", "level", "debug", "--json")).stdout) == {"level": "debug"}


def test_no_byte_but_text_where_no_terminal_is(shown):
    for words in SHOWING:
        done = run(shown, words)
        assert done.returncode == 0, (words, done)
        assert not [b for b in done.stdout + done.stderr if b != 0x0a and not 0x20 <= b <= 0x7e], (words, done)


def test_words_that_there_are_not(gateway):
    """What is wrong is told behind the usage, and what was meant where that can be guessed."""
    g = gateway(POLICY)
    for words, code, said in (
            (("sesion", "list"), 2, 'no noun "sesion"; did you mean session?'), (("frobnicate",), 2, 'no noun "frobnicate"'),
            *(((noun, "frob"), 2, f'{noun} has no verb "frob"') for noun in ("policy", "rule", "set", "window", "session", "audit")),
            (("rule", "remove", "x"), 1, "no rule 'x'; gatewayctl rule list shows"), (("set", "show", "x"), 1, "no set 'x'; gatewayctl set list shows"),
            (("window", "remove", "x"), 1, "no window 'x'; gatewayctl window list shows"), (("set", "show", "malwar"), 1, "did you mean 'malware'?")):
        done = g.ctl(*words, check=False)
        assert done.returncode == code and done.out == "" and said in done.err.splitlines()[-1], (words, done.returncode, done.err)


def test_an_empty_answer_is_an_answer(gateway):
    g = gateway(POLICY)
    for words, said in ((("session", "list"), "no session lives"), (("session", "list", "--user", "zoe"), "no session matches"),
                        (("session", "blocks"), "no block is in force"), (("audit", "hold", "list"), "no hold stands")):
        assert g.ctl(*words).out == said + "\n", words
    assert g.ctl("session", "list", "--json").out == g.ctl("session", "blocks", "--json").out == ""


def test_what_needs_no_gateway(gateway):
    """What reads files alone does so where nothing listens, and no file is changed by it."""
    g = gateway(POLICY)
    g.session("127.0.0.9", 9).close()
    g.wait_rows(1, event="ended")
    g.stop()
    key, audit = g.path("first.key"), os.path.join(g.state, "audit")
    os.rename(os.path.join(audit, "first.key"), key)
    g.ctl("audit", "export", "--new-key", g.path("sign.key"))
    with open(g.path("new.policy"), "w", encoding="utf-8") as f:
        f.write("default deny\n")
    new = g.path("new.policy")
    for code, words in (
            (0, ("policy", "check", g.policy_file)), (0, ("policy", "test", g.policy_file)), (0, ("policy", "fmt", g.policy_file)),
            (1, ("policy", "diff", g.policy_file, new)), (0, ("policy", "explain", "--policy", g.policy_file, "127.0.0.1")),
            (1, ("policy", "explain", "--policy", new, "127.0.0.1")), (0, ("audit", "query", "--dir", audit)), (0, ("audit", "tail", "--dir", audit)),
            (0, ("audit", "stats", "--by", "user", "--dir", audit)), (0, ("audit", "sql", "--dir", audit, "SELECT 1")),
            (0, ("audit", "verify", "--key", key, "--dir", audit)), (0, ("audit", "report", "--dir", audit, "-o", g.path("r.html"))),
            (0, ("audit", "export", "--dir", audit, "-o", g.path("out"), "--key", g.path("sign.key")))):
        done = g.ctl(*words, check=False)
        assert done.returncode == code, (words, done.returncode, done.out, done.err)
        assert "gatewayd is not running" not in done.err and (done.out or words[1] in ("report", "export")), (words, done.out, done.err)
    assert not os.path.exists(g.socket) or not stat.S_ISSOCK(os.stat(g.socket).st_mode)


def test_names_that_move_nothing_in_any_table(gateway, echo):
    """What clients and operators called things stands escaped wherever somebody looks at it."""
    g = gateway(POLICY, listener_methods=["password", "none"], listener_versions=["4", "5"])
    for text in audits.HOSTILE:
        with g.client() as c:
            c.greet(socks.PASSWORD)
            c.send(b"\1" + bytes([len(text.encode())]) + text.encode() + b"\1x")
            c.receive_all()
    evil = "\x1b[2J\x1b]0;owned\x07\u202e\x9b31m\r\nred".encode()
    with g.client4() as c:
        c.request("127.0.0.1", echo.port, user=evil)
        session = json.loads(g.ctl("session", "list", "--json").out.splitlines()[0])["session"]
        g.ctl("session", "block", "user=b\u202ered", "--for", "1h", "--reason", "no \u202e")
        g.ctl("audit", "hold", "place", "case", "--user", "\x1b[31mred\u202e", check=False)
        g.ctl("auth", "forget", "\x1b[31mred", check=False)
        with open(g.policy_file, "a", encoding="utf-8") as f:
            f.write("rule more allow to cidr 127.0.0.1 comment \"\u202eb\"\nset odd user { \"a\u202eb\" }\n")
        g.ctl("policy", "apply", g.policy_file, "--comment", "why \u202e not")
        for words in (*SHOWING, ("session", "show", session), ("session", "show", "\x1b[31m\u202e"), ("session", "list", "--user", "\x1b[31m"),
                      ("\x1b[31m",), ("policy", "\x1b[31m"), ("rule", "remove", "\x1b[31m"), ("audit", "query", "--columns", "\x1b[31m"),
                      ("policy", "check", "/no/\x1b[31m\u202e"), ("audit", "why", "\x1b[31m"), ("set", "show", "\x1b[31m"),
                      ("policy", "suggest"), ("policy", "suggest", "--denied"), ("policy", "impact", "/no/\x1b[31m\u202e"),
                      ("policy", "suggest", "--\x1b[31m\u202e"), ("top", "--sort\u202e"), ("status", "-\x1b")):
            done = run(g, words)
            said = done.stdout + done.stderr
            if words in SHOWING:
                said += run(g, (*words, "--json")).stdout
            assert not [b for b in said if b in (0x1b, 0x07, 0x0d, 0x9b, 0x7f) or 0xe2 <= b <= 0xef], (words, done)
