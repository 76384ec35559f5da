#include "config.h"

#include "policy/image.h"

#include <sodium.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "policy/guard.h"
#include "policy/guide.h"
#include "policy/index.h"
#include "policy/literal.h"
#include "policy/value.h"

/* No text in an image is longer, so that checking overlapping texts stays linear. */
#define TEXT_MAX IMAGE_REGEX_PATTERN_MAX
/* Zones end before this, so that adding an offset cannot overflow. */
#define TIME_LIMIT ((int64_t)1 << 40)
#define OFFSET_LIMIT (26 * 3600)

static const size_t record_sizes[SECTION_COUNT] = {
	[SEC_TEXT] = 1,
	[SEC_RULE] = sizeof(struct img_rule),
	[SEC_COND] = sizeof(struct img_cond),
	[SEC_PRED] = sizeof(struct img_pred),
	[SEC_RANGE4] = sizeof(struct img_range4),
	[SEC_RANGE6] = sizeof(struct img_range6),
	[SEC_WORD] = sizeof(struct img_word),
	[SEC_PATTERN] = sizeof(struct img_text),
	[SEC_INDEX] = sizeof(uint32_t),
	[SEC_LITERAL] = sizeof(struct img_literal),
	[SEC_DEMAND] = sizeof(struct img_demand),
	[SEC_PORT] = sizeof(struct img_port),
	[SEC_COUNTRY] = sizeof(uint16_t),
	[SEC_ASN] = sizeof(uint32_t),
	[SEC_WINDOW] = sizeof(struct img_window),
	[SEC_HOURS] = sizeof(struct img_hours),
	[SEC_DAY] = sizeof(int32_t),
	[SEC_ZONE] = sizeof(struct img_zone),
	[SEC_TRANSITION] = sizeof(struct img_transition),
	[SEC_INSTANT] = sizeof(int64_t),
	[SEC_NAT64] = sizeof(struct prefix),
	[SEC_GROUP] = sizeof(struct img_text),
	[SEC_NODE] = sizeof(struct img_node),
	[SEC_CANDIDATE] = sizeof(uint32_t),
	[SEC_TABLE] = sizeof(struct img_table),
	[SEC_BRANCH] = sizeof(struct img_branch),
	[SEC_BUCKET] = sizeof(struct img_bucket),
	[SEC_STEP4] = sizeof(struct img_step4),
	[SEC_STEP6] = sizeof(struct img_step6),
	[SEC_CHAIN] = sizeof(struct img_chain),
	[SEC_FILTER] = sizeof(uint64_t),
	[SEC_GUIDE] = sizeof(uint32_t),
};

size_t image_record_size(enum image_section s)
{
	return record_sizes[s];
}

/* For a block whose sections are known to lie in it. */
static void lay_out(struct policy_image *i, const uint8_t *data)
{
	i->data = data;
	i->header = (const struct img_header *)data;
	for (int s = 0; s < SECTION_COUNT; s++)
		i->sections[s] = data + i->header->sections[s].offset;
}

/* ---- checksum --------------------------------------------------------------------------------------------------- */

static void sum(const uint8_t *data, size_t len, uint8_t out[IMAGE_SUM_BYTES])
{
	static const uint8_t zeros[IMAGE_SUM_BYTES];
	const size_t at = offsetof(struct img_header, sum);
	crypto_generichash_state state;

	crypto_generichash_init(&state, NULL, 0, IMAGE_SUM_BYTES);
	crypto_generichash_update(&state, data, at);
	crypto_generichash_update(&state, zeros, sizeof zeros);
	crypto_generichash_update(&state, data + at + IMAGE_SUM_BYTES, len - at - IMAGE_SUM_BYTES);
	crypto_generichash_final(&state, out, IMAGE_SUM_BYTES);
}

void image_seal(uint8_t *data, size_t len)
{
	struct img_header *h = (struct img_header *)data;

	h->len = len;
	sum(data, len, h->sum);
}

/* ---- verification ------------------------------------------------------------------------------------------------ */

/* A block under examination.  used counts, for each section, the records that others claim: compiled images share none,
 * so claims beyond a section's size are damage, and the work of checking is bounded by the block's size. */
struct check {
	struct policy_image image;
	uint32_t slots; /* bits of those that a predicate has */
	uint64_t used[SECTION_COUNT];
	uint8_t *depth;	  /* of each node; 0: nothing has led to it yet */
	uint16_t *fields; /* of each node: bits of the fields of the tables that lead to it */
};

static bool span_sound(struct check *c, enum image_section s, struct img_span span)
{
	uint32_t count = image_count(&c->image, s);

	if (span.first > count || span.count > count - span.first)
		return false;
	c->used[s] += span.count;
	return c->used[s] <= count;
}

static bool text_sound(const struct check *c, struct img_text t)
{
	uint32_t count = image_count(&c->image, SEC_TEXT);

	if (t.len > TEXT_MAX || t.offset >= count || t.len >= count - t.offset)
		return false;
	return strnlen(image_text(&c->image, t), t.len + 1) == t.len;
}

static int header_check(const uint8_t *data, size_t len, struct err *why)
{
	const struct img_header *h = (const struct img_header *)data;

	if (len < sizeof *h || ((uintptr_t)data & 7) != 0 || memcmp(h->magic, IMAGE_MAGIC, sizeof h->magic) != 0)
		return err_set(why, "this is no policy image");
	if (h->version != IMAGE_VERSION)
		return err_set(why, "the policy image has version %u; this program reads version %u", h->version,
			       IMAGE_VERSION);
	if (h->len != len)
		return err_set(why, "the policy image is cut short or has more bytes than it should");
	return 0;
}

static bool sections_sound(const uint8_t *data, size_t len)
{
	const struct img_header *h = (const struct img_header *)data;

	for (int s = 0; s < SECTION_COUNT; s++) {
		size_t offset = h->sections[s].offset, bytes = (size_t)h->sections[s].count * record_sizes[s];

		if (offset % 8 != 0 || offset < sizeof *h || offset > len || bytes > len - offset)
			return false;
	}
	return h->answers_all <= 1 && h->slots <= KNOWN_SLOTS && h->grace_s <= IMAGE_GRACE_MAX_S;
}

static bool texts_sound(const struct check *c, enum image_section s, struct img_span span)
{
	const struct img_text *w = IMAGE_AT(&c->image, s, struct img_text, span.first);

	for (uint32_t i = 0; i < span.count; i++) {
		if (!text_sound(c, w[i]))
			return false;
		if (i > 0 && strcmp(image_text(&c->image, w[i - 1]), image_text(&c->image, w[i])) >= 0)
			return false;
	}
	return true;
}

/* A word ends with the NUL that ends its text or, at the latest, with the last byte of all text. */
static bool words_sound(const struct check *c, struct img_span span, bool domains)
{
	const struct img_word *w = IMAGE_AT(&c->image, SEC_WORD, struct img_word, span.first);
	uint32_t bytes = image_count(&c->image, SEC_TEXT), vacant = 0;

	for (uint32_t i = 0; i < span.count; i++) {
		if (w[i].text == WORD_FREE) {
			vacant++;
			continue;
		}
		if (w[i].text >> 2 >= bytes || domains != ((w[i].text & 3) != 0))
			return false;
	}
	return span.count == 0 || span.count <= WORDS_LISTED ? vacant == 0 : vacant > 0;
}

static bool ranges_sound(struct check *c, struct img_span v4, struct img_span v6)
{
	if (!span_sound(c, SEC_RANGE4, v4) || !span_sound(c, SEC_RANGE6, v6))
		return false;
	const struct img_range4 *r4 = IMAGE_AT(&c->image, SEC_RANGE4, struct img_range4, v4.first);
	const struct img_range6 *r6 = IMAGE_AT(&c->image, SEC_RANGE6, struct img_range6, v6.first);

	for (uint32_t i = 0; i < v4.count; i++)
		if (r4[i].lo > r4[i].hi || (i > 0 && r4[i].lo <= r4[i - 1].hi))
			return false;
	for (uint32_t i = 0; i < v6.count; i++)
		if (memcmp(r6[i].lo, r6[i].hi, 16) > 0 || (i > 0 && memcmp(r6[i].lo, r6[i - 1].hi, 16) <= 0))
			return false;
	return true;
}

static bool ports_sound(const struct check *c, struct img_span span)
{
	const struct img_port *p = IMAGE_AT(&c->image, SEC_PORT, struct img_port, span.first);

	for (uint32_t i = 0; i < span.count; i++)
		if (p[i].lo > p[i].hi || (i > 0 && p[i].lo <= p[i - 1].hi))
			return false;
	return true;
}

static bool countries_sound(const struct check *c, struct img_span span)
{
	const uint16_t *p = IMAGE_AT(&c->image, SEC_COUNTRY, uint16_t, span.first);

	for (uint32_t i = 1; i < span.count; i++)
		if (p[i] <= p[i - 1])
			return false;
	return true;
}

static bool numbers_sound(const struct check *c, struct img_span span)
{
	const uint32_t *p = IMAGE_AT(&c->image, SEC_ASN, uint32_t, span.first);

	for (uint32_t i = 1; i < span.count; i++)
		if (p[i] <= p[i - 1])
			return false;
	return true;
}

static bool indexes_sound(const struct check *c, struct img_span span, enum image_section target)
{
	const uint32_t *p = IMAGE_AT(&c->image, SEC_INDEX, uint32_t, span.first);

	for (uint32_t i = 0; i < span.count; i++)
		if (p[i] >= image_count(&c->image, target))
			return false;
	return true;
}

static bool demand_sound(const struct check *c, const struct img_demand *d)
{
	uint32_t bytes = image_count(&c->image, SEC_TEXT);

	return d->pattern < image_count(&c->image, SEC_PATTERN) && d->len <= LITERAL_TEXT_MAX &&
	       d->at + LITERAL_BYTES <= d->len && d->more_at + LITERAL_BYTES <= d->len && d->text <= bytes &&
	       d->len <= bytes - d->text;
}

static bool literals_sound(struct check *c, struct img_span span)
{
	const struct img_literal *l = IMAGE_AT(&c->image, SEC_LITERAL, struct img_literal, span.first);
	uint32_t vacant = 0;

	for (uint32_t i = 0; i < span.count; i++) {
		vacant += l[i].demands.count == 0;
		if (!span_sound(c, SEC_DEMAND, l[i].demands))
			return false;
		for (uint32_t n = 0; n < l[i].demands.count; n++)
			if (!demand_sound(c,
					  IMAGE_AT(&c->image, SEC_DEMAND, struct img_demand, l[i].demands.first + n)))
				return false;
	}
	return span.count == 0 || vacant > 0;
}

/* Whatever it holds, a search stays in the list: see guide.h. */
static bool guide_sound(struct check *c, struct img_span guide, uint32_t listed)
{
	return span_sound(c, SEC_GUIDE, guide) && guide.count == (listed < GUIDE_MIN ? 0 : guide_words(listed));
}

static bool values_sound(struct check *c, const struct img_pred *p)
{
	switch (p->kind) {
	case PRED_COMMAND:
	case PRED_METHOD:
	case PRED_BY_NAME:
		return true;
	case PRED_PORT:
		return span_sound(c, SEC_PORT, p->a) && ports_sound(c, p->a);
	case PRED_LISTENER:
	case PRED_USER:
	case PRED_CLAIMED_USER:
	case PRED_GROUP:
	case PRED_DOMAIN:
		return span_sound(c, SEC_WORD, p->a) && words_sound(c, p->a, p->kind == PRED_DOMAIN) &&
		       span_sound(c, SEC_FILTER, p->aid);
	case PRED_CLIENT:
		return ranges_sound(c, p->a, p->b) && guide_sound(c, p->aid, p->a.count);
	case PRED_REGEX:
		return span_sound(c, SEC_INDEX, p->a) && indexes_sound(c, p->a, SEC_PATTERN) &&
		       span_sound(c, SEC_LITERAL, p->b) && literals_sound(c, p->b) &&
		       span_sound(c, SEC_FILTER, p->aid) && (p->aid.count > 0 || p->b.count == 0) &&
		       span_sound(c, SEC_INDEX, p->c) && indexes_sound(c, p->c, SEC_PATTERN);
	case PRED_CIDR:
		return ranges_sound(c, p->a, p->b) && ranges_sound(c, p->c, p->d) && guide_sound(c, p->aid, p->a.count);
	case PRED_COUNTRY:
		return span_sound(c, SEC_COUNTRY, p->a) && countries_sound(c, p->a);
	case PRED_ASN:
		return span_sound(c, SEC_ASN, p->a) && numbers_sound(c, p->a);
	case PRED_DURING:
		return span_sound(c, SEC_INDEX, p->a) && indexes_sound(c, p->a, SEC_WINDOW);
	case PRED_FROM:
	case PRED_UNTIL:
		return p->a.count == 1 && span_sound(c, SEC_INSTANT, p->a);
	default:
		return false;
	}
}

/* What is remembered in a slot is the value of one predicate. */
static bool slot_sound(struct check *c, const struct img_pred *p)
{
	if (p->slot == 0)
		return true;
	if (p->slot > c->image.header->slots || (p->kind != PRED_DOMAIN && p->kind != PRED_REGEX) ||
	    (c->slots >> p->slot & 1) != 0)
		return false;
	c->slots |= 1u << p->slot;
	return true;
}

static bool pred_sound(struct check *c, const struct img_pred *p)
{
	if (!slot_sound(c, p) || !values_sound(c, p) || !span_sound(c, SEC_INDEX, p->sets) ||
	    !indexes_sound(c, p->sets, SEC_PRED))
		return false;
	for (uint32_t i = 0; i < p->sets.count; i++) {
		const struct img_pred *set = IMAGE_AT(&c->image, SEC_PRED, struct img_pred,
						      *IMAGE_AT(&c->image, SEC_INDEX, uint32_t, p->sets.first + i));

		if (set->kind != p->kind || set->sets.count > 0)
			return false;
	}
	return true;
}

static bool held_word_sound(const struct check *c, const struct img_cond *cond, const struct img_pred *p)
{
	if (p->kind != PRED_LISTENER && p->kind != PRED_USER && p->kind != PRED_CLAIMED_USER && p->kind != PRED_GROUP &&
	    p->kind != PRED_DOMAIN)
		return false;
	if (p->a.count != 1 || cond->count > COND_WORD_MAX)
		return false;
	const struct img_word *w = IMAGE_AT(&c->image, SEC_WORD, struct img_word, p->a.first);
	const char *text = (const char *)image_section(&c->image, SEC_TEXT) + (w->text >> 2);

	return cond->held.word.domain == (w->text & 3) && strnlen(text, COND_WORD_MAX + 1) == cond->count &&
	       memcmp(cond->held.word.bytes, text, cond->count) == 0;
}

/* A condition holds the values of its predicate and no others.  Predicates have been checked before. */
static bool held_sound(const struct check *c, const struct img_cond *cond, const struct img_pred *p)
{
	switch ((enum cond_form)cond->form) {
	case COND_PRED:
		return true;
	case COND_BITS:
		return p->kind <= PRED_BY_NAME && cond->held.bits == p->a.first;
	case COND_WORD:
		return held_word_sound(c, cond, p);
	case COND_PORTS:
		return p->kind == PRED_PORT && cond->count <= COND_PORTS_MAX && cond->count == p->a.count &&
		       memcmp(cond->held.ports, IMAGE_AT(&c->image, SEC_PORT, struct img_port, p->a.first),
			      cond->count * sizeof cond->held.ports[0]) == 0;
	case COND_RANGES:
		return (p->kind == PRED_CLIENT || p->kind == PRED_CIDR) && cond->count <= COND_RANGES_MAX &&
		       cond->count == p->a.count && p->b.count == 0 &&
		       memcmp(cond->held.ranges, IMAGE_AT(&c->image, SEC_RANGE4, struct img_range4, p->a.first),
			      cond->count * sizeof cond->held.ranges[0]) == 0;
	case COND_KNOWN:
		return p->slot != 0 && cond->held.slot == p->slot;
	}
	return false;
}

static bool cond_sound(const struct check *c, const struct img_cond *cond)
{
	if (cond->pred >= image_count(&c->image, SEC_PRED) || cond->flags > COND_NEGATED)
		return false;
	const struct img_pred *p = IMAGE_AT(&c->image, SEC_PRED, struct img_pred, cond->pred);

	return cond->kind == p->kind && (cond->form == COND_PRED || p->sets.count == 0) && held_sound(c, cond, p);
}

static bool rule_sound(struct check *c, const struct img_rule *r)
{
	if (!text_sound(c, r->name) || !text_sound(c, r->owner) || !text_sound(c, r->ticket) ||
	    !text_sound(c, r->comment))
		return false;
	if (r->source.family != ADDR_NONE && r->source.family != ADDR_V4 && r->source.family != ADDR_V6)
		return false;
	if (r->flags > (RULE_ALLOW | RULE_MONITOR | RULE_INTERNAL) || r->log > POLICY_LOG_ALERT)
		return false;
	if (!span_sound(c, SEC_COND, r->conds))
		return false;
	for (uint32_t i = 0; i < r->conds.count; i++) {
		const struct img_cond *cond = IMAGE_AT(&c->image, SEC_COND, struct img_cond, r->conds.first + i);

		if (!cond_sound(c, cond))
			return false;
	}
	return true;
}

static bool window_sound(struct check *c, const struct img_window *w)
{
	if (!text_sound(c, w->name) || w->zone >= image_count(&c->image, SEC_ZONE))
		return false;
	if (!span_sound(c, SEC_HOURS, w->hours) || !span_sound(c, SEC_DAY, w->except))
		return false;
	for (uint32_t i = 0; i < w->hours.count; i++) {
		const struct img_hours *h = IMAGE_AT(&c->image, SEC_HOURS, struct img_hours, w->hours.first + i);

		if (h->days > 0x7f || h->start >= 1440 || h->end > 1440)
			return false;
	}
	return true;
}

static bool zone_sound(struct check *c, const struct img_zone *z)
{
	if (!text_sound(c, z->name) || !span_sound(c, SEC_TRANSITION, z->transitions))
		return false;
	if (z->until > TIME_LIMIT || z->before < -OFFSET_LIMIT || z->before > OFFSET_LIMIT)
		return false;
	for (uint32_t i = 0; i < z->transitions.count; i++) {
		const struct img_transition *t =
			IMAGE_AT(&c->image, SEC_TRANSITION, struct img_transition, z->transitions.first + i);

		if (t->offset < -OFFSET_LIMIT || t->offset > OFFSET_LIMIT || (i > 0 && t->at <= t[-1].at) ||
		    t->at > TIME_LIMIT || t->at < -TIME_LIMIT)
			return false;
	}
	return true;
}

static bool nat64_sound(const struct check *c)
{
	uint32_t n = image_count(&c->image, SEC_NAT64);

	for (uint32_t i = 0; i < n && i <= GUARD_NAT64_MAX; i++) {
		const struct prefix *p = IMAGE_AT(&c->image, SEC_NAT64, struct prefix, i);

		if (p->addr.family != ADDR_V6 || p->bits < 32 || p->bits > 96 || p->bits % 8 != 0 ||
		    (p->bits > 64 && p->bits != 96))
			return false;
	}
	return n <= GUARD_NAT64_MAX;
}

#define EVERY(c, section, type, test)                                                                                  \
	for (uint32_t n_ = 0; n_ < image_count(&(c)->image, section); n_++)                                            \
		if (!test(c, IMAGE_AT(&(c)->image, section, type, n_)))                                                \
	return false

static bool pattern_sound(const struct check *c, const struct img_text *t)
{
	return text_sound(c, *t);
}

static bool text_ends(const struct check *c)
{
	uint32_t bytes = image_count(&c->image, SEC_TEXT);

	return bytes == 0 || ((const char *)image_section(&c->image, SEC_TEXT))[bytes - 1] == '\0';
}

static bool records_sound(struct check *c)
{
	struct img_span groups = {0, image_count(&c->image, SEC_GROUP)};

	if (!text_ends(c))
		return false;
	EVERY(c, SEC_PRED, struct img_pred, pred_sound);
	EVERY(c, SEC_RULE, struct img_rule, rule_sound);
	EVERY(c, SEC_PATTERN, struct img_text, pattern_sound);
	EVERY(c, SEC_WINDOW, struct img_window, window_sound);
	EVERY(c, SEC_ZONE, struct img_zone, zone_sound);
	return texts_sound(c, SEC_GROUP, groups) && nat64_sound(c) && image_count(&c->image, SEC_ZONE) > 0 &&
	       image_count(&c->image, SEC_RULE) < REF_NONE;
}

/* ---- verification of the index -------------------------------------------------------------------------------------
 */

/* Every node hangs below one place, which comes before it: a way down ends, and soon.  fields: bits of the fields whose
 * tables are on the way. */
static bool ref_sound(struct check *c, uint32_t ref, uint32_t from, unsigned fields)
{
	unsigned depth = from == REF_NONE ? 0 : c->depth[from];

	if ((ref & REF_RULE) != 0)
		return (ref & ~REF_RULE) < image_count(&c->image, SEC_RULE);
	if (ref >= image_count(&c->image, SEC_NODE) || (from != REF_NONE && ref <= from) || c->depth[ref] != 0 ||
	    depth >= INDEX_DEPTH_MAX)
		return false;
	c->depth[ref] = (uint8_t)(depth + 1);
	c->fields[ref] = (uint16_t)fields;
	return true;
}

/* Some bucket does not lead to the next, so that every search ends. */
static bool buckets_sound(struct check *c, const struct img_table *t, uint32_t node, unsigned fields)
{
	uint32_t ends = 0;

	for (uint32_t i = 0; i < t->places.count; i++) {
		const struct img_bucket *b = IMAGE_AT(&c->image, SEC_BUCKET, struct img_bucket, t->places.first + i);

		ends += b->marks[BUCKET_OVERFLOWS] == 0;
		for (unsigned s = 0; s < BUCKET_SLOTS; s++)
			if (b->marks[s] != 0 && !ref_sound(c, b->slots[s].ref, node, fields))
				return false;
	}
	return ends > 0;
}

/* The block around another comes before it. */
static bool chains_sound(struct check *c, const struct img_table *t, uint32_t node, unsigned fields)
{
	for (uint32_t i = 0; i < t->chains.count; i++) {
		const struct img_chain *link = IMAGE_AT(&c->image, SEC_CHAIN, struct img_chain, t->chains.first + i);

		if (!ref_sound(c, link->ref, node, fields))
			return false;
		if (link->outer != CHAIN_END && (link->outer < t->chains.first || link->outer >= t->chains.first + i))
			return false;
	}
	return true;
}

static bool steps_sound(const struct check *c, const struct img_table *t)
{
	bool six = t->field >= FIELD_CLIENT6;

	for (uint32_t i = 0; i < t->places.count; i++) {
		const struct img_step4 *s4 = IMAGE_AT(&c->image, SEC_STEP4, struct img_step4, t->places.first + i);
		const struct img_step6 *s6 = IMAGE_AT(&c->image, SEC_STEP6, struct img_step6, t->places.first + i);
		uint32_t chain = six ? s6->chain : s4->chain;

		if (chain != CHAIN_END && (chain < t->chains.first || chain - t->chains.first >= t->chains.count))
			return false;
		if (i > 0 && (six ? memcmp(s6[-1].from, s6->from, 16) >= 0 : s4[-1].from >= s4->from))
			return false;
	}
	return true;
}

/* IPv4 and IPv6 are two tables of one field. */
static unsigned field_bit(uint32_t field)
{
	if (field == FIELD_CLIENT6)
		return 1u << FIELD_CLIENT4;
	return 1u << (field == FIELD_TO6 ? FIELD_TO4 : field);
}

/* A request goes down one way for each of its values of a field: a field that came again and again on a way, or twice
 * in a node, would multiply them. */
static bool table_sound(struct check *c, const struct img_table *t, uint32_t node, unsigned *seen)
{
	if (t->field >= FIELD_COUNT || (*seen >> t->field & 1) != 0 || (c->fields[node] & field_bit(t->field)) != 0)
		return false;
	unsigned fields = c->fields[node] | field_bit(t->field);

	*seen |= 1u << t->field;
	if (t->field <= FIELD_LISTENER)
		return span_sound(c, SEC_BUCKET, t->places) && t->places.count > 0 &&
		       buckets_sound(c, t, node, fields) && span_sound(c, SEC_FILTER, t->aid);
	if (!guide_sound(c, t->aid, t->field < FIELD_CLIENT6 ? t->places.count : 0))
		return false;
	return span_sound(c, t->field >= FIELD_CLIENT6 ? SEC_STEP6 : SEC_STEP4, t->places) &&
	       span_sound(c, SEC_CHAIN, t->chains) && chains_sound(c, t, node, fields) && steps_sound(c, t);
}

static bool branch_sound(struct check *c, const struct img_branch *b, uint32_t node)
{
	return (b->pred == BRANCH_ALWAYS || b->pred < image_count(&c->image, SEC_PRED)) &&
	       b->flags <= (COND_NEGATED | BRANCH_DENY) && ref_sound(c, b->ref, node, c->fields[node]);
}

static bool node_sound(struct check *c, uint32_t node)
{
	const struct img_node *n = IMAGE_AT(&c->image, SEC_NODE, struct img_node, node);
	unsigned seen = 0;

	if (c->depth[node] == 0 || !span_sound(c, SEC_CANDIDATE, n->rules) || !span_sound(c, SEC_TABLE, n->tables) ||
	    !span_sound(c, SEC_BRANCH, n->branches))
		return false;
	for (uint32_t i = 0; i < n->rules.count; i++) {
		const uint32_t *rule = IMAGE_AT(&c->image, SEC_CANDIDATE, uint32_t, n->rules.first + i);

		if (*rule >= image_count(&c->image, SEC_RULE) || (i > 0 && *rule <= rule[-1]))
			return false;
	}
	for (uint32_t i = 0; i < n->tables.count; i++)
		if (!table_sound(c, IMAGE_AT(&c->image, SEC_TABLE, struct img_table, n->tables.first + i), node, &seen))
			return false;
	for (uint32_t i = 0; i < n->branches.count; i++)
		if (!branch_sound(c, IMAGE_AT(&c->image, SEC_BRANCH, struct img_branch, n->branches.first + i), node))
			return false;
	return true;
}

static bool index_sound(struct check *c)
{
	uint32_t nodes = image_count(&c->image, SEC_NODE);
	bool sound = nodes < REF_NONE;

	c->depth = calloc((size_t)nodes + 1, 1);
	c->fields = calloc((size_t)nodes + 1, sizeof c->fields[0]);
	for (int p = 0; sound && p < INDEX_PHASES; p++) {
		uint32_t root = c->image.header->roots[p];

		sound = c->depth != NULL && c->fields != NULL && (root == REF_NONE || ref_sound(c, root, REF_NONE, 0));
	}
	for (uint32_t i = 0; sound && i < nodes; i++)
		sound = node_sound(c, i);
	free(c->depth);
	free(c->fields);
	return sound;
}

int policy_image_verify(const uint8_t *data, size_t len, struct err *why)
{
	uint8_t computed[IMAGE_SUM_BYTES];
	struct check c = {.image = {.data = NULL}};

	if (header_check(data, len, why) != 0)
		return -1;
	sum(data, len, computed);
	if (memcmp(computed, ((const struct img_header *)data)->sum, sizeof computed) != 0)
		return err_set(why, "the policy image is damaged (checksum)");
	bool sound = sections_sound(data, len);

	if (sound)
		lay_out(&c.image, data);
	if (!sound || !records_sound(&c) || !index_sound(&c))
		return err_set(why, "the policy image is damaged (a record points outside or is out of order)");
	return 0;
}

/* Finds the roots' tables of names; true if it pays to remember what is found of names. */
static bool find_names(struct policy_image *i)
{
	bool many = i->header->slots > 0;

	for (int p = 0; p < INDEX_PHASES; p++) {
		uint32_t root = i->header->roots[p];

		if (root == REF_NONE || (root & REF_RULE) != 0)
			continue;
		const struct img_node *n = IMAGE_AT(i, SEC_NODE, struct img_node, root);
		const struct img_table *t = IMAGE_AT(i, SEC_TABLE, struct img_table, n->tables.first);

		for (uint32_t k = 0; k < n->tables.count; k++)
			if (t[k].field == FIELD_NAME)
				i->names[p] = &t[k];
		many = many || (i->names[p] != NULL && i->names[p]->aid.count > 0);
	}
	return many;
}

/* ---- use --------------------------------------------------------------------------------------------------------- */

struct policy_image *policy_image_open(const uint8_t *data, size_t len, struct err *why)
{
	if (header_check(data, len, why) != 0)
		return NULL;
	struct policy_image *i = calloc(1, sizeof *i);

	if (i == NULL)
		goto fail;
	lay_out(i, data);
	uint32_t patterns = image_count(i, SEC_PATTERN);

	i->patterns = calloc((size_t)patterns + 1, sizeof i->patterns[0]);
	i->broken = calloc((size_t)patterns + 1, sizeof i->broken[0]);
	i->pattern_memo = calloc((size_t)patterns + 1, sizeof i->pattern_memo[0]);
	i->memo = calloc((size_t)image_count(i, SEC_PRED) + 1, 2 * sizeof i->memo[0]);
	bool names = find_names(i);

	i->known = names ? calloc(KNOWN_NAMES, sizeof i->known[0]) : NULL;
	i->windows = calloc((size_t)image_count(i, SEC_WINDOW) + 1, sizeof i->windows[0]);
	i->cursors = calloc(INDEX_CURSORS, sizeof i->cursors[0]);
	i->match_data = pcre2_match_data_create(1, NULL);
	i->match_context = pcre2_match_context_create(NULL);
	if (i->patterns == NULL || i->broken == NULL || i->memo == NULL || i->pattern_memo == NULL ||
	    (names && i->known == NULL) || i->windows == NULL || i->cursors == NULL || i->match_data == NULL ||
	    i->match_context == NULL)
		goto fail;
	pcre2_set_match_limit(i->match_context, IMAGE_REGEX_MATCH_LIMIT);
	pcre2_set_depth_limit(i->match_context, IMAGE_REGEX_DEPTH_LIMIT);
	pcre2_set_heap_limit(i->match_context, IMAGE_REGEX_HEAP_KIB);
	return i;
fail:
	policy_image_close(&i);
	err_set(why, "there is no memory left to open the policy image");
	return NULL;
}

void policy_image_close(struct policy_image **image)
{
	struct policy_image *i = *image;

	if (i == NULL)
		return;
	for (uint32_t n = 0; i->patterns != NULL && n < image_count(i, SEC_PATTERN); n++)
		pcre2_code_free(i->patterns[n]);
	free(i->patterns);
	free(i->broken);
	free(i->memo);
	free(i->pattern_memo);
	free(i->known);
	free(i->windows);
	free(i->cursors);
	pcre2_match_data_free(i->match_data);
	pcre2_match_context_free(i->match_context);
	free(i);
	*image = NULL;
}

pcre2_code *image_regex_compile(const char *text, size_t len, size_t *offset, struct err *why)
{
	/* Case does not matter: names are lower case, and a pattern written otherwise would never match. */
	const uint32_t options = PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_CASELESS | PCRE2_DOLLAR_ENDONLY |
				 PCRE2_NEVER_UTF | PCRE2_NEVER_UCP | PCRE2_NEVER_BACKSLASH_C;
	pcre2_compile_context *context = pcre2_compile_context_create(NULL);
	pcre2_code *code = NULL;
	PCRE2_UCHAR message[200];
	int rc = PCRE2_ERROR_NOMEMORY;

	*offset = 0;
	if (len > IMAGE_REGEX_PATTERN_MAX) {
		err_set(why, "a pattern has at most %u bytes", IMAGE_REGEX_PATTERN_MAX);
		goto out;
	}
	if (context != NULL) {
		pcre2_set_parens_nest_limit(context, 50);
		code = pcre2_compile((PCRE2_SPTR)text, len, options, &rc, offset, context);
	}
	if (code == NULL) {
		pcre2_get_error_message(rc, message, sizeof message);
		err_set(why, "%s", (const char *)message);
	}
out:
	pcre2_compile_context_free(context);
	return code;
}

size_t policy_rule_count(const struct policy_image *image)
{
	return image_count(image, SEC_RULE);
}

static const struct img_rule *rule_at(const struct policy_image *image, uint32_t rule)
{
	return rule < image_count(image, SEC_RULE) ? IMAGE_AT(image, SEC_RULE, struct img_rule, rule) : NULL;
}

const char *policy_rule_name(const struct policy_image *image, uint32_t rule)
{
	const struct img_rule *r = rule_at(image, rule);

	return r == NULL ? "default" : image_text(image, r->name);
}

bool policy_rule_monitors(const struct policy_image *image, uint32_t rule)
{
	const struct img_rule *r = rule_at(image, rule);

	return r != NULL && (r->flags & RULE_MONITOR) != 0;
}

enum policy_log policy_rule_log(const struct policy_image *image, uint32_t rule)
{
	const struct img_rule *r = rule_at(image, rule);

	return r == NULL ? POLICY_LOG_INFO : (enum policy_log)r->log;
}

struct addr policy_rule_source(const struct policy_image *image, uint32_t rule)
{
	const struct img_rule *r = rule_at(image, rule);

	return r == NULL ? (struct addr){0} : r->source;
}

const char *policy_rule_owner(const struct policy_image *image, uint32_t rule)
{
	const struct img_rule *r = rule_at(image, rule);

	return r == NULL ? "" : image_text(image, r->owner);
}

const char *policy_rule_ticket(const struct policy_image *image, uint32_t rule)
{
	const struct img_rule *r = rule_at(image, rule);

	return r == NULL ? "" : image_text(image, r->ticket);
}

const char *policy_rule_comment(const struct policy_image *image, uint32_t rule)
{
	const struct img_rule *r = rule_at(image, rule);

	return r == NULL ? "" : image_text(image, r->comment);
}

bool policy_answers_all(const struct policy_image *image)
{
	return image->header->answers_all != 0;
}

unsigned policy_grace_s(const struct policy_image *image)
{
	return image->header->grace_s;
}

size_t policy_group_count(const struct policy_image *image)
{
	return image_count(image, SEC_GROUP);
}

const char *policy_group_name(const struct policy_image *image, size_t index)
{
	return index < policy_group_count(image)
		       ? image_text(image, *IMAGE_AT(image, SEC_GROUP, struct img_text, index))
		       : "";
}
