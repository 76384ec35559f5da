/* A read transaction lasts a fraction of a second at a time, so that the recorder's log never grows because somebody
 * reads slowly: a page of rows is made into lines first, and written when the transaction is over. */
#include "config.h"

#include "gatewayd/reader/answer.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "schema/audit_json.h"
#include "schema/audit_stats.h"

/* Of one read transaction. */
#define PAGE_ROWS 1000
#define PAGE_US 200000
/* Rows that are only summed up need no room. */
#define SUMMED_ROWS 1000000
/* A page also ends when its lines have this many bytes. */
#define BUFFER_BYTES (2 * 1024 * 1024)
/* Sums that are given at most: of the longest keys they fill a buffer. */
#define GROUPS_MAX 1500
/* A line: an event whose every byte is escaped twice. */
#define LINE_BYTES (256 * 1024)

struct reader {
	struct audit_archive *archive; /* NULL: why says why not */
	struct err why;
	struct audit_query *query;
	struct audit_stats *stats; /* NULL: rows themselves are asked for */
	uint64_t groups_max;
	int64_t deadline_us;
	uint64_t rows_max;
	int fd; /* the pipe; -1 before a query came */
	struct event event;
	char *buffer;
	size_t len, at;
	bool ended; /* the last line is in the buffer */
	reader_done *done;
	void *arg;
};

/* ---- lines --------------------------------------------------------------------------------------------------------
 */

/* Adds a line, taking the value over.  False if it does not fit. */
static bool put_line(struct reader *r, json_t *value)
{
	size_t room = BUFFER_BYTES + LINE_BYTES - r->len;
	size_t n = value == NULL ? 0 : json_dumpb(value, r->buffer + r->len, room, JSON_COMPACT | JSON_ENSURE_ASCII);

	json_decref(value);
	if (n == 0 || n >= room)
		return false;
	r->len += n;
	r->buffer[r->len++] = '\n';
	return true;
}

static void put_end(struct reader *r)
{
	json_t *line = json_pack("{s:b, s:I, s:b, s:I}", "end", 1, "rows", (json_int_t)audit_query_rows(r->query), "more",
				 audit_query_cut(r->query), "newest", (json_int_t)audit_query_newest(r->query));

	if (audit_archive_damage(r->archive)[0] != '\0')
		json_object_set_new(line, "damage", json_string(audit_archive_damage(r->archive)));
	put_line(r, line);
	r->ended = true;
}

static void put_error(struct reader *r, const char *text)
{
	json_t *line = json_object();

	json_object_set_new(line, "error", json_string(text));
	if (!put_line(r, line))
		put_line(r, json_pack("{s:s}", "error", "the query failed for a reason that cannot be shown"));
	r->ended = true;
}

static bool on_row(uint64_t id, const struct audit_event *e, void *arg)
{
	struct reader *r = arg;

	if (!put_line(r, audit_event_json(id, e)))
		log_warning("row %llu of the audit is too long to be shown", (unsigned long long)id);
	return r->len < BUFFER_BYTES;
}

static bool on_summed_row(uint64_t id, const struct audit_event *e, void *arg)
{
	struct reader *r = arg;

	(void)id;
	audit_stats_add(r->stats, e);
	return true;
}

/* They fit: so many groups of a bounded key are less than a page of the largest rows. */
static void give_group(json_t *group, void *arg)
{
	if (!put_line(arg, group))
		log_warning("a sum of the audit is too long to be shown");
}

static void next_page(struct reader *r)
{
	r->at = r->len = 0;
	if (clock_mono_us() >= r->deadline_us) {
		put_error(r, "the query took too long: ask for a shorter time (--since, --until)");
		return;
	}
	if (r->stats == NULL && audit_query_rows(r->query) >= r->rows_max) {
		put_error(r, "the answer has too many rows: ask for a shorter time (--since, --until)");
		return;
	}
	if (audit_query_page(r->query, r->stats == NULL ? PAGE_ROWS : SUMMED_ROWS, PAGE_US, r->stats == NULL ? on_row : on_summed_row,
			     r) != 0)
		return;
	if (r->stats != NULL)
		audit_stats_each(r->stats, r->groups_max, give_group, r);
	put_end(r);
}

/* ---- the pipe ------------------------------------------------------------------------------------------------------
 */

static void finish(struct reader *r)
{
	event_del(&r->event);
	if (r->fd >= 0)
		close(r->fd);
	r->fd = -1;
	audit_query_free(&r->query);
	audit_stats_free(&r->stats);
	r->done(r->arg);
}

/* Writes what the buffer has: 1 all, 0 later, -1 nobody reads. */
static int write_some(struct reader *r)
{
	while (r->at < r->len) {
		ssize_t n = write(r->fd, r->buffer + r->at, r->len - r->at);

		if (n > 0)
			r->at += (size_t)n;
		else if (n < 0 && errno == EAGAIN)
			return 0;
		else if (n == 0 || errno != EINTR)
			return -1;
	}
	return 1;
}

/* Waits until the pipe takes more, or the whole query's time is over. */
static void wait_writable(struct reader *r)
{
	int64_t left = r->deadline_us + 1000000 - clock_mono_us();

	if (left < 1)
		left = 1;
	struct timeval tv = {.tv_sec = (time_t)(left / 1000000), .tv_usec = (suseconds_t)(left % 1000000)};

	event_add(&r->event, &tv);
}

/* One page a turn: the loop stays awake for the supervisor's STOP. */
static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct reader *r = arg;

	(void)fd;
	if (what & EV_TIMEOUT) {
		finish(r);
		return;
	}
	if (r->at == r->len && !r->ended)
		next_page(r);
	int rc = write_some(r);

	if (rc < 0 || (rc > 0 && r->ended))
		finish(r);
	else
		wait_writable(r);
}

/* ---- the query -----------------------------------------------------------------------------------------------------
 */

/* With sums it bounds the groups that are told, not the rows that are read. */
static void take_limit(struct reader *r, struct audit_filter *filter)
{
	if (r->stats == NULL)
		return;
	r->groups_max = filter->limit == 0 || filter->limit > GROUPS_MAX ? GROUPS_MAX : filter->limit;
	filter->limit = 0;
}

static void start_query(struct reader *r, const void *body, size_t len)
{
	json_t *object = json_loadb(body, len, JSON_REJECT_DUPLICATES, NULL);
	json_t *by = json_incref(json_object_get(object, "stats"));
	struct audit_filter filter;
	struct err why;

	json_object_del(object, "stats");
	if (r->archive == NULL)
		put_error(r, r->why.text);
	else if (by != NULL && (r->stats = audit_stats_new(json_is_string(by) ? json_string_value(by) : "", &why)) == NULL)
		put_error(r, why.text);
	else if (audit_filter_json(object, &filter, &why) != 0)
		put_error(r, why.text);
	else if (take_limit(r, &filter), (r->query = audit_query_new(r->archive, &filter, &why)) == NULL)
		put_error(r, why.text);
	json_decref(by);
	json_decref(object);
}

bool reader_take(struct reader *r, struct event_base *base, struct ipc_message *m)
{
	if (m->type != IPC_QUERY || m->nfds != 1 || r->fd >= 0)
		return false;
	int flags = fcntl(m->fds[0], F_GETFL);

	if (flags < 0 || fcntl(m->fds[0], F_SETFL, flags | O_NONBLOCK) != 0)
		return false;
	r->fd = m->fds[0];
	m->fds[0] = -1;
	event_assign(&r->event, base, r->fd, EV_WRITE, on_writable, r);
	start_query(r, m->body, m->len);
	wait_writable(r);
	return true;
}

struct reader *reader_new(int64_t time_us, uint64_t rows_max, reader_done *done, void *arg)
{
	struct reader *r = calloc(1, sizeof *r);

	if (r == NULL || (r->buffer = malloc(BUFFER_BYTES + LINE_BYTES)) == NULL)
		log_fatal("out of memory for a query of the audit");
	r->fd = -1;
	r->deadline_us = clock_mono_us() + time_us;
	r->rows_max = rows_max;
	r->done = done;
	r->arg = arg;
	r->archive = audit_archive_open(&r->why);
	return r;
}

void reader_free(struct reader **rp)
{
	struct reader *r = *rp;

	*rp = NULL;
	if (r == NULL)
		return;
	if (r->fd >= 0) {
		event_del(&r->event);
		close(r->fd);
	}
	audit_query_free(&r->query);
	audit_stats_free(&r->stats);
	audit_archive_close(&r->archive);
	free(r->buffer);
	free(r);
}

bool reader_busy(const struct reader *r)
{
	return r->fd >= 0;
}
