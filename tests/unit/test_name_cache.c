/* What names have resolved to: as answered, for as long as both clocks say, within the bounds. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "gatewayd/worker/name_cache.h"
#include "gatewayd/worker/resolver.h"

#define SECOND ((int64_t)1000000)
#define LONGEST (300 * SECOND)

static struct name_cache *cache;
static const struct moment start = {5 * SECOND, 1000000 * SECOND};
static struct answer found;

static struct name name_of(const char *text)
{
	struct name name;
	struct addr unused;
	const char *why;

	assert_int_equal(name_canonical(text, strlen(text), &name, &unused, &why), NAME_IS_NAME);
	return name;
}

static struct moment after(int64_t mono_us, int64_t wall_us)
{
	return (struct moment){start.mono_us + mono_us, start.wall_us + wall_us};
}

static struct answer answer_of(size_t naddresses, size_t naliases)
{
	struct answer a = {.naddresses = naddresses, .naliases = naliases};
	char text[NAME_MAX_LEN + 1];

	for (size_t i = 0; i < naddresses; i++)
		a.addresses[i] = addr_v4(0xc0000200 + (uint32_t)i);
	for (size_t i = 0; i < naliases; i++) {
		/* 63, 63, 63 and the rest: 253. */
		snprintf(text, sizeof text, "%063zu.%063zu.%063zu.%061zu", i, i, i, i);
		text[strlen(text) - 1] = 'x';
		a.aliases[i] = name_of(text);
		assert_int_equal(a.aliases[i].len, NAME_MAX_LEN);
	}
	return a;
}

static void keep(const char *text, const struct answer *a, int64_t ttl_s)
{
	struct name name = name_of(text);

	name_cache_keep(cache, &name, a, ttl_s, &start);
}

static bool is_found(const char *text, struct moment now)
{
	struct name name = name_of(text);

	memset(&found, 0x5a, sizeof found);
	return name_cache_find(cache, &name, &now, &found);
}

static void use(size_t names)
{
	name_cache_free(&cache);
	cache = name_cache_new(names, LONGEST);
	assert_non_null(cache);
}

static int teardown(void **state)
{
	(void)state;
	name_cache_free(&cache);
	return 0;
}

static void what_was_answered_is_found(void **state)
{
	struct answer full = answer_of(ANSWER_ADDRESSES_MAX, ANSWER_ALIASES_MAX), one = answer_of(1, 0);

	(void)state;
	use(16);
	assert_false(is_found("www.example", start));
	keep("www.example", &full, 60);
	keep("ww.example", &one, 60);
	assert_true(is_found("www.example", start));
	assert_int_equal(found.failure, REASON_NONE);
	assert_int_equal(found.naddresses, ANSWER_ADDRESSES_MAX);
	assert_int_equal(found.naliases, ANSWER_ALIASES_MAX);
	for (size_t i = 0; i < ANSWER_ADDRESSES_MAX; i++)
		assert_true(addr_equal(&found.addresses[i], &full.addresses[i]));
	for (size_t i = 0; i < ANSWER_ALIASES_MAX; i++) {
		assert_int_equal(found.aliases[i].len, full.aliases[i].len);
		assert_string_equal(found.aliases[i].text, full.aliases[i].text);
	}
	assert_true(is_found("ww.example", start));
	assert_int_equal(found.naddresses, 1);
	assert_int_equal(found.naliases, 0);
	/* Again: the latest answer holds. */
	keep("www.example", &one, 60);
	assert_true(is_found("www.example", start));
	assert_int_equal(found.naddresses, 1);
	assert_int_equal(name_cache_names(cache), 2);
}

static void never_longer_than_the_records_live(void **state)
{
	struct answer a = answer_of(1, 0);

	(void)state;
	use(16);
	keep("a.example", &a, 60);
	assert_true(is_found("a.example", after(60 * SECOND - 1, 60 * SECOND - 1)));
	assert_false(is_found("a.example", after(60 * SECOND, 0)));
	assert_int_equal(name_cache_names(cache), 0); /* and gone */
	assert_int_equal(name_cache_bytes(cache), 0);
	/* Suspended meanwhile, or set forward; set back. */
	keep("a.example", &a, 60);
	assert_false(is_found("a.example", after(0, 60 * SECOND)));
	keep("a.example", &a, 60);
	assert_false(is_found("a.example", after(0, -1)));
	/* Longest of all, whatever the record says. */
	keep("a.example", &a, INT32_MAX);
	assert_true(is_found("a.example", after(LONGEST - 1, LONGEST - 1)));
	assert_false(is_found("a.example", after(LONGEST, LONGEST)));
	/* A longest time of no whole second makes no record live longer. */
	name_cache_free(&cache);
	cache = name_cache_new(16, 1500000);
	keep("a.example", &a, 1);
	assert_false(is_found("a.example", after(SECOND, SECOND)));
	keep("a.example", &a, 2);
	assert_true(is_found("a.example", after(1500000 - 1, 0)));
	assert_false(is_found("a.example", after(1500000, 0)));
}

static void what_is_not_kept(void **state)
{
	struct answer a = answer_of(1, 0), none = {.failure = REASON_NO_SUCH_NAME}, empty = answer_of(0, 1);

	(void)state;
	use(16);
	keep("a.example", &a, 0);
	keep("a.example", &a, -1);
	keep("a.example", &a, INT32_MIN);
	keep("a.example", &none, 60);
	keep("a.example", &empty, 60);
	assert_false(is_found("a.example", start));
	/* What was known before is not believed beside it. */
	keep("a.example", &a, 60);
	keep("a.example", &a, 0);
	assert_false(is_found("a.example", start));
	keep("a.example", &a, 60);
	keep("a.example", &none, 60);
	assert_false(is_found("a.example", start));
	use(0);
	keep("a.example", &a, 60);
	assert_false(is_found("a.example", start));
	assert_int_equal(name_cache_bytes(cache), 0);
}

static void who_was_asked_for_longest_ago_gives_way(void **state)
{
	struct answer a = answer_of(1, 0);

	(void)state;
	use(3);
	keep("a.example", &a, 60);
	keep("b.example", &a, 60);
	keep("c.example", &a, 60);
	assert_true(is_found("a.example", start));
	keep("d.example", &a, 60);
	assert_int_equal(name_cache_names(cache), 3);
	assert_false(is_found("b.example", start));
	assert_true(is_found("a.example", start) && is_found("c.example", start) && is_found("d.example", start));
}

static void bytes_are_bounded_too(void **state)
{
	struct answer large = answer_of(ANSWER_ADDRESSES_MAX, ANSWER_ALIASES_MAX), small = answer_of(1, 0);
	char text[32];

	(void)state;
	use(20);
	for (int i = 0; i < 200; i++) {
		snprintf(text, sizeof text, "n%d.example", i);
		keep(text, i % 3 == 0 ? &large : &small, 60);
		assert_true(is_found(text, start));
		assert_true(name_cache_names(cache) <= 20);
		assert_true(name_cache_bytes(cache) <= (size_t)20 * NAME_CACHE_BYTES_PER_NAME);
	}
	/* One that takes more than there is pushes nobody out. */
	use(2);
	keep("a.example", &small, 60);
	keep("large.example", &large, 60);
	assert_false(is_found("large.example", start));
	assert_true(is_found("a.example", start));
}

static void what_is_dropped_is_gone(void **state)
{
	struct answer a = answer_of(2, 1);
	struct name name = name_of("a.example");

	(void)state;
	use(16);
	keep("a.example", &a, 60);
	keep("b.example", &a, 60);
	name_cache_drop(cache, &name);
	name_cache_drop(cache, &name);
	assert_false(is_found("a.example", start));
	assert_true(is_found("b.example", start));
	name_cache_flush(cache);
	assert_false(is_found("b.example", start));
	assert_int_equal(name_cache_names(cache), 0);
	assert_int_equal(name_cache_bytes(cache), 0);
}

#define TEST(f) cmocka_unit_test_teardown(f, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_was_answered_is_found),
		TEST(never_longer_than_the_records_live),
		TEST(what_is_not_kept),
		TEST(who_was_asked_for_longest_ago_gives_way),
		TEST(bytes_are_bounded_too),
		TEST(what_is_dropped_is_gone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
