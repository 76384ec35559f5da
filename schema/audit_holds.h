/* Legal holds: rows that a hold's filter matches stay, whatever their age.  They are kept in "holds.json" in the
 * current directory, which only the recorder writes; each change is recorded, with a digest of all that stand then, so
 * that whoever verifies sees if rows were pruned under others than those. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "schema/audit_query.h"

#define AUDIT_HOLDS_MAX 100
#define AUDIT_HOLD_NAME_MAX 64
#define AUDIT_HOLDS_DIGEST_TEXT_MAX 33

struct audit_holds {
	json_t *list; /* objects with "name", "filter", "by", "since_us" */
	struct audit_filter *filters;
	size_t n;
	bool told; /* the audit knows that these stand */
};

/* 0, or -1 with *why if the file is there and cannot be understood: then nothing may be pruned.  What was in *h before
 * is lost; it is cleared in either case. */
int audit_holds_read(struct audit_holds *h, struct err *why);
void audit_holds_clear(struct audit_holds *h);
/* Changes the file, durably, and marks it as not yet told; *h is what stands now, also after -1 with *why.  Placing the
 * same again is fine. */
int audit_holds_place(struct audit_holds *h, const char *name, const json_t *filter, const char *by, struct err *why);
int audit_holds_release(struct audit_holds *h, const char *name, struct err *why);
/* The change is in the audit. */
int audit_holds_set_told(struct audit_holds *h, struct err *why);
bool audit_holds_stands(const struct audit_holds *h, const char *name);
const char *audit_holds_digest(const struct audit_holds *h, char buf[AUDIT_HOLDS_DIGEST_TEXT_MAX]);
