/* Sessions that live, of all workers.  To end some, all are told at once.  To list them they are asked one after the other, into a
 * pipe whose other end the caller has: a
 * worker is asked for its next slice when the one before has been read: a caller that does not read holds one slice of memory. */
#include "config.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/text.h"
#include "gatewayd/control/internal.h"
#include "gatewayd/steering.h"
#include "schema/audit_json.h"

/* With who gave it behind, it fits into a record. */
#define REASON_GIVEN_MAX 150
#define JOBS_MAX 12
#define JOBS_LISTING_MAX 8
#define JOBS_LISTING_LESSER_MAX 6
#define JOBS_OF_USER_MAX 3
/* How long a worker may be silent, and a reader. */
#define WORKER_PATIENCE_S 5
#define READER_PATIENCE_S 30
/* How long somebody who reads slowly may take for all of it. */
#define LISTING_MAX_S 600

#define BIT(slot) (UINT64_C(1) << (slot))
_Static_assert(CONFIG_WORKERS_MAX <= 64, "a bit for each worker");

struct session_job {
	LIST_ENTRY(session_job) next;
	struct control *control;
	struct client *client; /* that waits for the number of those ended; NULL: none, or it has left */
	struct author author;
	struct steering_ask ask;
	int pipe_fd; /* -1: nothing is listed, or nobody reads any more */
	struct event writable, patience;
	int64_t began_us; /* monotonic */
	char *text; /* on its way into the pipe */
	size_t off, len, size;
	struct peer *asked; /* the worker that has it now; NULL: none */
	bool answered;	    /* that one has said all */
	uint64_t ordered;   /* bits 1 << slot: of what is told all of them, those that have yet to say that it is done */
	unsigned told;	    /* rows that it has sent */
	int slot;	    /* the last that was asked */
	bool over;	    /* no worker is left */
	uint64_t matched, bytes_up, bytes_down;
	json_t *silent; /* slots of workers that did not answer */
	json_t *later;	/* of those that have yet to end theirs: they were told, and will */
	json_t *extra;	/* for the reply to the client */
};

/* Those that look have readers; the others tell a client when they are done, and are never called off. */
static bool looks(enum steering_op op)
{
	return op != STEERING_END && op != STEERING_TAKEN;
}

/* ---- life --------------------------------------------------------------------------------------------------------------- */

static void job_free(struct session_job *j)
{
	if (j->asked != NULL && !j->answered && looks(j->ask.op))
		ipc_send(j->asked->link, IPC_SESSIONS_CANCEL, &j->ask.job, sizeof j->ask.job, NULL, 0);
	LIST_REMOVE(j, next);
	event_del(&j->patience);
	if (j->pipe_fd >= 0) {
		event_del(&j->writable);
		close(j->pipe_fd);
	}
	json_decref(j->silent);
	json_decref(j->later);
	json_decref(j->extra);
	free(j->text);
	free(j);
}

/* Of the time that a list may take. */
static int64_t left_us(const struct session_job *j)
{
	int64_t left = j->began_us + LISTING_MAX_S * INT64_C(1000000) - clock_mono_us();

	return left < 0 ? 0 : left;
}

static void be_patient(struct session_job *j)
{
	bool reader = j->len > j->off;
	int64_t wait = (reader ? READER_PATIENCE_S : WORKER_PATIENCE_S) * INT64_C(1000000);

	if (j->pipe_fd >= 0 && wait > left_us(j))
		wait = left_us(j);
	struct timeval tv = {.tv_sec = wait / 1000000, .tv_usec = wait % 1000000};

	evtimer_add(&j->patience, &tv);
}

static bool add_line(struct session_job *j, json_t *object)
{
	char *line = object == NULL ? NULL : json_dumps(object, JSON_COMPACT);
	size_t len = line == NULL ? 0 : strlen(line);
	char *grown = j->text;

	json_decref(object);
	if (line != NULL && j->size - j->len < len + 1) {
		grown = realloc(j->text, j->len + len + 1 + 65536);
		if (grown != NULL) {
			j->text = grown;
			j->size = j->len + len + 1 + 65536;
		}
	}
	if (line != NULL && grown != NULL) {
		memcpy(j->text + j->len, line, len);
		j->text[j->len + len] = '\n';
		j->len += len + 1;
	}
	free(line);
	return line != NULL && grown != NULL;
}

static json_t *totals(const struct session_job *j)
{
	return json_pack("{s:b, s:I, s:I, s:I, s:O}", "end", 1, "sessions", (json_int_t)j->matched, "bytes_up", (json_int_t)j->bytes_up,
			 "bytes_down", (json_int_t)j->bytes_down, "silent", j->silent);
}

static void tell_client(struct session_job *j)
{
	struct client *client = j->client;
	json_t *reply = json_pack("{s:b, s:O}", "ok", 1, "silent", j->silent);

	j->client = NULL;
	if (j->ask.op == STEERING_END)
		json_object_set_new(reply, "ended", json_integer((json_int_t)j->matched));
	json_object_update(reply, j->extra);
	if (json_array_size(j->later) > 0)
		json_object_set(reply, "later", j->later);
	if (client != NULL)
		admin_reply(client, reply, -1);
	else
		json_decref(reply);
}

/* ---- from worker to worker, and into the pipe ----------------------------------------------------------------------------- */

static struct peer *worker_after(struct control *c, int slot)
{
	struct peer *p, *found = NULL;

	LIST_FOREACH (p, &c->peers, next)
		if (p->role == ROLE_WORKER && (int)p->slot > slot && (found == NULL || p->slot < found->slot))
			found = p;
	return found;
}

static void go_on(struct session_job *j);
static void finish_if_done(struct session_job *j);

static bool ask_next(struct session_job *j)
{
	static uint8_t body[8192];
	struct wire_writer w = wire_writer_on(body, sizeof body);

	j->asked = worker_after(j->control, j->slot);
	j->answered = false;
	j->told = 0;
	if (j->asked == NULL)
		return false;
	j->slot = j->asked->slot;
	steering_put_ask(&w, &j->ask);
	if (ipc_send_wire(j->asked->link, IPC_SESSIONS_ASK, &w) != 0) {
		json_array_append_new(j->silent, json_integer(j->slot));
		return ask_next(j);
	}
	return true;
}

/* Writes what there is; false: it is not all written, or the job has ended. */
static bool flush_text(struct session_job *j)
{
	while (j->off < j->len) {
		ssize_t n = write(j->pipe_fd, j->text + j->off, j->len - j->off);

		if (n > 0) {
			j->off += (size_t)n;
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			event_add(&j->writable, NULL);
			be_patient(j);
			return false;
		}
		job_free(j); /* nobody reads any more */
		return false;
	}
	j->off = j->len = 0;
	return true;
}

static void go_on(struct session_job *j)
{
	if (j->pipe_fd >= 0 && !flush_text(j))
		return;
	if (j->over) {
		job_free(j);
		return;
	}
	be_patient(j);
	if (j->asked != NULL && !j->answered) {
		ipc_send(j->asked->link, IPC_SESSIONS_MORE, &j->ask.job, sizeof j->ask.job, NULL, 0);
		return;
	}
	if (ask_next(j))
		return;
	j->over = true;
	if (add_line(j, totals(j))) {
		go_on(j);
	} else {
		job_free(j);
	}
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	go_on(arg);
}

static void give_up_worker(struct session_job *j)
{
	json_array_append_new(j->silent, json_integer(j->slot));
	j->asked = NULL;
	go_on(j);
}

static void on_patience_over(evutil_socket_t fd, short what, void *arg)
{
	struct session_job *j = arg;

	(void)fd, (void)what;
	if (j->len > j->off || (j->pipe_fd >= 0 && left_us(j) == 0)) {
		log_info("%s does not read the sessions it has asked for", j->author.name);
		job_free(j);
		return;
	}
	if (!looks(j->ask.op)) {
		/* They have been told, and do it as soon as they can: nobody lives on because a worker was busy. */
		for (int slot = 0; slot < CONFIG_WORKERS_MAX; slot++) {
			if (!(j->ordered & BIT(slot)))
				continue;
			log_warning("worker %d has yet to do with its sessions as %s ordered: it does so as soon as it can", slot,
				    j->author.name);
			json_array_append_new(j->later, json_integer(slot));
		}
		j->ordered = 0;
		finish_if_done(j);
		return;
	}
	if (j->asked != NULL)
		ipc_send(j->asked->link, IPC_SESSIONS_CANCEL, &j->ask.job, sizeof j->ask.job, NULL, 0);
	give_up_worker(j);
}

/* ---- told to all of them at once ----------------------------------------------------------------------------------------- */

static void finish_if_done(struct session_job *j)
{
	if (j->ordered != 0)
		return;
	tell_client(j);
	job_free(j);
}

static void order_silent(struct session_job *j, uint16_t slot)
{
	j->ordered &= ~BIT(slot);
	json_array_append_new(j->silent, json_integer(slot));
}

static void order_all(struct session_job *j)
{
	static uint8_t body[8192];
	struct wire_writer w = wire_writer_on(body, sizeof body);
	struct peer *p;

	steering_put_ask(&w, &j->ask);
	for (int slot = -1; (p = worker_after(j->control, slot)) != NULL; slot = p->slot) {
		if (p->slot >= CONFIG_WORKERS_MAX)
			break;
		j->ordered |= BIT(p->slot);
		if (ipc_send_wire(p->link, IPC_SESSIONS_ASK, &w) != 0)
			order_silent(j, p->slot);
	}
	be_patient(j);
	finish_if_done(j);
}

/* Once more patience, as long as any of them gets on. */
static void order_answered(struct session_job *j, const struct peer *p, const struct steering_answer *a)
{
	be_patient(j);
	if (a->refused) {
		order_silent(j, p->slot);
	} else if (a->last) {
		j->ordered &= ~BIT(p->slot);
		j->matched += a->matched;
		j->bytes_up += a->bytes_up;
		j->bytes_down += a->bytes_down;
	}
	finish_if_done(j);
}

/* ---- rows --------------------------------------------------------------------------------------------------------------- */

/* A refusal is told as the audit tells it. */
static json_t *recent_json(const struct steering_row *row)
{
	char safe[4 * AUDIT_TEXT_MAX + 8];
	const char *rule = text_escape(row->event.rule, strlen(row->event.rule), safe, sizeof safe);

	if (row->event.kind != AUDIT_POLICY)
		return audit_event_json(0, &row->event);
	return json_pack("{s:s, s:I, s:I, s:I}", "rule", rule, "revision", (json_int_t)row->event.revision, "allowed",
			 (json_int_t)row->event.bytes_up, "denied", (json_int_t)row->event.bytes_down);
}

/* What a session consists of has no more of its own than this: the rest is the session's. */
static void keep_own(json_t *o)
{
	static const char *const own[] = {"name", "address", "port", "rule", "revision", "bytes_up", "bytes_down", "duration_us"};
	json_t *kept = json_object();

	for (size_t i = 0; i < sizeof own / sizeof *own; i++)
		if (json_object_get(o, own[i]) != NULL)
			json_object_set(kept, own[i], json_object_get(o, own[i]));
	json_object_clear(o);
	json_object_update_new(o, kept);
}

static json_t *flow_json(const struct steering_row *row, json_t *o)
{
	keep_own(o);
	json_object_update_new(o, json_pack("{s:s, s:o, s:I, s:I, s:I, s:s}", "part", "flow", "state", note_text(row->state, strlen(row->state)),
					    "datagrams_up", (json_int_t)(row->datagrams_up & INT64_MAX), "datagrams_down",
					    (json_int_t)(row->datagrams_down & INT64_MAX), "idle_us", (json_int_t)row->idle_us, "opened_by",
					    row->inbound ? "destination" : "client"));
	return o;
}

static json_t *peer_json(json_t *o)
{
	keep_own(o);
	json_object_set_new(o, "part", json_string("peer"));
	return o;
}

static json_t *row_json(const struct session_job *j, const struct steering_row *row, uint16_t slot)
{
	json_t *o = j->ask.op == STEERING_RECENT ? recent_json(row) : audit_event_json(0, &row->event);
	char listens[ENDPOINT_TEXT_MAX];

	if (o == NULL || j->ask.op == STEERING_RECENT)
		return o;
	if (row->event.kind == AUDIT_FLOW_CHECKPOINT)
		return flow_json(row, o);
	if (row->event.kind == AUDIT_OPEN)
		return peer_json(o);
	json_object_del(o, "event");
	json_object_set(o, "started", json_object_get(o, "time"));
	json_object_del(o, "time");
	json_object_set_new(o, "state", note_text(row->state, strlen(row->state)));
	if (row->claimed[0] != '\0')
		json_object_set_new(o, "claimed_user", note_text(row->claimed, strlen(row->claimed)));
	json_object_set_new(o, "idle_us", json_integer((json_int_t)row->idle_us));
	json_object_set_new(o, "rate", json_integer((json_int_t)row->rate));
	if (row->flows > 0)
		json_object_set_new(o, "flows", json_integer((json_int_t)row->flows));
	if (row->listens.addr.family != ADDR_NONE)
		json_object_set_new(o, "listens", json_string(endpoint_format(&row->listens, listens)));
	if (row->strangers > 0)
		json_object_set_new(o, "strangers", json_integer((json_int_t)row->strangers));
	json_object_set_new(o, "worker", json_integer(slot));
	return o;
}

static struct session_job *find_job(const struct control *c, uint64_t id)
{
	struct session_job *j;

	LIST_FOREACH (j, &c->session_jobs, next)
		if (j->ask.job == id)
			return j;
	return NULL;
}

/* No worker fills our memory: a slice comes when it is asked for, and of the rest there are so many. */
static bool too_many_rows(const struct session_job *j, const struct steering_answer *a)
{
	switch (j->ask.op) {
	case STEERING_LIST:
		return j->len > j->off;
	case STEERING_TOP:
		return j->told + a->rows > j->ask.limit;
	case STEERING_RECENT:
		return j->told + a->rows > STEERING_RECENT_MAX;
	case STEERING_SHOW:
		return j->told + a->rows > STEERING_SHOW_MAX;
	default:
		return a->rows > 0;
	}
}

void sessions_answered(struct peer *p, const struct ipc_message *m)
{
	static struct steering_row row;
	struct wire_reader r = wire_reader_on(m->body, m->len);
	struct steering_answer a;
	struct session_job *j = steering_get_answer(&r, &a) ? find_job(p->control, a.job) : NULL;

	if (r.bad) {
		ipc_reject(p->link, "a malformed answer about sessions");
		return;
	}
	if (j != NULL && !looks(j->ask.op)) {
		if (j->ordered & BIT(p->slot))
			order_answered(j, p, &a);
		return;
	}
	if (j == NULL || j->asked != p || j->answered)
		return; /* it is not waited for any more */
	if (too_many_rows(j, &a)) {
		ipc_reject(p->link, "more rows of sessions than it was asked for");
		return;
	}
	j->told += a.rows;
	for (unsigned i = 0; i < a.rows; i++) {
		if (!steering_get_row(&r, &row)) {
			ipc_reject(p->link, "a malformed row of a session");
			return;
		}
		if (j->pipe_fd >= 0 && !add_line(j, row_json(j, &row, p->slot))) {
			job_free(j);
			return;
		}
	}
	if (a.refused) {
		give_up_worker(j);
		return;
	}
	be_patient(j);
	if (a.last) {
		j->answered = true;
		j->matched += a.matched;
		j->bytes_up += a.bytes_up;
		j->bytes_down += a.bytes_down;
	}
	/* The first of an order come without being asked for piece by piece: there are few. */
	if (a.last || j->ask.op == STEERING_LIST)
		go_on(j);
}

void sessions_peer_gone(struct peer *p)
{
	struct session_job *j, *following;

	for (j = LIST_FIRST(&p->control->session_jobs); j != NULL; j = following) {
		following = LIST_NEXT(j, next);
		if (p->role == ROLE_WORKER && j->ordered & BIT(p->slot)) {
			order_silent(j, p->slot);
			finish_if_done(j);
			continue;
		}
		if (j->asked != p)
			continue;
		if (j->answered)
			j->asked = NULL;
		else
			give_up_worker(j);
	}
}

void sessions_client_gone(struct control *c, const struct client *client)
{
	struct session_job *j;

	LIST_FOREACH (j, &c->session_jobs, next)
		if (j->client == client)
			j->client = NULL;
}

/* ---- commands ----------------------------------------------------------------------------------------------------------- */

bool sessions_read_filter(struct client *client, const json_t *request, bool all, char out[STEERING_FILTER_MAX])
{
	const json_t *filter = json_object_get(request, "filter");
	struct audit_filter parsed;
	struct err why = {"the request has no filter object, or one that is too large"};
	size_t len = json_is_object(filter) ? json_dumpb(filter, out, STEERING_FILTER_MAX - 1, JSON_COMPACT) : 0;

	if (len == 0 || len >= STEERING_FILTER_MAX) {
		admin_refuse(client, why.text);
		return false;
	}
	out[len] = '\0';
	if (steering_filter(out, &parsed, &why) != 0) {
		admin_refuse(client, why.text);
		return false;
	}
	if (parsed.country[0] != '\0' && !tables_have_country(admin_control(client))) {
		admin_refuse(client, "no database of countries is in force, so no session lies in one: see geoip-database in gatewayd.conf(5)");
		return false;
	}
	if (!all && json_object_size(filter) == 0) {
		admin_refuse(client, "the filter names nothing: that would be every session");
		return false;
	}
	return true;
}

bool sessions_read_reason(struct client *client, const json_t *request, char out[STEERING_REASON_MAX + 1])
{
	const char *reason = json_string_value(json_object_get(request, "reason"));
	size_t len = reason == NULL ? 0 : strlen(reason);

	if (len == 0 || len > REASON_GIVEN_MAX || !text_is_plain(reason)) {
		admin_refuse(client, "a reason has 1 to 150 bytes, none of them a control character: it is part of every record");
		return false;
	}
	memcpy(out, reason, len + 1);
	return true;
}

/* Whoever may less than all cannot take all the places to look from, and what ends sessions has places of its own. */
static bool has_place(const struct control *c, const struct author *author, enum steering_op op)
{
	unsigned all = 0, listing = 0, lesser = 0, same = 0;
	const struct session_job *j;

	LIST_FOREACH (j, &c->session_jobs, next) {
		bool lists = looks(j->ask.op);

		all++;
		listing += lists;
		lesser += lists && !(j->author.rights & RIGHT_ADMINISTER);
		same += lists && j->author.uid == author->uid;
	}
	if (!looks(op))
		return all < JOBS_MAX;
	return listing < JOBS_LISTING_MAX &&
	       (author->rights & RIGHT_ADMINISTER || (lesser < JOBS_LISTING_LESSER_MAX && same < JOBS_OF_USER_MAX));
}

/* NULL: refused. */
static struct session_job *job_new(struct client *client, enum steering_op op)
{
	struct control *c = admin_control(client);
	struct session_job *j = has_place(c, admin_author(client), op) ? calloc(1, sizeof *j) : NULL;

	if (j == NULL) {
		admin_refuse(client, "too many are looking through the sessions: try again when one is done");
		return NULL;
	}
	/* What an earlier control has ordered may be answered yet. */
	if (c->session_job_id == 0)
		c->session_job_id = (uint64_t)clock_mono_us();
	j->control = c;
	j->author = *admin_author(client);
	j->began_us = clock_mono_us();
	j->ask.job = ++c->session_job_id;
	j->ask.op = op;
	j->pipe_fd = -1;
	j->slot = -1;
	j->silent = json_array();
	j->later = json_array();
	j->extra = json_object();
	evtimer_assign(&j->patience, c->child->base, on_patience_over, j);
	LIST_INSERT_HEAD(&c->session_jobs, j, next);
	return j;
}

static bool read_order(struct client *client, const json_t *request, struct steering_ask *ask)
{
	const json_t *order = json_object_get(request, "sort"), *limit = json_object_get(request, "limit");

	ask->order = order == NULL ? STEERING_BY_NOTHING : steering_order_parse(json_is_string(order) ? json_string_value(order) : "");
	if (ask->order == STEERING_ORDERS) {
		admin_refuse(client, "sessions are sorted by bytes, age or rate");
		return false;
	}
	ask->op = ask->order == STEERING_BY_NOTHING ? STEERING_LIST : STEERING_TOP;
	if (ask->op == STEERING_LIST && limit != NULL) {
		admin_refuse(client, "a limit goes with a sort: without one, read as many sessions as are wanted");
		return false;
	}
	if (ask->op == STEERING_TOP && (!json_is_integer(limit) || json_integer_value(limit) < 1 || json_integer_value(limit) > STEERING_TOP_MAX)) {
		admin_refuse(client, "a sorted list has a limit of 1 to 200 sessions of each worker");
		return false;
	}
	ask->limit = (uint32_t)json_integer_value(limit);
	return true;
}

static void list(struct client *client, struct steering_ask ask)
{
	struct session_job *j;
	int ends[2];

	j = job_new(client, ask.op);
	if (j == NULL)
		return;
	ask.job = j->ask.job;
	j->ask = ask;
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
		job_free(j);
		admin_refuse(client, "gatewayd is out of descriptors");
		return;
	}
	/* The reader is to wait as usual. */
	fcntl(ends[0], F_SETFL, 0);
	j->pipe_fd = ends[1];
	event_assign(&j->writable, j->control->child->base, ends[1], EV_WRITE, on_writable, j);
	admin_reply(client, json_pack("{s:b}", "ok", 1), ends[0]);
	go_on(j);
}

void sessions_list(struct client *client, const json_t *request)
{
	struct steering_ask ask = {0};

	if (read_order(client, request, &ask) && sessions_read_filter(client, request, true, ask.filter))
		list(client, ask);
}

void sessions_show(struct client *client, const json_t *request)
{
	struct steering_ask ask = {.op = STEERING_SHOW};
	const char *id = json_string_value(json_object_get(request, "session"));
	uint64_t session = id == NULL ? 0 : audit_session_parse(id);
	char text[AUDIT_SESSION_TEXT_MAX];

	if (session == 0) {
		admin_refuse(client, "a session id looks like 0123-4567-89AB-C");
		return;
	}
	snprintf(ask.filter, sizeof ask.filter, "{\"session\":\"%s\"}", audit_session_text(session, text));
	list(client, ask);
}

void sessions_recent(struct client *client, const json_t *request)
{
	(void)request;
	list(client, (struct steering_ask){.op = STEERING_RECENT, .filter = "{}"});
}

void sessions_record(struct client *client, const char *what, const json_t *filter, const char *reason)
{
	char text[AUDIT_TEXT_MAX + 1], *shown = json_dumps(filter, JSON_COMPACT);

	/* Cut in the text, whole in the detail. */
	snprintf(text, sizeof text, "%s: %.85s: %s", what, shown == NULL ? "" : shown, reason);
	free(shown);
	admin_record_filter(client, text, filter);
}

struct session_job *sessions_end_later(struct client *client)
{
	return job_new(client, STEERING_END);
}

struct session_job *sessions_wait_later(struct client *client)
{
	return job_new(client, STEERING_TAKEN);
}

void sessions_wait(struct session_job *j, struct client *client, json_t *extra)
{
	j->client = client;
	strcpy(j->ask.filter, "{}");
	json_object_update(j->extra, extra);
	json_decref(extra);
	order_all(j);
}

void sessions_end(struct session_job *j, struct client *client, const char *filter, const char *reason, json_t *extra)
{
	j->client = client;
	strcpy(j->ask.filter, filter);
	snprintf(j->ask.reason, sizeof j->ask.reason, "%.150s (%s)", reason, j->author.name);
	json_object_update(j->extra, extra);
	json_decref(extra);
	order_all(j);
}

void sessions_kill(struct client *client, const json_t *request)
{
	char filter[STEERING_FILTER_MAX], reason[STEERING_REASON_MAX + 1];
	struct session_job *j;

	if (!sessions_read_filter(client, request, json_is_true(json_object_get(request, "all")), filter) ||
	    !sessions_read_reason(client, request, reason))
		return;
	j = sessions_end_later(client);
	if (j == NULL)
		return;
	sessions_record(client, "session kill", json_object_get(request, "filter"), reason);
	sessions_end(j, client, filter, reason, NULL);
}
