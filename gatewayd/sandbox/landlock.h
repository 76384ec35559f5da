#pragma once

#include <stdbool.h>

#include "common/err.h"

/* Denies every path to this process.  With keep_cwd, files below the current directory stay usable; below readable (NULL:
 * none; no error if it does not exist) they stay readable.  0 also where the kernel has no Landlock (logged). */
int landlock_close(bool keep_cwd, const char *readable, struct err *why);
