#include "config.h"

#include "gatewayd/worker/socks5.h"

#include <string.h>

enum { SOCKS_VERSION = 5, LOGIN_VERSION = 1 };
enum { ATYP_V4 = 1, ATYP_NAME = 3, ATYP_V6 = 4 };

static enum front_result refuse(struct front_refusal *why, enum reason reason, const char *detail)
{
	*why = (struct front_refusal){.reason = reason, .detail = detail};
	return FRONT_REFUSE;
}

enum front_result socks5_read_methods(const uint8_t *in, size_t len, size_t *used, struct socks5_methods *out,
				      struct front_refusal *why)
{
	if (len >= 1 && in[0] != SOCKS_VERSION)
		return refuse(why, REASON_PROTOCOL, "the first byte is not SOCKS version 5");
	if (len < 2 || len < 2 + (size_t)in[1])
		return FRONT_MORE;
	*out = (struct socks5_methods){.codes = in + 2, .count = in[1]};
	*used = 2 + (size_t)in[1];
	return FRONT_DONE;
}

uint8_t socks5_choose_method(const struct socks5_methods *client, const uint8_t *ours, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (client->count > 0 && memchr(client->codes, ours[i], client->count) != NULL)
			return ours[i];
	return 0xff;
}

enum front_result socks5_read_login(const uint8_t *in, size_t len, size_t *used, struct socks5_login *out,
				    struct front_refusal *why)
{
	if (len >= 1 && in[0] != LOGIN_VERSION)
		return refuse(why, REASON_PROTOCOL, "the log-in's version is not 1");
	if (len < 2)
		return FRONT_MORE;
	size_t user_end = 2 + (size_t)in[1];

	if (len < user_end + 1)
		return FRONT_MORE;
	size_t end = user_end + 1 + in[user_end];

	if (len < end)
		return FRONT_MORE;
	*out = (struct socks5_login){
		.user = in + 2, .user_len = in[1], .password = in + user_end + 1, .password_len = in[user_end]};
	*used = end;
	return FRONT_DONE;
}

/* DST.ADDR as a name: it may turn out to be an address. */
static enum front_result read_name(const uint8_t *text, size_t len, struct request *out, struct front_refusal *why)
{
	const char *detail;

	switch (name_canonical(text, len, &out->name, &out->address, &detail)) {
	case NAME_IS_NAME:
		out->has_name = true;
		return FRONT_DONE;
	case NAME_IS_ADDRESS:
		out->has_name = false;
		return FRONT_DONE;
	case NAME_REFUSED:
		break;
	}
	refuse(why, REASON_BAD_NAME, detail);
	why->name = text;
	why->name_len = len;
	return FRONT_REFUSE;
}

/* ATYP ADDR PORT at `at`: FRONT_DONE moves *at behind them.  Requests and datagrams name their destination alike. */
static enum front_result read_destination(const uint8_t *in, size_t len, size_t *at, struct request *out, struct front_refusal *why)
{
	size_t start = *at + 1, address_len;
	uint8_t atyp;

	if (len < start + 1)
		return FRONT_MORE;
	atyp = in[*at];
	switch (atyp) {
	case ATYP_V4:
		address_len = 4;
		break;
	case ATYP_V6:
		address_len = 16;
		break;
	case ATYP_NAME:
		address_len = in[start++];
		break;
	default:
		return refuse(why, REASON_ADDRESS_TYPE, "the address type is not IPv4, name or IPv6");
	}
	if (len < start + address_len + 2)
		return FRONT_MORE;
	*at = start + address_len + 2;
	out->port = (uint16_t)(in[start + address_len] << 8 | in[start + address_len + 1]);
	if (atyp == ATYP_NAME)
		return read_name(in + start, address_len, out, why);
	if (atyp == ATYP_V4) {
		out->address.family = ADDR_V4;
		memcpy(out->address.bytes, in + start, 4);
	} else {
		out->address = addr_v6(in + start);
	}
	return FRONT_DONE;
}

enum front_result socks5_read_request(const uint8_t *in, size_t len, size_t *used, struct request *out,
				      struct front_refusal *why)
{
	enum front_result result;
	size_t at = 3;

	if (len >= 1 && in[0] != SOCKS_VERSION)
		return refuse(why, REASON_PROTOCOL, "the request's version is not 5");
	if (len < at)
		return FRONT_MORE;
	memset(out, 0, sizeof *out);
	out->command = (enum policy_command)in[1];
	result = read_destination(in, len, &at, out, why);
	*used = at;
	if (result != FRONT_MORE && (in[1] < POLICY_CONNECT || in[1] > POLICY_UDP))
		return refuse(why, REASON_COMMAND, "the command is not CONNECT, BIND or UDP ASSOCIATE");
	return result;
}

enum front_result socks5_read_datagram(const uint8_t *in, size_t len, size_t *used, struct request *out, struct front_refusal *why)
{
	enum front_result result;
	size_t at = 3;

	if (len < at || in[0] != 0 || in[1] != 0)
		return refuse(why, REASON_PROTOCOL, "the datagram has no header");
	if (in[2] != 0)
		return refuse(why, REASON_FRAGMENT, NULL);
	memset(out, 0, sizeof *out);
	out->command = POLICY_UDP;
	result = read_destination(in, len, &at, out, why);
	if (result == FRONT_MORE)
		return refuse(why, REASON_PROTOCOL, "the datagram's header is cut");
	*used = at;
	return result;
}

/* ATYP ADDR PORT; returns what was written. */
static size_t write_endpoint(uint8_t *out, const struct endpoint *ep)
{
	size_t len = ep->addr.family == ADDR_V6 ? 16 : 4;

	out[0] = ep->addr.family == ADDR_V6 ? ATYP_V6 : ATYP_V4;
	memcpy(out + 1, ep->addr.bytes, len);
	out[1 + len] = (uint8_t)(ep->port >> 8);
	out[2 + len] = (uint8_t)ep->port;
	return 3 + len;
}

size_t socks5_write_reply(uint8_t out[SOCKS5_REPLY_MAX], uint8_t code, const struct endpoint *bound)
{
	out[0] = SOCKS_VERSION;
	out[1] = code;
	out[2] = 0;
	return 3 + write_endpoint(out + 3, bound);
}

size_t socks5_write_datagram(uint8_t out[SOCKS5_UDP_HEADER_MAX], const struct endpoint *from)
{
	memset(out, 0, 3);
	return 3 + write_endpoint(out + 3, from);
}
