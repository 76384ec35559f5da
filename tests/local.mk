# What runs the tests: "make check" is unit and integration tests; ./bootstrap check adds sanitizers, lint and fuzzing.
.PHONY: check-programs check-unit check-integration check-interop interop-table check-long lint
check-programs: $(BUILT_SOURCES) $(check_PROGRAMS)

check-unit: check-programs
	@$(srcdir)/tests/run-unit.sh $(check_PROGRAMS)

check-integration: $(BUILT_SOURCES) all-am
	@$(srcdir)/tests/run-integration.sh $(srcdir) .

check-interop: $(BUILT_SOURCES) all-am
	@$(srcdir)/tests/run-interop.sh $(srcdir) .

# doc/INTEROP.md, from what this machine's programs do.
interop-table: $(BUILT_SOURCES) all-am
	@INTEROP_TABLE=$(srcdir)/doc/INTEROP.md $(srcdir)/tests/run-interop.sh $(srcdir) .

check-local: check-unit check-integration check-interop

# For a night, from a seed of the day: the engine against its reference on 20 million pairs, processes killed at 1,000 moments, 10,000
# edits of the audit, a loss of power at each write, 10,000 schedules of the relay; and in full size, 2,000 silent clients beside 1,000
# requests a second, many sessions, hostile callers of control, guesses, gatewayctl top over 5,000 sessions.
LONG_PAIRS = 20000000
check-long: check-programs
	POLICY_PAIRS=$(LONG_PAIRS) POLICY_SEED=$${POLICY_SEED:-$$(date +%Y%m%d)000000000} ./tests/unit/test_policy_differential
	AUDIT_KILL_ROUNDS=20 AUDIT_SEED=$$(date +%Y%m%d) $(srcdir)/tests/run-integration.sh $(srcdir) . test_fault_kills.py
	AUDIT_EPOCHS=1000000 ./tests/unit/test_audit_prune
	AUDIT_EDITS=10000 AUDIT_SEED=$$(date +%Y%m%d) ./tests/unit/test_audit_verify
	AUDIT_OPEN_ROUNDS=1000 AUDIT_SEED=$$(date +%Y%m%d) ./tests/unit/test_audit_open
	AUDIT_POWER_EVENTS=1000 AUDIT_POWER_STEP=1 AUDIT_SEED=$$(date +%Y%m%d) ./tests/unit/test_audit_power
	RELAY_SCHEDULES=10000 RELAY_SEED=$$(date +%Y%m%d) $(srcdir)/tests/run-integration.sh $(srcdir) . -n 2 test_schedules.py
	GATEWAYD_TEST_FULL=1 $(srcdir)/tests/run-integration.sh $(srcdir) . -n 0 -s test_silent_clients.py test_sessions.py test_hostile_control.py test_throttle.py \
		test_top_tmux.py

# What ./bootstrap check leaves out with sanitizers: make -C build-san check-long-sanitized.
.PHONY: check-long-sanitized
check-long-sanitized: check-programs
	$(srcdir)/tests/run-integration.sh $(srcdir) . -m long

lint:
	@$(srcdir)/packaging/lint/lint.sh $(srcdir)

EXTRA_DIST += bootstrap .ci/run README.md HACKING.md .clang-format \
	packaging/examples/first-run.policy packaging/lint/lint.sh packaging/lint/layers.sh \
	tests/check.sh tests/run-unit.sh tests/run-integration.sh tests/integration \
	tests/run-interop.sh tests/interop
dist-hook:
	find $(distdir)/tests -name __pycache__ -prune -exec rm -rf {} +
