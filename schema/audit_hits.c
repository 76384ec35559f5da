#include "config.h"

#include "schema/audit_hits.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "schema/audit_requests.h"
#include "schema/audit_stats.h"

/* Rules of one request: more than its candidates and monitors can name. */
#define SEEN_MAX 160

struct group {
	char *rule;
	uint64_t hits, bytes;
	int64_t last_us;
};

struct audit_hits {
	json_t *index; /* rule -> number of its group */
	struct group *groups;
	size_t count, room;
	bool over;
	size_t seen[SEEN_MAX]; /* groups that the event being added has counted for */
	size_t nseen;
};

struct audit_hits *audit_hits_new(void)
{
	struct audit_hits *h = calloc(1, sizeof *h);

	if (h != NULL && (h->index = json_object()) == NULL)
		audit_hits_free(&h);
	return h;
}

void audit_hits_free(struct audit_hits **hits)
{
	struct audit_hits *h = *hits;

	*hits = NULL;
	if (h == NULL)
		return;
	for (size_t i = 0; i < h->count; i++)
		free(h->groups[i].rule);
	free(h->groups);
	json_decref(h->index);
	free(h);
}

static bool has_room(struct audit_hits *h)
{
	size_t room = h->room == 0 ? 256 : 2 * h->room;
	struct group *grown;

	if (h->count < h->room || h->count == AUDIT_HITS_RULES_MAX)
		return h->count < h->room && h->count < AUDIT_HITS_RULES_MAX;
	grown = reallocarray(h->groups, room, sizeof *grown);
	if (grown == NULL)
		return false;
	h->groups = grown;
	h->room = room;
	return true;
}

/* NULL: none, or there is no room for it.  No policy has a name that is no UTF-8, and nobody asks for one. */
static struct group *group_of(struct audit_hits *h, const char *rule)
{
	const json_t *known = *rule == '\0' ? NULL : json_object_get(h->index, rule);
	json_t *number;

	if (known != NULL)
		return &h->groups[json_integer_value(known)];
	if (*rule == '\0' || (number = json_string(rule)) == NULL)
		return NULL;
	json_decref(number);
	if (!has_room(h)) {
		h->over = true;
		return NULL;
	}
	h->groups[h->count] = (struct group){.rule = strdup(rule)};
	if (h->groups[h->count].rule == NULL || json_object_set_new(h->index, rule, json_integer((json_int_t)h->count)) != 0) {
		free(h->groups[h->count].rule);
		h->over = true;
		return NULL;
	}
	return &h->groups[h->count++];
}

static void hit(struct audit_hits *h, const char *rule, const struct audit_event *e, uint64_t weight)
{
	struct group *g = group_of(h, rule);

	for (size_t i = 0; g != NULL && i < h->nseen; i++)
		if (h->seen[i] == (size_t)(g - h->groups))
			return;
	if (g == NULL || h->nseen == SEEN_MAX)
		return;
	h->seen[h->nseen++] = (size_t)(g - h->groups);
	g->hits += weight;
	if (g->last_us < e->time_us)
		g->last_us = e->time_us;
}

/* Those of candidates and monitors: nothing else in the detail of a request has this key, and no name of a rule needs to be
 * escaped in JSON (audit_detail.h tells why a key is found as it stands). */
static void hit_each(struct audit_hits *h, const struct audit_event *e, uint64_t weight)
{
	static const char key[] = "\"rule\":\"";
	char rule[AUDIT_TEXT_MAX + 1];

	for (const char *at = e->detail; (at = strstr(at, key)) != NULL;) {
		at += sizeof key - 1;
		size_t len = strcspn(at, "\"\\");

		if (at[len] != '"' || len >= sizeof rule || (strncmp(at, e->rule, len) == 0 && e->rule[len] == '\0'))
			continue;
		memcpy(rule, at, len);
		rule[len] = '\0';
		hit(h, rule, e, weight);
	}
}

void audit_hits_add(struct audit_hits *h, const struct audit_event *e)
{
	uint64_t weight = audit_stats_weight(e);
	struct group *g;

	h->nseen = 0;
	if (e->kind == AUDIT_ENDED) {
		g = group_of(h, e->rule);
		if (g != NULL)
			g->bytes += e->bytes_up + e->bytes_down;
		return;
	}
	if ((AUDIT_REQUEST_KINDS & 1u << e->kind) == 0)
		return;
	hit(h, e->rule, e, weight);
	hit_each(h, e, weight);
}

bool audit_hits_over(const struct audit_hits *h)
{
	return h->over;
}

bool audit_hits_get(const struct audit_hits *h, size_t i, struct audit_hit *out)
{
	if (i >= h->count)
		return false;
	*out = (struct audit_hit){h->groups[i].rule, h->groups[i].hits, h->groups[i].last_us, h->groups[i].bytes};
	return true;
}
