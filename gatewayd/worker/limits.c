/* Asks the auth master, who counts for all workers, whether a session may begin; and tells it of its end.  It is asked when the
 * client has connected, before a byte is read, for the listener and the client; and again when a user has logged in. */
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

/* Once a log-in has been counted, the session's user is told with it. */
static int send_ask(const struct session *s, bool begun, bool user)
{
	uint8_t body[600];
	struct wire_writer out = wire_writer_on(body, sizeof body);
	struct auth_admit a = {
		.id = s->id, .listener = (uint16_t)listener_index(s), .begun = begun, .client = s->client.addr};

	if (s->worker->auth == NULL)
		return -1;
	strncpy(a.user, user ? s->user : "", sizeof a.user - 1);
	auth_put_admit(&out, &a);
	return ipc_send_wire(s->worker->auth, IPC_ADMIT_ASK, &out);
}

static int ask(struct session *s, bool user)
{
	if (send_ask(s, false, user) != 0)
		return -1;
	s->counted = true; /* whatever the answer: its end is told */
	s->user_counted = user;
	TAILQ_INSERT_TAIL(&s->worker->admitting, s->setup, admitting);
	s->setup->in_admitting = true;
	return 0;
}

bool limits_ask_connection(struct session *s)
{
	if (!limit_set_connections(&s->listener->limits) && !limit_set_connections(&s->worker->config->limits))
		return false;
	if (ask(s, false) != 0)
		session_turn_away(s, REASON_LIMIT, "who counts sessions is not running");
	else
		session_arm(s, (int64_t)s->listener->handshake_timeout_ms * 1000);
	return true;
}

bool limits_ask_user(struct session *s)
{
	if (s->user == NULL || (!limit_set_users(&s->listener->limits) && !limit_set_users(&s->worker->config->limits)))
		return false;
	session_set_state(s, SESSION_ADMITTING);
	if (ask(s, true) != 0)
		session_refuse(s, REASON_LIMIT, "who counts sessions is not running");
	else
		session_arm(s, (int64_t)s->worker->config->audit_timeout_ms * 1000);
	return true;
}

void limits_stop_asking(struct setup *setup)
{
	if (setup->in_admitting)
		TAILQ_REMOVE(&setup->session->worker->admitting, setup, admitting);
	setup->in_admitting = false;
}

/* Before the first byte there is nobody to reply to: which protocol it is that the client speaks is not known. */
static void refuse(struct session *s, const char *why)
{
	if (s->state == SESSION_COUNTING)
		session_turn_away(s, REASON_LIMIT, why);
	else
		session_refuse(s, REASON_LIMIT, why);
}

/* Clients that say nothing must not keep a listener from those that do: one of them gives way, and we ask once more. */
static bool make_room(struct session *s)
{
	if (s->state != SESSION_COUNTING || s->setup->pressed || !accept_press(s))
		return false;
	s->setup->pressed = true;
	return limits_ask_connection(s);
}

void limits_answer(struct worker *w, const struct ipc_message *m)
{
	struct wire_reader r = wire_reader_on(m->body, m->len);
	char why[AUTH_REASON_MAX + 1];
	struct setup *setup;
	uint64_t id;
	bool full;

	if (!auth_get_admit_answer(&r, &id, why, &full)) {
		log_error("the authenticator sent a malformed answer about limits");
		return;
	}
	/* Answers come in the order of the questions: it is among the first. */
	TAILQ_FOREACH (setup, &w->admitting, admitting)
		if (setup->session->id == id)
			break;
	if (setup == NULL)
		return; /* its client has left */
	limits_stop_asking(setup);
	evtimer_del(&setup->session->timer);
	if (full && make_room(setup->session))
		return;
	if (why[0] != '\0')
		refuse(setup->session, why);
	else if (setup->session->state == SESSION_COUNTING)
		handshake_start(setup->session);
	else
		handshake_admitted(setup->session);
}

void limits_done(struct session *s)
{
	uint8_t body[16];
	struct wire_writer out = wire_writer_on(body, sizeof body);

	if (!s->counted || s->worker->auth == NULL)
		return;
	auth_put_cancel(&out, s->id);
	s->counted = false;
	/* An end that is not told would be counted for ever: over a new link all is counted anew. */
	if (ipc_send_wire(s->worker->auth, IPC_ADMIT_DONE, &out) != 0)
		ipc_reject(s->worker->auth, "it does not take what it is sent");
}

void limits_master_gone(struct worker *w)
{
	struct setup *setup;

	while ((setup = TAILQ_FIRST(&w->admitting)) != NULL) {
		limits_stop_asking(setup);
		refuse(setup->session, "who counts sessions has ended");
	}
}

void limits_master_new(struct worker *w)
{
	struct session *s;
	unsigned untold = 0;

	TAILQ_FOREACH (s, &w->sessions, next) {
		if (!s->counted || send_ask(s, true, s->user_counted) == 0)
			continue;
		s->counted = false; /* so that its end is not told, either */
		untold++;
	}
	if (untold > 0)
		log_error("%u sessions are not counted any more: there are too many to tell the authenticator at once", untold);
}
