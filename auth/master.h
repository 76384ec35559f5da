/* What the files of the auth master share. */
#pragma once

#include <event2/event_struct.h>
#include <sys/queue.h>

#include "auth/auth.h"
#include "auth/hangs.h"
#include "auth/remember.h"
#include "auth/secrets.h"

struct worker {
	LIST_ENTRY(worker) next;
	struct auth_master *master;
	struct ipc *link;
	LIST_HEAD(, asker) askers;
	LIST_HEAD(, gss_login) gss_logins;
	struct limits_holder *admitted;
};

/* A worker's ask: it waits for a conversation's answer. */
struct asker {
	LIST_ENTRY(asker) of_worker, of_conversation;
	struct worker *worker;
	struct conversation *conversation;
	struct gss_login *gss; /* its answer completes that log-in; NULL: it is the worker's as it is */
	uint64_t id;	       /* the worker's */
};

struct child {
	struct auth_master *master;
	struct ipc *link; /* NULL while the slot is empty */
	struct conversation *running;
	bool used; /* since the pool was looked at last */
};

/* GSSAPI log-ins that are under way (gss_master.c). */
struct gss_desk {
	struct gss_child *serving;      /* who gets the next log-in; NULL while there is none */
	LIST_HEAD(, gss_child) children; /* it, and those before it that finish what they have begun */
	LIST_HEAD(, gss_login) logins;
	unsigned count;
	uint64_t asked, granted, denied;
};

/* uids whose names are asked for (logins.c): the first, by a child once one is free. */
#define LOGINS_WAITING_MAX 64

struct login_desk {
	uint32_t waiting[LOGINS_WAITING_MAX];
	unsigned n;
	struct child *child; /* that is at the first; NULL: none yet */
	uint64_t id;	     /* random: no child's answer can precede its question */
	struct event deadline;
	struct hangs hangs;
};

/* Questions for groups (asked_groups.c): the first, by a child once one is free. */
#define GROUPS_WAITING_MAX 4

struct groups_desk {
	struct auth_asked_groups waiting[GROUPS_WAITING_MAX];
	unsigned n;
	struct child *child; /* that is at the first; NULL: none yet */
	uint64_t id;	     /* that it knows it by: random */
	struct event deadline;
};

struct auth_master {
	struct event_base *base;
	struct auth_master_options options;
	struct limits *limits;
	struct remembered *remembered; /* holds the key of the hashes also when nothing is remembered */
	struct throttle *throttle;
	struct secrets *secrets;
	uint64_t generation; /* of what is remembered: an answer to what was asked in a former one is not */
	LIST_HEAD(, worker) workers;
	struct child *children;
	unsigned wanted; /* children that the supervisor has been asked for */
	bool sized;	 /* it has been asked, by this master */
	bool coming;	 /* the last of them has not come yet, since it was asked for */
	struct event pool_timer, throttle_timer;
	TAILQ_HEAD(conversation_queue, conversation) queue;
	unsigned queued, joined; /* askers beyond the first of a conversation, now */
	uint64_t asked, cancelled, killed, conversations, joined_ever, recalled, verdicts[AUTH_VERDICTS];
	struct gss_desk gss;
	struct login_desk logins;
	struct groups_desk groups;
};

/* master.c: a question about an account whose user has been vouched for; gss_login_judged() is called, maybe at once. */
void master_ask_account(struct worker *w, struct gss_login *login, const struct auth_ask *ask);
/* Nobody waits for it any more. */
void master_cancel_asker(struct asker *a);

/* Asks for a child's end; whoever waits for it is told. */
void master_kill_child(struct child *child, const char *reason);
/* Gives idle children what waits for one. */
void master_schedule(struct auth_master *m);

/* logins.c */
void logins_init(struct auth_master *m);
void logins_close(struct auth_master *m);
/* Some uid waits for a child. */
bool logins_wait(const struct auth_master *m);
void logins_start(struct child *child);
/* False: it was not asked that. */
bool logins_answered(struct child *child, const struct ipc_message *message);
void logins_child_gone(struct child *child);

/* asked_groups.c */
void groups_init(struct auth_master *m);
void groups_close(struct auth_master *m);
/* A question waits for a child. */
bool groups_wait(const struct auth_master *m);
void groups_start(struct child *child);
/* False: it was not asked that. */
bool groups_answered(struct child *child, const struct ipc_message *message);
void groups_child_gone(struct child *child);

/* gss_master.c */
/* False if the message is malformed. */
bool gss_on_ask(struct worker *w, const struct ipc_message *message);
/* True if the worker had such a log-in, which is dropped. */
bool gss_cancel(struct worker *w, uint64_t id);
void gss_drop_worker(struct worker *w);
void gss_login_set_asker(struct gss_login *login, struct asker *asker);
void gss_login_judged(struct gss_login *login, const struct auth_answer *answer);
/* At the end of the master: nobody is told any more. */
void gss_close(struct auth_master *m);
