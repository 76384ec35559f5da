/* The worker: many thousand sessions on one loop.  No files, no exec, no privilege; nothing blocks. */
#pragma once

#include <event2/event_struct.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "common/ipc.h"
#include "common/sealed.h"
#include "gatewayd/child.h"
#include "gatewayd/worker/asked.h"
#include "gatewayd/worker/live.h"
#include "gatewayd/worker/pipes.h"
#include "gatewayd/worker/pool.h"
#include "gatewayd/worker/session.h"
#include "gatewayd/worker/sockets.h"
#include "gatewayd/worker/udp.h"

struct resolver;
struct recording;
struct fold;
struct steer;
struct recent;

/* One listening socket, our own or a missing sibling's. */
struct acceptor {
	TAILQ_ENTRY(acceptor) next;
	struct worker *worker;
	const struct config_listener *listener;
	uint16_t listener_index, address_index, slot;
	int fd;
	struct event event;
};

/* A revision's image, kept while a session that it decided is being set up. */
struct ruleset {
	unsigned refs;
	uint32_t revision;
	struct sealed bytes;
	struct policy_image *image;
};

struct counters {
	uint64_t accepted, turned_away, granted, failed, denied, login_failed, bytes_up, bytes_down;
	uint64_t unrecorded; /* granted without a row: on-audit-failure allow */
};

/* Whether a client may be admitted by a revision, remembered: a revision never changes its mind. */
#define ADMITS 1024

struct admit {
	struct addr client;
	const struct config_listener *listener;
	uint32_t revision;
	bool may;
};

/* Counters of unfinished handshakes, by client. */
#define SHAKERS 4096

#define RELAY_BUFFER (64 * 1024)

struct worker {
	struct child *child;
	const struct config *config;
	struct event_base *base;
	struct sockets sockets; /* of sessions */
	struct ipc *auth, *control;
	struct event relink_timer; /* runs while a link is missing */
	struct session_list lingering; /* refused, for longest first */
	TAILQ_HEAD(, setup) shaking;   /* in the handshake, for longest first: who gives way when the worker, or a listener, is full */
	unsigned shakers[SHAKERS];     /* how many of them a client has; clients may share one */
	TAILQ_HEAD(, setup) delaying;  /* refused log-ins that have yet to hear of it, for longest first */
	TAILQ_HEAD(, setup) admitting; /* that wait for a word about limits, for longest first */
	TAILQ_HEAD(, setup) asking; /* log-ins under way at the authenticator */
	struct resolver *resolver;
	struct recording *recording;
	struct fold *fold; /* of floods of denials */
	struct recent *recent;
	struct steer *steer; /* what operators want */
	uint64_t unrecorded_told; /* of the sessions without a row, how many the audit knows of */

	/* What decides: replaced as a whole between two requests. */
	struct ruleset *rules; /* NULL: none yet, nothing is served */
	struct table {
		struct sealed bytes;
		struct policy_geo *geo; /* NULL: none */
	} geo, asn;
	struct live live; /* and what it does to sessions that live */
	LIST_HEAD(, preview) previews; /* of what others would do to them */
	struct group_lists group_lists;
	struct addr *local; /* addresses of this host, for the guard of our own listeners; NULL: not known yet */
	size_t nlocal;
	uint16_t *own_ports;
	size_t nown_ports;

	TAILQ_HEAD(, acceptor) acceptors;
	struct event accept_pause;
	bool accepting, stopping, draining;
	int reserve_fd; /* given up for a moment when descriptors run out, so that a client can be told */
	struct pool session_pool, setup_pool;
	struct session_list sessions;
	struct session_list untold; /* they relay, and no row says with whom; for longest first */
	struct event tell_timer;    /* runs while there are some */
	unsigned nsessions, max_sessions;
	unsigned peak_sessions; /* since memory was given back last */
	struct event trim_timer;
	/* Descriptors beyond two a session: attempts to connect side by side, sockets of associations. */
	unsigned extra_fds, max_extra_fds;
	struct pipes pipes;
	unsigned udp_lookups;        /* under way for associations */
	size_t udp_waiting_bytes;    /* of datagrams that wait, in all associations */
	struct udp_counts udp_counts; /* of all associations there have been */
	uint64_t carried_up, carried_down; /* bytes of all sessions, those that live included */
	uint64_t session_tag; /* high 40 bits of session ids, drawn anew when the low 24 have been counted through */
	uint64_t session_count;
	struct admit admits[ADMITS];
	/* Bytes of GSSAPI clients, not opened yet: of those in the handshake, who keep some for longest first; and of the rest. */
	TAILQ_HEAD(, gss) gss_shaking;
	size_t gss_shaking_bytes, gss_relaying_bytes;
	struct counters counters;
	int64_t turned_away_s; /* second in which rows of clients turned away were written last, */
	unsigned turned_away_rows; /* and how many */
	uint8_t buffer[RELAY_BUFFER + 4]; /* every read of the relay lands here first; the largest GSSAPI message fits */
};

/* worker.c: a link has ended; if the supervisor sends none in its place soon, it is asked for one. */
void worker_link_lost(struct worker *w);
/* For the high 40 bits of session ids; the rest is zero. */
uint64_t worker_random_tag(void);

/* accept.c */
void accept_add(struct worker *w, uint16_t listener, uint16_t address, uint16_t slot, int fd);
void accept_remove(struct worker *w, uint16_t listener, uint16_t address, uint16_t slot);
/* Accepts, or not, as policy, audit and limits allow now. */
void accept_update(struct worker *w);
void accept_init(struct worker *w);
/* The listener of s is full: ends the log-in of another of its clients that has been refused and is only delayed, the oldest; else
 * the handshake that one has not finished, of a client with many of them rather than of one with few, and never of one with fewer
 * than the client of s has.  False: there is none. */
bool accept_press(const struct session *s);
/* A client's counter among the shakers. */
unsigned *accept_shakers(struct worker *w, const struct addr *client);

/* session.c */
void sessions_init(struct worker *w);

/* handshake.c: bytes of the client, up to its request. */
void handshake_start(struct session *s);
void handshake_timeout(struct session *s);
/* The authenticator has answered: goes on, or refuses. */
void handshake_login_done(struct session *s, const struct auth_answer *answer);
/* The request may go on, as far as limits are concerned. */
void handshake_admitted(struct session *s);
void handshake_delay_over(struct session *s);
/* The same of any method: true if the user is known now; else the session is on its way to a refusal (shown: who it claims to be,
 * if that is known and not noted yet). */
bool handshake_identified(struct session *s, const struct auth_answer *answer, const char *shown);
/* For gss.c: the request may be whole in setup->in. */
void handshake_advance(struct session *s);
void handshake_wait_for_client(struct session *s);
void handshake_stop_reading(struct session *s);
/* Answers the request in the client's protocol; false: it has left. */
bool handshake_reply(struct session *s, enum reason reason, const struct endpoint *bound);
void handshake_refusal_reply(struct session *s, enum reason reason);

/* authenticate.c */
void authenticate_link(struct worker *w, int fd);
/* Takes a copy of ask (and wipes nothing of the caller's).  -1: the authenticator is away. */
int authenticate_ask(struct session *s, struct auth_ask *ask);
int authenticate_ask_gss(struct session *s, struct gss_ask *ask);
void authenticate_cancel(struct session *s);

/* limits.c: True if there is a limit to ask about: the session waits (or is gone), and handshake_start() follows, or a refusal. */
bool limits_ask_connection(struct session *s);
/* Likewise when it has a request; handshake_admitted() follows, or a refusal. */
bool limits_ask_user(struct session *s);
void limits_answer(struct worker *w, const struct ipc_message *m);
void limits_stop_asking(struct setup *setup);
void limits_done(struct session *s);
/* The auth master ended, or is new and must hear of those who live. */
void limits_master_gone(struct worker *w);
void limits_master_new(struct worker *w);

/* authorise.c */
void authorise_request(struct session *s);
/* How the client authenticated, in the terms of policy. */
enum policy_method authorise_method(const struct session *s);
/* What a session was asked with, from its request on; but for the literal address, which is the caller's to set.  name: room for
 * its name. */
struct policy_request authorise_facts(const struct session *s, struct name *name);
/* Denies it before it relays, or notes and logs the rule that ends one that does. */
void authorise_deny(struct session *s, const struct policy_decision *d);
void authorise_note_denial(struct session *s, const struct policy_decision *d);
/* What decisions are made with, now. */
struct policy_context authorise_context(const struct worker *w);
/* A rule's `log`: people want to hear of it at once, besides the audit. */
void authorise_log(const struct session *s, const struct policy_decision *d, const char *destination, uint16_t port);
int authorise_take_image(struct worker *w, int fd, uint32_t revision, struct err *why);
/* table: one of the worker's two. */
int authorise_take_table(struct worker *w, struct table *table, int fd, struct err *why);
/* The addresses of this host, from the supervisor; false if the message is malformed. */
bool authorise_take_local(struct worker *w, const struct ipc_message *m);
void authorise_learn_ports(struct worker *w);

/* A sealed image; NULL with *why. */
struct ruleset *ruleset_open(int fd, uint32_t revision, struct err *why);
void ruleset_unref(struct ruleset **rules);

/* A BIND's peer has come: asks policy again, with its address. */
void authorise_peer(struct session *s, const struct addr *peer, struct policy_decision *d);

/* bind.c */
void bind_start(struct session *s);
void bind_wait(struct session *s);
/* Its peer did not come in time, or the session is over before. */
void bind_timeout(struct session *s);

/* preview.c */
void worker_preview_start(struct worker *w, const struct ipc_message *m);
void worker_preview_stop(struct worker *w);
/* The session is gone. */
void worker_preview_forget(const struct session *s);

/* connect.c */
/* The order in which candidates are tried, and recorded. */
void connect_order(struct setup *setup);
void connect_start(struct session *s);
void connect_stop(struct session *s);
/* May a candidate still become its destination? */
bool connect_may_use(const struct session *s, size_t candidate);
/* Some candidates have been refused since: goes on with the others.  False: the session has been refused. */
bool connect_again(struct session *s);

/* detail.c: what an event says beyond its columns, as a JSON object; "" if nothing. */
void detail_write(const struct session *s, const struct policy_image *image, const struct policy_decision *d, struct audit_event *e);
/* Where the event's address lies. */
void detail_write_place(const struct session *s, struct audit_event *e);
/* The same, and when it was connected (wall clock). */
void detail_write_connected(const struct session *s, int64_t connected_us, struct audit_event *e);
void detail_write_flow(const struct udp_flow *f, const struct policy_decision *d, struct audit_event *e);
void detail_write_dropped(const struct udp_counts *c, struct audit_event *e);

/* grant.c: when both are done, the client may know. */
void grant_init(struct worker *w);
void grant_start(struct session *s, const struct policy_decision *d);
void grant_recorded(struct waiter *setup);
/* The same for an association: no destination yet, so policy is asked at each. */
void grant_association(struct session *s);
void grant_connected(struct session *s, const struct candidate *c);
/* One of the two things is done; goes on when both are. */
void grant_finish(struct session *s);
void grant_failed(struct session *s, enum reason reason);
void grant_audit_timeout(struct session *s);
/* If no row has said yet with whom it is connected, one does now: what it would tell is about to change. */
void grant_tell(struct session *s);
/* It ends: when it was connected (wall clock), if its closing row is to say so; else 0. */
int64_t grant_untold(struct session *s);

/* relay.c */
/* Options of a connection to the other side, before there is one: its socket's, or its listener's, of which those that are accepted
 * have them.  Those of a client come from its listener. */
void relay_prepare(int fd);
void relay_start(struct session *s, const uint8_t *early, size_t len);
void relay_idle_check(struct session *s);
/* Frees what waits for a receiver. */
void relay_free(struct session *s);
