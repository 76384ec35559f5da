#include "config.h"

#include "gatewayd/recorder/senders.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/log.h"
#include "gatewayd/recorder/batch.h"

/* Peers at once; the supervisor makes far fewer. */
#define SENDERS_MAX 512

struct sender {
	LIST_ENTRY(sender) next;
	struct recorder *recorder;
	struct ipc *link;
	uint64_t incarnation; /* of its process; 0 until its first record */
	uint64_t wanted;      /* highest sequence it sent */
	uint64_t told;	      /* highest sequence it was told to be durable */
};

struct recorder {
	struct event_base *base;
	struct audit_store *store;
	struct batch *batch;
	bool paused;
	size_t links;
	LIST_HEAD(, sender) senders;
	void (*gone)(void *arg);
	void *gone_arg;
	struct audit_event event; /* being checked; too big for a stack frame */
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

static void on_changed(void *arg)
{
	struct recorder *r = arg;
	struct sender *s;

	LIST_FOREACH (s, &r->senders, next)
		acknowledge(s);
	pause_all(r, batch_full(r->batch));
}

/* ---- status --------------------------------------------------------------------------------------------------------
 */

static json_t *status_json(struct recorder *r)
{
	struct batch_status b;
	struct audit_counts counts = {0};
	struct err why;

	batch_get_status(r->batch, &b);
	if (audit_store_counts(r->store, &counts, &why) != 0 && !b.failing) {
		b.failing = true;
		b.why = why;
	}
	json_t *status =
		json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "state", b.failing ? "failing" : "ok", "rows",
			  (json_int_t)counts.rows, "commits", (json_int_t)b.commits, "failures", (json_int_t)b.failures,
			  "queued", (json_int_t)b.queued, "queued_bytes", (json_int_t)b.queued_bytes, "last_commit_us",
			  (json_int_t)b.last_commit_us, "longest_commit_us", (json_int_t)b.longest_commit_us);

	if (status != NULL && b.failing) {
		json_object_set_new(status, "error", json_string(b.why.text));
		json_object_set_new(status, "failing_since_us", json_integer(b.failing_us));
	}
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

/* ---- senders -------------------------------------------------------------------------------------------------------
 */

static void sender_free(struct sender *s)
{
	LIST_REMOVE(s, next);
	s->recorder->links--;
	ipc_free(&s->link);
	free(s);
}

static void on_gone(struct ipc *link, void *arg)
{
	struct sender *s = arg;
	struct recorder *r = s->recorder;

	(void)link;
	/* What it sent stays queued: it is owed to the audit, not to the sender. */
	sender_free(s);
	if (r->gone != NULL)
		r->gone(r->gone_arg);
}

static void take_record(struct sender *s, const struct ipc_message *m)
{
	struct recorder *r = s->recorder;
	struct wire_reader reader = wire_reader_on(m->body, m->len);
	uint64_t incarnation, sequence, durable;
	struct err why;

	if (!audit_get_record(&reader, &incarnation, &sequence, &r->event)) {
		ipc_reject(s->link, "a malformed audit record");
		return;
	}
	if (s->incarnation != 0 && s->incarnation != incarnation) {
		ipc_reject(s->link, "an audit record of another process"); /* one process, one life, one link */
		return;
	}
	/* A process that lives on brings its new recorder what the last one may have committed already. */
	if (s->incarnation == 0 && audit_store_last(r->store, incarnation, &durable, &why) == 0)
		s->told = durable;
	s->incarnation = incarnation;
	if (sequence <= s->told) {
		tell(s, s->told);
		return;
	}
	if (sequence > s->wanted)
		s->wanted = sequence;
	batch_add(r->batch, m->body, m->len);
	pause_all(r, batch_full(r->batch));
}

static void on_message(struct ipc *link, struct ipc_message *m, void *arg)
{
	struct sender *s = arg;

	if (m->type == IPC_STATUS_ASK) {
		answer_status(s->recorder, link);
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
