/* Pipes of bulk transfers: few, borrowed, and never handed on with somebody's bytes in them. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "gatewayd/worker/pipes.h"

static unsigned extra, max_extra;

static struct pipes make(unsigned workers, unsigned descriptors)
{
	struct pipes p;

	extra = 0;
	max_extra = descriptors;
	pipes_init(&p, workers, &extra, &max_extra);
	return p;
}

static void test_one_is_used_again(void **state)
{
	struct pipes p = make(1, 1000);
	struct relay_pipe *one = pipes_get(&p, 0), *first = one;

	(void)state;
	assert_non_null(one);
	assert_int_equal(one->len, 0);
	assert_true(fcntl(one->in, F_GETPIPE_SZ) >= PIPE_BYTES);
	assert_int_equal(extra, 2);
	pipes_put(&p, &one);
	assert_null(one);
	one = pipes_get(&p, 0);
	assert_ptr_equal(one, first);
	assert_int_equal(p.made, 1);
	one->len = 1;
	pipes_put(&p, &one);
	assert_int_equal(extra, 0);
}

static void test_bytes_of_one_session_do_not_reach_another(void **state)
{
	struct pipes p = make(1, 1000);
	struct relay_pipe *one = pipes_get(&p, 0);
	int in = one->in, out = one->out;
	char byte;

	(void)state;
	assert_int_equal(write(one->in, "x", 1), 1);
	one->len = 1;
	pipes_put(&p, &one);
	assert_int_equal(p.made, 0);
	assert_int_equal(fcntl(in, F_GETFD), -1);
	assert_int_equal(fcntl(out, F_GETFD), -1);
	one = pipes_get(&p, 0);
	assert_int_equal(read(one->out, &byte, 1), -1); /* nothing, and it does not wait */
	one->len = 1;
	pipes_put(&p, &one);
}

/* All that it gives; then they are closed. */
static unsigned count(struct pipes *p)
{
	struct relay_pipe *all[512];
	unsigned n = 0;

	while (n < 512 && (all[n] = pipes_get(p, 0)) != NULL)
		n++;
	for (unsigned i = 0; i < n; i++) {
		all[i]->len = 1;
		pipes_put(p, &all[i]);
	}
	assert_int_equal(extra, 0);
	return n;
}

static void test_they_are_bounded(void **state)
{
	(void)state;
	for (unsigned workers = 1; workers <= 64; workers++) {
		struct pipes p = make(workers, 1000);
		unsigned n = count(&p);

		assert_in_range(n, 1, 64);
		assert_true(n * workers <= 256);
	}
}

/* At most half of what connects side by side and associations may need, and nothing of what they have. */
static void test_descriptors_are_shared(void **state)
{
	struct pipes p = make(1, 40);

	(void)state;
	assert_int_equal(count(&p), 10);
	p = make(1, 3);
	assert_null(pipes_get(&p, 0));
	p = make(1, 40);
	extra = 39;
	assert_null(pipes_get(&p, 0));
}

static void test_after_a_refusal_there_is_a_pause(void **state)
{
	struct pipes p = make(1, 1000);
	struct relay_pipe *one;

	(void)state;
	p.none_before_us = 500;
	assert_null(pipes_get(&p, 499));
	one = pipes_get(&p, 500);
	assert_non_null(one);
	one->len = 1;
	pipes_put(&p, &one);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_is_used_again),
		cmocka_unit_test(test_bytes_of_one_session_do_not_reach_another),
		cmocka_unit_test(test_they_are_bounded),
		cmocka_unit_test(test_descriptors_are_shared),
		cmocka_unit_test(test_after_a_refusal_there_is_a_pause),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
