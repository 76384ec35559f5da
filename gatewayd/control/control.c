#include "config.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "gatewayd/control/internal.h"

/* Each takes as long as the store is patient. */
#define SETTLE_TRIES 10

/* ---- peers -------------------------------------------------------------------------------------------------------- */

static void peer_free(struct peer *p)
{
	LIST_REMOVE(p, next);
	status_peer_gone(p);
	auth_peer_gone(p);
	groups_peer_gone(p);
	sessions_peer_gone(p);
	policy_taken(p);
	preview_peer_gone(p);
	ipc_free(&p->link);
	free(p);
}

static void on_peer_message(struct ipc *link, struct ipc_message *m, void *arg)
{
	struct peer *p = arg;
	struct wire_reader r = wire_reader_on(m->body, m->len);

	(void)link;
	if (m->type == IPC_STATUS) {
		status_peer_answered(p, m);
	} else if (m->type == IPC_PREVIEWED) {
		preview_answered(p, m);
	} else if (m->type == IPC_AUTH_COMMANDED) {
		auth_answered(p, m);
	} else if (m->type == IPC_THROTTLED) {
		auth_throttled(p, m);
	} else if (m->type == IPC_LOGIN_TOLD) {
		names_told(p, m);
	} else if (m->type == IPC_GROUPS_TOLD) {
		groups_told(p, m);
	} else if (m->type == IPC_SESSIONS) {
		sessions_answered(p, m);
	} else if (m->type == IPC_POLICY_TAKEN) {
		char fault[512];
		uint32_t revision = wire_get_u32(&r), took_us = wire_get_u32(&r);

		wire_get_text(&r, fault, sizeof fault);
		if (!wire_done(&r) || fault[0] != '\0') {
			policy_not_taken(p, revision, wire_done(&r) ? fault : "its answer is malformed");
		} else if (revision == p->control->policy.revision) {
			if (took_us > p->control->policy.switch_us)
				p->control->policy.switch_us = took_us;
			policy_taken(p);
		}
	}
}

static void on_peer_gone(struct ipc *link, void *arg)
{
	(void)link;
	peer_free(arg);
}

static void add_peer(struct control *c, enum role role, uint16_t slot, int fd)
{
	struct peer *p, *following;

	for (p = LIST_FIRST(&c->peers); p != NULL; p = following) {
		following = LIST_NEXT(p, next);
		if (p->role == role && p->slot == slot)
			peer_free(p); /* restarted before its old link was seen to end */
	}
	p = calloc(1, sizeof *p);
	if (p == NULL)
		log_fatal("out of memory for a link to %s", role_name(role));
	p->control = c;
	p->role = role;
	p->slot = slot;
	p->link = ipc_new(fd, ROLE_CONTROL, role, slot);
	LIST_INSERT_HEAD(&c->peers, p, next);
	ipc_attach(p->link, c->child->base, on_peer_message, on_peer_gone, p);
	if (role == ROLE_AUTH)
		names_ask_again();
	if (role == ROLE_WORKER) {
		blocks_send(p); /* before there is a policy, nothing is decided */
		policy_send(c, p);
	}
}

static void spawn_answered(struct control *c, struct spawn *s, int fd)
{
	TAILQ_REMOVE(&c->spawns, s, next);
	s->started(c, fd, s->arg);
	free(s);
}

static struct spawn *first_spawn(struct control *c, unsigned role)
{
	struct spawn *s;

	TAILQ_FOREACH (s, &c->spawns, next)
		if (s->role == role)
			return s;
	return NULL;
}

static void on_peer(struct child *child, enum role peer, uint16_t slot, int fd)
{
	struct control *c = child->state;
	struct spawn *s;

	if (peer == ROLE_WORKER || peer == ROLE_AUTH) {
		add_peer(c, peer, slot, fd);
		return;
	}
	if (peer == ROLE_RECORDER) {
		recording_link(c->recording, fd);
		return;
	}
	s = first_spawn(c, peer);
	if (s == NULL) {
		log_error("the supervisor sent a %s that nobody asked for", role_name(peer));
		close(fd);
		return;
	}
	spawn_answered(c, s, fd);
}

void control_spawn(struct control *c, enum role role, void (*started)(struct control *c, int fd, void *arg), void *arg)
{
	struct spawn *s = calloc(1, sizeof *s);
	uint8_t body = (uint8_t)role;

	if (s == NULL)
		log_fatal("out of memory");
	s->role = role;
	s->started = started;
	s->arg = arg;
	TAILQ_INSERT_TAIL(&c->spawns, s, next);
	ipc_send(c->child->supervisor, IPC_SPAWN, &body, sizeof body, NULL, 0);
}

void control_end_worker(const struct peer *worker)
{
	uint8_t body[8];
	struct wire_writer out = wire_writer_on(body, sizeof body);

	wire_put_u8(&out, ROLE_WORKER);
	wire_put_u16(&out, worker->slot);
	ipc_send_wire(worker->control->child->supervisor, IPC_KILL, &out);
}

/* ---- our own events ------------------------------------------------------------------------------------------------- */

/* False: it does not fit. */
static bool fill_login(const struct author *author, const json_t *filter, struct audit_event *e)
{
	json_t *detail = json_pack("{s:I, s:s*, s:O*}", "uid", (json_int_t)author->uid, "login",
				   author->login[0] == '\0' ? NULL : author->login, "filter", filter);
	size_t len = json_dumpb(detail, e->detail, sizeof e->detail - 1, JSON_COMPACT | JSON_ENSURE_ASCII);

	e->detail[len < sizeof e->detail ? len : 0] = '\0';
	json_decref(detail);
	return len > 0 && len < sizeof e->detail;
}

static void fill_event(struct audit_event *e, enum audit_kind kind, const struct author *author, uint32_t revision, const char *reason)
{
	memset(e, 0, sizeof *e);
	e->kind = kind;
	e->time_us = clock_wall_us();
	e->revision = revision;
	if (author != NULL)
		snprintf(e->user, sizeof e->user, "%s", author->name);
	snprintf(e->reason, sizeof e->reason, "%s", reason);
	/* The name beside the uid, as it was then; it is plain text, see auth_login_valid(). */
	if (author != NULL && author->login[0] != '\0')
		fill_login(author, NULL, e);
}

struct record *control_record_for(struct control *c, enum audit_kind kind, const struct author *author, uint32_t revision,
				  const char *reason, struct waiter *waiter)
{
	static struct audit_event e;

	fill_event(&e, kind, author, revision, reason);
	return record_event(c->recording, &e, waiter);
}

struct record *control_record_query(struct control *c, const struct author *author, const char *reason, const json_t *filter,
				    struct waiter *waiter)
{
	static struct audit_event e;

	fill_event(&e, AUDIT_ADMIN, author, c->policy.revision, reason);
	/* What cannot be recorded as it was asked is not answered. */
	return fill_login(author, filter, &e) ? record_event(c->recording, &e, waiter) : NULL;
}

void control_record(struct control *c, enum audit_kind kind, const struct author *author, uint32_t revision, const char *reason)
{
	control_record_for(c, kind, author, revision, reason, NULL);
}

void control_record_event(struct control *c, struct audit_event *e)
{
	e->time_us = clock_wall_us();
	e->revision = c->policy.revision;
	record_event(c->recording, e, NULL);
}

/* ---- the supervisor ---------------------------------------------------------------------------------------------------- */

static void log_reload(struct control *c, const struct policy_result *r, void *arg)
{
	(void)c, (void)arg;
	control_log_notes(r->notes);
	if (r->ok && r->pending != 0)
		log_info("policy revision %u waits for an administrator's approval (gatewayctl policy approve): revision %u stays in force",
			 r->pending, r->revision);
	else if (r->ok)
		log_info("policy revision %u is in force", r->revision);
	else
		log_error("%s: revision %u stays in force", r->error, r->revision);
}

/* What the operator chose to do without is part of the record, and that changes take two. */
static void record_start(struct control *c)
{
	const struct config *config = c->child->config;
	char text[AUDIT_TEXT_MAX];

	snprintf(text, sizeof text, "gatewayd " PACKAGE_VERSION "%s%s%s%s", config->audit_relaxed ? "; audit-durability relaxed" : "",
		 config->audit_allow ? "; on-audit-failure allow" : "", config->policy_approval ? "; policy-approval true" : "",
		 config->audit_looks ? "" : "; audit-looks off");
	control_record(c, AUDIT_START, NULL, c->policy.revision, text);
}

static void on_message(struct child *child, struct ipc_message *m)
{
	struct control *c = child->state;
	struct wire_reader r = wire_reader_on(m->body, m->len);
	struct spawn *spawn;
	uint32_t restarts;

	switch (m->type) {
	case IPC_CONTROL_SOCKET:
		if (m->nfds != 1 || m->len != sizeof restarts || c->socket_fd >= 0)
			log_fatal("the supervisor sent a malformed CONTROL_SOCKET");
		memcpy(&restarts, m->body, sizeof restarts);
		admin_start(c, m->fds[0]);
		m->fds[0] = -1;
		if (restarts == 0)
			record_start(c);
		policy_start(c, restarts == 0);
		break;
	case IPC_SPAWN_REFUSED:
		spawn = first_spawn(c, wire_get_u8(&r));
		if (spawn != NULL)
			spawn_answered(c, spawn, -1);
		break;
	case IPC_RELOAD:
		policy_change(c,
			      &(struct policy_order){
				      .kind = ORDER_RELOAD, .by_signal = true, .author = {c->owner, "SIGHUP"}, .bundle_fd = -1},
			      log_reload, NULL);
		break;
	case IPC_FILE_OPENED:
	case IPC_FILE_REFUSED:
		policy_file_message(c, m);
		break;
	case IPC_TABLE_KEPT:
		if (m->nfds == 1 && tables_kept(c, wire_get_u8(&r), m->fds[0]))
			m->fds[0] = -1;
		break;
	case IPC_GSSAPI_RENEWED:
		policy_gssapi_renewed(c, m);
		break;
	case IPC_DRAINED:
		running_drained(c, m);
		break;
	case IPC_PROCESSES:
		status_processes(c, m);
		break;
	default:
		break;
	}
}

static void on_drained(void *arg)
{
	child_leave(arg);
}

static void on_stop(struct child *child)
{
	struct control *c = child->state;

	if (c->stopping)
		return;
	c->stopping = true;
	roles_forget_refused(c);
	looks_end(c);
	control_record(c, AUDIT_STOP, NULL, c->policy.revision, "gatewayd " PACKAGE_VERSION);
	recording_drain(c->recording, on_drained, child);
}

/* The link that our events go over is also where the recorder is asked for its status. */
static void on_recorder_message(struct ipc_message *m, void *arg)
{
	if (m->type == IPC_STATUS)
		status_recorder_answered(arg, m);
	else if (m->type == IPC_RETAINED)
		retention_answered(arg, m);
}

static void on_recorder_gone(void *arg)
{
	retention_recorder_gone(arg);
}

/* A control before us may have been killed while its keeper stood in a write that nothing ends: whether that is done is known once it
 * has let go of the store, and nobody reads from it before what is in force. */
static void settle_store(struct control *c)
{
	struct err why;

	for (unsigned i = 0; policy_store_settled(c->policy.store, &why) != 0; i++)
		if (i == SETTLE_TRIES)
			log_fatal("the policy store is being written to by another process: %s", why.text);
}

int control_main(struct child *child)
{
	struct control *c = calloc(1, sizeof *c);
	struct err why;
	char text[600];

	if (c == NULL)
		log_fatal("out of memory");
	c->child = child;
	c->socket_fd = -1;
	c->policy.image_fd = -1;
	LIST_INIT(&c->clients);
	LIST_INIT(&c->peers);
	TAILQ_INIT(&c->spawns);
	LIST_INIT(&c->previews);
	TAILQ_INIT(&c->drain_orders);
	TAILQ_INIT(&c->policy.askings);
	confirm_init(c);
	approvals_init(c);
	roles_init(c);
	looks_init(c);
	tables_init(c);
	c->recording = recording_new(
		child->base, ROLE_CONTROL,
		&(struct recording_callbacks){.message = on_recorder_message, .gone = on_recorder_gone, .arg = c});
	keeper_start(c);
	c->policy.store = policy_store_open("policy.db", false, &why);
	if (c->policy.store == NULL) {
		snprintf(text, sizeof text, "the policy store in %.100s/policy cannot be opened: %.400s",
			 child->config->state_dir, why.text);
		child_unusable(child, text);
	}
	settle_store(c);
	blocks_start(c);
	child->state = c;
	child->on_peer = on_peer;
	child->on_message = on_message;
	child->on_stop = on_stop;
	child->ready_later = true;
	return child_run(child);
}
