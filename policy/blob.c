#include "config.h"

#include "policy/blob.h"

#include <stdlib.h>
#include <string.h>

void *blob_add(struct blob *b, const void *bytes, size_t n)
{
	if (n == 0)
		return b->data;
	if (b->room - b->len < n) {
		size_t room = b->room * 2 > b->len + n ? b->room * 2 : b->len + n + 64;
		uint8_t *grown = realloc(b->data, room);

		if (grown == NULL)
			abort();
		b->data = grown;
		b->room = room;
	}
	uint8_t *at = b->data + b->len;

	if (bytes == NULL)
		memset(at, 0, n);
	else
		memcpy(at, bytes, n);
	b->len += n;
	return at;
}

void blob_clear(struct blob *b)
{
	free(b->data);
	*b = (struct blob){0};
}
