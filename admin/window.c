/* gatewayctl window: the named times of the policy in force. */
#include "config.h"

#include <getopt.h>
#include <jansson.h>
#include <libsmartcols.h>
#include <stdlib.h>
#include <string.h>

#include "admin/admin.h"
#include "admin/change.h"
#include "admin/options.h"
#include "admin/table.h"

static const char usage_text[] =
	"usage: gatewayctl window list [--json]\n"
	"       gatewayctl window add NAME [--tz ZONE] DAYS HOURS ... [except DATE ...]\n"
	"       gatewayctl window replace NAME [--tz ZONE] DAYS HOURS ... [except ...]\n"
	"       gatewayctl window except NAME DATE ...\n"
	"       gatewayctl window remove NAME\n"
	"\n"
	"Each changes the policy in force.\n"
	"except adds days on which nothing of the window begins.\n"
	"\n"
	"  --tz ZONE               whose clock: Europe/Berlin; else the policy's\n"
	"  --if-revision N         only if this revision is in force\n"
	"  --comment TEXT          why, for the log of revisions\n"
	"  --yes, --max-ended N    live sessions may end, or so many of them\n"
	"  --confirm TIME          it is undone unless `gatewayctl policy confirm` comes\n"
	"  --dry-run               show the lines that change, check, and change nothing\n"
	"  --strict                warnings refuse the change\n"
	"  --json                  the result as a JSON object\n"
	"\n"
	"gatewayctl window add office --tz Europe/Berlin mon-fri 08:00-18:00\n";

struct order {
	struct change change;
	const char *zone;
	int n;
	char **words;
};

static int usage(void)
{
	fputs(usage_text, stderr);
	return ADMIN_USAGE;
}

static char *joined(const struct ast_values *list)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	if (out == NULL)
		abort();
	for (const struct ast_value *v = list->first; v != NULL; v = v->next)
		fprintf(out, "%s%s", v == list->first ? "" : " ", v->text);
	if (fclose(out) != 0)
		abort();
	return text;
}

static json_t *window_json(const struct policy_tree *t, const struct ast_statement *s)
{
	char *hours = joined(&s->values), *except = joined(&s->except);
	json_t *o = json_pack("{s:s, s:s, s:s, s:s}", "name", s->name->text, "tz", s->zone != NULL ? s->zone->text : ast_zone(t), "open",
			      hours, "except", except);

	free(hours);
	free(except);
	return o;
}

static int list(struct order *o)
{
	static const struct table_column columns[] = {
		{"WINDOW", "name", 0}, {"ZONE", "tz", 0}, {"OPEN", "open", 0}, {"EXCEPT", "except", SCOLS_FL_TRUNC},
	};
	json_t *windows = json_array();

	for (const struct ast_statement *s = o->change.tree->first; s != NULL; s = s->next)
		if (s->kind == AST_WINDOW)
			json_array_append_new(windows, window_json(o->change.tree, s));
	table_list(windows, columns, sizeof columns / sizeof *columns, o->change.options.json);
	return ADMIN_FINE;
}

/* The whole statement, out of its words; NULL when it has said what is wrong. */
static char *statement(const struct order *o)
{
	char **words = calloc((size_t)o->n + 6, sizeof *words), *text, *name;
	int n = 0;

	if (words == NULL)
		abort();
	words[n++] = o->words[0];
	if (o->zone != NULL) {
		words[n++] = (char *)(uintptr_t)"tz";
		words[n++] = (char *)(uintptr_t)o->zone;
	}
	words[n++] = (char *)(uintptr_t)"{";
	for (int i = 1; i < o->n; i++)
		words[n++] = o->words[i];
	words[n++] = (char *)(uintptr_t)"}";
	text = change_text("window", n, words);
	free(words);
	name = change_name(text, AST_WINDOW);
	if (name == NULL) {
		free(text);
		return NULL;
	}
	free(name);
	return text;
}

static int add(struct order *o)
{
	char *text = statement(o);

	if (text != NULL)
		edit_insert(&o->change.edit, text, AST_WINDOW, EDIT_LAST, NULL);
	free(text);
	return text == NULL ? -1 : 0;
}

static int replace(struct order *o)
{
	const struct ast_statement *s = change_find(&o->change, AST_WINDOW, o->words[0]);
	char *text = s == NULL ? NULL : statement(o);

	if (text != NULL)
		edit_replace(&o->change.edit, s, text);
	free(text);
	return text == NULL ? -1 : 0;
}

static int remove_window(struct order *o)
{
	const struct ast_statement *s = change_find(&o->change, AST_WINDOW, o->words[0]);

	if (s != NULL)
		edit_remove(&o->change.edit, s);
	return s == NULL ? -1 : 0;
}

static int except(struct order *o)
{
	const struct ast_statement *s = change_find(&o->change, AST_WINDOW, o->words[0]);
	char *dates = NULL;
	size_t len;

	if (s == NULL)
		return -1;
	FILE *out = open_memstream(&dates, &len);

	if (out == NULL)
		abort();
	for (int i = 1; i < o->n; i++) {
		char *date = edit_quote(o->words[i]);

		if (date == NULL) {
			fclose(out);
			free(dates);
			return admin_fail(-1, "this is no date: %s", o->words[i]);
		}
		fprintf(out, "%s%s", i == 1 ? "" : " ", date);
		free(date);
	}
	if (fclose(out) != 0)
		abort();
	edit_except(&o->change.edit, s, dates);
	free(dates);
	return 0;
}

static const struct verb {
	const char *word;
	int (*look)(struct order *o); /* the exit code */
	int (*edit)(struct order *o); /* 0, or -1 when it has said why */
	int at_least, at_most;
} verbs[] = {
	{"list", list, NULL, 0, 0},
	{"add", NULL, add, 2, 1000},
	{"replace", NULL, replace, 2, 1000},
	{"except", NULL, except, 2, 1000},
	{"remove", NULL, remove_window, 1, 1},
};

/* An exit code, or -1 to go on. */
static int read_order(const struct verb *v, int argc, char **argv, struct order *o)
{
	static const struct option options[] = {
		REVISION_OPTIONS, {"tz", required_argument, NULL, 256}, {"help", no_argument, NULL, 257}, {NULL, 0, NULL, 0}};
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 257) {
			fputs(usage_text, stdout);
			return ADMIN_FINE;
		}
		if (c == 256)
			o->zone = optarg;
		else if (!revision_option(&o->change.options, c))
			return usage();
	}
	o->n = argc - optind;
	o->words = argv + optind;
	return o->n < v->at_least || o->n > v->at_most ? usage() : -1;
}

static int run(const struct verb *v, int argc, char **argv)
{
	struct order o = {0};
	int code = read_order(v, argc, argv, &o);

	if (code >= 0)
		return code;
	code = change_begin(&o.change);
	if (code == ADMIN_FINE && v->look != NULL)
		code = v->look(&o);
	else if (code == ADMIN_FINE)
		code = v->edit(&o) == 0 ? change_end(&o.change) : ADMIN_REFUSED;
	change_clear(&o.change);
	return code;
}

int admin_window(int argc, char **argv)
{
	for (size_t i = 0; argc >= 2 && i < sizeof verbs / sizeof *verbs; i++)
		if (strcmp(argv[1], verbs[i].word) == 0)
			return run(&verbs[i], argc - 1, argv + 1);
	if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		fputs(usage_text, stdout);
		return ADMIN_FINE;
	}
	return admin_no_verb(usage_text, argc, argv);
}
