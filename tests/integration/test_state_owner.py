"""The state's directories are ours, or the gateway does not start: it never gives away what somebody else made."""

import os
import pwd

import pytest

from harness.starts import refused

pytestmark = pytest.mark.root
PARTS = pytest.mark.parametrize("part", ["audit", "policy"])


@PARTS
def test_link_to_another_directory(gateway, part):
    g = gateway(start=False)
    target = g.path("precious")
    os.mkdir(target, 0o755)
    os.symlink(target, os.path.join(g.state, part))
    refused(g, os.path.join(g.state, part))
    st = os.stat(target)
    assert (st.st_uid, st.st_mode & 0o777) == (0, 0o755)
    assert os.listdir(target) == []


@PARTS
def test_directory_of_somebody_else(gateway, part):
    g = gateway(start=False)
    games = pwd.getpwnam("games").pw_uid
    directory = os.path.join(g.state, part)
    os.mkdir(directory)
    os.chown(directory, games, -1)
    refused(g, directory, f"uid {games}")
    assert os.stat(directory).st_uid == games


def test_directories_of_a_former_run(gateway):
    g = gateway()
    g.restart()
    assert os.stat(os.path.join(g.state, "audit")).st_uid == pwd.getpwnam("nobody").pw_uid
