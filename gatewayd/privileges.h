/* Giving up what a role does not need, for good. */
#pragma once

#include <stdbool.h>

#include "common/err.h"

/* When this process is root: becomes `user` with its primary group and no other, without capabilities, for ever.  Not root:
 * does nothing.  `user` "root" keeps the uid (PAM modules that read shadow). */
int privileges_drop(const char *user, struct err *why);
/* The supervisor, when root: keeps only the capabilities that starting its children takes. */
int privileges_limit_supervisor(struct err *why);
