/* GSSAPI log-ins in a real master over real socket pairs; worker, GSSAPI child and conversation child are played here. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <event2/event.h>
#include <jansson.h>

#include "auth/auth.h"

#define PATIENCE_S 20
#define KEPT 32

struct peer {
	struct ipc *link;
	bool gone;
	unsigned n;
};

struct world {
	struct event_base *base;
	struct auth_master *master;
	struct peer worker, gssapi, pam;
	/* What came to the worker. */
	struct {
		uint64_t id;
		bool more;
		enum auth_verdict verdict;
		char user[AUTH_TEXT_MAX + 1], reason[AUTH_REASON_MAX + 1];
		unsigned ngroups;
		size_t token_len, context_len;
		uint8_t first;
	} answers[KEPT];
	/* What came to the GSSAPI child, and to the conversation child. */
	uint64_t steps[KEPT], dropped[KEPT];
	unsigned ndropped;
	struct auth_ask asks[KEPT];
	unsigned kills, violations;
	uint16_t killed; /* the slot, last */
	bool impatient;
};

static void on_worker_message(struct ipc *link, struct ipc_message *m, void *arg)
{
	static struct gss_answer a;
	struct world *w = arg;
	struct wire_reader r = wire_reader_on(m->body, m->len);

	(void)link;
	assert_int_equal(m->type, IPC_GSS_ANSWER);
	assert_true(gss_get_answer(&r, &a) && w->worker.n < KEPT);
	w->answers[w->worker.n].id = a.id;
	w->answers[w->worker.n].more = a.more;
	w->answers[w->worker.n].verdict = a.answer.verdict;
	strcpy(w->answers[w->worker.n].user, a.answer.user);
	strcpy(w->answers[w->worker.n].reason, a.answer.reason);
	w->answers[w->worker.n].ngroups = a.answer.ngroups;
	w->answers[w->worker.n].token_len = a.token_len;
	w->answers[w->worker.n].context_len = a.context_len;
	w->answers[w->worker.n++].first = a.context_len > 0 ? a.context[0] : 0;
}

static void on_gssapi_message(struct ipc *link, struct ipc_message *m, void *arg)
{
	struct world *w = arg;
	struct wire_reader r = wire_reader_on(m->body, m->len);
	struct gss_step step;

	(void)link;
	if (m->type == IPC_GSS_DROP) {
		assert_true(auth_get_cancel(&r, &w->dropped[w->ndropped++]));
		return;
	}
	assert_int_equal(m->type, IPC_GSS_STEP);
	assert_true(gss_get_step(&r, &step) && w->gssapi.n < KEPT);
	w->steps[w->gssapi.n++] = step.id;
}

static void on_pam_message(struct ipc *link, struct ipc_message *m, void *arg)
{
	struct world *w = arg;
	struct wire_reader r = wire_reader_on(m->body, m->len);

	(void)link;
	assert_int_equal(m->type, IPC_PAM_ASK);
	assert_true(auth_get_ask(&r, &w->asks[w->pam.n]));
	w->pam.n++;
}

static void on_worker_gone(struct ipc *link, void *arg)
{
	(void)link;
	((struct world *)arg)->worker.gone = true;
}

static void on_gssapi_gone(struct ipc *link, void *arg)
{
	(void)link;
	((struct world *)arg)->gssapi.gone = true;
}

static void on_pam_gone(struct ipc *link, void *arg)
{
	(void)link;
	((struct world *)arg)->pam.gone = true;
}

static void on_kill_gssapi(uint16_t slot, void *arg)
{
	((struct world *)arg)->kills++;
	((struct world *)arg)->killed = slot;
}

static void on_kill(uint16_t slot, void *arg)
{
	(void)slot, (void)arg;
}

static void on_violation(enum role role, uint16_t slot, void *arg)
{
	(void)role, (void)slot;
	((struct world *)arg)->violations++;
}

static void join_slot(struct world *w, struct peer *p, enum role role, uint16_t slot, ipc_handler *handler, ipc_gone *gone)
{
	int fds[2];

	assert_int_equal(ipc_pair(fds), 0);
	if (role == ROLE_WORKER)
		auth_master_add_worker(w->master, 0, fds[0]);
	else if (role == ROLE_GSSAPI)
		auth_master_add_gssapi(w->master, slot, fds[0]);
	else
		auth_master_add_child(w->master, 0, fds[0]);
	ipc_free(&p->link);
	p->link = ipc_new(fds[1], role, ROLE_AUTH, 0);
	p->gone = false;
	ipc_attach(p->link, w->base, handler, gone, w);
}

static void join(struct world *w, struct peer *p, enum role role, ipc_handler *handler, ipc_gone *gone)
{
	join_slot(w, p, role, 0, handler, gone);
}

static struct world *world_patient(unsigned step_ms, unsigned client_ms, unsigned contexts)
{
	struct world *w = calloc(1, sizeof *w);

	assert_non_null(w);
	ipc_on_violation(on_violation, w);
	w->base = event_base_new();
	w->master = auth_master_new(w->base, &(struct auth_master_options){
						     .children = 1,
						     .queue_max = 8,
						     .deadline_ms = 60000,
						     .gss_step_ms = step_ms,
						     .gss_client_ms = client_ms,
						     .kill_child = on_kill,
						     .kill_gssapi = on_kill_gssapi,
						     .gss_contexts_max = contexts,
						     .throttle = {.client_failures = 2, .first_ms = 60000, .max_ms = 60000, .max = 10},
						     .arg = w,
					     });
	join(w, &w->worker, ROLE_WORKER, on_worker_message, on_worker_gone);
	join(w, &w->gssapi, ROLE_GSSAPI, on_gssapi_message, on_gssapi_gone);
	join(w, &w->pam, ROLE_PAM, on_pam_message, on_pam_gone);
	return w;
}

static struct world *world_new(unsigned step_ms, unsigned contexts)
{
	return world_patient(step_ms, 60000, contexts);
}

static void world_free(struct world *w)
{
	ipc_free(&w->worker.link);
	ipc_free(&w->gssapi.link);
	ipc_free(&w->pam.link);
	auth_master_free(&w->master);
	event_base_free(w->base);
	free(w);
}

static void on_impatience(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	((struct world *)arg)->impatient = true;
}

#define wait_for(w, condition)                                                                                         \
	do {                                                                                                           \
		struct event *timer = event_new((w)->base, -1, 0, on_impatience, (w));                                 \
		struct timeval tv = {.tv_sec = PATIENCE_S};                                                            \
		bool holds;                                                                                            \
                                                                                                                       \
		event_add(timer, &tv);                                                                                 \
		while (!(holds = (condition)) && !(w)->impatient)                                                      \
			event_base_loop((w)->base, EVLOOP_ONCE);                                                       \
		event_free(timer);                                                                                     \
		if (!holds)                                                                                            \
			fail_msg("waited in vain for: %s", #condition);                                                \
	} while (0)

static int under_way(const struct world *w)
{
	char *text = auth_master_status(w->master);
	json_t *o = json_loads(text, 0, NULL);
	int n = (int)json_integer_value(json_object_get(o, "gss_under_way"));

	json_decref(o);
	free(text);
	return n;
}

static void ask(struct world *w, uint64_t id, unsigned client)
{
	uint8_t body[256];
	struct wire_writer out = wire_writer_on(body, sizeof body);
	struct gss_ask a = {.id = id,
			    .service = "gatewayd",
			    .listener = "lan",
			    .client = addr_v4(0xc0000200 + client),
			    .token = (const uint8_t *)"token",
			    .token_len = 5};

	gss_put_ask(&out, &a);
	assert_int_equal(ipc_send_wire(w->worker.link, IPC_GSS_ASK, &out), 0);
}

static void cancel(struct world *w, uint64_t id)
{
	uint8_t body[16];
	struct wire_writer out = wire_writer_on(body, sizeof body);

	auth_put_cancel(&out, id);
	assert_int_equal(ipc_send_wire(w->worker.link, IPC_AUTH_CANCEL, &out), 0);
}

static void step_answer(struct world *w, const struct gss_answer *a)
{
	static uint8_t body[98304];
	struct wire_writer out = wire_writer_on(body, sizeof body);

	gss_put_answer(&out, a);
	assert_int_equal(ipc_send_wire(w->gssapi.link, IPC_GSS_STEPPED, &out), 0);
}

static void more(struct world *w, uint64_t id)
{
	step_answer(w, &(struct gss_answer){.id = id, .more = true, .token = (const uint8_t *)"more", .token_len = 4});
}

static void establish(struct world *w, uint64_t id)
{
	static struct gss_answer a;

	a = (struct gss_answer){.id = id,
				.principal = "ann@R",
				.lifetime_s = 100,
				.token = (const uint8_t *)"last",
				.token_len = 4,
				.context = (const uint8_t *)"Context",
				.context_len = 7,
				.answer = {.verdict = AUTH_OK, .user = "ann"}};
	step_answer(w, &a);
}

static void deny(struct world *w, uint64_t id)
{
	step_answer(w, &(struct gss_answer){.id = id, .answer = {.verdict = AUTH_DENIED, .user = "-", .reason = "Kerberos: no"}});
}

static void account(struct world *w, enum auth_verdict verdict)
{
	static struct auth_answer a;
	uint8_t body[16384];
	struct wire_writer out = wire_writer_on(body, sizeof body);

	a = (struct auth_answer){.id = w->asks[w->pam.n - 1].id, .verdict = verdict, .user = "ann"};
	if (verdict == AUTH_OK) {
		a.ngroups = 1;
		strcpy(a.groups[0], "staff");
	} else
		strcpy(a.reason, "the account has expired");
	auth_put_answer(&out, &a);
	assert_int_equal(ipc_send_wire(w->pam.link, IPC_PAM_ANSWER, &out), 0);
}

static void test_two_tokens_and_an_account(void **state)
{
	struct world *w = world_new(60000, 8);

	(void)state;
	ask(w, 7, 1);
	wait_for(w, w->gssapi.n == 1);
	more(w, w->steps[0]);
	wait_for(w, w->worker.n == 1);
	assert_true(w->answers[0].more && w->answers[0].id == 7 && w->answers[0].token_len == 4);
	ask(w, 7, 1);
	wait_for(w, w->gssapi.n == 2);
	assert_true(w->steps[1] == w->steps[0]);
	establish(w, w->steps[1]);
	wait_for(w, w->pam.n == 1);
	assert_true(w->asks[0].vouched);
	assert_string_equal(w->asks[0].user, "ann");
	assert_string_equal(w->asks[0].service, "gatewayd");
	assert_int_equal(w->worker.n, 1); /* nothing is told before the account is known */
	account(w, AUTH_OK);
	wait_for(w, w->worker.n == 2);
	assert_int_equal(w->answers[1].verdict, AUTH_OK);
	assert_int_equal(w->answers[1].ngroups, 1);
	assert_int_equal(w->answers[1].context_len, 7);
	assert_int_equal(w->answers[1].first, 'C');
	assert_int_equal(under_way(w), 0);
	world_free(w);
}

static void test_account_says_no(void **state)
{
	struct world *w = world_new(60000, 8);

	(void)state;
	ask(w, 7, 1);
	wait_for(w, w->gssapi.n == 1);
	establish(w, w->steps[0]);
	wait_for(w, w->pam.n == 1);
	account(w, AUTH_DENIED);
	wait_for(w, w->worker.n == 1);
	assert_int_equal(w->answers[0].verdict, AUTH_DENIED);
	assert_string_equal(w->answers[0].reason, "the account has expired");
	assert_int_equal(w->answers[0].context_len, 0);
	assert_int_equal(w->answers[0].token_len, 0);
	world_free(w);
}

static void test_denials_slow_nobody_down(void **state)
{
	struct world *w = world_new(60000, 8);

	(void)state;
	for (unsigned i = 0; i < 6; i++) {
		ask(w, i + 1, 1);
		wait_for(w, w->gssapi.n == i + 1);
		deny(w, w->steps[i]);
		wait_for(w, w->worker.n == i + 1);
		assert_int_equal(w->answers[i].verdict, AUTH_DENIED);
		assert_string_equal(w->answers[i].reason, "Kerberos: no");
	}
	ask(w, 9, 1);
	wait_for(w, w->gssapi.n == 7);
	world_free(w);
}

static void test_leaving(void **state)
{
	struct world *w = world_new(60000, 8);

	(void)state;
	ask(w, 1, 1); /* at the child */
	wait_for(w, w->gssapi.n == 1);
	cancel(w, 1);
	wait_for(w, w->ndropped == 1);
	assert_true(w->dropped[0] == w->steps[0]);
	establish(w, w->steps[0]); /* late: of nobody */
	ask(w, 2, 2);		   /* at the client */
	wait_for(w, w->gssapi.n == 2);
	more(w, w->steps[1]);
	wait_for(w, w->worker.n == 1);
	cancel(w, 2);
	wait_for(w, w->ndropped == 2);
	ask(w, 3, 3); /* at the account */
	wait_for(w, w->gssapi.n == 3);
	establish(w, w->steps[2]);
	wait_for(w, w->pam.n == 1);
	cancel(w, 3);
	wait_for(w, under_way(w) == 0);
	account(w, AUTH_OK);
	ask(w, 4, 4); /* and with all of its kind */
	wait_for(w, w->gssapi.n == 4);
	ipc_free(&w->worker.link);
	wait_for(w, w->ndropped == 3 && under_way(w) == 0);
	assert_int_equal(w->worker.n, 1);
	assert_int_equal(w->violations, 0);
	world_free(w);
}

static void test_share_of_a_client(void **state)
{
	struct world *w = world_new(60000, 8);

	(void)state;
	for (unsigned i = 1; i <= 3; i++)
		ask(w, i, 1);
	wait_for(w, w->worker.n == 1);
	assert_int_equal(w->answers[0].id, 3);
	assert_non_null(strstr(w->answers[0].reason, "its share"));
	for (unsigned i = 4; i <= 9; i++)
		ask(w, i, i);
	wait_for(w, w->gssapi.n == 8);
	ask(w, 10, 10);
	wait_for(w, w->worker.n == 2);
	assert_non_null(strstr(w->answers[1].reason, "too many"));
	world_free(w);
}

static void test_child_dies_and_comes_back(void **state)
{
	struct world *w = world_new(60000, 8);

	(void)state;
	ask(w, 1, 1);
	ask(w, 2, 2);
	wait_for(w, w->gssapi.n == 2);
	establish(w, w->steps[1]);
	wait_for(w, w->pam.n == 1);
	ipc_free(&w->gssapi.link);
	wait_for(w, w->worker.n == 1);
	assert_int_equal(w->answers[0].id, 1);
	assert_int_equal(w->answers[0].verdict, AUTH_FAILED);
	ask(w, 3, 3); /* meanwhile */
	wait_for(w, w->worker.n == 2);
	assert_non_null(strstr(w->answers[1].reason, "not running"));
	account(w, AUTH_OK); /* who was established is not concerned */
	wait_for(w, w->worker.n == 3);
	assert_int_equal(w->answers[2].verdict, AUTH_OK);
	join(w, &w->gssapi, ROLE_GSSAPI, on_gssapi_message, on_gssapi_gone);
	ask(w, 4, 4);
	wait_for(w, w->gssapi.n == 3);
	world_free(w);
}

static void test_child_that_is_silent(void **state)
{
	struct world *w = world_new(50, 8);

	(void)state;
	ask(w, 1, 1);
	wait_for(w, w->worker.n == 1);
	assert_int_equal(w->answers[0].verdict, AUTH_FAILED);
	assert_int_equal(w->kills, 1);
	wait_for(w, w->gssapi.gone);
	world_free(w);
}

/* Tokens of a context go where it is, and new ones to the new child; the old one is ended when it has nothing left. */
static void test_another_takes_over(void **state)
{
	struct world *w = world_new(60000, 16);
	struct peer old;
	uint64_t at_client, at_child;

	(void)state;
	ask(w, 1, 1);
	ask(w, 2, 2);
	wait_for(w, w->gssapi.n == 2);
	at_client = w->steps[0];
	at_child = w->steps[1];
	more(w, at_client);
	wait_for(w, w->worker.n == 1);
	old = w->gssapi;
	w->gssapi.link = NULL;
	join_slot(w, &w->gssapi, ROLE_GSSAPI, 1, on_gssapi_message, on_gssapi_gone);
	assert_int_equal(w->kills, 0);
	ask(w, 3, 3);
	wait_for(w, w->gssapi.n == 3);
	/* What the new one says of contexts that are not its own is nobody's. */
	deny(w, at_client);
	deny(w, at_child);
	deny(w, w->steps[2]);
	wait_for(w, w->worker.n == 2);
	assert_int_equal(w->answers[1].id, 3);
	ask(w, 1, 1); /* the second token, to the old one */
	wait_for(w, w->gssapi.n == 4);
	assert_true(w->steps[3] == at_client);
	struct ipc *new = w->gssapi.link;

	w->gssapi.link = old.link;
	establish(w, at_client);
	wait_for(w, w->pam.n == 1);
	assert_int_equal(w->kills, 0);
	deny(w, at_child);
	wait_for(w, w->worker.n == 3);
	assert_int_equal(w->answers[2].id, 2);
	assert_int_equal(w->kills, 1);
	assert_int_equal(w->killed, 0);
	wait_for(w, w->gssapi.gone);
	account(w, AUTH_OK); /* who was established there is not concerned */
	wait_for(w, w->worker.n == 4);
	assert_int_equal(w->answers[3].verdict, AUTH_OK);
	ipc_free(&w->gssapi.link);
	w->gssapi.link = new;
	ask(w, 4, 4);
	wait_for(w, w->gssapi.n == 5);
	world_free(w);
}

static void test_another_takes_over_from_an_idle_one(void **state)
{
	struct world *w = world_new(60000, 8);

	(void)state;
	join_slot(w, &w->gssapi, ROLE_GSSAPI, 1, on_gssapi_message, on_gssapi_gone);
	assert_int_equal(w->kills, 1);
	assert_int_equal(w->killed, 0);
	ask(w, 1, 1);
	wait_for(w, w->gssapi.n == 1);
	world_free(w);
}

/* The old one dies, or hangs, with log-ins of its own: they are refused, and those of the new one go on. */
static void test_the_old_one_is_lost(void **state)
{
	(void)state;
	for (unsigned hangs = 0; hangs < 2; hangs++) {
		struct world *w = world_new(hangs ? 300 : 60000, 8);
		struct ipc *old;

		ask(w, 1, 1);
		wait_for(w, w->gssapi.n == 1);
		old = w->gssapi.link;
		w->gssapi.link = NULL;
		join_slot(w, &w->gssapi, ROLE_GSSAPI, 1, on_gssapi_message, on_gssapi_gone);
		if (!hangs)
			ipc_free(&old);
		wait_for(w, w->worker.n == 1);
		assert_int_equal(w->answers[0].verdict, AUTH_FAILED);
		assert_int_equal(w->kills, hangs);
		ask(w, 2, 2);
		wait_for(w, w->gssapi.n == 2);
		assert_int_equal(w->killed, 0);
		ipc_free(&old);
		world_free(w);
	}
}

/* A worker that neither brings the next token nor says that its client has left. */
static void test_context_that_nobody_comes_back_for(void **state)
{
	struct world *w = world_patient(60000, 50, 8);

	(void)state;
	ask(w, 1, 1);
	wait_for(w, w->gssapi.n == 1);
	more(w, w->steps[0]);
	wait_for(w, w->worker.n == 2);
	assert_true(w->answers[0].more);
	assert_int_equal(w->answers[1].verdict, AUTH_FAILED);
	assert_string_equal(w->answers[1].reason, "the next token did not come in time");
	wait_for(w, w->ndropped == 1);
	assert_true(w->dropped[0] == w->steps[0]);
	assert_int_equal(under_way(w), 0);
	assert_int_equal(w->kills, 0);
	world_free(w);
}

static void test_hostile_child(void **state)
{
	(void)state;
	for (unsigned kind = 0; kind < 4; kind++) {
		struct world *w = world_new(60000, 8);
		static struct gss_answer a;

		ask(w, 1, 1);
		wait_for(w, w->gssapi.n == 1);
		a = (struct gss_answer){.id = w->steps[0], .answer = {.verdict = AUTH_DENIED, .user = "-", .reason = "no"}};
		if (kind == 0)
			a.answer.verdict = AUTH_THROTTLED; /* not for it to say */
		else if (kind == 1)
			ipc_send(w->gssapi.link, IPC_GSS_STEPPED, "x", 1, NULL, 0);
		else if (kind == 3) { /* a ticket that has ended */
			a.answer = (struct auth_answer){.verdict = AUTH_OK, .user = "ann"};
			strcpy(a.principal, "p");
			a.context = (const uint8_t *)"c";
			a.context_len = 1;
		} else { /* groups are for others to tell */
			a.answer = (struct auth_answer){.verdict = AUTH_OK, .user = "ann", .ngroups = 1, .groups = {"admins"}};
			a.lifetime_s = 100;
			strcpy(a.principal, "p");
			a.context = (const uint8_t *)"c";
			a.context_len = 1;
		}
		if (kind != 1)
			step_answer(w, &a);
		wait_for(w, w->worker.n == 1);
		assert_int_equal(w->answers[0].verdict, AUTH_FAILED);
		assert_int_equal(w->violations, 1);
		assert_int_equal(w->pam.n, 0);
		world_free(w);
	}
}

static void test_hostile_worker(void **state)
{
	(void)state;
	for (unsigned kind = 0; kind < 3; kind++) {
		struct world *w = world_new(60000, kind == 2 ? 0 : 8);

		if (kind == 0) { /* two tokens at a time */
			ask(w, 1, 1);
			ask(w, 1, 1);
		} else if (kind == 1) {
			ipc_send(w->worker.link, IPC_GSS_ASK, "x", 1, NULL, 0);
		} else { /* where nobody offers it */
			ask(w, 1, 1);
		}
		wait_for(w, w->worker.gone);
		assert_int_equal(w->violations, 1);
		world_free(w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_two_tokens_and_an_account), cmocka_unit_test(test_account_says_no),
		cmocka_unit_test(test_denials_slow_nobody_down), cmocka_unit_test(test_leaving),
		cmocka_unit_test(test_share_of_a_client), cmocka_unit_test(test_child_dies_and_comes_back),
		cmocka_unit_test(test_child_that_is_silent), cmocka_unit_test(test_hostile_child),
		cmocka_unit_test(test_hostile_worker), cmocka_unit_test(test_another_takes_over),
		cmocka_unit_test(test_another_takes_over_from_an_idle_one), cmocka_unit_test(test_the_old_one_is_lost),
		cmocka_unit_test(test_context_that_nobody_comes_back_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
