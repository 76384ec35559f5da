/* Is an address in the ranges of a predicate: sorted, disjoint, looked for by halving. */
#pragma once

#include <stdbool.h>
#include <string.h>

#include "policy/guide.h"
#include "policy/image.h"

/* guide: of many ranges. */
static inline bool in_ranges4(const struct policy_image *i, struct img_span span, struct img_span guide,
			      uint32_t address)
{
	const struct img_range4 *r = IMAGE_AT(i, SEC_RANGE4, struct img_range4, span.first);
	uint32_t lo = 0, hi = span.count;

	if (guide.count > 0) {
		lo = guide_find(IMAGE_AT(i, SEC_GUIDE, uint32_t, guide.first), span.count, address);
		hi = span.count - lo < GUIDE_STEP ? span.count : lo + GUIDE_STEP;
	}

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (address > r[mid].hi)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < span.count && r[lo].lo <= address;
}

static inline bool in_ranges6(const struct policy_image *i, struct img_span span, const uint8_t address[16])
{
	const struct img_range6 *r = IMAGE_AT(i, SEC_RANGE6, struct img_range6, span.first);
	uint32_t lo = 0, hi = span.count;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (memcmp(address, r[mid].hi, 16) > 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < span.count && memcmp(r[lo].lo, address, 16) <= 0;
}
