/* For how long a uid is not asked about over which the name service hangs; time is an argument. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "auth/hangs.h"

#define S 1000000LL

static void test_the_wait_doubles_up_to_a_bound(void **state)
{
	static const int64_t waits[] = {30, 60, 120, 240, 480, 960, 960, 960};
	struct hangs h = {0};
	int64_t now = 5;

	(void)state;
	assert_false(hangs_wait(&h, 0, now));
	for (size_t i = 0; i < sizeof waits / sizeof *waits; i++) {
		assert_int_equal(hangs_add(&h, 0, now), waits[i] * S);
		assert_true(hangs_wait(&h, 0, now));
		assert_true(hangs_wait(&h, 0, now + waits[i] * S - 1));
		now += waits[i] * S;
		assert_false(hangs_wait(&h, 0, now));
	}
	assert_int_equal(h.n, 1);
}

static void test_an_answer_ends_it(void **state)
{
	struct hangs h = {0};

	(void)state;
	for (uint32_t uid = 1; uid <= 3; uid++) {
		hangs_add(&h, uid, 0);
		hangs_add(&h, uid, 0);
	}
	hangs_remove(&h, 1);
	hangs_remove(&h, 7); /* nobody */
	assert_false(hangs_wait(&h, 1, 0));
	assert_true(hangs_wait(&h, 2, 59 * S) && hangs_wait(&h, 3, 59 * S));
	assert_int_equal(hangs_add(&h, 1, 0), 30 * S);
	assert_int_equal(hangs_add(&h, 3, 0), 120 * S);
	hangs_remove(&h, 1);
	hangs_remove(&h, 2);
	hangs_remove(&h, 3);
	assert_int_equal(h.n, 0);
}

/* Many uids: the one that may be asked about soonest gives its place up. */
static void test_it_is_bounded(void **state)
{
	struct hangs h = {0};

	(void)state;
	for (uint32_t uid = 0; uid < HANGS_MAX; uid++)
		hangs_add(&h, uid, uid == 40 ? 0 : (100 + uid) * S);
	hangs_add(&h, 1000, 200 * S);
	assert_int_equal(h.n, HANGS_MAX);
	assert_true(hangs_wait(&h, 1000, 229 * S));
	assert_int_equal(hangs_add(&h, 40, 500 * S), 30 * S); /* forgotten, and takes the place of 0 */
	assert_false(hangs_wait(&h, 0, 0));
	assert_true(hangs_wait(&h, 1, 0) && hangs_wait(&h, HANGS_MAX - 1, 0));
	for (uint32_t uid = 0; uid < 10000; uid++)
		hangs_add(&h, uid, 1000 * S + uid);
	assert_int_equal(h.n, HANGS_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_wait_doubles_up_to_a_bound),
		cmocka_unit_test(test_an_answer_ends_it),
		cmocka_unit_test(test_it_is_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
