/* Commands that leave no row of their own: what only looks, and what is refused for another reason than its caller's rights.
 *
 * The first of a kind (who, what, what came of it) has a row at once; those that follow are counted, and told by one row a minute, so
 * that whoever looks each second does not fill the audit.  While it cannot be written, or keeps what is left of its disk for ends and
 * refusals, all are counted. */
#include "config.h"

#include <event2/event.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/text.h"
#include "gatewayd/control/internal.h"
#include "schema/audit_json.h"

#define LOOKS_MAX 1024
/* Kinds of one user, of a minute, and of all; more are counted by command. */
#define LOOKS_OF_USER_MAX 40
#define KINDS_MAX 512
/* From so many on by user only, who so keeps a place; the last two are for many users. */
#define COMMANDS_MAX 768
#define USERS_MAX (LOOKS_MAX - 2)
#define WINDOW_S 60
/* Of what was asked, in the detail of a row. */
#define ASKED_MAX 4096
#define KEY_BYTES 16

static struct look {
	struct author author;
	uint8_t key[KEY_BYTES];
	char command[64];
	char *asked; /* JSON; NULL: nothing */
	size_t asked_bytes; /* more than are kept of it; 0: it is whole */
	bool various; /* of this command, asked for this and that */
	char why[160]; /* it was refused; "": it was not */
	uint64_t count; /* that no row tells of yet */
	int64_t first_us, last_us; /* of those, wall clock */
} looks[LOOKS_MAX];
static size_t nlooks;
static struct event window;

/* ---- rows --------------------------------------------------------------------------------------------------------------- */

static void fill_detail(const struct look *l, bool counted, char *out, size_t size)
{
	json_t *o = json_pack("{s:I, s:s}", "uid", (json_int_t)l->author.uid, "command", l->command);
	char first[AUDIT_TIME_TEXT_MAX], last[AUDIT_TIME_TEXT_MAX];
	size_t len;

	if (l->author.login[0] != '\0')
		json_object_set_new(o, "login", json_string(l->author.login));
	if (l->asked_bytes > 0)
		json_object_update_new(o, json_pack("{s:s, s:I}", "asked_cut", l->asked, "asked_bytes", (json_int_t)l->asked_bytes));
	else if (l->asked != NULL)
		json_object_set_new(o, "asked", json_loads(l->asked, 0, NULL));
	if (l->why[0] != '\0')
		json_object_set_new(o, "why", json_string(l->why));
	if (counted)
		json_object_update_new(o, json_pack("{s:I, s:s, s:s}", "times", (json_int_t)l->count, "first",
						    audit_time_text(l->first_us, first), "last", audit_time_text(l->last_us, last)));
	len = json_dumpb(o, out, size - 1, JSON_COMPACT | JSON_ENSURE_ASCII);
	out[len < size ? len : 0] = '\0';
	json_decref(o);
}

/* counted: it tells of some that have no row of their own. */
static void record(struct control *c, struct look *l, bool counted)
{
	static struct audit_event e;
	const char *various = l->various ? " (various)" : "";
	char times[48] = "";

	memset(&e, 0, sizeof e);
	e.kind = l->why[0] == '\0' ? AUDIT_LOOK : AUDIT_ADMIN;
	snprintf(e.user, sizeof e.user, "%s", l->author.name);
	if (counted)
		snprintf(times, sizeof times, ", %llu more times", (unsigned long long)l->count);
	if (l->why[0] != '\0')
		snprintf(e.reason, sizeof e.reason, "refused: %s%s%s: %.120s", l->command, various, times, l->why);
	else
		snprintf(e.reason, sizeof e.reason, "%s%s%s%s%.140s", l->command, various, times, l->asked == NULL ? "" : " ",
			 l->asked == NULL ? "" : l->asked);
	fill_detail(l, counted, e.detail, sizeof e.detail);
	control_record_event(c, &e);
	l->count = 0;
}

/* ---- a minute -------------------------------------------------------------------------------------------------------------- */

/* What has been told of, and did not come again, is forgotten. */
static void on_window_over(evutil_socket_t fd, short what, void *arg)
{
	struct control *c = arg;
	bool may_write = recording_grants(c->recording);
	size_t kept = 0;

	(void)fd, (void)what;
	for (size_t i = 0; i < nlooks; i++) {
		if (looks[i].count == 0) {
			free(looks[i].asked);
			continue;
		}
		if (may_write)
			record(c, &looks[i], true);
		looks[kept++] = looks[i];
	}
	nlooks = kept;
	if (nlooks > 0)
		evtimer_add(&window, &(struct timeval){.tv_sec = WINDOW_S});
}

void looks_init(struct control *c)
{
	evtimer_assign(&window, c->child->base, on_window_over, c);
}

void looks_end(struct control *c)
{
	for (size_t i = 0; i < nlooks; i++) {
		if (looks[i].count > 0)
			record(c, &looks[i], true);
		free(looks[i].asked);
	}
	nlooks = 0;
	event_del(&window);
}

/* ---- one ------------------------------------------------------------------------------------------------------------------- */

/* Which row it goes on from is not: a look from an older one reads more.  Whoever follows the audit comes here once an hour. */
static char *what_is_same(const json_t *asked)
{
	json_t *copy = json_deep_copy(asked);
	char *text;

	json_object_del(json_object_get(copy, "filter"), "progress");
	text = json_dumps(copy, JSON_COMPACT | JSON_SORT_KEYS);
	json_decref(copy);
	return text;
}

static void make_key(const struct look *l, const json_t *asked, uint8_t key[KEY_BYTES])
{
	char *same = what_is_same(asked);
	const char *const texts[] = {l->command, l->why, same == NULL ? "" : same};
	crypto_generichash_state state;

	crypto_generichash_init(&state, NULL, 0, KEY_BYTES);
	crypto_generichash_update(&state, (const uint8_t *)&l->author.uid, sizeof l->author.uid);
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		crypto_generichash_update(&state, (const uint8_t *)texts[i], strlen(texts[i]) + 1);
	crypto_generichash_final(&state, key, KEY_BYTES);
	free(same);
}

static struct look *find(const struct look *l)
{
	for (size_t i = 0; i < nlooks; i++)
		if (memcmp(looks[i].key, l->key, sizeof l->key) == 0)
			return &looks[i];
	return NULL;
}

static unsigned kinds_of(uid_t uid)
{
	unsigned n = 0;

	for (size_t i = 0; i < nlooks; i++)
		n += looks[i].author.uid == uid;
	return n;
}

/* Nobody's many kinds take the places of others: from so many on they are one for each command; and where all have many, one. */
static void make_general(struct look *l)
{
	l->various = nlooks < COMMANDS_MAX;
	if (nlooks >= USERS_MAX)
		l->author = (struct author){.uid = (uid_t)-1, .name = "(many)"};
	if (!l->various)
		snprintf(l->command, sizeof l->command, "other commands");
	snprintf(l->why, sizeof l->why, "%s", l->why[0] == '\0' ? "" : "for several reasons");
	free(l->asked);
	l->asked = NULL;
	l->asked_bytes = 0;
	make_key(l, NULL, l->key);
}

/* What is longer than a row takes is cut: whoever asks does not choose what stands in it.  The filter, which says most, is first. */
static void keep_asked(struct look *l, const json_t *asked)
{
	json_t *ordered = json_object(), *filter = json_object_get(asked, "filter");

	if (filter != NULL)
		json_object_set(ordered, "filter", filter);
	json_object_update(ordered, (json_t *)(uintptr_t)asked);
	l->asked = json_dumps(ordered, JSON_COMPACT | JSON_ENSURE_ASCII);
	json_decref(ordered);
	if (l->asked == NULL || strlen(l->asked) <= ASKED_MAX)
		return;
	l->asked_bytes = strlen(l->asked);
	l->asked[ASKED_MAX] = '\0';
}

static void fill(struct look *l, const struct author *author, const char *command, const json_t *asked, const char *why)
{
	*l = (struct look){.author = *author};
	snprintf(l->command, sizeof l->command, "%s", command);
	if (why != NULL)
		text_escape(why, strlen(why), l->why, sizeof l->why);
	if (json_object_size(asked) > 0)
		keep_asked(l, asked);
	make_key(l, asked, l->key);
}

/* What can be left out: not who reads the audit. */
static bool is_left_out(const struct control *c, const char *command, const char *why)
{
	return why == NULL && !c->child->config->audit_looks && strcmp(command, "audit-query") != 0;
}

void looks_note(struct control *c, const struct author *author, const char *command, const json_t *asked, const char *why)
{
	int64_t now_us = clock_wall_us();
	struct look new, *l;

	if (is_left_out(c, command, why))
		return;
	fill(&new, author, command, asked, why);
	l = find(&new);
	if (l == NULL && (nlooks >= KINDS_MAX || kinds_of(author->uid) >= LOOKS_OF_USER_MAX)) {
		make_general(&new);
		l = find(&new);
	}
	if (l == NULL && nlooks == LOOKS_MAX)
		l = &looks[LOOKS_MAX - 1]; /* its refusals and what was answered, then */
	if (l != NULL) {
		free(new.asked);
		if (l->count++ == 0)
			l->first_us = now_us;
		l->last_us = now_us;
		return;
	}
	if (nlooks == 0)
		evtimer_add(&window, &(struct timeval){.tv_sec = WINDOW_S});
	l = &looks[nlooks++];
	*l = new;
	l->count = 1;
	l->first_us = l->last_us = now_us;
	if (recording_grants(c->recording))
		record(c, l, false);
}
