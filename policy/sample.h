/* A request that a rule is meant for, made of the rule's own values: where it leads, findings and differences are
 * looked for.  What it cannot satisfy (a regular expression, a negated condition that happens to hold a value), it
 * ignores: whoever uses a sample decides it. */
#pragma once

#include "policy/image.h"

#define SAMPLE_GROUPS 8

struct sample {
	struct policy_request request;
	struct name name;
	char user[256];
	const char *groups[SAMPLE_GROUPS];
	struct addr address; /* of the name, or the literal */
	bool has_address;    /* a condition asked for it */
};

/* How many values a condition can be made to take; some of them may turn out to be none. */
uint32_t sample_values(const struct img_pred *p);

/* The sample of a rule; where one of its conditions is number cond (counted within the rule), it takes that condition's
 * value number value.  False if there is no such value. */
bool sample_make(const struct policy_image *i, uint32_t rule, uint32_t cond, uint32_t value, struct sample *s);
