#include "config.h"

#include "policy/index.h"

#include <string.h>

#include "policy/hash.h"
#include "policy/literal.h"

#define RULE_OF(ref) ((ref) & ~REF_RULE)

void index_name_read(const struct policy_image *i, const struct name *name, struct index_name *out)
{
	INDEX_AS_IT_IS uint64_t ends[128];
	INDEX_AS_IT_IS const char *starts[128];
	uint64_t h = i->header->seed;
	unsigned n = 0;

	for (size_t at = name->len; at > 0; at--) {
		h = hash_step(h, (unsigned char)name->text[at - 1]);
		if (at == 1 || name->text[at - 2] == '.') {
			ends[n] = hash_end(h);
			starts[n++] = name->text + at - 1;
			/* Labels are not empty, so that at most 127 suffixes begin at one. */
			if (n == 127)
				break;
		}
	}
	out->count = n;
	for (unsigned k = 0; k < n; k++) {
		out->hash[k] = ends[n - 1 - k];
		out->text[k] = starts[n - 1 - k];
	}
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
		if (rule != r->last)
			return r->last = rule;
	}
	return POLICY_NO_RULE;
}

/* ---- the way down --------------------------------------------------------------------------------------------------
 */

static void visit(struct index_request *r, uint32_t ref);

static void look_up(struct index_request *r, const struct img_table *t, uint64_t hash)
{
	const struct img_slot *slots = IMAGE_AT(r->image, SEC_SLOT, struct img_slot, t->places.first);
	uint32_t count = t->places.count, at = hash_place(hash, count), tag = hash_tag(hash);

	for (uint32_t n = 0; n < count && slots[at].ref != REF_NONE; n++) {
		if (slots[at].tag == tag) {
			visit(r, slots[at].ref);
			return;
		}
		at = at + 1 == count ? 0 : at + 1;
	}
}

static void look_up_text(struct index_request *r, const struct img_table *t, const char *text)
{
	if (text != NULL)
		look_up(r, t, hash_text(r->image->header->seed, text, strlen(text)));
}

static void look_up_name(struct index_request *r, const struct img_table *t, const struct index_name *n)
{
	const struct img_slot *slots = IMAGE_AT(r->image, SEC_SLOT, struct img_slot, t->places.first);

	for (unsigned k = 0; k < n->count; k++)
		__builtin_prefetch(&slots[hash_place(n->hash[k], t->places.count)]);
	look_up(r, t, n->hash[0] ^ HASH_EXACT);
	for (unsigned k = 0; k < n->count; k++)
		look_up(r, t, n->hash[k]);
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

static void look_up_names(struct index_request *r, const struct img_table *t)
{
	INDEX_AS_IT_IS struct index_name alias;

	if (r->name == NULL)
		return;
	look_up_name(r, t, r->name);
	for (size_t i = 0; i < r->naliases; i++) {
		index_name_read(r->image, &r->aliases[i], &alias);
		look_up_name(r, t, &alias);
	}
}

static void look_up_literals(struct index_request *r, const struct img_table *t, const struct name *name)
{
	for (size_t i = 0; i + LITERAL_BYTES <= name->len; i++)
		look_up(r, t, literal_hash(r->image->header->seed, literal_at(name->text + i)));
}

static void visit_table(struct index_request *r, const struct img_table *t)
{
	const struct policy_request *req = r->request;

	switch ((enum index_field)t->field) {
	case FIELD_NAME:
		look_up_names(r, t);
		break;
	case FIELD_USER:
		look_up_text(r, t, req->user);
		break;
	case FIELD_GROUP:
		for (size_t i = 0; req->user != NULL && i < req->ngroups; i++)
			look_up_text(r, t, req->groups[i]);
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

/* As deep as the tree, which is checked. */
static void visit(struct index_request *r, uint32_t ref)
{
	if ((ref & REF_RULE) != 0) {
		cursor_add(r, RULE_OF(ref), 0, 0);
		return;
	}
	const struct img_node *n = IMAGE_AT(r->image, SEC_NODE, struct img_node, ref);

	if (n->rules.count > 0)
		cursor_add(r, *IMAGE_AT(r->image, SEC_CANDIDATE, uint32_t, n->rules.first), n->rules.first + 1,
			   n->rules.first + n->rules.count);
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
	if ((unsigned)req->method <= POLICY_METHOD_SOCKS4)
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

	r->ncursors = 0;
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
			lack = 14u & ~p->a.first;
			traits &= ~(negated ? 14u & ~lack : lack);
			continue;
		case PRED_METHOD:
			lack = 15u & ~p->a.first;
			traits &= ~((negated ? 15u & ~lack : lack) << 4);
			continue;
		case PRED_BY_NAME:
			lack = 3u & ~p->a.first;
			traits &= ~((negated ? 3u & ~lack : lack) << 8);
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
