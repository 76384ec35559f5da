"""A program on a real pseudo-terminal, and what its screen shows, as a terminal of that size would."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time

import pyte

from . import wait


class Terminal:
    def __init__(self, command, columns=80, lines=24, **environment):
        self.raw = b""
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        leader, follower = pty.openpty()
        self._leader = leader
        self._set_size(columns, lines)
        e = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "LINES", "COLUMNS")}
        e.update({"TERM": "screen-256color", **environment})
        self.process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=e, start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(follower)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(wait.seconds(30))
        os.close(self._leader)

    def _set_size(self, columns, lines):
        fcntl.ioctl(self._leader, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns, lines):
        self.screen.resize(lines, columns)
        self._set_size(columns, lines)
        os.kill(self.process.pid, signal.SIGWINCH)

    def _read(self):
        while select.select([self._leader], [], [], 0)[0]:
            try:
                data = os.read(self._leader, 65536)
            except OSError:
                return  # nobody is at the other end any more
            if not data:
                return
            self.raw += data
            self._stream.feed(data)

    def text(self):
        self._read()
        return "\n".join(line.rstrip() for line in self.screen.display)

    def shows(self, *wanted, deadline=wait.DEADLINE):
        """Waits until the screen has all of these."""
        wait.until(lambda: all(w in self.text() for w in wanted), lambda: f"{wanted} on the screen:\n{self.text()}", deadline)
        return self.text()

    def press(self, keys):
        os.write(self._leader, keys.encode() if isinstance(keys, str) else keys)

    def ends(self):
        until = time.monotonic() + wait.seconds(wait.DEADLINE)
        while self.process.poll() is None and time.monotonic() < until:
            self._read()
            time.sleep(0.01)
        self._read()
        assert self.process.poll() is not None, self.text()
        return self.process.returncode
