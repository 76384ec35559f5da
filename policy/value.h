/* What the text of one value means, by the kind of its place.  Pure; used by the checks and the compiler, so that both
 * read a value alike.  All return 0, or -1 with the fault in *why (a phrase, without the value itself). */
#pragma once

#include <stdint.h>

#include "common/addr.h"
#include "common/err.h"
#include "common/name.h"
#include "policy/ast.h"
#include "policy/blob.h"
#include "policy/policy.h"

struct value_range {
	struct addr lo, hi; /* both included, one family */
};

/* How a listed domain matches: the name itself, names below it, or both. */
#define VALUE_DOMAIN_EXACT 1u
#define VALUE_DOMAIN_BELOW 2u

/* "country unknown": the address has no country.  No two letters give 0. */
#define VALUE_COUNTRY_UNKNOWN 0

struct value_moment {
	int32_t day;	/* days since 1970-01-01, of the wall clock */
	int32_t second; /* of the day; -1 if only a date was given */
};

/* Address, address/bits or address-address. */
int value_cidr(const char *text, struct value_range *out, struct err *why);
int value_address(const char *text, struct addr *out, struct err *why);
/* x, .x or *.x; U-labels become A-labels. */
int value_domain(const char *text, struct name *name, unsigned *flags, struct err *why);
/* A host name as in value_domain(), or an address in any spelling: *name or *address is set, the other cleared. */
int value_target(const char *text, struct name *name, struct addr *address, struct err *why);
/* Compiles and forgets the pattern; *offset is where the fault lies. */
int value_regex(const char *text, size_t *offset, struct err *why);
int value_port(const char *text, uint16_t *lo, uint16_t *hi, struct err *why);
int value_country(const char *text, uint16_t *code, struct err *why);
/* False for two letters that ISO 3166-1 has not assigned (XK, in wide use, counts as assigned). */
bool value_country_assigned(uint16_t code);
/* "64500", "AS64500" or "unknown" (0): RFC 6793 numbers. */
int value_asn(const char *text, uint32_t *number, struct err *why);

/* One value of a set, or of a condition that takes values of that kind, as it is decided by: the compiler makes an image of this
 * and of nothing else. */
struct value_meaning {
	enum ast_set_kind kind;
	union {
		struct value_range range; /* cidr */
		struct {		  /* domain */
			struct name name;
			unsigned flags;
		} domain;
		struct { /* port */
			uint16_t lo, hi;
		} ports;
		uint16_t country;
		uint32_t asn;
		struct { /* user, group, regex: their bytes; borrowed */
			const char *bytes;
			size_t len;
		} text;
	};
};

/* text is NUL-terminated, len bytes.  A pattern is not compiled: value_regex() tells whether it is one. */
int value_read(enum ast_set_kind kind, const char *text, size_t len, struct value_meaning *out, struct err *why);
/* Appends bytes that are equal for two values of one kind exactly if they mean the same, however they are written. */
void value_key(const struct value_meaning *m, struct blob *out);
/* True if the first, of the same kind, matches whatever the second does: a wider prefix, a domain above, more ports. */
bool value_covers(const struct value_meaning *wide, const struct value_meaning *narrow);

int value_method(const char *text, enum policy_method *out, struct err *why);
/* A bit for each method that is at least as strong: 1 << enum policy_method. */
/* What the word means in a condition: `gssapi` is all of GSSAPI, whatever its protection. */
unsigned value_method_bits(enum policy_method method);
int value_strength(const char *text, unsigned *methods, struct err *why);
int value_command(const char *text, enum policy_command *out, struct err *why);
int value_log(const char *text, enum policy_log *out, struct err *why);
int value_by(const char *text, bool *by_name, struct err *why);
int value_answers(const char *text, bool *all, struct err *why);
/* "30s", "5m", "1h": up to twelve hours. */
int value_grace(const char *text, unsigned *seconds, struct err *why);
/* The shortest way to write it. */
#define VALUE_GRACE_TEXT_MAX 16
const char *value_grace_text(unsigned seconds, char buf[VALUE_GRACE_TEXT_MAX]);
/* A /32, /40, /48, /56, /64 or /96 of IPv6 (RFC 6052 section 2.2). */
int value_nat64(const char *text, struct prefix *out, struct err *why);
/* "2026-12-31", or "2026-12-31 18:00" when time_allowed. */
int value_moment(const char *text, bool time_allowed, struct value_moment *out, struct err *why);
/* "mon" or "fri-mon": bit 0 is Monday. */
int value_days(const char *text, uint8_t *days, struct err *why);
/* "08:00-18:00", in minutes of the day; the end may be 24:00 and may lie before the start. */
int value_hours(const char *text, uint16_t *start, uint16_t *end, struct err *why);
