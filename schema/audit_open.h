/* Which sessions, and flows of UDP in them, have begun and have no closing row yet; kept in the transaction of the rows
 * that say so.  When the process that carried one is gone, its closing row is made of the last row that tells of it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "schema/audit_event.h"
#include "schema/db.h"

/* Statements; embedded in whoever writes. */
struct audit_open {
	struct db_stmt *add, *move, *end, *after, *row, *count;
};

/* 0 or -1 with *why; the statements end with the database. */
int audit_open_prepare(struct audit_open *o, struct db *db, struct err *why);
/* What an event does to what is open, and of which flow (0: the session itself) it tells. */
enum audit_effect { AUDIT_EFFECT_NONE, AUDIT_EFFECT_BEGINS, AUDIT_EFFECT_MOVES, AUDIT_EFFECT_ENDS };
enum audit_effect audit_open_effect(const struct audit_event *e);
int64_t audit_open_flow(const struct audit_event *e);

/* How many are open. */
int audit_open_count(struct audit_open *o, int64_t *count, struct err *why);

/* What the events of a batch do to what is open, each session and flow once: it is written when the batch ends, or when somebody
 * is about to look. */
#define AUDIT_OPEN_CHANGES_MAX 1024

struct audit_open_change {
	uint64_t session, incarnation;
	int64_t flow;
	/* The event that tells of it, where there was no row (0: there is none now either), and where there was one of this
	 * process (0: the same as before; AUDIT_OPEN_OVER: there is none now). */
	int64_t absent, present;
};

#define AUDIT_OPEN_OVER (-1)

struct audit_open_batch {
	unsigned count;
	struct audit_open_change changes[AUDIT_OPEN_CHANGES_MAX];
	uint16_t slots[2 * AUDIT_OPEN_CHANGES_MAX]; /* by hash: a change's number + 1 */
};

/* The event has become row `id`. */
int audit_open_note(struct audit_open *o, struct audit_open_batch *b, uint64_t incarnation, int64_t id,
		    const struct audit_event *e, struct err *why);
/* What was noted, and not written, never was. */
void audit_open_clear(struct audit_open_batch *b);
/* Writes what was noted; b is empty then.  0 or -1 with *why. */
int audit_open_write(struct audit_open *o, struct audit_open_batch *b, struct err *why);

/* What was open when it was looked at. */
struct audit_open_row {
	uint64_t session;
	int64_t flow;
	uint64_t incarnation;
	int64_t event;
};

/* Up to max rows behind (session, flow), as signed numbers, in order: how many, or -1. */
int audit_open_after(struct audit_open *o, int64_t session, int64_t flow, struct audit_open_row *rows, int max,
		     struct err *why);
/* The event that closes it, as of its last row. */
int audit_open_closing(struct audit_open *o, const struct audit_open_row *row, struct audit_event *e, struct err *why);
/* The event that tells of it in the next segment. */
int audit_open_carried(struct audit_open *o, const struct audit_open_row *row, struct audit_event *e, struct err *why);
/* The same row, of which event `id` tells now. */
int audit_open_put(struct audit_open *o, const struct audit_open_row *row, int64_t id, struct err *why);
int audit_open_forget(struct audit_open *o, const struct audit_open_row *row, struct err *why);
