/* The revision in force, and how another takes its place.
 *
 *   countries (if the database changed) -> the policy file's text -> is it news? -> compile -> store -> workers
 *
 * Any step that fails ends the reload and changes nothing.  What runs, also after a restart, is the store's active revision; the
 * file is only where a reload looks for a new one. */
#include "config.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/sealed.h"
#include "gatewayd/control/internal.h"

enum { FILE_POLICY = 0, FILE_GEOIP = 1 };

#define GEOIP_MAX (512UL * 1024 * 1024)

struct reload {
	struct control *control;
	bool starting; /* nothing is in force yet in this process */
	bool first;    /* nor ever was in this run */
	bool force;
	struct author author;
	policy_done *done;
	void *arg;
	unsigned awaited; /* which file the supervisor was asked for */
	char *text;       /* that is being compiled */
	size_t len;
	bool from_file;   /* text is the file's, and becomes a revision; else it is the store's */
	uint32_t revision;
	json_t *notes;
	bool waiting; /* for the workers to take it */
	struct event late;
	int geo_fd; /* a new country table, in force when the reload succeeds; -1: none */
	int64_t geo_mtime_ns, geo_size;
};

static void read_policy_file(struct reload *r);

static void take_geo(struct reload *r);

/* ---- the end ------------------------------------------------------------------------------------------------------------ */

static void end(struct reload *r, const char *error)
{
	struct control *c = r->control;
	struct policy_result result = {
		.ok = error == NULL, .revision = c->policy.revision, .error = error, .notes = r->notes};
	char text[AUDIT_TEXT_MAX];

	c->policy.reload = NULL;
	if (error == NULL)
		take_geo(r);
	if (error != NULL && r->starting) {
		const char *first = json_string_value(json_array_get(r->notes, 0));
		char why[1024];

		/* One line: the first diagnostic without its excerpt. */
		snprintf(why, sizeof why, "%s%s%.*s", error, first == NULL ? "" : ": ",
			 first == NULL ? 0 : (int)strcspn(first, "\n"), first == NULL ? "" : first);
		child_unusable(c->child, why);
	}
	if (error != NULL) {
		snprintf(text, sizeof text, "refused: %s", error);
		control_record(c, AUDIT_POLICY, &r->author, c->policy.revision, text);
	}
	r->done(c, &result, r->arg);
	if (r->geo_fd >= 0)
		close(r->geo_fd);
	json_decref(r->notes);
	free(r->text);
	free(r);
}

static void fail(struct reload *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void fail(struct reload *r, const char *format, ...)
{
	char text[700];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	end(r, text);
}

/* ---- into force -------------------------------------------------------------------------------------------------------- */

static void send_table(struct peer *p, enum ipc_type type, uint32_t revision, int table_fd)
{
	int fd = table_fd < 0 ? -1 : fcntl(table_fd, F_DUPFD_CLOEXEC, 0);

	if (fd >= 0 && ipc_send(p->link, type, &revision, type == IPC_POLICY ? sizeof revision : 0, &fd, 1) == 0)
		p->awaited |= type == IPC_POLICY;
	else if (table_fd >= 0)
		log_error("cannot hand revision %u to worker/%u: %s", revision, (unsigned)p->slot, strerror(errno));
}

void policy_send(struct control *c, struct peer *worker)
{
	/* Countries first: the policy may speak of them. */
	send_table(worker, IPC_GEO, c->policy.revision, c->policy.geo_fd);
	send_table(worker, IPC_POLICY, c->policy.revision, c->policy.image_fd);
}

static void send_all(struct control *c, enum ipc_type type, int fd)
{
	struct peer *p;

	LIST_FOREACH (p, &c->peers, next)
		if (p->role == ROLE_WORKER)
			send_table(p, type, c->policy.revision, fd);
}

static void replace_fd(int *held, int *taken)
{
	if (*held >= 0)
		close(*held);
	*held = *taken;
	*taken = -1;
}

static char *join(const json_t *notes)
{
	char *text = calloc(1, POLICY_CHECKS_MAX + 1);
	size_t used = 0, i;
	json_t *note;

	json_array_foreach (notes, i, note)
		if (text != NULL && used < POLICY_CHECKS_MAX)
			used += (size_t)snprintf(text + used, POLICY_CHECKS_MAX - used, "%s\n", json_string_value(note));
	return text;
}

/* 0, or -1 when the reload has been ended. */
static int store_revision(struct reload *r)
{
	struct control *c = r->control;
	char *checks = join(r->notes);
	struct err why;
	int rc;

	rc = policy_store_add(c->policy.store,
			      &(struct policy_new){
				      .text = r->text,
				      .len = r->len,
				      .author_uid = r->author.uid,
				      .author = r->author.name,
				      .source = "file",
				      .comment = "",
				      .checks = checks == NULL ? "" : checks,
				      .time_us = clock_wall_us(),
				      .imported = true,
			      },
			      &r->revision, &why);
	free(checks);
	if (rc != 0)
		fail(r, "the new revision cannot be stored: %s", why.text);
	return rc;
}

/* ---- in force means: every worker decides by it ----------------------------------------------------------------------- */

#define WORKERS_WAIT_S 5

static bool any_awaited(const struct control *c)
{
	const struct peer *p;

	LIST_FOREACH (p, &c->peers, next)
		if (p->awaited)
			return true;
	return false;
}

static void on_workers_late(evutil_socket_t fd, short what, void *arg)
{
	struct reload *r = arg;
	struct peer *p;

	(void)fd, (void)what;
	LIST_FOREACH (p, &r->control->peers, next)
		if (p->awaited) {
			json_array_append_new(r->notes, json_sprintf("worker/%u has not taken revision %u yet", (unsigned)p->slot,
								     r->control->policy.revision));
			p->awaited = false;
		}
	end(r, NULL);
}

static void await_workers(struct reload *r)
{
	struct timeval wait = {.tv_sec = WORKERS_WAIT_S};

	if (!any_awaited(r->control)) {
		end(r, NULL);
		return;
	}
	r->waiting = true;
	evtimer_assign(&r->late, r->control->child->base, on_workers_late, r);
	evtimer_add(&r->late, &wait);
}

void policy_taken(struct peer *worker)
{
	struct reload *r = worker->control->policy.reload;

	worker->awaited = false;
	if (r != NULL && r->waiting && !any_awaited(r->control)) {
		evtimer_del(&r->late);
		end(r, NULL);
	}
}

static void on_policy_compiled(struct control *c, struct compiled *result, void *arg)
{
	struct reload *r = arg;
	struct policy_state *p = &c->policy;
	char text[64];

	json_array_extend(r->notes, result->notes);
	if (result->fd < 0) {
		fail(r, "the policy is not usable");
		return;
	}
	if (r->from_file && store_revision(r) != 0)
		return;
	take_geo(r);
	replace_fd(&p->image_fd, &result->fd);
	p->revision = r->revision;
	p->rules = result->rules;
	p->loaded_us = clock_wall_us();
	json_decref(p->warnings);
	p->warnings = json_incref(r->notes);
	send_all(c, IPC_POLICY, p->image_fd);
	if (r->from_file) {
		snprintf(text, sizeof text, "revision %u is in force", p->revision);
		control_record(c, AUDIT_POLICY, &r->author, p->revision, text);
	}
	if (r->starting)
		child_ready(c->child);
	await_workers(r);
}

static void compile_text(struct reload *r)
{
	struct control *c = r->control;
	struct err why;
	char name[4300];
	int fd = sealed_create("gatewayd-policy-text", r->text, r->len, &why);

	if (fd < 0) {
		fail(r, "%s", why.text);
		return;
	}
	if (r->from_file)
		snprintf(name, sizeof name, "%s", c->child->config->policy_file);
	else
		snprintf(name, sizeof name, "revision %u", r->revision);
	/* Expectations gate what is new; what was accepted once always loads. */
	compile_start(c, IPC_COMPILE_POLICY, fd, name, r->from_file, on_policy_compiled, r);
}

/* ---- is there something new? --------------------------------------------------------------------------------------------- */

static void compile_stored(struct reload *r)
{
	struct policy_revision revision;
	struct err why;
	int rc = policy_store_get(r->control->policy.store, r->revision, &revision, &r->text, NULL, &why);

	if (rc != 1) {
		fail(r, "revision %u cannot be read from the policy store: %s", r->revision, rc == 0 ? "it is missing" : why.text);
		return;
	}
	r->len = revision.len;
	r->from_file = false;
	compile_text(r);
}

/* The file's text is at hand (at a start: NULL if the file cannot be read). */
static void compare_with_store(struct reload *r)
{
	struct control *c = r->control;
	struct policy_import last;
	uint8_t hash[POLICY_HASH_BYTES];
	uint32_t active;
	struct err why;

	if (policy_store_active(c->policy.store, &active, &why) != 0 || policy_store_import(c->policy.store, &last, &why) != 0) {
		fail(r, "the policy store cannot be read: %s", why.text);
		return;
	}
	policy_store_hash(r->text == NULL ? "" : r->text, r->len, hash);
	bool news = r->text != NULL && (last.revision == 0 || memcmp(hash, last.hash, sizeof hash) != 0);

	if (r->starting && active != 0) {
		if (news)
			log_warning("%s differs from the text last imported; revision %u of the store runs until `gatewayctl reload`",
				    c->child->config->policy_file, active);
		free(r->text);
		r->text = NULL;
		r->revision = active;
		compile_stored(r);
	} else if (active != 0 && !news && !r->force) {
		json_array_append_new(r->notes, json_sprintf("%s has not changed since it was imported as revision %u",
							     c->child->config->policy_file, last.revision));
		end(r, NULL);
	} else if (active != last.revision && active != 0 && !r->force) {
		fail(r,
		     "the store has moved on: revision %u is in force, the file was last imported as revision %u; --force "
		     "replaces it by the file",
		     active, last.revision);
	} else {
		r->from_file = true;
		compile_text(r);
	}
}

/* Reads a whole file of at most max bytes; NULL with *why. */
static char *read_file(int fd, size_t max, size_t *len, struct err *why)
{
	struct stat st;
	char *text;
	size_t used = 0;

	if (fstat(fd, &st) != 0 || st.st_size < 0 || (uint64_t)st.st_size > max) {
		err_set(why, "the file is larger than %zu bytes", max);
		return NULL;
	}
	text = malloc((size_t)st.st_size + 1);
	while (text != NULL && used < (size_t)st.st_size) {
		ssize_t n = read(fd, text + used, (size_t)st.st_size - used);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break; /* it shrank while we read: the rest is what it has now */
		used += (size_t)n;
	}
	if (text == NULL) {
		err_set(why, "out of memory for a file of %lld bytes", (long long)st.st_size);
		return NULL;
	}
	text[used] = '\0';
	*len = used;
	return text;
}

static void on_policy_file(struct reload *r, int fd)
{
	struct err why;

	r->text = read_file(fd, POLICY_TEXT_MAX, &r->len, &why);
	if (r->text == NULL)
		fail(r, "policy-file %s: %s", r->control->child->config->policy_file, why.text);
	else
		compare_with_store(r);
}

static void on_policy_file_refused(struct reload *r, const char *why)
{
	uint32_t active = 0;
	struct err ignored;

	/* At a start, a stored policy needs no file. */
	if (r->starting && policy_store_active(r->control->policy.store, &active, &ignored) == 0 && active != 0) {
		log_warning("%s; revision %u of the store runs", why, active);
		compare_with_store(r);
		return;
	}
	fail(r, "%s", why);
}

/* ---- countries ---------------------------------------------------------------------------------------------------------- */

/* Before the policy's image, which may speak of them. */
static void take_geo(struct reload *r)
{
	struct policy_state *p = &r->control->policy;

	if (r->geo_fd < 0)
		return;
	replace_fd(&p->geo_fd, &r->geo_fd);
	p->geo_mtime_ns = r->geo_mtime_ns;
	p->geo_size = r->geo_size;
	send_all(r->control, IPC_GEO, p->geo_fd);
}

static void on_geo_compiled(struct control *c, struct compiled *result, void *arg)
{
	struct reload *r = arg;
	const char *note = json_string_value(json_array_get(result->notes, 0));

	if (result->fd >= 0) {
		replace_fd(&r->geo_fd, &result->fd);
	} else if (r->first) {
		fail(r, "geoip-database %s is not usable: %s", c->child->config->geoip_database, note == NULL ? "" : note);
		return;
	} else {
		json_array_append_new(r->notes, json_sprintf("geoip-database %s is not usable, the former one stays: %s",
							     c->child->config->geoip_database, note == NULL ? "" : note));
	}
	read_policy_file(r);
}

static void on_geoip_file(struct reload *r, int fd)
{
	struct control *c = r->control;
	struct stat st;
	struct err why;
	size_t len;
	char *data;
	int copy;

	if (fstat(fd, &st) == 0) {
		r->geo_mtime_ns = st.st_mtim.tv_sec * 1000000000LL + st.st_mtim.tv_nsec;
		r->geo_size = st.st_size;
		if (c->policy.geo_fd >= 0 && r->geo_mtime_ns == c->policy.geo_mtime_ns && r->geo_size == c->policy.geo_size) {
			read_policy_file(r);
			return;
		}
	}
	/* A copy, so that nobody changes it under the compiler. */
	data = read_file(fd, GEOIP_MAX, &len, &why);
	copy = data == NULL ? -1 : sealed_create("gatewayd-geoip", data, len, &why);
	free(data);
	if (copy < 0) {
		fail(r, "geoip-database %s: %s", c->child->config->geoip_database, why.text);
		return;
	}
	compile_start(c, IPC_COMPILE_GEO, copy, c->child->config->geoip_database, false, on_geo_compiled, r);
}

static void on_geoip_file_refused(struct reload *r, const char *why)
{
	if (r->first) {
		fail(r, "%s", why);
		return;
	}
	json_array_append_new(r->notes, json_sprintf("%s; the former country table stays", why));
	read_policy_file(r);
}

/* ---- the beginning ----------------------------------------------------------------------------------------------------------- */

static void ask_for_file(struct reload *r, uint8_t kind)
{
	r->awaited = kind;
	ipc_send(r->control->child->supervisor, IPC_FILE_OPEN, &kind, sizeof kind, NULL, 0);
}

static void read_policy_file(struct reload *r)
{
	ask_for_file(r, FILE_POLICY);
}

void policy_file_message(struct control *c, struct ipc_message *m)
{
	struct reload *r = c->policy.reload;
	struct wire_reader in = wire_reader_on(m->body, m->len);
	unsigned kind = wire_get_u8(&in);
	char why[560] = "";

	if (m->type == IPC_FILE_REFUSED)
		wire_get_text(&in, why, sizeof why);
	if (r == NULL || !wire_done(&in) || kind != r->awaited || (m->type == IPC_FILE_OPENED && m->nfds != 1))
		return;
	r->awaited = UINT32_MAX;
	if (m->type == IPC_FILE_REFUSED)
		(kind == FILE_POLICY ? on_policy_file_refused : on_geoip_file_refused)(r, why);
	else
		(kind == FILE_POLICY ? on_policy_file : on_geoip_file)(r, m->fds[0]);
}

static void start(struct control *c, bool starting, bool first, bool force, const struct author *author, policy_done *done, void *arg)
{
	struct reload *r = calloc(1, sizeof *r);

	if (r == NULL)
		log_fatal("out of memory");
	*r = (struct reload){.control = c,
			     .starting = starting,
			     .first = first,
			     .force = force,
			     .author = *author,
			     .done = done,
			     .arg = arg,
			     .geo_fd = -1};
	r->notes = json_array();
	c->policy.reload = r;
	ask_for_file(r, c->child->config->geoip_database[0] != '\0' ? FILE_GEOIP : FILE_POLICY);
}

static void on_started(struct control *c, const struct policy_result *result, void *arg)
{
	(void)arg;
	control_log_notes(result->notes);
	log_info("policy revision %u is in force: %zu rules", result->revision, c->policy.rules);
}

void policy_start(struct control *c, bool first)
{
	c->policy.warnings = json_array();
	start(c, true, first, false, &(struct author){.name = "start"}, on_started, NULL);
}

void policy_reload(struct control *c, bool force, const struct author *author, policy_done *done, void *arg)
{
	struct policy_result busy = {.error = "another reload is under way: try again when it is done", .notes = NULL};

	auth_forget_all(c);
	if (c->policy.reload == NULL) {
		start(c, false, false, force, author, done, arg);
		return;
	}
	busy.revision = c->policy.revision;
	busy.notes = json_array();
	done(c, &busy, arg);
	json_decref(busy.notes);
}
