/* What every role but the supervisor has in common: its link to the supervisor, its loop, its start and its end. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/ipc.h"
#include "gatewayd/conf.h"

struct event_base;

struct child {
	enum role role;
	uint16_t slot;
	const struct config *config;
	struct event_base *base;
	struct ipc *supervisor;

	/* Set by the role before child_run(); any may be NULL. */
	void (*on_peer)(struct child *c, enum role peer, uint16_t slot, int fd); /* takes over fd */
	void (*on_message)(struct child *c, struct ipc_message *m); /* from the supervisor, all but PEER and STOP */
	void (*on_stop)(struct child *c); /* default: leave the loop at once */
	bool ready_later; /* the role calls child_ready() itself, when it can serve */
	bool running;     /* child_run() has been called before */
	void *state;
};

/* Descriptors that a child finds open at its start. */
enum { CHILD_FD_SUPERVISOR = 3, CHILD_FD_CONFIG = 4, CHILD_FD_CLOCK = 5, CHILD_FD_FIRST_FREE = 6 };

/* Entry of a process that was started with --role: takes over the inherited descriptors, drops privileges, and runs the
 * role.  Returns an exit code. */
int child_main(enum role role, uint16_t slot);

/* Closes the sandbox for c->role, says READY (unless ready_later), and runs the loop until STOP or the supervisor's end.
 * Returns an exit code.  May be called again after child_leave(). */
int child_run(struct child *c);
/* Outside the loop: handles what the supervisor has sent, as the loop would; -1 when it is gone. */
int child_heed(struct child *c);
void child_ready(struct child *c);
/* Ends the loop from inside. */
void child_leave(struct child *c);
/* Tells the supervisor that a restart cannot help (read-only directory, broken store ...) and exits with EXIT_CONFIG. */
void child_unusable(struct child *c, const char *why) __attribute__((noreturn));

/* Asks the supervisor to end a process that missed its deadline or broke a rule; it decides whether we may. */
void child_ask_end(struct child *c, enum role role, uint16_t slot);

/* The roles' entries; each returns an exit code. */
int worker_main(struct child *c);
int auth_main(struct child *c);
int pam_main(struct child *c);
int gssapi_main(struct child *c);
/* While the rights of the start are still there: reads what later cannot be read. */
int gssapi_prepare(const struct config *config, struct err *why);
int recorder_main(struct child *c);
int control_main(struct child *c);
int compiler_main(struct child *c);
int reader_main(struct child *c);
