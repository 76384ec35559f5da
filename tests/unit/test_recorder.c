#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <event2/event.h>
#include <jansson.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/clock.h"
#include "gatewayd/recorder/batch.h"
#include "gatewayd/recorder/senders.h"
#include "schema/audit_query.h"
#include "tests/unit/scratch.h"

#define DEADLINE_S 20

/* A recorder as it runs, and the far end of one link to it. */
struct fixture {
	struct event_base *base;
	struct audit_store *store;
	struct audit_archive *reader;
	struct recorder *recorder;
};

struct peer {
	struct ipc *link;
	struct fixture *f;
	uint64_t incarnation; /* it has greeted with */
	uint64_t recorded; /* the highest acknowledgement */
	unsigned acks;
	bool gone, check_durable;
	int socket;
	char status[4097];
};

static struct fixture fx;
static struct err why;
static bool timed_out;

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
	timed_out = true;
}

/* Turns the loop until the condition holds; fails the test at the deadline. */
#define UNTIL(condition)                                                                                               \
	do {                                                                                                           \
		struct event *timer = event_new(fx.base, -1, 0, on_deadline, NULL);                                    \
		struct timeval tv = {.tv_sec = DEADLINE_S};                                                            \
		timed_out = false;                                                                                     \
		event_add(timer, &tv);                                                                                 \
		while (!(condition) && !timed_out)                                                                     \
			event_base_loop(fx.base, EVLOOP_ONCE);                                                         \
		event_free(timer);                                                                                     \
		if (timed_out)                                                                                         \
			fail_msg("waited in vain for " #condition);                                                    \
	} while (0)

static uint64_t rows(void)
{
	struct audit_counts counts;

	audit_archive_counts(fx.reader, &counts);
	return counts.rows;
}

static void on_message(struct ipc *link, struct ipc_message *m, void *arg)
{
	struct peer *p = arg;

	(void)link;
	if (m->type == IPC_STATUS) {
		memcpy(p->status, m->body, m->len);
		p->status[m->len] = '\0';
		return;
	}
	struct wire_reader r = wire_reader_on(m->body, m->len);
	uint64_t sequence = wire_get_u64(&r);

	assert_true(wire_done(&r));
	assert_true(sequence >= p->recorded);
	p->recorded = sequence;
	p->acks++;
	/* What is acknowledged can be seen by others. */
	if (p->check_durable)
		assert_true(rows() >= sequence);
}

static void on_gone(struct ipc *link, void *arg)
{
	(void)link;
	((struct peer *)arg)->gone = true;
}

/* incarnation 0: says nothing. */
static void peer_open_slot(struct peer *p, enum role role, uint16_t slot, uint64_t incarnation)
{
	int fds[2];

	*p = (struct peer){.f = &fx, .incarnation = incarnation};
	assert_int_equal(ipc_pair(fds), 0);
	p->socket = fds[0];
	p->link = ipc_new(fds[0], role, ROLE_RECORDER, 0);
	ipc_attach(p->link, fx.base, on_message, on_gone, p);
	recorder_add(fx.recorder, ipc_new(fds[1], ROLE_RECORDER, role, slot));
	if (incarnation != 0)
		assert_int_equal(ipc_send(p->link, IPC_HELLO, &incarnation, sizeof incarnation, NULL, 0), 0);
}

static void peer_open(struct peer *p, enum role role)
{
	static uint16_t slot;

	peer_open_slot(p, role, slot++ % 200, 0);
}

static void send_record(struct peer *p, uint64_t incarnation, uint64_t sequence, size_t detail)
{
	static uint8_t body[32768];
	static struct audit_event e;
	struct wire_writer w = wire_writer_on(body, sizeof body);

	e = (struct audit_event){.kind = AUDIT_OPEN, .time_us = 1000, .user = "ann", .name = "a.example"};
	memset(e.detail, 'x', detail);
	if (p->incarnation == 0) {
		assert_int_equal(ipc_send(p->link, IPC_HELLO, &incarnation, sizeof incarnation, NULL, 0), 0);
		p->incarnation = incarnation;
	}
	audit_put_record(&w, incarnation, sequence, &e);
	assert_int_equal(ipc_send_wire(p->link, IPC_RECORD, &w), 0);
}

static json_t *status(struct peer *p)
{
	uint64_t id = 1;

	p->status[0] = '\0';
	assert_int_equal(ipc_send(p->link, IPC_STATUS_ASK, &id, sizeof id, NULL, 0), 0);
	UNTIL(p->status[0] != '\0');
	json_t *object = json_loads(p->status, 0, NULL);

	assert_non_null(object);
	return object;
}

static int64_t status_number(struct peer *p, const char *key)
{
	json_t *object = status(p);
	int64_t n = json_integer_value(json_object_get(object, key));

	json_decref(object);
	return n;
}

static bool status_is(struct peer *p, const char *state)
{
	json_t *object = status(p);
	const char *is = json_string_value(json_object_get(object, "state"));
	bool same = strcmp(is, state) == 0;

	assert_int_equal(json_object_get(object, "error") != NULL, strcmp(is, "failing") == 0);
	json_decref(object);
	return same;
}

static void start(void)
{
	fx.store = audit_store_open(1u << 30, &why);
	assert_non_null(fx.store);
	fx.recorder = recorder_new(fx.base, fx.store, 2000);
}

static void stop(void)
{
	recorder_free(&fx.recorder);
	audit_store_close(&fx.store);
}

static int setup(void **state)
{
	if (scratch_enter(state) != 0)
		return -1;
	fx.base = event_base_new();
	start();
	fx.reader = audit_archive_open(&why);
	return fx.reader == NULL;
}

static int teardown(void **state)
{
	stop();
	audit_archive_close(&fx.reader);
	event_base_free(fx.base);
	return scratch_leave(state);
}

/* ---- working
 * ---------------------------------------------------------------------------------------------------------- */

static void test_acknowledged_after_commit(void **state)
{
	struct peer p;

	(void)state;
	peer_open(&p, ROLE_WORKER);
	p.check_durable = true;
	for (uint64_t i = 1; i <= 300; i++)
		send_record(&p, 9, i, 10);
	UNTIL(p.recorded == 300);
	assert_int_equal(rows(), 300);
	assert_true(p.acks < 100); /* groups, not one by one */
	ipc_free(&p.link);
}

static int folding_socket = -1;
static unsigned folds, folds_before_acks;

/* In place of the C library's.  A database itself, and not its log, is synchronised when the log is folded into it. */
int fdatasync(int fd)
{
	char link[32], path[256] = "", byte;
	ssize_t n;

	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof path - 1);
	if (folding_socket >= 0 && n > 3 && strcmp(path + n - 3, ".db") == 0) {
		folds++;
		folds_before_acks += recv(folding_socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0;
	}
	return (int)syscall(SYS_fdatasync, fd);
}

/* Who waits for a commit does not wait for the log to be folded, too: the acknowledgement is in its socket by then. */
static void test_acknowledged_before_folding(void **state)
{
	struct peer p;

	(void)state;
	peer_open(&p, ROLE_WORKER);
	folds = folds_before_acks = 0;
	folding_socket = p.socket;
	for (uint64_t i = 1; folds < 2; i++) {
		assert_true(i < 20000);
		send_record(&p, 9, i, 8000);
		if (i % 20 == 0)
			UNTIL(p.recorded == i);
	}
	folding_socket = -1;
	assert_int_equal(folds_before_acks, 0);
	ipc_free(&p.link);
}

static void test_two_senders(void **state)
{
	struct peer a, b, control;

	(void)state;
	peer_open(&a, ROLE_WORKER);
	peer_open(&b, ROLE_WORKER);
	peer_open(&control, ROLE_CONTROL);
	send_record(&a, 1, 1, 0);
	send_record(&b, 2, 1, 0);
	send_record(&b, 2, 2, 0);
	UNTIL(a.recorded == 1 && b.recorded == 2);
	assert_int_equal(status_number(&control, "rows"), 3);
	assert_int_equal(status_number(&control, "queued"), 0);
	assert_true(status_number(&control, "commits") >= 1);
	assert_true(status_is(&control, "ok"));
	ipc_free(&a.link);
	UNTIL(recorder_links(fx.recorder) == 2);
	ipc_free(&b.link);
	ipc_free(&control.link);
}

static void test_gone_sender_is_recorded(void **state)
{
	struct peer p;

	(void)state;
	peer_open(&p, ROLE_WORKER);
	send_record(&p, 9, 1, 0);
	assert_int_equal(ipc_flush_blocking(p.link), 0);
	ipc_free(&p.link);
	UNTIL(rows() == 1);
}

static void test_resent_to_a_successor(void **state)
{
	struct peer p;

	(void)state;
	peer_open(&p, ROLE_WORKER);
	send_record(&p, 9, 1, 0);
	send_record(&p, 9, 2, 0);
	UNTIL(p.recorded == 2);
	stop();
	UNTIL(p.gone);
	ipc_free(&p.link);
	start();
	peer_open(&p, ROLE_WORKER);
	send_record(&p, 9, 2, 0);
	send_record(&p, 9, 3, 0);
	UNTIL(p.recorded == 3);
	assert_int_equal(rows(), 3);
	/* Only what was durable is resent: it is acknowledged though nothing is written. */
	stop();
	UNTIL(p.gone);
	ipc_free(&p.link);
	start();
	peer_open(&p, ROLE_WORKER);
	send_record(&p, 9, 1, 0);
	UNTIL(p.recorded >= 1);
	assert_int_equal(rows(), 3);
	ipc_free(&p.link);
}

static unsigned reports;

static void on_violation(enum role role, uint16_t slot, void *arg)
{
	(void)slot, (void)arg;
	assert_int_equal(role, ROLE_WORKER);
	reports++;
}

static void test_bad_senders_are_cut(void **state)
{
	struct peer good, bad, liar;

	(void)state;
	reports = 0;
	ipc_on_violation(on_violation, NULL);
	peer_open(&good, ROLE_WORKER);
	peer_open(&bad, ROLE_WORKER);
	peer_open(&liar, ROLE_WORKER);
	assert_int_equal(ipc_send(bad.link, IPC_RECORD, "garbage", 7, NULL, 0), 0);
	send_record(&liar, 5, 1, 0); /* greets first */
	send_record(&liar, 6, 1, 0); /* somebody else's */
	send_record(&liar, 6, 2, 0);
	UNTIL(bad.gone && liar.gone);
	assert_int_equal(reports, 2); /* neither is left to live without its recorder */
	send_record(&good, 9, 1, 0);
	UNTIL(good.recorded == 1);
	assert_int_equal(rows(), 2);
	assert_int_equal(recorder_links(fx.recorder), 1);
	ipc_free(&good.link);
	ipc_free(&bad.link);
	ipc_free(&liar.link);
}

static void test_finish(void **state)
{
	struct peer p;

	(void)state;
	peer_open(&p, ROLE_WORKER);
	send_record(&p, 9, 1, 0);
	assert_int_equal(ipc_flush_blocking(p.link), 0);
	event_base_loop(fx.base, EVLOOP_NONBLOCK);
	assert_int_equal(recorder_finish(fx.recorder), 0);
	assert_int_equal(rows(), 1);
	ipc_free(&p.link);
}

/* ---- sessions of the dead
 * ------------------------------------------------------------------------------------------------ */

static void send_event(struct peer *p, uint64_t sequence, enum audit_kind kind, uint64_t session, uint64_t bytes)
{
	static uint8_t body[32768];
	static struct audit_event e;
	struct wire_writer w = wire_writer_on(body, sizeof body);

	e = (struct audit_event){.kind = kind, .time_us = 1000, .session = session, .user = "ann", .bytes_up = bytes};
	audit_put_record(&w, p->incarnation, sequence, &e);
	assert_int_equal(ipc_send_wire(p->link, IPC_RECORD, &w), 0);
}

struct seen {
	unsigned ended, lost;
	uint64_t bytes, last_session;
};

static bool on_row(uint64_t id, const struct audit_event *e, void *arg)
{
	struct seen *seen = arg;

	(void)id;
	if (e->kind == AUDIT_ENDED && strncmp(e->reason, "lost", 4) == 0) {
		seen->lost++;
		seen->bytes += e->bytes_up;
		seen->last_session = e->session;
		assert_string_equal(e->user, "ann");
	} else if (e->kind == AUDIT_ENDED) {
		seen->ended++;
	}
	return true;
}

static struct seen look(void)
{
	const struct audit_filter all = {0};
	struct audit_query *q = audit_query_new(fx.reader, &all, &why);
	struct seen seen = {0};

	assert_non_null(q);
	while (audit_query_page(q, 1000, 1000000, on_row, &seen) == 1)
		;
	audit_query_free(&q);
	return seen;
}

static void peer_die(struct peer *p)
{
	assert_int_equal(ipc_flush_blocking(p->link), 0);
	ipc_free(&p->link);
}

static void test_sessions_of_a_dead_worker(void **state)
{
	struct peer a, b;
	struct seen seen;

	(void)state;
	recorder_begin(fx.recorder, true, 2);
	peer_open_slot(&a, ROLE_WORKER, 0, 11);
	peer_open_slot(&b, ROLE_WORKER, 1, 12);
	send_event(&a, 1, AUDIT_OPEN, 0xf000000000000001, 0);
	send_event(&a, 2, AUDIT_OPEN, 2, 0);
	send_event(&a, 3, AUDIT_CHECKPOINT, 0xf000000000000001, 700);
	send_event(&b, 1, AUDIT_OPEN, 3, 0);
	UNTIL(a.recorded == 3 && b.recorded == 1);
	/* Its end is known before its last record has been read: the record counts. */
	send_event(&a, 4, AUDIT_ENDED, 2, 5);
	assert_int_equal(ipc_flush_blocking(a.link), 0);
	recorder_worker_gone(fx.recorder, 0);
	ipc_free(&a.link);
	UNTIL(look().lost == 1);
	seen = look();
	assert_true(seen.ended == 1 && seen.bytes == 700 && seen.last_session == 0xf000000000000001);
	send_event(&b, 2, AUDIT_ENDED, 3, 0);
	UNTIL(b.recorded == 2);
	seen = look();
	assert_true(seen.ended == 2 && seen.lost == 1);
	ipc_free(&b.link);
}

/* A link may end though both its ends live: nobody is dead before the supervisor says so. */
static void test_a_lost_link_is_no_death(void **state)
{
	struct peer a, again;

	(void)state;
	recorder_begin(fx.recorder, true, 1);
	peer_open_slot(&a, ROLE_WORKER, 0, 11);
	send_event(&a, 1, AUDIT_OPEN, 1, 0);
	UNTIL(a.recorded == 1);
	ipc_free(&a.link);
	UNTIL(recorder_links(fx.recorder) == 0);
	peer_open_slot(&again, ROLE_WORKER, 0, 11);
	send_event(&again, 2, AUDIT_ENDED, 1, 0);
	UNTIL(again.recorded == 2);
	assert_int_equal(look().lost, 0);
	assert_int_equal(look().ended, 1);
	/* Dead, then: there is no link left to read. */
	send_event(&again, 3, AUDIT_OPEN, 2, 0);
	UNTIL(again.recorded == 3);
	ipc_free(&again.link);
	UNTIL(recorder_links(fx.recorder) == 0);
	recorder_worker_gone(fx.recorder, 0);
	UNTIL(look().lost == 1);
}

/* The successor greets while the last words of the dead are still unread. */
static void test_a_successor_comes_first(void **state)
{
	struct peer a, b;

	(void)state;
	recorder_begin(fx.recorder, true, 1);
	peer_open_slot(&a, ROLE_WORKER, 0, 11);
	send_event(&a, 1, AUDIT_OPEN, 1, 0);
	send_event(&a, 2, AUDIT_OPEN, 2, 0);
	UNTIL(a.recorded == 2);
	peer_open_slot(&b, ROLE_WORKER, 0, 12);
	send_event(&b, 1, AUDIT_OPEN, 3, 0);
	UNTIL(b.recorded == 1);
	assert_int_equal(look().lost, 0);
	send_event(&a, 3, AUDIT_ENDED, 1, 0);
	peer_die(&a);
	UNTIL(look().lost == 1);
	assert_int_equal(look().last_session, 2);
	assert_int_equal(look().ended, 1);
	ipc_free(&b.link);
}

/* A new recorder knows nobody: it waits until all have greeted, and then closes the sessions of who did not. */
static void test_a_new_recorder_asks_who_lives(void **state)
{
	struct peer a, b, c;

	(void)state;
	recorder_begin(fx.recorder, true, 2);
	peer_open_slot(&a, ROLE_WORKER, 0, 11);
	peer_open_slot(&b, ROLE_WORKER, 1, 12);
	send_event(&a, 1, AUDIT_OPEN, 1, 0);
	send_event(&b, 1, AUDIT_OPEN, 2, 0);
	UNTIL(a.recorded == 1 && b.recorded == 1);
	stop();
	UNTIL(a.gone && b.gone);
	ipc_free(&a.link);
	ipc_free(&b.link);
	start();
	recorder_begin(fx.recorder, false, 2);
	peer_open_slot(&a, ROLE_WORKER, 0, 11); /* lived through it */
	send_event(&a, 2, AUDIT_OPEN, 3, 0);
	UNTIL(a.recorded == 2);
	assert_int_equal(look().lost, 0);
	peer_open_slot(&c, ROLE_WORKER, 1, 13); /* 12 died meanwhile */
	UNTIL(look().lost == 1);
	assert_int_equal(look().last_session, 2);
	ipc_free(&a.link);
	ipc_free(&c.link);
}

/* After the end of everything all are lost, before anything new is recorded; however many they are. */
static void test_a_first_recorder_settles_all(void **state)
{
	const unsigned many = 2 * BATCH_COMMIT_MAX + 100;
	struct peer a;

	(void)state;
	recorder_begin(fx.recorder, true, 1);
	peer_open_slot(&a, ROLE_WORKER, 0, 11);
	for (unsigned i = 1; i <= many; i++)
		send_event(&a, i, AUDIT_OPEN, (uint64_t)i << 40, 0);
	UNTIL(a.recorded == many);
	stop();
	UNTIL(a.gone);
	ipc_free(&a.link);
	start();
	recorder_begin(fx.recorder, true, 1);
	peer_open_slot(&a, ROLE_WORKER, 0, 12);
	send_event(&a, 1, AUDIT_OPEN, 1, 0);
	UNTIL(a.recorded == 1);
	assert_int_equal(look().lost, many);
	assert_int_equal(rows(), 2 * many + 1);
	/* Once is enough. */
	stop();
	UNTIL(a.gone);
	ipc_free(&a.link);
	start();
	recorder_begin(fx.recorder, true, 1);
	UNTIL(look().lost == many + 1);
}

/* ---- a store that fails
 * ------------------------------------------------------------------------------------------------ */

/* From now on no file of this process grows beyond the audit's log: the disk is full. */
static void fill_disk(void)
{
	struct rlimit limit;
	struct stat st;

	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(stat("audit-00000001.db-wal", &st), 0);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = (rlim_t)st.st_size;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void empty_disk(void)
{
	struct rlimit limit;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = limit.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void test_full_disk(void **state)
{
	struct peer p, control;

	(void)state;
	peer_open(&p, ROLE_WORKER);
	peer_open(&control, ROLE_CONTROL);
	send_record(&p, 9, 1, 0);
	UNTIL(p.recorded == 1);
	fill_disk();
	send_record(&p, 9, 2, 16000);
	send_record(&p, 9, 3, 0);
	UNTIL(status_is(&control, "failing"));
	UNTIL(status_number(&control, "failures") >= 3); /* tried again, with pauses */
	assert_int_equal(p.recorded, 1);
	assert_int_equal(status_number(&control, "queued"), 2);
	assert_int_equal(recorder_finish(fx.recorder), -1);
	empty_disk();
	UNTIL(p.recorded == 3);
	assert_int_equal(rows(), 3);
	assert_true(status_is(&control, "ok"));
	ipc_free(&p.link);
	ipc_free(&control.link);
}

/* While the disk is full, memory does not fill up instead: senders have to wait, and get it all written in the end. */
static void test_back_pressure(void **state)
{
	struct peer p, control;
	uint64_t sequence = 1;

	(void)state;
	peer_open(&p, ROLE_WORKER);
	peer_open(&control, ROLE_CONTROL);
	send_record(&p, 9, sequence, 0);
	UNTIL(p.recorded == 1);
	fill_disk();
	/* 20 MiB, as fast as they are taken. */
	while (sequence < 1300) {
		if (ipc_queued(p.link) < 1024 * 1024)
			send_record(&p, 9, ++sequence, 16000);
		else if (status_number(&control, "queued_bytes") >= BATCH_QUEUE_BYTES_MAX)
			break;
	}
	assert_true(status_number(&control, "queued_bytes") < BATCH_QUEUE_BYTES_MAX + 2 * 1024 * 1024);
	assert_true(ipc_queued(p.link) > 0);
	assert_int_equal(p.recorded, 1);
	empty_disk();
	UNTIL(p.recorded == sequence);
	assert_int_equal(rows(), sequence);
	ipc_free(&p.link);
	ipc_free(&control.link);
}

static void test_locked_by_a_stranger(void **state)
{
	struct audit_store *stranger = audit_store_open(1u << 30, &why);
	struct peer p, control;

	(void)state;
	assert_non_null(stranger);
	peer_open(&p, ROLE_WORKER);
	peer_open(&control, ROLE_CONTROL);
	assert_int_equal(audit_store_begin(stranger, &why), 0);
	send_record(&p, 9, 1, 0);
	UNTIL(status_is(&control, "failing"));
	assert_int_equal(p.recorded, 0);
	audit_store_rollback(stranger);
	UNTIL(p.recorded == 1);
	audit_store_close(&stranger);
	ipc_free(&p.link);
	ipc_free(&control.link);
}

/* While nothing can be written, workers come and go: there is no number of them that can never be written. */
static void test_many_lives_in_a_failure(void **state)
{
	struct audit_store *stranger = audit_store_open(1u << 30, &why);
	const uint64_t lives = 600;
	struct peer p, control;

	(void)state;
	assert_non_null(stranger);
	peer_open(&control, ROLE_CONTROL);
	assert_int_equal(audit_store_begin(stranger, &why), 0);
	for (uint64_t i = 1; i <= lives; i++) {
		peer_open(&p, ROLE_WORKER);
		send_record(&p, i, 1, 0);
		assert_int_equal(ipc_flush_blocking(p.link), 0);
		ipc_free(&p.link);
		UNTIL(recorder_links(fx.recorder) == 1);
	}
	assert_int_equal(status_number(&control, "queued"), lives);
	audit_store_rollback(stranger);
	UNTIL(rows() == lives);
	assert_true(status_is(&control, "ok"));
	audit_store_close(&stranger);
	ipc_free(&control.link);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_acknowledged_after_commit),
		TEST(test_acknowledged_before_folding),
		TEST(test_two_senders),
		TEST(test_gone_sender_is_recorded),
		TEST(test_resent_to_a_successor),
		TEST(test_bad_senders_are_cut),
		TEST(test_finish),
		TEST(test_sessions_of_a_dead_worker),
		TEST(test_a_lost_link_is_no_death),
		TEST(test_a_successor_comes_first),
		TEST(test_a_new_recorder_asks_who_lives),
		TEST(test_a_first_recorder_settles_all),
		TEST(test_full_disk),
		TEST(test_back_pressure),
		TEST(test_locked_by_a_stranger),
		TEST(test_many_lives_in_a_failure),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
