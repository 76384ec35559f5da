/* Reads a pattern as a tree without building one.  Each part tells the few texts that it matches, if these are all it
 * matches (exact); texts of neighbours are joined while they stay few, and what has been joined so far is a demand when
 * something comes that matches too much to be told. */
#include "config.h"

#include "policy/literal.h"

#include <stdbool.h>
#include <string.h>

#define DEPTH_MAX 20
/* A class of more bytes than this matches too much to be told. */
#define CLASS_MAX 4

struct texts {
	size_t count;
	struct literal_text of[LITERAL_ANY_MAX];
};

/* What a part of a pattern matches. */
struct part {
	bool exact;	     /* one of texts and nothing else */
	struct texts texts;  /* if exact */
	struct texts demand; /* otherwise: one of these is in every match; none: unknown */
};

struct reading {
	const char *start, *p, *end;
	unsigned depth;
	bool lost; /* something that is not understood */
};

/* A row of parts: what has been joined, and the best demand of what is behind. */
struct row {
	struct texts joined;
	bool broken; /* joined is not all there was */
	struct texts best;
	struct literal_demands *all; /* NULL, or where to note every demand */
};

static const struct texts nothing = {.count = 1};

static bool is_demand(const struct texts *t)
{
	for (size_t i = 0; i < t->count; i++)
		if (t->of[i].len < LITERAL_BYTES)
			return false;
	return t->count > 0;
}

static size_t shortest(const struct texts *t)
{
	size_t least = LITERAL_TEXT_MAX;

	for (size_t i = 0; i < t->count; i++)
		least = t->of[i].len < least ? t->of[i].len : least;
	return least;
}

static void note_demand(struct row *r, const struct texts *t)
{
	if (!is_demand(t))
		return;
	if (r->best.count == 0 || shortest(t) > shortest(&r->best))
		r->best = *t;
	if (r->all != NULL && r->all->count < LITERAL_DEMANDS_MAX) {
		struct literal_demand *d = &r->all->all[r->all->count++];

		d->count = t->count;
		memcpy(d->any, t->of, t->count * sizeof t->of[0]);
	}
}

static void row_break(struct row *r)
{
	note_demand(r, &r->joined);
	r->joined = nothing;
	r->broken = true;
}

static bool join(const struct texts *left, const struct texts *right, struct texts *out)
{
	out->count = 0;
	if (left->count * right->count > LITERAL_ANY_MAX)
		return false;
	for (size_t a = 0; a < left->count; a++)
		for (size_t b = 0; b < right->count; b++) {
			struct literal_text *t = &out->of[out->count++];

			if (left->of[a].len + right->of[b].len > LITERAL_TEXT_MAX)
				return false;
			*t = left->of[a];
			memcpy(t->bytes + t->len, right->of[b].bytes, right->of[b].len);
			t->len = (uint8_t)(t->len + right->of[b].len);
		}
	return true;
}

static void row_add(struct row *r, const struct part *p)
{
	struct texts both;

	if (!p->exact) {
		row_break(r);
		note_demand(r, &p->demand);
	} else if (join(&r->joined, &p->texts, &both)) {
		r->joined = both;
	} else {
		row_break(r);
		r->joined = p->texts;
	}
}

static void text_part(struct part *p, char c)
{
	p->exact = true;
	p->texts.count = 1;
	p->texts.of[0].len = 1;
	p->texts.of[0].bytes[0] = (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
}

static void unknown_part(struct part *p)
{
	p->exact = false;
	p->demand.count = 0;
}

/* An edge that every name has is nothing; elsewhere nobody knows. */
static void edge_part(struct part *p, bool given)
{
	unknown_part(p);
	p->exact = given;
	p->texts = nothing;
}

static void add_text(struct texts *t, const struct literal_text *one, bool *fits)
{
	for (size_t i = 0; i < t->count; i++)
		if (t->of[i].len == one->len && memcmp(t->of[i].bytes, one->bytes, one->len) == 0)
			return;
	*fits = *fits && t->count < LITERAL_ANY_MAX;
	if (*fits)
		t->of[t->count++] = *one;
}

static void add_texts(struct texts *t, const struct texts *more, bool *fits)
{
	for (size_t i = 0; i < more->count; i++)
		add_text(t, &more->of[i], fits);
}

/* ---- parts of a pattern --------------------------------------------------------------------------------------------
 */

static bool is_alnum(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* [:alpha:] within a class, up to its last byte. */
static bool pass_posix_class(struct reading *r)
{
	const char *p = r->p + 1;

	if (p == r->end || *p++ != ':')
		return false;
	while (p < r->end && ((*p >= 'a' && *p <= 'z') || *p == '^'))
		p++;
	if (r->end - p < 2 || p[0] != ':' || p[1] != ']')
		return false;
	r->p = p + 1;
	return true;
}

static void read_class(struct reading *r, struct part *p)
{
	const char *first;
	bool plain = true, fits = true;

	unknown_part(p);
	if (r->p < r->end && *r->p == '^') {
		plain = false;
		r->p++;
	}
	p->texts.count = 0;
	for (first = r->p; r->p < r->end && (*r->p != ']' || r->p == first); r->p++) {
		struct part one;

		if (*r->p == '[') {
			plain = false;
			if (!pass_posix_class(r))
				goto lost;
			continue;
		}
		/* A byte, or a class.  Others stand for what follows them, or hide the end. */
		if (*r->p == '\\') {
			plain = false;
			if (++r->p == r->end || (is_alnum(*r->p) && strchr("dDwWsS", *r->p) == NULL))
				goto lost;
		}
		plain = plain && *r->p != '-';
		text_part(&one, *r->p);
		if (plain)
			add_texts(&p->texts, &one.texts, &fits);
		plain = plain && fits && p->texts.count <= CLASS_MAX;
	}
	if (r->p == r->end)
		goto lost;
	r->p++;
	p->exact = plain && p->texts.count > 0;
	return;
lost:
	r->lost = true;
}

static void read_escape(struct reading *r, struct part *p)
{
	static const char classes[] = "dDwWsSbB";
	char c;

	unknown_part(p);
	if (r->p == r->end) {
		r->lost = true;
		return;
	}
	c = *r->p++;
	/* Letters and digits: these stand for one of many bytes, or for none; others take what follows, or change its
	 * meaning. */
	if (is_alnum(c))
		r->lost = strchr(classes, c) == NULL;
	else
		text_part(p, c);
}

static void read_choice(struct reading *r, struct part *p);

static void read_group(struct reading *r, struct part *p)
{
	unknown_part(p);
	r->lost = ++r->depth > DEPTH_MAX || r->p == r->end || *r->p == '*';
	if (!r->lost && *r->p == '?') {
		r->lost = r->end - r->p < 2 || r->p[1] != ':';
		r->p += r->lost ? 0 : 2;
	}
	if (r->lost)
		return;
	read_choice(r, p);
	if (r->lost || r->p == r->end || *r->p != ')') {
		r->lost = true;
		return;
	}
	r->p++;
	r->depth--;
}

static void read_atom(struct reading *r, struct part *p)
{
	char c = *r->p++;

	switch (c) {
	case '\\':
		read_escape(r, p);
		break;
	case '[':
		read_class(r, p);
		break;
	case '(':
		read_group(r, p);
		break;
	case '^':
		edge_part(p, r->depth == 0 && (r->p - 1 == r->start || r->p[-2] == '|'));
		break;
	case '$':
		edge_part(p, r->depth == 0 && (r->p == r->end || *r->p == '|'));
		break;
	case '.':
		unknown_part(p);
		break;
	case '?':
	case '*':
	case '+':
	case '{':
		/* Nothing to repeat, or a brace that is none. */
		r->lost = true;
		break;
	default:
		text_part(p, c);
		break;
	}
}

static bool read_number(struct reading *r, bool *zero)
{
	const char *first = r->p;

	*zero = true;
	for (; r->p < r->end && *r->p >= '0' && *r->p <= '9'; r->p++)
		*zero = *zero && *r->p == '0';
	return r->p > first;
}

/* The rest of {n}, {n,} or {n,m}; *none if it may be none. */
static bool read_count(struct reading *r, bool *none)
{
	bool zero;

	if (!read_number(r, none))
		return false;
	if (r->p < r->end && *r->p == ',') {
		r->p++;
		read_number(r, &zero);
	}
	return r->p < r->end && *r->p++ == '}';
}

/* Adds an atom as often as what stands behind it says. */
static void add_repeated(struct reading *r, struct row *row, struct part *p)
{
	char c = r->p < r->end ? *r->p : '\0';
	bool none = c != '+', fits = true;

	if (c != '?' && c != '*' && c != '+' && c != '{') {
		row_add(row, p);
		return;
	}
	r->p++;
	if (c == '{' && !read_count(r, &none))
		r->lost = true;
	/* Lazy or possessive: the same texts. */
	if (r->p < r->end && (*r->p == '?' || *r->p == '+'))
		r->p++;
	if (c == '?' && p->exact) {
		add_texts(&p->texts, &nothing, &fits);
		p->exact = fits;
		p->demand.count = 0;
		row_add(row, p);
		return;
	}
	if (!none)
		row_add(row, p);
	row_break(row);
}

/* One alternative, up to its end. */
static void read_row(struct reading *r, struct row *row)
{
	struct part p;

	while (r->p < r->end && *r->p != '|' && *r->p != ')' && !r->lost) {
		read_atom(r, &p);
		if (!r->lost)
			add_repeated(r, row, &p);
	}
}

/* Alternatives: exact if all are; otherwise what each demands, taken together. */
static void read_choice(struct reading *r, struct part *p)
{
	struct texts demand = {.count = 0};
	bool exact = true, known = true;

	p->texts.count = 0;
	for (;;) {
		struct row row = {.joined = nothing};

		read_row(r, &row);
		add_texts(&p->texts, &row.joined, &exact);
		exact = exact && !row.broken;
		note_demand(&row, &row.joined);
		known = known && row.best.count > 0;
		add_texts(&demand, &row.best, &known);
		if (r->lost || r->p == r->end || *r->p != '|')
			break;
		r->p++;
	}
	p->exact = exact;
	p->demand.count = 0;
	if (known)
		p->demand = demand;
}

/* The whole pattern, with what stands around every name. */
static bool read_whole(struct reading *r, bool choice, struct literal_demands *out)
{
	struct row row = {.joined = nothing, .all = out};
	struct part p;

	out->count = 0;
	text_part(&p, LITERAL_BEGIN);
	row_add(&row, &p);
	if (choice) {
		read_choice(r, &p);
		row_add(&row, &p);
	} else {
		read_row(r, &row);
	}
	text_part(&p, LITERAL_END);
	row_add(&row, &p);
	row_break(&row);
	return !r->lost && r->p == r->end;
}

void literal_read(const char *pattern, size_t len, struct literal_demands *out)
{
	/* Every pattern is matched in any case. */
	size_t skip = len >= 4 && memcmp(pattern, "(?i)", 4) == 0 ? 4 : 0;
	struct reading row = {.start = pattern + skip, .p = pattern + skip, .end = pattern + len}, choice = row;

	if (!read_whole(&row, false, out) && !read_whole(&choice, true, out))
		out->count = 0;
}
