/* Network addresses as gatewayd sees them everywhere: one value type for IPv4 and IPv6.
 *
 * An IPv4-mapped IPv6 address (::ffff:a.b.c.d) IS its IPv4 address: every constructor here folds it, so no other
 * code ever meets the mapped form.  Zone ids are dropped at parse by refusing them: a gateway has no use for them. */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum addr_family { ADDR_NONE = 0, ADDR_V4 = 4, ADDR_V6 = 6 };

struct addr {
	uint8_t family;    /* enum addr_family */
	uint8_t bytes[16]; /* network order; IPv4 uses the first four, the rest are zero */
};

struct endpoint {
	struct addr addr;
	uint16_t port; /* host order */
};

/* bits: 0..32 for IPv4, 0..128 for IPv6.  Host bits of addr are zero. */
struct prefix {
	struct addr addr;
	uint8_t bits;
};

/* Longest texts, terminator included. */
#define ADDR_TEXT_MAX 46
#define ENDPOINT_TEXT_MAX 54
#define PREFIX_TEXT_MAX 50

struct addr addr_v4(uint32_t host_order);
struct addr addr_v6(const uint8_t bytes[16]);

/* Length of the address in bytes (4 or 16; 0 for ADDR_NONE) and in bits. */
size_t addr_len(const struct addr *a);
unsigned addr_bits(const struct addr *a);

/* Strict text forms only (inet_pton(3)): no octal, no short forms, no zone.  False if it is not an address. */
bool addr_parse(const char *text, struct addr *out);
/* Writes the canonical text (RFC 5952) and returns buf. */
const char *addr_format(const struct addr *a, char buf[ADDR_TEXT_MAX]);

bool addr_equal(const struct addr *a, const struct addr *b);
/* Orders by family, then numerically: <0, 0, >0 like memcmp(3). */
int addr_compare(const struct addr *a, const struct addr *b);

bool endpoint_from_sockaddr(const struct sockaddr *sa, socklen_t len, struct endpoint *out);
/* Returns the length of the sockaddr written. */
socklen_t endpoint_to_sockaddr(const struct endpoint *ep, struct sockaddr_storage *out);
/* "192.0.2.1:80" or "[2001:db8::1]:80"; the port is required, 0 is allowed. */
bool endpoint_parse(const char *text, struct endpoint *out);
const char *endpoint_format(const struct endpoint *ep, char buf[ENDPOINT_TEXT_MAX]);

/* "10.0.0.0/8", "2001:db8::/32" or a single address.  Host bits must be zero: false if not (host_bits tells). */
bool prefix_parse(const char *text, struct prefix *out, bool *host_bits);
bool prefix_contains(const struct prefix *p, const struct addr *a);
/* True if every address of inner is in outer. */
bool prefix_covers(const struct prefix *outer, const struct prefix *inner);
const char *prefix_format(const struct prefix *p, char buf[PREFIX_TEXT_MAX]);
