POLICY_TESTS = tests/unit/test_addr tests/unit/test_name tests/unit/test_policy_parse tests/unit/test_policy_decide \
	tests/unit/test_policy_window tests/unit/test_policy_image tests/unit/test_policy_geo tests/unit/test_policy_files \
	tests/unit/test_policy_sources tests/unit/test_policy_literal tests/unit/test_policy_admit tests/unit/test_policy_findings \
	tests/unit/test_policy_bundle tests/unit/test_policy_edit tests/unit/test_policy_differential
check_PROGRAMS += $(POLICY_TESTS)
POLICY_TEST_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) $(PCRE2_CFLAGS) $(SODIUM_CFLAGS) \
	-DPOLICY_SOURCE_DIR='"$(abs_top_srcdir)"'
POLICY_TEST_LIBS = policy/libpolicy.a common/libcommon.a $(POLICY_LIBS) $(CMOCKA_LIBS)
POLICY_FIXTURE = tests/unit/policy_fixture.c tests/unit/policy_fixture.h

tests_unit_test_addr_SOURCES = tests/unit/test_addr.c
tests_unit_test_addr_CPPFLAGS = $(POLICY_TEST_CPPFLAGS)
tests_unit_test_addr_LDADD = $(POLICY_TEST_LIBS)

tests_unit_test_name_SOURCES = tests/unit/test_name.c
tests_unit_test_name_CPPFLAGS = $(POLICY_TEST_CPPFLAGS)
tests_unit_test_name_LDADD = $(POLICY_TEST_LIBS)

tests_unit_test_policy_parse_SOURCES = tests/unit/test_policy_parse.c $(POLICY_FIXTURE)
tests_unit_test_policy_parse_CPPFLAGS = $(POLICY_TEST_CPPFLAGS)
tests_unit_test_policy_parse_LDADD = $(POLICY_TEST_LIBS)

tests_unit_test_policy_decide_SOURCES = tests/unit/test_policy_decide.c $(POLICY_FIXTURE)
tests_unit_test_policy_decide_CPPFLAGS = $(POLICY_TEST_CPPFLAGS)
tests_unit_test_policy_decide_LDADD = $(POLICY_TEST_LIBS)

tests_unit_test_policy_edit_SOURCES = tests/unit/test_policy_edit.c $(POLICY_FIXTURE)
tests_unit_test_policy_edit_CPPFLAGS = $(POLICY_TEST_CPPFLAGS)
tests_unit_test_policy_edit_LDADD = $(POLICY_TEST_LIBS)

tests_unit_test_policy_bundle_SOURCES = tests/unit/test_policy_bundle.c
tests_unit_test_policy_bundle_CPPFLAGS = $(POLICY_TEST_CPPFLAGS)
tests_unit_test_policy_bundle_LDADD = $(POLICY_TEST_LIBS)

tests_unit_test_policy_window_SOURCES = tests/unit/test_policy_window.c $(POLICY_FIXTURE)
tests_unit_test_policy_window_CPPFLAGS = $(POLICY_TEST_CPPFLAGS)
tests_unit_test_policy_window_LDADD = $(POLICY_TEST_LIBS)

tests_unit_test_policy_image_SOURCES = tests/unit/test_policy_image.c $(POLICY_FIXTURE)
tests_unit_test_policy_image_CPPFLAGS = $(POLICY_TEST_CPPFLAGS)
tests_unit_test_policy_image_LDADD = $(POLICY_TEST_LIBS)

tests_unit_test_policy_geo_SOURCES = tests/unit/test_policy_geo.c $(POLICY_FIXTURE)
tests_unit_test_policy_geo_CPPFLAGS = $(POLICY_TEST_CPPFLAGS)
tests_unit_test_policy_geo_LDADD = $(POLICY_TEST_LIBS)

tests_unit_test_policy_files_SOURCES = tests/unit/test_policy_files.c $(POLICY_FIXTURE)
tests_unit_test_policy_files_CPPFLAGS = $(POLICY_TEST_CPPFLAGS)
tests_unit_test_policy_files_LDADD = $(POLICY_TEST_LIBS)

tests_unit_test_policy_admit_SOURCES = tests/unit/test_policy_admit.c $(POLICY_FIXTURE)
tests_unit_test_policy_admit_CPPFLAGS = $(POLICY_TEST_CPPFLAGS)
tests_unit_test_policy_admit_LDADD = $(POLICY_TEST_LIBS)
tests_unit_test_policy_sources_SOURCES = tests/unit/test_policy_sources.c $(POLICY_FIXTURE)
tests_unit_test_policy_sources_CPPFLAGS = $(POLICY_TEST_CPPFLAGS)
tests_unit_test_policy_sources_LDADD = $(POLICY_TEST_LIBS)

tests_unit_test_policy_findings_SOURCES = tests/unit/test_policy_findings.c $(POLICY_FIXTURE)
tests_unit_test_policy_findings_CPPFLAGS = $(POLICY_TEST_CPPFLAGS)
tests_unit_test_policy_findings_LDADD = $(POLICY_TEST_LIBS)

tests_unit_test_policy_literal_SOURCES = tests/unit/test_policy_literal.c
tests_unit_test_policy_literal_CPPFLAGS = $(POLICY_TEST_CPPFLAGS)
tests_unit_test_policy_literal_LDADD = $(POLICY_TEST_LIBS)

# POLICY_PAIRS and POLICY_SEED in the environment choose how many and which.
tests_unit_test_policy_differential_SOURCES = tests/policy/differential.c tests/policy/reference.c tests/policy/reference.h
tests_unit_test_policy_differential_CPPFLAGS = $(POLICY_TEST_CPPFLAGS)
tests_unit_test_policy_differential_LDADD = $(POLICY_TEST_LIBS)

EXTRA_DIST += doc/PERFORMANCE.md tests/policy/good tests/policy/bad tests/policy/make-mmdb.pl packaging/examples/small-office.policy \
	packaging/examples/bank.policy packaging/examples/build-farm.policy packaging/examples/ai-agent-sandbox.policy
