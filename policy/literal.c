#include "config.h"

#include "policy/literal.h"

#include <stdbool.h>
#include <string.h>

struct reading {
	const char *p, *end;
	unsigned depth; /* of groups, whose content is passed over */
	char run[256];	/* literal bytes in a row, outside of groups */
	size_t nrun;
	uint32_t *out;
	size_t count;
};

static void end_run(struct reading *r)
{
	for (size_t i = 0; i + LITERAL_BYTES <= r->nrun && r->count < LITERALS_MAX; i++)
		r->out[r->count++] = literal_at(r->run + i);
	r->nrun = 0;
}

static void literal_byte(struct reading *r, char c)
{
	if (r->depth > 0)
		return;
	if (c >= 'A' && c <= 'Z')
		c = (char)(c - 'A' + 'a');
	if (r->nrun == sizeof r->run)
		end_run(r);
	r->run[r->nrun++] = c;
}

/* A quantifier that allows none: the byte before it is not demanded. */
static void optional(struct reading *r)
{
	if (r->depth > 0)
		return;
	if (r->nrun > 0)
		r->nrun--;
	end_run(r);
}

/* The rest of a character class; false if it is more than a plain one. */
static bool pass_class(struct reading *r)
{
	if (r->p < r->end && *r->p == '^')
		r->p++;
	if (r->p < r->end && *r->p == ']')
		r->p++;
	for (; r->p < r->end; r->p++) {
		if (*r->p == ']') {
			r->p++;
			return true;
		}
		if (*r->p == '[')
			return false;
		if (*r->p == '\\' && ++r->p == r->end)
			return false;
		/* \Q would hide the end. */
		if (r->p[-1] == '\\' && (*r->p == 'Q' || *r->p == 'E'))
			return false;
	}
	return false;
}

static bool pass_escape(struct reading *r)
{
	static const char classes[] = "dDwWsSbB";
	char c;

	if (r->p == r->end)
		return false;
	c = *r->p++;
	if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) {
		/* Others take what follows, or change its meaning. */
		if (strchr(classes, c) == NULL)
			return false;
		if (r->depth == 0)
			end_run(r);
		return true;
	}
	literal_byte(r, c);
	return true;
}

static bool pass_group(struct reading *r)
{
	if (r->depth == 0)
		end_run(r);
	r->depth++;
	if (r->p < r->end && *r->p == '*')
		return false;
	if (r->p < r->end && *r->p == '?') {
		if (r->end - r->p < 2 || r->p[1] != ':')
			return false;
		r->p += 2;
	}
	return true;
}

/* {n}, {n,m}: whatever it says, the byte before may be missing. */
static bool pass_count(struct reading *r)
{
	const char *close = memchr(r->p, '}', (size_t)(r->end - r->p));

	if (close == NULL || *r->p < '0' || *r->p > '9')
		return false;
	r->p = close + 1;
	optional(r);
	return true;
}

static bool pass_one(struct reading *r)
{
	char c = *r->p++;

	switch (c) {
	case '\\':
		return pass_escape(r);
	case '[':
		if (r->depth == 0)
			end_run(r);
		return pass_class(r);
	case '(':
		return pass_group(r);
	case ')':
		if (r->depth == 0)
			return false;
		r->depth--;
		return true;
	case '|':
		return r->depth > 0;
	case '?':
	case '*':
		optional(r);
		return true;
	case '{':
		return pass_count(r);
	case '+':
	case '.':
	case '^':
	case '$':
		if (r->depth == 0)
			end_run(r);
		return true;
	default:
		literal_byte(r, c);
		return true;
	}
}

size_t literal_read(const char *pattern, size_t len, uint32_t out[LITERALS_MAX])
{
	struct reading r = {.p = pattern, .end = pattern + len, .out = out};

	while (r.p < r.end)
		if (!pass_one(&r))
			return 0;
	if (r.depth > 0)
		return 0;
	end_run(&r);
	return r.count;
}
