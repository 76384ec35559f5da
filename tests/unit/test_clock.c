#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"

static int64_t real_us(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

/* Wall time lies between two looks at the real clock, both shifted. */
static void assert_shifted_by(int64_t offset_us)
{
	int64_t before = real_us(CLOCK_REALTIME), now = clock_wall_us(), after = real_us(CLOCK_REALTIME);

	assert_true(now >= before + offset_us);
	assert_true(now <= after + offset_us);
}

static void unshifted_without_the_environment(void **state)
{
	(void)state;
	unsetenv("GATEWAYD_CLOCK_FD");
	unsetenv("GATEWAYD_CLOCK_FILE");
	assert_false(clock_init());
	assert_shifted_by(0);
}

static void a_missing_file_shifts_nothing(void **state)
{
	(void)state;
	setenv("GATEWAYD_CLOCK_FILE", "/nonexistent/clock", 1);
	assert_false(clock_init());
	unsetenv("GATEWAYD_CLOCK_FILE");
	setenv("GATEWAYD_CLOCK_FD", "999999", 1);
	assert_false(clock_init());
	unsetenv("GATEWAYD_CLOCK_FD");
	assert_shifted_by(0);
}

static void write_offset(int fd, int64_t offset_us)
{
	assert_int_equal(pwrite(fd, &offset_us, sizeof offset_us, 0), sizeof offset_us);
}

static void a_file_shifts_wall_time_at_any_moment(void **state)
{
	char path[] = "/tmp/gatewayd-test-clock-XXXXXX";
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	write_offset(fd, 3600000000);
	setenv("GATEWAYD_CLOCK_FILE", path, 1);
	assert_true(clock_init());
	unsetenv("GATEWAYD_CLOCK_FILE");
	assert_shifted_by(3600000000);
	write_offset(fd, -86400000000 * 365);
	assert_shifted_by(-86400000000 * 365);

	int64_t before = real_us(CLOCK_MONOTONIC), now = clock_mono_us(), after = real_us(CLOCK_MONOTONIC);

	assert_true(before <= now && now <= after); /* never shifted */
	write_offset(fd, 0);
	assert_shifted_by(0);
	unlink(path);
	close(fd);
}

static void an_inherited_descriptor_does_the_same(void **state)
{
	int fd = memfd_create("offset", 0);
	char text[16];

	(void)state;
	assert_true(fd >= 0);
	write_offset(fd, 77000000);
	snprintf(text, sizeof text, "%d", fd);
	setenv("GATEWAYD_CLOCK_FD", text, 1);
	assert_true(clock_init());
	unsetenv("GATEWAYD_CLOCK_FD");
	assert_shifted_by(77000000);
	write_offset(fd, -1);
	assert_shifted_by(-1);
	close(fd);
}

/* A file too short to hold an offset must not end the process at its first look at the clock (SIGBUS). */
static void a_short_file_shifts_nothing(void **state)
{
	char path[] = "/tmp/gatewayd-test-clock-XXXXXX";
	int fd = mkstemp(path), status;

	(void)state;
	assert_true(fd >= 0);
	setenv("GATEWAYD_CLOCK_FILE", path, 1);
	pid_t pid = fork();

	if (pid == 0)
		_exit(clock_init() ? 1 : clock_wall_us() > 0 ? 0 : 2);
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	unsetenv("GATEWAYD_CLOCK_FILE");
	unlink(path);
	close(fd);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(unshifted_without_the_environment),
		cmocka_unit_test(a_missing_file_shifts_nothing),
		cmocka_unit_test(a_short_file_shifts_nothing),
		cmocka_unit_test(a_file_shifts_wall_time_at_any_moment),
		cmocka_unit_test(an_inherited_descriptor_does_the_same),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
