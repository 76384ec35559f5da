/* The meaning of a tree, as far as it can be wrong: values, names, combinations.  Finds everything it can in one run.
 */
#include "config.h"

#include "policy/check.h"

#include <stdlib.h>
#include <string.h>

#include "policy/diag.h"
#include "policy/guard.h"
#include "policy/value.h"
#include "policy/words.h"
#include "policy/zone.h"

struct check {
	const struct policy_tree *tree;
	struct policy_diagnostics *d;
	const struct ast_statement *first[AST_INCLUDE + 1]; /* of each kind */
};

/* No rule or expectation has more clauses. */
#define CLAUSES_MAX 1000

#define QUOTE(v, buf) diag_quote((v)->text, (v)->len, buf)

/* ---- values --------------------------------------------------------------------------------------------------------
 */

static void bad_value(struct check *c, const struct ast_value *v, const struct err *why)
{
	char shown[DIAG_QUOTE_MAX];
	const char *near = v->quoted ? NULL : words_near(v->text);

	if (near == NULL)
		diag_error(c->d, c->tree, "bad-value", &v->at, "'%s': %s", QUOTE(v, shown), why->text);
	else
		diag_error(c->d, c->tree, "bad-value", &v->at, "'%s': %s; did you mean the word '%s'?", QUOTE(v, shown),
			   why->text, near);
}

static bool check_text(struct check *c, const struct ast_value *v, size_t max)
{
	if (v->len > 0 && v->len <= max)
		return true;
	diag_error(c->d, c->tree, "bad-value", &v->at, "a text here has 1 to %zu bytes", max);
	return false;
}

/* A misspelt word after a list of names would silently become one more name. */
static void check_slip(struct check *c, const struct ast_value *v, bool first)
{
	const char *near = first || v->quoted ? NULL : words_near(v->text);
	char shown[DIAG_QUOTE_MAX];

	if (near != NULL)
		diag_error(c->d, c->tree, "near-word", &v->at,
			   "did you mean the word '%s'? If '%s' is a name, write it in quotes", near, QUOTE(v, shown));
}

static void check_regex(struct check *c, const struct ast_value *v)
{
	struct err why;
	size_t offset;

	if (value_regex(v->text, &offset, &why) == 0)
		return;
	struct ast_place at = v->at;

	/* The place inside the pattern, unless an escaped quote has shifted it. */
	if (v->quoted && v->len + 2 == v->at.length && offset <= v->len) {
		at.offset += 1 + offset;
		at.column += 1 + (unsigned)offset;
		at.length = 1;
	}
	diag_error(c->d, c->tree, "bad-regex", &at, "this is no regular expression: %s", why.text);
}

static void check_country(struct check *c, const struct ast_value *v)
{
	struct err why;
	uint16_t code;

	if (value_country(v->text, &code, &why) != 0)
		bad_value(c, v, &why);
	else if (!value_country_assigned(code))
		diag_warning(c->d, c->tree, "unassigned-country", &v->at, "no country has the code '%s'", v->text);
}

/* One value that stands for itself, in a set or a condition of that kind of set. */
static void check_set_value(struct check *c, enum ast_set_kind kind, const struct ast_value *v, bool first)
{
	struct value_meaning m;
	struct err why = {{0}};

	switch (kind) {
	case AST_SET_REGEX:
		check_regex(c, v);
		break;
	case AST_SET_USER:
	case AST_SET_GROUP:
		if (check_text(c, v, CHECK_TEXT_MAX))
			check_slip(c, v, first);
		break;
	case AST_SET_COUNTRY:
		check_country(c, v);
		break;
	case AST_SET_CIDR:
	case AST_SET_DOMAIN:
	case AST_SET_PORT:
	case AST_SET_ASN:
		if (value_read(kind, v->text, v->len, &m, &why) != 0)
			bad_value(c, v, &why);
		break;
	}
}

static void unknown_name(struct check *c, const struct ast_value *v, enum ast_statement_kind kind, const char *what)
{
	char shown[DIAG_QUOTE_MAX], other[DIAG_QUOTE_MAX];
	const char *code = kind == AST_SET ? "unknown-set" : kind == AST_WINDOW ? "unknown-window" : "unknown-rule";
	const struct ast_value *near = NULL;

	if (c->tree->damaged)
		return; /* it may be defined in what could not be read */
	for (size_t i = 0; i < c->tree->nindex && near == NULL; i++)
		if (c->tree->index[i]->kind == kind && words_similar(v->text, c->tree->index[i]->name->text))
			near = c->tree->index[i]->name;
	if (near == NULL)
		diag_error(c->d, c->tree, code, &v->at, "there is no %s '%s'", what, QUOTE(v, shown));
	else
		diag_error(c->d, c->tree, code, &v->at, "there is no %s '%s'; did you mean '%s'?", what,
			   QUOTE(v, shown), QUOTE(near, other));
}

/* An @reference; before is the statement that may only refer to sets above it, or NULL. */
static void check_reference(struct check *c, int kind, const struct ast_value *v, const struct ast_statement *before)
{
	const struct ast_statement *set = ast_find(c->tree, AST_SET, v->text);
	char shown[DIAG_QUOTE_MAX];

	if (kind < 0) {
		diag_error(c->d, c->tree, "no-set-here", &v->at, "sets cannot be used here");
	} else if (set == NULL) {
		unknown_name(c, v, AST_SET, "set");
	} else if ((int)set->set_kind != kind) {
		diag_error(c->d, c->tree, "wrong-set", &v->at,
			   "@%s is a set of kind '%s'; a set of kind '%s' is needed here", QUOTE(v, shown),
			   ast_set_word(set->set_kind), ast_set_word((enum ast_set_kind)kind));
	} else if (before != NULL && set->order >= before->order) {
		diag_error(c->d, c->tree, "set-order", &v->at, "a set can only hold sets that are defined above it");
	}
}

/* ---- statements ----------------------------------------------------------------------------------------------------
 */

static void check_name(struct check *c, const struct ast_statement *s, const char *what)
{
	const struct ast_value *v = s->name;
	const struct ast_statement *first = ast_find(c->tree, s->kind, v->text);
	char shown[DIAG_QUOTE_MAX];

	bool ascii = true;

	for (const char *p = v->text; *p != '\0'; p++)
		ascii = ascii && (unsigned char)*p < 0x80;
	if (!ascii || !words_bare(v->text) || v->len > CHECK_NAME_MAX)
		diag_error(c->d, c->tree, "bad-name", &v->at,
			   "'%s' cannot name a %s: a name has at most %d ASCII letters, digits and the like, and is no "
			   "word of the language",
			   QUOTE(v, shown), what, CHECK_NAME_MAX);
	if (first != s)
		diag_error(c->d, c->tree, "duplicate-name", &v->at, "there is a %s '%s' already, on line %u", what,
			   QUOTE(v, shown), first->at.line);
}

static void check_zone(struct check *c, const struct ast_value *v)
{
	struct err why;
	struct zone z;

	if (zone_load(v->text, &z, &why) != 0) {
		bad_value(c, v, &why);
		return;
	}
	zone_clear(&z);
}

static void check_once(struct check *c, const struct ast_statement *s, const char *word)
{
	const struct ast_statement *o = c->first[s->kind];

	if (o != s)
		diag_error(c->d, c->tree, "duplicate", &s->at, "'%s' was said already, on line %u", word, o->at.line);
}

static void check_answers(struct check *c, const struct ast_statement *s)
{
	struct err why;
	bool all;

	check_once(c, s, "answers");
	if (value_answers(s->values.first->text, &all, &why) != 0)
		bad_value(c, s->values.first, &why);
}

static void check_grace(struct check *c, const struct ast_statement *s)
{
	struct err why;
	unsigned seconds;

	check_once(c, s, "grace");
	if (value_grace(s->values.first->text, &seconds, &why) != 0)
		bad_value(c, s->values.first, &why);
}

static void check_nat64(struct check *c, const struct ast_statement *s)
{
	struct err why;
	struct prefix p;

	check_once(c, s, "nat64-prefix");
	if (s->values.count > GUARD_NAT64_MAX)
		diag_error(c->d, c->tree, "too-many", &s->at, "at most %d prefixes are possible", GUARD_NAT64_MAX);
	for (const struct ast_value *v = s->values.first; v != NULL; v = v->next) {
		if (v->set)
			check_reference(c, -1, v, NULL);
		else if (value_nat64(v->text, &p, &why) != 0)
			bad_value(c, v, &why);
	}
}

struct entries {
	struct check *c;
	const struct ast_statement *set;
};

static void check_entry(const struct ast_value *v, void *arg)
{
	const struct entries *e = arg;

	check_set_value(e->c, e->set->set_kind, v, true);
}

static void check_set(struct check *c, const struct ast_statement *s)
{
	check_name(c, s, "set");
	if (s->list != NULL)
		ast_each_entry(s->list, check_entry, &(struct entries){c, s});
	if (s->values.count == 0 && (s->list == NULL || (s->list->count == 0 && !s->list->faulty)))
		diag_warning(c->d, c->tree, "empty-set", &s->at, "this set is empty: nothing is ever in it");
	for (const struct ast_value *v = s->values.first; v != NULL; v = v->next) {
		if (v->set)
			check_reference(c, (int)s->set_kind, v, s);
		else
			check_set_value(c, s->set_kind, v, v == s->values.first);
	}
}

static void check_window(struct check *c, const struct ast_statement *s)
{
	struct err why;
	struct value_moment moment;
	uint8_t days;
	uint16_t start, end;

	check_name(c, s, "window");
	if (s->zone != NULL)
		check_zone(c, s->zone);
	if (s->values.count == 0)
		diag_error(c->d, c->tree, "empty-window", &s->at, "this window has neither days nor hours");
	for (const struct ast_value *v = s->values.first; v != NULL; v = v->next) {
		if (v->set)
			check_reference(c, -1, v, NULL);
		else if (v->text[0] >= '0' && v->text[0] <= '9' && value_hours(v->text, &start, &end, &why) != 0)
			bad_value(c, v, &why);
		else if ((v->text[0] < '0' || v->text[0] > '9') && value_days(v->text, &days, &why) != 0)
			bad_value(c, v, &why);
	}
	for (const struct ast_value *v = s->except.first; v != NULL; v = v->next) {
		if (v->set)
			check_reference(c, -1, v, NULL);
		else if (value_moment(v->text, false, &moment, &why) != 0)
			bad_value(c, v, &why);
	}
}

/* ---- clauses -------------------------------------------------------------------------------------------------------
 */

/* One value of a clause whose values are words or texts of its own. */
static void check_clause_value(struct check *c, const struct ast_clause *clause, const struct ast_value *v)
{
	struct err why = {{0}};
	enum policy_method method;
	enum policy_command command;
	enum policy_log level;
	struct value_moment moment;
	struct addr address;
	unsigned bits;
	bool by_name;

	switch (clause->kind) {
	case AST_LISTENER:
		if (check_text(c, v, CHECK_TEXT_MAX))
			check_slip(c, v, v == clause->values.first);
		break;
	case AST_METHOD:
		if (value_method(v->text, &method, &why) != 0)
			bad_value(c, v, &why);
		break;
	case AST_STRENGTH:
		if (value_strength(v->text, &bits, &why) != 0)
			bad_value(c, v, &why);
		break;
	case AST_COMMAND:
		if (value_command(v->text, &command, &why) != 0)
			bad_value(c, v, &why);
		break;
	case AST_DURING:
		if (ast_find(c->tree, AST_WINDOW, v->text) == NULL)
			unknown_name(c, v, AST_WINDOW, "window");
		break;
	case AST_BY:
		if (value_by(v->text, &by_name, &why) != 0)
			bad_value(c, v, &why);
		break;
	case AST_FROM:
	case AST_UNTIL:
	case AST_AT:
		if (value_moment(v->text, true, &moment, &why) != 0)
			bad_value(c, v, &why);
		break;
	case AST_SOURCE:
		if (value_address(v->text, &address, &why) != 0)
			bad_value(c, v, &why);
		break;
	case AST_LOG:
		if (value_log(v->text, &level, &why) != 0)
			bad_value(c, v, &why);
		break;
	case AST_OWNER:
	case AST_TICKET:
		check_text(c, v, CHECK_TEXT_MAX);
		break;
	case AST_COMMENT:
		check_text(c, v, CHECK_COMMENT_MAX);
		break;
	default:
		break;
	}
}

static void check_values(struct check *c, const struct ast_clause *clause)
{
	int kind = ast_clause_set_kind(clause->kind);

	for (const struct ast_value *v = clause->values.first; v != NULL; v = v->next) {
		if (v->set)
			check_reference(c, kind, v, NULL);
		else if (kind >= 0)
			check_set_value(c, (enum ast_set_kind)kind, v, v == clause->values.first);
		else
			check_clause_value(c, clause, v);
	}
}

/* Reports a clause that may stand only once and stands again. */
static void check_repeat(struct check *c, const struct ast_statement *s, const struct ast_clause *clause)
{
	const struct ast_clause *first = ast_clause_find(s, clause->kind);

	if (first != clause)
		diag_error(c->d, c->tree, "duplicate", &clause->at, "'%s' was said already on this line",
			   ast_clause_word(clause->kind));
}

/* False, with an error, for one of a length that nobody writes. */
static bool check_length(struct check *c, const struct ast_statement *s)
{
	size_t n = 0;

	for (const struct ast_clause *clause = s->clauses.first; clause != NULL && n <= CLAUSES_MAX; clause = clause->next)
		n++;
	if (n > CLAUSES_MAX)
		diag_error(c->d, c->tree, "too-many", &s->at, "this has more than %d clauses", CLAUSES_MAX);
	return n <= CLAUSES_MAX;
}

static void check_period(struct check *c, const struct ast_statement *s)
{
	const struct ast_clause *from = ast_clause_find(s, AST_FROM), *until = ast_clause_find(s, AST_UNTIL);
	struct value_moment a, b;
	struct err why;

	if (from == NULL || until == NULL || value_moment(from->values.first->text, true, &a, &why) != 0 ||
	    value_moment(until->values.first->text, true, &b, &why) != 0)
		return;
	/* A date alone begins with its first second and ends with its last. */
	int64_t start = (int64_t)a.day * 86400 + (a.second < 0 ? 0 : a.second);
	int64_t end = (int64_t)b.day * 86400 + (b.second < 0 ? 86400 : b.second);

	if (end <= start)
		diag_error(c->d, c->tree, "empty-period", &until->at, "this rule ends before it begins");
}

static void check_rule(struct check *c, const struct ast_statement *s)
{
	check_name(c, s, "rule");
	if (!check_length(c, s))
		return;
	for (const struct ast_clause *clause = s->clauses.first; clause != NULL; clause = clause->next) {
		check_values(c, clause);
		if (clause->kind >= AST_CONDITIONS)
			check_repeat(c, s, clause);
		if (!s->allow && (clause->kind == AST_INTERNAL || clause->kind == AST_SOURCE))
			diag_error(c->d, c->tree, "allow-only", &clause->at, "'%s' has a meaning in allow rules only",
				   ast_clause_word(clause->kind));
	}
	check_period(c, s);
}

/* ---- expectations --------------------------------------------------------------------------------------------------
 */

static void check_expect_value(struct check *c, const struct ast_clause *clause, const struct ast_value *v)
{
	struct err why = {{0}};
	struct addr address;
	struct name name;
	uint16_t lo, hi;
	uint32_t asn;

	if (v->set) {
		check_reference(c, -1, v, NULL);
		return;
	}
	switch (clause->kind) {
	case AST_CLIENT:
	case AST_RESOLVES:
		if (value_address(v->text, &address, &why) != 0)
			bad_value(c, v, &why);
		break;
	case AST_TO:
	case AST_ALIAS:
		if (value_target(v->text, &name, &address, &why) != 0)
			bad_value(c, v, &why);
		else if (clause->kind == AST_ALIAS && name.len == 0)
			diag_error(c->d, c->tree, "bad-value", &v->at, "an alias is a name, not an address");
		break;
	case AST_PORT:
		if (value_port(v->text, &lo, &hi, &why) != 0)
			bad_value(c, v, &why);
		else if (lo != hi)
			diag_error(c->d, c->tree, "bad-value", &v->at, "an expectation is about one port");
		break;
	case AST_IN_COUNTRY:
		check_country(c, v);
		break;
	case AST_IN_ASN:
		if (value_asn(v->text, &asn, &why) != 0)
			bad_value(c, v, &why);
		break;
	case AST_BY_RULE:
		if (strcmp(v->text, "default") != 0 && ast_find(c->tree, AST_RULE, v->text) == NULL)
			unknown_name(c, v, AST_RULE, "rule");
		break;
	case AST_USER:
	case AST_GROUP:
	case AST_CLAIMED_USER:
		check_text(c, v, CHECK_TEXT_MAX);
		break;
	default:
		check_clause_value(c, clause, v);
		break;
	}
}

static void check_expect(struct check *c, const struct ast_statement *s)
{
	const struct ast_clause *to = ast_clause_find(s, AST_TO);
	struct name name = {0};
	struct addr address;
	struct err why;

	if (!check_length(c, s))
		return;
	for (const struct ast_clause *clause = s->clauses.first; clause != NULL; clause = clause->next) {
		check_repeat(c, s, clause);
		for (const struct ast_value *v = clause->values.first; v != NULL; v = v->next)
			check_expect_value(c, clause, v);
	}
	if (to == NULL) {
		diag_error(c->d, c->tree, "no-target", &s->at, "an expectation needs 'to' with a name or an address");
		return;
	}
	if (ast_clause_find(s, AST_GROUP) != NULL && ast_clause_find(s, AST_USER) == NULL)
		diag_error(c->d, c->tree, "no-user", &ast_clause_find(s, AST_GROUP)->at,
			   "groups are those of a user: this expectation needs 'user' too");
	if (value_target(to->values.first->text, &name, &address, &why) != 0 || name.len > 0)
		return;
	for (const struct ast_clause *clause = s->clauses.first; clause != NULL; clause = clause->next)
		if (clause->kind == AST_RESOLVES || clause->kind == AST_ALIAS)
			diag_error(c->d, c->tree, "no-name", &clause->at, "only a name has '%s'",
				   ast_clause_word(clause->kind));
}

/* ---- the whole -----------------------------------------------------------------------------------------------------
 */

static void check_statement(struct check *c, const struct ast_statement *s)
{
	switch (s->kind) {
	case AST_TZ:
		check_once(c, s, "tz");
		check_zone(c, s->zone);
		break;
	case AST_ANSWERS:
		check_answers(c, s);
		break;
	case AST_NAT64:
		check_nat64(c, s);
		break;
	case AST_GRACE:
		check_grace(c, s);
		break;
	case AST_DEFAULT:
		check_once(c, s, "default");
		if (s->allow)
			diag_error(c->d, c->tree, "default-allow", &s->at,
				   "what no rule allows is denied; if everything else is to pass, end with a rule that "
				   "says so");
		break;
	case AST_SET:
		check_set(c, s);
		break;
	case AST_WINDOW:
		check_window(c, s);
		break;
	case AST_RULE:
		check_rule(c, s);
		break;
	case AST_EXPECT:
		check_expect(c, s);
		break;
	case AST_INCLUDE:
		break; /* what it includes stands behind it */
	}
}

/* ---- what nobody uses ---- */

static void mark(const struct policy_tree *t, const struct ast_values *list, enum ast_statement_kind kind, bool *used)
{
	for (const struct ast_value *v = list->first; v != NULL; v = v->next) {
		const struct ast_statement *s = v->set == (kind == AST_SET) ? ast_find(t, kind, v->text) : NULL;

		if (s != NULL)
			used[s->order] = true;
	}
}

static void mark_clauses(const struct policy_tree *t, const struct ast_statement *s, bool *used)
{
	for (const struct ast_clause *c = s->clauses.first; c != NULL; c = c->next)
		mark(t, &c->values, c->kind == AST_DURING ? AST_WINDOW : AST_SET, used);
}

static int by_order(const void *a, const void *b)
{
	const struct ast_statement *x = *(const struct ast_statement *const *)a, *y = *(const struct ast_statement *const *)b;

	return (x->order > y->order) - (x->order < y->order);
}

/* A set is used if a rule names it, or a set that is used; sets name only those above them. */
static void check_unused(struct check *c)
{
	const struct policy_tree *t = c->tree;
	const struct ast_statement **named = calloc(t->nindex + 1, sizeof *named);
	bool *used = calloc((size_t)t->nstatements + 1, sizeof *used);

	if (named == NULL || used == NULL)
		abort();
	for (const struct ast_statement *s = t->first; s != NULL; s = s->next)
		if (s->kind == AST_RULE)
			mark_clauses(t, s, used);
	memcpy(named, t->index, t->nindex * sizeof *named);
	qsort(named, t->nindex, sizeof *named, by_order);
	for (size_t i = t->nindex; i-- > 0;)
		if (named[i]->kind == AST_SET && used[named[i]->order])
			mark(t, &named[i]->values, AST_SET, used);
	for (const struct ast_statement *s = t->first; s != NULL; s = s->next)
		if ((s->kind == AST_SET || s->kind == AST_WINDOW) && !used[s->order])
			diag_warning(c->d, t, "unused", &s->at, "this %s is not used by any rule", s->kind == AST_SET ? "set" : "window");
	free(named);
	free(used);
}

void policy_check(const struct policy_tree *t, struct policy_diagnostics *d)
{
	struct check c = {.tree = t, .d = d};

	for (const struct ast_statement *s = t->first; s != NULL; s = s->next) {
		if (c.first[s->kind] == NULL)
			c.first[s->kind] = s;
		check_statement(&c, s);
	}
	if (!t->damaged)
		check_unused(&c);
}
