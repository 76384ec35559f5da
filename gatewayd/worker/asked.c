#include "config.h"

#include "gatewayd/worker/asked.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "gatewayd/worker/resolver.h"

/* ---- groups ------------------------------------------------------------------------------------------------------------ */

static uint32_t hash_names(const char (*names)[AUTH_GROUP_NAME_MAX + 1], size_t n, size_t *bytes)
{
	uint32_t h = 2166136261u;

	*bytes = 0;
	for (size_t i = 0; i < n; i++) {
		for (const char *at = names[i]; *at != '\0'; at++)
			h = (h ^ (uint8_t)*at) * 16777619u;
		h = (h ^ 0xff) * 16777619u;
		*bytes += strlen(names[i]) + 1;
	}
	return h;
}

static bool has_names(const struct group_list *list, const char (*names)[AUTH_GROUP_NAME_MAX + 1], size_t n)
{
	if (list->count != n)
		return false;
	for (size_t i = 0; i < n; i++)
		if (strcmp(list->names[i], names[i]) != 0)
			return false;
	return true;
}

struct group_list *groups_get(struct group_lists *lists, const char (*names)[AUTH_GROUP_NAME_MAX + 1], size_t n)
{
	size_t bytes;
	uint32_t hash = hash_names(names, n, &bytes);
	struct group_bucket *bucket = &lists->buckets[hash % GROUP_BUCKETS];
	struct group_list *list;

	LIST_FOREACH (list, bucket, next)
		if (list->hash == hash && list->refs < UINT32_MAX && has_names(list, names, n)) {
			list->refs++;
			return list;
		}
	list = malloc(sizeof *list + n * sizeof *list->names + bytes);
	if (list == NULL)
		return NULL;
	char *text = (char *)&list->names[n];

	list->refs = 1;
	list->hash = hash;
	list->count = n;
	for (size_t i = 0; i < n; i++) {
		list->names[i] = strcpy(text, names[i]);
		text += strlen(text) + 1;
	}
	LIST_INSERT_HEAD(bucket, list, next);
	return list;
}

void groups_put(struct group_list **list)
{
	struct group_list *l = *list;

	*list = NULL;
	if (l == NULL || --l->refs > 0)
		return;
	LIST_REMOVE(l, next);
	free(l);
}

/* ---- answers ----------------------------------------------------------------------------------------------------------- */

struct kept_answer {
	uint16_t naddresses, naliases;
	uint32_t bytes;
	struct addr addresses[]; /* and behind them the aliases, each with its end */
};

int answer_keep(struct kept_answer **kept, const struct addr *addresses, size_t n, const struct name *aliases, size_t naliases)
{
	size_t bytes = sizeof **kept + n * sizeof *addresses;

	assert(n <= ANSWER_ADDRESSES_MAX && naliases <= ANSWER_ALIASES_MAX);
	*kept = NULL;
	if (n <= 1 && naliases == 0)
		return 0;
	for (size_t i = 0; i < naliases; i++)
		bytes += aliases[i].len + 1u;
	*kept = malloc(bytes);
	if (*kept == NULL)
		return -1;
	**kept = (struct kept_answer){.naddresses = (uint16_t)n, .naliases = (uint16_t)naliases, .bytes = (uint32_t)bytes};
	memcpy((*kept)->addresses, addresses, n * sizeof *addresses);
	char *text = (char *)&(*kept)->addresses[n];

	for (size_t i = 0; i < naliases; i++) {
		memcpy(text, aliases[i].text, aliases[i].len + 1u);
		text += aliases[i].len + 1;
	}
	return 0;
}

void answer_forget(struct kept_answer **kept)
{
	free(*kept);
	*kept = NULL;
}

size_t answer_bytes(const struct kept_answer *kept)
{
	return kept == NULL ? 0 : kept->bytes;
}

size_t answer_aliases(const struct kept_answer *kept, struct name *aliases)
{
	const char *text = kept == NULL ? NULL : (const char *)&kept->addresses[kept->naddresses];

	for (size_t i = 0; text != NULL && i < kept->naliases; i++) {
		aliases[i].len = (uint8_t)strlen(text);
		memcpy(aliases[i].text, text, aliases[i].len + 1u);
		text += aliases[i].len + 1;
	}
	return kept == NULL ? 0 : kept->naliases;
}

/* ---- deciding ------------------------------------------------------------------------------------------------------------ */

/* `answers all`: the other addresses count, too. */
static void decide_all(const struct policy_context *ctx, const struct policy_request *req, const struct kept_answer *kept,
		       const struct name *aliases, size_t naliases, const struct addr *used, struct policy_decision *d)
{
	struct policy_decision each[ANSWER_ADDRESSES_MAX];

	policy_decide_answers(ctx, req, kept->addresses, kept->naddresses, aliases, naliases, each, d);
	for (size_t i = 0; i < kept->naddresses && d->verdict == POLICY_ALLOW; i++)
		if (addr_equal(&kept->addresses[i], used)) {
			*d = each[i];
			return;
		}
	if (d->verdict == POLICY_ALLOW) /* it is none of them: nobody has asked for it */
		policy_decide_address(ctx, req, used, aliases, naliases, d);
}

void asked_again(const struct policy_context *ctx, const struct policy_request *req, const struct kept_answer *kept,
		 const struct addr *used, bool others, struct policy_decision *d)
{
	struct name aliases[ANSWER_ALIASES_MAX];
	size_t naliases = answer_aliases(kept, aliases);
	struct policy_decision by_name;

	if (others && kept != NULL && kept->naddresses > 1 && policy_answers_all(ctx->image))
		decide_all(ctx, req, kept, aliases, naliases, used, d);
	else
		policy_decide_address(ctx, req, used, aliases, naliases, d);
	if (d->verdict == POLICY_ALLOW || req->name == NULL)
		return;
	/* A name that cannot end in allow is denied before it has an address, and by the rule that certainly decides. */
	policy_decide_name(ctx, req, &by_name);
	if (by_name.verdict == POLICY_DENY)
		*d = by_name;
}
