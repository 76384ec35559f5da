/* A read transaction lasts a fraction of a second at a time, so that the recorder's log never grows because somebody
 * reads slowly: a page of rows is made into lines first, and written when the transaction is over. */
#include "config.h"

#include "gatewayd/reader/answer.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "schema/audit_answer.h"

/* Of one read transaction. */
#define PAGE_US 200000
/* A page also ends when its lines have this many bytes. */
#define BUFFER_BYTES (2 * 1024 * 1024)
/* A line: an event whose every byte is escaped twice, or the series of a report. */
#define LINE_BYTES (256 * 1024)

struct reader {
	struct audit_archive *archive; /* NULL: why says why not */
	struct err why;
	struct audit_answer *answer;
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

static void put_error(struct reader *r, const char *text)
{
	json_t *line = json_object();

	json_object_set_new(line, "error", json_string(text));
	if (!put_line(r, line))
		put_line(r, json_pack("{s:s}", "error", "the query failed for a reason that cannot be shown"));
	r->ended = true;
}

static bool on_line(json_t *line, void *arg)
{
	struct reader *r = arg;

	if (!put_line(r, line))
		log_warning("a line of an answer is too long to be told");
	return r->len < BUFFER_BYTES;
}

static void next_page(struct reader *r)
{
	r->at = r->len = 0;
	if (clock_mono_us() >= r->deadline_us) {
		put_error(r, "the query took too long: ask for a shorter time (--since, --until)");
		return;
	}
	if (audit_answer_rows(r->answer) >= r->rows_max) {
		put_error(r, "the answer has too many rows: ask for a shorter time (--since, --until)");
		return;
	}
	r->ended = audit_answer_page(r->answer, PAGE_US, on_line, r) == 0;
}

/* ---- the pipe ------------------------------------------------------------------------------------------------------
 */

static void finish(struct reader *r)
{
	event_del(&r->event);
	if (r->fd >= 0)
		close(r->fd);
	r->fd = -1;
	audit_answer_free(&r->answer);
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

/* A statement can look for its next row for long: it ends when nobody reads. */
static bool is_read(void *arg)
{
	const struct reader *r = arg;
	struct pollfd pipe = {.fd = r->fd};

	return poll(&pipe, 1, 0) <= 0 || (pipe.revents & (POLLERR | POLLHUP | POLLNVAL)) == 0;
}

static void start_query(struct reader *r, const void *body, size_t len)
{
	json_t *object = json_loadb(body, len, JSON_REJECT_DUPLICATES, NULL);
	struct err why;

	if (r->archive == NULL)
		put_error(r, r->why.text);
	else if ((r->answer = audit_answer_new(r->archive, object, &why)) == NULL)
		put_error(r, why.text);
	else
		audit_answer_watch(r->answer, is_read, r);
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
	audit_answer_free(&r->answer);
	audit_archive_close(&r->archive);
	free(r->buffer);
	free(r);
}

bool reader_busy(const struct reader *r)
{
	return r->fd >= 0;
}
