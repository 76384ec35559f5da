"""A monitor rule is told of in the audit, and changes no verdict."""

from harness import socks

POLICY = """\
rule try-deny  monitor deny  to cidr 127.0.0.0/8
rule one       allow to cidr 127.0.0.1/32
rule try-allow monitor allow to cidr 127.0.0.0/8
default deny
"""


def test_monitors_are_in_the_detail(gateway, echo):
    g = gateway(POLICY)
    with g.session("127.0.0.1", echo.port) as c:
        assert c.code == socks.OK
    row = g.row(event="open")
    assert (row["verdict"], row["rule"]) == ("allow", "one")
    assert row["detail"]["monitors"] == [{"rule": "try-deny", "would": "deny"}]

    with g.session("127.0.0.2", echo.port) as c:
        assert c.code == socks.NOT_ALLOWED
    row = g.row(event="denied")
    assert row["verdict"] == "deny"
    assert row["detail"]["monitors"] == [{"rule": "try-deny", "would": "deny"}, {"rule": "try-allow", "would": "allow"}]
