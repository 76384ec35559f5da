/* Why a request is decided as it is.  The decision's own walk reports what it does; this file only writes it down,
 * first as JSON, from which the text for people is made. */
#include "config.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/decide.h"
#include "policy/value.h"
#include "policy/window.h"

struct telling {
	struct decide_watch watch; /* first: the callbacks get a pointer to it */
	const struct policy_context *ctx;
	json_t *phases, *phase, *rules;
	char failed[256]; /* the last condition that was false, of the rule under way */
	json_t *notes;	  /* of the rule under way */
	json_t *windows;  /* of it, too, for programs */
};

/* How many values of a condition are told. */
#define VALUES_MAX 4

/* ---- a condition in words ------------------------------------------------------------------------------------------
 */

static void append(char *buf, size_t size, const char *text)
{
	size_t used = strlen(buf);

	snprintf(buf + used, size - used, "%s", text);
}

static const char *pred_word(const struct img_pred *p)
{
	static const char *const words[PRED_KINDS] = {
		[PRED_COMMAND] = "command",
		[PRED_METHOD] = "method",
		[PRED_BY_NAME] = "by",
		[PRED_PORT] = "port",
		[PRED_LISTENER] = "listener",
		[PRED_USER] = "user",
		[PRED_CLAIMED_USER] = "claimed-user",
		[PRED_GROUP] = "group",
		[PRED_CLIENT] = "client",
		[PRED_DOMAIN] = "to domain",
		[PRED_REGEX] = "to regex",
		[PRED_CIDR] = "to cidr",
		[PRED_COUNTRY] = "to country",
		[PRED_ASN] = "to asn",
		[PRED_DURING] = "during",
		[PRED_FROM] = "from",
		[PRED_UNTIL] = "until",
	};

	return words[p->kind];
}

/* As a prefix where the range is one, as people write it. */
static void range_text(const struct addr *lo, const struct addr *hi, char *buf, size_t size)
{
	char a[ADDR_TEXT_MAX], b[ADDR_TEXT_MAX], text[PREFIX_TEXT_MAX];
	unsigned all = addr_bits(lo), bits = all;
	struct addr last = *lo;

	for (; bits > 0 && !addr_equal(&last, hi); bits--) {
		uint8_t bit = (uint8_t)(0x80u >> ((bits - 1) % 8));

		if ((lo->bytes[(bits - 1) / 8] & bit) != 0)
			break;
		last.bytes[(bits - 1) / 8] |= bit;
	}
	struct prefix p = {.addr = *lo, .bits = (uint8_t)bits};

	if (addr_equal(&last, hi))
		snprintf(buf, size, "%s", bits == all ? addr_format(lo, a) : prefix_format(&p, text));
	else
		snprintf(buf, size, "%s-%s", addr_format(lo, a), addr_format(hi, b));
}

/* The n-th word, free places not counted. */
static bool word_text(const struct policy_image *i, const struct img_pred *p, uint32_t n, char *buf, size_t size)
{
	const struct img_word *w = IMAGE_AT(i, SEC_WORD, struct img_word, p->a.first), *end = w + p->a.count;
	static const char *const prefixes[] = {"", "", "*.", "."};

	for (; w < end; w++)
		if (w->text != WORD_FREE && n-- == 0) {
			snprintf(buf, size, "%s%s", prefixes[w->text & 3],
				 (const char *)image_section(i, SEC_TEXT) + (w->text >> 2));
			return true;
		}
	return false;
}

/* How many values a predicate has, those of its sets included. */
static uint32_t value_count(const struct policy_image *i, const struct img_pred *p)
{
	bool words = p->kind == PRED_DOMAIN || (p->kind >= PRED_LISTENER && p->kind <= PRED_GROUP);
	bool ranges = p->kind == PRED_CIDR || p->kind == PRED_CLIENT;
	uint32_t total = words ? p->b.count : p->a.count + (ranges ? p->b.count : 0);

	for (uint32_t n = 0; n < p->sets.count; n++)
		total += value_count(i, IMAGE_AT(i, SEC_PRED, struct img_pred,
						 *IMAGE_AT(i, SEC_INDEX, uint32_t, p->sets.first + n)));
	return total;
}

/* The n-th value of a predicate with tables; false if there is none. */
static bool value_text(const struct policy_image *i, const struct img_pred *p, uint32_t n, char *buf, size_t size)
{
	struct addr lo, hi;

	if (p->kind == PRED_CIDR || p->kind == PRED_CLIENT) {
		if (n < p->a.count) {
			const struct img_range4 *r = IMAGE_AT(i, SEC_RANGE4, struct img_range4, p->a.first + n);

			lo = addr_v4(r->lo);
			hi = addr_v4(r->hi);
		} else if (n - p->a.count < p->b.count) {
			const struct img_range6 *r =
				IMAGE_AT(i, SEC_RANGE6, struct img_range6, p->b.first + n - p->a.count);

			lo = addr_v6(r->lo);
			hi = addr_v6(r->hi);
		} else {
			return false;
		}
		range_text(&lo, &hi, buf, size);
		return true;
	}
	if (n >= p->a.count)
		return false;
	if (p->kind == PRED_DOMAIN || (p->kind >= PRED_LISTENER && p->kind <= PRED_GROUP))
		return word_text(i, p, n, buf, size);
	n += p->a.first;
	if (p->kind == PRED_PORT) {
		const struct img_port *port = IMAGE_AT(i, SEC_PORT, struct img_port, n);

		snprintf(buf, size, port->lo == port->hi ? "%u" : "%u-%u", port->lo, port->hi);
	} else if (p->kind == PRED_COUNTRY) {
		uint16_t code = *IMAGE_AT(i, SEC_COUNTRY, uint16_t, n);

		snprintf(buf, size, code == VALUE_COUNTRY_UNKNOWN ? "unknown" : "%c%c", code >> 8, code & 0xff);
	} else if (p->kind == PRED_ASN) {
		uint32_t asn = *IMAGE_AT(i, SEC_ASN, uint32_t, n);

		snprintf(buf, size, asn == VALUE_COUNTRY_UNKNOWN ? "unknown" : "AS%u", asn);
	} else if (p->kind == PRED_REGEX) {
		uint32_t pattern = *IMAGE_AT(i, SEC_INDEX, uint32_t, n);

		snprintf(buf, size, "\"%s\"", image_text(i, *IMAGE_AT(i, SEC_PATTERN, struct img_text, pattern)));
	} else {
		const struct img_window *w =
			IMAGE_AT(i, SEC_WINDOW, struct img_window, *IMAGE_AT(i, SEC_INDEX, uint32_t, n));

		snprintf(buf, size, "%s", image_text(i, w->name));
	}
	return true;
}

void explain_clock(const struct policy_image *i, uint32_t zone, int64_t when, char *buf, size_t size)
{
	static const char *const days[] = {"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"};
	int64_t shown;

	if (!window_clock(i, zone, when, &shown)) {
		snprintf(buf, size, "a time out of range");
		return;
	}
	/* Civil date from days, March-based years, so that the leap day is the last of a year. */
	int64_t day = shown / 86400, minute = shown % 86400 / 60;
	int64_t z = day + 719468, era = z / 146097, doe = z % 146097;
	int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
	int64_t month = mp < 10 ? mp + 3 : mp - 9, year = yoe + era * 400 + (month <= 2);

	snprintf(buf, size, "%s %04d-%02d-%02d %02d:%02d %s", days[(day + 3) % 7], (int)year, (int)month,
		 (int)(doy - (153 * mp + 2) / 5 + 1), (int)(minute / 60), (int)(minute % 60),
		 image_text(i, IMAGE_AT(i, SEC_ZONE, struct img_zone, zone)->name));
}

static void bits_text(const struct img_pred *p, char *buf, size_t size)
{
	static const char *const commands[POLICY_METHODS] = {NULL, "connect", "bind", "udp"};
	static const char *const methods[] = {"none", "password", "gssapi", "socks4", "gssapi-integrity", "gssapi-confidentiality"};
	static const char *const ways[POLICY_METHODS] = {"address", "name"};
	const char *const *words = p->kind == PRED_COMMAND ? commands : p->kind == PRED_METHOD ? methods : ways;

	for (int i = 0; i < POLICY_METHODS; i++) {
		if ((p->a.first >> i & 1) == 0 || words[i] == NULL)
			continue;
		append(buf, size, " ");
		append(buf, size, words[i]);
	}
}

static const char *cond_text(const struct policy_image *i, const struct img_cond *cond, char *buf, size_t size)
{
	const struct img_pred *p = IMAGE_AT(i, SEC_PRED, struct img_pred, cond->pred);
	uint32_t total = value_count(i, p), told = 0;
	char value[128];

	snprintf(buf, size, "%s%s", (cond->flags & COND_NEGATED) != 0 ? "not " : "", pred_word(p));
	if (p->kind == PRED_COMMAND || p->kind == PRED_METHOD || p->kind == PRED_BY_NAME) {
		bits_text(p, buf, size);
		return buf;
	}
	if (p->kind == PRED_FROM || p->kind == PRED_UNTIL) {
		explain_clock(i, 0, *IMAGE_AT(i, SEC_INSTANT, int64_t, p->a.first), value, sizeof value);
		append(buf, size, " ");
		append(buf, size, value);
		return buf;
	}
	for (; told < VALUES_MAX && value_text(i, p, told, value, sizeof value); told++) {
		append(buf, size, " ");
		append(buf, size, value);
	}
	if (total > told) {
		snprintf(value, sizeof value, " ... (%u in all)", total);
		append(buf, size, value);
	}
	return buf;
}

/* ---- listening -----------------------------------------------------------------------------------------------------
 */

static json_t *string(const char *text)
{
	json_t *s = json_string(text);

	/* Names of users are any bytes but control bytes; what is no UTF-8 cannot be shown as it is. */
	return s != NULL ? s : json_string("(not UTF-8)");
}

static void told_phase(struct decide_watch *w, const struct addr *address)
{
	struct telling *t = (struct telling *)w;
	char text[ADDR_TEXT_MAX];

	t->phase = json_object();
	t->rules = json_array();
	json_object_set_new(t->phase, "address", address == NULL ? json_null() : string(addr_format(address, text)));
	json_object_set_new(t->phase, "rules", t->rules);
	json_array_append_new(t->phases, t->phase);
	t->notes = t->windows = NULL;
	t->failed[0] = '\0';
}

static void note_windows(struct telling *t, const struct img_pred *p)
{
	const struct policy_image *i = t->ctx->image;
	char when[80], note[256];

	for (uint32_t n = 0; n < p->a.count && n < VALUES_MAX; n++) {
		uint32_t window = *IMAGE_AT(i, SEC_INDEX, uint32_t, p->a.first + n);
		const struct img_window *w = IMAGE_AT(i, SEC_WINDOW, struct img_window, window);
		enum window_state state = window_state(i, window, t->ctx->now);
		const char *word = state == WINDOW_OPEN ? "open" : state == WINDOW_SHUT ? "shut" : "unknown";
		int64_t next = window_next_change(i, window, t->ctx->now);

		explain_clock(i, w->zone, next, when, sizeof when);
		snprintf(note, sizeof note, "window %s is %s until %s", image_text(i, w->name), word, when);
		if (t->windows == NULL)
			t->windows = json_array();
		json_array_append_new(t->windows, json_pack("{s:o, s:s, s:o, s:I}", "window", string(image_text(i, w->name)),
							    "state", word, "until", string(when), "until_s", (json_int_t)next));
		if (t->notes == NULL)
			t->notes = json_array();
		json_array_append_new(t->notes, string(note));
	}
}

static void told_cond(struct decide_watch *w, uint32_t rule, const struct img_cond *cond, enum value value)
{
	struct telling *t = (struct telling *)w;
	const struct img_pred *p = IMAGE_AT(t->ctx->image, SEC_PRED, struct img_pred, cond->pred);

	(void)rule;
	if (p->kind == PRED_DURING)
		note_windows(t, p);
	if (value == VALUE_FALSE || (value == VALUE_CANNOT && t->failed[0] == '\0'))
		cond_text(t->ctx->image, cond, t->failed, sizeof t->failed);
}

static void told_rule(struct decide_watch *w, uint32_t rule, enum value value)
{
	static const char *const results[] = {
		[VALUE_FALSE] = "no",	     [VALUE_TRUE] = "matches",
		[VALUE_ABSENT] = "no",	     [VALUE_CANNOT] = "cannot be evaluated",
		[VALUE_PERHAPS] = "perhaps", [VALUE_PERHAPS_CANNOT] = "perhaps cannot be evaluated",
	};
	struct telling *t = (struct telling *)w;
	const struct img_rule *r = IMAGE_AT(t->ctx->image, SEC_RULE, struct img_rule, rule);
	json_t *o = json_object();

	json_object_set_new(o, "rule", string(policy_rule_name(t->ctx->image, rule)));
	json_object_set_new(o, "action", string((r->flags & RULE_ALLOW) != 0 ? "allow" : "deny"));
	json_object_set_new(o, "monitor", json_boolean((r->flags & RULE_MONITOR) != 0));
	json_object_set_new(o, "result", string(results[value]));
	json_object_set_new(o, "condition", t->failed[0] == '\0' ? json_null() : string(t->failed));
	if (t->notes != NULL)
		json_object_set_new(o, "notes", t->notes);
	if (t->windows != NULL)
		json_object_set_new(o, "windows", t->windows);
	json_array_append_new(t->rules, o);
	t->notes = t->windows = NULL;
	t->failed[0] = '\0';
}

static const char *verdict_word(enum policy_verdict v)
{
	return v == POLICY_ALLOW ? "allow" : v == POLICY_DENY ? "deny" : "resolve";
}

static json_t *decision_json(const struct policy_image *i, const struct policy_decision *d)
{
	static const char *const reasons[] = {
		[POLICY_BY_RULE] = "rule",	  [POLICY_BY_DEFAULT] = "default",
		[POLICY_BY_GUARD] = "guard",	  [POLICY_CANNOT_DECIDE] = "cannot-decide",
		[POLICY_NO_ANSWER] = "no-answer", [POLICY_ANSWER_REFUSED] = "answer-refused",
	};
	json_t *o = json_object();
	char text[256];

	json_object_set_new(o, "verdict", string(verdict_word(d->verdict)));
	json_object_set_new(o, "reason", string(reasons[d->reason]));
	json_object_set_new(o, "rule", string(policy_rule_name(i, d->rule)));
	json_object_set_new(o, "text", string(policy_decision_text(i, d, text, sizeof text)));
	return o;
}

static void told_decision(struct decide_watch *w, const struct policy_decision *d)
{
	struct telling *t = (struct telling *)w;

	json_object_set_new(t->phase, "decision", decision_json(t->ctx->image, d));
}

/* ---- telling -------------------------------------------------------------------------------------------------------
 */

static const char *text_at(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s == NULL ? "" : s;
}

static void print_rule(FILE *f, const json_t *rule)
{
	const char *condition = text_at(rule, "condition");
	size_t i;
	json_t *note;

	fprintf(f, "  %-20s %s%-5s  %s", text_at(rule, "rule"),
		json_is_true(json_object_get(rule, "monitor")) ? "monitor " : "", text_at(rule, "action"),
		text_at(rule, "result"));
	if (condition[0] != '\0')
		fprintf(f, ": %s", condition);
	fputc('\n', f);
	json_array_foreach(json_object_get(rule, "notes"), i, note)
		fprintf(f, "  %-20s   %s\n", "", json_string_value(note));
}

static void print_text(FILE *f, const json_t *root)
{
	size_t i, n;
	json_t *phase, *rule;

	json_array_foreach(json_object_get(root, "phases"), i, phase)
	{
		const char *address = text_at(phase, "address");
		const json_t *decision = json_object_get(phase, "decision");

		if (address[0] == '\0')
			fprintf(f, "by name, before any lookup:\n");
		else
			fprintf(f, "address %s:\n", address);
		json_array_foreach(json_object_get(phase, "rules"), n, rule) print_rule(f, rule);
		fprintf(f, "  -> %s (%s)\n", text_at(decision, "verdict"), text_at(decision, "text"));
	}
	const json_t *whole = json_object_get(root, "decision");

	fprintf(f, "%s: %s\n", text_at(whole, "verdict"), text_at(whole, "text"));
}

static char *render(const json_t *root, bool json)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	if (f == NULL)
		return NULL;
	if (json) {
		json_dumpf(root, f, JSON_INDENT(2));
		fputc('\n', f);
	} else {
		print_text(f, root);
	}
	return fclose(f) == 0 ? text : NULL;
}

char *policy_explain(const struct policy_context *ctx, const struct policy_request *req, const struct addr *addresses,
		     size_t n, const struct name *aliases, size_t naliases, bool json, struct policy_decision *d)
{
	struct telling t = {.watch = {.on_phase = told_phase,
				      .on_cond = told_cond,
				      .on_rule = told_rule,
				      .on_decision = told_decision},
			    .ctx = ctx,
			    .phases = json_array()};
	json_t *root = json_object();

	decide_request(ctx, req, addresses, n, aliases, naliases, &t.watch, d);
	json_object_set_new(root, "phases", t.phases);
	json_object_set_new(root, "decision", decision_json(ctx->image, d));
	char *text = render(root, json);

	json_decref(root);
	return text;
}
