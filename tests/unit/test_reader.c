#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <event2/event.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <unistd.h>

#include "gatewayd/reader/answer.h"
#include "schema/audit_store.h"
#include "schema/audit_store.h"
#include "tests/unit/scratch.h"

#define MINUTE_US (60 * INT64_C(1000000))

static struct event_base *base;
static struct err why;
static bool done;

static void on_done(void *arg)
{
	(void)arg;
	done = true;
}

static void fill(unsigned rows, size_t detail)
{
	static struct audit_event e;
	struct audit_store *s = audit_store_open(1u << 30, &why);

	assert_non_null(s);
	e = (struct audit_event){.kind = AUDIT_OPEN, .user = "ann\x1b", .name = "a.example"};
	memset(e.detail, '\xff', detail);
	assert_int_equal(audit_store_begin(s, &why), 0);
	for (unsigned i = 1; i <= rows; i++) {
		e.time_us = i;
		assert_int_equal(audit_store_append(s, 1, i, &e, &why), 1);
	}
	assert_int_equal(audit_store_commit(s, &why), 0);
	audit_store_close(&s);
}

struct answer {
	unsigned rows;
	json_int_t end_rows; /* -1: the end did not come */
	bool more;
	char error[512];
};

static void take_line(struct answer *a, const char *line, size_t len)
{
	json_t *object = json_loadb(line, len, 0, NULL);

	assert_non_null(object);
	assert_int_equal(a->end_rows, -1); /* nothing follows the end */
	if (json_is_true(json_object_get(object, "end"))) {
		a->end_rows = json_integer_value(json_object_get(object, "rows"));
		a->more = json_is_true(json_object_get(object, "more"));
	} else if (json_object_get(object, "error") != NULL) {
		snprintf(a->error, sizeof a->error, "%s", json_string_value(json_object_get(object, "error")));
	} else {
		assert_string_equal(json_string_value(json_object_get(object, "user")), "ann\\x1b");
		a->rows++;
	}
	json_decref(object);
}

/* Takes what the pipe holds; keeps an unfinished line. */
static void drain(int fd, struct answer *a)
{
	static char text[1024 * 1024];
	static size_t len;
	ssize_t n;

	while ((n = read(fd, text + len, sizeof text - len)) > 0) {
		char *start = text, *end;

		len += (size_t)n;
		while ((end = memchr(start, '\n', len - (size_t)(start - text))) != NULL) {
			take_line(a, start, (size_t)(end - start));
			start = end + 1;
		}
		len -= (size_t)(start - text);
		memmove(text, start, len);
	}
}

static struct answer ask_bounded(const char *query, int64_t time_us, uint64_t rows_max)
{
	struct answer a = {.end_rows = -1};
	struct reader *r = reader_new(time_us, rows_max, on_done, NULL);
	int fds[2];

	done = false;
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
	struct ipc_message m = {.type = IPC_QUERY, .body = (const uint8_t *)query, .len = strlen(query), .nfds = 1};

	m.fds[0] = fds[1];
	assert_true(reader_take(r, base, &m));
	assert_int_equal(m.fds[0], -1);
	assert_true(reader_busy(r));
	while (!done) {
		event_base_loop(base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
		drain(fds[0], &a);
	}
	drain(fds[0], &a);
	assert_false(reader_busy(r));
	reader_free(&r);
	close(fds[0]);
	return a;
}

static struct answer ask(const char *query)
{
	return ask_bounded(query, MINUTE_US, 1000000);
}

static void test_streams_all(void **state)
{
	(void)state;
	fill(5000, 0);
	struct answer a = ask("{}");

	assert_int_equal(a.rows, 5000);
	assert_int_equal(a.end_rows, 5000);
	assert_false(a.more);
	a = ask("{\"limit\":7,\"order\":\"oldest\"}");
	assert_int_equal(a.rows, 7);
	assert_true(a.more);
	a = ask("{\"user\":\"nobody\"}");
	assert_int_equal(a.rows, 0);
	assert_int_equal(a.end_rows, 0);
}

static void test_biggest_rows(void **state)
{
	(void)state;
	fill(200, AUDIT_DETAIL_MAX); /* 64 KiB a line, escaped twice: 13 MiB through a pipe */
	struct answer a = ask("{}");

	assert_int_equal(a.rows, 200);
	assert_int_equal(a.end_rows, 200);
}

static void test_errors(void **state)
{
	(void)state;
	struct answer a = ask("{}"); /* no store yet */

	assert_non_null(strstr(a.error, "no audit here"));
	fill(10, 0);
	assert_non_null(strstr(ask("nonsense").error, "JSON object"));
	assert_non_null(strstr(ask("{\"user\":7}").error, "user"));
	a = ask_bounded("{}", MINUTE_US, 0);
	assert_non_null(strstr(a.error, "too many rows"));
	a = ask_bounded("{}", 0, 10);
	assert_non_null(strstr(a.error, "too long"));
}

static void test_reader_of_the_pipe_leaves(void **state)
{
	struct reader *r;
	int fds[2];

	(void)state;
	fill(5000, 1000);
	r = reader_new(MINUTE_US, 1000000, on_done, NULL);
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	struct ipc_message m = {.type = IPC_QUERY, .body = (const uint8_t *)"{}", .len = 2, .nfds = 1};

	m.fds[0] = fds[1];
	assert_true(reader_take(r, base, &m));
	done = false;
	close(fds[0]);
	while (!done)
		event_base_loop(base, EVLOOP_ONCE);
	reader_free(&r);
}

static void test_other_messages(void **state)
{
	struct reader *r;
	int fds[2];

	(void)state;
	fill(1, 0);
	r = reader_new(MINUTE_US, 1000000, on_done, NULL);
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	struct ipc_message none = {.type = IPC_QUERY, .body = (const uint8_t *)"{}", .len = 2};
	struct ipc_message query = {.type = IPC_QUERY, .body = (const uint8_t *)"{}", .len = 2, .nfds = 1};

	assert_false(reader_take(r, base, &none));
	query.fds[0] = dup(fds[1]);
	assert_true(reader_take(r, base, &query));
	query.fds[0] = fds[1];
	assert_false(reader_take(r, base, &query)); /* one query in a life */
	reader_free(&r);
	close(fds[0]);
	close(fds[1]);
}

static int setup(void **state)
{
	base = event_base_new();
	return scratch_enter(state);
}

static int teardown(void **state)
{
	event_base_free(base);
	return scratch_leave(state);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_streams_all),	   TEST(test_biggest_rows),
		TEST(test_errors),	   TEST(test_reader_of_the_pipe_leaves),
		TEST(test_other_messages),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
