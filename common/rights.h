/* Descriptors that come with a message from outside (unix(7), SCM_RIGHTS): as many as the sender likes. */
#pragma once

#include <sys/socket.h>

/* Room for the control messages of a recvmsg() after which rights_take_one() is called.  Padding makes it hold two. */
#define RIGHTS_SPACE CMSG_SPACE(sizeof(int))

/* The first descriptor that msg brought, the caller's from then on; -1 if none.  All others are closed. */
int rights_take_one(struct msghdr *msg);
