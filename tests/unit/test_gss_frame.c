/* RFC 1961's messages: every length at which they can be cut, every byte that they can begin with. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "gatewayd/worker/gss_frame.h"

static enum front_result read_one(const uint8_t *in, size_t len, enum gss_message wanted, size_t *used, size_t *token_len,
				  const char **detail)
{
	const uint8_t *token = NULL;
	struct front_refusal why = {0};
	/* Behind the end of its own block, a byte too many is found by the sanitizer. */
	uint8_t *copy = malloc(len == 0 ? 1 : len);

	assert_non_null(copy);
	memcpy(copy, in, len);
	enum front_result result = gss_read_frame(copy, len, wanted, used, &token, token_len, &why);

	if (result == FRONT_DONE)
		assert_ptr_equal(token, copy + GSS_HEADER);
	if (result == FRONT_REFUSE) {
		assert_int_equal(why.reason, REASON_PROTOCOL);
		*detail = why.detail;
	}
	free(copy);
	return result;
}

static void test_every_cut(void **state)
{
	static uint8_t message[GSS_HEADER + GSS_TOKEN_MAX + 1];
	static const size_t lengths[] = {1, 2, 255, 256, 65534, 65535};
	const char *detail;
	size_t used, len;

	(void)state;
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
		size_t whole = GSS_HEADER + lengths[i];

		gss_write_header(message, GSS_DATA, lengths[i]);
		for (size_t cut = 0; cut < whole; cut += cut < 300 || cut + 300 > whole ? 1 : 997) {
			assert_int_equal(read_one(message, cut, GSS_DATA, &used, &len, &detail), FRONT_MORE);
			assert_int_equal(used, cut < GSS_HEADER ? GSS_HEADER : whole);
		}
		assert_int_equal(read_one(message, whole, GSS_DATA, &used, &len, &detail), FRONT_DONE);
		assert_int_equal(used, whole);
		assert_int_equal(len, lengths[i]);
		assert_int_equal(read_one(message, whole + 1, GSS_DATA, &used, &len, &detail), FRONT_DONE);
		assert_int_equal(used, whole);
	}
}

static void test_header(void **state)
{
	uint8_t header[GSS_HEADER];

	(void)state;
	gss_write_header(header, GSS_PROTECTION, 0x1234);
	assert_memory_equal(header, "\1\2\x12\x34", GSS_HEADER);
}

static void test_first_bytes(void **state)
{
	static const enum gss_message kinds[] = {GSS_TOKEN, GSS_PROTECTION, GSS_DATA};
	const char *detail;
	size_t used, len;

	(void)state;
	for (unsigned k = 0; k < 3; k++)
		for (unsigned version = 0; version < 256; version++)
			for (unsigned type = 0; type < 256; type++) {
				uint8_t in[5] = {(uint8_t)version, (uint8_t)type, 0, 1, 'x'};
				bool good = version == 1 && type == (unsigned)kinds[k];

				assert_int_equal(read_one(in, 5, kinds[k], &used, &len, &detail),
						 good ? FRONT_DONE : FRONT_REFUSE);
				/* As soon as it can be known. */
				assert_int_equal(read_one(in, 1, kinds[k], &used, &len, &detail),
						 version == 1 ? FRONT_MORE : FRONT_REFUSE);
			}
}

static void test_reasons(void **state)
{
	const char *detail;
	size_t used, len;

	(void)state;
	read_one((const uint8_t *)"\5\1\0\1", 4, GSS_DATA, &used, &len, &detail);
	assert_string_equal(detail, "plain bytes where GSSAPI protection was agreed on");
	read_one((const uint8_t *)"\1\xff", 2, GSS_TOKEN, &used, &len, &detail);
	assert_string_equal(detail, "the client aborted the GSSAPI exchange");
	assert_int_equal(read_one((const uint8_t *)"\1\1\0\0", 4, GSS_TOKEN, &used, &len, &detail), FRONT_REFUSE);
	assert_string_equal(detail, "an empty GSSAPI token");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_cut),
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_first_bytes),
		cmocka_unit_test(test_reasons),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
