noinst_LIBRARIES += common/libcommon.a
common_libcommon_a_SOURCES = \
	common/err.c common/err.h \
	common/clock.c common/clock.h \
	common/addr.c common/addr.h \
	common/name.c common/name.h
common_libcommon_a_CFLAGS = $(AM_CFLAGS)
