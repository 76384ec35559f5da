"""gatewayctl policy apply and its kin: what the caller reads travels as content, is stored whole, and rules from then on."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import struct
import subprocess

import pytest

from harness import admin, processes, servers, socks, wait
from harness.gateway import BUILD

BASE = "rule loopback allow to cidr 127.0.0.0/8\ndefault deny\n"


@pytest.fixture(scope="module")
def echo():
    s = servers.Echo("0.0.0.0")
    yield s
    s.close()


def code(g, echo, host="127.0.0.1"):
    with g.session(host, echo.port) as c:
        return c.code


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return path


def tree(g, addresses="127.0.0.2\n"):
    """A policy that includes a file, which names a list of its own: below DIR, which it gives the path of."""
    write(g.path("policies", "teams", "lists", "servers"), addresses)
    write(g.path("policies", "teams", "hr.policy"), 'set servers cidr file "lists/servers"\nrule servers deny to cidr @servers\n')
    return write(g.path("policies", "main.policy"), 'include "teams/hr.policy"\n' + BASE)


def apply(g, file, *options, **kwargs):
    return g.ctl("policy", "apply", file, *options, **kwargs)


def test_files_travel_as_content_and_outlive_their_files(gateway, echo):
    g = gateway(BASE)
    assert code(g, echo, "127.0.0.2") == socks.OK
    done = apply(g, tree(g), "--comment", "servers are closed")
    assert "revision 2 is active" in done.out
    assert [code(g, echo, "127.0.0.2") for _ in range(4)] == [socks.NOT_ALLOWED] * 4
    assert code(g, echo) == socks.OK
    row = [r for r in g.wait_rows(1, event="policy") if r["revision"] == 2][0]
    assert "servers are closed" in row["reason"] and row["user"] == f"uid {os.geteuid()}"
    shutil.rmtree(g.path("policies"))
    g.restart()
    assert g.revision() == 2
    assert [code(g, echo, "127.0.0.2") for _ in range(4)] == [socks.NOT_ALLOWED] * 4
    assert code(g, echo) == socks.OK


def test_standard_input_and_its_lists(gateway, echo):
    g = gateway(BASE)
    os.makedirs(g.path("here"))
    write(g.path("here", "closed"), "127.0.0.3\n")
    text = 'set c cidr file "closed"\nrule c deny to cidr @c\n' + BASE
    done = subprocess.run(
        [os.path.join(BUILD, "admin", "gatewayctl"), "--socket", g.socket, "policy", "apply", "-"], input=text.encode(), cwd=g.path("here"),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=wait.seconds(60),
    )
    assert done.returncode == 0, done.stdout
    assert code(g, echo, "127.0.0.3") == socks.NOT_ALLOWED


@pytest.mark.root
def test_a_list_that_the_daemon_may_not_read(gateway, echo):
    """The caller may; the daemon, who runs as another, never tries."""
    g = gateway(BASE)
    file = tree(g)
    os.chmod(g.path("policies"), 0o700)
    os.chmod(g.path("policies", "teams", "lists", "servers"), 0o600)
    apply(g, file)
    assert code(g, echo, "127.0.0.2") == socks.NOT_ALLOWED


def test_a_list_that_the_caller_may_not_read(gateway):
    g = gateway(BASE)
    file = tree(g)
    os.unlink(g.path("policies", "teams", "lists", "servers"))
    done = apply(g, file, check=False)
    assert done.returncode == 1
    assert "hr.policy:1:" in done.err and "lists/servers" in done.err
    assert g.revision() == 1


def test_a_bad_line_in_the_middle_of_a_list(gateway, echo):
    g = gateway(BASE)
    file = tree(g, "127.0.0.2\n" * 500 + "127.0.0.2/8\n" + "127.0.0.3\n" * 500)
    done = apply(g, file, check=False)
    assert done.returncode == 1
    assert "teams/lists/servers:501:" in done.err
    assert g.revision() == 1 and code(g, echo, "127.0.0.2") == socks.OK


@pytest.mark.parametrize("kind", ["directory", "fifo", "device", "loop", "self"])
def test_what_is_no_list(gateway, kind):
    g = gateway(BASE)
    file = tree(g)
    at = g.path("policies", "teams", "lists", "servers")
    os.unlink(at)
    if kind == "directory":
        os.mkdir(at)
    elif kind == "fifo":
        os.mkfifo(at)
    elif kind == "device":
        os.symlink("/dev/zero", at)
    elif kind == "loop":
        os.symlink(at, at)
    else:
        write(g.path("policies", "teams", "hr.policy"), 'include "../main.policy"\n')
    for verb in ("apply", "check"):
        done = g.ctl("policy", verb, file, check=False)
        assert done.returncode == 1, verb
        assert ("[include-loop]" if kind == "self" else "hr.policy:1:") in done.out + done.err
    assert g.revision() == 1


def test_the_configured_file_names_no_others(gateway, echo):
    g = gateway(BASE)
    write(g.path("lists", "closed"), "127.0.0.1\n")
    g.write_policy('set c cidr file "lists/closed"\nrule c deny to cidr @c\n' + BASE)
    done = g.reload(check=False)
    assert done.returncode == 1
    assert "gatewayctl policy apply" in done.err and "gateway.policy:1:" in done.err
    assert code(g, echo) == socks.OK
    apply(g, g.policy_file)
    assert code(g, echo) == socks.NOT_ALLOWED
    # What runs is the file's text: a reload has nothing to do, and does not undo the lists.
    assert "revision 2" in g.reload().err
    assert g.revision() == 2


def test_a_file_that_names_others_is_no_fault_of_the_configuration(gateway):
    """It may be what runs, put into force by an apply: the check of the configuration says what it has not read."""
    g = gateway(BASE)
    write(g.path("lists", "closed"), "127.0.0.1\n")
    g.write_policy('set c cidr file "lists/closed"\nrule c deny to cidr @c\n' + BASE)
    exit_code, lines = g.run("-n", "-c", g.conf)
    assert exit_code == 0 and any("gatewayctl policy check" in line for line in lines), lines
    apply(g, g.policy_file)
    g.restart()
    assert g.revision() == 2 and "differs" not in g.log()
    g.write_policy('set c cidr file "lists/closed"\nrule c deny to cidr @d\n' + BASE + "alow\n")
    exit_code, lines = g.run("-n", "-c", g.conf)
    assert exit_code == 78 and any("alow" in line for line in lines), lines


def test_a_first_start_with_a_file_that_names_others(gateway):
    g = gateway('set c cidr file "closed"\nrule c deny to cidr @c\n', start=False)
    exit_code, lines = g.run("-c", g.conf)
    assert exit_code != 0 and any("gatewayctl policy apply" in line and ":1:" in line for line in lines), lines


def test_reload_after_an_apply_needs_force(gateway, echo):
    g = gateway(BASE)
    apply(g, tree(g))
    g.write_policy(BASE + "# edited\n")
    done = g.reload(check=False)
    assert done.returncode == 1 and "moved on" in done.err and "--force" in done.err
    assert code(g, echo, "127.0.0.2") == socks.NOT_ALLOWED
    g.ctl("reload", "--force")
    assert code(g, echo, "127.0.0.2") == socks.OK


def test_somebody_was_faster(gateway):
    g = gateway(BASE)
    file = tree(g)
    apply(g, file, "--if-revision", "1")
    done = apply(g, file, "--if-revision", "1", check=False)
    assert done.returncode == 1
    assert "revision 2 is in force, not 1" in done.err
    assert g.revision() == 2


def test_only_one_of_many_is_the_fastest(gateway):
    """Each says which revision it has seen: one of them changes it, and nothing is lost between them."""
    g = gateway(BASE)
    files = [write(g.path(f"p{i}.policy"), BASE + f"# {i}\n") for i in range(6)]
    running = [
        subprocess.Popen([os.path.join(BUILD, "admin", "gatewayctl"), "--socket", g.socket, "policy", "apply", "--if-revision", "1", f],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for f in files
    ]
    said = [(p.communicate(timeout=wait.seconds(60)), p.returncode) for p in running]
    assert sorted(code_ for _, code_ in said) == [0] + [1] * 5, said
    assert all(b"under way" in err or b"not 1" in err for (_, err), code_ in said if code_ == 1), said
    winner = [i for i, (_, code_) in enumerate(said) if code_ == 0][0]
    assert g.revision() == 2
    assert g.ctl("policy", "export").out == BASE + f"# {winner}\n"


@pytest.mark.root
def test_who_may(gateway, tmp_path):
    """Root and the control group; the caller's user id is on record."""
    os.chmod(tmp_path, 0o755)
    for up in list(tmp_path.parents)[:3]:
        if str(up) != "/tmp":
            os.chmod(up, 0o755)
    shutil.copy(os.path.join(BUILD, "admin", "gatewayctl"), tmp_path / "gatewayctl")
    g = gateway(BASE, control_group="mail")
    os.chmod(g.dir, 0o755)
    file = write(g.path("p.policy"), BASE + "# other\n")

    def as_group(group, *arguments):
        done = subprocess.run(["setpriv", "--reuid=daemon", f"--regid={group}", "--clear-groups", str(tmp_path / "gatewayctl"), "--socket", g.socket,
                               *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=wait.seconds(60))
        return done.returncode, done.stdout.decode()

    for arguments in (["policy", "apply", file], ["policy", "rollback", "1"], ["policy", "show"], ["policy", "log"], ["policy", "export"]):
        exit_code, out = as_group("daemon", *arguments)
        assert exit_code in (1, 3) and "may" in out, (arguments, out)
    assert g.revision() == 1
    exit_code, out = as_group("mail", "policy", "apply", file)
    assert exit_code == 0, out
    top = json.loads(g.ctl("policy", "log", "--json").out)[0]
    assert (top["revision"], top["author_uid"]) == (2, 1)


def test_nobody_there(gateway):
    g = gateway(BASE, start=False)
    file = tree(g)
    for arguments in (["apply", file], ["rollback", "1"], ["log"], ["show"], ["export"], ["explain", "x.example"], ["diff", "1", "2"]):
        done = g.ctl("policy", *arguments, check=False)
        assert done.returncode == 3 and g.socket in done.err, (arguments, done.err)


def test_dry_run_changes_nothing(gateway, echo):
    g = gateway(BASE)
    done = apply(g, tree(g), "--dry-run")
    assert "nothing was changed" in done.out
    assert g.revision() == 1 and code(g, echo, "127.0.0.2") == socks.OK
    bad = write(g.path("bad.policy"), BASE + "expect deny to 127.0.0.1\n")
    done = apply(g, bad, "--dry-run", check=False)
    assert done.returncode == 1 and "expect-failed" in done.err
    log = json.loads(g.ctl("policy", "log", "--json").out)
    assert [r["revision"] for r in log] == [1]


def test_failing_expectation_refuses_apply_and_reload(gateway, echo):
    g = gateway(BASE)
    text = "rule closed deny to cidr 127.0.0.0/8\n" + BASE + "expect allow to 127.0.0.1\n"
    done = apply(g, write(g.path("bad.policy"), text), check=False)
    assert done.returncode == 1 and "bad.policy:4:1: error" in done.err
    g.write_policy(text)
    done = g.reload(check=False)
    assert done.returncode == 1 and "expect-failed" in done.err
    assert g.revision() == 1 and code(g, echo) == socks.OK


WARNED = "rule one allow to cidr 127.0.0.0/8\nrule two allow to cidr 127.0.0.1/32 port 80\ndefault deny\n"


def test_findings_are_told_and_strict_refuses_them(gateway):
    g = gateway(BASE)
    file = write(g.path("w.policy"), WARNED)
    for command in (["policy", "apply", file], ["reload"]):
        g.write_policy(WARNED)
        before = g.revision()
        done = g.ctl(*command, "--strict", check=False)
        assert done.returncode == 1 and "[shadowed]" in done.err and "--strict" in done.err, command
        assert g.revision() == before
    done = g.reload()
    assert ":2:1: warning" in done.err and "[shadowed]" in done.err
    assert any("[shadowed]" in w for w in g.status()["policy"]["warnings"])
    g.restart()
    assert any("[shadowed]" in w for w in g.status()["policy"]["warnings"])


def test_json_has_stable_codes(gateway):
    g = gateway(BASE)
    file = write(g.path("w.policy"), WARNED)
    reply = json.loads(apply(g, file, "--json", "--dry-run").out)
    assert (reply["ok"], reply["warnings"], reply["errors"], reply["revision"]) == (True, 1, 0, 1)
    note = reply["diagnostics"][0]
    assert (note["code"], note["severity"], note["line"], note["column"], note["file"]) == ("shadowed", "warning", 2, 1, "w.policy")
    done = apply(g, file, "--json", "--strict", check=False)
    reply = json.loads(done.out)
    assert done.returncode == 1 and reply["ok"] is False and reply["diagnostics"][0]["code"] == "shadowed"
    done = apply(g, write(g.path("x.policy"), "rule x alow\n"), "--json", check=False)
    reply = json.loads(done.out)
    assert done.returncode == 1 and reply["errors"] == 1 and reply["diagnostics"][0]["line"] == 1


def edit_store(g, sql):
    subprocess.run(["/usr/bin/sqlite3", os.path.join(g.state, "policy", "policy.db"), sql], check=True)


def test_a_damaged_store_is_not_believed(gateway):
    g = gateway("rule ssh deny port 22\nrule all allow to cidr 127.0.0.0/8\n")
    g.stop()
    edit_store(g, "UPDATE content SET text = CAST(replace(CAST(text AS TEXT), 'deny port', 'allow port') AS BLOB)")
    code, said = g.run("-c", g.conf)
    assert code != 0 and "the store is damaged" in " ".join(said), said


def test_stored_revision_loads_whatever_its_expectations_say(gateway):
    """Today's findings are no reason not to start with what was accepted once."""
    g = gateway("rule one allow to cidr 127.0.0.0/8\nexpect allow to 127.0.0.1\n")
    g.stop()
    text = b"rule one allow to cidr 127.0.0.0/8\nexpect deny to 127.0.0.1\n"
    edit_store(g, f"UPDATE content SET text = x'{text.hex()}', hash = x'{hashlib.blake2b(text, digest_size=32).hexdigest()}'")
    g.start()
    assert any("[expect-failed]" in w for w in g.status()["policy"]["warnings"])


def test_log_show_export_rollback_diff(gateway, echo):
    g = gateway(BASE)
    apply(g, tree(g), "--comment", "close servers")
    log = json.loads(g.ctl("policy", "log", "--json").out)
    assert [(r["revision"], r["active"], r["source"], r["comment"], r["files"]) for r in log] == [
        (2, True, "apply", "close servers", 2), (1, False, "file", "", 0),
    ]
    assert log[0]["author_uid"] == os.geteuid()
    assert "close servers" in g.ctl("policy", "log").out
    assert len(json.loads(g.ctl("policy", "log", "--json", "--limit", "1").out)) == 1

    shown = g.ctl("policy", "show", "2").out
    assert 'include "teams/hr.policy"' in shown and "teams/lists/servers" in shown and "close servers" in shown
    assert g.ctl("policy", "show", "9", check=False).returncode == 1

    g.ctl("policy", "export", "-o", g.path("out"), "2")
    for name in ("main.policy", "teams/hr.policy", "teams/lists/servers"):
        with open(g.path("out", name), "rb") as a, open(g.path("policies", name), "rb") as b:
            assert a.read() == b.read()
    assert g.ctl("policy", "check", g.path("out", "main.policy")).returncode == 0
    assert g.ctl("policy", "export", "1").out == BASE
    assert g.ctl("policy", "export", "-o", g.path("out"), "2", check=False).returncode == 1, "nothing is written over"

    done = g.ctl("policy", "diff", "1", "2", check=False)
    assert done.returncode == 1 and "127.0.0.2" in done.out
    assert g.ctl("policy", "diff", "2", g.path("out", "main.policy")).returncode == 0

    assert "revision 3 is active" in g.ctl("policy", "rollback", "1").out
    assert code(g, echo, "127.0.0.2") == socks.OK
    assert json.loads(g.ctl("policy", "log", "--json").out)[0]["comment"] == "rollback to revision 1"
    g.ctl("policy", "rollback", "2", "--if-revision", "3", "--comment", "again")
    assert code(g, echo, "127.0.0.2") == socks.NOT_ALLOWED
    assert g.ctl("policy", "rollback", "9", check=False).returncode == 1
    assert g.revision() == 4
    # Contents are kept once, however many revisions have them.
    out = subprocess.run(["/usr/bin/sqlite3", os.path.join(g.state, "policy", "policy.db"), "SELECT count(*) FROM content"], stdout=subprocess.PIPE)
    assert int(out.stdout) == 4


def test_many_revisions_are_logged_in_full(gateway):
    """More than one reply holds."""
    g = gateway(BASE)
    for i in range(32):
        reply, _ = admin.ask(g.socket, {"command": "policy-rollback", "revision": 1, "comment": f"{i} " + "\u00e9" * 500})
        assert reply["ok"], reply
    log = json.loads(g.ctl("policy", "log", "--json").out)
    assert [r["revision"] for r in log] == list(range(33, 0, -1))


def test_export_never_leaves_its_directory(gateway):
    """A policy may name files anywhere; what is exported lies below the directory that was asked for."""
    g = gateway(BASE)
    write(g.path("elsewhere", "closed"), "127.0.0.2\n")
    file = write(g.path("p", "q", "main.policy"), f'set a cidr file "{g.path("elsewhere", "closed")}"\nset b cidr file "../../elsewhere/closed"\n'
                 "rule a deny to cidr @a @b\n" + BASE)
    apply(g, file)
    shutil.rmtree(g.path("elsewhere"))
    done = g.ctl("policy", "export", "-o", g.path("x", "..", "out"), check=False)
    assert done.returncode == 1
    done = g.ctl("policy", "export", "-o", g.path("out"))
    assert sorted(os.listdir(g.path("out"))) == ["main.policy", "outside"]
    assert len(os.listdir(g.path("out", "outside"))) == 2
    assert not os.path.exists(g.path("elsewhere"))
    os.symlink("/etc", g.path("link"))
    os.makedirs(g.path("out2"))
    os.symlink("/tmp", g.path("out2", "outside"))
    assert g.ctl("policy", "export", "-o", g.path("out2"), check=False).returncode == 1


def bundle(*files):
    """As gatewayctl would hand it over (policy/bundle.h)."""
    data = b"GWBUNDLE" + struct.pack("=II", 1, len(files))
    data += b"".join(struct.pack("=IIQ", len(name), 0, len(text)) for name, text in files)
    return admin.memory_file(data + b"".join(name + b"\0" for name, _ in files) + b"".join(text for _, text in files))


@pytest.mark.parametrize("name", [b"n" * 256, b"n" * 300, b"d/" + b"n" * 300, b"n" * 300 + b"/f"])
def test_export_of_names_that_no_file_can_have(gateway, name):
    g = gateway(BASE)
    for files in ((name, BASE.encode()), (b"f", b"")), ((b"p", f'set a domain file "{name.decode()}"\n{BASE}'.encode()), (name, b"x.example\n")):
        fd = bundle(*files)
        reply, _ = admin.ask(g.socket, {"command": "policy-apply"}, [fd])
        os.close(fd)
        assert reply["ok"], reply
        done = g.ctl("policy", "export", "-o", g.path(f"out{reply['revision']}"), check=False)
        assert done.returncode in (0, 1) and done.out == "", (done.returncode, done.out, done.err)


def test_what_is_shown_moves_no_terminal(gateway):
    g = gateway(BASE)
    with open(g.path("p.policy"), "wb") as f:
        f.write(BASE.encode() + b"# gr\xc3\xbcn \xc2\x9b31m \xe2\x80\xae \x9b \xe2\x80 \xf0\x9f\x94\x92 \xed\xa0\x80\n")
    g.ctl("policy", "apply", g.path("p.policy"))
    out = g.ctl("policy", "show").out
    assert out.endswith("# gr\u00fcn \\xc2\\x9b31m \\xe2\\x80\\xae \\x9b \\xe2\\x80 \U0001f512 \\xed\\xa0\\x80\n"), out


def test_explain_asks_the_policy_in_force(gateway):
    g = gateway(BASE)
    apply(g, tree(g))
    done = g.ctl("policy", "explain", "127.0.0.2", check=False)
    assert done.returncode == 1 and "servers" in done.out
    assert g.ctl("policy", "explain", "--revision", "1", "127.0.0.2").returncode == 0


# ---- hostile orders -----------------------------------------------------------------------------------------------------


def test_explain_knows_the_gateways_own_listeners(gateway, echo):
    g = gateway(BASE, workers=1)
    with g.session("127.0.0.1", g.port) as c:
        assert c.code == socks.NOT_ALLOWED
    done = g.ctl("policy", "explain", "--user", "ann", "--port", str(g.port), "127.0.0.1", check=False)
    assert done.returncode == 1 and "a listener of this gateway" in done.out, done.out
    g.ctl("policy", "explain", "--user", "ann", "--port", str(echo.port), "127.0.0.1")
    g.ctl("policy", "explain", "--user", "ann", "--port", str(g.port), "127.0.0.77")


def refused(g, request, fds=()):
    reply, fd = admin.ask(g.socket, request, fds)
    assert reply["ok"] is False and fd is None, reply
    return reply["error"]


def test_what_is_no_bundle_is_refused(gateway, echo):
    g = gateway(BASE)
    read, written = os.pipe()
    fds = [admin.memory_file(b""), admin.memory_file(b"x" * 100), admin.memory_file(b"GWBUNDLE" + b"\xff" * 4000),
           admin.memory_file(b"GWBUNDLE" + b"\0" * 64, seal=False), os.open("/dev/zero", os.O_RDONLY), os.open("/etc/passwd", os.O_RDONLY),
           read, written]
    for fd in fds:
        refused(g, {"command": "policy-apply"}, [fd])
    refused(g, {"command": "policy-apply"})
    refused(g, {"command": "policy-apply"}, fds)
    refused(g, {"command": "policy-apply", "if_revision": -1}, fds[:1])
    refused(g, {"command": "policy-apply", "comment": "x" * 2000}, fds[:1])
    refused(g, {"command": "policy-rollback", "revision": "1"})
    refused(g, {"command": "policy-rollback", "revision": 1 << 40})
    refused(g, {"command": "policy-get", "revision": 7})
    refused(g, {"command": "policy-log", "before": -5})
    # A descriptor that nobody asked for is closed.
    before = len(os.listdir(f"/proc/{g.pids('control')[0]}/fd")) if os.geteuid() == 0 else 0
    for _ in range(5):
        reply, _ = admin.ask(g.socket, {"command": "policy-head"}, fds[:1])
        assert reply["ok"] and reply["revision"] == 1
    if os.geteuid() == 0:
        wait.until(lambda: len(os.listdir(f"/proc/{g.pids('control')[0]}/fd")) <= before, "no descriptor is left open")
    for fd in fds:
        os.close(fd)
    assert g.revision() == 1 and code(g, echo) == socks.OK
    assert all(p["restarts"] == 0 for p in g.status()["processes"])


def test_comment_is_one_line_of_text(gateway):
    g = gateway(BASE)
    file = tree(g)
    for comment in ("\x1b[31mred", "two\nlines", "tab\t", "\x7f", "\u009b31m"):
        done = apply(g, file, "--comment", comment, check=False)
        assert done.returncode == 1 and "control character" in done.err, comment
    assert g.revision() == 1
    apply(g, file, "--comment", "Freigabe f\u00fcr B\u00fcro \u2192 \u202e M\u00fcnchen")
    assert json.loads(g.ctl("policy", "log", "--json").out)[0]["comment"] == "Freigabe f\u00fcr B\u00fcro \u2192 \u202e M\u00fcnchen"
    shown = g.ctl("policy", "log").out + g.ctl("policy", "show").out + g.ctl("audit", "query").out + g.log()
    assert "Freigabe f" in shown and "\u202e" not in shown
    assert apply(g, file, "--comment", "\u00fc" * 512, check=False).returncode == 2, "it is longer than 1023 bytes"


def test_a_store_that_grows_is_told_of(gateway):
    """Nothing is ever removed, so whoever looks after the disk hears of it."""
    g = gateway(BASE, policy_store_warn_megabytes=1)
    write(g.path("big.policy"), BASE + "# remark\n" * 10)
    apply(g, g.path("big.policy"))
    small = g.status()["policy"]
    assert not small["store_large"] and "the policy store has" not in g.ctl("status").out
    write(g.path("big.policy"), BASE + "# another remark\n" * 200000)
    apply(g, g.path("big.policy"))
    large = g.status()["policy"]
    assert large["store_large"] and large["store_bytes"] > small["store_bytes"] + 200000 * 17
    assert "the policy store has" in g.ctl("status").out


def test_what_gatewayctl_finds_is_kept(gateway):
    """What it warned of stands with the revision, and once, though the gateway finds the same."""
    g = gateway(BASE, pam_groups_file=None)
    write(g.path("new.policy"), BASE.replace("allow", "allow group there-is-no-such"))
    done = apply(g, g.path("new.policy"))
    assert done.err.count("[unknown-group]") == 1, done.err
    shown = g.ctl("policy", "show").out
    assert "new.policy:1:" in shown and "knows no group 'there-is-no-such' [unknown-group]" in shown, shown
    assert any("unknown-group" in line for line in g.status()["policy"]["warnings"])


NOWHERE = BASE.replace("allow", "allow group eng root there-is-no-such")
PLACE = f"1:{NOWHERE.index('there') + 1}"


def test_the_gateway_finds_groups_that_its_host_does_not_know(gateway):
    """Whoever orders it: those of the name service and of its file are known, one that is in neither is a warning at its place, once."""
    g = gateway(BASE, groups={"eng": ["ann"]})
    write(g.path("new.policy"), NOWHERE)
    done = apply(g, g.path("new.policy"), "--dry-run")
    assert done.err.count("[unknown-group]") == 1 and "with 1 warnings" in done.out, (done.out, done.err)
    assert done.err.startswith(f"new.policy:{PLACE}: warning: this machine knows no group 'there-is-no-such' [unknown-group]\n"), done.err
    assert done.err.splitlines()[2].strip() == "^" + "~" * (len("there-is-no-such") - 1), done.err
    done = apply(g, g.path("new.policy"), "--strict", check=False)
    assert done.returncode == 1 and "refused: the policy has warnings" in done.err and g.revision() == 1
    assert "knows no group 'there-is-no-such'" in apply(g, g.path("new.policy")).err
    assert any("unknown-group" in line for line in g.status()["policy"]["warnings"])
    assert "[unknown-group]" in g.ctl("policy", "show").out
    # One that comes to be there is known from then on; a reload finds the same as an apply.
    g.write_policy(NOWHERE + "# more\n")
    assert "[unknown-group]" in g.ctl("reload", "--force").err
    with open(g.path("groups"), "a", encoding="ascii") as f:
        f.write("there-is-no-such:x:60000:ann\n")
    assert g.ctl("policy", "rollback", "2").err == ""
    with open(g.path("groups"), "a", encoding="ascii") as f:
        f.write("no line of a file of groups\n")
    done = g.ctl("policy", "rollback", "--strict", "3")
    assert "it could not be told" in done.err and "of 2 groups" in done.err, done.err


def test_more_groups_than_are_looked_up(gateway):
    g = gateway(BASE, groups={"eng": ["ann"]})
    names = " ".join(f"g{i}" for i in range(150)) + " " + "x" * 64
    write(g.path("new.policy"), BASE.replace("allow", f"allow group {'y' * 64} eng {names}"))
    reply = json.loads(apply(g, g.path("new.policy"), "--dry-run", "--json").out)
    notes = [n["code"] for n in reply["diagnostics"]]
    # The first hundred are; a name that is too long for any log-in is told of without a look.
    assert reply["ok"] and reply["warnings"] == 99 and notes[0] == "groups-untold" and set(notes[1:-1]) == {"unknown-group"}, notes
    assert "of 53 groups that the policy names" in reply["diagnostics"][0]["message"] and "'" + "y" * 64 + "'" in reply["diagnostics"][1]["message"]


def one_that_may_hang(g):
    """The gateway's conversation child, which is asked for our name, too: not any more, once it has told that."""
    def named():
        g.ctl("log", "level", "info")
        return [r for r in g.rows(event="admin") if "login" in r.get("detail", {})]

    wait.until(named, "we have a name")
    pid, = g.pids("pam")
    return pid


def looking(g, *options):
    """An apply, or what came of it if it was done before that was seen."""
    p = subprocess.Popen([os.path.join(BUILD, "admin", "gatewayctl"), "--socket", g.socket, "policy", "apply", *options, g.path("new.policy")],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait.until(lambda: p.poll() is not None or g.status()["policy"].get("change", {}).get("stage") == "looking for groups", "it looks for groups")
    return p


def test_a_name_service_that_hangs_over_groups_is_not_waited_for(gateway):
    g = gateway(BASE, pam_processes=1)
    write(g.path("new.policy"), NOWHERE)
    pid = one_that_may_hang(g)
    os.kill(pid, signal.SIGSTOP)
    try:
        p = looking(g)
        assert g.revision() == 1
    finally:
        os.kill(pid, signal.SIGKILL)  # as its deadline would
    out, err = p.communicate(timeout=wait.seconds(60))
    assert p.returncode == 0 and g.revision() == 2, (out, err)
    assert "of 3 groups that the policy names it could not be told whether there are such" in err and "[unknown-group]" not in err, err


@contextlib.contextmanager
def hanging(g):
    """Its conversation child is asked, and does not answer before this is over."""
    pid, = wait.until(lambda: processes.of_role(g, "pam"), "there is one")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass  # its deadline was over


def test_who_ends_while_groups_are_looked_for(gateway):
    """The authenticator: its answer is not waited for.  Control: the next takes no answer to what the former asked for its own."""
    g = gateway(BASE, pam_processes=1)
    write(g.path("new.policy"), BASE.replace("allow", "allow group there-is-no-such"))
    one_that_may_hang(g)

    def goes_on():
        with hanging(g):
            p = looking(g)
            for pid in processes.of_role(g, "auth"):
                processes.kill(pid)
            out, err = p.communicate(timeout=wait.seconds(60))
        assert p.returncode == 0, (out, err)
        return ": the authenticator ended" in err  # not, if we took longer than it waits

    wait.until(goes_on, "it goes on without an answer")
    wait.until(lambda: g.pids("auth"), "there is an authenticator")
    with hanging(g):
        p = looking(g)
        processes.kill(processes.of_role(g, "control")[0])
        p.communicate(timeout=wait.seconds(60))
        wait.until(lambda: g.ctl("status", check=False).returncode == 0, "control is back")
        write(g.path("new.policy"), BASE.replace("allow", "allow group root"))
        p = looking(g)
    out, err = p.communicate(timeout=wait.seconds(60))
    assert p.returncode == 0 and "[unknown-group]" not in err, (out, err)


def test_hostile_findings(gateway):
    g = gateway(BASE)
    for found in ("x", 3, {}, [None, 3, [], {}], [{"code": "a b", "message": "m"}], [{"code": "a", "message": "\u001b[2J"}],
                  [{"code": "a", "message": "m" * 501}], [{"code": "a" * 41, "message": "m"}], [{"code": 3, "message": 4}]):
        reply, _ = admin.ask(g.socket, {"command": "policy-rollback", "revision": 1, "found": found})
        assert reply["ok"] and reply["diagnostics"] == [], (found, reply)
    many = [{"code": "a", "message": "m", "file": "f", "line": -1, "column": 1 << 40, "excerpt": "\n"}] * 60
    reply, _ = admin.ask(g.socket, {"command": "policy-rollback", "revision": 1, "found": many})
    assert reply["ok"] and len(reply["diagnostics"]) == 20 and "excerpt" not in reply["diagnostics"][0]
    reply, _ = admin.ask(g.socket, {"command": "policy-rollback", "revision": "one", "found": many})
    assert not reply["ok"]
