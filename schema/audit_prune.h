/* Retention: rows that are old enough leave the audit, and the chain says so.
 *
 * What is to go is first declared in the chain (an entry AUDIT_ENTRY_PRUNED, durable), and removed then: whoever
 * verifies takes rows that are declared and gone as pruned, and those that are gone without a declaration as removed.
 * It can be cut short at any moment and done again.
 *
 * Only segments that are written no more are touched.  One that keeps some rows, or that follows one that does, is
 * written anew with its whole chain (so that the digest of each row stays) and takes the place of the old file; those
 * of the audit's beginning that keep none are removed, and the entry says where the chain stood at their end.
 *
 * All files are in the current directory. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "schema/audit_chain.h"
#include "schema/audit_query.h"

/* ---- declarations: the body of an entry
 * ------------------------------------------------------------------------------ u8 2, u32 segment, u64 before, u64
 * first row, a bit for each row from there on that is pruned (the lowest first): all of them were recorded, and tell of
 * something, before that time (microseconds), if they are not of before the chain. u8 3, u32 segment, u64 before, u64
 * its last entry, u64 its last row, u64 the epoch of its last entry, the authenticator of its last entry: it and all
 * before it are removed, and the segment behind it begins before that time. u8 4, u32 segment, u64 entry: that entry
 * declared what was not done, and counts no more; entry 0: whatever was declared up to here and was not withdrawn is
 * done. */
#define AUDIT_PRUNE_ROWS_MAX 65536 /* of one declaration */
#define AUDIT_PRUNE_BODY_MAX (21 + AUDIT_PRUNE_ROWS_MAX / 8)
/* Nothing younger may be pruned. */
#define AUDIT_PRUNE_KEEP_MIN_US (24 * 3600 * INT64_C(1000000))

struct audit_pruned {
	bool whole, withdrawn;
	uint32_t segment;
	int64_t before_us;
	/* withdrawn */
	int64_t declaration;
	/* rows */
	int64_t first;
	const uint8_t *bits; /* borrowed */
	size_t nbytes;
	/* whole */
	int64_t entry, row;
	uint64_t epoch;
	uint8_t mac[AUDIT_MAC_BYTES];
};

/* How many bytes of out. */
size_t audit_prune_put(const struct audit_pruned *p, uint8_t out[AUDIT_PRUNE_BODY_MAX]);
/* False if it is malformed. */
bool audit_prune_get(const uint8_t *body, size_t len, struct audit_pruned *p);

/* ---- doing it
 * -------------------------------------------------------------------------------------------------------- */

struct audit_prune_order {
	int64_t before_us; /* rows of before then */
	uint32_t kinds;	   /* bits 1 << enum audit_kind */
	bool dry_run;	   /* count only */
	uint32_t below;	   /* segments with lower numbers only: the others are written */
	const struct audit_filter *holds;
	size_t nholds; /* what one of them matches stays */
	/* The declaration is to be made durable: 0, or -1 with *why, which ends it. */
	int (*declare)(const uint8_t *body, size_t len, void *arg, struct err *why);
	/* Now and then.  May be NULL. */
	void (*progress)(void *arg);
	void *arg;
};

struct audit_prune_counts {
	uint64_t rows;	   /* pruned */
	uint64_t held;	   /* kept by holds only */
	uint64_t segments; /* removed */
	uint64_t rewritten;
	uint64_t skipped; /* segments that could not be looked at now */
	uint64_t bytes;	  /* freed */
};

/* 0 or -1 with *why; *counts tells in either case what has been done. */
int audit_prune(const struct audit_prune_order *order, struct audit_prune_counts *counts, struct err *why);
/* What an earlier one declared and did not do is withdrawn, by order->declare: of the last `segments` segments. */
int audit_prune_settle(const struct audit_prune_order *order, uint32_t segments, struct err *why);
/* What an earlier one left half written. */
void audit_prune_clean(void);
