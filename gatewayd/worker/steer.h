/* What administrators want of this worker's sessions: to see them, to end them, and that some do not begin.  A walk through all of
 * them goes a slice at a time between other work, and sends nothing that has not been asked after: a slow reader costs nothing. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/addr.h"
#include "common/name.h"
#include "gatewayd/worker/request.h"

struct ipc_message;
struct session;
struct steer;
struct worker;

struct steer *steer_new(struct worker *w);
/* SESSIONS_ASK, SESSIONS_MORE, SESSIONS_CANCEL, BLOCKS. */
void steer_message(struct worker *w, const struct ipc_message *m);
void steer_control_gone(struct worker *w);
/* No walk stands at it any more. */
void steer_session_gone(const struct session *s);

/* Why a destination of this session is blocked by an operator; NULL: it is not.  Where address is NULL, it is not known yet, where
 * rule is NULL, nobody has decided yet: a block that asks for them does not match. */
const char *steer_blocked(const struct session *s, const char *name, const struct addr *address, uint16_t port, const char *rule,
			  const struct name *aliases, size_t naliases);
/* The same of the peer of a BIND, or of what a session was allowed to use, by its rule. */
const char *steer_blocked_peer(const struct session *s, const struct addr *address, const char *rule);
/* Ends a session that has been granted and that a block matches as it stands now: with each destination that it may yet use, and by
 * the rule that allows it now.  False: it has been ended, and may be gone. */
bool steer_still_unblocked(struct session *s);
