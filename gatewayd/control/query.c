/* An audit query: a reader of its own writes rows into a pipe whose other end the caller gets.  No row passes through here. */
#include "config.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "gatewayd/control/internal.h"

struct query {
	struct client *client;
	char *filter;
	struct ipc *link;
};

static void query_free(struct query *q)
{
	ipc_free(&q->link);
	free(q->filter);
	free(q);
}

static void on_reader_message(struct ipc *link, struct ipc_message *m, void *arg)
{
	(void)link, (void)m, (void)arg; /* a reader has nothing to say to us */
}

static void on_reader_gone(struct ipc *link, void *arg)
{
	(void)link;
	query_free(arg);
}

static void on_reader(struct control *c, int fd, void *arg)
{
	struct query *q = arg;
	bool waits = admin_is_client(c, q->client);
	int ends[2];

	if (fd < 0 || !waits || pipe2(ends, O_CLOEXEC) != 0) {
		if (waits)
			admin_refuse(q->client, "too many queries are being answered: try again when one is done");
		if (fd >= 0)
			close(fd);
		query_free(q);
		return;
	}
	q->link = ipc_new(fd, ROLE_CONTROL, ROLE_READER, 0);
	ipc_send(q->link, IPC_QUERY, q->filter, strlen(q->filter), &ends[1], 1);
	ipc_attach(q->link, c->child->base, on_reader_message, on_reader_gone, q);
	admin_reply(q->client, json_pack("{s:b}", "ok", 1), ends[0]);
}

void query_start(struct client *client, const json_t *filter)
{
	struct query *q = calloc(1, sizeof *q);

	if (q == NULL || !json_is_object(filter) || (q->filter = json_dumps(filter, JSON_COMPACT)) == NULL ||
	    strlen(q->filter) > ipc_body_max(IPC_QUERY)) {
		free(q != NULL ? q->filter : NULL);
		free(q);
		admin_refuse(client, "the query has no filter object, or one that is too large");
		return;
	}
	q->client = client;
	control_spawn(admin_control(client), ROLE_READER, on_reader, q);
}
