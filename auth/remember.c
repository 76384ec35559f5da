#include "config.h"

#include "auth/remember.h"

#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>

#define BUCKETS 16384
#define BODY_MAX 16384

struct entry {
	LIST_ENTRY(entry) by_key;
	TAILQ_ENTRY(entry) by_age; /* oldest first */
	struct remember_key key;
	int64_t expires_us;
	size_t len; /* of the answer's body */
	char user[AUTH_TEXT_MAX + 1], canonical[AUTH_TEXT_MAX + 1];
	uint8_t body[];
};

LIST_HEAD(entry_list, entry);

struct remembered {
	int64_t life_us;
	size_t max, count, bytes;
	uint8_t *hash_key; /* sodium_malloc(3): locked, between guard pages */
	struct entry_list buckets[BUCKETS];
	TAILQ_HEAD(, entry) by_age;
};

struct remembered *remembered_new(int64_t life_us, size_t max)
{
	struct remembered *r = calloc(1, sizeof *r);

	assert(sizeof((struct remember_key *)0)->bytes == crypto_generichash_BYTES);
	if (r == NULL || sodium_init() < 0 || (r->hash_key = sodium_malloc(crypto_generichash_KEYBYTES)) == NULL) {
		free(r);
		return NULL;
	}
	randombytes_buf(r->hash_key, crypto_generichash_KEYBYTES);
	r->life_us = life_us;
	r->max = max;
	TAILQ_INIT(&r->by_age);
	return r;
}

static void entry_free(struct remembered *r, struct entry *e)
{
	LIST_REMOVE(e, by_key);
	TAILQ_REMOVE(&r->by_age, e, by_age);
	r->count--;
	r->bytes -= sizeof *e + e->len;
	sodium_memzero(e, sizeof *e + e->len);
	free(e);
}

void remembered_free(struct remembered **r)
{
	struct entry *e;

	if (*r == NULL)
		return;
	while ((e = TAILQ_FIRST(&(*r)->by_age)) != NULL)
		entry_free(*r, e);
	sodium_free((*r)->hash_key);
	free(*r);
	*r = NULL;
}

/* The length goes in first: no two questions run together. */
static void hash_text(crypto_generichash_state *state, const char *text)
{
	uint32_t len = (uint32_t)strlen(text);

	crypto_generichash_update(state, (const uint8_t *)&len, sizeof len);
	crypto_generichash_update(state, (const uint8_t *)text, len);
}

void remembered_key(const struct remembered *r, const struct auth_ask *ask, struct remember_key *key)
{
	crypto_generichash_state state;

	crypto_generichash_init(&state, r->hash_key, crypto_generichash_KEYBYTES, sizeof key->bytes);
	hash_text(&state, ask->listener);
	hash_text(&state, ask->service);
	crypto_generichash_update(&state, &ask->client.family, sizeof ask->client.family);
	crypto_generichash_update(&state, ask->client.bytes, sizeof ask->client.bytes);
	hash_text(&state, ask->user);
	hash_text(&state, ask->password);
	hash_text(&state, ask->vouched ? "vouched" : "");
	crypto_generichash_final(&state, key->bytes, sizeof key->bytes);
	sodium_memzero(&state, sizeof state);
}

/* The key is a keyed hash already: its bytes are as good as random to everybody outside. */
static struct entry_list *bucket_of(struct remembered *r, const struct remember_key *key)
{
	uint32_t h;

	memcpy(&h, key->bytes, sizeof h);
	return &r->buckets[h % BUCKETS];
}

static void expire(struct remembered *r, int64_t now_us)
{
	struct entry *e;

	while ((e = TAILQ_FIRST(&r->by_age)) != NULL && e->expires_us <= now_us)
		entry_free(r, e);
}

static struct entry *find(struct remembered *r, const struct remember_key *key)
{
	struct entry *e;

	LIST_FOREACH (e, bucket_of(r, key), by_key)
		if (sodium_memcmp(e->key.bytes, key->bytes, sizeof key->bytes) == 0)
			return e;
	return NULL;
}

bool remembered_find(struct remembered *r, const struct remember_key *key, int64_t now_us, struct auth_answer *answer)
{
	struct entry *e;

	expire(r, now_us);
	e = find(r, key);
	if (e == NULL)
		return false;
	struct wire_reader reader = wire_reader_on(e->body, e->len);

	return auth_get_answer(&reader, answer);
}

void remembered_add(struct remembered *r, const struct remember_key *key, const char *user, const struct auth_answer *answer,
		    int64_t now_us)
{
	uint8_t body[BODY_MAX];
	struct wire_writer w = wire_writer_on(body, sizeof body);
	struct entry *e;

	expire(r, now_us);
	auth_put_answer(&w, answer);
	if (w.overflow || answer->verdict != AUTH_OK || r->max == 0)
		return;
	if ((e = find(r, key)) != NULL)
		entry_free(r, e);
	e = calloc(1, sizeof *e + w.len);
	if (e == NULL)
		return;
	while (r->count >= r->max || (r->count > 0 && r->bytes + sizeof *e + w.len > REMEMBERED_BYTES_MAX))
		entry_free(r, TAILQ_FIRST(&r->by_age));
	e->key = *key;
	e->expires_us = now_us + r->life_us;
	e->len = w.len;
	memcpy(e->body, body, w.len);
	snprintf(e->user, sizeof e->user, "%s", user);
	snprintf(e->canonical, sizeof e->canonical, "%s", answer->user);
	LIST_INSERT_HEAD(bucket_of(r, key), e, by_key);
	TAILQ_INSERT_TAIL(&r->by_age, e, by_age);
	r->count++;
	r->bytes += sizeof *e + e->len;
}

size_t remembered_forget(struct remembered *r, const char *user)
{
	struct entry *e, *following;
	size_t before = r->count;

	for (e = TAILQ_FIRST(&r->by_age); e != NULL; e = following) {
		following = TAILQ_NEXT(e, by_age);
		if (user == NULL || strcasecmp(e->user, user) == 0 || strcasecmp(e->canonical, user) == 0)
			entry_free(r, e);
	}
	return before - r->count;
}

size_t remembered_count(const struct remembered *r)
{
	return r->count;
}
