/* The tables of countries and of autonomous systems that the workers decide with.  Each is made from a database that gatewayd.conf
 * names: at the start, at each reload, and when a look at the file, taken now and then, shows that it has changed.  A database that
 * cannot be used changes nothing: the former table stays, and status says so. */
#include "config.h"

#include <event2/event.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "gatewayd/control/internal.h"

static const struct {
	enum config_file file;
	enum ipc_type compile, send;
	const char *what, *code, *key;
} kinds[TABLES] = {
	[TABLE_COUNTRY] = {CONFIG_FILE_GEOIP, IPC_COMPILE_GEO, IPC_GEO, "country table", "geoip-database", "countries"},
	[TABLE_ASN] = {CONFIG_FILE_ASN, IPC_COMPILE_ASN, IPC_ASN, "table of autonomous systems", "asn-database", "asns"},
};

static void next_table(struct control *c);

static bool is_configured(const struct control *c, unsigned kind)
{
	return config_file_path(c->child->config, kinds[kind].file)[0] != '\0';
}

/* ---- into force -------------------------------------------------------------------------------------------------------- */

static void send_one(struct peer *worker, unsigned kind)
{
	int table = worker->control->tables.each[kind].fd;
	int fd = table < 0 ? -1 : fcntl(table, F_DUPFD_CLOEXEC, 0);

	if (table >= 0 && (fd < 0 || ipc_send(worker->link, kinds[kind].send, NULL, 0, &fd, 1) != 0)) {
		log_error("cannot hand the %s to worker/%u, which is ended", kinds[kind].what, (unsigned)worker->slot);
		control_end_worker(worker);
	}
}

void tables_send(struct peer *worker)
{
	for (unsigned i = 0; i < TABLES; i++)
		send_one(worker, i);
}

static void send_all(struct control *c, unsigned kind)
{
	struct peer *p;

	LIST_FOREACH (p, &c->peers, next)
		if (p->role == ROLE_WORKER)
			send_one(p, kind);
}

static void keep(struct control *c, unsigned kind)
{
	int fd = fcntl(c->tables.each[kind].fd, F_DUPFD_CLOEXEC, 0);
	uint8_t file = (uint8_t)kinds[kind].file;

	if (fd >= 0)
		ipc_send(c->child->supervisor, IPC_TABLE_KEEP, &file, sizeof file, &fd, 1);
}

bool tables_kept(struct control *c, unsigned file, int fd)
{
	for (unsigned i = 0; i < TABLES; i++)
		if (file == (unsigned)kinds[i].file && c->tables.each[i].fd < 0) {
			c->tables.each[i].fd = fd;
			send_all(c, i); /* some may be new, too, and were linked before this came */
			return true;
		}
	return false;
}

/* Decisions may differ from now on.  What is there from the start on is part of the start. */
static void record_change(struct control *c, unsigned kind, const struct author *author)
{
	const char *path = config_file_path(c->child->config, kinds[kind].file);
	char text[AUDIT_TEXT_MAX];

	if (c->policy.revision == 0)
		return;
	log_info("%s %s has changed; the new %s is in force", kinds[kind].code, path, kinds[kind].what);
	snprintf(text, sizeof text, "the %s was made anew: its database has changed", kinds[kind].what);
	control_record(c, AUDIT_POLICY, author, c->policy.revision, text);
}

void tables_commit(struct control *c, const struct author *author)
{
	for (unsigned i = 0; i < TABLES; i++) {
		struct table *t = &c->tables.each[i];

		if (t->held < 0)
			continue;
		if (t->fd >= 0)
			close(t->fd);
		t->fd = t->held;
		t->held = -1;
		t->loaded_us = clock_wall_us();
		keep(c, i);
		send_all(c, i);
		record_change(c, i, author);
	}
}

void tables_discard(struct control *c)
{
	for (unsigned i = 0; i < TABLES; i++) {
		struct table *t = &c->tables.each[i];

		if (t->held < 0)
			continue;
		close(t->held);
		t->held = -1;
		t->tried = (struct file_id){0}; /* it has not been used: whoever looks next makes it again */
	}
}

/* ---- looking ----------------------------------------------------------------------------------------------------------- */

static bool same_file(const struct file_id *a, const struct file_id *b)
{
	return a->mtime_ns == b->mtime_ns && a->size == b->size && a->inode == b->inode && a->device == b->device;
}

static void refresh_done(struct control *c)
{
	struct tables *t = &c->tables;
	tables_done *done = t->done;
	void *arg = t->arg;

	t->busy = false;
	if (t->dropped)
		tables_discard(c);
	else if (!t->hold)
		tables_commit(c, NULL);
	if (done != NULL)
		done(c, arg);
	if (!t->busy && t->next_done != NULL) {
		done = t->next_done;
		t->next_done = NULL;
		tables_refresh(c, done, t->next_arg);
	}
}

/* A fault is told once: to the log when a look finds it, to whoever asked for a reload each time. */
static void set_fault(struct control *c, unsigned kind, const char *why)
{
	struct table *t = &c->tables.each[kind];
	bool news = strcmp(t->fault, why) != 0;

	snprintf(t->fault, sizeof t->fault, "%s", why);
	if (news && !c->tables.hold)
		log_warning("%s; %s", t->fault, t->fd < 0 ? "there is none to go on with" : "the former one stays");
}

static void on_compiled(struct control *c, struct compiled *result, void *arg)
{
	struct tables *tables = &c->tables;
	struct table *t = &tables->each[tables->at];
	const char *path = config_file_path(c->child->config, kinds[tables->at].file);
	char line[NOTE_LINE_MAX], why[sizeof t->fault];

	(void)arg;
	if (result->fd >= 0) {
		t->held = result->fd;
		result->fd = -1;
		t->fault[0] = '\0';
	} else {
		note_line(json_array_get(result->notes, 0), line, sizeof line);
		snprintf(why, sizeof why, "%s %.400s is not usable: %.400s", kinds[tables->at].code, path, line);
		set_fault(c, tables->at, why);
	}
	tables->at++;
	next_table(c);
}

static void on_file(struct control *c, int *fd)
{
	struct tables *tables = &c->tables;
	struct table *t = &tables->each[tables->at];
	struct file_id id = {0};
	struct stat st;

	if (fstat(*fd, &st) == 0)
		id = (struct file_id){.mtime_ns = st.st_mtim.tv_sec * 1000000000LL + st.st_mtim.tv_nsec,
				      .size = st.st_size,
				      .inode = st.st_ino,
				      .device = st.st_dev};
	if (same_file(&id, &t->tried)) {
		tables->at++;
		next_table(c);
		return;
	}
	t->tried = id;
	/* The compiler copies it: nobody changes it under the reader then. */
	compile_start(c, kinds[tables->at].compile, *fd, 0, on_compiled, NULL);
	*fd = -1;
}

void tables_file_message(struct control *c, unsigned file, int *fd, const char *why)
{
	struct tables *t = &c->tables;

	if (!t->busy || !t->file_awaited || file != (unsigned)kinds[t->at].file)
		return;
	t->file_awaited = false;
	if (fd != NULL) {
		on_file(c, fd);
		return;
	}
	t->each[t->at].tried = (struct file_id){0};
	set_fault(c, t->at, why);
	t->at++;
	next_table(c);
}

static void next_table(struct control *c)
{
	struct tables *t = &c->tables;
	uint8_t file;

	while (t->at < TABLES && !is_configured(c, t->at))
		t->at++;
	if (t->at == TABLES) {
		refresh_done(c);
		return;
	}
	file = (uint8_t)kinds[t->at].file;
	t->file_awaited = true;
	ipc_send(c->child->supervisor, IPC_FILE_OPEN, &file, sizeof file, NULL, 0);
}

static void begin(struct control *c, bool hold, tables_done *done, void *arg)
{
	struct tables *t = &c->tables;

	t->busy = true;
	t->hold = hold;
	t->dropped = false;
	t->at = 0;
	t->done = done;
	t->arg = arg;
	next_table(c);
}

void tables_refresh(struct control *c, tables_done *done, void *arg)
{
	struct tables *t = &c->tables;

	if (!t->busy) {
		begin(c, true, done, arg);
		return;
	}
	/* A look is under way.  Changes of the policy come one at a time, so nobody else waits. */
	t->next_done = done;
	t->next_arg = arg;
}

bool tables_forget(struct control *c, const void *arg)
{
	struct tables *t = &c->tables;

	if (t->next_done != NULL && t->next_arg == arg) {
		t->next_done = NULL;
		return true;
	}
	if (!t->busy || t->done == NULL || t->arg != arg)
		return false;
	t->done = NULL;
	t->dropped = true;
	return true;
}

/* ---- the watch --------------------------------------------------------------------------------------------------------- */

static void on_look(evutil_socket_t fd, short what, void *arg)
{
	struct control *c = arg;

	(void)fd, (void)what;
	if (!c->tables.busy && c->policy.change == NULL && !c->stopping)
		begin(c, false, NULL, NULL);
}

void tables_init(struct control *c)
{
	unsigned ms = c->child->config->database_check_ms;
	struct timeval interval = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

	for (unsigned i = 0; i < TABLES; i++)
		c->tables.each[i].fd = c->tables.each[i].held = -1;
	event_assign(&c->tables.timer, c->child->base, -1, EV_PERSIST, on_look, c);
	if (ms > 0 && (is_configured(c, TABLE_COUNTRY) || is_configured(c, TABLE_ASN)))
		event_add(&c->tables.timer, &interval);
}

/* ---- what is told ------------------------------------------------------------------------------------------------------ */

const char *tables_fault(const struct control *c)
{
	for (unsigned i = 0; i < TABLES; i++)
		if (c->tables.each[i].fault[0] != '\0')
			return c->tables.each[i].fault;
	return NULL;
}

void tables_note_faults(const struct control *c, json_t *notes)
{
	for (unsigned i = 0; i < TABLES; i++) {
		const struct table *t = &c->tables.each[i];

		if (t->fault[0] != '\0')
			note_add(notes, kinds[i].code, "%s; %s", t->fault,
				 t->fd < 0 ? "there is none to go on with" : "the former one stays");
	}
}

bool tables_have_country(const struct control *c)
{
	return c->tables.each[TABLE_COUNTRY].fd >= 0;
}

json_t *tables_status(const struct control *c)
{
	json_t *status = json_object();

	for (unsigned i = 0; i < TABLES; i++) {
		const struct table *t = &c->tables.each[i];
		json_t *one;

		if (!is_configured(c, i))
			continue;
		one = json_pack("{s:o}", "database", json_string(config_file_path(c->child->config, kinds[i].file)));
		json_object_set_new(one, "state", json_string(t->fd < 0 ? "missing" : t->fault[0] != '\0' ? "stale" : "current"));
		if (t->fd >= 0 && t->loaded_us > 0)
			json_object_set_new(one, "loaded_at", json_integer(t->loaded_us / 1000000));
		if (t->fault[0] != '\0')
			json_object_set_new(one, "fault", note_text(t->fault, strlen(t->fault)));
		json_object_set_new(status, kinds[i].key, one);
	}
	return status;
}
