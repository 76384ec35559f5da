#include "config.h"

#include "auth/hangs.h"

#include <stddef.h>

static struct hang *find(const struct hangs *h, uint32_t uid)
{
	for (unsigned i = 0; i < h->n; i++)
		if (h->list[i].uid == uid)
			return (struct hang *)&h->list[i];
	return NULL;
}

bool hangs_wait(const struct hangs *h, uint32_t uid, int64_t now_us)
{
	const struct hang *one = find(h, uid);

	return one != NULL && now_us < one->until_us;
}

static struct hang *place(struct hangs *h)
{
	struct hang *first = &h->list[0];

	if (h->n < HANGS_MAX)
		return &h->list[h->n++];
	for (unsigned i = 1; i < h->n; i++)
		if (h->list[i].until_us < first->until_us)
			first = &h->list[i];
	return first;
}

int64_t hangs_add(struct hangs *h, uint32_t uid, int64_t now_us)
{
	struct hang *one = find(h, uid);

	if (one == NULL) {
		one = place(h);
		*one = (struct hang){.uid = uid, .wait_us = HANG_FIRST_US};
	} else if (one->wait_us < HANG_LONGEST_US) {
		one->wait_us *= 2;
	}
	one->until_us = now_us + one->wait_us;
	return one->wait_us;
}

void hangs_remove(struct hangs *h, uint32_t uid)
{
	struct hang *one = find(h, uid);

	if (one != NULL)
		*one = h->list[--h->n];
}
