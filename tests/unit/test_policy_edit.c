/* Editing a policy's text: what an edit does not name stays byte for byte, and an edit is undone by its opposite.  Policies are
 * random in what they say and in how they are laid out; POLICY_EDITS and POLICY_SEED choose how many and which. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/ast.h"
#include "policy/edit.h"
#include "policy/geo_priv.h"
#include "policy/policy.h"
#include "tests/unit/policy_fixture.h"

/* ---- chance ---- */

static uint64_t state;

static size_t below(size_t n)
{
	uint64_t z = state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return (size_t)((z ^ z >> 31) % n);
}

static bool one_in(size_t n)
{
	return below(n) == 0;
}

/* ---- a policy and its files ---- */

#define TEXT_MAX 20000

struct files {
	char own[TEXT_MAX], included[TEXT_MAX], list[TEXT_MAX];
};

static int provide(void *arg, const char *from, const char *path, char **bytes, size_t *len, char **name, struct err *why)
{
	const struct files *f = arg;
	const char *text = strcmp(path, "included") == 0 ? f->included : f->list;

	(void)from;
	(void)why;
	*bytes = strdup(text);
	*len = strlen(text);
	*name = strdup(path);
	return 0;
}

static struct policy_tree *parse(struct files *f)
{
	struct policy_diagnostics d = {0};
	struct policy_provider provider = {provide, f};
	struct policy_tree *t = policy_parse_with("own", f->own, strlen(f->own), &provider, &d);

	if (d.errors > 0) {
		char *said = policy_diagnostic_format(&d.items[0]);

		fail_msg("%s\n----\n%s\n----\n%s", said, f->own, f->included);
	}
	policy_diagnostics_free(&d);
	return t;
}

static void apply(struct files *f, struct policy_edit *e)
{
	size_t len;
	char *text = edit_text(e, NULL, &len);

	if (text != NULL) {
		assert_true(len < TEXT_MAX && strlen(text) == len);
		strcpy(f->own, text);
		free(text);
	}
	for (const struct ast_source *s = e->tree->sources; s != NULL; s = s->next) {
		text = edit_text(e, s, &len);
		if (text == NULL)
			continue;
		assert_true(len < TEXT_MAX);
		strcpy(strcmp(s->name, "included") == 0 ? f->included : f->list, text);
		free(text);
	}
	edit_clear(e);
}

static const char *eol = "\n";

static void say(char *out, const char *format, ...)
{
	size_t used = strlen(out);
	va_list ap;

	va_start(ap, format);
	vsnprintf(out + used, TEXT_MAX - used, format, ap);
	va_end(ap);
}

static void end_line(char *out)
{
	if (one_in(6))
		say(out, "%s# behind", one_in(2) ? "  " : "\t");
	say(out, "%s%s", one_in(8) ? " " : "", eol);
}

/* A text whose last line does not end. */
static void open_end(char *out)
{
	size_t len = strlen(out);

	if (len > 0 && out[len - 1] == '\n')
		out[--len] = '\0';
	if (len > 0 && out[len - 1] == '\r')
		out[--len] = '\0';
}

static void say_layout(char *out)
{
	while (one_in(3))
		say(out, "%s%s", one_in(4) ? "  " : "", eol);
	while (one_in(3))
		say(out, "%s# remark %zu%s%s", one_in(5) ? "\t" : "", below(1000), eol, one_in(4) ? eol : "");
}

static void say_rule(char *out, size_t number)
{
	say_layout(out);
	say(out, "%srule r%zu%s%s %s", one_in(8) ? "  " : "", number, one_in(5) ? " disabled" : "", one_in(6) ? " monitor" : "",
	    one_in(2) ? "allow" : "deny");
	if (one_in(2))
		say(out, " user ann \"b c\"");
	if (one_in(3))
		say(out, "%s to domain .x%zu.example", one_in(3) ? " \\\n\t" : " ", number);
	if (one_in(5))
		say(out, " until 2027-01-%02zu", 1 + below(28));
	end_line(out);
}

/* Names in order or not; one line or many; remarks in between. */
static void say_set(char *out, size_t number)
{
	size_t n = below(6), step = one_in(2) ? 1 : 7;
	bool lines = one_in(2);

	say_layout(out);
	say(out, "set s%zu domain {%s", number, n > 0 && !lines ? " " : "");
	if (lines)
		say(out, "%s%s", one_in(5) ? " # values" : "", eol);
	for (size_t i = 0; i < n; i++) {
		if (lines && one_in(6))
			say(out, "\t# within%s", eol);
		say(out, "%sn%zu.example%s", lines ? "\t" : "", (i * step * 3) % 11, lines ? "" : " ");
		if (lines)
			end_line(out);
	}
	say(out, "}");
	end_line(out);
}

static void say_entries(char *out)
{
	size_t step = one_in(2) ? 1 : 7;

	for (size_t i = 0, n = below(8); i < n; i++) {
		if (one_in(5))
			say(out, "# part%s", eol);
		say(out, "n%zu.example", (i * step * 3) % 11);
		end_line(out);
	}
	if (one_in(3))
		open_end(out);
}

static void make(struct files *f)
{
	size_t number = 0;

	*f = (struct files){0};
	eol = one_in(5) ? "\r\n" : "\n";
	for (size_t n = below(3); n > 0; n--)
		say_set(f->own, n);
	say_layout(f->own);
	say(f->own, "set listed domain file \"list\"");
	end_line(f->own);
	say_layout(f->own);
	say(f->own, "window w { mon-fri 08:00-18:00 }");
	end_line(f->own);
	for (size_t n = below(5); n > 0; n--)
		say_rule(f->own, number++);
	if (one_in(2)) {
		for (size_t n = below(4); n > 0; n--)
			say_rule(f->included, number++);
		say_layout(f->included);
		say_layout(f->own);
		say(f->own, "include included");
		end_line(f->own);
	}
	for (size_t n = 1 + below(4); n > 0; n--)
		say_rule(f->own, number++);
	if (one_in(2)) {
		say_layout(f->own);
		say(f->own, "default deny%s", eol);
	}
	say_layout(f->own);
	if (one_in(4))
		open_end(f->own);
	say_entries(f->list);
}

/* ---- what must hold ---- */

static const struct ast_statement *nth_rule(const struct policy_tree *t, size_t n)
{
	for (;;)
		for (const struct ast_statement *s = t->first; s != NULL; s = s->next)
			if (s->kind == AST_RULE && n-- == 0)
				return s;
}

static void same(const struct files *a, const struct files *b, const char *what)
{
	if (strcmp(a->own, b->own) == 0 && strcmp(a->included, b->included) == 0 && strcmp(a->list, b->list) == 0)
		return;
	fprintf(stderr, "%s\n---- before\n%s----\n%s----\n%s\n---- after\n%s----\n%s----\n%s", what, a->own, a->included, a->list, b->own,
		b->included, b->list);
	fail();
}

/* All lines that are not empty, of the policy and its files, without those of the rule and the remarks above it. */
static void rest_of(struct files *f, const char *rule, char *out)
{
	struct policy_tree *t = parse(f);
	const struct ast_statement *s = ast_find(t, AST_RULE, rule);
	const char *texts[] = {f->own, f->included, f->list};
	bool included = s != NULL && s->at.source != NULL;

	out[0] = '\0';
	for (size_t i = 0; i < 3; i++) {
		size_t first = 0, end = 0;

		if (s != NULL && i == (included ? 1 : 0)) {
			const char *text = texts[i];

			end = s->end;
			for (first = s->at.offset; first > 0 && text[first - 1] != '\n';)
				first--;
			while (first > 0) {
				size_t above = first - 1;

				while (above > 0 && text[above - 1] != '\n')
					above--;
				if (text[above + strspn(text + above, " \t")] != '#')
					break;
				first = above;
			}
		}
		for (size_t at = 0; texts[i][at] != '\0';) {
			size_t len = strcspn(texts[i] + at, "\n");

			if ((at < first || at >= end) && strspn(texts[i] + at, " \t\r") < len)
				say(out, "%.*s\n", (int)len - (texts[i][at + len - 1] == '\r'), texts[i] + at);
			at += len + (texts[i][at + len] == '\n');
		}
		say(out, "====\n");
	}
	policy_tree_free(t);
}

static void insert(struct files *f, const char *text, enum edit_where where, const char *anchor)
{
	struct policy_tree *t = parse(f);
	struct policy_edit e;

	edit_init(&e, t);
	edit_insert(&e, text, AST_RULE, where, anchor == NULL ? NULL : ast_find(t, AST_RULE, anchor));
	apply(f, &e);
	policy_tree_free(t);
}

static void remove_rule(struct files *f, const char *name)
{
	struct policy_tree *t = parse(f);
	struct policy_edit e;

	edit_init(&e, t);
	assert_non_null(ast_find(t, AST_RULE, name));
	edit_remove(&e, ast_find(t, AST_RULE, name));
	apply(f, &e);
	policy_tree_free(t);
}

static void move(struct files *f, const char *name, enum edit_where where, const char *anchor)
{
	struct policy_tree *t = parse(f);
	struct policy_edit e;

	edit_init(&e, t);
	edit_move(&e, ast_find(t, AST_RULE, name), where, ast_find(t, AST_RULE, anchor));
	apply(f, &e);
	policy_tree_free(t);
}

static size_t rules_of(struct files *f, char names[64][32])
{
	struct policy_tree *t = parse(f);
	size_t n = 0;

	for (const struct ast_statement *s = t->first; s != NULL; s = s->next)
		if (s->kind == AST_RULE)
			snprintf(names[n++], 32, "%s", s->name->text);
	policy_tree_free(t);
	return n;
}

static void try_insert(const struct files *f)
{
	static char before[3 * TEXT_MAX], after[3 * TEXT_MAX];
	static struct files g;
	char names[64][32];
	enum edit_where where = (enum edit_where)below(4);

	g = *f;
	size_t n = rules_of(&g, names);

	rest_of(&g, "new", before);
	insert(&g, "rule new deny user eve", where, names[below(n)]);
	rest_of(&g, "new", after);
	assert_string_equal(before, after);
	remove_rule(&g, "new");
	same(f, &g, "insert and remove");
}

static void try_move(const struct files *f)
{
	static char before[3 * TEXT_MAX], after[3 * TEXT_MAX];
	static struct files g;
	char names[64][32], now[64][32];
	enum edit_where where = one_in(2) ? EDIT_BEFORE : EDIT_AFTER;

	g = *f;
	size_t n = rules_of(&g, names), from = below(n), to = below(n), at = 0;

	if (from == to)
		return;
	rest_of(&g, names[from], before);
	move(&g, names[from], where, names[to]);
	assert_int_equal(rules_of(&g, now), n);
	while (strcmp(now[at], names[to]) != 0)
		at++;
	assert_string_equal(now[where == EDIT_BEFORE ? at - 1 : at + 1], names[from]);
	rest_of(&g, names[from], after);
	assert_string_equal(before, after);
	/* Back where it was: all but empty lines is as before. */
	if (from + 1 < n)
		move(&g, names[from], EDIT_BEFORE, names[from + 1]);
	else
		move(&g, names[from], EDIT_AFTER, names[from - 1]);
	rest_of(&g, names[from], after);
	assert_string_equal(before, after);
}

static void try_enable(const struct files *f)
{
	static struct files g;
	struct policy_tree *t, *u;
	struct policy_edit e;

	g = *f;
	t = parse(&g);
	const struct ast_statement *s = nth_rule(t, below(12));
	bool was = s->disabled.length == 0;

	edit_init(&e, t);
	assert_false(edit_enable(&e, s, was));
	assert_true(edit_enable(&e, s, !was));
	apply(&g, &e);
	u = parse(&g);
	assert_int_equal(ast_is_rule(ast_find(u, AST_RULE, s->name->text)), !was);
	edit_init(&e, u);
	assert_true(edit_enable(&e, ast_find(u, AST_RULE, s->name->text), was));
	apply(&g, &e);
	same(f, &g, "disable and enable");
	policy_tree_free(t);
	policy_tree_free(u);
}

static void try_replace(const struct files *f)
{
	static char before[3 * TEXT_MAX], after[3 * TEXT_MAX];
	static struct files g;
	char old[512], text[600];
	struct policy_tree *t, *u;
	struct policy_edit e;

	g = *f;
	t = parse(&g);
	const struct ast_statement *s = nth_rule(t, below(12));
	const char *source = s->at.source == NULL ? g.own : g.included;

	snprintf(old, sizeof old, "%.*s", (int)(s->last - s->at.offset), source + s->at.offset);
	snprintf(text, sizeof text, "rule %s deny user eve", s->name->text);
	rest_of(&g, s->name->text, before);
	edit_init(&e, t);
	edit_replace(&e, s, text);
	apply(&g, &e);
	rest_of(&g, s->name->text, after);
	assert_string_equal(before, after);
	u = parse(&g);
	edit_init(&e, u);
	edit_replace(&e, ast_find(u, AST_RULE, s->name->text), old);
	apply(&g, &e);
	same(f, &g, "replace and replace back");
	policy_tree_free(t);
	policy_tree_free(u);
}

static void try_set(const struct files *f)
{
	static const char *const sets[] = {"listed", "s1", "s2"};
	static struct files g;
	const char *values[] = {"a.example", "n5.example", "zz.example", "n5.example"};
	const char *missing, *name = sets[below(3)];
	struct policy_tree *t, *u;
	struct policy_edit e;
	size_t first = below(3), n = 1 + below(4 - first);

	g = *f;
	t = parse(&g);
	const struct ast_statement *s = ast_find(t, AST_SET, name);

	if (s == NULL || edit_set_has(s, "n5.example")) {
		policy_tree_free(t);
		return;
	}
	edit_init(&e, t);
	size_t added = edit_set_add(&e, s, values + first, n);

	apply(&g, &e);
	u = parse(&g);
	s = ast_find(u, AST_SET, name);
	for (size_t i = first; i < first + n; i++)
		assert_true(edit_set_has(s, values[i]));
	edit_init(&e, u);
	assert_int_equal(edit_set_remove(&e, s, values + first, n, &missing), 0);
	apply(&g, &e);
	assert_true(added > 0);
	same(f, &g, "add to a set and remove");
	policy_tree_free(t);
	policy_tree_free(u);
}

static void test_random_edits(void **unused)
{
	const char *edits = getenv("POLICY_EDITS"), *seed = getenv("POLICY_SEED");
	size_t n = edits != NULL ? strtoul(edits, NULL, 10) : 4000;
	static struct files f;

	(void)unused;
	for (size_t i = 0; i < n; i++) {
		state = (seed != NULL ? strtoull(seed, NULL, 10) : 7) + i * 1000003;
		make(&f);
		try_insert(&f);
		try_move(&f);
		try_enable(&f);
		try_replace(&f);
		try_set(&f);
	}
}

/* ---- by hand ---- */

static void edited(const char *before, const char *after, void (*edit)(struct policy_edit *e, const struct policy_tree *t))
{
	struct policy_diagnostics d = {0};
	struct policy_tree *t = policy_parse("own", before, strlen(before), &d);
	struct policy_edit e;
	size_t len;

	assert_int_equal(d.errors, 0);
	edit_init(&e, t);
	edit(&e, t);
	char *text = edit_text(&e, NULL, &len);

	assert_non_null(text);
	assert_string_equal(text, after);
	free(text);
	edit_clear(&e);
	policy_tree_free(t);
}

static void move_c_first(struct policy_edit *e, const struct policy_tree *t)
{
	edit_move(e, ast_find(t, AST_RULE, "c"), EDIT_BEFORE, ast_find(t, AST_RULE, "a"));
}

static void remove_a(struct policy_edit *e, const struct policy_tree *t)
{
	edit_remove(e, ast_find(t, AST_RULE, "a"));
}

static void add_last(struct policy_edit *e, const struct policy_tree *t)
{
	(void)t;
	edit_insert(e, "rule z deny", AST_RULE, EDIT_LAST, NULL);
}

static void end_a(struct policy_edit *e, const struct policy_tree *t)
{
	edit_until(e, ast_find(t, AST_RULE, "a"), "2027-01-31");
}

static void add_values(struct policy_edit *e, const struct policy_tree *t)
{
	const char *values[] = {"x y", "b", "rule", "b"};

	assert_int_equal(edit_set_add(e, ast_find(t, AST_SET, "s"), values, 4), 3);
}

static void remove_values(struct policy_edit *e, const struct policy_tree *t)
{
	const char *values[] = {"b", "c"};
	const char *missing;

	assert_int_equal(edit_set_remove(e, ast_find(t, AST_SET, "s"), values, 2, &missing), 0);
}

static void add_holiday(struct policy_edit *e, const struct policy_tree *t)
{
	edit_except(e, ast_find(t, AST_WINDOW, "w"), "2026-12-25");
}

/* What still matches a value of the set s that is removed with others; "": nothing. */
static void covered(const char *policy, const char *removed[], const char *by, const char *in)
{
	struct policy_diagnostics d = {0};
	struct policy_tree *t = policy_parse("own", policy, strlen(policy), &d);
	const struct ast_statement *held = NULL;
	char out[AST_ENTRY_MAX + 1] = "";
	size_t n = 0;

	while (removed[n] != NULL)
		n++;
	assert_int_equal(d.errors, 0);
	bool is = edit_set_covers(t, ast_find(t, AST_SET, "s"), removed, n, 0, out, &held);

	assert_int_equal(is, by[0] != '\0');
	if (is) {
		assert_string_equal(out, by);
		assert_string_equal(held->name->text, in);
	}
	policy_tree_free(t);
}

#define REMOVED(...) ((const char *[]){__VA_ARGS__, NULL})

static void test_covers(void **unused)
{
	static const char cidrs[] = "set s cidr { 10.0.0.0/8 10.1.0.0/16 10.1.2.3 192.0.2.1-192.0.2.9 2001:db8::/32 }\n";
	static const char domains[] = "set s domain { .a.example *.b.example c.example x.a.example x.b.example x.c.example b.example }\n";
	static const char ports[] = "set s port { 80 1-100 443 }\n";
	static const char nested[] = "set t domain { @u }\nset u domain { .example }\nset s domain { a.example @t }\n"
				     "set v domain { @s }\n";

	(void)unused;
	covered(cidrs, REMOVED("10.1.2.3"), "10.0.0.0/8", "s");
	covered(cidrs, REMOVED("10.1.2.3", "10.0.0.0-10.255.255.255"), "10.1.0.0/16", "s");
	covered(cidrs, REMOVED("10.1.2.3", "10.0.0.0/8", "10.1.0.0/16"), "", "");
	covered(cidrs, REMOVED("10.0.0.0/8"), "", "");
	covered(cidrs, REMOVED("192.0.2.4/31"), "192.0.2.1-192.0.2.9", "s");
	covered(cidrs, REMOVED("192.0.2.8/30"), "", "");
	covered(cidrs, REMOVED("2001:db8::1"), "2001:db8::/32", "s");
	covered(cidrs, REMOVED("2001:db9::1"), "", "");
	covered(domains, REMOVED("x.a.example"), ".a.example", "s");
	covered(domains, REMOVED("x.b.example"), "*.b.example", "s");
	covered(domains, REMOVED("b.example"), "", "");
	covered(domains, REMOVED("x.c.example"), "", "");
	covered(domains, REMOVED("xa.example"), "", "");
	covered(domains, REMOVED("*.a.example"), ".a.example", "s");
	covered(domains, REMOVED(".b.example"), "", "");
	covered(ports, REMOVED("80"), "1-100", "s");
	covered(ports, REMOVED("443"), "", "");
	covered(nested, REMOVED("a.example"), ".example", "u");
	covered(nested, REMOVED("a.example", "@t"), "", "");
	covered("set s group { staff }\n", REMOVED("staff"), "", "");
}

/* Each set is looked into once, by however many ways it is reached: here there are 5 to the 20th, and the cover is at the end of all. */
static void test_covers_through_many_ways(void **unused)
{
	enum { LEVELS = 20, WIDE = 5 };
	static char text[LEVELS * WIDE * 80 + 200];
	size_t used = 0;

	(void)unused;
	for (int level = 0; level < LEVELS; level++)
		for (int i = 0; i < WIDE; i++) {
			used += (size_t)sprintf(text + used, "set l%d-%d domain {", level, i);
			for (int k = 0; k < WIDE && level + 1 < LEVELS; k++)
				used += (size_t)sprintf(text + used, " @l%d-%d", level + 1, k);
			used += (size_t)sprintf(text + used, " %s }\n", level + 1 < LEVELS ? "" : i + 1 < WIDE ? "b.example" : ".a.example");
		}
	sprintf(text + used, "set s domain { x.a.example gone.example @l0-0 @l0-1 }\n");
	covered(text, REMOVED("gone.example"), "", "");
	covered(text, REMOVED("x.a.example"), ".a.example", "l19-4");
}

static void test_texts(void **unused)
{
	(void)unused;
	/* A remark goes with what it stands above; one that stands apart does not. */
	edited("# head\n\n# about a\nrule a deny\nrule b deny\n\n# about c\nrule  c  deny   # behind c\n",
	       "# head\n\n# about c\nrule  c  deny   # behind c\n\n# about a\nrule a deny\nrule b deny\n", move_c_first);
	edited("rule a deny\n\nrule b deny\n", "\nrule b deny\n", remove_a);
	edited("rule b deny\n\nrule a deny\n\nrule c deny\n", "rule b deny\n\nrule c deny\n", remove_a);
	edited("rule b deny\n\nrule a deny\nrule c deny\n", "rule b deny\n\nrule c deny\n", remove_a);
	edited("rule b deny\nrule a deny", "rule b deny", remove_a);
	/* Behind the rules, above what follows them. */
	edited("rule b deny\n\ndefault deny\nexpect deny to x.example\n", "rule b deny\nrule z deny\n\ndefault deny\nexpect deny to x.example\n",
	       add_last);
	edited("", "rule z deny\n", add_last);
	edited("# nothing yet\n", "# nothing yet\n\nrule z deny\n", add_last);
	edited("tz UTC", "tz UTC\nrule z deny", add_last);
	edited("rule a deny until 2026-01-01 port 22 # ever\n", "rule a deny until 2027-01-31 port 22 # ever\n", end_a);
	edited("rule a deny \\\n\tport 22   # ever\n", "rule a deny \\\n\tport 22 until 2027-01-31   # ever\n", end_a);
	/* In order stays in order; what could be taken for a word is quoted. */
	edited("set s user { a c zed }\n", "set s user { a b c \"rule\" \"x y\" zed }\n", add_values);
	edited("set s user {\n\ta  # first\n\tc\n}\n", "set s user {\n\ta  # first\n\tb\n\tc\n\t\"rule\"\n\t\"x y\"\n}\n", add_values);
	edited("set s user { z a }\n", "set s user { z a b \"rule\" \"x y\" }\n", add_values);
	edited("set s user {}\n", "set s user {b \"rule\" \"x y\"}\n", add_values);
	edited("set s user { a b c d }\n", "set s user { a d }\n", remove_values);
	edited("set s user { a b c }\n", "set s user { a }\n", remove_values);
	edited("set s user {\n\ta\n\tb # gone\n\tc\n}\n", "set s user {\n\ta\n}\n", remove_values);
	edited("window w { mon }\n", "window w { mon except 2026-12-25 }\n", add_holiday);
	edited("window w { mon except 2026-12-24 }\n", "window w { mon except 2026-12-24 2026-12-25 }\n", add_holiday);
}

/* ---- what sets mean ---- */

/* Values of each kind of set that have nothing in common, in several spellings, and a request for each that tells whether it is in
 * force. */
#define MEANINGS 4

static const struct kind {
	const char *word, *condition;
	struct meaning {
		const char *probe, *spellings[5];
	} meanings[MEANINGS];
} kinds[] = {
	{"cidr",
	 "to cidr",
	 {{"203.0.113.7", {"203.0.113.7", "203.0.113.7/32", "203.0.113.7-203.0.113.7"}},
	  {"198.51.100.9", {"198.51.100.0/24", "198.51.100.0-198.51.100.255"}},
	  {"2001:db9::1", {"2001:db9::/32", "2001:0DB9::/32", "2001:db9::-2001:db9:ffff:ffff:ffff:ffff:ffff:ffff"}},
	  {"2001:db7::1", {"2001:db7::1", "2001:DB7:0::1/128", "2001:db7::1-2001:db7::1"}}}},
	{"domain",
	 "to domain",
	 {{"example.com", {"example.com", "Example.COM", "example.com.", "eXample.com."}},
	  {"a.example.net", {".example.net", ".EXAMPLE.net", ".example.net."}},
	  {"a.example.org", {"*.example.org", "*.Example.org."}},
	  {"xn--bcher-kva.test", {"b\u00fccher.test", "xn--bcher-kva.test", "XN--BCHER-KVA.test", "B\u00fccher.test."}}}},
	{"regex", "to regex", {{"one.test", {"^one\\.test$"}}, {"two.test", {"two\\..*"}}, {"three.test", {"th.*"}}, {"four.test", {"[f][a-z.]+"}}}},
	{"port",
	 "port",
	 {{"22", {"22", "22-22", "0022", "022-22"}}, {"80", {"80-90", "080-0090"}}, {"443", {"443", "0443"}}, {"65535", {"65535", "65535-65535"}}}},
	{"user", "user", {{"ann", {"ann"}}, {"Ann", {"Ann"}}, {"@ann", {"@ann"}}, {"a b", {"a b"}}}},
	{"group", "group", {{"ann", {"ann"}}, {"Ann", {"Ann"}}, {"@ann", {"@ann"}}, {"a#b", {"a#b"}}}},
	{"country", "to country", {{"192.0.2.1", {"DE", "de", "De"}}, {"192.0.3.1", {"fr", "FR"}}, {"192.0.4.1", {"it", "iT"}}, {"192.0.5.1", {"unknown"}}}},
	{"asn",
	 "to asn",
	 {{"192.0.2.1", {"64500", "AS64500", "as64500", "AS0064500"}}, {"192.0.3.1", {"AS64501", "064501"}}, {"192.0.4.1", {"64502"}}, {"192.0.5.1", {"unknown"}}}},
};

static const struct geo_step4 countries4[] = {{.from = 0},
					      {.from = 0xc0000200, .value = 'D' << 8 | 'E'},
					      {.from = 0xc0000300, .value = 'F' << 8 | 'R'},
					      {.from = 0xc0000400, .value = 'I' << 8 | 'T'},
					      {.from = 0xc0000500}};
static const struct geo_step4 numbers4[] = {
	{.from = 0}, {.from = 0xc0000200, .value = 64500}, {.from = 0xc0000300, .value = 64501}, {.from = 0xc0000400, .value = 64502}, {.from = 0xc0000500}};
static const struct geo_step6 nowhere6[] = {{.value = 0}};
static const struct policy_geo countries = {.steps4 = countries4, .count4 = 5, .steps6 = nowhere6, .count6 = 1};
static const struct policy_geo numbers = {.steps4 = numbers4, .count4 = 5, .steps6 = nowhere6, .count6 = 1};

static bool is_in_force(const struct policy_image *image, const struct kind *k, const char *probe)
{
	bool to = strncmp(k->condition, "to ", 3) == 0, user = strcmp(k->word, "user") == 0, group = strcmp(k->word, "group") == 0;
	struct policy_context ctx = {.image = image, .geo = &countries, .asn = &numbers};
	struct policy_request r = {.client = fixture_addr("192.0.2.200"),
				   .user = user ? probe : "somebody",
				   .groups = &probe,
				   .ngroups = group,
				   .method = POLICY_METHOD_PASSWORD,
				   .command = POLICY_CONNECT,
				   .port = strcmp(k->word, "port") == 0 ? (uint16_t)atoi(probe) : 1000};
	struct addr address = fixture_addr("198.18.255.1"); /* of a name, and in no set */
	struct policy_decision d;
	struct name name;

	if (to && !addr_parse(probe, &address)) {
		name = fixture_name(probe);
		r.name = &name;
	} else {
		r.address = address;
	}
	policy_decide_address(&ctx, &r, &address, NULL, 0, &d);
	return d.verdict == POLICY_ALLOW;
}

/* The set means what holds says, and nothing else. */
static void means(const char *text, const struct kind *k, const bool holds[MEANINGS], const char *what)
{
	struct fixture f;

	fixture_open(&f, text);
	for (size_t i = 0; i < MEANINGS; i++)
		if (is_in_force(f.image, k, k->meanings[i].probe) != holds[i])
			fail_msg("%s: '%s' is %s force:\n%s", what, k->meanings[i].probe, holds[i] ? "not in" : "in", text);
	fixture_close(&f);
}

static const char *spelling(const struct kind *k, size_t meaning)
{
	size_t n = 0;

	while (n < 5 && k->meanings[meaning].spellings[n] != NULL)
		n++;
	return k->meanings[meaning].spellings[below(n)];
}

/* A set of up to 12 values, written in any way; held[i]: it says so itself, without the set that it refers to. */
static void make_set(char *text, size_t size, const struct kind *k, bool held[MEANINGS], size_t referred)
{
	FILE *out = fmemopen(text, size, "w");
	bool refers = referred < MEANINGS;

	assert_non_null(out);
	if (refers) {
		char *written = edit_literal(spelling(k, referred));

		fprintf(out, "set other %s { %s }\n", k->word, written);
		free(written);
	}
	fprintf(out, "set s %s {", k->word);
	for (size_t n = below(12); n > 0; n--) {
		size_t m = below(MEANINGS);
		char *written = edit_literal(spelling(k, m));

		held[m] = true;
		fprintf(out, "%s%s", one_in(3) ? "\n\t" : " ", written);
		if (one_in(4))
			fprintf(out, "  # remark\n");
		free(written);
		if (refers && one_in(3)) {
			fprintf(out, " @other");
			refers = false;
		}
	}
	fprintf(out, "%s }\nrule a allow %s @s\ndefault deny\n", refers ? " @other" : "", k->condition);
	assert_int_equal(fclose(out), 0);
}

static char *edited_text(const char *text, const char *const *values, size_t n, bool import, bool replace)
{
	struct policy_diagnostics d = {0};
	struct policy_tree *t = policy_parse("own", text, strlen(text), &d);
	const struct ast_statement *s = ast_find(t, AST_SET, "s");
	struct policy_edit e;
	const char *missing;
	size_t len;

	assert_int_equal(d.errors, 0);
	edit_init(&e, t);
	if (import)
		edit_set_import(&e, s, values, n, replace);
	else if (edit_set_remove(&e, s, values, n, &missing) != 0)
		fail_msg("'%s' is not found:\n%s", missing, text);
	char *after = edit_text(&e, NULL, &len);

	edit_clear(&e);
	policy_tree_free(t);
	return after != NULL ? after : strdup(text);
}

/* After a removal no spelling of the value is in force, and all else is. */
static void try_meant_removal(const struct kind *k)
{
	char text[4096];
	bool holds[MEANINGS] = {false};
	size_t m = below(MEANINGS);

	make_set(text, sizeof text, k, holds, MEANINGS);
	if (!holds[m] || k->meanings[m].probe[0] == '@')
		return; /* at a command line, a set */
	const char *value = spelling(k, m);
	char *after = edited_text(text, &value, 1, false, false);

	holds[m] = false;
	means(after, k, holds, "remove");
	free(after);
}

/* After an import the set means what it did and the file; after one that replaces, the file. */
static void try_meant_import(const struct kind *k)
{
	char text[4096];
	bool holds[MEANINGS] = {false}, replace = one_in(2);
	size_t referred = below(2 * MEANINGS), n = below(6);
	const char *values[6];

	make_set(text, sizeof text, k, holds, referred);
	if (referred < MEANINGS)
		holds[referred] = true;
	for (size_t i = 0; i < MEANINGS; i++)
		holds[i] &= !replace;
	for (size_t i = 0; i < n; i++) {
		size_t m = below(MEANINGS);

		values[i] = spelling(k, m);
		holds[m] = true;
	}
	char *after = edited_text(text, values, n, true, replace);

	means(after, k, holds, replace ? "replace" : "import");
	char *again = edited_text(after, values, n, true, replace);

	assert_string_equal(again, after);
	free(again);
	free(after);
}

static void test_meanings(void **unused)
{
	(void)unused;
	for (size_t i = 0; i < 300 * sizeof kinds / sizeof *kinds; i++) {
		const struct kind *k = &kinds[i % (sizeof kinds / sizeof *kinds)];

		state = 23 + i * 1000003;
		try_meant_removal(k);
		try_meant_import(k);
	}
}

/* Any bytes: either the same value is read again, or there is no way to write it. */
static void test_quotes(void **unused)
{
	static const char bytes[] = "a\\\" #@{}'\n\t\x7f\x80rule.*";
	char value[8], text[64];

	(void)unused;
	state = 11;
	for (size_t n = 0; n < 20000; n++) {
		size_t len = 1 + below(6);

		for (size_t i = 0; i < len; i++)
			value[i] = bytes[below(sizeof bytes - 1)];
		value[len] = '\0';
		if (value[0] == '@')
			continue; /* means a set */
		char *written = edit_quote(value);

		if (written == NULL)
			continue;
		snprintf(text, sizeof text, "set s user { %s }\n", written);

		struct policy_diagnostics d = {0};
		struct policy_tree *t = policy_parse("own", text, strlen(text), &d);

		assert_int_equal(d.errors, 0);
		assert_non_null(t->first);
		assert_null(t->first->next);
		assert_int_equal(t->first->values.count, 1);
		assert_string_equal(t->first->values.first->text, value);
		policy_tree_free(t);
		free(written);
	}
	assert_null(edit_quote("a\\"));
	assert_null(edit_quote("a\\\"b"));
	assert_null(edit_quote("a\nb"));
}

static void test_reading(void **unused)
{
	static const char *const none[] = {"", "tz UTC", "rule", "rule a", "rule a deny\nrule b deny", "rule a deny\ninclude x", "# rule a deny",
					   "set a user { b }"};

	(void)unused;
	for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
		struct policy_diagnostics d = {0};
		struct err why;
		char *name = NULL;

		assert_int_equal(edit_read(none[i], AST_RULE, &name, &d, &why), -1);
		policy_diagnostics_free(&d);
	}
	struct policy_diagnostics d = {0};
	struct err why;
	char *name;

	assert_int_equal(edit_read("rule \"a b\" deny # yes", AST_RULE, &name, &d, &why), 0);
	assert_string_equal(name, "a b");
	free(name);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_texts),
		cmocka_unit_test(test_covers),
		cmocka_unit_test(test_covers_through_many_ways),
		cmocka_unit_test(test_quotes),
		cmocka_unit_test(test_meanings),
		cmocka_unit_test(test_reading),
		cmocka_unit_test(test_random_edits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
