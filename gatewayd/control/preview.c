/* Which live sessions a policy would end: all workers are asked, without switching.  As gatewayd/worker/preview.c answers. */
#include "config.h"

#include <event2/event.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "gatewayd/control/internal.h"

#define PATIENCE_S 10
/* Shown of those that would end, from all workers. */
#define SHOWN_MAX 20

struct preview {
	LIST_ENTRY(preview) next;
	struct control *control;
	uint32_t number;
	unsigned awaited; /* workers */
	struct preview_result result;
	preview_done *done;
	void *arg;
	struct event patience;
};

static void finish(struct preview *p)
{
	struct peer *peer;

	LIST_REMOVE(p, next);
	event_del(&p->patience);
	LIST_FOREACH (peer, &p->control->peers, next)
		for (size_t i = 0; i < PREVIEWS_MAX; i++)
			if (peer->previews[i] == p->number)
				peer->previews[i] = 0;
	p->done(p->control, &p->result, p->arg);
	json_decref(p->result.sessions);
	json_decref(p->result.notes);
	free(p);
}

static void on_patience_over(evutil_socket_t fd, short what, void *arg)
{
	struct preview *p = arg;

	(void)fd, (void)what;
	note_add(p->result.notes, "preview", "%u workers have not said in time which of their sessions would end", p->awaited);
	p->result.unknown = true;
	finish(p);
}

static void one_less(struct preview *p)
{
	if (--p->awaited == 0)
		finish(p);
}

/* Not from inside preview_start(): its caller is not done. */
static void on_nobody(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	finish(arg);
}

static uint32_t *slot_of(struct peer *peer, uint32_t number)
{
	for (size_t i = 0; i < PREVIEWS_MAX; i++)
		if (peer->previews[i] == number)
			return &peer->previews[i];
	return NULL;
}

static bool ask(struct preview *p, struct peer *peer, int image_fd)
{
	uint32_t *slot = slot_of(peer, 0);
	int fd = slot == NULL ? -1 : fcntl(image_fd, F_DUPFD_CLOEXEC, 0);

	if (fd < 0 || ipc_send(peer->link, IPC_PREVIEW, &p->number, sizeof p->number, &fd, 1) != 0)
		return false;
	*slot = p->number;
	return true;
}

void preview_start(struct control *c, int image_fd, preview_done *done, void *arg)
{
	struct preview *p = calloc(1, sizeof *p);
	struct peer *peer;

	if (p == NULL)
		log_fatal("out of memory");
	p->control = c;
	p->number = ++c->preview_number == 0 ? ++c->preview_number : c->preview_number;
	p->done = done;
	p->arg = arg;
	p->result.sessions = json_array();
	p->result.notes = json_array();
	LIST_INSERT_HEAD(&c->previews, p, next);
	LIST_FOREACH (peer, &c->peers, next) {
		if (peer->role != ROLE_WORKER)
			continue;
		if (ask(p, peer, image_fd)) {
			p->awaited++;
			continue;
		}
		note_add(p->result.notes, "preview", "worker/%u cannot be asked which of its sessions would end", (unsigned)peer->slot);
		p->result.unknown = true;
	}
	struct timeval wait = {.tv_sec = p->awaited == 0 ? 0 : PATIENCE_S};

	evtimer_assign(&p->patience, c->child->base, p->awaited == 0 ? on_nobody : on_patience_over, p);
	evtimer_add(&p->patience, &wait);
}

static struct preview *find(struct control *c, uint32_t number)
{
	struct preview *p;

	LIST_FOREACH (p, &c->previews, next)
		if (p->number == number)
			return p;
	return NULL;
}

static void add_sessions(struct preview *p, const char *text, size_t len)
{
	json_t *sessions = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL), *one;
	size_t i;

	json_array_foreach (sessions, i, one)
		if (json_is_object(one) && json_array_size(p->result.sessions) < SHOWN_MAX)
			json_array_append(p->result.sessions, one);
	json_decref(sessions);
}

void preview_answered(struct peer *peer, struct ipc_message *m)
{
	struct wire_reader r = wire_reader_on(m->body, m->len);
	uint32_t number = wire_get_u32(&r);
	bool ok = wire_get_u8(&r) != 0;
	uint64_t decided = wire_get_u64(&r), ended = wire_get_u64(&r);
	size_t len = 0;
	const char *text = (const char *)wire_get_bytes(&r, ipc_body_max(IPC_PREVIEWED), &len);
	struct preview *p = find(peer->control, number);
	uint32_t *slot = number == 0 ? NULL : slot_of(peer, number);

	if (p == NULL || slot == NULL)
		return; /* too late */
	*slot = 0;
	if (!wire_done(&r) || !ok) {
		note_add(p->result.notes, "preview", "worker/%u does not know which of its sessions would end: %.*s", (unsigned)peer->slot,
			 text == NULL ? 0 : (int)(len < 400 ? len : 400), text == NULL ? "" : text);
		p->result.unknown = true;
	} else {
		p->result.decided += decided;
		p->result.ended += ended;
		add_sessions(p, text, len);
	}
	one_less(p);
}

/* Its sessions have ended with it. */
void preview_peer_gone(struct peer *peer)
{
	for (size_t i = 0; i < PREVIEWS_MAX; i++) {
		struct preview *p = peer->previews[i] == 0 ? NULL : find(peer->control, peer->previews[i]);

		peer->previews[i] = 0;
		if (p != NULL)
			one_less(p);
	}
}
