"""What a rule's `log` puts into the log, besides the audit."""

import re

from harness import socks, wait

POLICY = """\
rule quiet  allow to cidr 127.0.0.1/32 log none
rule heard  allow to cidr 127.0.0.2/32 log notice
rule loud   deny  to cidr 127.0.0.3/32 log alert
default deny
"""


def test_loudness(gateway, echo):
    g = gateway(POLICY)
    codes = []
    for host in ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"):
        with g.session(host, echo.port) as c:
            codes.append(c.code)
    assert codes == [socks.OK, socks.REFUSED, socks.NOT_ALLOWED, socks.NOT_ALLOWED]
    wait.until(lambda: "by rule loud" in g.log() and "by rule heard" in g.log(), g.log)
    lines = [line for line in g.log().splitlines() if "by rule" in line]
    assert len(lines) == 2, lines
    alert = next(line for line in lines if "by rule loud" in line)
    assert re.search(r"warning: .*ALERT: session \S+: user ann at 127\.0\.0\.1 to 127\.0\.0\.3 port \d+: denied by rule loud$", alert), alert
    assert "ALERT" not in next(line for line in lines if "by rule heard" in line)
    denied = {r["rule"] for r in g.wait_rows(2, event="denied")}
    assert "loud" in denied
