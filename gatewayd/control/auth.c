/* Administrators' questions to the auth master: list, unlock, forget.  What changes something is recorded. */
#include "config.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/auth.h"
#include "common/log.h"
#include "common/text.h"
#include "gatewayd/control/internal.h"

#define PATIENCE_S 5

struct auth_job {
	LIST_ENTRY(auth_job) next;
	struct control *control;
	struct client *client; /* NULL: it has left */
	uint64_t id;
	struct event patience;
};

static const struct {
	const char *name;
	enum auth_command_kind kind;
} kinds[] = {{"list", AUTH_COMMAND_LIST}, {"unlock", AUTH_COMMAND_UNLOCK}, {"forget", AUTH_COMMAND_FORGET}};

static void job_end(struct auth_job *job, json_t *reply, const char *error)
{
	struct client *client = job->client;

	LIST_REMOVE(job, next);
	event_del(&job->patience);
	free(job);
	if (client == NULL)
		json_decref(reply);
	else if (reply != NULL)
		admin_reply(client, reply, -1);
	else
		admin_refuse(client, error);
}

static void on_patience_over(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	job_end(arg, NULL, "the authenticator does not answer");
}

struct peer *auth_peer(const struct control *c)
{
	struct peer *p;

	LIST_FOREACH (p, &c->peers, next)
		if (p->role == ROLE_AUTH)
			return p;
	return NULL;
}

static int send_command(struct control *c, const struct auth_command *command)
{
	struct peer *p = auth_peer(c);
	uint8_t body[600];
	struct wire_writer w = wire_writer_on(body, sizeof body);

	auth_put_command(&w, command);
	return p == NULL ? -1 : ipc_send_wire(p->link, IPC_AUTH_COMMAND, &w);
}

/* NULL, or what is wrong with the request. */
static const char *read_request(const json_t *request, struct auth_command *command, const char **verb)
{
	const char *user = json_string_value(json_object_get(request, "user"));
	const char *clients = json_string_value(json_object_get(request, "clients"));
	bool host_bits;

	*verb = json_string_value(json_object_get(request, "verb"));
	command->kind = AUTH_COMMANDS;
	for (size_t i = 0; *verb != NULL && i < sizeof kinds / sizeof *kinds; i++)
		if (strcmp(kinds[i].name, *verb) == 0)
			command->kind = kinds[i].kind;
	if (command->kind == AUTH_COMMANDS)
		return "the request's verb is list, unlock or forget";
	if (user != NULL && auth_text_refused((const uint8_t *)user, strlen(user)) != NULL)
		return "a user name has 1 to 255 bytes, none of them a control byte";
	if (clients != NULL && !prefix_parse(clients, &command->clients, &host_bits))
		return "clients are an address or a prefix like 10.0.0.0/8";
	if (user != NULL)
		strcpy(command->user, user);
	return NULL;
}

/* Whatever comes of it, that it was asked for is to be known. */
static void record(struct client *client, const struct auth_command *command, const char *verb)
{
	char reason[256], user[4 * AUTH_TEXT_MAX + 1], clients[PREFIX_TEXT_MAX] = "any client";

	if (command->kind == AUTH_COMMAND_LIST)
		return;
	text_escape(command->user, strlen(command->user), user, sizeof user);
	if (command->clients.addr.family != ADDR_NONE)
		prefix_format(&command->clients, clients);
	if (command->kind == AUTH_COMMAND_FORGET)
		snprintf(reason, sizeof reason, "auth %s: user %.200s", verb, user[0] == '\0' ? "(all)" : user);
	else
		snprintf(reason, sizeof reason, "auth %s: %s, user %.150s", verb, clients, user[0] == '\0' ? "(all)" : user);
	admin_record(client, AUDIT_ADMIN, reason);
}

void auth_command_ask(struct client *client, const json_t *request)
{
	struct control *c = admin_control(client);
	struct auth_command command = {.id = ++c->auth_job_id};
	const char *verb, *wrong = read_request(request, &command, &verb);

	if (wrong != NULL) {
		admin_refuse(client, wrong);
		return;
	}
	record(client, &command, verb);
	if (send_command(c, &command) != 0) {
		admin_refuse(client, "the authenticator is not running");
		return;
	}
	struct auth_job *job = calloc(1, sizeof *job);

	if (job == NULL)
		log_fatal("out of memory");
	job->control = c;
	job->client = client;
	job->id = command.id;
	LIST_INSERT_HEAD(&c->auth_jobs, job, next);
	evtimer_assign(&job->patience, c->child->base, on_patience_over, job);
	evtimer_add(&job->patience, &(struct timeval){.tv_sec = PATIENCE_S});
}

/* ---- throttles ---------------------------------------------------------------------------------------------------------- */

static void describe(const struct throttle_news *n, char *out, size_t size)
{
	static const char *const steps[THROTTLE_STEPS] = {
		[THROTTLE_BEGUN] = "begun", [THROTTLE_OVER] = "over", [THROTTLE_UNLOCKED] = "unlocked"};
	const char *what = n->user[0] == '\0' ? "log-ins" : "log-ins of this user";
	char network[PREFIX_TEXT_MAX];

	prefix_format(&n->network, network);
	if (n->step == THROTTLE_BEGUN)
		snprintf(out, size, "%s: %s from %s are refused for %.1f s, %u were denied", steps[n->step], what, network,
			 n->wait_ms / 1000.0, n->failures);
	else
		snprintf(out, size, "%s: %s from %s are judged again; %llu were refused in %.1f s", steps[n->step], what, network,
			 (unsigned long long)n->refused, (double)n->lasted_us / 1000000.0);
}

static void fill_detail(const struct throttle_news *n, char *out, size_t size)
{
	char network[PREFIX_TEXT_MAX];
	json_t *o = json_pack("{s:s,s:I}", "network", prefix_format(&n->network, network), "failures", (json_int_t)n->failures);

	if (n->step == THROTTLE_BEGUN)
		json_object_set_new(o, "wait_ms", json_integer(n->wait_ms));
	else
		json_object_set_new(o, "refused", json_integer((json_int_t)(n->refused & INT64_MAX)));
	if (n->untold > 0)
		json_object_set_new(o, "untold", json_integer((json_int_t)(n->untold & INT64_MAX)));
	out[json_dumpb(o, out, size - 1, JSON_COMPACT)] = '\0'; /* a few numbers: it fits */
	json_decref(o);
}

void auth_throttled(struct peer *p, struct ipc_message *m)
{
	static struct audit_event e;
	struct wire_reader r = wire_reader_on(m->body, m->len);
	struct throttle_news news;

	if (!auth_get_news(&r, &news)) {
		ipc_reject(p->link, "malformed news of a throttle");
		return;
	}
	memset(&e, 0, sizeof e);
	e.kind = AUDIT_THROTTLE;
	e.client.addr = news.network.addr;
	text_escape(news.user, strlen(news.user), e.user, sizeof e.user);
	describe(&news, e.reason, sizeof e.reason);
	fill_detail(&news, e.detail, sizeof e.detail);
	control_record_event(p->control, &e);
}

/* ---- answers ------------------------------------------------------------------------------------------------------------ */

void auth_client_gone(struct control *c, struct client *client)
{
	struct auth_job *job;

	LIST_FOREACH (job, &c->auth_jobs, next)
		if (job->client == client)
			job->client = NULL;
}

static void forgotten(struct control *c)
{
	c->forget_awaited = 0;
	policy_forgotten(c);
}

void auth_answered(struct peer *p, struct ipc_message *m)
{
	struct wire_reader r = wire_reader_on(m->body, m->len);
	uint64_t id = wire_get_u64(&r);
	size_t len;
	const uint8_t *text = wire_get_bytes(&r, ipc_body_max(IPC_AUTH_COMMANDED), &len);
	struct auth_job *job;

	if (!wire_done(&r) || text == NULL) {
		ipc_reject(p->link, "a malformed answer");
		return;
	}
	if (id == p->control->forget_awaited)
		forgotten(p->control);
	LIST_FOREACH (job, &p->control->auth_jobs, next)
		if (job->id == id) {
			json_t *reply = json_loadb((const char *)text, len, 0, NULL);

			if (json_is_object(reply))
				json_object_set_new(reply, "ok", json_true());
			job_end(job, json_is_object(reply) ? reply : NULL, "the authenticator's answer is malformed");
			return;
		}
}

void auth_peer_gone(struct peer *p)
{
	struct auth_job *job;

	if (p->role != ROLE_AUTH)
		return;
	forgotten(p->control); /* with it */
	while ((job = LIST_FIRST(&p->control->auth_jobs)) != NULL)
		job_end(job, NULL, "the authenticator ended");
}

void auth_forget_all(struct control *c)
{
	struct auth_command command = {.id = ++c->auth_job_id, .kind = AUTH_COMMAND_FORGET};

	/* An authenticator that is away remembers nothing. */
	if (send_command(c, &command) == 0)
		c->forget_awaited = command.id;
}
