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
	static const char *const other[] = {"", "[]", "{\"limit\":0}", "{\"country\":\"Germany\"}", "{\"since_us\":\"x\"}",
					    "{\"order\":\"oldest\"}", "{\"id\":1}", "{\"after\":0}", "{\"group\":5}", "{\"event\":\"open\"}",
					    "{\"user\":\"ann\",\"verdict\":\"deny\"}", "{\"user\":\"ann\",\"user\":\"bob\"}", "{\"user\":\"\"}"};

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

static bool matches(const char *json, const struct steering_facts *x)
{
	assert_int_equal(steering_filter(json, &filter, &why), 0);
	return steering_matches(&filter, x);
}

static void filters_mean_what_they_say(void **state)
{
	static const struct name alias = {.len = 14, .text = "cdn.evil.test."};
	const struct addr client = {.family = ADDR_V4, .bytes = {10, 1, 2, 3}}, address = {.family = ADDR_V4, .bytes = {192, 0, 2, 7}};
	const struct steering_facts x = {.session = 5,
					 .client = &client,
					 .address = &address,
					 .user = "ann",
					 .rule = "web",
					 .name = "www.example.com",
					 .listener = "main",
					 .port = 443,
					 .revision = 3};
	struct steering_facts aliased = x, unknown = {.client = &client};
	struct name canonical = alias;

	(void)state;
	canonical.text[--canonical.len] = '\0';
	aliased.aliases = &canonical;
	aliased.naliases = 1;
	assert_true(matches("{}", &x));
	assert_true(matches("{\"user\":\"ann\",\"port\":443,\"rule\":\"web\",\"revision\":3}", &x));
	assert_false(matches("{\"user\":\"an\"}", &x));
	assert_false(matches("{\"user\":\"ann\",\"port\":80}", &x));
	assert_true(matches("{\"client\":\"10.0.0.0/8\"}", &x));
	assert_false(matches("{\"client\":\"10.1.2.4\"}", &x));
	assert_true(matches("{\"to\":\".example.com\"}", &x));
	assert_true(matches("{\"to\":\"*.example.com\"}", &x));
	assert_false(matches("{\"to\":\"*.www.example.com\"}", &x));
	assert_false(matches("{\"to\":\"example.com\"}", &x));
	assert_false(matches("{\"to\":\".xample.com\"}", &x));
	assert_true(matches("{\"to\":\"192.0.2.0/24\"}", &x));
	assert_false(matches("{\"to\":\"192.0.3.0/24\"}", &x));
	assert_true(matches("{\"text\":\"exam\"}", &x));
	assert_false(matches("{\"text\":\"exam\"}", &unknown));
	assert_false(matches("{\"to\":\".evil.test\"}", &x));
	static const char *const groups[] = {"staff", "hr"};
	struct steering_facts more = x;

	more.groups = groups;
	more.ngroups = 2;
	more.country = "DE";
	more.began_us = 1000;
	assert_true(matches("{\"group\":\"hr\",\"country\":\"DE\",\"since_us\":1000,\"until_us\":1001}", &more));
	assert_false(matches("{\"group\":\"h\"}", &more));
	assert_false(matches("{\"country\":\"FR\"}", &more));
	assert_false(matches("{\"since_us\":1001}", &more));
	assert_false(matches("{\"until_us\":1000}", &more));
	assert_false(matches("{\"group\":\"hr\"}", &x));
	assert_false(matches("{\"country\":\"DE\"}", &x));
	assert_false(matches("{\"since_us\":1}", &x));
	assert_false(matches("{\"until_us\":1}", &x));
	assert_true(matches("{\"to\":\".evil.test\"}", &aliased));
	/* What is not known yet matches nothing that is asked for. */
	assert_true(matches("{\"client\":\"10.1.2.3\"}", &unknown));
	assert_false(matches("{\"client\":\"10.1.2.3\",\"to\":\"0.0.0.0/0\"}", &unknown));
	assert_false(matches("{\"rule\":\"web\"}", &unknown));
}

static void the_largest_row_fits(void **state)
{
	static struct steering_row row, got;
	static uint8_t body[STEERING_ROW_MAX];
	struct wire_writer w = wire_writer_on(body, sizeof body);

	(void)state;
	memset(row.state, 's', sizeof row.state - 1);
	memset(row.claimed, 'c', sizeof row.claimed - 1);
	memset(row.event.user, 'u', sizeof row.event.user - 1);
	memset(row.event.name, 'n', sizeof row.event.name - 1);
	memset(row.event.rule, 'r', sizeof row.event.rule - 1);
	memset(row.event.reason, 'e', sizeof row.event.reason - 1);
	memset(row.event.listener, 'l', sizeof row.event.listener - 1);
	memset(row.event.method, 'm', sizeof row.event.method - 1);
	memset(row.event.command, 'o', sizeof row.event.command - 1);
	row.event.kind = AUDIT_CHECKPOINT;
	row.event.client = row.event.address = (struct endpoint){.addr = {.family = ADDR_V6, .bytes = {1}}, .port = 65535};
	steering_put_row(&w, &row);
	assert_false(w.overflow);
	assert_true(steering_get_row(&(struct wire_reader){.at = body, .end = body + w.len}, &got));
	assert_string_equal(got.event.rule, row.event.rule);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_held_against_a_session_is_a_filter),
		cmocka_unit_test(asks_have_bounds),
		cmocka_unit_test(the_head_of_an_answer_has_its_size),
		cmocka_unit_test(filters_mean_what_they_say),
		cmocka_unit_test(the_largest_row_fits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
