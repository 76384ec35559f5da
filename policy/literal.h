/* What a name must hold to match a regular expression: four bytes in a row, if the pattern demands any.  A name without
 * them is spared the pattern. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "policy/hash.h"

#define LITERAL_BYTES 4
#define LITERALS_MAX 64

/* The quadruples of bytes (in lower case, as numbers) that every match holds; returns how many.  None is always a sound
 * answer: whatever is unusual in a pattern gives none. */
size_t literal_read(const char *pattern, size_t len, uint32_t out[LITERALS_MAX]);

static inline uint32_t literal_at(const char *text)
{
	const unsigned char *p = (const unsigned char *)text;

	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint64_t literal_hash(uint64_t seed, uint32_t literal)
{
	return hash_end((seed ^ literal) * 0x9e3779b97f4a7c15u);
}
