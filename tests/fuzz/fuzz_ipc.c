/* One datagram from a worker at the supervisor's end of a link: whatever it holds, it is handled or ends the link.  The first
 * byte chooses how many descriptors travel with it; none may be left behind. */
#include "config.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/ipc.h"
#include "common/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void on_message(struct ipc *link, struct ipc_message *m, void *arg)
{
	(void)link;
	if (m->len > ipc_body_max(m->type) || m->nfds < 0 || m->nfds > IPC_FDS_MAX)
		abort();
	for (size_t i = 0; i < m->len; i++)
		*(unsigned *)arg += m->body[i]; /* every byte is there */
	for (int i = 0; i < m->nfds; i++)
		if (fcntl(m->fds[i], F_GETFD) != FD_CLOEXEC)
			abort();
}

static void send_raw(int fd, const uint8_t *data, size_t size, int nfds)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int) * 8)];
		struct cmsghdr align;
	} control = {{0}};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	const int fds[8] = {fd, fd, fd, fd, fd, fd, fd, fd};

	if (nfds > 0) {
		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)nfds);
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)nfds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * (size_t)nfds);
	}
	(void)!sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool started;
	unsigned sum = 0;
	int fds[2], after;

	if (size == 0)
		return 0;
	if (ipc_pair(fds) != 0)
		abort(); /* out of descriptors: some were left behind */
	if (!started)
		log_init("fuzz", LOG_ERROR);
	started = true;
	/* The fuzzer itself may have come to hold more or fewer: what counts is that we give back what we took. */
	int lowest = fds[0];
	struct ipc *link = ipc_new(fds[0], ROLE_SUPERVISOR, ROLE_WORKER, 0);

	send_raw(fds[1], data + 1, size - 1, data[0] & 7);
	close(fds[1]);
	while (ipc_receive_blocking(link, on_message, &sum) == 0)
		;
	ipc_free(&link);
	after = dup(STDERR_FILENO);
	if (after != lowest)
		abort();
	close(after);
	return 0;
}
