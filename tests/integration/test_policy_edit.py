"""gatewayctl policy edit, at a terminal: a mistake is shown and edited again, and nothing changes that was not agreed to."""

import os
import pty
import select
import signal
import sys
import time

import pytest

from harness import wait
from harness.between import Between
from harness.gateway import BUILD

BASE = "# By hand.\nrule loopback allow to cidr 127.0.0.0/8\ndefault deny\n"

# Each time it is started it writes the next of the texts; it tells how it was started.
EDITOR = """#!{python}
import os, stat, sys
here = os.path.dirname(os.path.abspath(__file__))
path = sys.argv[-1]
with open(os.path.join(here, "started"), "a") as f:
    s, d = os.stat(path), os.stat(os.path.dirname(path))
    print(sys.argv[1:-1], oct(stat.S_IMODE(s.st_mode)), oct(stat.S_IMODE(d.st_mode)), path, sep="|", file=f)
n = sum(1 for _ in open(os.path.join(here, "started")))
text = os.path.join(here, f"text.{{n}}")
if not os.path.exists(text):
    sys.exit(1)
os.rename(text, path)  # as many editors do
"""


class Terminal:
    """A program with a terminal of its own."""

    def __init__(self, command, environment):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(command[0], command, environment)
        self.said = ""
        self.code = None

    def _read(self, seconds):
        if not select.select([self.fd], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # the other side is closed
            data = b""
        self.said += data.decode().replace("\r\n", "\n")
        return data != b""

    def expect(self, text, answer=None):
        """Waits until it has said text, and answers."""
        end = time.monotonic() + wait.seconds(wait.DEADLINE)
        while text not in self.said:
            assert self._read(max(0, end - time.monotonic())) and time.monotonic() < end, self.said
        before, self.said = self.said.split(text, 1)
        if answer is not None:
            os.write(self.fd, answer.encode())
        return before

    def finish(self):
        end = time.monotonic() + wait.seconds(wait.DEADLINE)
        while self._read(max(0, end - time.monotonic())):
            assert time.monotonic() < end, self.said
        self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.fd)
        return self.code


@pytest.fixture
def edit(gateway):
    g = gateway(BASE)
    g.write("editor", EDITOR.format(python=sys.executable))
    os.chmod(g.path("editor"), 0o755)
    os.mkdir(g.path("tmp"))
    terminals = []

    def start(*texts, options=(), editor=None, control=g.socket, **environment):
        for name in os.listdir(g.dir):
            if name.startswith("text.") or name == "started":
                os.unlink(g.path(name))
        for i, text in enumerate(texts):
            g.write(f"text.{i + 1}", text)
        env = {**os.environ, "TMPDIR": g.path("tmp"), "TERM": "dumb", "EDITOR": g.path("editor") if editor is None else editor}
        env.pop("VISUAL", None)
        env.update(environment)
        t = Terminal([os.path.join(BUILD, "admin", "gatewayctl"), "--socket", control, "policy", "edit", *options], env)
        terminals.append(t)
        return t

    start.g = g
    yield start
    for t in terminals:
        if t.code is None:
            os.kill(t.pid, signal.SIGKILL)
            os.waitpid(t.pid, 0)


def started(g):
    with open(g.path("started"), encoding="utf-8") as f:
        return [line.rstrip("\n").split("|") for line in f]


def in_force(g):
    return g.ctl("policy", "export").out


def test_a_mistake_is_shown_and_edited_again(edit):
    g = edit.g
    wrong, right = BASE.replace("allow to", "alow to"), BASE.replace("127.0.0.0/8", "127.0.0.0/16")
    t = edit(wrong, right, options=["--comment", "narrower"], editor=g.path("editor") + " -x  --two")
    said = t.expect("(e)dit again, (q)uit without a change?", "e\n")
    assert "gateway.policy:2:15: error: " in said and "did you mean 'allow'?" in said and "\n                  ^~~~" in said, said
    said = t.expect("(a)pply, (e)dit again, (q)uit without a change?", "a\n")
    assert "loopback" in said and "1 difference in what is decided found" in said, said
    t.expect("policy revision 2 is active")
    assert t.finish() == 0
    assert in_force(g) == right
    assert "narrower" in g.ctl("policy", "log").out
    # Nobody else could reach the copy; options came as words of their own; it is gone.
    first, second = started(g)
    assert first[:3] == ["['-x', '--two']", "0o600", "0o700"] and first[3].startswith(g.path("tmp"))
    assert second[0] == first[0] and second[2] == "0o700"
    assert os.listdir(g.path("tmp")) == []


def test_giving_up_changes_nothing(edit):
    g = edit.g
    t = edit(BASE + "x")
    t.expect("this cannot be applied", "q\n")
    assert t.finish() == 1 and "nothing was changed" in t.said
    t = edit(BASE + "# more\n")
    assert "no difference in what is decided" in t.expect("(a)pply,", "what\nq\n")
    assert t.finish() == 1 and t.said.count("(a)pply,") == 1
    t = edit(BASE)
    t.expect("nothing was changed")
    assert t.finish() == 0
    t = edit(BASE + "# more\n")
    t.expect("(a)pply,", "\x03")
    assert t.finish() == 1
    t = edit()
    t.expect("the editor did not end well; nothing was changed")
    assert t.finish() == 1
    assert g.revision() == 1 and os.listdir(g.path("tmp")) == []


def test_no_shell_sees_the_editor(edit):
    g = edit.g
    t = edit(BASE, editor=f"{g.path('editor')};touch {g.path('touched')}")
    t.expect("cannot start the editor")
    assert t.finish() == 1 and not os.path.exists(g.path("touched"))
    t = edit(BASE + "# more\n", editor="/nonexistent", VISUAL=g.path("editor"))
    t.expect("(a)pply,", "a\n")
    assert t.finish() == 0 and in_force(g) == BASE + "# more\n"


def test_somebody_was_faster(edit):
    g = edit.g
    t = edit(BASE + "# mine\n")
    t.expect("(a)pply,")
    g.ctl("rule", "add", "theirs", "deny")
    os.write(t.fd, b"a\n")
    t.expect("(e)dit again, (q)uit?", "q\n")
    assert t.finish() == 1
    kept = t.said.split("what you wrote is in ")[1].strip()
    with open(kept, encoding="utf-8") as f:
        assert f.read() == BASE + "# mine\n"
    assert "theirs" in in_force(g) and "mine" not in in_force(g)


@pytest.mark.parametrize("held,end,code,said", [
    ("policy-apply", signal.SIGINT, 1, "interrupted: it is ordered, and gatewayd carries it out all the same"),
    ("policy-apply", signal.SIGTERM, -signal.SIGTERM, ""),
    ("policy-head", signal.SIGINT, -signal.SIGINT, "")])
def test_whoever_is_interrupted_while_it_is_ordered_finds_what_was_written(edit, held, end, code, said):
    g = edit.g
    with Between(g.path("between.sock"), g.socket, held) as between:
        t = edit(BASE + "# mine\n", control=g.path("between.sock"))
        t.expect("(a)pply,", "a\n")
        assert between.kept.wait(wait.seconds(wait.DEADLINE))
        if end == signal.SIGINT:
            os.write(t.fd, b"\x03")
        else:
            os.kill(t.pid, end)
        assert t.finish() == code, t.said
    assert said in t.said and ("it is ordered" in t.said) == (said != ""), t.said
    kept = t.said.split("gatewayctl: what you wrote is in ")[1].split("\n")[0]
    with open(kept, encoding="utf-8") as f:
        assert f.read() == BASE + "# mine\n"


def test_a_file_of_the_policy(edit):
    g = edit.g
    g.write("closed", "127.0.0.3\n")
    g.write("main.policy", 'set closed cidr file "closed"\nrule closed deny to cidr @closed\n' + BASE)
    g.ctl("policy", "apply", g.path("main.policy"))
    t = edit("127.0.0.300\n", "127.0.0.4\n", options=["closed"])
    assert "closed:1:1: error" in t.expect("this cannot be applied", "e\n")
    t.expect("(a)pply,", "a\n")
    assert t.finish() == 0
    assert g.ctl("set", "show", "closed").out == "127.0.0.4\n"
    t = edit(options=["none"])
    t.expect("names no file none")
    assert t.finish() == 1


def test_without_a_terminal(edit):
    done = edit.g.ctl("policy", "edit", check=False)
    assert done.returncode == 2 and "no terminal" in done.err


def test_bytes_that_are_no_policy(edit):
    g = edit.g
    t = edit("a\0b")
    t.expect("holds a NUL byte; nothing was changed")
    assert t.finish() == 1
    assert g.revision() == 1
