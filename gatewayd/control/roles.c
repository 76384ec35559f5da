/* Who may do what on the control socket: roles by group of the host, as the kernel tells them of the peer.  What is refused is
 * recorded, too; a flood of it becomes rows that count it. */
#include "config.h"

#include <event2/event.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "common/log.h"
#include "gatewayd/control/internal.h"

/* The kernel's bound on the groups of a process (NGROUPS_MAX): where there is less room, it tells none of them. */
#define GROUPS_READ 65536
/* Refusals of one command to one user that get a row of their own, of each window. */
#define REFUSED_ROWS 5
#define REFUSED_WINDOW_S 10

#define ALL (RIGHT_VIEW | RIGHT_AUDIT | RIGHT_OPERATE | RIGHT_ADMINISTER)

static const struct {
	const char *name;
	unsigned rights;
} roles[CONTROL_ROLES] = {
	[CONTROL_ROLE_VIEWER] = {"viewer", RIGHT_VIEW},
	[CONTROL_ROLE_AUDITOR] = {"auditor", RIGHT_VIEW | RIGHT_AUDIT},
	[CONTROL_ROLE_OPERATOR] = {"operator", RIGHT_VIEW | RIGHT_OPERATE},
	[CONTROL_ROLE_ADMINISTRATOR] = {"administrator", ALL},
};

const char *roles_needed(unsigned right)
{
	switch (right) {
	case RIGHT_VIEW:
		return "a viewer";
	case RIGHT_AUDIT:
		return "an auditor";
	case RIGHT_OPERATE:
		return "an operator";
	default:
		return "an administrator";
	}
}

/* ---- who is who --------------------------------------------------------------------------------------------------------- */

static const char *group_name(const struct config *config, unsigned role)
{
	switch (role) {
	case CONTROL_ROLE_VIEWER:
		return config->viewer_group;
	case CONTROL_ROLE_AUDITOR:
		return config->auditor_group;
	case CONTROL_ROLE_OPERATOR:
		return config->operator_group;
	default:
		return config->control_group;
	}
}

static void on_window_over(evutil_socket_t fd, short what, void *arg);

void roles_init(struct control *c)
{
	for (unsigned i = 0; i < CONTROL_ROLES; i++) {
		const char *name = group_name(c->child->config, i);
		struct group *gr = name[0] == '\0' ? NULL : getgrnam(name);

		c->groups[i] = gr == NULL ? (gid_t)-1 : gr->gr_gid;
	}
	evtimer_assign(&c->refused.timer, c->child->base, on_window_over, c);
}

static unsigned rights_of_group(const struct control *c, gid_t gid)
{
	unsigned rights = 0;

	for (unsigned i = 0; i < CONTROL_ROLES; i++)
		if (c->groups[i] != (gid_t)-1 && c->groups[i] == gid)
			rights |= roles[i].rights;
	return rights;
}

static unsigned rights_of(const struct control *c, int fd, const struct ucred *cred)
{
	static gid_t groups[GROUPS_READ];
	socklen_t len = sizeof groups;
	unsigned rights = rights_of_group(c, cred->gid);

	if (cred->uid == 0 || cred->uid == c->owner)
		return ALL;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) != 0)
		return rights;
	for (size_t i = 0; i < len / sizeof *groups; i++)
		rights |= rights_of_group(c, groups[i]);
	return rights;
}

bool roles_identify(const struct control *c, int fd, struct author *author)
{
	struct ucred cred;
	socklen_t len = sizeof cred;

	*author = (struct author){.uid = (uid_t)-1, .name = "(nobody)"};
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0)
		return false;
	author->uid = cred.uid;
	snprintf(author->name, sizeof author->name, "uid %u", (unsigned)cred.uid);
	author->rights = rights_of(c, fd, &cred);
	return author->rights != 0;
}

const char *roles_text(const struct author *author, char buf[ROLES_TEXT_MAX])
{
	size_t used = 0;

	if (author->rights == ALL)
		return roles[CONTROL_ROLE_ADMINISTRATOR].name;
	snprintf(buf, ROLES_TEXT_MAX, "%s", "nobody known here");
	/* A viewer is named only where there is no more to say. */
	for (unsigned i = CONTROL_ROLE_ADMINISTRATOR; i-- > 0;)
		if ((author->rights & roles[i].rights) == roles[i].rights && (i != CONTROL_ROLE_VIEWER || used == 0))
			used += (size_t)snprintf(buf + used, ROLES_TEXT_MAX - used, "%s%s", used == 0 ? "" : " and ",
						 roles[i].name);
	return buf;
}

const char *roles_author(const struct author *author, char buf[AUTHOR_TEXT_MAX])
{
	snprintf(buf, AUTHOR_TEXT_MAX, author->login[0] == '\0' ? "%s" : "%s (%s)", author->name, author->login);
	return buf;
}

/* ---- refused ------------------------------------------------------------------------------------------------------------ */

static void record(struct control *c, const struct author *author, const char *command, const char *why, unsigned more)
{
	char reason[AUDIT_TEXT_MAX + 1];

	if (more == 0)
		snprintf(reason, sizeof reason, "refused: %s%s%s", command, why == NULL ? "" : ": ", why == NULL ? "" : why);
	else
		snprintf(reason, sizeof reason, "refused: %s, %u more times within %d s", command, more, REFUSED_WINDOW_S);
	control_record(c, AUDIT_ADMIN, author, c->policy.revision, reason);
}

void roles_forget_refused(struct control *c)
{
	struct refused *r = &c->refused;

	for (size_t i = 0; i < r->n; i++)
		if (r->each[i].count > REFUSED_ROWS)
			record(c, &r->each[i].author, r->each[i].command, NULL, r->each[i].count - REFUSED_ROWS);
	r->n = 0;
	event_del(&r->timer);
}

static void on_window_over(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	roles_forget_refused(arg);
}

static struct refused_one *find(struct refused *r, const struct author *author, const char *command)
{
	for (size_t i = 0; i < r->n; i++)
		if (r->each[i].author.uid == author->uid && strcmp(r->each[i].command, command) == 0)
			return &r->each[i];
	return NULL;
}

void roles_record_refused(struct control *c, const struct author *author, const char *command, const char *why)
{
	struct refused *r = &c->refused;
	struct refused_one *one = find(r, author, command);

	if (r->n == 0)
		evtimer_add(&r->timer, &(struct timeval){.tv_sec = REFUSED_WINDOW_S});
	/* The last place is for everybody else. */
	if (one == NULL && r->n == REFUSED_MAX) {
		one = &r->each[REFUSED_MAX - 1];
		if (one->author.uid != (uid_t)-1) {
			if (one->count > REFUSED_ROWS)
				record(c, &one->author, one->command, NULL, one->count - REFUSED_ROWS);
			*one = (struct refused_one){.author = {.uid = (uid_t)-1, .name = "(many)"}, .command = "commands of many users"};
		}
	}
	if (one == NULL) {
		one = &r->each[r->n++];
		*one = (struct refused_one){.author = *author};
		snprintf(one->command, sizeof one->command, "%s", command);
	}
	if (++one->count <= REFUSED_ROWS)
		record(c, &one->author, one->command, why, 0);
	else if (one->count == REFUSED_ROWS + 1)
		log_warning("%s goes on asking for what is refused (%s): it is counted", one->author.name, one->command);
}
