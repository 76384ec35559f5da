#include "config.h"

#include "schema/audit_holds.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "schema/audit_chain.h"
#include "schema/audit_json.h"

#define FILE_NAME "holds.json"
#define NEW_NAME "holds.json.new"
/* With the rest of a reply, a datagram of the control socket holds it. */
#define FILE_MAX (40 * 1024)

void audit_holds_clear(struct audit_holds *h)
{
	json_decref(h->list);
	free(h->filters);
	*h = (struct audit_holds){0};
}

/* Each filter as it is used; *h is complete then. */
static int parse(struct audit_holds *h, struct err *why)
{
	json_t *hold;
	size_t i;

	free(h->filters);
	h->n = json_array_size(h->list);
	h->filters = calloc(h->n + 1, sizeof *h->filters);
	if (h->filters == NULL || h->n > AUDIT_HOLDS_MAX)
		return err_set(why, "there are more than %d holds, or memory is short", AUDIT_HOLDS_MAX);
	json_array_foreach(h->list, i, hold)
	{
		struct err reason;

		if (!json_is_string(json_object_get(hold, "name")) ||
		    audit_filter_json(json_object_get(hold, "filter"), &h->filters[i], &reason) != 0)
			return err_set(why, FILE_NAME ": hold %zu cannot be understood", i + 1);
	}
	return 0;
}

static int read_file(struct audit_holds *h, const char *path, struct err *why)
{
	char text[FILE_MAX + 1];
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
	ssize_t n;

	audit_holds_clear(h);
	h->list = json_array();
	if (fd < 0 && errno == ENOENT)
		return parse(h, why);
	n = fd < 0 ? -1 : read(fd, text, sizeof text);
	if (n < 0) {
		err_set_errno(why, FILE_NAME ": cannot read the holds");
		if (fd >= 0)
			close(fd);
		return -1;
	}
	close(fd);
	json_t *file = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, NULL);
	json_t *list = json_object_get(file, "holds");

	if (n > FILE_MAX || !json_is_array(list)) {
		json_decref(file);
		return err_set(why, FILE_NAME ": it is damaged: nothing is pruned until it is as it was, or was moved "
					      "away and the holds were placed again");
	}
	json_decref(h->list);
	h->list = json_incref(list);
	json_decref(file);
	return parse(h, why);
}

int audit_holds_read(struct audit_holds *h, struct err *why)
{
	return read_file(h, FILE_NAME, why);
}

bool audit_holds_has_file(void)
{
	return access(FILE_NAME, F_OK) == 0;
}

/* Complete and on stable storage before it takes the place of the old one. */
static int write_file(const json_t *list, struct err *why)
{
	json_t *file = json_pack("{s:O}", "holds", list);
	char *text = file == NULL ? NULL : json_dumps(file, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_SORT_KEYS);
	size_t len = text == NULL ? 0 : strlen(text);
	int fd, rc = 0;

	json_decref(file);
	if (text == NULL || len > FILE_MAX) {
		free(text);
		return err_set(why, "the holds take more than %d bytes, or memory is short", FILE_MAX);
	}
	fd = open(NEW_NAME, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, 0600);
	errno = fd < 0 ? errno : ENOSPC;
	if (fd < 0 || write(fd, text, len) != (ssize_t)len || fsync(fd) != 0)
		rc = err_set_errno(why, FILE_NAME ": cannot write the holds");
	if (fd >= 0)
		close(fd);
	free(text);
	return rc != 0 ? -1 : audit_sync_directory(why);
}

/* Takes over list. */
static int prepare(struct audit_holds *h, json_t *list, struct err *why)
{
	int rc = list == NULL ? err_set(why, "out of memory") : write_file(list, why);
	struct audit_holds new = {0};

	json_decref(list);
	if (rc == 0)
		rc = read_file(&new, NEW_NAME, why);
	if (rc != 0) {
		audit_holds_clear(&new);
		audit_holds_forget();
		return -1;
	}
	audit_holds_clear(h);
	*h = new;
	return 0;
}

int audit_holds_commit(struct err *why)
{
	if (rename(NEW_NAME, FILE_NAME) != 0)
		return err_set_errno(why, FILE_NAME ": cannot write the holds");
	return audit_sync_directory(why);
}

void audit_holds_forget(void)
{
	unlink(NEW_NAME);
}

static bool sum_of(const char *path, uint8_t digest[AUDIT_HOLDS_DIGEST_BYTES])
{
	struct audit_holds h = {0};
	struct err ignored;
	bool good = read_file(&h, path, &ignored) == 0;

	if (good)
		audit_holds_sum(&h, digest);
	audit_holds_clear(&h);
	return good;
}

bool audit_holds_prepared(uint8_t digest[AUDIT_HOLDS_DIGEST_BYTES])
{
	return access(NEW_NAME, F_OK) == 0 && sum_of(NEW_NAME, digest);
}

bool audit_holds_sum_file(uint8_t digest[AUDIT_HOLDS_DIGEST_BYTES])
{
	return sum_of(FILE_NAME, digest);
}

static size_t find(const struct audit_holds *h, const char *name)
{
	for (size_t i = 0; i < json_array_size(h->list); i++)
		if (strcmp(json_string_value(json_object_get(json_array_get(h->list, i), "name")), name) == 0)
			return i;
	return SIZE_MAX;
}

bool audit_holds_stands(const struct audit_holds *h, const char *name)
{
	return find(h, name) != SIZE_MAX;
}

static bool is_name(const char *name)
{
	size_t len = strlen(name);

	return len >= 1 && len <= AUDIT_HOLD_NAME_MAX &&
	       strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == len;
}

int audit_holds_place(struct audit_holds *h, const char *name, const json_t *filter, const char *by, struct err *why)
{
	struct audit_filter parsed;
	size_t at;

	if (!is_name(name))
		return err_set(why, "a hold's name has 1 to %d letters, digits, '.', '_' and '-'", AUDIT_HOLD_NAME_MAX);
	if (audit_filter_json(filter, &parsed, why) != 0)
		return -1;
	if (parsed.limit != 0 || parsed.after != 0 || json_object_get(filter, "order") != NULL)
		return err_set(why, "a hold is for all rows that match: it has no limit and no order");
	at = find(h, name);
	if (at != SIZE_MAX) {
		if (json_equal(json_object_get(json_array_get(h->list, at), "filter"), filter))
			return 1;
		return err_set(why, "there is a hold %s already, with another filter", name);
	}
	if (h->n == AUDIT_HOLDS_MAX)
		return err_set(why, "there are %d holds, and that is as many as there can be", AUDIT_HOLDS_MAX);
	json_t *list = json_copy(h->list);

	json_array_append_new(list, json_pack("{s:s, s:O, s:s, s:I}", "name", name, "filter", filter, "by", by,
					      "since_us", (json_int_t)clock_wall_us()));
	return prepare(h, list, why);
}

int audit_holds_release(struct audit_holds *h, const char *name, struct err *why)
{
	size_t at = find(h, name);
	json_t *list;

	if (at == SIZE_MAX)
		return err_set(why, "there is no hold of this name");
	list = json_copy(h->list);
	json_array_remove(list, at);
	return prepare(h, list, why);
}

void audit_holds_sum(const struct audit_holds *h, uint8_t digest[AUDIT_HOLDS_DIGEST_BYTES])
{
	char *text = json_dumps(h->list, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_SORT_KEYS);

	memset(digest, 0, AUDIT_HOLDS_DIGEST_BYTES);
	if (text != NULL)
		crypto_generichash(digest, AUDIT_HOLDS_DIGEST_BYTES, (const uint8_t *)text, strlen(text), NULL, 0);
	free(text);
}

const char *audit_holds_digest(const struct audit_holds *h, char buf[AUDIT_HOLDS_DIGEST_TEXT_MAX])
{
	uint8_t digest[AUDIT_HOLDS_DIGEST_BYTES];

	audit_holds_sum(h, digest);
	return sodium_bin2hex(buf, AUDIT_HOLDS_DIGEST_TEXT_MAX, digest, sizeof digest);
}
