/* What two policies say differently, statement by statement: also what no request shows, such as who owns a rule, what it logs, how
 * long a live session goes on, or what is expected.  Layout, remarks, the order of values and of conditions, and which file a
 * statement stands in say nothing, and are not looked at. */
#include "config.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/ast.h"
#include "policy/diff_said.h"
#include "policy/value.h"
#include "policy/words.h"

/* Of each set, and in all. */
#define VALUES_TOLD_MAX 5
#define TOLD_MAX 1000

/* A value, where it stands. */
struct slice {
	const char *text;
	size_t len;
	bool set; /* @text */
};

/* A statement: what it is about, and all that it says of that. */
struct said {
	char *about, *text;
	struct slice *values; /* of a set, in order, each once */
	size_t nvalues;
	size_t place; /* of a rule, among the rules of its policy */
	bool is_set, is_rule;
};

struct side {
	struct said *each;
	size_t count;
};

static void *no_less(void *memory)
{
	if (memory == NULL)
		abort();
	return memory;
}

/* ---- values ------------------------------------------------------------------------------------------------------------- */

static int by_text(const void *a, const void *b)
{
	const struct slice *x = a, *y = b;
	int order = memcmp(x->text, y->text, x->len < y->len ? x->len : y->len);

	if (order == 0)
		order = (x->len > y->len) - (x->len < y->len);
	return order != 0 ? order : (int)x->set - (int)y->set;
}

/* In order, each once. */
static size_t arrange(struct slice *values, size_t n)
{
	size_t kept = 0;

	if (n > 0)
		qsort(values, n, sizeof *values, by_text);
	for (size_t i = 0; i < n; i++)
		if (kept == 0 || by_text(&values[kept - 1], &values[i]) != 0)
			values[kept++] = values[i];
	return kept;
}

static size_t take_values(const struct ast_values *from, struct slice *values)
{
	size_t n = 0;

	for (const struct ast_value *v = from->first; v != NULL; v = v->next)
		values[n++] = (struct slice){v->text, v->len, v->set};
	return n;
}

/* In quotes where the language needs them: no two statements that differ look alike. */
static void put_slice(FILE *out, const struct slice *v)
{
	char word[AST_ENTRY_MAX + 1] = "";

	if (v->len < sizeof word)
		memcpy(word, v->text, v->len);
	if (v->set || (v->len < sizeof word && words_bare(word))) {
		fprintf(out, " %s%.*s", v->set ? "@" : "", (int)v->len, v->text);
		return;
	}
	fputs(" \"", out);
	for (size_t i = 0; i < v->len; i++)
		fprintf(out, v->text[i] == '"' ? "\\%c" : "%c", v->text[i]);
	fputc('"', out);
}

/* Values are alternatives: their order says nothing, but of what is expected it might. */
static void put_values(FILE *out, const struct ast_values *from, bool ordered)
{
	struct slice *values = no_less(calloc(from->count + 1, sizeof *values));
	size_t n = take_values(from, values);

	if (!ordered)
		n = arrange(values, n);
	for (size_t i = 0; i < n; i++)
		put_slice(out, &values[i]);
	free(values);
}

static void read_set(struct said *one, const struct ast_statement *s)
{
	size_t n = s->values.count + (s->list == NULL ? 0 : s->list->count);

	one->is_set = true;
	one->values = no_less(calloc(n + 1, sizeof *one->values));
	n = take_values(&s->values, one->values);
	for (size_t i = 0; s->list != NULL && s->list->source != NULL && i < s->list->count; i++)
		one->values[n++] = (struct slice){s->list->source->text + s->list->entries[i].offset, s->list->entries[i].len, false};
	one->nvalues = arrange(one->values, n);
}

/* ---- statements --------------------------------------------------------------------------------------------------------- */

/* Conditions are and-ed: their order says nothing. */
static void put_clauses(FILE *out, const struct ast_statement *s)
{
	for (int kind = 0; kind < AST_CLAUSE_KINDS; kind++)
		for (int negated = 0; negated < 2; negated++)
			for (const struct ast_clause *c = s->clauses.first; c != NULL; c = c->next) {
				if ((int)c->kind != kind || (int)c->negated != negated)
					continue;
				fprintf(out, " %s%s", negated ? "not " : "", ast_clause_word(c->kind));
				put_values(out, &c->values, s->kind == AST_EXPECT);
			}
}

static void put_text(FILE *out, const struct ast_statement *s)
{
	switch (s->kind) {
	case AST_SET:
		fputs(ast_set_word(s->set_kind), out);
		break;
	case AST_WINDOW:
		/* A zone of its own counts even where it is the policy's. */
		fprintf(out, "%s%s{", s->zone == NULL ? "" : "tz ", s->zone == NULL ? "" : s->zone->text);
		put_values(out, &s->values, false);
		fputs(s->except.count > 0 ? " except" : "", out);
		put_values(out, &s->except, false);
		fputs(" }", out);
		break;
	case AST_RULE:
		fprintf(out, "%s%s%s", ast_is_rule(s) ? "" : "disabled ", s->monitor ? "monitor " : "", s->allow ? "allow" : "deny");
		put_clauses(out, s);
		break;
	case AST_EXPECT:
		fputs(s->allow ? "allow" : "deny", out);
		put_clauses(out, s);
		break;
	default:
		break;
	}
}

static struct said *add(struct side *to, const char *about, const char *name)
{
	struct said *one = &to->each[to->count++];
	size_t len = strlen(about) + strlen(name) + 2;

	one->about = no_less(malloc(len));
	snprintf(one->about, len, "%s%s%s", about, name[0] == '\0' ? "" : " ", name);
	return one;
}

static void add_statement(struct side *to, const struct ast_statement *s, size_t *rules)
{
	struct said *one;
	size_t len;
	FILE *out;

	if (s->kind == AST_EXPECT)
		one = add(to, "expect", "");
	else
		one = add(to, s->kind == AST_SET ? "set" : s->kind == AST_WINDOW ? "window" : "rule", s->name->text);
	if (s->kind == AST_SET)
		read_set(one, s);
	one->is_rule = s->kind == AST_RULE;
	one->place = one->is_rule ? (*rules)++ : 0;
	out = no_less(open_memstream(&one->text, &len));
	put_text(out, s);
	if (fclose(out) != 0)
		abort();
}

/* What holds for the whole policy, whether it says so or not. */
static void add_policy_wide(struct side *to, const struct policy_tree *t)
{
	struct slice *prefixes;
	const char *answers = "any";
	char grace_text[VALUE_GRACE_TEXT_MAX], *list = NULL;
	unsigned grace = 0;
	size_t n = 0, room = 1, len;
	struct err ignored;
	FILE *out;

	for (const struct ast_statement *s = t->first; s != NULL; s = s->next)
		room += s->kind == AST_NAT64 ? s->values.count : 0;
	prefixes = no_less(calloc(room, sizeof *prefixes));
	for (const struct ast_statement *s = t->first; s != NULL; s = s->next) {
		if (s->kind == AST_ANSWERS)
			answers = s->values.first->text;
		else if (s->kind == AST_GRACE)
			value_grace(s->values.first->text, &grace, &ignored);
		else if (s->kind == AST_NAT64)
			n += take_values(&s->values, prefixes + n);
	}
	n = arrange(prefixes, n);
	out = no_less(open_memstream(&list, &len));
	for (size_t i = 0; i < n; i++)
		put_slice(out, &prefixes[i]);
	if (fclose(out) != 0)
		abort();
	free(prefixes);
	add(to, "tz", "")->text = no_less(strdup(ast_zone(t)));
	add(to, "answers", "")->text = no_less(strdup(answers));
	add(to, "grace", "")->text = no_less(strdup(grace == 0 ? "0s" : value_grace_text(grace, grace_text)));
	if (n > 0)
		add(to, "nat64-prefix", "")->text = no_less(strdup(list + 1));
	free(list);
}

static int by_about(const void *a, const void *b)
{
	const struct said *x = a, *y = b;
	int order = strcmp(x->about, y->about);

	/* Expectations have no name: what they say is what they are. */
	return order != 0 || strcmp(x->about, "expect") != 0 ? order : strcmp(x->text, y->text);
}

static bool is_told(const struct ast_statement *s)
{
	return s->kind == AST_SET || s->kind == AST_WINDOW || s->kind == AST_RULE || s->kind == AST_EXPECT;
}

static void clear_said(struct said *one)
{
	free(one->about);
	free(one->text);
	free(one->values);
}

static struct side side_of(const struct policy_tree *t)
{
	struct side side = {0};
	size_t room = 4, rules = 0, kept = 0;

	for (const struct ast_statement *s = t->first; s != NULL; s = s->next)
		room += is_told(s);
	side.each = no_less(calloc(room, sizeof *side.each));
	add_policy_wide(&side, t);
	for (const struct ast_statement *s = t->first; s != NULL; s = s->next)
		if (is_told(s))
			add_statement(&side, s, &rules);
	qsort(side.each, side.count, sizeof *side.each, by_about);
	/* The same expectation twice is one. */
	for (size_t i = 0; i < side.count; i++) {
		if (kept > 0 && by_about(&side.each[kept - 1], &side.each[i]) == 0)
			clear_said(&side.each[i]);
		else
			side.each[kept++] = side.each[i];
	}
	side.count = kept;
	return side;
}

static void clear_side(struct side *side)
{
	for (size_t i = 0; i < side->count; i++)
		clear_said(&side->each[i]);
	free(side->each);
}

/* ---- telling ------------------------------------------------------------------------------------------------------------ */

struct telling {
	json_t *told;
	size_t count;
};

static json_t *text_or_null(const char *text)
{
	json_t *j = text == NULL ? json_null() : json_string(text);

	return j == NULL ? json_string("(not UTF-8)") : j;
}

/* NULL: not there. */
static void tell(struct telling *t, const char *about, const char *before, const char *after)
{
	if (t->count++ < TOLD_MAX)
		json_array_append_new(t->told, json_pack("{s:o, s:o, s:o}", "statement", text_or_null(about), "before",
							 text_or_null(before), "after", text_or_null(after)));
}

/* "cidr, 3 values": and those that the other does not have. */
static char *set_text(const struct said *one, const struct said *other)
{
	size_t len, more = 0, k = 0;
	char *text = NULL;
	FILE *out = no_less(open_memstream(&text, &len));

	fprintf(out, "%s, %zu value%s", one->text, one->nvalues, one->nvalues == 1 ? "" : "s");
	for (size_t i = 0; other != NULL && i < one->nvalues; i++) {
		while (k < other->nvalues && by_text(&other->values[k], &one->values[i]) < 0)
			k++;
		if (k < other->nvalues && by_text(&other->values[k], &one->values[i]) == 0)
			continue;
		if (more++ < VALUES_TOLD_MAX) {
			fputs(more == 1 ? ", here alone:" : "", out);
			put_slice(out, &one->values[i]);
		}
	}
	if (more > VALUES_TOLD_MAX)
		fprintf(out, " and %zu more", more - VALUES_TOLD_MAX);
	if (fclose(out) != 0)
		abort();
	return text;
}

static void tell_set(struct telling *t, const struct said *before, const struct said *after)
{
	char *a = before == NULL ? NULL : set_text(before, after), *b = after == NULL ? NULL : set_text(after, before);

	tell(t, before == NULL ? after->about : before->about, a, b);
	free(a);
	free(b);
}

static bool same_values(const struct said *a, const struct said *b)
{
	for (size_t i = 0; i < a->nvalues && a->nvalues == b->nvalues; i++)
		if (by_text(&a->values[i], &b->values[i]) != 0)
			return false;
	return a->nvalues == b->nvalues;
}

/* One of the two may be NULL. */
static void compare(struct telling *t, const struct said *before, const struct said *after)
{
	const struct said *one = before == NULL ? after : before;

	if (before != NULL && after != NULL && strcmp(before->text, after->text) == 0 && same_values(before, after))
		return;
	if (one->is_set)
		tell_set(t, before, after);
	else
		tell(t, one->about, before == NULL ? NULL : before->text, after == NULL ? NULL : after->text);
}

/* ---- the order of rules ------------------------------------------------------------------------------------------------- */

struct moved {
	const struct said *before, *after;
	bool stays;
};

static int by_place_before(const void *a, const void *b)
{
	const struct moved *x = a, *y = b;

	return (x->before->place > y->before->place) - (x->before->place < y->before->place);
}

/* The longest run of rules that keep their order stays; of the others, it is told that they moved. */
static void find_moved(struct moved *rules, size_t n)
{
	size_t *tails = no_less(calloc(n + 1, sizeof *tails)), *previous = no_less(calloc(n + 1, sizeof *previous)), longest = 0;

	for (size_t i = 0; i < n; i++) {
		size_t low = 0, high = longest;

		while (low < high) {
			size_t middle = (low + high) / 2;

			if (rules[tails[middle]].after->place < rules[i].after->place)
				low = middle + 1;
			else
				high = middle;
		}
		previous[i] = low == 0 ? SIZE_MAX : tails[low - 1];
		tails[low] = i;
		if (low == longest)
			longest++;
	}
	for (size_t i = longest == 0 ? SIZE_MAX : tails[longest - 1]; i != SIZE_MAX; i = previous[i])
		rules[i].stays = true;
	free(tails);
	free(previous);
}

static void tell_moved(struct telling *t, struct moved *rules, size_t n)
{
	char before[48], after[48];

	if (n > 0)
		qsort(rules, n, sizeof *rules, by_place_before);
	find_moved(rules, n);
	for (size_t i = 0; i < n; i++) {
		if (rules[i].stays)
			continue;
		snprintf(before, sizeof before, "is rule number %zu", rules[i].before->place + 1);
		snprintf(after, sizeof after, "is rule number %zu, moved among the others", rules[i].after->place + 1);
		tell(t, rules[i].before->about, before, after);
	}
}

json_t *diff_said(const struct policy_tree *before, const struct policy_tree *after, size_t *count)
{
	struct side a = side_of(before), b = side_of(after);
	struct telling t = {.told = json_array()};
	struct moved *rules = no_less(calloc(a.count + 1, sizeof *rules));
	size_t i = 0, k = 0, nrules = 0;

	while (i < a.count || k < b.count) {
		int order = i == a.count ? 1 : k == b.count ? -1 : by_about(&a.each[i], &b.each[k]);
		const struct said *x = order <= 0 ? &a.each[i++] : NULL, *y = order >= 0 ? &b.each[k++] : NULL;

		compare(&t, x, y);
		if (x != NULL && y != NULL && x->is_rule)
			rules[nrules++] = (struct moved){.before = x, .after = y};
	}
	tell_moved(&t, rules, nrules);
	free(rules);
	clear_side(&a);
	clear_side(&b);
	*count = t.count;
	return t.told;
}
