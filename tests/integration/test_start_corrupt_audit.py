"""An audit that is no database: the start says which file, in one line, each time."""

import os
import random

import pytest

from harness.starts import refused


@pytest.mark.parametrize("keep", [0, 100], ids=["all", "after-the-header"])
def test_random_bytes(gateway, keep):
    g = gateway()
    assert g.stop() == 0
    file = os.path.join(g.state, "audit", "audit-00000001.db")
    for suffix in ("-wal", "-shm"):
        if os.path.exists(file + suffix):
            os.unlink(file + suffix)
    size = os.path.getsize(file)
    with open(file, "r+b") as f:
        f.seek(keep)
        f.write(random.Random(7).randbytes(max(size, 8192) - keep))
    for _ in range(10):
        refused(g, os.path.dirname(file), os.path.basename(file))
