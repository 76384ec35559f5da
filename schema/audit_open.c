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

/* ---- what a batch changes ---------------------------------------------------------------------------------------------- */

#define SLOTS (2 * AUDIT_OPEN_CHANGES_MAX)

void audit_open_clear(struct audit_open_batch *b)
{
	if (b->count > 0)
		memset(b->slots, 0, sizeof b->slots);
	b->count = 0;
}

/* Its slot, or the free one where it belongs. */
static uint16_t *slot_of(struct audit_open_batch *b, uint64_t session, int64_t flow)
{
	size_t i = ((session ^ (uint64_t)flow) * 0x9e3779b97f4a7c15) >> 32;

	for (i %= SLOTS; b->slots[i] != 0; i = (i + 1) % SLOTS) {
		const struct audit_open_change *c = &b->changes[b->slots[i] - 1];

		if (c->session == session && c->flow == flow)
			break;
	}
	return &b->slots[i];
}

static int write_change(struct audit_open *o, const struct audit_open_change *c, struct err *why)
{
	if (c->present == AUDIT_OPEN_OVER)
		return change(o->end, c->session, c->flow, c->incarnation, 0, why);
	if (c->present != 0 && change(o->move, c->session, c->flow, c->incarnation, c->present, why) != 0)
		return -1;
	return c->absent == 0 ? 0 : change(o->add, c->session, c->flow, c->incarnation, c->absent, why);
}

int audit_open_write(struct audit_open *o, struct audit_open_batch *b, struct err *why)
{
	for (unsigned i = 0; i < b->count; i++)
		if (write_change(o, &b->changes[i], why) != 0)
			return -1;
	audit_open_clear(b);
	return 0;
}

/* The change of a session or flow, maybe a new one; NULL with *why. */
static struct audit_open_change *change_of(struct audit_open *o, struct audit_open_batch *b, uint64_t session,
					   int64_t flow, uint64_t incarnation, struct err *why)
{
	uint16_t *slot = slot_of(b, session, flow);

	if (*slot != 0 && b->changes[*slot - 1].incarnation == incarnation)
		return &b->changes[*slot - 1];
	if (b->count == AUDIT_OPEN_CHANGES_MAX) {
		if (audit_open_write(o, b, why) != 0)
			return NULL;
		slot = slot_of(b, session, flow);
	}
	/* What another process has noted of it stays where it is, and is written before. */
	b->changes[b->count] =
		(struct audit_open_change){.session = session, .flow = flow, .incarnation = incarnation};
	*slot = (uint16_t)(b->count + 1);
	return &b->changes[b->count++];
}

int audit_open_note(struct audit_open *o, struct audit_open_batch *b, uint64_t incarnation, int64_t id,
		    const struct audit_event *e, struct err *why)
{
	enum audit_effect effect = audit_open_effect(e);
	struct audit_open_change *c;

	if (effect == AUDIT_EFFECT_NONE)
		return 0;
	c = change_of(o, b, e->session, audit_open_flow(e), incarnation, why);
	if (c == NULL)
		return -1;
	if (effect == AUDIT_EFFECT_ENDS) {
		c->absent = 0;
		c->present = AUDIT_OPEN_OVER;
	} else if (effect == AUDIT_EFFECT_BEGINS) {
		c->absent = c->absent == 0 ? id : c->absent;
		c->present = c->present == AUDIT_OPEN_OVER ? id : c->present;
	} else {
		c->absent = c->absent == 0 ? 0 : id;
		c->present = c->present == AUDIT_OPEN_OVER ? AUDIT_OPEN_OVER : id;
	}
	return 0;
}

/* ---- looking ------------------------------------------------------------------------------------------------------------- */

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
