#include "config.h"

#include "policy/zone.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ZONE_DIRECTORY "/usr/share/zoneinfo/"
#define ZONE_FILE_MAX (256u << 10)
#define ZONE_CHANGES_MAX 4096
#define DAY 86400

/* Rules for the future are written out up to this year; decisions later than that cannot be made. */
#define LAST_YEAR 2099
#define END_OF_TIME 4102444800 /* 2100-01-01 */

void zone_clear(struct zone *z)
{
	free(z->changes);
	*z = (struct zone){0};
}

static int add_change(struct zone *z, int64_t at, int32_t offset, struct err *why)
{
	if (z->count >= ZONE_CHANGES_MAX || (z->count > 0 && z->changes[z->count - 1].at >= at))
		return err_set(why, "its changes are too many or out of order");
	z->changes[z->count++] = (struct zone_change){.at = at, .offset = offset};
	return 0;
}

/* ---- the rule for the future: a POSIX TZ string, RFC 8536 section 3.3 ------------------------------------------- */

struct rule_day {
	char form; /* 'M', 'J' or '0' (days from 0, leap day counted) */
	int month, week, weekday, day;
	int32_t second; /* of the wall clock; may be negative or beyond the day */
};

static bool number(const char **p, int min, int max, int *out)
{
	int v = 0;

	if (**p < '0' || **p > '9')
		return false;
	for (; **p >= '0' && **p <= '9'; (*p)++) {
		v = v * 10 + (**p - '0');
		if (v > max)
			return false;
	}
	*out = v;
	return v >= min;
}

/* [+-]hh[:mm[:ss]] */
static bool hours(const char **p, int max_hours, int32_t *out)
{
	int h, m = 0, s = 0, sign = 1;

	if (**p == '+' || **p == '-')
		sign = *(*p)++ == '-' ? -1 : 1;
	if (!number(p, 0, max_hours, &h))
		return false;
	if (**p == ':') {
		(*p)++;
		if (!number(p, 0, 59, &m))
			return false;
		if (**p == ':') {
			(*p)++;
			if (!number(p, 0, 59, &s))
				return false;
		}
	}
	*out = sign * (h * 3600 + m * 60 + s);
	return true;
}

static bool abbreviation(const char **p)
{
	const char *start = *p;

	if (**p == '<') {
		while (**p != '>' && **p != '\0')
			(*p)++;
		return *(*p)++ == '>';
	}
	while ((**p >= 'A' && **p <= 'Z') || (**p >= 'a' && **p <= 'z'))
		(*p)++;
	return *p - start >= 3;
}

static bool rule_day(const char **p, struct rule_day *d)
{
	bool ok;

	*d = (struct rule_day){.form = '0', .second = 2 * 3600};
	if (*(*p)++ != ',')
		return false;
	if (**p == 'M') {
		d->form = *(*p)++;
		ok = number(p, 1, 12, &d->month) && *(*p)++ == '.' && number(p, 1, 5, &d->week) && *(*p)++ == '.' &&
		     number(p, 0, 6, &d->weekday);
	} else if (**p == 'J') {
		d->form = *(*p)++;
		ok = number(p, 1, 365, &d->day);
	} else {
		ok = number(p, 0, 365, &d->day);
	}
	if (!ok)
		return false;
	if (**p == '/') {
		(*p)++;
		return hours(p, 167, &d->second);
	}
	return true;
}

static bool leap(int year)
{
	return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

/* Days from 1970-01-01 to the first day of year. */
static int64_t year_start(int year)
{
	int64_t y = year - 1;

	return 365 * y + y / 4 - y / 100 + y / 400 - 719162;
}

static int64_t month_start(int year, int month)
{
	static const int before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365};

	return year_start(year) + before[month - 1] + (month > 2 && leap(year) ? 1 : 0);
}

/* The wall-clock second (of a clock without offset) that the rule names in year. */
static int64_t rule_second(const struct rule_day *d, int year)
{
	int64_t day;

	if (d->form == 'J') {
		day = year_start(year) + d->day - 1 + (leap(year) && d->day >= 60 ? 1 : 0);
	} else if (d->form == '0') {
		day = year_start(year) + d->day;
	} else {
		int64_t first = month_start(year, d->month);
		int64_t next = d->month == 12 ? year_start(year + 1) : month_start(year, d->month + 1);
		int weekday = (int)((first + 4) % 7); /* 1970-01-01 was a Thursday; 0 is Sunday */

		day = first + (d->weekday - weekday + 7) % 7 + 7 * (d->week - 1);
		while (day >= next)
			day -= 7;
	}
	return day * DAY + d->second;
}

static int year_of(int64_t second)
{
	int year = 1970;

	while (year <= LAST_YEAR && year_start(year + 1) * DAY <= second)
		year++;
	return year;
}

/* Writes out the changes of the footer after those of the table. */
static int expand_footer(const char *tz, struct zone *z, struct err *why)
{
	struct rule_day start, end;
	int32_t std, dst;
	const char *p = tz;

	if (*p == '\0')
		return 0;
	if (!abbreviation(&p) || !hours(&p, 24, &std))
		return err_set(why, "its rule for the future cannot be read");
	std = -std;
	int64_t last = z->count > 0 ? z->changes[z->count - 1].at : INT64_MIN;
	int32_t current = z->count > 0 ? z->changes[z->count - 1].offset : z->before;

	if (*p == '\0') {
		if (z->count == 0)
			z->before = std;
		return z->count > 0 && current != std ? err_set(why, "its rule for the future contradicts its table")
						      : 0;
	}
	dst = std + 3600;
	if (!abbreviation(&p) || (*p != ',' && *p != '\0' && (!hours(&p, 24, &dst) || (dst = -dst, false))))
		return err_set(why, "its rule for the future cannot be read");
	if (!rule_day(&p, &start) || !rule_day(&p, &end) || *p != '\0')
		return err_set(why, "its rule for the future cannot be read");
	for (int year = last < 0 ? 1970 : year_of(last); year <= LAST_YEAR; year++) {
		struct zone_change a = {rule_second(&start, year) - std, dst}, b = {rule_second(&end, year) - dst, std};
		const struct zone_change *first = a.at <= b.at ? &a : &b, *second = first == &a ? &b : &a;

		if (first->at > last && add_change(z, first->at, first->offset, why) != 0)
			return -1;
		if (second->at > last && second->at > first->at && add_change(z, second->at, second->offset, why) != 0)
			return -1;
	}
	return 0;
}

/* ---- the file ------------------------------------------------------------------------------------------------------
 */

struct tzif {
	const uint8_t *data; /* of the block, after its header */
	size_t times, types, chars, leaps, std, ut;
};

static uint64_t big(const uint8_t *p, size_t n)
{
	uint64_t v = 0;

	for (size_t i = 0; i < n; i++)
		v = v << 8 | p[i];
	return v;
}

static size_t block_len(const struct tzif *t, size_t time_size)
{
	return t->times * (time_size + 1) + t->types * 6 + t->chars + t->leaps * (time_size + 4) + t->std + t->ut;
}

/* Reads a header at *data and steps over it. */
static bool header(const uint8_t **data, size_t *len, struct tzif *t, int *version)
{
	const uint8_t *p = *data;

	if (*len < 44 || memcmp(p, "TZif", 4) != 0)
		return false;
	*version = p[4] == 0 ? 1 : p[4] - '0';
	t->ut = big(p + 20, 4);
	t->std = big(p + 24, 4);
	t->leaps = big(p + 28, 4);
	t->times = big(p + 32, 4);
	t->types = big(p + 36, 4);
	t->chars = big(p + 40, 4);
	*data += 44;
	*len -= 44;
	t->data = *data;
	return t->types > 0 && t->types <= 256 && t->times <= ZONE_CHANGES_MAX && t->chars <= 4096 &&
	       t->leaps <= 4096 && t->std <= 256 && t->ut <= 256;
}

static int read_table(const struct tzif *t, struct zone *z, struct err *why)
{
	const uint8_t *times = t->data, *indexes = times + t->times * 8, *types = indexes + t->times;

	z->before = (int32_t)big(types, 4);
	for (size_t i = 0; i < t->times; i++) {
		size_t type = indexes[i];

		if (type >= t->types)
			return err_set(why, "it is damaged");
		if (add_change(z, (int64_t)big(times + i * 8, 8), (int32_t)big(types + type * 6, 4), why) != 0)
			return -1;
	}
	return 0;
}

static bool offsets_sane(const struct zone *z)
{
	bool sane = z->before > -26 * 3600 && z->before < 26 * 3600;

	for (size_t i = 0; i < z->count; i++)
		sane = sane && z->changes[i].offset > -26 * 3600 && z->changes[i].offset < 26 * 3600;
	return sane;
}

int zone_read(const uint8_t *data, size_t len, struct zone *z, struct err *why)
{
	struct tzif t;
	int version;
	char footer[128];

	*z = (struct zone){.until = END_OF_TIME};
	z->changes = calloc(ZONE_CHANGES_MAX, sizeof *z->changes);
	if (z->changes == NULL)
		abort();
	if (!header(&data, &len, &t, &version) || version < 2 || block_len(&t, 4) > len)
		goto damaged;
	data += block_len(&t, 4);
	len -= block_len(&t, 4);
	if (!header(&data, &len, &t, &version) || block_len(&t, 8) > len)
		goto damaged;
	if (read_table(&t, z, why) != 0)
		goto fail;
	data += block_len(&t, 8);
	len -= block_len(&t, 8);
	const uint8_t *end = len > 1 && data[0] == '\n' ? memchr(data + 1, '\n', len - 1) : NULL;

	if (end == NULL || (size_t)(end - data) > sizeof footer)
		goto damaged;
	memcpy(footer, data + 1, (size_t)(end - data) - 1);
	footer[end - data - 1] = '\0';
	if (expand_footer(footer, z, why) != 0)
		goto fail;
	if (footer[0] == '\0') {
		/* Without a rule nothing is known after the last change. */
		if (z->count == 0)
			goto damaged;
		z->until = z->changes[z->count - 1].at;
	}
	if (!offsets_sane(z))
		goto damaged;
	return 0;
damaged:
	err_set(why, "it is damaged or of an unknown version");
fail:
	zone_clear(z);
	return -1;
}

static bool name_sound(const char *name)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+-/";

	return name[0] != '\0' && name[0] != '/' && strlen(name) < 64 && name[strspn(name, allowed)] == '\0';
}

static int read_file(const char *path, uint8_t *buf, size_t *len)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	ssize_t n;

	*len = 0;
	if (fd < 0)
		return -1;
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
		close(fd);
		return -1;
	}
	while (*len < ZONE_FILE_MAX && (n = read(fd, buf + *len, ZONE_FILE_MAX - *len)) > 0)
		*len += (size_t)n;
	close(fd);
	return 0;
}

int zone_load(const char *name, struct zone *z, struct err *why)
{
	char path[sizeof ZONE_DIRECTORY + 64] = ZONE_DIRECTORY;
	struct err inner = {{0}};
	size_t len;

	*z = (struct zone){.until = END_OF_TIME};
	if (strcmp(name, "UTC") == 0)
		return 0;
	if (!name_sound(name))
		return err_set(why, "this is no name of a time zone like Europe/Berlin");
	strncat(path, name, 64);
	uint8_t *buf = malloc(ZONE_FILE_MAX);

	if (buf == NULL)
		abort();
	if (read_file(path, buf, &len) != 0) {
		free(buf);
		return err_set(why, "this time zone is not known here (%s has no such file; is tzdata installed?)",
			       ZONE_DIRECTORY);
	}
	int rc = zone_read(buf, len, z, &inner);

	free(buf);
	return rc == 0 ? 0 : err_set(why, "the file of this time zone cannot be used: %s", inner.text);
}
