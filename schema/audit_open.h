/* Which sessions, and flows of UDP in them, have begun and have no closing row yet: the table open_session of the
 * segment that is written.  When the process that carried one is gone, its closing row is made of the last row that
 * tells of it.
 *
 * Most sessions are over soon, and never come to the table: what rows change waits in memory, over many commits, until
 * it is written, with the row up to which the table is true then, in the transaction of a commit.  What is behind that
 * row is read again (audit_replay.h) by who opens the segment, so that nothing is lost with the memory. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "schema/audit_event.h"
#include "schema/db.h"

/* Statements, and what waits; embedded in whoever writes. */
struct audit_open {
	struct db *db;
	struct db_stmt *add, *move, *end, *after, *row, *count, *each, *mark, *marked;
	struct audit_open_memory *memory;
	unsigned long statements; /* that changed the table, or tried to */
};

/* Up to which row the table is true stands in a row of it that no session can have: with a table of its own, a change
 * of the schema, segments of before could not be read any more.  Where it is missing, the table is true to its end. */
#define AUDIT_OPEN_MARK_SESSION 0
#define AUDIT_OPEN_MARK_FLOW 0
#define AUDIT_OPEN_MARK_INCARNATION 0

/* 0 or -1 with *why; the statements end with the database, what waits in memory with audit_open_release(). */
int audit_open_prepare(struct audit_open *o, struct db *db, struct err *why);
void audit_open_release(struct audit_open *o);
/* What an event does to what is open, and of which flow (0: the session itself) it tells. */
enum audit_effect { AUDIT_EFFECT_NONE, AUDIT_EFFECT_BEGINS, AUDIT_EFFECT_MOVES, AUDIT_EFFECT_ENDS };
enum audit_effect audit_open_effect(const struct audit_event *e);
int64_t audit_open_flow(const struct audit_event *e);
/* Reads of a row of "event" what these two look at; false if it has no effect. */
bool audit_open_tells(struct db_stmt *row, struct audit_event *e);

/* ---- what waits ----------------------------------------------------------------------------------------------------
 * All in a transaction; when that is rolled back, audit_open_drop(). */

/* Sessions and flows, each once; more are written at once. */
#define AUDIT_OPEN_CHANGES_MAX 4096

/* Makes the memory that of the table and the rows behind it, unless it is. */
int audit_open_load(struct audit_open *o, struct err *why);
/* What was noted, and maybe what was written, never was. */
void audit_open_drop(struct audit_open *o);
/* The event of that process has become row `id`. */
int audit_open_note(struct audit_open *o, uint64_t incarnation, int64_t id, const struct audit_event *e,
		    struct err *why);
/* A commit that ends with row `id` has to write: enough has come, or a second has passed. */
bool audit_open_is_due(const struct audit_open *o, int64_t id);
/* Makes the table true up to row `id`, the last.  To be called before anybody looks. */
int audit_open_flush(struct audit_open *o, int64_t id, struct err *why);
/* Nothing waits, and what is known is that of the table. */
bool audit_open_is_true(const struct audit_open *o);
/* How many changes wait. */
unsigned audit_open_waiting(const struct audit_open *o);

/* ---- looking ----------------------------------------------------------------------------------------------------- */

/* How many are open. */
int audit_open_count(struct audit_open *o, int64_t *count, struct err *why);

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
