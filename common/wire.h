/* Values in and out of a bounded block of bytes: the bodies of messages between our processes.
 *
 * A writer that overflows and a reader that runs dry both remember it and do nothing more, so that a caller checks once,
 * at the end.  Integers are in host order: both ends are the same machine and the same binary. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/addr.h"
#include "common/name.h"

struct wire_writer {
	uint8_t *data;
	size_t len, size;
	bool overflow;
};

struct wire_reader {
	const uint8_t *at, *end;
	bool bad;
};

/* data is borrowed for the life of the writer. */
struct wire_writer wire_writer_on(uint8_t *data, size_t size);
void wire_put_u8(struct wire_writer *w, uint8_t v);
void wire_put_u16(struct wire_writer *w, uint16_t v);
void wire_put_u32(struct wire_writer *w, uint32_t v);
void wire_put_u64(struct wire_writer *w, uint64_t v);
/* A u32 length, then the bytes. */
void wire_put_bytes(struct wire_writer *w, const void *data, size_t len);
/* NULL is written as "". */
void wire_put_text(struct wire_writer *w, const char *text);
void wire_put_addr(struct wire_writer *w, const struct addr *a);
void wire_put_endpoint(struct wire_writer *w, const struct endpoint *ep);

/* data is borrowed for the life of the reader and of everything that wire_get_bytes() gives. */
struct wire_reader wire_reader_on(const void *data, size_t len);
uint8_t wire_get_u8(struct wire_reader *r);
/* 0 or 1; anything else is bad. */
bool wire_get_bool(struct wire_reader *r);
uint16_t wire_get_u16(struct wire_reader *r);
uint32_t wire_get_u32(struct wire_reader *r);
uint64_t wire_get_u64(struct wire_reader *r);
/* At most max bytes; NULL and *len 0 when bad. */
const uint8_t *wire_get_bytes(struct wire_reader *r, size_t max, size_t *len);
/* Copies a text without NUL into buf, terminated; bad if it does not fit. */
void wire_get_text(struct wire_reader *r, char *buf, size_t size);
void wire_get_addr(struct wire_reader *r, struct addr *a);
void wire_get_endpoint(struct wire_reader *r, struct endpoint *ep);
/* True if everything read was there and not a byte is left over. */
bool wire_done(const struct wire_reader *r);
