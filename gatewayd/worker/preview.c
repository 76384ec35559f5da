/* What a policy that is not in force would do to the sessions that live: each is decided by it, in slices, and nothing changes.
 *
 * PREVIEW: u32 number, and the image.  PREVIEWED: u32 number, u8 whether it was done, u64 how many were decided, u64 how many of
 * them would end, and as bytes a JSON array of the first, or why it was not done. */
#include "config.h"

#include <event2/event.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/text.h"
#include "gatewayd/worker/session.h"
#include "gatewayd/worker/udp.h"
#include "gatewayd/worker/worker.h"

#define SLICE_US 1000
/* At a time: a change, and trials of others beside it. */
#define PREVIEWS_MAX 4
/* Told of those that would end. */
#define SHOWN_BYTES 12000

struct preview {
	LIST_ENTRY(preview) next;
	struct worker *worker;
	uint32_t number;
	struct ruleset *rules;
	struct session *at; /* next to be decided */
	struct event slice;
	uint64_t decided, ended;
	json_t *shown;
	size_t shown_bytes;
};

static void answer(struct worker *w, uint32_t number, const struct preview *p, const char *fault)
{
	static uint8_t body[32768];
	struct wire_writer out = wire_writer_on(body, sizeof body);
	char *shown = p == NULL ? NULL : json_dumps(p->shown, JSON_COMPACT | JSON_ENSURE_ASCII);

	if (p != NULL && shown == NULL)
		fault = "out of memory";
	wire_put_u32(&out, number);
	wire_put_u8(&out, fault == NULL);
	wire_put_u64(&out, p == NULL ? 0 : p->decided);
	wire_put_u64(&out, p == NULL ? 0 : p->ended);
	wire_put_text(&out, fault == NULL ? shown : fault);
	if (w->control != NULL)
		ipc_send_wire(w->control, IPC_PREVIEWED, &out);
	free(shown);
}

static void preview_free(struct preview *p)
{
	LIST_REMOVE(p, next);
	event_del(&p->slice);
	ruleset_unref(&p->rules);
	json_decref(p->shown);
	free(p);
}

/* ---- who would end ------------------------------------------------------------------------------------------------------ */

static json_t *describe(const struct preview *p, const struct session *s, const struct udp_flow *f, const struct policy_decision *d)
{
	static const char *const commands[] = {[POLICY_CONNECT] = "connect", [POLICY_BIND] = "bind", [POLICY_UDP] = "udp"};
	char id[AUDIT_SESSION_TEXT_MAX], client[ADDR_TEXT_MAX], address[ADDR_TEXT_MAX], text[AUDIT_TEXT_MAX], user[4 * 256];
	const struct addr *remote = f == NULL ? &s->address : &f->remote;
	const char *name = f == NULL ? s->name : f->request.has_name ? f->request.name.text : NULL;

	text_escape(s->user == NULL ? "" : s->user, s->user == NULL ? 0 : strlen(s->user), user, sizeof user);
	return json_pack("{s:s,s:s,s:s,s:s,s:s,s:i,s:s,s:s}", "session", audit_session_text(s->id, id), "command", commands[s->command],
			 "user", user, "client", addr_format(&s->client.addr, client), "destination",
			 name != NULL ? name : addr_format(remote, address), "port", f == NULL ? (int)s->port : (int)f->request.port,
			 "rule", policy_rule_name(p->rules->image, d->rule), "reason",
			 policy_decision_text(p->rules->image, d, text, sizeof text));
}

static void on_refused(struct session *s, const struct udp_flow *f, const struct policy_decision *d, void *arg)
{
	struct preview *p = arg;
	json_t *one = p->shown_bytes < SHOWN_BYTES ? describe(p, s, f, d) : NULL;
	size_t size = one == NULL ? SHOWN_BYTES : json_dumpb(one, NULL, 0, JSON_COMPACT | JSON_ENSURE_ASCII) + 1;

	p->ended++;
	/* The first that does not fit ends it, so that it is always the first few. */
	if (size > SHOWN_BYTES - p->shown_bytes) {
		json_decref(one);
		p->shown_bytes = SHOWN_BYTES;
		return;
	}
	p->shown_bytes += size;
	json_array_append_new(p->shown, one);
}

static void on_slice(evutil_socket_t fd, short what, void *arg)
{
	struct preview *p = arg;
	struct worker *w = p->worker;
	struct policy_context ctx = authorise_context(w);
	int64_t began = clock_mono_us();

	(void)fd, (void)what;
	ctx.image = p->rules->image;
	while (p->at != NULL && clock_mono_us() - began < SLICE_US) {
		struct session *s = p->at;

		p->at = TAILQ_NEXT(s, next);
		p->decided += live_try(&ctx, s, on_refused, p);
	}
	if (p->at != NULL) {
		evtimer_add(&p->slice, &(struct timeval){0});
		return;
	}
	answer(w, p->number, p, NULL);
	preview_free(p);
}

void worker_preview_forget(const struct session *s)
{
	struct preview *p;

	LIST_FOREACH (p, &s->worker->previews, next)
		if (p->at == s)
			p->at = TAILQ_NEXT(s, next);
}

/* Nobody waits for them any more. */
void worker_preview_stop(struct worker *w)
{
	struct preview *p;

	while ((p = LIST_FIRST(&w->previews)) != NULL)
		preview_free(p);
}

static unsigned under_way(const struct worker *w)
{
	const struct preview *p;
	unsigned n = 0;

	LIST_FOREACH (p, &w->previews, next)
		n++;
	return n;
}

void worker_preview_start(struct worker *w, const struct ipc_message *m)
{
	struct wire_reader r = wire_reader_on(m->body, m->len);
	uint32_t number = wire_get_u32(&r);
	struct preview *p;
	struct err why = {"out of memory"};

	if (!wire_done(&r) || m->nfds != 1)
		log_fatal("control sent a malformed PREVIEW");
	if (w->rules == NULL || under_way(w) == PREVIEWS_MAX) {
		answer(w, number, NULL, w->rules == NULL ? "it has no policy yet" : "too many previews are under way");
		return;
	}
	p = calloc(1, sizeof *p);
	if (p != NULL)
		p->rules = ruleset_open(m->fds[0], 0, &why);
	if (p == NULL || p->rules == NULL) {
		free(p);
		answer(w, number, NULL, why.text);
		return;
	}
	p->worker = w;
	p->number = number;
	p->shown = json_array();
	/* What is never decided again never ends by it. */
	p->at = w->config->live_keep ? NULL : TAILQ_FIRST(&w->sessions);
	LIST_INSERT_HEAD(&w->previews, p, next);
	evtimer_assign(&p->slice, w->base, on_slice, p);
	evtimer_add(&p->slice, &(struct timeval){0});
}
