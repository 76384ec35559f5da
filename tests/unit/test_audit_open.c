/* What is open, and waits in memory to be written: whatever happens to the memory, each session that has begun gets its
 * closing row, and who looks at the files is told the truth. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "schema/audit_open.h"
#include "schema/audit_replay.h"
#include "schema/audit_segment.h"
#include "schema/audit_store.h"
#include "schema/audit_verify.h"
#include "tests/unit/scratch.h"

#define LARGE (1u << 30)
#define FIRST "audit-00000001.db"
#define SECOND "audit-00000002.db"
#define DAY_US (24 * 3600 * INT64_C(1000000))

/* Time passes when a test says so. */
static int64_t mono_us, later_us;
int64_t __real_clock_wall_us(void);
int64_t __wrap_clock_wall_us(void);
int64_t __wrap_clock_mono_us(void);

int64_t __wrap_clock_wall_us(void)
{
	return __real_clock_wall_us() + later_us;
}

int64_t __wrap_clock_mono_us(void)
{
	return mono_us;
}

static struct err why;

/* A process that is killed loses nothing by not waiting for the disk. */
static struct audit_store *must_open(uint64_t segment_bytes)
{
	struct audit_store *s = audit_store_open(segment_bytes, &why);

	if (s == NULL || audit_store_relax(s, &why) != 0)
		fail_msg("%s", why.text);
	return s;
}

static struct audit_event *event_of(enum audit_kind kind, uint64_t session)
{
	static struct audit_event e;

	memset(&e, 0, sizeof e);
	e.kind = kind;
	e.session = session;
	e.time_us = clock_wall_us();
	e.address = (struct endpoint){.addr = addr_v4(0xcb007107), .port = 443};
	strcpy(e.user, "ann");
	return &e;
}

/* The next record of that process. */
static void append(struct audit_store *s, uint64_t incarnation, const struct audit_event *e)
{
	static uint64_t sequence;

	assert_int_equal(audit_store_append(s, incarnation, ++sequence, e, &why), 1);
}

static void begin(struct audit_store *s)
{
	assert_int_equal(audit_store_begin(s, &why), 0);
}

static void commit(struct audit_store *s)
{
	assert_int_equal(audit_store_commit(s, &why), 0);
}

/* One record, one commit. */
static void record(struct audit_store *s, uint64_t incarnation, enum audit_kind kind, uint64_t session)
{
	begin(s);
	append(s, incarnation, event_of(kind, session));
	commit(s);
}

/* A process that does this, and is killed. */
static void killed_while(void (*work)(struct audit_store *s))
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		work(must_open(LARGE));
		kill(getpid(), SIGKILL);
	}
	assert_true(pid > 0 && waitpid(pid, &status, 0) == pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static int64_t number(const char *file, const char *sql)
{
	sqlite3_stmt *stmt;
	sqlite3 *handle;
	int64_t n;

	assert_int_equal(sqlite3_open(file, &handle), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(handle, sql, -1, &stmt, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
	n = sqlite3_column_int64(stmt, 0);
	sqlite3_finalize(stmt);
	sqlite3_close(handle);
	return n;
}

static void exec_sql(const char *sql)
{
	sqlite3 *handle;

	assert_int_equal(sqlite3_open(FIRST, &handle), SQLITE_OK);
	if (sqlite3_exec(handle, sql, NULL, NULL, NULL) != SQLITE_OK)
		fail_msg("%s: %s", sql, sqlite3_errmsg(handle));
	assert_int_equal(sqlite3_close(handle), SQLITE_OK);
}

static int64_t in_table(const char *file)
{
	return number(file, "SELECT count(*) FROM open_session WHERE session <> 0");
}

static int64_t mark_of(const char *file)
{
	return number(file, "SELECT event FROM open_session WHERE session = 0 AND flow = 0");
}

static void on_finding(const char *text, void *arg)
{
	if (arg != NULL)
		fail_msg("%s", text);
}

static unsigned findings(bool may_be)
{
	struct audit_keys keys;
	struct audit_verify_options o = {.keys = &keys, .finding = on_finding, .arg = may_be ? NULL : &keys};
	struct audit_verified v;

	if (audit_first_key_read("first.key", o.store, &keys, &why) != 0 || audit_verify(&o, &v, &why) != 0)
		fail_msg("%s", why.text);
	return (unsigned)v.findings;
}

static void must_be_sound(void)
{
	findings(false);
}

/* ---- what was lost ----------------------------------------------------------------------------------------------- */

static bool is_gone(uint64_t incarnation, void *arg)
{
	return arg == NULL || incarnation == *(uint64_t *)arg;
}

/* Closes what that process (0: any) had open: sessions and flows in order, with the user of the row that told of it. */
static const char *settle(struct audit_store *s, uint64_t incarnation)
{
	static char text[4096];
	struct audit_settling at = {.lost = is_gone, .arg = incarnation == 0 ? NULL : &incarnation};
	struct audit_store_status before;
	unsigned rows;
	char sql[512], name[AUDIT_SEGMENT_NAME_MAX];
	sqlite3_stmt *stmt;
	sqlite3 *handle;

	begin(s);
	audit_store_status(s, &before);
	assert_int_equal(audit_store_settle(s, &at, 1000, &rows, &why), 0);
	commit(s);
	snprintf(sql, sizeof sql,
		 "SELECT kind, session, user FROM event WHERE id > %lld AND detail LIKE '%%\"lost\"%%' "
		 "ORDER BY session, kind, port, user",
		 (long long)before.rows);
	assert_int_equal(sqlite3_open(audit_segment_name(before.segment, name), &handle), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(handle, sql, -1, &stmt, NULL), SQLITE_OK);
	text[0] = '\0';
	while (sqlite3_step(stmt) == SQLITE_ROW) {
		size_t used = strlen(text);

		snprintf(text + used, sizeof text - used, "%s%s%lld:%s", used == 0 ? "" : " ",
			 sqlite3_column_int(stmt, 0) == AUDIT_FLOW_ENDED ? "flow " : "",
			 (long long)sqlite3_column_int64(stmt, 1), (const char *)sqlite3_column_text(stmt, 2));
	}
	sqlite3_finalize(stmt);
	sqlite3_close(handle);
	return text;
}

/* Sessions of 100: 1 in the table before anything waits, 2 ends with 9 while it waits, 3 is claimed by 200 too, 5 began
 * as "ann" and was last seen as "bob", 6 has a flow that ends and one that does not.  7, of 300, is settled; 200 has 4.
 */
static void make_some(struct audit_store *s)
{
	struct audit_settling at = {.lost = is_gone, .arg = &(uint64_t){300}};
	struct audit_event *e;
	unsigned rows;

	record(s, 100, AUDIT_OPEN, 1);
	record(s, 300, AUDIT_OPEN, 7);
	begin(s);
	assert_int_equal(audit_store_settle(s, &at, 10, &rows, &why), 0);
	commit(s);
	record(s, 100, AUDIT_OPEN, 2);
	record(s, 100, AUDIT_OPEN, 3);
	record(s, 200, AUDIT_OPEN, 3);
	record(s, 200, AUDIT_ENDED, 3);
	record(s, 200, AUDIT_OPEN, 4);
	record(s, 100, AUDIT_ENDED, 2);
	record(s, 100, AUDIT_OPEN, 5);
	record(s, 200, AUDIT_CHECKPOINT, 5);
	begin(s);
	e = event_of(AUDIT_CHECKPOINT, 5);
	strcpy(e->user, "bob");
	append(s, 100, e);
	append(s, 100, event_of(AUDIT_OPEN, 9));
	append(s, 100, event_of(AUDIT_ENDED, 9));
	append(s, 100, event_of(AUDIT_OPEN, 6));
	append(s, 100, event_of(AUDIT_FLOW, 6));
	e = event_of(AUDIT_FLOW, 6);
	e->address.port = 53;
	append(s, 100, e);
	e->kind = AUDIT_FLOW_ENDED;
	append(s, 100, e);
	commit(s);
}

#define OF_100 "1:ann 3:ann 5:bob 6:ann flow 6:ann"

static void test_killed(void **state)
{
	struct audit_store *s;

	(void)state;
	killed_while(make_some);
	assert_int_equal(in_table(FIRST), 1); /* all else waited */
	must_be_sound();
	s = must_open(LARGE);
	must_be_sound();
	assert_string_equal(settle(s, 100), OF_100);
	assert_string_equal(settle(s, 100), "");
	must_be_sound();
	assert_string_equal(settle(s, 0), "4:ann");
	audit_store_close(&s);
	assert_int_equal(in_table(FIRST), 0);
	must_be_sound();
}

static void open_and_record(struct audit_store *s)
{
	record(s, 400, AUDIT_DENIED, 50);
}

/* Its successor is killed as well, before and after it has written anything. */
static void open_only(struct audit_store *s)
{
	(void)s;
}

static void test_killed_again(void **state)
{
	struct audit_store *s;

	(void)state;
	killed_while(make_some);
	killed_while(open_only);
	must_be_sound();
	killed_while(open_and_record);
	assert_int_equal(in_table(FIRST), 6);
	must_be_sound();
	s = must_open(LARGE);
	assert_string_equal(settle(s, 100), OF_100);
	audit_store_close(&s);
	must_be_sound();
}

static void test_closed(void **state)
{
	struct audit_store *s = must_open(LARGE);

	(void)state;
	make_some(s);
	assert_int_equal(in_table(FIRST), 1);
	audit_store_close(&s);
	assert_int_equal(in_table(FIRST), 6);
	must_be_sound();
	s = must_open(LARGE);
	assert_string_equal(settle(s, 100), OF_100);
	audit_store_close(&s);
}

/* What is rolled back takes the memory with it. */
static void test_rolled_back(void **state)
{
	struct audit_store *s = must_open(LARGE);

	(void)state;
	make_some(s);
	begin(s);
	append(s, 100, event_of(AUDIT_ENDED, 1));
	append(s, 100, event_of(AUDIT_OPEN, 8));
	audit_store_rollback(s);
	record(s, 100, AUDIT_DENIED, 50);
	must_be_sound();
	/* With all that is open in the table, and nothing that waits. */
	begin(s);
	append(s, 100, event_of(AUDIT_ENDED, 3));
	audit_store_rollback(s);
	assert_string_equal(settle(s, 100), OF_100);
	must_be_sound();
	audit_store_close(&s);
}

/* A batch that cannot begin, since what is behind the table cannot be read, leaves nothing of itself: once that can be
 * read, the next one begins, whether or not anybody has rolled back. */
static void test_begun_in_vain(void **state)
{
	struct audit_store *s = must_open(LARGE);

	(void)state;
	make_some(s);
	begin(s);
	audit_store_rollback(s);
	exec_sql("ALTER TABLE chain RENAME TO hidden");
	assert_int_equal(audit_store_begin(s, &why), -1);
	assert_int_equal(audit_store_begin(s, &why), -1);
	exec_sql("ALTER TABLE hidden RENAME TO chain");
	assert_string_equal(settle(s, 100), OF_100);
	must_be_sound();
	audit_store_close(&s);
}

/* A settling that is rolled back has not been. */
static void test_settled_and_rolled_back(void **state)
{
	struct audit_settling at = {.lost = is_gone};
	struct audit_store *s = must_open(LARGE);
	unsigned rows;

	(void)state;
	make_some(s);
	begin(s);
	append(s, 100, event_of(AUDIT_OPEN, 8));
	assert_int_equal(audit_store_settle(s, &at, 100, &rows, &why), 0);
	assert_int_equal(rows, 7);
	audit_store_rollback(s);
	assert_string_equal(settle(s, 100), OF_100);
	audit_store_close(&s);
	must_be_sound();
}

static void test_relaxed(void **state)
{
	struct audit_store *s = must_open(LARGE);

	(void)state;
	make_some(s);
	assert_int_equal(audit_store_relax(s, &why), 0);
	assert_string_equal(settle(s, 100), OF_100);
	must_be_sound();
	audit_store_close(&s);
}

/* ---- the next segment -------------------------------------------------------------------------------------------- */

static void test_segment_change(void **state)
{
	struct audit_store *s = must_open(LARGE);

	(void)state;
	make_some(s);
	later_us += DAY_US;
	record(s, 100, AUDIT_OPEN, 10);
	assert_int_equal(access(SECOND, F_OK), 0);
	assert_int_equal(in_table(SECOND), 6); /* and one that waits */
	must_be_sound();
	record(s, 100, AUDIT_ENDED, 3);
	assert_string_equal(settle(s, 100), "1:ann 5:bob 6:ann flow 6:ann 10:ann");
	audit_store_close(&s);
	must_be_sound();
}

/* By who has nothing in memory. */
static void test_segment_change_after_a_kill(void **state)
{
	struct audit_store *s;

	(void)state;
	killed_while(make_some);
	s = must_open(1);
	assert_string_equal(settle(s, 100), OF_100);
	assert_int_equal(access(SECOND, F_OK), 0);
	must_be_sound();
	audit_store_close(&s);
}

/* The key is lost as well, so that nobody can prove what the last rows are: they are taken as they stand. */
static void test_a_new_chain_after_a_kill(void **state)
{
	struct audit_store *s;

	(void)state;
	killed_while(make_some);
	assert_int_equal(unlink("chain.key"), 0);
	close(open("begin-new-chain", O_WRONLY | O_CREAT, 0600));
	s = must_open(LARGE);
	assert_string_equal(settle(s, 100), OF_100);
	audit_store_close(&s);
	assert_int_equal(in_table(FIRST), 6);
}

/* ---- when it is written ------------------------------------------------------------------------------------------ */

static void test_bounds(void **state)
{
	struct audit_store *s = must_open(LARGE);
	int64_t row = 0;

	(void)state;
	record(s, 100, AUDIT_OPEN, 1);
	assert_int_equal(mark_of(FIRST), ++row);
	record(s, 100, AUDIT_OPEN, 2);
	row++;
	assert_int_equal(mark_of(FIRST), 1);
	mono_us += 1000000;
	record(s, 100, AUDIT_DENIED, 50);
	assert_int_equal(mark_of(FIRST), ++row);
	assert_int_equal(in_table(FIRST), 2);
	/* By rows, whatever they tell. */
	for (int batch = 0; batch < 20; batch++) {
		begin(s);
		for (int i = 0; i < 1500; i++)
			append(s, 100, event_of(AUDIT_DENIED, 50));
		commit(s);
		row += 1500;
		assert_true(row - mark_of(FIRST) <= AUDIT_REPLAY_ROWS_MAX);
	}
	assert_true(mark_of(FIRST) < row);
	/* By sessions, in the middle of a batch. */
	begin(s);
	for (uint64_t i = 0; i < AUDIT_OPEN_CHANGES_MAX + 10; i++)
		append(s, 100, event_of(AUDIT_OPEN, 1000 + i));
	audit_store_rollback(s);
	record(s, 100, AUDIT_OPEN, 1000);
	begin(s);
	for (uint64_t i = 1; i < AUDIT_OPEN_CHANGES_MAX + 10; i++)
		append(s, 100, event_of(AUDIT_OPEN, 1000 + i));
	commit(s);
	assert_int_equal(in_table(FIRST), 3 + AUDIT_OPEN_CHANGES_MAX);
	must_be_sound();
	audit_store_close(&s);
	assert_int_equal(in_table(FIRST), 2 + AUDIT_OPEN_CHANGES_MAX + 10);
	must_be_sound();
}

/* Senders of whom nothing but what waits in memory tells that they have a session open are not forgotten. */
static void test_a_sender_whose_session_waits(void **state)
{
	struct audit_store *s = must_open(LARGE);
	uint64_t last;

	(void)state;
	record(s, 1, AUDIT_DENIED, 50);
	record(s, 7, AUDIT_OPEN, 1);
	for (uint64_t i = 0; i < AUDIT_SENDERS_MAX;) {
		begin(s);
		for (int n = 0; n < 200 && i < AUDIT_SENDERS_MAX; n++, i++)
			append(s, 1000 + i, event_of(AUDIT_DENIED, 50));
		commit(s);
	}
	assert_int_equal(audit_store_last(s, 1, &last, &why), 0);
	assert_int_equal(last, 0);
	assert_int_equal(audit_store_last(s, 7, &last, &why), 0);
	assert_int_not_equal(last, 0);
	audit_store_close(&s);
	must_be_sound();
}

struct fixture {
	struct db *db;
	struct audit_open open;
	int64_t row;
};

static void note(struct fixture *f, uint64_t incarnation, enum audit_kind kind, uint64_t session)
{
	assert_int_equal(audit_open_note(&f->open, incarnation, ++f->row, event_of(kind, session), &why), 0);
}

/* Statements that a flush takes, without the one that says how far it has come. */
static unsigned long flush(struct fixture *f)
{
	unsigned long before = f->open.statements;

	assert_int_equal(audit_open_flush(&f->open, f->row, &why), 0);
	return f->open.statements - before - 1;
}

static void test_what_it_costs(void **state)
{
	struct fixture f = {0};
	int64_t open;

	(void)state;
	f.db = audit_segment_open(FIRST, AUDIT_WRITE, &why);
	assert_int_equal(audit_open_prepare(&f.open, f.db, &why), 0);
	assert_int_equal(db_begin(f.db, &why), 0);
	assert_int_equal(audit_open_load(&f.open, &why), 0);
	for (uint64_t i = 1; i <= 1000; i++) {
		note(&f, 100, AUDIT_OPEN, i);
		note(&f, 100, AUDIT_CONNECTED, i);
		note(&f, 100, AUDIT_ENDED, i);
		note(&f, 100, AUDIT_FLOW, i);
		note(&f, 100, AUDIT_FLOW_ENDED, i);
		note(&f, 200, AUDIT_ENDED, 5000 + i); /* of which nobody has heard */
	}
	assert_int_equal(flush(&f), 0);
	note(&f, 100, AUDIT_OPEN, 1);
	note(&f, 100, AUDIT_CONNECTED, 1);
	assert_int_equal(flush(&f), 1); /* nothing is to be moved */
	note(&f, 100, AUDIT_CHECKPOINT, 1);
	note(&f, 100, AUDIT_CHECKPOINT, 1);
	assert_int_equal(flush(&f), 1);
	/* What another says of it is no change, and is not believed to be one. */
	note(&f, 200, AUDIT_OPEN, 1);
	note(&f, 200, AUDIT_ENDED, 1);
	assert_int_equal(flush(&f), 1);
	assert_int_equal(audit_open_count(&f.open, &open, &why), 0);
	assert_int_equal(open, 1);
	note(&f, 100, AUDIT_ENDED, 1);
	assert_int_equal(flush(&f), 1);
	note(&f, 100, AUDIT_OPEN, 1);
	note(&f, 100, AUDIT_ENDED, 1);
	assert_int_equal(flush(&f), 0);
	/* What is known of the table is known again after a rollback. */
	note(&f, 100, AUDIT_OPEN, 2);
	assert_int_equal(flush(&f), 1);
	assert_int_equal(db_commit(f.db, &why), 0);
	assert_int_equal(db_begin(f.db, &why), 0);
	note(&f, 100, AUDIT_ENDED, 2);
	note(&f, 100, AUDIT_OPEN, 3);
	assert_int_equal(flush(&f), 2);
	db_rollback(f.db);
	audit_open_drop(&f.open);
	assert_int_equal(db_begin(f.db, &why), 0);
	assert_int_equal(audit_open_load(&f.open, &why), 0);
	note(&f, 100, AUDIT_ENDED, 3);
	note(&f, 100, AUDIT_ENDED, 2);
	assert_int_equal(flush(&f), 1);
	assert_int_equal(audit_open_count(&f.open, &open, &why), 0);
	assert_int_equal(open, 0);
	db_rollback(f.db);
	audit_open_release(&f.open);
	db_close(&f.db);
}

/* ---- by chance --------------------------------------------------------------------------------------------------- */

static uint64_t draws;

static uint32_t draw(uint32_t n)
{
	draws += 0x9e3779b97f4a7c15;
	uint64_t z = (draws ^ draws >> 30) * 0xbf58476d1ce4e5b9;

	return (uint32_t)((z ^ z >> 31) % n);
}

/* Any event of one of three processes about one of a few sessions, or of their flows, whoever has begun it. */
static void any_event(struct audit_store *s, uint64_t *sequences)
{
	static const enum audit_kind kinds[] = {AUDIT_OPEN, AUDIT_CONNECTED,	   AUDIT_CHECKPOINT, AUDIT_ENDED,
						AUDIT_FLOW, AUDIT_FLOW_CHECKPOINT, AUDIT_FLOW_ENDED, AUDIT_DENIED};
	struct audit_event *e = event_of(kinds[draw(8)], 1 + draw(6));
	unsigned sender = draw(3);

	e->address.port = draw(2) == 0 ? 53 : 443;
	assert_int_equal(audit_store_append(s, 100 + sender, ++sequences[sender], e, &why), 1);
}

static void do_anything(struct audit_store *s)
{
	uint64_t sequences[3], before[3];

	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(audit_store_last(s, 100 + i, &sequences[i], &why), 0);
	for (unsigned i = draw(12); i > 0; i--) {
		struct audit_settling at = {.lost = is_gone, .arg = &(uint64_t){100 + draw(3)}};
		unsigned rows;

		memcpy(before, sequences, sizeof before);
		mono_us += draw(4) == 0 ? 400000 : 0;
		later_us += draw(40) == 0 ? DAY_US : 0;
		begin(s);
		for (unsigned n = 1 + draw(9); n > 0; n--)
			any_event(s, sequences);
		if (draw(10) == 0)
			assert_int_equal(audit_store_settle(s, &at, 100, &rows, &why), 0);
		for (unsigned n = draw(3); n > 0; n--)
			any_event(s, sequences);
		if (draw(8) == 0) {
			audit_store_rollback(s);
			memcpy(sequences, before, sizeof before);
		} else {
			commit(s);
		}
	}
}

/* Whoever verifies derives from all rows what is open, and compares. */
static void test_killed_at_any_time(void **state)
{
	const char *seed = getenv("AUDIT_SEED"), *times = getenv("AUDIT_OPEN_ROUNDS");
	unsigned rounds = times != NULL ? (unsigned)atoi(times) : 40;
	struct audit_store *s;

	(void)state;
	draws = seed != NULL ? strtoull(seed, NULL, 10) : 1;
	for (unsigned i = 0; i < rounds; i++) {
		draws += 1000;
		killed_while(do_anything);
		must_be_sound();
		s = must_open(LARGE);
		if (draw(3) == 0)
			record(s, 400, AUDIT_DENIED, 50);
		audit_store_close(&s);
		must_be_sound();
	}
}

/* ---- who says up to where it is true ----------------------------------------------------------------------------- */

static const char *const files[] = {FIRST, "chain.key", "chain.head"};

static void copy(const char *from, const char *to)
{
	static char buf[1 << 20];
	int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	ssize_t n = read(in, buf, sizeof buf);

	assert_true(in >= 0 && out >= 0 && n > 0 && n < (ssize_t)sizeof buf);
	assert_int_equal(write(out, buf, (size_t)n), n);
	close(in);
	close(out);
}

static void copy_all(bool back)
{
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		char saved[64];

		snprintf(saved, sizeof saved, "saved-%s", files[i]);
		copy(back ? saved : files[i], back ? files[i] : saved);
	}
	if (back) {
		unlink(FIRST "-wal");
		unlink(FIRST "-shm");
	}
}

/* Found, or without effect: 1, 0. */
static int judge(const char *sql)
{
	struct audit_store *s;
	bool found;

	exec_sql(sql);
	found = findings(true) > 0;
	s = must_open(LARGE);
	if (strcmp(settle(s, 100), OF_100) != 0 && !found)
		fail_msg("%s: it is not found, and settles another way: %s", sql, settle(s, 100));
	audit_store_close(&s);
	copy_all(true);
	return found;
}

static void test_the_mark_is_edited(void **state)
{
	static const struct {
		const char *sql;
		int found; /* -1: it may be */
	} edits[] = {
#define MARK "UPDATE open_session SET event = "
#define OF_MARK " WHERE session = 0"
		{MARK "event + 1" OF_MARK, -1},
		{MARK "(SELECT max(id) FROM event)" OF_MARK, 1},
		{MARK "(SELECT max(id) + 1 FROM event)" OF_MARK, 1},
		{MARK "9223372036854775807" OF_MARK, 1},
		{MARK "-1" OF_MARK, 1},
		{MARK "(-9223372036854775807 - 1)" OF_MARK, 1},
		{MARK "0" OF_MARK, 1}, /* what was settled would be open again */
		{MARK "event - 1" OF_MARK, -1},
		{"DELETE FROM open_session" OF_MARK, 1},
		{"UPDATE open_session SET incarnation = 1" OF_MARK, 1},
		{"UPDATE open_session SET flow = 1" OF_MARK, 1},
		{"INSERT INTO open_session VALUES (0, 5, 0, 1)", 1},
		{"UPDATE open_session SET event = 0 WHERE session = 1", 1},
		{"UPDATE open_session SET event = -1 WHERE session = 1", 1},
		{"INSERT INTO open_session VALUES (2, 0, 100, 4)", 0}, /* the rows behind close it */
		{"INSERT INTO open_session VALUES (4, 0, 300, 4)", 1},
		/* What the chain says of the last rows. */
		{"UPDATE chain SET body = x'' WHERE kind = 0", 1},
		{"UPDATE chain SET body = substr(body, 1, 20) WHERE kind = 0", 1},
		{"UPDATE chain SET body = substr(body, 1, length(body) - 3) WHERE kind = 0", 1},
		{"UPDATE chain SET body = zeroblob(length(body)) WHERE kind = 0", 1},
		{"UPDATE chain SET first = 9223372036854775807 WHERE kind = 0 AND id < (SELECT max(id) FROM chain)", 1},
		{"UPDATE chain SET count = 9223372036854775807 WHERE kind = 0 AND id < (SELECT max(id) FROM chain)", 1},
		{"UPDATE chain SET first = -5 WHERE kind = 0 AND id < (SELECT max(id) FROM chain)", 1},
		{"UPDATE chain SET first = 1 WHERE kind = 0 AND id < (SELECT max(id) FROM chain)", 1},
		{"DELETE FROM event WHERE id > 4 AND id % 2 = 0", 1},
		{"UPDATE event SET kind = 99, session = 7 WHERE id > 4 AND id % 3 = 0", 1},
		{"UPDATE event SET session = 7, name = hex(randomblob(9000)), address = x'00' "
		 "WHERE id > 4 AND id % 3 = 0",
		 1},
	};

	(void)state;
	killed_while(make_some);
	exec_sql("PRAGMA wal_checkpoint(TRUNCATE)");
	copy_all(false);
	assert_int_equal(judge("SELECT 1"), 0);
	for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
		int found = judge(edits[i].sql);

		if (edits[i].found >= 0 && found != edits[i].found)
			fail_msg("%s: it is %sfound", edits[i].sql, found ? "" : "not ");
	}
	/* Each row that there is. */
	for (int64_t row = 0; row <= number(FIRST, "SELECT max(id) FROM event"); row++) {
		char sql[100];

		snprintf(sql, sizeof sql, MARK "%lld" OF_MARK, (long long)row);
		judge(sql);
	}
	must_be_sound();
}

/* A segment of before has no mark: its table is true. */
static void test_a_segment_of_before(void **state)
{
	struct audit_store *s = must_open(LARGE);

	(void)state;
	make_some(s);
	audit_store_close(&s);
	exec_sql("DELETE FROM open_session WHERE session = 0");
	must_be_sound();
	killed_while(open_and_record);
	must_be_sound();
	s = must_open(LARGE);
	assert_string_equal(settle(s, 100), OF_100);
	audit_store_close(&s);
	must_be_sound();
}

static int setup(void **state)
{
	mono_us = 1;
	later_us = 0;
	log_init("test", LOG_ERROR);
	return scratch_enter(state);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, scratch_leave)
	const struct CMUnitTest tests[] = {
		TEST(test_killed),
		TEST(test_killed_again),
		TEST(test_closed),
		TEST(test_rolled_back),
		TEST(test_begun_in_vain),
		TEST(test_settled_and_rolled_back),
		TEST(test_relaxed),
		TEST(test_segment_change),
		TEST(test_segment_change_after_a_kill),
		TEST(test_a_new_chain_after_a_kill),
		TEST(test_bounds),
		TEST(test_a_sender_whose_session_waits),
		TEST(test_what_it_costs),
		TEST(test_killed_at_any_time),
		TEST(test_the_mark_is_edited),
		TEST(test_a_segment_of_before),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
