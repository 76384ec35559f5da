/* A disk that loses what was not synced, in part and out of order, or fails once: what the store has acknowledged is
 * there afterwards, once, and the chain verifies.  The disk is a SQLite VFS in the place of ours (schema/db_vfs.h).
 * AUDIT_POWER_STEP: 1 tries every write, more tries every so-manieth; AUDIT_POWER_EVENTS: of a run of so many events. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <fcntl.h>
#include <ftw.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "schema/audit_query.h"
#include "schema/audit_store.h"
#include "schema/audit_verify.h"
#include "schema/db_vfs.h"
#include "tests/unit/scratch.h"

#define LARGE (1u << 30)
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
	size_t len;
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

static unsigned below(unsigned n)
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
		p->len = (size_t)st.st_size;
	}
	if (fd >= 0)
		close(fd);
	return p;
}

static void resize(struct platter *p, size_t len)
{
	p->synced = realloc(p->synced, len + 1);
	assert_non_null(p->synced);
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
		if (!torn || below(2))
			memcpy(p->synced + w->offset + at, w->data + at, w->len - at < SECTOR ? w->len - at : SECTOR);
}

static void drain(struct platter *p, bool chance)
{
	struct pending *w;

	while ((w = p->first) != NULL) {
		unsigned fate = chance ? below(4) : 0;

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

/* The power comes back: files are what the platter holds. */
static void power_up(void)
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

static void new_disk(unsigned long fail_at, bool lose_power)
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

static void install(void)
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

/* ---- a run
 * ------------------------------------------------------------------------------------------------------------ */

#define ROWS 3
#define EVENTS_FEW 81
#define EVENTS_MANY 1000
/* Of a long run, so many moments are chosen by chance, unless all are asked for. */
#define SAMPLES 40

static struct err why;
static uint64_t acknowledged;
static uint64_t commits; /* of each of the first two parts; the third has 3 */
static bool relaxed; /* nothing waits for the disk: then it does lose */
static unsigned lost;

static bool commit_one(struct audit_store *s, uint64_t from)
{
	static struct audit_event e;

	memset(&e, 0, sizeof e);
	if (audit_store_begin(s, &why) != 0)
		goto failed;
	for (uint64_t i = 1; i <= ROWS; i++) {
		e.kind = i == 1 ? AUDIT_OPEN : i == 2 ? AUDIT_CONNECTED : AUDIT_DENIED;
		e.session = from + i;
		e.time_us = clock_wall_us();
		strcpy(e.user, "ann");
		if (audit_store_append(s, 7, from + i, &e, &why) < 0)
			goto failed;
	}
	if (audit_store_commit(s, &why) != 0)
		goto failed;
	acknowledged = from + ROWS;
	return true;
failed:
	audit_store_rollback(s);
	return false;
}

/* Some commits; the last part in a new segment.  Retries what fails, as the recorder does; false: it fails for good. */
static bool run_part(int part)
{
	struct audit_store *s = NULL;
	bool fine = true;

	for (int tries = 0; s == NULL && tries < 3; tries++)
		s = audit_store_open(part == 2 ? 1 : LARGE, &why);
	if (s == NULL || (relaxed && audit_store_relax(s, &why) != 0)) {
		audit_store_close(&s);
		return false;
	}
	for (uint64_t from = acknowledged; fine && acknowledged < from + commits * ROWS;) {
		int tries = 0;

		while (!(fine = commit_one(s, acknowledged)) && ++tries < 4)
			;
		/* Checkpoints move pages while it goes on; in the new segment once only. */
		if (acknowledged == from + commits / 2 * ROWS)
			audit_store_checkpoint(s, &why);
		if (part == 2 && fine && acknowledged >= from + 3 * ROWS)
			break;
	}
	audit_store_close(&s);
	return fine;
}

static unsigned rows_seen;

static bool on_row(uint64_t id, const struct audit_event *e, void *arg)
{
	(void)id, (void)arg;
	rows_seen += e->user[0] != '\0' && e->kind != AUDIT_CHECKPOINT;
	return true;
}

static void on_finding(const char *text, void *arg)
{
	fail_msg("call %lu: %s", *(unsigned long *)arg, text);
}

/* What was acknowledged is there, once; what was not may be. */
static void check(unsigned long call)
{
	struct audit_keys keys;
	struct audit_verify_options o = {.keys = &keys, .finding = on_finding, .arg = &call};
	const struct audit_filter all = {0};
	struct audit_verified v;
	struct audit_store *s = audit_store_open(LARGE, &why);
	uint64_t last;

	if (s == NULL)
		fail_msg("call %lu: %s", call, why.text);
	assert_int_equal(audit_store_last(s, 7, &last, &why), 0);
	if (relaxed) {
		lost += last < acknowledged;
		audit_store_close(&s);
		return;
	}
	if (last < acknowledged || last % ROWS != 0)
		fail_msg("call %lu: %llu rows are there, %llu were acknowledged", call, (unsigned long long)last,
			 (unsigned long long)acknowledged);
	acknowledged = last;
	assert_true(commit_one(s, last)); /* and it goes on */
	audit_store_close(&s);
	struct audit_archive *a = audit_archive_open(&why);
	struct audit_query *q = audit_query_new(a, &all, &why);

	rows_seen = 0;
	while (audit_query_page(q, 1000, 1000000, on_row, NULL) == 1)
		;
	audit_query_free(&q);
	audit_archive_close(&a);
	assert_int_equal(rows_seen, acknowledged);
	assert_int_equal(audit_first_key_read("first.key", o.store, &keys, &why), 0);
	assert_int_equal(audit_verify(&o, &v, &why), 0);
}

static int drop(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)ftw;
	return type == FTW_F ? unlink(path) : 0;
}

static unsigned long run(unsigned long fail_at, bool lose_power)
{
	unsigned long ops;

	nftw(".", drop, 16, FTW_DEPTH | FTW_PHYS);
	acknowledged = 0;
	new_disk(fail_at, lose_power);
	bool fine = run_part(0) && run_part(1) && run_part(2);

	ops = disk.ops;
	if (!lose_power && !fine)
		fail_msg("call %lu: one failure, and it does not come back: %s", fail_at, why.text);
	if (lose_power && disk.dark)
		power_up();
	new_disk(0, false);
	check(fail_at);
	return ops;
}

static void run_of(uint64_t events, bool lose_power)
{
	const char *text = getenv("AUDIT_POWER_STEP");
	unsigned long step = text == NULL ? 7 : strtoul(text, NULL, 10), ops, runs = 0;

	commits = (events - 3 * ROWS + 2 * ROWS - 1) / (2 * ROWS);
	ops = run(0, false);

	assert_true(ops > 200);
	if (text == NULL && events == EVENTS_MANY)
		step = ops / SAMPLES;
	for (unsigned long at = 1 + below((unsigned)step); at <= ops; at += step, runs++)
		run(at, lose_power);
	print_message("%lu of %lu calls of a run of %lu events failed in turn\n", runs, ops, (unsigned long)events);
}

static void run_all(bool lose_power)
{
	const char *text = getenv("AUDIT_POWER_EVENTS");

	if (text != NULL) {
		run_of(strtoul(text, NULL, 10), lose_power);
		return;
	}
	run_of(EVENTS_FEW, lose_power);
	run_of(EVENTS_MANY, lose_power);
}

static void test_power_loss(void **state)
{
	(void)state;
	run_all(true);
}

/* Would this disk show it, if the store did not wait? */
static void test_without_waiting_rows_are_lost(void **state)
{
	(void)state;
	relaxed = true;
	run_all(true);
	relaxed = false;
	assert_true(lost > 10);
}

static void test_one_call_fails(void **state)
{
	(void)state;
	run_all(false);
}

static int setup(void **state)
{
	const char *seed = getenv("AUDIT_SEED");

	rng = seed != NULL ? strtoull(seed, NULL, 10) : 0x9e3779b97f4a7c15;
	log_init("test", LOG_ERROR);
	return scratch_enter(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_power_loss, setup, scratch_leave),
		cmocka_unit_test_setup_teardown(test_without_waiting_rows_are_lost, setup, scratch_leave),
		cmocka_unit_test_setup_teardown(test_one_call_fails, setup, scratch_leave),
	};

	install();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
