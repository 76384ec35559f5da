/* What a decision was made of, kept for as long as what it allowed lives, so that the same can be decided again: by another image,
 * at another time.  What hundreds of sessions of a user have in common is held once. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "auth/auth.h"
#include "policy/policy.h"

/* The groups of a user at a log-in: shared by all who have just these. */
struct group_list {
	LIST_ENTRY(group_list) next;
	unsigned refs;
	uint32_t hash;
	size_t count;
	const char *names[]; /* into what follows them */
};

#define GROUP_BUCKETS 256

struct group_lists {
	LIST_HEAD(group_bucket, group_list) buckets[GROUP_BUCKETS];
};

/* NULL: memory is short. */
struct group_list *groups_get(struct group_lists *lists, const char (*names)[AUTH_GROUP_NAME_MAX + 1], size_t n);
void groups_put(struct group_list **list);

/* What a name was answered with, as far as decisions look at it: the addresses if there were several, and the aliases.
 * NULL stands for one address and no alias, which most answers are. */
struct kept_answer;

/* -1: memory is short. */
int answer_keep(struct kept_answer **kept, const struct addr *addresses, size_t n, const struct name *aliases, size_t naliases);
void answer_forget(struct kept_answer **kept);
size_t answer_bytes(const struct kept_answer *kept);
/* The aliases of it, copied; how many there are.  Room for ANSWER_ALIASES_MAX. */
size_t answer_aliases(const struct kept_answer *kept, struct name *aliases);

/* Decides whether the request may use the address `used`, which is the one that it named or one of those that its name was
 * answered with (kept): exactly as if it were asked for the first time.  A denial names the rule that would be named then.
 * others: under `answers all` the rest of the answer counts, too; without, it has been looked at. */
void asked_again(const struct policy_context *ctx, const struct policy_request *req, const struct kept_answer *kept,
		 const struct addr *used, bool others, struct policy_decision *d);
