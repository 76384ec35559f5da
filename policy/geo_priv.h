/* The country table:  header | IPv4 steps | IPv6 steps.  A step says which country holds from its address up to the
 * next step; the first step of a family is its address zero.  IPv4 in whatever IPv6 disguise is in the IPv4 steps only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "policy/policy.h"

#define GEO_MAGIC "GWGEOTAB"
#define GEO_VERSION 1
#define GEO_SUM_BYTES 32

struct geo_step4 {
	uint32_t from;
	uint16_t country; /* two letters, the first one high; 0 is none */
	uint16_t pad;
};

struct geo_step6 {
	uint8_t from[16];
	uint16_t country;
	uint16_t pad;
};

struct geo_header {
	char magic[8];
	uint32_t version, pad;
	uint64_t len;
	uint8_t sum[GEO_SUM_BYTES]; /* of the whole table, these bytes being zero */
	uint32_t count4, count6;
};

struct policy_geo {
	const struct geo_step4 *steps4;
	const struct geo_step6 *steps6;
	size_t count4, count6;
	bool fixed;	  /* for expectations: every address is in fixed_country */
	uint16_t country; /* then; 0 is none */
};

/* The country's two letters, the first one high; 0 if the address has none. */
uint16_t geo_country(const struct policy_geo *geo, const struct addr *a);
