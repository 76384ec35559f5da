/* What an event's detail tells besides its columns, without reading all of it: it is JSON that we wrote, in which a quote inside
 * a text is always behind a backslash, so that a key with its quotes is found as it stands. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* The country of the destination, two letters; "" where the event tells none.  Of several candidates the first. */
bool audit_detail_country(const char *detail, size_t len, char country[3]);
/* True if some address of it lies in that country. */
bool audit_detail_in_country(const char *detail, size_t len, const char *country);
