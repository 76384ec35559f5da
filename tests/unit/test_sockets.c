/* The sockets of sessions: whoever waits is called for as long as there is something to read, though the kernel tells but once. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "gatewayd/worker/sockets.h"

static struct event_base *base;
static struct sockets set;

/* Both ends of a TCP connection; ours does not block and has urgent bytes in line, as those of sessions. */
struct pair {
	struct sock sock;
	int fd, peer;
	size_t reads, bytes, room_calls;
	size_t piece; /* read at a time */
	ssize_t last;
	struct pair *closes; /* when it is called */
};

static void connect_pair(int *ours, int *theirs)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof a;
	int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&a, &len), 0);
	*theirs = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(*theirs, (struct sockaddr *)&a, sizeof a), 0);
	*ours = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
	assert_true(*ours >= 0);
	assert_int_equal(setsockopt(*ours, SOL_SOCKET, SO_OOBINLINE, &one, sizeof one), 0);
	close(listener);
}

static void open_pair(struct pair *p, size_t piece)
{
	*p = (struct pair){.piece = piece};
	connect_pair(&p->fd, &p->peer);
	assert_int_equal(sock_add(&set, &p->sock, p->fd, false, p), 0);
}

static void close_ours(struct pair *p)
{
	sock_forget(&p->sock);
	if (p->fd >= 0)
		close(p->fd);
	p->fd = -1;
}

static void close_pair(struct pair *p)
{
	close_ours(p);
	close(p->peer);
}

static void on_read(void *arg)
{
	static char buffer[1 << 16];
	struct pair *p = arg;

	p->reads++;
	p->last = sock_recv(&p->sock, buffer, p->piece);
	if (p->last > 0)
		p->bytes += (size_t)p->last;
	if (p->last == 0 || (p->last < 0 && errno != EAGAIN))
		sock_on_read(&p->sock, NULL);
	if (p->closes != NULL)
		close_ours(p->closes);
}

static void on_room(void *arg)
{
	((struct pair *)arg)->room_calls++;
}

static void say(struct pair *p, size_t len, int flags)
{
	char *bytes = calloc(1, len);

	assert_non_null(bytes);
	assert_int_equal(send(p->peer, bytes, len, flags), (ssize_t)len);
	free(bytes);
}

/* Until the kernel has all of it for us: what is sent over loopback is there at once, but for that nothing vouches. */
static void await_bytes(const struct pair *p, size_t n)
{
	static char buffer[1 << 16];
	struct pollfd f = {.fd = p->fd, .events = POLLIN};

	while (recv(p->fd, buffer, n, MSG_PEEK | MSG_DONTWAIT) < (ssize_t)n)
		assert_true(poll(&f, 1, 10000) == 1);
}

static void await_end(const struct pair *p)
{
	struct pollfd f = {.fd = p->fd, .events = POLLRDHUP};

	assert_int_equal(poll(&f, 1, 10000), 1);
}

static void turns(int n)
{
	for (int i = 0; i < n; i++)
		event_base_loop(base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
}

/* The kernel's word may come a moment after what it is about can be seen. */
#define TURNS_UNTIL(condition)                                   \
	for (int i_ = 0; i_ < 2000 && !(condition); i_++) {      \
		turns(1);                                        \
		if (!(condition))                                \
			poll(NULL, 0, 5);                        \
	}

static int set_up(void **state)
{
	(void)state;
	base = event_base_new();
	return base == NULL ? -1 : sockets_init(&set, base);
}

static int tear_down(void **state)
{
	(void)state;
	event_del(&set.news);
	event_del(&set.again);
	close(set.epoll_fd);
	free(set.by_fd);
	event_base_free(base);
	return 0;
}

static void test_who_reads_little_is_called_again(void **state)
{
	struct pair p;

	(void)state;
	open_pair(&p, 10);
	sock_on_read(&p.sock, on_read);
	say(&p, 95, 0);
	await_bytes(&p, 95);
	TURNS_UNTIL(p.bytes == 95);
	turns(5);
	assert_int_equal(p.bytes, 95);
	assert_int_equal(p.reads, 10); /* the last was short: nothing more was asked for */
	say(&p, 10, 0);
	await_bytes(&p, 10);
	TURNS_UNTIL(p.reads == 12);
	turns(5);
	assert_int_equal(p.bytes, 105);
	assert_int_equal(p.reads, 12); /* as much as asked for: there might have been more */
	assert_int_equal(p.last, -1);
	close_pair(&p);
}

static void test_what_came_before_somebody_waits(void **state)
{
	struct pair p;

	(void)state;
	open_pair(&p, 100);
	say(&p, 5, 0);
	await_bytes(&p, 5);
	turns(3);
	assert_int_equal(p.reads, 0);
	sock_on_read(&p.sock, on_read);
	TURNS_UNTIL(p.bytes == 5);
	turns(3);
	assert_int_equal(p.bytes, 5);
	assert_int_equal(p.reads, 1);
	close_pair(&p);
}

static void test_looks_away_and_back(void **state)
{
	struct pair p;

	(void)state;
	open_pair(&p, 10);
	sock_on_read(&p.sock, on_read);
	say(&p, 100, 0);
	await_bytes(&p, 100);
	TURNS_UNTIL(p.reads > 0);
	sock_on_read(&p.sock, NULL);
	size_t before = p.bytes;

	assert_true(before > 0 && before < 100);
	turns(10);
	assert_int_equal(p.bytes, before);
	sock_on_read(&p.sock, on_read);
	TURNS_UNTIL(p.bytes == 100);
	assert_int_equal(p.bytes, 100);
	close_pair(&p);
}

/* One event, one short read: the end behind the bytes is not told again. */
static void test_an_end_behind_bytes(void **state)
{
	struct pair p;

	(void)state;
	open_pair(&p, 1000);
	say(&p, 5, 0);
	shutdown(p.peer, SHUT_WR);
	await_end(&p);
	sock_on_read(&p.sock, on_read);
	TURNS_UNTIL(p.reads == 2);
	turns(3);
	assert_int_equal(p.bytes, 5);
	assert_int_equal(p.last, 0);
	assert_int_equal(p.reads, 2);
	close_pair(&p);
}

static void test_an_end_after_a_short_read(void **state)
{
	struct pair p;

	(void)state;
	open_pair(&p, 1000);
	sock_on_read(&p.sock, on_read);
	say(&p, 5, 0);
	await_bytes(&p, 5);
	TURNS_UNTIL(p.reads == 1);
	turns(3);
	assert_int_equal(p.reads, 1);
	shutdown(p.peer, SHUT_WR);
	TURNS_UNTIL(p.reads == 2);
	assert_int_equal(p.last, 0);
	close_pair(&p);
}

static void test_a_reset(void **state)
{
	struct linger now = {.l_onoff = 1};
	struct pair p;

	(void)state;
	open_pair(&p, 1000);
	sock_on_read(&p.sock, on_read);
	turns(1);
	setsockopt(p.peer, SOL_SOCKET, SO_LINGER, &now, sizeof now);
	close(p.peer);
	p.peer = -1;
	TURNS_UNTIL(p.reads == 1);
	turns(3);
	assert_int_equal(p.reads, 1);
	assert_int_equal(p.last, -1);
	close_ours(&p);
}

/* Asked about in between, a reset is still there for whoever reads. */
static void test_a_look(void **state)
{
	struct linger now = {.l_onoff = 1};
	char byte;
	struct pair p;

	(void)state;
	open_pair(&p, 10);
	say(&p, 25, 0);
	await_bytes(&p, 25);
	turns(1);
	sock_look(&p.sock);
	sock_on_read(&p.sock, on_read);
	TURNS_UNTIL(p.reads == 1);
	assert_int_equal(p.bytes, 10); /* there is more, and it was said so */
	assert_int_equal(recv(p.fd, &byte, 1, 0), 1);
	sock_look(&p.sock);
	TURNS_UNTIL(p.bytes == 24);
	turns(3);
	assert_int_equal(p.bytes, 24);
	sock_look(&p.sock);
	setsockopt(p.peer, SOL_SOCKET, SO_LINGER, &now, sizeof now);
	close(p.peer);
	p.peer = -1;
	await_end(&p);
	sock_look(&p.sock);
	TURNS_UNTIL(p.last == -1 && p.bytes == 24 && p.reads == 4);
	sock_look(&p.sock);
	assert_int_equal(p.last, -1);
	assert_int_equal(recv(p.fd, &byte, 1, 0), 0); /* told once */
	close_ours(&p);
}

/* recv(2) stops before an urgent byte, with less than it was asked for. */
static void test_bytes_behind_an_urgent_one(void **state)
{
	struct pair p;

	(void)state;
	open_pair(&p, 1000);
	say(&p, 5, 0);
	say(&p, 6, MSG_OOB); /* the last of them is urgent */
	say(&p, 7, 0);
	await_bytes(&p, 10);
	struct pollfd f = {.fd = p.fd, .events = POLLPRI};

	assert_int_equal(poll(&f, 1, 10000), 1);
	sock_on_read(&p.sock, on_read);
	/* What follows the urgent byte may yet be on its way. */
	for (int i = 0; i < 1000 && p.bytes < 18; i++) {
		f.events = POLLIN;
		poll(&f, 1, 10);
		turns(3);
	}
	assert_int_equal(p.bytes, 18);
	close_pair(&p);
}

static void test_room(void **state)
{
	static char bytes[1 << 16];
	struct pair p;

	(void)state;
	open_pair(&p, 1000);
	while (send(p.fd, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
		;
	assert_int_equal(errno, EAGAIN);
	sock_on_room(&p.sock, on_room);
	turns(5);
	assert_int_equal(p.room_calls, 0);
	struct pollfd f = {.fd = p.fd, .events = POLLOUT};

	while (poll(&f, 1, 0) == 0)
		assert_true(recv(p.peer, bytes, sizeof bytes, 0) > 0);
	TURNS_UNTIL(p.room_calls == 1);
	turns(3);
	assert_int_equal(p.room_calls, 1); /* and not again without being asked */
	close_pair(&p);
}

/* The kernel has not taken the wish: whoever waits is called all the same, rather than never. */
static void test_room_that_the_kernel_does_not_tell(void **state)
{
	struct pair p;

	(void)state;
	open_pair(&p, 1000);
	assert_int_equal(epoll_ctl(set.epoll_fd, EPOLL_CTL_DEL, p.fd, NULL), 0);
	for (size_t calls = 1; calls < 4; calls++) {
		sock_on_room(&p.sock, on_room);
		TURNS_UNTIL(p.room_calls == calls);
		assert_int_equal(p.room_calls, calls);
	}
	close_pair(&p);
}

static void test_a_connection(void **state)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof a;
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	struct pollfd f = {.events = POLLOUT};
	struct pair p = {.peer = -1}, q = {.peer = -1, .piece = 10};

	(void)state;
	assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&a, &len), 0);
	f.fd = p.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	assert_true(connect(p.fd, (struct sockaddr *)&a, sizeof a) == 0 || errno == EINPROGRESS);
	assert_int_equal(sock_add(&set, &p.sock, p.fd, true, &p), 0);
	sock_on_room(&p.sock, on_room);
	assert_false(sock_is_sound(&p.sock));
	assert_int_equal(poll(&f, 1, 10000), 1);
	TURNS_UNTIL(p.room_calls == 1);
	assert_int_equal(p.room_calls, 1);
	assert_true(sock_is_sound(&p.sock));

	/* What it tells goes to whoever takes it over. */
	q.peer = accept(listener, NULL, NULL);
	q.fd = p.fd;
	p.fd = -1;
	sock_move(&q.sock, &p.sock, &q);
	sock_on_read(&q.sock, on_read);
	say(&q, 3, 0);
	await_bytes(&q, 3);
	TURNS_UNTIL(q.bytes == 3);
	assert_int_equal(q.bytes, 3);
	close_pair(&q);

	/* Nobody listens. */
	close(listener);
	f.fd = p.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (connect(p.fd, (struct sockaddr *)&a, sizeof a) != 0 && errno == EINPROGRESS) {
		assert_int_equal(sock_add(&set, &p.sock, p.fd, true, &p), 0);
		sock_on_room(&p.sock, on_room);
		assert_int_equal(poll(&f, 1, 10000), 1);
		TURNS_UNTIL(p.room_calls == 2);
		assert_int_equal(p.room_calls, 2);
		assert_false(sock_is_sound(&p.sock));
	}
	close_ours(&p);
}

/* Two are due in the same turn, and each would close the other. */
static void test_one_closes_another(void **state)
{
	struct pair p, q;

	(void)state;
	open_pair(&p, 10);
	open_pair(&q, 10);
	p.closes = &q;
	q.closes = &p;
	sock_on_read(&p.sock, on_read);
	sock_on_read(&q.sock, on_read);
	say(&p, 1, 0);
	say(&q, 1, 0);
	await_bytes(&p, 1);
	await_bytes(&q, 1);
	TURNS_UNTIL(p.reads + q.reads > 0);
	turns(3);
	assert_int_equal(p.reads + q.reads, 1);
	close_pair(&p);
	close_pair(&q);
}

/* Somebody who always has more does not keep others from their turn, nor the loop from its other events. */
static void test_turns_are_shared(void **state)
{
	struct pair greedy, modest;

	(void)state;
	open_pair(&greedy, 1);
	open_pair(&modest, 10);
	sock_on_read(&greedy.sock, on_read);
	sock_on_read(&modest.sock, on_read);
	say(&greedy, 2000, 0);
	say(&modest, 10, 0);
	await_bytes(&greedy, 2000);
	await_bytes(&modest, 10);
	TURNS_UNTIL(greedy.bytes > 0 && modest.bytes == 10);
	assert_int_equal(modest.bytes, 10);
	assert_true(greedy.bytes < 2000);
	close_pair(&greedy);
	close_pair(&modest);
}

static void test_high_descriptors(void **state)
{
	struct pair p;

	(void)state;
	open_pair(&p, 10);
	sock_forget(&p.sock);
	int high = fcntl(p.fd, F_DUPFD, 900);

	assert_true(high >= 900);
	close(p.fd);
	p.fd = high;
	assert_int_equal(sock_add(&set, &p.sock, p.fd, false, &p), 0);
	sock_on_read(&p.sock, on_read);
	say(&p, 3, 0);
	await_bytes(&p, 3);
	TURNS_UNTIL(p.bytes == 3);
	assert_int_equal(p.bytes, 3);
	close_pair(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_who_reads_little_is_called_again, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_what_came_before_somebody_waits, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_looks_away_and_back, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_an_end_behind_bytes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_an_end_after_a_short_read, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_reset, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_bytes_behind_an_urgent_one, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_look, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_room, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_room_that_the_kernel_does_not_tell, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_connection, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_one_closes_another, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_turns_are_shared, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_high_descriptors, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
