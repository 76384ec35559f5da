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
	bool secret;
};

void pool_init(struct pool *p, size_t size);
/* Its slabs are locked memory: secrets wait in the objects. */
void pool_init_secret(struct pool *p, size_t size);
/* Zeroed; NULL if memory is short. */
void *pool_get(struct pool *p);
/* Wipes it.  At most one empty slab is kept. */
void pool_put(struct pool *p, void *object);
/* Slabs mapped, for tests. */
size_t pool_slabs(const struct pool *p);
