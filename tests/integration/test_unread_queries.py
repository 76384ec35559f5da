"""Audit queries that nobody reads hold up nobody but further queries."""

import os

import pytest

from harness import processes, socks, wait
from harness.admin import query
from harness.gateway import sanitized

ALLOW = "rule names deny to domain .test\nrule yes allow to cidr 127.0.0.0/8\ndefault deny\n"


@pytest.fixture
def full(gateway):
    """A gateway with more rows than fit in a pipe."""
    g = gateway(ALLOW, listener_methods=["none"], audit_fold_after=0)
    name = ".".join(["x" * 60] * 3 + ["test"])
    for _ in range(400):
        with g.session(name, 80, user=None) as c:
            assert c.code == socks.NOT_ALLOWED
    g.wait_rows(400, event="denied")
    return g


@pytest.fixture
def unread(full):
    def answered():
        reply, fd = query(full.socket)
        return fd if reply.get("ok") else None

    # The reader of a query before may still be on its way out.
    fds = [wait.until(answered, "a query is answered") for _ in range(6)]
    yield fds
    for fd in fds:
        os.close(fd)


def test_six_unread_queries(full, unread, echo):
    g = full
    reply, fd = query(g.socket)
    assert fd is None and not reply.get("ok"), reply
    assert "too many queries" in reply["error"]
    done = g.ctl("audit", "query", check=False)
    assert done.returncode != 0 and "too many queries" in done.err, done.err

    g.write_policy("rule no deny to cidr 127.0.0.0/8\n")
    g.reload()
    with g.session("127.0.0.1", echo.port, user=None) as c:
        assert c.code == socks.NOT_ALLOWED

    while unread:
        os.close(unread.pop())
    wait.until(lambda: g.ctl("audit", "query", check=False).returncode == 0, "queries are answered again")


@pytest.mark.root
@pytest.mark.skipif(sanitized(), reason="a build with sanitizers is not confined")
def test_readers_are_confined(full, unread):
    for pid in wait.until(lambda: len(r := processes.of_role(full, "reader")) == 6 and r, "six readers"):
        wait.until(lambda p=pid: processes.confined(p), lambda p=pid: f"a confined reader: {processes.status(p)}")
