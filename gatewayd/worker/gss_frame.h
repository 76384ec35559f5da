/* The messages of SOCKS5's GSSAPI method (RFC 1961): a pure codec.  VER=1 MTYP LEN(2) TOKEN; an abort is VER MTYP alone. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "gatewayd/worker/socks5.h"

enum gss_message {
	GSS_TOKEN = 1,	    /* section 3.4, 3.7: context establishment */
	GSS_PROTECTION = 2, /* section 4.3: which protection, one octet, itself a token */
	GSS_DATA = 3,	    /* section 5: encapsulated data */
	GSS_ABORT = 0xff,   /* section 3.8 */
};

#define GSS_HEADER 4
#define GSS_TOKEN_MAX 65535

/* One message of the wanted kind.  FRONT_MORE: it is not whole; *used (if not NULL) is then how many bytes it will have, as
 * far as that is known.  FRONT_DONE: *token is in `in`.  Another kind, another version and an empty token are refused. */
enum front_result gss_read_frame(const uint8_t *in, size_t len, enum gss_message wanted, size_t *used, const uint8_t **token,
				 size_t *token_len, struct front_refusal *why);
void gss_write_header(uint8_t out[GSS_HEADER], enum gss_message kind, size_t token_len);
