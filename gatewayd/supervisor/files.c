#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
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

static int make_directory(const char *path, mode_t mode, const struct passwd *owner, struct err *why)
{
	if (mkdir(path, mode) != 0 && errno != EEXIST)
		return err_set_errno(why, "cannot make the directory %s", path);
	if (owner != NULL && chown(path, owner->pw_uid, owner->pw_gid) != 0)
		return err_set_errno(why, "cannot give the directory %s to user '%s'", path, owner->pw_name);
	if (access(path, R_OK | W_OK | X_OK) != 0)
		return err_set_errno(why, "cannot write to the directory %s", path);
	return 0;
}

/* Held until we end: two gateways that write one store would each undo the other. */
static int lock_state(const char *path, struct err *why)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return err_set_errno(why, "cannot open the directory %s", path);
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return 0;
	err_set_errno(why, "cannot lock the directory %s%s", path, errno == EWOULDBLOCK ? ", another gatewayd uses it" : "");
	close(fd);
	return -1;
}

int files_prepare_state(const struct supervisor *s, struct err *why)
{
	static const char *const parts[] = {"", "/audit", "/policy"};
	const struct passwd *owner = NULL;
	char path[4200];

	if (geteuid() == 0) {
		if (getpwnam(s->config->pam_user) == NULL)
			return err_set(why, "there is no user '%s' for PAM conversations: set `pam-user` in %s",
				       s->config->pam_user, s->config->file);
		/* Last: getpwnam(3) hands out one static record. */
		owner = getpwnam(s->config->user);
		if (owner == NULL)
			return err_set(why,
				       "there is no user '%s' to run as: create it (adduser --system %s), or set `user` in %s",
				       s->config->user, s->config->user, s->config->file);
	}
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
		snprintf(path, sizeof path, "%s%s", s->config->state_dir, parts[i]);
		if (make_directory(path, 0700, owner, why) != 0)
			return -1;
	}
	return lock_state(s->config->state_dir, why);
}

int files_open_configured(const struct supervisor *s, unsigned kind, struct err *why)
{
	const char *what = kind == 0 ? "policy-file" : "geoip-database";
	const char *path = kind == 0 ? s->config->policy_file : s->config->geoip_database;
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
