/* What differs between the protocols that clients speak once a request has been read: how they are answered. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/addr.h"
#include "gatewayd/worker/reply.h"

enum protocol { PROTOCOL_UNKNOWN, PROTOCOL_SOCKS5, PROTOCOL_SOCKS4 };

#define FRONT_REPLY_MAX 22
/* Writes the reply to a request and returns its length: 0 where the protocol is not known yet.  REASON_NONE is success. */
size_t front_write_reply(enum protocol protocol, uint8_t out[FRONT_REPLY_MAX], enum reason reason, const struct endpoint *bound);
