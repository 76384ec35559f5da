/* A row of the table "event" and the event that it is: the one place that knows the columns. */
#pragma once

#include "schema/audit_event.h"
#include "schema/db.h"

#define AUDIT_COLUMNS                                                                                                  \
	"id, time, kind, session, revision, client, client_port, address, port, bytes_up, bytes_down, duration, "      \
	"listener, user, method, command, name, rule, reason, detail"

enum audit_column {
	COL_ID,
	COL_TIME,
	COL_KIND,
	COL_SESSION,
	COL_REVISION,
	COL_CLIENT,
	COL_CLIENT_PORT,
	COL_ADDRESS,
	COL_PORT,
	COL_UP,
	COL_DOWN,
	COL_DURATION,
	COL_LISTENER,
	COL_USER,
	COL_METHOD,
	COL_COMMAND,
	COL_NAME,
	COL_RULE,
	COL_REASON,
	COL_DETAIL,
	COL_COUNT
};

/* Parameters ?1 to ?20, in the order of the columns. */
#define AUDIT_INSERT                                                                                                   \
	"INSERT INTO event (" AUDIT_COLUMNS ") VALUES "                                                                \
	"(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20)"
/* The rows that are given to a writer's handle (db_give()). */
#define AUDIT_GIVEN "given_event"
/* OR FAIL: whoever writes takes back the whole batch after a failure, so that no statement keeps what it would take back
 * alone. */
#define AUDIT_INSERT_GIVEN "INSERT OR FAIL INTO event (" AUDIT_COLUMNS ") SELECT " AUDIT_COLUMNS " FROM " AUDIT_GIVEN

/* A row to be: by column, texts and addresses being borrowed.  COL_ID is its writer's. */
struct audit_row {
	struct db_value values[COL_COUNT];
};

void audit_row_of(const struct audit_event *e, struct audit_row *row);
/* As audit_get_record(), without a copy: the row borrows from the body. */
bool audit_row_get_record(struct wire_reader *r, uint64_t *incarnation, uint64_t *sequence, struct audit_row *row);
/* To where the bytes that it borrows from have been copied. */
void audit_row_copy(const struct audit_row *row, const void *bytes, struct audit_row *to, const void *to_bytes);
/* What tells of an open session (audit_open.h): the kind and the session, and of a flow its destination. */
void audit_row_tells(const struct audit_row *row, struct audit_event *e);

/* What a digest is made of: every column, with its type and length; the same bytes for a row to be as for the row it
 * became. Returns how many; 0 if the row holds more than an event can. */
#define AUDIT_ROW_BYTES_MAX 24576
size_t audit_row_bytes(const struct audit_row *row, uint8_t out[AUDIT_ROW_BYTES_MAX]);
size_t audit_row_bytes_of(struct db_stmt *s, uint8_t out[AUDIT_ROW_BYTES_MAX]);
/* Absent, and of any other length than an address has: no address. */
struct addr audit_row_address(struct db_stmt *s, enum audit_column column);
/* False if its kind is none that we write. */
bool audit_row_read(struct db_stmt *s, struct audit_event *e);
