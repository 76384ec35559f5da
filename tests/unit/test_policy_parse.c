#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/policy_fixture.h"

/* One faulty line each, and the first thing that is said about it. */
static const struct {
	const char *text, *code;
	unsigned line, column;
	const char *hint; /* part of the message */
} faults[] = {
	{"rule", "syntax", 1, 5, NULL},
	{"ruel x deny", "syntax", 1, 1, "did you mean 'rule'?"},
	{"rule x alow", "syntax", 1, 8, "did you mean 'allow'?"},
	{"rule x disable allow", "syntax", 1, 8, "did you mean 'disabled'?"},
	{"rule x monitor disabled allow", "syntax", 1, 16, NULL},
	{"rule x disabled disabled allow", "syntax", 1, 17, NULL},
	{"rule x disabled allow to cidr @lan", "unknown-set", 1, 31, NULL},
	{"rule x allow to domian y", "syntax", 1, 17, "did you mean 'domain'?"},
	{"rule x allow group to domain y", "syntax", 1, 20, "in quotes"},
	{"rule x allow group hr comand connect", "near-word", 1, 23, "did you mean the word 'command'?"},
	{"rule x allow user ann prot 22", "near-word", 1, 23, "did you mean the word 'port'?"},
	{"rule x allow port 443 durring w", "bad-value", 1, 23, "did you mean the word 'during'?"},
	{"rule x allow port 65536", "bad-value", 1, 19, NULL},
	{"rule x allow port 20-10", "bad-value", 1, 19, NULL},
	{"rule x allow port -1", "bad-value", 1, 19, NULL},
	{"rule x allow to cidr 10.0.0.1/8", "bad-value", 1, 22, "10.0.0.0/8"},
	{"rule x allow to cidr 10.0.0.9-10.0.0.1", "bad-value", 1, 22, NULL},
	{"rule x allow to cidr 10.0.0.1-::1", "bad-value", 1, 22, NULL},
	{"rule x allow to cidr example.com", "bad-value", 1, 22, NULL},
	{"rule x allow to domain 10.0.0.1", "bad-value", 1, 24, "to cidr"},
	{"rule x allow to domain a..b", "bad-value", 1, 24, NULL},
	{"rule x allow to domain a*.b", "bad-value", 1, 24, "to regex"},
	{"rule x allow to domain *", "bad-value", 1, 24, NULL},
	{"rule x allow to domain .", "bad-value", 1, 24, NULL},
	{"rule x deny to regex \"a(b\"", "bad-regex", 1, 26, NULL},
	{"rule x deny to regex \"a\\Cb\"", "bad-regex", 1, 26, NULL},
	{"rule x deny to country DEU", "bad-value", 1, 24, NULL},
	{"rule x deny to country D1", "bad-value", 1, 24, NULL},
	{"rule x allow command tunnel", "bad-value", 1, 22, "connect"},
	{"rule x allow method pasword", "bad-value", 1, 21, "password"},
	{"rule x allow strength none", "bad-value", 1, 23, NULL},
	{"rule x allow by nmae", "bad-value", 1, 17, "name"},
	{"rule x allow during offce", "unknown-window", 1, 21, NULL},
	{"window office { mon }\nrule x allow during offce", "unknown-window", 2, 21, "did you mean 'office'?"},
	{"rule x allow to cidr @lan", "unknown-set", 1, 22, NULL},
	{"set lan cidr { 10.0.0.0/8 }\nrule x allow to domain @lan", "wrong-set", 2, 24, NULL},
	{"set a cidr { @b }\nset b cidr { 10.0.0.0/8 }\nrule x allow to cidr @a", "set-order", 1, 14, NULL},
	{"set a cidr { @a }\nrule x allow to cidr @a", "set-order", 1, 14, NULL},
	{"rule x allow log @a", "syntax", 1, 18, NULL},
	{"rule x allow listener @a", "no-set-here", 1, 23, NULL},
	{"rule x deny\nrule x deny", "duplicate-name", 2, 6, "line 1"},
	{"rule \"to\" deny", "bad-name", 1, 6, NULL},
	{"rule default deny", "syntax", 1, 6, NULL},
	{"rule x allow until 2026-02-29", "bad-value", 1, 20, "no such day"},
	{"rule x allow until tomorrow", "bad-value", 1, 20, NULL},
	{"rule x allow until \"2026-12-31 24:00\"", "bad-value", 1, 20, NULL},
	{"rule x allow from 2026-12-31 until 2026-12-30", "empty-period", 1, 30, NULL},
	{"rule x allow until 2026-12-31 until 2027-12-31", "duplicate", 1, 31, NULL},
	{"rule x deny internal", "allow-only", 1, 13, NULL},
	{"rule x deny source 192.0.2.1", "allow-only", 1, 13, NULL},
	{"rule x allow source example.com", "bad-value", 1, 21, NULL},
	{"rule x allow log loud", "bad-value", 1, 18, "alert"},
	{"rule x allow not internal", "syntax", 1, 18, NULL},
	{"default allow", "default-allow", 1, 1, NULL},
	{"default deny\ndefault deny", "duplicate", 2, 1, NULL},
	{"tz Mars/Base", "bad-value", 1, 4, NULL},
	{"tz \"../../../etc/passwd\"", "bad-value", 1, 4, NULL},
	{"tz /etc/localtime", "bad-value", 1, 4, NULL},
	{"window w { mon-fri 8:00-18:00 }\nrule x allow during w", "bad-value", 1, 20, NULL},
	{"window w { mon-fri 08:00-25:00 }\nrule x allow during w", "bad-value", 1, 20, NULL},
	{"window w { monday }\nrule x allow during w", "bad-value", 1, 12, NULL},
	{"window w { }\nrule x allow during w", "empty-window", 1, 1, NULL},
	{"window w { mon except 2026-13-01 }\nrule x allow during w", "bad-value", 1, 23, NULL},
	{"nat64-prefix 2001:db8::/95", "bad-value", 1, 14, NULL},
	{"nat64-prefix 10.0.0.0/8", "bad-value", 1, 14, NULL},
	{"answers some", "bad-value", 1, 9, NULL},
	{"set a cidr { 10.0.0.0/8\nrule x allow to cidr @a", "syntax", 2, 1, "'}' is missing"},
	{"rule x allow to domain \"foo", "open-string", 1, 24, NULL},
	{"rule x allow port 22, 443", "bad-character", 1, 21, "separated by spaces"},
	{"expect allow user ann", "no-target", 1, 1, NULL},
	{"expect allow group hr to example.com", "no-user", 1, 14, NULL},
	{"expect allow to 10.0.0.1 resolves 10.0.0.2", "no-name", 1, 26, NULL},
	{"expect allow to example.com port 1-2", "bad-value", 1, 34, NULL},
	{"expect allow to a to b", "duplicate", 1, 19, NULL},
	{"expect allow to a rule nosuch", "unknown-rule", 1, 24, NULL},
	{"expect allow to a at tomorrow", "bad-value", 1, 22, NULL},
};

static void test_every_fault_has_its_place(void **unused)
{
	(void)unused;
	for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
		struct fixture f;

		fixture_check(&f, faults[i].text, strlen(faults[i].text));
		if (f.diagnostics.errors == 0)
			fail_msg("no error in: %s", faults[i].text);
		const struct policy_diagnostic *d = &f.diagnostics.items[0];

		for (size_t n = 0; d->severity == POLICY_WARNING; n++)
			d = &f.diagnostics.items[n];
		if (strcmp(d->code, faults[i].code) != 0 || d->line != faults[i].line ||
		    d->column != faults[i].column ||
		    (faults[i].hint != NULL && strstr(d->message, faults[i].hint) == NULL))
			fail_msg("%s\n  gives %u:%u %s: %s", faults[i].text, d->line, d->column, d->code, d->message);
		fixture_close(&f);
	}
}

static void test_all_errors_in_one_run(void **unused)
{
	static const char text[] = "rule a allow port 99999\n"
				   "rule b alow\n"
				   "set s cidr { 10.0.0.1/8 1.2.3 }\n"
				   "rule c deny to cidr @nosuch\n"
				   "rule d deny to domain a..b port x\n";
	struct fixture f;

	(void)unused;
	fixture_check(&f, text, strlen(text));
	/* @nosuch may stand in the line that could not be read, and is not complained about. */
	assert_int_equal(f.diagnostics.errors, 6);
	fixture_close(&f);
}

static void test_caret_points_at_the_fault(void **unused)
{
	struct fixture f;
	char *text;

	(void)unused;
	fixture_check(&f, "rule x allow\tport 99999", 23);
	text = policy_diagnostic_format(&f.diagnostics.items[0]);
	assert_non_null(strstr(text, "test:1:19: error: '99999'"));
	assert_non_null(strstr(text, "    rule x allow port 99999\n                      ^~~~~\n"));
	free(text);
	fixture_close(&f);
}

static void test_hostile_bytes_are_shown_escaped(void **unused)
{
	static const char text[] = "rule x allow user \033[31mred\nrule y\0 deny\nrule z allow user \"a\033b\"\nset "
				   "\342\200\256 cidr { }\n";
	struct fixture f;

	(void)unused;
	fixture_check(&f, text, sizeof text - 1);
	assert_true(f.diagnostics.errors >= 3);
	for (size_t i = 0; i < f.diagnostics.count; i++) {
		char *shown = policy_diagnostic_format(&f.diagnostics.items[i]);

		for (const char *c = shown; *c != '\0'; c++)
			assert_true(*c == '\n' || ((unsigned char)*c >= 0x20 && *c != 0x7f));
		assert_null(strstr(shown, "\342\200\256"));
		free(shown);
	}
	fixture_close(&f);
}

static void test_errors_are_bounded(void **unused)
{
	enum { LINES = 5000 };
	char *text = malloc(LINES * 6 + 1);
	struct fixture f;

	(void)unused;
	for (size_t i = 0; i < LINES; i++)
		memcpy(text + i * 6, "wrong\n", 7);
	fixture_check(&f, text, LINES * 6);
	assert_int_equal(f.diagnostics.count, POLICY_DIAGNOSTICS_MAX + 1);
	assert_int_equal(f.diagnostics.errors, LINES);
	fixture_close(&f);
	free(text);
}

static void test_a_line_of_a_million_bytes(void **unused)
{
	enum { LEN = 1000000 };
	char *text = malloc(LEN);
	struct fixture f;

	(void)unused;
	memset(text, 'a', LEN);
	fixture_check(&f, text, LEN);
	assert_int_equal(f.diagnostics.errors, 1);
	assert_true(strlen(f.diagnostics.items[0].excerpt) < 1000);
	fixture_close(&f);
	memset(text, '{', LEN);
	fixture_check(&f, text, LEN);
	assert_true(f.diagnostics.errors >= 1);
	fixture_close(&f);
	memset(text, '"', LEN);
	fixture_check(&f, text, LEN);
	assert_true(f.diagnostics.errors >= 1);
	fixture_close(&f);
	free(text);
}

static void test_canonical_form(void **unused)
{
	static const char messy[] =
		"# head\n\n\n\ntz   \"Europe/Berlin\"   # zone\n"
		"set  a   cidr {10.0.0.0/8\n 192.168.0.0/16}\n"
		"rule  r   allow user \"ann\"  \"to\" \"us er\" to regex a.b \\\n   port 22   # why\n"
		"# tail\n";
	static const char tidy[] = "# head\n\ntz Europe/Berlin  # zone\n"
				   "set a cidr { 10.0.0.0/8 192.168.0.0/16 }\n"
				   "rule r allow user ann \"to\" \"us er\" to regex a.b port 22  # why\n"
				   "# tail\n";
	struct fixture f;
	char *text;

	(void)unused;
	fixture_check(&f, messy, strlen(messy));
	assert_int_equal(f.diagnostics.errors, 0);
	text = policy_print(f.tree);
	assert_string_equal(text, tidy);
	free(text);
	fixture_close(&f);
}

/* `grace` is a word where a statement begins; everywhere else somebody may be called that. */
static void test_grace(void **unused)
{
	static const struct {
		const char *text, *printed;
		unsigned seconds;
	} good[] = {{"grace 30s\n", "grace 30s\n", 30},   {"grace   90s  # why\n", "grace 90s  # why\n", 90},
		    {"grace 120s\n", "grace 2m\n", 120},   {"grace \"720m\"\n", "grace 12h\n", 43200},
		    {"grace 1s\n", "grace 1s\n", 1},
		    {"rule grace allow user grace\n", "rule grace allow user grace\n", 0},
		    {"set s user {\n\tgrace\n}\nrule r allow user @s\n", "set s user { grace }\nrule r allow user @s\n", 0}};
	static const char *const bad[] = {"grace\n", "grace 0s\n", "grace 30\n", "grace 030s\n", "grace -3s\n", "grace 43201s\n", "grace 13h\n",
					  "grace 99999999999h\n", "grace 3 s\n", "grace 3d\n", "grace 30s\ngrace 40s\n", "grace @a\n"};
	struct fixture f;

	(void)unused;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		fixture_open(&f, good[i].text);
		assert_int_equal(policy_grace_s(f.image), good[i].seconds);
		char *printed = policy_print(f.tree);

		assert_string_equal(printed, good[i].printed);
		free(printed);
		fixture_close(&f);
	}
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		fixture_check(&f, bad[i], strlen(bad[i]));
		if (f.diagnostics.errors == 0)
			fail_msg("%s is taken", bad[i]);
		fixture_close(&f);
	}
}

static void test_remarks_inside_a_set_stay(void **unused)
{
	static const char text[] = "set a cidr {\n\t# ours\n\t10.0.0.0/8  # the old one\n\n\t# "
				   "theirs\n\t192.168.0.0/16\n}\nrule r allow to cidr @a\n";
	struct fixture f;
	char *printed;

	(void)unused;
	fixture_check(&f, text, strlen(text));
	assert_int_equal(f.diagnostics.errors, 0);
	printed = policy_print(f.tree);
	assert_string_equal(printed, text);
	free(printed);
	fixture_close(&f);
}

static void test_quotes_and_backslashes(void **unused)
{
	static const char text[] = "rule r deny to regex \"a\\.b\\\\\\\"\" comment \"say \\\"no\\\"\"\n";
	struct fixture f;
	char *printed;

	(void)unused;
	fixture_check(&f, text, strlen(text));
	printed = policy_print(f.tree);
	assert_string_equal(printed, text);
	free(printed);
	fixture_close(&f);
}

static void test_unicode_domains_become_a_labels(void **unused)
{
	struct policy_decision d;
	struct policy_request r = {.command = POLICY_CONNECT, .port = 443};
	struct name n = fixture_name("www.xn--bcher-kva.example");
	struct fixture f;

	(void)unused;
	fixture_open(&f, "rule r allow to domain .B\303\274cher.example\n");
	struct policy_context ctx = {.image = f.image};

	r.name = &n;
	policy_decide_name(&ctx, &r, &d);
	assert_int_equal(d.verdict, POLICY_RESOLVE);
	fixture_close(&f);
}

static void test_warnings(void **unused)
{
	static const char text[] = "set a cidr { }\nset b country { ZZ }\nwindow w { mon }\nrule r deny to cidr @a\n";
	struct fixture f;

	(void)unused;
	fixture_check(&f, text, strlen(text));
	assert_int_equal(f.diagnostics.errors, 0);
	assert_int_equal(f.diagnostics.warnings, 4);
	assert_string_equal(f.diagnostics.items[0].code, "empty-set");
	assert_string_equal(f.diagnostics.items[1].code, "unassigned-country");
	assert_string_equal(f.diagnostics.items[2].code, "unused");
	assert_string_equal(f.diagnostics.items[3].code, "unused");
	fixture_close(&f);
}

/* Any number of warnings is no error, and none of them hides an error. */
static void test_warnings_are_bounded_and_refuse_nothing(void **unused)
{
	enum { SETS = 3000 };
	size_t room = (size_t)SETS * 40 + 400, len = 0;
	char *text = malloc(room);
	struct fixture f;

	(void)unused;
	for (int i = 0; i < SETS; i++)
		len += (size_t)snprintf(text + len, room - len, "set s%d country { QQ }\n", i);
	fixture_check(&f, text, len);
	assert_int_equal(f.diagnostics.errors, 0);
	assert_int_equal(f.diagnostics.warnings, 2 * SETS);
	assert_int_equal(f.diagnostics.count, POLICY_DIAGNOSTICS_MAX + 1);
	assert_int_equal(f.diagnostics.items[POLICY_DIAGNOSTICS_MAX].severity, POLICY_WARNING);
	fixture_close(&f);
	len += (size_t)snprintf(text + len, room - len, "rule a deny to country XYZ\nset b cidr { 10.0.0.0/33 }\n");
	fixture_check(&f, text, len);
	assert_int_equal(f.diagnostics.errors, 2);
	assert_int_equal(f.diagnostics.count, POLICY_DIAGNOSTICS_MAX + 1);
	size_t shown = 0;

	for (size_t i = 0; i < f.diagnostics.count; i++)
		shown += f.diagnostics.items[i].severity == POLICY_ERROR && f.diagnostics.items[i].line > SETS;
	assert_int_equal(shown, 2);
	fixture_close(&f);
	free(text);
}

/* A set is of use if a rule can reach it. */
static void test_unused_sets(void **unused)
{
	static const char text[] = "set a port { 1 }\nset b port { @a }\nset c port { 2 }\nset d port { @c }\nrule r deny port @b\n";
	struct fixture f;

	(void)unused;
	fixture_check(&f, text, strlen(text));
	assert_int_equal(f.diagnostics.warnings, 2);
	assert_int_equal(f.diagnostics.items[0].line, 3);
	assert_int_equal(f.diagnostics.items[1].line, 4);
	fixture_close(&f);
}

static void test_references_that_multiply_do_not(void **unused)
{
	char text[8192] = "set s0 cidr { 10.0.0.0/8 }\n";
	struct fixture f;

	(void)unused;
	/* 2^60 addresses, if each reference were followed each time. */
	for (int i = 1; i <= 60; i++)
		snprintf(text + strlen(text), sizeof text - strlen(text), "set s%d cidr { @s%d @s%d }\n", i, i - 1,
			 i - 1);
	snprintf(text + strlen(text), sizeof text - strlen(text), "rule r deny to cidr @s60\n");
	fixture_open(&f, text);
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_fault_has_its_place),
		cmocka_unit_test(test_all_errors_in_one_run),
		cmocka_unit_test(test_caret_points_at_the_fault),
		cmocka_unit_test(test_hostile_bytes_are_shown_escaped),
		cmocka_unit_test(test_errors_are_bounded),
		cmocka_unit_test(test_a_line_of_a_million_bytes),
		cmocka_unit_test(test_canonical_form),
		cmocka_unit_test(test_grace),
		cmocka_unit_test(test_remarks_inside_a_set_stay),
		cmocka_unit_test(test_quotes_and_backslashes),
		cmocka_unit_test(test_unicode_domains_become_a_labels),
		cmocka_unit_test(test_warnings),
		cmocka_unit_test(test_warnings_are_bounded_and_refuse_nothing),
		cmocka_unit_test(test_unused_sets),
		cmocka_unit_test(test_references_that_multiply_do_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
