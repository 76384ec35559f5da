/* Canonical host names.  Exactly one function makes a name canonical; front ends, policy, resolver and audit all see
 * its output and nothing else, so that no two of them can disagree about what a client asked for.
 *
 * Canonical: lower case, one trailing dot dropped, labels of 1 to 63 octets, at most 253 in all (RFC 1035 section
 * 2.3.4), letters, digits, '-' and '_' only.  A text that a resolver would read as an address (inet_aton(3) forms:
 * octal, hex, short; IPv6 text) is that address.  A last label that is a number but no valid address is refused. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/addr.h"

#define NAME_MAX_LEN 253

struct name {
	uint8_t len;
	char text[NAME_MAX_LEN + 1]; /* NUL-terminated */
};

enum name_kind { NAME_REFUSED, NAME_IS_NAME, NAME_IS_ADDRESS };

/* Reads len bytes at text (any bytes, NUL included).  NAME_IS_NAME fills *name, NAME_IS_ADDRESS fills *address,
 * NAME_REFUSED sets *why to a constant string.  Nothing else is written. */
enum name_kind name_canonical(const void *text, size_t len, struct name *name, struct addr *address, const char **why);
