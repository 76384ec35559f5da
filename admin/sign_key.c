#include "config.h"

#include "admin/sign_key.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX 4096

/* What stands before the 32 bytes, in DER. */
static const uint8_t secret_head[] = {0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20};
static const uint8_t public_head[] = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};

#define HEAD_MAX 16
#define KEY_BYTES 32
#define BASE64_MAX sodium_base64_ENCODED_LEN(HEAD_MAX + KEY_BYTES, sodium_base64_VARIANT_ORIGINAL)
#define PEM_MAX 256

static void to_pem(const char *label, const uint8_t *head, size_t head_len, const uint8_t key[KEY_BYTES], char out[PEM_MAX])
{
	uint8_t der[HEAD_MAX + KEY_BYTES];
	char text[BASE64_MAX];

	memcpy(der, head, head_len);
	memcpy(der + head_len, key, KEY_BYTES);
	sodium_bin2base64(text, sizeof text, der, head_len + KEY_BYTES, sodium_base64_VARIANT_ORIGINAL);
	snprintf(out, PEM_MAX, "-----BEGIN %s-----\n%s\n-----END %s-----\n", label, text, label);
	sodium_memzero(der, sizeof der);
	sodium_memzero(text, sizeof text);
}

/* False if text holds no such key. */
static bool from_pem(const char *text, const char *label, const uint8_t *head, size_t head_len, uint8_t key[KEY_BYTES])
{
	char begin[64], end[64];
	uint8_t der[HEAD_MAX + KEY_BYTES];
	size_t len = 0;
	const char *at, *stop;
	bool fine;

	snprintf(begin, sizeof begin, "-----BEGIN %s-----\n", label);
	snprintf(end, sizeof end, "-----END %s-----", label);
	at = strstr(text, begin);
	stop = at == NULL ? NULL : strstr(at, end);
	if (stop == NULL)
		return false;
	at += strlen(begin);
	fine = sodium_base642bin(der, sizeof der, at, (size_t)(stop - at), "\r\n ", &len, NULL, sodium_base64_VARIANT_ORIGINAL) == 0 &&
	       len == head_len + KEY_BYTES && memcmp(der, head, head_len) == 0;
	if (fine)
		memcpy(key, der + head_len, KEY_BYTES);
	sodium_memzero(der, sizeof der);
	return fine;
}

static int write_new(const char *path, mode_t mode, const char *text, struct err *why)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
	size_t len = strlen(text);

	if (fd < 0)
		return err_set(why, "cannot make %s: %s", path, strerror(errno));
	if (write(fd, text, len) != (ssize_t)len || fsync(fd) != 0) {
		err_set(why, "cannot write %s: %s", path, strerror(errno));
		close(fd);
		unlink(path);
		return -1;
	}
	close(fd);
	return 0;
}

int sign_key_make(const char *path, struct err *why)
{
	uint8_t public[crypto_sign_PUBLICKEYBYTES], secret[crypto_sign_SECRETKEYBYTES], seed[crypto_sign_SEEDBYTES];
	char pem[PEM_MAX], name[4200];
	int rc;

	if ((size_t)snprintf(name, sizeof name, "%s.pub", path) >= sizeof name)
		return err_set(why, "the path of the key is too long");
	crypto_sign_keypair(public, secret);
	crypto_sign_ed25519_sk_to_seed(seed, secret);
	to_pem("PRIVATE KEY", secret_head, sizeof secret_head, seed, pem);
	rc = write_new(path, 0600, pem, why);
	sodium_memzero(secret, sizeof secret);
	sodium_memzero(seed, sizeof seed);
	sodium_memzero(pem, sizeof pem);
	if (rc != 0)
		return rc;
	to_pem("PUBLIC KEY", public_head, sizeof public_head, public, pem);
	rc = write_new(name, 0644, pem, why);
	if (rc != 0)
		unlink(path);
	return rc;
}

/* The text of a small file, with its terminator. */
static int read_small(int fd, const char *path, char text[FILE_MAX + 1], struct err *why)
{
	ssize_t n = read(fd, text, FILE_MAX);

	if (n < 0)
		return err_set(why, "cannot read %s: %s", path, strerror(errno));
	text[n] = '\0';
	return 0;
}

int sign_key_read(const char *path, uint8_t secret[crypto_sign_SECRETKEYBYTES], struct err *why)
{
	uint8_t seed[crypto_sign_SEEDBYTES], public[crypto_sign_PUBLICKEYBYTES];
	char text[FILE_MAX + 1] = "";
	struct stat st;
	int rc = 0, fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	if (fd < 0)
		return err_set(why, "cannot read the key %s: %s (gatewayctl audit export --new-key FILE makes one)", path, strerror(errno));
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
		rc = err_set(why, "%s is no file", path);
	else if (st.st_uid != geteuid() || (st.st_mode & 077) != 0)
		rc = err_set(why, "%s: a key must be yours and nobody else's to read (chmod 600)", path);
	else
		rc = read_small(fd, path, text, why);
	close(fd);
	if (rc == 0 && !from_pem(text, "PRIVATE KEY", secret_head, sizeof secret_head, seed))
		rc = err_set(why, "%s is no Ed25519 key in PEM", path);
	if (rc == 0)
		crypto_sign_seed_keypair(public, secret, seed);
	sodium_memzero(text, sizeof text);
	sodium_memzero(seed, sizeof seed);
	return rc;
}

int sign_key_public(const char *what, uint8_t key[crypto_sign_PUBLICKEYBYTES], struct err *why)
{
	char text[FILE_MAX + 1] = "";
	size_t len;
	int fd, rc;

	if (strlen(what) == 2 * KEY_BYTES && sodium_hex2bin(key, KEY_BYTES, what, 2 * KEY_BYTES, NULL, &len, NULL) == 0 && len == KEY_BYTES)
		return 0;
	fd = open(what, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return err_set(why, "cannot read the signer's key %s: %s", what, strerror(errno));
	rc = read_small(fd, what, text, why);
	close(fd);
	if (rc == 0 && !from_pem(text, "PUBLIC KEY", public_head, sizeof public_head, key))
		rc = err_set(why, "%s is no public Ed25519 key, in PEM or as 64 digits", what);
	return rc;
}
