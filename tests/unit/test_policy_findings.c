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
	assert_findings("window w { mon }\nwindow v { mon }\nrule a allow during w\nrule b allow during v port 1\n",
			"");
}

static void test_rules_that_say_the_same_or_the_opposite(void **unused)
{
	(void)unused;
	assert_findings("rule a allow group g port 443\nrule b allow port 443 group g log notice\n",
			"duplicate-rule 2");
	assert_findings("rule a deny user eve log alert\nrule b allow user eve\n", "contradiction 2");
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
	assert_findings("rule a allow port 1 until 2026-11-19\n", "expired 1");
	assert_findings("rule a allow port 1 until 2026-11-20\n", "");
	assert_findings("rule a allow group g group h\n", "");
}

static void test_patterns_and_sidesteps(void **unused)
{
	(void)unused;
	assert_findings("rule a allow to regex \".*\"\n", "broad-regex 0");
	assert_findings("rule a allow to regex \".*\\.example\"\n", "");
	assert_findings("rule a deny to domain x.example\nrule b allow port 443\n", "sidestep 1");
	assert_findings("rule a deny to domain x.example\nrule b allow port 443 by name\n", "");
	assert_findings("rule a deny to domain x.example\nrule n deny by address log alert\nrule b allow port 443\n",
			"");
	assert_findings("rule a deny to domain x.example\nrule b allow port 443 to cidr 192.0.2.0/24\n", "");
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
	size_t count;

	fixture_open(&a, before);
	fixture_open(&b, after);
	struct policy_context ca = {.image = a.image, .now = fixture_time(2026, 11, 20, 10, 0)}, cb = ca;

	cb.image = b.image;
	*text = policy_diff(&ca, &cb, false, &count);
	fixture_close(&a);
	fixture_close(&b);
	return count;
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shadowed_rules),
		cmocka_unit_test(test_what_is_not_proven_is_not_said),
		cmocka_unit_test(test_rules_that_say_the_same_or_the_opposite),
		cmocka_unit_test(test_rules_that_change_nothing),
		cmocka_unit_test(test_rules_that_never_match),
		cmocka_unit_test(test_patterns_and_sidesteps),
		cmocka_unit_test(test_many_rules_are_checked_in_time),
		cmocka_unit_test(test_differences_are_of_meaning),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
