noinst_LIBRARIES += common/libcommon.a
common_libcommon_a_SOURCES = \
	common/err.c common/err.h \
	common/clock.c common/clock.h \
	common/text.c common/text.h \
	common/log.c common/log.h \
	common/addr.c common/addr.h \
	common/name.c common/name.h \
	common/role.c common/role.h \
	common/wire.c common/wire.h \
	common/sealed.c common/sealed.h \
	common/locked.c common/locked.h \
	common/rights.c common/rights.h \
	common/ipc.c common/ipc.h common/ipc.def
common_libcommon_a_CPPFLAGS = $(AM_CPPFLAGS) $(EVENT_CFLAGS)
