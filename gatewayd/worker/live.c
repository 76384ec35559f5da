#include "config.h"

#include "gatewayd/worker/live.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "gatewayd/recording.h"
#include "gatewayd/worker/asked.h"
#include "gatewayd/worker/session.h"
#include "gatewayd/worker/shared.h"
#include "gatewayd/worker/steer.h"
#include "gatewayd/worker/udp.h"
#include "gatewayd/worker/worker.h"

/* Half of what nobody notices. */
#define SLICE_US 1000
/* Wall time may be set: whoever waits for a moment looks now and then whether it has passed. */
#define LOOK_US 1000000
/* Between looks whether the recorder has caught up. */
#define PAUSE_US 5000

/* ---- time ------------------------------------------------------------------------------------------------------------- */

static void arm(struct worker *w)
{
	struct live *l = &w->live;
	int64_t wait = INT64_MAX, left;
	struct timeval tv;

	if (l->timed) {
		wait = LOOK_US;
		left = l->until_s < INT64_MAX / 1000000 ? l->until_s * 1000000 - clock_wall_us() : INT64_MAX;
		wait = left < wait ? left : wait;
	}
	left = l->ends_us == INT64_MAX ? INT64_MAX : l->ends_us - clock_mono_us();
	wait = left < wait ? left : wait;
	if (wait == INT64_MAX) {
		evtimer_del(&l->timer);
		return;
	}
	wait = wait < 0 ? 0 : wait;
	tv = (struct timeval){.tv_sec = wait / 1000000, .tv_usec = wait % 1000000};
	evtimer_add(&l->timer, &tv);
}

static bool is_past(const struct live *l)
{
	int64_t now = l->timed ? clock_wall_us() / 1000000 : 0;

	return l->timed && (now < l->from_s || now >= l->until_s);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct worker *w = arg;

	(void)fd, (void)what;
	if (is_past(&w->live) || clock_mono_us() >= w->live.ends_us)
		live_changed(w);
	else
		arm(w);
}

void live_look(struct worker *w)
{
	if (is_past(&w->live))
		live_changed(w);
}

bool live_grace(struct worker *w, int64_t *ends_us)
{
	struct live *l = &w->live;
	int64_t ends = l->began_us + (int64_t)policy_grace_s(w->rules->image) * 1000000;

	if (*ends_us == 0 || ends < *ends_us)
		*ends_us = ends;
	if (*ends_us <= clock_mono_us())
		return false;
	if (*ends_us < l->ends_us) {
		l->ends_us = *ends_us;
		arm(w);
	}
	return true;
}

/* ---- one session ------------------------------------------------------------------------------------------------------ */

/* others: those of the answer that it does not use, too. */
static void decide(const struct policy_context *ctx, const struct session *s, const struct addr *used, bool others,
		   struct policy_decision *d)
{
	struct name name;
	struct policy_request req = authorise_facts(s, &name);

	if (req.name == NULL)
		req.address = *used;
	asked_again(ctx, &req, s->answer, used, others, d);
}

static void note_allowed(struct session *s, const struct policy_decision *d)
{
	const struct ruleset *rules = s->worker->rules;
	const char *rule = policy_rule_name(rules->image, d->rule);

	if (s->rule == NULL || strcmp(s->rule, rule) != 0)
		shared_set(&s->rule, rule);
	s->revision = rules->revision;
	s->ends_us = 0;
}

/* It relays: what it was allowed it has used. */
static bool visit_relaying(struct session *s)
{
	struct worker *w = s->worker;
	struct policy_context ctx = authorise_context(w);
	char reason[AUDIT_TEXT_MAX + 64], text[AUDIT_TEXT_MAX];
	struct policy_decision d;

	grant_tell(s);
	decide(&ctx, s, &s->address, true, &d);
	if (d.verdict == POLICY_ALLOW) {
		note_allowed(s, &d);
		return true;
	}
	if (live_grace(w, &s->ends_us))
		return true;
	w->live.ended++;
	authorise_note_denial(s, &d);
	snprintf(reason, sizeof reason, "denied by policy now: %s", policy_decision_text(w->rules->image, &d, text, sizeof text));
	session_end(s, reason, true);
	return false;
}

/* Decides each candidate: how many may still be used; d is of the first that may, or of the first that may not.  note: this is
 * what they are allowed by from now on. */
static size_t decide_candidates(const struct policy_context *ctx, struct session *s, bool note, struct policy_decision *d)
{
	struct setup *setup = s->setup;
	struct policy_decision one;
	size_t allowed = 0;

	*d = (struct policy_decision){.verdict = POLICY_DENY, .reason = POLICY_BY_DEFAULT, .rule = POLICY_NO_RULE, .detail = ""};
	for (size_t i = 0; i < setup->ncandidates; i++) {
		struct candidate *c = &setup->candidates[i];

		decide(ctx, s, &c->address, i == 0, &one);
		if (i == 0 || (allowed == 0 && one.verdict == POLICY_ALLOW))
			*d = one;
		allowed += one.verdict == POLICY_ALLOW;
		if (note) {
			c->refused = one.verdict != POLICY_ALLOW;
			c->rule = one.rule;
		}
		/* Under `answers all` the first has answered for all. */
		if (i == 0 && one.verdict != POLICY_ALLOW && policy_answers_all(ctx->image))
			return 0;
	}
	return allowed;
}

/* It does not relay yet: there is nothing to be graceful about. */
static bool refuse(struct session *s, const struct policy_decision *d)
{
	s->worker->live.ended++;
	s->setup->ncandidates = 0; /* their rules are of another image, and in the record of the grant */
	authorise_deny(s, d);
	return false;
}

/* It has yet to connect, or waits for its peer. */
static bool visit_candidates(struct session *s)
{
	struct worker *w = s->worker;
	struct policy_context ctx = authorise_context(w);
	struct policy_decision d;

	if (decide_candidates(&ctx, s, true, &d) == 0)
		return refuse(s, &d);
	ruleset_unref(&s->setup->rules);
	s->setup->rules = w->rules;
	w->rules->refs++;
	note_allowed(s, &d);
	return s->command != POLICY_CONNECT || connect_again(s);
}

/* It has its destination or its peer, and waits for the record. */
static bool visit_connected(struct session *s)
{
	struct policy_context ctx = authorise_context(s->worker);
	struct policy_decision d;

	decide(&ctx, s, &s->address, true, &d);
	if (d.verdict != POLICY_ALLOW)
		return refuse(s, &d);
	note_allowed(s, &d);
	return true;
}

/* Who has not been granted anything yet is decided when its turn comes. */
static bool visit(struct session *s)
{
	if (s->epoch == s->worker->live.epoch || s->worker->config->live_keep)
		return true;
	s->epoch = s->worker->live.epoch;
	switch (s->state) {
	case SESSION_RELAYING:
		return visit_relaying(s);
	case SESSION_GRANTING:
		if (s->command == POLICY_UDP) /* without a destination yet */
			return true;
		return s->command == POLICY_CONNECT && s->setup->connected ? visit_connected(s) : visit_candidates(s);
	case SESSION_BINDING:
		return visit_candidates(s);
	case SESSION_ACCEPTING:
		return visit_connected(s);
	case SESSION_ASSOCIATED:
		udp_decide_again(s);
		return true;
	default:
		return true;
	}
}

bool live_still_allowed(struct session *s)
{
	live_look(s->worker);
	return visit(s) && steer_still_unblocked(s);
}

static unsigned try_flows(const struct policy_context *ctx, struct session *s, live_refused *refused, void *arg)
{
	const struct udp_flow *f;
	struct policy_decision d;
	unsigned n = 0;

	TAILQ_FOREACH (f, &s->association->by_age, by_age) {
		if (f->state != FLOW_OPEN && f->state != FLOW_RECORDING)
			continue;
		n++;
		flow_decide(f, ctx, &d);
		if (d.verdict != POLICY_ALLOW)
			refused(s, f, &d, arg);
	}
	return n;
}

unsigned live_try(const struct policy_context *ctx, struct session *s, live_refused *refused, void *arg)
{
	struct policy_decision d = {.verdict = POLICY_ALLOW};

	switch (s->state) {
	case SESSION_RELAYING:
	case SESSION_ACCEPTING:
		decide(ctx, s, &s->address, true, &d);
		break;
	case SESSION_GRANTING:
		if (s->command == POLICY_UDP)
			return 0;
		if (s->command == POLICY_CONNECT && s->setup->connected) {
			decide(ctx, s, &s->address, true, &d);
			break;
		}
		decide_candidates(ctx, s, false, &d);
		break;
	case SESSION_BINDING:
		decide_candidates(ctx, s, false, &d);
		break;
	case SESSION_ASSOCIATED:
		return try_flows(ctx, s, refused, arg);
	default:
		return 0;
	}
	if (d.verdict != POLICY_ALLOW)
		refused(s, NULL, &d, arg);
	return 1;
}

/* ---- all of them ------------------------------------------------------------------------------------------------------ */

/* Ends make rows.  The recorder is given the time in which it has to catch up with a grant, too; longer than that nobody who is
 * refused lives on because of it. */
static bool must_wait(const struct worker *w)
{
	return !recording_has_room(w->recording) && clock_mono_us() - w->live.began_us < (int64_t)w->config->audit_timeout_ms * 1000;
}

static void on_slice(evutil_socket_t fd, short what, void *arg)
{
	struct worker *w = arg;
	struct live *l = &w->live;
	int64_t began = clock_mono_us(), took = 0;
	bool waits = false;

	(void)fd, (void)what;
	while (l->at != NULL && took < SLICE_US && !(waits = must_wait(w))) {
		struct session *s = l->at;

		l->at = TAILQ_NEXT(s, next);
		/* Another rule may allow it now, which is blocked. */
		if (visit(s))
			steer_still_unblocked(s);
		took = clock_mono_us() - began;
	}
	if (took > l->longest_us)
		l->longest_us = took < UINT32_MAX ? (uint32_t)took : UINT32_MAX;
	if (l->at != NULL)
		evtimer_add(&l->slice, &(struct timeval){.tv_usec = waits ? PAUSE_US : 0});
}

void live_changed(struct worker *w)
{
	struct live *l = &w->live;

	if (w->rules == NULL || w->config->live_keep)
		return;
	l->epoch++;
	l->began_us = clock_mono_us();
	l->ends_us = INT64_MAX;
	l->from_s = clock_wall_us() / 1000000;
	l->until_s = policy_next_change(w->rules->image, l->from_s);
	l->timed = policy_next_change(w->rules->image, 0) != INT64_MAX;
	l->at = TAILQ_FIRST(&w->sessions);
	if (l->at != NULL)
		evtimer_add(&l->slice, &(struct timeval){0});
	arm(w);
}

void live_forget(struct session *s)
{
	struct live *l = &s->worker->live;

	if (l->at == s)
		l->at = TAILQ_NEXT(s, next);
	worker_preview_forget(s);
	answer_forget(&s->answer);
	groups_put(&s->groups);
}

void live_init(struct worker *w)
{
	w->live.ends_us = INT64_MAX;
	evtimer_assign(&w->live.timer, w->base, on_timer, w);
	evtimer_assign(&w->live.slice, w->base, on_slice, w);
}
