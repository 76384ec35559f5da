#include "config.h"

#include "gatewayd/worker/front.h"

#include "gatewayd/worker/socks4.h"
#include "gatewayd/worker/socks5.h"

size_t front_write_reply(enum protocol protocol, uint8_t out[FRONT_REPLY_MAX], enum reason reason, const struct endpoint *bound)
{
	switch (protocol) {
	case PROTOCOL_SOCKS5:
		return socks5_write_reply(out, reason_socks5(reason), bound);
	case PROTOCOL_SOCKS4:
		return socks4_write_reply(out, reason_socks4(reason), bound);
	case PROTOCOL_UNKNOWN:
		break;
	}
	return 0;
}
