#include "config.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/tcp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "gatewayd/supervisor/internal.h"

#define BACKLOG 4096
/* How long an address of ours may still be held: processes of a killed gateway take a moment to go. */
#define HELD_SECONDS 5
#define HELD_PAUSE_MS 50
/* Between two tries to make a socket listen again. */
#define AGAIN_S 1

static int bind_socket(const struct endpoint *ep, bool shared)
{
	struct sockaddr_storage sa;
	socklen_t len = endpoint_to_sockaddr(ep, &sa);
	int one = 1, idle_s = KEEPALIVE_IDLE_S, interval_s = KEEPALIVE_INTERVAL_S, probes = KEEPALIVE_PROBES;
	int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -1;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
	    (shared && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) != 0) ||
	    (sa.ss_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one) != 0) ||
	    /* Those that are accepted inherit it: an urgent byte stays in its place (RFC 6093 section 5), in the handshake, too. */
	    setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &one, sizeof one) != 0 ||
	    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0 ||
	    /* And a client that vanished is noticed in every state, also beside an association. */
	    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one) != 0 ||
	    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s) != 0 ||
	    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s) != 0 ||
	    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes) != 0 ||
	    bind(fd, (struct sockaddr *)&sa, len) != 0 || (shared && listen(fd, BACKLOG) != 0)) {
		int saved = errno;

		close(fd);
		errno = saved;
		return -1;
	}
	return fd;
}

/* With SO_REUSEPORT alone, a second gateway of the same user would share our port in silence. */
static int check_free(const struct endpoint *ep)
{
	int fd = bind_socket(ep, false);

	if (fd < 0)
		return -1;
	close(fd);
	return 0;
}

/* Nothing runs yet that could be kept waiting; a signal ends us here as it would anywhere before we are ready. */
static int wait_until_free(const struct endpoint *ep, const char *text, int64_t deadline_us)
{
	const struct timespec pause = {.tv_nsec = HELD_PAUSE_MS * 1000000L};
	bool said = false;

	while (check_free(ep) != 0) {
		if (errno != EADDRINUSE || clock_mono_us() >= deadline_us)
			return -1;
		if (!said)
			log_info("%s is held by another program: waiting up to %d s for it", text, HELD_SECONDS);
		said = true;
		nanosleep(&pause, NULL);
	}
	return 0;
}

/* The rule is that of all sockets of the address, and goes with the last that listens. */
static void choose_by_cpu(const struct supervisor *s, int fd)
{
	static bool said;

	if (!s->config->cpu_local || cpus_choose(&s->cpus, s->config->workers, fd) == 0)
		return;
	if (!said)
		log_warning("cpu-local: connections are shared out among the workers by chance, not by CPU: %s", strerror(errno));
	said = true;
}

static int open_address(struct supervisor *s, uint16_t listener, uint16_t address, int64_t deadline_us, struct err *why)
{
	const struct config_listener *l = &s->config->listeners[listener];
	const struct endpoint *ep = &l->addresses[address];
	char text[ENDPOINT_TEXT_MAX];

	endpoint_format(ep, text);
	if (wait_until_free(ep, text, deadline_us) != 0)
		return err_set_errno(why, "cannot listen on %s (listener '%s')%s", text, l->name,
				     errno == EADDRINUSE ? ", another program holds it" : "");
	for (uint16_t slot = 0; slot < s->config->workers; slot++) {
		int fd = bind_socket(ep, true);

		if (fd < 0)
			return err_set_errno(why, "cannot listen on %s (listener '%s')", text, l->name);
		choose_by_cpu(s, fd);
		s->listening[s->nlistening++] =
			(struct listening){.listener = listener, .address = address, .slot = slot, .fd = fd};
	}
	return 0;
}

int listen_open(struct supervisor *s, struct err *why)
{
	int64_t deadline_us = clock_mono_us() + HELD_SECONDS * 1000000LL;
	size_t addresses = 0;

	if (s->config->cpu_local && cpus_read(&s->cpus, s->config->workers, why) != 0)
		return -1;
	for (size_t i = 0; i < s->config->nlisteners; i++)
		addresses += s->config->listeners[i].naddresses;
	s->listening = calloc(addresses * s->config->workers, sizeof *s->listening);
	if (s->listening == NULL)
		return err_set(why, "out of memory for the listeners");
	for (size_t i = 0; i < s->config->nlisteners; i++)
		for (size_t k = 0; k < s->config->listeners[i].naddresses; k++)
			if (open_address(s, (uint16_t)i, (uint16_t)k, deadline_us, why) != 0)
				return -1;
	return 0;
}

/* A socket file that nobody answers is left over from a run that was killed. */
static bool answers_now(const struct sockaddr_un *sun)
{
	/* Not blocking: one that hangs with a full queue is there all the same. */
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool answers = fd >= 0 && (connect(fd, (const struct sockaddr *)sun, sizeof *sun) == 0 || errno == EAGAIN);

	if (fd >= 0)
		close(fd);
	return answers;
}

/* Listening outlives a killed gateway as long as one of its processes is on its way out. */
static bool somebody_answers(const struct sockaddr_un *sun)
{
	const struct timespec pause = {.tv_nsec = HELD_PAUSE_MS * 1000000L};
	int64_t deadline_us = clock_mono_us() + HELD_SECONDS * 1000000LL;

	while (answers_now(sun)) {
		if (clock_mono_us() >= deadline_us)
			return true;
		nanosleep(&pause, NULL);
	}
	return false;
}

/* With groups for several roles everybody reaches the socket, and control tells by the peer's credentials who may what: a file
 * belongs to one group only. */
static int give_to_groups(const struct config *c, struct err *why)
{
	const struct {
		const char *option, *name;
	} groups[] = {{"control-group", c->control_group},
		      {"viewer-group", c->viewer_group},
		      {"auditor-group", c->auditor_group},
		      {"operator-group", c->operator_group}};
	bool others = false;

	if (c->policy_approval && c->control_group[0] == '\0' && geteuid() == 0)
		log_warning("policy-approval: root is the only administrator, and nobody can approve what root proposes: set control-group");
	for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
		const struct group *gr = groups[i].name[0] == '\0' ? NULL : getgrnam(groups[i].name);

		if (groups[i].name[0] == '\0')
			continue;
		if (gr == NULL)
			return err_set(why, "%s '%s' does not exist", groups[i].option, groups[i].name);
		others |= i > 0;
		if (i == 0 && chown(c->control_socket, (uid_t)-1, gr->gr_gid) != 0)
			return err_set_errno(why, "cannot give %s to group '%s'", c->control_socket, groups[i].name);
	}
	if ((others || c->control_group[0] != '\0') && chmod(c->control_socket, others ? 0666 : 0660) != 0)
		return err_set_errno(why, "cannot let the roles' groups reach %s", c->control_socket);
	return 0;
}

int listen_open_control(struct supervisor *s, struct err *why)
{
	const char *path = s->config->control_socket;
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	struct stat st;
	mode_t mask;
	int fd, rc;

	memcpy(sun.sun_path, path, strlen(path) + 1);
	if (somebody_answers(&sun))
		return err_set(why, "another gatewayd answers at %s: stop it first, or set another control-socket", path);
	if (lstat(path, &st) == 0 && (!S_ISSOCK(st.st_mode) || unlink(path) != 0))
		return err_set(why, "control-socket %s exists and is no socket left over from a former run: remove it, or set another",
			       path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set_errno(why, "cannot make the control socket");
	mask = umask(0177);
	rc = bind(fd, (struct sockaddr *)&sun, sizeof sun);
	umask(mask);
	if (rc != 0 || listen(fd, 64) != 0) {
		err_set_errno(why, "cannot make the control socket %s", path);
		close(fd);
		return -1;
	}
	s->control_fd = fd;
	return give_to_groups(s->config, why);
}

void listen_tell_draining(const struct process *worker)
{
	uint8_t body = worker->sup->draining;

	ipc_send(worker->link, IPC_DRAINING, &body, sizeof body, NULL, 0);
}

/* A socket that does not listen lets anybody bind to its address who, like it, has SO_REUSEADDR: with that it would be bound, and not
 * ours alone. */
static int set_reuse(int fd, int on)
{
	return setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
}

static int end_listening(int fd)
{
	return set_reuse(fd, 0) != 0 ? -1 : shutdown(fd, SHUT_RD);
}

/* Sessions that were accepted are bound to the address, too, by another user: listening beside them takes SO_REUSEADDR. */
static int take_up_listening(int fd)
{
	int error;

	if (set_reuse(fd, 1) == 0 && listen(fd, BACKLOG) == 0)
		return 0;
	error = errno;
	set_reuse(fd, 0);
	errno = error;
	return -1;
}

uint16_t listen_mute(const struct supervisor *s)
{
	uint16_t n = 0;

	for (size_t i = 0; i < s->nlistening; i++)
		n += s->listening[i].mute;
	return n;
}

/* All that do not listen although they are to: 0, or -1 with one that still does not. */
static int listen_again(struct supervisor *s, struct err *why)
{
	const struct timeval again = {.tv_sec = AGAIN_S};
	int rc = 0;

	for (size_t i = 0; i < s->nlistening; i++) {
		struct listening *l = &s->listening[i];
		const struct config_listener *c = &s->config->listeners[l->listener];
		char text[ENDPOINT_TEXT_MAX];

		if (!l->mute)
			continue;
		l->mute = take_up_listening(l->fd) != 0;
		if (!l->mute)
			choose_by_cpu(s, l->fd);
		else
			rc = err_set_errno(why, "%s (listener '%s') does not listen again, and is tried every second%s",
					   endpoint_format(&c->addresses[l->address], text), c->name,
					   errno == EADDRINUSE ? ", another program holds it" : "");
	}
	if (rc != 0)
		evtimer_add(&s->listen_again, &again);
	return rc;
}

static void on_listen_again(evutil_socket_t fd, short what, void *arg)
{
	struct err why;

	(void)fd, (void)what;
	if (listen_again(arg, &why) == 0)
		log_info("all listeners listen again");
}

int listen_drain(struct supervisor *s, bool drain, struct err *why)
{
	struct process *p;
	int rc = 0;

	if (!event_initialized(&s->listen_again))
		evtimer_assign(&s->listen_again, s->base, on_listen_again, s);
	evtimer_del(&s->listen_again);
	/* Those that listen, or those that do not. */
	for (size_t i = 0; i < s->nlistening; i++) {
		struct listening *l = &s->listening[i];

		if (drain && !s->draining && !l->mute && end_listening(l->fd) != 0)
			rc = err_set_errno(why, "listener '%s' cannot end listening", s->config->listeners[l->listener].name);
		l->mute = !drain && (l->mute || s->draining);
	}
	if (!drain)
		rc = listen_again(s, why);
	if (rc != 0)
		log_error("%s", why->text);
	if (s->draining == drain)
		return rc;
	s->draining = drain;
	TAILQ_FOREACH (p, &s->processes, next)
		if (p->role == ROLE_WORKER && p->link != NULL)
			listen_tell_draining(p);
	log_info("%s", drain ? "draining: no new connection is taken" : "new connections are taken again");
	return rc;
}

static void send_listening(struct process *worker, const struct listening *l, bool drop)
{
	uint8_t body[16];
	struct wire_writer w = wire_writer_on(body, sizeof body);
	int fd = -1;

	wire_put_u16(&w, l->listener);
	wire_put_u16(&w, l->address);
	wire_put_u16(&w, l->slot);
	if (drop) {
		ipc_send(worker->link, IPC_LISTENER_DROP, body, w.len, NULL, 0);
		return;
	}
	fd = fcntl(l->fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0) {
		log_error("cannot hand a listener to worker %u: %s", (unsigned)worker->slot, strerror(errno));
		return;
	}
	ipc_send(worker->link, IPC_LISTENER, body, w.len, &fd, 1);
}

/* Sends worker `to` the sockets of `slot`, or takes them back. */
static void send_share(struct process *to, uint16_t slot, bool drop)
{
	for (size_t i = 0; i < to->sup->nlistening; i++)
		if (to->sup->listening[i].slot == slot)
			send_listening(to, &to->sup->listening[i], drop);
}

void listen_worker_started(struct process *worker)
{
	send_share(worker, worker->slot, false);
}

static bool serves(const struct process *p)
{
	return p != NULL && p->ready && p->link != NULL;
}

/* Who is to accept from a slot's sockets besides their own worker: nobody while that one serves. */
static struct process *stand_in_for(struct supervisor *s, uint16_t slot)
{
	struct process *p, *current = s->stand_ins[slot];

	if (serves(process_find(s, ROLE_WORKER, slot)))
		return NULL;
	if (serves(current))
		return current;
	TAILQ_FOREACH (p, &s->processes, next)
		if (p->role == ROLE_WORKER && serves(p))
			return p;
	return NULL;
}

void listen_rebalance(struct supervisor *s)
{
	/* The kernel goes on queueing on a missing worker's sockets: a sibling accepts from them meanwhile. */
	for (uint16_t slot = 0; slot < s->config->workers; slot++) {
		struct process *next = stand_in_for(s, slot), *current = s->stand_ins[slot];

		if (next == current)
			continue;
		if (serves(current))
			send_share(current, slot, true);
		if (next != NULL)
			send_share(next, slot, false);
		s->stand_ins[slot] = next;
	}
}

void listen_worker_gone(struct process *worker)
{
	struct supervisor *s = worker->sup;

	/* What it stood in for is lost with it, also if it comes back before anybody looks. */
	for (uint16_t slot = 0; slot < s->config->workers; slot++)
		if (s->stand_ins[slot] == worker)
			s->stand_ins[slot] = NULL;
	listen_rebalance(s);
}

void listen_close_all(struct supervisor *s)
{
	for (size_t i = 0; i < s->nlistening; i++)
		close(s->listening[i].fd);
	s->nlistening = 0;
}
