/* What an auditor keeps apart from the audit, to verify it with: first keys, one for each chain, and anchors that were written down
 * elsewhere. */
#pragma once

#include "schema/audit_verify.h"

#define AUDIT_CHAINS_MAX 16

struct audit_proofs {
	struct audit_chain_key chains[AUDIT_CHAINS_MAX]; /* of each key that was given */
	size_t nchains;
	struct audit_anchor *anchors; /* malloc'd */
	size_t nanchors;
};

/* -1, or an exit code when it has said why. */
int audit_proofs_add_key(struct audit_proofs *p, const char *path);
/* Of a file that may hold anything besides; after the keys, which say what is an anchor of theirs. */
int audit_proofs_add_anchors(struct audit_proofs *p, const char *path);
/* Sets keys and anchors; there is a key. */
void audit_proofs_apply(struct audit_proofs *p, struct audit_verify_options *options);
/* Wipes the keys. */
void audit_proofs_clear(struct audit_proofs *p);
