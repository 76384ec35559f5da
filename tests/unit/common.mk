check_PROGRAMS += tests/unit/test_text tests/unit/test_wire tests/unit/test_sealed tests/unit/test_log tests/unit/test_clock \
	tests/unit/test_ipc tests/unit/test_locked
COMMON_TEST_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) $(EVENT_CFLAGS)
COMMON_TEST_LIBS = common/libcommon.a $(EVENT_LIBS) $(CMOCKA_LIBS)

tests_unit_test_text_SOURCES = tests/unit/test_text.c
tests_unit_test_text_CPPFLAGS = $(COMMON_TEST_CPPFLAGS)
tests_unit_test_text_LDADD = $(COMMON_TEST_LIBS)

tests_unit_test_wire_SOURCES = tests/unit/test_wire.c
tests_unit_test_wire_CPPFLAGS = $(COMMON_TEST_CPPFLAGS)
tests_unit_test_wire_LDADD = $(COMMON_TEST_LIBS)

tests_unit_test_sealed_SOURCES = tests/unit/test_sealed.c
tests_unit_test_sealed_CPPFLAGS = $(COMMON_TEST_CPPFLAGS)
tests_unit_test_sealed_LDADD = $(COMMON_TEST_LIBS)

# Brings a clock of its own, which stands in for common/clock.c when it is linked.
tests_unit_test_log_SOURCES = tests/unit/test_log.c
tests_unit_test_log_CPPFLAGS = $(COMMON_TEST_CPPFLAGS)
tests_unit_test_log_LDADD = $(COMMON_TEST_LIBS)

tests_unit_test_locked_SOURCES = tests/unit/test_locked.c
tests_unit_test_locked_CPPFLAGS = $(COMMON_TEST_CPPFLAGS)
tests_unit_test_locked_LDADD = $(COMMON_TEST_LIBS)

tests_unit_test_clock_SOURCES = tests/unit/test_clock.c
tests_unit_test_clock_CPPFLAGS = $(COMMON_TEST_CPPFLAGS)
tests_unit_test_clock_LDADD = $(COMMON_TEST_LIBS)

tests_unit_test_ipc_SOURCES = tests/unit/test_ipc.c
tests_unit_test_ipc_CPPFLAGS = $(COMMON_TEST_CPPFLAGS)
tests_unit_test_ipc_LDADD = $(COMMON_TEST_LIBS)
