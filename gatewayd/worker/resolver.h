/* Name lookup by c-ares, for names that policy let through.  The name asked is the judged name: no search list, no
 * HOSTALIASES.  The system's hosts file is honoured where the system's resolver configuration is used.
 *
 * An answer is kept for as long as its records live (name_cache.h), and who asks for a name that is being asked for waits for that
 * answer.  Whoever gets one decides by it as if it had come from the name server now. */
#pragma once

#include "common/addr.h"
#include "common/err.h"
#include "common/name.h"
#include "gatewayd/worker/reply.h"

struct event_base;
struct config;
struct resolver;
struct lookup;

#define ANSWER_ADDRESSES_MAX 64
#define ANSWER_ALIASES_MAX 16

struct answer {
	enum reason failure; /* REASON_NONE: addresses holds at least one */
	const char *detail;  /* of a failure; constant */
	struct addr addresses[ANSWER_ADDRESSES_MAX];
	size_t naddresses;
	struct name aliases[ANSWER_ALIASES_MAX]; /* canonical names of the CNAME chain, the asked name not among them */
	size_t naliases;
};

typedef void lookup_done(const struct answer *answer, void *arg);

/* NULL with *why on failure.  Must be called before the sandbox closes: c-ares seeds itself from a device. */
struct resolver *resolver_new(struct event_base *base, const struct config *config, struct err *why);
void resolver_free(struct resolver **r);
/* Sealed copies of resolv.conf(5) and hosts(5); the descriptors stay the caller's. */
void resolver_use_system(struct resolver *r, int resolv_conf_fd, int hosts_fd);

/* Nothing that was answered, or asked for, until now is used for lookups to come: of any name; of this canonical one. */
void resolver_forget(struct resolver *r);
void resolver_forget_name(struct resolver *r, const char *text);

/* What was looked up since the start, by where the answer was: in memory, in that of another who was asking for the same, with a name
 * server; and what is in memory now. */
struct resolver_counts {
	uint64_t hits, joined, misses;
	size_t names, bytes;
};
struct resolver_counts resolver_counts(const struct resolver *r);

/* done is called once, never before this returns, unless lookup_cancel() came first.  NULL: memory is short. */
struct lookup *resolver_lookup(struct resolver *r, const struct name *name, lookup_done *done, void *arg);
/* The answer is kept all the same. */
void lookup_cancel(struct lookup **lookup);
