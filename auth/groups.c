#include "config.h"

#include "auth/groups.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"

#define NSS_BUFFER_MAX (1024 * 1024) /* a group entry lists its members: large ones are real */

/* ---- the list ---------------------------------------------------------------------------------------------------- */

static int add(struct auth_answer *answer, const char *name, size_t len, struct err *why)
{
	for (unsigned i = 0; i < answer->ngroups; i++)
		if (strlen(answer->groups[i]) == len && memcmp(answer->groups[i], name, len) == 0)
			return 0;
	if (len == 0 || len > AUTH_GROUP_NAME_MAX)
		return err_set(why, "a group of the user has a name of %zu bytes: 1 to %d can be used", len,
			       AUTH_GROUP_NAME_MAX);
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
			return err_set(why, "a group of the user has a name with a control byte");
	if (answer->ngroups == AUTH_GROUPS_MAX)
		return err_set(why, "the user is in more than %d groups", AUTH_GROUPS_MAX);
	memcpy(answer->groups[answer->ngroups], name, len);
	answer->groups[answer->ngroups++][len] = '\0';
	return 0;
}

/* ---- NSS --------------------------------------------------------------------------------------------------------- */

/* A buffer for getXXX_r(3) that grows on ERANGE. */
struct buffer {
	char *data;
	size_t size;
};

static bool buffer_grow(struct buffer *b)
{
	size_t size = b->size == 0 ? 1024 : b->size * 2;
	char *bigger = size > NSS_BUFFER_MAX ? NULL : realloc(b->data, size);

	if (bigger == NULL)
		return false;
	b->data = bigger;
	b->size = size;
	return true;
}

/* What getpwnam_r(3) lists as the many ways to say "not found". */
static bool means_absent(int error)
{
	return error == 0 || error == ENOENT || error == ESRCH || error == EBADF || error == EPERM;
}

/* 1 found with *gid, 0 NSS does not know the user, -1 with *why. */
static int primary_group(const char *user, struct buffer *b, gid_t *gid, struct err *why)
{
	struct passwd entry, *found = NULL;
	int error = ERANGE;

	while (error == ERANGE && buffer_grow(b))
		error = getpwnam_r(user, &entry, b->data, b->size, &found);
	if (found != NULL) {
		*gid = entry.pw_gid;
		return 1;
	}
	if (means_absent(error))
		return 0;
	errno = error;
	return err_set_errno(why, "the name service cannot tell whether it knows the user");
}

void auth_login_find(struct auth_login *login)
{
	struct passwd entry, *found = NULL;
	struct buffer b = {0};
	int error = ERANGE;

	while (error == ERANGE && buffer_grow(&b))
		error = getpwuid_r(login->uid, &entry, b.data, b.size, &found);
	login->name[0] = '\0';
	if (found != NULL && auth_login_valid(entry.pw_name))
		strcpy(login->name, entry.pw_name);
	free(b.data);
}

/* A gid without a name is in no rule's reach, and left out. */
static int add_gid(struct auth_answer *answer, gid_t gid, struct buffer *b, struct err *why)
{
	struct group entry, *found = NULL;
	int error = getgrgid_r(gid, &entry, b->data, b->size, &found);

	while (error == ERANGE && buffer_grow(b))
		error = getgrgid_r(gid, &entry, b->data, b->size, &found);
	if (found != NULL)
		return add(answer, entry.gr_name, strlen(entry.gr_name), why);
	if (means_absent(error))
		return 0;
	errno = error;
	return err_set_errno(why, "the name service cannot name group %lu of the user", (unsigned long)gid);
}

static int add_nss(struct auth_answer *answer, struct err *why)
{
	struct buffer b = {0};
	gid_t gids[AUTH_GROUPS_MAX], primary = (gid_t)-1;
	int n = AUTH_GROUPS_MAX, rc = primary_group(answer->user, &b, &primary, why);

	if (rc == 1) {
		rc = 0;
		if (getgrouplist(answer->user, primary, gids, &n) < 0) {
			rc = err_set(why, "the user is in more than %d groups", AUTH_GROUPS_MAX);
			n = 0;
		}
		for (int i = 0; i < n && rc == 0; i++)
			rc = add_gid(answer, gids[i], &b, why);
	}
	free(b.data);
	return rc;
}

/* ---- the groups file --------------------------------------------------------------------------------------------- */

/* Takes the text up to the separator (or the end) off *at: where it begins, and its length. */
static const char *take(const char **at, const char *end, char separator, size_t *len)
{
	const char *begin = *at, *stop = memchr(begin, separator, (size_t)(end - begin));

	if (stop == NULL)
		stop = end;
	*len = (size_t)(stop - begin);
	*at = stop < end ? stop + 1 : end;
	return begin;
}

static bool lists(const char *members, const char *end, const char *user)
{
	while (members < end) {
		size_t len;
		const char *member = take(&members, end, ',', &len);

		if (len == strlen(user) && memcmp(member, user, len) == 0)
			return true;
	}
	return false;
}

/* Strict, for a member that is overlooked is a deny rule that does not match: three colons, a name, no control bytes (a
 * carriage return at the end would be part of the last member) and no blanks around a colon or comma. */
static bool line_ok(const char *line, size_t len)
{
	unsigned colons = 0;

	for (size_t i = 0; i < len; i++) {
		bool at_border = i == 0 || i == len - 1 || strchr(":,", line[i - 1]) != NULL ||
				 strchr(":,", line[i + 1]) != NULL;

		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f || (line[i] == ' ' && at_border))
			return false;
		colons += line[i] == ':';
	}
	return colons == 3 && line[0] != ':';
}

/* group(5): name:password:gid:member,member,... */
static int parse_line(struct auth_answer *answer, const char *line, size_t len, unsigned number, struct err *why)
{
	const char *end = line + len, *at = line;
	size_t name_len, skipped;

	if (!line_ok(line, len))
		return err_set(why, "line %u of the groups file is not of the form name:x:gid:user,user", number);
	const char *name = take(&at, end, ':', &name_len);

	take(&at, end, ':', &skipped);
	take(&at, end, ':', &skipped);
	return lists(at, end, answer->user) ? add(answer, name, name_len, why) : 0;
}

int auth_groups_parse(struct auth_answer *answer, const char *text, size_t len, struct err *why)
{
	const char *end = text + len;
	unsigned number = 0;
	int rc = 0;

	while (text < end && rc == 0) {
		size_t line_len;
		const char *line = take(&text, end, '\n', &line_len);

		number++;
		if (line_len > 0 && line[0] != '#')
			rc = parse_line(answer, line, line_len, number, why);
	}
	return rc;
}

/* Reads at most size bytes: how many, or -1. */
static ssize_t read_all(int fd, char *data, size_t size)
{
	size_t len = 0;

	while (len < size) {
		ssize_t n = read(fd, data + len, size - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		len += (size_t)n;
	}
	return (ssize_t)len;
}

/* malloc'd; NULL with *why. */
static char *load_file(const char *file, size_t *size, struct err *why)
{
	int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	char *text = NULL;
	bool loaded = false;
	struct stat st;
	ssize_t len;

	if (fd < 0) {
		err_set_errno(why, "the groups file %s cannot be opened", file);
		return NULL;
	}
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		err_set(why, "the groups file %s is not a regular file", file);
	else if ((text = malloc(AUTH_GROUPS_FILE_MAX + 1)) == NULL ||
		 (len = read_all(fd, text, AUTH_GROUPS_FILE_MAX + 1)) < 0)
		err_set_errno(why, "the groups file %s cannot be read", file);
	else if (len > AUTH_GROUPS_FILE_MAX)
		err_set(why, "the groups file %s is larger than %d bytes", file, AUTH_GROUPS_FILE_MAX);
	else
		loaded = true;
	close(fd);
	if (loaded) {
		*size = (size_t)len;
		return text;
	}
	free(text);
	return NULL;
}

static int add_file(struct auth_answer *answer, const char *file, struct err *why)
{
	size_t len;
	char *text = load_file(file, &len, why);
	int rc = text == NULL ? -1 : auth_groups_parse(answer, text, len, why);

	free(text);
	return rc;
}

int auth_groups_find(struct auth_answer *answer, const char *file, struct err *why)
{
	int rc;

	answer->ngroups = 0;
	rc = add_nss(answer, why);
	if (rc == 0 && file != NULL)
		rc = add_file(answer, file, why);
	if (rc < 0)
		answer->ngroups = 0;
	return rc;
}

/* ---- are there such groups? -------------------------------------------------------------------------------------------- */

/* A name service that minds no case finds what a log-in brings along, and a policy has to write, otherwise. */
static enum auth_group_state look_in_nss(const char *name, struct buffer *b)
{
	struct group entry, *found = NULL;
	int error = ERANGE;

	if (b->size > 0)
		error = getgrnam_r(name, &entry, b->data, b->size, &found);
	while (error == ERANGE && buffer_grow(b))
		error = getgrnam_r(name, &entry, b->data, b->size, &found);
	if (found != NULL)
		return strcmp(entry.gr_name, name) == 0 ? AUTH_GROUP_KNOWN : AUTH_GROUP_ABSENT;
	return means_absent(error) ? AUTH_GROUP_ABSENT : AUTH_GROUP_UNTOLD;
}

/* Those that the name service does not know: whether nobody does is not known. */
static void no_longer_absent(struct auth_asked_groups *asked)
{
	for (unsigned i = 0; i < asked->n; i++)
		if (asked->states[i] == AUTH_GROUP_ABSENT)
			asked->states[i] = AUTH_GROUP_UNTOLD;
}

/* Once through it for all of them: it may be a megabyte. */
static void look_in_text(struct auth_asked_groups *asked, const char *text, size_t len)
{
	const char *end = text + len;
	bool listed[AUTH_ASKED_GROUPS_MAX] = {false};
	size_t lens[AUTH_ASKED_GROUPS_MAX];

	for (unsigned i = 0; i < asked->n; i++)
		lens[i] = strlen(asked->names[i]);
	while (text < end) {
		size_t line_len, name_len;
		const char *line = take(&text, end, '\n', &line_len), *at = line;

		if (line_len == 0 || line[0] == '#')
			continue;
		/* A file with a line that is none fails every log-in: nothing is told of it. */
		if (!line_ok(line, line_len)) {
			no_longer_absent(asked);
			return;
		}
		take(&at, line + line_len, ':', &name_len);
		for (unsigned i = 0; i < asked->n; i++)
			listed[i] |= name_len == lens[i] && memcmp(line, asked->names[i], name_len) == 0;
	}
	for (unsigned i = 0; i < asked->n; i++)
		if (listed[i])
			asked->states[i] = AUTH_GROUP_KNOWN;
}

void auth_groups_look(struct auth_asked_groups *asked, const char *file, int64_t until_us)
{
	struct buffer b = {0};
	struct err why;
	size_t len = 0;
	char *text = file == NULL ? NULL : load_file(file, &len, &why);

	for (unsigned i = 0; i < asked->n; i++)
		asked->states[i] = (uint8_t)(clock_mono_us() < until_us ? look_in_nss(asked->names[i], &b) : AUTH_GROUP_UNTOLD);
	if (text != NULL)
		look_in_text(asked, text, len);
	else if (file != NULL) {
		log_warning("whether there are groups cannot be told: %s", why.text);
		no_longer_absent(asked);
	}
	free(text);
	free(b.data);
}
