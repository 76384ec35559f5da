"""Every noun and verb of gatewayctl tells what it does, on a screen, and needs no gateway for it."""

import os
import re
import subprocess

from harness import wait
from harness.gateway import BUILD

# Lines and columns of the smallest terminal that people have: nothing of it scrolls away.
LINES, COLUMNS = 24, 80


def ctl(*words):
    return subprocess.run([os.path.join(BUILD, "admin", "gatewayctl"), "--socket", "/nonexistent", *words], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=wait.seconds(60), check=False)


def lines_of(words):
    done = ctl(*words, "--help")
    assert done.returncode == 0 and done.stderr == b"", (words, done)
    return done.stdout.decode("ascii").splitlines()


def grammar(*words):
    """What may stand behind these words, as completions have it: [] where it is no word of ours."""
    done = ctl("complete", "--", *words, "")
    return [w for w in done.stdout.decode().splitlines() if re.fullmatch("[a-z]+", w)]


def levels():
    """() and every noun, and every verb of each."""
    nouns = grammar()
    assert len(nouns) >= 12, nouns
    return [(), *((n,) for n in nouns), *((n, v) for n in nouns for v in grammar(n))]


def test_help_at_every_level_is_one_screen():
    every = levels()
    assert len(every) > 60, every
    for words in every:
        lines = lines_of(words)
        noun = "top" if words == ("session", "watch") else words[0] if words else ""
        assert lines[0].startswith("usage: gatewayctl " + noun), (words, lines[0])
        assert 2 <= len(lines) <= LINES, (words, len(lines))
        assert max(map(len, lines)) <= COLUMNS, (words, max(lines, key=len))
        if len(words) == 2:
            assert any(f"{words[0]} {words[1]}" in " ".join(line.split()) for line in lines), (words, lines)


def test_wrong_words_say_what_to_do(gateway):
    """A word too many, an option that there is not, an object that is missing: usage, and exit code 2, whatever the gateway."""
    for words in levels():
        for more in (["--no-such-option"],):
            done = ctl(*words, *more)
            said = done.stderr.decode()
            assert done.returncode == 2 and done.stdout == b"", (words, more, done)
            assert "usage:" in said or "--help" in said or "no-such-option" in said, (words, said)
    for words in ((), ("policy",), ("rule",), ("session",), ("audit",), ("auth",), ("log",), ("set",), ("window",), ("session", "show"), ("session", "unblock"),
                  ("session", "kill"), ("policy", "apply"), ("policy", "rollback"), ("rule", "move"), ("audit", "stats"), ("audit", "verify"), ("audit", "why"),
                  ("audit", "sql"), ("audit", "report"), ("audit", "prune"), ("set", "import", "x"), ("auth", "forget")):
        done = ctl(*words)
        assert done.returncode == 2 and done.stdout == b"" and done.stderr, (words, done)


# One command of each that needs a running gateway.
ASKING = [
    ("status",), ("reload",), ("drain",), ("log", "level"), ("policy", "apply", "POLICY"), ("policy", "rollback", "1"), ("policy", "confirm"),
    ("policy", "pending"), ("policy", "approve", "2"), ("policy", "reject", "2", "--reason", "x"), ("policy", "log"), ("policy", "show"), ("policy", "export"), ("policy", "impact", "POLICY"), ("policy", "suggest"), ("policy", "explain", "a.example"),
    ("rule", "list"), ("rule", "unused", "30d"), ("rule", "expiring", "30d"), ("rule", "add", "x", "deny"), ("rule", "remove", "x"),
    ("set", "list"), ("set", "show", "x"), ("set", "add", "x", "y"), ("window", "list"), ("window", "remove", "x"), ("session", "list"),
    ("session", "show", "0123-4567-89AB-C"), ("session", "kill", "user=x", "--reason", "y"), ("session", "block", "user=x", "--for", "1h", "--reason", "y"),
    ("session", "blocks"), ("session", "unblock", "1"), ("auth", "list"), ("auth", "unlock"), ("auth", "forget", "x"), ("audit", "query"), ("audit", "tail"),
    ("audit", "stats", "--by", "user"), ("audit", "sql", "SELECT 1"), ("audit", "why", "1"), ("audit", "prune", "--keep", "1d"), ("audit", "hold", "list"),
    ("audit", "report", "-o", "OUT"),
]


def test_an_unreachable_gateway_is_exit_code_3(tmp_path):
    policy = tmp_path / "p"
    policy.write_text("default deny\n")
    for words in ASKING:
        words = [str(policy) if w == "POLICY" else str(tmp_path / "out") if w == "OUT" else w for w in words]
        done = ctl(*words)
        assert done.returncode == 3, (words, done)
        said = done.stderr.decode().splitlines()
        assert any("/nonexistent" in line and "gatewayd is not running there; --socket PATH names another" in line for line in said), (words, said)
    assert not (tmp_path / "out").exists()


def test_help_goes_before_everything_else():
    """Somebody who asks for help in the middle of a command wants that command not to happen."""
    done = ctl("policy", "apply", "/nonexistent", "--yes", "--help")
    assert done.returncode == 0 and done.stdout.startswith(b"usage: gatewayctl policy apply")
