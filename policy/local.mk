noinst_LIBRARIES += policy/libpolicy.a
policy_libpolicy_a_SOURCES = \
	policy/policy.h \
	policy/lex.l policy/parse.y policy/parse_priv.h policy/words.c policy/words.h \
	policy/ast.c policy/ast.h policy/diag.c policy/diag.h policy/print.c \
	policy/value.c policy/value.h policy/check.c policy/check.h \
	policy/zone.c policy/zone.h \
	policy/compile.c policy/blob.c policy/blob.h policy/index_build.c policy/index_build.h \
	policy/image.c policy/image.h policy/index.c policy/index.h policy/hash.h policy/filter.h policy/guide.h policy/ranges.h \
	policy/literal.c policy/literal.h policy/literal_build.c policy/literal_build.h \
	policy/admit.c policy/window.c policy/window.h policy/guard.c policy/guard.h policy/geo.c policy/geo_priv.h \
	policy/decide.c policy/decide.h policy/explain.c policy/expect.c \
	policy/sample.c policy/sample.h policy/findings.c policy/diff.c policy/diff_said.c policy/diff_said.h \
	policy/bundle.c policy/bundle.h policy/edit.c policy/edit.h
policy_libpolicy_a_CFLAGS = $(AM_CFLAGS) $(PCRE2_CFLAGS) $(IDN2_CFLAGS) $(MAXMINDDB_CFLAGS) $(SODIUM_CFLAGS) $(JANSSON_CFLAGS)
# What a program needs to link besides libpolicy.a and libcommon.a.
POLICY_LIBS = $(PCRE2_LIBS) $(IDN2_LIBS) $(MAXMINDDB_LIBS) $(SODIUM_LIBS) $(JANSSON_LIBS)
BUILT_SOURCES += policy/parse.h
policy/libpolicy_a-lex.$(OBJEXT) policy/libpolicy_a-words.$(OBJEXT): policy/parse.h
dist_man_MANS += doc/gateway-policy.5
