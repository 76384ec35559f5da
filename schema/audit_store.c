#include "config.h"

#include "schema/audit_store.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/clock.h"
#include "common/name.h"
#include "schema/audit_open.h"
#include "schema/audit_row.h"
#include "schema/db.h"
#include "schema/migrations.h"

#define APPLICATION_ID 0x67776175 /* "gwau" */
#define BUSY_MS 500
/* The log is folded into the file when it has this many pages (4 KiB each). */
#define CHECKPOINT_PAGES 1000
/* Different senders in one batch: the next one has to wait for the next batch. */
#define BATCH_SENDERS_MAX 256
/* Open sessions that are looked at in one piece. */
#define SETTLE_PAGE 256

struct sender {
	uint64_t incarnation;
	uint64_t last; /* in this batch */
};

struct audit_store {
	struct db *db;
	struct db_stmt *insert, *last_of, *set_last, *forget, *newest, *count_senders, *bounds;
	struct audit_open open;
	int64_t last_id; /* of the newest event, in this batch */
	struct sender batch[BATCH_SENDERS_MAX];
	size_t nbatch;
	bool in_batch;
	struct audit_event event; /* being made; too big for a stack frame */
};

static const struct db_permit permits[] = {
	{.table = "event", .insert = true},
	{.table = "sender", .insert = true, .update = true, .delete = true},
	{.table = "open_session", .insert = true, .update = true, .delete = true},
};

static const struct db_permit read_permits[] = {{.table = "event"}, {.table = "sender"}};

/* ---- opening --------------------------------------------------------------------------------------------------- */

static int prepare_writer(struct audit_store *s, struct err *why)
{
	const struct {
		struct db_stmt **stmt;
		const char *sql;
	} all[] = {
		{&s->insert, AUDIT_INSERT},
		{&s->set_last, "INSERT INTO sender (incarnation, last, seen) VALUES (?1, ?2, ?3) "
			       "ON CONFLICT (incarnation) DO UPDATE SET last = excluded.last, seen = excluded.seen"},
		{&s->newest, "SELECT max(id) FROM event"},
		{&s->count_senders, "SELECT count(*) FROM sender"},
		{&s->forget, "DELETE FROM sender WHERE incarnation IN "
			     "(SELECT incarnation FROM sender ORDER BY seen DESC LIMIT -1 OFFSET ?1)"},
	};

	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		if ((*all[i].stmt = db_prepare(s->db, all[i].sql, why)) == NULL)
			return -1;
	return audit_open_prepare(&s->open, s->db, why);
}

static int prepare_common(struct audit_store *s, struct err *why)
{
	const struct {
		struct db_stmt **stmt;
		const char *sql;
	} all[] = {
		{&s->last_of, "SELECT last FROM sender WHERE incarnation = ?1"},
		/* Two lookups at the ends of an index each: min and max in one SELECT would read everything. */
		{&s->bounds, "SELECT (SELECT min(id) FROM event), (SELECT max(id) FROM event), "
			     "(SELECT min(time) FROM event), (SELECT max(time) FROM event)"},
	};

	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		if ((*all[i].stmt = db_prepare(s->db, all[i].sql, why)) == NULL)
			return -1;
	return 0;
}

struct audit_store *audit_store_open(const char *path, enum audit_mode mode, struct err *why)
{
	struct audit_store *s = calloc(1, sizeof *s);
	const bool reading = mode == AUDIT_READ;
	const struct db_options options = {
		.path = path,
		.read_only = reading,
		.application_id = APPLICATION_ID,
		.migrations = schema_audit_migrations,
		.permits = reading ? read_permits : permits,
		.npermits = reading ? sizeof read_permits / sizeof *read_permits : sizeof permits / sizeof *permits,
		.busy_timeout_ms = BUSY_MS,
		.value_max_bytes = 128 * 1024,
		.manual_checkpoint = true,
	};

	if (s == NULL) {
		err_set(why, "%s: out of memory", path);
		return NULL;
	}
	s->db = db_open(&options, why);
	if (s->db == NULL || prepare_common(s, why) != 0 || (!reading && prepare_writer(s, why) != 0))
		audit_store_close(&s);
	return s;
}

void audit_store_close(struct audit_store **store)
{
	struct audit_store *s = *store;

	*store = NULL;
	if (s == NULL)
		return;
	db_close(&s->db);
	free(s);
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

/* The first column of a statement that gives one row. */
static int read_number(struct db_stmt *stmt, int64_t *number, struct err *why)
{
	enum db_step rc = db_step(stmt, why);

	*number = rc == DB_ROW ? db_i64(stmt, 0) : 0;
	db_reset(stmt);
	return rc == DB_ROW ? 0 : -1;
}

int audit_store_begin(struct audit_store *s, struct err *why)
{
	s->nbatch = 0;
	if (db_begin(s->db, why) != 0)
		return -1;
	s->in_batch = true;
	/* Asked each time: should a stranger have added rows, ours follow them. */
	return read_number(s->newest, &s->last_id, why);
}

int audit_store_last(struct audit_store *s, uint64_t incarnation, uint64_t *sequence, struct err *why)
{
	enum db_step rc;

	*sequence = 0;
	db_bind_i64(s->last_of, 1, (int64_t)incarnation);
	rc = db_step(s->last_of, why);
	if (rc == DB_ROW)
		*sequence = (uint64_t)db_i64(s->last_of, 0);
	db_reset(s->last_of);
	return rc == DB_FAILED ? -1 : 0;
}

/* The sender's entry in this batch, or NULL. */
static struct sender *sender_of(struct audit_store *s, uint64_t incarnation)
{
	/* Backwards: the sender of the last record is likely the sender of this one. */
	for (size_t i = s->nbatch; i-- > 0;)
		if (s->batch[i].incarnation == incarnation)
			return &s->batch[i];
	return NULL;
}

/* A new entry, made from what is durable; NULL with *why.  There must be room. */
static struct sender *sender_add(struct audit_store *s, uint64_t incarnation, struct err *why)
{
	struct sender *new = &s->batch[s->nbatch];

	new->incarnation = incarnation;
	if (audit_store_last(s, incarnation, &new->last, why) != 0)
		return NULL;
	s->nbatch++;
	return new;
}

static int insert(struct audit_store *s, const struct audit_event *e, struct err *why)
{
	audit_row_bind(s->insert, s->last_id + 1, e);
	if (db_run(s->insert, why) != 0)
		return -1;
	s->last_id++;
	return 0;
}

int audit_store_append(struct audit_store *s, uint64_t incarnation, uint64_t sequence, const struct audit_event *e,
		       struct err *why)
{
	struct sender *sender = sender_of(s, incarnation);

	if (sender == NULL && s->nbatch == BATCH_SENDERS_MAX)
		return AUDIT_APPEND_LATER;
	if (sender == NULL && (sender = sender_add(s, incarnation, why)) == NULL)
		return -1;
	if (sequence <= sender->last)
		return 0;
	if (insert(s, e, why) != 0 || audit_open_note(&s->open, incarnation, s->last_id, e, why) != 0)
		return -1;
	sender->last = sequence;
	return 1;
}

int audit_store_settle(struct audit_store *s, struct audit_settling *at, unsigned max, unsigned *rows, struct err *why)
{
	struct audit_open_row page[SETTLE_PAGE];
	int n;

	*rows = 0;
	if (!at->begun) {
		at->begun = true;
		at->session = at->flow = INT64_MIN;
	}
	do {
		n = audit_open_after(&s->open, at->session, at->flow, page, SETTLE_PAGE, why);
		if (n < 0)
			return -1;
		for (int i = 0; i < n; i++) {
			if (*rows == max)
				return 1;
			at->session = (int64_t)page[i].session;
			at->flow = page[i].flow;
			if (!at->lost(page[i].incarnation, at->arg))
				continue;
			if (audit_open_closing(&s->open, &page[i], &s->event, why) != 0 ||
			    insert(s, &s->event, why) != 0 || audit_open_forget(&s->open, &page[i], why) != 0)
				return -1;
			++*rows;
		}
	} while (n == SETTLE_PAGE);
	return 0;
}

/* Writes down who has sent how far, and forgets those that have been silent the longest.  The newest event is what tells
 * the time. */
static int save_senders(struct audit_store *s, struct err *why)
{
	int64_t count;

	for (size_t i = 0; i < s->nbatch; i++) {
		db_bind_i64(s->set_last, 1, (int64_t)s->batch[i].incarnation);
		db_bind_i64(s->set_last, 2, (int64_t)s->batch[i].last);
		db_bind_i64(s->set_last, 3, s->last_id);
		if (db_run(s->set_last, why) != 0)
			return -1;
	}
	if (read_number(s->count_senders, &count, why) != 0)
		return -1;
	if (count <= AUDIT_SENDERS_MAX)
		return 0;
	db_bind_i64(s->forget, 1, AUDIT_SENDERS_MAX);
	return db_run(s->forget, why);
}

int audit_store_commit(struct audit_store *s, struct err *why)
{
	if (save_senders(s, why) != 0 || db_commit(s->db, why) != 0)
		return -1;
	s->in_batch = false;
	return 0;
}

void audit_store_rollback(struct audit_store *s)
{
	db_rollback(s->db);
	s->in_batch = false;
	s->nbatch = 0;
}

int audit_store_checkpoint(struct audit_store *s, struct err *why)
{
	if (s->in_batch || db_wal_pages(s->db) < CHECKPOINT_PAGES)
		return 0;
	return db_checkpoint(s->db, why);
}

int audit_store_counts(struct audit_store *s, struct audit_counts *out, struct err *why)
{
	enum db_step rc = db_step(s->bounds, why);

	*out = (struct audit_counts){0};
	if (rc == DB_ROW && !db_is_null(s->bounds, 1)) {
		out->rows = (uint64_t)(db_i64(s->bounds, 1) - db_i64(s->bounds, 0)) + 1;
		out->oldest_us = db_i64(s->bounds, 2);
		out->newest_us = db_i64(s->bounds, 3);
	}
	db_reset(s->bounds);
	return rc == DB_ROW ? 0 : -1;
}

/* ---- filters --------------------------------------------------------------------------------------------------- */

int audit_filter_verdict(struct audit_filter *f, const char *text, struct err *why)
{
	uint32_t kinds;

	if (strcmp(text, "allow") == 0)
		kinds = AUDIT_KINDS_ALLOW;
	else if (strcmp(text, "deny") == 0)
		kinds = AUDIT_KINDS_DENY;
	else
		return err_set(why, "a verdict is allow or deny");
	f->kinds = f->kinds == 0 ? kinds : f->kinds & kinds;
	return f->kinds == 0 ? err_set(why, "no event of this kind has this verdict") : 0;
}

/* A name as the audit keeps it: canonical; or as it stands where it is none, since refused ones are kept as sent. */
static int filter_name(struct audit_filter *f, enum audit_to to, const char *text, struct err *why)
{
	struct name name;
	struct addr address;
	const char *reason;
	size_t len = strlen(text);

	if (len == 0 || len > AUDIT_TEXT_MAX)
		return err_set(why,
			       "a destination is a name, .suffix, *.suffix, an address or a prefix like 192.0.2.0/24");
	f->to = to;
	switch (name_canonical(text, len, &name, &address, &reason)) {
	case NAME_IS_ADDRESS:
		if (to != AUDIT_TO_NAME)
			return err_set(why, "a suffix is part of a name, not an address");
		f->to = AUDIT_TO_PREFIX;
		f->to_prefix = (struct prefix){.addr = address, .bits = (uint8_t)addr_bits(&address)};
		return 0;
	case NAME_IS_NAME:
		memcpy(f->to_name, name.text, (size_t)name.len + 1);
		return 0;
	case NAME_REFUSED:
	default:
		memcpy(f->to_name, text, len + 1);
		return 0;
	}
}

int audit_filter_to(struct audit_filter *f, const char *text, struct err *why)
{
	bool host_bits;

	if (text[0] == '.')
		return filter_name(f, AUDIT_TO_SUFFIX, text + 1, why);
	if (text[0] == '*' && text[1] == '.')
		return filter_name(f, AUDIT_TO_BELOW, text + 2, why);
	if (prefix_parse(text, &f->to_prefix, &host_bits)) {
		f->to = AUDIT_TO_PREFIX;
		return 0;
	}
	if (host_bits)
		return err_set(why, "a prefix has no bits set behind its length: 192.0.2.0/24, not 192.0.2.1/24");
	if (strchr(text, '/') != NULL)
		return err_set(why, "this is no prefix: write it like 192.0.2.0/24 or 2001:db8::/32");
	return filter_name(f, AUDIT_TO_NAME, text, why);
}

/* True if name lies below suffix, at a label's border. */
static bool below(const char *name, size_t len, const char *suffix)
{
	size_t slen = strlen(suffix);

	return len > slen + 1 && name[len - slen - 1] == '.' && memcmp(name + len - slen, suffix, slen) == 0;
}

static bool same(const char *name, size_t len, const char *text)
{
	return strlen(text) == len && memcmp(name, text, len) == 0;
}

/* ---- asking ---------------------------------------------------------------------------------------------------- */

struct audit_query {
	struct audit_store *store;
	struct audit_filter filter;
	struct db_stmt *select;
	int64_t time, id;  /* of the last row looked at */
	int64_t far;	   /* the last time that belongs to the answer */
	int64_t newest_id; /* when the query began */
	uint64_t rows;
	bool ended, cut;
	struct audit_event event;
};

/* The order is by time, and by id among equal times; a page begins behind the last row looked at (?2 time, ?3 id) and
 * ends at the filter's far end (?1).  The index on time gives that order; a session's few rows are sorted.  The other
 * conditions are looked at row by row, so that a page ends in time however little matches. */
#define PAGE(conditions, order)                                                                                        \
	"SELECT " AUDIT_COLUMNS " FROM event WHERE " conditions " AND id <= ?4 ORDER BY time " order ", id " order
#define DOWN "time >= ?1 AND time <= ?2 AND (time < ?2 OR id < ?3)"
#define UP "time <= ?1 AND time >= ?2 AND (time > ?2 OR id > ?3)"

static const char *const page_sql[2][2] = {
	{PAGE(DOWN, "DESC"), PAGE(UP, "ASC")},
	{PAGE("session = ?5 AND " DOWN, "DESC"), PAGE("session = ?5 AND " UP, "ASC")},
};

struct audit_query *audit_query_new(struct audit_store *s, const struct audit_filter *f, struct err *why)
{
	struct audit_query *q = calloc(1, sizeof *q);
	enum db_step rc;

	if (q == NULL) {
		err_set(why, "out of memory");
		return NULL;
	}
	q->store = s;
	q->filter = *f;
	if (f->oldest_first) {
		q->time = f->since_us == 0 ? INT64_MIN : f->since_us;
		q->id = INT64_MIN;
		q->far = f->until_us == 0 ? INT64_MAX : f->until_us - 1;
	} else {
		q->time = f->until_us == 0 ? INT64_MAX : f->until_us - 1;
		q->id = INT64_MAX;
		q->far = f->since_us == 0 ? INT64_MIN : f->since_us;
	}
	q->select = db_prepare(s->db, page_sql[f->session != 0][f->oldest_first], why);
	rc = q->select == NULL ? DB_FAILED : db_step(s->bounds, why);
	if (rc == DB_ROW)
		q->newest_id = db_i64(s->bounds, 1);
	if (q->select != NULL)
		db_reset(s->bounds);
	if (rc != DB_ROW)
		audit_query_free(&q);
	return q;
}

void audit_query_free(struct audit_query **qp)
{
	struct audit_query *q = *qp;

	*qp = NULL;
	if (q == NULL)
		return;
	db_finalize(&q->select);
	free(q);
}

static bool destination_matches(const struct audit_filter *f, struct db_stmt *s)
{
	struct addr address;
	const char *name;
	size_t len;

	if (f->to == AUDIT_TO_ANY)
		return true;
	if (f->to == AUDIT_TO_PREFIX) {
		address = audit_row_address(s, COL_ADDRESS);
		return prefix_contains(&f->to_prefix, &address);
	}
	name = db_bytes(s, COL_NAME, &len);
	if (f->to != AUDIT_TO_BELOW && same(name, len, f->to_name))
		return true;
	return f->to != AUDIT_TO_NAME && below(name, len, f->to_name);
}

static bool row_matches(const struct audit_filter *f, struct db_stmt *s)
{
	int64_t kind = db_i64(s, COL_KIND);
	size_t len;

	if (kind < 0 || kind >= AUDIT_KIND_COUNT)
		return false; /* not written by us */
	if (f->kinds != 0 && (f->kinds & 1u << kind) == 0)
		return false;
	if (f->user[0] != '\0') {
		const char *user = db_bytes(s, COL_USER, &len);

		if (!same(user, len, f->user))
			return false;
	}
	if (f->client.addr.family != ADDR_NONE) {
		struct addr client = audit_row_address(s, COL_CLIENT);

		if (!prefix_contains(&f->client, &client))
			return false;
	}
	return destination_matches(f, s);
}

static void bind_page(struct audit_query *q)
{
	db_bind_i64(q->select, 1, q->far);
	db_bind_i64(q->select, 2, q->time);
	db_bind_i64(q->select, 3, q->id);
	db_bind_i64(q->select, 4, q->newest_id);
	if (q->filter.session != 0)
		db_bind_i64(q->select, 5, (int64_t)q->filter.session);
}

/* Looks at rows until the page ends: 1 more, 0 all, -1 failed. */
static int scan(struct audit_query *q, uint64_t max_rows, int64_t deadline_us, audit_row *row, void *arg,
		struct err *why)
{
	uint64_t given = 0;
	unsigned seen = 0;

	for (;;) {
		enum db_step rc = db_step(q->select, why);

		if (rc != DB_ROW)
			return rc == DB_DONE ? 0 : -1;
		q->time = db_i64(q->select, COL_TIME);
		q->id = db_i64(q->select, COL_ID);
		if (row_matches(&q->filter, q->select)) {
			audit_row_read(q->select, &q->event);
			q->rows++;
			given++;
			bool go_on = row((uint64_t)q->id, &q->event, arg);

			q->cut = q->rows == q->filter.limit;
			if (q->cut)
				return 0;
			if (!go_on || given == max_rows)
				return 1;
		}
		if (++seen % 64 == 0 && clock_mono_us() >= deadline_us)
			return 1;
	}
}

int audit_query_page(struct audit_query *q, uint64_t max_rows, int64_t max_us, audit_row *row, void *arg,
		     struct err *why)
{
	int rc;

	if (q->ended)
		return 0;
	bind_page(q);
	rc = scan(q, max_rows, clock_mono_us() + max_us, row, arg, why);
	db_reset(q->select);
	q->ended = rc != 1;
	return rc;
}

uint64_t audit_query_rows(const struct audit_query *q)
{
	return q->rows;
}

bool audit_query_cut(const struct audit_query *q)
{
	return q->cut;
}
