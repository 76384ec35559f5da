"""gatewayd.conf says what it says: nothing in it comes from the starter's environment."""

import pytest

from harness.starts import refused


@pytest.mark.parametrize("value", ["${HOME}/state", "${NOT_SET}", "/x${HOME:-/y}"])
def test_variable(gateway, value):
    g = gateway(start=False, environment={"HOME": "/root"})
    g.configure(state_dir=value)
    with open(g.conf, encoding="utf-8") as f:
        line = 1 + [value in text for text in f].index(True)
    refused(g, f"{g.conf}:{line}:", "${")
