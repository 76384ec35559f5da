/* Authentication: the messages, the master that never blocks, and the child that may.
 *
 * The master remembers who has just logged in, slows down who guesses, and lets equal questions share one conversation.  It owns the queue and the conversation children's work: it gives each child one conversation at a time, at
 * most a quarter of the children and of the queue to one user or one client address, and asks for a child's death when
 * its deadline passes.  It has no privilege and no module of PAM in it.  A child runs one PAM conversation to its end
 * and knows nothing else. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "auth/limits.h"
#include "auth/throttle.h"
#include "common/addr.h"
#include "common/ipc.h"

#define AUTH_TEXT_MAX 255 /* RFC 1929: user name and password are 1 to 255 octets */
#define AUTH_GROUPS_MAX 64
#define AUTH_GROUP_NAME_MAX 63
#define AUTH_REASON_MAX 255
#define AUTH_LOGIN_MAX 63 /* of a user of this host, as one that shows beside its uid */
#define AUTH_DELAY_MAX_US (60 * 1000 * 1000)

/* One log-in to judge.  password is a secret: whoever holds a copy wipes it (auth_ask_wipe). */
struct auth_ask {
	uint64_t id;
	char service[64]; /* PAM service of the listener: auth_service_valid() */
	char listener[64];
	struct addr client;
	char user[AUTH_TEXT_MAX + 1];
	char password[AUTH_TEXT_MAX + 1];
	bool vouched; /* who user is has been proved (GSSAPI): no password; only the account and the groups are in question */
};

enum auth_verdict {
	AUTH_OK,
	AUTH_DENIED, /* wrong password, unknown user, expired or barred account: reason says which, for the audit */
	AUTH_FAILED, /* could not be judged: queue full, deadline, module error, child died */
	AUTH_THROTTLED, /* was not judged: too many were denied before it */
	AUTH_VERDICTS
};

struct auth_answer {
	uint64_t id;
	enum auth_verdict verdict;
	uint32_t delay_us; /* what PAM wants a refusal to wait (pam_fail_delay(3)); the worker waits it in its loop */
	char user[AUTH_TEXT_MAX + 1]; /* canonical, as PAM left it; as it was asked where PAM did not get that far */
	char reason[AUTH_REASON_MAX + 1]; /* one line for the audit, printable ASCII; never a secret; "" when AUTH_OK */
	uint16_t ngroups;		  /* 0 unless AUTH_OK */
	char groups[AUTH_GROUPS_MAX][AUTH_GROUP_NAME_MAX + 1];
};

/* Bodies of AUTH_ASK and PAM_ASK.  The writer's bytes are a secret, too: the caller wipes them once they are sent. */
void auth_put_ask(struct wire_writer *w, const struct auth_ask *a);
/* Reads a whole body.  False (and *a wiped) if it is malformed: lengths, a rest, a service that is no file name,
 * control bytes, empty user or password, no client address. */
bool auth_get_ask(struct wire_reader *r, struct auth_ask *a);
void auth_ask_wipe(struct auth_ask *a);
/* Bodies of AUTH_ANSWER and PAM_ANSWER. */
void auth_put_answer(struct wire_writer *w, const struct auth_answer *a);
/* The same promises as auth_get_ask(). */
bool auth_get_answer(struct wire_reader *r, struct auth_answer *a);
/* Body of AUTH_CANCEL: the worker's id of an ask that nobody waits for any more.  It gets no answer, unless that is
 * already on its way: a worker ignores answers whose id it does not know. */
void auth_put_cancel(struct wire_writer *w, uint64_t id);
bool auth_get_cancel(struct wire_reader *r, uint64_t *id);

/* ---- names of users of this host ------------------------------------------------------------------------------------ */

/* What the name service calls a uid. */
struct auth_login {
	uint64_t id;
	uint32_t uid;
	char name[AUTH_LOGIN_MAX + 1]; /* auth_login_valid(), or "": not known */
};

/* Bodies of LOGIN_ASK and PAM_LOGIN_ASK, without the name; of LOGIN_TOLD and PAM_LOGIN_TOLD, with it.  The get functions read a whole body. */
void auth_put_login_ask(struct wire_writer *w, const struct auth_login *l);
bool auth_get_login_ask(struct wire_reader *r, struct auth_login *l);
void auth_put_login(struct wire_writer *w, const struct auth_login *l);
bool auth_get_login(struct wire_reader *r, struct auth_login *l);
/* True for 1 to AUTH_LOGIN_MAX letters, digits and ._-@+$\, which no text that a name stands in can be mistaken for. */
bool auth_login_valid(const char *name);

/* ---- groups of this host -------------------------------------------------------------------------------------------- */

#define AUTH_ASKED_GROUPS_MAX 100

/* Whether a log-in could bring this group along. */
enum auth_group_state {
	AUTH_GROUP_ABSENT,
	AUTH_GROUP_KNOWN,
	AUTH_GROUP_UNTOLD, /* the name service or the groups file cannot tell, or not in time */
	AUTH_GROUP_STATES
};

struct auth_asked_groups {
	uint64_t id;
	uint16_t n; /* 1 to AUTH_ASKED_GROUPS_MAX */
	char names[AUTH_ASKED_GROUPS_MAX][AUTH_GROUP_NAME_MAX + 1]; /* of a question: auth_group_valid() */
	uint8_t states[AUTH_ASKED_GROUPS_MAX];			    /* of an answer: enum auth_group_state */
};

/* Bodies of GROUPS_ASK and PAM_GROUPS_ASK, without the states; of GROUPS_TOLD and PAM_GROUPS_TOLD, without the names.  The get functions
 * read a whole body, and leave the other half as it is. */
void auth_put_groups_ask(struct wire_writer *w, const struct auth_asked_groups *a);
bool auth_get_groups_ask(struct wire_reader *r, struct auth_asked_groups *a);
void auth_put_groups_told(struct wire_writer *w, const struct auth_asked_groups *a);
bool auth_get_groups_told(struct wire_reader *r, struct auth_asked_groups *a);
/* True for 1 to AUTH_GROUP_NAME_MAX bytes without a control byte: a log-in brings no other. */
bool auth_group_valid(const char *name);

/* ---- GSSAPI --------------------------------------------------------------------------------------------------------- */

#define GSS_CONTEXT_MAX 8192 /* of an exported context, in bytes */
#define GSS_INPUT_MAX 65535 /* RFC 1961: of a token */

/* A client's token. */
struct gss_ask {
	uint64_t id; /* the session's, the same at each step */
	char service[64], listener[64];
	struct addr client;
	const uint8_t *token; /* borrowed */
	size_t token_len;
};

/* The same on its way to the GSSAPI child, which needs no more. */
struct gss_step {
	uint64_t id;
	const uint8_t *token;
	size_t token_len;
};

struct gss_answer {
	uint64_t id;
	bool more;		   /* the context wants another token of the client */
	struct auth_answer answer; /* unless more: the verdict, and who it is; its id is not used */
	char principal[AUTH_TEXT_MAX + 1];
	uint32_t lifetime_s;	   /* that the client's ticket has left */
	const uint8_t *token;	   /* for the client; borrowed, may be empty */
	size_t token_len;
	const uint8_t *context; /* AUTH_OK: exported, a secret; borrowed */
	size_t context_len;
};

/* Bodies of GSS_ASK, GSS_STEP, GSS_ANSWER and GSS_STEPPED; whole bodies are read.  A context's bytes are a secret. */
void gss_put_ask(struct wire_writer *w, const struct gss_ask *a);
bool gss_get_ask(struct wire_reader *r, struct gss_ask *a);
void gss_put_step(struct wire_writer *w, const struct gss_step *s);
bool gss_get_step(struct wire_reader *r, struct gss_step *s);
void gss_put_answer(struct wire_writer *w, const struct gss_answer *a);
bool gss_get_answer(struct wire_reader *r, struct gss_answer *a);

/* A session that its listener's limits are asked about. */
struct auth_admit {
	uint64_t id; /* the worker's, not 0 */
	uint16_t listener;
	bool begun; /* before this master was here: it is counted, not judged, and gets no answer */
	struct addr client;
	char user[AUTH_TEXT_MAX + 1]; /* "" without a log-in */
};

/* Bodies of ADMIT_ASK; of ADMIT_ANSWER (why: NULL or "" for yes; full: no, because the listener has as many
 * sessions as it may); of ADMIT_DONE.  The get functions read a whole body. */
void auth_put_admit(struct wire_writer *w, const struct auth_admit *a);
bool auth_get_admit(struct wire_reader *r, struct auth_admit *a);
void auth_put_admit_answer(struct wire_writer *w, uint64_t id, const char *why, bool full);
bool auth_get_admit_answer(struct wire_reader *r, uint64_t *id, char why[AUTH_REASON_MAX + 1], bool *full);

/* Why a user name or password from a client may not reach PAM ("is empty", "holds a control byte", ...: the caller says
 * which of the two), or NULL. */
const char *auth_text_refused(const uint8_t *text, size_t len);

/* True if PAM may open a file of this name: 1 to 63 letters, digits, '-', '_' and '.', which does not come first.  A
 * configuration that lets another through has every log-in refused. */
bool auth_service_valid(const char *service);

/* ---- master ---------------------------------------------------------------------------------------------------- */

struct auth_master_options {
	unsigned children; /* conversation children that the supervisor keeps, in slots 0 to children - 1; at least 1 */
	/* Asks the supervisor for so many children, slots 0 to n - 1; NULL: there are always all. */
	void (*resize)(unsigned n, void *arg);
	unsigned children_min, idle_ms; /* with resize: at least, and how long one more is kept that nobody needs */
	unsigned queue_max;   /* conversations waiting; a quarter of them, but one at least, of one user or client */
	unsigned deadline_ms; /* of a conversation, from its start in a child; of one that waits, from its arrival */
	/* Asks the supervisor to end a GSSAPI child: a step took longer than gss_step_ms, or another serves in its place and it has
	 * finished what it had begun.  NULL: there is none. */
	void (*kill_gssapi)(uint16_t slot, void *arg);
	unsigned gss_step_ms;	   /* of a step, from the question to its answer */
	unsigned gss_client_ms;	   /* for how long a context waits for its client's next token */
	unsigned gss_contexts_max; /* unfinished ones; a quarter of them of one client network */
	/* Asks the supervisor to kill and replace the child in a slot: it missed its deadline or takes no question. Its
	 * link is closed before the call, and nothing that it still says is heard.  Whoever breaks the protocol, child
	 * or worker, is told of by ipc_on_violation() instead. */
	void (*kill_child)(uint16_t slot, void *arg);
	/* What a uid that was asked about is called; "": not known, or not in time. */
	void (*told_login)(uint32_t uid, const char *name, void *arg);
	/* What became of a question for groups. */
	void (*told_groups)(const struct auth_asked_groups *told, void *arg);
	void *arg;
	const struct limit_set *limits; /* one a listener, in their order; copied */
	size_t nlimits;
	struct limit_set limits_of_all; /* of clients and users over all listeners */
	unsigned remember_ms; /* how long a success answers equal questions; 0: each is a conversation of its own */
	size_t remember_max;
	struct throttle_options throttle;
};

struct auth_master;
struct event_base;

struct auth_master *auth_master_new(struct event_base *base, const struct auth_master_options *options);
void auth_master_free(struct auth_master **master);
/* A worker's link (again after its restart): takes over fd.  Whatever came over the slot's former link is dropped.  A
 * worker that breaks a rule or does not take its answers is cut off: its asks are dropped. */
void auth_master_add_worker(struct auth_master *m, uint16_t slot, int fd);
/* A conversation child's link (again after its restart): takes over fd. */
void auth_master_add_child(struct auth_master *m, uint16_t slot, int fd);
/* The GSSAPI child's link: it gets what begins from now on.  One that is there already keeps what it has begun. */
void auth_master_add_gssapi(struct auth_master *m, uint16_t slot, int fd);
/* Counters as a JSON object text, malloc'd, caller frees: children (alive), busy, queued, asked, ok, denied, failed,
 * throttled, cancelled (or their worker died), killed, conversations (that a child was given), joined (another's
 * conversation), recalled (answered from memory), remembered (entries). */
char *auth_master_status(const struct auth_master *m);

/* A conversation child that has nothing else to do looks for the name of this uid; told_login() is called, maybe at once. */
void auth_master_ask_login(struct auth_master *m, uint32_t uid);
/* The same for groups; told_groups() is called with the question's id, maybe at once. */
void auth_master_ask_groups(struct auth_master *m, const struct auth_asked_groups *asked);

/* Nothing that was remembered is believed any more. */
void auth_master_forget(struct auth_master *m);

/* Body of THROTTLED, to control, which records it.  The get function reads a whole body. */
void auth_put_news(struct wire_writer *w, const struct throttle_news *n);
bool auth_get_news(struct wire_reader *r, struct throttle_news *n);

/* What an administrator may have done. */
enum auth_command_kind { AUTH_COMMAND_LIST, AUTH_COMMAND_UNLOCK, AUTH_COMMAND_FORGET, AUTH_COMMANDS };

struct auth_command {
	uint64_t id;
	enum auth_command_kind kind;
	char user[AUTH_TEXT_MAX + 1]; /* "": all */
	struct prefix clients;	      /* family ADDR_NONE: all */
};

/* Body of AUTH_COMMAND; its answer, AUTH_COMMANDED, is the id and a JSON object. */
void auth_put_command(struct wire_writer *w, const struct auth_command *c);
bool auth_get_command(struct wire_reader *r, struct auth_command *c);
/* LIST: {"throttled":[{"client","user","failures","wait_ms"}],"left_off":n,"remembered":n}; UNLOCK: {"unlocked":n};
 * FORGET: {"forgotten":n}.  malloc'd, caller frees; fits a message. */
char *auth_master_command(struct auth_master *m, const struct auth_command *c);

/* ---- child ----------------------------------------------------------------------------------------------------- */

struct auth_child_options {
	const char *pam_confdir; /* NULL: the system's /etc/pam.d; else pam_start_confdir(3) */
	bool fold_case;		 /* user names are lower-cased (ASCII) before PAM sees them */
	/* NULL, or the path of a file in the format of group(5), read at each log-in: its groups that list the user (as
	 * PAM left the name; in lower case with fold_case) count besides those of NSS.  One that cannot be read, is
	 * over AUTH_GROUPS_FILE_MAX bytes or has a malformed line fails every log-in, because a deny rule about a group
	 * must not stop matching for want of the file. */
	const char *groups_file;
	/* NULL, or a link that has its turn between two conversations: heed() when there is something to receive, -1 to end serving;
	 * what is queued on it is sent. */
	struct ipc *beside;
	int (*heed)(void *arg);
	void *arg;
};

#define AUTH_GROUPS_FILE_MAX (1024 * 1024)

/* Serves conversations on a blocking link to the master until it closes: returns 0 then, and -1 if the master sent what
 * it may not.  Ignores SIGPIPE from here on (modules write to helpers that may be gone). */
int auth_child_serve(struct ipc *master, const struct auth_child_options *options);
