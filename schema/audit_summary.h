/* All that a report tells of a time, from one reading of its events: totals, a series over time, who and what was busiest, what
 * was refused and why, what administrators did. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "schema/audit_event.h"

struct audit_summary;

/* Points of the series at most. */
#define AUDIT_SUMMARY_POINTS_MAX 1000
/* Rows of each list, and of each table. */
#define AUDIT_SUMMARY_LIST_MAX 200
#define AUDIT_SUMMARY_TOP 12

/* From since on until before until, in steps (all in us), which begin at a multiple of the step.  NULL with *why. */
struct audit_summary *audit_summary_new(int64_t since_us, int64_t until_us, int64_t step_us, struct err *why);
void audit_summary_free(struct audit_summary **s);
void audit_summary_add(struct audit_summary *s, uint64_t id, const struct audit_event *e);
/* An array of objects, each with its name in "part": "totals"; "series" with "begin_us", "step_us" and "points", an array of
 * [sessions, denied, failed log-ins, bytes up, bytes down] a step; "top" with "of", "count" and "groups" as audit_stats.h has
 * them, one for each table; "row" with "of" and "row", an event of a list; "list" with "of" and "more", after its rows.  NULL: out
 * of memory. */
json_t *audit_summary_json(struct audit_summary *s);
