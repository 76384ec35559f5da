#include "config.h"

#include "admin/times.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int bad(const char *text, struct err *why)
{
	return err_set(why, "\"%.64s\" is no time: write 15m, 2h or 30d (ago), or YYYY-MM-DD[ HH:MM[:SS]][Z|+HH:MM]", text);
}

/* Reads digits; returns how many there were, at most max. */
static int digits(const char **at, int max, int *value)
{
	int n = 0;

	for (*value = 0; n < max && isdigit((unsigned char)**at); n++, ++*at)
		*value = *value * 10 + (**at - '0');
	return n;
}

static bool relative(const char *text, int64_t now_us, int64_t *out)
{
	static const struct {
		char unit;
		int seconds;
	} units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}, {'w', 7 * 86400}};
	int count;

	if (digits(&text, 6, &count) == 0 || text[0] == '\0' || text[1] != '\0')
		return false;
	for (size_t i = 0; i < sizeof units / sizeof *units; i++)
		if (units[i].unit == *text) {
			*out = now_us - (int64_t)count * units[i].seconds * 1000000;
			if (*out < 1)
				*out = 1; /* before 1970: from the beginning */
			return true;
		}
	return false;
}

static bool leap(int year)
{
	return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static bool valid(const struct tm *tm)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	int year = tm->tm_year + 1900;

	return year >= 1970 && year <= 9998 && tm->tm_mon >= 0 && tm->tm_mon < 12 && tm->tm_mday >= 1 &&
	       tm->tm_mday <= days[tm->tm_mon] + (tm->tm_mon == 1 && leap(year)) && tm->tm_hour < 24 &&
	       tm->tm_min < 60 && tm->tm_sec < 60;
}

static bool clock_part(const char **at, struct tm *tm)
{
	if (**at != ' ' && **at != 'T')
		return false;
	++*at;
	if (digits(at, 2, &tm->tm_hour) != 2 || *(*at)++ != ':' || digits(at, 2, &tm->tm_min) != 2)
		return false;
	if (**at != ':')
		return true;
	++*at;
	return digits(at, 2, &tm->tm_sec) == 2;
}

/* "Z", "+02:00" or "-0530": seconds to the east of Greenwich.  False: it is none. */
static bool offset(const char **at, int *seconds)
{
	int sign = **at == '-' ? -1 : 1, hours, minutes;

	*seconds = 0;
	if (**at == 'Z') {
		++*at;
		return true;
	}
	if (*(*at)++ == '\0' || digits(at, 2, &hours) != 2)
		return false;
	*at += **at == ':';
	if (digits(at, 2, &minutes) != 2 || hours > 14 || minutes > 59)
		return false;
	*seconds = sign * (hours * 3600 + minutes * 60);
	return true;
}

bool time_set_zone(const char *name, struct err *why)
{
	char path[300];

	if (*name == '\0' || *name == '/' || strstr(name, "..") != NULL ||
	    strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+-/") != strlen(name) || strlen(name) > 200) {
		err_set(why, "\"%.64s\" is no name of a zone, like Europe/Berlin", name);
		return false;
	}
	snprintf(path, sizeof path, "/usr/share/zoneinfo/%s", name);
	if (strcmp(name, "UTC") != 0 && access(path, R_OK) != 0) {
		err_set(why, "this machine knows no zone %s", name);
		return false;
	}
	setenv("TZ", name, 1);
	tzset();
	return true;
}

int time_parse(const char *text, int64_t now_us, bool end, int64_t *out, struct err *why)
{
	struct tm tm = {.tm_isdst = -1};
	const char *at = text;
	bool fixed, date_only;
	int east = 0;

	if (relative(text, now_us, out))
		return 0;
	if (digits(&at, 4, &tm.tm_year) != 4 || *at++ != '-' || digits(&at, 2, &tm.tm_mon) != 2 || *at++ != '-' ||
	    digits(&at, 2, &tm.tm_mday) != 2)
		return bad(text, why);
	date_only = *at != ' ' && *at != 'T';
	if (!date_only && !clock_part(&at, &tm))
		return bad(text, why);
	fixed = *at == 'Z' || *at == '+' || *at == '-';
	if (fixed && !offset(&at, &east))
		return bad(text, why);
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	if (*at != '\0' || !valid(&tm))
		return bad(text, why);
	if (date_only && end)
		tm.tm_mday++; /* mktime(3) carries it over */
	time_t seconds = fixed ? timegm(&tm) - east : mktime(&tm);

	if (seconds < 0)
		return bad(text, why);
	*out = seconds == 0 ? 1 : (int64_t)seconds * 1000000;
	return 0;
}
