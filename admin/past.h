/* A decision of the past: a row of the audit as the request that it was, to be decided again. */
#pragma once

#include <jansson.h>

#include "policy/policy.h"
#include "schema/audit_event.h"

#define PAST_ADDRESSES_MAX 64
#define PAST_ALIASES_MAX 16
#define PAST_GROUPS_MAX 1024

struct past {
	const json_t *row, *detail; /* borrowed */
	struct policy_request request;
	int64_t seconds;    /* since the epoch, when it was */
	bool groups_cut;    /* the row could not hold all groups */
	bool folded;	    /* it stands for a flood, and keeps no groups */
	bool no_destination; /* the grant of an association: its flows have destinations */
	/* The addresses that the name had, and the rules that were recorded for those that were candidates. */
	struct addr addresses[PAST_ADDRESSES_MAX];
	const char *rules[PAST_ADDRESSES_MAX];
	struct name aliases[PAST_ALIASES_MAX];
	size_t naddresses, naliases;
	/* What request points to. */
	struct name name;
	char user[AUDIT_TEXT_MAX + 1], claimed[AUDIT_TEXT_MAX + 1], listener[64];
	const char *groups[PAST_GROUPS_MAX];
	char texts[AUDIT_DETAIL_MAX + 1];
};

/* When a row was recorded, in seconds since the epoch. */
int64_t past_time(const json_t *row);
/* Reads a row into p, which need not be cleared before.  NULL, or why this row is no decision that can be made again. */
const char *past_read(const json_t *row, struct past *p);
