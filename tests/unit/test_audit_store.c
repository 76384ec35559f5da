#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include <sqlite3.h>
#include <sys/stat.h>

#include "schema/audit_query.h"
#include "schema/audit_store.h"
#include "schema/migrations.h"
#include "tests/unit/scratch.h"

static struct err why;

#define SEGMENT "audit-00000001.db"
#define LARGE (1u << 30)

static struct audit_store *must_open(void)
{
	struct audit_store *s = audit_store_open(LARGE, &why);

	if (s == NULL)
		fail_msg("%s", why.text);
	return s;
}

static struct audit_archive *must_read(void)
{
	struct audit_archive *a = audit_archive_open(&why);

	if (a == NULL)
		fail_msg("%s", why.text);
	return a;
}

static struct audit_event event(const char *user, const char *name, int64_t time_us)
{
	struct audit_event e = {
		.kind = AUDIT_OPEN, .time_us = time_us, .session = 0xf000000000000000 + (uint64_t)time_us};

	snprintf(e.user, sizeof e.user, "%s", user);
	snprintf(e.name, sizeof e.name, "%s", name);
	e.client = (struct endpoint){.addr = addr_v4(0xc0000201), .port = 40000};
	e.address = (struct endpoint){.addr = addr_v4(0xcb007107), .port = 443};
	return e;
}

static void add(struct audit_store *s, uint64_t incarnation, uint64_t sequence, const struct audit_event *e)
{
	assert_int_equal(audit_store_begin(s, &why), 0);
	assert_int_equal(audit_store_append(s, incarnation, sequence, e, &why), 1);
	assert_int_equal(audit_store_commit(s, &why), 0);
}

/* What an answer held: names in order, joined by spaces. */
struct answer {
	char names[4096];
	unsigned rows, pages;
	struct audit_event last;
};

static bool on_row(uint64_t id, const struct audit_event *e, void *arg)
{
	struct answer *a = arg;
	size_t used = strlen(a->names);

	(void)id;
	snprintf(a->names + used, sizeof a->names - used, "%s%s", used == 0 ? "" : " ", e->name);
	a->rows++;
	a->last = *e;
	return true;
}

static struct answer ask_paged(struct audit_store *s, const struct audit_filter *f, uint64_t rows_a_page)
{
	static struct answer a;
	struct audit_archive *archive = must_read();
	struct audit_query *q = audit_query_new(archive, f, &why);
	int rc;

	(void)s; /* while it is written */

	a = (struct answer){0};
	assert_non_null(q);
	do {
		rc = audit_query_page(q, rows_a_page, 1000000, on_row, &a);
		a.pages++;
	} while (rc == 1);
	assert_int_equal(rc, 0);
	assert_int_equal(audit_query_rows(q), a.rows);
	assert_string_equal(audit_archive_damage(archive), "");
	audit_query_free(&q);
	audit_archive_close(&archive);
	return a;
}

static struct answer ask(struct audit_store *s, const struct audit_filter *f)
{
	return ask_paged(s, f, 1000);
}

static unsigned count(struct audit_store *s)
{
	const struct audit_filter all = {0};

	return ask(s, &all).rows;
}

/* ---- writing -------------------------------------------------------------------------------------------------------
 */

static void test_private_and_reopened(void **state)
{
	struct audit_event e = event("ann", "a.example", 1000);
	struct audit_store *s = must_open();
	struct audit_store_status status;
	struct audit_archive *archive;
	struct audit_counts counts;
	struct stat st;
	uint64_t last;

	(void)state;
	audit_store_status(s, &status);
	assert_int_equal(status.rows, 0);
	add(s, 7, 1, &e);
	audit_store_close(&s);
	assert_null(s);
	static const char *const files[] = {SEGMENT, "chain.key", "chain.head", "first.key"};

	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		assert_int_equal(stat(files[i], &st), 0);
		assert_int_equal(st.st_mode & 07777, 0600);
	}
	s = must_open();
	assert_int_equal(audit_store_last(s, 7, &last, &why), 0);
	assert_int_equal(last, 1);
	assert_int_equal(audit_store_last(s, 8, &last, &why), 0);
	assert_int_equal(last, 0);
	audit_store_status(s, &status);
	assert_int_equal(status.rows, 1);
	archive = must_read();
	audit_archive_counts(archive, &counts);
	assert_int_equal(counts.rows, 1);
	assert_int_equal(counts.oldest_us, 1000);
	audit_archive_close(&archive);
	audit_store_close(&s);
}

static void test_dedupe(void **state)
{
	struct audit_event e = event("ann", "a.example", 1000);
	struct audit_store *s = must_open();
	const uint64_t big = UINT64_MAX - 5; /* incarnations are any 64 bits */

	(void)state;
	assert_int_equal(audit_store_begin(s, &why), 0);
	assert_int_equal(audit_store_append(s, big, 1, &e, &why), 1);
	assert_int_equal(audit_store_append(s, big, 1, &e, &why), 0);
	assert_int_equal(audit_store_append(s, 2, 1, &e, &why), 1);
	assert_int_equal(audit_store_append(s, big, 2, &e, &why), 1);
	assert_int_equal(audit_store_commit(s, &why), 0);
	audit_store_close(&s);
	s = must_open();
	assert_int_equal(audit_store_begin(s, &why), 0);
	assert_int_equal(audit_store_append(s, big, 1, &e, &why), 0);
	assert_int_equal(audit_store_append(s, big, 2, &e, &why), 0);
	assert_int_equal(audit_store_append(s, big, 3, &e, &why), 1);
	assert_int_equal(audit_store_commit(s, &why), 0);
	assert_int_equal(count(s), 4);
	audit_store_close(&s);
}

static void test_rollback(void **state)
{
	struct audit_event e = event("ann", "a.example", 1000);
	struct audit_store *s = must_open();
	uint64_t last;

	(void)state;
	add(s, 7, 1, &e);
	assert_int_equal(audit_store_begin(s, &why), 0);
	assert_int_equal(audit_store_append(s, 7, 2, &e, &why), 1);
	audit_store_rollback(s);
	assert_int_equal(count(s), 1);
	assert_int_equal(audit_store_last(s, 7, &last, &why), 0);
	assert_int_equal(last, 1);
	add(s, 7, 2, &e); /* not taken for a duplicate */
	assert_int_equal(count(s), 2);
	audit_store_close(&s);
}

static void test_senders_are_forgotten(void **state)
{
	struct audit_event e = {.kind = AUDIT_START};
	struct audit_store *s = must_open();
	uint64_t last;

	(void)state;
	for (uint64_t i = 1; i <= AUDIT_SENDERS_MAX + 10; i += 10) {
		assert_int_equal(audit_store_begin(s, &why), 0);
		for (uint64_t k = i; k < i + 10; k++)
			assert_int_equal(audit_store_append(s, k, 1, &e, &why), 1);
		assert_int_equal(audit_store_append(s, 1, i + 1, &e, &why), 1); /* sends on: never the least recent */
		assert_int_equal(audit_store_commit(s, &why), 0);
	}
	assert_int_equal(audit_store_last(s, 1, &last, &why), 0);
	assert_true(last > AUDIT_SENDERS_MAX);
	assert_int_equal(audit_store_last(s, 2, &last, &why), 0);
	assert_int_equal(last, 0);
	assert_int_equal(audit_store_last(s, AUDIT_SENDERS_MAX, &last, &why), 0);
	assert_int_equal(last, 1);
	audit_store_close(&s);
}

/* An incarnation is any 64 bits, and must not be taken for the time when the next sender of its batch was seen. */
static void test_a_live_sender_is_not_forgotten(void **state)
{
	struct audit_event e = {.kind = AUDIT_START};
	struct audit_store *s = must_open();
	const uint64_t low = (uint64_t)INT64_MIN, live = 7, silent = 8;
	uint64_t last;

	(void)state;
	add(s, silent, 1, &e);
	for (uint64_t i = 1; i <= AUDIT_SENDERS_MAX; i++) {
		assert_int_equal(audit_store_begin(s, &why), 0);
		assert_int_equal(audit_store_append(s, low + i, 1, &e, &why), 1);
		assert_int_equal(audit_store_append(s, live, i, &e, &why), 1);
		assert_int_equal(audit_store_commit(s, &why), 0);
	}
	assert_int_equal(audit_store_last(s, live, &last, &why), 0);
	assert_int_equal(last, AUDIT_SENDERS_MAX);
	assert_int_equal(audit_store_last(s, silent, &last, &why), 0);
	assert_int_equal(last, 0);
	audit_store_close(&s);
}

/* Nor for the time of a batch that adds no row, because all in it is durable already. */
static void test_a_sender_that_repeats_is_not_forgotten(void **state)
{
	struct audit_event e = {.kind = AUDIT_START};
	struct audit_store *s = must_open();
	const uint64_t low = (uint64_t)INT64_MIN, live = 7;
	uint64_t last;

	(void)state;
	add(s, live, 1, &e);
	for (uint64_t i = 1; i <= AUDIT_SENDERS_MAX; i++) {
		add(s, low + i, 1, &e);
		assert_int_equal(audit_store_begin(s, &why), 0);
		assert_int_equal(audit_store_append(s, live, 1, &e, &why), 0);
		assert_int_equal(audit_store_commit(s, &why), 0);
	}
	assert_int_equal(audit_store_last(s, live, &last, &why), 0);
	assert_int_equal(last, 1);
	audit_store_close(&s);
}

/* A batch takes so many senders and no more; who is turned away is welcome in the next. */
static void test_a_batch_ends_at_its_last_sender(void **state)
{
	struct audit_event e = {.kind = AUDIT_START};
	struct audit_store *s = must_open();
	const uint64_t senders = 1000;
	uint64_t last, batches = 0, i = 1;

	(void)state;
	while (i <= senders) {
		int rc = 1;

		assert_int_equal(audit_store_begin(s, &why), 0);
		for (; i <= senders && (rc = audit_store_append(s, i, 1, &e, &why)) == 1; i++)
			;
		assert_int_equal(rc, i > senders ? 1 : AUDIT_APPEND_LATER);
		if (i <= senders) /* who is in it may go on */
			assert_int_equal(audit_store_append(s, i - 1, 2, &e, &why), 1);
		assert_int_equal(audit_store_commit(s, &why), 0);
		batches++;
	}
	assert_true(batches > 1 && batches < 10);
	for (i = 1; i <= senders; i++) {
		assert_int_equal(audit_store_last(s, i, &last, &why), 0);
		assert_true(last >= 1);
	}
	assert_int_equal(count(s), senders + batches - 1);
	audit_store_close(&s);
}

static void test_every_field(void **state)
{
	struct audit_event in = event("ann", "a.example", 1795635001123456);
	struct audit_store *s = must_open();
	struct audit_filter all = {0};

	(void)state;
	in.kind = AUDIT_ENDED;
	in.address.addr = (struct addr){.family = ADDR_V6, .bytes = {0x20, 1, 0xd, 0xb8, [15] = 1}};
	in.bytes_up = 1;
	in.bytes_down = INT64_MAX;
	in.duration_us = 5;
	in.revision = UINT32_MAX;
	strcpy(in.listener, "lan");
	strcpy(in.method, "password");
	strcpy(in.command, "connect");
	strcpy(in.rule, "no-malware");
	strcpy(in.reason, "client closed");
	strcpy(in.detail, "{\"a\":1}");
	add(s, 1, 1, &in);
	struct answer a = ask(s, &all);
	struct audit_event *out = &a.last;

	assert_int_equal(out->kind, AUDIT_ENDED);
	assert_true(out->session == in.session && out->time_us == in.time_us && out->bytes_down == in.bytes_down);
	assert_true(out->bytes_up == 1 && out->duration_us == 5 && out->revision == UINT32_MAX);
	assert_true(addr_equal(&out->client.addr, &in.client.addr) && out->client.port == 40000);
	assert_true(addr_equal(&out->address.addr, &in.address.addr) && out->address.port == 443);
	assert_string_equal(out->listener, "lan");
	assert_string_equal(out->user, "ann");
	assert_string_equal(out->method, "password");
	assert_string_equal(out->command, "connect");
	assert_string_equal(out->rule, "no-malware");
	assert_string_equal(out->reason, "client closed");
	assert_string_equal(out->detail, "{\"a\":1}");
	audit_store_close(&s);
}

static void test_hostile_bytes_in_every_text(void **state)
{
	struct audit_store *s = must_open();
	struct audit_event e = {.kind = AUDIT_DENIED, .time_us = 1};
	char bytes[256];
	struct audit_filter all = {0};

	(void)state;
	for (int i = 0; i < 255; i++)
		bytes[i] = (char)(i + 1);
	bytes[255] = '\0';
	memcpy(e.user, bytes, 256);
	memcpy(e.rule, bytes, 256);
	memcpy(e.reason, bytes, 256);
	memcpy(e.detail, bytes, 256);
	memcpy(e.name, bytes, NAME_MAX_LEN);
	strcpy(e.method, "'; DROP TABLE e");
	strcpy(e.command, "\xff\xfe?1");
	strcpy(e.listener, "\"); DELETE FROM event; --");
	add(s, 1, 1, &e);
	struct answer a = ask(s, &all);

	assert_int_equal(a.rows, 1);
	assert_memory_equal(a.last.user, e.user, 256);
	assert_memory_equal(a.last.rule, e.rule, 256);
	assert_memory_equal(a.last.reason, e.reason, 256);
	assert_memory_equal(a.last.detail, e.detail, 256);
	assert_string_equal(a.last.name, e.name);
	assert_string_equal(a.last.method, e.method);
	assert_string_equal(a.last.command, e.command);
	assert_string_equal(a.last.listener, e.listener);
	struct audit_filter by_user = {0};

	memcpy(by_user.user, bytes, 256);
	assert_int_equal(ask(s, &by_user).rows, 1);
	audit_store_close(&s);
}

static bool everybody_is_gone(uint64_t incarnation, void *arg)
{
	assert_int_equal(incarnation, 0);
	(void)arg;
	return true;
}

static void exec_sql(const char *file, const char *sql)
{
	sqlite3 *handle;

	assert_int_equal(sqlite3_open(file, &handle), SQLITE_OK);
	if (sqlite3_exec(handle, sql, NULL, NULL, NULL) != SQLITE_OK)
		fail_msg("%s: %s", sql, sqlite3_errmsg(handle));
	assert_int_equal(sqlite3_close(handle), SQLITE_OK);
}

/* A store of the first version, with a session that a crash left open, one that ended, and one that was denied. */
static void test_migrated_from_the_first_version(void **state)
{
	struct audit_settling at = {.lost = everybody_is_gone};
	struct audit_filter f = {.oldest_first = true};
	struct audit_store *s;
	unsigned rows;

	(void)state;
	exec_sql("audit.db", schema_audit_migrations[0]);
	exec_sql("audit.db", "PRAGMA application_id=1735876981; PRAGMA user_version=1;"
			     "INSERT INTO event (id, time, kind, session, user, name) VALUES (1, 1, 0, 7, 'ann', 'a'), "
			     "(2, 2, 1, 7, 'ann', 'a'), (3, 3, 0, -8, 'bob', 'b'), (4, 4, 3, -8, 'bob', 'b'), "
			     "(5, 5, 2, 9, 'eve', 'c'), (6, 6, 7, NULL, NULL, 'd')");
	s = must_open();
	assert_int_equal(audit_store_begin(s, &why), 0);
	assert_int_equal(audit_store_settle(s, &at, 100, &rows, &why), 0);
	assert_int_equal(audit_store_commit(s, &why), 0);
	assert_int_equal(rows, 1);
	struct answer a = ask(s, &f);

	assert_string_equal(a.names, "a a b b c d a");
	assert_true(a.last.kind == AUDIT_ENDED && a.last.session == 7);
	assert_string_equal(a.last.user, "ann");
	audit_store_close(&s);
}

/* ---- asking
 * ---------------------------------------------------------------------------------------------------------- */

static void fill(struct audit_store *s)
{
	static const struct {
		const char *user, *name;
		enum audit_kind kind;
		uint32_t client, address;
	} rows[] = {
		{"ann", "example.test", AUDIT_OPEN, 0x0a000001, 0xcb007101},	  /* 1000: 10.0.0.1 -> 203.0.113.1 */
		{"bob", "www.example.test", AUDIT_OPEN, 0x0a000002, 0xcb007102},  /* 2000 */
		{"ann", "evilexample.test", AUDIT_DENIED, 0x0a000101, 0},	  /* 3000: 10.0.1.1 */
		{"bob", "test", AUDIT_LOGIN_FAILED, 0x0a000002, 0},		  /* 4000 */
		{"anna", "", AUDIT_OPEN, 0xc0000201, 0xcb007203},		  /* 5000: 192.0.2.1 -> 203.0.114.3 */
		{"ann", "a.b.example.test", AUDIT_ENDED, 0x0a000001, 0xcb007101}, /* 6000 */
	};

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct audit_event e = event(rows[i].user, rows[i].name, (int64_t)(i + 1) * 1000);

		e.kind = rows[i].kind;
		e.client.addr = addr_v4(rows[i].client);
		if (rows[i].address == 0)
			e.address.addr = (struct addr){0};
		else
			e.address.addr = addr_v4(rows[i].address);
		add(s, 1, i + 1, &e);
	}
}

static void expect(struct audit_store *s, struct audit_filter f, const char *names)
{
	f.oldest_first = true;
	assert_string_equal(ask(s, &f).names, names);
	/* The same in pages of one row, and the other way round. */
	assert_string_equal(ask_paged(s, &f, 1).names, names);
	unsigned rows = ask(s, &f).rows;

	f.oldest_first = false;
	assert_int_equal(ask_paged(s, &f, 2).rows, rows);
}

static struct audit_filter to(const char *text)
{
	struct audit_filter f = {0};

	if (audit_filter_to(&f, text, &why) != 0)
		fail_msg("%s: %s", text, why.text);
	return f;
}

static void test_destinations(void **state)
{
	struct audit_store *s = must_open();

	(void)state;
	fill(s);
	expect(s, to("example.test"), "example.test");
	expect(s, to("Example.TEST."), "example.test");
	expect(s, to(".example.test"), "example.test www.example.test a.b.example.test");
	expect(s, to("*.example.test"), "www.example.test a.b.example.test");
	expect(s, to(".test"), "example.test www.example.test evilexample.test test a.b.example.test");
	expect(s, to("xample.test"), "");
	expect(s, to(".xample.test"), "");
	expect(s, to("203.0.113.1"), "example.test a.b.example.test");
	expect(s, to("203.0.113.0/24"), "example.test www.example.test a.b.example.test");
	assert_int_equal(ask(s, &(struct audit_filter){.to = AUDIT_TO_PREFIX}).rows,
			 2); /* 0/0 of no family: the absent ones */
	expect(s, to("2001:db8::/32"), "");
	expect(s, to("0xcb007101"), "example.test a.b.example.test"); /* an address in disguise */
	audit_store_close(&s);
}

static void test_destinations_refused(void **state)
{
	static const char *const wrong[] = {"", ".", "*.", "203.0.113.1/24", "1.2.3.4/33", "a/b", ".1.2.3.4"};
	struct audit_filter f;

	(void)state;
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
		assert_int_equal(audit_filter_to(&f, wrong[i], &why), -1);
}

static void test_users_clients_kinds(void **state)
{
	struct audit_store *s = must_open();
	struct audit_filter f = {.user = "ann"};
	bool host_bits;

	(void)state;
	fill(s);
	expect(s, f, "example.test evilexample.test a.b.example.test");
	f = (struct audit_filter){0};
	assert_true(prefix_parse("10.0.0.0/24", &f.client, &host_bits));
	expect(s, f, "example.test www.example.test test a.b.example.test");
	f.kinds = 1u << AUDIT_ENDED;
	expect(s, f, "a.b.example.test");
	f = (struct audit_filter){0};
	assert_int_equal(audit_filter_verdict(&f, "deny", &why), 0);
	expect(s, f, "evilexample.test test");
	f = (struct audit_filter){0};
	assert_int_equal(audit_filter_verdict(&f, "allow", &why), 0);
	expect(s, f, "example.test www.example.test ");
	assert_int_equal(audit_filter_verdict(&f, "deny", &why), -1);
	assert_int_equal(audit_filter_verdict(&f, "maybe", &why), -1);
	audit_store_close(&s);
}

/* What walks along ids is filtered no less. */
static void test_everything_holds_after_a_row(void **state)
{
	struct audit_store *s = must_open();

	(void)state;
	fill(s);
	expect(s, (struct audit_filter){.after = 1, .until_us = 4000}, "www.example.test evilexample.test");
	expect(s, (struct audit_filter){.after = 1, .since_us = 4000, .until_us = 5001}, "test ");
	expect(s, (struct audit_filter){.id = 3, .until_us = 3000}, "");
	expect(s, (struct audit_filter){.id = 3, .since_us = 3000}, "evilexample.test");
	expect(s, (struct audit_filter){.after = 1, .session = 0xf000000000000000 + 3000}, "evilexample.test");
	expect(s, (struct audit_filter){.after = 3, .session = 0xf000000000000000 + 3000}, "");
	audit_store_close(&s);
}

static void test_times_sessions_limits(void **state)
{
	struct audit_store *s = must_open();
	struct audit_filter f = {.since_us = 2000, .until_us = 4000};

	(void)state;
	fill(s);
	expect(s, f, "www.example.test evilexample.test");
	f = (struct audit_filter){.session = 0xf000000000000000 + 3000};
	expect(s, f, "evilexample.test");
	f.since_us = 3001;
	expect(s, f, "");
	f = (struct audit_filter){.limit = 2};
	assert_string_equal(ask(s, &f).names, "a.b.example.test ");
	f.oldest_first = true;
	assert_string_equal(ask_paged(s, &f, 1).names, "example.test www.example.test");
	struct audit_archive *archive = must_read();
	struct audit_query *q = audit_query_new(archive, &f, &why);
	struct answer a = {0};

	assert_int_equal(audit_query_page(q, 1000, 1000000, on_row, &a), 0);
	assert_true(audit_query_cut(q));
	assert_int_equal(audit_query_page(q, 1000, 1000000, on_row, &a), 0);
	assert_int_equal(a.rows, 2);
	audit_query_free(&q);
	audit_archive_close(&archive);
	audit_store_close(&s);
}

#define SUMMED_ROWS 3000

struct summed {
	bool seen[SUMMED_ROWS + 1];
	unsigned rows;
	bool in_order, whole;
	uint64_t last;
};

static bool on_summed(uint64_t id, const struct audit_event *e, void *arg)
{
	struct summed *all = arg;
	char rule[16];

	snprintf(rule, sizeof rule, "r%u", (unsigned)(id % 5));
	if (id <= SUMMED_ROWS)
		all->seen[id] = true;
	all->rows++;
	all->in_order &= id > all->last;
	all->last = id;
	all->whole &= strcmp(e->rule, rule) == 0 && e->bytes_up == id && e->bytes_down == 2 * id && strcmp(e->detail, "{\"d\":1}") == 0 &&
		      e->kind == (id % 2 == 0 ? AUDIT_OPEN : AUDIT_ENDED);
	return true;
}

/* In pages of max rows. */
static struct summed sum(struct audit_query *q, uint64_t max)
{
	struct summed all = {.in_order = true, .whole = true};

	assert_non_null(q);
	while (audit_query_page(q, max, 1000000, on_summed, &all) == 1)
		;
	audit_query_free(&q);
	return all;
}

/* Whoever sums up gets the same rows, however their times lie, with what sums are made of. */
static void test_rows_for_sums(void **state)
{
	struct audit_store *s = audit_store_open(64 * 1024, &why);
	const struct audit_filter filters[] = {
		{0}, {.since_us = 20000, .until_us = 70000}, {.kinds = 1u << AUDIT_ENDED}, {.rule = "r3", .since_us = 5000}, {.until_us = 10},
	};
	const struct audit_filter others[] = {{.user = "ann", .since_us = 20000}, {.revision = 7}, {.after = 2900}};
	uint64_t x = 1;

	(void)state;
	for (unsigned i = 1; i <= SUMMED_ROWS; i++) {
		struct audit_event e = event("ann", "a.example", 1000 + (int64_t)((x = x * 6364136223846793005 + 1) >> 33) % 90000);

		e.kind = i % 2 == 0 ? AUDIT_OPEN : AUDIT_ENDED;
		e.revision = 7;
		e.bytes_up = i;
		e.bytes_down = 2 * i;
		snprintf(e.rule, sizeof e.rule, "r%u", i % 5);
		strcpy(e.detail, "{\"d\":1}");
		if (i % 100 == 1)
			assert_int_equal(audit_store_begin(s, &why), 0);
		assert_int_equal(audit_store_append(s, 7, i, &e, &why), 1);
		if (i % 100 == 0)
			assert_int_equal(audit_store_commit(s, &why), 0);
	}
	struct audit_archive *archive = must_read();

	for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
		for (uint64_t max = 1; max <= 1000; max += 333) {
			struct summed one = sum(audit_query_new(archive, &filters[i], &why), 1000);
			struct summed other = sum(audit_query_sums(archive, &filters[i], &why), max);

			assert_true(other.in_order && other.whole);
			assert_int_equal(other.rows, one.rows);
			assert_memory_equal(other.seen, one.seen, sizeof one.seen);
			assert_int_equal(one.rows == 0, i == 4);
		}
	/* What looks at other columns is answered as ever. */
	for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
		struct summed one = sum(audit_query_new(archive, &others[i], &why), 1000);
		struct summed other = sum(audit_query_sums(archive, &others[i], &why), 10);

		assert_true(other.whole && other.rows == one.rows && one.rows > 0);
		assert_memory_equal(other.seen, one.seen, sizeof one.seen);
	}
	audit_archive_close(&archive);
	audit_store_close(&s);
}

/* Pages end by time even if no row matches, and equal times lose no row at a page's border. */
static void test_pages(void **state)
{
	struct audit_store *s = must_open();
	struct audit_filter f = {.rule = "none"};
	struct answer a = {0};
	unsigned pages = 1;
	int rc;

	(void)state;
	assert_int_equal(audit_store_begin(s, &why), 0);
	for (unsigned i = 1; i <= 5000; i++) {
		struct audit_event e = event("ann", "x", 1000 + i / 1000);

		assert_int_equal(audit_store_append(s, 1, i, &e, &why), 1);
	}
	assert_int_equal(audit_store_commit(s, &why), 0);
	struct audit_archive *archive = must_read();
	struct audit_query *q = audit_query_new(archive, &f, &why);

	while ((rc = audit_query_page(q, 1000, 0, on_row, &a)) == 1)
		pages++;
	assert_int_equal(rc, 0);
	assert_int_equal(pages, 5000 / 64 + 1);
	audit_query_free(&q);
	audit_archive_close(&archive);
	f.rule[0] = '\0';
	assert_int_equal(ask_paged(s, &f, 7).rows, 5000);
	f.oldest_first = true;
	assert_int_equal(ask_paged(s, &f, 7).rows, 5000);
	audit_store_close(&s);
}

struct order {
	int64_t time, step;
	uint64_t id;
	unsigned rows;
};

static bool in_order(uint64_t id, const struct audit_event *e, void *arg)
{
	struct order *o = arg;

	assert_string_equal(e->user, "ann");
	if (o->rows++ > 0)
		assert_true((e->time_us - o->time) * o->step > 0 ||
			    (e->time_us == o->time && ((int64_t)id - (int64_t)o->id) * o->step > 0));
	o->time = e->time_us;
	o->id = id;
	return true;
}

/* In a segment that is written, which has no index of users, and in more rows than are sorted at a time. */
static void test_one_user_of_many(void **state)
{
	struct audit_store *s = must_open();
	struct audit_filter f = {.user = "ann"};

	(void)state;
	assert_int_equal(audit_store_begin(s, &why), 0);
	for (unsigned i = 1; i <= 15000; i++) {
		/* Not in the order of time. */
		struct audit_event e = event(i % 3 == 0 ? "bob" : "ann", "x", 1000 + i * 7919 % 10007 / 3);

		assert_int_equal(audit_store_append(s, 1, i, &e, &why), 1);
	}
	assert_int_equal(audit_store_commit(s, &why), 0);
	static const uint64_t rows_a_page[] = {701, 64, 100000};

	for (int i = 0; i < 6; i++) {
		struct audit_archive *archive = must_read();
		struct order o = {.step = i % 2 == 0 ? -1 : 1};

		f.oldest_first = i % 2 != 0;
		struct audit_query *q = audit_query_new(archive, &f, &why);

		while (audit_query_page(q, rows_a_page[i / 2], 10000000, in_order, &o) == 1)
			;
		assert_int_equal(o.rows, 10000);
		audit_query_free(&q);
		audit_archive_close(&archive);
	}
	f = (struct audit_filter){.user = "ann", .since_us = 1500, .until_us = 1501};
	assert_true(ask(s, &f).rows > 0 && ask(s, &f).rows <= 3);
	f.user[0] = 'z';
	assert_int_equal(ask(s, &f).rows, 0);
	audit_store_close(&s);
}

/* The order comes from the index: nothing is sorted, whatever the size. */
static void test_no_sorting(void **state)
{
	static const char *const orders[] = {"DESC", "ASC"};
	struct audit_store *s = must_open();
	sqlite3 *handle;

	(void)state;
	audit_store_close(&s);
	assert_int_equal(sqlite3_open(SEGMENT, &handle), SQLITE_OK);
	for (int i = 0; i < 2; i++) {
		char sql[256];
		sqlite3_stmt *stmt;
		bool by_index = false;

		snprintf(sql, sizeof sql,
			 "EXPLAIN QUERY PLAN SELECT * FROM event WHERE time >= ?1 AND time <= ?2 AND (time < ?2 OR id "
			 "< ?3) "
			 "AND id <= ?4 ORDER BY time %s, id %s",
			 orders[i], orders[i]);
		assert_int_equal(sqlite3_prepare_v2(handle, sql, -1, &stmt, NULL), SQLITE_OK);
		while (sqlite3_step(stmt) == SQLITE_ROW) {
			const char *step = (const char *)sqlite3_column_text(stmt, 3);

			assert_null(strstr(step, "TEMP B-TREE"));
			by_index |= strstr(step, "USING INDEX event_time") != NULL;
		}
		assert_true(by_index);
		sqlite3_finalize(stmt);
	}
	sqlite3_close(handle);
}

static void test_read_while_writing(void **state)
{
	struct audit_store *writer = must_open();
	struct audit_archive *reader;
	struct audit_filter f = {.oldest_first = true};
	struct answer a = {0};
	uint64_t sequence = 7;

	(void)state;
	fill(writer);
	reader = must_read();
	struct audit_query *q = audit_query_new(reader, &f, &why);

	for (int rc = 1; rc == 1;) {
		struct audit_event e = event("late", "late.test", (int64_t)sequence * 1000);

		rc = audit_query_page(q, 2, 1000000, on_row, &a);
		assert_true(rc >= 0);
		add(writer, 1, sequence++, &e); /* no page holds a lock in between */
	}
	assert_int_equal(a.rows, 6); /* what came later is not part of the answer */
	audit_query_free(&q);
	assert_int_equal(count(writer), sequence - 1);
	audit_archive_close(&reader);
	audit_store_close(&writer);
}

static void test_size_of_a_row(void **state)
{
	struct audit_store *s = must_open();
	struct stat st;

	(void)state;
	assert_int_equal(audit_store_begin(s, &why), 0);
	for (unsigned i = 1; i <= 30000; i++) {
		struct audit_event e =
			event("firstname.lastname", "host.department.example", 1795635001000000 + i * 700);

		e.kind = i % 3 == 0 ? AUDIT_OPEN : i % 3 == 1 ? AUDIT_CONNECTED : AUDIT_ENDED;
		e.session = (uint64_t)(i / 3 + 1) * 0x9e3779b97f4a7c15;
		e.revision = 12;
		strcpy(e.listener, "lan");
		strcpy(e.method, "password");
		strcpy(e.command, "connect");
		strcpy(e.rule, "payroll-hr");
		if (e.kind == AUDIT_ENDED) {
			e.bytes_up = 4000;
			e.bytes_down = 4000000;
			e.duration_us = 2000000;
			strcpy(e.reason, "client closed");
		}
		if (e.kind == AUDIT_OPEN)
			strcpy(e.detail, "{\"candidates\":[{\"address\":\"203.0.113.7\",\"rule\":\"payroll-hr\"}]}");
		assert_int_equal(audit_store_append(s, 1, i, &e, &why), 1);
	}
	assert_int_equal(audit_store_commit(s, &why), 0);
	audit_store_close(&s);
	assert_int_equal(stat(SEGMENT, &st), 0);
	print_message("%.0f bytes a row\n", (double)st.st_size / 30000);
	assert_true(st.st_size / 30000 <= 250);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_enter, scratch_leave)
	const struct CMUnitTest tests[] = {
		TEST(test_private_and_reopened),
		TEST(test_dedupe),
		TEST(test_rollback),
		TEST(test_senders_are_forgotten),
		TEST(test_a_live_sender_is_not_forgotten),
		TEST(test_a_sender_that_repeats_is_not_forgotten),
		TEST(test_a_batch_ends_at_its_last_sender),
		TEST(test_migrated_from_the_first_version),
		TEST(test_every_field),
		TEST(test_hostile_bytes_in_every_text),
		TEST(test_destinations),
		TEST(test_destinations_refused),
		TEST(test_users_clients_kinds),
		TEST(test_everything_holds_after_a_row),
		TEST(test_times_sessions_limits),
		TEST(test_one_user_of_many),
		TEST(test_pages),
		TEST(test_rows_for_sums),
		TEST(test_no_sorting),
		TEST(test_read_while_writing),
		TEST(test_size_of_a_row),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
