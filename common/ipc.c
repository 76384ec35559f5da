#include "config.h"

#include "common/ipc.h"

#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"

struct row {
	const char *name;
	uint32_t from, to; /* bit sets of roles */
	uint32_t max;
	uint8_t fds;
};

static const struct row table[] = {
#define IPC_MESSAGE(name, from, to, size, fds) [IPC_##name] = {#name, (from), (to), (size), (fds)},
#include "common/ipc.def"
};

/* What precedes each body in a datagram. */
struct header {
	uint16_t type;
	uint16_t nfds;
	uint32_t len;
};

#define BATCH_MAX (64 * 1024)
/* How long to wait when the kernel is short of what no socket event tells of. */
#define SHORTAGE_MS 10

struct datagram {
	TAILQ_ENTRY(datagram) next;
	size_t len, size;
	int fds[IPC_FDS_MAX];
	int nfds;
	uint8_t *data;
};

struct ipc {
	int fd;
	enum role self, peer;
	uint16_t peer_slot;
	bool dead;
	bool broke_rules;
	bool freed; /* ipc_free() was called inside a handler */
	bool paused;
	int depth; /* handlers running */
	struct event_base *base;
	ipc_handler *handler;
	ipc_gone *gone;
	void *arg;
	struct event read_event, write_event, flush_event;
	TAILQ_HEAD(queue, datagram) queue;
	size_t queued;
	size_t usual; /* bytes of the last datagram that was sent: the next is made for as many */
};

/* One process, one thread: every link reads into the same place. */
static uint8_t inbox[IPC_DATAGRAM_MAX];

const char *ipc_type_name(enum ipc_type type)
{
	return (unsigned)type < IPC_TYPE_COUNT ? table[type].name : "?";
}

size_t ipc_body_max(enum ipc_type type)
{
	return table[type].max;
}

enum role ipc_peer(const struct ipc *link)
{
	return link->peer;
}

uint16_t ipc_peer_slot(const struct ipc *link)
{
	return link->peer_slot;
}

bool ipc_broke_rules(const struct ipc *link)
{
	return link->broke_rules;
}

size_t ipc_queued(const struct ipc *link)
{
	return link->queued;
}

int ipc_pair(int fds[2])
{
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds);
}

struct ipc *ipc_new(int fd, enum role self, enum role peer, uint16_t peer_slot)
{
	struct ipc *link = calloc(1, sizeof *link);

	if (link == NULL)
		log_fatal("out of memory for a link to %s", role_name(peer));
	link->fd = fd;
	link->self = self;
	link->peer = peer;
	link->peer_slot = peer_slot;
	TAILQ_INIT(&link->queue);
	return link;
}

/* ---- sending ----------------------------------------------------------------------------------------------- */

static void close_fds(int *fds, int nfds)
{
	for (int i = 0; i < nfds; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

static void datagram_free(struct datagram *d)
{
	close_fds(d->fds, d->nfds);
	/* Bodies may hold a password on its way to the authenticator. */
	explicit_bzero(d->data, d->len);
	free(d->data);
	free(d);
}

static void drop_queue(struct ipc *link)
{
	struct datagram *d;

	while ((d = TAILQ_FIRST(&link->queue)) != NULL) {
		TAILQ_REMOVE(&link->queue, d, next);
		datagram_free(d);
	}
	link->queued = 0;
}

/* Room for `need` more bytes; what moves is wiped behind it. */
static bool datagram_reserve(struct datagram *d, size_t need, size_t usual)
{
	size_t size = d->size > 0 ? d->size : usual > 1024 ? usual : 1024;

	if (d->len + need <= d->size)
		return true;
	while (size < d->len + need)
		size *= 2;
	uint8_t *bigger = malloc(size);

	if (bigger == NULL)
		return false;
	if (d->data != NULL) {
		memcpy(bigger, d->data, d->len);
		explicit_bzero(d->data, d->len);
		free(d->data);
	}
	d->data = bigger;
	d->size = size;
	return true;
}

/* The datagram that a message of `need` bytes joins, or a new one; NULL if memory is short.  Descriptors travel alone.
 */
static struct datagram *datagram_for(struct ipc *link, size_t need, int nfds)
{
	struct datagram *d = TAILQ_LAST(&link->queue, queue);

	if (d != NULL && nfds == 0 && d->nfds == 0 && d->len + need <= BATCH_MAX)
		return datagram_reserve(d, need, 0) ? d : NULL;
	d = calloc(1, sizeof *d);
	if (d == NULL)
		return NULL;
	if (!datagram_reserve(d, need, link->usual)) {
		free(d);
		return NULL;
	}
	TAILQ_INSERT_TAIL(&link->queue, d, next);
	return d;
}

int ipc_send(struct ipc *link, enum ipc_type type, const void *body, size_t len, const int *fds, int nfds)
{
	struct header h = {.type = (uint16_t)type, .nfds = (uint16_t)nfds, .len = (uint32_t)len};
	struct datagram *d = NULL;

	assert((unsigned)type < IPC_TYPE_COUNT && len <= table[type].max && nfds <= table[type].fds);
	assert((table[type].from & (1u << link->self)) && (table[type].to & (1u << link->peer)));
	if (!link->dead && !link->broke_rules && link->queued + sizeof h + len <= IPC_QUEUE_MAX)
		d = datagram_for(link, sizeof h + len, nfds);
	if (d == NULL) {
		for (int i = 0; i < nfds; i++)
			close(fds[i]);
		return -1;
	}
	memcpy(d->data + d->len, &h, sizeof h);
	if (len > 0)
		memcpy(d->data + d->len + sizeof h, body, len);
	d->len += sizeof h + len;
	for (int i = 0; i < nfds; i++)
		d->fds[d->nfds++] = fds[i];
	link->queued += sizeof h + len;
	if (link->base != NULL)
		event_active(&link->flush_event, EV_TIMEOUT, 1);
	return 0;
}

int ipc_send_wire(struct ipc *link, enum ipc_type type, const struct wire_writer *body)
{
	if (body->overflow)
		return -1;
	return ipc_send(link, type, body->data, body->len, NULL, 0);
}

/* SHORT: the kernel is short of memory or of descriptors on their way, whether or not the socket is writable. */
enum sending { SENT, BLOCKED, SHORT, DEAD };

static enum sending send_datagram(int fd, struct datagram *d)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int) * IPC_FDS_MAX)];
		struct cmsghdr align;
	} control;
	struct iovec iov = {.iov_base = d->data, .iov_len = d->len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (d->nfds > 0) {
		memset(&control, 0, sizeof control);
		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)d->nfds);
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)d->nfds);
		memcpy(CMSG_DATA(c), d->fds, sizeof(int) * (size_t)d->nfds);
	}
	for (;;) {
		ssize_t n = sendmsg(fd, &msg, MSG_NOSIGNAL);

		if (n == (ssize_t)d->len)
			return SENT;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return BLOCKED;
		return n < 0 && (errno == ENOBUFS || errno == ETOOMANYREFS) ? SHORT : DEAD;
	}
}

/* SENT: all; else what became of the first that is left. */
static enum sending flush_queue(struct ipc *link)
{
	struct datagram *d;

	while ((d = TAILQ_FIRST(&link->queue)) != NULL) {
		enum sending rc = send_datagram(link->fd, d);

		if (rc != SENT)
			return rc;
		TAILQ_REMOVE(&link->queue, d, next);
		link->queued -= d->len;
		link->usual = d->len;
		datagram_free(d);
	}
	return SENT;
}

int ipc_flush_blocking(struct ipc *link)
{
	while (!link->broke_rules) {
		enum sending rc = flush_queue(link);
		struct pollfd p = {.fd = link->fd, .events = POLLOUT};
		int waited;

		if (rc == SENT || rc == DEAD)
			return rc == SENT ? 0 : -1;
		waited = rc == SHORT ? poll(NULL, 0, SHORTAGE_MS) : poll(&p, 1, -1);
		if (waited < 0 && errno != EINTR)
			return -1;
	}
	return -1;
}

/* ---- receiving ---------------------------------------------------------------------------------------------- */

static void (*violation_report)(enum role role, uint16_t slot, void *arg);
static void *violation_arg;

void ipc_on_violation(void (*report)(enum role role, uint16_t slot, void *arg), void *arg)
{
	violation_report = report;
	violation_arg = arg;
}

static void blame(struct ipc *link)
{
	link->broke_rules = true;
	if (violation_report != NULL)
		violation_report(link->peer, link->peer_slot, violation_arg);
}

static bool violation(struct ipc *link, const char *what, unsigned type)
{
	log_error("%s/%u sent a message that breaks the protocol (%s, type %u %s): its link is cut",
		  role_name(link->peer), link->peer_slot, what, type, ipc_type_name((enum ipc_type)type));
	blame(link);
	return false;
}

void ipc_reject(struct ipc *link, const char *why)
{
	if (link->dead || link->broke_rules)
		return;
	log_error("%s/%u broke the protocol (%s): its link is cut", role_name(link->peer), link->peer_slot, why);
	blame(link);
	if (link->base != NULL)
		event_active(&link->flush_event, EV_TIMEOUT, 1);
}

/* Takes one message off the datagram after checking it against the table. */
static bool next_message(struct ipc *link, const uint8_t **at, const uint8_t *end, int *fds, int *nfds,
			 struct ipc_message *m)
{
	struct header h;

	if ((size_t)(end - *at) < sizeof h)
		return violation(link, "truncated header", IPC_TYPE_COUNT);
	memcpy(&h, *at, sizeof h);
	*at += sizeof h;
	if (h.type >= IPC_TYPE_COUNT)
		return violation(link, "unknown type", h.type);
	const struct row *row = &table[h.type];

	if (!(row->from & (1u << link->peer)) || !(row->to & (1u << link->self)))
		return violation(link, "not allowed", h.type);
	if (h.len > row->max || h.len > (size_t)(end - *at))
		return violation(link, "length", h.type);
	if (h.nfds > row->fds || h.nfds > *nfds)
		return violation(link, "descriptors", h.type);
	*m = (struct ipc_message){.type = (enum ipc_type)h.type, .body = *at, .len = h.len, .nfds = h.nfds};
	*at += h.len;
	*nfds -= h.nfds;
	memcpy(m->fds, fds, sizeof(int) * h.nfds);
	memmove(fds, fds + h.nfds, sizeof(int) * (size_t)*nfds);
	return true;
}

/* Receives a datagram into the inbox: its length, 0 peer gone, -1 would block, -2 broken. */
static ssize_t receive_datagram(struct ipc *link, int *fds, int *nfds)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int) * IPC_FDS_MAX)];
		struct cmsghdr align;
	} control;
	struct iovec iov = {.iov_base = inbox, .iov_len = sizeof inbox};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
	ssize_t n;

	/* ECONNRESET is told once, of a peer that ended without reading all; what it had sent is still there behind it.
	 */
	do
		n = recvmsg(link->fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	while (n < 0 && (errno == EINTR || errno == ECONNRESET));
	*nfds = 0;
	if (n < 0)
		return errno == EAGAIN ? -1 : -2;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c != NULL; c = CMSG_NXTHDR(&msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (count > (size_t)(IPC_FDS_MAX - *nfds))
			count = (size_t)(IPC_FDS_MAX - *nfds); /* cannot happen: the kernel cut them to our space */
		memcpy(fds + *nfds, CMSG_DATA(c), count * sizeof(int));
		*nfds += (int)count;
	}
	/* With room left for descriptors, it was this process that had no place for more (recvmsg(2), unix(7)). */
	bool ours = (msg.msg_flags & MSG_CTRUNC) && *nfds < IPC_FDS_MAX;

	if (ours && !(msg.msg_flags & MSG_TRUNC)) {
		log_error("no descriptor is free for what %s/%u sent: the link between us is cut",
			  role_name(link->peer), link->peer_slot);
		close_fds(fds, *nfds);
		*nfds = 0;
		return -2;
	}
	if (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
		close_fds(fds, *nfds);
		*nfds = 0;
		violation(link, "datagram cut", IPC_TYPE_COUNT);
		return -2;
	}
	if (n == 0 && *nfds > 0) {
		/* Not the end of the stream: an empty datagram may carry descriptors. */
		close_fds(fds, *nfds);
		*nfds = 0;
		violation(link, "descriptors without a message", IPC_TYPE_COUNT);
		return -2;
	}
	return n;
}

/* Handles one datagram: 1 handled, 0 would block, -1 the link is dead. */
static int receive_once(struct ipc *link, ipc_handler *handler, void *arg)
{
	int fds[IPC_FDS_MAX], nfds;
	const uint8_t *at = inbox, *end;
	uint8_t *copy = NULL;

	if (link->broke_rules)
		return -1;
	ssize_t n = receive_datagram(link, fds, &nfds);

	if (n <= 0)
		return n == -1 ? 0 : -1;
	/* A handler may receive on another link, into the same inbox: long work happens on a private copy. */
	copy = malloc((size_t)n);
	if (copy == NULL) {
		log_error("no memory for what %s/%u sent: the link between us is cut", role_name(link->peer),
			  link->peer_slot);
		explicit_bzero(inbox, (size_t)n);
		close_fds(fds, nfds);
		return -1;
	}
	memcpy(copy, inbox, (size_t)n);
	explicit_bzero(inbox, (size_t)n);
	at = copy;
	end = copy + n;
	int rc = 1;

	link->depth++;
	while (at < end && !link->dead && !link->freed) {
		struct ipc_message m;

		if (!next_message(link, &at, end, fds, &nfds, &m)) {
			rc = -1;
			break;
		}
		handler(link, &m, arg);
		close_fds(m.fds, m.nfds);
		if (link->broke_rules) {
			rc = -1;
			break;
		}
	}
	link->depth--;
	close_fds(fds, nfds);
	explicit_bzero(copy, (size_t)n);
	free(copy);
	return rc;
}

static void destroy(struct ipc *link);

int ipc_receive_blocking(struct ipc *link, ipc_handler *handler, void *arg)
{
	for (;;) {
		int rc = receive_once(link, handler, arg);
		struct pollfd p = {.fd = link->fd, .events = POLLIN};

		if (link->freed) {
			destroy(link);
			return -1;
		}
		if (rc != 0)
			return rc < 0 ? -1 : 0;
		if (poll(&p, 1, -1) < 0 && errno != EINTR)
			return -1;
	}
}

struct ipc *ipc_wait_blocking(struct ipc *a, struct ipc *b)
{
	struct pollfd p[] = {{.fd = a->fd, .events = POLLIN}, {.fd = b->fd, .events = POLLIN}};

	while (poll(p, 2, -1) < 0)
		if (errno != EINTR)
			return NULL;
	return p[1].revents != 0 ? b : a;
}

/* ---- the loop ------------------------------------------------------------------------------------------------ */

static void destroy(struct ipc *link)
{
	if (link->base != NULL) {
		event_del(&link->read_event);
		event_del(&link->write_event);
		event_del(&link->flush_event);
	}
	drop_queue(link);
	close(link->fd);
	free(link);
}

/* Tells the owner once, and frees the link if the owner asked for it meanwhile. */
static void die(struct ipc *link)
{
	if (!link->dead) {
		link->dead = true;
		event_del(&link->read_event);
		event_del(&link->write_event);
		event_del(&link->flush_event);
		drop_queue(link);
		link->depth++;
		if (!link->freed && link->gone != NULL)
			link->gone(link, link->arg);
		link->depth--;
	}
	if (link->freed && link->depth == 0)
		destroy(link);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct ipc *link = arg;

	(void)fd, (void)what;
	/* A few datagrams a turn: one chatty peer must not starve the sessions. */
	for (int i = 0; i < 8; i++) {
		int rc = receive_once(link, link->handler, link->arg);

		if (link->freed) {
			destroy(link);
			return;
		}
		if (rc < 0) {
			die(link);
			return;
		}
		if (rc == 0 || link->dead || link->paused)
			return;
	}
}

static void on_flush(evutil_socket_t fd, short what, void *arg)
{
	struct ipc *link = arg;
	const struct timeval shortage = {.tv_usec = SHORTAGE_MS * 1000};
	enum sending rc;

	(void)fd, (void)what;
	if (link->dead)
		return;
	if (link->broke_rules) {
		die(link);
		return;
	}
	rc = flush_queue(link);
	if (rc == DEAD && (errno == EPIPE || errno == ECONNRESET))
		drop_queue(link); /* the peer has ended: reading tells so, behind the last that it sent */
	else if (rc == DEAD)
		die(link);
	else if (rc == BLOCKED)
		event_add(&link->write_event, NULL);
	else if (rc == SHORT)
		event_add(&link->flush_event, &shortage);
}

void ipc_attach(struct ipc *link, struct event_base *base, ipc_handler *handler, ipc_gone *gone, void *arg)
{
	assert(link->base == NULL);
	link->base = base;
	link->handler = handler;
	link->gone = gone;
	link->arg = arg;
	event_assign(&link->read_event, base, link->fd, EV_READ | EV_PERSIST, on_readable, link);
	event_assign(&link->write_event, base, link->fd, EV_WRITE, on_flush, link);
	event_assign(&link->flush_event, base, -1, 0, on_flush, link);
	if (!link->paused)
		event_add(&link->read_event, NULL);
	if (!TAILQ_EMPTY(&link->queue) || link->broke_rules)
		event_active(&link->flush_event, EV_TIMEOUT, 1);
}

void ipc_pause(struct ipc *link, bool paused)
{
	link->paused = paused;
	if (link->base == NULL || link->dead)
		return;
	if (paused)
		event_del(&link->read_event);
	else
		event_add(&link->read_event, NULL);
}

void ipc_free(struct ipc **link)
{
	struct ipc *l = *link;

	*link = NULL;
	if (l == NULL)
		return;
	l->freed = true;
	if (l->depth == 0)
		destroy(l);
}
