/* Connects to the allowed addresses, and to exactly those: there is no second lookup.  Attempts are staggered as RFC 8305
 * ("happy eyeballs") has it: families take turns, IPv6 first, and each later address starts when an earlier one failed or has
 * been silent for a moment; the first that answers wins.  Where no descriptor is left for two at a time, each has its share of
 * the time that is left. */
#include "config.h"

#include <errno.h>
#include <event2/event.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <netinet/icmp6.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "gatewayd/worker/session.h"
#include "gatewayd/worker/worker.h"

/* RFC 8305 section 5, Connection Attempt Delay. */
#define STAGGER_US 250000

static void go_on(struct session *s);

/* ---- order ------------------------------------------------------------------------------------------------------- */

/* RFC 8305 section 4: interleave the families; within one, the resolver's order stays. */
void connect_order(struct setup *setup)
{
	struct candidate sorted[CANDIDATES_MAX];
	size_t at[2] = {0, 0}, n = 0;
	const uint8_t families[2] = {ADDR_V6, ADDR_V4};

	while (n < setup->ncandidates)
		for (int f = 0; f < 2; f++) {
			while (at[f] < setup->ncandidates && setup->candidates[at[f]].address.family != families[f])
				at[f]++;
			if (at[f] < setup->ncandidates)
				sorted[n++] = setup->candidates[at[f]++];
		}
	memcpy(setup->candidates, sorted, n * sizeof *sorted);
}

/* ---- one attempt -------------------------------------------------------------------------------------------------- */

static void close_attempt(struct attempt *a)
{
	struct session *s = a->session;

	if (a->fd < 0)
		return;
	sock_forget(&a->sock);
	close(a->fd);
	a->fd = -1;
	if (s->setup->nattempts-- > 1)
		s->worker->extra_fds--;
}

/* The rule's `source`, if it names one.  A connection that cannot be made from there is not made from elsewhere. */
static int bind_source(const struct session *s, const struct candidate *c, int fd)
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
	setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
	return bind(fd, (struct sockaddr *)&sa, len);
}

/* "Host unreachable" may be a router's word for a packet that ran out of hops: RFC 1928 has a reply of its own for that. */
static enum reason reason_of_failure(int fd, int error)
{
	union {
		char bytes[512];
		struct cmsghdr align;
	} control;
	struct msghdr msg = {.msg_control = control.bytes, .msg_controllen = sizeof control.bytes};

	if (error != EHOSTUNREACH || recvmsg(fd, &msg, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
		return reason_of_errno(error);
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c != NULL; c = CMSG_NXTHDR(&msg, c)) {
		struct sock_extended_err e;

		if (c->cmsg_len < CMSG_LEN(sizeof e))
			continue;
		memcpy(&e, CMSG_DATA(c), sizeof e);
		if ((e.ee_origin == SO_EE_ORIGIN_ICMP && e.ee_type == ICMP_TIME_EXCEEDED) ||
		    (e.ee_origin == SO_EE_ORIGIN_ICMP6 && e.ee_type == ICMP6_TIME_EXCEEDED))
			return REASON_TTL_EXPIRED;
	}
	return reason_of_errno(error);
}

static void win(struct attempt *a)
{
	struct session *s = a->session;
	struct setup *setup = s->setup;
	bool v6 = setup->candidates[a->candidate].address.family == ADDR_V6;
	int off = 0;

	/* From here on an ICMP error is advice, as for any connection, not its end. */
	setsockopt(a->fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_RECVERR : IP_RECVERR, &off, sizeof off);
	sock_move(&s->server_sock, &a->sock, s);
	s->server_fd = a->fd;
	a->fd = -1;
	if (setup->nattempts-- > 1)
		s->worker->extra_fds--;
	connect_stop(s);
	grant_connected(s, &setup->candidates[a->candidate]);
}

/* What has become of it: 0, connected; EALREADY, nothing yet; or why it failed.  Where there is a router's word, too, no event and no
 * lack of an error says "connected"; asked again, connect(2) does. */
static int outcome(const struct attempt *a)
{
	if (sock_is_sound(&a->sock))
		return 0;

	struct endpoint to = {.addr = a->session->setup->candidates[a->candidate].address, .port = a->session->port};
	struct sockaddr_storage sa;
	socklen_t len = endpoint_to_sockaddr(&to, &sa);

	return connect(a->fd, (struct sockaddr *)&sa, len) == 0 || errno == EISCONN ? 0 : errno;
}

/* A router's word that ends nothing: left there, it would be told again and again. */
static void drop_advice(int fd)
{
	while (recv(fd, NULL, 0, MSG_ERRQUEUE | MSG_DONTWAIT) >= 0)
		;
}

static void on_settled(void *arg)
{
	struct attempt *a = arg;
	struct session *s = a->session;
	int error = outcome(a);

	if (error == EALREADY) {
		drop_advice(a->fd);
		sock_on_room(&a->sock, on_settled);
		return;
	}
	if (error == 0) {
		win(a);
		return;
	}
	s->setup->connect_failure = reason_worse(s->setup->connect_failure, reason_of_failure(a->fd, error));
	s->address = s->setup->candidates[a->candidate].address;
	close_attempt(a);
	go_on(s);
}

/* A socket on its way to the candidate, or the reason why not. */
static enum reason begin(struct session *s, struct attempt *a, size_t candidate)
{
	const struct candidate *c = &s->setup->candidates[candidate];
	struct endpoint to = {.addr = c->address, .port = s->port};
	struct sockaddr_storage sa;
	socklen_t len = endpoint_to_sockaddr(&to, &sa);
	bool v6 = sa.ss_family == AF_INET6;
	int one = 1, fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	s->address = c->address;
	if (fd < 0)
		return errno == EAFNOSUPPORT ? REASON_NET_UNREACHABLE : REASON_CONNECT_FAILED;
	relay_prepare(fd);
	setsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_RECVERR : IP_RECVERR, &one, sizeof one);
	if (bind_source(s, c, fd) != 0) {
		close(fd);
		return REASON_SOURCE;
	}
	if (connect(fd, (struct sockaddr *)&sa, len) != 0 && errno != EINPROGRESS) {
		enum reason reason = reason_of_errno(errno);

		close(fd);
		return reason;
	}
	if (sock_add(&s->worker->sockets, &a->sock, fd, true, a) != 0) {
		close(fd);
		return REASON_FAULT;
	}
	sock_on_room(&a->sock, on_settled);
	s->setup->begun_us = clock_mono_us();
	a->session = s;
	a->fd = fd;
	a->candidate = candidate;
	if (s->setup->nattempts++ > 0)
		s->worker->extra_fds++;
	return REASON_NONE;
}

/* ---- all of them ---------------------------------------------------------------------------------------------------- */

static struct attempt *free_attempt(struct setup *setup)
{
	for (size_t i = 0; i < ATTEMPTS_MAX; i++)
		if (setup->attempts[i].fd < 0)
			return &setup->attempts[i];
	return NULL;
}

/* A session's budget is two descriptors; a second attempt draws on what all sessions share. */
static bool may_add_attempt(const struct setup *setup, const struct worker *w)
{
	return setup->nattempts == 0 || w->extra_fds < w->max_extra_fds;
}

/* So that a row of black holes does not keep the rest from being tried. */
static struct attempt *give_up_oldest(struct setup *setup)
{
	struct attempt *oldest = NULL;

	for (size_t i = 0; i < ATTEMPTS_MAX; i++)
		if (setup->attempts[i].fd >= 0 && (oldest == NULL || setup->attempts[i].candidate < oldest->candidate))
			oldest = &setup->attempts[i];
	close_attempt(oldest);
	return oldest;
}

/* When the next attempt begins, if the latest has been silent until then. */
static int64_t next_attempt_us(const struct session *s)
{
	const struct setup *setup = s->setup;
	int64_t left = setup->connect_deadline_us - setup->begun_us, rest = (int64_t)(setup->ncandidates - setup->next_candidate);

	if (rest == 0)
		return setup->connect_deadline_us;
	/* One that may yet succeed is not given up for the next as long as there is time for both. */
	if (!may_add_attempt(setup, s->worker) && left / (rest + 1) > STAGGER_US)
		return setup->begun_us + left / (rest + 1);
	return setup->begun_us + STAGGER_US;
}

static void arm(struct session *s, int64_t now)
{
	struct setup *setup = s->setup;
	int64_t next = next_attempt_us(s), wait;
	struct timeval tv;

	wait = (next < setup->connect_deadline_us ? next : setup->connect_deadline_us) - now;
	if (wait < 0)
		wait = 0;
	tv = (struct timeval){.tv_sec = wait / 1000000, .tv_usec = wait % 1000000};
	evtimer_add(&setup->connect_timer, &tv);
}

/* Starts the next attempt, if there is one; ends when none is left. */
static void go_on(struct session *s)
{
	struct setup *setup = s->setup;
	int64_t now = clock_mono_us();
	size_t next = setup->next_candidate;
	bool started = false;

	/* Decided again by another revision, it may have gone on already: the one after that has to wait for its turn. */
	if (!live_still_allowed(s) || setup->next_candidate != next)
		return;
	if (now >= setup->connect_deadline_us) {
		grant_failed(s, reason_worse(setup->connect_failure, REASON_CONNECT_TIMEOUT));
		return;
	}
	while (!started && setup->next_candidate < setup->ncandidates) {
		struct attempt *a;

		if (setup->candidates[setup->next_candidate].refused) {
			setup->next_candidate++;
			continue;
		}
		a = may_add_attempt(setup, s->worker) ? free_attempt(setup) : NULL;
		enum reason failure = begin(s, a != NULL ? a : give_up_oldest(setup), setup->next_candidate++);

		started = failure == REASON_NONE;
		setup->connect_failure = reason_worse(setup->connect_failure, failure);
	}
	if (setup->nattempts > 0)
		arm(s, now);
	else
		grant_failed(s, setup->connect_failure);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct session *s = arg;
	int64_t now = clock_mono_us();

	(void)fd, (void)what;
	/* The descriptor for a second one may have gone elsewhere meanwhile. */
	if (now < s->setup->connect_deadline_us && now < next_attempt_us(s))
		arm(s, now);
	else
		go_on(s);
}

void connect_start(struct session *s)
{
	struct setup *setup = s->setup;

	evtimer_assign(&setup->connect_timer, s->worker->base, on_timer, s);
	setup->connect_deadline_us = clock_mono_us() + (int64_t)s->worker->config->connect_timeout_ms * 1000;
	setup->connect_failure = REASON_NONE;
	for (size_t i = 0; i < ATTEMPTS_MAX; i++)
		setup->attempts[i] = (struct attempt){.session = s, .fd = -1};
	go_on(s);
}

bool connect_again(struct session *s)
{
	struct setup *setup = s->setup;

	if (!event_initialized(&setup->connect_timer))
		return true; /* it has not begun */
	for (size_t i = 0; i < ATTEMPTS_MAX; i++)
		if (setup->attempts[i].fd >= 0 && setup->candidates[setup->attempts[i].candidate].refused)
			close_attempt(&setup->attempts[i]);
	if (setup->nattempts > 0)
		return true;
	go_on(s);
	return s->state != SESSION_CLOSING;
}

bool connect_may_use(const struct session *s, size_t candidate)
{
	const struct setup *setup = s->setup;

	if (setup->connected)
		return false; /* it has its destination */
	if (!event_initialized(&setup->connect_timer) || candidate >= setup->next_candidate)
		return true;
	for (size_t i = 0; i < ATTEMPTS_MAX; i++)
		if (setup->attempts[i].fd >= 0 && setup->attempts[i].candidate == candidate)
			return true;
	return false;
}

void connect_stop(struct session *s)
{
	struct setup *setup = s->setup;

	if (!event_initialized(&setup->connect_timer))
		return; /* never started */
	evtimer_del(&setup->connect_timer);
	for (size_t i = 0; i < ATTEMPTS_MAX; i++)
		close_attempt(&setup->attempts[i]);
}
