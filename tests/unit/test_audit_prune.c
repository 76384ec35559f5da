/* Retention: what is pruned, what is held, and that the chain tells the one from what somebody removed. */
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
#include <sodium.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "schema/audit_holds.h"
#include "schema/audit_prune.h"
#include "schema/audit_query.h"
#include "schema/audit_segment.h"
#include "schema/audit_store.h"
#include "schema/audit_verify.h"
#include "tests/unit/scratch.h"

#define DAY (24 * 3600 * INT64_C(1000000))
#define ALL_KINDS ((1u << AUDIT_KIND_COUNT) - 1)
#define OF(kind) (1u << (kind))
/* Each batch has a segment of its own. */
#define TINY 1
#define DAYS 8

static struct err why;

/* ---- a store of some days ---------------------------------------------------------------------------------------- */

static uint64_t sequence;

/* The clock stands where the test puts it: what is recorded says when, and so does the entry that recorded it. */
static int64_t now_us;

int64_t __wrap_clock_wall_us(void);
int64_t __wrap_clock_wall_us(void)
{
	return now_us;
}

static struct audit_store *must_open(void)
{
	struct audit_store *s = audit_store_open(TINY, &why);

	if (s == NULL)
		fail_msg("%s", why.text);
	return s;
}

/* Day d: 10 sessions by ann and bob in turn that begin and end, and 10 denials. */
static void add_day(struct audit_store *s, int day)
{
	static struct audit_event e;

	/* The segment begins a little before. */
	now_us = (100 + day) * DAY - 1000;
	assert_int_equal(audit_store_begin(s, &why), 0);
	for (int i = 0; i < 30; i++) {
		memset(&e, 0, sizeof e);
		e.kind = i % 3 == 0 ? AUDIT_OPEN : i % 3 == 1 ? AUDIT_DENIED : AUDIT_ENDED;
		e.session = e.kind == AUDIT_DENIED ? 0 : (uint64_t)(100 * day + i / 3 + 1);
		e.time_us = (100 + day) * DAY + i;
		e.address = (struct endpoint){.addr = addr_v4(0xcb007107), .port = 443};
		strcpy(e.user, i / 3 % 2 == 0 ? "ann" : "bob");
		strcpy(e.name, "a.example");
		assert_int_equal(audit_store_append(s, 77, ++sequence, &e, &why), 1);
	}
	if (audit_store_commit(s, &why) != 0)
		fail_msg("%s", why.text);
}

/* Segments 2 to DAYS + 1 have a day each (the first one has none), the last is being written. */
static struct audit_store *make(void)
{
	struct audit_store *s;

	sequence = 0;
	now_us = 99 * DAY;
	s = must_open();
	for (int day = 0; day < DAYS; day++)
		add_day(s, day);
	audit_store_close(&s);
	return must_open(); /* all but the last are finished */
}

/* ---- pruning ------------------------------------------------------------------------------------------------------
 */

static unsigned declared, declare_at_most;

static int declare(const uint8_t *body, size_t len, void *arg, struct err *reason)
{
	if (declared == declare_at_most)
		return err_set(reason, "no more");
	declared++;
	return audit_store_declare(arg, body, len, reason);
}

/* As the recorder tells of it. */
static void tell(struct audit_store *s, const char *what, int64_t before_us)
{
	static struct audit_event e;

	memset(&e, 0, sizeof e);
	e.kind = AUDIT_ADMIN;
	e.time_us = now_us;
	snprintf(e.user, sizeof e.user, "uid 0");
	snprintf(e.detail, sizeof e.detail, "{\"retention\":\"%s\",\"holds\":\"\",\"before_us\":%lld}", what,
		 (long long)before_us);
	if (audit_store_begin(s, &why) != 0 || audit_store_note(s, &e, &why) != 0 || audit_store_commit(s, &why) != 0)
		fail_msg("%s", why.text);
}

static struct audit_prune_order order_of(struct audit_store *s, int day, uint32_t kinds)
{
	struct audit_store_status status;

	audit_store_status(s, &status);
	tell(s, "prune-begun", (100 + day) * DAY);
	declared = 0;
	declare_at_most = UINT32_MAX;
	return (struct audit_prune_order){
		.before_us = (100 + day) * DAY, .kinds = kinds, .below = status.segment, .declare = declare, .arg = s};
}

static struct audit_prune_counts prune(struct audit_store *s, const struct audit_prune_order *order)
{
	struct audit_prune_counts counts;

	if (audit_prune(order, &counts, &why) != 0)
		fail_msg("%s", why.text);
	audit_store_recount(s);
	return counts;
}

/* ---- looking -------------------------------------------------------------------------------------------------------
 */

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

static struct audit_verified verify_with(const struct audit_anchor *anchors, size_t n)
{
	struct audit_keys keys;
	struct audit_verify_options o = {.keys = &keys, .finding = on_finding, .anchors = anchors, .nanchors = n};
	struct audit_verified v;

	memset(&found, 0, sizeof found);
	if (audit_first_key_read("first.key", o.store, &keys, &why) != 0 || audit_verify(&o, &v, &why) != 0)
		fail_msg("%s", why.text);
	return v;
}

static struct audit_verified must_be_sound(void)
{
	struct audit_verified v = verify_with(NULL, 0);

	if (found.n != 0)
		fail_msg("%u findings, the first: %s", found.n, found.first);
	return v;
}

static void must_find(const char *part)
{
	verify_with(NULL, 0);
	if (found.n == 0 || strstr(found.first, part) == NULL)
		fail_msg("%u findings, the first \"%s\" has no \"%s\"", found.n, found.first, part);
}

static bool count_row(uint64_t id, const struct audit_event *e, void *arg)
{
	(void)id, (void)e;
	++*(unsigned *)arg;
	return true;
}

static unsigned ask(const struct audit_filter *f)
{
	struct audit_archive *a = audit_archive_open(&why);
	struct audit_query *q = a == NULL ? NULL : audit_query_new(a, f, &why);
	unsigned n = 0;

	if (q == NULL)
		fail_msg("%s", why.text);
	while (audit_query_page(q, 7, 1000000, count_row, &n) == 1)
		;
	assert_string_equal(audit_archive_damage(a), "");
	audit_query_free(&q);
	audit_archive_close(&a);
	return n;
}

static void sql(const char *file, const char *text)
{
	sqlite3 *handle;

	assert_int_equal(sqlite3_open(file, &handle), SQLITE_OK);
	if (sqlite3_exec(handle, text, NULL, NULL, NULL) != SQLITE_OK)
		fail_msg("%s: %s", text, sqlite3_errmsg(handle));
	assert_int_equal(sqlite3_close(handle), SQLITE_OK);
}

/* The last but `before`. */
static const char *last_segment(char name[AUDIT_SEGMENT_NAME_MAX], unsigned before)
{
	uint32_t *numbers;
	int n = audit_segment_list(&numbers, &why);

	assert_true(n > (int)before);
	audit_segment_name(numbers[n - 1 - (int)before], name);
	free(numbers);
	return name;
}

/* ---- tests ---------------------------------------------------------------------------------------------------------
 */

static void test_declarations_are_read_as_written(void **state)
{
	uint8_t body[AUDIT_PRUNE_BODY_MAX], bits[3] = {1, 2, 3};
	struct audit_pruned p = {.segment = 70000, .before_us = 5, .first = 12345678901, .bits = bits, .nbytes = 3}, q;
	size_t len = audit_prune_put(&p, body);

	(void)state;
	assert_true(audit_prune_get(body, len, &q));
	assert_false(q.whole);
	assert_true(q.segment == 70000 && q.before_us == 5);
	assert_int_equal(q.first, 12345678901);
	assert_int_equal(q.nbytes, 3);
	assert_memory_equal(q.bits, bits, 3);
	p = (struct audit_pruned){.whole = true, .segment = 3, .entry = 77, .row = 88, .epoch = 99, .mac = {5}};
	len = audit_prune_put(&p, body);
	assert_true(audit_prune_get(body, len, &q));
	assert_true(q.whole && q.segment == 3 && q.entry == 77 && q.row == 88 && q.epoch == 99 && q.mac[0] == 5);
	for (size_t n = 0; n < len; n++)
		assert_false(n < 21 && audit_prune_get(body, n, &q));
	assert_false(audit_prune_get(body, len - 1, &q));
	assert_false(audit_prune_get(body, len + 1, &q));
	body[0] = 5;
	assert_false(audit_prune_get(body, len, &q));
	p = (struct audit_pruned){.withdrawn = true, .segment = 3, .declaration = 77};
	len = audit_prune_put(&p, body);
	assert_true(audit_prune_get(body, len, &q));
	assert_true(q.withdrawn && !q.whole && q.declaration == 77 && q.segment == 3);
	assert_false(audit_prune_get(body, len + 1, &q));
	body[0] = 1;
	assert_false(audit_prune_get(body, len, &q));
	memset(body, 0xff, sizeof body);
	body[0] = 2;
	assert_false(audit_prune_get(body, 100, &q)); /* no row has such a number */
}

static void test_old_segments_are_removed(void **state)
{
	struct audit_store *s = make();
	struct audit_filter all = {.kinds = ALL_KINDS & ~OF(AUDIT_ADMIN)};
	struct audit_prune_order order = order_of(s, 3, ALL_KINDS);
	struct audit_store_status status;
	unsigned before = ask(&all);

	(void)state;
	assert_int_equal(before, 30 * DAYS);
	/* To look only: everything is as before. */
	order.dry_run = true;
	struct audit_prune_counts counts = prune(s, &order);

	assert_int_equal(counts.rows, 90);
	assert_int_equal(counts.segments, 4);
	assert_int_equal(declared, 0);
	assert_int_equal(ask(&all), before);
	must_be_sound();

	order.dry_run = false;
	counts = prune(s, &order);
	assert_int_equal(counts.rows, 90);
	assert_int_equal(counts.segments, 4);
	assert_int_equal(counts.held + counts.rewritten + counts.skipped, 0);
	assert_true(counts.bytes > 0);
	assert_int_not_equal(access("audit-00000004.db", F_OK), 0);
	assert_int_equal(access("audit-00000005.db", F_OK), 0);
	struct audit_verified v = must_be_sound();

	assert_int_equal(v.pruned, 90);
	assert_int_equal(v.pruned_segments, 4);
	assert_int_equal(v.orders, 1);
	assert_int_equal(v.rows, before - 90 + v.orders);
	assert_int_equal(ask(&all), before - 90);
	audit_store_status(s, &status);
	assert_int_equal(status.rows, before - 90 + v.orders);
	/* Again: nothing more. */
	order = order_of(s, 3, ALL_KINDS);
	assert_int_equal(prune(s, &order).rows, 0);
	assert_int_equal(declared, 0);
	/* It goes on, and goes on after a restart. */
	add_day(s, DAYS);
	audit_store_close(&s);
	must_be_sound();
	s = must_open();
	add_day(s, DAYS + 1);
	order = order_of(s, 5, ALL_KINDS);
	assert_int_equal(prune(s, &order).rows, 60);
	v = must_be_sound();
	assert_int_equal(v.pruned, 150);
	assert_int_equal(v.pruned_segments, 6);
	audit_store_close(&s);
	must_be_sound();
	/* One more is not one of those. */
	assert_int_equal(unlink("audit-00000007.db"), 0);
	must_find("segments before it are missing");
}

static void test_classes_and_what_stays(void **state)
{
	struct audit_store *s = make();
	struct audit_filter denied = {.kinds = OF(AUDIT_DENIED)}, all = {.kinds = ALL_KINDS & ~OF(AUDIT_ADMIN)};
	struct audit_prune_order order = order_of(s, 4, OF(AUDIT_DENIED));
	struct stat st;

	(void)state;
	struct audit_prune_counts counts = prune(s, &order);

	assert_int_equal(counts.rows, 40);
	assert_int_equal(counts.rewritten, 4);
	assert_int_equal(ask(&denied), 10 * (DAYS - 4));
	assert_int_equal(ask(&all), 30 * DAYS - 40);
	struct audit_verified v = must_be_sound();

	assert_int_equal(v.pruned, 40);
	assert_int_equal(v.rows, 30 * DAYS - 40 + v.orders);
	assert_int_equal(stat("audit-00000002.db", &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_false(audit_segment_has_log("audit-00000002.db"));
	assert_int_not_equal(access("prune.new", F_OK), 0);
	/* The rest later: then whole segments go. */
	order = order_of(s, 2, ALL_KINDS);
	counts = prune(s, &order);
	assert_int_equal(counts.rows, 40);
	assert_int_equal(counts.segments, 2); /* the first had no rows, and went before */
	v = must_be_sound();
	assert_int_equal(v.pruned, 60 + 20);
	audit_store_close(&s);
	must_be_sound();
	/* Who removes another row, or one of the class that was pruned from a later day, is found. */
	sql("audit-00000004.db", "DELETE FROM event WHERE id = (SELECT max(id) FROM event)");
	must_find("segment 4: 1 rows of entry");
	sql("audit-00000007.db", "DELETE FROM event WHERE kind = 2");
	assert_int_equal(verify_with(NULL, 0).findings, 2);
}

static void test_holds(void **state)
{
	struct audit_store *s = make();
	struct audit_filter hold = {.user = "ann", .since_us = 101 * DAY, .until_us = 102 * DAY};
	struct audit_filter ann = {.user = "ann"};
	struct audit_prune_order order = order_of(s, 4, ALL_KINDS);

	(void)state;
	order.holds = &hold;
	order.nholds = 1;
	struct audit_prune_counts counts = prune(s, &order);

	assert_int_equal(counts.held, 15);
	assert_int_equal(counts.rows, 120 - 15);
	/* The first, which has no row, and the one of the first day; those behind what is held stay as a chain without
	 * rows. */
	assert_int_equal(counts.segments, 2);
	assert_int_equal(counts.rewritten, 3);
	assert_int_equal(ask(&ann), 15 + 15 * (DAYS - 4));
	assert_int_equal(must_be_sound().pruned, 105);
	/* A row that is held and that somebody removes is none that was pruned. */
	order.nholds = 0;
	counts = prune(s, &order);
	assert_int_equal(counts.rows, 15);
	assert_int_equal(counts.segments, 3);
	assert_int_equal(must_be_sound().pruned, 120);
	audit_store_close(&s);
	must_be_sound();
}

static void test_who_removes_what_is_held_is_found(void **state)
{
	struct audit_store *s = make();
	struct audit_filter hold = {.user = "ann"};
	struct audit_prune_order order = order_of(s, 4, ALL_KINDS);

	(void)state;
	order.holds = &hold;
	order.nholds = 1;
	prune(s, &order);
	audit_store_close(&s);
	must_be_sound();
	sql("audit-00000003.db", "DELETE FROM event WHERE user = 'ann' AND kind = 0");
	must_find("segment 3: 5 rows of entry");
}

/* Without the key, a declaration cannot be made, changed or moved. */
static void test_forged_declarations_are_found(void **state)
{
	struct audit_store *s = make();
	struct audit_prune_order order = order_of(s, 2, OF(AUDIT_DENIED));
	uint8_t body[AUDIT_PRUNE_BODY_MAX], bits[1] = {0xff};
	const struct audit_pruned p = {.segment = 5, .before_us = 200 * DAY, .first = 91, .bits = bits, .nbytes = 1};
	size_t len = audit_prune_put(&p, body);
	char text[400], hex[64], name[AUDIT_SEGMENT_NAME_MAX];

	(void)state;
	prune(s, &order);
	audit_store_close(&s);
	for (size_t i = 0; i < len; i++)
		snprintf(hex + 2 * i, 3, "%02x", body[i]);
	sql("audit-00000005.db", "DELETE FROM event WHERE id BETWEEN 91 AND 98");
	must_find("segment 5: 8 rows");
	snprintf(text, sizeof text,
		 "INSERT INTO chain SELECT max(id) + 1, 4, epoch, time, max(first), 0, x'%s', mac FROM chain", hex);
	sql(last_segment(name, 0), text);
	must_find("not authentic");
	/* And in the place of one that was real. */
	sql(name, "DELETE FROM chain WHERE id = (SELECT max(id) FROM chain)");
	snprintf(text, sizeof text, "UPDATE chain SET body = x'%s' WHERE kind = 4", hex);
	for (unsigned i = 0; i < 3; i++)
		sql(last_segment(name, i), text);
	verify_with(NULL, 0);
	assert_true(found.n >= 3);
}

static void test_anchors_of_what_was_pruned(void **state)
{
	struct audit_store *s = make();
	struct audit_store_status status;
	struct audit_anchor anchors[2] = {{.entry = 2}};
	struct audit_prune_order order = order_of(s, 4, ALL_KINDS);

	(void)state;
	audit_store_status(s, &status);
	anchors[1].entry = status.head.entry;
	memcpy(anchors[1].mac, status.head.mac, AUDIT_MAC_BYTES);
	prune(s, &order);
	struct audit_verified v = verify_with(anchors, 2);

	assert_int_equal(found.n, 0);
	assert_int_equal(v.anchors, 1);
	assert_int_equal(v.pruned_anchors, 1);
	audit_store_close(&s);
}

/* A segment whose end was cut off, or that a stranger has written into, is not forgotten by pruning it. */
static void test_what_is_damaged_stays(void **state)
{
	struct audit_store *s = make();
	struct audit_prune_order order = order_of(s, 4, ALL_KINDS);
	struct audit_prune_counts counts;

	(void)state;
	sql("audit-00000003.db", "DELETE FROM chain WHERE kind = 3");
	assert_int_equal(audit_prune(&order, &counts, &why), -1);
	assert_non_null(strstr(why.text, "audit-00000003.db"));
	assert_int_equal(access("audit-00000003.db", F_OK), 0);
	assert_int_equal(counts.segments, 2); /* up to there */
	must_find("segment 3");
	audit_store_close(&s);
}

/* Who has no key cannot have a prune do what he may not: a row that is not old was recorded by an entry that is not. */
static void test_a_time_that_was_changed_is_found(void **state)
{
	struct audit_store *s = make();
	struct audit_filter ann = {.user = "ann"};
	struct audit_prune_order order;

	(void)state;
	sql("audit-00000008.db", "UPDATE event SET time = 1 WHERE user = 'ann'");
	order = order_of(s, 2, ALL_KINDS);
	prune(s, &order);
	assert_int_equal(ask(&ann), 15 * (DAYS - 2));
	must_find("was changed");
	/* Nor by changing the entry as well: it stays, and is not what was recorded. */
	sql("audit-00000008.db", "UPDATE chain SET time = 1 WHERE kind = 0");
	order = order_of(s, 2, ALL_KINDS);
	prune(s, &order);
	assert_int_equal(ask(&ann), 15 * (DAYS - 3));
	must_find("is not authentic");
	audit_store_close(&s);
}

/* The whole of a segment of today, with its entries made old: the next one begins too late. */
static void test_a_segment_that_was_made_old_is_found(void **state)
{
	struct audit_store *s = make();
	struct audit_prune_order order;
	struct audit_prune_counts counts;

	(void)state;
	for (int i = 1; i < DAYS; i++) {
		char name[AUDIT_SEGMENT_NAME_MAX];

		sql(audit_segment_name((uint32_t)i, name), "UPDATE event SET time = 1; UPDATE chain SET time = 1");
	}
	order = order_of(s, 2, ALL_KINDS);
	counts = prune(s, &order);
	assert_true(counts.segments >= 3);
	verify_with(NULL, 0);
	assert_true(found.n > 0);
	audit_store_close(&s);
}

/* Today's key forges what is recorded today, but no declaration without an order, or of what no order reaches. */
static void test_declarations_without_an_order_are_found(void **state)
{
	struct audit_store *s = make();
	struct audit_prune_order order = order_of(s, 3, OF(AUDIT_DENIED));

	(void)state;
	prune(s, &order);
	assert_int_equal(must_be_sound().orders, 1);
	order.before_us = (100 + 4) * DAY;
	prune(s, &order);
	must_find("no row tells of the order");
	audit_store_close(&s);
}

static void test_declarations_of_what_is_young_are_found(void **state)
{
	struct audit_store *s = make();
	struct audit_prune_order order = order_of(s, 4000, ALL_KINDS);

	(void)state;
	prune(s, &order);
	must_find("no order reaches that far");
	audit_store_close(&s);
}

static void on_pruned(const char *text, void *arg)
{
	(void)text;
	++*(unsigned *)arg;
}

static void test_orders_are_told(void **state)
{
	struct audit_store *s = make();
	struct audit_prune_order order = order_of(s, 2, ALL_KINDS);
	unsigned told = 0;
	struct audit_keys keys;
	struct audit_verify_options o = {.keys = &keys, .finding = on_finding, .pruned = on_pruned, .arg = &told};
	struct audit_verified v;

	(void)state;
	prune(s, &order);
	assert_int_equal(audit_first_key_read("first.key", o.store, &keys, &why), 0);
	assert_int_equal(audit_verify(&o, &v, &why), 0);
	assert_int_equal(told, 1);
	audit_store_close(&s);
}

static void put(const char *path, const void *data, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_int_equal(write(fd, data, len), len);
	close(fd);
}

/* The key file says that nothing was put back: without it, or with one that was made up, nothing does. */
static void test_a_key_file_that_is_gone_or_made_up_is_found(void **state)
{
	struct audit_store *s = make();
	uint8_t slot[4096 + 128], check[AUDIT_DIGEST_BYTES];
	int fd;

	(void)state;
	audit_store_close(&s);
	must_be_sound();
	fd = open("chain.key", O_RDONLY);
	assert_int_equal(read(fd, slot, 128), 128);
	close(fd);
	memset(slot + 128, 0, sizeof slot - 128);
	slot[8 + AUDIT_ID_BYTES + 8]++;
	crypto_generichash(check, sizeof check, slot, 64, NULL, 0);
	memcpy(slot + 64, check, sizeof check);
	put("chain.key", slot, sizeof slot);
	must_find("holds another key");
	unlink("chain.key");
	must_find("chain.key is missing");
}

/* An epoch that is far ahead is not believed; and it does not take for ever.  AUDIT_EPOCHS: by how many it is ahead; with a million, so
 * many are gone through that the limit is reached, which takes half a minute. */
static void test_epochs_that_were_changed(void **state)
{
	const char *ahead = getenv("AUDIT_EPOCHS");
	struct audit_store *s = make();
	char text[100];

	(void)state;
	audit_store_close(&s);
	snprintf(text, sizeof text, "UPDATE chain SET epoch = epoch + %d * (id + 1)", ahead == NULL ? 10000 : atoi(ahead));
	for (int i = 2; i < DAYS; i++) {
		char name[AUDIT_SEGMENT_NAME_MAX];

		sql(audit_segment_name((uint32_t)i, name), text);
	}
	must_find("epoch");
	assert_true(found.n >= DAYS - 2);
}

/* The chain whose key was lost has no end: what is before the new one can be pruned all the same. */
static void test_what_is_before_a_new_chain(void **state)
{
	struct audit_store *s = make();
	struct audit_filter all = {.kinds = ALL_KINDS & ~OF(AUDIT_ADMIN)};
	struct audit_prune_order order;

	(void)state;
	audit_store_close(&s);
	assert_int_equal(unlink("chain.key"), 0);
	put("begin-new-chain", "", 0);
	s = must_open();
	for (int day = DAYS; day < DAYS + 4; day++)
		add_day(s, day);
	audit_store_close(&s);
	s = must_open(); /* all but the last are finished */
	order = order_of(s, DAYS + 1, ALL_KINDS);
	prune(s, &order);
	assert_int_equal(ask(&all), 3 * 30);
	/* The new key alone verifies what is left. */
	must_be_sound();
	audit_store_close(&s);
	must_be_sound();
}

/* ---- cut short
 * -------------------------------------------------------------------------------------------------------- */

static void test_cut_short_between_declarations(void **state)
{
	struct audit_store *s = make();
	struct audit_filter hold = {.user = "ann", .since_us = 101 * DAY, .until_us = 102 * DAY};

	(void)state;
	for (unsigned most = 0; most < 6; most++) {
		struct audit_prune_order order = order_of(s, 5, ALL_KINDS);
		struct audit_prune_counts counts;

		order.holds = &hold;
		order.nholds = 1;
		declare_at_most = most;
		audit_prune(&order, &counts, &why);
		must_be_sound();
	}
	struct audit_prune_order order = order_of(s, 5, ALL_KINDS);
	struct audit_filter all = {.kinds = ALL_KINDS & ~OF(AUDIT_ADMIN)};

	order.holds = &hold;
	order.nholds = 1;
	prune(s, &order);
	assert_int_equal(ask(&all), 15 + 30 * (DAYS - 5));
	assert_int_equal(must_be_sound().pruned, 135);
	audit_store_close(&s);
}

static int declare_once(const uint8_t *body, size_t len, void *arg, struct err *reason)
{
	assert_int_equal(audit_store_declare(arg, body, len, reason), 0);
	return declared++ == 0 ? err_set(reason, "killed here") : 0;
}

/* What was declared and not done is no licence for later: neither for rows nor for segments. */
static void test_what_was_not_done_is_withdrawn(void **state)
{
	struct audit_store *s = make();
	struct audit_filter hold = {.user = "ann"}, ann = {.user = "ann"};
	struct audit_prune_order order = order_of(s, 4, OF(AUDIT_OPEN));
	struct audit_prune_counts counts;

	(void)state;
	order.declare = declare_once;
	assert_int_equal(audit_prune(&order, &counts, &why), -1);
	order = order_of(s, 4, ALL_KINDS);
	order.holds = &hold;
	order.nholds = 1;
	prune(s, &order);
	assert_int_equal(ask(&ann), 15 * DAYS);
	must_be_sound();
	sql("audit-00000002.db", "DELETE FROM event WHERE user = 'ann' AND kind = 0");
	must_find("segment 2: 5 rows of entry");
	audit_store_close(&s);
}

static void test_a_segment_that_was_not_removed_is_withdrawn(void **state)
{
	struct audit_store *s = make();
	struct audit_prune_order order = order_of(s, 4, ALL_KINDS);
	struct audit_prune_counts counts;

	(void)state;
	order.declare = declare_once;
	assert_int_equal(audit_prune(&order, &counts, &why), -1);
	order.declare = declare;
	declared = 0;
	assert_int_equal(audit_prune_settle(&order, UINT32_MAX, &why), 0);
	assert_int_equal(declared, 0); /* it stands in the last segment, which is none of the order's */
	order.below = UINT32_MAX;
	assert_int_equal(audit_prune_settle(&order, UINT32_MAX, &why), 0);
	assert_int_equal(declared, 1);
	/* Once is enough. */
	assert_int_equal(audit_prune_settle(&order, UINT32_MAX, &why), 0);
	assert_int_equal(declared, 1);
	must_be_sound();
	assert_int_equal(unlink("audit-00000001.db"), 0);
	must_find("segments before it are missing");
	audit_store_close(&s);
}

/* The process ends at its n-th call that changes a file. */
static int calls_left;

static void count_call(void)
{
	if (calls_left > 0 && --calls_left == 0)
		raise(SIGKILL);
}

int __wrap_rename(const char *from, const char *to);
int __real_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to)
{
	count_call();
	int rc = __real_rename(from, to);

	count_call();
	return rc;
}

int __wrap_unlink(const char *path);
int __real_unlink(const char *path);
int __wrap_unlink(const char *path)
{
	count_call();
	int rc = __real_unlink(path);

	count_call();
	return rc;
}

int __wrap_audit_store_declare(struct audit_store *s, const uint8_t *body, size_t len, struct err *reason);
int __real_audit_store_declare(struct audit_store *s, const uint8_t *body, size_t len, struct err *reason);
int __wrap_audit_store_declare(struct audit_store *s, const uint8_t *body, size_t len, struct err *reason)
{
	count_call();
	int rc = __real_audit_store_declare(s, body, len, reason);

	count_call();
	return rc;
}

static int prune_and_end_at(int call)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		struct audit_filter hold = {.user = "ann", .since_us = 101 * DAY, .until_us = 102 * DAY};
		struct audit_store *s = must_open();
		struct audit_prune_order order = order_of(s, 5, ALL_KINDS);
		struct audit_prune_counts counts;

		order.holds = &hold;
		order.nholds = 1;
		calls_left = call;
		audit_prune(&order, &counts, &why);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status);
}

static void test_killed_at_any_moment(void **state)
{
	struct audit_store *s = make();
	struct audit_filter all = {.kinds = ALL_KINDS & ~OF(AUDIT_ADMIN)};
	int call = 1;

	(void)state;
	audit_store_close(&s);
	/* Each run goes on with what the last one left. */
	while (prune_and_end_at(call)) {
		must_be_sound();
		call++;
		assert_true(call < 200);
	}
	assert_true(call > 8);
	assert_int_equal(ask(&all), 15 + 30 * (DAYS - 5));
	assert_int_equal(must_be_sound().pruned, 135);
	assert_int_not_equal(access("prune.new", F_OK), 0);
}

/* ---- holds
 * ------------------------------------------------------------------------------------------------------------ */

static void test_the_file_of_holds(void **state)
{
	struct audit_holds h = {0};
	json_t *ann = json_pack("{s:s}", "user", "ann"), *bob = json_pack("{s:s}", "user", "bob");
	json_t *bad = json_pack("{s:i}", "limit", 3);
	char none[AUDIT_HOLDS_DIGEST_TEXT_MAX], one[AUDIT_HOLDS_DIGEST_TEXT_MAX], now[AUDIT_HOLDS_DIGEST_TEXT_MAX];
	uint8_t sum[AUDIT_HOLDS_DIGEST_BYTES];
	struct stat st;

	(void)state;
	assert_int_equal(audit_holds_read(&h, &why), 0);
	assert_true(h.n == 0 && !audit_holds_has_file());
	audit_holds_digest(&h, none);
	assert_int_equal(audit_holds_place(&h, "case-1", ann, "uid 0", &why), 0);
	assert_int_equal(h.n, 1);
	assert_string_equal(h.filters[0].user, "ann");
	/* Beside the file, until it takes its place; or not. */
	assert_true(audit_holds_prepared(sum) && !audit_holds_has_file());
	audit_holds_forget();
	assert_false(audit_holds_prepared(sum));
	assert_int_equal(audit_holds_read(&h, &why), 0);
	assert_int_equal(h.n, 0);
	assert_int_equal(audit_holds_place(&h, "case-1", ann, "uid 0", &why), 0);
	assert_int_equal(audit_holds_commit(&why), 0);
	assert_true(audit_holds_has_file() && !audit_holds_prepared(sum));
	audit_holds_digest(&h, one);
	assert_string_not_equal(none, one);
	/* The same again is fine, and changes nothing; another one of this name is not. */
	assert_int_equal(audit_holds_place(&h, "case-1", ann, "uid 7", &why), 1);
	assert_string_equal(audit_holds_digest(&h, now), one);
	assert_int_equal(audit_holds_place(&h, "case-1", bob, "uid 0", &why), -1);
	assert_int_equal(audit_holds_place(&h, "case 2", bob, "uid 0", &why), -1);
	assert_int_equal(audit_holds_place(&h, "", bob, "uid 0", &why), -1);
	assert_int_equal(audit_holds_place(&h, "case-2", bad, "uid 0", &why), -1);
	assert_int_equal(audit_holds_place(&h, "case-2", bob, "uid 0", &why), 0);
	assert_int_equal(audit_holds_commit(&why), 0);
	assert_int_equal(audit_holds_read(&h, &why), 0);
	assert_true(h.n == 2 && audit_holds_stands(&h, "case-2"));
	assert_int_equal(stat("holds.json", &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(audit_holds_release(&h, "case-3", &why), -1);
	assert_int_equal(audit_holds_release(&h, "case-1", &why), 0);
	assert_int_equal(audit_holds_commit(&why), 0);
	assert_true(h.n == 1 && !audit_holds_stands(&h, "case-1"));
	/* What cannot be understood is not taken as none. */
	int fd = open("holds.json", O_WRONLY | O_TRUNC);

	assert_int_equal(write(fd, "{\"holds\":[{}]}", 14), 14);
	close(fd);
	assert_int_equal(audit_holds_read(&h, &why), -1);
	assert_int_equal(truncate("holds.json", 0), 0);
	assert_int_equal(audit_holds_read(&h, &why), -1);
	audit_holds_clear(&h);
	json_decref(ann);
	json_decref(bob);
	json_decref(bad);
}

/* Whoever prunes or finishes a segment is gone when the recorder is, however that ended: the next one finds nobody at its files. */
static void test_a_child_ends_with_its_recorder(void **state)
{
	struct audit_store *s = make();
	int ends[2];
	char byte;

	(void)state;
	assert_int_equal(pipe(ends), 0);
	pid_t recorder = fork();

	if (recorder == 0) {
		if (audit_store_fork(s, ends[1]) == 0)
			(void)!write(ends[1], "x", 1); /* from here on */
		else
			close(ends[1]);
		for (;;)
			pause();
	}
	close(ends[1]);
	assert_int_equal(read(ends[0], &byte, 1), 1);
	kill(recorder, SIGKILL);
	assert_int_equal(waitpid(recorder, NULL, 0), recorder);
	assert_int_equal(read(ends[0], &byte, 1), 0);
	close(ends[0]);
	audit_store_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_a_child_ends_with_its_recorder, scratch_enter, scratch_leave),
		cmocka_unit_test_setup_teardown(test_declarations_are_read_as_written, scratch_enter, scratch_leave),
		cmocka_unit_test_setup_teardown(test_old_segments_are_removed, scratch_enter, scratch_leave),
		cmocka_unit_test_setup_teardown(test_classes_and_what_stays, scratch_enter, scratch_leave),
		cmocka_unit_test_setup_teardown(test_holds, scratch_enter, scratch_leave),
		cmocka_unit_test_setup_teardown(test_who_removes_what_is_held_is_found, scratch_enter, scratch_leave),
		cmocka_unit_test_setup_teardown(test_forged_declarations_are_found, scratch_enter, scratch_leave),
		cmocka_unit_test_setup_teardown(test_anchors_of_what_was_pruned, scratch_enter, scratch_leave),
		cmocka_unit_test_setup_teardown(test_what_is_damaged_stays, scratch_enter, scratch_leave),
		cmocka_unit_test_setup_teardown(test_a_time_that_was_changed_is_found, scratch_enter, scratch_leave),
		cmocka_unit_test_setup_teardown(test_a_segment_that_was_made_old_is_found, scratch_enter,
						scratch_leave),
		cmocka_unit_test_setup_teardown(test_declarations_without_an_order_are_found, scratch_enter,
						scratch_leave),
		cmocka_unit_test_setup_teardown(test_declarations_of_what_is_young_are_found, scratch_enter,
						scratch_leave),
		cmocka_unit_test_setup_teardown(test_orders_are_told, scratch_enter, scratch_leave),
		cmocka_unit_test_setup_teardown(test_a_key_file_that_is_gone_or_made_up_is_found, scratch_enter,
						scratch_leave),
		cmocka_unit_test_setup_teardown(test_epochs_that_were_changed, scratch_enter, scratch_leave),
		cmocka_unit_test_setup_teardown(test_what_is_before_a_new_chain, scratch_enter, scratch_leave),
		cmocka_unit_test_setup_teardown(test_what_was_not_done_is_withdrawn, scratch_enter, scratch_leave),
		cmocka_unit_test_setup_teardown(test_a_segment_that_was_not_removed_is_withdrawn, scratch_enter,
						scratch_leave),
		cmocka_unit_test_setup_teardown(test_cut_short_between_declarations, scratch_enter, scratch_leave),
		cmocka_unit_test_setup_teardown(test_killed_at_any_moment, scratch_enter, scratch_leave),
		cmocka_unit_test_setup_teardown(test_the_file_of_holds, scratch_enter, scratch_leave),
	};

	log_init("test_audit_prune", LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
