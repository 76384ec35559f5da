#include "config.h"

#include "gatewayd/recording.h"

#include <event2/event.h>
#include <event2/event_struct.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/ipc.h"
#include "common/log.h"

/* New sessions are refused beyond these; the ends of those that live always find room. */
#define WAITING_MAX 65536
#define WAITING_BYTES_MAX (8 * 1024 * 1024)
/* What may be under way to the recorder at a time. */
#define WINDOW_BYTES (512 * 1024)

struct record {
	TAILQ_ENTRY(record) next, early;
	bool in_early;
	struct waiter *waiter;
	uint64_t sequence;
	size_t len;
	uint8_t body[];
};

TAILQ_HEAD(record_list, record);

struct recording {
	struct event_base *base;
	enum role self;
	struct recording_callbacks callbacks;
	struct ipc *link;
	uint64_t incarnation, sequence;
	uint64_t sent; /* the highest sequence that any recorder has been given */
	struct record_list waiting; /* not durable yet, in order */
	struct record_list early;   /* relaxed: their waiters are told in the next turn */
	struct event early_event;
	bool relaxed;
	bool no_grants; /* the recorder's word */
	struct record *unsent;      /* the first that this recorder has not been given */
	size_t count, bytes;
	void (*drained)(void *arg);
	void *drained_arg;
};

/* Never from inside record_event(): its caller is not done yet. */
static void on_early(evutil_socket_t fd, short what, void *arg)
{
	struct recording *r = arg;
	struct record *rec;

	(void)fd, (void)what;
	while ((rec = TAILQ_FIRST(&r->early)) != NULL) {
		struct waiter *waiter = rec->waiter;

		TAILQ_REMOVE(&r->early, rec, early);
		rec->in_early = false;
		rec->waiter = NULL;
		if (waiter != NULL)
			waiter->durable(waiter);
	}
}

struct recording *recording_new(struct event_base *base, enum role self, const struct recording_callbacks *callbacks)
{
	struct recording *r = calloc(1, sizeof *r);

	if (r == NULL)
		log_fatal("out of memory for the audit queue");
	r->base = base;
	r->self = self;
	r->callbacks = *callbacks;
	TAILQ_INIT(&r->waiting);
	TAILQ_INIT(&r->early);
	event_assign(&r->early_event, base, -1, 0, on_early, r);
	do
		randombytes_buf(&r->incarnation, sizeof r->incarnation);
	while (r->incarnation == 0);
	return r;
}

static void remove_record(struct recording *r, struct record *rec)
{
	if (r->unsent == rec)
		r->unsent = TAILQ_NEXT(rec, next);
	TAILQ_REMOVE(&r->waiting, rec, next);
	if (rec->in_early)
		TAILQ_REMOVE(&r->early, rec, early);
	r->count--;
	r->bytes -= rec->len;
	free(rec);
}

void recording_free(struct recording **rp)
{
	struct recording *r = *rp;
	struct record *rec;

	if (r == NULL)
		return;
	while ((rec = TAILQ_FIRST(&r->waiting)) != NULL)
		remove_record(r, rec);
	event_del(&r->early_event);
	ipc_free(&r->link);
	free(r);
	*rp = NULL;
}

static void send_unsent(struct recording *r)
{
	while (r->link != NULL && r->unsent != NULL && ipc_queued(r->link) < WINDOW_BYTES) {
		if (ipc_send(r->link, IPC_RECORD, r->unsent->body, r->unsent->len, NULL, 0) != 0)
			return;
		if (r->unsent->sequence > r->sent)
			r->sent = r->unsent->sequence;
		r->unsent = TAILQ_NEXT(r->unsent, next);
	}
}

/* Everything up to the sequence is on stable storage. */
static void on_recorded(struct recording *r, uint64_t sequence)
{
	struct record *rec;

	while ((rec = TAILQ_FIRST(&r->waiting)) != NULL && rec->sequence <= sequence) {
		struct waiter *waiter = rec->waiter;

		remove_record(r, rec);
		if (waiter != NULL)
			waiter->durable(waiter);
	}
	send_unsent(r);
	if (r->callbacks.progress != NULL)
		r->callbacks.progress(r->callbacks.arg);
	if (r->drained != NULL && r->count == 0)
		r->drained(r->drained_arg);
}

static void on_message(struct ipc *link, struct ipc_message *m, void *arg)
{
	struct recording *r = arg;

	(void)link;
	if (m->type == IPC_AUDIT_STATE) {
		struct wire_reader state = wire_reader_on(m->body, m->len);

		r->no_grants = wire_get_u8(&state) == 0;
		if (r->callbacks.progress != NULL)
			r->callbacks.progress(r->callbacks.arg);
		return;
	}
	if (m->type != IPC_RECORDED) {
		if (r->callbacks.message != NULL)
			r->callbacks.message(m, r->callbacks.arg);
		return;
	}
	struct wire_reader in = wire_reader_on(m->body, m->len);
	uint64_t sequence = wire_get_u64(&in);

	if (!wire_done(&in) || sequence > r->sent) {
		log_error("the recorder acknowledged what it was never given");
		return;
	}
	on_recorded(r, sequence);
}

static void on_gone(struct ipc *link, void *arg)
{
	struct recording *r = arg;

	(void)link;
	ipc_free(&r->link);
	r->unsent = TAILQ_FIRST(&r->waiting);
	if (r->callbacks.gone != NULL)
		r->callbacks.gone(r->callbacks.arg);
}

void recording_link(struct recording *r, int fd)
{
	ipc_free(&r->link);
	r->no_grants = false; /* the new one says what it thinks */
	r->link = ipc_new(fd, r->self, ROLE_RECORDER, 0);
	ipc_send(r->link, IPC_HELLO, &r->incarnation, sizeof r->incarnation, NULL, 0);
	ipc_attach(r->link, r->base, on_message, on_gone, r);
	r->unsent = TAILQ_FIRST(&r->waiting);
	send_unsent(r);
}

struct ipc *recording_peer(const struct recording *r)
{
	return r->link;
}

bool recording_has_room(const struct recording *r)
{
	return r->count < WAITING_MAX && r->bytes < WAITING_BYTES_MAX;
}

bool recording_has_plenty(const struct recording *r)
{
	return r->count < WAITING_MAX / 2 && r->bytes < WAITING_BYTES_MAX / 2;
}

bool recording_grants(const struct recording *r)
{
	return recording_has_room(r) && !r->no_grants;
}

void recording_relax(struct recording *r)
{
	r->relaxed = true;
}

struct record *record_event(struct recording *r, const struct audit_event *e, struct waiter *waiter)
{
	static uint8_t body[32768];
	struct wire_writer out = wire_writer_on(body, sizeof body);
	struct record *rec;

	audit_put_record(&out, r->incarnation, r->sequence + 1, e);
	rec = out.overflow ? NULL : malloc(sizeof *rec + out.len);
	if (rec == NULL) {
		log_error("an audit event could not be kept: %s", out.overflow ? "it is too large" : "out of memory");
		return NULL;
	}
	*rec = (struct record){.waiter = waiter, .sequence = ++r->sequence, .len = out.len};
	memcpy(rec->body, body, out.len);
	TAILQ_INSERT_TAIL(&r->waiting, rec, next);
	r->count++;
	r->bytes += rec->len;
	if (r->unsent == NULL)
		r->unsent = rec;
	if (r->relaxed && waiter != NULL) {
		TAILQ_INSERT_TAIL(&r->early, rec, early);
		rec->in_early = true;
		event_active(&r->early_event, EV_TIMEOUT, 1);
	}
	send_unsent(r);
	return rec;
}

void record_forget(struct record **record)
{
	if (*record != NULL)
		(*record)->waiter = NULL;
	*record = NULL;
}

void recording_drain(struct recording *r, void (*done)(void *arg), void *arg)
{
	r->drained = done;
	r->drained_arg = arg;
	if (r->count == 0)
		done(arg);
}

unsigned recording_waiting(const struct recording *r)
{
	return (unsigned)r->count;
}
