/* Floods: denials and failed log-ins of one client that are the same but for their time and port are rows of their own
 * up to so many a second; the rest of that second becomes one row, which counts them exactly. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct audit_event;
struct event_base;
struct fold;

/* record: makes a row of a counted event.  after: rows of their own in a second; 0: nothing is ever folded. */
struct fold *fold_new(struct event_base *base, unsigned after, void (*record)(const struct audit_event *e, void *arg),
		      void *arg);
void fold_free(struct fold **fold);
/* True if the event has been counted, and needs no row of its own. */
bool fold_take(struct fold *f, const struct audit_event *e);
/* Makes rows of all that has been counted so far. */
void fold_flush(struct fold *f);
