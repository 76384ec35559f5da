/* What policy_find() says of a policy and what it does not, and what policy_diff() tells of two. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "policy/diff_said.h"
#include "tests/unit/policy_fixture.h"

/* The codes found, each with the line it stands at: "shadowed 2, expired 4". */
static void assert_findings(const char *text, const char *wanted)
{
	char got[1024] = "";
	struct fixture f;

	fixture_open(&f, text);
	policy_diagnostics_free(&f.diagnostics);
	policy_find(f.tree, f.image, fixture_time(2026, 11, 20, 10, 0), &f.diagnostics);
	for (size_t i = 0; i < f.diagnostics.count; i++)
		snprintf(got + strlen(got), sizeof got - strlen(got), "%s%s %u", i == 0 ? "" : ", ",
			 f.diagnostics.items[i].code, f.diagnostics.items[i].line);
	assert_string_equal(got, wanted);
	fixture_close(&f);
}

static void test_shadowed_rules(void **unused)
{
	(void)unused;
	assert_findings(
		"rule a deny to domain .x.example\nrule b allow to domain www.x.example *.y.x.example port 443\n",
		"shadowed 2");
	assert_findings("rule a allow to cidr 192.0.2.0/24 2001:db8::/32\nrule b allow group g to cidr 192.0.2.7 "
			"2001:db8:1::/48\n",
			"shadowed 2");
	assert_findings("rule a allow user ann bob port 1-1024\nrule b allow user ann port 22 80-90\n", "shadowed 2");
	assert_findings("rule a allow not port 25\nrule b allow port 80 443\n", "shadowed 2");
	assert_findings(
		"window w { mon-fri }\nwindow v { sat }\nrule a allow during w v\nrule b allow port 1 during w\n",
		"shadowed 4");
	assert_findings("rule a deny from 2026-01-01 until 2027-12-31 log alert\n"
			"rule b allow from 2026-02-01 until 2027-01-01 port 1\n",
			"shadowed 2");
	assert_findings("rule a allow not client 10.0.0.0/8\nrule b allow not client 10.0.0.0/7 port 1\n",
			"shadowed 2");
}

static void test_what_is_not_proven_is_not_said(void **unused)
{
	(void)unused;
	assert_findings("rule a deny to domain x.example log alert\nrule b allow to domain .x.example by name\n", "");
	assert_findings("rule a allow to cidr 192.0.2.0/25\nrule b allow to cidr 192.0.2.0/24\n", "");
	assert_findings("rule a monitor deny\nrule b allow port 1\n", "");
	/* A deny rule sees an alias, and an address within an address, that the allow rule before it does not. */
	assert_findings(
		"rule a allow to domain .x.example\nrule b deny to domain x.example log alert\nrule c allow by name\n",
		"");
	assert_findings(
		"rule a allow to cidr 192.0.2.0/24\nrule b deny to cidr 192.0.2.0/24 log alert\nrule c allow by name\n",
		"");
	/* Nobody logged in is not in a group: true in a deny rule only. */
	assert_findings("rule a allow not group g\nrule b deny not group g log alert\nrule c allow by name\n", "");
}

/* A window within another, by what it says and not by its name. */
static void test_windows_are_compared_by_their_hours(void **unused)
{
	static const struct {
		const char *outer, *inner;
		bool shadowed;
	} cases[] = {
		{"{ mon }", "{ mon }", true},
		{"{ mon-fri 08:00-18:00 }", "{ tue 09:00-12:00 wed 08:00-18:00 }", true},
		{"{ mon-fri 08:00-18:00 }", "{ tue 09:00-18:01 }", false},
		{"{ mon-fri 08:00-18:00 }", "{ sat 09:00-12:00 }", false},
		{"{ mon-fri 08:00-12:00 12:00-18:00 }", "{ mon 11:00-13:00 }", true},
		/* Past midnight. */
		{"{ fri 22:00-06:00 }", "{ fri 23:00-05:00 }", true},
		{"{ fri 22:00-06:00 }", "{ sat 00:00-05:00 }", true},
		{"{ sun 22:00-06:00 }", "{ mon 00:00-05:00 }", true},
		{"{ fri 22:00-06:00 }", "{ fri 22:00-06:01 }", false},
		{"{ sat 00:00-05:00 }", "{ fri 23:00-05:00 }", false},
		/* An exception closes a window for those hours that begin on its day. */
		{"{ mon-fri except 2026-12-25 }", "{ fri 08:00-09:00 }", false},
		{"{ mon-fri except 2026-12-25 }", "{ fri 08:00-09:00 except 2026-12-24 2026-12-25 }", true},
		{"{ fri 22:00-06:00 except 2026-12-25 }", "{ sat 00:00-05:00 except 2026-12-25 }", false},
		{"{ mon-fri }", "{ fri except 2026-12-25 }", true},
		/* Another zone's clock shows something else. */
		{"tz Europe/Berlin { mon-fri 08:00-18:00 }", "{ tue 09:00-12:00 }", false},
		{"tz Europe/Berlin { mon-fri 08:00-18:00 }", "tz Europe/Berlin { tue 09:00-12:00 }", true},
	};

	(void)unused;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char text[512];

		snprintf(text, sizeof text, "window w %s\nwindow v %s\nrule a allow during w\nrule b allow during v port 1\n",
			 cases[i].outer, cases[i].inner);
		print_message("%s within %s\n", cases[i].inner, cases[i].outer);
		assert_findings(text, cases[i].shadowed ? "shadowed 4" : "");
	}
}

static void test_rules_that_say_the_same_or_the_opposite(void **unused)
{
	(void)unused;
	assert_findings("rule a allow group g port 443\nrule b allow port 443 group g log notice\n",
			"duplicate-rule 2");
	assert_findings("rule a deny user eve log alert\nrule b allow user eve\n", "contradiction 2");
	/* Whoever does all that is said must not lose both. */
	assert_findings("rule a deny to domain .bad.example\nrule b deny to domain .bad.example\nrule c allow by name\n",
			"duplicate-rule 2");
	assert_findings("rule a deny user ann\nrule b deny user ann bob\nrule c deny user ann bob\nrule d allow port 1\n",
			"no-effect 1, duplicate-rule 3");
}

static void test_rules_that_change_nothing(void **unused)
{
	(void)unused;
	assert_findings("rule a allow port 1\nrule b deny port 2\n", "no-effect 2");
	assert_findings("rule a deny user ann\nrule b deny user ann bob\nrule c allow port 1\n", "no-effect 1");
	assert_findings("rule a deny user ann log alert\nrule b deny user ann bob\nrule c allow port 1\n", "");
	/* What opens the address guard is not the same as what does not. */
	assert_findings("rule a allow to cidr 10.0.0.1\nrule b allow port 0-65535\n", "");
}

static void test_rules_that_never_match(void **unused)
{
	(void)unused;
	assert_findings("rule a allow by address to domain x.example\n", "never-matches 1");
	assert_findings("rule a allow port 1-9 port 10-20\n", "never-matches 1");
	assert_findings("rule a allow user ann not user ann bob\n", "never-matches 1");
	/* A set that is large enough to be kept apart. */
	char text[2048] = "set many port { 22";

	for (int i = 0; i < 100; i++)
		snprintf(text + strlen(text), sizeof text - strlen(text), " %d", 1000 + 2 * i);
	snprintf(text + strlen(text), sizeof text - strlen(text), " }\nrule a allow port @many 80 port 22\n");
	assert_findings(text, "");
	assert_findings("rule a allow port 1 until 2026-11-19\n", "expired 1");
	assert_findings("rule a allow port 1 until 2026-11-20\n", "");
	assert_findings("rule a allow group g group h\n", "");
}

static void test_patterns_and_sidesteps(void **unused)
{
	(void)unused;
	assert_findings("rule a allow to regex \".*\"\n", "broad-regex 1");
	assert_findings("rule a allow\nset s regex { \"x\"\n\".+\" }\nrule b allow to regex @s\n", "shadowed 4, broad-regex 3");
	assert_findings("rule a allow to regex \".*\\.example\"\n", "");
	assert_findings("rule a deny to domain x.example\nrule b allow port 443\n", "sidestep 1");
	assert_findings("rule a deny to domain x.example\nrule b deny to regex \"y.*\"\nrule c allow user eve port 25\n"
			"rule d deny to domain z.example\nrule e allow port 443\n",
			"sidestep 1, sidestep 2, sidestep 4");
	assert_findings("rule a deny to domain x.example\nrule b allow port 443 by name\n", "");
	assert_findings("rule a deny to domain x.example\nrule n deny by address log alert\nrule b allow port 443\n",
			"");
	assert_findings("rule a deny to domain x.example\nrule b allow port 443 to cidr 192.0.2.0/24\n", "");
}

/* A rule opens no way past another that it has no request in common with. */
static void test_sidesteps_are_for_somebody(void **unused)
{
	static const struct {
		const char *deny, *allow;
		bool found;
	} cases[] = {
		{"user ann", "user bob", false},	 {"user ann bob", "user bob", true},
		{"user ann", "not user ann", false},	 {"not user ann", "user ann", false},
		{"not user ann", "user ann bob", true},	 {"group g", "not group g h", false},
		{"group g", "group h", true},		 {"group g h", "not group g", true},
		{"port 25", "port 80-90", false},	 {"port 25 85", "port 80-90", true},
		{"not port 25", "port 25", false},	 {"client 10.0.0.0/8", "client 192.0.2.0/24 2001:db8::/32", false},
		{"client 10.0.0.0/8", "client 10.1.2.3", true}, {"client ::/0", "client 10.0.0.0/8", false},
		{"client 2001:db8::1", "client 2001:db8::/32", true}, {"command connect", "command bind", false},
		{"method gssapi", "not method gssapi", false}, {"listener a", "listener b", false},
		{"listener a", "user bob", true},	 {"until 2026-01-01", "", false},
		{"", "until 2026-01-01", false},	 {"", "port 1 port 2", false},
	};

	(void)unused;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char text[256], got[256] = "";
		struct fixture f;

		snprintf(text, sizeof text, "rule a deny to domain x.example %s\nrule b allow %s\n", cases[i].deny, cases[i].allow);
		print_message("%s", text);
		fixture_open(&f, text);
		policy_diagnostics_free(&f.diagnostics);
		policy_find(f.tree, f.image, fixture_time(2026, 11, 20, 10, 0), &f.diagnostics);
		for (size_t k = 0; k < f.diagnostics.count; k++)
			snprintf(got + strlen(got), sizeof got - strlen(got), "%s ", f.diagnostics.items[k].code);
		assert_int_equal(strstr(got, "sidestep") != NULL, cases[i].found);
		fixture_close(&f);
	}
	assert_findings("rule a deny to domain x.example\nrule n deny by address client 10.0.0.0/8\nrule b allow port 443\n",
			"sidestep 1");
	assert_findings("rule a deny to domain x.example user ann\nrule b allow user bob\nrule c allow user ann\n", "sidestep 1");
}

static bool knows_staff(const char *group, void *arg)
{
	(void)arg;
	return strcmp(group, "staff") == 0;
}

static void test_groups_that_nobody_knows(void **unused)
{
	static const char text[] = "set g group { staff\n trainees }\nrule a allow group staff eng\nrule b allow not group eng "
				   "group @g\nrule c deny group \"odd one\"\nexpect deny user u group nobody to x.example\n";
	struct fixture f;

	(void)unused;
	fixture_open(&f, text);
	policy_diagnostics_free(&f.diagnostics);
	policy_find_groups(f.tree, knows_staff, NULL, &f.diagnostics);
	assert_int_equal(f.diagnostics.warnings, 3);
	for (size_t i = 0; i < 3; i++) {
		static const unsigned lines[] = {2, 3, 5}, columns[] = {2, 26, 19};

		assert_string_equal(f.diagnostics.items[i].code, "unknown-group");
		assert_int_equal(f.diagnostics.items[i].line, lines[i]);
		assert_int_equal(f.diagnostics.items[i].column, columns[i]);
	}
	fixture_close(&f);
}

static void test_many_rules_are_checked_in_time(void **unused)
{
	size_t room = 8000000, len = 0;
	char *text = malloc(room);

	(void)unused;
	for (int i = 0; i < 50000; i++)
		len += (size_t)snprintf(text + len, room - len,
					"rule r%d allow group g%d to domain .d%d.example port 443\n", i, i % 500, i);
	snprintf(text + len, room - len, "rule late allow group g7 to domain www.d7.example port 443\n");
	assert_findings(text, "shadowed 50001");
	free(text);
}

static size_t differences(const char *before, const char *after, char **text)
{
	struct fixture a, b;
	struct policy_differences count;

	fixture_open(&a, before);
	fixture_open(&b, after);
	struct policy_context ca = {.image = a.image, .now = fixture_time(2026, 11, 20, 10, 0)}, cb = ca;

	cb.image = b.image;
	*text = policy_diff(&ca, NULL, &cb, NULL, false, &count);
	fixture_close(&a);
	fixture_close(&b);
	return count.decided;
}

static void assert_differs(const char *before, const char *after, size_t count, const char *part)
{
	char *text;

	assert_int_equal(differences(before, after, &text), count);
	if (strstr(text, part) == NULL)
		fail_msg("'%s' is not in:\n%s", part, text);
	free(text);
}

static void test_differences_are_of_meaning(void **unused)
{
	(void)unused;
	assert_differs("rule a allow port 443\n", "# more words\nrule b allow port 443-443\n", 0, "");
	assert_differs("rule a allow user ann port 443\n", "rule a allow user ann bob port 443\n", 1,
		       "deny -> allow: user bob");
	assert_differs("set s domain { .a.example .b.example }\nrule a deny to domain @s\nrule b allow\n",
		       "set s domain { .b.example }\nrule a deny to domain @s\nrule b allow\n", 1, "to a.example");
	assert_differs(
		"rule a allow to cidr 10.0.0.0/8\n", "rule a allow to cidr 10.0.0.0/9\n", 1,
		"allow -> deny: user somebody client 192.0.2.77 listener main method password command connect to "
		"10.255.255.255");
	/* Who a new denial is for, another rule says. */
	assert_differs("rule a allow group staff port 443\n",
		       "rule no deny to domain .bad.example\nrule a allow group staff port 443\n", 1, "to bad.example");
	assert_differs("window w { mon-fri 08:00-18:00 }\nrule a allow port 1\n",
		       "window w { mon-fri 20:00-22:00 }\nrule a allow port 1\nrule b allow port 2 during w\n", 1,
		       "port 2 at \"Fri 2026-11-20 20:00 UTC\"");
}

/* ---- what is said differently ------------------------------------------------------------------------------------------- */

/* Everything that the language has, but for files. */
static const char everything[] =
	"tz Europe/Berlin\n"
	"answers all\n"
	"grace 30s\n"
	"nat64-prefix 2001:db8:64::/96\n"
	"set nets cidr { 10.0.0.0/8 fc00::/7 }\n"
	"set names domain { .a.example b.example }\n"
	"set odd regex { \"ads?[0-9]*\" }\n"
	"set ports port { 80 443 }\n"
	"set people user { ann bob }\n"
	"set staff group { eng hr }\n"
	"set lands country { KP IR }\n"
	"set systems asn { AS64500 AS64501 }\n"
	"window office tz Europe/Paris { mon-fri 08:00-18:00 except 2026-12-25 }\n"
	"window always { mon-sun 00:00-24:00 }\n"
	"rule one deny client 192.0.2.0/24 listener main to cidr @nets log alert\n"
	"rule two allow user ann to domain @names port @ports during office until 2027-12-31 owner ann ticket T-1 comment why\n"
	"rule three disabled allow group @staff command connect to country @lands internal\n"
	"rule four monitor allow claimed-user bob method socks4 to asn @systems from 2026-01-01\n"
	"rule five allow not user @people strength gssapi-integrity to regex @odd by name source 192.0.2.9\n"
	"rule six allow user carol to domain c.example port 22\n"
	"default deny\n"
	"expect deny user ann to 10.1.2.3 port 22 rule default\n"
	"expect allow user carol to c.example resolves 203.0.113.7 203.0.113.8 port 22 at \"2026-11-20 10:00\"\n";

/* -1: the text is no policy. */
static int said_differently(const char *before, const char *after)
{
	struct fixture a, b;
	size_t count = 0;
	int rc = -1;

	fixture_check(&a, before, strlen(before));
	fixture_check(&b, after, strlen(after));
	assert_int_equal(a.diagnostics.errors, 0);
	if (b.diagnostics.errors == 0) {
		json_decref(diff_said(a.tree, b.tree, &count));
		rc = (int)count;
	}
	fixture_close(&a);
	fixture_close(&b);
	return rc;
}

/* Every word of the policy left out, and replaced by every other: what is still a policy is never the same. */
static void test_no_word_changes_unnoticed(void **unused)
{
	static const char *const others[] = {"deny", "allow", "not", "any", "0s", "UTC", "443", "22", "22-23", "carol", "eng", "DE", "AS1",
					     "10.0.0.0/9", "203.0.113.9", ".c.example", "x.example", "@nets", "@names", "@ports", "@people",
					     "always", "udp", "bind", "gssapi", "password", "address", "monitor", "disabled", "internal",
					     "info", "sat", "09:00-10:00", "2026-12-24", "two", "seven", "T-2",
					     "gssapi-confidentiality", "\"port\"", "\"2026-11-20 11:00\""};
	char text[sizeof everything + 64];
	size_t policies = 0;

	(void)unused;
	for (size_t at = 0; at < sizeof everything - 1;) {
		size_t len = strcspn(everything + at, everything[at] == '"' ? "\n" : " \n");
		const char *end = everything[at] == '"' ? strchr(everything + at + 1, '"') : NULL;

		len = end != NULL ? (size_t)(end - everything - at) + 1 : len;
		for (size_t i = 0; i <= sizeof others / sizeof *others; i++) {
			const char *with = i == 0 ? "" : others[i - 1];

			if (strlen(with) == len && memcmp(with, everything + at, len) == 0)
				continue;
			snprintf(text, sizeof text, "%.*s%s%s", (int)at, everything, with, everything + at + len);
			int count = said_differently(everything, text);

			if (count == 0)
				fail_msg("no difference is told with '%s' in place of '%.*s'", with, (int)len, everything + at);
			policies += count > 0;
		}
		at += len;
		at += strspn(everything + at, " \n");
	}
	assert_true(policies > 500);
}

/* Lines left out, but for those that say what holds anyway; rules in another order. */
static void test_no_statement_changes_unnoticed(void **unused)
{
	char text[2 * sizeof everything];

	(void)unused;
	for (const char *line = everything; *line != '\0'; line = strchr(line, '\n') + 1) {
		const char *next = strchr(line, '\n') + 1, *behind = *next == '\0' ? next : strchr(next, '\n') + 1;
		bool is_default = strncmp(line, "default", 7) == 0;

		snprintf(text, sizeof text, "%.*s%s", (int)(line - everything), everything, next);
		int count = said_differently(everything, text);

		if (count >= 0 && (count == 0) != is_default)
			fail_msg("%d differences without %.*s", count, (int)(next - line), line);
		snprintf(text, sizeof text, "%.*s%.*s%.*s%s", (int)(line - everything), everything, (int)(behind - next), next,
			 (int)(next - line), line, behind);
		if (strncmp(line, "rule", 4) == 0 && strncmp(next, "rule", 4) == 0)
			assert_int_equal(said_differently(everything, text), 1);
		else
			assert_int_equal(said_differently(everything, text), 0);
	}
}

static void test_layout_says_nothing(void **unused)
{
	(void)unused;
	assert_int_equal(said_differently("rule a allow user ann bob port 443\ndefault deny\n",
					  "# a remark\nrule a   allow port 443 \\\n\tuser \"bob\" ann # another\n"),
			 0);
	assert_int_equal(said_differently("set s port { 1 2 }\nrule a allow port @s\ngrace 60s\n",
					  "grace 1m\nset s port {\n\t2 # two\n\t1\n}\n\nrule a allow port @s\nanswers any\ntz UTC\n"),
			 0);
}

static void test_what_is_said_differently_is_told(void **unused)
{
	struct fixture a, b;
	struct policy_differences count;

	(void)unused;
	fixture_open(&a, "grace 30s\nset s port { 1 2 3 }\nrule a allow port @s\nrule b deny port 9\n");
	fixture_open(&b, "set s port { 2 3 4 }\nrule b deny port 9 log alert\nrule a allow port @s\nexpect deny to 192.0.2.1 port 9\n");
	struct policy_context ca = {.image = a.image, .now = fixture_time(2026, 11, 20, 10, 0)}, cb = ca;

	cb.image = b.image;
	char *text = policy_diff(&ca, a.tree, &cb, b.tree, false, &count);

	assert_int_equal(count.said, 5);
	static const char *const parts[] = {"grace:\n    before: 30s\n    after:  0s\n",
					    "set s:\n    before: port, 3 values, here alone: 1\n    after:  port, 3 values, here alone: 4\n",
					    "rule b:\n    before: deny port 9\n    after:  deny port 9 log alert\n",
					    "expect:\n    before: (not there)\n    after:  deny port 9 to 192.0.2.1\n", "moved among the others"};

	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
		if (strstr(text, parts[i]) == NULL)
			fail_msg("'%s' is not in:\n%s", parts[i], text);
	free(text);
	fixture_close(&a);
	fixture_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shadowed_rules),
		cmocka_unit_test(test_what_is_not_proven_is_not_said),
		cmocka_unit_test(test_windows_are_compared_by_their_hours),
		cmocka_unit_test(test_rules_that_say_the_same_or_the_opposite),
		cmocka_unit_test(test_rules_that_change_nothing),
		cmocka_unit_test(test_rules_that_never_match),
		cmocka_unit_test(test_patterns_and_sidesteps),
		cmocka_unit_test(test_sidesteps_are_for_somebody),
		cmocka_unit_test(test_groups_that_nobody_knows),
		cmocka_unit_test(test_many_rules_are_checked_in_time),
		cmocka_unit_test(test_differences_are_of_meaning),
		cmocka_unit_test(test_no_word_changes_unnoticed),
		cmocka_unit_test(test_no_statement_changes_unnoticed),
		cmocka_unit_test(test_layout_says_nothing),
		cmocka_unit_test(test_what_is_said_differently_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
