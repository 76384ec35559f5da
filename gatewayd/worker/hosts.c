#include "config.h"

#include "gatewayd/worker/hosts.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define ENTRIES_MAX 1000000

struct entry {
	struct name name;
	struct addr addr;
	size_t line; /* keeps a name's addresses in the order of the file */
};

struct hosts {
	struct entry *entries; /* sorted by name, then line */
	size_t count, size;
};

/* The next word of [*at, end), or false; '#' starts a comment. */
static bool next_word(const char **at, const char *end, const char **word, size_t *len)
{
	while (*at < end && (**at == ' ' || **at == '\t' || **at == '\r'))
		(*at)++;
	if (*at == end || **at == '#' || **at == ';')
		return false;
	*word = *at;
	while (*at < end && **at != ' ' && **at != '\t' && **at != '\r' && **at != '#')
		(*at)++;
	*len = (size_t)(*at - *word);
	return true;
}

/* Calls fn for each line. */
static void each_line(const uint8_t *text, size_t len, void (*fn)(const char *at, const char *end, void *arg), void *arg)
{
	const char *at = (const char *)text, *end = at + len;

	while (at < end) {
		const char *newline = memchr(at, '\n', (size_t)(end - at));
		const char *stop = newline == NULL ? end : newline;

		fn(at, stop, arg);
		at = stop + 1;
	}
}

static bool word_to_addr(const char *word, size_t len, struct addr *out)
{
	char text[ADDR_TEXT_MAX];

	if (len >= sizeof text)
		return false;
	memcpy(text, word, len);
	text[len] = '\0';
	return addr_parse(text, out);
}

static void add_entry(struct hosts *h, const struct name *name, const struct addr *addr)
{
	if (h->count == h->size) {
		size_t size = h->size == 0 ? 64 : h->size * 2;
		struct entry *grown = size > ENTRIES_MAX ? NULL : realloc(h->entries, size * sizeof *grown);

		if (grown == NULL)
			return;
		h->entries = grown;
		h->size = size;
	}
	h->entries[h->count] = (struct entry){.name = *name, .addr = *addr, .line = h->count};
	h->count++;
}

static void hosts_line(const char *at, const char *end, void *arg)
{
	struct addr addr, unused;
	struct name name;
	const char *word, *why;
	size_t len;

	if (!next_word(&at, end, &word, &len) || !word_to_addr(word, len, &addr))
		return;
	while (next_word(&at, end, &word, &len))
		if (name_canonical(word, len, &name, &unused, &why) == NAME_IS_NAME)
			add_entry(arg, &name, &addr);
}

static int compare(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	int order = strcmp(x->name.text, y->name.text);

	return order != 0 ? order : x->line < y->line ? -1 : x->line > y->line;
}

struct hosts *hosts_parse(const uint8_t *text, size_t len)
{
	struct hosts *h = calloc(1, sizeof *h);

	if (h == NULL)
		return NULL;
	each_line(text, len, hosts_line, h);
	if (h->count > 1)
		qsort(h->entries, h->count, sizeof *h->entries, compare);
	return h;
}

void hosts_free(struct hosts **h)
{
	if (*h == NULL)
		return;
	free((*h)->entries);
	free(*h);
	*h = NULL;
}

size_t hosts_find(const struct hosts *h, const struct name *name, struct addr *out, size_t max)
{
	size_t low = 0, high = h->count, found = 0;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (strcmp(h->entries[middle].name.text, name->text) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	for (; low < h->count && strcmp(h->entries[low].name.text, name->text) == 0; low++, found++)
		if (found < max)
			out[found] = h->entries[low].addr;
	return found;
}

struct servers {
	struct endpoint *out;
	size_t count, max;
};

static void resolv_conf_line(const char *at, const char *end, void *arg)
{
	struct servers *s = arg;
	const char *word;
	size_t len;
	struct addr addr;

	if (!next_word(&at, end, &word, &len) || len != 10 || memcmp(word, "nameserver", 10) != 0)
		return;
	if (next_word(&at, end, &word, &len) && word_to_addr(word, len, &addr) && s->count < s->max)
		s->out[s->count++] = (struct endpoint){.addr = addr, .port = 53};
}

size_t resolv_conf_servers(const uint8_t *text, size_t len, struct endpoint *out, size_t max)
{
	struct servers s = {.out = out, .max = max};

	each_line(text, len, resolv_conf_line, &s);
	return s.count;
}
