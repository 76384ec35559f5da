#include "config.h"

#include "schema/audit_row.h"

#include <endian.h>
#include <stdio.h>
#include <string.h>

/* ---- rows to be -------------------------------------------------------------------------------------------------- */

static void set_number(struct db_value *v, int64_t number)
{
	v->type = DB_INTEGER;
	v->number = number;
}

static void set_number_or_null(struct db_value *v, uint64_t number)
{
	v->type = number == 0 ? DB_NULL : DB_INTEGER;
	v->number = (int64_t)number;
}

/* Texts and addresses; those that are absent have no bytes. */
static void set_bytes_or_null(struct db_value *v, enum db_type type, const void *data, size_t len)
{
	v->type = len == 0 ? DB_NULL : type;
	v->len = (uint32_t)len;
	v->data = data;
}

static void set_endpoint(struct db_value *v, const struct endpoint *ep)
{
	set_bytes_or_null(v, DB_BLOB, ep->addr.bytes, addr_len(&ep->addr));
	set_number_or_null(v + 1, ep->port);
}

void audit_row_of(const struct audit_event *e, struct audit_row *row)
{
	const char *const texts[] = {e->listener, e->user, e->method, e->command, e->name, e->rule, e->reason, e->detail};
	struct db_value *v = row->values;

	v[COL_ID] = (struct db_value){0};
	set_number(&v[COL_TIME], e->time_us);
	set_number(&v[COL_KIND], (int64_t)e->kind);
	set_number_or_null(&v[COL_SESSION], e->session);
	set_number_or_null(&v[COL_REVISION], e->revision);
	set_endpoint(&v[COL_CLIENT], &e->client);
	set_endpoint(&v[COL_ADDRESS], &e->address);
	set_number_or_null(&v[COL_UP], e->bytes_up);
	set_number_or_null(&v[COL_DOWN], e->bytes_down);
	set_number_or_null(&v[COL_DURATION], (uint64_t)e->duration_us);
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		set_bytes_or_null(&v[COL_LISTENER + i], DB_TEXT, texts[i], strlen(texts[i]));
}

static void get_number(struct wire_reader *r, struct db_value *v)
{
	set_number_or_null(v, wire_get_u64(r));
}

/* As wire_get_endpoint(). */
static void get_endpoint(struct wire_reader *r, struct db_value *v)
{
	const struct addr a = {.family = wire_get_u8(r)};
	size_t len = a.family == ADDR_V4 || a.family == ADDR_V6 ? addr_len(&a) : 0;

	if ((len == 0 && a.family != ADDR_NONE) || len > (size_t)(r->end - r->at)) {
		r->bad = true;
		len = 0;
	}
	set_bytes_or_null(v, DB_BLOB, r->at, len);
	r->at += len;
	set_number_or_null(v + 1, wire_get_u16(r));
}

/* As wire_get_text(). */
static void get_text(struct wire_reader *r, size_t max, struct db_value *v)
{
	size_t len;
	const uint8_t *data = wire_get_bytes(r, max, &len);

	if (len > 0 && memchr(data, '\0', len) != NULL)
		r->bad = true;
	set_bytes_or_null(v, DB_TEXT, data, len);
}

/* As audit_get_event(). */
static void get_event(struct wire_reader *r, struct db_value *v)
{
#define MAX(field) (sizeof((struct audit_event *)NULL)->field - 1)
	static const size_t max[] = {MAX(listener), MAX(user), MAX(method), MAX(command),
				     MAX(name),	    MAX(rule), MAX(reason), MAX(detail)};
#undef MAX

	v[COL_ID] = (struct db_value){0};
	set_number(&v[COL_KIND], wire_get_u8(r));
	get_number(r, &v[COL_SESSION]);
	set_number(&v[COL_TIME], (int64_t)wire_get_u64(r));
	get_number(r, &v[COL_DURATION]);
	get_endpoint(r, &v[COL_CLIENT]);
	get_endpoint(r, &v[COL_ADDRESS]);
	get_number(r, &v[COL_UP]);
	get_number(r, &v[COL_DOWN]);
	set_number_or_null(&v[COL_REVISION], wire_get_u32(r));
	for (size_t i = 0; i < sizeof max / sizeof *max; i++)
		get_text(r, max[i], &v[COL_LISTENER + i]);
	if (v[COL_KIND].number >= AUDIT_KIND_COUNT || v[COL_TIME].number < 0 || v[COL_DURATION].number < 0 ||
	    v[COL_UP].number < 0 || v[COL_DOWN].number < 0)
		r->bad = true;
}

bool audit_row_get_record(struct wire_reader *r, uint64_t *incarnation, uint64_t *sequence, struct audit_row *row)
{
	*incarnation = wire_get_u64(r);
	*sequence = wire_get_u64(r);
	if (*incarnation == 0 || *sequence == 0 || *sequence > INT64_MAX)
		r->bad = true;
	get_event(r, row->values);
	return wire_done(r);
}

void audit_row_copy(const struct audit_row *row, const void *bytes, struct audit_row *to, const void *to_bytes)
{
	for (int i = 0; i < COL_COUNT; i++) {
		struct db_value *v = &to->values[i];

		*v = row->values[i];
		if (v->type == DB_TEXT || v->type == DB_BLOB)
			v->data = (const uint8_t *)to_bytes + ((const uint8_t *)v->data - (const uint8_t *)bytes);
	}
}

static struct addr address_of(const void *bytes, size_t len)
{
	struct addr a = {0};

	if (len != 4 && len != 16)
		return a;
	a.family = len == 4 ? ADDR_V4 : ADDR_V6;
	memcpy(a.bytes, bytes, len);
	return a;
}

void audit_row_tells(const struct audit_row *row, struct audit_event *e)
{
	const struct db_value *v = row->values, *address = &v[COL_ADDRESS], *name = &v[COL_NAME];

	e->kind = (enum audit_kind)v[COL_KIND].number;
	e->session = (uint64_t)v[COL_SESSION].number;
	if (e->kind != AUDIT_FLOW && e->kind != AUDIT_FLOW_CHECKPOINT && e->kind != AUDIT_FLOW_ENDED)
		return;
	e->address = (struct endpoint){.addr = address_of(address->data, address->type == DB_NULL ? 0 : address->len),
				       .port = (uint16_t)v[COL_PORT].number};
	snprintf(e->name, sizeof e->name, "%.*s", name->type == DB_NULL ? 0 : (int)name->len,
		 name->type == DB_NULL ? "" : (const char *)name->data);
}

/* ---- rows that are ------------------------------------------------------------------------------------------------ */

struct addr audit_row_address(struct db_stmt *s, enum audit_column column)
{
	size_t len;
	const void *bytes = db_bytes(s, (int)column, &len);

	return address_of(bytes, len);
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

size_t audit_row_bytes(const struct audit_row *row, uint8_t out[AUDIT_ROW_BYTES_MAX])
{
	struct out o = {out, out + AUDIT_ROW_BYTES_MAX};

	for (int i = 0; i < COL_COUNT; i++) {
		const struct db_value *v = &row->values[i];

		if (v->type == DB_NULL)
			put_null(&o);
		else if (v->type == DB_INTEGER)
			put_number(&o, v->number);
		else
			put(&o, v->type, v->data, v->len);
	}
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
