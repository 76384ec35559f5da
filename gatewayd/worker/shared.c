#include "config.h"

#include "gatewayd/worker/shared.h"

#include <assert.h>
#include <sodium.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct shared {
	struct shared *next; /* of its bucket */
	uint32_t hash, refs;
	char text[];
};

#define BUCKETS_MIN 64

/* One worker, one thread.  Clients choose names: the hash is keyed. */
static struct {
	struct shared **buckets;
	size_t nbuckets, count; /* nbuckets: a power of two */
	uint8_t key[crypto_shorthash_KEYBYTES];
} all;

static uint32_t hash_of(const char *text, size_t len)
{
	uint8_t out[crypto_shorthash_BYTES];
	uint32_t hash;

	crypto_shorthash(out, (const uint8_t *)text, len, all.key);
	memcpy(&hash, out, sizeof hash);
	return hash;
}

static struct shared **bucket_of(uint32_t hash)
{
	return &all.buckets[hash & (all.nbuckets - 1)];
}

/* Where memory is short, what there is does. */
static void resize(size_t nbuckets)
{
	struct shared **old = all.buckets, **buckets = calloc(nbuckets, sizeof(struct shared *)), *s, *following;
	size_t nold = all.nbuckets;

	if (buckets == NULL)
		return;
	all.buckets = buckets;
	all.nbuckets = nbuckets;
	for (size_t i = 0; i < nold; i++)
		for (s = old[i]; s != NULL; s = following) {
			following = s->next;
			s->next = *bucket_of(s->hash);
			*bucket_of(s->hash) = s;
		}
	free(old);
}

const char *shared_get(const char *text)
{
	size_t len = strlen(text);
	uint32_t hash;
	struct shared *s;

	if (all.nbuckets == 0) {
		randombytes_buf(all.key, sizeof all.key);
		resize(BUCKETS_MIN);
		if (all.nbuckets == 0)
			return NULL;
	}
	hash = hash_of(text, len);
	for (s = *bucket_of(hash); s != NULL; s = s->next)
		if (s->hash == hash && s->refs < UINT32_MAX && strcmp(s->text, text) == 0) {
			s->refs++;
			return s->text;
		}
	s = malloc(sizeof *s + len + 1);
	if (s == NULL)
		return NULL;
	s->hash = hash;
	s->refs = 1;
	memcpy(s->text, text, len + 1);
	if (all.count >= all.nbuckets) /* more, where memory was short before */
		resize(2 * all.nbuckets);
	s->next = *bucket_of(hash);
	*bucket_of(hash) = s;
	all.count++;
	return s->text;
}

void shared_put(const char **text)
{
	struct shared *s, **at;

	if (*text == NULL)
		return;
	s = (struct shared *)(void *)(uintptr_t)(*text - offsetof(struct shared, text));
	*text = NULL;
	assert(s->refs > 0);
	if (--s->refs > 0)
		return;
	for (at = bucket_of(s->hash); *at != s; at = &(*at)->next)
		;
	*at = s->next;
	free(s);
	/* What a flood has used goes back. */
	if (--all.count < all.nbuckets / 8 && all.nbuckets > BUCKETS_MIN)
		resize(all.nbuckets / 2);
}

int shared_set(const char **place, const char *text)
{
	const char *one = shared_get(text); /* first: it may be the one that is in place */

	shared_put(place);
	*place = one;
	return one == NULL ? -1 : 0;
}

size_t shared_count(void)
{
	return all.count;
}
