/* What is remembered of a log-in, for whom, and for how long; time is an argument. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "auth/remember.h"

#define S 1000000LL

static struct auth_ask ask_of(const char *user, const char *password)
{
	struct auth_ask a = {.service = "gatewayd", .listener = "lan", .client = addr_v4(0xc0000201)};

	snprintf(a.user, sizeof a.user, "%s", user);
	snprintf(a.password, sizeof a.password, "%s", password);
	return a;
}

static struct auth_answer success(const char *user, unsigned ngroups)
{
	struct auth_answer a = {.id = 77, .verdict = AUTH_OK, .ngroups = (uint16_t)ngroups};

	snprintf(a.user, sizeof a.user, "%s", user);
	for (unsigned i = 0; i < ngroups; i++)
		snprintf(a.groups[i], sizeof a.groups[i], "group%u", i);
	return a;
}

static void add(struct remembered *r, const struct auth_ask *ask, const struct auth_answer *answer, int64_t now)
{
	struct remember_key key;

	remembered_key(r, ask, &key);
	remembered_add(r, &key, ask->user, answer, now);
}

static bool knows(struct remembered *r, const struct auth_ask *ask, int64_t now)
{
	struct remember_key key;
	struct auth_answer answer;

	remembered_key(r, ask, &key);
	return remembered_find(r, &key, now, &answer);
}

static void test_answer_with_its_groups(void **state)
{
	struct remembered *r = remembered_new(60 * S, 10);
	struct auth_ask ask = ask_of("ann", "secret");
	struct auth_answer in = success("ann.canonical", 3), out;
	struct remember_key key;

	(void)state;
	assert_false(knows(r, &ask, 0));
	add(r, &ask, &in, 0);
	remembered_key(r, &ask, &key);
	assert_true(remembered_find(r, &key, 59 * S, &out));
	assert_int_equal(out.verdict, AUTH_OK);
	assert_string_equal(out.user, "ann.canonical");
	assert_int_equal(out.ngroups, 3);
	assert_string_equal(out.groups[2], "group2");
	assert_false(knows(r, &ask, 60 * S));
	assert_int_equal(remembered_count(r), 0);
	remembered_free(&r);
	assert_null(r);
}

/* Whatever differs in the question makes it another. */
static void test_bound_to_the_whole_question(void **state)
{
	struct remembered *r = remembered_new(60 * S, 10);
	struct auth_ask ask = ask_of("ann", "secret"), other;
	struct auth_answer yes = success("ann", 0);

	(void)state;
	add(r, &ask, &yes, 0);
	other = ask;
	strcpy(other.password, "secreT");
	assert_false(knows(r, &other, 0));
	other = ask;
	strcpy(other.user, "Ann");
	assert_false(knows(r, &other, 0));
	other = ask;
	strcpy(other.listener, "wan");
	assert_false(knows(r, &other, 0));
	other = ask;
	strcpy(other.service, "other");
	assert_false(knows(r, &other, 0));
	other = ask;
	other.client.bytes[3]++;
	assert_false(knows(r, &other, 0));
	/* Where one text ends and the next begins is part of it. */
	other = ask_of("annsecret", "x");
	add(r, &other, &yes, 0);
	other = ask_of("ann", "secretx");
	assert_false(knows(r, &other, 0));
	assert_true(knows(r, &ask, 0));
	remembered_free(&r);
}

static void test_another_start_has_another_key(void **state)
{
	struct remembered *a = remembered_new(60 * S, 10), *b = remembered_new(60 * S, 10);
	struct auth_ask ask = ask_of("ann", "secret");
	struct remember_key one, two;

	(void)state;
	remembered_key(a, &ask, &one);
	remembered_key(b, &ask, &two);
	assert_memory_not_equal(one.bytes, two.bytes, sizeof one.bytes);
	remembered_free(&a);
	remembered_free(&b);
}

static void test_bounded(void **state)
{
	struct remembered *r = remembered_new(60 * S, 10);
	struct auth_answer yes = success("u", AUTH_GROUPS_MAX);
	char user[16];

	(void)state;
	for (unsigned i = 0; i < 25; i++) {
		snprintf(user, sizeof user, "u%u", i);
		struct auth_ask ask = ask_of(user, "x");

		add(r, &ask, &yes, i);
		add(r, &ask, &yes, i); /* once, not twice */
	}
	assert_int_equal(remembered_count(r), 10);
	for (unsigned i = 0; i < 25; i++) {
		snprintf(user, sizeof user, "u%u", i);
		struct auth_ask ask = ask_of(user, "x");

		assert_int_equal(knows(r, &ask, 25), i >= 15);
	}
	remembered_free(&r);
}

static void test_only_successes(void **state)
{
	struct remembered *r = remembered_new(60 * S, 10);
	struct auth_ask ask = ask_of("ann", "secret");
	struct auth_answer no = {.verdict = AUTH_DENIED, .user = "ann", .reason = "wrong password"};

	(void)state;
	add(r, &ask, &no, 0);
	assert_int_equal(remembered_count(r), 0);
	remembered_free(&r);
}

static void test_forgetting(void **state)
{
	struct remembered *r = remembered_new(60 * S, 10);
	struct auth_ask ann = ask_of("ANN@corp", "x"), bob = ask_of("bob", "x"), carol = ask_of("carol", "x");
	struct auth_answer as_ann = success("ann", 0), as_bob = success("bob", 0), as_carol = success("carol", 0);

	(void)state;
	add(r, &ann, &as_ann, 0);
	add(r, &bob, &as_bob, 0);
	add(r, &carol, &as_carol, 0);
	assert_int_equal(remembered_forget(r, "dave"), 0);
	assert_int_equal(remembered_forget(r, "Ann"), 1); /* by the canonical name */
	assert_false(knows(r, &ann, 0));
	assert_true(knows(r, &bob, 0));
	assert_int_equal(remembered_forget(r, NULL), 2);
	assert_false(knows(r, &bob, 0));
	remembered_free(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answer_with_its_groups),	   cmocka_unit_test(test_bound_to_the_whole_question),
		cmocka_unit_test(test_another_start_has_another_key), cmocka_unit_test(test_bounded),
		cmocka_unit_test(test_only_successes),		   cmocka_unit_test(test_forgetting),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
