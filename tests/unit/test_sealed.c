#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/sealed.h"

static struct err why;

static void a_copy_is_read_back(void **state)
{
	char text[] = "the policy";
	int fd = sealed_create("test", text, sizeof text, &why);
	struct sealed s;

	(void)state;
	assert_true(fd >= 0);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	text[0] = 'T'; /* a copy, not a view */
	assert_int_equal(sealed_map(fd, sizeof text, &s, &why), 0);
	close(fd); /* may be closed */
	assert_int_equal(s.len, sizeof text);
	assert_string_equal((const char *)s.data, "the policy");
	sealed_unmap(&s);
	assert_null(s.data);
	assert_int_equal(s.len, 0);
	sealed_unmap(&s);
}

static void nobody_can_change_it(void **state)
{
	int fd = sealed_create("test", "abc", 3, &why);
	char byte;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, "x", 1, 0), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(pwrite(fd, "x", 1, 3), -1); /* nor grow */
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(fd, 0), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(fd, 4096), -1);
	assert_true(mmap(NULL, 3, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);

	/* Not even through a descriptor of its own. */
	char path[64];

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	int again = open(path, O_RDWR | O_CLOEXEC);

	if (again >= 0) {
		assert_int_equal(pwrite(again, "x", 1, 0), -1);
		assert_int_equal(errno, EPERM);
		close(again);
	}
	assert_int_equal(pread(fd, &byte, 1, 0), 1);
	assert_int_equal(byte, 'a');
	close(fd);
}

static int memory_file(int seals)
{
	int fd = memfd_create("hostile", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, "abc", 3), 3);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static void refused(int fd)
{
	struct sealed s = {.data = (const uint8_t *)"", .len = 9};

	why.text[0] = '\0';
	assert_int_equal(sealed_map(fd, 1000, &s, &why), -1);
	assert_null(s.data);
	assert_int_equal(s.len, 0);
	assert_non_null(strstr(why.text, "not sealed"));
}

static void what_lacks_a_seal_is_refused(void **state)
{
	static const int part[] = {0, F_SEAL_WRITE, F_SEAL_GROW | F_SEAL_SHRINK, F_SEAL_WRITE | F_SEAL_GROW,
				   F_SEAL_WRITE | F_SEAL_SHRINK};
	int pipe_fds[2];

	(void)state;
	for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
		int fd = memory_file(part[i]);

		refused(fd);
		close(fd);
	}
	assert_int_equal(pipe(pipe_fds), 0);
	refused(pipe_fds[0]);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	refused(-1);

	FILE *plain = tmpfile();

	assert_non_null(plain);
	refused(fileno(plain));
	fclose(plain);
}

static void too_large_is_refused(void **state)
{
	int fd = sealed_create("test", "abcd", 4, &why);
	struct sealed s;

	(void)state;
	assert_int_equal(sealed_map(fd, 4, &s, &why), 0);
	sealed_unmap(&s);
	assert_int_equal(sealed_map(fd, 3, &s, &why), -1);
	assert_null(s.data);
	assert_non_null(strstr(why.text, "larger than 3 bytes"));
	close(fd);
}

static void empty_is_no_error(void **state)
{
	int fd = sealed_create("test", NULL, 0, &why);
	struct sealed s;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(sealed_map(fd, 0, &s, &why), 0);
	assert_int_equal(s.len, 0);
	sealed_unmap(&s);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_copy_is_read_back),	       cmocka_unit_test(nobody_can_change_it),
		cmocka_unit_test(what_lacks_a_seal_is_refused), cmocka_unit_test(too_large_is_refused),
		cmocka_unit_test(empty_is_no_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
