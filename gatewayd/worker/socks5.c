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

enum front_result socks5_read_request(const uint8_t *in, size_t len, size_t *used, struct request *out,
				      struct front_refusal *why)
{
	size_t at = 4, address_len;

	if (len >= 1 && in[0] != SOCKS_VERSION)
		return refuse(why, REASON_PROTOCOL, "the request's version is not 5");
	if (len < 5)
		return FRONT_MORE;
	switch (in[3]) {
	case ATYP_V4:
		address_len = 4;
		break;
	case ATYP_V6:
		address_len = 16;
		break;
	case ATYP_NAME:
		at = 5;
		address_len = in[4];
		break;
	default:
		return refuse(why, REASON_ADDRESS_TYPE, "the address type is not IPv4, name or IPv6");
	}
	if (len < at + address_len + 2)
		return FRONT_MORE;
	*used = at + address_len + 2;
	memset(out, 0, sizeof *out);
	out->command = (enum policy_command)in[1];
	out->port = (uint16_t)(in[at + address_len] << 8 | in[at + address_len + 1]);
	if (in[1] != POLICY_CONNECT)
		return refuse(why, REASON_COMMAND, "only CONNECT is served");
	if (in[3] == ATYP_NAME)
		return read_name(in + at, address_len, out, why);
	if (in[3] == ATYP_V4) {
		out->address.family = ADDR_V4;
		memcpy(out->address.bytes, in + at, 4);
	} else {
		out->address = addr_v6(in + at);
	}
	return FRONT_DONE;
}

size_t socks5_write_reply(uint8_t out[SOCKS5_REPLY_MAX], uint8_t code, const struct endpoint *bound)
{
	size_t len = bound->addr.family == ADDR_V6 ? 16 : 4;

	out[0] = SOCKS_VERSION;
	out[1] = code;
	out[2] = 0;
	out[3] = bound->addr.family == ADDR_V6 ? ATYP_V6 : ATYP_V4;
	memcpy(out + 4, bound->addr.bytes, len);
	out[4 + len] = (uint8_t)(bound->port >> 8);
	out[5 + len] = (uint8_t)bound->port;
	return 6 + len;
}
