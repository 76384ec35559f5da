/* A disk that loses what was not synced, in part and out of order, or fails once: a SQLite VFS in the place of ours
 * (schema/db_vfs.h). */
#pragma once

#include <stdbool.h>

/* Once a process. */
void disk_install(void);
/* A new one, whose fail_at-th write, truncation or sync fails (0: none does); lose_power: and nothing works from then on. */
void disk_new(unsigned long fail_at, bool lose_power);
/* The power comes back: files are what the platter holds; what was not synced is there by chance. */
void disk_power_up(void);
/* Writes, truncations and syncs so far. */
unsigned long disk_ops(void);
bool disk_is_dark(void);
void disk_seed(unsigned long long seed);
/* A number below n, by chance. */
unsigned disk_below(unsigned n);
