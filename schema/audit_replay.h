/* What the last rows of a segment do to what is open, read again: the table of open sessions is written now and then
 * only, and says itself up to which row it is true (audit_open.h).  Who goes on with it, and who verifies it, adds the
 * rest. */
#pragma once

#include "schema/audit_event.h"
#include "schema/db.h"

/* Never are more rows behind than this. */
#define AUDIT_REPLAY_ROWS_MAX 8192

/* A row that its sender's process has recorded: 0 or -1. */
typedef int audit_replay_row(uint64_t incarnation, int64_t id, const struct audit_event *e, void *arg, struct err *why);

/* Calls row for each behind row `behind` that begins, moves or ends a session or flow, in order; of e only what
 * audit_open_tells() reads is set.  Rows that the chain does not know count for nothing, nor do those of the recorder
 * itself, which changes the table when it writes them; and of more rows than there can be, the last do.  0 or -1. */
int audit_replay(struct db *db, int64_t behind, audit_replay_row *row, void *arg, struct err *why);
