/* The store of the audit: appending in batches by its one writer, and asking.  SQL stands here and nowhere above.
 *
 * Writing: begin, append ..., commit; what commit returned 0 for is on stable storage.  A record is known by its
 * sender's incarnation and its sequence: one that is durable (or in the same batch) already is dropped. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/addr.h"
#include "common/err.h"
#include "schema/audit_event.h"

struct audit_store;

enum audit_mode { AUDIT_WRITE, AUDIT_READ };

/* path is used as it stands; see schema/db_vfs.h.  AUDIT_WRITE creates it with mode 0600.  NULL with *why. */
struct audit_store *audit_store_open(const char *path, enum audit_mode mode, struct err *why);
void audit_store_close(struct audit_store **store);

/* 0 or -1; after -1 anywhere in a batch, audit_store_rollback() and try the whole batch again later. */
int audit_store_begin(struct audit_store *s, struct err *why);
/* 1 appended, 0 known already, AUDIT_APPEND_LATER: this batch has room for no other sender, it is to be committed and
 * the record appended in the next one, -1 failed. */
#define AUDIT_APPEND_LATER 2
int audit_store_append(struct audit_store *s, uint64_t incarnation, uint64_t sequence, const struct audit_event *e,
		       struct err *why);
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
/* Keeps the write-ahead log short; to be called now and then outside a batch.  0 or -1. */
int audit_store_checkpoint(struct audit_store *s, struct err *why);

/* The highest durable sequence of an incarnation; 0: none, or forgotten (it keeps AUDIT_SENDERS_MAX, the latest). */
#define AUDIT_SENDERS_MAX 1024
int audit_store_last(struct audit_store *s, uint64_t incarnation, uint64_t *sequence, struct err *why);

struct audit_counts {
	uint64_t rows;
	int64_t oldest_us, newest_us; /* 0 when empty */
};
/* Costs the same however many rows there are. */
int audit_store_counts(struct audit_store *s, struct audit_counts *out, struct err *why);

/* ---- asking ---------------------------------------------------------------------------------------------------- */

enum audit_to {
	AUDIT_TO_ANY,
	AUDIT_TO_NAME,	 /* exactly it */
	AUDIT_TO_SUFFIX, /* ".x": x and all below */
	AUDIT_TO_BELOW,	 /* "*.x": below x only */
	AUDIT_TO_PREFIX, /* the destination address is in it */
};

/* All that is set must hold.  Zeroed: every event, newest first. */
struct audit_filter {
	int64_t since_us, until_us;    /* since <= time < until; 0: open */
	uint64_t session;	       /* 0: any */
	uint32_t kinds;		       /* bits 1 << enum audit_kind; 0: any */
	char user[AUDIT_TEXT_MAX + 1]; /* "": any */
	struct prefix client;	       /* ADDR_NONE: any */
	enum audit_to to;
	char to_name[AUDIT_TEXT_MAX + 1]; /* without the leading "." or "*." */
	struct prefix to_prefix;
	uint64_t limit; /* rows; 0: all */
	bool oldest_first;
};

#define AUDIT_KINDS_ALLOW (1u << AUDIT_OPEN | 1u << AUDIT_FLOW)
#define AUDIT_KINDS_DENY (1u << AUDIT_DENIED | 1u << AUDIT_LOGIN_FAILED)

/* Reads "name", ".suffix", "*.below", an address or a prefix into the filter; -1 with *why. */
int audit_filter_to(struct audit_filter *f, const char *text, struct err *why);
/* "allow" or "deny"; -1 with *why. */
int audit_filter_verdict(struct audit_filter *f, const char *text, struct err *why);

/* e is borrowed.  False ends the page after this row.  It runs inside the read transaction: it must not wait. */
typedef bool audit_row(uint64_t id, const struct audit_event *e, void *arg);

struct audit_query;

/* Rows recorded after this call are not part of the answer.  The store must outlive the query. */
struct audit_query *audit_query_new(struct audit_store *s, const struct audit_filter *f, struct err *why);
void audit_query_free(struct audit_query **q);
/* One read transaction of at most max_rows rows and max_us microseconds: 1 there may be more, 0 that was all, -1
 * failed. */
int audit_query_page(struct audit_query *q, uint64_t max_rows, int64_t max_us, audit_row *row, void *arg,
		     struct err *why);
/* Rows given so far. */
uint64_t audit_query_rows(const struct audit_query *q);
/* True if the filter's limit ended the query: there may be more. */
bool audit_query_cut(const struct audit_query *q);
