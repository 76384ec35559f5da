#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "policy/window.h"
#include "policy/zone.h"
#include "tests/unit/policy_fixture.h"

static void open_window(struct fixture *f, const char *window)
{
	char text[512];

	snprintf(text, sizeof text, "window w %s\nrule r allow during w\n", window);
	fixture_open(f, text);
}

static void check(const char *window, int64_t now, enum window_state state)
{
	struct fixture f;

	open_window(&f, window);
	if (window_state(f.image, 0, now) != state)
		fail_msg("%s is not %d at %lld", window, state, (long long)now);
	fixture_close(&f);
}

/* 2026-11-20 is a Friday. */
static int64_t utc(int day, int hour, int minute)
{
	return fixture_time(2026, 11, day, hour, minute);
}

static void test_start_is_in_end_is_out(void **unused)
{
	(void)unused;
	check("{ mon-fri 08:00-18:00 }", utc(20, 7, 59), WINDOW_SHUT);
	check("{ mon-fri 08:00-18:00 }", utc(20, 8, 0), WINDOW_OPEN);
	check("{ mon-fri 08:00-18:00 }", utc(20, 18, 0) - 1, WINDOW_OPEN);
	check("{ mon-fri 08:00-18:00 }", utc(20, 18, 0), WINDOW_SHUT);
	check("{ mon-fri 08:00-18:00 }", utc(21, 12, 0), WINDOW_SHUT);
	check("{ 08:00-18:00 }", utc(21, 12, 0), WINDOW_OPEN);
	check("{ sat }", utc(21, 0, 0), WINDOW_OPEN);
	check("{ sat }", utc(22, 0, 0) - 1, WINDOW_OPEN);
	check("{ sat }", utc(22, 0, 0), WINDOW_SHUT);
}

static void test_midnight_belongs_to_the_day_it_begins(void **unused)
{
	(void)unused;
	check("{ fri 22:00-06:00 }", utc(20, 5, 0), WINDOW_SHUT); /* Thursday's night */
	check("{ fri 22:00-06:00 }", utc(20, 23, 0), WINDOW_OPEN);
	check("{ fri 22:00-06:00 }", utc(21, 5, 59), WINDOW_OPEN);
	check("{ fri 22:00-06:00 }", utc(21, 6, 0), WINDOW_SHUT);
	check("{ fri 22:00-06:00 }", utc(21, 23, 0), WINDOW_SHUT);
	check("{ fri 00:00-24:00 }", utc(20, 23, 59), WINDOW_OPEN);
	check("{ fri 00:00-24:00 }", utc(21, 0, 0), WINDOW_SHUT);
	/* An end that is the start: a whole day from there on. */
	check("{ fri 08:00-08:00 }", utc(20, 8, 0), WINDOW_OPEN);
	check("{ fri 08:00-08:00 }", utc(21, 7, 59), WINDOW_OPEN);
	check("{ fri 08:00-08:00 }", utc(21, 8, 0), WINDOW_SHUT);
	check("{ fri 18:00-00:00 }", utc(20, 23, 59), WINDOW_OPEN);
	check("{ fri 18:00-00:00 }", utc(21, 0, 0), WINDOW_SHUT);
}

static void test_several_ranges_and_exceptions(void **unused)
{
	static const char window[] =
		"{ mon-thu 08:00-12:00 13:00-17:00 fri 08:00-12:00 sun except 2026-11-19 2026-11-22 }";

	(void)unused;
	check(window, utc(18, 9, 0), WINDOW_OPEN);
	check(window, utc(18, 12, 30), WINDOW_SHUT);
	check(window, utc(18, 16, 59), WINDOW_OPEN);
	check(window, utc(19, 9, 0), WINDOW_SHUT);
	check(window, utc(20, 9, 0), WINDOW_OPEN);
	check(window, utc(20, 14, 0), WINDOW_SHUT);
	check(window, utc(22, 14, 0), WINDOW_SHUT);
	check(window, utc(29, 14, 0), WINDOW_OPEN);
	/* The night that began before the exception goes on, the one of the exception does not begin. */
	check("{ 22:00-06:00 except 2026-11-20 }", utc(20, 5, 0), WINDOW_OPEN);
	check("{ 22:00-06:00 except 2026-11-20 }", utc(20, 23, 0), WINDOW_SHUT);
	check("{ 22:00-06:00 except 2026-11-20 }", utc(21, 5, 0), WINDOW_SHUT);
}

static void test_zones(void **unused)
{
	(void)unused;
	check("tz Europe/Berlin { 08:00-18:00 }", utc(20, 7, 0), WINDOW_OPEN);
	check("tz Europe/Berlin { 08:00-18:00 }", utc(20, 6, 59), WINDOW_SHUT);
	check("tz Europe/Berlin { 08:00-18:00 }", fixture_time(2026, 7, 1, 6, 0), WINDOW_OPEN);
	check("tz Asia/Kolkata { 08:00-18:00 }", utc(20, 2, 30), WINDOW_OPEN);
	check("tz Asia/Kolkata { 08:00-18:00 }", utc(20, 2, 29), WINDOW_SHUT);
	check("tz Pacific/Auckland { sat 00:00-01:00 }", utc(20, 11, 0), WINDOW_OPEN);
}

static void test_a_skipped_hour_is_empty(void **unused)
{
	struct fixture f;

	(void)unused;
	/* Berlin, 2026-03-29: 02:00 becomes 03:00 at 01:00 UTC. */
	open_window(&f, "tz Europe/Berlin { 02:00-03:00 }");
	for (int minute = 0; minute < 240; minute++)
		assert_int_equal(window_state(f.image, 0, fixture_time(2026, 3, 28, 23, 0) + minute * 60), WINDOW_SHUT);
	assert_int_equal(window_state(f.image, 0, fixture_time(2026, 3, 28, 1, 30)), WINDOW_OPEN);
	fixture_close(&f);
}

static void test_a_repeated_hour_counts_twice(void **unused)
{
	struct fixture f;
	int open = 0;

	(void)unused;
	/* Berlin, 2026-10-25: 03:00 becomes 02:00 at 01:00 UTC. */
	open_window(&f, "tz Europe/Berlin { 02:00-03:00 }");
	for (int minute = 0; minute < 240; minute++)
		open += window_state(f.image, 0, fixture_time(2026, 10, 24, 22, 0) + minute * 60) == WINDOW_OPEN;
	assert_int_equal(open, 120);
	fixture_close(&f);
}

static void test_beyond_the_known_future(void **unused)
{
	struct policy_request r = {.command = POLICY_CONNECT, .address = fixture_addr("192.0.2.1")};
	struct policy_decision d;
	struct fixture f;

	(void)unused;
	check("{ 00:00-24:00 }", fixture_time(2099, 12, 31, 23, 59), WINDOW_OPEN);
	check("{ 00:00-24:00 }", fixture_time(2100, 1, 1, 0, 0), WINDOW_UNKNOWN);
	check("{ 00:00-24:00 }", -1, WINDOW_UNKNOWN);
	check("{ 00:00-24:00 }", INT64_MAX, WINDOW_UNKNOWN);
	check("{ 00:00-24:00 }", INT64_MIN, WINDOW_UNKNOWN);
	fixture_open(&f, "window w { mon }\nrule a deny during w\nrule b allow");
	struct policy_context ctx = {.image = f.image, .now = INT64_MAX};

	policy_decide_address(&ctx, &r, &r.address, NULL, 0, &d);
	assert_int_equal(d.verdict, POLICY_DENY);
	assert_int_equal(d.reason, POLICY_CANNOT_DECIDE);
	fixture_close(&f);
}

/* Every zone of the system against the C library, at random moments of every year. */
static void test_zones_agree_with_the_c_library(void **unused)
{
	static const char *const zones[] = {
		"Europe/Berlin",     "America/New_York", "America/St_Johns", "Australia/Lord_Howe", "Africa/Casablanca",
		"Asia/Kolkata",	     "Asia/Tehran",	 "Pacific/Apia",     "Pacific/Chatham",	    "Europe/Dublin",
		"America/Sao_Paulo", "Antarctica/Troll", "Asia/Gaza",	     "America/Godthab",	    "UTC",
		"Africa/Cairo"};
	uint64_t chance = 42;

	(void)unused;
	for (size_t i = 0; i < sizeof zones / sizeof zones[0]; i++) {
		char text[128];
		struct fixture f;

		snprintf(text, sizeof text, "tz %s\nrule a allow\n", zones[i]);
		fixture_open(&f, text);
		setenv("TZ", zones[i], 1);
		tzset();
		for (int n = 0; n < 20000; n++) {
			chance = chance * 6364136223846793005u + 1442695040888963407u;
			time_t t = (time_t)((chance >> 20) % 4102444800u);
			int64_t shown;
			struct tm tm;

			localtime_r(&t, &tm);
			assert_true(window_clock(f.image, 0, t, &shown));
			if (shown != (int64_t)t + tm.tm_gmtoff)
				fail_msg("%s at %lld: %lld, not %ld", zones[i], (long long)t, (long long)(shown - t),
					 tm.tm_gmtoff);
		}
		fixture_close(&f);
	}
	setenv("TZ", "UTC", 1);
	tzset();
}

static enum policy_verdict at(const char *rule, int64_t now)
{
	struct policy_request r = {.command = POLICY_CONNECT, .address = fixture_addr("192.0.2.1")};
	struct policy_decision d;
	struct fixture f;
	char text[256];

	snprintf(text, sizeof text, "tz Europe/Berlin\nrule a allow %s\n", rule);
	fixture_open(&f, text);
	struct policy_context ctx = {.image = f.image, .now = now};

	policy_decide_address(&ctx, &r, &r.address, NULL, 0, &d);
	fixture_close(&f);
	return d.verdict;
}

static void test_from_and_until(void **unused)
{
	(void)unused;
	/* A date is meant whole. */
	assert_int_equal(at("until 2026-11-20", utc(20, 23, 0) - 1), POLICY_ALLOW);
	assert_int_equal(at("until 2026-11-20", utc(20, 23, 0)), POLICY_DENY);
	assert_int_equal(at("from 2026-11-20", utc(19, 23, 0) - 1), POLICY_DENY);
	assert_int_equal(at("from 2026-11-20", utc(19, 23, 0)), POLICY_ALLOW);
	/* A time is not part of what ends with it. */
	assert_int_equal(at("until \"2026-11-20 18:00\"", utc(20, 17, 0) - 1), POLICY_ALLOW);
	assert_int_equal(at("until \"2026-11-20 18:00\"", utc(20, 17, 0)), POLICY_DENY);
	assert_int_equal(at("from \"2026-11-20 18:00\"", utc(20, 17, 0)), POLICY_ALLOW);
	/* In a skipped hour: when the clock is past it.  In a repeated one: the first time, for good. */
	assert_int_equal(at("until \"2026-03-29 02:30\"", fixture_time(2026, 3, 29, 1, 0) - 1), POLICY_ALLOW);
	assert_int_equal(at("until \"2026-03-29 02:30\"", fixture_time(2026, 3, 29, 1, 0)), POLICY_DENY);
	assert_int_equal(at("until \"2026-10-25 02:30\"", fixture_time(2026, 10, 25, 0, 30) - 1), POLICY_ALLOW);
	assert_int_equal(at("until \"2026-10-25 02:30\"", fixture_time(2026, 10, 25, 0, 30)), POLICY_DENY);
	assert_int_equal(at("until \"2026-10-25 02:30\"", fixture_time(2026, 10, 25, 1, 10)), POLICY_DENY);
}

static void test_next_change(void **unused)
{
	struct fixture f;

	(void)unused;
	open_window(&f, "{ mon-fri 08:00-18:00 }");
	assert_int_equal(window_next_change(f.image, 0, utc(20, 10, 0) + 17), utc(20, 18, 0));
	assert_int_equal(window_next_change(f.image, 0, utc(20, 18, 0)), utc(23, 8, 0));
	fixture_close(&f);
}

/* From moment to moment, never past a change: what is found minute by minute is found this way, too. */
static void test_next_change_of_a_policy(void **unused)
{
	static const char *const windows[] = {
		"tz Europe/Berlin { mon-fri 08:00-18:00 except 2026-03-30 }", "tz Europe/Berlin { sun 01:30-03:30 }", "{ fri 22:00-06:00 }",
		"tz Australia/Lord_Howe { 01:45-02:15 }", "tz America/New_York { sat 00:00-24:00 sun 12:00-12:00 }", "tz Asia/Kathmandu { mon }"};
	uint64_t chance = 7;

	(void)unused;
	for (size_t i = 0; i < sizeof windows / sizeof *windows; i++) {
		struct fixture f;

		open_window(&f, windows[i]);
		for (int n = 0; n < 300; n++) {
			chance = chance * 6364136223846793005u + 1442695040888963407u;
			int64_t now = utc(20, 0, 0) + (int64_t)((chance >> 20) % (400 * 86400u)) - 200 * 86400;
			int64_t wanted = window_next_change(f.image, 0, now), at = now;

			if (window_state(f.image, 0, wanted) == window_state(f.image, 0, now))
				continue; /* not within a week */
			while (at < wanted && window_state(f.image, 0, at) == window_state(f.image, 0, now)) {
				int64_t next = policy_next_change(f.image, at);

				assert_true(next > at);
				at = next;
			}
			if (at != wanted)
				fail_msg("%s: from %lld to %lld, not %lld", windows[i], (long long)now, (long long)at, (long long)wanted);
		}
		fixture_close(&f);
	}
}

static void test_next_change_by_dates(void **unused)
{
	struct fixture f;

	(void)unused;
	fixture_open(&f, "rule a allow until 2026-11-20\nrule b allow from \"2026-11-19 12:00\" port 22\n");
	assert_int_equal(policy_next_change(f.image, 0), utc(19, 12, 0));
	assert_int_equal(policy_next_change(f.image, utc(19, 12, 0) - 1), utc(19, 12, 0));
	assert_int_equal(policy_next_change(f.image, utc(19, 12, 0)), utc(21, 0, 0));
	assert_true(policy_next_change(f.image, utc(21, 0, 0)) == INT64_MAX);
	fixture_close(&f);
	fixture_open(&f, "rule a allow port 22\n");
	assert_true(policy_next_change(f.image, 0) == INT64_MAX);
	fixture_close(&f);
	open_window(&f, "{ mon }");
	assert_int_equal(policy_next_change(f.image, INT64_MIN), 0);
	assert_true(policy_next_change(f.image, INT64_MAX - 5) == INT64_MAX);
	fixture_close(&f);
}

static void test_damaged_zone_files(void **unused)
{
	size_t len;
	char *file = fixture_read("/usr/share/zoneinfo/Europe/Berlin", &len);
	struct zone z;
	struct err why;

	(void)unused;
	assert_int_equal(zone_read((uint8_t *)file, len, &z, &why), 0);
	zone_clear(&z);
	for (size_t n = 0; n < len; n++) {
		uint8_t *cut = malloc(n + 1);

		memcpy(cut, file, n);
		cut = realloc(cut, n > 0 ? n : 1);
		assert_int_equal(zone_read(cut, n, &z, &why), -1);
		free(cut);
	}
	for (size_t n = 0; n < len; n++) {
		for (int bit = 0; bit < 8; bit += 7) {
			file[n] = (char)(file[n] ^ 1 << bit);
			if (zone_read((uint8_t *)file, len, &z, &why) == 0)
				zone_clear(&z);
			file[n] = (char)(file[n] ^ 1 << bit);
		}
	}
	free(file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_start_is_in_end_is_out),
		cmocka_unit_test(test_midnight_belongs_to_the_day_it_begins),
		cmocka_unit_test(test_several_ranges_and_exceptions),
		cmocka_unit_test(test_zones),
		cmocka_unit_test(test_a_skipped_hour_is_empty),
		cmocka_unit_test(test_a_repeated_hour_counts_twice),
		cmocka_unit_test(test_beyond_the_known_future),
		cmocka_unit_test(test_zones_agree_with_the_c_library),
		cmocka_unit_test(test_from_and_until),
		cmocka_unit_test(test_next_change),
		cmocka_unit_test(test_next_change_of_a_policy),
		cmocka_unit_test(test_next_change_by_dates),
		cmocka_unit_test(test_damaged_zone_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
