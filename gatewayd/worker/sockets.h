/* The sockets of sessions: an epoll(7) set of their own beside the loop's.
 *
 * A socket is registered once, and stays until it is closed.  The kernel tells of changes (EPOLLET); what it has told is kept here,
 * and whoever waits is called once a turn for as long as it holds.  So waiting and looking away are no system calls, and nothing of
 * what one may do with libevent's events is lost: there is no edge to miss.  In return, whoever reads says what came of it
 * (sock_recv() does), since what has been read is not there any more; who forgets is called again, and finds nothing. */
#pragma once

#include <event2/event_struct.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

struct sock;

TAILQ_HEAD(sock_list, sock);

typedef void sock_handler(void *arg);

/* Embedded in what owns the descriptor; zeroed, it is no socket. */
struct sock {
	TAILQ_ENTRY(sock) due;
	struct sockets *set; /* NULL: not in one */
	sock_handler *on_read, *on_room; /* NULL: nobody waits */
	void *arg;
	int fd;
	uint8_t told; /* by the kernel, and not used up */
	bool is_due;
	bool room_asked;
};

struct sockets {
	int epoll_fd;
	struct event news, again;
	struct sock **by_fd;
	size_t size;
	struct sock_list due; /* whom to call: somebody waits for what the kernel has told */
	bool calling;
};

/* -1: errno says why. */
int sockets_init(struct sockets *set, struct event_base *base);

/* Watches fd, for which nobody waits yet.  connecting: room will be waited for at first, and means that it is connected.  -1: the
 * kernel or memory is short. */
int sock_add(struct sockets *set, struct sock *k, int fd, bool connecting, void *arg);
/* Before its descriptor is closed, which takes it out of the kernel's set; none that is in no set is fine, too. */
void sock_forget(struct sock *k);
/* `to` takes over what `from` watches. */
void sock_move(struct sock *to, struct sock *from, void *arg);

/* Calls handler, turn after turn, while there are bytes, an end or an error to be read; NULL: no more. */
void sock_on_read(struct sock *k, sock_handler *handler);
/* Calls handler once there is room again (or an error): to be asked for where a send has found none. */
void sock_on_room(struct sock *k, sock_handler *handler);
/* Room was told of without an error: what was connecting is connected. */
bool sock_is_sound(const struct sock *k);

/* recv(2). */
ssize_t sock_recv(struct sock *k, void *buffer, size_t size);
/* What a read of at most `size` bytes has brought, where it was another call: its result, with errno where that is negative. */
void sock_took(struct sock *k, ssize_t n, size_t size);
/* The same where what came of it says nothing: the kernel is asked.  An error stays there for whoever reads. */
void sock_look(struct sock *k);
