/* The records that are on their way to the disk, and the group commit that takes them there.
 *
 * A record is kept until it is durable.  A commit begins `interval_us` after the first record of a batch came, or at
 * once when much is waiting.  When the store fails, nothing is lost and nothing is acknowledged: the same records are
 * tried again, with growing pauses, until the store takes them. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "schema/audit_store.h"

struct event_base;
struct batch;

/* Records that wait for longer than a moment are bounded: behind this, batch_full() says so and senders are not read.
 */
#define BATCH_QUEUE_BYTES_MAX (16u * 1024 * 1024)
/* Records of one commit. */
#define BATCH_COMMIT_MAX 4096

struct batch_status {
	bool failing;
	bool reserve;	    /* the disk is full, the reserve is being used */
	struct err why;	    /* of the last failure, while failing; why there is no room for the reserve */
	int64_t failing_us; /* wall clock when it began */
	uint64_t queued;    /* records */
	size_t queued_bytes;
	uint64_t commits, failures;
	uint64_t lost;				   /* sessions that were settled */
	int64_t last_commit_us, longest_commit_us; /* how long a commit took */
};

/* Called after each commit, and after each change between working and failing. */
typedef void batch_changed(void *arg);

/* The store stays the caller's and must outlive the batch. */
struct batch *batch_new(struct event_base *base, struct audit_store *store, unsigned interval_us,
			batch_changed *changed, void *arg);
/* Once a second, all the time: seals epochs.  reserve_bytes of the disk are kept for the moment when it is full (0:
 * none). */
void batch_start(struct batch *b, uint64_t reserve_bytes);
/* False while the disk is full, and what was kept in reserve is for ends and refusals. */
bool batch_may_grant(const struct batch *b);
/* Drops what is queued. */
void batch_free(struct batch **b);

/* Takes what audit_row_get_record() made of the body of a RECORD message: both are copied. */
void batch_add(struct batch *b, uint64_t incarnation, uint64_t sequence, const struct audit_row *row, const void *body,
	       size_t len);
/* Behind what has been taken so far: closes the sessions of processes that are gone.  lost is asked with arg, of each
 * process that has something open, when its turn has come; who is lost only since then has another call behind what it
 * sent. */
void batch_settle(struct batch *b, bool (*lost)(uint64_t incarnation, void *arg), void *arg);
/* True while senders must wait. */
bool batch_full(const struct batch *b);
/* Commits all that is queued, now: 0, or -1 with what is left still queued. */
int batch_commit_now(struct batch *b);
void batch_get_status(const struct batch *b, struct batch_status *out);
