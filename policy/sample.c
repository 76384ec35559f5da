#include "config.h"

#include "policy/sample.h"

#include <string.h>

#include "policy/index.h"
#include "policy/value.h"

static const char *word_at(const struct policy_image *i, const struct img_pred *p, uint32_t value, unsigned *flags)
{
	const struct img_word *w = IMAGE_AT(i, SEC_WORD, struct img_word, p->a.first);

	/* Places, not words, are counted: a table may be large. */
	if (value == 0)
		while (value < p->a.count && w[value].text == WORD_FREE)
			value++;
	if (value >= p->a.count || w[value].text == WORD_FREE)
		return NULL;
	*flags = w[value].text & 3;
	return (const char *)image_section(i, SEC_TEXT) + (w[value].text >> 2);
}

static bool take_word(const struct policy_image *i, const struct img_pred *p, uint32_t value, struct sample *s)
{
	struct policy_request *r = &s->request;
	unsigned flags;
	const char *word = word_at(i, p, value, &flags);

	if (word == NULL)
		return false;
	if (p->kind == PRED_LISTENER)
		r->listener = word;
	else if (p->kind == PRED_CLAIMED_USER)
		r->claimed_user = word;
	else if (p->kind == PRED_USER)
		r->user = word;
	else if (r->ngroups < SAMPLE_GROUPS)
		s->groups[r->ngroups++] = word;
	return true;
}

static bool take_name(const struct policy_image *i, const struct img_pred *p, uint32_t value, struct sample *s)
{
	unsigned flags;
	const char *word = word_at(i, p, value, &flags);
	struct addr address;
	const char *why;
	char text[NAME_MAX_LEN + 8] = "x.";

	if (word == NULL || strlen(word) > NAME_MAX_LEN - 2)
		return false;
	strcpy(text + ((flags & VALUE_DOMAIN_EXACT) != 0 ? 0 : 2), word);
	if (name_canonical(text, strlen(text), &s->name, &address, &why) != NAME_IS_NAME)
		return false;
	s->request.name = &s->name;
	return true;
}

/* Even numbers are the beginnings of ranges, odd ones their ends. */
static bool range_at(const struct policy_image *i, const struct img_pred *p, uint32_t value, struct addr *out)
{
	uint32_t n = value / 2;

	if (n < p->a.count) {
		const struct img_range4 *r = IMAGE_AT(i, SEC_RANGE4, struct img_range4, p->a.first + n);

		*out = addr_v4(value % 2 == 0 ? r->lo : r->hi);
	} else if (n - p->a.count < p->b.count) {
		const struct img_range6 *r = IMAGE_AT(i, SEC_RANGE6, struct img_range6, p->b.first + n - p->a.count);

		*out = addr_v6(value % 2 == 0 ? r->lo : r->hi);
	} else {
		return false;
	}
	return true;
}

static bool port_at(const struct policy_image *i, const struct img_pred *p, uint32_t value, uint16_t *out)
{
	if (value / 2 >= p->a.count)
		return false;
	const struct img_port *r = IMAGE_AT(i, SEC_PORT, struct img_port, p->a.first + value / 2);

	*out = value % 2 == 0 ? r->lo : r->hi;
	return true;
}

uint32_t sample_values(const struct img_pred *p)
{
	switch ((enum pred_kind)p->kind) {
	case PRED_LISTENER:
	case PRED_USER:
	case PRED_CLAIMED_USER:
	case PRED_GROUP:
	case PRED_DOMAIN:
		return p->a.count;
	case PRED_CLIENT:
	case PRED_CIDR:
		return 2 * (p->a.count + p->b.count);
	case PRED_PORT:
		return 2 * p->a.count;
	default:
		return 0;
	}
}

static uint16_t free_port(const struct policy_image *i, const struct img_pred *p)
{
	uint32_t port = 443;

	for (uint32_t n = 0; n < p->a.count; n++) {
		const struct img_port *r = IMAGE_AT(i, SEC_PORT, struct img_port, p->a.first + n);

		if (r->lo <= port && port <= r->hi)
			port = r->hi == 65535 ? 0 : r->hi + 1u;
	}
	return (uint16_t)port;
}

static bool take_value(const struct policy_image *i, const struct img_pred *p, bool negated, uint32_t value,
		       struct sample *s)
{
	struct policy_request *r = &s->request;

	if (negated) {
		if (p->kind == PRED_PORT)
			r->port = free_port(i, p);
		/* What is negated has to be there for an allow rule. */
		if (p->kind == PRED_CLAIMED_USER)
			r->claimed_user = "somebody";
		return value == 0;
	}
	switch ((enum pred_kind)p->kind) {
	case PRED_LISTENER:
	case PRED_USER:
	case PRED_CLAIMED_USER:
	case PRED_GROUP:
		return take_word(i, p, value, s);
	case PRED_DOMAIN:
		return take_name(i, p, value, s);
	case PRED_CLIENT:
		return range_at(i, p, value, &r->client);
	case PRED_CIDR:
		s->has_address = true;
		return range_at(i, p, value, &s->address);
	case PRED_PORT:
		return port_at(i, p, value, &r->port);
	default:
		return value == 0;
	}
}

/* Any name will do where a rule asks for one without saying which. */
static void take_traits(uint32_t traits, struct sample *s)
{
	static const char any[] = "any.sample.example";
	struct policy_request *r = &s->request;

	for (unsigned n = POLICY_UDP; n >= POLICY_CONNECT; n--)
		if ((traits & TRAIT_COMMAND(n)) != 0)
			r->command = (enum policy_command)n;
	for (unsigned n = 0; n < POLICY_METHODS; n++)
		if ((traits & TRAIT_METHOD(n)) != 0) {
			r->method = (enum policy_method)n;
			if (n == POLICY_METHOD_PASSWORD)
				break;
		}
	if (r->name == NULL && (traits & TRAIT_BY(false)) == 0) {
		s->name.len = sizeof any - 1;
		memcpy(s->name.text, any, sizeof any);
		r->name = &s->name;
	}
}

bool sample_make(const struct policy_image *i, uint32_t rule, uint32_t cond, uint32_t value, struct sample *s)
{
	const struct img_rule *r = IMAGE_AT(i, SEC_RULE, struct img_rule, rule);
	const struct img_cond *conds = image_section(i, SEC_COND);
	const struct img_pred *preds = image_section(i, SEC_PRED);
	static const uint8_t client[4] = {192, 0, 2, 77};

	memset(s, 0, sizeof *s);
	s->request.command = POLICY_CONNECT;
	s->request.port = 443;
	s->request.user = "somebody";
	s->request.method = POLICY_METHOD_PASSWORD;
	s->request.listener = "main";
	s->request.client.family = ADDR_V4;
	memcpy(s->request.client.bytes, client, sizeof client);
	s->request.groups = s->groups;
	s->address = addr_v4(0xcb007163); /* 203.0.113.99 */
	for (uint32_t n = 0; n < r->conds.count; n++) {
		const struct img_cond *c = &conds[r->conds.first + n];
		bool taken = take_value(i, &preds[c->pred], (c->flags & COND_NEGATED) != 0, n == cond ? value : 0, s);

		if (n == cond && !taken)
			return false;
	}
	take_traits(index_rule_traits(r, conds, preds), s);
	if (s->request.name == NULL)
		s->request.address = s->address;
	return true;
}
