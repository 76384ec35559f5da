#include "config.h"

#include "schema/audit_replay.h"

#include <stdlib.h>

#include "schema/audit_chain.h"
#include "schema/audit_open.h"
#include "schema/audit_row.h"

struct replay {
	int64_t behind;
	audit_replay_row *row;
	void *arg;
	struct db_stmt *entries, *rows;
	struct audit_event *event;
};

/* Rows of an entry, as its body tells of them. */
struct span {
	int64_t first, count;
	const uint8_t *body, *senders;
	size_t nsenders;
};

static bool is_span(int64_t first, int64_t count)
{
	return first >= 0 && first <= INT64_MAX / 2 && count >= 0 && count <= INT32_MAX;
}

/* The entry with which to begin; past all of them if nothing is behind. */
static int find_first(struct db *db, int64_t behind, int64_t *entry, struct err *why)
{
	struct db_stmt *s = db_prepare(db, "SELECT id, first, count FROM chain WHERE kind = ?1 ORDER BY id DESC", why);
	enum db_step rc = DB_FAILED;
	int64_t rows = 0;

	*entry = INT64_MAX;
	if (s == NULL)
		return -1;
	db_bind_i64(s, 1, AUDIT_ENTRY_COMMIT);
	while (rows < AUDIT_REPLAY_ROWS_MAX && (rc = db_step(s, why)) == DB_ROW) {
		int64_t first = db_i64(s, 1), count = db_i64(s, 2);

		if (!is_span(first, count))
			continue;
		if (first + count - 1 <= behind)
			break;
		*entry = db_i64(s, 0);
		rows += count;
	}
	db_finalize(&s);
	return rc == DB_FAILED ? -1 : 0;
}

/* The entry under the cursor; borrowed until the next.  False if no recorder has written it so. */
static bool read_span(struct db_stmt *entries, struct span *p)
{
	size_t len;

	*p = (struct span){.first = db_i64(entries, 0), .count = db_i64(entries, 1)};
	p->body = db_bytes(entries, 2, &len);
	if (!is_span(p->first, p->count) || len / AUDIT_COMMIT_ROW_BYTES < (size_t)p->count)
		return false;
	p->senders = p->body + p->count * AUDIT_COMMIT_ROW_BYTES;
	len -= (size_t)p->count * AUDIT_COMMIT_ROW_BYTES;
	p->nsenders = len / AUDIT_COMMIT_SENDER_BYTES;
	return len % AUDIT_COMMIT_SENDER_BYTES == 0;
}

static int replay_row(struct replay *r, const struct span *p, struct err *why)
{
	int64_t id = db_i64(r->rows, COL_ID);
	uint8_t sender = p->body[(id - p->first) * AUDIT_COMMIT_ROW_BYTES + AUDIT_DIGEST_BYTES];

	if (sender == AUDIT_SENDER_NONE || sender >= p->nsenders || !audit_open_tells(r->rows, r->event))
		return 0;
	return r->row(audit_get_u64(p->senders + sender * AUDIT_COMMIT_SENDER_BYTES), id, r->event, r->arg, why);
}

static int replay_span(struct replay *r, const struct span *p, struct err *why)
{
	int64_t from = p->first > r->behind ? p->first : r->behind + 1;
	enum db_step rc;
	int result = 0;

	db_bind_i64(r->rows, 1, from);
	db_bind_i64(r->rows, 2, p->first + p->count - 1);
	while (result == 0 && (rc = db_step(r->rows, why)) == DB_ROW)
		result = replay_row(r, p, why);
	db_reset(r->rows);
	return result != 0 || rc == DB_FAILED ? -1 : 0;
}

static int replay_from(struct replay *r, int64_t entry, struct err *why)
{
	enum db_step rc;
	struct span p;
	int result = 0;

	db_bind_i64(r->entries, 1, entry);
	db_bind_i64(r->entries, 2, AUDIT_ENTRY_COMMIT);
	while (result == 0 && (rc = db_step(r->entries, why)) == DB_ROW)
		if (read_span(r->entries, &p) && p.first + p.count - 1 > r->behind)
			result = replay_span(r, &p, why);
	return result != 0 || rc == DB_FAILED ? -1 : 0;
}

int audit_replay(struct db *db, int64_t behind, audit_replay_row *row, void *arg, struct err *why)
{
	struct replay r = {.behind = behind, .row = row, .arg = arg};
	int64_t entry;
	int rc = find_first(db, behind, &entry, why);

	if (rc != 0 || entry == INT64_MAX)
		return rc;
	r.event = calloc(1, sizeof *r.event);
	r.entries =
		db_prepare(db, "SELECT first, count, body FROM chain WHERE id >= ?1 AND kind = ?2 ORDER BY id", why);
	r.rows = r.entries == NULL
			 ? NULL
			 : db_prepare(db, "SELECT " AUDIT_COLUMNS " FROM event WHERE id >= ?1 AND id <= ?2 ORDER BY id",
				      why);
	if (r.event == NULL)
		rc = err_set(why, "out of memory for the last rows of the audit");
	else
		rc = r.rows == NULL ? -1 : replay_from(&r, entry, why);
	db_finalize(&r.rows);
	db_finalize(&r.entries);
	free(r.event);
	return rc;
}
