/* Growing memory of the compiler.  Without memory the compiler's process ends: half a policy is none. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct blob {
	uint8_t *data;
	size_t len, room;
};

/* Appends n bytes (zeros if bytes is NULL) and returns where they are. */
void *blob_add(struct blob *b, const void *bytes, size_t n);
void blob_clear(struct blob *b);
