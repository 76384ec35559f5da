/* Times as people write them on a command line. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

/* "90s", "15m", "2h", "30d", "4w": that long before now_us.  "YYYY-MM-DD", "YYYY-MM-DD HH:MM[:SS]" (or with T): local
 * time, or UTC with a trailing Z, or another zone with +HH:MM.  A date alone is its first moment; with `end`, the first moment of the day after it,
 * so that
 * --until a date includes that day.  0 with microseconds since the epoch in *out, or -1 with *why. */
int time_parse(const char *text, int64_t now_us, bool end, int64_t *out, struct err *why);
/* From now on local time is that of the zone, like "Europe/Berlin" or "UTC"; false with *why if there is none. */
bool time_set_zone(const char *name, struct err *why);
