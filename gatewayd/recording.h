/* Any process' end of the audit: events leave in order, are kept until the recorder says that they are durable, and are sent
 * again to a new recorder, which drops what it has. */
#pragma once

#include <stdbool.h>

#include "common/ipc.h"
#include "schema/audit_event.h"

struct event_base;
struct record;
struct recording;

/* Whoever waits for an event to become durable embeds this. */
struct waiter {
	void (*durable)(struct waiter *waiter);
};

struct recording_callbacks {
	/* Something became durable: there may be room again.  May be NULL. */
	void (*progress)(void *arg);
	/* The recorder's link ended.  May be NULL. */
	void (*gone)(void *arg);
	/* Another message of the recorder's than its acknowledgements.  May be NULL. */
	void (*message)(struct ipc_message *m, void *arg);
	void *arg;
};

/* self: the role that records (worker or control). */
struct recording *recording_new(struct event_base *base, enum role self, const struct recording_callbacks *callbacks);
void recording_free(struct recording **r);
/* A recorder's link (again after its restart): takes over fd; what is not durable is sent again. */
void recording_link(struct recording *r, int fd);

/* The link, for questions to the recorder; NULL while there is none.  Borrowed. */
struct ipc *recording_peer(const struct recording *r);

/* Room for more?  No: new sessions wait. */
bool recording_has_room(const struct recording *r);
/* Is no more than half of it taken?  No: what makes rows in bulk waits, so that there is room for everybody else. */
bool recording_has_plenty(const struct recording *r);
/* May anything new be granted?  No: there is no room, or the recorder keeps what is left of its disk for ends and refusals. */
bool recording_grants(const struct recording *r);
/* From now on a waiter is told when its event has been handed over, not when it is durable: the operator's explicit choice. */
void recording_relax(struct recording *r);
/* Appends an event; whoever would begin something new asks recording_has_room() first: what ends or refuses what has begun
 * always finds room, and is bounded by it.  waiter (may be NULL) is told when it is durable, unless record_forget() came
 * first; the handle is for that only, and invalid once the waiter has been told.  NULL: memory is short. */
struct record *record_event(struct recording *r, const struct audit_event *e, struct waiter *waiter);
void record_forget(struct record **record);
/* Calls done(arg) once nothing waits any more; maybe at once. */
void recording_drain(struct recording *r, void (*done)(void *arg), void *arg);
unsigned recording_waiting(const struct recording *r);
