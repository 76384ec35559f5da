SCHEMA_TEST_LIBS = schema/libschema.a common/libcommon.a $(SCHEMA_LIBS) $(EVENT_LIBS) $(CMOCKA_LIBS)
SCHEMA_TEST_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) $(EVENT_CFLAGS) $(JANSSON_CFLAGS) $(SQLITE_CFLAGS) $(SODIUM_CFLAGS)
check_PROGRAMS += tests/unit/test_audit_event tests/unit/test_db tests/unit/test_audit_store tests/unit/test_audit_open tests/unit/test_audit_verify tests/unit/test_audit_prune tests/unit/test_audit_power tests/unit/test_policy_power tests/unit/test_audit_json \
	tests/unit/test_policy_store tests/unit/test_recorder tests/unit/test_reader tests/unit/test_admin_format

tests_unit_test_audit_event_SOURCES = tests/unit/test_audit_event.c
tests_unit_test_audit_event_CPPFLAGS = $(SCHEMA_TEST_CPPFLAGS)
tests_unit_test_audit_event_LDADD = $(SCHEMA_TEST_LIBS)

tests_unit_test_db_SOURCES = tests/unit/test_db.c tests/unit/scratch.c tests/unit/scratch.h
tests_unit_test_db_CPPFLAGS = $(SCHEMA_TEST_CPPFLAGS)
tests_unit_test_db_LDADD = $(SCHEMA_TEST_LIBS)

tests_unit_test_audit_store_SOURCES = tests/unit/test_audit_store.c tests/unit/scratch.c tests/unit/scratch.h
tests_unit_test_audit_store_CPPFLAGS = $(SCHEMA_TEST_CPPFLAGS)
tests_unit_test_audit_store_LDADD = $(SCHEMA_TEST_LIBS)

tests_unit_test_audit_open_SOURCES = tests/unit/test_audit_open.c tests/unit/scratch.c tests/unit/scratch.h
tests_unit_test_audit_open_CPPFLAGS = $(SCHEMA_TEST_CPPFLAGS)
tests_unit_test_audit_open_LDADD = $(SCHEMA_TEST_LIBS)
tests_unit_test_audit_open_LDFLAGS = -Wl,--wrap=clock_mono_us,--wrap=clock_wall_us

tests_unit_test_audit_verify_SOURCES = tests/unit/test_audit_verify.c tests/unit/scratch.c tests/unit/scratch.h
tests_unit_test_audit_verify_CPPFLAGS = $(SCHEMA_TEST_CPPFLAGS)
tests_unit_test_audit_verify_LDADD = $(SCHEMA_TEST_LIBS)

tests_unit_test_audit_prune_SOURCES = tests/unit/test_audit_prune.c tests/unit/scratch.c tests/unit/scratch.h
tests_unit_test_audit_prune_CPPFLAGS = $(SCHEMA_TEST_CPPFLAGS)
tests_unit_test_audit_prune_LDADD = $(SCHEMA_TEST_LIBS)
# A process that ends at any of these calls.
tests_unit_test_audit_prune_LDFLAGS = -Wl,--wrap=rename,--wrap=unlink,--wrap=audit_store_declare,--wrap=clock_wall_us

tests_unit_test_audit_power_SOURCES = tests/unit/test_audit_power.c tests/unit/disk.c tests/unit/disk.h tests/unit/scratch.c tests/unit/scratch.h
tests_unit_test_audit_power_CPPFLAGS = $(SCHEMA_TEST_CPPFLAGS)
tests_unit_test_audit_power_LDADD = $(SCHEMA_TEST_LIBS)

tests_unit_test_audit_json_SOURCES = tests/unit/test_audit_json.c
tests_unit_test_audit_json_CPPFLAGS = $(SCHEMA_TEST_CPPFLAGS)
tests_unit_test_audit_json_LDADD = $(SCHEMA_TEST_LIBS)

tests_unit_test_policy_store_SOURCES = tests/unit/test_policy_store.c tests/unit/scratch.c tests/unit/scratch.h
tests_unit_test_policy_store_CPPFLAGS = $(SCHEMA_TEST_CPPFLAGS)
tests_unit_test_policy_store_LDADD = $(SCHEMA_TEST_LIBS)

tests_unit_test_recorder_SOURCES = tests/unit/test_recorder.c tests/unit/scratch.c tests/unit/scratch.h \
	gatewayd/recorder/batch.c gatewayd/recorder/senders.c
tests_unit_test_recorder_CPPFLAGS = $(SCHEMA_TEST_CPPFLAGS)
tests_unit_test_recorder_LDADD = $(SCHEMA_TEST_LIBS)

tests_unit_test_reader_SOURCES = tests/unit/test_reader.c tests/unit/scratch.c tests/unit/scratch.h gatewayd/reader/answer.c
tests_unit_test_reader_CPPFLAGS = $(SCHEMA_TEST_CPPFLAGS)
tests_unit_test_reader_LDADD = $(SCHEMA_TEST_LIBS)

tests_unit_test_admin_format_SOURCES = tests/unit/test_admin_format.c
tests_unit_test_admin_format_CPPFLAGS = $(SCHEMA_TEST_CPPFLAGS)
tests_unit_test_admin_format_LDADD = admin/libadmin.a $(SCHEMA_TEST_LIBS) $(SMARTCOLS_LIBS)

tests_unit_test_policy_power_SOURCES = tests/unit/test_policy_power.c tests/unit/disk.c tests/unit/disk.h tests/unit/scratch.c tests/unit/scratch.h
tests_unit_test_policy_power_CPPFLAGS = $(SCHEMA_TEST_CPPFLAGS)
tests_unit_test_policy_power_LDADD = $(SCHEMA_TEST_LIBS)
