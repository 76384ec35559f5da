/* UDP ASSOCIATE (RFC 1928 sections 4 and 7): one association a session, with sockets of its own.
 *
 * Only the client's address may send (and, once named or seen, only its port); every datagram's destination is decided as a TCP
 * request is.  A (destination, port) is a *flow*: its record is durable before its first datagram leaves; until then a few
 * datagrams wait.  Replies pass only from destinations that the association has sent to; where the listener says `udp-replies =
 * "any"`, others may speak first, each of them decided and recorded like a destination.  Fragments are dropped and counted.
 * The association ends with its control connection, and the record of its end tells what was dropped and why. */
#pragma once

#include <event2/event_struct.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "gatewayd/recording.h"
#include "gatewayd/worker/session.h"

#define UDP_FLOWS_MAX 256
#define UDP_BUCKETS 64
/* Datagrams that wait for a flow's lookup or record. */
#define UDP_WAITING_MAX 8
#define UDP_WAITING_BYTES_MAX (256 * 1024) /* of an association */
#define UDP_WAITING_BYTES_ALL (32 * 1024 * 1024) /* of a worker */
/* Names that an association, and a worker for all of them, may have looked up at a time. */
#define UDP_LOOKUPS_MAX 8
#define UDP_LOOKUPS_ALL 256
/* Of an association's flows, those that the other side opened; and of its refusals of such, those that are told. */
#define UDP_INBOUND_MAX 64
#define UDP_INBOUND_DENIALS 32
/* Refusals of what the client asked for that are told at once, and one more each second; the rest are in `denied`. */
#define UDP_DENIALS 64

struct association;

/* Datagrams that were not carried, by reason; and ICMP errors that came. */
struct udp_counts {
	uint64_t fragments, malformed, strangers, unsolicited, denied, over_bounds, unsent, icmp_errors;
};

enum flow_state { FLOW_RESOLVING, FLOW_RECORDING, FLOW_OPEN, FLOW_DENIED };

struct waiting_datagram {
	STAILQ_ENTRY(waiting_datagram) next;
	bool back; /* to the client */
	size_t len;
	uint8_t data[];
};

struct udp_flow {
	struct waiter waiter;
	LIST_ENTRY(udp_flow) by_request, by_remote;
	TAILQ_ENTRY(udp_flow) by_age; /* least recently used first */
	struct association *association;
	struct request request; /* as the client names it */
	struct addr remote;     /* that it is sent to; ADDR_NONE until decided */
	struct addr source;     /* of the rule; ADDR_NONE: any */
	enum flow_state state;
	bool inbound; /* opened by the other side */
	bool unrecorded; /* granted without any record, as configured */
	struct event patience; /* on-audit-failure allow: its record is not waited for any longer */
	struct lookup *lookup;
	struct record *record;
	struct kept_answer *answer;
	const char *rule; /* shared.h */
	uint32_t revision, epoch; /* by which it was decided last */
	int64_t ends_us;          /* monotonic: of its time of grace; 0: it is allowed */
	int64_t denied_s;         /* monotonic */
	int64_t opened_us, active_us;
	uint64_t bytes_up, bytes_down, datagrams_up, datagrams_down;
	uint64_t checked_bytes; /* both ways, at its last checkpoint */
	size_t unjoinable;      /* datagrams of this size, and more, leave one by one; 0: none known */
	STAILQ_HEAD(, waiting_datagram) waiting;
	unsigned nwaiting;
};

LIST_HEAD(flow_list, udp_flow);

struct association {
	struct session *session;
	int client_fd, out_fd[2]; /* out: IPv4, IPv6; -1 until needed */
	struct event client_event, out_event[2];
	struct endpoint client; /* port 0: not known yet */
	struct flow_list by_request[UDP_BUCKETS], by_remote[UDP_BUCKETS];
	TAILQ_HEAD(, udp_flow) by_age;
	unsigned nflows, ninbound, nlookups, inbound_denials;
	unsigned denials;  /* told of those since */
	int64_t denials_us; /* monotonic; moves on with each that is forgotten */
	size_t waiting_bytes;
	size_t unjoinable; /* those to the client, as with a flow's */
	struct udp_counts counts;
};

/* So many more that an association did not carry: in its own count, and in its worker's of all. */
#define UDP_COUNT(a, what, n) ((a)->counts.what += (n), (a)->session->worker->udp_counts.what += (n))

/* udp.c: sockets. */
/* The request was granted (its record is durable): makes the sockets, replies, and relays. */
void udp_start(struct session *s);
void udp_free(struct session *s);
/* Decides its flows again, and ends those that are refused. */
void udp_decide_again(struct session *s);
/* Ends and records the flows; to be called before the record of the association's own end. */
void udp_end_flows(struct session *s);
/* The session's timer: drops idle flows, and ends an association that has been silent too long. */
void udp_idle_check(struct session *s);
/* Sends data to the flow's remote, or back to the client; it is open.  A few are collected: data must stay until udp_flush(). */
void udp_send(struct udp_flow *f, const uint8_t *data, size_t len);
void udp_send_back(struct udp_flow *f, const uint8_t *data, size_t len);
void udp_flush(void);

/* udp_flow.c: destinations. */
/* The flow of a request, made and being decided if it is new; NULL: too many, or memory is short. */
struct udp_flow *flow_find(struct association *a, const struct request *request, bool inbound);
/* The open one that replies of remote belong to. */
struct udp_flow *flow_of_remote(struct association *a, const struct endpoint *remote);
/* What policy says of it, as of a request that comes now. */
void flow_decide(const struct udp_flow *f, const struct policy_context *ctx, struct policy_decision *d);
/* Is it still, by the policy and the time of now, or for its time of grace?  False: it has been ended. */
bool flow_still_allowed(struct udp_flow *f);
/* A datagram of the client for it: sent, kept for a moment, or dropped, as the flow's state has it. */
void flow_take(struct udp_flow *f, const uint8_t *data, size_t len);
/* A datagram of its remote, likewise. */
void flow_take_back(struct udp_flow *f, const uint8_t *data, size_t len);
/* It carries something now: it is the last to become idle. */
void flow_touch(struct udp_flow *f);
/* Records its bytes so far, if it has carried any since the last time. */
void flow_checkpoint(struct udp_flow *f, int64_t now_us);
/* What every event of it has in common. */
void udp_flow_event(const struct udp_flow *f, enum audit_kind kind, struct audit_event *e);
/* Records its end, if it was open, and frees it. */
void flow_end(struct udp_flow *f, const char *reason);
