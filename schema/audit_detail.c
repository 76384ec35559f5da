#include "config.h"

#include "schema/audit_detail.h"

#include <string.h>

static const char key[] = "\"country\":\"";

/* The next one from `from` on; NULL: there is none. */
static const char *next(const char *from, const char *end, char country[3])
{
	while (from != NULL && (from = memmem(from, (size_t)(end - from), key, sizeof key - 1)) != NULL) {
		from += sizeof key - 1;
		if (end - from >= 3 && from[0] >= 'A' && from[0] <= 'Z' && from[1] >= 'A' && from[1] <= 'Z' && from[2] == '"') {
			memcpy(country, from, 2);
			country[2] = '\0';
			return from;
		}
	}
	country[0] = '\0';
	return NULL;
}

bool audit_detail_country(const char *detail, size_t len, char country[3])
{
	return next(detail, detail + len, country) != NULL;
}

bool audit_detail_in_country(const char *detail, size_t len, const char *country)
{
	const char *at = detail, *end = detail + len;
	char one[3];

	while ((at = next(at, end, one)) != NULL)
		if (strcmp(one, country) == 0)
			return true;
	return false;
}
