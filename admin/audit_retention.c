/* gatewayctl audit prune, gatewayctl audit hold: retention, and what it leaves alone. */
#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <libsmartcols.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/admin.h"
#include "admin/audit.h"
#include "admin/client.h"
#include "admin/format.h"
#include "admin/times.h"
#include "common/clock.h"
#include "schema/audit_json.h"

static const char prune_usage[] =
	"usage: gatewayctl audit prune --keep AGE [--class CLASS ...] [OPTION ...]\n"
	"\n"
	"Removes rows that are older than AGE from segments of the audit that are written\n"
	"no more, unless a hold keeps them; verify knows them from rows that somebody\n"
	"removed.  The order and what came of it are recorded.\n"
	"\n"
	"  --keep AGE      like 400d or 52w; at least a day\n"
	"  --class CLASS   sessions, denials, logins, policy, admin (with starts and\n"
	"                  stops) or looks; may be repeated; without it, all\n"
	"  --hold CASE     only if this hold stands\n"
	"  --dry-run       count only\n"
	"  --json          what came of it as JSON\n";

static const char hold_usage[] =
	"usage: gatewayctl audit hold place CASE [FILTER ...]\n"
	"       gatewayctl audit hold release CASE\n"
	"       gatewayctl audit hold list [--json]\n"
	"\n"
	"Rows that the filter of a hold matches are not pruned, whatever their age.\n"
	"Filters are those of gatewayctl audit query: --user, --client, --to, --verdict,\n"
	"--event, --session, --since, --until, --rule, --group, --text,\n"
	"--country, --port, --revision, --id.  Without any, everything is held.\n";

/* ---- prune ------------------------------------------------------------------------------------------------------- */

static int read_keep(const char *text, int64_t *keep_us)
{
	int64_t now = clock_wall_us(), then;
	size_t len = strlen(text);
	struct err why;

	if (len < 2 || !isalpha((unsigned char)text[len - 1]) || strspn(text, "0123456789") != len - 1 ||
	    time_parse(text, now, false, &then, &why) != 0)
		return admin_fail(ADMIN_USAGE, "--keep: \"%s\" is no age like 400d or 52w", text);
	*keep_us = now - then;
	return -1;
}

static int show_prune(const json_t *reply, bool dry_run)
{
	char text[FORMAT_TEXT_MAX], safe[1200];
	int64_t skipped = format_number(reply, "skipped");

	printf(dry_run ? "%" PRId64 " rows of before %s would be pruned, %" PRId64 " are kept by holds; %" PRId64
			 " segments would be removed\n"
		       : "%" PRId64 " rows of before %s are pruned, %" PRId64 " are kept by holds; %" PRId64
			 " segments are removed\n",
	       format_number(reply, "rows"), format_safe(format_member(reply, "before", text), safe, sizeof safe),
	       format_number(reply, "held"), format_number(reply, "segments"));
	if (!dry_run)
		printf("%" PRId64 " segments were written anew; %" PRId64 " bytes of the disk are free again\n",
		       format_number(reply, "rewritten"), format_number(reply, "bytes"));
	if (skipped > 0)
		printf("%" PRId64 " segments are still being finished: prune again later\n", skipped);
	return ADMIN_FINE;
}

static int order_prune(json_t *request, bool dry_run, bool json)
{
	int code = ADMIN_FINE;
	json_t *reply = client_order(request, -1, NULL, &code);

	if (reply == NULL)
		return code == ADMIN_FINE ? ADMIN_REFUSED : code;
	if (!json_is_true(json_object_get(reply, "ok"))) {
		if (format_number(reply, "rows") > 0)
			admin_fail(0, "%" PRId64 " rows were pruned before it failed", format_number(reply, "rows"));
		client_show_refusal(reply);
		code = ADMIN_REFUSED;
	} else if (json) {
		json_object_del(reply, "ok");
		json_dumpf(reply, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
		putchar('\n');
		code = ADMIN_FINE;
	} else {
		code = show_prune(reply, dry_run);
	}
	json_decref(reply);
	return code;
}

int admin_audit_prune(int argc, char **argv)
{
	static const struct option options[] = {{"keep", required_argument, NULL, 'k'},
						{"class", required_argument, NULL, 'c'},
						{"hold", required_argument, NULL, 'H'},
						{"dry-run", no_argument, NULL, 'n'},
						{"json", no_argument, NULL, 'j'},
						{"help", no_argument, NULL, 'h'},
						{NULL, 0, NULL, 0}};
	json_t *request = json_pack("{s:s, s:s}", "command", "audit-retention", "verb", "prune"), *names = json_array();
	int64_t keep_us = -1;
	bool dry_run = false, json = false;
	int c, code = -1;

	optind = 0;
	while (code < 0 && (c = getopt_long(argc, argv, "hn", options, NULL)) != -1)
		switch (c) {
		case 'k':
			code = read_keep(optarg, &keep_us);
			break;
		/* Without either it would prune more. */
		case 'c':
			if (json_array_append_new(names, json_string(optarg)) != 0)
				code = admin_fail(ADMIN_USAGE, "--class: the text is no UTF-8");
			break;
		case 'H':
			if (json_object_set_new(request, "hold", json_string(optarg)) != 0)
				code = admin_fail(ADMIN_USAGE, "--hold: the text is no UTF-8");
			break;
		case 'n':
			dry_run = true;
			break;
		case 'j':
			json = true;
			break;
		case 'h':
			fputs(prune_usage, stdout);
			code = ADMIN_FINE;
			break;
		default:
			fputs(prune_usage, stderr);
			code = ADMIN_USAGE;
		}
	if (code < 0 && optind < argc)
		code = admin_fail(ADMIN_USAGE, "\"%s\" is one word too many; see gatewayctl audit prune --help",
				  argv[optind]);
	if (code < 0 && keep_us < 0)
		code = admin_fail(ADMIN_USAGE, "--keep AGE is missing: how old a row has to be to be pruned");
	json_object_set_new(request, "classes", names);
	json_object_set_new(request, "keep_us", json_integer(keep_us));
	json_object_set_new(request, "dry_run", json_boolean(dry_run));
	if (code < 0)
		return order_prune(request, dry_run, json);
	json_decref(request);
	return code;
}

/* ---- holds ------------------------------------------------------------------------------------------------------- */

static const struct option filter_options[] = {
	{"user", required_argument, NULL, 0},	    {"client", required_argument, NULL, 0},
	{"to", required_argument, NULL, 0},	    {"verdict", required_argument, NULL, 0},
	{"event", required_argument, NULL, 0},	    {"session", required_argument, NULL, 0},
	{"rule", required_argument, NULL, 0},	    {"group", required_argument, NULL, 0},
	{"text", required_argument, NULL, 0},	    {"since", required_argument, NULL, 's'},
	{"until", required_argument, NULL, 'u'},    {"port", required_argument, NULL, 'n'},
	{"revision", required_argument, NULL, 'n'}, {"id", required_argument, NULL, 'n'},
	{"country", required_argument, NULL, 0},    {"json", no_argument, NULL, 'j'},
	{"help", no_argument, NULL, 'h'},	    {NULL, 0, NULL, 0},
};

static int set_number(json_t *filter, const char *name)
{
	char *end;

	errno = 0;
	long long value = strtoll(optarg, &end, 10);

	if (errno != 0 || optarg[0] < '0' || optarg[0] > '9' || *end != '\0')
		return admin_fail(ADMIN_USAGE, "--%s: \"%s\" is no number", name, optarg);
	json_object_set_new(filter, name, json_integer(value));
	return -1;
}

static int set_time(json_t *filter, const char *name, bool end)
{
	struct err why;
	int64_t us;

	if (time_parse(optarg, clock_wall_us(), end, &us, &why) != 0)
		return admin_fail(ADMIN_USAGE, "--%s: %s", name, why.text);
	json_object_set_new(filter, end ? "until_us" : "since_us", json_integer(us));
	return -1;
}

/* An exit code, or -1 to go on. */
static int read_filter(int argc, char **argv, json_t *filter, bool *json)
{
	struct audit_filter parsed;
	struct err why;
	int c, index = 0, code = -1;

	optind = 0;
	while (code < 0 && (c = getopt_long(argc, argv, "h", filter_options, &index)) != -1)
		switch (c) {
		case 0:
			if (json_object_set_new(filter, filter_options[index].name, json_string(optarg)) != 0)
				code = admin_fail(ADMIN_USAGE, "--%s: the text is no UTF-8",
						  filter_options[index].name);
			break;
		case 's':
		case 'u':
			code = set_time(filter, filter_options[index].name, c == 'u');
			break;
		case 'n':
			code = set_number(filter, filter_options[index].name);
			break;
		case 'j':
			*json = true;
			break;
		case 'h':
			fputs(hold_usage, stdout);
			return ADMIN_FINE;
		default:
			fputs(hold_usage, stderr);
			return ADMIN_USAGE;
		}
	if (code < 0 && audit_filter_json(filter, &parsed, &why) != 0)
		code = admin_fail(ADMIN_USAGE, "%s", why.text);
	return code;
}

static void print_holds(json_t *reply, bool json)
{
	static const char *const titles[] = {"CASE", "SINCE", "BY", "FILTER"};
	struct libscols_table *table = json ? NULL : scols_new_table();
	json_t *hold;
	size_t i;

	if (json) {
		json_dumpf(json_object_get(reply, "holds"), stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
		putchar('\n');
		return;
	}
	for (i = 0; table != NULL && i < sizeof titles / sizeof *titles; i++)
		scols_table_new_column(table, titles[i], 0, i == 3 ? SCOLS_FL_WRAP : 0);
	json_array_foreach(json_object_get(reply, "holds"), i, hold)
	{
		struct libscols_line *line = table == NULL ? NULL : scols_table_new_line(table, NULL);
		char text[FORMAT_TEXT_MAX], safe[1200], time[AUDIT_TIME_TEXT_MAX];
		char *filter = json_dumps(json_object_get(hold, "filter"), JSON_COMPACT | JSON_ENSURE_ASCII);

		if (line != NULL && filter != NULL) {
			scols_line_set_data(line, 0, format_safe(format_member(hold, "name", text), safe, sizeof safe));
			scols_line_set_data(line, 1, audit_time_text(format_number(hold, "since_us"), time));
			scols_line_set_data(line, 2, format_safe(format_member(hold, "by", text), safe, sizeof safe));
			scols_line_set_data(line, 3, format_safe(filter, safe, sizeof safe));
		}
		free(filter);
	}
	if (json_array_size(json_object_get(reply, "holds")) == 0)
		puts("no hold stands");
	else if (table != NULL)
		scols_print_table(table);
	scols_unref_table(table);
}

int admin_audit_hold(int argc, char **argv)
{
	json_t *filter = json_object(), *reply;
	bool json = false;
	int code = read_filter(argc, argv, filter, &json), words = argc - optind;
	const char *verb = code < 0 && words > 0 ? argv[optind] : "";
	bool list = strcmp(verb, "list") == 0, place = strcmp(verb, "place") == 0,
	     release = strcmp(verb, "release") == 0;

	if (code < 0 && ((!list && !place && !release) || words != (list ? 1 : 2) || (json && !list) ||
			 (!place && json_object_size(filter) > 0))) {
		fputs(hold_usage, stderr);
		code = ADMIN_USAGE;
	}
	if (code >= 0) {
		json_decref(filter);
		return code;
	}
	reply = client_ask(json_pack("{s:s, s:s, s:s*, s:o}", "command", "audit-retention", "verb",
				     list ? "holds" : verb, "name", list ? NULL : argv[optind + 1], "filter", filter),
			   NULL, &code);
	if (reply == NULL)
		return code;
	if (list)
		print_holds(reply, json);
	else
		printf("hold %s is %s\n", argv[optind + 1], place ? "placed" : "released");
	json_decref(reply);
	return ADMIN_FINE;
}
