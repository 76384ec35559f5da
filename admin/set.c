/* gatewayctl set: the named lists of the policy in force, whether they stand in its text or in files of it. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <libsmartcols.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "admin/admin.h"
#include "admin/change.h"
#include "admin/format.h"
#include "admin/options.h"
#include "admin/progress.h"
#include "admin/table.h"

static const char usage_text[] =
	"usage: gatewayctl set list [--json]\n"
	"       gatewayctl set show NAME [--json]\n"
	"       gatewayctl set create NAME KIND [VALUE ...]\n"
	"       gatewayctl set add NAME VALUE ...\n"
	"       gatewayctl set remove NAME VALUE ...\n"
	"       gatewayctl set import NAME FILE [--replace]\n"
	"       gatewayctl set delete NAME\n"
	"\n"
	"Each changes the policy in force: a set between braces in the policy's text, one\n"
	"that is read from a file in that file's content as the gateway keeps it.\n"
	"Values that are in order stay so.\n"
	"KIND is cidr, domain, regex, port, user, group, country or asn.\n"
	"show writes one value a line, as import reads them.\n"
	"\n"
	"  --replace               what FILE does not hold is removed, sets too\n"
	"  --if-revision N         only if this revision is in force\n"
	"  --comment TEXT          why, for the log of revisions\n"
	"  --yes, --max-ended N    live sessions may end, or so many of them\n"
	"  --confirm TIME          it is undone unless `gatewayctl policy confirm` comes\n"
	"  --dry-run               show the lines that change, check, and change nothing\n"
	"  --strict                warnings refuse the change\n"
	"  --json                  the result as a JSON object\n";

struct order {
	struct change change;
	bool replace;
	int n;
	char **words; /* behind the set's name */
	const char *name;
};

static int usage(void)
{
	fputs(usage_text, stderr);
	return ADMIN_USAGE;
}

/* ---- looking ------------------------------------------------------------------------------------------------------------ */

static size_t uses(const struct policy_tree *t, const char *name)
{
	size_t n = 0;

	for (const struct ast_statement *s = t->first; s != NULL; s = s->next) {
		bool used = false;

		for (const struct ast_clause *c = s->kind == AST_RULE ? s->clauses.first : NULL; c != NULL; c = c->next)
			for (const struct ast_value *v = c->values.first; v != NULL; v = v->next)
				used |= v->set && strcmp(v->text, name) == 0;
		for (const struct ast_value *v = s->kind == AST_SET ? s->values.first : NULL; v != NULL; v = v->next)
			used |= v->set && strcmp(v->text, name) == 0;
		n += used;
	}
	return n;
}

static json_t *set_json(const struct policy_tree *t, const struct ast_statement *s)
{
	return json_pack("{s:s, s:s, s:I, s:I, s:s*}", "name", s->name->text, "kind", ast_set_word(s->set_kind), "values",
			 (json_int_t)(s->list != NULL ? s->list->count : s->values.count), "used_by", (json_int_t)uses(t, s->name->text),
			 "file", s->list != NULL ? s->list->source->name : NULL);
}

static int list(struct order *o)
{
	static const struct table_column columns[] = {
		{"SET", "name", 0}, {"KIND", "kind", 0}, {"VALUES", "values", SCOLS_FL_RIGHT},
		{"USED BY", "used_by", SCOLS_FL_RIGHT}, {"FILE", "file", 0},
	};
	json_t *sets = json_array();

	for (const struct ast_statement *s = o->change.tree->first; s != NULL; s = s->next)
		if (s->kind == AST_SET)
			json_array_append_new(sets, set_json(o->change.tree, s));
	table_list(sets, columns, sizeof columns / sizeof *columns, o->change.options.json);
	return ADMIN_FINE;
}

/* A policy holds no control bytes.  What else could mislead at a terminal is escaped there, and nowhere else: a file gets what an
 * import reads again. */
static void print_value(const struct ast_value *v, void *arg)
{
	char safe[4 * AST_ENTRY_MAX + 4];
	const bool *terminal = arg;

	printf("%s%s\n", v->set ? "@" : "", *terminal ? format_safe(v->text, safe, sizeof safe) : v->text);
}

static void add_value(const struct ast_value *v, void *arg)
{
	char text[AST_ENTRY_MAX + 2];

	snprintf(text, sizeof text, "%s%s", v->set ? "@" : "", v->text);
	json_array_append_new(arg, json_string(text));
}

static int show_json(const struct order *o, const struct ast_statement *s)
{
	json_t *object = set_json(o->change.tree, s), *values = json_array();

	for (const struct ast_value *v = s->values.first; v != NULL; v = v->next)
		add_value(v, values);
	if (s->list != NULL)
		ast_each_entry(s->list, add_value, values);
	json_object_set_new(object, "values", values);
	json_dumpf(object, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
	putchar('\n');
	json_decref(object);
	return ADMIN_FINE;
}

static int show(struct order *o)
{
	const struct ast_statement *s = change_find(&o->change, AST_SET, o->name);
	bool terminal = isatty(STDOUT_FILENO);

	if (s == NULL)
		return ADMIN_REFUSED;
	if (o->change.options.json)
		return show_json(o, s);
	for (const struct ast_value *v = s->values.first; v != NULL; v = v->next)
		print_value(v, &terminal);
	if (s->list != NULL)
		ast_each_entry(s->list, print_value, &terminal);
	return ADMIN_FINE;
}

/* ---- editing ------------------------------------------------------------------------------------------------------------ */

/* The set, if it is one that can be edited alone. */
static const struct ast_statement *editable(const struct order *o)
{
	const struct ast_statement *s = change_find(&o->change, AST_SET, o->name);

	for (const struct ast_statement *other = o->change.tree->first; s != NULL && s->list != NULL && other != NULL; other = other->next)
		if (other != s && other->list != NULL && strcmp(other->list->source->name, s->list->source->name) == 0) {
			admin_fail(0, "the file %s is the list of set '%s' too: it is changed where it lies, and applied", s->list->source->name,
				   other->name->text);
			return NULL;
		}
	return s;
}

static int can_hold(const struct ast_statement *set, const char *value)
{
	if (edit_set_can_hold(set, value))
		return 0;
	return admin_fail(-1, "'%s' cannot be written as a value of set '%s'", value, set->name->text);
}

static int add(struct order *o)
{
	const struct ast_statement *s = editable(o);

	if (s == NULL)
		return -1;
	for (int i = 0; i < o->n; i++) {
		if (can_hold(s, o->words[i]) != 0)
			return -1;
		if (edit_set_has(s, o->words[i]))
			admin_fail(0, "set '%s' has '%s' already", o->name, o->words[i]);
	}
	edit_set_add(&o->change.edit, s, (const char *const *)o->words, (size_t)o->n);
	return 0;
}

/* Who removes a value does so in order that it is not matched any more. */
static void say_what_covers(const struct order *o, const struct ast_statement *set)
{
	char text[AST_ENTRY_MAX + 1];
	const struct ast_statement *in;

	for (int i = 0; i < o->n && i < EDIT_COVERED_MAX; i++) {
		if (!edit_set_covers(o->change.tree, set, (const char *const *)o->words, (size_t)o->n, (size_t)i, text, &in))
			continue;
		if (in == set)
			admin_fail(0, "set '%s' still matches '%s', by its value '%s'", o->name, o->words[i], text);
		else
			admin_fail(0, "set '%s' still matches '%s', by '%s' of set '%s'", o->name, o->words[i], text, in->name->text);
	}
}

static int remove_values(struct order *o)
{
	const struct ast_statement *s = editable(o);
	const char *missing;

	if (s == NULL)
		return -1;
	if (edit_set_remove(&o->change.edit, s, (const char *const *)o->words, (size_t)o->n, &missing) != 0)
		return admin_fail(-1, "set '%s' has no value '%s'; nothing was changed", o->name, missing);
	say_what_covers(o, s);
	return 0;
}

static int create(struct order *o)
{
	char **words = calloc((size_t)o->n + 4, sizeof *words), *text, *name;
	int n = 0;

	if (words == NULL)
		abort();
	words[n++] = (char *)(uintptr_t)o->name;
	words[n++] = o->words[0];
	words[n++] = (char *)(uintptr_t)"{";
	for (int i = 1; i < o->n; i++)
		words[n++] = o->words[i];
	words[n++] = (char *)(uintptr_t)"}";
	text = change_text("set", n, words);
	name = change_name(text, AST_SET);
	if (name != NULL)
		edit_insert(&o->change.edit, text, AST_SET, EDIT_LAST, NULL);
	free(words);
	free(text);
	if (name == NULL)
		return -1;
	free(name);
	return 0;
}

static int delete(struct order *o)
{
	const struct ast_statement *s = change_find(&o->change, AST_SET, o->name);

	if (s == NULL)
		return -1;
	edit_remove(&o->change.edit, s);
	return 0;
}

/* ---- importing ---------------------------------------------------------------------------------------------------------- */

static void collect(const struct ast_value *v, void *arg)
{
	const char ***next = arg;

	*(*next)++ = strdup(v->text);
	if ((*next)[-1] == NULL)
		abort();
}

/* The values of a file, read and checked as a list of the set's kind is; NULL when it has said what is wrong with which line. */
static const char **read_values(const struct ast_statement *set, const char *path, size_t *count)
{
	struct policy_diagnostics d = {0};
	struct policy_tree *t = list_read(path, ast_set_word(set->set_kind), &d);
	const char **values = NULL, **next;

	if (d.errors > 0) {
		print_diagnostics(&d, stderr);
		admin_fail(0, "nothing was changed");
	} else {
		values = calloc(t->first->list->count + 1, sizeof *values);
		if (values == NULL)
			abort();
		next = values;
		ast_each_entry(t->first->list, collect, &next);
		*count = t->first->list->count;
	}
	policy_tree_free(t);
	policy_diagnostics_free(&d);
	return values;
}

static int import(struct order *o)
{
	const struct ast_statement *s = editable(o);
	const char **values;
	size_t n = 0, added;
	int rc = 0;

	progress_show("reading the list");
	values = s == NULL ? NULL : read_values(s, o->words[0], &n);
	progress_hide();
	if (values == NULL)
		return -1;
	progress_show("comparing it with the set");
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = can_hold(s, values[i]);
	if (rc == 0) {
		added = edit_set_import(&o->change.edit, s, values, n, o->replace);
		progress_hide();
		fprintf(stderr, "%s: %zu values, %zu of them new\n", o->words[0], n, added);
	}
	progress_hide();
	for (size_t i = 0; i < n; i++)
		free((void *)(uintptr_t)values[i]);
	free(values);
	return rc;
}

/* ---- the noun ----------------------------------------------------------------------------------------------------------- */

static const struct verb {
	const char *word;
	int (*look)(struct order *o); /* the exit code */
	int (*edit)(struct order *o); /* 0, or -1 when it has said why */
	int at_least, at_most;	      /* words, the set's name among them */
} verbs[] = {
	{"list", list, NULL, 0, 0},	   {"show", show, NULL, 1, 1},
	{"create", NULL, create, 2, 1 << 20}, {"add", NULL, add, 2, 1 << 20},
	{"remove", NULL, remove_values, 2, 1 << 20}, {"import", NULL, import, 2, 2},
	{"delete", NULL, delete, 1, 1},
};

/* An exit code, or -1 to go on. */
static int read_order(const struct verb *v, int argc, char **argv, struct order *o)
{
	static const struct option options[] = {
		REVISION_OPTIONS, {"replace", no_argument, NULL, 256}, {"help", no_argument, NULL, 257}, {NULL, 0, NULL, 0}};
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 257) {
			fputs(usage_text, stdout);
			return ADMIN_FINE;
		}
		o->replace |= c == 256;
		if ((c == 256 && v->edit != import) || (c != 256 && !revision_option(&o->change.options, c)))
			return usage();
	}
	if (argc - optind < v->at_least || argc - optind > v->at_most)
		return usage();
	o->name = optind < argc ? argv[optind] : NULL;
	o->n = optind < argc ? argc - optind - 1 : 0;
	o->words = argv + optind + 1;
	return -1;
}

static int run(const struct verb *v, int argc, char **argv)
{
	struct order o = {0};
	int code = read_order(v, argc, argv, &o);

	if (code >= 0)
		return code;
	/* Until it is ordered, nothing is anywhere but in our memory. */
	if (v->edit != NULL)
		progress_guard("interrupted: nothing was changed");
	code = change_begin(&o.change);
	if (code == ADMIN_FINE && v->look != NULL)
		code = v->look(&o);
	else if (code == ADMIN_FINE)
		code = v->edit(&o) == 0 ? change_end(&o.change) : ADMIN_REFUSED;
	change_clear(&o.change);
	progress_guard(NULL);
	return code;
}

int admin_set(int argc, char **argv)
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
