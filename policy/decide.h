/* The decision's inside, for those that tell about it: explain.c listens to the walk, expect.c asks what it depended
 * on. */
#pragma once

#include "policy/image.h"

/* Value of a predicate or a rule.  A rule is PERHAPS_CANNOT if it perhaps matches and could not allow if it did. */
enum value { VALUE_FALSE, VALUE_TRUE, VALUE_ABSENT, VALUE_CANNOT, VALUE_PERHAPS, VALUE_PERHAPS_CANNOT };

struct decide_watch {
	/* Told of every condition looked at, and then of its rule.  cond_value is what the condition comes to, negation
	 * and absence considered.  All may be NULL. */
	void (*on_phase)(struct decide_watch *w, const struct addr *address); /* NULL: by name */
	void (*on_cond)(struct decide_watch *w, uint32_t rule, const struct img_cond *cond, enum value value);
	void (*on_rule)(struct decide_watch *w, uint32_t rule, enum value value);
	void (*on_decision)(struct decide_watch *w, const struct policy_decision *d);
	/* Where the name has no address at hand, decide it for one public address in no set and no country. */
	bool nowhere;
	/* Set if the verdict was reached through a window, `from` or `until`. */
	bool used_time;
};

/* The whole course of a request: by name, then by each address.  The decision is POLICY_RESOLVE only if a name has to
 * be resolved, no addresses are given and w->nowhere is not set. */
void decide_request(const struct policy_context *ctx, const struct policy_request *req, const struct addr *addresses,
		    size_t n, const struct name *aliases, size_t naliases, struct decide_watch *w,
		    struct policy_decision *d);

/* What the zone's clock shows: "Fri 2026-11-20 10:00 Europe/Berlin". */
void explain_clock(const struct policy_image *i, uint32_t zone, int64_t when, char *buf, size_t size);
