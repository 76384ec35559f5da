/* What operators want of the gateway as a whole.  The supervisor keeps it, so that it outlives a control or a worker that is
 * restarted; a start of the gateway begins as configured. */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "gatewayd/control/internal.h"

static void record(struct client *client, const char *what)
{
	control_record(admin_control(client), AUDIT_ADMIN, admin_author(client), admin_control(client)->policy.revision, what);
}

void running_drain(struct client *client, const json_t *request)
{
	uint8_t drain = !json_is_true(json_object_get(request, "undo"));

	record(client, drain ? "drain" : "drain undone");
	ipc_send(admin_control(client)->child->supervisor, IPC_DRAIN, &drain, sizeof drain, NULL, 0);
	admin_reply(client, json_pack("{s:b, s:b}", "ok", 1, "draining", (int)drain), -1);
}

void running_log_level(struct client *client, const json_t *request)
{
	const char *text = json_string_value(json_object_get(request, "level"));
	enum log_level level;
	uint8_t body;
	char what[64];

	if (text == NULL || !log_level_parse(text, &level)) {
		admin_refuse(client, "a level is error, warning, info or debug");
		return;
	}
	body = (uint8_t)level;
	snprintf(what, sizeof what, "log level: %s", text);
	record(client, what);
	ipc_send(admin_control(client)->child->supervisor, IPC_SET_LOG_LEVEL, &body, sizeof body, NULL, 0);
	admin_reply(client, json_pack("{s:b, s:s}", "ok", 1, "level", text), -1);
}
