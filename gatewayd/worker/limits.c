/* Asks the auth master, who counts for all workers, whether a session may begin; and tells it of its end. */
#include "config.h"

#include <event2/event.h>
#include <string.h>

#include "auth/auth.h"
#include "common/log.h"
#include "gatewayd/worker/session.h"
#include "gatewayd/worker/worker.h"

static size_t listener_index(const struct session *s)
{
	return (size_t)(s->listener - s->worker->config->listeners);
}

static int send_ask(const struct session *s, bool begun)
{
	uint8_t body[600];
	struct wire_writer out = wire_writer_on(body, sizeof body);
	struct auth_admit a = {
		.id = s->id, .listener = (uint16_t)listener_index(s), .begun = begun, .client = s->client.addr};

	if (s->worker->auth == NULL)
		return -1;
	strncpy(a.user, s->user == NULL ? "" : s->user, sizeof a.user - 1);
	auth_put_admit(&out, &a);
	return ipc_send_wire(s->worker->auth, IPC_ADMIT_ASK, &out);
}

bool limits_ask(struct session *s)
{
	if (!limit_set_any(&s->listener->limits))
		return false;
	session_set_state(s, SESSION_ADMITTING);
	if (send_ask(s, false) != 0) {
		session_refuse(s, REASON_LIMIT, "who counts sessions is not running");
		return true;
	}
	s->admitted = true; /* whatever the answer: its end is told */
	LIST_INSERT_HEAD(&s->worker->admitting, s->setup, admitting);
	s->setup->in_admitting = true;
	session_arm(s, (int64_t)s->worker->config->audit_timeout_ms * 1000);
	return true;
}

void limits_stop_asking(struct setup *setup)
{
	if (setup->in_admitting)
		LIST_REMOVE(setup, admitting);
	setup->in_admitting = false;
}

void limits_answer(struct worker *w, const struct ipc_message *m)
{
	struct wire_reader r = wire_reader_on(m->body, m->len);
	char why[AUTH_REASON_MAX + 1];
	struct setup *setup;
	uint64_t id;

	if (!auth_get_admit_answer(&r, &id, why)) {
		log_error("the authenticator sent a malformed answer about limits");
		return;
	}
	LIST_FOREACH (setup, &w->admitting, admitting)
		if (setup->session->id == id)
			break;
	if (setup == NULL)
		return; /* its client has left */
	limits_stop_asking(setup);
	if (why[0] == '\0') {
		evtimer_del(&setup->session->timer);
		handshake_admitted(setup->session);
		return;
	}
	setup->session->admitted = false;
	session_refuse(setup->session, REASON_LIMIT, why);
}

void limits_done(struct session *s)
{
	uint8_t body[16];
	struct wire_writer out = wire_writer_on(body, sizeof body);

	if (!s->admitted || s->worker->auth == NULL)
		return;
	auth_put_cancel(&out, s->id);
	ipc_send_wire(s->worker->auth, IPC_ADMIT_DONE, &out);
	s->admitted = false;
}

void limits_master_gone(struct worker *w)
{
	struct setup *setup;

	while ((setup = LIST_FIRST(&w->admitting)) != NULL) {
		limits_stop_asking(setup);
		session_refuse(setup->session, REASON_LIMIT, "who counts sessions has ended");
	}
}

void limits_master_new(struct worker *w)
{
	struct session *s;

	TAILQ_FOREACH (s, &w->sessions, next)
		if (s->admitted)
			send_ask(s, true);
}
