#include "config.h"

#include "gatewayd/worker/udp.h"

#include <errno.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "gatewayd/worker/gss.h"
#include "gatewayd/worker/socks5.h"
#include "gatewayd/worker/udp_join.h"
#include "gatewayd/worker/worker.h"

#define BATCH 32
#define DATAGRAM_MAX 65535
/* What a batch was joined of is collected, and leaves joined again. */
#define PARCELS 128

enum { OUT_V4, OUT_V6 };

/* Whether what leaves may be joined. */
static bool joins;

/* How many messages are received in a turn: fewer where each is many datagrams, so that others have their turn, too. */
static int turn_max = BATCH;

/* One worker, one thread: all associations receive into the same places, */
static struct batch {
	struct mmsghdr messages[BATCH];
	struct iovec iov[BATCH];
	struct sockaddr_storage from[BATCH];
	char control[BATCH][JOIN_SIZE_SPACE] __attribute__((aligned(8)));
	uint8_t data[BATCH][DATAGRAM_MAX];
} *batch;

/* and collect here what leaves by one socket, until it is full or another's turn. */
static struct outbox {
	int fd;
	unsigned n;
	struct parcel {
		struct udp_flow *flow;
		bool back;
		size_t len;      /* that counts */
		size_t wire_len; /* that leaves */
		struct endpoint to;
		struct addr source; /* ADDR_NONE: any */
		unsigned nparts;
		struct iovec parts[2];
		uint8_t header[SOCKS5_UDP_HEADER_MAX];
	} parcels[PARCELS];
} outbox;

/* The outbox as the kernel takes it: a message for each datagram, or for several that leave joined. */
static struct post {
	struct mmsghdr messages[PARCELS];
	unsigned carries[PARCELS]; /* parcels, each */
	struct sockaddr_storage to[PARCELS];
	struct iovec parts[2 * PARCELS];
	char control[PARCELS][CMSG_SPACE(sizeof(struct in6_pktinfo)) + JOIN_MARK_SPACE] __attribute__((aligned(8)));
} post;

/* Receives up to a batch.  The number, or -1. */
static int receive_batch(int fd)
{
	static int spent = BATCH; /* places that have to be made ready: those of the last time */
	int n;

	for (int i = 0; i < spent; i++) {
		batch->iov[i] = (struct iovec){.iov_base = batch->data[i], .iov_len = DATAGRAM_MAX};
		batch->messages[i].msg_hdr = (struct msghdr){.msg_iov = &batch->iov[i],
							     .msg_iovlen = 1,
							     .msg_name = &batch->from[i],
							     .msg_namelen = sizeof batch->from[i],
							     .msg_control = batch->control[i],
							     .msg_controllen = sizeof batch->control[i]};
	}
	n = recvmmsg(fd, batch->messages, (unsigned)turn_max, MSG_DONTWAIT, NULL);
	spent = n > 0 ? n : 0;
	return n;
}

/* Of n messages came so many datagrams: of the next, about an outbox full. */
static void share_turns(int n, int datagrams)
{
	int fit = n > 0 && datagrams > n ? PARCELS * n / datagrams : BATCH;

	turn_max = fit < 2 * turn_max ? fit : 2 * turn_max;
	turn_max = turn_max < 1 ? 1 : turn_max > BATCH ? BATCH : turn_max;
}

/* Who sent the i-th of a batch, and the size of each datagram in it.  False: it is not whole. */
static bool look_at(int i, struct endpoint *from, size_t *size)
{
	const struct msghdr *msg = &batch->messages[i].msg_hdr;

	return !(msg->msg_flags & MSG_TRUNC) && join_size(msg, batch->messages[i].msg_len, size) &&
	       endpoint_from_sockaddr((struct sockaddr *)&batch->from[i], msg->msg_namelen, from);
}

/* The last of those that came joined may be shorter. */
static size_t size_at(const uint8_t *at, const uint8_t *end, size_t size)
{
	return (size_t)(end - at) < size ? (size_t)(end - at) : size;
}

/* ---- sending -------------------------------------------------------------------------------------------------------- */

/* ICMP errors wait in the socket's error queue: counted, and thrown away. */
static void drain_errors(struct association *a, int fd)
{
	uint8_t unused[64];
	struct iovec iov = {.iov_base = unused, .iov_len = sizeof unused};

	for (int i = 0; i < BATCH; i++) {
		struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

		if (recvmsg(fd, &msg, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
			return;
		UDP_COUNT(a, icmp_errors, 1);
	}
}

static void note_sent(const struct parcel *p, int64_t now)
{
	struct udp_flow *f = p->flow;
	struct session *s = f->association->session;

	if (p->back) {
		f->bytes_down += p->len;
		f->datagrams_down++;
		s->down.bytes += p->len;
		s->worker->carried_down += p->len;
		s->active_us = now;
		flow_touch(f);
	} else {
		f->bytes_up += p->len;
		f->datagrams_up++;
		s->up.bytes += p->len;
		s->worker->carried_up += p->len;
	}
	session_carried(s, f->active_us);
}

/* Datagrams of this size, or more, cannot leave joined on its way (0: none is known). */
static size_t *unjoinable(struct parcel *p)
{
	return p->back ? &p->flow->association->unjoinable : &p->flow->unjoinable;
}

/* Back to the client, of whatever flow; towards destinations, of one. */
static bool same_way(const struct parcel *a, const struct parcel *b)
{
	return a->back || (a->flow == b->flow && addr_equal(&a->source, &b->source));
}

/* How many from the one at `at` on leave joined: of one size, but for the last, which may be shorter.  An empty one cannot be told. */
static unsigned count_joined(unsigned at, unsigned end)
{
	struct parcel *first = &outbox.parcels[at];
	size_t size = first->wire_len, bytes = size, limit = *unjoinable(first);
	unsigned n = 1;

	if (!joins || size == 0 || (limit != 0 && size >= limit))
		return 1;
	for (; n < JOIN_MAX && at + n < end; n++) {
		const struct parcel *p = &outbox.parcels[at + n];

		if (p->wire_len > size || p->wire_len == 0 || bytes + p->wire_len > JOIN_BYTES_MAX || !same_way(first, p))
			break;
		bytes += p->wire_len;
		if (p->wire_len < size)
			return n + 1;
	}
	return n;
}

/* The rule's source address goes with each datagram: flows of several rules share a socket. */
static void add_source(struct msghdr *msg, const struct addr *source)
{
	bool v6 = source->family == ADDR_V6;
	struct in_pktinfo info4 = {0};
	struct in6_pktinfo info6 = {0};
	size_t len = v6 ? sizeof info6 : sizeof info4;
	struct cmsghdr *c = msg->msg_control;

	memset(c, 0, CMSG_SPACE(len));
	msg->msg_controllen = CMSG_SPACE(len);
	c->cmsg_level = v6 ? IPPROTO_IPV6 : IPPROTO_IP;
	c->cmsg_type = v6 ? IPV6_PKTINFO : IP_PKTINFO;
	c->cmsg_len = CMSG_LEN(len);
	memcpy(v6 ? (void *)&info6.ipi6_addr : (void *)&info4.ipi_spec_dst, source->bytes, addr_len(source));
	memcpy(CMSG_DATA(c), v6 ? (void *)&info6 : (void *)&info4, len);
}

/* Makes messages of the parcels from `at` on.  How many. */
static unsigned write_post(unsigned at, unsigned end)
{
	struct iovec *part = post.parts;
	unsigned n = 0;

	for (; at < end; n++) {
		const struct parcel *first = &outbox.parcels[at];
		struct msghdr *msg = &post.messages[n].msg_hdr;

		post.carries[n] = count_joined(at, end);
		*msg = (struct msghdr){.msg_name = &post.to[n], .msg_iov = part, .msg_control = post.control[n]};
		msg->msg_namelen = endpoint_to_sockaddr(&first->to, &post.to[n]);
		if (first->source.family != ADDR_NONE)
			add_source(msg, &first->source);
		if (post.carries[n] > 1)
			join_mark(msg, (uint16_t)first->wire_len);
		for (unsigned i = 0; i < post.carries[n]; i++, at++)
			for (unsigned k = 0; k < outbox.parcels[at].nparts; k++)
				*part++ = outbox.parcels[at].parts[k];
		msg->msg_iovlen = (size_t)(part - msg->msg_iov);
	}
	return n;
}

/* What is told where the device cannot, or where each is more than the path takes whole.  Other errors say nothing of joining. */
static bool cannot_join(int error)
{
	return error == EIO || error == EINVAL || error == EMSGSIZE || error == EOPNOTSUPP;
}

void udp_flush(void)
{
	unsigned at = 0, n = outbox.n;
	int64_t now = n > 0 ? clock_mono_us() : 0;
	bool again = false;

	outbox.n = 0;
	while (at < n) {
		struct parcel *p = &outbox.parcels[at];
		int sent = sendmmsg(outbox.fd, post.messages, write_post(at, n), MSG_DONTWAIT | MSG_NOSIGNAL);

		if (sent > 0) {
			again = false;
			for (int i = 0; i < sent; i++)
				for (unsigned k = 0; k < post.carries[i]; k++)
					note_sent(&outbox.parcels[at++], now);
		} else if (!again && errno != EAGAIN) {
			/* An error of an earlier datagram is told here: this one has not been sent, and may be. */
			drain_errors(p->flow->association, outbox.fd);
			again = true;
		} else if (cannot_join(errno) && post.carries[0] > 1) { /* one by one, then */
			*unjoinable(p) = p->wire_len;
			again = false;
		} else {
			again = false;
			UDP_COUNT(p->flow->association, unsent, post.carries[0]);
			at += post.carries[0];
		}
	}
}

static struct parcel *add_parcel(struct udp_flow *f, bool back, int fd, const struct endpoint *to)
{
	struct parcel *p;

	if (outbox.n == PARCELS || (outbox.n > 0 && outbox.fd != fd))
		udp_flush();
	outbox.fd = fd;
	p = &outbox.parcels[outbox.n++];
	p->flow = f;
	p->back = back;
	p->to = *to;
	p->source = (struct addr){0};
	p->nparts = 0;
	p->wire_len = 0;
	return p;
}

static void add_part(struct parcel *p, const uint8_t *data, size_t len)
{
	p->parts[p->nparts++] = (struct iovec){.iov_base = (void *)(uintptr_t)data, .iov_len = len};
	p->wire_len += len;
}

static int out_socket(struct association *a, int which);

void udp_send(struct udp_flow *f, const uint8_t *data, size_t len)
{
	struct association *a = f->association;
	struct endpoint to = {.addr = f->remote, .port = f->request.port};
	int fd = out_socket(a, to.addr.family == ADDR_V6 ? OUT_V6 : OUT_V4);

	/* A source that cannot be honoured is not replaced by another. */
	if (fd < 0 || (f->source.family != ADDR_NONE && f->source.family != to.addr.family)) {
		UDP_COUNT(a, unsent, 1);
		return;
	}
	struct parcel *p = add_parcel(f, false, fd, &to);

	p->len = len;
	p->source = f->source;
	add_part(p, data, len);
}

/* RFC 1961 section 5: header and data are one message.  There is one buffer for it, so it leaves at once. */
static void send_back_sealed(struct udp_flow *f, const struct endpoint *from, const uint8_t *data, size_t len)
{
	static uint8_t plain[SOCKS5_UDP_HEADER_MAX + DATAGRAM_MAX];
	struct association *a = f->association;
	size_t header = socks5_write_datagram(plain, from), frame_len;
	const uint8_t *frame;
	struct err why;

	memcpy(plain + header, data, len);
	if (gss_seal_datagram(a->session, plain, header + len, &frame, &frame_len, &why) != 0) {
		UDP_COUNT(a, unsent, 1);
		return;
	}
	udp_flush();
	struct parcel *p = add_parcel(f, true, a->client_fd, &a->client);

	p->len = len;
	add_part(p, frame, frame_len);
	udp_flush();
}

void udp_send_back(struct udp_flow *f, const uint8_t *data, size_t len)
{
	struct association *a = f->association;
	struct endpoint from = {.addr = f->remote, .port = f->request.port};

	if (gss_protects(a->session)) {
		send_back_sealed(f, &from, data, len);
		return;
	}
	struct parcel *p = add_parcel(f, true, a->client_fd, &a->client);

	p->len = len;
	add_part(p, p->header, socks5_write_datagram(p->header, &from));
	add_part(p, data, len);
}

/* ---- to the destinations ------------------------------------------------------------------------------------------- */

static void take_datagram(struct association *a, const uint8_t *data, size_t len)
{
	struct request request;
	struct front_refusal why;
	size_t used;

	if (socks5_read_datagram(data, len, &used, &request, &why) != FRONT_DONE) {
		if (why.reason == REASON_FRAGMENT)
			UDP_COUNT(a, fragments, 1);
		else
			UDP_COUNT(a, malformed, 1);
		return;
	}
	struct udp_flow *f = flow_find(a, &request, false);

	if (f == NULL)
		UDP_COUNT(a, over_bounds, 1);
	else
		flow_take(f, data + used, len - used);
}

/* The client's address is that of the control connection, always; its port the one declared, or the first that speaks. */
static bool may_be_client(const struct association *a, const struct endpoint *from)
{
	return addr_equal(&a->client.addr, &from->addr) && (a->client.port == 0 || a->client.port == from->port);
}

/* Only what the client sends is activity, and tells its port: a stranger must not keep an association, nor take it; where there is
 * protection, also none who shares the client's address. */
static void take_client_datagram(struct association *a, const struct endpoint *from, uint8_t *data, size_t len, int64_t now)
{
	if (!may_be_client(a, from)) {
		UDP_COUNT(a, strangers, 1);
		return;
	}
	if (gss_protects(a->session) && gss_open_datagram(a->session, data, len, &data, &len) != 0) {
		UDP_COUNT(a, malformed, 1);
		return;
	}
	a->client.port = from->port;
	a->session->active_us = now;
	take_datagram(a, data, len);
}

static void on_client_readable(evutil_socket_t fd, short what, void *arg)
{
	struct association *a = arg;
	int n = receive_batch(fd), datagrams = 0;
	int64_t now = clock_mono_us();

	(void)what;
	for (int i = 0; i < n; i++) {
		struct endpoint from;
		size_t size;

		if (!look_at(i, &from, &size)) {
			UDP_COUNT(a, malformed, 1);
			continue;
		}
		uint8_t *at = batch->data[i], *end = at + batch->messages[i].msg_len;

		do {
			size = size_at(at, end, size);
			take_client_datagram(a, &from, at, size, now);
			at += size;
			datagrams++;
		} while (at < end);
	}
	share_turns(n, datagrams);
	udp_flush();
}

/* ---- back to the client ---------------------------------------------------------------------------------------------- */

static void pass_back(struct association *a, const struct endpoint *from, const uint8_t *payload, size_t len)
{
	struct udp_flow *f = flow_of_remote(a, from);

	if (f == NULL && a->session->listener->udp_replies_any && a->client.port != 0) {
		struct request request = {.command = POLICY_UDP, .address = from->addr, .port = from->port};

		f = flow_find(a, &request, true);
	}
	if (f == NULL || a->client.port == 0)
		UDP_COUNT(a, unsolicited, 1);
	else
		flow_take_back(f, payload, len);
}

static void on_out_readable(evutil_socket_t fd, short what, void *arg)
{
	struct association *a = arg;
	int n = receive_batch(fd), datagrams = 0;

	(void)what;
	/* Errors that wait wake the loop even when there is nothing to read. */
	if (n < 0)
		drain_errors(a, fd);
	for (int i = 0; i < n; i++) {
		struct endpoint from;
		size_t size;

		if (!look_at(i, &from, &size)) {
			UDP_COUNT(a, malformed, 1);
			continue;
		}
		const uint8_t *at = batch->data[i], *end = at + batch->messages[i].msg_len;

		do {
			size = size_at(at, end, size);
			pass_back(a, &from, at, size);
			at += size;
			datagrams++;
		} while (at < end);
	}
	share_turns(n, datagrams);
	udp_flush();
}

/* ---- sockets ----------------------------------------------------------------------------------------------------------- */

/* What the kernel offers is asked of the first socket; one of an older kernel goes without. */
static void prepare_joins(const struct worker *w, int fd)
{
	static bool asked;

	if (!w->config->udp_offload)
		return;
	join_receive(fd);
	if (!asked)
		joins = join_can_send(fd);
	asked = true;
}

static int out_socket(struct association *a, int which)
{
	bool v6 = which == OUT_V6;
	int one = 1, fd = a->out_fd[which];

	struct worker *w = a->session->worker;

	if (fd >= 0)
		return fd;
	if (w->extra_fds >= w->max_extra_fds)
		return -1;
	fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	if (v6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
	setsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_RECVERR : IP_RECVERR, &one, sizeof one);
	prepare_joins(w, fd);
	a->out_fd[which] = fd;
	w->extra_fds++;
	event_assign(&a->out_event[which], a->session->worker->base, fd, EV_READ | EV_PERSIST, on_out_readable, a);
	event_add(&a->out_event[which], NULL);
	return fd;
}

/* Where the control connection came in, so that nobody reaches the relay over another interface. */
static int client_socket(const struct session *s, struct endpoint *bound)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof sa;
	int fd;

	if (getsockname(s->client_fd, (struct sockaddr *)&sa, &len) != 0 ||
	    !endpoint_from_sockaddr((struct sockaddr *)&sa, len, bound))
		return -1;
	bound->port = 0;
	len = endpoint_to_sockaddr(bound, &sa);
	fd = socket(sa.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd >= 0)
		prepare_joins(s->worker, fd);
	if (fd >= 0 && bind(fd, (struct sockaddr *)&sa, len) == 0) {
		len = sizeof sa;
		if (getsockname(fd, (struct sockaddr *)&sa, &len) == 0 && endpoint_from_sockaddr((struct sockaddr *)&sa, len, bound))
			return fd;
	}
	if (fd >= 0)
		close(fd);
	return -1;
}

/* The control connection carries nothing more; its end is the association's. */
static void on_control(void *arg)
{
	struct session *s = arg;
	uint8_t unused[512];
	ssize_t n = sock_recv(&s->client_sock, unused, sizeof unused);

	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		session_end(s, "done", false);
}

static struct association *new_association(struct session *s)
{
	struct association *a = calloc(1, sizeof *a);

	if (batch == NULL)
		batch = malloc(sizeof *batch);
	if (a == NULL || batch == NULL) {
		free(a);
		return NULL;
	}
	a->session = s;
	a->client_fd = a->out_fd[OUT_V4] = a->out_fd[OUT_V6] = -1;
	a->client = (struct endpoint){.addr = s->client.addr, .port = s->setup->request.port};
	a->denials_us = clock_mono_us();
	TAILQ_INIT(&a->by_age);
	return a;
}

/* The next look at idle flows, idleness and age, whichever comes first. */
static void arm(struct session *s)
{
	const struct config *config = s->worker->config;
	int64_t now = clock_mono_us(), wait = (int64_t)config->udp_idle_timeout_ms * 500;
	int64_t idle_left = s->active_us + (int64_t)s->listener->idle_timeout_ms * 1000 - now + 1000;
	int64_t age_left = session_age_left_us(s, now), checkpoint_left = session_checkpoint_left_us(s, now);

	if (idle_left < wait)
		wait = idle_left;
	if (checkpoint_left < wait)
		wait = checkpoint_left;
	session_arm(s, age_left < wait ? age_left : wait);
}

void udp_start(struct session *s)
{
	struct association *a = new_association(s);
	struct endpoint bound;

	s->association = a;
	if (a == NULL || (a->client_fd = client_socket(s, &bound)) < 0) {
		session_refuse(s, REASON_FAULT, a == NULL ? "out of memory" : "no socket for the relay");
		return;
	}
	session_set_state(s, SESSION_ASSOCIATED);
	session_free_setup(s);
	if (!handshake_reply(s, REASON_NONE, &bound)) {
		session_end(s, "client left before its reply", true);
		return;
	}
	event_assign(&a->client_event, s->worker->base, a->client_fd, EV_READ | EV_PERSIST, on_client_readable, a);
	event_add(&a->client_event, NULL);
	sock_on_read(&s->client_sock, on_control);
	arm(s);
}

void udp_idle_check(struct session *s)
{
	struct association *a = s->association;
	const struct config *config = s->worker->config;
	int64_t now = clock_mono_us(), flow_limit = (int64_t)config->udp_idle_timeout_ms * 1000;
	struct udp_flow *f;

	if (session_age_left_us(s, now) <= 0) {
		session_end(s, session_age_reason(s, now), false);
		return;
	}
	if (now - s->active_us > (int64_t)s->listener->idle_timeout_ms * 1000) {
		session_end(s, "idle timeout", false);
		return;
	}
	while ((f = TAILQ_FIRST(&a->by_age)) != NULL && now - f->active_us > flow_limit)
		flow_end(f, "idle timeout");
	if (session_checkpoint_left_us(s, now) <= 0) {
		session_checkpoint(s, now);
		TAILQ_FOREACH (f, &a->by_age, by_age)
			flow_checkpoint(f, now);
	}
	arm(s);
}

static void close_socket(int fd, struct event *event)
{
	if (event_initialized(event))
		event_del(event);
	if (fd >= 0)
		close(fd);
}

void udp_end_flows(struct session *s)
{
	struct udp_flow *f;

	while (s->association != NULL && (f = TAILQ_FIRST(&s->association->by_age)) != NULL)
		flow_end(f, "association ended");
}

void udp_decide_again(struct session *s)
{
	struct udp_flow *f, *following;

	for (f = TAILQ_FIRST(&s->association->by_age); f != NULL; f = following) {
		following = TAILQ_NEXT(f, by_age);
		if (f->state == FLOW_OPEN || f->state == FLOW_RECORDING)
			flow_still_allowed(f);
	}
}

void udp_free(struct session *s)
{
	struct association *a = s->association;

	if (a == NULL)
		return;
	udp_end_flows(s);
	close_socket(a->client_fd, &a->client_event);
	a->session->worker->extra_fds -= (unsigned)((a->out_fd[OUT_V4] >= 0) + (a->out_fd[OUT_V6] >= 0));
	close_socket(a->out_fd[OUT_V4], &a->out_event[OUT_V4]);
	close_socket(a->out_fd[OUT_V6], &a->out_event[OUT_V6]);
	free(a);
	s->association = NULL;
}
