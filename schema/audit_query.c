#include "config.h"

#include "schema/audit_query.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/name.h"
#include "common/text.h"
#include "schema/audit_detail.h"
#include "schema/audit_row.h"
#include "schema/audit_segment.h"
#include "schema/db.h"

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

/* ---- segments --------------------------------------------------------------------------------------------------- */

struct part {
	uint32_t number;
	struct db *db; /* NULL: not open */
	unsigned users; /* who have it open: queries side by side, and the archive itself if it keeps it */
	bool keep;     /* it has a log: opened with the archive, since later that may not be possible any more */
	bool bounded;
	int64_t oldest_us, newest_us, first_id, last_id; /* last_id 0: no row */
};

struct audit_archive {
	struct part *parts; /* ascending */
	size_t nparts;
	char damage[512]; /* segments that could not be read, and why; "" */
};

static int open_part(struct part *p, struct err *why)
{
	char name[AUDIT_SEGMENT_NAME_MAX];

	if (p->db == NULL)
		p->db = audit_segment_open(audit_segment_name(p->number, name), AUDIT_READ, why);
	if (p->db == NULL)
		return -1;
	p->users++;
	return 0;
}

static void leave_part(struct part *p)
{
	if (--p->users == 0)
		db_close(&p->db);
}

/* It is left out from now on, and the answer says so. */
static void note_damage(struct audit_archive *a, struct part *p, const struct err *why)
{
	size_t used = strlen(a->damage);
	char name[AUDIT_SEGMENT_NAME_MAX];

	/* One that is there no more was pruned since it was listed (whoever verifies finds those that were not). */
	if (access(audit_segment_name(p->number, name), F_OK) == 0)
		snprintf(a->damage + used, sizeof a->damage - used, "%s%.200s", used == 0 ? "" : "; ", why->text);
	p->last_id = 0;
	p->bounded = true;
	if (p->keep && p->db != NULL)
		leave_part(p);
	p->keep = false;
}

struct audit_archive *audit_archive_open(struct err *why)
{
	struct audit_archive *a = calloc(1, sizeof *a);
	uint32_t *numbers = NULL;
	int n = a == NULL ? -1 : audit_segment_list(&numbers, why);

	if (a == NULL)
		err_set(why, "out of memory for the audit");
	if (n == 0)
		n = err_set(why, "there is no audit here, or one that gatewayd has to be started with once to bring it "
				 "up to date");
	if (n > 0 && (a->parts = calloc((size_t)n, sizeof *a->parts)) == NULL)
		n = err_set(why, "out of memory for the audit");
	for (int i = 0; i < n; i++) {
		struct part *p = &a->parts[a->nparts++];
		char name[AUDIT_SEGMENT_NAME_MAX];
		struct err reason;

		p->number = numbers[i];
		p->keep = audit_segment_has_log(audit_segment_name(p->number, name));
		if (p->keep && open_part(p, &reason) != 0)
			note_damage(a, p, &reason);
	}
	free(numbers);
	if (n <= 0 || (n == 1 && a->damage[0] != '\0')) {
		if (n == 1)
			err_set(why, "%s", a->damage);
		audit_archive_close(&a);
	}
	return a;
}

void audit_archive_close(struct audit_archive **archive)
{
	struct audit_archive *a = *archive;

	*archive = NULL;
	if (a == NULL)
		return;
	for (size_t i = 0; i < a->nparts; i++)
		db_close(&a->parts[i].db);
	free(a->parts);
	free(a);
}

const char *audit_archive_damage(const struct audit_archive *a)
{
	return a->damage;
}

/* How far a segment reaches: two lookups at the ends of an index each, since min and max in one SELECT would read it
 * all. */
static int bound_part(struct part *p, struct err *why)
{
	struct db_stmt *s;
	enum db_step rc;

	if (open_part(p, why) != 0)
		return -1;
	s = db_prepare(p->db,
		       "SELECT (SELECT min(time) FROM event), (SELECT max(time) FROM event), (SELECT min(id) FROM event), "
		       "(SELECT max(id) FROM event)",
		       why);
	rc = s == NULL ? DB_FAILED : db_step(s, why);

	if (rc == DB_ROW) {
		p->oldest_us = db_i64(s, 0);
		p->newest_us = db_i64(s, 1);
		p->first_id = db_i64(s, 2);
		p->last_id = db_i64(s, 3);
		p->bounded = true;
	}
	db_finalize(&s);
	leave_part(p);
	return rc == DB_ROW ? 0 : -1;
}

static void bound_all(struct audit_archive *a)
{
	struct err why;

	for (size_t i = 0; i < a->nparts; i++)
		/* The last one grows. */
		if ((!a->parts[i].bounded || a->parts[i].keep) && (a->parts[i].db != NULL || !a->parts[i].keep) &&
		    bound_part(&a->parts[i], &why) != 0)
			note_damage(a, &a->parts[i], &why);
}

void audit_archive_counts(struct audit_archive *a, struct audit_counts *out)
{
	*out = (struct audit_counts){0};
	bound_all(a);
	for (size_t i = 0; i < a->nparts; i++) {
		const struct part *p = &a->parts[i];

		if (p->last_id == 0)
			continue;
		out->rows += (uint64_t)p->last_id - (uint64_t)p->first_id + 1;
		if (out->oldest_us == 0 || p->oldest_us < out->oldest_us)
			out->oldest_us = p->oldest_us;
		if (p->newest_us > out->newest_us)
			out->newest_us = p->newest_us;
	}
}

/* ---- asking ---------------------------------------------------------------------------------------------------- */

/* The index that leads to the rows. */
enum way { BY_TIME, BY_SESSION, BY_USER, BY_ID, BY_SCAN, FOR_SUMS, WAYS };

/* A segment that is written has no index of users, but is small: reading all of it in its own order takes a fifth of the
 * time that leading to each row by its time takes.  Its rows are sorted, so many at a time. */
#define SCAN_ROWS_MAX 4000000
#define SCAN_SORTED 2000
/* Each round and each page reads all of it anew: whoever has rows for more of them is led to by time, as everybody is. */
#define SCAN_ROUNDS 4

/* One segment's share of an answer. */
struct cursor {
	struct part *part;
	struct db_stmt *select;
	enum way way;
	int64_t time, id; /* of the last row looked at */
	bool opened, over;
	bool row; /* stands on one, within a page */
	unsigned sorted; /* BY_SCAN: rows of this round */
	unsigned rounds; /* BY_SCAN: begun, over all pages */
};

struct audit_query {
	struct audit_archive *archive;
	struct audit_filter filter;
	struct cursor *cursors; /* in the order of their first row in the answer */
	size_t ncursors;
	int64_t begin;	   /* the time that the answer begins with */
	int64_t far;	   /* the last time that belongs to the answer */
	int64_t newest_id; /* when the query began */
	bool by_id;	   /* its rows come in the order of ids */
	bool sums;
	uint64_t rows;
	bool ended, cut;
	struct audit_event event;
};

/* The order is by time, and by id among equal times; a page begins behind the last row looked at (?2 time, ?3 id) and
 * ends at the filter's far end (?1).  The index on time gives that order; a session's few rows are sorted.  The other
 * conditions are looked at row by row, so that a page ends in time however little matches. */
#define PAGE(conditions, order)                                                                                        \
	"SELECT " AUDIT_COLUMNS " FROM event WHERE " conditions " AND id <= ?4 ORDER BY time " order ", id " order
#define SCAN(conditions, order)                                                                                        \
	"SELECT " AUDIT_COLUMNS " FROM event NOT INDEXED WHERE user = ?5 AND " conditions                              \
	" AND id <= ?4 ORDER BY time " order ", id " order " LIMIT ?6"
#define DOWN "time >= ?1 AND time <= ?2 AND (time < ?2 OR id < ?3)"
#define UP "time <= ?1 AND time >= ?2 AND (time > ?2 OR id > ?3)"

static const char *const page_sql[WAYS][2] = {
	[BY_TIME] = {PAGE(DOWN, "DESC"), PAGE(UP, "ASC")},
	[BY_SESSION] = {PAGE("session = ?5 AND " DOWN, "DESC"), PAGE("session = ?5 AND " UP, "ASC")},
	/* What was recorded since: the time does not matter. */
	[BY_ID] = {NULL, "SELECT " AUDIT_COLUMNS " FROM event WHERE id > ?3 AND id <= ?4 ORDER BY id"},
	/* No index, and only the columns that sums are made of: one walk through each file. */
	[FOR_SUMS] = {NULL, "SELECT id, time, kind, NULL, NULL, NULL, NULL, NULL, NULL, bytes_up, bytes_down, NULL, NULL, NULL, NULL, NULL, "
			    "NULL, rule, NULL, detail FROM event NOT INDEXED WHERE id > ?3 AND id <= ?4 AND time >= ?2 AND time <= ?1 "
			    "ORDER BY id"},
	[BY_USER] = {PAGE("user = ?5 AND " DOWN, "DESC"), PAGE("user = ?5 AND " UP, "ASC")},
	[BY_SCAN] = {SCAN(DOWN, "DESC"), SCAN(UP, "ASC")},
};

static int by_newest(const void *a, const void *b)
{
	const struct cursor *x = a, *y = b;

	return x->part->newest_us > y->part->newest_us ? -1 : x->part->newest_us < y->part->newest_us;
}

static int by_oldest(const void *a, const void *b)
{
	const struct cursor *x = a, *y = b;

	return x->part->oldest_us < y->part->oldest_us ? -1 : x->part->oldest_us > y->part->oldest_us;
}

static void choose_cursors(struct audit_query *q)
{
	struct audit_archive *a = q->archive;
	const int64_t low = q->filter.oldest_first ? q->begin : q->far;
	const int64_t high = q->filter.oldest_first ? q->far : q->begin;

	for (size_t i = 0; i < a->nparts; i++) {
		struct part *p = &a->parts[i];

		if (p->last_id > q->newest_id)
			q->newest_id = p->last_id;
		if (p->last_id == 0 || p->newest_us < low || p->oldest_us > high)
			continue;
		if (q->filter.after != 0 && p->last_id <= (int64_t)q->filter.after)
			continue;
		q->cursors[q->ncursors++] = (struct cursor){.part = p,
							    .time = q->begin,
							    .id = !q->filter.oldest_first ? INT64_MAX
								  : q->filter.after != 0  ? (int64_t)q->filter.after
											  : INT64_MIN};
	}
	/* By id they stand in order already. */
	if (q->ncursors > 0 && !q->by_id)
		qsort(q->cursors, q->ncursors, sizeof *q->cursors, q->filter.oldest_first ? by_oldest : by_newest);
}

static bool is_of_summed_columns(const struct audit_filter *f)
{
	return f->session == 0 && f->user[0] == '\0' && f->client.addr.family == ADDR_NONE && f->to == AUDIT_TO_ANY && f->group[0] == '\0' &&
	       f->text[0] == '\0' && f->country[0] == '\0' && f->revision == 0 && f->port == 0 && f->id == 0 && f->after == 0;
}

static struct audit_query *query_new(struct audit_archive *a, const struct audit_filter *f, bool sums, struct err *why)
{
	struct audit_query *q = calloc(1, sizeof *q);

	if (q != NULL)
		q->cursors = calloc(a->nparts, sizeof *q->cursors);
	if (q == NULL || q->cursors == NULL) {
		audit_query_free(&q);
		err_set(why, "out of memory");
		return NULL;
	}
	q->archive = a;
	q->filter = *f;
	/* One row: it comes right after the one before it. */
	if (f->id > 1)
		q->filter.after = f->id - 1;
	q->sums = sums && is_of_summed_columns(f);
	q->by_id = q->filter.after != 0 || q->sums;
	q->filter.oldest_first |= q->by_id;
	if (q->filter.oldest_first) {
		q->begin = f->since_us == 0 ? INT64_MIN : f->since_us;
		q->far = f->until_us == 0 ? INT64_MAX : f->until_us - 1;
	} else {
		q->begin = f->until_us == 0 ? INT64_MAX : f->until_us - 1;
		q->far = f->since_us == 0 ? INT64_MIN : f->since_us;
	}
	bound_all(a);
	choose_cursors(q);
	if (f->id != 0 && q->newest_id > (int64_t)f->id)
		q->newest_id = (int64_t)f->id;
	return q;
}

struct audit_query *audit_query_new(struct audit_archive *a, const struct audit_filter *f, struct err *why)
{
	return query_new(a, f, false, why);
}

struct audit_query *audit_query_sums(struct audit_archive *a, const struct audit_filter *f, struct err *why)
{
	return query_new(a, f, true, why);
}

static void end_cursor(struct cursor *c)
{
	c->over = true;
	c->row = false;
	if (c->select != NULL)
		db_finalize(&c->select);
	if (c->opened)
		leave_part(c->part);
}

void audit_query_free(struct audit_query **qp)
{
	struct audit_query *q = *qp;

	*qp = NULL;
	if (q == NULL)
		return;
	for (size_t i = 0; i < q->ncursors; i++)
		if (!q->cursors[i].over)
			end_cursor(&q->cursors[i]);
	free(q->cursors);
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

static bool column_is(struct db_stmt *s, enum audit_column column, const char *text)
{
	size_t len;
	const char *is = *text == '\0' ? NULL : db_bytes(s, (int)column, &len);

	return is == NULL || same(is, len, text);
}

static bool has_text(struct db_stmt *s, const char *text)
{
	for (int column = COL_LISTENER; *text != '\0' && column <= COL_DETAIL; column++) {
		size_t len;
		const void *is = db_bytes(s, column, &len);

		if (memmem(is, len, text, strlen(text)) != NULL)
			return true;
	}
	return *text == '\0';
}

static bool has_country(struct db_stmt *s, const char *country)
{
	size_t len;
	const char *detail = *country == '\0' ? NULL : db_bytes(s, COL_DETAIL, &len);

	return detail == NULL || audit_detail_in_country(detail, len, country);
}

/* {"groups": [...]}, escaped as text is. */
static bool has_group(struct db_stmt *s, const char *group)
{
	char safe[4 * AUDIT_TEXT_MAX + 8];
	size_t len, i;
	bool has = false;

	if (*group == '\0')
		return true;
	text_escape(group, strlen(group), safe, sizeof safe);
	const char *detail = db_bytes(s, COL_DETAIL, &len);
	json_t *object = memmem(detail, len, "\"groups\"", 8) == NULL ? NULL : json_loadb(detail, len, 0, NULL), *one;

	json_array_foreach(json_object_get(object, "groups"), i, one) has |=
		json_is_string(one) && strcmp(json_string_value(one), safe) == 0;
	json_decref(object);
	return has;
}

static bool row_matches(const struct audit_filter *f, struct db_stmt *s)
{
	int64_t kind = db_i64(s, COL_KIND);

	if (kind < 0 || kind >= AUDIT_KIND_COUNT)
		return false; /* not written by us */
	if (f->kinds != 0 && (f->kinds & 1u << kind) == 0)
		return false;
	if (f->port != 0 && db_i64(s, COL_PORT) != f->port)
		return false;
	if (f->revision != 0 && db_i64(s, COL_REVISION) != f->revision)
		return false;
	if (!column_is(s, COL_USER, f->user) || !column_is(s, COL_RULE, f->rule))
		return false;
	if (f->client.addr.family != ADDR_NONE) {
		struct addr client = audit_row_address(s, COL_CLIENT);

		if (!prefix_contains(&f->client, &client))
			return false;
	}
	return destination_matches(f, s) && has_text(s, f->text) && has_country(s, f->country) &&
	       has_group(s, f->group);
}

bool audit_filter_matches(const struct audit_filter *f, struct db_stmt *row)
{
	int64_t time = db_i64(row, COL_TIME);

	if ((f->since_us != 0 && time < f->since_us) || (f->until_us != 0 && time >= f->until_us))
		return false;
	if (f->id != 0 && (uint64_t)db_i64(row, COL_ID) != f->id)
		return false;
	if (f->session != 0 && (uint64_t)db_i64(row, COL_SESSION) != f->session)
		return false;
	return row_matches(f, row);
}

/* A segment that is written no more knows its users by heart. */
static bool has_user_index(struct db *db)
{
	struct err why;
	struct db_stmt *s =
		db_prepare(db, "SELECT 1 FROM sqlite_master WHERE type = 'index' AND name = 'event_user'", &why);
	bool has = s != NULL && db_step(s, &why) == DB_ROW;

	db_finalize(&s);
	return has;
}

static void bind_page(struct audit_query *q, struct cursor *c)
{
	if (c->way != BY_ID) {
		db_bind_i64(c->select, 1, q->far);
		db_bind_i64(c->select, 2, q->sums ? q->begin : c->time);
	}
	db_bind_i64(c->select, 3, c->id);
	db_bind_i64(c->select, 4, q->newest_id);
	if (c->way == BY_SESSION)
		db_bind_i64(c->select, 5, (int64_t)q->filter.session);
	else if (c->way == BY_USER || c->way == BY_SCAN)
		db_bind_text(c->select, 5, q->filter.user);
	if (c->way == BY_SCAN)
		db_bind_i64(c->select, 6, SCAN_SORTED);
	c->sorted = 0;
}

static enum way choose_way(const struct audit_query *q, const struct part *p)
{
	if (q->by_id)
		return q->sums ? FOR_SUMS : BY_ID;
	if (q->filter.session != 0)
		return BY_SESSION;
	if (q->filter.user[0] == '\0')
		return BY_TIME;
	if (has_user_index(p->db))
		return BY_USER;
	return (uint64_t)p->last_id - (uint64_t)p->first_id < SCAN_ROWS_MAX ? BY_SCAN : BY_TIME;
}

static int prepare_cursor(struct audit_query *q, struct cursor *c, struct err *why)
{
	if (open_part(c->part, why) != 0)
		return -1;
	c->opened = true;
	c->way = choose_way(q, c->part);
	c->select = db_prepare(c->part->db, page_sql[c->way][q->filter.oldest_first], why);
	return c->select == NULL ? -1 : 0;
}

/* A segment that fails in the middle is left out from there, and the answer says so. */
static void fail_cursor(struct audit_query *q, struct cursor *c, const struct err *why)
{
	end_cursor(c);
	note_damage(q->archive, c->part, why);
}

/* Before its next row: -1 if that cannot be asked for. */
static int begin_round(struct audit_query *q, struct cursor *c, struct err *why)
{
	if (c->way == BY_SCAN && c->rounds++ == SCAN_ROUNDS) {
		db_finalize(&c->select);
		c->way = BY_TIME;
		c->select = db_prepare(c->part->db, page_sql[c->way][q->filter.oldest_first], why);
		if (c->select == NULL)
			return -1;
	}
	bind_page(q, c);
	return 0;
}

static void step(struct audit_query *q, struct cursor *c)
{
	struct err why;
	enum db_step rc = db_step(c->select, &why);

	if (rc == DB_DONE && c->way == BY_SCAN && c->sorted == SCAN_SORTED) {
		db_reset(c->select);
		rc = begin_round(q, c, &why) == 0 ? db_step(c->select, &why) : DB_FAILED;
	}
	c->row = rc == DB_ROW;
	if (rc == DB_FAILED) {
		fail_cursor(q, c, &why);
	} else if (rc == DB_DONE) {
		end_cursor(c);
	} else {
		c->sorted++;
		c->time = db_i64(c->select, COL_TIME);
		c->id = db_i64(c->select, COL_ID);
	}
}

/* Stands on its next row, in this page's transaction. */
static void enter(struct audit_query *q, struct cursor *c)
{
	struct err why;

	if ((c->select == NULL && prepare_cursor(q, c, &why) != 0) || begin_round(q, c, &why) != 0) {
		fail_cursor(q, c, &why);
		return;
	}
	step(q, c);
}

static bool comes_first(const struct audit_query *q, const struct cursor *a, const struct cursor *b)
{
	if (a->time != b->time && !q->by_id)
		return q->filter.oldest_first ? a->time < b->time : a->time > b->time;
	return q->filter.oldest_first ? a->id < b->id : a->id > b->id;
}

/* May hold a row that comes before (or with) that of best. */
static bool may_come_first(const struct audit_query *q, const struct cursor *c, const struct cursor *best)
{
	if (best == NULL)
		return true;
	if (q->by_id)
		return c->part->first_id <= best->id;
	return q->filter.oldest_first ? c->part->oldest_us <= best->time : c->part->newest_us >= best->time;
}

/* The cursor with the next row of all; NULL: there is none.  Those that begin later are not opened before their time.
 */
static struct cursor *next(struct audit_query *q)
{
	struct cursor *best = NULL;

	for (size_t i = 0; i < q->ncursors; i++) {
		struct cursor *c = &q->cursors[i];

		if (c->over)
			continue;
		if (!c->row) {
			if (!may_come_first(q, c, best))
				break;
			enter(q, c);
		}
		if (c->row && (best == NULL || comes_first(q, c, best)))
			best = c;
	}
	return best;
}

/* Looks at rows until the page ends: 1 more, 0 all.  Its time begins with its first row, which may have been long looked for: with
 * none of it left, each page would look as long for a handful of rows. */
static int scan(struct audit_query *q, uint64_t max_rows, int64_t max_us, audit_row *row, void *arg)
{
	int64_t deadline_us = 0;
	uint64_t given = 0;
	unsigned seen = 0;

	for (;;) {
		struct cursor *c = next(q);

		if (c == NULL)
			return 0;
		if (seen == 0)
			deadline_us = clock_mono_us() + max_us;
		c->row = false; /* it has been looked at */
		if (audit_filter_matches(&q->filter, c->select) && audit_row_read(c->select, &q->event)) {
			q->rows++;
			given++;
			bool go_on = row((uint64_t)c->id, &q->event, arg);

			q->cut = q->rows == q->filter.limit;
			if (q->cut)
				return 0;
			if (!go_on || given == max_rows)
				return 1;
		}
		if (++seen % 64 == 0 && clock_mono_us() >= deadline_us)
			return 1;
		step(q, c);
	}
}

/* Where a cursor stands on a row that was not looked at, it stands before it again. */
static void leave_page(struct audit_query *q)
{
	for (size_t i = 0; i < q->ncursors; i++) {
		struct cursor *c = &q->cursors[i];

		if (c->select != NULL)
			db_reset(c->select);
		if (c->row)
			c->id += q->filter.oldest_first ? -1 : 1;
		c->row = false;
	}
}

int audit_query_page(struct audit_query *q, uint64_t max_rows, int64_t max_us, audit_row *row, void *arg)
{
	int rc;

	if (q->ended)
		return 0;
	rc = scan(q, max_rows, max_us, row, arg);
	leave_page(q);
	q->ended = rc != 1;
	return rc;
}

uint64_t audit_query_rows(const struct audit_query *q)
{
	return q->rows;
}

/* By the time (or the id) of what was looked at last, in each segment, as if rows were spread evenly in it. */
static double way_gone(const struct audit_query *q, const struct cursor *c)
{
	const struct part *p = c->part;
	const bool up = q->filter.oldest_first, by_id = q->by_id;
	int64_t low = by_id ? p->first_id : p->oldest_us, high = by_id ? p->last_id : p->newest_us;
	int64_t from = up ? q->begin : q->far, to = up ? q->far : q->begin, at = by_id ? c->id : c->time;

	if (c->over)
		return 1;
	if (!by_id && from > low)
		low = from;
	if (!by_id && to < high)
		high = to;
	if (high <= low || at <= low || at >= high)
		return up == (at >= high) ? 1 : 0;
	return (double)(up ? at - low : high - at) / (double)(high - low);
}

unsigned audit_query_progress(const struct audit_query *q)
{
	double gone = 0, all = 0;

	for (size_t i = 0; i < q->ncursors; i++) {
		double rows = (double)q->cursors[i].part->last_id - (double)q->cursors[i].part->first_id + 1;

		gone += q->cursors[i].opened ? rows * way_gone(q, &q->cursors[i]) : 0;
		all += rows;
	}
	return q->ended || all <= 0 ? 1000 : (unsigned)(1000 * gone / all);
}

uint64_t audit_query_newest(const struct audit_query *q)
{
	return (uint64_t)q->newest_id;
}

bool audit_query_cut(const struct audit_query *q)
{
	return q->cut;
}
