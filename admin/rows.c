#include "config.h"

#include "admin/rows.h"

#include <ctype.h>
#include <libsmartcols.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "admin/admin.h"
#include "admin/format.h"

#define CHOICE_MAX 32

struct rows {
	enum rows_format format;
	FILE *out;
	unsigned width;
	const struct table_column *columns; /* of the table */
	size_t ncolumns;
	const char *const *csv; /* columns of CSV */
	size_t ncsv;
	bool chosen; /* columns were chosen: what csv has is what tables and JSON have, too */
	const char *choice[CHOICE_MAX];
	struct libscols_table *table;
	json_t *kept; /* array, while rows are kept */
};

/* Columns of CSV: the keys of a row, in this order for ever; new ones come at the end. */
static const char *const csv_columns[] = {
	"id",	    "time",	"event",  "verdict",  "session",    "client",	   "client_port",
	"listener", "user",	"method", "command",  "name",	    "address",	   "port",
	"rule",	    "revision", "reason", "bytes_up", "bytes_down", "duration_us", "detail",
};

/* What a row tells besides, when it is asked for. */
static const char *const more_columns[] = {"country", "asn", "groups"};

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
	const json_t *detail = json_object_get(row, "detail");
	char user[FORMAT_TEXT_MAX], login[FORMAT_TEXT_MAX];

	(void)r;
	return format_author(format_member(row, "user", user), format_member(detail, "login", login), out, CELL_MAX);
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

/* Of the destination; of several candidates the first. */
static const json_t *detail_value(const json_t *row, const char *key)
{
	const json_t *detail = json_object_get(row, "detail"), *value = json_object_get(detail, key);

	return value != NULL ? value : json_object_get(json_array_get(json_object_get(detail, "candidates"), 0), key);
}

static const json_t *column_value(const json_t *row, const char *key)
{
	for (size_t i = 0; i < sizeof more_columns / sizeof *more_columns; i++)
		if (strcmp(more_columns[i], key) == 0)
			return detail_value(row, key);
	return json_object_get(row, key);
}

/* A column that was chosen, in a table: time, bytes and durations as people read them. */
static const char *chosen_cell(const struct rows *r, const json_t *row, const char *key, char *out)
{
	const json_t *value = column_value(row, key);
	json_t *one;

	if (strcmp(key, "time") == 0)
		return time_cell(r, row, out);
	if (strncmp(key, "bytes_", 6) == 0)
		return bytes_cell(row, key, out);
	if (strcmp(key, "duration_us") == 0)
		return value == NULL ? "" : format_duration(format_number(row, key), out);
	if (json_is_object(value) || json_is_array(value)) {
		char *text = json_dumps(value, JSON_COMPACT | JSON_ENSURE_ASCII);

		format_safe(text == NULL ? "" : text, out, CELL_MAX);
		free(text);
		return out;
	}
	one = json_pack("{s:O?}", key, value);
	plain(one, key, out);
	json_decref(one);
	return out;
}

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

	for (size_t i = 0; line != NULL && r->chosen && i < r->ncsv; i++)
		scols_line_set_data(line, i, chosen_cell(r, row, r->csv[i], cell));
	for (size_t i = 0; line != NULL && !r->chosen && i < r->ncolumns; i++)
		if (is_shown(r, &r->columns[i]))
			scols_line_set_data(line, at++, r->columns[i].make(r, row, cell));
}

/* The columns that every table has. */
static void line_row(struct rows *r, const json_t *row)
{
	char cell[CELL_MAX];

	for (size_t i = 0; i < (r->chosen ? r->ncsv : r->ncolumns); i++) {
		if (!r->chosen && r->columns[i].from_width > 0)
			continue;
		const char *text = r->chosen ? chosen_cell(r, row, r->csv[i], cell) : r->columns[i].make(r, row, cell);

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
		const json_t *value = column_value(row, r->csv[i]);

		if (i > 0)
			putc(',', r->out);
		if (json_is_object(value) || json_is_array(value)) {
			char *text = json_dumps(value, JSON_COMPACT | JSON_ENSURE_ASCII);

			format_csv_cell(r->out, text == NULL ? "" : text);
			free(text);
		} else {
			json_t *one = json_pack("{s:O?}", r->csv[i], value);

			format_csv_cell(r->out, format_member(one, r->csv[i], buf));
			json_decref(one);
		}
	}
	fputs("\r\n", r->out);
}

static void json_row(const struct rows *r, const json_t *row)
{
	json_t *picked = r->chosen ? json_object() : json_incref((json_t *)(uintptr_t)row);

	for (size_t i = 0; r->chosen && i < r->ncsv; i++)
		if (column_value(row, r->csv[i]) != NULL)
			json_object_set(picked, r->csv[i], (json_t *)(uintptr_t)column_value(row, r->csv[i]));
	json_dumpf(picked, r->out, JSON_COMPACT | JSON_ENSURE_ASCII);
	putc('\n', r->out);
	json_decref(picked);
}

/* ---- columns that are chosen ----------------------------------------------------------------------------------------
 */

static const char *known_column(const char *name, size_t len, bool stats)
{
	const struct {
		const char *const *names;
		size_t n;
	} lists[] = {{stats ? stats_csv : csv_columns,
		      stats ? sizeof stats_csv / sizeof *stats_csv : sizeof csv_columns / sizeof *csv_columns},
		     {more_columns, stats ? 0 : sizeof more_columns / sizeof *more_columns}};

	for (size_t l = 0; l < 2; l++)
		for (size_t i = 0; i < lists[l].n; i++)
			if (strlen(lists[l].names[i]) == len && memcmp(lists[l].names[i], name, len) == 0)
				return lists[l].names[i];
	return NULL;
}

/* How many; 0 if one is unknown, or there are too many. */
static size_t choose(const char *columns, bool stats, const char *choice[CHOICE_MAX])
{
	size_t n = 0;

	for (const char *at = columns; at != NULL && n < CHOICE_MAX;) {
		size_t len = strcspn(at, ",");

		choice[n] = known_column(at, len, stats);
		if (choice[n++] == NULL)
			return 0;
		at = at[len] == ',' ? at + len + 1 : NULL;
		if (at == NULL)
			return n;
	}
	return 0;
}

bool rows_columns_fit(const char *columns, bool stats, struct err *why)
{
	const char *choice[CHOICE_MAX];
	char all[400] = "";
	size_t n = stats ? sizeof stats_csv / sizeof *stats_csv : sizeof csv_columns / sizeof *csv_columns;

	if (choose(columns, stats, choice) > 0)
		return true;
	for (size_t i = 0; i < n; i++)
		snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i == 0 ? "" : ",", stats ? stats_csv[i] : csv_columns[i]);
	for (size_t i = 0; !stats && i < sizeof more_columns / sizeof *more_columns; i++)
		snprintf(all + strlen(all), sizeof all - strlen(all), ",%s", more_columns[i]);
	err_set(why, "\"%.100s\": columns are at most %d of %s", columns, CHOICE_MAX, all);
	return false;
}

/* ---- life -----------------------------------------------------------------------------------------------------------
 */

static bool is_count(const char *column)
{
	static const char *const counts[] = {"id", "port", "client_port", "revision", "bytes_up", "bytes_down", "duration_us",
					     "sessions", "denied", "asn"};

	for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
		if (strcmp(counts[i], column) == 0)
			return true;
	return false;
}

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
	for (size_t i = 0; r->chosen && i < r->ncsv; i++) {
		char head[64];

		snprintf(head, sizeof head, "%s", r->csv[i]);
		for (char *c = head; *c != '\0'; c++)
			*c = (char)toupper((unsigned char)*c);
		scols_table_new_column(table, head, 0.05, is_count(r->csv[i]) ? SCOLS_FL_RIGHT : SCOLS_FL_TRUNC);
	}
	for (size_t i = 0; !r->chosen && i < r->ncolumns; i++)
		if (is_shown(r, &r->columns[i]))
			scols_table_new_column(table, r->columns[i].head, 0.05, r->columns[i].flags);
	return table;
}

int rows_set_format(enum rows_format *format, const char *name)
{
	static const char *const names[] = {[ROWS_TABLE] = "table", [ROWS_CSV] = "csv", [ROWS_JSON] = "json"};

	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (strcmp(names[i], name) == 0) {
			*format = (enum rows_format)i;
			return -1;
		}
	return admin_fail(ADMIN_USAGE, "--format: \"%s\" is not table, csv or json", name);
}

struct rows *rows_new(enum rows_format format, unsigned width, bool stats, const char *columns)
{
	return rows_new_to(stdout, format, width, stats, columns);
}

struct rows *rows_new_to(FILE *out, enum rows_format format, unsigned width, bool stats, const char *columns)
{
	struct rows *r = calloc(1, sizeof *r);

	if (r == NULL)
		return NULL;
	r->columns = stats ? stats_columns : table_columns;
	r->ncolumns = stats ? sizeof stats_columns / sizeof *stats_columns : NTABLE;
	r->csv = stats ? stats_csv : csv_columns;
	r->ncsv = stats ? sizeof stats_csv / sizeof *stats_csv : sizeof csv_columns / sizeof *csv_columns;
	if (columns != NULL) {
		r->ncsv = choose(columns, stats, r->choice);
		r->csv = r->choice;
		r->chosen = true;
	}
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
		json_row(r, row);
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
