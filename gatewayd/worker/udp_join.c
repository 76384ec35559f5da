#include "config.h"

#include "gatewayd/worker/udp_join.h"

#include <assert.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <string.h>

/* Of newer headers than those that some build with. */
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

bool join_receive(int fd)
{
	int one = 1;

	return setsockopt(fd, IPPROTO_UDP, UDP_GRO, &one, sizeof one) == 0;
}

bool join_can_send(int fd)
{
	int none = 0;

	return setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &none, sizeof none) == 0;
}

bool join_size(const struct msghdr *msg, size_t len, size_t *size)
{
	const char *end = (char *)msg->msg_control + msg->msg_controllen;
	int each;

	*size = len;
	if (msg->msg_flags & MSG_CTRUNC)
		return false;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR((struct msghdr *)(uintptr_t)msg, c)) {
		if (c->cmsg_level != IPPROTO_UDP || c->cmsg_type != UDP_GRO)
			continue;
		if (c->cmsg_len != CMSG_LEN(sizeof each) || (char *)c + CMSG_LEN(sizeof each) > end)
			return false;
		memcpy(&each, CMSG_DATA(c), sizeof each);
		if (each <= 0)
			return false;
		if ((size_t)each < len)
			*size = (size_t)each;
	}
	return true;
}

void join_mark(struct msghdr *msg, uint16_t size)
{
	struct cmsghdr *c = (struct cmsghdr *)(void *)((char *)msg->msg_control + msg->msg_controllen);

	assert(size > 0);
	memset(c, 0, JOIN_MARK_SPACE);
	msg->msg_controllen += JOIN_MARK_SPACE;
	c->cmsg_level = IPPROTO_UDP;
	c->cmsg_type = UDP_SEGMENT;
	c->cmsg_len = CMSG_LEN(sizeof size);
	memcpy(CMSG_DATA(c), &size, sizeof size);
}
