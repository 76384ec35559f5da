/* Passwords that wait for a conversation: a fixed pool in memory that is not swapped out and in no core file, wiped as each is
 * given back. */
#pragma once

#include <stddef.h>

struct secrets;
struct secret;

/* Room for n passwords.  Before the sandbox.  NULL: memory is short.  Memory that cannot be locked is used, with a warning. */
struct secrets *secrets_new(size_t n);
void secrets_free(struct secrets **s);

/* A copy of text (at most AUTH_TEXT_MAX bytes); NULL: all are taken. */
struct secret *secret_new(struct secrets *s, const char *text);
const char *secret_text(const struct secret *secret);
/* *secret may be NULL. */
void secret_free(struct secrets *s, struct secret **secret);
