/* The auth master's other question to its conversation children: what is a uid of this host called?  The name service may block, and
 * control, which wants to show the name beside the uid, is confined.
 *
 * One uid at a time, by a child that no log-in wants: log-ins go first.  Whoever asks is told that the name is not known when that
 * takes too long; a child that hangs over it is replaced like one that hangs over a log-in, and the uid is left alone for a while. */
#include "config.h"

#include <event2/event.h>
#include <stdlib.h>
#include <string.h>

#include "auth/master.h"
#include "common/clock.h"
#include "common/log.h"

/* Until a child is free, and then for its answer. */
#define DEADLINE_S 5

static void tell(struct auth_master *m, const char *name)
{
	struct login_desk *d = &m->logins;
	uint32_t uid = d->waiting[0];

	memmove(d->waiting, d->waiting + 1, --d->n * sizeof *d->waiting);
	d->child = NULL;
	event_del(&d->deadline);
	if (d->n > 0)
		evtimer_add(&d->deadline, &(struct timeval){.tv_sec = DEADLINE_S});
	m->options.told_login(uid, name, m->options.arg);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct auth_master *m = arg;
	struct child *child = m->logins.child;

	(void)fd, (void)what;
	if (child == NULL) {
		tell(m, "");
		return;
	}
	log_warning("pam/%u was not told by the name service what uid %u is called within %d s: it is killed",
		    (unsigned)(child - m->children), (unsigned)m->logins.waiting[0], DEADLINE_S);
	master_kill_child(child, "");
	master_schedule(m);
}

void logins_init(struct auth_master *m)
{
	evtimer_assign(&m->logins.deadline, m->base, on_deadline, m);
}

void logins_close(struct auth_master *m)
{
	event_del(&m->logins.deadline);
	m->logins.n = 0;
	m->logins.child = NULL;
}

void auth_master_ask_login(struct auth_master *m, uint32_t uid)
{
	struct login_desk *d = &m->logins;

	for (unsigned i = 0; i < d->n; i++)
		if (d->waiting[i] == uid)
			return;
	if (d->n == LOGINS_WAITING_MAX || hangs_wait(&d->hangs, uid, clock_mono_us())) {
		m->options.told_login(uid, "", m->options.arg);
		return;
	}
	d->waiting[d->n++] = uid;
	if (d->n == 1)
		evtimer_add(&d->deadline, &(struct timeval){.tv_sec = DEADLINE_S});
	master_schedule(m);
}

bool logins_wait(const struct auth_master *m)
{
	return m->logins.n > 0 && m->logins.child == NULL;
}

void logins_start(struct child *child)
{
	struct login_desk *d = &child->master->logins;
	struct auth_login ask = {.uid = d->waiting[0]};
	uint8_t body[16];
	struct wire_writer w = wire_writer_on(body, sizeof body);

	arc4random_buf(&d->id, sizeof d->id);
	ask.id = d->id;
	d->child = child;
	child->used = true;
	evtimer_add(&d->deadline, &(struct timeval){.tv_sec = DEADLINE_S});
	auth_put_login_ask(&w, &ask);
	if (ipc_send_wire(child->link, IPC_PAM_LOGIN_ASK, &w) < 0)
		master_kill_child(child, "");
}

bool logins_answered(struct child *child, const struct ipc_message *message)
{
	struct login_desk *d = &child->master->logins;
	struct wire_reader r = wire_reader_on(message->body, message->len);
	struct auth_login told;

	if (!auth_get_login(&r, &told) || d->child != child || told.id != d->id || told.uid != d->waiting[0])
		return false;
	hangs_remove(&d->hangs, told.uid);
	tell(child->master, told.name);
	return true;
}

void logins_child_gone(struct child *child)
{
	struct login_desk *d = &child->master->logins;

	if (d->child != child)
		return;
	log_warning("what uid %u is called is not asked again for %lld s", (unsigned)d->waiting[0],
		    (long long)(hangs_add(&d->hangs, d->waiting[0], clock_mono_us()) / 1000000));
	tell(child->master, "");
}
