"""Whatever a name, a user, a rule, a reason or a detail holds: nobody who looks at the audit is harmed by it, in any format."""

import csv
import io
import json
import os
import re

import pytest

from harness import audits

FORMULA = tuple("=+-@\t")
# As words of a command, too.
WORDS = [*audits.HOSTILE, "u" * 5000, "\udcff\udc80"]
NO_UTF8 = [b"\xff\xfe", b"a\x80b", b"\xed\xa0\x80", b"\x1b[31m\xc3"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A directory with hostile rows, the policy that decided them beside it, and a gatewayctl to ask."""
    from harness.gateway import Gateway
    g = Gateway("rule all allow to cidr 127.0.0.0/8 comment \"\u202e<b>=1+1\"\ndefault deny\n").start()
    g.stop()
    rows = audits.Rows(os.path.join(g.state, "audit"))
    g.decisions = []
    at = 10**15
    for n, text in enumerate(audits.HOSTILE):
        common = {"user": text, "rule": text, "listener": text, "method": text, "command": text, "revision": 1, "client": "127.0.0.1"}
        g.decisions.append([rows.id + 1, rows.id + 3, rows.id + 4])
        rows.session(100 + n, at, name=text, port=80, groups=[text], reason=text, **{**common, "method": "password", "command": "connect"})
        detail = {"claimed_user": text, "groups": [text, {"x": text}], text: text, "country": "DE", "monitors": [{"rule": text}]}
        rows.add("denied", at, session=1000 + n, name=text, reason=text, port=80, detail=detail, **common)
        rows.add("denied", at, address="127.0.0.1", reason=text, port=80, detail=text, **common)
        rows.add("login-failed", at, reason=text, **common)
        rows.add("admin", at, user=text, reason=text, detail={"filter": {"user": text}})
        rows.add("throttle", at, user=text, reason=text)
        rows.add("policy", at, user=text, reason=text, revision=1)
    # Requests that a policy can decide again, of users who are called that, and worse.
    for n, user in enumerate([*audits.HOSTILE, "u" * 255, "\u202e" * 85, *NO_UTF8]):
        for kind, verdict in (("open", "allow"), ("denied", "deny")):
            rows.add(kind, at + 1, session=2000 + n, user=user, command="connect", method="password", client="127.0.0.1", address="127.0.0.1", port=80,
                     listener="main", revision=1, rule="all", reason="" if kind == "open" else "denied by policy: rule all",
                     detail={"groups": [user if isinstance(user, str) else "x"], "monitors": [{"rule": "watch", "would": "allow"}]})
    rows.close()
    yield g
    g.close()


def ask(g, *arguments, noun="audit", codes=(0, 1)):
    done = g.ctl(noun, *arguments, "--dir", os.path.join(g.state, "audit"), check=False)
    assert done.returncode in codes, (arguments, done)
    # What went to the terminal, be it an answer or a complaint.
    for stream in (done.stdout.replace(b" \\\n\t", b" "), done.stderr):  # a rule that goes on in the next line
        assert not [b for b in stream if b not in (0x0a, 0x0d) and not 0x20 <= b <= 0x7e], (arguments, stream)
    return done.out


def is_safe_csv(text):
    """For whoever splits at commas, and for whoever splits at semicolons and knows of no comma."""
    for delimiter in ",;":
        for row in csv.reader(io.StringIO(text), delimiter=delimiter):
            for cell in row:
                # A line's end is one of ours wherever it stands: it is never in a text.
                bare = cell.lstrip(" \"\r\n")
                assert bare.startswith("'") or not bare.startswith(FORMULA), (delimiter, cell)
    assert len({len(row) for row in csv.reader(io.StringIO(text))}) == 1


ALL = ["id", "time", "user", "rule", "name", "reason", "detail", "groups", "country", "listener"]
STATS = ["user", "group", "dest", "rule", "reason", "listener", "method", "command", "country", "client", "event", "day"]
SELECT = "SELECT user, rule AS \"=\u202e\x1b[31m\", name, reason, detail, upper(user), 'x;' || user AS semicolon FROM event"


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_formats(store, form):
    common = ("--format", form, "--limit", "0")
    for arguments in (["query", *common], ["query", "--columns", ",".join(ALL), *common], ["tail", *common],
                      *(["stats", "--by", by, *common] for by in STATS), ["sql", SELECT, *common]):
        out = ask(store, *arguments)
        if form == "csv":
            is_safe_csv(out)
        if form == "json":
            assert all(isinstance(json.loads(line), dict) for line in out.splitlines())
        # What was there is there still, in a form that can be told from all others.
        if arguments[0] == "query":
            for shown in ("\\x1b[31mred\\x1b]0;title\\x07", "ann\\xe2\\x80\\xaegnp.exe", "bell\\x07"):
                assert (shown.replace("\\", "\\\\") if form == "json" else shown) in out, shown


def test_rules_that_are_suggested(store):
    """They are text for a policy: what shows as something else than it is, or moves a terminal, is in none of them."""
    when = ("--since", "2001-01-01", "--until", "2002-01-01")
    for options in ((), ("--denied",), ("--from-monitor", "watch")):
        out = ask(store, "suggest", *when, *options, noun="policy")
        assert "rule suggested-1 allow user " in out and "u" * 255 in out, out
        left_out, = re.findall("# Left out: ([0-9]+) of .*; e.g. .* from 127.0.0.1 to", out)
        assert int(left_out) >= 12, out
        with open(store.path("suggested"), "w", encoding="utf-8") as f:
            f.write(out)
        assert store.ctl("policy", "check", store.path("suggested"), check=False).returncode == 0, out
    for n, text in enumerate(WORDS):
        ask(store, "suggest", *when, f"--user={text}", f"--group={text}", f"--from-monitor={text}", noun="policy", codes=(0, 1, 2))
        option = ("--since", "--min-count", "--suffix", "--prefix", "--nothing")[n % 5]
        ask(store, "suggest", *when, f"{option}={text}", noun="policy", codes=(2,))


def test_what_a_policy_would_change(store):
    when = ("--since", "2001-01-01", "--until", "2002-01-01")
    with open(store.path("other"), "w", encoding="utf-8") as f:
        f.write("".join(f'rule r{n} deny group "{text}" to cidr 10.0.0.{n}\n' for n, text in enumerate(("a\u202eb", "x\u200by", "g" * 60, "<b>"))))
        f.write('rule last deny comment "\u202e"\n')
    for options in ((), ("--json",)):
        out = ask(store, "impact", store.path("other"), *when, *options, noun="policy")
        assert "would be denied: rule last, now rule all" in out or json.loads(out)["differences"][0]["after_rule"] == "last", out
        # Who asked, and whom the policy names.
        out = out.replace("\\\\", "\\")
        assert "\\x1b[31m" in out and "group 'a\\xe2\\x80\\xaeb' is new" in out, out
    for n, text in enumerate(WORDS):
        ask(store, "impact", store.path("other"), *when, f"--user={text}", f"--group={text}", noun="policy", codes=(0, 1, 2))
        words = ((f"./{text}",), (store.path("other"), f"--geoip={text}"), (store.path("other"), f"--before={text}"))[n % 3]
        ask(store, "impact", *words, *when, noun="policy", codes=(1,))


def test_why(store):
    for n in range(len(audits.HOSTILE)):
        # A grant, a denial by name, one by address.
        for row in store.decisions[n]:
            out = ask(store, "why", *(["--json"] if row % 2 else []), str(row))
            assert out == "" or not row % 2 or isinstance(json.loads(out), list)


@pytest.mark.parametrize("form,name", [("csv", "events.csv"), ("json", "events.jsonl")])
def test_export(store, form, name):
    key, out = store.path(f"key-{form}"), store.path(f"out-{form}")
    store.ctl("audit", "export", "--new-key", key)
    ask(store, "export", "-o", out, "--key", key, "--format", form)
    for file in os.listdir(out):
        if file != "manifest.sig":
            with open(os.path.join(out, file), "rb") as f:
                data = f.read()
            assert not [b for b in data if b not in (0x0a, 0x0d) and not 0x20 <= b <= 0x7e], file
            if file == "events.csv":
                is_safe_csv(data.decode())
    # Names as filters, too: they stand in the manifest.
    for n, text in enumerate(audits.HOSTILE):
        ask(store, "export", "-o", f"{out}-{n}", "--key", key, "--user", text)
        with open(f"{out}-{n}/manifest.json", encoding="ascii") as f:
            m = json.load(f)
        assert m["filter"]["user"] == text and m["rows"] > 0
    assert os.path.exists(os.path.join(out, name))


def test_report(store):
    """What it is in a browser, test_report.py looks at; here: that nothing gets out of its place."""
    from test_report import Page
    ask(store, "report", "-o", store.path("report.html"), "--since", "2001-01-01", "--until", "2002-01-01")
    with open(store.path("report.html"), encoding="utf-8") as f:
        text = f.read()
    page = Page(text)
    assert "script" not in page.tags and "img" not in page.tags and page.tags.count("h1") == 1
    assert not [a for a in page.attributes if a[1].startswith("on") or a[1] in ("href", "src", "style")]
    assert not [c for c in text if c != "\n" and (not c.isprintable() or "\u200b" <= c <= "\u200f")]
    assert page.text.count("\\x1b[31mred") > 5
