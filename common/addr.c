#include "config.h"

#include "common/addr.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

struct addr addr_v4(uint32_t host_order)
{
	struct addr a = {.family = ADDR_V4};
	uint32_t n = htonl(host_order);

	memcpy(a.bytes, &n, sizeof n);
	return a;
}

struct addr addr_v6(const uint8_t bytes[16])
{
	struct addr a = {.family = ADDR_V6};

	if (memcmp(bytes, mapped_prefix, sizeof mapped_prefix) == 0) {
		a.family = ADDR_V4;
		memcpy(a.bytes, bytes + 12, 4);
		return a;
	}
	memcpy(a.bytes, bytes, 16);
	return a;
}

size_t addr_len(const struct addr *a)
{
	return a->family == ADDR_V4 ? 4 : a->family == ADDR_V6 ? 16 : 0;
}

unsigned addr_bits(const struct addr *a)
{
	return (unsigned)addr_len(a) * 8;
}

bool addr_parse(const char *text, struct addr *out)
{
	uint8_t bytes[16];

	if (inet_pton(AF_INET, text, bytes) == 1) {
		*out = (struct addr){.family = ADDR_V4};
		memcpy(out->bytes, bytes, 4);
		return true;
	}
	if (inet_pton(AF_INET6, text, bytes) == 1) {
		*out = addr_v6(bytes);
		return true;
	}
	return false;
}

static char *put_octet(char *at, unsigned octet)
{
	if (octet >= 100)
		*at++ = (char)('0' + octet / 100);
	if (octet >= 10)
		*at++ = (char)('0' + octet / 10 % 10);
	*at++ = (char)('0' + octet % 10);
	return at;
}

/* As inet_ntop(3), which goes through printf(3): every record has addresses in it. */
static void format_v4(const uint8_t bytes[4], char *at)
{
	for (int i = 0; i < 4; i++) {
		at = put_octet(at, bytes[i]);
		*at++ = i < 3 ? '.' : '\0';
	}
}

const char *addr_format(const struct addr *a, char buf[ADDR_TEXT_MAX])
{
	if (a->family == ADDR_V4)
		format_v4(a->bytes, buf);
	else if (a->family == ADDR_NONE || inet_ntop(AF_INET6, a->bytes, buf, ADDR_TEXT_MAX) == NULL)
		snprintf(buf, ADDR_TEXT_MAX, "-");
	return buf;
}

bool addr_equal(const struct addr *a, const struct addr *b)
{
	return addr_compare(a, b) == 0;
}

int addr_compare(const struct addr *a, const struct addr *b)
{
	if (a->family != b->family)
		return a->family < b->family ? -1 : 1;
	return memcmp(a->bytes, b->bytes, addr_len(a));
}

bool endpoint_from_sockaddr(const struct sockaddr *sa, socklen_t len, struct endpoint *out)
{
	if (sa->sa_family == AF_INET && len >= sizeof(struct sockaddr_in)) {
		struct sockaddr_in in;

		memcpy(&in, sa, sizeof in);
		*out = (struct endpoint){.addr = addr_v4(ntohl(in.sin_addr.s_addr)), .port = ntohs(in.sin_port)};
		return true;
	}
	if (sa->sa_family == AF_INET6 && len >= sizeof(struct sockaddr_in6)) {
		struct sockaddr_in6 in6;

		memcpy(&in6, sa, sizeof in6);
		*out = (struct endpoint){.addr = addr_v6(in6.sin6_addr.s6_addr), .port = ntohs(in6.sin6_port)};
		return true;
	}
	return false;
}

socklen_t endpoint_to_sockaddr(const struct endpoint *ep, struct sockaddr_storage *out)
{
	memset(out, 0, sizeof *out);
	if (ep->addr.family == ADDR_V4) {
		struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(ep->port)};

		memcpy(&in.sin_addr, ep->addr.bytes, 4);
		memcpy(out, &in, sizeof in);
		return sizeof in;
	}
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(ep->port)};

	memcpy(&in6.sin6_addr, ep->addr.bytes, 16);
	memcpy(out, &in6, sizeof in6);
	return sizeof in6;
}

static bool parse_decimal(const char *text, unsigned max, unsigned *out)
{
	unsigned value = 0;

	if (*text == '\0')
		return false;
	for (; *text != '\0'; text++) {
		if (*text < '0' || *text > '9')
			return false;
		value = value * 10 + (unsigned)(*text - '0');
		if (value > max)
			return false;
	}
	*out = value;
	return true;
}

bool endpoint_parse(const char *text, struct endpoint *out)
{
	char host[ADDR_TEXT_MAX];
	const char *colon = strrchr(text, ':');
	unsigned port;

	if (colon == NULL || !parse_decimal(colon + 1, 65535, &port))
		return false;
	bool bracketed = text[0] == '[' && colon > text + 1 && colon[-1] == ']';
	const char *start = bracketed ? text + 1 : text;
	size_t len = (size_t)(colon - start) - (bracketed ? 1 : 0);

	if (len >= sizeof host)
		return false;
	memcpy(host, start, len);
	host[len] = '\0';
	if ((strchr(host, ':') != NULL) != bracketed)
		return false;
	if (!addr_parse(host, &out->addr))
		return false;
	out->port = (uint16_t)port;
	return true;
}

const char *endpoint_format(const struct endpoint *ep, char buf[ENDPOINT_TEXT_MAX])
{
	char host[ADDR_TEXT_MAX];

	addr_format(&ep->addr, host);
	snprintf(buf, ENDPOINT_TEXT_MAX, ep->addr.family == ADDR_V6 ? "[%s]:%u" : "%s:%u", host, (unsigned)ep->port);
	return buf;
}

/* True if the first bits of a and b agree. */
static bool same_bits(const uint8_t *a, const uint8_t *b, unsigned bits)
{
	unsigned whole = bits / 8, rest = bits % 8;

	if (memcmp(a, b, whole) != 0)
		return false;
	return rest == 0 || ((a[whole] ^ b[whole]) >> (8 - rest)) == 0;
}

bool prefix_parse(const char *text, struct prefix *out, bool *host_bits)
{
	char host[ADDR_TEXT_MAX];
	const char *slash = strchr(text, '/');
	size_t len = slash == NULL ? strlen(text) : (size_t)(slash - text);
	unsigned bits;

	*host_bits = false;
	if (len >= sizeof host)
		return false;
	memcpy(host, text, len);
	host[len] = '\0';
	if (!addr_parse(host, &out->addr))
		return false;
	bits = addr_bits(&out->addr);
	if (slash != NULL) {
		/* ::ffff:a.b.c.d/n is written in IPv6 bits; the address has been folded to IPv4. */
		bool folded = out->addr.family == ADDR_V4 && strchr(host, ':') != NULL;

		if (!parse_decimal(slash + 1, folded ? 128 : bits, &bits))
			return false;
		if (folded) {
			if (bits < 96)
				return false;
			bits -= 96;
		}
	}
	struct addr zeroed = out->addr;

	for (unsigned i = bits; i < addr_bits(&zeroed); i++)
		zeroed.bytes[i / 8] &= (uint8_t)~(0x80u >> (i % 8));
	*host_bits = !addr_equal(&zeroed, &out->addr);
	out->bits = (uint8_t)bits;
	return !*host_bits;
}

bool prefix_contains(const struct prefix *p, const struct addr *a)
{
	return p->addr.family == a->family && same_bits(p->addr.bytes, a->bytes, p->bits);
}

bool prefix_covers(const struct prefix *outer, const struct prefix *inner)
{
	return outer->bits <= inner->bits && prefix_contains(outer, &inner->addr);
}

const char *prefix_format(const struct prefix *p, char buf[PREFIX_TEXT_MAX])
{
	char host[ADDR_TEXT_MAX];

	snprintf(buf, PREFIX_TEXT_MAX, "%s/%u", addr_format(&p->addr, host), (unsigned)p->bits);
	return buf;
}
