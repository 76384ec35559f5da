#include "config.h"

#include "tests/unit/disk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include "schema/db_vfs.h"

#define SECTOR 512
#define FILES_MAX 64

/* ---- the disk -----------------------------------------------------------------------------------------------------
 */

struct pending {
	struct pending *next;
	sqlite3_int64 offset;
	size_t len; /* 0: a truncation to offset */
	unsigned char data[];
};

/* What is on the platter, and what is on its way there. */
struct platter {
	char name[64];
	unsigned char *synced;
	size_t len, room;
	struct pending *first, **last;
};

static struct {
	struct platter files[FILES_MAX];
	size_t nfiles;
	unsigned long ops;     /* writes, truncations and syncs so far */
	unsigned long fail_at; /* 0: never */
	bool lose_power;       /* at fail_at nothing works any more; else that one call fails */
	bool dark;
} disk;

static unsigned long long rng;

unsigned disk_below(unsigned n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (unsigned)((rng >> 20) % n);
}

static struct platter *platter_of(const char *name)
{
	for (size_t i = 0; i < disk.nfiles; i++)
		if (strcmp(disk.files[i].name, name) == 0)
			return &disk.files[i];
	struct platter *p = &disk.files[disk.nfiles++];

	assert_true(disk.nfiles <= FILES_MAX && strlen(name) < sizeof p->name);
	*p = (struct platter){0};
	strcpy(p->name, name);
	p->last = &p->first;
	/* What is there when it is first opened has been there for long. */
	int fd = open(name, O_RDONLY);
	struct stat st;

	if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size > 0) {
		p->synced = malloc((size_t)st.st_size);
		assert_int_equal(pread(fd, p->synced, (size_t)st.st_size, 0), st.st_size);
		p->len = p->room = (size_t)st.st_size;
	}
	if (fd >= 0)
		close(fd);
	return p;
}

static void resize(struct platter *p, size_t len)
{
	/* By doubling: with sanitizers each realloc() is a copy. */
	if (len >= p->room) {
		p->room = 2 * len + 1;
		p->synced = realloc(p->synced, p->room);
		assert_non_null(p->synced);
	}
	if (len > p->len)
		memset(p->synced + p->len, 0, len - p->len);
	p->len = len;
}

static void apply(struct platter *p, const struct pending *w, bool torn)
{
	if (w->len == 0) {
		resize(p, (size_t)w->offset);
		return;
	}
	if ((size_t)w->offset + w->len > p->len)
		resize(p, (size_t)w->offset + w->len);
	for (size_t at = 0; at < w->len; at += SECTOR)
		if (!torn || disk_below(2))
			memcpy(p->synced + w->offset + at, w->data + at, w->len - at < SECTOR ? w->len - at : SECTOR);
}

static void drain(struct platter *p, bool chance)
{
	struct pending *w;

	while ((w = p->first) != NULL) {
		unsigned fate = chance ? disk_below(4) : 0;

		if (fate != 3)
			apply(p, w, fate == 2);
		p->first = w->next;
		free(w);
	}
	p->last = &p->first;
}

static void note(struct platter *p, sqlite3_int64 offset, const void *data, size_t len)
{
	struct pending *w = malloc(sizeof *w + len);

	*w = (struct pending){.offset = offset, .len = len};
	if (len > 0)
		memcpy(w->data, data, len);
	*p->last = w;
	p->last = &w->next;
}

/* True if this call fails. */
static bool fails(void)
{
	if (disk.dark)
		return true;
	if (++disk.ops != disk.fail_at)
		return false;
	disk.dark = disk.lose_power;
	return true;
}

void disk_power_up(void)
{
	for (size_t i = 0; i < disk.nfiles; i++) {
		struct platter *p = &disk.files[i];

		drain(p, true);
		if (access(p->name, F_OK) == 0) {
			int fd = open(p->name, O_WRONLY | O_TRUNC);

			assert_true(fd >= 0);
			assert_int_equal(pwrite(fd, p->synced, p->len, 0), (ssize_t)p->len);
			close(fd);
		}
		char shm[80];

		snprintf(shm, sizeof shm, "%s-shm", p->name);
		unlink(shm);
	}
}

void disk_new(unsigned long fail_at, bool lose_power)
{
	for (size_t i = 0; i < disk.nfiles; i++) {
		drain(&disk.files[i], false);
		free(disk.files[i].synced);
	}
	memset(&disk, 0, sizeof disk);
	disk.fail_at = fail_at;
	disk.lose_power = lose_power;
}

/* ---- the VFS --------------------------------------------------------------------------------------------------------
 */

struct file {
	sqlite3_file base;
	struct platter *platter; /* NULL: a file without a name */
	sqlite3_file *real;
};

#define REAL(f) (((struct file *)(f))->real)

static int f_close(sqlite3_file *f)
{
	return REAL(f)->pMethods == NULL ? SQLITE_OK : REAL(f)->pMethods->xClose(REAL(f));
}

static int f_read(sqlite3_file *f, void *data, int n, sqlite3_int64 at)
{
	return REAL(f)->pMethods->xRead(REAL(f), data, n, at);
}

static int f_write(sqlite3_file *f, const void *data, int n, sqlite3_int64 at)
{
	struct platter *p = ((struct file *)f)->platter;

	if (p != NULL && fails())
		return SQLITE_IOERR_WRITE;
	if (p != NULL)
		note(p, at, data, (size_t)n);
	return REAL(f)->pMethods->xWrite(REAL(f), data, n, at);
}

static int f_truncate(sqlite3_file *f, sqlite3_int64 size)
{
	struct platter *p = ((struct file *)f)->platter;

	if (p != NULL && fails())
		return SQLITE_IOERR_TRUNCATE;
	if (p != NULL)
		note(p, size, NULL, 0);
	return REAL(f)->pMethods->xTruncate(REAL(f), size);
}

static int f_sync(sqlite3_file *f, int flags)
{
	struct platter *p = ((struct file *)f)->platter;

	(void)flags;
	if (p != NULL && fails())
		return SQLITE_IOERR_FSYNC;
	if (p != NULL)
		drain(p, false);
	return SQLITE_OK;
}

static int f_size(sqlite3_file *f, sqlite3_int64 *size)
{
	return REAL(f)->pMethods->xFileSize(REAL(f), size);
}

static int f_lock(sqlite3_file *f, int how)
{
	return REAL(f)->pMethods->xLock(REAL(f), how);
}

static int f_unlock(sqlite3_file *f, int how)
{
	return REAL(f)->pMethods->xUnlock(REAL(f), how);
}

static int f_reserved(sqlite3_file *f, int *out)
{
	return REAL(f)->pMethods->xCheckReservedLock(REAL(f), out);
}

static int f_control(sqlite3_file *f, int op, void *arg)
{
	return REAL(f)->pMethods->xFileControl(REAL(f), op, arg);
}

static int f_sector(sqlite3_file *f)
{
	(void)f;
	return SECTOR;
}

static int f_traits(sqlite3_file *f)
{
	(void)f;
	return 0; /* it promises nothing */
}

static int f_shm_map(sqlite3_file *f, int page, int size, int extend, void volatile **out)
{
	return REAL(f)->pMethods->xShmMap(REAL(f), page, size, extend, out);
}

static int f_shm_lock(sqlite3_file *f, int offset, int n, int flags)
{
	return REAL(f)->pMethods->xShmLock(REAL(f), offset, n, flags);
}

static void f_shm_barrier(sqlite3_file *f)
{
	REAL(f)->pMethods->xShmBarrier(REAL(f));
}

static int f_shm_unmap(sqlite3_file *f, int remove)
{
	return REAL(f)->pMethods->xShmUnmap(REAL(f), remove);
}

static const sqlite3_io_methods methods = {
	2,	   f_close,  f_read,   f_write,	  f_truncate, f_sync,	     f_size,	  f_lock, f_unlock, f_reserved,
	f_control, f_sector, f_traits, f_shm_map, f_shm_lock, f_shm_barrier, f_shm_unmap, NULL,	  NULL,
};

static sqlite3_vfs *unix_vfs, faulty;

static int v_open(sqlite3_vfs *vfs, sqlite3_filename name, sqlite3_file *file, int flags, int *out)
{
	struct file *f = (struct file *)file;
	int rc;

	(void)vfs;
	f->real = (sqlite3_file *)(f + 1);
	rc = unix_vfs->xOpen(unix_vfs, name, f->real, flags, out);
	f->base.pMethods = rc == SQLITE_OK ? &methods : NULL;
	f->platter = rc != SQLITE_OK || name == NULL ? NULL : platter_of(name);
	return rc;
}

static int v_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
	struct platter *p = platter_of(name);

	(void)vfs, (void)sync;
	if (fails())
		return SQLITE_IOERR_DELETE;
	drain(p, false);
	p->len = 0;
	return unix_vfs->xDelete(unix_vfs, name, 0);
}

static int v_path(sqlite3_vfs *vfs, const char *name, int size, char *out)
{
	(void)vfs;
	snprintf(out, (size_t)size, "%s", name);
	return SQLITE_OK;
}

void disk_install(void)
{
	unix_vfs = sqlite3_vfs_find(NULL);
	faulty = *unix_vfs;
	faulty.pNext = NULL;
	faulty.zName = DB_VFS_NAME;
	faulty.szOsFile = (int)sizeof(struct file) + unix_vfs->szOsFile;
	faulty.xOpen = v_open;
	faulty.xDelete = v_delete;
	faulty.xFullPathname = v_path;
	assert_int_equal(sqlite3_vfs_register(&faulty, 0), SQLITE_OK);
}

unsigned long disk_ops(void)
{
	return disk.ops;
}

bool disk_is_dark(void)
{
	return disk.dark;
}

void disk_seed(unsigned long long seed)
{
	rng = seed;
}
