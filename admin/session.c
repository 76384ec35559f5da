/* gatewayctl session: the sessions that live, and what is not to begin. */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <libsmartcols.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "admin/admin.h"
#include "admin/client.h"
#include "admin/format.h"
#include "admin/options.h"
#include "admin/session.h"
#include "admin/times.h"
#include "common/clock.h"

#define TABLE_LIMIT 100
#define LIMIT_MAX 200
#define LINE_MAX_BYTES (1024 * 1024)

static const char usage[] =
	"usage: gatewayctl session list [FILTER ...] [--sort bytes|age|rate] [--limit N]\n"
	"       gatewayctl session show ID | gatewayctl session watch [FILTER ...]  (top)\n"
	"       gatewayctl session kill FILTER ... --reason TEXT [--yes] [--dry-run]\n"
	"       gatewayctl session block FILTER ... --for TIME --reason TEXT [--yes]\n"
	"       gatewayctl session blocks | gatewayctl session unblock N\n"
	"\n"
	"list   sessions that live; kill ends them, and says so in their records\n"
	"show   one, with the flows of an association, or who may come to a BIND\n"
	"block  ends them, and keeps new ones from beginning, before policy is asked\n"
	"FILTER, all that is given must hold; also as \"user=ann\":\n"
	"  --user USER --group GROUP --client ADDR|CIDR --port PORT --country XX\n"
	"  --rule NAME --revision N --session ID --text TEXT\n"
	"  --to DEST      NAME, .SUFFIX (it and all below), *.SUFFIX, ADDR or CIDR\n"
	"  --since TIME, --until TIME   when it began: 15m, 2h, 30d (ago), or a date\n"
	"  --all          kill: every session\n"
	"  --sort KEY     the first by bytes, age or rate (bytes a second)\n"
	"  --limit N      at most N (0: all; a table shows 100, sorted up to 200)\n"
	"  --reason TEXT  becomes part of every record\n"
	"  --for TIME     30s, 15m, 2h, 7d\n"
	"  --yes          do not ask, even for many\n"
	"  --dry-run      only say what would be ended\n"
	"  --json         each verb: one JSON object a line\n";

struct words {
	const char *verb, *object;
	json_t *filter;
	const char *sort, *reason;
	int64_t limit, seconds; /* -1: not given */
	bool json, yes, dry_run, all;
};

/* ---- words -------------------------------------------------------------------------------------------------------------- */

static const char *const filter_texts[] = {"user", "group", "client", "to", "country", "rule", "text", "session"};
static const char *const filter_numbers[] = {"port", "revision"};
static const struct {
	const char *name, *key;
	bool end;
} filter_times[] = {{"since", "since_us", false}, {"until", "until_us", true}};

static int set_number(const char *what, const char *text, int64_t *out)
{
	char *end;

	errno = 0;
	long long value = strtoll(text, &end, 10);

	if (errno != 0 || text[0] < '0' || text[0] > '9' || *end != '\0')
		return admin_fail(ADMIN_USAGE, "%s: \"%s\" is no number", what, text);
	*out = value;
	return -1;
}

static int set_time(json_t *filter, size_t which, const char *value)
{
	int64_t time_us;
	struct err why;

	if (json_object_get(filter, filter_times[which].key) != NULL)
		return admin_fail(ADMIN_USAGE, "%s is given twice", filter_times[which].name);
	if (time_parse(value, clock_wall_us(), filter_times[which].end, &time_us, &why) != 0)
		return admin_fail(ADMIN_USAGE, "%s: %s", filter_times[which].name, why.text);
	json_object_set_new(filter, filter_times[which].key, json_integer(time_us));
	return -1;
}

static int set_filter(json_t *filter, const char *key, const char *value)
{
	int64_t number;
	int code;

	if (json_object_get(filter, key) != NULL)
		return admin_fail(ADMIN_USAGE, "%s is given twice: a session has one; ask once for each", key);
	for (size_t i = 0; i < sizeof filter_times / sizeof *filter_times; i++)
		if (strcmp(filter_times[i].name, key) == 0)
			return set_time(filter, i, value);
	for (size_t i = 0; i < sizeof filter_texts / sizeof *filter_texts; i++)
		if (strcmp(filter_texts[i], key) == 0)
			return json_object_set_new(filter, key, json_string(value)) == 0
				       ? -1
				       : admin_fail(ADMIN_USAGE, "%s: the text is no UTF-8", key);
	for (size_t i = 0; i < sizeof filter_numbers / sizeof *filter_numbers; i++)
		if (strcmp(filter_numbers[i], key) == 0) {
			code = set_number(key, value, &number);
			if (code < 0)
				json_object_set_new(filter, key, json_integer(number));
			return code;
		}
	return admin_fail(ADMIN_USAGE, "\"%s\" is no filter: user, group, client, to, port, country, rule, revision, session, text, since or until", key);
}

static int set_seconds(struct words *w, const char *text)
{
	static const struct {
		const char *unit;
		int seconds;
	} units[] = {{"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}};
	char *end;

	errno = 0;
	long long value = strtoll(text, &end, 10);

	for (size_t i = 0; errno == 0 && value > 0 && value < 100000000 && i < sizeof units / sizeof *units; i++)
		if (strcmp(end, units[i].unit) == 0) {
			w->seconds = value * units[i].seconds;
			return -1;
		}
	return admin_fail(ADMIN_USAGE, "--for: \"%s\" is no time: write it like 30s, 15m, 2h or 7d", text);
}

static const struct option options[] = {
	{"group", required_argument, NULL, 0},	 {"country", required_argument, NULL, 0},  {"since", required_argument, NULL, 0},
	{"until", required_argument, NULL, 0},
	{"user", required_argument, NULL, 0},	 {"client", required_argument, NULL, 0},   {"to", required_argument, NULL, 0},
	{"rule", required_argument, NULL, 0},	 {"text", required_argument, NULL, 0},	   {"session", required_argument, NULL, 0},
	{"port", required_argument, NULL, 0},	 {"revision", required_argument, NULL, 0}, {"sort", required_argument, NULL, 'S'},
	{"limit", required_argument, NULL, 'l'}, {"reason", required_argument, NULL, 'r'}, {"for", required_argument, NULL, 'f'},
	{"yes", no_argument, NULL, 'y'},	 {"dry-run", no_argument, NULL, 'n'},	   {"all", no_argument, NULL, 'a'},
	{"json", no_argument, NULL, 'j'},	 {"help", no_argument, NULL, 'h'},	   {NULL, 0, NULL, 0},
};

static int set_option(struct words *w, int c, int index)
{
	switch (c) {
	case 0:
		return set_filter(w->filter, options[index].name, optarg);
	case 'S':
		w->sort = optarg;
		return -1;
	case 'l':
		return set_number("--limit", optarg, &w->limit);
	case 'r':
		w->reason = optarg;
		return -1;
	case 'f':
		return set_seconds(w, optarg);
	case 'y':
		w->yes = true;
		return -1;
	case 'n':
		w->dry_run = true;
		return -1;
	case 'a':
		w->all = true;
		return -1;
	case 'j':
		w->json = true;
		return -1;
	case 'h':
		fputs(usage, stdout);
		return ADMIN_FINE;
	default:
		fputs(usage, stderr);
		return ADMIN_USAGE;
	}
}

int session_filter_word(json_t *filter, const char *word)
{
	const char *equals = strchr(word, '=');
	char key[32];

	if (equals == NULL || (size_t)(equals - word) >= sizeof key)
		return admin_fail(ADMIN_USAGE, "\"%s\" is no filter: write it like user=ann", word);
	memcpy(key, word, (size_t)(equals - word));
	key[equals - word] = '\0';
	return set_filter(filter, key, equals + 1);
}

/* "user=ann"; or the object of a verb that has one. */
static int set_word(struct words *w, char *word)
{
	if (strchr(word, '=') != NULL)
		return session_filter_word(w->filter, word);
	if (w->object != NULL)
		return admin_fail(ADMIN_USAGE, "\"%s\" is one word too many; see gatewayctl session --help", word);
	w->object = word;
	return -1;
}

/* An exit code, or -1 to go on. */
static int parse(struct words *w, int argc, char **argv)
{
	int c, code = -1, index;

	optind = 0;
	while (code < 0 && (c = getopt_long(argc, argv, "h", options, &index)) != -1)
		code = set_option(w, c, index);
	for (; code < 0 && optind < argc; optind++)
		code = set_word(w, argv[optind]);
	if (code < 0 && w->sort != NULL && strcmp(w->sort, "bytes") != 0 && strcmp(w->sort, "age") != 0 && strcmp(w->sort, "rate") != 0)
		code = admin_fail(ADMIN_USAGE, "--sort: \"%s\" is not bytes, age or rate", w->sort);
	return code;
}

/* ---- the list ----------------------------------------------------------------------------------------------------------- */

/* What is done with each; false: no more is wanted. */
typedef bool each_row(const json_t *row, void *arg);

static int read_rows(FILE *pipe, each_row *each, void *arg, json_t **end)
{
	char *line = NULL;
	size_t size = 0;
	ssize_t n;
	bool wanted = true;

	*end = NULL;
	while (wanted && *end == NULL && (n = getline(&line, &size, pipe)) > 0 && n <= LINE_MAX_BYTES) {
		json_t *row = json_loadb(line, (size_t)n, JSON_REJECT_DUPLICATES, NULL);

		if (json_is_true(json_object_get(row, "end")))
			*end = json_incref(row);
		else if (json_is_object(row))
			wanted = each(row, arg);
		else
			wanted = false;
		json_decref(row);
	}
	free(line);
	if (*end == NULL && wanted)
		return admin_fail(ADMIN_REFUSED, "the answer ended early: it is not complete");
	return ADMIN_FINE;
}

int session_ask(json_t *request, each_row *each, void *arg, json_t **end)
{
	int fd, code;
	json_t *reply = client_ask(request, &fd, &code);
	FILE *pipe = reply == NULL || fd < 0 ? NULL : fdopen(fd, "r");

	*end = NULL;
	if (reply == NULL)
		return code;
	json_decref(reply);
	if (pipe == NULL)
		return admin_fail(ADMIN_REFUSED, "gatewayd agreed, but sent no sessions");
	code = read_rows(pipe, each, arg, end);
	fclose(pipe);
	return code;
}

static int say_silent(const json_t *end)
{
	const json_t *silent = json_object_get(end, "silent"), *slot;
	int code = ADMIN_FINE;
	size_t i;

	json_array_foreach(silent, i, slot) code = admin_fail(ADMIN_REFUSED, "worker %" JSON_INTEGER_FORMAT " did not answer: its sessions are missing",
							      json_integer_value(slot));
	return code;
}

const char *session_destination(const json_t *row, char *out, size_t size)
{
	char name[512], address[128], buf[FORMAT_TEXT_MAX];
	int64_t port = format_number(row, "port");

	format_safe(format_member(row, "name", buf), name, sizeof name);
	format_safe(format_member(row, "address", buf), address, sizeof address);
	const char *host = name[0] != '\0' ? name : address;

	if (host[0] == '\0')
		snprintf(out, size, "%s", format_number(row, "flows") > 0 ? "(udp)" : "-");
	else
		snprintf(out, size, strchr(host, ':') != NULL ? "[%s]:%" PRId64 : "%s:%" PRId64, host, port);
	return out;
}

struct table {
	struct libscols_table *table;
	int64_t rows, limit; /* 0: all */
	bool json, cut;
};

static void add_cell(struct libscols_line *line, size_t column, const char *text)
{
	char safe[1024];

	scols_line_set_data(line, column, format_safe(text, safe, sizeof safe));
}

static bool show_row(const json_t *row, void *arg)
{
	struct table *t = arg;
	char text[1024], buf[FORMAT_TEXT_MAX];
	struct libscols_line *line;

	if (t->limit > 0 && t->rows >= t->limit) {
		t->cut = true;
		return false;
	}
	t->rows++;
	if (t->json) {
		json_dumpf(row, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
		putchar('\n');
		return true;
	}
	line = scols_table_new_line(t->table, NULL);
	if (line == NULL)
		return false;
	add_cell(line, 0, format_member(row, "session", buf));
	add_cell(line, 1, format_member(row, "state", buf));
	add_cell(line, 2, format_member(row, "user", buf));
	add_cell(line, 3, format_member(row, "client", buf));
	add_cell(line, 4, session_destination(row, text, sizeof text));
	add_cell(line, 5, format_member(row, "rule", buf));
	add_cell(line, 6, format_duration(format_number(row, "duration_us"), buf));
	add_cell(line, 7, format_bytes((uint64_t)(format_number(row, "bytes_up") + format_number(row, "bytes_down")), buf));
	format_bytes((uint64_t)format_number(row, "rate"), buf);
	snprintf(text, sizeof text, "%s/s", buf);
	add_cell(line, 8, text);
	return true;
}

static struct libscols_table *new_table(void)
{
	static const char *const titles[] = {"SESSION", "STATE", "USER", "CLIENT", "DESTINATION", "RULE", "AGE", "BYTES", "RATE"};
	struct libscols_table *table = scols_new_table();

	if (table != NULL)
		scols_table_enable_noencoding(table, 1); /* cells are safe already */
	for (size_t i = 0; table != NULL && i < sizeof titles / sizeof *titles; i++)
		scols_table_new_column(table, titles[i], 0, i >= 6 ? SCOLS_FL_RIGHT : i == 4 || i == 5 ? SCOLS_FL_TRUNC : 0);
	if (table != NULL && format_terminal_width() > 0)
		scols_table_set_termwidth(table, format_terminal_width());
	return table;
}

/* Of all workers' firsts, the first. */
static struct {
	const char *key;
} sorting;

static int64_t sort_key(const json_t *row)
{
	if (strcmp(sorting.key, "rate") == 0)
		return format_number(row, "rate");
	if (strcmp(sorting.key, "age") == 0)
		return format_number(row, "duration_us");
	return format_number(row, "bytes_up") + format_number(row, "bytes_down");
}

static int by_key(const void *a, const void *b)
{
	int64_t x = sort_key(*(const json_t *const *)a), y = sort_key(*(const json_t *const *)b);

	return x > y ? -1 : x < y;
}

static bool keep_row(const json_t *row, void *arg)
{
	return json_array_append(arg, (json_t *)(uintptr_t)row) == 0;
}

int session_sorted(json_t *filter, const char *key, int64_t limit, json_t **rows, json_t **end)
{
	json_t *all = json_array();
	int code = session_ask(json_pack("{s:s, s:O, s:s, s:I}", "command", "session-list", "filter", filter, "sort", key, "limit",
					 (json_int_t)limit),
			       keep_row, all, end);
	size_t n = json_array_size(all);
	json_t **order = calloc(n + 1, sizeof *order);

	*rows = json_array();
	for (size_t i = 0; order != NULL && i < n; i++)
		order[i] = json_array_get(all, i);
	sorting.key = key;
	if (order != NULL)
		qsort(order, n, sizeof *order, by_key);
	for (size_t i = 0; order != NULL && i < n && (int64_t)i < limit; i++)
		json_array_append(*rows, order[i]);
	free(order);
	json_decref(all);
	return code;
}

static int list(struct words *w)
{
	struct table t = {.json = w->json, .limit = w->limit >= 0 ? w->limit : w->json ? 0 : TABLE_LIMIT};
	json_t *end = NULL, *rows = NULL, *row;
	size_t i;
	int code;

	if (w->sort != NULL && (t.limit > LIMIT_MAX || w->limit == 0))
		return admin_fail(ADMIN_USAGE, "a sorted list has up to %d sessions: give --limit, or leave --sort out", LIMIT_MAX);
	if (!t.json && (t.table = new_table()) == NULL)
		return admin_fail(ADMIN_REFUSED, "out of memory");
	if (w->sort != NULL) {
		if (t.limit == 0)
			t.limit = LIMIT_MAX;
		code = session_sorted(w->filter, w->sort, t.limit, &rows, &end);
		json_array_foreach(rows, i, row) show_row(row, &t);
		json_decref(rows);
	} else {
		code = session_ask(json_pack("{s:s, s:O}", "command", "session-list", "filter", w->filter), show_row, &t, &end);
	}
	if (t.table != NULL && code == ADMIN_FINE && t.rows == 0)
		puts(json_object_size(w->filter) > 0 ? "no session matches" : "no session lives");
	else if (t.table != NULL && code != ADMIN_UNREACHABLE)
		scols_print_table(t.table);
	if (t.table != NULL)
		scols_unref_table(t.table);
	if (code == ADMIN_FINE && (t.cut || format_number(end, "sessions") > t.rows) && !w->json)
		fprintf(stderr, "%" PRId64 " sessions shown of more (--limit N, --limit 0 for all)\n", t.rows);
	if (code == ADMIN_FINE)
		code = say_silent(end);
	json_decref(end);
	return code;
}

/* ---- one ---------------------------------------------------------------------------------------------------------------- */

/* Into the session that they are part of: "udp_flows", and "peers" of a BIND. */
static bool keep_part(const json_t *row, void *arg)
{
	const char *part = json_string_value(json_object_get(row, "part"));
	const char *key = part == NULL ? NULL : strcmp(part, "flow") == 0 ? "udp_flows" : "peers";
	json_t *rows = arg, *session = json_array_get(rows, 0), *copy;

	if (key == NULL)
		return keep_row(row, rows);
	copy = json_copy((json_t *)(uintptr_t)row);
	json_object_del(copy, "part");
	if (json_object_get(session, key) == NULL)
		json_object_set_new(session, key, json_array());
	return json_array_append_new(json_object_get(session, key), copy) == 0;
}

static void show_member(const json_t *session, const char *key, const json_t *value)
{
	char buf[FORMAT_TEXT_MAX], safe[2048];
	size_t len = strlen(key);

	if (json_is_array(value))
		return;
	if (len > 3 && strcmp(key + len - 3, "_us") == 0)
		printf("%-13.*s %s\n", (int)len - 3, key, format_duration(json_integer_value(value), buf));
	else if (strcmp(key, "rate") == 0)
		printf("%-13s %s/s\n", key, format_bytes((uint64_t)json_integer_value(value), buf));
	else
		printf("%-13s %s\n", key, format_safe(format_member(session, key, buf), safe, sizeof safe));
}

static void flow_line(struct libscols_line *line, const json_t *flow)
{
	char text[1024], buf[FORMAT_TEXT_MAX], down[FORMAT_TEXT_MAX];

	add_cell(line, 0, format_member(flow, "state", buf));
	add_cell(line, 1, session_destination(flow, text, sizeof text));
	add_cell(line, 2, format_member(flow, "rule", buf));
	add_cell(line, 3, format_bytes((uint64_t)format_number(flow, "bytes_up"), buf));
	add_cell(line, 4, format_bytes((uint64_t)format_number(flow, "bytes_down"), down));
	snprintf(text, sizeof text, "%" PRId64 "/%" PRId64, format_number(flow, "datagrams_up"), format_number(flow, "datagrams_down"));
	add_cell(line, 5, text);
	add_cell(line, 6, format_duration(format_number(flow, "duration_us"), buf));
	add_cell(line, 7, format_duration(format_number(flow, "idle_us"), buf));
}

static void peer_line(struct libscols_line *line, const json_t *peer)
{
	char buf[FORMAT_TEXT_MAX];

	add_cell(line, 0, format_member(peer, "address", buf));
	add_cell(line, 1, format_member(peer, "rule", buf));
}

static void show_parts(const json_t *parts, const char *const *titles, size_t ntitles, void (*fill)(struct libscols_line *, const json_t *))
{
	struct libscols_table *table = json_array_size(parts) == 0 ? NULL : scols_new_table();
	const json_t *part;
	size_t i;

	if (table == NULL)
		return;
	scols_table_enable_noencoding(table, 1); /* cells are safe already */
	for (i = 0; i < ntitles; i++)
		scols_table_new_column(table, titles[i], 0, i >= 3 ? SCOLS_FL_RIGHT : i >= 1 ? SCOLS_FL_TRUNC : 0);
	if (format_terminal_width() > 0)
		scols_table_set_termwidth(table, format_terminal_width());
	json_array_foreach(parts, i, part)
	{
		struct libscols_line *line = scols_table_new_line(table, NULL);

		if (line != NULL)
			fill(line, part);
	}
	putchar('\n');
	fflush(stdout);
	scols_print_table(table);
	scols_unref_table(table);
}

static void show_session(const json_t *session)
{
	static const char *const flows[] = {"FLOW", "DESTINATION", "RULE", "UP", "DOWN", "DATAGRAMS", "AGE", "IDLE"};
	static const char *const peers[] = {"MAY COME", "RULE"};
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)session, key, value) show_member(session, key, value);
	show_parts(json_object_get(session, "udp_flows"), flows, sizeof flows / sizeof *flows, flow_line);
	show_parts(json_object_get(session, "peers"), peers, sizeof peers / sizeof *peers, peer_line);
}

static int show(struct words *w)
{
	json_t *rows, *end = NULL;
	int code;

	if (w->object == NULL)
		return admin_fail(ADMIN_USAGE, "session show takes the id of a session, like 0123-4567-89AB-C");
	rows = json_array();
	code = session_ask(json_pack("{s:s, s:s}", "command", "session-show", "session", w->object), keep_part, rows, &end);
	if (code == ADMIN_FINE)
		code = say_silent(end);
	if (code == ADMIN_FINE && json_array_size(rows) == 0)
		code = admin_fail(ADMIN_REFUSED, "no such session lives; `gatewayctl audit query --session %s` tells of one that has ended",
				  w->object);
	if (w->json && json_array_size(rows) > 0) {
		json_dumpf(json_array_get(rows, 0), stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
		putchar('\n');
	} else if (json_array_size(rows) > 0) {
		show_session(json_array_get(rows, 0));
	}
	json_decref(rows);
	json_decref(end);
	return code;
}

/* ---- ending and blocking ------------------------------------------------------------------------------------------------- */

static bool count_row(const json_t *row, void *arg)
{
	(void)row;
	++*(int64_t *)arg;
	return true;
}

/* Yes, or it is only one, or nobody is there to ask. */
static bool may(const struct words *w, int64_t n, const char *what)
{
	char answer[16] = "";

	if (w->yes || n <= 1 || !isatty(STDIN_FILENO) || !isatty(STDERR_FILENO))
		return true;
	fprintf(stderr, "%s %" PRId64 " sessions? [y/N] ", what, n);
	return fgets(answer, sizeof answer, stdin) != NULL && (answer[0] == 'y' || answer[0] == 'Y');
}

/* A worker that has not said that it is done does what it was told to. */
static int say_later(const json_t *reply)
{
	const json_t *later = json_object_get(reply, "later"), *slot;
	int code = ADMIN_FINE;
	size_t i;

	json_array_foreach(later, i, slot) code = admin_fail(
		ADMIN_REFUSED, "worker %" JSON_INTEGER_FORMAT " is busy: it has been told, and does it as soon as it can", json_integer_value(slot));
	return code;
}

static int print_reply(const struct words *w, const json_t *reply, bool block)
{
	int64_t n = format_number(reply, "ended");
	int silent = say_silent(reply), later = say_later(reply), code = silent != ADMIN_FINE ? silent : later;

	if (w->json) {
		json_dumpf(reply, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
		putchar('\n');
		return code;
	}
	if (block)
		printf("block %" PRId64 " is in force; ", format_number(reply, "block"));
	printf("%" PRId64 " session%s ended\n", n, n == 1 ? "" : "s");
	if (block && json_is_false(json_object_get(reply, "saved")))
		fputs("it could not be saved: it ends with the gateway's next restart, see its log\n", stderr);
	return code;
}

static int end_them(struct words *w, bool block)
{
	json_t *end = NULL, *reply, *request;
	int64_t n = 0;
	int code;

	if (w->object != NULL)
		return admin_fail(ADMIN_USAGE, "\"%s\" is no filter: write it like user=%s", w->object, w->object);
	if (json_object_size(w->filter) == 0 && (block || !w->all))
		return admin_fail(ADMIN_USAGE, "say which sessions: --user, --client, --to ...%s", block ? "" : ", or --all");
	if (w->reason == NULL && !w->dry_run)
		return admin_fail(ADMIN_USAGE, "--reason TEXT is missing: it becomes part of every record");
	if (block && w->seconds < 0)
		return admin_fail(ADMIN_USAGE, "--for TIME is missing: how long the block lasts, like 1h");
	code = session_ask(json_pack("{s:s, s:O}", "command", "session-list", "filter", w->filter), count_row, &n, &end);
	json_decref(end);
	if (code != ADMIN_FINE)
		return code;
	if (w->dry_run) {
		if (w->json)
			printf("{\"would_end\":%" PRId64 "}\n", n);
		else
			printf("%" PRId64 " session%s would be ended\n", n, n == 1 ? "" : "s");
		return ADMIN_FINE;
	}
	if (!may(w, n, block ? "block, and end" : "end"))
		return admin_fail(ADMIN_REFUSED, "nothing was done");
	request = json_pack("{s:s, s:O, s:s, s:b}", "command", block ? "session-block" : "session-kill", "filter", w->filter, "reason",
			    w->reason, "all", (int)w->all);
	if (request != NULL && block)
		json_object_set_new(request, "seconds", json_integer(w->seconds));
	reply = client_ask(request, NULL, &code);
	if (reply != NULL)
		code = print_reply(w, reply, block);
	json_decref(reply);
	return code;
}

static int session_kill(struct words *w)
{
	return end_them(w, false);
}

static int session_block(struct words *w)
{
	return end_them(w, true);
}

static const char *filter_text(const json_t *filter, char *out, size_t size)
{
	const char *key;
	json_t *value;
	size_t used = 0;
	char buf[FORMAT_TEXT_MAX];

	out[0] = '\0';
	json_object_foreach((json_t *)(uintptr_t)filter, key, value)
	{
		int n = snprintf(out + used, size - used, "%s%s=%s", used == 0 ? "" : " ", key, format_member(filter, key, buf));

		if (n < 0 || (size_t)n >= size - used)
			break;
		used += (size_t)n;
	}
	return out;
}

static int blocks(struct words *w)
{
	static const char *const titles[] = {"BLOCK", "UNTIL", "BY", "WHAT", "REASON"};
	json_t *reply, *block;
	struct libscols_table *table;
	int code;
	size_t i;

	reply = client_ask(json_pack("{s:s}", "command", "session-blocks"), NULL, &code);
	if (reply == NULL)
		return code;
	table = w->json ? NULL : scols_new_table();
	if (table != NULL)
		scols_table_enable_noencoding(table, 1);
	for (i = 0; table != NULL && i < sizeof titles / sizeof *titles; i++)
		scols_table_new_column(table, titles[i], 0, i >= 3 ? SCOLS_FL_TRUNC : 0);
	if (table != NULL && format_terminal_width() > 0)
		scols_table_set_termwidth(table, format_terminal_width());
	json_array_foreach(json_object_get(reply, "blocks"), i, block)
	{
		char text[1200], buf[FORMAT_TEXT_MAX], login[FORMAT_TEXT_MAX];
		time_t until = (time_t)(format_number(block, "until_us") / 1000000);
		struct libscols_line *line = table == NULL ? NULL : scols_table_new_line(table, NULL);
		struct tm tm;

		if (w->json) {
			json_dumpf(block, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
			putchar('\n');
		}
		if (line == NULL)
			continue;
		add_cell(line, 0, format_member(block, "id", buf));
		buf[0] = '\0';
		if (localtime_r(&until, &tm) != NULL)
			strftime(buf, sizeof buf, "%Y-%m-%d %H:%M:%S", &tm);
		add_cell(line, 1, buf);
		format_author(format_member(block, "author", buf), format_member(block, "login", login), text, sizeof text);
		add_cell(line, 2, text);
		add_cell(line, 3, filter_text(json_object_get(block, "filter"), text, sizeof text));
		add_cell(line, 4, format_member(block, "reason", buf));
	}
	if (table != NULL && i == 0)
		puts("no block is in force");
	else if (table != NULL)
		scols_print_table(table);
	scols_unref_table(table);
	json_decref(reply);
	return ADMIN_FINE;
}

static int unblock(struct words *w)
{
	json_t *reply;
	int64_t id;
	int code;

	if (w->object == NULL)
		return admin_fail(ADMIN_USAGE, "session unblock takes the number of a block, as gatewayctl session blocks shows it");
	code = set_number("session unblock", w->object, &id);
	if (code >= 0)
		return code;
	reply = client_ask(json_pack("{s:s, s:I}", "command", "session-unblock", "block", (json_int_t)id), NULL, &code);
	if (reply == NULL)
		return code;
	if (w->json) {
		json_dumpf(reply, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
		putchar('\n');
	} else {
		printf("block %" PRId64 " is no more\n", id);
	}
	if (json_is_false(json_object_get(reply, "saved")))
		fputs("that could not be saved: it comes back with the gateway's next restart, see its log\n", stderr);
	code = say_later(reply);
	json_decref(reply);
	return code;
}

static const struct {
	const char *name;
	int (*run)(struct words *w);
} verbs[] = {{"list", list},	       {"show", show},	   {"kill", session_kill},
	     {"block", session_block}, {"blocks", blocks}, {"unblock", unblock}};

int admin_session(int argc, char **argv)
{
	struct words w = {.filter = json_object(), .limit = -1, .seconds = -1};
	int code;

	if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		fputs(usage, stdout);
		code = ADMIN_FINE;
		goto out;
	}
	if (argc >= 2 && strcmp(argv[1], "watch") == 0) {
		code = admin_top(argc - 1, argv + 1);
		goto out;
	}
	for (size_t i = 0; argc >= 2 && i < sizeof verbs / sizeof *verbs; i++)
		if (strcmp(verbs[i].name, argv[1]) == 0) {
			code = parse(&w, argc - 1, argv + 1);
			if (code < 0)
				code = verbs[i].run(&w);
			goto out;
		}
	code = admin_no_verb(usage, argc, argv);
out:
	json_decref(w.filter);
	return code;
}
