/* Carries the bytes.  Everything is read into one buffer of the worker's and sent on at once; only what the receiver would not
 * take is kept, and then nothing more is read from that side: an idle session owns no buffer.  The directions are
 * independent: one may end while the other goes on, for as long as the idle limit allows.
 *
 * Small requests are cheapest so.  A direction that reads a lot, again and again, is bulk: its bytes move through a pipe of the
 * worker's (pipes.h) and are never copied, until it reads little again. */
#include "config.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "gatewayd/worker/gss.h"
#include "gatewayd/worker/session.h"
#include "gatewayd/worker/worker.h"

/* Reads of one side before the others get their turn. */
#define READS_PER_TURN 4
/* So many reads in a row, each of at least so much, are bulk; so many of less than that are not. */
#define BULK_READS 6
#define BULK_BYTES (16 * 1024)
#define SMALL_READS 32
#define SMALL_BYTES (4 * 1024)
/* Most sessions are over before their other side could be silent: it is prepared for that after a moment. */
#define KEEPALIVE_AFTER_US 2000000
/* A side that has ended is looked at after as long as nothing has moved, but not more and not less often than this. */
#define LOOK_MIN_US 2000000
#define LOOK_MAX_US 60000000

/* One direction, with everything that differs between the two. */
struct side {
	struct flow *flow;
	struct sock *from, *to;
	sock_handler *on_bytes, *on_room;
	const char *from_reset, *to_reset; /* reasons for the record */
};

static void on_client_readable(void *arg);
static void on_server_readable(void *arg);
static void on_client_writable(void *arg);
static void on_server_writable(void *arg);

static struct side up(struct session *s)
{
	return (struct side){&s->up,		&s->client_sock, &s->server_sock, on_client_readable, on_server_writable,
			     "client reset", "server reset"};
}

static struct side down(struct session *s)
{
	return (struct side){&s->down,		&s->server_sock, &s->client_sock, on_server_readable, on_client_writable,
			     "server reset", "client reset"};
}

enum step { STEP_ON, STEP_WAIT, STEP_OVER };

static void arm(struct session *s, int64_t now);

static void note_carried(struct session *s, struct side *d, size_t len)
{
	d->flow->bytes += len;
	*(d->flow == &s->up ? &s->worker->carried_up : &s->worker->carried_down) += len;
	s->active_us = clock_mono_us();
	session_carried(s, s->active_us);
}

static enum step wait_for_room(struct side *d)
{
	sock_on_read(d->from, NULL);
	sock_on_room(d->to, d->on_room);
	return STEP_WAIT;
}

static void read_on(struct side *d)
{
	sock_on_read(d->from, d->on_bytes);
}

/* Sends what it can; keeps the rest and waits for room. */
static enum step deliver(struct session *s, struct side *d, const uint8_t *data, size_t len)
{
	size_t sent = 0;

	while (sent < len) {
		ssize_t n = send(d->to->fd, data + sent, len - sent, MSG_NOSIGNAL);

		if (n >= 0) {
			sent += (size_t)n;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN) {
			session_end(s, d->to_reset, true);
			return STEP_OVER;
		}
		break;
	}
	note_carried(s, d, sent);
	if (sent == len)
		return STEP_ON;
	if (data != d->flow->pending + d->flow->off) {
		d->flow->pending = malloc(len - sent);
		if (d->flow->pending == NULL) {
			session_end(s, "out of memory", true);
			return STEP_OVER;
		}
		memcpy(d->flow->pending, data + sent, len - sent);
		d->flow->off = 0;
	} else {
		d->flow->off += (uint32_t)sent;
	}
	d->flow->len = (uint32_t)(len - sent);
	return wait_for_room(d);
}

/* The sender has finished: the receiver hears of it once it has everything. */
static enum step finish_direction(struct session *s, struct side *d)
{
	sock_on_read(d->from, NULL);
	d->flow->eof = true;
	if (d->flow->len > 0)
		return STEP_WAIT;
	if (d->flow == &s->up && gss_waiting(s) > 0) {
		session_end(s, "the client ended inside a message", true);
		return STEP_OVER;
	}
	d->flow->shut = true;
	if (s->up.shut && s->down.shut) {
		session_end(s, "done", false); /* closing tells the receiver */
		return STEP_OVER;
	}
	shutdown(d->to->fd, SHUT_WR);
	/* From now on it is looked at; until the timer has fired first, that is soon. */
	if (s->kept_alive)
		arm(s, clock_mono_us());
	return STEP_WAIT;
}

/* ---- GSSAPI (RFC 1961 section 5) ------------------------------------------------------------------------------------ */

static enum step spoiled(struct session *s, const struct err *why)
{
	session_end(s, why->text, true);
	return STEP_OVER;
}

/* Messages of the client, opened for as long as the destination takes them; the rest waits, and is no more than one read. */
static enum step open_messages(struct session *s, struct side *d, uint8_t *data, size_t len)
{
	enum step step = STEP_ON;
	size_t used, plain_len;
	uint8_t *plain;
	struct err why;
	int rc = 0;

	/* Mostly none waits, and they are opened where they were read. */
	while (gss_waiting(s) == 0 && step == STEP_ON && (rc = gss_open(s, data, len, &used, &plain, &plain_len, &why)) == 1) {
		data += used;
		len -= used;
		if (plain_len > 0)
			step = deliver(s, d, plain, plain_len);
	}
	if (step == STEP_OVER)
		return step;
	if (rc < 0 || gss_take(s, data, len, &why) != 0)
		return spoiled(s, &why);
	while (step == STEP_ON && (rc = gss_next(s, &plain, &plain_len, &why)) == 1)
		if (plain_len > 0)
			step = deliver(s, d, plain, plain_len);
	return rc < 0 && step != STEP_OVER ? spoiled(s, &why) : step;
}

/* What the destination sent, as one message. */
static enum step make_message(struct session *s, struct side *d, const uint8_t *data, size_t len)
{
	const uint8_t *frame;
	size_t frame_len;
	struct err why;

	if (gss_encapsulate(s, data, len, &frame, &frame_len, &why) != 0)
		return spoiled(s, &why);
	return deliver(s, d, frame, frame_len);
}

static enum step pass(struct session *s, struct side *d, uint8_t *data, size_t len)
{
	if (!gss_protects(s))
		return deliver(s, d, data, len);
	return d->flow == &s->up ? open_messages(s, d, data, len) : make_message(s, d, data, len);
}

/* ---- bulk ----------------------------------------------------------------------------------------------------------- */

/* Does what was read speak for the other way of carrying, and has it done so for long enough? */
static void judge(struct flow *f, size_t len)
{
	if (f->bulk ? len >= SMALL_BYTES : len < BULK_BYTES) {
		f->streak = 0;
	} else if (++f->streak == (f->bulk ? SMALL_READS : BULK_READS)) {
		f->bulk = !f->bulk;
		f->streak = 0;
	}
}

/* From the pipe to the receiver; an empty pipe goes back. */
static enum step push(struct session *s, struct side *d)
{
	struct relay_pipe *pipe = d->flow->pipe;
	size_t sent = 0;

	while (pipe->len > 0) {
		ssize_t n = splice(pipe->out, NULL, d->to->fd, NULL, pipe->len, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);

		if (n > 0) {
			pipe->len -= (uint32_t)n;
			sent += (size_t)n;
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n == 0 || errno != EAGAIN) {
			session_end(s, d->to_reset, true);
			return STEP_OVER;
		}
		break;
	}
	if (sent > 0)
		note_carried(s, d, sent);
	if (pipe->len > 0)
		return wait_for_room(d);
	pipes_put(&s->worker->pipes, &d->flow->pipe);
	return STEP_ON;
}

/* One read into a pipe and out of it.  *moved: the bytes; 0 if the sender is to be asked by recv(2), which alone tells an end from
 * an urgent byte that splice(2) does not pass. */
static enum step move(struct session *s, struct side *d, size_t *moved)
{
	struct flow *f = d->flow;
	ssize_t n;

	*moved = 0;
	f->pipe = pipes_get(&s->worker->pipes, clock_mono_us());
	if (f->pipe == NULL)
		return STEP_ON;
	do
		n = splice(d->from->fd, NULL, f->pipe->in, NULL, f->pipe->size, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	while (n < 0 && errno == EINTR);
	if (n <= 0) {
		pipes_put(&s->worker->pipes, &f->pipe);
		if (n == 0 || errno == EAGAIN || errno == EINVAL)
			return STEP_ON;
		/* Told once: recv(2) would take it for an end in good order. */
		session_end(s, d->from_reset, true);
		return STEP_OVER;
	}
	*moved = (size_t)n;
	f->pipe->len = (uint32_t)n;
	/* A pipe may be full sooner than its size says: less than that does not mean that there is no more. */
	if (*moved < f->pipe->size)
		sock_look(d->from);
	judge(f, *moved);
	return push(s, d);
}

/* ---- one direction ----------------------------------------------------------------------------------------------------- */

static enum step pump(struct session *s, struct side *d)
{
	uint8_t *buffer = s->worker->buffer;
	bool protects = gss_protects(s);
	size_t size = protects && d->flow == &s->down ? GSS_PLAIN_MAX : RELAY_BUFFER, moved;

	for (int i = 0; i < READS_PER_TURN; i++) {
		if (d->flow->bulk) {
			enum step step = move(s, d, &moved);

			/* What comes meanwhile is told by the loop: asking would mostly be in vain. */
			if (step != STEP_ON || moved > 0)
				return step;
		}
		ssize_t n = protects && d->flow == &s->up ? gss_recv(s, buffer, size) : sock_recv(d->from, buffer, size);

		if (n == 0)
			return finish_direction(s, d);
		if (n < 0) {
			if (errno == EAGAIN || errno == EINTR)
				return STEP_ON;
			session_end(s, d->from_reset, true);
			return STEP_OVER;
		}
		if (!protects && !d->flow->bulk)
			judge(d->flow, (size_t)n);
		enum step step = pass(s, d, buffer, (size_t)n);

		if (step != STEP_ON || (size_t)n < size)
			return step;
	}
	return STEP_ON;
}

static void drain(struct session *s, struct side *d)
{
	struct flow *f = d->flow;

	if (f->pipe != NULL) {
		if (push(s, d) == STEP_ON)
			read_on(d);
		return;
	}
	if (deliver(s, d, f->pending + f->off, f->len) != STEP_ON)
		return;
	free(f->pending);
	f->pending = NULL;
	f->off = f->len = 0;
	if (f == &s->up && gss_waiting(s) > 0 && open_messages(s, d, NULL, 0) != STEP_ON)
		return;
	if (f->eof)
		finish_direction(s, d);
	else
		read_on(d);
}

void relay_free(struct session *s)
{
	free(s->up.pending);
	free(s->down.pending);
	pipes_put(&s->worker->pipes, &s->up.pipe);
	pipes_put(&s->worker->pipes, &s->down.pipe);
}

static void on_client_readable(void *arg)
{
	struct side d = up(arg);

	pump(arg, &d);
}

static void on_server_readable(void *arg)
{
	struct side d = down(arg);

	pump(arg, &d);
}

static void on_server_writable(void *arg)
{
	struct side d = up(arg);

	drain(arg, &d);
}

static void on_client_writable(void *arg)
{
	struct side d = down(arg);

	drain(arg, &d);
}

static int64_t idle_limit_us(const struct session *s)
{
	return (int64_t)s->listener->idle_timeout_ms * 1000;
}

/* Who vanished after his last byte would otherwise hold the session for the whole idle limit. */
static void keep_alive(int fd)
{
	int one = 1, idle_s = KEEPALIVE_IDLE_S, interval_s = KEEPALIVE_INTERVAL_S, probes = KEEPALIVE_PROBES;

	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

static int64_t look_in_us(const struct session *s, int64_t now)
{
	int64_t silent = now - s->active_us;

	return silent < LOOK_MIN_US ? LOOK_MIN_US : silent > LOOK_MAX_US ? LOOK_MAX_US : silent;
}

/* Nothing tells of a side that is not read any more, because it would tell of its end again and again: has it been reset, or given up
 * by its probes?  Not before all of it has been delivered. */
static bool has_vanished(const struct side *d)
{
	struct pollfd p = {.fd = d->from->fd};

	return d->flow->shut && poll(&p, 1, 0) == 1 && (p.revents & POLLERR);
}

/* For whatever comes first. */
static void arm(struct session *s, int64_t now)
{
	int64_t left = s->active_us + idle_limit_us(s) - now;
	int64_t age_left = session_age_left_us(s, now), checkpoint_left = session_checkpoint_left_us(s, now);

	if (age_left < left)
		left = age_left;
	if (!s->kept_alive && KEEPALIVE_AFTER_US < left)
		left = KEEPALIVE_AFTER_US;
	if ((s->up.shut || s->down.shut) && look_in_us(s, now) < left)
		left = look_in_us(s, now);
	session_arm(s, checkpoint_left < left ? checkpoint_left : left);
}

/* The timer is set once and looks, when it fires, how long ago the last byte went: no timer is touched per packet. */
void relay_idle_check(struct session *s)
{
	int64_t now = clock_mono_us(), left = s->active_us + idle_limit_us(s) - now;
	int64_t age_left = session_age_left_us(s, now);
	struct side sides[] = {up(s), down(s)};

	if (!s->kept_alive) {
		keep_alive(s->server_fd);
		s->kept_alive = true;
	}
	if (session_checkpoint_left_us(s, now) <= 0)
		session_checkpoint(s, now);
	if (age_left <= 0)
		session_end(s, session_age_reason(s, now), false);
	else if (left <= 0)
		session_end(s, "idle timeout", false);
	else if (has_vanished(&sides[0]) || has_vanished(&sides[1]))
		session_end(s, sides[has_vanished(&sides[1])].from_reset, true);
	else
		arm(s, now);
}

void relay_prepare(int fd)
{
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	/* Out of line, an urgent byte would be lost, and with two of them one is lost before anybody reads: in its place it passes
	 * like any other (RFC 6093 section 5).  The client's side has both from its listener. */
	setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &one, sizeof one);
}

void relay_start(struct session *s, const uint8_t *early, size_t len)
{
	struct side d = up(s);

	sock_on_read(&s->client_sock, on_client_readable);
	sock_on_read(&s->server_sock, on_server_readable);
	s->active_us = clock_mono_us();
	arm(s, s->active_us);
	/* Bytes that came in one piece with the request. */
	if (len > 0 && deliver(s, &d, early, len) != STEP_ON)
		return;
	if (gss_waiting(s) > 0)
		open_messages(s, &d, NULL, 0);
}
