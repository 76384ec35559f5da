/* Sums over the events of a query, by something that they have in common. */
#pragma once

#include <jansson.h>

#include "common/err.h"
#include "schema/audit_event.h"

struct audit_stats;

#define AUDIT_STATS_BY                                                                                                 \
	"user, group, client, dest, port, country, rule, revision, listener, method, command, reason, event, hour, "   \
	"weekday or day"
/* Groups that are told apart; what is more goes into one that is called "(others)". */
#define AUDIT_STATS_GROUPS_MAX 100000

/* by: one of the above; NULL with *why if it is none. */
struct audit_stats *audit_stats_new(const char *by, struct err *why);
/* Fewer groups than AUDIT_STATS_GROUPS_MAX, and only events of these kinds (bits 1 << enum audit_kind). */
void audit_stats_narrow(struct audit_stats *s, size_t groups_max, uint32_t kinds);
/* How many of its like an event stands for: a row of a flood counts them. */
uint64_t audit_stats_weight(const struct audit_event *e);
void audit_stats_free(struct audit_stats **stats);
void audit_stats_add(struct audit_stats *s, const struct audit_event *e);
/* The groups as objects {"key", "sessions", "denied", "bytes_up", "bytes_down", "duration_us"}, at most limit of them
 * (0: 10,000): hours and days in their order, all else with the most sessions first.  give takes the object over. */
void audit_stats_each(struct audit_stats *s, uint64_t limit, void (*give)(json_t *group, void *arg), void *arg);
size_t audit_stats_groups(const struct audit_stats *s);
