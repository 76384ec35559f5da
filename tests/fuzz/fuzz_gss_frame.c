/* RFC 1961's messages, one behind the other, read whole and cut: the reader stays inside, and a longer piece never changes what a
 * shorter one has told. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "gatewayd/worker/gss_frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_cuts(const uint8_t *data, size_t len, enum gss_message kind)
{
	const uint8_t *token;
	size_t used, token_len;
	struct front_refusal why;

	for (size_t cut = 0; cut < len && cut < 64; cut++)
		if (gss_read_frame(data, cut, kind, &used, &token, &token_len, &why) != FRONT_MORE || used <= cut)
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const enum gss_message kinds[] = {GSS_TOKEN, GSS_PROTECTION, GSS_DATA};
	const uint8_t *token;
	size_t used, token_len;
	struct front_refusal why;

	for (unsigned k = 0; k < 3; k++) {
		const uint8_t *at = data;
		size_t left = size;

		while (gss_read_frame(at, left, kinds[k], &used, &token, &token_len, &why) == FRONT_DONE) {
			uint8_t header[GSS_HEADER];

			if (used > left || token_len == 0 || token != at + GSS_HEADER || used != GSS_HEADER + token_len)
				abort();
			gss_write_header(header, kinds[k], token_len);
			if (memcmp(header, at, sizeof header) != 0)
				abort();
			check_cuts(at, used, kinds[k]);
			at += used;
			left -= used;
		}
	}
	return 0;
}
