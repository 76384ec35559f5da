"""A policy that the compiler has no memory for: it is refused, and what ran before runs on."""

import resource

import pytest

from harness.gateway import POLICY, sanitized

MEMORY = 112 << 20  # a gateway needs less than 80 MiB, its compiler for this policy more than 128
ENTRIES = 800000


@pytest.mark.skipif(sanitized(), reason="a sanitizer's own memory is more than the limit")
def test_a_policy_bigger_than_the_compilers_memory(gateway, echo):
    # The compiler bounds itself; a lower bound that the whole gateway lives under, and may not raise, is one that a test can reach.
    g = gateway(as_user="nobody", limits={resource.RLIMIT_AS: MEMORY})
    control, = g.pids("control")
    with open(g.path("big"), "w") as f:
        f.writelines(f"host{i}.zone{i % 9973}.example\n" for i in range(ENTRIES))
    g.write("big.policy", f'set big domain file "big"\nrule big deny to domain @big\n{POLICY}')
    before = g.ctl("policy", "export").out
    with g.session("127.0.0.1", echo.port) as held:
        for options in ([], ["--dry-run"]):
            done = g.ctl("policy", "apply", g.path("big.policy"), "--yes", *options, check=False)
            assert done.returncode == 1 and "the compiler ended" in done.err and "out of memory" in done.err, (done.out, done.err)
        held.echo(b"still carried")
        with g.session("127.0.0.1", echo.port) as another:
            assert another.code == 0
            another.echo(b"decided by what ran before")
    assert g.pids("control") == [control], "control lives"
    assert g.ctl("policy", "export").out == before and g.revision() == 1
    assert any("refused" in r["reason"] for r in g.rows(event="policy"))
    g.write("small.policy", "rule none deny to cidr 192.0.2.0/24\n" + POLICY)
    assert "revision 2 is active" in g.ctl("policy", "apply", g.path("small.policy"), "--yes").out
