# GW_ADD_FLAG(VARIABLE, FLAG): appends FLAG to VARIABLE if the compiler and linker take it.
AC_DEFUN([GW_ADD_FLAG], [
  AC_MSG_CHECKING([whether $CC takes $2])
  gw_saved_cflags=$CFLAGS
  CFLAGS="$CFLAGS -Werror $2"
  AC_LINK_IFELSE([AC_LANG_PROGRAM([], [])],
    [AC_MSG_RESULT([yes]); $1="$$1 $2"], [AC_MSG_RESULT([no])])
  CFLAGS=$gw_saved_cflags
])

AC_DEFUN([GW_WARNINGS], [
  AC_ARG_ENABLE([werror], [AS_HELP_STRING([--enable-werror], [treat warnings as errors (CI does)])], [], [enable_werror=no])
  WARN_CFLAGS=
  for flag in -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wformat=2 -Wpointer-arith \
    -Wundef -Wvla -Wwrite-strings -Wimplicit-fallthrough -Wno-missing-field-initializers; do
    GW_ADD_FLAG([WARN_CFLAGS], [$flag])
  done
  AS_IF([test "x$enable_werror" = xyes], [WARN_CFLAGS="$WARN_CFLAGS -Werror"])
  AC_SUBST([WARN_CFLAGS])
])

AC_DEFUN([GW_HARDENING], [
  HARDENING_CFLAGS=
  HARDENING_LDFLAGS=
  for flag in -fstack-protector-strong -fstack-clash-protection -fcf-protection -ftrivial-auto-var-init=zero -fno-strict-aliasing -fPIE; do
    GW_ADD_FLAG([HARDENING_CFLAGS], [$flag])
  done
  for flag in -pie -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack; do
    GW_ADD_FLAG([HARDENING_LDFLAGS], [$flag])
  done
  AC_SUBST([HARDENING_CFLAGS])
  AC_SUBST([HARDENING_LDFLAGS])
])

AC_DEFUN([GW_SANITIZERS], [
  AC_ARG_ENABLE([sanitizers], [AS_HELP_STRING([--enable-sanitizers], [build with AddressSanitizer and UndefinedBehaviorSanitizer])], [], [enable_sanitizers=no])
  SANITIZE_CFLAGS=
  SANITIZE_LIBS=
  AS_IF([test "x$enable_sanitizers" = xyes], [
    SANITIZE_CFLAGS="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer"
    # PAM modules load libcrypt late: AddressSanitizer's crypt_r(3) then calls a null pointer, unless it is there from the start.
    SANITIZE_LIBS="-Wl,--push-state,--no-as-needed -lcrypt -Wl,--pop-state"
    AC_DEFINE([GW_SANITIZED], [1], [Built with sanitizers, whose runtime needs more system calls than ours])
  ], [HARDENING_CFLAGS="$HARDENING_CFLAGS -D_FORTIFY_SOURCE=2"])
  AC_SUBST([SANITIZE_CFLAGS])
  AC_SUBST([SANITIZE_LIBS])
])
