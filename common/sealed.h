/* Bytes handed to another process that neither side can change afterwards: a memfd with all its seals
 * (memfd_create(2), fcntl(2) F_ADD_SEALS). */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "common/err.h"

struct sealed {
	const uint8_t *data; /* mapped read-only; NULL when closed or empty */
	size_t len;
};

/* Returns a sealed descriptor holding a copy of data, close-on-exec; the caller closes it.  -1 with *why on failure. */
int sealed_create(const char *name, const void *data, size_t len, struct err *why);
/* The same for data that lies in n pieces. */
int sealed_create_parts(const char *name, const struct iovec *parts, size_t n, struct err *why);
/* Maps fd after checking that it is sealed against writing, growing and shrinking, and at most max bytes.  fd may be
 * closed afterwards. */
int sealed_map(int fd, size_t max, struct sealed *out, struct err *why);
void sealed_unmap(struct sealed *s);
