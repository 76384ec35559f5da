/* Sessions that live are decided again whenever an answer may have changed: by another image, at the moment at which a window, a
 * `from` or an `until` begins or ends to count, with other tables of countries or autonomous systems.  One that is refused then
 * ends, after the policy's time of grace, and the record of its end says by which rule and revision.
 *
 * All are visited in slices, between which the loop serves everybody; whoever gets its turn before (a grant that is about to be
 * told, a datagram) is decided on the spot.  While the recorder does not keep up with their ends, the next slice waits, for as long as
 * a grant would at most (audit-timeout). */
#pragma once

#include <event2/event_struct.h>
#include <stdbool.h>
#include <stdint.h>

struct worker;
struct session;
struct policy_decision;
struct ipc_message;

struct live {
	struct event timer, slice;
	uint32_t epoch;      /* of answers; moves on with every change */
	struct session *at;  /* next to be visited; NULL: all have been */
	int64_t began_us;    /* monotonic: this epoch */
	int64_t from_s, until_s; /* wall clock: time alone changes no answer meanwhile */
	bool timed;          /* time may change answers at all */
	int64_t ends_us;     /* monotonic: the first end of a time of grace; INT64_MAX */
	uint64_t ended;      /* sessions and flows, since the start */
	uint32_t longest_us; /* slice */
};

void live_init(struct worker *w);
/* Answers may have changed. */
void live_changed(struct worker *w);
/* Whether a moment has passed at which time alone changes answers: what asks between two turns of the loop must not be ahead. */
void live_look(struct worker *w);
/* Is the session, from its grant on, still allowed by the policy of now, and not blocked?  False: it has been ended, and may be gone. */
bool live_still_allowed(struct session *s);
/* Whoever is refused now may go on for a moment: true, and *ends_us (0: not said yet) is when not any more. */
bool live_grace(struct worker *w, int64_t *ends_us);
/* How many of its parts (one; of an association, its flows) another policy, in ctx, would be asked for; refused is called for each
 * that it would end.  Nothing changes. */
struct policy_context;
struct udp_flow;
typedef void live_refused(struct session *s, const struct udp_flow *f, const struct policy_decision *d, void *arg);
unsigned live_try(const struct policy_context *ctx, struct session *s, live_refused *refused, void *arg);
/* The session is gone. */
void live_forget(struct session *s);
