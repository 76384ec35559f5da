sbin_PROGRAMS = gatewayd/gatewayd
gatewayd_gatewayd_SOURCES = \
	gatewayd/main.c \
	gatewayd/conf.c gatewayd/conf.h \
	gatewayd/check.c gatewayd/check.h \
	gatewayd/cpus.c gatewayd/cpus.h \
	gatewayd/supervisor/supervisor.c gatewayd/supervisor/supervisor.h gatewayd/supervisor/internal.h \
	gatewayd/supervisor/process.c \
	gatewayd/supervisor/links.c \
	gatewayd/supervisor/listen.c \
	gatewayd/supervisor/files.c \
	gatewayd/supervisor/requests.c gatewayd/supervisor/watch.c gatewayd/supervisor/groups.c \
	gatewayd/supervisor/gssapi.c \
	gatewayd/child.c gatewayd/child.h \
	gatewayd/privileges.c gatewayd/privileges.h gatewayd/priority.c gatewayd/priority.h \
	gatewayd/sandbox/sandbox.c gatewayd/sandbox/sandbox.h \
	gatewayd/sandbox/landlock.c gatewayd/sandbox/landlock.h \
	gatewayd/steering.c gatewayd/steering.h \
	gatewayd/worker/worker.c gatewayd/worker/worker.h \
	gatewayd/worker/steer.c gatewayd/worker/steer.h gatewayd/worker/recent.c gatewayd/worker/recent.h \
	gatewayd/worker/accept.c \
	gatewayd/worker/session.c gatewayd/worker/session.h \
	gatewayd/worker/pool.c gatewayd/worker/pool.h \
	gatewayd/worker/pipes.c gatewayd/worker/pipes.h \
	gatewayd/worker/sockets.c gatewayd/worker/sockets.h \
	gatewayd/worker/handshake.c \
	gatewayd/worker/socks5.c gatewayd/worker/socks5.h gatewayd/worker/request.h \
	gatewayd/worker/gss.c gatewayd/worker/gss.h \
	gatewayd/worker/gss_frame.c gatewayd/worker/gss_frame.h \
	gatewayd/worker/socks4.c gatewayd/worker/socks4.h \
	gatewayd/worker/front.c gatewayd/worker/front.h \
	gatewayd/worker/authenticate.c \
	gatewayd/worker/limits.c \
	gatewayd/worker/authorise.c \
	gatewayd/worker/resolver.c gatewayd/worker/resolver.h \
	gatewayd/worker/hosts.c gatewayd/worker/hosts.h \
	gatewayd/worker/name_cache.c gatewayd/worker/name_cache.h \
	gatewayd/worker/grant.c \
	gatewayd/worker/live.c gatewayd/worker/live.h gatewayd/worker/preview.c \
	gatewayd/worker/asked.c gatewayd/worker/asked.h \
	gatewayd/worker/detail.c \
	gatewayd/worker/fold.c gatewayd/worker/fold.h \
	gatewayd/worker/connect.c \
	gatewayd/worker/bind.c \
	gatewayd/worker/reply.c gatewayd/worker/reply.h gatewayd/worker/replies.def \
	gatewayd/worker/relay.c \
	gatewayd/worker/shared.c gatewayd/worker/shared.h \
	gatewayd/worker/udp.c gatewayd/worker/udp.h \
	gatewayd/worker/udp_flow.c \
	gatewayd/worker/udp_join.c gatewayd/worker/udp_join.h \
	gatewayd/recording.c gatewayd/recording.h \
	gatewayd/auth_roles.c \
	gatewayd/recorder/recorder.c \
	gatewayd/recorder/senders.c gatewayd/recorder/senders.h \
	gatewayd/recorder/batch.c gatewayd/recorder/batch.h \
	gatewayd/recorder/retention.c gatewayd/recorder/retention.h \
	gatewayd/reader/reader.c \
	gatewayd/reader/answer.c gatewayd/reader/answer.h \
	gatewayd/control/control.c gatewayd/control/internal.h \
	gatewayd/control/admin.c gatewayd/control/roles.c \
	gatewayd/control/policy.c \
	gatewayd/control/compile.c gatewayd/control/groups.c gatewayd/control/preview.c gatewayd/control/confirm.c gatewayd/control/keeper.c \
	gatewayd/control/tables.c \
	gatewayd/control/notes.c \
	gatewayd/control/revisions.c gatewayd/control/approvals.c \
	gatewayd/control/status.c \
	gatewayd/control/auth.c gatewayd/control/names.c gatewayd/control/looks.c \
	gatewayd/control/retention.c \
	gatewayd/control/running.c gatewayd/control/rates.c \
	gatewayd/control/sessions.c gatewayd/control/blocks.c \
	gatewayd/control/query.c \
	gatewayd/compiler/compiler.c gatewayd/compiler/compiler.h
gatewayd_gatewayd_CPPFLAGS = $(AM_CPPFLAGS) $(EVENT_CFLAGS) $(CARES_CFLAGS) $(JANSSON_CFLAGS) $(SODIUM_CFLAGS) $(CONFUSE_CFLAGS) \
	$(SECCOMP_CFLAGS) $(LIBCAP_CFLAGS) $(GSSAPI_CFLAGS)
gatewayd_gatewayd_LDADD = auth/libauth.a policy/libpolicy.a schema/libschema.a common/libcommon.a \
	$(AUTH_LIBS) $(POLICY_LIBS) $(SCHEMA_LIBS) $(EVENT_LIBS) $(CARES_LIBS) $(CONFUSE_LIBS) $(SECCOMP_LIBS) $(LIBCAP_LIBS) \
	$(SANITIZE_LIBS)
