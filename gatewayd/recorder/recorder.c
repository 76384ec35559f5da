/* The recorder's entry.  It owns one directory, the current one, and the audit in it; it reads no file named by
 * anybody, and believes no record before it has been checked (schema/audit_event.h).  What must never happen here: an
 * acknowledgement of what is not on stable storage. */
#include "config.h"

#include "gatewayd/recorder/senders.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "gatewayd/child.h"
#include "gatewayd/recorder/retention.h"
#include "schema/audit_json.h"
#include "schema/audit_verify.h"
#include "schema/db.h"

/* How long a stopping recorder waits for those who still send. */
#define STOP_WAIT_S 2
/* How long a new one waits for the end of the last. */
#define LOCK_WAIT_US 15000000

struct service {
	struct child *child;
	struct audit_store *store;
	struct recorder *recorder;
	struct retention *retention;
	struct event deadline, anchor;
	int anchor_fd;
	bool stopping;
};

static void on_peer(struct child *c, enum role peer, uint16_t slot, int fd)
{
	struct service *service = c->state;

	recorder_add(service->recorder, ipc_new(fd, ROLE_RECORDER, peer, slot));
}

/* From the supervisor. */
static void on_message(struct child *c, struct ipc_message *m)
{
	struct service *service = c->state;
	struct wire_reader r = wire_reader_on(m->body, m->len);

	if (m->type == IPC_RUN)
		recorder_begin(service->recorder, wire_get_u32(&r) == 0, c->config->workers);
	else if (m->type == IPC_WORKER_GONE)
		recorder_worker_gone(service->recorder, wire_get_u16(&r));
	if (!wire_done(&r))
		log_fatal("the supervisor sent a malformed %s", ipc_type_name(m->type));
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

/* When the gateway is killed and started again at once, its last recorder may still write what it had been given. */
static int lock_directory(struct err *why)
{
	int fd = open("lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, 0600);
	int64_t deadline = clock_mono_us() + LOCK_WAIT_US;

	if (fd < 0)
		return err_set_errno(why, "lock: cannot open or create it");
	while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return err_set_errno(why, "lock: cannot be locked");
		if (clock_mono_us() > deadline)
			return err_set(why, "lock: another recorder holds it and does not end");
		poll(NULL, 0, 10);
	}
	return 0; /* held until we end */
}

static void open_store(struct service *service)
{
	struct err why;
	char text[600];

	if (lock_directory(&why) == 0)
		service->store = audit_store_open((uint64_t)service->child->config->segment_mb << 20, &why);
	if (service->store != NULL &&
	    (!service->child->config->audit_relaxed || audit_store_relax(service->store, &why) == 0))
		return;
	snprintf(text, sizeof text,
		 "the audit in %.120s/audit cannot be opened: %.300s; its user must be able to write there, and a "
		 "damaged file has to be moved away",
		 service->child->config->state_dir, why.text);
	child_unusable(service->child, text);
}

/* ---- anchors: where the chain stands, told to others ---------------------------------------------------------------
 */

static void on_anchor(evutil_socket_t fd, short what, void *arg)
{
	struct service *service = arg;
	struct audit_store_status status;
	char text[AUDIT_ANCHOR_TEXT_MAX], line[AUDIT_ANCHOR_TEXT_MAX + AUDIT_TIME_TEXT_MAX], now[AUDIT_TIME_TEXT_MAX];
	int n;

	(void)fd, (void)what;
	audit_store_status(service->store, &status);
	audit_anchor_text(&status.head, text);
	log_info("%s", text);
	if (service->anchor_fd < 0)
		return;
	n = snprintf(line, sizeof line, "%s %s\n", audit_time_text(clock_wall_us(), now), text);
	if (write(service->anchor_fd, line, (size_t)n) != n || fdatasync(service->anchor_fd) != 0)
		log_error("an anchor of the audit could not be written to %s: %s", service->child->config->anchor_file,
			  strerror(errno));
}

/* Opened with the recorder's rights before its sandbox closes. */
static void start_anchors(struct service *service)
{
	const struct config *config = service->child->config;
	struct timeval interval = {.tv_sec = config->anchor_interval_s};

	service->anchor_fd = -1;
	event_assign(&service->anchor, service->child->base, -1, EV_PERSIST, on_anchor, service);
	if (config->anchor_interval_s == 0)
		return;
	if (config->anchor_file[0] != '\0') {
		service->anchor_fd =
			open(config->anchor_file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0644);
		if (service->anchor_fd < 0)
			log_error("audit-anchor-file %s cannot be opened: %s; anchors go to the log only",
				  config->anchor_file, strerror(errno));
	}
	event_add(&service->anchor, &interval);
	on_anchor(-1, 0, service);
}

/* ---- retention ------------------------------------------------------------------------------------------------------- */

static void on_retention(struct ipc *link, const struct ipc_message *m, void *arg)
{
	retention_ask(arg, link, m);
}

static void on_retention_gone(const struct ipc *link, void *arg)
{
	retention_link_gone(arg, link);
}

int recorder_main(struct child *c)
{
	struct service service = {.child = c};
	int code;

	db_one_thread();
	open_store(&service);
	start_anchors(&service);
	service.recorder = recorder_new(c->base, service.store, c->config->commit_interval_us);
	recorder_start(service.recorder, (uint64_t)c->config->reserve_mb << 20);
	recorder_on_gone(service.recorder, on_gone, &service);
	service.retention = retention_new(c->base, service.store);
	recorder_on_retention(service.recorder, on_retention, on_retention_gone, service.retention);
	event_assign(&service.deadline, c->base, -1, 0, on_deadline, &service);
	c->state = &service;
	c->on_peer = on_peer;
	c->on_message = on_message;
	c->on_stop = on_stop;
	code = child_run(c);
	event_del(&service.deadline);
	event_del(&service.anchor);
	recorder_free(&service.recorder);
	retention_free(&service.retention);
	audit_store_close(&service.store);
	return code;
}
