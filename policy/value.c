#include "config.h"

#include "policy/value.h"

#include <idn2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/image.h"

int value_address(const char *text, struct addr *out, struct err *why)
{
	return addr_parse(text, out) ? 0 : err_set(why, "this is no IP address");
}

static int address_span(const char *text, const char *dash, struct value_range *out, struct err *why)
{
	char first[ADDR_TEXT_MAX];
	size_t len = (size_t)(dash - text);

	if (len >= sizeof first)
		return err_set(why, "this is no IP address, prefix or address range");
	memcpy(first, text, len);
	first[len] = '\0';
	if (!addr_parse(first, &out->lo) || !addr_parse(dash + 1, &out->hi))
		return err_set(why, "this is no range of two IP addresses");
	if (out->lo.family != out->hi.family || addr_compare(&out->lo, &out->hi) > 0)
		return err_set(why, "the second address of a range may not lie before the first");
	return 0;
}

int value_cidr(const char *text, struct value_range *out, struct err *why)
{
	const char *dash = strchr(text, '-');
	struct prefix p;
	bool host_bits;

	if (dash != NULL)
		return address_span(text, dash, out, why);
	if (!prefix_parse(text, &p, &host_bits)) {
		if (!host_bits)
			return err_set(why, "this is no IP address, prefix or address range");
		for (unsigned i = p.bits; i < addr_bits(&p.addr); i++)
			p.addr.bytes[i / 8] &= (uint8_t) ~(0x80u >> (i % 8));
		char shown[PREFIX_TEXT_MAX];

		return err_set(why, "this prefix has address bits beyond its length; did you mean %s?",
			       prefix_format(&p, shown));
	}
	out->lo = out->hi = p.addr;
	for (unsigned i = p.bits; i < addr_bits(&p.addr); i++)
		out->hi.bytes[i / 8] |= (uint8_t)(0x80u >> (i % 8));
	return 0;
}

static bool is_ascii(const char *text)
{
	for (; *text != '\0'; text++)
		if ((unsigned char)*text >= 0x80)
			return false;
	return true;
}

int value_target(const char *text, struct name *name, struct addr *address, struct err *why)
{
	uint8_t *ascii = NULL;
	const char *fault = NULL;

	if (!is_ascii(text)) {
		int rc = idn2_lookup_u8((const uint8_t *)text, &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL);

		if (rc != IDN2_OK)
			return err_set(why, "this is no internationalised name (IDNA2008): %s", idn2_strerror(rc));
		text = (const char *)ascii;
	}
	*name = (struct name){0};
	*address = (struct addr){0};
	enum name_kind kind = name_canonical(text, strlen(text), name, address, &fault);

	idn2_free(ascii);
	return kind == NAME_REFUSED ? err_set(why, "this is no host name: %s", fault) : 0;
}

int value_domain(const char *text, struct name *name, unsigned *flags, struct err *why)
{
	struct addr address;

	*flags = VALUE_DOMAIN_EXACT;
	if (text[0] == '.') {
		*flags = VALUE_DOMAIN_EXACT | VALUE_DOMAIN_BELOW;
		text++;
	} else if (text[0] == '*' && text[1] == '.') {
		*flags = VALUE_DOMAIN_BELOW;
		text += 2;
	}
	if (strchr(text, '*') != NULL)
		return err_set(
			why,
			"'*' stands for whole labels at the front only: *.example.com (a pattern needs 'to regex')");
	if (value_target(text, name, &address, why) != 0)
		return -1;
	if (name->len == 0)
		return err_set(why, "this is an address; addresses are matched by 'to cidr'");
	return 0;
}

int value_regex(const char *text, size_t *offset, struct err *why)
{
	pcre2_code *code = image_regex_compile(text, strlen(text), offset, why);

	if (code == NULL)
		return -1;
	pcre2_code_free(code);
	return 0;
}

/* Reads a decimal number of at most max from *p on. */
static bool take_number(const char **p, unsigned max, unsigned *out)
{
	const char *s = *p;
	unsigned value = 0;

	if (*s < '0' || *s > '9')
		return false;
	for (; *s >= '0' && *s <= '9'; s++) {
		value = value * 10 + (unsigned)(*s - '0');
		if (value > max)
			return false;
	}
	*p = s;
	*out = value;
	return true;
}

/* Reads exactly n digits. */
static bool take_digits(const char **p, int n, unsigned *out)
{
	*out = 0;
	for (int i = 0; i < n; i++, (*p)++) {
		if (**p < '0' || **p > '9')
			return false;
		*out = *out * 10 + (unsigned)(**p - '0');
	}
	return true;
}

int value_port(const char *text, uint16_t *lo, uint16_t *hi, struct err *why)
{
	unsigned a, b;

	if (!take_number(&text, 65535, &a))
		return err_set(why, "this is no port (0 to 65535) or port range");
	b = a;
	if (*text == '-') {
		text++;
		if (!take_number(&text, 65535, &b))
			return err_set(why, "this is no port (0 to 65535) or port range");
	}
	if (*text != '\0')
		return err_set(why, "this is no port (0 to 65535) or port range");
	if (b < a)
		return err_set(why, "the second port of a range may not lie before the first");
	*lo = (uint16_t)a;
	*hi = (uint16_t)b;
	return 0;
}

int value_country(const char *text, uint16_t *code, struct err *why)
{
	unsigned c[2];

	if (strcmp(text, "unknown") == 0) {
		*code = VALUE_COUNTRY_UNKNOWN;
		return 0;
	}
	for (int i = 0; i < 2; i++) {
		c[i] = (unsigned char)text[i];
		if (c[i] >= 'a' && c[i] <= 'z')
			c[i] -= 'a' - 'A';
		if (c[i] < 'A' || c[i] > 'Z')
			return err_set(why, "a country is two letters, or the word unknown");
	}
	if (text[2] != '\0')
		return err_set(why, "a country is two letters, or the word unknown");
	*code = (uint16_t)(c[0] << 8 | c[1]);
	return 0;
}

bool value_country_assigned(uint16_t code)
{
	static const char assigned[] =
		"ADAEAFAGAIALAMAOAQARASATAUAWAXAZBABBBDBEBFBGBHBIBJBLBMBNBOBQBRBSBTBVBWBYBZCACCCDCFCG"
		"CHCICKCLCMCNCOCRCUCVCWCXCYCZDEDJDKDMDODZECEEEGEHERESETFIFJFKFMFOFRGAGBGDGEGFGGGHGIGLGM"
		"GNGPGQGRGSGTGUGWGYHKHMHNHRHTHUIDIEILIMINIOIQIRISITJEJMJOJPKEKGKHKIKMKNKPKRKWKYKZLALBLC"
		"LILKLRLSLTLULVLYMAMCMDMEMFMGMHMKMLMMMNMOMPMQMRMSMTMUMVMWMXMYMZNANCNENFNGNINLNONPNRNUNZ"
		"OMPAPEPFPGPHPKPLPMPNPRPSPTPWPYQARERORSRURWSASBSCSDSESGSHSISJSKSLSMSNSOSRSSSTSVSXSYSZTC"
		"TDTFTGTHTJTKTLTMTNTOTRTTTVTWTZUAUGUMUSUYUZVAVCVEVGVIVNVUWFWSXKYEYTZAZMZW";

	if (code == VALUE_COUNTRY_UNKNOWN)
		return true;
	for (const char *p = assigned; *p != '\0'; p += 2)
		if (p[0] == code >> 8 && p[1] == (code & 0xff))
			return true;
	return false;
}

int value_asn(const char *text, uint32_t *number, struct err *why)
{
	unsigned n;

	*number = VALUE_COUNTRY_UNKNOWN;
	if (strcmp(text, "unknown") == 0)
		return 0;
	if ((text[0] == 'A' || text[0] == 'a') && (text[1] == 'S' || text[1] == 's'))
		text += 2;
	uint64_t value = 0;

	for (n = 0; text[n] >= '0' && text[n] <= '9' && n < 11; n++)
		value = value * 10 + (unsigned)(text[n] - '0');
	if (n == 0 || text[n] != '\0' || value == 0 || value > UINT32_MAX)
		return err_set(why, "an autonomous system is a number like 64500 or AS64500, or the word unknown");
	*number = (uint32_t)value;
	return 0;
}

/* ---- any value of a set -------------------------------------------------------------------------------------------- */

int value_read(enum ast_set_kind kind, const char *text, size_t len, struct value_meaning *out, struct err *why)
{
	out->kind = kind;
	switch (kind) {
	case AST_SET_CIDR:
		return value_cidr(text, &out->range, why);
	case AST_SET_DOMAIN:
		return value_domain(text, &out->domain.name, &out->domain.flags, why);
	case AST_SET_PORT:
		return value_port(text, &out->ports.lo, &out->ports.hi, why);
	case AST_SET_COUNTRY:
		return value_country(text, &out->country, why);
	case AST_SET_ASN:
		return value_asn(text, &out->asn, why);
	case AST_SET_USER:
	case AST_SET_GROUP:
	case AST_SET_REGEX:
		break;
	}
	out->text.bytes = text;
	out->text.len = len;
	return 0;
}

/* The family is the same for both ends. */
static void range_key(const struct value_range *r, struct blob *out)
{
	blob_add(out, &(uint8_t){(uint8_t)r->lo.family}, 1);
	blob_add(out, r->lo.bytes, addr_len(&r->lo));
	blob_add(out, r->hi.bytes, addr_len(&r->hi));
}

void value_key(const struct value_meaning *m, struct blob *out)
{
	switch (m->kind) {
	case AST_SET_CIDR:
		range_key(&m->range, out);
		break;
	case AST_SET_DOMAIN:
		blob_add(out, &m->domain.flags, sizeof m->domain.flags);
		blob_add(out, m->domain.name.text, m->domain.name.len);
		break;
	case AST_SET_PORT:
		blob_add(out, &m->ports.lo, sizeof m->ports.lo);
		blob_add(out, &m->ports.hi, sizeof m->ports.hi);
		break;
	case AST_SET_COUNTRY:
		blob_add(out, &m->country, sizeof m->country);
		break;
	case AST_SET_ASN:
		blob_add(out, &m->asn, sizeof m->asn);
		break;
	case AST_SET_USER:
	case AST_SET_GROUP:
	case AST_SET_REGEX:
		blob_add(out, m->text.bytes, m->text.len);
		break;
	}
}

static bool is_below(const struct name *name, const struct name *above)
{
	return name->len > above->len + 1 && name->text[name->len - above->len - 1] == '.' &&
	       memcmp(name->text + name->len - above->len, above->text, above->len) == 0;
}

bool value_covers(const struct value_meaning *wide, const struct value_meaning *narrow)
{
	const struct value_range *w = &wide->range, *n = &narrow->range;

	switch (wide->kind) {
	case AST_SET_CIDR:
		return w->lo.family == n->lo.family && addr_compare(&w->lo, &n->lo) <= 0 && addr_compare(&w->hi, &n->hi) >= 0;
	case AST_SET_DOMAIN:
		if (is_below(&narrow->domain.name, &wide->domain.name))
			return (wide->domain.flags & VALUE_DOMAIN_BELOW) != 0;
		return strcmp(wide->domain.name.text, narrow->domain.name.text) == 0 && (narrow->domain.flags & ~wide->domain.flags) == 0;
	case AST_SET_PORT:
		return wide->ports.lo <= narrow->ports.lo && wide->ports.hi >= narrow->ports.hi;
	case AST_SET_COUNTRY:
		return wide->country == narrow->country;
	case AST_SET_ASN:
		return wide->asn == narrow->asn;
	case AST_SET_USER:
	case AST_SET_GROUP:
	case AST_SET_REGEX:
		return wide->text.len == narrow->text.len && memcmp(wide->text.bytes, narrow->text.bytes, wide->text.len) == 0;
	}
	return false;
}

/* ---- words --------------------------------------------------------------------------------------------------------- */

struct choice {
	const char *word;
	int value;
};

/* Finds text among n choices; a miss names them all. */
static int choose(const char *text, const struct choice *choices, size_t n, int *out, struct err *why)
{
	size_t used;

	for (size_t i = 0; i < n; i++) {
		if (strcmp(text, choices[i].word) == 0) {
			*out = choices[i].value;
			return 0;
		}
	}
	err_set(why, "expected");
	for (size_t i = 0; i < n; i++) {
		used = strlen(why->text);
		snprintf(why->text + used, sizeof why->text - used, "%s%s",
			 i == 0	      ? " "
			 : i + 1 == n ? " or "
				      : ", ",
			 choices[i].word);
	}
	return -1;
}

#define CHOOSE(text, choices, out, why) choose(text, choices, sizeof(choices) / sizeof((choices)[0]), out, why)

static const struct choice methods[] = {
	{"none", POLICY_METHOD_NONE},
	{"password", POLICY_METHOD_PASSWORD},
	{"gssapi", POLICY_METHOD_GSSAPI},
	{"socks4", POLICY_METHOD_SOCKS4},
	{"gssapi-integrity", POLICY_METHOD_GSSAPI_INTEGRITY},
	{"gssapi-confidentiality", POLICY_METHOD_GSSAPI_CONFIDENTIALITY},
};

#define PROTECTED (1 << POLICY_METHOD_GSSAPI_INTEGRITY | 1 << POLICY_METHOD_GSSAPI_CONFIDENTIALITY)
#define ANY_GSSAPI (1 << POLICY_METHOD_GSSAPI | PROTECTED)

unsigned value_method_bits(enum policy_method method)
{
	return method == POLICY_METHOD_GSSAPI ? ANY_GSSAPI : 1u << method;
}

int value_method(const char *text, enum policy_method *out, struct err *why)
{
	int v;

	if (CHOOSE(text, methods, &v, why) != 0)
		return -1;
	*out = (enum policy_method)v;
	return 0;
}

int value_strength(const char *text, unsigned *out, struct err *why)
{
	static const struct choice strengths[] = {
		{"password", 1 << POLICY_METHOD_PASSWORD | ANY_GSSAPI},
		{"gssapi", ANY_GSSAPI},
		{"gssapi-integrity", PROTECTED},
		{"gssapi-confidentiality", 1 << POLICY_METHOD_GSSAPI_CONFIDENTIALITY},
	};
	int v;

	if (CHOOSE(text, strengths, &v, why) != 0)
		return -1;
	*out = (unsigned)v;
	return 0;
}

int value_command(const char *text, enum policy_command *out, struct err *why)
{
	static const struct choice commands[] = {
		{"connect", POLICY_CONNECT}, {"bind", POLICY_BIND}, {"udp", POLICY_UDP}};
	int v;

	if (CHOOSE(text, commands, &v, why) != 0)
		return -1;
	*out = (enum policy_command)v;
	return 0;
}

int value_log(const char *text, enum policy_log *out, struct err *why)
{
	static const struct choice levels[] = {{"none", POLICY_LOG_NONE},
					       {"info", POLICY_LOG_INFO},
					       {"notice", POLICY_LOG_NOTICE},
					       {"warning", POLICY_LOG_WARNING},
					       {"alert", POLICY_LOG_ALERT}};
	int v;

	if (CHOOSE(text, levels, &v, why) != 0)
		return -1;
	*out = (enum policy_log)v;
	return 0;
}

int value_by(const char *text, bool *by_name, struct err *why)
{
	static const struct choice ways[] = {{"name", 1}, {"address", 0}};
	int v;

	if (CHOOSE(text, ways, &v, why) != 0)
		return -1;
	*by_name = v;
	return 0;
}

int value_answers(const char *text, bool *all, struct err *why)
{
	static const struct choice ways[] = {{"any", 0}, {"all", 1}};
	int v;

	if (CHOOSE(text, ways, &v, why) != 0)
		return -1;
	*all = v;
	return 0;
}

int value_grace(const char *text, unsigned *seconds, struct err *why)
{
	static const struct {
		char letter;
		unsigned seconds;
	} units[] = {{'s', 1}, {'m', 60}, {'h', 3600}};
	size_t digits = strspn(text, "0123456789");
	unsigned number = digits > 0 && digits <= 5 ? (unsigned)strtoul(text, NULL, 10) : 0;

	for (size_t i = 0; i < sizeof units / sizeof *units; i++)
		if (number > 0 && text[0] != '0' && text[digits] == units[i].letter && text[digits + 1] == '\0' &&
		    number <= IMAGE_GRACE_MAX_S / units[i].seconds) {
			*seconds = number * units[i].seconds;
			return 0;
		}
	return err_set(why, "this is no time of grace: a number with s, m or h (30s), up to 12h");
}

const char *value_grace_text(unsigned seconds, char buf[VALUE_GRACE_TEXT_MAX])
{
	unsigned unit = seconds % 3600 == 0 ? 3600 : seconds % 60 == 0 ? 60 : 1;

	snprintf(buf, VALUE_GRACE_TEXT_MAX, "%u%c", seconds / unit, unit == 3600 ? 'h' : unit == 60 ? 'm' : 's');
	return buf;
}

int value_nat64(const char *text, struct prefix *out, struct err *why)
{
	static const uint8_t lengths[] = {32, 40, 48, 56, 64, 96};
	bool host_bits;

	if (!prefix_parse(text, out, &host_bits) || out->addr.family != ADDR_V6)
		return err_set(why, "this is no IPv6 prefix");
	for (size_t i = 0; i < sizeof lengths; i++)
		if (out->bits == lengths[i])
			return 0;
	return err_set(why, "a NAT64 prefix is a /32, /40, /48, /56, /64 or /96 (RFC 6052)");
}

/* Days since 1970-01-01 of a date in the proleptic Gregorian calendar. */
static int32_t days_from_date(int year, int month, int day)
{
	/* Years begin in March, so that the leap day is the last. */
	int y = month <= 2 ? year - 1 : year, m = (month + 9) % 12;

	return 365 * y + y / 4 - y / 100 + y / 400 + (m * 306 + 5) / 10 + day - 1 - 719468;
}

static bool date_exists(unsigned year, unsigned month, unsigned day)
{
	static const uint8_t lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	if (year < 1970 || year > 2099 || month < 1 || month > 12 || day < 1)
		return false;
	return day <= lengths[month - 1] + (month == 2 && leap ? 1u : 0u);
}

/* "HH:MM" up to 24:00 if full is set. */
static bool take_time(const char **p, bool full, unsigned *minute)
{
	unsigned h, m;

	if (!take_digits(p, 2, &h) || *(*p)++ != ':' || !take_digits(p, 2, &m))
		return false;
	*minute = h * 60 + m;
	return m < 60 && (h < 24 || (full && h == 24 && m == 0));
}

int value_moment(const char *text, bool time_allowed, struct value_moment *out, struct err *why)
{
	unsigned y, m, d, minute;
	const char *p = text;

	if (!take_digits(&p, 4, &y) || *p != '-' || (p++, !take_digits(&p, 2, &m)) || *p != '-' ||
	    (p++, !take_digits(&p, 2, &d)))
		return err_set(why, time_allowed ? "expected a date or time like 2026-12-31 or \"2026-12-31 18:00\""
						 : "expected a date like 2026-12-31");
	if (!date_exists(y, m, d))
		return err_set(why, "there is no such day (years 1970 to 2099)");
	out->day = days_from_date((int)y, (int)m, (int)d);
	out->second = -1;
	if (*p == '\0')
		return 0;
	if (!time_allowed || *p != ' ' || (p++, strlen(p) != 5) || !take_time(&p, false, &minute))
		return err_set(why, time_allowed ? "expected a date or time like 2026-12-31 or \"2026-12-31 18:00\""
						 : "expected a date like 2026-12-31");
	out->second = (int32_t)minute * 60;
	return 0;
}

static int day_number(const char *text, size_t len)
{
	static const char days[] = "montuewedthufrisatsun";

	for (int i = 0; i < 7; i++)
		if (len == 3 && memcmp(text, days + 3 * i, 3) == 0)
			return i;
	return -1;
}

int value_days(const char *text, uint8_t *days, struct err *why)
{
	size_t len = strlen(text);
	const char *dash = strchr(text, '-');
	int a = day_number(text, dash == NULL ? len : (size_t)(dash - text));
	int b = dash == NULL ? a : day_number(dash + 1, len - (size_t)(dash - text) - 1);

	if (a < 0 || b < 0)
		return err_set(why, "expected a day or days like mon or mon-fri");
	*days = 0;
	for (int i = a;; i = (i + 1) % 7) {
		*days |= (uint8_t)(1u << i);
		if (i == b)
			return 0;
	}
}

int value_hours(const char *text, uint16_t *start, uint16_t *end, struct err *why)
{
	unsigned a, b;
	const char *p = text;

	if (strlen(text) != 11 || !take_time(&p, false, &a) || *p++ != '-' || !take_time(&p, true, &b))
		return err_set(why, "expected hours like 08:00-18:00");
	*start = (uint16_t)a;
	*end = (uint16_t)b;
	return 0;
}
