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
	char name[4096];
	bool gate;
	compile_done *done;
	void *arg;
	struct ipc *link;
};

static void finish(struct compile *job, int fd, json_t *notes, uint32_t rules)
{
	struct compiled result = {.fd = fd, .notes = notes, .rules = rules};

	job->done(job->control, &result, job->arg);
	if (result.fd >= 0)
		close(result.fd);
	json_decref(notes);
	ipc_free(&job->link);
	if (job->source_fd >= 0)
		close(job->source_fd);
	free(job);
}

/* u32 rules, u32 count, texts. */
static json_t *read_notes(const struct ipc_message *m, uint32_t *rules)
{
	struct wire_reader r = wire_reader_on(m->body, m->len);
	json_t *notes = json_array();

	*rules = wire_get_u32(&r);
	for (uint32_t count = wire_get_u32(&r); count > 0 && !r.bad; count--) {
		size_t len;
		const uint8_t *text = wire_get_bytes(&r, ipc_body_max(IPC_COMPILED), &len);

		if (text != NULL)
			json_array_append_new(notes, json_stringn((const char *)text, len));
	}
	return notes;
}

static void on_message(struct ipc *link, struct ipc_message *m, void *arg)
{
	struct compile *job = arg;
	uint32_t rules;
	json_t *notes;

	(void)link;
	if (m->type != IPC_COMPILED && m->type != IPC_COMPILE_FAILED)
		return;
	notes = read_notes(m, &rules);
	if (m->type == IPC_COMPILED && m->nfds == 1) {
		int fd = m->fds[0];

		m->fds[0] = -1;
		finish(job, fd, notes, rules);
	} else {
		finish(job, -1, notes, 0);
	}
}

static void on_gone(struct ipc *link, void *arg)
{
	(void)link;
	finish(arg, -1, json_pack("[s]", "the compiler ended before it was done: out of memory or time, or a fault; see the log"), 0);
}

static void on_compiler(struct control *c, int fd, void *arg)
{
	struct compile *job = arg;
	uint8_t body[4400];
	struct wire_writer w = wire_writer_on(body, sizeof body);
	int source = job->source_fd;

	if (fd < 0) {
		finish(job, -1, json_pack("[s]", "no compiler could be started; see the log"), 0);
		return;
	}

	wire_put_u8(&w, job->gate);
	wire_put_text(&w, job->name);
	job->link = ipc_new(fd, ROLE_CONTROL, ROLE_COMPILER, 0);
	job->source_fd = -1;
	ipc_send(job->link, job->what, body, w.len, &source, 1);
	ipc_attach(job->link, c->child->base, on_message, on_gone, job);
}

void compile_start(struct control *c, enum ipc_type what, int source_fd, const char *name, bool gate, compile_done *done, void *arg)
{
	struct compile *job = calloc(1, sizeof *job);

	if (job == NULL)
		log_fatal("out of memory");
	*job = (struct compile){
		.control = c, .what = what, .source_fd = source_fd, .gate = gate, .done = done, .arg = arg};
	strncpy(job->name, name, sizeof job->name - 1);
	control_spawn(c, ROLE_COMPILER, on_compiler, job);
}
