#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <poll.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "common/sealed.h"
#include "gatewayd/supervisor/internal.h"

#define SYSTEM_FILE_MAX (4 * 1024 * 1024)

/* A directory of the state, opened without following a link, so that nobody can have us give another's away.  One that is there
 * already must belong to whoever is to use it. */
static int open_directory(const struct supervisor *s, const char *name, const struct passwd *owner, int *fd, struct err *why)
{
	const char *state = s->config->state_dir;
	uid_t uid = owner == NULL ? geteuid() : owner->pw_uid;
	bool made = mkdirat(s->state_fd, name, 0700) == 0;
	struct stat st;

	if (!made && errno != EEXIST)
		return err_set_errno(why, "cannot make the directory %s/%s", state, name);
	*fd = openat(s->state_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (*fd < 0 || fstat(*fd, &st) != 0)
		return err_set_errno(why, "cannot open the directory %s/%s", state, name);
	if (made && owner != NULL && fchown(*fd, owner->pw_uid, owner->pw_gid) != 0)
		return err_set_errno(why, "cannot give the directory %s/%s to user '%s'", state, name, owner->pw_name);
	if (!made && st.st_uid != uid)
		return err_set(why, "the directory %s/%s belongs to uid %u, not to uid %u that gatewayd runs as: move it away, or chown it",
			       state, name, (unsigned)st.st_uid, (unsigned)uid);
	if (faccessat(*fd, ".", R_OK | W_OK | X_OK, AT_EACCESS) != 0)
		return err_set_errno(why, "cannot write to the directory %s/%s", state, name);
	return 0;
}

/* Held until we end: two gateways that write one store would each undo the other. */
static int lock_state(struct supervisor *s, struct err *why)
{
	const char *path = s->config->state_dir;
	int patience = 100;

	if (mkdir(path, 0700) != 0 && errno != EEXIST)
		return err_set_errno(why, "cannot make the directory %s", path);
	s->state_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->state_fd < 0)
		return err_set_errno(why, "cannot open the directory %s", path);
	/* One that was killed a moment ago may have left a child between fork and exec. */
	while (flock(s->state_fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK && --patience > 0)
		poll(NULL, 0, 10);
	if (patience == 0 || flock(s->state_fd, LOCK_EX | LOCK_NB) != 0)
		return err_set_errno(why, "cannot lock the directory %s%s", path,
				     errno == EWOULDBLOCK ? ", another gatewayd uses it" : "");
	return 0;
}

static int find_users(const struct config *config, const struct passwd **owner, struct err *why)
{
	*owner = NULL;
	if (geteuid() != 0)
		return 0;
	if (getpwnam(config->pam_user) == NULL)
		return err_set(why, "there is no user '%s' for PAM conversations: set `pam-user` in %s", config->pam_user,
			       config->file);
	/* Last: getpwnam(3) hands out one static record. */
	*owner = getpwnam(config->user);
	if (*owner == NULL)
		return err_set(why, "there is no user '%s' to run as: create it (adduser --system %s), or set `user` in %s",
			       config->user, config->user, config->file);
	return 0;
}

int files_prepare_state(struct supervisor *s, struct err *why)
{
	const struct passwd *owner;

	if (find_users(s->config, &owner, why) != 0 || lock_state(s, why) != 0)
		return -1;
	if (open_directory(s, "audit", owner, &s->audit_fd, why) != 0)
		return -1;
	if (config_has_gssapi(s->config) && open_directory(s, "gssapi", owner, &s->gssapi_fd, why) != 0)
		return -1;
	return open_directory(s, "policy", owner, &s->policy_fd, why);
}

int files_open_configured(const struct supervisor *s, enum config_file file, struct err *why)
{
	const char *what = config_file_option(file);
	const char *path = config_file_path(s->config, file);
	struct stat st;
	int fd;

	if (path[0] == '\0')
		return err_set(why, "%s is not set in %s", what, s->config->file);
	/* Not blocking: somebody may have put a FIFO there. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return err_set_errno(why, "cannot read %s %s", what, path);
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
		close(fd);
		return err_set(why, "%s %s is not a plain file", what, path);
	}
	return fd;
}

/* A sealed copy, empty if the file cannot be read. */
static int sealed_copy(const char *path)
{
	char *buf = malloc(SYSTEM_FILE_MAX);
	int in = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), fd;
	ssize_t n = 0;
	size_t len = 0;
	struct err why;

	while (buf != NULL && in >= 0 && len < SYSTEM_FILE_MAX && (n = read(in, buf + len, SYSTEM_FILE_MAX - len)) > 0)
		len += (size_t)n;
	if (in < 0 || n < 0)
		log_warning("cannot read %s: %s", path, strerror(errno));
	fd = sealed_create("gatewayd-system-file", buf, buf == NULL ? 0 : len, &why);
	if (fd < 0)
		log_error("%s", why.text);
	if (in >= 0)
		close(in);
	free(buf);
	return fd;
}

void files_send_resolver(const struct process *worker)
{
	int fds[2];

	/* Configured servers replace the system's configuration as a whole. */
	if (worker->sup->config->nresolvers > 0)
		return;
	fds[0] = sealed_copy("/etc/resolv.conf");
	fds[1] = sealed_copy("/etc/hosts");
	if (fds[0] >= 0 && fds[1] >= 0) {
		ipc_send(worker->link, IPC_RESOLVER, NULL, 0, fds, 2);
		return;
	}
	for (int i = 0; i < 2; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

/* u32 count, addresses. */
void files_send_local(const struct process *worker)
{
	static uint8_t body[32768];
	struct wire_writer w = wire_writer_on(body, sizeof body);
	struct ifaddrs *list, *i;
	uint32_t count = 0;

	if (getifaddrs(&list) != 0) {
		log_error("cannot list this host's addresses: %s", strerror(errno));
		return; /* the worker does not serve before it has them */
	}
	wire_put_u32(&w, 0);
	for (i = list; i != NULL; i = i->ifa_next) {
		struct endpoint ep;

		if (i->ifa_addr == NULL || !endpoint_from_sockaddr(i->ifa_addr, sizeof(struct sockaddr_in6), &ep))
			continue;
		wire_put_addr(&w, &ep.addr);
		count++;
	}
	freeifaddrs(list);
	memcpy(body, &count, sizeof count);
	if (ipc_send_wire(worker->link, IPC_LOCAL, &w) != 0)
		log_error("this host has too many addresses");
}
