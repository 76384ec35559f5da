/* The decision.  The rules that a request can meet (index.h) are walked in order; a condition that holds its few values
 * is compared with them, and the value of any other is found by the function of its kind, at most once a request (or
 * once an address, for what depends on it), and a pattern matched at most once a name.  Nothing here allocates, except
 * PCRE2 within its limits, and nothing fails: what cannot be found out is a value of its own, and denies. */
#include "config.h"

#include "policy/decide.h"

#include <assert.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "policy/filter.h"
#include "policy/geo_priv.h"
#include "policy/guard.h"
#include "policy/hash.h"
#include "policy/index.h"
#include "policy/literal.h"
#include "policy/ranges.h"
#include "policy/value.h"
#include "policy/window.h"

/* Why a condition could not be evaluated. */
enum cannot {
	CANNOT_MATCH_LIMIT,
	CANNOT_DEPTH_LIMIT,
	CANNOT_HEAP_LIMIT,
	CANNOT_MATCH,
	CANNOT_COUNTRY,
	CANNOT_ASN,
	CANNOT_ZONE,
	CANNOT_KIND,
	CANNOT_BUDGET,
};

static const char *const cannot_texts[] = {
	[CANNOT_MATCH_LIMIT] = "a regular expression reached its match limit",
	[CANNOT_DEPTH_LIMIT] = "a regular expression reached its depth limit",
	[CANNOT_HEAP_LIMIT] = "a regular expression reached its heap limit",
	[CANNOT_MATCH] = "a regular expression could not be matched",
	[CANNOT_COUNTRY] = "there is no sound country data",
	[CANNOT_ASN] = "there are no sound data of autonomous systems",
	[CANNOT_ZONE] = "the time zone of a window is not known that far ahead",
	[CANNOT_KIND] = "the condition is of an unknown kind",
	[CANNOT_BUDGET] = "too many regular expressions reached their limits for one request",
};

struct eval {
	const struct policy_context *ctx;
	const struct policy_image *image;
	const struct policy_request *req;
	const struct addr *address;		/* NULL: not known yet */
	bool nowhere;				/* *address stands for a public address in no set and no country */
	struct addr forms[1 + GUARD_FORMS_MAX]; /* *address, and what it embeds */
	size_t nforms;				/* of the latter */
	const struct name *aliases;
	size_t naliases;
	uint32_t request_stamp, address_stamp;
	uint32_t alias_stamp; /* of the first alias; the others have those behind it */
	unsigned exhausted;   /* matches that reached a limit */
	enum cannot cannot;   /* why the last condition that could not be evaluated could not */
	struct decide_watch *watch;
	struct index_request candidates;
	struct index_words words;
	struct image_known *known; /* of the request's name; NULL: nothing is remembered of it */
	struct index_name name;	   /* of the request, if it has one */
};

/* ---- tables --------------------------------------------------------------------------------------------------------
 */

static bool in_ports(const struct policy_image *i, struct img_span span, uint16_t port)
{
	const struct img_port *p = IMAGE_AT(i, SEC_PORT, struct img_port, span.first);
	uint32_t lo = 0, hi = span.count;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (port > p[mid].hi)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < span.count && p[lo].lo <= port;
}

static const char *word_text(const struct policy_image *i, const struct img_word *w)
{
	return (const char *)image_section(i, SEC_TEXT) + (w->text >> 2);
}

/* The entry of text, or NULL.  A free place ends the search in a hash table, the count in a list. */
static const struct img_word *find_word(const struct policy_image *i, struct img_span span, const char *text,
					uint64_t hash)
{
	const struct img_word *w = IMAGE_AT(i, SEC_WORD, struct img_word, span.first);
	uint32_t at = span.count > WORDS_LISTED ? hash_place(hash, span.count) : 0, tag = hash_tag(hash);

	for (uint32_t n = 0; n < span.count && w[at].text != WORD_FREE; n++) {
		if (w[at].tag == tag && strcmp(word_text(i, &w[at]), text) == 0)
			return &w[at];
		at = at + 1 == span.count ? 0 : at + 1;
	}
	return NULL;
}

static bool in_words(const struct policy_image *i, struct img_span span, const char *word)
{
	return find_word(i, span, word, hash_text(i->header->seed, word, strlen(word))) != NULL;
}

/* Looks up the name and then whatever stands behind each of its dots. */
static bool in_domains(const struct policy_image *i, const struct img_pred *p, const struct index_name *name)
{
	const uint64_t *filter = IMAGE_AT(i, SEC_FILTER, uint64_t, p->aid.first);

	for (unsigned n = 0; n < name->count; n++) {
		if (p->aid.count > 0 && !filter_may_hold(filter, p->aid.count, name->hash[n]))
			continue;
		const struct img_word *w = find_word(i, p->a, name->text[n], name->hash[n]);

		if (w != NULL && (w->text & (n == 0 ? VALUE_DOMAIN_EXACT : VALUE_DOMAIN_BELOW)) != 0)
			return true;
	}
	return false;
}

static uint32_t v4_number(const struct addr *a)
{
	return (uint32_t)a->bytes[0] << 24 | (uint32_t)a->bytes[1] << 16 | (uint32_t)a->bytes[2] << 8 | a->bytes[3];
}

static bool in_ranges(const struct policy_image *i, const struct img_pred *p, const struct addr *a)
{
	if (a->family == ADDR_V4)
		return in_ranges4(i, p->a, p->aid, v4_number(a));
	return a->family == ADDR_V6 && in_ranges6(i, p->b, a->bytes);
}

/* True if the address is in a range that opens the address guard. */
static bool in_openings(const struct policy_image *i, const struct img_pred *p, const struct addr *a)
{
	if (a->family == ADDR_V4)
		return in_ranges4(i, p->c, (struct img_span){0}, v4_number(a));
	return a->family == ADDR_V6 && in_ranges6(i, p->d, a->bytes);
}

/* ---- predicates ----------------------------------------------------------------------------------------------------
 */

static enum value truth(bool b)
{
	return b ? VALUE_TRUE : VALUE_FALSE;
}

static enum value cannot(struct eval *ev, enum cannot why)
{
	ev->cannot = why;
	return VALUE_CANNOT;
}

static enum value word_value(struct eval *ev, const struct img_pred *p, const char *word)
{
	return word == NULL ? VALUE_ABSENT : truth(in_words(ev->image, p->a, word));
}

static enum value group_value(struct eval *ev, const struct img_pred *p)
{
	const struct policy_request *req = ev->req;

	if (req->user == NULL)
		return VALUE_ABSENT;
	for (size_t i = 0; i < req->ngroups; i++)
		if (in_words(ev->image, p->a, req->groups[i]))
			return VALUE_TRUE;
	return VALUE_FALSE;
}

static enum value client_value(struct eval *ev, const struct img_pred *p)
{
	const struct addr *client = &ev->req->client;

	return client->family == ADDR_NONE ? VALUE_ABSENT : truth(in_ranges(ev->image, p, client));
}

/* The compiled pattern, made when first needed; NULL if it cannot be compiled here. */
static pcre2_code *pattern(const struct policy_image *i, uint32_t index)
{
	struct err why;
	size_t offset;

	if (i->patterns[index] == NULL && !i->broken[index]) {
		const struct img_text *t = IMAGE_AT(i, SEC_PATTERN, struct img_text, index);

		i->patterns[index] = image_regex_compile(image_text(i, *t), t->len, &offset, &why);
		/* Without memory it may be compiled another time. */
		i->broken[index] = i->patterns[index] == NULL && offset != 0;
	}
	return i->patterns[index];
}

/* Matches that reach a limit take a millisecond each: a request that meets more of them than this is not looked at any
 * further. */
#define EXHAUSTED_MAX 4

static enum value match(struct eval *ev, uint32_t index, const struct name *name)
{
	const struct policy_image *i = ev->image;
	pcre2_code *code = pattern(i, index);
	int rc = PCRE2_ERROR_INTERNAL;

	if (ev->exhausted == EXHAUSTED_MAX)
		return cannot(ev, CANNOT_BUDGET);
	if (code != NULL)
		rc = pcre2_match(code, (PCRE2_SPTR)name->text, name->len, 0, 0, i->match_data, i->match_context);
	if (rc >= 0)
		return VALUE_TRUE;
	if (rc == PCRE2_ERROR_NOMATCH)
		return VALUE_FALSE;
	ev->exhausted++;
	return cannot(ev, rc == PCRE2_ERROR_MATCHLIMIT	 ? CANNOT_MATCH_LIMIT
			  : rc == PCRE2_ERROR_DEPTHLIMIT ? CANNOT_DEPTH_LIMIT
			  : rc == PCRE2_ERROR_HEAPLIMIT	 ? CANNOT_HEAP_LIMIT
							 : CANNOT_MATCH);
}

/* A pattern may be met at many places of a name, and in many predicates.  stamp is the name's. */
static enum value pattern_value(struct eval *ev, uint32_t index, const struct name *name, uint32_t stamp)
{
	struct image_memo *memo = &ev->image->pattern_memo[index];

	if (memo->stamp != stamp) {
		memo->value = (uint8_t)match(ev, index, name);
		memo->cannot = (uint8_t)ev->cannot;
		memo->stamp = stamp;
	}
	ev->cannot = (enum cannot)memo->cannot;
	return (enum value)memo->value;
}

/* True if the name holds the text whose literal it holds at text[at]. */
static bool holds_text(const struct eval *ev, const struct literal_name *name, size_t at, const struct img_demand *d)
{
	if (d->at > at || d->len > name->len - (at - d->at))
		return false;
	const char *here = name->text + (at - d->at);

	return literal_at(here + d->more_at) == d->more &&
	       memcmp(here, (const char *)image_section(ev->image, SEC_TEXT) + d->text, d->len) == 0;
}

/* Tries the patterns whose texts the name holds at one place. */
static enum value patterns_at(struct eval *ev, const struct img_pred *p, const struct literal_name *name, size_t at,
			      uint64_t hash, uint32_t stamp)
{
	const struct img_literal *table = IMAGE_AT(ev->image, SEC_LITERAL, struct img_literal, p->b.first);
	uint32_t literal = literal_at(name->text + at), place = hash_place(hash, p->b.count);
	enum value v = VALUE_FALSE;

	while (table[place].demands.count != 0 && table[place].literal != literal)
		place = place + 1 == p->b.count ? 0 : place + 1;
	for (uint32_t i = 0; i < table[place].demands.count && v != VALUE_TRUE; i++) {
		const struct img_demand *d =
			IMAGE_AT(ev->image, SEC_DEMAND, struct img_demand, table[place].demands.first + i);
		enum value one =
			!holds_text(ev, name, at, d) ? VALUE_FALSE : pattern_value(ev, d->pattern, name->name, stamp);

		if (one != VALUE_FALSE)
			v = one;
	}
	return v;
}

/* Tries the patterns whose texts the name holds.  Few bytes of a name lead anywhere. */
static enum value literals_value(struct eval *ev, const struct img_pred *p, const struct name *name, uint32_t stamp)
{
	INDEX_AS_IT_IS struct literal_name read;
	const uint64_t *filter = IMAGE_AT(ev->image, SEC_FILTER, uint64_t, p->aid.first);
	uint64_t seed = ev->image->header->seed;
	uint32_t words = p->aid.count;
	enum value v = VALUE_FALSE;

	literal_name_read(name, &read);
	for (size_t at = 0; at + LITERAL_BYTES <= read.len && v != VALUE_TRUE; at++) {
		uint64_t hash = literal_hash(seed, literal_at(read.text + at));

		if (!filter_may_hold(filter, words, hash))
			continue;
		enum value one = patterns_at(ev, p, &read, at, hash, stamp);

		if (one != VALUE_FALSE)
			v = one;
	}
	return v;
}

/* Tries the patterns that the name holds the text of, and those that demand none. */
static enum value patterns_value(struct eval *ev, const struct img_pred *p, const struct name *name, uint32_t stamp)
{
	enum value v = VALUE_FALSE;

	for (uint32_t n = 0; n < p->c.count && v != VALUE_TRUE; n++) {
		uint32_t pattern = *IMAGE_AT(ev->image, SEC_INDEX, uint32_t, p->c.first + n);
		enum value one = pattern_value(ev, pattern, name, stamp);

		if (one != VALUE_FALSE)
			v = one;
	}
	if (p->b.count == 0 || v == VALUE_TRUE)
		return v;
	enum value held = literals_value(ev, p, name, stamp);

	return held == VALUE_FALSE ? v : held;
}

static enum value alias_value(struct eval *ev, const struct img_pred *p, size_t index)
{
	const struct name *alias = &ev->aliases[index];
	INDEX_AS_IT_IS struct index_name name;

	if (p->kind == PRED_REGEX)
		return patterns_value(ev, p, alias, ev->alias_stamp + (uint32_t)index);
	index_name_read(ev->image, alias, &name);
	return truth(in_domains(ev->image, p, &name));
}

/* For the name that was asked for; what is found out is remembered. */
static enum value name_value(struct eval *ev, const struct img_pred *p)
{
	uint8_t *known = p->slot == 0 || ev->known == NULL ? NULL : &ev->known->values[p->slot - 1];
	enum value v;

	if (known != NULL && *known != KNOWN_NOT) {
		ev->cannot = (enum cannot)(*known >> 4);
		return (enum value)(*known & 15);
	}
	v = p->kind == PRED_REGEX ? patterns_value(ev, p, ev->req->name, ev->request_stamp)
				  : truth(in_domains(ev->image, p, &ev->name));
	/* What lay in this request, or in this process, is not the name's. */
	if (known != NULL && !(v == VALUE_CANNOT && (ev->cannot == CANNOT_BUDGET || ev->cannot == CANNOT_MATCH)))
		*known = (uint8_t)(ev->cannot << 4 | v);
	return v;
}

/* wide: also for each alias, which by name are not known yet. */
static enum value names_value(struct eval *ev, const struct img_pred *p, bool wide)
{
	if (ev->req->name == NULL)
		return VALUE_ABSENT;
	enum value v = name_value(ev, p);

	if (!wide || v == VALUE_TRUE)
		return v;
	if (ev->address == NULL)
		return v == VALUE_FALSE ? VALUE_PERHAPS : v;
	for (size_t i = 0; i < ev->naliases && v != VALUE_TRUE; i++) {
		enum value one = alias_value(ev, p, i);

		if (one != VALUE_FALSE)
			v = one;
	}
	return v;
}

static enum value cidr_value(struct eval *ev, const struct img_pred *p, bool wide)
{
	if (ev->address == NULL)
		return VALUE_PERHAPS;
	if (ev->nowhere)
		return VALUE_FALSE;
	bool found = in_ranges(ev->image, p, ev->address);

	for (size_t i = 0; wide && !found && i < ev->nforms; i++)
		found = in_ranges(ev->image, p, &ev->forms[1 + i]);
	return truth(found);
}

static bool in_countries(const struct policy_image *i, struct img_span span, uint32_t code)
{
	const uint16_t *c = IMAGE_AT(i, SEC_COUNTRY, uint16_t, span.first);

	for (uint32_t n = 0; n < span.count; n++)
		if (c[n] == code)
			return true;
	return false;
}

static bool in_numbers(const struct policy_image *i, struct img_span span, uint32_t number)
{
	const uint32_t *p = IMAGE_AT(i, SEC_ASN, uint32_t, span.first);
	uint32_t lo = 0, hi = span.count;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (p[mid] < number)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < span.count && p[lo] == number;
}

static bool in_places(const struct policy_image *i, const struct img_pred *p, uint32_t value)
{
	return p->kind == PRED_ASN ? in_numbers(i, p->a, value) : in_countries(i, p->a, value);
}

static enum value one_place_value(struct eval *ev, const struct img_pred *p, const struct policy_geo *geo,
				  const struct addr *a)
{
	uint32_t value = ev->nowhere ? VALUE_COUNTRY_UNKNOWN : geo_value(geo, a);

	if (value != VALUE_COUNTRY_UNKNOWN)
		return truth(in_places(ev->image, p, value));
	if (in_places(ev->image, p, VALUE_COUNTRY_UNKNOWN))
		return VALUE_TRUE;
	/* A list that names "unknown" speaks about addresses without a country; any other finds nothing to judge. */
	return VALUE_ABSENT;
}

/* The country, or the autonomous system, of the address. */
static enum value place_value(struct eval *ev, const struct img_pred *p, bool wide)
{
	const struct policy_geo *geo = p->kind == PRED_ASN ? ev->ctx->asn : ev->ctx->geo;

	/* Known before any address is: none could be judged, so a lookup would be for nothing. */
	if (geo == NULL)
		return cannot(ev, p->kind == PRED_ASN ? CANNOT_ASN : CANNOT_COUNTRY);
	if (ev->address == NULL)
		return VALUE_PERHAPS;
	enum value v = one_place_value(ev, p, geo, ev->address);

	for (size_t i = 0; wide && v != VALUE_TRUE && i < ev->nforms; i++) {
		enum value one = one_place_value(ev, p, geo, &ev->forms[1 + i]);

		if (one != VALUE_FALSE)
			v = one;
	}
	return v;
}

/* A window's state does not change within a second, in which there are many requests. */
static enum window_state known_state(struct eval *ev, uint32_t window)
{
	struct window_memo *memo = &ev->image->windows[window];

	if (!memo->known || memo->now != ev->ctx->now) {
		memo->state = (uint8_t)window_state(ev->image, window, ev->ctx->now);
		memo->now = ev->ctx->now;
		memo->known = true;
	}
	return (enum window_state)memo->state;
}

static enum value window_value(struct eval *ev, const struct img_pred *p)
{
	bool unknown = false;

	for (uint32_t n = 0; n < p->a.count; n++) {
		uint32_t window = *IMAGE_AT(ev->image, SEC_INDEX, uint32_t, p->a.first + n);
		enum window_state state = known_state(ev, window);

		if (state == WINDOW_OPEN)
			return VALUE_TRUE;
		unknown |= state == WINDOW_UNKNOWN;
	}
	return unknown ? cannot(ev, CANNOT_ZONE) : VALUE_FALSE;
}

static enum value pred_value(struct eval *ev, const struct img_pred *p, bool wide)
{
	const struct policy_request *req = ev->req;

	switch ((enum pred_kind)p->kind) {
	case PRED_COMMAND:
		return truth((unsigned)req->command < 32 && (p->a.first >> req->command & 1) != 0);
	case PRED_METHOD:
		return truth((unsigned)req->method < 32 && (p->a.first >> req->method & 1) != 0);
	case PRED_BY_NAME:
		return truth((p->a.first >> (req->name != NULL) & 1) != 0);
	case PRED_PORT:
		return truth(in_ports(ev->image, p->a, req->port));
	case PRED_LISTENER:
		return word_value(ev, p, req->listener);
	case PRED_USER:
		return word_value(ev, p, req->user);
	case PRED_CLAIMED_USER:
		return word_value(ev, p, req->claimed_user);
	case PRED_GROUP:
		return group_value(ev, p);
	case PRED_CLIENT:
		return client_value(ev, p);
	case PRED_DOMAIN:
	case PRED_REGEX:
		return names_value(ev, p, wide);
	case PRED_CIDR:
		return cidr_value(ev, p, wide);
	case PRED_COUNTRY:
	case PRED_ASN:
		return place_value(ev, p, wide);
	case PRED_DURING:
		return window_value(ev, p);
	case PRED_FROM:
		return truth(ev->ctx->now >= *IMAGE_AT(ev->image, SEC_INSTANT, int64_t, p->a.first));
	case PRED_UNTIL:
		return truth(ev->ctx->now < *IMAGE_AT(ev->image, SEC_INSTANT, int64_t, p->a.first));
	case PRED_KINDS:
		break;
	}
	return cannot(ev, CANNOT_KIND);
}

static enum value remembered_value(struct eval *ev, uint32_t pred, bool wide);

static bool of_address(uint32_t kind)
{
	return kind == PRED_CIDR || kind == PRED_COUNTRY || kind == PRED_ASN;
}

static bool of_time(uint32_t kind)
{
	return kind == PRED_DURING || kind == PRED_FROM || kind == PRED_UNTIL;
}

/* Which forms of the request a condition is held against.  Wide: a deny rule's look at aliases; the embedded addresses
 * that a deny rule and a negated condition also see. */
static bool looks_wide(uint32_t kind, bool deny, bool negated)
{
	if (of_address(kind))
		return deny || negated;
	return (kind == PRED_DOMAIN || kind == PRED_REGEX) && deny && !negated;
}

/* The value of a predicate and of its sets together: true if one is, else what one cannot say, else false. */
static enum value whole_value(struct eval *ev, const struct img_pred *p, bool wide)
{
	enum value v = pred_value(ev, p, wide);
	enum cannot why = ev->cannot;

	for (uint32_t i = 0; i < p->sets.count && v != VALUE_TRUE; i++) {
		uint32_t set = *IMAGE_AT(ev->image, SEC_INDEX, uint32_t, p->sets.first + i);
		enum value one = remembered_value(ev, set, wide);

		if (one != VALUE_FALSE) {
			v = one;
			why = ev->cannot;
		}
	}
	ev->cannot = why;
	return v;
}

static enum value remembered_value(struct eval *ev, uint32_t pred, bool wide)
{
	const struct img_pred *p = IMAGE_AT(ev->image, SEC_PRED, struct img_pred, pred);
	struct image_memo *memo = &ev->image->memo[2 * (size_t)pred + wide];
	uint32_t stamp = of_address(p->kind) ? ev->address_stamp : ev->request_stamp;

	if (memo->stamp != stamp) {
		memo->value = (uint8_t)whole_value(ev, p, wide);
		memo->cannot = (uint8_t)ev->cannot;
		memo->stamp = stamp;
	}
	ev->cannot = (enum cannot)memo->cannot;
	return (enum value)memo->value;
}

/* ---- conditions that hold their values -----------------------------------------------------------------------------
 */

static enum value held_word(const struct img_cond *cond, const char *word)
{
	if (word == NULL)
		return VALUE_ABSENT;
	return truth(strncmp(word, cond->held.word.bytes, cond->count) == 0 && word[cond->count] == '\0');
}

static enum value held_group(const struct eval *ev, const struct img_cond *cond)
{
	if (ev->req->user == NULL)
		return VALUE_ABSENT;
	for (size_t i = 0; i < ev->req->ngroups; i++)
		if (held_word(cond, ev->req->groups[i]) == VALUE_TRUE)
			return VALUE_TRUE;
	return VALUE_FALSE;
}

static bool held_domain(const struct img_cond *cond, const struct name *name)
{
	if (name->len < cond->count ||
	    memcmp(name->text + name->len - cond->count, cond->held.word.bytes, cond->count) != 0)
		return false;
	if (name->len == cond->count)
		return (cond->held.word.domain & VALUE_DOMAIN_EXACT) != 0;
	return (cond->held.word.domain & VALUE_DOMAIN_BELOW) != 0 && name->text[name->len - cond->count - 1] == '.';
}

static enum value held_names(const struct eval *ev, const struct img_cond *cond, bool wide)
{
	if (ev->req->name == NULL)
		return VALUE_ABSENT;
	if (held_domain(cond, ev->req->name))
		return VALUE_TRUE;
	if (wide && ev->address == NULL)
		return VALUE_PERHAPS;
	for (size_t i = 0; wide && i < ev->naliases; i++)
		if (held_domain(cond, &ev->aliases[i]))
			return VALUE_TRUE;
	return VALUE_FALSE;
}

static bool held_port(const struct img_cond *cond, uint16_t port)
{
	for (unsigned i = 0; i < cond->count; i++)
		if (port >= cond->held.ports[i].lo && port <= cond->held.ports[i].hi)
			return true;
	return false;
}

static bool held_range(const struct img_cond *cond, const struct addr *a)
{
	uint32_t number = v4_number(a);

	for (unsigned i = 0; a->family == ADDR_V4 && i < cond->count; i++)
		if (number >= cond->held.ranges[i].lo && number <= cond->held.ranges[i].hi)
			return true;
	return false;
}

static enum value held_cidr(const struct eval *ev, const struct img_cond *cond, bool wide)
{
	if (ev->address == NULL)
		return VALUE_PERHAPS;
	if (ev->nowhere)
		return VALUE_FALSE;
	bool found = held_range(cond, ev->address);

	for (size_t i = 0; wide && !found && i < ev->nforms; i++)
		found = held_range(cond, &ev->forms[1 + i]);
	return truth(found);
}

/* The same as the value of its predicate, which has no sets then. */
static enum value held_value(struct eval *ev, const struct img_cond *cond, bool wide)
{
	const struct policy_request *req = ev->req;

	switch ((enum pred_kind)cond->kind) {
	case PRED_COMMAND:
		return truth((unsigned)req->command < 32 && (cond->held.bits >> req->command & 1) != 0);
	case PRED_METHOD:
		return truth((unsigned)req->method < 32 && (cond->held.bits >> req->method & 1) != 0);
	case PRED_BY_NAME:
		return truth((cond->held.bits >> (req->name != NULL) & 1) != 0);
	case PRED_PORT:
		return truth(held_port(cond, req->port));
	case PRED_LISTENER:
		return held_word(cond, req->listener);
	case PRED_USER:
		return held_word(cond, req->user);
	case PRED_CLAIMED_USER:
		return held_word(cond, req->claimed_user);
	case PRED_GROUP:
		return held_group(ev, cond);
	case PRED_CLIENT:
		return req->client.family == ADDR_NONE ? VALUE_ABSENT : truth(held_range(cond, &req->client));
	case PRED_DOMAIN:
		return held_names(ev, cond, wide);
	case PRED_CIDR:
		return held_cidr(ev, cond, wide);
	default:
		return cannot(ev, CANNOT_KIND);
	}
}

/* What a value comes to in a rule: absent is false, or, negated, true in a deny rule only. */
static enum value value_in_rule(enum value v, bool deny, bool negated)
{
	if (v == VALUE_ABSENT)
		return truth(negated && deny);
	if (negated && (v == VALUE_TRUE || v == VALUE_FALSE))
		return truth(v == VALUE_FALSE);
	return v;
}

/* What is known of the name already, in *v; false if more has to be looked at. */
static bool known_value(struct eval *ev, const struct img_cond *cond, bool wide, enum value *v)
{
	uint8_t known = ev->known == NULL ? KNOWN_NOT : ev->known->values[cond->held.slot - 1];

	if (known == KNOWN_NOT || (wide && ev->naliases > 0))
		return false;
	ev->cannot = (enum cannot)(known >> 4);
	*v = (enum value)(known & 15);
	if (wide && ev->address == NULL && *v == VALUE_FALSE)
		*v = VALUE_PERHAPS;
	return true;
}

static enum value cond_value(struct eval *ev, bool deny, const struct img_cond *cond)
{
	bool negated = (cond->flags & COND_NEGATED) != 0, wide = looks_wide(cond->kind, deny, negated);
	enum value v;

	if (cond->form == COND_PRED || (cond->form == COND_KNOWN && !known_value(ev, cond, wide, &v)))
		v = remembered_value(ev, cond->pred, wide);
	else if (cond->form != COND_KNOWN)
		v = held_value(ev, cond, wide);
	return value_in_rule(v, deny, negated);
}

/* The verdict hangs on the clock if a rule that can decide asks it; a deny rule that only perhaps matches decides
 * nothing. Conditions on time come last in a rule, so perhaps is known. */
static void note_time(struct eval *ev, const struct img_rule *rule, const struct img_cond *cond, bool perhaps)
{
	bool decides = (rule->flags & RULE_MONITOR) == 0 && ((rule->flags & RULE_ALLOW) != 0 || !perhaps);

	if (decides && of_time(cond->kind))
		ev->watch->used_time = true;
}

static enum value rule_value(struct eval *ev, uint32_t index)
{
	const struct img_rule *rule = IMAGE_AT(ev->image, SEC_RULE, struct img_rule, index);
	bool stuck = false, perhaps = false;
	enum cannot why = CANNOT_KIND;
	enum value v = VALUE_TRUE;

	for (uint32_t i = 0; i < rule->conds.count && v != VALUE_FALSE; i++) {
		const struct img_cond *cond = IMAGE_AT(ev->image, SEC_COND, struct img_cond, rule->conds.first + i);

		v = cond_value(ev, (rule->flags & RULE_ALLOW) == 0, cond);
		if (ev->watch != NULL)
			note_time(ev, rule, cond, perhaps);
		if (v == VALUE_CANNOT) {
			stuck = true;
			why = ev->cannot;
		}
		perhaps |= v == VALUE_PERHAPS;
		if (ev->watch != NULL && ev->watch->on_cond != NULL)
			ev->watch->on_cond(ev->watch, index, cond, v);
	}
	if (v != VALUE_FALSE)
		v = !perhaps ? (stuck ? VALUE_CANNOT : VALUE_TRUE) : stuck ? VALUE_PERHAPS_CANNOT : VALUE_PERHAPS;
	ev->cannot = why;
	if (ev->watch != NULL && ev->watch->on_rule != NULL)
		ev->watch->on_rule(ev->watch, index, v);
	return v;
}

/* ---- the address guard ---------------------------------------------------------------------------------------------
 */

static bool rule_opens(struct eval *ev, const struct img_rule *rule)
{
	if ((rule->flags & RULE_INTERNAL) != 0 && guard_is_internal(ev->address))
		return true;
	for (uint32_t i = 0; i < rule->conds.count; i++) {
		const struct img_cond *cond = IMAGE_AT(ev->image, SEC_COND, struct img_cond, rule->conds.first + i);
		const struct img_pred *p = IMAGE_AT(ev->image, SEC_PRED, struct img_pred, cond->pred);

		if (p->kind != PRED_CIDR || (cond->flags & COND_NEGATED) != 0)
			continue;
		if (in_openings(ev->image, p, ev->address))
			return true;
		for (uint32_t n = 0; n < p->sets.count; n++) {
			const struct img_pred *set =
				IMAGE_AT(ev->image, SEC_PRED, struct img_pred,
					 *IMAGE_AT(ev->image, SEC_INDEX, uint32_t, p->sets.first + n));

			if (in_openings(ev->image, set, ev->address))
				return true;
		}
	}
	return false;
}

static bool own_listener(const struct policy_context *ctx, const struct addr *a, uint16_t port)
{
	bool own_port = false;

	for (size_t i = 0; i < ctx->nown_ports; i++)
		own_port |= ctx->own_ports[i] == port;
	for (size_t i = 0; own_port && i < ctx->nlocal; i++)
		if (addr_equal(&ctx->local[i], a))
			return true;
	return false;
}

/* Why the guard refuses the address to a rule that allows it, or NULL. */
static const char *guard_refuses(struct eval *ev, const struct img_rule *rule)
{
	if (ev->nowhere)
		return NULL;
	/* Nothing opens this: it would launder the client's address, or loop. */
	if (own_listener(ev->ctx, ev->address, ev->req->port))
		return "a listener of this gateway";
	const char *range =
		guard_range(ev->address, image_section(ev->image, SEC_NAT64), image_count(ev->image, SEC_NAT64));

	return range != NULL && rule_opens(ev, rule) ? NULL : range;
}

/* ---- the walk ------------------------------------------------------------------------------------------------------
 */

static void decide(struct policy_decision *d, enum policy_verdict verdict, enum policy_reason reason, uint32_t rule,
		   const char *detail)
{
	d->verdict = verdict;
	d->reason = reason;
	d->rule = rule;
	d->detail = detail;
}

static void monitor_hit(struct policy_decision *d, uint32_t rule, bool allow)
{
	if (d->nmonitors == POLICY_MONITORS_MAX) {
		d->monitors_more++;
		return;
	}
	d->monitors[d->nmonitors++] =
		(struct policy_monitor_hit){.rule = rule, .verdict = allow ? POLICY_ALLOW : POLICY_DENY};
}

static const struct policy_decision undecided = {
	.verdict = POLICY_DENY, .reason = POLICY_BY_DEFAULT, .rule = POLICY_NO_RULE, .detail = ""};

/* More stamps than one request takes: one an address, one an alias. */
#define STAMPS_LEFT 65536

/* n fresh stamps, of which the first is returned. */
static uint32_t next_stamps(const struct policy_image *image, size_t n)
{
	struct policy_image *i = (struct policy_image *)image;
	uint32_t first = i->stamp + 1;

	i->stamp += (uint32_t)n;
	return first;
}

/* Before the stamps run out, all that was remembered under them is forgotten; not while a request holds some. */
static void renew_stamps(const struct policy_image *image)
{
	struct policy_image *i = (struct policy_image *)image;

	if (i->stamp < UINT32_MAX - STAMPS_LEFT)
		return;
	memset(i->memo, 0, (size_t)image_count(i, SEC_PRED) * 2 * sizeof i->memo[0]);
	memset(i->pattern_memo, 0, (size_t)image_count(i, SEC_PATTERN) * sizeof i->pattern_memo[0]);
	i->stamp = 0;
}

static bool known_is(const struct image_known *k, const struct name *name, uint64_t hash)
{
	return k->hash == hash && k->len == name->len && memcmp(k->text, name->text, name->len) == 0;
}

/* The place of the name among those of which something is known: one of two, the first of which is given to another
 * name only after it has gone to the second. */
static struct image_known *known_place(const struct policy_image *i, const struct name *name, uint64_t hash)
{
	if (i->known == NULL || name->len > KNOWN_NAME_MAX)
		return NULL;
	struct image_known *k = &i->known[2 * (size_t)hash_place(hash, KNOWN_NAMES / 2)];

	if (known_is(&k[0], name, hash))
		return &k[0];
	if (known_is(&k[1], name, hash))
		return &k[1];
	k[1] = k[0];
	k->hash = hash;
	k->len = name->len;
	memcpy(k->text, name->text, name->len);
	memset(k->values, KNOWN_NOT, sizeof k->values);
	memset(k->nrefs, KNOWN_NOT, sizeof k->nrefs);
	return k;
}

static void begin(struct eval *ev, const struct policy_context *ctx, const struct policy_request *req,
		  const struct name *aliases, size_t naliases, struct decide_watch *w)
{
	/* The tables of names, which are large, are left as they are. */
	memset(ev, 0, offsetof(struct eval, forms));
	memset(&ev->nforms, 0, offsetof(struct eval, candidates) - offsetof(struct eval, nforms));
	ev->ctx = ctx;
	ev->image = ctx->image;
	ev->req = req;
	ev->watch = w;
	ev->known = NULL;
	if (req->name != NULL) {
		index_name_read(ctx->image, req->name, &ev->name);
		ev->known = known_place(ctx->image, req->name, ev->name.hash[0]);
	}
	index_words_read(ctx->image, req, &ev->words);
	renew_stamps(ctx->image);
	ev->request_stamp = next_stamps(ctx->image, 1);
	ev->address_stamp = ev->request_stamp;
	ev->aliases = aliases;
	ev->naliases = naliases;
	ev->alias_stamp = next_stamps(ctx->image, naliases);
}

static void announce(struct eval *ev)
{
	if (ev->watch != NULL && ev->watch->on_phase != NULL)
		ev->watch->on_phase(ev->watch, ev->address);
}

static void conclude(struct eval *ev, const struct policy_decision *d)
{
	if (ev->watch != NULL && ev->watch->on_decision != NULL)
		ev->watch->on_decision(ev->watch, d);
}

/* Asked about the time ahead of a rule, nobody knows yet whether the verdict hangs on it: somebody who wants to be told
 * is told when the rule is verified. */
static bool branch_open(void *arg, const struct img_branch *b)
{
	struct eval *ev = arg;

	bool deny = (b->flags & BRANCH_DENY) != 0, negated = (b->flags & COND_NEGATED) != 0;
	uint32_t kind = IMAGE_AT(ev->image, SEC_PRED, struct img_pred, b->pred)->kind;

	if (ev->watch != NULL && of_time(kind))
		return true;
	return value_in_rule(remembered_value(ev, b->pred, looks_wide(kind, deny, negated)), deny, negated) !=
	       VALUE_FALSE;
}

/* Whoever listens to every rule is told of every rule; otherwise those are left out that are certainly false. */
static bool listened_to(const struct eval *ev)
{
	return ev->watch != NULL && ev->watch->on_rule != NULL;
}

static uint32_t first_rule(struct eval *ev, enum index_phase phase)
{
	struct index_request *c = &ev->candidates;

	if (listened_to(ev))
		return image_count(ev->image, SEC_RULE) > 0 ? 0 : POLICY_NO_RULE;
	c->image = ev->image;
	c->request = ev->req;
	c->words = &ev->words;
	c->name = ev->req->name == NULL ? NULL : &ev->name;
	c->aliases = ev->aliases;
	c->known = ev->known;
	c->naliases = phase == INDEX_BY_NAME ? 0 : ev->naliases;
	c->addresses = ev->forms;
	c->naddresses = phase == INDEX_BY_NAME || ev->nowhere ? 0 : 1 + ev->nforms;
	c->open = branch_open;
	c->arg = ev;
	index_find(c, phase);
	return index_next(c);
}

static uint32_t next_rule(struct eval *ev, uint32_t rule)
{
	if (listened_to(ev))
		return rule + 1 < image_count(ev->image, SEC_RULE) ? rule + 1 : POLICY_NO_RULE;
	return index_next(&ev->candidates);
}

/* With its addresses unknown, a rule perhaps decides.  The name is looked up only if an allow rule stands among those
 * that perhaps do and the first that certainly does. */
static void walk_by_name(struct eval *ev, struct policy_decision *d)
{
	for (uint32_t i = first_rule(ev, INDEX_BY_NAME); i != POLICY_NO_RULE; i = next_rule(ev, i)) {
		const struct img_rule *rule = IMAGE_AT(ev->image, SEC_RULE, struct img_rule, i);
		bool allow = (rule->flags & RULE_ALLOW) != 0;
		enum value v = rule_value(ev, i);

		if (v == VALUE_FALSE || v == VALUE_PERHAPS_CANNOT)
			continue;
		if ((rule->flags & RULE_MONITOR) != 0) {
			if (v != VALUE_PERHAPS)
				monitor_hit(d, i, allow && v == VALUE_TRUE);
		} else if (allow && v != VALUE_CANNOT) {
			decide(d, POLICY_RESOLVE, POLICY_BY_RULE, i, "");
			return;
		} else if (v != VALUE_PERHAPS) {
			decide(d, POLICY_DENY, v == VALUE_CANNOT ? POLICY_CANNOT_DECIDE : POLICY_BY_RULE, i,
			       v == VALUE_CANNOT ? cannot_texts[ev->cannot] : "");
			return;
		}
	}
}

static void walk_by_address(struct eval *ev, struct policy_decision *d)
{
	for (uint32_t i = first_rule(ev, INDEX_BY_ADDRESS); i != POLICY_NO_RULE; i = next_rule(ev, i)) {
		const struct img_rule *rule = IMAGE_AT(ev->image, SEC_RULE, struct img_rule, i);
		enum value v = rule_value(ev, i);
		bool allow = (rule->flags & RULE_ALLOW) != 0 && v == VALUE_TRUE;

		if (v == VALUE_FALSE)
			continue;
		const char *guard = allow ? guard_refuses(ev, rule) : NULL;

		if ((rule->flags & RULE_MONITOR) != 0) {
			monitor_hit(d, i, allow && guard == NULL);
			continue;
		}
		if (v != VALUE_TRUE)
			decide(d, POLICY_DENY, POLICY_CANNOT_DECIDE, i, cannot_texts[ev->cannot]);
		else if (guard != NULL)
			decide(d, POLICY_DENY, POLICY_BY_GUARD, i, guard);
		else
			decide(d, allow ? POLICY_ALLOW : POLICY_DENY, POLICY_BY_RULE, i, "");
		return;
	}
}

static void judge_name(struct eval *ev, struct policy_decision *d)
{
	*d = undecided;
	announce(ev);
	if (ev->req->name != NULL)
		walk_by_name(ev, d);
	conclude(ev, d);
}

static void judge_address(struct eval *ev, const struct addr *address, struct policy_decision *d)
{
	*d = undecided;
	if (address->family != ADDR_V4 && address->family != ADDR_V6) {
		d->reason = POLICY_NO_ANSWER;
		return;
	}
	ev->address = address;
	ev->address_stamp = next_stamps(ev->image, 1);
	ev->forms[0] = *address;
	ev->nforms = guard_embedded(address, image_section(ev->image, SEC_NAT64), image_count(ev->image, SEC_NAT64),
				    ev->forms + 1);
	announce(ev);
	walk_by_address(ev, d);
	conclude(ev, d);
}

/* Judges every address; the whole is the first allowed one, or the first denied one if none is or all have to be. */
static void judge_answers(struct eval *ev, const struct addr *addresses, size_t n, struct policy_decision *each,
			  struct policy_decision *whole)
{
	bool all = policy_answers_all(ev->image);
	bool allowed = false, denied = false;
	struct policy_decision one, first_denied;

	*whole = undecided;
	whole->reason = POLICY_NO_ANSWER;
	for (size_t i = 0; i < n; i++) {
		judge_address(ev, &addresses[i], &one);
		if (each != NULL)
			each[i] = one;
		if (one.verdict == POLICY_ALLOW && !allowed) {
			allowed = true;
			*whole = one;
		} else if (one.verdict != POLICY_ALLOW && !denied) {
			denied = true;
			first_denied = one;
		}
	}
	if (!denied || (allowed && !all))
		return;
	bool mixed = allowed;

	*whole = first_denied;
	if (mixed)
		whole->reason = POLICY_ANSWER_REFUSED;
}

void policy_decide_name(const struct policy_context *ctx, const struct policy_request *req, struct policy_decision *d)
{
	INDEX_AS_IT_IS struct eval ev;

	begin(&ev, ctx, req, NULL, 0, NULL);
	judge_name(&ev, d);
}

void policy_decide_address(const struct policy_context *ctx, const struct policy_request *req,
			   const struct addr *address, const struct name *aliases, size_t naliases,
			   struct policy_decision *d)
{
	INDEX_AS_IT_IS struct eval ev;

	begin(&ev, ctx, req, aliases, naliases, NULL);
	judge_address(&ev, address, d);
}

void policy_decide_answers(const struct policy_context *ctx, const struct policy_request *req,
			   const struct addr *addresses, size_t n, const struct name *aliases, size_t naliases,
			   struct policy_decision *each, struct policy_decision *whole)
{
	INDEX_AS_IT_IS struct eval ev;

	begin(&ev, ctx, req, aliases, naliases, NULL);
	judge_answers(&ev, addresses, n, each, whole);
}

void decide_request(const struct policy_context *ctx, const struct policy_request *req, const struct addr *addresses,
		    size_t n, const struct name *aliases, size_t naliases, struct decide_watch *w,
		    struct policy_decision *d)
{
	static const struct addr somewhere = {.family = ADDR_V4};
	INDEX_AS_IT_IS struct eval ev;

	begin(&ev, ctx, req, NULL, 0, w);
	if (req->name == NULL) {
		judge_address(&ev, &req->address, d);
		return;
	}
	judge_name(&ev, d);
	if (d->verdict != POLICY_RESOLVE || (n == 0 && !w->nowhere))
		return;
	/* Aliases become known: what was remembered without them no longer holds.  Nor does a look at the clock count
	 * that only led here. */
	begin(&ev, ctx, req, aliases, naliases, w);
	w->used_time = false;
	ev.nowhere = n == 0;
	judge_answers(&ev, n == 0 ? &somewhere : addresses, n == 0 ? 1 : n, NULL, d);
}

const char *policy_decision_text(const struct policy_image *image, const struct policy_decision *d, char *buf,
				 size_t len)
{
	const char *rule = policy_rule_name(image, d->rule);
	const char *colon = d->detail[0] == '\0' ? "" : ": ";

	switch (d->reason) {
	case POLICY_BY_RULE:
		snprintf(buf, len, d->verdict == POLICY_RESOLVE ? "rule %s may allow it: resolve" : "rule %s", rule);
		break;
	case POLICY_BY_DEFAULT:
		snprintf(buf, len, "no rule matched");
		break;
	case POLICY_BY_GUARD:
		snprintf(buf, len, "address guard: %s (rule %s does not open it)", d->detail, rule);
		break;
	case POLICY_CANNOT_DECIDE:
		snprintf(buf, len, "rule %s cannot be evaluated%s%s", rule, colon, d->detail);
		break;
	case POLICY_NO_ANSWER:
		snprintf(buf, len, "there is no address to decide on");
		break;
	case POLICY_ANSWER_REFUSED:
		snprintf(buf, len, "answers all: one address is refused (rule %s%s%s)", rule, colon, d->detail);
		break;
	}
	return buf;
}
