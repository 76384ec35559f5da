noinst_LIBRARIES += schema/libschema.a
schema_libschema_a_SOURCES = \
	schema/audit_event.c schema/audit_event.h \
	schema/audit_detail.c schema/audit_detail.h \
	schema/audit_summary.c schema/audit_summary.h \
	schema/audit_requests.c schema/audit_requests.h \
	schema/audit_hits.c schema/audit_hits.h \
	schema/audit_answer.c schema/audit_answer.h \
	schema/audit_sql.c schema/audit_sql.h \
	schema/db_vfs.c schema/db_vfs.h \
	schema/db.c schema/db.h schema/migrations.h \
	schema/audit_row.c schema/audit_row.h \
	schema/audit_open.c schema/audit_open.h \
	schema/audit_replay.c schema/audit_replay.h \
	schema/audit_chain.c schema/audit_chain.h \
	schema/audit_segment.c schema/audit_segment.h \
	schema/audit_reserve.c schema/audit_reserve.h \
	schema/audit_store.c schema/audit_store.h \
	schema/audit_query.c schema/audit_query.h \
	schema/audit_verify.c schema/audit_verify.h \
	schema/audit_prune.c schema/audit_prune.h \
	schema/audit_holds.c schema/audit_holds.h \
	schema/audit_json.c schema/audit_json.h \
	schema/audit_stats.c schema/audit_stats.h \
	schema/policy_store.c schema/policy_store.h
nodist_schema_libschema_a_SOURCES = schema/migrations.c
schema_libschema_a_CPPFLAGS = $(AM_CPPFLAGS) $(SQLITE_CFLAGS) $(SODIUM_CFLAGS) $(JANSSON_CFLAGS)
# What a program that links schema/libschema.a (and after it common/libcommon.a) needs besides.
SCHEMA_LIBS = $(SQLITE_LIBS) $(SODIUM_LIBS) $(JANSSON_LIBS)

# Numbered, in order, never changed once released: a change of a store is a new file.
schema_sql = \
	$(srcdir)/schema/audit/0001_init.sql \
	$(srcdir)/schema/audit/0002_open_sessions.sql \
	$(srcdir)/schema/audit/0003_chain.sql \
	$(srcdir)/schema/policy/0001_init.sql \
	$(srcdir)/schema/policy/0002_files.sql $(srcdir)/schema/policy/0003_trials.sql \
	$(srcdir)/schema/policy/0004_approvals.sql
schema/migrations.c: $(schema_sql) $(srcdir)/schema/embed.awk
	$(AM_V_GEN)$(MKDIR_P) schema && LC_ALL=C $(AWK) -f $(srcdir)/schema/embed.awk $(schema_sql) > $@.tmp && mv $@.tmp $@
CLEANFILES += schema/migrations.c
EXTRA_DIST += schema/embed.awk schema/audit/0001_init.sql schema/audit/0002_open_sessions.sql schema/audit/0003_chain.sql \
	schema/policy/0001_init.sql schema/policy/0002_files.sql schema/policy/0003_trials.sql schema/policy/0004_approvals.sql
