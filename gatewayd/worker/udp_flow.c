#include "config.h"

#include <assert.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "gatewayd/worker/asked.h"
#include "gatewayd/worker/recent.h"
#include "gatewayd/worker/resolver.h"
#include "gatewayd/worker/shared.h"
#include "gatewayd/worker/steer.h"
#include "gatewayd/worker/udp.h"
#include "gatewayd/worker/worker.h"

/* How long a denial stands before the destination is asked for again. */
#define DENIED_S 5

/* ---- finding ---------------------------------------------------------------------------------------------------- */

/* FNV-1a; an attacker who makes flows collide makes his own association slow, within UDP_FLOWS_MAX. */
static unsigned hash(const void *data, size_t len, uint32_t h)
{
	const uint8_t *at = data;

	while (len-- > 0)
		h = (h ^ *at++) * 16777619u;
	return h;
}

static unsigned request_bucket(const struct request *r)
{
	uint32_t h = hash(&r->port, sizeof r->port, 2166136261u);

	return (r->has_name ? hash(r->name.text, r->name.len, h) : hash(r->address.bytes, sizeof r->address.bytes, h)) %
	       UDP_BUCKETS;
}

static unsigned remote_bucket(const struct addr *a, uint16_t port)
{
	return hash(a->bytes, sizeof a->bytes, hash(&port, sizeof port, 2166136261u)) % UDP_BUCKETS;
}

static bool same_request(const struct request *a, const struct request *b)
{
	if (a->port != b->port || a->has_name != b->has_name)
		return false;
	return a->has_name ? strcmp(a->name.text, b->name.text) == 0 : addr_equal(&a->address, &b->address);
}

struct udp_flow *flow_of_remote(struct association *a, const struct endpoint *remote)
{
	struct udp_flow *f;

	LIST_FOREACH (f, &a->by_remote[remote_bucket(&remote->addr, remote->port)], by_remote)
		if (f->state == FLOW_OPEN && (f->datagrams_up > 0 || f->inbound) && f->request.port == remote->port &&
		    addr_equal(&f->remote, &remote->addr))
			return f;
	return NULL;
}

/* ---- records ---------------------------------------------------------------------------------------------------- */

void udp_flow_event(const struct udp_flow *f, enum audit_kind kind, struct audit_event *e)
{
	session_event(f->association->session, kind, e);
	e->revision = f->revision;
	e->address = (struct endpoint){.addr = f->remote, .port = f->request.port};
	if (e->address.addr.family == ADDR_NONE && !f->request.has_name)
		e->address.addr = f->request.address;
	e->bytes_up = f->bytes_up;
	e->bytes_down = f->bytes_down;
	snprintf(e->name, sizeof e->name, "%s", f->request.has_name ? f->request.name.text : "");
	snprintf(e->rule, sizeof e->rule, "%s", f->rule == NULL ? "" : f->rule);
}

static void drop_waiting(struct udp_flow *f)
{
	struct worker *w = f->association->session->worker;
	struct waiting_datagram *d;

	while ((d = STAILQ_FIRST(&f->waiting)) != NULL) {
		STAILQ_REMOVE_HEAD(&f->waiting, next);
		f->association->waiting_bytes -= d->len;
		w->udp_waiting_bytes -= d->len;
		f->nwaiting--;
		free(d);
	}
}

/* Anybody can knock, under any address, and a client can name any destination: that must fill neither the audit nor the log. */
static bool may_tell(struct association *a, bool inbound)
{
	int64_t now = clock_mono_us(), seconds = (now - a->denials_us) / 1000000;

	if (!recording_has_plenty(a->session->worker->recording))
		return false;
	if (inbound)
		return a->inbound_denials < UDP_INBOUND_DENIALS && ++a->inbound_denials > 0;
	a->denials_us += seconds * 1000000;
	a->denials -= seconds < a->denials ? (unsigned)seconds : a->denials;
	return a->denials < UDP_DENIALS && ++a->denials > 0;
}

/* Stays as a flow that drops: its next datagrams are not worth a row each.  told: with a row. */
static void refuse(struct udp_flow *f, enum reason reason, const char *detail, const struct policy_decision *d, bool told)
{
	static struct audit_event e;

	UDP_COUNT(f->association, denied, f->nwaiting);
	drop_waiting(f);
	f->state = FLOW_DENIED;
	f->denied_s = clock_mono_us() / 1000000;
	f->revision = f->association->session->worker->rules->revision;
	if (!told)
		return;
	udp_flow_event(f, AUDIT_DENIED, &e);
	if (d != NULL)
		detail_write_flow(f, d, &e);
	snprintf(e.reason, sizeof e.reason, "%s%s%s", reason_word(reason), detail == NULL ? "" : ": ",
		 detail == NULL ? "" : detail);
	recent_refused(f->association->session->worker, &e);
	record_event(f->association->session->worker->recording, &e, NULL);
}

static void deny(struct udp_flow *f, enum reason reason, const char *detail)
{
	refuse(f, reason, detail, NULL, may_tell(f->association, f->inbound));
}

static void end_patience(struct udp_flow *f)
{
	if (event_initialized(&f->patience))
		event_del(&f->patience);
}

static void open_recorded(struct udp_flow *f)
{
	struct waiting_datagram *d;

	end_patience(f);
	f->state = FLOW_OPEN;
	/* The record may have taken long: what waited is sent by the policy of now. */
	if (!flow_still_allowed(f))
		return;
	STAILQ_FOREACH (d, &f->waiting, next)
		(d->back ? udp_send_back : udp_send)(f, d->data, d->len);
	udp_flush();
	drop_waiting(f);
}

static void on_durable(struct waiter *w)
{
	struct udp_flow *f = (struct udp_flow *)w; /* its first member */

	f->record = NULL;
	open_recorded(f);
}

/* Its record is on its way, and goes on without it. */
static void on_patience_over(evutil_socket_t fd, short what, void *arg)
{
	struct udp_flow *f = arg;

	(void)fd, (void)what;
	record_forget(&f->record);
	open_recorded(f);
}

/* The operator's explicit choice: it is granted all the same, in time. */
static void grant_all_the_same(struct udp_flow *f)
{
	struct worker *w = f->association->session->worker;
	int64_t ms = w->config->audit_timeout_ms;
	struct timeval patience = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

	/* In the next turn, what waits is sent. */
	if (f->record == NULL) {
		f->unrecorded = true;
		w->counters.unrecorded++;
		patience = (struct timeval){0};
	}
	evtimer_assign(&f->patience, w->child->base, on_patience_over, f);
	evtimer_add(&f->patience, &patience);
}

/* ---- deciding ------------------------------------------------------------------------------------------------------ */

static struct policy_request facts(const struct udp_flow *f)
{
	struct policy_request req = authorise_facts(f->association->session, NULL); /* which has no name */

	req.name = f->request.has_name ? &f->request.name : NULL;
	req.address = f->request.address;
	req.port = f->request.port;
	return req;
}

static void note_decision(struct udp_flow *f, const struct policy_decision *d)
{
	const struct worker *w = f->association->session->worker;

	shared_set(&f->rule, policy_rule_name(w->rules->image, d->rule));
	f->revision = w->rules->revision;
	f->epoch = w->live.epoch;
	f->ends_us = 0;
}

static void log_flow(const struct udp_flow *f, const struct policy_decision *d)
{
	const struct session *s = f->association->session;
	char address[ADDR_TEXT_MAX];

	authorise_log(s, d, f->request.has_name ? f->request.name.text : addr_format(&f->request.address, address),
		      f->request.port);
}

static void deny_by_policy(struct udp_flow *f, const struct policy_decision *d)
{
	bool told = may_tell(f->association, f->inbound);
	char text[AUDIT_TEXT_MAX];

	note_decision(f, d);
	if (told)
		log_flow(f, d);
	refuse(f, REASON_POLICY, policy_decision_text(f->association->session->worker->rules->image, d, text, sizeof text), d, told);
}

static void open_flow(struct udp_flow *f, const struct addr *remote, const struct policy_decision *d)
{
	static struct audit_event e;
	struct worker *w = f->association->session->worker;

	note_decision(f, d);
	log_flow(f, d);
	f->remote = *remote;
	f->source = policy_rule_source(w->rules->image, d->rule);
	f->opened_us = clock_mono_us();
	LIST_INSERT_HEAD(&f->association->by_remote[remote_bucket(remote, f->request.port)], f, by_remote);
	f->state = FLOW_RECORDING;
	f->waiter.durable = on_durable;
	udp_flow_event(f, AUDIT_FLOW, &e);
	detail_write_flow(f, d, &e);
	if (recording_grants(w->recording))
		f->record = record_event(w->recording, &e, &f->waiter);
	if (w->config->audit_allow)
		grant_all_the_same(f);
	else if (f->record == NULL)
		deny(f, REASON_AUDIT, "the audit does not keep up");
}

/* Whether the kernel would send there at all: a name's IPv6 address is of no use where there is no IPv6.  Sends nothing. */
static bool has_way_to(const struct addr *address, uint16_t port)
{
	struct endpoint to = {.addr = *address, .port = port};
	struct sockaddr_storage sa;
	socklen_t len = endpoint_to_sockaddr(&to, &sa);
	int fd = socket(sa.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool way = fd >= 0 && connect(fd, (struct sockaddr *)&sa, len) == 0;

	if (fd >= 0)
		close(fd);
	return way;
}

static const char *blocked(const struct udp_flow *f, const struct addr *address, const char *rule,
			   const struct name *aliases, size_t naliases)
{
	return steer_blocked(f->association->session, f->request.has_name ? f->request.name.text : NULL, address, f->request.port, rule,
			     aliases, naliases);
}

static void decide_addresses(struct udp_flow *f, const struct addr *addresses, size_t n, const struct name *aliases, size_t naliases)
{
	struct worker *w = f->association->session->worker;
	struct policy_context ctx = authorise_context(w);
	struct policy_request req = facts(f);
	struct policy_decision each[ANSWER_ADDRESSES_MAX], whole;

	policy_decide_answers(&ctx, &req, addresses, n, aliases, naliases, each, &whole);
	if (whole.verdict != POLICY_ALLOW) {
		deny_by_policy(f, &whole);
		return;
	}
	size_t chosen = n;
	const char *why = NULL;

	for (size_t i = 0; i < n; i++) {
		const char *no = each[i].verdict != POLICY_ALLOW
					 ? NULL
					 : blocked(f, &addresses[i], policy_rule_name(w->rules->image, each[i].rule), aliases, naliases);

		if (no != NULL)
			why = no;
		if (no != NULL || each[i].verdict != POLICY_ALLOW)
			continue;
		if (n == 1 || has_way_to(&addresses[i], f->request.port)) {
			chosen = i;
			break;
		}
		if (chosen == n)
			chosen = i; /* of several without a way, the first */
	}
	assert(chosen < n || why != NULL); /* the whole is allowed when one is */
	if (chosen == n) {
		deny(f, REASON_BLOCKED, why);
		return;
	}
	open_flow(f, &addresses[chosen], &each[chosen]);
}

static void lookup_over(struct udp_flow *f)
{
	f->association->nlookups--;
	f->association->session->worker->udp_lookups--;
}

static void on_answer(const struct answer *answer, void *arg)
{
	struct udp_flow *f = arg;

	f->lookup = NULL;
	lookup_over(f);
	if (answer->failure != REASON_NONE) {
		deny(f, answer->failure, answer->detail);
		return;
	}
	if (answer_keep(&f->answer, answer->addresses, answer->naddresses, answer->aliases, answer->naliases) != 0)
		deny(f, REASON_FAULT, "out of memory");
	else
		decide_addresses(f, answer->addresses, answer->naddresses, answer->aliases, answer->naliases);
}

static void decide(struct udp_flow *f)
{
	struct worker *w = f->association->session->worker;
	struct policy_context ctx = authorise_context(w);
	struct policy_request req = facts(f);
	struct policy_decision d;

	if (!f->request.has_name) {
		decide_addresses(f, &f->request.address, 1, NULL, 0);
		return;
	}
	const char *why = blocked(f, NULL, NULL, NULL, 0);

	if (why != NULL) {
		deny(f, REASON_BLOCKED, why);
		return;
	}
	policy_decide_name(&ctx, &req, &d);
	if (d.verdict != POLICY_RESOLVE) {
		deny_by_policy(f, &d);
		return;
	}
	f->state = FLOW_RESOLVING;
	f->lookup = resolver_lookup(w->resolver, &f->request.name, on_answer, f);
	if (f->lookup == NULL) {
		deny(f, REASON_FAULT, "out of memory");
		return;
	}
	f->association->nlookups++;
	w->udp_lookups++;
}

void flow_decide(const struct udp_flow *f, const struct policy_context *ctx, struct policy_decision *d)
{
	struct policy_request req = facts(f);

	asked_again(ctx, &req, f->answer, &f->remote, true, d);
}

/* By the rule that allows it now. */
static bool still_unblocked(struct udp_flow *f)
{
	struct name aliases[ANSWER_ALIASES_MAX];
	char reason[AUDIT_TEXT_MAX + 64];
	const char *why = blocked(f, &f->remote, f->rule, aliases, answer_aliases(f->answer, aliases));

	if (why == NULL)
		return true;
	snprintf(reason, sizeof reason, "%s: %s", reason_word(REASON_BLOCKED), why);
	flow_end(f, reason);
	return false;
}

bool flow_still_allowed(struct udp_flow *f)
{
	struct worker *w = f->association->session->worker;
	char reason[AUDIT_TEXT_MAX + 64], text[AUDIT_TEXT_MAX];
	struct policy_context ctx;
	struct policy_decision d;

	live_look(w);
	if (f->epoch == w->live.epoch || w->config->live_keep)
		return true;
	ctx = authorise_context(w);
	flow_decide(f, &ctx, &d);
	if (d.verdict == POLICY_ALLOW) {
		note_decision(f, &d);
		f->source = policy_rule_source(w->rules->image, d.rule);
		return still_unblocked(f);
	}
	f->epoch = w->live.epoch;
	/* Grace is for who has begun. */
	if (f->datagrams_up + f->datagrams_down > 0 && live_grace(w, &f->ends_us))
		return true;
	w->live.ended++;
	note_decision(f, &d);
	log_flow(f, &d);
	snprintf(reason, sizeof reason, "denied by policy now: %s", policy_decision_text(w->rules->image, &d, text, sizeof text));
	flow_end(f, reason);
	return false;
}

void flow_checkpoint(struct udp_flow *f, int64_t now_us)
{
	static struct audit_event e;
	struct recording *recording = f->association->session->worker->recording;
	uint64_t bytes = f->bytes_up + f->bytes_down;

	if (f->state != FLOW_OPEN || f->unrecorded || bytes == f->checked_bytes || !recording_has_room(recording))
		return;
	f->checked_bytes = bytes;
	udp_flow_event(f, AUDIT_FLOW_CHECKPOINT, &e);
	e.duration_us = now_us - f->opened_us;
	record_event(recording, &e, NULL);
}

/* ---- life ------------------------------------------------------------------------------------------------------------ */

void flow_end(struct udp_flow *f, const char *reason)
{
	static struct audit_event e;
	struct association *a = f->association;

	udp_flush(); /* it may wait there */
	end_patience(f);
	if (!f->unrecorded && (f->state == FLOW_OPEN || f->state == FLOW_RECORDING)) {
		udp_flow_event(f, AUDIT_FLOW_ENDED, &e);
		e.duration_us = clock_mono_us() - f->opened_us;
		snprintf(e.reason, sizeof e.reason, "%s", reason);
		snprintf(e.detail, sizeof e.detail, "{\"datagrams_up\":%llu,\"datagrams_down\":%llu}",
			 (unsigned long long)f->datagrams_up, (unsigned long long)f->datagrams_down);
		record_event(a->session->worker->recording, &e, NULL);
	}
	record_forget(&f->record);
	if (f->lookup != NULL)
		lookup_over(f);
	lookup_cancel(&f->lookup);
	UDP_COUNT(a, unsent, f->nwaiting);
	drop_waiting(f);
	LIST_REMOVE(f, by_request);
	if (f->remote.family != ADDR_NONE)
		LIST_REMOVE(f, by_remote);
	TAILQ_REMOVE(&a->by_age, f, by_age);
	a->nflows--;
	a->ninbound -= f->inbound;
	answer_forget(&f->answer);
	shared_put(&f->rule);
	free(f);
}

/* Of those that are denied, the one unused for longest makes room: it owes no record. */
static bool evict_denied(struct association *a, bool inbound)
{
	struct udp_flow *f;

	TAILQ_FOREACH (f, &a->by_age, by_age)
		if (f->state == FLOW_DENIED && (f->inbound || !inbound)) {
			flow_end(f, "");
			return true;
		}
	return false;
}

/* A new destination means a decision, a row and maybe a lookup: all of them are bounded. */
static bool may_add_flow(struct association *a, const struct request *request, bool inbound)
{
	const struct worker *w = a->session->worker;

	/* Connections have the other half. */
	if (!recording_has_plenty(w->recording) && !w->config->audit_allow)
		return false;
	if (request->has_name && (a->nlookups >= UDP_LOOKUPS_MAX || w->udp_lookups >= UDP_LOOKUPS_ALL))
		return false;
	/* Who knocks takes nothing from the client's own share beyond a bound. */
	if (inbound && a->ninbound >= UDP_INBOUND_MAX)
		return evict_denied(a, true);
	return a->nflows < UDP_FLOWS_MAX || evict_denied(a, inbound);
}

struct udp_flow *flow_find(struct association *a, const struct request *request, bool inbound)
{
	struct flow_list *bucket = &a->by_request[request_bucket(request)];
	struct udp_flow *f;

	LIST_FOREACH (f, bucket, by_request)
		if (same_request(&f->request, request))
			return f;
	if (!may_add_flow(a, request, inbound))
		return NULL;
	f = calloc(1, sizeof *f);
	if (f == NULL)
		return NULL;
	f->association = a;
	f->request = *request;
	f->inbound = inbound;
	f->active_us = clock_mono_us();
	STAILQ_INIT(&f->waiting);
	LIST_INSERT_HEAD(bucket, f, by_request);
	TAILQ_INSERT_TAIL(&a->by_age, f, by_age);
	a->nflows++;
	a->ninbound += inbound;
	decide(f);
	return f;
}

static void keep(struct udp_flow *f, const uint8_t *data, size_t len, bool back)
{
	struct association *a = f->association;
	struct worker *w = a->session->worker;
	struct waiting_datagram *d;

	if (f->nwaiting == UDP_WAITING_MAX || a->waiting_bytes + len > UDP_WAITING_BYTES_MAX ||
	    w->udp_waiting_bytes + len > UDP_WAITING_BYTES_ALL ||
	    (d = malloc(sizeof *d + len)) == NULL) {
		UDP_COUNT(a, over_bounds, 1);
		return;
	}
	d->back = back;
	d->len = len;
	memcpy(d->data, data, len);
	STAILQ_INSERT_TAIL(&f->waiting, d, next);
	f->nwaiting++;
	a->waiting_bytes += len;
	w->udp_waiting_bytes += len;
}

void flow_touch(struct udp_flow *f)
{
	struct association *a = f->association;

	f->active_us = a->session->active_us;
	TAILQ_REMOVE(&a->by_age, f, by_age);
	TAILQ_INSERT_TAIL(&a->by_age, f, by_age);
}

static void take(struct udp_flow *f, const uint8_t *data, size_t len, bool back)
{
	struct association *a = f->association;

	switch (f->state) {
	case FLOW_RESOLVING:
	case FLOW_RECORDING:
		keep(f, data, len, back);
		return;
	case FLOW_DENIED:
		UDP_COUNT(a, denied, 1);
		/* Asked again when the policy has changed, and after a while: a window may have opened, a name appeared. */
		if (f->revision != a->session->worker->rules->revision || clock_mono_us() / 1000000 > f->denied_s + DENIED_S)
			flow_end(f, "");
		return;
	case FLOW_OPEN:
		/* A destination that keeps sending must not outlive its permission, either. */
		if (flow_still_allowed(f)) {
			(back ? udp_send_back : udp_send)(f, data, len);
			return;
		}
		UDP_COUNT(a, denied, 1);
	}
}

void flow_take(struct udp_flow *f, const uint8_t *data, size_t len)
{
	flow_touch(f);
	take(f, data, len, false);
}

void flow_take_back(struct udp_flow *f, const uint8_t *data, size_t len)
{
	take(f, data, len, true);
}
