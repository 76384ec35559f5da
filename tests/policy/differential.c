/* Random policies and requests, decided by the engine and by the reference.  POLICY_PAIRS and POLICY_SEED in the
 * environment choose how many and which; a difference is printed with its seed, its policy cut down to what still
 * differs, and its request. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "policy/geo_priv.h"
#include "policy/policy.h"
#include "tests/policy/reference.h"

#define REQUESTS_EACH 20
#define LINES_MAX 320
#define LINE_BYTES 2048

/* ---- chance --------------------------------------------------------------------------------------------------------
 */

static uint64_t state;

/* SplitMix64: any seed will do, and a run is the same everywhere. */
static uint64_t next(void)
{
	uint64_t z = state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static size_t below(size_t n)
{
	return (size_t)(next() % n);
}

static bool one_in(size_t n)
{
	return below(n) == 0;
}

#define PICK(list) ((list)[below(sizeof(list) / sizeof((list)[0]))])

/* ---- a small world, so that rules and requests meet ---------------------------------------------------------------
 */

static const char *const names[] = {"example",
				    "a.example",
				    "b.a.example",
				    "c.b.a.example",
				    "evila.example",
				    "aexample",
				    "cdn.example",
				    "x_y.test",
				    "test",
				    "localhost",
				    "www.b.test",
				    "ads1.test",
				    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab.test"};
static const char *const domains[] = {"example",    ".example",	   "*.example",	   "a.example",
				      ".a.example", "*.a.example", "B.A.example.", ".test",
				      "*.test",	    "localhost",   "cdn.example",  ".cdn.example"};
static const char *const regexes[] = {
	"\".*\"",      "\"a\\.example\"",  "\"ads?[0-9]*\\..*\"", "\"(a|b)+\\.test\"",
	"\"example\"", "\"[^.]+\\.test\"", "\"(a+)+c\\.test\"",	  "\"(?:x_y|www\\.b)\\.test|test\""};
static const char *const addresses[] = {"192.0.2.1",
					"192.0.2.200",
					"203.0.113.7",
					"198.51.100.9",
					"10.0.0.1",
					"10.255.255.255",
					"127.0.0.1",
					"169.254.169.254",
					"100.64.0.1",
					"100.100.100.200",
					"100.100.100.201",
					"168.63.129.16",
					"192.0.0.192",
					"172.16.3.4",
					"192.168.1.1",
					"224.0.0.1",
					"255.255.255.255",
					"0.0.0.0",
					"::",
					"::1",
					"fc00::1",
					"fd00:ec2::254",
					"fd00:ec2::255",
					"fe80::1",
					"fec0::1",
					"ff02::1",
					"2001:db8::1",
					"2001:db8:1::1",
					"64:ff9b::192.0.2.1",
					"64:ff9b::10.0.0.1",
					"2002:c000:201::",
					"2002:a00:1::1",
					"2001::c000:201:0:0:f5ff:fffe",
					"2001:0:a00:1::3fff:fdfe",
					"::192.0.2.1",
					"::10.0.0.1",
					"::ffff:0:192.0.2.1",
					"2001:db8::5efe:192.0.2.1",
					"fe80::200:5efe:10.0.0.1",
					"64:ff9b:1:c000:2:100::",
					"64:ff9b:1:a00:0:100::",
					"64:ff9b:1::192.0.2.1",
					"64:ff9b:1:c0:0:201::",
					"64:ff9b:1:0:c0:2:100:0",
					"2001:db8:64::192.0.2.1",
					"2001:db8:64::10.0.0.1",
					"2001:db8:c000:201::",
					"2606:4700::1"};
static const char *const ranges[] = {"192.0.2.0/24",
				     "192.0.2.1",
				     "192.0.2.0-192.0.2.100",
				     "203.0.113.0/24",
				     "10.0.0.0/8",
				     "10.0.0.0/16",
				     "10.0.0.1",
				     "0.0.0.0/0",
				     "::/0",
				     "127.0.0.0/8",
				     "100.64.0.0/10",
				     "100.100.100.200",
				     "100.100.100.0-100.100.100.255",
				     "168.63.129.16",
				     "169.254.0.0/16",
				     "172.16.0.0/12",
				     "192.168.0.0/16",
				     "224.0.0.0/3",
				     "fc00::/7",
				     "fd00:ec2::/64",
				     "fd00:ec2::254",
				     "fe80::/10",
				     "2001:db8::/32",
				     "64:ff9b::/96",
				     "2002::/16",
				     "2001::/32",
				     "::/96",
				     "2001:db8::5efe:0:0/96",
				     "64:ff9b:1::/48",
				     "2001:db8:64::/96",
				     "::ffff:192.0.2.1",
				     "9.0.0.0-11.0.0.0",
				     "::1",
				     "64:ff9b::-64:ff9b::ffff:ffff",
				     "127.0.0.1-127.0.0.9",
				     "100.64.0.0-100.127.255.255"};
static const char *const countries[] = {"DE", "FR", "kp", "unknown", "ZZ"};
static const char *const asns[] = {"64500", "AS64501", "unknown", "4200000000"};
static const char *const users[] = {"ann", "bob", "eve"};
static const char *const groups[] = {"hr", "eng", "\"ops team\""};
static const char *const raw_groups[] = {"hr", "eng", "ops team"};
static const char *const ports[] = {"80", "443", "1-1024", "22", "1080", "1000-2000", "0-65535", "444-446"};
static const uint16_t port_numbers[] = {0, 22, 80, 443, 445, 1024, 1080, 1500, 65535};
static const char *const zones[] = {"UTC",	    "Europe/Berlin",	"America/New_York", "Australia/Lord_Howe",
				    "Asia/Kolkata", "America/St_Johns", "Africa/Casablanca"};
static const char *const hours[] = {"08:00-18:00", "22:00-06:00", "00:00-24:00", "02:00-03:00",
				    "02:30-02:30", "23:59-00:01", "01:30-02:30", "12:00-00:00"};
static const char *const days[] = {"mon-fri", "sat", "sun", "fri-mon", "wed", "mon-sun"};
static const char *const dates[] = {"2026-03-28", "2026-03-29", "2026-10-24", "2026-10-25",
				    "2026-11-01", "2026-03-08", "2026-12-31", "2026-06-15"};
static const char *const times[] = {"00:00", "02:00", "02:30", "03:00", "12:34", "23:59"};

/* Addresses of countries, for both sides. */
static const struct {
	const char *from, *to, *country;
} atlas[] = {{"192.0.2.0", "192.0.2.127", "DE"},       {"203.0.113.0", "203.0.113.255", "KP"},
	     {"198.51.100.0", "198.51.100.255", "FR"}, {"10.0.0.0", "10.0.0.255", "FR"},
	     {"2001:db8::", "2001:db8::ffff", "DE"},   {"2606:4700::", "2606:4700::ff", "KP"}};

static void country_of(const struct addr *a, char country[3])
{
	struct addr from, to;

	strcpy(country, "");
	for (size_t i = 0; i < sizeof atlas / sizeof atlas[0]; i++) {
		addr_parse(atlas[i].from, &from);
		addr_parse(atlas[i].to, &to);
		if (from.family == a->family && addr_compare(&from, a) <= 0 && addr_compare(a, &to) <= 0)
			memcpy(country, atlas[i].country, 3);
	}
}

static struct addr address(const char *text)
{
	struct addr a;

	if (!addr_parse(text, &a))
		abort();
	return a;
}

/* The same as a table: steps in the order of addresses. */
static void make_geo(struct policy_geo *geo)
{
	static const struct geo_step4 steps4[] = {{0},
						  {0x0a000000, 'F' << 8 | 'R'},
						  {0x0a000100, 0},
						  {0xc0000200, 'D' << 8 | 'E'},
						  {0xc0000280, 0},
						  {0xc6336400, 'F' << 8 | 'R'},
						  {0xc6336500, 0},
						  {0xcb007100, 'K' << 8 | 'P'},
						  {0xcb007200, 0}};
	static struct geo_step6 steps6[5];
	static const char *const from[] = {"::", "2001:db8::", "2001:db8::1:0", "2606:4700::", "2606:4700::100"};
	static const uint16_t codes[] = {0, 'D' << 8 | 'E', 0, 'K' << 8 | 'P', 0};

	for (size_t i = 0; i < 5; i++) {
		struct addr a = address(from[i]);

		memcpy(steps6[i].from, a.bytes, 16);
		steps6[i].value = codes[i];
	}
	*geo = (struct policy_geo){.kind = GEO_COUNTRY, .steps4 = steps4, .count4 = 9, .steps6 = steps6, .count6 = 5};
}

/* Autonomous systems: a table of two for IPv4, one for IPv6. */
static unsigned asn_of(const struct addr *a)
{
	if (a->family == ADDR_V6)
		return a->bytes[0] == 0x20 ? 64501 : 0;
	return a->bytes[0] < 128 ? 0 : a->bytes[0] < 198 ? 64500 : a->bytes[0] < 224 ? 4200000000 : 0;
}

static void make_asn(struct policy_geo *asn)
{
	static const struct geo_step4 steps4[] = {{0}, {128u << 24, 64500}, {198u << 24, 4200000000}, {224u << 24, 0}};
	static const struct geo_step6 steps6[] = {{{0}, 0}, {{0x20}, 64501}, {{0x21}, 0}};

	*asn = (struct policy_geo){.kind = GEO_ASN, .steps4 = steps4, .count4 = 4, .steps6 = steps6, .count6 = 3};
}

/* ---- a random policy -----------------------------------------------------------------------------------------------
 */

struct policy_text {
	char lines[LINES_MAX][LINE_BYTES];
	bool dropped[LINES_MAX];
	size_t n;
};

static char *out;
static size_t room;

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	int n = vsnprintf(out, room, format, ap);

	va_end(ap);
	if (n < 0 || (size_t)n >= room)
		abort();
	out += n;
	room -= (size_t)n;
}

static void begin_line(struct policy_text *t)
{
	if (t->n == LINES_MAX)
		abort();
	out = t->lines[t->n++];
	room = LINE_BYTES;
}

#define SAY_SOME(list, most)                                                                                           \
	for (size_t n_ = 1 + below(most); n_ > 0; n_--)                                                                \
	say(" %s", PICK(list))

static const char *const set_kinds[] = {"cidr", "domain", "regex", "port", "user", "group", "country", "asn"};

static void say_values(size_t kind, size_t most)
{
	switch (kind) {
	case 0:
		SAY_SOME(ranges, most);
		break;
	case 1:
		SAY_SOME(domains, most);
		break;
	case 2:
		SAY_SOME(regexes, most);
		break;
	case 3:
		SAY_SOME(ports, most);
		break;
	case 4:
		SAY_SOME(users, most);
		break;
	case 5:
		SAY_SOME(groups, most);
		break;
	case 6:
		SAY_SOME(countries, most);
		break;
	default:
		SAY_SOME(asns, most);
		break;
	}
}

/* More values than a condition takes over from a set, most of which no request has. */
static void say_large(struct policy_text *t, size_t kind)
{
	begin_line(t);
	say("set large-%s %s {", set_kinds[kind], set_kinds[kind]);
	for (size_t n = 0; n < 70; n++) {
		switch (kind) {
		case 0:
			/* Apart from each other, so that they stay so many. */
			say(" 198.18.%zu.0/25", n);
			break;
		case 1:
			say(" w%zu.x.example", n);
			break;
		case 3:
			say(" %zu", 30000 + 2 * n);
			break;
		default:
			say(" u%zu", n);
			break;
		}
	}
	say_values(kind, 3);
	say(" }");
}

static void say_of_kind(size_t kind)
{
	if (kind < 6 && kind != 2 && one_in(6)) {
		say(" @large-%s", set_kinds[kind]);
		if (one_in(2))
			say_values(kind, 2);
	} else if (one_in(3))
		say(" @my-%s", set_kinds[kind]);
	else if (one_in(8))
		say(" @more-%s", set_kinds[kind]);
	else
		say_values(kind, 3);
}

static void say_condition(void)
{
	static const char *const by[] = {"name", "address"}, *const commands[] = {"connect", "bind", "udp"},
				 *const methods[] = {"none", "password", "gssapi", "socks4", "gssapi-integrity", "gssapi-confidentiality"},
				 *const strengths[] = {"password", "gssapi", "gssapi-integrity", "gssapi-confidentiality"}, *const listeners[] = {"main", "guest"},
				 *const windows[] = {"w0", "w1", "w2"};

	say(one_in(4) ? " not" : "");
	switch (below(17)) {
	case 0:
		say(" client");
		say_of_kind(0);
		break;
	case 1:
		say(" listener");
		SAY_SOME(listeners, 1);
		break;
	case 2:
		say(" user");
		say_of_kind(4);
		break;
	case 3:
		say(" group");
		say_of_kind(5);
		break;
	case 4:
		say(" claimed-user");
		say_of_kind(4);
		break;
	case 5:
		say(" method");
		SAY_SOME(methods, 6);
		break;
	case 6:
		say(" strength");
		SAY_SOME(strengths, 4);
		break;
	case 7:
		say(" command");
		SAY_SOME(commands, 2);
		break;
	case 8:
		say(" port");
		say_of_kind(3);
		break;
	case 9:
		say(" during");
		SAY_SOME(windows, 2);
		break;
	case 10:
		say(" by");
		SAY_SOME(by, 1);
		break;
	case 11:
		say(" to regex");
		say_of_kind(2);
		break;
	case 12:
		say(" to country");
		say_of_kind(6);
		break;
	case 16:
		say(" to asn");
		say_of_kind(7);
		break;
	case 13:
	case 14:
		say(" to domain");
		say_of_kind(1);
		break;
	default:
		say(" to cidr");
		say_of_kind(0);
		break;
	}
}

static void say_moment(const char *word)
{
	if (one_in(2))
		say(" %s %s", word, PICK(dates));
	else
		say(" %s \"%s %s\"", word, PICK(dates), PICK(times));
}

static void say_rule(struct policy_text *t, size_t number, size_t conditions)
{
	bool allow = !one_in(3);

	begin_line(t);
	say("rule r%zu%s%s %s", number, one_in(12) ? " disabled" : "", one_in(6) ? " monitor" : "", allow ? "allow" : "deny");
	for (size_t n = conditions + below(4 - conditions); n > 0; n--)
		say_condition();
	if (one_in(10))
		say_moment(one_in(2) ? "from" : "until");
	if (allow && one_in(4))
		say(" internal");
}

static void say_window(struct policy_text *t, size_t number)
{
	begin_line(t);
	say("window w%zu", number);
	if (one_in(2))
		say(" tz %s", PICK(zones));
	say(" {");
	for (size_t n = 1 + below(3); n > 0; n--) {
		if (one_in(2))
			SAY_SOME(days, 2);
		if (one_in(2) || n == 1)
			SAY_SOME(hours, 2);
	}
	if (one_in(3)) {
		say(" except");
		SAY_SOME(dates, 3);
	}
	say(" }");
}

static void make_policy(struct policy_text *t)
{
	*t = (struct policy_text){0};
	if (one_in(2)) {
		begin_line(t);
		say("tz %s", PICK(zones));
	}
	if (one_in(4)) {
		begin_line(t);
		say("answers all");
	}
	if (one_in(3)) {
		begin_line(t);
		say("nat64-prefix %s", one_in(2) ? "2001:db8:64::/96" : "2001:db8::/32");
	}
	for (size_t kind = 0; kind < 8; kind++) {
		begin_line(t);
		say("set my-%s %s {", set_kinds[kind], set_kinds[kind]);
		say_values(kind, 4);
		say(" }");
		begin_line(t);
		say("set more-%s %s {", set_kinds[kind], set_kinds[kind]);
		say_values(kind, 2);
		say(" @my-%s }", set_kinds[kind]);
	}
	for (size_t kind = 0; kind < 6; kind++)
		if (kind != 2)
			say_large(t, kind);
	for (size_t n = 0; n < 3; n++)
		say_window(t, n);
	/* Now and then many rules that each match little, so that the index has something to tell apart. */
	bool many = one_in(8);

	for (size_t n = 0, rules = 1 + below(many ? 150 : 12); n < rules; n++)
		say_rule(t, n, many ? 2 : 0);
	/* And more names and addresses of rules than a table has without its aids, in between and behind. */
	for (size_t n = 0; many && one_in(2) && n < 70; n++) {
		begin_line(t);
		if (one_in(2))
			say("rule n%zu deny to domain .n%zu.example user ann", n, n);
		else
			say("rule n%zu allow to cidr 198.51.%zu.0/25 port 80", n, n);
	}
}

static size_t join(const struct policy_text *t, char *text, size_t size)
{
	size_t used = 0;

	for (size_t i = 0; i < t->n; i++)
		if (!t->dropped[i])
			used += (size_t)snprintf(text + used, size - used, "%s\n", t->lines[i]);
	return used;
}

/* ---- a random request ----------------------------------------------------------------------------------------------
 */

struct question {
	struct policy_request request;
	struct name name, aliases[3];
	size_t naliases;
	const char *groups[3];
	struct addr answers[4];
	size_t nanswers;
	int64_t now;
	bool country_known, asn_known;
	struct addr local[2];
};

static struct name name_of(const char *text)
{
	struct name n;
	struct addr a;
	const char *why;

	if (name_canonical(text, strlen(text), &n, &a, &why) != NAME_IS_NAME)
		abort();
	return n;
}

static int64_t some_time(void)
{
	/* Around the changes of Berlin, New York, Lord Howe and Casablanca in 2026, or any time of the year. */
	static const int64_t changes[] = {1774746000, 1792890000, 1772953200, 1793512800,
					  1775314800, 1790956800, 1771120800, 1774148400};

	if (one_in(2))
		return PICK(changes) + (int64_t)below(14400) - 7200;
	if (one_in(2))
		return 1767225600 + (int64_t)below(366) * 86400 + (int64_t)below(1440) * 60;
	return 1767225600 + (int64_t)below(366 * 86400u);
}

static void make_question(struct question *q)
{
	struct policy_request *r = &q->request;
	static const char *const listeners[] = {"main", "guest"};

	*q = (struct question){.now = some_time(), .country_known = !one_in(8), .asn_known = !one_in(8)};
	r->command = (enum policy_command)(1 + below(3));
	r->method = (enum policy_method)below(POLICY_METHODS);
	r->port = PICK(port_numbers);
	if (!one_in(8))
		r->client = address(PICK(addresses));
	if (!one_in(8))
		r->listener = PICK(listeners);
	if (!one_in(3)) {
		r->user = PICK(users);
		for (size_t n = below(3); n > 0; n--)
			q->groups[r->ngroups++] = PICK(raw_groups);
		r->groups = q->groups;
	}
	if (one_in(4))
		r->claimed_user = PICK(users);
	if (one_in(3)) {
		r->address = address(PICK(addresses));
	} else {
		q->name = name_of(PICK(names));
		r->name = &q->name;
		for (size_t n = below(3); n > 0; n--)
			q->aliases[q->naliases++] = name_of(PICK(names));
		for (size_t n = below(5); n > 0; n--)
			q->answers[q->nanswers++] = address(PICK(addresses));
	}
	q->local[0] = address("192.0.2.1");
	q->local[1] = address("127.0.0.1");
}

static void print_question(const struct question *q)
{
	char text[ADDR_TEXT_MAX];
	const struct policy_request *r = &q->request;

	printf("now %lld, command %d, method %d, port %u, client %s, listener %s, user %s, claimed %s, country data "
	       "%s\n",
	       (long long)q->now, r->command, r->method, r->port, addr_format(&r->client, text),
	       r->listener ? r->listener : "-", r->user ? r->user : "-", r->claimed_user ? r->claimed_user : "-",
	       q->country_known ? "sound" : "missing");
	for (size_t i = 0; i < r->ngroups; i++)
		printf("  group %s\n", r->groups[i]);
	if (r->name == NULL)
		printf("  to %s\n", addr_format(&r->address, text));
	else
		printf("  to %s\n", r->name->text);
	for (size_t i = 0; i < q->naliases; i++)
		printf("  alias %s\n", q->aliases[i].text);
	for (size_t i = 0; i < q->nanswers; i++)
		printf("  resolves %s\n", addr_format(&q->answers[i], text));
}

/* ---- both sides ----------------------------------------------------------------------------------------------------
 */

struct compiled {
	struct policy_tree *tree;
	uint8_t *data;
	size_t len;
	struct policy_image *image;
};

static bool compile(const struct policy_text *t, struct compiled *c)
{
	struct policy_diagnostics d = {0};
	static char text[LINES_MAX * LINE_BYTES];
	struct err why;

	*c = (struct compiled){0};
	c->tree = policy_parse("random", text, join(t, text, sizeof text), &d);
	policy_check(c->tree, &d);
	bool ok = d.errors == 0 && policy_compile(c->tree, &c->data, &c->len, &d) == 0;

	for (size_t i = 0; i < d.count && d.errors > 0 && t->dropped[0] == false; i++)
		if (d.items[i].severity == POLICY_ERROR)
			printf("%s: %s\n", d.items[i].message, d.items[i].excerpt ? d.items[i].excerpt : "");
	policy_diagnostics_free(&d);
	if (ok && policy_image_verify(c->data, c->len, &why) != 0) {
		printf("%s\n", why.text);
		ok = false;
	}
	if (ok)
		c->image = policy_image_open(c->data, c->len, &why);
	return ok && c->image != NULL;
}

static void compiled_clear(struct compiled *c)
{
	policy_image_close(&c->image);
	policy_tree_free(c->tree);
	free(c->data);
}

static bool same(const struct compiled *c, const struct policy_decision *d, const struct reference_result *r)
{
	if (d->verdict != r->verdict || d->reason != r->reason ||
	    strcmp(policy_rule_name(c->image, d->rule), r->rule) != 0)
		return false;
	if (d->nmonitors + d->monitors_more != r->nmonitors)
		return false;
	for (size_t i = 0; i < d->nmonitors; i++)
		if (strcmp(policy_rule_name(c->image, d->monitors[i].rule), r->monitors[i]) != 0 ||
		    d->monitors[i].verdict != r->monitor_verdicts[i])
			return false;
	return true;
}

static bool told(const char *what, const struct compiled *c, const struct policy_decision *d,
		 const struct reference_result *r, bool quiet)
{
	if (same(c, d, r))
		return true;
	if (!quiet)
		printf("%s: the engine says %d for reason %d by %s (%u monitors), the reference %d for reason %d by %s "
		       "(%zu)\n",
		       what, d->verdict, d->reason, policy_rule_name(c->image, d->rule), d->nmonitors, r->verdict,
		       r->reason, r->rule, r->nmonitors);
	return false;
}

static bool agree(const struct compiled *c, const struct question *q, const struct policy_geo *geo, bool quiet)
{
	struct policy_geo asn;
	static const uint16_t own_ports[] = {1080};
	struct policy_context ctx = {.image = c->image,
				     .geo = q->country_known ? geo : NULL,
				     .asn = q->asn_known ? &asn : NULL,
				     .now = q->now,
				     .local = q->local,
				     .nlocal = 2,
				     .own_ports = own_ports,
				     .nown_ports = 1};
	struct reference ref = {.tree = c->tree,
				.request = &q->request,
				.now = q->now,
				.local = q->local,
				.nlocal = 2,
				.own_ports = own_ports,
				.nown_ports = 1,
				.country_known = q->country_known,
				.country_of = country_of,
				.asn_known = q->asn_known,
				.asn_of = asn_of,
				.aliases = q->aliases,
				.naliases = q->naliases};
	struct policy_decision d, each[4];
	struct reference_result r;

	make_asn(&asn);
	if (q->request.name == NULL) {
		policy_decide_address(&ctx, &q->request, &q->request.address, NULL, 0, &d);
		reference_by_address(&ref, &q->request.address, &r);
		return told("address", c, &d, &r, quiet);
	}
	policy_decide_name(&ctx, &q->request, &d);
	reference_by_name(&ref, &r);
	if (!told("name", c, &d, &r, quiet))
		return false;
	policy_decide_answers(&ctx, &q->request, q->answers, q->nanswers, q->aliases, q->naliases, each, &d);
	for (size_t i = 0; i < q->nanswers; i++) {
		reference_by_address(&ref, &q->answers[i], &r);
		if (!told("answer", c, &each[i], &r, quiet))
			return false;
	}
	reference_whole(&ref, q->answers, q->nanswers, &r);
	return told("whole", c, &d, &r, quiet);
}

/* Leaves out lines as long as the difference stays. */
static void minimise(struct policy_text *t, const struct question *q, const struct policy_geo *geo)
{
	for (size_t i = t->n; i-- > 0;) {
		struct compiled c;

		t->dropped[i] = true;
		if (!compile(t, &c) || agree(&c, q, geo, true))
			t->dropped[i] = false;
		compiled_clear(&c);
	}
}

static uint64_t setting(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text == NULL ? otherwise : strtoull(text, NULL, 10);
}

static void test_engine_agrees_with_reference(void **unused)
{
	uint64_t seed = setting("POLICY_SEED", 1), pairs = setting("POLICY_PAIRS", 200000);
	static struct policy_text text;
	static char joined[LINES_MAX * LINE_BYTES];
	struct policy_geo geo;
	struct question q;
	size_t verdicts[3] = {0};

	(void)unused;
	make_geo(&geo);
	printf("seed %llu, %llu pairs\n", (unsigned long long)seed, (unsigned long long)pairs);
	for (uint64_t n = 0; n < pairs; n += REQUESTS_EACH) {
		struct compiled c;

		state = seed + n;
		make_policy(&text);
		assert_true(compile(&text, &c));
		for (int i = 0; i < REQUESTS_EACH; i++) {
			struct policy_decision d;
			struct policy_context ctx = {.image = c.image, .geo = &geo, .now = 0};

			make_question(&q);
			ctx.now = q.now;
			policy_decide_answers(&ctx, &q.request, q.answers, q.nanswers, NULL, 0, NULL, &d);
			verdicts[d.verdict]++;
			if (agree(&c, &q, &geo, true))
				continue;
			minimise(&text, &q, &geo);
			compiled_clear(&c);
			assert_true(compile(&text, &c));
			join(&text, joined, sizeof joined);
			printf("seed %llu, request %d:\n%s", (unsigned long long)(seed + n), i, joined);
			print_question(&q);
			agree(&c, &q, &geo, false);
			fail();
		}
		compiled_clear(&c);
	}
	printf("answers denied %zu, allowed %zu\n", verdicts[POLICY_DENY], verdicts[POLICY_ALLOW]);
}

/* ---- what is found is so ---- */

/* What a finding says of the rule on a line. */
enum claim { NO_CLAIM, NEVER_DECIDES, CHANGES_NOTHING };

static enum claim claim_of(const struct policy_diagnostic *d)
{
	static const char *const never[] = {"shadowed", "duplicate-rule", "contradiction", "never-matches", "expired"};

	for (size_t i = 0; i < sizeof never / sizeof *never; i++)
		if (strcmp(d->code, never[i]) == 0)
			return NEVER_DECIDES;
	return strcmp(d->code, "no-effect") == 0 ? CHANGES_NOTHING : NO_CLAIM;
}

/* Everything that both ways of asking say about a request; rules by name. */
static void decide_all(const struct compiled *c, const struct question *q, const struct policy_geo *geo,
		       const struct policy_geo *asn, struct policy_decision *whole, const char *deciding[6], size_t *n)
{
	struct policy_context ctx = {.image = c->image,
				     .geo = q->country_known ? geo : NULL,
				     .asn = q->asn_known ? asn : NULL,
				     .now = q->now,
				     .local = q->local,
				     .nlocal = 2};
	struct policy_decision each[4], first;

	*n = 0;
	if (q->request.name == NULL) {
		policy_decide_address(&ctx, &q->request, &q->request.address, NULL, 0, whole);
	} else {
		policy_decide_name(&ctx, &q->request, &first);
		if (first.verdict == POLICY_DENY)
			deciding[(*n)++] = policy_rule_name(c->image, first.rule);
		policy_decide_answers(&ctx, &q->request, q->answers, q->nanswers, q->aliases, q->naliases, each, whole);
		for (size_t i = 0; i < q->nanswers; i++)
			deciding[(*n)++] = policy_rule_name(c->image, each[i].rule);
	}
	if (whole->rule != POLICY_NO_RULE)
		deciding[(*n)++] = policy_rule_name(c->image, whole->rule);
}

/* The word after "rule" of a line. */
static void rule_on(const struct policy_text *t, unsigned line, char name[64])
{
	if (sscanf(t->lines[line - 1], "rule %63s", name) != 1)
		fail_msg("line %u is no rule: %s", line, t->lines[line - 1]);
}

static void refute(const char *what, uint64_t seed, const struct policy_text *t, const struct policy_diagnostic *d,
		   const struct question *q)
{
	static char joined[LINES_MAX * LINE_BYTES];

	join(t, joined, sizeof joined);
	printf("%s%s, line %u (%s): %s\n", joined, what, d->line, d->code, d->message);
	print_question(q);
	fail_msg("seed %llu", (unsigned long long)seed);
}

#define FIND_NOW 1781524800 /* the middle of 2026 */
#define FIND_REQUESTS 60

static void try_claim(struct policy_text *t, const struct compiled *c, const struct policy_diagnostic *d, enum claim claim,
		      uint64_t seed, const struct policy_geo *geo, const struct policy_geo *asn)
{
	struct compiled without = {0};
	char name[64];

	rule_on(t, d->line, name);
	t->dropped[d->line - 1] = true;
	if (claim == CHANGES_NOTHING)
		assert_true(compile(t, &without));
	t->dropped[d->line - 1] = false;
	for (int i = 0; i < FIND_REQUESTS; i++) {
		struct policy_decision whole, other;
		struct question q;
		const char *deciding[6], *others[6];
		size_t n;

		make_question(&q);
		if (q.now < FIND_NOW)
			q.now += INT64_C(365) * 86400;
		decide_all(c, &q, geo, asn, &whole, deciding, &n);
		for (size_t k = 0; claim == NEVER_DECIDES && k < n; k++)
			if (strcmp(deciding[k], name) == 0)
				refute("it decides", seed, t, d, &q);
		if (claim == CHANGES_NOTHING) {
			decide_all(&without, &q, geo, asn, &other, others, &n);
			if (other.verdict != whole.verdict)
				refute("it changes something", seed, t, d, &q);
		}
	}
	if (claim == CHANGES_NOTHING)
		compiled_clear(&without);
}

/* Whoever does all at once that the findings suggest gets the same verdicts. */
static void try_all_claims(struct policy_text *t, const struct compiled *c, const struct policy_diagnostics *d, uint64_t seed,
			   const struct policy_geo *geo, const struct policy_geo *asn)
{
	struct compiled without;

	for (size_t i = 0; i < d->count; i++)
		if (claim_of(&d->items[i]) != NO_CLAIM)
			t->dropped[d->items[i].line - 1] = true;
	assert_true(compile(t, &without));
	memset(t->dropped, 0, sizeof t->dropped);
	for (int i = 0; i < FIND_REQUESTS; i++) {
		struct policy_decision whole, other;
		struct question q;
		const char *deciding[6];
		size_t n;

		make_question(&q);
		if (q.now < FIND_NOW)
			q.now += INT64_C(365) * 86400;
		decide_all(c, &q, geo, asn, &whole, deciding, &n);
		decide_all(&without, &q, geo, asn, &other, deciding, &n);
		for (size_t k = 0; other.verdict != whole.verdict && k < d->count; k++)
			printf("line %u: %s\n", d->items[k].line, d->items[k].code);
		if (other.verdict != whole.verdict)
			refute("together they change something", seed, t, &d->items[0], &q);
	}
	compiled_clear(&without);
}

static void test_findings_are_so(void **unused)
{
	uint64_t seed = setting("POLICY_SEED", 1), policies = setting("POLICY_PAIRS", 200000) / 100;
	static struct policy_text text;
	struct policy_geo geo, asn;
	size_t claims[3] = {0};

	(void)unused;
	make_geo(&geo);
	make_asn(&asn);
	for (uint64_t n = 0; n < policies; n++) {
		struct policy_diagnostics d = {0};
		struct compiled c;

		state = seed + n;
		make_policy(&text);
		assert_true(compile(&text, &c));
		policy_find(c.tree, c.image, FIND_NOW, &d);
		for (size_t i = 0; i < d.count; i++) {
			enum claim claim = claim_of(&d.items[i]);

			claims[claim]++;
			if (claim != NO_CLAIM)
				try_claim(&text, &c, &d.items[i], claim, seed + n, &geo, &asn);
		}
		if (d.count > 0)
			try_all_claims(&text, &c, &d, seed + n, &geo, &asn);
		policy_diagnostics_free(&d);
		compiled_clear(&c);
	}
	printf("%zu rules never decide, %zu change nothing\n", claims[NEVER_DECIDES], claims[CHANGES_NOTHING]);
	assert_true(policies < 100 || (claims[NEVER_DECIDES] > 100 && claims[CHANGES_NOTHING] > 10));
}

/* Printing and parsing again gives a policy that compiles to the same bytes. */
static void test_print_keeps_meaning(void **unused)
{
	static struct policy_text text;
	uint64_t seed = setting("POLICY_SEED", 1);

	(void)unused;
	for (uint64_t n = 0; n < 500; n++) {
		struct policy_diagnostics d = {0};
		struct compiled c;
		uint8_t *data = NULL;
		size_t len;

		state = seed + n;
		make_policy(&text);
		assert_true(compile(&text, &c));
		char *printed = policy_print(c.tree);
		struct policy_tree *again = policy_parse("printed", printed, strlen(printed), &d);
		char *twice = policy_print(again);

		assert_int_equal(d.errors, 0);
		assert_string_equal(printed, twice);
		assert_int_equal(policy_compile(again, &data, &len, &d), 0);
		assert_int_equal(len, c.len);
		assert_memory_equal(data, c.data, len);
		free(data);
		free(printed);
		free(twice);
		policy_tree_free(again);
		policy_diagnostics_free(&d);
		compiled_clear(&c);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_engine_agrees_with_reference),
		cmocka_unit_test(test_findings_are_so),
		cmocka_unit_test(test_print_keeps_meaning),
	};

	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
