/* A filter in front of a table: says for certain that a hash is not in it, from a few bits that stay in the processor's
 * caches while the table does not.  Of hashes that are not in the table it lets about one in thirty pass. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "policy/hash.h"

/* Tables smaller than this have none. */
#define FILTER_MIN 64

/* Words of 64 bits for so many hashes: a byte a hash. */
static inline uint32_t filter_words(uint32_t hashes)
{
	return hashes / 8 + 1;
}

static inline uint64_t filter_bits(uint64_t hash)
{
	return UINT64_C(1) << (hash & 63) | UINT64_C(1) << (hash >> 6 & 63) | UINT64_C(1) << (hash >> 12 & 63);
}

static inline uint32_t filter_place(uint64_t hash, uint32_t words)
{
	return hash_place(hash >> 32, words);
}

static inline void filter_add(uint64_t *filter, uint32_t words, uint64_t hash)
{
	filter[filter_place(hash, words)] |= filter_bits(hash);
}

static inline bool filter_may_hold(const uint64_t *filter, uint32_t words, uint64_t hash)
{
	uint64_t bits = filter_bits(hash);

	return (filter[filter_place(hash, words)] & bits) == bits;
}
