/* Revisions on trial (`--confirm`): unless somebody confirms one in time, the revision before it returns by itself.  The store knows
 * what is on trial and until when, so that no death of any process makes it last. */
#include "config.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "gatewayd/control/internal.h"

/* A rollback that fails (no compiler can be started, say) is tried again, and then more and more seldom. */
#define AGAIN_S 5
#define AGAIN_MAX_S 300

static void arm(struct control *c, int64_t wait_us)
{
	struct timeval wait = {.tv_sec = wait_us / 1000000, .tv_usec = wait_us % 1000000};

	evtimer_add(&c->confirm.timer, &wait);
}

void confirm_look(struct control *c)
{
	struct confirm *k = &c->confirm;
	struct policy_trial *t = &k->trial;
	struct err why;
	int rc = policy_store_trial(c->policy.store, t, &why);
	int64_t now = clock_wall_us(), left, mono = clock_mono_us();

	evtimer_del(&k->timer);
	k->pending = rc == 1;
	if (rc < 0) {
		log_error("whether the policy in force is on trial cannot be read: %s", why.text);
		arm(c, AGAIN_S * 1000000);
	}
	if (rc != 1)
		return;
	/* A clock that was set back makes no trial longer than it was ordered, nor longer than it was at an earlier look. */
	left = t->until_us - now;
	left = left < 0 ? 0 : left < t->lasts_us ? left : t->lasts_us;
	if (k->ends_of == t->revision && k->ends_us - mono < left)
		left = k->ends_us < mono ? 0 : k->ends_us - mono;
	k->ends_us = mono + left;
	k->ends_of = t->revision;
	arm(c, left);
}

static void on_rolled_back(struct control *c, const struct policy_result *r, void *arg)
{
	struct confirm *k = &c->confirm;
	int wait;

	(void)arg;
	control_log_notes(r->notes);
	if (r->ok) {
		k->failing = 0;
		log_warning("nobody confirmed the policy in time: it is rolled back, as revision %u", r->revision);
		return;
	}
	if (k->failing != k->trial.revision)
		k->fails = 0;
	k->failing = k->trial.revision;
	wait = k->fails < 6 ? AGAIN_S << k->fails : AGAIN_MAX_S;
	k->fails++;
	log_error("nobody confirmed revision %u in time, and it cannot be rolled back: %s; it is tried again in %d s", c->policy.revision,
		  r->error, wait);
	arm(c, wait * INT64_C(1000000));
}

bool confirm_failed_before(const struct control *c)
{
	return c->confirm.failing != 0 && c->confirm.failing == c->confirm.trial.revision;
}

bool confirm_is_over(const struct control *c)
{
	return c->confirm.pending && clock_mono_us() >= c->confirm.ends_us && !confirm_failed_before(c);
}

void confirm_fill_order(struct policy_order *order, const struct policy_trial *t)
{
	*order = (struct policy_order){.kind = ORDER_ROLLBACK,
				       .first = order->first,
				       .unconfirmed = true,
				       .yes = true,
				       .check_active = true,
				       .if_active = t->revision,
				       .revision = t->previous,
				       .bundle_fd = -1};
	/* It is what whoever put it on trial ordered to happen. */
	order->author.uid = t->author_uid;
	snprintf(order->author.name, sizeof order->author.name, "%.63s", t->author);
	snprintf(order->comment, sizeof order->comment, "revision %u was not confirmed in time: rollback to revision %u", t->revision,
		 t->previous);
}

static void roll_back(struct control *c)
{
	struct policy_order order = {.bundle_fd = -1};

	confirm_fill_order(&order, &c->confirm.trial);
	policy_change(c, &order, on_rolled_back, NULL);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct control *c = arg;
	bool pending = c->confirm.pending;

	(void)fd, (void)what;
	if (!pending) {
		confirm_look(c);
		return;
	}
	/* A timer counts from when its turn of the event loop began, which may have been a while before it was armed: it comes early. */
	if (clock_mono_us() < c->confirm.ends_us) {
		arm(c, c->confirm.ends_us - clock_mono_us());
		return;
	}
	/* Nobody's change puts the end off.  What is being stored was ordered in time, and its end looks again. */
	if (confirm_is_over(c))
		policy_give_way(c);
	if (c->policy.change == NULL && !keeper_is_busy(c))
		roll_back(c);
}

/* 1: it was approved, and this user is who proposed it, so the second hand has to be another's still; -1 with *why. */
static int is_own_proposal(struct control *c, uint32_t revision, uint32_t uid, struct err *why)
{
	struct policy_revision *r = malloc(sizeof *r);
	int rc = r == NULL ? err_set(why, "out of memory") : policy_store_get(c->policy.store, revision, r, NULL, NULL, why);

	if (rc == 0)
		rc = err_set(why, "there is no revision %u", revision);
	if (rc == 1)
		rc = r->base != 0 && r->author_uid == uid;
	free(r);
	return rc;
}

static void refuse_own(struct client *client, uint32_t revision)
{
	char text[160];

	snprintf(text, sizeof text, "refused: whoever proposed revision %u does not confirm it", revision);
	control_record(admin_control(client), AUDIT_POLICY, admin_author(client), revision, text);
	snprintf(text, sizeof text, "you proposed revision %u: it takes another administrator to confirm it", revision);
	admin_refuse(client, text);
}

void confirm_order(struct client *client, const json_t *request)
{
	struct control *c = admin_control(client);
	const struct confirm *k = &c->confirm;
	const json_t *value = json_object_get(request, "revision");
	json_int_t wanted = value == NULL ? (json_int_t)c->policy.revision : json_integer_value(value);
	uint32_t revision = c->policy.revision;
	const struct author *author = admin_author(client);
	char text[sizeof(struct err) + 64];
	struct err why;
	int rc;

	if (value != NULL && !json_is_integer(value)) {
		admin_refuse(client, "revision is no number of a revision");
		return;
	}
	if (!k->pending || wanted != (json_int_t)revision) {
		snprintf(text, sizeof text, "revision %lld is not on trial: revision %u is in force%s", (long long)wanted, revision,
			 k->pending ? ", and waits to be confirmed" : "");
		admin_refuse(client, text);
		return;
	}
	if (clock_mono_us() >= k->ends_us) {
		snprintf(text, sizeof text, "it is too late: revision %u is being rolled back", revision);
		admin_refuse(client, text);
		return;
	}
	/* Its transaction would have to be waited for; and it ends the trial. */
	if (keeper_is_busy(c)) {
		admin_refuse(client, "another revision is being stored: try again");
		return;
	}
	rc = is_own_proposal(c, revision, author->uid, &why);
	if (rc == 1) {
		refuse_own(client, revision);
		return;
	}
	if (rc == 0)
		rc = policy_store_confirm(c->policy.store, revision, clock_wall_us(), author->uid, author->name, &why);
	if (rc != 0) {
		snprintf(text, sizeof text, "that it is confirmed cannot be stored: %s", rc < 0 ? why.text : "it is not in force any more");
		admin_refuse(client, text);
		return;
	}
	snprintf(text, sizeof text, "revision %u is confirmed", revision);
	admin_record(client, AUDIT_POLICY, text);
	confirm_look(c);
	admin_reply(client, json_pack("{s:b,s:I}", "ok", 1, "revision", (json_int_t)revision), -1);
}

json_t *confirm_status(const struct control *c)
{
	const struct confirm *k = &c->confirm;
	int64_t left = k->ends_us - clock_mono_us();

	if (!k->pending)
		return NULL;
	return json_pack("{s:I,s:I,s:I,s:I}", "revision", (json_int_t)k->trial.revision, "previous", (json_int_t)k->trial.previous, "until",
			 (json_int_t)(k->trial.until_us / 1000000), "left_s", (json_int_t)(left < 0 ? 0 : left / 1000000));
}

void confirm_init(struct control *c)
{
	evtimer_assign(&c->confirm.timer, c->child->base, on_timer, c);
}
