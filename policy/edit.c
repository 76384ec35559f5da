#include "config.h"

#include "policy/edit.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "policy/blob.h"
#include "policy/value.h"
#include "policy/words.h"

void edit_init(struct policy_edit *e, const struct policy_tree *t)
{
	*e = (struct policy_edit){.tree = t};
}

void edit_clear(struct policy_edit *e)
{
	for (size_t i = 0; i < e->count; i++)
		free(e->pieces[i].text);
	free(e->pieces);
	*e = (struct policy_edit){0};
}

/* ---- texts --------------------------------------------------------------------------------------------------------- */

static const char *text_of(const struct policy_tree *t, const struct ast_source *source, size_t *len)
{
	*len = source == NULL ? t->len : source->len;
	return source == NULL ? t->text : source->text;
}

/* Takes text over. */
static void piece(struct policy_edit *e, const struct ast_source *source, size_t offset, size_t removed, char *text)
{
	if (e->count == e->room) {
		e->room = e->room == 0 ? 16 : e->room * 2;
		e->pieces = reallocarray(e->pieces, e->room, sizeof e->pieces[0]);
	}
	if (e->pieces == NULL || text == NULL)
		abort();
	e->pieces[e->count] = (struct edit_piece){source, offset, removed, e->count, text};
	e->count++;
}

void edit_all(struct policy_edit *e, const struct ast_source *source, const char *text)
{
	size_t len;

	text_of(e->tree, source, &len);
	piece(e, source, 0, len, strdup(text));
}

static char *joined(const char *a, size_t a_len, const char *b, size_t b_len, const char *c)
{
	size_t c_len = strlen(c);
	char *text = malloc(a_len + b_len + c_len + 1);

	if (text == NULL)
		abort();
	memcpy(text, a, a_len);
	memcpy(text + a_len, b, b_len);
	memcpy(text + a_len + b_len, c, c_len + 1);
	return text;
}

static int by_place(const void *a, const void *b)
{
	const struct edit_piece *x = a, *y = b;

	if (x->source != y->source)
		return x->source < y->source ? -1 : 1;
	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	return x->order < y->order ? -1 : 1;
}

char *edit_text(struct policy_edit *e, const struct ast_source *source, size_t *len)
{
	size_t old_len, at = 0, size = 0;
	const char *old = text_of(e->tree, source, &old_len);
	bool touched = false;
	char *text = NULL;

	if (e->count > 0)
		qsort(e->pieces, e->count, sizeof e->pieces[0], by_place);
	for (size_t i = 0; i < e->count; i++) {
		size += e->pieces[i].source == source ? strlen(e->pieces[i].text) : 0;
		touched |= e->pieces[i].source == source;
	}
	if (!touched)
		return NULL;
	text = malloc(old_len + size + 1);
	if (text == NULL)
		abort();
	*len = 0;
	for (size_t i = 0; i < e->count; i++) {
		const struct edit_piece *p = &e->pieces[i];

		if (p->source != source)
			continue;
		if (p->offset > at)
			memcpy(text + *len, old + at, p->offset - at);
		*len += p->offset > at ? p->offset - at : 0;
		memcpy(text + *len, p->text, strlen(p->text));
		*len += strlen(p->text);
		at = p->offset + p->removed > at ? p->offset + p->removed : at;
	}
	memcpy(text + *len, old + at, old_len - at);
	*len += old_len - at;
	text[*len] = '\0';
	return text;
}

/* ---- the lines of a statement -------------------------------------------------------------------------------------- */

struct lines {
	const char *text;
	size_t len;
	size_t blanks; /* where the empty lines above it begin */
	size_t first;  /* its remarks, or itself */
	size_t end;    /* behind its line end, the text's end at most */
};

static bool is_blank(const char *text, size_t start, size_t end)
{
	while (start < end && (text[start] == ' ' || text[start] == '\t' || text[start] == '\r'))
		start++;
	return start == end;
}

static bool is_remark(const char *text, size_t start, size_t end)
{
	while (start < end && (text[start] == ' ' || text[start] == '\t'))
		start++;
	return start < end && text[start] == '#';
}

static size_t line_start(const char *text, size_t at)
{
	while (at > 0 && text[at - 1] != '\n')
		at--;
	return at;
}

/* Between two statements there are remarks and empty lines only, and a line of neither kind is left alone. */
static struct lines lines_of(const struct policy_tree *t, const struct ast_statement *s)
{
	struct lines l;

	l.text = text_of(t, s->at.source, &l.len);
	l.end = s->end < l.len ? s->end + 1 : l.len;
	l.first = line_start(l.text, s->at.offset);
	for (size_t above; l.first > 0; l.first = above) {
		above = line_start(l.text, l.first - 1);
		if (!is_remark(l.text, above, l.first - 1))
			break;
	}
	l.blanks = l.first;
	for (size_t above; l.blanks > 0; l.blanks = above) {
		above = line_start(l.text, l.blanks - 1);
		if (!is_blank(l.text, above, l.blanks - 1))
			break;
	}
	return l;
}

static bool is_blank_line_at(const char *text, size_t len, size_t at)
{
	const char *line_end = at < len ? memchr(text + at, '\n', len - at) : NULL;

	return at == len || is_blank(text, at, line_end == NULL ? len : (size_t)(line_end - text));
}

/* What goes with a statement that leaves: the empty lines above, unless they part something else from what is above. */
static size_t leaves_from(const struct lines *l)
{
	return is_blank_line_at(l->text, l->len, l->end) ? l->blanks : l->first;
}

static const char *eol_of(const struct lines *l)
{
	return l->end >= 2 && l->text[l->end - 1] == '\n' && l->text[l->end - 2] == '\r' ? "\r\n" : "\n";
}

/* Puts whole lines, which may begin with empty ones, beside a statement.  len bytes; a line end at their end is not counted. */
static void put_lines(struct policy_edit *e, const char *block, size_t len, enum edit_where where, const struct ast_statement *anchor)
{
	struct lines l = lines_of(e->tree, anchor);
	bool parted = len > 0 && is_blank_line_at(block, len, 0);

	if (where == EDIT_BEFORE)
		piece(e, anchor->at.source, parted ? l.blanks : l.first, 0, joined(block, len, "", 0, eol_of(&l)));
	else if (l.text[l.end - 1] == '\n')
		piece(e, anchor->at.source, l.end, 0, joined(block, len, "", 0, eol_of(&l)));
	else
		piece(e, anchor->at.source, l.end, 0, joined("\n", 1, block, len, ""));
}

static size_t without_eol(const char *text, size_t start, size_t end)
{
	if (end > start && text[end - 1] == '\n')
		end--;
	if (end > start && text[end - 1] == '\r')
		end--;
	return end;
}

/* A text that ends without a line end ends so afterwards. */
static void take_lines(struct policy_edit *e, const struct ast_statement *s)
{
	struct lines l = lines_of(e->tree, s);
	size_t from = leaves_from(&l);

	if (l.end == l.len && l.text[l.end - 1] != '\n')
		from = without_eol(l.text, 0, from);
	piece(e, s->at.source, from, l.end - from, strdup(""));
}

/* ---- statements ---------------------------------------------------------------------------------------------------- */

int edit_read(const char *text, enum ast_statement_kind kind, char **name, struct policy_diagnostics *d, struct err *why)
{
	static const char *const words[] = {[AST_SET] = "set", [AST_WINDOW] = "window", [AST_RULE] = "rule"};
	struct policy_tree *t = policy_parse("the new text", text, strlen(text), d);
	const struct ast_statement *s = t->first;
	int rc = -1;

	if (d->errors > 0)
		err_set(why, "this is no %s", words[kind]);
	else if (s == NULL || s->next != NULL || s->kind != kind || (t->remarks != NULL && t->remarks->alone))
		err_set(why, "this is not one %s, and nothing else", words[kind]);
	else if ((*name = strdup(s->name->text)) == NULL)
		err_set(why, "there is no memory left");
	else
		rc = 0;
	policy_tree_free(t);
	return rc;
}

/* The statement of the policy's own text behind which one of a kind goes: for rules, the last that brings rules; for what rules
 * use, the last of its kind, or else what must stand above it. */
static const struct ast_statement *last_of(const struct policy_tree *t, enum ast_statement_kind kind)
{
	const struct ast_statement *found = NULL, *lower = NULL, *own = NULL;

	for (const struct ast_statement *s = t->first; s != NULL; s = s->next) {
		if (s->at.source == NULL)
			own = s;
		if (s->kind == kind)
			found = own;
		if (s->at.source == NULL && s->kind != AST_RULE && s->kind != AST_EXPECT && s->kind != AST_DEFAULT && s->kind != AST_INCLUDE)
			lower = s;
	}
	return found != NULL ? found : lower;
}

/* Into a text without statements: apart from a remark, which would be taken for one about it. */
static void put_alone(struct policy_edit *e, const char *text)
{
	size_t len = e->tree->len, last = without_eol(e->tree->text, 0, len);
	bool ended = len == 0 || e->tree->text[len - 1] == '\n';
	size_t parted = is_blank(e->tree->text, line_start(e->tree->text, last), last) ? 0 : 1;

	piece(e, NULL, len, 0, joined("\n\n", parted + !ended, text, strlen(text), ended ? "\n" : ""));
}

void edit_insert(struct policy_edit *e, const char *text, enum ast_statement_kind kind, enum edit_where where,
		 const struct ast_statement *anchor)
{
	if (where == EDIT_LAST) {
		anchor = last_of(e->tree, kind);
		where = EDIT_AFTER;
	} else if (where == EDIT_FIRST) {
		anchor = e->tree->first;
		while (anchor != NULL && anchor->kind != kind)
			anchor = anchor->next;
		where = EDIT_BEFORE;
	}
	if (anchor == NULL && e->tree->first != NULL) {
		anchor = e->tree->first;
		where = EDIT_BEFORE;
	}
	if (anchor != NULL)
		put_lines(e, text, strlen(text), where, anchor);
	else
		put_alone(e, text);
}

void edit_remove(struct policy_edit *e, const struct ast_statement *s)
{
	take_lines(e, s);
}

void edit_move(struct policy_edit *e, const struct ast_statement *s, enum edit_where where, const struct ast_statement *anchor)
{
	struct lines l = lines_of(e->tree, s), to = lines_of(e->tree, anchor);
	size_t from = leaves_from(&l), end = without_eol(l.text, from, l.end);

	if (s == anchor || (s->at.source == anchor->at.source && (where == EDIT_BEFORE ? l.end == to.blanks : to.end == l.blanks)))
		return;
	take_lines(e, s);
	put_lines(e, l.text + from, end - from, where, anchor);
}

void edit_replace(struct policy_edit *e, const struct ast_statement *s, const char *text)
{
	piece(e, s->at.source, s->at.offset, s->last - s->at.offset, strdup(text));
}

bool edit_enable(struct policy_edit *e, const struct ast_statement *rule, bool enabled)
{
	size_t len, name_end = rule->name->at.offset + rule->name->at.length, from = rule->disabled.offset;
	const char *text = text_of(e->tree, rule->at.source, &len);

	if (enabled == (rule->disabled.length == 0))
		return false;
	if (!enabled) {
		piece(e, rule->at.source, name_end, 0, strdup(" disabled"));
		return true;
	}
	while (from > name_end && (text[from - 1] == ' ' || text[from - 1] == '\t'))
		from--;
	piece(e, rule->at.source, from, rule->disabled.offset + rule->disabled.length - from, strdup(""));
	return true;
}

void edit_until(struct policy_edit *e, const struct ast_statement *rule, const char *moment)
{
	const struct ast_clause *c = ast_clause_find(rule, AST_UNTIL);

	if (c != NULL)
		piece(e, rule->at.source, c->values.first->at.offset, c->values.first->at.length, strdup(moment));
	else
		piece(e, rule->at.source, rule->last, 0, joined(" until ", 7, moment, strlen(moment), ""));
}

char *edit_with_end(const char *text, const char *moment)
{
	struct policy_diagnostics d = {0};
	struct policy_tree *t = policy_parse("the new text", text, strlen(text), &d);
	struct policy_edit e;
	char *with = NULL;
	size_t len;

	assert(d.errors == 0 && t->first != NULL);
	edit_init(&e, t);
	if (ast_clause_find(t->first, AST_UNTIL) == NULL) {
		edit_until(&e, t->first, moment);
		with = edit_text(&e, NULL, &len);
	}
	edit_clear(&e);
	policy_tree_free(t);
	policy_diagnostics_free(&d);
	return with;
}

void edit_except(struct policy_edit *e, const struct ast_statement *w, const char *date)
{
	const struct ast_value *last = w->except.last != NULL ? w->except.last : w->values.last;
	size_t at = last != NULL ? last->at.offset + last->at.length : w->open + 1;

	piece(e, w->at.source, at, 0, joined(w->except.last != NULL ? " " : " except ", w->except.last != NULL ? 1 : 8, date, strlen(date), ""));
}

/* Between quotes, a backslash takes the next byte along, and only a quote loses it. */
static bool can_be_written(const char *value)
{
	for (const unsigned char *c = (const unsigned char *)value; *c != '\0'; c++) {
		if (*c < 0x20 || *c == 0x7f)
			return false;
		if (*c == '\\' && (*++c < 0x20 || *c == 0x7f || *c == '"'))
			return false;
	}
	return true;
}

char *edit_quote(const char *value)
{
	return value[0] == '@' && words_bare(value + 1) ? strdup(value) : edit_literal(value);
}

char *edit_literal(const char *value)
{
	size_t len = strlen(value), used = 0;
	char *out;

	if (!can_be_written(value))
		return NULL;
	if (words_bare(value) && strpbrk(value, "\\[](){}?|^") == NULL && words_near(value) == NULL)
		return strdup(value);
	out = malloc(2 * len + 3);
	if (out == NULL)
		abort();
	out[used++] = '"';
	for (size_t i = 0; i < len; i++) {
		if (value[i] == '"')
			out[used++] = '\\';
		out[used++] = value[i];
	}
	out[used++] = '"';
	out[used] = '\0';
	return out;
}

/* ---- values of sets ------------------------------------------------------------------------------------------------ */

/* What a set holds, or is to hold, in its order: places in the text, and what they mean. */
struct held {
	const struct ast_statement *set;
	const struct ast_source *source;
	struct held_value {
		const char *text;
		size_t len, offset, end; /* of what stands in the text, with quotes */
		size_t key, key_len;	 /* in keys: what it means */
		bool reference, gone;
	} * values;
	struct held_value **sorted; /* by their bytes */
	struct held_value **meant;  /* by what they mean */
	struct blob keys;
	size_t count;
	bool in_order;
};

static int compare_text(const char *a, size_t a_len, const char *b, size_t b_len)
{
	int order = memcmp(a, b, a_len < b_len ? a_len : b_len);

	return order != 0 ? order : (a_len > b_len) - (a_len < b_len);
}

static int compare_held(const struct held_value *a, const struct held_value *b)
{
	if (a->reference != b->reference)
		return a->reference ? -1 : 1;
	return compare_text(a->text, a->len, b->text, b->len);
}

static int by_value(const void *a, const void *b)
{
	const struct held_value *x = *(const struct held_value *const *)a, *y = *(const struct held_value *const *)b;
	int order = compare_held(x, y);

	return order != 0 ? order : (x->offset > y->offset) - (x->offset < y->offset);
}

static int compare_meant(const struct held *x, const struct held_value *a, const struct held *y, const struct held_value *b)
{
	return compare_text((const char *)x->keys.data + a->key, a->key_len, (const char *)y->keys.data + b->key, b->key_len);
}

static int by_meaning(const void *a, const void *b, void *arg)
{
	const struct held_value *x = *(const struct held_value *const *)a, *y = *(const struct held_value *const *)b;
	int order = compare_meant(arg, x, arg, y);

	return order != 0 ? order : (x > y) - (x < y);
}

/* What is no value of the kind means its bytes, and equals nothing that is one. */
static void add_key(struct held *h, struct held_value *v)
{
	struct value_meaning m;
	struct err why;
	char text[AST_ENTRY_MAX + 1];
	bool read = !v->reference && v->len < sizeof text;

	v->key = h->keys.len;
	if (read) {
		memcpy(text, v->text, v->len); /* one of a list has no end */
		text[v->len] = '\0';
		read = value_read(h->set->set_kind, text, v->len, &m, &why) == 0;
	}
	blob_add(&h->keys, v->reference ? "@" : read ? "=" : "?", 1);
	if (read)
		value_key(&m, &h->keys);
	else
		blob_add(&h->keys, v->text, v->len);
	v->key_len = h->keys.len - v->key;
}

static void held_alloc(struct held *h, const struct ast_statement *set, size_t count)
{
	*h = (struct held){.set = set, .source = set->list != NULL ? set->list->source : set->at.source, .count = count, .in_order = true};
	h->values = calloc(count + 1, sizeof h->values[0]);
	h->sorted = calloc(count + 1, sizeof h->sorted[0]);
	h->meant = calloc(count + 1, sizeof h->meant[0]);
	if (h->values == NULL || h->sorted == NULL || h->meant == NULL)
		abort();
}

/* When all values are there. */
static void held_sort(struct held *h)
{
	for (size_t i = 0; i < h->count; i++) {
		add_key(h, &h->values[i]);
		h->sorted[i] = h->meant[i] = &h->values[i];
		h->in_order &= i == 0 || compare_held(&h->values[i - 1], &h->values[i]) <= 0;
	}
	if (!h->in_order)
		qsort(h->sorted, h->count, sizeof h->sorted[0], by_value);
	if (h->count > 0)
		qsort_r(h->meant, h->count, sizeof h->meant[0], by_meaning, h);
}

static void held_init(struct held *h, const struct ast_statement *set)
{
	const struct ast_list *list = set->list;
	size_t i = 0;

	held_alloc(h, set, list != NULL ? list->count : set->values.count);
	for (const struct ast_value *v = list != NULL ? NULL : set->values.first; v != NULL; v = v->next)
		h->values[i++] = (struct held_value){
			.text = v->text, .len = v->len, .offset = v->at.offset, .end = v->at.offset + v->at.length, .reference = v->set};
	for (; list != NULL && i < h->count; i++)
		h->values[i] = (struct held_value){.text = list->source->text + list->entries[i].offset,
						   .len = list->entries[i].len,
						   .offset = list->entries[i].offset,
						   .end = list->entries[i].offset + (size_t)list->entries[i].len};
	held_sort(h);
}

/* Values that somebody gives for a set.  An "@name" is a reference between braces only: a list has none. */
static void wanted_init(struct held *w, const struct ast_statement *set, const char *const *values, size_t n, bool literal)
{
	held_alloc(w, set, n);
	for (size_t i = 0; i < n; i++) {
		bool reference = values[i][0] == '@' && set->list == NULL && !literal;

		/* The place is its number: of two that are the same, the first given comes first. */
		w->values[i] = (struct held_value){
			.text = values[i] + reference, .len = strlen(values[i]) - reference, .offset = i, .reference = reference};
	}
	held_sort(w);
}

static void held_clear(struct held *h)
{
	free(h->values);
	free(h->sorted);
	free(h->meant);
	blob_clear(&h->keys);
}

/* The first by its bytes that is not less. */
static size_t lower(const struct held *h, const struct held_value *v)
{
	size_t lo = 0, hi = h->count;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (compare_held(h->sorted[mid], v) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* The values of h that mean what v of w does: n of them from the one returned on, in meant. */
static struct held_value **find_meant(const struct held *h, const struct held *w, const struct held_value *v, size_t *n)
{
	size_t lo = 0, hi = h->count;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (compare_meant(h, h->meant[mid], w, v) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (*n = 0; lo + *n < h->count && compare_meant(h, h->meant[lo + *n], w, v) == 0; (*n)++)
		;
	return &h->meant[lo];
}

static bool has_meaning(const struct held *h, const struct held *w, const struct held_value *v)
{
	size_t n;

	find_meant(h, w, v, &n);
	return n > 0;
}

bool edit_set_has(const struct ast_statement *set, const char *value)
{
	struct held h, w;

	held_init(&h, set);
	wanted_init(&w, set, &value, 1, false);
	bool has = has_meaning(&h, &w, &w.values[0]);

	held_clear(&w);
	held_clear(&h);
	return has;
}

/* A value that shares its line with nothing but a remark. */
static bool has_own_line(const char *text, size_t len, const struct held_value *v, size_t *start, size_t *end)
{
	const char *line_end = memchr(text + v->end, '\n', len - v->end);

	*start = line_start(text, v->offset);
	*end = line_end == NULL ? len : (size_t)(line_end - text);
	return is_blank(text, *start, v->offset) && (is_blank(text, v->end, *end) || is_remark(text, v->end, *end));
}

static const char *eol_before(const char *text, size_t at)
{
	return at >= 2 && text[at - 1] == '\n' && text[at - 2] == '\r' ? "\r\n" : "\n";
}

/* Before a value: on a line of its own if that has one, with its indentation. */
static void add_before(struct policy_edit *e, const struct held *h, const struct held_value *v, const char *written)
{
	size_t len, start, end;
	const char *text = text_of(e->tree, h->source, &len);

	if (has_own_line(text, len, v, &start, &end)) {
		char *line = joined(text + start, v->offset - start, written, strlen(written), end < len ? eol_before(text, end + 1) : "\n");

		piece(e, h->source, start, 0, line);
	} else {
		piece(e, h->source, v->offset, 0, joined(written, strlen(written), "", 0, " "));
	}
}

static void add_last(struct policy_edit *e, const struct held *h, const char *written, bool first)
{
	size_t len, start, end;
	const char *text = text_of(e->tree, h->source, &len);
	const struct held_value *v = h->count > 0 ? &h->values[h->count - 1] : NULL;

	if (v != NULL && has_own_line(text, len, v, &start, &end)) {
		const char *eol = end < len ? eol_before(text, end + 1) : "\n";
		size_t indent = v->offset - start;

		if (end < len)
			piece(e, h->source, end + 1, 0, joined(text + start, indent, written, strlen(written), eol));
		else
			piece(e, h->source, end, 0, joined(eol, strlen(eol), written, strlen(written), ""));
	} else if (v != NULL) {
		piece(e, h->source, v->end, 0, joined(" ", 1, written, strlen(written), ""));
	} else if (h->set->list == NULL) {
		bool tight = first && text[h->set->open + 1] == '}';

		piece(e, h->source, h->set->open + 1, 0, joined(" ", tight ? 0 : 1, written, strlen(written), ""));
	} else {
		bool ended = len == 0 || text[len - 1] == '\n';

		piece(e, h->source, len, 0, joined("\n", ended ? 0 : 1, written, strlen(written), ended ? "\n" : ""));
	}
}

bool edit_set_can_hold(const struct ast_statement *set, const char *value)
{
	size_t len = strlen(value);
	bool plain = len > 0 && len <= AST_ENTRY_MAX && value[0] != ' ' && value[len - 1] != ' ' && value[0] != '#';

	if (set->list == NULL)
		return can_be_written(value);
	for (const char *c = value; *c != '\0'; c++)
		plain &= (unsigned char)*c >= 0x20 && *c != 0x7f && (*c != '#' || c == value || c[-1] != ' ');
	return plain;
}

static void add_value(struct policy_edit *e, const struct held *h, const struct held_value *v, bool literal, bool first)
{
	size_t at = lower(h, v);
	/* Before the text of a reference there is its mark. */
	char *written = h->set->list != NULL ? strdup(v->text) : literal ? edit_literal(v->text) : edit_quote(v->text - v->reference);

	assert(written != NULL);
	while (h->in_order && at < h->count && h->values[at].gone)
		at++;
	if (h->in_order && at < h->count)
		add_before(e, h, &h->values[at], written);
	else
		add_last(e, h, written, first);
	free(written);
}

static size_t add_values(struct policy_edit *e, const struct held *h, const struct held *w, bool literal)
{
	size_t added = 0;

	for (size_t i = 1; i < w->count; i++)
		w->meant[i]->gone = compare_meant(w, w->meant[i - 1], w, w->meant[i]) == 0;
	for (size_t i = 0; i < w->count; i++)
		if (!w->sorted[i]->gone && !has_meaning(h, w, w->sorted[i])) {
			add_value(e, h, w->sorted[i], literal, added == 0);
			added++;
		}
	return added;
}

size_t edit_set_add(struct policy_edit *e, const struct ast_statement *set, const char *const *values, size_t n)
{
	struct held h, w;

	held_init(&h, set);
	wanted_init(&w, set, values, n, false);
	size_t added = add_values(e, &h, &w, false);

	held_clear(&w);
	held_clear(&h);
	return added;
}

static void remove_value(struct policy_edit *e, const struct held *h, const struct held_value *v)
{
	size_t len, start, end, from = v->offset, to = v->end;
	const char *text = text_of(e->tree, h->source, &len);
	size_t next = (size_t)(v - h->values) + 1;

	while (next < h->count && h->values[next].gone)
		next++;
	if (has_own_line(text, len, v, &start, &end)) {
		/* A text whose last line does not end, and that loses its last lines, ends so afterwards. */
		bool open_end = next == h->count && memchr(text + h->values[h->count - 1].end, '\n', len - h->values[h->count - 1].end) == NULL;

		from = open_end ? without_eol(text, 0, start) : start;
		to = open_end || end == len ? end : end + 1;
	} else if (next < h->count && memchr(text + to, '\n', h->values[next].offset - to) == NULL) {
		to = v[1].offset;
	} else {
		while (from > 0 && (text[from - 1] == ' ' || text[from - 1] == '\t'))
			from--;
	}
	piece(e, h->source, from, to - from, strdup(""));
}

static void remove_gone(struct policy_edit *e, const struct held *h)
{
	for (size_t i = 0; i < h->count; i++)
		if (h->values[i].gone)
			remove_value(e, h, &h->values[i]);
}

int edit_set_remove(struct policy_edit *e, const struct ast_statement *set, const char *const *values, size_t n, const char **missing)
{
	struct held h, w;

	*missing = NULL;
	held_init(&h, set);
	wanted_init(&w, set, values, n, false);
	for (size_t i = 0; i < n && *missing == NULL; i++) {
		size_t found;
		struct held_value **same = find_meant(&h, &w, &w.values[i], &found);

		if (found == 0)
			*missing = values[i];
		for (size_t k = 0; k < found; k++)
			same[k]->gone = true;
	}
	if (*missing == NULL)
		remove_gone(e, &h);
	held_clear(&w);
	held_clear(&h);
	return *missing == NULL ? 0 : -1;
}

/* ---- what covers a value ---------------------------------------------------------------------------------------------- */

struct cover {
	const struct policy_tree *tree;
	const struct held *gone; /* the values that are removed */
	struct value_meaning narrow;
	char *out;
	const struct ast_statement **in;
	/* Those that were met, each once: the queue of those to look into, too.  The first is the one that is edited. */
	const struct ast_statement **seen;
	size_t nseen, room;
};

static void meet(struct cover *c, const struct ast_statement *set)
{
	for (size_t i = 0; i < c->nseen; i++)
		if (c->seen[i] == set)
			return;
	if (c->nseen == c->room) {
		c->room = c->room == 0 ? 16 : c->room * 2;
		c->seen = reallocarray(c->seen, c->room, sizeof c->seen[0]);
		if (c->seen == NULL)
			abort();
	}
	c->seen[c->nseen++] = set;
}

static bool one_covers(const struct cover *c, const struct ast_statement *set, const struct ast_value *v)
{
	struct value_meaning wide;
	struct err ignored;

	if (v->len > AST_ENTRY_MAX || value_read(set->set_kind, v->text, v->len, &wide, &ignored) != 0 || !value_covers(&wide, &c->narrow))
		return false;
	memcpy(c->out, v->text, v->len);
	c->out[v->len] = '\0';
	*c->in = set;
	return true;
}

/* True: it goes, too, as far as it stands in the set that is edited. */
static bool goes(const struct cover *c, const struct ast_value *v)
{
	struct held one;
	const char *text = v->text;
	bool gone;

	if (v->set) {
		for (size_t i = 0; i < c->gone->count; i++)
			if (c->gone->values[i].reference && strcmp(c->gone->values[i].text, text) == 0)
				return true;
		return false;
	}
	wanted_init(&one, c->gone->set, &text, 1, true);
	gone = has_meaning(c->gone, &one, &one.values[0]);
	held_clear(&one);
	return gone;
}

/* stays: what it holds does, whatever is removed. */
static bool is_covered_in(struct cover *c, const struct ast_statement *set, bool stays)
{
	const struct ast_list *list = set->list;
	char text[AST_ENTRY_MAX + 1];

	for (const struct ast_value *v = set->values.first; v != NULL; v = v->next) {
		const struct ast_statement *held = v->set ? ast_find(c->tree, AST_SET, v->text) : NULL;

		if (!v->set && one_covers(c, set, v) && (stays || !goes(c, v)))
			return true;
		if (held != NULL && held->set_kind == set->set_kind && (stays || !goes(c, v)))
			meet(c, held);
	}
	for (size_t i = 0; list != NULL && i < list->count; i++) {
		struct ast_value v = {.text = text, .len = list->entries[i].len};

		if (v.len > AST_ENTRY_MAX)
			continue;
		memcpy(text, list->source->text + list->entries[i].offset, v.len);
		text[v.len] = '\0';
		if (one_covers(c, set, &v) && (stays || !goes(c, &v)))
			return true;
	}
	return false;
}

bool edit_set_covers(const struct policy_tree *t, const struct ast_statement *set, const char *const *removed, size_t n, size_t which,
		     char out[AST_ENTRY_MAX + 1], const struct ast_statement **in)
{
	struct held gone;
	struct cover c = {.tree = t, .gone = &gone, .out = out, .in = in};
	struct err ignored;
	bool covered = false;

	if (value_read(set->set_kind, removed[which], strlen(removed[which]), &c.narrow, &ignored) != 0)
		return false;
	wanted_init(&gone, set, removed, n, false);
	meet(&c, set);
	for (size_t i = 0; i < c.nseen && !covered; i++)
		covered = is_covered_in(&c, c.seen[i], i > 0);
	free(c.seen);
	held_clear(&gone);
	return covered;
}

size_t edit_set_import(struct policy_edit *e, const struct ast_statement *set, const char *const *values, size_t n, bool replace)
{
	struct held h, w;

	held_init(&h, set);
	wanted_init(&w, set, values, n, true);
	for (size_t i = 0; i < h.count; i++)
		h.values[i].gone = replace && !has_meaning(&w, &h, &h.values[i]);
	remove_gone(e, &h);
	size_t added = add_values(e, &h, &w, true);

	held_clear(&w);
	held_clear(&h);
	return added;
}
