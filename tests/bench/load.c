/* Clients and sinks that cost a proxy's clients and servers little, to measure the proxy between them.
 *
 *   load sink BASE-PORT [PROCESSES]     echo at BASE-PORT (TCP, and UDP at 127.0.9.1; at 127.0.9.2 datagrams joined, as they come),
 *                                       source at +1, discard at +2, both at once at +3
 *   load setup|rr|bulk|idle|udp|watch OPTION=VALUE...
 *
 * Options: via=direct|socks5|http proxy=ADDRESS:PORT to=ADDRESS:PORT name=HOST user=U:P (socks5), n=connections at a time,
 * seconds=S, direction=down|up|both, sources=N (client addresses, from 127.0.0.2 on), targets=N (addresses from `to` on), size=BYTES,
 * window=N datagrams under way, joined=1 (they leave and come in one piece: UDP_SEGMENT, UDP_GRO),
 * look=PID (watch; several times): a process of which is told what it did while nothing was heard for longest.
 *
 * Once everything is open (set-up: warm) it says "ready" and waits for a line; after the measured time it says what came of it as
 * one line of JSON, and ends when its input does. */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH 32
#define DATAGRAM 2048
#define SOURCE_BYTES (1 << 20)
#define LATENCIES_MAX (4u << 20)
#define LOOKED_MAX 16
#define LOOK_NS 500000

static int epoll_fd, source_fd;
static uint8_t buffer[65536];

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void watch(int op, int fd, uint32_t events, void *arg)
{
	struct epoll_event e = {.events = events, .data.ptr = arg};

	if (epoll_ctl(epoll_fd, op, fd, &e) != 0)
		die("epoll_ctl");
}

static void make_source(void)
{
	source_fd = memfd_create("source", MFD_CLOEXEC);
	if (source_fd < 0 || ftruncate(source_fd, SOURCE_BYTES) != 0)
		die("memfd");
	for (int i = 0; i < SOURCE_BYTES / (int)sizeof buffer; i++)
		if (write(source_fd, buffer, sizeof buffer) != (ssize_t)sizeof buffer)
			die("write");
}

/* As much as it takes.  False: it is broken. */
static bool pour(int fd, uint64_t *bytes)
{
	for (int i = 0; i < 16; i++) {
		off_t at = 0;
		ssize_t n = sendfile(fd, source_fd, &at, SOURCE_BYTES);

		if (n < 0)
			return errno == EAGAIN;
		*bytes += (uint64_t)n;
	}
	return true;
}

/* Everything that is there, without looking at it.  False: the end, or broken. */
static bool swallow(int fd, uint64_t *bytes)
{
	for (int i = 0; i < 16; i++) {
		ssize_t n = recv(fd, NULL, 4 << 20, MSG_TRUNC);

		if (n <= 0)
			return n < 0 && errno == EAGAIN;
		*bytes += (uint64_t)n;
	}
	return true;
}

/* ---- sinks ---------------------------------------------------------------------------------------------------------- */

enum kind { ECHO, SOURCE, DISCARD, BOTH, KINDS, DATAGRAMS, JOINED };

struct server {
	int fd;
	enum kind kind;
	bool listening;
};

static struct mmsghdr messages[BATCH];
static struct iovec vectors[BATCH];
static struct sockaddr_in from[BATCH];
static uint8_t datagrams[BATCH][DATAGRAM];

static int receive_batch(int fd)
{
	for (int i = 0; i < BATCH; i++) {
		vectors[i] = (struct iovec){datagrams[i], DATAGRAM};
		messages[i].msg_hdr = (struct msghdr){
			.msg_iov = &vectors[i], .msg_iovlen = 1, .msg_name = &from[i], .msg_namelen = sizeof from[i]};
	}
	return recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
}

static void echo_datagrams(int fd)
{
	int n = receive_batch(fd);

	for (int i = 0; i < n; i++)
		vectors[i].iov_len = messages[i].msg_len;
	if (n > 0)
		sendmmsg(fd, messages, (unsigned)n, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* One piece of datagrams of one size, *size.  Its bytes, or -1. */
static ssize_t receive_joined(int fd, struct sockaddr_in *sender, int *size)
{
	char control[64] __attribute__((aligned(8)));
	struct iovec iov = {buffer, sizeof buffer};
	struct msghdr msg = {.msg_name = sender, .msg_namelen = sizeof *sender, .msg_iov = &iov, .msg_iovlen = 1,
			     .msg_control = control, .msg_controllen = sizeof control};
	ssize_t n = recvmsg(fd, &msg, MSG_DONTWAIT);

	*size = (int)n;
	for (struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL; c != NULL; c = CMSG_NXTHDR(&msg, c))
		if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO)
			memcpy(size, CMSG_DATA(c), sizeof *size);
	return n;
}

static ssize_t send_joined(int fd, const void *data, size_t len, int size, struct sockaddr_in *to)
{
	char control[CMSG_SPACE(sizeof(uint16_t))] __attribute__((aligned(8))) = {0};
	struct iovec iov = {(void *)(uintptr_t)data, len};
	struct msghdr msg = {.msg_name = to, .msg_namelen = to != NULL ? sizeof *to : 0, .msg_iov = &iov, .msg_iovlen = 1,
			     .msg_control = control, .msg_controllen = sizeof control};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	uint16_t each = (uint16_t)size;

	c->cmsg_level = IPPROTO_UDP;
	c->cmsg_type = UDP_SEGMENT;
	c->cmsg_len = CMSG_LEN(sizeof each);
	memcpy(CMSG_DATA(c), &each, sizeof each);
	return sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void echo_joined(int fd)
{
	struct sockaddr_in sender;
	ssize_t n;
	int size;

	for (int i = 0; i < 8 && (n = receive_joined(fd, &sender, &size)) > 0; i++)
		send_joined(fd, buffer, (size_t)n, size, &sender);
}

static void take_all(struct server *l)
{
	for (int i = 0; i < 64; i++) {
		int one = 1, fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		struct server *s;

		if (fd < 0)
			return;
		s = malloc(sizeof *s);
		if (s == NULL)
			die("malloc");
		*s = (struct server){.fd = fd, .kind = l->kind};
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		watch(EPOLL_CTL_ADD, fd, EPOLLIN | (l->kind == SOURCE || l->kind == BOTH ? EPOLLOUT : 0u), s);
	}
}

static bool serve(struct server *s, uint32_t events)
{
	uint64_t unused = 0;

	if (s->kind == ECHO) {
		ssize_t n = recv(s->fd, buffer, sizeof buffer, 0);

		return n > 0 ? send(s->fd, buffer, (size_t)n, MSG_NOSIGNAL) == n : n < 0 && errno == EAGAIN;
	}
	if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && !swallow(s->fd, &unused))
		return false;
	return !(events & EPOLLOUT) || pour(s->fd, &unused);
}

static void on_server(struct server *s, uint32_t events)
{
	if (s->kind == DATAGRAMS) {
		echo_datagrams(s->fd);
	} else if (s->kind == JOINED) {
		echo_joined(s->fd);
	} else if (s->listening) {
		take_all(s);
	} else if (!serve(s, events)) {
		close(s->fd);
		free(s);
	}
}

static void listen_on(uint16_t port, enum kind kind)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct server *s = calloc(1, sizeof *s);
	int one = 1, size = 4 << 20;

	if (s == NULL)
		die("calloc");
	s->kind = kind;
	s->listening = true;
	bool udp = kind == DATAGRAMS || kind == JOINED;

	/* An answer must come from where it was asked. */
	if (udp)
		a.sin_addr.s_addr = htonl(kind == JOINED ? 0x7f000902 : 0x7f000901);
	s->fd = socket(AF_INET, (udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	setsockopt(s->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	setsockopt(s->fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
	if (udp)
		setsockopt(s->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
	if (kind == JOINED)
		setsockopt(s->fd, IPPROTO_UDP, UDP_GRO, &one, sizeof one);
	if (bind(s->fd, (struct sockaddr *)&a, sizeof a) != 0 || (!udp && listen(s->fd, 8192) != 0))
		die("listen");
	watch(EPOLL_CTL_ADD, s->fd, EPOLLIN, s);
}

static void sink(uint16_t port, int processes)
{
	for (int i = 1; i < processes; i++) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork");
		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			break;
		}
	}
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	make_source();
	for (int kind = 0; kind < KINDS; kind++)
		listen_on((uint16_t)(port + kind), (enum kind)kind);
	listen_on(port, DATAGRAMS);
	listen_on(port, JOINED);
	puts("ready");
	fflush(stdout);
	for (;;) {
		struct epoll_event events[256];
		int n = epoll_wait(epoll_fd, events, 256, -1);

		for (int i = 0; i < n; i++)
			on_server(events[i].data.ptr, events[i].events);
	}
}

/* ---- clients -------------------------------------------------------------------------------------------------------- */

static struct options {
	char mode[16], via[16], name[128], user[64], password[64], direction[8];
	struct sockaddr_in proxy, to;
	unsigned n, sources, targets, size, window, joined;
	double seconds;
} options = {.via = "direct", .direction = "down", .n = 1, .sources = 8, .targets = 1, .size = 64, .window = 16, .seconds = 1};

enum stage { CONNECTING, SHAKING, READY, EXCHANGING, IDLE };

struct client {
	int fd;
	enum stage stage;
	unsigned step;
	size_t got;
	int64_t began;
	uint64_t sent, received;
	struct sockaddr_in target, relay; /* relay: what UDP ASSOCIATE answered */
	int udp_fd;
	unsigned flying;
	char line[512];
};

static struct client *clients;
static unsigned nready, nopened;
static bool running;
static uint64_t units, failures;
static char first_failure[128];
static uint32_t *latencies;
static size_t nlatencies;
static int64_t last_unit, silence, silence_ended;

/* What the scheduler says of a process: how long it has run, and how long it could have and was not let. */
struct looked {
	int fd;
	int64_t ran_ns, waited_ns; /* at the last look */
	int64_t gap_ran_ns, gap_waited_ns;
};

static struct looked looked[LOOKED_MAX]; /* the first is this process */
static unsigned nlooked;
static int64_t looked_at;

static void look_at(const char *pid)
{
	char path[64];

	snprintf(path, sizeof path, "/proc/%s/schedstat", pid);
	if (nlooked == LOOKED_MAX || (looked[nlooked].fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
		die(path);
	nlooked++;
}

/* longest: what was between this look and the one before is the longest silence so far. */
static void look(int64_t now, bool longest)
{
	for (unsigned i = 0; i < nlooked; i++) {
		struct looked *l = &looked[i];
		char text[96];
		long long ran, waited;
		ssize_t n = pread(l->fd, text, sizeof text - 1, 0);

		if (n <= 0)
			continue; /* it has ended */
		text[n] = '\0';
		if (sscanf(text, "%lld %lld", &ran, &waited) != 2)
			continue;
		if (longest) {
			l->gap_ran_ns = ran - l->ran_ns;
			l->gap_waited_ns = waited - l->waited_ns;
		}
		l->ran_ns = ran;
		l->waited_ns = waited;
	}
	looked_at = now;
}

static void note_silence(int64_t now)
{
	if (last_unit != 0 && now - last_unit > silence) {
		silence = now - last_unit;
		silence_ended = now;
		if (nlooked > 0)
			look(now, true);
	}
	last_unit = now;
}

static void note_latency(int64_t ns)
{
	if (nlatencies < LATENCIES_MAX)
		latencies[nlatencies++] = (uint32_t)(ns / 1000);
}

static void start(struct client *c);

static bool is(const char *mode)
{
	return strcmp(options.mode, mode) == 0;
}

static void failed(struct client *c, const char *what)
{
	if (failures++ == 0)
		snprintf(first_failure, sizeof first_failure, "%s: %s", what, strerror(errno));
	if (failures > 1000 || (!running && failures > 20 && !is("setup"))) {
		fprintf(stderr, "load: %s\n", first_failure);
		exit(1);
	}
	close(c->fd);
	start(c);
}

/* What is said at each step, and how many bytes answer it; 0: no more steps. */
static size_t say(struct client *c, size_t *answer)
{
	uint8_t *out = (uint8_t *)c->line;
	bool login = options.user[0] != '\0';
	unsigned step = c->step;

	if (strcmp(options.via, "http") == 0) {
		char host[INET_ADDRSTRLEN];

		if (step > 0)
			return 0;
		inet_ntop(AF_INET, &c->target.sin_addr, host, sizeof host);
		*answer = 0;
		return (size_t)sprintf(c->line, "CONNECT %s:%u HTTP/1.1\r\nHost: %s:%u\r\n\r\n",
				       options.name[0] ? options.name : host, (unsigned)ntohs(c->target.sin_port),
				       options.name[0] ? options.name : host, (unsigned)ntohs(c->target.sin_port));
	}
	if (strcmp(options.via, "direct") == 0)
		return 0;
	if (step == 0) {
		memcpy(out, login ? "\5\1\2" : "\5\1\0", 3);
		*answer = 2;
		return 3;
	}
	if (step == 1 && login) {
		*answer = 2;
		return (size_t)sprintf(c->line, "\1%c%s%c%s", (char)strlen(options.user), options.user,
				       (char)strlen(options.password), options.password);
	}
	if (step > 1u + login)
		return 0;
	*answer = 10;
	memcpy(out, "\5\1\0\1", 4);
	if (is("udp")) {
		memcpy(out, "\5\3\0\1\0\0\0\0\0\0", 10);
		return 10;
	}
	if (options.name[0] != '\0') {
		size_t len = strlen(options.name);

		out[3] = 3;
		out[4] = (uint8_t)len;
		memcpy(out + 5, options.name, len);
		memcpy(out + 5 + len, &c->target.sin_port, 2);
		return len + 7;
	}
	memcpy(out + 4, &c->target.sin_addr, 4);
	memcpy(out + 8, &c->target.sin_port, 2);
	return 10;
}

static void ping(struct client *c)
{
	memset(buffer, 'x', options.size);
	c->got = 0;
	if (!is("setup"))
		c->began = now_ns();
	c->stage = EXCHANGING;
	if (send(c->fd, buffer, options.size, MSG_NOSIGNAL) != (ssize_t)options.size)
		failed(c, "send");
}

static void fly(struct client *c);

/* It is connected to what it asked for. */
static void ready(struct client *c)
{
	c->stage = READY;
	if (is("setup") || (is("watch") && c - clients >= options.n / 2)) {
		ping(c);
		return;
	}
	nready++;
	if (is("udp")) {
		int size = 4 << 20;
		struct sockaddr_in local = {.sin_family = AF_INET};
		socklen_t len = sizeof local;

		getsockname(c->fd, (struct sockaddr *)&local, &len);
		local.sin_port = 0;
		c->udp_fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (options.joined)
			setsockopt(c->udp_fd, IPPROTO_UDP, UDP_GRO, &(int){1}, sizeof(int));
		setsockopt(c->udp_fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
		if (c->relay.sin_addr.s_addr == 0)
			c->relay.sin_addr = options.proxy.sin_addr;
		if (bind(c->udp_fd, (struct sockaddr *)&local, sizeof local) != 0 ||
		    connect(c->udp_fd, (struct sockaddr *)&c->relay, sizeof c->relay) != 0)
			die("udp");
		watch(EPOLL_CTL_ADD, c->udp_fd, EPOLLIN, (void *)((uintptr_t)c | 1));
		fly(c);
		return;
	}
	if (is("bulk"))
		watch(EPOLL_CTL_MOD, c->fd, 0, c);
	if (running)
		ping(c);
}

static void next_step(struct client *c)
{
	size_t answer = 0, len = say(c, &answer);

	c->got = 0;
	if (len == 0) {
		ready(c);
		return;
	}
	c->stage = SHAKING;
	if (send(c->fd, c->line, len, MSG_NOSIGNAL) != (ssize_t)len)
		failed(c, "send");
}

static void shake(struct client *c)
{
	size_t answer = 0;

	say(c, &answer);
	/* No byte beyond the answer is read: it would be the other side's. */
	size_t want = answer > 0 ? answer - c->got : sizeof c->line - 1 - c->got;
	ssize_t n = recv(c->fd, c->line + c->got, want, 0);

	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		failed(c, "handshake");
		return;
	}
	c->got += (size_t)n;
	c->line[c->got] = '\0';
	if (answer == 0 ? strstr(c->line, "\r\n\r\n") == NULL : c->got < answer)
		return;
	bool fine = answer == 0 ? strncmp(c->line, "HTTP/1.", 7) == 0 && strncmp(c->line + 8, " 200", 4) == 0
				: c->line[1] == 0 || (c->step == 0 && c->line[1] == 2);
	if (!fine) {
		errno = EPROTO;
		failed(c, "refused");
		return;
	}
	if (answer == 10) {
		c->relay.sin_family = AF_INET;
		memcpy(&c->relay.sin_addr, c->line + 4, 4);
		memcpy(&c->relay.sin_port, c->line + 8, 2);
	}
	c->step++;
	next_step(c);
}

static void start(struct client *c)
{
	static unsigned count;
	bool direct = strcmp(options.via, "direct") == 0;
	struct sockaddr_in source = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000002 + count % options.sources)};
	int one = 1;

	c->target = options.to;
	c->target.sin_addr.s_addr = htonl(ntohl(c->target.sin_addr.s_addr) + count % options.targets);
	count++;
	c->step = 0;
	c->stage = CONNECTING;
	c->began = now_ns();
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		die("socket");
	setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	if (bind(c->fd, (struct sockaddr *)&source, sizeof source) != 0)
		die("bind");
	const struct sockaddr_in *to = direct && options.proxy.sin_port == 0 ? &c->target : &options.proxy;

	if (connect(c->fd, (const struct sockaddr *)to, sizeof *to) != 0 && errno != EINPROGRESS)
		die("connect");
	watch(EPOLL_CTL_ADD, c->fd, EPOLLOUT, c);
}

static void open_next(void)
{
	if (nopened < options.n)
		start(&clients[nopened++]);
}

static void answered(struct client *c)
{
	ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
	int64_t now;

	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		failed(c, "the answer");
		return;
	}
	c->got += (size_t)n;
	if (c->got < options.size)
		return;
	now = now_ns();
	if (running) {
		units++;
		note_latency(now - c->began);
		note_silence(now);
	} else {
		units++; /* of the warm-up */
	}
	if (is("setup") || (is("watch") && c - clients >= options.n / 2)) {
		close(c->fd);
		start(c);
	} else {
		ping(c);
	}
}

static void on_connected(struct client *c)
{
	int error = 0;
	socklen_t len = sizeof error;

	getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len);
	if (error != 0) {
		errno = error;
		failed(c, "connect");
		return;
	}
	watch(EPOLL_CTL_MOD, c->fd, EPOLLIN, c);
	next_step(c);
	open_next();
}

/* ---- UDP ------------------------------------------------------------------------------------------------------------- */

static size_t datagram_of(uint8_t *out)
{
	size_t header = 0;

	if (strcmp(options.via, "socks5") == 0) {
		memcpy(out, "\0\0\0\1", 4);
		memcpy(out + 4, &options.to.sin_addr, 4);
		memcpy(out + 8, &options.to.sin_port, 2);
		header = 10;
	}
	memset(out + header, 'x', options.size);
	return header + options.size;
}

/* Up to as many as one piece holds.  How many. */
static unsigned fly_joined(struct client *c, unsigned most)
{
	static uint8_t piece[65536];
	size_t each = datagram_of(piece);
	unsigned n = 65000 / (unsigned)each;

	n = n > 64 ? 64 : n;
	n = n > most ? most : n;
	for (unsigned i = 1; i < n; i++)
		memcpy(piece + i * each, piece, each);
	return send_joined(c->udp_fd, piece, n * each, (int)each, NULL) > 0 ? n : 0;
}

static unsigned fly_one_by_one(struct client *c, unsigned most)
{
	unsigned n;

	for (n = 0; n < most && n < BATCH; n++) {
		vectors[n] = (struct iovec){datagrams[n], datagram_of(datagrams[n])};
		messages[n].msg_hdr = (struct msghdr){.msg_iov = &vectors[n], .msg_iovlen = 1};
	}
	int sent = sendmmsg(c->udp_fd, messages, n, MSG_NOSIGNAL);

	return sent > 0 ? (unsigned)sent : 0;
}

/* Fills its window. */
static void fly(struct client *c)
{
	while (c->flying < options.window) {
		unsigned n = (options.joined ? fly_joined : fly_one_by_one)(c, options.window - c->flying);

		c->flying += n;
		if (n == 0)
			break;
	}
	c->began = now_ns();
}

static unsigned receive_some(int fd)
{
	struct sockaddr_in unused;
	unsigned total = 0;
	ssize_t n;
	int size;

	if (!options.joined) {
		int some = receive_batch(fd);

		return some > 0 ? (unsigned)some : 0;
	}
	for (int i = 0; i < 8 && (n = receive_joined(fd, &unused, &size)) > 0; i++)
		total += ((unsigned)n + (unsigned)size - 1) / (unsigned)size;
	return total;
}

static void landed(struct client *c)
{
	unsigned n = receive_some(c->udp_fd);

	if (n == 0)
		return;
	units += n;
	c->flying = c->flying > n ? c->flying - n : 0;
	/* Who sends in pieces waits for one that is worth it. */
	if (!options.joined || c->flying <= options.window / 2)
		fly(c);
}

/* What was lost flies again: whatever a busy machine has not brought back by then. */
#define LOST_NS 500000000

static void look_after_lost(int64_t now)
{
	for (unsigned i = 0; i < nready; i++)
		if (clients[i].flying > 0 && now - clients[i].began > LOST_NS) {
			failures += clients[i].flying;
			clients[i].flying = 0;
			fly(&clients[i]);
		}
}

/* ---- the loop -------------------------------------------------------------------------------------------------------- */

static void bulk(struct client *c, uint32_t events)
{
	if ((events & EPOLLIN) && !swallow(c->fd, &c->received))
		die("a stream ended");
	if ((events & EPOLLOUT) && !pour(c->fd, &c->sent))
		die("a stream broke");
}

static void on_client(struct client *c, uint32_t events)
{
	switch (c->stage) {
	case CONNECTING:
		on_connected(c);
		return;
	case SHAKING:
		shake(c);
		return;
	case EXCHANGING:
		answered(c);
		return;
	case READY:
		if (is("bulk"))
			bulk(c, events);
		else if (is("idle") || is("udp") || is("rr") || is("watch"))
			failed(c, "ended while idle");
		return;
	case IDLE:
		return;
	}
}

static void go(void)
{
	units = failures = 0;
	nlatencies = 0;
	running = true;
	last_unit = now_ns();
	look(last_unit, false);
	if (is("rr") || is("watch"))
		for (unsigned i = 0; i < (is("watch") ? options.n / 2 : options.n); i++)
			ping(&clients[i]);
	if (is("bulk")) {
		bool down = strcmp(options.direction, "up") != 0, also_up = strcmp(options.direction, "down") != 0;

		for (unsigned i = 0; i < options.n; i++)
			watch(EPOLL_CTL_MOD, clients[i].fd, (down ? EPOLLIN : 0u) | (also_up ? EPOLLOUT : 0u), &clients[i]);
	}
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static uint32_t quantile(double q)
{
	return nlatencies == 0 ? 0 : latencies[(size_t)((double)(nlatencies - 1) * q)];
}

static void report(double seconds)
{
	uint64_t bytes = 0;

	/* Upwards only what the other side has taken counts; the difference is what buffers hold. */
	for (unsigned i = 0; i < options.n; i++)
		bytes += clients[i].sent + clients[i].received;
	qsort(latencies, nlatencies, sizeof *latencies, by_value);
	printf("{\"units\": %llu, \"bytes\": %llu, \"seconds\": %.6f, \"failures\": %llu, \"first_failure\": \"%s\", \"p50_us\": %u, "
	       "\"p99_us\": %u, \"max_us\": %u, \"silence_us\": %lld, \"silence_ended_us\": %lld, \"gap\": [",
	       (unsigned long long)units, (unsigned long long)bytes, seconds, (unsigned long long)failures, first_failure,
	       quantile(0.5), quantile(0.99), quantile(1), (long long)(silence / 1000), (long long)(silence_ended / 1000));
	for (unsigned i = 0; i < nlooked; i++)
		printf("%s{\"ran_us\": %lld, \"waited_us\": %lld}", i == 0 ? "" : ", ", (long long)(looked[i].gap_ran_ns / 1000),
		       (long long)(looked[i].gap_waited_ns / 1000));
	puts("]}");
	fflush(stdout);
}

static bool is_warm(void)
{
	if (is("setup"))
		return units >= 200 || units >= 4ul * options.n;
	if (is("watch"))
		return nready == options.n / 2;
	return nready == options.n && (!is("udp") || units > 200);
}

/* Waits for a line; false: the input has ended. */
static bool line(void)
{
	char text[64];

	return fgets(text, sizeof text, stdin) != NULL;
}

static void run(void)
{
	int64_t began = 0, end = 0;
	bool said = false;

	for (unsigned i = 0; i < 64; i++)
		open_next();
	for (;;) {
		struct epoll_event events[256];
		int n = epoll_wait(epoll_fd, events, 256, 10);

		for (int i = 0; i < n; i++) {
			uintptr_t arg = (uintptr_t)events[i].data.ptr;

			if (arg == 0) { /* the line that starts, or (watch) ends, it */
				if (!line())
					return;
				if (running) {
					report((double)(now_ns() - began) / 1e9);
					return;
				}
				began = now_ns();
				end = is("watch") || is("idle") ? INT64_MAX : began + (int64_t)(options.seconds * 1e9);
				go();
			} else if (arg & 1) {
				landed((struct client *)(arg & ~(uintptr_t)1));
			} else {
				on_client((struct client *)arg, events[i].events);
			}
		}
		int64_t now = now_ns();

		if (is("udp"))
			look_after_lost(now);
		if (running && nlooked > 0 && now - looked_at > LOOK_NS)
			look(now, false);
		if (!said && is_warm()) {
			said = true;
			puts("ready");
			fflush(stdout);
			watch(EPOLL_CTL_ADD, STDIN_FILENO, EPOLLIN, NULL);
		}
		if (running && now >= end) {
			report((double)(now - began) / 1e9);
			return;
		}
	}
}

static struct sockaddr_in address_of(const char *text)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	char host[64];
	unsigned port;

	if (sscanf(text, "%63[^:]:%u", host, &port) != 2 || inet_pton(AF_INET, host, &a.sin_addr) != 1)
		die(text);
	a.sin_port = htons((uint16_t)port);
	return a;
}

static void take_option(const char *text)
{
	const char *value = strchr(text, '=');
	struct options *o = &options;

	if (value++ == NULL)
		die(text);
	size_t len = (size_t)(value - text);

	if (strncmp(text, "via=", len) == 0)
		snprintf(o->via, sizeof o->via, "%s", value);
	else if (strncmp(text, "name=", len) == 0)
		snprintf(o->name, sizeof o->name, "%s", value);
	else if (strncmp(text, "direction=", len) == 0)
		snprintf(o->direction, sizeof o->direction, "%s", value);
	else if (strncmp(text, "user=", len) == 0)
		sscanf(value, "%63[^:]:%63s", o->user, o->password);
	else if (strncmp(text, "proxy=", len) == 0)
		o->proxy = address_of(value);
	else if (strncmp(text, "to=", len) == 0)
		o->to = address_of(value);
	else if (strncmp(text, "n=", len) == 0)
		o->n = (unsigned)atoi(value);
	else if (strncmp(text, "sources=", len) == 0)
		o->sources = (unsigned)atoi(value);
	else if (strncmp(text, "targets=", len) == 0)
		o->targets = (unsigned)atoi(value);
	else if (strncmp(text, "look=", len) == 0)
		look_at(value);
	else if (strncmp(text, "size=", len) == 0)
		o->size = (unsigned)atoi(value);
	else if (strncmp(text, "window=", len) == 0)
		o->window = (unsigned)atoi(value);
	else if (strncmp(text, "joined=", len) == 0)
		o->joined = (unsigned)atoi(value);
	else if (strncmp(text, "seconds=", len) == 0)
		o->seconds = atof(value);
	else
		die(text);
}

/* The bare UDP relay has a port for each client, and no handshake. */
static void open_bare_udp(void)
{
	for (unsigned i = 0; i < options.n; i++) {
		clients[i].fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		struct sockaddr_in local = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000002 + i % options.sources)};

		if (bind(clients[i].fd, (struct sockaddr *)&local, sizeof local) != 0)
			die("bind");
		clients[i].relay = options.proxy.sin_port != 0 ? options.proxy : options.to;
		if (options.proxy.sin_port != 0)
			clients[i].relay.sin_port = htons((uint16_t)(ntohs(options.proxy.sin_port) + i));
		ready(&clients[i]);
	}
	nopened = options.n;
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	if (argc >= 3 && strcmp(argv[1], "sink") == 0)
		sink((uint16_t)atoi(argv[2]), argc > 3 ? atoi(argv[3]) : 1);
	if (argc < 3) {
		fputs("usage: load sink PORT [PROCESSES]\n       load setup|rr|bulk|idle|udp|watch OPTION=VALUE...\n", stderr);
		return 2;
	}
	snprintf(options.mode, sizeof options.mode, "%s", argv[1]);
	if (is("watch"))
		look_at("self");
	for (int i = 2; i < argc; i++)
		take_option(argv[i]);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	clients = calloc(options.n, sizeof *clients);
	latencies = malloc(LATENCIES_MAX * sizeof *latencies);
	if (clients == NULL || latencies == NULL)
		die("malloc");
	make_source();
	if (is("udp") && strcmp(options.via, "direct") == 0)
		open_bare_udp();
	run();
	return 0;
}
