#include "config.h"

#include "schema/audit_segment.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "schema/audit_row.h"
#include "schema/migrations.h"

#define APPLICATION_ID 0x67776175 /* "gwau" */
#define BUSY_MS 500

const char audit_segment_indexes[] =
	"CREATE INDEX IF NOT EXISTS event_user ON event (user, time) WHERE user IS NOT NULL;";

const char *audit_segment_name(uint32_t number, char buf[AUDIT_SEGMENT_NAME_MAX])
{
	snprintf(buf, AUDIT_SEGMENT_NAME_MAX, "audit-%08u.db", number);
	return buf;
}

/* 0: it is the name of no segment. */
static uint32_t number_of(const char *name)
{
	char again[AUDIT_SEGMENT_NAME_MAX];
	unsigned long number;

	if (strncmp(name, "audit-", 6) != 0)
		return 0;
	number = strtoul(name + 6, NULL, 10);
	if (number == 0 || number > UINT32_MAX)
		return 0;
	return strcmp(audit_segment_name((uint32_t)number, again), name) == 0 ? (uint32_t)number : 0;
}

static int by_number(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static int collect(DIR *dir, uint32_t *numbers, struct err *why)
{
	struct dirent *entry;
	int n = 0;

	for (errno = 0; (entry = readdir(dir)) != NULL; errno = 0) {
		uint32_t number = number_of(entry->d_name);

		if (number == 0)
			continue;
		if (n == AUDIT_SEGMENTS_MAX)
			return err_set(why, "the audit has more than %d segments: prune it", AUDIT_SEGMENTS_MAX);
		numbers[n++] = number;
	}
	return errno != 0 ? err_set_errno(why, "cannot read the directory of the audit") : n;
}

int audit_segment_list(uint32_t **numbers, struct err *why)
{
	int n = -1;
	DIR *dir = opendir(".");

	*numbers = dir == NULL ? NULL : calloc(AUDIT_SEGMENTS_MAX, sizeof **numbers);
	if (dir == NULL)
		return err_set_errno(why, "cannot read the directory of the audit");
	if (*numbers == NULL)
		err_set(why, "out of memory for the segments of the audit");
	else
		n = collect(dir, *numbers, why);
	closedir(dir);
	if (n < 0) {
		free(*numbers);
		*numbers = NULL;
		return -1;
	}
	qsort(*numbers, (size_t)n, sizeof **numbers, by_number);
	return n;
}

static const struct db_permit permits[] = {
	{.table = "event", .insert = true},
	{.table = "chain", .insert = true},
	{.table = "sender", .insert = true, .update = true, .delete = true},
	{.table = "open_session", .insert = true, .update = true, .delete = true},
	{.table = "sqlite_master"},
	{.table = AUDIT_GIVEN},
};

static const struct db_permit read_permits[] = {
	{.table = "event"},	   {.table = "chain"},	       {.table = "sender"},
	{.table = "open_session"}, {.table = "sqlite_master"},
};

struct db *audit_segment_open(const char *path, enum audit_mode mode, struct err *why)
{
	const bool reading = mode == AUDIT_READ;
	const struct db_options options = {
		.path = path,
		.read_only = reading,
		.application_id = APPLICATION_ID,
		.migrations = schema_audit_migrations,
		.permits = reading ? read_permits : permits,
		.npermits = reading ? sizeof read_permits / sizeof *read_permits : sizeof permits / sizeof *permits,
		.busy_timeout_ms = BUSY_MS,
		.value_max_bytes = 256 * 1024,
		.manual_checkpoint = true,
		.relaxed = mode == AUDIT_WRITE_RELAXED,
	};

	return db_open(&options, why);
}

bool audit_segment_has_log(const char *path)
{
	uint8_t versions[2] = {0, 0}; /* "file format write version" and "read version": 2 is WAL */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);

	if (fd < 0)
		return false;
	if (pread(fd, versions, sizeof versions, 18) != sizeof versions)
		versions[0] = 2;
	close(fd);
	return versions[0] == 2 || versions[1] == 2;
}

uint64_t audit_segment_bytes(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}
