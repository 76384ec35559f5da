/* Who must wait after failed log-ins, and who must not; time is an argument. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "auth/throttle.h"

#define S 1000000LL
#define MINUTE (60 * S)

static const struct throttle_options plain = {.user_failures = 3,
					      .client_failures = 10,
					      .first_ms = 1000,
					      .max_ms = 60000,
					      .bits_v4 = 24,
					      .bits_v6 = 64,
					      .max = 100};

static struct addr v4(unsigned host)
{
	return addr_v4(0xc0000200 + host);
}

static int64_t fail_times(struct throttle *t, const struct addr *client, const char *user, unsigned n, int64_t now)
{
	int64_t wait = 0;

	for (unsigned i = 0; i < n; i++)
		wait = throttle_failed(t, client, user, 0, now);
	return wait;
}

static void test_waits_double(void **state)
{
	struct throttle *t = throttle_new(&plain);
	struct addr a = v4(1);
	static const int64_t waits[] = {0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60};

	(void)state;
	for (size_t i = 0; i < sizeof waits / sizeof *waits; i++) {
		int64_t wait = throttle_failed(t, &a, "ann", 0, 5 * S);

		if (i < 9) /* after that the network counts, too */
			assert_int_equal(wait, waits[i] * S);
		else
			assert_true(wait >= waits[i] * S);
	}
	assert_int_equal(throttle_wait_us(t, &a, "ann", 5 * S), 60 * S);
	assert_int_equal(throttle_wait_us(t, &a, "ann", 64 * S), 1 * S);
	assert_int_equal(throttle_wait_us(t, &a, "ann", 65 * S), 0);
	throttle_free(&t);
	assert_null(t);
}

static void test_a_user_is_counted_from_one_network(void **state)
{
	struct throttle *t = throttle_new(&plain);
	struct addr a = v4(1), same = v4(254), other = addr_v4(0xc0000301);

	(void)state;
	assert_true(fail_times(t, &a, "Ann", 4, 0) > 0);
	assert_true(throttle_wait_us(t, &same, "aNN", 0) > 0);
	assert_int_equal(throttle_wait_us(t, &other, "ann", 0), 0);
	assert_int_equal(throttle_wait_us(t, &a, "bob", 0), 0);
	throttle_free(&t);
}

static void test_network_of_ipv6_is_a_64(void **state)
{
	struct throttle *t = throttle_new(&plain);
	struct addr a = addr_v6((const uint8_t[16]){0x20, 1, 0xd, 0xb8, 0, 0, 0, 1, 1});
	struct addr same = addr_v6((const uint8_t[16]){0x20, 1, 0xd, 0xb8, 0, 0, 0, 1, 0xff, 2, 3, 4});
	struct addr other = addr_v6((const uint8_t[16]){0x20, 1, 0xd, 0xb8, 0, 0, 0, 2, 1});
	char text[PREFIX_TEXT_MAX];

	(void)state;
	struct prefix p = throttle_network(t, &same);

	assert_string_equal(prefix_format(&p, text), "2001:db8:0:1::/64");
	fail_times(t, &a, "ann", 4, 0);
	assert_true(throttle_wait_us(t, &same, "ann", 0) > 0);
	assert_int_equal(throttle_wait_us(t, &other, "ann", 0), 0);
	throttle_free(&t);
}

static void test_network_waits_after_guesses_at_many(void **state)
{
	struct throttle *t = throttle_new(&plain);
	struct addr a = v4(1);
	char user[16];

	(void)state;
	throttle_succeeded(t, &a, "known", 0);
	for (unsigned i = 0; i < 11; i++) {
		snprintf(user, sizeof user, "u%u", i);
		throttle_failed(t, &a, user, 0, 0);
	}
	assert_true(throttle_wait_us(t, &a, "newcomer", 0) > 0);
	/* Who has logged in from here lately is judged alone, but is judged. */
	assert_int_equal(throttle_wait_us(t, &a, "known", 0), 0);
	fail_times(t, &a, "known", 4, 0);
	assert_true(throttle_wait_us(t, &a, "known", 0) > 0);
	throttle_free(&t);
}

static void test_own_success_does_not_pay_for_guesses(void **state)
{
	struct throttle *t = throttle_new(&plain);
	struct addr a = v4(1);
	char user[16];

	(void)state;
	for (unsigned i = 0; i < 10; i++) {
		snprintf(user, sizeof user, "u%u", i);
		throttle_failed(t, &a, user, 0, 0);
		throttle_succeeded(t, &a, "mallory", 0);
	}
	assert_true(throttle_failed(t, &a, "u10", 0, 0) > 0);
	throttle_free(&t);
}

static void test_success_forgives_the_user(void **state)
{
	struct throttle *t = throttle_new(&plain);
	struct addr a = v4(1);

	(void)state;
	fail_times(t, &a, "ann", 3, 0);
	throttle_succeeded(t, &a, "ann", 0);
	assert_int_equal(fail_times(t, &a, "ann", 3, 0), 0);
	assert_true(throttle_failed(t, &a, "ann", 0, 0) > 0);
	throttle_free(&t);
}

static void test_time_forgives(void **state)
{
	struct throttle *t = throttle_new(&plain);
	struct addr a = v4(1);

	(void)state;
	fail_times(t, &a, "ann", 3, 0);
	/* One is forgiven in ten minutes; two more than that are there again. */
	assert_int_equal(throttle_failed(t, &a, "ann", 0, 10 * MINUTE), 0);
	assert_true(throttle_failed(t, &a, "ann", 0, 10 * MINUTE) > 0);
	assert_int_equal(fail_times(t, &a, "ann", 3, 24 * 60 * MINUTE), 0);
	throttle_free(&t);
}

/* A program that tries an old password again and again does not guess. */
static void test_the_same_again_is_no_guess(void **state)
{
	struct throttle *t = throttle_new(&plain);
	struct addr a = v4(1), b = addr_v4(0xc6336401);

	(void)state;
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(throttle_failed(t, &a, "ann", 77 + i % 2, 0), 0);
	assert_int_equal(throttle_failed(t, &b, "ann", 77, 0), 0);
	assert_int_equal(throttle_failed(t, &a, "ann", 1, 0), 0);
	assert_int_equal(throttle_failed(t, &a, "ann", 2, 0), S);
	/* Only the last few are known again. */
	assert_int_equal(throttle_failed(t, &a, "ann", 3, 0), 2 * S);
	assert_int_equal(throttle_failed(t, &a, "ann", 77, 0), 4 * S);
	throttle_free(&t);
}

static void test_off(void **state)
{
	struct throttle_options off = plain;
	struct addr a = v4(1);

	(void)state;
	off.user_failures = off.client_failures = 0;
	struct throttle *t = throttle_new(&off);

	assert_int_equal(fail_times(t, &a, "ann", 1000, 0), 0);
	assert_int_equal(throttle_wait_us(t, &a, "ann", 0), 0);
	assert_int_equal(throttle_records(t), 0);
	throttle_free(&t);
}

/* Whoever waits is not washed out of the table by failures of many names from many networks. */
static void test_table_is_bounded_and_keeps_who_waits(void **state)
{
	struct throttle *t = throttle_new(&plain);
	struct addr a = v4(1);
	char user[32];

	(void)state;
	assert_true(fail_times(t, &a, "ann", 5, 0) > 0);
	for (unsigned i = 0; i < 10000; i++) {
		struct addr other = addr_v4(0x0a000000 + (i << 8));

		snprintf(user, sizeof user, "u%u", i);
		throttle_failed(t, &other, user, 0, 0);
		throttle_succeeded(t, &other, "x", 0);
	}
	assert_true(throttle_records(t) <= 300);
	assert_true(throttle_wait_us(t, &a, "ann", 0) > 0);
	throttle_free(&t);
}

/* Full of those who wait, the table still takes new ones. */
static void test_table_full_of_waiting(void **state)
{
	struct throttle *t = throttle_new(&plain);

	(void)state;
	for (unsigned i = 0; i < 1000; i++) {
		struct addr a = addr_v4(0x0a000000 + (i << 8));

		assert_true(fail_times(t, &a, "ann", 5, 0) > 0);
	}
	assert_true(throttle_records(t) <= 300);
	throttle_free(&t);
}

struct seen {
	unsigned n;
	char first[64];
	int64_t first_wait;
};

static void see(const struct prefix *network, const char *user, unsigned failures, int64_t wait_us, void *arg)
{
	struct seen *seen = arg;
	char text[PREFIX_TEXT_MAX];

	if (seen->n++ == 0) {
		snprintf(seen->first, sizeof seen->first, "%s %s %u", prefix_format(network, text), user, failures);
		seen->first_wait = wait_us;
	}
}

static void test_listing_and_unlocking(void **state)
{
	struct throttle *t = throttle_new(&plain);
	struct addr a = v4(1), b = addr_v4(0xc6336401);
	struct prefix one = {.addr = v4(1), .bits = 32};
	struct seen seen = {0};

	(void)state;
	throttle_failed(t, &b, "bob", 0, 0);
	fail_times(t, &a, "ann", 4, 0);
	throttle_each(t, 0, see, &seen);
	assert_int_equal(seen.n, 4);
	assert_string_equal(seen.first, "192.0.2.0/24 ann 4");
	assert_int_equal(seen.first_wait, S);
	assert_int_equal(throttle_unlock(t, NULL, "carol", 0), 0);
	assert_true(throttle_wait_us(t, &a, "ann", 0) > 0);
	assert_int_equal(throttle_unlock(t, &one, NULL, 0), 2); /* inside the network, which goes as a whole */
	assert_int_equal(throttle_wait_us(t, &a, "ann", 0), 0);
	assert_int_equal(throttle_unlock(t, NULL, "BOB", 0), 1);
	assert_int_equal(throttle_unlock(t, NULL, NULL, 0), 1);
	assert_int_equal(throttle_records(t), 0);
	throttle_free(&t);
}

static void test_denied_lately(void **state)
{
	struct throttle *t = throttle_new(&plain);
	struct addr a = v4(1), b = addr_v4(0xc0000301);
	uint32_t delay = 0;

	(void)state;
	assert_false(throttle_denied_lately(t, &a, "ann", 7, S, &delay));
	throttle_note_denied(t, &a, "ann", 7, 5, S); /* of what was never counted, nothing is kept */
	assert_false(throttle_denied_lately(t, &a, "ann", 7, S, &delay));
	throttle_failed(t, &a, "Ann", 7, S);
	assert_false(throttle_denied_lately(t, &a, "ann", 7, S, &delay));
	throttle_note_denied(t, &a, "ann", 7, 2000, S);
	assert_true(throttle_denied_lately(t, &a, "aNN", 7, 31 * S - 1, &delay));
	assert_int_equal(delay, 2000);
	assert_false(throttle_denied_lately(t, &a, "ann", 8, S, &delay));
	assert_false(throttle_denied_lately(t, &b, "ann", 7, S, &delay));
	assert_false(throttle_denied_lately(t, &a, "bob", 7, S, &delay));
	assert_false(throttle_denied_lately(t, &a, "ann", 7, 31 * S, &delay)); /* it may be right by now */
	throttle_note_denied(t, &a, "ann", 7, 2000, 31 * S);
	throttle_succeeded(t, &a, "ann", 32 * S);
	assert_false(throttle_denied_lately(t, &a, "ann", 7, 32 * S, &delay));
	throttle_free(&t);
}

struct told {
	struct throttle_news last;
	unsigned n[THROTTLE_STEPS];
	uint64_t untold;
};

static void hear(const struct throttle_news *news, void *arg)
{
	struct told *told = arg;

	told->last = *news;
	told->n[news->step]++;
	told->untold += news->untold;
}

static struct throttle *telling(struct told *told)
{
	struct throttle_options options = plain;

	*told = (struct told){0};
	options.news = hear;
	options.arg = told;
	options.max = 1000;
	return throttle_new(&options);
}

static void test_an_episode_is_told_twice(void **state)
{
	struct told told;
	struct throttle *t = telling(&told);
	struct addr a = v4(1);
	char text[PREFIX_TEXT_MAX];

	(void)state;
	fail_times(t, &a, "Ann", 3, 0);
	assert_int_equal(told.n[THROTTLE_BEGUN], 0);
	fail_times(t, &a, "Ann", 1, 0);
	assert_int_equal(told.n[THROTTLE_BEGUN], 1);
	assert_string_equal(told.last.user, "ann");
	assert_string_equal(prefix_format(&told.last.network, text), "192.0.2.0/24");
	assert_int_equal(told.last.failures, 4);
	assert_int_equal(told.last.wait_ms, 1000);
	for (int i = 0; i < 7; i++)
		assert_true(throttle_wait_us(t, &a, "ann", S / 2) > 0);
	fail_times(t, &a, "ann", 2, 2 * S); /* waits 4 s */
	assert_int_equal(told.n[THROTTLE_BEGUN], 1);
	throttle_tick(t, 6 * S + THROTTLE_QUIET_US - 1);
	assert_int_equal(told.n[THROTTLE_OVER], 0);
	throttle_tick(t, 6 * S + THROTTLE_QUIET_US);
	assert_int_equal(told.n[THROTTLE_OVER], 1);
	assert_int_equal(told.last.refused, 7);
	assert_int_equal(told.last.failures, 6);
	assert_int_equal(told.last.lasted_us, 6 * S + THROTTLE_QUIET_US);
	throttle_tick(t, 10 * MINUTE);
	assert_int_equal(told.n[THROTTLE_OVER], 1);
	fail_times(t, &a, "ann", 1, 2 * MINUTE); /* what counted counts, and the next episode begins */
	assert_int_equal(told.n[THROTTLE_BEGUN], 2);
	assert_int_equal(told.last.failures, 7);
	throttle_free(&t);
}

/* Where no user is slowed down, the same wrong password is still answered from memory. */
static void test_denied_lately_without_a_throttle(void **state)
{
	struct throttle_options options = plain;
	struct addr a = v4(1), b = addr_v4(0xc0000301);
	uint32_t delay = 0;

	(void)state;
	options.user_failures = options.client_failures = 0;
	struct throttle *t = throttle_new(&options);

	assert_int_equal(throttle_failed(t, &a, "ann", 77, MINUTE), 0);
	assert_false(throttle_denied_lately(t, &a, "ann", 77, MINUTE, &delay));
	throttle_note_denied(t, &a, "ann", 77, 5000, MINUTE);
	assert_true(throttle_denied_lately(t, &a, "Ann", 77, MINUTE + 29 * S, &delay));
	assert_int_equal(delay, 5000);
	assert_false(throttle_denied_lately(t, &a, "ann", 78, MINUTE, &delay));
	assert_false(throttle_denied_lately(t, &b, "ann", 77, MINUTE, &delay));
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(throttle_failed(t, &a, "ann", 100 + i, MINUTE), 0);
	assert_int_equal(throttle_wait_us(t, &a, "ann", MINUTE), 0);
	assert_false(throttle_denied_lately(t, &a, "ann", 77, MINUTE + 31 * S, &delay));
	assert_int_equal(throttle_records(t), 0); /* it was over, and was forgotten */
	throttle_free(&t);
}

static void test_what_ends_an_episode(void **state)
{
	struct told told;
	struct throttle *t = telling(&told);
	struct addr a = v4(1);

	(void)state;
	fail_times(t, &a, "ann", 4, 0);
	throttle_succeeded(t, &a, "ann", 2 * S);
	assert_int_equal(told.n[THROTTLE_OVER], 1);
	fail_times(t, &a, "bob", 4, 0);
	assert_int_equal(throttle_unlock(t, NULL, "bob", 3 * S), 1);
	assert_int_equal(told.n[THROTTLE_UNLOCKED], 1);
	assert_string_equal(told.last.user, "bob");
	fail_times(t, &a, "carol", 2, 0); /* the ninth and tenth of the network */
	assert_int_equal(told.n[THROTTLE_BEGUN], 2);
	fail_times(t, &a, "dave", 1, 0);
	assert_int_equal(told.n[THROTTLE_BEGUN], 3);
	assert_string_equal(told.last.user, "");
	assert_int_equal(throttle_unlock(t, NULL, NULL, 0), 3);
	assert_int_equal(told.n[THROTTLE_UNLOCKED], 2); /* carol and dave did not wait */
	throttle_free(&t);
	assert_int_equal(told.n[THROTTLE_OVER], 1);
}

static void test_a_flood_of_episodes_is_counted(void **state)
{
	struct told told;
	struct throttle *t = telling(&told);

	(void)state;
	for (unsigned i = 0; i < 500; i++) {
		struct addr a = addr_v4(0x0a000000 + (i << 8));

		fail_times(t, &a, "ann", 4, 0);
	}
	assert_int_equal(told.n[THROTTLE_BEGUN], THROTTLE_NEWS_BURST);
	throttle_tick(t, 10 * MINUTE);
	assert_int_equal(told.n[THROTTLE_OVER], THROTTLE_NEWS_BURST); /* who was not told of is not told to be over */
	assert_int_equal(told.untold, 500 - THROTTLE_NEWS_BURST);
	struct addr b = v4(1);

	fail_times(t, &b, "ann", 4, 10 * MINUTE);
	assert_int_equal(told.n[THROTTLE_BEGUN], THROTTLE_NEWS_BURST + 1);
	throttle_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_denied_lately),
		cmocka_unit_test(test_waits_double),
		cmocka_unit_test(test_a_user_is_counted_from_one_network),
		cmocka_unit_test(test_network_of_ipv6_is_a_64),
		cmocka_unit_test(test_network_waits_after_guesses_at_many),
		cmocka_unit_test(test_own_success_does_not_pay_for_guesses),
		cmocka_unit_test(test_success_forgives_the_user),
		cmocka_unit_test(test_time_forgives),
		cmocka_unit_test(test_the_same_again_is_no_guess),
		cmocka_unit_test(test_off),
		cmocka_unit_test(test_table_is_bounded_and_keeps_who_waits),
		cmocka_unit_test(test_table_full_of_waiting),
		cmocka_unit_test(test_listing_and_unlocking),
		cmocka_unit_test(test_an_episode_is_told_twice), cmocka_unit_test(test_what_ends_an_episode),
		cmocka_unit_test(test_a_flood_of_episodes_is_counted),
		cmocka_unit_test(test_denied_lately_without_a_throttle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
