/* An audit query: a reader of its own writes rows into a pipe whose other end the caller gets.  No row passes through here. */
#include "config.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "gatewayd/control/internal.h"

struct query {
	char *filter;
	int write_end;
	struct ipc *link;
};

static void query_free(struct query *q)
{
	ipc_free(&q->link);
	if (q->write_end >= 0)
		close(q->write_end);
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
	int pipe_fd = q->write_end;

	q->link = ipc_new(fd, ROLE_CONTROL, ROLE_READER, 0);
	q->write_end = -1;
	ipc_send(q->link, IPC_QUERY, q->filter, strlen(q->filter), &pipe_fd, 1);
	ipc_attach(q->link, c->child->base, on_reader_message, on_reader_gone, q);
}

void query_start(struct client *client, const json_t *filter)
{
	struct control *c = admin_control(client);
	struct query *q = calloc(1, sizeof *q);
	int ends[2];

	if (q == NULL || !json_is_object(filter) || (q->filter = json_dumps(filter, JSON_COMPACT)) == NULL ||
	    strlen(q->filter) > ipc_body_max(IPC_QUERY) || pipe2(ends, O_CLOEXEC) != 0) {
		free(q != NULL ? q->filter : NULL);
		free(q);
		admin_refuse(client, "the query has no filter object, or cannot be run now");
		return;
	}
	q->write_end = ends[1];
	control_spawn(c, ROLE_READER, on_reader, q);
	admin_reply(client, json_pack("{s:b}", "ok", 1), ends[0]);
}
