#include "config.h"

#include "gatewayd/recorder/retention.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/text.h"
#include "schema/audit_holds.h"
#include "schema/audit_json.h"
#include "schema/audit_prune.h"

#define DAY_US AUDIT_PRUNE_KEEP_MIN_US
#define KEEP_MAX_US (INT64_C(100) * 366 * DAY_US)
/* Between looks at a child that has said its last and not ended yet. */
#define REAP_MS 5
/* Where a prune that was cut short has declared something: in the one that is written, or the one before. */
#define SETTLE_SEGMENTS 2
/* A child that tells of no progress for so long hangs on its disk; it tells of it after each segment, and of its rows. */
#define STUCK_S 600
#define PROGRESS_US 1000000

/* What a class is made of. */
#define OF_SESSIONS                                                                                                    \
	(1u << AUDIT_OPEN | 1u << AUDIT_CONNECTED | 1u << AUDIT_ENDED | 1u << AUDIT_FLOW | 1u << AUDIT_FLOW_ENDED |    \
	 1u << AUDIT_CHECKPOINT | 1u << AUDIT_FLOW_CHECKPOINT)
#define OF_DENIALS (1u << AUDIT_DENIED)
#define OF_LOGINS (1u << AUDIT_LOGIN_FAILED | 1u << AUDIT_THROTTLE)
#define OF_POLICY (1u << AUDIT_POLICY)
#define OF_ADMIN (1u << AUDIT_ADMIN | 1u << AUDIT_START | 1u << AUDIT_STOP)
#define OF_LOOKS (1u << AUDIT_LOOK)

_Static_assert((OF_SESSIONS | OF_DENIALS | OF_LOGINS | OF_POLICY | OF_ADMIN | OF_LOOKS) == (1u << AUDIT_KIND_COUNT) - 1,
	       "a kind of event that is in no class could never be pruned by one");

static const struct {
	const char *name;
	uint32_t kinds;
} classes[] = {
	{"sessions", OF_SESSIONS}, {"denials", OF_DENIALS}, {"logins", OF_LOGINS}, {"policy", OF_POLICY}, {"admin", OF_ADMIN}, {"looks", OF_LOOKS},
};

/* Messages of the child: one of these, then a body. */
enum { CHILD_DECLARES = 'd', CHILD_GOES_ON = 'p', CHILD_ENDS = 'e' };
enum { DECLARED = 'y', NOT_DECLARED = 'n' };
#define CHILD_MESSAGE_MAX (AUDIT_PRUNE_BODY_MAX + 1)
#define COUNTS 6

/* Who gave an order: as control was told by the kernel, and what the name service calls that one, "" if it does not. */
struct orderer {
	char uid[64], login[64];
};

struct retention {
	struct event_base *base;
	struct audit_store *store;
	struct audit_holds holds;
	struct audit_event event; /* being made; too big for a stack frame */
	/* The prune under way: */
	pid_t child;
	int fd; /* to it; -1: there is none */
	struct event readable, reap, stuck;
	struct ipc *link; /* who asked; NULL: gone */
	uint64_t id;
	bool dry_run, unsettled; /* it was cut short */
	json_t *result;		/* told once the child has ended: then the next may be ordered */
	struct orderer by;
	char what[160]; /* in words: older than what, which classes */
	int64_t before_us;
	uint32_t unfinished; /* segments that were left out, since they are no plain files yet */
};

/* ---- answers ----------------------------------------------------------------------------------------------------- */

/* Takes over the answer. */
static void answer(struct ipc *link, uint64_t id, json_t *object)
{
	static uint8_t body[49152];
	struct wire_writer w = wire_writer_on(body, sizeof body);
	char *text = object == NULL ? NULL : json_dumps(object, JSON_COMPACT | JSON_ENSURE_ASCII);

	json_decref(object);
	wire_put_u64(&w, id);
	if (text != NULL)
		wire_put_bytes(&w, text, strlen(text));
	if (link != NULL && text != NULL && !w.overflow)
		ipc_send_wire(link, IPC_RETAINED, &w);
	free(text);
}

static void refuse(struct ipc *link, uint64_t id, const char *error)
{
	answer(link, id, json_pack("{s:b, s:s}", "ok", 0, "error", error));
}

/* ---- what is recorded -------------------------------------------------------------------------------------------- */

/* An event of ours, durable: 0 or -1 with *why.  Takes over detail. */
static int note(struct retention *r, const struct orderer *by, const char *reason, json_t *detail, struct err *why)
{
	char digest[AUDIT_HOLDS_DIGEST_TEXT_MAX];
	char *text;

	json_object_set_new(detail, "holds", json_string(audit_holds_digest(&r->holds, digest)));
	if (by->login[0] != '\0')
		json_object_set_new(detail, "login", json_string(by->login));
	text = detail == NULL ? NULL : json_dumps(detail, JSON_COMPACT | JSON_ENSURE_ASCII);
	json_decref(detail);
	memset(&r->event, 0, sizeof r->event);
	r->event.kind = AUDIT_ADMIN;
	r->event.time_us = clock_wall_us();
	snprintf(r->event.user, sizeof r->event.user, "%s", by->uid);
	snprintf(r->event.reason, sizeof r->event.reason, "%s", reason);
	if (text == NULL || strlen(text) > AUDIT_DETAIL_MAX) {
		free(text);
		return err_set(why, "out of memory");
	}
	strcpy(r->event.detail, text);
	free(text);
	if (audit_store_begin(r->store, why) == 0 && audit_store_note(r->store, &r->event, why) == 0 &&
	    audit_store_commit(r->store, why) == 0)
		return 0;
	audit_store_rollback(r->store);
	return -1;
}

static json_t *names_of_holds(const struct retention *r)
{
	json_t *names = json_array();

	for (size_t i = 0; i < r->holds.n; i++)
		json_array_append(names, json_object_get(json_array_get(r->holds.list, i), "name"));
	return names;
}

/* ---- holds ---------------------------------------------------------------------------------------------------------
 * A change is complete in a file beside the old one, then a row tells of it, then the head of the chain has the digest of
 * the new list, then the new file takes the old one's place.  The head decides: nobody without the key can write it, and
 * a file that says anything else was not written by a recorder. */

static bool is_known(const struct retention *r, const uint8_t digest[AUDIT_HOLDS_DIGEST_BYTES])
{
	return audit_store_holds_are(r->store, digest);
}

/* A change that was cut short: before the head knew of it, it is undone, and the audit says so; after, it is done. */
static int catch_up(struct retention *r, struct err *why)
{
	uint8_t digest[AUDIT_HOLDS_DIGEST_BYTES];

	if (!audit_holds_prepared(digest))
		return audit_holds_read(&r->holds, why);
	if (is_known(r, digest))
		return audit_holds_commit(why) != 0 ? -1 : audit_holds_read(&r->holds, why);
	if (audit_holds_read(&r->holds, why) != 0)
		return -1;
	audit_holds_sum(&r->holds, digest);
	if (is_known(r, digest) && note(r, &(struct orderer){0}, "a change of the holds was cut short: they are as they were before",
					json_pack("{s:s, s:o}", "retention", "holds-undone", "standing",
						  names_of_holds(r)),
					why) != 0)
		return -1;
	audit_holds_forget();
	return 0;
}

/* What stands, as it was recorded; or -1: then nothing may be pruned. */
static int read_holds(struct retention *r, struct err *why)
{
	uint8_t digest[AUDIT_HOLDS_DIGEST_BYTES];

	if (catch_up(r, why) != 0)
		return -1;
	audit_holds_sum(&r->holds, digest);
	if (is_known(r, digest))
		return 0;
	return err_set(why, "holds.json: these are not the holds that were recorded: somebody edited or removed the file. "
			    "Nothing is pruned until it is as it was, or was moved away and the holds were placed again");
}

/* Those that a change begins with: a file that is gone is begun anew, and verify will find that it was. */
static int read_holds_to_change(struct retention *r, bool place, struct err *why)
{
	if (read_holds(r, why) == 0)
		return 0;
	return place && !audit_holds_has_file() && r->holds.n == 0 ? 0 : -1;
}

static int tell_holds(struct retention *r, const struct orderer *by, const char *reason, json_t *detail, struct err *why)
{
	uint8_t digest[AUDIT_HOLDS_DIGEST_BYTES];
	struct err ignored;

	json_object_set_new(detail, "standing", names_of_holds(r));
	if (note(r, by, reason, detail, why) != 0) {
		audit_holds_forget();
		catch_up(r, &ignored);
		return -1;
	}
	audit_holds_sum(&r->holds, digest);
	audit_store_set_holds(r->store, digest);
	return audit_holds_commit(why);
}

static int change_hold(struct retention *r, bool place, const json_t *request, const struct orderer *by, struct err *why)
{
	const char *name = json_string_value(json_object_get(request, "name"));
	json_t *filter = json_object_get(request, "filter"), *detail;
	char reason[AUDIT_TEXT_MAX], before[AUDIT_HOLDS_DIGEST_TEXT_MAX];
	int rc;

	if (name == NULL || (place && !json_is_object(filter)))
		return err_set(why, "the request has no name of a hold, or no filter");
	/* What is being pruned does not know of it. */
	if (r->fd >= 0 && !r->dry_run)
		return err_set(why, "the audit is being pruned, and would not know of the change: order it again when that "
				    "is done");
	if (read_holds_to_change(r, place, why) != 0)
		return -1;
	audit_holds_digest(&r->holds, before);
	rc = place ? audit_holds_place(&r->holds, name, filter, by->uid, why) : audit_holds_release(&r->holds, name, why);
	if (rc != 0)
		return rc < 0 ? -1 : 0;
	snprintf(reason, sizeof reason, "hold %s: %s", place ? "placed" : "released", name);
	detail = json_pack("{s:s, s:s, s:s}", "retention", place ? "hold-placed" : "hold-released", "name", name,
			   "before", before);
	/* A filter has at most a few hundred bytes for each of its keys. */
	if (place)
		json_object_set(detail, "filter", filter);
	return tell_holds(r, by, reason, detail, why);
}

static void ask_holds(struct retention *r, struct ipc *link, uint64_t id)
{
	struct err why;

	if (read_holds(r, &why) != 0)
		refuse(link, id, why.text);
	else
		answer(link, id, json_pack("{s:b, s:O}", "ok", 1, "holds", r->holds.list));
}

static const struct timeval stuck_after = {.tv_sec = STUCK_S};

/* ---- the child -----------------------------------------------------------------------------------------------------
 */

static int child_declare(const uint8_t *body, size_t len, void *arg, struct err *why)
{
	uint8_t message[CHILD_MESSAGE_MAX];
	char reply[600];
	int fd = *(const int *)arg;
	ssize_t n;

	message[0] = CHILD_DECLARES;
	memcpy(message + 1, body, len);
	if (send(fd, message, len + 1, MSG_NOSIGNAL) != (ssize_t)len + 1 ||
	    (n = recv(fd, reply, sizeof reply - 1, 0)) < 1)
		return err_set(why, "the recorder does not answer");
	reply[n] = '\0';
	return reply[0] == DECLARED ? 0 : err_set(why, "%s", reply + 1);
}

/* Now and then: whoever waits for us knows that we do not hang. */
static void child_goes_on(void *arg)
{
	static const uint8_t message = CHILD_GOES_ON;
	static int64_t last_us;
	int64_t now_us = clock_mono_us();

	if (now_us - last_us < PROGRESS_US)
		return;
	last_us = now_us;
	send(*(const int *)arg, &message, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void run_child(int fd, struct audit_prune_order *order)
{
	struct audit_prune_counts counts;
	uint8_t message[CHILD_MESSAGE_MAX], *at = message;
	struct err why = {.text = ""};

	order->declare = child_declare;
	order->progress = child_goes_on;
	order->arg = &fd;
	*at++ = CHILD_ENDS;
	*at++ = audit_prune(order, &counts, &why) == 0;
	const uint64_t numbers[COUNTS] = {counts.rows,	    counts.held,    counts.segments,
					  counts.rewritten, counts.skipped, counts.bytes};

	for (int i = 0; i < COUNTS; i++)
		at = audit_put_u64(at, numbers[i]);
	size_t len = strlen(why.text);

	memcpy(at, why.text, len);
	_exit(send(fd, message, (size_t)(at - message) + len, MSG_NOSIGNAL) < 0);
}

static void settle(struct retention *r, uint32_t segments);

static void on_reap(evutil_socket_t fd, short what, void *arg)
{
	struct retention *r = arg;
	struct timeval again = {.tv_usec = REAP_MS * 1000};

	(void)fd, (void)what;
	if (waitpid(r->child, NULL, WNOHANG) == 0) {
		event_add(&r->reap, &again);
		return;
	}
	r->child = 0;
	if (r->unsettled)
		settle(r, SETTLE_SEGMENTS);
	r->unsettled = false;
	answer(r->link, r->id, r->result);
	r->result = NULL;
	r->link = NULL;
}

/* It has said how far it came: so does the audit, and so is whoever asked told. */
static void finish_prune(struct retention *r, bool good, const uint64_t n[COUNTS], const char *error)
{
	json_t *counts = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "rows", (json_int_t)n[0], "held", (json_int_t)n[1],
				   "segments", (json_int_t)n[2], "rewritten", (json_int_t)n[3], "skipped",
				   (json_int_t)(n[4] + r->unfinished), "bytes", (json_int_t)n[5]);
	char reason[AUDIT_TEXT_MAX], before[AUDIT_TIME_TEXT_MAX];
	struct err why = {.text = ""};

	audit_time_text(r->before_us, before);
	json_object_set_new(counts, "before", json_string(before));
	if (!r->dry_run) {
		json_t *detail = json_deep_copy(counts);

		json_object_set_new(detail, "retention", json_string(good ? "prune-done" : "prune-cut-short"));
		if (!good)
			json_object_set_new(detail, "error", json_string(error));
		snprintf(reason, sizeof reason, "%s %llu rows (%s), %llu kept by holds, %llu segments removed",
			 good ? "pruned" : "a prune was cut short after", (unsigned long long)n[0], r->what,
			 (unsigned long long)n[1], (unsigned long long)n[2]);
		audit_store_recount(r->store);
		if (note(r, &r->by, reason, detail, &why) != 0) {
			log_error("what was pruned could not be recorded: %s", why.text);
			good = false;
			error = why.text;
		}
		log_info("%s", reason);
	}
	json_object_set_new(counts, "ok", json_boolean(good));
	if (!good)
		json_object_set_new(counts, "error", json_string(error));
	r->result = counts;
	r->unsettled = !good && !r->dry_run;
	event_del(&r->stuck);
	event_del(&r->readable);
	close(r->fd);
	r->fd = -1;
	on_reap(-1, 0, r);
}

static void take_declaration(struct retention *r, const uint8_t *body, size_t len)
{
	struct audit_store_status status;
	struct audit_pruned p;
	struct err why = {.text = ""};
	char reply[600];
	int n;

	audit_store_status(r->store, &status);
	if (!audit_prune_get(body, len, &p) || p.segment > status.segment || (p.segment == status.segment && !p.withdrawn))
		err_set(&why, "a declaration of what is not there");
	else
		audit_store_declare(r->store, body, len, &why);
	n = snprintf(reply, sizeof reply, "%c%.500s", why.text[0] == '\0' ? DECLARED : NOT_DECLARED, why.text);
	send(r->fd, reply, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* While it hangs, no hold could be placed.  One that a disk keeps from ending stays our child until it does. */
static void on_stuck(evutil_socket_t fd, short what, void *arg)
{
	static const uint64_t none[COUNTS];
	struct retention *r = arg;

	(void)fd, (void)what;
	kill(r->child, SIGKILL);
	finish_prune(r, false, none, "the process that prunes told of no progress for too long, and was ended: prune again");
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	static uint8_t message[CHILD_MESSAGE_MAX + 1];
	struct retention *r = arg;
	uint64_t numbers[COUNTS] = {0};
	ssize_t n = recv(fd, message, sizeof message - 1, MSG_DONTWAIT);

	(void)what;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n >= 1)
		event_add(&r->stuck, &stuck_after);
	if (n == 1 && message[0] == CHILD_GOES_ON)
		return;
	if (n >= 2 && message[0] == CHILD_DECLARES) {
		take_declaration(r, message + 1, (size_t)n - 1);
		return;
	}
	if (n < 2 + 8 * COUNTS || message[0] != CHILD_ENDS) {
		finish_prune(r, false, numbers, "the process that prunes ended before it was done: prune again");
		return;
	}
	for (int i = 0; i < COUNTS; i++)
		numbers[i] = audit_get_u64(message + 2 + 8 * i);
	message[n] = '\0';
	finish_prune(r, message[1] == 1, numbers, (const char *)message + 2 + 8 * COUNTS);
}

/* ---- orders --------------------------------------------------------------------------------------------------------
 */

/* Which kinds; none named: all.  NULL, or what is wrong. */
static const char *read_classes(const json_t *names, uint32_t *kinds, char *words, size_t size)
{
	const json_t *name;
	size_t i, used = 0;

	*kinds = json_array_size(names) == 0 ? (1u << AUDIT_KIND_COUNT) - 1 : 0;
	snprintf(words, size, "of all classes");
	json_array_foreach(names, i, name)
	{
		const char *text = json_string_value(name);
		size_t c = 0;

		while (c < sizeof classes / sizeof *classes && (text == NULL || strcmp(classes[c].name, text) != 0))
			c++;
		if (c == sizeof classes / sizeof *classes)
			return "a class is sessions, denials, logins, policy, admin or looks";
		if (*kinds & classes[c].kinds)
			continue;
		*kinds |= classes[c].kinds;
		used += (size_t)snprintf(words + used, size - used, "%s%s", used == 0 ? "" : ", ", text);
	}
	return NULL;
}

/* What a prune has declared and not done must not stand as if it had been: of this segment and the last, which is where
 * one that was cut short has it.  The next prune looks at all of them. */
static int declare_here(const uint8_t *body, size_t len, void *arg, struct err *why)
{
	return audit_store_declare(arg, body, len, why);
}

static void settle(struct retention *r, uint32_t segments)
{
	const struct audit_prune_order order = {.below = UINT32_MAX, .declare = declare_here, .arg = r->store};
	struct err why;

	if (audit_prune_settle(&order, segments, &why) != 0)
		log_error("what a prune that was cut short had declared is not withdrawn: %s", why.text);
}

/* In the child nothing is left of us but memory, and the recorder's end is no descriptor of its own. */
static int start_child(struct retention *r, struct audit_prune_order *order, struct err *why)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
		return err_set_errno(why, "a process that prunes cannot be started");
	r->child = audit_store_fork(r->store, ends[1]);
	if (r->child == 0)
		run_child(ends[1], order);
	close(ends[1]);
	if (r->child < 0) {
		close(ends[0]);
		return err_set_errno(why, "a process that prunes cannot be started");
	}
	r->fd = ends[0];
	event_assign(&r->readable, r->base, r->fd, EV_READ | EV_PERSIST, on_readable, r);
	event_add(&r->readable, NULL);
	event_add(&r->stuck, &stuck_after);
	return 0;
}

static int read_order(struct retention *r, const json_t *request, struct audit_prune_order *order, struct err *why)
{
	int64_t keep_us = json_integer_value(json_object_get(request, "keep_us"));
	const char *hold = json_string_value(json_object_get(request, "hold"));
	struct audit_store_status status;
	char words[100], before[AUDIT_TIME_TEXT_MAX];
	const char *wrong = read_classes(json_object_get(request, "classes"), &order->kinds, words, sizeof words);

	if (r->fd >= 0 || r->child > 0)
		return err_set(why, "the audit is being pruned already");
	if (wrong != NULL)
		return err_set(why, "%s", wrong);
	if (keep_us < DAY_US || keep_us > KEEP_MAX_US)
		return err_set(why, "at least a day is kept, and at most a hundred years");
	if (read_holds(r, why) != 0)
		return -1;
	if (hold != NULL && !audit_holds_stands(&r->holds, hold))
		return err_set(why, "the hold that this prune counts on does not stand: nothing was pruned");
	audit_store_finish_now(r->store);
	audit_store_status(r->store, &status);
	order->below = status.unfinished != 0 ? status.unfinished : status.segment;
	r->unfinished = status.segment - order->below;
	order->before_us = clock_wall_us() - keep_us;
	order->dry_run = r->dry_run = json_is_true(json_object_get(request, "dry_run"));
	order->holds = r->holds.filters;
	order->nholds = r->holds.n;
	r->before_us = order->before_us;
	snprintf(r->what, sizeof r->what, "%s, before %s", words, audit_time_text(order->before_us, before));
	return 0;
}

/* The order is recorded before the first row goes. */
static int start_prune(struct retention *r, struct ipc *link, uint64_t id, const json_t *request, const struct orderer *by,
		       struct err *why)
{
	struct audit_prune_order order = {0};
	char reason[AUDIT_TEXT_MAX];

	if (read_order(r, request, &order, why) != 0)
		return -1;
	snprintf(reason, sizeof reason, "prune begun: rows %s", r->what);
	r->by = *by;
	if (!r->dry_run &&
	    note(r, by, reason, json_pack("{s:s, s:I, s:o}", "retention", "prune-begun", "before_us", (json_int_t)r->before_us,
			   "standing", names_of_holds(r)),
		 why) != 0)
		return -1;
	/* The child looks at those that are finished. */
	if (!r->dry_run)
		settle(r, SETTLE_SEGMENTS + r->unfinished);
	if (start_child(r, &order, why) != 0)
		return -1;
	r->link = link;
	r->id = id;
	return 0;
}

static bool read_orderer(const json_t *request, struct orderer *by)
{
	const char *uid = json_string_value(json_object_get(request, "by"));
	const char *login = json_string_value(json_object_get(request, "login"));

	if (uid == NULL || login == NULL || !text_is_plain(login))
		return false;
	snprintf(by->uid, sizeof by->uid, "%s", uid);
	snprintf(by->login, sizeof by->login, "%s", login);
	return true;
}

void retention_ask(struct retention *r, struct ipc *link, const struct ipc_message *m)
{
	struct wire_reader reader = wire_reader_on(m->body, m->len);
	uint64_t id = wire_get_u64(&reader);
	size_t len;
	const uint8_t *text = wire_get_bytes(&reader, ipc_body_max(IPC_RETENTION), &len);
	json_t *request = !wire_done(&reader) || text == NULL
				  ? NULL
				  : json_loadb((const char *)text, len, JSON_REJECT_DUPLICATES, NULL);
	const char *what = json_string_value(json_object_get(request, "verb"));
	struct orderer by;
	bool known = read_orderer(request, &by);
	struct err why = {.text = "the request is none of prune, place, release or holds"};
	int rc = -1;

	if (what == NULL || !known) {
		json_decref(request);
		ipc_reject(link, "a malformed order of retention");
		return;
	}
	if (strcmp(what, "holds") == 0) {
		ask_holds(r, link, id);
	} else if (strcmp(what, "prune") == 0) {
		if (start_prune(r, link, id, request, &by, &why) != 0)
			refuse(link, id, why.text);
	} else {
		if (strcmp(what, "place") == 0 || strcmp(what, "release") == 0)
			rc = change_hold(r, what[0] == 'p', request, &by, &why);
		if (rc != 0)
			refuse(link, id, why.text);
		else
			answer(link, id, json_pack("{s:b}", "ok", 1));
	}
	json_decref(request);
}

void retention_link_gone(struct retention *r, const struct ipc *link)
{
	if (r->link == link)
		r->link = NULL;
}

struct retention *retention_new(struct event_base *base, struct audit_store *store)
{
	struct retention *r = calloc(1, sizeof *r);
	struct err why;

	if (r == NULL)
		log_fatal("out of memory for the retention of the audit");
	r->base = base;
	r->store = store;
	r->fd = -1;
	evtimer_assign(&r->reap, base, on_reap, r);
	evtimer_assign(&r->stuck, base, on_stuck, r);
	settle(r, SETTLE_SEGMENTS);
	if (read_holds(r, &why) != 0)
		log_error("the holds of the audit: %s", why.text);
	return r;
}

void retention_free(struct retention **rp)
{
	struct retention *r = *rp;

	*rp = NULL;
	if (r == NULL)
		return;
	/* Its child ends with us; whoever waits sees our link end. */
	if (r->fd >= 0) {
		event_del(&r->readable);
		event_del(&r->stuck);
		close(r->fd);
	}
	event_del(&r->reap);
	json_decref(r->result);
	audit_holds_clear(&r->holds);
	free(r);
}
