/* gatewayctl audit: asks a running gatewayd, or with --dir reads the store itself. */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "admin/admin.h"
#include "admin/audit.h"
#include "admin/audit_ask.h"
#include "admin/audit_export.h"
#include "admin/format.h"
#include "admin/options.h"
#include "admin/rows.h"
#include "admin/times.h"
#include "common/clock.h"
#include "schema/audit_json.h"
#include "schema/audit_stats.h"

/* A table for people ends somewhere; CSV and JSON are whole unless --limit says otherwise. */
#define TABLE_LIMIT 100
#define TAIL_ROWS 10
#define STATS_ROWS 20

static const char usage[] =
	"usage: gatewayctl audit query [OPTION ...] | gatewayctl audit tail [-f] ...\n"
	"       gatewayctl audit stats --by KEY [OPTION ...]\n"
	"       gatewayctl audit export -o DIR --key FILE [OPTION ...]\n"
	"       gatewayctl audit export --new-key FILE | --verify DIR --signer KEY\n"
	"       gatewayctl audit verify | sql | why | report | prune | hold  (see --help)\n"
	"\n"
	"query shows rows, newest first; tail the last ten, with -f those that follow.\n"
	"stats sums up by user, group, client, dest, port, country, rule, revision,\n"
	"listener, method, command, reason, event, hour, weekday or day.\n"
	"export signs rows (CSV or JSON lines) in a new directory.\n"
	"  --user U --group G --client ADDR|CIDR --country CC --port N --text TEXT\n"
	"  --rule NAME --revision N --session ID --id N --verdict allow|deny\n"
	"  --to DEST         NAME, .SUFFIX (it and below), *.SUFFIX, ADDR or CIDR\n"
	"  --event KIND[,..] open, connected, denied, ended, login-failed, policy, admin,\n"
	"                    start, stop, flow, flow-ended, checkpoint, flow-checkpoint,\n"
	"                    throttle, look\n"
	"  --since TIME      15m, 2h, 30d (ago), or YYYY-MM-DD[ HH:MM[:SS]] (Z, +HH:MM)\n"
	"  --until TIME      before then; a date alone includes that day\n"
	"  --zone ZONE       of times, such as Europe/Berlin\n"
	"  --columns A,B     of CSV, and country, asn, groups; for every format\n"
	"  --limit N         rows (0: all; a table: 100)   --order newest|oldest\n"
	"  --format table|csv|json (--json: the last)      --dir DIR  without gatewayd\n";

struct query {
	json_t *filter;
	enum rows_format format;
	bool limited; /* --limit was given */
	bool tail, follow, following, stats, exports;
	const char *output, *key; /* of an export */
	const char *since, *until, *columns;
	const char *by; /* what sums are made by */
	int64_t newest; /* the id that the answer's end told of */
	const char *dir;
};

/* ---- words ----------------------------------------------------------------------------------------------------------
 */

/* Read when the zone is known. */
static int set_time(struct query *q, const char *option, const char *key, const char *text, bool end)
{
	struct err why;
	int64_t us;

	if (text == NULL)
		return -1;
	if (time_parse(text, clock_wall_us(), end, &us, &why) != 0)
		return admin_fail(ADMIN_USAGE, "%s: %s", option, why.text);
	json_object_set_new(q->filter, key, json_integer(us));
	return -1;
}

static int set_number(struct query *q, const char *key, const char *what)
{
	char *end;
	errno = 0;
	unsigned long long value = strtoull(optarg, &end, 10);

	if (errno != 0 || optarg[0] < '0' || optarg[0] > '9' || *end != '\0' || value > INT64_MAX)
		return admin_fail(ADMIN_USAGE, "--%s: \"%s\" is no %s", key, optarg, what);
	json_object_set_new(q->filter, key, json_integer((json_int_t)value));
	return -1;
}

static int set_text(struct query *q, const char *key)
{
	/* Bytes that are no UTF-8 cannot be asked for: jansson gives NULL. */
	if (json_object_set_new(q->filter, key, json_string(optarg)) != 0)
		return admin_fail(ADMIN_USAGE, "--%s: the text is no UTF-8", key);
	return -1;
}

/* Options whose text is a member of the filter of the same name have a 0. */
static const struct option options[] = {
	{"user", required_argument, NULL, 0},
	{"client", required_argument, NULL, 0},
	{"to", required_argument, NULL, 0},
	{"verdict", required_argument, NULL, 0},
	{"event", required_argument, NULL, 0},
	{"session", required_argument, NULL, 0},
	{"order", required_argument, NULL, 0},
	{"since", required_argument, NULL, 's'},
	{"until", required_argument, NULL, 'u'},
	{"zone", required_argument, NULL, 'z'},
	{"columns", required_argument, NULL, 'c'},
	{"id", required_argument, NULL, 'i'},
	{"limit", required_argument, NULL, 'l'},
	{"rule", required_argument, NULL, 0},
	{"group", required_argument, NULL, 0},
	{"text", required_argument, NULL, 0},
	{"country", required_argument, NULL, 0},
	{"port", required_argument, NULL, 'p'},
	{"revision", required_argument, NULL, 'r'},
	{"follow", no_argument, NULL, 'F'},
	{"by", required_argument, NULL, 'b'},
	{"format", required_argument, NULL, 'f'},
	{"json", no_argument, NULL, 'j'},
	{"dir", required_argument, NULL, 'd'},
	{"output", required_argument, NULL, 'o'},
	{"key", required_argument, NULL, 'k'},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

static int set_option(struct query *q, int c, int index)
{
	struct err why;

	switch (c) {
	case 0:
		return set_text(q, options[index].name);
	case 's':
		q->since = optarg;
		return -1;
	case 'u':
		q->until = optarg;
		return -1;
	case 'z':
		return time_set_zone(optarg, &why) ? -1 : admin_fail(ADMIN_USAGE, "--zone: %s", why.text);
	case 'c':
		q->columns = optarg;
		return -1;
	case 'i':
		return set_number(q, "id", "id of a row");
	case 'l':
		q->limited = true;
		return set_number(q, "limit", "number of rows");
	case 'p':
		return set_number(q, "port", "port");
	case 'r':
		return set_number(q, "revision", "revision");
	case 'b':
		if (!q->stats)
			return admin_fail(ADMIN_USAGE, "--by is for gatewayctl audit stats");
		q->by = optarg;
		return -1;
	case 'o':
	case 'k':
		if (!q->exports)
			return admin_fail(ADMIN_USAGE, "--output and --key are for gatewayctl audit export");
		*(c == 'o' ? &q->output : &q->key) = optarg;
		return -1;
	case 'F':
		if (!q->tail)
			return admin_fail(ADMIN_USAGE, "-f is for gatewayctl audit tail");
		q->follow = true;
		return -1;
	case 'f':
		return rows_set_format(&q->format, optarg);
	case 'j':
		return rows_set_format(&q->format, "json");
	case 'd':
		q->dir = optarg;
		return -1;
	case 'h':
		fputs(usage, stdout);
		return ADMIN_FINE;
	default:
		return admin_fail(ADMIN_USAGE, "see gatewayctl audit query --help");
	}
}

/* What sums are made by goes with the filter. */
static int check_stats(struct query *q)
{
	struct err why;
	struct audit_stats *stats;

	if (q->by == NULL)
		return admin_fail(ADMIN_USAGE, "--by is missing: " AUDIT_STATS_BY);
	stats = audit_stats_new(q->by, &why);
	if (stats == NULL)
		return admin_fail(ADMIN_USAGE, "--by: %s", why.text);
	audit_stats_free(&stats);
	json_object_set_new(q->filter, "stats", json_string(q->by));
	return -1;
}

static int check_export(struct query *q)
{
	if (q->output == NULL)
		return admin_fail(ADMIN_USAGE, "-o DIR is missing: the directory that is to be made");
	if (q->key == NULL)
		return admin_fail(ADMIN_USAGE, "--key FILE is missing: what signs the manifest (audit export --new-key FILE makes one)");
	if (q->format == ROWS_TABLE)
		return admin_fail(ADMIN_USAGE, "--format: an export is csv or json");
	if (json_object_get(q->filter, "order") == NULL)
		json_object_set_new(q->filter, "order", json_string("oldest"));
	return -1;
}

/* An exit code, or -1 to go on. */
static int parse(struct query *q, int argc, char **argv)
{
	struct audit_filter filter;
	struct err why;
	int c, code, index;

	optind = 0;
	while ((c = getopt_long(argc, argv, "+hfo:", options, &index)) != -1)
		/* -f without an argument is no --format. */
		if ((code = set_option(q, c == 'f' && optarg == NULL ? 'F' : c, index)) >= 0)
			return code;
	if (optind < argc)
		return admin_fail(ADMIN_USAGE, "\"%s\" is one word too many; see gatewayctl audit query --help",
				  argv[optind]);
	if ((code = set_time(q, "--since", "since_us", q->since, false)) >= 0 ||
	    (code = set_time(q, "--until", "until_us", q->until, true)) >= 0)
		return code;
	if (q->columns != NULL && !rows_columns_fit(q->columns, q->stats, &why))
		return admin_fail(ADMIN_USAGE, "--columns: %s", why.text);
	if (q->exports && (code = check_export(q)) >= 0)
		return code;
	if (q->tail) {
		if (!q->limited)
			json_object_set_new(q->filter, "limit", json_integer(TAIL_ROWS));
		json_object_set_new(q->filter, "order", json_string("newest"));
	}
	if (q->format == ROWS_TABLE && !q->limited && !q->tail)
		json_object_set_new(q->filter, "limit", json_integer(q->stats ? STATS_ROWS : TABLE_LIMIT));
	if (audit_filter_json(q->filter, &filter, &why) != 0)
		return admin_fail(ADMIN_USAGE, "%s", why.text);
	return q->stats ? check_stats(q) : -1;
}

/* ---- rows -----------------------------------------------------------------------------------------------------------
 */

static void note_cut(const struct query *q, int64_t rows)
{
	if (!q->limited && !q->tail && !q->stats)
		fprintf(stderr, "%" PRId64 " rows shown; there may be more (--limit N, --limit 0 for all)\n", rows);
}

static int take_row(const json_t *row, void *arg)
{
	rows_add(arg, row);
	return -1;
}

static int ask(struct query *q, struct rows *rows)
{
	/* Rows that are printed as they come would be written over. */
	const bool prints = q->format != ROWS_TABLE && isatty(STDOUT_FILENO);
	struct audit_question question = {
		.request = q->filter, .dir = q->dir, .quiet = prints || q->following, .take = take_row, .arg = rows};
	struct audit_end end;
	int code = audit_ask(&question, &end);

	if (end.came)
		q->newest = end.newest;
	if (code == ADMIN_FINE && end.more)
		note_cut(q, end.rows);
	return code;
}

/* What was recorded since, once a second, for as long as somebody looks. */
static int follow(struct query *q, struct rows *rows)
{
	int code = ADMIN_FINE;

	json_object_del(q->filter, "limit");
	json_object_del(q->filter, "order");
	q->following = true;
	while (code == ADMIN_FINE) {
		if (fflush(stdout) != 0)
			return admin_fail(ADMIN_REFUSED, "cannot write all of the output");
		sleep(1);
		json_object_set_new(q->filter, "after", json_integer((json_int_t)q->newest));
		code = ask(q, rows);
	}
	return code;
}

/* The last rows, oldest first. */
static int run_tail(struct query *q)
{
	struct rows *rows = rows_new(q->format == ROWS_TABLE ? ROWS_LINES : q->format, format_terminal_width(), false, q->columns);
	int code;

	if (rows == NULL)
		return admin_fail(ADMIN_REFUSED, "out of memory");
	rows_reverse(rows, true);
	code = ask(q, rows);
	rows_reverse(rows, false);
	if (code == ADMIN_FINE && q->follow)
		code = follow(q, rows);
	rows_free(&rows);
	return code;
}

static int run_query(int argc, char **argv)
{
	const bool exports = strcmp(argv[0], "export") == 0;
	struct query q = {.filter = json_object(),
			  .format = exports ? ROWS_CSV : ROWS_TABLE,
			  .exports = exports,
			  .tail = strcmp(argv[0], "tail") == 0,
			  .stats = strcmp(argv[0], "stats") == 0};
	struct rows *rows = NULL;
	int code = parse(&q, argc, argv);

	if (code < 0 && (q.tail || q.exports)) {
		code = q.tail ? run_tail(&q) : audit_export(&(struct export_order){q.filter, q.format, q.dir, q.output, q.key, q.columns});
		json_decref(q.filter);
		return code;
	}

	if (code < 0) {
		rows = rows_new(q.format, format_terminal_width(), q.stats, q.columns);
		if (rows == NULL)
			code = admin_fail(ADMIN_REFUSED, "out of memory");
		else
			code = ask(&q, rows);
	}
	if (rows != NULL && code != ADMIN_UNREACHABLE)
		rows_end(rows);
	rows_free(&rows);
	json_decref(q.filter);
	return code;
}

int admin_audit(int argc, char **argv)
{
	if (argc >= 3 && strcmp(argv[1], "export") == 0 && strcmp(argv[2], "--new-key") == 0)
		return audit_export_new_key(argc - 1, argv + 1);
	if (argc >= 3 && strcmp(argv[1], "export") == 0 &&
	    (strncmp(argv[2], "--verify", 8) == 0 || strncmp(argv[2], "--signer", 8) == 0))
		return audit_export_verify(argc - 1, argv + 1);
	if (argc >= 2 &&
	    (strcmp(argv[1], "query") == 0 || strcmp(argv[1], "export") == 0 || strcmp(argv[1], "tail") == 0 || strcmp(argv[1], "stats") == 0))
		return run_query(argc - 1, argv + 1);
	if (argc >= 2 && strcmp(argv[1], "verify") == 0)
		return admin_audit_verify(argc - 1, argv + 1);
	if (argc >= 2 && strcmp(argv[1], "sql") == 0)
		return admin_audit_sql(argc - 1, argv + 1);
	if (argc >= 2 && strcmp(argv[1], "why") == 0)
		return admin_audit_why(argc - 1, argv + 1);
	if (argc >= 2 && strcmp(argv[1], "report") == 0)
		return admin_audit_report(argc - 1, argv + 1);
	if (argc >= 2 && strcmp(argv[1], "prune") == 0)
		return admin_audit_prune(argc - 1, argv + 1);
	if (argc >= 2 && strcmp(argv[1], "hold") == 0)
		return admin_audit_hold(argc - 1, argv + 1);
	if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		fputs(usage, stdout);
		return ADMIN_FINE;
	}
	return admin_no_verb(usage, argc, argv);
}
