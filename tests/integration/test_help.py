"""Every noun and verb of gatewayctl tells what it does, on a screen, and needs no gateway for it."""

import os
import subprocess

import pytest

from harness import wait
from harness.gateway import BUILD

VERBS = {
    "policy": "check fmt test diff explain apply rollback confirm pending approve reject edit impact suggest log show export",
    "rule": "list unused expiring add insert move replace remove enable disable",
    "set": "list show create add remove import delete",
    "window": "list add replace except remove",
    "audit": "query tail stats verify report why",
    "auth": "list unlock forget",
}


def ctl(*words):
    return subprocess.run([os.path.join(BUILD, "admin", "gatewayctl"), "--socket", "/nonexistent", *words], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=wait.seconds(60), check=False)


@pytest.mark.parametrize("noun", ["status", "reload", *VERBS])
def test_help(noun):
    for words in [[noun], *([noun, v] for v in VERBS.get(noun, "").split())]:
        done = ctl(*words, "--help")
        assert done.returncode == 0 and done.stderr == b"", (words, done)
        lines = done.stdout.decode().splitlines()
        assert lines[0].startswith(f"usage: gatewayctl {noun}") and 2 <= len(lines) <= 50, words
        assert max(map(len, lines)) <= 130, words


def test_help_goes_before_everything_else():
    """Somebody who asks for help in the middle of a command wants that command not to happen."""
    done = ctl("policy", "apply", "/nonexistent", "--yes", "--help")
    assert done.returncode == 0 and done.stdout.startswith(b"usage: gatewayctl policy apply")
