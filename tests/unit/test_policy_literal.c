/* What a pattern demands: never what a match can do without, or a name would be spared a pattern that it matches. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/image.h"
#include "policy/literal.h"

static void add(char *got, size_t size, const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		char c = text[i] == LITERAL_BEGIN ? '^' : text[i] == LITERAL_END ? '$' : text[i];

		snprintf(got + strlen(got), size - strlen(got), "%c", c);
	}
}

/* Demands are told as "one|other more": one of two texts, and one more; ^ and $ are what stands around every name. */
static void assert_demands(const char *pattern, const char *wanted)
{
	static struct literal_demands out;
	char got[4096] = "";

	literal_read(pattern, strlen(pattern), &out);
	for (size_t d = 0; d < out.count; d++) {
		add(got, sizeof got, " ", d > 0);
		for (size_t i = 0; i < out.all[d].count; i++) {
			add(got, sizeof got, "|", i > 0);
			add(got, sizeof got, out.all[d].any[i].bytes, out.all[d].any[i].len);
		}
	}
	assert_string_equal(got, wanted);
}

static void test_texts(void **unused)
{
	(void)unused;
	assert_demands("abcd", "^abcd$");
	assert_demands("ABCDe", "^abcde$");
	assert_demands("^long$", "^long$");
	assert_demands(".*\\.test", ".test$");
	assert_demands(".*\\.de", ".de$");
	assert_demands("abcd+efgh", "^abcd efgh$");
	assert_demands("abc[^d]long\\dlong", "^abc long long$");
	assert_demands("[[:alpha:]-]abcd", "abcd$");
	assert_demands("(?i)abcd", "^abcd$");
	assert_demands("abcd{2}x*y.*", "^abcd");
	/* Longer texts are cut. */
	assert_demands("aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeee",
		       "^aaaaaaaaaabbbbbbbbbbccccccccccd dddddddddeeeeeeeeee$");
}

static void test_choices(void **unused)
{
	(void)unused;
	assert_demands("(?:one|two)long", "^onelong$|^twolong$");
	assert_demands("(www\\.)?foo\\.(com|net)", "^www.foo.com$|^www.foo.net$|^foo.com$|^foo.net$");
	assert_demands("one|three", "^one$|^three$");
	assert_demands("^one$|^three$", "^one$|^three$");
	assert_demands("ads?[0-9]*\\.x", "");
	assert_demands("wads?[0-9]*\\.xy", "^wads|^wad .xy$");
	assert_demands("x[ab]yz.*", "^xayz|^xbyz");
	/* Some alternative demands nothing, or nothing long enough. */
	assert_demands("(long.*|ab).*", "");
	assert_demands("(long.*|other.*)", "long|other");
	assert_demands("(a|b)+xyz\\.b[0-9]", "xyz.b");
}

static void test_nothing(void **unused)
{
	static const char *const none[] = {
		"",	     "ab[c-f]", "(abcd)*",   "(?!abcd)x",      "\\Qabcd",	"\\x41bcd",	 "(*UCP)abcd",
		"a.b.c.d",   "(abcd",	"abcd)",     "[\\c]abcd]efgh", "[\\xabcd]efgh", "(?=abcd).*",	 "(?#abcd)",
		"[\\Q]abcd", "[abcd",	"\\1234abc", "(?|abcd|efgh)",  "abcd{,3}x",	"[[:alpha]abcd", "abcd{2x}"};

	(void)unused;
	for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
		assert_demands(none[i], "");
}

/* ---- random patterns -----------------------------------------------------------------------------------------------
 */

static uint64_t state = 1;

static unsigned below(unsigned n)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(state >> 33) % n;
}

static void random_text(char *out, const char *const *parts, unsigned nparts, unsigned most)
{
	out[0] = '\0';
	for (unsigned n = below(most + 1); n > 0; n--)
		strcat(out, parts[below(nparts)]);
}

static bool holds(const struct literal_name *name, const struct literal_demand *d)
{
	for (size_t i = 0; i < d->count; i++)
		if (memmem(name->text, name->len, d->any[i].bytes, d->any[i].len) != NULL)
			return true;
	return false;
}

/* Few bytes, so that many random names match many random patterns. */
static void test_what_matches_holds_the_demands(void **unused)
{
	static const char *const parts[] = {
		"a",	 "b",	 "ab",	"ba", "abab",	   "aabb", "bab", ".*",	   "(ab|ba)", "\\.", ".",    "[ab]",
		"[^a]",	 "(",	 "(?:", ")",  ")",	   "|",	   "?",	  "*",	   "+",	      "^",   "$",    "{2}",
		"{0,1}", "{1,}", "\\w", "A",  "aab",	   ")?",   ")*",  "+?",	   "*+",      "\\b", "\\c",  "\\c]",
		"\\d",	 "]",	 "[",	"[]", "[:alpha:]", "\\Q",  "\\E", "\\x61", "[a-b]",   "b?",  "(a|b)"};
	static const char *const bytes[] = {"a", "b", "ab", ".", "ba", "aab"};
	static struct literal_demands demands;
	size_t matches = 0, demanding = 0;

	(void)unused;
	for (unsigned n = 0; n < 100000; n++) {
		char pattern[256];
		struct err why;
		size_t offset;

		random_text(pattern, parts, sizeof parts / sizeof parts[0], 7);
		pcre2_code *code = image_regex_compile(pattern, strlen(pattern), &offset, &why);

		if (code == NULL)
			continue;
		pcre2_match_data *data = pcre2_match_data_create(1, NULL);

		literal_read(pattern, strlen(pattern), &demands);
		for (unsigned k = 0; k < 40; k++) {
			struct literal_name read;
			struct name name;

			random_text(name.text, bytes, sizeof bytes / sizeof bytes[0], 8);
			name.len = (uint8_t)strlen(name.text);
			if (pcre2_match(code, (PCRE2_SPTR)name.text, name.len, 0, 0, data, NULL) < 0)
				continue;
			matches++;
			demanding += demands.count > 0;
			literal_name_read(&name, &read);
			for (size_t d = 0; d < demands.count; d++)
				if (!holds(&read, &demands.all[d]))
					fail_msg("%s matches %s, without demand %zu", pattern, name.text, d);
		}
		pcre2_match_data_free(data);
		pcre2_code_free(code);
	}
	/* The test has seen what it is about. */
	assert_true(matches > 10000);
	assert_true(demanding > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_texts),
		cmocka_unit_test(test_choices),
		cmocka_unit_test(test_nothing),
		cmocka_unit_test(test_what_matches_holds_the_demands),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
