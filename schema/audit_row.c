#include "config.h"

#include "schema/audit_row.h"

#include <endian.h>
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
	e->client = (struct endpoint){.addr = audit_row_address(s, COL_CLIENT),
				      .port = (uint16_t)db_i64(s, COL_CLIENT_PORT)};
	e->address =
		(struct endpoint){.addr = audit_row_address(s, COL_ADDRESS), .port = (uint16_t)db_i64(s, COL_PORT)};
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

/* ---- for digests ------------------------------------------------------------------------------------------------ */

struct out {
	uint8_t *at, *end;
};

static void put(struct out *o, enum db_type type, const void *data, size_t len)
{
	uint32_t size = (uint32_t)len;

	if (o->at == NULL || (size_t)(o->end - o->at) < len + 5) {
		o->at = NULL;
		return;
	}
	*o->at++ = (uint8_t)type;
	size = htole32(size);
	memcpy(o->at, &size, sizeof size);
	o->at += sizeof size;
	memcpy(o->at, data, len);
	o->at += len;
}

static void put_null(struct out *o)
{
	if (o->at != NULL && o->at < o->end)
		*o->at++ = DB_NULL;
	else
		o->at = NULL;
}

static void put_number(struct out *o, int64_t number)
{
	uint64_t value = (uint64_t)number;

	if (o->at == NULL || o->end - o->at < 9) {
		o->at = NULL;
		return;
	}
	*o->at++ = DB_INTEGER;
	value = htole64(value);
	memcpy(o->at, &value, sizeof value);
	o->at += sizeof value;
}

static void put_number_or_null(struct out *o, uint64_t value)
{
	if (value == 0)
		put_null(o);
	else
		put_number(o, (int64_t)value);
}

static void put_text_or_null(struct out *o, const char *text)
{
	if (*text == '\0')
		put_null(o);
	else
		put(o, DB_TEXT, text, strlen(text));
}

static void put_endpoint(struct out *o, const struct endpoint *ep)
{
	if (ep->addr.family == ADDR_NONE)
		put_null(o);
	else
		put(o, DB_BLOB, ep->addr.bytes, addr_len(&ep->addr));
	put_number_or_null(o, ep->port);
}

size_t audit_row_bytes(int64_t id, const struct audit_event *e, uint8_t out[AUDIT_ROW_BYTES_MAX])
{
	const char *const texts[] = {e->listener, e->user, e->method, e->command,
				     e->name,	  e->rule, e->reason, e->detail};
	struct out o = {out, out + AUDIT_ROW_BYTES_MAX};

	put_number(&o, id);
	put_number(&o, e->time_us);
	put_number(&o, (int64_t)e->kind);
	put_number_or_null(&o, e->session);
	put_number_or_null(&o, e->revision);
	put_endpoint(&o, &e->client);
	put_endpoint(&o, &e->address);
	put_number_or_null(&o, e->bytes_up);
	put_number_or_null(&o, e->bytes_down);
	put_number_or_null(&o, (uint64_t)e->duration_us);
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		put_text_or_null(&o, texts[i]);
	return o.at == NULL ? 0 : (size_t)(o.at - out);
}

size_t audit_row_bytes_of(struct db_stmt *s, uint8_t out[AUDIT_ROW_BYTES_MAX])
{
	struct out o = {out, out + AUDIT_ROW_BYTES_MAX};

	for (int i = 0; i < COL_COUNT; i++) {
		struct db_cell cell;

		db_read_cell(s, i, &cell);
		if (cell.type == DB_NULL)
			put_null(&o);
		else if (cell.type == DB_INTEGER)
			put_number(&o, cell.number);
		else
			put(&o, cell.type, cell.data, cell.len);
	}
	return o.at == NULL ? 0 : (size_t)(o.at - out);
}
