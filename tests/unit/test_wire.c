#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/wire.h"

static const struct endpoint v4 = {.addr = {.family = ADDR_V4, .bytes = {192, 0, 2, 1}}, .port = 443};
static const struct endpoint v6 = {.addr = {.family = ADDR_V6, .bytes = {0x20, 1, 0xd, 0xb8, [15] = 7}}, .port = 65535};
static const struct endpoint none = {.addr = {.family = ADDR_NONE}, .port = 0};

static void put_all(struct wire_writer *w)
{
	wire_put_u8(w, 0xfe);
	wire_put_u16(w, 0xfedc);
	wire_put_u32(w, 0xfedcba98u);
	wire_put_u64(w, 0xfedcba9876543210u);
	wire_put_bytes(w, "\0\1\2", 3);
	wire_put_text(w, "text");
	wire_put_text(w, NULL);
	wire_put_endpoint(w, &v4);
	wire_put_endpoint(w, &v6);
	wire_put_endpoint(w, &none);
}

static void get_all(struct wire_reader *r, bool check)
{
	char text[8], empty[8];
	struct endpoint ep[3];
	size_t len;
	uint8_t a = wire_get_u8(r);
	uint16_t b = wire_get_u16(r);
	uint32_t c = wire_get_u32(r);
	uint64_t d = wire_get_u64(r);
	const uint8_t *bytes = wire_get_bytes(r, 16, &len);

	wire_get_text(r, text, sizeof text);
	wire_get_text(r, empty, sizeof empty);
	for (int i = 0; i < 3; i++)
		wire_get_endpoint(r, &ep[i]);
	if (!check)
		return;
	assert_int_equal(a, 0xfe);
	assert_int_equal(b, 0xfedc);
	assert_int_equal(c, 0xfedcba98u);
	assert_true(d == 0xfedcba9876543210u);
	assert_int_equal(len, 3);
	assert_memory_equal(bytes, "\0\1\2", 3);
	assert_string_equal(text, "text");
	assert_string_equal(empty, "");
	assert_true(addr_equal(&ep[0].addr, &v4.addr) && ep[0].port == v4.port);
	assert_true(addr_equal(&ep[1].addr, &v6.addr) && ep[1].port == v6.port);
	assert_true(addr_equal(&ep[2].addr, &none.addr) && ep[2].port == 0);
}

static void what_is_written_is_read_back(void **state)
{
	uint8_t data[256];
	struct wire_writer w = wire_writer_on(data, sizeof data);

	(void)state;
	put_all(&w);
	assert_false(w.overflow);
	struct wire_reader r = wire_reader_on(data, w.len);

	get_all(&r, true);
	assert_true(wire_done(&r));
}

/* Each shorter block overflows, stays within its bounds, and says so to the end. */
static void a_writer_remembers_its_overflow(void **state)
{
	uint8_t data[256];
	struct wire_writer whole = wire_writer_on(data, sizeof data);

	(void)state;
	put_all(&whole);
	for (size_t size = 0; size < whole.len; size++) {
		uint8_t *block = malloc(size + 1);

		assert_non_null(block);
		block[size] = 0x5a;
		struct wire_writer w = wire_writer_on(block, size);

		put_all(&w);
		assert_true(w.overflow);
		assert_true(w.len <= size);
		assert_int_equal(block[size], 0x5a);
		free(block);
	}
}

/* A later value that would fit must not be written behind a gap. */
static void nothing_follows_an_overflow(void **state)
{
	uint8_t data[4] = {0};
	struct wire_writer w = wire_writer_on(data, sizeof data);

	(void)state;
	wire_put_u8(&w, 1);
	wire_put_u32(&w, 0xffffffffu);
	wire_put_u8(&w, 2);
	assert_true(w.overflow);
	assert_int_equal(w.len, 1);
	assert_int_equal(data[1], 0);
}

static void a_reader_that_runs_dry_is_bad(void **state)
{
	uint8_t data[256];
	struct wire_writer w = wire_writer_on(data, sizeof data);

	(void)state;
	put_all(&w);
	for (size_t len = 0; len < w.len; len++) {
		uint8_t *block = malloc(len + 1);

		assert_non_null(block);
		memcpy(block, data, len);
		struct wire_reader r = wire_reader_on(block, len);

		get_all(&r, false);
		assert_true(r.bad);
		assert_false(wire_done(&r));
		free(block);
	}
}

static void a_dry_reader_gives_zeros(void **state)
{
	struct wire_reader r = wire_reader_on("\1", 1);
	char text[4] = "old";
	struct endpoint ep;
	size_t len = 9;

	(void)state;
	assert_int_equal(wire_get_u32(&r), 0);
	assert_int_equal(wire_get_u8(&r), 0); /* although a byte is left */
	assert_int_equal(wire_get_u16(&r), 0);
	assert_true(wire_get_u64(&r) == 0);
	assert_null(wire_get_bytes(&r, 100, &len));
	assert_int_equal(len, 0);
	wire_get_text(&r, text, sizeof text);
	assert_string_equal(text, "");
	wire_get_endpoint(&r, &ep);
	assert_int_equal(ep.addr.family, ADDR_NONE);
	assert_int_equal(ep.port, 0);
}

static void leftovers_are_an_error(void **state)
{
	struct wire_reader r = wire_reader_on("\1\2", 2);

	(void)state;
	assert_int_equal(wire_get_u8(&r), 1);
	assert_false(wire_done(&r));
	assert_int_equal(wire_get_u8(&r), 2);
	assert_true(wire_done(&r));
	assert_true(wire_done(&(struct wire_reader){0}));
}

static struct wire_reader text_of(uint8_t *data, size_t size, const void *text, size_t len)
{
	struct wire_writer w = wire_writer_on(data, size);

	wire_put_bytes(&w, text, len);
	return wire_reader_on(data, w.len);
}

static void a_text_has_no_nul_and_fits(void **state)
{
	uint8_t data[64];
	char buf[5];
	struct wire_reader r = text_of(data, sizeof data, "ab\0c", 4);

	(void)state;
	wire_get_text(&r, buf, sizeof buf);
	assert_true(r.bad);
	assert_string_equal(buf, "");
	r = text_of(data, sizeof data, "\0", 1);
	wire_get_text(&r, buf, sizeof buf);
	assert_true(r.bad);
	r = text_of(data, sizeof data, "abcd", 4);
	wire_get_text(&r, buf, sizeof buf);
	assert_true(wire_done(&r));
	assert_string_equal(buf, "abcd");
	r = text_of(data, sizeof data, "abcde", 5);
	wire_get_text(&r, buf, sizeof buf);
	assert_true(r.bad);
	assert_string_equal(buf, "");
}

static void a_length_is_not_trusted(void **state)
{
	static const uint32_t lengths[] = {5, 0x7fffffffu, 0x80000000u, 0xffffffffu};
	uint8_t data[8] = {0};
	size_t len;

	(void)state;
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
		memcpy(data, &lengths[i], 4);
		struct wire_reader r = wire_reader_on(data, sizeof data);

		assert_null(wire_get_bytes(&r, SIZE_MAX, &len));
		assert_true(r.bad);
		assert_int_equal(len, 0);
	}
	/* All there, but more than the caller takes. */
	memcpy(data, &(uint32_t){4}, 4);
	struct wire_reader r = wire_reader_on(data, sizeof data);

	assert_null(wire_get_bytes(&r, 3, &len));
	assert_true(r.bad);
	r = wire_reader_on(data, sizeof data);
	assert_ptr_equal(wire_get_bytes(&r, 4, &len), data + 4);
	assert_true(wire_done(&r));
}

static void an_unknown_family_is_bad(void **state)
{
	uint8_t data[17] = {0};
	struct addr a;

	(void)state;
	for (unsigned family = 0; family < 256; family++) {
		bool known = family == ADDR_NONE || family == ADDR_V4 || family == ADDR_V6;

		data[0] = (uint8_t)family;
		struct wire_reader r = wire_reader_on(data, sizeof data);

		wire_get_addr(&r, &a);
		assert_int_equal(r.bad, !known);
		assert_int_equal(a.family, known ? family : ADDR_NONE);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_written_is_read_back), cmocka_unit_test(a_writer_remembers_its_overflow),
		cmocka_unit_test(nothing_follows_an_overflow),	cmocka_unit_test(a_reader_that_runs_dry_is_bad),
		cmocka_unit_test(a_dry_reader_gives_zeros),	cmocka_unit_test(leftovers_are_an_error),
		cmocka_unit_test(a_text_has_no_nul_and_fits),	cmocka_unit_test(a_length_is_not_trusted),
		cmocka_unit_test(an_unknown_family_is_bad),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
