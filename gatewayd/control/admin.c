/* The control socket: one request, one reply a connection, each a JSON object in one datagram.  Who may ask is decided by the
 * peer's credentials as the kernel reports them. */
#include "config.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "common/rights.h"
#include "gatewayd/control/internal.h"

#define CLIENTS_MAX 64
#define UNREAD_MAX 8
#define REQUEST_MAX (64 * 1024)
#define REQUEST_DEADLINE_S 10

struct client {
	LIST_ENTRY(client) next;
	struct control *control;
	int fd;
	int given_fd; /* that its request brought; -1: none */
	struct event event;
	struct author author;
	bool lingers; /* it has its reply, and may not have read it */
};

struct control *admin_control(const struct client *client)
{
	return client->control;
}

const struct author *admin_author(const struct client *client)
{
	return &client->author;
}

bool admin_is_client(const struct control *c, const struct client *client)
{
	const struct client *each;

	LIST_FOREACH (each, &c->clients, next)
		if (each == client)
			return true;
	return false;
}

static void client_free(struct client *client)
{
	struct control *c = client->control;

	status_client_gone(c, client);
	auth_client_gone(c, client);
	LIST_REMOVE(client, next);
	event_del(&client->event);
	close(client->fd);
	if (client->given_fd >= 0)
		close(client->given_fd);
	if (client->lingers && --c->unread == 0)
		revisions_all_read(c);
	free(client);
	if (c->nclients-- == CLIENTS_MAX)
		event_add(&c->accept_event, NULL);
}

int admin_take_fd(struct client *client)
{
	int fd = client->given_fd;

	client->given_fd = -1;
	return fd;
}

/* ---- replies ---------------------------------------------------------------------------------------------------------- */

static bool send_reply(struct client *client, json_t *reply, int fd)
{
	char *text = json_dumps(reply, JSON_COMPACT);
	struct iovec iov = {.iov_base = text, .iov_len = text == NULL ? 0 : strlen(text)};
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	json_decref(reply);
	if (fd >= 0) {
		memset(&control, 0, sizeof control);
		msg.msg_control = control.bytes;
		msg.msg_controllen = sizeof control.bytes;
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof fd);
		memcpy(CMSG_DATA(c), &fd, sizeof fd);
	}
	/* The first and only reply into an empty buffer: it fits, or its reader is gone. */
	bool sent = text != NULL && sendmsg(client->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0;

	if (!sent)
		log_info("a reply to %s could not be delivered: %s", client->author.name,
			 text == NULL ? "out of memory" : strerror(errno));
	if (fd >= 0)
		close(fd);
	free(text);
	return sent;
}

void admin_reply(struct client *client, json_t *reply, int fd)
{
	send_reply(client, reply, fd);
	client_free(client);
}

static void on_lingering(evutil_socket_t fd, short what, void *arg)
{
	char ignored[64];
	ssize_t n = recv(fd, ignored, sizeof ignored, MSG_DONTWAIT);

	(void)what;
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		client_free(arg);
}

bool admin_may_linger(const struct control *c)
{
	return c->unread < UNREAD_MAX;
}

void admin_reply_and_linger(struct client *client, json_t *reply, int fd)
{
	struct control *c = client->control;

	if (!send_reply(client, reply, fd)) {
		client_free(client);
		return;
	}
	client->lingers = true;
	c->unread++;
	event_assign(&client->event, c->child->base, client->fd, EV_READ | EV_PERSIST, on_lingering, client);
	event_add(&client->event, NULL);
}

void admin_refuse(struct client *client, const char *error)
{
	admin_reply(client, json_pack("{s:b,s:s}", "ok", 0, "error", error), -1);
}

/* ---- commands ---------------------------------------------------------------------------------------------------------- */

static void command_status(struct client *client, const json_t *request)
{
	(void)request;
	status_ask(client);
}

static void command_audit_query(struct client *client, const json_t *request)
{
	query_start(client, json_object_get(request, "filter"));
}

static const struct {
	const char *name;
	void (*run)(struct client *client, const json_t *request);
} commands[] = {
	{"status", command_status},
	{"reload", revisions_reload},
	{"policy-head", revisions_head},
	{"policy-apply", revisions_apply},
	{"policy-rollback", revisions_rollback},
	{"policy-log", revisions_log},
	{"policy-get", revisions_get},
	{"audit-query", command_audit_query},
	{"auth", auth_command_ask},
};

static void run(struct client *client, const char *text, size_t len)
{
	json_t *request = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	const char *name = json_string_value(json_object_get(request, "command"));

	/* One request a connection. */
	event_del(&client->event);
	for (size_t i = 0; name != NULL && i < sizeof commands / sizeof *commands; i++)
		if (strcmp(commands[i].name, name) == 0) {
			commands[i].run(client, request);
			json_decref(request);
			return;
		}
	admin_refuse(client, name == NULL ? "the request is no JSON object with a command" : "there is no such command");
	json_decref(request);
}

static ssize_t receive(struct client *client, char *buffer, size_t size)
{
	union {
		char bytes[RIGHTS_SPACE];
		struct cmsghdr align;
	} control;
	struct iovec iov = {.iov_base = buffer, .iov_len = size};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
	ssize_t n = recvmsg(client->fd, &msg, MSG_TRUNC | MSG_CMSG_CLOEXEC);

	if (n >= 0)
		client->given_fd = rights_take_one(&msg);
	return n;
}

static void on_client(evutil_socket_t fd, short what, void *arg)
{
	static char buffer[REQUEST_MAX + 1];
	struct client *client = arg;
	ssize_t n;

	(void)fd;
	if (what & EV_TIMEOUT) {
		client_free(client);
		return;
	}
	n = receive(client, buffer, sizeof buffer);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0)
		client_free(client);
	else if (n > REQUEST_MAX)
		admin_refuse(client, "the request is too large");
	else
		run(client, buffer, (size_t)n);
}

/* ---- who may ---------------------------------------------------------------------------------------------------------- */

static bool in_group(int fd, gid_t primary, gid_t group)
{
	gid_t groups[1024];
	socklen_t len = sizeof groups;

	if (group == (gid_t)-1)
		return false;
	if (primary == group)
		return true;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) != 0)
		return false;
	for (size_t i = 0; i < len / sizeof *groups; i++)
		if (groups[i] == group)
			return true;
	return false;
}

static bool may_ask(const struct control *c, int fd, struct author *author)
{
	struct ucred cred;
	socklen_t len = sizeof cred;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0)
		return false;
	author->uid = cred.uid;
	snprintf(author->name, sizeof author->name, "uid %u", (unsigned)cred.uid);
	return cred.uid == 0 || cred.uid == c->owner || in_group(fd, cred.gid, c->group);
}

static void on_connect(evutil_socket_t listen_fd, short what, void *arg)
{
	struct control *c = arg;
	struct timeval deadline = {.tv_sec = REQUEST_DEADLINE_S};
	int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct client *client = fd < 0 ? NULL : calloc(1, sizeof *client);

	(void)what;
	if (client == NULL) {
		/* Out of descriptors or memory: the caller waits in the queue, and we do not spin on it. */
		if (fd >= 0)
			close(fd);
		if (fd >= 0 || (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)) {
			event_del(&c->accept_event);
			evtimer_add(&c->accept_pause, &(struct timeval){.tv_sec = 1});
		}
		return;
	}
	client->control = c;
	client->fd = fd;
	client->given_fd = -1;
	event_assign(&client->event, c->child->base, fd, EV_READ | EV_PERSIST, on_client, client);
	LIST_INSERT_HEAD(&c->clients, client, next);
	if (++c->nclients == CLIENTS_MAX)
		event_del(&c->accept_event); /* the others wait in the socket's queue */
	if (!may_ask(c, fd, &client->author)) {
		log_warning("%s is no administrator and is refused", client->author.name);
		admin_refuse(client, "you are no administrator of this gateway (root, its owner, or its control-group)");
		return;
	}
	event_add(&client->event, &deadline);
}

static void on_accept_pause_over(evutil_socket_t fd, short what, void *arg)
{
	struct control *c = arg;

	(void)fd, (void)what;
	if (c->nclients < CLIENTS_MAX)
		event_add(&c->accept_event, NULL);
}

void admin_start(struct control *c, int fd)
{
	struct stat st;

	/* The socket belongs to whoever started the gateway. */
	if (fstat(fd, &st) != 0)
		log_fatal("cannot look at the control socket");
	c->owner = st.st_uid;
	c->socket_fd = fd;
	event_assign(&c->accept_event, c->child->base, fd, EV_READ | EV_PERSIST, on_connect, c);
	event_add(&c->accept_event, NULL);
	evtimer_assign(&c->accept_pause, c->child->base, on_accept_pause_over, c);
}
