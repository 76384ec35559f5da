/* Wall clocks: what a zone's clock shows at an instant, and whether a window is open then. */
#pragma once

#include "policy/image.h"

enum window_state { WINDOW_SHUT, WINDOW_OPEN, WINDOW_UNKNOWN /* the zone's future is not known that far */ };

/* start <= t < end on the wall clock of the window's zone.  Hours that end at or before their start run past midnight
 * and belong to the day they begin; on an exception day nothing begins.  Hours that the clock skips are empty, hours
 * that it shows twice count twice. */
enum window_state window_state(const struct policy_image *i, uint32_t window, int64_t now);

/* The next instant after now at which the window's state may differ, at most a week ahead. */
int64_t window_next_change(const struct policy_image *i, uint32_t window, int64_t now);

/* Seconds shown by the zone's clock, counted from 1970-01-01 00:00 on that clock.  False beyond the zone's future. */
bool window_clock(const struct policy_image *i, uint32_t zone, int64_t now, int64_t *shown);

/* The first instant at which the zone's clock shows the given second or a later one. */
int64_t window_first_instant(const struct img_transition *changes, size_t n, int32_t before, int64_t shown);
