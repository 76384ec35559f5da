/* A change of the policy on a disk that loses power, or fails, at each write and sync that there is: either the old revision rules
 * or the new one, whole; what was told to be stored is; and after a failure nothing is left of it. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <unistd.h>

#include "schema/policy_store.h"
#include "tests/unit/disk.h"
#include "tests/unit/scratch.h"

#define LIST_BYTES 100000

static struct err why;
static char list[2][LIST_BYTES + 1];

static struct policy_new change(unsigned n, struct policy_file *file)
{
	*file = (struct policy_file){"list", list[n % 2], LIST_BYTES};
	return (struct policy_new){.name = "p",
				   .text = n % 2 ? "odd" : "even",
				   .len = n % 2 ? 3 : 4,
				   .files = file,
				   .nfiles = 1,
				   .author_uid = 7,
				   .author = "ann",
				   .source = "apply",
				   .time_us = 1000 * (int64_t)n,
				   .lasts_us = n == 1 ? 0 : 50};
}

#define CONFIRMED 4
#define PROPOSED 5
#define APPROVED 6
#define PROPOSED_MORE 7
#define EXPIRED 8

/* Revisions 4 and 5 are proposed. */
static int propose(struct policy_store *s, unsigned n)
{
	struct policy_file file;
	struct policy_new new = change(n, &file);
	uint32_t id;

	new.proposed_until_us = 100000;
	return policy_store_add(s, &new, &id, &why);
}

static int approve(struct policy_store *s)
{
	return policy_store_approve(
		s, &(struct policy_judgement){.revision = 4, .time_us = 9500, .author_uid = 8, .author = "bob", .comment = ""}, &why);
}

static int expire(struct policy_store *s)
{
	uint32_t over[POLICY_PENDING_MAX];
	size_t n;

	return policy_store_expire(s, 100000, 0, "gatewayd", over, &n, &why);
}

/* Three changes, a confirmation of the last, a proposal and its approval, and one that expires: how much of it was told to be stored. */
static unsigned run(void)
{
	struct policy_store *s = policy_store_open("policy.db", false, &why);
	struct policy_file file;
	unsigned told = 0;
	uint32_t id;

	for (unsigned n = 1; s != NULL && n <= 3; n++) {
		struct policy_new new = change(n, &file);

		if (policy_store_add(s, &new, &id, &why) != 0)
			break;
		assert_int_equal(id, n);
		told = n;
	}
	if (told == 3 && policy_store_confirm(s, 3, 9000, 7, "ann", &why) == 0)
		told = CONFIRMED;
	if (told == CONFIRMED && propose(s, 4) == 0)
		told = PROPOSED;
	if (told == PROPOSED && approve(s) == 0)
		told = APPROVED;
	if (told == APPROVED && propose(s, 5) == 0)
		told = PROPOSED_MORE;
	if (told == PROPOSED_MORE && expire(s) == 0)
		told = EXPIRED;
	policy_store_close(&s);
	return told;
}

static void check_file(const struct policy_file *f, void *arg)
{
	unsigned n = *(unsigned *)arg;

	assert_int_equal(f->len, LIST_BYTES);
	assert_memory_equal(f->text, list[n % 2], LIST_BYTES);
}

/* True: it is there.  It decides nothing, and what was told to have become of it has. */
static bool check_last(struct policy_store *s, unsigned told, struct policy_revision *r)
{
	if (policy_store_get(s, 5, r, NULL, NULL, &why) != 1) {
		assert_true(told < PROPOSED_MORE);
		return false;
	}
	assert_true(told >= APPROVED && !policy_revision_ruled(r));
	if (told == EXPIRED || r->verdict[0] != '\0')
		assert_string_equal(r->verdict, POLICY_EXPIRED);
	assert_true(told >= PROPOSED_MORE || r->verdict[0] == '\0');
	return true;
}

/* What rules is one of the changes, whole, and none that was told is missing.  Gives the newest revision. */
static unsigned check(struct policy_store *s, unsigned told)
{
	struct policy_revision *r = malloc(sizeof *r);
	struct policy_trial t;
	uint32_t active, newest;
	char *text;

	assert_int_equal(policy_store_active(s, &active, &why), 0);
	/* A proposal rules once it is approved, and not before. */
	newest = policy_store_get(s, 4, r, NULL, NULL, &why) == 1 ? 4 : active;
	if (newest == 4 && (told < CONFIRMED || active < 3 || policy_revision_ruled(r) != (active == 4)))
		fail_msg("revision %u rules, 4 is there, and %u was told", active, told);
	if (active < (told >= APPROVED ? 4 : told >= CONFIRMED ? 3 : told) || active > (told >= PROPOSED ? 4 : 3) || active > told + 1 ||
	    (told >= PROPOSED && newest < 4))
		fail_msg("revision %u rules, and %u was told", active, told);
	if (check_last(s, told, r))
		newest = 5;
	for (unsigned n = 1; n <= newest; n++) {
		assert_int_equal(policy_store_get(s, n, r, &text, NULL, &why), 1);
		assert_string_equal(text, n % 2 ? "odd" : "even");
		assert_int_equal(policy_store_files(s, n, check_file, &n, &why), 0);
		free(text);
	}
	/* A revision is on trial from the moment at which it rules. */
	int rc = policy_store_trial(s, &t, &why);

	assert_true(rc >= 0 && (active > 1 || rc == 0) && (told < CONFIRMED || rc == 0));
	if (active == 2 || (active == 3 && told < 3))
		assert_true(rc == 1 && t.previous == 1 && t.revision == active);
	free(r);
	return newest;
}

/* Whatever happened, the next change is taken. */
static void go_on(struct policy_store *s, unsigned newest)
{
	struct policy_file file;
	struct policy_new new = change(1, &file);
	uint32_t id;

	if (policy_store_add(s, &new, &id, &why) != 0)
		fail_msg("%s", why.text);
	assert_int_equal(id, newest + 1);
}

static void try_all(bool lose_power)
{
	unsigned long at = 0;
	unsigned told;
	bool seen[EXPIRED + 1] = {false};

	do {
		struct policy_store *s;

		at++;
		unlink("policy.db");
		unlink("policy.db-wal");
		unlink("policy.db-shm");
		disk_new(at, lose_power);
		disk_seed(at * 7919 + 1);
		told = run();
		bool failed = disk_ops() >= at;

		if (lose_power)
			disk_power_up();
		disk_new(0, false);
		s = policy_store_open("policy.db", false, &why);
		if (s == NULL)
			fail_msg("at %lu of the disk: %s", at, why.text);
		unsigned newest = check(s, told);

		seen[told] = true;
		go_on(s, newest);
		policy_store_close(&s);
		if (!failed)
			break;
	} while (at < 100000);
	assert_true(told == EXPIRED && at > 20);
	for (unsigned i = 0; i <= EXPIRED; i++)
		assert_true(seen[i]);
}

static void test_power_is_lost_at_each_write(void **unused)
{
	(void)unused;
	try_all(true);
}

static void test_each_write_fails_once(void **unused)
{
	(void)unused;
	try_all(false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_power_is_lost_at_each_write, scratch_enter, scratch_leave),
		cmocka_unit_test_setup_teardown(test_each_write_fails_once, scratch_enter, scratch_leave),
	};

	for (size_t i = 0; i < LIST_BYTES; i++) {
		list[0][i] = (char)('a' + i * 7 % 26);
		list[1][i] = (char)('a' + i * 11 % 26);
	}
	disk_install();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
