"""doc/SESSION.md is a terminal session that takes place: this test has it again, and compares.  GATEWAYD_WRITE_SESSION=1 writes it."""

import difflib
import os
import re
import shlex

import pytest

from harness import socks

pytestmark = pytest.mark.long

DOCUMENT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "doc", "SESSION.md")
HEAD = """# A policy, from nothing to a rollback

What follows took place: a test has the same session with a gateway of its own and compares what is said
(`tests/integration/test_terminal_session.py`). Times, ports and ids are replaced by those shown here.
"""


class Session:
    """Types commands, and keeps what a terminal would show."""

    def __init__(self, gateway, port):
        self.g = gateway
        self.port = port
        self.lines = [HEAD]
        self.ids = {}

    def say(self, text):
        self.lines.append(text + "\n")

    def type(self, *commands, code=0):
        """Each is typed as it stands; the last must end with code."""
        block = []
        for command in commands:
            words = shlex.split(command)
            assert words[0] == "gatewayctl"
            done = self.g.ctl(*words[1:], check=False, cwd=self.g.dir)
            assert done.returncode == (code if command == commands[-1] else 0), (command, done)
            block += ["$ " + command, (done.out + done.err).rstrip("\n")]
        self.lines.append("```\n" + "\n".join(b for b in block if b) + "\n```\n")

    def stable(self):
        text = "\n".join(self.lines)
        for real, shown in self.ids.items():
            text = text.replace(real, shown)
        assert len(str(self.port)) == len(PORT)  # columns are as wide as what they hold
        text = text.replace(str(self.port), PORT).replace(self.g.dir, "/etc/gatewayd")
        text = re.sub(r"(2026-11-(?:19|20)[ T])\d\d:\d\d(:\d\d)?(\.\d+)?", lambda m: m[1] + "09:00" + (":00" if m[2] else "") + (".000000" if m[3] else ""), text)
        text = re.sub(r"\brow \d+\b", "row 7", text)
        return re.sub(r" +$", "", text, flags=re.M)


PORT = "18443"
NARROWER = """rule wiki allow group staff to domain wiki.example.com to cidr 127.0.0.0/8
default deny
"""


def live(g, host, port, user):
    c = g.session(host, port, user=user, password=f"{user}-pass")
    assert c.code == socks.OK
    c.echo(b"x")
    return c


@pytest.mark.root
def test_the_session_of_the_document(gateway, dnsmasq, echo):
    dns = dnsmasq(*(f"--host-record={n}.example.com,127.0.0.1" for n in ("wiki", "pay", "files")))
    g = gateway("default deny\n", start=False, clock=True, resolver=[dns.address], groups={"staff": ["ann"], "hr": ["bob"]})
    g.environment["TZ"] = "UTC"
    g.set_time("2026-11-20 09:00:00")
    g.start()
    s = Session(g, echo.port)

    s.say("A new gateway lets nobody through.")
    s.type("gatewayctl policy export")
    s.say("The first rule. Who did it, when and why stays on record.")
    s.type("gatewayctl rule add wiki allow group staff to domain .example.com to cidr 127.0.0.0/8 --comment 'the wiki, for all of staff'")
    s.say("A mistake changes nothing, and is told with its place.")
    s.type("gatewayctl rule add pay alow group hr to domain pay.example.com", code=1)
    s.say("What was meant, with an end.")
    s.type("gatewayctl rule insert pay allow group hr to domain pay.example.com to cidr 127.0.0.0/8 --before wiki --until 2027-01-31")
    first = live(g, "wiki.example.com", echo.port, "ann")
    live(g, "files.example.com", echo.port, "ann").close()
    live(g, "pay.example.com", echo.port, "bob").close()
    g.wait_rows(3, event="open")
    g.wait_rows(2, event="ended")
    s.say("Meanwhile people work: Ann is on the wiki and was on a file server, Bob was at the payroll.\nTaking a rule out would cut Ann off. "
          "Here it is only tried.")
    s.type("gatewayctl rule disable wiki --dry-run")
    s.say("A script is not asked: it has to say that it means it.")
    s.type("gatewayctl rule disable wiki", code=1)
    s.type("gatewayctl rule disable wiki --yes --comment 'an incident'")
    assert first.receive(1) == b""  # it has ended
    first.close()
    s.say("Undone.")
    s.type("gatewayctl policy log", "gatewayctl policy rollback 3 --comment 'the incident is over'")
    s.say("Could the rule be narrower? What was asked for is decided again.")
    g.write("narrower.policy", NARROWER)
    for n, row in enumerate(g.rows(event="open")):
        s.ids[row["session"]] = f"0W3B-7C2D-0000-{n}"
    s.type("gatewayctl policy impact narrower.policy --since 1d", code=1)
    s.say("What would let through what was granted, and nothing else?")
    s.type("gatewayctl policy suggest --since 1d")
    s.say("Why was it that Ann was let in?")
    s.type("gatewayctl audit why " + g.row(event="open", name="wiki.example.com")["session"])
    s.say("And what do the rules do?")
    s.type("gatewayctl rule list --since 1d")

    text = s.stable()
    if os.environ.get("GATEWAYD_WRITE_SESSION"):
        with open(DOCUMENT, "w", encoding="utf-8") as f:
            f.write(text)
        pytest.skip("doc/SESSION.md was written")
    with open(DOCUMENT, encoding="utf-8") as f:
        said = f.read()
    assert said == text, "".join(difflib.unified_diff(said.splitlines(True), text.splitlines(True), "doc/SESSION.md", "what was said"))
