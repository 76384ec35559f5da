/* One hash for every text that is looked up in an image.  The seed is made of the policy's own content: whoever writes
 * a list cannot choose texts that collide, because each of them changes the seed.
 *
 * A name is hashed label by label from its end, so that the hashes of all that stands behind its dots fall off on the
 * way. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

__extension__ typedef unsigned __int128 hash_wide;

/* The halves of a product with a secret number, folded: what a difference in h comes to, nobody can tell who does not
 * know it. */
static inline uint64_t hash_mix(uint64_t h, uint64_t secret)
{
	hash_wide product = (hash_wide)h * secret;

	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t hash_secret(uint64_t seed)
{
	seed = (seed ^ seed >> 32) * 0xd6e8feb86659fd93u;
	return (seed ^ seed >> 32) | 1;
}

/* 1 to 8 bytes as one number, none read beyond them. */
static inline uint64_t hash_load(const char *p, size_t len)
{
	uint64_t w = 0;
	uint32_t lo, hi;

	if (len == 8) {
		memcpy(&w, p, 8);
		return w;
	}
	if (len >= 4) {
		memcpy(&lo, p, 4);
		memcpy(&hi, p + len - 4, 4);
		return (uint64_t)hi << 32 | lo;
	}
	w = (unsigned char)p[0];
	w |= (uint64_t)(unsigned char)p[len / 2] << 8;
	return w | (uint64_t)(unsigned char)p[len - 1] << 16;
}

static inline uint64_t hash_bytes(uint64_t h, uint64_t secret, const char *p, size_t len)
{
	/* Spread over all bits: no other text differs by as much. */
	h ^= (uint64_t)len * 0xff51afd7ed558ccdu;
	for (; len > 8; p += 8, len -= 8)
		h = hash_mix(h ^ hash_load(p, 8), secret);
	return hash_mix(len == 0 ? h : h ^ hash_load(p, len), secret);
}

static inline uint64_t hash_end(uint64_t h)
{
	h *= 0xd6e8feb86659fd93u;
	return h ^ h >> 32;
}

static inline uint64_t hash_text(uint64_t seed, const char *text, size_t len)
{
	return hash_end(hash_bytes(seed, hash_secret(seed), text, len));
}

/* Where the label begins that ends before text[end]. */
static inline size_t hash_label(const char *text, size_t end)
{
	while (end > 0 && text[end - 1] != '.')
		end--;
	return end;
}

static inline uint64_t hash_name(uint64_t seed, const char *text, size_t len)
{
	uint64_t h = seed, secret = hash_secret(seed);

	for (size_t end = len;;) {
		size_t start = hash_label(text, end);

		h = hash_bytes(h, secret, text + start, end - start);
		if (start == 0)
			return hash_end(h);
		end = start - 1;
	}
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

/* A byte that tells entries of one place apart; never 0. */
static inline uint8_t hash_mark(uint64_t h)
{
	return (uint8_t)(h >> 40 | 1);
}

/* Labels of a name are hashed in two ways: as the whole of it, and as what stands behind one of its dots. */
#define HASH_EXACT 0x5851f42d4c957f2du
