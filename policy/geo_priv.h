/* A table of countries, or of autonomous systems:  header | IPv4 steps | IPv6 steps.  A step says which holds from its
 * address up to the next step; the first step of a family is its address zero.  IPv4 in whatever IPv6 disguise is in
 * the IPv4 steps only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "policy/policy.h"

#define GEO_MAGIC "GWGEOTAB"
#define GEO_VERSION 2
#define GEO_SUM_BYTES 32

struct geo_step4 {
	uint32_t from;
	uint32_t value; /* two letters, the first one high, or a number; 0 is none */
};

struct geo_step6 {
	uint8_t from[16];
	uint32_t value;
};

enum geo_kind { GEO_COUNTRY = 1, GEO_ASN = 2 };

struct geo_header {
	char magic[8];
	uint32_t version, kind; /* enum geo_kind */
	uint64_t len;
	uint8_t sum[GEO_SUM_BYTES]; /* of the whole table, these bytes being zero */
	uint32_t count4, count6;
};

struct policy_geo {
	const struct geo_step4 *steps4;
	const struct geo_step6 *steps6;
	size_t count4, count6;
	enum geo_kind kind;
	bool fixed;	/* for expectations: every address has this value */
	uint32_t value; /* then; 0 is none */
};

/* The address's value; 0 if it has none. */
uint32_t geo_value(const struct policy_geo *geo, const struct addr *a);
