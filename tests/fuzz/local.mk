# Every tests/fuzz/fuzz_*.c on its corpus, then FUZZ_SECONDS on its own inventions.  fuzz-long is for a night.
FUZZ_SECONDS = 10
FUZZED_FILES = $(common_libcommon_a_SOURCES) $(policy_libpolicy_a_SOURCES) schema/audit_event.c auth/message.c \
	gatewayd/conf.c gatewayd/worker/gss_frame.c gatewayd/worker/socks4.c gatewayd/worker/socks5.c gatewayd/worker/hosts.c \
	gatewayd/steering.c schema/audit_json.c schema/audit_query.c schema/audit_row.c schema/audit_segment.c schema/audit_detail.c \
	schema/db.c schema/db_vfs.c schema/migrations.c

.PHONY: fuzz-quick fuzz-long
fuzz-quick: $(BUILT_SOURCES) policy/libpolicy.a
	@CLANG='$(CLANG)' LIBS='$(POLICY_LIBS) $(SCHEMA_LIBS) $(EVENT_LIBS) $(CONFUSE_LIBS)' \
	CPPFLAGS='-Ipolicy $(PCRE2_CFLAGS) $(SODIUM_CFLAGS) $(EVENT_CFLAGS) $(CONFUSE_CFLAGS) $(JANSSON_CFLAGS) $(SQLITE_CFLAGS)' \
	$(srcdir)/tests/fuzz/run.sh $(srcdir) $(FUZZ_SECONDS) $(FUZZED_FILES)

fuzz-long:
	@$(MAKE) fuzz-quick FUZZ_SECONDS=1800

EXTRA_DIST += tests/fuzz
