/* The compiler: one source in, one sealed table out, and the end.  It holds nothing else, so that a hostile policy or database
 * can hurt nobody but itself. */
#include "config.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/log.h"
#include "common/sealed.h"
#include "gatewayd/child.h"
#include "policy/policy.h"

#define SOURCE_MAX (512UL * 1024 * 1024)
#define MEMORY_MAX (4UL * 1024 * 1024 * 1024)
/* What is left of a message's body for notes. */
#define NOTES_ROOM 60000

struct compiler {
	struct child *child;
	struct ipc *control;
};

/* u32 rules, u32 count, texts: as many as fit. */
static void put_notes(struct wire_writer *w, uint32_t rules, char *const *notes, size_t count)
{
	size_t used = 0, fit = 0;

	while (fit < count && used + strlen(notes[fit]) + 4 < NOTES_ROOM)
		used += strlen(notes[fit++]) + 4;
	wire_put_u32(w, rules);
	wire_put_u32(w, (uint32_t)fit);
	for (size_t i = 0; i < fit; i++)
		wire_put_text(w, notes[i]);
}

static void answer(struct compiler *c, const uint8_t *table, size_t len, uint32_t rules, char *const *notes, size_t count)
{
	static uint8_t body[65536];
	struct wire_writer w = wire_writer_on(body, sizeof body);
	struct err why;
	int fd = table == NULL ? -1 : sealed_create("gatewayd-table", table, len, &why);

	if (table != NULL && fd < 0) {
		char *note = why.text;

		put_notes(&w, 0, &note, 1);
	} else {
		put_notes(&w, rules, notes, count);
	}
	if (fd >= 0)
		ipc_send(c->control, IPC_COMPILED, body, w.len, &fd, 1);
	else
		ipc_send(c->control, IPC_COMPILE_FAILED, body, w.len, NULL, 0);
}

static void answer_policy(struct compiler *c, const uint8_t *image, size_t len, uint32_t rules, const struct policy_diagnostics *d)
{
	char **notes = calloc(d->count + 1, sizeof *notes);
	size_t count = 0;

	for (size_t i = 0; notes != NULL && i < d->count; i++)
		if ((notes[count] = policy_diagnostic_format(&d->items[i])) != NULL)
			count++;
	answer(c, image, len, rules, notes, count);
	for (size_t i = 0; i < count; i++)
		free(notes[i]);
	free(notes);
}

/* Runs the expectations; where they do not gate, what fails is only told. */
static bool meets_expectations(const struct policy_tree *tree, const struct policy_image *image, bool gate,
			       struct policy_diagnostics *d)
{
	size_t errors = d->errors;

	policy_expect(tree, image, d);
	return !gate || d->errors == errors;
}

static void compile_policy(struct compiler *c, const char *name, const struct sealed *source, bool gate)
{
	struct policy_diagnostics d = {0};
	struct policy_tree *tree = policy_parse(name, source->data == NULL ? "" : (const char *)source->data, source->len, &d);
	struct policy_image *image = NULL;
	uint8_t *bytes = NULL;
	size_t len = 0;
	struct err why = {""};

	if (d.errors == 0)
		policy_check(tree, &d);
	if (d.errors == 0 && policy_compile(tree, &bytes, &len, &d) == 0) {
		/* Checked in full here, once; workers look at seals and header only. */
		if (policy_image_verify(bytes, len, &why) == 0)
			image = policy_image_open(bytes, len, &why);
		if (image == NULL)
			log_fatal("the image just made does not pass its own check: %s", why.text);
	}
	if (image != NULL && meets_expectations(tree, image, gate, &d))
		answer_policy(c, bytes, len, (uint32_t)policy_rule_count(image), &d);
	else
		answer_policy(c, NULL, 0, 0, &d);
	if (image != NULL)
		policy_image_close(&image);
	free(bytes);
	policy_tree_free(tree);
	policy_diagnostics_free(&d);
}

static void compile_geo(struct compiler *c, int fd)
{
	char path[64], *note;
	uint8_t *table = NULL;
	size_t len;
	struct err why;

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	if (policy_geo_compile(path, &table, &len, &why) == 0 && policy_geo_verify(table, len, &why) == 0) {
		answer(c, table, len, 0, NULL, 0);
	} else {
		note = why.text;
		answer(c, NULL, 0, 0, &note, 1);
	}
	free(table);
}

static void on_message(struct ipc *link, struct ipc_message *m, void *arg)
{
	struct compiler *c = arg;
	struct wire_reader r = wire_reader_on(m->body, m->len);
	bool gate = wire_get_u8(&r) != 0;
	char name[4300];
	struct sealed source;
	struct err why;

	(void)link;
	wire_get_text(&r, name, sizeof name);
	if (!wire_done(&r) || m->nfds != 1)
		log_fatal("control sent a malformed %s", ipc_type_name(m->type));
	if (sealed_map(m->fds[0], SOURCE_MAX, &source, &why) != 0)
		log_fatal("%s", why.text);
	if (m->type == IPC_COMPILE_POLICY)
		compile_policy(c, name, &source, gate);
	else if (m->type == IPC_COMPILE_GEO)
		compile_geo(c, m->fds[0]);
	sealed_unmap(&source);
}

static void on_gone(struct ipc *link, void *arg)
{
	struct compiler *c = arg;

	(void)link;
	child_leave(c->child);
}

static void on_peer(struct child *child, enum role peer, uint16_t slot, int fd)
{
	struct compiler *c = child->state;

	c->control = ipc_new(fd, ROLE_COMPILER, peer, slot);
	ipc_attach(c->control, child->base, on_message, on_gone, c);
}

int compiler_main(struct child *child)
{
	static struct compiler c;
#ifndef GW_SANITIZED
	struct rlimit memory = {MEMORY_MAX, MEMORY_MAX};

	setrlimit(RLIMIT_AS, &memory);
#endif
	c.child = child;
	child->state = &c;
	child->on_peer = on_peer;
	return child_run(child);
}
