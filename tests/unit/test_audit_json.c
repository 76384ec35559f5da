#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "schema/audit_json.h"

static struct err why;

static int filter(const char *text, struct audit_filter *f)
{
	json_t *object = json_loads(text, JSON_ALLOW_NUL, NULL);
	int rc = audit_filter_json(object, f, &why);

	json_decref(object);
	return rc;
}

static void test_filter(void **state)
{
	struct audit_filter f;

	(void)state;
	assert_int_equal(filter("{}", &f), 0);
	assert_int_equal(filter("{\"user\":\"ann\",\"client\":\"10.0.0.0/8\",\"to\":\".example\",\"verdict\":\"deny\","
				"\"event\":\"denied\",\"session\":\"0000-0000-0000-1\",\"since_us\":5,\"until_us\":9,"
				"\"limit\":3,\"order\":\"oldest\"}",
				&f),
			 0);
	assert_string_equal(f.user, "ann");
	assert_int_equal(f.client.bits, 8);
	assert_int_equal(f.to, AUDIT_TO_SUFFIX);
	assert_string_equal(f.to_name, "example");
	assert_int_equal(f.kinds, 1u << AUDIT_DENIED);
	assert_true(f.session == 1 && f.since_us == 5 && f.until_us == 9 && f.limit == 3 && f.oldest_first);
}

static void test_filter_refused(void **state)
{
	static const char *const wrong[] = {
		"[]",
		"7",
		"{\"user\":7}",
		"{\"user\":\"\"}",
		"{\"user\":\"ann\\u0000x\"}",
		"{\"users\":\"ann\"}",
		"{\"limit\":-1}",
		"{\"limit\":\"1\"}",
		"{\"limit\":1.5}",
		"{\"client\":\"10.0.0.1/8\"}",
		"{\"client\":\"x\"}",
		"{\"to\":\"\"}",
		"{\"verdict\":\"maybe\"}",
		"{\"event\":\"opened\"}",
		"{\"event\":\"open\",\"verdict\":\"deny\"}",
		"{\"session\":\"1\"}",
		"{\"order\":\"\"}",
	};
	struct audit_filter f;

	(void)state;
	assert_int_equal(audit_filter_json(NULL, &f, &why), -1);
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
		if (filter(wrong[i], &f) != -1)
			fail_msg("%s was taken", wrong[i]);
}

static void test_times(void **state)
{
	char buf[AUDIT_TIME_TEXT_MAX];

	(void)state;
	assert_string_equal(audit_time_text(0, buf), "1970-01-01T00:00:00.000000Z");
	assert_string_equal(audit_time_text(1795635001123456, buf), "2026-11-25T19:30:01.123456Z");
	assert_string_equal(audit_time_text(-1, buf), "-");
	assert_string_equal(audit_time_text(INT64_MAX, buf), "-");
}

/* Whatever bytes an event holds, its line is one line of printable ASCII, and JSON. */
static void test_all_bytes(void **state)
{
	static struct audit_event e = {.kind = AUDIT_ENDED, .session = 5, .time_us = 1};

	(void)state;
	for (int i = 0; i < 255; i++) {
		e.user[i] = e.rule[i] = e.reason[i] = (char)(i + 1);
		e.name[i % NAME_MAX_LEN] = (char)(i + 1);
	}
	for (int i = 0; i < AUDIT_DETAIL_MAX; i++)
		e.detail[i] = (char)(i % 255 + 1);
	json_t *object = audit_event_json(7, &e);
	char *line = json_dumps(object, JSON_COMPACT | JSON_ENSURE_ASCII);

	assert_non_null(line);
	for (const char *at = line; *at != '\0'; at++)
		assert_true(*at >= 0x20 && *at <= 0x7e);
	assert_true(strlen(line) < 256 * 1024); /* LINE_BYTES of the reader */
	assert_non_null(strstr(json_string_value(json_object_get(object, "user")), "\\x1b"));
	free(line);
	json_decref(object);
}

static void test_shape(void **state)
{
	struct audit_event e = {.kind = AUDIT_OPEN,
				.session = 1,
				.time_us = 1795635001123456,
				.name = "a.example",
				.address = {.port = 443},
				.detail = "{\"groups\":[\"h\\u00e4r\"]}"};
	json_t *object = audit_event_json(7, &e);
	char *line = json_dumps(object, JSON_COMPACT | JSON_ENSURE_ASCII);

	(void)state;
	assert_string_equal(
		line, "{\"id\":7,\"time\":\"2026-11-25T19:30:01.123456Z\",\"event\":\"open\",\"verdict\":\"allow\","
		      "\"session\":\"0000-0000-0000-1\",\"name\":\"a.example\",\"port\":443,"
		      "\"detail\":{\"groups\":[\"h\\u00E4r\"]}}");
	free(line);
	json_decref(object);
}

/* Bytes and duration belong to what has ended or tells how far it has come, a session or a flow, and to nothing else. */
static void test_bytes_of_ends(void **state)
{
	(void)state;
	for (unsigned kind = 0; kind < AUDIT_KIND_COUNT; kind++) {
		struct audit_event e = {.kind = (enum audit_kind)kind, .bytes_up = 1, .bytes_down = 2, .duration_us = 3};
		bool ended = kind == AUDIT_ENDED || kind == AUDIT_FLOW_ENDED || kind == AUDIT_CHECKPOINT ||
			     kind == AUDIT_FLOW_CHECKPOINT;
		json_t *object = audit_event_json(7, &e);

		assert_int_equal(json_object_get(object, "bytes_up") != NULL, ended);
		assert_int_equal(json_integer_value(json_object_get(object, "bytes_up")), ended ? 1 : 0);
		assert_int_equal(json_integer_value(json_object_get(object, "bytes_down")), ended ? 2 : 0);
		assert_int_equal(json_integer_value(json_object_get(object, "duration_us")), ended ? 3 : 0);
		json_decref(object);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_filter),	  cmocka_unit_test(test_filter_refused), cmocka_unit_test(test_times),
		cmocka_unit_test(test_all_bytes), cmocka_unit_test(test_shape),	 cmocka_unit_test(test_bytes_of_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
