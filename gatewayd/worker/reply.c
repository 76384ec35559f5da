#include "config.h"

#include "gatewayd/worker/reply.h"

#include <errno.h>

static const struct {
	uint8_t socks5;
	const char *word;
} table[REASON_COUNT] = {
	[REASON_NONE] = {0x00, ""},
#define REASON(name, socks5, word) [REASON_##name] = {(socks5), (word)},
#include "gatewayd/worker/replies.def"
};

uint8_t reason_socks5(enum reason reason)
{
	return table[reason].socks5;
}

uint8_t reason_socks4(enum reason reason)
{
	return reason == REASON_NONE ? 90 : 91;
}

const char *reason_word(enum reason reason)
{
	return table[reason].word;
}

enum reason reason_of_errno(int error)
{
	switch (error) {
	case ECONNREFUSED:
		return REASON_REFUSED;
	case ENETUNREACH:
	case ENETDOWN:
		return REASON_NET_UNREACHABLE;
	case EHOSTUNREACH:
	case EHOSTDOWN:
	case EACCES: /* "administratively prohibited", where an IPv6 router says it */
		return REASON_HOST_UNREACHABLE;
	case ETIMEDOUT:
		return REASON_CONNECT_TIMEOUT;
	default:
		return REASON_CONNECT_FAILED;
	}
}

enum reason reason_worse(enum reason a, enum reason b)
{
	return a > b ? a : b;
}
