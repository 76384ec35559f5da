/* The chain, its segments, and who rewrites them: with everything but the key. */
#include "config.h"

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

#include "common/clock.h"
#include "common/log.h"
#include "schema/audit_query.h"
#include "schema/audit_segment.h"
#include "schema/audit_store.h"
#include "schema/audit_verify.h"
#include "schema/migrations.h"
#include "tests/unit/scratch.h"

#define LARGE (1u << 30)

static struct err why;

/* ---- a store ---------------------------------------------------------------------------------------------------- */

static struct audit_store *must_open(uint64_t segment_bytes)
{
	struct audit_store *s = audit_store_open(segment_bytes, &why);

	if (s == NULL)
		fail_msg("%s", why.text);
	return s;
}

static void event_of(struct audit_event *e, enum audit_kind kind, uint64_t session)
{
	memset(e, 0, sizeof *e);
	e->kind = kind;
	e->session = session;
	e->time_us = clock_wall_us();
	e->client = (struct endpoint){.addr = addr_v4(0xc0000201), .port = 40000};
	e->address = (struct endpoint){.addr = addr_v4(0xcb007107), .port = 443};
	e->revision = 3;
	strcpy(e->user, "ann");
	strcpy(e->name, "a.example");
	strcpy(e->rule, "web");
	strcpy(e->detail, "{}");
}

static uint64_t sequences[8];

/* One commit of so many rows from one of a few processes. */
static void commit_rows(struct audit_store *s, unsigned rows, uint64_t sender, enum audit_kind kind,
			uint64_t first_session)
{
	static struct audit_event e;

	assert_int_equal(audit_store_begin(s, &why), 0);
	for (unsigned i = 0; i < rows; i++) {
		event_of(&e, kind, first_session + i);
		assert_int_equal(audit_store_append(s, 100 + sender, ++sequences[sender], &e, &why), 1);
	}
	if (audit_store_commit(s, &why) != 0)
		fail_msg("%s", why.text);
}

/* Sessions that begin, some that end, in two processes; some stay open. */
static void fill(struct audit_store *s)
{
	for (uint64_t i = 0; i < 10; i++) {
		commit_rows(s, 5, i % 2, AUDIT_OPEN, 1000 * i + 1);
		commit_rows(s, 5, i % 2, AUDIT_CONNECTED, 1000 * i + 1);
		commit_rows(s, 4, i % 2, AUDIT_ENDED, 1000 * i + 1);
		commit_rows(s, 3, i % 2, AUDIT_DENIED, 1000 * i + 501);
	}
}

/* So many commits as an epoch has, and its end; for once nothing waits for the disk. */
static void end_epoch(struct audit_store *s)
{
	assert_int_equal(audit_store_relax(s, &why), 0);
	for (int i = 0; i < 10000; i++)
		commit_rows(s, 1, 0, AUDIT_DENIED, 1);
	assert_int_equal(audit_store_tick(s, &why), 0);
}

/* ---- verifying -------------------------------------------------------------------------------------------------- */

static struct {
	char first[700];
	unsigned n;
} found;

static void on_finding(const char *text, void *arg)
{
	(void)arg;
	if (found.n++ == 0)
		snprintf(found.first, sizeof found.first, "%s", text);
}

static struct audit_verified verify_with(const struct audit_anchor *anchors, size_t nanchors)
{
	struct audit_keys keys;
	struct audit_verify_options o = {
		.keys = &keys, .finding = on_finding, .anchors = anchors, .nanchors = nanchors};
	struct audit_verified v;

	found.n = 0;
	found.first[0] = '\0';
	if (audit_first_key_read("first.key", o.store, &keys, &why) != 0 || audit_verify(&o, &v, &why) != 0)
		fail_msg("%s", why.text);
	assert_int_equal(v.findings < 100 ? v.findings : 100, found.n); /* so many are told, all are counted */
	return v;
}

static struct audit_verified verify(void)
{
	return verify_with(NULL, 0);
}

static struct audit_verified must_be_sound(void)
{
	struct audit_verified v = verify();

	if (v.findings != 0)
		fail_msg("%u findings, the first: %s", found.n, found.first);
	return v;
}

static void must_find(const char *part)
{
	verify();
	if (found.n == 0 || strstr(found.first, part) == NULL)
		fail_msg("%u findings, the first \"%s\" has no \"%s\"", found.n, found.first, part);
}

static void sql(const char *file, const char *text)
{
	sqlite3 *handle;

	assert_int_equal(sqlite3_open(file, &handle), SQLITE_OK);
	if (sqlite3_exec(handle, text, NULL, NULL, NULL) != SQLITE_OK)
		fail_msg("%s: %s", text, sqlite3_errmsg(handle));
	assert_int_equal(sqlite3_close(handle), SQLITE_OK);
}

static void copy(const char *from, const char *to)
{
	char buf[65536];
	int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	ssize_t n;

	assert_true(in >= 0 && out >= 0);
	while ((n = read(in, buf, sizeof buf)) > 0)
		assert_int_equal(write(out, buf, (size_t)n), n);
	close(in);
	close(out);
}

/* ---- sound ----------------------------------------------------------------------------------------------------------
 */

static void test_sound(void **state)
{
	struct audit_store *s = must_open(LARGE);
	struct audit_verified v;

	(void)state;
	must_be_sound(); /* empty */
	fill(s);
	v = must_be_sound(); /* while it is written */
	assert_int_equal(v.rows, 170);
	assert_int_equal(v.segments, 1);
	audit_store_close(&s);
	must_be_sound();
	s = must_open(LARGE);
	commit_rows(s, 1, 0, AUDIT_ENDED, 5);
	audit_store_close(&s);
	v = must_be_sound();
	assert_int_equal(v.rows, 171);
}

static bool gone(uint64_t incarnation, void *arg)
{
	(void)arg;
	return incarnation == 100;
}

/* ---- rows that wait for others, to be written with them ---- */

#define RUN 200
static struct audit_row run_rows[RUN];
static uint8_t run_bodies[RUN][32768];

/* What is absent, what is as long as can be, a session, a flow. */
static void receive(unsigned i, uint64_t sequence)
{
	static struct audit_event e;
	struct wire_writer w = wire_writer_on(run_bodies[i], sizeof run_bodies[i]);
	uint64_t incarnation, n;

	event_of(&e, i % 4 == 3 ? AUDIT_FLOW : AUDIT_OPEN, 1 + i);
	if (i % 4 == 0)
		e = (struct audit_event){0};
	if (i % 4 == 1) {
		e.kind = AUDIT_DENIED;
		memset(e.listener, 'l', sizeof e.listener - 1);
		memset(e.user, 0xff, sizeof e.user - 1);
		memset(e.name, 'n', sizeof e.name - 1);
		memset(e.reason, '\x01', sizeof e.reason - 1);
		memset(e.detail, 'd', sizeof e.detail - 1);
		e.client.addr = (struct addr){.family = ADDR_V6, .bytes = {0x20, 1, [15] = 1}};
	}
	audit_put_record(&w, 100, sequence, &e);
	assert_false(w.overflow);
	struct wire_reader r = wire_reader_on(run_bodies[i], w.len);

	assert_true(audit_row_get_record(&r, &incarnation, &n, &run_rows[i]));
}

/* So many, each of which comes twice. */
static int append_run(struct audit_store *s, unsigned n, uint64_t first)
{
	assert_int_equal(audit_store_begin(s, &why), 0);
	for (unsigned i = 0; i < n; i++) {
		receive(i, first + i);
		int rc = audit_store_append_row(s, 100, first + i, &run_rows[i], &why);

		if (rc != 1)
			return rc;
		assert_int_equal(audit_store_append_row(s, 100, first + i, &run_rows[i], &why), 0);
	}
	return 0;
}

static void test_runs_of_rows(void **state)
{
	static const unsigned sizes[] = {1, 63, 64, 65, 128, RUN};
	static struct audit_event note = {.kind = AUDIT_START};
	struct audit_store *s = must_open(LARGE);
	struct audit_settling at = {.lost = gone};
	uint64_t sequence = 1, rows = 0;
	unsigned lost;

	(void)state;
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		/* Taken back, with a row among them that cannot be, and again as it should be. */
		append_run(s, sizes[i], sequence);
		audit_store_rollback(s);
		assert_int_equal(append_run(s, sizes[i], sequence), 0);
		run_rows[0].values[COL_USER].type = DB_OTHER;
		if (sizes[i] <= 64)
			assert_int_equal(audit_store_commit(s, &why), -1);
		audit_store_rollback(s);
		assert_int_equal(append_run(s, sizes[i], sequence), 0);
		if (audit_store_commit(s, &why) != 0)
			fail_msg("%s", why.text);
		sequence += sizes[i];
		rows += sizes[i];
	}
	assert_int_equal(must_be_sound().rows, rows);
	/* Between them, one of the recorder's own; and behind them, the ends of what they have begun: rows that are read. */
	assert_int_equal(append_run(s, 10, sequence), 0);
	assert_int_equal(audit_store_note(s, &note, &why), 0);
	assert_int_equal(audit_store_settle(s, &at, 1000, &lost, &why), 0);
	assert_int_equal(lost, RUN / 2);
	assert_int_equal(audit_store_commit(s, &why), 0);
	rows += 10 + 1 + lost;
	assert_int_equal(must_be_sound().rows, rows);
	audit_store_close(&s);
}

/* Rows that a stranger adds while it is written: ours go on behind them, whether or not anything else has happened. */
static void test_a_strangers_rows_meanwhile(void **state)
{
	static struct audit_event e = {.kind = AUDIT_DENIED};
	struct audit_store *s = must_open(LARGE);

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		commit_rows(s, 2, 0, AUDIT_DENIED, 1);
		sql("audit-00000001.db", "INSERT INTO event (id, time, kind) SELECT max(id) + 1, 1, 0 FROM event");
	}
	/* Nor does taking away what it remembers of a sender make it take a record twice. */
	sql("audit-00000001.db", "DELETE FROM sender");
	assert_int_equal(audit_store_begin(s, &why), 0);
	assert_int_equal(audit_store_append(s, 100, sequences[0], &e, &why), 0);
	assert_int_equal(audit_store_append(s, 100, ++sequences[0], &e, &why), 1);
	assert_int_equal(audit_store_commit(s, &why), 0);
	must_find("begins with row 4, not 3");
	assert_int_equal(found.n, 6); /* where the rows before them end, and theirs are none of the chain's */
	audit_store_close(&s);
}

/* Behind the last number that there is, none of ours could follow. */
static void test_a_strangers_row_at_the_end_of_the_world(void **state)
{
	struct audit_store *s = must_open(LARGE);
	struct audit_store_status status;

	(void)state;
	commit_rows(s, 2, 0, AUDIT_DENIED, 1);
	sql("audit-00000001.db", "INSERT INTO event (id, time, kind) VALUES (9223372036854775807, 1, 0)");
	commit_rows(s, 2, 0, AUDIT_OPEN, 1);
	audit_store_status(s, &status);
	assert_int_equal(status.rows, 4);
	audit_store_close(&s);
	s = must_open(LARGE);
	commit_rows(s, 2, 0, AUDIT_ENDED, 1);
	must_find("row 9223372036854775807 (");
	assert_int_equal(found.n, 1);
	audit_store_close(&s);
}

static uint64_t draws = 1;

static uint32_t draw(uint32_t n)
{
	draws += 0x9e3779b97f4a7c15;
	uint64_t z = (draws ^ draws >> 30) * 0xbf58476d1ce4e5b9;

	return (uint32_t)((z ^ z >> 31) % n);
}

/* Any event of one of three processes about one of a few sessions, or of their flows, whoever has begun it. */
static void any_event(struct audit_store *s)
{
	static const enum audit_kind kinds[] = {AUDIT_OPEN, AUDIT_CONNECTED,	   AUDIT_CHECKPOINT, AUDIT_ENDED,
						AUDIT_FLOW, AUDIT_FLOW_CHECKPOINT, AUDIT_FLOW_ENDED, AUDIT_DENIED};
	static struct audit_event e;
	unsigned sender = draw(3);

	event_of(&e, kinds[draw(8)], 1 + draw(6));
	e.address.port = draw(2) == 0 ? 53 : 443;
	assert_int_equal(audit_store_append(s, 100 + sender, ++sequences[sender], &e, &why), 1);
}

/* What is open is written now and then: whatever commits hold, it is what row by row would have made of it. */
static void test_what_is_open_in_commits_of_any_size(void **state)
{
	struct audit_store *s = must_open(LARGE);
	uint64_t before[3];
	unsigned rows;

	(void)state;
	assert_int_equal(audit_store_relax(s, &why), 0);
	for (unsigned i = 0; i < 600; i++) {
		struct audit_settling at = {.lost = gone};

		memcpy(before, sequences, sizeof before);
		assert_int_equal(audit_store_begin(s, &why), 0);
		for (unsigned n = 1 + draw(i % 2 == 0 ? 3 : 40); n > 0; n--)
			any_event(s);
		if (draw(10) == 0)
			assert_int_equal(audit_store_settle(s, &at, 100, &rows, &why), 0);
		for (unsigned n = draw(3); n > 0; n--)
			any_event(s);
		if (draw(10) == 0) {
			audit_store_rollback(s);
			memcpy(sequences, before, sizeof before);
		} else {
			assert_int_equal(audit_store_commit(s, &why), 0);
		}
		if (i % 20 == 0)
			must_be_sound();
	}
	/* More than are noted at a time. */
	commit_rows(s, 5000, 1, AUDIT_OPEN, 1000);
	commit_rows(s, 4500, 1, AUDIT_CONNECTED, 1200);
	commit_rows(s, 4200, 1, AUDIT_ENDED, 1000);
	audit_store_close(&s);
	must_be_sound();
}

static void test_settled_rolled_back_and_repeated(void **state)
{
	struct audit_settling at = {.lost = gone};
	static struct audit_event e;
	struct audit_store *s = must_open(LARGE);
	unsigned rows;

	(void)state;
	fill(s);
	assert_int_equal(audit_store_begin(s, &why), 0);
	event_of(&e, AUDIT_OPEN, 77);
	assert_int_equal(audit_store_append(s, 100, sequences[0] + 1, &e, &why), 1);
	audit_store_rollback(s);
	assert_int_equal(audit_store_begin(s, &why), 0);
	assert_int_equal(audit_store_settle(s, &at, 3, &rows, &why), 1);
	assert_int_equal(rows, 3);
	assert_int_equal(audit_store_commit(s, &why), 0);
	assert_int_equal(audit_store_begin(s, &why), 0);
	assert_int_equal(audit_store_settle(s, &at, 100, &rows, &why), 0);
	assert_int_equal(rows, 2);
	assert_int_equal(audit_store_append(s, 100, 1, &e, &why), 0); /* all that is in this batch is known */
	assert_int_equal(audit_store_commit(s, &why), 0);
	must_be_sound();
	audit_store_close(&s);
	must_be_sound();
}

/* More rows than an entry of the chain holds, and more senders than a batch does. */
static void test_large_batches(void **state)
{
	struct audit_store *s = must_open(LARGE);
	static struct audit_event e;

	(void)state;
	event_of(&e, AUDIT_DENIED, 7);
	assert_int_equal(audit_store_begin(s, &why), 0);
	for (unsigned i = 1; i <= 10000; i++)
		assert_int_equal(audit_store_append(s, 100 + i % 3, i, &e, &why), 1);
	assert_int_equal(audit_store_commit(s, &why), 0);
	assert_int_equal(audit_store_relax(s, &why), 0);
	for (uint64_t i = 0; i < 2000; i++) {
		assert_int_equal(audit_store_begin(s, &why), 0);
		assert_int_equal(audit_store_append(s, 1000 + i, 1, &e, &why), 1);
		assert_int_equal(audit_store_commit(s, &why), 0);
	}
	assert_int_equal(must_be_sound().rows, 12000);
	audit_store_close(&s);
}

/* ---- epochs
 * ----------------------------------------------------------------------------------------------------------- */

static void test_epochs(void **state)
{
	struct audit_store *s = must_open(LARGE);
	struct audit_store_status status;
	uint8_t before[8192], after[8192];

	(void)state;
	int fd = open("chain.key", O_RDONLY);

	memset(before, 0, sizeof before);
	assert_true(pread(fd, before, sizeof before, 0) > 100);
	for (int epoch = 1; epoch <= 3; epoch++) {
		end_epoch(s);
		audit_store_status(s, &status);
		assert_int_equal(status.head.epoch, epoch);
		assert_int_equal(audit_store_tick(s, &why), 0); /* not before it is time */
	}
	audit_store_status(s, &status);
	assert_int_equal(status.head.epoch, 3);
	must_be_sound();
	/* No slot holds the first key, or any other than the last. */
	memset(after, 0, sizeof after);
	assert_true(pread(fd, after, sizeof after, 0) > 100);
	close(fd);
	int slots = 0;

	for (size_t slot = 0; slot < sizeof after; slot += 4096) {
		static const uint8_t zero[128];

		slots += memcmp(after + slot, zero, sizeof zero) != 0;
		if (memcmp(before + slot, zero, sizeof zero) != 0)
			assert_memory_not_equal(before + slot + 32, after + slot + 32, 32);
	}
	assert_int_equal(slots, 1);
	audit_store_close(&s);
	s = must_open(LARGE); /* goes on in its epoch */
	fill(s);
	audit_store_close(&s);
	must_be_sound();
}

static void test_the_first_key_is_for_the_auditor(void **state)
{
	struct audit_store *s = must_open(LARGE);
	struct audit_store_status status;

	(void)state;
	audit_store_status(s, &status);
	assert_true(status.first_key_waits);
	assert_int_equal(unlink("first.key"), 0);
	audit_store_status(s, &status);
	assert_false(status.first_key_waits);
	fill(s);
	audit_store_close(&s);
	s = must_open(LARGE);
	audit_store_status(s, &status);
	assert_false(status.first_key_waits); /* once */
	audit_store_close(&s);
	/* Without its key the chain cannot go on, and nothing is written that it would not cover. */
	assert_int_equal(unlink("chain.key"), 0);
	assert_null(audit_store_open(LARGE, &why));
	assert_non_null(strstr(why.text, "chain.key"));
}

/* ---- segments
 * --------------------------------------------------------------------------------------------------------- */

static unsigned count_segments(void)
{
	uint32_t *numbers;
	int n = audit_segment_list(&numbers, &why);

	free(numbers);
	assert_true(n >= 0);
	return (unsigned)n;
}

static bool count_row(uint64_t id, const struct audit_event *e, void *arg)
{
	(void)id, (void)e;
	++*(unsigned *)arg;
	return true;
}

static unsigned ask(const struct audit_filter *f, uint64_t rows_a_page)
{
	struct audit_archive *a = audit_archive_open(&why);
	unsigned n = 0;

	if (a == NULL)
		fail_msg("%s", why.text);
	struct audit_query *q = audit_query_new(a, f, &why);

	assert_non_null(q);
	while (audit_query_page(q, rows_a_page, 1000000, count_row, &n) == 1)
		;
	audit_query_free(&q);
	audit_archive_close(&a);
	return n;
}

static void test_segments(void **state)
{
	struct audit_store *s = must_open(100 * 1024);
	struct audit_filter f = {.session = 3};
	struct audit_settling at = {.lost = gone};
	unsigned denied = 0, rows;
	struct audit_verified v;

	(void)state;
	commit_rows(s, 5, 0, AUDIT_OPEN, 1); /* stay open, over all segments */
	commit_rows(s, 2, 1, AUDIT_OPEN, 11);
	while (count_segments() < 5) {
		commit_rows(s, 100, 1, AUDIT_DENIED, 100);
		denied += 100;
		/* The size of the file is what it is after its log was folded into it. */
		audit_store_close(&s);
		s = must_open(100 * 1024);
	}
	v = must_be_sound();
	assert_int_equal(v.segments, 5);
	assert_int_equal(v.rows, 7 + denied + 4 * 7);
	/* As one table, in order, in pages of any size. */
	f = (struct audit_filter){.kinds = 1u << AUDIT_DENIED};
	assert_int_equal(ask(&f, 1000), denied);
	assert_int_equal(ask(&f, 7), denied);
	f.oldest_first = true;
	assert_int_equal(ask(&f, 13), denied);
	f = (struct audit_filter){.session = 3};
	assert_int_equal(ask(&f, 1), 1 + 4);
	/* An end in the last segment closes what the first has begun; what is lost is closed there, too. */
	commit_rows(s, 1, 0, AUDIT_ENDED, 1);
	assert_int_equal(audit_store_begin(s, &why), 0);
	assert_int_equal(audit_store_settle(s, &at, 100, &rows, &why), 0);
	assert_int_equal(rows, 4);
	assert_int_equal(audit_store_commit(s, &why), 0);
	must_be_sound();
	audit_store_close(&s);
	/* Segments that are written no more are plain files. */
	assert_false(audit_segment_has_log("audit-00000001.db"));
	assert_int_not_equal(access("audit-00000001.db-wal", F_OK), 0);
	struct stat st;

	assert_int_equal(stat("audit-00000002.db", &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
}

static void touch(const char *name)
{
	int fd = open(name, O_WRONLY | O_CREAT, 0600);

	assert_true(fd >= 0);
	close(fd);
}

/* Whatever was done when the power went: the next start goes on from there. */
static void test_segment_change_cut_short(void **state)
{
	struct audit_store *s = must_open(LARGE);

	(void)state;
	fill(s);
	audit_store_close(&s);
	/* The file was made, and nothing more. */
	touch("audit-00000002.db");
	assert_int_equal(must_be_sound().segments, 1);
	struct db *db = audit_segment_open("audit-00000002.db", AUDIT_WRITE, &why);

	assert_non_null(db);
	db_close(&db);
	assert_int_equal(must_be_sound().segments, 1);
	s = must_open(LARGE);
	fill(s);
	audit_store_close(&s);
	assert_int_equal(must_be_sound().segments, 2);
	/* The last entry was written, and there is no next file: as if it had been lost from the directory. */
	s = must_open(1);
	commit_rows(s, 1, 1, AUDIT_DENIED, 1);
	audit_store_close(&s);
	assert_int_equal(count_segments(), 3);
	must_be_sound();
}

/* The segment has its last entry, the next cannot be begun, and meanwhile the epoch's time is over: no seal comes
 * behind the end. */
static void test_an_epoch_ends_between_segments(void **state)
{
	struct audit_store *s = must_open(100 * 1024);
	struct db *db = audit_segment_open("audit-00000002.db", AUDIT_WRITE, &why);
	struct audit_store_status status;
	sqlite3 *stranger;

	(void)state;
	db_close(&db);
	assert_int_equal(audit_store_relax(s, &why), 0);
	for (int i = 0; i < 10000; i++)
		commit_rows(s, 1, 0, AUDIT_DENIED, 1);
	assert_int_equal(sqlite3_open("audit-00000002.db", &stranger), SQLITE_OK);
	assert_int_equal(sqlite3_exec(stranger, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(audit_store_checkpoint(s, &why), 0);
	assert_int_equal(audit_store_begin(s, &why), -1);
	audit_store_tick(s, &why);
	assert_int_equal(audit_store_begin(s, &why), -1);
	assert_int_equal(must_be_sound().segments, 1);
	assert_int_equal(sqlite3_close(stranger), SQLITE_OK);
	commit_rows(s, 1, 0, AUDIT_DENIED, 1);
	assert_int_equal(audit_store_tick(s, &why), 0);
	audit_store_status(s, &status);
	assert_int_equal(status.segment, 2);
	assert_int_equal(status.head.epoch, 1);
	must_be_sound();
	audit_store_close(&s);
}

/* Numbers that nobody ever counted to, where sums are made of them. */
static void test_numbers_at_the_end_of_the_world(void **state)
{
	static const char *const edits[] = {
		"UPDATE chain SET count = 9223372036854775807 WHERE id = 3",
		"UPDATE chain SET count = -1 WHERE id = 3",
		"UPDATE chain SET count = 2147483648 WHERE id = 3",
		"UPDATE chain SET first = 9223372036854775807 WHERE id = 3",
		"UPDATE chain SET id = 9223372036854775807 WHERE id = (SELECT max(id) FROM chain)",
		"UPDATE chain SET id = -9223372036854775807 WHERE id = 3",
		"UPDATE chain SET epoch = -1 WHERE id = 3",
		"UPDATE chain SET kind = -1 WHERE id = 3",
		"UPDATE chain SET time = 9223372036854775807 WHERE id = 3",
		"UPDATE event SET id = 9223372036854775807 WHERE id = 3",
		"UPDATE event SET id = -9223372036854775807 WHERE id = 3",
	};
	struct audit_store *s = must_open(LARGE);

	(void)state;
	fill(s);
	audit_store_close(&s);
	s = must_open(1); /* a plain file */
	commit_rows(s, 1, 0, AUDIT_DENIED, 1);
	audit_store_close(&s);
	must_be_sound();
	copy("audit-00000001.db", "kept");
	for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
		sql("audit-00000001.db", edits[i]);
		must_find("segment 1");
		copy("kept", "audit-00000001.db");
	}
	must_be_sound();
}

/* Nor do they keep a gateway from going on: what is wrong is there to be found. */
static void test_going_on_at_the_end_of_the_world(void **state)
{
	static const char *const edits[] = {
		"UPDATE chain SET count = -9223372036854775807 - 1",
		"UPDATE chain SET first = 9223372036854775807",
		"UPDATE chain SET first = -5, count = 0",
	};
	struct audit_store *s;

	(void)state;
	for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
		s = must_open(LARGE);
		commit_rows(s, 2, 0, AUDIT_OPEN, 1);
		audit_store_close(&s);
		sql("audit-00000001.db", edits[i]);
		s = must_open(LARGE);
		commit_rows(s, 2, 0, AUDIT_ENDED, 1);
		audit_store_close(&s);
		must_find("");
	}
}

static void test_a_locked_or_damaged_segment(void **state)
{
	struct audit_filter f = {0};
	struct audit_store *s = must_open(1);
	int fd;

	(void)state;
	for (int i = 0; i < 4; i++)
		commit_rows(s, 50, 0, AUDIT_DENIED, 100);
	audit_store_close(&s);
	unsigned all = ask(&f, 1000);

	fd = open("audit-00000003.db", O_RDWR);
	assert_true(fd >= 0);
	for (off_t at = 5000; at < 40000; at += 100)
		assert_int_equal(pwrite(fd, "garbage", 7, at), 7);
	close(fd);
	struct audit_archive *a = audit_archive_open(&why);
	struct audit_query *q = audit_query_new(a, &f, &why);
	unsigned n = 0;

	while (audit_query_page(q, 1000, 1000000, count_row, &n) == 1)
		;
	assert_non_null(strstr(audit_archive_damage(a), "audit-00000003.db"));
	assert_true(n < all && n >= 3 * 50);
	audit_query_free(&q);
	audit_archive_close(&a);
	must_find("segment 3");
}

static void test_single_file_of_before(void **state)
{
	struct audit_verified v;
	struct audit_store *s;
	struct audit_filter f = {0};

	(void)state;
	sql("audit.db", schema_audit_migrations[0]);
	sql("audit.db", "PRAGMA journal_mode=WAL; PRAGMA application_id=1735876981; PRAGMA user_version=1;"
			"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9000) "
			"INSERT INTO event (id, time, kind, session, user) SELECT i, i, i % 4, i, 'ann' FROM n;"
			"DELETE FROM event WHERE id BETWEEN 5000 AND 5100;"
			"INSERT INTO sender VALUES (7, 9000, 9000)");
	s = must_open(LARGE);
	assert_int_not_equal(access("audit.db", F_OK), 0);
	v = must_be_sound();
	assert_int_equal(v.rows, 9000 - 101);
	commit_rows(s, 3, 1, AUDIT_OPEN, 1);
	audit_store_close(&s);
	assert_int_equal(must_be_sound().rows, 9000 - 101 + 3);
	assert_int_equal(ask(&f, 1000), 9000 - 101 + 3);
	/* From now on they are protected as all others. */
	sql("audit-00000001.db", "UPDATE event SET user = 'bob' WHERE id = 17");
	must_find("row 17");
}

/* ---- a new chain ----------------------------------------------------------------------------------------------------
 */

static struct audit_verified verify_with_keys(const char *one, const char *other)
{
	struct audit_keys keys;
	struct audit_chain_key second;
	struct audit_verify_options o = {
		.keys = &keys, .finding = on_finding, .others = &second, .nothers = other != NULL};
	struct audit_verified v;

	found.n = 0;
	found.first[0] = '\0';
	if (audit_first_key_read(one, o.store, &keys, &why) != 0 ||
	    (other != NULL && audit_first_key_read(other, second.store, &second.keys, &why) != 0) ||
	    audit_verify(&o, &v, &why) != 0)
		fail_msg("%s", why.text);
	return v;
}

static void lose_by_removal(void)
{
	assert_int_equal(unlink("chain.key"), 0);
}

static void lose_by_damage(void)
{
	assert_int_equal(truncate("chain.key", 0), 0);
	assert_int_equal(truncate("chain.key", 4224), 0);
}

static void lose_to_another(void)
{
	copy("chain.key", "mine");
	unlink("chain.key");
	assert_int_equal(mkdir("other", 0700), 0);
	assert_int_equal(chdir("other"), 0);
	struct audit_store *s = must_open(LARGE);

	audit_store_close(&s);
	assert_int_equal(chdir(".."), 0);
	copy("other/chain.key", "chain.key");
}

/* Without its key the chain stops, until its owner says that a new one is to begin; verify shows the break, and what
 * tells of it. */
static void renewed_after(void (*lose)(void))
{
	struct audit_store *s = must_open(LARGE);
	struct audit_verified v;
	struct audit_filter f = {.session = 5}, all = {0};

	fill(s); /* session 5 stays open */
	unsigned before = ask(&all, 1000);

	audit_store_close(&s);
	assert_int_equal(rename("first.key", "old.key"), 0);
	lose();
	for (int i = 0; i < 2; i++) {
		assert_null(audit_store_open(LARGE, &why));
		assert_non_null(strstr(why.text, "chain.key"));
		assert_non_null(strstr(why.text, "begin-new-chain"));
	}
	v = verify_with_keys("old.key", NULL); /* that much is known without it */
	assert_int_equal(v.rows, before);
	touch("begin-new-chain");
	s = must_open(LARGE);
	assert_int_not_equal(access("begin-new-chain", F_OK), 0);
	commit_rows(s, 1, 0, AUDIT_ENDED, 5);
	assert_int_equal(ask(&f, 10), 4); /* it was carried over, and is closed */
	fill(s);
	audit_store_close(&s);
	s = must_open(LARGE); /* and goes on */
	fill(s);
	audit_store_close(&s);
	v = verify_with_keys("old.key", "first.key");
	if (v.findings != 1 || strstr(found.first, "a new chain begins here") == NULL ||
	    strstr(found.first, "tells of it") == NULL)
		fail_msg("%u findings, the first: %s", found.n, found.first);
	assert_int_equal(verify_with_keys("first.key", "old.key").findings, 1);
	v = verify_with_keys("first.key", NULL);
	assert_int_equal(v.findings, 1);
	assert_non_null(strstr(found.first, "segment 1: it is of another audit than this key, or of a chain"));
	/* Both parts are as well protected as ever. */
	copy("audit-00000001.db", "kept");
	sql("audit-00000001.db", "UPDATE event SET user = 'eve' WHERE id = 7");
	assert_int_equal(verify_with_keys("old.key", "first.key").findings, 2);
	assert_non_null(strstr(found.first, "row 7"));
	copy("kept", "audit-00000001.db");
	sql("audit-00000002.db", "DELETE FROM event WHERE detail LIKE '%begun anew%'");
	assert_true(verify_with_keys("old.key", "first.key").findings >= 2);
}

static void test_a_removed_key(void **state)
{
	(void)state;
	renewed_after(lose_by_removal);
}

static void test_a_damaged_key(void **state)
{
	(void)state;
	renewed_after(lose_by_damage);
}

static void test_the_key_of_another_audit(void **state)
{
	(void)state;
	renewed_after(lose_to_another);
}

/* The wish, where there is nothing to renew, is none; and what was cut short is begun again. */
static void test_a_new_chain_cut_short(void **state)
{
	struct audit_store *s = must_open(LARGE);

	(void)state;
	fill(s);
	audit_store_close(&s);
	touch("begin-new-chain");
	s = must_open(LARGE);
	audit_store_close(&s);
	assert_int_not_equal(access("begin-new-chain", F_OK), 0);
	assert_int_equal(must_be_sound().segments, 1);
	/* A key was made, and its chain had not begun. */
	assert_int_equal(rename("first.key", "old.key"), 0);
	lose_to_another();
	touch("begin-new-chain");
	s = must_open(LARGE);
	fill(s);
	audit_store_close(&s);
	assert_int_equal(verify_with_keys("old.key", "first.key").findings, 1);
	/* It has begun, and the wish is still there. */
	touch("begin-new-chain");
	s = must_open(LARGE);
	audit_store_close(&s);
	assert_int_not_equal(access("begin-new-chain", F_OK), 0);
	assert_int_equal(verify_with_keys("old.key", "first.key").findings, 1);
}

/* Files of the chain that are removed while it is written are written again. */
static void test_files_removed_meanwhile(void **state)
{
	struct audit_store *s = must_open(LARGE);

	(void)state;
	fill(s);
	assert_int_equal(unlink("chain.key"), 0);
	assert_int_equal(unlink("chain.head"), 0);
	end_epoch(s);
	audit_store_close(&s);
	must_be_sound();
	s = must_open(LARGE);
	fill(s);
	audit_store_close(&s);
	must_be_sound();
}

/* ---- tampering
 * -------------------------------------------------------------------------------------------------------- */

#define HOT "audit-00000003.db"
#define ANY_OPEN "(SELECT min(session) FROM open_session WHERE session <> 0)"

static const char *const files[] = {
	"audit-00000001.db", "audit-00000002.db", HOT, "chain.key", "chain.head",
};

/* Three segments with everything in them, and a copy of it all. */
static void make_victim(void)
{
	struct audit_store *s = must_open(LARGE);

	fill(s);
	audit_store_close(&s);
	for (int i = 0; i < 2; i++) {
		s = must_open(1);
		commit_rows(s, 1, 0, AUDIT_DENIED, 9000);
		audit_store_close(&s);
		s = must_open(LARGE);
		fill(s);
		audit_store_close(&s);
	}
	assert_int_equal(count_segments(), 3);
	must_be_sound();
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		char saved[64];

		snprintf(saved, sizeof saved, "saved-%s", files[i]);
		copy(files[i], saved);
	}
}

static void restore_victim(void)
{
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		char saved[64], log[64];

		snprintf(saved, sizeof saved, "saved-%s", files[i]);
		copy(saved, files[i]);
		snprintf(log, sizeof log, "%s-wal", files[i]);
		unlink(log);
		snprintf(log, sizeof log, "%s-shm", files[i]);
		unlink(log);
	}
}

static void test_findings_name_what_was_done(void **state)
{
	static const struct {
		const char *file, *sql, *finding;
	} edits[] = {
		{HOT, "UPDATE event SET user = 'eve' WHERE id = 400", "row 400"},
		{"audit-00000001.db", "UPDATE event SET bytes_up = 1 WHERE id = 5", "row 5"},
		{"audit-00000001.db", "DELETE FROM event WHERE id = 100", "the first is row 100"},
		{"audit-00000002.db", "INSERT INTO event (id, time, kind) SELECT max(id) + 1, 1, 0 FROM event",
		 "was inserted"},
		{"audit-00000002.db", "INSERT INTO event (id, time, kind) VALUES (-5, 1, 0)", "row -5"},
		{HOT, "INSERT INTO event (id, time, kind) VALUES (9223372036854775807, 1, 0)", "was inserted"},
		{"audit-00000001.db",
		 "UPDATE event SET id = 9999 WHERE id = 7; UPDATE event SET id = 7 WHERE id = 8; "
		 "UPDATE event SET id = 8 WHERE id = 9999",
		 "row 7"},
		/* The end of the last segment: rows, entries, and what is open, all at once. */
		{HOT, "DELETE FROM chain WHERE id = (SELECT max(id) FROM chain)", "was inserted"},
		{HOT,
		 "DELETE FROM event WHERE id >= (SELECT max(first) FROM chain); "
		 "DELETE FROM chain WHERE id = (SELECT max(id) FROM chain)",
		 ""},
		/* As if it had been made, and not begun. */
		{HOT, "DELETE FROM chain; DELETE FROM event; DELETE FROM open_session; DELETE FROM sender", "end was cut"},
		{"audit-00000001.db", "DELETE FROM chain WHERE id = (SELECT max(id) FROM chain)", "cut"},
		{"audit-00000002.db", "DELETE FROM chain WHERE id = (SELECT min(id) FROM chain) + 4", "was removed"},
		{"audit-00000002.db", "UPDATE chain SET time = time + 1 WHERE id = (SELECT min(id) FROM chain) + 4",
		 "not authentic"},
		{"audit-00000002.db", "UPDATE chain SET mac = zeroblob(32) WHERE id = (SELECT min(id) FROM chain)",
		 "not authentic"},
		{HOT,
		 "UPDATE open_session SET event = event - 1 WHERE session = " ANY_OPEN,
		 "is not open"},
		{HOT, "DELETE FROM open_session WHERE session = " ANY_OPEN, "should be open"},
		{HOT, "UPDATE open_session SET event = event + 1 WHERE session = 0", "open sessions is true"},
		{HOT, "UPDATE open_session SET event = -event WHERE session = 0", "open sessions is true"},
		{HOT, "UPDATE sender SET last = last - 1 WHERE incarnation = 100", "has recorded"},
	};

	(void)state;
	make_victim();
	for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
		sql(edits[i].file, edits[i].sql);
		must_find(edits[i].finding);
		restore_victim();
		must_be_sound();
	}
}

/* Who has yesterday's files, and puts them in the place of today's. */
static void test_replaced_and_rolled_back(void **state)
{
	struct audit_verified v, later;
	struct audit_anchor anchor;
	struct audit_store *s;

	(void)state;
	make_victim();
	v = must_be_sound();
	/* A segment in another's place, and one that is missing. */
	copy("saved-audit-00000001.db", "audit-00000002.db");
	must_find("segment 2");
	restore_victim();
	unlink("audit-00000002.db");
	must_find("segments 2 to 2 are missing");
	restore_victim();
	unlink("audit-00000001.db");
	must_find("segments before it are missing");
	restore_victim();
	unlink(HOT);
	must_find("");
	restore_victim();
	/* The database alone: the head knows better. */
	s = must_open(LARGE);
	fill(s);
	end_epoch(s);
	audit_store_close(&s);
	later = must_be_sound();
	assert_true(later.head.entry > v.head.entry && later.head.epoch == 1);
	anchor = (struct audit_anchor){.entry = later.head.entry};
	memcpy(anchor.mac, later.head.mac, sizeof anchor.mac);
	copy("saved-" HOT, HOT);
	must_find("chain.head");
	/* The head, too: the key has moved on. */
	copy("saved-chain.head", "chain.head");
	must_find("chain.key");
	/* Without a head: that it is missing is a finding. */
	unlink("chain.head");
	must_find("chain.head");
	/* All of it: nothing on this machine knows, an anchor does. */
	restore_victim();
	must_be_sound();
	assert_int_equal(verify_with(&anchor, 1).findings, 1);
	assert_non_null(strstr(found.first, "anchor"));
	/* An anchor that fits. */
	anchor = (struct audit_anchor){.entry = v.head.entry};
	memcpy(anchor.mac, v.head.mac, sizeof anchor.mac);
	assert_int_equal(verify_with(&anchor, 1).anchors, 1);
	anchor.mac[0] ^= 1;
	assert_int_equal(verify_with(&anchor, 1).findings, 1);
}

/* A backup that was put back is said in the audit itself, and found. */
static void test_restored_backup_is_recorded(void **state)
{
	struct audit_filter f = {.kinds = 1u << AUDIT_ADMIN};
	struct audit_store *s;

	(void)state;
	make_victim();
	s = must_open(LARGE);
	fill(s);
	audit_store_close(&s);
	copy("saved-" HOT, HOT);
	assert_int_equal(ask(&f, 10), 0);
	s = must_open(LARGE);
	commit_rows(s, 3, 0, AUDIT_DENIED, 1);
	audit_store_close(&s);
	assert_int_equal(ask(&f, 10), 1);
	s = must_open(LARGE);
	audit_store_close(&s);
	assert_int_equal(ask(&f, 10), 1);
}

static unsigned long long rng;

static unsigned below(unsigned n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (unsigned)((rng >> 20) % n);
}

/* One edit as somebody would make it who knows what every table means, but not the key. */
static void random_edit(char *text, size_t size, const char *file)
{
	static const char *const numbers[] = {"time", "kind",	  "session",	"revision", "client_port",
					      "port", "bytes_up", "bytes_down", "duration"};
	static const char *const texts[] = {"listener", "user", "method", "command",
					    "name",	"rule", "reason", "detail"};
	static const char *const blobs[] = {"client", "address"};
	static const char *const links[] = {"kind", "epoch", "time", "first", "count"};
	const char *some = "(SELECT id FROM event ORDER BY random() LIMIT 1)";
	const char *entry = "(SELECT id FROM chain ORDER BY random() LIMIT 1)";

	(void)file;
	switch (below(17)) {
	case 0:
	case 1:
		snprintf(text, size, "UPDATE event SET %s = coalesce(%s, 0) + %u WHERE id = %s", numbers[below(9)],
			 "time", 1 + below(9), some);
		break;
	case 2:
	case 3:
		snprintf(text, size, "UPDATE event SET %s = 'x%u' WHERE id = %s", texts[below(8)], below(1000), some);
		break;
	case 4:
		snprintf(text, size, "UPDATE event SET %s = randomblob(%u) WHERE id = %s", blobs[below(2)],
			 below(2) ? 4 : 16, some);
		break;
	case 5:
		snprintf(text, size,
			 "UPDATE event SET %s = NULL WHERE id = (SELECT id FROM event WHERE user IS NOT NULL "
			 "ORDER BY random() LIMIT 1)",
			 below(2) ? "user" : "client");
		break;
	case 6:
		snprintf(text, size, "DELETE FROM event WHERE id = %s", some);
		break;
	case 7:
		snprintf(text, size, "DELETE FROM event WHERE id >= %s", some);
		break;
	case 8:
		snprintf(text, size,
			 "INSERT INTO event SELECT (SELECT max(id) FROM event) + %u, time, kind, session, revision, "
			 "client, "
			 "client_port, address, port, bytes_up, bytes_down, duration, listener, user, method, command, "
			 "name, rule, "
			 "reason, detail FROM event WHERE id = %s",
			 1 + below(3), some);
		break;
	case 9: /* two rows change places */
		snprintf(text, size,
			 "CREATE TEMP TABLE t AS SELECT id AS a, id + 1 AS b FROM event WHERE id < (SELECT max(id) "
			 "FROM event) "
			 "ORDER BY random() LIMIT 1; UPDATE event SET id = -1 WHERE id = (SELECT a FROM t); "
			 "UPDATE event SET id = (SELECT a FROM t) WHERE id = (SELECT b FROM t); "
			 "UPDATE event SET id = (SELECT b FROM t) WHERE id = -1");
		break;
	case 10:
		snprintf(text, size, "UPDATE chain SET %s = %s + 1 WHERE id = %s", links[below(5)], links[below(5)],
			 entry);
		break;
	case 11:
		snprintf(text, size, "UPDATE chain SET mac = randomblob(32) WHERE id = %s", entry);
		break;
	case 12: /* a row's digest out of the body, with the row */
		snprintf(text, size,
			 "UPDATE chain SET body = substr(body, 1, length(body) - 17) || x'00' WHERE id = "
			 "(SELECT id FROM chain WHERE kind = 0 ORDER BY random() LIMIT 1)");
		break;
	case 13:
		snprintf(text, size, "DELETE FROM chain WHERE id %s %s", below(2) ? "=" : ">=", entry);
		break;
	case 14: /* an end of the chain and all its rows, cleanly */
		snprintf(text, size,
			 "CREATE TEMP TABLE t AS SELECT id, first FROM chain ORDER BY random() LIMIT 1; "
			 "DELETE FROM event WHERE id >= (SELECT first FROM t); DELETE FROM chain WHERE id >= (SELECT "
			 "id FROM t)");
		break;
	case 15: /* up to which row the table of open sessions is true; what it was is tried by test_audit_open */
		snprintf(text, size, "UPDATE open_session SET event = %s WHERE session = 0",
			 below(3) == 0	 ? "-event"
			 : below(2) == 0 ? "event + 1 + abs(random() % 1000)"
					 : "9223372036854775807");
		break;
	default:
		snprintf(text, size,
			 below(2) ? "UPDATE open_session SET incarnation = incarnation + 1 WHERE session = "
				    "(SELECT session FROM open_session ORDER BY random() LIMIT 1)"
				  : "UPDATE sender SET seen = seen + 1 WHERE incarnation = (SELECT incarnation FROM "
				    "sender ORDER BY random() LIMIT 1)");
	}
}

static int changes(const char *file, const char *text)
{
	sqlite3 *handle;
	int n;

	assert_int_equal(sqlite3_open(file, &handle), SQLITE_OK);
	assert_int_equal(sqlite3_exec(handle, "PRAGMA synchronous=OFF", NULL, NULL, NULL), SQLITE_OK);
	int before = sqlite3_total_changes(handle);

	/* An edit that the table itself forbids is none. */
	sqlite3_exec(handle, text, NULL, NULL, NULL);
	n = sqlite3_total_changes(handle) - before;
	sqlite3_close(handle);
	return n;
}

/* A content that is the same afterwards was not edited. */
static bool same_content(const char *a, const char *b)
{
	char text[1024];
	sqlite3 *handle;
	sqlite3_stmt *stmt;
	static const char *const tables[] = {"event", "chain", "open_session", "sender"};
	bool same = true;

	assert_int_equal(sqlite3_open(a, &handle), SQLITE_OK);
	snprintf(text, sizeof text, "ATTACH '%s' AS b", b);
	assert_int_equal(sqlite3_exec(handle, text, NULL, NULL, NULL), SQLITE_OK);
	for (size_t i = 0; i < 4; i++) {
		snprintf(text, sizeof text,
			 "SELECT (SELECT count(*) FROM (SELECT * FROM main.%s EXCEPT SELECT * FROM b.%s)) + "
			 "(SELECT count(*) FROM (SELECT * FROM b.%s EXCEPT SELECT * FROM main.%s))",
			 tables[i], tables[i], tables[i], tables[i]);
		assert_int_equal(sqlite3_prepare_v2(handle, text, -1, &stmt, NULL), SQLITE_OK);
		assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
		same = same && sqlite3_column_int(stmt, 0) == 0;
		sqlite3_finalize(stmt);
	}
	sqlite3_close(handle);
	return same;
}

static void test_random_edits(void **state)
{
	const char *seed = getenv("AUDIT_SEED"), *times = getenv("AUDIT_EDITS");
	unsigned done = 0, wanted = times != NULL ? (unsigned)atoi(times) : 500;

	(void)state;
	rng = seed != NULL ? strtoull(seed, NULL, 10) : 0x9e3779b97f4a7c15;
	make_victim();
	while (done < wanted) {
		const char *file = files[below(3)];
		char text[2048], saved[64];

		random_edit(text, sizeof text, file);
		snprintf(saved, sizeof saved, "saved-%s", file);
		if (changes(file, text) > 0 && !same_content(file, saved)) {
			done++;
			verify();
			if (found.n == 0)
				fail_msg("edit %u of %s is not found: %s", done, file, text);
		}
		restore_victim();
	}
	must_be_sound();
	print_message("%u edits, all found\n", done);
}

static void test_anchor_text(void **state)
{
	struct audit_head head = {.entry = 1234567};
	uint8_t other[AUDIT_ID_BYTES] = {1};
	struct audit_anchor anchor;
	char text[AUDIT_ANCHOR_TEXT_MAX], line[400];

	(void)state;
	memset(head.store, 0xab, sizeof head.store);
	memset(head.mac, 0x17, sizeof head.mac);
	snprintf(line, sizeof line, "Nov 26 host gatewayd[7]: recorder info: %s\n", audit_anchor_text(&head, text));
	assert_true(audit_anchor_parse(line, head.store, &anchor));
	assert_int_equal(anchor.entry, 1234567);
	assert_memory_equal(anchor.mac, head.mac, sizeof head.mac);
	assert_false(audit_anchor_parse(line, other, &anchor));
	for (size_t len = 0; len < strlen(text); len++) {
		char part[AUDIT_ANCHOR_TEXT_MAX];

		memcpy(part, text, len);
		part[len] = '\0';
		assert_false(audit_anchor_parse(part, head.store, &anchor));
	}
}

static int setup(void **state)
{
	memset(sequences, 0, sizeof sequences);
	log_init("test", LOG_ERROR);
	return scratch_enter(state);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, scratch_leave)
	const struct CMUnitTest tests[] = {
		TEST(test_sound),
		TEST(test_runs_of_rows),
		TEST(test_a_strangers_rows_meanwhile),
		TEST(test_a_strangers_row_at_the_end_of_the_world),
		TEST(test_what_is_open_in_commits_of_any_size),
		TEST(test_settled_rolled_back_and_repeated),
		TEST(test_large_batches),
		TEST(test_epochs),
		TEST(test_the_first_key_is_for_the_auditor),
		TEST(test_segments),
		TEST(test_segment_change_cut_short),
		TEST(test_an_epoch_ends_between_segments),
		TEST(test_a_removed_key),
		TEST(test_a_damaged_key),
		TEST(test_the_key_of_another_audit),
		TEST(test_a_new_chain_cut_short),
		TEST(test_files_removed_meanwhile),
		TEST(test_numbers_at_the_end_of_the_world),
		TEST(test_going_on_at_the_end_of_the_world),
		TEST(test_a_locked_or_damaged_segment),
		TEST(test_single_file_of_before),
		TEST(test_findings_name_what_was_done),
		TEST(test_replaced_and_rolled_back),
		TEST(test_restored_backup_is_recorded),
		TEST(test_random_edits),
		TEST(test_anchor_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
