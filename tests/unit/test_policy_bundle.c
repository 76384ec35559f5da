/* A policy and its files as one block: what goes in comes out, and a hostile block is refused. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/sealed.h"
#include "policy/bundle.h"

static struct err why;

static struct bundle_file files[] = {
	{"gateway.policy", "include \"teams/hr.policy\"\nset m domain file \"lists/m\"\nrule a deny to domain @m\n", 0},
	{"teams/hr.policy", "set h domain file \"lists/h\"\nrule b deny to domain @h\n", 0},
	{"lists/m", ".m.example\n", 0},
	{"teams/lists/h", ".h.example\nbad name\n", 0},
	{"empty", "", 0},
};

static int seal(size_t count)
{
	struct bundle b = {files, count};

	for (size_t i = 0; i < sizeof files / sizeof *files; i++)
		files[i].len = strlen(files[i].text);
	return bundle_seal(&b, &why);
}

/* A malloc'd, changeable copy of a whole bundle. */
static uint8_t *copy(size_t *len)
{
	struct sealed s;
	int fd = seal(5);

	assert_true(fd >= 0);
	assert_int_equal(sealed_map(fd, BUNDLE_BYTES_MAX, &s, &why), 0);
	close(fd);
	uint8_t *data = malloc(s.len + 8);

	memcpy(data, s.data, s.len);
	*len = s.len;
	sealed_unmap(&s);
	return data;
}

static void test_what_goes_in_comes_out(void **state)
{
	struct bundle b;
	size_t len;
	uint8_t *data = copy(&len);

	(void)state;
	assert_int_equal(bundle_read(data, len, &b, &why), 0);
	assert_int_equal(b.count, 5);
	for (size_t i = 0; i < b.count; i++) {
		assert_string_equal(b.files[i].name, files[i].name);
		assert_int_equal(b.files[i].len, files[i].len);
		assert_memory_equal(b.files[i].text, files[i].text, files[i].len);
	}
	assert_ptr_equal(bundle_find(&b, "empty"), &b.files[4]);
	assert_null(bundle_find(&b, "lists/h"));
	bundle_clear(&b);
	free(data);
}

static void test_names_are_relative_to_the_file_that_says_them(void **state)
{
	static const char *const cases[][3] = {{"p", "lists/a", "lists/a"},
					       {"d/p", "lists/a", "d/lists/a"},
					       {"d/e/p", "../a", "d/e/../a"},
					       {"d/p", "/etc/a", "/etc/a"}};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char *name = bundle_name(cases[i][0], cases[i][1]);

		assert_string_equal(name, cases[i][2]);
		free(name);
	}
}

static void test_parse_finds_every_file(void **state)
{
	struct policy_diagnostics d = {0};
	struct bundle b;
	size_t len;
	uint8_t *data = copy(&len);

	(void)state;
	assert_int_equal(bundle_read(data, len, &b, &why), 0);
	struct policy_tree *t = bundle_parse(&b, &d);

	assert_int_equal(d.errors, 0);
	policy_check(t, &d);
	assert_int_equal(d.errors, 1);
	assert_string_equal(d.items[0].file, "teams/lists/h");
	assert_int_equal(d.items[0].line, 2);
	policy_tree_free(t);
	policy_diagnostics_free(&d);
	/* Without one of them, the place that names it is told, and what to do. */
	b.count = 3;
	t = bundle_parse(&b, &d);
	assert_int_equal(d.errors, 1);
	assert_string_equal(d.items[0].file, "teams/hr.policy");
	assert_string_equal(d.items[0].code, "file");
	assert_non_null(strstr(d.items[0].message, "gatewayctl policy apply"));
	policy_tree_free(t);
	policy_diagnostics_free(&d);
	bundle_clear(&b);
	free(data);
}

static void assert_refused(const uint8_t *data, size_t len)
{
	struct bundle b;

	assert_int_equal(bundle_read(data, len, &b, &why), -1);
	assert_null(b.files);
}

static void test_hostile_blocks_are_refused(void **state)
{
	size_t len, names = 16 + 5 * 16;
	uint8_t *data = copy(&len);

	(void)state;
	assert_refused(NULL, 0);
	for (size_t cut = 0; cut < len; cut++)
		assert_refused(data, cut);
	data[len] = 0;
	assert_refused(data, len + 1);
	/* Every byte of the head, and the ends of names: nothing that is accepted may lie outside. */
	for (size_t at = 0; at < names + 16; at++)
		for (unsigned bit = 0; bit < 8; bit++) {
			struct bundle b;

			data[at] ^= (uint8_t)(1u << bit);
			if (bundle_read(data, len, &b, &why) == 0) {
				for (size_t i = 0; i < b.count; i++) {
					assert_true(b.files[i].text + b.files[i].len <= (const char *)data + len);
					assert_true(b.files[i].name + strlen(b.files[i].name) < (const char *)data + len);
				}
				bundle_clear(&b);
			}
			data[at] ^= (uint8_t)(1u << bit);
		}
	/* A control byte in a name. */
	data[names] = '\n';
	assert_refused(data, len);
	free(data);
}

static void test_bounds(void **state)
{
	struct bundle_file twice[] = {{"a", "", 0}, {"b", "", 0}, {"b", "", 0}};
	struct bundle b = {twice, 3}, out;
	struct sealed s;
	int fd = bundle_seal(&b, &why);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(sealed_map(fd, BUNDLE_BYTES_MAX, &s, &why), 0);
	assert_int_equal(bundle_read(s.data, s.len, &out, &why), -1);
	sealed_unmap(&s);
	close(fd);
	twice[0].len = BUNDLE_POLICY_MAX + 1;
	assert_int_equal(bundle_seal(&b, &why), -1);
	twice[0].len = 0;
	twice[1].len = BUNDLE_FILES_BYTES_MAX / 2 + 1;
	twice[2].len = BUNDLE_FILES_BYTES_MAX / 2;
	assert_int_equal(bundle_seal(&b, &why), -1);
	twice[1].len = twice[2].len = 0;
	twice[2].name = "a\nb";
	assert_int_equal(bundle_seal(&b, &why), -1);
	twice[2].name = "";
	assert_int_equal(bundle_seal(&b, &why), -1);
	b.count = 0;
	assert_int_equal(bundle_seal(&b, &why), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_goes_in_comes_out),
		cmocka_unit_test(test_names_are_relative_to_the_file_that_says_them),
		cmocka_unit_test(test_parse_finds_every_file),
		cmocka_unit_test(test_hostile_blocks_are_refused),
		cmocka_unit_test(test_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
