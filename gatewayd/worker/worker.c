#include "config.h"

#include "gatewayd/worker/worker.h"

#include <errno.h>
#include <event2/event.h>
#include <jansson.h>
#include <signal.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/locked.h"
#include "common/log.h"
#include "gatewayd/recording.h"
#include "gatewayd/worker/fold.h"
#include "gatewayd/worker/gss.h"
#include "gatewayd/worker/recent.h"
#include "gatewayd/worker/resolver.h"
#include "gatewayd/worker/steer.h"

/* ---- ready: a policy to decide with, a recorder to write to -------------------------------------------------- */

static void report_policy(struct worker *w, uint32_t revision, int64_t took_us, const char *fault)
{
	uint8_t body[600];
	struct wire_writer out = wire_writer_on(body, sizeof body);

	wire_put_u32(&out, revision);
	wire_put_u32(&out, took_us < UINT32_MAX ? (uint32_t)took_us : UINT32_MAX);
	wire_put_text(&out, fault);
	if (w->control != NULL)
		ipc_send_wire(w->control, IPC_POLICY_TAKEN, &out);
}

static void take_policy(struct worker *w, struct ipc_message *m)
{
	struct wire_reader r = wire_reader_on(m->body, m->len);
	uint32_t revision = wire_get_u32(&r);
	bool first = w->rules == NULL;
	int64_t began_us = clock_mono_us();
	struct err why = {""};

	if (!wire_done(&r) || m->nfds != 1)
		log_fatal("control sent a malformed POLICY");
	if (authorise_take_image(w, m->fds[0], revision, &why) != 0)
		log_error("revision %u is not taken: %s", revision, why.text);
	report_policy(w, revision, clock_mono_us() - began_us, why.text);
	accept_update(w);
	if (first && w->rules != NULL)
		child_ready(w->child);
}

/* What those that live have carried; and what associations did not, those that have ended included.  All of it is counted as it
 * happens: to look at each session now would keep the others waiting. */
static void add_udp_status(const struct worker *w, json_t *status)
{
	const struct udp_counts c = w->udp_counts;
	const struct {
		const char *key;
		const uint64_t *count;
	} all[] = {{"udp_fragments", &c.fragments},     {"udp_malformed", &c.malformed},     {"udp_strangers", &c.strangers},
		   {"udp_unsolicited", &c.unsolicited}, {"udp_denied", &c.denied},           {"udp_over_bounds", &c.over_bounds},
		   {"udp_unsent", &c.unsent},           {"udp_icmp_errors", &c.icmp_errors}};

	json_object_set_new(status, "live_bytes_up", json_integer((json_int_t)(w->carried_up - w->counters.bytes_up)));
	json_object_set_new(status, "live_bytes_down", json_integer((json_int_t)(w->carried_down - w->counters.bytes_down)));
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		json_object_set_new(status, all[i].key, json_integer((json_int_t)*all[i].count));
}

static void add_names_status(const struct worker *w, json_t *status)
{
	const struct resolver_counts c = resolver_counts(w->resolver);

	json_object_update_new(status, json_pack("{s:I, s:I, s:I, s:I, s:I}", "names_hits", (json_int_t)c.hits, "names_joined", (json_int_t)c.joined,
						 "names_misses", (json_int_t)c.misses, "names_kept", (json_int_t)c.names, "names_bytes",
						 (json_int_t)c.bytes));
}

static void send_status(struct worker *w)
{
	const struct counters *c = &w->counters;
	json_t *status = json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "sessions", (json_int_t)w->nsessions,
				   "accepted", (json_int_t)c->accepted, "turned_away", (json_int_t)c->turned_away, "granted", (json_int_t)c->granted, "failed",
				   (json_int_t)c->failed, "denied", (json_int_t)c->denied, "login_failed",
				   (json_int_t)c->login_failed, "bytes_up", (json_int_t)c->bytes_up, "bytes_down",
				   (json_int_t)c->bytes_down, "audit_waiting",
				   (json_int_t)recording_waiting(w->recording), "max_sessions", (json_int_t)w->max_sessions);
	char text[4096];

	json_object_set_new(status, "ended_by_policy", json_integer((json_int_t)w->live.ended));
	if (w->draining)
		json_object_set_new(status, "draining", json_integer(1));
	if (c->unrecorded > 0)
		json_object_set_new(status, "unrecorded", json_integer((json_int_t)c->unrecorded));
	add_udp_status(w, status);
	add_names_status(w, status);
	size_t len = json_dumpb(status, text, sizeof text, JSON_COMPACT);

	json_decref(status);
	if (len <= sizeof text)
		ipc_send(w->control, IPC_STATUS, text, len, NULL, 0);
}

static void on_control_message(struct ipc *link, struct ipc_message *m, void *arg)
{
	struct worker *w = arg;
	struct err why;

	(void)link;
	switch (m->type) {
	case IPC_POLICY:
		take_policy(w, m);
		break;
	case IPC_GEO:
	case IPC_ASN:
		if (m->nfds == 1 && authorise_take_table(w, m->type == IPC_ASN ? &w->asn : &w->geo, m->fds[0], &why) != 0)
			/* Whoever comes in its place tries again: nobody goes on deciding by what is no longer in force. */
			log_fatal("the %s cannot be taken: %s", m->type == IPC_ASN ? "table of autonomous systems" : "country table",
				  why.text);
		break;
	case IPC_FORGET_NAMES:
		resolver_forget(w->resolver);
		break;
	case IPC_PREVIEW:
		worker_preview_start(w, m);
		break;
	case IPC_STATUS_ASK:
		send_status(w);
		break;
	default:
		steer_message(w, m);
		break;
	}
}

static void on_control_gone(struct ipc *link, void *arg)
{
	struct worker *w = arg;

	(void)link;
	steer_control_gone(w);
	ipc_free(&w->control); /* the policy in hand goes on deciding */
	worker_preview_stop(w);
	worker_link_lost(w);
}

/* ---- lost links ------------------------------------------------------------------------------------------------------ */

#define RELINK_S 2

static void ask_for(struct worker *w, uint8_t role, const struct ipc *link)
{
	if (link == NULL)
		ipc_send(w->child->supervisor, IPC_RELINK, &role, sizeof role, NULL, 0);
}

/* A peer that was restarted has been linked by now; one that lives, but lost its link to us, has not. */
static void on_relink(evutil_socket_t fd, short what, void *arg)
{
	struct worker *w = arg;

	(void)fd, (void)what;
	ask_for(w, ROLE_AUTH, w->auth);
	ask_for(w, ROLE_RECORDER, recording_peer(w->recording));
	ask_for(w, ROLE_CONTROL, w->control);
	if (w->auth == NULL || recording_peer(w->recording) == NULL || w->control == NULL)
		worker_link_lost(w);
}

void worker_link_lost(struct worker *w)
{
	struct timeval wait = {.tv_sec = RELINK_S};

	if (!evtimer_pending(&w->relink_timer, NULL))
		evtimer_add(&w->relink_timer, &wait);
}

static void on_recorder_gone(void *arg)
{
	worker_link_lost(arg);
}

/* ---- the supervisor ----------------------------------------------------------------------------------------------- */

static void on_peer(struct child *c, enum role peer, uint16_t slot, int fd)
{
	struct worker *w = c->state;

	switch (peer) {
	case ROLE_AUTH:
		authenticate_link(w, fd);
		return;
	case ROLE_RECORDER:
		recording_link(w->recording, fd);
		return;
	case ROLE_CONTROL:
		steer_control_gone(w);
		ipc_free(&w->control);
		worker_preview_stop(w);
		w->control = ipc_new(fd, ROLE_WORKER, ROLE_CONTROL, slot);
		ipc_attach(w->control, w->base, on_control_message, on_control_gone, w);
		return;
	default:
		log_fatal("the supervisor sent a link to %s, with whom a worker has no business", role_name(peer));
	}
}

static void on_message(struct child *c, struct ipc_message *m)
{
	struct worker *w = c->state;
	struct wire_reader r = wire_reader_on(m->body, m->len);

	if (m->type == IPC_LOCAL) {
		if (!authorise_take_local(w, m))
			log_fatal("the supervisor sent malformed addresses");
		accept_update(w);
		return;
	}
	if (m->type == IPC_DRAINING) {
		w->draining = wire_get_u8(&r) != 0;
		accept_update(w);
		return;
	}
	if (m->type == IPC_RESOLVER) {
		if (m->nfds == 2)
			resolver_use_system(w->resolver, m->fds[0], m->fds[1]);
		return;
	}
	uint16_t listener = wire_get_u16(&r), address = wire_get_u16(&r), slot = wire_get_u16(&r);

	if (!wire_done(&r))
		log_fatal("the supervisor sent a malformed %s", ipc_type_name(m->type));
	if (m->type == IPC_LISTENER && m->nfds == 1) {
		accept_add(w, listener, address, slot, m->fds[0]);
		m->fds[0] = -1;
	} else if (m->type == IPC_LISTENER_DROP) {
		accept_remove(w, listener, address, slot);
	}
}

static void on_drained(void *arg)
{
	child_leave(arg);
}

/* What was granted while nothing could be recorded is at least counted, once that is possible again. */
static void tell_unrecorded(struct worker *w)
{
	static struct audit_event e;
	uint64_t n = w->counters.unrecorded - w->unrecorded_told;

	if (n == 0 || !recording_grants(w->recording))
		return;
	memset(&e, 0, sizeof e);
	e.kind = AUDIT_ADMIN;
	e.time_us = clock_wall_us();
	snprintf(e.reason, sizeof e.reason,
		 "%llu sessions and flows were granted without a row while the audit could not be written (on-audit-failure allow)",
		 (unsigned long long)n);
	if (record_event(w->recording, &e, NULL) != NULL)
		w->unrecorded_told = w->counters.unrecorded;
}

static void on_progress(void *arg)
{
	tell_unrecorded(arg);
	accept_update(arg);
}

/* Every session gets its closing row before the process goes. */
static void on_stop(struct child *c)
{
	struct worker *w = c->state;
	struct session *s, *following;

	w->stopping = true;
	accept_update(w);
	for (s = TAILQ_FIRST(&w->sessions); s != NULL; s = following) {
		following = TAILQ_NEXT(s, next);
		if (s->state == SESSION_RELAYING || s->state == SESSION_ASSOCIATED)
			session_end(s, "gateway is stopping", false);
		else if (s->state == SESSION_CLOSING)
			session_drop(s);
		else
			session_refuse(s, REASON_SHUTDOWN, NULL);
	}
	fold_flush(w->fold);
	recording_drain(w->recording, on_drained, c);
}

static void on_folded(const struct audit_event *e, void *arg)
{
	struct worker *w = arg;

	record_event(w->recording, e, NULL);
}

uint64_t worker_random_tag(void)
{
	uint64_t tag;

	do {
		randombytes_buf(&tag, sizeof tag);
		tag &= ~(uint64_t)0xffffff;
	} while (tag == 0);
	return tag;
}

int worker_main(struct child *c)
{
	struct worker *w = calloc(1, sizeof *w);
	struct err why;

	if (w == NULL || sodium_init() < 0)
		log_fatal("cannot start: out of memory, or no source of randomness");
	w->child = c;
	w->config = c->config;
	w->base = c->base;
	w->session_tag = worker_random_tag();
	locked_keep(w->buffer, sizeof w->buffer); /* what GSSAPI protects is plain in it for a moment */
	if (sockets_init(&w->sockets, w->base) != 0)
		log_fatal("cannot watch sockets: %s", strerror(errno));
	sessions_init(w);
	live_init(w);
	TAILQ_INIT(&w->asking);
	TAILQ_INIT(&w->admitting);
	w->recording = recording_new(w->base, ROLE_WORKER,
				     &(struct recording_callbacks){.progress = on_progress, .gone = on_recorder_gone, .arg = w});
	w->fold = fold_new(w->base, w->config->fold_after, on_folded, w);
	if (w->config->audit_relaxed)
		recording_relax(w->recording);
	w->steer = steer_new(w);
	w->recent = recent_new();
	accept_init(w);
	authorise_learn_ports(w);
	evtimer_assign(&w->relink_timer, w->base, on_relink, w);
	w->resolver = resolver_new(w->base, w->config, &why);
	if (w->resolver == NULL)
		log_fatal("%s", why.text);
	if (config_has_gssapi(w->config))
		gss_prepare(w->config->gssapi_krb5_conf);
	c->state = w;
	c->on_peer = on_peer;
	c->on_message = on_message;
	c->on_stop = on_stop;
	c->ready_later = true;
	return child_run(c);
}
