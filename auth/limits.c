#include "config.h"

#include "auth/limits.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#define BUCKETS 4096
/* A counter without sessions is kept while its rate may still matter: a bucket is full again after a second. */
#define IDLE_US 2000000

/* Those of the connection come first; `of all` is of all listeners together. */
enum kind { OF_LISTENER, OF_CLIENT, OF_CLIENT_OF_ALL, OF_USER, OF_USER_OF_ALL, KINDS };
#define FIRST_OF_LOGIN OF_USER
/* In place of a listener's number. */
#define ALL_LISTENERS SIZE_MAX

struct counter {
	LIST_ENTRY(counter) by_key;
	TAILQ_ENTRY(counter) by_idleness; /* while it has no session */
	enum kind kind;
	size_t listener;
	unsigned sessions;
	double tokens;
	int64_t touched_us;
	size_t len;
	uint8_t key[];
};

LIST_HEAD(counter_list, counter);

struct limits {
	struct limit_set *sets, all;
	size_t nsets, ncounters;
	struct counter_list buckets[BUCKETS];
	TAILQ_HEAD(, counter) idle; /* longest first */
};

struct admitted {
	LIST_ENTRY(admitted) by_id;
	uint64_t id;
	size_t listener;
	bool logged_in; /* asked about with its user */
	struct counter *counters[KINDS]; /* NULL: not counted */
};

struct limits_holder {
	struct limits *limits;
	LIST_HEAD(, admitted) buckets[BUCKETS];
};

bool limit_set_connections(const struct limit_set *set)
{
	return set->sessions | set->per_client | set->rate | set->rate_per_client;
}

bool limit_set_users(const struct limit_set *set)
{
	return set->per_user | set->rate_per_user;
}

struct limits *limits_new(const struct limit_set *sets, size_t n, const struct limit_set *all)
{
	struct limits *l = calloc(1, sizeof *l);

	if (l != NULL)
		l->sets = malloc((n + 1) * sizeof *sets);
	if (l == NULL || l->sets == NULL) {
		free(l);
		return NULL;
	}
	if (n > 0)
		memcpy(l->sets, sets, n * sizeof *sets);
	l->nsets = n;
	l->all = *all;
	TAILQ_INIT(&l->idle);
	return l;
}

size_t limits_counters(const struct limits *l)
{
	return l->ncounters;
}

/* ---- counters -------------------------------------------------------------------------------------------------- */

static unsigned bucket_of(enum kind kind, size_t listener, const uint8_t *key, size_t len)
{
	uint32_t h = 2166136261u ^ (uint32_t)kind ^ (uint32_t)listener << 8;

	for (size_t i = 0; i < len; i++)
		h = (h ^ key[i]) * 16777619u;
	return h % BUCKETS;
}

static void counter_free(struct limits *l, struct counter *c)
{
	LIST_REMOVE(c, by_key);
	TAILQ_REMOVE(&l->idle, c, by_idleness);
	l->ncounters--;
	free(c);
}

static void forget_idle(struct limits *l, int64_t now_us)
{
	struct counter *c;

	while ((c = TAILQ_FIRST(&l->idle)) != NULL && now_us - c->touched_us > IDLE_US)
		counter_free(l, c);
}

static struct counter *counter_of(struct limits *l, enum kind kind, size_t listener, const uint8_t *key, size_t len, double rate,
				  int64_t now_us)
{
	struct counter_list *bucket = &l->buckets[bucket_of(kind, listener, key, len)];
	struct counter *c;

	LIST_FOREACH (c, bucket, by_key)
		if (c->kind == kind && c->listener == listener && c->len == len && memcmp(c->key, key, len) == 0)
			return c;
	c = calloc(1, sizeof *c + len);
	if (c == NULL)
		return NULL;
	c->kind = kind;
	c->listener = listener;
	c->tokens = rate;
	c->touched_us = now_us;
	c->len = len;
	memcpy(c->key, key, len);
	LIST_INSERT_HEAD(bucket, c, by_key);
	TAILQ_INSERT_TAIL(&l->idle, c, by_idleness);
	l->ncounters++;
	return c;
}

static void refill(struct limits *l, struct counter *c, double rate, int64_t now_us)
{
	if (c->sessions == 0) { /* the list stays in order of the last touch */
		TAILQ_REMOVE(&l->idle, c, by_idleness);
		TAILQ_INSERT_TAIL(&l->idle, c, by_idleness);
	}
	c->tokens += (double)(now_us - c->touched_us) / 1e6 * rate;
	if (c->tokens > rate)
		c->tokens = rate;
	c->touched_us = now_us;
}

static void take(struct limits *l, struct counter *c)
{
	if (c->sessions++ == 0)
		TAILQ_REMOVE(&l->idle, c, by_idleness);
	c->tokens = c->tokens >= 1 ? c->tokens - 1 : 0;
}

static void give_back(struct limits *l, struct counter *c, int64_t now_us)
{
	if (--c->sessions > 0)
		return;
	c->touched_us = c->touched_us > now_us ? c->touched_us : now_us;
	TAILQ_INSERT_TAIL(&l->idle, c, by_idleness);
}

/* ---- sessions ---------------------------------------------------------------------------------------------------- */

struct limits_holder *limits_holder_new(struct limits *l)
{
	struct limits_holder *h = calloc(1, sizeof *h);

	if (h != NULL)
		h->limits = l;
	return h;
}

static void release(struct limits_holder *h, struct admitted *a, int64_t now_us)
{
	for (int i = 0; i < KINDS; i++)
		if (a->counters[i] != NULL)
			give_back(h->limits, a->counters[i], now_us);
	LIST_REMOVE(a, by_id);
	free(a);
}

void limits_holder_free(struct limits_holder **h)
{
	if (*h == NULL)
		return;
	for (size_t i = 0; i < BUCKETS; i++)
		while (!LIST_EMPTY(&(*h)->buckets[i]))
			release(*h, LIST_FIRST(&(*h)->buckets[i]), 0);
	free(*h);
	*h = NULL;
}

void limits_free(struct limits **l)
{
	if (*l == NULL)
		return;
	while (!TAILQ_EMPTY(&(*l)->idle))
		counter_free(*l, TAILQ_FIRST(&(*l)->idle));
	free((*l)->sets);
	free(*l);
	*l = NULL;
}

static struct admitted *find(struct limits_holder *h, uint64_t id)
{
	struct admitted *a;

	LIST_FOREACH (a, &h->buckets[id % BUCKETS], by_id)
		if (a->id == id)
			return a;
	return NULL;
}

void limits_release(struct limits_holder *h, uint64_t id, int64_t now_us)
{
	struct admitted *a = find(h, id);

	if (a != NULL)
		release(h, a, now_us);
}

static const struct {
	const char *many, *fast;
} reasons[KINDS] = {
	[OF_LISTENER] = {"the listener has as many sessions as it may", "the listener begins as many sessions a second as it may"},
	[OF_CLIENT] = {"this client has as many sessions as it may", "this client begins as many sessions a second as it may"},
	[OF_CLIENT_OF_ALL] = {"this client has as many sessions as it may at all listeners",
			      "this client begins as many sessions a second as it may at all listeners"},
	[OF_USER] = {"this user has as many sessions as they may", "this user begins as many sessions a second as they may"},
	[OF_USER_OF_ALL] = {"this user has as many sessions as they may at all listeners",
			    "this user begins as many sessions a second as they may at all listeners"},
};

bool limits_is_full(const char *why)
{
	return why == reasons[OF_LISTENER].many;
}

/* What each kind is limited to, and by what it is known. */
struct measure {
	unsigned sessions, rate;
	uint8_t key[256];
	size_t len;
};

static void measure_all(const struct limit_set *set, const struct limit_set *all, const struct addr *client, const char *user,
			struct measure m[KINDS])
{
	memset(m, 0, sizeof(struct measure) * KINDS);
	m[OF_LISTENER].sessions = set->sessions;
	m[OF_LISTENER].rate = set->rate;
	m[OF_CLIENT].sessions = set->per_client;
	m[OF_CLIENT].rate = set->rate_per_client;
	m[OF_CLIENT].len = 1 + (client->family == ADDR_V6 ? 8 : addr_len(client));
	m[OF_CLIENT].key[0] = client->family;
	memcpy(m[OF_CLIENT].key + 1, client->bytes, m[OF_CLIENT].len - 1);
	m[OF_CLIENT_OF_ALL] = m[OF_CLIENT];
	m[OF_CLIENT_OF_ALL].sessions = all->per_client;
	m[OF_CLIENT_OF_ALL].rate = all->rate_per_client;
	if (user[0] == '\0')
		return;
	m[OF_USER].sessions = set->per_user;
	m[OF_USER].rate = set->rate_per_user;
	m[OF_USER].len = strnlen(user, sizeof m[OF_USER].key);
	/* User names that differ in case only may be one user to PAM, so they are counted as one. */
	for (size_t i = 0; i < m[OF_USER].len; i++)
		m[OF_USER].key[i] = (uint8_t)(user[i] >= 'A' && user[i] <= 'Z' ? user[i] + ('a' - 'A') : user[i]);
	m[OF_USER_OF_ALL] = m[OF_USER];
	m[OF_USER_OF_ALL].sessions = all->per_user;
	m[OF_USER_OF_ALL].rate = all->rate_per_user;
}

const char *limits_admit(struct limits_holder *h, uint64_t id, size_t listener, const struct addr *client, const char *user,
			 bool force, int64_t now_us)
{
	struct limits *l = h->limits;
	struct counter *counters[KINDS] = {NULL};
	struct measure m[KINDS];
	struct admitted *a = find(h, id);
	int first = a == NULL ? OF_LISTENER : FIRST_OF_LOGIN; /* connection and log-in may be asked about apart */

	forget_idle(l, now_us);
	if (listener >= l->nsets ||
	    (a != NULL && (user[0] == '\0' || a->listener != listener || a->logged_in)))
		return "this session has been counted already, or its listener is unknown";
	measure_all(&l->sets[listener], &l->all, client, user, m);
	for (int i = first; i < KINDS; i++) {
		if (m[i].sessions == 0 && m[i].rate == 0)
			continue;
		counters[i] = counter_of(l, (enum kind)i, i == OF_CLIENT_OF_ALL || i == OF_USER_OF_ALL ? ALL_LISTENERS : listener,
					 m[i].key, m[i].len, m[i].rate, now_us);
		if (counters[i] == NULL)
			return "out of memory";
		refill(l, counters[i], m[i].rate, now_us);
		if (!force && m[i].sessions > 0 && counters[i]->sessions >= m[i].sessions)
			return reasons[i].many;
		if (!force && m[i].rate > 0 && counters[i]->tokens < 1)
			return reasons[i].fast;
	}
	if (a == NULL) {
		a = calloc(1, sizeof *a);
		if (a == NULL)
			return "out of memory";
		a->id = id;
		a->listener = listener;
		LIST_INSERT_HEAD(&h->buckets[id % BUCKETS], a, by_id);
	}
	a->logged_in = user[0] != '\0';
	for (int i = first; i < KINDS; i++)
		if (counters[i] != NULL) {
			a->counters[i] = counters[i];
			take(l, counters[i]);
		}
	return NULL;
}
