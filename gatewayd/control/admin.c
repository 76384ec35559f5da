/* The control socket: one request, one reply a connection, each a JSON object in one datagram.  Who may ask is decided by the
 * peer's credentials as the kernel reports them. */
#include "config.h"

#include <errno.h>
#include <event2/event.h>
#include <stddef.h>
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
#define CLIENTS_LESSER_MAX 48
#define CLIENTS_OF_USER_MAX 16
#define UNREAD_MAX 8
#define UNREAD_LESSER_MAX 6
#define REQUEST_MAX (64 * 1024)
#define REQUEST_DEADLINE_S 10
/* How long a reply waits for the audit to hold what was ordered. */
#define RECORD_WAIT_S 5

struct client {
	LIST_ENTRY(client) next;
	struct control *control;
	uint64_t number; /* of this control, never another's */
	int fd;
	int given_fd; /* that its request brought; -1: none */
	struct event event;
	struct author author;
	bool lingers; /* it has its reply, and may not have read it */
	/* What it ordered, until that is durable, and the reply that waits for it. */
	struct waiter recorded;
	struct record *record;
	struct event late;
	bool unrecorded; /* it was not, in time */
	json_t *reply;
	int reply_fd;
	/* Its command, until a row tells of it. */
	bool unnamed;	    /* what its user is called is not known yet: it is not heard before */
	bool heard, noted;  /* it has given one; a row tells what came of it, or none is needed besides others */
	bool ordered;	    /* one tells of the order */
	const char *command; /* NULL: none that there is */
	json_t *asked;	    /* the rest of its request */
};

static uint64_t last_number;

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

uint64_t admin_number(const struct client *client)
{
	return client->number;
}

struct client *admin_find_client(const struct control *c, uint64_t number)
{
	struct client *each;

	LIST_FOREACH (each, &c->clients, next)
		if (each->number == number)
			return each;
	return NULL;
}

/* What the command came to: each has a row, of its own or among others like it. */
static void note(struct client *client, const json_t *reply)
{
	const char *why = json_string_value(json_object_get(reply, "error"));
	bool refused = !json_is_true(json_object_get(reply, "ok"));

	if (!client->heard || client->noted)
		return;
	client->noted = true;
	if (refused || !client->ordered)
		looks_note(client->control, &client->author, client->command == NULL ? "no known command" : client->command, client->asked,
			   !refused ? NULL : why == NULL ? "see the policy's rows" : why);
}

void admin_on_record(struct client *client)
{
	client->noted = true;
}

static void client_free(struct client *client)
{
	struct control *c = client->control;

	json_decref(client->asked);
	status_client_gone(c, client);
	auth_client_gone(c, client);
	retention_client_gone(c, client);
	sessions_client_gone(c, client);
	running_client_gone(c, client);
	LIST_REMOVE(client, next);
	event_del(&client->event);
	evtimer_del(&client->late);
	record_forget(&client->record);
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

static void deliver(struct client *client)
{
	if (client->unrecorded)
		json_object_set_new(client->reply, "unrecorded", json_true());
	send_reply(client, client->reply, client->reply_fd);
	client_free(client);
}

void admin_reply(struct client *client, json_t *reply, int fd)
{
	note(client, reply);
	client->reply = reply;
	client->reply_fd = fd;
	if (client->record == NULL)
		deliver(client);
}

/* ---- orders are recorded before they are told to be carried out ------------------------------------------------------------ */

static void on_recorded(struct waiter *waiter)
{
	struct client *client = (struct client *)((char *)waiter - offsetof(struct client, recorded));

	client->record = NULL;
	evtimer_del(&client->late);
	if (client->reply != NULL)
		deliver(client);
}

/* It is recorded as soon as that can be; whoever ordered it is not kept longer. */
static void on_late(evutil_socket_t fd, short what, void *arg)
{
	struct client *client = arg;

	(void)fd, (void)what;
	record_forget(&client->record);
	client->unrecorded = true;
	if (client->reply != NULL)
		deliver(client);
}

static void await(struct client *client, struct record *record)
{
	static const struct timeval wait = {.tv_sec = RECORD_WAIT_S};

	client->ordered = true;
	client->record = record;
	client->unrecorded = record == NULL;
	if (record != NULL)
		evtimer_add(&client->late, &wait);
}

void admin_record(struct client *client, enum audit_kind kind, const char *text)
{
	struct control *c = client->control;

	await(client, control_record_for(c, kind, &client->author, c->policy.revision, text, &client->recorded));
}

void admin_record_revision(struct client *client, uint32_t revision, const char *text)
{
	await(client, control_record_for(client->control, AUDIT_POLICY, &client->author, revision, text, &client->recorded));
}

void admin_record_filter(struct client *client, const char *text, const json_t *filter)
{
	await(client, control_record_query(client->control, &client->author, text, filter, &client->recorded));
}

static void on_lingering(evutil_socket_t fd, short what, void *arg)
{
	char ignored[64];
	ssize_t n = recv(fd, ignored, sizeof ignored, MSG_DONTWAIT);

	(void)what;
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		client_free(arg);
}

bool admin_may_linger(const struct client *client)
{
	/* The last of them are for administrators. */
	return client->control->unread + client->control->policy.nasking <
	       (client->author.rights & RIGHT_ADMINISTER ? UNREAD_MAX : UNREAD_LESSER_MAX);
}

void admin_reply_and_linger(struct client *client, json_t *reply, int fd)
{
	struct control *c = client->control;

	note(client, reply);
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
	query_start(client, request);
}

/* Each with the least that its caller must be allowed.  The first row that fits holds: a row with a verb is for requests with
 * that verb, one with a flag for those in which it is true. */
static const struct command {
	const char *name;
	void (*run)(struct client *client, const json_t *request);
	enum right right;
	const char *verb, *flag;
} commands[] = {
	{"status", command_status, RIGHT_VIEW, NULL, NULL},
	{"reload", revisions_reload, RIGHT_ADMINISTER, NULL, "force"},
	{"reload", revisions_reload, RIGHT_OPERATE, NULL, NULL},
	{"policy-head", revisions_head, RIGHT_VIEW, NULL, NULL},
	{"policy-apply", revisions_apply, RIGHT_ADMINISTER, NULL, NULL},
	{"policy-rollback", revisions_rollback, RIGHT_ADMINISTER, NULL, NULL},
	{"policy-confirm", confirm_order, RIGHT_ADMINISTER, NULL, NULL},
	{"policy-pending", approvals_pending, RIGHT_VIEW, NULL, NULL},
	{"policy-approve", revisions_approve, RIGHT_ADMINISTER, NULL, NULL},
	{"policy-reject", approvals_reject, RIGHT_ADMINISTER, NULL, NULL},
	{"policy-log", revisions_log, RIGHT_VIEW, NULL, NULL},
	{"policy-get", revisions_get, RIGHT_VIEW, NULL, NULL},
	{"audit-query", command_audit_query, RIGHT_AUDIT, NULL, NULL},
	{"drain", running_drain, RIGHT_OPERATE, NULL, NULL},
	{"log-level", running_log_level, RIGHT_OPERATE, NULL, NULL},
	{"session-list", sessions_list, RIGHT_VIEW, NULL, NULL},
	{"session-show", sessions_show, RIGHT_VIEW, NULL, NULL},
	{"session-recent", sessions_recent, RIGHT_VIEW, NULL, NULL},
	{"session-kill", sessions_kill, RIGHT_OPERATE, NULL, NULL},
	{"session-block", blocks_add, RIGHT_OPERATE, NULL, NULL},
	{"session-blocks", blocks_list, RIGHT_VIEW, NULL, NULL},
	{"session-unblock", blocks_remove, RIGHT_OPERATE, NULL, NULL},
	{"auth", auth_command_ask, RIGHT_VIEW, "list", NULL},
	{"auth", auth_command_ask, RIGHT_OPERATE, NULL, NULL},
	{"audit-retention", retention_order, RIGHT_AUDIT, "holds", NULL},
	{"audit-retention", retention_order, RIGHT_ADMINISTER, NULL, NULL},
};

static const struct command *find_command(const json_t *request)
{
	const char *name = json_string_value(json_object_get(request, "command"));
	const char *verb = json_string_value(json_object_get(request, "verb"));

	for (size_t i = 0; name != NULL && i < sizeof commands / sizeof *commands; i++) {
		const struct command *c = &commands[i];

		if (strcmp(c->name, name) == 0 && (c->verb == NULL || (verb != NULL && strcmp(c->verb, verb) == 0)) &&
		    (c->flag == NULL || json_is_true(json_object_get(request, c->flag))))
			return c;
	}
	return NULL;
}

static void refuse_command(struct client *client, const struct command *command)
{
	char text[256], role[ROLES_TEXT_MAX], what[96], why[64];

	snprintf(what, sizeof what, "%s%s%s", command->name, command->flag == NULL ? "" : " with ",
		 command->flag == NULL ? "" : command->flag);
	snprintf(why, sizeof why, "it takes %s", roles_needed(command->right));
	roles_record_refused(client->control, &client->author, what, why);
	admin_on_record(client);
	snprintf(text, sizeof text, "%s takes %s, and you are %s: ask one, or have yourself added to that group", what,
		 roles_needed(command->right), roles_text(&client->author, role));
	admin_refuse(client, text);
}

static void run(struct client *client, const char *text, size_t len)
{
	json_t *request = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	const struct command *command = find_command(request);

	/* One request a connection. */
	event_del(&client->event);
	client->heard = true;
	client->command = command == NULL ? NULL : command->name;
	client->asked = json_copy(request);
	if (command != NULL)
		json_object_del(client->asked, "command");
	if (command == NULL)
		admin_refuse(client, json_is_string(json_object_get(request, "command")) ? "there is no such command"
										       : "the request is no JSON object with a command");
	else if (!(client->author.rights & command->right))
		refuse_command(client, command);
	else
		command->run(client, request);
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
	else if (n > REQUEST_MAX) {
		client->heard = true;
		admin_refuse(client, "the request is too large");
	} else
		run(client, buffer, (size_t)n);
}

/* ---- who may ---------------------------------------------------------------------------------------------------------- */

/* Whoever may less than all cannot keep those out who may more: so many at once, of one user and in all. */
static bool too_many(const struct control *c, const struct author *author)
{
	const struct client *each;
	unsigned same = 0, lesser = 0;

	if (author->rights & RIGHT_ADMINISTER)
		return false;
	LIST_FOREACH (each, &c->clients, next) {
		same += each->author.uid == author->uid;
		lesser += !(each->author.rights & RIGHT_ADMINISTER);
	}
	return same > CLIENTS_OF_USER_MAX || lesser > CLIENTS_LESSER_MAX;
}

/* Before its request is read.  What it has sent, or is about to, must not turn the reply into a reset connection. */
static void refuse_unheard(struct client *client, const char *error)
{
	char ignored[64];

	shutdown(client->fd, SHUT_RD);
	while (recv(client->fd, ignored, sizeof ignored, MSG_DONTWAIT) > 0)
		;
	admin_refuse(client, error);
}

static void hear(struct client *client)
{
	event_add(&client->event, &(struct timeval){.tv_sec = REQUEST_DEADLINE_S});
}

static void on_connect(evutil_socket_t listen_fd, short what, void *arg)
{
	struct control *c = arg;
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
	client->number = ++last_number;
	client->fd = fd;
	client->given_fd = -1;
	client->recorded.durable = on_recorded;
	evtimer_assign(&client->late, c->child->base, on_late, client);
	event_assign(&client->event, c->child->base, fd, EV_READ | EV_PERSIST, on_client, client);
	LIST_INSERT_HEAD(&c->clients, client, next);
	if (++c->nclients == CLIENTS_MAX)
		event_del(&c->accept_event); /* the others wait in the socket's queue */
	if (!roles_identify(c, fd, &client->author)) {
		roles_record_refused(c, &client->author, "a connection of somebody without a role", NULL);
		refuse_unheard(client, "you have no role at this gateway: roles are given by membership in its viewer-group, "
				       "auditor-group, operator-group or control-group");
		return;
	}
	if (too_many(c, &client->author)) {
		roles_record_refused(c, &client->author, "a connection beyond its share", NULL);
		refuse_unheard(client, "too many connections like yours are open: close some, or try again later");
		return;
	}
	client->unnamed = !names_find(c, client->author.uid, client->author.login);
	if (!client->unnamed)
		hear(client);
}

/* The one that has come first. */
static struct client *first_unnamed(const struct control *c, uid_t uid)
{
	struct client *each, *first = NULL;

	LIST_FOREACH (each, &c->clients, next)
		if (each->unnamed && each->author.uid == uid && (first == NULL || each->number < first->number))
			first = each;
	return first;
}

void admin_named(struct control *c, uid_t uid, const char *name)
{
	struct client *client;

	while ((client = first_unnamed(c, uid)) != NULL) {
		snprintf(client->author.login, sizeof client->author.login, "%s", name);
		client->unnamed = false;
		hear(client);
	}
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
