"""The bench itself works: it measures gatewayd and the bare relays, and writes what it found. (No figure is judged.)"""

import json
import os
import subprocess
import sys

import pytest

from harness import netns, wait
from harness.gateway import BUILD, ROOT, sanitized

pytestmark = pytest.mark.skipif(not netns.usable() or sanitized(), reason="needs a network namespace; sanitizers measure nothing")

LONGEST_MS = 1000


def test_every_kind_of_load_in_short(tmp_path):
    subprocess.run(["make", "-s", "-C", BUILD, "tests/bench/load", "tests/bench/relay"], check=True, timeout=wait.seconds(120))

    def attempt(ms):
        done, measured = measure(tmp_path, ms / 1000)
        if not measured and ms < LONGEST_MS:
            raise wait.TooSlow(f"nothing happened in {ms} ms")
        assert measured and "| gatewayd |" in done.stdout.decode(), done.stderr.decode()

    wait.with_time_enough(attempt, 50, LONGEST_MS)


def measure(tmp_path, seconds):
    """What the bench said, and whether there is something of every kind."""
    done = subprocess.run(
        [sys.executable, os.path.join(ROOT, "tests", "bench", "bench.py"), "--ours", "--rounds", "1", "--seconds", str(seconds), "--idle", "20",
         "--figures", "setup,requests,bulk,udp,idle", "--output", str(tmp_path)],
        env={**os.environ, "GATEWAYD_BUILD": BUILD}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=wait.seconds(200),
    )
    assert done.returncode == 0, done.stderr.decode()
    with open(tmp_path / "bench.json", encoding="utf-8") as f:
        tables = json.load(f)
    # So few idle sessions may take less memory than what a process happens to free meanwhile.
    assert {"gatewayd", "gatewayd, none, relaxed"} <= tables["idle"]["median"].keys()
    return done, all(tables[key]["median"].get(name, 0) > 0 for name in ("gatewayd", "gatewayd, none, relaxed") for key in (
        "setup", "setup-name", "requests", "bulk-1-down", "bulk-16-both", "udp", "udp-stream", "udp-joined"))
