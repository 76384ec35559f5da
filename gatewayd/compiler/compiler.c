/* The compiler: one source in, one sealed table out, and the end.  It holds nothing else, so that a hostile policy or database
 * can hurt nobody but itself. */
#include "config.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "auth/auth.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/sealed.h"
#include "gatewayd/child.h"
#include "gatewayd/compiler/compiler.h"
#include "policy/bundle.h"

#define DATABASE_MAX (512UL * 1024 * 1024)
#define MEMORY_MAX (4UL * 1024 * 1024 * 1024)
/* What is left of a message's body for notes. */
#define NOTES_ROOM 60000
#define RESULT_MAX 65536
#define BODY_MAX 98304
/* Of groups, each with a note of up to 1 KiB or so. */
#define GROUPS_ROOM 96000

struct compiler {
	struct child *child;
	struct ipc *control;
};

static void put_diagnostic(struct wire_writer *w, const struct policy_diagnostic *d)
{
	wire_put_u8(w, d->severity == POLICY_ERROR ? 0 : 1);
	wire_put_text(w, d->code);
	wire_put_text(w, d->file);
	wire_put_u32(w, d->line);
	wire_put_u32(w, d->column);
	wire_put_text(w, d->message);
	wire_put_text(w, d->excerpt);
	wire_put_u32(w, d->caret);
	wire_put_u32(w, d->caret_len);
}

/* u32 rules, u32 errors, u32 warnings, u32 count, diagnostics: as many as fit. */
static void put_result(struct wire_writer *w, uint32_t rules, const struct policy_diagnostics *d)
{
	uint32_t count = 0;
	size_t at;

	wire_put_u32(w, rules);
	wire_put_u32(w, (uint32_t)d->errors);
	wire_put_u32(w, (uint32_t)d->warnings);
	at = w->len;
	wire_put_u32(w, 0);
	for (; count < d->count && w->len < NOTES_ROOM; count++) {
		struct wire_writer before = *w;

		put_diagnostic(w, &d->items[count]);
		if (w->overflow) {
			*w = before;
			break;
		}
	}
	memcpy(w->data + at, &count, sizeof count);
}

/* ---- groups: whether there are any of these names, others know; what is to be told then is made here ---- */

struct named {
	const char *names[AUTH_ASKED_GROUPS_MAX]; /* of the tree */
	size_t count, all;
};

/* Lists the first as if they were not there; the notes of policy_find_groups() come in this order. */
static bool note_group(const char *group, void *arg)
{
	struct named *n = arg;

	if (n->all++ >= AUTH_ASKED_GROUPS_MAX)
		return true;
	n->names[n->count] = strdup(group);
	if (n->names[n->count++] == NULL)
		log_fatal("out of memory");
	return false;
}

/* u32 of all, u32 count, a name and its note each. */
static void put_groups(struct wire_writer *w, const struct policy_tree *tree)
{
	struct policy_diagnostics d = {0};
	struct named n = {.count = 0};
	uint32_t count = 0;
	size_t at;

	if (tree != NULL)
		policy_find_groups(tree, note_group, &n, &d);
	wire_put_u32(w, (uint32_t)n.all);
	at = w->len;
	wire_put_u32(w, 0);
	for (; count < n.count && count < d.count && w->len < GROUPS_ROOM; count++) {
		struct wire_writer before = *w;

		wire_put_text(w, n.names[count]);
		put_diagnostic(w, &d.items[count]);
		if (w->overflow) {
			*w = before;
			break;
		}
	}
	memcpy(w->data + at, &count, sizeof count);
	for (size_t i = 0; i < n.count; i++)
		free((void *)(uintptr_t)n.names[i]);
	policy_diagnostics_free(&d);
}

/* tree: of a policy; NULL. */
static void answer(struct compiler *c, const uint8_t *table, size_t len, uint32_t rules, const struct policy_tree *tree,
		   const struct policy_diagnostics *d)
{
	static uint8_t body[BODY_MAX];
	struct wire_writer w = wire_writer_on(body, RESULT_MAX);
	struct err why;
	int fd = table == NULL ? -1 : sealed_create("gatewayd-table", table, len, &why);

	if (table != NULL && fd < 0)
		log_fatal("%s", why.text);
	put_result(&w, rules, d);
	if (fd >= 0) {
		w.size = sizeof body; /* what failed has room for no more */
		put_groups(&w, tree);
		ipc_send(c->control, IPC_COMPILED, body, w.len, &fd, 1);
	} else {
		ipc_send(c->control, IPC_COMPILE_FAILED, body, w.len, NULL, 0);
	}
}

/* Expectations and findings; where expectations do not gate, what fails is only told. */
static bool is_accepted(const struct policy_tree *tree, const struct policy_image *image, unsigned flags,
			struct policy_diagnostics *d)
{
	policy_expect(tree, image, d);
	policy_find(tree, image, clock_wall_us() / 1000000, d);
	return !((flags & COMPILE_GATE) != 0 && d->errors > 0) && !((flags & COMPILE_STRICT) != 0 && d->warnings > 0);
}

static void compile_policy(struct compiler *c, const struct bundle *source, unsigned flags)
{
	struct policy_diagnostics d = {0};
	struct policy_tree *tree = bundle_parse(source, &d);
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
	if (image != NULL && is_accepted(tree, image, flags, &d))
		answer(c, bytes, len, (uint32_t)policy_rule_count(image), tree, &d);
	else
		answer(c, NULL, 0, 0, NULL, &d);
	if (image != NULL)
		policy_image_close(&image);
	free(bytes);
	policy_tree_free(tree);
	policy_diagnostics_free(&d);
}

static void compile_bundle(struct compiler *c, int fd, unsigned flags)
{
	struct sealed source;
	struct bundle bundle;
	struct err why;

	if (sealed_map(fd, BUNDLE_BYTES_MAX, &source, &why) != 0 || bundle_read(source.data, source.len, &bundle, &why) != 0)
		log_fatal("%s", why.text);
	compile_policy(c, &bundle, flags);
	bundle_clear(&bundle);
	sealed_unmap(&source);
}

/* ---- databases --------------------------------------------------------------------------------------------------------- */

/* A copy of the file in memory, so that nobody changes it while it is read; -1 with *why. */
static int copy_file(int in, struct err *why)
{
	int out = memfd_create("gatewayd-database", MFD_CLOEXEC);
	size_t total = 0, room = 1024 * 1024;
	uint8_t *buffer = malloc(room);
	ssize_t n = 1;

	if (out < 0 || buffer == NULL)
		log_fatal("out of memory for a database");
	while (n > 0 && total <= DATABASE_MAX) {
		n = pread(in, buffer, room, (off_t)total);
		if (n > 0 && write(out, buffer, (size_t)n) != n)
			log_fatal("out of memory for a database");
		total += n > 0 ? (size_t)n : 0;
	}
	free(buffer);
	if (n >= 0 && total <= DATABASE_MAX)
		return out;
	if (n < 0)
		err_set_errno(why, "it cannot be read");
	else
		err_set(why, "it is larger than %lu MB", DATABASE_MAX >> 20);
	close(out);
	return -1;
}

static int make_table(int fd, bool asn, uint8_t **table, size_t *len, struct err *why)
{
	char path[64];
	int copy = copy_file(fd, why), rc;

	if (copy < 0)
		return -1;
	snprintf(path, sizeof path, "/proc/self/fd/%d", copy);
	rc = (asn ? policy_asn_compile : policy_geo_compile)(path, table, len, why);
	close(copy);
	if (rc == 0)
		return policy_geo_verify(*table, *len, why);
	/* Whoever reads this knows the file by another name. */
	char *at = strstr(why->text, path);

	if (at != NULL)
		memmove(at, at + strlen(path) + 1, strlen(at + strlen(path)));
	return -1;
}

static void compile_database(struct compiler *c, int fd, bool asn)
{
	struct policy_diagnostic what = {.severity = POLICY_ERROR, .code = "database"};
	struct policy_diagnostics d = {.items = &what};
	uint8_t *table = NULL;
	size_t len = 0;
	struct err why;

	if (make_table(fd, asn, &table, &len, &why) == 0) {
		answer(c, table, len, 0, NULL, &d);
	} else {
		what.message = why.text;
		d.count = d.errors = 1;
		answer(c, NULL, 0, 0, NULL, &d);
	}
	free(table);
}

static void on_message(struct ipc *link, struct ipc_message *m, void *arg)
{
	struct compiler *c = arg;
	struct wire_reader r = wire_reader_on(m->body, m->len);
	unsigned flags = wire_get_u8(&r);

	(void)link;
	if (!wire_done(&r) || m->nfds != 1)
		log_fatal("control sent a malformed %s", ipc_type_name(m->type));
	if (m->type == IPC_COMPILE_POLICY)
		compile_bundle(c, m->fds[0], flags);
	else if (m->type == IPC_COMPILE_GEO || m->type == IPC_COMPILE_ASN)
		compile_database(c, m->fds[0], m->type == IPC_COMPILE_ASN);
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
