/* What makes the audit impossible to rewrite unnoticed.
 *
 * Each row has a keyed digest; each entry of the chain is authenticated (BLAKE2b, keyed) over the digests of the rows
 * it covers and over the authenticator of the entry before it.  The key belongs to an *epoch*: after a minute, or
 * 10,000 commits, a seal ends the epoch, the next key is derived from this one, and this one is overwritten (file
 * "chain.key") and forgotten.  So who takes the machine over today has no key of yesterday.  The first key is written
 * once, for the auditor ("first.key"): from it follow all the others.  The file "chain.head" says how far the chain has
 * come, so that a cut end is found.
 *
 * All files are in the current directory. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

#define AUDIT_ID_BYTES 16     /* of a store, random */
#define AUDIT_DIGEST_BYTES 16 /* of a row */
#define AUDIT_MAC_BYTES 32    /* of an entry */
#define AUDIT_KEY_BYTES 32

#define AUDIT_KEY_FILE "chain.key"
#define AUDIT_HEAD_FILE "chain.head"
#define AUDIT_FIRST_KEY_FILE "first.key"

/* ---- keys ------------------------------------------------------------------------------------------------------ */

/* An epoch's key, and what is derived from it for each purpose. */
struct audit_keys {
	uint64_t epoch;
	uint8_t key[AUDIT_KEY_BYTES], row[AUDIT_KEY_BYTES], entry[AUDIT_KEY_BYTES], head[AUDIT_KEY_BYTES];
};

void audit_keys_set(struct audit_keys *k, uint64_t epoch, const uint8_t key[AUDIT_KEY_BYTES]);
/* The next epoch's; nothing of this one's is left. */
void audit_keys_ratchet(struct audit_keys *k);

void audit_row_digest(const struct audit_keys *k, const void *row, size_t len, uint8_t digest[AUDIT_DIGEST_BYTES]);

/* ---- entries --------------------------------------------------------------------------------------------------- */

enum audit_entry_kind {
	AUDIT_ENTRY_COMMIT, /* rows */
	AUDIT_ENTRY_SEAL,   /* the last of its epoch */
	AUDIT_ENTRY_BEGIN,  /* the first of its segment */
	AUDIT_ENTRY_END,    /* the last of its segment */
	AUDIT_ENTRY_PRUNED, /* rows, or segments, that are no more */
	AUDIT_ENTRY_KIND_COUNT
};

/* Bodies, numbers little-endian:
 * COMMIT: of each row its digest and a byte: which of the senders below it came from, 255 for the recorder itself; then
 * of each sender u64 incarnation, u64 highest sequence. SEAL:   u64 the last row so far. BEGIN:  store id; u32 segment;
 * the authenticator of the entry before it (zero: there is none); u64 the highest row that was there before there was a
 * chain, and is taken as it was found; u64 how many of its first rows tell of sessions that were open already; of each
 * sender u64 incarnation, u64 highest sequence, u64 its newest row; as they are carried over. END:    empty. PRUNED: audit_prune.h. */
struct audit_entry {
	int64_t id;
	enum audit_entry_kind kind;
	uint64_t epoch;
	int64_t time_us, first, count;
	const uint8_t *body;
	size_t len;
};

uint8_t *audit_put_u64(uint8_t *at, uint64_t value); /* the byte behind it */
uint64_t audit_get_u64(const uint8_t *at);

void audit_entry_mac(const struct audit_keys *k, const uint8_t before[AUDIT_MAC_BYTES], const struct audit_entry *e,
		     uint8_t mac[AUDIT_MAC_BYTES]);

#define AUDIT_SENDER_NONE 255
#define AUDIT_COMMIT_SENDER_BYTES 16
#define AUDIT_COMMIT_ROW_BYTES (AUDIT_DIGEST_BYTES + 1)
#define AUDIT_BEGIN_BYTES (AUDIT_ID_BYTES + 4 + AUDIT_MAC_BYTES + 16)
#define AUDIT_BEGIN_SENDER_BYTES 24

/* ---- the recorder's files -------------------------------------------------------------------------------------- */

/* What was made, renamed or removed in the current directory is on stable storage: 0, or -1 with *why. */
int audit_sync_directory(struct err *why);

/* Where the chain stands. */
struct audit_head {
	uint8_t store[AUDIT_ID_BYTES];
	uint64_t epoch;
	int64_t entry;
	uint8_t mac[AUDIT_MAC_BYTES];
};

/* The key file, open, and the keys of now; in locked memory. */
struct audit_ring {
	int key_fd, head_fd;
	unsigned key_slot, head_slot, holds_slot; /* that were written last */
	uint8_t store[AUDIT_ID_BYTES];
	struct audit_keys keys;
};

/* Opens the files in the current directory, or makes them with a random first key; begun: there is a chain already,
 * whose key must be there.  NULL with *why. */
struct audit_ring *audit_ring_open(bool begun, struct err *why);
void audit_ring_close(struct audit_ring **ring);
/* Whoever owns this file says that the key is lost for good, and that a new chain is to begin. */
#define AUDIT_RENEW_FILE "begin-new-chain"
/* The files of a chain that cannot go on get other names, so that a new one can begin; they are no more than evidence. */
int audit_ring_set_aside(struct err *why);
/* The next epoch's key is on stable storage, and this one's is overwritten; or -1, and nothing has changed.  Files that
 * somebody removed meanwhile are made anew: what they hold is known here. */
int audit_ring_ratchet(struct audit_ring *r, struct err *why);
/* Not waited for unless sync: after a loss of power the head may be behind the chain, never before it. */
int audit_ring_set_head(struct audit_ring *r, const struct audit_head *head, bool sync, struct err *why);
/* Which holds stand (a digest of audit_holds.h), where the chain had come to head: in the same file, in two slots that
 * only this writes, and waits for, so that one of them is always whole.  next: as it will be once the key is the next
 * epoch's; to be written before that. */
int audit_ring_set_holds(struct audit_ring *r, const struct audit_head *head, const uint8_t holds[AUDIT_DIGEST_BYTES],
			 bool next, struct err *why);
/* True if the first key still waits for the auditor. */
bool audit_ring_first_key_waits(void);

/* ---- the verifier's files -------------------------------------------------------------------------------------- */

/* 1 and *head, 0 if there is none that is whole; authentic() says whether it was written with these keys. */
int audit_head_read(struct audit_head *head, uint8_t tag[AUDIT_DIGEST_BYTES]);
bool audit_head_authentic(const struct audit_keys *k, const struct audit_head *head,
			  const uint8_t tag[AUDIT_DIGEST_BYTES]);
/* Which holds the recorder said to stand, if it was one that had the key of then; k: of that epoch, or of one before. */
bool audit_head_holds(const struct audit_keys *k, const uint8_t store[AUDIT_ID_BYTES], uint8_t holds[AUDIT_DIGEST_BYTES]);
/* The recorder's key file: its epoch, its store and its key; false if there is none that is whole. */
bool audit_key_read(uint8_t store[AUDIT_ID_BYTES], uint64_t *epoch, uint8_t key[AUDIT_KEY_BYTES]);
/* Reads what audit_ring_open() wrote for the auditor. */
int audit_first_key_read(const char *path, uint8_t store[AUDIT_ID_BYTES], struct audit_keys *keys, struct err *why);
