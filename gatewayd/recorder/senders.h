/* The recorder: takes RECORD messages from everyone who has something to record, and answers RECORDED once they are
 * durable.  It is the audit's only writer. */
#pragma once

#include <stdbool.h>

#include "common/ipc.h"
#include "schema/audit_store.h"

struct recorder;

/* The store stays the caller's. */
struct recorder *recorder_new(struct event_base *base, struct audit_store *store, unsigned commit_interval_us);
void recorder_free(struct recorder **r);
/* A new link to a sender, or to who asks for the status; takes it over and attaches it. */
void recorder_add(struct recorder *r, struct ipc *link);
/* The recorder has just been started; first: with the whole gateway, so that nobody of before can be alive.  Otherwise
 * those who are will say so: nworkers of them.  Called before recorder_add(). */
void recorder_begin(struct recorder *r, bool first, unsigned nworkers);
/* The worker of this slot has ended: what it sent is taken, and then its sessions are closed as lost. */
void recorder_worker_gone(struct recorder *r, uint16_t slot);
/* From now on it does what is due each second. */
void recorder_start(struct recorder *r, uint64_t reserve_bytes);
/* Links that are there. */
size_t recorder_links(const struct recorder *r);
/* Commits what is queued and acknowledges it: 0, or -1 if the store fails. */
int recorder_finish(struct recorder *r);
/* Who takes orders of retention (retention.h), and is told when a link that may have brought one is gone. */
void recorder_on_retention(struct recorder *r, void (*ask)(struct ipc *link, const struct ipc_message *m, void *arg),
			   void (*link_gone)(const struct ipc *link, void *arg), void *arg);
/* Called whenever a link is gone. */
void recorder_on_gone(struct recorder *r, void (*gone)(void *arg), void *arg);
