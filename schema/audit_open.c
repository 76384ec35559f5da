#include "config.h"

#include "schema/audit_open.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "schema/audit_json.h"
#include "schema/audit_replay.h"
#include "schema/audit_row.h"

/* The table is behind for so long. */
#define BEHIND_US INT64_C(1000000)
/* Fewer than are open at once would often say that something may be there that is not. */
#define THERE (1u << 18)
#define SLOTS (2 * AUDIT_OPEN_CHANGES_MAX)
#define OVER (-1)

struct change {
	uint64_t session, incarnation;
	int64_t flow;
	/* The event that tells of it, where there was no row (0: there is none now either), and where there was one of
	 * this process (0: the same as before; OVER: there is none now). */
	int64_t absent, present;
};

struct audit_open_memory {
	bool known;	    /* all of this is that of the table */
	bool due;	    /* whatever has come: the next commit writes */
	int64_t written;    /* the table is true up to this row */
	int64_t written_us; /* monotonic */
	unsigned count;
	struct change changes[AUDIT_OPEN_CHANGES_MAX];
	uint16_t slots[SLOTS]; /* by hash: a change's number + 1 */
	/* By hash: how many rows the table has (UINT8_MAX: that many or more, for ever).  Where it has none, nothing
	 * needs to be changed or removed, whoever says so. */
	uint8_t there[THERE];
};

/* An event of one process never moves what another has open: session ids are random, but processes are not believed. */
static const char *const sql[] = {
	"INSERT INTO open_session (session, flow, incarnation, event) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
	"UPDATE open_session SET event = ?4 WHERE session = ?1 AND flow = ?2 AND incarnation = ?3",
	"DELETE FROM open_session WHERE session = ?1 AND flow = ?2 AND incarnation = ?3",
	"SELECT session, flow, incarnation, event FROM open_session WHERE (session, flow) > (?1, ?2) AND session <> 0 "
	"ORDER BY session, flow LIMIT ?3",
	"SELECT " AUDIT_COLUMNS " FROM event WHERE id = ?1",
	"SELECT count(*) FROM open_session WHERE session <> 0",
	"SELECT session, flow FROM open_session WHERE session <> 0",
	"INSERT INTO open_session (session, flow, incarnation, event) VALUES (?1, ?2, ?3, ?4) "
	"ON CONFLICT (session, flow) DO UPDATE SET incarnation = excluded.incarnation, event = excluded.event",
	"SELECT event FROM open_session WHERE session = ?1 AND flow = ?2",
};

int audit_open_prepare(struct audit_open *o, struct db *db, struct err *why)
{
	struct db_stmt **const statements[] = {&o->add,	  &o->move, &o->end,  &o->after, &o->row,
					       &o->count, &o->each, &o->mark, &o->marked};

	o->db = db;
	o->memory = calloc(1, sizeof *o->memory);
	if (o->memory == NULL)
		return err_set(why, "out of memory for what is open");
	for (size_t i = 0; i < sizeof statements / sizeof *statements; i++)
		if ((*statements[i] = db_prepare(db, sql[i], why)) == NULL)
			return -1;
	return 0;
}

void audit_open_release(struct audit_open *o)
{
	free(o->memory);
	o->memory = NULL;
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

bool audit_open_tells(struct db_stmt *row, struct audit_event *e)
{
	int64_t kind = db_i64(row, COL_KIND);

	if (kind < 0 || kind >= AUDIT_KIND_COUNT)
		return false;
	e->kind = (enum audit_kind)kind;
	e->session = (uint64_t)db_i64(row, COL_SESSION);
	if (audit_open_effect(e) == AUDIT_EFFECT_NONE)
		return false;
	/* Only a flow is known by more than its number. */
	return (kind != AUDIT_FLOW && kind != AUDIT_FLOW_CHECKPOINT && kind != AUDIT_FLOW_ENDED) ||
	       audit_row_read(row, e);
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

static uint32_t hash_of(uint64_t session, int64_t flow)
{
	return (uint32_t)(((session ^ (uint64_t)flow) * 0x9e3779b97f4a7c15) >> 32);
}

static uint8_t *there(const struct audit_open *o, uint64_t session, int64_t flow)
{
	return &o->memory->there[hash_of(session, flow) % THERE];
}

static void count_there(uint8_t *rows, int more)
{
	if (*rows != UINT8_MAX)
		*rows = (uint8_t)(*rows + more);
}

/* One of the statements that change it; how many rows it has changed, or -1. */
static int change(struct audit_open *o, struct db_stmt *s, const struct audit_open_row *row, struct err *why)
{
	o->statements++;
	db_bind_i64(s, 1, (int64_t)row->session);
	db_bind_i64(s, 2, row->flow);
	db_bind_i64(s, 3, (int64_t)row->incarnation);
	if (s != o->end)
		db_bind_i64(s, 4, row->event);
	return db_run(s, why) != 0 ? -1 : db_changes(o->db);
}

int audit_open_put(struct audit_open *o, const struct audit_open_row *row, int64_t id, struct err *why)
{
	const struct audit_open_row new = {row->session, row->flow, row->incarnation, id};
	int rows = change(o, o->add, &new, why);

	if (rows > 0)
		count_there(there(o, row->session, row->flow), 1);
	return rows < 0 ? -1 : 0;
}

int audit_open_forget(struct audit_open *o, const struct audit_open_row *row, struct err *why)
{
	const struct audit_open_row old = {row->session, row->flow, row->incarnation, 0};
	int rows = change(o, o->end, &old, why);

	if (rows > 0)
		count_there(there(o, row->session, row->flow), -1);
	return rows < 0 ? -1 : 0;
}

static int mark(struct audit_open *o, int64_t id, struct err *why)
{
	const struct audit_open_row row = {AUDIT_OPEN_MARK_SESSION, AUDIT_OPEN_MARK_FLOW, AUDIT_OPEN_MARK_INCARNATION,
					   id};

	return change(o, o->mark, &row, why) < 0 ? -1 : 0;
}

static int read_mark(struct audit_open *o, int64_t *id, struct err *why)
{
	enum db_step rc;

	db_bind_i64(o->marked, 1, AUDIT_OPEN_MARK_SESSION);
	db_bind_i64(o->marked, 2, AUDIT_OPEN_MARK_FLOW);
	rc = db_step(o->marked, why);
	*id = rc == DB_ROW ? db_i64(o->marked, 0) : INT64_MAX;
	db_reset(o->marked);
	return rc == DB_FAILED ? -1 : 0;
}

static int count_all_there(struct audit_open *o, struct err *why)
{
	enum db_step rc;

	memset(o->memory->there, 0, sizeof o->memory->there);
	while ((rc = db_step(o->each, why)) == DB_ROW)
		count_there(there(o, (uint64_t)db_i64(o->each, 0), db_i64(o->each, 1)), 1);
	db_reset(o->each);
	return rc == DB_FAILED ? -1 : 0;
}

/* ---- what waits -------------------------------------------------------------------------------------------------- */

static void clear(struct audit_open_memory *m)
{
	if (m->count > 0)
		memset(m->slots, 0, sizeof m->slots);
	m->count = 0;
}

/* Its slot, or the free one where it belongs. */
static uint16_t *slot_of(struct audit_open_memory *m, uint64_t session, int64_t flow)
{
	size_t i = hash_of(session, flow) % SLOTS;

	for (; m->slots[i] != 0; i = (i + 1) % SLOTS) {
		const struct change *c = &m->changes[m->slots[i] - 1];

		if (c->session == session && c->flow == flow)
			break;
	}
	return &m->slots[i];
}

static int write_change(struct audit_open *o, const struct change *c, struct err *why)
{
	const struct audit_open_row row = {c->session, c->flow, c->incarnation, c->present};

	if (c->present != 0 && *there(o, c->session, c->flow) != 0) {
		if (c->present == OVER)
			return audit_open_forget(o, &row, why);
		if (change(o, o->move, &row, why) < 0)
			return -1;
	}
	return c->absent == 0 ? 0 : audit_open_put(o, &row, c->absent, why);
}

int audit_open_flush(struct audit_open *o, int64_t id, struct err *why)
{
	struct audit_open_memory *m = o->memory;

	for (unsigned i = 0; i < m->count; i++)
		if (write_change(o, &m->changes[i], why) != 0)
			return -1;
	clear(m);
	if (mark(o, id, why) != 0)
		return -1;
	m->written = id;
	m->written_us = clock_mono_us();
	m->due = false;
	return 0;
}

/* The change of a session or flow, maybe a new one, of which row `id` tells; NULL with *why. */
static struct change *change_of(struct audit_open *o, const struct audit_event *e, uint64_t incarnation, int64_t id,
				struct err *why)
{
	struct audit_open_memory *m = o->memory;
	int64_t flow = audit_open_flow(e);
	uint16_t *slot = slot_of(m, e->session, flow);

	if (*slot != 0 && m->changes[*slot - 1].incarnation == incarnation)
		return &m->changes[*slot - 1];
	if (m->count == AUDIT_OPEN_CHANGES_MAX) {
		if (audit_open_flush(o, id - 1, why) != 0)
			return NULL;
		slot = slot_of(m, e->session, flow);
	}
	/* What another process has noted of it stays where it is, and is written before. */
	m->changes[m->count] = (struct change){.session = e->session, .flow = flow, .incarnation = incarnation};
	*slot = (uint16_t)(m->count + 1);
	return &m->changes[m->count++];
}

int audit_open_note(struct audit_open *o, uint64_t incarnation, int64_t id, const struct audit_event *e,
		    struct err *why)
{
	enum audit_effect effect = audit_open_effect(e);
	struct change *c;

	if (effect == AUDIT_EFFECT_NONE)
		return 0;
	c = change_of(o, e, incarnation, id, why);
	if (c == NULL)
		return -1;
	if (effect == AUDIT_EFFECT_ENDS) {
		c->absent = 0;
		c->present = OVER;
	} else if (effect == AUDIT_EFFECT_BEGINS) {
		c->absent = c->absent == 0 ? id : c->absent;
		c->present = c->present == OVER ? id : c->present;
	} else {
		c->absent = c->absent == 0 ? 0 : id;
		c->present = c->present == OVER ? OVER : id;
	}
	return 0;
}

static int note_again(uint64_t incarnation, int64_t id, const struct audit_event *e, void *arg, struct err *why)
{
	return audit_open_note(arg, incarnation, id, e, why);
}

int audit_open_load(struct audit_open *o, struct err *why)
{
	struct audit_open_memory *m = o->memory;

	if (m->known)
		return 0;
	clear(m);
	if (count_all_there(o, why) != 0 || read_mark(o, &m->written, why) != 0 ||
	    audit_replay(o->db, m->written, note_again, o, why) != 0)
		return -1;
	/* Whoever said up to where it is true, from now on it is we. */
	m->due = m->known = true;
	return 0;
}

void audit_open_drop(struct audit_open *o)
{
	o->memory->known = false;
}

bool audit_open_is_due(const struct audit_open *o, int64_t id)
{
	const struct audit_open_memory *m = o->memory;

	return m->due || id - m->written > AUDIT_REPLAY_ROWS_MAX ||
	       (m->count > 0 && clock_mono_us() - m->written_us >= BEHIND_US);
}

bool audit_open_is_true(const struct audit_open *o)
{
	return o->memory->known && o->memory->count == 0;
}

unsigned audit_open_waiting(const struct audit_open *o)
{
	return o->memory->known ? o->memory->count : 0;
}

/* ---- looking ----------------------------------------------------------------------------------------------------- */

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
