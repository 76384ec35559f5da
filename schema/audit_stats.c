#include "config.h"

#include "schema/audit_stats.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"
#include "schema/audit_detail.h"
#include "schema/audit_json.h"

#define GIVEN_MAX 10000
/* What is no session and no refusal of one has nothing to be summed. */
#define SUMMED (1u << AUDIT_OPEN | 1u << AUDIT_DENIED | 1u << AUDIT_LOGIN_FAILED | 1u << AUDIT_ENDED)
#define KEY_MAX (4 * AUDIT_TEXT_MAX + 8)

struct group {
	char *key;
	uint64_t sessions, denied, up, down;
	int64_t duration_us;
};

typedef void make_key(const struct audit_event *e, char key[KEY_MAX]);

struct audit_stats {
	make_key *make;
	bool in_order; /* of the keys */
	size_t groups_max;
	uint32_t kinds; /* that are summed up */
	json_t *index; /* key -> number of its group */
	struct group *groups;
	size_t ngroups, room;
};

/* ---- keys -----------------------------------------------------------------------------------------------------------
 */

static void text(const char *from, char key[KEY_MAX])
{
	text_escape(from, strlen(from), key, KEY_MAX);
}

static void by_user(const struct audit_event *e, char key[KEY_MAX])
{
	text(e->user, key);
}

static void by_client(const struct audit_event *e, char key[KEY_MAX])
{
	char address[ADDR_TEXT_MAX];

	text(e->client.addr.family == ADDR_NONE ? "" : addr_format(&e->client.addr, address), key);
}

static void by_dest(const struct audit_event *e, char key[KEY_MAX])
{
	char address[ADDR_TEXT_MAX];

	if (e->name[0] != '\0' || e->address.addr.family == ADDR_NONE)
		text(e->name, key);
	else
		text(addr_format(&e->address.addr, address), key);
}

static void by_port(const struct audit_event *e, char key[KEY_MAX])
{
	snprintf(key, KEY_MAX, e->address.port == 0 ? "" : "%u", (unsigned)e->address.port);
}

static void by_rule(const struct audit_event *e, char key[KEY_MAX])
{
	text(e->rule, key);
}

static void by_listener(const struct audit_event *e, char key[KEY_MAX])
{
	text(e->listener, key);
}

static void by_method(const struct audit_event *e, char key[KEY_MAX])
{
	text(e->method, key);
}

static void by_event(const struct audit_event *e, char key[KEY_MAX])
{
	text(audit_kind_name(e->kind), key);
}

static void by_command(const struct audit_event *e, char key[KEY_MAX])
{
	text(e->command, key);
}

static void by_reason(const struct audit_event *e, char key[KEY_MAX])
{
	text(e->reason, key);
}

static void by_revision(const struct audit_event *e, char key[KEY_MAX])
{
	snprintf(key, KEY_MAX, e->revision == 0 ? "" : "%u", (unsigned)e->revision);
}

static void by_country(const struct audit_event *e, char key[KEY_MAX])
{
	audit_detail_country(e->detail, strlen(e->detail), key);
}

/* Of the groups that the policy names; a user in several counts for each of them, see audit_stats_add(). */
static void by_group(const struct audit_event *e, char key[KEY_MAX])
{
	(void)e;
	key[0] = '\0';
}

static void by_weekday(const struct audit_event *e, char key[KEY_MAX])
{
	static const char *const days[] = {"1 Monday", "2 Tuesday", "3 Wednesday", "4 Thursday",
					   "5 Friday", "6 Saturday", "7 Sunday"};

	/* The epoch began on a Thursday.  A time before it is of no row of ours, but somebody may have written one. */
	snprintf(key, KEY_MAX, "%s", e->time_us < 0 ? "-" : days[(e->time_us / 86400000000 + 3) % 7]);
}

/* "2026-11-20T19" and "2026-11-20", in UTC as all times of rows. */
static void by_hour(const struct audit_event *e, char key[KEY_MAX])
{
	audit_time_text(e->time_us, key);
	key[13] = '\0';
}

static void by_day(const struct audit_event *e, char key[KEY_MAX])
{
	audit_time_text(e->time_us, key);
	key[10] = '\0';
}

static const struct {
	const char *name;
	make_key *make;
	bool in_order;
} keys[] = {
	{"user", by_user, false},	  {"group", by_group, false},	{"client", by_client, false},
	{"dest", by_dest, false},	  {"port", by_port, false},	{"country", by_country, false},
	{"rule", by_rule, false},	  {"revision", by_revision, false},
	{"listener", by_listener, false}, {"method", by_method, false}, {"command", by_command, false},
	{"reason", by_reason, false},	  {"event", by_event, false},	{"hour", by_hour, true},
	{"weekday", by_weekday, true},	  {"day", by_day, true},
};

/* ---- groups
 * ----------------------------------------------------------------------------------------------------------- */

struct audit_stats *audit_stats_new(const char *by, struct err *why)
{
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
		struct audit_stats *s;

		if (strcmp(keys[i].name, by) != 0)
			continue;
		s = calloc(1, sizeof *s);
		if (s == NULL || (s->index = json_object()) == NULL) {
			free(s);
			err_set(why, "out of memory");
			return NULL;
		}
		s->make = keys[i].make;
		s->in_order = keys[i].in_order;
		s->groups_max = AUDIT_STATS_GROUPS_MAX;
		s->kinds = SUMMED;
		return s;
	}
	err_set(why, "sums are made by " AUDIT_STATS_BY);
	return NULL;
}

void audit_stats_narrow(struct audit_stats *s, size_t groups_max, uint32_t kinds)
{
	s->groups_max = groups_max;
	s->kinds = kinds & SUMMED;
}

void audit_stats_free(struct audit_stats **stats)
{
	struct audit_stats *s = *stats;

	*stats = NULL;
	if (s == NULL)
		return;
	for (size_t i = 0; i < s->ngroups; i++)
		free(s->groups[i].key);
	free(s->groups);
	json_decref(s->index);
	free(s);
}

static struct group *group_of(struct audit_stats *s, const char *key)
{
	const json_t *number;

	if (s->ngroups >= s->groups_max && json_object_get(s->index, key) == NULL)
		key = "(others)";
	number = json_object_get(s->index, key);
	if (number != NULL)
		return &s->groups[json_integer_value(number)];
	if (s->ngroups == s->room) {
		size_t room = s->room == 0 ? 256 : 2 * s->room;
		struct group *grown = reallocarray(s->groups, room, sizeof *grown);

		if (grown == NULL)
			return NULL;
		s->groups = grown;
		s->room = room;
	}
	struct group *g = &s->groups[s->ngroups];

	*g = (struct group){.key = strdup(key)};
	if (g->key == NULL || json_object_set_new(s->index, key, json_integer((json_int_t)s->ngroups)) != 0) {
		free(g->key);
		return NULL;
	}
	s->ngroups++;
	return g;
}

uint64_t audit_stats_weight(const struct audit_event *e)
{
	static const char folded[] = "{\"folded\":";

	return strncmp(e->detail, folded, sizeof folded - 1) == 0 ? strtoull(e->detail + sizeof folded - 1, NULL, 10)
								  : 1;
}

static void add_to(struct audit_stats *s, const char *key, const struct audit_event *e)
{
	struct group *g = group_of(s, key[0] == '\0' ? "-" : key);

	if (g == NULL)
		return;
	g->sessions += e->kind == AUDIT_OPEN;
	if (e->kind == AUDIT_DENIED || e->kind == AUDIT_LOGIN_FAILED)
		g->denied += audit_stats_weight(e);
	if (e->kind != AUDIT_ENDED)
		return;
	g->up += e->bytes_up;
	g->down += e->bytes_down;
	g->duration_us += e->duration_us;
}

/* Texts of the detail are escaped already. */
static void add_to_groups(struct audit_stats *s, const struct audit_event *e)
{
	json_t *detail = strstr(e->detail, "\"groups\"") == NULL ? NULL : json_loads(e->detail, 0, NULL), *one;
	const json_t *groups = json_object_get(detail, "groups");
	size_t i;

	json_array_foreach(groups, i, one) if (json_is_string(one)) add_to(s, json_string_value(one), e);
	if (json_array_size(groups) == 0)
		add_to(s, "", e);
	json_decref(detail);
}

void audit_stats_add(struct audit_stats *s, const struct audit_event *e)
{
	char key[KEY_MAX];

	if ((s->kinds & 1u << e->kind) == 0)
		return;
	if (s->make == by_group) {
		add_to_groups(s, e);
		return;
	}
	s->make(e, key);
	add_to(s, key, e);
}

static int by_key(const void *a, const void *b)
{
	return strcmp(((const struct group *)a)->key, ((const struct group *)b)->key);
}

static int by_size(const void *a, const void *b)
{
	const struct group *x = a, *y = b;

	if (x->sessions != y->sessions)
		return x->sessions < y->sessions ? 1 : -1;
	if (x->denied != y->denied)
		return x->denied < y->denied ? 1 : -1;
	if (x->up + x->down != y->up + y->down)
		return x->up + x->down < y->up + y->down ? 1 : -1;
	return by_key(a, b);
}

void audit_stats_each(struct audit_stats *s, uint64_t limit, void (*give)(json_t *group, void *arg), void *arg)
{
	size_t n = s->ngroups < GIVEN_MAX ? s->ngroups : GIVEN_MAX;

	/* The index is of no use from here on. */
	json_object_clear(s->index);
	if (s->ngroups > 0)
		qsort(s->groups, s->ngroups, sizeof *s->groups, s->in_order ? by_key : by_size);
	for (size_t i = 0; i < n && (limit == 0 || i < limit); i++) {
		const struct group *g = &s->groups[i];

		give(json_pack("{s:s, s:I, s:I, s:I, s:I, s:I}", "key", g->key, "sessions", (json_int_t)g->sessions,
			       "denied", (json_int_t)g->denied, "bytes_up", (json_int_t)g->up, "bytes_down",
			       (json_int_t)g->down, "duration_us", (json_int_t)g->duration_us),
		     arg);
	}
}

size_t audit_stats_groups(const struct audit_stats *s)
{
	return s->ngroups;
}
