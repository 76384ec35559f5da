/* Guessing made slow: log-ins that were denied are counted for each client network, and for each user from each network.
 *
 * Who has failed more often than is free waits, twice as long after each further failure; time forgives failures one by one.
 * A user is never counted over several networks: nobody can lock a user out from elsewhere.  A user who has logged in from a
 * network lately is *known* there: guessing at others from the same network does not make them wait, only guessing at them.
 *
 * Unknown users are counted as others are: whoever is refused learns nothing. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/addr.h"

/* From the first wait of a user or a network until it has been quiet for a minute after its last, or was forgiven: one episode,
 * however often it fails meanwhile. */
struct throttle_news {
	enum throttle_step { THROTTLE_BEGUN, THROTTLE_OVER, THROTTLE_UNLOCKED, THROTTLE_STEPS } step;
	struct prefix network;
	char user[256]; /* ASCII letters in lower case; "": the network as a whole */
	uint32_t failures; /* that count now */
	uint32_t wait_ms;  /* begun: until the next is judged */
	uint64_t refused;  /* unjudged, since it has begun */
	int64_t lasted_us;
	uint64_t untold; /* episodes of others that were not told of since the last news, because there were too many */
};

#define THROTTLE_QUIET_US (60LL * 1000000)
/* Episodes that are told of: so many at once, and one more each second.  The rest are counted. */
#define THROTTLE_NEWS_BURST 64

struct throttle_options {
	void (*news)(const struct throttle_news *news, void *arg); /* may be NULL */
	void *arg;
	unsigned user_failures, client_failures; /* free of charge; 0: not throttled */
	unsigned first_ms, max_ms;		 /* the first wait, and the longest */
	unsigned bits_v4, bits_v6;		 /* of a client network; 0: each address */
	size_t max;				 /* records of each kind in memory */
};

struct throttle;

/* NULL: memory is short. */
struct throttle *throttle_new(const struct throttle_options *options);
void throttle_free(struct throttle **t);

struct prefix throttle_network(const struct throttle *t, const struct addr *client);

/* For how long log-ins of user (NULL: not known yet; only the network counts, here and below) from client are refused: 0 for not
 * at all.  now_us: monotonic, here and below. */
int64_t throttle_wait_us(struct throttle *t, const struct addr *client, const char *user, int64_t now_us);
/* Ends episodes that are quiet: to be called now and then. */
void throttle_tick(struct throttle *t, int64_t now_us);
/* A log-in was denied: for how long the next is refused (0: it is not).  tried: a keyed hash of the password, or 0; to try the
 * same again, as programs with an old password do, is no new guess. */
int64_t throttle_failed(struct throttle *t, const struct addr *client, const char *user, uint64_t tried, int64_t now_us);
/* It was denied: the same again is answered without being judged, for half a minute.  delay_us: what PAM wants a refusal to wait. */
void throttle_note_denied(struct throttle *t, const struct addr *client, const char *user, uint64_t tried, uint32_t delay_us,
			  int64_t now_us);
/* True with the delay if it is to be answered so. */
bool throttle_denied_lately(struct throttle *t, const struct addr *client, const char *user, uint64_t tried, int64_t now_us,
			    uint32_t *delay_us);
void throttle_succeeded(struct throttle *t, const struct addr *client, const char *user, int64_t now_us);
bool throttle_knows(struct throttle *t, const struct addr *client, const char *user, int64_t now_us);

/* Failures of the user (NULL: of any) from networks inside clients (NULL: from any) are forgiven.  A user alone: also from
 * where the whole network waits, which stays.  The number of records. */
size_t throttle_unlock(struct throttle *t, const struct prefix *clients, const char *user, int64_t now_us);

/* user "" is the network as a whole.  wait_us 0: failures are counted, nobody waits. */
typedef void throttle_visit(const struct prefix *network, const char *user, unsigned failures, int64_t wait_us, void *arg);
/* Every record with a failure, those who wait first. */
void throttle_each(struct throttle *t, int64_t now_us, throttle_visit *visit, void *arg);
size_t throttle_records(const struct throttle *t);
