/* The key that exports are signed with (Ed25519), in the formats of everybody: PKCS #8 and SubjectPublicKeyInfo in PEM (RFC 8410,
 * RFC 7468), so that a receiver needs no program of ours. */
#pragma once

#include <stdint.h>

#include <sodium.h>

#include "common/err.h"

/* Makes a key: path, with mode 0600, must not be there; its public half goes to path with ".pub" behind.  0, or -1 with *why. */
int sign_key_make(const char *path, struct err *why);
/* Reads a key of the caller's own that nobody else can read; locked memory is the caller's affair.  0, or -1 with *why. */
int sign_key_read(const char *path, uint8_t secret[crypto_sign_SECRETKEYBYTES], struct err *why);
/* The public half: a file, or 64 hexadecimal digits.  0, or -1 with *why. */
int sign_key_public(const char *text, uint8_t key[crypto_sign_PUBLICKEYBYTES], struct err *why);
