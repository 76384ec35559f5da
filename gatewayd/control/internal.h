/* What the files of this folder share.  Control is the administrators' door and the only writer of the policy store. */
#pragma once

#include <event2/event_struct.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "common/ipc.h"
#include "gatewayd/child.h"
#include "gatewayd/recording.h"
#include "schema/policy_store.h"

struct control;

/* A link to a process that can be asked for its status. */
struct peer {
	LIST_ENTRY(peer) next;
	struct control *control;
	enum role role;
	uint16_t slot;
	struct ipc *link;
	bool asked; /* its STATUS has not come yet */
	bool awaited; /* a worker that has been sent the new policy, and has not said that it decides by it */
};

/* A compiler or reader that has been asked for; in the order of asking. */
struct spawn {
	TAILQ_ENTRY(spawn) next;
	enum role role;
	void (*started)(struct control *c, int fd, void *arg); /* takes over fd; -1: it was refused */
	void *arg;
};

/* Who gave a command. */
struct author {
	uid_t uid;
	char name[64];
};

/* What a reload, or the start, ended in. */
struct policy_result {
	bool ok;
	uint32_t revision;
	const char *error; /* one line; NULL if ok */
	json_t *notes;     /* array of warnings or diagnostics; borrowed */
};

typedef void policy_done(struct control *c, const struct policy_result *r, void *arg);

struct policy_state {
	struct policy_store *store;
	uint32_t revision;     /* in force */
	int64_t loaded_us;     /* wall clock */
	size_t rules;
	json_t *warnings;      /* of the revision in force */
	int image_fd, geo_fd;  /* sealed; -1: none */
	int64_t geo_mtime_ns, geo_size; /* of the database that geo_fd was made from */
	struct reload *reload; /* the one under way, or NULL */
};

struct control {
	struct child *child;
	int socket_fd;
	uid_t owner;
	gid_t group;     /* of administrators; (gid_t)-1: none */
	struct event accept_event, accept_pause;
	LIST_HEAD(, client) clients;
	unsigned nclients;
	LIST_HEAD(, peer) peers;
	TAILQ_HEAD(, spawn) spawns;
	struct recording *recording;
	struct policy_state policy;
	struct status_job *status_job;
	LIST_HEAD(, auth_job) auth_jobs;
	uint64_t auth_job_id;
	bool stopping;
};

/* admin.c: the socket and its clients. */
struct client;
void admin_start(struct control *c, int fd);
/* True while the client is still there. */
bool admin_is_client(const struct control *c, const struct client *client);
/* Sends one JSON object (taken over) and at most one descriptor (taken over; -1: none), and ends the client. */
void admin_reply(struct client *client, json_t *reply, int fd);
void admin_refuse(struct client *client, const char *error);
struct control *admin_control(const struct client *client);
const struct author *admin_author(const struct client *client);

/* control.c */
void control_spawn(struct control *c, enum role role, void (*started)(struct control *c, int fd, void *arg), void *arg);
void control_record(struct control *c, enum audit_kind kind, const struct author *author, uint32_t revision, const char *reason);

/* Warnings and diagnostics into the log, a line each. */
void control_log_notes(const json_t *notes);

/* policy.c: the revision in force.  done may be called before this returns. */
/* first: of this run of the gateway, not of this process; then everything must be sound. */
void policy_start(struct control *c, bool first);
void policy_reload(struct control *c, bool force, const struct author *author, policy_done *done, void *arg);
/* A worker has taken the policy, or is gone. */
void policy_taken(struct peer *worker);
/* From the supervisor: FILE_OPENED, FILE_REFUSED. */
void policy_file_message(struct control *c, struct ipc_message *m);
/* A worker that has just been linked gets what is in force. */
void policy_send(struct control *c, struct peer *worker);

/* compile.c: a compiler of its own for each piece of work. */
struct compiled {
	int fd;          /* sealed image, to be taken over (set to -1); -1: it failed */
	json_t *notes;   /* array of warnings or errors; borrowed */
	uint32_t rules;
};
typedef void compile_done(struct control *c, struct compiled *result, void *arg);
/* source_fd: sealed text or database, taken over.  name: for messages. */
void compile_start(struct control *c, enum ipc_type what, int source_fd, const char *name, bool gate, compile_done *done,
		   void *arg);

/* status.c */
void status_ask(struct client *client);
void status_client_gone(struct control *c, struct client *client);
void status_peer_answered(struct peer *p, struct ipc_message *m);
void status_peer_gone(struct peer *p);
void status_recorder_answered(struct control *c, struct ipc_message *m);
void status_processes(struct control *c, struct ipc_message *m);

/* auth.c: what administrators ask of the auth master. */
void auth_command_ask(struct client *client, const json_t *request);
void auth_client_gone(struct control *c, struct client *client);
void auth_answered(struct peer *p, struct ipc_message *m);
void auth_peer_gone(struct peer *p);
/* Nothing that was remembered before a reload is believed after it. */
void auth_forget_all(struct control *c);

/* query.c */
void query_start(struct client *client, const json_t *filter);
