/* The walls around a role: no new privileges, a list of allowed system calls (seccomp), and no files (Landlock). */
#pragma once

#include "common/err.h"
#include "common/role.h"

/* For the rest of this process' life.  Everything a role needs to open by path, it has opened before, but for one file that it may
 * read again (NULL: none).  A kernel without
 * Landlock is logged and accepted; a system-call filter that cannot be installed is a failure. */
int sandbox_enter(enum role role, const char *file, struct err *why);
