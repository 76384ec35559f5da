#include "config.h"

#include "schema/audit_open.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "schema/audit_json.h"
#include "schema/audit_row.h"

/* An event of one process never moves what another has open: session ids are random, but processes are not believed. */
static const char *const sql[] = {
	"INSERT INTO open_session (session, flow, incarnation, event) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
	"UPDATE open_session SET event = ?4 WHERE session = ?1 AND flow = ?2 AND incarnation = ?3",
	"DELETE FROM open_session WHERE session = ?1 AND flow = ?2 AND incarnation = ?3",
	"SELECT session, flow, incarnation, event FROM open_session WHERE (session, flow) > (?1, ?2) "
	"ORDER BY session, flow LIMIT ?3",
	"SELECT " AUDIT_COLUMNS " FROM event WHERE id = ?1",
	"SELECT count(*) FROM open_session",
};

int audit_open_prepare(struct audit_open *o, struct db *db, struct err *why)
{
	struct db_stmt **const statements[] = {&o->add, &o->move, &o->end, &o->after, &o->row, &o->count};

	for (size_t i = 0; i < sizeof statements / sizeof *statements; i++)
		if ((*statements[i] = db_prepare(db, sql[i], why)) == NULL)
			return -1;
	return 0;
}

static int change(struct db_stmt *s, uint64_t session, int64_t flow, uint64_t incarnation, int64_t event,
		  struct err *why)
{
	db_bind_i64(s, 1, (int64_t)session);
	db_bind_i64(s, 2, flow);
	db_bind_i64(s, 3, (int64_t)incarnation);
	if (event != 0)
		db_bind_i64(s, 4, event);
	return db_run(s, why);
}

enum audit_effect audit_open_effect(const struct audit_event *e)
{
	static const enum audit_effect effects[AUDIT_KIND_COUNT] = {
		[AUDIT_OPEN] = AUDIT_EFFECT_BEGINS,	      [AUDIT_FLOW] = AUDIT_EFFECT_BEGINS,
		[AUDIT_CONNECTED] = AUDIT_EFFECT_MOVES,	      [AUDIT_CHECKPOINT] = AUDIT_EFFECT_MOVES,
		[AUDIT_FLOW_CHECKPOINT] = AUDIT_EFFECT_MOVES, [AUDIT_ENDED] = AUDIT_EFFECT_ENDS,
		[AUDIT_FLOW_ENDED] = AUDIT_EFFECT_ENDS,
	};

	return e->session == 0 ? AUDIT_EFFECT_NONE : effects[e->kind];
}

/* A flow has no number of its own: it is its destination as the client named it. */
int64_t audit_open_flow(const struct audit_event *e)
{
	uint8_t key[2 + 1 + 16 + NAME_MAX_LEN], hash[crypto_generichash_BYTES_MIN];
	size_t name = strlen(e->name), address = addr_len(&e->address.addr);
	int64_t flow;

	if (e->kind != AUDIT_FLOW && e->kind != AUDIT_FLOW_CHECKPOINT && e->kind != AUDIT_FLOW_ENDED)
		return 0;
	memcpy(key, &e->address.port, 2);
	key[2] = (uint8_t)e->address.addr.family;
	memcpy(key + 3, e->address.addr.bytes, address);
	memcpy(key + 3 + address, e->name, name);
	crypto_generichash(hash, sizeof hash, key, 3 + address + name, NULL, 0);
	memcpy(&flow, hash, sizeof flow);
	return flow == 0 ? 1 : flow;
}

int audit_open_note(struct audit_open *o, uint64_t incarnation, int64_t id, const struct audit_event *e,
		    struct err *why)
{
	switch (audit_open_effect(e)) {
	case AUDIT_EFFECT_BEGINS:
		return change(o->add, e->session, audit_open_flow(e), incarnation, id, why);
	case AUDIT_EFFECT_MOVES:
		return change(o->move, e->session, audit_open_flow(e), incarnation, id, why);
	case AUDIT_EFFECT_ENDS:
		return change(o->end, e->session, audit_open_flow(e), incarnation, 0, why);
	case AUDIT_EFFECT_NONE:
		break;
	}
	return 0;
}

int audit_open_count(struct audit_open *o, int64_t *count, struct err *why)
{
	enum db_step rc = db_step(o->count, why);

	*count = rc == DB_ROW ? db_i64(o->count, 0) : 0;
	db_reset(o->count);
	return rc == DB_ROW ? 0 : -1;
}

int audit_open_after(struct audit_open *o, int64_t session, int64_t flow, struct audit_open_row *rows, int max,
		     struct err *why)
{
	enum db_step rc;
	int n = 0;

	db_bind_i64(o->after, 1, session);
	db_bind_i64(o->after, 2, flow);
	db_bind_i64(o->after, 3, max);
	while ((rc = db_step(o->after, why)) == DB_ROW && n < max)
		rows[n++] = (struct audit_open_row){
			.session = (uint64_t)db_i64(o->after, 0),
			.flow = db_i64(o->after, 1),
			.incarnation = (uint64_t)db_i64(o->after, 2),
			.event = db_i64(o->after, 3),
		};
	db_reset(o->after);
	return rc == DB_FAILED ? -1 : n;
}

/* The event that tells of it last, with the fields that what is made of it has in common. */
static int last_event(struct audit_open *o, const struct audit_open_row *row, struct audit_event *e,
		      char seen[AUDIT_TIME_TEXT_MAX], struct err *why)
{
	enum db_step rc;

	db_bind_i64(o->row, 1, row->event);
	rc = db_step(o->row, why);
	/* A row that somebody took away, or made into none of ours: what is known is the session. */
	if (rc != DB_ROW || !audit_row_read(o->row, e))
		*e = (struct audit_event){0};
	db_reset(o->row);
	if (rc == DB_FAILED)
		return -1;
	audit_time_text(e->time_us, seen);
	e->session = row->session;
	e->time_us = clock_wall_us();
	return 0;
}

int audit_open_closing(struct audit_open *o, const struct audit_open_row *row, struct audit_event *e, struct err *why)
{
	char seen[AUDIT_TIME_TEXT_MAX];

	if (last_event(o, row, e, seen, why) != 0)
		return -1;
	e->kind = row->flow == 0 ? AUDIT_ENDED : AUDIT_FLOW_ENDED;
	snprintf(e->reason, sizeof e->reason, "lost: the process that carried it is gone");
	snprintf(e->detail, sizeof e->detail, "{\"lost\":true,\"last_seen\":\"%s\"}", seen);
	return 0;
}

int audit_open_carried(struct audit_open *o, const struct audit_open_row *row, struct audit_event *e, struct err *why)
{
	char seen[AUDIT_TIME_TEXT_MAX];

	if (last_event(o, row, e, seen, why) != 0)
		return -1;
	e->kind = row->flow == 0 ? AUDIT_CHECKPOINT : AUDIT_FLOW_CHECKPOINT;
	snprintf(e->reason, sizeof e->reason, "carried into the next segment");
	snprintf(e->detail, sizeof e->detail, "{\"last_seen\":\"%s\"}", seen);
	return 0;
}

int audit_open_put(struct audit_open *o, const struct audit_open_row *row, int64_t id, struct err *why)
{
	return change(o->add, row->session, row->flow, row->incarnation, id, why);
}

int audit_open_forget(struct audit_open *o, const struct audit_open_row *row, struct err *why)
{
	return change(o->end, row->session, row->flow, row->incarnation, 0, why);
}
