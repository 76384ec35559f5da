#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "gatewayd/steering.h"

static struct audit_filter filter;
static struct err why;

static void what_is_held_against_a_session_is_a_filter(void **state)
{
	static const char *const sound[] = {"{}", "{\"user\":\"ann\"}", "{\"to\":\".x\",\"port\":1}", "{\"client\":\"10.0.0.0/8\"}",
					    "{\"rule\":\"r\",\"revision\":7,\"text\":\"t\"}"};
	static const char *const other[] = {"", "[]", "{\"country\":\"DE\"}", "{\"limit\":0}", "{\"since_us\":0}", "{\"until_us\":0}",
					    "{\"order\":\"oldest\"}", "{\"id\":1}", "{\"after\":0}", "{\"group\":\"g\"}", "{\"event\":\"open\"}",
					    "{\"user\":\"ann\",\"country\":\"DE\"}", "{\"user\":\"ann\",\"user\":\"bob\"}", "{\"user\":\"\"}"};

	(void)state;
	for (size_t i = 0; i < sizeof sound / sizeof *sound; i++)
		assert_int_equal(steering_filter(sound[i], &filter, &why), 0);
	for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
		why.text[0] = '\0';
		assert_int_equal(steering_filter(other[i], &filter, &why), -1);
		assert_true(why.text[0] != '\0');
	}
}

static bool asks(unsigned op, unsigned order, uint32_t limit)
{
	static uint8_t body[256];
	struct wire_writer w = wire_writer_on(body, sizeof body);
	static struct steering_ask ask, got;

	ask = (struct steering_ask){.job = 77, .op = (enum steering_op)op, .order = (enum steering_order)order, .limit = limit, .filter = "{}"};
	steering_put_ask(&w, &ask);
	struct wire_reader r = wire_reader_on(body, w.len);
	bool sound = steering_get_ask(&r, &got);

	/* Who asked can be told also of what is refused. */
	assert_int_equal(got.job, 77);
	return sound;
}

static void asks_have_bounds(void **state)
{
	(void)state;
	assert_true(asks(STEERING_LIST, STEERING_BY_NOTHING, 0));
	assert_true(asks(STEERING_TOP, STEERING_BY_RATE, STEERING_TOP_MAX));
	assert_false(asks(STEERING_TOP, STEERING_BY_RATE, 0));
	assert_false(asks(STEERING_TOP, STEERING_BY_RATE, STEERING_TOP_MAX + 1));
	assert_false(asks(STEERING_LIST, STEERING_BY_NOTHING, STEERING_TOP_MAX + 1));
	assert_false(asks(STEERING_OPS, STEERING_BY_NOTHING, 0));
	assert_false(asks(STEERING_LIST, STEERING_ORDERS, 0));
}

static void the_head_of_an_answer_has_its_size(void **state)
{
	uint8_t body[64];
	struct wire_writer w = wire_writer_on(body, sizeof body);
	struct steering_answer a = {.job = 1, .last = true, .refused = true, .rows = 2, .matched = 3, .bytes_up = 4, .bytes_down = 5}, b;

	(void)state;
	steering_put_answer(&w, &a);
	assert_int_equal(w.len, STEERING_ANSWER_BYTES);
	struct wire_reader r = wire_reader_on(body, w.len);

	assert_true(steering_get_answer(&r, &b));
	assert_true(b.job == 1 && b.last && b.refused && b.rows == 2 && b.matched == 3 && b.bytes_up == 4 && b.bytes_down == 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_held_against_a_session_is_a_filter),
		cmocka_unit_test(asks_have_bounds),
		cmocka_unit_test(the_head_of_an_answer_has_its_size),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
