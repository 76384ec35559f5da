#include "config.h"

#include "policy/guard.h"

#include <assert.h>
#include <string.h>

struct guarded {
	struct prefix prefix;
	const char *what;
	bool internal; /* opened by `internal` */
};

#define V4(a, b, c, d, n)                                                                                              \
	{                                                                                                              \
		.addr = {.family = ADDR_V4, .bytes = {a, b, c, d}}, .bits = (n)                                        \
	}
#define V6(n, ...)                                                                                                     \
	{                                                                                                              \
		.addr = {.family = ADDR_V6, .bytes = {__VA_ARGS__}}, .bits = (n)                                       \
	}

static const struct guarded metadata[] = {
	{V4(100, 100, 100, 200, 32), "metadata service 100.100.100.200", false},
	{V4(168, 63, 129, 16, 32), "metadata service 168.63.129.16", false},
	{V4(192, 0, 0, 192, 32), "metadata service 192.0.0.192", false},
	{V6(128, 0xfd, 0, 0x0e, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0x54), "metadata service fd00:ec2::254", false},
};

static const struct guarded ranges[] = {
	{V4(0, 0, 0, 0, 8), "this network 0.0.0.0/8", false},
	{V4(10, 0, 0, 0, 8), "private 10.0.0.0/8", true},
	{V4(100, 64, 0, 0, 10), "carrier-grade NAT 100.64.0.0/10", true},
	{V4(127, 0, 0, 0, 8), "loopback 127.0.0.0/8", false},
	{V4(169, 254, 0, 0, 16), "link-local 169.254.0.0/16", false},
	{V4(172, 16, 0, 0, 12), "private 172.16.0.0/12", true},
	{V4(192, 168, 0, 0, 16), "private 192.168.0.0/16", true},
	{V4(224, 0, 0, 0, 4), "multicast 224.0.0.0/4", false},
	{V4(240, 0, 0, 0, 4), "reserved 240.0.0.0/4", false},
	{V6(128, 0), "unspecified ::", false},
	{V6(128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1), "loopback ::1", false},
	{V6(7, 0xfc), "unique local fc00::/7", true},
	{V6(10, 0xfe, 0x80), "link-local fe80::/10", false},
	{V6(10, 0xfe, 0xc0), "site-local fec0::/10", false},
	{V6(8, 0xff), "multicast ff00::/8", false},
};

enum form { FORM_LAST4, FORM_RFC6052, FORM_6TO4, FORM_TEREDO };

/* Forms that a fixed prefix shows; ISATAP is shown by its interface identifier (RFC 5214 section 6.1). */
static const struct {
	struct prefix prefix;
	enum form form;
	const char *what;
} embedding[] = {
	{V6(96, 0), FORM_LAST4, "IPv4-compatible ::/96"},
	{V6(96, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0), FORM_LAST4, "SIIT ::ffff:0:0:0/96"},
	{V6(96, 0, 0x64, 0xff, 0x9b), FORM_LAST4, "NAT64 64:ff9b::/96"},
	{V6(48, 0, 0x64, 0xff, 0x9b, 0, 1), FORM_RFC6052, "NAT64 64:ff9b:1::/48"},
	{V6(16, 0x20, 0x02), FORM_6TO4, "6to4 2002::/16"},
	{V6(32, 0x20, 0x01, 0, 0), FORM_TEREDO, "Teredo 2001::/32"},
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static bool is_isatap(const struct addr *a)
{
	const uint8_t *b = a->bytes;

	return a->family == ADDR_V6 && (b[8] & 0xfd) == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe;
}

static struct addr v4_at(const uint8_t *p, uint8_t invert)
{
	struct addr a = {.family = ADDR_V4};

	for (int i = 0; i < 4; i++)
		a.bytes[i] = p[i] ^ invert;
	return a;
}

/* The address behind a prefix of bits: RFC 6052 section 2.2, where byte 8 is skipped. */
static struct addr rfc6052(const struct addr *a, unsigned bits)
{
	struct addr out = {.family = ADDR_V4};

	for (unsigned i = 0, at = bits / 8; i < 4; i++, at++) {
		if (at == 8)
			at++;
		out.bytes[i] = a->bytes[at];
	}
	return out;
}

static void add_form(struct addr forms[GUARD_FORMS_MAX], size_t *n, struct addr form)
{
	assert(*n < GUARD_FORMS_MAX);
	forms[(*n)++] = form;
}

static void unfold(enum form form, const struct addr *a, struct addr forms[GUARD_FORMS_MAX], size_t *n)
{
	switch (form) {
	case FORM_LAST4:
		add_form(forms, n, v4_at(a->bytes + 12, 0));
		break;
	case FORM_RFC6052:
		/* RFC 8215 leaves the length to the operator: any of these may be meant. */
		add_form(forms, n, rfc6052(a, 48));
		add_form(forms, n, rfc6052(a, 56));
		add_form(forms, n, rfc6052(a, 64));
		add_form(forms, n, rfc6052(a, 96));
		break;
	case FORM_6TO4:
		add_form(forms, n, v4_at(a->bytes + 2, 0));
		break;
	case FORM_TEREDO:
		add_form(forms, n, v4_at(a->bytes + 4, 0));
		add_form(forms, n, v4_at(a->bytes + 12, 0xff));
		break;
	}
}

size_t guard_embedded(const struct addr *a, const struct prefix *nat64, size_t nnat64,
		      struct addr forms[GUARD_FORMS_MAX])
{
	size_t n = 0;

	if (a->family != ADDR_V6)
		return 0;
	for (size_t i = 0; i < COUNT(embedding); i++)
		if (prefix_contains(&embedding[i].prefix, a))
			unfold(embedding[i].form, a, forms, &n);
	if (is_isatap(a))
		add_form(forms, &n, v4_at(a->bytes + 12, 0));
	for (size_t i = 0; i < nnat64; i++)
		if (prefix_contains(&nat64[i], a))
			add_form(forms, &n, rfc6052(a, nat64[i].bits));
	return n;
}

static const struct guarded *find(const struct guarded *list, size_t n, const struct addr *a)
{
	for (size_t i = 0; i < n; i++)
		if (prefix_contains(&list[i].prefix, a))
			return &list[i];
	return NULL;
}

const char *guard_range(const struct addr *a, const struct prefix *nat64, size_t nnat64)
{
	const struct guarded *g = find(metadata, COUNT(metadata), a);

	if (g == NULL)
		g = find(ranges, COUNT(ranges), a);
	if (g != NULL)
		return g->what;
	for (size_t i = 0; i < COUNT(embedding); i++)
		if (prefix_contains(&embedding[i].prefix, a))
			return embedding[i].what;
	if (is_isatap(a))
		return "ISATAP";
	for (size_t i = 0; i < nnat64; i++)
		if (prefix_contains(&nat64[i], a))
			return "NAT64 (nat64-prefix)";
	return NULL;
}

bool guard_is_metadata(const struct addr *a)
{
	return find(metadata, COUNT(metadata), a) != NULL;
}

bool guard_is_internal(const struct addr *a)
{
	const struct guarded *g = find(ranges, COUNT(ranges), a);

	return g != NULL && g->internal && !guard_is_metadata(a);
}

static bool inside(const struct value_range *r, const struct prefix *p)
{
	return prefix_contains(p, &r->lo) && prefix_contains(p, &r->hi);
}

static bool inside_guarded(const struct value_range *r, const struct prefix *nat64, size_t nnat64)
{
	for (size_t i = 0; i < COUNT(metadata); i++)
		if (inside(r, &metadata[i].prefix))
			return true;
	for (size_t i = 0; i < COUNT(ranges); i++)
		if (inside(r, &ranges[i].prefix))
			return true;
	for (size_t i = 0; i < COUNT(embedding); i++)
		if (inside(r, &embedding[i].prefix))
			return true;
	for (size_t i = 0; i < nnat64; i++)
		if (inside(r, &nat64[i]))
			return true;
	return is_isatap(&r->lo) && memcmp(r->lo.bytes, r->hi.bytes, 12) == 0;
}

/* The address before (step -1) or after (step 1) a. */
static struct addr neighbour(struct addr a, int step)
{
	for (size_t i = addr_len(&a); i-- > 0;) {
		a.bytes[i] = (uint8_t)(a.bytes[i] + step);
		if (a.bytes[i] != (step > 0 ? 0 : 0xff))
			break;
	}
	return a;
}

void guard_openings(const struct value_range *range, const struct prefix *nat64, size_t nnat64,
		    void (*each)(const struct value_range *part, void *arg), void *arg)
{
	struct value_range rest = *range;

	if (!inside_guarded(range, nat64, nnat64))
		return;
	if (addr_equal(&range->lo, &range->hi)) {
		each(range, arg);
		return;
	}
	/* The table's addresses ascend within a family. */
	for (size_t i = 0; i < COUNT(metadata); i++) {
		const struct addr *m = &metadata[i].prefix.addr;

		if (m->family != rest.lo.family || addr_compare(m, &rest.lo) < 0 || addr_compare(m, &rest.hi) > 0)
			continue;
		if (addr_compare(m, &rest.lo) > 0)
			each(&(struct value_range){rest.lo, neighbour(*m, -1)}, arg);
		if (addr_equal(m, &rest.hi))
			return;
		rest.lo = neighbour(*m, 1);
	}
	each(&rest, arg);
}
