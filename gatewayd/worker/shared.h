/* Texts that many sessions have in common: a user, the rule that allowed it, the destination's name.  Each is held once, for as long
 * as somebody needs it: an idle session pays for none of its own. */
#pragma once

#include <stddef.h>

/* The one that says the same; NULL: memory is short. */
const char *shared_get(const char *text);
/* It is needed no longer; NULL is nobody's. */
void shared_put(const char **text);
/* Puts text in its place; -1: memory is short, and there is none. */
int shared_set(const char **place, const char *text);
/* How many there are, for tests. */
size_t shared_count(void);
