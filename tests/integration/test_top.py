"""gatewayctl top on a real pseudo-terminal."""

import os
import re

import pytest

from harness import processes, socks, wait
from harness.gateway import BUILD
from harness.terminal import Terminal

NONE = {"listener_methods": ["none"]}
UP, DOWN, NEXT, HOME = "\x1bOA", "\x1bOB", "\x1b[6~", "\x1b[H"


def top(g, *words, columns=80, lines=24, **environment):
    return Terminal([os.path.join(BUILD, "admin", "gatewayctl"), "--socket", g.socket, "top", "--interval", "1", *words], columns, lines, **environment)


@pytest.fixture
def busy(gateway, echo):
    """Two users with sessions, and a denial."""
    g = gateway("rule echo allow to cidr 127.0.0.1/32 port 1-65535\ndefault deny\n")
    clients = [g.session("127.0.0.1", echo.port) for _ in range(4)] + [g.session("127.0.0.1", echo.port, user="bob", password="bob-pass")]
    clients[0].echo(b"x" * 300000)
    with g.session("127.0.0.9", 9) as c:
        assert c.code == socks.NOT_ALLOWED
    yield g, clients
    for c in clients:
        c.close()


def test_80x24_shows_sessions_denials_and_rules(busy, echo):
    g, _ = busy
    with top(g) as t:
        t.shows("5 sessions", "audit ok", f"127.0.0.1:{echo.port}", "ALLOWED", "DENIED", "denied by policy", "by rate, 5 match")
        # A screen may be seen half drawn.
        wait.until(lambda: re.search(r"^ +5 +0 echo$", t.text(), re.MULTILINE) and t.text().count(f"127.0.0.1:{echo.port}") == 5, t.text)
        t.shows("127.0.0.9:9")
        t.press("b")
        t.shows("by bytes")
        wait.until(lambda: re.search("586|KiB", t.text().splitlines()[2]), t.text)
        t.press("q")
        assert t.ends() == 0
        assert b"\x1b[?1049l" in t.raw  # the screen before it is back


def test_panels_and_keys(busy):
    g, _ = busy
    with top(g) as t:
        t.shows("by rate", "ALLOWED")
        t.press("d")
        wait.until(lambda: "ALLOWED" not in t.text() and "REASON" in t.text(), lambda: t.text())
        t.press("u")
        wait.until(lambda: "REASON" not in t.text() and "ALLOWED" in t.text(), lambda: t.text())
        t.press("s")
        wait.until(lambda: "ALLOWED" not in t.text() and "DESTINATION" in t.text(), lambda: t.text())
        t.press(DOWN * 4)
        wait.until(lambda: t.text().count("ann") + t.text().count("bob") == 1, lambda: t.text())
        t.press(NEXT * 3 + UP * 20 + HOME + "\x00\xff\x1b[999~zzz")
        t.shows("5 match", "ann", "bob")
        t.press("\x03")
        assert t.ends() == 0
        assert b"\x1b[?1049l" in t.raw  # the screen before it is back


def test_an_interrupt_ends_it_tidily(busy):
    """At any moment: while it waits for a key, and while it asks the gateway."""
    g, _ = busy
    for n in range(6):
        with top(g) as t:
            t.shows("by rate, 5 match")
            t.press(" " * n + "\x03")
            assert t.ends() == 0
            assert b"\x1b[?1049l" in t.raw  # the screen before it is back


def test_a_filter_and_the_other_name(busy):
    g, _ = busy
    with Terminal([os.path.join(BUILD, "admin", "gatewayctl"), "--socket", g.socket, "session", "watch", "user=bob"]) as t:
        text = t.shows("1 match", "bob", "DENIED")
        assert "ann " not in text.split("DENIED")[0], text
        t.press("q")
        assert t.ends() == 0


@pytest.mark.parametrize("columns,lines", [(20, 5), (1, 1), (200, 60), (10, 2), (80, 14)])
def test_any_size(busy, columns, lines):
    g, _ = busy
    with top(g, columns=columns, lines=lines) as t:
        if columns >= 10:
            t.shows("5 session"[:columns])
        if columns == 200:
            t.shows("SESSION ", "AGE")
        t.resize(80, 24)
        t.shows("5 sessions", "by rate, 5 match")
        t.resize(columns, lines)
        t.press("r d d s s " * 5)
        t.resize(120, 30)
        t.shows("SESSION ", "AGE", "by rate")
        t.press("q")
        assert t.ends() == 0


def test_it_follows_what_happens_and_outlives_the_gateway(busy, echo):
    g, clients = busy
    with top(g) as t:

        def soon(wanted):
            wait.until(lambda: t.press(" ") or wanted in t.text(), lambda: f"{wanted} on the screen:\n{t.text()}", interval=0.1)

        soon("5 match")
        with g.session("127.0.0.1", echo.port):
            t.shows("6 match")  # without a key
        soon("5 match")
        g.ctl("session", "kill", "user=bob", "--reason", "x")
        soon("4 match")
        g.stop()
        soon("cannot reach gatewayd")
        assert t.process.poll() is None
        g.start()
        soon("0 match")
        t.press("q")
        assert t.ends() == 0


def test_names_full_of_escape_sequences_move_nothing(gateway, echo):
    g = gateway(listener_methods=["none"], listener_versions=["4", "5"])
    evil = b"\x1b[2J\x1b]0;owned\x07\x1b[31mred\r\n"
    with g.client4() as c:
        c.request("127.0.0.1", echo.port, user=evil)
        with g.client() as d:
            d.greet(socks.NONE)
            d.send(b"\5\1\0\3" + bytes([len(evil)]) + evil + b"\0\x50")
            d.receive_all()
        with top(g) as t:
            t.shows("1 match", "x1b[2J", "owned")
            assert b"\x1b]0" not in t.raw and b"\x07" not in t.raw
            assert t.screen.title == ""
            t.press("q")
            assert t.ends() == 0
        shown = g.ctl("session", "list", "--json").out
        assert "\x1b" not in shown and "\\u001b" not in shown and "x1b" in shown, shown


def test_colours_only_where_wanted(busy):
    g, _ = busy
    for environment, coloured in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "vt100"}, False)):
        with top(g, **environment) as t:
            t.shows("denied by policy")
            t.press("q")
            assert t.ends() == 0
            assert (re.search(rb"\x1b\[[0-9;]*31m", t.raw) is not None) == coloured, (environment, t.raw)


def test_what_is_no_terminal(gateway):
    g = gateway(**NONE)
    done = g.ctl("top", check=False)
    assert done.returncode == 2 and "needs a terminal" in done.err and "session list" in done.err
    with top(g, TERM="nosuchterminal") as t:
        assert t.ends() == 1
        assert "nosuchterminal" in t.text() and "TERM" in t.text(), t.text()
    g.stop()
    with top(g) as t:
        assert t.ends() == 3
        assert "cannot reach gatewayd" in t.text()


def test_a_terminal_that_goes_away_ends_it(gateway):
    g = gateway(**NONE)
    t = top(g)
    t.shows("0 match")
    os.close(t._leader)
    assert t.process.wait(wait.seconds(40)) != 0
    processes.rests(g.pids("control")[0])
