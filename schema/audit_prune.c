#include "config.h"

#include "schema/audit_prune.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "schema/audit_row.h"
#include "schema/audit_segment.h"
#include "schema/db.h"

#define NEW_FILE "prune.new"
/* Rows of a segment, by number: far more than one has. */
#define SEGMENT_ROWS_MAX (INT64_C(1) << 28)
#define COPY_ROWS 20000

/* ---- declarations ------------------------------------------------------------------------------------------------ */

enum { ROWS = 2, WHOLE = 3, WITHDRAWN = 4 };
#define ROWS_HEAD 21
#define WHOLE_BYTES (5 + 4 * 8 + AUDIT_MAC_BYTES)
#define WITHDRAWN_BYTES 13

size_t audit_prune_put(const struct audit_pruned *p, uint8_t out[AUDIT_PRUNE_BODY_MAX])
{
	uint8_t *at = out;

	*at++ = p->withdrawn ? WITHDRAWN : p->whole ? WHOLE : ROWS;
	for (int i = 0; i < 4; i++)
		*at++ = (uint8_t)(p->segment >> (8 * i));
	if (p->withdrawn) {
		audit_put_u64(at, (uint64_t)p->declaration);
		return WITHDRAWN_BYTES;
	}
	at = audit_put_u64(at, (uint64_t)p->before_us);
	if (p->whole) {
		at = audit_put_u64(at, (uint64_t)p->entry);
		at = audit_put_u64(at, (uint64_t)p->row);
		at = audit_put_u64(at, p->epoch);
		memcpy(at, p->mac, AUDIT_MAC_BYTES);
		return WHOLE_BYTES;
	}
	at = audit_put_u64(at, (uint64_t)p->first);
	memcpy(at, p->bits, p->nbytes);
	return ROWS_HEAD + p->nbytes;
}

bool audit_prune_get(const uint8_t *body, size_t len, struct audit_pruned *p)
{
	*p = (struct audit_pruned){0};
	if (len < WITHDRAWN_BYTES || len > AUDIT_PRUNE_BODY_MAX || body[0] < ROWS || body[0] > WITHDRAWN)
		return false;
	p->whole = body[0] == WHOLE;
	p->withdrawn = body[0] == WITHDRAWN;
	for (int i = 4; i >= 1; i--)
		p->segment = p->segment << 8 | body[i];
	if (p->withdrawn) {
		p->declaration = (int64_t)audit_get_u64(body + 5);
		return len == WITHDRAWN_BYTES && p->declaration >= 0;
	}
	if (len < ROWS_HEAD)
		return false;
	p->before_us = (int64_t)audit_get_u64(body + 5);
	if (!p->whole) {
		p->first = (int64_t)audit_get_u64(body + 13);
		p->bits = body + ROWS_HEAD;
		p->nbytes = len - ROWS_HEAD;
		return p->first >= 1 && p->first <= INT64_MAX / 2;
	}
	if (len != WHOLE_BYTES)
		return false;
	p->entry = (int64_t)audit_get_u64(body + 13);
	p->row = (int64_t)audit_get_u64(body + 21);
	p->epoch = audit_get_u64(body + 29);
	memcpy(p->mac, body + 37, AUDIT_MAC_BYTES);
	return p->entry >= 1 && p->entry <= INT64_MAX / 2 && p->row >= 0 && p->row <= INT64_MAX / 2;
}

/* ---- one segment: what is to go ---------------------------------------------------------------------------------- */

struct segment {
	const struct audit_prune_order *order;
	struct audit_prune_counts *counts;
	uint32_t number, next; /* next: 0: there is none */
	char name[AUDIT_SEGMENT_NAME_MAX];
	struct db *db;
	int64_t first, last; /* rows; 0: it has none */
	uint8_t *bits;	     /* of the rows that go */
	uint64_t going, staying, held;
	struct audit_pruned end; /* its last entry */
	/* Of its first entry, and of that of the next segment: */
	struct beginning {
		uint8_t store[AUDIT_ID_BYTES], before[AUDIT_MAC_BYTES];
		int64_t time_us, adopted;
	} begin, next_begin;
	/* The entries, as its rows are gone through: who recorded them when. */
	struct db_stmt *entries;
	int64_t entry_first, entry_last, entry_time;
};

static bool has_bit(const uint8_t *bits, int64_t at)
{
	return bits[at / 8] >> (at % 8) & 1;
}

static bool is_held(const struct audit_prune_order *o, struct db_stmt *row)
{
	for (size_t i = 0; i < o->nholds; i++)
		if (audit_filter_matches(&o->holds[i], row))
			return true;
	return false;
}

/* Goes on to the entry that knows the row, or one of a later row. */
static void find_entry(struct segment *g, int64_t id)
{
	struct err ignored;

	while (g->entry_last < id && db_step(g->entries, &ignored) == DB_ROW) {
		g->entry_first = db_i64(g->entries, 0);
		g->entry_last = g->entry_first + db_i64(g->entries, 1) - 1;
		g->entry_time = db_i64(g->entries, 2);
	}
}

/* What somebody wrote into the file who is none of us stays: it is evidence.  And a row says itself when it was, which
 * nobody can check without keys of the past; that the entry that recorded it is as old is what verify checks of rows
 * that are gone. */
static bool is_due(struct segment *g, struct db_stmt *row)
{
	const struct audit_prune_order *o = g->order;
	int64_t kind = db_i64(row, COL_KIND), id = db_i64(row, COL_ID);

	find_entry(g, id);
	return kind >= 0 && kind < AUDIT_KIND_COUNT && (o->kinds & 1u << kind) != 0 &&
	       db_i64(row, COL_TIME) < o->before_us && g->entry_first <= id && id <= g->entry_last &&
	       (id <= g->begin.adopted || g->entry_time < o->before_us);
}

/* The first row of a statement without parameters: DB_ROW with up to n numbers. */
static enum db_step read_numbers(struct db *db, const char *sql, int64_t *out, int n, struct err *why)
{
	struct db_stmt *s = db_prepare(db, sql, why);
	enum db_step rc = s == NULL ? DB_FAILED : db_step(s, why);

	for (int i = 0; rc == DB_ROW && i < n; i++)
		out[i] = db_i64(s, i);
	db_finalize(&s);
	return rc;
}

/* The first entry of a segment; false if it has none that begins it. */
static bool read_begin(struct db *db, struct beginning *b)
{
	struct err ignored;
	struct db_stmt *s = db_prepare(db, "SELECT kind, time, body FROM chain ORDER BY id LIMIT 1", &ignored);
	bool begins = s != NULL && db_step(s, &ignored) == DB_ROW && db_i64(s, 0) == AUDIT_ENTRY_BEGIN;
	size_t len = 0;
	const uint8_t *body = begins ? db_bytes(s, 2, &len) : NULL;

	*b = (struct beginning){0};
	begins = begins && len >= AUDIT_BEGIN_BYTES;
	if (begins) {
		memcpy(b->store, body, AUDIT_ID_BYTES);
		memcpy(b->before, body + AUDIT_ID_BYTES + 4, AUDIT_MAC_BYTES);
		b->adopted = (int64_t)audit_get_u64(body + AUDIT_ID_BYTES + 4 + AUDIT_MAC_BYTES);
		b->time_us = db_i64(s, 1);
	}
	db_finalize(&s);
	return begins;
}

/* Both its own and that of the one behind it. */
static void read_begins(struct segment *g)
{
	char name[AUDIT_SEGMENT_NAME_MAX];
	struct err ignored;
	struct db *next = NULL;

	read_begin(g->db, &g->begin);
	/* What the recorder writes cannot be read in its child. */
	if (g->next == g->number + 1 && g->next < g->order->below)
		next = audit_segment_open(audit_segment_name(g->next, name), AUDIT_READ, &ignored);
	if (next == NULL || !read_begin(next, &g->next_begin))
		g->next_begin = (struct beginning){.time_us = INT64_MAX};
	db_close(&next);
}

static bool ends(struct segment *g)
{
	struct err ignored;
	int64_t kind = -1;

	return read_numbers(g->db, "SELECT kind FROM chain ORDER BY id DESC LIMIT 1", &kind, 1, &ignored) == DB_ROW &&
	       kind == AUDIT_ENTRY_END;
}

/* A chain whose key was lost has no end: the next segment says that one of another store begins, and where. */
static bool begins_other_chain(const struct segment *g, const void *mac, size_t len)
{
	return len == AUDIT_MAC_BYTES && g->next_begin.time_us != INT64_MAX &&
	       memcmp(g->begin.store, g->next_begin.store, AUDIT_ID_BYTES) != 0 &&
	       memcmp(g->next_begin.before, mac, AUDIT_MAC_BYTES) == 0;
}

/* Its last entry must be one that ends a segment: what was cut off is not to be forgotten by pruning the rest. */
static int read_end(struct segment *g, struct err *why)
{
	struct db_stmt *s =
		db_prepare(g->db, "SELECT id, kind, epoch, first, count, mac FROM chain ORDER BY id DESC LIMIT 1", why);
	enum db_step rc = s == NULL ? DB_FAILED : db_step(s, why);
	size_t len = 0;
	bool sound = false;

	if (rc == DB_ROW) {
		const void *mac = db_bytes(s, 5, &len);

		g->end = (struct audit_pruned){.whole = true,
					       .segment = g->number,
					       .before_us = g->order->before_us,
					       .entry = db_i64(s, 0),
					       .epoch = (uint64_t)db_i64(s, 2),
					       .row = db_i64(s, 3) + db_i64(s, 4) - 1};
		sound = len == AUDIT_MAC_BYTES && (db_i64(s, 1) == AUDIT_ENTRY_END || begins_other_chain(g, mac, len));
		if (sound)
			memcpy(g->end.mac, mac, len);
	}
	db_finalize(&s);
	if (rc == DB_FAILED)
		return -1;
	return sound ? 0 : err_set(why, "%s: its end is not there: verify the audit", g->name);
}

static int choose(struct segment *g, struct err *why)
{
	struct db_stmt *rows = db_prepare(g->db, "SELECT " AUDIT_COLUMNS " FROM event ORDER BY id", why);
	enum db_step rc = DB_FAILED;
	bool strange = false;

	g->entries = rows == NULL ? NULL
				  : db_prepare(g->db,
					       "SELECT first, count, time FROM chain WHERE count > 0 ORDER BY id", why);
	g->entry_last = 0;
	g->bits = calloc((size_t)(g->last - g->first) / 8 + 1, 1);
	if (g->bits == NULL)
		err_set(why, "out of memory");
	while (g->entries != NULL && g->bits != NULL && !strange && (rc = db_step(rows, why)) == DB_ROW) {
		int64_t at = db_i64(rows, COL_ID) - g->first;

		/* One that somebody added since they were counted. */
		strange = at < 0 || at > g->last - g->first;
		if (strange || !is_due(g, rows)) {
			g->staying++;
		} else if (is_held(g->order, rows)) {
			g->staying++;
			g->held++;
		} else {
			g->going++;
			g->bits[at / 8] |= (uint8_t)(1u << (at % 8));
		}
		if ((g->going + g->staying) % 65536 == 0 && g->order->progress != NULL)
			g->order->progress(g->order->arg);
	}
	db_finalize(&rows);
	db_finalize(&g->entries);
	if (strange)
		return err_set(why, "%s: somebody writes into it: verify the audit", g->name);
	return rc == DB_DONE ? 0 : -1;
}

/* 1: there is something to do, 0: all of it stays, -1. */
static int look(struct segment *g, struct err *why)
{
	int64_t n[3] = {0, 0, 0};

	g->db = audit_segment_open(g->name, AUDIT_READ, why);
	if (g->db == NULL)
		return -1;
	read_begins(g);
	/* Whether a new chain follows is not known yet. */
	if (g->next >= g->order->below && !ends(g)) {
		g->counts->skipped++;
		g->staying = 1;
		return 0;
	}
	if (read_end(g, why) != 0 ||
	    read_numbers(
		    g->db,
		    "SELECT (SELECT min(id) FROM event), (SELECT max(id) FROM event), (SELECT min(time) FROM event)", n,
		    3, why) != DB_ROW)
		return -1;
	g->first = n[0];
	g->last = n[1];
	if (g->last == 0)
		return 1;
	if (g->first < 1 || g->last - g->first >= SEGMENT_ROWS_MAX)
		return err_set(why, "%s: the numbers of its rows are none of ours: verify the audit", g->name);
	if (n[2] >= g->order->before_us) {
		g->staying = 1;
		return 0;
	}
	return choose(g, why) != 0 ? -1 : g->going > 0 || g->staying == 0;
}

/* ---- one segment: written anew ----------------------------------------------------------------------------------- */

static int copy_value(struct db_stmt *to, struct db_stmt *from, int column, struct err *why)
{
	const char *text;
	size_t len;

	switch (db_type(from, column)) {
	case DB_NULL:
		db_bind_null(to, column + 1);
		return 0;
	case DB_INTEGER:
		db_bind_i64(to, column + 1, db_i64(from, column));
		return 0;
	case DB_TEXT:
		text = db_bytes(from, column, &len);
		db_bind_text_len(to, column + 1, text, len);
		return 0;
	case DB_BLOB:
		text = db_bytes(from, column, &len);
		db_bind_blob(to, column + 1, text, len);
		return 0;
	case DB_OTHER:
		break;
	}
	return err_set(why, "it holds a value of a type that is none of ours: verify the audit");
}

static int copy_row(struct db_stmt *from, struct db_stmt *to, int columns, struct err *why)
{
	for (int i = 0; i < columns; i++)
		if (copy_value(to, from, i, why) != 0)
			return -1;
	return db_run(to, why);
}

struct table {
	const char *select, *insert;
	int columns;
	bool rows; /* those that go are left out */
};

static int copy_table(struct segment *g, struct db *db, const struct table *t, struct err *why)
{
	struct db_stmt *from = db_prepare(g->db, t->select, why);
	struct db_stmt *to = from == NULL ? NULL : db_prepare(db, t->insert, why);
	enum db_step rc = DB_FAILED;
	unsigned n = 0;

	if (to != NULL && db_begin(db, why) == 0)
		while ((rc = db_step(from, why)) == DB_ROW) {
			if (t->rows && g->bits != NULL && has_bit(g->bits, db_i64(from, 0) - g->first))
				continue;
			if (copy_row(from, to, t->columns, why) != 0) {
				rc = DB_FAILED;
				break;
			}
			/* Small transactions: the log stays small, too. */
			if ((n + 1) % COPY_ROWS == 0 && g->order->progress != NULL)
				g->order->progress(g->order->arg);
			if (++n % COPY_ROWS == 0 &&
			    (db_commit(db, why) != 0 || db_checkpoint(db, why) != 0 || db_begin(db, why) != 0)) {
				rc = DB_FAILED;
				break;
			}
		}
	if (rc == DB_DONE && db_commit(db, why) != 0)
		rc = DB_FAILED;
	if (rc != DB_DONE)
		db_rollback(db);
	db_finalize(&from);
	db_finalize(&to);
	return rc == DB_DONE ? 0 : -1;
}

static const struct table tables[] = {
	{"SELECT " AUDIT_COLUMNS " FROM event ORDER BY id", AUDIT_INSERT, COL_COUNT, true},
	{"SELECT id, kind, epoch, time, first, count, body, mac FROM chain ORDER BY id",
	 "INSERT INTO chain (id, kind, epoch, time, first, count, body, mac) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
	 8, false},
	{"SELECT incarnation, last, seen FROM sender",
	 "INSERT INTO sender (incarnation, last, seen) VALUES (?1, ?2, ?3)", 3, false},
	{"SELECT session, flow, incarnation, event FROM open_session",
	 "INSERT INTO open_session (session, flow, incarnation, event) VALUES (?1, ?2, ?3, ?4)", 4, false},
};

void audit_prune_clean(void)
{
	unlink(NEW_FILE);
	unlink(NEW_FILE "-wal");
	unlink(NEW_FILE "-shm");
	unlink(NEW_FILE "-journal");
}

/* The new file is whole and on stable storage before it takes the old one's place; who reads the old one goes on. */
static int write_anew(struct segment *g, struct err *why)
{
	uint64_t before = audit_segment_bytes(g->name), after;
	struct db *db;
	int rc = 0;

	audit_prune_clean();
	db = audit_segment_open(NEW_FILE, AUDIT_WRITE, why);
	if (db == NULL)
		return -1;
	for (size_t i = 0; rc == 0 && i < sizeof tables / sizeof *tables; i++)
		rc = copy_table(g, db, &tables[i], why);
	if (rc != 0)
		db_close(&db);
	else
		rc = db_finish(&db, audit_segment_indexes, why);
	if (rc == 0 && audit_segment_has_log(NEW_FILE))
		rc = err_set(why, NEW_FILE ": it did not give up its log");
	after = audit_segment_bytes(NEW_FILE);
	if (rc == 0 && rename(NEW_FILE, g->name) != 0)
		rc = err_set_errno(why, NEW_FILE ": cannot take the place of %s", g->name);
	if (rc == 0)
		rc = audit_sync_directory(why);
	audit_prune_clean();
	if (rc == 0 && before > after)
		g->counts->bytes += before - after;
	return rc;
}

/* ---- one segment: all of it -------------------------------------------------------------------------------------- */

static int declare(struct segment *g, const struct audit_pruned *p, struct err *why)
{
	uint8_t body[AUDIT_PRUNE_BODY_MAX];
	size_t len = audit_prune_put(p, body);

	return g->order->declare(body, len, g->order->arg, why);
}

static int declare_rows(struct segment *g, struct err *why)
{
	static const uint8_t none[AUDIT_PRUNE_ROWS_MAX / 8];
	size_t bytes = (size_t)(g->last - g->first) / 8 + 1;

	for (size_t at = 0; at < bytes; at += sizeof none) {
		size_t n = bytes - at < sizeof none ? bytes - at : sizeof none;
		const struct audit_pruned p = {.segment = g->number,
					       .before_us = g->order->before_us,
					       .first = g->first + 8 * (int64_t)at,
					       .bits = g->bits + at,
					       .nbytes = n};

		if (memcmp(p.bits, none, n) != 0 && declare(g, &p, why) != 0)
			return -1;
	}
	return 0;
}

static int remove_whole(struct segment *g, struct err *why)
{
	uint64_t bytes = audit_segment_bytes(g->name);

	if (declare(g, &g->end, why) != 0)
		return -1;
	if (unlink(g->name) != 0)
		return err_set_errno(why, "%s: cannot be removed", g->name);
	g->counts->bytes += bytes;
	g->counts->segments++;
	return audit_sync_directory(why);
}

/* whole: all before it is gone, so it can go as a whole; set to whether it has. */
static int prune_segment(struct segment *g, bool *whole, struct err *why)
{
	int rc = look(g, why);

	/* How old what is gone as a whole can have been is told by where the next begins. */
	*whole = *whole && rc == 1 && g->staying == 0 && g->next_begin.time_us < g->order->before_us;
	if (rc == 1 && !g->order->dry_run) {
		if (*whole)
			rc = remove_whole(g, why);
		else if (g->going > 0)
			rc = declare_rows(g, why) != 0 || write_anew(g, why) != 0 ? -1 : 0;
		if (rc == 0 && !*whole && g->going > 0)
			g->counts->rewritten++;
	} else if (rc == 1) {
		g->counts->segments += *whole;
	}
	g->counts->held += g->held;
	if (rc >= 0)
		g->counts->rows += g->going;
	return rc < 0 ? -1 : 0;
}

static int prune_all(const struct audit_prune_order *o, const uint32_t *numbers, int n,
		     struct audit_prune_counts *counts, struct err *why)
{
	bool whole = true;
	int rc = 0;

	for (int i = 0; rc == 0 && i < n && numbers[i] < o->below; i++) {
		struct segment g = {
			.order = o, .counts = counts, .number = numbers[i], .next = i + 1 < n ? numbers[i + 1] : 0};

		audit_segment_name(g.number, g.name);
		if (audit_segment_has_log(g.name)) {
			counts->skipped++;
			whole = false;
			continue;
		}
		rc = prune_segment(&g, &whole, why);
		db_close(&g.db);
		free(g.bits);
		if (o->progress != NULL)
			o->progress(o->arg);
	}
	return rc;
}

/* ---- what was declared and not done ------------------------------------------------------------------------------
 * All declared rows of a segment go at once, with the file: one that is still there says that none has gone. */

static bool is_undone(const struct audit_pruned *p)
{
	char name[AUDIT_SEGMENT_NAME_MAX];
	struct err ignored;
	struct db *db = NULL;
	struct db_stmt *s = NULL;
	bool there = false;

	if (p->whole)
		return access(audit_segment_name(p->segment, name), F_OK) == 0;
	db = audit_segment_open(audit_segment_name(p->segment, name), AUDIT_READ, &ignored);
	if (db != NULL)
		s = db_prepare(db, "SELECT id FROM event WHERE id BETWEEN ?1 AND ?2 ORDER BY id", &ignored);
	if (s != NULL) {
		db_bind_i64(s, 1, p->first);
		db_bind_i64(s, 2, p->first + 8 * (int64_t)p->nbytes - 1);
	}
	while (s != NULL && !there && db_step(s, &ignored) == DB_ROW)
		there = has_bit(p->bits, db_i64(s, 0) - p->first);
	db_finalize(&s);
	db_close(&db);
	return there;
}

struct undone {
	int64_t *entries; /* negative: it is withdrawn already */
	uint32_t *segments;
	size_t n, room;
};

static int undone_add(struct undone *u, int64_t entry, uint32_t segment, struct err *why)
{
	if (u->n == u->room) {
		size_t room = u->room == 0 ? 16 : 2 * u->room;
		int64_t *entries = reallocarray(u->entries, room, sizeof *entries);
		uint32_t *segments = entries == NULL ? NULL : reallocarray(u->segments, room, sizeof *segments);

		u->entries = entries == NULL ? u->entries : entries;
		u->segments = segments == NULL ? u->segments : segments;
		if (segments == NULL)
			return err_set(why, "out of memory");
		u->room = room;
	}
	u->entries[u->n] = entry;
	u->segments[u->n++] = segment;
	return 0;
}

static bool is_withdrawn(const struct undone *u, int64_t entry)
{
	for (size_t i = 0; i < u->n; i++)
		if (u->entries[i] == -entry)
			return true;
	return false;
}

/* The declarations in one segment: 1 one says that all before it is settled, 0, -1. */
static int find_undone(struct undone *u, uint32_t number, struct err *why)
{
	char name[AUDIT_SEGMENT_NAME_MAX];
	struct db *db = audit_segment_open(audit_segment_name(number, name), AUDIT_READ, why);
	struct db_stmt *s =
		db == NULL ? NULL : db_prepare(db, "SELECT id, body FROM chain WHERE kind = ?1 ORDER BY id DESC", why);
	enum db_step rc = DB_FAILED;
	int result = 0;

	if (s != NULL)
		db_bind_i64(s, 1, AUDIT_ENTRY_PRUNED);
	while (s != NULL && result == 0 && (rc = db_step(s, why)) == DB_ROW) {
		struct audit_pruned p;
		size_t len;
		const uint8_t *body = db_bytes(s, 1, &len);

		if (!audit_prune_get(body, len, &p))
			continue;
		if (p.withdrawn)
			result = p.declaration == 0 ? 1 : undone_add(u, -p.declaration, p.segment, why);
		else if (is_undone(&p))
			result = undone_add(u, db_i64(s, 0), p.segment, why);
	}
	db_finalize(&s);
	db_close(&db);
	return result != 0 ? result : rc == DB_DONE ? 0 : -1;
}

static int withdraw(const struct audit_prune_order *o, uint32_t segment, int64_t entry, struct err *why)
{
	const struct audit_pruned p = {.withdrawn = true, .segment = segment, .declaration = entry};
	uint8_t body[AUDIT_PRUNE_BODY_MAX];
	size_t len = audit_prune_put(&p, body);

	return o->declare(body, len, o->arg, why);
}

int audit_prune_settle(const struct audit_prune_order *order, uint32_t segments, struct err *why)
{
	struct undone u = {0};
	uint32_t *numbers;
	int n = audit_segment_list(&numbers, why), rc = n < 0 ? -1 : 0;

	for (int i = n; rc == 0 && i-- > 0 && segments > 0;) {
		if (numbers[i] >= order->below)
			continue;
		segments--;
		rc = find_undone(&u, numbers[i], why);
	}
	rc = rc < 0 ? -1 : 0;
	for (size_t i = u.n; rc == 0 && i-- > 0;)
		if (u.entries[i] > 0 && !is_withdrawn(&u, u.entries[i]))
			rc = withdraw(order, u.segments[i], u.entries[i], why);
	free(numbers);
	free(u.entries);
	free(u.segments);
	return rc;
}

int audit_prune(const struct audit_prune_order *order, struct audit_prune_counts *counts, struct err *why)
{
	uint32_t *numbers;
	int n, rc;

	*counts = (struct audit_prune_counts){0};
	if (!order->dry_run && audit_prune_settle(order, UINT32_MAX, why) != 0)
		return -1;
	n = audit_segment_list(&numbers, why);
	rc = n < 0 ? -1 : prune_all(order, numbers, n, counts, why);
	free(numbers);
	/* Whoever settles next need not look at what is before this. */
	if (rc == 0 && counts->segments + counts->rewritten > 0 && !order->dry_run)
		rc = withdraw(order, 0, 0, why);
	return rc;
}
