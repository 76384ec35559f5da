#include "config.h"

#include "common/wire.h"

#include <string.h>

struct wire_writer wire_writer_on(uint8_t *data, size_t size)
{
	return (struct wire_writer){.data = data, .size = size};
}

static void put(struct wire_writer *w, const void *data, size_t len)
{
	if (w->overflow || len > w->size - w->len) {
		w->overflow = true;
		return;
	}
	if (len > 0)
		memcpy(w->data + w->len, data, len);
	w->len += len;
}

void wire_put_u8(struct wire_writer *w, uint8_t v)
{
	put(w, &v, sizeof v);
}

void wire_put_u16(struct wire_writer *w, uint16_t v)
{
	put(w, &v, sizeof v);
}

void wire_put_u32(struct wire_writer *w, uint32_t v)
{
	put(w, &v, sizeof v);
}

void wire_put_u64(struct wire_writer *w, uint64_t v)
{
	put(w, &v, sizeof v);
}

void wire_put_bytes(struct wire_writer *w, const void *data, size_t len)
{
	if (len > UINT32_MAX) {
		w->overflow = true;
		return;
	}
	wire_put_u32(w, (uint32_t)len);
	put(w, data, len);
}

void wire_put_text(struct wire_writer *w, const char *text)
{
	wire_put_bytes(w, text, text == NULL ? 0 : strlen(text));
}

void wire_put_addr(struct wire_writer *w, const struct addr *a)
{
	wire_put_u8(w, a->family);
	put(w, a->bytes, addr_len(a));
}

void wire_put_endpoint(struct wire_writer *w, const struct endpoint *ep)
{
	wire_put_addr(w, &ep->addr);
	wire_put_u16(w, ep->port);
}

struct wire_reader wire_reader_on(const void *data, size_t len)
{
	return (struct wire_reader){.at = data, .end = (const uint8_t *)data + len};
}

static void get(struct wire_reader *r, void *out, size_t len)
{
	if (r->bad || len > (size_t)(r->end - r->at)) {
		r->bad = true;
		memset(out, 0, len);
		return;
	}
	if (len > 0)
		memcpy(out, r->at, len);
	r->at += len;
}

uint8_t wire_get_u8(struct wire_reader *r)
{
	uint8_t v;

	get(r, &v, sizeof v);
	return v;
}

bool wire_get_bool(struct wire_reader *r)
{
	uint8_t v = wire_get_u8(r);

	r->bad |= v > 1;
	return v == 1;
}

uint16_t wire_get_u16(struct wire_reader *r)
{
	uint16_t v;

	get(r, &v, sizeof v);
	return v;
}

uint32_t wire_get_u32(struct wire_reader *r)
{
	uint32_t v;

	get(r, &v, sizeof v);
	return v;
}

uint64_t wire_get_u64(struct wire_reader *r)
{
	uint64_t v;

	get(r, &v, sizeof v);
	return v;
}

const uint8_t *wire_get_bytes(struct wire_reader *r, size_t max, size_t *len)
{
	uint32_t n = wire_get_u32(r);
	const uint8_t *at = r->at;

	*len = 0;
	if (r->bad || n > max || n > (size_t)(r->end - r->at)) {
		r->bad = true;
		return NULL;
	}
	r->at += n;
	*len = n;
	return at;
}

void wire_get_text(struct wire_reader *r, char *buf, size_t size)
{
	size_t len;
	const uint8_t *data = wire_get_bytes(r, size - 1, &len);

	buf[0] = '\0';
	if (data == NULL)
		return;
	if (memchr(data, '\0', len) != NULL) {
		r->bad = true;
		return;
	}
	memcpy(buf, data, len);
	buf[len] = '\0';
}

void wire_get_addr(struct wire_reader *r, struct addr *a)
{
	*a = (struct addr){.family = wire_get_u8(r)};
	if (a->family != ADDR_NONE && a->family != ADDR_V4 && a->family != ADDR_V6) {
		r->bad = true;
		*a = (struct addr){0};
		return;
	}
	get(r, a->bytes, addr_len(a));
}

void wire_get_endpoint(struct wire_reader *r, struct endpoint *ep)
{
	wire_get_addr(r, &ep->addr);
	ep->port = wire_get_u16(r);
}

bool wire_done(const struct wire_reader *r)
{
	return !r->bad && r->at == r->end;
}
