/* What a sound policy most likely does not mean: rules that cannot decide, or decide nothing new.  A rule is said to be
 * shadowed only if that is proven, condition by condition; what no proof is found for is not mentioned. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "policy/ast.h"
#include "policy/diag.h"
#include "policy/hash.h"
#include "policy/index.h"
#include "policy/sample.h"
#include "policy/value.h"

struct findings {
	const struct policy_tree *tree;
	const struct policy_image *image;
	int64_t now;
	struct policy_diagnostics *d;
	const struct ast_statement **statements; /* of each rule */
	uint32_t *cover; /* of each rule: one before it that decides all that it matches; POLICY_NO_RULE if none is found */
	const struct img_rule *rules;
	const struct img_cond *conds;
	const struct img_pred *preds;
	uint32_t n;
};

/* No rule is held against more of those before it, or behind it. */
#define HELD_MAX 200
#define BEHIND_MAX 50
/* Larger lists are compared by name only. */
#define SUBSET_MAX 100000

/* ---- one condition within another ----------------------------------------------------------------------------------
 */

static bool word_in(const struct policy_image *i, const struct img_pred *p, const struct img_word *w)
{
	const struct img_word *words = IMAGE_AT(i, SEC_WORD, struct img_word, p->a.first);
	const char *texts = image_section(i, SEC_TEXT), *text = texts + (w->text >> 2);
	unsigned need = w->text & 3;

	for (const char *at = text;; at++) {
		uint64_t h = hash_name(i->header->seed, at, strlen(at));
		uint32_t place = p->a.count > WORDS_LISTED ? hash_place(h, p->a.count) : 0;

		for (uint32_t n = 0; n < p->a.count && words[place].text != WORD_FREE; n++) {
			unsigned has = words[place].text & 3;

			/* What is below a name covers all of a name further down. */
			if (strcmp(texts + (words[place].text >> 2), at) == 0 &&
			    (at == text ? (need & ~has) == 0 : (has & VALUE_DOMAIN_BELOW) != 0))
				return true;
			place = place + 1 == p->a.count ? 0 : place + 1;
		}
		if (p->kind != PRED_DOMAIN || (at = strchr(at, '.')) == NULL)
			return false;
	}
}

static bool words_within(const struct policy_image *i, const struct img_pred *in, const struct img_pred *out)
{
	const struct img_word *w = IMAGE_AT(i, SEC_WORD, struct img_word, in->a.first);

	for (uint32_t n = 0; n < in->a.count; n++)
		if (w[n].text != WORD_FREE && !word_in(i, out, &w[n]))
			return false;
	return true;
}

static bool ranges_within(const struct policy_image *i, const struct img_pred *in, const struct img_pred *out)
{
	const struct img_range4 *a = IMAGE_AT(i, SEC_RANGE4, struct img_range4, in->a.first);
	const struct img_range4 *b = IMAGE_AT(i, SEC_RANGE4, struct img_range4, out->a.first);
	const struct img_range6 *a6 = IMAGE_AT(i, SEC_RANGE6, struct img_range6, in->b.first);
	const struct img_range6 *b6 = IMAGE_AT(i, SEC_RANGE6, struct img_range6, out->b.first);
	uint32_t at = 0;

	for (uint32_t n = 0; n < in->a.count; n++) {
		while (at < out->a.count && b[at].hi < a[n].hi)
			at++;
		if (at == out->a.count || b[at].lo > a[n].lo)
			return false;
	}
	at = 0;
	for (uint32_t n = 0; n < in->b.count; n++) {
		while (at < out->b.count && memcmp(b6[at].hi, a6[n].hi, 16) < 0)
			at++;
		if (at == out->b.count || memcmp(b6[at].lo, a6[n].lo, 16) > 0)
			return false;
	}
	return true;
}

static bool ports_within(const struct policy_image *i, const struct img_pred *in, const struct img_pred *out)
{
	const struct img_port *a = IMAGE_AT(i, SEC_PORT, struct img_port, in->a.first);
	const struct img_port *b = IMAGE_AT(i, SEC_PORT, struct img_port, out->a.first);
	uint32_t at = 0;

	for (uint32_t n = 0; n < in->a.count; n++) {
		while (at < out->a.count && b[at].hi < a[n].hi)
			at++;
		if (at == out->a.count || b[at].lo > a[n].lo)
			return false;
	}
	return true;
}

static bool ports_apart(const struct policy_image *i, const struct img_pred *x, const struct img_pred *y)
{
	const struct img_port *a = IMAGE_AT(i, SEC_PORT, struct img_port, x->a.first);
	const struct img_port *b = IMAGE_AT(i, SEC_PORT, struct img_port, y->a.first);
	uint32_t m = 0, n = 0;

	/* The values of large sets are elsewhere. */
	if (x->sets.count > 0 || y->sets.count > 0)
		return false;
	while (m < x->a.count && n < y->a.count) {
		if (a[m].hi < b[n].lo)
			m++;
		else if (b[n].hi < a[m].lo)
			n++;
		else
			return false;
	}
	return true;
}

static bool numbers_within(const struct policy_image *i, enum image_section s, const struct img_pred *in,
			   const struct img_pred *out)
{
	size_t size = image_record_size(s);
	const uint8_t *records = image_section(i, s);

	for (uint32_t m = 0; m < in->a.count; m++) {
		uint32_t n = 0;

		while (n < out->a.count &&
		       memcmp(records + (in->a.first + m) * size, records + (out->a.first + n) * size, size) != 0)
			n++;
		if (n == out->a.count)
			return false;
	}
	return true;
}

/* ---- windows ---- */

#define DAY_MINUTES 1440
#define DAYS 7

/* When a window is open that begins on a weekday: minutes from that midnight on, into the next day. */
struct open_minutes {
	bool of[DAYS][2 * DAY_MINUTES];
};

static void minutes_of(const struct policy_image *i, const struct img_window *w, struct open_minutes *m)
{
	const struct img_hours *h = IMAGE_AT(i, SEC_HOURS, struct img_hours, w->hours.first);

	memset(m, 0, sizeof *m);
	for (uint32_t n = 0; n < w->hours.count; n++)
		for (unsigned day = 0; day < DAYS; day++) {
			unsigned end = h[n].end <= h[n].start ? h[n].end + DAY_MINUTES : h[n].end;

			for (unsigned at = h[n].start; (h[n].days >> day & 1) != 0 && at < end; at++)
				m->of[day][at] = true;
		}
}

/* Where no day is an exception, it does not matter which day an hour after midnight belongs to. */
static void fold(struct open_minutes *m)
{
	for (unsigned day = 0; day < DAYS; day++)
		for (unsigned at = 0; at < DAY_MINUTES; at++)
			m->of[(day + 1) % DAYS][at] |= m->of[day][DAY_MINUTES + at];
	for (unsigned day = 0; day < DAYS; day++)
		memcpy(m->of[day] + DAY_MINUTES, m->of[(day + 1) % DAYS], DAY_MINUTES * sizeof(bool));
}

static bool excepts_within(const struct policy_image *i, const struct img_window *in, const struct img_window *out)
{
	const int32_t *a = IMAGE_AT(i, SEC_DAY, int32_t, in->except.first), *b = IMAGE_AT(i, SEC_DAY, int32_t, out->except.first);
	uint32_t n = 0;

	/* Both are sorted. */
	for (uint32_t m = 0; m < out->except.count; m++) {
		while (n < in->except.count && a[n] < b[m])
			n++;
		if (n == in->except.count || a[n] != b[m])
			return false;
	}
	return true;
}

/* True if out is open whenever in is. */
static bool window_within(const struct policy_image *i, uint32_t in, uint32_t out)
{
	const struct img_window *a = IMAGE_AT(i, SEC_WINDOW, struct img_window, in);
	const struct img_window *b = IMAGE_AT(i, SEC_WINDOW, struct img_window, out);
	static struct open_minutes x, y;

	if (in == out)
		return true;
	if (a->zone != b->zone || !excepts_within(i, a, b))
		return false;
	minutes_of(i, a, &x);
	minutes_of(i, b, &y);
	if (b->except.count == 0) {
		fold(&x);
		fold(&y);
	}
	for (unsigned day = 0; day < DAYS; day++)
		for (unsigned at = 0; at < 2 * DAY_MINUTES; at++)
			if (x.of[day][at] && !y.of[day][at])
				return false;
	return true;
}

/* More windows are compared by name only. */
#define WINDOWS_MAX 8

static bool windows_within(const struct policy_image *i, const struct img_pred *in, const struct img_pred *out)
{
	const uint32_t *a = IMAGE_AT(i, SEC_INDEX, uint32_t, in->a.first), *b = IMAGE_AT(i, SEC_INDEX, uint32_t, out->a.first);

	if (in->a.count > WINDOWS_MAX || out->a.count > WINDOWS_MAX)
		return numbers_within(i, SEC_INDEX, in, out);
	for (uint32_t m = 0; m < in->a.count; m++) {
		uint32_t n = 0;

		while (n < out->a.count && !window_within(i, a[m], b[n]))
			n++;
		if (n == out->a.count)
			return false;
	}
	return true;
}

/* True if every value of in is one of out. */
static bool within(const struct findings *f, const struct img_pred *in, const struct img_pred *out)
{
	if (in == out)
		return true;
	if (in->kind != out->kind || in->sets.count > 0 || out->sets.count > 0)
		return false;
	if (in->a.count > SUBSET_MAX || in->b.count > SUBSET_MAX)
		return false;
	switch ((enum pred_kind)in->kind) {
	case PRED_COMMAND:
	case PRED_METHOD:
	case PRED_BY_NAME:
		return (in->a.first & ~out->a.first) == 0;
	case PRED_PORT:
		return ports_within(f->image, in, out);
	case PRED_LISTENER:
	case PRED_USER:
	case PRED_CLAIMED_USER:
	case PRED_GROUP:
	case PRED_DOMAIN:
		return words_within(f->image, in, out);
	case PRED_CLIENT:
	case PRED_CIDR:
		return ranges_within(f->image, in, out);
	case PRED_DURING:
		return windows_within(f->image, in, out);
	case PRED_REGEX:
		return in->a.count < 1000 && numbers_within(f->image, SEC_INDEX, in, out);
	case PRED_COUNTRY:
		return numbers_within(f->image, SEC_COUNTRY, in, out);
	case PRED_ASN:
		return in->a.count < 1000 && numbers_within(f->image, SEC_ASN, in, out);
	default:
		return false;
	}
}

static bool moment_within(const struct findings *f, const struct img_pred *in, const struct img_pred *out)
{
	int64_t a = *IMAGE_AT(f->image, SEC_INSTANT, int64_t, in->a.first);
	int64_t b = *IMAGE_AT(f->image, SEC_INSTANT, int64_t, out->a.first);

	return in->kind == PRED_FROM ? a >= b : a <= b;
}

static bool is_deny(const struct img_rule *r)
{
	return (r->flags & RULE_ALLOW) == 0;
}

static bool is_monitor(const struct img_rule *r)
{
	return (r->flags & RULE_MONITOR) != 0;
}

/* True if a request that satisfies in, a condition of rule b, satisfies out, a condition of rule a. */
static bool implies(const struct findings *f, const struct img_rule *b, const struct img_cond *in,
		    const struct img_rule *a, const struct img_cond *out)
{
	const struct img_pred *p = &f->preds[in->pred], *q = &f->preds[out->pred];
	bool negated = (in->flags & COND_NEGATED) != 0;

	if (p->kind == PRED_FROM || p->kind == PRED_UNTIL)
		return p->kind == q->kind && moment_within(f, p, q);
	if (p->kind == PRED_PORT && q->kind == PRED_PORT && !negated && (out->flags & COND_NEGATED) != 0)
		return ports_apart(f->image, p, q);
	if (p->kind != q->kind || negated != ((out->flags & COND_NEGATED) != 0))
		return false;
	/* A deny rule sees aliases and embedded addresses that an allow rule does not; and it takes what is absent for
	 * not listed.  The other way round, nothing is lost. */
	bool plain = p->kind == PRED_COMMAND || p->kind == PRED_METHOD || p->kind == PRED_BY_NAME ||
		     p->kind == PRED_PORT || p->kind == PRED_DURING || (!negated && p->kind <= PRED_CLIENT);

	if (is_deny(b) && !is_deny(a) && !plain)
		return false;
	return negated ? within(f, q, p) : within(f, p, q);
}

/* True if rule a decides, or denies as undecidable, whatever rule b matches. */
static bool covers(const struct findings *f, uint32_t a, uint32_t b)
{
	const struct img_rule *ra = &f->rules[a], *rb = &f->rules[b];

	for (uint32_t m = 0; m < ra->conds.count; m++) {
		uint32_t n = 0;

		while (n < rb->conds.count &&
		       !implies(f, rb, &f->conds[rb->conds.first + n], ra, &f->conds[ra->conds.first + m]))
			n++;
		if (n == rb->conds.count)
			return false;
	}
	return true;
}

/* ---- findings ------------------------------------------------------------------------------------------------------
 */

static const char *name_of(const struct findings *f, uint32_t rule)
{
	return policy_rule_name(f->image, rule);
}

static bool always_open(void *arg, const struct img_branch *b)
{
	(void)arg;
	(void)b;
	return true;
}

/* The first rule before rule that covers it; POLICY_NO_RULE if none is found. */
static uint32_t find_cover(const struct findings *f, uint32_t rule)
{
	struct index_request r = {.image = f->image, .open = always_open};
	struct index_words words;
	struct index_name name;
	struct sample s;
	unsigned held = 0;

	/* Whatever covers the rule admits its sample, so that the index finds it. */
	sample_make(f->image, rule, 0, 0, &s);
	r.request = &s.request;
	r.words = &words;
	index_words_read(f->image, &s.request, &words);
	if (s.request.name != NULL) {
		index_name_read(f->image, s.request.name, &name);
		r.name = &name;
	}
	r.addresses = &s.address;
	r.naddresses = 1;
	index_find(&r, INDEX_BY_ADDRESS);
	for (uint32_t a = index_next(&r); a < rule && held < HELD_MAX; a = index_next(&r), held++)
		if (!is_monitor(&f->rules[a]) && covers(f, a, rule))
			return a;
	return POLICY_NO_RULE;
}

static void check_shadow(struct findings *f, uint32_t rule)
{
	uint32_t by = f->cover[rule];
	const struct img_rule *r = &f->rules[rule];

	if (by == POLICY_NO_RULE)
		return;
	bool equal = covers(f, rule, by), same = is_deny(r) == is_deny(&f->rules[by]);
	const char *code = equal ? (same ? "duplicate-rule" : "contradiction") : "shadowed";

	diag_warning(f->d, f->tree, code, &f->statements[rule]->at,
		     equal && !same ? "this rule says the opposite of rule %s for the same requests, and never decides"
		     : equal	    ? "this rule repeats rule %s, and never decides"
				    : "this rule never decides: rule %s before it matches all that it does",
		     name_of(f, by));
}

static bool same_effect(const struct img_rule *a, const struct img_rule *b)
{
	return is_deny(a) == is_deny(b) && a->log == b->log && addr_equal(&a->source, &b->source) &&
	       (a->flags & RULE_INTERNAL) == (b->flags & RULE_INTERNAL);
}

/* True if an allow rule may do more than allow what it matches: a cidr condition opens the address guard, and where a
 * condition cannot be evaluated, the request is denied. */
static bool is_more(const struct findings *f, const struct img_rule *r)
{
	for (uint32_t n = 0; n < r->conds.count; n++) {
		uint32_t kind = f->preds[f->conds[r->conds.first + n].pred].kind;

		if (kind == PRED_CIDR || kind == PRED_REGEX || kind == PRED_COUNTRY || kind == PRED_ASN)
			return true;
	}
	return false;
}

static void check_effect(struct findings *f, uint32_t rule, uint32_t last_allow)
{
	const struct img_rule *r = &f->rules[rule];

	if (is_monitor(r) || r->log != POLICY_LOG_INFO)
		return;
	if (is_deny(r) && (last_allow == POLICY_NO_RULE || rule > last_allow) && r->conds.count > 0) {
		diag_warning(f->d, f->tree, "no-effect", &f->statements[rule]->at,
			     "without this rule its requests are denied as well: no rule behind it allows anything");
		return;
	}
	for (uint32_t next = rule + 1; next < f->n && next <= rule + BEHIND_MAX; next++) {
		if (is_monitor(&f->rules[next]))
			continue;
		if (!same_effect(r, &f->rules[next]) || (!is_deny(r) && is_more(f, &f->rules[next])))
			return;
		/* Of two that need each other, only one can be left out. */
		if (f->cover[next] == POLICY_NO_RULE && covers(f, next, rule) && (is_deny(r) || !is_more(f, r))) {
			diag_warning(f->d, f->tree, "no-effect", &f->statements[rule]->at,
				     "without this rule, rule %s behind it decides the same", name_of(f, next));
			return;
		}
	}
}

static bool has_expired(const struct findings *f, const struct img_rule *r)
{
	for (uint32_t n = 0; n < r->conds.count; n++) {
		const struct img_pred *p = &f->preds[f->conds[r->conds.first + n].pred];

		if (p->kind == PRED_UNTIL && *IMAGE_AT(f->image, SEC_INSTANT, int64_t, p->a.first) <= f->now)
			return true;
	}
	return false;
}

static bool never_matches(const struct findings *f, const struct img_rule *r)
{
	uint32_t traits = index_rule_traits(r, f->conds, f->preds);
	bool never = (traits & TRAITS_COMMANDS) == 0 || (traits & TRAITS_METHODS) == 0 || (traits & TRAITS_WAYS) == 0;

	for (uint32_t m = 0; m < r->conds.count; m++) {
		const struct img_cond *x = &f->conds[r->conds.first + m];
		const struct img_pred *p = &f->preds[x->pred];

		for (uint32_t n = 0; n < m && !never; n++) {
			const struct img_cond *y = &f->conds[r->conds.first + n];
			const struct img_pred *q = &f->preds[y->pred];

			/* Said and denied at once, or two lists of ports without one in common. */
			never = x->flags != y->flags && p->kind == q->kind && p->kind != PRED_FROM &&
				p->kind != PRED_UNTIL &&
				within(f, (x->flags & COND_NEGATED) != 0 ? q : p,
				       (x->flags & COND_NEGATED) != 0 ? p : q) &&
				p->kind != PRED_REGEX && p->kind != PRED_GROUP && p->kind != PRED_DOMAIN &&
				p->kind != PRED_CIDR && p->kind != PRED_COUNTRY && p->kind != PRED_ASN;
			never |= p->kind == PRED_PORT && q->kind == PRED_PORT && x->flags == 0 && y->flags == 0 &&
				 ports_apart(f->image, p, q);
		}
	}
	return never;
}

static void check_never(struct findings *f, uint32_t rule)
{
	const struct img_rule *r = &f->rules[rule];

	if (has_expired(f, r))
		diag_warning(f->d, f->tree, "expired", &f->statements[rule]->at,
			     "this rule has expired and matches nothing any more");
	if (never_matches(f, r))
		diag_warning(f->d, f->tree, "never-matches", &f->statements[rule]->at,
			     "the conditions of this rule contradict each other: it never matches");
}

struct search {
	const char *text;
	const struct ast_place *at;
};

static void find_pattern(const struct ast_values *list, struct search *s)
{
	for (const struct ast_value *v = list->first; v != NULL && s->at == NULL; v = v->next)
		if (!v->set && strcmp(v->text, s->text) == 0)
			s->at = &v->at;
}

static void find_entry(const struct ast_value *v, void *arg)
{
	static struct ast_place place;
	struct search *s = arg;

	if (s->at == NULL && strcmp(v->text, s->text) == 0) {
		place = v->at; /* the value ends with this call */
		s->at = &place;
	}
}

/* Where a pattern is said first; NULL if nowhere. */
static const struct ast_place *place_of_pattern(const struct policy_tree *t, const char *text)
{
	struct search s = {.text = text};

	for (const struct ast_statement *st = t->first; st != NULL && s.at == NULL; st = st->next) {
		if (st->kind == AST_SET && st->set_kind == AST_SET_REGEX) {
			find_pattern(&st->values, &s);
			if (st->list != NULL)
				ast_each_entry(st->list, find_entry, &s);
		}
		for (const struct ast_clause *c = st->kind == AST_RULE ? st->clauses.first : NULL; c != NULL; c = c->next)
			if (c->kind == AST_TO_REGEX)
				find_pattern(&c->values, &s);
	}
	return s.at;
}

/* Names that have nothing in common but being names. */
static void check_patterns(struct findings *f)
{
	static const char *const strangers[] = {"a.example", "www.xn--strae-oqa.test", "q7.z-9.invalid",
						"localhost", "mail-3.0b1.museum",      "x_y.kk.travel",
						"y.co",	     "host.9f.internal"};
	uint32_t n = image_count(f->image, SEC_PATTERN);
	pcre2_match_data *data = pcre2_match_data_create(1, NULL);

	for (uint32_t i = 0; data != NULL && i < n; i++) {
		const struct img_text *t = IMAGE_AT(f->image, SEC_PATTERN, struct img_text, i);
		size_t matched = 0, offset;
		struct err why;
		pcre2_code *code = image_regex_compile(image_text(f->image, *t), t->len, &offset, &why);
		char shown[DIAG_QUOTE_MAX];

		for (size_t k = 0; code != NULL && k < sizeof strangers / sizeof strangers[0]; k++)
			matched += pcre2_match(code, (PCRE2_SPTR)strangers[k], strlen(strangers[k]), 0, 0, data,
					       f->image->match_context) >= 0;
		pcre2_code_free(code);
		if (matched + 1 >= sizeof strangers / sizeof strangers[0])
			diag_warning(f->d, f->tree, "broad-regex",
				     f->d->count > POLICY_DIAGNOSTICS_MAX ? NULL : place_of_pattern(f->tree, image_text(f->image, *t)),
				     "the regular expression \"%s\" matches nearly every name",
				     diag_quote(image_text(f->image, *t), t->len, shown));
	}
	pcre2_match_data_free(data);
}

static bool has_kind(const struct findings *f, const struct img_rule *r, uint32_t kind)
{
	for (uint32_t n = 0; n < r->conds.count; n++)
		if (f->preds[f->conds[r->conds.first + n].pred].kind == kind &&
		    (f->conds[r->conds.first + n].flags & COND_NEGATED) == 0)
			return true;
	return false;
}

/* ---- two rules that no request satisfies both of ---- */

/* More values are not compared one by one. */
#define APART_MAX 1000

static bool words_apart(const struct policy_image *i, const struct img_pred *x, const struct img_pred *y)
{
	const struct img_word *w = IMAGE_AT(i, SEC_WORD, struct img_word, x->a.first);

	for (uint32_t n = 0; n < x->a.count; n++)
		if (w[n].text != WORD_FREE && word_in(i, y, &w[n]))
			return false;
	return true;
}

static bool ranges_apart(const struct policy_image *i, const struct img_pred *x, const struct img_pred *y)
{
	const struct img_range4 *a = IMAGE_AT(i, SEC_RANGE4, struct img_range4, x->a.first);
	const struct img_range4 *b = IMAGE_AT(i, SEC_RANGE4, struct img_range4, y->a.first);
	const struct img_range6 *a6 = IMAGE_AT(i, SEC_RANGE6, struct img_range6, x->b.first);
	const struct img_range6 *b6 = IMAGE_AT(i, SEC_RANGE6, struct img_range6, y->b.first);
	uint32_t n = 0;

	for (uint32_t m = 0; m < x->a.count; m++) {
		while (n < y->a.count && b[n].hi < a[m].lo)
			n++;
		if (n < y->a.count && b[n].lo <= a[m].hi)
			return false;
	}
	n = 0;
	for (uint32_t m = 0; m < x->b.count; m++) {
		while (n < y->b.count && memcmp(b6[n].hi, a6[m].lo, 16) < 0)
			n++;
		if (n < y->b.count && memcmp(b6[n].lo, a6[m].hi, 16) <= 0)
			return false;
	}
	return true;
}

/* True if no request satisfies both conditions. */
static bool conds_apart(const struct findings *f, const struct img_cond *x, const struct img_cond *y)
{
	const struct img_pred *p = &f->preds[x->pred], *q = &f->preds[y->pred];
	bool x_negated = (x->flags & COND_NEGATED) != 0, y_negated = (y->flags & COND_NEGATED) != 0;

	if (p->kind != q->kind || p->sets.count > 0 || q->sets.count > 0 || (x_negated && y_negated))
		return false;
	if (p->a.count > APART_MAX || q->a.count > APART_MAX || p->b.count > APART_MAX || q->b.count > APART_MAX)
		return false;
	switch ((enum pred_kind)p->kind) {
	case PRED_PORT:
	case PRED_CLIENT:
	case PRED_USER:
	case PRED_CLAIMED_USER:
	case PRED_LISTENER:
	case PRED_GROUP:
		break;
	default:
		return false;
	}
	if (x_negated || y_negated)
		return x_negated ? within(f, q, p) : within(f, p, q);
	switch ((enum pred_kind)p->kind) {
	case PRED_PORT:
		return ports_apart(f->image, p, q);
	case PRED_CLIENT:
		return ranges_apart(f->image, p, q);
	case PRED_GROUP:
		return false; /* one may be in both */
	default:
		return words_apart(f->image, p, q);
	}
}

/* True if it is proven that no request satisfies both rules, wherever it goes. */
static bool rules_apart(const struct findings *f, const struct img_rule *a, const struct img_rule *b)
{
	uint32_t both = index_rule_traits(a, f->conds, f->preds) & index_rule_traits(b, f->conds, f->preds);

	if ((both & TRAITS_COMMANDS) == 0 || (both & TRAITS_METHODS) == 0)
		return true;
	for (uint32_t m = 0; m < a->conds.count; m++)
		for (uint32_t n = 0; n < b->conds.count; n++)
			if (conds_apart(f, &f->conds[a->conds.first + m], &f->conds[b->conds.first + n]))
				return true;
	return false;
}

/* ---- names by their addresses ---- */

static bool may_decide(const struct findings *f, uint32_t rule)
{
	const struct img_rule *r = &f->rules[rule];

	return !is_monitor(r) && f->cover[rule] == POLICY_NO_RULE && !has_expired(f, r) && !never_matches(f, r);
}

/* The rules that let any address pass, in order, into open, which has room for all; their number. */
static uint32_t find_open(const struct findings *f, uint32_t *open)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < f->n; i++) {
		const struct img_rule *r = &f->rules[i];
		bool literals = (index_rule_traits(r, f->conds, f->preds) & TRAIT_BY(false)) != 0;

		/* Addresses are dealt with from here on. */
		if (is_deny(r) && !is_monitor(r) && literals && has_kind(f, r, PRED_BY_NAME) && r->conds.count == 1)
			break;
		if (!is_deny(r) && literals && !has_kind(f, r, PRED_CIDR) && !has_kind(f, r, PRED_COUNTRY) &&
		    !has_kind(f, r, PRED_ASN) && may_decide(f, i))
			open[n++] = i;
	}
	return n;
}

/* Names that are denied by name are reached by their addresses, if a rule behind lets any address pass. */
static void check_sidestep(struct findings *f)
{
	uint32_t *open = calloc((size_t)f->n + 1, sizeof *open);
	uint32_t behind = 0;

	if (open == NULL)
		abort();
	uint32_t n = find_open(f, open);

	for (uint32_t i = 0; i < f->n; i++) {
		const struct img_rule *deny = &f->rules[i];
		uint32_t by;

		while (behind < n && open[behind] < i)
			behind++;
		if (!is_deny(deny) || !(has_kind(f, deny, PRED_DOMAIN) || has_kind(f, deny, PRED_REGEX)) || !may_decide(f, i))
			continue;
		for (by = behind; by < n && by < behind + BEHIND_MAX && rules_apart(f, deny, &f->rules[open[by]]); by++)
			;
		if (by < n && by < behind + BEHIND_MAX)
			diag_warning(f->d, f->tree, "sidestep", &f->statements[i]->at,
				     "who gives an address instead of the name passes by this rule, and rule %s allows "
				     "it; 'by name' there, or a deny rule 'by address', prevents that",
				     name_of(f, open[by]));
	}
	free(open);
}

void policy_find(const struct policy_tree *t, const struct policy_image *image, int64_t now,
		 struct policy_diagnostics *d)
{
	struct findings f = {.tree = t,
			     .image = image,
			     .now = now,
			     .d = d,
			     .rules = image_section(image, SEC_RULE),
			     .conds = image_section(image, SEC_COND),
			     .preds = image_section(image, SEC_PRED),
			     .n = image_count(image, SEC_RULE)};
	uint32_t last_allow = POLICY_NO_RULE, n = 0;

	f.statements = calloc((size_t)f.n + 1, sizeof f.statements[0]);
	f.cover = calloc((size_t)f.n + 1, sizeof f.cover[0]);
	if (f.statements == NULL || f.cover == NULL)
		abort();
	for (const struct ast_statement *s = t->first; s != NULL && n < f.n; s = s->next)
		if (ast_is_rule(s))
			f.statements[n++] = s;
	for (uint32_t i = 0; i < n; i++)
		if (!is_deny(&f.rules[i]) && !is_monitor(&f.rules[i]))
			last_allow = i;
	for (uint32_t i = 0; i < f.n; i++)
		f.cover[i] = find_cover(&f, i);
	for (uint32_t i = 0; i < n; i++) {
		size_t before = d->count;

		check_never(&f, i);
		if (d->count == before)
			check_shadow(&f, i);
		if (d->count == before)
			check_effect(&f, i, last_allow);
	}
	check_patterns(&f);
	check_sidestep(&f);
	free(f.cover);
	free(f.statements);
}

/* ---- groups --------------------------------------------------------------------------------------------------------
 */

struct groups {
	struct said {
		const struct ast_value *v;
		size_t order; /* in the text */
	} * each;
	size_t count, room;
};

static int by_name(const void *a, const void *b)
{
	const struct said *x = a, *y = b;
	int rc = strcmp(x->v->text, y->v->text);

	return rc != 0 ? rc : (x->order > y->order) - (x->order < y->order);
}

static int by_order(const void *a, const void *b)
{
	const struct said *x = a, *y = b;

	return (x->order > y->order) - (x->order < y->order);
}

static void add_group(struct groups *g, const struct ast_value *v)
{
	if (g->count == g->room) {
		g->room = g->room == 0 ? 64 : g->room * 2;
		g->each = reallocarray(g->each, g->room, sizeof g->each[0]);
		if (g->each == NULL)
			abort();
	}
	g->each[g->count] = (struct said){v, g->count};
	g->count++;
}

/* Leaves each name once, where it is said first. */
static void unite(struct groups *g)
{
	size_t n = 0;

	if (g->count == 0)
		return;
	qsort(g->each, g->count, sizeof g->each[0], by_name);
	for (size_t i = 0; i < g->count; i++)
		if (n == 0 || strcmp(g->each[i].v->text, g->each[n - 1].v->text) != 0)
			g->each[n++] = g->each[i];
	g->count = n;
	qsort(g->each, g->count, sizeof g->each[0], by_order);
}

static void add_groups(struct groups *g, const struct ast_values *list)
{
	for (const struct ast_value *v = list->first; v != NULL; v = v->next)
		if (!v->set)
			add_group(g, v);
}

struct listed {
	const struct policy_tree *tree;
	bool (*known)(const char *group, void *arg);
	void *arg;
	struct policy_diagnostics *d;
};

static void check_group(const struct listed *l, const struct ast_value *v)
{
	char shown[DIAG_QUOTE_MAX];

	if (!l->known(v->text, l->arg))
		diag_warning(l->d, l->tree, "unknown-group", &v->at, "this machine knows no group '%s'",
			     diag_quote(v->text, v->len, shown));
}

static void check_listed(const struct ast_value *v, void *arg)
{
	check_group(arg, v);
}

void policy_find_groups(const struct policy_tree *t, bool (*known)(const char *group, void *arg), void *arg,
			struct policy_diagnostics *d)
{
	struct listed l = {t, known, arg, d};
	struct groups g = {0};

	for (const struct ast_statement *s = t->first; s != NULL; s = s->next) {
		bool set = s->kind == AST_SET && s->set_kind == AST_SET_GROUP;

		if (set)
			add_groups(&g, &s->values);
		/* A list names a group once, and its entries do not outlive the call. */
		if (set && s->list != NULL)
			ast_each_entry(s->list, check_listed, &l);
		for (const struct ast_clause *c = s->kind == AST_RULE ? s->clauses.first : NULL; c != NULL; c = c->next)
			if (c->kind == AST_GROUP)
				add_groups(&g, &c->values);
	}
	unite(&g);
	for (size_t i = 0; i < g.count; i++)
		check_group(&l, g.each[i].v);
	free(g.each);
}
