#include "config.h"

#include "gatewayd/worker/socks4.h"

#include <string.h>

enum { FIXED_LEN = 8 };

static enum front_result refuse(struct front_refusal *why, enum reason reason, const char *detail)
{
	*why = (struct front_refusal){.reason = reason, .detail = detail};
	return FRONT_REFUSE;
}

/* A NUL-terminated string at `at`: its length, FRONT_MORE while its end is not there. */
static enum front_result read_text(const uint8_t *in, size_t len, size_t at, uint8_t *text_len, struct front_refusal *why)
{
	const uint8_t *end = at < len ? memchr(in + at, '\0', len - at) : NULL;
	size_t have = end == NULL ? len - at : (size_t)(end - (in + at));

	if (at < len && have > SOCKS4_TEXT_MAX)
		return refuse(why, REASON_PROTOCOL, "a SOCKS4 string is longer than 255 bytes");
	if (end == NULL)
		return FRONT_MORE;
	*text_len = (uint8_t)have;
	return FRONT_DONE;
}

/* 4a: the server resolves the name. */
static bool is_4a(const uint8_t ip[4])
{
	return ip[0] == 0 && ip[1] == 0 && ip[2] == 0 && ip[3] != 0;
}

static enum front_result read_name(const uint8_t *text, size_t len, struct request *out, struct front_refusal *why)
{
	const char *detail;

	switch (name_canonical(text, len, &out->name, &out->address, &detail)) {
	case NAME_IS_NAME:
		out->has_name = true;
		return FRONT_DONE;
	case NAME_IS_ADDRESS:
		return FRONT_DONE;
	case NAME_REFUSED:
		break;
	}
	*why = (struct front_refusal){.reason = REASON_BAD_NAME, .detail = detail, .name = text, .name_len = len};
	return FRONT_REFUSE;
}

enum front_result socks4_read_request(const uint8_t *in, size_t len, size_t *used, struct request *out, struct socks4_user *user,
				      struct front_refusal *why)
{
	uint8_t user_len, name_len = 0;
	enum front_result result;
	size_t name_at;

	if (len >= 1 && in[0] != 4)
		return refuse(why, REASON_PROTOCOL, "the request's version is not 4");
	if (len < FIXED_LEN)
		return FRONT_MORE;
	result = read_text(in, len, FIXED_LEN, &user_len, why);
	if (result != FRONT_DONE)
		return result;
	name_at = FIXED_LEN + user_len + (size_t)1;
	*used = name_at;
	if (is_4a(in + 4)) {
		result = read_text(in, len, name_at, &name_len, why);
		if (result != FRONT_DONE)
			return result;
		*used = name_at + name_len + 1;
	}
	memset(out, 0, sizeof *out);
	*user = (struct socks4_user){.text = in + FIXED_LEN, .len = user_len};
	out->command = (enum policy_command)in[1];
	out->port = (uint16_t)(in[2] << 8 | in[3]);
	if (in[1] != POLICY_CONNECT && in[1] != POLICY_BIND)
		return refuse(why, REASON_COMMAND, "SOCKS4 knows CONNECT and BIND");
	if (is_4a(in + 4))
		return read_name(in + name_at, name_len, out, why);
	out->address.family = ADDR_V4;
	memcpy(out->address.bytes, in + 4, 4);
	return FRONT_DONE;
}

size_t socks4_write_reply(uint8_t out[SOCKS4_REPLY_LEN], uint8_t code, const struct endpoint *bound)
{
	memset(out, 0, SOCKS4_REPLY_LEN);
	out[1] = code;
	out[2] = (uint8_t)(bound->port >> 8);
	out[3] = (uint8_t)bound->port;
	if (bound->addr.family == ADDR_V4)
		memcpy(out + 4, bound->addr.bytes, 4);
	return SOCKS4_REPLY_LEN;
}
