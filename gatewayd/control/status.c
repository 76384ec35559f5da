/* Status: everybody is asked, and whoever does not answer in time is shown as silent. */
#include "config.h"

#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/text.h"
#include "gatewayd/control/internal.h"

#define PATIENCE_MS 1000
#define ASKERS_MAX 64

struct status_job {
	struct control *control;
	struct client *askers[ASKERS_MAX];
	size_t naskers;
	json_t *workers, *auth, *audit, *processes, *last_error; /* what has come */
	int64_t supervisor_started_us;
	bool recorder_asked, processes_asked;
	bool answered[CONFIG_WORKERS_MAX], runs[CONFIG_WORKERS_MAX]; /* workers, by slot */
	bool draining;
	unsigned mute; /* sockets that are to listen, and do not */
	struct event patience;
};

/* Adds each integer of one worker to the sum of all. */
static void add_worker(json_t *sum, const json_t *one)
{
	const char *key;
	json_t *value;

	json_object_foreach ((json_t *)(uintptr_t)one, key, value)
		if (json_is_integer(value))
			json_object_set_new(sum, key,
					    json_integer(json_integer_value(json_object_get(sum, key)) +
							 json_integer_value(value)));
}

/* Nothing in it is ever removed: whoever looks after the disk is told when that becomes much. */
static void add_store(const struct control *c, json_t *status)
{
	static const char *const files[] = {"policy.db", "policy.db-wal"};
	uint64_t bytes = 0, warn = (uint64_t)c->child->config->policy_store_warn_mb << 20;
	struct stat st;

	for (size_t i = 0; i < sizeof files / sizeof *files; i++)
		if (stat(files[i], &st) == 0)
			bytes += (uint64_t)st.st_size;
	json_object_set_new(status, "store_bytes", json_integer((json_int_t)bytes));
	json_object_set_new(status, "store_large", json_boolean(warn > 0 && bytes > warn));
}

static json_t *policy_status(const struct control *c)
{
	const struct policy_state *p = &c->policy;

	json_t *status = json_pack("{s:I,s:I,s:I,s:I,s:O}", "rules", (json_int_t)p->rules, "loaded_at", (json_int_t)(p->loaded_us / 1000000),
			 "image_bytes", (json_int_t)p->image_bytes, "switch_us", (json_int_t)p->switch_us, "warnings", p->warnings);
	json_t *trial = confirm_status(c), *change = policy_change_status(c);

	add_store(c, status);
	json_object_set_new(status, "approval", approvals_status(c));
	if (trial != NULL)
		json_object_set_new(status, "trial", trial);
	if (change != NULL)
		json_object_set_new(status, "change", change);
	return status;
}

/* Those that may have sessions of which the sum does not tell: who does not run has none. */
static unsigned silent_workers(const struct status_job *job)
{
	unsigned silent = 0;

	for (size_t slot = 0; slot < job->control->child->config->workers; slot++)
		silent += !job->answered[slot] && (job->processes == NULL || job->runs[slot]);
	return silent;
}

/* The supervisor's word; if it did not answer in time, that of workers. */
static bool is_draining(const struct status_job *job)
{
	return job->processes != NULL ? job->draining : json_object_get(job->workers, "draining") != NULL;
}

static json_t *build(struct status_job *job)
{
	const struct control *c = job->control;
	json_t *status = json_pack("{s:s,s:I,s:I,s:o}", "version", PACKAGE_VERSION, "uptime_s",
				   (json_int_t)((clock_mono_us() - job->supervisor_started_us) / 1000000), "revision",
				   (json_int_t)c->policy.revision, "policy", policy_status(c));
	static const char silent[] = "does not answer";

	if (job->processes != NULL) {
		json_object_set(status, "pid", json_object_get(json_array_get(job->processes, 0), "pid"));
		json_object_set(status, "processes", job->processes);
	}
	json_object_set_new(status, "tables", tables_status(c));
	json_object_set(status, "workers", job->workers);
	json_object_set_new(status, "rates", rates_of(&job->control->rates, job->workers, clock_mono_us() - job->supervisor_started_us));
	json_object_set_new(status, "silent_workers", json_integer(silent_workers(job)));
	json_object_set_new(status, "draining", json_boolean(is_draining(job)));
	if (job->mute > 0)
		json_object_set_new(status, "not_listening", json_integer(job->mute));
	json_object_set_new(status, "log_level", json_string(log_level_name(log_get_level())));
	if (job->last_error != NULL)
		json_object_set(status, "last_error", job->last_error);
	json_t *audit = job->audit != NULL ? json_incref(job->audit) : json_pack("{s:s}", "state", silent);

	if (c->child->config->audit_relaxed)
		json_object_set_new(audit, "durability", json_string("relaxed"));
	if (c->child->config->audit_allow)
		json_object_set_new(audit, "on_failure", json_string("allow"));
	json_object_set_new(status, "audit", audit);
	json_object_set_new(status, "auth", job->auth != NULL ? json_incref(job->auth) : json_pack("{s:s}", "state", silent));
	return status;
}

static void finish(struct status_job *job)
{
	struct control *c = job->control;
	json_t *status = build(job);

	c->status_job = NULL;
	for (size_t i = 0; i < job->naskers; i++)
		if (job->askers[i] != NULL)
			admin_reply(job->askers[i], json_pack("{s:b,s:O}", "ok", 1, "status", status), -1);
	json_decref(status);
	json_decref(job->workers);
	json_decref(job->auth);
	json_decref(job->audit);
	json_decref(job->processes);
	json_decref(job->last_error);
	event_del(&job->patience);
	free(job);
}

static void finish_if_complete(struct status_job *job)
{
	struct peer *p;

	LIST_FOREACH (p, &job->control->peers, next)
		if (p->asked)
			return;
	if (!job->recorder_asked && !job->processes_asked)
		finish(job);
}

static void on_patience_over(evutil_socket_t fd, short what, void *arg)
{
	struct status_job *job = arg;
	struct peer *p;

	(void)fd, (void)what;
	LIST_FOREACH (p, &job->control->peers, next) {
		if (p->asked)
			log_warning("%s/%u does not answer", role_name(p->role), (unsigned)p->slot);
		p->asked = false;
	}
	finish(job);
}

static struct status_job *start_job(struct control *c)
{
	struct status_job *job = calloc(1, sizeof *job);
	struct timeval patience = {.tv_sec = PATIENCE_MS / 1000, .tv_usec = PATIENCE_MS % 1000 * 1000};
	struct ipc *recorder = recording_peer(c->recording);
	struct peer *p;

	if (job == NULL)
		log_fatal("out of memory");
	job->control = c;
	job->workers = json_object();
	job->supervisor_started_us = clock_mono_us();
	evtimer_assign(&job->patience, c->child->base, on_patience_over, job);
	evtimer_add(&job->patience, &patience);
	LIST_FOREACH (p, &c->peers, next)
		p->asked = ipc_send(p->link, IPC_STATUS_ASK, NULL, 0, NULL, 0) == 0;
	job->recorder_asked = recorder != NULL && ipc_send(recorder, IPC_STATUS_ASK, NULL, 0, NULL, 0) == 0;
	job->processes_asked = ipc_send(c->child->supervisor, IPC_PROCESSES_ASK, NULL, 0, NULL, 0) == 0;
	return job;
}

void status_ask(struct client *client)
{
	struct control *c = admin_control(client);

	if (c->status_job == NULL)
		c->status_job = start_job(c);
	if (c->status_job->naskers == ASKERS_MAX) {
		admin_refuse(client, "too many ask for the status at once: try again");
		return;
	}
	c->status_job->askers[c->status_job->naskers++] = client;
}

void status_client_gone(struct control *c, struct client *client)
{
	for (size_t i = 0; c->status_job != NULL && i < c->status_job->naskers; i++)
		if (c->status_job->askers[i] == client)
			c->status_job->askers[i] = NULL;
}

static json_t *read_object(const struct ipc_message *m)
{
	json_t *object = json_loadb((const char *)m->body, m->len, 0, NULL);

	if (json_is_object(object))
		return object;
	json_decref(object);
	return NULL;
}

void status_peer_answered(struct peer *p, struct ipc_message *m)
{
	struct status_job *job = p->control->status_job;
	json_t *object;

	if (job == NULL || !p->asked)
		return;
	p->asked = false;
	object = read_object(m);
	if (object != NULL && p->role == ROLE_WORKER) {
		add_worker(job->workers, object);
		job->answered[p->slot % CONFIG_WORKERS_MAX] = true;
	} else if (object != NULL && job->auth == NULL) {
		job->auth = json_incref(object);
	}
	json_decref(object);
	finish_if_complete(job);
}

void status_peer_gone(struct peer *p)
{
	struct status_job *job = p->control->status_job;
	bool asked = p->asked;

	p->asked = false;
	if (job != NULL && asked)
		finish_if_complete(job);
}

void status_recorder_answered(struct control *c, struct ipc_message *m)
{
	struct status_job *job = c->status_job;

	if (job == NULL || !job->recorder_asked)
		return;
	job->recorder_asked = false;
	job->audit = read_object(m);
	finish_if_complete(job);
}

static void read_last_error(struct status_job *job, struct wire_reader *r)
{
	int64_t at_us = (int64_t)wire_get_u64(r);
	char who[32], text[301], safe[1216];

	wire_get_text(r, who, sizeof who);
	wire_get_text(r, text, sizeof text);
	if (!r->bad && at_us != 0)
		job->last_error = json_pack("{s:I, s:s, s:s}", "at_us", (json_int_t)at_us, "process", who, "text",
					    text_escape(text, strlen(text), safe, sizeof safe));
}

void status_processes(struct control *c, struct ipc_message *m)
{
	struct status_job *job = c->status_job;
	struct wire_reader r = wire_reader_on(m->body, m->len);
	uint16_t count = wire_get_u16(&r);

	if (job == NULL || !job->processes_asked)
		return;
	job->processes_asked = false;
	job->processes = json_array();
	for (uint16_t i = 0; i < count && !r.bad; i++) {
		unsigned role = wire_get_u8(&r), slot = wire_get_u16(&r), pid = wire_get_u32(&r), ready = wire_get_u8(&r);
		uint32_t restarts = wire_get_u32(&r);
		int64_t started_us = (int64_t)wire_get_u64(&r);
		char last_end[64];

		wire_get_text(&r, last_end, sizeof last_end);
		if (i == 0)
			job->supervisor_started_us = started_us;
		if (role == ROLE_WORKER && slot < CONFIG_WORKERS_MAX)
			job->runs[slot] = pid != 0;
		json_t *one = json_pack("{s:s,s:i,s:i,s:I,s:i,s:s}", "role", role_name((enum role)role), "slot", (int)slot, "pid",
					(int)pid, "uptime_s", (json_int_t)((clock_mono_us() - started_us) / 1000000),
					"restarts", (int)restarts, "state", pid == 0 ? "waiting" : ready ? "running" : "starting");

		if (last_end[0] != '\0')
			json_object_set_new(one, "last_end", json_string(last_end));
		json_array_append_new(job->processes, one);
	}
	read_last_error(job, &r);
	job->draining = wire_get_u8(&r) != 0;
	job->mute = wire_get_u16(&r);
	finish_if_complete(job);
}
