/* What rules did, by their names: requests that each decided or watched, when it did so last, and the bytes of what it let through.
 * Summed up where the rows are read, so that a month of them costs a line a rule. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "schema/audit_event.h"

struct audit_hits;

/* Rules that are told apart, those of former policies among them. */
#define AUDIT_HITS_RULES_MAX 200000

struct audit_hit {
	const char *rule;
	uint64_t hits;	 /* a row of a flood counts all that it stands for */
	int64_t last_us; /* 0: there is none */
	uint64_t bytes;	 /* of sessions that have ended, both ways */
};

/* NULL: memory is short. */
struct audit_hits *audit_hits_new(void);
void audit_hits_free(struct audit_hits **hits);
/* The kinds of event that tell of hits: what a filter has to ask for. */
#define AUDIT_HITS_KINDS (1u << AUDIT_OPEN | 1u << AUDIT_DENIED | 1u << AUDIT_FLOW | 1u << AUDIT_ENDED)
/* A request counts once for each rule that decided it or one of its addresses, or watched it. */
void audit_hits_add(struct audit_hits *h, const struct audit_event *e);
/* There were more rules, or memory was short: what is told is not all. */
bool audit_hits_over(const struct audit_hits *h);
/* The i-th, in no order; false: there is none.  Valid until another event is added. */
bool audit_hits_get(const struct audit_hits *h, size_t i, struct audit_hit *out);
