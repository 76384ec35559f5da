/* Texts that sessions share: one of each, as long as somebody needs it, whatever comes and goes. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "gatewayd/worker/shared.h"

static void test_the_same_is_one(void **state)
{
	char ann[] = "ann";
	const char *a = shared_get(ann), *b = shared_get("ann"), *c = shared_get("bob"), *none = shared_get("");

	(void)state;
	assert_ptr_equal(a, b);
	assert_ptr_not_equal(a, ann);
	assert_ptr_not_equal(a, c);
	assert_string_equal(none, "");
	assert_int_equal(shared_count(), 3);
	shared_put(&a);
	assert_null(a);
	assert_string_equal(b, "ann"); /* somebody needs it */
	shared_put(&b);
	shared_put(&c);
	shared_put(&none);
	assert_int_equal(shared_count(), 0);
	shared_put(&none); /* nobody's */
	assert_int_equal(shared_count(), 0);
}

static void test_another_takes_its_place(void **state)
{
	const char *place = NULL;

	(void)state;
	assert_int_equal(shared_set(&place, "one"), 0);
	assert_int_equal(shared_set(&place, "two"), 0);
	assert_string_equal(place, "two");
	assert_int_equal(shared_set(&place, place), 0); /* itself */
	assert_string_equal(place, "two");
	assert_int_equal(shared_count(), 1);
	shared_put(&place);
	assert_int_equal(shared_count(), 0);
}

/* Held against plain copies, through floods that come and go. */
static void test_floods(void **state)
{
	enum { HOLDERS = 20000, TEXTS = 7000 };
	static const char *held[HOLDERS];
	static int which[HOLDERS];
	static unsigned needed[TEXTS];
	size_t distinct = 0;
	uint32_t seed = 1;
	char text[32];

	(void)state;
	for (int i = 0; i < 400000; i++) {
		seed = seed * 1664525u + 1013904223u;
		unsigned at = (seed >> 8) % HOLDERS;
		int now = (i / 50000) % 2 == 0 ? (int)(seed >> 20) % TEXTS : -1; /* they come, and go */

		if (held[at] != NULL) {
			snprintf(text, sizeof text, "text %d", which[at]);
			assert_string_equal(held[at], text);
			distinct -= --needed[which[at]] == 0;
			shared_put(&held[at]);
		}
		if (now >= 0) {
			snprintf(text, sizeof text, "text %d", now);
			held[at] = shared_get(text);
			which[at] = now;
			distinct += needed[now]++ == 0;
		}
		assert_int_equal(shared_count(), distinct);
	}
	for (int i = 0; i < HOLDERS; i++)
		shared_put(&held[i]);
	assert_int_equal(shared_count(), 0);
}

static int callocs, refuse;

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);

void *__wrap_calloc(size_t n, size_t size)
{
	callocs++;
	return refuse-- > 0 ? NULL : __real_calloc(n, size);
}

/* Memory that was short for an instant: the table grows with what comes later. */
static void test_grows_after_memory_was_short(void **state)
{
	enum { TEXTS = 4096 };
	static const char *held[TEXTS];
	char text[32];

	(void)state;
	callocs = 0;
	refuse = 1;
	for (int i = 0; i < TEXTS; i++) {
		snprintf(text, sizeof text, "text %d", i);
		held[i] = shared_get(text);
		assert_non_null(held[i]);
	}
	assert_true(callocs >= 6); /* from 64, or what floods have left, to what it takes */
	assert_true(refuse < 0);
	for (int i = 0; i < TEXTS; i++)
		shared_put(&held[i]);
	assert_int_equal(shared_count(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_same_is_one),
		cmocka_unit_test(test_another_takes_its_place),
		cmocka_unit_test(test_floods),
		cmocka_unit_test(test_grows_after_memory_was_short),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
