/* Log-ins that have succeeded a moment ago, so that a browser's many connections cost one PAM conversation.
 *
 * What is kept is a keyed hash of the whole question (listener, service, client address, user, password; BLAKE2b, with a key
 * drawn at each start, which lies in locked memory) and the answer.  Neither password nor anything that a guess could be
 * tried on outside this process is kept. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "auth/auth.h"

struct remembered;

struct remember_key {
	uint8_t bytes[32];
};

#define REMEMBERED_BYTES_MAX (64u * 1024 * 1024) /* over all, answers with their groups */

/* life_us: from the success; at most max entries, the oldest go first.  NULL: no memory, or none that can be locked away. */
struct remembered *remembered_new(int64_t life_us, size_t max);
void remembered_free(struct remembered **r);

void remembered_key(const struct remembered *r, const struct auth_ask *ask, struct remember_key *key);
/* True with the whole answer but its id in *answer. */
bool remembered_find(struct remembered *r, const struct remember_key *key, int64_t now_us, struct auth_answer *answer);
/* user: as it was asked.  Short of memory, nothing is remembered. */
void remembered_add(struct remembered *r, const struct remember_key *key, const char *user, const struct auth_answer *answer,
		    int64_t now_us);
/* The answers about a user, under the name that was asked or the canonical one, in any case of ASCII letters; NULL: all.  How
 * many there were. */
size_t remembered_forget(struct remembered *r, const char *user);
size_t remembered_count(const struct remembered *r);
