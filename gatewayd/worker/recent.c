#include "config.h"

#include "gatewayd/worker/recent.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "gatewayd/steering.h"
#include "gatewayd/worker/worker.h"

#define REFUSALS 12
#define RULES 10
#define BODY_MAX 65536

struct recent {
	/* As they travel. */
	struct refusal {
		uint8_t bytes[STEERING_ROW_MAX];
		size_t len;
	} refusals[REFUSALS];
	unsigned next;
	/* By rule; those that nobody could count are not. */
	uint32_t revision;
	size_t nrules;
	struct count {
		uint64_t allowed, denied;
	} * counts;
};

struct recent *recent_new(void)
{
	struct recent *r = calloc(1, sizeof *r);

	if (r == NULL)
		log_fatal("out of memory");
	return r;
}

void recent_refused(struct worker *w, const struct audit_event *e)
{
	static struct steering_row row;
	struct refusal *to = &w->recent->refusals[w->recent->next++ % REFUSALS];
	struct wire_writer out = wire_writer_on(to->bytes, sizeof to->bytes);

	memcpy(&row.event, e, offsetof(struct audit_event, detail));
	row.event.detail[0] = '\0';
	steering_put_row(&out, &row);
	to->len = out.overflow ? 0 : out.len;
}

void recent_decided(struct worker *w, const struct policy_decision *d)
{
	struct recent *r = w->recent;

	if (r->revision != w->rules->revision || r->counts == NULL) {
		free(r->counts);
		r->revision = w->rules->revision;
		r->nrules = policy_rule_count(w->rules->image);
		r->counts = calloc(r->nrules + 1, sizeof *r->counts);
	}
	if (r->counts == NULL)
		return;
	/* Whatever is no rule stands behind them: the default, the guard. */
	struct count *c = &r->counts[d->rule < r->nrules ? d->rule : r->nrules];

	*(d->verdict == POLICY_ALLOW ? &c->allowed : &c->denied) += 1;
}

static void put_rules(const struct worker *w, struct wire_writer *out, struct steering_answer *head)
{
	static struct steering_row row;
	const struct recent *r = w->recent;
	size_t first[RULES], n = 0;

	if (r->counts == NULL || w->rules == NULL || r->revision != w->rules->revision)
		return;
	for (size_t i = 0; i <= r->nrules; i++) {
		uint64_t all = r->counts[i].allowed + r->counts[i].denied;
		size_t at = n;

		while (at > 0 && r->counts[first[at - 1]].allowed + r->counts[first[at - 1]].denied < all)
			at--;
		if (all == 0 || at == RULES)
			continue;
		n += n < RULES;
		memmove(&first[at + 1], &first[at], (n - at - 1) * sizeof *first);
		first[at] = i;
	}
	for (size_t i = 0; i < n; i++) {
		memset(&row, 0, offsetof(struct steering_row, event.detail) + 1);
		row.event.kind = AUDIT_POLICY;
		row.event.revision = r->revision;
		row.event.bytes_up = r->counts[first[i]].allowed;
		row.event.bytes_down = r->counts[first[i]].denied;
		snprintf(row.event.rule, sizeof row.event.rule, "%s",
			 first[i] < r->nrules ? policy_rule_name(w->rules->image, (uint32_t)first[i]) : "(none)");
		steering_put_row(out, &row);
		head->rows++;
	}
}

void recent_send(struct worker *w, uint64_t job)
{
	static uint8_t body[BODY_MAX];
	struct steering_answer head = {.job = job, .last = true};
	struct wire_writer out = wire_writer_on(body, sizeof body);
	struct wire_writer again = wire_writer_on(body, STEERING_ANSWER_BYTES);
	const struct recent *r = w->recent;

	_Static_assert(REFUSALS + RULES <= STEERING_RECENT_MAX, "control takes no more");
	_Static_assert(STEERING_ANSWER_BYTES + (REFUSALS + RULES) * STEERING_ROW_MAX <= BODY_MAX, "all of it fits");
	steering_put_answer(&out, &head);
	for (unsigned i = 1; i <= REFUSALS && out.size - out.len > STEERING_ROW_MAX; i++) {
		const struct refusal *f = &r->refusals[(r->next - i) % REFUSALS];

		if (i > r->next || f->len == 0)
			continue;
		memcpy(out.data + out.len, f->bytes, f->len);
		out.len += f->len;
		head.rows++;
	}
	put_rules(w, &out, &head);
	steering_put_answer(&again, &head);
	if (w->control != NULL)
		ipc_send_wire(w->control, IPC_SESSIONS, &out);
}
