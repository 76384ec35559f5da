/* auth/limits.c: what is counted, for whom, and when it is given back. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "auth/limits.h"

#define SECOND 1000000

static struct limits *limits;
static struct limits_holder *first, *second; /* two workers */
static struct limit_set of_all; /* listeners together */
static struct addr near, far;

static void begin(struct limit_set set)
{
	struct limit_set sets[2] = {set, {0}};

	limits = limits_new(sets, 2, &of_all);
	first = limits_holder_new(limits);
	second = limits_holder_new(limits);
	near = addr_v4(0x7f000001);
	far = addr_v4(0x0a000001);
	assert_non_null(limits);
}

static void end(void)
{
	limits_holder_free(&first);
	limits_holder_free(&second);
	limits_free(&limits);
}

static bool admit(struct limits_holder *h, uint64_t id, const struct addr *client, const char *user, int64_t now)
{
	return limits_admit(h, id, 0, client, user, false, now) == NULL;
}

static void a_listener_counts_over_all_workers(void **state)
{
	(void)state;
	begin((struct limit_set){.sessions = 2});
	assert_true(admit(first, 1, &near, "", 0));
	assert_true(admit(second, 1, &far, "", 0));
	assert_false(admit(first, 2, &near, "", 0));
	limits_release(second, 1, 0);
	assert_true(admit(first, 2, &near, "", 0));
	end();
}

static void a_client_and_a_user_are_counted_for_themselves(void **state)
{
	(void)state;
	begin((struct limit_set){.per_client = 1, .per_user = 2});
	assert_true(admit(first, 1, &near, "ann", 0));
	assert_false(admit(first, 2, &near, "bob", 0));
	assert_true(admit(first, 2, &far, "ann", 0));
	struct addr third = addr_v4(0x0a000002);

	assert_false(admit(first, 3, &third, "ann", 0));
	assert_true(admit(first, 3, &third, "bob", 0));
	end();
}

static void a_user_is_counted_when_he_has_logged_in(void **state)
{
	(void)state;
	begin((struct limit_set){.per_client = 3, .per_user = 1});
	assert_true(admit(first, 1, &near, "", 0));
	assert_true(admit(first, 2, &near, "", 0));
	assert_true(admit(first, 1, &near, "ann", 0));
	assert_false(admit(first, 1, &near, "ann", 0)); /* twice */
	assert_false(admit(first, 1, &near, "bob", 0));
	assert_false(admit(first, 2, &near, "ann", 0));
	/* The connection stays counted until it has ended, and its client was not counted once more. */
	assert_true(admit(second, 1, &near, "", 0));
	assert_false(admit(second, 2, &near, "", 0));
	limits_release(first, 2, 0);
	assert_true(admit(second, 2, &near, "", 0));
	limits_release(first, 1, 0);
	assert_true(admit(second, 2, &near, "ann", 0));
	/* Another listener's session cannot be had by its number. */
	assert_non_null(limits_admit(second, 1, 1, &near, "bob", false, 0));
	end();
}

/* 0: of the first listener that was asked; 1: of the other. */
static const char *admit_at(uint64_t id, size_t listener, const struct addr *client, const char *user)
{
	return limits_admit(first, id, listener, client, user, false, 0);
}

static void a_client_and_a_user_are_counted_over_all_listeners_once_more(void **state)
{
	(void)state;
	of_all = (struct limit_set){.per_client = 2, .per_user = 1};
	begin((struct limit_set){.per_client = 1});
	assert_null(admit_at(1, 0, &near, ""));
	assert_string_equal(admit_at(2, 0, &near, ""), "this client has as many sessions as it may");
	assert_null(admit_at(2, 1, &near, ""));
	assert_string_equal(admit_at(3, 1, &near, ""), "this client has as many sessions as it may at all listeners");
	assert_null(admit_at(3, 1, &far, ""));
	/* The listener's own limits say nothing of users: they are counted all the same, and once. */
	assert_null(admit_at(1, 0, &near, "ann"));
	assert_non_null(admit_at(1, 0, &near, "ann"));
	assert_string_equal(admit_at(2, 1, &near, "Ann"), "this user has as many sessions as they may at all listeners");
	assert_null(admit_at(2, 1, &near, "bob"));
	limits_release(first, 1, 0);
	assert_null(admit_at(3, 1, &far, "ann"));
	assert_null(admit_at(4, 1, &near, ""));
	end();
	of_all = (struct limit_set){.rate_per_client = 1};
	begin((struct limit_set){0});
	assert_null(admit_at(1, 0, &near, ""));
	assert_string_equal(admit_at(2, 1, &near, ""), "this client begins as many sessions a second as it may at all listeners");
	end();
	of_all = (struct limit_set){0};
}

static void a_client_over_ipv6_is_its_64(void **state)
{
	struct addr a, b, c;

	(void)state;
	begin((struct limit_set){.per_client = 1});
	assert_true(addr_parse("2001:db8:1:2::1", &a) && addr_parse("2001:db8:1:2:ffff::9", &b) && addr_parse("2001:db8:1:3::1", &c));
	assert_true(admit(first, 1, &a, "", 0));
	assert_false(admit(first, 2, &b, "", 0));
	assert_true(admit(first, 2, &c, "", 0));
	end();
}

static void nobody_without_a_login_counts_as_a_user(void **state)
{
	(void)state;
	begin((struct limit_set){.per_user = 1});
	for (uint64_t id = 1; id < 10; id++)
		assert_true(admit(first, id, &near, "", 0));
	end();
}

static void a_rate_refills_with_time(void **state)
{
	(void)state;
	begin((struct limit_set){.rate_per_client = 4});
	for (uint64_t id = 1; id <= 4; id++)
		assert_true(admit(first, id, &near, "", 0));
	assert_false(admit(first, 5, &near, "", 0));
	assert_true(admit(first, 5, &far, "", 0));
	assert_false(admit(first, 6, &near, "", SECOND / 8));
	assert_true(admit(first, 6, &near, "", SECOND / 4 + 1));
	assert_false(admit(first, 7, &near, "", SECOND / 4 + 2));
	/* Ending sessions gives no rate back. */
	limits_release(first, 1, SECOND / 4 + 3);
	assert_false(admit(first, 7, &near, "", SECOND / 4 + 3));
	end();
}

static void what_a_dead_worker_held_returns(void **state)
{
	(void)state;
	begin((struct limit_set){.sessions = 3});
	for (uint64_t id = 1; id <= 3; id++)
		assert_true(admit(first, id, &near, "", 0));
	assert_false(admit(second, 1, &near, "", 0));
	limits_holder_free(&first);
	assert_true(admit(second, 1, &near, "", 0));
	end();
}

static void what_has_begun_is_counted_unasked(void **state)
{
	(void)state;
	begin((struct limit_set){.sessions = 1});
	assert_null(limits_admit(first, 1, 0, &near, "", true, 0));
	assert_null(limits_admit(first, 2, 0, &near, "", true, 0));
	limits_release(first, 1, 0);
	assert_false(admit(first, 3, &near, "", 0));
	limits_release(first, 2, 0);
	assert_true(admit(first, 3, &near, "", 0));
	end();
}

static void hostile_ids_and_listeners_are_refused(void **state)
{
	(void)state;
	begin((struct limit_set){.sessions = 5});
	assert_true(admit(first, 1, &near, "", 0));
	assert_false(admit(first, 1, &near, "", 0));
	assert_non_null(limits_admit(first, 2, 2, &near, "", false, 0));
	assert_non_null(limits_admit(first, 2, 60000, &near, "", true, 0));
	limits_release(first, 99, 0);
	limits_release(second, 1, 0);
	assert_null(limits_admit(first, 3, 1, &near, "", false, 0)); /* a listener without limits */
	end();
}

static void names_that_differ_in_case_are_one_user(void **state)
{
	(void)state;
	begin((struct limit_set){.per_user = 2});
	assert_true(admit(first, 1, &near, "ann", 0));
	assert_true(admit(first, 2, &near, "ANN", 0));
	assert_false(admit(first, 3, &near, "Ann", 0));
	assert_true(admit(first, 3, &near, "anna", 0));
	limits_release(first, 2, 0);
	assert_true(admit(second, 4, &far, "aNN", 0));
	end();
}

static void only_a_full_listener_is_full(void **state)
{
	(void)state;
	begin((struct limit_set){.sessions = 2, .per_client = 1});
	assert_false(limits_is_full(limits_admit(first, 1, 0, &near, "", false, 0)));
	assert_false(limits_is_full(limits_admit(first, 2, 0, &near, "", false, 0)));
	assert_false(limits_is_full(limits_admit(first, 2, 0, &far, "", false, 0)));
	assert_true(limits_is_full(limits_admit(first, 3, 0, &near, "", false, 0)));
	end();
}

static void counters_do_not_pile_up(void **state)
{
	(void)state;
	begin((struct limit_set){.per_client = 1, .rate_per_client = 1});
	for (uint32_t i = 0; i < 100000; i++) {
		struct addr a = addr_v4(i);

		assert_true(admit(first, i + 1, &a, "", (int64_t)i * 1000));
		limits_release(first, i + 1, (int64_t)i * 1000);
	}
	assert_true(limits_counters(limits) <= 2100); /* two seconds' worth */
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_listener_counts_over_all_workers),
		cmocka_unit_test(a_client_and_a_user_are_counted_for_themselves),
		cmocka_unit_test(a_user_is_counted_when_he_has_logged_in),
		cmocka_unit_test(a_client_and_a_user_are_counted_over_all_listeners_once_more),
		cmocka_unit_test(a_client_over_ipv6_is_its_64),
		cmocka_unit_test(nobody_without_a_login_counts_as_a_user),
		cmocka_unit_test(a_rate_refills_with_time),
		cmocka_unit_test(what_a_dead_worker_held_returns),
		cmocka_unit_test(what_has_begun_is_counted_unasked),
		cmocka_unit_test(hostile_ids_and_listeners_are_refused),
		cmocka_unit_test(names_that_differ_in_case_are_one_user),
		cmocka_unit_test(only_a_full_listener_is_full),
		cmocka_unit_test(counters_do_not_pile_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
