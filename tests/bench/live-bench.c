/* What a change of the policy costs a worker with many sessions: each is decided again by the new image, in slices.  The worker's own
 * code (live.c, asked.c, authorise.c) over session records as they are made at a grant; only sockets and records of ends are absent.
 *
 *	live-bench [SESSIONS] */
#include "config.h"

#include <event2/event.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "gatewayd/worker/gss.h"
#include "gatewayd/worker/recent.h"
#include "gatewayd/worker/resolver.h"
#include "gatewayd/worker/session.h"
#include "gatewayd/worker/shared.h"
#include "gatewayd/worker/steer.h"
#include "gatewayd/worker/udp.h"
#include "gatewayd/worker/worker.h"

/* ---- what is absent ---------------------------------------------------------------------------------------------------- */

static size_t ended;

void session_end(struct session *s, const char *reason, bool reset)
{
	(void)reason, (void)reset;
	ended++;
	TAILQ_REMOVE(&s->worker->sessions, s, next);
	live_forget(s);
}

void session_deny(struct session *s, const struct policy_image *image, const struct policy_decision *d)
{
	(void)s, (void)image, (void)d;
}

void session_refuse(struct session *s, enum reason reason, const char *detail)
{
	(void)s, (void)reason, (void)detail;
}

void session_set_state(struct session *s, enum session_state state)
{
	s->state = state;
}

void session_arm(struct session *s, int64_t after_us)
{
	(void)s, (void)after_us;
}

void grant_start(struct session *s, const struct policy_decision *d)
{
	(void)s, (void)d;
}

void grant_tell(struct session *s)
{
	(void)s;
}

const char *steer_blocked(const struct session *s, const char *name, const struct addr *address, uint16_t port, const char *rule,
			  const struct name *aliases, size_t naliases)
{
	(void)s, (void)name, (void)address, (void)port, (void)rule, (void)aliases, (void)naliases;
	return NULL;
}

bool steer_still_unblocked(struct session *s)
{
	(void)s;
	return true;
}

void recent_decided(struct worker *worker, const struct policy_decision *d)
{
	(void)worker, (void)d;
}

bool recording_has_room(const struct recording *r)
{
	(void)r;
	return true;
}

bool connect_again(struct session *s)
{
	(void)s;
	return true;
}

void udp_decide_again(struct session *s)
{
	(void)s;
}

enum protection gss_protection(const struct session *s)
{
	(void)s;
	return PROTECTION_NONE;
}

void worker_preview_forget(const struct session *s)
{
	(void)s;
}

void flow_decide(const struct udp_flow *f, const struct policy_context *ctx, struct policy_decision *d)
{
	(void)f, (void)ctx, (void)d;
}

struct lookup *resolver_lookup(struct resolver *r, const struct name *name, lookup_done *done, void *arg)
{
	(void)r, (void)name, (void)done, (void)arg;
	return NULL;
}

/* ---- a worker ------------------------------------------------------------------------------------------------------------ */

#define USERS 500
#define GROUPS 20
#define RULES 1000
#define NAMES 100000

static struct worker w;
static struct config config;
static struct config_listener listener = {.name = "main"};

static struct ruleset *compile(const char *end)
{
	struct policy_diagnostics d = {0};
	struct ruleset *r = calloc(1, sizeof *r);
	uint8_t *bytes;
	size_t len, size;
	struct err why;
	char *text;
	FILE *out = open_memstream(&text, &size);

	fputs("window office { mon-sun 00:00-24:00 }\nset bad domain {", out);
	for (int i = 0; i < NAMES; i++)
		fprintf(out, " .n%d.example", i);
	fputs(" }\nrule bad deny to domain @bad\n", out);
	for (int i = 0; i < RULES; i++)
		fprintf(out, "rule r%d allow group g%d to domain .d%d.test port 443 during office\n", i, i % 40, i);
	fputs(end, out);
	fclose(out);

	struct policy_tree *tree = policy_parse("bench", text, size, &d);

	if (d.errors > 0 || policy_compile(tree, &bytes, &len, &d) != 0 || (r->image = policy_image_open(bytes, len, &why)) == NULL) {
		fputs("the policy cannot be compiled\n", stderr);
		exit(1);
	}
	policy_tree_free(tree);
	policy_diagnostics_free(&d);
	free(text);
	r->refs = 1;
	return r;
}

static void add_session(size_t i)
{
	struct session *s = pool_get(&w.session_pool);
	char text[64], groups[GROUPS][AUTH_GROUP_NAME_MAX + 1];
	size_t user = i % USERS;

	for (size_t k = 0; k < GROUPS; k++)
		snprintf(groups[k], sizeof groups[k], "g%zu", (user + k) % 60);
	s->worker = &w;
	s->listener = &listener;
	s->state = SESSION_RELAYING;
	s->client = (struct endpoint){addr_v4(0x0a000000u + (uint32_t)user), 40000};
	s->address = addr_v4(0xc6336400u + (uint32_t)(i % 250));
	s->command = POLICY_CONNECT;
	s->port = 443;
	s->granted = true;
	snprintf(text, sizeof text, "user%zu", user);
	s->user = shared_get(text);
	snprintf(text, sizeof text, "www%zu.d%zu.test", i, i % RULES);
	s->name = shared_get(text);
	s->rule = shared_get("all");
	s->groups = groups_get(&w.group_lists, (const void *)groups, GROUPS);
	struct addr addresses[2] = {s->address, addr_v4(0xcb007100u + (uint32_t)(i % 250))};

	if (i % 2 == 0)
		answer_keep(&s->answer, addresses, 2, NULL, 0);
	TAILQ_INSERT_TAIL(&w.sessions, s, next);
}

static void change(const char *what, struct ruleset *rules)
{
	int64_t began;

	ended = 0;
	ruleset_unref(&w.rules);
	w.rules = rules;
	rules->revision++;
	w.live.longest_us = 0;
	began = clock_mono_us();
	live_changed(&w);
	while (w.live.at != NULL)
		event_base_loop(w.base, EVLOOP_ONCE);
	printf("  %-40s %8.1f ms   longest slice %5.2f ms   ended %zu\n", what, (double)(clock_mono_us() - began) / 1e3,
	       (double)w.live.longest_us / 1e3, ended);
}

int main(int argc, char **argv)
{
	size_t n = argc > 1 ? strtoul(argv[1], NULL, 10) : 50000;
	struct ruleset *first = compile("rule all allow\n"), *second = compile("rule few deny user user1 user2\nrule all allow\n");
	struct ruleset *last = compile("");

	w.config = &config;
	w.base = event_base_new();
	TAILQ_INIT(&w.sessions);
	pool_init(&w.session_pool, sizeof(struct session));
	live_init(&w);
	w.rules = first;
	first->refs = second->refs = last->refs = 2;
	struct mallinfo2 before = mallinfo2();

	for (size_t i = 0; i < n; i++)
		add_session(i);
	struct mallinfo2 after = mallinfo2();

	printf("%zu sessions, %d rules, a list of %d names\n", n, RULES + 2, NAMES);
	printf("  a session: %zu bytes, and %.0f besides\n", sizeof(struct session), (double)(after.uordblks - before.uordblks) / (double)n);
	change("the same answers", second);
	change("the same answers, warm", second);
	change("nobody is allowed who was by `all`", last);
	return 0;
}
