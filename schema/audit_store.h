/* The audit's one writer: appending in batches, each a link of the chain.  SQL stands here and nowhere above.
 *
 * Begin, append ..., commit; what commit returned 0 for is on stable storage.  A record is known by its sender's
 * incarnation and its sequence: one that is durable (or in the same batch) already is dropped.
 *
 * The audit is the current directory: segments (audit_segment.h), and the files of the chain (audit_chain.h). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"
#include "schema/audit_chain.h"
#include "schema/audit_event.h"
#include "schema/audit_row.h"

struct audit_store;

/* Files are made with mode 0600.  A segment ends with its day (UTC), or when it has this many bytes.  NULL with *why.
 */
struct audit_store *audit_store_open(uint64_t segment_bytes, struct err *why);
/* From the next segment on, and in this one: a commit does not wait for the disk (the operator's explicit choice). */
int audit_store_relax(struct audit_store *s, struct err *why);
void audit_store_close(struct audit_store **store);

/* 0 or -1: nothing has begun.  After -1 of anything in a batch, audit_store_rollback() and try the whole batch again
 * later. */
int audit_store_begin(struct audit_store *s, struct err *why);
/* 1 appended, 0 known already, AUDIT_APPEND_LATER: this batch has room for no other sender, it is to be committed and
 * the record appended in the next one, -1 failed. */
#define AUDIT_APPEND_LATER 2
int audit_store_append(struct audit_store *s, uint64_t incarnation, uint64_t sequence, const struct audit_event *e,
		       struct err *why);
/* The same of a row to be (audit_row.h).  It and what it borrows must be there until the batch has ended. */
int audit_store_append_row(struct audit_store *s, uint64_t incarnation, uint64_t sequence, struct audit_row *row,
			   struct err *why);
/* Appends an event of the recorder's own. */
int audit_store_note(struct audit_store *s, const struct audit_event *e, struct err *why);
/* Which sessions are lost: the judge, and how far it has come; zeroed otherwise to begin. */
struct audit_settling {
	bool (*lost)(uint64_t incarnation, void *arg); /* that process is gone */
	void *arg;
	bool begun;
	int64_t session, flow;
};
/* Writes the closing rows of sessions and flows that are lost, at most max of them, with the bytes of their last row.
 * 1 there may be more, to be asked for in the next batch; 0 all, -1 failed (the batch is rolled back, and *at with it
 * by the caller). */
int audit_store_settle(struct audit_store *s, struct audit_settling *at, unsigned max, unsigned *rows, struct err *why);
int audit_store_commit(struct audit_store *s, struct err *why);
void audit_store_rollback(struct audit_store *s);
/* The last failure was for want of room on the disk. */
bool audit_store_is_full(const struct audit_store *s);

/* Outside a batch, about once a second: seals the epoch and begins the next when it is time, and sees to segments that
 * are written no more.  0 or -1, to be tried again. */
int audit_store_tick(struct audit_store *s, struct err *why);
/* Outside a batch: goes on with segments that are written no more, at once. */
void audit_store_finish_now(struct audit_store *s);
/* Segments that are written no more are still being made into plain files with their indexes. */
bool audit_store_finishing(const struct audit_store *s);
/* Keeps the write-ahead log short; to be called now and then outside a batch.  0 or -1. */
int audit_store_checkpoint(struct audit_store *s, struct err *why);

/* Whether these are the holds (audit_holds.h) that this recorder, or one before it, has said to stand.  Saying it is
 * durable, as far as the disk obeys. */
bool audit_store_holds_are(const struct audit_store *s, const uint8_t digest[AUDIT_DIGEST_BYTES]);
void audit_store_set_holds(struct audit_store *s, const uint8_t digest[AUDIT_DIGEST_BYTES]);
/* Outside a batch: makes a declaration of audit_prune.h durable.  0 or -1. */
int audit_store_declare(struct audit_store *s, const uint8_t *body, size_t len, struct err *why);
/* Segments may have been removed: counts anew. */
void audit_store_recount(struct audit_store *s);
/* A child with nothing but its own copy of our memory: no descriptor but keep_fd (-1: none), no key, the lowest priority,
 * and it ends with us.  As fork(2). */
pid_t audit_store_fork(struct audit_store *s, int keep_fd);

/* The highest durable sequence of an incarnation; 0: none, or forgotten (it keeps AUDIT_SENDERS_MAX, the latest, and
 * all who have a session open). */
#define AUDIT_SENDERS_MAX 1024
int audit_store_last(struct audit_store *s, uint64_t incarnation, uint64_t *sequence, struct err *why);

struct audit_store_status {
	uint64_t rows;
	uint32_t segments, segment; /* how many, and the number of the last */
	uint32_t unfinished;	    /* from this one on they may still be made into plain files; 0: none is */
	struct audit_head head;	    /* of the chain, durable */
	bool first_key_waits;	    /* for the auditor to take it away */
};
void audit_store_status(const struct audit_store *s, struct audit_store_status *out);
