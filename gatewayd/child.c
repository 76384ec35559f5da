#include "config.h"

#include "gatewayd/child.h"

#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/sealed.h"
#include "gatewayd/cpus.h"
#include "gatewayd/priority.h"
#include "gatewayd/privileges.h"
#include "gatewayd/sandbox/sandbox.h"

static int (*const entries[ROLE_COUNT])(struct child *) = {
	[ROLE_WORKER] = worker_main,
	[ROLE_AUTH] = auth_main,
	[ROLE_PAM] = pam_main,
	[ROLE_GSSAPI] = gssapi_main,
	[ROLE_RECORDER] = recorder_main,
	[ROLE_CONTROL] = control_main,
	[ROLE_COMPILER] = compiler_main,
	[ROLE_READER] = reader_main,
};

static const struct config *inherited_config(void)
{
	struct sealed s;
	struct err why;
	char *text, *errors = NULL;

	if (sealed_map(CHILD_FD_CONFIG, CONFIG_FILE_MAX, &s, &why) != 0)
		log_fatal("%s: this role is started by the supervisor, not by hand", why.text);
	close(CHILD_FD_CONFIG);
	/* The file's name precedes its text, NUL between. */
	const char *name = (const char *)s.data;
	const char *end = memchr(name, '\0', s.len);

	if (end == NULL)
		log_fatal("the inherited configuration is malformed");
	text = strndup(end + 1, s.len - (size_t)(end + 1 - name));
	if (text == NULL)
		log_fatal("out of memory for the configuration");
	struct config *config = config_parse(name, text, &errors);

	if (config == NULL)
		log_fatal("%s", errors);
	free(text);
	sealed_unmap(&s);
	return config;
}

/* No core file may hold a password; as many descriptors as we may have.  Whoever hands passwords and keys to libraries may lock all of
 * its memory, and nobody else. */
static void set_limits(enum role role)
{
	struct rlimit core = {0, 0}, files, locked;

	if (getrlimit(RLIMIT_MEMLOCK, &locked) == 0) {
		if (role == ROLE_PAM || role == ROLE_GSSAPI)
			locked.rlim_cur = locked.rlim_max;
		locked.rlim_max = locked.rlim_cur;
		setrlimit(RLIMIT_MEMLOCK, &locked);
	}
	setrlimit(RLIMIT_CORE, &core);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	prctl(PR_SET_DUMPABLE, 0);
}

static const char *user_of(const struct config *config, enum role role)
{
	return role == ROLE_PAM ? config->pam_user : config->user;
}

/* Where it cannot, it works all the same. */
static void stay_on_cpu(const struct child *c)
{
	unsigned workers = c->config->workers;
	struct cpus cpus;
	struct err why;

	if (cpus_read(&cpus, workers, &why) != 0 || cpus_stay(&cpus, workers, c->slot, &why) != 0)
		log_warning("%s", why.text);
}

int child_main(enum role role, uint16_t slot)
{
	static struct child c; /* it and what hangs on it live as long as the process: a leak checker finds them reachable */
	struct err why;
	char who[32], title[40];

	c.role = role;
	c.slot = slot;
	snprintf(who, sizeof who, role == ROLE_WORKER || role == ROLE_PAM ? "%s/%u" : "%s", role_name(role), (unsigned)slot);
	snprintf(title, sizeof title, "gw-%s", who);
	prctl(PR_SET_NAME, title); /* cut to 15 bytes by the kernel */
	log_init(who, LOG_INFO);
	c.config = inherited_config();
	log_init(who, c.config->log_level);
	clock_init();
	signal(SIGPIPE, SIG_IGN);
	signal(SIGINT, SIG_IGN); /* Ctrl-C reaches the whole terminal group; the supervisor decides */
	signal(SIGHUP, SIG_IGN);
	if (role != ROLE_PAM) {
		signal(SIGTERM, SIG_IGN); /* sent to the whole group, too: whoever must record first is told by STOP */
		signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error like a full disk, and no death */
	}
	/* Programs that PAM modules run get nothing of ours. */
	fcntl(CHILD_FD_SUPERVISOR, F_SETFD, FD_CLOEXEC);
	fcntl(CHILD_FD_CLOCK, F_SETFD, FD_CLOEXEC);
	c.supervisor = ipc_new(CHILD_FD_SUPERVISOR, role, ROLE_SUPERVISOR, 0);
	if (role == ROLE_GSSAPI && gssapi_prepare(c.config, &why) != 0)
		child_unusable(&c, why.text);
	if (role == ROLE_COMPILER || role == ROLE_READER)
		priority_aside();
	if (role == ROLE_WORKER && c.config->cpu_local)
		stay_on_cpu(&c);
	if (privileges_drop(user_of(c.config, role), &why) != 0)
		log_fatal("%s", why.text);
	set_limits(role);
	/* The recorder outlives the others by a moment, to write what it has been given. */
	if (role != ROLE_RECORDER)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	c.base = event_base_new();
	if (c.base == NULL)
		log_fatal("cannot make an event loop");
	return entries[role](&c);
}

/* For status: the first of a second, since an error seldom comes alone. */
static void tell_error(const char *message, void *arg)
{
	static int64_t told_us;
	struct child *c = arg;
	size_t len = strlen(message), max = ipc_body_max(IPC_LOGGED);

	if (c->supervisor == NULL || (told_us != 0 && clock_mono_us() - told_us < 1000000))
		return;
	told_us = clock_mono_us();
	ipc_send(c->supervisor, IPC_LOGGED, message, len < max ? len : max, NULL, 0);
}

static void on_supervisor_message(struct ipc *link, struct ipc_message *m, void *arg)
{
	struct child *c = arg;
	struct wire_reader r = wire_reader_on(m->body, m->len);

	(void)link;
	if (m->type == IPC_PEER) {
		unsigned role = wire_get_u8(&r);
		uint16_t slot = wire_get_u16(&r);

		if (!wire_done(&r) || role >= ROLE_COUNT || m->nfds != 1)
			log_fatal("the supervisor sent a malformed PEER");
		if (c->on_peer != NULL) {
			c->on_peer(c, (enum role)role, slot, m->fds[0]);
			m->fds[0] = -1;
		}
	} else if (m->type == IPC_STOP) {
		if (c->on_stop != NULL)
			c->on_stop(c);
		else
			child_leave(c);
	} else if (m->type == IPC_LOG_LEVEL) {
		unsigned level = wire_get_u8(&r);

		if (wire_done(&r) && level <= LOG_DEBUG)
			log_set_level((enum log_level)level);
	} else if (m->type == IPC_PING) {
		ipc_send(c->supervisor, IPC_PONG, NULL, 0, NULL, 0);
	} else if (c->on_message != NULL) {
		c->on_message(c, m);
	}
}

static void on_supervisor_gone(struct ipc *link, void *arg)
{
	struct child *c = arg;

	(void)link;
	/* When it goes, all end. */
	if (c->on_stop != NULL && c->role == ROLE_RECORDER)
		c->on_stop(c);
	else
		child_leave(c);
}

void child_ready(struct child *c)
{
	ipc_send(c->supervisor, IPC_READY, NULL, 0, NULL, 0);
}

void child_leave(struct child *c)
{
	event_base_loopexit(c->base, NULL);
}

/* A peer that broke a rule is ended and started afresh.  Those who may ask for that are the roles that meet no client. */
static void report_violation(enum role role, uint16_t slot, void *arg)
{
	struct child *c = arg;

	if (role != ROLE_SUPERVISOR && (c->role == ROLE_AUTH || c->role == ROLE_RECORDER || c->role == ROLE_CONTROL))
		child_ask_end(c, role, slot);
}

void child_ask_end(struct child *c, enum role role, uint16_t slot)
{
	uint8_t body[8];
	struct wire_writer w = wire_writer_on(body, sizeof body);

	wire_put_u8(&w, (uint8_t)role);
	wire_put_u16(&w, slot);
	ipc_send_wire(c->supervisor, IPC_KILL, &w);
}

int child_run(struct child *c)
{
	struct err why;

	if (!c->running) {
		c->running = true;
		ipc_attach(c->supervisor, c->base, on_supervisor_message, on_supervisor_gone, c);
		ipc_on_violation(report_violation, c);
		log_on_error(tell_error, c);
		if (c->config->sandbox && sandbox_enter(c->role, c->role == ROLE_WORKER && config_has_gssapi(c->config), &why) != 0)
			log_fatal("%s", why.text);
		if (!c->ready_later)
			child_ready(c);
	}
	event_base_dispatch(c->base);
	return 0;
}

int child_heed(struct child *c)
{
	return ipc_receive_blocking(c->supervisor, on_supervisor_message, c);
}

void child_unusable(struct child *c, const char *why)
{
	size_t len = strlen(why), max = ipc_body_max(IPC_UNUSABLE);

	/* The supervisor says it in the log. */
	if (ipc_send(c->supervisor, IPC_UNUSABLE, why, len < max ? len : max, NULL, 0) != 0 ||
	    ipc_flush_blocking(c->supervisor) != 0)
		log_error("%s", why);
	exit(EXIT_CONFIG);
}
