# What decisions cost: prints a table.
EXTRA_PROGRAMS = tests/bench/policy-bench
CLEANFILES += tests/bench/policy-bench$(EXEEXT)
tests_bench_policy_bench_SOURCES = tests/bench/policy-bench.c
tests_bench_policy_bench_CPPFLAGS = $(AM_CPPFLAGS) $(PCRE2_CFLAGS) $(SODIUM_CFLAGS)
tests_bench_policy_bench_LDADD = policy/libpolicy.a common/libcommon.a $(POLICY_LIBS)

.PHONY: policy-bench
policy-bench: tests/bench/policy-bench$(EXEEXT)
	@./tests/bench/policy-bench

# What it costs to change the policy of a running gateway.
.PHONY: apply-bench
apply-bench: all
	@GATEWAYD_BUILD=. /usr/bin/python3 $(srcdir)/tests/bench/apply-bench.py
EXTRA_DIST += tests/bench/apply-bench.py

# What the audit costs: AUDIT_BENCH="--rows 1000000 --segments 3" for a shorter run.
EXTRA_PROGRAMS += tests/bench/audit-bench
CLEANFILES += tests/bench/audit-bench$(EXEEXT)
tests_bench_audit_bench_SOURCES = tests/bench/audit-bench.c
tests_bench_audit_bench_CPPFLAGS = $(AM_CPPFLAGS) $(SODIUM_CFLAGS)
tests_bench_audit_bench_LDADD = schema/libschema.a common/libcommon.a $(SCHEMA_LIBS)

.PHONY: audit-bench
audit-bench: tests/bench/audit-bench$(EXEEXT)
	@./tests/bench/audit-bench $(AUDIT_BENCH)

# What log-ins and GSSAPI cost.
.PHONY: auth-bench
auth-bench: all
	@GATEWAYD_BUILD=. /usr/bin/python3 $(srcdir)/tests/bench/auth-bench.py
EXTRA_DIST += tests/bench/auth-bench.py
