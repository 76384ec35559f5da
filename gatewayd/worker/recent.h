/* What happened lately in this worker, for those who watch: the last refusals, and how often each rule of the revision in force has
 * decided.  The audit has all of it; this is what can be looked at every second at no price. */
#pragma once

#include <stdint.h>

#include "policy/policy.h"
#include "schema/audit_event.h"

struct recent;
struct worker;

struct recent *recent_new(void);
/* A refusal, as it is recorded. */
void recent_refused(struct worker *w, const struct audit_event *e);
/* A decision by the revision in force. */
void recent_decided(struct worker *w, const struct policy_decision *d);
/* Sends both to control as rows (gatewayd/steering.h): refusals, the newest first, as they are; rules as events of kind POLICY with
 * what was allowed and what was denied in the places of bytes. */
void recent_send(struct worker *w, uint64_t job);
