/* One hash for every name that is looked up in an image.  It runs from the end of a text to its beginning, so that the
 * hashes of all suffixes of a name fall off on the way.  The seed is made of the policy's own content: whoever writes a
 * list cannot choose names that collide, because each of them changes the seed. */
#pragma once

#include <stddef.h>
#include <stdint.h>

static inline uint64_t hash_step(uint64_t h, unsigned char byte)
{
	h = (h ^ byte) * 0x9e3779b97f4a7c15u;
	return h ^ h >> 29;
}

static inline uint64_t hash_end(uint64_t h)
{
	h = (h ^ h >> 32) * 0xd6e8feb86659fd93u;
	return h ^ h >> 32;
}

static inline uint64_t hash_text(uint64_t seed, const char *text, size_t len)
{
	while (len > 0)
		seed = hash_step(seed, (unsigned char)text[--len]);
	return hash_end(seed);
}

/* The place of a hash in a table of count places, and what is left of it to tell entries apart. */
static inline uint32_t hash_place(uint64_t h, uint32_t count)
{
	return (uint32_t)((uint64_t)(uint32_t)h * count >> 32);
}

static inline uint32_t hash_tag(uint64_t h)
{
	return (uint32_t)(h >> 32);
}

/* Labels of a name are hashed in two ways: as the whole of it, and as what stands behind one of its dots. */
#define HASH_EXACT 0x5851f42d4c957f2du
