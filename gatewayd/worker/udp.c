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
#include "gatewayd/worker/socks5.h"
#include "gatewayd/worker/worker.h"

#define BATCH 32
/* The longest UDP payload over IPv4, and what surrounds it here. */
#define DATAGRAM_MAX 65535
#define HEADROOM SOCKS5_UDP_HEADER_MAX

enum { OUT_V4, OUT_V6 };

/* One worker, one thread: all associations receive into the same places. */
static struct batch {
	struct mmsghdr messages[BATCH];
	struct iovec iov[BATCH];
	struct sockaddr_storage from[BATCH];
	uint8_t data[BATCH][HEADROOM + DATAGRAM_MAX];
} *batch;

/* Receives up to a batch; each payload leaves room for a header before it.  The number, or -1. */
static int receive_batch(int fd)
{
	for (int i = 0; i < BATCH; i++) {
		batch->iov[i] = (struct iovec){.iov_base = batch->data[i] + HEADROOM, .iov_len = DATAGRAM_MAX};
		batch->messages[i].msg_hdr = (struct msghdr){.msg_iov = &batch->iov[i],
							     .msg_iovlen = 1,
							     .msg_name = &batch->from[i],
							     .msg_namelen = sizeof batch->from[i]};
	}
	return recvmmsg(fd, batch->messages, BATCH, MSG_DONTWAIT, NULL);
}

static bool sender_of(int i, struct endpoint *from)
{
	return !(batch->messages[i].msg_hdr.msg_flags & MSG_TRUNC) &&
	       endpoint_from_sockaddr((struct sockaddr *)&batch->from[i], batch->messages[i].msg_hdr.msg_namelen, from);
}

/* ---- to the destinations ------------------------------------------------------------------------------------------- */

static void take_datagram(struct association *a, const uint8_t *data, size_t len)
{
	struct request request;
	struct front_refusal why;
	size_t used;

	if (socks5_read_datagram(data, len, &used, &request, &why) != FRONT_DONE) {
		*(why.reason == REASON_FRAGMENT ? &a->fragments : &a->malformed) += 1;
		return;
	}
	struct udp_flow *f = flow_find(a, &request);

	if (f == NULL)
		a->dropped++;
	else
		flow_take(f, data + used, len - used);
}

/* The client's address is that of the control connection, always; its port the one declared, or the first that speaks. */
static bool is_client(struct association *a, const struct endpoint *from)
{
	if (!addr_equal(&a->client.addr, &from->addr) || (a->client.port != 0 && a->client.port != from->port))
		return false;
	a->client.port = from->port;
	return true;
}

static void on_client_readable(evutil_socket_t fd, short what, void *arg)
{
	struct association *a = arg;
	int n = receive_batch(fd);
	int64_t now = clock_mono_us();

	(void)what;
	for (int i = 0; i < n; i++) {
		struct endpoint from;

		/* Only what the client sends is activity: a stranger must not keep an association. */
		if (sender_of(i, &from) && is_client(a, &from)) {
			a->session->active_us = now;
			take_datagram(a, batch->data[i] + HEADROOM, batch->messages[i].msg_len);
		} else {
			a->strangers++;
		}
	}
}

/* ICMP errors wait in the socket's error queue: counted, and thrown away. */
static void drain_errors(struct association *a, int fd)
{
	uint8_t unused[64];
	struct iovec iov = {.iov_base = unused, .iov_len = sizeof unused};

	for (int i = 0; i < BATCH; i++) {
		struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

		if (recvmsg(fd, &msg, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
			return;
		a->icmp_errors++;
	}
}

static void send_from(int fd, const struct msghdr *msg, struct association *a, struct udp_flow *f, size_t len)
{
	ssize_t n = sendmsg(fd, msg, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0) {
		/* An error of an earlier datagram is told here: this one has not been sent, and may be. */
		if (errno != EAGAIN)
			drain_errors(a, fd);
		n = sendmsg(fd, msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	}
	if (n < 0) {
		a->dropped++;
		return;
	}
	f->bytes_up += len;
	f->datagrams_up++;
	a->session->up.bytes += len;
	session_carried(a->session, f->active_us);
}

/* The rule's source address goes with each datagram: flows of several rules share a socket. */
static void add_source(struct msghdr *msg, char *control, size_t size, const struct addr *source)
{
	bool v6 = source->family == ADDR_V6;
	struct in_pktinfo info4 = {0};
	struct in6_pktinfo info6 = {0};
	size_t len = v6 ? sizeof info6 : sizeof info4;

	memset(control, 0, size);
	msg->msg_control = control;
	msg->msg_controllen = CMSG_SPACE(len);
	struct cmsghdr *c = CMSG_FIRSTHDR(msg);

	c->cmsg_level = v6 ? IPPROTO_IPV6 : IPPROTO_IP;
	c->cmsg_type = v6 ? IPV6_PKTINFO : IP_PKTINFO;
	c->cmsg_len = CMSG_LEN(len);
	memcpy(v6 ? (void *)&info6.ipi6_addr : (void *)&info4.ipi_spec_dst, source->bytes, addr_len(source));
	memcpy(CMSG_DATA(c), v6 ? (void *)&info6 : (void *)&info4, len);
}

static int out_socket(struct association *a, int which);

void udp_send(struct udp_flow *f, const uint8_t *data, size_t len)
{
	struct association *a = f->association;
	struct endpoint to = {.addr = f->remote, .port = f->request.port};
	int fd = out_socket(a, to.addr.family == ADDR_V6 ? OUT_V6 : OUT_V4);
	struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
	struct sockaddr_storage sa;
	char control[CMSG_SPACE(sizeof(struct in6_pktinfo))] __attribute__((aligned(8)));
	struct msghdr msg = {.msg_name = &sa, .msg_iov = &iov, .msg_iovlen = 1};

	msg.msg_namelen = endpoint_to_sockaddr(&to, &sa);
	if (f->source.family != ADDR_NONE && f->source.family != to.addr.family)
		fd = -1; /* a source that cannot be honoured is not replaced by another */
	else if (f->source.family != ADDR_NONE)
		add_source(&msg, control, sizeof control, &f->source);
	if (fd < 0)
		a->dropped++;
	else
		send_from(fd, &msg, a, f, len);
}

/* ---- back to the client ---------------------------------------------------------------------------------------------- */

static void pass_back(struct association *a, const struct endpoint *from, uint8_t *payload, size_t len)
{
	struct udp_flow *f = flow_of_remote(a, from);
	uint8_t header[SOCKS5_UDP_HEADER_MAX];
	struct sockaddr_storage sa;
	socklen_t sa_len = endpoint_to_sockaddr(&a->client, &sa);
	size_t header_len;

	if (f == NULL || a->client.port == 0) {
		a->unsolicited++;
		return;
	}
	/* A destination that keeps sending must not outlive its permission. */
	if (!flow_still_allowed(f)) {
		a->dropped++;
		flow_end(f, "denied by policy now");
		return;
	}
	header_len = socks5_write_datagram(header, from);
	memcpy(payload - header_len, header, header_len);
	if (sendto(a->client_fd, payload - header_len, header_len + len, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&sa,
		   sa_len) < 0) {
		a->dropped++;
		return;
	}
	f->bytes_down += len;
	f->datagrams_down++;
	a->session->active_us = clock_mono_us();
	flow_touch(f);
	a->session->down.bytes += len;
	session_carried(a->session, f->active_us);
}

static void on_out_readable(evutil_socket_t fd, short what, void *arg)
{
	struct association *a = arg;
	int n = receive_batch(fd);

	(void)what;
	/* Errors that wait wake the loop even when there is nothing to read. */
	if (n < 0)
		drain_errors(a, fd);
	for (int i = 0; i < n; i++) {
		struct endpoint from;

		if (sender_of(i, &from))
			pass_back(a, &from, batch->data[i] + HEADROOM, batch->messages[i].msg_len);
		else
			a->unsolicited++;
	}
}

/* ---- sockets ----------------------------------------------------------------------------------------------------------- */

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
static void on_control(evutil_socket_t fd, short what, void *arg)
{
	struct session *s = arg;
	uint8_t unused[512];
	ssize_t n = recv(fd, unused, sizeof unused, 0);

	(void)what;
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
	TAILQ_INIT(&a->by_age);
	a->groups = s->setup->groups;
	a->ngroups = s->setup->ngroups;
	s->setup->groups = NULL;
	s->setup->ngroups = 0;
	return a;
}

/* The next look at idle flows, idleness and age, whichever comes first. */
static void arm(struct session *s)
{
	const struct config *config = s->worker->config;
	int64_t now = clock_mono_us(), wait = (int64_t)config->udp_idle_timeout_ms * 500;
	int64_t idle_left = s->active_us + (int64_t)config->idle_timeout_ms * 1000 - now + 1000;
	int64_t age_left = session_age_left_us(s, now), checkpoint_left = session_checkpoint_left_us(s, now);

	if (idle_left < wait)
		wait = idle_left;
	if (checkpoint_left < wait)
		wait = checkpoint_left;
	session_arm(s, age_left < wait ? age_left : wait);
}

void udp_start(struct session *s)
{
	struct event_base *base = s->worker->base;
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
	event_assign(&a->client_event, base, a->client_fd, EV_READ | EV_PERSIST, on_client_readable, a);
	event_add(&a->client_event, NULL);
	event_del(&s->client_read);
	event_assign(&s->client_read, base, s->client_fd, EV_READ | EV_PERSIST, on_control, s);
	event_add(&s->client_read, NULL);
	arm(s);
}

void udp_idle_check(struct session *s)
{
	struct association *a = s->association;
	const struct config *config = s->worker->config;
	int64_t now = clock_mono_us(), flow_limit = (int64_t)config->udp_idle_timeout_ms * 1000;
	struct udp_flow *f;

	if (session_age_left_us(s, now) <= 0) {
		session_end(s, "maximum session age", false);
		return;
	}
	if (now - s->active_us > (int64_t)config->idle_timeout_ms * 1000) {
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

void udp_free(struct session *s)
{
	struct association *a = s->association;
	struct udp_flow *f;

	if (a == NULL)
		return;
	while ((f = TAILQ_FIRST(&a->by_age)) != NULL)
		flow_end(f, "association ended");
	close_socket(a->client_fd, &a->client_event);
	a->session->worker->extra_fds -= (unsigned)((a->out_fd[OUT_V4] >= 0) + (a->out_fd[OUT_V6] >= 0));
	close_socket(a->out_fd[OUT_V4], &a->out_event[OUT_V4]);
	close_socket(a->out_fd[OUT_V6], &a->out_event[OUT_V6]);
	if (a->fragments + a->malformed + a->strangers + a->unsolicited + a->dropped + a->icmp_errors > 0)
		log_debug("association of %016llx: dropped %llu fragments, %llu malformed, %llu of strangers, %llu unsolicited, "
			  "%llu others; %llu ICMP errors",
			  (unsigned long long)s->id, (unsigned long long)a->fragments, (unsigned long long)a->malformed,
			  (unsigned long long)a->strangers, (unsigned long long)a->unsolicited, (unsigned long long)a->dropped,
			  (unsigned long long)a->icmp_errors);
	free(a->groups);
	free(a);
	s->association = NULL;
}
