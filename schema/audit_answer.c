#include "config.h"

#include "schema/audit_answer.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "schema/audit_hits.h"
#include "schema/audit_json.h"
#include "schema/audit_requests.h"
#include "schema/audit_sql.h"
#include "schema/audit_stats.h"
#include "schema/audit_summary.h"

#define PAGE_ROWS 1000
/* Rows that are only summed up need no room. */
#define SUMMED_ROWS 1000000
/* Sums that are given at most. */
#define GROUPS_MAX 10000
#define PROGRESS_US 200000
/* Requests that are held before they are given, and times that part them. */
#define REQUESTS_MAX 8192
#define EDGES_MAX 4096

struct audit_answer {
	struct audit_archive *archive;
	struct audit_query *query;
	struct audit_stats *stats;
	struct audit_summary *summary;
	struct audit_requests *requests;
	struct audit_hits *hits;
	struct audit_sql *sql;
	bool sql_begun;
	uint64_t groups_max;
	bool tells_progress;
	int64_t told_us; /* when progress was told last */
	json_t *waiting; /* lines to be given when all rows have been read; NULL before that */
	bool all_read;
	bool emptying; /* requests are given before more rows are read */
	size_t given;	 /* of them */
	size_t given_hits;
	audit_line *line;
	void *arg;
};

static int begin_sums(struct audit_answer *a, const json_t *by, struct audit_filter *f, struct err *why)
{
	if (!json_is_string(by))
		return err_set(why, "sums are made by " AUDIT_STATS_BY);
	a->groups_max = f->limit == 0 || f->limit > GROUPS_MAX ? GROUPS_MAX : f->limit;
	f->limit = 0;
	a->stats = audit_stats_new(json_string_value(by), why);
	return a->stats == NULL ? -1 : 0;
}

static int begin_report(struct audit_answer *a, const json_t *step, struct audit_filter *f, struct err *why)
{
	if (!json_is_integer(step))
		return err_set(why, "a report is made in steps of microseconds");
	f->limit = 0;
	f->oldest_first = false;
	a->summary = audit_summary_new(f->since_us, f->until_us, json_integer_value(step), why);
	return a->summary == NULL ? -1 : 0;
}

static int begin_requests(struct audit_answer *a, const json_t *times, struct audit_filter *f, struct err *why)
{
	size_t n = json_array_size(times), i;
	int64_t *edges = calloc(n + 1, sizeof *edges);
	const json_t *time;
	bool sound = json_is_array(times) && n <= EDGES_MAX && edges != NULL;

	json_array_foreach(times, i, time)
	{
		if (!sound)
			break;
		edges[i] = json_integer_value(time);
		sound = json_is_integer(time) && (i == 0 || edges[i - 1] < edges[i]);
	}
	if (sound) {
		f->limit = 0;
		f->kinds = f->kinds == 0 ? AUDIT_REQUEST_KINDS : f->kinds & AUDIT_REQUEST_KINDS;
		a->requests = audit_requests_new(edges, n, REQUESTS_MAX);
	}
	free(edges);
	if (!sound)
		return err_set(why, "requests are parted by at most %d ascending times", EDGES_MAX);
	return a->requests == NULL ? err_set(why, "out of memory") : 0;
}

static int begin_hits(struct audit_answer *a, const json_t *hits, struct audit_filter *f, struct err *why)
{
	if (!json_is_true(hits))
		return err_set(why, "hits are asked for with true");
	f->limit = 0;
	f->kinds = f->kinds == 0 ? AUDIT_HITS_KINDS : f->kinds & AUDIT_HITS_KINDS;
	a->hits = audit_hits_new();
	return a->hits == NULL ? err_set(why, "out of memory") : 0;
}

/* What is asked for stands in the statement itself. */
static int begin_sql(struct audit_answer *a, const json_t *sql, const json_t *filter, struct err *why)
{
	const json_t *limit = json_object_get(filter, "limit"), *seconds = json_object_get(filter, "seconds");
	json_int_t may_take = seconds == NULL ? AUDIT_SQL_SECONDS_MAX : json_integer_value(seconds);

	if (!json_is_string(sql) || strlen(json_string_value(sql)) != json_string_length(sql))
		return err_set(why, "SQL is a text");
	if (may_take < 1 || may_take > AUDIT_SQL_SECONDS_MAX)
		return err_set(why, "SQL takes from 1 to %d seconds", AUDIT_SQL_SECONDS_MAX);
	if (json_object_size(filter) != (size_t)((limit != NULL) + (seconds != NULL)) || (limit != NULL && json_integer_value(limit) < 0))
		return err_set(why, "SQL takes no filter besides its own WHERE");
	a->sql = audit_sql_new(a->archive, json_string_value(sql), (uint64_t)json_integer_value(limit), (unsigned)may_take, why);
	return a->sql == NULL ? -1 : 0;
}

static int begin(struct audit_answer *a, const json_t *request, struct err *why)
{
	json_t *filter = json_copy((json_t *)(uintptr_t)request);
	const json_t *by = json_object_get(request, "stats"), *step = json_object_get(request, "report");
	const json_t *times = json_object_get(request, "requests"), *hits = json_object_get(request, "hits");
	const json_t *sql = json_object_get(request, "sql");
	struct audit_filter f;
	int rc;

	json_object_del(filter, "stats");
	json_object_del(filter, "report");
	json_object_del(filter, "requests");
	json_object_del(filter, "hits");
	json_object_del(filter, "sql");
	json_object_del(filter, "progress");
	a->tells_progress = json_is_true(json_object_get(request, "progress"));
	if (sql != NULL) {
		rc = by != NULL || step != NULL || times != NULL || hits != NULL ? err_set(why, "SQL is asked for apart")
										 : begin_sql(a, sql, filter, why);
		json_decref(filter);
		return rc;
	}
	rc = audit_filter_json(filter, &f, why);
	json_decref(filter);
	if (rc == 0 && (by != NULL) + (step != NULL) + (times != NULL) + (hits != NULL) > 1)
		rc = err_set(why, "sums, a report, requests and hits are asked for apart");
	else if (rc == 0 && by != NULL)
		rc = begin_sums(a, by, &f, why);
	else if (rc == 0 && step != NULL)
		rc = begin_report(a, step, &f, why);
	else if (rc == 0 && times != NULL)
		rc = begin_requests(a, times, &f, why);
	else if (rc == 0 && hits != NULL)
		rc = begin_hits(a, hits, &f, why);
	if (rc != 0)
		return rc;
	a->query = (a->hits != NULL ? audit_query_sums : audit_query_new)(a->archive, &f, why);
	return a->query == NULL ? -1 : 0;
}

struct audit_answer *audit_answer_new(struct audit_archive *archive, const json_t *request, struct err *why)
{
	struct audit_answer *a = calloc(1, sizeof *a);

	if (a == NULL) {
		err_set(why, "out of memory");
		return NULL;
	}
	a->archive = archive;
	a->told_us = clock_mono_us();
	if (begin(a, request, why) != 0)
		audit_answer_free(&a);
	return a;
}

void audit_answer_free(struct audit_answer **answer)
{
	struct audit_answer *a = *answer;

	*answer = NULL;
	if (a == NULL)
		return;
	audit_sql_free(&a->sql);
	audit_query_free(&a->query);
	audit_stats_free(&a->stats);
	audit_summary_free(&a->summary);
	audit_requests_free(&a->requests);
	audit_hits_free(&a->hits);
	json_decref(a->waiting);
	free(a);
}

/* Its lines are none of the rows that match. */
static bool is_summed(const struct audit_answer *a)
{
	return a->stats != NULL || a->summary != NULL || a->requests != NULL || a->hits != NULL;
}

uint64_t audit_answer_rows(const struct audit_answer *a)
{
	if (a->sql != NULL)
		return audit_sql_rows(a->sql);
	return is_summed(a) ? 0 : audit_query_rows(a->query);
}

/* ---- lines --------------------------------------------------------------------------------------------------------
 */

static bool on_row(uint64_t id, const struct audit_event *e, void *arg)
{
	struct audit_answer *a = arg;

	if (a->stats != NULL)
		audit_stats_add(a->stats, e);
	else if (a->summary != NULL)
		audit_summary_add(a->summary, id, e);
	else if (a->requests != NULL)
		return audit_requests_add(a->requests, id, e);
	else if (a->hits != NULL)
		audit_hits_add(a->hits, e);
	else
		return a->line(audit_event_json(id, e), a->arg);
	return true;
}

static json_t *end_line(const struct audit_answer *a)
{
	uint64_t rows = a->sql != NULL ? audit_sql_rows(a->sql) : audit_query_rows(a->query);
	uint64_t newest = a->sql != NULL ? 0 : audit_query_newest(a->query);
	bool cut = a->sql != NULL ? audit_sql_cut(a->sql) : audit_query_cut(a->query);
	json_t *line = json_pack("{s:b, s:I, s:b, s:I}", "end", 1, "rows", (json_int_t)rows, "more", (int)cut, "newest",
				 (json_int_t)newest);

	if (audit_archive_damage(a->archive)[0] != '\0')
		json_object_set_new(line, "damage", json_string(audit_archive_damage(a->archive)));
	return line;
}

static void keep_group(json_t *group, void *arg)
{
	json_array_append_new(arg, group);
}

/* False: there are more than fit on the page. */
static bool give_requests(struct audit_answer *a)
{
	const struct audit_event *e;
	uint64_t id, count;

	while ((e = audit_requests_next(a->requests, &id, &count)) != NULL) {
		json_t *line = audit_event_json(id, e);

		json_object_set_new(line, "count", json_integer((json_int_t)count));
		if (!a->line(line, a->arg))
			return false;
	}
	return true;
}

/* False: there are more than fit on the page. */
static bool give_hits(struct audit_answer *a)
{
	struct audit_hit h;

	while (a->hits != NULL && audit_hits_get(a->hits, a->given_hits, &h)) {
		a->given_hits++;
		if (!a->line(json_pack("{s:s, s:I, s:I, s:I}", "rule", h.rule, "hits", (json_int_t)h.hits, "last_us",
				       (json_int_t)h.last_us, "bytes", (json_int_t)h.bytes),
			     a->arg))
			return false;
	}
	return true;
}

static void collect(struct audit_answer *a)
{
	a->waiting = a->summary != NULL ? audit_summary_json(a->summary) : json_array();
	if (a->stats != NULL)
		audit_stats_each(a->stats, a->groups_max, keep_group, a->waiting);
	if (a->hits != NULL && audit_hits_over(a->hits))
		json_array_append_new(a->waiting, json_pack("{s:s}", "error", "the audit tells of more rules than are counted: ask for a "
									      "shorter time"));
	else
		json_array_append_new(a->waiting, end_line(a));
}

static int give_waiting(struct audit_answer *a)
{
	while (a->given < json_array_size(a->waiting))
		if (!a->line(json_incref(json_array_get(a->waiting, a->given++)), a->arg))
			break;
	return a->given < json_array_size(a->waiting);
}

static void tell_progress(struct audit_answer *a)
{
	int64_t now = clock_mono_us();

	if (!a->tells_progress || now - a->told_us < PROGRESS_US)
		return;
	a->told_us = now;
	a->line(json_pack("{s:i}", "progress", (int)audit_query_progress(a->query)), a->arg);
}

void audit_answer_watch(struct audit_answer *a, bool (*go_on)(void *arg), void *arg)
{
	if (a->sql != NULL)
		audit_sql_watch(a->sql, go_on, arg);
}

static int sql_page(struct audit_answer *a, int64_t deadline_us)
{
	struct err why;
	json_t *row, *error;
	int rc;

	if (!a->sql_begun) {
		a->sql_begun = true;
		if (!a->line(audit_sql_head(a->sql), a->arg))
			return 1;
	}
	while ((rc = audit_sql_step(a->sql, &row, &why)) == 1)
		if (!a->line(row, a->arg) || clock_mono_us() >= deadline_us)
			return 1;
	if (rc == 0) {
		a->line(end_line(a), a->arg);
		return 0;
	}
	error = json_object();
	json_object_set_new(error, "error", json_string(why.text));
	a->line(error, a->arg);
	return 0;
}

int audit_answer_page(struct audit_answer *a, int64_t max_us, audit_line *line, void *arg)
{
	a->line = line;
	a->arg = arg;
	if (a->sql != NULL)
		return sql_page(a, clock_mono_us() + max_us);
	if (a->waiting == NULL && !a->all_read && !a->emptying) {
		a->all_read = audit_query_page(a->query, is_summed(a) ? SUMMED_ROWS : PAGE_ROWS, max_us, on_row, a) == 0;
		a->emptying = a->requests != NULL && (a->all_read || audit_requests_full(a->requests));
		if (!a->all_read)
			tell_progress(a);
		if (!a->all_read || a->emptying)
			return 1;
	}
	if (a->emptying) {
		a->emptying = !give_requests(a);
		return 1;
	}
	if (!give_hits(a))
		return 1;
	if (a->waiting == NULL)
		collect(a);
	return a->waiting == NULL ? 0 : give_waiting(a);
}
