/* What a name must hold to match a regular expression: one of a few texts, if the pattern demands any.  A name without
 * them is spared the pattern.
 *
 * Texts are looked for by four bytes in a row.  A name is read with LITERAL_BEGIN before and LITERAL_END behind it, and
 * a pattern, which matches whole names only, as if these stood around it: ".*\.de" demands ".de" and the end. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/name.h"
#include "policy/hash.h"

#define LITERAL_BYTES 4
#define LITERAL_TEXT_MAX 32 /* bytes; longer ones are cut */
#define LITERAL_ANY_MAX 16  /* texts of one demand */
#define LITERAL_DEMANDS_MAX 32

#define LITERAL_BEGIN '\1'
#define LITERAL_END '\2'

struct literal_text {
	uint8_t len;
	char bytes[LITERAL_TEXT_MAX];
};

/* Every match holds one of these texts, each of LITERAL_BYTES at least. */
struct literal_demand {
	size_t count;
	struct literal_text any[LITERAL_ANY_MAX];
};

struct literal_demands {
	size_t count;
	struct literal_demand all[LITERAL_DEMANDS_MAX];
};

/* What each match of the pattern holds, in lower case.  No demand is always a sound answer: whatever is unusual in a
 * pattern gives none. */
void literal_read(const char *pattern, size_t len, struct literal_demands *out);

/* A name as it is searched for literals. */
struct literal_name {
	const struct name *name;
	size_t len;
	char text[NAME_MAX_LEN + 2];
};

static inline void literal_name_read(const struct name *name, struct literal_name *out)
{
	out->name = name;
	out->len = (size_t)name->len + 2;
	out->text[0] = LITERAL_BEGIN;
	memcpy(out->text + 1, name->text, name->len);
	out->text[name->len + 1] = LITERAL_END;
}

static inline uint32_t literal_at(const char *text)
{
	const unsigned char *p = (const unsigned char *)text;

	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint64_t literal_hash(uint64_t seed, uint32_t literal)
{
	uint64_t h = (seed ^ literal) * 0x9e3779b97f4a7c15u;

	return h ^ h >> 32;
}
