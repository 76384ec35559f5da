/* The index: which rules a request can meet at all.  A rule that is not among the candidates is certainly false; one
 * that is among them is verified in full, so that a candidate too many costs time and nothing else.
 *
 * A node splits rules by what is most selective about each: tables find those whose value the request has, branches
 * those whose cheap demands it meets, and the rest is listed.  A rule is below a table once for each of its values. */
#pragma once

#include "policy/image.h"

/* What a request is, one bit each: its command, its method, whether it names a name or an address; and what it lacks.
 * A rule that names none of a kind has all bits of it. */
#define TRAIT_COMMAND(n) (1u << (n))		   /* enum policy_command: 1 to 3 */
#define TRAIT_METHOD(n) (16u << (n))		   /* enum policy_method: 0 to 5 */
#define TRAIT_BY(name) (1024u << ((name) ? 1 : 0)) /* by address, by name */
#define TRAIT_NO_USER 4096u
#define TRAIT_NO_CLAIM 8192u
#define TRAIT_NO_LISTENER 16384u
#define TRAIT_NO_CLIENT 32768u
/* Whatever a request is, it has one of each. */
#define TRAITS_COMMANDS 14u
#define TRAITS_METHODS (63u << 4)
#define TRAITS_WAYS (3u << 10)
#define TRAITS_ALL 65535u

/* Longest way from a root to a rule. */
#define INDEX_DEPTH_MAX 8

/* For large variables of which only what has been set is read: the compiler is told to clear all others. */
#define INDEX_AS_IT_IS __attribute__((uninitialized))

/* The hashes of a name and of all that stands behind its dots. */
struct index_name {
	unsigned count; /* of suffixes, the whole name first; the last is the shortest */
	const char *text[128];
	uint64_t hash[128];
};

void index_name_read(const struct policy_image *i, const struct name *name, struct index_name *out);

/* Of more groups than this, the hashes are made when needed. */
#define INDEX_GROUPS 32

/* The hashes of a request's words. */
struct index_words {
	uint64_t user, groups[INDEX_GROUPS];
};

void index_words_read(const struct policy_image *i, const struct policy_request *req, struct index_words *out);

struct index_request {
	const struct policy_image *image;
	const struct policy_request *request;
	const struct index_words *words;
	const struct index_name *name; /* NULL: none */
	struct image_known *known;     /* of the name; NULL: nothing is remembered */
	const struct name *aliases;
	size_t naliases;
	const struct addr *addresses; /* every form of the destination; none when it is not known */
	size_t naddresses;
	uint32_t traits;
	enum index_phase phase;
	struct image_known *noting; /* where to note what is found */
	/* True if the branch's condition is not false. */
	bool (*open)(void *arg, const struct img_branch *b);
	void *arg;
	size_t ncursors; /* in use */
	unsigned visits;
	bool every;    /* too many places hold candidates: every rule is one */
	uint32_t last; /* rule given last, or POLICY_NO_RULE */
};

/* Finds the candidates of a phase; index_next() then gives them in the order of rules, POLICY_NO_RULE at the end. */
void index_find(struct index_request *r, enum index_phase phase);
uint32_t index_next(struct index_request *r);

/* The traits that a rule admits, from its conditions. */
uint32_t index_rule_traits(const struct img_rule *rule, const struct img_cond *conds, const struct img_pred *preds);
