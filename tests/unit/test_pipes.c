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

/* All that it gives; then they are closed.  The first ones are wide. */
static unsigned count_all(struct pipes *p, size_t *bytes, unsigned *wide)
{
	struct relay_pipe *all[512];
	unsigned n = 0;

	*bytes = 0;
	*wide = 0;
	for (; n < 512 && (all[n] = pipes_get(p, 0)) != NULL; n++) {
		assert_true(all[n]->size == PIPE_BYTES || (all[n]->size == PIPE_WIDE_BYTES && *wide == n));
		assert_true(fcntl(all[n]->in, F_GETPIPE_SZ) >= (int)all[n]->size);
		*wide += all[n]->size == PIPE_WIDE_BYTES;
		*bytes += all[n]->size;
	}
	for (unsigned i = 0; i < n; i++) {
		all[i]->len = 1;
		pipes_put(p, &all[i]);
	}
	assert_int_equal(extra, 0);
	assert_int_equal(p->made, 0);
	assert_int_equal(p->made_wide, 0);
	assert_int_equal(p->bytes, 0);
	return n;
}

static unsigned count(struct pipes *p)
{
	size_t bytes;
	unsigned wide;

	return count_all(p, &bytes, &wide);
}

static void test_they_are_bounded(void **state)
{
	(void)state;
	for (unsigned workers = 1; workers <= 64; workers++) {
		struct pipes p = make(workers, 1000);
		size_t bytes;
		unsigned wide, n = count_all(&p, &bytes, &wide);

		/* Where many workers share them, each still has some of either kind, as long as there are enough. */
		assert_in_range(n, 2, 64);
		assert_true(bytes * workers <= (size_t)64 << 20);
		assert_true(wide <= 16 && wide * (size_t)PIPE_WIDE_BYTES <= bytes * 2 / 3);
		assert_true(wide > 0 || workers > 30);
	}
}

/* What comes back is lent again, the widest first. */
static void test_wide_ones_are_preferred(void **state)
{
	struct pipes p = make(4, 1000); /* seven wide ones */
	struct relay_pipe *all[9];

	(void)state;
	for (size_t i = 0; i < 9; i++) {
		all[i] = pipes_get(&p, 0);
		assert_int_equal(all[i]->size, i < 7 ? PIPE_WIDE_BYTES : PIPE_BYTES);
	}
	struct relay_pipe *wide = all[3], *narrow = all[8];

	pipes_put(&p, &all[3]);
	pipes_put(&p, &all[8]);
	assert_ptr_equal(all[3] = pipes_get(&p, 0), wide);
	assert_ptr_equal(all[8] = pipes_get(&p, 0), narrow);
	assert_int_equal(p.made, 9);
	for (size_t i = 0; i < 9; i++) {
		all[i]->len = 1;
		pipes_put(&p, &all[i]);
	}
	assert_int_equal(p.bytes, 0);
}

/* A kernel, or an administrator, that allows no such size. */
static void test_without_wide_ones(void **state)
{
	struct pipes p = make(1, 1000);
	size_t bytes;
	unsigned wide;

	(void)state;
	p.no_wide_before_us = 1;
	assert_int_equal(count_all(&p, &bytes, &wide), 64);
	assert_int_equal(wide, 0);
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
		cmocka_unit_test(test_wide_ones_are_preferred),
		cmocka_unit_test(test_without_wide_ones),
		cmocka_unit_test(test_descriptors_are_shared),
		cmocka_unit_test(test_after_a_refusal_there_is_a_pause),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
