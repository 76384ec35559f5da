#include "config.h"

#include "gatewayd/worker/pool.h"

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/locked.h"

/* AddressSanitizer watches over what comes from malloc(3): with it, every object does. */
#if defined(__SANITIZE_ADDRESS__)
#define POOLED false
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POOLED false
#endif
#endif
#ifndef POOLED
#define POOLED true
#endif

#define SLAB_BYTES ((size_t)128 * 1024)
#define ALIGNMENT _Alignof(max_align_t)

/* Before each object; while that is free, its slab is the list's. */
struct place {
	struct slab *slab;
	struct place *next; /* free */
};

_Static_assert(sizeof(struct place) % ALIGNMENT == 0, "objects are aligned behind their places");

struct slab {
	TAILQ_ENTRY(slab) next;
	struct place *free;
	size_t used, fresh; /* places from `fresh` on have never been touched */
	_Alignas(max_align_t) uint8_t places[];
};

void pool_init(struct pool *p, size_t size)
{
	*p = (struct pool){.stride = sizeof(struct place) + (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT};
	p->per_slab = (SLAB_BYTES - sizeof(struct slab)) / p->stride;
	p->keep = 1;
	TAILQ_INIT(&p->roomy);
}

void pool_init_secret(struct pool *p, size_t size)
{
	pool_init(p, size);
	p->secret = true;
}

static struct slab *new_slab(struct pool *p)
{
	struct slab *s = mmap(NULL, SLAB_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (s == MAP_FAILED)
		return NULL;
	if (p->secret)
		locked_keep(s, SLAB_BYTES);
	TAILQ_INSERT_TAIL(&p->roomy, s, next);
	p->nslabs++;
	p->nempty++;
	return s;
}

static struct place *take_place(const struct pool *p, struct slab *s)
{
	struct place *place = s->free;

	if (place != NULL) {
		s->free = place->next;
		return place;
	}
	place = (struct place *)(void *)(s->places + p->stride * s->fresh++);
	place->slab = s;
	return place;
}

void *pool_get(struct pool *p)
{
	struct slab *s = TAILQ_FIRST(&p->roomy);

	if (!POOLED || p->per_slab == 0)
		return calloc(1, p->stride);
	if (s == NULL && (s = new_slab(p)) == NULL)
		return NULL;
	p->nempty -= s->used == 0;
	if (++s->used == p->per_slab)
		TAILQ_REMOVE(&p->roomy, s, next);
	return take_place(p, s) + 1;
}

/* A mapping that cannot be given back (the kernel may have to split one for that) stays for later use. */
static bool give_back(struct pool *p, struct slab *s)
{
	TAILQ_REMOVE(&p->roomy, s, next);
	if (munmap(s, SLAB_BYTES) != 0) {
		TAILQ_INSERT_TAIL(&p->roomy, s, next);
		return false;
	}
	p->nslabs--;
	p->nempty--;
	return true;
}

void pool_keep(struct pool *p, size_t slabs)
{
	p->keep = slabs;
}

bool pool_has_spare(const struct pool *p)
{
	return p->nempty > 1;
}

void pool_trim(struct pool *p)
{
	struct slab *s, *following;

	for (s = TAILQ_FIRST(&p->roomy); s != NULL && pool_has_spare(p); s = following) {
		following = TAILQ_NEXT(s, next);
		if (s->used == 0 && !give_back(p, s))
			return;
	}
}

void pool_put(struct pool *p, void *object)
{
	pool_put_used(p, object, p->stride - sizeof(struct place));
}

static bool is_zero(const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (bytes[i] != 0)
			return false;
	return true;
}

void pool_put_used(struct pool *p, void *object, size_t used)
{
	struct place *place;
	struct slab *s;

	if (object == NULL)
		return;
	/* Where memory is watched over anyway. */
	assert(POOLED || is_zero((const uint8_t *)object + used, p->stride - sizeof *place - used));
	explicit_bzero(object, used);
	if (!POOLED || p->per_slab == 0) {
		free(object);
		return;
	}
	place = (struct place *)object - 1;
	s = place->slab;
	place->next = s->free;
	s->free = place;
	/* One that was full is filled again before those that may become empty. */
	if (s->used-- == p->per_slab)
		TAILQ_INSERT_HEAD(&p->roomy, s, next);
	if (s->used == 0 && p->nempty++ >= p->keep)
		give_back(p, s);
}

size_t pool_slabs(const struct pool *p)
{
	return p->nslabs;
}
