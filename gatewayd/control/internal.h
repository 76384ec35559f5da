/* What the files of this folder share.  Control is the administrators' door and the only writer of the policy store. */
#pragma once

#include <event2/event_struct.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "auth/auth.h"
#include "common/ipc.h"
#include "gatewayd/child.h"
#include "gatewayd/compiler/compiler.h"
#include "gatewayd/steering.h"
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
#define PREVIEWS_MAX 4
	uint32_t previews[PREVIEWS_MAX]; /* that it has been asked for; 0: none */
};

/* A compiler or reader that has been asked for; in the order of asking. */
struct spawn {
	TAILQ_ENTRY(spawn) next;
	enum role role;
	void (*started)(struct control *c, int fd, void *arg); /* takes over fd; -1: it was refused */
	void *arg;
};

/* What a caller may do. */
enum right { RIGHT_VIEW = 1, RIGHT_AUDIT = 2, RIGHT_OPERATE = 4, RIGHT_ADMINISTER = 8 };

/* Each has a group of the host; root and the gateway's owner are administrators without one. */
enum control_role {
	CONTROL_ROLE_VIEWER,
	CONTROL_ROLE_AUDITOR,
	CONTROL_ROLE_OPERATOR,
	CONTROL_ROLE_ADMINISTRATOR,
	CONTROL_ROLES
};

/* Who gave a command. */
struct author {
	uid_t uid;
	char name[64]; /* "uid 1000" */
	unsigned rights; /* enum right */
	char login[AUTH_LOGIN_MAX + 1]; /* that the name service calls the uid; "": not known.  It is shown, and decides nothing. */
};

/* Commands refused lately, counted. */
#define REFUSED_MAX 32

struct refused {
	struct refused_one {
		struct author author;
		char command[96];
		unsigned count;
	} each[REFUSED_MAX];
	size_t n;
	struct event timer; /* runs while there is one */
};

/* A change of the policy, as it is ordered. */
struct policy_order {
	enum order_kind { ORDER_START, ORDER_RELOAD, ORDER_APPLY, ORDER_ROLLBACK, ORDER_APPROVE } kind;
	bool first;        /* ORDER_START: of this run of the gateway, not of this process; then everything must be sound */
	bool force;        /* ORDER_RELOAD: even if the store has moved on */
	bool strict;       /* warnings refuse it */
	bool by_signal;    /* ORDER_RELOAD: by nobody who is known */
	bool dry_run;      /* everything but the change */
	unsigned confirm_s; /* on trial for so long; 0: for good */
	bool unconfirmed;  /* ORDER_ROLLBACK: by itself, from a revision that nobody confirmed */
	bool yes;          /* ORDER_APPLY, ORDER_ROLLBACK, ORDER_APPROVE: however many live sessions it ends; */
	uint64_t max_ended; /* else so many at most */
	bool check_active; /* only if if_active is in force */
	uint32_t if_active;
	uint32_t revision; /* ORDER_ROLLBACK: to which; ORDER_APPROVE: which */
	int bundle_fd;     /* ORDER_APPLY: taken over; else -1 */
	json_t *found;     /* notes of whoever orders it, taken over; NULL: none */
	struct author author;
	char comment[POLICY_COMMENT_MAX + 1];
};

/* What it ended in. */
struct policy_result {
	bool ok;
	uint32_t revision; /* in force */
	uint32_t pending;  /* what came of it waits for approval; 0: it is in force */
	bool proposes;     /* it would come to that, or has */
	unsigned confirm_s; /* it is on trial for so long; 0: for good */
	const char *error; /* one line; NULL if ok */
	bool recorded; /* it has a row in the audit */
	json_t *notes;     /* borrowed, see notes.c */
	uint32_t errors, warnings; /* found in the policy */
	bool ends_too_many; /* that is why it is refused */
	uint64_t ended;     /* live sessions that it ends, or would end; where that was asked */
	json_t *sessions;   /* the first of them; borrowed; NULL: that was not asked */
};

typedef void policy_done(struct control *c, const struct policy_result *r, void *arg);

struct policy_state {
	struct policy_store *store;
	uint32_t revision; /* in force */
	int64_t loaded_us; /* wall clock */
	size_t rules;
	json_t *warnings;  /* of the revision in force: lines */
	size_t image_bytes;
	uint32_t switch_us; /* the longest that a worker was kept from its clients by taking it */
	int image_fd;      /* sealed; -1: none */
	struct change *change; /* the one under way, or NULL */
	unsigned trials;       /* dry runs beside it */
	unsigned stale_files;  /* answers of the supervisor to come that nobody waits for any more */
	/* The revision that was asked for last, while somebody may not have read it: they share it. */
	uint32_t fetched; /* 0: none */
	int fetched_fd;	  /* its sealed bundle */
	/* Who waits for one, in the order of asking; the keeper reads the first's. */
	TAILQ_HEAD(, asking) askings;
	unsigned nasking;
	bool fetching;
};

typedef void tables_done(struct control *c, void *arg);

/* What tells that a file has changed. */
struct file_id {
	int64_t mtime_ns, size;
	uint64_t inode, device;
};

struct table {
	int fd;   /* sealed, in force; -1: none */
	int held; /* the next one, in force if the change succeeds that it was made for; -1: none */
	struct file_id tried; /* the database that was made into a table last, or could not be */
	char fault[1024];     /* why it could not; "" */
	int64_t loaded_us;    /* wall clock; 0: by a control before this one */
};

/* keeper.c: what takes time with the policy store. */
struct keeper_answer {
	int rc;            /* as of policy_store_add(); -1: why */
	uint32_t revision; /* of KEEPER_ADD */
	int fd;            /* of KEEPER_READ, a sealed bundle: to be taken over by setting it to -1 */
	struct err why;
};
typedef void keeper_done(struct control *c, struct keeper_answer *answer, void *arg);

struct keeper {
	int fd;
	struct event event, late;
	struct keeper_order *current; /* under way; NULL: none */
	TAILQ_HEAD(, keeper_order) waiting;
};

/* The revision in force, while it is on trial. */
struct confirm {
	bool pending;
	struct policy_trial trial;
	int64_t ends_us; /* monotonic; */
	uint32_t ends_of; /* the end of this revision's trial; 0: of none */
	struct event timer;
	uint32_t failing; /* the revision whose rollback has failed; 0: none */
	unsigned fails;	  /* how often, one after the other */
};

/* Revisions that wait for approval. */
struct approvals {
	uint32_t revisions[POLICY_PENDING_MAX]; /* that waited at the last look */
	size_t waiting;
	struct event timer; /* runs while there are any */
};

enum table_kind { TABLE_COUNTRY, TABLE_ASN, TABLES };

struct tables {
	struct table each[TABLES];
	struct event timer;
	/* The look under way: */
	bool busy, hold, file_awaited;
	bool dropped; /* whoever wanted it does not any more */
	unsigned at;
	tables_done *done;
	void *arg;
	/* Who waits for the next: */
	tables_done *next_done;
	void *next_arg;
};

/* What workers had counted when they were asked: rates are the difference of two such moments. */
struct rates {
	struct sample {
		int64_t at_us; /* monotonic; 0: none */
		int64_t values[6];
	} last, before;
};

/* That the supervisor has yet to answer. */
struct drain_order {
	TAILQ_ENTRY(drain_order) next;
	struct client *client; /* NULL: gone */
	bool drain;
};

struct control {
	struct rates rates;
	struct child *child;
	int socket_fd;
	TAILQ_HEAD(, drain_order) drain_orders;
	uid_t owner;
	gid_t groups[CONTROL_ROLES]; /* (gid_t)-1: none */
	struct refused refused;
	struct event accept_event, accept_pause;
	LIST_HEAD(, client) clients;
	unsigned nclients, unread;
	LIST_HEAD(, peer) peers;
	TAILQ_HEAD(, spawn) spawns;
	struct recording *recording;
	struct policy_state policy;
	struct confirm confirm;
	struct approvals approvals;
	struct keeper keeper;
	LIST_HEAD(, preview) previews;
	LIST_HEAD(, groups_job) groups_jobs;
	uint32_t preview_number;
	struct tables tables;
	struct status_job *status_job;
	LIST_HEAD(, auth_job) auth_jobs;
	uint64_t auth_job_id;
	LIST_HEAD(, session_job) session_jobs;
	uint64_t session_job_id;
	json_t *blocks; /* in force, oldest first */
	uint32_t last_block;
	uint64_t forget_awaited; /* the last order to forget all, until the authenticator has done it; 0: none */
	LIST_HEAD(, retention_job) retention_jobs;
	uint64_t retention_job_id;
	bool stopping;
};

/* admin.c: the socket and its clients. */
struct client;
void admin_start(struct control *c, int fd);
/* True while the client is still there. */
bool admin_is_client(const struct control *c, const struct client *client);
/* The same for whoever may outlive it by far: a number is never another's. */
uint64_t admin_number(const struct client *client);
struct client *admin_find_client(const struct control *c, uint64_t number);
/* Sends one JSON object (taken over) and at most one descriptor (taken over; -1: none), and ends the client. */
void admin_reply(struct client *client, json_t *reply, int fd);
void admin_refuse(struct client *client, const char *error);
/* What it has ordered, once: its reply waits until that is durable in the audit, or tells after a while that it is not yet. */
void admin_record(struct client *client, enum audit_kind kind, const char *text);
/* The same of a revision that is not the one in force. */
void admin_record_revision(struct client *client, uint32_t revision, const char *text);
void admin_record_filter(struct client *client, const char *text, const json_t *filter);
/* What its command came to has a row, or will have: none is made of it besides. */
void admin_on_record(struct client *client);
/* The name of a uid, or that it is not known, or not yet: whoever waits for that is heard. */
void admin_named(struct control *c, uid_t uid, const char *name);
/* The same for what takes memory until it is read: the client counts until it closes its connection, and only so many may. */
bool admin_may_linger(const struct client *client);
void admin_reply_and_linger(struct client *client, json_t *reply, int fd);
struct control *admin_control(const struct client *client);
const struct author *admin_author(const struct client *client);
/* The descriptor that the request brought; -1 if none.  The caller's from then on. */
int admin_take_fd(struct client *client);

/* roles.c */
void roles_init(struct control *c);
/* Who is at the other end, and what that one may; false: nothing at all. */
bool roles_identify(const struct control *c, int fd, struct author *author);
/* "an operator": the least role that has this right. */
const char *roles_needed(unsigned right);
/* "viewer", "auditor and operator" ... */
#define ROLES_TEXT_MAX 64
const char *roles_text(const struct author *author, char buf[ROLES_TEXT_MAX]);
/* "uid 1000 (ann)", or without the name. */
#define AUTHOR_TEXT_MAX (64 + AUTH_LOGIN_MAX + 4)
const char *roles_author(const struct author *author, char buf[AUTHOR_TEXT_MAX]);
/* A command that its caller may not give, and why (may be NULL); and, at the end, what was only counted. */
void roles_record_refused(struct control *c, const struct author *author, const char *command, const char *why);
void roles_forget_refused(struct control *c);

/* names.c: what uids are called. */
/* True: that is name, "" if it is not known.  False: admin_named() will be called, soon. */
bool names_find(struct control *c, uid_t uid, char name[AUTH_LOGIN_MAX + 1]);
void names_told(struct peer *p, const struct ipc_message *m);
/* There is another authenticator. */
void names_ask_again(void);

/* looks.c: commands that leave no row of their own. */
void looks_init(struct control *c);
/* asked: the request without its command, or NULL.  why: it was refused; NULL: it was not. */
void looks_note(struct control *c, const struct author *author, const char *command, const json_t *asked, const char *why);
/* At the end: what was only counted. */
void looks_end(struct control *c);

/* control.c */
/* Has the supervisor end a worker; another takes its place, and is linked with what is in force. */
void control_end_worker(const struct peer *worker);
void control_spawn(struct control *c, enum role role, void (*started)(struct control *c, int fd, void *arg), void *arg);
void control_record(struct control *c, enum audit_kind kind, const struct author *author, uint32_t revision, const char *reason);
/* The same of an event that is filled in, but for its time and revision. */
void control_record_event(struct control *c, struct audit_event *e);
/* The same, with details, for a waiter, see record_event(). */
struct record *control_record_query(struct control *c, const struct author *author, const char *reason, const json_t *filter,
				    struct waiter *waiter);
/* The same for a waiter, see record_event(). */
struct record *control_record_for(struct control *c, enum audit_kind kind, const struct author *author, uint32_t revision,
				  const char *reason, struct waiter *waiter);

/* notes.c: warnings and diagnostics, JSON objects with severity, code, message and, if they have a place, file, line, column,
 * excerpt, caret and caret_len. */
#define NOTE_LINE_MAX 6144
void note_add(json_t *notes, const char *code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Any bytes as a JSON string. */
json_t *note_text(const char *text, size_t len);
/* "file:line:column: warning: message [code]" */
const char *note_line(const json_t *note, char *buf, size_t size);
/* Into the log. */
void control_log_notes(const json_t *notes);
/* Their lines: as one malloc'd text for the store (NULL: out of memory), as an array of strings for status. */
char *notes_join(const json_t *notes);
json_t *notes_lines(const json_t *notes);
/* As many as a reply holds. */
json_t *notes_for_reply(const json_t *notes);

/* policy.c: the revision in force.  done may be called before this returns. */
void policy_start(struct control *c, bool first);
void policy_change(struct control *c, const struct policy_order *order, policy_done *done, void *arg);
/* A trial is over: the change under way is abandoned, unless it is being stored already. */
void policy_give_way(struct control *c);
/* The change under way; NULL: there is none. */
json_t *policy_change_status(const struct control *c);
/* A worker has taken the policy, or is gone. */
void policy_taken(struct peer *worker);
/* The authenticator has forgotten what it remembered. */
void policy_forgotten(struct control *c);
/* A worker cannot take a revision, and is ended: nobody decides by what is no longer in force. */
void policy_not_taken(struct peer *worker, uint32_t revision, const char *why);
/* From the supervisor: whether another GSSAPI process serves. */
void policy_gssapi_renewed(struct control *c, struct ipc_message *m);
/* From the supervisor: FILE_OPENED, FILE_REFUSED. */
void policy_file_message(struct control *c, struct ipc_message *m);
/* A worker that has just been linked gets what is in force. */
void policy_send(struct control *c, struct peer *worker);
/* A stored revision with its files, as a sealed bundle; -1 with *why.  checks (may be NULL) is malloc'd. */
int policy_bundle_of(struct policy_store *store, uint32_t id, struct policy_revision *out, char **checks, struct err *why);

/* tables.c */
void tables_init(struct control *c);
/* Makes those anew whose database has changed, and holds them until tables_commit() or tables_discard(). */
void tables_refresh(struct control *c, tables_done *done, void *arg);
/* True: it was waited for with this arg, and its end is not told any more. */
bool tables_forget(struct control *c, const void *arg);
/* Recorded as a change by this author; NULL: the gateway itself. */
void tables_commit(struct control *c, const struct author *author);
void tables_discard(struct control *c);
void tables_send(struct peer *worker);
/* What the control before this one had in force comes back; true: fd is taken over. */
bool tables_kept(struct control *c, unsigned file, int fd);
/* fd: taken over by setting it to -1; NULL: the file cannot be opened, and why. */
void tables_file_message(struct control *c, unsigned file, int *fd, const char *why);
/* The first fault of any, or NULL; and all of them as notes. */
const char *tables_fault(const struct control *c);
void tables_note_faults(const struct control *c, json_t *notes);
bool tables_have_country(const struct control *c);
json_t *tables_status(const struct control *c);

/* revisions.c: commands of administrators. */
void revisions_reload(struct client *client, const json_t *request);
void revisions_apply(struct client *client, const json_t *request);
void revisions_rollback(struct client *client, const json_t *request);
void revisions_approve(struct client *client, const json_t *request);
void revisions_log(struct client *client, const json_t *request);
void revisions_get(struct client *client, const json_t *request);
void revisions_head(struct client *client, const json_t *request);
/* 0 is no revision: of the one in force where that has a meaning.  False: it is malformed, and has been refused. */
bool revisions_read_number(struct client *client, const json_t *request, uint32_t *id);
/* As a reply tells of it. */
json_t *revisions_describe(const struct policy_revision *r, uint32_t active);
/* Those that one reply has room for.  revisions: an array, of the caller's. */
struct revisions_page {
	json_t *revisions;
	uint32_t active;
	size_t bytes;
	bool more; /* than it holds */
};
/* False: there is no room for it. */
bool revisions_page_add(struct revisions_page *page, const struct policy_revision *r);
/* Nobody has a revision to read any more. */
void revisions_all_read(struct control *c);

/* Groups that a policy names, the first of them. */
struct named_groups {
	size_t all, n;
	struct named_group {
		char name[AUTH_GROUP_NAME_MAX + 1]; /* "": of a name that no log-in brings along */
		json_t *note;			    /* that says that there is none */
	} each[AUTH_ASKED_GROUPS_MAX];
};

/* compile.c: a compiler of its own for each piece of work. */
struct compiled {
	int fd;          /* sealed image or table, to be taken over (set to -1); -1: it failed */
	json_t *notes;   /* array of warnings or errors; borrowed */
	uint32_t rules, errors, warnings;
	struct named_groups *groups; /* of a policy, to be taken over (set to NULL); NULL: it failed */
};
typedef void compile_done(struct control *c, struct compiled *result, void *arg);
/* source_fd: a sealed bundle, or a database; taken over.  flags: enum compile_flags. */
void compile_start(struct control *c, enum ipc_type what, int source_fd, unsigned flags, compile_done *done, void *arg);

/* groups.c: whether this host has groups. */
struct groups_found {
	json_t *absent; /* the notes of those that there are not; borrowed */
	size_t untold;	/* of how many nobody could tell, */
	const char *why; /* and why not; NULL: the answer was that */
};
typedef void groups_done(struct control *c, const struct groups_found *found, void *arg);
/* Takes groups over.  done() is called, maybe at once. */
void groups_ask(struct control *c, struct named_groups *groups, groups_done *done, void *arg);
void groups_free(struct named_groups **groups);
void groups_told(struct peer *p, const struct ipc_message *m);
void groups_peer_gone(const struct peer *p);

/* keeper.c */
/* Before the store is opened. */
void keeper_start(struct control *c);
/* With what a change ordered. */
bool keeper_is_busy(const struct control *c);
/* policy_store_add(), of the words in n and the texts in a sealed bundle (borrowed).  One order at a time: for the change.  -1 with *why:
 * it is not ordered. */
int keeper_add(struct control *c, const struct policy_new *n, int bundle_fd, keeper_done *done, void *arg, struct err *why);
/* policy_bundle_of().  of_change: ahead of those who only look. */
void keeper_read(struct control *c, uint32_t revision, bool of_change, keeper_done *done, void *arg);
/* policy_store_approve() */
void keeper_approve(struct control *c, const struct policy_judgement *v, keeper_done *done, void *arg);

/* confirm.c */
void confirm_init(struct control *c);
/* Another revision is in force, or may be. */
void confirm_look(struct control *c);
void confirm_order(struct client *client, const json_t *request);
/* Has the rollback of what is on trial failed before?  It is recorded once. */
bool confirm_failed_before(const struct control *c);
/* Is what is in force about to be rolled back?  Not while that fails: then others may mend it. */
bool confirm_is_over(const struct control *c);
/* The rollback of a trial that is over. */
void confirm_fill_order(struct policy_order *order, const struct policy_trial *t);
/* NULL: nothing is on trial. */
json_t *confirm_status(const struct control *c);

/* approvals.c */
void approvals_init(struct control *c);
/* At the start of a control, before anything is stored: a control before it may have been killed between storing a verdict and having
 * it recorded, and that was the last. */
void approvals_found(struct control *c);
/* Once a revision is in force: those that wait. */
void approvals_start(struct control *c);
/* There may be others: expires those whose time is over. */
void approvals_look(struct control *c);
void approvals_pending(struct client *client, const json_t *request);
void approvals_reject(struct client *client, const json_t *request);
/* The revision that waits with just this text of the policy file, for the one in force; 0: there is none. */
uint32_t approvals_find_import(struct control *c, const uint8_t hash[POLICY_HASH_BYTES]);
json_t *approvals_status(const struct control *c);

/* preview.c */
struct preview_result {
	uint64_t decided, ended;
	bool unknown;     /* of some it is not known */
	json_t *sessions; /* the first that would end; borrowed */
	json_t *notes;    /* why it is not known; borrowed */
};
typedef void preview_done(struct control *c, const struct preview_result *r, void *arg);
/* done is called once, and not before this returns. */
void preview_start(struct control *c, int image_fd, preview_done *done, void *arg);
void preview_answered(struct peer *peer, struct ipc_message *m);
void preview_peer_gone(struct peer *peer);

/* status.c */
void status_ask(struct client *client);
void status_client_gone(struct control *c, struct client *client);
void status_peer_answered(struct peer *p, struct ipc_message *m);
void status_peer_gone(struct peer *p);
void status_recorder_answered(struct control *c, struct ipc_message *m);
void status_processes(struct control *c, struct ipc_message *m);

/* rates.c: a new JSON object, of now (the sums of all workers) against a moment before that is at least a second ago; since_us: how
 * long the gateway runs. */
json_t *rates_of(struct rates *r, const json_t *workers, int64_t since_us);

/* running.c: what operators want of the gateway as a whole. */
void running_drain(struct client *client, const json_t *request);
/* The supervisor's answer to the oldest order that has none. */
void running_drained(struct control *c, struct ipc_message *m);
void running_client_gone(struct control *c, const struct client *client);
void running_log_level(struct client *client, const json_t *request);

/* auth.c: what administrators ask of the auth master. */
void auth_command_ask(struct client *client, const json_t *request);
/* NULL while there is none. */
struct peer *auth_peer(const struct control *c);
void auth_client_gone(struct control *c, struct client *client);
void auth_answered(struct peer *p, struct ipc_message *m);
/* The auth master has news of a throttle, which are recorded. */
void auth_throttled(struct peer *p, struct ipc_message *m);
void auth_peer_gone(struct peer *p);
/* Nothing that was remembered before a change is believed after it. */
void auth_forget_all(struct control *c);

/* retention.c: what administrators ask of the recorder. */
void retention_order(struct client *client, const json_t *request);
void retention_client_gone(struct control *c, struct client *client);
void retention_answered(struct control *c, struct ipc_message *m);
void retention_recorder_gone(struct control *c);
/* sessions.c: sessions that live. */
void sessions_list(struct client *client, const json_t *request);
/* One, with its flows, or with those who may come to a BIND. */
void sessions_show(struct client *client, const json_t *request);
/* The last refusals, and the rules that decide most. */
void sessions_recent(struct client *client, const json_t *request);
void sessions_kill(struct client *client, const json_t *request);
/* A place for sessions_end(), which then cannot fail; NULL: there is none, and the client has been refused. */
struct session_job;
struct session_job *sessions_end_later(struct client *client);
/* Ends those that match, and replies with their number, and extra (taken over; may be NULL). */
void sessions_end(struct session_job *j, struct client *client, const char *filter, const char *reason, json_t *extra);
/* Replies, with extra as well, once all workers have taken what was sent to them; with a place that was had before. */
struct session_job *sessions_wait_later(struct client *client);
void sessions_wait(struct session_job *j, struct client *client, json_t *extra);
/* Of a request; false: it is malformed, and has been refused.  all: a filter may be empty. */
bool sessions_read_filter(struct client *client, const json_t *request, bool all, char out[STEERING_FILTER_MAX]);
bool sessions_read_reason(struct client *client, const json_t *request, char out[STEERING_REASON_MAX + 1]);
void sessions_record(struct client *client, const char *what, const json_t *filter, const char *reason);
void sessions_answered(struct peer *p, const struct ipc_message *m);
void sessions_peer_gone(struct peer *p);
void sessions_client_gone(struct control *c, const struct client *client);

/* blocks.c: what is not to begin. */
void blocks_start(struct control *c);
void blocks_send(const struct peer *worker);
void blocks_add(struct client *client, const json_t *request);
void blocks_list(struct client *client, const json_t *request);
void blocks_remove(struct client *client, const json_t *request);

/* query.c */
void query_start(struct client *client, const json_t *request);
