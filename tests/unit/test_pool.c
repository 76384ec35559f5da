/* gatewayd/worker/pool.c: objects are apart and zero, and what a flood took is given back. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gatewayd/worker/pool.h"

#define MANY 3000

static void check_and_fill(uint8_t *object, size_t size, unsigned mark)
{
	for (size_t i = 0; i < size; i++)
		assert_int_equal(object[i], 0);
	memset(object, (int)(mark % 255 + 1), size);
}

/* Any size, in an order that scatters the free places: nobody writes into another's object. */
static void objects_are_zero_and_apart(void **state)
{
	static const size_t sizes[] = {1, 16, 100, 1200, 8300, 60000, 200000};
	static uint8_t *objects[MANY];
	uint32_t random = 1;

	(void)state;
	for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
		unsigned live = sizes[s] > 10000 ? 50 : MANY;
		struct pool p;

		pool_init(&p, sizes[s]);
		memset(objects, 0, sizeof objects);
		for (unsigned round = 0; round < 4 * live; round++) {
			unsigned at = (random = random * 1664525 + 1013904223) >> 8;

			at %= live;
			if (objects[at] == NULL) {
				objects[at] = pool_get(&p);
				assert_non_null(objects[at]);
				assert_int_equal((uintptr_t)objects[at] % _Alignof(max_align_t), 0);
				check_and_fill(objects[at], sizes[s], at);
				continue;
			}
			for (size_t i = 0; i < sizes[s]; i++)
				assert_int_equal(objects[at][i], at % 255 + 1);
			pool_put(&p, objects[at]);
			objects[at] = NULL;
		}
		for (unsigned i = 0; i < live; i++)
			pool_put(&p, objects[i]);
		assert_true(pool_slabs(&p) <= 1);
	}
}

static void a_flood_is_given_back(void **state)
{
	static void *objects[MANY];
	struct pool p;

	(void)state;
	pool_init(&p, 8000);
	for (int round = 0; round < 3; round++) {
		for (unsigned i = 0; i < MANY; i++)
			objects[i] = pool_get(&p);
		size_t most = pool_slabs(&p);

		for (unsigned i = 0; i < MANY; i += 2) {
			pool_put(&p, objects[i]);
			objects[i] = NULL;
		}
		/* Half of the places are free: as many fit without another slab. */
		for (unsigned i = 0; i < MANY; i += 2)
			objects[i] = pool_get(&p);
		assert_int_equal(pool_slabs(&p), most);
		for (unsigned i = MANY; i-- > 0;)
			pool_put(&p, objects[i]);
		assert_true(pool_slabs(&p) <= 1);
	}
}

/* Only what was used is wiped: that is enough where the rest was zero. */
static void used_part_is_wiped(void **state)
{
	static const uint8_t zero[8000];
	struct pool p;
	uint8_t *one;

	(void)state;
	pool_init(&p, sizeof zero);
	one = pool_get(&p);
	memset(one, 1, 100);
	pool_put_used(&p, one, 100);
	one = pool_get(&p);
	assert_memory_equal(one, zero, sizeof zero);
	memset(one, 1, sizeof zero);
	pool_put_used(&p, one, sizeof zero);
	one = pool_get(&p);
	assert_memory_equal(one, zero, sizeof zero);
	pool_put(&p, one);
	pool_trim(&p);
}

/* Bursts find the slabs of the last one; trimmed, one is left. */
static void bursts_find_their_slabs(void **state)
{
	static void *objects[MANY];
	struct pool p;

	(void)state;
	pool_init(&p, 8000);
	pool_keep(&p, 3);
	for (int round = 0; round < 3; round++) {
		for (unsigned i = 0; i < MANY; i++)
			objects[i] = pool_get(&p);
		for (unsigned i = 0; i < MANY; i++)
			pool_put(&p, objects[i]);
		assert_true(pool_slabs(&p) <= 3);
	}
	size_t kept = pool_slabs(&p);

	assert_int_equal(pool_has_spare(&p), kept > 1);
	objects[0] = pool_get(&p);
	assert_int_equal(pool_slabs(&p), kept);
	pool_trim(&p);
	assert_false(pool_has_spare(&p));
	assert_true(pool_slabs(&p) <= 2); /* that of the object, and an empty one */
	memset(objects[0], 1, 8000);
	pool_put(&p, objects[0]);
	pool_trim(&p);
	assert_true(pool_slabs(&p) <= 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(objects_are_zero_and_apart),
		cmocka_unit_test(a_flood_is_given_back),
		cmocka_unit_test(used_part_is_wiped),
		cmocka_unit_test(bursts_find_their_slabs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
