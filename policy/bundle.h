/* A policy together with the files that it names, as one block of bytes.  gatewayctl makes it with its caller's rights; control
 * stores it, and the compiler reads it without opening anything.
 *
 * A file is known by the name that the policy reaches it by, written from where the policy itself lies: what "lists/a" names in
 * "teams/hr.policy" is "teams/lists/a".  The first file is the policy. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "policy/policy.h"

#define BUNDLE_FILES_MAX 1001
#define BUNDLE_NAME_MAX 4095
#define BUNDLE_POLICY_MAX ((size_t)64 << 20)  /* bytes of the policy's own text */
#define BUNDLE_FILES_BYTES_MAX ((size_t)256 << 20) /* of the other files together */
#define BUNDLE_BYTES_MAX (BUNDLE_POLICY_MAX + BUNDLE_FILES_BYTES_MAX + ((size_t)8 << 20))

struct bundle_file {
	const char *name; /* borrowed, as all here */
	const char *text;
	size_t len;
};

struct bundle {
	struct bundle_file *files; /* malloc'd */
	size_t count;
};

/* Reads a hostile block; what it gives points into data.  0, or -1 with *why. */
int bundle_read(const uint8_t *data, size_t len, struct bundle *out, struct err *why);
void bundle_clear(struct bundle *b);
/* A sealed descriptor (common/sealed.h) that holds b, or -1 with *why: it has too many files or bytes, or a bad name. */
int bundle_seal(const struct bundle *b, struct err *why);

/* The file of that name, or NULL. */
const struct bundle_file *bundle_find(const struct bundle *b, const char *name);
/* The name of what `path` names in the file `from`; malloc'd, NULL when memory is short. */
char *bundle_name(const char *from, const char *path);
/* policy_parse_with(), the files being those of the bundle. */
struct policy_tree *bundle_parse(const struct bundle *b, struct policy_diagnostics *d);
