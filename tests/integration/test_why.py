"""audit why: a past decision, decided again by the policy and the lists of then."""

import json
import os

from harness import geo, servers, socks

POLICY = """\
tz "Europe/Berlin"
window office { mon-sun 08:00-18:00 }
set   blocked domain file "blocked.txt"
rule blocked deny to domain @blocked
rule kp deny to country KP
rule day allow group staff to domain .test to cidr 127.0.0.0/16 during office
rule local allow to cidr 127.0.0.0/16
default deny
"""


def why(g, *arguments):
    done = g.ctl("audit", "why", "--json", *arguments, check=False)
    return done.returncode, json.loads(done.out) if done.out else done.err


def test_with_the_policy_of_then(gateway, dnsmasq, echo):
    dns = dnsmasq("--host-record=echo.test,127.0.0.1", "--host-record=mixed.test,127.0.0.1", "--host-record=mixed.test,127.1.0.1",
                  "--cname=alias.test,echo.test")
    g = gateway(start=False, clock=True, resolver=[dns.address])
    g.configure(geoip_database=geo.build(g.path("country.mmdb"), {"127.0.0.0/24": "DE", "127.0.2.0/24": "KP"}))
    g.set_time("2026-11-20 10:00:00")
    g.start()
    g.write("blocked.txt", "bad.test\n")
    g.write_policy(POLICY)
    g.ctl("policy", "apply", g.policy_file)
    then = g.revision()
    for name in ("echo.test", "mixed.test", "alias.test"):
        with g.session(name, echo.port) as c:
            assert c.code == socks.OK
    g.session("bad.test", 80).close()
    g.session("127.0.2.1", 80).close()
    g.session("127.0.0.1", echo.port, user="bob", password="bob-pass").close()
    g.wait_rows(4, event="ended")
    opened = {r.get("name", r.get("address")): r for r in g.rows(event="open")}
    denied = {r.get("name", r.get("address")): r for r in g.rows(event="denied")}
    # What was recorded is enough to decide again.
    assert opened["mixed.test"]["detail"]["candidates"] == [{"address": "127.0.0.1", "rule": "day", "country": "DE"}]
    assert set(opened["mixed.test"]["detail"]["answers"]) == {"127.0.0.1", "127.1.0.1"}
    assert opened["alias.test"]["detail"]["aliases"] == ["echo.test"] and "answers" not in opened["echo.test"]["detail"]
    assert {r["detail"]["country"] for r in g.rows(event="connected") + g.rows(event="ended")} == {"DE"}
    assert denied["127.0.2.1"]["detail"]["country"] == "KP"
    assert {r["event"] for r in g.rows("--country", "kp")} == {"denied"} and len(g.rows("--country", "DE", event="open")) == 4
    assert {s["key"]: s["sessions"] for s in (json.loads(line) for line in g.ctl(
        "audit", "stats", "--by", "country", "--format", "json").out.splitlines())} == {"DE": 4, "KP": 0, "-": 0}

    # Everything changes: text, list, time of day, the country of an address.
    g.set_time("2026-11-21 03:00:00")
    g.write("blocked.txt", "other.test\n")
    g.write_policy(POLICY.replace("rule day", "rule night"))
    g.ctl("policy", "apply", g.policy_file)
    database = geo.build(g.path("today.mmdb"), {"127.0.0.0/24": "FR", "127.0.2.0/24": "KP"})
    for row in [*opened.values(), *denied.values()]:
        code, said = why(g, "--geoip", database, row["session"])
        assert code == 0 and len(said) == 1, said
        said = said[0]
        assert said["same"] and said["row"] == row and row["revision"] == then
        assert said["explanation"]["decision"]["verdict"] == row["verdict"]
        if row["verdict"] == "deny":
            assert said["explanation"]["decision"]["rule"] == row["rule"]
    code, said = why(g, "--geoip", database, opened["echo.test"]["session"])
    assert "the country of 127.0.0.1 was DE, and is FR in the database of today" in said[0]["notes"]
    text = g.ctl("audit", "why", "--geoip", database, str(opened["echo.test"]["id"])).out
    assert "recorded: allow by rule day of revision" in text and "window office is open" in text and "as recorded" in text
    # Without a database the rule of countries cannot be evaluated: that is told, and not hidden.
    code, said = why(g, opened["echo.test"]["session"])
    assert code == 1 and not said[0]["same"] and said[0]["differences"] and any("--geoip" in n for n in said[0]["notes"])

    # The same without a gateway.
    g.stop()
    for row in [*opened.values(), *denied.values()]:
        code, said = why(g, "--dir", os.path.join(g.state, "audit"), "--geoip", database, row["session"])
        assert code == 0 and said[0]["same"], said


def test_what_cannot_be_decided_again(gateway, echo):
    g = gateway(clock=True)
    g.session("127.0.0.1", echo.port).close()
    g.wait_rows(1, event="ended")
    with g.client() as c:
        c.greet(socks.PASSWORD)
        c.login("ann", "wrong")
    row = g.wait_rows(1, event="login-failed")[0]
    code, said = why(g, str(row["id"]))
    assert code == 1 and "no decision" in said
    code, said = why(g, "0123-4567-89AB-C")
    assert code == 1 and "no decision" in said
    assert why(g, "10000000")[0] == 1
    for wrong in ([], ["x"], ["1", "2"], ["--colour", "1"], ["0"]):
        assert g.ctl("audit", "why", *wrong, check=False).returncode == 2
    assert g.ctl("audit", "why", "--help").out.startswith("usage:")


def test_a_difference_is_told(gateway, echo):
    """A row that says what the policy never said: somebody forged it, or a worker lied."""
    from harness import audits
    g = gateway("rule no deny port 25\nrule loopback allow to cidr 127.0.0.0/8\ndefault deny\n")
    g.session("127.0.0.1", echo.port).close()
    revision = g.wait_rows(1, event="ended")[0]["revision"]
    g.stop()
    rows = audits.Rows(os.path.join(g.state, "audit"))
    common = {"client": "127.0.0.1", "user": "ann", "command": "connect", "method": "password", "listener": "main", "revision": revision}
    forged = [
        rows.add("open", 10**15, session=5, address="127.0.0.1", port=25, rule="loopback", **common),
        rows.add("denied", 10**15, session=6, address="127.0.0.1", port=80, rule="no", reason="denied by policy: rule no", **common),
        rows.add("denied", 10**15, session=7, address="127.0.0.1", port=25, rule="default", reason="denied by policy", **common),
    ]
    other = rows.add("denied", 10**15, session=8, address="127.0.0.1", port=80, reason="limit reached", **common)
    rows.close()
    for row, what in zip(forged, ("recorded allow, decided again deny", "recorded deny, decided again allow",
                                  "rule: recorded default, decided again no")):
        code, said = why(g, "--dir", os.path.join(g.state, "audit"), str(row))
        assert code == 1 and what in said[0]["differences"][0]
    code, said = why(g, "--dir", os.path.join(g.state, "audit"), str(other))
    assert code == 0 and any("not the policy" in n for n in said[0]["notes"])


def test_flows_and_binds(gateway, server, dnsmasq):
    """Each destination of an association is a decision of its own, by name or by address; so is what a BIND was granted for."""
    dns = dnsmasq("--host-record=echo.test,127.0.0.1")
    target = server(servers.UdpEcho)
    g = gateway("rule no-dns deny command udp port 53\nrule udp allow command udp to cidr 127.0.0.0/8\n"
                "rule bind allow command bind to cidr 127.0.0.0/8\ndefault deny\n",
                listener_commands=["connect", "udp", "bind"], resolver=[dns.address])
    with g.associate() as a:
        assert a.echo("echo.test", target.port, b"1") and a.echo("127.0.0.1", target.port, b"2")
        a.send("127.0.0.1", 53, b"no")
        denied = g.wait_rows(1, event="denied")[0]
    with g.client() as c:
        c.greet(socks.PASSWORD)
        c.login("ann", "ann-pass")
        assert c.request("127.0.0.1", 80, socks.BIND) == socks.OK
        bound = [r for r in g.rows(event="open") if r["command"] == "bind"][0]
    code, said = why(g, denied["session"])
    assert code == 0 and [s["row"]["event"] for s in said] == ["flow", "flow", "denied"] and all(s["same"] for s in said), said
    assert [s["explanation"]["decision"]["rule"] for s in said] == ["udp", "udp", "no-dns"]
    code, said = why(g, bound["session"])
    assert code == 0 and said[0]["same"] and said[0]["explanation"]["decision"]["rule"] == "bind", said
    opened = [r for r in g.rows(event="open") if r["command"] == "udp"][0]
    code, said = why(g, str(opened["id"]))
    assert code == 1  # it decides nothing: no destination was named
