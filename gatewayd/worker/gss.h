/* A session's GSSAPI side (RFC 1961): tokens on their way to the authenticator, the established context, and what passes
 * through it.  The context was made in another process (auth/gss.h) and is imported here; keytab and unfinished contexts never
 * are.
 *
 * Whatever is wrong with a message ends the session: on a stream, a message that is missing, repeated or out of its place means
 * that somebody stands between. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "auth/auth.h"
#include "common/err.h"

struct session;
struct worker;

/* RFC 1961 section 4.3; 0 is what clients mean that want none. */
enum protection { PROTECTION_NONE, PROTECTION_INTEGRITY, PROTECTION_CONFIDENTIALITY, PROTECTION_SELECTIVE };

/* Of one frame: its plain bytes, and all of it. */
#define GSS_PLAIN_MAX (32 * 1024)
#define GSS_FRAME_MAX (4 + 65535)
/* Raw bytes of clients that a worker keeps.  In handshakes, whose clients are mostly nobody yet: who has kept some for longest
 * gives way. */
#define GSS_SHAKING_BYTES (16u * 1024 * 1024)
/* And of sessions that relay, each counted with all that it may ever keep: beyond that, messages wait in the kernel until they are
 * whole. */
#define GSS_RELAYING_BYTES (32u * 1024 * 1024)

struct gss;

/* Before the sandbox: what the library wants to have seen. */
void gss_prepare(const char *krb5_conf);

/* The method was chosen: from here on the client's bytes are messages. */
void gss_begin(struct session *s);
/* True while bytes of the client are messages: gss_receive() reads them, in the handshake. */
bool gss_reads(const struct session *s);
void gss_receive(struct session *s);
/* The authenticator's answer to a token. */
void gss_answered(struct session *s, const struct gss_answer *answer);
/* Nothing is read any more. */
void gss_forget_bytes(struct session *s);
void gss_free(struct session *s);

enum protection gss_protection(const struct session *s);
/* True if what passes is encapsulated. */
bool gss_protects(const struct session *s);
/* When the client's ticket ends, monotonic; INT64_MAX without one. */
int64_t gss_expires_us(const struct session *s);
const char *gss_principal(const struct session *s);
/* Bytes that encapsulation has added towards the client. */
uint64_t gss_overhead(const struct session *s);

/* Encapsulates data into one frame (in a buffer that lives until the next call); 0, or -1 with *why. */
int gss_seal_datagram(struct session *s, const uint8_t *data, size_t len, const uint8_t **frame, size_t *frame_len, struct err *why);
/* The same for the relay's stream, whose overhead is counted. */
int gss_encapsulate(struct session *s, const uint8_t *data, size_t len, const uint8_t **frame, size_t *frame_len, struct err *why);
/* Sends a reply of a few bytes, encapsulated. */
bool gss_say(struct session *s, const uint8_t *data, size_t len);

/* Takes bytes of the client's stream in (they may be changed; len may be 0), behind those that wait. */
int gss_take(struct session *s, uint8_t *data, size_t len, struct err *why);
/* recv(2) for the relay, into size bytes of which GSS_FRAME_MAX are there: when too many bytes are kept, one whole message at a time. */
ssize_t gss_recv(struct session *s, uint8_t *buffer, size_t size);
/* The first message in data: 1 with its length and plain bytes, 0 it is not whole, -1 with *why. */
int gss_open(struct session *s, uint8_t *data, size_t len, size_t *used, uint8_t **plain, size_t *plain_len, struct err *why);
/* The next whole message of those that wait: 1 with its plain bytes (valid until the next call of any of these), 0 there is none, -1 with *why. */
int gss_next(struct session *s, uint8_t **plain, size_t *plain_len, struct err *why);
/* Bytes that wait for the rest of their message. */
size_t gss_waiting(const struct session *s);

/* One datagram, which is one message; -1: it is not, or a repeated one. */
int gss_open_datagram(struct session *s, uint8_t *data, size_t len, uint8_t **plain, size_t *plain_len);
