/* Administrators' orders of retention: handed to the recorder, which alone writes the audit, and which records them. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "gatewayd/control/internal.h"

struct retention_job {
	LIST_ENTRY(retention_job) next;
	struct client *client; /* NULL: it has left */
	uint64_t id;
	bool changes; /* the recorder writes a row of it, if it is done */
};

static void job_end(struct retention_job *job, json_t *reply, const char *error)
{
	struct client *client = job->client;
	bool changes = job->changes;

	LIST_REMOVE(job, next);
	free(job);
	if (client == NULL)
		json_decref(reply);
	else if (reply != NULL && changes && json_is_true(json_object_get(reply, "ok"))) {
		admin_on_record(client);
		admin_reply(client, reply, -1);
	} else if (reply != NULL)
		admin_reply(client, reply, -1);
	else
		admin_refuse(client, error);
}

/* Whoever asks is who the kernel says, whatever the request says. */
static int hand_over(struct control *c, uint64_t id, const struct client *client, const json_t *request)
{
	static uint8_t body[20480];
	struct wire_writer w = wire_writer_on(body, sizeof body);
	struct ipc *recorder = recording_peer(c->recording);
	json_t *order = json_copy((json_t *)request);
	char *text;

	json_object_del(order, "command");
	json_object_set_new(order, "by", json_string(admin_author(client)->name));
	json_object_set_new(order, "login", json_string(admin_author(client)->login));
	text = json_dumps(order, JSON_COMPACT | JSON_ENSURE_ASCII);
	json_decref(order);
	wire_put_u64(&w, id);
	if (text != NULL)
		wire_put_bytes(&w, text, strlen(text));
	int rc = text == NULL || w.overflow || recorder == NULL ? -1 : ipc_send_wire(recorder, IPC_RETENTION, &w);

	free(text);
	return rc;
}

void retention_order(struct client *client, const json_t *request)
{
	struct control *c = admin_control(client);
	struct retention_job *job;

	if (!json_is_string(json_object_get(request, "verb"))) {
		admin_refuse(client, "the request does not say what to do");
		return;
	}
	job = calloc(1, sizeof *job);
	if (job == NULL)
		log_fatal("out of memory");
	job->client = client;
	job->id = ++c->retention_job_id;
	job->changes = strcmp(json_string_value(json_object_get(request, "verb")), "holds") != 0 &&
		       !json_is_true(json_object_get(request, "dry_run"));
	LIST_INSERT_HEAD(&c->retention_jobs, job, next);
	if (hand_over(c, job->id, client, request) != 0)
		job_end(job, NULL, "the recorder is not running, or the request is too large");
}

void retention_client_gone(struct control *c, struct client *client)
{
	struct retention_job *job;

	LIST_FOREACH (job, &c->retention_jobs, next)
		if (job->client == client)
			job->client = NULL;
}

void retention_answered(struct control *c, struct ipc_message *m)
{
	struct wire_reader r = wire_reader_on(m->body, m->len);
	uint64_t id = wire_get_u64(&r);
	size_t len;
	const uint8_t *text = wire_get_bytes(&r, ipc_body_max(IPC_RETAINED), &len);
	struct retention_job *job;

	if (!wire_done(&r) || text == NULL) {
		log_error("the recorder sent a malformed answer");
		return;
	}
	LIST_FOREACH (job, &c->retention_jobs, next)
		if (job->id == id) {
			json_t *reply = json_loadb((const char *)text, len, 0, NULL);

			job_end(job, json_is_object(reply) ? reply : NULL, "the recorder's answer is malformed");
			return;
		}
}

void retention_recorder_gone(struct control *c)
{
	struct retention_job *job;

	while ((job = LIST_FIRST(&c->retention_jobs)) != NULL)
		job_end(job, NULL, "the recorder ended before it was done; what was begun can be repeated");
}
