#include "config.h"

#include "schema/audit_summary.h"

#include <stdlib.h>
#include <string.h>

#include "schema/audit_json.h"
#include "schema/audit_stats.h"

struct point {
	uint64_t sessions, denied, failed, up, down;
};

#define OPENED (1u << AUDIT_OPEN | 1u << AUDIT_ENDED | 1u << AUDIT_DENIED)
#define FAILED (1u << AUDIT_LOGIN_FAILED)
#define DENIED (1u << AUDIT_DENIED)
#define FEW 20000

/* What the busiest are told of. */
static const struct table {
	const char *name, *by;
	uint32_t kinds;
	size_t groups_max;
} tables[] = {
	{"users", "user", OPENED, FEW},
	{"destinations", "dest", 1u << AUDIT_OPEN | 1u << AUDIT_ENDED, AUDIT_STATS_GROUPS_MAX},
	{"rules", "rule", OPENED, FEW},
	{"clients", "client", OPENED, FEW},
	{"countries", "country", OPENED, FEW},
	{"methods", "method", OPENED, FEW},
	{"denied-reasons", "reason", DENIED, FEW},
	{"denied-rules", "rule", DENIED, FEW},
	{"denied-destinations", "dest", DENIED, AUDIT_STATS_GROUPS_MAX},
	{"denied-users", "user", DENIED, FEW},
	{"failed-users", "user", FAILED, FEW},
	{"failed-clients", "client", FAILED, FEW},
	{"failed-reasons", "reason", FAILED, FEW},
};

/* What is told one by one. */
static const struct {
	const char *name;
	uint32_t kinds;
} lists[] = {
	{"policy", 1u << AUDIT_POLICY},
	{"admin", 1u << AUDIT_ADMIN},
	{"throttle", 1u << AUDIT_THROTTLE},
	{"runs", 1u << AUDIT_START | 1u << AUDIT_STOP},
};

#define NTABLES (sizeof tables / sizeof *tables)
#define NLISTS (sizeof lists / sizeof *lists)

struct audit_summary {
	int64_t begin_us, step_us;
	size_t npoints;
	struct point *points;
	struct audit_stats *stats[NTABLES];
	json_t *rows[NLISTS];
	uint64_t more[NLISTS]; /* that are not told */
	uint64_t events, flows, lost;
	struct point total;
	int64_t duration_us, first_us, last_us;
};

static int64_t floor_to(int64_t value, int64_t step)
{
	return value - value % step;
}

struct audit_summary *audit_summary_new(int64_t since_us, int64_t until_us, int64_t step_us, struct err *why)
{
	struct audit_summary *s;

	if (since_us < 0 || until_us <= since_us || step_us < 1 ||
	    (until_us - floor_to(since_us, step_us)) / step_us >= AUDIT_SUMMARY_POINTS_MAX) {
		err_set(why, "a report has a beginning, an end after it, and at most %d steps between them",
			AUDIT_SUMMARY_POINTS_MAX);
		return NULL;
	}
	s = calloc(1, sizeof *s);
	if (s == NULL) {
		err_set(why, "out of memory");
		return NULL;
	}
	s->begin_us = floor_to(since_us, step_us);
	s->step_us = step_us;
	s->npoints = (size_t)((until_us - 1 - s->begin_us) / step_us) + 1;
	s->points = calloc(s->npoints, sizeof *s->points);
	for (size_t i = 0; i < NLISTS; i++)
		s->rows[i] = json_array();
	for (size_t i = 0; i < NTABLES && s->points != NULL; i++) {
		s->stats[i] = audit_stats_new(tables[i].by, why);
		if (s->stats[i] == NULL)
			break;
		audit_stats_narrow(s->stats[i], tables[i].groups_max, tables[i].kinds);
	}
	if (s->stats[NTABLES - 1] == NULL || s->rows[NLISTS - 1] == NULL) {
		audit_summary_free(&s);
		err_set(why, "out of memory");
	}
	return s;
}

void audit_summary_free(struct audit_summary **sp)
{
	struct audit_summary *s = *sp;

	*sp = NULL;
	if (s == NULL)
		return;
	for (size_t i = 0; i < NTABLES; i++)
		audit_stats_free(&s->stats[i]);
	for (size_t i = 0; i < NLISTS; i++)
		json_decref(s->rows[i]);
	free(s->points);
	free(s);
}

static void add_point(struct point *p, const struct audit_event *e)
{
	switch (e->kind) {
	case AUDIT_OPEN:
		p->sessions++;
		break;
	case AUDIT_DENIED:
		p->denied += audit_stats_weight(e);
		break;
	case AUDIT_LOGIN_FAILED:
		p->failed += audit_stats_weight(e);
		break;
	case AUDIT_ENDED:
		p->up += e->bytes_up;
		p->down += e->bytes_down;
		break;
	default:
		break;
	}
}

static void add_to_list(struct audit_summary *s, uint64_t id, const struct audit_event *e)
{
	for (size_t i = 0; i < NLISTS; i++)
		if (lists[i].kinds & 1u << e->kind) {
			if (json_array_size(s->rows[i]) < AUDIT_SUMMARY_LIST_MAX)
				json_array_append_new(s->rows[i], audit_event_json(id, e));
			else
				s->more[i]++;
		}
}

void audit_summary_add(struct audit_summary *s, uint64_t id, const struct audit_event *e)
{
	int64_t at = e->time_us < s->begin_us ? -1 : (e->time_us - s->begin_us) / s->step_us;

	s->events++;
	s->flows += e->kind == AUDIT_FLOW;
	s->first_us = s->first_us == 0 || e->time_us < s->first_us ? e->time_us : s->first_us;
	s->last_us = e->time_us > s->last_us ? e->time_us : s->last_us;
	if (at >= 0 && (uint64_t)at < s->npoints)
		add_point(&s->points[at], e);
	add_point(&s->total, e);
	if (e->kind == AUDIT_ENDED) {
		s->duration_us += e->duration_us;
		s->lost += strncmp(e->reason, "lost", 4) == 0;
	}
	for (size_t i = 0; i < NTABLES; i++)
		audit_stats_add(s->stats[i], e);
	add_to_list(s, id, e);
}

/* ---- what it tells -------------------------------------------------------------------------------------------------
 */

static json_t *number(uint64_t value)
{
	return json_integer((json_int_t)value);
}

static size_t groups_of(const struct audit_summary *s, const char *table)
{
	for (size_t i = 0; i < NTABLES; i++)
		if (strcmp(tables[i].name, table) == 0)
			return audit_stats_groups(s->stats[i]);
	return 0;
}

static json_t *totals(const struct audit_summary *s)
{
	json_t *t = json_pack("{s:s}", "part", "totals");

	json_object_set_new(t, "events", number(s->events));
	json_object_set_new(t, "sessions", number(s->total.sessions));
	json_object_set_new(t, "flows", number(s->flows));
	json_object_set_new(t, "denied", number(s->total.denied));
	json_object_set_new(t, "failed", number(s->total.failed));
	json_object_set_new(t, "bytes_up", number(s->total.up));
	json_object_set_new(t, "bytes_down", number(s->total.down));
	json_object_set_new(t, "duration_us", number((uint64_t)s->duration_us));
	json_object_set_new(t, "lost", number(s->lost));
	json_object_set_new(t, "users", number(groups_of(s, "users")));
	json_object_set_new(t, "clients", number(groups_of(s, "clients")));
	json_object_set_new(t, "destinations", number(groups_of(s, "destinations")));
	json_object_set_new(t, "first_us", number((uint64_t)s->first_us));
	json_object_set_new(t, "last_us", number((uint64_t)s->last_us));
	return t;
}

static json_t *series(const struct audit_summary *s)
{
	json_t *points = json_array();

	for (size_t i = 0; i < s->npoints; i++) {
		const struct point *p = &s->points[i];

		json_array_append_new(points, json_pack("[I, I, I, I, I]", (json_int_t)p->sessions, (json_int_t)p->denied,
							(json_int_t)p->failed, (json_int_t)p->up, (json_int_t)p->down));
	}
	return json_pack("{s:s, s:I, s:I, s:o}", "part", "series", "begin_us", (json_int_t)s->begin_us, "step_us",
			 (json_int_t)s->step_us, "points", points);
}

static void give_group(json_t *group, void *arg)
{
	json_array_append_new(arg, group);
}

static json_t *top(const struct audit_summary *s, size_t i)
{
	json_t *groups = json_array();
	size_t count = audit_stats_groups(s->stats[i]);

	audit_stats_each(s->stats[i], AUDIT_SUMMARY_TOP, give_group, groups);
	return json_pack("{s:s, s:s, s:I, s:o}", "part", "top", "of", tables[i].name, "count", (json_int_t)count, "groups",
			 groups);
}

json_t *audit_summary_json(struct audit_summary *s)
{
	json_t *parts = json_array();

	json_array_append_new(parts, totals(s));
	json_array_append_new(parts, series(s));
	for (size_t i = 0; i < NTABLES; i++)
		json_array_append_new(parts, top(s, i));
	for (size_t i = 0; i < NLISTS; i++) {
		json_t *row;
		size_t n;

		json_array_foreach(s->rows[i], n, row)
			json_array_append_new(parts, json_pack("{s:s, s:s, s:O}", "part", "row", "of", lists[i].name, "row", row));
		json_array_append_new(parts, json_pack("{s:s, s:s, s:I}", "part", "list", "of", lists[i].name, "more",
						       (json_int_t)s->more[i]));
	}
	return parts;
}
