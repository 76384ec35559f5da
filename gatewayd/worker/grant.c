/* A grant: its record becomes durable while the destination is connected to.  Only then may the client know. */
#include "config.h"

#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "common/log.h"
#include "gatewayd/recording.h"
#include "gatewayd/worker/session.h"
#include "gatewayd/worker/socks5.h"
#include "gatewayd/worker/worker.h"

static int set_rule(struct session *s, uint32_t rule)
{
	char *name = strdup(policy_rule_name(s->setup->rules->image, rule));

	free(s->rule);
	s->rule = name;
	return name == NULL ? -1 : 0;
}

void grant_start(struct session *s, const struct policy_decision *d)
{
	static struct audit_event e;
	struct worker *w = s->worker;

	if (set_rule(s, s->setup->candidates[0].rule) != 0) {
		session_refuse(s, REASON_FAULT, "out of memory");
		return;
	}
	s->revision = s->setup->rules->revision;
	session_set_state(s, SESSION_GRANTING);
	session_event(s, AUDIT_OPEN, &e);
	detail_write(s, s->setup->rules->image, d, &e);
	if (recording_has_room(w->recording))
		s->setup->record = record_event(w->recording, &e, s);
	if (s->setup->record == NULL) {
		session_refuse(s, REASON_AUDIT, "the audit does not keep up");
		return;
	}
	s->granted = true;
	s->granted_us = clock_mono_us();
	w->counters.granted++;
	session_arm(s, (int64_t)w->config->audit_timeout_ms * 1000);
	connect_start(s);
}

static void record_connected(struct session *s)
{
	static struct audit_event e;

	session_event(s, AUDIT_CONNECTED, &e);
	record_event(s->worker->recording, &e, NULL);
}

static void finish(struct session *s)
{
	struct setup *setup = s->setup;
	struct endpoint bound = {0};
	struct sockaddr_storage sa;
	socklen_t len = sizeof sa;
	uint8_t reply[SOCKS5_REPLY_MAX], early[HANDSHAKE_MAX];
	size_t early_len = setup->in_len;

	if (!setup->connected || !setup->recorded)
		return;
	if (getsockname(s->server_fd, (struct sockaddr *)&sa, &len) == 0)
		endpoint_from_sockaddr((struct sockaddr *)&sa, len, &bound);
	record_connected(s);
	len = (socklen_t)socks5_write_reply(reply, reason_socks5(REASON_NONE), &bound);
	memcpy(early, setup->in, early_len);
	session_set_state(s, SESSION_RELAYING);
	session_free_setup(s);
	if (send(s->client_fd, reply, len, MSG_NOSIGNAL) != (ssize_t)len) {
		session_end(s, "client left before its reply", true);
		return;
	}
	relay_start(s, early, early_len);
}

void grant_recorded(struct session *s)
{
	s->setup->record = NULL;
	s->setup->recorded = true;
	evtimer_del(&s->timer);
	finish(s);
}

void grant_connected(struct session *s)
{
	const struct candidate *c = &s->setup->candidates[s->setup->next_candidate - 1];

	s->setup->connected = true;
	s->address = c->address;
	if (set_rule(s, c->rule) != 0)
		log_error("out of memory: a record goes without its rule");
	finish(s);
}

void grant_failed(struct session *s, enum reason reason)
{
	session_refuse(s, reason, NULL);
}

void grant_audit_timeout(struct session *s)
{
	session_refuse(s, REASON_AUDIT, "the grant was not durable in time");
}
