#include "config.h"

#include "tests/policy/reference.h"

#include <ctype.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "common/name.h"

enum answer { NO, YES, ABSENT, CANNOT, PERHAPS };

/* Everything below asks about one request, for one address or none. */
static const struct reference *ref;
static const struct addr *target;

static enum answer yes_if(bool b)
{
	return b ? YES : NO;
}

/* ---- values and sets -----------------------------------------------------------------------------------------------
 */

/* Asks about each value in turn, and about those of sets: yes if one says yes, else cannot, absent or perhaps if one
 * says that, else no. */
static enum answer any_value(const struct ast_values *values, enum answer (*ask)(const char *value, const void *arg),
			     const void *arg)
{
	enum answer sum = NO;

	for (const struct ast_value *v = values->first; v != NULL; v = v->next) {
		enum answer one = v->set ? any_value(&ast_find(ref->tree, AST_SET, v->text)->values, ask, arg)
					 : ask(v->text, arg);

		if (one == YES)
			return YES;
		if (one != NO)
			sum = one;
	}
	return sum;
}

static enum answer ask_same(const char *value, const void *arg)
{
	return yes_if(strcmp(value, arg) == 0);
}

static enum answer ask_text(const struct ast_values *values, const char *text)
{
	return text == NULL ? ABSENT : any_value(values, ask_same, text);
}

/* ---- addresses -----------------------------------------------------------------------------------------------------
 */

static bool in_text_prefix(const struct addr *a, const char *text)
{
	struct prefix p;
	bool host_bits;

	return prefix_parse(text, &p, &host_bits) && prefix_contains(&p, a);
}

static bool in_text_range(const struct addr *a, const char *text)
{
	const char *dash = strchr(text, '-');
	char first[64] = "";
	struct addr lo, hi;

	if (dash == NULL)
		return in_text_prefix(a, text);
	memcpy(first, text, (size_t)(dash - text));
	addr_parse(first, &lo);
	addr_parse(dash + 1, &hi);
	return lo.family == a->family && addr_compare(&lo, a) <= 0 && addr_compare(a, &hi) <= 0;
}

static enum answer ask_range(const char *value, const void *arg)
{
	return yes_if(in_text_range(arg, value));
}

static struct addr v4(uint8_t a, uint8_t b, uint8_t c, uint8_t d)
{
	return addr_v4((uint32_t)a << 24 | (uint32_t)b << 16 | (uint32_t)c << 8 | d);
}

/* The IPv4 address after a NAT64 prefix of that length: RFC 6052, figure 1. */
static struct addr nat64(const uint8_t *b, unsigned bits)
{
	switch (bits) {
	case 32:
		return v4(b[4], b[5], b[6], b[7]);
	case 40:
		return v4(b[5], b[6], b[7], b[9]);
	case 48:
		return v4(b[6], b[7], b[9], b[10]);
	case 56:
		return v4(b[7], b[9], b[10], b[11]);
	case 64:
		return v4(b[9], b[10], b[11], b[12]);
	default:
		return v4(b[12], b[13], b[14], b[15]);
	}
}

static const struct ast_values *nat64_prefixes(void)
{
	static const struct ast_values none;

	for (const struct ast_statement *s = ref->tree->first; s != NULL; s = s->next)
		if (s->kind == AST_NAT64)
			return &s->values;
	return &none;
}

static bool is_isatap(const struct addr *a)
{
	const uint8_t *b = a->bytes;

	return a->family == ADDR_V6 && (b[8] == 0 || b[8] == 2) && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe;
}

/* The address itself and every IPv4 address it may stand for. */
static size_t all_forms(const struct addr *a, struct addr forms[64])
{
	const uint8_t *b = a->bytes;
	size_t n = 0;

	forms[n++] = *a;
	if (a->family != ADDR_V6)
		return n;
	if (in_text_prefix(a, "::/96") || in_text_prefix(a, "0:0:0:0:ffff:0:0:0/96") ||
	    in_text_prefix(a, "64:ff9b::/96") || is_isatap(a))
		forms[n++] = v4(b[12], b[13], b[14], b[15]);
	if (in_text_prefix(a, "64:ff9b:1::/48"))
		for (unsigned bits = 48; bits <= 96; bits += bits == 64 ? 32 : 8)
			forms[n++] = nat64(b, bits);
	if (in_text_prefix(a, "2002::/16"))
		forms[n++] = v4(b[2], b[3], b[4], b[5]);
	if (in_text_prefix(a, "2001::/32")) {
		forms[n++] = v4(b[4], b[5], b[6], b[7]);
		forms[n++] = v4((uint8_t)~b[12], (uint8_t)~b[13], (uint8_t)~b[14], (uint8_t)~b[15]);
	}
	for (const struct ast_value *v = nat64_prefixes()->first; v != NULL; v = v->next)
		if (in_text_prefix(a, v->text))
			forms[n++] = nat64(b, (unsigned)atoi(strchr(v->text, '/') + 1));
	return n;
}

static enum answer ask_country(const char *value, const void *arg)
{
	char country[3];

	ref->country_of(arg, country);
	if (country[0] == '\0')
		return strcmp(value, "unknown") == 0 ? YES : ABSENT;
	return yes_if(strcasecmp(value, country) == 0);
}

static enum answer ask_asn(const char *value, const void *arg)
{
	unsigned number = ref->asn_of(arg);

	if (number == 0)
		return strcmp(value, "unknown") == 0 ? YES : ABSENT;
	return yes_if((unsigned)atoi(strncasecmp(value, "as", 2) == 0 ? value + 2 : value) == number);
}

/* An allow rule sees the outer address only; a deny rule, or a negated condition, every form. */
static enum answer ask_address(const struct ast_clause *c, bool deny, enum answer (*ask)(const char *, const void *))
{
	struct addr forms[64];
	enum answer sum = NO;

	if (c->kind == AST_TO_COUNTRY && !ref->country_known)
		return CANNOT;
	if (c->kind == AST_TO_ASN && !ref->asn_known)
		return CANNOT;
	if (target == NULL)
		return PERHAPS;
	size_t n = all_forms(target, forms);

	if (!deny && !c->negated)
		n = 1;
	for (size_t i = 0; i < n; i++) {
		enum answer one = any_value(&c->values, ask, &forms[i]);

		if (one == YES)
			return YES;
		if (one != NO)
			sum = one;
	}
	return sum;
}

/* ---- names ---------------------------------------------------------------------------------------------------------
 */

static bool below(const char *name, const char *domain)
{
	size_t n = strlen(name), d = strlen(domain);

	return n > d + 1 && name[n - d - 1] == '.' && strcmp(name + n - d, domain) == 0;
}

static enum answer ask_domain(const char *value, const void *arg)
{
	const struct name *name = arg;
	struct name listed;
	struct addr address;
	const char *why, *bare = value[0] == '.' ? value + 1 : value[0] == '*' ? value + 2 : value;

	if (name_canonical(bare, strlen(bare), &listed, &address, &why) != NAME_IS_NAME)
		abort();
	if (value[0] != '*' && strcmp(name->text, listed.text) == 0)
		return YES;
	return yes_if((value[0] == '*' || value[0] == '.') && below(name->text, listed.text));
}

/* A pattern without alternatives that ends in plain text matches no name that ends otherwise, however long a look for
 * it would take. */
static bool ends_otherwise(const char *pattern, const struct name *name)
{
	size_t at = strlen(pattern), left = name->len;

	while (strchr(pattern, '|') == NULL && at > 0) {
		char c = pattern[at - 1];
		bool escaped = at > 1 && pattern[at - 2] == '\\';

		if (escaped ? c != '.' : !isalnum((unsigned char)c))
			return false;
		if (left == 0 || name->text[left - 1] != c)
			return true;
		left--;
		at -= escaped ? 2 : 1;
	}
	return false;
}

static enum answer ask_regex(const char *value, const void *arg)
{
	const struct name *name = arg;
	char whole[1024];
	int error;
	size_t offset;

	/* The whole name, said the plain way. */
	snprintf(whole, sizeof whole, "^(?:%s)$", value);
	pcre2_code *code =
		pcre2_compile((PCRE2_SPTR)whole, PCRE2_ZERO_TERMINATED, PCRE2_CASELESS, &error, &offset, NULL);
	pcre2_match_data *data = pcre2_match_data_create(1, NULL);
	pcre2_match_context *limits = pcre2_match_context_create(NULL);

	if (code == NULL || data == NULL || limits == NULL)
		abort();
	pcre2_set_match_limit(limits, 50000);
	int rc = pcre2_match(code, (PCRE2_SPTR)name->text, name->len, 0, 0, data, limits);

	pcre2_match_context_free(limits);
	pcre2_match_data_free(data);
	pcre2_code_free(code);
	if (rc >= 0)
		return YES;
	return rc == PCRE2_ERROR_NOMATCH || ends_otherwise(value, name) ? NO : CANNOT;
}

/* A deny rule by name also sees the aliases, which before the lookup are not known. */
static enum answer ask_name(const struct ast_clause *c, bool deny, enum answer (*ask)(const char *, const void *))
{
	if (ref->request->name == NULL)
		return ABSENT;
	enum answer sum = any_value(&c->values, ask, ref->request->name);

	if (sum == YES || !deny || c->negated)
		return sum;
	if (target == NULL)
		return sum == NO ? PERHAPS : sum;
	for (size_t i = 0; i < ref->naliases; i++) {
		enum answer one = any_value(&c->values, ask, &ref->aliases[i]);

		if (one == YES)
			return YES;
		if (one != NO)
			sum = one;
	}
	return sum;
}

/* ---- time ----------------------------------------------------------------------------------------------------------
 */

static struct tm wall(const char *zone, int64_t now)
{
	time_t t = (time_t)now;
	struct tm tm;

	setenv("TZ", zone, 1);
	tzset();
	localtime_r(&t, &tm);
	return tm;
}

static void date_text(const struct tm *tm, char out[32])
{
	strftime(out, 32, "%Y-%m-%d", tm);
}

/* Is a day of a window's one that it begins on? */
static bool begins(const struct ast_statement *w, const char *days, struct tm tm, int days_back)
{
	static const char *const week[] = {"sun", "mon", "tue", "wed", "thu", "fri", "sat"};
	char date[32];

	tm.tm_mday -= days_back;
	tm.tm_hour = 12;
	tm.tm_isdst = -1;
	mktime(&tm);
	date_text(&tm, date);
	for (const struct ast_value *v = w->except.first; v != NULL; v = v->next)
		if (strcmp(v->text, date) == 0)
			return false;
	return strstr(days, week[tm.tm_wday]) != NULL;
}

/* "mon-wed" becomes "mon tue wed ". */
static void spell_days(const char *text, char *out)
{
	static const char *const week[] = {"mon", "tue", "wed", "thu", "fri", "sat", "sun"};
	const char *last = strlen(text) == 7 ? text + 4 : text;
	int i = 0;

	while (strncmp(week[i], text, 3) != 0)
		i++;
	for (;; i = (i + 1) % 7) {
		strcat(out, week[i]);
		strcat(out, " ");
		if (strncmp(week[i], last, 3) == 0)
			return;
	}
}

static bool hours_open(const struct ast_statement *w, const char *days, int start, int end, const struct tm *tm)
{
	int minute = tm->tm_hour * 60 + tm->tm_min;

	if (start < end)
		return begins(w, days, *tm, 0) && start <= minute && minute < end;
	return (begins(w, days, *tm, 0) && minute >= start) || (begins(w, days, *tm, 1) && minute < end);
}

static enum answer ask_window(const char *value, const void *arg)
{
	const struct ast_statement *w = ast_find(ref->tree, AST_WINDOW, value);
	struct tm tm = wall(w->zone != NULL ? w->zone->text : ast_zone(ref->tree), ref->now);
	char days[256] = "";
	bool hours_said = true;

	(void)arg;
	for (const struct ast_value *v = w->values.first; v != NULL; v = v->next) {
		int a, b, c, d;

		if (sscanf(v->text, "%2d:%2d-%2d:%2d", &a, &b, &c, &d) == 4) {
			if (hours_open(w, days[0] == '\0' ? "mon tue wed thu fri sat sun" : days, a * 60 + b,
				       c * 60 + d, &tm))
				return YES;
			hours_said = true;
			continue;
		}
		if (hours_said)
			days[0] = '\0';
		hours_said = false;
		spell_days(v->text, days);
	}
	return yes_if(!hours_said && begins(w, days, tm, 0));
}

/* Has the policy's clock ever shown that text or later?  A clock that was put back has. */
static bool reached(const char *text)
{
	char shown[32];

	for (int back = 0; back <= 3 * 3600; back += 60) {
		struct tm tm = wall(ast_zone(ref->tree), ref->now - back);

		strftime(shown, sizeof shown, "%Y-%m-%d %H:%M", &tm);
		if (strcmp(shown, text) >= 0)
			return true;
		if (back == 0 && strncmp(shown, text, 10) != 0)
			return false;
	}
	return false;
}

static enum answer ask_period(const struct ast_clause *c)
{
	const char *text = c->values.first->text;
	char edge[32];

	if (c->kind == AST_FROM)
		return yes_if(reached(text));
	/* The whole of a day: until its last minute is over. */
	if (strlen(text) > 10)
		return yes_if(!reached(text));
	snprintf(edge, sizeof edge, "%.10s 99:99", text);
	return yes_if(!reached(edge));
}

/* ---- conditions and rules ------------------------------------------------------------------------------------------
 */

static enum answer ask_port(const char *value, const void *arg)
{
	int port = *(const uint16_t *)arg, lo = atoi(value);
	const char *dash = strchr(value, '-');

	return yes_if(lo <= port && port <= (dash == NULL ? lo : atoi(dash + 1)));
}

static enum answer ask_group(const struct ast_clause *c)
{
	const struct policy_request *r = ref->request;

	if (r->user == NULL)
		return ABSENT;
	for (size_t i = 0; i < r->ngroups; i++)
		if (ask_text(&c->values, r->groups[i]) == YES)
			return YES;
	return NO;
}

static enum answer plain_answer(const struct ast_clause *c, bool deny)
{
	static const char *const commands[] = {NULL, "connect", "bind", "udp"};
	static const char *const methods[] = {"none", "password", "gssapi", "socks4", "gssapi-integrity", "gssapi-confidentiality"};
	const struct policy_request *r = ref->request;

	switch (c->kind) {
	case AST_CLIENT:
		return r->client.family == ADDR_NONE ? ABSENT : any_value(&c->values, ask_range, &r->client);
	case AST_LISTENER:
		return ask_text(&c->values, r->listener);
	case AST_USER:
		return ask_text(&c->values, r->user);
	case AST_GROUP:
		return ask_group(c);
	case AST_CLAIMED_USER:
		return ask_text(&c->values, r->claimed_user);
	case AST_METHOD:
		if (strncmp(methods[r->method], "gssapi", 6) == 0 && ask_text(&c->values, "gssapi") == YES)
			return YES;
		return ask_text(&c->values, methods[r->method]);
	case AST_STRENGTH: {
		/* From weak to strong: any word that is no stronger than what there is will do. */
		static const char *const strengths[] = {"password", "gssapi", "gssapi-integrity", "gssapi-confidentiality"};
		static const int reached[] = {0, 1, 2, 0, 3, 4};
		enum answer a = NO;

		for (int i = 0; i < reached[r->method]; i++)
			if (ask_text(&c->values, strengths[i]) == YES)
				a = YES;
		return a;
	}
	case AST_COMMAND:
		return ask_text(&c->values, commands[r->command]);
	case AST_PORT:
		return any_value(&c->values, ask_port, &r->port);
	case AST_DURING:
		return any_value(&c->values, ask_window, NULL);
	case AST_BY:
		return ask_text(&c->values, r->name != NULL ? "name" : "address");
	case AST_TO_CIDR:
		return ask_address(c, deny, ask_range);
	case AST_TO_COUNTRY:
		return ask_address(c, deny, ask_country);
	case AST_TO_ASN:
		return ask_address(c, deny, ask_asn);
	case AST_TO_DOMAIN:
		return ask_name(c, deny, ask_domain);
	case AST_TO_REGEX:
		return ask_name(c, deny, ask_regex);
	case AST_FROM:
	case AST_UNTIL:
		return ask_period(c);
	default:
		return YES;
	}
}

static enum answer clause_answer(const struct ast_clause *c, bool deny)
{
	enum answer a = plain_answer(c, deny);

	if (a == ABSENT)
		return c->negated && deny ? YES : NO;
	if (c->negated && a == YES)
		return NO;
	if (c->negated && a == NO)
		return YES;
	return a;
}

struct rule_answer {
	bool no, cannot, perhaps;
};

static struct rule_answer rule_answer(const struct ast_statement *rule)
{
	struct rule_answer sum = {0};

	for (const struct ast_clause *c = rule->clauses.first; c != NULL; c = c->next) {
		enum answer a = clause_answer(c, !rule->allow);

		sum.no |= a == NO;
		sum.cannot |= a == CANNOT;
		sum.perhaps |= a == PERHAPS;
	}
	return sum;
}

/* ---- the guard -----------------------------------------------------------------------------------------------------
 */

static const char *const internal_ranges[] = {"10.0.0.0/8",    "172.16.0.0/12", "192.168.0.0/16",
					      "100.64.0.0/10", "fc00::/7",	NULL};
static const char *const metadata[] = {"100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", NULL};
static const char *const guarded[] = {"0.0.0.0/8",
				      "10.0.0.0/8",
				      "100.64.0.0/10",
				      "127.0.0.0/8",
				      "169.254.0.0/16",
				      "172.16.0.0/12",
				      "192.168.0.0/16",
				      "224.0.0.0/4",
				      "240.0.0.0/4",
				      "::/128",
				      "::1/128",
				      "fc00::/7",
				      "fe80::/10",
				      "fec0::/10",
				      "ff00::/8",
				      "::/96",
				      "64:ff9b::/96",
				      "64:ff9b:1::/48",
				      "2002::/16",
				      "2001::/32",
				      "0:0:0:0:ffff:0:0:0/96",
				      NULL};

static bool in_list(const struct addr *a, const char *const *list)
{
	for (; *list != NULL; list++)
		if (in_text_prefix(a, *list))
			return true;
	return false;
}

static bool is_guarded(const struct addr *a)
{
	if (in_list(a, guarded) || in_list(a, metadata) || is_isatap(a))
		return true;
	for (const struct ast_value *v = nat64_prefixes()->first; v != NULL; v = v->next)
		if (in_text_prefix(a, v->text))
			return true;
	return false;
}

static bool both_in(const struct addr *lo, const struct addr *hi, const char *prefix)
{
	return in_text_prefix(lo, prefix) && in_text_prefix(hi, prefix);
}

/* A value of a cidr condition opens the address if it holds it and lies inside a guarded range; a metadata service is
 * opened by itself alone. */
static enum answer ask_opens(const char *value, const void *arg)
{
	const struct addr *a = arg;
	const char *dash = strchr(value, '-');
	struct addr lo, hi;
	struct prefix p;
	bool host_bits, inside = false;
	char first[64] = "";

	if (!in_text_range(a, value))
		return NO;
	if (dash != NULL) {
		memcpy(first, value, (size_t)(dash - value));
		addr_parse(first, &lo);
		addr_parse(dash + 1, &hi);
	} else {
		prefix_parse(value, &p, &host_bits);
		lo = hi = p.addr;
		for (unsigned i = p.bits; i < addr_bits(&hi); i++)
			hi.bytes[i / 8] |= (uint8_t)(1 << (7 - i % 8));
	}
	if (in_list(a, metadata))
		return yes_if(addr_equal(&lo, &hi));
	for (size_t i = 0; guarded[i] != NULL; i++)
		inside |= both_in(&lo, &hi, guarded[i]);
	for (const struct ast_value *v = nat64_prefixes()->first; v != NULL; v = v->next)
		inside |= both_in(&lo, &hi, v->text);
	inside |= is_isatap(&lo) && is_isatap(&hi) && memcmp(lo.bytes, hi.bytes, 12) == 0;
	return yes_if(inside);
}

static bool guard_refuses(const struct ast_statement *rule)
{
	for (size_t i = 0; i < ref->nlocal; i++)
		for (size_t j = 0; j < ref->nown_ports; j++)
			if (addr_equal(&ref->local[i], target) && ref->own_ports[j] == ref->request->port)
				return true;
	if (!is_guarded(target))
		return false;
	if (ast_clause_find(rule, AST_INTERNAL) != NULL && in_list(target, internal_ranges) &&
	    !in_list(target, metadata))
		return false;
	for (const struct ast_clause *c = rule->clauses.first; c != NULL; c = c->next)
		if (c->kind == AST_TO_CIDR && !c->negated && any_value(&c->values, ask_opens, target) == YES)
			return false;
	return true;
}

/* ---- decisions -----------------------------------------------------------------------------------------------------
 */

static void set(struct reference_result *out, enum policy_verdict verdict, enum policy_reason reason, const char *rule)
{
	out->verdict = verdict;
	out->reason = reason;
	out->rule = rule;
}

static void monitored(struct reference_result *out, const char *rule, bool allow)
{
	if (out->nmonitors == REFERENCE_MONITORS)
		return;
	out->monitors[out->nmonitors] = rule;
	out->monitor_verdicts[out->nmonitors++] = allow ? POLICY_ALLOW : POLICY_DENY;
}

void reference_by_name(const struct reference *r, struct reference_result *out)
{
	const struct ast_statement *certain = NULL, *may_allow = NULL;
	bool certain_cannot = false;

	ref = r;
	target = NULL;
	memset(out, 0, sizeof *out);
	for (const struct ast_statement *s = r->tree->first; s != NULL && certain == NULL; s = s->next) {
		if (s->kind != AST_RULE || s->disabled.length > 0)
			continue;
		struct rule_answer a = rule_answer(s);

		if (a.no)
			continue;
		if (s->monitor) {
			if (!a.perhaps && may_allow == NULL)
				monitored(out, s->name->text, s->allow && !a.cannot);
			continue;
		}
		if (s->allow && !a.cannot && may_allow == NULL)
			may_allow = s;
		if (!a.perhaps) {
			certain = s;
			certain_cannot = a.cannot;
		}
	}
	if (may_allow != NULL)
		set(out, POLICY_RESOLVE, POLICY_BY_RULE, may_allow->name->text);
	else if (certain == NULL)
		set(out, POLICY_DENY, POLICY_BY_DEFAULT, "default");
	else
		set(out, POLICY_DENY, certain_cannot ? POLICY_CANNOT_DECIDE : POLICY_BY_RULE, certain->name->text);
}

void reference_by_address(const struct reference *r, const struct addr *address, struct reference_result *out)
{
	ref = r;
	target = address;
	memset(out, 0, sizeof *out);
	set(out, POLICY_DENY, POLICY_BY_DEFAULT, "default");
	for (const struct ast_statement *s = r->tree->first; s != NULL; s = s->next) {
		if (s->kind != AST_RULE || s->disabled.length > 0)
			continue;
		struct rule_answer a = rule_answer(s);

		if (a.no)
			continue;
		if (s->monitor) {
			monitored(out, s->name->text, s->allow && !a.cannot && !guard_refuses(s));
			continue;
		}
		if (a.cannot)
			set(out, POLICY_DENY, POLICY_CANNOT_DECIDE, s->name->text);
		else if (!s->allow)
			set(out, POLICY_DENY, POLICY_BY_RULE, s->name->text);
		else if (guard_refuses(s))
			set(out, POLICY_DENY, POLICY_BY_GUARD, s->name->text);
		else
			set(out, POLICY_ALLOW, POLICY_BY_RULE, s->name->text);
		return;
	}
}

void reference_whole(const struct reference *r, const struct addr *addresses, size_t n, struct reference_result *out)
{
	struct reference_result allowed, denied, one;
	bool any_allowed = false, any_denied = false, all = false;

	for (const struct ast_statement *s = r->tree->first; s != NULL; s = s->next)
		if (s->kind == AST_ANSWERS)
			all = strcmp(s->values.first->text, "all") == 0;
	for (size_t i = n; i-- > 0;) {
		reference_by_address(r, &addresses[i], &one);
		if (one.verdict == POLICY_ALLOW) {
			allowed = one;
			any_allowed = true;
		} else {
			denied = one;
			any_denied = true;
		}
	}
	if (n == 0) {
		memset(out, 0, sizeof *out);
		set(out, POLICY_DENY, POLICY_NO_ANSWER, "default");
	} else if (any_allowed && (!any_denied || !all)) {
		*out = allowed;
	} else {
		*out = denied;
		if (any_allowed)
			out->reason = POLICY_ANSWER_REFUSED;
	}
}
