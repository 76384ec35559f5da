/* A way into a long ascending list of numbers: of every eighth number, of every sixteenth of these, and so on up to a
 * level of sixteen at most.  A search reads one or two lines of the processor's caches a level instead of one a step,
 * and guesses nothing. */
#pragma once

#include <stdint.h>
#include <string.h>

/* Lists shorter than this have none. */
#define GUIDE_MIN 64
#define GUIDE_STEP 8
#define GUIDE_FAN 16
/* A list has fewer than 2^32 numbers. */
#define GUIDE_LEVELS 8

/* Numbers of the level above one of n, without those that fill it up. */
static inline uint32_t guide_above(uint32_t n, uint32_t step)
{
	return n / step + (n % step != 0);
}

static inline uint32_t guide_room(uint32_t n)
{
	return guide_above(n, GUIDE_FAN) * GUIDE_FAN;
}

/* Words of the guide of a list of n. */
static inline uint32_t guide_words(uint32_t n)
{
	uint32_t words = 0;

	for (n = guide_above(n, GUIDE_STEP);; n = guide_above(n, GUIDE_FAN)) {
		words += guide_room(n);
		if (n <= GUIDE_FAN)
			return words;
	}
}

/* Fills in a guide from the numbers of a list, of which number i is at first + i * stride words.  The lowest level
 * comes first. */
static inline void guide_fill(uint32_t *guide, const uint32_t *first, uint32_t stride, uint32_t n)
{
	uint32_t step = GUIDE_STEP;

	for (;;) {
		uint32_t count = guide_above(n, step), room = guide_room(count);

		for (uint32_t i = 0; i < room; i++)
			guide[i] = i < count ? first[(uint64_t)i * step * stride] : UINT32_MAX;
		if (count <= GUIDE_FAN)
			return;
		first = guide;
		stride = 1;
		step = GUIDE_FAN;
		n = count;
		guide += room;
	}
}

typedef uint32_t guide_four __attribute__((vector_size(16)));

/* How many of GUIDE_FAN numbers are not above value. */
static inline uint32_t guide_count(const uint32_t *numbers, uint32_t value)
{
	guide_four four, values = {value, value, value, value}, count = {0};

	for (int i = 0; i < GUIDE_FAN; i += 4) {
		memcpy(&four, numbers + i, sizeof four);
		count -= (guide_four)(four <= values);
	}
	return count[0] + count[1] + count[2] + count[3];
}

/* Where in a list of n the GUIDE_STEP numbers begin, of which one is the last that is not above value; n if none is.
 * The answer is in the list whatever the guide holds. */
static inline uint32_t guide_find(const uint32_t *guide, uint32_t n, uint32_t value)
{
	uint32_t counts[GUIDE_LEVELS], levels = 0, at = 0;

	for (uint32_t count = guide_above(n, GUIDE_STEP);; count = guide_above(count, GUIDE_FAN)) {
		counts[levels++] = count;
		guide += guide_room(count);
		if (count <= GUIDE_FAN)
			break;
	}
	while (levels-- > 0) {
		guide -= guide_room(counts[levels]);
		uint32_t below = guide_count(guide + (uint64_t)at * GUIDE_FAN, value);

		if (below == 0)
			return n;
		at = at * GUIDE_FAN + below - 1;
		at = at < counts[levels] ? at : counts[levels] - 1;
	}
	return at * GUIDE_STEP;
}
