/* Whether a client could be let through at all, judged before it has said a word: only its address and its listener are
 * known, and whatever else a rule asks is taken to be so. */
#include "config.h"

#include <string.h>

#include "policy/ranges.h"

/* When so many conditions and sets have been looked at, the answer is yes: this is asked for every client, and a
 * connection costs less than a long search. */
#define LOOKS_MAX 1024

struct client {
	const struct addr *address;
	const char *listener;
	unsigned looks;
};

static uint32_t v4_number(const struct addr *a)
{
	return (uint32_t)a->bytes[0] << 24 | (uint32_t)a->bytes[1] << 16 | (uint32_t)a->bytes[2] << 8 | a->bytes[3];
}

/* Names of listeners are few: no need to know how a table of them is hashed. */
static bool in_words(const struct policy_image *i, struct img_span span, const char *word)
{
	const struct img_word *w = IMAGE_AT(i, SEC_WORD, struct img_word, span.first);
	const char *text = image_section(i, SEC_TEXT);

	for (uint32_t n = 0; n < span.count; n++)
		if (w[n].text != WORD_FREE && strcmp(text + (w[n].text >> 2), word) == 0)
			return true;
	return false;
}

static bool holds_itself(const struct policy_image *i, const struct img_pred *p, const struct client *c)
{
	if (p->kind == PRED_LISTENER)
		return in_words(i, p->a, c->listener);
	return c->address->family == ADDR_V4 ? in_ranges4(i, p->a, p->aid, v4_number(c->address))
					     : in_ranges6(i, p->b, c->address->bytes);
}

static bool holds(const struct policy_image *i, const struct img_pred *p, struct client *c)
{
	c->looks += p->sets.count;
	bool found = holds_itself(i, p, c);

	for (uint32_t n = 0; n < p->sets.count && !found; n++) {
		uint32_t set = *IMAGE_AT(i, SEC_INDEX, uint32_t, p->sets.first + n);

		found = holds_itself(i, IMAGE_AT(i, SEC_PRED, struct img_pred, set), c);
	}
	return found;
}

/* What is known of a rule by now. */
struct match {
	bool here;   /* it is for this listener */
	bool client; /* and for this client */
	bool asks;   /* it asks for the client */
	bool whole;  /* and for nothing that is not known yet */
};

static struct match match(const struct policy_image *i, const struct img_rule *rule, struct client *c)
{
	struct match m = {.here = true, .client = true, .whole = true};

	for (uint32_t n = 0; n < rule->conds.count; n++) {
		const struct img_cond *cond = IMAGE_AT(i, SEC_COND, struct img_cond, rule->conds.first + n);
		const struct img_pred *p = IMAGE_AT(i, SEC_PRED, struct img_pred, cond->pred);
		bool negated = cond->flags & COND_NEGATED;

		if (p->kind == PRED_LISTENER) {
			m.here &= holds(i, p, c) != negated;
		} else if (p->kind == PRED_CLIENT) {
			m.asks = true;
			m.client &= holds(i, p, c) != negated;
		} else {
			m.whole = false;
		}
	}
	return m;
}

bool policy_may_admit(const struct policy_image *image, const struct addr *client, const char *listener)
{
	struct client c = {.address = client, .listener = listener};
	uint32_t count = image_count(image, SEC_RULE);
	bool others = false; /* somebody else might be let through */
	bool reached = true; /* by this client */

	for (uint32_t n = 0; n < count; n++) {
		const struct img_rule *rule = IMAGE_AT(image, SEC_RULE, struct img_rule, n);

		c.looks += 1 + rule->conds.count;
		if (c.looks > LOOKS_MAX)
			return true;
		if (rule->flags & RULE_MONITOR)
			continue;
		struct match m = match(image, rule, &c);
		bool allow = rule->flags & RULE_ALLOW;

		if (!m.here)
			continue;
		if (allow && m.client && reached)
			return true;
		others |= allow;
		if (!allow && m.client && m.whole) {
			if (!m.asks)
				break; /* for everybody what comes after it is out of reach */
			reached = false;
		}
	}
	return !others;
}
