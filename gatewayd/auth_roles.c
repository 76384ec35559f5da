/* The roles of auth/, joined to their supervisor: the master that never blocks, and its conversation children. */
#include "config.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "auth/auth.h"
#include "auth/gss.h"
#include "common/locked.h"
#include "common/log.h"
#include "gatewayd/child.h"

#define NEWS_WAITING_MAX 128

struct master {
	struct child *child;
	struct auth_master *auth;
	struct ipc *control;
	/* News of throttles while control is away, or does not read: the first ones are kept. */
	struct throttle_news waiting[NEWS_WAITING_MAX];
	size_t nwaiting;
	uint64_t lost;
};

static void kill_child(uint16_t slot, void *arg)
{
	struct master *m = arg;

	child_ask_end(m->child, ROLE_PAM, slot);
}

#define REMEMBERED_MAX 65536
#define THROTTLED_MAX 65536

static void resize(unsigned n, void *arg)
{
	struct master *m = arg;
	uint8_t body[8];
	struct wire_writer w = wire_writer_on(body, sizeof body);

	wire_put_u16(&w, (uint16_t)n);
	ipc_send_wire(m->child->supervisor, IPC_POOL, &w);
}

static void on_command(struct master *m, const struct ipc_message *message)
{
	struct wire_reader r = wire_reader_on(message->body, message->len);
	static uint8_t body[49152];
	struct wire_writer w = wire_writer_on(body, sizeof body);
	struct auth_command command;

	if (!auth_get_command(&r, &command)) {
		ipc_reject(m->control, "a malformed command");
		return;
	}
	char *text = auth_master_command(m->auth, &command);

	wire_put_u64(&w, command.id);
	wire_put_text(&w, text);
	ipc_send_wire(m->control, IPC_AUTH_COMMANDED, &w);
	free(text);
}

static void on_login_ask(struct master *m, const struct ipc_message *message)
{
	struct wire_reader r = wire_reader_on(message->body, message->len);
	struct auth_login login;

	if (auth_get_login_ask(&r, &login))
		auth_master_ask_login(m->auth, login.uid);
	else
		ipc_reject(m->control, "a malformed question for a name");
}

static void told_login(uint32_t uid, const char *name, void *arg)
{
	struct master *m = arg;
	struct auth_login login = {.uid = uid};
	uint8_t body[96];
	struct wire_writer w = wire_writer_on(body, sizeof body);

	snprintf(login.name, sizeof login.name, "%s", name);
	auth_put_login(&w, &login);
	if (m->control != NULL)
		ipc_send_wire(m->control, IPC_LOGIN_TOLD, &w);
}

static void on_groups_ask(struct master *m, const struct ipc_message *message)
{
	struct wire_reader r = wire_reader_on(message->body, message->len);
	struct auth_asked_groups asked;

	if (auth_get_groups_ask(&r, &asked))
		auth_master_ask_groups(m->auth, &asked);
	else
		ipc_reject(m->control, "a malformed question for groups");
}

static void told_groups(const struct auth_asked_groups *told, void *arg)
{
	struct master *m = arg;
	uint8_t body[256];
	struct wire_writer w = wire_writer_on(body, sizeof body);

	auth_put_groups_told(&w, told);
	if (m->control != NULL)
		ipc_send_wire(m->control, IPC_GROUPS_TOLD, &w);
}

static void kill_gssapi(uint16_t slot, void *arg)
{
	struct master *m = arg;

	child_ask_end(m->child, ROLE_GSSAPI, slot);
}

static void on_control_message(struct ipc *link, struct ipc_message *message, void *arg)
{
	struct master *m = arg;

	if (message->type == IPC_AUTH_COMMAND)
		on_command(m, message);
	if (message->type == IPC_LOGIN_ASK)
		on_login_ask(m, message);
	if (message->type == IPC_GROUPS_ASK)
		on_groups_ask(m, message);
	if (message->type != IPC_STATUS_ASK)
		return;
	char *status = auth_master_status(m->auth);

	if (status != NULL)
		ipc_send(link, IPC_STATUS, status, strlen(status), NULL, 0);
	free(status);
}

static void on_control_gone(struct ipc *link, void *arg)
{
	struct master *m = arg;

	(void)link;
	ipc_free(&m->control);
}

static bool send_news(struct master *m, struct throttle_news *news)
{
	uint8_t body[400];
	struct wire_writer w = wire_writer_on(body, sizeof body);

	news->untold += m->lost;
	auth_put_news(&w, news);
	if (m->control == NULL || ipc_send_wire(m->control, IPC_THROTTLED, &w) != 0) {
		news->untold -= m->lost;
		return false;
	}
	m->lost = 0;
	return true;
}

static void send_waiting(struct master *m)
{
	size_t sent = 0;

	while (sent < m->nwaiting && send_news(m, &m->waiting[sent]))
		sent++;
	m->nwaiting -= sent;
	memmove(m->waiting, m->waiting + sent, m->nwaiting * sizeof *m->waiting);
}

/* Control records it: to write into the audit is not for the role that log-ins pass through. */
static void on_news(const struct throttle_news *news, void *arg)
{
	struct master *m = arg;
	struct throttle_news copy = *news;

	send_waiting(m);
	if (m->nwaiting == 0 && send_news(m, &copy))
		return;
	if (m->nwaiting < NEWS_WAITING_MAX)
		m->waiting[m->nwaiting++] = copy;
	else
		m->lost += 1 + copy.untold;
}

static void on_peer(struct child *c, enum role peer, uint16_t slot, int fd)
{
	struct master *m = c->state;

	switch (peer) {
	case ROLE_WORKER:
		auth_master_add_worker(m->auth, slot, fd);
		return;
	case ROLE_PAM:
		auth_master_add_child(m->auth, slot, fd);
		return;
	case ROLE_GSSAPI:
		auth_master_add_gssapi(m->auth, slot, fd);
		return;
	case ROLE_CONTROL:
		ipc_free(&m->control);
		m->control = ipc_new(fd, ROLE_AUTH, peer, slot);
		ipc_attach(m->control, c->base, on_control_message, on_control_gone, m);
		send_waiting(m);
		return;
	default:
		log_fatal("the supervisor sent a link to %s", role_name(peer));
	}
}

static void on_supervisor(struct child *c, struct ipc_message *message)
{
	const struct master *m = c->state;

	if (message->type == IPC_FORGET_LOGINS)
		auth_master_forget(m->auth);
}

static struct throttle_options throttle_options(struct master *m, const struct config *config)
{
	return (struct throttle_options){
		.user_failures = config->throttle_user_failures,
		.client_failures = config->throttle_client_failures,
		.first_ms = config->throttle_first_wait_ms,
		.max_ms = config->throttle_longest_wait_ms,
		.bits_v4 = config->throttle_prefix_v4,
		.bits_v6 = config->throttle_prefix_v6,
		.max = THROTTLED_MAX,
		.news = on_news,
		.arg = m,
	};
}

int auth_main(struct child *c)
{
	static struct master m;
	struct limit_set limits[CONFIG_LISTENERS_MAX];

	for (size_t i = 0; i < c->config->nlisteners; i++)
		limits[i] = c->config->listeners[i].limits;
	m.child = c;
	m.auth = auth_master_new(c->base, &(struct auth_master_options){
						  .children = c->config->pam_processes,
						  .queue_max = c->config->pam_queue,
						  .deadline_ms = c->config->pam_timeout_ms,
						  .kill_child = kill_child,
						  .resize = resize,
						  .children_min = c->config->pam_processes_min,
						  .idle_ms = c->config->pam_idle_timeout_ms,
						  .kill_gssapi = kill_gssapi,
						  .told_login = told_login,
						  .told_groups = told_groups,
						  .gss_step_ms = c->config->gssapi_timeout_ms,
						  /* Its worker ends it first, unless that is no more what it was. */
						  .gss_client_ms = c->config->handshake_timeout_ms + 5000,
						  .gss_contexts_max =
							  config_has_gssapi(c->config) ? c->config->gssapi_contexts : 0,
						  .limits = limits,
						  .nlimits = c->config->nlisteners,
						  .limits_of_all = c->config->limits,
						  .remember_ms = c->config->remember_logins_ms,
						  .remember_max = REMEMBERED_MAX,
						  .throttle = throttle_options(&m, c->config),
						  .arg = &m,
					  });
	if (m.auth == NULL)
		log_fatal("out of memory for the authenticator");
	c->state = &m;
	c->on_peer = on_peer;
	c->on_message = on_supervisor;
	return child_run(c);
}

/* A conversation child waits for its link to the master, then leaves the loop and blocks in conversations.  The link to another
 * master may come before the end of this one is seen. */
static void on_master(struct child *c, enum role peer, uint16_t slot, int fd)
{
	struct ipc *unused = c->state;

	(void)slot;
	if (peer != ROLE_AUTH)
		log_fatal("the supervisor sent a link to %s", role_name(peer));
	ipc_free(&unused);
	c->state = ipc_new(fd, ROLE_PAM, ROLE_AUTH, 0);
	child_leave(c);
}

static const char *or_null(const char *path)
{
	return path[0] == '\0' ? NULL : path;
}

static int heed_supervisor(void *arg)
{
	return child_heed(arg);
}

/* Modules and libraries copy secrets to where they like.  Said once, not by each of many. */
static void lock_memory(const struct child *c, const char *what)
{
	struct rlimit limit = {0};

	int error = locked_process() == 0 ? 0 : errno;

	if (error == 0 || c->slot != 0)
		return;
	getrlimit(RLIMIT_MEMLOCK, &limit);
	log_warning("what %s may be swapped out: %s (RLIMIT_MEMLOCK is %llu bytes: raise it, or have no swap that is not encrypted)", what,
		    strerror(error), (unsigned long long)limit.rlim_cur);
}

int pam_main(struct child *c)
{
	struct auth_child_options options = {
		.pam_confdir = or_null(c->config->pam_config_dir),
		.fold_case = c->config->fold_user_case,
		.groups_file = or_null(c->config->pam_groups_file),
		.beside = c->supervisor,
		.heed = heed_supervisor,
		.arg = c,
	};

	lock_memory(c, "PAM modules copy of passwords");
	c->on_peer = on_master;
	for (;;) {
		int code = child_run(c);
		struct ipc *master = c->state;

		/* What is said so far (READY) leaves before a conversation blocks. */
		if (master == NULL || ipc_flush_blocking(c->supervisor) != 0)
			return code;
		c->state = NULL;
		code = auth_child_serve(master, &options);
		ipc_free(&master); /* it is gone: wait for the new one, unless that is here already */
		if (code != 0)
			return EXIT_FATAL;
	}
}

/* ---- the GSSAPI child ------------------------------------------------------------------------------------------------ */

struct gssapi {
	struct gss_server *server;
	struct ipc *master;
};

int gssapi_prepare(const struct config *config, struct err *why)
{
	/* In our directory: who sends a client's first token a second time is found out also after a restart. */
	setenv("KRB5RCACHENAME", "file2:replay", 1);
	return gss_server_read_keytab(config->gssapi_keytab, config->gssapi_krb5_conf, why);
}

static void take_step(struct gssapi *g, const struct gss_step *step)
{
	static uint8_t body[98304];
	struct wire_writer w = wire_writer_on(body, sizeof body);
	static struct gss_answer answer;

	gss_server_step(g->server, step, &answer);
	gss_put_answer(&w, &answer);
	gss_server_clean(g->server);
	if (ipc_send_wire(g->master, IPC_GSS_STEPPED, &w) != 0)
		log_error("the auth master does not take answers");
	explicit_bzero(body, w.len);
}

static void on_master_message(struct ipc *link, struct ipc_message *m, void *arg)
{
	struct gssapi *g = arg;
	struct wire_reader r = wire_reader_on(m->body, m->len);
	struct gss_step step;
	uint64_t id;

	if (m->type == IPC_GSS_STEP && gss_get_step(&r, &step))
		take_step(g, &step);
	else if (m->type == IPC_GSS_DROP && auth_get_cancel(&r, &id))
		gss_server_drop(g->server, id);
	else
		ipc_reject(link, "a malformed step");
}

static void on_master_gone(struct ipc *link, void *arg)
{
	struct gssapi *g = arg;

	(void)link;
	ipc_free(&g->master);
	gss_server_drop_all(g->server);
}

static void on_gssapi_peer(struct child *c, enum role peer, uint16_t slot, int fd)
{
	struct gssapi *g = c->state;

	(void)slot;
	if (peer != ROLE_AUTH)
		log_fatal("the supervisor sent a link to %s", role_name(peer));
	if (g->master != NULL)
		on_master_gone(g->master, g);
	g->master = ipc_new(fd, ROLE_GSSAPI, ROLE_AUTH, 0);
	ipc_attach(g->master, c->base, on_master_message, on_master_gone, g);
}

int gssapi_main(struct child *c)
{
	static struct gssapi g;
	struct gss_server_options options = {.contexts_max = c->config->gssapi_contexts, .fold_case = c->config->fold_user_case};
	struct err why;

	lock_memory(c, "libkrb5 copies of keys");
	g.server = gss_server_new(&options, &why);
	if (g.server == NULL)
		child_unusable(c, why.text);
	c->state = &g;
	c->on_peer = on_gssapi_peer;
	return child_run(c);
}
