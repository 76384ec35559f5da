/* What operators want of the gateway as a whole.  The supervisor keeps it, so that it outlives a control or a worker that is
 * restarted; a start of the gateway begins as configured. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "gatewayd/control/internal.h"

/* Told once the supervisor has done it. */
void running_drain(struct client *client, const json_t *request)
{
	const json_t *undo = json_object_get(request, "undo");
	struct control *c = admin_control(client);
	struct drain_order *order;
	uint8_t drain = !json_is_true(undo);

	if (undo != NULL && !json_is_boolean(undo)) {
		admin_refuse(client, "undo is true or false");
		return;
	}
	order = calloc(1, sizeof *order);
	if (order == NULL)
		log_fatal("out of memory");
	if (ipc_send(c->child->supervisor, IPC_DRAIN, &drain, sizeof drain, NULL, 0) != 0) {
		free(order);
		admin_refuse(client, "the supervisor takes no orders at present: try again");
		return;
	}
	admin_record(client, AUDIT_ADMIN, drain ? "drain" : "drain undone");
	*order = (struct drain_order){.client = client, .drain = drain};
	TAILQ_INSERT_TAIL(&c->drain_orders, order, next);
}

void running_drained(struct control *c, struct ipc_message *m)
{
	struct drain_order *order = TAILQ_FIRST(&c->drain_orders);
	struct wire_reader r = wire_reader_on(m->body, m->len);
	char why[612];

	wire_get_text(&r, why, sizeof why);
	if (order == NULL)
		return; /* a control before us gave it */
	TAILQ_REMOVE(&c->drain_orders, order, next);
	if (order->client != NULL && why[0] != '\0')
		admin_refuse(order->client, why);
	else if (order->client != NULL)
		admin_reply(order->client, json_pack("{s:b, s:b}", "ok", 1, "draining", (int)order->drain), -1);
	free(order);
}

void running_client_gone(struct control *c, const struct client *client)
{
	struct drain_order *order;

	TAILQ_FOREACH (order, &c->drain_orders, next)
		if (order->client == client)
			order->client = NULL;
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
	admin_record(client, AUDIT_ADMIN, what);
	ipc_send(admin_control(client)->child->supervisor, IPC_SET_LOG_LEVEL, &body, sizeof body, NULL, 0);
	admin_reply(client, json_pack("{s:b, s:s}", "ok", 1, "level", text), -1);
}
