#include "config.h"

#include "policy/ast.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES 65536

struct ast_chunk {
	struct ast_chunk *next;
	size_t used, size;
	_Alignas(max_align_t) unsigned char data[];
};

void *ast_alloc(struct policy_tree *t, size_t size)
{
	size = (size + sizeof(max_align_t) - 1) & ~(sizeof(max_align_t) - 1);
	if (t->chunks == NULL || t->chunks->size - t->chunks->used < size) {
		size_t room = size > CHUNK_BYTES ? size : CHUNK_BYTES;
		struct ast_chunk *c = calloc(1, sizeof *c + room);

		if (c == NULL)
			abort();
		c->size = room;
		c->next = t->chunks;
		t->chunks = c;
	}
	void *p = t->chunks->data + t->chunks->used;

	t->chunks->used += size;
	return p;
}

static char *copy_text(struct policy_tree *t, const char *text, size_t len)
{
	char *copy = ast_alloc(t, len + 1);

	if (len > 0)
		memcpy(copy, text, len);
	return copy;
}

struct policy_tree *ast_tree_new(const char *file, const char *text, size_t len)
{
	struct policy_tree *t = calloc(1, sizeof *t);

	if (t == NULL)
		abort();
	t->file = copy_text(t, file, strlen(file));
	t->text = copy_text(t, text, len);
	t->len = len;
	return t;
}

void policy_tree_free(struct policy_tree *t)
{
	if (t == NULL)
		return;
	struct ast_source *sources = t->sources;

	for (struct ast_statement *st = t->first; st != NULL; st = st->next)
		if (st->list != NULL)
			free(st->list->entries);
	for (struct ast_chunk *c = t->chunks, *next; c != NULL; c = next) {
		next = c->next;
		free(c);
	}
	for (struct ast_source *src = sources, *next; src != NULL; src = next) {
		next = src->next;
		free(src->name);
		free(src->text);
		free(src);
	}
	free(t);
}

struct ast_source *ast_source_new(struct policy_tree *t, const struct ast_source *from, char *name, char *text,
				  size_t len)
{
	struct ast_source *s = calloc(1, sizeof *s);

	if (s == NULL)
		abort();
	*s = (struct ast_source){.next = t->sources,
				 .from = from,
				 .depth = from == NULL ? 1 : from->depth + 1,
				 .name = name,
				 .text = text,
				 .len = len};
	t->sources = s;
	t->nsources++;
	t->source_bytes += len;
	return s;
}

void ast_each_entry(const struct ast_list *list, void (*each)(const struct ast_value *v, void *arg), void *arg)
{
	char text[AST_ENTRY_MAX + 1];
	/* Quoted: an entry is never a misspelt word of the language. */
	struct ast_value v = {.text = text, .quoted = true, .at = {.source = list->source}};

	for (size_t i = 0; i < list->count; i++) {
		const struct ast_entry *e = &list->entries[i];

		memcpy(text, list->source->text + e->offset, e->len);
		text[e->len] = '\0';
		v.len = e->len;
		v.at.offset = e->offset;
		v.at.length = e->len;
		each(&v, arg);
	}
}

struct ast_value *ast_value_new(struct policy_tree *t, const char *text, size_t len, const struct ast_place *at)
{
	struct ast_value *v = ast_alloc(t, sizeof *v);

	v->text = copy_text(t, text, len);
	v->len = len;
	v->at = *at;
	return v;
}

void ast_values_append(struct ast_values *list, struct ast_value *v)
{
	if (list->last == NULL)
		list->first = v;
	else
		list->last->next = v;
	list->last = v;
	list->count++;
}

struct ast_clause *ast_clause_new(struct policy_tree *t, enum ast_clause_kind kind, const struct ast_place *at)
{
	struct ast_clause *c = ast_alloc(t, sizeof *c);

	c->kind = kind;
	c->at = *at;
	return c;
}

void ast_clauses_append(struct ast_clauses *list, struct ast_clause *c)
{
	if (list->last == NULL)
		list->first = c;
	else
		list->last->next = c;
	list->last = c;
}

struct ast_statement *ast_statement_append(struct policy_tree *t, enum ast_statement_kind kind,
					   const struct ast_place *at, const struct ast_place *end)
{
	struct ast_statement *s = ast_alloc(t, sizeof *s);

	s->kind = kind;
	s->at = *at;
	s->order = t->nstatements++;
	s->end_line = end->line;
	if (t->last == NULL)
		t->first = s;
	else
		t->last->next = s;
	t->last = s;
	return s;
}

void ast_remark_append(struct policy_tree *t, const char *text, size_t len, unsigned line, bool alone)
{
	struct ast_remark *r = ast_alloc(t, sizeof *r);

	while (len > 0 && (text[len - 1] == ' ' || text[len - 1] == '\t' || text[len - 1] == '\r'))
		len--;
	r->text = copy_text(t, text, len);
	r->line = line;
	r->alone = alone;
	if (t->last_remark == NULL)
		t->remarks = r;
	else
		t->last_remark->next = r;
	t->last_remark = r;
}

static int compare_key(enum ast_statement_kind a_kind, const char *a_name, const struct ast_statement *b)
{
	if (a_kind != b->kind)
		return a_kind < b->kind ? -1 : 1;
	return strcmp(a_name, b->name->text);
}

static int compare_statements(const void *left, const void *right)
{
	const struct ast_statement *a = *(const struct ast_statement *const *)left;
	const struct ast_statement *b = *(const struct ast_statement *const *)right;
	int order = compare_key(a->kind, a->name->text, b);

	return order != 0 ? order : a->order < b->order ? -1 : a->order > b->order;
}

void ast_index(struct policy_tree *t)
{
	size_t n = 0;

	for (const struct ast_statement *s = t->first; s != NULL; s = s->next)
		n += s->name != NULL;
	t->index = ast_alloc(t, (n + 1) * sizeof t->index[0]);
	for (const struct ast_statement *s = t->first; s != NULL; s = s->next)
		if (s->name != NULL)
			t->index[t->nindex++] = s;
	qsort(t->index, t->nindex, sizeof t->index[0], compare_statements);
}

const struct ast_statement *ast_find(const struct policy_tree *t, enum ast_statement_kind kind, const char *name)
{
	size_t lo = 0, hi = t->nindex;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (compare_key(kind, name, t->index[mid]) > 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < t->nindex && compare_key(kind, name, t->index[lo]) == 0 ? t->index[lo] : NULL;
}

struct visit {
	const struct policy_tree *tree;
	int set_kind;
	void (*each)(const struct ast_value *v, void *arg);
	void *arg;
	const struct ast_statement **seen;
	size_t nseen, room;
};

static bool seen_before(struct visit *v, const struct ast_statement *set)
{
	for (size_t i = 0; i < v->nseen; i++)
		if (v->seen[i] == set)
			return true;
	if (v->nseen == v->room) {
		v->room = v->room == 0 ? 16 : v->room * 2;
		v->seen = reallocarray(v->seen, v->room, sizeof v->seen[0]);
		if (v->seen == NULL)
			abort();
	}
	v->seen[v->nseen++] = set;
	return false;
}

static void visit_values(struct visit *v, const struct ast_values *list)
{
	for (const struct ast_value *value = list->first; value != NULL; value = value->next)
		if (!value->set)
			v->each(value, v->arg);
}

void ast_each_value(const struct policy_tree *t, const struct ast_values *list, int set_kind,
		    void (*each)(const struct ast_value *v, void *arg), void *arg)
{
	struct visit v = {.tree = t, .set_kind = set_kind, .each = each, .arg = arg};
	const struct ast_values *current = list;

	/* The list of sets seen is also the queue of those to visit: no recursion, whatever refers to what. */
	for (size_t next = 0;; next++) {
		visit_values(&v, current);
		for (const struct ast_value *value = current->first; value != NULL; value = value->next) {
			const struct ast_statement *set = value->set ? ast_find(t, AST_SET, value->text) : NULL;

			if (set != NULL && (int)set->set_kind == set_kind)
				seen_before(&v, set);
		}
		if (next == v.nseen)
			break;
		current = &v.seen[next]->values;
		if (v.seen[next]->list != NULL)
			ast_each_entry(v.seen[next]->list, each, arg);
	}
	free(v.seen);
}

const struct ast_clause *ast_clause_find(const struct ast_statement *s, enum ast_clause_kind kind)
{
	for (const struct ast_clause *c = s->clauses.first; c != NULL; c = c->next)
		if (c->kind == kind)
			return c;
	return NULL;
}

const char *ast_zone(const struct policy_tree *t)
{
	const char *zone = "UTC";

	for (const struct ast_statement *s = t->first; s != NULL; s = s->next)
		if (s->kind == AST_TZ)
			zone = s->zone->text;
	return zone;
}

static const struct {
	const char *word;
	int set_kind;
} clauses[AST_CLAUSE_KINDS] = {
	[AST_CLIENT] = {"client", AST_SET_CIDR},
	[AST_LISTENER] = {"listener", -1},
	[AST_USER] = {"user", AST_SET_USER},
	[AST_GROUP] = {"group", AST_SET_GROUP},
	[AST_CLAIMED_USER] = {"claimed-user", AST_SET_USER},
	[AST_METHOD] = {"method", -1},
	[AST_STRENGTH] = {"strength", -1},
	[AST_COMMAND] = {"command", -1},
	[AST_PORT] = {"port", AST_SET_PORT},
	[AST_DURING] = {"during", -1},
	[AST_BY] = {"by", -1},
	[AST_TO_CIDR] = {"to cidr", AST_SET_CIDR},
	[AST_TO_DOMAIN] = {"to domain", AST_SET_DOMAIN},
	[AST_TO_REGEX] = {"to regex", AST_SET_REGEX},
	[AST_TO_COUNTRY] = {"to country", AST_SET_COUNTRY},
	[AST_TO_ASN] = {"to asn", AST_SET_ASN},
	[AST_FROM] = {"from", -1},
	[AST_UNTIL] = {"until", -1},
	[AST_SOURCE] = {"source", -1},
	[AST_INTERNAL] = {"internal", -1},
	[AST_LOG] = {"log", -1},
	[AST_OWNER] = {"owner", -1},
	[AST_TICKET] = {"ticket", -1},
	[AST_COMMENT] = {"comment", -1},
	[AST_TO] = {"to", -1},
	[AST_RESOLVES] = {"resolves", -1},
	[AST_ALIAS] = {"alias", -1},
	[AST_AT] = {"at", -1},
	[AST_IN_COUNTRY] = {"country", -1},
	[AST_IN_ASN] = {"asn", -1},
	[AST_BY_RULE] = {"rule", -1},
};

static const char *const set_words[] = {
	[AST_SET_CIDR] = "cidr", [AST_SET_DOMAIN] = "domain", [AST_SET_REGEX] = "regex",     [AST_SET_PORT] = "port",
	[AST_SET_USER] = "user", [AST_SET_GROUP] = "group",   [AST_SET_COUNTRY] = "country", [AST_SET_ASN] = "asn",
};

const char *ast_clause_word(enum ast_clause_kind kind)
{
	return clauses[kind].word;
}

const char *ast_set_word(enum ast_set_kind kind)
{
	return set_words[kind];
}

int ast_clause_set_kind(enum ast_clause_kind kind)
{
	return clauses[kind].set_kind;
}
