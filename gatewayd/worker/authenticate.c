/* Asks the auth master, and finds the session again when the answer comes. */
#include "config.h"

#include <event2/event.h>
#include <string.h>

#include "auth/auth.h"
#include "common/log.h"
#include "gatewayd/worker/gss.h"
#include "gatewayd/worker/session.h"
#include "gatewayd/worker/worker.h"

static void stop_waiting(struct setup *setup)
{
	setup->asked = setup->gss_under_way = false;
	TAILQ_REMOVE(&setup->session->worker->asking, setup, asking);
}

/* The list is as long as the authenticator's queue; remembered log-ins are answered in the order of the questions. */
static struct setup *find_waiting(struct worker *w, uint64_t id)
{
	struct setup *setup;

	TAILQ_FOREACH (setup, &w->asking, asking)
		if (setup->session->id == id)
			return setup;
	return NULL;
}

static void on_gss_answer(struct worker *w, const struct ipc_message *m)
{
	static struct gss_answer answer;
	struct wire_reader r = wire_reader_on(m->body, m->len);
	struct setup *setup;
	bool refused;

	if (!gss_get_answer(&r, &answer)) {
		log_error("the authenticator sent a malformed answer");
		return;
	}
	setup = find_waiting(w, answer.id);
	refused = !answer.more && answer.answer.verdict != AUTH_OK;
	/* A refusal may come also while the client's next token is awaited: the context has been lost. */
	if (setup == NULL || !setup->gss_under_way || (!setup->asked && !refused))
		return;
	if (answer.more)
		setup->asked = false;
	else
		stop_waiting(setup);
	if (refused)
		handshake_stop_reading(setup->session);
	gss_answered(setup->session, &answer);
}

static void on_message(struct ipc *link, struct ipc_message *m, void *arg)
{
	static struct auth_answer answer;
	struct wire_reader r = wire_reader_on(m->body, m->len);
	struct setup *setup;

	(void)link;
	if (m->type == IPC_ADMIT_ANSWER)
		limits_answer(arg, m);
	if (m->type == IPC_GSS_ANSWER)
		on_gss_answer(arg, m);
	if (m->type != IPC_AUTH_ANSWER)
		return;
	if (!auth_get_answer(&r, &answer)) {
		log_error("the authenticator sent a malformed answer");
		return;
	}
	setup = find_waiting(arg, answer.id);
	if (setup == NULL || setup->gss_under_way)
		return; /* its client has left */
	stop_waiting(setup);
	handshake_login_done(setup->session, &answer);
}

/* What it owed is denied, never waved through. */
static void on_gone(struct ipc *link, void *arg)
{
	struct worker *w = arg;
	struct setup *setup;

	(void)link;
	ipc_free(&w->auth);
	worker_link_lost(w);
	while ((setup = TAILQ_FIRST(&w->asking)) != NULL) {
		stop_waiting(setup);
		session_refuse(setup->session, REASON_LOGIN_FAILED, "the authenticator ended");
	}
	limits_master_gone(w);
}

void authenticate_link(struct worker *w, int fd)
{
	if (w->auth != NULL)
		on_gone(w->auth, w);
	w->auth = ipc_new(fd, ROLE_WORKER, ROLE_AUTH, 0);
	ipc_attach(w->auth, w->base, on_message, on_gone, w);
	limits_master_new(w);
}

int authenticate_ask(struct session *s, struct auth_ask *ask)
{
	uint8_t body[2048];
	struct wire_writer out = wire_writer_on(body, sizeof body);
	int rc = -1;

	if (s->worker->auth != NULL) {
		ask->id = s->id;
		auth_put_ask(&out, ask);
		rc = ipc_send_wire(s->worker->auth, IPC_AUTH_ASK, &out);
	}
	explicit_bzero(body, out.len);
	if (rc == 0) {
		s->setup->asked = true;
		TAILQ_INSERT_TAIL(&s->worker->asking, s->setup, asking);
	}
	return rc;
}

int authenticate_ask_gss(struct session *s, struct gss_ask *ask)
{
	static uint8_t body[66560];
	struct wire_writer out = wire_writer_on(body, sizeof body);

	if (s->worker->auth == NULL)
		return -1;
	ask->id = s->id;
	gss_put_ask(&out, ask);
	if (ipc_send_wire(s->worker->auth, IPC_GSS_ASK, &out) != 0)
		return -1;
	if (!s->setup->gss_under_way)
		TAILQ_INSERT_TAIL(&s->worker->asking, s->setup, asking);
	s->setup->asked = s->setup->gss_under_way = true;
	return 0;
}

void authenticate_cancel(struct session *s)
{
	uint8_t body[16];
	struct wire_writer out = wire_writer_on(body, sizeof body);

	if (!s->setup->asked && !s->setup->gss_under_way)
		return;
	stop_waiting(s->setup);
	auth_put_cancel(&out, s->id);
	if (s->worker->auth != NULL)
		ipc_send_wire(s->worker->auth, IPC_AUTH_CANCEL, &out);
}
