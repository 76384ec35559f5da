/* Is the audit what was recorded?  Reads everything once, from the first segment to the last, with the auditor's key,
 * and tells what does not fit.  It can be done while the gateway runs, or on a copy of its directory. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "schema/audit_chain.h"

/* The chain's head as somebody wrote it down elsewhere. */
struct audit_anchor {
	int64_t entry;
	uint8_t mac[AUDIT_MAC_BYTES];
};

/* "audit anchor STORE ENTRY MAC", anywhere in a line: as the recorder logs it. */
#define AUDIT_ANCHOR_TEXT_MAX 160
const char *audit_anchor_text(const struct audit_head *head, char buf[AUDIT_ANCHOR_TEXT_MAX]);
/* False if the line holds none, or one of another store. */
bool audit_anchor_parse(const char *line, const uint8_t store[AUDIT_ID_BYTES], struct audit_anchor *anchor);

/* Of a chain: which store its segments name, and its keys of epoch 0. */
struct audit_chain_key {
	uint8_t store[AUDIT_ID_BYTES];
	struct audit_keys keys;
};

struct audit_verify_options {
	uint8_t store[AUDIT_ID_BYTES];
	const struct audit_keys *keys;	    /* of epoch 0 */
	const struct audit_chain_key *others; /* of other chains that the audit may hold */
	size_t nothers;
	const struct audit_anchor *anchors; /* ascending by entry */
	size_t nanchors;
	/* Something that does not fit, in the order in which it was found: a sentence. */
	void (*finding)(const char *text, void *arg);
	/* An order to prune that the audit tells of, with who gave it: a sentence.  May be NULL. */
	void (*pruned)(const char *text, void *arg);
	/* Now and then: rows so far, of so many (about); false: no more is wanted, and it fails.  May be NULL. */
	bool (*progress)(uint64_t rows, uint64_t of, void *arg);
	void *arg;
};

struct audit_verified {
	uint64_t segments, rows, entries, epochs, anchors, findings;
	uint64_t pruned;	  /* rows that are gone as the audit itself declares */
	uint64_t pruned_segments; /* up to this one, as a whole */
	uint64_t orders;	  /* to prune, that the audit still tells of */
	uint64_t pruned_anchors;  /* of them: nothing is left that they could fit */
	int64_t first_us, last_us; /* time of the first and last entry */
	struct audit_head head;	   /* where the chain ends */
};

/* The audit in the current directory.  0 with what was looked at in *out (findings says whether all is well), -1 with
 * *why if it could not be looked at. */
int audit_verify(const struct audit_verify_options *options, struct audit_verified *out, struct err *why);
