#include "config.h"

#include "policy/diag.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How much of a line is shown on either side of the fault; a line may be a million bytes long. */
#define EXCERPT_BEFORE 72
#define EXCERPT_AFTER 80

static char *xstrdup(const char *s)
{
	char *copy = strdup(s);

	if (copy == NULL)
		abort();
	return copy;
}

/* Length of the printable UTF-8 sequence at s, or 0: control bytes, invalid bytes and characters that would reorder or
 * hide what a person reads (U+200B..200F, U+2028..202E, U+2060..206F, U+FEFF). */
static size_t printable(const unsigned char *s, size_t len)
{
	if (s[0] < 0x80)
		return s[0] >= 0x20 && s[0] != 0x7f;
	size_t n = s[0] >= 0xf0 && s[0] <= 0xf4	  ? 4
		   : s[0] >= 0xe0 && s[0] <= 0xef ? 3
		   : s[0] >= 0xc2 && s[0] <= 0xdf ? 2
						  : 0;

	if (n == 0 || n > len)
		return 0;
	uint32_t c = s[0] & (0xffu >> (n + 1));

	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	if (c < 0xa0 || (n == 3 && c < 0x800) || (n == 4 && c < 0x10000) || c > 0x10ffff ||
	    (c >= 0xd800 && c <= 0xdfff))
		return 0;
	if ((c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) || c == 0xfeff)
		return 0;
	return n;
}

/* Appends one character of s to out (room for 4 bytes and NUL); returns how many bytes of s it took. */
static size_t put_printable(char *out, size_t *used, const char *s, size_t len)
{
	size_t n = printable((const unsigned char *)s, len);

	if (n > 0) {
		memcpy(out + *used, s, n);
		*used += n;
		return n;
	}
	if (s[0] == '\t') {
		out[(*used)++] = ' ';
		return 1;
	}
	*used += (size_t)sprintf(out + *used, "\\x%02x", (unsigned char)s[0]);
	return 1;
}

const char *diag_quote(const char *text, size_t len, char buf[DIAG_QUOTE_MAX])
{
	size_t used = 0;

	for (size_t i = 0; i < len;) {
		if (used + 8 > DIAG_QUOTE_MAX) {
			memcpy(buf + used, "...", 3);
			used += 3;
			break;
		}
		i += put_printable(buf, &used, text + i, len - i);
	}
	buf[used] = '\0';
	return buf;
}

/* The part of the source line around at; sets where the caret goes and how long it is, in characters of the excerpt. */
static char *excerpt(const struct policy_tree *t, const struct ast_place *at, unsigned *caret, unsigned *caret_len)
{
	const char *text = at->source == NULL ? t->text : at->source->text;
	size_t len = at->source == NULL ? t->len : at->source->len;
	size_t start = at->offset, end = at->offset, used = 0;

	if (at->line == 0 || at->offset > len)
		return NULL;
	while (start > 0 && text[start - 1] != '\n' && at->offset - start < EXCERPT_BEFORE)
		start--;
	while (end < len && text[end] != '\n' && end - at->offset < EXCERPT_AFTER)
		end++;
	char *out = malloc((end - start) * 4 + 8);

	if (out == NULL)
		abort();
	unsigned width = 0;

	*caret = 0;
	*caret_len = 0;
	for (size_t i = start; i < end;) {
		size_t was = used;
		bool under = i >= at->offset && i < at->offset + at->length;

		if (i == at->offset)
			*caret = width;
		size_t took = put_printable(out, &used, text + i, end - i);
		unsigned shown = took > 1 ? 1 : (unsigned)(used - was);

		width += shown;
		if (under)
			*caret_len += shown;
		i += took;
	}
	if (at->offset >= end)
		*caret = width;
	if (*caret_len == 0)
		*caret_len = 1;
	out[used] = '\0';
	return out;
}

static void item_clear(struct policy_diagnostic *item)
{
	free(item->file);
	free(item->message);
	free(item->excerpt);
}

/* The place of an entry of a list, whose lines are counted only now. */
static struct ast_place counted(const struct ast_place *at)
{
	struct ast_place place = *at;

	if (at->source == NULL || at->line != 0)
		return place;
	place.line = place.column = 1;
	for (size_t i = 0; i < at->offset && i < at->source->len; i++) {
		bool ends = at->source->text[i] == '\n';

		place.line += ends;
		place.column = ends ? 1 : place.column + 1;
	}
	return place;
}

/* Frees the last warning's place, and that of the line that says that there are more. */
static void forget_a_warning(struct policy_diagnostics *d)
{
	size_t at = POLICY_DIAGNOSTICS_MAX;

	while (at > 0 && d->items[at - 1].severity == POLICY_ERROR)
		at--;
	if (at == 0)
		return;
	if (d->count > POLICY_DIAGNOSTICS_MAX)
		item_clear(&d->items[--d->count]);
	item_clear(&d->items[at - 1]);
	memmove(&d->items[at - 1], &d->items[at], (d->count - at) * sizeof d->items[0]);
	d->count--;
}

void diag_add(struct policy_diagnostics *d, const struct policy_tree *t, enum policy_severity severity,
	      const char *code, const struct ast_place *at, const char *format, ...)
{
	static const struct ast_place nowhere;
	char message[768];
	va_list ap;

	if (severity == POLICY_ERROR)
		d->errors++;
	else
		d->warnings++;
	/* Where there is no room, a warning gives way to an error. */
	if (severity == POLICY_ERROR && d->count >= POLICY_DIAGNOSTICS_MAX)
		forget_a_warning(d);
	if (d->count > POLICY_DIAGNOSTICS_MAX)
		return;
	bool full = d->count == POLICY_DIAGNOSTICS_MAX;

	if (full || at == NULL)
		at = &nowhere;
	struct ast_place place = counted(at);

	at = &place;
	va_start(ap, format);
	vsnprintf(message, sizeof message, format, ap);
	va_end(ap);
	if (d->items == NULL) {
		d->items = calloc(POLICY_DIAGNOSTICS_MAX + 1, sizeof *d->items);
		if (d->items == NULL)
			abort();
	}
	struct policy_diagnostic *item = &d->items[d->count++];

	*item = (struct policy_diagnostic){.severity = severity,
					   .code = full ? "too-many" : code,
					   .file = xstrdup(at->source == NULL ? t->file : at->source->name),
					   .line = at->line,
					   .column = at->column};
	item->message = xstrdup(!full ? message
				: severity == POLICY_ERROR ? "more errors follow and are not shown"
							   : "more warnings follow and are not shown");
	item->excerpt = excerpt(t, at, &item->caret, &item->caret_len);
}

void policy_diagnostics_free(struct policy_diagnostics *d)
{
	for (size_t i = 0; i < d->count; i++)
		item_clear(&d->items[i]);
	free(d->items);
	*d = (struct policy_diagnostics){0};
}

char *policy_diagnostic_format(const struct policy_diagnostic *d)
{
	const char *kind = d->severity == POLICY_ERROR ? "error" : "warning";
	char *out = NULL;
	size_t len;
	FILE *f = open_memstream(&out, &len);

	if (f == NULL)
		abort();
	if (d->line == 0)
		fprintf(f, "%s: %s: %s [%s]\n", d->file, kind, d->message, d->code);
	else
		fprintf(f, "%s:%u:%u: %s: %s [%s]\n", d->file, d->line, d->column, kind, d->message, d->code);
	if (d->excerpt != NULL) {
		fprintf(f, "    %s\n    %*s", d->excerpt, (int)d->caret, "");
		for (unsigned i = 0; i < d->caret_len; i++)
			fputc(i == 0 ? '^' : '~', f);
		fputc('\n', f);
	}
	if (fclose(f) != 0)
		abort();
	return out;
}
