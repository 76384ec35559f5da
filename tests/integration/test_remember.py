"""Remembered log-ins: what costs a PAM conversation, and what does not. The module counts its calls."""

import os

from harness import socks, wait
from harness.gateway import POLICY, crypt

COUNTED = """\
auth required pam_exec.so quiet {dir}/count.sh
auth required pam_pwdfile.so nodelay pwdfile={dir}/users
account required pam_permit.so
"""


def counting(gateway, script="", start=True, **options):
    g = gateway(pam=COUNTED, start=False, **options)
    g.write("calls", "")
    os.chmod(g.path("calls"), 0o666)
    g.write("count.sh", f'#!/bin/sh\ncd {g.dir}\necho "$PAM_USER $PAM_RHOST $PAM_SERVICE" >>calls\n{script}')
    os.chmod(g.path("count.sh"), 0o755)
    return g.start() if start else g


def calls(g):
    with open(g.path("calls"), encoding="utf-8") as f:
        return f.read().splitlines()


def login(g, user="ann", password="ann-pass", source=None):
    with g.client(source=source) as c:
        assert c.greet(socks.PASSWORD) == socks.PASSWORD
        return c.login(user, password)


def test_two_hundred_connections_cost_one_conversation(gateway, echo):
    """At once, as a browser makes them: they join the conversation that is under way, on both workers."""
    g = counting(gateway, "exec 3<gate\nread line <&3\n", start=False)
    os.mkfifo(g.path("gate"))
    os.chmod(g.path("gate"), 0o666)
    g.start()
    clients = [g.client() for _ in range(200)]
    for c in clients:
        c.send(socks.greeting(socks.PASSWORD) + socks.login("ann", "ann-pass"))
    wait.until(lambda: g.status()["auth"]["joined"] == 199, "199 joined")
    with open(g.path("gate"), "w", encoding="utf-8") as f:  # opens when the script does
        f.write("go\n")
    for c in clients:
        assert c.receive(4) == b"\5\2\1\0"
    for c in clients[:5]:
        assert c.request("127.0.0.1", echo.port) == socks.OK
        c.echo(b"x")
    for c in clients:
        c.close()
    assert login(g) == 0
    assert calls(g) == ["ann 127.0.0.1 gatewayd"]
    assert len(g.wait_rows(5, event="open", user="ann")) == 5


def test_bound_to_client_and_listener_and_password(gateway):
    g = counting(gateway)
    assert login(g) == 0 and login(g) == 0
    assert len(calls(g)) == 1
    assert login(g, source="127.0.0.9") == 0
    assert calls(g)[1] == "ann 127.0.0.9 gatewayd"
    assert login(g, password="wrong") != 0
    assert len(calls(g)) == 3
    assert login(g) == 0  # a wrong guess does not make it forgotten
    assert len(calls(g)) == 3


def test_groups_come_along(gateway, echo):
    g = counting(gateway, policy="rule staff allow group staff to cidr 127.0.0.0/8\ndefault deny\n")
    for _ in range(2):
        with g.session("127.0.0.1", echo.port) as c:
            assert c.code == socks.OK
    assert len(calls(g)) == 1
    assert [r["detail"]["groups"] for r in g.wait_rows(2, event="open")] == [["staff"]] * 2


def test_forgotten_on_demand(gateway):
    g = counting(gateway)
    login(g), login(g, "bob", "bob-pass")
    assert g.ctl("auth", "forget", "ann").out == "1 log-ins are forgotten\n"
    login(g), login(g, "bob", "bob-pass")
    assert [c.split()[0] for c in calls(g)] == ["ann", "bob", "ann"]
    assert g.row(event="admin")["reason"] == "auth forget: user ann"
    g.ctl("auth", "forget", "--all")
    login(g, "bob", "bob-pass")
    assert len(calls(g)) == 4


def test_forgotten_at_reload(gateway):
    g = counting(gateway)
    login(g)
    g.reload()
    login(g)
    assert len(calls(g)) == 2


def test_forgotten_when_the_policy_changes(gateway):
    """Applied or rolled back: once that is answered, nothing of before is believed."""
    g = counting(gateway)
    g.write("other", POLICY + "# another\n")
    for n, change in enumerate((["apply", g.path("other")], ["rollback", "1"], ["apply", "--dry-run", g.path("other")]), 1):
        login(g), login(g)
        assert len(calls(g)) == n
        g.ctl("policy", *change)
    login(g)
    assert len(calls(g)) == 3  # nothing changed


def test_forgotten_when_groups_change(gateway, echo):
    """What is remembered carries groups along: a change of the file ends it, whether it is written over or replaced."""
    g = counting(gateway)

    def groups():
        with g.session("127.0.0.1", echo.port) as c:
            assert c.code == socks.OK
        return g.rows(event="open")[-1]["detail"]["groups"]

    assert groups() == ["staff"]
    g.write("groups", "staff:x:1:ann\nadmins:x:2:ann\n")
    wait.until(lambda: groups() == ["staff", "admins"], "the new group")
    g.write("groups.new", "admins:x:2:ann\n")
    os.rename(g.path("groups.new"), g.path("groups"))
    wait.until(lambda: groups() == ["admins"], "the lost group")


def test_forgotten_in_time(gateway):
    g = counting(gateway, remember_logins=300)
    login(g)
    wait.until(lambda: login(g) == 0 and len(calls(g)) > 1, "it asks again")


def test_off_means_that_each_is_asked(gateway):
    g = counting(gateway, remember_logins=0)
    assert login(g) == 0 and login(g) == 0
    assert len(calls(g)) == 2
    assert g.status()["auth"]["recalled"] == 0


def test_off_lets_many_equal_ones_in(gateway):
    """Each is a conversation, and none a guess: a browser's connections are not refused for their number."""
    g = gateway(remember_logins=0)
    clients = [g.client() for _ in range(100)]
    for c in clients:
        c.send(socks.greeting(socks.PASSWORD) + socks.login("ann", "ann-pass"))
    for c in clients:
        assert c.receive(4) == b"\5\2\1\0"
        c.close()
    assert g.status()["auth"]["conversations"] == 100


def test_changed_password_ends_with_forgetting(gateway):
    g = counting(gateway)
    login(g)
    g.write("users", "ann:" + crypt(["other"])[0] + "\n")
    assert login(g, password="other") == 0
    g.ctl("auth", "forget", "ann")
    assert login(g) != 0
