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

/* Binds all parameters; e is borrowed until db_reset(). */
void audit_row_bind(struct db_stmt *insert, int64_t id, const struct audit_event *e);
/* What a digest is made of: every column, with its type and length; the same bytes for an event as for the row it
 * became. Returns how many; 0 if the row holds more than an event can. */
#define AUDIT_ROW_BYTES_MAX 24576
size_t audit_row_bytes(int64_t id, const struct audit_event *e, uint8_t out[AUDIT_ROW_BYTES_MAX]);
size_t audit_row_bytes_of(struct db_stmt *s, uint8_t out[AUDIT_ROW_BYTES_MAX]);
/* Absent, and of any other length than an address has: no address. */
struct addr audit_row_address(struct db_stmt *s, enum audit_column column);
/* False if its kind is none that we write. */
bool audit_row_read(struct db_stmt *s, struct audit_event *e);
