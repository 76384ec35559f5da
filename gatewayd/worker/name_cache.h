/* What names have resolved to, for as long as their records live.  Addresses and aliases only, as they were answered: what policy says
 * of them is decided anew by whoever finds them here.  Answers that hold no address are not kept.
 *
 * Bounded in names and in bytes; who was asked for longest ago gives way. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/name.h"

/* On average, of all that is kept. */
#define NAME_CACHE_BYTES_PER_NAME 512

struct answer;
struct name_cache;

/* Both clocks: the monotonic one stands still while the host is suspended, and the other may be set. */
struct moment {
	int64_t mono_us, wall_us;
};

/* At most this many names, none longer than longest_us.  0 names: nothing is ever kept.  NULL: memory is short. */
struct name_cache *name_cache_new(size_t names, int64_t longest_us);
void name_cache_free(struct name_cache **c);

/* True: *answer is what was kept. */
bool name_cache_find(struct name_cache *c, const struct name *name, const struct moment *now, struct answer *answer);
/* asked: when the question was sent; ttl_s counts from then on.  Replaces what was kept of the name. */
void name_cache_keep(struct name_cache *c, const struct name *name, const struct answer *answer, int64_t ttl_s,
		     const struct moment *asked);
void name_cache_drop(struct name_cache *c, const struct name *name);
void name_cache_flush(struct name_cache *c);

size_t name_cache_names(const struct name_cache *c);
size_t name_cache_bytes(const struct name_cache *c);
/* By a key of its own: whoever chooses names cannot choose where they fall. */
uint64_t name_cache_hash(const struct name_cache *c, const struct name *name);
