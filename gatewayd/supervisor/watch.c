/* Who hangs serves nobody, while others go on queueing for it (the kernel, clients for a worker): each is asked for a sign of life,
 * several times within its time, and one that gives none is ended, and replaced as any that died.  One that was just started has
 * longer: it answers before it is ready, but not before it has come that far.
 *
 * The recorder may be at a disk that is slow for good reasons, and who waits for it is refused long before: its time is longer.
 * Nothing acknowledged is lost with it; what was not is sent again to its successor, by those whose records they are.  A
 * conversation may block for as long as its module likes, and has a deadline at the auth master; compilers and readers are
 * ended when they take too long. */
#include "config.h"

#include <event2/event.h>

#include "common/log.h"
#include "gatewayd/supervisor/internal.h"

#define ASKS 4
#define START_FACTOR 4

/* 0: it is not watched here. */
static unsigned patience_ms(const struct config *config, enum role role)
{
	switch (role) {
	case ROLE_WORKER:
		return config->worker_timeout_ms;
	case ROLE_RECORDER:
		return config->recorder_timeout_ms;
	case ROLE_CONTROL:
	case ROLE_AUTH:
	case ROLE_GSSAPI:
		return config->process_timeout_ms;
	default:
		return 0;
	}
}

static unsigned tick_ms(const struct supervisor *s)
{
	unsigned least = s->config->worker_timeout_ms;

	if (s->config->process_timeout_ms < least)
		least = s->config->process_timeout_ms;
	if (s->config->recorder_timeout_ms < least)
		least = s->config->recorder_timeout_ms;
	return least / ASKS;
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct supervisor *s = arg;
	unsigned tick = tick_ms(s);
	struct process *p;

	(void)fd, (void)what;
	if (s->phase != PHASE_RUNNING)
		return;
	TAILQ_FOREACH (p, &s->processes, next) {
		unsigned patience = patience_ms(s->config, p->role) * (p->ready ? 1 : START_FACTOR);

		if (patience == 0 || p->link == NULL)
			continue;
		if (p->unanswered >= patience / tick) {
			log_error("%s/%u has given no sign of life for %u ms and is ended", role_name(p->role), (unsigned)p->slot,
				  patience);
			process_kill(p);
			continue;
		}
		p->unanswered++;
		ipc_send(p->link, IPC_PING, NULL, 0, NULL, 0);
	}
}

void watch_start(struct supervisor *s)
{
	unsigned ms = tick_ms(s);
	struct timeval interval = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

	event_assign(&s->watch, s->base, -1, EV_PERSIST, on_tick, s);
	event_add(&s->watch, &interval);
}
