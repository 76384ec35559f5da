#include "config.h"

#include "schema/audit_row.h"

#include <string.h>

static void bind_number(struct db_stmt *s, int column, uint64_t value)
{
	if (value == 0)
		db_bind_null(s, column + 1);
	else
		db_bind_i64(s, column + 1, (int64_t)value);
}

static void bind_text(struct db_stmt *s, int column, const char *text)
{
	if (*text == '\0')
		db_bind_null(s, column + 1);
	else
		db_bind_text(s, column + 1, text);
}

static void bind_endpoint(struct db_stmt *s, int column, const struct endpoint *ep)
{
	if (ep->addr.family == ADDR_NONE)
		db_bind_null(s, column + 1);
	else
		db_bind_blob(s, column + 1, ep->addr.bytes, addr_len(&ep->addr));
	bind_number(s, column + 1, ep->port);
}

void audit_row_bind(struct db_stmt *s, int64_t id, const struct audit_event *e)
{
	db_bind_i64(s, COL_ID + 1, id);
	db_bind_i64(s, COL_TIME + 1, e->time_us);
	db_bind_i64(s, COL_KIND + 1, e->kind);
	bind_number(s, COL_SESSION, e->session);
	bind_number(s, COL_REVISION, e->revision);
	bind_endpoint(s, COL_CLIENT, &e->client);
	bind_endpoint(s, COL_ADDRESS, &e->address);
	bind_number(s, COL_UP, e->bytes_up);
	bind_number(s, COL_DOWN, e->bytes_down);
	bind_number(s, COL_DURATION, (uint64_t)e->duration_us);
	bind_text(s, COL_LISTENER, e->listener);
	bind_text(s, COL_USER, e->user);
	bind_text(s, COL_METHOD, e->method);
	bind_text(s, COL_COMMAND, e->command);
	bind_text(s, COL_NAME, e->name);
	bind_text(s, COL_RULE, e->rule);
	bind_text(s, COL_REASON, e->reason);
	bind_text(s, COL_DETAIL, e->detail);
}

struct addr audit_row_address(struct db_stmt *s, enum audit_column column)
{
	struct addr a = {0};
	size_t len;
	const void *bytes = db_bytes(s, (int)column, &len);

	if (len != 4 && len != 16)
		return a;
	a.family = len == 4 ? ADDR_V4 : ADDR_V6;
	memcpy(a.bytes, bytes, len);
	return a;
}

bool audit_row_read(struct db_stmt *s, struct audit_event *e)
{
	int64_t kind = db_i64(s, COL_KIND);

	if (kind < 0 || kind >= AUDIT_KIND_COUNT)
		return false;
	e->kind = (enum audit_kind)kind;
	e->time_us = db_i64(s, COL_TIME);
	e->session = (uint64_t)db_i64(s, COL_SESSION);
	e->revision = (uint32_t)db_i64(s, COL_REVISION);
	e->client = (struct endpoint){.addr = audit_row_address(s, COL_CLIENT), .port = (uint16_t)db_i64(s, COL_CLIENT_PORT)};
	e->address = (struct endpoint){.addr = audit_row_address(s, COL_ADDRESS), .port = (uint16_t)db_i64(s, COL_PORT)};
	e->bytes_up = (uint64_t)db_i64(s, COL_UP);
	e->bytes_down = (uint64_t)db_i64(s, COL_DOWN);
	e->duration_us = db_i64(s, COL_DURATION);
	db_text(s, COL_LISTENER, e->listener, sizeof e->listener);
	db_text(s, COL_USER, e->user, sizeof e->user);
	db_text(s, COL_METHOD, e->method, sizeof e->method);
	db_text(s, COL_COMMAND, e->command, sizeof e->command);
	db_text(s, COL_NAME, e->name, sizeof e->name);
	db_text(s, COL_RULE, e->rule, sizeof e->rule);
	db_text(s, COL_REASON, e->reason, sizeof e->reason);
	db_text(s, COL_DETAIL, e->detail, sizeof e->detail);
	return true;
}
