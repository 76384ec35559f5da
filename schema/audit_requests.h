/* Requests that the policy decided, each told once with how often it came: so that a month of them can be decided again, or looked
 * at, without a month of rows. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "schema/audit_event.h"

struct audit_requests;

/* Requests that came on two sides of an edge (ascending seconds) are two: time may be what decides them.  max: how many are held
 * at most.  NULL: memory is short. */
struct audit_requests *audit_requests_new(const int64_t *edges, size_t nedges, size_t max);
void audit_requests_free(struct audit_requests **requests);
/* The kinds of event that are requests: what a filter has to ask for. */
#define AUDIT_REQUEST_KINDS (1u << AUDIT_OPEN | 1u << AUDIT_DENIED | 1u << AUDIT_FLOW)
/* False: it was taken, and there is no room for another before all have been given. */
bool audit_requests_add(struct audit_requests *r, uint64_t id, const struct audit_event *e);
bool audit_requests_full(const struct audit_requests *r);
/* Gives one, as the event that was met first; it is valid until the next call.  NULL: that was all, and they are forgotten. */
const struct audit_event *audit_requests_next(struct audit_requests *r, uint64_t *id, uint64_t *count);
