/* The walls around a role: no new privileges, a list of allowed system calls (seccomp), and no files (Landlock). */
#pragma once

#include <stdbool.h>

#include "common/err.h"
#include "common/role.h"

/* For the rest of this process' life.  Everything a role needs to open by path, it has opened before.  looks: it may look at paths
 * (stat(2), access(2)) without opening any, as libkrb5 does each time it is used.  A kernel without Landlock is logged and accepted; a
 * system-call filter that cannot be installed is a failure. */
int sandbox_enter(enum role role, bool looks, struct err *why);
