"""A new policy swaps in whole, or nothing changes and the answer says where the mistake is."""

import json
import os
import pwd
import re
import signal
import threading

import pytest

from harness import servers, socks, wait

ALLOW = "rule yes allow to cidr 127.0.0.0/8\ndefault deny\n"
DENY = "rule no deny to cidr 127.0.0.0/8\ndefault deny\n"


def code(g, echo):
    with g.session("127.0.0.1", echo.port) as c:
        return c.code


def test_reload_takes_effect(gateway, echo):
    g = gateway(ALLOW)
    assert code(g, echo) == socks.OK
    before = g.row(event="open")["revision"]
    g.write_policy(DENY)
    assert code(g, echo) == socks.OK, "before the reload nothing changes"
    g.reload()
    wait.until(lambda: code(g, echo) == socks.NOT_ALLOWED, "both workers use the new policy")
    row = g.wait_rows(1, event="denied")[0]
    assert (row["rule"], row["revision"] > before) == ("no", True)
    assert g.wait_rows(1, event="policy")


def test_reload_is_in_force_when_the_command_returns(gateway, echo):
    g = gateway(ALLOW)
    for i in range(6):
        policy, expected = ((DENY, socks.NOT_ALLOWED), (ALLOW, socks.OK))[i % 2]
        g.write_policy(policy + f"# {i}\n")
        g.reload()
        assert [code(g, echo) for _ in range(6)] == [expected] * 6


def test_sighup_reloads(gateway, echo):
    g = gateway(ALLOW)
    g.write_policy(DENY)
    g.process.send_signal(signal.SIGHUP)
    wait.until(lambda: code(g, echo) == socks.NOT_ALLOWED, "the policy after SIGHUP")


BAD = [
    ("rule yes allow to cidr 127.0.0.0/8\nrule x alow\n", 2, 8, "alow"),
    ("rule yes allow to cidr 127.0.0.0/33\n", 1, None, "127.0.0.0/33"),
    ("rule yes allow to domain @nothing\n", 1, None, "nothing"),
    ("rule yes allow during never\n", 1, None, "never"),
    ('rule yes allow to regex "("\n', 1, None, "("),
    ("rule yes allow\nrule yes deny\n", 2, None, "yes"),
    ("\n\nset s cidr { 10.0.0.0/8 10.0.0.1 x }\n", 3, None, "x"),
    ('tz "Mars/Olympus"\n', 1, None, "Mars/Olympus"),
]


@pytest.mark.parametrize("text, line, column, offending", BAD, ids=range(len(BAD)))
def test_bad_policy_changes_nothing_and_says_where(gateway, echo, text, line, column, offending):
    g = gateway(ALLOW)
    g.write_policy(text)
    done = g.reload(check=False)
    assert done.returncode != 0
    said = done.out + done.err
    place = re.search(re.escape(os.path.basename(g.policy_file)) + r":(\d+):(\d+): error", said)
    assert place, said
    assert int(place[1]) == line and (column is None or int(place[2]) == column), said
    assert offending in said
    assert code(g, echo) == socks.OK
    g.write_policy(DENY)
    g.reload()
    assert code(g, echo) == socks.NOT_ALLOWED


def test_failing_expectation_refuses_the_reload(gateway, echo):
    g = gateway(ALLOW)
    g.write_policy(DENY + "expect allow to 127.0.0.1 port 80\n")
    done = g.reload(check=False)
    assert done.returncode != 0
    assert ":3:" in done.out + done.err
    assert code(g, echo) == socks.OK


@pytest.mark.parametrize("text", ["", None], ids=["directory", "missing"])
def test_unreadable_policy_at_reload(gateway, echo, text):
    g = gateway(ALLOW)
    os.unlink(g.policy_file)
    if text is not None:
        os.mkdir(g.policy_file)
    done = g.reload(check=False)
    assert done.returncode != 0
    assert g.policy_file in done.out + done.err
    assert code(g, echo) == socks.OK


def test_binary_policy_is_refused(gateway, echo):
    g = gateway(ALLOW)
    with open(g.policy_file, "wb") as f:
        f.write(bytes(range(256)) * 100)
    assert g.reload(check=False).returncode != 0
    assert code(g, echo) == socks.OK


def test_reload_of_the_same_text_is_no_new_revision(gateway):
    g = gateway(ALLOW)
    before = g.status()
    g.reload()
    after = g.status()
    assert before["revision"] == after["revision"]


def test_sessions_outlive_a_reload(gateway, echo):
    g = gateway(ALLOW)
    with g.session("127.0.0.1", echo.port) as c:
        g.write_policy(ALLOW + "# changed\n")
        g.reload()
        c.echo(b"still here")


def test_no_request_fails_while_policies_swap(gateway, server):
    s = server(servers.Echo)
    g = gateway(ALLOW)
    stop, codes = threading.Event(), []

    def ask():
        while not stop.is_set():
            with g.session("127.0.0.1", s.port) as c:
                codes.append(c.code)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for t in threads:
        t.start()
    for i in range(5):
        g.write_policy(ALLOW + f"rule r{i} deny port {i + 1}\n")
        g.reload()
    stop.set()
    for t in threads:
        t.join()
    assert set(codes) == {socks.OK}


@pytest.mark.root
def test_starts_and_signals_are_the_owners(gateway):
    """What nobody asks for over the socket is recorded under who started the gateway."""
    g = gateway(as_user="nobody")
    g.write_policy("rule loopback allow to cidr 127.0.0.0/8\n# news\n")
    g.process.send_signal(signal.SIGHUP)
    g.wait_rows(1, event="policy", revision=2)
    revisions = json.loads(g.ctl("policy", "log", "--json").out)
    uid = pwd.getpwnam("nobody").pw_uid
    assert [(r["author"], r["author_uid"]) for r in revisions] == [("SIGHUP", uid), ("start", uid)], revisions
