/* The rows of an audit query on their way to standard output, as a table, as CSV or as JSON lines. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "common/err.h"

/* ROWS_LINES: as the table, but each row as it comes. */
enum rows_format { ROWS_TABLE, ROWS_CSV, ROWS_JSON, ROWS_LINES };

struct rows;

/* "table", "csv" or "json": -1 to go on; else what admin_fail() says. */
int rows_set_format(enum rows_format *format, const char *name);
/* columns: names with commas between them, as CSV has them; a table and JSON have those then, too.  NULL: the usual ones.  Checked
 * by rows_columns_fit().  NULL if memory is short.  width: characters of a line, 0 for no terminal.  stats: sums, not events. */
struct rows *rows_new(enum rows_format format, unsigned width, bool stats, const char *columns);
/* The same into a file, which stays the caller's; ROWS_TABLE is for standard output only. */
struct rows *rows_new_to(FILE *out, enum rows_format format, unsigned width, bool stats, const char *columns);
/* False, with *why that tells what there is, if one of them is none. */
bool rows_columns_fit(const char *columns, bool stats, struct err *why);
/* row is borrowed. */
void rows_add(struct rows *r, const json_t *row);
/* From now on rows are kept, until this is called again with false: then they are printed, the last first. */
void rows_reverse(struct rows *r, bool keep);
/* Prints what was collected. */
void rows_end(struct rows *r);
void rows_free(struct rows **r);
