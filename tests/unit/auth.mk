AUTH_TESTS = tests/unit/test_auth_message
check_PROGRAMS += $(AUTH_TESTS)

tests_unit_test_auth_message_SOURCES = tests/unit/test_auth_message.c
tests_unit_test_auth_message_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_auth_message_LDADD = auth/libauth.a common/libcommon.a $(AUTH_LIBS) $(CMOCKA_LIBS)

