/* Memory for many objects of one size that come and go in floods: slabs of their own, so that what a flood has used is given back to
 * the system, and not held by whatever small thing has been allocated in its midst. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>

struct slab;
TAILQ_HEAD(slab_list, slab);

struct pool {
	size_t stride, per_slab;
	struct slab_list roomy; /* those with a free place, in the order in which they are filled */
	size_t nslabs, nempty;
	size_t keep; /* empty ones that are not given back at once */
	bool secret;
};

void pool_init(struct pool *p, size_t size);
/* Its slabs are locked memory: secrets wait in the objects. */
void pool_init_secret(struct pool *p, size_t size);
/* Zeroed; NULL if memory is short. */
void *pool_get(struct pool *p);
/* Wipes it.  At most one empty slab is kept, or as many as pool_keep() said. */
void pool_put(struct pool *p, void *object);
/* The same of an object that is zero behind its first `used` bytes: only those are touched. */
void pool_put_used(struct pool *p, void *object, size_t used);
/* Where objects come and go in bursts, slabs would come and go with each: up to so many empty ones are kept for the next, until
 * pool_trim(), which leaves one. */
void pool_keep(struct pool *p, size_t slabs);
void pool_trim(struct pool *p);
/* Is there anything for pool_trim() to give back? */
bool pool_has_spare(const struct pool *p);
/* Slabs mapped, for tests. */
size_t pool_slabs(const struct pool *p);
