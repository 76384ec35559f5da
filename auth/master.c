/* The auth master: what waits, what runs, who may run next, and when it is enough.
 *
 * A conversation is waiting (in the queue, child NULL) or running (child set); its worker is NULL once nobody wants the
 * answer any more.  Every conversation carries one timer, which covers its waiting and then, set anew, its running.
 *
 *      ask -> waiting --- a child is idle, quotas hold ---> running -> answer
 *                |                                            |
 *                +-- deadline, cancel, worker gone: freed     +-- deadline: child killed; cancel, worker gone: answer
 * dropped
 *
 * Trust: a worker may be taken over by a client, a child by a module.  Either can at worst lose its own link. */
#include "config.h"

#include "auth/auth.h"

#include <assert.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>
#include <unistd.h>

#include "common/log.h"

#define ASK_BODY_MAX 2048
#define ANSWER_BODY_MAX 16384

struct worker {
	LIST_ENTRY(worker) next;
	struct auth_master *master;
	struct ipc *link;
	LIST_HEAD(, conversation) conversations;
};

struct child {
	struct auth_master *master;
	struct ipc *link; /* NULL while the slot is empty */
	struct conversation *running;
};

struct conversation {
	TAILQ_ENTRY(conversation) in_queue;
	LIST_ENTRY(conversation) of_worker;
	struct auth_master *master;
	struct worker *worker;
	struct child *child;
	uint64_t child_id; /* what the child knows it by: random, so that no answer can precede its question */
	struct event deadline;
	struct auth_ask ask; /* the password is wiped once a child has it */
};

struct auth_master {
	struct event_base *base;
	struct auth_master_options options;
	LIST_HEAD(, worker) workers;
	struct child *children;
	TAILQ_HEAD(, conversation) queue;
	unsigned queued;
	uint64_t asked, cancelled, killed, verdicts[AUTH_FAILED + 1];
};

/* ---- the end of a conversation ----------------------------------------------------------------------------------- */

static void conversation_free(struct conversation *c)
{
	if (c->child != NULL)
		c->child->running = NULL;
	else {
		TAILQ_REMOVE(&c->master->queue, c, in_queue);
		c->master->queued--;
	}
	if (c->worker != NULL)
		LIST_REMOVE(c, of_worker);
	event_del(&c->deadline);
	auth_ask_wipe(&c->ask);
	free(c);
}

/* Counts and sends an answer.  A worker that does not read what it asked for is cut off, a moment later. */
static void reply(struct worker *w, const struct auth_answer *answer)
{
	uint8_t body[ANSWER_BODY_MAX];
	struct wire_writer writer = wire_writer_on(body, sizeof body);

	w->master->verdicts[answer->verdict]++;
	auth_put_answer(&writer, answer);
	if (ipc_send_wire(w->link, IPC_AUTH_ANSWER, &writer) < 0)
		ipc_reject(w->link, "it does not take its answers");
}

/* Ends c with the answer, under the id that its worker gave it. */
static void finish(struct conversation *c, struct auth_answer *answer)
{
	struct worker *w = c->worker;

	answer->id = c->ask.id;
	conversation_free(c);
	if (w != NULL)
		reply(w, answer);
}

__attribute__((format(printf, 2, 3))) static void fail(struct conversation *c, const char *format, ...)
{
	struct auth_answer answer = {.verdict = AUTH_FAILED};
	va_list ap;

	va_start(ap, format);
	vsnprintf(answer.reason, sizeof answer.reason, format, ap);
	va_end(ap);
	memcpy(answer.user, c->ask.user, sizeof answer.user);
	finish(c, &answer);
}

/* Nobody waits for the answer.  A child that is at it goes on and still counts against its user and client. */
static void cancel(struct conversation *c)
{
	c->master->cancelled++;
	if (c->child == NULL) {
		conversation_free(c);
		return;
	}
	LIST_REMOVE(c, of_worker);
	c->worker = NULL;
}

/* ---- whose turn it is -------------------------------------------------------------------------------------------- */

/* How much of a thing that all share is for one user, and for one client address. */
static unsigned quarter_of(unsigned all)
{
	return all / 4 > 0 ? all / 4 : 1;
}

struct uses {
	unsigned user, client;
};

/* User names that differ in case only may be one user to PAM, so they share a quota. */
static void count_use(struct uses *uses, const struct conversation *other, const struct conversation *c)
{
	uses->user += strcasecmp(other->ask.user, c->ask.user) == 0;
	uses->client += addr_equal(&other->ask.client, &c->ask.client);
}

static bool within_quota(const struct auth_master *m, const struct conversation *c)
{
	const unsigned quarter = quarter_of(m->options.children);
	struct uses running = {0};

	for (unsigned i = 0; i < m->options.children; i++)
		if (m->children[i].running != NULL)
			count_use(&running, m->children[i].running, c);
	return running.user < quarter && running.client < quarter;
}

/* True if c may wait; else reason says why not. */
static bool may_wait(const struct auth_master *m, const struct conversation *c, char *reason, size_t size)
{
	const unsigned quarter = quarter_of(m->options.queue_max);
	const struct conversation *other;
	struct uses waiting = {0};

	if (m->queued >= m->options.queue_max) {
		snprintf(reason, size, "the authentication queue is full");
		return false;
	}
	TAILQ_FOREACH (other, &m->queue, in_queue)
		count_use(&waiting, other, c);
	if (waiting.user < quarter && waiting.client < quarter)
		return true;
	snprintf(reason, size, "this %s has %u log-in%s waiting: its share of the authentication queue",
		 waiting.user >= quarter ? "user" : "client", quarter, quarter == 1 ? "" : "s");
	return false;
}

static struct child *idle_child(struct auth_master *m)
{
	for (unsigned i = 0; i < m->options.children; i++)
		if (m->children[i].link != NULL && m->children[i].running == NULL)
			return &m->children[i];
	return NULL;
}

static struct conversation *next_in_turn(struct auth_master *m)
{
	struct conversation *c;

	TAILQ_FOREACH (c, &m->queue, in_queue)
		if (within_quota(m, c))
			return c;
	return NULL;
}

static void deadline_set(struct conversation *c)
{
	unsigned ms = c->master->options.deadline_ms;
	struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

	event_add(&c->deadline, &tv);
}

/* The slot is empty until the supervisor sends a new link. */
static void child_drop(struct child *child, const char *reason)
{
	struct conversation *c = child->running;

	ipc_free(&child->link);
	if (c != NULL)
		fail(c, "%s", reason);
}

static void child_kill(struct child *child, const char *reason)
{
	struct auth_master *m = child->master;

	m->killed++;
	child_drop(child, reason);
	m->options.kill_child((uint16_t)(child - m->children), m->options.arg);
}

static void start(struct child *child, struct conversation *c)
{
	uint8_t body[ASK_BODY_MAX];
	struct wire_writer writer = wire_writer_on(body, sizeof body);
	struct auth_master *m = c->master;
	uint64_t id = c->ask.id;

	TAILQ_REMOVE(&m->queue, c, in_queue);
	m->queued--;
	c->child = child;
	child->running = c;
	arc4random_buf(&c->child_id, sizeof c->child_id);
	c->ask.id = c->child_id;
	auth_put_ask(&writer, &c->ask);
	c->ask.id = id;
	explicit_bzero(c->ask.password, sizeof c->ask.password);
	deadline_set(c);
	int sent = ipc_send_wire(child->link, IPC_PAM_ASK, &writer);

	explicit_bzero(body, sizeof body);
	if (sent < 0)
		child_kill(child, "the authentication process took no question");
}

/* Afterwards no child is idle, or nobody who waits may use one. */
static void schedule(struct auth_master *m)
{
	struct child *child;
	struct conversation *c;

	while ((child = idle_child(m)) != NULL && (c = next_in_turn(m)) != NULL)
		start(child, c);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct conversation *c = arg;
	struct auth_master *m = c->master;
	char reason[AUTH_REASON_MAX + 1];

	(void)fd, (void)what;
	if (c->child == NULL) {
		fail(c, "no authentication process was free for it within %u ms", m->options.deadline_ms);
		return;
	}
	log_warning("pam/%u did not finish the log-in of \"%s\" within %u ms: it is killed",
		    (unsigned)(c->child - m->children), c->ask.user, m->options.deadline_ms);
	snprintf(reason, sizeof reason, "the log-in did not finish within %u ms", m->options.deadline_ms);
	child_kill(c->child, reason);
	schedule(m); /* one user and one client fewer at work */
}

/* ---- workers ----------------------------------------------------------------------------------------------------- */

static void worker_drop(struct worker *w)
{
	struct conversation *c;

	LIST_REMOVE(w, next);
	while ((c = LIST_FIRST(&w->conversations)) != NULL)
		cancel(c);
	ipc_free(&w->link);
	free(w);
}

static struct conversation *conversation_of(const struct worker *w, uint64_t id)
{
	struct conversation *c;

	LIST_FOREACH (c, &w->conversations, of_worker)
		if (c->ask.id == id)
			return c;
	return NULL;
}

static void refuse(struct worker *w, const struct auth_ask *ask, const char *reason)
{
	struct auth_answer answer = {.id = ask->id, .verdict = AUTH_FAILED};

	memcpy(answer.user, ask->user, sizeof answer.user);
	snprintf(answer.reason, sizeof answer.reason, "%s", reason);
	reply(w, &answer);
}

static void enqueue(struct worker *w, const struct auth_ask *ask)
{
	struct auth_master *m = w->master;
	struct child *child = idle_child(m);
	struct conversation *c = calloc(1, sizeof *c);
	char reason[AUTH_REASON_MAX + 1];

	if (c == NULL) {
		refuse(w, ask, "the authentication queue is full: no memory");
		return;
	}
	c->master = m;
	c->worker = w;
	c->ask = *ask;
	/* Who waits already may not use an idle child (schedule), so a newcomer who may does not jump the queue. */
	bool at_once = child != NULL && within_quota(m, c);

	if (!at_once && !may_wait(m, c, reason, sizeof reason)) {
		auth_ask_wipe(&c->ask);
		free(c);
		refuse(w, ask, reason);
		return;
	}
	TAILQ_INSERT_TAIL(&m->queue, c, in_queue);
	m->queued++;
	LIST_INSERT_HEAD(&w->conversations, c, of_worker);
	event_assign(&c->deadline, m->base, -1, 0, on_deadline, c);
	if (at_once)
		start(child, c);
	else
		deadline_set(c);
}

/* These two return false if the message is malformed. */
static bool on_ask(struct worker *w, const struct ipc_message *message)
{
	struct wire_reader r = wire_reader_on(message->body, message->len);
	struct auth_ask ask;

	if (!auth_get_ask(&r, &ask))
		return false;
	bool fresh = conversation_of(w, ask.id) == NULL;

	if (fresh) {
		w->master->asked++;
		enqueue(w, &ask);
	}
	auth_ask_wipe(&ask);
	return fresh;
}

static bool on_cancel(struct worker *w, const struct ipc_message *message)
{
	struct wire_reader r = wire_reader_on(message->body, message->len);
	uint64_t id;

	if (!auth_get_cancel(&r, &id))
		return false;
	struct conversation *c = conversation_of(w, id);

	/* None: its answer is on its way. */
	if (c != NULL)
		cancel(c);
	return true;
}

static void on_worker_message(struct ipc *link, struct ipc_message *message, void *arg)
{
	struct worker *w = arg;
	bool sound = message->type == IPC_AUTH_ASK	? on_ask(w, message)
		     : message->type == IPC_AUTH_CANCEL ? on_cancel(w, message)
							: false;

	if (!sound)
		ipc_reject(link, message->type == IPC_AUTH_ASK	    ? "a malformed log-in"
				 : message->type == IPC_AUTH_CANCEL ? "a malformed cancellation"
								    : "a message that is not for the master");
}

static void on_worker_gone(struct ipc *link, void *arg)
{
	(void)link;
	worker_drop(arg);
}

void auth_master_add_worker(struct auth_master *m, uint16_t slot, int fd)
{
	struct worker *w;

	LIST_FOREACH (w, &m->workers, next)
		if (ipc_peer_slot(w->link) == slot) {
			worker_drop(w);
			break;
		}
	w = calloc(1, sizeof *w);
	if (w == NULL)
		log_fatal("out of memory for worker/%u", slot);
	w->master = m;
	LIST_INIT(&w->conversations);
	LIST_INSERT_HEAD(&m->workers, w, next);
	w->link = ipc_new(fd, ROLE_AUTH, ROLE_WORKER, slot);
	ipc_attach(w->link, m->base, on_worker_message, on_worker_gone, w);
}

/* ---- children ---------------------------------------------------------------------------------------------------- */

static void on_child_message(struct ipc *link, struct ipc_message *message, void *arg)
{
	struct child *child = arg;
	struct auth_master *m = child->master;
	struct wire_reader r = wire_reader_on(message->body, message->len);
	struct auth_answer answer;

	if (message->type == IPC_PAM_ANSWER && auth_get_answer(&r, &answer) && child->running != NULL &&
	    child->running->child_id == answer.id) {
		finish(child->running, &answer);
		schedule(m);
	} else
		ipc_reject(link, "an answer that it was not asked for");
}

/* A child that ended is replaced without a word from us: asking for its death could hit its successor.  For the end of
 * one that broke a rule it has been asked already (ipc_on_violation). */
static void on_child_gone(struct ipc *link, void *arg)
{
	struct child *child = arg;
	struct auth_master *m = child->master;

	if (ipc_broke_rules(link)) {
		m->killed++;
		child_drop(child, "the authentication process gave a malformed answer");
	} else {
		if (child->running != NULL)
			log_warning("pam/%u ended during the log-in of \"%s\"", ipc_peer_slot(link),
				    child->running->ask.user);
		child_drop(child, "the authentication process ended during the log-in");
	}
	schedule(m);
}

void auth_master_add_child(struct auth_master *m, uint16_t slot, int fd)
{
	struct child *child;

	if (slot >= m->options.children) {
		log_error("a link to pam/%u came, but there are %u such processes only", slot, m->options.children);
		close(fd);
		return;
	}
	child = &m->children[slot];
	child_drop(child, "the authentication process ended during the log-in");
	child->link = ipc_new(fd, ROLE_AUTH, ROLE_PAM, slot);
	ipc_attach(child->link, m->base, on_child_message, on_child_gone, child);
	schedule(m);
}

/* ---- the master -------------------------------------------------------------------------------------------------- */

struct auth_master *auth_master_new(struct event_base *base, const struct auth_master_options *options)
{
	struct auth_master *m = calloc(1, sizeof *m);

	assert(options->children >= 1 && options->children <= UINT16_MAX && options->kill_child != NULL);
	if (m == NULL || (m->children = calloc(options->children, sizeof *m->children)) == NULL)
		log_fatal("out of memory for %u authentication processes", options->children);
	m->base = base;
	m->options = *options;
	LIST_INIT(&m->workers);
	TAILQ_INIT(&m->queue);
	for (unsigned i = 0; i < options->children; i++)
		m->children[i].master = m;
	return m;
}

void auth_master_free(struct auth_master **master)
{
	struct auth_master *m = *master;
	struct worker *w;

	*master = NULL;
	if (m == NULL)
		return;
	while ((w = LIST_FIRST(&m->workers)) != NULL)
		worker_drop(w);
	for (unsigned i = 0; i < m->options.children; i++)
		child_drop(&m->children[i], "the gateway ends");
	free(m->children);
	free(m);
}

char *auth_master_status(const struct auth_master *m)
{
	unsigned alive = 0, busy = 0;

	for (unsigned i = 0; i < m->options.children; i++) {
		alive += m->children[i].link != NULL;
		busy += m->children[i].running != NULL;
	}
	json_t *o = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "children", (json_int_t)alive, "busy",
			      (json_int_t)busy, "queued", (json_int_t)m->queued, "asked", (json_int_t)m->asked, "ok",
			      (json_int_t)m->verdicts[AUTH_OK], "denied", (json_int_t)m->verdicts[AUTH_DENIED],
			      "failed", (json_int_t)m->verdicts[AUTH_FAILED], "cancelled", (json_int_t)m->cancelled,
			      "killed", (json_int_t)m->killed);
	char *text = o == NULL ? NULL : json_dumps(o, JSON_COMPACT);

	json_decref(o);
	if (text == NULL)
		log_fatal("out of memory for the status");
	return text;
}
