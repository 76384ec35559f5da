/* Tree to image.  Every distinct condition becomes one predicate, its values sorted into the tables that the matcher
 * searches; the conditions of a rule are put in the order of their kinds, which is from cheap to dear, time last. */
#include "config.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "policy/blob.h"
#include "policy/diag.h"
#include "policy/filter.h"
#include "policy/guard.h"
#include "policy/guide.h"
#include "policy/hash.h"
#include "policy/image.h"
#include "policy/index_build.h"
#include "policy/literal_build.h"
#include "policy/value.h"
#include "policy/window.h"
#include "policy/zone.h"

/* ---- memory --------------------------------------------------------------------------------------------------------
 */

/* Numbers for texts: equal texts get the number that the first was given. */
struct table {
	struct blob keys;
	struct slot {
		size_t offset, len;
		uint32_t number;
		bool taken;
	} * slots;
	size_t size, count;
};

static uint64_t hash(const void *key, size_t len)
{
	const uint8_t *p = key;
	uint64_t h = 14695981039346656037u;

	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 1099511628211u;
	return h ^ h >> 32;
}

static struct slot *table_place(const struct table *t, const void *key, size_t len)
{
	size_t at = hash(key, len) & (t->size - 1);

	while (t->slots[at].taken &&
	       (t->slots[at].len != len || memcmp(t->keys.data + t->slots[at].offset, key, len) != 0))
		at = (at + 1) & (t->size - 1);
	return &t->slots[at];
}

static void table_grow(struct table *t)
{
	struct slot *old = t->slots;
	size_t old_size = t->size;

	t->size = old_size == 0 ? 64 : old_size * 2;
	t->slots = calloc(t->size, sizeof t->slots[0]);
	if (t->slots == NULL)
		abort();
	for (size_t i = 0; i < old_size; i++)
		if (old[i].taken)
			*table_place(t, t->keys.data + old[i].offset, old[i].len) = old[i];
	free(old);
}

/* True if the key has a number already, which is then in *number; otherwise it gets *number. */
static bool table_number(struct table *t, const void *key, size_t len, uint32_t *number)
{
	if ((t->count + 1) * 4 > t->size * 3)
		table_grow(t);
	struct slot *s = table_place(t, key, len);

	if (s->taken) {
		*number = s->number;
		return true;
	}
	*s = (struct slot){.offset = t->keys.len, .len = len, .number = *number, .taken = true};
	blob_add(&t->keys, key, len);
	t->count++;
	return false;
}

static bool table_find(const struct table *t, const void *key, size_t len, uint32_t *number)
{
	const struct slot *s = t->size == 0 ? NULL : table_place(t, key, len);

	if (s == NULL || !s->taken)
		return false;
	*number = s->number;
	return true;
}

static void table_clear(struct table *t)
{
	free(t->keys.data);
	free(t->slots);
}

/* ---- the image in the making ---------------------------------------------------------------------------------------
 */

struct compile {
	const struct policy_tree *tree;
	struct policy_diagnostics *d;
	struct blob sections[SECTION_COUNT];
	struct table texts, preds, patterns, windows, zones, set_sizes;
	uint64_t seed;	    /* of the hashes of names */
	bool too_large;	    /* more text than words can point to */
	struct blob groups; /* struct img_text, in any order */
	struct prefix nat64[GUARD_NAT64_MAX];
	size_t nnat64;
	bool answers_all;
	unsigned grace_s;
	uint32_t slots; /* of what is known of names, given out */
};

static uint32_t section_count(const struct compile *c, enum image_section s)
{
	return (uint32_t)(c->sections[s].len / image_record_size(s));
}

static void *section_add(struct compile *c, enum image_section s, const void *record)
{
	return blob_add(&c->sections[s], record, image_record_size(s));
}

static struct img_text text_add(struct compile *c, const char *text, size_t len)
{
	struct img_text t = {.offset = (uint32_t)c->sections[SEC_TEXT].len, .len = (uint32_t)len};

	if (!table_number(&c->texts, text, len, &t.offset)) {
		blob_add(&c->sections[SEC_TEXT], text, len);
		blob_add(&c->sections[SEC_TEXT], "", 1);
	}
	return t;
}

static const char *text_of(const struct compile *c, struct img_text t)
{
	return (const char *)c->sections[SEC_TEXT].data + t.offset;
}

/* A tree that was not checked, or a fault that the checks do not know. */
static void refuse(struct compile *c, const struct ast_place *at, const struct err *why)
{
	diag_error(c->d, c->tree, "bad-value", at, "%s", why->text);
}

/* ---- values of predicates ------------------------------------------------------------------------------------------
 */

/* Collects the values of one condition before they are sorted. */
struct collect {
	struct compile *c;
	enum ast_clause_kind kind;
	struct blob items;
	struct blob openings; /* struct value_range: see guard.h */
	struct blob words;    /* flags, text, NUL; again and again */
	size_t nwords;
	unsigned bits;
};

static void collect_opening(const struct value_range *part, void *arg)
{
	blob_add(arg, part, sizeof *part);
}

static void collect_range(struct collect *col, const struct value_range *r)
{
	blob_add(&col->items, r, sizeof *r);
	if (col->kind == AST_TO_CIDR)
		guard_openings(r, col->c->nat64, col->c->nnat64, collect_opening, &col->openings);
}

static void add_word(struct collect *col, unsigned flags, const char *text, size_t len)
{
	uint8_t byte = (uint8_t)flags;

	blob_add(&col->words, &byte, 1);
	blob_add(&col->words, text, len + 1);
	col->nwords++;
}

static void collect_word(struct collect *col, const char *text, size_t len)
{
	add_word(col, 0, text, len);
	if (col->kind == AST_GROUP) {
		struct img_text t = text_add(col->c, text, len);

		blob_add(&col->c->groups, &t, sizeof t);
	}
}

static void collect_pattern(struct collect *col, const char *text, size_t len)
{
	uint32_t number = section_count(col->c, SEC_PATTERN);

	if (!table_number(&col->c->patterns, text, len, &number)) {
		struct img_text t = text_add(col->c, text, len);

		section_add(col->c, SEC_PATTERN, &t);
	}
	blob_add(&col->items, &number, sizeof number);
}

static void collect_meaning(struct collect *col, const struct value_meaning *m)
{
	struct img_port port;

	switch (m->kind) {
	case AST_SET_CIDR:
		collect_range(col, &m->range);
		break;
	case AST_SET_DOMAIN:
		add_word(col, m->domain.flags, m->domain.name.text, m->domain.name.len);
		break;
	case AST_SET_REGEX:
		collect_pattern(col, m->text.bytes, m->text.len);
		break;
	case AST_SET_PORT:
		port = (struct img_port){.lo = m->ports.lo, .hi = m->ports.hi};
		blob_add(&col->items, &port, sizeof port);
		break;
	case AST_SET_USER:
	case AST_SET_GROUP:
		collect_word(col, m->text.bytes, m->text.len);
		break;
	case AST_SET_COUNTRY:
		blob_add(&col->items, &m->country, sizeof m->country);
		break;
	case AST_SET_ASN:
		blob_add(&col->items, &m->asn, sizeof m->asn);
		break;
	}
}

static void collect_window(struct collect *col, const struct ast_value *v, struct err *why, bool *ok)
{
	uint32_t number = 0;

	*ok = table_number(&col->c->windows, v->text, v->len, &number);
	if (!*ok)
		err_set(why, "there is no window '%s'", v->text);
	else
		blob_add(&col->items, &number, sizeof number);
}

static void collect_bits(struct collect *col, const struct ast_value *v, struct err *why, bool *ok)
{
	enum policy_command command;
	enum policy_method method;
	unsigned bits = 0;
	bool by_name;

	if (col->kind == AST_COMMAND) {
		*ok = value_command(v->text, &command, why) == 0;
		bits = *ok ? 1u << command : 0;
	} else if (col->kind == AST_METHOD) {
		*ok = value_method(v->text, &method, why) == 0;
		bits = *ok ? value_method_bits(method) : 0;
	} else if (col->kind == AST_STRENGTH) {
		*ok = value_strength(v->text, &bits, why) == 0;
	} else {
		*ok = value_by(v->text, &by_name, why) == 0;
		bits = *ok ? 1u << by_name : 0;
	}
	col->bits |= bits;
}

static void collect_value(const struct ast_value *v, void *arg)
{
	struct collect *col = arg;
	int kind = ast_clause_set_kind(col->kind);
	struct value_meaning m;
	struct err why = {{0}};
	bool ok = true;

	if (kind >= 0) {
		ok = value_read((enum ast_set_kind)kind, v->text, v->len, &m, &why) == 0;
		if (ok)
			collect_meaning(col, &m);
	} else if (col->kind == AST_LISTENER) {
		collect_word(col, v->text, v->len);
	} else if (col->kind == AST_DURING) {
		collect_window(col, v, &why, &ok);
	} else {
		collect_bits(col, v, &why, &ok);
	}
	if (!ok)
		refuse(col->c, &v->at, &why);
}

/* ---- sorting and merging -------------------------------------------------------------------------------------------
 */

static int compare_ranges(const void *a, const void *b)
{
	return addr_compare(&((const struct value_range *)a)->lo, &((const struct value_range *)b)->lo);
}

static int compare_ports(const void *a, const void *b)
{
	return ((const struct img_port *)a)->lo - ((const struct img_port *)b)->lo;
}

static int compare_countries(const void *a, const void *b)
{
	return *(const uint16_t *)a - *(const uint16_t *)b;
}

static int compare_numbers(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static int compare_texts(const void *a, const void *b, void *arg)
{
	return strcmp(text_of(arg, *(const struct img_text *)a), text_of(arg, *(const struct img_text *)b));
}

static uint32_t v4_number(const struct addr *a)
{
	return (uint32_t)a->bytes[0] << 24 | (uint32_t)a->bytes[1] << 16 | (uint32_t)a->bytes[2] << 8 | a->bytes[3];
}

/* True if r begins within or right behind a range that ends at hi. */
static bool continues(const struct addr *hi, const struct addr *lo)
{
	struct addr next = *hi;

	if (hi->family != lo->family)
		return false;
	if (addr_compare(lo, hi) <= 0)
		return true;
	for (size_t i = addr_len(&next); i-- > 0 && ++next.bytes[i] == 0;)
		;
	return addr_equal(&next, lo);
}

static void put_range(struct compile *c, const struct value_range *r)
{
	if (r->lo.family == ADDR_V4) {
		section_add(c, SEC_RANGE4, &(struct img_range4){v4_number(&r->lo), v4_number(&r->hi)});
		return;
	}
	struct img_range6 r6;

	memcpy(r6.lo, r->lo.bytes, 16);
	memcpy(r6.hi, r->hi.bytes, 16);
	section_add(c, SEC_RANGE6, &r6);
}

/* IPv4 sorts before IPv6, so that each family's ranges end up together in their section. */
static void put_ranges(struct compile *c, struct blob *items, struct img_span *v4, struct img_span *v6)
{
	struct value_range *r = (struct value_range *)items->data;
	size_t n = items->len / sizeof *r;

	v4->first = section_count(c, SEC_RANGE4);
	v6->first = section_count(c, SEC_RANGE6);
	if (n > 0)
		qsort(r, n, sizeof *r, compare_ranges);
	for (size_t i = 0; i < n; i++) {
		struct value_range merged = r[i];

		while (i + 1 < n && continues(&merged.hi, &r[i + 1].lo)) {
			i++;
			if (addr_compare(&r[i].hi, &merged.hi) > 0)
				merged.hi = r[i].hi;
		}
		put_range(c, &merged);
	}
	v4->count = section_count(c, SEC_RANGE4) - v4->first;
	v6->count = section_count(c, SEC_RANGE6) - v6->first;
}

static struct img_span put_guide(struct compile *c, struct img_span ranges)
{
	struct img_span span = {.first = section_count(c, SEC_GUIDE)};

	if (ranges.count < GUIDE_MIN)
		return span;
	span.count = guide_words(ranges.count);
	uint32_t *guide = blob_add(&c->sections[SEC_GUIDE], NULL, span.count * sizeof guide[0]);
	const struct img_range4 *first = (const struct img_range4 *)c->sections[SEC_RANGE4].data + ranges.first;

	guide_fill(guide, &first->lo, sizeof *first / sizeof(uint32_t), ranges.count);
	return span;
}

static struct img_span put_texts(struct compile *c, enum image_section s, struct blob *items)
{
	struct img_text *t = (struct img_text *)items->data;
	struct img_span span = {.first = section_count(c, s)};
	size_t n = items->len / sizeof *t;

	if (n > 0)
		qsort_r(t, n, sizeof *t, compare_texts, c);
	for (size_t i = 0; i < n; i++)
		if (i == 0 || t[i].offset != t[i - 1].offset)
			section_add(c, s, &t[i]);
	span.count = section_count(c, s) - span.first;
	return span;
}

static const char *word_text(const struct compile *c, const struct img_word *w)
{
	return (const char *)c->sections[SEC_TEXT].data + (w->text >> 2);
}

/* Where text is in a table of words, or belongs. */
static struct img_word *word_place(const struct compile *c, struct img_word *words, uint32_t count, uint64_t hash,
				   const char *text)
{
	uint32_t at = count > WORDS_LISTED ? hash_place(hash, count) : 0;

	while (words[at].text != WORD_FREE &&
	       (words[at].tag != hash_tag(hash) || strcmp(word_text(c, &words[at]), text) != 0))
		at = at + 1 == count ? 0 : at + 1;
	return &words[at];
}

static uint64_t word_hash(const struct compile *c, const struct collect *col, const char *text, size_t len)
{
	return col->kind == AST_TO_DOMAIN ? hash_name(c->seed, text, len) : hash_text(c->seed, text, len);
}

/* The filter of many names, in most of which nothing is found. */
static struct img_span put_filter(struct compile *c, const struct collect *col)
{
	struct img_span span = {.first = section_count(c, SEC_FILTER)};
	const char *p = (const char *)col->words.data;

	if (col->kind != AST_TO_DOMAIN || col->nwords < FILTER_MIN)
		return span;
	span.count = filter_words((uint32_t)col->nwords);
	uint64_t *filter = blob_add(&c->sections[SEC_FILTER], NULL, span.count * sizeof filter[0]);

	for (size_t i = 0; i < col->nwords; i++) {
		size_t len = strlen(++p);

		filter_add(filter, span.count, hash_name(c->seed, p, len));
		p += len + 1;
	}
	return span;
}

/* The words as a list or a hash table, each once; *distinct is how many. */
static struct img_span put_words(struct compile *c, const struct collect *col, uint32_t *distinct)
{
	uint32_t count = (uint32_t)(col->nwords <= WORDS_LISTED ? col->nwords : col->nwords + col->nwords / 4 + 1);
	struct img_word *words = reallocarray(NULL, (size_t)count + 1, sizeof words[0]);
	const char *p = (const char *)col->words.data;

	if (words == NULL)
		abort();
	for (uint32_t i = 0; i <= count; i++)
		words[i] = (struct img_word){.text = WORD_FREE};
	*distinct = 0;
	for (size_t i = 0; i < col->nwords; i++) {
		unsigned flags = (unsigned char)*p++;
		size_t len = strlen(p);
		uint64_t hash = word_hash(c, col, p, len);
		struct img_word *w = word_place(c, words, count, hash, p);

		if (w->text == WORD_FREE) {
			size_t at = c->sections[SEC_TEXT].len;

			if (at >= WORD_TEXT_MAX - len)
				c->too_large = true;
			*w = (struct img_word){.tag = hash_tag(hash), .text = (uint32_t)at << 2};
			blob_add(&c->sections[SEC_TEXT], p, len + 1);
			++*distinct;
		}
		w->text |= flags;
		p += len + 1;
	}
	if (count <= WORDS_LISTED)
		count = *distinct;
	struct img_span span = {section_count(c, SEC_WORD), count};

	blob_add(&c->sections[SEC_WORD], words, count * sizeof words[0]);
	free(words);
	return span;
}

static struct img_span put_ports(struct compile *c, struct blob *items)
{
	struct img_port *p = (struct img_port *)items->data;
	struct img_span span = {.first = section_count(c, SEC_PORT)};
	size_t n = items->len / sizeof *p;

	if (n > 0)
		qsort(p, n, sizeof *p, compare_ports);
	for (size_t i = 0; i < n; i++) {
		struct img_port merged = p[i];

		for (; i + 1 < n && p[i + 1].lo <= merged.hi + 1; i++)
			if (p[i + 1].hi > merged.hi)
				merged.hi = p[i + 1].hi;
		section_add(c, SEC_PORT, &merged);
	}
	span.count = section_count(c, SEC_PORT) - span.first;
	return span;
}

/* Sorted and without repetition, for records that are plain numbers. */
static struct img_span put_numbers(struct compile *c, enum image_section s, struct blob *items,
				   int (*compare)(const void *, const void *))
{
	struct img_span span = {.first = section_count(c, s)};
	size_t size = image_record_size(s), n = items->len / size;

	if (n > 0)
		qsort(items->data, n, size, compare);
	for (size_t i = 0; i < n; i++)
		if (i == 0 || memcmp(items->data + i * size, items->data + (i - 1) * size, size) != 0)
			section_add(c, s, items->data + i * size);
	span.count = section_count(c, s) - span.first;
	return span;
}

/* ---- predicates ----------------------------------------------------------------------------------------------------
 */

static const enum pred_kind pred_kinds[AST_CONDITIONS] = {
	[AST_CLIENT] = PRED_CLIENT,
	[AST_LISTENER] = PRED_LISTENER,
	[AST_USER] = PRED_USER,
	[AST_GROUP] = PRED_GROUP,
	[AST_CLAIMED_USER] = PRED_CLAIMED_USER,
	[AST_METHOD] = PRED_METHOD,
	[AST_STRENGTH] = PRED_METHOD,
	[AST_COMMAND] = PRED_COMMAND,
	[AST_PORT] = PRED_PORT,
	[AST_DURING] = PRED_DURING,
	[AST_BY] = PRED_BY_NAME,
	[AST_TO_CIDR] = PRED_CIDR,
	[AST_TO_DOMAIN] = PRED_DOMAIN,
	[AST_TO_REGEX] = PRED_REGEX,
	[AST_TO_COUNTRY] = PRED_COUNTRY,
	[AST_TO_ASN] = PRED_ASN,
};

/* A set of more values than this is not written out in every condition that names it beside others. */
#define SET_APART 64

static uint32_t condition_pred(struct compile *c, const struct ast_clause *clause);

static void count_value(const struct ast_value *v, void *arg)
{
	(void)v;
	++*(uint32_t *)arg;
}

static uint32_t set_size(struct compile *c, const struct ast_value *set, int kind)
{
	struct ast_value alone = *set;
	struct ast_values list = {.first = &alone, .last = &alone, .count = 1};
	uint32_t size = 0;

	alone.next = NULL;
	if (!table_find(&c->set_sizes, set->text, set->len, &size)) {
		ast_each_value(c->tree, &list, kind, count_value, &size);
		table_number(&c->set_sizes, set->text, set->len, &size);
	}
	return size;
}

/* The values of a condition without the large sets among them, which are predicates of their own (numbers in apart).
 * The list is a copy. */
static struct ast_values own_values(struct compile *c, const struct ast_clause *clause, struct blob *apart)
{
	int kind = ast_clause_set_kind(clause->kind);
	struct ast_values own = {0};

	for (const struct ast_value *v = clause->values.first; v != NULL; v = v->next) {
		struct ast_value *copy = malloc(sizeof *copy);

		if (copy == NULL)
			abort();
		*copy = *v;
		copy->next = NULL;
		if (clause->values.count == 1 || !v->set || set_size(c, v, kind) <= SET_APART) {
			ast_values_append(&own, copy);
			continue;
		}
		struct ast_clause alone = {.kind = clause->kind, .values = {.first = copy, .last = copy, .count = 1}};
		uint32_t number = condition_pred(c, &alone);

		blob_add(apart, &number, sizeof number);
		free(copy);
	}
	return own;
}

static void free_values(struct ast_values *list)
{
	for (struct ast_value *v = list->first, *next; v != NULL; v = next) {
		next = v->next;
		free(v);
	}
}

static void fill_pred(struct compile *c, const struct ast_clause *clause, struct img_pred *p)
{
	struct collect col = {.c = c, .kind = clause->kind};
	struct blob apart = {0};
	struct ast_values values;

	p->kind = pred_kinds[clause->kind];
	values = own_values(c, clause, &apart);
	ast_each_value(c->tree, &values, ast_clause_set_kind(clause->kind), collect_value, &col);
	switch ((enum pred_kind)p->kind) {
	case PRED_CLIENT:
	case PRED_CIDR:
		put_ranges(c, &col.items, &p->a, &p->b);
		p->aid = put_guide(c, p->a);
		put_ranges(c, &col.openings, &p->c, &p->d);
		break;
	case PRED_LISTENER:
	case PRED_USER:
	case PRED_CLAIMED_USER:
	case PRED_GROUP:
	case PRED_DOMAIN:
		p->a = put_words(c, &col, &p->b.count);
		p->aid = put_filter(c, &col);
		break;
	case PRED_REGEX:
		p->a = put_numbers(c, SEC_INDEX, &col.items, compare_numbers);
		literal_build(c->sections, c->seed, p);
		break;
	case PRED_DURING:
		p->a = put_numbers(c, SEC_INDEX, &col.items, compare_numbers);
		break;
	case PRED_PORT:
		p->a = put_ports(c, &col.items);
		break;
	case PRED_COUNTRY:
		p->a = put_numbers(c, SEC_COUNTRY, &col.items, compare_countries);
		break;
	case PRED_ASN:
		p->a = put_numbers(c, SEC_ASN, &col.items, compare_numbers);
		break;
	default:
		p->a.first = col.bits;
		break;
	}
	p->sets = put_numbers(c, SEC_INDEX, &apart, compare_numbers);
	if (c->slots < KNOWN_SLOTS && ((p->kind == PRED_DOMAIN && p->aid.count > 0) || p->kind == PRED_REGEX))
		p->slot = ++c->slots;
	free(apart.data);
	free_values(&values);
	free(col.items.data);
	free(col.openings.data);
	free(col.words.data);
}

/* The predicate's number; conditions that are written alike share one. */
static uint32_t condition_pred(struct compile *c, const struct ast_clause *clause)
{
	uint32_t number = 0;
	struct img_pred p = {0};
	struct blob key = {0};

	blob_add(&key, &clause->kind, sizeof clause->kind);
	for (const struct ast_value *v = clause->values.first; v != NULL; v = v->next) {
		blob_add(&key, v->set ? "@" : "=", 1);
		blob_add(&key, v->text, v->len + 1);
	}
	if (!table_find(&c->preds, key.data, key.len, &number)) {
		/* Sets of its own come first. */
		fill_pred(c, clause, &p);
		number = section_count(c, SEC_PRED);
		table_number(&c->preds, key.data, key.len, &number);
		section_add(c, SEC_PRED, &p);
	}
	free(key.data);
	return number;
}

/* The instant that a from or until clause means. */
static int64_t clause_instant(struct compile *c, const struct ast_clause *clause)
{
	/* Zone 0 is the policy's, and its changes come first. */
	const struct img_zone *z = (const struct img_zone *)c->sections[SEC_ZONE].data;
	const struct img_transition *changes = (const struct img_transition *)c->sections[SEC_TRANSITION].data;
	const struct ast_value *v = clause->values.first;
	struct value_moment m;
	struct err why;

	if (value_moment(v->text, true, &m, &why) != 0) {
		refuse(c, &v->at, &why);
		return 0;
	}
	/* A day alone is meant whole: `until` it ends when the next day begins. */
	int64_t shown = (int64_t)m.day * 86400 + (m.second >= 0 ? m.second : clause->kind == AST_UNTIL ? 86400 : 0);

	return window_first_instant(changes, z->transitions.count, z->before, shown);
}

static uint32_t period_pred(struct compile *c, const struct ast_clause *clause)
{
	uint32_t number = section_count(c, SEC_PRED);
	struct img_pred p = {.kind = clause->kind == AST_FROM ? PRED_FROM : PRED_UNTIL};
	struct {
		int64_t at;
		int64_t kind;
	} key = {clause_instant(c, clause), -1 - (int64_t)clause->kind};

	if (!table_number(&c->preds, &key, sizeof key, &number)) {
		p.a = (struct img_span){section_count(c, SEC_INSTANT), 1};
		section_add(c, SEC_INSTANT, &key.at);
		section_add(c, SEC_PRED, &p);
	}
	return number;
}

/* ---- rules ---------------------------------------------------------------------------------------------------------
 */

static struct img_text clause_text(struct compile *c, const struct ast_statement *s, enum ast_clause_kind kind)
{
	const struct ast_clause *clause = ast_clause_find(s, kind);

	return clause == NULL ? text_add(c, "", 0) : text_add(c, clause->values.first->text, clause->values.first->len);
}

static void hold_word(const struct compile *c, const struct img_pred *p, struct img_cond *cond)
{
	if (p->a.count != 1)
		return;
	const struct img_word *w = &((const struct img_word *)c->sections[SEC_WORD].data)[p->a.first];

	if (strlen(word_text(c, w)) > COND_WORD_MAX)
		return;
	cond->form = COND_WORD;
	cond->count = (uint8_t)strlen(word_text(c, w));
	cond->held.word.domain = w->text & 3;
	memcpy(cond->held.word.bytes, word_text(c, w), cond->count);
}

/* Copies a predicate's values into the condition if they are few. */
static void hold_values(const struct compile *c, struct img_cond *cond)
{
	const struct img_pred *p = &((const struct img_pred *)c->sections[SEC_PRED].data)[cond->pred];

	cond->kind = (uint8_t)p->kind;
	if (p->sets.count > 0)
		return;
	if (p->slot != 0) {
		cond->form = COND_KNOWN;
		cond->held.slot = p->slot;
		return;
	}
	switch ((enum pred_kind)p->kind) {
	case PRED_COMMAND:
	case PRED_METHOD:
	case PRED_BY_NAME:
		cond->form = COND_BITS;
		cond->held.bits = p->a.first;
		break;
	case PRED_LISTENER:
	case PRED_USER:
	case PRED_CLAIMED_USER:
	case PRED_GROUP:
	case PRED_DOMAIN:
		hold_word(c, p, cond);
		break;
	case PRED_PORT:
		if (p->a.count == 0 || p->a.count > COND_PORTS_MAX)
			break;
		cond->form = COND_PORTS;
		cond->count = (uint8_t)p->a.count;
		memcpy(cond->held.ports, (const struct img_port *)c->sections[SEC_PORT].data + p->a.first,
		       p->a.count * sizeof(struct img_port));
		break;
	case PRED_CLIENT:
	case PRED_CIDR:
		if (p->a.count == 0 || p->a.count > COND_RANGES_MAX || p->b.count > 0)
			break;
		cond->form = COND_RANGES;
		cond->count = (uint8_t)p->a.count;
		memcpy(cond->held.ranges, (const struct img_range4 *)c->sections[SEC_RANGE4].data + p->a.first,
		       p->a.count * sizeof(struct img_range4));
		break;
	default:
		break;
	}
}

static void add_conds(struct compile *c, const struct ast_statement *s, struct img_span *span)
{
	struct blob conds = {0};

	for (const struct ast_clause *clause = s->clauses.first; clause != NULL; clause = clause->next) {
		struct img_cond cond = {.flags = clause->negated ? COND_NEGATED : 0};

		if (clause->kind < AST_CONDITIONS)
			cond.pred = condition_pred(c, clause);
		else if (clause->kind == AST_FROM || clause->kind == AST_UNTIL)
			cond.pred = period_pred(c, clause);
		else
			continue;
		hold_values(c, &cond);
		blob_add(&conds, &cond, sizeof cond);
	}
	span->first = section_count(c, SEC_COND);
	/* By kind, and as written within a kind. */
	for (uint32_t kind = 0; kind < PRED_KINDS; kind++) {
		for (size_t i = 0; i < conds.len / sizeof(struct img_cond); i++) {
			const struct img_cond *cond = &((const struct img_cond *)conds.data)[i];

			if (cond->kind == kind)
				section_add(c, SEC_COND, cond);
		}
	}
	span->count = section_count(c, SEC_COND) - span->first;
	free(conds.data);
}

static void add_rule(struct compile *c, const struct ast_statement *s)
{
	const struct ast_clause *source = ast_clause_find(s, AST_SOURCE), *log = ast_clause_find(s, AST_LOG);
	enum policy_log level = POLICY_LOG_INFO;
	struct img_rule r;
	struct err why;

	memset(&r, 0, sizeof r);
	r.name = text_add(c, s->name->text, s->name->len);
	r.owner = clause_text(c, s, AST_OWNER);
	r.ticket = clause_text(c, s, AST_TICKET);
	r.comment = clause_text(c, s, AST_COMMENT);
	r.flags = (uint8_t)((s->allow ? RULE_ALLOW : 0) | (s->monitor ? RULE_MONITOR : 0) |
			    (ast_clause_find(s, AST_INTERNAL) != NULL ? RULE_INTERNAL : 0));
	if (source != NULL && value_address(source->values.first->text, &r.source, &why) != 0)
		refuse(c, &source->at, &why);
	if (log != NULL && value_log(log->values.first->text, &level, &why) != 0)
		refuse(c, &log->at, &why);
	r.log = (uint8_t)level;
	add_conds(c, s, &r.conds);
	section_add(c, SEC_RULE, &r);
}

/* ---- windows and zones ---------------------------------------------------------------------------------------------
 */

/* The number of a zone, loaded when first met. */
static uint32_t add_zone(struct compile *c, const char *name, const struct ast_place *at)
{
	uint32_t number = section_count(c, SEC_ZONE);
	struct img_zone iz;
	struct zone z;
	struct err why;

	if (table_number(&c->zones, name, strlen(name), &number))
		return number;
	if (zone_load(name, &z, &why) != 0) {
		refuse(c, at, &why);
		z = (struct zone){0};
	}
	memset(&iz, 0, sizeof iz);
	iz.name = text_add(c, name, strlen(name));
	iz.before = z.before;
	iz.until = z.until;
	iz.transitions = (struct img_span){section_count(c, SEC_TRANSITION), (uint32_t)z.count};
	for (size_t i = 0; i < z.count; i++) {
		/* "Since the big bang", as some files say it, is long before any request. */
		int64_t when =
			z.changes[i].at < -((int64_t)1 << 39) ? -((int64_t)1 << 39) + (int64_t)i : z.changes[i].at;

		section_add(c, SEC_TRANSITION, &(struct img_transition){.at = when, .offset = z.changes[i].offset});
	}
	section_add(c, SEC_ZONE, &iz);
	zone_clear(&z);
	return number;
}

/* Values of a window: days, then their hours, then more days ...  Days alone are whole days, hours alone are of every
 * day. */
static void add_hours(struct compile *c, const struct ast_statement *s)
{
	struct err why = {{0}};
	unsigned days = 0;
	bool days_open = false, hours_seen = false;

	for (const struct ast_value *v = s->values.first; v != NULL; v = v->next) {
		bool is_hours = v->text[0] >= '0' && v->text[0] <= '9';
		struct img_hours h = {0};
		uint8_t more;

		if (is_hours && value_hours(v->text, &h.start, &h.end, &why) == 0) {
			h.days = (uint16_t)(days == 0 ? 0x7f : days);
			section_add(c, SEC_HOURS, &h);
			hours_seen = true;
			days_open = false;
		} else if (!is_hours && value_days(v->text, &more, &why) == 0) {
			days = hours_seen && !days_open ? more : days | more;
			days_open = true;
			hours_seen = false;
		} else {
			refuse(c, &v->at, &why);
		}
	}
	if (days_open)
		section_add(c, SEC_HOURS, &(struct img_hours){.days = (uint16_t)days, .start = 0, .end = 1440});
}

static void add_window(struct compile *c, const struct ast_statement *s)
{
	uint32_t number = section_count(c, SEC_WINDOW);
	struct blob days = {0};
	struct img_window w;
	struct err why;

	if (table_number(&c->windows, s->name->text, s->name->len, &number))
		return;
	memset(&w, 0, sizeof w);
	w.name = text_add(c, s->name->text, s->name->len);
	w.zone = s->zone == NULL ? 0 : add_zone(c, s->zone->text, &s->zone->at);
	w.hours.first = section_count(c, SEC_HOURS);
	add_hours(c, s);
	w.hours.count = section_count(c, SEC_HOURS) - w.hours.first;
	for (const struct ast_value *v = s->except.first; v != NULL; v = v->next) {
		struct value_moment m;

		if (value_moment(v->text, false, &m, &why) != 0)
			refuse(c, &v->at, &why);
		else
			blob_add(&days, &m.day, sizeof m.day);
	}
	w.except = put_numbers(c, SEC_DAY, &days, compare_numbers);
	section_add(c, SEC_WINDOW, &w);
	free(days.data);
}

/* ---- the whole -----------------------------------------------------------------------------------------------------
 */

static void add_settings(struct compile *c, const struct ast_statement *s)
{
	struct err why;

	if (s->kind == AST_ANSWERS && value_answers(s->values.first->text, &c->answers_all, &why) != 0)
		refuse(c, &s->at, &why);
	if (s->kind == AST_GRACE && value_grace(s->values.first->text, &c->grace_s, &why) != 0)
		refuse(c, &s->at, &why);
	for (const struct ast_value *v = s->kind == AST_NAT64 ? s->values.first : NULL; v != NULL; v = v->next) {
		if (c->nnat64 == GUARD_NAT64_MAX || value_nat64(v->text, &c->nat64[c->nnat64], &why) != 0)
			refuse(c, &v->at, &why);
		else
			section_add(c, SEC_NAT64, &c->nat64[c->nnat64++]);
	}
}

/* Sections begin where a line of the processor's caches does. */
static size_t section_end(size_t offset)
{
	return (offset + 63) & ~(size_t)63;
}

static int assemble(struct compile *c, uint8_t **image, size_t *len)
{
	size_t total = section_end(sizeof(struct img_header));
	struct img_header h = {.magic = IMAGE_MAGIC,
			       .version = IMAGE_VERSION,
			       .answers_all = c->answers_all,
			       .slots = (uint8_t)c->slots,
			       .grace_s = (uint16_t)c->grace_s,
			       .seed = c->seed};

	index_build(c->sections, c->seed, h.roots);
	for (int s = 0; s < SECTION_COUNT; s++) {
		h.sections[s].offset = (uint32_t)total;
		h.sections[s].count = section_count(c, (enum image_section)s);
		total = section_end(total + c->sections[s].len);
		if (total > UINT32_MAX || c->too_large) {
			diag_error(c->d, c->tree, "too-large", NULL, "the compiled policy would be too large");
			return -1;
		}
	}
	*image = calloc(1, total);
	if (*image == NULL)
		abort();
	memcpy(*image, &h, sizeof h);
	for (int s = 0; s < SECTION_COUNT; s++)
		if (c->sections[s].len > 0)
			memcpy(*image + h.sections[s].offset, c->sections[s].data, c->sections[s].len);
	image_seal(*image, total);
	*len = total;
	return 0;
}

static void clear(struct compile *c)
{
	for (int s = 0; s < SECTION_COUNT; s++)
		free(c->sections[s].data);
	free(c->groups.data);
	table_clear(&c->texts);
	table_clear(&c->preds);
	table_clear(&c->patterns);
	table_clear(&c->windows);
	table_clear(&c->zones);
	table_clear(&c->set_sizes);
}

/* Made of every value in the policy: nobody can choose names that collide without knowing all the others, and theirs.
 */
static uint64_t make_seed(const struct policy_tree *t)
{
	crypto_generichash_state state;
	uint64_t seed;

	crypto_generichash_init(&state, NULL, 0, crypto_generichash_BYTES_MIN);
	for (const struct ast_statement *s = t->first; s != NULL; s = s->next) {
		for (const struct ast_value *v = s->values.first; v != NULL; v = v->next)
			crypto_generichash_update(&state, (const uint8_t *)v->text, v->len + 1);
		if (s->list != NULL && s->list->source != NULL)
			crypto_generichash_update(&state, (const uint8_t *)s->list->source->text, s->list->source->len);
		for (const struct ast_clause *c = s->clauses.first; c != NULL; c = c->next)
			for (const struct ast_value *v = c->values.first; v != NULL; v = v->next)
				crypto_generichash_update(&state, (const uint8_t *)v->text, v->len + 1);
	}
	uint8_t sum[crypto_generichash_BYTES_MIN];

	crypto_generichash_final(&state, sum, sizeof sum);
	memcpy(&seed, sum, sizeof seed);
	return seed;
}

int policy_compile(const struct policy_tree *t, uint8_t **image, size_t *len, struct policy_diagnostics *d)
{
	struct compile c = {.tree = t, .d = d, .seed = make_seed(t)};
	size_t errors = d->errors;
	int rc = -1;

	/* What rules depend on comes first, wherever it stands in the text. */
	add_zone(&c, ast_zone(t), NULL);
	for (const struct ast_statement *s = t->first; s != NULL; s = s->next) {
		if (s->kind == AST_WINDOW)
			add_window(&c, s);
		else
			add_settings(&c, s);
	}
	for (const struct ast_statement *s = t->first; s != NULL; s = s->next)
		if (ast_is_rule(s))
			add_rule(&c, s);
	put_texts(&c, SEC_GROUP, &c.groups);
	if (d->errors == errors && !t->damaged)
		rc = assemble(&c, image, len);
	clear(&c);
	return rc;
}
