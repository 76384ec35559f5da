#include "config.h"

#include "admin/client.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "admin/admin.h"
#include "admin/format.h"
#include "admin/progress.h"
#include "common/clock.h"
#include "common/rights.h"

/* For each step of a conversation; a signal begins none of them anew. */
#define PATIENCE_US (120 * INT64_C(1000000))
#define INTERRUPT_LOOK_MS 200

static const char *socket_path;

void client_set_socket(const char *path)
{
	socket_path = path;
}

const char *client_socket(void)
{
	const char *from_environment = getenv("GATEWAYD_SOCKET");

	if (socket_path != NULL)
		return socket_path;
	return from_environment != NULL && *from_environment != '\0' ? from_environment : CLIENT_SOCKET_DEFAULT;
}

/* ---- the socket ---------------------------------------------------------------------------------------------------
 */

static const char *advice(int error)
{
	switch (error) {
	case EACCES:
	case EPERM:
		return "you may not; run it as root or as a member of a group that has a role there (see gatewayd.conf(5))";
	case ENOENT:
	case ECONNREFUSED:
		return "gatewayd is not running there; --socket PATH names another";
	case EAGAIN:
	case EINTR:
		return "it does not answer: too many wait for it, or it stands still";
	default:
		return strerror(error);
	}
}

static bool is_interrupted(void)
{
	return progress_watching() && progress_interrupted();
}

/* After connect(2) or sendmsg(2): true if it was only a signal (of the line that shows progress, say) that ended the wait, or a second
 * that is over, after which interrupts are looked at. */
static bool goes_on(int64_t until_us)
{
	return (errno == EINTR || errno == EAGAIN) && clock_mono_us() < until_us && !is_interrupted();
}

static int connect_patiently(int fd, const struct sockaddr_un *address)
{
	int64_t until_us = clock_mono_us() + PATIENCE_US;
	int result;

	do
		result = connect(fd, (const struct sockaddr *)address, sizeof *address);
	while (result != 0 && goes_on(until_us));
	return result;
}

/* What an interrupt says changes as the message leaves, neither before nor after: meanwhile, a second at most, it waits. */
static ssize_t send_guarded(int fd, const struct msghdr *msg, const char *said)
{
	sigset_t interrupt, before;
	ssize_t n;
	int error;

	sigemptyset(&interrupt);
	sigaddset(&interrupt, SIGINT);
	sigprocmask(SIG_BLOCK, &interrupt, &before);
	n = sendmsg(fd, msg, MSG_NOSIGNAL);
	error = errno;
	if (n >= 0)
		progress_guard(said);
	sigprocmask(SIG_SETMASK, &before, NULL);
	errno = error;
	return n;
}

static ssize_t send_patiently(int fd, const struct msghdr *msg, const char *said)
{
	int64_t until_us = clock_mono_us() + PATIENCE_US;
	ssize_t n;

	do
		n = said != NULL ? send_guarded(fd, msg, said) : sendmsg(fd, msg, MSG_NOSIGNAL);
	while (n < 0 && goes_on(until_us));
	return n;
}

/* A connected socket, or -1 with *code set. */
static int open_socket(int *code)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const struct timeval second = {.tv_sec = 1};
	const char *path = client_socket();
	int fd;

	*code = ADMIN_UNREACHABLE;
	if (strlen(path) >= sizeof address.sun_path) {
		*code = admin_fail(ADMIN_USAGE, "the path of the control socket is too long: %s", path);
		return -1;
	}
	memcpy(address.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		admin_fail(*code, "cannot make a socket: %s", strerror(errno));
		return -1;
	}
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &second, sizeof second);
	if (connect_patiently(fd, &address) != 0) {
		if (is_interrupted())
			admin_fail(*code, "interrupted: gatewayd was not reached");
		else
			admin_fail(*code, "cannot reach gatewayd at %s: %s", path, advice(errno));
		close(fd);
		return -1;
	}
	return fd;
}

/* Until something has come, or the time is over; false: an interrupt, which may as well have come just before. */
static bool wait_for_reply(int socket, bool patient)
{
	int64_t until_us = patient ? INT64_MAX : clock_mono_us() + PATIENCE_US;
	struct pollfd one = {.fd = socket, .events = POLLIN};

	while (clock_mono_us() < until_us) {
		if (is_interrupted())
			return false;
		if (poll(&one, 1, INTERRUPT_LOOK_MS) > 0)
			return true;
	}
	return true;
}

/* patient: an answer may take its time, which gatewayd bounds. */
static json_t *receive_reply(int socket, bool patient, int *fd)
{
	static char text[CLIENT_MESSAGE_MAX];
	union {
		char bytes[RIGHTS_SPACE];
		struct cmsghdr align;
	} control;
	struct iovec iov = {.iov_base = text, .iov_len = sizeof text};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
	json_t *reply = NULL;
	ssize_t n;

	bool interrupted = !wait_for_reply(socket, patient);

	do
		n = interrupted ? -1 : recvmsg(socket, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	while (n < 0 && !interrupted && errno == EINTR);
	*fd = n < 0 ? -1 : rights_take_one(&msg);
	if (interrupted)
		admin_fail(0, "interrupted: the answer was not waited for");
	else if (n < 0)
		admin_fail(0, errno == EAGAIN ? "gatewayd does not answer" : "the connection to gatewayd broke");
	else if (n == 0)
		admin_fail(0, "gatewayd closed the connection without an answer");
	else if (msg.msg_flags & MSG_TRUNC ||
		 (reply = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, NULL)) == NULL)
		admin_fail(0, "gatewayd gave an answer that is no JSON; is it of the same version?");
	if (reply == NULL && *fd >= 0) {
		close(*fd);
		*fd = -1;
	}
	return reply;
}

/* ---- asking ---------------------------------------------------------------------------------------------------------
 */

void client_show_refusal(const json_t *reply)
{
	char buf[FORMAT_TEXT_MAX];
	const char *error = format_member(reply, "error", buf);

	admin_fail(0, "refused: %s", *error != '\0' ? error : "gatewayd does not say why");
}

void client_show_notes(const json_t *reply)
{
	const json_t *note;
	size_t i;

	json_array_foreach(json_object_get(reply, "diagnostics"), i, note) format_note(stderr, note);
}

/* The reply, whatever it says. */
static json_t *exchange(int socket, const char *request, int given, bool patient, const char *said, int *fd)
{
	struct iovec iov = {.iov_base = (void *)(uintptr_t)request, .iov_len = strlen(request)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;

	if (given >= 0) {
		memset(&control, 0, sizeof control);
		msg.msg_control = control.bytes;
		msg.msg_controllen = sizeof control.bytes;
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof given);
		memcpy(CMSG_DATA(c), &given, sizeof given);
	}
	*fd = -1;
	/* Whoever is refused before asking finds out why by reading. */
	if (send_patiently(socket, &msg, said) < 0 && errno != EPIPE) {
		admin_fail(0, "cannot send to gatewayd: %s", is_interrupted() ? "interrupted" : strerror(errno));
		return NULL;
	}
	return receive_reply(socket, patient, fd);
}

/* Takes over the request.  NULL with *code if there is no reply. */
static json_t *converse(json_t *request, int given, bool patient, const char *said, int *fd, int *code)
{
	char *text = request == NULL ? NULL : json_dumps(request, JSON_COMPACT | JSON_ENSURE_ASCII);
	json_t *reply = NULL;
	int socket;

	*fd = -1;
	json_decref(request);
	if (text == NULL) {
		*code = admin_fail(ADMIN_REFUSED, "out of memory, or a text that is no UTF-8");
	} else if (strlen(text) > CLIENT_MESSAGE_MAX) {
		*code = admin_fail(ADMIN_REFUSED, "the request is longer than %d bytes", CLIENT_MESSAGE_MAX);
	} else if ((socket = open_socket(code)) >= 0) {
		reply = exchange(socket, text, given, patient, said, fd);
		close(socket);
	}
	free(text);
	return reply;
}

json_t *client_order(json_t *request, int given, const char *said, int *code)
{
	json_t *reply;
	int fd;

	if (said != NULL)
		progress_guard("interrupted: nothing was ordered");
	reply = converse(request, given, true, said, &fd, code);
	if (said != NULL)
		progress_guard(NULL);
	if (fd >= 0)
		close(fd);
	return reply;
}

json_t *client_ask(json_t *request, int *fd, int *code)
{
	int given;
	json_t *reply = converse(request, -1, false, NULL, &given, code);

	if (reply != NULL && !json_is_true(json_object_get(reply, "ok"))) {
		client_show_refusal(reply);
		client_show_notes(reply);
		*code = ADMIN_REFUSED;
		json_decref(reply);
		reply = NULL;
	}
	if (json_is_true(json_object_get(reply, "unrecorded")))
		fputs("it is done; that it was ordered is not in the audit yet: see gatewayctl status\n", stderr);
	if (given >= 0 && (fd == NULL || reply == NULL)) {
		close(given);
		given = -1;
	}
	if (fd != NULL)
		*fd = given;
	return reply;
}
