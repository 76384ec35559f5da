"""The bench itself works: it measures gatewayd and the bare relays, and writes what it found. (No figure is judged.)"""

import json
import os
import subprocess
import sys

import pytest

from harness import netns, wait
from harness.gateway import BUILD, ROOT, sanitized

pytestmark = pytest.mark.skipif(not netns.usable() or sanitized(), reason="needs a network namespace; sanitizers measure nothing")


def test_every_kind_of_load_in_short(tmp_path):
    subprocess.run(["make", "-s", "-C", BUILD, "tests/bench/load", "tests/bench/relay"], check=True, timeout=wait.seconds(120))
    done = subprocess.run(
        [sys.executable, os.path.join(ROOT, "tests", "bench", "bench.py"), "--ours", "--rounds", "1", "--seconds", "0.05", "--idle", "20",
         "--figures", "setup,requests,bulk,udp,idle", "--output", str(tmp_path)],
        env={**os.environ, "GATEWAYD_BUILD": BUILD}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=wait.seconds(170),
    )
    assert done.returncode == 0, done.stderr.decode()
    with open(tmp_path / "bench.json", encoding="utf-8") as f:
        tables = json.load(f)
    # So few idle sessions may take less memory than what a process happens to free meanwhile.
    assert {"gatewayd", "gatewayd, none, relaxed"} <= tables["idle"]["median"].keys()
    for key in ("setup", "setup-name", "requests", "bulk-1-down", "bulk-16-both", "udp", "udp-stream", "udp-joined"):
        assert tables[key]["median"]["gatewayd"] > 0 and tables[key]["median"]["gatewayd, none, relaxed"] > 0, (key, done.stderr.decode())
    assert "| gatewayd |" in done.stdout.decode()
