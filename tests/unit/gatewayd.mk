check_PROGRAMS += tests/unit/test_conf tests/unit/test_recording tests/unit/test_fold tests/unit/test_socks4 tests/unit/test_socks5 tests/unit/test_hosts \
	tests/unit/test_gss_frame tests/unit/test_sandbox tests/unit/test_steering tests/unit/test_live \
	tests/unit/test_reply tests/unit/test_asked tests/unit/test_pool tests/unit/test_pipes tests/unit/test_sockets tests/unit/test_resolver \
	tests/unit/test_name_cache tests/unit/test_udp_join tests/unit/test_detail tests/unit/test_shared
GATEWAYD_TEST_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) $(EVENT_CFLAGS) $(SODIUM_CFLAGS) $(CONFUSE_CFLAGS) $(CARES_CFLAGS)

tests_unit_test_conf_SOURCES = tests/unit/test_conf.c gatewayd/conf.c
tests_unit_test_conf_CPPFLAGS = $(GATEWAYD_TEST_CPPFLAGS)
tests_unit_test_conf_LDADD = auth/libauth.a common/libcommon.a $(AUTH_LIBS) $(CONFUSE_LIBS) $(CMOCKA_LIBS)

tests_unit_test_sandbox_SOURCES = tests/unit/test_sandbox.c gatewayd/sandbox/sandbox.c gatewayd/sandbox/landlock.c
tests_unit_test_sandbox_CPPFLAGS = $(GATEWAYD_TEST_CPPFLAGS) $(SECCOMP_CFLAGS)
tests_unit_test_sandbox_LDADD = common/libcommon.a $(SECCOMP_LIBS) $(CMOCKA_LIBS)

tests_unit_test_fold_SOURCES = tests/unit/test_fold.c gatewayd/worker/fold.c
tests_unit_test_fold_CPPFLAGS = $(GATEWAYD_TEST_CPPFLAGS) $(JANSSON_CFLAGS)
tests_unit_test_fold_LDADD = schema/libschema.a common/libcommon.a $(SCHEMA_LIBS) $(EVENT_LIBS) $(CMOCKA_LIBS)

tests_unit_test_steering_SOURCES = tests/unit/test_steering.c gatewayd/steering.c
tests_unit_test_steering_CPPFLAGS = $(GATEWAYD_TEST_CPPFLAGS) $(JANSSON_CFLAGS)
tests_unit_test_steering_LDADD = schema/libschema.a common/libcommon.a $(SCHEMA_LIBS) $(EVENT_LIBS) $(CMOCKA_LIBS)

tests_unit_test_live_SOURCES = tests/unit/test_live.c gatewayd/worker/live.c gatewayd/worker/reply.c gatewayd/worker/shared.c
tests_unit_test_live_CPPFLAGS = $(gatewayd_gatewayd_CPPFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_live_LDADD = common/libcommon.a $(EVENT_LIBS) $(SODIUM_LIBS) $(CMOCKA_LIBS)

tests_unit_test_recording_SOURCES = tests/unit/test_recording.c gatewayd/recording.c
tests_unit_test_recording_CPPFLAGS = $(GATEWAYD_TEST_CPPFLAGS)
tests_unit_test_recording_LDADD = schema/libschema.a common/libcommon.a $(SCHEMA_LIBS) $(EVENT_LIBS) $(CMOCKA_LIBS)

tests_unit_test_socks4_SOURCES = tests/unit/test_socks4.c gatewayd/worker/socks4.c gatewayd/worker/front.c gatewayd/worker/socks5.c \
	gatewayd/worker/reply.c
tests_unit_test_socks4_CPPFLAGS = $(GATEWAYD_TEST_CPPFLAGS)
tests_unit_test_socks4_LDADD = common/libcommon.a $(CMOCKA_LIBS)

tests_unit_test_socks5_SOURCES = tests/unit/test_socks5.c gatewayd/worker/socks5.c gatewayd/worker/reply.c
tests_unit_test_socks5_CPPFLAGS = $(GATEWAYD_TEST_CPPFLAGS)
tests_unit_test_socks5_LDADD = common/libcommon.a $(CMOCKA_LIBS)

tests_unit_test_hosts_SOURCES = tests/unit/test_hosts.c gatewayd/worker/hosts.c
tests_unit_test_hosts_CPPFLAGS = $(GATEWAYD_TEST_CPPFLAGS)
tests_unit_test_hosts_LDADD = common/libcommon.a $(CMOCKA_LIBS)

tests_unit_test_reply_SOURCES = tests/unit/test_reply.c gatewayd/worker/reply.c
tests_unit_test_reply_CPPFLAGS = $(GATEWAYD_TEST_CPPFLAGS)
tests_unit_test_reply_LDADD = common/libcommon.a $(CMOCKA_LIBS)

tests_unit_test_pool_SOURCES = tests/unit/test_pool.c gatewayd/worker/pool.c
tests_unit_test_pool_CPPFLAGS = $(GATEWAYD_TEST_CPPFLAGS)
tests_unit_test_pool_LDADD = common/libcommon.a $(CMOCKA_LIBS)

tests_unit_test_pipes_SOURCES = tests/unit/test_pipes.c gatewayd/worker/pipes.c
tests_unit_test_pipes_CPPFLAGS = $(GATEWAYD_TEST_CPPFLAGS)
tests_unit_test_pipes_LDADD = $(CMOCKA_LIBS)

tests_unit_test_shared_SOURCES = tests/unit/test_shared.c gatewayd/worker/shared.c
tests_unit_test_shared_CPPFLAGS = $(GATEWAYD_TEST_CPPFLAGS)
tests_unit_test_shared_LDFLAGS = -Wl,--wrap=calloc
tests_unit_test_shared_LDADD = $(SODIUM_LIBS) $(CMOCKA_LIBS)

tests_unit_test_detail_SOURCES = tests/unit/test_detail.c gatewayd/worker/detail.c
tests_unit_test_detail_CPPFLAGS = $(gatewayd_gatewayd_CPPFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_detail_LDADD = schema/libschema.a common/libcommon.a $(SCHEMA_LIBS) $(JANSSON_LIBS) $(CMOCKA_LIBS)

tests_unit_test_udp_join_SOURCES = tests/unit/test_udp_join.c gatewayd/worker/udp_join.c
tests_unit_test_udp_join_CPPFLAGS = $(GATEWAYD_TEST_CPPFLAGS)
tests_unit_test_udp_join_LDADD = $(CMOCKA_LIBS)

tests_unit_test_sockets_SOURCES = tests/unit/test_sockets.c gatewayd/worker/sockets.c
tests_unit_test_sockets_CPPFLAGS = $(GATEWAYD_TEST_CPPFLAGS)
tests_unit_test_sockets_LDADD = $(EVENT_LIBS) $(CMOCKA_LIBS)

tests_unit_test_resolver_SOURCES = tests/unit/test_resolver.c gatewayd/worker/resolver.c gatewayd/worker/hosts.c \
	gatewayd/worker/name_cache.c
tests_unit_test_resolver_CPPFLAGS = $(GATEWAYD_TEST_CPPFLAGS)
tests_unit_test_resolver_LDADD = common/libcommon.a $(CARES_LIBS) $(EVENT_LIBS) $(SODIUM_LIBS) $(CMOCKA_LIBS)

tests_unit_test_name_cache_SOURCES = tests/unit/test_name_cache.c gatewayd/worker/name_cache.c
tests_unit_test_name_cache_CPPFLAGS = $(GATEWAYD_TEST_CPPFLAGS)
tests_unit_test_name_cache_LDADD = common/libcommon.a $(SODIUM_LIBS) $(CMOCKA_LIBS)

tests_unit_test_gss_frame_SOURCES = tests/unit/test_gss_frame.c gatewayd/worker/gss_frame.c
tests_unit_test_gss_frame_CPPFLAGS = $(GATEWAYD_TEST_CPPFLAGS)
tests_unit_test_gss_frame_LDADD = common/libcommon.a $(CMOCKA_LIBS)

tests_unit_test_asked_SOURCES = tests/unit/test_asked.c tests/unit/policy_fixture.c tests/unit/policy_fixture.h gatewayd/worker/asked.c
tests_unit_test_asked_CPPFLAGS = $(GATEWAYD_TEST_CPPFLAGS) $(PCRE2_CFLAGS)
tests_unit_test_asked_LDADD = policy/libpolicy.a common/libcommon.a $(POLICY_LIBS) $(CMOCKA_LIBS)
