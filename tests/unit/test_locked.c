/* Heap and stack that are locked: within whatever bound, a stack may grow as it may without. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/locked.h"

#define MIB (1024 * 1024)

/* As deep as that, by pages that are written to. */
static unsigned __attribute__((noinline)) descend(size_t bytes)
{
	volatile uint8_t page[4096];

	memset((void *)(uintptr_t)page, 1, sizeof page);
	return page[bytes % sizeof page] + (bytes > sizeof page ? descend(bytes - sizeof page) : 0u) + page[0];
}

static struct rlimit may_set(void)
{
	struct rlimit limits;

	assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &limits), 0);
	return limits;
}

/* What locked_process() has said in a process that may lock so much and no more: 0, or errno; after that its stack has grown. */
static int lock_and_grow(size_t limit, size_t stack)
{
	struct rlimit limits = may_set();
	pid_t pid = fork();
	int status;

	limits.rlim_cur = limit;
	assert_true(pid >= 0);
	if (pid == 0) {
		/* Root may lock what it likes. */
		if (setrlimit(RLIMIT_MEMLOCK, &limits) != 0 || (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0))
			_exit(250);
		int error = locked_process() == 0 ? 0 : errno;

		_exit(descend(stack) > 0 && error < 250 ? error : 251);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!WIFEXITED(status) || WEXITSTATUS(status) >= 250)
		fail_msg("with %zu bytes that may be locked: status %#x", limit, (unsigned)status);
	return WEXITSTATUS(status);
}

static void test_a_stack_grows_within_any_bound(void **state)
{
	(void)state;
	for (size_t limit = 0; limit <= 12 * MIB && limit <= may_set().rlim_max; limit += MIB / 8)
		lock_and_grow(limit, 3 * MIB);
}

static void test_what_a_bound_allows(void **state)
{
	(void)state;
#ifdef __SANITIZE_ADDRESS__
	skip(); /* which has a heap of its own */
#endif
	if (may_set().rlim_max < 8 * MIB)
		skip();
	assert_int_equal(lock_and_grow(8 * MIB, 4096), 0);
	assert_int_equal(lock_and_grow(4 * MIB, 4096), ENOMEM);
	assert_int_equal(lock_and_grow(64 * 1024, 4096), ENOMEM);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_stack_grows_within_any_bound),
		cmocka_unit_test(test_what_a_bound_allows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
