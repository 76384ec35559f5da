/* The recorder's entry.  It owns one directory, the current one, and the audit in it; it reads no file named by
 * anybody, and believes no record before it has been checked (schema/audit_event.h).  What must never happen here: an
 * acknowledgement of what is not on stable storage. */
#include "config.h"

#include "gatewayd/recorder/senders.h"

#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdio.h>

#include "common/log.h"
#include "gatewayd/child.h"

/* How long a stopping recorder waits for those who still send. */
#define STOP_WAIT_S 2

struct service {
	struct child *child;
	struct audit_store *store;
	struct recorder *recorder;
	struct event deadline;
	bool stopping;
};

static void on_peer(struct child *c, enum role peer, uint16_t slot, int fd)
{
	struct service *service = c->state;

	recorder_add(service->recorder, ipc_new(fd, ROLE_RECORDER, peer, slot));
}

static void finish(struct service *service)
{
	if (recorder_finish(service->recorder) != 0)
		log_error("stopping while the audit cannot be written: records that nobody was told to be durable are "
			  "lost");
	child_leave(service->child);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	finish(arg);
}

static void on_gone(void *arg)
{
	struct service *service = arg;

	if (service->stopping && recorder_links(service->recorder) == 0)
		finish(service);
}

/* The last to leave: others that stop at the same time still have ends of sessions to record. */
static void on_stop(struct child *c)
{
	struct service *service = c->state;
	struct timeval wait = {.tv_sec = STOP_WAIT_S};

	if (service->stopping)
		return;
	service->stopping = true;
	event_add(&service->deadline, &wait);
	on_gone(service);
}

static void open_store(struct service *service)
{
	struct err why;
	char text[600];

	service->store = audit_store_open("audit.db", AUDIT_WRITE, &why);
	if (service->store != NULL)
		return;
	snprintf(text, sizeof text,
		 "the audit in %.120s/audit cannot be opened: %.300s; its user must be able to write there, and a "
		 "damaged file has to be moved away",
		 service->child->config->state_dir, why.text);
	child_unusable(service->child, text);
}

int recorder_main(struct child *c)
{
	struct service service = {.child = c};
	int code;

	open_store(&service);
	service.recorder = recorder_new(c->base, service.store, c->config->commit_interval_us);
	recorder_on_gone(service.recorder, on_gone, &service);
	event_assign(&service.deadline, c->base, -1, 0, on_deadline, &service);
	c->state = &service;
	c->on_peer = on_peer;
	c->on_stop = on_stop;
	code = child_run(c);
	event_del(&service.deadline);
	recorder_free(&service.recorder);
	audit_store_close(&service.store);
	return code;
}
