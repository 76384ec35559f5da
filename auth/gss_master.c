/* GSSAPI log-ins in the auth master: tokens go to the GSSAPI child and back; when a context is established, a conversation child
 * is asked for the account and the groups of the user.  Nothing here waits for anybody.
 *
 *      token -> STEPPING -> (more) -> AT_CLIENT -> token ...
 *                  \-> (established) -> JUDGING -> answer */
#include "config.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/master.h"
#include "common/clock.h"
#include "common/log.h"

#define BODY_MAX 98304

enum state { STEPPING, AT_CLIENT, JUDGING };

struct gss_login {
	LIST_ENTRY(gss_login) next, of_worker;
	struct worker *worker;
	uint64_t id, child_id; /* the worker's; and what the child knows it by, random */
	enum state state;
	struct prefix network;
	struct event deadline; /* of a step */
	struct asker *asker;   /* JUDGING, unless it is answered at once */
	struct auth_ask ask;   /* service, listener, client */
	/* JUDGING: what the child said, to be handed on. */
	struct gss_answer held;
	uint8_t *bytes; /* its token and context, wiped with it */
	size_t bytes_len;
};

static void send_drop(struct auth_master *m, uint64_t child_id)
{
	uint8_t body[16];
	struct wire_writer w = wire_writer_on(body, sizeof body);

	auth_put_cancel(&w, child_id);
	if (m->gss.link != NULL)
		ipc_send_wire(m->gss.link, IPC_GSS_DROP, &w);
}

static void login_free(struct gss_login *l)
{
	LIST_REMOVE(l, next);
	LIST_REMOVE(l, of_worker);
	l->worker->master->gss.count--;
	event_del(&l->deadline);
	if (l->bytes != NULL)
		explicit_bzero(l->bytes, l->bytes_len);
	free(l->bytes);
	free(l);
}

static void send_answer(struct gss_login *l, struct gss_answer *a)
{
	static uint8_t body[BODY_MAX];
	struct wire_writer w = wire_writer_on(body, sizeof body);

	a->id = l->id;
	gss_put_answer(&w, a);
	if (ipc_send_wire(l->worker->link, IPC_GSS_ANSWER, &w) < 0)
		ipc_reject(l->worker->link, "it does not take its answers");
	explicit_bzero(body, w.len);
}

/* The last answer of a log-in. */
static void finish(struct gss_login *l, struct gss_answer *a)
{
	struct auth_master *m = l->worker->master;

	m->verdicts[a->answer.verdict]++;
	send_answer(l, a);
	login_free(l);
}

static void refuse(struct gss_login *l, enum auth_verdict verdict, const char *reason)
{
	struct gss_answer a = {.answer = {.verdict = verdict, .user = "-"}};

	snprintf(a.answer.reason, sizeof a.answer.reason, "%s", reason);
	finish(l, &a);
}

/* ---- the worker's side ------------------------------------------------------------------------------------------------ */

static struct gss_login *login_of(const struct worker *w, uint64_t id)
{
	struct gss_login *l;

	LIST_FOREACH (l, &w->gss_logins, of_worker)
		if (l->id == id)
			return l;
	return NULL;
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct gss_login *l = arg;
	struct auth_master *m = l->worker->master;

	(void)fd, (void)what;
	log_warning("the GSSAPI process did not answer within %u ms: it is killed", m->options.deadline_ms);
	ipc_free(&m->gss.link);
	gss_end_all(m, "the GSSAPI process did not answer in time");
	m->killed++;
	m->options.kill_gssapi(m->options.arg);
}

static void send_step(struct gss_login *l, const struct gss_ask *ask)
{
	static uint8_t body[66560];
	struct wire_writer w = wire_writer_on(body, sizeof body);
	struct auth_master *m = l->worker->master;
	struct gss_step step = {.id = l->child_id, .token = ask->token, .token_len = ask->token_len};
	struct timeval deadline = {.tv_sec = m->options.deadline_ms / 1000, .tv_usec = m->options.deadline_ms % 1000 * 1000};

	gss_put_step(&w, &step);
	l->state = STEPPING;
	if (m->gss.link == NULL || ipc_send_wire(m->gss.link, IPC_GSS_STEP, &w) < 0) {
		refuse(l, AUTH_FAILED, "the GSSAPI process is not running");
		return;
	}
	evtimer_add(&l->deadline, &deadline);
}

/* Why one more of this network may not begin, or NULL. */
static const char *no_room(const struct auth_master *m, const struct prefix *network)
{
	unsigned all = m->options.gss_contexts_max, same = 0;
	const struct gss_login *l;

	if (m->gss.count >= all)
		return "too many GSSAPI log-ins are under way";
	LIST_FOREACH (l, &m->gss.logins, next)
		same += l->network.bits == network->bits && addr_equal(&l->network.addr, &network->addr);
	return same >= (all / 4 > 0 ? all / 4 : 1) ? "this client has its share of GSSAPI log-ins under way" : NULL;
}

static void begin(struct worker *w, const struct gss_ask *ask)
{
	struct auth_master *m = w->master;
	struct gss_login *l = calloc(1, sizeof *l);
	struct prefix network = throttle_network(m->throttle, &ask->client);
	const char *full = no_room(m, &network);

	if (l == NULL)
		log_fatal("out of memory for a GSSAPI log-in");
	l->worker = w;
	l->id = ask->id;
	arc4random_buf(&l->child_id, sizeof l->child_id);
	l->network = network;
	memcpy(l->ask.service, ask->service, sizeof l->ask.service);
	memcpy(l->ask.listener, ask->listener, sizeof l->ask.listener);
	l->ask.client = ask->client;
	l->ask.vouched = true;
	evtimer_assign(&l->deadline, m->base, on_deadline, l);
	LIST_INSERT_HEAD(&m->gss.logins, l, next);
	LIST_INSERT_HEAD(&w->gss_logins, l, of_worker);
	m->gss.count++;
	m->gss.asked++;
	if (full != NULL)
		refuse(l, AUTH_FAILED, full);
	else
		send_step(l, ask);
}

bool gss_on_ask(struct worker *w, const struct ipc_message *message)
{
	struct wire_reader r = wire_reader_on(message->body, message->len);
	struct gss_login *l;
	struct gss_ask ask;

	if (w->master->options.gss_contexts_max == 0 || !gss_get_ask(&r, &ask))
		return false;
	l = login_of(w, ask.id);
	if (l == NULL)
		begin(w, &ask);
	else if (l->state == AT_CLIENT)
		send_step(l, &ask);
	else
		return false; /* two tokens at a time */
	return true;
}

static void drop(struct gss_login *l)
{
	struct auth_master *m = l->worker->master;

	m->cancelled++;
	if (l->state != JUDGING)
		send_drop(m, l->child_id);
	else if (l->asker != NULL)
		master_cancel_asker(l->asker);
	login_free(l);
}

bool gss_cancel(struct worker *w, uint64_t id)
{
	struct gss_login *l = login_of(w, id);

	if (l != NULL)
		drop(l);
	return l != NULL;
}

void gss_drop_worker(struct worker *w)
{
	struct gss_login *l;

	while ((l = LIST_FIRST(&w->gss_logins)) != NULL)
		drop(l);
}

void gss_end_all(struct auth_master *m, const char *reason)
{
	struct gss_login *l, *following;

	for (l = LIST_FIRST(&m->gss.logins); l != NULL; l = following) {
		following = LIST_NEXT(l, next);
		if (l->state != JUDGING)
			refuse(l, AUTH_FAILED, reason);
	}
}

/* ---- the child's side --------------------------------------------------------------------------------------------------- */

static struct gss_login *stepping(const struct auth_master *m, uint64_t child_id)
{
	struct gss_login *l;

	LIST_FOREACH (l, &m->gss.logins, next)
		if (l->child_id == child_id && l->state == STEPPING)
			return l;
	return NULL;
}

/* Keeps what the answer points to, until the account has been looked at. */
static bool hold(struct gss_login *l, const struct gss_answer *a)
{
	l->bytes_len = a->token_len + a->context_len;
	l->bytes = malloc(l->bytes_len);
	if (l->bytes == NULL)
		return false;
	l->held = *a;
	l->held.token = l->bytes;
	l->held.context = l->bytes + a->token_len;
	if (a->token_len > 0)
		memcpy(l->bytes, a->token, a->token_len);
	memcpy(l->bytes + a->token_len, a->context, a->context_len);
	return true;
}

static void on_answer(struct gss_login *l, struct gss_answer *a)
{
	event_del(&l->deadline);
	if (a->more) {
		l->state = AT_CLIENT;
		send_answer(l, a);
	} else if (a->answer.verdict == AUTH_OK) {
		l->state = JUDGING;
		memcpy(l->ask.user, a->answer.user, sizeof l->ask.user);
		if (hold(l, a))
			master_ask_account(l->worker, l, &l->ask);
		else
			refuse(l, AUTH_FAILED, "out of memory");
	} else {
		/* Not counted as passwords are: a ticket cannot be guessed, and whoever sends garbage would lock his neighbours out. */
		finish(l, a);
	}
}

void gss_login_set_asker(struct gss_login *l, struct asker *asker)
{
	l->asker = asker;
}

void gss_login_judged(struct gss_login *l, const struct auth_answer *answer)
{
	struct gss_answer a = l->held;

	l->asker = NULL;
	a.answer = *answer;
	if (answer->verdict != AUTH_OK) {
		a.token_len = a.context_len = 0;
		a.token = a.context = NULL;
	}
	finish(l, &a);
}

static void on_child_message(struct ipc *link, struct ipc_message *message, void *arg)
{
	static struct gss_answer answer;
	struct auth_master *m = arg;
	struct wire_reader r = wire_reader_on(message->body, message->len);
	struct gss_login *l;

	if (message->type != IPC_GSS_STEPPED || !gss_get_answer(&r, &answer) || answer.answer.verdict == AUTH_THROTTLED ||
	    answer.answer.ngroups > 0) {
		ipc_reject(link, "a malformed answer");
		return;
	}
	l = stepping(m, answer.id);
	if (l != NULL) /* else its client has left */
		on_answer(l, &answer);
}

static void on_child_gone(struct ipc *link, void *arg)
{
	struct auth_master *m = arg;

	(void)link;
	ipc_free(&m->gss.link);
	gss_end_all(m, "the GSSAPI process ended during the log-in");
}

void auth_master_add_gssapi(struct auth_master *m, int fd)
{
	if (m->gss.link != NULL)
		on_child_gone(m->gss.link, m);
	m->gss.link = ipc_new(fd, ROLE_AUTH, ROLE_GSSAPI, 0);
	ipc_attach(m->gss.link, m->base, on_child_message, on_child_gone, m);
}
