#include "config.h"

#include "gatewayd/worker/sockets.h"

#include <errno.h>
#include <event2/event.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

/* What the kernel has told. */
enum {
	CAN_READ = 1,
	CAN_WRITE = 2,
	UNSURE = 4, /* an end, an error or an urgent byte: a read may stop there, short, with more behind it */
	FAULT = 8,
};

#define EVENTS 256
/* While so many come at a time, others will have come meanwhile: asked for at once, before the rest of the loop has its turn. */
#define BUSY 8
#define ROUNDS_MAX 4

static uint32_t interest(const struct sock *k)
{
	return EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLET | (k->room_asked ? EPOLLOUT : 0u);
}

static int tell_kernel(struct sock *k, int op)
{
	struct epoll_event e = {.events = interest(k), .data.fd = k->fd};

	return epoll_ctl(k->set->epoll_fd, op, k->fd, &e);
}

/* ---- whom to call ------------------------------------------------------------------------------------------------- */

/* Due is who waits for what has been told. */
static void settle(struct sock *k)
{
	struct sockets *set = k->set;
	bool due = (k->on_read != NULL && (k->told & CAN_READ)) || (k->on_room != NULL && (k->told & CAN_WRITE));

	if (due == k->is_due)
		return;
	k->is_due = due;
	if (!due) {
		TAILQ_REMOVE(&set->due, k, due);
		return;
	}
	TAILQ_INSERT_TAIL(&set->due, k, due);
	if (!set->calling && !evtimer_pending(&set->again, NULL))
		evtimer_add(&set->again, &(struct timeval){0});
}

/* The handler may free the socket. */
static void call(struct sock *k)
{
	void *arg = k->arg;

	if (k->on_room != NULL && (k->told & CAN_WRITE)) {
		sock_handler *handler = k->on_room;

		k->on_room = NULL;
		settle(k);
		handler(arg);
	} else {
		k->on_read(arg);
	}
}

/* Each that is due once, in turn; who becomes due meanwhile is behind the mark. */
static void call_all(struct sockets *set)
{
	struct sock mark = {.fd = -1}, *k;

	TAILQ_INSERT_TAIL(&set->due, &mark, due);
	while ((k = TAILQ_FIRST(&set->due)) != &mark) {
		TAILQ_REMOVE(&set->due, k, due);
		TAILQ_INSERT_TAIL(&set->due, k, due);
		call(k);
	}
	TAILQ_REMOVE(&set->due, &mark, due);
}

/* ---- what the kernel tells ------------------------------------------------------------------------------------------ */

static void note(struct sock *k, uint32_t events)
{
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP))
		k->told |= CAN_READ;
	if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
		k->told |= CAN_WRITE;
	if (events & (EPOLLPRI | EPOLLRDHUP | EPOLLERR | EPOLLHUP))
		k->told |= UNSURE;
	if (events & (EPOLLERR | EPOLLHUP))
		k->told |= FAULT;
	settle(k);
}

static int hear(struct sockets *set)
{
	struct epoll_event events[EVENTS];
	int n = epoll_wait(set->epoll_fd, events, EVENTS, 0);

	/* All of it before anybody is called, who may close what it is about. */
	for (int i = 0; i < n; i++) {
		struct sock *k = set->by_fd[events[i].data.fd];

		if (k != NULL)
			note(k, events[i].events);
	}
	return n;
}

static void turn(struct sockets *set)
{
	int rounds = 0, n;

	set->calling = true;
	do {
		n = hear(set);
		call_all(set);
	} while (n >= BUSY && ++rounds < ROUNDS_MAX);
	set->calling = false;
	if (!TAILQ_EMPTY(&set->due) && !evtimer_pending(&set->again, NULL))
		evtimer_add(&set->again, &(struct timeval){0});
}

static void on_news(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	turn(arg);
}

int sockets_init(struct sockets *set, struct event_base *base)
{
	*set = (struct sockets){.epoll_fd = epoll_create1(EPOLL_CLOEXEC)};
	if (set->epoll_fd < 0)
		return -1;
	TAILQ_INIT(&set->due);
	event_assign(&set->news, base, set->epoll_fd, EV_READ | EV_PERSIST, on_news, set);
	evtimer_assign(&set->again, base, on_news, set);
	return event_add(&set->news, NULL);
}

/* ---- one socket ----------------------------------------------------------------------------------------------------- */

static int make_place(struct sockets *set, int fd)
{
	size_t size = set->size == 0 ? 256 : set->size;
	struct sock **bigger;

	if ((size_t)fd < set->size)
		return 0;
	while (size <= (size_t)fd)
		size *= 2;
	bigger = reallocarray(set->by_fd, size, sizeof(struct sock *));
	if (bigger == NULL)
		return -1;
	memset(bigger + set->size, 0, (size - set->size) * sizeof(struct sock *));
	set->by_fd = bigger;
	set->size = size;
	return 0;
}

int sock_add(struct sockets *set, struct sock *k, int fd, bool connecting, void *arg)
{
	*k = (struct sock){.set = set, .fd = fd, .arg = arg, .room_asked = connecting};
	if (make_place(set, fd) != 0 || tell_kernel(k, EPOLL_CTL_ADD) != 0) {
		k->set = NULL;
		return -1;
	}
	set->by_fd[fd] = k;
	return 0;
}

void sock_forget(struct sock *k)
{
	if (k->set == NULL)
		return;
	k->on_read = k->on_room = NULL;
	settle(k);
	k->set->by_fd[k->fd] = NULL;
	k->set = NULL;
}

void sock_move(struct sock *to, struct sock *from, void *arg)
{
	struct sock moved = *from;

	sock_forget(from);
	*to = (struct sock){.set = moved.set, .fd = moved.fd, .arg = arg, .told = moved.told, .room_asked = moved.room_asked};
	to->set->by_fd[to->fd] = to;
}

void sock_on_read(struct sock *k, sock_handler *handler)
{
	k->on_read = handler;
	settle(k);
}

void sock_on_room(struct sock *k, sock_handler *handler)
{
	k->told &= (uint8_t)~(CAN_WRITE | FAULT);
	k->on_room = handler;
	settle(k);
	/* Most never wait for room: the kernel is not to tell that there is some. */
	if (k->room_asked)
		return;
	k->room_asked = true;
	if (tell_kernel(k, EPOLL_CTL_MOD) != 0) {
		/* It will not tell: whoever waits tries in the next turn, and asks again. */
		k->room_asked = false;
		k->told |= CAN_WRITE;
		settle(k);
	}
}

bool sock_is_sound(const struct sock *k)
{
	return (k->told & (CAN_WRITE | FAULT)) == CAN_WRITE;
}

/* Whatever comes from now on is told. */
static void read_up(struct sock *k)
{
	k->told &= (uint8_t)~(CAN_READ | UNSURE);
	settle(k);
}

void sock_took(struct sock *k, ssize_t n, size_t size)
{
	if (n < 0 ? errno != EAGAIN : (size_t)n == size || (k->told & UNSURE))
		return;
	read_up(k);
}

void sock_look(struct sock *k)
{
	struct pollfd p = {.fd = k->fd, .events = POLLIN | POLLPRI | POLLRDHUP};

	if (poll(&p, 1, 0) == 0)
		read_up(k);
}

ssize_t sock_recv(struct sock *k, void *buffer, size_t size)
{
	ssize_t n = recv(k->fd, buffer, size, 0);

	sock_took(k, n, size);
	return n;
}
