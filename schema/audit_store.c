#include "config.h"

#include "schema/audit_store.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "schema/audit_holds.h"
#include "schema/audit_open.h"
#include "schema/audit_prune.h"
#include "schema/audit_row.h"
#include "schema/audit_segment.h"
#include "schema/db.h"

/* The log is folded into the file when it has this many pages (4 KiB each). */
#define CHECKPOINT_PAGES 1000
/* Different senders in one batch: the next one has to wait for the next batch. */
#define BATCH_SENDERS_MAX 255
/* Open sessions that are looked at in one piece. */
#define OPEN_PAGE 256
/* Rows of one entry of the chain; a batch with more has several. */
#define ENTRY_ROWS_MAX 4096
#define EPOCH_US (60 * INT64_C(1000000))
#define EPOCH_COMMITS 10000
#define DAY_US (24 * 3600 * INT64_C(1000000))
/* After a segment could not be begun, and between looks at those that still have a log. */
#define RETRY_US (60 * INT64_C(1000000))
/* A smaller segment is finished in less time than anybody notices. */
#define FINISH_AT_ONCE_BYTES (4 * 1024 * 1024)
/* No row of ours has such a number: the chain tells of none above 2^62. */
#define FAR_BEHIND "2305843009213693952"
/* Rows that are written in one statement. */
#define RUN_MAX 64

struct sender {
	uint64_t incarnation;
	uint64_t last; /* in this batch */
};

/* A segment that is written. */
struct writer {
	struct db *db;
	uint32_t number;
	int64_t began_us; /* wall clock */
	uint32_t version; /* of the database when our last commit had ended, */
	bool sees;	  /* which there is, and was none of a transaction's that was taken back since */
	bool small;	  /* its file was smaller than a segment may be, and no log was folded into it since */
	struct db_stmt *insert, *link, *last_of, *set_last, *forget, *newest, *count_senders, *senders;
	struct audit_open open;
};

/* How far events and chain have come. */
struct position {
	int64_t event, entry;
	uint8_t mac[AUDIT_MAC_BYTES];
};

struct audit_store {
	struct writer now;
	struct writer next; /* its db is there while the segment changes */
	bool relaxed;
	bool ended;		 /* the segment of now has its last entry */
	bool renewing;		 /* its event tells of the new chain that the next segment begins */
	int64_t rotate_after_us; /* monotonic */
	uint64_t segment_bytes;
	uint32_t segments;
	/* Segments that are to be finished: from this number on; 0: none.  A large one is a child's work. */
	uint32_t unfinished;
	pid_t finisher;
	int64_t finish_after_us; /* monotonic */
	int64_t first_event;	 /* of the oldest segment */

	struct audit_ring *ring;
	bool ratchet_due;	/* the epoch is sealed, its key still there */
	int64_t epoch_began_us; /* monotonic */
	unsigned epoch_commits;

	uint8_t holds[AUDIT_DIGEST_BYTES]; /* a digest of those that stand */
	bool knows_holds;
	struct position durable, at; /* before this batch, and in it */
	struct sender batch[BATCH_SENDERS_MAX];
	size_t nbatch;
	bool newcomers; /* among them */
	/* Of the last commit that had any, durable: it is likely that the same are asked for, and are in the next. */
	struct sender known[BATCH_SENDERS_MAX];
	size_t nknown;
	bool in_batch;
	/* The entry that is being made: its first row, and what its rows are known by. */
	int64_t first;
	size_t nrows;
	/* Rows, with their numbers and known to the entry, that are still to be written; by their columns, which are
	 * borrowed. */
	const struct db_value *run[RUN_MAX];
	size_t nrun;
	uint8_t body[ENTRY_ROWS_MAX * AUDIT_COMMIT_ROW_BYTES + BATCH_SENDERS_MAX * AUDIT_COMMIT_SENDER_BYTES];
	uint8_t row[AUDIT_ROW_BYTES_MAX];
	struct audit_event event; /* being made; too big for a stack frame */
};

/* ---- segments: their statements ---------------------------------------------------------------------------------- */

static int prepare(struct writer *w, struct err *why)
{
	const struct {
		struct db_stmt **stmt;
		const char *sql;
	} all[] = {
		{&w->insert, AUDIT_INSERT_GIVEN},
		{&w->link, "INSERT INTO chain (id, kind, epoch, time, first, count, body, mac) "
			   "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"},
		{&w->last_of, "SELECT last FROM sender WHERE incarnation = ?1"},
		{&w->set_last, "INSERT INTO sender (incarnation, last, seen) VALUES (?1, ?2, ?3) "
			       "ON CONFLICT (incarnation) DO UPDATE SET last = excluded.last, seen = excluded.seen"},
		/* A stranger's row far behind is none that ours have to follow: there is an end of numbers. */
		{&w->newest, "SELECT max(id) FROM event WHERE id < " FAR_BEHIND},
		{&w->count_senders, "SELECT count(*) FROM sender"},
		{&w->senders, "SELECT incarnation, last, seen FROM sender ORDER BY incarnation"},
		/* Who has something open may still send, however long ago it last did. */
		{&w->forget, "DELETE FROM sender WHERE incarnation IN "
			     "(SELECT incarnation FROM sender ORDER BY seen DESC LIMIT -1 OFFSET ?1) "
			     "AND incarnation NOT IN (SELECT incarnation FROM open_session)"},
	};

	if (db_offer(w->db, AUDIT_GIVEN, AUDIT_COLUMNS, why) != 0)
		return -1;
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		if ((*all[i].stmt = db_prepare(w->db, all[i].sql, why)) == NULL)
			return -1;
	return audit_open_prepare(&w->open, w->db, why);
}

static void close_writer(struct writer *w)
{
	audit_open_release(&w->open);
	db_close(&w->db);
	*w = (struct writer){0};
}

static int open_writer(struct writer *w, uint32_t number, bool relaxed, struct err *why)
{
	char name[AUDIT_SEGMENT_NAME_MAX];

	*w = (struct writer){.number = number};
	w->db = audit_segment_open(audit_segment_name(number, name), relaxed ? AUDIT_WRITE_RELAXED : AUDIT_WRITE, why);
	if (w->db != NULL && prepare(w, why) == 0)
		return 0;
	close_writer(w);
	return -1;
}

/* The first column of a statement that gives one row. */
static int read_number(struct db_stmt *stmt, int64_t *number, struct err *why)
{
	enum db_step rc = db_step(stmt, why);

	*number = rc == DB_ROW ? db_i64(stmt, 0) : 0;
	db_reset(stmt);
	return rc == DB_ROW ? 0 : -1;
}

/* An entry as it stands in the file: 1, 0 if there is none, -1.  first: of the segment, else its last. */
struct found {
	int64_t id, kind, epoch, time_us, first, count, adopted;
	uint8_t mac[AUDIT_MAC_BYTES], before[AUDIT_MAC_BYTES];
	uint8_t store[AUDIT_ID_BYTES]; /* of a first entry */
};

static int find_entry(struct db *db, bool first, struct found *f, struct err *why)
{
	struct db_stmt *s = db_prepare(
		db,
		first ? "SELECT id, kind, epoch, time, first, count, mac, body FROM chain ORDER BY id LIMIT 1"
		      : "SELECT id, kind, epoch, time, first, count, mac, body FROM chain "
			"ORDER BY id DESC LIMIT 1",
		why);
	enum db_step rc = s == NULL ? DB_FAILED : db_step(s, why);
	size_t len;

	*f = (struct found){0};
	if (rc == DB_ROW) {
		int64_t *const numbers[] = {&f->id, &f->kind, &f->epoch, &f->time_us, &f->first, &f->count};

		for (int i = 0; i < 6; i++)
			*numbers[i] = db_i64(s, i);
		const uint8_t *mac = db_bytes(s, 6, &len);

		memcpy(f->mac, mac, len < sizeof f->mac ? len : sizeof f->mac);
		const uint8_t *body = db_bytes(s, 7, &len);

		if (f->kind == AUDIT_ENTRY_BEGIN && len >= AUDIT_BEGIN_BYTES) {
			memcpy(f->store, body, sizeof f->store);
			memcpy(f->before, body + AUDIT_ID_BYTES + 4, sizeof f->before);
			f->adopted = (int64_t)audit_get_u64(body + AUDIT_ID_BYTES + 4 + AUDIT_MAC_BYTES);
		}
	}
	db_finalize(&s);
	return rc == DB_FAILED ? -1 : rc == DB_ROW;
}

/* The last row that it knows of; 0 where it tells of none that can be: those that are there tell of theirs. */
static int64_t last_row(const struct found *f)
{
	if (f->first < 0 || f->first > INT64_MAX / 2 || f->count < 0 || f->count > INT32_MAX)
		return 0;
	return f->first + f->count - 1;
}

/* ---- the chain --------------------------------------------------------------------------------------------------- */

static int put_entry(struct audit_store *s, struct writer *w, enum audit_entry_kind kind, int64_t first, int64_t count,
		     const uint8_t *body, size_t len, struct err *why)
{
	const struct audit_entry e = {
		.id = s->at.entry + 1,
		.kind = kind,
		.epoch = s->ring->keys.epoch,
		.time_us = clock_wall_us(),
		.first = first,
		.count = count,
		.body = body,
		.len = len,
	};
	uint8_t mac[AUDIT_MAC_BYTES];

	audit_entry_mac(&s->ring->keys, s->at.mac, &e, mac);
	db_bind_i64(w->link, 1, e.id);
	db_bind_i64(w->link, 2, e.kind);
	db_bind_i64(w->link, 3, (int64_t)e.epoch);
	db_bind_i64(w->link, 4, e.time_us);
	db_bind_i64(w->link, 5, e.first);
	db_bind_i64(w->link, 6, e.count);
	db_bind_blob(w->link, 7, body, len);
	db_bind_blob(w->link, 8, mac, sizeof mac);
	if (db_run(w->link, why) != 0)
		return -1;
	s->at.entry = e.id;
	memcpy(s->at.mac, mac, sizeof mac);
	return 0;
}

/* The rows since the last entry, and all who sent in this batch. */
static int put_commit(struct audit_store *s, struct writer *w, struct err *why)
{
	uint8_t *at = s->body + s->nrows * AUDIT_COMMIT_ROW_BYTES;
	int rc;

	if (s->nrows == 0 && s->nbatch == 0)
		return 0;
	for (size_t i = 0; i < s->nbatch; i++) {
		at = audit_put_u64(at, s->batch[i].incarnation);
		at = audit_put_u64(at, s->batch[i].last);
	}
	rc = put_entry(s, w, AUDIT_ENTRY_COMMIT, s->first, (int64_t)s->nrows, s->body, (size_t)(at - s->body), why);
	s->nrows = 0;
	s->first = s->at.event + 1;
	return rc;
}

/* A row has its place: now the chain knows it. */
static int link_row(struct audit_store *s, struct writer *w, size_t len, uint8_t sender, struct err *why)
{
	uint8_t *at = s->body + s->nrows * AUDIT_COMMIT_ROW_BYTES;

	if (len == 0)
		return err_set(why, "a row of the audit is larger than any can be");
	audit_row_digest(&s->ring->keys, s->row, len, at);
	at[AUDIT_DIGEST_BYTES] = sender;
	s->nrows++;
	return s->nrows == ENTRY_ROWS_MAX ? put_commit(s, w, why) : 0;
}

/* To be called before anybody looks for rows, and before the end. */
static int write_run(struct audit_store *s, struct writer *w, struct err *why)
{
	size_t n = s->nrun;

	if (n == 0)
		return 0;
	s->nrun = 0;
	db_give(w->db, s->run, n);
	return db_insert_given(w->insert, why);
}

/* The row, and what it borrows, must be there until it is written. */
static int add_row(struct audit_store *s, struct writer *w, struct audit_row *row, uint8_t sender, struct err *why)
{
	if (s->nrun == RUN_MAX && write_run(s, w, why) != 0)
		return -1;
	row->values[COL_ID] = (struct db_value){.type = DB_INTEGER, .number = ++s->at.event};
	s->run[s->nrun++] = row->values;
	return link_row(s, w, audit_row_bytes(row, s->row), sender, why);
}

static int insert(struct audit_store *s, struct writer *w, const struct audit_event *e, uint8_t sender, struct err *why)
{
	struct audit_row row;

	audit_row_of(e, &row);
	return add_row(s, w, &row, sender, why) != 0 ? -1 : write_run(s, w, why);
}

/* ---- transactions ------------------------------------------------------------------------------------------------ */

static int begin(struct audit_store *s, struct writer *w, struct err *why)
{
	int64_t newest;

	s->nbatch = 0;
	s->newcomers = false;
	s->nrows = s->nrun = 0;
	s->at = s->durable;
	if (db_begin(w->db, why) != 0)
		return -1;
	s->in_batch = true;
	/* Should a stranger have added rows, ours follow them, and the chain says that they are none of ours.  When nobody
	 * has committed since we did, nobody has. */
	if (!w->sees || db_version(w->db) != w->version) {
		if (read_number(w->newest, &newest, why) != 0)
			return -1;
		if (newest > s->at.event)
			s->at.event = newest;
	}
	s->first = s->at.event + 1;
	return audit_open_load(&w->open, why);
}

static void rollback(struct audit_store *s, struct writer *w)
{
	db_rollback(w->db);
	w->sees = false;
	s->in_batch = false;
	s->nbatch = s->nknown = 0;
	s->nrows = s->nrun = 0;
	audit_open_drop(&w->open);
	s->at = s->durable;
}

static struct audit_head head_of(const struct audit_store *s)
{
	struct audit_head head = {.epoch = s->ring->keys.epoch, .entry = s->durable.entry};

	memcpy(head.store, s->ring->store, sizeof head.store);
	memcpy(head.mac, s->durable.mac, sizeof head.mac);
	return head;
}

static void set_head(struct audit_store *s, bool sync)
{
	const struct audit_head head = head_of(s);
	struct err why;

	if (audit_ring_set_head(s->ring, &head, sync, &why) != 0)
		log_warning("the audit's head is not written: a cut end would be found by an anchor only: %s",
			    why.text);
}

static int commit(struct audit_store *s, struct writer *w, struct err *why)
{
	if (db_commit(w->db, why) != 0)
		return -1;
	w->version = db_version(w->db);
	w->sees = true;
	s->in_batch = false;
	s->durable = s->at;
	s->epoch_commits++;
	if (s->nbatch > 0) {
		memcpy(s->known, s->batch, s->nbatch * sizeof *s->batch);
		s->nknown = s->nbatch;
	}
	set_head(s, false);
	return 0;
}

/* ---- epochs -------------------------------------------------------------------------------------------------------
 */

/* The seal is durable: its key goes. */
static int ratchet(struct audit_store *s, struct err *why)
{
	const struct audit_head head = head_of(s);
	struct err failed;

	if (!s->ratchet_due)
		return 0;
	if (s->knows_holds && audit_ring_set_holds(s->ring, &head, s->holds, true, &failed) != 0)
		log_warning("should this gateway end now, nothing would prove which holds stand: %s", failed.text);
	if (audit_ring_ratchet(s->ring, why) != 0)
		return -1;
	s->ratchet_due = false;
	s->epoch_began_us = clock_mono_us();
	s->epoch_commits = 0;
	set_head(s, true);
	return 0;
}

static int seal(struct audit_store *s, struct err *why)
{
	uint8_t body[8];

	audit_put_u64(body, (uint64_t)s->durable.event);
	if (begin(s, &s->now, why) != 0 ||
	    put_entry(s, &s->now, AUDIT_ENTRY_SEAL, s->durable.event + 1, 0, body, sizeof body, why) != 0 ||
	    commit(s, &s->now, why) != 0) {
		rollback(s, &s->now);
		return -1;
	}
	s->ratchet_due = true;
	return ratchet(s, why);
}

/* ---- the next segment -----------------------------------------------------------------------------------------------
 */

/* Writes what is open, and no row or entry. */
static int write_open(struct audit_store *s, struct err *why)
{
	if (begin(s, &s->now, why) != 0 || audit_open_flush(&s->now.open, s->durable.event, why) != 0 ||
	    db_commit(s->now.db, why) != 0) {
		rollback(s, &s->now);
		return -1;
	}
	s->in_batch = false;
	s->at = s->durable;
	return 0;
}

/* Its last entry, and a true table of what is open, of which the next begins. */
static int end_segment(struct audit_store *s, struct err *why)
{
	if (s->ended)
		return audit_open_is_true(&s->now.open) ? 0 : write_open(s, why);
	if (begin(s, &s->now, why) != 0 || audit_open_flush(&s->now.open, s->durable.event, why) != 0 ||
	    put_entry(s, &s->now, AUDIT_ENTRY_END, s->durable.event + 1, 0, (const uint8_t *)"", 0, why) != 0 ||
	    commit(s, &s->now, why) != 0) {
		rollback(s, &s->now);
		return -1;
	}
	s->ended = true;
	return 0;
}

/* Copies senders into the new segment and behind `at`; there are `count` of them. */
static int carry_senders(struct writer *w, struct writer *from, int64_t count, uint8_t *at, struct err *why)
{
	enum db_step rc = DB_DONE;

	while (count-- > 0 && (rc = db_step(from->senders, why)) == DB_ROW) {
		for (int i = 0; i < 3; i++) {
			at = audit_put_u64(at, (uint64_t)db_i64(from->senders, i));
			db_bind_i64(w->set_last, i + 1, db_i64(from->senders, i));
		}
		if (db_run(w->set_last, why) != 0) {
			rc = DB_FAILED;
			break;
		}
	}
	db_reset(from->senders);
	return rc == DB_FAILED ? -1 : 0;
}

/* A segment's first entry, with the senders of the one before; or, of the first segment, with those of before there was
 * a chain (from is w then). */
static int put_begin(struct audit_store *s, struct writer *w, struct writer *from, int64_t adopted, struct err *why)
{
	int64_t count = 0, open = 0;
	size_t len;
	uint8_t *body, *at;
	int rc;

	if (read_number(from->count_senders, &count, why) != 0 ||
	    (from != w && audit_open_count(&from->open, &open, why) != 0))
		return -1;
	len = AUDIT_BEGIN_BYTES + (size_t)count * AUDIT_BEGIN_SENDER_BYTES;
	body = calloc(1, len);
	if (body == NULL)
		return err_set(why, "out of memory for a segment of the audit");
	memcpy(body, s->ring->store, AUDIT_ID_BYTES);
	at = body + AUDIT_ID_BYTES;
	for (int i = 0; i < 4; i++)
		*at++ = (uint8_t)(w->number >> (8 * i));
	memcpy(at, s->at.mac, AUDIT_MAC_BYTES);
	at = audit_put_u64(at + AUDIT_MAC_BYTES, (uint64_t)adopted);
	at = audit_put_u64(at, (uint64_t)open);
	rc = carry_senders(w, from, count, at, why);
	if (rc == 0)
		rc = put_entry(s, w, AUDIT_ENTRY_BEGIN, s->at.event + 1, 0, body, len, why);
	free(body);
	return rc;
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
	s->newcomers |= new->last == 0;
	s->nbatch++;
	return new;
}

/* What is open becomes a row of the new segment: it can be read, settled and verified by itself. */
static int carry_open(struct audit_store *s, struct writer *w, struct writer *from, const struct audit_open_row *row,
		      struct err *why)
{
	struct sender *sender = sender_of(s, row->incarnation);

	if (sender == NULL && s->nbatch == BATCH_SENDERS_MAX) {
		if (put_commit(s, w, why) != 0)
			return -1;
		s->nbatch = 0;
	}
	if (sender == NULL && (sender = sender_add(s, row->incarnation, why)) == NULL)
		return -1;
	if (audit_open_carried(&from->open, row, &s->event, why) != 0 ||
	    insert(s, w, &s->event, (uint8_t)(sender - s->batch), why) != 0)
		return -1;
	return audit_open_put(&w->open, row, s->at.event, why);
}

static int carry(struct audit_store *s, struct writer *w, struct writer *from, struct err *why)
{
	struct audit_open_row page[OPEN_PAGE];
	int64_t session = INT64_MIN, flow = INT64_MIN;
	int n;

	do {
		n = audit_open_after(&from->open, session, flow, page, OPEN_PAGE, why);
		for (int i = 0; i < n; i++)
			if (carry_open(s, w, from, &page[i], why) != 0)
				return -1;
		if (n > 0) {
			session = (int64_t)page[n - 1].session;
			flow = page[n - 1].flow;
		}
	} while (n == OPEN_PAGE);
	return n < 0 ? -1 : put_commit(s, w, why);
}

/* In the new segment, with its beginning. */
static int tell_renewal(struct audit_store *s, struct err *why)
{
	struct stat st;

	memset(&s->event, 0, sizeof s->event);
	s->event.kind = AUDIT_ADMIN;
	s->event.time_us = clock_wall_us();
	if (stat(AUDIT_RENEW_FILE, &st) == 0)
		snprintf(s->event.user, sizeof s->event.user, "uid %u", (unsigned)st.st_uid);
	snprintf(s->event.reason, sizeof s->event.reason,
		 "a new chain begins, since the key of the one before is lost: that had come to entry %lld",
		 (long long)s->durable.entry);
	snprintf(s->event.detail, sizeof s->event.detail, "{\"chain\":\"begun anew\"}");
	s->nbatch = 0;
	return insert(s, &s->next, &s->event, AUDIT_SENDER_NONE, why) != 0 || put_commit(s, &s->next, why) != 0 ? -1
														: 0;
}

/* In one transaction: a new segment has all that it needs, or nothing. */
static int fill_segment(struct audit_store *s, struct err *why)
{
	if (begin(s, &s->next, why) == 0 && put_begin(s, &s->next, &s->now, 0, why) == 0 &&
	    carry(s, &s->next, &s->now, why) == 0 && (!s->renewing || tell_renewal(s, why) == 0) &&
	    audit_open_flush(&s->next.open, s->at.event, why) == 0 && commit(s, &s->next, why) == 0)
		return 0;
	rollback(s, &s->next);
	return -1;
}

/* ---- segments that are written no more ------------------------------------------------------------------------------
 * Each gets its indexes and gives up its log: then it is one plain file. */

/* While somebody reads its log it stays as it is: false, and it is tried again. */
static bool finish_segment(const char *name)
{
	struct err why;
	struct db *db = audit_segment_open(name, AUDIT_WRITE, &why);

	if (db != NULL && db_finish(&db, audit_segment_indexes, &why) == 0)
		return true;
	log_debug("a segment of the audit keeps its log for now: %s", why.text);
	return false;
}

pid_t audit_store_fork(struct audit_store *s, int keep_fd)
{
	pid_t parent = getpid(), pid = fork();

	if (pid != 0)
		return pid;
	sodium_memzero(&s->ring->keys, sizeof s->ring->keys);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (keep_fd > 3)
		close_range(3, (unsigned)keep_fd - 1, 0);
	close_range(keep_fd >= 3 ? (unsigned)keep_fd + 1 : 3, UINT_MAX, 0);
	setpriority(PRIO_PROCESS, 0, 19);
	if (getppid() != parent)
		_exit(1);
	return 0;
}

static pid_t finish_aside(struct audit_store *s, const char *name)
{
	pid_t pid = audit_store_fork(s, -1);

	if (pid != 0)
		return pid;
	_exit(finish_segment(name) ? 0 : 1);
}

/* The next one; small ones at once, so that nobody waits for a child. */
static void finish_next(struct audit_store *s)
{
	char name[AUDIT_SEGMENT_NAME_MAX];
	int status;

	if (s->finisher > 0) {
		pid_t pid = waitpid(s->finisher, &status, WNOHANG);

		if (pid == 0)
			return;
		s->finisher = 0;
		if (pid > 0 && status != 0)
			s->finish_after_us = clock_mono_us() + RETRY_US;
	}
	if (s->unfinished == 0 || clock_mono_us() < s->finish_after_us)
		return;
	for (; s->unfinished < s->now.number; s->unfinished++) {
		if (!audit_segment_has_log(audit_segment_name(s->unfinished, name)))
			continue;
		if (audit_segment_bytes(name) > FINISH_AT_ONCE_BYTES) {
			s->finisher = finish_aside(s, name);
			if (s->finisher > 0)
				return;
		}
		if (!finish_segment(name)) {
			s->finish_after_us = clock_mono_us() + RETRY_US;
			return;
		}
	}
	s->unfinished = 0;
}

void audit_store_finish_now(struct audit_store *s)
{
	s->finish_after_us = 0;
	finish_next(s);
}

bool audit_store_finishing(const struct audit_store *s)
{
	return s->finisher > 0 || s->unfinished != 0;
}

/* ---- the change
 * ------------------------------------------------------------------------------------------------------ */

/* Ends the segment and begins the next; each step can be repeated, by us or by our successor. */
static int rotate(struct audit_store *s, struct err *why)
{
	uint32_t last = s->now.number;

	if (s->next.db == NULL && open_writer(&s->next, last + 1, s->relaxed, why) != 0)
		return -1;
	if (end_segment(s, why) != 0 || fill_segment(s, why) != 0)
		return -1;
	close_writer(&s->now);
	s->now = s->next;
	s->now.began_us = clock_wall_us();
	s->next = (struct writer){0};
	s->ended = false;
	s->segments++;
	if (s->unfinished == 0)
		s->unfinished = last;
	return 0;
}

static bool segment_is_over(struct audit_store *s)
{
	char name[AUDIT_SEGMENT_NAME_MAX];

	/* Later days only: a clock that is set back ends nothing. */
	if (clock_wall_us() / DAY_US > s->now.began_us / DAY_US)
		return true;
	/* What is committed goes into the log: the file grows when that is folded into it. */
	if (!s->now.small)
		s->now.small = audit_segment_bytes(audit_segment_name(s->now.number, name)) < s->segment_bytes;
	return !s->now.small;
}

/* While it has not ended, a segment can go on should no other be had. */
static int rotate_if_due(struct audit_store *s, struct err *why)
{
	if (s->ended)
		return rotate(s, why);
	if (clock_mono_us() < s->rotate_after_us || !segment_is_over(s))
		return 0;
	if (rotate(s, why) == 0)
		return 0;
	s->rotate_after_us = clock_mono_us() + RETRY_US;
	log_warning("the next segment of the audit cannot be begun, this one goes on: %s", why->text);
	return s->ended ? -1 : 0;
}

/* ---- opening ------------------------------------------------------------------------------------------------------
 */

/* The single file of before becomes the first segment. */
static int take_single_file(struct err *why)
{
	char name[AUDIT_SEGMENT_NAME_MAX];
	struct db *db;

	if (access(AUDIT_SINGLE_FILE, F_OK) != 0)
		return 0;
	db = audit_segment_open(AUDIT_SINGLE_FILE, AUDIT_WRITE, why);
	if (db == NULL || db_finish(&db, NULL, why) != 0)
		return -1;
	if (rename(AUDIT_SINGLE_FILE, audit_segment_name(1, name)) != 0)
		return err_set_errno(why, AUDIT_SINGLE_FILE ": cannot become %s", name);
	return 0;
}

/* One transaction of it: up to one entry's rows behind s->at.  1 there are more, 0 that was all, -1. */
static int adopt_some(struct audit_store *s, struct db_stmt *rows, int64_t adopted, struct err *why)
{
	const int64_t before = s->at.event;
	enum db_step rc;
	int linked = 0;

	db_bind_i64(rows, 1, s->at.event);
	db_bind_i64(rows, 2, adopted);
	s->nrows = s->nbatch = 0;
	while (linked == 0 && (rc = db_step(rows, why)) == DB_ROW) {
		int64_t id = db_i64(rows, 0);

		/* Where rows are missing, an entry ends: whoever verifies sees the same gap. */
		if (id != s->at.event + 1)
			linked = put_commit(s, &s->now, why);
		s->at.event = id;
		if (s->nrows == 0)
			s->first = id;
		if (linked == 0)
			linked = link_row(s, &s->now, audit_row_bytes_of(rows, s->row), AUDIT_SENDER_NONE, why);
	}
	db_reset(rows);
	if (linked != 0 || rc == DB_FAILED || put_commit(s, &s->now, why) != 0)
		return -1;
	/* Somebody may have taken the last ones away. */
	return s->at.event != before && s->at.event < adopted;
}

/* Rows that were there before there was a chain are taken as they were found. */
static int adopt(struct audit_store *s, int64_t adopted, struct err *why)
{
	struct db_stmt *rows = db_prepare(
		s->now.db, "SELECT " AUDIT_COLUMNS " FROM event WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT 4095",
		why);
	int rc = rows == NULL ? -1 : s->durable.event < adopted;

	while (rc == 1) {
		rc = db_begin(s->now.db, why) != 0 ? -1 : adopt_some(s, rows, adopted, why);
		if (rc >= 0 && commit(s, &s->now, why) != 0)
			rc = -1;
	}
	db_finalize(&rows);
	if (rc != 0)
		rollback(s, &s->now);
	return rc;
}

/* Says in the audit itself what a look at its files has shown. */
static int note_detail(struct audit_store *s, const char *text, const char *detail, struct err *why)
{
	memset(&s->event, 0, sizeof s->event);
	s->event.kind = AUDIT_ADMIN;
	s->event.time_us = clock_wall_us();
	snprintf(s->event.reason, sizeof s->event.reason, "%s", text);
	snprintf(s->event.detail, sizeof s->event.detail, "%s", detail);
	log_warning("%s", text);
	if (begin(s, &s->now, why) == 0 && audit_store_note(s, &s->event, why) == 0 && audit_store_commit(s, why) == 0)
		return 0;
	rollback(s, &s->now);
	return -1;
}

static int note(struct audit_store *s, const char *text, struct err *why)
{
	return note_detail(s, text, "", why);
}

/* ---- which holds stand ----------------------------------------------------------------------------------------------
 */

/* Holds that nobody can prove are taken as they are found, and the audit says so. */
static int take_holds(struct audit_store *s, struct err *why)
{
	char detail[120], text[AUDIT_HOLDS_DIGEST_TEXT_MAX];
	uint8_t digest[AUDIT_DIGEST_BYTES];

	/* Who orders a prune hears that the file is damaged. */
	if (!audit_holds_sum_file(digest))
		return 0;
	snprintf(detail, sizeof detail, "{\"retention\":\"holds-not-proven\",\"holds\":\"%s\"}",
		 sodium_bin2hex(text, sizeof text, digest, sizeof digest));
	if (note_detail(s,
			"holds are taken as they were found: " AUDIT_HEAD_FILE
			" is missing, damaged or not of this key, so nothing proves which stood",
			detail, why) != 0)
		return -1;
	audit_store_set_holds(s, digest);
	return 0;
}

bool audit_store_holds_are(const struct audit_store *s, const uint8_t digest[AUDIT_DIGEST_BYTES])
{
	return s->knows_holds && memcmp(s->holds, digest, sizeof s->holds) == 0;
}

void audit_store_set_holds(struct audit_store *s, const uint8_t digest[AUDIT_DIGEST_BYTES])
{
	const struct audit_head head = head_of(s);
	struct err why;

	memcpy(s->holds, digest, sizeof s->holds);
	s->knows_holds = true;
	if (audit_ring_set_holds(s->ring, &head, digest, false, &why) != 0)
		log_warning("should this gateway end now, nothing would prove which holds stand: %s", why.text);
}

/* The first entry of all. */
static int begin_chain(struct audit_store *s, struct err *why)
{
	uint8_t tag[AUDIT_DIGEST_BYTES];
	char text[AUDIT_TEXT_MAX];
	struct audit_head head;
	bool known = audit_head_read(&head, tag) == 1; /* before ours takes its place */
	int64_t adopted;

	if (db_begin(s->now.db, why) != 0)
		return -1;
	if (read_number(s->now.newest, &adopted, why) != 0 || put_begin(s, &s->now, &s->now, adopted, why) != 0 ||
	    commit(s, &s->now, why) != 0) {
		rollback(s, &s->now);
		return -1;
	}
	if (adopt(s, adopted, why) != 0)
		return -1;
	if (!known || head.entry == 0)
		return 0;
	snprintf(text, sizeof text,
		 "the audit begins anew, though it had come to entry %lld: its files were taken away",
		 (long long)head.entry);
	return note(s, text, why);
}

/* Does the chain stand where its head and key say that it came to?  last: its last entry. */
static int compare_with_files(struct audit_store *s, const struct found *last, struct err *why)
{
	uint64_t reached = (uint64_t)last->epoch + (last->kind == AUDIT_ENTRY_SEAL);
	uint8_t tag[AUDIT_DIGEST_BYTES];
	struct audit_head head;
	char text[AUDIT_TEXT_MAX];

	s->ratchet_due = last->kind == AUDIT_ENTRY_SEAL && s->ring->keys.epoch == (uint64_t)last->epoch;
	if (audit_head_read(&head, tag) == 1 &&
	    (head.entry > last->id || (head.entry == last->id && memcmp(head.mac, last->mac, sizeof head.mac) != 0))) {
		snprintf(text, sizeof text,
			 "the audit was put back to entry %lld, it had come to %lld: a backup was restored, or its end "
			 "was cut",
			 (long long)last->id, (long long)head.entry);
	} else if (s->ring->keys.epoch > reached) {
		snprintf(text, sizeof text,
			 "the audit was put back to epoch %llu, it had come to %llu: a backup was restored, or "
			 "its end was cut",
			 (unsigned long long)reached, (unsigned long long)s->ring->keys.epoch);
	} else if (s->ring->keys.epoch + s->ratchet_due < reached) {
		snprintf(text, sizeof text,
			 "the key of the audit was put back to epoch %llu, the audit has come to %llu: a "
			 "backup was restored",
			 (unsigned long long)s->ring->keys.epoch, (unsigned long long)reached);
		while (s->ring->keys.epoch < reached)
			if (audit_ring_ratchet(s->ring, why) != 0)
				return -1;
	} else {
		return 0;
	}
	if (ratchet(s, why) != 0)
		return -1;
	return s->ended ? 0 : note(s, text, why);
}

/* Finds the segment to go on with; *last is the last entry of the chain, or zero. */
static int open_last(struct audit_store *s, const uint32_t *numbers, int n, struct found *last, struct err *why)
{
	if (open_writer(&s->now, n == 0 ? 1 : numbers[n - 1], false, why) != 0 ||
	    find_entry(s->now.db, false, last, why) < 0)
		return -1;
	s->segments = n == 0 ? 1 : (uint32_t)n;
	if (last->id != 0 || n < 2)
		return 0;
	/* It was made, and never begun. */
	s->next = s->now;
	s->now = (struct writer){0};
	s->segments--;
	if (s->next.number != numbers[n - 2] + 1)
		return err_set(why, "segment %u of the audit is missing", s->next.number - 1);
	return open_writer(&s->now, numbers[n - 2], false, why) != 0 || find_entry(s->now.db, false, last, why) < 0 ? -1
														    : 0;
}

static int first_of_all(struct audit_store *s, const uint32_t *numbers, int n, struct err *why)
{
	char name[AUDIT_SEGMENT_NAME_MAX];
	struct db *oldest =
		n < 2 ? s->now.db : audit_segment_open(audit_segment_name(numbers[0], name), AUDIT_READ, why);
	struct found first = {0};
	int rc = oldest == NULL ? -1 : find_entry(oldest, true, &first, why);

	s->first_event = first.adopted > 0 ? 1 : first.first;
	if (oldest != s->now.db)
		db_close(&oldest);
	/* One that cannot be read is no reason to stop: whoever verifies will hear of it. */
	if (rc < 0)
		log_warning("the oldest segment of the audit cannot be read: %s", why->text);
	return 0;
}

/* Goes on where the chain ended. */
static int resume(struct audit_store *s, const struct found *last, struct err *why)
{
	struct found first;

	if (find_entry(s->now.db, true, &first, why) < 0)
		return -1;
	s->now.began_us = first.time_us;
	s->durable = (struct position){.event = last_row(last), .entry = last->id};
	memcpy(s->durable.mac, last->mac, sizeof s->durable.mac);
	s->at = s->durable;
	s->ended = last->kind == AUDIT_ENTRY_END;
	if (first.adopted > s->durable.event && adopt(s, first.adopted, why) != 0)
		return -1;
	if (compare_with_files(s, last, why) != 0)
		return -1;
	set_head(s, true);
	return s->ended || s->next.db != NULL ? rotate(s, why) : 0;
}

/* Is the ring that of the chain? */
static int compare_stores(struct audit_store *s, struct err *why)
{
	struct found first;

	if (find_entry(s->now.db, true, &first, why) < 0)
		return -1;
	if (first.kind == AUDIT_ENTRY_BEGIN && memcmp(first.store, s->ring->store, sizeof first.store) != 0)
		return err_set(why, AUDIT_KEY_FILE ": it is the key of another audit, or of a chain that never began");
	return 0;
}

/* The keys of the chain that is there; or, where it is lost and its owner says so, of one that is to begin: 1. */
static int open_ring(struct audit_store *s, const struct found *last, struct err *why)
{
	bool wanted = access(AUDIT_RENEW_FILE, F_OK) == 0;
	struct err reason;

	s->ring = audit_ring_open(last->id != 0, &reason);
	if (s->ring != NULL && (last->id == 0 || compare_stores(s, &reason) == 0)) {
		if (wanted && unlink(AUDIT_RENEW_FILE) == 0)
			log_warning(AUDIT_RENEW_FILE ": the chain of the audit has its key, so it is removed");
		return 0;
	}
	if (last->id == 0)
		return err_set(why, "%s", reason.text);
	if (!wanted)
		return err_set(why,
			       "%.200s; put the key back, or create the file " AUDIT_RENEW_FILE
			       " beside it to begin a new chain",
			       reason.text);
	log_error("%s; " AUDIT_RENEW_FILE " is there, so a new chain begins", reason.text);
	audit_ring_close(&s->ring);
	if (audit_ring_set_aside(why) != 0 || (s->ring = audit_ring_open(false, why)) == NULL)
		return -1;
	return 1;
}

/* The new chain begins with a segment of its own, bound to what was there of the last. */
static int renew(struct audit_store *s, const struct found *last, struct err *why)
{
	s->durable = (struct position){.event = last_row(last), .entry = last->id};
	memcpy(s->durable.mac, last->mac, sizeof s->durable.mac);
	s->at = s->durable;
	s->ended = s->renewing = true;
	if (rotate(s, why) != 0)
		return -1;
	s->renewing = false;
	set_head(s, true);
	if (unlink(AUDIT_RENEW_FILE) != 0)
		return err_set_errno(why, AUDIT_RENEW_FILE ": cannot be removed");
	return audit_sync_directory(why);
}

static int open_segments(struct audit_store *s, const uint32_t *numbers, int n, struct err *why)
{
	struct found last;
	int renewed = open_last(s, numbers, n, &last, why) != 0 ? -1 : open_ring(s, &last, why);

	if (renewed < 0)
		return -1;
	s->epoch_began_us = clock_mono_us();
	s->now.began_us = clock_wall_us();
	/* Before anything else is there: those of a beginning, and of a new chain, which is a break that says so
	 * itself. */
	if (last.id != 0 && !renewed)
		s->knows_holds = audit_head_holds(&s->ring->keys, s->ring->store, s->holds);
	else if (audit_holds_sum_file(s->holds))
		audit_store_set_holds(s, s->holds);
	if ((renewed ? renew(s, &last, why) : last.id == 0 ? begin_chain(s, why) : resume(s, &last, why)) != 0)
		return -1;
	if (!s->knows_holds && take_holds(s, why) != 0)
		return -1;
	s->unfinished = n > 1 ? numbers[0] : s->unfinished;
	finish_next(s);
	return first_of_all(s, numbers, n, why);
}

static int open_store(struct audit_store *s, struct err *why)
{
	uint32_t *numbers;
	int n = audit_segment_list(&numbers, why), rc;

	if (n == 0) {
		free(numbers);
		if (take_single_file(why) != 0)
			return -1;
		n = audit_segment_list(&numbers, why);
	}
	rc = n < 0 ? -1 : open_segments(s, numbers, n, why);
	free(numbers);
	return rc;
}

struct audit_store *audit_store_open(uint64_t segment_bytes, struct err *why)
{
	struct audit_store *s = calloc(1, sizeof *s);

	if (s == NULL) {
		err_set(why, "out of memory for the audit");
		return NULL;
	}
	s->segment_bytes = segment_bytes;
	audit_prune_clean();
	if (open_store(s, why) != 0)
		audit_store_close(&s);
	return s;
}

int audit_store_relax(struct audit_store *s, struct err *why)
{
	uint32_t number = s->now.number;
	int64_t began_us = s->now.began_us;

	s->relaxed = true;
	close_writer(&s->now);
	if (open_writer(&s->now, number, true, why) != 0)
		return -1;
	s->now.began_us = began_us;
	return 0;
}

bool audit_store_is_full(const struct audit_store *s)
{
	return db_is_full(s->now.db) || (s->next.db != NULL && db_is_full(s->next.db));
}

void audit_store_close(struct audit_store **store)
{
	struct audit_store *s = *store;
	struct err ignored;

	*store = NULL;
	if (s == NULL)
		return;
	/* Whoever opens the store reads again what was not written: this is for those who only look. */
	if (s->now.db != NULL && !s->in_batch && audit_open_waiting(&s->now.open) > 0)
		write_open(s, &ignored);
	close_writer(&s->now);
	close_writer(&s->next);
	audit_ring_close(&s->ring);
	free(s);
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

int audit_store_begin(struct audit_store *s, struct err *why)
{
	if (ratchet(s, why) != 0 || rotate_if_due(s, why) != 0)
		return -1;
	if (begin(s, &s->now, why) == 0)
		return 0;
	/* It may have come half way, and the next could not begin within what it left. */
	rollback(s, &s->now);
	return -1;
}

int audit_store_last(struct audit_store *s, uint64_t incarnation, uint64_t *sequence, struct err *why)
{
	struct db_stmt *last_of = s->now.last_of;
	enum db_step rc;

	for (size_t i = 0; i < s->nknown; i++)
		if (s->known[i].incarnation == incarnation) {
			*sequence = s->known[i].last;
			return 0;
		}
	*sequence = 0;
	db_bind_i64(last_of, 1, (int64_t)incarnation);
	rc = db_step(last_of, why);
	if (rc == DB_ROW)
		*sequence = (uint64_t)db_i64(last_of, 0);
	db_reset(last_of);
	return rc == DB_FAILED ? -1 : 0;
}

/* The sender of a record that is to be appended, or NULL with *rc: what audit_store_append() then returns. */
static struct sender *sender_for(struct audit_store *s, uint64_t incarnation, uint64_t sequence, int *rc,
				 struct err *why)
{
	struct sender *sender = sender_of(s, incarnation);

	*rc = AUDIT_APPEND_LATER;
	if (sender == NULL && s->nbatch == BATCH_SENDERS_MAX)
		return NULL;
	*rc = -1;
	if (sender == NULL && (sender = sender_add(s, incarnation, why)) == NULL)
		return NULL;
	*rc = 0;
	if (sequence <= sender->last)
		return NULL;
	/* Before the row: an entry of the chain that ends with it tells how far its sender has come. */
	sender->last = sequence;
	return sender;
}

int audit_store_append_row(struct audit_store *s, uint64_t incarnation, uint64_t sequence, struct audit_row *row,
			   struct err *why)
{
	int rc;
	const struct sender *sender = sender_for(s, incarnation, sequence, &rc, why);

	if (sender == NULL)
		return rc;
	if (add_row(s, &s->now, row, (uint8_t)(sender - s->batch), why) != 0)
		return -1;
	audit_row_tells(row, &s->event);
	return audit_open_note(&s->now.open, incarnation, s->at.event, &s->event, why) != 0 ? -1 : 1;
}

int audit_store_append(struct audit_store *s, uint64_t incarnation, uint64_t sequence, const struct audit_event *e,
		       struct err *why)
{
	struct audit_row row;
	int rc;

	audit_row_of(e, &row);
	rc = audit_store_append_row(s, incarnation, sequence, &row, why);
	return rc == 1 && write_run(s, &s->now, why) != 0 ? -1 : rc;
}

int audit_store_note(struct audit_store *s, const struct audit_event *e, struct err *why)
{
	return insert(s, &s->now, e, AUDIT_SENDER_NONE, why);
}

int audit_store_settle(struct audit_store *s, struct audit_settling *at, unsigned max, unsigned *rows, struct err *why)
{
	struct audit_open_row page[OPEN_PAGE];
	struct audit_open *open = &s->now.open;
	int n;

	*rows = 0;
	if (write_run(s, &s->now, why) != 0 || audit_open_flush(open, s->at.event, why) != 0)
		return -1;
	if (!at->begun) {
		at->begun = true;
		at->session = at->flow = INT64_MIN;
	}
	do {
		n = audit_open_after(open, at->session, at->flow, page, OPEN_PAGE, why);
		if (n < 0)
			return -1;
		for (int i = 0; i < n; i++) {
			if (*rows == max)
				return 1;
			at->session = (int64_t)page[i].session;
			at->flow = page[i].flow;
			if (!at->lost(page[i].incarnation, at->arg))
				continue;
			if (audit_open_closing(open, &page[i], &s->event, why) != 0 ||
			    audit_store_note(s, &s->event, why) != 0 || audit_open_forget(open, &page[i], why) != 0)
				return -1;
			++*rows;
		}
	} while (n == OPEN_PAGE);
	return 0;
}

/* Writes down who has sent how far, and, when there are more of them, forgets those that have been silent the longest.
 * The newest event is what tells the time. */
static int save_senders(struct audit_store *s, struct err *why)
{
	struct writer *w = &s->now;
	int64_t count;

	for (size_t i = 0; i < s->nbatch; i++) {
		db_bind_i64(w->set_last, 1, (int64_t)s->batch[i].incarnation);
		db_bind_i64(w->set_last, 2, (int64_t)s->batch[i].last);
		db_bind_i64(w->set_last, 3, s->at.event);
		if (db_run(w->set_last, why) != 0)
			return -1;
	}
	if (!s->newcomers)
		return 0;
	if (read_number(w->count_senders, &count, why) != 0)
		return -1;
	if (count <= AUDIT_SENDERS_MAX)
		return 0;
	if (audit_open_flush(&w->open, s->at.event, why) != 0)
		return -1;
	db_bind_i64(w->forget, 1, AUDIT_SENDERS_MAX);
	return db_run(w->forget, why);
}

int audit_store_commit(struct audit_store *s, struct err *why)
{
	struct audit_open *open = &s->now.open;

	if (write_run(s, &s->now, why) != 0 ||
	    (audit_open_is_due(open, s->at.event) && audit_open_flush(open, s->at.event, why) != 0) ||
	    save_senders(s, why) != 0 || put_commit(s, &s->now, why) != 0)
		return -1;
	return commit(s, &s->now, why);
}

void audit_store_rollback(struct audit_store *s)
{
	rollback(s, &s->now);
}

int audit_store_declare(struct audit_store *s, const uint8_t *body, size_t len, struct err *why)
{
	if (audit_store_begin(s, why) == 0 &&
	    put_entry(s, &s->now, AUDIT_ENTRY_PRUNED, s->first, 0, body, len, why) == 0 && commit(s, &s->now, why) == 0)
		return 0;
	rollback(s, &s->now);
	return -1;
}

void audit_store_recount(struct audit_store *s)
{
	uint32_t *numbers;
	struct err why;
	int n = audit_segment_list(&numbers, &why);

	if (n > 0) {
		s->segments = (uint32_t)n;
		first_of_all(s, numbers, n, &why);
	}
	free(numbers);
}

int audit_store_tick(struct audit_store *s, struct err *why)
{
	if (s->in_batch)
		return 0;
	finish_next(s);
	if (ratchet(s, why) != 0)
		return -1;
	/* Nothing comes behind a segment's last entry; the next one has the seal. */
	if (s->ended)
		return rotate(s, why);
	if (s->epoch_commits < EPOCH_COMMITS && clock_mono_us() - s->epoch_began_us < EPOCH_US)
		return 0;
	return seal(s, why);
}

int audit_store_checkpoint(struct audit_store *s, struct err *why)
{
	if (s->in_batch || db_wal_pages(s->now.db) < CHECKPOINT_PAGES)
		return 0;
	s->now.small = false;
	return db_checkpoint(s->now.db, why);
}

void audit_store_status(const struct audit_store *s, struct audit_store_status *out)
{
	*out = (struct audit_store_status){
		.rows = (uint64_t)(s->durable.event - s->first_event + 1),
		.segments = s->segments,
		.segment = s->now.number,
		.unfinished = s->unfinished,
		.head = {.epoch = s->ring->keys.epoch, .entry = s->durable.entry},
		.first_key_waits = audit_ring_first_key_waits(),
	};
	memcpy(out->head.store, s->ring->store, sizeof out->head.store);
	memcpy(out->head.mac, s->durable.mac, sizeof out->head.mac);
}
