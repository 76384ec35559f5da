/* Time zones at compile time: the system's TZif files (RFC 8536) as a plain list of offset changes.
 *
 * The files are read here rather than through tzset(3) and localtime(3): those work on global state, change it for the
 * whole process, and cannot say up to when they know. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

struct zone_change {
	int64_t at;	/* seconds since the epoch */
	int32_t offset; /* seconds east of UTC from then on */
};

struct zone {
	int32_t before; /* offset before the first change */
	int64_t until;	/* nothing is known from here on */
	struct zone_change *changes;
	size_t count;
};

/* Reads the zone called name ("Europe/Berlin").  "UTC" needs no file. */
int zone_load(const char *name, struct zone *z, struct err *why);
/* The same from the content of a TZif file. */
int zone_read(const uint8_t *data, size_t len, struct zone *z, struct err *why);
void zone_clear(struct zone *z);
