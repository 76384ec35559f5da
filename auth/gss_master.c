/* GSSAPI log-ins in the auth master: tokens go to the GSSAPI child and back; when a context is established, a conversation child
 * is asked for the account and the groups of the user.  Nothing here waits for anybody.
 *
 *      token -> STEPPING -> (more) -> AT_CLIENT -> token ...
 *                  \-> (established) -> JUDGING -> answer
 *
 * A context lives in one GSSAPI child.  When another child takes over (with a new keytab), the one before it gets no new log-in, and
 * is ended when the last of those that it has begun is over. */
#include "config.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/master.h"
#include "common/clock.h"
#include "common/locked.h"
#include "common/log.h"

#define BODY_MAX 98304

enum state { STEPPING, AT_CLIENT, JUDGING };

struct gss_login {
	LIST_ENTRY(gss_login) next, of_worker;
	struct worker *worker;
	uint64_t id, child_id; /* the worker's; and what the child knows it by, random */
	enum state state;
	struct prefix network;
	struct gss_child *child; /* who has its context; NULL when nobody has any more */
	struct event deadline;	 /* of a step, and of the client's next token */
	struct asker *asker;   /* JUDGING, unless it is answered at once */
	struct auth_ask ask;   /* service, listener, client */
	/* JUDGING: what the child said, to be handed on. */
	struct gss_answer held;
	uint8_t *bytes; /* its token and context, wiped with it */
	size_t bytes_len;
};

struct gss_child {
	LIST_ENTRY(gss_child) next;
	struct auth_master *master;
	struct ipc *link;
	unsigned logins; /* whose context it has */
};

/* ---- who has a context --------------------------------------------------------------------------------------------------- */

/* Nothing that it still says is heard. */
static void child_free(struct gss_child *c)
{
	struct gss_desk *desk = &c->master->gss;

	if (desk->serving == c)
		desk->serving = NULL;
	LIST_REMOVE(c, next);
	ipc_free(&c->link);
	free(c);
}

static void child_kill(struct gss_child *c)
{
	struct auth_master *m = c->master;
	uint16_t slot = ipc_peer_slot(c->link);

	child_free(c);
	m->options.kill_gssapi(slot, m->options.arg);
}

static void attach(struct gss_login *l, struct gss_child *c)
{
	l->child = c;
	if (c != NULL)
		c->logins++;
}

/* Its context is gone, or not needed any more. */
static void detach(struct gss_login *l)
{
	struct gss_child *c = l->child;

	l->child = NULL;
	if (c != NULL && --c->logins == 0 && c != c->master->gss.serving)
		child_kill(c);
}

static void send_drop(const struct gss_login *l)
{
	uint8_t body[16];
	struct wire_writer w = wire_writer_on(body, sizeof body);

	auth_put_cancel(&w, l->child_id);
	if (l->child != NULL)
		ipc_send_wire(l->child->link, IPC_GSS_DROP, &w);
}

static void login_free(struct gss_login *l)
{
	detach(l);
	LIST_REMOVE(l, next);
	LIST_REMOVE(l, of_worker);
	l->worker->master->gss.count--;
	event_del(&l->deadline);
	locked_free(l->bytes, l->bytes_len);
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

/* The process is gone, or not worth waiting for: what it has begun is refused. */
static void child_lost(struct gss_child *c, const char *reason)
{
	struct auth_master *m = c->master;
	struct gss_login *l, *following;

	for (l = LIST_FIRST(&m->gss.logins); l != NULL; l = following) {
		following = LIST_NEXT(l, next);
		if (l->child != c)
			continue;
		l->child = NULL;
		refuse(l, AUTH_FAILED, reason);
	}
	child_free(c);
}

static void on_step_late(struct gss_child *c)
{
	struct auth_master *m = c->master;
	uint16_t slot = ipc_peer_slot(c->link);

	log_warning("the GSSAPI process did not answer within %u ms: it is killed", m->options.gss_step_ms);
	child_lost(c, "the GSSAPI process did not answer in time");
	m->killed++;
	m->options.kill_gssapi(slot, m->options.arg);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct gss_login *l = arg;

	(void)fd, (void)what;
	if (l->state == STEPPING) {
		on_step_late(l->child);
		return;
	}
	/* Its worker waits for the client, and says when that has left; this is for one that does neither. */
	log_warning("worker/%u did not bring the next token of a GSSAPI log-in within %u ms", ipc_peer_slot(l->worker->link),
		    l->worker->master->options.gss_client_ms);
	send_drop(l);
	refuse(l, AUTH_FAILED, "the next token did not come in time");
}

static void set_deadline(struct gss_login *l, unsigned ms)
{
	struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

	evtimer_add(&l->deadline, &tv);
}

static void send_step(struct gss_login *l, const struct gss_ask *ask)
{
	static uint8_t body[66560];
	struct wire_writer w = wire_writer_on(body, sizeof body);
	struct gss_step step = {.id = l->child_id, .token = ask->token, .token_len = ask->token_len};

	gss_put_step(&w, &step);
	l->state = STEPPING;
	if (l->child == NULL || ipc_send_wire(l->child->link, IPC_GSS_STEP, &w) < 0) {
		refuse(l, AUTH_FAILED, "the GSSAPI process is not running");
		return;
	}
	set_deadline(l, l->worker->master->options.gss_step_ms);
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
	if (full != NULL) {
		refuse(l, AUTH_FAILED, full);
		return;
	}
	attach(l, m->gss.serving);
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
		send_drop(l);
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

/* ---- the child's side --------------------------------------------------------------------------------------------------- */

static struct gss_login *stepping(const struct gss_child *c, uint64_t child_id)
{
	struct gss_login *l;

	LIST_FOREACH (l, &c->master->gss.logins, next)
		if (l->child == c && l->child_id == child_id && l->state == STEPPING)
			return l;
	return NULL;
}

/* Keeps what the answer points to, until the account has been looked at. */
static bool hold(struct gss_login *l, const struct gss_answer *a)
{
	l->bytes_len = a->token_len + a->context_len;
	l->bytes = locked_new(l->bytes_len);
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
		set_deadline(l, l->worker->master->options.gss_client_ms);
		send_answer(l, a);
	} else if (a->answer.verdict == AUTH_OK) {
		l->state = JUDGING;
		memcpy(l->ask.user, a->answer.user, sizeof l->ask.user);
		if (!hold(l, a)) {
			refuse(l, AUTH_FAILED, "out of memory");
			return;
		}
		detach(l);
		master_ask_account(l->worker, l, &l->ask);
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
	struct wire_reader r = wire_reader_on(message->body, message->len);
	struct gss_login *l;

	if (message->type != IPC_GSS_STEPPED || !gss_get_answer(&r, &answer) || answer.answer.verdict == AUTH_THROTTLED ||
	    answer.answer.ngroups > 0) {
		ipc_reject(link, "a malformed answer");
		return;
	}
	l = stepping(arg, answer.id);
	if (l != NULL) /* else its client has left */
		on_answer(l, &answer);
}

static void on_child_gone(struct ipc *link, void *arg)
{
	(void)link;
	child_lost(arg, "the GSSAPI process ended during the log-in");
}

void auth_master_add_gssapi(struct auth_master *m, uint16_t slot, int fd)
{
	struct gss_child *c = calloc(1, sizeof *c), *before = m->gss.serving;

	if (c == NULL)
		log_fatal("out of memory for a GSSAPI process");
	if (before != NULL && ipc_peer_slot(before->link) == slot) { /* restarted before its end was seen */
		child_lost(before, "the GSSAPI process ended during the log-in");
		before = NULL;
	}
	c->master = m;
	c->link = ipc_new(fd, ROLE_AUTH, ROLE_GSSAPI, slot);
	LIST_INSERT_HEAD(&m->gss.children, c, next);
	m->gss.serving = c;
	if (before != NULL && before->logins == 0)
		child_kill(before);
	ipc_attach(c->link, m->base, on_child_message, on_child_gone, c);
}

void gss_close(struct auth_master *m)
{
	struct gss_child *c;

	while ((c = LIST_FIRST(&m->gss.children)) != NULL)
		child_free(c);
}
