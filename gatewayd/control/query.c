/* An audit query: a reader of its own writes rows into a pipe whose other end the caller gets.  No row passes through here.
 *
 * Who looks is part of the audit: an export, and what anybody but root asks, is recorded with its filter before the reader begins.
 * Whoever follows the audit asks each second for what is new by the same filter; that is recorded once an hour, with the row that it
 * goes on from: what is not newer than that is another look. */
#include "config.h"

#include <event2/event.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "gatewayd/control/internal.h"

#define FOLLOWED_MAX 32
#define FOLLOWED_US (3600 * INT64_C(1000000))

struct query {
	struct waiter recorded;
	struct control *control;
	uint64_t client; /* its number: it may have left, and another may stand where it stood */
	uint8_t what[crypto_generichash_BYTES];
	int64_t after; /* the row it goes on from; -1: none, it follows nothing */
	char *filter;
	struct record *record; /* that it was asked, until that is durable */
	struct event deadline;
	struct ipc *link;
};

static void query_free(struct query *q)
{
	if (event_initialized(&q->deadline))
		evtimer_del(&q->deadline);
	if (q->record != NULL)
		record_forget(&q->record);
	ipc_free(&q->link);
	free(q->filter);
	free(q);
}

/* ---- the reader ------------------------------------------------------------------------------------------------------- */

static void on_reader_message(struct ipc *link, struct ipc_message *m, void *arg)
{
	(void)link, (void)m, (void)arg; /* a reader has nothing to say to us */
}

static void on_reader_gone(struct ipc *link, void *arg)
{
	(void)link;
	query_free(arg);
}

static void on_reader(struct control *c, int fd, void *arg)
{
	struct query *q = arg;
	struct client *client = admin_find_client(c, q->client);
	int ends[2];

	if (fd < 0 || client == NULL || pipe2(ends, O_CLOEXEC) != 0) {
		if (client != NULL)
			admin_refuse(client, "too many queries are being answered: try again when one is done");
		if (fd >= 0)
			close(fd);
		query_free(q);
		return;
	}
	q->link = ipc_new(fd, ROLE_CONTROL, ROLE_READER, 0);
	ipc_send(q->link, IPC_QUERY, q->filter, strlen(q->filter), &ends[1], 1);
	ipc_attach(q->link, c->child->base, on_reader_message, on_reader_gone, q);
	admin_reply(client, json_pack("{s:b}", "ok", 1), ends[0]);
}

/* ---- who looks -------------------------------------------------------------------------------------------------------- */

/* What somebody follows, by a hash of who and of the filter without what changes from one look to the next. */
static struct followed {
	uint8_t what[crypto_generichash_BYTES];
	int64_t after; /* as recorded */
	int64_t recorded_us;
} followed[FOLLOWED_MAX];
static size_t nfollowed;

static void hash_what(const struct author *author, const json_t *filter, uint8_t what[crypto_generichash_BYTES])
{
	/* Not how many nor which end first: a look at one row is no look at all of them. */
	static const char *const changing[] = {"after", "progress"};
	json_t *rest = json_copy((json_t *)(uintptr_t)filter);
	crypto_generichash_state state;
	char *text;

	for (size_t i = 0; i < sizeof changing / sizeof *changing; i++)
		json_object_del(rest, changing[i]);
	text = json_dumps(rest, JSON_COMPACT | JSON_SORT_KEYS);
	crypto_generichash_init(&state, NULL, 0, crypto_generichash_BYTES);
	crypto_generichash_update(&state, (const uint8_t *)&author->uid, sizeof author->uid);
	if (text != NULL)
		crypto_generichash_update(&state, (const uint8_t *)text, strlen(text));
	crypto_generichash_final(&state, what, crypto_generichash_BYTES);
	free(text);
	json_decref(rest);
}

/* The row that a look for what is new goes on from; -1: it is no such look. */
static int64_t row_before(const json_t *filter)
{
	const json_t *after = json_object_get(filter, "after");
	bool rows = json_object_get(filter, "report") == NULL && json_object_get(filter, "stats") == NULL &&
		    json_object_get(filter, "sql") == NULL;

	return rows && json_is_integer(after) && json_integer_value(after) >= 0 ? json_integer_value(after) : -1;
}

/* True if what this look can tell was recorded already, by one that went on from the same row or an older one. */
static bool is_followed(const struct author *author, const json_t *filter)
{
	uint8_t what[crypto_generichash_BYTES];
	int64_t now = clock_mono_us(), after = row_before(filter);

	if (after < 0)
		return false;
	hash_what(author, filter, what);
	for (size_t i = 0; i < FOLLOWED_MAX; i++)
		if (followed[i].recorded_us != 0 && now - followed[i].recorded_us < FOLLOWED_US &&
		    after >= followed[i].after && memcmp(followed[i].what, what, sizeof what) == 0)
			return true;
	return false;
}

static void note_followed(const struct query *q)
{
	if (q->after < 0)
		return;
	memcpy(followed[nfollowed].what, q->what, sizeof q->what);
	followed[nfollowed].after = q->after;
	followed[nfollowed].recorded_us = clock_mono_us();
	nfollowed = (nfollowed + 1) % FOLLOWED_MAX;
}

/* What it is called in the audit; NULL: it is not recorded. */
static const char *name_of(const struct author *author, const json_t *request, const json_t *filter)
{
	const char *purpose = json_string_value(json_object_get(request, "purpose"));

	if (purpose != NULL && strcmp(purpose, "export") == 0)
		return "audit export";
	if (author->uid == 0 || is_followed(author, filter))
		return NULL;
	return json_object_get(filter, "report") != NULL  ? "audit report"
	       : json_object_get(filter, "stats") != NULL ? "audit stats"
	       : json_object_get(filter, "sql") != NULL	  ? "audit sql"
							  : "audit query";
}

static void on_recorded(struct waiter *waiter)
{
	struct query *q = (struct query *)waiter;

	q->record = NULL;
	evtimer_del(&q->deadline);
	note_followed(q);
	control_spawn(q->control, ROLE_READER, on_reader, q);
}

static void refuse_unrecorded(struct query *q)
{
	struct client *client = admin_find_client(q->control, q->client);

	if (client != NULL)
		admin_refuse(client, "the audit cannot record that it was asked, so it is not answered: see gatewayctl status");
	query_free(q);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	refuse_unrecorded(arg);
}

static void record_first(struct query *q, const struct author *author, const char *name, const json_t *filter)
{
	const unsigned ms = q->control->child->config->audit_timeout_ms;
	const struct timeval deadline = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
	char reason[AUDIT_TEXT_MAX + 1];

	snprintf(reason, sizeof reason, "%s %s", name, q->filter);
	hash_what(author, filter, q->what);
	q->after = row_before(filter);
	q->recorded.durable = on_recorded;
	evtimer_assign(&q->deadline, q->control->child->base, on_deadline, q);
	evtimer_add(&q->deadline, &deadline);
	q->record = recording_grants(q->control->recording)
			    ? control_record_query(q->control, author, reason, filter, &q->recorded)
			    : NULL;
	if (q->record == NULL)
		refuse_unrecorded(q);
}

/* Without waiting for a row: root looks also when none can be written; and what is followed has one. */
static void look(struct query *q, const struct author *author, const json_t *filter)
{
	if (!is_followed(author, filter)) {
		hash_what(author, filter, q->what);
		q->after = row_before(filter);
		note_followed(q);
	}
	control_spawn(q->control, ROLE_READER, on_reader, q);
}

void query_start(struct client *client, const json_t *request)
{
	const json_t *filter = json_object_get(request, "filter");
	struct query *q = calloc(1, sizeof *q);
	const char *name;

	if (q == NULL || !json_is_object(filter) ||
	    (q->filter = json_dumps(filter, JSON_COMPACT | JSON_ENSURE_ASCII)) == NULL ||
	    strlen(q->filter) > ipc_body_max(IPC_QUERY)) {
		free(q != NULL ? q->filter : NULL);
		free(q);
		admin_refuse(client, "the query has no filter object, or one that is too large");
		return;
	}
	q->control = admin_control(client);
	q->client = admin_number(client);
	name = name_of(admin_author(client), request, filter);
	if (name != NULL || is_followed(admin_author(client), filter))
		admin_on_record(client);
	if (name == NULL)
		look(q, admin_author(client), filter);
	else
		record_first(q, admin_author(client), name, filter);
}
