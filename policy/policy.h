/* The policy engine: image + request + time + addresses in, decision out.  No I/O, no clock, no globals.
 *
 * Life of a policy: text -> policy_parse() -> tree -> policy_check() -> policy_compile() -> image (offsets only, one
 * block of bytes) -> policy_image_verify() once, in full -> sealed -> policy_image_open() in every process that
 * decides. The worker, `gatewayctl policy explain`, the replay of the audit and the tests all call policy_decide_name()
 * and policy_decide_answers(); there is no second implementation of a rule's meaning outside tests/.
 *
 * All functions that can fail return 0 or -1 and say why in *why (one line, complete, for people), unless noted. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/addr.h"
#include "common/err.h"
#include "common/name.h"

/* ---- text to image ------------------------------------------------------------------------------------------- */

enum policy_severity { POLICY_ERROR, POLICY_WARNING };

struct policy_diagnostic {
	enum policy_severity severity;
	const char *code;      /* stable, e.g. "unknown-set"; for machines */
	char *file;	       /* owned by the list */
	unsigned line, column; /* from 1; 0 where there is no place */
	char *message;
	char *excerpt;		   /* the source line (or what surrounds the place), control bytes escaped, or NULL */
	unsigned caret, caret_len; /* the offending text in excerpt, in characters */
};

/* Errors and warnings in the order found; bounded (POLICY_DIAGNOSTICS_MAX, then one that says so). */
struct policy_diagnostics {
	struct policy_diagnostic *items;
	size_t count, errors, warnings;
};

#define POLICY_DIAGNOSTICS_MAX 100

void policy_diagnostics_free(struct policy_diagnostics *d);
/* "file:line:column: error: message", the line and a caret, for one diagnostic; malloc'd, caller frees. */
char *policy_diagnostic_format(const struct policy_diagnostic *d);

struct policy_tree;

/* Parses len bytes of text (any bytes).  Always returns a tree (never NULL) that holds what could be read; compile it
 * only while d->errors is 0.  file_name is only for messages. */
struct policy_tree *policy_parse(const char *file_name, const char *text, size_t len, struct policy_diagnostics *d);
/* The same for a policy that names other files (`include`, `set ... file`), whose content the caller provides.  read()
 * gets the file that names path (file_name, or a name that it gave) and sets *bytes and *name, both malloc'd and taken
 * over: *name is the file's name in messages, and the same for the same file.  -1 and *why if it cannot.
 * policy_parse() is this without a provider: there, naming a file is an error. */
struct policy_provider {
	int (*read)(void *arg, const char *from, const char *path, char **bytes, size_t *len, char **name,
		    struct err *why);
	void *arg;
};

struct policy_tree *policy_parse_with(const char *file_name, const char *text, size_t len,
				      const struct policy_provider *provider, struct policy_diagnostics *d);
void policy_tree_free(struct policy_tree *t);
/* The canonical form of a tree without errors, comments kept; parsing it gives the same tree.  malloc'd, caller frees.
 */
char *policy_print(const struct policy_tree *t);

/* Meaning: unknown sets and windows, duplicate names, impossible values ...  Appends to d. */
void policy_check(const struct policy_tree *t, struct policy_diagnostics *d);

/* What is allowed but hardly meant, as warnings: rules that never match or never decide, that change nothing, that have
 * expired; regular expressions that match nearly everything; a denied name that its address passes by.  For a policy
 * without errors; now is the time to judge by. */
struct policy_image;
void policy_find(const struct policy_tree *t, const struct policy_image *image, int64_t now,
		 struct policy_diagnostics *d);
/* A warning for every group of the policy that known() does not know. */
void policy_find_groups(const struct policy_tree *t, bool (*known)(const char *group, void *arg), void *arg,
			struct policy_diagnostics *d);

/* Runs the policy's own `expect` lines against its image; appends an error for each that fails.  Returns how many ran.
 */
struct policy_geo;
size_t policy_expect(const struct policy_tree *t, const struct policy_image *image, struct policy_diagnostics *d);
/* The same; sets reached[rule] for each rule that decided an expectation (reached may be NULL). */
size_t policy_expect_reached(const struct policy_tree *t, const struct policy_image *image, bool *reached,
			     struct policy_diagnostics *d);

/* Builds the image of a tree without errors.  *image is malloc'd, caller frees.  Appends to d; -1 if errors. */
int policy_compile(const struct policy_tree *t, uint8_t **image, size_t *len, struct policy_diagnostics *d);

/* ---- image ------------------------------------------------------------------------------------------------------ */

/* Every offset, index, count and enum of a hostile block of bytes; what passes cannot make the engine read outside. */
int policy_image_verify(const uint8_t *data, size_t len, struct err *why);
/* Header check only: data must have passed policy_image_verify() and be sealed.  data must outlive the image.
 * Holds per-process state (compiled patterns), so one image object belongs to one thread. */
struct policy_image *policy_image_open(const uint8_t *data, size_t len, struct err *why);
void policy_image_close(struct policy_image **image);

size_t policy_rule_count(const struct policy_image *image);
/* Valid while the image is open.  POLICY_NO_RULE gives "default". */
const char *policy_rule_name(const struct policy_image *image, uint32_t rule);
/* True for a monitor rule. */
bool policy_rule_monitors(const struct policy_image *image, uint32_t rule);
/* How loud the decision of this rule is (`log`); POLICY_NO_RULE gives POLICY_LOG_INFO. */
enum policy_log { POLICY_LOG_NONE, POLICY_LOG_INFO, POLICY_LOG_NOTICE, POLICY_LOG_WARNING, POLICY_LOG_ALERT };
enum policy_log policy_rule_log(const struct policy_image *image, uint32_t rule);
/* The address to connect from (`source`); ADDR_NONE if the rule does not say. */
struct addr policy_rule_source(const struct policy_image *image, uint32_t rule);
/* "" where the rule says nothing. */
const char *policy_rule_owner(const struct policy_image *image, uint32_t rule);
const char *policy_rule_ticket(const struct policy_image *image, uint32_t rule);
const char *policy_rule_comment(const struct policy_image *image, uint32_t rule);
/* `answers all`: a name with one refused address is refused. */
bool policy_answers_all(const struct policy_image *image);
/* `grace`: how long a live session goes on that this policy refuses; 0: not at all. */
unsigned policy_grace_s(const struct policy_image *image);
/* The next moment after now at which time alone may change a decision (a window, `from`, `until`): before it, the same request gets
 * the same answer.  INT64_MAX: never. */
int64_t policy_next_change(const struct policy_image *image, int64_t now);
/* Reads "2026-12-31" or "2026-12-31 18:00" as wall clock of the policy's zone: the first instant that shows it or more.
 */
int policy_instant_parse(const struct policy_image *image, const char *text, int64_t *instant, struct err *why);
/* Names of the groups that this policy mentions, so that the authenticator may report only those: index 0.. */
size_t policy_group_count(const struct policy_image *image);
const char *policy_group_name(const struct policy_image *image, size_t index);

/* Country or autonomous system of address prefixes: sealed tables of their own, made from an mmdb; whichever it is, the
 * same functions verify, open and close it. */
int policy_geo_compile(const char *mmdb_path, uint8_t **table, size_t *len, struct err *why);
int policy_asn_compile(const char *mmdb_path, uint8_t **table, size_t *len, struct err *why);
int policy_geo_verify(const uint8_t *data, size_t len, struct err *why);
struct policy_geo *policy_geo_open(const uint8_t *data, size_t len, struct err *why);
void policy_geo_close(struct policy_geo **geo);
/* Of which kind it is. */
bool policy_geo_is_asn(const struct policy_geo *geo);
/* False if the address has no country in a sound table. */
bool policy_geo_country(const struct policy_geo *geo, const struct addr *a, char country[3]);
/* The number of its autonomous system; 0 if it has none, or if this is no such table. */
uint32_t policy_geo_asn(const struct policy_geo *geo, const struct addr *a);

/* ---- request ------------------------------------------------------------------------------------------------------
 */

enum policy_command { POLICY_CONNECT = 1, POLICY_BIND = 2, POLICY_UDP = 3 };
enum policy_method {
	POLICY_METHOD_NONE,
	POLICY_METHOD_PASSWORD,
	POLICY_METHOD_GSSAPI, /* what follows is not protected */
	POLICY_METHOD_SOCKS4,
	POLICY_METHOD_GSSAPI_INTEGRITY,
	POLICY_METHOD_GSSAPI_CONFIDENTIALITY,
	POLICY_METHODS
};

/* Everything known of a request but the addresses of its name.  Borrowed pointers; absent is NULL or ADDR_NONE. */
struct policy_request {
	struct addr client;
	const char *listener;
	const char *user;	   /* NULL: not authenticated */
	const char *const *groups; /* of user */
	size_t ngroups;
	const char *claimed_user; /* SOCKS4 user id; never a log-in */
	enum policy_method method;
	enum policy_command command;
	const struct name *name; /* NULL: the client gave an address */
	struct addr address;	 /* the literal; ADDR_NONE when name is set */
	uint16_t port;		 /* DST.PORT */
};

/* What a deciding process knows besides the request.  geo and asn may be NULL: countries and autonomous systems cannot
 * be evaluated then. */
struct policy_context {
	const struct policy_image *image;
	const struct policy_geo *geo; /* of countries */
	const struct policy_geo *asn; /* of autonomous systems */
	int64_t now;		      /* wall clock, seconds since the epoch */
	const struct addr *local;     /* addresses of this host; with own_ports they are our own listeners */
	size_t nlocal;
	const uint16_t *own_ports;
	size_t nown_ports;
};

/* ---- decision -----------------------------------------------------------------------------------------------------
 */

#define POLICY_NO_RULE UINT32_MAX

enum policy_verdict { POLICY_DENY, POLICY_ALLOW, POLICY_RESOLVE };

enum policy_reason {
	POLICY_BY_RULE,	       /* `rule` decided */
	POLICY_BY_DEFAULT,     /* no rule matched */
	POLICY_BY_GUARD,       /* `rule` allowed, but the address is guarded and the rule does not open it */
	POLICY_CANNOT_DECIDE,  /* a condition of `rule` could not be evaluated */
	POLICY_NO_ANSWER,      /* policy_decide_answers() was given no address */
	POLICY_ANSWER_REFUSED, /* `answers all`, and one of the addresses is refused */
};

/* A monitor rule that matched before the deciding one: what it would have done. */
struct policy_monitor_hit {
	uint32_t rule;
	enum policy_verdict verdict; /* POLICY_ALLOW or POLICY_DENY */
};

#define POLICY_MONITORS_MAX 8

struct policy_decision {
	enum policy_verdict verdict;
	enum policy_reason reason;
	uint32_t rule;	    /* index, or POLICY_NO_RULE */
	const char *detail; /* constant text: which guard range, which limit; "" if none */
	struct policy_monitor_hit monitors[POLICY_MONITORS_MAX]; /* the first nmonitors, in rule order */
	uint32_t nmonitors;					 /* at most POLICY_MONITORS_MAX */
	uint32_t monitors_more;					 /* how many more there were */
};

/* Decides a request by name, its addresses unknown: POLICY_DENY (never look it up) or POLICY_RESOLVE.
 * req->name must be set. */
void policy_decide_name(const struct policy_context *ctx, const struct policy_request *req, struct policy_decision *d);

/* Decides one address: the literal of a request, or one answer for req->name.  aliases: the canonical names that the
 * answer's CNAMEs went through.  Gives POLICY_ALLOW or POLICY_DENY. */
void policy_decide_address(const struct policy_context *ctx, const struct policy_request *req,
			   const struct addr *address, const struct name *aliases, size_t naliases,
			   struct policy_decision *d);

/* Decides every address of an answer into each[0..n-1] and the request as a whole into *whole: allowed if at least one
 * address is (`answers any`), or all are (`answers all`).  A whole that is denied carries the first denial. */
void policy_decide_answers(const struct policy_context *ctx, const struct policy_request *req,
			   const struct addr *addresses, size_t n, const struct name *aliases, size_t naliases,
			   struct policy_decision *each, struct policy_decision *whole);

/* Before a client has said anything: false if, whatever it asked for and whoever it were, no rule could allow it because of where
 * it comes from.  True wherever that is not plain, and for a policy that allows nobody anything: each of those requests is worth
 * a record. */
bool policy_may_admit(const struct policy_image *image, const struct addr *client, const char *listener);

/* One line for logs, audit and people: "rule payroll-hr", "no rule matched", "address guard: loopback ..." */
const char *policy_decision_text(const struct policy_image *image, const struct policy_decision *d, char *buf,
				 size_t len);

/* Tells, rule by rule up to the deciding one, which condition failed; malloc'd text or JSON, caller frees.  The
 * addresses and aliases are those that the name has (without them, only the decision by name is told); for a request by
 * address they are ignored.  *d is the decision. */
char *policy_explain(const struct policy_context *ctx, const struct policy_request *req, const struct addr *addresses,
		     size_t n, const struct name *aliases, size_t naliases, bool json, struct policy_decision *d);

/* What changes from one policy to another, around the time of before.  In what is decided: for each pair of rules that decide alike
 * requests differently, one such request.  Made by trying the values of all rules of both: what it tells is so, what it does not tell
 * may differ where two rules together make a corner that no value stands for.  In what is said, where the trees are given (both, or
 * NULL): every statement that differs in more than layout and remarks.  malloc'd text or JSON, caller frees. */
struct policy_differences {
	size_t decided, said;
};
char *policy_diff(const struct policy_context *before, const struct policy_tree *before_tree, const struct policy_context *after,
		  const struct policy_tree *after_tree, bool json, struct policy_differences *count);
