#include "config.h"

#include "gatewayd/worker/name_cache.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "gatewayd/worker/resolver.h"

/* In one piece with the addresses and texts behind it. */
struct kept {
	TAILQ_ENTRY(kept) recent;
	LIST_ENTRY(kept) chain;
	struct moment asked, until;
	size_t bytes;
	size_t naddresses, naliases;
	char data[]; /* addresses; the name and the aliases, each a byte of length before its text */
};

TAILQ_HEAD(by_use, kept);
LIST_HEAD(chain, kept);

struct name_cache {
	size_t most, most_bytes, names, bytes;
	int64_t longest_us;
	size_t mask; /* of chains */
	struct chain *chains;
	struct by_use by_use; /* the latest first */
	uint8_t key[crypto_shorthash_KEYBYTES];
};

static size_t count_chains(size_t names)
{
	size_t n = 1;

	while (n < names)
		n *= 2;
	return n;
}

struct name_cache *name_cache_new(size_t names, int64_t longest_us)
{
	struct name_cache *c = calloc(1, sizeof *c);

	if (c == NULL || sodium_init() < 0) {
		free(c);
		return NULL;
	}
	c->most = names;
	c->most_bytes = names * NAME_CACHE_BYTES_PER_NAME;
	c->longest_us = longest_us;
	c->mask = count_chains(names) - 1;
	c->chains = calloc(c->mask + 1, sizeof *c->chains);
	if (c->chains == NULL) {
		free(c);
		return NULL;
	}
	TAILQ_INIT(&c->by_use);
	crypto_shorthash_keygen(c->key);
	return c;
}

void name_cache_free(struct name_cache **c)
{
	if (*c == NULL)
		return;
	name_cache_flush(*c);
	free((*c)->chains);
	free(*c);
	*c = NULL;
}

uint64_t name_cache_hash(const struct name_cache *c, const struct name *name)
{
	uint64_t hash;

	crypto_shorthash((uint8_t *)&hash, (const uint8_t *)name->text, name->len, c->key);
	return hash;
}

static struct chain *chain_of(const struct name_cache *c, const struct name *name)
{
	return &c->chains[name_cache_hash(c, name) & c->mask];
}

static const char *texts_of(const struct kept *k)
{
	return k->data + k->naddresses * sizeof(struct addr);
}

static struct kept *find(const struct name_cache *c, const struct name *name)
{
	struct kept *k;

	LIST_FOREACH (k, chain_of(c, name), chain) {
		const char *text = texts_of(k);

		if ((uint8_t)text[0] == name->len && memcmp(text + 1, name->text, name->len) == 0)
			return k;
	}
	return NULL;
}

static void drop(struct name_cache *c, struct kept *k)
{
	TAILQ_REMOVE(&c->by_use, k, recent);
	LIST_REMOVE(k, chain);
	c->names--;
	c->bytes -= k->bytes;
	free(k);
}

/* A clock that was set back says nothing of how long it has been. */
static bool lives(const struct kept *k, const struct moment *now)
{
	return now->mono_us < k->until.mono_us && now->wall_us < k->until.wall_us && now->wall_us >= k->asked.wall_us;
}

static void copy_out(const struct kept *k, struct answer *answer)
{
	const char *text = texts_of(k);

	memset(answer, 0, sizeof *answer);
	answer->naddresses = k->naddresses;
	answer->naliases = k->naliases;
	memcpy(answer->addresses, k->data, k->naddresses * sizeof *answer->addresses);
	for (size_t i = 0; i < k->naliases; i++) {
		text += 1 + (uint8_t)text[0];
		answer->aliases[i].len = (uint8_t)text[0];
		memcpy(answer->aliases[i].text, text + 1, (uint8_t)text[0]);
	}
}

bool name_cache_find(struct name_cache *c, const struct name *name, const struct moment *now, struct answer *answer)
{
	struct kept *k = c->names == 0 ? NULL : find(c, name);

	if (k == NULL)
		return false;
	if (!lives(k, now)) {
		drop(c, k);
		return false;
	}
	TAILQ_REMOVE(&c->by_use, k, recent);
	TAILQ_INSERT_HEAD(&c->by_use, k, recent);
	copy_out(k, answer);
	return true;
}

static size_t bytes_of(const struct name *name, const struct answer *answer)
{
	size_t bytes = sizeof(struct kept) + answer->naddresses * sizeof *answer->addresses + 1 + name->len;

	for (size_t i = 0; i < answer->naliases; i++)
		bytes += 1u + answer->aliases[i].len;
	return bytes;
}

static char *put_text(char *at, const struct name *name)
{
	*at++ = (char)name->len;
	memcpy(at, name->text, name->len);
	return at + name->len;
}

void name_cache_keep(struct name_cache *c, const struct name *name, const struct answer *answer, int64_t ttl_s,
		     const struct moment *asked)
{
	size_t bytes = bytes_of(name, answer);
	int64_t us = ttl_s < c->longest_us / 1000000 + 1 ? ttl_s * 1000000 : c->longest_us;
	struct kept *k;
	char *at;

	if (us > c->longest_us)
		us = c->longest_us;
	name_cache_drop(c, name);
	if (answer->failure != REASON_NONE || answer->naddresses == 0 || us <= 0 || bytes > c->most_bytes)
		return;
	while (c->names >= c->most || c->bytes + bytes > c->most_bytes)
		drop(c, TAILQ_LAST(&c->by_use, by_use));
	k = malloc(bytes);
	if (k == NULL)
		return;
	k->asked = *asked;
	k->until = (struct moment){asked->mono_us + us, asked->wall_us + us};
	k->bytes = bytes;
	k->naddresses = answer->naddresses;
	k->naliases = answer->naliases;
	memcpy(k->data, answer->addresses, k->naddresses * sizeof *answer->addresses);
	at = put_text(k->data + k->naddresses * sizeof *answer->addresses, name);
	for (size_t i = 0; i < k->naliases; i++)
		at = put_text(at, &answer->aliases[i]);
	TAILQ_INSERT_HEAD(&c->by_use, k, recent);
	LIST_INSERT_HEAD(chain_of(c, name), k, chain);
	c->names++;
	c->bytes += bytes;
}

void name_cache_drop(struct name_cache *c, const struct name *name)
{
	struct kept *k = c->names == 0 ? NULL : find(c, name);

	if (k != NULL)
		drop(c, k);
}

void name_cache_flush(struct name_cache *c)
{
	while (!TAILQ_EMPTY(&c->by_use))
		drop(c, TAILQ_FIRST(&c->by_use));
}

size_t name_cache_names(const struct name_cache *c)
{
	return c->names;
}

size_t name_cache_bytes(const struct name_cache *c)
{
	return c->bytes;
}
