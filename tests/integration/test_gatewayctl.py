"""gatewayctl: status, policy check, policy explain, and what it says when it cannot."""

import json
import os

import pytest

from harness import socks, wait


def test_status(gateway, echo):
    g = gateway(workers=2, pam_processes=3)
    with g.session("127.0.0.1", echo.port) as c:
        c.echo(b"x")
        s = g.status()
        roles = [p["role"] for p in s["processes"] if p["role"] not in ("reader", "compiler")]
        assert sorted(set(roles)) == ["auth", "control", "pam", "recorder", "supervisor", "worker"]
        assert (roles.count("worker"), roles.count("pam")) == (2, 3)
        text = g.ctl("status").out
        assert "worker" in text and "recorder" in text and str(s["revision"]) in text


def test_status_without_a_gateway(gateway):
    g = gateway(start=False)
    done = g.ctl("status", check=False)
    assert done.returncode != 0
    assert g.socket in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_policy_check_needs_no_gateway(gateway):
    g = gateway("rule one allow to cidr 127.0.0.1/32\n", start=False)
    assert g.ctl("policy", "check", g.policy_file).returncode == 0
    g.write_policy("rule one alow\n")
    done = g.ctl("policy", "check", g.policy_file, check=False)
    assert done.returncode != 0
    assert f"{g.policy_file}:1:10: error" in done.out + done.err
    assert "alow" in done.out + done.err


def test_policy_check_of_nothing(gateway):
    g = gateway(start=False)
    done = g.ctl("policy", "check", g.path("absent"), check=False)
    assert done.returncode != 0 and g.path("absent") in done.err


def test_example_policies_are_sound(gateway):
    from harness.gateway import ROOT

    g = gateway(start=False)
    examples = os.path.join(ROOT, "packaging", "examples")
    policies = [f for f in os.listdir(examples) if f.endswith(".policy")]
    assert policies
    for f in policies:
        done = g.ctl("policy", "check", os.path.join(examples, f))
        # The examples' groups are not those of this machine; nothing else may be wrong with them.
        others = [line for line in (done.out + done.err).splitlines() if "warning:" in line and "[unknown-group]" not in line]
        assert not others, (f, others)


def test_unknown_commands(gateway):
    g = gateway(start=False)
    for arguments in ((), ("frobnicate",), ("policy",), ("audit", "query", "--no-such"), ("audit", "query", "--limit", "x"),
                      ("audit", "query", "--since", "yesterday-ish")):
        done = g.ctl(*arguments, check=False)
        assert done.returncode != 0 and done.err, arguments


def test_output_to_a_closed_pipe_is_no_crash(gateway, echo):
    import subprocess

    from harness.gateway import BUILD

    g = gateway()
    for _ in range(50):
        g.session("127.0.0.1", echo.port).close()
    p = subprocess.Popen([os.path.join(BUILD, "admin", "gatewayctl"), "--socket", g.socket, "audit", "query", "--limit", "1000"],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    p.stdout.close()
    p.wait(wait.seconds(40))
    p.stderr.close()
    assert g.status()


@pytest.mark.hostile
def test_garbage_on_the_control_socket(gateway, echo):
    import socket

    g = gateway()
    for garbage in (b"", b"x", b"{}", b"[]", b"null", b'{"command": 5}', b"\0" * 5000, b"[" * 30000, json.dumps({"a": "b" * 60000}).encode(),
                    b'{"command":"status"}' + b"\xff" * 10):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        s.settimeout(wait.seconds(40))
        s.connect(g.socket)
        try:
            s.send(garbage)
            s.recv(65536)
        except OSError:
            pass
        s.close()
    assert g.status()
    with g.session("127.0.0.1", echo.port) as c:
        assert c.code == socks.OK


@pytest.mark.parametrize("words, option", [
    (["policy", "rollback", "1", "--comment"], "comment"), (["audit", "prune", "--keep", "1d", "--class"], "class"),
    (["audit", "prune", "--keep", "1d", "--hold"], "hold"),
])
def test_an_option_that_cannot_be_sent_is_not_left_out(shared, words, option):
    done = shared.ctl(*words, os.fsdecode(b"Pr\xfcfung"), check=False)  # as a terminal in Latin-1 has it
    assert done.returncode == 2 and f"--{option}: the text is no UTF-8" in done.err, done.err
