/* The clock here is the test's own, so that a second lasts as long as it must. */
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
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"

static int64_t wall_us = 1795203001123456, mono_us = 1000000000;

int64_t clock_wall_us(void)
{
	return wall_us;
}

int64_t clock_mono_us(void)
{
	return mono_us;
}

static int saved_stderr = -1, log_pipe[2];
static char out[512 * 1024];

/* From here, standard error is ours, in a fresh second. */
static void capture(void)
{
	assert_int_equal(pipe2(log_pipe, O_CLOEXEC | O_NONBLOCK), 0);
	fcntl(log_pipe[1], F_SETPIPE_SZ, (int)sizeof out);
	saved_stderr = dup(STDERR_FILENO);
	assert_true(dup2(log_pipe[1], STDERR_FILENO) >= 0);
	close(log_pipe[1]);
	mono_us += 1000000;
}

static const char *captured(void)
{
	size_t used = 0;
	ssize_t n;

	dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
	while ((n = read(log_pipe[0], out + used, sizeof out - 1 - used)) > 0)
		used += (size_t)n;
	out[used] = '\0';
	close(log_pipe[0]);
	return out;
}

static size_t count_lines(const char *text)
{
	size_t n = 0;

	for (; *text != '\0'; text++)
		n += *text == '\n';
	return n;
}

static void a_line_says_when_who_and_what(void **state)
{
	(void)state;
	log_init("worker/3", LOG_INFO);
	capture();
	errno = ENOENT;
	log_warning("port %d is %s", 1080, "taken");
	assert_int_equal(errno, ENOENT); /* a log line between a call and its errno changes nothing */
	assert_string_equal(captured(), "2026-11-20T19:30:01.123Z worker/3 warning: port 1080 is taken\n");
}

static void levels_are_filtered(void **state)
{
	(void)state;
	log_init("x", LOG_WARNING);
	capture();
	log_error("e");
	log_warning("w");
	log_info("i");
	log_debug("d");
	captured();
	assert_int_equal(count_lines(out), 2);
	assert_non_null(strstr(out, "x error: e\n"));
	assert_non_null(strstr(out, "x warning: w\n"));
	log_init("x", LOG_DEBUG);
	capture();
	log_debug("d");
	assert_non_null(strstr(captured(), "x debug: d\n"));
}

static void level_words(void **state)
{
	static const char *const words[] = {"error", "warning", "info", "debug"};
	enum log_level level = LOG_DEBUG;

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		assert_true(log_level_parse(words[i], &level));
		assert_int_equal(level, i);
	}
	assert_false(log_level_parse("", &level));
	assert_false(log_level_parse("INFO", &level));
	assert_false(log_level_parse("information", &level));
}

static void a_line_cannot_be_forged(void **state)
{
	(void)state;
	log_init("x", LOG_INFO);
	capture();
	log_info("user '%s'", "a\n2026-11-20T18:10:01.123Z x error: forged\x1b[31m\r\\");
	captured();
	assert_int_equal(count_lines(out), 1);
	assert_non_null(strstr(out, "'a\\x0a2026-11-20T"));
	assert_non_null(strstr(out, "forged\\x1b[31m\\x0d\\x5c'\n"));
	assert_null(strchr(out, '\x1b'));
	assert_null(strchr(out, '\r'));
}

static void a_long_line_is_cut(void **state)
{
	static char text[100000], hostile[100000];

	(void)state;
	memset(text, 'a', sizeof text - 1);
	memset(hostile, '\n', sizeof hostile - 1);
	log_init("a-name-that-is-longer-than-any-role-of-ours-really-is", LOG_INFO);
	capture();
	log_info("%s", text);
	log_info("%s", hostile);
	captured();
	assert_int_equal(count_lines(out), 2);
	char *second = strchr(out, '\n') + 1;

	assert_true((size_t)(second - out) <= LOG_LINE_MAX);
	assert_true(strlen(second) <= LOG_LINE_MAX);
	assert_memory_equal(second - 4, "...\n", 4);
	assert_string_equal(second + strlen(second) - 4, "...\n");
}

static void a_burst_is_bounded_and_counted(void **state)
{
	(void)state;
	log_init("x", LOG_INFO);
	capture();
	for (int i = 0; i < LOG_BURST + 57; i++)
		log_info("line %d", i);
	for (int i = 0; i < 1000; i++)
		log_debug("not shown, and not counted");
	mono_us += 1000000;
	log_info("the next second");
	log_info("and on");
	captured();
	assert_int_equal(count_lines(out), LOG_BURST + 3);
	assert_non_null(strstr(out, "line 199\n"));
	assert_null(strstr(out, "line 200\n"));
	assert_non_null(strstr(out, "warning: 57 log lines dropped: more than 200 in a second\n"));
	assert_non_null(strstr(out, "the next second\n"));
}

static void the_last_line_is_never_dropped(void **state)
{
	int status;

	(void)state;
	log_init("x", LOG_INFO);
	capture();
	pid_t pid = fork();

	if (pid == 0) {
		for (int i = 0; i < LOG_BURST * 2; i++)
			log_info("noise");
		log_fatal("why it ended: %d", 42);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	captured();
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), EXIT_FATAL);
	assert_non_null(strstr(out, "x error: why it ended: 42\n"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_line_says_when_who_and_what),  cmocka_unit_test(levels_are_filtered),
		cmocka_unit_test(level_words),			  cmocka_unit_test(a_line_cannot_be_forged),
		cmocka_unit_test(a_long_line_is_cut),		  cmocka_unit_test(a_burst_is_bounded_and_counted),
		cmocka_unit_test(the_last_line_is_never_dropped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
