#include "config.h"

#include <getopt.h>
#include <inttypes.h>
#include <libsmartcols.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "admin/admin.h"
#include "admin/client.h"
#include "admin/format.h"
#include "admin/options.h"

static const char usage[] = "usage: gatewayctl status [--json]\n"
			    "\n"
			    "Shows processes, policy, sessions and the health of the audit.\n"
			    "\n"
			    "  --json   as one JSON object\n";

/* "2026-11-20 19:30:01" local, of microseconds since the epoch or of a text. */
static const char *moment(const json_t *object, const char *key, char buf[FORMAT_TEXT_MAX])
{
	const json_t *value = json_object_get(object, key);
	time_t seconds;
	struct tm tm;

	if (!json_is_integer(value))
		return format_member(object, key, buf);
	/* Seconds or microseconds: nobody's seconds reach 10^11 before the year 5138. */
	seconds = (time_t)json_integer_value(value);
	if (json_integer_value(value) > INT64_C(100000000000))
		seconds = (time_t)(json_integer_value(value) / 1000000);
	buf[0] = '\0';
	if (localtime_r(&seconds, &tm) != NULL)
		strftime(buf, FORMAT_TEXT_MAX, "%Y-%m-%d %H:%M:%S", &tm);
	return buf;
}

static const char *shown(const json_t *object, const char *key, char *out, size_t size)
{
	char buf[FORMAT_TEXT_MAX];

	return format_safe(format_member(object, key, buf), out, size);
}

static void show_gateway(const json_t *status)
{
	char version[64], up[FORMAT_TEXT_MAX];

	printf("gatewayd %s, process %" PRId64 ", up %s\n", shown(status, "version", version, sizeof version),
	       format_number(status, "pid"), format_duration(format_number(status, "uptime_s") * 1000000, up));
}

static void show_approval(const json_t *approval)
{
	int64_t pending = format_number(approval, "pending");

	if (json_is_true(json_object_get(approval, "required")))
		printf("  a change takes effect when a second administrator approves it\n");
	if (pending > 0)
		printf("  %" PRId64 " revision(s) wait for approval (gatewayctl policy pending)\n", pending);
}

static void show_policy(const json_t *status)
{
	const json_t *policy = json_object_get(status, "policy"), *trial = json_object_get(policy, "trial"), *warning;
	const json_t *change = json_object_get(policy, "change");
	char by[256], stage[64];
	char when[FORMAT_TEXT_MAX], safe[1024];
	size_t i;

	printf("policy   revision %" PRId64 ", %" PRId64 " rules", format_number(status, "revision"),
	       format_number(policy, "rules"));
	if (json_object_get(policy, "loaded_at") != NULL)
		printf(", loaded %s", format_safe(moment(policy, "loaded_at", when), safe, sizeof safe));
	putchar('\n');
	if (json_is_true(json_object_get(policy, "store_large")))
		printf("  warning: the policy store has %s; every revision is kept, since the audit refers to it\n",
		       format_bytes((uint64_t)format_number(policy, "store_bytes"), when));
	if (change != NULL)
		printf("  a change by %s is under way: %s\n", shown(change, "author", by, sizeof by), shown(change, "stage", stage, sizeof stage));
	show_approval(json_object_get(policy, "approval"));
	if (trial != NULL)
		printf("  on trial: revision %" PRId64 " returns at %s unless it is confirmed (gatewayctl policy confirm)\n",
		       format_number(trial, "previous"), format_safe(moment(trial, "until", when), safe, sizeof safe));
	json_array_foreach(json_object_get(policy, "warnings"), i, warning) if (json_is_string(warning))
		printf("  warning: %s\n", format_safe(json_string_value(warning), safe, sizeof safe));
}

/* The databases that policy asks for countries and autonomous systems. */
static void show_tables(const json_t *status)
{
	const char *key;
	json_t *table;

	json_object_foreach(json_object_get(status, "tables"), key, table)
	{
		char name[64], state[64], fault[1100], path[1100], buf[FORMAT_TEXT_MAX];

		printf("%-8s %s, %s", format_safe(key, name, sizeof name), shown(table, "state", state, sizeof state),
		       shown(table, "database", path, sizeof path));
		if (json_object_get(table, "loaded_at") != NULL)
			printf(", loaded %s", format_safe(moment(table, "loaded_at", buf), state, sizeof state));
		putchar('\n');
		if (*shown(table, "fault", fault, sizeof fault) != '\0')
			printf("  warning: %s\n", fault);
	}
}

static double real(const json_t *object, const char *key)
{
	return json_number_value(json_object_get(object, key));
}

static void show_rates(const json_t *rates)
{
	char up[FORMAT_TEXT_MAX], down[FORMAT_TEXT_MAX], period[FORMAT_TEXT_MAX];

	if (rates == NULL)
		return;
	printf("rates    %.1f granted/s, %.1f denied/s, %s/s up, %s/s down, over the last %s\n", real(rates, "granted"),
	       real(rates, "denied") + real(rates, "login_failed"), format_bytes((uint64_t)real(rates, "bytes_up"), up),
	       format_bytes((uint64_t)real(rates, "bytes_down"), down), format_duration(format_number(rates, "period_us"), period));
}

static void show_last_error(const json_t *status)
{
	const json_t *e = json_object_get(status, "last_error");
	char process[64], text[1300], when[FORMAT_TEXT_MAX];

	if (e != NULL)
		printf("error    %s, %s: %s\n", moment(e, "at_us", when), shown(e, "process", process, sizeof process),
		       shown(e, "text", text, sizeof text));
}

static void show_traffic(const json_t *status)
{
	const json_t *w = json_object_get(status, "workers");
	char up[FORMAT_TEXT_MAX], down[FORMAT_TEXT_MAX];

	printf("sessions %" PRId64 " open, %" PRId64 " accepted, %" PRId64 " granted, %" PRId64 " denied\n",
	       format_number(w, "sessions"), format_number(w, "accepted"), format_number(w, "granted"),
	       format_number(w, "denied"));
	if (format_number(status, "silent_workers") > 0)
		printf("  without those of %" PRId64 " worker(s) that do not answer\n", format_number(status, "silent_workers"));
	if (format_number(status, "not_listening") > 0)
		printf("  %" PRId64 " socket(s) do not listen again: another program holds the address (see the log)\n",
		       format_number(status, "not_listening"));
	if (json_is_true(json_object_get(status, "draining")))
		printf("  draining: no new connection is taken (gatewayctl drain --undo)\n");
	printf("bytes    %s up, %s down\n", format_bytes((uint64_t)(format_number(w, "bytes_up") + format_number(w, "live_bytes_up")), up),
	       format_bytes((uint64_t)(format_number(w, "bytes_down") + format_number(w, "live_bytes_down")), down));
	show_rates(json_object_get(status, "rates"));
}

/* Of what was looked up; what hosts(5) tells is no lookup. */
static void show_names(const json_t *status)
{
	const json_t *w = json_object_get(status, "workers");
	int64_t hits = format_number(w, "names_hits"), joined = format_number(w, "names_joined"), misses = format_number(w, "names_misses");
	char bytes[FORMAT_TEXT_MAX];

	if (hits + joined + misses == 0)
		return;
	printf("names    %" PRId64 " lookups: %" PRId64 " from memory, %" PRId64 " shared, %" PRId64 " asked; %" PRId64 " kept, %s\n",
	       hits + joined + misses, hits, joined, misses, format_number(w, "names_kept"),
	       format_bytes((uint64_t)format_number(w, "names_bytes"), bytes));
}

static void show_audit(const json_t *status)
{
	const json_t *audit = json_object_get(status, "audit");
	char state[64], error[1024], commit[FORMAT_TEXT_MAX];

	shown(audit, "state", state, sizeof state);
	printf("audit    %s, %" PRId64 " rows, %" PRId64 " waiting, last commit took %.1f ms\n",
	       *state != '\0' ? state : "unknown: the recorder does not answer", format_number(audit, "rows"),
	       format_number(audit, "queued"), (double)format_number(audit, "last_commit_us") / 1000);
	if (json_object_get(audit, "durability") != NULL)
		printf("  warning: audit-durability is relaxed: a grant may be told that a loss of power takes out of the audit\n");
	if (json_object_get(audit, "on_failure") != NULL)
		printf("  warning: on-audit-failure is allow: sessions are granted also while nothing can be recorded, %" PRId64
		       " so far\n", format_number(json_object_get(status, "workers"), "unrecorded"));
	if (json_is_true(json_object_get(json_object_get(audit, "chain"), "first_key_waits")))
		printf("  warning: the audit's first key (first.key beside it) waits for the auditor: take it away, verify needs it\n");
	if (*shown(audit, "error", error, sizeof error) != '\0')
		printf("  error: %s\n  no new session is granted until the audit can be written (since %s)\n", error,
		       moment(audit, "failing_since_us", commit));
}

/* Whatever the authentication says of itself, in one line: its keys are its own. */
/* What has not happened is not told; --json tells all of it. */
static void show_auth(const json_t *status)
{
	const char *key;
	json_t *value, *auth = json_object_get(status, "auth");
	const char *separator = "auth     ";

	json_object_foreach(auth, key, value)
	{
		char name[64], text[256];

		if (json_is_object(value) || json_is_array(value) || (json_is_integer(value) && json_integer_value(value) == 0))
			continue;
		printf("%s%s %s", separator, format_safe(key, name, sizeof name), shown(auth, key, text, sizeof text));
		separator = ", ";
	}
	if (*separator == ',')
		putchar('\n');
}

static void show_processes(const json_t *status)
{
	static const char *const heads[] = {"PROCESS", "PID", "UP", "RESTARTS", "STATE"};
	struct libscols_table *table = scols_new_table();
	const json_t *process;
	size_t i;

	if (table == NULL)
		return;
	scols_table_enable_noencoding(table, 1); /* cells are safe already */
	for (size_t c = 0; c < sizeof heads / sizeof *heads; c++)
		scols_table_new_column(table, heads[c], 0.1, c == 1 || c == 3 ? SCOLS_FL_RIGHT : 0);
	json_array_foreach(json_object_get(status, "processes"), i, process)
	{
		struct libscols_line *line = scols_table_new_line(table, NULL);
		char text[128], role[64], slot[32], up[FORMAT_TEXT_MAX];

		snprintf(text, sizeof text, "%s/%s", shown(process, "role", role, sizeof role),
			 shown(process, "slot", slot, sizeof slot));
		scols_line_set_data(line, 0, text);
		scols_line_set_data(line, 1, shown(process, "pid", text, sizeof text));
		scols_line_set_data(line, 2, format_duration(format_number(process, "uptime_s") * 1000000, up));
		scols_line_set_data(line, 3, shown(process, "restarts", text, sizeof text));
		scols_line_set_data(line, 4, shown(process, "state", text, sizeof text));
	}
	if (scols_table_get_nlines(table) > 0) {
		putchar('\n');
		fflush(stdout);
		scols_print_table(table);
	}
	scols_unref_table(table);
}

static void show(const json_t *status)
{
	show_gateway(status);
	show_policy(status);
	show_tables(status);
	show_traffic(status);
	show_names(status);
	show_audit(status);
	show_auth(status);
	show_last_error(status);
	show_processes(status);
}

int admin_status(int argc, char **argv)
{
	bool json = false;
	int code = admin_options(argc, argv, usage, (struct admin_option[]){{"json", &json, NULL}, {0}});

	if (code >= 0)
		return code;
	if (optind < argc)
		return admin_misused(usage);
	json_t *reply = client_ask(json_pack("{s:s}", "command", "status"), NULL, &code);

	if (reply == NULL)
		return code;
	const json_t *status = json_object_get(reply, "status");

	if (json) {
		json_dumpf(status, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
		putchar('\n');
	} else {
		show(status);
	}
	json_decref(reply);
	return ADMIN_FINE;
}
