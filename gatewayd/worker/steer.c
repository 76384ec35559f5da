#include "config.h"

#include "gatewayd/worker/steer.h"

#include <event2/event.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/text.h"
#include "gatewayd/steering.h"
#include "gatewayd/worker/asked.h"
#include "gatewayd/worker/recent.h"
#include "gatewayd/worker/resolver.h"
#include "gatewayd/worker/worker.h"

/* Sessions looked at, and ended, in one turn of the loop. */
#define SLICE 512
#define SLICE_ENDED 128
/* How long ending waits when the recorder does not keep up. */
#define PAUSE_US 5000
#define WALKS_MAX 16
#define ENDING_MAX 64
#define BODY_MAX 60000
/* Two looks at a session that are not this far apart tell no rate. */
#define RATE_US 900000

struct walk {
	LIST_ENTRY(walk) next;
	struct worker *worker;
	struct steering_ask ask;
	struct audit_filter filter;
	struct session *at; /* the next to look at; NULL: the end */
	struct event turn;
	bool awaits_more;
	int64_t began_us; /* monotonic */
	struct steering_answer head;
	/* STEERING_TOP: the first of those seen, best first. */
	struct ranked {
		uint64_t key;
		struct steering_row *row;
	} * top;
	size_t ntop;
};

struct block {
	uint32_t id;
	int64_t until_us, until_boot_us; /* wall clock, 0: that does not count; since the host's start */
	struct audit_filter filter;
	char reason[STEERING_REASON_MAX + 1];
};

struct steer {
	LIST_HEAD(, walk) walks;
	struct block *blocks;
	size_t nblocks;
};

/* ---- facts -------------------------------------------------------------------------------------------------------------- */

/* Those of the name that an answer led over; what is told is good until the next is asked for. */
static void put_aliases(struct steering_facts *x, const struct kept_answer *answer)
{
	static struct name aliases[ANSWER_ALIASES_MAX];

	x->aliases = aliases;
	x->naliases = answer_aliases(answer, aliases);
}

static int64_t age_us(const struct session *s, int64_t now_us)
{
	return now_us - (s->granted_us != 0 ? s->granted_us : s->accepted_us);
}

static struct steering_facts facts_of(const struct session *s)
{
	return (struct steering_facts){
		.session = s->id,
		.client = &s->client.addr,
		.address = &s->address,
		.user = s->user,
		.rule = s->rule,
		.name = s->name,
		.listener = s->listener->name,
		.port = s->port,
		.revision = s->revision,
		.groups = s->groups == NULL ? NULL : s->groups->names,
		.ngroups = s->groups == NULL ? 0 : s->groups->count,
	};
}

/* What only few filters ask for is looked up for those: when it began, and where its address lies. */
static bool holds(const struct audit_filter *f, const struct session *s, struct steering_facts *x)
{
	char country[3];

	if (f->since_us != 0 || f->until_us != 0)
		x->began_us = clock_wall_us() - age_us(s, clock_mono_us());
	x->country = f->country[0] != '\0' && s->worker->geo.geo != NULL && x->address != NULL && x->address->family != ADDR_NONE &&
				     policy_geo_country(s->worker->geo.geo, x->address, country)
			     ? country
			     : NULL;
	bool matches = steering_matches(f, x);

	x->country = NULL;
	return matches;
}

/* Before it has its destination, or its peer, it may go wherever one of its candidates leads. */
static bool candidates_match(const struct audit_filter *f, const struct session *s, struct steering_facts x)
{
	const struct setup *setup = s->setup;

	if ((s->state != SESSION_GRANTING && s->state != SESSION_BINDING) || setup->rules == NULL)
		return false;
	for (size_t i = 0; i < setup->ncandidates; i++) {
		const struct candidate *c = &setup->candidates[i];

		if (c->refused || (s->command == POLICY_CONNECT && !connect_may_use(s, i)))
			continue;
		x.address = &c->address;
		x.rule = policy_rule_name(setup->rules->image, c->rule);
		if (holds(f, s, &x))
			return true;
	}
	return false;
}

/* An association goes wherever one of its flows goes. */
static bool matches(const struct audit_filter *f, const struct session *s)
{
	struct steering_facts x = facts_of(s);
	const struct udp_flow *flow;

	put_aliases(&x, s->answer);
	if (holds(f, s, &x) || candidates_match(f, s, x))
		return true;
	if (s->association == NULL)
		return false;
	TAILQ_FOREACH (flow, &s->association->by_age, by_age) {
		x.name = flow->request.has_name ? flow->request.name.text : NULL;
		x.address = flow->remote.family != ADDR_NONE ? &flow->remote : &flow->request.address;
		x.port = flow->request.port;
		x.rule = flow->rule;
		put_aliases(&x, flow->answer);
		if (flow->state != FLOW_DENIED && holds(f, s, &x))
			return true;
	}
	return false;
}

static uint64_t rate_of(struct session *s, int64_t now_us)
{
	uint64_t bytes = s->up.bytes + s->down.bytes;
	int64_t since_us = s->sampled_us != 0 ? s->sampled_us : s->granted_us;

	if (since_us == 0 || now_us - since_us < RATE_US)
		return s->rate;
	s->rate = (bytes - s->sampled_bytes) * 1000000 / (uint64_t)(now_us - since_us);
	s->sampled_us = now_us;
	s->sampled_bytes = bytes;
	return s->rate;
}

static void describe(struct session *s, int64_t now_us, struct steering_row *row)
{
	session_event(s, AUDIT_CHECKPOINT, &row->event);
	row->event.duration_us = age_us(s, now_us);
	row->event.time_us = clock_wall_us() - row->event.duration_us;
	snprintf(row->state, sizeof row->state, "%s", session_state_name(s->state));
	text_escape(s->claimed, s->claimed == NULL ? 0 : strlen(s->claimed), row->claimed, sizeof row->claimed);
	row->idle_us = now_us - s->active_us;
	row->rate = rate_of(s, now_us);
	row->flows = s->association == NULL ? 0 : s->association->nflows;
	row->datagrams_up = row->datagrams_down = 0;
	row->inbound = false;
	row->listens = s->state == SESSION_BINDING ? s->setup->bound : (struct endpoint){0};
	row->strangers = s->strangers;
}

static void describe_flow(const struct udp_flow *f, int64_t now_us, struct steering_row *row)
{
	static const char *const states[] = {[FLOW_RESOLVING] = "resolving", [FLOW_RECORDING] = "recording", [FLOW_OPEN] = "open", [FLOW_DENIED] = "denied"};

	memset(row, 0, sizeof *row);
	udp_flow_event(f, AUDIT_FLOW_CHECKPOINT, &row->event);
	row->event.duration_us = f->opened_us == 0 ? 0 : now_us - f->opened_us;
	row->event.time_us = clock_wall_us() - row->event.duration_us;
	snprintf(row->state, sizeof row->state, "%s", states[f->state]);
	row->idle_us = now_us - f->active_us;
	row->datagrams_up = f->datagrams_up;
	row->datagrams_down = f->datagrams_down;
	row->inbound = f->inbound;
}

/* An address that a BIND lets come. */
static void describe_peer(const struct session *s, const struct candidate *c, struct steering_row *row)
{
	memset(row, 0, sizeof *row);
	session_event(s, AUDIT_OPEN, &row->event);
	row->event.address = (struct endpoint){.addr = c->address};
	snprintf(row->event.rule, sizeof row->event.rule, "%s", policy_rule_name(s->setup->rules->image, c->rule));
}

/* ---- walks -------------------------------------------------------------------------------------------------------------- */

static void walk_free(struct walk *k)
{
	LIST_REMOVE(k, next);
	event_del(&k->turn);
	for (size_t i = 0; i < k->ntop; i++)
		free(k->top[i].row);
	free(k->top);
	free(k);
}

static void turn_later(struct walk *k, int64_t after_us)
{
	evtimer_add(&k->turn, &(struct timeval){.tv_usec = after_us});
}

static struct session *step(struct walk *k)
{
	struct session *s = k->at;

	if (s != NULL)
		k->at = TAILQ_NEXT(s, next);
	return s;
}

static bool send_body(struct walk *k, uint8_t *body, struct wire_writer *w)
{
	struct wire_writer head = wire_writer_on(body, STEERING_ANSWER_BYTES);

	steering_put_answer(&head, &k->head);
	return k->worker->control != NULL && ipc_send_wire(k->worker->control, IPC_SESSIONS, w) == 0;
}

static void count(struct walk *k, const struct session *s)
{
	k->head.matched++;
	k->head.bytes_up += s->up.bytes;
	k->head.bytes_down += s->down.bytes;
}

/* A message's worth of those that match; then it waits until more is wanted. */
static void turn_list(struct walk *k)
{
	static uint8_t body[BODY_MAX];
	static struct steering_row row;
	struct wire_writer w = wire_writer_on(body, sizeof body);
	int64_t now_us = clock_mono_us();

	k->head.rows = 0;
	steering_put_answer(&w, &k->head);
	for (unsigned i = 0; i < SLICE && k->at != NULL && sizeof body - w.len > STEERING_ROW_MAX; i++) {
		struct session *s = step(k);

		if (s->state == SESSION_CLOSING || !matches(&k->filter, s))
			continue;
		describe(s, now_us, &row);
		steering_put_row(&w, &row);
		k->head.rows++;
		count(k, s);
	}
	k->head.last = k->at == NULL;
	if (!k->head.last && k->head.rows == 0) {
		turn_later(k, 0);
		return;
	}
	k->awaits_more = send_body(k, body, &w) && !k->head.last;
	if (!k->awaits_more)
		walk_free(k);
}

static uint64_t key_of(const struct walk *k, struct session *s, int64_t now_us)
{
	switch (k->ask.order) {
	case STEERING_BY_BYTES:
		return s->up.bytes + s->down.bytes;
	case STEERING_BY_RATE:
		return rate_of(s, now_us);
	case STEERING_BY_AGE:
	case STEERING_BY_NOTHING:
	case STEERING_ORDERS:
		break;
	}
	return (uint64_t)age_us(s, now_us);
}

/* Keeps a copy: it may be gone before the walk is over. */
static void rank(struct walk *k, struct session *s, int64_t now_us)
{
	uint64_t key = key_of(k, s, now_us);
	struct steering_row *row;
	size_t i;

	if (k->ntop == k->ask.limit && k->top[k->ntop - 1].key >= key)
		return;
	row = k->ntop == k->ask.limit ? k->top[--k->ntop].row : malloc(sizeof *row);
	if (row == NULL)
		return;
	describe(s, now_us, row);
	for (i = k->ntop++; i > 0 && k->top[i - 1].key < key; i--)
		k->top[i] = k->top[i - 1];
	k->top[i] = (struct ranked){.key = key, .row = row};
}

static void send_top(struct walk *k)
{
	static uint8_t body[BODY_MAX];
	size_t i = 0;
	bool sent;

	do {
		struct wire_writer w = wire_writer_on(body, sizeof body);

		k->head.rows = 0;
		steering_put_answer(&w, &k->head);
		for (; i < k->ntop && sizeof body - w.len > STEERING_ROW_MAX; i++, k->head.rows++)
			steering_put_row(&w, k->top[i].row);
		k->head.last = i == k->ntop;
		sent = send_body(k, body, &w);
	} while (sent && !k->head.last);
}

static void turn_top(struct walk *k)
{
	int64_t now_us = clock_mono_us();

	for (unsigned i = 0; i < SLICE && k->at != NULL; i++) {
		struct session *s = step(k);

		if (s->state == SESSION_CLOSING || !matches(&k->filter, s))
			continue;
		rank(k, s, now_us);
		count(k, s);
	}
	if (k->at != NULL) {
		turn_later(k, 0);
		return;
	}
	send_top(k);
	walk_free(k);
}

/* Rows of one session, of as many messages as they take: of flows and candidates there are only so many. */
struct telling {
	struct walk *walk;
	struct wire_writer w;
	uint8_t body[BODY_MAX];
};

static void tell_body(struct telling *t)
{
	send_body(t->walk, t->body, &t->w);
	t->w = wire_writer_on(t->body, sizeof t->body);
	t->walk->head.rows = 0;
	steering_put_answer(&t->w, &t->walk->head);
}

static void tell_row(struct telling *t, const struct steering_row *row)
{
	if (sizeof t->body - t->w.len <= STEERING_ROW_MAX)
		tell_body(t);
	steering_put_row(&t->w, row);
	t->walk->head.rows++;
}

static void tell_all(struct telling *t, struct session *s, int64_t now_us)
{
	static struct steering_row row;
	const struct udp_flow *flow;

	describe(s, now_us, &row);
	tell_row(t, &row);
	count(t->walk, s);
	if (s->association != NULL)
		TAILQ_FOREACH (flow, &s->association->by_age, by_age) {
			describe_flow(flow, now_us, &row);
			tell_row(t, &row);
		}
	for (size_t i = 0; s->state == SESSION_BINDING && s->setup->rules != NULL && i < s->setup->ncandidates; i++) {
		if (s->setup->candidates[i].refused)
			continue;
		describe_peer(s, &s->setup->candidates[i], &row);
		tell_row(t, &row);
	}
}

static void turn_show(struct walk *k)
{
	static struct telling t;
	struct session *found = NULL;

	for (unsigned i = 0; i < SLICE && k->at != NULL && found == NULL; i++) {
		struct session *s = step(k);

		if (s->id == k->filter.session && s->state != SESSION_CLOSING)
			found = s;
	}
	if (found == NULL && k->at != NULL) {
		turn_later(k, 0);
		return;
	}
	t.walk = k;
	t.w = wire_writer_on(t.body, sizeof t.body);
	k->head.rows = 0;
	steering_put_answer(&t.w, &k->head);
	if (found != NULL)
		tell_all(&t, found, clock_mono_us());
	k->head.last = true;
	send_body(k, t.body, &t.w);
	walk_free(k);
}

static void end(struct session *s, enum reason word, const char *reason)
{
	char text[AUDIT_TEXT_MAX + 1];

	if (s->state == SESSION_RELAYING || s->state == SESSION_ASSOCIATED) {
		snprintf(text, sizeof text, "%s: %s", reason_word(word), reason);
		session_end(s, text, true);
	} else {
		session_refuse(s, word, reason);
	}
}

/* As when sessions are decided again: the recorder is given the time in which it has to catch up with a grant, too; longer than
 * that nobody who is to be ended lives on because of it. */
static bool must_wait(const struct walk *k)
{
	const struct worker *w = k->worker;

	return !recording_has_room(w->recording) && clock_mono_us() - k->began_us < (int64_t)w->config->audit_timeout_ms * 1000;
}

static void turn_end(struct walk *k)
{
	static uint8_t body[STEERING_ANSWER_BYTES];
	struct wire_writer w = wire_writer_on(body, sizeof body);
	unsigned ended = 0;

	k->head.rows = 0;
	for (unsigned i = 0; i < SLICE && ended < SLICE_ENDED && k->at != NULL && !must_wait(k); i++) {
		struct session *s = step(k);

		if (s->state == SESSION_CLOSING || !matches(&k->filter, s))
			continue;
		count(k, s);
		end(s, REASON_OPERATOR, k->ask.reason);
		ended++;
	}
	k->head.last = k->at == NULL;
	steering_put_answer(&w, &k->head);
	/* How far it is, too: as long as it gets on, control waits. */
	if (ended > 0 || k->head.last)
		send_body(k, body, &w);
	if (k->head.last)
		walk_free(k);
	else
		turn_later(k, must_wait(k) ? PAUSE_US : 0);
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
	static void (*const turns[STEERING_OPS])(struct walk *) = {
		[STEERING_LIST] = turn_list, [STEERING_TOP] = turn_top, [STEERING_END] = turn_end, [STEERING_SHOW] = turn_show};
	struct walk *k = arg;

	(void)fd, (void)what;
	turns[k->ask.op](k);
}

/* Of those that only look: nothing stops what is to be ended. */
static struct walk *find_walk(const struct steer *st, uint64_t job)
{
	struct walk *k;

	LIST_FOREACH (k, &st->walks, next)
		if (k->ask.job == job && k->ask.op != STEERING_END)
			return k;
	return NULL;
}

static void answer_at_once(struct worker *w, const struct steering_answer *a)
{
	static uint8_t body[STEERING_ANSWER_BYTES];
	struct wire_writer out = wire_writer_on(body, sizeof body);

	steering_put_answer(&out, a);
	if (w->control != NULL)
		ipc_send_wire(w->control, IPC_SESSIONS, &out);
}

/* Whoever asks is told that it will not be. */
static void refuse(struct worker *w, uint64_t job, const char *why)
{
	log_error("what control asks of our sessions is not done: %s", why);
	answer_at_once(w, &(struct steering_answer){.job = job, .last = true, .refused = true});
}

/* What is to be ended waits for the recorder, if need be longer than control waits for us: those who look have other places. */
static bool has_place(const struct steer *st, enum steering_op op)
{
	unsigned same = 0;
	const struct walk *k;

	LIST_FOREACH (k, &st->walks, next)
		same += (k->ask.op == STEERING_END) == (op == STEERING_END);
	return same < (op == STEERING_END ? ENDING_MAX : WALKS_MAX);
}

/* Takes over k.  NULL, or why not. */
static const char *start(struct worker *w, struct walk *k)
{
	if (!has_place(w->steer, k->ask.op)) {
		free(k);
		return "too much of it is under way";
	}
	k->worker = w;
	k->head.job = k->ask.job;
	k->began_us = clock_mono_us();
	k->at = TAILQ_FIRST(&w->sessions);
	k->top = k->ask.op == STEERING_TOP ? calloc(k->ask.limit, sizeof *k->top) : NULL;
	if (k->ask.op == STEERING_TOP && k->top == NULL) {
		free(k);
		return "out of memory";
	}
	evtimer_assign(&k->turn, w->base, on_turn, k);
	LIST_INSERT_HEAD(&w->steer->walks, k, next);
	turn_later(k, 0);
	return NULL;
}

static void begin(struct worker *w, const struct ipc_message *m)
{
	struct wire_reader r = wire_reader_on(m->body, m->len);
	struct walk *k = calloc(1, sizeof *k);
	struct err why = {"it is malformed"};
	uint64_t job;

	if (k == NULL)
		return; /* control says that we are silent */
	bool sound = steering_get_ask(&r, &k->ask) && steering_filter(k->ask.filter, &k->filter, &why) == 0;

	job = k->ask.job;
	if (sound && k->ask.op != STEERING_RECENT && k->ask.op != STEERING_TAKEN) {
		const char *not = start(w, k);

		if (not != NULL)
			refuse(w, job, not);
		return;
	}
	if (!sound)
		refuse(w, job, why.text);
	else if (k->ask.op == STEERING_RECENT)
		recent_send(w, job);
	else
		answer_at_once(w, &(struct steering_answer){.job = job, .last = true});
	free(k);
}

void steer_session_gone(const struct session *s)
{
	struct walk *k;

	LIST_FOREACH (k, &s->worker->steer->walks, next)
		if (k->at == s)
			k->at = TAILQ_NEXT(s, next);
}

/* ---- blocks ------------------------------------------------------------------------------------------------------------- */

static bool read_block(const json_t *from, struct block *to)
{
	char *filter = json_dumps(json_object_get(from, "filter"), JSON_COMPACT);
	const char *reason = json_string_value(json_object_get(from, "reason"));
	struct err why;
	bool sound = filter != NULL && reason != NULL && steering_filter(filter, &to->filter, &why) == 0;

	free(filter);
	to->id = (uint32_t)json_integer_value(json_object_get(from, "id"));
	to->until_us = json_integer_value(json_object_get(from, "until_us"));
	to->until_boot_us = json_integer_value(json_object_get(from, "until_boot_us"));
	snprintf(to->reason, sizeof to->reason, "%s", reason == NULL ? "" : reason);
	return sound;
}

static void take_blocks(struct worker *w, const struct ipc_message *m)
{
	struct steer *st = w->steer;
	json_t *list = json_loadb((const char *)m->body, m->len, JSON_REJECT_DUPLICATES, NULL);
	size_t n = json_array_size(list);
	struct block *blocks = n > STEERING_BLOCKS_MAX ? NULL : calloc(n + 1, sizeof *blocks);
	bool sound = json_is_array(list) && blocks != NULL;

	for (size_t i = 0; sound && i < n; i++)
		sound = read_block(json_array_get(list, i), &blocks[i]);
	json_decref(list);
	/* Whoever comes in its place asks again: nobody goes on with fewer blocks than there are. */
	if (!sound)
		log_fatal("control sent blocks that are malformed, or memory is short");
	free(st->blocks);
	st->blocks = blocks;
	st->nblocks = n;
}

/* Both clocks of now, for a number of blocks. */
struct now {
	int64_t wall_us, boot_us;
};

static struct now now_for(const struct steer *st)
{
	return st->nblocks == 0 ? (struct now){0} : (struct now){clock_wall_us(), clock_boot_us()};
}

static bool in_force(const struct block *b, struct now now)
{
	return now.boot_us < b->until_boot_us || now.wall_us < b->until_us;
}

const char *steer_blocked(const struct session *s, const char *name, const struct addr *address, uint16_t port, const char *rule,
			  const struct name *aliases, size_t naliases)
{
	const struct steer *st = s->worker->steer;
	struct steering_facts x = facts_of(s);
	struct now now = now_for(st);

	x.name = name;
	x.address = address;
	x.port = port;
	x.rule = rule;
	x.aliases = aliases;
	x.naliases = naliases;
	x.revision = 0;
	for (size_t i = 0; i < st->nblocks; i++)
		if (in_force(&st->blocks[i], now) && holds(&st->blocks[i].filter, s, &x))
			return st->blocks[i].reason;
	return NULL;
}

const char *steer_blocked_peer(const struct session *s, const struct addr *address, const char *rule)
{
	struct steering_facts x = {0};

	put_aliases(&x, s->answer);
	return steer_blocked(s, s->name, address, s->port, rule, x.aliases, x.naliases);
}

bool steer_still_unblocked(struct session *s)
{
	const struct steer *st = s->worker->steer;
	struct now now = now_for(st);

	if (s->state < SESSION_GRANTING || s->state == SESSION_CLOSING)
		return true; /* its turn comes when it is granted; or it has gone */
	for (size_t i = 0; i < st->nblocks; i++)
		if (in_force(&st->blocks[i], now) && matches(&st->blocks[i].filter, s)) {
			end(s, REASON_BLOCKED, st->blocks[i].reason);
			return false;
		}
	return true;
}

/* ---- control ------------------------------------------------------------------------------------------------------------ */

void steer_message(struct worker *w, const struct ipc_message *m)
{
	struct wire_reader r = wire_reader_on(m->body, m->len);
	struct walk *k;

	switch (m->type) {
	case IPC_SESSIONS_ASK:
		begin(w, m);
		return;
	case IPC_BLOCKS:
		take_blocks(w, m);
		return;
	case IPC_SESSIONS_MORE:
	case IPC_SESSIONS_CANCEL:
		k = find_walk(w->steer, wire_get_u64(&r));
		if (k != NULL && m->type == IPC_SESSIONS_CANCEL) {
			walk_free(k);
		} else if (k != NULL && k->awaits_more) {
			k->awaits_more = false;
			turn_later(k, 0);
		}
		return;
	default:
		return;
	}
}

void steer_control_gone(struct worker *w)
{
	struct walk *k, *following;

	/* What was to be ended is. */
	for (k = LIST_FIRST(&w->steer->walks); k != NULL; k = following) {
		following = LIST_NEXT(k, next);
		if (k->ask.op != STEERING_END)
			walk_free(k);
	}
}

struct steer *steer_new(struct worker *w)
{
	struct steer *st = calloc(1, sizeof *st);

	(void)w;
	if (st == NULL)
		log_fatal("out of memory");
	LIST_INIT(&st->walks);
	return st;
}
