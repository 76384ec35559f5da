/* gatewayctl rule list: the rules of the policy in force, in the order in which they decide. */
#include "config.h"

#include <getopt.h>
#include <jansson.h>
#include <libsmartcols.h>
#include <stdlib.h>
#include <string.h>

#include "admin/admin.h"
#include "admin/change.h"
#include "admin/format.h"
#include "admin/rule.h"

static const char usage_text[] =
	"usage: gatewayctl rule list [--json]\n"
	"\n"
	"Shows the rules of the policy in force, in the order in which they decide.\n";

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

static json_t *rule_json(const struct ast_statement *s, size_t number)
{
	char *what = conditions(s);
	json_t *o = json_pack("{s:I, s:s, s:s, s:b, s:s*, s:s, s:s, s:s, s:s, s:I}", "number", (json_int_t)number, "name", s->name->text,
			      "action", action(s), "disabled", s->disabled.length > 0, "conditions", what, "owner",
			      clause_text(s, AST_OWNER), "ticket", clause_text(s, AST_TICKET), "comment", clause_text(s, AST_COMMENT), "until",
			      clause_text(s, AST_UNTIL), "line", (json_int_t)s->at.line);

	free(what);
	return o;
}

static void add_line(struct libscols_table *table, const json_t *rule)
{
	static const char *const members[] = {"number", "name", "action", "owner", "until", "conditions"};
	struct libscols_line *line = scols_table_new_line(table, NULL);
	char text[1100], buf[FORMAT_TEXT_MAX];

	for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
		const char *value = format_member(rule, members[i], buf);

		format_safe(value, text, 1000);
		if (strcmp(members[i], "action") == 0 && json_is_true(json_object_get(rule, "disabled")))
			snprintf(text, sizeof text, "disabled %s", value);
		scols_line_set_data(line, i, text);
	}
}

static void print_table(const json_t *rules)
{
	static const char *const heads[] = {"#", "RULE", "ACTION", "OWNER", "UNTIL", "CONDITIONS"};
	struct libscols_table *table = scols_new_table();
	const json_t *rule;
	size_t i;

	if (table == NULL)
		return;
	scols_table_enable_noencoding(table, 1); /* cells are safe already */
	for (size_t c = 0; c < sizeof heads / sizeof *heads; c++)
		scols_table_new_column(table, heads[c], 0.1, c == 0 ? SCOLS_FL_RIGHT : c == 5 ? SCOLS_FL_TRUNC : 0);
	json_array_foreach(rules, i, rule) add_line(table, rule);
	scols_print_table(table);
	scols_unref_table(table);
}

int rule_list(int argc, char **argv)
{
	static const struct option options[] = {{"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	struct change change = {0};
	json_t *rules = json_array();
	bool json = false;
	size_t number = 0;
	int c, code;

	optind = 0;
	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (c != 'j') {
			fputs(usage_text, c == 'h' ? stdout : stderr);
			json_decref(rules);
			return c == 'h' ? ADMIN_FINE : ADMIN_USAGE;
		}
		json = true;
	}
	code = change_begin(&change);
	for (const struct ast_statement *s = code == ADMIN_FINE ? change.tree->first : NULL; s != NULL; s = s->next)
		if (s->kind == AST_RULE)
			json_array_append_new(rules, rule_json(s, ++number));
	if (code == ADMIN_FINE && json) {
		json_dumpf(rules, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
		putchar('\n');
	} else if (code == ADMIN_FINE) {
		print_table(rules);
	}
	json_decref(rules);
	change_clear(&change);
	return code;
}
