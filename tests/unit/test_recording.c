#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <event2/event.h>

#include "common/log.h"
#include "gatewayd/recording.h"

#define DEADLINE_S 20
#define MAX 70000

/* The far end: a recorder that acknowledges when it is told to. */
struct recorder {
	struct ipc *link;
	uint64_t incarnation, greeted;
	uint64_t sequences[MAX], sessions[MAX];
	size_t count;
	bool gone;
};

static struct event_base *base;
static struct recording *recording;
static struct recorder recorder, other;
static struct audit_event event;
static uintptr_t durable[MAX]; /* waiters, in the order in which they were told */
static size_t ndurable;
static unsigned progress, drained, statuses;
static bool timed_out;

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

static void settle(void)
{
	for (int i = 0; i < 20; i++)
		event_base_loop(base, EVLOOP_NONBLOCK);
}

static struct waiter waiters[256];

static void on_durable(struct waiter *waiter)
{
	durable[ndurable++] = (uintptr_t)(waiter - waiters);
}

static void on_progress(void *arg)
{
	assert_ptr_equal(arg, &progress);
	progress++;
}

static void on_other_message(struct ipc_message *m, void *arg)
{
	assert_ptr_equal(arg, &progress);
	assert_int_equal(m->type, IPC_STATUS);
	statuses++;
}

static void on_drained(void *arg)
{
	assert_ptr_equal(arg, &drained);
	drained++;
}

static void on_record(struct ipc *link, struct ipc_message *m, void *arg)
{
	static struct audit_event e;
	struct recorder *r = arg;
	struct wire_reader in = wire_reader_on(m->body, m->len);
	uint64_t incarnation, sequence;

	(void)link;
	if (m->type == IPC_HELLO) {
		assert_true(r->greeted == 0 && r->count == 0); /* once, before all else */
		r->greeted = wire_get_u64(&in);
		assert_true(wire_done(&in));
		return;
	}
	assert_int_equal(m->type, IPC_RECORD);
	assert_true(audit_get_record(&in, &incarnation, &sequence, &e));
	assert_int_equal(incarnation, r->greeted);
	r->incarnation = incarnation;
	r->sequences[r->count] = sequence;
	r->sessions[r->count++] = e.session;
}

static void on_gone(struct ipc *link, void *arg)
{
	struct recorder *r = arg;

	(void)link;
	r->gone = true;
}

static void connect_to(struct recorder *r)
{
	int fds[2];

	memset(r, 0, sizeof *r);
	assert_int_equal(ipc_pair(fds), 0);
	r->link = ipc_new(fds[1], ROLE_RECORDER, ROLE_CONTROL, 0);
	ipc_attach(r->link, base, on_record, on_gone, r);
	recording_link(recording, fds[0]);
}

static void acknowledge(struct recorder *r, uint64_t sequence)
{
	assert_int_equal(ipc_send(r->link, IPC_RECORDED, &sequence, sizeof sequence, NULL, 0), 0);
}

/* Each event carries its number as its session. */
static struct record *record(uint64_t number, uintptr_t waiter)
{
	event.session = number;
	assert_true(waiter < sizeof waiters / sizeof *waiters);
	waiters[waiter].durable = on_durable;
	return record_event(recording, &event, waiter == 0 ? NULL : &waiters[waiter]);
}

static int setup(void **state)
{
	struct recording_callbacks callbacks = {
		.progress = on_progress, .message = on_other_message, .arg = &progress};

	(void)state;
	base = event_base_new();
	memset(&event, 0, sizeof event);
	event.kind = AUDIT_DENIED;
	event.time_us = 1;
	memset(&recorder, 0, sizeof recorder);
	memset(&other, 0, sizeof other);
	ndurable = progress = drained = statuses = 0;
	recording = recording_new(base, ROLE_CONTROL, &callbacks);
	return base == NULL || recording == NULL;
}

static int teardown(void **state)
{
	(void)state;
	recording_free(&recording);
	ipc_free(&recorder.link);
	ipc_free(&other.link);
	event_base_free(base);
	return recording != NULL;
}

static void events_arrive_in_order_numbered_from_one(void **state)
{
	(void)state;
	connect_to(&recorder);
	for (uint64_t i = 1; i <= 500; i++)
		assert_non_null(record(i + 1000, 0));
	assert_int_equal(recording_waiting(recording), 500);
	UNTIL(recorder.count == 500);
	for (uint64_t i = 0; i < 500; i++) {
		assert_int_equal(recorder.sequences[i], i + 1);
		assert_int_equal(recorder.sessions[i], i + 1001);
	}
	assert_true(recorder.incarnation != 0);
	assert_int_equal(ndurable, 0); /* sent is not durable */
	assert_int_equal(recording_waiting(recording), 500);
}

static void an_acknowledgement_tells_all_up_to_it(void **state)
{
	(void)state;
	connect_to(&recorder);
	for (uint64_t i = 1; i <= 10; i++)
		assert_non_null(record(i, i == 3 ? 0 : 100 + i));
	UNTIL(recorder.count == 10);
	acknowledge(&recorder, 4);
	UNTIL(progress == 1);
	assert_int_equal(ndurable, 3); /* 1, 2 and 4: nobody waits for 3 */
	assert_int_equal(durable[0], 101);
	assert_int_equal(durable[2], 104);
	assert_int_equal(recording_waiting(recording), 6);
	acknowledge(&recorder, 4); /* again: nothing is told twice */
	UNTIL(progress == 2);
	assert_int_equal(ndurable, 3);
	acknowledge(&recorder, 10);
	UNTIL(recording_waiting(recording) == 0);
	assert_int_equal(ndurable, 9);
	assert_int_equal(durable[8], 110);
}

static void what_is_recorded_before_a_recorder_is_there_waits(void **state)
{
	(void)state;
	assert_null(recording_peer(recording));
	assert_non_null(record(1, 11));
	assert_non_null(record(2, 12));
	settle();
	assert_int_equal(recording_waiting(recording), 2);
	connect_to(&recorder);
	assert_non_null(recording_peer(recording));
	UNTIL(recorder.count == 2);
	acknowledge(&recorder, 2);
	UNTIL(ndurable == 2);
}

/* Nothing acknowledged is sent again, and nothing else is left out; the incarnation stays, so that a new recorder can drop
 * what the old one had committed without saying so. */
static void a_new_recorder_gets_all_that_is_not_acknowledged(void **state)
{
	(void)state;
	connect_to(&recorder);
	for (uint64_t i = 1; i <= 8; i++)
		assert_non_null(record(i, 100 + i));
	UNTIL(recorder.count == 8);
	acknowledge(&recorder, 3);
	UNTIL(ndurable == 3);
	ipc_free(&recorder.link);
	UNTIL(recording_peer(recording) == NULL);
	assert_non_null(record(9, 109));
	connect_to(&other);
	assert_non_null(record(10, 110));
	UNTIL(other.count == 7);
	settle();
	assert_int_equal(other.count, 7);
	assert_true(other.incarnation == recorder.incarnation);
	for (uint64_t i = 0; i < 7; i++) {
		assert_int_equal(other.sequences[i], i + 4);
		assert_int_equal(other.sessions[i], i + 4);
	}
	acknowledge(&other, 10);
	UNTIL(recording_waiting(recording) == 0);
	assert_int_equal(ndurable, 10);
	assert_int_equal(durable[9], 110);
}

/* The new link may come before the old one is seen to end. */
static void a_new_link_replaces_one_that_still_lives(void **state)
{
	(void)state;
	connect_to(&recorder);
	assert_non_null(record(1, 101));
	UNTIL(recorder.count == 1);
	connect_to(&other);
	UNTIL(recorder.gone);
	UNTIL(other.count == 1);
	acknowledge(&other, 1);
	UNTIL(ndurable == 1);
}

/* The last recorder's commit may be found by the new one before all is sent again. */
static void an_acknowledgement_may_run_ahead_of_the_resending(void **state)
{
	(void)state;
	assert_non_null(record(1, 101));
	assert_non_null(record(2, 102));
	connect_to(&recorder);
	acknowledge(&recorder, 2);
	UNTIL(ndurable == 2);
	assert_non_null(record(3, 103));
	UNTIL(recorder.count > 0 && recorder.sequences[recorder.count - 1] == 3);
	acknowledge(&recorder, 3);
	UNTIL(ndurable == 3);
}

static void who_is_forgotten_is_not_told(void **state)
{
	(void)state;
	connect_to(&recorder);
	struct record *first = record(1, 101), *second = record(2, 102);

	assert_non_null(first);
	assert_non_null(second);
	record_forget(&first);
	assert_null(first);
	record_forget(&first);
	acknowledge(&recorder, 2);
	UNTIL(ndurable == 1);
	assert_int_equal(durable[0], 102);
	assert_int_equal(recording_waiting(recording), 0);
	assert_int_equal(recorder.count, 2); /* forgotten by its waiter, not by the audit */
}

static void what_was_never_given_cannot_be_acknowledged(void **state)
{
	uint64_t huge = UINT64_MAX;

	(void)state;
	connect_to(&recorder);
	assert_non_null(record(1, 101));
	UNTIL(recorder.count == 1);
	acknowledge(&recorder, 2);
	acknowledge(&recorder, huge);
	assert_int_equal(ipc_send(recorder.link, IPC_RECORDED, "1234", 4, NULL, 0), 0); /* malformed */
	assert_int_equal(ipc_send(recorder.link, IPC_STATUS, "{}", 2, NULL, 0), 0);
	UNTIL(statuses == 1); /* in order: all before it have been seen */
	assert_int_equal(ndurable, 0);
	assert_int_equal(recording_waiting(recording), 1);
	acknowledge(&recorder, 1);
	UNTIL(ndurable == 1);
}

static void the_number_that_waits_is_bounded(void **state)
{
	size_t n = 0;

	(void)state;
	while (recording_has_plenty(recording)) {
		assert_non_null(record(n + 1, 0));
		assert_true(++n <= 32768);
	}
	size_t half = n;

	assert_true(half > 5000);
	while (recording_has_room(recording)) {
		assert_non_null(record(n + 1, 0));
		assert_true(++n <= 65536);
	}
	assert_in_range(n, 2 * half - half / 50, 2 * half + half / 50);
	/* Who begins something asks for room; what ends or refuses what has begun always finds it. */
	event.kind = AUDIT_ENDED;
	assert_non_null(record(n + 1, 0));
	event.kind = AUDIT_DENIED;
	assert_non_null(record(n + 2, 0));
	connect_to(&recorder);
	/* In windows: the recorder is never flooded, and all arrives in the end, in order. */
	for (size_t acked = 0; acked < n + 2; acked = recorder.count) {
		UNTIL(recorder.count > acked);
		acknowledge(&recorder, recorder.sequences[recorder.count - 1]);
	}
	UNTIL(recording_waiting(recording) == 0);
	assert_true(recording_has_room(recording));
	assert_int_equal(recorder.count, n + 2);
	for (size_t i = 0; i < n + 2; i++)
		assert_int_equal(recorder.sequences[i], i + 1);
}

static void the_bytes_that_wait_are_bounded(void **state)
{
	size_t n = 0;

	(void)state;
	memset(event.detail, 'x', AUDIT_DETAIL_MAX);
	memcpy(event.detail, "{\"a\":\"", 6);
	memcpy(event.detail + AUDIT_DETAIL_MAX - 2, "\"}", 2);
	while (recording_has_room(recording) && n < 1000)
		assert_non_null(record(++n, 0));
	assert_true(n >= 400 && n <= 520); /* 8 MiB of 16 KiB each */
	assert_false(recording_has_room(recording));
	connect_to(&recorder);
	settle();
	assert_true(recorder.count < n); /* only a window is under way */
}

/* Recorders are killed while the queue is full and another window is under way: what was acknowledged is gone, all else is sent again,
 * in order, and what ends meanwhile finds room. */
static void a_full_queue_outlives_recorders(void **state)
{
	uint64_t n = 0, acknowledged = 0;

	(void)state;
	while (recording_has_room(recording))
		assert_non_null(record(++n, 0));
	for (unsigned life = 0; life < 6; life++) {
		connect_to(&recorder);
		UNTIL(recorder.count > 100 * (life + 1));
		assert_int_equal(recording_has_room(recording), acknowledged > 0);
		for (size_t i = 0; i < recorder.count; i++)
			assert_int_equal(recorder.sequences[i], acknowledged + 1 + i);
		if (life >= 2) {
			acknowledged = recorder.sequences[49];
			acknowledge(&recorder, acknowledged);
			UNTIL(recording_waiting(recording) == n - acknowledged);
		}
		ipc_free(&recorder.link);
		settle();
		assert_null(recording_peer(recording));
		assert_int_equal(recording_waiting(recording), n - acknowledged);
		assert_non_null(record(++n, 0));
	}
	connect_to(&recorder);
	for (size_t acked = 0; acked < n - acknowledged; acked = recorder.count) {
		UNTIL(recorder.count > acked);
		acknowledge(&recorder, recorder.sequences[recorder.count - 1]);
	}
	UNTIL(recording_waiting(recording) == 0);
	assert_int_equal(recorder.count, n - acknowledged);
	for (size_t i = 0; i < recorder.count; i++)
		assert_true(recorder.sequences[i] == acknowledged + 1 + i && recorder.sessions[i] == recorder.sequences[i]);
	assert_true(recording_has_room(recording));
}

static void draining(void **state)
{
	(void)state;
	recording_drain(recording, on_drained, &drained);
	assert_int_equal(drained, 1); /* nothing waits: at once */
	drained = 0;
	connect_to(&recorder);
	assert_non_null(record(1, 0));
	assert_non_null(record(2, 0));
	recording_drain(recording, on_drained, &drained);
	UNTIL(recorder.count == 2);
	acknowledge(&recorder, 1);
	UNTIL(progress == 1);
	assert_int_equal(drained, 0);
	acknowledge(&recorder, 2);
	UNTIL(drained == 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(events_arrive_in_order_numbered_from_one),
		TEST(an_acknowledgement_tells_all_up_to_it),
		TEST(what_is_recorded_before_a_recorder_is_there_waits),
		TEST(a_new_recorder_gets_all_that_is_not_acknowledged),
		TEST(a_new_link_replaces_one_that_still_lives),
		TEST(an_acknowledgement_may_run_ahead_of_the_resending),
		TEST(who_is_forgotten_is_not_told),
		TEST(what_was_never_given_cannot_be_acknowledged),
		TEST(the_number_that_waits_is_bounded),
		TEST(the_bytes_that_wait_are_bounded),
		TEST(a_full_queue_outlives_recorders),
		TEST(draining),
	};

	/* What it refuses, it says, line by line. */
	log_init("test", LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
