"""Policies that nobody means well with: a clear error, in bounded memory and time, from gatewayctl and from the daemon."""

import os
import resource
import subprocess

import pytest

from harness import admin, processes, socks, wait
from harness.gateway import BUILD, sanitized

BASE = "rule loopback allow to cidr 127.0.0.0/8\ndefault deny\n"
MEMORY = 600 << 20
MB = 1 << 20


def limit():
    if not sanitized():
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def check(path, *arguments):
    done = subprocess.run([os.path.join(BUILD, "admin", "gatewayctl"), "policy", "check", *arguments, path], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=wait.seconds(100), preexec_fn=limit)
    return done.returncode, done.stdout.decode("utf-8", "replace")


def nested(kind, depth):
    return "".join(f'set s{i} {kind} {{ @s{i - 1} }}\n' if i else f'set s0 {kind} {{ 1 }}\n' for i in range(depth))


BAD = {
    "100 MB": (b"rule a allow\n" * (100 * MB // 13), "64 MB"),
    "a line of a million characters": (b'rule a allow comment "' + b"x" * MB + b'"\n', ":1:22: error"),
    "a word of a million characters": (b"rule " + b"x" * MB + b" allow\n", ":1:6: error"),
    "a million blanks": (b"rule a" + b" " * MB + b"alow\n", "did you mean 'allow'"),
    "NUL": (b"rule a allow\0\n", r"\x00"),
    "only NUL": (b"\0" * MB, r"\x00"),
    "braces": (b"set a cidr " + b"{" * MB + b"\n", ":1:13: error"),
    "nested parentheses": (b'rule a allow to regex "' + b"(" * 2000 + b"a" + b")" * 2000 + b'"\n', "too deeply nested"),
    "a regex of repetitions": (b'rule a allow to regex "((((a{1,200}){1,200}){1,200}){1,200}"\n', "[bad-regex]"),
    "clauses": (b"rule a allow" + b" port 1" * 100000 + b"\n", "[too-many]"),
    "the same said again": (b"".join(b"rule r%d allow\n" % i for i in range(50000)) + b"default deny\n" * 50000, "[duplicate]"),
    "sets that nobody defines": (b"rule a allow port " + b"@nothing " * 100000 + b"\n", "[unknown-set]"),
    "no file": (b'include "absent"\n', "No such file"),
    "itself": (b'include "bad.policy"\n', "[include-loop]"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_policy(tmp_path, name):
    data, said = BAD[name]
    (tmp_path / "bad.policy").write_bytes(data)
    code, out = check(str(tmp_path / "bad.policy"))
    assert code == 1 and said in out, (code, out[:2000])
    assert len(out) < 256 * 1024 and "\0" not in out


GOOD = {
    "sets in sets": nested("port", 5000) + "rule a allow port @s4999\n",
    "sets in sets, doubled": "set s0 port { 1 }\n" + "".join(f"set s{i} port {{ @s{i - 1} @s{i - 1} }}\n" for i in range(1, 60)) + "rule a allow port @s59\n",
    "many sets": "".join(f"set s{i} port {{ {i} }}\n" for i in range(5000)) + "".join(f"rule r{i} allow port @s{i % 5000} client 10.0.0.1\n" for i in range(20000)),
    "a regex that never ends": 'rule a deny to regex "(x+x+)+[yz].*" log alert\nrule b allow by name\nexpect deny to ' + ("x" * 60 + ".") * 4 + "example\n",
}


@pytest.mark.parametrize("name", GOOD)
def test_odd_policy(tmp_path, name):
    """Unusual, and sound: it takes no longer for that."""
    (tmp_path / "odd.policy").write_text(GOOD[name])
    code, out = check(str(tmp_path / "odd.policy"))
    assert code == 0, out[:2000]


def test_includes_of_everybody_by_everybody(tmp_path):
    """Names that differ lead to the same files: depth and number bound what is read."""
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "p").write_text('include "../a/p"\ninclude "../b/p"\n' * 20)
    code, out = check(str(tmp_path / "a" / "p"))
    assert code == 1 and "[include-loop]" in out


def test_a_list_larger_than_what_is_read(tmp_path):
    with open(tmp_path / "big", "wb") as f:
        f.truncate(300 * MB)
    (tmp_path / "p").write_text('set s domain file "big"\nrule a deny to domain @s\n')
    code, out = check(str(tmp_path / "p"))
    assert code == 1 and "256 MB" in out


@pytest.mark.parametrize("name", ["only NUL", "braces", "a word of a million characters", "nested parentheses"])
def test_the_daemon_refuses_them_too(gateway, echo, name):
    """From its own file, and from a client that does not look first."""
    g = gateway(BASE)
    data = BAD[name][0]
    with open(g.policy_file, "wb") as f:
        f.write(data)
    done = g.reload(check=False)
    assert done.returncode == 1 and "\0" not in done.err
    head = b"GWBUNDLE" + (1).to_bytes(4, "little") + (1).to_bytes(4, "little")
    entry = (1).to_bytes(4, "little") + bytes(4) + len(data).to_bytes(8, "little")
    fd = admin.memory_file(head + entry + b"p\0" + data)
    reply, _ = admin.ask(g.socket, {"command": "policy-apply"}, [fd])
    os.close(fd)
    assert reply["ok"] is False and reply["errors"] > 0 and reply["diagnostics"]
    assert g.revision() == 1
    with g.session("127.0.0.1", echo.port) as c:
        assert c.code == socks.OK


def test_a_compiler_that_takes_too_long_is_ended(gateway, echo):
    g = gateway(BASE, compile_timeout=1000)
    rules = "".join(f"rule r{i} allow user u{i} group g{i} client 10.0.{i >> 8 & 255}.{i & 255} to domain d{i}.example port {i % 65536}\n"
                    for i in range(3000 if sanitized() else 20000))
    for turn in range(20):
        before = g.revision()
        g.write("slow.policy", f"{BASE}{rules}# {turn}\n")
        apply = subprocess.Popen([os.path.join(BUILD, "admin", "gatewayctl"), "--socket", g.socket, "policy", "apply", g.path("slow.policy")],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        processes.stop_compiler(g, apply)  # that one takes too long for sure
        out, err = apply.communicate(timeout=wait.seconds(100))
        if apply.returncode == 1:
            break
        assert g.revision() == before + 1, (out, err)  # it was done before it could be stopped
    assert apply.returncode == 1 and b"the compiler ended" in err, (out, err)
    assert g.revision() == before
    with g.session("127.0.0.1", echo.port) as c:
        assert c.code == socks.OK
    # And the next one is compiled.
    g.write_policy(BASE + "# mended\n")
    wait.until(lambda: f"revision {before + 1}" in g.ctl("reload", "--force", check=False).out, "a compiler that a busy machine has let finish in that time")


@pytest.mark.parametrize("data", [None, b"a\x01b\n", b"x" * 5000 + b"\n"])
def test_a_list_with_errors_is_not_told_to_be_empty(tmp_path, data):
    if data is not None:
        (tmp_path / "list").write_bytes(data)
    (tmp_path / "p.policy").write_text('set a domain file "list"\nrule a deny to domain @a log alert\n')
    code, out = check(str(tmp_path / "p.policy"))
    assert code == 1 and "error" in out and "empty-set" not in out, (code, out)
