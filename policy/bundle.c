#include "config.h"

#include "policy/bundle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/sealed.h"

/*   header | one entry a file | names, each ended by NUL | texts   */

#define BUNDLE_MAGIC "GWBUNDLE"
#define BUNDLE_VERSION 1

struct header {
	char magic[8];
	uint32_t version, count;
};

struct entry {
	uint32_t name_len; /* without the NUL */
	uint32_t zero;
	uint64_t len;
};

/* Names stand in messages and become paths of an export. */
static bool name_sound(const char *name, size_t len)
{
	if (len == 0 || len > BUNDLE_NAME_MAX)
		return false;
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
			return false;
	return true;
}

static bool sizes_sound(const struct bundle *b)
{
	size_t room = BUNDLE_FILES_BYTES_MAX;

	if (b->count == 0 || b->count > BUNDLE_FILES_MAX || b->files[0].len > BUNDLE_POLICY_MAX)
		return false;
	for (size_t i = 1; i < b->count; i++) {
		if (b->files[i].len > room)
			return false;
		room -= b->files[i].len;
	}
	return true;
}

static bool names_differ(const struct bundle *b)
{
	for (size_t i = 0; i < b->count; i++)
		for (size_t k = 0; k < i; k++)
			if (strcmp(b->files[i].name, b->files[k].name) == 0)
				return false;
	return true;
}

static int too_large(struct err *why)
{
	return err_set(why, "a policy has at most %zu MB of its own text, and at most %d other files of %zu MB together",
		       BUNDLE_POLICY_MAX >> 20, BUNDLE_FILES_MAX - 1, BUNDLE_FILES_BYTES_MAX >> 20);
}

static int malformed(struct err *why)
{
	return err_set(why, "the bundle of a policy and its files is malformed");
}

/* Names and texts from `at` on, of the lengths that the entries say, to the last byte. */
static bool locate(struct bundle *b, const struct entry *entries, const char *at, size_t left)
{
	for (size_t i = 0; i < b->count; i++) {
		size_t len = entries[i].name_len;

		if (len >= left || at[len] != '\0' || entries[i].zero != 0 || !name_sound(at, len))
			return false;
		b->files[i].name = at;
		at += len + 1;
		left -= len + 1;
	}
	for (size_t i = 0; i < b->count; i++) {
		if (entries[i].len > left)
			return false;
		b->files[i].text = at;
		b->files[i].len = entries[i].len;
		at += entries[i].len;
		left -= entries[i].len;
	}
	return left == 0;
}

int bundle_read(const uint8_t *data, size_t len, struct bundle *out, struct err *why)
{
	const struct header *h = (const struct header *)(const void *)data;
	size_t count, head;

	*out = (struct bundle){0};
	if (data == NULL || len < sizeof *h || ((uintptr_t)data & 7) != 0 || memcmp(h->magic, BUNDLE_MAGIC, sizeof h->magic) != 0)
		return malformed(why);
	if (h->version != BUNDLE_VERSION)
		return err_set(why, "the bundle has version %u; this program reads version %d", h->version, BUNDLE_VERSION);
	count = h->count;
	if (count > BUNDLE_FILES_MAX)
		return too_large(why);
	head = sizeof *h + count * sizeof(struct entry);
	if (count == 0 || len < head)
		return malformed(why);
	out->files = calloc(count, sizeof *out->files);
	if (out->files == NULL)
		return err_set(why, "out of memory for a bundle of %zu files", count);
	out->count = count;
	if (!locate(out, (const struct entry *)(const void *)(data + sizeof *h), (const char *)data + head, len - head) ||
	    !names_differ(out))
		malformed(why);
	else if (!sizes_sound(out))
		too_large(why);
	else
		return 0;
	bundle_clear(out);
	return -1;
}

void bundle_clear(struct bundle *b)
{
	free(b->files);
	*b = (struct bundle){0};
}

int bundle_seal(const struct bundle *b, struct err *why)
{
	struct header h = {.magic = BUNDLE_MAGIC, .version = BUNDLE_VERSION, .count = (uint32_t)b->count};
	struct iovec *parts;
	struct entry *entries;
	int fd = -1;

	if (!sizes_sound(b))
		return too_large(why);
	for (size_t i = 0; i < b->count; i++)
		if (!name_sound(b->files[i].name, strlen(b->files[i].name)))
			return err_set(why, "the name of a file has 1 to %d bytes, none of them a control byte", BUNDLE_NAME_MAX);
	parts = calloc(2 + 2 * b->count, sizeof *parts);
	entries = calloc(b->count, sizeof *entries);
	if (parts != NULL && entries != NULL) {
		parts[0] = (struct iovec){.iov_base = &h, .iov_len = sizeof h};
		parts[1] = (struct iovec){.iov_base = entries, .iov_len = b->count * sizeof *entries};
		for (size_t i = 0; i < b->count; i++) {
			const struct bundle_file *f = &b->files[i];

			entries[i] = (struct entry){.name_len = (uint32_t)strlen(f->name), .len = f->len};
			parts[2 + i] = (struct iovec){.iov_base = (void *)(uintptr_t)f->name, .iov_len = strlen(f->name) + 1};
			parts[2 + b->count + i] = (struct iovec){.iov_base = (void *)(uintptr_t)f->text, .iov_len = f->len};
		}
		fd = sealed_create_parts("gatewayd-policy-bundle", parts, 2 + 2 * b->count, why);
	} else {
		err_set(why, "out of memory for a bundle of %zu files", b->count);
	}
	free(parts);
	free(entries);
	return fd;
}

const struct bundle_file *bundle_find(const struct bundle *b, const char *name)
{
	for (size_t i = 0; i < b->count; i++)
		if (strcmp(b->files[i].name, name) == 0)
			return &b->files[i];
	return NULL;
}

char *bundle_name(const char *from, const char *path)
{
	const char *slash = strrchr(from, '/');
	char *name;

	if (path[0] == '/' || slash == NULL)
		return strdup(path);
	return asprintf(&name, "%.*s/%s", (int)(slash - from), from, path) < 0 ? NULL : name;
}

static int provide(void *arg, const char *from, const char *path, char **bytes, size_t *len, char **name, struct err *why)
{
	const struct bundle *b = arg;
	const struct bundle_file *f;

	*name = bundle_name(from, path);
	if (*name == NULL)
		return err_set(why, "there is no memory left");
	f = bundle_find(b, *name);
	*bytes = f == NULL ? NULL : malloc(f->len + 1);
	if (*bytes == NULL) {
		free(*name);
		return f != NULL ? err_set(why, "there is no memory left for a file of %zu bytes", f->len)
				 : err_set(why, "gatewayd opens no file that a policy names: `gatewayctl policy apply FILE` "
						"reads such files with your rights and hands them over");
	}
	memcpy(*bytes, f->text, f->len);
	(*bytes)[f->len] = '\0';
	*len = f->len;
	return 0;
}

struct policy_tree *bundle_parse(const struct bundle *b, struct policy_diagnostics *d)
{
	struct policy_provider provider = {.read = provide, .arg = (void *)(uintptr_t)b};

	return policy_parse_with(b->files[0].name, b->files[0].text, b->files[0].len, &provider, d);
}
