/* How many sessions a listener, a client address and a user may have, and begin in a second: counted in one place for all workers,
 * for each listener and, of clients and users, once more over all listeners;
 * from the connection on (a client that says nothing counts, too), and for a user from the log-in on.
 * A client over IPv6 is its /64, which is one customer's. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/addr.h"

/* Of one listener, or of all of them together; 0: no limit. */
struct limit_set {
	unsigned sessions, per_client, per_user; /* at a time */
	unsigned rate, rate_per_client, rate_per_user; /* new ones a second; as many at once */
};

/* Is anything counted from the connection on; for a user who has logged in? */
bool limit_set_connections(const struct limit_set *set);
bool limit_set_users(const struct limit_set *set);

struct limits;
/* What one worker has been granted; all of it returns when the worker dies. */
struct limits_holder;

/* sets: one a listener; all: of clients and users over all listeners (its own sessions and rate mean nothing).  Both are copied.
 * NULL: memory is short. */
struct limits *limits_new(const struct limit_set *sets, size_t n, const struct limit_set *all);
/* After its last holder. */
void limits_free(struct limits **l);
struct limits_holder *limits_holder_new(struct limits *l);
void limits_holder_free(struct limits_holder **h);

/* Counts session `id` (the worker's own): NULL, or a constant text why it may not begin.  user: "" while nobody has logged in;
 * a session that was counted without one is asked about once more, for the user alone, and stays counted if the answer is no.
 * force: it has begun already, before we were here.  now_us: monotonic. */
const char *limits_admit(struct limits_holder *h, uint64_t id, size_t listener, const struct addr *client, const char *user,
			 bool force, int64_t now_us);
/* Of what limits_admit() answered: is it the listener that has as many sessions as it may?  One that ends makes room for any. */
bool limits_is_full(const char *why);
void limits_release(struct limits_holder *h, uint64_t id, int64_t now_us);
/* Counters held in memory, for status and tests. */
size_t limits_counters(const struct limits *l);
