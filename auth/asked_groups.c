/* Another question to the conversation children: does this host have such groups?  A policy that names one that there is not has a rule that
 * never matches, and control, which tells of it, is confined.  One question at a time, by a child that no log-in wants, as for the names of
 * uids (logins.c). */
#include "config.h"

#include <event2/event.h>
#include <stdlib.h>
#include <string.h>

#include "auth/master.h"
#include "common/log.h"

/* Until a child is free, and then for its answer. */
#define DEADLINE_S 5

static void tell(struct auth_master *m, const struct auth_asked_groups *answer)
{
	struct groups_desk *d = &m->groups;
	struct auth_asked_groups told = d->waiting[0];

	if (answer != NULL)
		memcpy(told.states, answer->states, sizeof told.states);
	else
		memset(told.states, AUTH_GROUP_UNTOLD, sizeof told.states);
	memmove(d->waiting, d->waiting + 1, --d->n * sizeof *d->waiting);
	d->child = NULL;
	event_del(&d->deadline);
	if (d->n > 0)
		evtimer_add(&d->deadline, &(struct timeval){.tv_sec = DEADLINE_S});
	m->options.told_groups(&told, m->options.arg);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct auth_master *m = arg;
	struct child *child = m->groups.child;

	(void)fd, (void)what;
	if (child == NULL) {
		tell(m, NULL);
		return;
	}
	log_warning("pam/%u was not told by the name service within %d s whether there are groups that a policy names: it is killed",
		    (unsigned)(child - m->children), DEADLINE_S);
	master_kill_child(child, "");
	master_schedule(m);
}

void groups_init(struct auth_master *m)
{
	evtimer_assign(&m->groups.deadline, m->base, on_deadline, m);
}

void groups_close(struct auth_master *m)
{
	event_del(&m->groups.deadline);
	m->groups.n = 0;
	m->groups.child = NULL;
}

void auth_master_ask_groups(struct auth_master *m, const struct auth_asked_groups *asked)
{
	struct groups_desk *d = &m->groups;
	struct auth_asked_groups untold;

	if (d->n == GROUPS_WAITING_MAX) {
		untold = *asked;
		memset(untold.states, AUTH_GROUP_UNTOLD, sizeof untold.states);
		m->options.told_groups(&untold, m->options.arg);
		return;
	}
	d->waiting[d->n++] = *asked;
	if (d->n == 1)
		evtimer_add(&d->deadline, &(struct timeval){.tv_sec = DEADLINE_S});
	master_schedule(m);
}

bool groups_wait(const struct auth_master *m)
{
	return m->groups.n > 0 && m->groups.child == NULL;
}

void groups_start(struct child *child)
{
	struct groups_desk *d = &child->master->groups;
	struct auth_asked_groups ask = d->waiting[0];
	uint8_t body[8192];
	struct wire_writer w = wire_writer_on(body, sizeof body);

	arc4random_buf(&d->id, sizeof d->id);
	ask.id = d->id;
	d->child = child;
	child->used = true;
	evtimer_add(&d->deadline, &(struct timeval){.tv_sec = DEADLINE_S});
	auth_put_groups_ask(&w, &ask);
	if (ipc_send_wire(child->link, IPC_PAM_GROUPS_ASK, &w) < 0)
		master_kill_child(child, "");
}

bool groups_answered(struct child *child, const struct ipc_message *message)
{
	struct groups_desk *d = &child->master->groups;
	struct wire_reader r = wire_reader_on(message->body, message->len);
	struct auth_asked_groups told;

	if (!auth_get_groups_told(&r, &told) || d->child != child || told.id != d->id || told.n != d->waiting[0].n)
		return false;
	tell(child->master, &told);
	return true;
}

void groups_child_gone(struct child *child)
{
	struct auth_master *m = child->master;

	if (m->groups.child != child)
		return;
	/* Whoever waits behind it would be answered by the same name service, after as long, and at the cost of another child. */
	while (m->groups.n > 0)
		tell(m, NULL);
}
