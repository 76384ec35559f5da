/* Retention as administrators order it: pruning, and the holds that keep rows from it.  What there is to look through
 * and to write anew is a child's work, at the lowest priority; the recorder itself only makes declarations durable, one
 * at a time, and records what was ordered and what came of it. */
#pragma once

#include "common/ipc.h"
#include "schema/audit_store.h"

struct event_base;
struct retention;

/* The store stays the caller's and must outlive it. */
struct retention *retention_new(struct event_base *base, struct audit_store *store);
void retention_free(struct retention **r);
/* A RETENTION message of control: u64 id, a JSON object.  Answered with RETAINED (the same id, a JSON object), perhaps
 * much later, unless that link has gone. */
void retention_ask(struct retention *r, struct ipc *link, const struct ipc_message *m);
void retention_link_gone(struct retention *r, const struct ipc *link);
