/* New clients: taken in batches, within the limits, and only while they could be served. */
#include "config.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "gatewayd/recording.h"
#include "gatewayd/worker/session.h"
#include "gatewayd/worker/worker.h"

#define BATCH 64
/* Descriptors that are not for sessions: links, resolver, logs. */
#define DESCRIPTOR_RESERVE 64
#define PAUSE_US 100000
/* Unfinished handshakes, the oldest first, of which one gives way: of the listener, and looked through in all. */
#define PRESS_FOUND 256
#define PRESS_LOOKED 4096
/* What may wait for the authenticator: it must always be told of an end. */
#define AUTH_QUEUE_MAX (1024 * 1024)
/* A limit of a thousand million is no invitation to use them. */
#define DESCRIPTORS_MAX 8000000

/* FNV-1a. */
static uint32_t hash_client(const struct addr *client, size_t len)
{
	uint32_t h = 2166136261u;

	for (size_t i = 0; i < len; i++)
		h = (h ^ client->bytes[i]) * 16777619u;
	return h ^ h >> 16;
}

static bool client_allowed(const struct config_listener *l, const struct addr *client)
{
	if (l->nclients == 0)
		return true;
	for (size_t i = 0; i < l->nclients; i++)
		if (prefix_contains(&l->clients[i], client))
			return true;
	return false;
}

/* Is there any point in listening to it?  Asked of policy once for each client and revision. */
static bool may_be_admitted(struct worker *w, const struct config_listener *l, const struct addr *client)
{
	struct admit *a = &w->admits[hash_client(client, sizeof client->bytes) % ADMITS];

	if (a->revision != w->rules->revision || a->listener != l || !addr_equal(&a->client, client))
		*a = (struct admit){.client = *client,
				    .listener = l,
				    .revision = w->rules->revision,
				    .may = policy_may_admit(w->rules->image, client, l->name)};
	return a->may;
}

/* A full worker lets go of whom it has refused, first of those who have been told, and then of whoever has been in the handshake for
 * longest: those who mean it are through in a moment, so that a flood of clients that say nothing presses on itself.  Nobody who
 * guesses is served sooner for it: how often that is judged the authenticator says, however long the answer takes. */
static bool make_room(struct worker *w)
{
	struct session *refused = TAILQ_FIRST(&w->lingering);
	struct setup *delayed = TAILQ_FIRST(&w->delaying), *oldest = TAILQ_FIRST(&w->shaking);

	if (refused != NULL) {
		session_drop(refused);
		return true;
	}
	if (delayed != NULL) {
		session_cut_delay(delayed->session);
		return true;
	}
	if (oldest == NULL)
		return false;
	session_turn_away(oldest->session, REASON_LIMIT, "the worker is full, and this client was silent for longest");
	return true;
}

unsigned *accept_shakers(struct worker *w, const struct addr *client)
{
	/* A client over IPv6 is its /64, as for limits. */
	return &w->shakers[hash_client(client, client->family == ADDR_V6 ? 8 : addr_len(client)) % SHAKERS];
}

static bool cut_delay_of(struct worker *w, const struct config_listener *l)
{
	struct setup *setup;
	unsigned looked = 0;

	TAILQ_FOREACH (setup, &w->delaying, delaying) {
		if (looked++ == PRESS_LOOKED)
			break;
		if (setup->session->listener == l) {
			session_cut_delay(setup->session);
			return true;
		}
	}
	return false;
}

bool accept_press(const struct session *s)
{
	struct worker *w = s->worker;
	struct setup *setup, *victim = NULL;
	unsigned most = *accept_shakers(w, &s->client.addr), looked = 0, found = 0;

	if (cut_delay_of(w, s->listener))
		return true;
	TAILQ_FOREACH (setup, &w->shaking, shaking) {
		struct session *other = setup->session;

		if (looked++ == PRESS_LOOKED || found == PRESS_FOUND)
			break;
		if (other->listener != s->listener || other->state == SESSION_COUNTING)
			continue;
		found++;
		unsigned has = *accept_shakers(w, &other->client.addr);

		if (victim == NULL ? has >= most : has > most) {
			victim = setup;
			most = has;
		}
	}
	if (victim == NULL)
		return false;
	session_turn_away(victim->session, REASON_LIMIT, "the listener is full, and this client was silent for long");
	return true;
}

static void take(struct acceptor *a, int fd, const struct sockaddr *sa, socklen_t len)
{
	struct worker *w = a->worker;
	struct endpoint client;
	struct session *s;

	w->counters.accepted++;
	/* Whom nothing is served takes nobody's room. */
	if (!endpoint_from_sockaddr(sa, len, &client) || !client_allowed(a->listener, &client.addr)) {
		w->counters.turned_away++;
		close(fd);
		return;
	}
	bool may = may_be_admitted(w, a->listener, &client.addr);

	/* At the limit a client is turned away at once: in the queue it would only wait for somebody else to leave. */
	if (may && w->nsessions >= w->max_sessions && !make_room(w)) {
		w->counters.turned_away++;
		log_warning("%u sessions are open: more are turned away", w->nsessions);
		close(fd);
		return;
	}
	s = session_new(w, a->listener, fd, &client);
	if (s == NULL)
		return;
	if (!may) {
		s->revision = w->rules->revision;
		session_turn_away(s, REASON_POLICY, "no rule can admit this client");
	} else if (!limits_ask_connection(s)) {
		handshake_start(s);
	}
}

/* Without a descriptor to accept with, the client would wait in the queue and the loop would spin on it: one is kept in reserve
 * to turn it away. */
static void out_of_descriptors(struct worker *w, int listen_fd)
{
	struct timeval pause = {.tv_usec = PAUSE_US};

	log_warning("out of descriptors at %u sessions: accepting pauses", w->nsessions);
	close(w->reserve_fd);
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd >= 0)
		close(fd);
	w->reserve_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
	evtimer_add(&w->accept_pause, &pause);
	accept_update(w);
}

static void on_acceptable(evutil_socket_t listen_fd, short what, void *arg)
{
	struct acceptor *a = arg;
	struct worker *w = a->worker;

	(void)what;
	for (int i = 0; i < BATCH && w->accepting; i++) {
		struct sockaddr_storage sa;
		socklen_t len = sizeof sa;
		int fd = accept4(listen_fd, (struct sockaddr *)&sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			take(a, fd, (struct sockaddr *)&sa, len);
			accept_update(w);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
			out_of_descriptors(w, listen_fd);
		if (errno != EINTR && errno != ECONNABORTED)
			return;
	}
}

static bool may_accept(const struct worker *w)
{
	return w->rules != NULL && w->local != NULL && !w->stopping && !w->draining && (recording_has_room(w->recording) || w->config->audit_allow) &&
	       !evtimer_pending(&w->accept_pause, NULL);
}

static bool auth_keeps_up(const struct worker *w)
{
	return w->auth == NULL || ipc_queued(w->auth) < AUTH_QUEUE_MAX;
}

void accept_update(struct worker *w)
{
	struct timeval pause = {.tv_usec = PAUSE_US};

	/* Nothing tells when its queue is shorter. */
	if (!auth_keeps_up(w) && !evtimer_pending(&w->accept_pause, NULL)) {
		if (w->accepting)
			log_warning("the authenticator does not keep up: accepting pauses");
		evtimer_add(&w->accept_pause, &pause);
	}

	bool accepting = may_accept(w);
	struct acceptor *a;

	if (accepting == w->accepting)
		return;
	w->accepting = accepting;
	TAILQ_FOREACH (a, &w->acceptors, next)
		if (accepting)
			event_add(&a->event, NULL);
		else
			event_del(&a->event);
}

static void on_pause_over(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	accept_update(arg);
}

static struct acceptor *accept_find(struct worker *w, uint16_t listener, uint16_t address, uint16_t slot)
{
	struct acceptor *a;

	TAILQ_FOREACH (a, &w->acceptors, next)
		if (a->listener_index == listener && a->address_index == address && a->slot == slot)
			return a;
	return NULL;
}

void accept_add(struct worker *w, uint16_t listener, uint16_t address, uint16_t slot, int fd)
{
	struct acceptor *a = NULL;

	if (accept_find(w, listener, address, slot) != NULL) {
		close(fd); /* we serve it already */
		return;
	}
	a = calloc(1, sizeof *a);
	if (a == NULL || listener >= w->config->nlisteners) {
		log_error("cannot take listener %u", (unsigned)listener);
		close(fd);
		free(a);
		return;
	}
	a->worker = w;
	a->listener = &w->config->listeners[listener];
	a->listener_index = listener;
	a->address_index = address;
	a->slot = slot;
	a->fd = fd;
	event_assign(&a->event, w->base, fd, EV_READ | EV_PERSIST, on_acceptable, a);
	TAILQ_INSERT_TAIL(&w->acceptors, a, next);
	if (w->accepting)
		event_add(&a->event, NULL);
}

/* The supervisor and the sibling hold the same socket: closing our descriptor alone would end no watch, and its events would come under
 * a number that is another's. */
void accept_remove(struct worker *w, uint16_t listener, uint16_t address, uint16_t slot)
{
	struct acceptor *a = accept_find(w, listener, address, slot);

	if (a == NULL)
		return;
	event_del(&a->event);
	TAILQ_REMOVE(&w->acceptors, a, next);
	close(a->fd);
	free(a);
}

/* How the descriptors are shared out: a reserve for what is no session, two for each session, and the rest for what takes more
 * than two (connects side by side, associations). */
static void share_descriptors(struct worker *w)
{
	struct rlimit files;
	rlim_t reserve = DESCRIPTOR_RESERVE, budget, sessions;

	if (getrlimit(RLIMIT_NOFILE, &files) != 0)
		files.rlim_cur = 1024;
	/* Our own listeners, and a missing sibling's. */
	for (size_t i = 0; i < w->config->nlisteners; i++)
		reserve += 2 * w->config->listeners[i].naddresses;
	budget = files.rlim_cur > 2 * reserve ? files.rlim_cur - reserve : reserve / 2;
	if (budget > DESCRIPTORS_MAX)
		budget = DESCRIPTORS_MAX;
	sessions = budget / 2 - budget / 10;
	if (w->config->max_sessions > budget / 2)
		log_warning("max-sessions %u needs more descriptors than the %llu allowed: %llu sessions are served",
			    w->config->max_sessions, (unsigned long long)files.rlim_cur, (unsigned long long)sessions);
	else if (w->config->max_sessions > 0)
		sessions = w->config->max_sessions;
	w->max_sessions = (unsigned)sessions;
	w->max_extra_fds = (unsigned)(budget - 2 * sessions + DESCRIPTOR_RESERVE / 4);
}

void accept_init(struct worker *w)
{
	TAILQ_INIT(&w->acceptors);
	evtimer_assign(&w->accept_pause, w->base, on_pause_over, w);
	share_descriptors(w);
	pipes_init(&w->pipes, w->config->workers, &w->extra_fds, &w->max_extra_fds);
	w->reserve_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
}
