/* The keeper: a process of control's own that does with the policy store what takes time.  To hash, write, sync and read lists of many
 * megabytes takes a second, and control has others to answer meanwhile.
 *
 * It is forked before control opens the store, so that no connection of SQLite's is shared; it has control's walls, and no
 * descriptor but the one to control.  One order at a time; the others wait here, that of a change first.  When it ends, control ends
 * too, and whoever comes next finds in the store what became of the order.
 *
 * Orders: u8 what, then for ADD the words of struct policy_new, with a sealed bundle of its texts; for READ the revision; for APPROVE the
 * words of struct policy_judgement.  What the checks
 * said may be long, and how much fits into a message is the host's to say: CHECKS comes before ADD, sealed, and is not answered.
 * Answers: u32 0, 1 or 2 (failed), u32 revision, text why; for READ with a sealed bundle. */
#include "config.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "common/rights.h"
#include "common/sealed.h"
#include "gatewayd/control/internal.h"
#include "gatewayd/priority.h"
#include "gatewayd/sandbox/sandbox.h"
#include "policy/bundle.h"

/* Linux lets no socket have room for less. */
#define MESSAGE_MAX 4096

enum { KEEPER_ADD = 1, KEEPER_READ, KEEPER_CHECKS, KEEPER_APPROVE };

/* ---- messages ---------------------------------------------------------------------------------------------------------- */

/* fd: goes along, unless it is -1; it stays the caller's. */
static int send_message(int to, const struct wire_writer *w, int fd)
{
	struct iovec iov = {.iov_base = w->data, .iov_len = w->len};
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {{0}};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fd >= 0) {
		msg.msg_control = control.bytes;
		msg.msg_controllen = sizeof control.bytes;
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof fd);
		memcpy(CMSG_DATA(c), &fd, sizeof fd);
	}
	return !w->overflow && sendmsg(to, &msg, MSG_NOSIGNAL) == (ssize_t)w->len ? 0 : -1;
}

static ssize_t receive_message(int from, uint8_t *body, int *fd)
{
	union {
		char bytes[RIGHTS_SPACE];
		struct cmsghdr align;
	} control;
	struct iovec iov = {.iov_base = body, .iov_len = MESSAGE_MAX};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
	ssize_t n;

	do
		n = recvmsg(from, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	*fd = n < 0 ? -1 : rights_take_one(&msg);
	return n;
}

/* ---- the keeper -------------------------------------------------------------------------------------------------------- */

static char checks[POLICY_CHECKS_MAX + 1]; /* of the next ADD */

static void take_checks(int fd)
{
	struct sealed bytes;
	struct err why;

	if (sealed_map(fd, POLICY_CHECKS_MAX, &bytes, &why) != 0) {
		log_error("the keeper of the policy store cannot read what the checks said: %s", why.text);
		_exit(1);
	}
	memcpy(checks, bytes.data, bytes.len);
	checks[bytes.len] = '\0';
	sealed_unmap(&bytes);
}

/* 0, 1 or -1 as policy_store_add() says. */
static int add(struct policy_store *store, struct wire_reader *r, int fd, uint32_t *id, struct err *why)
{
	static char author[64], source[32], comment[POLICY_COMMENT_MAX + 1];
	struct policy_new n = {.author = author, .source = source, .comment = comment, .checks = checks};
	struct policy_file *files = NULL;
	struct sealed bytes;
	struct bundle b;
	int rc;

	n.author_uid = wire_get_u32(r);
	wire_get_text(r, author, sizeof author);
	wire_get_text(r, source, sizeof source);
	wire_get_text(r, comment, sizeof comment);
	n.time_us = (int64_t)wire_get_u64(r);
	n.lasts_us = (int64_t)wire_get_u64(r);
	n.imported = wire_get_u8(r);
	n.check_active = wire_get_u8(r);
	n.if_active = wire_get_u32(r);
	n.proposed_until_us = (int64_t)wire_get_u64(r);
	if (!wire_done(r))
		return err_set(why, "the order to store it is malformed");
	if (sealed_map(fd, BUNDLE_BYTES_MAX, &bytes, why) != 0)
		return -1;
	if (bundle_read(bytes.data, bytes.len, &b, why) != 0) {
		sealed_unmap(&bytes);
		return -1;
	}
	n.name = b.files[0].name;
	n.text = b.files[0].text;
	n.len = b.files[0].len;
	n.nfiles = b.count - 1;
	n.files = files = calloc(b.count, sizeof *files);
	for (size_t i = 0; files != NULL && i < n.nfiles; i++)
		files[i] = (struct policy_file){b.files[i + 1].name, b.files[i + 1].text, b.files[i + 1].len};
	rc = files == NULL ? err_set(why, "out of memory") : policy_store_add(store, &n, id, why);
	free(files);
	bundle_clear(&b);
	sealed_unmap(&bytes);
	return rc;
}

static int read_bundle(struct policy_store *store, struct wire_reader *r, int *fd, struct err *why)
{
	struct policy_revision *revision = malloc(sizeof *revision);
	uint32_t id = wire_get_u32(r);

	*fd = -1;
	if (revision == NULL || !wire_done(r))
		err_set(why, "out of memory");
	else
		*fd = policy_bundle_of(store, id, revision, NULL, why);
	free(revision);
	return *fd < 0 ? -1 : 0;
}

/* 0, 1 or -1 as policy_store_approve() says. */
static int approve(struct policy_store *store, struct wire_reader *r, uint32_t *id, struct err *why)
{
	static char author[64], comment[POLICY_COMMENT_MAX + 1];
	struct policy_judgement v = {.author = author, .comment = comment};

	v.revision = *id = wire_get_u32(r);
	v.author_uid = wire_get_u32(r);
	wire_get_text(r, author, sizeof author);
	wire_get_text(r, comment, sizeof comment);
	v.time_us = (int64_t)wire_get_u64(r);
	v.lasts_us = (int64_t)wire_get_u64(r);
	return wire_done(r) ? policy_store_approve(store, &v, why) : err_set(why, "the order to approve it is malformed");
}

static void serve(int socket)
{
	static uint8_t body[MESSAGE_MAX], reply[sizeof(struct err) + 64];
	struct policy_store *store = NULL;
	ssize_t n;
	int fd;

	while ((n = receive_message(socket, body, &fd)) > 0) {
		struct wire_reader r = wire_reader_on(body, (size_t)n);
		struct wire_writer out = wire_writer_on(reply, sizeof reply);
		struct err why = {""};
		uint32_t id = 0;
		int rc = -1, back = -1;
		unsigned what = wire_get_u8(&r);

		if (what == KEEPER_CHECKS) {
			take_checks(fd);
			close(fd);
			continue;
		}
		if (store == NULL)
			store = policy_store_open("policy.db", false, &why);
		if (store != NULL)
			rc = what == KEEPER_ADD	      ? add(store, &r, fd, &id, &why)
			     : what == KEEPER_APPROVE ? approve(store, &r, &id, &why)
						      : read_bundle(store, &r, &back, &why);
		checks[0] = '\0';
		wire_put_u32(&out, rc < 0 ? 2 : (uint32_t)rc);
		wire_put_u32(&out, id);
		wire_put_text(&out, why.text);
		if (send_message(socket, &out, back) != 0)
			_exit(1);
		if (fd >= 0)
			close(fd);
		if (back >= 0)
			close(back);
	}
	_exit(0); /* control is gone */
}

static void run(struct child *child, int socket, pid_t parent) __attribute__((noreturn));
static void run(struct child *child, int socket, pid_t parent)
{
	struct err why;

	prctl(PR_SET_NAME, "gw-keeper");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	priority_aside();
	if (socket > 3)
		close_range(3, (unsigned)socket - 1, 0);
	close_range((unsigned)socket + 1, UINT_MAX, 0);
	if (getppid() != parent)
		_exit(1);
	if (child->config->sandbox && sandbox_enter(ROLE_CONTROL, false, &why) != 0) {
		log_error("%s", why.text);
		_exit(1);
	}
	serve(socket);
	_exit(0);
}

/* ---- control ------------------------------------------------------------------------------------------------------------- */

struct keeper_order {
	TAILQ_ENTRY(keeper_order) next;
	keeper_done *done;
	void *arg;
	bool of_change;
	int fd, checks_fd; /* that go along; -1: none */
	size_t len;
	uint8_t body[MESSAGE_MAX];
};

static void order_free(struct keeper_order *o)
{
	if (o->fd >= 0)
		close(o->fd);
	if (o->checks_fd >= 0)
		close(o->checks_fd);
	free(o);
}

static void send_part(const struct keeper *k, const void *body, size_t len, int fd)
{
	struct wire_writer w = {.data = (uint8_t *)(uintptr_t)body, .size = len, .len = len};

	if (send_message(k->fd, &w, fd) != 0)
		log_fatal("the keeper of the policy store takes no order: %s", strerror(errno));
}

static void send_next(struct control *c)
{
	static const uint8_t of_checks = KEEPER_CHECKS;
	unsigned ms = c->child->config->compile_timeout_ms;
	struct timeval patience = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
	struct keeper *k = &c->keeper;
	struct keeper_order *o = TAILQ_FIRST(&k->waiting);

	if (k->current != NULL || o == NULL)
		return;
	TAILQ_REMOVE(&k->waiting, o, next);
	k->current = o;
	evtimer_add(&k->late, &patience);
	if (o->checks_fd >= 0)
		send_part(k, &of_checks, sizeof of_checks, o->checks_fd);
	send_part(k, o->body, o->len, o->fd);
}

static void on_answer(evutil_socket_t socket, short what, void *arg)
{
	static uint8_t body[MESSAGE_MAX];
	struct control *c = arg;
	struct keeper *k = &c->keeper;
	struct keeper_answer answer = {.fd = -1};
	ssize_t n = receive_message(socket, body, &answer.fd);
	struct wire_reader r = wire_reader_on(body, n > 0 ? (size_t)n : 0);
	struct keeper_order *o = k->current;

	(void)what;
	if (n < 0 && errno == EAGAIN)
		return;
	uint32_t rc = wire_get_u32(&r);

	answer.rc = rc > 1 ? -1 : (int)rc;
	answer.revision = wire_get_u32(&r);
	wire_get_text(&r, answer.why.text, sizeof answer.why.text);
	/* What it was doing may be done, or not: the next control finds that in the store. */
	if (!wire_done(&r) || o == NULL)
		log_fatal("the keeper of the policy store has ended");
	evtimer_del(&k->late);
	k->current = NULL;
	o->done(c, &answer, o->arg);
	order_free(o);
	if (answer.fd >= 0)
		close(answer.fd);
	send_next(c);
}

/* It hangs, or the disk does.  Nothing can be changed then, and no trial be rolled back: another control has another keeper. */
static void on_late(evutil_socket_t fd, short what, void *arg)
{
	const struct control *c = arg;

	(void)fd, (void)what;
	log_fatal("the keeper of the policy store has not answered for %u ms (compile-timeout): control begins anew",
		  c->child->config->compile_timeout_ms);
}

static struct keeper_order *order_new(bool of_change, keeper_done *done, void *arg)
{
	struct keeper_order *o = malloc(sizeof *o);

	if (o == NULL)
		log_fatal("out of memory");
	o->done = done;
	o->arg = arg;
	o->of_change = of_change;
	o->fd = o->checks_fd = -1;
	return o;
}

/* Nobody's reading puts a change off, but what is under way. */
static void enqueue(struct control *c, struct keeper_order *o, const struct wire_writer *words)
{
	if (words->overflow)
		log_fatal("an order to the keeper of the policy store is too long");
	o->len = words->len;
	if (o->of_change)
		TAILQ_INSERT_HEAD(&c->keeper.waiting, o, next);
	else
		TAILQ_INSERT_TAIL(&c->keeper.waiting, o, next);
	send_next(c);
}

bool keeper_is_busy(const struct control *c)
{
	const struct keeper_order *o = c->keeper.current;

	if (o != NULL && o->of_change)
		return true;
	TAILQ_FOREACH (o, &c->keeper.waiting, next)
		if (o->of_change)
			return true;
	return false;
}

static int take_along(struct keeper_order *o, const struct policy_new *n, int bundle_fd, struct err *why)
{
	size_t len = strlen(n->checks);

	if (len > 0)
		o->checks_fd = sealed_create("gatewayd-checks", n->checks, len < POLICY_CHECKS_MAX ? len : POLICY_CHECKS_MAX, why);
	if (len > 0 && o->checks_fd < 0)
		return -1;
	o->fd = fcntl(bundle_fd, F_DUPFD_CLOEXEC, 0);
	return o->fd < 0 ? err_set(why, "gatewayd is out of descriptors") : 0;
}

int keeper_add(struct control *c, const struct policy_new *n, int bundle_fd, keeper_done *done, void *arg, struct err *why)
{
	struct keeper_order *o = order_new(true, done, arg);
	struct wire_writer w = wire_writer_on(o->body, sizeof o->body);

	if (take_along(o, n, bundle_fd, why) != 0) {
		order_free(o);
		return -1;
	}
	wire_put_u8(&w, KEEPER_ADD);
	wire_put_u32(&w, n->author_uid);
	wire_put_text(&w, n->author);
	wire_put_text(&w, n->source);
	wire_put_text(&w, n->comment);
	wire_put_u64(&w, (uint64_t)n->time_us);
	wire_put_u64(&w, (uint64_t)n->lasts_us);
	wire_put_u8(&w, n->imported);
	wire_put_u8(&w, n->check_active);
	wire_put_u32(&w, n->if_active);
	wire_put_u64(&w, (uint64_t)n->proposed_until_us);
	enqueue(c, o, &w);
	return 0;
}

void keeper_read(struct control *c, uint32_t revision, bool of_change, keeper_done *done, void *arg)
{
	struct keeper_order *o = order_new(of_change, done, arg);
	struct wire_writer w = wire_writer_on(o->body, sizeof o->body);

	wire_put_u8(&w, KEEPER_READ);
	wire_put_u32(&w, revision);
	enqueue(c, o, &w);
}

void keeper_approve(struct control *c, const struct policy_judgement *v, keeper_done *done, void *arg)
{
	struct keeper_order *o = order_new(true, done, arg);
	struct wire_writer w = wire_writer_on(o->body, sizeof o->body);

	wire_put_u8(&w, KEEPER_APPROVE);
	wire_put_u32(&w, v->revision);
	wire_put_u32(&w, v->author_uid);
	wire_put_text(&w, v->author);
	wire_put_text(&w, v->comment);
	wire_put_u64(&w, (uint64_t)v->time_us);
	wire_put_u64(&w, (uint64_t)v->lasts_us);
	enqueue(c, o, &w);
}

void keeper_start(struct control *c)
{
	pid_t parent = getpid(), pid;
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0 || (pid = fork()) < 0)
		log_fatal("the keeper of the policy store cannot be started: %s", strerror(errno));
	if (pid == 0)
		run(c->child, ends[1], parent);
	close(ends[1]);
	TAILQ_INIT(&c->keeper.waiting);
	c->keeper.fd = ends[0];
	evtimer_assign(&c->keeper.late, c->child->base, on_late, c);
	event_assign(&c->keeper.event, c->child->base, ends[0], EV_READ | EV_PERSIST, on_answer, c);
	event_add(&c->keeper.event, NULL);
}
