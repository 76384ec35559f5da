#include "config.h"

#include "gatewayd/supervisor/supervisor.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/sealed.h"
#include "gatewayd/privileges.h"
#include "gatewayd/supervisor/internal.h"

#define LOCKED_BYTES (256ULL * 1024 * 1024)
#define STOP_DEADLINE_S 10 /* of each phase */

/* ---- stopping: workers first, so that they can record; the recorder last, so that it can write -------------- */

static bool belongs(enum role role, enum phase phase)
{
	switch (phase) {
	case PHASE_STOP_WORKERS:
		return role == ROLE_WORKER;
	case PHASE_STOP_OTHERS:
		return role != ROLE_WORKER && role != ROLE_RECORDER;
	case PHASE_STOP_RECORDER:
		return role == ROLE_RECORDER;
	default:
		return false;
	}
}

static bool any_running(const struct supervisor *s)
{
	struct process *p;

	TAILQ_FOREACH (p, &s->processes, next)
		if (p->pid > 0 && belongs(p->role, s->phase))
			return true;
	return false;
}

static void send_stop(struct supervisor *s)
{
	const struct process *recorder = process_find(s, ROLE_RECORDER, 0);
	/* After a start that failed, one that is not ready never will be, and nobody was granted anything yet. */
	bool recorded = recorder != NULL && recorder->pid > 0 && (recorder->ready || s->exit_code == 0);
	struct process *p;

	TAILQ_FOREACH (p, &s->processes, next) {
		if (p->pid == 0 || !belongs(p->role, s->phase))
			continue;
		/* A conversation may block for as long as its module likes, and holds nothing worth waiting for.  Without a
		 * recorder, the others would wait in vain for somebody to take their records. */
		if (p->role == ROLE_PAM || p->temporary || p->part != SERVES || p->link == NULL || !recorded)
			process_kill(p);
		else
			ipc_send(p->link, IPC_STOP, NULL, 0, NULL, 0);
	}
}

void supervisor_check_phase(struct supervisor *s)
{
	while (s->phase > PHASE_RUNNING && !any_running(s)) {
		if (s->phase == PHASE_STOP_RECORDER) {
			event_base_loopexit(s->base, NULL);
			return;
		}
		s->phase++;
		evtimer_add(&s->stop_deadline, &(struct timeval){.tv_sec = STOP_DEADLINE_S});
		send_stop(s);
	}
}

static void stop_all(struct supervisor *s, int exit_code)
{
	struct timeval deadline = {.tv_sec = STOP_DEADLINE_S};

	if (s->phase > PHASE_RUNNING)
		return;
	s->exit_code = exit_code;
	s->phase = PHASE_STOP_WORKERS;
	evtimer_add(&s->stop_deadline, &deadline);
	send_stop(s);
	supervisor_check_phase(s);
}

static void on_stop_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct supervisor *s = arg;
	struct timeval again = {.tv_sec = STOP_DEADLINE_S};
	struct process *p;

	(void)fd, (void)what;
	/* Only those whose turn it is: the healthy ones after them still have records to write. */
	evtimer_add(&s->stop_deadline, &again);
	TAILQ_FOREACH (p, &s->processes, next)
		if (p->pid > 0 && belongs(p->role, s->phase)) {
			log_error("%s/%u does not stop and is killed", role_name(p->role), (unsigned)p->slot);
			process_kill(p);
		}
}

/* ---- events ------------------------------------------------------------------------------------------------------- */

void supervisor_give_up(struct supervisor *s, const struct process *p, const char *why)
{
	if (s->phase > PHASE_RUNNING)
		return; /* one clear line: what follows from the first fault is no news */
	if (why != NULL)
		log_error("%s", why);
	if (s->phase != PHASE_STARTING)
		return; /* it is restarted, with back-off: the cause may pass */
	if (why == NULL)
		log_error("%s/%u ended during the start (%s): gatewayd does not start", role_name(p->role), (unsigned)p->slot,
			  p->last_end);
	stop_all(s, EXIT_FATAL);
}

static void announce(const struct supervisor *s)
{
	char text[ENDPOINT_TEXT_MAX];

	for (size_t i = 0; i < s->config->nlisteners; i++)
		for (size_t k = 0; k < s->config->listeners[i].naddresses; k++)
			log_info("listener '%s' on %s", s->config->listeners[i].name,
				 endpoint_format(&s->config->listeners[i].addresses[k], text));
	log_info("gatewayd is ready");
}

void supervisor_child_ready(struct process *p)
{
	struct supervisor *s = p->sup;
	struct process *other;

	p->ready = true;
	if (p->part == ON_TRIAL) {
		gssapi_promote(p);
		return;
	}
	if (p->role == ROLE_WORKER)
		listen_rebalance(s);
	if (s->phase != PHASE_STARTING)
		return;
	TAILQ_FOREACH (other, &s->processes, next)
		if (!other->ready && !other->temporary && process_wanted(other))
			return;
	s->phase = PHASE_RUNNING;
	announce(s);
}

static void on_child(evutil_socket_t fd, short what, void *arg)
{
	struct supervisor *s = arg;
	struct process *p;
	pid_t pid;
	int status;

	(void)fd, (void)what;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		TAILQ_FOREACH (p, &s->processes, next)
			if (p->pid == pid) {
				process_ended(p, status);
				break;
			}
}

static void on_terminate(evutil_socket_t sig, short what, void *arg)
{
	(void)what;
	log_info("stopping on signal %d", (int)sig);
	stop_all(arg, 0);
}

static void on_hangup(evutil_socket_t sig, short what, void *arg)
{
	struct supervisor *s = arg;
	struct process *p;

	(void)sig, (void)what;
	TAILQ_FOREACH (p, &s->processes, next) {
		if (p->link == NULL)
			continue;
		if (p->role == ROLE_CONTROL) {
			ipc_send(p->link, IPC_RELOAD, NULL, 0, NULL, 0);
		} else if (p->role == ROLE_WORKER) {
			files_send_resolver(p);
			files_send_local(p);
		}
	}
}

/* ---- start ----------------------------------------------------------------------------------------------------------- */

/* The file's name and its text, NUL between: what every child reads its configuration from. */
static int seal_config(struct supervisor *s, const char *text, struct err *why)
{
	size_t name = strlen(s->config->file) + 1, len = strlen(text);
	char *block = malloc(name + len);

	if (block == NULL)
		return err_set(why, "out of memory for the configuration");
	memcpy(block, s->config->file, name);
	memcpy(block + name, text, len);
	s->config_fd = sealed_create("gatewayd-config", block, name + len, why);
	free(block);
	return s->config_fd < 0 ? -1 : 0;
}

static void open_clock(struct supervisor *s)
{
	const char *file = getenv("GATEWAYD_CLOCK_FILE");

	s->clock_fd = -1;
	if (file == NULL)
		return;
	s->clock_fd = open(file, O_RDONLY | O_CLOEXEC);
	if (s->clock_fd >= 0)
		log_warning("wall time is shifted by %s: this is a test, not a gateway to rely on", file);
}

static int check_databases(const struct supervisor *s, struct err *why)
{
	for (enum config_file file = CONFIG_FILE_GEOIP; file < CONFIG_FILES; file++) {
		int fd;

		if (config_file_path(s->config, file)[0] == '\0')
			continue;
		fd = files_open_configured(s, file, why);
		if (fd < 0)
			return -1;
		close(fd);
	}
	return 0;
}

static void raise_descriptor_limit(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
}

/* Of each process, for secrets that wait; those that hand secrets to libraries raise it as far as they may.  As much as we may have:
 * without a right to more, that is what the host gives. */
static void raise_lock_limit(void)
{
	struct rlimit wanted = {LOCKED_BYTES, RLIM_INFINITY}, now;

	if (setrlimit(RLIMIT_MEMLOCK, &wanted) == 0 || getrlimit(RLIMIT_MEMLOCK, &now) != 0)
		return;
	now.rlim_cur = now.rlim_max < LOCKED_BYTES ? now.rlim_max : LOCKED_BYTES;
	setrlimit(RLIMIT_MEMLOCK, &now);
}

static int prepare(struct supervisor *s, const char *config_text, struct err *why)
{
	raise_descriptor_limit();
	raise_lock_limit();
	open_clock(s);
	if (files_prepare_state(s, why) != 0 || check_databases(s, why) != 0 || seal_config(s, config_text, why) != 0)
		return -1;
	if (listen_open(s, why) != 0 || listen_open_control(s, why) != 0)
		return -1;
	return privileges_limit_supervisor(why);
}

static void note_own_error(const char *message, void *arg)
{
	requests_note_error(arg, "supervisor", message, strlen(message));
}

static void watch_signals(struct supervisor *s)
{
	signal(SIGPIPE, SIG_IGN);
	log_on_error(note_own_error, s);
	evsignal_assign(&s->term, s->base, SIGTERM, on_terminate, s);
	evsignal_assign(&s->intr, s->base, SIGINT, on_terminate, s);
	evsignal_assign(&s->hup, s->base, SIGHUP, on_hangup, s);
	evsignal_assign(&s->child, s->base, SIGCHLD, on_child, s);
	evsignal_add(&s->term, NULL);
	evsignal_add(&s->intr, NULL);
	evsignal_add(&s->hup, NULL);
	evsignal_add(&s->child, NULL);
	evtimer_assign(&s->stop_deadline, s->base, on_stop_deadline, s);
}

static void start_all(struct supervisor *s)
{
	struct process *p;

	process_add(s, ROLE_RECORDER, 0, false);
	process_add(s, ROLE_CONTROL, 0, false);
	process_add(s, ROLE_AUTH, 0, false);
	s->pam_wanted = s->config->pam_processes_min;
	for (uint16_t i = 0; i < s->config->pam_processes; i++)
		process_add(s, ROLE_PAM, i, false);
	if (config_has_gssapi(s->config))
		process_add(s, ROLE_GSSAPI, 0, false);
	for (uint16_t i = 0; i < s->config->workers; i++)
		process_add(s, ROLE_WORKER, i, false);
	TAILQ_FOREACH (p, &s->processes, next)
		process_start(p);
}

int supervisor_main(const struct config *config, const char *config_text)
{
	static struct supervisor s = {.config_fd = -1, .control_fd = -1, .tables = {-1, -1, -1}, .log_level = -1};
	struct err why;

	s.config = config;
	s.started_us = clock_mono_us();
	TAILQ_INIT(&s.processes);
	if (prepare(&s, config_text, &why) != 0) {
		log_error("%s", why.text);
		return EXIT_FATAL;
	}
	s.base = event_base_new();
	if (s.base == NULL)
		log_fatal("cannot make an event loop");
	watch_signals(&s);
	if (config->remember_logins_ms > 0)
		groups_watch(&s);
	start_all(&s);
	watch_start(&s);
	event_base_dispatch(s.base);
	unlink(config->control_socket);
	listen_close_all(&s);
	log_info("gatewayd has stopped");
	return s.exit_code;
}
