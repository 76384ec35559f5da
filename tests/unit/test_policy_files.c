/* Policies as data: tests/policy/good/ and the packaged examples must hold their own expectations; in
 * tests/policy/bad/, lines
 * "#! LINE:COLUMN code" say which errors are found, no more and no fewer, in that order. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/policy_fixture.h"

static void each_file(const char *pattern, size_t at_least, void (*run)(const char *path))
{
	glob_t found;

	assert_int_equal(glob(pattern, 0, NULL, &found), 0);
	assert_true(found.gl_pathc >= at_least);
	for (size_t i = 0; i < found.gl_pathc; i++)
		run(found.gl_pathv[i]);
	globfree(&found);
}

/* With POLICY_IMAGES set, images go there: this is how the fuzzer's are made after a change of their form. */
static void keep_image(const char *policy, const struct fixture *f)
{
	const char *dir = getenv("POLICY_IMAGES"), *name = strrchr(policy, '/') + 1;
	char path[512];

	if (dir == NULL)
		return;
	snprintf(path, sizeof path, "%s/%.*s", dir, (int)strcspn(name, "."), name);
	FILE *out = fopen(path, "w");

	assert_non_null(out);
	assert_int_equal(fwrite(f->data, 1, f->len, out), f->len);
	assert_int_equal(fclose(out), 0);
}

static void run_good(const char *path)
{
	size_t len;
	char *text = fixture_read(path, &len);
	struct fixture f;

	fixture_open(&f, text);
	size_t ran = policy_expect(f.tree, f.image, &f.diagnostics);

	for (size_t i = 0; i < f.diagnostics.count; i++) {
		char *line = policy_diagnostic_format(&f.diagnostics.items[i]);

		print_message("%s: %s", path, line);
		free(line);
	}
	assert_int_equal(f.diagnostics.count, 0);
	assert_true(ran > 0);
	keep_image(path, &f);
	fixture_close(&f);
	free(text);
}

static void run_bad(const char *path)
{
	size_t len, found = 0;
	char *text = fixture_read(path, &len), want[4096] = "", got[4096] = "";
	struct fixture f;

	for (const char *p = text; (p = strstr(p, "#! ")) != NULL; p++)
		snprintf(want + strlen(want), sizeof want - strlen(want), "%.*s\n", (int)strcspn(p + 3, "\n"), p + 3);
	fixture_check(&f, text, len);
	if (f.diagnostics.errors == 0) {
		struct err why;

		assert_int_equal(policy_compile(f.tree, &f.data, &f.len, &f.diagnostics), 0);
		f.image = policy_image_open(f.data, f.len, &why);
		policy_expect(f.tree, f.image, &f.diagnostics);
	}
	for (size_t i = 0; i < f.diagnostics.count; i++) {
		const struct policy_diagnostic *d = &f.diagnostics.items[i];

		snprintf(got + strlen(got), sizeof got - strlen(got), "%u:%u %s\n", d->line, d->column, d->code);
		found++;
	}
	if (strcmp(want, got) != 0)
		fail_msg("%s: wanted\n%sbut got\n%s", path, want, got);
	assert_true(found > 0);
	fixture_close(&f);
	free(text);
}

static void test_good_policies_hold_their_expectations(void **unused)
{
	(void)unused;
	each_file(POLICY_SOURCE_DIR "/tests/policy/good/*.policy", 11, run_good);
}

static void test_examples_hold_their_expectations(void **unused)
{
	(void)unused;
	each_file(POLICY_SOURCE_DIR "/packaging/examples/[!f]*.policy", 4, run_good);
}

static void test_bad_policies_are_faulted_where_they_are(void **unused)
{
	(void)unused;
	each_file(POLICY_SOURCE_DIR "/tests/policy/bad/*.policy", 3, run_bad);
}

static void check_seed(const char *path)
{
	size_t len;
	char *bytes = fixture_read(path, &len);
	struct err why;

	if (policy_image_verify((const uint8_t *)bytes, len, &why) != 0)
		fail_msg("%s: %s; make the fuzzer's images anew with POLICY_IMAGES", path, why.text);
	free(bytes);
}

/* Images of another version would teach the fuzzer nothing. */
static void test_images_of_the_fuzzer_are_of_this_version(void **unused)
{
	(void)unused;
	each_file(POLICY_SOURCE_DIR "/tests/fuzz/corpus/fuzz_policy_image/*", 15, check_seed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_policies_hold_their_expectations),
		cmocka_unit_test(test_examples_hold_their_expectations),
		cmocka_unit_test(test_bad_policies_are_faulted_where_they_are),
		cmocka_unit_test(test_images_of_the_fuzzer_are_of_this_version),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
