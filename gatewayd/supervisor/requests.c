#include "config.h"

#include <event2/event.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/text.h"
#include "gatewayd/supervisor/internal.h"

/* Counted apart: whoever leaves queries unread must not keep a policy from being compiled.  Four compilers are at work at most (a change,
 * two dry runs, a table); others have answered and are on their way out, or are an abandoned change's. */
#define READERS_MAX 6
#define COMPILERS_MAX 12

static void on_ready(struct process *p, struct ipc_message *m)
{
	(void)m;
	p->unanswered = 0;
	if (!p->ready)
		supervisor_child_ready(p);
}

static void on_pong(struct process *p, struct ipc_message *m)
{
	(void)m;
	p->unanswered = 0;
}

static void on_unusable(struct process *p, struct ipc_message *m)
{
	char why[600];

	text_escape(m->body, m->len, why, sizeof why);
	if (p->part == ON_TRIAL)
		memcpy(p->sup->gssapi_fault, why, sizeof why);
	else
		supervisor_give_up(p->sup, p, why);
}

static unsigned count_running(const struct supervisor *s, unsigned role)
{
	const struct process *p;
	unsigned n = 0;

	TAILQ_FOREACH (p, &s->processes, next)
		n += p->temporary && p->role == role;
	return n;
}

static void on_spawn(struct process *control, struct ipc_message *m)
{
	struct wire_reader r = wire_reader_on(m->body, m->len);
	unsigned role = wire_get_u8(&r);
	struct supervisor *s = control->sup;
	struct process *p;

	if (!wire_done(&r) || (role != ROLE_COMPILER && role != ROLE_READER)) {
		log_error("control asked to start something else than a compiler or a reader");
		process_kill(control);
		return;
	}
	if (count_running(s, role) >= (role == ROLE_READER ? READERS_MAX : COMPILERS_MAX)) {
		log_warning("control asked for another %s while %u run: refused", role_name((enum role)role), count_running(s, role));
		ipc_send(control->link, IPC_SPAWN_REFUSED, m->body, m->len, NULL, 0);
		return;
	}
	p = process_add(s, (enum role)role, s->next_temporary_slot++, true);
	process_start(p);
	if (p->link != NULL && links_pair(control, p) == 0)
		return;
	ipc_send(control->link, IPC_SPAWN_REFUSED, m->body, m->len, NULL, 0);
	if (p->pid > 0) {
		process_kill(p); /* and forgotten when it is reaped */
		return;
	}
	process_remove(p);
}

/* A link between two that both live can end by a fault of the moment: they get another. */
static void on_relink(struct process *worker, struct ipc_message *m)
{
	struct wire_reader r = wire_reader_on(m->body, m->len);
	unsigned role = wire_get_u8(&r);
	struct process *peer = wire_done(&r) && role < ROLE_COUNT ? process_find(worker->sup, (enum role)role, 0) : NULL;

	if (peer != NULL && peer->link != NULL && (role == ROLE_AUTH || role == ROLE_RECORDER || role == ROLE_CONTROL))
		links_pair(worker, peer);
}

static void on_file_open(struct process *control, struct ipc_message *m)
{
	struct wire_reader r = wire_reader_on(m->body, m->len);
	unsigned file = wire_get_u8(&r);
	uint8_t body[600];
	struct wire_writer w = wire_writer_on(body, sizeof body);
	struct err why;

	if (!wire_done(&r) || file >= CONFIG_FILES)
		return;
	int fd = files_open_configured(control->sup, (enum config_file)file, &why);

	wire_put_u8(&w, (uint8_t)file);
	if (fd >= 0) {
		ipc_send(control->link, IPC_FILE_OPENED, body, w.len, &fd, 1);
		return;
	}
	wire_put_text(&w, why.text);
	ipc_send_wire(control->link, IPC_FILE_REFUSED, &w);
}

/* A database may be damaged by the time that control is restarted; the table that was made of it before goes on counting. */
static void on_table_keep(struct process *control, struct ipc_message *m)
{
	struct wire_reader r = wire_reader_on(m->body, m->len);
	unsigned file = wire_get_u8(&r);
	int *held;

	if (!wire_done(&r) || file >= CONFIG_FILES || m->nfds != 1)
		return;
	held = &control->sup->tables[file];
	if (*held >= 0)
		close(*held);
	*held = m->fds[0];
	m->fds[0] = -1;
}

void requests_return_tables(const struct process *control)
{
	for (uint8_t file = 0; file < CONFIG_FILES; file++) {
		int held = control->sup->tables[file], fd = held < 0 ? -1 : fcntl(held, F_DUPFD_CLOEXEC, 0);

		if (fd >= 0)
			ipc_send(control->link, IPC_TABLE_KEPT, &file, sizeof file, &fd, 1);
	}
}

#define BIT(role) (1u << ROLE_##role)

/* Who may have whom ended: never a role that meets clients, and nobody the recorder. */
static const unsigned may_end[ROLE_COUNT] = {
	[ROLE_AUTH] = BIT(PAM) | BIT(GSSAPI) | BIT(WORKER),
	[ROLE_RECORDER] = BIT(WORKER),
	[ROLE_CONTROL] = BIT(WORKER) | BIT(COMPILER) | BIT(READER),
};

static void on_kill(struct process *asker, struct ipc_message *m)
{
	struct wire_reader r = wire_reader_on(m->body, m->len);
	unsigned role = wire_get_u8(&r);
	uint16_t slot = wire_get_u16(&r);
	struct process *p = wire_done(&r) && role < ROLE_COUNT ? process_find(asker->sup, (enum role)role, slot) : NULL;

	if (p == NULL || !(may_end[asker->role] & 1u << role))
		return;
	if (p->part == RETIRED) {
		log_debug("%s/%u has finished what it had begun", role_name(p->role), slot);
		process_kill(p);
		return;
	}
	log_warning("%s/%u is ended at the request of %s", role_name(p->role), slot, role_name(asker->role));
	p->killed_on_request = p->role == ROLE_PAM || p->role == ROLE_GSSAPI; /* no fault of its own: no pause before the next */
	process_kill(p);
}

static void on_renew(struct process *control, struct ipc_message *m)
{
	(void)m;
	gssapi_renew(control->sup);
}

/* The auth master knows how many log-ins wait; we know what is allowed. */
static void on_pool(struct process *auth, struct ipc_message *m)
{
	struct supervisor *s = auth->sup;
	struct wire_reader r = wire_reader_on(m->body, m->len);
	unsigned wanted = wire_get_u16(&r);
	struct process *p;

	if (!wire_done(&r) || wanted < s->config->pam_processes_min || wanted > s->config->pam_processes)
		return;
	s->pam_wanted = wanted;
	TAILQ_FOREACH (p, &s->processes, next) {
		if (p->role != ROLE_PAM)
			continue;
		if (!process_wanted(p) && p->pid > 0) {
			p->killed_on_request = true;
			process_kill(p);
		} else if (process_wanted(p) && p->pid == 0 && !evtimer_pending(&p->timer, NULL)) {
			process_start(p);
		}
	}
}

static void on_logged(struct process *p, struct ipc_message *m)
{
	char who[32];

	snprintf(who, sizeof who, "%s/%u", role_name(p->role), (unsigned)p->slot);
	requests_note_error(p->sup, who, (const char *)m->body, m->len);
}

void requests_note_error(struct supervisor *s, const char *who, const char *text, size_t len)
{
	snprintf(s->last_error, sizeof s->last_error, "%.*s", (int)len, text);
	snprintf(s->last_error_of, sizeof s->last_error_of, "%s", who);
	s->last_error_us = clock_wall_us();
}

static void on_drain(struct process *control, struct ipc_message *m)
{
	uint8_t body[620];
	struct wire_writer w = wire_writer_on(body, sizeof body);
	struct err why = {.text = ""};

	if (m->len != 1)
		return;
	listen_drain(control->sup, m->body[0] != 0, &why);
	wire_put_text(&w, why.text);
	ipc_send_wire(control->link, IPC_DRAINED, &w);
}

static void on_set_log_level(struct process *control, struct ipc_message *m)
{
	struct supervisor *s = control->sup;
	struct process *p;

	if (m->len != 1 || m->body[0] > LOG_DEBUG)
		return;
	s->log_level = m->body[0];
	log_set_level((enum log_level)s->log_level);
	TAILQ_FOREACH (p, &s->processes, next)
		if (p->link != NULL)
			ipc_send(p->link, IPC_LOG_LEVEL, m->body, 1, NULL, 0);
}

static void on_processes_ask(struct process *control, struct ipc_message *m)
{
	static uint8_t body[65536];
	struct wire_writer w = wire_writer_on(body, sizeof body);
	struct process *p;
	uint16_t count = 1;

	(void)m;
	TAILQ_FOREACH (p, &control->sup->processes, next)
		count += process_wanted(p);
	wire_put_u16(&w, count);
	wire_put_u8(&w, ROLE_SUPERVISOR);
	wire_put_u16(&w, 0);
	wire_put_u32(&w, (uint32_t)getpid());
	wire_put_u8(&w, 1);
	wire_put_u32(&w, 0);
	wire_put_u64(&w, (uint64_t)control->sup->started_us);
	wire_put_text(&w, "");
	TAILQ_FOREACH (p, &control->sup->processes, next) {
		if (!process_wanted(p))
			continue;
		wire_put_u8(&w, (uint8_t)p->role);
		wire_put_u16(&w, p->slot);
		wire_put_u32(&w, (uint32_t)p->pid);
		wire_put_u8(&w, p->ready);
		wire_put_u32(&w, p->restarts);
		wire_put_u64(&w, (uint64_t)p->started_us);
		wire_put_text(&w, p->last_end);
	}
	wire_put_u64(&w, (uint64_t)control->sup->last_error_us);
	wire_put_text(&w, control->sup->last_error_of);
	wire_put_text(&w, control->sup->last_error);
	wire_put_u8(&w, control->sup->draining);
	wire_put_u16(&w, listen_mute(control->sup));
	ipc_send_wire(control->link, IPC_PROCESSES, &w);
}

static void (*const handlers[IPC_TYPE_COUNT])(struct process *, struct ipc_message *) = {
	[IPC_READY] = on_ready,         [IPC_UNUSABLE] = on_unusable, [IPC_SPAWN] = on_spawn,
	[IPC_RELINK] = on_relink,       [IPC_PONG] = on_pong,
	[IPC_FILE_OPEN] = on_file_open, [IPC_KILL] = on_kill,         [IPC_PROCESSES_ASK] = on_processes_ask,
	[IPC_POOL] = on_pool,           [IPC_GSSAPI_RENEW] = on_renew,
	[IPC_TABLE_KEEP] = on_table_keep,
	[IPC_LOGGED] = on_logged,       [IPC_DRAIN] = on_drain,       [IPC_SET_LOG_LEVEL] = on_set_log_level,
};

void requests_handle(struct ipc *link, struct ipc_message *m, void *arg)
{
	(void)link;
	if (handlers[m->type] != NULL)
		handlers[m->type](arg, m);
}
