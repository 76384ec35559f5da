/* Revisions that wait until a second administrator approves them: which do, who rejects one, and when one expires.  The store knows them
 * all; a start takes none of them.  Approving one is a change of the policy, see policy.c. */
#include "config.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/text.h"
#include "gatewayd/control/internal.h"

/* Times are wall clock, which may be set: it is looked at now and then. */
#define LOOK_S 60
/* The keeper is at the store. */
#define AGAIN_S 1

static void arm(struct control *c, int64_t wait_us)
{
	struct timeval wait = {.tv_sec = wait_us / 1000000, .tv_usec = wait_us % 1000000};

	evtimer_add(&c->approvals.timer, &wait);
}

static void expire(struct control *c, int64_t now)
{
	uint32_t over[POLICY_PENDING_MAX];
	char text[96];
	struct err why;
	size_t n;

	if (policy_store_expire(c->policy.store, now, c->owner, "gatewayd", over, &n, &why) != 0) {
		log_error("that no revision waits for approval longer than it may cannot be stored: %s", why.text);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		snprintf(text, sizeof text, "revision %u has expired: nobody approved it in time", over[i]);
		log_info("%s", text);
		control_record(c, AUDIT_POLICY, NULL, over[i], text);
	}
}

/* only: this verdict and no other; NULL: any. */
static void record_verdict(struct control *c, uint32_t revision, const char *found, const char *only)
{
	struct policy_revision *r = malloc(sizeof *r);
	struct author author = {0};
	char text[AUDIT_TEXT_MAX];
	struct err why = {"out of memory"};

	if (r == NULL || policy_store_get(c->policy.store, revision, r, NULL, NULL, &why) != 1) {
		log_error("what became of revision %u cannot be read: %s", revision, why.text);
	} else if (only == NULL || strcmp(r->verdict, only) == 0) {
		author.uid = r->verdict_uid;
		snprintf(author.name, sizeof author.name, "%.63s", r->verdict_by);
		snprintf(text, sizeof text, "revision %u is %s%s%s%.200s", revision, found, r->verdict,
			 r->verdict_comment[0] == '\0' ? "" : ": ", r->verdict_comment);
		control_record(c, AUDIT_POLICY, &author, revision, text);
	}
	free(r);
}

/* What waited at the last look and does so no longer, since a change took effect: the transaction of that ended it. */
static void notice_outdated(struct control *c, const struct policy_waiting *now, size_t n)
{
	struct approvals *a = &c->approvals;
	size_t at;

	for (size_t i = 0; i < a->waiting; i++) {
		for (at = 0; at < n && now[at].revision != a->revisions[i]; at++)
			;
		if (at == n)
			record_verdict(c, a->revisions[i], "", POLICY_OUTDATED);
	}
	for (at = 0; at < n; at++)
		a->revisions[at] = now[at].revision;
	a->waiting = n;
}

void approvals_look(struct control *c)
{
	struct policy_waiting waiting[POLICY_PENDING_MAX];
	int64_t now = clock_wall_us(), wait_us = LOOK_S * INT64_C(1000000);
	struct err why;
	size_t n;

	evtimer_del(&c->approvals.timer);
	/* The keeper's transaction would have to be waited for; and it may be an approval that was given in time. */
	if (keeper_is_busy(c))
		wait_us = AGAIN_S * INT64_C(1000000);
	else
		expire(c, now);
	if (policy_store_waiting(c->policy.store, waiting, &n, &why) != 0) {
		log_error("which revisions wait for approval cannot be read: %s", why.text);
		arm(c, wait_us);
		return;
	}
	notice_outdated(c, waiting, n);
	/* One that is over by now could not be stored as such. */
	for (size_t i = 0; i < c->approvals.waiting; i++)
		if (waiting[i].until_us > now && waiting[i].until_us - now < wait_us)
			wait_us = waiting[i].until_us - now;
	if (c->approvals.waiting > 0)
		arm(c, wait_us);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	approvals_look(arg);
}

static void record_found(struct control *c, const struct policy_revision *r)
{
	struct author author = {.uid = r->author_uid};
	char text[AUDIT_TEXT_MAX];

	snprintf(author.name, sizeof author.name, "%.63s", r->author);
	snprintf(text, sizeof text, "revision %u is found to wait for approval, to take the place of revision %u%s%.160s", r->id, r->base,
		 r->comment[0] == '\0' ? "" : ": ", r->comment);
	control_record(c, AUDIT_POLICY, &author, r->id, text);
}

/* The revision of each that waits, oldest first, behind `after`; false ends it.  -1 with *why. */
static int each(struct control *c, uint32_t after, bool (*take)(struct control *c, const struct policy_revision *r, void *arg), void *arg,
		struct err *why)
{
	struct policy_waiting waiting[POLICY_PENDING_MAX];
	struct policy_revision *r = malloc(sizeof *r);
	size_t n = 0;
	int rc = r == NULL ? err_set(why, "out of memory") : policy_store_waiting(c->policy.store, waiting, &n, why);

	for (size_t i = 0; rc == 0 && i < n; i++) {
		if (waiting[i].revision <= after)
			continue;
		rc = policy_store_get(c->policy.store, waiting[i].revision, r, NULL, NULL, why) == 1 ? 0 : -1;
		if (rc == 0 && !take(c, r, arg))
			break;
	}
	free(r);
	return rc;
}

static bool take_found(struct control *c, const struct policy_revision *r, void *arg)
{
	(void)arg;
	record_found(c, r);
	return true;
}

void approvals_found(struct control *c)
{
	uint32_t last[POLICY_PENDING_MAX];
	struct err why;
	size_t n;

	if (policy_store_last_verdicts(c->policy.store, clock_wall_us(), last, &n, &why) != 0)
		log_error("which revisions wait no longer cannot be read: %s", why.text);
	for (size_t i = 0; i < n; i++)
		record_verdict(c, last[i], "found ", NULL);
}

void approvals_start(struct control *c)
{
	struct err why;

	approvals_look(c);
	if (each(c, 0, take_found, NULL, &why) != 0)
		log_error("which revisions wait for approval cannot be read: %s", why.text);
}

/* ---- commands ----------------------------------------------------------------------------------------------------------- */

static bool take_row(struct control *c, const struct policy_revision *r, void *arg)
{
	(void)c;
	return revisions_page_add(arg, r);
}

void approvals_pending(struct client *client, const json_t *request)
{
	struct control *c = admin_control(client);
	json_int_t after = json_integer_value(json_object_get(request, "after"));
	struct revisions_page page = {.active = c->policy.revision};
	struct err why;

	if (after < 0 || after > UINT32_MAX) {
		admin_refuse(client, "after is no number of a revision");
		return;
	}
	approvals_look(c);
	page.revisions = json_array();
	if (each(c, (uint32_t)after, take_row, &page, &why) != 0) {
		json_decref(page.revisions);
		admin_refuse(client, why.text);
		return;
	}
	admin_reply(client,
		    json_pack("{s:b,s:o,s:b,s:I,s:b}", "ok", 1, "revisions", page.revisions, "more", page.more, "revision",
			      (json_int_t)c->policy.revision, "required", c->child->config->policy_approval),
		    -1);
}

/* Whose it is; false: there is no such revision, and the client has been refused. */
static bool find_author(struct client *client, uint32_t revision, uint32_t *uid)
{
	struct policy_revision *r = malloc(sizeof *r);
	struct err why = {"out of memory"};
	int rc = r == NULL ? -1 : policy_store_get(admin_control(client)->policy.store, revision, r, NULL, NULL, &why);

	if (rc == 0)
		err_set(&why, "there is no revision %u", revision);
	if (rc == 1)
		*uid = r->author_uid;
	else
		admin_refuse(client, why.text);
	free(r);
	return rc == 1;
}

void approvals_reject(struct client *client, const json_t *request)
{
	struct control *c = admin_control(client);
	const struct author *author = admin_author(client);
	const char *reason = json_string_value(json_object_get(request, "reason"));
	struct policy_judgement v = {.time_us = clock_wall_us(), .author_uid = author->uid, .author = author->name, .comment = reason};
	char text[sizeof(struct err) + 64];
	uint32_t uid;
	struct err why;
	int rc;

	if (!revisions_read_number(client, request, &v.revision))
		return;
	if (reason == NULL || reason[0] == '\0' || strlen(reason) > POLICY_COMMENT_MAX || !text_is_plain(reason)) {
		admin_refuse(client, "the reason is to be one line of text, of up to 1023 bytes");
		return;
	}
	approvals_look(c);
	if (!find_author(client, v.revision, &uid))
		return;
	/* Its transaction would have to be waited for; and it may approve this one. */
	if (keeper_is_busy(c)) {
		admin_refuse(client, "another revision is being stored: try again");
		return;
	}
	v.verdict = uid == author->uid ? POLICY_WITHDRAWN : POLICY_REJECTED;
	rc = policy_store_decline(c->policy.store, &v, &why);
	if (rc != 0) {
		snprintf(text, sizeof text, "%s%s", rc > 0 ? "" : "the verdict cannot be stored: ", why.text);
		admin_refuse(client, text);
		return;
	}
	snprintf(text, sizeof text, "revision %u is %s: %.200s", v.revision, v.verdict, reason);
	admin_record_revision(client, v.revision, text);
	approvals_look(c);
	admin_reply(client, json_pack("{s:b,s:I,s:s}", "ok", 1, "revision", (json_int_t)v.revision, "state", v.verdict), -1);
}

/* ---- for others --------------------------------------------------------------------------------------------------------- */

struct wanted {
	const uint8_t *hash;
	uint32_t revision;
};

static bool take_import(struct control *c, const struct policy_revision *r, void *arg)
{
	struct wanted *w = arg;

	if (r->proposed_import && r->base == c->policy.revision && memcmp(r->hash, w->hash, sizeof r->hash) == 0)
		w->revision = r->id;
	return w->revision == 0;
}

uint32_t approvals_find_import(struct control *c, const uint8_t hash[POLICY_HASH_BYTES])
{
	struct wanted w = {.hash = hash};
	struct err why;

	approvals_look(c);
	return each(c, 0, take_import, &w, &why) == 0 ? w.revision : 0;
}

json_t *approvals_status(const struct control *c)
{
	return json_pack("{s:b,s:I}", "required", c->child->config->policy_approval, "pending", (json_int_t)c->approvals.waiting);
}

void approvals_init(struct control *c)
{
	evtimer_assign(&c->approvals.timer, c->child->base, on_timer, c);
}
