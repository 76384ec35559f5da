/* Each piece of compiling runs in a process of its own, which gets its source and nothing else, and dies after. */
#include "config.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "gatewayd/control/internal.h"

struct compile {
	struct control *control;
	enum ipc_type what;
	int source_fd;
	unsigned flags;
	compile_done *done;
	void *arg;
	struct ipc *link;
};

static void finish(struct compile *job, struct compiled *result)
{
	job->done(job->control, result, job->arg);
	if (result->fd >= 0)
		close(result->fd);
	json_decref(result->notes);
	groups_free(&result->groups);
	ipc_free(&job->link);
	if (job->source_fd >= 0)
		close(job->source_fd);
	free(job);
}

static void fail(struct compile *job, const char *why)
{
	struct compiled result = {.fd = -1, .notes = json_array()};

	note_add(result.notes, "compiler", "%s", why);
	finish(job, &result);
}

static void get_text(struct wire_reader *r, json_t *note, const char *key)
{
	size_t len;
	const char *text = (const char *)wire_get_bytes(r, ipc_body_max(IPC_COMPILED), &len);

	if (text != NULL && len > 0)
		json_object_set_new(note, key, note_text(text, len));
}

static void get_number(struct wire_reader *r, json_t *note, const char *key)
{
	json_object_set_new(note, key, json_integer(wire_get_u32(r)));
}

/* NULL: there is none. */
static json_t *get_note(struct wire_reader *r)
{
	json_t *note = json_object();

	json_object_set_new(note, "severity", json_string(wire_get_u8(r) == 0 ? "error" : "warning"));
	get_text(r, note, "code");
	get_text(r, note, "file");
	get_number(r, note, "line");
	get_number(r, note, "column");
	get_text(r, note, "message");
	get_text(r, note, "excerpt");
	get_number(r, note, "caret");
	get_number(r, note, "caret_len");
	if (!r->bad)
		return note;
	json_decref(note);
	return NULL;
}

static struct named_groups *get_groups(struct wire_reader *r)
{
	struct named_groups *g = calloc(1, sizeof *g);

	if (g == NULL)
		log_fatal("out of memory");
	g->all = wire_get_u32(r);
	for (uint32_t count = wire_get_u32(r); count > 0 && !r->bad && g->n < AUTH_ASKED_GROUPS_MAX; count--) {
		struct named_group *one = &g->each[g->n];
		size_t len = 0;
		const uint8_t *name = wire_get_bytes(r, ipc_body_max(IPC_COMPILED), &len);

		one->note = get_note(r);
		if (one->note == NULL)
			break;
		if (len < sizeof one->name && memchr(name, '\0', len) == NULL)
			memcpy(one->name, name, len);
		if (!auth_group_valid(one->name))
			one->name[0] = '\0';
		g->n++;
	}
	return g;
}

/* As gatewayd/compiler/compiler.c writes it. */
static void read_result(const struct ipc_message *m, struct compiled *out)
{
	struct wire_reader r = wire_reader_on(m->body, m->len);

	out->rules = wire_get_u32(&r);
	out->errors = wire_get_u32(&r);
	out->warnings = wire_get_u32(&r);
	for (uint32_t count = wire_get_u32(&r); count > 0 && !r.bad; count--) {
		json_t *note = get_note(&r);

		if (note != NULL)
			json_array_append_new(out->notes, note);
	}
	if (m->type == IPC_COMPILED)
		out->groups = get_groups(&r);
}

static void on_message(struct ipc *link, struct ipc_message *m, void *arg)
{
	struct compile *job = arg;
	struct compiled result = {.fd = -1, .notes = json_array()};

	(void)link;
	if (m->type == IPC_COMPILED || m->type == IPC_COMPILE_FAILED)
		read_result(m, &result);
	if (m->type == IPC_COMPILED && m->nfds == 1) {
		result.fd = m->fds[0];
		m->fds[0] = -1;
	}
	finish(job, &result);
}

static void on_gone(struct ipc *link, void *arg)
{
	(void)link;
	fail(arg, "the compiler ended before it was done: out of memory or time, or a fault; see the log");
}

static void on_compiler(struct control *c, int fd, void *arg)
{
	struct compile *job = arg;
	uint8_t body = (uint8_t)job->flags;
	int source = job->source_fd;

	if (fd < 0) {
		fail(job, "no compiler could be started; see the log");
		return;
	}
	job->link = ipc_new(fd, ROLE_CONTROL, ROLE_COMPILER, 0);
	job->source_fd = -1;
	ipc_send(job->link, job->what, &body, sizeof body, &source, 1);
	ipc_attach(job->link, c->child->base, on_message, on_gone, job);
}

void compile_start(struct control *c, enum ipc_type what, int source_fd, unsigned flags, compile_done *done, void *arg)
{
	struct compile *job = calloc(1, sizeof *job);

	if (job == NULL)
		log_fatal("out of memory");
	*job = (struct compile){
		.control = c, .what = what, .source_fd = source_fd, .flags = flags, .done = done, .arg = arg};
	control_spawn(c, ROLE_COMPILER, on_compiler, job);
}
