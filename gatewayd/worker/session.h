/* One client connection, from accept to its last byte.
 *
 *   COUNTING -> GREETING -> LOGIN -> AUTHENTICATING -> REQUEST -> RESOLVING -> GRANTING -> RELAYING -> (ended)
 *                  \_________________________________/    \__________/  |          |
 *                         (method none)               (literal address) |          |
 *   Any state before RELAYING may go to CLOSING: the refusal is written, the client's bytes are drained, bounded in time.
 *   AUTHENTICATING -> DELAYING -> CLOSING is a refused log-in that waits as long as PAM asked for.
 *
 * GSSAPI: GREETING -> NEGOTIATING (a token of the client) -> AUTHENTICATING (at the authenticator) -> NEGOTIATING ... until the
 * context is established, then PROTECTING (the word about protection) -> REQUEST.  NEGOTIATING -> DELAYING: it has been lost.
 *
 * BIND: GRANTING -> BINDING (first reply; waits for the peer) -> ACCEPTING (the peer's record) -> RELAYING.
 *
 * UDP ASSOCIATE: REQUEST -> GRANTING -> ASSOCIATED; its destinations are decided datagram by datagram (udp.h).
 *
 * Where the listener has limits, COUNTING waits for the word that one more connection may begin, before a byte is read, and
 * REQUEST -> ADMITTING asks the same for the user.
 *
 * GRANTING runs two things at once: the grant's audit record becomes durable, and the destination is connected to.  Only when
 * both are done does the client read its success reply. */
#pragma once

#include <event2/event_struct.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "auth/auth.h"
#include "common/addr.h"
#include "common/name.h"
#include "gatewayd/conf.h"
#include "gatewayd/recording.h"
#include "gatewayd/worker/front.h"
#include "gatewayd/worker/request.h"
#include "gatewayd/worker/sockets.h"
#include "policy/policy.h"
#include "schema/audit_event.h"

struct worker;
struct lookup;
struct record;
struct ruleset;
struct association;
struct group_list;
struct kept_answer;
struct gss;

enum session_state {
	SESSION_COUNTING,
	SESSION_GREETING,
	SESSION_LOGIN,
	SESSION_NEGOTIATING,
	SESSION_PROTECTING,
	SESSION_AUTHENTICATING,
	SESSION_DELAYING,
	SESSION_REQUEST,
	SESSION_ADMITTING,
	SESSION_RESOLVING,
	SESSION_GRANTING,
	SESSION_BINDING,
	SESSION_ACCEPTING,
	SESSION_RELAYING,
	SESSION_ASSOCIATED,
	SESSION_CLOSING,
	SESSION_STATE_COUNT
};

#define CANDIDATES_MAX 64

/* An address that policy allowed for this request, with the rule that did. */
struct candidate {
	struct addr address;
	uint32_t rule;
	bool refused; /* by a policy since */
};

/* A connection under way to one candidate. */
struct attempt {
	struct session *session;
	struct sock sock;
	int fd; /* -1: free */
	size_t candidate;
};

/* Attempts at a time: with one more, the oldest is given up. */
#define ATTEMPTS_MAX 6

/* Room for the longest greeting (257), log-in (513) and request (262) in one piece, and early data behind them. */
#define HANDSHAKE_MAX 4096

/* What a session needs only until it relays: given back then, so that an idle session is small. */
struct setup {
	struct waiter waiter; /* for the record of the grant */
	struct session *session;
	size_t in_len;         /* bytes in `in` */
	int64_t deadline_us;   /* of the handshake as a whole; time spent in authentication does not count */
	int64_t waiting_since_us;
	uint8_t method;        /* SOCKS5 code chosen */
	TAILQ_ENTRY(setup) asking; /* among those whose log-in is under way at the authenticator */
	bool asked;
	TAILQ_ENTRY(setup) shaking; /* among those who have not yet shown who they are or what they want */
	bool in_shaking;
	bool gss_under_way; /* the authenticator holds a context of ours that is not established */
	TAILQ_ENTRY(setup) admitting; /* among those that wait for a word about limits */
	bool in_admitting;
	bool pressed; /* somebody has given way to it already */
	TAILQ_ENTRY(setup) delaying; /* among those whose refusal of a log-in is delayed */
	bool in_delaying;
	enum reason refusal; /* meanwhile */
	char *refusal_detail;
	struct request request;
	struct lookup *lookup; /* running, or NULL */
	struct ruleset *rules; /* that allowed the candidates */
	struct candidate candidates[CANDIDATES_MAX];
	size_t ncandidates, next_candidate;
	struct attempt attempts[ATTEMPTS_MAX];
	unsigned nattempts; /* under way */
	struct event connect_timer;
	int64_t connect_deadline_us, begun_us; /* begun: the latest attempt */
	int64_t bind_deadline_us;
	enum reason connect_failure; /* the most telling so far */
	bool connected, recorded;
	struct endpoint bound; /* what a reply tells: our end, or a BIND's peer */
	/* The answer to its name, borrowed while it is decided: the record of the decision tells it. */
	struct told_answer {
		const struct addr *addresses;
		const struct name *aliases;
		size_t naddresses, naliases;
	} told;
	struct record *record; /* the grant, until it is durable */
	uint8_t in[HANDSHAKE_MAX]; /* the last member: behind in_len it is always zero */
};

struct relay_pipe;

/* One direction of the relay.  Bytes that the receiver would not take yet wait in `pending`, or in the pipe; nothing more is read
 * then. */
struct flow {
	uint8_t *pending;
	struct relay_pipe *pipe;
	uint32_t off, len;
	bool eof;  /* the sender has finished */
	bool shut; /* and the receiver has been told */
	bool bulk; /* it is spliced, where there is a pipe for it */
	uint8_t streak; /* reads, one after the other, that speak for the other way of carrying */
	uint64_t bytes;
};

struct session {
	TAILQ_ENTRY(session) next, lingering, untold;
	struct worker *worker;
	const struct config_listener *listener;
	struct setup *setup; /* NULL once relaying */
	struct association *association; /* of UDP, once granted */
	struct gss *gss;                 /* of a GSSAPI log-in */
	uint64_t id;
	enum session_state state;
	enum protocol protocol;
	int client_fd, server_fd;
	struct endpoint client;
	struct sock client_sock, server_sock;
	struct event timer;
	struct flow up, down; /* client to destination, and back */
	int64_t accepted_us, granted_us, active_us; /* monotonic */
	int64_t connected_us, untold_us; /* while it is among the untold: when it was connected, by the wall clock; since when it is there */
	int64_t checked_us;      /* when its bytes were recorded last, or it was granted */
	uint64_t checked_bytes;  /* both ways, then */
	int64_t sampled_us;      /* when somebody looked at it last, */
	uint64_t sampled_bytes, rate; /* its bytes then, and those a second up to then */
	bool counted; /* by the auth master: its end is to be told */
	bool user_counted;
	bool granted; /* an OPEN record was made: an ENDED record is owed */
	bool kept_alive; /* the other side's connection is probed when it is silent */
	bool unrecorded; /* granted without any record, as configured */
	bool in_lingering;
	unsigned strangers; /* who came to a BIND and was not its peer */
	uint32_t epoch;   /* in which it was decided last */
	/* What it was granted for, so that it can be decided again; see asked.h. */
	struct group_list *groups;  /* NULL: none */
	struct kept_answer *answer;
	int64_t ends_us;  /* monotonic: of its time of grace; 0: it is allowed */
	/* For the closing record. */
	uint32_t revision; /* by which it was last allowed */
	struct addr address;
	uint16_t port;
	enum policy_command command;
	const char *user, *name, *rule; /* shared.h; NULL: absent */
	char *claimed; /* malloc'd; SOCKS4 user id, its bytes as they came: never a log-in, and to be escaped where it is told */
};

TAILQ_HEAD(session_list, session);

/* Takes over fd.  NULL if memory is short (fd is closed). */
struct session *session_new(struct worker *w, const struct config_listener *listener, int fd, const struct endpoint *client);
/* The one place that changes a state; asserts that the move is legal. */
void session_set_state(struct session *s, enum session_state state);
const char *session_state_name(enum session_state state);

/* Refuses the session before it relays: records the denial (kind DENIED, or LOGIN_FAILED), writes the reply of the protocol
 * state it is in, and lets the client read it.  detail: more for the record, or NULL. */
void session_refuse(struct session *s, enum reason reason, const char *detail);
/* The same for a decision of policy, which the record tells in full. */
void session_deny(struct session *s, const struct policy_image *image, const struct policy_decision *d);
/* Ends a granted session: records it and frees it.  reset: both sides are told by RST. */
void session_end(struct session *s, const char *reason, bool reset);
/* A log-in whose refusal is delayed gives way: it is recorded as it would have been in the end, and closed without a word. */
void session_cut_delay(struct session *s);
/* Closes a connection whose client has said nothing yet: there is no session for it.  Recorded, up to a bound. */
void session_turn_away(struct session *s, enum reason reason, const char *detail);
/* Frees a session that needs no record (a client that said nothing, a refusal that was read). */
void session_drop(struct session *s);
/* The setup's memory, wiped; the session relays or closes. */
void session_free_setup(struct session *s);

/* Fills what every event of this session has in common. */
void session_event(const struct session *s, enum audit_kind kind, struct audit_event *e);
const char *session_method(const struct session *s);

/* A session that goes on tells its bytes now and then, so that a crash does not take all of them. */
void session_checkpoint(struct session *s, int64_t now_us);
/* After bytes were carried: the same, once they are many. */
void session_carried(struct session *s, int64_t now_us);
/* Until the next one is due. */
int64_t session_checkpoint_left_us(const struct session *s, int64_t now_us);

/* Until max-session-age, from the grant; INT64_MAX without one. */
int64_t session_age_left_us(const struct session *s, int64_t now_us);
/* Why it is over, when nothing is left. */
const char *session_age_reason(const struct session *s, int64_t now_us);
/* Starts the timer of the current state; it ends the session or moves it on (session.c says how). */
void session_arm(struct session *s, int64_t after_us);
