"""The report of the audit: what it says, how it looks in a browser, and that nothing in it can be anything but text."""

import errno
import html.parser
import os
import re
import shutil
import subprocess
import time

import pytest

from harness import audits, browser
from harness.gateway import sanitized

pytestmark = pytest.mark.long

POLICY = """\
tz "Europe/Berlin"
rule contractor allow group staff to domain .github.example until {soon} owner "m.okafor" ticket "SEC-1042" comment "<b>hosts & more</b>"
rule trial monitor allow group hr to domain .example.ai until 2020-10-01
rule loopback allow to cidr 127.0.0.0/8
default deny
"""
HOSTILE_COMMENT = "</td><script>alert(1)</script> \u202egnp Grüße"


class Page(html.parser.HTMLParser):
    """A page as its tags and its text; complains of tags that do not fit each other."""

    VOID = ("meta", "br", "link")

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text, self.attributes, self.cells = [], [], "", [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag in ("td", "th", "dd"):
            self.cells.append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open)
        self.open.pop()

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data
            if self.open and self.cells and {"td", "th", "dd"} & set(self.open):
                self.cells[-1] += data


@pytest.fixture(scope="module")
def chromium():
    b = browser.Browser()
    yield b
    b.close()


def make(g, *arguments, check=True):
    path = g.path("report.html")
    done = g.ctl("audit", "report", "-o", path, *arguments, check=check)
    with open(path, encoding="utf-8") as f:
        return done, f.read()


def with_a_month(gateway):
    """A gateway that has stopped, with a month of rows, hostile ones among them; and its report."""
    soon = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 5 * 86400))
    g = gateway(POLICY.format(soon=soon))
    g.write_policy(POLICY.format(soon=soon) + "# changed\n")
    g.ctl("policy", "apply", g.policy_file, "--comment", HOSTILE_COMMENT)
    g.stop()
    audit = os.path.join(g.state, "audit")
    now = int(time.time() * 1e6)
    rows = audits.Rows(audit)
    audits.month(rows, now - 3600_000000, sessions=600)
    for n, text in enumerate(audits.HOSTILE):
        for again in range(12 - n % 3):  # often enough to be told of
            rows.session(900000 + 100 * n + again, now - 5000_000, name=text, user=text, rule=text, port=443)
            rows.add("denied", now - 4000_000, name=text, user=text, rule=text, reason=text)
            rows.add("login-failed", now - 3000_000, user=text, reason=text)
        rows.add("admin", now - 2000_000, user=text, reason=text)
        rows.add("throttle", now - 2000_000, user=text, client="192.0.2.77", reason=text)
        rows.add("policy", now - 2000_000, user=text, reason=text, revision=2)
    rows.close()
    return g, audit


def test_a_report_for_the_files(gateway, chromium):
    g, audit = with_a_month(gateway)
    _, text = make(g, "--dir", audit)
    assert os.stat(g.path("report.html")).st_mode & 0o777 == 0o600
    assert [n for n in os.listdir(g.dir) if n.startswith("report.html.")] == []
    page = Page(text)
    # Text and pictures, and nothing else, whatever the rows hold.
    allowed = {"html", "head", "meta", "title", "style", "body", "header", "main", "footer", "section", "h1", "h2", "h3", "p", "span", "time",
               "dl", "dt", "dd", "div", "table", "caption", "thead", "tbody", "tr", "th", "td", "bdi", "figure", "figcaption", "b", "i", "svg",
               "desc", "g", "rect", "line", "text", "circle", "path", "strong", "code", "ul", "li"}
    assert set(page.tags) <= allowed, set(page.tags) - allowed
    assert not [a for a in page.attributes if a[1].startswith("on") or a[1] in ("href", "src", "style", "xlink:href", "action")]
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", text)
    assert "@import" not in text and "url(" not in text
    # What it tells.
    cells = [c.strip() for c in page.cells]
    for shown in ("<script>alert(1)</script>", "=HYPERLINK(\"http://x.test\")", "\\x1b[31mred\\x1b]0;title\\x07", "a&b&lt;",
                  "ann\\xe2\\x80\\xaegnp.exe", "api.payroll.example", "a.lindqvist", "no-trackers"):
        assert shown in cells, shown
    assert "</td><script>alert(1)</script> \\xe2\\x80\\xaegnp Grüße" in cells  # the comment, whole and harmless
    assert "192.0.2.77" in cells
    assert {"m.okafor", "SEC-1042", "<b>hosts & more</b>", "has ended"} <= set(cells)
    assert re.search(r"in [45] days", page.text)
    assert "Integrity was not verified" in page.text
    # Each table has its caption, each chart its title and description.
    assert page.tags.count("caption") == page.tags.count("table") > 10
    assert page.tags.count("figure") == page.tags.count("desc") == 2
    assert page.tags.count("h1") == 1 and ("html", "lang", "en") in page.attributes

    # In a browser: all of it is there, nothing was refused, nothing was asked for.
    dom = chromium.look(g.path("report.html"), "--dump-dom")
    assert chromium.console == [] and chromium.asked == []
    assert Page(dom).tags.count("rect") == page.tags.count("rect") and "<script" not in dom
    shot = g.path("shot.png")
    chromium.look(g.path("report.html"), f"--screenshot={shot}")
    assert browser.pixel(shot, 5, 5) == (255, 255, 255)
    # The policy of the page holds: what it says is obeyed, so that an empty console means something.
    with open(g.path("bad.html"), "w", encoding="utf-8") as f:
        f.write(text.replace("<main>", "<main><p id=p style='color:red'>x</p><img src='http://127.0.0.1:9/x'><script>document.getElementById('p').remove()</script>"))
    dom = chromium.look(g.path("bad.html"), "--dump-dom")
    assert chromium.asked == [] and "id=\"p\"" in dom and any("Content Security Policy" in line for line in chromium.console)
    # And what asks for something is seen to ask.
    with open(g.path("asks.html"), "w", encoding="utf-8") as f:
        f.write("<!DOCTYPE html><img src='http://127.0.0.1:9/y'>")
    chromium.look(g.path("asks.html"), "--dump-dom")
    assert "http://127.0.0.1:9/y" in chromium.asked


def test_it_prints_and_is_dark_where_that_is_wished(gateway, chromium):
    g = gateway()
    make(g)  # of the running gateway, with nothing in it
    page, shot, pdf = g.path("report.html"), g.path("shot.png"), g.path("page.pdf")
    chromium.look(page, "--force-dark-mode", f"--screenshot={shot}")
    assert max(browser.pixel(shot, 5, 5)) < 64 and chromium.console == []
    chromium.look(page, "--no-pdf-header-footer", f"--print-to-pdf={pdf}")
    with open(pdf, "rb") as f:
        data = f.read()
    boxes = re.findall(rb"/MediaBox\s*\[\s*0 0 ([\d.]+) ([\d.]+)\s*\]", data)
    assert data.startswith(b"%PDF") and boxes and all(abs(float(w) - 595) < 2 and abs(float(h) - 842) < 2 for w, h in boxes)


def test_integrity_is_told(gateway, echo):
    g = gateway()
    audit, key = os.path.join(g.state, "audit"), g.path("auditor.key")
    shutil.move(os.path.join(audit, "first.key"), key)
    g.session("127.0.0.1", echo.port).close()
    g.wait_rows(1, event="ended")
    _, text = make(g, "--key", key, "--dir", audit)
    assert "The records are what was recorded" in text and "No anchor that was kept" in text
    _, text = make(g, "--key", key, "--dir", audit, "--anchor", g.path("log"))
    assert "The records are what was recorded" in text and "anchors that were kept elsewhere fit" in text
    g.stop()
    rows = audits.Rows(audit)
    rows.add("denied", 1, user="mallory")
    rows.close()
    done, text = make(g, "--key", key, "--dir", audit, check=False)
    assert done.returncode == 1 and "NOT what was recorded" in done.err
    assert "The records are not what was recorded" in text and "was inserted" in text


@pytest.mark.skipif(sanitized(), reason="the sanitizers' runtime must be loaded first")
def test_a_disk_that_does_not_keep_it(gateway, tmp_path):
    g = gateway()
    (tmp_path / "shim.c").write_text("#include <errno.h>\nint fsync(int fd) { (void)fd; errno = EIO; return -1; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "shim.so", tmp_path / "shim.c"], check=True)
    g.environment["LD_PRELOAD"] = str(tmp_path / "shim.so")
    os.mkdir(g.path("reports"))
    done = g.ctl("audit", "report", "-o", g.path("reports", "report.html"), check=False)
    assert done.returncode == 1 and "cannot write" in done.err and os.strerror(errno.EIO) in done.err, done.err
    assert os.listdir(g.path("reports")) == []


def test_what_is_asked_for(gateway, echo):
    g = gateway()
    for user in ("ann", "bob"):
        with g.session("127.0.0.1", echo.port, user=user, password=f"{user}-pass") as c:
            c.echo(b"x" * 1000)
    g.wait_rows(2, event="ended")
    _, text = make(g)
    page = Page(text)
    assert [page.cells[i + 1] for i, c in enumerate(page.cells) if c == "ann"][:1] == [""] and "bob" in page.cells
    assert "2.0 KiB" in page.cells
    assert "ann" not in make(g, "--since", "2000-01-01", "--until", "2000-02-01")[1]
    assert g.ctl("audit", "report", "--help").out.startswith("usage:")
    for wrong in ([], ["-o", "x", "y"], ["-o", "x", "--since", "yesterday"], ["-o", "x", "--since", "1h", "--until", "2h"],
                  ["-o", "x", "--anchor", "y"]):
        assert g.ctl("audit", "report", *wrong, check=False).returncode == 2
    assert g.ctl("audit", "report", "-o", "/nowhere/at/all", check=False).returncode == 1
    assert g.ctl("audit", "report", "-o", "-").out.startswith("<!DOCTYPE html>")
