/* A worker that hangs serves nobody, while the kernel goes on queueing clients for it: each is asked for a sign of life, several
 * times within worker-timeout, and one that gives none is ended, and replaced as any that died.  One that was just started has
 * longer: it answers before it is ready, but not before it has come that far. */
#include "config.h"

#include <event2/event.h>

#include "common/log.h"
#include "gatewayd/supervisor/internal.h"

#define ASKS 4
#define START_ASKS (4 * ASKS)

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct supervisor *s = arg;
	struct process *p;

	(void)fd, (void)what;
	if (s->phase != PHASE_RUNNING)
		return;
	TAILQ_FOREACH (p, &s->processes, next) {
		unsigned asks = p->ready ? ASKS : START_ASKS;

		if (p->role != ROLE_WORKER || p->link == NULL)
			continue;
		if (p->unanswered >= asks) {
			log_error("worker/%u has given no sign of life for %u ms and is ended", (unsigned)p->slot,
				  s->config->worker_timeout_ms / ASKS * asks);
			process_kill(p);
			continue;
		}
		p->unanswered++;
		ipc_send(p->link, IPC_PING, NULL, 0, NULL, 0);
	}
}

void watch_start(struct supervisor *s)
{
	unsigned ms = s->config->worker_timeout_ms / ASKS;
	struct timeval interval = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

	event_assign(&s->watch, s->base, -1, EV_PERSIST, on_tick, s);
	event_add(&s->watch, &interval);
}
