#include "config.h"

#include <string.h>

#include "common/clock.h"
#include "gatewayd/control/internal.h"

#define APART_US 1000000

static const struct {
	const char *name, *keys[2]; /* the sum of these */
} counted[] = {
	{"accepted", {"accepted", NULL}},	  {"granted", {"granted", NULL}},
	{"denied", {"denied", NULL}},		  {"login_failed", {"login_failed", NULL}},
	{"bytes_up", {"bytes_up", "live_bytes_up"}}, {"bytes_down", {"bytes_down", "live_bytes_down"}},
};

json_t *rates_of(struct rates *r, const json_t *workers, int64_t since_us)
{
	struct sample now = {.at_us = clock_mono_us()}, from;
	json_t *object = json_object();

	for (size_t i = 0; i < sizeof counted / sizeof *counted; i++)
		for (size_t k = 0; k < 2 && counted[i].keys[k] != NULL; k++)
			now.values[i] += json_integer_value(json_object_get(workers, counted[i].keys[k]));
	from = r->last.at_us != 0 && now.at_us - r->last.at_us >= APART_US ? r->last : r->before;
	if (from.at_us == 0)
		from = (struct sample){.at_us = now.at_us - (since_us > APART_US ? since_us : APART_US)};
	json_object_set_new(object, "period_us", json_integer(now.at_us - from.at_us));
	for (size_t i = 0; i < sizeof counted / sizeof *counted; i++) {
		int64_t more = now.values[i] - from.values[i];

		/* A worker that was replaced counts from the start. */
		json_object_set_new(object, counted[i].name,
				    json_real(more <= 0 ? 0 : (double)more * 1e6 / (double)(now.at_us - from.at_us)));
	}
	if (r->last.at_us == 0 || now.at_us - r->last.at_us >= APART_US) {
		r->before = r->last;
		r->last = now;
	}
	return object;
}
