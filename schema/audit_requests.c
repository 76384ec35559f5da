#include "config.h"

#include "schema/audit_requests.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "schema/audit_stats.h"

/* Of all that are held; one more fits always. */
#define BYTES_MAX ((size_t)32 << 20)

struct entry {
	uint64_t hash, id, count;
	size_t edge;
	struct audit_event e; /* its detail ends with its text */
};

struct audit_requests {
	int64_t *edges;
	size_t nedges, max, count, room; /* room: a power of two, at most half of it used */
	struct entry **slots;
	uint8_t *bytes; /* of the entries, one behind the other */
	size_t used, given_bytes;
	uint8_t key[crypto_shorthash_KEYBYTES]; /* names come from clients: nobody chooses ones that collide */
	struct audit_event given;
};

struct audit_requests *audit_requests_new(const int64_t *edges, size_t nedges, size_t max)
{
	struct audit_requests *r = calloc(1, sizeof *r);

	if (r == NULL)
		return NULL;
	r->max = max;
	for (r->room = 64; r->room < 2 * max; r->room *= 2)
		;
	r->slots = calloc(r->room, sizeof r->slots[0]);
	r->edges = calloc(nedges + 1, sizeof r->edges[0]);
	r->bytes = malloc(BYTES_MAX + sizeof(struct entry));
	if (r->slots == NULL || r->edges == NULL || r->bytes == NULL) {
		audit_requests_free(&r);
		return NULL;
	}
	if (nedges > 0)
		memcpy(r->edges, edges, nedges * sizeof r->edges[0]);
	r->nedges = nedges;
	randombytes_buf(r->key, sizeof r->key);
	return r;
}

void audit_requests_free(struct audit_requests **requests)
{
	struct audit_requests *r = *requests;

	*requests = NULL;
	if (r == NULL)
		return;
	free(r->bytes);
	free(r->slots);
	free(r->edges);
	free(r);
}

bool audit_requests_full(const struct audit_requests *r)
{
	return r->count >= r->max || r->used >= BYTES_MAX;
}

/* How many edges are not after a time. */
static size_t edge_of(const struct audit_requests *r, int64_t seconds)
{
	size_t lo = 0, hi = r->nedges;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (r->edges[mid] <= seconds)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct bytes {
	uint8_t *at;
};

static void put(struct bytes *b, const void *data, size_t len)
{
	memcpy(b->at, data, len);
	b->at += len;
}

static void put_text(struct bytes *b, const char *text)
{
	put(b, text, strlen(text) + 1);
}

/* What makes two requests one. */
static uint64_t hash_of(const struct audit_requests *r, const struct audit_event *e, const char *detail, size_t edge)
{
	static uint8_t buf[sizeof(struct audit_event) + 64];
	struct bytes b = {buf};
	uint8_t out[crypto_shorthash_BYTES];
	uint64_t hash;

	put(&b, &e->kind, sizeof e->kind);
	put(&b, &edge, sizeof edge);
	put(&b, &e->client.addr.family, sizeof e->client.addr.family);
	put(&b, e->client.addr.bytes, sizeof e->client.addr.bytes);
	put(&b, &e->address.addr.family, sizeof e->address.addr.family);
	put(&b, e->address.addr.bytes, sizeof e->address.addr.bytes);
	put(&b, &e->address.port, sizeof e->address.port);
	put_text(&b, e->listener);
	put_text(&b, e->user);
	put_text(&b, e->method);
	put_text(&b, e->command);
	put_text(&b, e->name);
	put_text(&b, e->rule);
	put_text(&b, e->reason);
	put_text(&b, detail);
	crypto_shorthash(out, buf, (unsigned long long)(b.at - buf), r->key);
	memcpy(&hash, out, sizeof hash);
	return hash;
}

static bool same(const struct entry *x, const struct audit_event *e, const char *detail, size_t edge)
{
	const struct audit_event *f = &x->e;

	return x->edge == edge && f->kind == e->kind && addr_equal(&f->client.addr, &e->client.addr) &&
	       addr_equal(&f->address.addr, &e->address.addr) && f->address.port == e->address.port &&
	       strcmp(f->user, e->user) == 0 && strcmp(f->name, e->name) == 0 && strcmp(f->rule, e->rule) == 0 &&
	       strcmp(f->listener, e->listener) == 0 && strcmp(f->method, e->method) == 0 && strcmp(f->command, e->command) == 0 &&
	       strcmp(f->reason, e->reason) == 0 && strcmp(f->detail, detail) == 0;
}

/* An event is mostly room for a long detail: what is kept has the room that it needs. */
static size_t size_of(const char *detail)
{
	size_t size = offsetof(struct entry, e) + offsetof(struct audit_event, detail) + strlen(detail) + 1;

	return (size + _Alignof(struct entry) - 1) & ~(_Alignof(struct entry) - 1);
}

static struct entry *keep(struct audit_requests *r, const struct audit_event *e, const char *detail)
{
	size_t len = strlen(detail) + 1;
	struct entry *x = (struct entry *)(void *)(r->bytes + r->used);

	r->used += size_of(detail);
	memcpy(&x->e, e, offsetof(struct audit_event, detail));
	memcpy((char *)&x->e + offsetof(struct audit_event, detail), detail, len);
	return x;
}

/* What a row of a flood says besides how many it stands for. */
static const char folded_detail[] = "{\"folded\":1}";

bool audit_requests_add(struct audit_requests *r, uint64_t id, const struct audit_event *e)
{
	uint64_t weight = audit_stats_weight(e), hash;
	const char *detail = strncmp(e->detail, folded_detail, sizeof folded_detail - 3) == 0 ? folded_detail : e->detail;
	size_t edge = edge_of(r, e->time_us / 1000000), at;

	if (((1u << e->kind) & AUDIT_REQUEST_KINDS) == 0)
		return true;
	hash = hash_of(r, e, detail, edge);
	for (at = hash & (r->room - 1); r->slots[at] != NULL; at = (at + 1) & (r->room - 1)) {
		if (r->slots[at]->hash != hash || !same(r->slots[at], e, detail, edge))
			continue;
		r->slots[at]->count += weight;
		return true;
	}
	struct entry *x = keep(r, e, detail);

	x->hash = hash;
	x->id = id;
	x->count = weight;
	x->edge = edge;
	r->slots[at] = x;
	r->count++;
	return !audit_requests_full(r);
}

const struct audit_event *audit_requests_next(struct audit_requests *r, uint64_t *id, uint64_t *count)
{
	const struct entry *x = (const struct entry *)(const void *)(r->bytes + r->given_bytes);
	const char *detail = (const char *)&x->e + offsetof(struct audit_event, detail);

	if (r->given_bytes == r->used) {
		memset(r->slots, 0, r->room * sizeof r->slots[0]);
		r->count = r->used = r->given_bytes = 0;
		return NULL;
	}
	r->given_bytes += size_of(detail);
	memcpy(&r->given, &x->e, offsetof(struct audit_event, detail));
	memcpy(r->given.detail, detail, strlen(detail) + 1);
	*id = x->id;
	*count = x->count;
	return &r->given;
}
