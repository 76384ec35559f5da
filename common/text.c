#include "config.h"

#include "common/text.h"

#include <string.h>

const char *text_escape(const void *text, size_t len, char *out, size_t size)
{
	static const char hex[] = "0123456789abcdef";
	const unsigned char *in = text;
	size_t used = 0;

	for (size_t i = 0; i < len; i++) {
		size_t need = in[i] < 0x20 || in[i] > 0x7e || in[i] == '\\' ? 4 : 1;

		if (used + need + 4 > size) { /* room for "..." and the terminator */
			size_t dots = size - used - 1 < 3 ? size - used - 1 : 3;

			memcpy(out + used, "...", dots);
			used += dots;
			break;
		}
		if (need == 1) {
			out[used++] = (char)in[i];
			continue;
		}
		out[used++] = '\\';
		out[used++] = 'x';
		out[used++] = hex[in[i] >> 4];
		out[used++] = hex[in[i] & 15];
	}
	out[used] = '\0';
	return out;
}

bool text_is_plain(const char *text)
{
	for (const unsigned char *at = (const unsigned char *)text; *at != '\0'; at++)
		if (*at < 0x20 || *at == 0x7f || (at[0] == 0xc2 && at[1] >= 0x80 && at[1] < 0xa0))
			return false;
	return true;
}
