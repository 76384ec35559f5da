/* The auth master: what waits, what runs, who may run next, and when it is enough.
 *
 * An ask is refused (throttled), answered from memory, joins the conversation of an equal ask, or begins one.
 * A conversation is waiting (in the queue, child NULL) or running (child set); it has one asker, more who joined, or none once
 * nobody wants the answer any more.  It carries one timer, which covers its waiting and then, set anew, its running.
 *
 *      ask -> waiting --- a child is idle, quotas hold ---> running -> answer to all its askers
 *                |                                            |
 *                +-- deadline, throttled, no asker: freed     +-- deadline: child killed; no asker: answer counted, dropped
 *
 * Trust: a worker may be taken over by a client, a child by a module.  Either can at worst lose its own link. */
#include "config.h"

#include "auth/master.h"

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

#include "common/clock.h"
#include "common/log.h"
#include "common/text.h"

#define ASK_BODY_MAX 2048
#define ANSWER_BODY_MAX 16384

struct conversation {
	TAILQ_ENTRY(conversation) in_queue;
	LIST_HEAD(, asker) askers;
	unsigned naskers;
	struct auth_master *master;
	struct child *child;
	struct event deadline;
	struct auth_ask ask; /* without the password; the id is random, so that no child's answer can precede its question */
	struct secret *password; /* until a child has it */
	struct prefix network;
	bool known; /* the user has logged in from that network lately */
	struct remember_key key;
	uint64_t generation; /* of what is remembered, when it began */
};

/* ---- the end of a conversation ----------------------------------------------------------------------------------- */

/* Of a conversation without askers. */
static void conversation_free(struct conversation *c)
{
	if (c->child != NULL)
		c->child->running = NULL;
	else {
		TAILQ_REMOVE(&c->master->queue, c, in_queue);
		c->master->queued--;
	}
	event_del(&c->deadline);
	secret_free(c->master->secrets, &c->password);
	free(c);
}

static void asker_free(struct asker *a)
{
	struct conversation *c = a->conversation;

	LIST_REMOVE(a, of_worker);
	LIST_REMOVE(a, of_conversation);
	if (c->naskers-- > 1)
		c->master->joined--;
	free(a);
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

/* To the worker, or to the GSSAPI log-in that asked. */
static void deliver(struct worker *w, struct gss_login *gss, const struct auth_answer *answer)
{
	if (gss != NULL)
		gss_login_judged(gss, answer);
	else
		reply(w, answer);
}

/* Ends c with the answer, to each asker under the id that its worker gave it. */
static void finish(struct conversation *c, struct auth_answer *answer)
{
	struct asker *a;

	while ((a = LIST_FIRST(&c->askers)) != NULL) {
		struct worker *w = a->worker;
		struct gss_login *gss = a->gss;

		answer->id = a->id;
		asker_free(a);
		deliver(w, gss, answer);
	}
	conversation_free(c);
}

__attribute__((format(printf, 3, 4))) static void answer_without(struct auth_answer *answer, enum auth_verdict verdict,
								 const char *format, ...)
{
	va_list ap;

	answer->verdict = verdict;
	va_start(ap, format);
	vsnprintf(answer->reason, sizeof answer->reason, format, ap);
	va_end(ap);
}

static void fail(struct conversation *c, const char *reason)
{
	struct auth_answer answer = {0};

	answer_without(&answer, AUTH_FAILED, "%s", reason);
	memcpy(answer.user, c->ask.user, sizeof answer.user);
	finish(c, &answer);
}

/* Nobody waits for this answer.  A child that is at it goes on and still counts against its user and client. */
void master_cancel_asker(struct asker *a)
{
	struct conversation *c = a->conversation;

	asker_free(a);
	if (c->naskers == 0 && c->child == NULL)
		conversation_free(c);
}

static void cancel(struct asker *a)
{
	a->worker->master->cancelled++;
	master_cancel_asker(a);
}

/* ---- whose turn it is -------------------------------------------------------------------------------------------- */

/* How much of a thing that all share is for one user, and for one client address. */
static unsigned quarter_of(unsigned all)
{
	return all / 4 > 0 ? all / 4 : 1;
}

struct uses {
	unsigned user, client, pair;
};

/* User names that differ in case only may be one user to PAM, so they share a quota. */
static void count_use(struct uses *uses, const struct conversation *other, const struct conversation *c)
{
	bool user = strcasecmp(other->ask.user, c->ask.user) == 0;
	bool client = other->network.bits == c->network.bits && addr_equal(&other->network.addr, &c->network.addr);

	uses->user += user;
	uses->client += client;
	/* To say the same twice is no second guess. */
	uses->pair += user && client && memcmp(other->key.bytes, c->key.bytes, sizeof c->key.bytes) != 0;
}

static void count_running(const struct auth_master *m, const struct conversation *c, struct uses *uses)
{
	for (unsigned i = 0; i < m->options.children; i++)
		if (m->children[i].running != NULL)
			count_use(uses, m->children[i].running, c);
}

static bool within_quota(const struct auth_master *m, const struct conversation *c)
{
	const unsigned quarter = quarter_of(m->options.children);
	struct uses running = {0};

	count_running(m, c, &running);
	return running.user < quarter && running.client < quarter;
}

/* Guesses that are made side by side count only when they are answered: no more of them than are free of charge. */
static bool may_guess(const struct auth_master *m, const struct uses *all, char *reason, size_t size)
{
	if (m->options.throttle.user_failures == 0 || all->pair < m->options.throttle.user_failures)
		return true;
	snprintf(reason, size, "this user has %u other log-ins under way from this client", all->pair);
	return false;
}

/* True if c may wait; else reason says why not.  Whoever fills a user's share from elsewhere does not keep the user out of it
 * where the user is known. */
static bool may_wait(const struct auth_master *m, const struct conversation *c, char *reason, size_t size)
{
	const unsigned quarter = quarter_of(m->options.queue_max);
	const struct conversation *other;
	struct uses waiting = {0};
	unsigned known = 0;

	if (m->queued + m->joined >= m->options.queue_max) {
		snprintf(reason, size, "the authentication queue is full");
		return false;
	}
	TAILQ_FOREACH (other, &m->queue, in_queue) {
		unsigned before = waiting.user;

		count_use(&waiting, other, c);
		known += other->known && waiting.user > before;
	}
	if (c->known)
		waiting.user = known;
	if (waiting.user < quarter && waiting.client < quarter)
		return true;
	snprintf(reason, size, "this %s has %u log-in%s waiting: its share of the authentication queue",
		 waiting.user >= quarter ? "user" : "client", quarter, quarter == 1 ? "" : "s");
	return false;
}

static bool is_busy(const struct child *child)
{
	const struct auth_master *m = child->master;

	return child->running != NULL || m->logins.child == child || m->groups.child == child;
}

static struct child *idle_child(struct auth_master *m)
{
	for (unsigned i = 0; i < m->options.children; i++)
		if (m->children[i].link != NULL && !is_busy(&m->children[i]))
			return &m->children[i];
	return NULL;
}

/* Users who are known where they come from go first: guesses at them wait behind them. */
static struct conversation *next_in_turn(struct auth_master *m)
{
	struct conversation *c, *first = NULL;

	TAILQ_FOREACH (c, &m->queue, in_queue) {
		if ((first != NULL && !c->known) || !within_quota(m, c))
			continue;
		if (c->known)
			return c;
		first = c;
	}
	return first;
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
	logins_child_gone(child);
	groups_child_gone(child);
	if (c != NULL)
		fail(c, reason);
}

void master_kill_child(struct child *child, const char *reason)
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

	TAILQ_REMOVE(&m->queue, c, in_queue);
	m->queued--;
	m->conversations++;
	c->child = child;
	child->running = c;
	child->used = true;
	arc4random_buf(&c->ask.id, sizeof c->ask.id);
	if (c->password != NULL)
		strcpy(c->ask.password, secret_text(c->password));
	auth_put_ask(&writer, &c->ask);
	explicit_bzero(c->ask.password, sizeof c->ask.password);
	secret_free(m->secrets, &c->password);
	deadline_set(c);
	int sent = ipc_send_wire(child->link, IPC_PAM_ASK, &writer);

	explicit_bzero(body, sizeof body);
	if (sent < 0)
		master_kill_child(child, "the authentication process took no question");
}

/* True, and *answer says so, if no log-in of this user from this client is judged now. */
static bool is_throttled(struct auth_master *m, const struct auth_ask *ask, struct auth_answer *answer)
{
	int64_t wait = throttle_wait_us(m->throttle, &ask->client, ask->user, clock_mono_us());

	if (wait == 0)
		return false;
	memset(answer, 0, sizeof *answer);
	memcpy(answer->user, ask->user, sizeof answer->user);
	answer_without(answer, AUTH_THROTTLED, "too many log-ins were denied: the next is judged in %lld s",
		       (long long)((wait + 999999) / 1000000));
	return true;
}

/* ---- how many children there are ------------------------------------------------------------------------------------ */

static unsigned alive(const struct auth_master *m)
{
	unsigned n = 0;

	for (unsigned i = 0; i < m->options.children; i++)
		n += m->children[i].link != NULL;
	return n;
}

/* One more at a time, as long as somebody waits who might use it. */
static void grow(struct auth_master *m)
{
	if (m->options.resize == NULL || m->wanted >= m->options.children || alive(m) < m->wanted || idle_child(m) != NULL ||
	    next_in_turn(m) == NULL)
		return;
	m->wanted++;
	m->coming = m->sized = true;
	m->options.resize(m->wanted, m->options.arg);
}

/* The last one goes if it had nothing to do since the last look: the first that is idle gets the work.  One that is on its way is let
 * come first: its link would cross with the order to end it, and a log-in that it was given would end with it. */
static void on_pool_timer(evutil_socket_t fd, short what, void *arg)
{
	struct auth_master *m = arg;
	struct child *last = &m->children[m->wanted - 1];

	(void)fd, (void)what;
	if (m->wanted > m->options.children_min && !is_busy(last) && !last->used && !m->coming) {
		ipc_free(&last->link);
		m->wanted--;
		m->sized = true;
		m->options.resize(m->wanted, m->options.arg);
	}
	for (unsigned i = 0; i < m->options.children; i++)
		m->children[i].used = is_busy(&m->children[i]);
}

#define THROTTLE_TICK_S 10

static void on_throttle_timer(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	throttle_tick(((struct auth_master *)arg)->throttle, clock_mono_us());
}

static void start_timers(struct auth_master *m)
{
	struct timeval every = {.tv_sec = m->options.idle_ms / 1000, .tv_usec = m->options.idle_ms % 1000 * 1000};

	m->wanted = m->options.resize == NULL ? m->options.children : m->options.children_min;
	event_assign(&m->pool_timer, m->base, -1, EV_PERSIST, on_pool_timer, m);
	if (m->options.resize != NULL)
		event_add(&m->pool_timer, &every);
	event_assign(&m->throttle_timer, m->base, -1, EV_PERSIST, on_throttle_timer, m);
	event_add(&m->throttle_timer, &(struct timeval){.tv_sec = THROTTLE_TICK_S});
}

/* Afterwards no child is idle, or nobody who waits may use one. */
void master_schedule(struct auth_master *m)
{
	struct child *child;
	struct conversation *c;
	struct auth_answer answer;

	while ((child = idle_child(m)) != NULL && (c = next_in_turn(m)) != NULL)
		/* Others may have been denied while it waited. */
		if (!c->ask.vouched && is_throttled(m, &c->ask, &answer))
			finish(c, &answer);
		else
			start(child, c);
	if (logins_wait(m) && (child = idle_child(m)) != NULL)
		logins_start(child);
	if (groups_wait(m) && (child = idle_child(m)) != NULL)
		groups_start(child);
	grow(m);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct conversation *c = arg;
	struct auth_master *m = c->master;
	char reason[AUTH_REASON_MAX + 1];

	(void)fd, (void)what;
	if (c->child == NULL) {
		snprintf(reason, sizeof reason, "no authentication process was free for it within %u ms", m->options.deadline_ms);
		fail(c, reason);
		return;
	}
	log_warning("pam/%u did not finish the log-in of \"%s\" within %u ms: it is killed",
		    (unsigned)(c->child - m->children), c->ask.user, m->options.deadline_ms);
	snprintf(reason, sizeof reason, "the log-in did not finish within %u ms", m->options.deadline_ms);
	master_kill_child(c->child, reason);
	master_schedule(m); /* one user and one client fewer at work */
}

/* ---- workers ----------------------------------------------------------------------------------------------------- */

static void worker_drop(struct worker *w)
{
	struct asker *a;

	LIST_REMOVE(w, next);
	gss_drop_worker(w);
	while ((a = LIST_FIRST(&w->askers)) != NULL)
		cancel(a);
	limits_holder_free(&w->admitted);
	ipc_free(&w->link);
	free(w);
}

static struct asker *asker_of(const struct worker *w, uint64_t id)
{
	struct asker *a;

	LIST_FOREACH (a, &w->askers, of_worker)
		if (a->id == id && a->gss == NULL)
			return a;
	return NULL;
}

static void refuse(struct worker *w, struct gss_login *gss, const struct auth_ask *ask, const char *reason)
{
	struct auth_answer answer = {.id = ask->id, .verdict = AUTH_FAILED};

	memcpy(answer.user, ask->user, sizeof answer.user);
	snprintf(answer.reason, sizeof answer.reason, "%s", reason);
	deliver(w, gss, &answer);
}

static bool add_asker(struct worker *w, struct gss_login *gss, struct conversation *c, uint64_t id)
{
	struct asker *a = calloc(1, sizeof *a);

	if (a == NULL)
		return false;
	*a = (struct asker){.worker = w, .conversation = c, .gss = gss, .id = id};
	if (gss != NULL)
		gss_login_set_asker(gss, a);
	LIST_INSERT_HEAD(&w->askers, a, of_worker);
	LIST_INSERT_HEAD(&c->askers, a, of_conversation);
	if (c->naskers++ > 0)
		w->master->joined++;
	return true;
}

static bool is_equal(const struct auth_master *m, const struct conversation *c, const struct remember_key *key)
{
	return c->generation == m->generation && memcmp(c->key.bytes, key->bytes, sizeof key->bytes) == 0;
}

/* The conversation, waiting or running, that will answer an equal ask. */
static struct conversation *equal_conversation(const struct auth_master *m, const struct remember_key *key)
{
	struct conversation *c;

	for (unsigned i = 0; i < m->options.children; i++)
		if ((c = m->children[i].running) != NULL && is_equal(m, c, key))
			return c;
	TAILQ_FOREACH (c, &m->queue, in_queue)
		if (is_equal(m, c, key))
			return c;
	return NULL;
}

/* A few bytes of the keyed hash. */
static uint64_t tried(const struct remember_key *key)
{
	uint64_t bytes;

	memcpy(&bytes, key->bytes, sizeof bytes);
	return bytes;
}

/* True, and *answer says so, if the same password was denied a moment ago: programs with an old one try it again and again, and
 * that is no guess, but would be a conversation each time. */
static bool is_denied_again(struct auth_master *m, const struct auth_ask *ask, const struct remember_key *key, struct auth_answer *answer)
{
	uint32_t delay_us;

	if (!throttle_denied_lately(m->throttle, &ask->client, ask->user, tried(key), clock_mono_us(), &delay_us))
		return false;
	memset(answer, 0, sizeof *answer);
	memcpy(answer->user, ask->user, sizeof answer->user);
	answer->delay_us = delay_us;
	answer_without(answer, AUTH_DENIED, "the same password was denied a moment ago");
	return true;
}

/* True if ask is answered, or will be by another's conversation. */
static bool answer_cheaply(struct worker *w, struct gss_login *gss, const struct auth_ask *ask, struct remember_key *key)
{
	struct auth_master *m = w->master;
	struct conversation *c;
	struct auth_answer answer;

	if (!ask->vouched && is_throttled(m, ask, &answer)) {
		answer.id = ask->id;
		reply(w, &answer);
		return true;
	}
	remembered_key(m->remembered, ask, key);
	if (!ask->vouched && is_denied_again(m, ask, key, &answer)) {
		answer.id = ask->id;
		reply(w, &answer);
		return true;
	}
	if (m->options.remember_ms == 0)
		return false;
	if (remembered_find(m->remembered, key, clock_mono_us(), &answer)) {
		m->recalled++;
		answer.id = ask->id;
		deliver(w, gss, &answer);
		return true;
	}
	c = equal_conversation(m, key);
	if (c == NULL)
		return false;
	if (c->naskers >= quarter_of(m->options.queue_max) || m->queued + m->joined >= m->options.queue_max ||
	    !add_asker(w, gss, c, ask->id))
		refuse(w, gss, ask, "too many log-ins like this one are waiting");
	else
		m->joined_ever++;
	return true;
}

static struct conversation *conversation_new(struct worker *w, const struct auth_ask *ask)
{
	struct auth_master *m = w->master;
	struct conversation *c = calloc(1, sizeof *c);

	if (c == NULL || (!ask->vouched && !(c->password = secret_new(m->secrets, ask->password)))) {
		free(c);
		return NULL;
	}
	c->master = m;
	c->ask = *ask;
	explicit_bzero(c->ask.password, sizeof c->ask.password);
	c->network = throttle_network(m->throttle, &ask->client);
	c->known = throttle_knows(m->throttle, &ask->client, ask->user, clock_mono_us());
	c->generation = m->generation;
	LIST_INIT(&c->askers);
	return c;
}

static void enqueue(struct worker *w, struct gss_login *gss, const struct auth_ask *ask, const struct remember_key *key)
{
	struct auth_master *m = w->master;
	struct child *child = idle_child(m);
	struct conversation *other, *c = conversation_new(w, ask);
	char reason[AUTH_REASON_MAX + 1] = "the authentication queue is full: no memory";
	struct uses all = {0};
	bool at_once = false;

	if (c != NULL) {
		c->key = *key;
		count_running(m, c, &all);
		TAILQ_FOREACH (other, &m->queue, in_queue)
			count_use(&all, other, c);
		/* Who waits already may not use an idle child (master_schedule), so a newcomer who may does not jump the queue. */
		at_once = child != NULL && within_quota(m, c);
	}
	if (c == NULL || (!ask->vouched && !may_guess(m, &all, reason, sizeof reason)) ||
	    (!at_once && !may_wait(m, c, reason, sizeof reason)) || !add_asker(w, gss, c, ask->id)) {
		if (c != NULL)
			secret_free(m->secrets, &c->password);
		free(c);
		refuse(w, gss, ask, reason);
		return;
	}
	TAILQ_INSERT_TAIL(&m->queue, c, in_queue);
	m->queued++;
	event_assign(&c->deadline, m->base, -1, 0, on_deadline, c);
	if (at_once)
		start(child, c);
	else {
		deadline_set(c);
		grow(m);
	}
}

void master_ask_account(struct worker *w, struct gss_login *login, const struct auth_ask *ask)
{
	struct remember_key key = {0};

	if (!answer_cheaply(w, login, ask, &key))
		enqueue(w, login, ask, &key);
}

/* These two return false if the message is malformed. */
static bool on_ask(struct worker *w, const struct ipc_message *message)
{
	struct wire_reader r = wire_reader_on(message->body, message->len);
	struct remember_key key = {0};
	struct auth_ask ask;

	if (!auth_get_ask(&r, &ask))
		return false;
	bool fresh = asker_of(w, ask.id) == NULL && !ask.vouched;

	if (fresh) {
		w->master->asked++;
		if (!answer_cheaply(w, NULL, &ask, &key))
			enqueue(w, NULL, &ask, &key);
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
	struct asker *a = asker_of(w, id);

	/* None: its answer is on its way. */
	if (!gss_cancel(w, id) && a != NULL)
		cancel(a);
	return true;
}

static bool on_admit(struct worker *w, const struct ipc_message *message)
{
	struct wire_reader r = wire_reader_on(message->body, message->len);
	uint8_t body[300];
	struct wire_writer out = wire_writer_on(body, sizeof body);
	struct auth_admit a;
	const char *why;

	if (!auth_get_admit(&r, &a))
		return false;
	why = limits_admit(w->admitted, a.id, a.listener, &a.client, a.user, a.begun, clock_mono_us());
	auth_put_admit_answer(&out, a.id, why, limits_is_full(why));
	if (!a.begun)
		ipc_send_wire(w->link, IPC_ADMIT_ANSWER, &out);
	return true;
}

static bool on_admitted_done(struct worker *w, const struct ipc_message *message)
{
	struct wire_reader r = wire_reader_on(message->body, message->len);
	uint64_t id;

	if (!auth_get_cancel(&r, &id))
		return false;
	limits_release(w->admitted, id, clock_mono_us());
	return true;
}

static void on_worker_message(struct ipc *link, struct ipc_message *message, void *arg)
{
	struct worker *w = arg;
	bool sound = message->type == IPC_AUTH_ASK	? on_ask(w, message)
		     : message->type == IPC_GSS_ASK	? gss_on_ask(w, message)
		     : message->type == IPC_AUTH_CANCEL ? on_cancel(w, message)
		     : message->type == IPC_ADMIT_ASK	? on_admit(w, message)
		     : message->type == IPC_ADMIT_DONE	? on_admitted_done(w, message)
							: false;

	if (!sound)
		ipc_reject(link, message->type == IPC_AUTH_ASK || message->type == IPC_GSS_ASK ? "a malformed log-in"
				 : message->type == IPC_AUTH_CANCEL ? "a malformed cancellation"
				 : message->type == IPC_ADMIT_ASK || message->type == IPC_ADMIT_DONE
					 ? "a malformed word about limits"
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
	w->admitted = limits_holder_new(m->limits);
	if (w->admitted == NULL)
		log_fatal("out of memory for worker/%u", slot);
	LIST_INIT(&w->askers);
	LIST_INIT(&w->gss_logins);
	LIST_INSERT_HEAD(&m->workers, w, next);
	w->link = ipc_new(fd, ROLE_AUTH, ROLE_WORKER, slot);
	ipc_attach(w->link, m->base, on_worker_message, on_worker_gone, w);
}

/* ---- children ---------------------------------------------------------------------------------------------------- */

/* What a verdict means for the next who asks: also when nobody waits for it any more, or guesses would be free. */
static void learn(struct auth_master *m, const struct conversation *c, struct auth_answer *answer)
{
	int64_t now = clock_mono_us(), wait;
	size_t len = strlen(answer->reason);
	char client[PREFIX_TEXT_MAX];

	if (answer->verdict == AUTH_OK) {
		throttle_succeeded(m->throttle, &c->ask.client, c->ask.user, now);
		if (m->options.remember_ms > 0 && c->generation == m->generation)
			remembered_add(m->remembered, &c->key, c->ask.user, answer, now);
	} else if (answer->verdict == AUTH_DENIED && !c->ask.vouched) {
		wait = throttle_failed(m->throttle, &c->ask.client, c->ask.user, tried(&c->key), now);
		throttle_note_denied(m->throttle, &c->ask.client, c->ask.user, tried(&c->key), answer->delay_us, now);
		if (wait == 0)
			return;
		log_warning("log-ins of \"%s\" from %s are refused for %lld s: too many were denied", c->ask.user,
			    prefix_format(&c->network, client), (long long)(wait / 1000000));
		snprintf(answer->reason + len, sizeof answer->reason - len, "; the next from this client is judged in %lld s",
			 (long long)((wait + 999999) / 1000000));
	}
}

static void on_child_message(struct ipc *link, struct ipc_message *message, void *arg)
{
	struct child *child = arg;
	struct auth_master *m = child->master;
	struct wire_reader r = wire_reader_on(message->body, message->len);
	struct auth_answer answer;

	if (message->type == IPC_PAM_ANSWER && auth_get_answer(&r, &answer) && answer.verdict != AUTH_THROTTLED &&
	    child->running != NULL && child->running->ask.id == answer.id) {
		learn(m, child->running, &answer);
		finish(child->running, &answer);
		master_schedule(m);
	} else if ((message->type == IPC_PAM_LOGIN_TOLD && logins_answered(child, message)) ||
		   (message->type == IPC_PAM_GROUPS_TOLD && groups_answered(child, message)))
		master_schedule(m);
	else
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
	master_schedule(m);
}

void auth_master_add_child(struct auth_master *m, uint16_t slot, int fd)
{
	struct child *child;

	if (slot >= m->options.children) {
		log_error("a link to pam/%u came, but there are %u such processes only", slot, m->options.children);
		close(fd);
		return;
	}
	if (slot >= m->wanted && m->sized) {
		close(fd); /* it was sent before the supervisor heard how many we want, and ends */
		return;
	}
	child = &m->children[slot];
	child_drop(child, "the authentication process ended during the log-in");
	if (slot >= m->wanted)
		m->wanted = slot + 1u; /* of a master before us */
	if (slot + 1u == m->wanted)
		m->coming = false;
	child->link = ipc_new(fd, ROLE_AUTH, ROLE_PAM, slot);
	ipc_attach(child->link, m->base, on_child_message, on_child_gone, child);
	master_schedule(m);
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
	m->limits = limits_new(options->limits, options->nlimits, &options->limits_of_all);
	m->throttle = throttle_new(&options->throttle);
	m->secrets = secrets_new(options->queue_max + options->children);
	m->remembered = remembered_new((int64_t)options->remember_ms * 1000, options->remember_max);
	if (m->limits == NULL || m->throttle == NULL || m->secrets == NULL || m->remembered == NULL)
		log_fatal("out of memory for the authenticator");
	LIST_INIT(&m->workers);
	TAILQ_INIT(&m->queue);
	for (unsigned i = 0; i < options->children; i++)
		m->children[i].master = m;
	start_timers(m);
	logins_init(m);
	groups_init(m);
	return m;
}

void auth_master_free(struct auth_master **master)
{
	struct auth_master *m = *master;
	struct worker *w;

	*master = NULL;
	if (m == NULL)
		return;
	logins_close(m);
	groups_close(m);
	while ((w = LIST_FIRST(&m->workers)) != NULL)
		worker_drop(w);
	for (unsigned i = 0; i < m->options.children; i++)
		child_drop(&m->children[i], "the gateway ends");
	gss_close(m);
	event_del(&m->pool_timer);
	event_del(&m->throttle_timer);
	free(m->children);
	limits_free(&m->limits);
	throttle_free(&m->throttle);
	remembered_free(&m->remembered);
	secrets_free(&m->secrets);
	free(m);
}

char *auth_master_status(const struct auth_master *m)
{
	unsigned busy = 0;

	for (unsigned i = 0; i < m->options.children; i++)
		busy += m->children[i].running != NULL;
	const struct {
		const char *name;
		uint64_t value;
	} counters[] = {
		{"children", alive(m)},
		{"busy", busy},
		{"queued", m->queued},
		{"asked", m->asked},
		{"ok", m->verdicts[AUTH_OK]},
		{"denied", m->verdicts[AUTH_DENIED]},
		{"failed", m->verdicts[AUTH_FAILED]},
		{"throttled", m->verdicts[AUTH_THROTTLED]},
		{"cancelled", m->cancelled},
		{"killed", m->killed},
		{"conversations", m->conversations},
		{"joined", m->joined_ever},
		{"recalled", m->recalled},
		{"gss_asked", m->gss.asked},
		{"gss_under_way", m->gss.count},
		{"remembered", remembered_count(m->remembered)},
	};
	json_t *o = json_object();

	for (size_t i = 0; i < sizeof counters / sizeof *counters; i++)
		json_object_set_new(o, counters[i].name, json_integer((json_int_t)counters[i].value));
	char *text = o == NULL ? NULL : json_dumps(o, JSON_COMPACT);

	json_decref(o);
	if (text == NULL)
		log_fatal("out of memory for the status");
	return text;
}

/* ---- administrators ----------------------------------------------------------------------------------------------- */

#define LISTED_MAX 200
/* Of JSON, in a message of 48 KiB: names that clients have sent may be long, and are longer once they are escaped. */
#define LISTED_BYTES_MAX 45000
#define LISTED_RECORD_MAX 128 /* without the name */

struct listing {
	json_t *list;
	size_t bytes;
	size_t left_off;
};

static void list_record(const struct prefix *network, const char *user, unsigned failures, int64_t wait_us, void *arg)
{
	struct listing *l = arg;
	char client[PREFIX_TEXT_MAX], safe[4 * AUTH_TEXT_MAX + 1];

	text_escape(user, strlen(user), safe, sizeof safe);
	l->bytes += LISTED_RECORD_MAX + 2 * strlen(safe); /* JSON doubles backslashes */
	if (json_array_size(l->list) == LISTED_MAX || l->bytes > LISTED_BYTES_MAX) {
		l->left_off++;
		return;
	}
	json_array_append_new(l->list, json_pack("{s:s,s:s,s:i,s:I}", "client", prefix_format(network, client), "user", safe,
						 "failures", (int)failures, "wait_ms", (json_int_t)(wait_us / 1000)));
}

static json_t *list(struct auth_master *m)
{
	struct listing l = {.list = json_array()};

	throttle_each(m->throttle, clock_mono_us(), list_record, &l);
	return json_pack("{s:o,s:I,s:I}", "throttled", l.list, "left_off", (json_int_t)l.left_off, "remembered",
			 (json_int_t)remembered_count(m->remembered));
}

void auth_master_forget(struct auth_master *m)
{
	m->generation++; /* nor is remembered what is being judged now */
	remembered_forget(m->remembered, NULL);
}

char *auth_master_command(struct auth_master *m, const struct auth_command *c)
{
	const char *user = c->user[0] == '\0' ? NULL : c->user;
	const struct prefix *clients = c->clients.addr.family == ADDR_NONE ? NULL : &c->clients;
	json_t *o = NULL;

	switch (c->kind) {
	case AUTH_COMMAND_LIST:
		o = list(m);
		break;
	case AUTH_COMMAND_UNLOCK:
		o = json_pack("{s:I}", "unlocked", (json_int_t)throttle_unlock(m->throttle, clients, user, clock_mono_us()));
		break;
	case AUTH_COMMAND_FORGET:
		m->generation++; /* nor is remembered what is being judged now */
		o = json_pack("{s:I}", "forgotten", (json_int_t)remembered_forget(m->remembered, user));
		break;
	case AUTH_COMMANDS:
		break;
	}
	char *text = o == NULL ? NULL : json_dumps(o, JSON_COMPACT);

	json_decref(o);
	if (text == NULL)
		log_fatal("out of memory for an administrator's command");
	return text;
}
