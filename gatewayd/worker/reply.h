/* Why a session is refused or could not be connected: one table from the internal reason to the SOCKS5 reply and the audit's
 * word for it. */
#pragma once

#include <stdint.h>

enum reason {
	REASON_NONE,
#define REASON(name, socks5, word) REASON_##name,
#include "gatewayd/worker/replies.def"
	REASON_COUNT
};

/* RFC 1928 section 6, REP. */
uint8_t reason_socks5(enum reason reason);
/* The CD of a SOCKS4 reply: 90 granted, 91 rejected or failed.  92 and 93 speak of identd, which nobody asks here. */
uint8_t reason_socks4(enum reason reason);
/* The stable word that the audit stores. */
const char *reason_word(enum reason reason);
/* What connect(2) or SO_ERROR said. */
enum reason reason_of_errno(int error);
/* Of two failed attempts, the one that tells the client more. */
enum reason reason_worse(enum reason a, enum reason b);
