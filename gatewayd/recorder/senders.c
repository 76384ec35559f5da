#include "config.h"

#include "gatewayd/recorder/senders.h"

#include <jansson.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/log.h"
#include "gatewayd/recorder/batch.h"

/* Peers at once; the supervisor makes far fewer. */
#define SENDERS_MAX 512

/* Slots of workers. */
#define LIVES_MAX 256

/* What is known of the worker of a slot. */
struct life {
	bool known;	      /* who it is, or that it is nobody */
	uint64_t incarnation; /* 0: nobody */
};

struct sender {
	LIST_ENTRY(sender) next;
	struct recorder *recorder;
	struct ipc *link;
	bool dead;	      /* its process has ended; what it sent is still being read */
	uint64_t incarnation; /* of its process; 0 until it has said HELLO */
	uint64_t wanted;      /* highest sequence it sent */
	uint64_t told;	      /* highest sequence it was told to be durable */
};

struct recorder {
	struct event_base *base;
	struct audit_store *store;
	struct batch *batch;
	bool paused, may_grant;
	size_t links;
	struct life workers[LIVES_MAX]; /* by slot */
	unsigned nworkers;
	LIST_HEAD(, sender) senders;
	void (*gone)(void *arg);
	void *gone_arg;
	void (*retention)(struct ipc *link, const struct ipc_message *m, void *arg);
	void (*retention_gone)(const struct ipc *link, void *arg);
	void *retention_arg;
};

/* ---- acknowledging ------------------------------------------------------------------------------------------------
 */

static void tell(struct sender *s, uint64_t sequence)
{
	uint8_t body[8];
	struct wire_writer w = wire_writer_on(body, sizeof body);

	wire_put_u64(&w, sequence);
	/* A peer that does not read its acknowledgements asks again in its next life. */
	if (ipc_send_wire(s->link, IPC_RECORDED, &w) == 0)
		s->told = sequence;
}

static void acknowledge(struct sender *s)
{
	uint64_t durable;
	struct err why;

	if (s->wanted <= s->told)
		return;
	if (audit_store_last(s->recorder->store, s->incarnation, &durable, &why) != 0) {
		log_warning("%s/%u has to wait for its acknowledgement: %s", role_name(ipc_peer(s->link)),
			    ipc_peer_slot(s->link), why.text);
		return;
	}
	if (durable > s->wanted)
		durable = s->wanted;
	if (durable > s->told)
		tell(s, durable);
}

static void pause_all(struct recorder *r, bool paused)
{
	struct sender *s;

	if (paused == r->paused)
		return;
	r->paused = paused;
	log_debug(paused ? "the audit's queue is full: senders wait" : "the audit's queue has room again");
	LIST_FOREACH (s, &r->senders, next)
		if (ipc_peer(s->link) != ROLE_CONTROL) /* which asks for the status over its link, and records little */
			ipc_pause(s->link, paused);
}

static void tell_state(const struct recorder *r, struct ipc *link)
{
	uint8_t may = r->may_grant;

	ipc_send(link, IPC_AUDIT_STATE, &may, sizeof may, NULL, 0);
}

static void tell_all_state(struct recorder *r)
{
	struct sender *s;

	if (r->may_grant == batch_may_grant(r->batch))
		return;
	r->may_grant = !r->may_grant;
	LIST_FOREACH (s, &r->senders, next)
		tell_state(r, s->link);
}

static void on_changed(void *arg)
{
	struct recorder *r = arg;
	struct sender *s;

	LIST_FOREACH (s, &r->senders, next)
		acknowledge(s);
	tell_all_state(r);
	pause_all(r, batch_full(r->batch));
}

/* ---- status --------------------------------------------------------------------------------------------------------
 */

static json_t *status_json(struct recorder *r)
{
	struct batch_status b;
	struct audit_store_status s;
	char mac[2 * AUDIT_MAC_BYTES + 1];

	batch_get_status(r->batch, &b);
	audit_store_status(r->store, &s);
	json_t *status = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "state",
				   b.failing   ? "failing"
				   : b.reserve ? "full"
					       : "ok",
				   "rows", (json_int_t)s.rows, "commits", (json_int_t)b.commits, "failures",
				   (json_int_t)b.failures, "queued", (json_int_t)b.queued, "queued_bytes",
				   (json_int_t)b.queued_bytes, "last_commit_us", (json_int_t)b.last_commit_us,
				   "longest_commit_us", (json_int_t)b.longest_commit_us);

	json_object_set_new(status, "lost", json_integer((json_int_t)b.lost));
	json_object_set_new(status, "segments", json_integer((json_int_t)s.segments));
	json_object_set_new(status, "chain",
			    json_pack("{s:I, s:I, s:s, s:b}", "entry", (json_int_t)s.head.entry, "epoch",
				      (json_int_t)s.head.epoch, "head",
				      sodium_bin2hex(mac, sizeof mac, s.head.mac, AUDIT_MAC_BYTES), "first_key_waits",
				      s.first_key_waits));
	if (b.failing || b.reserve)
		json_object_set_new(status, "error", json_string(b.why.text));
	if (b.failing)
		json_object_set_new(status, "failing_since_us", json_integer(b.failing_us));
	return status;
}

static void answer_status(struct recorder *r, struct ipc *link)
{
	json_t *status = status_json(r);
	char *text = status == NULL ? NULL : json_dumps(status, JSON_COMPACT | JSON_ENSURE_ASCII);

	if (text != NULL && strlen(text) <= ipc_body_max(IPC_STATUS))
		ipc_send(link, IPC_STATUS, text, strlen(text), NULL, 0);
	free(text);
	json_decref(status);
}

/* ---- lives: who carries sessions -----------------------------------------------------------------------------------
 */

static bool is_lost(uint64_t incarnation, void *arg)
{
	const struct recorder *r = arg;
	const struct sender *s;

	for (unsigned i = 0; i < LIVES_MAX; i++)
		if (r->workers[i].incarnation == incarnation)
			return false;
	/* Its last words are still being read, though its successor has greeted already. */
	LIST_FOREACH (s, &r->senders, next)
		if (s->incarnation == incarnation)
			return false;
	return true;
}

/* Nothing is judged before it is known of every slot who lives there: a recorder that was restarted learns it from
 * their HELLOs, and from the supervisor. */
static void settle(struct recorder *r)
{
	for (unsigned i = 0; i < r->nworkers; i++)
		if (!r->workers[i].known)
			return;
	batch_settle(r->batch, is_lost, r);
}

static void set_life(struct recorder *r, uint16_t slot, uint64_t incarnation)
{
	struct life *life = &r->workers[slot];
	bool news = !life->known || (life->incarnation != incarnation && life->incarnation != 0);

	*life = (struct life){.known = true, .incarnation = incarnation};
	if (news)
		settle(r);
}

/* A worker's link has ended: what came over it is in the queue. */
static void link_ended(struct recorder *r, uint16_t slot, uint64_t incarnation, bool dead)
{
	if (slot >= LIVES_MAX || incarnation == 0)
		return;
	if (r->workers[slot].incarnation != incarnation)
		settle(r); /* its successor came first */
	else if (dead)
		set_life(r, slot, 0);
}

void recorder_begin(struct recorder *r, bool first, unsigned nworkers)
{
	r->nworkers = nworkers < LIVES_MAX ? nworkers : LIVES_MAX;
	for (unsigned i = 0; i < LIVES_MAX; i++)
		r->workers[i].known = first;
	if (first)
		settle(r);
}

void recorder_worker_gone(struct recorder *r, uint16_t slot)
{
	struct sender *s;
	bool reading = false;

	if (slot >= LIVES_MAX)
		return;
	LIST_FOREACH (s, &r->senders, next)
		if (ipc_peer(s->link) == ROLE_WORKER && ipc_peer_slot(s->link) == slot)
			reading = s->dead = true;
	if (!reading)
		set_life(r, slot, 0);
}

/* ---- senders -------------------------------------------------------------------------------------------------------
 */

static void sender_free(struct sender *s)
{
	LIST_REMOVE(s, next);
	s->recorder->links--;
	if (s->recorder->retention_gone != NULL)
		s->recorder->retention_gone(s->link, s->recorder->retention_arg);
	ipc_free(&s->link);
	free(s);
}

static void on_gone(struct ipc *link, void *arg)
{
	struct sender *s = arg;
	struct recorder *r = s->recorder;

	bool worker = ipc_peer(link) == ROLE_WORKER, dead = s->dead;
	uint16_t slot = ipc_peer_slot(link);
	uint64_t incarnation = s->incarnation;

	/* What it sent stays queued: it is owed to the audit, not to the sender. */
	sender_free(s);
	if (worker)
		link_ended(r, slot, incarnation, dead);
	if (r->gone != NULL)
		r->gone(r->gone_arg);
}

static void take_record(struct sender *s, const struct ipc_message *m)
{
	struct recorder *r = s->recorder;
	struct wire_reader reader = wire_reader_on(m->body, m->len);
	uint64_t incarnation, sequence;
	struct audit_row row;

	if (!audit_row_get_record(&reader, &incarnation, &sequence, &row)) {
		ipc_reject(s->link, "a malformed audit record");
		return;
	}
	if (s->incarnation != incarnation) {
		ipc_reject(s->link, "an audit record of another process"); /* one process, one life, one link */
		return;
	}
	if (sequence <= s->told) {
		tell(s, s->told);
		return;
	}
	if (sequence > s->wanted)
		s->wanted = sequence;
	batch_add(r->batch, incarnation, sequence, &row, m->body, m->len);
	pause_all(r, batch_full(r->batch));
}

static void take_hello(struct sender *s, const struct ipc_message *m)
{
	struct recorder *r = s->recorder;
	struct wire_reader reader = wire_reader_on(m->body, m->len);
	uint64_t incarnation = wire_get_u64(&reader), durable;
	struct err why;

	if (!wire_done(&reader) || incarnation == 0 || s->incarnation != 0) {
		ipc_reject(s->link, "a malformed or second HELLO");
		return;
	}
	s->incarnation = incarnation;
	/* A process that lives on brings its new recorder what the last one may have committed already. */
	if (audit_store_last(r->store, incarnation, &durable, &why) == 0)
		s->told = durable;
	if (ipc_peer(s->link) == ROLE_WORKER && ipc_peer_slot(s->link) < LIVES_MAX)
		set_life(r, ipc_peer_slot(s->link), incarnation);
}

static void on_message(struct ipc *link, struct ipc_message *m, void *arg)
{
	struct sender *s = arg;

	if (m->type == IPC_HELLO) {
		take_hello(s, m);
		return;
	}
	if (m->type == IPC_STATUS_ASK) {
		answer_status(s->recorder, link);
		return;
	}
	if (m->type == IPC_RETENTION && s->recorder->retention != NULL) {
		s->recorder->retention(link, m, s->recorder->retention_arg);
		return;
	}
	if (m->type == IPC_RECORD)
		take_record(s, m);
	else
		ipc_reject(link, "a message that no recorder is sent");
}

void recorder_add(struct recorder *r, struct ipc *link)
{
	if (r->links == SENDERS_MAX) {
		log_error("more than %d links to the recorder: the newest is cut", SENDERS_MAX);
		ipc_free(&link);
		return;
	}
	struct sender *s = calloc(1, sizeof *s);

	if (s == NULL)
		log_fatal("out of memory for a link to %s", role_name(ipc_peer(link)));
	s->recorder = r;
	s->link = link;
	LIST_INSERT_HEAD(&r->senders, s, next);
	r->links++;
	if (r->paused && ipc_peer(link) != ROLE_CONTROL)
		ipc_pause(link, true);
	ipc_attach(link, r->base, on_message, on_gone, s);
	if (!r->may_grant)
		tell_state(r, link);
}

/* ---- life ----------------------------------------------------------------------------------------------------------
 */

struct recorder *recorder_new(struct event_base *base, struct audit_store *store, unsigned commit_interval_us)
{
	struct recorder *r = calloc(1, sizeof *r);

	if (r == NULL)
		log_fatal("out of memory for the recorder");
	r->base = base;
	r->store = store;
	r->may_grant = true;
	LIST_INIT(&r->senders);
	r->batch = batch_new(base, store, commit_interval_us, on_changed, r);
	return r;
}

void recorder_free(struct recorder **rp)
{
	struct recorder *r = *rp;

	*rp = NULL;
	if (r == NULL)
		return;
	while (!LIST_EMPTY(&r->senders))
		sender_free(LIST_FIRST(&r->senders));
	batch_free(&r->batch);
	free(r);
}

void recorder_start(struct recorder *r, uint64_t reserve_bytes)
{
	batch_start(r->batch, reserve_bytes);
	r->may_grant = batch_may_grant(r->batch);
}

size_t recorder_links(const struct recorder *r)
{
	return r->links;
}

int recorder_finish(struct recorder *r)
{
	return batch_commit_now(r->batch);
}

void recorder_on_gone(struct recorder *r, void (*gone)(void *arg), void *arg)
{
	r->gone = gone;
	r->gone_arg = arg;
}

void recorder_on_retention(struct recorder *r, void (*ask)(struct ipc *link, const struct ipc_message *m, void *arg),
			   void (*link_gone)(const struct ipc *link, void *arg), void *arg)
{
	r->retention = ask;
	r->retention_gone = link_gone;
	r->retention_arg = arg;
}
