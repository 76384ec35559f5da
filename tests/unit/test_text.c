#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/text.h"

static void plain_text_stays(void **state)
{
	char out[32];

	(void)state;
	assert_ptr_equal(text_escape("Hello ~", 7, out, sizeof out), out);
	assert_string_equal(out, "Hello ~");
	assert_string_equal(text_escape("abc", 0, out, sizeof out), "");
	assert_string_equal(text_escape(NULL, 0, out, sizeof out), "");
}

static void hostile_bytes_become_hex(void **state)
{
	char out[64];

	(void)state;
	assert_string_equal(text_escape("a\nb\r\t", 5, out, sizeof out), "a\\x0ab\\x0d\\x09");
	assert_string_equal(text_escape("\x1b[2J", 4, out, sizeof out), "\\x1b[2J");
	assert_string_equal(text_escape("a\0b", 3, out, sizeof out), "a\\x00b");
	assert_string_equal(text_escape("\x7f\x80\xff", 3, out, sizeof out), "\\x7f\\x80\\xff");
	/* Without this, a client could write what looks like an escape. */
	assert_string_equal(text_escape("\\x0a", 4, out, sizeof out), "\\x5cx0a");
}

static void every_byte_is_plain_or_escaped(void **state)
{
	char out[16];

	(void)state;
	for (unsigned c = 0; c < 256; c++) {
		uint8_t in = (uint8_t)c;
		bool plain = c >= 0x20 && c <= 0x7e && c != '\\';

		text_escape(&in, 1, out, sizeof out);
		assert_int_equal(strlen(out), plain ? 1 : 4);
	}
}

static void what_does_not_fit_is_cut_with_dots(void **state)
{
	char out[12];

	(void)state;
	assert_string_equal(text_escape("0123456789abcdef", 16, out, sizeof out), "01234567...");
	/* An escape is never cut in half. */
	assert_string_equal(text_escape("012345\n\n\n\n", 10, out, sizeof out), "012345...");
}

/* A block of exactly `size` bytes, so that a sanitizer sees the first byte behind it. */
static void nothing_is_written_behind_the_end(void **state)
{
	static const char in[] = "ab\x01\x02\xff and so on";

	(void)state;
	for (size_t size = 1; size < 40; size++) {
		char *out = malloc(size + 1);

		assert_non_null(out);
		memset(out, '#', size + 1);
		for (size_t len = 0; len < sizeof in; len++) {
			text_escape(in, len, out, size);
			assert_true(strlen(out) < size);
			assert_int_equal(out[size], '#');
		}
		free(out);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain_text_stays),
		cmocka_unit_test(hostile_bytes_become_hex),
		cmocka_unit_test(every_byte_is_plain_or_escaped),
		cmocka_unit_test(what_does_not_fit_is_cut_with_dots),
		cmocka_unit_test(nothing_is_written_behind_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
