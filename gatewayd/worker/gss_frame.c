#include "config.h"

#include "gatewayd/worker/gss_frame.h"

enum { MESSAGE_VERSION = 1 };

static enum front_result refuse(struct front_refusal *why, const char *detail)
{
	*why = (struct front_refusal){.reason = REASON_PROTOCOL, .detail = detail};
	return FRONT_REFUSE;
}

/* What clients are known to send instead. */
static const char *complaint(const uint8_t *in, size_t len, enum gss_message wanted)
{
	if (in[0] != MESSAGE_VERSION && wanted == GSS_DATA)
		return "plain bytes where GSSAPI protection was agreed on";
	if (in[0] != MESSAGE_VERSION)
		return "the GSSAPI message's version is not 1";
	if (len >= 2 && in[1] == GSS_ABORT)
		return "the client aborted the GSSAPI exchange";
	if (len >= 2 && in[1] != wanted)
		return wanted == GSS_TOKEN	  ? "the GSSAPI message is no token"
		       : wanted == GSS_PROTECTION ? "the GSSAPI message is no word about protection"
						  : "the GSSAPI message is no encapsulated data";
	return NULL;
}

enum front_result gss_read_frame(const uint8_t *in, size_t len, enum gss_message wanted, size_t *used, const uint8_t **token,
				 size_t *token_len, struct front_refusal *why)
{
	const char *wrong = len == 0 ? NULL : complaint(in, len, wanted);
	size_t n;

	if (wrong != NULL)
		return refuse(why, wrong);
	*used = GSS_HEADER;
	if (len < GSS_HEADER)
		return FRONT_MORE;
	n = (size_t)in[2] << 8 | in[3];
	if (n == 0)
		return refuse(why, "an empty GSSAPI token");
	*used = GSS_HEADER + n;
	if (len < *used)
		return FRONT_MORE;
	*token = in + GSS_HEADER;
	*token_len = n;
	return FRONT_DONE;
}

void gss_write_header(uint8_t out[GSS_HEADER], enum gss_message kind, size_t token_len)
{
	out[0] = MESSAGE_VERSION;
	out[1] = (uint8_t)kind;
	out[2] = (uint8_t)(token_len >> 8);
	out[3] = (uint8_t)token_len;
}
