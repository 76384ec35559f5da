#include "config.h"

#include "common/name.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static enum name_kind judge(const char *text, size_t len, struct name *name, struct addr *address)
{
	/* A copy of exactly that size, so that a read beyond it is seen by the sanitizer. */
	char *copy = malloc(len + 1);
	const char *why = NULL;
	enum name_kind kind;

	memcpy(copy, text, len);
	copy = realloc(copy, len > 0 ? len : 1);
	kind = name_canonical(copy, len, name, address, &why);
	free(copy);
	assert_int_equal(kind == NAME_REFUSED, why != NULL);
	return kind;
}

static void test_names_become_canonical(void **unused)
{
	static const struct {
		const char *text, *canonical;
	} cases[] = {
		{"example.com", "example.com"},
		{"EXAMPLE.Com", "example.com"},
		{"example.com.", "example.com"},
		{"localhost", "localhost"},
		{"a", "a"},
		{"x_y.-a-.test", "x_y.-a-.test"},
		{"xn--bcher-kva.example", "xn--bcher-kva.example"},
		{"1.2.3.4.example", "1.2.3.4.example"},
		{"0x7f.test", "0x7f.test"},
		{"1e100.net", "1e100.net"},
	};
	struct name n;
	struct addr a;

	(void)unused;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		assert_int_equal(judge(cases[i].text, strlen(cases[i].text), &n, &a), NAME_IS_NAME);
		assert_string_equal(n.text, cases[i].canonical);
		assert_int_equal(n.len, strlen(cases[i].canonical));
	}
}

static void test_addresses_in_every_spelling(void **unused)
{
	static const struct {
		const char *text, *address;
	} cases[] = {
		{"127.0.0.1", "127.0.0.1"},
		{"127.1", "127.0.0.1"},
		{"2130706433", "127.0.0.1"},
		{"0x7f000001", "127.0.0.1"},
		{"0X7F.1", "127.0.0.1"},
		{"0177.0.0.01", "127.0.0.1"},
		{"017700000001", "127.0.0.1"},
		{"127.0.1", "127.0.0.1"},
		{"127.0.0.1.", "127.0.0.1"},
		{"0", "0.0.0.0"},
		{"::1", "::1"},
		{"2001:DB8::1", "2001:db8::1"},
		{"::ffff:127.0.0.1", "127.0.0.1"},
		{"::ffff:7f00:1", "127.0.0.1"},
	};
	struct name n;
	struct addr a;
	char buf[ADDR_TEXT_MAX];

	(void)unused;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		assert_int_equal(judge(cases[i].text, strlen(cases[i].text), &n, &a), NAME_IS_ADDRESS);
		assert_string_equal(addr_format(&a, buf), cases[i].address);
	}
}

static void test_refusals(void **unused)
{
	static const struct {
		const char *text;
		size_t len;
	} cases[] = {
#define TEXT(s) {s, sizeof(s) - 1}
		TEXT(""),
		TEXT("."),
		TEXT(".."),
		TEXT("a..b"),
		TEXT(".a"),
		TEXT("a.."),
		TEXT("a b"),
		TEXT("localhost\0.example"),
		TEXT("a\0"),
		TEXT("\0"),
		TEXT("a\n.test"),
		TEXT("a\t"),
		TEXT("b\303\274cher.example"),
		TEXT("a\343\200\202b"),
		TEXT("a\\098.test"),
		TEXT("a*.test"),
		TEXT("*.test"),
		TEXT("a/b"),
		TEXT("user@host"),
		TEXT("[::1]"),
		TEXT("::1%lo"),
		TEXT("1.2.3.256"),
		TEXT("1.2.3.4.5"),
		TEXT("256.256.256.256"),
		TEXT("a.1"),
		TEXT("example.0x10"),
		TEXT("08"),
		TEXT("1.2.3.09"),
		TEXT("4294967296"),
		TEXT("0x"),
		TEXT("a:b"),
		TEXT(":"),
		TEXT("127.0.0.1 "),
		TEXT("a\377"),
		TEXT("a\x7f"),
		TEXT("a,b"),
#undef TEXT
	};
	struct name n;
	struct addr a;

	(void)unused;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		assert_int_equal(judge(cases[i].text, cases[i].len, &n, &a), NAME_REFUSED);
}

static void test_every_byte_but_the_allowed_is_refused(void **unused)
{
	struct name n;
	struct addr a;

	(void)unused;
	for (int c = 0; c < 256; c++) {
		char text[5] = {'a', (char)c, 'b', '.', 'x'};
		bool allowed = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
			       c == '_' || c == '.';

		assert_int_equal(judge(text, sizeof text, &n, &a), allowed ? NAME_IS_NAME : NAME_REFUSED);
	}
}

static void test_lengths(void **unused)
{
	char text[300];
	struct name n;
	struct addr a;

	(void)unused;
	memset(text, 'a', sizeof text);
	assert_int_equal(judge(text, 63, &n, &a), NAME_IS_NAME);
	assert_int_equal(judge(text, 64, &n, &a), NAME_REFUSED);
	for (size_t i = 1; i < sizeof text; i += 2)
		text[i] = '.';
	assert_int_equal(judge(text, 253, &n, &a), NAME_IS_NAME);
	assert_int_equal(n.len, 253);
	assert_int_equal(n.text[253], '\0');
	assert_int_equal(judge(text, 254, &n, &a), NAME_IS_NAME); /* the last byte is the dot that is dropped */
	assert_int_equal(judge(text, 255, &n, &a), NAME_REFUSED);
	assert_int_equal(judge(text, 256, &n, &a), NAME_REFUSED);
}

static void test_canonical_is_a_fixed_point(void **unused)
{
	static const char *const texts[] = {"A.b.C.", "x_y", "1a.b", "XN--A"};
	struct name n, again;
	struct addr a;

	(void)unused;
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
		assert_int_equal(judge(texts[i], strlen(texts[i]), &n, &a), NAME_IS_NAME);
		assert_int_equal(judge(n.text, n.len, &again, &a), NAME_IS_NAME);
		assert_string_equal(n.text, again.text);
	}
}

static void test_refusal_writes_nothing(void **unused)
{
	struct name n = {.len = 7, .text = "as it was"};
	struct addr a = {.family = 99};

	(void)unused;
	assert_int_equal(judge("a b", 3, &n, &a), NAME_REFUSED);
	assert_int_equal(n.len, 7);
	assert_string_equal(n.text, "as it was");
	assert_int_equal(a.family, 99);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names_become_canonical),
		cmocka_unit_test(test_addresses_in_every_spelling),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_every_byte_but_the_allowed_is_refused),
		cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_canonical_is_a_fixed_point),
		cmocka_unit_test(test_refusal_writes_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
