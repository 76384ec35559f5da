/* Looks out for changes of the files that say who is in which group: what has been remembered of log-ins carries groups along, and
 * is forgotten then.  What comes from elsewhere (LDAP, say) is bounded by remember-logins alone. */
#include "config.h"

#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "common/log.h"
#include "gatewayd/supervisor/internal.h"

/* Editors replace a file: its directory tells. */
#define CHANGES (IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE)

static const char *const system_files[] = {"/etc/group", "/etc/passwd", "/etc/nsswitch.conf"};

struct watched {
	int directory; /* of inotify */
	char *name;
};

static struct watched watched[8];
static size_t nwatched;

static bool concerns_us(const struct inotify_event *e)
{
	if (e->mask & IN_Q_OVERFLOW)
		return true;
	for (size_t i = 0; i < nwatched; i++)
		if (e->len > 0 && e->wd == watched[i].directory && strcmp(e->name, watched[i].name) == 0)
			return true;
	return false;
}

static void on_change(evutil_socket_t fd, short what, void *arg)
{
	char buffer[16384] __attribute__((aligned(__alignof__(struct inotify_event))));
	struct process *auth = process_find(arg, ROLE_AUTH, 0);
	bool changed = false;
	ssize_t n;

	(void)what;
	while ((n = read(fd, buffer, sizeof buffer)) > 0)
		for (const char *at = buffer; at < buffer + n;) {
			const struct inotify_event *e = (const struct inotify_event *)(const void *)at;

			changed |= concerns_us(e);
			at += sizeof *e + e->len;
		}
	if (!changed || auth == NULL || auth->link == NULL)
		return;
	log_info("groups may have changed: log-ins are no longer remembered");
	ipc_send(auth->link, IPC_FORGET_LOGINS, NULL, 0, NULL, 0);
}

static void add(int fd, const char *path)
{
	char *real = realpath(path, NULL), *slash = real == NULL ? NULL : strrchr(real, '/');

	if (slash == NULL || nwatched == sizeof watched / sizeof *watched) {
		free(real);
		return;
	}
	watched[nwatched].name = strdup(slash + 1);
	*slash = '\0';
	watched[nwatched].directory = inotify_add_watch(fd, real[0] == '\0' ? "/" : real, CHANGES);
	if (watched[nwatched].directory < 0 || watched[nwatched].name == NULL)
		log_warning("changes of %s are not noticed: %s", path, strerror(errno));
	else
		nwatched++;
	free(real);
}

void groups_watch(struct supervisor *s)
{
	int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);

	if (fd < 0) {
		log_warning("changes of groups are not noticed: %s", strerror(errno));
		return;
	}
	for (size_t i = 0; i < sizeof system_files / sizeof *system_files; i++)
		add(fd, system_files[i]);
	if (s->config->pam_groups_file[0] != '\0')
		add(fd, s->config->pam_groups_file);
	event_assign(&s->groups_change, s->base, fd, EV_READ | EV_PERSIST, on_change, s);
	event_add(&s->groups_change, NULL);
}
