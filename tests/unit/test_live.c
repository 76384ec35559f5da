/* When sessions are decided again: live.c alone, with sessions of which each is refused. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <event2/event.h>

#include "gatewayd/worker/asked.h"
#include "gatewayd/worker/session.h"
#include "gatewayd/worker/steer.h"
#include "gatewayd/worker/udp.h"
#include "gatewayd/worker/worker.h"

#define SESSIONS 100
#define ROOM 10

static struct config config;
static struct ruleset rules;
static struct worker w;
static struct session sessions[SESSIONS];
static unsigned ended, room; /* ends that the recorder takes yet */

/* ---- what is absent ---------------------------------------------------------------------------------------------------- */

bool recording_has_room(const struct recording *r)
{
	(void)r;
	return room > 0;
}

void session_end(struct session *s, const char *reason, bool reset)
{
	(void)reason, (void)reset;
	ended++;
	room -= room > 0;
	TAILQ_REMOVE(&w.sessions, s, next);
	live_forget(s);
}

void grant_tell(struct session *s)
{
	(void)s;
}

void asked_again(const struct policy_context *ctx, const struct policy_request *req, const struct kept_answer *kept,
		 const struct addr *used, bool others, struct policy_decision *d)
{
	(void)ctx, (void)req, (void)kept, (void)used, (void)others;
	*d = (struct policy_decision){.verdict = POLICY_DENY};
}

struct policy_context authorise_context(const struct worker *of)
{
	(void)of;
	return (struct policy_context){0};
}

struct policy_request authorise_facts(const struct session *s, struct name *name)
{
	(void)s, (void)name;
	return (struct policy_request){0};
}

void authorise_note_denial(struct session *s, const struct policy_decision *d)
{
	(void)s, (void)d;
}

void authorise_deny(struct session *s, const struct policy_decision *d)
{
	(void)s, (void)d;
}

int64_t policy_next_change(const struct policy_image *image, int64_t now)
{
	(void)image, (void)now;
	return INT64_MAX;
}

uint32_t policy_grace_s(const struct policy_image *image)
{
	(void)image;
	return 0;
}

const char *policy_rule_name(const struct policy_image *image, uint32_t rule)
{
	(void)image, (void)rule;
	return "rule";
}

bool policy_answers_all(const struct policy_image *image)
{
	(void)image;
	return false;
}

const char *policy_decision_text(const struct policy_image *image, const struct policy_decision *d, char *out, size_t size)
{
	(void)image, (void)d, (void)out, (void)size;
	return "no";
}

void ruleset_unref(struct ruleset **of)
{
	*of = NULL;
}

bool connect_again(struct session *s)
{
	(void)s;
	return true;
}

bool steer_still_unblocked(struct session *s)
{
	(void)s;
	return true;
}

void udp_decide_again(struct session *s)
{
	(void)s;
}

void flow_decide(const struct udp_flow *f, const struct policy_context *ctx, struct policy_decision *d)
{
	(void)f, (void)ctx, (void)d;
}

void worker_preview_forget(const struct session *s)
{
	(void)s;
}

void answer_forget(struct kept_answer **kept)
{
	(void)kept;
}

void groups_put(struct group_list **list)
{
	(void)list;
}

/* ---- tests -------------------------------------------------------------------------------------------------------------- */

static int set_up(void **state)
{
	(void)state;
	memset(&w, 0, sizeof w);
	memset(sessions, 0, sizeof sessions);
	ended = 0;
	w.base = event_base_new();
	w.config = &config;
	w.rules = &rules;
	config.audit_timeout_ms = 3600000;
	TAILQ_INIT(&w.sessions);
	for (size_t i = 0; i < SESSIONS; i++) {
		sessions[i].worker = &w;
		sessions[i].state = SESSION_RELAYING;
		TAILQ_INSERT_TAIL(&w.sessions, &sessions[i], next);
	}
	live_init(&w);
	return w.base == NULL ? -1 : 0;
}

static int tear_down(void **state)
{
	(void)state;
	event_del(&w.live.timer);
	event_del(&w.live.slice);
	event_base_free(w.base);
	return 0;
}

static void turns(unsigned n)
{
	while (n-- > 0)
		event_base_loop(w.base, EVLOOP_ONCE);
}

static void all_are_ended_while_there_is_room(void **state)
{
	(void)state;
	room = UINT32_MAX;
	live_changed(&w);
	while (ended < SESSIONS)
		turns(1);
	assert_null(w.live.at);
}

static void ends_wait_for_the_recorder(void **state)
{
	(void)state;
	room = ROOM;
	live_changed(&w);
	while (ended < ROOM)
		turns(1);
	turns(5);
	assert_int_equal(ended, ROOM);
	room = UINT32_MAX;
	while (ended < SESSIONS)
		turns(1);
	assert_null(w.live.at);
}

static void but_not_for_ever(void **state)
{
	(void)state;
	room = 0;
	config.audit_timeout_ms = 20;
	live_changed(&w);
	while (ended < SESSIONS)
		turns(1);
	assert_null(w.live.at);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(all_are_ended_while_there_is_room, set_up, tear_down),
		cmocka_unit_test_setup_teardown(ends_wait_for_the_recorder, set_up, tear_down),
		cmocka_unit_test_setup_teardown(but_not_for_ever, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
