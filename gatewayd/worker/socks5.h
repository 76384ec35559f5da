/* SOCKS5 (RFC 1928) and its username/password log-in (RFC 1929): a pure codec.  Each reader looks at the bytes at hand and
 * says that it needs more, that it has one message and how long it was, or why it refuses.  No I/O, no state, no memory. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "gatewayd/worker/reply.h"
#include "gatewayd/worker/request.h"

enum front_result { FRONT_MORE, FRONT_DONE, FRONT_REFUSE };

struct front_refusal {
	enum reason reason;
	const char *detail; /* constant text */
	/* What the client asked for, as far as it was read, for the audit: borrowed bytes. */
	const uint8_t *name;
	size_t name_len;
};

/* RFC 1928 section 3: VER NMETHODS METHODS. */
struct socks5_methods {
	const uint8_t *codes; /* borrowed */
	uint8_t count;
};
enum front_result socks5_read_methods(const uint8_t *in, size_t len, size_t *used, struct socks5_methods *out,
				      struct front_refusal *why);
/* The first of ours (in our order) that the client offers too, or 0xff. */
uint8_t socks5_choose_method(const struct socks5_methods *client, const uint8_t *ours, size_t n);

/* RFC 1929 section 2: VER ULEN UNAME PLEN PASSWD.  Empty or hostile texts are the caller's to refuse. */
struct socks5_login {
	const uint8_t *user, *password; /* borrowed */
	uint8_t user_len, password_len;
};
enum front_result socks5_read_login(const uint8_t *in, size_t len, size_t *used, struct socks5_login *out,
				    struct front_refusal *why);

/* RFC 1928 section 4: VER CMD RSV ATYP DST.ADDR DST.PORT. */
enum front_result socks5_read_request(const uint8_t *in, size_t len, size_t *used, struct request *out,
				      struct front_refusal *why);

/* RFC 1928 section 6: VER REP RSV ATYP BND.ADDR BND.PORT; bound may have family ADDR_NONE (written as 0.0.0.0:0). */
#define SOCKS5_REPLY_MAX 22
size_t socks5_write_reply(uint8_t out[SOCKS5_REPLY_MAX], uint8_t code, const struct endpoint *bound);

/* RFC 1928 section 7: RSV(2) FRAG ATYP DST.ADDR DST.PORT, then the data. */
#define SOCKS5_UDP_HEADER_MAX 22 /* of those that we write: their address is never a name */
/* One datagram is whole or nothing: FRONT_DONE with *used the header's length, or FRONT_REFUSE (fragments too). */
enum front_result socks5_read_datagram(const uint8_t *in, size_t len, size_t *used, struct request *out, struct front_refusal *why);
size_t socks5_write_datagram(uint8_t out[SOCKS5_UDP_HEADER_MAX], const struct endpoint *from);
