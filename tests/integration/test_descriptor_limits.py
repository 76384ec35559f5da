"""Any limit of descriptors: few, more than there will ever be, and one that turns out to be a lie."""

import resource
import subprocess

import pytest

from harness import processes, socks, wait
from harness.gateway import sanitized

pytestmark = [
    pytest.mark.load,
    pytest.mark.skipif(sanitized(), reason="the sanitizers' runtime must be loaded first"),
]

# Tells every process of the gateway that it may have LIMIT descriptors; the kernel's own limit stays.
SHIM = """
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

int getrlimit64(__rlimit_resource_t what, struct rlimit64 *l)
{
	int rc = prlimit64(0, what, NULL, l);

	if (what == RLIMIT_NOFILE)
		l->rlim_cur = l->rlim_max = (rlim64_t)(LIMIT);
	return rc;
}

int getrlimit(__rlimit_resource_t what, struct rlimit *l) { return getrlimit64(what, (struct rlimit64 *)l); }

int setrlimit64(__rlimit_resource_t what, const struct rlimit64 *l)
{
	return what == RLIMIT_NOFILE ? 0 : prlimit64(0, what, l, NULL);
}

int setrlimit(__rlimit_resource_t what, const struct rlimit *l) { return setrlimit64(what, (const struct rlimit64 *)l); }

/* Children get no environment of ours: the shim goes with them. */
int execve(const char *path, char *const argv[], char *const env[])
{
	static char preload[4200] = "LD_PRELOAD=";
	char *with[32] = {preload};

	strncat(preload, SELF, sizeof preload - 20);
	for (int i = 0; i < 30 && env[i] != NULL; i++)
		with[i + 1] = env[i];
	return (int)syscall(SYS_execve, path, argv, with);
}
"""


@pytest.fixture
def claimed(gateway, tmp_path):
    """A gateway that is told of this limit."""

    def start(limit, **kwargs):
        shim = tmp_path / "shim.so"
        (tmp_path / "shim.c").write_text(SHIM)
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", f"-DLIMIT={limit}", f'-DSELF="{shim}"', "-o", shim, tmp_path / "shim.c"], check=True)
        return gateway(environment={"LD_PRELOAD": str(shim)}, workers=1, **kwargs)

    return start


@pytest.mark.parametrize("limit", ["256", "1024", "65536", "1048576", "1ULL << 30", "1ULL << 62", "~0ULL"])
def test_any_limit_works(claimed, echo, limit):
    g = claimed(limit)
    value = eval(limit.replace("ULL", "").replace("~0", "2**64-1"))
    sessions = g.status()["workers"]["max_sessions"]
    assert min(value, 8000000) / 6 <= sessions <= min(value, 8000000) / 2
    for _ in range(20):
        with g.session("127.0.0.1", echo.port) as c:
            assert c.code == socks.OK
            c.echo(b"x" * 1000)
    for role in ("supervisor", "worker", "auth", "recorder", "control"):
        for pid in [g.process.pid] if role == "supervisor" else g.pids(role):
            processes.rests(pid)


def test_fewer_descriptors_than_promised(claimed, echo):
    """The kernel refuses what the limit allowed: clients are turned away, nobody spins, and service returns."""
    g = claimed("1ULL << 30", limits={resource.RLIMIT_NOFILE: 256}, handshake_timeout=600000)
    held = [g.client() for _ in range(400)]

    def exhausted():
        return "out of descriptors" in g.log()

    wait.until(exhausted, "descriptors run out")
    for c in held[:20]:
        assert c.greet(socks.PASSWORD) == socks.PASSWORD
    processes.rests(processes.of_role(g, "worker")[0])
    for c in held:
        c.close()
    wait.until(lambda: processes.serves(g, echo), "service after the flood")
