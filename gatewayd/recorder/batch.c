#include "config.h"

#include "gatewayd/recorder/batch.h"

#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/clock.h"
#include "common/log.h"
#include "schema/audit_reserve.h"

#define RETRY_FIRST_US 50000
#define RETRY_LONGEST_US 5000000
/* Between attempts to have the reserve again. */
#define RESERVE_RETRY_S 3

struct record {
	STAILQ_ENTRY(record) next;
	struct audit_settling settling; /* with a judge: no record, but sessions to be closed */
	uint64_t incarnation, sequence;
	struct audit_row row; /* borrows from the body */
	size_t len;
	uint8_t body[];
};

struct batch {
	struct audit_store *store;
	unsigned interval_us;
	int64_t retry_us; /* the next pause, while failing */
	bool checkpoint_failing;
	uint64_t reserve_bytes;
	unsigned reserve_wait_s;
	struct event timer, tick, fold;
	STAILQ_HEAD(, record) queue;
	struct batch_status status;
	batch_changed *changed;
	void *arg;
};

static void arm(struct batch *b, int64_t after_us)
{
	struct timeval tv = {.tv_sec = (time_t)(after_us / 1000000), .tv_usec = (suseconds_t)(after_us % 1000000)};

	if (!event_pending(&b->timer, EV_TIMEOUT, NULL))
		event_add(&b->timer, &tv);
}

/* ---- state ------------------------------------------------------------------------------------------------------ */

static void note_failure(struct batch *b, const struct err *why)
{
	b->status.failures++;
	b->status.why = *why;
	if (b->status.failing)
		return;
	b->status.failing = true;
	b->status.failing_us = clock_wall_us();
	b->retry_us = RETRY_FIRST_US;
	log_error("the audit cannot be written: %s; nothing new is granted until it can, and it is tried again until "
		  "then",
		  why->text);
}

static void note_success(struct batch *b)
{
	if (!b->status.failing)
		return;
	log_warning("the audit is written again after %.1f s; %llu records had to wait",
		    (double)(clock_wall_us() - b->status.failing_us) / 1e6, (unsigned long long)b->status.queued);
	b->status.failing = false;
	if (!b->status.reserve)
		b->status.why.text[0] = '\0';
}

/* ---- committing -------------------------------------------------------------------------------------------------- */

/* As audit_store_append(), with AUDIT_APPEND_LATER while there are more to be closed than a commit should hold. */
static int settle(struct batch *b, struct audit_settling *at, unsigned *lost, struct err *why)
{
	unsigned rows;
	int rc = audit_store_settle(b->store, at, BATCH_COMMIT_MAX, &rows, why);

	*lost += rows;
	return rc == 1 ? AUDIT_APPEND_LATER : rc;
}

/* One transaction over the first records of the queue; *done is how many of them.  Sessions that are closed stay in the
 * queue until all are; how far that has come counts once it is durable. */
static int commit_some(struct batch *b, unsigned *done, struct err *why)
{
	struct audit_settling settling;
	struct record *r, *unfinished = NULL;
	unsigned lost = 0;

	*done = 0;
	if (audit_store_begin(b->store, why) != 0)
		return -1;
	STAILQ_FOREACH (r, &b->queue, next) {
		if (*done == BATCH_COMMIT_MAX)
			break;
		settling = r->settling;
		int rc = settling.lost == NULL
				 ? audit_store_append_row(b->store, r->incarnation, r->sequence, &r->row, why)
				 : settle(b, &settling, &lost, why);

		if (rc == AUDIT_APPEND_LATER) {
			unfinished = settling.lost == NULL ? NULL : r;
			break;
		}
		if (rc < 0) {
			audit_store_rollback(b->store);
			return -1;
		}
		++*done;
	}
	if (audit_store_commit(b->store, why) != 0) {
		audit_store_rollback(b->store);
		return -1;
	}
	if (unfinished != NULL)
		unfinished->settling = settling;
	b->status.lost += lost;
	return 0;
}

/* It is in the queue no more. */
static void drop(struct batch *b, struct record *r)
{
	b->status.queued -= r->settling.lost == NULL;
	b->status.queued_bytes -= sizeof *r + r->len;
	free(r);
}

static void forget(struct batch *b, unsigned count)
{
	for (; count > 0; count--) {
		struct record *r = STAILQ_FIRST(&b->queue);

		STAILQ_REMOVE_HEAD(&b->queue, next);
		drop(b, r);
	}
}

/* Not part of a commit: when it fails, records are still taken, into a log that grows. */
static void checkpoint(struct batch *b)
{
	struct err why;
	bool failed = audit_store_checkpoint(b->store, &why) != 0;

	if (failed && !b->checkpoint_failing)
		log_warning("the audit's write-ahead log cannot be folded into its file and grows: %s", why.text);
	b->checkpoint_failing = failed;
}

static void on_fold(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	checkpoint(arg);
}

/* ---- the reserve ------------------------------------------------------------------------------------------------- */

static void use_reserve(struct batch *b, const struct err *why)
{
	audit_reserve_release();
	b->status.reserve = true;
	b->status.why = *why;
	b->reserve_wait_s = RESERVE_RETRY_S;
	log_error("%s; nothing new is granted until there is room for %llu MiB again, ends and refusals are still "
		  "recorded",
		  why->text, (unsigned long long)(b->reserve_bytes >> 20));
	b->changed(b->arg);
}

static void refill_reserve(struct batch *b)
{
	struct err why;

	if (!b->status.reserve || b->status.failing || --b->reserve_wait_s > 0)
		return;
	b->reserve_wait_s = RESERVE_RETRY_S;
	if (audit_reserve_fill(b->reserve_bytes, &why) != 0)
		return;
	b->status.reserve = false;
	b->status.why.text[0] = '\0';
	log_warning("the audit has its reserve again: sessions are granted");
	b->changed(b->arg);
}

bool batch_may_grant(const struct batch *b)
{
	return !b->status.reserve;
}

/* 0, or -1 when the store failed. */
static int commit_once(struct batch *b)
{
	struct err why;
	int64_t start = clock_mono_us();
	unsigned done;

	int rc = commit_some(b, &done, &why);

	if (rc != 0 && b->reserve_bytes > 0 && !b->status.reserve && audit_store_is_full(b->store)) {
		use_reserve(b, &why);
		rc = commit_some(b, &done, &why);
	}
	if (rc != 0) {
		note_failure(b, &why);
		b->changed(b->arg);
		return -1;
	}
	b->status.last_commit_us = clock_mono_us() - start;
	if (b->status.last_commit_us > b->status.longest_commit_us)
		b->status.longest_commit_us = b->status.last_commit_us;
	b->status.commits++;
	note_success(b);
	forget(b, done);
	b->changed(b->arg);
	return 0;
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct batch *b = arg;

	(void)fd, (void)what;
	if (STAILQ_EMPTY(&b->queue))
		return;
	if (commit_once(b) != 0) {
		arm(b, b->retry_us);
		b->retry_us = b->retry_us * 2 < RETRY_LONGEST_US ? b->retry_us * 2 : RETRY_LONGEST_US;
		return;
	}
	/* Acknowledgements leave at the end of this turn; more records have the next one.  Folding the log takes longer than a commit, and
	 * comes behind the acknowledgements, which are active by now. */
	if (!STAILQ_EMPTY(&b->queue))
		arm(b, 0);
	event_active(&b->fold, EV_TIMEOUT, 1);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct batch *b = arg;
	struct err why;

	(void)fd, (void)what;
	if (audit_store_tick(b->store, &why) != 0) {
		note_failure(b, &why);
		b->changed(b->arg);
	} else if (b->status.failing && STAILQ_EMPTY(&b->queue)) {
		note_success(b);
		b->changed(b->arg);
	}
	refill_reserve(b);
}

void batch_start(struct batch *b, uint64_t reserve_bytes)
{
	struct timeval second = {.tv_sec = 1};
	struct err why;

	b->reserve_bytes = reserve_bytes;
	if (reserve_bytes > 0 && audit_reserve_fill(reserve_bytes, &why) != 0)
		use_reserve(b, &why);
	event_add(&b->tick, &second);
}

int batch_commit_now(struct batch *b)
{
	while (!STAILQ_EMPTY(&b->queue))
		if (commit_once(b) != 0)
			return -1;
	return 0;
}

/* ---- the queue ----------------------------------------------------------------------------------------------------
 */

struct batch *batch_new(struct event_base *base, struct audit_store *store, unsigned interval_us,
			batch_changed *changed, void *arg)
{
	struct batch *b = calloc(1, sizeof *b);

	if (b == NULL)
		log_fatal("out of memory for the audit's queue");
	b->store = store;
	b->interval_us = interval_us;
	b->changed = changed;
	b->arg = arg;
	STAILQ_INIT(&b->queue);
	event_assign(&b->timer, base, -1, 0, on_timer, b);
	event_assign(&b->tick, base, -1, EV_PERSIST, on_tick, b);
	event_assign(&b->fold, base, -1, 0, on_fold, b);
	return b;
}

void batch_free(struct batch **bp)
{
	struct batch *b = *bp;

	*bp = NULL;
	if (b == NULL)
		return;
	event_del(&b->timer);
	event_del(&b->tick);
	event_del(&b->fold);
	while (!STAILQ_EMPTY(&b->queue))
		forget(b, 1);
	free(b);
}

static struct record *record_new(size_t len)
{
	struct record *r = malloc(sizeof *r + len);

	if (r == NULL)
		log_fatal("out of memory for an audit record: its sender keeps it for my successor");
	r->settling = (struct audit_settling){0};
	r->len = len;
	return r;
}

static void enqueue(struct batch *b, struct record *r)
{
	STAILQ_INSERT_TAIL(&b->queue, r, next);
	b->status.queued += r->settling.lost == NULL;
	b->status.queued_bytes += sizeof *r + r->len;
	if (b->status.failing)
		arm(b, b->retry_us); /* does nothing while a retry is pending */
	else if (b->status.queued == BATCH_COMMIT_MAX)
		event_active(&b->timer, EV_TIMEOUT, 1);
	else
		arm(b, b->interval_us);
}

void batch_add(struct batch *b, uint64_t incarnation, uint64_t sequence, const struct audit_row *row, const void *body,
	       size_t len)
{
	struct record *r = record_new(len);

	r->incarnation = incarnation;
	r->sequence = sequence;
	memcpy(r->body, body, len);
	audit_row_copy(row, body, &r->row, r->body);
	enqueue(b, r);
}

/* One is enough, and it belongs last: judged any earlier, a process that has just ended would be lost before the last
 * of its records, which may end its sessions itself. */
static void drop_settling(struct batch *b)
{
	struct record *r;

	STAILQ_FOREACH (r, &b->queue, next)
		if (r->settling.lost != NULL) {
			STAILQ_REMOVE(&b->queue, r, record, next);
			drop(b, r);
			return;
		}
}

void batch_settle(struct batch *b, bool (*lost)(uint64_t incarnation, void *arg), void *arg)
{
	struct record *r = record_new(0);

	drop_settling(b);
	r->settling = (struct audit_settling){.lost = lost, .arg = arg};
	enqueue(b, r);
}

bool batch_full(const struct batch *b)
{
	return b->status.queued_bytes >= BATCH_QUEUE_BYTES_MAX;
}

void batch_get_status(const struct batch *b, struct batch_status *out)
{
	*out = b->status;
}
