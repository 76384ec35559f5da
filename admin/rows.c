#include "config.h"

#include "admin/rows.h"

#include <libsmartcols.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "admin/format.h"

struct rows {
	enum rows_format format;
	FILE *out;
	unsigned width;
	const struct table_column *columns; /* of the table */
	size_t ncolumns;
	const char *const *csv; /* columns of CSV */
	size_t ncsv;
	struct libscols_table *table;
	json_t *kept; /* array, while rows are kept */
};

/* Columns of CSV: the keys of a row, in this order for ever; new ones come at the end. */
static const char *const csv_columns[] = {
	"id",	    "time",	"event",  "verdict",  "session",    "client",	   "client_port",
	"listener", "user",	"method", "command",  "name",	    "address",	   "port",
	"rule",	    "revision", "reason", "bytes_up", "bytes_down", "duration_us", "detail",
};

#define CELL_MAX 1200

/* ---- cells of the table ------------------------------------------------------------------------------------------ */

typedef const char *make_cell(const struct rows *r, const json_t *row, char *out);

static const char *plain(const json_t *row, const char *key, char *out)
{
	char buf[FORMAT_TEXT_MAX];

	return format_safe(format_member(row, key, buf), out, CELL_MAX);
}

/* RFC 3339 in UTC becomes local time, without the date's year where the line is short. */
static const char *time_cell(const struct rows *r, const json_t *row, char *out)
{
	struct tm tm = {0};
	char buf[FORMAT_TEXT_MAX];
	const char *rest = strptime(format_member(row, "time", buf), "%Y-%m-%dT%H:%M:%S", &tm);

	if (rest == NULL)
		return plain(row, "time", out);
	time_t seconds = timegm(&tm);

	localtime_r(&seconds, &tm);
	strftime(out, CELL_MAX, r->width != 0 && r->width < 120 ? "%m-%d %H:%M:%S" : "%Y-%m-%d %H:%M:%S", &tm);
	return out;
}

static const char *event_cell(const struct rows *r, const json_t *row, char *out)
{
	(void)r;
	return plain(row, "event", out);
}

static const char *user_cell(const struct rows *r, const json_t *row, char *out)
{
	(void)r;
	return plain(row, "user", out);
}

static const char *client_cell(const struct rows *r, const json_t *row, char *out)
{
	(void)r;
	return plain(row, "client", out);
}

static const char *destination_cell(const struct rows *r, const json_t *row, char *out)
{
	char name[CELL_MAX], port[CELL_MAX];

	(void)r;
	plain(row, "name", name);
	if (*name == '\0')
		plain(row, "address", name);
	plain(row, "port", port);
	if (*port == '\0')
		snprintf(out, CELL_MAX, "%.1100s", name);
	else
		snprintf(out, CELL_MAX, strchr(name, ':') != NULL ? "[%.1100s]:%.8s" : "%.1100s:%.8s", name, port);
	return out;
}

static const char *rule_cell(const struct rows *r, const json_t *row, char *out)
{
	(void)r;
	return plain(row, "rule", out);
}

static const char *reason_cell(const struct rows *r, const json_t *row, char *out)
{
	(void)r;
	return plain(row, "reason", out);
}

static const char *bytes_cell(const json_t *row, const char *key, char *out)
{
	if (json_object_get(row, key) == NULL)
		return "";
	return format_bytes((uint64_t)format_number(row, key), out);
}

static const char *up_cell(const struct rows *r, const json_t *row, char *out)
{
	(void)r;
	return bytes_cell(row, "bytes_up", out);
}

static const char *down_cell(const struct rows *r, const json_t *row, char *out)
{
	(void)r;
	return bytes_cell(row, "bytes_down", out);
}

static const char *session_cell(const struct rows *r, const json_t *row, char *out)
{
	(void)r;
	return plain(row, "session", out);
}

static const struct table_column {
	const char *head;
	make_cell *make;
	unsigned from_width; /* of the line; narrower ones do without */
	int flags;
} table_columns[] = {
	{"TIME", time_cell, 0, 0},
	{"EVENT", event_cell, 0, 0},
	{"USER", user_cell, 0, SCOLS_FL_TRUNC},
	{"CLIENT", client_cell, 0, 0},
	{"DESTINATION", destination_cell, 0, SCOLS_FL_TRUNC},
	{"RULE", rule_cell, 0, SCOLS_FL_TRUNC},
	{"REASON", reason_cell, 0, SCOLS_FL_TRUNC},
	{"UP", up_cell, 120, SCOLS_FL_RIGHT},
	{"DOWN", down_cell, 120, SCOLS_FL_RIGHT},
	{"SESSION", session_cell, 140, 0},
};

static bool is_shown(const struct rows *r, const struct table_column *c)
{
	return r->width == 0 || r->width >= c->from_width;
}

#define NTABLE (sizeof table_columns / sizeof *table_columns)

static const char *key_cell(const struct rows *r, const json_t *row, char *out)
{
	(void)r;
	return plain(row, "key", out);
}

static const char *sessions_cell(const struct rows *r, const json_t *row, char *out)
{
	(void)r;
	return plain(row, "sessions", out);
}

static const char *denied_cell(const struct rows *r, const json_t *row, char *out)
{
	(void)r;
	return plain(row, "denied", out);
}

static const char *duration_cell(const struct rows *r, const json_t *row, char *out)
{
	(void)r;
	return format_duration(format_number(row, "duration_us"), out);
}

static const struct table_column stats_columns[] = {
	{"KEY", key_cell, 0, SCOLS_FL_TRUNC},	    {"SESSIONS", sessions_cell, 0, SCOLS_FL_RIGHT},
	{"DENIED", denied_cell, 0, SCOLS_FL_RIGHT}, {"UP", up_cell, 0, SCOLS_FL_RIGHT},
	{"DOWN", down_cell, 0, SCOLS_FL_RIGHT},	    {"TIME", duration_cell, 0, SCOLS_FL_RIGHT},
};

static const char *const stats_csv[] = {"key", "sessions", "denied", "bytes_up", "bytes_down", "duration_us"};

static void table_row(struct rows *r, const json_t *row)
{
	struct libscols_line *line = scols_table_new_line(r->table, NULL);
	char cell[CELL_MAX];
	size_t at = 0;

	for (size_t i = 0; line != NULL && i < r->ncolumns; i++)
		if (is_shown(r, &r->columns[i]))
			scols_line_set_data(line, at++, r->columns[i].make(r, row, cell));
}

/* The columns that every table has. */
static void line_row(struct rows *r, const json_t *row)
{
	char cell[CELL_MAX];

	for (size_t i = 0; i < r->ncolumns; i++) {
		if (r->columns[i].from_width > 0)
			continue;
		const char *text = r->columns[i].make(r, row, cell);

		fprintf(r->out, "%s%s", i == 0 ? "" : "  ", *text == '\0' ? "-" : text);
	}
	putc('\n', r->out);
}

/* ---- CSV and JSON --------------------------------------------------------------------------------------------------
 */

static void csv_head(const struct rows *r)
{
	for (size_t i = 0; i < r->ncsv; i++)
		fprintf(r->out, "%s%s", i == 0 ? "" : ",", r->csv[i]);
	fputs("\r\n", r->out);
}

static void csv_row(const struct rows *r, const json_t *row)
{
	char buf[FORMAT_TEXT_MAX];

	for (size_t i = 0; i < r->ncsv; i++) {
		const json_t *value = json_object_get(row, r->csv[i]);

		if (i > 0)
			putc(',', r->out);
		if (json_is_object(value) || json_is_array(value)) {
			char *text = json_dumps(value, JSON_COMPACT | JSON_ENSURE_ASCII);

			format_csv_cell(r->out, text == NULL ? "" : text);
			free(text);
		} else {
			format_csv_cell(r->out, format_member(row, r->csv[i], buf));
		}
	}
	fputs("\r\n", r->out);
}

/* ---- life -----------------------------------------------------------------------------------------------------------
 */

static struct libscols_table *table_new(const struct rows *r)
{
	struct libscols_table *table = scols_new_table();

	if (table == NULL)
		return NULL;
	scols_table_enable_noencoding(table, 1); /* cells are safe already */
	if (r->width != 0) {
		scols_table_set_termforce(table, SCOLS_TERMFORCE_ALWAYS);
		scols_table_set_termwidth(table, r->width);
	}
	for (size_t i = 0; i < r->ncolumns; i++)
		if (is_shown(r, &r->columns[i]))
			scols_table_new_column(table, r->columns[i].head, 0.05, r->columns[i].flags);
	return table;
}

struct rows *rows_new(enum rows_format format, unsigned width, bool stats)
{
	return rows_new_to(stdout, format, width, stats);
}

struct rows *rows_new_to(FILE *out, enum rows_format format, unsigned width, bool stats)
{
	struct rows *r = calloc(1, sizeof *r);

	if (r == NULL)
		return NULL;
	r->columns = stats ? stats_columns : table_columns;
	r->ncolumns = stats ? sizeof stats_columns / sizeof *stats_columns : NTABLE;
	r->csv = stats ? stats_csv : csv_columns;
	r->ncsv = stats ? sizeof stats_csv / sizeof *stats_csv : sizeof csv_columns / sizeof *csv_columns;
	r->format = format;
	r->out = out;
	r->width = width;
	if (format == ROWS_TABLE && (r->table = table_new(r)) == NULL)
		rows_free(&r);
	if (format == ROWS_CSV)
		csv_head(r);
	return r;
}

void rows_reverse(struct rows *r, bool keep)
{
	json_t *kept = r->kept;

	r->kept = keep ? json_array() : NULL;
	for (size_t i = json_array_size(kept); i-- > 0;)
		rows_add(r, json_array_get(kept, i));
	json_decref(kept);
}

void rows_add(struct rows *r, const json_t *row)
{
	if (r->kept != NULL) {
		json_array_append(r->kept, (json_t *)(uintptr_t)row);
		return;
	}
	switch (r->format) {
	case ROWS_TABLE:
		table_row(r, row);
		break;
	case ROWS_LINES:
		line_row(r, row);
		break;
	case ROWS_CSV:
		csv_row(r, row);
		break;
	case ROWS_JSON:
		json_dumpf(row, r->out, JSON_COMPACT | JSON_ENSURE_ASCII);
		putc('\n', r->out);
		break;
	}
}

void rows_end(struct rows *r)
{
	fflush(r->out);
	if (r->format == ROWS_TABLE && scols_table_get_nlines(r->table) > 0)
		scols_print_table(r->table);
}

void rows_free(struct rows **rp)
{
	struct rows *r = *rp;

	*rp = NULL;
	if (r == NULL)
		return;
	if (r->table != NULL)
		scols_unref_table(r->table);
	json_decref(r->kept);
	free(r);
}
