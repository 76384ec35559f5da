/* uids over which the name service hung: each question costs a conversation child, so the longer it does, the more seldom it is asked. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define HANGS_MAX 64 /* beyond, those go whose wait is over first */
#define HANG_FIRST_US (30 * INT64_C(1000000))
#define HANG_LONGEST_US (16 * 60 * INT64_C(1000000))

struct hangs {
	struct hang {
		uint32_t uid;
		int64_t wait_us, until_us;
	} list[HANGS_MAX];
	unsigned n;
};

/* True while this uid is not to be asked about. */
bool hangs_wait(const struct hangs *h, uint32_t uid, int64_t now_us);
/* It hung, or its child died over it.  For how long it is not asked about: twice as long as the last time, within the bounds above. */
int64_t hangs_add(struct hangs *h, uint32_t uid, int64_t now_us);
/* It answered: the next hang is the first. */
void hangs_remove(struct hangs *h, uint32_t uid);
