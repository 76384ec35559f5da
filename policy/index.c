#include "config.h"

#include "policy/index.h"

#include <string.h>

#include "policy/filter.h"
#include "policy/guide.h"
#include "policy/hash.h"
#include "policy/literal.h"

#define RULE_OF(ref) ((ref) & ~REF_RULE)

void index_name_read(const struct policy_image *i, const struct name *name, struct index_name *out)
{
	INDEX_AS_IT_IS uint64_t ends[128];
	INDEX_AS_IT_IS const char *starts[128];
	uint64_t h = i->header->seed, secret = hash_secret(h);
	unsigned n = 0;

	/* Labels are not empty, so that at most 127 suffixes begin at one. */
	for (size_t end = name->len; n < 127;) {
		size_t start = hash_label(name->text, end);

		h = hash_bytes(h, secret, name->text + start, end - start);
		ends[n] = hash_end(h);
		starts[n++] = name->text + start;
		if (start == 0)
			break;
		end = start - 1;
	}
	out->count = n;
	for (unsigned k = 0; k < n; k++) {
		out->hash[k] = ends[n - 1 - k];
		out->text[k] = starts[n - 1 - k];
	}
}

static uint64_t word_hash(const struct policy_image *i, const char *word)
{
	return hash_text(i->header->seed, word, strlen(word));
}

void index_words_read(const struct policy_image *i, const struct policy_request *req, struct index_words *out)
{
	if (req->user == NULL)
		return;
	out->user = word_hash(i, req->user);
	for (size_t g = 0; g < req->ngroups && g < INDEX_GROUPS; g++)
		out->groups[g] = word_hash(i, req->groups[g]);
}

/* ---- cursors: a heap by the next rule ------------------------------------------------------------------------------
 */

static void cursor_add(struct index_request *r, uint32_t rule, uint32_t at, uint32_t end)
{
	struct index_cursor *heap = r->image->cursors;

	if (r->ncursors == INDEX_CURSORS) {
		r->every = true;
		return;
	}
	size_t i = r->ncursors++;

	__builtin_prefetch(IMAGE_AT(r->image, SEC_RULE, struct img_rule, rule));
	while (i > 0 && heap[(i - 1) / 2].rule > rule) {
		heap[i] = heap[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	heap[i] = (struct index_cursor){.rule = rule, .at = at, .end = end};
}

static void cursor_sink(struct index_request *r, struct index_cursor c)
{
	struct index_cursor *heap = r->image->cursors;
	size_t i = 0;

	for (;;) {
		size_t child = 2 * i + 1;

		if (child >= r->ncursors)
			break;
		if (child + 1 < r->ncursors && heap[child + 1].rule < heap[child].rule)
			child++;
		if (heap[child].rule >= c.rule)
			break;
		heap[i] = heap[child];
		i = child;
	}
	heap[i] = c;
}

/* While one rule is verified, the memory of the next comes. */
static void prefetch_conds(const struct index_request *r, uint32_t rule)
{
	const struct img_rule *next = IMAGE_AT(r->image, SEC_RULE, struct img_rule, rule);

	__builtin_prefetch(IMAGE_AT(r->image, SEC_COND, struct img_cond, next->conds.first));
}

uint32_t index_next(struct index_request *r)
{
	struct index_cursor *heap = r->image->cursors;

	if (r->every)
		return r->last = r->last + 1 < image_count(r->image, SEC_RULE) ? r->last + 1 : POLICY_NO_RULE;
	while (r->ncursors > 0) {
		struct index_cursor top = heap[0];
		uint32_t rule = top.rule;

		if (top.at < top.end) {
			top.rule = *IMAGE_AT(r->image, SEC_CANDIDATE, uint32_t, top.at);
			top.at++;
			cursor_sink(r, top);
		} else if (--r->ncursors > 0) {
			cursor_sink(r, heap[r->ncursors]);
		}
		/* A rule with several values that the request has comes several times. */
		if (rule == r->last)
			continue;
		if (r->ncursors > 0)
			prefetch_conds(r, heap[0].rule);
		return r->last = rule;
	}
	return POLICY_NO_RULE;
}

/* ---- the way down --------------------------------------------------------------------------------------------------
 */

static void visit(struct index_request *r, uint32_t ref);

/* The bits 7 of the bytes of marks that may be mark: of all that are, and rarely of another. */
static uint64_t same_marks(const uint8_t marks[8], uint8_t mark)
{
	const uint64_t ones = 0x0101010101010101u;
	uint64_t differ;

	memcpy(&differ, marks, sizeof differ);
	differ ^= ones * mark;
	return (differ - ones) & ~differ & ones << 7;
}

/* Only what the root's table leads to is noted, not what is found on the way from there. */
static void find(struct index_request *r, uint32_t ref)
{
	struct image_known *noting = r->noting;

	if (noting != NULL) {
		uint8_t *n = &noting->nrefs[r->phase];

		if (*n < KNOWN_REFS)
			noting->refs[r->phase][*n] = ref;
		*n = (uint8_t)(*n + (*n <= KNOWN_REFS));
	}
	r->noting = NULL;
	visit(r, ref);
	r->noting = noting;
}

static void look_up(struct index_request *r, const struct img_table *t, uint64_t hash)
{
	uint32_t at = hash_place(hash, t->places.count), tag = hash_tag(hash);
	uint8_t mark = hash_mark(hash);

	for (;;) {
		const struct img_bucket *b = IMAGE_AT(r->image, SEC_BUCKET, struct img_bucket, t->places.first + at);

		if (same_marks(b->marks, mark) != 0)
			for (unsigned s = 0; s < BUCKET_SLOTS; s++)
				if (b->marks[s] == mark && b->slots[s].tag == tag)
					find(r, b->slots[s].ref);
		if (b->marks[BUCKET_OVERFLOWS] == 0)
			return;
		at = at + 1 == t->places.count ? 0 : at + 1;
	}
}

static void look_up_text(struct index_request *r, const struct img_table *t, const char *text)
{
	if (text != NULL)
		look_up(r, t, word_hash(r->image, text));
}

/* For tables in which most of what is looked up is not found. */
static void look_up_rare(struct index_request *r, const struct img_table *t, uint64_t hash)
{
	const uint64_t *filter = IMAGE_AT(r->image, SEC_FILTER, uint64_t, t->aid.first);

	if (t->aid.count == 0 || filter_may_hold(filter, t->aid.count, hash))
		look_up(r, t, hash);
}

static void look_up_name(struct index_request *r, const struct img_table *t, const struct index_name *n)
{
	look_up_rare(r, t, n->hash[0] ^ HASH_EXACT);
	for (unsigned k = 0; k < n->count; k++)
		look_up_rare(r, t, n->hash[k]);
}

static void climb(struct index_request *r, uint32_t chain)
{
	while (chain != CHAIN_END) {
		const struct img_chain *c = IMAGE_AT(r->image, SEC_CHAIN, struct img_chain, chain);

		visit(r, c->ref);
		chain = c->outer;
	}
}

static void look_up_step4(struct index_request *r, const struct img_table *t, uint32_t value)
{
	const struct img_step4 *s = IMAGE_AT(r->image, SEC_STEP4, struct img_step4, t->places.first);
	uint32_t n = t->places.count, lo = 0;

	if (n == 0 || s[0].from > value)
		return;
	if (t->aid.count > 0) {
		lo = guide_find(IMAGE_AT(r->image, SEC_GUIDE, uint32_t, t->aid.first), n, value);
		if (lo == n)
			return;
		n = n - lo < GUIDE_STEP ? n - lo : GUIDE_STEP;
	}
	/* Halving without a branch that the processor could guess wrong. */
	while (n > 1) {
		uint32_t half = n / 2;

		lo = s[lo + half].from <= value ? lo + half : lo;
		n -= half;
	}
	climb(r, s[lo].chain);
}

static void look_up_step6(struct index_request *r, const struct img_table *t, const uint8_t value[16])
{
	const struct img_step6 *s = IMAGE_AT(r->image, SEC_STEP6, struct img_step6, t->places.first);
	uint32_t n = t->places.count, lo = 0;

	if (n == 0 || memcmp(s[0].from, value, 16) > 0)
		return;
	while (n > 1) {
		uint32_t half = n / 2;

		if (memcmp(s[lo + half].from, value, 16) <= 0)
			lo += half;
		n -= half;
	}
	climb(r, s[lo].chain);
}

static uint32_t v4_number(const struct addr *a)
{
	return (uint32_t)a->bytes[0] << 24 | (uint32_t)a->bytes[1] << 16 | (uint32_t)a->bytes[2] << 8 | a->bytes[3];
}

static void look_up_address(struct index_request *r, const struct img_table *t, const struct addr *a, bool six)
{
	if (six && a->family == ADDR_V6)
		look_up_step6(r, t, a->bytes);
	else if (!six && a->family == ADDR_V4)
		look_up_step4(r, t, v4_number(a));
}

/* The name that was asked for; in a root's table it may have been looked up before. */
static void look_up_known(struct index_request *r, const struct img_table *t)
{
	struct image_known *k = t == r->image->names[r->phase] ? r->known : NULL;

	if (k != NULL && k->nrefs[r->phase] <= KNOWN_REFS) {
		for (unsigned i = 0; i < k->nrefs[r->phase]; i++)
			visit(r, k->refs[r->phase][i]);
		return;
	}
	if (k != NULL && k->nrefs[r->phase] == KNOWN_NOT) {
		k->nrefs[r->phase] = 0;
		r->noting = k;
	}
	look_up_name(r, t, r->name);
	r->noting = NULL;
}

static void look_up_names(struct index_request *r, const struct img_table *t)
{
	INDEX_AS_IT_IS struct index_name alias;

	if (r->name == NULL)
		return;
	look_up_known(r, t);
	for (size_t i = 0; i < r->naliases; i++) {
		index_name_read(r->image, &r->aliases[i], &alias);
		look_up_name(r, t, &alias);
	}
}

/* Each literal once, however often the name holds it: of those that the filter lets through there are few. */
static void look_up_literals(struct index_request *r, const struct img_table *t, const struct name *name)
{
	INDEX_AS_IT_IS struct literal_name read;
	INDEX_AS_IT_IS uint32_t found[sizeof read.text];
	const uint64_t *filter = IMAGE_AT(r->image, SEC_FILTER, uint64_t, t->aid.first);
	size_t nfound = 0;

	literal_name_read(name, &read);
	for (size_t at = 0, n; at + LITERAL_BYTES <= read.len; at++) {
		uint32_t literal = literal_at(read.text + at);
		uint64_t hash = literal_hash(r->image->header->seed, literal);

		if (t->aid.count > 0 && !filter_may_hold(filter, t->aid.count, hash))
			continue;
		for (n = 0; n < nfound && found[n] != literal; n++)
			;
		if (n < nfound)
			continue;
		found[nfound++] = literal;
		look_up(r, t, hash);
	}
}

static void visit_table(struct index_request *r, const struct img_table *t)
{
	const struct policy_request *req = r->request;

	switch ((enum index_field)t->field) {
	case FIELD_NAME:
		look_up_names(r, t);
		break;
	case FIELD_USER:
		if (req->user != NULL)
			look_up(r, t, r->words->user);
		break;
	case FIELD_GROUP:
		for (size_t i = 0; req->user != NULL && i < req->ngroups; i++)
			look_up(r, t, i < INDEX_GROUPS ? r->words->groups[i] : word_hash(r->image, req->groups[i]));
		break;
	case FIELD_CLAIMED_USER:
		look_up_text(r, t, req->claimed_user);
		break;
	case FIELD_LITERAL:
		if (req->name == NULL)
			break;
		look_up_literals(r, t, req->name);
		for (size_t i = 0; i < r->naliases; i++)
			look_up_literals(r, t, &r->aliases[i]);
		break;
	case FIELD_LISTENER:
		look_up_text(r, t, req->listener);
		break;
	case FIELD_PORT:
		look_up_step4(r, t, req->port);
		break;
	case FIELD_CLIENT4:
	case FIELD_CLIENT6:
		look_up_address(r, t, &req->client, t->field == FIELD_CLIENT6);
		break;
	case FIELD_TO4:
	case FIELD_TO6:
		for (size_t i = 0; i < r->naddresses; i++)
			look_up_address(r, t, &r->addresses[i], t->field == FIELD_TO6);
		break;
	case FIELD_COUNT:
		break;
	}
}

static void prefetch(const struct index_request *r, const struct img_table *t, uint64_t hash)
{
	__builtin_prefetch(IMAGE_AT(r->image, SEC_BUCKET, struct img_bucket, t->places.first) +
			   hash_place(hash, t->places.count));
}

/* Asks for the memory that the tables of a node will be looked up in, all at once, instead of waiting for one after the
 * other. */
static void prefetch_tables(const struct index_request *r, const struct img_table *t, uint32_t n)
{
	const struct policy_request *req = r->request;

	for (; n > 0; n--, t++) {
		if (t->field == FIELD_NAME && r->name != NULL &&
		    (r->known == NULL || r->known->nrefs[r->phase] == KNOWN_NOT))
			for (unsigned k = 0; k < r->name->count; k++)
				prefetch(r, t, r->name->hash[k]);
		if (t->field == FIELD_USER && req->user != NULL)
			prefetch(r, t, r->words->user);
		if (t->field == FIELD_GROUP && req->user != NULL)
			for (size_t i = 0; i < req->ngroups && i < INDEX_GROUPS; i++)
				prefetch(r, t, r->words->groups[i]);
	}
}

/* As deep as the tree, which is checked. */
static void visit(struct index_request *r, uint32_t ref)
{
	r->every = r->every || ++r->visits > INDEX_VISITS;
	if (r->every)
		return;
	if ((ref & REF_RULE) != 0) {
		cursor_add(r, RULE_OF(ref), 0, 0);
		return;
	}
	const struct img_node *n = IMAGE_AT(r->image, SEC_NODE, struct img_node, ref);

	if (n->rules.count > 0)
		cursor_add(r, *IMAGE_AT(r->image, SEC_CANDIDATE, uint32_t, n->rules.first), n->rules.first + 1,
			   n->rules.first + n->rules.count);
	if (n->tables.count > 1)
		prefetch_tables(r, IMAGE_AT(r->image, SEC_TABLE, struct img_table, n->tables.first), n->tables.count);
	for (uint32_t i = 0; i < n->tables.count; i++)
		visit_table(r, IMAGE_AT(r->image, SEC_TABLE, struct img_table, n->tables.first + i));
	for (uint32_t i = 0; i < n->branches.count; i++) {
		const struct img_branch *b = IMAGE_AT(r->image, SEC_BRANCH, struct img_branch, n->branches.first + i);

		if ((r->traits & ~b->traits) == 0 && (b->pred == BRANCH_ALWAYS || r->open(r->arg, b)))
			visit(r, b->ref);
	}
}

static uint32_t request_traits(const struct policy_request *req)
{
	uint32_t t = TRAIT_BY(req->name != NULL);

	if ((unsigned)req->command >= POLICY_CONNECT && (unsigned)req->command <= POLICY_UDP)
		t |= TRAIT_COMMAND((unsigned)req->command);
	if ((unsigned)req->method < POLICY_METHODS)
		t |= TRAIT_METHOD((unsigned)req->method);
	t |= req->user == NULL ? TRAIT_NO_USER : 0;
	t |= req->claimed_user == NULL ? TRAIT_NO_CLAIM : 0;
	t |= req->listener == NULL ? TRAIT_NO_LISTENER : 0;
	t |= req->client.family == ADDR_NONE ? TRAIT_NO_CLIENT : 0;
	return t;
}

void index_find(struct index_request *r, enum index_phase phase)
{
	uint32_t root = r->image->header->roots[phase];

	r->phase = phase;
	r->noting = NULL;
	r->ncursors = 0;
	r->visits = 0;
	r->every = false;
	r->last = POLICY_NO_RULE; /* the next of which is 0 */
	r->traits = request_traits(r->request);
	if (root != REF_NONE)
		visit(r, root);
}

uint32_t index_rule_traits(const struct img_rule *rule, const struct img_cond *conds, const struct img_pred *preds)
{
	uint32_t traits = TRAITS_ALL, lack;

	for (uint32_t i = 0; i < rule->conds.count; i++) {
		const struct img_cond *cond = &conds[rule->conds.first + i];
		const struct img_pred *p = &preds[cond->pred];
		bool negated = (cond->flags & COND_NEGATED) != 0, deny = (rule->flags & RULE_ALLOW) == 0;

		switch ((enum pred_kind)p->kind) {
		case PRED_COMMAND:
			lack = TRAITS_COMMANDS & ~p->a.first;
			traits &= ~(negated ? TRAITS_COMMANDS & ~lack : lack);
			continue;
		case PRED_METHOD:
			lack = TRAITS_METHODS & ~(p->a.first << 4);
			traits &= ~(negated ? TRAITS_METHODS & ~lack : lack);
			continue;
		case PRED_BY_NAME:
			lack = TRAITS_WAYS & ~(p->a.first << 10);
			traits &= ~(negated ? TRAITS_WAYS & ~lack : lack);
			continue;
		case PRED_USER:
		case PRED_GROUP:
			lack = TRAIT_NO_USER;
			break;
		case PRED_CLAIMED_USER:
			lack = TRAIT_NO_CLAIM;
			break;
		case PRED_LISTENER:
			lack = TRAIT_NO_LISTENER;
			break;
		case PRED_CLIENT:
			lack = TRAIT_NO_CLIENT;
			break;
		case PRED_DOMAIN:
		case PRED_REGEX:
			lack = TRAIT_BY(false);
			break;
		default:
			continue;
		}
		/* What is absent is false; negated, it is true in a deny rule. */
		if (!negated || !deny)
			traits &= ~lack;
	}
	return traits;
}
