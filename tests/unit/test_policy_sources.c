/* Policies made of several files: include, and sets from lists.  Files are given from memory. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/image.h"
#include "tests/unit/policy_fixture.h"

struct file {
	const char *name, *text;
};

static int provide(void *arg, const char *from, const char *path, char **bytes, size_t *len, char **name,
		   struct err *why)
{
	(void)from;
	for (const struct file *f = arg; f->name != NULL; f++) {
		if (strcmp(f->name, path) != 0)
			continue;
		*bytes = strdup(f->text);
		*len = strlen(f->text);
		*name = strdup(path);
		return 0;
	}
	return err_set(why, "%s: No such file or directory", path);
}

static void read_policy(struct fixture *f, const char *text, const struct file *files)
{
	struct policy_provider p = {.read = provide, .arg = (void *)files};
	struct err why;

	*f = (struct fixture){0};
	f->tree = policy_parse_with("main", text, strlen(text), &p, &f->diagnostics);
	policy_check(f->tree, &f->diagnostics);
	if (f->diagnostics.errors > 0)
		return;
	assert_int_equal(policy_compile(f->tree, &f->data, &f->len, &f->diagnostics), 0);
	assert_int_equal(policy_image_verify(f->data, f->len, &why), 0);
	f->image = policy_image_open(f->data, f->len, &why);
	assert_non_null(f->image);
	policy_expect(f->tree, f->image, &f->diagnostics);
}

static void assert_diagnostic(const struct fixture *f, size_t n, const char *file, unsigned line, const char *code)
{
	assert_true(n < f->diagnostics.count);
	assert_string_equal(f->diagnostics.items[n].file, file);
	assert_int_equal(f->diagnostics.items[n].line, line);
	assert_string_equal(f->diagnostics.items[n].code, code);
}

static void test_lists_of_every_kind(void **unused)
{
	static const struct file files[] = {{"d", "# malware\n.bad.example\n\n  worse.example   # since May\r\n"},
					    {"c", "10.0.0.0/8\n192.0.2.1-192.0.2.9\n"},
					    {"r", "ads?#?[0-9]*\\..*\n# no pattern\n"},
					    {"p", "443\n8000-8999"},
					    {"u", "ann\nuser # a name\n"},
					    {"g", "staff\n"},
					    {"l", "DE\nunknown\n"},
					    {"a", "AS64500\n64501\n"},
					    {NULL, NULL}};
	struct fixture f;

	(void)unused;
	read_policy(&f,
		    "set d domain file \"d\"\nset c cidr file \"c\"\nset r regex file r\nset p port file p\n"
		    "set u user file u\nset g group file g\nset l country file l\nset a asn file a\n"
		    "rule d deny to domain @d\nrule r deny to regex @r\nrule c deny to cidr @c\n"
		    "rule l deny to country @l not to asn @a\nrule ok allow user @u group @g port @p\n"
		    "expect deny to www.bad.example rule d\nexpect deny to worse.example rule d\n"
		    "expect deny to ads1.example rule r\nexpect deny to 192.0.2.5 rule c\n"
		    "expect deny to 203.0.113.1 country DE asn 64999 rule l\n"
		    "expect allow user ann group staff to 203.0.113.1 country FR port 8080\n"
		    "expect deny user bob group staff to 203.0.113.1 country FR\n"
		    "expect allow user \"user\" group staff to 203.0.113.1 country DE asn 64500\n",
		    files);
	for (size_t i = 0; i < f.diagnostics.count; i++)
		print_message("%s\n", f.diagnostics.items[i].message);
	assert_int_equal(f.diagnostics.count, 0);
	fixture_close(&f);
}

static void test_a_bad_line_is_told_with_its_place(void **unused)
{
	static const struct file files[] = {{"d", ".fine.example\n# remark\n\nno good.example\nx\ty.example\n"},
					    {"c", "10.0.0.1/8\n"},
					    {NULL, NULL}};
	struct fixture f;

	(void)unused;
	read_policy(&f, "set d domain file d\nset c cidr file c\nrule r deny to domain @d to cidr @c\n", files);
	assert_int_equal(f.diagnostics.errors, 3);
	assert_diagnostic(&f, 0, "d", 5, "control-byte");
	assert_diagnostic(&f, 1, "d", 4, "bad-value");
	assert_diagnostic(&f, 2, "c", 1, "bad-value");
	assert_string_equal(f.diagnostics.items[1].excerpt, "no good.example");
	fixture_close(&f);
}

static void test_included_statements_stand_where_they_are_included(void **unused)
{
	static const struct file files[] = {{"first", "set s domain { .a.example }\ninclude \"second\"\n"},
					    {"second", "rule early deny to domain @s\n"},
					    {NULL, NULL}};
	struct fixture f;

	(void)unused;
	read_policy(&f,
		    "include \"first\"\nrule late allow to domain .a.example .b.example\n"
		    "expect deny to a.example rule early\nexpect allow to b.example rule late\n",
		    files);
	assert_int_equal(f.diagnostics.count, 0);
	char *printed = policy_print(f.tree);

	assert_string_equal(printed, "include first\nrule late allow to domain .a.example .b.example\n"
				     "expect deny to a.example rule early\nexpect allow to b.example rule late\n");
	free(printed);
	fixture_close(&f);
}

static void test_faults_of_included_files_are_theirs(void **unused)
{
	static const struct file files[] = {{"inner", "rule a allow\nrule b alow\n"}, {NULL, NULL}};
	struct fixture f;

	(void)unused;
	read_policy(&f, "include inner\nrule a deny\n", files);
	assert_int_equal(f.diagnostics.errors, 2);
	assert_diagnostic(&f, 0, "inner", 2, "syntax");
	assert_diagnostic(&f, 1, "main", 2, "duplicate-name");
	fixture_close(&f);
}

static void test_loops_depth_and_missing_files_are_errors(void **unused)
{
	static const struct file files[] = {
		{"loop", "include loop2\n"}, {"loop2", "include loop\n"}, {"main", "include main\n"}, {NULL, NULL}};
	struct fixture f;

	(void)unused;
	read_policy(&f, "include loop\ninclude main\ninclude gone\nset s user file gone\n", files);
	assert_int_equal(f.diagnostics.errors, 4);
	assert_diagnostic(&f, 0, "loop2", 1, "include-loop");
	assert_diagnostic(&f, 1, "main", 2, "include-loop");
	assert_diagnostic(&f, 2, "main", 3, "file");
	assert_diagnostic(&f, 3, "main", 4, "file");
	fixture_close(&f);
	fixture_check(&f, "include x\n", 10);
	assert_int_equal(f.diagnostics.errors, 1);
	fixture_close(&f);
}

static void test_a_million_entries_are_ordinary(void **unused)
{
	size_t room = 24000000, len = 0;
	char *text = malloc(room);
	struct file files[] = {{"list", text}, {NULL, NULL}};
	struct fixture f;

	(void)unused;
	for (int i = 0; i < 1000000; i++)
		len += (size_t)snprintf(text + len, room - len, ".listed-%d.example\n", i);
	read_policy(&f,
		    "set s domain file list\nrule r allow not to domain @s\nexpect deny to www.listed-999999.example\n"
		    "expect allow to www.listed-1000000.example\n",
		    files);
	assert_int_equal(f.diagnostics.count, 0);
	assert_true(f.len < 40000000);
	fixture_close(&f);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lists_of_every_kind),
		cmocka_unit_test(test_a_bad_line_is_told_with_its_place),
		cmocka_unit_test(test_included_statements_stand_where_they_are_included),
		cmocka_unit_test(test_faults_of_included_files_are_theirs),
		cmocka_unit_test(test_loops_depth_and_missing_files_are_errors),
		cmocka_unit_test(test_a_million_entries_are_ordinary),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
