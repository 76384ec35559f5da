/* A real master over real socket pairs; workers and children are played by this process, on the same loop. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include <event2/event.h>
#include <jansson.h>

#include "auth/auth.h"
#include "common/clock.h"
#include "common/log.h"

#define PATIENCE_S 20 /* no wait takes this long unless something is broken */
#define KEPT 256
#define LONG_MS 60000

struct gateway {
	struct event_base *base;
	struct auth_master *master;
	unsigned violations_of[ROLE_COUNT];
	unsigned kills, wanted, resized, told;
	uint32_t told_uid; /* the last, */
	char told_name[AUTH_LOGIN_MAX + 1];
	struct auth_asked_groups groups; /* that were told last */
	unsigned groups_told;
	uint16_t last_kill;
	bool impatient;
};

/* One end of a pair whose other end the master has. */
struct worker {
	struct ipc *link;
	struct auth_answer answers[KEPT];
	unsigned n;
	bool gone;
};

struct child {
	struct ipc *link;
	struct auth_ask asks[KEPT];
	unsigned n;
	struct auth_login login; /* that it was asked for last */
	unsigned logins;
	struct auth_asked_groups groups; /* the same */
	unsigned group_asks;
	bool gone;
};

static void on_kill(uint16_t slot, void *arg)
{
	struct gateway *g = arg;

	g->kills++;
	g->last_kill = slot;
}

static void on_violation(enum role role, uint16_t slot, void *arg)
{
	struct gateway *g = arg;

	(void)slot;
	g->violations_of[role]++;
}

static void on_login(uint32_t uid, const char *name, void *arg)
{
	struct gateway *g = arg;

	g->told++;
	g->told_uid = uid;
	snprintf(g->told_name, sizeof g->told_name, "%s", name);
}

static void on_groups(const struct auth_asked_groups *told, void *arg)
{
	struct gateway *g = arg;

	g->groups = *told;
	g->groups_told++;
}

static struct gateway *gateway_with(struct auth_master_options options)
{
	struct gateway *g = calloc(1, sizeof *g);

	assert_non_null(g);
	options.kill_child = on_kill;
	options.told_login = on_login;
	options.told_groups = on_groups;
	options.arg = g;
	ipc_on_violation(on_violation, g);
	g->base = event_base_new();
	g->master = auth_master_new(g->base, &options);
	return g;
}

static struct gateway *gateway_new(unsigned children, unsigned queue_max, unsigned deadline_ms)
{
	return gateway_with((struct auth_master_options){
		.children = children, .queue_max = queue_max, .deadline_ms = deadline_ms});
}

static void gateway_free(struct gateway *g)
{
	auth_master_free(&g->master);
	assert_null(g->master);
	event_base_free(g->base);
	free(g);
}

static void on_impatience(evutil_socket_t fd, short what, void *arg)
{
	struct gateway *g = arg;

	(void)fd, (void)what;
	g->impatient = true;
}

/* Runs the loop until the condition holds. */
#define wait_for(g, condition)                                                                                         \
	do {                                                                                                           \
		struct event *timer = event_new((g)->base, -1, 0, on_impatience, (g));                                 \
		struct timeval tv = {.tv_sec = PATIENCE_S};                                                            \
		bool holds;                                                                                            \
                                                                                                                       \
		(g)->impatient = false;                                                                                \
		event_add(timer, &tv);                                                                                 \
		while (!(holds = (condition)) && !(g)->impatient)                                                      \
			event_base_loop((g)->base, EVLOOP_ONCE);                                                       \
		event_free(timer);                                                                                     \
		if (!holds)                                                                                            \
			fail_msg("waited in vain for: %s", #condition);                                                \
	} while (0)

static int status(const struct gateway *g, const char *counter)
{
	char *text = auth_master_status(g->master);
	json_t *o = json_loads(text, 0, NULL);
	json_t *value = json_object_get(o, counter);

	assert_true(json_is_integer(value));
	int n = (int)json_integer_value(value);

	json_decref(o);
	free(text);
	return n;
}

/* ---- workers ----------------------------------------------------------------------------------------------------- */

static void on_answer(struct ipc *link, struct ipc_message *m, void *arg)
{
	struct worker *w = arg;
	struct wire_reader r = wire_reader_on(m->body, m->len);

	(void)link;
	assert_int_equal(m->type, IPC_AUTH_ANSWER);
	assert_true(w->n < KEPT);
	assert_true(auth_get_answer(&r, &w->answers[w->n]));
	w->n++;
}

static void on_worker_end(struct ipc *link, void *arg)
{
	struct worker *w = arg;

	(void)link;
	w->gone = true;
}

static struct worker *worker_new(struct gateway *g, uint16_t slot)
{
	struct worker *w = calloc(1, sizeof *w);
	int fds[2];

	assert_non_null(w);
	assert_int_equal(ipc_pair(fds), 0);
	auth_master_add_worker(g->master, slot, fds[0]);
	w->link = ipc_new(fds[1], ROLE_WORKER, ROLE_AUTH, 0);
	ipc_attach(w->link, g->base, on_answer, on_worker_end, w);
	return w;
}

static void worker_free(struct worker *w)
{
	ipc_free(&w->link);
	free(w);
}

static struct auth_ask ask_of(uint64_t id, const char *user, uint32_t client)
{
	struct auth_ask a = {
		.id = id, .service = "gatewayd", .listener = "lan", .client = addr_v4(0xc0000200 + client)};

	snprintf(a.user, sizeof a.user, "%s", user);
	snprintf(a.password, sizeof a.password, "secret of %s", user);
	return a;
}

static void ask(struct worker *w, uint64_t id, const char *user, uint32_t client)
{
	struct auth_ask a = ask_of(id, user, client);
	uint8_t body[2048];
	struct wire_writer writer = wire_writer_on(body, sizeof body);

	auth_put_ask(&writer, &a);
	assert_int_equal(ipc_send_wire(w->link, IPC_AUTH_ASK, &writer), 0);
}

static void ask_with(struct worker *w, uint64_t id, const char *user, uint32_t client, const char *password)
{
	struct auth_ask a = ask_of(id, user, client);
	uint8_t body[2048];
	struct wire_writer writer = wire_writer_on(body, sizeof body);

	snprintf(a.password, sizeof a.password, "%s", password);
	auth_put_ask(&writer, &a);
	assert_int_equal(ipc_send_wire(w->link, IPC_AUTH_ASK, &writer), 0);
}

static void cancel(struct worker *w, uint64_t id)
{
	uint8_t body[16];
	struct wire_writer writer = wire_writer_on(body, sizeof body);

	auth_put_cancel(&writer, id);
	assert_int_equal(ipc_send_wire(w->link, IPC_AUTH_CANCEL, &writer), 0);
}

static void assert_answer(const struct worker *w, unsigned index, uint64_t id, enum auth_verdict verdict,
			  const char *reason)
{
	assert_true(index < w->n);
	assert_true(w->answers[index].id == id);
	assert_int_equal(w->answers[index].verdict, verdict);
	if (strstr(w->answers[index].reason, reason) == NULL)
		fail_msg("\"%s\" does not say \"%s\"", w->answers[index].reason, reason);
}

/* ---- children ---------------------------------------------------------------------------------------------------- */

static void on_ask(struct ipc *link, struct ipc_message *m, void *arg)
{
	struct child *c = arg;
	struct wire_reader r = wire_reader_on(m->body, m->len);

	(void)link;
	if (m->type == IPC_PAM_LOGIN_ASK) {
		assert_true(auth_get_login_ask(&r, &c->login));
		c->logins++;
		return;
	}
	if (m->type == IPC_PAM_GROUPS_ASK) {
		assert_true(auth_get_groups_ask(&r, &c->groups));
		c->group_asks++;
		return;
	}
	assert_int_equal(m->type, IPC_PAM_ASK);
	assert_true(c->n < KEPT);
	assert_true(auth_get_ask(&r, &c->asks[c->n]));
	c->n++;
}

static void on_child_end(struct ipc *link, void *arg)
{
	struct child *c = arg;

	(void)link;
	c->gone = true;
}

static struct child *child_new(struct gateway *g, uint16_t slot)
{
	struct child *c = calloc(1, sizeof *c);
	int fds[2];

	assert_non_null(c);
	assert_int_equal(ipc_pair(fds), 0);
	auth_master_add_child(g->master, slot, fds[0]);
	c->link = ipc_new(fds[1], ROLE_PAM, ROLE_AUTH, 0);
	ipc_attach(c->link, g->base, on_ask, on_child_end, c);
	return c;
}

static void child_free(struct child *c)
{
	ipc_free(&c->link);
	free(c);
}

static void answer(struct child *c, uint64_t id, enum auth_verdict verdict, const char *user)
{
	struct auth_answer a = {.id = id, .verdict = verdict};
	uint8_t body[16384];
	struct wire_writer writer = wire_writer_on(body, sizeof body);

	snprintf(a.user, sizeof a.user, "%s", user);
	if (verdict == AUTH_OK) {
		a.ngroups = 1;
		strcpy(a.groups[0], "staff");
	} else
		strcpy(a.reason, "wrong password");
	auth_put_answer(&writer, &a);
	assert_int_equal(ipc_send_wire(c->link, IPC_PAM_ANSWER, &writer), 0);
}

/* Grants what the child was asked last. */
static void grant(struct child *c)
{
	assert_true(c->n > 0);
	answer(c, c->asks[c->n - 1].id, AUTH_OK, c->asks[c->n - 1].user);
}

/* ---- what a peer that is not ours may send ----------------------------------------------------------------------- */

struct raw_header {
	uint16_t type, nfds;
	uint32_t len;
};

static void raw_send(int fd, unsigned type, const void *body, size_t len)
{
	uint8_t datagram[4096];
	struct raw_header h = {.type = (uint16_t)type, .len = (uint32_t)len};

	memcpy(datagram, &h, sizeof h);
	if (len > 0)
		memcpy(datagram + sizeof h, body, len);
	assert_int_equal(send(fd, datagram, sizeof h + len, MSG_NOSIGNAL), sizeof h + len);
}

static int raw_worker(struct gateway *g, uint16_t slot)
{
	int fds[2];

	assert_int_equal(ipc_pair(fds), 0);
	auth_master_add_worker(g->master, slot, fds[0]);
	return fds[1];
}

static int raw_child(struct gateway *g, uint16_t slot)
{
	int fds[2];

	assert_int_equal(ipc_pair(fds), 0);
	auth_master_add_child(g->master, slot, fds[0]);
	return fds[1];
}

/* True once the master has closed its end. */
static bool cut(int fd)
{
	uint8_t byte;

	return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* ---- tests: the plain case --------------------------------------------------------------------------------------- */

static void test_one_log_in(void **state)
{
	struct gateway *g = gateway_new(4, 8, LONG_MS);
	struct worker *w = worker_new(g, 0);
	struct child *c = child_new(g, 2);

	(void)state;
	ask(w, 41, "ann", 1);
	wait_for(g, c->n == 1);
	assert_string_equal(c->asks[0].user, "ann");
	assert_string_equal(c->asks[0].password, "secret of ann");
	assert_string_equal(c->asks[0].service, "gatewayd");
	assert_true(addr_equal(&c->asks[0].client, &(struct addr){ADDR_V4, {192, 0, 2, 1}}));
	answer(c, c->asks[0].id, AUTH_OK, "ann.canonical");
	wait_for(g, w->n == 1);
	assert_answer(w, 0, 41, AUTH_OK, "");
	assert_string_equal(w->answers[0].user, "ann.canonical");
	assert_int_equal(w->answers[0].ngroups, 1);
	assert_string_equal(w->answers[0].groups[0], "staff");
	ask(w, 42, "ann", 1);
	wait_for(g, c->n == 2);
	answer(c, c->asks[1].id, AUTH_DENIED, "ann");
	wait_for(g, w->n == 2);
	assert_answer(w, 1, 42, AUTH_DENIED, "wrong password");
	assert_int_equal(status(g, "asked"), 2);
	assert_int_equal(status(g, "ok"), 1);
	assert_int_equal(status(g, "denied"), 1);
	assert_int_equal(status(g, "failed"), 0);
	assert_int_equal(status(g, "children"), 1);
	assert_int_equal(status(g, "busy"), 0);
	worker_free(w);
	child_free(c);
	gateway_free(g);
}

/* Two workers use the same id; each gets the answer to its own question. */
static void test_ids_are_per_worker(void **state)
{
	struct gateway *g = gateway_new(8, 8, LONG_MS);
	struct worker *w0 = worker_new(g, 0), *w1 = worker_new(g, 1);
	struct child *c0 = child_new(g, 0), *c1 = child_new(g, 1);

	(void)state;
	ask(w0, 1, "ann", 1);
	wait_for(g, c0->n == 1);
	ask(w1, 1, "bob", 2);
	wait_for(g, c1->n == 1);
	assert_true(c0->asks[0].id != c1->asks[0].id);
	grant(c1);
	wait_for(g, w1->n == 1);
	assert_string_equal(w1->answers[0].user, "bob");
	assert_int_equal(w0->n, 0);
	grant(c0);
	wait_for(g, w0->n == 1);
	assert_string_equal(w0->answers[0].user, "ann");
	worker_free(w0);
	worker_free(w1);
	child_free(c0);
	child_free(c1);
	gateway_free(g);
}

/* ---- tests: whose turn it is ------------------------------------------------------------------------------------- */

static void test_fifo(void **state)
{
	static const char *const users[] = {"ann", "bob", "cat", "dan"};
	struct gateway *g = gateway_new(1, 8, LONG_MS);
	struct worker *w0 = worker_new(g, 0), *w1 = worker_new(g, 1);
	struct child *c = child_new(g, 0);

	(void)state;
	for (int i = 0; i < 4; i++) {
		ask(i % 2 == 0 ? w0 : w1, 10 + (uint64_t)i, users[i], (uint32_t)i);
		wait_for(g, status(g, "asked") == i + 1);
	}
	assert_int_equal(status(g, "queued"), 3);
	for (unsigned i = 0; i < 4; i++) {
		wait_for(g, c->n == i + 1);
		assert_string_equal(c->asks[i].user, users[i]);
		grant(c);
	}
	wait_for(g, w0->n == 2 && w1->n == 2);
	assert_answer(w0, 0, 10, AUTH_OK, "");
	assert_answer(w0, 1, 12, AUTH_OK, "");
	assert_answer(w1, 0, 11, AUTH_OK, "");
	assert_answer(w1, 1, 13, AUTH_OK, "");
	worker_free(w0);
	worker_free(w1);
	child_free(c);
	gateway_free(g);
}

/* Eight children: two for one user (in any case of letters), two for one client; those behind are not held up. */
static void quota(bool by_user)
{
	struct gateway *g = gateway_new(8, 16, LONG_MS);
	struct worker *w = worker_new(g, 0);
	struct child *c[8];

	for (uint16_t i = 0; i < 8; i++)
		c[i] = child_new(g, i);
	for (unsigned i = 0; i < 5; i++) {
		char user[8];

		snprintf(user, sizeof user, "u%u", i);
		ask(w, i, by_user ? (i % 2 ? "bob" : "BOB") : user, by_user ? i : 77);
	}
	wait_for(g, status(g, "asked") == 5);
	assert_int_equal(status(g, "busy"), 2);
	assert_int_equal(status(g, "queued"), 3);
	ask(w, 100, "ann", 50);
	wait_for(g, status(g, "busy") == 3);
	wait_for(g, c[2]->n == 1);
	assert_string_equal(c[2]->asks[0].user, "ann");
	/* One ends: the next in line of the same user or client, and only that one, begins. */
	wait_for(g, c[0]->n == 1 && c[1]->n == 1);
	grant(c[1]);
	wait_for(g, w->n == 1);
	wait_for(g, c[1]->n == 2);
	assert_string_equal(c[1]->asks[1].user, by_user ? "BOB" : "u2");
	assert_int_equal(status(g, "busy"), 3);
	assert_int_equal(status(g, "queued"), 2);
	grant(c[2]); /* another's end opens nothing for them */
	wait_for(g, w->n == 2);
	assert_answer(w, 1, 100, AUTH_OK, "");
	assert_int_equal(status(g, "busy"), 2);
	assert_int_equal(status(g, "queued"), 2);
	worker_free(w);
	for (int i = 0; i < 8; i++)
		child_free(c[i]);
	gateway_free(g);
}

static void test_quota_of_a_user(void **state)
{
	(void)state;
	quota(true);
}

static void test_quota_of_a_client(void **state)
{
	(void)state;
	quota(false);
}

/* With fewer than four children everybody may still use one. */
static void test_quota_is_at_least_one(void **state)
{
	struct gateway *g = gateway_new(2, 8, LONG_MS);
	struct worker *w = worker_new(g, 0);
	struct child *c0 = child_new(g, 0), *c1 = child_new(g, 1);

	(void)state;
	ask(w, 1, "bob", 1);
	ask(w, 2, "bob", 2);
	ask(w, 3, "ann", 3);
	wait_for(g, c0->n == 1 && c1->n == 1);
	assert_string_equal(c0->asks[0].user, "bob");
	assert_string_equal(c1->asks[0].user, "ann");
	grant(c1);
	wait_for(g, w->n == 1);
	assert_int_equal(status(g, "queued"), 1);
	grant(c0);
	wait_for(g, c0->n == 2);
	assert_string_equal(c0->asks[1].user, "bob");
	worker_free(w);
	child_free(c0);
	child_free(c1);
	gateway_free(g);
}

static void test_queue_full(void **state)
{
	struct gateway *g = gateway_new(1, 2, LONG_MS);
	struct worker *w = worker_new(g, 0);
	struct child *c = child_new(g, 0);

	(void)state;
	for (unsigned i = 1; i <= 4; i++) {
		char user[8];

		snprintf(user, sizeof user, "u%u", i);
		ask(w, i, user, i);
	}
	wait_for(g, w->n == 1);
	assert_answer(w, 0, 4, AUTH_FAILED, "queue is full");
	assert_string_equal(w->answers[0].user, "u4");
	assert_int_equal(status(g, "failed"), 1);
	for (unsigned i = 1; i <= 3; i++) {
		wait_for(g, c->n == i);
		grant(c);
		wait_for(g, w->n == i + 1);
		assert_answer(w, i, i, AUTH_OK, "");
	}
	worker_free(w);
	child_free(c);
	gateway_free(g);
}

/* Eight places: two for one user (in any case of letters), two for one client; others find room behind them. */
static void queue_share(bool by_user)
{
	struct gateway *g = gateway_new(1, 8, LONG_MS);
	struct worker *w = worker_new(g, 0);

	for (unsigned i = 0; i < 5; i++) {
		char user[8];

		snprintf(user, sizeof user, "u%u", i);
		ask(w, i, by_user ? (i % 2 ? "bob" : "BOB") : user, by_user ? i : 77);
	}
	wait_for(g, w->n == 3);
	for (unsigned i = 0; i < 3; i++)
		assert_answer(w, i, 2 + i, AUTH_FAILED,
			      by_user ? "this user has 2 log-ins waiting" : "this client has 2 log-ins waiting");
	assert_int_equal(status(g, "queued"), 2);
	ask(w, 100, "ann", 50);
	wait_for(g, status(g, "queued") == 3);
	cancel(w, 0); /* a place is free again for the same one */
	wait_for(g, status(g, "queued") == 2);
	ask(w, 101, by_user ? "Bob" : "dan", by_user ? 51 : 77);
	wait_for(g, status(g, "queued") == 3);
	assert_int_equal(w->n, 3);
	worker_free(w);
	gateway_free(g);
}

static void test_queue_share_of_a_user(void **state)
{
	(void)state;
	queue_share(true);
}

static void test_queue_share_of_a_client(void **state)
{
	(void)state;
	queue_share(false);
}

/* With fewer than four places everybody may still use one. */
static void test_queue_share_is_at_least_one(void **state)
{
	struct gateway *g = gateway_new(1, 3, LONG_MS);
	struct worker *w = worker_new(g, 0);

	(void)state;
	ask(w, 1, "bob", 1);
	ask(w, 2, "bob", 2);
	ask(w, 3, "ann", 1);
	ask(w, 4, "cat", 4);
	wait_for(g, w->n == 2 && status(g, "queued") == 2);
	assert_answer(w, 0, 2, AUTH_FAILED, "this user has 1 log-in waiting");
	assert_answer(w, 1, 3, AUTH_FAILED, "this client has 1 log-in waiting");
	worker_free(w);
	gateway_free(g);
}

/* Who need not wait needs no room in the queue. */
static void test_no_queue(void **state)
{
	struct gateway *g = gateway_new(1, 0, LONG_MS);
	struct worker *w = worker_new(g, 0);
	struct child *c = child_new(g, 0);

	(void)state;
	ask(w, 1, "ann", 1);
	ask(w, 2, "bob", 2);
	wait_for(g, w->n == 1);
	assert_answer(w, 0, 2, AUTH_FAILED, "queue is full");
	wait_for(g, c->n == 1);
	grant(c);
	wait_for(g, w->n == 2);
	assert_answer(w, 1, 1, AUTH_OK, "");
	worker_free(w);
	child_free(c);
	gateway_free(g);
}

/* ---- tests: deadlines -------------------------------------------------------------------------------------------- */

static void test_deadline_kills(void **state)
{
	struct gateway *g = gateway_new(4, 8, 1000);
	struct worker *w = worker_new(g, 0);
	struct child *c = child_new(g, 3);

	(void)state;
	ask(w, 1, "ann", 1);
	wait_for(g, w->n == 1);
	assert_int_equal(c->n, 1);
	assert_answer(w, 0, 1, AUTH_FAILED, "did not finish within 1000 ms");
	assert_string_equal(w->answers[0].user, "ann");
	assert_int_equal(g->kills, 1);
	assert_int_equal(g->last_kill, 3);
	assert_int_equal(status(g, "killed"), 1);
	assert_int_equal(status(g, "children"), 0);
	wait_for(g, c->gone); /* its link is closed: what it still says is not heard */
	child_free(c);
	c = child_new(g, 3);
	ask(w, 2, "ann", 1);
	wait_for(g, c->n == 1);
	grant(c);
	wait_for(g, w->n == 2);
	assert_answer(w, 1, 2, AUTH_OK, "");
	assert_int_equal(g->kills, 1);
	worker_free(w);
	child_free(c);
	gateway_free(g);
}

static void test_deadline_of_waiting(void **state)
{
	struct gateway *g = gateway_new(4, 8, 50);
	struct worker *w = worker_new(g, 0);

	(void)state;
	ask(w, 1, "ann", 1);
	ask(w, 2, "bob", 2);
	wait_for(g, w->n == 2);
	assert_answer(w, 0, 1, AUTH_FAILED, "no authentication process was free");
	assert_answer(w, 1, 2, AUTH_FAILED, "no authentication process was free");
	assert_int_equal(g->kills, 0);
	assert_int_equal(status(g, "queued"), 0);
	worker_free(w);
	gateway_free(g);
}

/* The killed child's user gets the next child: the quota ends with the conversation. */
static void test_deadline_frees_quota(void **state)
{
	struct gateway *g = gateway_new(4, 8, 1000);
	struct worker *w = worker_new(g, 0);
	struct child *c0 = child_new(g, 0), *c1 = child_new(g, 1);

	(void)state;
	ask(w, 1, "bob", 1);
	wait_for(g, status(g, "busy") == 1);
	ask(w, 2, "bob", 1);
	cancel(w, 2);
	wait_for(g, g->kills == 1); /* ask 1 ran out of time */
	ask(w, 3, "bob", 1);
	wait_for(g, c1->n == 1);
	grant(c1);
	wait_for(g, w->n == 2);
	assert_answer(w, 1, 3, AUTH_OK, "");
	worker_free(w);
	child_free(c0);
	child_free(c1);
	gateway_free(g);
}

/* ---- tests: deaths ----------------------------------------------------------------------------------------------- */

static void test_child_death(void **state)
{
	struct gateway *g = gateway_new(1, 8, LONG_MS);
	struct worker *w = worker_new(g, 0);
	struct child *c = child_new(g, 0);

	(void)state;
	ask(w, 1, "ann", 1);
	ask(w, 2, "bob", 2);
	wait_for(g, c->n == 1);
	child_free(c);
	wait_for(g, w->n == 1);
	assert_answer(w, 0, 1, AUTH_FAILED, "ended during the log-in");
	assert_int_equal(g->kills, 0); /* it is dead: killing its slot would hit its successor */
	assert_int_equal(status(g, "children"), 0);
	assert_int_equal(status(g, "queued"), 1);
	c = child_new(g, 0);
	wait_for(g, c->n == 1);
	assert_string_equal(c->asks[0].user, "bob");
	grant(c);
	wait_for(g, w->n == 2);
	assert_answer(w, 1, 2, AUTH_OK, "");
	worker_free(w);
	child_free(c);
	gateway_free(g);
}

/* The successor's link may come before the end of the old one is seen. */
static void test_child_replaced(void **state)
{
	struct gateway *g = gateway_new(1, 8, LONG_MS);
	struct worker *w = worker_new(g, 0);
	struct child *old = child_new(g, 0), *c;

	(void)state;
	ask(w, 1, "ann", 1);
	wait_for(g, old->n == 1);
	c = child_new(g, 0);
	wait_for(g, w->n == 1);
	assert_answer(w, 0, 1, AUTH_FAILED, "ended during the log-in");
	wait_for(g, old->gone);
	ask(w, 2, "ann", 1);
	wait_for(g, c->n == 1);
	int fds[2];

	assert_int_equal(ipc_pair(fds), 0);
	auth_master_add_child(g->master, 1, fds[0]); /* there is no such slot */
	assert_true(cut(fds[1]));
	close(fds[1]);
	worker_free(w);
	child_free(old);
	child_free(c);
	gateway_free(g);
}

/* A worker's death drops what it has waiting and the answer to what runs; its successor's asks are its own. */
static void test_worker_death(void **state)
{
	struct gateway *g = gateway_new(1, 8, LONG_MS);
	struct worker *w = worker_new(g, 0), *other = worker_new(g, 1);
	struct child *c = child_new(g, 0);

	(void)state;
	ask(w, 1, "ann", 1);
	wait_for(g, c->n == 1);
	ask(w, 2, "bob", 2);
	ask(w, 3, "cat", 3);
	wait_for(g, status(g, "queued") == 2);
	ask(other, 1, "dan", 4);
	wait_for(g, status(g, "queued") == 3);
	worker_free(w);
	wait_for(g, status(g, "queued") == 1);
	assert_int_equal(status(g, "busy"), 1); /* the child is still at it */
	assert_int_equal(status(g, "cancelled"), 3);
	w = worker_new(g, 0);
	ask(w, 1, "eve", 5);
	wait_for(g, status(g, "queued") == 2);
	grant(c); /* ann's, for nobody */
	wait_for(g, c->n == 2);
	assert_string_equal(c->asks[1].user, "dan");
	assert_int_equal(w->n, 0);
	grant(c);
	wait_for(g, c->n == 3);
	assert_string_equal(c->asks[2].user, "eve");
	grant(c);
	wait_for(g, w->n == 1 && other->n == 1);
	assert_string_equal(w->answers[0].user, "eve");
	assert_string_equal(other->answers[0].user, "dan");
	assert_int_equal(status(g, "ok"), 2);
	worker_free(w);
	worker_free(other);
	child_free(c);
	gateway_free(g);
}

static void test_worker_replaced(void **state)
{
	struct gateway *g = gateway_new(1, 8, LONG_MS);
	struct worker *old = worker_new(g, 0), *w;

	(void)state;
	ask(old, 1, "ann", 1);
	wait_for(g, status(g, "queued") == 1);
	w = worker_new(g, 0);
	assert_int_equal(status(g, "queued"), 0);
	wait_for(g, old->gone);
	assert_int_equal(old->n, 0);
	worker_free(old);
	worker_free(w);
	gateway_free(g);
}

static void test_cancel(void **state)
{
	struct gateway *g = gateway_new(1, 8, LONG_MS);
	struct worker *w = worker_new(g, 0);
	struct child *c = child_new(g, 0);

	(void)state;
	ask(w, 1, "ann", 1);
	ask(w, 2, "bob", 2);
	ask(w, 3, "cat", 3);
	wait_for(g, c->n == 1 && status(g, "queued") == 2);
	cancel(w, 2);	/* waits: the child never hears of it */
	cancel(w, 1);	/* runs: its answer is dropped */
	cancel(w, 999); /* never was, or is answered already */
	wait_for(g, status(g, "cancelled") == 2);
	assert_int_equal(status(g, "queued"), 1);
	assert_int_equal(status(g, "busy"), 1);
	ask(w, 1, "dan", 4); /* the id is free again, though the child is at the old one */
	wait_for(g, status(g, "queued") == 2);
	grant(c);
	wait_for(g, c->n == 2);
	assert_string_equal(c->asks[1].user, "cat");
	grant(c);
	wait_for(g, c->n == 3);
	assert_string_equal(c->asks[2].user, "dan");
	grant(c);
	wait_for(g, w->n == 2);
	assert_answer(w, 0, 3, AUTH_OK, "");
	assert_answer(w, 1, 1, AUTH_OK, "");
	assert_string_equal(w->answers[1].user, "dan");
	worker_free(w);
	child_free(c);
	gateway_free(g);
}

/* ---- tests: hostile peers ---------------------------------------------------------------------------------------- */

static size_t ask_body(uint8_t *body, size_t size, uint64_t id)
{
	struct auth_ask a = ask_of(id, "eve", 9);
	struct wire_writer writer = wire_writer_on(body, size);

	auth_put_ask(&writer, &a);
	return writer.len;
}

enum hostile_worker { GARBAGE, WRONG_TYPE, MALFORMED_ASK, EMPTY_ASK, SAME_ID, MALFORMED_CANCEL, HOSTILE_WORKERS };

static void misbehave(int fd, enum hostile_worker how)
{
	uint8_t body[2048];
	size_t len = ask_body(body, sizeof body, 5);

	if (how == GARBAGE)
		assert_int_equal(send(fd, "garbage", 7, MSG_NOSIGNAL), 7);
	else if (how == WRONG_TYPE)
		raw_send(fd, IPC_PAM_ANSWER, body, len);
	else if (how == MALFORMED_ASK)
		raw_send(fd, IPC_AUTH_ASK, body, len - 1);
	else if (how == EMPTY_ASK)
		raw_send(fd, IPC_AUTH_ASK, NULL, 0);
	else if (how == SAME_ID) {
		raw_send(fd, IPC_AUTH_ASK, body, len);
		raw_send(fd, IPC_AUTH_ASK, body, len);
	} else
		raw_send(fd, IPC_AUTH_CANCEL, body, 7);
}

static void test_hostile_workers(void **state)
{
	struct gateway *g = gateway_new(1, 8, LONG_MS);
	struct worker *w = worker_new(g, 0);
	struct child *c = child_new(g, 0);

	(void)state;
	ask(w, 1, "ann", 1);
	wait_for(g, c->n == 1);
	for (int how = 0; how < HOSTILE_WORKERS; how++) {
		uint8_t body[2048];
		int fd = raw_worker(g, 1);

		raw_send(fd, IPC_AUTH_ASK, body, ask_body(body, sizeof body, 1000));
		wait_for(g, status(g, "queued") == 1);
		misbehave(fd, (enum hostile_worker)how);
		wait_for(g, cut(fd));
		assert_int_equal(status(g, "queued"), 0);
		assert_int_equal(g->violations_of[ROLE_WORKER], how + 1); /* its end is asked for, once */
		close(fd);
	}
	grant(c);
	wait_for(g, w->n == 1);
	assert_answer(w, 0, 1, AUTH_OK, "");
	assert_false(w->gone || c->gone);
	worker_free(w);
	child_free(c);
	gateway_free(g);
}

/* A worker that asks and asks but never reads is cut off before its answers fill our memory. */
static void test_deaf_worker(void **state)
{
	struct gateway *g = gateway_new(1, 0, LONG_MS);
	struct worker *w = worker_new(g, 0);
	int fd = raw_worker(g, 1);
	uint8_t batch[32768];
	bool over = false;

	(void)state;
	for (uint64_t id = 0; !over; id++) {
		size_t len = 0;

		while (len + 512 < sizeof batch) {
			struct raw_header h = {.type = IPC_AUTH_ASK};

			h.len = (uint32_t)ask_body(batch + len + sizeof h, sizeof batch - len - sizeof h, id++);
			memcpy(batch + len, &h, sizeof h);
			len += sizeof h + h.len;
		}
		assert_true(id < 1000000);
		while (send(fd, batch, len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
			over = errno != EAGAIN;
			if (over)
				break;
			event_base_loop(g->base, EVLOOP_NONBLOCK);
		}
	}
	ask(w, 1, "ann", 1);
	wait_for(g, w->n == 1);
	assert_answer(w, 0, 1, AUTH_FAILED, "queue is full");
	assert_int_equal(g->violations_of[ROLE_WORKER], 1);
	close(fd);
	worker_free(w);
	gateway_free(g);
}

enum hostile_child { CHILD_GARBAGE, CHILD_MALFORMED, CHILD_WRONG_ID, CHILD_TWICE, CHILD_UNASKED, HOSTILE_CHILDREN };

static size_t answer_body(uint8_t *body, size_t size, uint64_t id)
{
	struct auth_answer a = {.id = id, .verdict = AUTH_OK, .user = "root"};
	struct wire_writer writer = wire_writer_on(body, size);

	auth_put_answer(&writer, &a);
	return writer.len;
}

/* Reads the question that a raw child got: its id. */
static uint64_t question_id(struct gateway *g, int fd)
{
	uint8_t datagram[4096];
	struct auth_ask a;
	ssize_t n = -1;

	wait_for(g, (n = recv(fd, datagram, sizeof datagram, MSG_DONTWAIT)) > 0);
	struct wire_reader r =
		wire_reader_on(datagram + sizeof(struct raw_header), (size_t)n - sizeof(struct raw_header));

	assert_true(auth_get_ask(&r, &a));
	return a.id;
}

static void test_hostile_children(void **state)
{
	struct gateway *g = gateway_new(8, 8, LONG_MS);
	struct worker *w = worker_new(g, 0);
	struct child *sound = child_new(g, 0);
	unsigned kills = 0;

	(void)state;
	ask(w, 1000, "ann", 1);
	wait_for(g, sound->n == 1);
	for (int how = 0; how < HOSTILE_CHILDREN; how++) {
		int fd = raw_child(g, 5);
		uint8_t body[2048];
		unsigned before = w->n;
		uint64_t id = 0;

		if (how != CHILD_UNASKED) {
			ask(w, (uint64_t)how, "bob", 2);
			id = question_id(g, fd);
		}
		size_t len = answer_body(body, sizeof body, how == CHILD_WRONG_ID ? id + 1 : id);

		if (how == CHILD_GARBAGE)
			assert_int_equal(send(fd, "garbage", 7, MSG_NOSIGNAL), 7);
		else
			raw_send(fd, IPC_PAM_ANSWER, body, how == CHILD_MALFORMED ? len - 1 : len);
		if (how == CHILD_TWICE)
			raw_send(fd, IPC_PAM_ANSWER, body, len);
		wait_for(g, cut(fd));
		if (how != CHILD_UNASKED)
			wait_for(g, w->n == before + 1);
		if (how == CHILD_TWICE)
			assert_answer(w, before, (uint64_t)how, AUTH_OK, "");
		else if (how != CHILD_UNASKED)
			assert_answer(w, before, (uint64_t)how, AUTH_FAILED, "authentication process");
		/* Its end is asked for once, though it broke the protocol in two ways. */
		assert_int_equal(g->violations_of[ROLE_PAM] + g->kills, ++kills);
		assert_int_equal(status(g, "killed"), kills);
		close(fd);
	}
	grant(sound);
	wait_for(g, w->answers[w->n - 1].id == 1000);
	assert_answer(w, w->n - 1, 1000, AUTH_OK, "");
	worker_free(w);
	child_free(sound);
	gateway_free(g);
}

static void test_free_with_all_in_flight(void **state)
{
	struct gateway *g = gateway_new(4, 8, LONG_MS);
	struct worker *w = worker_new(g, 0);
	struct child *c = child_new(g, 0);

	(void)state;
	for (unsigned i = 0; i < 6; i++)
		ask(w, i, "ann", i);
	wait_for(g, status(g, "asked") == 6);
	auth_master_free(&g->master);
	worker_free(w);
	child_free(c);
	gateway_free(g);
}

/* ---- tests: what is remembered, and whose conversation serves others ------------------------------------------------- */

static struct gateway *remembering(unsigned children)
{
	return gateway_with((struct auth_master_options){
		.children = children, .queue_max = 40, .deadline_ms = LONG_MS, .remember_ms = LONG_MS, .remember_max = 100});
}

static void test_equal_asks_share_a_conversation(void **state)
{
	struct gateway *g = remembering(4);
	struct worker *w = worker_new(g, 0), *other = worker_new(g, 1);
	struct child *c = child_new(g, 0), *d = child_new(g, 1);

	(void)state;
	for (uint64_t i = 1; i <= 5; i++) {
		ask(w, i, "ann", 1);
		ask(other, i, "ann", 1);
	}
	wait_for(g, c->n + d->n == 1 && status(g, "joined") == 9);
	struct child *at_it = c->n == 1 ? c : d;

	grant(at_it);
	wait_for(g, w->n == 5 && other->n == 5);
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(w->answers[i].verdict, AUTH_OK);
		assert_string_equal(other->answers[i].groups[0], "staff");
	}
	/* And afterwards nobody is asked at all. */
	ask(w, 6, "ann", 1);
	wait_for(g, w->n == 6);
	assert_answer(w, 5, 6, AUTH_OK, "");
	assert_int_equal(c->n + d->n, 1);
	assert_int_equal(status(g, "conversations"), 1);
	assert_int_equal(status(g, "recalled"), 1);
	/* Another client, another password: others' questions. */
	ask(w, 7, "ann", 2);
	ask_with(w, 8, "ann", 1, "other");
	wait_for(g, c->n + d->n == 2 && status(g, "queued") == 1);
	worker_free(w);
	worker_free(other);
	child_free(c);
	child_free(d);
	gateway_free(g);
}

static void test_denial_is_shared_and_not_remembered(void **state)
{
	struct gateway *g = remembering(1);
	struct worker *w = worker_new(g, 0);
	struct child *c = child_new(g, 0);

	(void)state;
	ask(w, 1, "ann", 1);
	ask(w, 2, "ann", 1);
	wait_for(g, c->n == 1 && status(g, "joined") == 1);
	answer(c, c->asks[0].id, AUTH_DENIED, "ann");
	wait_for(g, w->n == 2);
	assert_int_equal(w->answers[0].verdict, AUTH_DENIED);
	assert_int_equal(w->answers[1].verdict, AUTH_DENIED);
	ask(w, 3, "ann", 1);
	wait_for(g, c->n == 2);
	worker_free(w);
	child_free(c);
	gateway_free(g);
}

/* One who leaves does not take the others' answer along; the last who leaves a queue ends what waits there. */
static void test_leaving_a_shared_conversation(void **state)
{
	struct gateway *g = remembering(1);
	struct worker *w = worker_new(g, 0);
	struct child *c = child_new(g, 0);

	(void)state;
	ask(w, 1, "ann", 1);
	ask(w, 2, "ann", 1);
	ask(w, 3, "bob", 2);
	ask(w, 4, "bob", 2);
	wait_for(g, c->n == 1 && status(g, "queued") == 1 && status(g, "joined") == 2);
	cancel(w, 1);
	cancel(w, 3);
	cancel(w, 4);
	wait_for(g, status(g, "cancelled") == 3);
	assert_int_equal(status(g, "queued"), 0);
	grant(c);
	wait_for(g, w->n == 1);
	assert_answer(w, 0, 2, AUTH_OK, "");
	worker_free(w);
	child_free(c);
	gateway_free(g);
}

static void test_shared_conversation_is_bounded(void **state)
{
	struct gateway *g = remembering(1);
	struct worker *w = worker_new(g, 0);
	struct child *c = child_new(g, 0);

	(void)state;
	for (uint64_t i = 1; i <= 11; i++)
		ask(w, i, "ann", 1);
	wait_for(g, w->n == 1);
	assert_answer(w, 0, 11, AUTH_FAILED, "like this one");
	grant(c);
	wait_for(g, w->n == 11);
	worker_free(w);
	child_free(c);
	gateway_free(g);
}

static void forget(struct gateway *g, const char *user)
{
	struct auth_command command = {.kind = AUTH_COMMAND_FORGET};

	snprintf(command.user, sizeof command.user, "%s", user);
	free(auth_master_command(g->master, &command));
}

/* What was being judged when all was to be forgotten is neither joined nor remembered. */
static void test_forgetting_reaches_what_is_under_way(void **state)
{
	struct gateway *g = remembering(8);
	struct worker *w = worker_new(g, 0);
	struct child *c = child_new(g, 0), *d = child_new(g, 1);

	(void)state;
	ask(w, 1, "ann", 1);
	wait_for(g, c->n + d->n == 1);
	forget(g, "ann");
	ask(w, 2, "ann", 1);
	wait_for(g, c->n == 1 && d->n == 1);
	struct child *first = strcmp(c->asks[0].user, "ann") == 0 ? c : d, *second = first == c ? d : c;

	grant(first);
	wait_for(g, w->n == 1);
	assert_int_equal(status(g, "remembered") + status(g, "busy"), 1); /* whichever was first: one at most is remembered */
	grant(second);
	wait_for(g, w->n == 2);
	assert_int_equal(status(g, "remembered"), 1);
	forget(g, "bob");
	assert_int_equal(status(g, "remembered"), 1);
	forget(g, "");
	assert_int_equal(status(g, "remembered"), 0);
	worker_free(w);
	child_free(c);
	child_free(d);
	gateway_free(g);
}

/* ---- tests: guessing ---------------------------------------------------------------------------------------------- */

static struct gateway *throttling(unsigned children)
{
	return gateway_with((struct auth_master_options){
		.children = children,
		.queue_max = 400,
		.deadline_ms = LONG_MS,
		.throttle = {.user_failures = 3, .client_failures = 100, .first_ms = 50000, .max_ms = 100000, .max = 100}});
}

static void test_guesses_are_throttled(void **state)
{
	struct gateway *g = throttling(1);
	struct worker *w = worker_new(g, 0);
	struct child *c = child_new(g, 0);
	char password[32];

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		snprintf(password, sizeof password, "guess%u", i);
		ask_with(w, i + 1, "ann", 1, password);
		wait_for(g, c->n == i + 1);
		answer(c, c->asks[i].id, AUTH_DENIED, "ann");
		wait_for(g, w->n == i + 1);
	}
	assert_answer(w, 3, 4, AUTH_DENIED, "judged in 50 s");
	ask_with(w, 5, "Ann", 1, "right");
	wait_for(g, w->n == 5);
	assert_answer(w, 4, 5, AUTH_THROTTLED, "too many");
	assert_int_equal(c->n, 4);
	/* From elsewhere, ann is judged. */
	ask(w, 6, "ann", 2);
	wait_for(g, c->n == 5);
	grant(c);
	wait_for(g, w->n == 6);
	assert_answer(w, 5, 6, AUTH_OK, "");
	worker_free(w);
	child_free(c);
	gateway_free(g);
}

/* Guesses side by side are bounded by what is free of charge, and who waits is looked at again when the turn comes. */
/* A program with an old password: no guess, and not one conversation after the other. */
static void test_same_password_again(void **state)
{
	struct gateway *g = throttling(1);
	struct worker *w = worker_new(g, 0);
	struct child *c = child_new(g, 0);

	(void)state;
	ask_with(w, 1, "ann", 1, "old");
	wait_for(g, c->n == 1);
	answer(c, c->asks[0].id, AUTH_DENIED, "ann");
	wait_for(g, w->n == 1);
	for (unsigned i = 1; i < 20; i++) {
		ask_with(w, i + 1, "ann", 1, "old");
		wait_for(g, w->n == i + 1);
		assert_answer(w, i, i + 1, AUTH_DENIED, "the same password was denied a moment ago");
	}
	assert_int_equal(c->n, 1);
	ask_with(w, 30, "ann", 1, "new");
	wait_for(g, c->n == 2);
	grant(c);
	wait_for(g, w->n == 21);
	assert_answer(w, 20, 30, AUTH_OK, "");
	ask_with(w, 31, "ann", 1, "old"); /* a success ends it */
	wait_for(g, c->n == 3);
	answer(c, c->asks[2].id, AUTH_DENIED, "ann");
	wait_for(g, w->n == 22);
	worker_free(w);
	child_free(c);
	gateway_free(g);
}

static void test_guesses_side_by_side(void **state)
{
	struct gateway *g = throttling(1);
	struct worker *w = worker_new(g, 0);
	struct child *c = child_new(g, 0);
	char password[32];
	unsigned denied = 0, throttled = 0, failed = 0;

	(void)state;
	for (unsigned i = 0; i < 20; i++) {
		snprintf(password, sizeof password, "guess%u", i);
		ask_with(w, i + 1, "ann", 1, password);
	}
	wait_for(g, w->n == 17);
	for (unsigned i = 0; i < 3; i++) {
		wait_for(g, c->n == i + 1);
		answer(c, c->asks[i].id, AUTH_DENIED, "ann");
	}
	wait_for(g, w->n == 20);
	ask_with(w, 21, "ann", 1, "fourth");
	wait_for(g, c->n == 4);
	ask_with(w, 22, "ann", 1, "fifth"); /* waits */
	wait_for(g, status(g, "queued") == 1);
	answer(c, c->asks[3].id, AUTH_DENIED, "ann");
	wait_for(g, w->n == 22);
	for (unsigned i = 0; i < w->n; i++) {
		denied += w->answers[i].verdict == AUTH_DENIED;
		throttled += w->answers[i].verdict == AUTH_THROTTLED;
		failed += w->answers[i].verdict == AUTH_FAILED;
	}
	assert_int_equal(denied, 4);
	assert_int_equal(throttled, 1);
	assert_int_equal(failed, 17);
	assert_int_equal(c->n, 4);
	worker_free(w);
	child_free(c);
	gateway_free(g);
}

/* Guesses from everywhere fill the user's share of the queue: where the user is known, there is room, and the first turn. */
static void test_known_user_passes_guesses(void **state)
{
	struct gateway *g = throttling(1);
	struct worker *w = worker_new(g, 0);
	struct child *c = child_new(g, 0);
	char password[32];

	(void)state;
	ask(w, 1, "ann", 200);
	wait_for(g, c->n == 1);
	grant(c);
	wait_for(g, w->n == 1);
	for (unsigned i = 0; i < 150; i++) {
		snprintf(password, sizeof password, "guess%u", i);
		ask_with(w, i + 2, "ann", i, password);
	}
	wait_for(g, status(g, "queued") == 100); /* her share; the others are refused */
	ask_with(w, 1000, "ann", 200, "also right");
	wait_for(g, status(g, "queued") == 101);
	answer(c, c->asks[1].id, AUTH_DENIED, "ann");
	wait_for(g, c->n == 3);
	assert_string_equal(c->asks[2].password, "also right");
	worker_free(w);
	child_free(c);
	gateway_free(g);
}

static void test_commands(void **state)
{
	struct gateway *g = throttling(1);
	struct worker *w = worker_new(g, 0);
	struct child *c = child_new(g, 0);
	struct auth_command command = {.kind = AUTH_COMMAND_LIST};
	char password[32];

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		snprintf(password, sizeof password, "guess%u", i);
		ask_with(w, i + 1, "ann", 1, password);
		wait_for(g, c->n == i + 1);
		answer(c, c->asks[i].id, AUTH_DENIED, "ann");
		wait_for(g, w->n == i + 1);
	}
	char *text = auth_master_command(g->master, &command);
	json_t *o = json_loads(text, 0, NULL), *first = json_array_get(json_object_get(o, "throttled"), 0);

	assert_string_equal(json_string_value(json_object_get(first, "client")), "192.0.2.1/32");
	assert_string_equal(json_string_value(json_object_get(first, "user")), "ann");
	assert_int_equal(json_integer_value(json_object_get(first, "failures")), 4);
	assert_true(json_integer_value(json_object_get(first, "wait_ms")) > 0);
	json_decref(o);
	free(text);
	command.kind = AUTH_COMMAND_UNLOCK;
	strcpy(command.user, "ann");
	text = auth_master_command(g->master, &command);
	assert_string_equal(text, "{\"unlocked\":1}");
	free(text);
	ask_with(w, 9, "ann", 1, "again");
	wait_for(g, c->n == 5);
	worker_free(w);
	child_free(c);
	gateway_free(g);
}

/* ---- tests: how many children ---------------------------------------------------------------------------------------- */

static void on_resize(unsigned n, void *arg)
{
	((struct gateway *)arg)->wanted = n;
	((struct gateway *)arg)->resized++;
}

static void test_pool_grows_while_somebody_waits(void **state)
{
	struct gateway *g = gateway_with((struct auth_master_options){.children = 16,
									      .children_min = 1,
									      .idle_ms = 50,
									      .resize = on_resize,
									      .queue_max = 64,
									      .deadline_ms = LONG_MS});
	struct worker *w = worker_new(g, 0);
	struct child *c[3] = {child_new(g, 0)};

	(void)state;
	ask(w, 1, "a", 1);
	wait_for(g, c[0]->n == 1);
	assert_int_equal(g->wanted, 0); /* one is enough for one */
	ask(w, 2, "b", 2);
	wait_for(g, g->wanted == 2);
	ask(w, 3, "c", 3); /* no third while the second is on its way */
	wait_for(g, status(g, "queued") == 2);
	assert_int_equal(g->wanted, 2);
	c[1] = child_new(g, 1);
	wait_for(g, g->wanted == 3);
	c[2] = child_new(g, 2);
	wait_for(g, c[2]->n == 1);
	for (unsigned i = 0; i < 3; i++)
		grant(c[i]);
	wait_for(g, w->n == 3 && g->wanted == 1);
	assert_int_equal(status(g, "children"), 1);
	wait_for(g, c[1]->gone && c[2]->gone);
	assert_false(c[0]->gone);
	ask(w, 9, "d", 4);
	wait_for(g, c[0]->n == 2);
	worker_free(w);
	for (unsigned i = 0; i < 3; i++)
		child_free(c[i]);
	gateway_free(g);
}

/* One that takes its time to start is not called off, which would end it with the log-in that it is given when it comes. */
static void test_pool_waits_for_who_is_on_the_way(void **state)
{
	struct gateway *g = gateway_with((struct auth_master_options){.children = 4,
									      .children_min = 1,
									      .idle_ms = 1,
									      .resize = on_resize,
									      .queue_max = 64,
									      .deadline_ms = LONG_MS});
	struct worker *w = worker_new(g, 0);
	struct child *c[2] = {child_new(g, 0)};

	(void)state;
	ask(w, 1, "a", 1);
	wait_for(g, c[0]->n == 1);
	ask(w, 2, "b", 2);
	wait_for(g, g->wanted == 2);
	/* Looks of the pool later, the second has not come. */
	int64_t begun = clock_mono_us();

	wait_for(g, clock_mono_us() > begun + 20000);
	assert_int_equal(g->resized, 1);
	c[1] = child_new(g, 1);
	wait_for(g, c[1]->n == 1);
	assert_false(c[1]->gone);
	grant(c[1]);
	grant(c[0]);
	wait_for(g, g->wanted == 1 && c[1]->gone);
	/* Nor does one count that the supervisor started before it heard of that. */
	child_free(c[1]);
	c[1] = child_new(g, 1);
	wait_for(g, c[1]->gone);
	assert_int_equal(g->wanted, 1);
	worker_free(w);
	for (unsigned i = 0; i < 2; i++)
		child_free(c[i]);
	gateway_free(g);
}

/* Children that a master finds there count, whatever it would have asked for. */
static void test_pool_of_a_master_before(void **state)
{
	struct gateway *g = gateway_with((struct auth_master_options){.children = 4,
									      .children_min = 1,
									      .idle_ms = 50,
									      .resize = on_resize,
									      .queue_max = 64,
									      .deadline_ms = LONG_MS});
	struct child *c = child_new(g, 2);

	(void)state;
	wait_for(g, c->gone && g->wanted > 0);
	wait_for(g, g->wanted == 1);
	child_free(c);
	gateway_free(g);
}

/* ---- tests: names of uids ------------------------------------------------------------------------------------------ */

static void tell_login(struct child *c, uint64_t id, uint32_t uid, const char *name)
{
	struct auth_login l = {.id = id, .uid = uid};
	uint8_t body[96];
	struct wire_writer writer = wire_writer_on(body, sizeof body);

	snprintf(l.name, sizeof l.name, "%s", name);
	auth_put_login(&writer, &l);
	assert_int_equal(ipc_send_wire(c->link, IPC_PAM_LOGIN_TOLD, &writer), 0);
}

/* One after the other, each once, by a child that no log-in wants. */
static void test_logins_are_asked_for(void **state)
{
	struct gateway *g = gateway_new(1, 100, LONG_MS);
	struct worker *w = worker_new(g, 0);
	struct child *c = child_new(g, 0);

	(void)state;
	ask(w, 1, "ann", 1);
	wait_for(g, c->n == 1);
	auth_master_ask_login(g->master, 1000);
	auth_master_ask_login(g->master, 1000);
	auth_master_ask_login(g->master, 1001);
	ask(w, 2, "bob", 2);
	wait_for(g, status(g, "asked") == 2);
	assert_int_equal(c->logins, 0);
	grant(c);
	wait_for(g, c->n == 2); /* who logs in goes first */
	assert_int_equal(c->logins, 0);
	grant(c);
	wait_for(g, c->logins == 1);
	assert_int_equal(c->login.uid, 1000);
	ask(w, 3, "cid", 3);
	wait_for(g, status(g, "asked") == 3);
	assert_int_equal(c->n, 2); /* it is at a name */
	tell_login(c, c->login.id, 1000, "ann");
	wait_for(g, c->n == 3);
	assert_true(g->told == 1 && g->told_uid == 1000);
	assert_string_equal(g->told_name, "ann");
	grant(c);
	wait_for(g, c->logins == 2);
	assert_int_equal(c->login.uid, 1001);
	tell_login(c, c->login.id, 1001, "");
	wait_for(g, g->told == 2);
	assert_string_equal(g->told_name, "");
	worker_free(w);
	child_free(c);
	gateway_free(g);
}

/* A child that dies over it, and more than may wait: they are told that nobody knows. */
static void test_logins_that_are_not_told(void **state)
{
	struct gateway *g = gateway_new(1, 100, LONG_MS);
	struct child *c = child_new(g, 0);

	(void)state;
	auth_master_ask_login(g->master, 1);
	wait_for(g, c->logins == 1);
	child_free(c);
	wait_for(g, g->told == 1);
	assert_string_equal(g->told_name, "");
	assert_int_equal(g->kills, 0);
	for (uint32_t uid = 2; uid < 67; uid++)
		auth_master_ask_login(g->master, uid);
	assert_true(g->told == 2 && g->told_uid == 66);
	gateway_free(g);
}

/* A uid that has cost a child is left alone for a while, and no other; one that was told is asked about at once. */
static void test_logins_that_cost_a_child(void **state)
{
	struct gateway *g = gateway_new(1, 100, LONG_MS);
	struct child *c = child_new(g, 0);

	(void)state;
	auth_master_ask_login(g->master, 1000);
	wait_for(g, c->logins == 1);
	child_free(c);
	wait_for(g, g->told == 1);
	c = child_new(g, 0);
	auth_master_ask_login(g->master, 1000);
	assert_true(g->told == 2 && g->told_uid == 1000); /* at once, */
	assert_string_equal(g->told_name, "");
	for (unsigned i = 1; i <= 2; i++) {
		auth_master_ask_login(g->master, 1001);
		wait_for(g, c->logins == i);
		assert_int_equal(c->login.uid, 1001); /* and not by the child */
		tell_login(c, c->login.id, 1001, "");
		wait_for(g, g->told == 2 + i);
	}
	child_free(c);
	gateway_free(g);
}

/* Whoever tells what it was not asked for, or another's name, or one that is none, is cut off. */
static void test_hostile_logins(void **state)
{
	(void)state;
	for (unsigned how = 0; how < 4; how++) {
		struct gateway *g = gateway_new(1, 100, LONG_MS);
		struct child *c = child_new(g, 0);

		if (how > 0) {
			auth_master_ask_login(g->master, 1000);
			wait_for(g, c->logins == 1);
		}
		tell_login(c, how == 1 ? c->login.id + 1 : c->login.id, how == 2 ? 1001 : 1000, how == 3 ? "a (root)" : "ann");
		wait_for(g, c->gone);
		assert_int_equal(g->violations_of[ROLE_PAM], 1);
		assert_int_equal(g->told, how > 0);
		assert_string_equal(g->told_name, "");
		child_free(c);
		gateway_free(g);
	}
}

/* ---- tests: groups ------------------------------------------------------------------------------------------------- */

static void ask_groups(struct gateway *g, uint64_t id)
{
	struct auth_asked_groups asked = {.id = id, .n = 2, .names = {"hr", "eng"}};

	auth_master_ask_groups(g->master, &asked);
}

static void tell_groups(struct child *c, uint64_t id, uint16_t n)
{
	struct auth_asked_groups told = {.id = id, .n = n, .states = {AUTH_GROUP_KNOWN, AUTH_GROUP_ABSENT}};
	uint8_t body[256];
	struct wire_writer writer = wire_writer_on(body, sizeof body);

	auth_put_groups_told(&writer, &told);
	assert_int_equal(ipc_send_wire(c->link, IPC_PAM_GROUPS_TOLD, &writer), 0);
}

static bool is_untold(const struct gateway *g, uint64_t id)
{
	return g->groups.id == id && g->groups.n == 2 && g->groups.states[0] == AUTH_GROUP_UNTOLD &&
	       g->groups.states[1] == AUTH_GROUP_UNTOLD;
}

/* One after the other, by a child that no log-in wants; whoever is at one is at nothing else. */
static void test_groups_are_asked_for(void **state)
{
	struct gateway *g = gateway_new(1, 100, LONG_MS);
	struct worker *w = worker_new(g, 0);
	struct child *c = child_new(g, 0);

	(void)state;
	ask(w, 1, "ann", 1);
	wait_for(g, c->n == 1);
	ask_groups(g, 7);
	ask_groups(g, 8);
	auth_master_ask_login(g->master, 1000);
	assert_int_equal(c->group_asks, 0);
	grant(c);
	wait_for(g, c->logins == 1);
	tell_login(c, c->login.id, 1000, "ann");
	wait_for(g, c->group_asks == 1);
	assert_true(c->groups.n == 2 && c->groups.id != 7);
	assert_string_equal(c->groups.names[1], "eng");
	ask(w, 2, "bob", 2);
	wait_for(g, status(g, "asked") == 2);
	assert_int_equal(c->n, 1); /* it is at groups */
	tell_groups(c, c->groups.id, 2);
	wait_for(g, c->n == 2);
	assert_true(g->groups_told == 1 && g->groups.id == 7);
	assert_true(g->groups.states[0] == AUTH_GROUP_KNOWN && g->groups.states[1] == AUTH_GROUP_ABSENT);
	grant(c);
	wait_for(g, c->group_asks == 2);
	ask_groups(g, 9);
	child_free(c);
	wait_for(g, g->groups_told == 3);
	assert_true(is_untold(g, 9)); /* with the child of the one before it: no other is lost over it */
	for (uint64_t id = 10; id < 15; id++)
		ask_groups(g, id);
	assert_int_equal(g->groups_told, 4);
	assert_true(is_untold(g, 14)); /* more than may wait */
	worker_free(w);
	gateway_free(g);
}

static void test_hostile_groups(void **state)
{
	(void)state;
	for (unsigned how = 0; how < 3; how++) {
		struct gateway *g = gateway_new(1, 100, LONG_MS);
		struct child *c = child_new(g, 0);

		if (how > 0) {
			ask_groups(g, 7);
			wait_for(g, c->group_asks == 1);
		}
		tell_groups(c, how == 1 ? c->groups.id + 1 : c->groups.id, how == 2 ? 1 : 2);
		wait_for(g, c->gone);
		assert_int_equal(g->violations_of[ROLE_PAM], 1);
		assert_int_equal(g->groups_told, how > 0);
		assert_true(how == 0 || is_untold(g, 7));
		child_free(c);
		gateway_free(g);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_log_in),
		cmocka_unit_test(test_ids_are_per_worker),
		cmocka_unit_test(test_fifo),
		cmocka_unit_test(test_quota_of_a_user),
		cmocka_unit_test(test_quota_of_a_client),
		cmocka_unit_test(test_quota_is_at_least_one),
		cmocka_unit_test(test_queue_full),
		cmocka_unit_test(test_queue_share_of_a_user),
		cmocka_unit_test(test_queue_share_of_a_client),
		cmocka_unit_test(test_queue_share_is_at_least_one),
		cmocka_unit_test(test_no_queue),
		cmocka_unit_test(test_deadline_kills),
		cmocka_unit_test(test_deadline_of_waiting),
		cmocka_unit_test(test_deadline_frees_quota),
		cmocka_unit_test(test_child_death),
		cmocka_unit_test(test_child_replaced),
		cmocka_unit_test(test_worker_death),
		cmocka_unit_test(test_worker_replaced),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_hostile_workers),
		cmocka_unit_test(test_deaf_worker),
		cmocka_unit_test(test_hostile_children),
		cmocka_unit_test(test_free_with_all_in_flight),
		cmocka_unit_test(test_equal_asks_share_a_conversation),
		cmocka_unit_test(test_denial_is_shared_and_not_remembered),
		cmocka_unit_test(test_leaving_a_shared_conversation),
		cmocka_unit_test(test_shared_conversation_is_bounded),
		cmocka_unit_test(test_forgetting_reaches_what_is_under_way),
		cmocka_unit_test(test_guesses_are_throttled),
		cmocka_unit_test(test_same_password_again),
		cmocka_unit_test(test_guesses_side_by_side),
		cmocka_unit_test(test_known_user_passes_guesses),
		cmocka_unit_test(test_commands),
		cmocka_unit_test(test_pool_grows_while_somebody_waits),
		cmocka_unit_test(test_pool_waits_for_who_is_on_the_way),
		cmocka_unit_test(test_pool_of_a_master_before),
		cmocka_unit_test(test_logins_are_asked_for),
		cmocka_unit_test(test_logins_that_are_not_told),
		cmocka_unit_test(test_logins_that_cost_a_child),
		cmocka_unit_test(test_groups_are_asked_for),
		cmocka_unit_test(test_hostile_groups),
		cmocka_unit_test(test_hostile_logins),

	};

	log_init("test", LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
