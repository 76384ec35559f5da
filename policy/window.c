#include "config.h"

#include "policy/window.h"

#include "policy/value.h"

#define DAY 86400

static const struct img_transition *transitions(const struct policy_image *i, const struct img_zone *z)
{
	return IMAGE_AT(i, SEC_TRANSITION, struct img_transition, z->transitions.first);
}

bool window_clock(const struct policy_image *i, uint32_t zone, int64_t now, int64_t *shown)
{
	const struct img_zone *z = IMAGE_AT(i, SEC_ZONE, struct img_zone, zone);
	const struct img_transition *t = transitions(i, z);
	uint32_t lo = 0, hi = z->transitions.count;

	/* Before 1970 there is no request, and a hostile clock may not overflow the sums below. */
	if (now < 0 || now >= z->until)
		return false;
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (t[mid].at <= now)
			lo = mid + 1;
		else
			hi = mid;
	}
	*shown = now + (lo == 0 ? z->before : t[lo - 1].offset);
	return true;
}

static bool begins_on(const struct policy_image *i, const struct img_window *w, const struct img_hours *h, int64_t day)
{
	const int32_t *except = IMAGE_AT(i, SEC_DAY, int32_t, w->except.first);
	unsigned weekday = (unsigned)((day + 3 + 7) % 7); /* 1970-01-01 was a Thursday; 0 is Monday */

	if ((h->days >> weekday & 1) == 0)
		return false;
	for (uint32_t n = 0; n < w->except.count; n++)
		if (except[n] == day)
			return false;
	return true;
}

static bool hours_open(const struct policy_image *i, const struct img_window *w, const struct img_hours *h, int64_t day,
		       int64_t second)
{
	int64_t start = h->start * 60, end = h->end * 60;

	if (start < end)
		return start <= second && second < end && begins_on(i, w, h, day);
	if (second >= start && begins_on(i, w, h, day))
		return true;
	return second < end && begins_on(i, w, h, day - 1);
}

enum window_state window_state(const struct policy_image *i, uint32_t window, int64_t now)
{
	const struct img_window *w = IMAGE_AT(i, SEC_WINDOW, struct img_window, window);
	int64_t shown;

	if (!window_clock(i, w->zone, now, &shown))
		return WINDOW_UNKNOWN;
	int64_t day = shown >= 0 ? shown / DAY : -1, second = shown - day * DAY;

	for (uint32_t n = 0; n < w->hours.count; n++)
		if (hours_open(i, w, IMAGE_AT(i, SEC_HOURS, struct img_hours, w->hours.first + n), day, second))
			return WINDOW_OPEN;
	return WINDOW_SHUT;
}

int64_t window_next_change(const struct policy_image *i, uint32_t window, int64_t now)
{
	enum window_state state = window_state(i, window, now);
	int64_t minute = now - now % 60 + 60;

	/* Bounds of hours and changes of zones in use lie on whole minutes. */
	for (int n = 0; n < 7 * 24 * 60; n++, minute += 60)
		if (window_state(i, window, minute) != state)
			return minute;
	return minute;
}

/* When the clock of a zone jumps next, or is no longer known. */
static int64_t next_jump(const struct policy_image *i, const struct img_zone *z, int64_t now)
{
	const struct img_transition *t = transitions(i, z);
	uint32_t lo = 0, hi = z->transitions.count;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (t[mid].at <= now)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < z->transitions.count && t[lo].at < z->until ? t[lo].at : z->until;
}

/* Up to the next jump its clock advances with time, so a state changes only where some hours begin or end, be it on another day. */
static int64_t next_bound(const struct policy_image *i, const struct img_window *w, int64_t now)
{
	const struct img_zone *z = IMAGE_AT(i, SEC_ZONE, struct img_zone, w->zone);
	int64_t shown, next;

	if (now < 0)
		return 0;
	if (!window_clock(i, w->zone, now, &shown))
		return INT64_MAX;
	next = next_jump(i, z, now);
	for (uint32_t n = 0; n < w->hours.count; n++) {
		const struct img_hours *h = IMAGE_AT(i, SEC_HOURS, struct img_hours, w->hours.first + n);
		const int64_t bounds[] = {h->start * 60, h->end * 60};

		for (size_t b = 0; b < 2; b++) {
			int64_t wait = ((bounds[b] - shown) % DAY + DAY) % DAY;

			wait = wait == 0 ? DAY : wait;
			next = now + wait < next ? now + wait : next;
		}
	}
	return next;
}

int64_t policy_next_change(const struct policy_image *i, int64_t now)
{
	const int64_t *instants = image_section(i, SEC_INSTANT);
	int64_t next = INT64_MAX;

	for (uint32_t n = 0; n < image_count(i, SEC_INSTANT); n++)
		if (instants[n] > now && instants[n] < next)
			next = instants[n];
	for (uint32_t n = 0; n < image_count(i, SEC_WINDOW); n++) {
		int64_t bound = next_bound(i, IMAGE_AT(i, SEC_WINDOW, struct img_window, n), now);

		next = bound < next ? bound : next;
	}
	return next;
}

int64_t window_first_instant(const struct img_transition *changes, size_t n, int32_t before, int64_t shown)
{
	int32_t offset = before;
	int64_t since = INT64_MIN;

	for (size_t i = 0;; i++) {
		int64_t at = shown - offset;

		if (at < since)
			at = since;
		if (i == n || at < changes[i].at)
			return at;
		since = changes[i].at;
		offset = changes[i].offset;
	}
}

int policy_instant_parse(const struct policy_image *image, const char *text, int64_t *instant, struct err *why)
{
	const struct img_zone *z = IMAGE_AT(image, SEC_ZONE, struct img_zone, 0);
	struct value_moment m;

	if (value_moment(text, true, &m, why) != 0)
		return -1;
	*instant = window_first_instant(transitions(image, z), z->transitions.count, z->before,
					(int64_t)m.day * DAY + (m.second < 0 ? 0 : m.second));
	return 0;
}
