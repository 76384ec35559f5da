"""Where the programs under test are, and how long they may take."""

import os

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
BUILD = os.path.realpath(os.environ.get("GATEWAYD_BUILD", os.path.join(ROOT, "build")))


def sanitized():
    """True for a build with sanitizers, whose runtime needs more memory, more time and more system calls than ours."""
    try:
        with open(os.path.join(BUILD, "gatewayd", "gatewayd"), "rb") as f:
            return b"__asan_init" in f.read()
    except FileNotFoundError:
        return False


# What every deadline of a test is multiplied by: a deadline is there to end a test that hangs, and judges no machine.
SLOW = float(os.environ.get("GATEWAYD_TEST_SLOW") or (3 if sanitized() else 1))
