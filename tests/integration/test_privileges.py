"""Who the processes are, what they may do, and where the daemon can run."""

import os
import pwd

import pytest

from harness import socks, wait
from harness.gateway import sanitized
from harness.processes import children, status


@pytest.mark.root
def test_roles_run_as_the_configured_user(gateway, echo):
    g = gateway()
    nobody = str(pwd.getpwnam("nobody").pw_uid)
    for pid, role in g.pids().items():
        s = status(pid)
        if role in ("supervisor", "pam"):
            continue
        assert set(s["Uid"].split()) == {nobody}, role
        assert s["Groups"].strip() == "", role
        for caps in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
            assert int(s[caps], 16) == 0, (role, caps)


@pytest.mark.skipif(sanitized(), reason="a build with sanitizers is not confined")
def test_every_role_but_pam_is_filtered(gateway):
    g = gateway()
    for pid, role in g.pids().items():
        if role not in ("supervisor", "pam"):
            assert status(pid)["Seccomp"] == "2", role
            assert status(pid)["NoNewPrivs"] == "1", role


@pytest.mark.root
def test_workers_hold_no_files(gateway, echo):
    g = gateway()
    with g.session("127.0.0.1", echo.port) as c:
        c.echo(b"x")
        for pid in g.pids("worker"):
            held = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
            files = [t for t in held if t.startswith("/") and not t.startswith(("/dev/null", "/memfd:")) and t != g.path("log")]
            assert files == [], files


@pytest.mark.root
def test_root_in_a_directory_of_its_own(gateway, echo):
    """0700 and root's: the processes that gave up root still find all they need."""
    g = gateway()
    assert os.stat(g.dir).st_mode & 0o777 == 0o700 and os.stat(g.dir).st_uid == 0
    with g.session("127.0.0.1", echo.port) as c:
        assert c.code == socks.OK
    g.write_policy("default deny\n")
    g.reload()
    with g.session("127.0.0.1", echo.port) as c:
        assert c.code == socks.NOT_ALLOWED
    g.restart()


@pytest.mark.root
def test_ordinary_user(gateway, echo):
    g = gateway(as_user="nobody")
    with g.session("127.0.0.1", echo.port) as c:
        assert c.code == socks.OK
        c.echo(b"x")
    assert g.wait_rows(1, event="ended")
    nobody = pwd.getpwnam("nobody").pw_uid
    assert all(set(status(pid)["Uid"].split()) == {str(nobody)} for pid in g.pids())


def test_files_of_the_state_are_private(gateway, echo):
    g = gateway()
    with g.session("127.0.0.1", echo.port):
        pass
    for directory, _, files in os.walk(g.state):
        for f in files:
            mode = os.stat(os.path.join(directory, f)).st_mode
            assert mode & 0o077 == 0, (f, oct(mode))
    assert os.stat(g.socket).st_mode & 0o007 == 0


@pytest.mark.root
def test_strangers_may_not_administer(gateway):
    import subprocess

    from harness.gateway import BUILD

    g = gateway()
    os.chmod(g.dir, 0o755)
    os.chmod(g.socket, 0o666)
    done = subprocess.run(["setpriv", "--reuid=games", "--regid=games", "--clear-groups", os.path.join(BUILD, "admin", "gatewayctl"),
                           "--socket", g.socket, "reload"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=wait.seconds(40))
    assert done.returncode != 0


@pytest.mark.root
def test_password_is_in_no_argument_or_environment(gateway, echo):
    g = gateway()
    c = g.session("127.0.0.1", echo.port)
    for pid in g.pids():
        for part in ("cmdline", "environ"):
            with open(f"/proc/{pid}/{part}", "rb") as f:
                assert b"ann-pass" not in f.read()
    c.close()
    assert "ann-pass" not in g.log()


def test_long_work_gives_way(gateway):
    """Of those who compute for long beside workers the keeper is there to be looked at."""
    g = gateway()
    worker = g.pids("worker")[0]
    (keeper,) = children(g.pids("control")[0])
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    wait.until(lambda: os.getpriority(os.PRIO_PROCESS, keeper) == min(ours + 5, 19), "the keeper stands back")
    assert os.sched_getscheduler(keeper) == os.SCHED_BATCH and os.getsid(keeper) == keeper
    assert os.sched_getscheduler(worker) == os.SCHED_OTHER and os.getsid(worker) == os.getsid(g.process.pid)
    assert os.getpriority(os.PRIO_PROCESS, worker) == ours
