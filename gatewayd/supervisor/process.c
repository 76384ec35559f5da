#include "config.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "gatewayd/child.h"
#include "gatewayd/supervisor/internal.h"

#define BACKOFF_FIRST_MS 50
#define BACKOFF_MAX_MS 10000
#define HEALTHY_AFTER_US (10 * 1000000LL) /* a process that lived this long starts afresh */
#define READER_LIFE_MS (10 * 60 * 1000 + 10000) /* a little longer than its own limit, which it tells about */

struct process *process_find(struct supervisor *s, enum role role, uint16_t slot)
{
	struct process *p;

	TAILQ_FOREACH (p, &s->processes, next)
		if (p->role == role && p->slot == slot)
			return p;
	return NULL;
}

/* The directory that a role works in (-1: the root): opened with our rights, it stays usable after the role gave up its own. */
static int work_directory(const struct process *p)
{
	if (p->role == ROLE_RECORDER || p->role == ROLE_READER)
		return p->sup->audit_fd;
	if (p->role == ROLE_GSSAPI)
		return p->sup->gssapi_fd;
	return p->role == ROLE_CONTROL ? p->sup->policy_fd : -1;
}

/* Between fork and exec: only async-signal-safe calls. */
static void become_child(const struct supervisor *s, int link, int directory, char *const argv[])
{
	static char clock_env[] = "GATEWAYD_CLOCK_FD=5", path_env[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
	/* A symbol that is looked up late has all vector registers written to the stack: what memcpy(3) moved last is in them,
	 * and may be a password. */
	static char bind_env[] = "LD_BIND_NOW=1";
	static char asan_env[256];
	const char *asan = getenv("ASAN_OPTIONS");
	char *env[] = {path_env, bind_env, s->clock_fd >= 0 ? clock_env : NULL, NULL, NULL};
	sigset_t none;

	if (asan != NULL) {
		snprintf(asan_env, sizeof asan_env, "ASAN_OPTIONS=%s", asan);
		env[env[2] == NULL ? 2 : 3] = asan_env;
	}
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if ((directory >= 0 ? fchdir(directory) : chdir("/")) != 0)
		_exit(EXIT_FATAL);
	/* Lift everything above the fixed numbers first, so that no dup2 overwrites a source. */
	int high_link = fcntl(link, F_DUPFD, 100), high_config = fcntl(s->config_fd, F_DUPFD, 100);
	int high_clock = s->clock_fd < 0 ? -1 : fcntl(s->clock_fd, F_DUPFD, 100);
	int null = open("/dev/null", O_RDWR);

	if (null < 0 || high_link < 0 || high_config < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 ||
	    dup2(high_link, CHILD_FD_SUPERVISOR) < 0 || dup2(high_config, CHILD_FD_CONFIG) < 0 ||
	    (high_clock >= 0 && dup2(high_clock, CHILD_FD_CLOCK) < 0))
		_exit(EXIT_FATAL);
	if (close_range(high_clock >= 0 ? CHILD_FD_FIRST_FREE : CHILD_FD_CLOCK, UINT_MAX, 0) != 0)
		_exit(EXIT_FATAL);
	execve("/proc/self/exe", argv, env);
	_exit(EXIT_FATAL);
}

static pid_t spawn(struct process *p, int link)
{
	char role[32], slot[16];
	char *argv[] = {(char *)(uintptr_t)"gatewayd", role, slot, NULL};

	snprintf(role, sizeof role, "--role=%s", role_name(p->role));
	snprintf(slot, sizeof slot, "--slot=%u", (unsigned)p->slot);

	pid_t pid = fork();

	if (pid == 0)
		become_child(p->sup, link, work_directory(p), argv);
	return pid;
}

static void schedule_restart(struct process *p)
{
	if (p->killed_on_request) {
		p->backoff_ms = 0;
		p->killed_on_request = false;
	} else if (p->started_us != 0 && clock_mono_us() - p->started_us > HEALTHY_AFTER_US) {
		p->backoff_ms = 0;
	}
	struct timeval wait = {.tv_sec = p->backoff_ms / 1000, .tv_usec = p->backoff_ms % 1000 * 1000};

	evtimer_add(&p->timer, &wait);
	p->backoff_ms = p->backoff_ms == 0 ? BACKOFF_FIRST_MS : p->backoff_ms * 2;
	if (p->backoff_ms > BACKOFF_MAX_MS)
		p->backoff_ms = BACKOFF_MAX_MS;
	p->restarts++;
}

static void on_link_gone(struct ipc *link, void *arg)
{
	struct process *p = arg;

	(void)link;
	/* It is dying, or it broke the protocol: either way it ends now, and is reaped. */
	ipc_free(&p->link);
	p->ready = false;
	process_kill(p);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct process *p = arg;

	(void)fd, (void)what;
	if (p->pid == 0) {
		process_start(p);
		return;
	}
	log_warning("%s/%u took too long and is ended", role_name(p->role), (unsigned)p->slot);
	process_kill(p);
}

struct process *process_add(struct supervisor *s, enum role role, uint16_t slot, bool temporary)
{
	struct process *p = calloc(1, sizeof *p);

	if (p == NULL)
		log_fatal("out of memory for a process");
	p->sup = s;
	p->role = role;
	p->slot = slot;
	p->temporary = temporary;
	evtimer_assign(&p->timer, s->base, on_timer, p);
	TAILQ_INSERT_TAIL(&s->processes, p, next);
	return p;
}

void process_remove(struct process *p)
{
	event_del(&p->timer);
	TAILQ_REMOVE(&p->sup->processes, p, next);
	free(p);
}

static void start_deadline(struct process *p)
{
	unsigned ms = p->role == ROLE_READER ? READER_LIFE_MS : p->sup->config->compile_timeout_ms;
	struct timeval wait = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

	evtimer_add(&p->timer, &wait);
}

bool process_wanted(const struct process *p)
{
	return p->role != ROLE_PAM || p->slot < p->sup->pam_wanted;
}

void process_start(struct process *p)
{
	struct supervisor *s = p->sup;
	int pair[2];

	if (s->phase > PHASE_RUNNING || !process_wanted(p))
		return;
	p->ready = false;
	p->unanswered = 0;
	p->started_us = clock_mono_us();
	if (ipc_pair(pair) != 0) {
		log_error("cannot make a socket pair for %s: %s", role_name(p->role), strerror(errno));
		schedule_restart(p);
		return;
	}
	p->pid = spawn(p, pair[1]);
	close(pair[1]);
	if (p->pid < 0) {
		p->pid = 0;
		close(pair[0]);
		log_error("cannot start %s: %s", role_name(p->role), strerror(errno));
		schedule_restart(p);
		return;
	}
	p->link = ipc_new(pair[0], ROLE_SUPERVISOR, p->role, p->slot);
	ipc_attach(p->link, s->base, requests_handle, on_link_gone, p);
	if (p->role == ROLE_RECORDER) /* before its links: what it is told over them depends on it */
		ipc_send(p->link, IPC_RUN, &p->restarts, sizeof p->restarts, NULL, 0);
	links_connect(p);
	if (p->temporary)
		start_deadline(p);
	if (s->log_level >= 0) {
		uint8_t level = (uint8_t)s->log_level;

		ipc_send(p->link, IPC_LOG_LEVEL, &level, sizeof level, NULL, 0);
	}
	if (p->role == ROLE_WORKER) {
		if (s->draining)
			listen_tell_draining(p);
		files_send_resolver(p);
		files_send_local(p);
		listen_worker_started(p);
	} else if (p->role == ROLE_CONTROL) {
		int fd = fcntl(s->control_fd, F_DUPFD_CLOEXEC, 0);

		requests_return_tables(p);
		if (fd >= 0)
			ipc_send(p->link, IPC_CONTROL_SOCKET, &p->restarts, sizeof p->restarts, &fd, 1);
	}
}

void process_kill(struct process *p)
{
	if (p->pid > 0)
		kill(p->pid, SIGKILL);
}

static void describe_end(struct process *p, int status)
{
	if (WIFSIGNALED(status))
		snprintf(p->last_end, sizeof p->last_end, "signal %d (%s)%s", WTERMSIG(status), strsignal(WTERMSIG(status)),
			 WTERMSIG(status) == SIGSYS ? ": a system call that its sandbox forbids" : "");
	else
		snprintf(p->last_end, sizeof p->last_end, "exit status %d", WEXITSTATUS(status));
}

/* Its sessions are lost: the recorder writes their closing rows. */
static void tell_recorder(const struct process *worker)
{
	const struct process *recorder = process_find(worker->sup, ROLE_RECORDER, 0);

	if (recorder != NULL && recorder->link != NULL)
		ipc_send(recorder->link, IPC_WORKER_GONE, &worker->slot, sizeof worker->slot, NULL, 0);
}

void process_ended(struct process *p, int status)
{
	struct supervisor *s = p->sup;
	pid_t pid = p->pid;

	p->pid = 0;
	p->ready = false;
	describe_end(p, status);
	/* Its death may be known before its last words were read. */
	while (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_CONFIG && p->link != NULL)
		if (ipc_receive_blocking(p->link, requests_handle, p) != 0)
			break;
	ipc_free(&p->link);
	evtimer_del(&p->timer);
	if (p->temporary || p->part != SERVES) {
		if (p->temporary && status != 0 && s->phase <= PHASE_RUNNING)
			log_warning("%s (pid %d) ended: %s", role_name(p->role), (int)pid, p->last_end);
		if (p->part == ON_TRIAL && s->phase <= PHASE_RUNNING)
			gssapi_failed(p);
		process_remove(p);
		supervisor_check_phase(s);
		return;
	}
	if (s->phase > PHASE_RUNNING) {
		supervisor_check_phase(s);
		return;
	}
	if (s->phase == PHASE_STARTING) {
		supervisor_give_up(s, p, NULL);
		return;
	}
	if (!p->killed_on_request)
		log_error("%s/%u (pid %d) ended: %s; it is restarted", role_name(p->role), (unsigned)p->slot, (int)pid, p->last_end);
	if (p->role == ROLE_WORKER) {
		listen_worker_gone(p);
		tell_recorder(p);
	}
	schedule_restart(p);
}
