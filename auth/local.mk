noinst_LIBRARIES += auth/libauth.a
auth_libauth_a_SOURCES = \
	auth/auth.h \
	auth/message.c \
	auth/master.c
auth_libauth_a_CPPFLAGS = $(AM_CPPFLAGS) $(EVENT_CFLAGS) $(JANSSON_CFLAGS)
# What a program needs to link besides libauth.a and libcommon.a.
AUTH_LIBS = $(PAM_LIBS) $(EVENT_LIBS) $(JANSSON_LIBS)
