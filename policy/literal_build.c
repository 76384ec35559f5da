#include "config.h"

#include "policy/literal_build.h"

#include <stdlib.h>
#include <string.h>

#include "policy/filter.h"
#include "policy/literal.h"

/* How often each literal occurs among the patterns. */
struct tally {
	struct tally_entry {
		uint32_t literal, count;
	} * entries;
	size_t size, used; /* size is a power of two */
};

static struct tally_entry *tally_place(const struct tally *t, uint32_t literal)
{
	size_t at = literal_hash(0, literal) & (t->size - 1);

	while (t->entries[at].count != 0 && t->entries[at].literal != literal)
		at = (at + 1) & (t->size - 1);
	return &t->entries[at];
}

static void tally_grow(struct tally *t)
{
	struct tally old = *t;

	t->size = old.size == 0 ? 1024 : old.size * 2;
	t->entries = calloc(t->size, sizeof t->entries[0]);
	if (t->entries == NULL)
		abort();
	for (size_t i = 0; i < old.size; i++)
		if (old.entries[i].count != 0)
			*tally_place(t, old.entries[i].literal) = old.entries[i];
	free(old.entries);
}

static void tally_add(struct tally *t, uint32_t literal)
{
	if ((t->used + 1) * 2 > t->size)
		tally_grow(t);
	struct tally_entry *e = tally_place(t, literal);

	t->used += e->count == 0;
	e->literal = literal;
	e->count++;
}

struct found {
	uint32_t literal;
	struct img_demand demand;
};

struct build {
	struct blob *sections;
	uint64_t seed;
	struct tally tally;
	struct blob found;  /* struct found */
	struct blob always; /* uint32_t: patterns that demand nothing */
	struct literal_demands demands;
};

static void read_pattern(struct build *b, uint32_t pattern)
{
	struct img_text t = ((const struct img_text *)b->sections[SEC_PATTERN].data)[pattern];

	literal_read((const char *)b->sections[SEC_TEXT].data + t.offset, t.len, &b->demands);
}

static void count_literals(struct build *b)
{
	for (size_t d = 0; d < b->demands.count; d++)
		for (size_t i = 0; i < b->demands.all[d].count; i++) {
			const struct literal_text *t = &b->demands.all[d].any[i];

			for (size_t at = 0; at + LITERAL_BYTES <= t->len; at++)
				tally_add(&b->tally, literal_at(t->bytes + at));
		}
}

static size_t apart(size_t a, size_t b)
{
	return a < b ? b - a : a - b;
}

/* How many patterns hold the rarest literal of a text that is this far from another place in it; *at is where it is, if
 * there is one. */
static uint32_t rarest(const struct build *b, const struct literal_text *t, size_t from, size_t far, size_t *at)
{
	uint32_t least = UINT32_MAX;

	for (size_t i = 0; i + LITERAL_BYTES <= t->len; i++) {
		uint32_t count = tally_place(&b->tally, literal_at(t->bytes + i))->count;

		if (count < least && apart(i, from) >= far) {
			least = count;
			*at = i;
		}
	}
	return least;
}

static uint64_t demand_cost(const struct build *b, const struct literal_demand *d)
{
	uint64_t cost = 0;
	size_t at;

	for (size_t i = 0; i < d->count; i++)
		cost += rarest(b, &d->any[i], 0, 0, &at);
	return cost;
}

static void find_pattern(struct build *b, uint32_t pattern)
{
	const struct literal_demand *best = NULL;
	uint64_t least = UINT64_MAX;

	for (size_t d = 0; d < b->demands.count; d++) {
		uint64_t cost = demand_cost(b, &b->demands.all[d]);

		/* Of two, the latter: names differ more in their ends than in their beginnings. */
		if (cost <= least) {
			least = cost;
			best = &b->demands.all[d];
		}
	}
	if (best == NULL)
		blob_add(&b->always, &pattern, sizeof pattern);
	for (size_t i = 0; best != NULL && i < best->count; i++) {
		const struct literal_text *t = &best->any[i];
		size_t at = 0, more_at;

		rarest(b, t, 0, 0, &at);
		more_at = at;
		/* What the first four bytes do not say, if there is enough of it. */
		rarest(b, t, at, 1, &more_at);
		rarest(b, t, at, LITERAL_BYTES, &more_at);
		struct found f = {.literal = literal_at(t->bytes + at),
				  .demand = {.pattern = pattern,
					     .text = (uint32_t)b->sections[SEC_TEXT].len,
					     .len = t->len,
					     .at = (uint8_t)at,
					     .more_at = (uint8_t)more_at,
					     .more = literal_at(t->bytes + more_at)}};

		blob_add(&b->sections[SEC_TEXT], t->bytes, t->len);
		blob_add(&b->sections[SEC_TEXT], "", 1);
		blob_add(&b->found, &f, sizeof f);
	}
}

static int compare_found(const void *left, const void *right)
{
	const struct found *a = left, *b = right;

	if (a->literal != b->literal)
		return a->literal < b->literal ? -1 : 1;
	/* A pattern's texts come one after the other. */
	return a->demand.text < b->demand.text ? -1 : a->demand.text > b->demand.text;
}

/* A hash table of the literals, which lead to what is found of each. */
static void put_table(struct build *b, struct img_pred *p)
{
	struct found *found = (struct found *)b->found.data;
	size_t n = b->found.len / sizeof *found, distinct = 0;

	qsort(found, n, sizeof *found, compare_found);
	for (size_t i = 0; i < n; i++)
		distinct += i == 0 || found[i].literal != found[i - 1].literal;
	p->b = (struct img_span){(uint32_t)(b->sections[SEC_LITERAL].len / sizeof(struct img_literal)),
				 (uint32_t)(distinct + distinct / 3 + 1)};
	p->aid = (struct img_span){(uint32_t)(b->sections[SEC_FILTER].len / sizeof(uint64_t)),
				   filter_words((uint32_t)distinct)};
	struct img_literal *table = blob_add(&b->sections[SEC_LITERAL], NULL, p->b.count * sizeof table[0]);
	uint64_t *filter = blob_add(&b->sections[SEC_FILTER], NULL, p->aid.count * sizeof filter[0]);

	for (size_t i = 0; i < n; i++) {
		uint64_t hash = literal_hash(b->seed, found[i].literal);
		uint32_t at = hash_place(hash, p->b.count);

		while (table[at].demands.count != 0 && table[at].literal != found[i].literal)
			at = at + 1 == p->b.count ? 0 : at + 1;
		if (table[at].demands.count++ == 0) {
			table[at].literal = found[i].literal;
			table[at].demands.first = (uint32_t)(b->sections[SEC_DEMAND].len / sizeof(struct img_demand));
			filter_add(filter, p->aid.count, hash);
		}
		blob_add(&b->sections[SEC_DEMAND], &found[i].demand, sizeof found[i].demand);
	}
}

void literal_build(struct blob sections[SECTION_COUNT], uint64_t seed, struct img_pred *p)
{
	struct build *b = calloc(1, sizeof *b);

	if (b == NULL)
		abort();
	b->sections = sections;
	b->seed = seed;
	for (uint32_t i = 0; i < p->a.count; i++) {
		read_pattern(b, ((const uint32_t *)sections[SEC_INDEX].data)[p->a.first + i]);
		count_literals(b);
	}
	for (uint32_t i = 0; i < p->a.count; i++) {
		uint32_t pattern = ((const uint32_t *)sections[SEC_INDEX].data)[p->a.first + i];

		read_pattern(b, pattern);
		find_pattern(b, pattern);
	}
	if (b->found.len > 0)
		put_table(b, p);
	p->c = (struct img_span){(uint32_t)(sections[SEC_INDEX].len / sizeof(uint32_t)),
				 (uint32_t)(b->always.len / sizeof(uint32_t))};
	blob_add(&sections[SEC_INDEX], b->always.data, b->always.len);
	blob_clear(&b->found);
	blob_clear(&b->always);
	free(b->tally.entries);
	free(b);
}
