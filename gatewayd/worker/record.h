/* The worker's end of the audit: events leave in order, are kept until the recorder says they are durable, and are sent again to
 * a new recorder, which drops what it has. */
#pragma once

#include <stdbool.h>

#include "schema/audit_event.h"

struct worker;
struct session;
struct record;
struct recording;

struct recording *recording_new(struct worker *w);
void recording_free(struct recording **r);
/* A recorder's link (again after its restart): takes over fd; what is not durable is sent again. */
void recording_link(struct recording *r, int fd);

/* Room for a new session's records?  No: accept must wait, or the session be refused. */
bool recording_has_room(const struct recording *r);
/* Appends an event.  waiter (may be NULL) is told by grant_recorded() when it is durable, unless record_forget() came first;
 * the handle is for that only.  NULL: memory is short or the bound is reached (only for kinds that may be refused). */
struct record *record_event(struct recording *r, const struct audit_event *e, struct session *waiter);
void record_forget(struct record **record);
/* Calls done once nothing waits any more. */
void recording_drain(struct recording *r, void (*done)(struct worker *w));
unsigned recording_waiting(const struct recording *r);
