AUTH_TESTS = tests/unit/test_limits tests/unit/test_gss_master tests/unit/test_throttle tests/unit/test_hangs tests/unit/test_remember tests/unit/test_auth_message tests/unit/test_auth_master tests/unit/test_auth_pam
check_PROGRAMS += $(AUTH_TESTS)

tests_unit_test_auth_message_SOURCES = tests/unit/test_auth_message.c
tests_unit_test_auth_message_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_auth_message_LDADD = auth/libauth.a common/libcommon.a $(AUTH_LIBS) $(CMOCKA_LIBS)

tests_unit_test_auth_master_SOURCES = tests/unit/test_auth_master.c
tests_unit_test_auth_master_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) $(EVENT_CFLAGS) $(JANSSON_CFLAGS)
tests_unit_test_auth_master_LDADD = auth/libauth.a common/libcommon.a $(AUTH_LIBS) $(CMOCKA_LIBS)

tests_unit_test_auth_pam_SOURCES = tests/unit/test_auth_pam.c
tests_unit_test_auth_pam_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) -DTEST_MODULE='"$(abs_top_builddir)/tests/unit/pam_asks.so"'
tests_unit_test_auth_pam_LDADD = auth/libauth.a common/libcommon.a $(AUTH_LIBS) $(CMOCKA_LIBS) -lcrypt
EXTRA_tests_unit_test_auth_pam_DEPENDENCIES = tests/unit/pam_asks.so

# Loaded by libpam as any module is: not instrumented, not linked to us.
tests/unit/pam_asks.so: $(top_srcdir)/tests/unit/pam_asks.c
	$(AM_V_CC)$(MKDIR_P) tests/unit && $(CC) -D_GNU_SOURCE $(WARN_CFLAGS) -Wno-missing-prototypes $(CFLAGS) -fPIC -shared \
		-o $@ $(top_srcdir)/tests/unit/pam_asks.c $(PAM_LIBS)
CLEANFILES += tests/unit/pam_asks.so
EXTRA_DIST += tests/unit/pam_asks.c

tests_unit_test_limits_SOURCES = tests/unit/test_limits.c
tests_unit_test_limits_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_limits_LDADD = auth/libauth.a common/libcommon.a $(AUTH_LIBS) $(CMOCKA_LIBS)

tests_unit_test_throttle_SOURCES = tests/unit/test_throttle.c
tests_unit_test_throttle_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_throttle_LDADD = auth/libauth.a common/libcommon.a $(AUTH_LIBS) $(CMOCKA_LIBS)

tests_unit_test_hangs_SOURCES = tests/unit/test_hangs.c
tests_unit_test_hangs_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_hangs_LDADD = auth/libauth.a common/libcommon.a $(AUTH_LIBS) $(CMOCKA_LIBS)

tests_unit_test_remember_SOURCES = tests/unit/test_remember.c
tests_unit_test_remember_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_remember_LDADD = auth/libauth.a common/libcommon.a $(AUTH_LIBS) $(CMOCKA_LIBS)

tests_unit_test_gss_master_SOURCES = tests/unit/test_gss_master.c
tests_unit_test_gss_master_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) $(EVENT_CFLAGS) $(JANSSON_CFLAGS)
tests_unit_test_gss_master_LDADD = auth/libauth.a common/libcommon.a $(AUTH_LIBS) $(CMOCKA_LIBS)
