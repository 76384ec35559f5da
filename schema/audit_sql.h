/* Asking the audit in SQL: one SELECT over a table `event`, which stands for all segments however many there are.
 *
 * The statement runs in a database in memory that holds nothing; `event` is a virtual table, whose rows come from audit_query.h, a
 * page of them in a read transaction.  So there is no file that SQL could name, nothing that it could write, and no bound on
 * segments.  An authorizer lets it read `event` and nothing else; its time, its memory, and what it gives are bounded. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "schema/audit_query.h"

struct audit_sql;

/* What `event` looks like, for people. */
extern const char audit_sql_columns[];

#define AUDIT_SQL_SECONDS_MAX 60
/* limit: rows that are given (0: all).  seconds: that it may take.  The archive must outlive it.  NULL with *why, which quotes SQLite. */
struct audit_sql *audit_sql_new(struct audit_archive *archive, const char *sql, uint64_t limit, unsigned seconds, struct err *why);
void audit_sql_free(struct audit_sql **s);
/* Asked now and then while a row is looked for; false ends it.  May be NULL. */
void audit_sql_watch(struct audit_sql *s, bool (*go_on)(void *arg), void *arg);

/* {"columns": [names]} */
json_t *audit_sql_head(const struct audit_sql *s);
/* 1 with *row, {"values": [...]}, the caller's: numbers, null, or texts, escaped (common/text.h) and cut where a row would be too
 * long.  0 there are no more, -1 with *why. */
int audit_sql_step(struct audit_sql *s, json_t **row, struct err *why);
uint64_t audit_sql_rows(const struct audit_sql *s);
/* True if the limit ended it: there are more. */
bool audit_sql_cut(const struct audit_sql *s);
