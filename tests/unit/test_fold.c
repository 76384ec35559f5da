#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <event2/event.h>
#include <jansson.h>

#include "gatewayd/worker/fold.h"
#include "schema/audit_event.h"

static struct event_base *base;
static struct fold *fold;
static struct audit_event last;
static unsigned rows;
static uint64_t folded; /* as the rows say */

static void on_row(const struct audit_event *e, void *arg)
{
	json_t *detail = json_loads(e->detail, 0, NULL);

	assert_ptr_equal(arg, &rows);
	assert_non_null(detail);
	folded += (uint64_t)json_integer_value(json_object_get(detail, "folded"));
	json_decref(detail);
	rows++;
	last = *e;
}

static struct audit_event *denial(uint32_t client, const char *name)
{
	static struct audit_event e;
	static uint16_t port;

	memset(&e, 0, sizeof e);
	e.kind = AUDIT_DENIED;
	e.session = ++port;
	e.time_us = 1000 + port;
	e.client = (struct endpoint){.addr = addr_v4(client), .port = port};
	strcpy(e.user, "ann");
	strcpy(e.reason, "denied by policy");
	snprintf(e.name, sizeof e.name, "%s", name);
	return &e;
}

static int start(unsigned after)
{
	base = event_base_new();
	fold = fold_new(base, after, on_row, &rows);
	rows = 0;
	folded = 0;
	return 0;
}

static int setup(void **state)
{
	(void)state;
	return start(3);
}

static int teardown(void **state)
{
	(void)state;
	fold_free(&fold);
	event_base_free(base);
	return 0;
}

static void test_the_first_pass_and_the_rest_is_counted(void **state)
{
	unsigned passed = 0;

	(void)state;
	for (int i = 0; i < 1000; i++)
		passed += !fold_take(fold, denial(0x0a000001, "a.example"));
	assert_true(passed >= 3 && passed % 3 == 0); /* of as many seconds as this took */
	fold_flush(fold);
	assert_int_equal(passed + folded, 1000);
	assert_true(rows >= 1 && rows <= passed / 3);
	assert_true(last.kind == AUDIT_DENIED && last.session == 0 && last.client.port == 0);
	assert_string_equal(last.user, "ann");
	assert_string_equal(last.name, "a.example");
	assert_string_equal(last.reason, "denied by policy");
	assert_non_null(strstr(last.detail, "\"first\":\"1970-01-01T00:00:00.00"));
}

static void test_what_differs_is_not_folded(void **state)
{
	unsigned passed = 0;

	(void)state;
	for (uint32_t i = 0; i < 500; i++) {
		char name[32];

		snprintf(name, sizeof name, "%u.example", i);
		passed += !fold_take(fold, denial(0x0a000001, name));
		passed += !fold_take(fold, denial(0x0b000000 + i, "a.example"));
	}
	assert_int_equal(passed, 1000);
	/* Grants and ends never are. */
	for (int i = 0; i < 100; i++) {
		struct audit_event *e = denial(1, "b.example");

		e->kind = i % 2 == 0 ? AUDIT_OPEN : AUDIT_ENDED;
		assert_false(fold_take(fold, e));
	}
	fold_flush(fold);
	assert_int_equal(rows, 0);
}

/* More of them than are known at a time: none is lost from the count. */
static void test_many_at_once(void **state)
{
	unsigned passed = 0;

	(void)state;
	for (int round = 0; round < 5; round++)
		for (uint32_t i = 0; i < 3000; i++)
			for (int k = 0; k < 5; k++)
				passed += !fold_take(fold, denial(i, "a.example"));
	fold_flush(fold);
	assert_int_equal(passed + folded, 5 * 3000 * 5);
	assert_true(folded > 0);
}

static void test_a_second_becomes_a_row_by_itself(void **state)
{
	unsigned passed = 0;

	(void)state;
	for (int i = 0; i < 10; i++)
		passed += !fold_take(fold, denial(1, "a.example"));
	while (rows == 0)
		event_base_loop(base, EVLOOP_ONCE);
	assert_int_equal(passed + folded, 10);
	/* The next second has rows of its own again. */
	assert_false(fold_take(fold, denial(1, "a.example")));
}

static void test_never(void **state)
{
	(void)state;
	teardown(NULL);
	start(0);
	for (int i = 0; i < 1000; i++)
		assert_false(fold_take(fold, denial(1, "a.example")));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_the_first_pass_and_the_rest_is_counted),
		TEST(test_what_differs_is_not_folded),
		TEST(test_many_at_once),
		TEST(test_a_second_becomes_a_row_by_itself),
		TEST(test_never),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
