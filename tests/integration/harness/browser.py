"""Headless Chromium: what a page becomes in it, what it complains of, and what it asks of the network."""

import json
import os
import re
import shutil
import struct
import subprocess
import tempfile
import zlib

from . import wait

SECONDS = 90
# What the browser itself would like to ask; no name is resolved for it.
_OWN = re.compile(r"https?://([a-z0-9-]+\.)*(google|googleapis|gstatic|gvt1)\.com(/|$)")


class Browser:
    """Each look is a process of its own with a profile of its own, ended when it has looked."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="browser", dir="/tmp")
        self.console = []
        self.asked = []

    def close(self):
        shutil.rmtree(self.dir, ignore_errors=True)

    def look(self, page, *arguments):
        """Opens the page; notes what went to its console, and which addresses were asked for."""
        log = os.path.join(self.dir, "net.json")
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
                   "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
                   "--disable-breakpad", "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={self.dir}/profile", f"--log-net-log={log}", "--enable-logging=stderr",
                   "--window-size=1000,1400", *arguments, "file://" + page]
        environment = {"HOME": self.dir, "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
                              timeout=wait.seconds(SECONDS), check=True)
        said = done.stderr.decode("utf-8", "replace")
        self.console = [line for line in said.splitlines() if ":CONSOLE" in line]
        self.asked = sorted(_urls(log))
        return done.stdout.decode("utf-8")


def _urls(log):
    """Addresses in the browser's own log of its network, but for those that the browser asks for by itself."""
    with open(log, encoding="utf-8") as f:
        text = f.read()
    # It may have been cut when the browser ended.
    for line in text.splitlines():
        try:
            params = json.loads(line.rstrip(",")).get("params", {})
        except (ValueError, AttributeError):
            continue
        url = params.get("url", "") if isinstance(params, dict) else ""
        if url and not url.startswith(("data:", "chrome:", "chrome-extension:")) and not _OWN.match(url):
            yield url


def pixel(png, x, y):
    """The colour of one pixel of an eight-bit PNG, as (red, green, blue)."""
    with open(png, "rb") as f:
        data = f.read()
    width, _height, depth, kind = struct.unpack(">IIBB", data[16:26])
    assert depth == 8 and kind in (2, 6)
    step = 3 if kind == 2 else 4
    at, packed = 8, b""
    while at < len(data):
        size, name = struct.unpack(">I4s", data[at:at + 8])
        if name == b"IDAT":
            packed += data[at + 8:at + 8 + size]
        at += 12 + size
    raw, row = zlib.decompress(packed), bytearray(width * step)
    for line in range(y + 1):
        start = line * (width * step + 1)
        filtered, before, row = raw[start], row, bytearray(raw[start + 1:start + 1 + width * step])
        for i in range(len(row)):
            left = row[i - step] if i >= step else 0
            up, corner = before[i], before[i - step] if i >= step else 0
            if filtered == 1:
                row[i] = (row[i] + left) & 255
            elif filtered == 2:
                row[i] = (row[i] + up) & 255
            elif filtered == 3:
                row[i] = (row[i] + (left + up) // 2) & 255
            elif filtered == 4:
                guess = min((abs(up - corner), 0, left), (abs(left - corner), 1, up), (abs(left + up - 2 * corner), 2, corner))[2]
                row[i] = (row[i] + guess) & 255
    return tuple(row[x * step:x * step + 3])
