#include "config.h"

#include "schema/db_vfs.h"

#include <sqlite3.h>
#include <string.h>

static sqlite3_vfs shim;

/* SQLite opens with O_NOFOLLOW, counting on the realpath() that does not happen here: a symbolic link is refused. */
static int full_pathname(sqlite3_vfs *vfs, const char *name, int size, char *out)
{
	size_t len = strlen(name);

	(void)vfs;
	if (size <= 0 || len >= (size_t)size)
		return SQLITE_CANTOPEN;
	memcpy(out, name, len + 1);
	return SQLITE_OK;
}

int db_vfs_register(void)
{
	if (sqlite3_vfs_find(DB_VFS_NAME) != NULL)
		return 0;
	const sqlite3_vfs *unix_vfs = sqlite3_vfs_find(NULL);

	if (unix_vfs == NULL)
		return -1;
	shim = *unix_vfs;
	shim.pNext = NULL;
	shim.zName = DB_VFS_NAME;
	shim.xFullPathname = full_pathname;
	return sqlite3_vfs_register(&shim, 0) == SQLITE_OK ? 0 : -1;
}
