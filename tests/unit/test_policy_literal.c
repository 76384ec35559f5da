/* Which bytes a pattern demands: those of no pattern too many, or a name would be spared a pattern that it matches. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "policy/literal.h"

static void assert_literals(const char *pattern, const char *wanted)
{
	uint32_t out[LITERALS_MAX];
	char got[512] = "";
	size_t n = literal_read(pattern, strlen(pattern), out);

	for (size_t i = 0; i < n; i++)
		snprintf(got + strlen(got), sizeof got - strlen(got), "%s%c%c%c%c", i == 0 ? "" : " ",
			 (int)(out[i] >> 24), (int)(out[i] >> 16 & 255), (int)(out[i] >> 8 & 255), (int)(out[i] & 255));
	assert_string_equal(got, wanted);
}

static void test_what_is_demanded(void **unused)
{
	(void)unused;
	assert_literals("abcd", "abcd");
	assert_literals("ABCDe", "abcd bcde");
	assert_literals(".*\\.test", ".tes test");
	assert_literals("(a|b)+xyz\\.b[0-9]", "xyz. yz.b");
	assert_literals("abcd+efgh", "abcd efgh");
	assert_literals("(?:one|two)long", "long");
	assert_literals("^long$", "long");
	assert_literals("a\\dlong", "long");
}

static void test_what_is_not(void **unused)
{
	static const char *const none[] = {
		"",	      "abc",	    "abcd?",	 "abcd*",	    "abcd{0,1}", "abc[d]",
		"abcd|efgh",  "(abcd)",	    "(abcd)?",	 "(?i)abcd",	    "(?!abcd)x", "\\Qabcd",
		"\\x41bcd",   "(*UCP)abcd", "a.b.c.d",	 "[[:alpha:]]abcd", "(abcd",	 "abcd)",
		"(?=abcd).*", "(?#abcd)",   "[\\Q]abcd", "[abcd",	    "\\1234abc", "(?|abcd|efgh)"};

	(void)unused;
	for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
		assert_literals(none[i], "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_demanded),
		cmocka_unit_test(test_what_is_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
