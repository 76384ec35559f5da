/* A grant: its record becomes durable while the destination is connected to.  Only then may the client know. */
#include "config.h"

#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "common/log.h"
#include "gatewayd/recording.h"
#include "gatewayd/worker/resolver.h"
#include "gatewayd/worker/session.h"
#include "gatewayd/worker/shared.h"
#include "gatewayd/worker/udp.h"
#include "gatewayd/worker/worker.h"

static int set_rule(struct session *s, uint32_t rule)
{
	return shared_set(&s->rule, policy_rule_name(s->setup->rules->image, rule));
}

/* Appends the OPEN event; false if the session had to be refused. */
static bool record_grant(struct session *s, const struct audit_event *e)
{
	struct worker *w = s->worker;

	if (recording_grants(w->recording))
		s->setup->record = record_event(w->recording, e, &s->setup->waiter);
	s->unrecorded = s->setup->record == NULL && w->config->audit_allow;
	if (s->setup->record == NULL && !s->unrecorded) {
		session_refuse(s, REASON_AUDIT,
			       recording_has_room(w->recording) ? "its disk is full" : "it does not keep up");
		return false;
	}
	s->setup->recorded = s->unrecorded;
	w->counters.unrecorded += s->unrecorded;
	s->granted = true;
	s->granted_us = s->checked_us = clock_mono_us();
	w->counters.granted++;
	session_arm(s, (int64_t)w->config->audit_timeout_ms * 1000);
	return true;
}

void grant_association(struct session *s)
{
	static struct audit_event e;

	s->revision = s->worker->rules->revision;
	/* What the request names is the client's own end, not a destination. */
	s->address = (struct addr){0};
	shared_put(&s->name);
	s->port = 0;
	session_set_state(s, SESSION_GRANTING);
	session_event(s, AUDIT_OPEN, &e);
	s->setup->connected = true;
	if (record_grant(s, &e))
		grant_finish(s); /* where it need not wait for its record */
}

void grant_start(struct session *s, const struct policy_decision *d)
{
	static struct audit_event e;

	connect_order(s->setup);
	if (set_rule(s, s->setup->candidates[0].rule) != 0) {
		session_refuse(s, REASON_FAULT, "out of memory");
		return;
	}
	s->revision = s->setup->rules->revision;
	session_set_state(s, SESSION_GRANTING);
	session_event(s, AUDIT_OPEN, &e);
	detail_write(s, s->setup->rules->image, d, &e);
	if (!record_grant(s, &e))
		return;
	if (s->command == POLICY_BIND)
		bind_start(s);
	else
		connect_start(s);
}

/* ---- with whom it is connected ----------------------------------------------------------------------------------------
 * Where the grant has but one address, who lives for a second has a row that says so, and of who does not, the closing row does: should
 * neither be written, because the worker is killed, the row of the grant, which is durable before, says it.  Of several addresses it
 * would not say which: there the row comes at once.  Nobody waits for any of them. */

#define UNTOLD_US 1000000
/* Rows that are due so soon leave together. */
#define UNTOLD_SLACK_US 100000

static void record_connected(struct session *s, int64_t connected_us)
{
	static struct audit_event e;

	if (s->unrecorded)
		return;
	session_event(s, AUDIT_CONNECTED, &e);
	e.time_us = connected_us;
	e.bytes_up = e.bytes_down = 0; /* then */
	detail_write_place(s, &e);
	record_event(s->worker->recording, &e, NULL);
}

static void arm_untold(struct worker *w, int64_t now_us)
{
	const struct session *s = TAILQ_FIRST(&w->untold);
	struct timeval tv;

	/* Mostly it has ended when its time has come: the timer is not touched for each. */
	if (s == NULL || evtimer_pending(&w->tell_timer, NULL))
		return;
	int64_t left = s->untold_us + UNTOLD_US - now_us;

	tv = (struct timeval){.tv_sec = left / 1000000, .tv_usec = left % 1000000};
	evtimer_add(&w->tell_timer, &tv);
}

static void on_tell(evutil_socket_t fd, short what, void *arg)
{
	struct worker *w = arg;
	struct session *s;
	int64_t now_us = clock_mono_us();

	(void)fd, (void)what;
	while ((s = TAILQ_FIRST(&w->untold)) != NULL && now_us - s->untold_us >= UNTOLD_US - UNTOLD_SLACK_US)
		grant_tell(s);
	arm_untold(w, now_us);
}

void grant_init(struct worker *w)
{
	TAILQ_INIT(&w->untold);
	evtimer_assign(&w->tell_timer, w->base, on_tell, w);
}

static void note_connected(struct session *s)
{
	if (s->setup->ncandidates > 1) {
		record_connected(s, clock_wall_us());
		return;
	}
	s->connected_us = clock_wall_us();
	s->untold_us = clock_mono_us();
	TAILQ_INSERT_TAIL(&s->worker->untold, s, untold);
	arm_untold(s->worker, s->untold_us);
}

int64_t grant_untold(struct session *s)
{
	int64_t connected_us = s->connected_us;

	if (connected_us != 0)
		TAILQ_REMOVE(&s->worker->untold, s, untold);
	s->connected_us = 0;
	return connected_us;
}

void grant_tell(struct session *s)
{
	int64_t connected_us = grant_untold(s);

	if (connected_us != 0)
		record_connected(s, connected_us);
}

/* The last reply, and the bytes may flow. */
static void relay(struct session *s)
{
	struct setup *setup = s->setup;
	struct endpoint bound = setup->bound;
	uint8_t early[HANDSHAKE_MAX];
	size_t early_len = setup->in_len;

	memcpy(early, setup->in, early_len);
	session_set_state(s, SESSION_RELAYING);
	session_free_setup(s);
	if (!handshake_reply(s, REASON_NONE, &bound))
		session_end(s, "client left before its reply", true);
	else
		relay_start(s, early, early_len);
}

void grant_finish(struct session *s)
{
	struct setup *setup = s->setup;
	struct sockaddr_storage sa;
	socklen_t len = sizeof sa;

	if (!setup->connected || !setup->recorded || !live_still_allowed(s))
		return;
	if (s->state == SESSION_ACCEPTING) {
		relay(s);
		return;
	}
	if (s->command != POLICY_CONNECT) {
		(s->command == POLICY_BIND ? bind_wait : udp_start)(s);
		return;
	}
	if (getsockname(s->server_fd, (struct sockaddr *)&sa, &len) == 0)
		endpoint_from_sockaddr((struct sockaddr *)&sa, len, &setup->bound);
	note_connected(s);
	relay(s);
}

void grant_recorded(struct waiter *waiter)
{
	struct session *s = ((struct setup *)waiter)->session; /* its first member */

	s->setup->record = NULL;
	s->setup->recorded = true;
	evtimer_del(&s->timer);
	grant_finish(s);
}

void grant_connected(struct session *s, const struct candidate *c)
{
	s->setup->connected = true;
	s->address = c->address;
	if (set_rule(s, c->rule) != 0)
		log_error("out of memory: a record goes without its rule");
	grant_finish(s);
}

void grant_failed(struct session *s, enum reason reason)
{
	/* Maybe they are no longer where they were: the next one asks. */
	if (s->name != NULL)
		resolver_forget_name(s->worker->resolver, s->name);
	session_refuse(s, reason, NULL);
}

void grant_audit_timeout(struct session *s)
{
	/* Its record is on its way, and goes on without it. */
	if (s->worker->config->audit_allow) {
		record_forget(&s->setup->record);
		s->setup->recorded = true;
		grant_finish(s);
		return;
	}
	session_refuse(s, REASON_AUDIT, "the grant was not durable in time");
}
