/* The GSSAPI process reads keytab and krb5.conf when it starts.  To have them read anew, another is started beside it: when that is
 * ready, it serves, and the one before it is retired, which means that it finishes what it has begun and is ended then by the auth
 * master.  One that cannot start costs nothing but a line that says why. */
#include "config.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "gatewayd/supervisor/internal.h"

#define RETIRED_LIFE_S 600 /* the auth master bounds what it waits for; this is for one that has forgotten it */

static struct process *gssapi_of(struct supervisor *s, unsigned part)
{
	struct process *p;

	TAILQ_FOREACH (p, &s->processes, next)
		if (p->role == ROLE_GSSAPI && p->part == part)
			return p;
	return NULL;
}

/* fault: NULL if it serves. */
static void answer(struct supervisor *s, const char *fault)
{
	const struct process *control = process_find(s, ROLE_CONTROL, 0);
	uint8_t body[620];
	struct wire_writer w = wire_writer_on(body, sizeof body);

	wire_put_text(&w, fault == NULL ? "" : fault);
	if (control != NULL && control->link != NULL)
		ipc_send_wire(control->link, IPC_GSSAPI_RENEWED, &w);
}

void gssapi_renew(struct supervisor *s)
{
	unsigned ms = s->config->gssapi_timeout_ms;
	struct timeval wait = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
	struct process *p;

	if (s->phase != PHASE_RUNNING || !config_has_gssapi(s->config)) {
		answer(s, s->phase == PHASE_RUNNING ? NULL : "the gateway is not running yet, or not any more");
		return;
	}
	if (gssapi_of(s, ON_TRIAL) != NULL) {
		answer(s, "another is being started already: reload again in a moment");
		return;
	}
	s->gssapi_fault[0] = '\0';
	p = process_add(s, ROLE_GSSAPI, ++s->next_gssapi_slot, false);
	p->part = ON_TRIAL;
	process_start(p);
	if (p->pid == 0) {
		process_remove(p);
		answer(s, "no process can be started");
		return;
	}
	evtimer_add(&p->timer, &wait);
}

static void retire(struct process *p)
{
	if (p->pid == 0) {
		process_remove(p);
		return;
	}
	p->part = RETIRED;
	evtimer_add(&p->timer, &(struct timeval){.tv_sec = RETIRED_LIFE_S});
}

void gssapi_promote(struct process *successor)
{
	struct supervisor *s = successor->sup;
	struct process *before = gssapi_of(s, SERVES);

	log_info("another GSSAPI process serves: keytab and krb5.conf have been read again");
	evtimer_del(&successor->timer);
	gssapi_end_retired(s); /* two generations are enough */
	successor->part = SERVES;
	if (before != NULL)
		retire(before);
	links_connect(successor);
	answer(s, NULL);
}

void gssapi_failed(struct process *p)
{
	char fault[700];

	if (p->sup->gssapi_fault[0] != '\0')
		snprintf(fault, sizeof fault, "%.600s", p->sup->gssapi_fault);
	else
		snprintf(fault, sizeof fault, "the process that read it ended: %.100s", p->last_end);
	log_error("%s: GSSAPI log-ins go on with what was read before", fault);
	answer(p->sup, fault);
}

void gssapi_end_retired(struct supervisor *s)
{
	struct process *p;

	TAILQ_FOREACH (p, &s->processes, next)
		if (p->role == ROLE_GSSAPI && p->part == RETIRED)
			process_kill(p);
}
