AUTH_TESTS = tests/unit/test_auth_message tests/unit/test_auth_master
check_PROGRAMS += $(AUTH_TESTS)

tests_unit_test_auth_message_SOURCES = tests/unit/test_auth_message.c
tests_unit_test_auth_message_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_auth_message_LDADD = auth/libauth.a common/libcommon.a $(AUTH_LIBS) $(CMOCKA_LIBS)

tests_unit_test_auth_master_SOURCES = tests/unit/test_auth_master.c
tests_unit_test_auth_master_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) $(EVENT_CFLAGS) $(JANSSON_CFLAGS)
tests_unit_test_auth_master_LDADD = auth/libauth.a common/libcommon.a $(AUTH_LIBS) $(CMOCKA_LIBS)

