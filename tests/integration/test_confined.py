"""/proc tells of the roles that meet hostile bytes: filtered, without new privileges or capabilities, and not root."""

import subprocess

import pytest

from harness import processes, wait
from harness.gateway import BUILD, sanitized

pytestmark = [pytest.mark.root, pytest.mark.skipif(sanitized(), reason="a build with sanitizers is not confined")]


def test_lasting_roles(gateway):
    g = gateway()
    for role in ("worker", "auth", "recorder", "control"):
        pids = processes.of_role(g, role)
        assert pids, role
        assert all(processes.confined(pid) for pid in pids), (role, [processes.status(pid) for pid in pids])


def test_restarted_worker(gateway):
    g = gateway()
    old = processes.of_role(g, "worker", 0)[0]
    processes.kill(old)
    wait.until(lambda: any(processes.confined(p) for p in processes.of_role(g, "worker", 0) if p != old), "a confined successor")


def test_compiler(gateway):
    """Caught while it compiles a policy that takes it a while; once more if nobody looked meanwhile."""
    g = gateway()
    seen = []

    def caught():
        for pid in processes.of_role(g, "compiler"):
            try:
                if processes.confined(pid):
                    seen.append(pid)
            except (FileNotFoundError, ProcessLookupError):
                pass
        return seen or reload.poll() is not None

    for n in range(20):
        g.write_policy("".join(f'rule r{i} deny to domain .n{i}.test port {i % 60000 + 1}\n' for i in range(20000 + n)) + "rule yes allow to cidr 127.0.0.0/8\n")
        reload = subprocess.Popen([f"{BUILD}/admin/gatewayctl", "--socket", g.socket, "reload"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        wait.until(caught, "a compiler at work", 60, 0.0005)
        out = reload.communicate(timeout=wait.seconds(60))[0]
        assert reload.returncode == 0, out[:2000]
        if seen:
            return
    raise AssertionError("no compiler was seen at work")
