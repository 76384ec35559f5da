noinst_LIBRARIES += auth/libauth.a
auth_libauth_a_SOURCES = \
	auth/auth.h \
	auth/message.c \
	auth/master.c \
	auth/limits.c auth/limits.h \
	auth/remember.c auth/remember.h \
	auth/throttle.c auth/throttle.h \
	auth/secrets.c auth/secrets.h \
	auth/child.c \
	auth/logins.c \
	auth/hangs.c auth/hangs.h \
	auth/asked_groups.c \
	auth/gss.c auth/gss.h \
	auth/gss_master.c auth/master.h \
	auth/pam.c auth/pam.h \
	auth/groups.c auth/groups.h
auth_libauth_a_CPPFLAGS = $(AM_CPPFLAGS) $(EVENT_CFLAGS) $(JANSSON_CFLAGS) $(SODIUM_CFLAGS) $(GSSAPI_CFLAGS)
# What a program needs to link besides libauth.a and libcommon.a.
AUTH_LIBS = $(PAM_LIBS) $(EVENT_LIBS) $(JANSSON_LIBS) $(SODIUM_LIBS) $(GSSAPI_LIBS)
EXTRA_DIST += packaging/pam/gatewayd
