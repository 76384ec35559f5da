/* The address guard: destinations that a gateway must not reach unless a rule says so in full knowledge. */
#pragma once

#include "policy/image.h"
#include "policy/value.h"

/* The operator's own NAT64 prefixes. */
#define GUARD_NAT64_MAX 16
/* The most IPv4 addresses that one IPv6 address may embed: a local NAT64 one can be read at four prefix lengths and
 * look like ISATAP as well, and each prefix of the operator may hold it too. */
#define GUARD_FORMS_MAX (5 + GUARD_NAT64_MAX)

/* The IPv4 addresses that a may stand for; returns how many.  The IPv4-mapped form never comes here (see
 * common/addr.h). nat64 are the operator's own prefixes, at most GUARD_NAT64_MAX. */
size_t guard_embedded(const struct addr *a, const struct prefix *nat64, size_t nnat64,
		      struct addr forms[GUARD_FORMS_MAX]);

/* Why a is guarded, or NULL if it is not.  Constant text. */
const char *guard_range(const struct addr *a, const struct prefix *nat64, size_t nnat64);

/* True if a is what `internal` opens: RFC 1918, CGNAT and ULA, but no metadata service among them. */
bool guard_is_internal(const struct addr *a);

/* True if a is the address of a cloud's metadata service, which only a range of that one address opens. */
bool guard_is_metadata(const struct addr *a);

/* Calls each for the parts of range that open the guard, if range lies inside a guarded range: all of it but the
 * metadata services it holds among others. */
void guard_openings(const struct value_range *range, const struct prefix *nat64, size_t nnat64,
		    void (*each)(const struct value_range *part, void *arg), void *arg);
