/* The store of policies: every revision that was ever applied.  Rows are added and never changed; only control writes.
 * SQL stands here and nowhere above. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

#define POLICY_HASH_BYTES 32
#define POLICY_TEXT_MAX (64u * 1024 * 1024)
#define POLICY_LIST_MAX (256u * 1024 * 1024) /* of one file that the policy names */
#define POLICY_FILES_MAX 1000
#define POLICY_NAME_MAX 4095
#define POLICY_COMMENT_MAX 1023
#define POLICY_CHECKS_MAX 65536
#define POLICY_PENDING_MAX 32 /* revisions that wait for approval */

struct policy_store;

/* path is used as it stands; see schema/db_vfs.h.  NULL with *why. */
struct policy_store *policy_store_open(const char *path, bool read_only, struct err *why);
void policy_store_close(struct policy_store **store);
/* 0: nobody else is at a change of the store; -1 with *why, after a while. */
int policy_store_settled(struct policy_store *s, struct err *why);

/* BLAKE2b-256: what tells texts apart. */
void policy_store_hash(const void *text, size_t len, uint8_t hash[POLICY_HASH_BYTES]);

/* A file that a policy names, and what it held. */
struct policy_file {
	const char *name, *text;
	size_t len;
};

struct policy_new {
	const char *name; /* of the text, in messages; NULL: none */
	const char *text;
	size_t len;
	const struct policy_file *files;
	size_t nfiles;
	uint32_t author_uid;
	const char *author; /* name of author_uid, or its digits */
	const char *source; /* "file", "rollback" ... */
	const char *comment;
	const char *checks; /* what the checks said: warnings, one a line */
	int64_t time_us;
	int64_t lasts_us;  /* on trial for so long; 0: for good */
	bool imported;	   /* text is that of the configured policy file: remembered as the last import */
	bool check_active; /* refuse (1) unless the active revision is still if_active (0: none yet) */
	uint32_t if_active;
	int64_t proposed_until_us; /* it waits for approval, until then at the latest; 0: it is put into force */
};

/* Adds a revision and makes it the active one, by which what waits is outdated, or one that waits, in one transaction: 0 with *id,
 * 1 if someone else was faster (*id is the active revision), -1 with *why. */
int policy_store_add(struct policy_store *s, const struct policy_new *n, uint32_t *id, struct err *why);

/* 0 with *id (0: no policy was ever applied), or -1 with *why. */
int policy_store_active(struct policy_store *s, uint32_t *id, struct err *why);

struct policy_revision {
	uint32_t id;
	int64_t time_us;
	uint32_t author_uid;
	char author[256];
	char source[32];
	char comment[POLICY_COMMENT_MAX + 1];
	uint8_t hash[POLICY_HASH_BYTES];
	size_t len; /* of the text */
	char name[POLICY_NAME_MAX + 1]; /* of the text */
	uint32_t nfiles;
	uint64_t files_bytes;
	int64_t trial_until_us; /* put into force on trial; 0: for good */
	int64_t confirmed_us;   /* when it was; 0: it was not */
	char confirmed_by[256];
	/* Of one that was proposed, and waits for approval, or did: */
	uint32_t base; /* that was in force then; 0: it was put into force as it was made */
	int64_t proposed_until_us, proposed_lasts_us;
	bool proposed_import;  /* its text is that of the configured policy file */
	char verdict[16];      /* POLICY_APPROVED and its like; "": none yet */
	int64_t verdict_us;
	uint32_t verdict_uid;
	char verdict_by[256];
	char verdict_comment[POLICY_COMMENT_MAX + 1];
};

#define POLICY_APPROVED "approved"
#define POLICY_REJECTED "rejected"
#define POLICY_WITHDRAWN "withdrawn"
#define POLICY_EXPIRED "expired"
#define POLICY_OUTDATED "outdated" /* another revision took effect */

/* A revision that was proposed, and not approved, has never decided anything. */
bool policy_revision_ruled(const struct policy_revision *r);

/* Texts and files are compared with their hashes when they are read: what is damaged is refused, not believed. */

/* 1 found, 0 there is none of this id, -1 with *why.  *text (NUL-terminated) and *checks are malloc'd; either pointer
 * may be NULL when it is not wanted. */
int policy_store_get(struct policy_store *s, uint32_t id, struct policy_revision *out, char **text, char **checks,
		     struct err *why);

/* The files of a revision, in order; f is borrowed.  file must not wait.  -1 with *why. */
int policy_store_files(struct policy_store *s, uint32_t id, void (*file)(const struct policy_file *f, void *arg), void *arg,
		       struct err *why);

/* r is borrowed; false ends the list. */
typedef bool policy_row(const struct policy_revision *r, void *arg);
/* Newest first, older than `before` (0: from the newest), at most `limit` (0: all).  row must not wait. */
int policy_store_list(struct policy_store *s, uint32_t before, unsigned limit, policy_row *row, void *arg,
		      struct err *why);

/* A revision on trial that rules and is not confirmed. */
struct policy_trial {
	uint32_t revision, previous; /* which returns */
	int64_t until_us, lasts_us;
	uint32_t author_uid; /* who put it on trial: who approved it, if it was proposed */
	char author[256];
};

/* 1 with *out, 0: the active revision is not on trial, -1 with *why. */
int policy_store_trial(struct policy_store *s, struct policy_trial *out, struct err *why);
/* 0: the revision rules for good now; 1: it is not the active one, or not on trial; -1 with *why. */
int policy_store_confirm(struct policy_store *s, uint32_t revision, int64_t time_us, uint32_t author_uid, const char *author,
			 struct err *why);

/* Those that wait, oldest first; one whose time is over waits until it is told to have expired. */
struct policy_waiting {
	uint32_t revision, base;
	int64_t until_us;
	bool imported;
};
/* 0 with *n, or -1 with *why. */
int policy_store_waiting(struct policy_store *s, struct policy_waiting out[POLICY_PENDING_MAX], size_t *n, struct err *why);

/* Nobody's, so nobody's own. */
#define POLICY_NO_UID UINT32_MAX
/* May this user approve that revision?  0 with *out, 1 with *why: no; -1 with *why: that cannot be told. */
int policy_store_approvable(struct policy_store *s, uint32_t id, uint32_t uid, int64_t now_us, struct policy_revision *out,
			    struct err *why);

/* What somebody says to a revision that waits. */
struct policy_judgement {
	uint32_t revision;
	const char *verdict; /* POLICY_REJECTED or POLICY_WITHDRAWN; not read by policy_store_approve() */
	int64_t time_us;
	uint32_t author_uid;
	const char *author, *comment;
	int64_t lasts_us; /* approved on trial for so long; 0: for good */
};
/* Puts it into force, in one transaction with all that policy_store_approvable() asks: 0, 1 or -1 as it says. */
int policy_store_approve(struct policy_store *s, const struct policy_judgement *v, struct err *why);
/* The revision waits no longer: 0, 1 with *why: it does not wait; -1 with *why. */
int policy_store_decline(struct policy_store *s, const struct policy_judgement *v, struct err *why);

/* Those whose time is over wait no longer, and are told in out: 0 with *n, or -1 with *why.  By whom: whoever keeps the store. */
int policy_store_expire(struct policy_store *s, int64_t now_us, uint32_t uid, const char *author, uint32_t out[POLICY_PENDING_MAX],
			size_t *n, struct err *why);
/* Those of the newest verdict that are not approved: control may have been killed before it recorded that.  What a clock that was wrong
 * dated in the future is not the newest for ever.  0 with *n, or -1 with *why. */
int policy_store_last_verdicts(struct policy_store *s, int64_t now_us, uint32_t out[POLICY_PENDING_MAX], size_t *n, struct err *why);
/* 0 with *id: as which revision the policy file's text of this hash was rejected last, and not approved since; 0: it was not.
 * -1 with *why. */
int policy_store_rejected_import(struct policy_store *s, const uint8_t hash[POLICY_HASH_BYTES], uint32_t *id, struct err *why);

struct policy_import {
	uint32_t revision; /* 0: the file was never imported */
	uint8_t hash[POLICY_HASH_BYTES];
	int64_t time_us;
};
/* The last import of the configured policy file. */
int policy_store_import(struct policy_store *s, struct policy_import *out, struct err *why);
