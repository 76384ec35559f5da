/* Connects to the allowed addresses, one after the other, and to exactly those: there is no second lookup. */
#include "config.h"

#include <errno.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "gatewayd/worker/session.h"
#include "gatewayd/worker/worker.h"

static void try_next(struct session *s);

static void close_attempt(struct session *s)
{
	if (event_initialized(&s->server_write))
		event_del(&s->server_write);
	if (s->server_fd >= 0)
		close(s->server_fd);
	s->server_fd = -1;
}

static void attempt_failed(struct session *s, enum reason reason)
{
	s->setup->connect_failure = reason_worse(s->setup->connect_failure, reason);
	close_attempt(s);
	try_next(s);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct session *s = arg;
	int error = 0;
	socklen_t len = sizeof error;

	(void)what;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
		error = errno;
	if (error != 0) {
		attempt_failed(s, reason_of_errno(error));
		return;
	}
	evtimer_del(&s->setup->connect_timer);
	grant_connected(s);
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	attempt_failed(arg, REASON_CONNECT_TIMEOUT);
}

/* The rule's `source`, if it names one.  A connection that cannot be made from there is not made from elsewhere. */
static int bind_source(const struct session *s, const struct candidate *c)
{
	struct endpoint from = {.addr = policy_rule_source(s->setup->rules->image, c->rule)};
	struct sockaddr_storage sa;
	int one = 1;

	if (from.addr.family == ADDR_NONE)
		return 0;
	if (from.addr.family != c->address.family) {
		errno = EADDRNOTAVAIL;
		return -1;
	}
	socklen_t len = endpoint_to_sockaddr(&from, &sa);

	/* The port is chosen at connect, where the whole four-tuple counts. */
	setsockopt(s->server_fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
	return bind(s->server_fd, (struct sockaddr *)&sa, len);
}

/* A socket on its way to the candidate, or the reason why not. */
static enum reason begin(struct session *s, const struct candidate *c)
{
	struct endpoint to = {.addr = c->address, .port = s->port};
	struct sockaddr_storage sa;
	socklen_t len = endpoint_to_sockaddr(&to, &sa);
	int one = 1;

	s->server_fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (s->server_fd < 0)
		return errno == EAFNOSUPPORT ? REASON_NET_UNREACHABLE : REASON_CONNECT_FAILED;
	setsockopt(s->server_fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	setsockopt(s->server_fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
	if (bind_source(s, c) != 0)
		return REASON_SOURCE;
	if (connect(s->server_fd, (struct sockaddr *)&sa, len) != 0 && errno != EINPROGRESS)
		return reason_of_errno(errno);
	event_assign(&s->server_write, s->worker->base, s->server_fd, EV_WRITE, on_writable, s);
	event_add(&s->server_write, NULL);
	return REASON_NONE;
}

/* Each attempt gets its share of what is left of the whole, so that one black hole does not use it up. */
static void arm(struct session *s)
{
	struct setup *setup = s->setup;
	int64_t left = setup->connect_deadline_us - clock_mono_us();
	int64_t share = left / (int64_t)(setup->ncandidates - setup->next_candidate + 1);
	struct timeval tv;

	if (share < 0)
		share = 0;
	tv = (struct timeval){.tv_sec = share / 1000000, .tv_usec = share % 1000000};
	evtimer_add(&setup->connect_timer, &tv);
}

static void try_next(struct session *s)
{
	struct setup *setup = s->setup;

	/* The first is always tried, also when the machine slept in between. */
	while (setup->next_candidate < setup->ncandidates &&
	       (setup->next_candidate == 0 || clock_mono_us() < setup->connect_deadline_us)) {
		enum reason failure = begin(s, &setup->candidates[setup->next_candidate++]);

		if (failure == REASON_NONE) {
			arm(s);
			return;
		}
		setup->connect_failure = reason_worse(setup->connect_failure, failure);
		close_attempt(s);
	}
	evtimer_del(&setup->connect_timer);
	s->address = setup->candidates[setup->next_candidate - 1].address;
	grant_failed(s, setup->connect_failure);
}

void connect_start(struct session *s)
{
	struct setup *setup = s->setup;

	evtimer_assign(&setup->connect_timer, s->worker->base, on_timeout, s);
	setup->connect_deadline_us = clock_mono_us() + (int64_t)s->worker->config->connect_timeout_ms * 1000;
	setup->connect_failure = REASON_NONE;
	try_next(s);
}

void connect_stop(struct session *s)
{
	if (event_initialized(&s->setup->connect_timer))
		evtimer_del(&s->setup->connect_timer);
	if (event_initialized(&s->server_write) && s->state != SESSION_RELAYING)
		event_del(&s->server_write);
}
