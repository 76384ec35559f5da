"""gatewayctl top in a real tmux, whose screen is captured, under as many sessions as a busy gateway has."""

import os
import re
import shlex
import shutil
import subprocess

import pytest

from harness import wait
from harness.gateway import BUILD

# "make check-long" has all 5,000.
SESSIONS = 5000 if os.environ.get("GATEWAYD_TEST_FULL") else 100


class Tmux:
    """A server of its own, whose one window runs top."""

    def __init__(self, directory, command, columns, lines):
        self.socket = os.path.join(directory, f"tmux{columns}")
        self.status = os.path.join(directory, f"status{columns}")
        # Ctrl-C is for both: the shell goes on, and tells how top ended.
        shell = f"trap : INT; {shlex.join(command)}; echo $? > {shlex.quote(self.status)}.new; mv {shlex.quote(self.status)}.new {shlex.quote(self.status)}"
        environment = {k: v for k, v in os.environ.items() if k not in ("TMUX", "LINES", "COLUMNS", "NO_COLOR")}
        subprocess.run(["tmux", "-f", "/dev/null", "-S", self.socket, "new-session", "-d", "-x", str(columns), "-y", str(lines), "sh", "-c", shell],
                       check=True, env=environment, timeout=wait.seconds(60))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.do("kill-server", check=False)

    def do(self, *words, check=True):
        return subprocess.run(["tmux", "-S", self.socket, *words], check=check, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=wait.seconds(60)).stdout.decode()

    def screen(self):
        return self.do("capture-pane", "-p")

    def shows(self, *wanted):
        seen = [""]

        def all_there():
            seen[0] = self.screen()
            return all(w in seen[0] for w in wanted)

        wait.until(all_there, lambda: f"{wanted} on the screen:\n{seen[0]}", interval=0.1)
        return seen[0]

    def ended(self):
        wait.until(lambda: os.path.exists(self.status), "top ends")
        with open(self.status) as f:
            return int(f.read())


@pytest.mark.skipif(shutil.which("tmux") is None, reason="no tmux here")
@pytest.mark.load
def test_many_sessions_in_tmux(gateway, echo, tmp_path):
    g = gateway("rule echo allow to cidr 127.0.0.1/32 port 1-65535\ndefault deny\n", listener_methods=["none"])
    top = [os.path.join(BUILD, "admin", "gatewayctl"), "--socket", g.socket, "top", "--interval", "1"]
    clients = []
    try:
        for _ in range(SESSIONS):
            clients.append(g.session("127.0.0.1", echo.port, user=None))
        for columns, lines in ((80, 24), (200, 60)):
            with Tmux(str(tmp_path), top, columns, lines) as t:
                t.shows(f"{SESSIONS} sessions", f"{SESSIONS} match", f"127.0.0.1:{echo.port}", "audit ok", "ALLOWED")

                def used():
                    """As many sessions as there is room for, and the panels below them."""
                    text = t.screen()
                    many = text.count(f"127.0.0.1:{echo.port}") >= lines // 3
                    return text if many and re.search(rf"^ +{SESSIONS} +0 echo$", text, re.MULTILINE) else None

                text = wait.until(used, t.screen)
                rows = text.rstrip("\n").split("\n")
                assert len(rows) <= lines and all(len(r) <= columns for r in rows), text
                assert ("SESSION " in text) == (columns == 200), text
                t.do("send-keys", "s")
                t.shows(f"{SESSIONS} match")
                wait.until(lambda: t.screen().count(f"127.0.0.1:{echo.port}") >= lines - 5, lambda: t.screen())
                t.do("send-keys", "NPage")
                t.do("send-keys", "b")
                t.shows("by bytes")
                t.do("send-keys", "C-c")
                assert t.ended() == 0
        clients[0].echo(b"still here")
        clients[-1].echo(b"so are we")
    finally:
        for c in clients:
            c.close()
