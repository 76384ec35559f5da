/* The way to the disk: SQLite's own VFS with one difference.  A file name stays as it was given, so that a database
 * named relative to the current directory is opened there even by a process that may not look at the directories above
 * it (a state directory below a 0700 home, privileges dropped).  SQLite would ask realpath(3), and fail.
 *
 * The current directory must not change while a database is open.  Faults for tests enter here, too. */
#pragma once

#define DB_VFS_NAME "gatewayd"

/* Registers the VFS, once a process; 0 or -1. */
int db_vfs_register(void);
