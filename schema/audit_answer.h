/* The answer to one request of the audit, as JSON lines: the same from a reader that streams them into a pipe and from gatewayctl,
 * which reads a directory itself.
 *
 * A request is a filter (audit_json.h) with at most one of
 *   "stats": KEY          sums by that key (audit_stats.h); the filter's limit bounds the sums, not the rows
 *   "report": STEP        what a report tells (audit_summary.h), in steps of so many microseconds
 *   "requests": [TIME..]  requests that were decided (audit_requests.h), each as its first event with how many "count" tells; those
 *                         on two sides of one of the times, ascending seconds, are two.  A request can be told more than once.
 *   "hits": true          what each rule did (audit_hits.h): {"rule", "hits", "last_us", "bytes"}
 *   "sql": TEXT           one SELECT over the table event (audit_sql.h); besides "limit" no filter
 * and "progress": true, for lines {"progress": N} with per mille of the way, now and then.
 *
 * Lines are events, sums, parts, requests, hits, or {"columns": [...]} and for each row {"values": [...]}; at last {"error": text}, or
 * {"end": true, "rows", "more", "newest"} with "damage" where not all could be read. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "schema/audit_query.h"

struct audit_answer;

/* Takes the line over.  False: there is no room for more on this page.  It runs inside the read transaction: it must not wait. */
typedef bool audit_line(json_t *line, void *arg);

/* The archive must outlive the answer.  NULL with *why: the request is none. */
struct audit_answer *audit_answer_new(struct audit_archive *a, const json_t *request, struct err *why);
void audit_answer_free(struct audit_answer **answer);
/* Asked now and then while SQL looks for a row; false ends it. */
void audit_answer_watch(struct audit_answer *a, bool (*go_on)(void *arg), void *arg);
/* Goes on, in at most one read transaction of about max_us: 1 there is more, 0 that was all, the end included. */
int audit_answer_page(struct audit_answer *a, int64_t max_us, audit_line *line, void *arg);
/* Rows that were given as such. */
uint64_t audit_answer_rows(const struct audit_answer *a);
