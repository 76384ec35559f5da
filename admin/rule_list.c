/* gatewayctl rule list, unused, expiring: the rules of the policy in force, in the order in which they decide, and what they did. */
#include "config.h"

#include <getopt.h>
#include <jansson.h>
#include <libsmartcols.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "admin/admin.h"
#include "admin/audit_ask.h"
#include "admin/change.h"
#include "admin/format.h"
#include "admin/history.h"
#include "admin/rule.h"
#include "common/clock.h"
#include "schema/audit_json.h"

#define DAY_US INT64_C(86400000000)

static const char usage_text[] =
	"usage: gatewayctl rule list [--since TIME | --no-hits] [--json]\n"
	"       gatewayctl rule unused PERIOD [--json]    such as 90d: decided nothing\n"
	"       gatewayctl rule expiring PERIOD [--json]  such as 30d: ends until then\n"
	"\n"
	"Shows the rules of the policy in force, in the order in which they decide.  Hits\n"
	"are requests that a rule of this name decided, or judged as a monitor, as the\n"
	"audit tells; bytes are those of sessions that have ended.\n"
	"\n"
	"  --since TIME   count hits since then: 30d unless said; 15m, 2h (ago), or\n"
	"                 YYYY-MM-DD[ HH:MM[:SS]]\n"
	"  --no-hits      do not ask the audit\n"
	"  --json         a JSON array\n";

struct listing {
	struct change change;
	int64_t since_us;
	json_t *hits;	   /* rule -> {"hits", "last_us", "bytes"}; NULL: not asked for */
	int64_t oldest_us; /* the audit's first row; 0: there is none */
	bool json;
};

/* ---- hits --------------------------------------------------------------------------------------------------------------- */

static int take_hits(const json_t *line, void *arg)
{
	struct listing *l = arg;
	const char *rule = json_string_value(json_object_get(line, "rule"));

	if (rule != NULL)
		json_object_set(l->hits, rule, (json_t *)(uintptr_t)line);
	return -1;
}

static int take_oldest(const json_t *line, void *arg)
{
	struct listing *l = arg;

	l->oldest_us = past_time(line) * 1000000;
	return -1;
}

static int ask(struct listing *l, json_t *request, audit_take *take)
{
	struct audit_question q = {.request = request, .take = take, .arg = l};
	struct audit_end end;
	int code = audit_ask(&q, &end);

	json_decref(request);
	return code;
}

static int count_hits(struct listing *l)
{
	int code;

	l->hits = json_object();
	code = ask(l, json_pack("{s:b, s:I}", "hits", 1, "since_us", (json_int_t)l->since_us), take_hits);
	if (code == ADMIN_FINE)
		code = ask(l, json_pack("{s:s, s:I}", "order", "oldest", "limit", (json_int_t)1), take_oldest);
	return code;
}

/* ---- rules -------------------------------------------------------------------------------------------------------------- */

static const char *clause_text(const struct ast_statement *s, enum ast_clause_kind kind)
{
	const struct ast_clause *c = ast_clause_find(s, kind);

	return c == NULL || c->values.first == NULL ? "" : c->values.first->text;
}

static const char *action(const struct ast_statement *s)
{
	static const char *const words[] = {"deny", "allow", "monitor deny", "monitor allow"};

	return words[2 * s->monitor + s->allow];
}

/* What a rule says behind its action, in one line and without what has columns of its own. */
static char *conditions(const struct ast_statement *s)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	if (out == NULL)
		abort();
	for (const struct ast_clause *c = s->clauses.first; c != NULL; c = c->next) {
		if (c->kind == AST_OWNER || c->kind == AST_UNTIL || c->kind == AST_TICKET || c->kind == AST_COMMENT)
			continue;
		fprintf(out, "%s%s%s", c == s->clauses.first ? "" : " ", c->negated ? "not " : "", ast_clause_word(c->kind));
		for (const struct ast_value *v = c->values.first; v != NULL; v = v->next)
			fprintf(out, " %s%s", v->set ? "@" : "", v->text);
	}
	if (fclose(out) != 0)
		abort();
	return text;
}

static const char *moment(int64_t us, char out[FORMAT_TEXT_MAX])
{
	time_t seconds = (time_t)(us / 1000000);
	struct tm tm;

	out[0] = '\0';
	if (us != 0 && localtime_r(&seconds, &tm) != NULL)
		strftime(out, FORMAT_TEXT_MAX, "%Y-%m-%d %H:%M", &tm);
	return out;
}

static json_t *rule_json(const struct listing *l, const struct ast_statement *s, size_t number)
{
	char *what = conditions(s);
	json_t *o = json_pack("{s:I, s:s, s:s, s:b, s:s*, s:s, s:s, s:s, s:s, s:I}", "number", (json_int_t)number, "name", s->name->text,
			      "action", action(s), "disabled", s->disabled.length > 0, "conditions", what, "owner",
			      clause_text(s, AST_OWNER), "ticket", clause_text(s, AST_TICKET), "comment", clause_text(s, AST_COMMENT), "until",
			      clause_text(s, AST_UNTIL), "line", (json_int_t)s->at.line);
	const json_t *hits = json_object_get(l->hits, s->name->text);
	char time[AUDIT_TIME_TEXT_MAX];

	free(what);
	if (o == NULL)
		return json_pack("{s:I}", "number", (json_int_t)number); /* a name that is no UTF-8 */
	if (l->hits != NULL) {
		json_object_set_new(o, "hits", json_integer(format_number(hits, "hits")));
		json_object_set_new(o, "bytes", json_integer(format_number(hits, "bytes")));
		if (format_number(hits, "last_us") > 0)
			json_object_set_new(o, "last_hit", json_string(audit_time_text(format_number(hits, "last_us"), time)));
	}
	return o;
}

static void add_line(const struct listing *l, struct libscols_table *table, const json_t *rule)
{
	static const char *const members[] = {"number", "name", "action", "owner", "until", "conditions"};
	struct libscols_line *line = scols_table_new_line(table, NULL);
	char text[1100], buf[FORMAT_TEXT_MAX];
	size_t column = 0;

	for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
		const char *value = format_member(rule, members[i], buf);

		format_safe(value, text, 1000);
		if (strcmp(members[i], "action") == 0 && json_is_true(json_object_get(rule, "disabled")))
			snprintf(text, sizeof text, "disabled %s", value);
		scols_line_set_data(line, column++, text);
		if (i != 2 || l->hits == NULL)
			continue;
		scols_line_set_data(line, column++, format_member(rule, "hits", buf));
		scols_line_set_data(line, column++, format_bytes((uint64_t)format_number(rule, "bytes"), buf));
		const json_t *hits = json_object_get(l->hits, format_member(rule, "name", buf));

		scols_line_set_data(line, column++, moment(format_number(hits, "last_us"), buf));
	}
}

static void print_table(const struct listing *l, const json_t *rules)
{
	static const struct {
		const char *head;
		int flags;
		bool of_hits;
	} columns[] = {{"#", SCOLS_FL_RIGHT, false},	{"RULE", 0, false},	{"ACTION", 0, false},
		       {"HITS", SCOLS_FL_RIGHT, true}, {"BYTES", SCOLS_FL_RIGHT, true}, {"LAST HIT", 0, true},
		       {"OWNER", 0, false},		{"UNTIL", 0, false},	{"CONDITIONS", SCOLS_FL_TRUNC, false}};
	struct libscols_table *table = scols_new_table();
	const json_t *rule;
	size_t i;

	if (table == NULL)
		return;
	scols_table_enable_noencoding(table, 1); /* cells are safe already */
	for (size_t c = 0; c < sizeof columns / sizeof *columns; c++)
		if (!columns[c].of_hits || l->hits != NULL)
			scols_table_new_column(table, columns[c].head, 0.1, columns[c].flags);
	json_array_foreach(rules, i, rule) add_line(l, table, rule);
	scols_print_table(table);
	scols_unref_table(table);
}

static void print_period(const struct listing *l)
{
	char since[FORMAT_TEXT_MAX], oldest[FORMAT_TEXT_MAX];

	printf("hits since %s", moment(l->since_us, since));
	if (l->oldest_us > l->since_us)
		printf("; the audit begins at %s", moment(l->oldest_us, oldest));
	putchar('\n');
}

/* ---- what is listed ----------------------------------------------------------------------------------------------------- */

/* The moment from which a rule is over; INT64_MAX: never.  A date is meant whole. */
static int64_t end_of(const struct policy_image *image, const struct ast_statement *s)
{
	const char *until = clause_text(s, AST_UNTIL);
	char next[32];
	struct tm tm = {0};
	struct err why;
	int64_t instant;

	if (*until == '\0')
		return INT64_MAX;
	if (strlen(until) == 10 && strptime(until, "%Y-%m-%d", &tm) != NULL) {
		time_t day = timegm(&tm) + 86400;

		gmtime_r(&day, &tm);
		strftime(next, sizeof next, "%Y-%m-%d", &tm);
		until = next;
	}
	return policy_instant_parse(image, until, &instant, &why) == 0 ? instant : INT64_MAX;
}

enum what { ALL, UNUSED, EXPIRING };

static int print_rules(struct listing *l, enum what what, int64_t before_s)
{
	struct loaded loaded = {0};
	json_t *rules = json_array();
	size_t number = 0;

	if (what == EXPIRING && (load_bundle(&l->change.base.bundle, &loaded) != 0 || loaded.image == NULL)) {
		json_decref(rules);
		loaded_clear(&loaded);
		return admin_fail(ADMIN_REFUSED, "the policy in force cannot be compiled by this gatewayctl");
	}
	for (const struct ast_statement *s = l->change.tree->first; s != NULL; s = s->next) {
		if (s->kind != AST_RULE)
			continue;
		number++;
		if ((what == UNUSED && format_number(json_object_get(l->hits, s->name->text), "hits") > 0) ||
		    (what == EXPIRING && end_of(loaded.image, s) > before_s))
			continue;
		json_array_append_new(rules, rule_json(l, s, number));
	}
	if (l->json) {
		json_dumpf(rules, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
		putchar('\n');
	} else if (json_array_size(rules) > 0) {
		print_table(l, rules);
	} else {
		printf("no rule\n");
	}
	if (!l->json && l->hits != NULL)
		print_period(l);
	json_decref(rules);
	loaded_clear(&loaded);
	return ADMIN_FINE;
}

/* An exit code, or -1 to go on. */
static int read_options(int argc, char **argv, enum what what, struct listing *l, bool *counts)
{
	static const struct option options[] = {{"json", no_argument, NULL, 'j'},
						{"since", required_argument, NULL, 's'},
						{"no-hits", no_argument, NULL, 'n'},
						{"help", no_argument, NULL, 'h'},
						{NULL, 0, NULL, 0}};
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (c == 'h' || c == '?' || (what != ALL && c != 'j')) {
			fputs(usage_text, c == 'h' ? stdout : stderr);
			return c == 'h' ? ADMIN_FINE : ADMIN_USAGE;
		}
		l->json |= c == 'j';
		*counts &= c != 'n';
		if (c == 's' && history_time("--since", optarg, false, &l->since_us) != 0)
			return ADMIN_USAGE;
	}
	if (argc - optind == (what == ALL ? 0 : 1))
		return -1;
	fputs(usage_text, stderr);
	return ADMIN_USAGE;
}

static int list(int argc, char **argv, enum what what)
{
	struct listing l = {.since_us = clock_wall_us() - 30 * DAY_US};
	int64_t now_us = clock_wall_us(), ago_us = now_us;
	bool counts = what != EXPIRING;
	int code = read_options(argc, argv, what, &l, &counts);

	/* A period is read as the time that lies so far back. */
	if (code < 0 && what != ALL && history_time(argv[0], argv[optind], false, &ago_us) != 0)
		code = ADMIN_USAGE;
	if (code >= 0)
		return code;
	if (what == UNUSED)
		l.since_us = ago_us;
	code = change_begin(&l.change);
	if (code == ADMIN_FINE && counts)
		code = count_hits(&l);
	if (code == ADMIN_FINE)
		code = print_rules(&l, what, (now_us + (now_us - ago_us)) / 1000000);
	json_decref(l.hits);
	change_clear(&l.change);
	return code;
}

int rule_list(int argc, char **argv)
{
	return list(argc, argv, ALL);
}

int rule_unused(int argc, char **argv)
{
	return list(argc, argv, UNUSED);
}

int rule_expiring(int argc, char **argv)
{
	return list(argc, argv, EXPIRING);
}
