/* What the files of this folder share. */
#pragma once

#include <event2/event_struct.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "common/ipc.h"
#include "gatewayd/conf.h"
#include "gatewayd/cpus.h"

struct supervisor;

/* A process that is to run: restarted until the gateway stops, unless it is temporary. */
struct process {
	TAILQ_ENTRY(process) next;
	struct supervisor *sup;
	enum role role;
	uint16_t slot;
	bool temporary; /* a compiler or reader: ends by itself, gone then */
	enum { SERVES, ON_TRIAL, RETIRED } part; /* of GSSAPI processes, see gssapi.c; all others serve */
	pid_t pid;      /* 0: not running, waiting for its restart */
	struct ipc *link;
	bool ready;
	unsigned unanswered;	/* questions whether it lives */
	int64_t started_us; /* monotonic */
	unsigned restarts;
	unsigned backoff_ms;
	bool killed_on_request; /* its death is no fault */
	struct event timer;     /* restart, or the deadline of a temporary process */
	char last_end[64];      /* how it ended last, for status */
};

TAILQ_HEAD(process_list, process);

enum phase { PHASE_STARTING, PHASE_RUNNING, PHASE_STOP_WORKERS, PHASE_STOP_OTHERS, PHASE_STOP_RECORDER };

/* One listening socket: worker `slot`'s share of an address (SO_REUSEPORT). */
struct listening {
	uint16_t listener, address, slot;
	int fd;
	bool mute; /* it is to listen, and could not yet be made to */
};

struct supervisor {
	const struct config *config;
	struct event_base *base;
	struct process_list processes;
	enum phase phase;
	int exit_code;
	int64_t started_us; /* monotonic */
	uint16_t next_temporary_slot, next_gssapi_slot;
	char gssapi_fault[600]; /* what the GSSAPI process on trial has said about its start */
	unsigned pam_wanted; /* conversation children, between the configured bounds */
	int config_fd, clock_fd, control_fd;
	int tables[CONFIG_FILES]; /* sealed, by enum config_file; -1: none.  Held for control, in case it is restarted */
	int state_fd, audit_fd, policy_fd, gssapi_fd;         /* directories, opened once */
	struct process *stand_ins[CONFIG_WORKERS_MAX]; /* by slot: who accepts for a missing worker */
	struct listening *listening;
	size_t nlistening;
	bool draining; /* no listener listens */
	struct cpus cpus; /* with cpu-local */
	int log_level; /* that was ordered; -1: the configured one */
	char last_error[301]; /* of any process; "": none */
	char last_error_of[32];
	int64_t last_error_us; /* wall clock */
	struct event term, intr, hup, child, stop_deadline, watch, groups_change, listen_again;
};

/* process.c: one process' birth and death. */
struct process *process_add(struct supervisor *s, enum role role, uint16_t slot, bool temporary);
/* Forks and executes it; on failure schedules another try. */
void process_start(struct process *p);
/* After waitpid(2): notes how it ended, and restarts it or forgets it. */
void process_ended(struct process *p, int status);
void process_kill(struct process *p);
/* Forgets one that does not run. */
void process_remove(struct process *p);
/* False of a conversation child that is not needed now. */
bool process_wanted(const struct process *p);
struct process *process_find(struct supervisor *s, enum role role, uint16_t slot);

/* links.c: who talks to whom. */
void links_connect(struct process *p);
/* A pair between a and b, one end to each: 0, or -1 if none could be made. */
int links_pair(struct process *a, struct process *b);

/* listen.c: the sockets, made once; a missing worker's are served by a sibling. */
int listen_open(struct supervisor *s, struct err *why);
int listen_open_control(struct supervisor *s, struct err *why);
void listen_worker_started(struct process *worker);
/* After a worker became ready or died: every slot is served by its own worker, or by one that stands in. */
void listen_rebalance(struct supervisor *s);
void listen_worker_gone(struct process *worker);
void listen_close_all(struct supervisor *s);

/* Ends listening, so that clients are refused and go elsewhere; or takes it up again: 0, or -1 with what could not be done; what
 * does not listen again is tried again. */
int listen_drain(struct supervisor *s, bool drain, struct err *why);
/* How many sockets do not listen, though they are to. */
uint16_t listen_mute(const struct supervisor *s);
void listen_tell_draining(const struct process *worker);

/* files.c: what children cannot open themselves. */
int files_prepare_state(struct supervisor *s, struct err *why);
void files_send_resolver(const struct process *worker);
/* The addresses of this host, for the guard of our own listeners. */
void files_send_local(const struct process *worker);
/* Opens a configured file for control: a regular file, or why not. */
int files_open_configured(const struct supervisor *s, enum config_file file, struct err *why);

/* watch.c: whether those who serve live. */
void watch_start(struct supervisor *s);

/* groups.c: has the auth master forget what it remembers when groups may have changed. */
void groups_watch(struct supervisor *s);

/* gssapi.c: another GSSAPI process, with what keytab and krb5.conf hold now, in the place of the one that serves. */
/* Control asks for it; the answer goes to it when it is known whether there is one. */
void gssapi_renew(struct supervisor *s);
/* The one on trial is ready, or has ended. */
void gssapi_promote(struct process *successor);
void gssapi_failed(struct process *successor);
/* A new auth master knows nothing of what those before had begun. */
void gssapi_end_retired(struct supervisor *s);

/* requests.c: what children ask for. */
/* A control that has just been started gets what the one before had in force. */
void requests_return_tables(const struct process *control);
ipc_handler requests_handle;
/* The last error of any process, for status. */
void requests_note_error(struct supervisor *s, const char *who, const char *text, size_t len);

/* supervisor.c */
void supervisor_child_ready(struct process *p);
/* Something that no restart can cure. */
void supervisor_give_up(struct supervisor *s, const struct process *p, const char *why);
void supervisor_check_phase(struct supervisor *s);
