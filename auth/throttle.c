#include "config.h"

#include "auth/throttle.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#define BUCKETS 16384
#define MINUTE_US (60LL * 1000000)
#define KNOWN_US (24 * 60 * MINUTE_US)
#define USER_MAX 255
#define TRIED_MAX 4
#define DENIED_US (30LL * 1000000) /* no longer: the password may have become the right one */
/* Records that are looked at for one that may go. */
#define EVICTION_LOOKS 16

enum kind { NETWORK, USER, KNOWN, KINDS };

/* How long it takes to be forgiven one failure. */
static const int64_t forgiven_us[KINDS] = {[NETWORK] = MINUTE_US, [USER] = 10 * MINUTE_US};

struct tried {
	uint64_t hash;
	int64_t denied_us; /* last, and 0 for never */
	uint32_t delay_us;
};

struct record {
	LIST_ENTRY(record) by_key;
	TAILQ_ENTRY(record) by_use; /* least recently used first */
	enum kind kind;
	unsigned failures;
	int64_t failed_us; /* when failures was right; KNOWN: when the log-in was */
	int64_t until_us;  /* refused before */
	/* While an episode goes on: */
	TAILQ_ENTRY(record) in_episodes;
	bool in_episode, told;
	int64_t begun_us;
	uint64_t refused;
	struct tried tried[TRIED_MAX]; /* USER: what was denied last */
	int64_t tried_us;	       /* and when */
	struct prefix network;
	char user[]; /* ASCII letters in lower case; "" of a network */
};

LIST_HEAD(record_list, record);
TAILQ_HEAD(record_queue, record);

struct throttle {
	struct throttle_options options;
	uint8_t key[crypto_shorthash_KEYBYTES];
	struct record_list buckets[BUCKETS];
	struct record_queue used[KINDS];
	size_t count[KINDS];
	struct record_queue episodes;
	/* For news: how many may still be told of, since when; and how many were not. */
	unsigned allowed;
	int64_t allowed_us;
	uint64_t untold;
};

struct throttle *throttle_new(const struct throttle_options *options)
{
	struct throttle *t = calloc(1, sizeof *t);

	if (t == NULL || sodium_init() < 0) {
		free(t);
		return NULL;
	}
	t->options = *options;
	randombytes_buf(t->key, sizeof t->key);
	for (int k = 0; k < KINDS; k++)
		TAILQ_INIT(&t->used[k]);
	TAILQ_INIT(&t->episodes);
	t->allowed = THROTTLE_NEWS_BURST;
	return t;
}

/* ---- news --------------------------------------------------------------------------------------------------------------- */

static unsigned failures_now(const struct record *r, int64_t now_us);

static void tell(struct throttle *t, const struct record *r, enum throttle_step step, int64_t now_us)
{
	struct throttle_news news = {.step = step,
				     .network = r->network,
				     .failures = failures_now(r, now_us),
				     .refused = r->refused,
				     .lasted_us = now_us - r->begun_us,
				     .untold = t->untold};

	if (r->until_us > now_us)
		news.wait_ms = (uint32_t)((r->until_us - now_us + 999) / 1000);
	snprintf(news.user, sizeof news.user, "%s", r->user);
	t->untold = 0;
	t->options.news(&news, t->options.arg);
}

static bool may_tell(struct throttle *t, int64_t now_us)
{
	int64_t seconds = (now_us - t->allowed_us) / 1000000;

	if (seconds > 0) {
		t->allowed = seconds >= THROTTLE_NEWS_BURST - t->allowed ? THROTTLE_NEWS_BURST : t->allowed + (unsigned)seconds;
		t->allowed_us = now_us;
	}
	if (t->allowed == 0) {
		t->untold++;
		return false;
	}
	t->allowed--;
	return true;
}

static void begin_episode(struct throttle *t, struct record *r, int64_t now_us)
{
	if (r->in_episode || t->options.news == NULL)
		return;
	r->in_episode = true;
	r->begun_us = now_us;
	r->refused = 0;
	TAILQ_INSERT_TAIL(&t->episodes, r, in_episodes);
	r->told = may_tell(t, now_us);
	if (r->told)
		tell(t, r, THROTTLE_BEGUN, now_us);
}

static void end_episode(struct throttle *t, struct record *r, enum throttle_step step, int64_t now_us)
{
	if (!r->in_episode)
		return;
	r->in_episode = false;
	TAILQ_REMOVE(&t->episodes, r, in_episodes);
	if (r->told)
		tell(t, r, step, now_us);
}

void throttle_tick(struct throttle *t, int64_t now_us)
{
	struct record *r, *following;

	for (r = TAILQ_FIRST(&t->episodes); r != NULL; r = following) {
		following = TAILQ_NEXT(r, in_episodes);
		if (now_us - r->until_us >= THROTTLE_QUIET_US)
			end_episode(t, r, THROTTLE_OVER, now_us);
	}
}

static void record_free(struct throttle *t, struct record *r)
{
	if (r->in_episode)
		TAILQ_REMOVE(&t->episodes, r, in_episodes);
	LIST_REMOVE(r, by_key);
	TAILQ_REMOVE(&t->used[r->kind], r, by_use);
	t->count[r->kind]--;
	free(r);
}

void throttle_free(struct throttle **t)
{
	struct record *r;

	if (*t == NULL)
		return;
	for (int k = 0; k < KINDS; k++)
		while ((r = TAILQ_FIRST(&(*t)->used[k])) != NULL)
			record_free(*t, r);
	free(*t);
	*t = NULL;
}

/* ---- keys ---------------------------------------------------------------------------------------------------------- */

struct prefix throttle_network(const struct throttle *t, const struct addr *client)
{
	struct prefix p = {.addr = *client};
	unsigned bits = client->family == ADDR_V6 ? t->options.bits_v6 : t->options.bits_v4;

	if (bits == 0 || bits > addr_bits(client))
		bits = addr_bits(client);
	p.bits = (uint8_t)bits;
	for (unsigned i = 0; i < sizeof p.addr.bytes; i++, bits -= bits < 8 ? bits : 8)
		if (bits < 8)
			p.addr.bytes[i] &= (uint8_t)(0xff00 >> bits);
	return p;
}

/* Names that differ in case only may be one user to PAM. */
static void fold(char out[USER_MAX + 1], const char *user)
{
	size_t i;

	for (i = 0; i < USER_MAX && user[i] != '\0'; i++)
		out[i] = user[i] >= 'A' && user[i] <= 'Z' ? (char)(user[i] - 'A' + 'a') : user[i];
	out[i] = '\0';
}

static struct record_list *bucket_of(struct throttle *t, enum kind kind, const struct prefix *network, const char *user)
{
	uint8_t text[2 + sizeof network->addr.bytes + USER_MAX], hash[crypto_shorthash_BYTES];
	size_t len = strlen(user);
	uint32_t h;

	text[0] = (uint8_t)kind;
	text[1] = network->addr.family;
	memcpy(text + 2, network->addr.bytes, sizeof network->addr.bytes);
	memcpy(text + 2 + sizeof network->addr.bytes, user, len);
	crypto_shorthash(hash, text, 2 + sizeof network->addr.bytes + len, t->key);
	memcpy(&h, hash, sizeof h);
	return &t->buckets[h % BUCKETS];
}

static bool network_equal(const struct prefix *a, const struct prefix *b)
{
	return a->bits == b->bits && addr_equal(&a->addr, &b->addr);
}

/* ---- records ------------------------------------------------------------------------------------------------------- */

static unsigned failures_now(const struct record *r, int64_t now_us)
{
	int64_t forgiven = (now_us - r->failed_us) / forgiven_us[r->kind];

	return forgiven >= r->failures ? 0 : r->failures - (unsigned)forgiven;
}

static bool is_over(const struct record *r, int64_t now_us)
{
	if (r->kind == KNOWN)
		return now_us - r->failed_us > KNOWN_US;
	return r->until_us <= now_us && failures_now(r, now_us) == 0 && now_us - r->tried_us >= DENIED_US;
}

/* NULL if there is none that still says anything. */
static struct record *find(struct throttle *t, enum kind kind, const struct prefix *network, const char *user, int64_t now_us)
{
	struct record *r;

	LIST_FOREACH (r, bucket_of(t, kind, network, user), by_key)
		if (r->kind == kind && network_equal(&r->network, network) && strcmp(r->user, user) == 0)
			break;
	if (r == NULL || !is_over(r, now_us))
		return r;
	end_episode(t, r, THROTTLE_OVER, now_us);
	record_free(t, r);
	return NULL;
}

/* Makes room: whoever waits goes last, so that nobody can buy a way out by failing under many names. */
static void evict(struct throttle *t, enum kind kind, int64_t now_us)
{
	struct record *r = TAILQ_FIRST(&t->used[kind]), *victim = r;

	for (int i = 0; r != NULL && i < EVICTION_LOOKS; i++, r = TAILQ_NEXT(r, by_use)) {
		if (r->until_us <= now_us) {
			victim = r;
			break;
		}
		if (r->until_us < victim->until_us)
			victim = r;
	}
	if (victim == NULL)
		return;
	end_episode(t, victim, THROTTLE_OVER, now_us);
	record_free(t, victim);
}

static struct record *find_or_add(struct throttle *t, enum kind kind, const struct prefix *network, const char *user, int64_t now_us)
{
	struct record *r = find(t, kind, network, user, now_us);

	if (r != NULL) {
		TAILQ_REMOVE(&t->used[kind], r, by_use);
		TAILQ_INSERT_TAIL(&t->used[kind], r, by_use);
		return r;
	}
	if (t->count[kind] >= t->options.max)
		evict(t, kind, now_us);
	r = t->options.max == 0 ? NULL : calloc(1, sizeof *r + strlen(user) + 1);
	if (r == NULL)
		return NULL;
	r->kind = kind;
	r->network = *network;
	r->failed_us = now_us;
	r->tried_us = now_us - DENIED_US;
	strcpy(r->user, user);
	LIST_INSERT_HEAD(bucket_of(t, kind, network, user), r, by_key);
	TAILQ_INSERT_TAIL(&t->used[kind], r, by_use);
	t->count[kind]++;
	return r;
}

/* ---- questions and answers ---------------------------------------------------------------------------------------- */

static int64_t wait_of(struct throttle *t, enum kind kind, const struct prefix *network, const char *user, int64_t now_us)
{
	struct record *r = find(t, kind, network, user, now_us);

	if (r == NULL || r->until_us <= now_us)
		return 0;
	r->refused++; /* for whoever asks refuses */
	return r->until_us - now_us;
}

int64_t throttle_wait_us(struct throttle *t, const struct addr *client, const char *user, int64_t now_us)
{
	struct prefix network = throttle_network(t, client);
	char folded[USER_MAX + 1];
	int64_t wait;

	if (user == NULL)
		return wait_of(t, NETWORK, &network, "", now_us);
	fold(folded, user);
	wait = wait_of(t, USER, &network, folded, now_us);
	if (wait > 0 || find(t, KNOWN, &network, folded, now_us) != NULL)
		return wait;
	return wait_of(t, NETWORK, &network, "", now_us);
}

/* Counts one more; for how long that makes it wait. */
static int64_t count(struct throttle *t, enum kind kind, const struct prefix *network, const char *user, unsigned free_of_charge,
		     int64_t now_us)
{
	struct record *r = free_of_charge == 0 ? NULL : find_or_add(t, kind, network, user, now_us);
	int64_t wait = (int64_t)t->options.first_ms * 1000, longest = (int64_t)t->options.max_ms * 1000;

	if (r == NULL)
		return 0;
	r->failures = failures_now(r, now_us) + 1;
	r->failed_us = now_us;
	if (r->failures <= free_of_charge)
		return 0;
	for (unsigned i = free_of_charge + 1; i < r->failures && wait < longest; i++)
		wait *= 2;
	if (wait > longest)
		wait = longest;
	if (now_us + wait > r->until_us)
		r->until_us = now_us + wait;
	begin_episode(t, r, now_us);
	return wait;
}

/* Among the last that were denied, or NULL. */
static struct tried *tried_before(struct throttle *t, const struct prefix *network, const char *user, uint64_t tried, int64_t now_us)
{
	struct record *r = tried == 0 ? NULL : find(t, USER, network, user, now_us);

	for (int i = 0; r != NULL && i < TRIED_MAX; i++)
		if (r->tried[i].hash == tried)
			return &r->tried[i];
	return NULL;
}

static void note_tried(struct throttle *t, const struct prefix *network, const char *user, uint64_t tried, int64_t now_us)
{
	/* Also where nobody is slowed down: it spares PAM the question. */
	struct record *r = tried == 0 ? NULL : find_or_add(t, USER, network, user, now_us);

	if (r == NULL)
		return;
	r->tried_us = now_us;
	memmove(r->tried + 1, r->tried, sizeof r->tried - sizeof *r->tried);
	r->tried[0] = (struct tried){.hash = tried};
}

void throttle_note_denied(struct throttle *t, const struct addr *client, const char *user, uint64_t tried, uint32_t delay_us,
			  int64_t now_us)
{
	struct prefix network = throttle_network(t, client);
	char folded[USER_MAX + 1];
	struct tried *known;

	fold(folded, user);
	known = tried_before(t, &network, folded, tried, now_us);
	if (known == NULL)
		return;
	known->denied_us = now_us;
	known->delay_us = delay_us;
}

bool throttle_denied_lately(struct throttle *t, const struct addr *client, const char *user, uint64_t tried, int64_t now_us,
			    uint32_t *delay_us)
{
	struct prefix network = throttle_network(t, client);
	char folded[USER_MAX + 1];
	const struct tried *known;

	fold(folded, user);
	known = tried_before(t, &network, folded, tried, now_us);
	if (known == NULL || known->denied_us == 0 || now_us - known->denied_us >= DENIED_US)
		return false;
	*delay_us = known->delay_us;
	return true;
}

int64_t throttle_failed(struct throttle *t, const struct addr *client, const char *user, uint64_t tried, int64_t now_us)
{
	struct prefix network = throttle_network(t, client);
	char folded[USER_MAX + 1];
	int64_t of_user, of_network;

	if (user == NULL)
		return count(t, NETWORK, &network, "", t->options.client_failures, now_us);
	fold(folded, user);
	if (tried_before(t, &network, folded, tried, now_us) != NULL)
		return 0;
	of_user = count(t, USER, &network, folded, t->options.user_failures, now_us);
	note_tried(t, &network, folded, tried, now_us);
	of_network = count(t, NETWORK, &network, "", t->options.client_failures, now_us);
	return of_user > of_network ? of_user : of_network;
}

void throttle_succeeded(struct throttle *t, const struct addr *client, const char *user, int64_t now_us)
{
	struct prefix network = throttle_network(t, client);
	char folded[USER_MAX + 1];
	struct record *r;

	fold(folded, user);
	r = find(t, USER, &network, folded, now_us);
	if (r != NULL) {
		end_episode(t, r, THROTTLE_OVER, now_us);
		record_free(t, r);
	}
	/* The network's failures stay: somebody's own account must not pay for guesses at others. */
	r = find_or_add(t, KNOWN, &network, folded, now_us);
	if (r != NULL)
		r->failed_us = now_us;
}

bool throttle_knows(struct throttle *t, const struct addr *client, const char *user, int64_t now_us)
{
	struct prefix network = throttle_network(t, client);
	char folded[USER_MAX + 1];

	fold(folded, user);
	return find(t, KNOWN, &network, folded, now_us) != NULL;
}

/* ---- administrators ------------------------------------------------------------------------------------------------ */

size_t throttle_unlock(struct throttle *t, const struct prefix *clients, const char *user, int64_t now_us)
{
	char folded[USER_MAX + 1] = "";
	struct record *r, *following;
	size_t n = 0;

	if (user != NULL)
		fold(folded, user);
	for (int k = NETWORK; k <= USER; k++)
		for (r = TAILQ_FIRST(&t->used[k]); r != NULL; r = following) {
			following = TAILQ_NEXT(r, by_use);
			if ((user != NULL && strcmp(r->user, folded) != 0) ||
			    (clients != NULL && !prefix_covers(clients, &r->network) && !prefix_covers(&r->network, clients)))
				continue;
			end_episode(t, r, THROTTLE_UNLOCKED, now_us);
			record_free(t, r);
			n++;
		}
	return n;
}

static void visit_all(struct throttle *t, int64_t now_us, bool waiting, throttle_visit *visit, void *arg)
{
	struct record *r;

	for (int k = NETWORK; k <= USER; k++)
		TAILQ_FOREACH (r, &t->used[k], by_use) {
			int64_t wait = r->until_us > now_us ? r->until_us - now_us : 0;

			unsigned failures = failures_now(r, now_us);

			if ((wait > 0) == waiting && (wait > 0 || failures > 0))
				visit(&r->network, r->user, failures, wait, arg);
		}
}

void throttle_each(struct throttle *t, int64_t now_us, throttle_visit *visit, void *arg)
{
	visit_all(t, now_us, true, visit, arg);
	visit_all(t, now_us, false, visit, arg);
}

size_t throttle_records(const struct throttle *t)
{
	return t->count[NETWORK] + t->count[USER] + t->count[KNOWN];
}
