#include "config.h"

#include "gatewayd/worker/fold.h"

#include <event2/event.h>
#include <event2/event_struct.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/clock.h"
#include "common/log.h"
#include "schema/audit_event.h"
#include "schema/audit_json.h"

/* Different events that are known at a time; for one more, the one that came least recently makes room. */
#define ENTRIES_MAX 1024
#define BUCKETS 1024
#define WINDOW_US 1000000
/* All texts of an event but the detail, each with its length, and the numbers. */
#define SAME_MAX 2048

struct entry {
	LIST_ENTRY(entry) bucket;
	TAILQ_ENTRY(entry) age; /* least recent first */
	int64_t window_us;	/* monotonic: when its second began */
	unsigned passed;	/* in it */
	uint64_t folded;
	int64_t first_us, last_us; /* wall clock, of what was folded */
	size_t len;
	uint8_t same[]; /* the event without what may differ */
};

struct fold {
	unsigned after;
	void (*record)(const struct audit_event *e, void *arg);
	void *arg;
	LIST_HEAD(, entry) buckets[BUCKETS];
	TAILQ_HEAD(, entry) ages;
	unsigned nentries;
	uint8_t key[crypto_shorthash_KEYBYTES];
	struct event timer;
	struct audit_event event; /* being made; too big for a stack frame */
};

/* What makes two events the same. */
static size_t sameness(const struct audit_event *e, uint8_t out[SAME_MAX])
{
	static struct audit_event same;
	struct wire_writer w = wire_writer_on(out, SAME_MAX);

	memcpy(&same, e, offsetof(struct audit_event, detail));
	same.session = 0;
	same.time_us = same.duration_us = 0;
	same.client.port = 0;
	same.bytes_up = same.bytes_down = 0;
	same.detail[0] = '\0';
	audit_put_event(&w, &same);
	return w.overflow ? 0 : w.len;
}

static unsigned bucket_of(const struct fold *f, const uint8_t *same, size_t len)
{
	uint64_t hash;

	crypto_shorthash((uint8_t *)&hash, same, len, f->key);
	return (unsigned)(hash % BUCKETS);
}

/* One row for all that was folded. */
static void emit(struct fold *f, struct entry *entry)
{
	struct wire_reader r = wire_reader_on(entry->same, entry->len);
	char first[AUDIT_TIME_TEXT_MAX], last[AUDIT_TIME_TEXT_MAX];

	if (entry->folded == 0)
		return;
	if (!audit_get_event(&r, &f->event))
		abort(); /* it was made here */
	f->event.time_us = entry->last_us;
	snprintf(f->event.detail, sizeof f->event.detail, "{\"folded\":%llu,\"first\":\"%s\",\"last\":\"%s\"}",
		 (unsigned long long)entry->folded, audit_time_text(entry->first_us, first),
		 audit_time_text(entry->last_us, last));
	entry->folded = 0;
	f->record(&f->event, f->arg);
}

static void forget(struct fold *f, struct entry *entry)
{
	emit(f, entry);
	LIST_REMOVE(entry, bucket);
	TAILQ_REMOVE(&f->ages, entry, age);
	f->nentries--;
	free(entry);
}

static struct entry *find(struct fold *f, const uint8_t *same, size_t len)
{
	unsigned bucket = bucket_of(f, same, len);
	struct entry *entry;

	LIST_FOREACH (entry, &f->buckets[bucket], bucket)
		if (entry->len == len && memcmp(entry->same, same, len) == 0)
			return entry;
	if (f->nentries == ENTRIES_MAX)
		forget(f, TAILQ_FIRST(&f->ages));
	entry = calloc(1, sizeof *entry + len);
	if (entry == NULL)
		return NULL;
	entry->len = len;
	entry->window_us = clock_mono_us();
	memcpy(entry->same, same, len);
	LIST_INSERT_HEAD(&f->buckets[bucket], entry, bucket);
	TAILQ_INSERT_TAIL(&f->ages, entry, age);
	f->nentries++;
	return entry;
}

/* Seconds that are over become rows; who did not come again is forgotten. */
static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct fold *f = arg;
	struct entry *entry, *following;
	int64_t now = clock_mono_us();

	(void)fd, (void)what;
	for (entry = TAILQ_FIRST(&f->ages); entry != NULL; entry = following) {
		following = TAILQ_NEXT(entry, age);
		if (now - entry->window_us >= WINDOW_US)
			forget(f, entry);
	}
	if (f->nentries == 0)
		event_del(&f->timer);
}

struct fold *fold_new(struct event_base *base, unsigned after, void (*record)(const struct audit_event *e, void *arg),
		      void *arg)
{
	struct fold *f = calloc(1, sizeof *f);

	if (f == NULL)
		log_fatal("out of memory for the floods of denials");
	f->after = after;
	f->record = record;
	f->arg = arg;
	TAILQ_INIT(&f->ages);
	crypto_shorthash_keygen(f->key);
	event_assign(&f->timer, base, -1, EV_PERSIST, on_timer, f);
	return f;
}

void fold_free(struct fold **fold)
{
	struct fold *f = *fold;

	*fold = NULL;
	if (f == NULL)
		return;
	fold_flush(f);
	event_del(&f->timer);
	free(f);
}

bool fold_take(struct fold *f, const struct audit_event *e)
{
	static const struct timeval second = {.tv_sec = 1};
	uint8_t same[SAME_MAX];
	size_t len =
		f->after == 0 || (e->kind != AUDIT_DENIED && e->kind != AUDIT_LOGIN_FAILED) ? 0 : sameness(e, same);
	struct entry *entry = len == 0 ? NULL : find(f, same, len);
	int64_t now = clock_mono_us();

	if (entry == NULL)
		return false;
	TAILQ_REMOVE(&f->ages, entry, age);
	TAILQ_INSERT_TAIL(&f->ages, entry, age);
	if (now - entry->window_us >= WINDOW_US) {
		emit(f, entry);
		entry->window_us = now;
		entry->passed = 0;
	}
	if (!event_pending(&f->timer, EV_TIMEOUT, NULL))
		event_add(&f->timer, &second);
	if (entry->passed < f->after) {
		entry->passed++;
		return false;
	}
	entry->last_us = e->time_us;
	if (entry->folded++ == 0)
		entry->first_us = e->time_us;
	return true;
}

void fold_flush(struct fold *f)
{
	struct entry *entry;

	while ((entry = TAILQ_FIRST(&f->ages)) != NULL)
		forget(f, entry);
}
