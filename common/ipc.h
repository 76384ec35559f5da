/* Messages between the processes of gatewayd, over SOCK_SEQPACKET pairs.
 *
 * ipc.def lists every message, who may send it, its largest body and its descriptors.  A datagram carries one or more
 * messages (batches make it cheap).  What arrives is checked against the table before a handler sees it; a peer that
 * breaks a rule loses its link: the handler `gone` is called, and the supervisor replaces the process.
 *
 * Sending never blocks: messages queue, bounded by IPC_QUEUE_MAX bytes, and leave at the end of the loop turn. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/role.h"
#include "common/wire.h"

#define IPC_DATAGRAM_MAX (128 * 1024)
#define IPC_QUEUE_MAX (16 * 1024 * 1024)
#define IPC_FDS_MAX 4

enum ipc_type {
#define IPC_MESSAGE(name, from, to, size, fds) IPC_##name,
#include "common/ipc.def"
	IPC_TYPE_COUNT
};

const char *ipc_type_name(enum ipc_type type);
/* Largest body of a message of this type, in bytes. */
size_t ipc_body_max(enum ipc_type type);

struct ipc_message {
	enum ipc_type type;
	const uint8_t *body; /* borrowed: valid during the handler */
	size_t len;
	int fds[IPC_FDS_MAX]; /* close-on-exec; a handler that keeps one sets it to -1, the rest are closed after it */
	int nfds;
};

struct ipc;
struct event_base;

typedef void ipc_handler(struct ipc *link, struct ipc_message *m, void *arg);
/* The peer is gone or broke a rule.  The link is dead but allocated: the owner frees it here or later. */
typedef void ipc_gone(struct ipc *link, void *arg);

/* Makes one end of a pair into a link; takes over fd.  self and peer are roles: what peer may send to self is what the
 * table says. */
struct ipc *ipc_new(int fd, enum role self, enum role peer, uint16_t peer_slot);
/* Joins the loop: handler for each message.  May be called once. */
void ipc_attach(struct ipc *link, struct event_base *base, ipc_handler *handler, ipc_gone *gone, void *arg);
/* Safe inside a handler of the same link. */
void ipc_free(struct ipc **link);

/* Stops reading, and starts again: what the peer sends meanwhile stays with the kernel, then with the peer (its queue), and
 * its ipc_send() fails in the end.  Messages of a datagram that has been read already are still handled. */
void ipc_pause(struct ipc *link, bool paused);

enum role ipc_peer(const struct ipc *link);
uint16_t ipc_peer_slot(const struct ipc *link);
/* True once the peer broke a rule: it may still be alive, unlike one that closed its end. */
bool ipc_broke_rules(const struct ipc *link);
/* For what only a handler can judge, a malformed body say: ends the link as any other broken rule does.  Nothing more
 * that came is handled, ipc_send() fails, and `gone` is called, in a handler of this link once that has returned, else in
 * the loop's next turn: never under the caller's feet.  Does nothing to a link that has ended. */
void ipc_reject(struct ipc *link, const char *why);
/* Called once for each peer that breaks a rule, on any link of this process, so that somebody can see to its end. */
void ipc_on_violation(void (*report)(enum role role, uint16_t slot, void *arg), void *arg);
/* Bytes waiting to be sent. */
size_t ipc_queued(const struct ipc *link);

/* Queues a message; fds are duplicated by the kernel when sent, and must stay open until then: the link takes them over
 * and closes them.  0, or -1 if the link is dead or its queue is full (fds are closed then, too). */
int ipc_send(struct ipc *link, enum ipc_type type, const void *body, size_t len, const int *fds, int nfds);
/* The same for a body in a writer; a writer that overflowed is an error (-1). */
int ipc_send_wire(struct ipc *link, enum ipc_type type, const struct wire_writer *body);

/* For roles without a loop: sends what is queued, blocking; 0 or -1. */
int ipc_flush_blocking(struct ipc *link);
/* Waits until one of two links has something to receive, or has ended: that one, b before a; NULL on an error. */
struct ipc *ipc_wait_blocking(struct ipc *a, struct ipc *b);
/* Waits for a datagram and handles its messages; 0, or -1 when the peer is gone, or the handler freed the link. */
int ipc_receive_blocking(struct ipc *link, ipc_handler *handler, void *arg);

/* A connected pair, close-on-exec, non-blocking. */
int ipc_pair(int fds[2]);
