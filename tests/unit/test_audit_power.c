/* A disk that loses what was not synced, in part and out of order, or fails once: what the store has acknowledged is
 * there afterwards, once, and the chain verifies.  The disk is a SQLite VFS in the place of ours (schema/db_vfs.h).
 * AUDIT_POWER_STEP: 1 tries every write, more tries every so-manieth; AUDIT_POWER_EVENTS: of a run of so many events.
 */
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
#include "tests/unit/disk.h"
#include "tests/unit/scratch.h"

#define LARGE (1u << 30)

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
static bool relaxed;	 /* nothing waits for the disk: then it does lose */
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
	disk_new(fail_at, lose_power);
	bool fine = run_part(0) && run_part(1) && run_part(2);

	ops = disk_ops();
	if (!lose_power && !fine)
		fail_msg("call %lu: one failure, and it does not come back: %s", fail_at, why.text);
	if (lose_power && disk_is_dark())
		disk_power_up();
	disk_new(0, false);
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
	for (unsigned long at = 1 + disk_below((unsigned)step); at <= ops; at += step, runs++)
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

	disk_seed(seed != NULL ? strtoull(seed, NULL, 10) : 0x9e3779b97f4a7c15);
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

	disk_install();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
