/* gatewayctl policy apply | rollback | approve | log | show | export ...: what is done with a running gateway's store of policies. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* argv[0] is the verb.  Each returns an exit code. */
int revision_apply(int argc, char **argv);
int revision_rollback(int argc, char **argv);
int revision_confirm(int argc, char **argv);
int revision_log(int argc, char **argv);
int revision_show(int argc, char **argv);
int revision_export(int argc, char **argv);
/* approval.c */
int revision_approve(int argc, char **argv);
int revision_reject(int argc, char **argv);
int revision_pending(int argc, char **argv);

/* What every verb that changes the policy in force can be told. */
struct revision_options {
	bool json, strict, dry_run, has_if, yes, has_max;
	uint32_t if_revision, max_ended, confirm_s;
	const char *comment;
};

/* For getopt_long(); letters are those of revision_option(), so a verb gives its own options other values. */
#define REVISION_OPTIONS                                                                                               \
	{"json", no_argument, NULL, 'j'}, {"strict", no_argument, NULL, 's'}, {"dry-run", no_argument, NULL, 'd'},     \
		{"if-revision", required_argument, NULL, 'i'}, {"comment", required_argument, NULL, 'c'},              \
		{"yes", no_argument, NULL, 'y'}, {"max-ended", required_argument, NULL, 'm'},                  \
		{"confirm", required_argument, NULL, 'k'}
#define REVISION_LETTERS "jsdicymk"

/* False if c is none of them, or optarg does not fit it. */
bool revision_option(struct revision_options *o, int c);

/* Puts a policy and its files into force, and tells what came of it.  Every change goes this way.  Returns the exit code. */
struct gathered;
int revision_put(struct gathered *g, const struct revision_options *o);

/* The same of an order that names a revision, and brings nothing. */
int revision_order(const char *command, uint32_t revision, const struct revision_options *o);
/* What the reply to an order that was carried out says of its revision. */
void revision_tell(const json_t *reply);

/* Of a description: a name for its user id (this machine's, if it has one) where the gateway said "uid N"; a time; how much it is. */
const char *revision_author(const json_t *description, char *out, size_t size);
const char *revision_moment(const json_t *description, const char *key, char *out, size_t size);
/* What the gateway knows of revisions that wait for approval, oldest first: an array, or NULL with an exit code in *code.  reply (may be
 * NULL): the last one, the caller's. */
json_t *revision_fetch_pending(json_t **reply, int *code);
/* What the gateway's store has, newest first, at most limit (0: all): an array, or NULL with an exit code in *code. */
json_t *revision_fetch_log(uint32_t limit, int *code);
