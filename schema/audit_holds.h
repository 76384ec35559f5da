/* Legal holds: rows that a hold's filter matches stay, whatever their age.  They are kept in "holds.json" in the
 * current directory, which only the recorder writes; each change is recorded, with a digest of all that stand then, so
 * that whoever verifies sees if rows were pruned under others than those.  The head of the chain has that digest, too:
 * the recorder knows by it what it wrote itself. */
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
#define AUDIT_HOLDS_DIGEST_BYTES 16

struct audit_holds {
	json_t *list; /* objects with "name", "filter", "by", "since_us" */
	struct audit_filter *filters;
	size_t n;
};

/* 0, or -1 with *why if the file is there and cannot be understood: then nothing may be pruned.  What was in *h before
 * is lost; it is cleared in either case. */
int audit_holds_read(struct audit_holds *h, struct err *why);
void audit_holds_clear(struct audit_holds *h);
/* A change has two steps: the new list is complete in a file beside the old one, and *h is what it says (0; 1: it
 * stands already; -1 with *why, and *h is as it was); then it takes the old one's place, or is forgotten, and is to be
 * read again. */
int audit_holds_place(struct audit_holds *h, const char *name, const json_t *filter, const char *by, struct err *why);
int audit_holds_release(struct audit_holds *h, const char *name, struct err *why);
int audit_holds_commit(struct err *why);
void audit_holds_forget(void);
/* What a change left beside the file that was cut short; false if it left nothing. */
bool audit_holds_prepared(uint8_t digest[AUDIT_HOLDS_DIGEST_BYTES]);
/* Of what the file says, or of none; false if it cannot be understood. */
bool audit_holds_sum_file(uint8_t digest[AUDIT_HOLDS_DIGEST_BYTES]);
void audit_holds_sum(const struct audit_holds *h, uint8_t digest[AUDIT_HOLDS_DIGEST_BYTES]);
/* False: there is no file. */
bool audit_holds_has_file(void);
bool audit_holds_stands(const struct audit_holds *h, const char *name);
const char *audit_holds_digest(const struct audit_holds *h, char buf[AUDIT_HOLDS_DIGEST_TEXT_MAX]);
