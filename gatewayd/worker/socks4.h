/* SOCKS4 and 4a: a pure codec, like socks5.h.  "SOCKS: A protocol for TCP proxy across firewalls" and its 4a extension. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "gatewayd/worker/socks5.h"

/* Both strings of a request, without their NUL. */
#define SOCKS4_TEXT_MAX 255

struct socks4_user {
	const uint8_t *text; /* borrowed: a claim, never a log-in */
	uint8_t len;
};

/* VN CD DSTPORT DSTIP USERID NULL, and for 4a (DSTIP 0.0.0.x, x not 0) a name and NULL. */
enum front_result socks4_read_request(const uint8_t *in, size_t len, size_t *used, struct request *out, struct socks4_user *user,
				      struct front_refusal *why);

/* VN (0) CD DSTPORT DSTIP; an IPv6 address is written as 0.0.0.0. */
#define SOCKS4_REPLY_LEN 8
size_t socks4_write_reply(uint8_t out[SOCKS4_REPLY_LEN], uint8_t code, const struct endpoint *bound);
