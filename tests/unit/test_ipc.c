#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "common/ipc.h"
#include "common/log.h"

#define DEADLINE_S 20
#define GOT_MAX 100000

/* What a link has been given, and how it ended. */
struct end {
	struct ipc *link;
	unsigned count, gone;
	uint32_t values[GOT_MAX]; /* first four bytes of each body */
	enum ipc_type types[16];
	size_t lens[16];
	int fds[16];
	size_t nfds;
	bool keep_fds, free_in_handler, free_in_gone, pause_in_handler, answer, reject_in_handler;
};

static struct event_base *base;
static struct end a, b; /* a: the supervisor; b: a worker */
static bool timed_out;
static int fds_before;

/* Stands in for the C library's: with `shortage` set, the kernel has no room for any message. */
static volatile int shortage;
static unsigned sendings;

ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	sendings++;
	if (shortage == 0)
		return syscall(SYS_sendmsg, fd, msg, flags);
	errno = shortage;
	return -1;
}

static int open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	assert_non_null(dir);
	while (readdir(dir) != NULL)
		n++;
	closedir(dir);
	return n;
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
	timed_out = true;
}

#define UNTIL(condition)                                                                        \
	do {                                                                                    \
		struct event *timer = event_new(base, -1, 0, on_deadline, NULL);                \
		struct timeval tv = {.tv_sec = DEADLINE_S};                                     \
		timed_out = false;                                                              \
		event_add(timer, &tv);                                                          \
		while (!(condition) && !timed_out)                                              \
			event_base_loop(base, EVLOOP_ONCE);                                     \
		event_free(timer);                                                              \
		if (timed_out)                                                                  \
			fail_msg("waited in vain for " #condition);                             \
	} while (0)

/* Turns the loop until nothing is left to do. */
static void settle(void)
{
	for (int i = 0; i < 20; i++)
		event_base_loop(base, EVLOOP_NONBLOCK);
}

static void on_message(struct ipc *link, struct ipc_message *m, void *arg)
{
	struct end *e = arg;

	assert_ptr_equal(link, e->link);
	if (e->count < 16) {
		e->types[e->count] = m->type;
		e->lens[e->count] = m->len;
	}
	if (e->count < GOT_MAX && m->len >= 4)
		memcpy(&e->values[e->count], m->body, 4);
	e->count++;
	if (e->keep_fds)
		for (int i = 0; i < m->nfds; i++) {
			assert_true(fcntl(m->fds[i], F_GETFD) & FD_CLOEXEC);
			e->fds[e->nfds++] = m->fds[i];
			m->fds[i] = -1;
		}
	if (e->pause_in_handler)
		ipc_pause(link, true);
	if (e->answer)
		ipc_send(link, IPC_READY, NULL, 0, NULL, 0);
	if (e->reject_in_handler) {
		ipc_reject(link, "its body is malformed");
		ipc_reject(link, "and again");
		assert_true(ipc_broke_rules(link));
		assert_int_equal(e->gone, 0); /* the handler may go on with what is the link's */
	}
	if (e->free_in_handler)
		ipc_free(&e->link);
}

/* Who was reported to have broken a rule. */
static unsigned reports;
static enum role reported_role;
static uint16_t reported_slot;

static void on_violation(enum role role, uint16_t slot, void *arg)
{
	assert_ptr_equal(arg, &reports);
	reports++;
	reported_role = role;
	reported_slot = slot;
}

static void on_gone(struct ipc *link, void *arg)
{
	struct end *e = arg;

	assert_ptr_equal(link, e->link);
	e->gone++;
	if (e->free_in_gone)
		ipc_free(&e->link);
}

static void clear(struct end *e)
{
	memset(e, 0, sizeof *e);
}

static int setup(void **state)
{
	int fds[2];

	(void)state;
	clear(&a);
	clear(&b);
	shortage = 0;
	reports = 0;
	ipc_on_violation(on_violation, &reports);
	base = event_base_new();
	fds_before = open_fds();
	if (base == NULL || ipc_pair(fds) != 0)
		return -1;
	a.link = ipc_new(fds[0], ROLE_SUPERVISOR, ROLE_WORKER, 7);
	b.link = ipc_new(fds[1], ROLE_WORKER, ROLE_SUPERVISOR, 0);
	ipc_attach(a.link, base, on_message, on_gone, &a);
	ipc_attach(b.link, base, on_message, on_gone, &b);
	return 0;
}

/* Every test ends with the descriptors it began with. */
static int teardown(void **state)
{
	(void)state;
	ipc_free(&a.link);
	ipc_free(&b.link);
	for (struct end *e = &a; e != NULL; e = e == &a ? &b : NULL)
		for (size_t i = 0; i < e->nfds; i++)
			close(e->fds[i]);
	int after = open_fds();

	event_base_free(base);
	if (after != fds_before) {
		print_error("%d descriptors before, %d after\n", fds_before, after);
		return -1;
	}
	return 0;
}

static int send_value(struct ipc *link, uint32_t value)
{
	return ipc_send(link, IPC_LISTENER_DROP, &value, sizeof value, NULL, 0);
}

/* ---- messages ------------------------------------------------------------------------------------------------- */

static void the_table_is_told(void **state)
{
	(void)state;
	assert_string_equal(ipc_type_name(IPC_RECORD), "RECORD");
	assert_string_equal(ipc_type_name((enum ipc_type)999), "?");
	assert_int_equal(ipc_body_max(IPC_STOP), 0);
	assert_int_equal(ipc_body_max(IPC_RECORD), 32768);
	assert_int_equal(ipc_peer(a.link), ROLE_WORKER);
	assert_int_equal(ipc_peer_slot(a.link), 7);
	for (unsigned i = 0; i < IPC_TYPE_COUNT; i++)
		assert_true(ipc_body_max((enum ipc_type)i) + 8 <= IPC_DATAGRAM_MAX);
}

static void messages_arrive_in_order(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < 20000; i++)
		assert_int_equal(send_value(a.link, i), 0);
	assert_true(ipc_queued(a.link) > 20000 * 4);
	UNTIL(b.count == 20000);
	for (uint32_t i = 0; i < 20000; i++)
		assert_int_equal(b.values[i], i);
	assert_int_equal(ipc_queued(a.link), 0);
	assert_int_equal(b.types[0], IPC_LISTENER_DROP);
	assert_int_equal(b.lens[0], 4);
}

/* What is sent in one turn of the loop travels in one datagram: that is what makes it cheap. */
static void messages_are_batched(void **state)
{
	int fds[2];
	uint8_t raw[IPC_DATAGRAM_MAX];

	(void)state;
	assert_int_equal(ipc_pair(fds), 0);
	struct ipc *link = ipc_new(fds[0], ROLE_SUPERVISOR, ROLE_WORKER, 0);

	for (uint32_t i = 0; i < 100; i++)
		assert_int_equal(send_value(link, i), 0);
	assert_int_equal(ipc_flush_blocking(link), 0);
	assert_int_equal(recv(fds[1], raw, sizeof raw, MSG_DONTWAIT), 100 * (8 + 4));
	assert_int_equal(recv(fds[1], raw, sizeof raw, MSG_DONTWAIT), -1);
	ipc_free(&link);
	close(fds[1]);
}

static void both_ways_and_empty_bodies(void **state)
{
	(void)state;
	b.answer = true;
	assert_int_equal(ipc_send(a.link, IPC_STOP, NULL, 0, NULL, 0), 0);
	UNTIL(a.count == 1);
	assert_int_equal(a.types[0], IPC_READY);
	assert_int_equal(a.lens[0], 0);
	assert_int_equal(b.types[0], IPC_STOP);
}

static void what_waits_before_attach_is_sent(void **state)
{
	int fds[2];

	(void)state;
	assert_int_equal(ipc_pair(fds), 0);
	struct ipc *early = ipc_new(fds[0], ROLE_SUPERVISOR, ROLE_WORKER, 0);
	static struct end late;

	clear(&late);
	assert_int_equal(send_value(early, 5), 0);
	ipc_attach(early, base, on_message, on_gone, &a);
	late.link = ipc_new(fds[1], ROLE_WORKER, ROLE_SUPERVISOR, 0);
	ipc_attach(late.link, base, on_message, on_gone, &late);
	UNTIL(late.count == 1);
	assert_int_equal(late.values[0], 5);
	ipc_free(&late.link);
	ipc_free(&early);
}

static void a_writer_that_overflowed_is_not_sent(void **state)
{
	uint8_t body[4];
	struct wire_writer w = wire_writer_on(body, sizeof body);

	(void)state;
	wire_put_u32(&w, 9);
	assert_int_equal(ipc_send_wire(a.link, IPC_LISTENER_DROP, &w), 0);
	wire_put_u8(&w, 1);
	assert_int_equal(ipc_send_wire(a.link, IPC_LISTENER_DROP, &w), -1);
	UNTIL(b.count == 1);
	settle();
	assert_int_equal(b.count, 1);
}

/* ---- descriptors ------------------------------------------------------------------------------------------------ */

static void descriptors_are_passed_and_closed(void **state)
{
	struct stat sent, got;
	int mine[2], before;

	(void)state;
	b.keep_fds = true;
	assert_int_equal(pipe2(mine, O_CLOEXEC), 0);
	before = open_fds();
	fstat(mine[0], &sent);
	assert_int_equal(ipc_send(a.link, IPC_RESOLVER, NULL, 0, mine, 2), 0);
	UNTIL(b.count == 1);
	assert_int_equal(b.nfds, 2);
	assert_int_equal(fstat(b.fds[0], &got), 0);
	assert_true(sent.st_ino == got.st_ino && sent.st_dev == got.st_dev);
	assert_int_equal(write(b.fds[1], "x", 1), 1); /* in order: the writing end is the second */
	assert_int_equal(open_fds(), before); /* two came, and the sender's two are closed */
}

static void a_handler_that_keeps_none_leaks_none(void **state)
{
	(void)state;
	for (int i = 0; i < 100; i++) {
		int fd = dup(STDERR_FILENO);

		assert_int_equal(ipc_send(a.link, IPC_PEER, "abcd", 4, &fd, 1), 0);
		assert_int_equal(send_value(a.link, 1), 0);
	}
	UNTIL(b.count == 200);
}

static void a_dead_link_closes_what_it_is_given(void **state)
{
	int fd = dup(STDERR_FILENO);

	(void)state;
	ipc_free(&b.link);
	UNTIL(a.gone == 1);
	assert_int_equal(ipc_send(a.link, IPC_PEER, NULL, 0, &fd, 1), -1);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	assert_int_equal(send_value(a.link, 1), -1);
}

static void unsent_descriptors_are_closed(void **state)
{
	int fd = dup(STDERR_FILENO);

	(void)state;
	assert_int_equal(ipc_send(a.link, IPC_PEER, NULL, 0, &fd, 1), 0);
	ipc_free(&a.link);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
}

/* ---- bounds -------------------------------------------------------------------------------------------------------- */

static void the_queue_is_bounded(void **state)
{
	static uint8_t body[65536];
	int fds[2], fd = dup(STDERR_FILENO);
	size_t sent = 0;

	(void)state;
	assert_int_equal(ipc_pair(fds), 0);
	struct ipc *link = ipc_new(fds[0], ROLE_SUPERVISOR, ROLE_CONTROL, 0);

	while (ipc_send(link, IPC_PROCESSES, body, sizeof body, NULL, 0) == 0) {
		sent++;
		assert_true(ipc_queued(link) <= IPC_QUEUE_MAX);
	}
	assert_int_equal(sent, IPC_QUEUE_MAX / (sizeof body + 8));
	/* There is still room for a small one, and none for descriptors once that is used up too. */
	while (ipc_send(link, IPC_FILE_REFUSED, body, 600, NULL, 0) == 0)
		;
	while (ipc_send(link, IPC_RELOAD, NULL, 0, NULL, 0) == 0)
		;
	assert_int_equal(ipc_send(link, IPC_FILE_OPENED, NULL, 0, &fd, 1), -1);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	ipc_free(&link);
	close(fds[1]);
}

/* The kernel is short of something that the socket does not tell us about: it is asked again, but not all the time. */
static void a_shortage_is_waited_out(void **state)
{
	const int shortages[] = {ENOBUFS, ETOOMANYREFS};
	const struct timeval while_short = {.tv_usec = 200000};

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		shortage = shortages[i];
		sendings = 0;
		send_value(a.link, i);
		event_base_loopexit(base, &while_short);
		event_base_dispatch(base);
		assert_in_range(sendings, 2, 50);
		assert_int_equal(a.gone, 0);
		shortage = 0;
		UNTIL(b.count == i + 1);
		assert_int_equal(b.values[i], i);
	}
}

static void on_shortage_over(int signal)
{
	(void)signal;
	shortage = 0;
}

static void a_shortage_is_waited_out_without_a_loop(void **state)
{
	const struct itimerval while_short = {.it_value.tv_usec = 200000};
	int fds[2];
	char body[64];

	(void)state;
	assert_int_equal(ipc_pair(fds), 0);
	struct ipc *link = ipc_new(fds[0], ROLE_SUPERVISOR, ROLE_WORKER, 0);

	send_value(link, 1);
	shortage = ENOBUFS;
	sendings = 0;
	signal(SIGALRM, on_shortage_over);
	assert_int_equal(setitimer(ITIMER_REAL, &while_short, NULL), 0);
	assert_int_equal(ipc_flush_blocking(link), 0);
	assert_in_range(sendings, 2, 50);
	assert_int_equal(recv(fds[1], body, sizeof body, MSG_DONTWAIT), 8 + 4);
	ipc_free(&link);
	close(fds[1]);
}

static void a_paused_link_reads_nothing(void **state)
{
	(void)state;
	ipc_pause(b.link, true);
	send_value(a.link, 1);
	settle();
	assert_int_equal(b.count, 0);
	ipc_pause(b.link, false);
	UNTIL(b.count == 1);
}

/* Back-pressure: what is not read fills the kernel's buffer, then the sender's queue, and nothing is lost. */
static void a_pause_is_felt_by_the_sender(void **state)
{
	(void)state;
	b.pause_in_handler = true;
	for (uint32_t i = 0; i < GOT_MAX; i++)
		assert_int_equal(send_value(a.link, i), 0);
	UNTIL(b.count > 0);
	settle();
	assert_true(b.count < GOT_MAX);
	assert_true(ipc_queued(a.link) > 0);
	b.pause_in_handler = false;
	ipc_pause(b.link, false);
	UNTIL(b.count == GOT_MAX);
	for (uint32_t i = 0; i < GOT_MAX; i++)
		assert_int_equal(b.values[i], i);
}

static void a_link_may_be_paused_before_it_joins(void **state)
{
	int fds[2];
	static struct end e;

	(void)state;
	clear(&e);
	assert_int_equal(ipc_pair(fds), 0);
	e.link = ipc_new(fds[0], ROLE_WORKER, ROLE_SUPERVISOR, 0);
	struct ipc *sender = ipc_new(fds[1], ROLE_SUPERVISOR, ROLE_WORKER, 0);

	ipc_pause(e.link, true);
	ipc_attach(e.link, base, on_message, on_gone, &e);
	send_value(sender, 3);
	assert_int_equal(ipc_flush_blocking(sender), 0);
	settle();
	assert_int_equal(e.count, 0);
	ipc_pause(e.link, false);
	UNTIL(e.count == 1);
	ipc_free(&e.link);
	ipc_free(&sender);
}

/* ---- ends ----------------------------------------------------------------------------------------------------------- */

static void a_peer_that_ends_is_noticed_once(void **state)
{
	(void)state;
	ipc_free(&b.link);
	UNTIL(a.gone == 1);
	settle();
	assert_int_equal(a.gone, 1);
	assert_false(ipc_broke_rules(a.link));
	assert_int_equal(ipc_queued(a.link), 0);
}

static void what_a_dying_peer_said_is_heard(void **state)
{
	(void)state;
	send_value(a.link, 42);
	assert_int_equal(ipc_flush_blocking(a.link), 0);
	ipc_free(&a.link);
	UNTIL(b.gone == 1);
	assert_int_equal(b.count, 1);
	assert_int_equal(b.values[0], 42);
}

static void a_link_may_be_freed_in_its_handler(void **state)
{
	(void)state;
	b.free_in_handler = true;
	for (uint32_t i = 0; i < 10; i++)
		send_value(a.link, i); /* one datagram: nine messages are behind the first */
	UNTIL(b.count == 1);
	assert_null(b.link);
	UNTIL(a.gone == 1);
	assert_int_equal(b.count, 1);
	assert_int_equal(b.gone, 0);
}

static void a_link_may_be_freed_in_gone(void **state)
{
	(void)state;
	a.free_in_gone = true;
	ipc_free(&b.link);
	UNTIL(a.gone == 1);
	assert_null(a.link);
}

static void freed_with_descriptors_behind_it(void **state)
{
	int fd = dup(STDERR_FILENO);

	(void)state;
	b.free_in_handler = true;
	assert_int_equal(ipc_send(a.link, IPC_PEER, NULL, 0, &fd, 1), 0);
	fd = dup(STDERR_FILENO);
	assert_int_equal(ipc_send(a.link, IPC_PEER, NULL, 0, &fd, 1), 0);
	UNTIL(b.count == 1);
	UNTIL(a.gone == 1);
}

static void a_blocking_link_may_be_freed_in_its_handler(void **state)
{
	int fds[2];
	static struct end e;

	(void)state;
	clear(&e);
	assert_int_equal(ipc_pair(fds), 0);
	e.link = ipc_new(fds[0], ROLE_WORKER, ROLE_SUPERVISOR, 0);
	struct ipc *sender = ipc_new(fds[1], ROLE_SUPERVISOR, ROLE_WORKER, 0), *link = e.link;

	e.free_in_handler = true;
	send_value(sender, 1);
	send_value(sender, 2);
	assert_int_equal(ipc_flush_blocking(sender), 0);
	assert_int_equal(ipc_receive_blocking(link, on_message, &e), -1);
	assert_int_equal(e.count, 1);
	ipc_free(&sender);
}

static void blocking_ends_see_messages_then_the_end(void **state)
{
	int fds[2];
	static struct end e;

	(void)state;
	clear(&e);
	assert_int_equal(ipc_pair(fds), 0);
	e.link = ipc_new(fds[0], ROLE_WORKER, ROLE_SUPERVISOR, 0);
	struct ipc *sender = ipc_new(fds[1], ROLE_SUPERVISOR, ROLE_WORKER, 0);

	send_value(sender, 8);
	assert_int_equal(ipc_flush_blocking(sender), 0);
	assert_int_equal(ipc_receive_blocking(e.link, on_message, &e), 0);
	assert_int_equal(e.values[0], 8);
	ipc_free(&sender);
	assert_int_equal(ipc_receive_blocking(e.link, on_message, &e), -1);
	assert_false(ipc_broke_rules(e.link));
	ipc_free(&e.link);
}

/* ---- hostile datagrams: the peer is a worker, the victim the supervisor's end ------------------------------------- */

struct raw_header {
	uint16_t type, nfds;
	uint32_t len;
};

static int raw_fd = -1;

static int setup_raw(void **state)
{
	int fds[2];

	if (setup(state) != 0 || ipc_pair(fds) != 0)
		return -1;
	ipc_free(&a.link);
	ipc_free(&b.link);
	a.link = ipc_new(fds[0], ROLE_SUPERVISOR, ROLE_WORKER, 7);
	ipc_attach(a.link, base, on_message, on_gone, &a);
	raw_fd = fds[1];
	return 0;
}

static int teardown_raw(void **state)
{
	close(raw_fd);
	return teardown(state);
}

static void raw_send(const void *data, size_t len, int nfds)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int) * 16)];
		struct cmsghdr align;
	} control;
	struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	int fds[16];

	if (nfds > 0) {
		memset(&control, 0, sizeof control);
		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)nfds);
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)nfds);
		for (int i = 0; i < nfds; i++)
			fds[i] = STDERR_FILENO;
		memcpy(CMSG_DATA(c), fds, sizeof(int) * (size_t)nfds);
	}
	assert_int_equal(sendmsg(raw_fd, &msg, MSG_NOSIGNAL), len);
}

static size_t raw_message(uint8_t *out, uint16_t type, uint16_t nfds, uint32_t len, size_t body)
{
	struct raw_header h = {.type = type, .nfds = nfds, .len = len};

	memcpy(out, &h, sizeof h);
	memset(out + sizeof h, 'x', body);
	return sizeof h + body;
}

static void assert_reported_once(void)
{
	settle();
	assert_int_equal(reports, 1);
	assert_int_equal(reported_role, ROLE_WORKER);
	assert_int_equal(reported_slot, 7);
}

/* The link is cut, `handled` messages having been handled before. */
static void assert_cut(unsigned handled)
{
	UNTIL(a.gone == 1);
	assert_int_equal(a.count, handled);
	assert_true(ipc_broke_rules(a.link));
	assert_reported_once();
	assert_int_equal(ipc_send(a.link, IPC_STOP, NULL, 0, NULL, 0), -1);
}

static uint8_t raw[IPC_DATAGRAM_MAX + 4096];

static void the_wrong_sender_is_cut(void **state)
{
	(void)state;
	raw_send(raw, raw_message(raw, IPC_KILL, 0, 8, 8), 0); /* auth and control may, a worker may not */
	assert_cut(0);
}

static void the_wrong_receiver_is_cut(void **state)
{
	(void)state;
	raw_send(raw, raw_message(raw, IPC_RECORD, 0, 8, 8), 0); /* a worker may, but to the recorder */
	assert_cut(0);
}

static void an_unknown_type_is_cut(void **state)
{
	(void)state;
	raw_send(raw, raw_message(raw, IPC_TYPE_COUNT, 0, 0, 0), 0);
	assert_cut(0);
}

static void a_body_above_its_bound_is_cut(void **state)
{
	(void)state;
	raw_send(raw, raw_message(raw, IPC_UNUSABLE, 0, 601, 601), 0);
	assert_cut(0);
}

static void a_body_at_its_bound_is_taken(void **state)
{
	(void)state;
	raw_send(raw, raw_message(raw, IPC_UNUSABLE, 0, 600, 600), 0);
	UNTIL(a.count == 1);
	assert_int_equal(a.lens[0], 600);
	assert_int_equal(a.gone, 0);
}

static void a_body_behind_the_end_is_cut(void **state)
{
	(void)state;
	raw_send(raw, raw_message(raw, IPC_UNUSABLE, 0, 9, 8), 0);
	assert_cut(0);
}

static void a_huge_length_is_cut(void **state)
{
	(void)state;
	raw_send(raw, raw_message(raw, IPC_UNUSABLE, 0, UINT32_MAX, 8), 0);
	assert_cut(0);
}

static void a_truncated_header_is_cut_after_what_was_whole(void **state)
{
	size_t len = raw_message(raw, IPC_READY, 0, 0, 0);

	(void)state;
	raw_send(raw, len + 7, 0);
	assert_cut(1);
}

static void a_single_byte_is_cut(void **state)
{
	(void)state;
	raw_send("x", 1, 0);
	assert_cut(0);
}

static void descriptors_that_a_message_may_not_have_are_cut(void **state)
{
	(void)state;
	raw_send(raw, raw_message(raw, IPC_READY, 1, 0, 0), 1);
	assert_cut(0);
}

static void descriptors_nobody_claims_are_closed(void **state)
{
	(void)state;
	raw_send(raw, raw_message(raw, IPC_READY, 0, 0, 0), 3);
	UNTIL(a.count == 1);
	assert_int_equal(a.gone, 0);
}

static void too_many_descriptors_are_cut(void **state)
{
	(void)state;
	raw_send(raw, raw_message(raw, IPC_READY, 0, 0, 0), IPC_FDS_MAX + 1);
	assert_cut(0);
}

static void sixteen_descriptors_are_cut(void **state)
{
	(void)state;
	raw_send(raw, raw_message(raw, IPC_READY, 0, 0, 0), 16);
	assert_cut(0);
}

static void a_datagram_above_the_bound_is_cut(void **state)
{
	int size = 2 * (int)sizeof raw;

	(void)state;
	setsockopt(raw_fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	for (size_t at = 0; at + 8 <= sizeof raw; at += 8)
		raw_message(raw + at, IPC_READY, 0, 0, 0);
	raw_send(raw, sizeof raw, 0);
	assert_cut(0);
}

static void an_empty_datagram_ends_the_link(void **state)
{
	(void)state;
	raw_send("", 0, 0);
	UNTIL(a.gone == 1);
	assert_int_equal(a.count, 0);
}

/* recvmsg(2) gives 0 bytes here as it does at the end, but with descriptors. */
static void an_empty_datagram_with_descriptors_leaks_none(void **state)
{
	(void)state;
	raw_send("", 0, 3);
	UNTIL(a.gone == 1);
	assert_int_equal(a.count, 0);
}

/* A worker claims a descriptor that it did not send, at a receiver that may be given one. */
static void a_claimed_descriptor_that_is_not_there_is_cut(void **state)
{
	int fds[2];

	(void)state;
	assert_int_equal(ipc_pair(fds), 0);
	ipc_free(&a.link);
	close(raw_fd);
	raw_fd = fds[1];
	a.link = ipc_new(fds[0], ROLE_CONTROL, ROLE_COMPILER, 0);
	ipc_attach(a.link, base, on_message, on_gone, &a);
	raw_send(raw, raw_message(raw, IPC_COMPILED, 1, 4, 4), 0);
	UNTIL(a.gone == 1);
	assert_int_equal(a.count, 0);
	assert_true(ipc_broke_rules(a.link));
}

/* Descriptors that came may find no place here: that is not the peer's doing. */
static void a_want_of_descriptors_is_no_fault_of_the_peer(void **state)
{
	struct rlimit limit, none;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	none = limit;
	none.rlim_cur = 0;
	raw_send(raw, raw_message(raw, IPC_READY, 0, 0, 0), 1);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	settle();
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_int_equal(a.gone, 1);
	assert_int_equal(a.count, 0);
	assert_false(ipc_broke_rules(a.link));
	assert_int_equal(reports, 0);
}

/* ---- bodies that only a handler can judge -------------------------------------------------------------------------- */

static void a_message_may_be_rejected(void **state)
{
	(void)state;
	a.reject_in_handler = true;
	raw_message(raw, IPC_READY, 0, 0, 0);
	raw_send(raw, raw_message(raw + 8, IPC_READY, 0, 0, 0) + 8, 0);
	raw_send(raw, raw_message(raw, IPC_READY, 0, 0, 0), 0);
	assert_cut(1); /* neither what is behind it in the datagram nor the next one is handled */
	settle();
	assert_int_equal(a.gone, 1);
	ipc_reject(a.link, "it is dead already");
	assert_reported_once();
}

static void a_rejected_link_may_be_freed_in_its_handler(void **state)
{
	(void)state;
	a.reject_in_handler = a.free_in_handler = true;
	raw_send(raw, raw_message(raw, IPC_READY, 0, 0, 0), 0);
	UNTIL(a.link == NULL);
	assert_reported_once();
	assert_int_equal(a.gone, 0);
}

static void a_rejected_link_may_be_freed_in_gone(void **state)
{
	(void)state;
	a.reject_in_handler = a.free_in_gone = true;
	raw_send(raw, raw_message(raw, IPC_READY, 0, 0, 0), 0);
	UNTIL(a.link == NULL);
	assert_reported_once();
	assert_int_equal(a.gone, 1);
}

/* Not only in its handler: what a peer does not do shows elsewhere. */
static void a_peer_may_be_rejected_at_any_time(void **state)
{
	(void)state;
	ipc_pause(a.link, true);
	raw_send(raw, raw_message(raw, IPC_READY, 0, 0, 0), 0);
	ipc_reject(a.link, "it does not read");
	assert_int_equal(a.gone, 0); /* not under the caller's feet */
	assert_int_equal(ipc_send(a.link, IPC_STOP, NULL, 0, NULL, 0), -1);
	assert_cut(0);
}

static void a_rejected_link_may_be_freed_at_once(void **state)
{
	(void)state;
	ipc_reject(a.link, "it does not read");
	ipc_free(&a.link);
	assert_reported_once();
	assert_int_equal(a.gone, 0);
}

static void a_blocking_link_may_be_rejected(void **state)
{
	int fds[2];
	static struct end e;

	(void)state;
	clear(&e);
	assert_int_equal(ipc_pair(fds), 0);
	e.link = ipc_new(fds[0], ROLE_SUPERVISOR, ROLE_WORKER, 7);
	e.reject_in_handler = true;
	raw_message(raw, IPC_READY, 0, 0, 0);
	raw_message(raw + 8, IPC_READY, 0, 0, 0);
	assert_int_equal(send(fds[1], raw, 16, MSG_NOSIGNAL), 16);
	assert_int_equal(ipc_receive_blocking(e.link, on_message, &e), -1);
	assert_int_equal(e.count, 1);
	assert_true(ipc_broke_rules(e.link));
	assert_reported_once();
	assert_int_equal(ipc_receive_blocking(e.link, on_message, &e), -1);
	assert_int_equal(ipc_flush_blocking(e.link), -1);
	assert_int_equal(ipc_send(e.link, IPC_STOP, NULL, 0, NULL, 0), -1);
	assert_reported_once();
	ipc_free(&e.link);
	close(fds[1]);
}

/* Nothing that a peer can send does more than end its link; the seed is fixed, so that a failure is found again. */
static void random_datagrams_only_end_the_link(void **state)
{
	uint64_t seed = 0x9e3779b97f4a7c15u;

	for (int round = 0; round < 3000; round++) {
		size_t len = 0;

		for (int part = 0; part < 3; part++) {
			seed = seed * 6364136223846793005u + 1442695040888963407u;
			uint32_t r = (uint32_t)(seed >> 32);
			uint16_t type = r & 1 ? IPC_READY : (uint16_t)(r >> 1 & 63);
			size_t body = r >> 8 & 31;

			len += raw_message(raw + len, type, r >> 16 & 1, r & 2 ? (uint32_t)body : r >> 13 & 63, body);
		}
		raw_send(raw, seed >> 33 & 1 ? len : (size_t)(seed >> 44) % (len + 1), (int)(seed >> 40 & 3));
		settle();
		if (a.gone > 0) {
			assert_int_equal(teardown_raw(state), 0);
			assert_int_equal(setup_raw(state), 0);
		}
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define RAW(f) cmocka_unit_test_setup_teardown(f, setup_raw, teardown_raw)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_table_is_told),
		TEST(messages_arrive_in_order),
		TEST(messages_are_batched),
		TEST(both_ways_and_empty_bodies),
		TEST(what_waits_before_attach_is_sent),
		TEST(a_writer_that_overflowed_is_not_sent),
		TEST(descriptors_are_passed_and_closed),
		TEST(a_handler_that_keeps_none_leaks_none),
		TEST(a_dead_link_closes_what_it_is_given),
		TEST(unsent_descriptors_are_closed),
		TEST(the_queue_is_bounded),
		TEST(a_shortage_is_waited_out),
		TEST(a_shortage_is_waited_out_without_a_loop),
		TEST(a_paused_link_reads_nothing),
		TEST(a_pause_is_felt_by_the_sender),
		TEST(a_link_may_be_paused_before_it_joins),
		TEST(a_peer_that_ends_is_noticed_once),
		TEST(what_a_dying_peer_said_is_heard),
		TEST(a_link_may_be_freed_in_its_handler),
		TEST(a_link_may_be_freed_in_gone),
		TEST(freed_with_descriptors_behind_it),
		TEST(a_blocking_link_may_be_freed_in_its_handler),
		TEST(blocking_ends_see_messages_then_the_end),
		RAW(the_wrong_sender_is_cut),
		RAW(the_wrong_receiver_is_cut),
		RAW(an_unknown_type_is_cut),
		RAW(a_body_above_its_bound_is_cut),
		RAW(a_body_at_its_bound_is_taken),
		RAW(a_body_behind_the_end_is_cut),
		RAW(a_huge_length_is_cut),
		RAW(a_truncated_header_is_cut_after_what_was_whole),
		RAW(a_single_byte_is_cut),
		RAW(descriptors_that_a_message_may_not_have_are_cut),
		RAW(descriptors_nobody_claims_are_closed),
		RAW(too_many_descriptors_are_cut),
		RAW(sixteen_descriptors_are_cut),
		RAW(a_datagram_above_the_bound_is_cut),
		RAW(an_empty_datagram_ends_the_link),
		RAW(an_empty_datagram_with_descriptors_leaks_none),
		RAW(a_claimed_descriptor_that_is_not_there_is_cut),
		RAW(a_want_of_descriptors_is_no_fault_of_the_peer),
		RAW(a_message_may_be_rejected),
		RAW(a_rejected_link_may_be_freed_in_its_handler),
		RAW(a_rejected_link_may_be_freed_in_gone),
		RAW(a_peer_may_be_rejected_at_any_time),
		RAW(a_rejected_link_may_be_freed_at_once),
		RAW(a_blocking_link_may_be_rejected),
		RAW(random_datagrams_only_end_the_link),
	};

	log_init("test", LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
