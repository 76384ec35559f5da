#include "config.h"

#include "schema/audit_chain.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"

/* ---- keys ------------------------------------------------------------------------------------------------------ */

static void derive(const uint8_t key[AUDIT_KEY_BYTES], const char *purpose, uint8_t out[AUDIT_KEY_BYTES])
{
	crypto_generichash(out, AUDIT_KEY_BYTES, (const uint8_t *)purpose, strlen(purpose), key, AUDIT_KEY_BYTES);
}

void audit_keys_set(struct audit_keys *k, uint64_t epoch, const uint8_t key[AUDIT_KEY_BYTES])
{
	k->epoch = epoch;
	memmove(k->key, key, AUDIT_KEY_BYTES);
	derive(k->key, "gatewayd audit row", k->row);
	derive(k->key, "gatewayd audit entry", k->entry);
	derive(k->key, "gatewayd audit head", k->head);
}

void audit_keys_ratchet(struct audit_keys *k)
{
	uint8_t next[AUDIT_KEY_BYTES];

	derive(k->key, "gatewayd audit epoch", next);
	audit_keys_set(k, k->epoch + 1, next);
	sodium_memzero(next, sizeof next);
}

void audit_row_digest(const struct audit_keys *k, const void *row, size_t len, uint8_t digest[AUDIT_DIGEST_BYTES])
{
	crypto_generichash(digest, AUDIT_DIGEST_BYTES, row, len, k->row, sizeof k->row);
}

/* ---- entries --------------------------------------------------------------------------------------------------- */

uint8_t *audit_put_u64(uint8_t *at, uint64_t value)
{
	for (int i = 0; i < 8; i++)
		*at++ = (uint8_t)(value >> (8 * i));
	return at;
}

uint64_t audit_get_u64(const uint8_t *at)
{
	uint64_t value = 0;

	for (int i = 8; i-- > 0;)
		value = value << 8 | at[i];
	return value;
}

void audit_entry_mac(const struct audit_keys *k, const uint8_t before[AUDIT_MAC_BYTES], const struct audit_entry *e,
		     uint8_t mac[AUDIT_MAC_BYTES])
{
	crypto_generichash_state state;
	uint8_t head[AUDIT_MAC_BYTES + 6 * 8], *at = head;

	memcpy(at, before, AUDIT_MAC_BYTES);
	at = audit_put_u64(at + AUDIT_MAC_BYTES, (uint64_t)e->id);
	at = audit_put_u64(at, (uint64_t)e->kind);
	at = audit_put_u64(at, e->epoch);
	at = audit_put_u64(at, (uint64_t)e->time_us);
	at = audit_put_u64(at, (uint64_t)e->first);
	at = audit_put_u64(at, (uint64_t)e->count);
	crypto_generichash_init(&state, k->entry, sizeof k->entry, AUDIT_MAC_BYTES);
	crypto_generichash_update(&state, head, (size_t)(at - head));
	crypto_generichash_update(&state, e->body, e->len);
	crypto_generichash_final(&state, mac, AUDIT_MAC_BYTES);
}

/* ---- files ------------------------------------------------------------------------------------------------------
 * A file has two slots that are written in turn, so that one that was torn by a loss of power leaves the other. */

#define SLOT_BYTES 128
#define KEY_SLOT_AT 4096 /* of the second; the kernel writes a page as a whole */
#define HEAD_SLOT_AT 512
#define HOLDS_SLOT_AT 1024 /* of the first, the second is as far behind it */
/* How far behind what it proves a key may be, should an old one have been put back: six weeks. */
#define PROOF_EPOCHS_MAX 65536

static const char key_magic[8] = "gwaukey1", head_magic[8] = "gwauhea1", holds_magic[8] = "gwauhol1";

/* magic, store, epoch, key, check */
#define KEY_CHECKED (8 + AUDIT_ID_BYTES + 8 + AUDIT_KEY_BYTES)
/* magic, store, epoch, entry, mac (of holds: their digest), tag */
#define HEAD_CHECKED (8 + AUDIT_ID_BYTES + 8 + 8 + AUDIT_MAC_BYTES)

static int write_all(int fd, const uint8_t *data, off_t at)
{
	ssize_t n;

	do
		n = pwrite(fd, data, SLOT_BYTES, at);
	while (n < 0 && errno == EINTR);
	if (n >= 0 && n != SLOT_BYTES)
		errno = ENOSPC;
	return n == SLOT_BYTES ? 0 : -1;
}

static void make_key_slot(const struct audit_ring *r, const struct audit_keys *keys, uint8_t slot[SLOT_BYTES])
{
	memset(slot, 0, SLOT_BYTES);
	memcpy(slot, key_magic, 8);
	memcpy(slot + 8, r->store, AUDIT_ID_BYTES);
	audit_put_u64(slot + 8 + AUDIT_ID_BYTES, keys->epoch);
	memcpy(slot + 16 + AUDIT_ID_BYTES, keys->key, AUDIT_KEY_BYTES);
	crypto_generichash(slot + KEY_CHECKED, AUDIT_DIGEST_BYTES, slot, KEY_CHECKED, NULL, 0);
}

static bool read_key_slot(int fd, unsigned which, uint8_t slot[SLOT_BYTES])
{
	uint8_t check[AUDIT_DIGEST_BYTES];

	if (pread(fd, slot, SLOT_BYTES, which * KEY_SLOT_AT) != SLOT_BYTES || memcmp(slot, key_magic, 8) != 0)
		return false;
	crypto_generichash(check, sizeof check, slot, KEY_CHECKED, NULL, 0);
	return sodium_memcmp(check, slot + KEY_CHECKED, sizeof check) == 0;
}

/* The newer of the two: its slot's number, or -1. */
static int read_key(int fd, uint8_t slot[SLOT_BYTES])
{
	uint8_t other[SLOT_BYTES];
	int best = -1;

	for (int i = 0; i < 2; i++) {
		if (!read_key_slot(fd, (unsigned)i, other))
			continue;
		if (best >= 0 && audit_get_u64(other + 8 + AUDIT_ID_BYTES) < audit_get_u64(slot + 8 + AUDIT_ID_BYTES))
			continue;
		memcpy(slot, other, SLOT_BYTES);
		best = i;
	}
	sodium_memzero(other, sizeof other);
	return best;
}

/* The new key is durable before the old one is gone. */
static int write_key(struct audit_ring *r, const struct audit_keys *keys, struct err *why)
{
	static const uint8_t nothing[SLOT_BYTES];
	uint8_t slot[SLOT_BYTES];
	unsigned to = 1 - r->key_slot;
	int rc;

	make_key_slot(r, keys, slot);
	rc = write_all(r->key_fd, slot, to * KEY_SLOT_AT);
	sodium_memzero(slot, sizeof slot);
	if (rc != 0 || fdatasync(r->key_fd) != 0)
		return err_set_errno(why, AUDIT_KEY_FILE ": cannot write the next key");
	if (write_all(r->key_fd, nothing, r->key_slot * KEY_SLOT_AT) != 0 || fdatasync(r->key_fd) != 0)
		return err_set_errno(why, AUDIT_KEY_FILE ": cannot overwrite the last key");
	r->key_slot = to;
	return 0;
}

static int open_private(const char *path, int flags, struct err *why)
{
	int fd = open(path, O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | flags, 0600);

	if (fd < 0)
		err_set_errno(why, "%s: cannot open it", path);
	return fd;
}

int audit_sync_directory(struct err *why)
{
	int fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc = fd < 0 || fsync(fd) != 0 ? -1 : 0;

	if (rc != 0)
		err_set_errno(why, "cannot sync the directory of the audit");
	if (fd >= 0)
		close(fd);
	return rc;
}

/* "gatewayd audit key 1", the store and the key in hexadecimal: people copy it. */
static int write_first_key(const struct audit_ring *r, struct err *why)
{
	char store[2 * AUDIT_ID_BYTES + 1], key[2 * AUDIT_KEY_BYTES + 1], text[160];
	int fd = open_private(AUDIT_FIRST_KEY_FILE, O_WRONLY | O_CREAT | O_TRUNC, why), n, rc = 0;

	if (fd < 0)
		return -1;
	n = snprintf(text, sizeof text, "gatewayd audit key 1\n%s\n%s\n",
		     sodium_bin2hex(store, sizeof store, r->store, sizeof r->store),
		     sodium_bin2hex(key, sizeof key, r->keys.key, sizeof r->keys.key));
	if (write(fd, text, (size_t)n) != n || fsync(fd) != 0)
		rc = err_set_errno(why, AUDIT_FIRST_KEY_FILE ": cannot write it");
	sodium_memzero(key, sizeof key);
	sodium_memzero(text, sizeof text);
	close(fd);
	return rc != 0 ? -1 : audit_sync_directory(why);
}

static int make_ring(struct audit_ring *r, struct err *why)
{
	uint8_t key[AUDIT_KEY_BYTES];

	randombytes_buf(r->store, sizeof r->store);
	randombytes_buf(key, sizeof key);
	audit_keys_set(&r->keys, 0, key);
	sodium_memzero(key, sizeof key);
	if (write_key(r, &r->keys, why) != 0)
		return -1;
	return audit_sync_directory(why);
}

static void load_ring(struct audit_ring *r, const uint8_t slot[SLOT_BYTES])
{
	memcpy(r->store, slot + 8, AUDIT_ID_BYTES);
	audit_keys_set(&r->keys, audit_get_u64(slot + 8 + AUDIT_ID_BYTES), slot + 16 + AUDIT_ID_BYTES);
}

static int fill_ring(struct audit_ring *r, bool begun, struct err *why)
{
	uint8_t slot[SLOT_BYTES];
	int which;

	r->key_fd = open_private(AUDIT_KEY_FILE, O_RDWR | (begun ? 0 : O_CREAT), why);
	if (r->key_fd < 0)
		return -1;
	which = read_key(r->key_fd, slot);
	if (which >= 0) {
		r->key_slot = (unsigned)which;
		load_ring(r, slot);
		sodium_memzero(slot, sizeof slot);
	} else if (begun) {
		return err_set(why,
			       AUDIT_KEY_FILE ": it is damaged: the chain of the audit cannot go on without its key");
	} else if (make_ring(r, why) != 0) {
		return -1;
	}
	r->head_fd = open_private(AUDIT_HEAD_FILE, O_RDWR | O_CREAT, why);
	if (r->head_fd < 0)
		return -1;
	/* Again, should the first start have been cut short. */
	return !begun && r->keys.epoch == 0 ? write_first_key(r, why) : 0;
}

struct audit_ring *audit_ring_open(bool begun, struct err *why)
{
	struct audit_ring *r = sodium_init() < 0 ? NULL : sodium_malloc(sizeof *r);

	if (r == NULL) {
		err_set(why, "out of locked memory for the key of the audit");
		return NULL;
	}
	memset(r, 0, sizeof *r);
	r->key_fd = r->head_fd = -1;
	r->key_slot = 1;
	if (fill_ring(r, begun, why) != 0)
		audit_ring_close(&r);
	return r;
}

void audit_ring_close(struct audit_ring **ring)
{
	struct audit_ring *r = *ring;

	*ring = NULL;
	if (r == NULL)
		return;
	if (r->key_fd >= 0)
		close(r->key_fd);
	if (r->head_fd >= 0)
		close(r->head_fd);
	sodium_free(r); /* wipes it */
}

int audit_ring_set_aside(struct err *why)
{
	static const char *const names[] = {AUDIT_KEY_FILE, AUDIT_HEAD_FILE, AUDIT_FIRST_KEY_FILE};
	char aside[64];

	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		snprintf(aside, sizeof aside, "%s.before-%lld", names[i], (long long)clock_wall_us());
		if (rename(names[i], aside) != 0 && errno != ENOENT)
			return err_set_errno(why, "%s: cannot be set aside", names[i]);
	}
	return audit_sync_directory(why);
}

/* Without a name, a file is gone with us. */
static int make_again(int *fd, const char *path, struct err *why)
{
	struct stat st;
	int again;

	if (fstat(*fd, &st) != 0 || st.st_nlink > 0)
		return 0;
	again = open_private(path, O_RDWR | O_CREAT | O_EXCL, why);
	if (again < 0)
		return -1;
	close(*fd);
	*fd = again;
	log_warning("%s of the audit was removed: it is written again", path);
	return audit_sync_directory(why);
}

int audit_ring_ratchet(struct audit_ring *r, struct err *why)
{
	struct audit_keys next = r->keys;
	int rc;

	if (make_again(&r->key_fd, AUDIT_KEY_FILE, why) != 0 || make_again(&r->head_fd, AUDIT_HEAD_FILE, why) != 0)
		return -1;
	audit_keys_ratchet(&next);
	rc = write_key(r, &next, why);
	if (rc == 0)
		r->keys = next;
	sodium_memzero(&next, sizeof next);
	return rc;
}

/* ---- the head --------------------------------------------------------------------------------------------------- */

static void head_tag(const struct audit_keys *k, const uint8_t slot[SLOT_BYTES], uint8_t tag[AUDIT_DIGEST_BYTES])
{
	crypto_generichash(tag, AUDIT_DIGEST_BYTES, slot, HEAD_CHECKED, k->head, sizeof k->head);
}

static void make_head_slot(const struct audit_head *head, uint8_t slot[SLOT_BYTES])
{
	memset(slot, 0, SLOT_BYTES);
	memcpy(slot, head_magic, 8);
	memcpy(slot + 8, head->store, AUDIT_ID_BYTES);
	uint8_t *at = audit_put_u64(slot + 8 + AUDIT_ID_BYTES, head->epoch);

	at = audit_put_u64(at, (uint64_t)head->entry);
	memcpy(at, head->mac, AUDIT_MAC_BYTES);
}

int audit_ring_set_head(struct audit_ring *r, const struct audit_head *head, bool sync, struct err *why)
{
	uint8_t slot[SLOT_BYTES];

	make_head_slot(head, slot);
	head_tag(&r->keys, slot, slot + HEAD_CHECKED);
	crypto_generichash(slot + HEAD_CHECKED + AUDIT_DIGEST_BYTES, AUDIT_DIGEST_BYTES, slot,
			   HEAD_CHECKED + AUDIT_DIGEST_BYTES, NULL, 0);
	r->head_slot = 1 - r->head_slot;
	if (write_all(r->head_fd, slot, r->head_slot * HEAD_SLOT_AT) != 0 || (sync && fdatasync(r->head_fd) != 0))
		return err_set_errno(why, AUDIT_HEAD_FILE ": cannot write it");
	return 0;
}

int audit_head_read(struct audit_head *head, uint8_t tag[AUDIT_DIGEST_BYTES])
{
	int fd = open(AUDIT_HEAD_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), found = 0;
	uint8_t slot[SLOT_BYTES], check[AUDIT_DIGEST_BYTES];

	for (unsigned i = 0; fd >= 0 && i < 2; i++) {
		if (pread(fd, slot, SLOT_BYTES, i * HEAD_SLOT_AT) != SLOT_BYTES || memcmp(slot, head_magic, 8) != 0)
			continue;
		crypto_generichash(check, sizeof check, slot, HEAD_CHECKED + AUDIT_DIGEST_BYTES, NULL, 0);
		if (memcmp(check, slot + HEAD_CHECKED + AUDIT_DIGEST_BYTES, sizeof check) != 0)
			continue;
		int64_t entry = (int64_t)audit_get_u64(slot + 16 + AUDIT_ID_BYTES);

		if (found && entry < head->entry)
			continue;
		found = 1;
		memcpy(head->store, slot + 8, AUDIT_ID_BYTES);
		head->epoch = audit_get_u64(slot + 8 + AUDIT_ID_BYTES);
		head->entry = entry;
		memcpy(head->mac, slot + 24 + AUDIT_ID_BYTES, AUDIT_MAC_BYTES);
		memcpy(tag, slot + HEAD_CHECKED, AUDIT_DIGEST_BYTES);
	}
	if (fd >= 0)
		close(fd);
	return found;
}

bool audit_head_authentic(const struct audit_keys *k, const struct audit_head *head,
			  const uint8_t tag[AUDIT_DIGEST_BYTES])
{
	uint8_t slot[SLOT_BYTES], should[AUDIT_DIGEST_BYTES];

	make_head_slot(head, slot);
	head_tag(k, slot, should);
	return sodium_memcmp(should, tag, sizeof should) == 0;
}

/* ---- which holds stand ---------------------------------------------------------------------------------------------
 */

int audit_ring_set_holds(struct audit_ring *r, const struct audit_head *head, const uint8_t holds[AUDIT_DIGEST_BYTES],
			 bool next, struct err *why)
{
	struct audit_head proof = {.epoch = r->keys.epoch, .entry = head->entry};
	struct audit_keys keys = r->keys;
	uint8_t slot[SLOT_BYTES];

	if (next)
		audit_keys_ratchet(&keys);
	proof.epoch = keys.epoch;
	memcpy(proof.store, r->store, sizeof proof.store);
	memcpy(proof.mac, holds, AUDIT_DIGEST_BYTES);
	make_head_slot(&proof, slot);
	memcpy(slot, holds_magic, sizeof holds_magic);
	head_tag(&keys, slot, slot + HEAD_CHECKED);
	sodium_memzero(&keys, sizeof keys);
	if (make_again(&r->head_fd, AUDIT_HEAD_FILE, why) != 0)
		return -1;
	r->holds_slot = 1 - r->holds_slot;
	if (write_all(r->head_fd, slot, HOLDS_SLOT_AT + r->holds_slot * HEAD_SLOT_AT) != 0 ||
	    fdatasync(r->head_fd) != 0)
		return err_set_errno(why, AUDIT_HEAD_FILE ": cannot write which holds stand");
	return 0;
}

/* Only with the key of its epoch can a slot be made; far ahead of any key it is not looked at. */
static bool holds_slot_proven(const struct audit_keys *k, const uint8_t store[AUDIT_ID_BYTES],
			      const uint8_t slot[SLOT_BYTES])
{
	uint64_t epoch = audit_get_u64(slot + 8 + AUDIT_ID_BYTES);
	struct audit_keys keys = *k;
	uint8_t should[AUDIT_DIGEST_BYTES];

	if (memcmp(slot, holds_magic, 8) != 0 || memcmp(slot + 8, store, AUDIT_ID_BYTES) != 0 || epoch < keys.epoch ||
	    epoch - keys.epoch > PROOF_EPOCHS_MAX)
		return false;
	while (keys.epoch < epoch)
		audit_keys_ratchet(&keys);
	head_tag(&keys, slot, should);
	sodium_memzero(&keys, sizeof keys);
	return sodium_memcmp(should, slot + HEAD_CHECKED, sizeof should) == 0;
}

bool audit_head_holds(const struct audit_keys *k, const uint8_t store[AUDIT_ID_BYTES],
		      uint8_t holds[AUDIT_DIGEST_BYTES])
{
	int fd = open(AUDIT_HEAD_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	uint64_t best[2] = {0, 0};
	uint8_t slot[SLOT_BYTES];
	bool found = false;

	for (int i = 0; fd >= 0 && i < 2; i++) {
		if (pread(fd, slot, SLOT_BYTES, HOLDS_SLOT_AT + i * HEAD_SLOT_AT) != SLOT_BYTES ||
		    !holds_slot_proven(k, store, slot))
			continue;
		const uint64_t at[2] = {audit_get_u64(slot + 8 + AUDIT_ID_BYTES),
					audit_get_u64(slot + 16 + AUDIT_ID_BYTES)};

		if (found && (at[0] < best[0] || (at[0] == best[0] && at[1] < best[1])))
			continue;
		memcpy(best, at, sizeof best);
		memcpy(holds, slot + 24 + AUDIT_ID_BYTES, AUDIT_DIGEST_BYTES);
		found = true;
	}
	if (fd >= 0)
		close(fd);
	return found;
}

/* ---- the auditor's key ------------------------------------------------------------------------------------------ */

bool audit_ring_first_key_waits(void)
{
	struct stat st;

	return lstat(AUDIT_FIRST_KEY_FILE, &st) == 0;
}

bool audit_key_read(uint8_t store[AUDIT_ID_BYTES], uint64_t *epoch, uint8_t key[AUDIT_KEY_BYTES])
{
	int fd = open(AUDIT_KEY_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	uint8_t slot[SLOT_BYTES];
	bool whole = fd >= 0 && read_key(fd, slot) >= 0;

	if (whole) {
		memcpy(store, slot + 8, AUDIT_ID_BYTES);
		*epoch = audit_get_u64(slot + 8 + AUDIT_ID_BYTES);
		memcpy(key, slot + 16 + AUDIT_ID_BYTES, AUDIT_KEY_BYTES);
	}
	sodium_memzero(slot, sizeof slot);
	if (fd >= 0)
		close(fd);
	return whole;
}

static bool unhex(const char *line, uint8_t *out, size_t len)
{
	size_t n;
	const char *end;

	return sodium_hex2bin(out, len, line, strcspn(line, "\r\n"), NULL, &n, &end) == 0 && n == len &&
	       *end == line[strcspn(line, "\r\n")];
}

int audit_first_key_read(const char *path, uint8_t store[AUDIT_ID_BYTES], struct audit_keys *keys, struct err *why)
{
	char lines[3][160] = {"", "", ""};
	uint8_t key[AUDIT_KEY_BYTES];
	FILE *file = fopen(path, "re");
	int n = 0;

	if (file == NULL)
		return err_set_errno(why, "%s: cannot read the key", path);
	while (n < 3 && fgets(lines[n], sizeof lines[n], file) != NULL)
		n++;
	fclose(file);
	bool good = n == 3 && strcmp(lines[0], "gatewayd audit key 1\n") == 0 &&
		    unhex(lines[1], store, AUDIT_ID_BYTES) && unhex(lines[2], key, sizeof key);

	if (good)
		audit_keys_set(keys, 0, key);
	sodium_memzero(key, sizeof key);
	sodium_memzero(lines, sizeof lines);
	return good ? 0
		    : err_set(why,
			      "%s: this is no key of an audit: it is the file first.key that the first start wrote",
			      path);
}
