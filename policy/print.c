/* The canonical form: one statement a line, words single-spaced, quotes where needed, remarks and single blank lines
 * kept. What is printed parses to the same tree. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/ast.h"
#include "policy/value.h"
#include "policy/words.h"

#define WIDTH 110

struct printer {
	FILE *out;
	const struct ast_remark *remark; /* next to print */
	unsigned line;			 /* of the source, up to which everything has been printed */
	unsigned width;			 /* of the line being printed */
};

static void put(struct printer *p, const char *text)
{
	fputs(text, p->out);
	p->width += (unsigned)strlen(text);
}

static bool is_regex(const struct ast_value *v)
{
	return strpbrk(v->text, "\\[](){}?|^") != NULL;
}

/* A value that could pass for a slip of a word keeps its quotes: they say that it is none. */
static bool needs_quotes(const struct ast_value *v)
{
	return !v->set && (!words_bare(v->text) || is_regex(v) || (v->quoted && words_near(v->text) != NULL));
}

static unsigned value_width(const struct ast_value *v)
{
	return (unsigned)v->len + (needs_quotes(v) ? 2 : v->set ? 1 : 0);
}

static void put_value(struct printer *p, const struct ast_value *v)
{
	if (v->set)
		put(p, "@");
	if (!needs_quotes(v)) {
		put(p, v->text);
		return;
	}
	fputc('"', p->out);
	for (const char *c = v->text; *c != '\0'; c++) {
		if (*c == '"')
			fputc('\\', p->out);
		fputc(*c, p->out);
	}
	fputc('"', p->out);
	p->width += value_width(v);
}

/* Remarks that stand above the given source line, and one blank line if there were any between. */
static void put_remarks(struct printer *p, unsigned line, const char *indent)
{
	while (p->remark != NULL && p->remark->line < line) {
		if (p->line > 0 && p->remark->line > p->line + 1)
			fputc('\n', p->out);
		fprintf(p->out, "%s%s\n", indent, p->remark->text);
		p->line = p->remark->line;
		p->remark = p->remark->next;
	}
	if (p->line > 0 && line > p->line + 1 && line != UINT32_MAX)
		fputc('\n', p->out);
}

/* Ends the line that was the source's line, with the remark that stood behind it. */
static void end_line(struct printer *p, unsigned line)
{
	if (p->remark != NULL && p->remark->line == line) {
		fprintf(p->out, "  %s", p->remark->text);
		p->remark = p->remark->next;
	}
	fputc('\n', p->out);
	p->line = line;
	p->width = 0;
}

static bool has_remark_before(const struct printer *p, unsigned line)
{
	return p->remark != NULL && p->remark->line < line;
}

/* { a b c }, on one line if it is short and nothing is remarked inside. */
static void put_list(struct printer *p, const struct ast_statement *s)
{
	unsigned width = p->width + 4;

	for (const struct ast_value *v = s->values.first; v != NULL; v = v->next)
		width += value_width(v) + 1;
	if (width <= WIDTH && !has_remark_before(p, s->end_line)) {
		put(p, "{");
		for (const struct ast_value *v = s->values.first; v != NULL; v = v->next) {
			put(p, " ");
			put_value(p, v);
		}
		put(p, s->values.count > 0 ? " }" : "}");
		return;
	}
	put(p, "{");
	end_line(p, s->at.line);
	for (const struct ast_value *v = s->values.first; v != NULL; v = v->next) {
		put_remarks(p, v->at.line, "\t");
		put(p, "\t");
		put_value(p, v);
		if (v->next == NULL || v->next->at.line > v->at.line) {
			end_line(p, v->at.line);
		} else {
			fputc('\n', p->out);
			p->line = v->at.line;
		}
	}
	put_remarks(p, s->end_line, "\t");
	put(p, "}");
}

static void put_window(struct printer *p, const struct ast_statement *s)
{
	if (s->zone != NULL) {
		put(p, " tz ");
		put_value(p, s->zone);
	}
	put(p, " {");
	for (const struct ast_value *v = s->values.first; v != NULL; v = v->next) {
		put(p, " ");
		put_value(p, v);
	}
	if (s->except.count > 0)
		put(p, " except");
	for (const struct ast_value *v = s->except.first; v != NULL; v = v->next) {
		put(p, " ");
		put_value(p, v);
	}
	put(p, " }");
}

static void put_clause(struct printer *p, const struct ast_clause *c)
{
	unsigned width = (unsigned)strlen(ast_clause_word(c->kind)) + 5;

	for (const struct ast_value *v = c->values.first; v != NULL; v = v->next)
		width += value_width(v) + 1;
	if (p->width + width > WIDTH) {
		fputs(" \\\n\t", p->out);
		p->width = 8;
	} else {
		put(p, " ");
	}
	if (c->negated)
		put(p, "not ");
	put(p, ast_clause_word(c->kind));
	for (const struct ast_value *v = c->values.first; v != NULL; v = v->next) {
		put(p, " ");
		/* The one word of the language that is also a value. */
		if (c->kind == AST_BY_RULE && strcmp(v->text, "default") == 0)
			put(p, v->text);
		else
			put_value(p, v);
	}
}

/* Always in quotes: a path looks like one. */
static void put_path(struct printer *p, const char *path)
{
	put(p, "file \"");
	for (const char *c = path; *c != '\0'; c++)
		fprintf(p->out, *c == '"' ? "\\%c" : "%c", *c);
	put(p, "\"");
}

static void put_grace(struct printer *p, const char *text)
{
	char shortest[VALUE_GRACE_TEXT_MAX];
	unsigned seconds;
	struct err ignored;

	put(p, value_grace(text, &seconds, &ignored) == 0 ? value_grace_text(seconds, shortest) : text);
}

static void put_statement(struct printer *p, const struct ast_statement *s)
{
	static const char *const words[] = {
		[AST_TZ] = "tz ",	   [AST_ANSWERS] = "answers", [AST_NAT64] = "nat64-prefix", [AST_GRACE] = "grace ",
		[AST_DEFAULT] = "default", [AST_SET] = "set ",	      [AST_WINDOW] = "window ",
		[AST_RULE] = "rule ",	   [AST_EXPECT] = "expect",   [AST_INCLUDE] = "include",
	};

	put(p, words[s->kind]);
	if (s->kind == AST_TZ)
		put_value(p, s->zone);
	if (s->name != NULL)
		put_value(p, s->name);
	if (s->kind == AST_SET) {
		put(p, " ");
		put(p, ast_set_word(s->set_kind));
		put(p, " ");
		if (s->list != NULL)
			put_path(p, s->list->path);
		else
			put_list(p, s);
	} else if (s->kind == AST_WINDOW) {
		put_window(p, s);
	} else if (s->kind == AST_ANSWERS || s->kind == AST_NAT64 || s->kind == AST_INCLUDE) {
		for (const struct ast_value *v = s->values.first; v != NULL; v = v->next) {
			put(p, " ");
			put_value(p, v);
		}
	} else if (s->kind == AST_GRACE) {
		put_grace(p, s->values.first->text);
	} else if (s->kind != AST_TZ) {
		if (s->disabled.length > 0)
			put(p, " disabled");
		if (s->monitor)
			put(p, " monitor");
		put(p, s->allow ? " allow" : " deny");
	}
	for (const struct ast_clause *c = s->clauses.first; c != NULL; c = c->next)
		put_clause(p, c);
}

char *policy_print(const struct policy_tree *t)
{
	struct printer p = {.remark = t->remarks};
	char *text = NULL;
	size_t len;

	p.out = open_memstream(&text, &len);
	if (p.out == NULL)
		abort();
	for (const struct ast_statement *s = t->first; s != NULL; s = s->next) {
		if (s->at.source != NULL)
			continue; /* of an included file */
		put_remarks(&p, s->at.line, "");
		put_statement(&p, s);
		/* Remarks inside a statement that is printed on one line follow it. */
		end_line(&p, s->end_line);
	}
	put_remarks(&p, UINT32_MAX, "");
	if (fclose(p.out) != 0)
		abort();
	return text;
}
