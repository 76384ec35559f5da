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

# What log-ins and GSSAPI cost; gss-bench is what the library itself does.
EXTRA_PROGRAMS += tests/bench/gss-bench
CLEANFILES += tests/bench/gss-bench$(EXEEXT)
tests_bench_gss_bench_SOURCES = tests/bench/gss-bench.c
tests_bench_gss_bench_CPPFLAGS = $(AM_CPPFLAGS) $(GSSAPI_CFLAGS)
tests_bench_gss_bench_LDADD = $(GSSAPI_LIBS)

.PHONY: auth-bench
auth-bench: all tests/bench/gss-bench$(EXEEXT)
	@GATEWAYD_BUILD=. /usr/bin/python3 $(srcdir)/tests/bench/auth-bench.py
EXTRA_DIST += tests/bench/auth-bench.py

# What a change of the policy costs a worker with 50,000 sessions.
EXTRA_PROGRAMS += tests/bench/live-bench
CLEANFILES += tests/bench/live-bench$(EXEEXT)
tests_bench_live_bench_SOURCES = tests/bench/live-bench.c gatewayd/worker/live.c gatewayd/worker/asked.c gatewayd/worker/authorise.c \
	gatewayd/worker/pool.c gatewayd/worker/reply.c gatewayd/worker/shared.c
tests_bench_live_bench_CPPFLAGS = $(gatewayd_gatewayd_CPPFLAGS) $(PCRE2_CFLAGS)
tests_bench_live_bench_LDADD = $(gatewayd_gatewayd_LDADD)

.PHONY: live-bench
live-bench: tests/bench/live-bench$(EXEEXT)
	@./tests/bench/live-bench

# What carrying bytes costs, beside bare relays and beside other proxies of this machine.
EXTRA_PROGRAMS += tests/bench/load tests/bench/relay
CLEANFILES += tests/bench/load$(EXEEXT) tests/bench/relay$(EXEEXT)
tests_bench_load_SOURCES = tests/bench/load.c
tests_bench_relay_SOURCES = tests/bench/relay.c

.PHONY: bench bench-quick
bench: all tests/bench/load$(EXEEXT) tests/bench/relay$(EXEEXT)
	@GATEWAYD_BUILD=. /usr/bin/python3 $(srcdir)/tests/bench/bench.py $(BENCH)
bench-quick: all tests/bench/load$(EXEEXT) tests/bench/relay$(EXEEXT)
	@GATEWAYD_BUILD=. /usr/bin/python3 $(srcdir)/tests/bench/bench.py --quick $(BENCH)
EXTRA_DIST += tests/bench/bench.py
