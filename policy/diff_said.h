/* What two policies say differently, for policy_diff(). */
#pragma once

#include <jansson.h>
#include <stddef.h>

#include "policy/policy.h"

/* Of two trees without errors: an array of {statement, before, after}, texts or null, of at most a thousand; *count is how many there
 * are.  Empty only if the two differ in layout, remarks, and the order of what has none alone.  The caller releases it. */
json_t *diff_said(const struct policy_tree *before, const struct policy_tree *after, size_t *count);
