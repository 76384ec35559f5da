#include "config.h"

#include "admin/change.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "admin/admin.h"
#include "admin/format.h"
#include "admin/progress.h"
#include "policy/words.h"

/* Lines of a difference that are shown. */
#define SHOWN_MAX 40

int change_begin(struct change *c)
{
	struct policy_diagnostics d = {0};
	int code;

	progress_show("reading the policy in force");
	code = fetch_revision(0, &c->base);
	progress_hide();

	if (code != ADMIN_FINE)
		return code;
	c->tree = bundle_parse(&c->base.bundle, &d);
	edit_init(&c->edit, c->tree);
	if (d.errors > 0) {
		print_diagnostics(&d, stderr);
		code = admin_fail(ADMIN_REFUSED, "the policy in force cannot be read by this gatewayctl; is it of the same version?");
	}
	policy_diagnostics_free(&d);
	return code;
}

void change_clear(struct change *c)
{
	edit_clear(&c->edit);
	policy_tree_free(c->tree);
	fetched_clear(&c->base);
	c->tree = NULL;
}

/* ---- words -------------------------------------------------------------------------------------------------------------- */

static const char *kind_word(enum ast_statement_kind kind)
{
	return kind == AST_RULE ? "rule" : kind == AST_SET ? "set" : "window";
}

const struct ast_statement *change_find(const struct change *c, enum ast_statement_kind kind, const char *name)
{
	const struct ast_statement *s = ast_find(c->tree, kind, name);
	const char *near = NULL;

	for (const struct ast_statement *o = c->tree->first; s == NULL && near == NULL && o != NULL; o = o->next)
		if (o->kind == kind && words_similar(o->name->text, name))
			near = o->name->text;
	if (s == NULL && near != NULL)
		admin_fail(0, "the policy in force has no %s '%s'; did you mean '%s'?", kind_word(kind), name, near);
	else if (s == NULL)
		admin_fail(0, "the policy in force has no %s '%s'; gatewayctl %s list shows what it has", kind_word(kind), name, kind_word(kind));
	return s;
}

/* As it is, where the language can read it so: what is misspelt is to be told of, not to become a value. */
static char *one_word(const char *word)
{
	bool plain = words_bare(word) || words_token(word, strlen(word)) != 0 || (word[0] == '@' && words_bare(word + 1)) ||
		     word[0] == '"' || strcmp(word, "{") == 0 || strcmp(word, "}") == 0;
	char *quoted = plain ? NULL : edit_quote(word);

	return quoted != NULL ? quoted : strdup(word);
}

char *change_text(const char *keyword, int n, char *const *words)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	if (out == NULL)
		abort();
	fputs(keyword, out);
	for (int i = 0; i < n; i++) {
		char *word = n == 1 ? strdup(words[i]) : one_word(words[i]);

		fprintf(out, " %s", word);
		free(word);
	}
	if (fclose(out) != 0)
		abort();
	return text;
}

char *change_name(const char *text, enum ast_statement_kind kind)
{
	struct policy_diagnostics d = {0};
	char *name = NULL;
	struct err why;

	if (edit_read(text, kind, &name, &d, &why) != 0) {
		print_diagnostics(&d, stderr);
		admin_fail(0, "%s", why.text);
	}
	policy_diagnostics_free(&d);
	return name;
}

/* ---- into force --------------------------------------------------------------------------------------------------------- */

static const struct ast_source *source_of(const struct policy_tree *t, const char *name)
{
	const struct ast_source *s = t->sources;

	while (s != NULL && strcmp(s->name, name) != 0)
		s = s->next;
	return s;
}

static void show_lines(char sign, const char *text, size_t len)
{
	size_t shown = 0;

	for (size_t at = 0; at < len;) {
		const char *line_end = memchr(text + at, '\n', len - at);
		size_t end = line_end == NULL ? len : (size_t)(line_end - text);
		char *line = strndup(text + at, end - at), safe[1024];

		if (line == NULL)
			abort();
		if (shown++ == SHOWN_MAX) {
			printf("%c ...\n", sign);
			free(line);
			return;
		}
		printf("%c %s\n", sign, format_safe(line, safe, sizeof safe));
		free(line);
		at = end + 1;
	}
}

/* The lines from the first that differs to the last. */
static void show_change(const char *name, const char *old, size_t old_len, const char *new, size_t new_len)
{
	size_t same = 0, tail = 0, least = old_len < new_len ? old_len : new_len, line = 1;
	char safe[1024];

	while (same < least && old[same] == new[same])
		same++;
	while (same > 0 && old[same - 1] != '\n')
		same--;
	while (tail < least - same && old[old_len - 1 - tail] == new[new_len - 1 - tail])
		tail++;
	/* What is the same at the end begins with a line. */
	while (tail > 0 && old_len - tail > same && old[old_len - tail - 1] != '\n')
		tail--;
	for (size_t i = 0; i < same; i++)
		line += old[i] == '\n';
	printf("%s:%zu:\n", format_safe(name, safe, sizeof safe), line);
	show_lines('-', old + same, old_len - tail - same);
	show_lines('+', new + same, new_len - tail - same);
}

static bool is_named(const struct policy_tree *t, const char *name)
{
	return source_of(t, name) != NULL;
}

/* Files that nothing names any more stay behind. */
static void drop_unnamed(struct gathered *g)
{
	size_t kept = 1;

	for (size_t i = 1; i < g->count; i++) {
		if (is_named(g->tree, g->files[i].name)) {
			g->files[kept++] = g->files[i];
			continue;
		}
		free((void *)(uintptr_t)g->files[i].name);
		free((void *)(uintptr_t)g->files[i].text);
	}
	g->count = kept;
}

struct gathered *change_make(struct change *c, bool show)
{
	struct gathered *g = calloc(1, sizeof *g);

	if (g == NULL)
		abort();
	for (size_t i = 0; i < c->base.bundle.count; i++) {
		const struct bundle_file *f = &c->base.bundle.files[i];
		size_t len = f->len;
		/* The tree names the policy's own text apart from the files. */
		char *text = i > 0 && !is_named(c->tree, f->name) ? NULL
								  : edit_text(&c->edit, i == 0 ? NULL : source_of(c->tree, f->name), &len);

		if (text != NULL && show)
			show_change(f->name, f->text, f->len, text, len);
		if (text == NULL) {
			text = malloc(f->len + 1);
			if (text != NULL)
				memcpy(text, f->text, f->len);
		}
		g->files[i] = (struct bundle_file){strdup(f->name), text, len};
		g->count++;
		if (text == NULL || g->files[i].name == NULL)
			abort();
	}
	g->tree = bundle_parse(&(struct bundle){g->files, g->count}, &g->diagnostics);
	policy_check(g->tree, &g->diagnostics);
	drop_unnamed(g);
	return g;
}

int change_put(struct change *c, struct gathered *g)
{
	/* The edit is one of this revision, and of no other. */
	if (!c->options.has_if) {
		c->options.has_if = true;
		c->options.if_revision = (uint32_t)format_number(json_object_get(c->base.reply, "revision"), "revision");
	}
	return revision_put(g, &c->options);
}

int change_end(struct change *c)
{
	struct gathered *g;
	int code;

	if (c->edit.count == 0) {
		if (c->options.json)
			printf("{\"ok\": true, \"changed\": false, \"revision\": %" PRId64 "}\n",
			       format_number(json_object_get(c->base.reply, "revision"), "revision"));
		else
			printf("nothing is to be changed\n");
		return ADMIN_FINE;
	}
	progress_show("checking the policy");
	g = change_make(c, c->options.dry_run && !c->options.json);
	progress_hide();
	code = change_put(c, g);
	gathered_free(&g);
	return code;
}
