"""Exports: what they hold, who signed them, and that whoever looks at the audit is in it."""

import csv
import json
import os
import pwd
import shutil
import signal
import subprocess

import pytest

from harness import people, wait
from harness.gateway import BUILD

CTL = os.path.join(BUILD, "admin", "gatewayctl")


@pytest.fixture
def signed(gateway, echo):
    """A gateway with a few rows, a key, and an export of them."""
    g = gateway()
    for user in ("ann", "bob"):
        g.session("127.0.0.1", echo.port, user=user, password=f"{user}-pass").close()
    g.wait_rows(2, event="ended")
    g.ctl("audit", "export", "--new-key", g.path("key"))
    g.ctl("audit", "export", "-o", g.path("out"), "--key", g.path("key"), "--user", "ann")
    return g


def verify(g, *arguments, check=False):
    return g.ctl("audit", "export", "--verify", *arguments, check=check)


def manifest(g, directory="out"):
    with open(g.path(directory, "manifest.json"), encoding="utf-8") as f:
        return json.load(f)


def test_what_an_export_does_not_hold(signed):
    """A file that nobody signed, and rows that a limit left out."""
    g = signed
    with open(g.path("out", "events.jsonl"), "w", encoding="utf-8") as f:
        f.write("{}\n")
    done = verify(g, g.path("out"), "--signer", g.path("key.pub"))
    assert done.returncode == 1 and "events.jsonl is NOT part of what was signed" in done.err and done.out == ""
    assert manifest(g)["cut"] is False
    g.ctl("audit", "export", "-o", g.path("few"), "--key", g.path("key"), "--limit", "1")
    assert manifest(g, "few")["cut"] is True and manifest(g, "few")["rows"] == 1
    assert "cut at its limit" in verify(g, g.path("few"), "--signer", g.path("key.pub"), check=True).out


def test_an_export_and_its_manifest(signed):
    g = signed
    for name, mode in (("key", 0o600), ("key.pub", 0o644), ("out", 0o700), ("out/events.csv", 0o600), ("out/manifest.json", 0o600)):
        assert os.stat(g.path(name)).st_mode & 0o777 == mode, name
    m = manifest(g)
    with open(g.path("out", "events.csv"), encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f))
    assert {r["user"] for r in rows} == {"ann"} and [r["event"] for r in rows] in (["open", "ended"], ["open", "connected", "ended"])
    assert m["rows"] == len(rows) and m["filter"] == {"user": "ann", "order": "oldest"} and m["complete"] and m["recorded"]
    assert (m["first"]["id"], m["last"]["id"]) == (int(rows[0]["id"]), int(rows[-1]["id"]))
    assert m["by"]["uid"] == os.getuid() and m["chain"]["entry"] >= 1 and len(m["chain"]["head"]) == 64
    assert f"is what was signed: {len(rows)} rows" in verify(g, g.path("out"), "--signer", g.path("key.pub"), check=True).out
    assert verify(g, g.path("out/manifest.json"), "--signer", m["signer"]).returncode == 0
    # Whoever has no gatewayctl checks it as well.
    done = subprocess.run(["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", g.path("key.pub"), "-rawin", "-in",
                           g.path("out/manifest.json"), "-sigfile", g.path("out/manifest.sig")], stdout=subprocess.PIPE, check=True)
    assert b"Verified Successfully" in done.stdout
    # It is in the audit that it was made, by whom and of what.
    row = g.row(event="admin")
    assert row["user"] == f"uid {os.getuid()}" and row["reason"].startswith("audit export ")
    login = row["detail"].pop("login", None)  # if the name service told it in time
    assert login in (None, pwd.getpwuid(os.getuid()).pw_name)
    assert row["detail"] == {"uid": os.getuid(), "filter": {"user": "ann", "order": "oldest"}}
    # JSON lines, without a gateway, which then cannot write down that it was asked.
    g.stop()
    g.ctl("audit", "export", "-o", g.path("lines"), "--key", g.path("key"), "--format", "json", "--dir", os.path.join(g.state, "audit"),
          "--since", "2020-01-01T00:00:00Z")
    m = manifest(g, "lines")
    with open(g.path("lines", "events.jsonl"), encoding="utf-8") as f:
        assert len([json.loads(line) for line in f]) == m["rows"] > 4
    assert m["recorded"] is False and m["filter"]["since"] == "2020-01-01T00:00:00.000000Z" and len(m["chain"]["store"]) == 32
    assert verify(g, g.path("lines"), "--signer", g.path("key.pub")).returncode == 0


def test_what_was_changed_is_found(signed):
    g = signed
    shutil.copytree(g.path("out"), g.path("good"))

    def changed(name, change, said):
        shutil.rmtree(g.path("out"))
        shutil.copytree(g.path("good"), g.path("out"))
        path = g.path("out", name)
        with open(path, "rb") as f:
            data = f.read()
        os.unlink(path)
        data = change(data)
        if data is not None:
            with open(path, "wb") as f:
                f.write(data)
        done = verify(g, g.path("out"), "--signer", g.path("key.pub"))
        assert done.returncode == 1 and said in done.err, (name, done.out, done.err)

    changed("events.csv", lambda b: b.replace(b"ann", b"bob", 1), "NOT what was signed")
    changed("events.csv", lambda b: b + b"\r\n", "NOT what was signed")
    changed("events.csv", lambda b: None, "is missing")
    changed("manifest.json", lambda b: b.replace(b'"rows": ', b'"rows": 1'), "NOT signed by this key")
    changed("manifest.json", lambda b: b + b" ", "NOT signed by this key")
    changed("manifest.json", lambda b: None, "cannot read manifest.json")
    changed("manifest.sig", lambda b: bytes([b[0] ^ 1]) + b[1:], "NOT signed by this key")
    changed("manifest.sig", lambda b: b[:-1], "NOT signed by this key")
    changed("manifest.sig", lambda b: b + b"x", "too large")
    # Another's export, whole in itself: the manifest names a key, and that proves nothing.
    g.ctl("audit", "export", "--new-key", g.path("mallory"))
    g.ctl("audit", "export", "-o", g.path("forged"), "--key", g.path("mallory"))
    assert verify(g, g.path("forged"), "--signer", g.path("key.pub")).returncode == 1
    assert verify(g, g.path("forged"), "--signer", g.path("mallory.pub")).returncode == 0
    assert verify(g, g.path("forged")).returncode == 2
    # A signed manifest that leads out of its directory, made with the right key by somebody of ill will.
    m = manifest(g, "good")
    for name in ("../key", "/etc/passwd", "..", "", "link"):
        m["files"][0]["name"] = name
        shutil.rmtree(g.path("out"))
        shutil.copytree(g.path("good"), g.path("out"))
        os.symlink(g.path("good/events.csv"), g.path("out/link"))
        with open(g.path("out/manifest.json"), "w", encoding="utf-8") as f:
            json.dump(m, f)
        subprocess.run(["openssl", "pkeyutl", "-sign", "-inkey", g.path("key"), "-rawin", "-in", g.path("out/manifest.json"), "-out",
                        g.path("out/manifest.sig")], check=True)
        done = verify(g, g.path("out"), "--signer", g.path("key.pub"))
        assert done.returncode == 1 and ("cannot be in an export" in done.err or "missing" in done.err), (name, done.err)


def test_keys_and_places(signed):
    g = signed
    arguments = ("audit", "export", "-o", g.path("out2"), "--key", g.path("key"))
    os.chmod(g.path("key"), 0o640)
    done = g.ctl(*arguments, check=False)
    assert done.returncode == 1 and "chmod 600" in done.err and not os.path.exists(g.path("out2"))
    os.chmod(g.path("key"), 0o600)
    assert g.ctl("audit", "export", "-o", g.path("out"), "--key", g.path("key"), check=False).returncode == 1  # it is there
    assert g.ctl("audit", "export", "--new-key", g.path("key"), check=False).returncode == 1  # never over another
    assert g.ctl("audit", "export", "-o", g.path("out2"), "--key", g.path("key.pub"), check=False).returncode == 1
    for wrong in ([], ["-o", "x"], ["--key", "x"], ["-o", "x", "--key", "y", "--format", "table"], ["--new-key"]):
        assert g.ctl("audit", "export", *wrong, check=False).returncode == 2, wrong
    assert g.ctl("audit", "export", "--help").out.startswith("usage:")
    # What ended early has no manifest, and is no export.
    g.stop()
    assert g.ctl(*arguments, check=False).returncode == 3
    assert not os.path.exists(g.path("out2/manifest.json"))
    assert verify(g, g.path("out2"), "--signer", g.path("key.pub")).returncode == 1


@pytest.mark.root
def test_who_looks_is_recorded(gateway, echo):
    g = gateway(audit_timeout=3000, **people.OPTIONS)
    people.let_in(g)
    uid = people.UIDS["auditor"]
    g.session("127.0.0.1", echo.port).close()
    g.wait_rows(1, event="ended")
    assert g.rows(event="admin") == []  # root asks without that

    def ask(filters, **more):
        return people.ask(g, "auditor", [{"command": "audit-query", "filter": f, **more} for f in filters])

    assert all(r["ok"] for r in ask([{"user": "ann"}, {"stats": "user"}, {"user": "b\u00fcb\x1b"}]))
    assert all(r["ok"] for r in ask([{"user": "ann"}], purpose="export"))
    rows = g.rows(event="admin")
    assert [(r["user"], r["detail"]["uid"], r["detail"]["filter"]) for r in rows] == [
        (f"uid {uid}", uid, f) for f in ({"user": "ann"}, {"stats": "user"}, {"user": "b\u00fcb\x1b"}, {"user": "ann"})]
    assert [r["reason"].split("{")[0] for r in rows] == ["audit query ", "audit stats ", "audit query ", "audit export "]
    # Who follows is recorded once, by what is followed.
    newest = g.rows()[-1]["id"]
    for n in range(3):
        assert ask([{"event": "denied", "after": newest + n}])[0]["ok"]
    assert len(g.rows(event="admin")) == len(rows) + 1
    assert ask([{"event": "open", "after": newest}])[0]["ok"]
    assert len(g.rows(event="admin")) == len(rows) + 2
    # Whoever asks for more than that follows nothing: an older row, more rows, the other end of them.
    for n, more in enumerate(({"event": "open", "after": newest - 1}, {"event": "open", "after": 0}, {"user": "ann", "after": 0},
                              {"event": "denied", "after": newest, "limit": 1}, {"event": "denied", "after": newest, "order": "newest"},
                              {"stats": "user", "after": 0}, {"stats": "user", "after": 0})):
        assert ask([more])[0]["ok"]
        assert len(g.rows(event="admin")) == len(rows) + 3 + n, more
    # What cannot be recorded is not answered; root still may look.
    recorder = g.pids("recorder")[0]
    os.kill(recorder, signal.SIGSTOP)
    try:
        reply = ask([{"user": "ann"}])[0]
        assert not reply["ok"] and "cannot record" in reply["error"]
        assert len(g.rows(event="open")) == 1
    finally:
        os.kill(recorder, signal.SIGCONT)
    wait.until(lambda: ask([{"user": "ann"}])[0]["ok"], "queries are answered again")
