#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "common/ipc.h"
#include "schema/audit_row.h"

static struct audit_event full_event(void)
{
	struct audit_event e = {
		.kind = AUDIT_ENDED,
		.session = 0x0123456789abcdef,
		.time_us = 1795635001123456,
		.duration_us = 42,
		.client = {.addr = addr_v4(0xc0000201), .port = 40000},
		.bytes_up = 1,
		.bytes_down = INT64_MAX,
		.revision = UINT32_MAX,
		.address = {.port = 443},
	};

	e.address.addr = (struct addr){.family = ADDR_V6, .bytes = {0x20, 1, 0xd, 0xb8, [15] = 1}};
	memset(e.listener, 'l', sizeof e.listener - 1);
	memset(e.user, 'u', sizeof e.user - 1);
	memset(e.method, 'm', sizeof e.method - 1);
	memset(e.command, 'c', sizeof e.command - 1);
	memset(e.name, 'n', sizeof e.name - 1);
	memset(e.rule, 'r', sizeof e.rule - 1);
	memset(e.reason, 0xff, sizeof e.reason - 1);
	memset(e.detail, '\x1b', sizeof e.detail - 1);
	return e;
}

static size_t record(uint8_t *body, size_t size, uint64_t incarnation, uint64_t sequence, const struct audit_event *e)
{
	struct wire_writer w = wire_writer_on(body, size);

	audit_put_record(&w, incarnation, sequence, e);
	assert_false(w.overflow);
	return w.len;
}

/* A row that borrows from the body is that of the event that is copied from it, and nothing else is taken. */
static bool readable(const uint8_t *body, size_t len)
{
	static struct audit_event out;
	static uint8_t bytes[2][AUDIT_ROW_BYTES_MAX];
	struct wire_reader r = wire_reader_on(body, len), again = r;
	uint64_t incarnation, sequence, of_row, sequence_of_row;
	struct audit_row borrowing, copied;
	bool ok = audit_get_record(&r, &incarnation, &sequence, &out);

	assert_int_equal(audit_row_get_record(&again, &of_row, &sequence_of_row, &borrowing), ok);
	if (!ok)
		return false;
	assert_true(of_row == incarnation && sequence_of_row == sequence);
	audit_row_of(&out, &copied);
	size_t n = audit_row_bytes(&borrowing, bytes[0]);

	assert_true(n > 0);
	assert_int_equal(audit_row_bytes(&copied, bytes[1]), n);
	assert_memory_equal(bytes[0], bytes[1], n);
	return true;
}

static void test_round_trip(void **state)
{
	static uint8_t body[32768], again[32768];
	static struct audit_event in, out;
	uint64_t incarnation, sequence;

	(void)state;
	in = full_event();
	size_t len = record(body, sizeof body, 7, 9, &in);
	struct wire_reader r = wire_reader_on(body, len);

	assert_true(len <= ipc_body_max(IPC_RECORD));
	assert_true(audit_get_record(&r, &incarnation, &sequence, &out));
	assert_int_equal(incarnation, 7);
	assert_int_equal(sequence, 9);
	assert_string_equal(out.detail, in.detail);
	assert_string_equal(out.reason, in.reason);
	assert_int_equal(record(again, sizeof again, 7, 9, &out), len);
	assert_memory_equal(body, again, len);
}

static void test_every_truncation_and_excess(void **state)
{
	static uint8_t body[32768];
	static struct audit_event in;

	(void)state;
	in = full_event();
	in.detail[40] = '\0';
	size_t len = record(body, sizeof body, 7, 9, &in);

	for (size_t i = 0; i < len; i++)
		assert_false(readable(body, i));
	assert_true(readable(body, len));
	body[len] = 0;
	assert_false(readable(body, len + 1));
	/* Whatever stands in place of a byte of the head: families, lengths and numbers that are none. */
	for (size_t i = 0; i < 400; i++)
		for (int value = 0; value < 256; value += 5) {
			uint8_t was = body[i];

			body[i] = (uint8_t)value;
			readable(body, len);
			body[i] = was;
		}
}

static void test_ranges(void **state)
{
	static uint8_t body[32768];
	struct audit_event e = {.kind = AUDIT_START};

	(void)state;
	assert_true(readable(body, record(body, sizeof body, 1, INT64_MAX, &e)));
	assert_false(readable(body, record(body, sizeof body, 0, 1, &e)));
	assert_false(readable(body, record(body, sizeof body, 1, 0, &e)));
	assert_false(readable(body, record(body, sizeof body, 1, (uint64_t)INT64_MAX + 1, &e)));
	e.kind = AUDIT_KIND_COUNT;
	assert_false(readable(body, record(body, sizeof body, 1, 1, &e)));
	e = (struct audit_event){.time_us = -1};
	assert_false(readable(body, record(body, sizeof body, 1, 1, &e)));
	e = (struct audit_event){.duration_us = -1};
	assert_false(readable(body, record(body, sizeof body, 1, 1, &e)));
	e = (struct audit_event){.bytes_up = (uint64_t)INT64_MAX + 1};
	assert_false(readable(body, record(body, sizeof body, 1, 1, &e)));
}

static void test_text_with_nul_or_too_long(void **state)
{
	uint8_t body[256];
	struct audit_event e = {.method = "none"};

	(void)state;
	size_t len = record(body, sizeof body, 1, 1, &e);
	uint8_t *at = memmem(body, len, "none", 4);

	assert_non_null(at);
	at[1] = '\0';
	assert_false(readable(body, len));
	at[1] = 'o';
	assert_true(readable(body, len));
	at[-3] = 1; /* the length: 260 */
	assert_false(readable(body, len));
}

static void test_kinds(void **state)
{
	(void)state;
	for (int i = 0; i < AUDIT_KIND_COUNT; i++)
		assert_int_equal(audit_kind_parse(audit_kind_name((enum audit_kind)i)), i);
	assert_int_equal(audit_kind_parse(""), AUDIT_KIND_COUNT);
	assert_int_equal(audit_kind_parse("Open"), AUDIT_KIND_COUNT);
	assert_string_equal(audit_kind_name(AUDIT_LOGIN_FAILED), "login-failed");
	assert_string_equal(audit_kind_name(AUDIT_KIND_COUNT), "unknown");
}

static void test_session_text(void **state)
{
	static const uint64_t ids[] = {1, 31, 32, 0x0123456789abcdef, UINT64_MAX};
	char text[AUDIT_SESSION_TEXT_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
		assert_true(audit_session_parse(audit_session_text(ids[i], text)) == ids[i]);
	assert_string_equal(audit_session_text(1, text), "0000-0000-0000-1");
	assert_string_equal(audit_session_text(UINT64_MAX, text), "FZZZ-ZZZZ-ZZZZ-Z");
	assert_int_equal(audit_session_parse("oooo-oooo-ooooi"), 1);
	assert_int_equal(audit_session_parse("000000000000L"), 1);
}

static void test_session_refused(void **state)
{
	static const char *const wrong[] = {"",
					    "0",
					    "0000-0000-0000",
					    "0000-0000-0000-00",
					    "G000-0000-0000-0",
					    "0000-0000-000U-1",
					    "0000 0000 0000 1",
					    "0000-0000-0000-\xff"};

	(void)state;
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
		assert_int_equal(audit_session_parse(wrong[i]), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),	cmocka_unit_test(test_every_truncation_and_excess),
		cmocka_unit_test(test_ranges),		cmocka_unit_test(test_text_with_nul_or_too_long),
		cmocka_unit_test(test_kinds),		cmocka_unit_test(test_session_text),
		cmocka_unit_test(test_session_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
