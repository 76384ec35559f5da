/* The reader's entry: answers one query of the audit for control, and ends.  The audit is the current
 * directory, read-only; a filter comes as JSON and is hostile until it has been read. */
#include "config.h"

#include "gatewayd/child.h"

#include <signal.h>
#include <unistd.h>

#include "common/log.h"
#include "gatewayd/reader/answer.h"

#define QUERY_TIME_US (600 * INT64_C(1000000))
#define QUERY_ROWS_MAX 100000000

struct service {
	struct child *child;
	struct reader *reader;
	struct ipc *control;
};

static void leave(void *arg)
{
	struct service *service = arg;

	child_leave(service->child);
}

static void on_query(struct ipc *link, struct ipc_message *m, void *arg)
{
	struct service *service = arg;

	(void)link;
	if (!reader_take(service->reader, service->child->base, m)) {
		log_error("control sent a query that breaks the protocol");
		leave(service);
	}
}

static void on_control_gone(struct ipc *link, void *arg)
{
	struct service *service = arg;

	(void)link;
	ipc_free(&service->control);
	/* With a query at hand, the pipe says when nobody wants the answer any more. */
	if (!reader_busy(service->reader))
		leave(service);
}

static void on_peer(struct child *c, enum role peer, uint16_t slot, int fd)
{
	struct service *service = c->state;

	if (service->control != NULL) {
		close(fd);
		return;
	}
	service->control = ipc_new(fd, ROLE_READER, peer, slot);
	ipc_attach(service->control, c->base, on_query, on_control_gone, service);
}

int reader_main(struct child *c)
{
	struct service service = {.child = c};
	int code;

	signal(SIGPIPE, SIG_IGN);
	/* Before the sandbox closes: what has a log is opened for good, the rest are plain files. */
	service.reader = reader_new(QUERY_TIME_US, QUERY_ROWS_MAX, leave, &service);
	c->state = &service;
	c->on_peer = on_peer;
	code = child_run(c);
	ipc_free(&service.control);
	reader_free(&service.reader);
	return code;
}
