/* Every rule goes where few others are: below that of its conditions whose values it shares with the fewest.  What has
 * no such condition is told apart by its traits, and then by a condition that many rules have in common, which is asked
 * once for all of them. */
#include "config.h"

#include "policy/index_build.h"

#include <stdlib.h>
#include <string.h>

#include "policy/filter.h"
#include "policy/guide.h"
#include "policy/hash.h"
#include "policy/index.h"
#include "policy/literal.h"
#include "policy/value.h"

/* Lists this short are not split. */
#define LISTED_MAX 4
/* A rule with more values in a condition is not told apart by it, unless it is one of few. */
#define VALUES_FEW 32
#define VALUES_MANY 4096
#define VALUES_BUDGET 1000000
/* A condition is asked ahead of rules if as many have it. */
#define SHARED_MIN 4
/* A condition that more than half of this many rules have is asked first. */
#define COMMON_MIN 32
#define COMMON_DEPTH_MAX 4
/* Of the conditions of a rule, only so many are tried. */
#define PROBED_CONDS 16

/* The kinds of conditions that tables are made of. */
enum {
	BY_NAME,
	BY_USER,
	BY_GROUP,
	BY_CLAIM,
	BY_LISTENER,
	BY_LITERAL,
	BY_PORT,
	BY_CLIENT,
	BY_TO,
	ASPECTS,
	NO_ASPECT = ASPECTS
};

/* A value: a hash, or a block of numbers that agree in their first bits. */
struct key {
	uint64_t hash;	/* of all below, and of the kind */
	uint8_t lo[16]; /* IPv4 addresses and ports use the first four */
	uint8_t bits;
	bool six;
};

struct keys {
	uint32_t first, count;
	bool made, usable;
	double breadth; /* what part of all requests has it, at most */
	/* Of the node being made: */
	uint32_t node;	/* its number, or what follows is of another */
	uint32_t rules; /* that have it */
	uint32_t most;	/* rules that share its commonest value; 0: not looked for yet */
};

struct build {
	struct blob *sections;
	uint64_t seed;
	const struct img_rule *rules;
	const struct img_cond *conds;
	const struct img_pred *preds;
	struct blob keys;  /* struct key */
	struct keys *made; /* of each predicate and its negation */
	uint32_t nodes;	   /* that have been split */
	size_t budget;
	enum index_phase phase;
	/* Conditions that were asked on the way to the node being made. */
	struct asked {
		uint32_t pred, flags;
	} asked[INDEX_DEPTH_MAX];
	unsigned nasked;
};

static uint32_t count_of(const struct build *b, enum image_section s)
{
	return (uint32_t)(b->sections[s].len / image_record_size(s));
}

static void *at_of(const struct build *b, enum image_section s, uint32_t index)
{
	/* Of an empty section, nothing is read. */
	return b->sections[s].data == NULL ? NULL : b->sections[s].data + (size_t)index * image_record_size(s);
}

static uint32_t append(struct build *b, enum image_section s, const void *records, size_t n)
{
	uint32_t first = count_of(b, s);

	blob_add(&b->sections[s], records, n * image_record_size(s));
	return first;
}

/* ---- the values of a condition -------------------------------------------------------------------------------------
 */

static int aspect_of(uint32_t kind)
{
	static const int aspects[PRED_KINDS] = {
		[PRED_COMMAND] = NO_ASPECT,	[PRED_METHOD] = NO_ASPECT,     [PRED_BY_NAME] = NO_ASPECT,
		[PRED_PORT] = BY_PORT,		[PRED_LISTENER] = BY_LISTENER, [PRED_USER] = BY_USER,
		[PRED_CLAIMED_USER] = BY_CLAIM, [PRED_GROUP] = BY_GROUP,       [PRED_CLIENT] = BY_CLIENT,
		[PRED_DOMAIN] = BY_NAME,	[PRED_REGEX] = BY_LITERAL,     [PRED_CIDR] = BY_TO,
		[PRED_COUNTRY] = NO_ASPECT,	[PRED_ASN] = NO_ASPECT,	       [PRED_DURING] = NO_ASPECT,
		[PRED_FROM] = NO_ASPECT,	[PRED_UNTIL] = NO_ASPECT,
	};

	return aspects[kind];
}

static void add_key(struct build *b, struct keys *k, const struct key *key)
{
	blob_add(&b->keys, key, sizeof *key);
	k->count++;
}

static void add_words(struct build *b, struct keys *k, const struct img_pred *p)
{
	const struct img_word *w = at_of(b, SEC_WORD, p->a.first);

	for (uint32_t i = 0; i < p->a.count; i++) {
		if (w[i].text == WORD_FREE)
			continue;
		const char *text = (const char *)b->sections[SEC_TEXT].data + (w[i].text >> 2);
		size_t len = strlen(text);
		bool name = p->kind == PRED_DOMAIN;
		struct key key = {.hash = name ? hash_name(b->seed, text, len) : hash_text(b->seed, text, len)};

		if (p->kind == PRED_DOMAIN && (w[i].text & 3) == VALUE_DOMAIN_EXACT)
			key.hash ^= HASH_EXACT;
		add_key(b, k, &key);
	}
}

static void add_literals(struct build *b, struct keys *k, const struct img_pred *p)
{
	const struct img_literal *l = at_of(b, SEC_LITERAL, p->b.first);

	for (uint32_t i = 0; i < p->b.count; i++) {
		struct key key = {.hash = literal_hash(b->seed, l[i].literal)};

		if (l[i].demands.count != 0)
			add_key(b, k, &key);
	}
}

static void number_bytes(uint8_t out[16], uint64_t n, unsigned width)
{
	memset(out, 0, 16);
	for (unsigned i = 0; i < width; i++)
		out[i] = (uint8_t)(n >> (8 * (width - 1 - i)));
}

static void add_block(struct build *b, struct keys *k, const uint8_t lo[16], unsigned bits, unsigned width)
{
	struct key key = {.bits = (uint8_t)bits, .six = width == 16};

	memcpy(key.lo, lo, 16);
	key.hash = hash_text(b->seed + bits + 256 * width, (const char *)lo, width);
	add_key(b, k, &key);
	/* Of IPv6, the part in use is a small one: most prefixes begin alike. */
	double part = 1;

	for (unsigned i = width == 16 ? 20 : 0; i < bits && i < 80; i++)
		part /= 2;
	k->breadth += part;
}

/* Cuts lo to hi (big-endian, width bytes) into blocks. */
static void add_range(struct build *b, struct keys *k, const uint8_t from[16], const uint8_t hi[16], unsigned width)
{
	uint8_t lo[16], end[16];

	memcpy(lo, from, 16);
	while (memcmp(lo, hi, width) <= 0) {
		unsigned bits = 8 * width;

		memcpy(end, lo, 16);
		/* Widen while the block still begins here and ends within. */
		while (bits > 0) {
			unsigned at = bits - 1;
			uint8_t bit = (uint8_t)(0x80u >> at % 8);

			if ((lo[at / 8] & bit) != 0)
				break;
			end[at / 8] |= bit;
			if (memcmp(end, hi, width) > 0) {
				end[at / 8] &= (uint8_t)~bit;
				break;
			}
			bits--;
		}
		add_block(b, k, lo, bits, width);
		if (memcmp(end, hi, width) == 0)
			break;
		memcpy(lo, end, 16);
		for (unsigned i = width; i-- > 0 && ++lo[i] == 0;)
			;
	}
}

static void add_ports(struct build *b, struct keys *k, const struct img_pred *p, bool negated)
{
	const struct img_port *port = at_of(b, SEC_PORT, p->a.first);
	uint8_t lo[16], hi[16];
	uint32_t next = 0;

	for (uint32_t i = 0; i <= p->a.count; i++) {
		uint32_t from = i < p->a.count ? port[i].lo : 65536, to = i < p->a.count ? port[i].hi : 65536;

		if (negated && next < from) {
			number_bytes(lo, next, 4);
			number_bytes(hi, from - 1, 4);
			add_range(b, k, lo, hi, 4);
		} else if (!negated && i < p->a.count) {
			number_bytes(lo, from, 4);
			number_bytes(hi, to, 4);
			add_range(b, k, lo, hi, 4);
		}
		next = to + 1;
	}
	k->breadth *= 65536;
}

static void add_ranges(struct build *b, struct keys *k, const struct img_pred *p)
{
	const struct img_range4 *r4 = at_of(b, SEC_RANGE4, p->a.first);
	const struct img_range6 *r6 = at_of(b, SEC_RANGE6, p->b.first);
	uint8_t lo[16], hi[16];

	for (uint32_t i = 0; i < p->a.count; i++) {
		number_bytes(lo, r4[i].lo, 4);
		number_bytes(hi, r4[i].hi, 4);
		add_range(b, k, lo, hi, 4);
	}
	for (uint32_t i = 0; i < p->b.count; i++)
		add_range(b, k, r6[i].lo, r6[i].hi, 16);
}

/* The values of a condition, if rules can be told apart by them; NULL if not. */
static struct keys *keys_of(struct build *b, const struct img_cond *cond)
{
	const struct img_pred *p = &b->preds[cond->pred];
	bool negated = (cond->flags & COND_NEGATED) != 0;
	struct keys *k = &b->made[2 * (size_t)cond->pred + negated];
	uint32_t values = p->a.count + (p->kind == PRED_CLIENT || p->kind == PRED_CIDR ? p->b.count : 0);

	if (k->made)
		return k->usable ? k : NULL;
	k->made = true;
	if (aspect_of(p->kind) == NO_ASPECT || (negated && p->kind != PRED_PORT) || p->sets.count > 0 ||
	    values > VALUES_MANY || (p->kind == PRED_REGEX && p->c.count > 0))
		return NULL;
	k->usable = true;
	k->first = (uint32_t)(b->keys.len / sizeof(struct key));
	if (p->kind == PRED_PORT)
		add_ports(b, k, p, negated);
	else if (p->kind == PRED_CLIENT || p->kind == PRED_CIDR)
		add_ranges(b, k, p);
	else if (p->kind == PRED_REGEX)
		add_literals(b, k, p);
	else
		add_words(b, k, p);
	return k;
}

static const struct key *key_at(const struct build *b, uint32_t index)
{
	return &((const struct key *)b->keys.data)[index];
}

/* ---- how many rules share a value ----------------------------------------------------------------------------------
 */

struct tally {
	struct tally_entry {
		uint64_t hash;
		uint32_t count;
	} * entries;
	size_t size; /* a power of two */
};

static void tally_make(struct tally *t, size_t most)
{
	t->size = 16;
	while (t->size < most * 2)
		t->size *= 2;
	t->entries = calloc(t->size, sizeof t->entries[0]);
	if (t->entries == NULL)
		abort();
}

static uint32_t *tally_of(struct tally *t, uint64_t hash)
{
	size_t at = (hash ^ hash >> 32) & (t->size - 1);

	while (t->entries[at].count != 0 && t->entries[at].hash != hash)
		at = (at + 1) & (t->size - 1);
	t->entries[at].hash = hash;
	return &t->entries[at].count;
}

static uint64_t mixed(uint64_t hash, uint64_t with)
{
	return hash_end(hash ^ (with + 1) * 0x9e3779b97f4a7c15u);
}

/* ---- nodes --------------------------------------------------------------------------------------------------------
 */

/* Rules of a node and what each is told apart by. */
struct member {
	uint32_t rule;
	uint32_t cond; /* index of the condition, if aspect is one */
	int aspect;
};

struct placed {
	const struct key *key;
	uint32_t rule;
};

static uint32_t make_node(struct build *b, const uint32_t *rules, size_t n, unsigned depth, unsigned used);

static bool rule_usable(const struct build *b, const struct img_cond *cond, unsigned used)
{
	int aspect = aspect_of(b->preds[cond->pred].kind);

	if (aspect == NO_ASPECT || (used >> aspect & 1) != 0)
		return false;
	/* By name, there is no address yet. */
	return aspect != BY_TO || b->phase == INDEX_BY_ADDRESS;
}

/* What is new in this node; each condition is shared by many rules, and its values are counted once. */
static void enter_node(struct build *b, struct keys *k)
{
	if (k->node == b->nodes)
		return;
	k->node = b->nodes;
	k->rules = 0;
	k->most = 0;
}

static void each_keys(struct build *b, const uint32_t *rules, size_t n, unsigned used,
		      void (*visit)(struct build *b, struct keys *k, int aspect, void *arg), void *arg)
{
	for (size_t i = 0; i < n; i++) {
		const struct img_rule *r = &b->rules[rules[i]];

		for (uint32_t c = 0; c < r->conds.count; c++) {
			const struct img_cond *cond = &b->conds[r->conds.first + c];
			struct keys *k = rule_usable(b, cond, used) ? keys_of(b, cond) : NULL;

			if (k != NULL)
				visit(b, k, aspect_of(b->preds[cond->pred].kind), arg);
		}
	}
}

static void count_keys(struct build *b, struct keys *k, int aspect, void *arg)
{
	(void)aspect;
	enter_node(b, k);
	if (k->rules++ == 0)
		*(size_t *)arg += k->count;
}

/* Adds all rules of the condition to its values, the first time it is met. */
static void tally_keys(struct build *b, struct keys *k, int aspect, void *arg)
{
	for (uint32_t v = 0; k->rules > 0 && v < k->count; v++)
		*tally_of(arg, mixed(key_at(b, k->first + v)->hash, (uint64_t)aspect)) += k->rules;
	k->rules = 0;
}

/* How many rules a request that has this condition would meet here, about. */
static double cost(struct build *b, struct tally *t, struct keys *k, int aspect, size_t n)
{
	for (uint32_t v = 0, looked = k->most; looked == 0 && v < k->count; v++) {
		uint32_t count = *tally_of(t, mixed(key_at(b, k->first + v)->hash, (uint64_t)aspect));

		k->most = count > k->most ? count : k->most;
	}
	return k->most + (double)n * (k->breadth > 1 ? 1 : k->breadth);
}

static void choose(struct build *b, struct tally *t, struct member *m, size_t n, unsigned used, unsigned depth)
{
	const struct img_rule *r = &b->rules[m->rule];
	double best = (double)n / 2;
	uint32_t extra = 0;

	m->aspect = NO_ASPECT;
	for (uint32_t c = 0; c < r->conds.count; c++) {
		const struct img_cond *cond = &b->conds[r->conds.first + c];
		struct keys *k = rule_usable(b, cond, used) ? keys_of(b, cond) : NULL;
		int aspect = aspect_of(b->preds[cond->pred].kind);

		if (k == NULL || (k->count > VALUES_FEW && (depth > 0 || k->count > b->budget)))
			continue;
		double price = cost(b, t, k, aspect, n);

		if (price < best) {
			best = price;
			m->aspect = aspect;
			m->cond = r->conds.first + c;
			extra = k->count > VALUES_FEW ? k->count : 0;
		}
	}
	if (m->aspect != NO_ASPECT)
		b->budget -= extra;
}

static int compare_placed(const void *left, const void *right)
{
	const struct placed *a = left, *b = right;
	int order = memcmp(a->key->lo, b->key->lo, 16);

	/* Blocks by where they begin, the wider one first; hashes as they come. */
	if (order != 0)
		return order;
	if (a->key->bits != b->key->bits)
		return a->key->bits < b->key->bits ? -1 : 1;
	if (a->key->hash != b->key->hash)
		return a->key->hash < b->key->hash ? -1 : 1;
	return a->rule < b->rule ? -1 : a->rule > b->rule;
}

static bool same_key(const struct placed *a, const struct placed *b)
{
	return a->key->hash == b->key->hash && a->key->bits == b->key->bits && memcmp(a->key->lo, b->key->lo, 16) == 0;
}

/* The node of the rules that share the key of p[0]; *n is how many there are. */
static uint32_t make_child(struct build *b, const struct placed *p, size_t left, size_t *n, unsigned depth,
			   unsigned used)
{
	size_t count = 0, distinct = 0;

	while (count < left && same_key(&p[0], &p[count]))
		count++;
	uint32_t *rules = reallocarray(NULL, count, sizeof rules[0]);

	if (rules == NULL)
		abort();
	for (size_t i = 0; i < count; i++)
		if (distinct == 0 || rules[distinct - 1] != p[i].rule)
			rules[distinct++] = p[i].rule;
	*n = count;
	uint32_t ref = make_node(b, rules, distinct, depth + 1, used);

	free(rules);
	return ref;
}

static void make_filter(struct build *b, const struct placed *p, size_t n, uint32_t keys, struct img_table *t)
{
	uint32_t words = filter_words(keys);
	uint64_t *filter = calloc(words, sizeof filter[0]);

	if (filter == NULL)
		abort();
	for (size_t i = 0; i < n; i++)
		filter_add(filter, words, p[i].key->hash);
	t->aid = (struct img_span){append(b, SEC_FILTER, filter, words), words};
	free(filter);
}

/* A place for a hash, in its own bucket or in the next that has one. */
static struct img_slot *bucket_place(struct img_bucket *buckets, uint32_t count, uint64_t hash)
{
	uint32_t at = hash_place(hash, count);

	for (;;) {
		struct img_bucket *bucket = &buckets[at];

		for (unsigned s = 0; s < BUCKET_SLOTS; s++)
			if (bucket->marks[s] == 0) {
				bucket->marks[s] = hash_mark(hash);
				return &bucket->slots[s];
			}
		bucket->marks[BUCKET_OVERFLOWS] = 1;
		at = at + 1 == count ? 0 : at + 1;
	}
}

static void make_buckets(struct build *b, const struct placed *p, size_t n, unsigned depth, unsigned used,
			 struct img_table *t)
{
	size_t keys = 0;

	for (size_t i = 0; i < n; i++)
		keys += i == 0 || !same_key(&p[i - 1], &p[i]);
	uint32_t count = (uint32_t)(keys / (BUCKET_SLOTS - 2) + 1);
	struct img_bucket *buckets = calloc(count, sizeof buckets[0]);

	if (buckets == NULL)
		abort();
	for (size_t i = 0, took; i < n; i += took) {
		struct img_slot *slot = bucket_place(buckets, count, p[i].key->hash);

		slot->tag = hash_tag(p[i].key->hash);
		slot->ref = make_child(b, p + i, n - i, &took, depth, used);
	}
	t->places = (struct img_span){append(b, SEC_BUCKET, buckets, count), count};
	free(buckets);
	if (keys >= FILTER_MIN && (t->field == FIELD_NAME || t->field == FIELD_LITERAL))
		make_filter(b, p, n, (uint32_t)keys, t);
}

/* Sets *after to the address behind the block; false if there is none. */
static bool block_after(const struct key *key, unsigned width, uint8_t after[16])
{
	memcpy(after, key->lo, 16);
	for (unsigned i = key->bits; i < 8 * width; i++)
		after[i / 8] |= (uint8_t)(0x80u >> i % 8);
	for (unsigned i = width; i-- > 0;)
		if (++after[i] != 0)
			return true;
	return false;
}

static void add_step(struct blob *steps, unsigned width, const uint8_t from[16], uint32_t chain)
{
	struct img_step6 *last = steps->len == 0 ? NULL : (struct img_step6 *)(steps->data + steps->len) - 1;
	struct img_step6 s = {.chain = chain};

	/* A step where another begins takes its place. */
	if (last != NULL && memcmp(last->from, from, width) == 0) {
		last->chain = chain;
		return;
	}
	memcpy(s.from, from, width);
	blob_add(steps, &s, sizeof s);
}

/* Blocks are nested or apart: one walk with a stack of those that are open. */
static void make_steps(struct build *b, const struct placed *p, size_t n, unsigned depth, unsigned used, unsigned width,
		       struct img_table *t)
{
	struct {
		uint32_t chain;
		bool ends;
		uint8_t after[16];
	} open[130];
	size_t nopen = 0;
	struct blob steps = {0}, chains = {0};

	for (size_t i = 0, took; i < n; i += took) {
		const struct key *key = p[i].key;

		while (nopen > 0 && open[nopen - 1].ends && memcmp(open[nopen - 1].after, key->lo, width) <= 0) {
			nopen--;
			add_step(&steps, width, open[nopen].after, nopen == 0 ? CHAIN_END : open[nopen - 1].chain);
		}
		uint32_t ref = make_child(b, p + i, n - i, &took, depth, used);
		struct img_chain c = {.ref = ref, .outer = nopen == 0 ? CHAIN_END : open[nopen - 1].chain};

		open[nopen].chain = (uint32_t)(chains.len / sizeof c);
		blob_add(&chains, &c, sizeof c);
		open[nopen].ends = block_after(key, width, open[nopen].after);
		add_step(&steps, width, key->lo, open[nopen].chain);
		nopen++;
	}
	while (nopen > 0 && open[nopen - 1].ends) {
		nopen--;
		add_step(&steps, width, open[nopen].after, nopen == 0 ? CHAIN_END : open[nopen - 1].chain);
	}
	/* Numbered from the table's first, until here. */
	size_t count = steps.len / sizeof(struct img_step6), nchains = chains.len / sizeof(struct img_chain);
	uint32_t base = count_of(b, SEC_CHAIN);

	for (size_t i = 0; i < nchains; i++) {
		struct img_chain *c = &((struct img_chain *)chains.data)[i];

		c->outer += c->outer == CHAIN_END ? 0 : base;
	}
	t->chains = (struct img_span){append(b, SEC_CHAIN, chains.data, nchains), (uint32_t)nchains};
	blob_clear(&chains);
	struct img_step6 *s = (struct img_step6 *)steps.data;

	t->places = (struct img_span){count_of(b, width == 16 ? SEC_STEP6 : SEC_STEP4), (uint32_t)count};
	for (size_t i = 0; i < count; i++) {
		const uint8_t *f = s[i].from;

		s[i].chain += s[i].chain == CHAIN_END ? 0 : base;
		struct img_step4 s4 = {(uint32_t)f[0] << 24 | (uint32_t)f[1] << 16 | (uint32_t)f[2] << 8 | f[3],
				       s[i].chain};

		if (width == 16)
			append(b, SEC_STEP6, &s[i], 1);
		else
			append(b, SEC_STEP4, &s4, 1);
	}
	blob_clear(&steps);
	if (width == 4 && count >= GUIDE_MIN) {
		t->aid = (struct img_span){count_of(b, SEC_GUIDE), guide_words((uint32_t)count)};
		uint32_t *guide = blob_add(&b->sections[SEC_GUIDE], NULL, t->aid.count * sizeof guide[0]);
		const struct img_step4 *first = at_of(b, SEC_STEP4, t->places.first);

		guide_fill(guide, &first->from, sizeof *first / sizeof(uint32_t), (uint32_t)count);
	}
}

/* The table of the members that are told apart by an aspect, IPv6 addresses apart from the rest. */
static void make_table(struct build *b, const struct member *members, size_t n, int aspect, bool six, unsigned depth,
		       unsigned used, struct blob *tables)
{
	static const uint8_t fields[ASPECTS][2] = {
		[BY_NAME] = {FIELD_NAME, FIELD_NAME},
		[BY_USER] = {FIELD_USER, FIELD_USER},
		[BY_GROUP] = {FIELD_GROUP, FIELD_GROUP},
		[BY_CLAIM] = {FIELD_CLAIMED_USER, FIELD_CLAIMED_USER},
		[BY_LISTENER] = {FIELD_LISTENER, FIELD_LISTENER},
		[BY_LITERAL] = {FIELD_LITERAL, FIELD_LITERAL},
		[BY_PORT] = {FIELD_PORT, FIELD_PORT},
		[BY_CLIENT] = {FIELD_CLIENT4, FIELD_CLIENT6},
		[BY_TO] = {FIELD_TO4, FIELD_TO6},
	};
	struct img_table t = {.field = fields[aspect][six]};
	struct blob placed = {0};

	for (size_t i = 0; i < n; i++) {
		if (members[i].aspect != aspect)
			continue;
		const struct keys *k = keys_of(b, &b->conds[members[i].cond]);

		for (uint32_t v = 0; v < k->count; v++) {
			struct placed p = {.key = key_at(b, k->first + v), .rule = members[i].rule};

			if (p.key->six == six)
				blob_add(&placed, &p, sizeof p);
		}
	}
	size_t count = placed.len / sizeof(struct placed);

	if (count > 0) {
		qsort(placed.data, count, sizeof(struct placed), compare_placed);
		if (aspect < BY_PORT)
			make_buckets(b, (const struct placed *)placed.data, count, depth, used | 1u << aspect, &t);
		else
			make_steps(b, (const struct placed *)placed.data, count, depth, used | 1u << aspect,
				   six ? 16 : 4, &t);
		blob_add(tables, &t, sizeof t);
	}
	blob_clear(&placed);
}

/* A condition that may be asked ahead of its rule: what the traits do not tell already. */
static bool may_lead(uint32_t kind)
{
	return kind != PRED_COMMAND && kind != PRED_METHOD && kind != PRED_BY_NAME;
}

struct leader {
	uint32_t traits, pred, flags, rule;
};

static uint64_t leader_hash(const struct leader *l)
{
	return mixed(mixed(l->pred, l->flags), l->traits);
}

static int compare_leaders(const void *left, const void *right)
{
	const struct leader *a = left, *b = right;
	int order = a->traits != b->traits ? (a->traits < b->traits ? -1 : 1) : 0;

	if (order == 0)
		order = a->pred != b->pred ? (a->pred < b->pred ? -1 : 1) : 0;
	if (order == 0)
		order = a->flags != b->flags ? (a->flags < b->flags ? -1 : 1) : 0;
	return order != 0 ? order : a->rule < b->rule ? -1 : a->rule > b->rule;
}

static struct leader rule_leader(const struct build *b, uint32_t rule, uint32_t traits, const struct img_cond *cond)
{
	const struct img_rule *r = &b->rules[rule];

	return (struct leader){
		.traits = traits,
		.pred = cond == NULL ? BRANCH_ALWAYS : cond->pred,
		.flags = cond == NULL ? 0 : cond->flags | ((r->flags & RULE_ALLOW) != 0 ? 0 : BRANCH_DENY),
		.rule = rule,
	};
}

static bool was_asked(const struct build *b, const struct leader *l)
{
	for (unsigned i = 0; i < b->nasked; i++)
		if (b->asked[i].pred == l->pred && b->asked[i].flags == l->flags)
			return true;
	return false;
}

static struct leader choose_leader(const struct build *b, struct tally *t, uint32_t rule)
{
	const struct img_rule *r = &b->rules[rule];
	uint32_t traits = index_rule_traits(r, b->conds, b->preds);
	struct leader best = rule_leader(b, rule, traits, NULL);
	uint32_t most = SHARED_MIN - 1;

	for (uint32_t c = 0; c < r->conds.count; c++) {
		const struct img_cond *cond = &b->conds[r->conds.first + c];
		struct leader l = rule_leader(b, rule, traits, cond);

		if (!may_lead(b->preds[cond->pred].kind) || was_asked(b, &l))
			continue;
		uint32_t count = *tally_of(t, leader_hash(&l));

		if (count > most) {
			most = count;
			best = l;
		}
	}
	return best;
}

static bool same_leader(const struct leader *a, const struct leader *b)
{
	return a->traits == b->traits && a->pred == b->pred && a->flags == b->flags;
}

/* Rules that no value tells apart: branches by traits and by a condition that many of them share. */
static void make_branches(struct build *b, const uint32_t *rules, size_t n, struct blob *branches,
			  struct img_node *node)
{
	struct leader *leaders = reallocarray(NULL, n + 1, sizeof leaders[0]);
	struct blob listed = {0};
	struct tally t;
	size_t conds = 0;

	if (leaders == NULL)
		abort();
	for (size_t i = 0; i < n; i++)
		conds += b->rules[rules[i]].conds.count;
	tally_make(&t, conds + 1);
	for (size_t i = 0; i < n; i++) {
		const struct img_rule *r = &b->rules[rules[i]];
		uint32_t traits = index_rule_traits(r, b->conds, b->preds);

		for (uint32_t c = 0; c < r->conds.count; c++) {
			struct leader l = rule_leader(b, rules[i], traits, &b->conds[r->conds.first + c]);

			++*tally_of(&t, leader_hash(&l));
		}
	}
	for (size_t i = 0; i < n; i++)
		leaders[i] = choose_leader(b, &t, rules[i]);
	free(t.entries);
	if (n > 0)
		qsort(leaders, n, sizeof leaders[0], compare_leaders);
	for (size_t i = 0, end; i < n; i = end) {
		struct img_branch branch = {
			.traits = leaders[i].traits, .pred = leaders[i].pred, .flags = leaders[i].flags};
		struct blob below = {0};

		for (end = i; end < n && same_leader(&leaders[i], &leaders[end]); end++)
			blob_add(&below, &leaders[end].rule, sizeof(uint32_t));
		if (branch.traits == TRAITS_ALL && branch.pred == BRANCH_ALWAYS) {
			blob_add(&listed, below.data, below.len);
		} else if (end - i == 1) {
			branch.ref = REF_RULE | leaders[i].rule;
			blob_add(branches, &branch, sizeof branch);
		} else {
			struct img_node child = {.rules = {count_of(b, SEC_CANDIDATE), (uint32_t)(end - i)}};

			append(b, SEC_CANDIDATE, below.data, end - i);
			branch.ref = append(b, SEC_NODE, &child, 1);
			blob_add(branches, &branch, sizeof branch);
		}
		blob_clear(&below);
	}
	size_t nbranches = branches->len / sizeof(struct img_branch), nlisted = listed.len / sizeof(uint32_t);

	node->branches = (struct img_span){append(b, SEC_BRANCH, branches->data, nbranches), (uint32_t)nbranches};
	node->rules = (struct img_span){append(b, SEC_CANDIDATE, listed.data, nlisted), (uint32_t)nlisted};
	blob_clear(branches);
	blob_clear(&listed);
	free(leaders);
}

static bool has_cond(const struct build *b, uint32_t rule, const struct leader *l)
{
	const struct img_rule *r = &b->rules[rule];

	for (uint32_t c = 0; c < r->conds.count; c++) {
		struct leader one = rule_leader(b, rule, 0, &b->conds[r->conds.first + c]);

		if (one.pred == l->pred && one.flags == l->flags)
			return true;
	}
	return false;
}

/* The condition that more than half of many rules have. */
static bool find_common(const struct build *b, const uint32_t *rules, size_t n, struct leader *out)
{
	size_t votes = 0, count = 0;

	/* What more than half have in common, the one in the middle or its neighbours are likely to have: try the
	 * conditions of a few rules and count. */
	for (size_t probe = 0; probe < 3; probe++) {
		uint32_t rule = rules[(n - 1) * probe / 2];
		const struct img_rule *r = &b->rules[rule];

		for (uint32_t c = 0; c < r->conds.count && c < PROBED_CONDS; c++) {
			struct leader l = rule_leader(b, rule, 0, &b->conds[r->conds.first + c]);

			if (!may_lead(b->preds[l.pred].kind) || was_asked(b, &l))
				continue;
			count = 0;
			for (size_t i = 0; i < n; i++)
				count += has_cond(b, rules[i], &l);
			if (count > n / 2 && count > votes) {
				votes = count;
				*out = l;
			}
		}
	}
	return votes > 0;
}

/* Asks the common condition once, for the rules that have it; the others are left in rules, *n of them. */
static void split_common(struct build *b, uint32_t *rules, size_t *n, const struct leader *common, unsigned depth,
			 unsigned used, struct blob *branches)
{
	uint32_t *with = reallocarray(NULL, *n, sizeof with[0]);
	struct img_branch branch = {.traits = TRAITS_ALL, .pred = common->pred, .flags = common->flags};
	size_t nwith = 0, left = 0;

	if (with == NULL)
		abort();
	for (size_t i = 0; i < *n; i++) {
		if (has_cond(b, rules[i], common))
			with[nwith++] = rules[i];
		else
			rules[left++] = rules[i];
	}
	*n = left;
	b->asked[b->nasked++] = (struct asked){common->pred, common->flags};
	branch.ref = make_node(b, with, nwith, depth + 1, used);
	b->nasked--;
	blob_add(branches, &branch, sizeof branch);
	free(with);
}

static void split(struct build *b, const uint32_t *all, size_t n, unsigned depth, unsigned used, struct img_node *node)
{
	struct member *members = reallocarray(NULL, n, sizeof members[0]);
	uint32_t *rest = reallocarray(NULL, n, sizeof rest[0]), *rules = reallocarray(NULL, n, sizeof rules[0]);
	struct blob tables = {0}, branches = {0};
	struct leader common;
	struct tally t;
	size_t nrest = 0, values = 0;

	if (members == NULL || rest == NULL || rules == NULL)
		abort();
	memcpy(rules, all, n * sizeof rules[0]);
	if (n >= COMMON_MIN && depth < COMMON_DEPTH_MAX && find_common(b, rules, n, &common))
		split_common(b, rules, &n, &common, depth, used, &branches);
	b->nodes++;
	each_keys(b, rules, n, used, count_keys, &values);
	tally_make(&t, values + 1);
	each_keys(b, rules, n, used, tally_keys, &t);
	for (size_t i = 0; i < n; i++) {
		members[i].rule = rules[i];
		choose(b, &t, &members[i], n, used, depth);
		if (members[i].aspect == NO_ASPECT)
			rest[nrest++] = rules[i];
	}
	free(t.entries);
	for (int aspect = 0; aspect < ASPECTS && nrest < n; aspect++) {
		make_table(b, members, n, aspect, false, depth, used, &tables);
		if (aspect == BY_CLIENT || aspect == BY_TO)
			make_table(b, members, n, aspect, true, depth, used, &tables);
	}
	size_t ntables = tables.len / sizeof(struct img_table);

	node->tables = (struct img_span){append(b, SEC_TABLE, tables.data, ntables), (uint32_t)ntables};
	make_branches(b, rest, nrest, &branches, node);
	blob_clear(&tables);
	free(members);
	free(rest);
	free(rules);
}

static uint32_t make_node(struct build *b, const uint32_t *rules, size_t n, unsigned depth, unsigned used)
{
	struct img_node node = {{0}};

	if (n == 0)
		return REF_NONE;
	if (n == 1)
		return REF_RULE | rules[0];
	/* Its number comes before those of the nodes below it. */
	uint32_t number = append(b, SEC_NODE, &node, 1);

	if (n <= LISTED_MAX || depth + 2 >= INDEX_DEPTH_MAX)
		node.rules = (struct img_span){append(b, SEC_CANDIDATE, rules, n), (uint32_t)n};
	else
		split(b, rules, n, depth, used, &node);
	memcpy(at_of(b, SEC_NODE, number), &node, sizeof node);
	return number;
}

/* By name, a deny rule or a monitor rule that hangs on an address perhaps matches, and then says nothing. */
static bool matters(const struct build *b, const struct img_rule *r)
{
	bool silent = (r->flags & RULE_ALLOW) == 0 || (r->flags & RULE_MONITOR) != 0;

	for (uint32_t c = 0; silent && b->phase == INDEX_BY_NAME && c < r->conds.count; c++)
		if (b->preds[b->conds[r->conds.first + c].pred].kind == PRED_CIDR)
			return false;
	return true;
}

void index_build(struct blob sections[SECTION_COUNT], uint64_t seed, uint32_t roots[INDEX_PHASES])
{
	struct build b = {.sections = sections,
			  .seed = seed,
			  .rules = (const struct img_rule *)sections[SEC_RULE].data,
			  .conds = (const struct img_cond *)sections[SEC_COND].data,
			  .preds = (const struct img_pred *)sections[SEC_PRED].data};
	uint32_t n = count_of(&b, SEC_RULE);
	uint32_t *rules = reallocarray(NULL, (size_t)n + 1, sizeof rules[0]);

	b.made = calloc((size_t)count_of(&b, SEC_PRED) + 1, 2 * sizeof b.made[0]);
	if (rules == NULL || b.made == NULL)
		abort();
	/* All values first: keys must not move while they are pointed to. */
	for (uint32_t i = 0; i < count_of(&b, SEC_COND); i++)
		keys_of(&b, &b.conds[i]);
	for (b.phase = INDEX_BY_NAME; b.phase < INDEX_PHASES; b.phase++) {
		size_t count = 0;

		b.budget = VALUES_BUDGET;
		for (uint32_t i = 0; i < n; i++)
			if (matters(&b, &b.rules[i]))
				rules[count++] = i;
		roots[b.phase] = make_node(&b, rules, count, 0, 0);
	}
	free(rules);
	free(b.made);
	blob_clear(&b.keys);
}
