/* Bare relays to compare a gateway with: no handshake, no policy, no record, one fixed destination, nothing of one's own but the
 * loop.  What they cost is what the kernel asks for carrying bytes between two sockets.  With the barest handshake before it (SOCKS5,
 * method none, an IPv4 address, each message in one piece), it is what a gateway of this protocol cannot do without.
 *
 *   relay copy|splice|splice-wide ADDRESS PORT TO-ADDRESS TO-PORT      (wide: pipes of 1 MiB instead of 256 KiB)
 *   relay socks ADDRESS PORT 0.0.0.0 0                     (copies to where each client asks for)
 *   relay udp ADDRESS PORT TO-ADDRESS TO-PORT COUNT        (serves the ports from PORT on, one client each) */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUFFER (64 * 1024)
#define BATCH 32
#define DATAGRAM 2048

static int epoll_fd;
static struct sockaddr_in destination;
static bool splicing, shaking;
static size_t pipe_bytes = 256 * 1024;
static uint8_t buffer[BUFFER];

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void watch(int op, int fd, uint32_t events, void *arg)
{
	struct epoll_event e = {.events = events, .data.ptr = arg};

	if (epoll_ctl(epoll_fd, op, fd, &e) != 0)
		die("epoll_ctl");
}

/* ---- TCP ------------------------------------------------------------------------------------------------------------ */

struct pair;

/* One socket of a pair: what it reads goes to the other one. */
struct end {
	struct pair *pair;
	int fd;
	int pipe[2]; /* splice: from this one to the other */
	size_t in_pipe;
	uint8_t *kept; /* copy: what the other one would not take */
	size_t off, len;
	bool eof, shut;
	uint32_t events;
};

enum stage { GREETING, REQUEST, CONNECTING, OPEN };

struct pair {
	struct end end[2]; /* client, server */
	enum stage stage;
	bool dead;
	struct pair *next_dead;
};

static struct pair *dead;

static struct end *other(struct end *e)
{
	return e == &e->pair->end[0] ? &e->pair->end[1] : &e->pair->end[0];
}

static void drop(struct pair *p)
{
	if (p->dead)
		return;
	p->dead = true;
	for (int i = 0; i < 2; i++) {
		if (p->end[i].fd >= 0)
			close(p->end[i].fd);
		free(p->end[i].kept);
		if (p->end[i].pipe[0] >= 0) {
			close(p->end[i].pipe[0]);
			close(p->end[i].pipe[1]);
		}
	}
	p->next_dead = dead;
	dead = p;
}

static void want(struct end *e, uint32_t events)
{
	if (e->events == events)
		return;
	e->events = events;
	watch(EPOLL_CTL_MOD, e->fd, events, e);
}

static bool stuck(const struct end *e)
{
	return e->len > 0 || e->in_pipe > 0;
}

/* Reads only while nothing waits for the other side; writes only while something does. */
static void update(struct pair *p)
{
	for (int i = 0; i < 2 && !p->dead; i++) {
		struct end *e = &p->end[i];

		want(e, (!stuck(e) && !e->eof ? EPOLLIN : 0u) | (stuck(other(e)) ? EPOLLOUT : 0u));
	}
}

static void finish(struct end *e)
{
	struct end *to = other(e);

	e->eof = true;
	if (stuck(e) || e->shut)
		return;
	shutdown(to->fd, SHUT_WR);
	e->shut = true;
	if (to->shut)
		drop(e->pair);
}

/* False: the pair is gone, or the other side is full. */
static bool give(struct end *e, const uint8_t *data, size_t len)
{
	ssize_t n = send(other(e)->fd, data, len, MSG_NOSIGNAL);

	if (n < 0 && errno != EAGAIN) {
		drop(e->pair);
		return false;
	}
	if (n == (ssize_t)len)
		return true;
	size_t sent = n > 0 ? (size_t)n : 0;

	if (e->kept == NULL && (e->kept = malloc(BUFFER)) == NULL)
		die("malloc");
	memmove(e->kept, data + sent, len - sent);
	e->len = len - sent;
	return false;
}

static void copy(struct end *e)
{
	ssize_t n = recv(e->fd, buffer, sizeof buffer, 0);

	if (n > 0)
		give(e, buffer, (size_t)n);
	else if (n == 0)
		finish(e);
	else if (errno != EAGAIN)
		drop(e->pair);
}

static bool drain_pipe(struct end *e)
{
	while (e->in_pipe > 0) {
		ssize_t n = splice(e->pipe[0], NULL, other(e)->fd, NULL, e->in_pipe, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);

		if (n <= 0) {
			if (n < 0 && errno != EAGAIN)
				drop(e->pair);
			return false;
		}
		e->in_pipe -= (size_t)n;
	}
	return true;
}

static void move(struct end *e)
{
	if (e->pipe[0] < 0) {
		if (pipe2(e->pipe, O_NONBLOCK | O_CLOEXEC) != 0)
			die("pipe2");
		if (fcntl(e->pipe[1], F_SETPIPE_SZ, (int)pipe_bytes) < 0)
			perror("F_SETPIPE_SZ");
	}
	ssize_t n = splice(e->fd, NULL, e->pipe[1], NULL, pipe_bytes, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);

	if (n > 0) {
		e->in_pipe += (size_t)n;
		drain_pipe(e);
	} else if (n == 0) {
		finish(e);
	} else if (errno != EAGAIN) {
		drop(e->pair);
	}
}

static void no_delay(int fd)
{
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static void connect_to(struct pair *p, const struct sockaddr_in *to)
{
	struct end *e = &p->end[1];

	p->stage = CONNECTING;
	e->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	no_delay(e->fd);
	if (connect(e->fd, (const struct sockaddr *)to, sizeof *to) != 0 && errno != EINPROGRESS) {
		drop(p);
		return;
	}
	watch(EPOLL_CTL_ADD, e->fd, EPOLLOUT, e);
}

static void watch_client(struct pair *p)
{
	p->end[0].events = EPOLLIN;
	watch(EPOLL_CTL_ADD, p->end[0].fd, EPOLLIN, &p->end[0]);
}

static void on_connected(struct pair *p)
{
	static const uint8_t granted[10] = {5, 0, 0, 1};
	struct end *client = &p->end[0], *server = &p->end[1];
	int error = 0;
	socklen_t len = sizeof error;

	if (getsockopt(server->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0 || error != 0 ||
	    (shaking && send(client->fd, granted, sizeof granted, MSG_NOSIGNAL) != sizeof granted)) {
		drop(p);
		return;
	}
	p->stage = OPEN;
	want(server, EPOLLIN);
	if (shaking)
		want(client, EPOLLIN);
	else
		watch_client(p);
}

/* What the client says before it has its destination. */
static void on_word(struct pair *p)
{
	static const uint8_t chosen[2] = {5, 0};
	struct sockaddr_in to = {.sin_family = AF_INET};
	ssize_t n;

	if (p->stage == CONNECTING) {
		want(&p->end[0], 0); /* it speaks early: not yet */
		return;
	}
	n = recv(p->end[0].fd, buffer, p->stage == GREETING ? 512 : 10, 0);
	if (n < 0 && errno == EAGAIN)
		return;
	if (p->stage == GREETING && n >= 3 && buffer[0] == 5 && send(p->end[0].fd, chosen, sizeof chosen, MSG_NOSIGNAL) == sizeof chosen) {
		p->stage = REQUEST;
	} else if (p->stage == REQUEST && n == 10 && memcmp(buffer, "\5\1\0\1", 4) == 0) {
		memcpy(&to.sin_addr, buffer + 4, 4);
		memcpy(&to.sin_port, buffer + 8, 2);
		connect_to(p, &to);
	} else {
		drop(p);
	}
}

static void on_event(struct end *e, uint32_t events)
{
	struct pair *p = e->pair;
	struct end *to = other(e);

	if (p->dead)
		return;
	if (p->stage != OPEN) {
		if (e == &p->end[0])
			on_word(p);
		else
			on_connected(p);
		return;
	}
	if ((events & EPOLLOUT) && stuck(to)) {
		if (splicing ? drain_pipe(to) : give(to, to->kept + to->off, to->len)) {
			to->len = 0;
			if (to->eof)
				finish(to);
		}
	}
	if (!p->dead && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && !stuck(e) && !e->eof)
		(splicing ? move : copy)(e);
	update(p);
}

static void on_client(int listen_fd)
{
	for (int i = 0; i < 64; i++) {
		int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		struct pair *p;

		if (fd < 0)
			return;
		p = calloc(1, sizeof *p);
		if (p == NULL)
			die("calloc");
		no_delay(fd);
		p->end[0] = (struct end){.pair = p, .fd = fd, .pipe = {-1, -1}};
		p->end[1] = (struct end){.pair = p, .fd = -1, .pipe = {-1, -1}};
		if (shaking)
			watch_client(p);
		else
			connect_to(p, &destination);
	}
}

static void serve_tcp(const struct sockaddr_in *address)
{
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(fd, (const struct sockaddr *)address, sizeof *address) != 0 || listen(fd, 4096) != 0)
		die("listen");
	watch(EPOLL_CTL_ADD, fd, EPOLLIN, NULL);
	puts("ready");
	fflush(stdout);
	for (;;) {
		struct epoll_event events[256];
		int n = epoll_wait(epoll_fd, events, 256, -1);

		for (int i = 0; i < n; i++)
			if (events[i].data.ptr == NULL)
				on_client(fd);
			else
				on_event(events[i].data.ptr, events[i].events);
		while (dead != NULL) {
			struct pair *p = dead;

			dead = p->next_dead;
			free(p);
		}
	}
}

/* ---- UDP ------------------------------------------------------------------------------------------------------------- */

struct path {
	int fd[2]; /* towards the client, and towards the destination */
	struct sockaddr_in client;
};

static struct mmsghdr messages[BATCH];
static struct iovec vectors[BATCH];
static struct sockaddr_in from[BATCH];
static uint8_t datagrams[BATCH][DATAGRAM];

static void carry(struct path *p, int which)
{
	int n;

	for (int i = 0; i < BATCH; i++) {
		vectors[i] = (struct iovec){datagrams[i], DATAGRAM};
		messages[i].msg_hdr = (struct msghdr){
			.msg_iov = &vectors[i], .msg_iovlen = 1, .msg_name = &from[i], .msg_namelen = sizeof from[i]};
	}
	n = recvmmsg(p->fd[which], messages, BATCH, MSG_DONTWAIT, NULL);
	if (n <= 0)
		return;
	if (which == 0)
		p->client = from[n - 1];
	for (int i = 0; i < n; i++) {
		vectors[i].iov_len = messages[i].msg_len;
		from[i] = which == 0 ? destination : p->client;
	}
	sendmmsg(p->fd[!which], messages, (unsigned)n, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void serve_udp(struct sockaddr_in address, int count)
{
	struct path *paths = calloc((size_t)count, sizeof *paths);
	uint16_t port = ntohs(address.sin_port);

	if (paths == NULL)
		die("calloc");
	for (int i = 0; i < count; i++) {
		for (int k = 0; k < 2; k++) {
			paths[i].fd[k] = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
			watch(EPOLL_CTL_ADD, paths[i].fd[k], EPOLLIN, (void *)((uintptr_t)&paths[i] | (uintptr_t)k));
		}
		address.sin_port = htons((uint16_t)(port + i));
		if (bind(paths[i].fd[0], (struct sockaddr *)&address, sizeof address) != 0)
			die("bind");
	}
	puts("ready");
	fflush(stdout);
	for (;;) {
		struct epoll_event events[64];
		int n = epoll_wait(epoll_fd, events, 64, -1);

		for (int i = 0; i < n; i++)
			carry((struct path *)((uintptr_t)events[i].data.ptr & ~(uintptr_t)1), (int)((uintptr_t)events[i].data.ptr & 1));
	}
}

static struct sockaddr_in address_of(const char *host, const char *port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};

	if (inet_pton(AF_INET, host, &a.sin_addr) != 1)
		die(host);
	return a;
}

int main(int argc, char **argv)
{
	if (argc < 6) {
		fputs("usage: relay copy|splice|splice-wide|socks|udp ADDRESS PORT TO-ADDRESS TO-PORT [COUNT]\n", stderr);
		return 2;
	}
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	signal(SIGPIPE, SIG_IGN); /* of splice(2), which knows no MSG_NOSIGNAL */
	destination = address_of(argv[4], argv[5]);
	splicing = strncmp(argv[1], "splice", 6) == 0;
	if (strcmp(argv[1], "splice-wide") == 0)
		pipe_bytes = 1024 * 1024;
	shaking = strcmp(argv[1], "socks") == 0;
	struct sockaddr_in address = address_of(argv[2], argv[3]);

	if (strcmp(argv[1], "udp") == 0)
		serve_udp(address, argc > 6 ? atoi(argv[6]) : 1);
	else
		serve_tcp(&address);
}
