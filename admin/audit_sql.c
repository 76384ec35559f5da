/* gatewayctl audit sql: one SELECT over the audit, for whoever prefers that. */
#include "config.h"

#include <getopt.h>
#include <inttypes.h>
#include <libsmartcols.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "admin/admin.h"
#include "admin/audit.h"
#include "admin/audit_ask.h"
#include "admin/format.h"
#include "admin/progress.h"
#include "admin/rows.h"

#define TABLE_LIMIT 1000
#define SQL_MAX 60000
#define CELL_MAX 4096

static const char usage[] =
	"usage: gatewayctl audit sql [OPTION ...] SELECT|-\n"
	"\n"
	"Runs one SELECT of SQLite over the table event, which is all of the audit\n"
	"(- reads it from standard input).  It cannot write, nor read anything else, and\n"
	"takes at most a minute and 256 MB.\n"
	"Columns: id, time (text, UTC), time_us, event, verdict, session, client,\n"
	"client_port, listener, user, method, command, name, address, port, country,\n"
	"rule, revision, reason, bytes_up, bytes_down, duration_us, detail (JSON).\n"
	"Fast are conditions on time, time_us, session, id and user, and ORDER BY time.\n"
	"\n"
	"  --format table|csv|json (--json: the last)\n"
	"  --limit N   rows that are shown (a table: 1000; 0: all)\n"
	"  --seconds N after which it is ended: 60 unless said otherwise, and at most\n"
	"  --dir DIR   read the audit in DIR itself, without gatewayd\n";

struct job {
	const char *dir;
	enum rows_format format;
	int64_t limit, seconds; /* -1: not said */
	char *sql;
	json_t *columns;
	struct libscols_table *table;
};

/* ---- rows -----------------------------------------------------------------------------------------------------------
 */

static const char *cell(const json_t *value, char out[CELL_MAX])
{
	json_t *one = json_pack("{s:O?}", "value", value);
	char buf[FORMAT_TEXT_MAX];

	format_safe(format_member(one, "value", buf), out, CELL_MAX);
	json_decref(one);
	return out;
}

static int take_columns(struct job *job, const json_t *columns)
{
	const json_t *name;
	char safe[CELL_MAX];
	size_t i;

	job->columns = json_deep_copy(columns);
	if (job->format == ROWS_TABLE && (job->table = scols_new_table()) == NULL)
		return admin_fail(ADMIN_REFUSED, "out of memory");
	if (job->table != NULL) {
		unsigned width = format_terminal_width();

		scols_table_enable_noencoding(job->table, 1); /* cells are safe already */
		if (width != 0) {
			scols_table_set_termforce(job->table, SCOLS_TERMFORCE_ALWAYS);
			scols_table_set_termwidth(job->table, width);
		}
	}
	json_array_foreach(columns, i, name)
	{
		if (job->table != NULL)
			scols_table_new_column(job->table, cell(name, safe), 0.05, SCOLS_FL_TRUNC);
		if (job->format == ROWS_CSV) {
			fputs(i == 0 ? "" : ",", stdout);
			format_csv_cell(stdout, json_string_value(name));
		}
	}
	if (job->format == ROWS_CSV)
		fputs("\r\n", stdout);
	return -1;
}

static void print_json(const struct job *job, const json_t *values)
{
	json_t *row = json_object();
	const json_t *name;
	char again[CELL_MAX + 32], safe[CELL_MAX];
	size_t i;

	json_array_foreach(job->columns, i, name)
	{
		cell(name, safe);
		snprintf(again, sizeof again, "%s", safe);
		for (unsigned n = 2; json_object_get(row, again) != NULL; n++)
			snprintf(again, sizeof again, "%s_%u", safe, n);
		json_object_set(row, again, json_array_get(values, i));
	}
	json_dumpf(row, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
	putchar('\n');
	json_decref(row);
}

static int take_values(struct job *job, const json_t *values)
{
	struct libscols_line *line = job->table == NULL ? NULL : scols_table_new_line(job->table, NULL);
	const json_t *value;
	char safe[CELL_MAX];
	size_t i;

	if (json_array_size(values) != json_array_size(job->columns))
		return admin_fail(ADMIN_REFUSED, "gatewayd sent a row of another width");
	if (job->format != ROWS_TABLE)
		progress_hide(); /* what is shown tells enough */
	if (job->format == ROWS_JSON)
		print_json(job, values);
	if (job->format == ROWS_JSON)
		return -1;
	json_array_foreach(values, i, value)
	{
		if (line != NULL)
			scols_line_set_data(line, i, cell(value, safe));
		if (job->format != ROWS_CSV)
			continue;
		fputs(i == 0 ? "" : ",", stdout);
		/* Negative numbers are no formulas. */
		if (json_is_number(value))
			fputs(cell(value, safe), stdout);
		else
			format_csv_cell(stdout, json_is_string(value) ? json_string_value(value) : "");
	}
	if (job->format == ROWS_CSV)
		fputs("\r\n", stdout);
	return -1;
}

static int take_line(const json_t *line, void *arg)
{
	struct job *job = arg;
	const json_t *columns = json_object_get(line, "columns"), *values = json_object_get(line, "values");

	if (json_is_array(columns) && job->columns == NULL)
		return take_columns(job, columns);
	if (json_is_array(values) && job->columns != NULL)
		return take_values(job, values);
	return admin_fail(ADMIN_REFUSED, "gatewayd cannot answer SQL; is it of the same version?");
}

static int run(struct job *job)
{
	json_t *request = json_pack("{s:s}", "sql", job->sql);
	struct audit_question question = {.request = request, .dir = job->dir, .quiet = true, .take = take_line, .arg = job};
	struct audit_end end;
	int code;

	if (request == NULL)
		return admin_fail(ADMIN_REFUSED, "the statement is no UTF-8");
	if (job->limit < 0 && job->format == ROWS_TABLE)
		job->limit = TABLE_LIMIT;
	if (job->limit > 0)
		json_object_set_new(request, "limit", json_integer(job->limit));
	if (job->seconds >= 0)
		json_object_set_new(request, "seconds", json_integer(job->seconds));
	progress_show("reading the audit");
	code = audit_ask(&question, &end);
	progress_hide();
	fflush(stdout);
	if (job->table != NULL && scols_table_get_nlines(job->table) > 0)
		scols_print_table(job->table);
	if (code == ADMIN_FINE && end.more)
		fprintf(stderr, "%" PRId64 " rows shown; there are more (--limit N, --limit 0 for all)\n", end.rows);
	json_decref(request);
	return code;
}

/* ---- words ----------------------------------------------------------------------------------------------------------
 */

static char *read_statement(const char *word)
{
	char *sql = strcmp(word, "-") == 0 ? malloc(SQL_MAX + 1) : strdup(word);
	size_t n;

	if (sql == NULL || strcmp(word, "-") != 0)
		return sql;
	n = fread(sql, 1, SQL_MAX, stdin);
	sql[n] = '\0';
	return sql;
}

static int set_number(int64_t *number, const char *option, const char *what)
{
	if (*optarg == '\0' || strspn(optarg, "0123456789") != strlen(optarg) || strlen(optarg) > 15)
		return admin_fail(ADMIN_USAGE, "--%s: \"%s\" is no number of %s", option, optarg, what);
	*number = strtoll(optarg, NULL, 10);
	return -1;
}

/* An exit code, or -1 to go on. */
static int parse(struct job *job, int argc, char **argv)
{
	static const struct option options[] = {{"format", required_argument, NULL, 'f'}, {"limit", required_argument, NULL, 'l'},
						{"json", no_argument, NULL, 'j'},	  {"seconds", required_argument, NULL, 's'},
						{"dir", required_argument, NULL, 'd'},	  {"help", no_argument, NULL, 'h'},
						{NULL, 0, NULL, 0}};
	int c, code = -1;

	optind = 0;
	while (code < 0 && (c = getopt_long(argc, argv, "h", options, NULL)) != -1)
		switch (c) {
		case 'f':
			code = rows_set_format(&job->format, optarg);
			break;
		case 'j':
			code = rows_set_format(&job->format, "json");
			break;
		case 'l':
			code = set_number(&job->limit, "limit", "rows");
			break;
		case 's':
			code = set_number(&job->seconds, "seconds", "seconds");
			break;
		case 'd':
			job->dir = optarg;
			break;
		case 'h':
			fputs(usage, stdout);
			return ADMIN_FINE;
		default:
			return admin_fail(ADMIN_USAGE, "see gatewayctl audit sql --help");
		}
	if (code >= 0)
		return code;
	if (optind + 1 != argc)
		return admin_fail(ADMIN_USAGE, "one statement is to be given, as one word; see gatewayctl audit sql --help");
	job->sql = read_statement(argv[optind]);
	if (job->sql == NULL || strlen(job->sql) >= SQL_MAX)
		return admin_fail(ADMIN_USAGE, "the statement is longer than %d bytes", SQL_MAX);
	return -1;
}

int admin_audit_sql(int argc, char **argv)
{
	struct job job = {.format = ROWS_TABLE, .limit = -1, .seconds = -1};
	int code = parse(&job, argc, argv);

	if (code < 0)
		code = run(&job);
	if (job.table != NULL)
		scols_unref_table(job.table);
	json_decref(job.columns);
	free(job.sql);
	return code;
}
