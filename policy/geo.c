/* Countries and autonomous systems.  Making a table is the only thing of the library that reads a file, and the only
 * one that meets a database that somebody else wrote: it walks the search tree once, with a budget, in address order.
 */
#include "config.h"

#include "policy/geo_priv.h"

#include <maxminddb.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

/* ---- the table in use ----------------------------------------------------------------------------------------------
 */

static void sum(const uint8_t *data, size_t len, uint8_t out[GEO_SUM_BYTES])
{
	static const uint8_t zeros[GEO_SUM_BYTES];
	const size_t at = offsetof(struct geo_header, sum);
	crypto_generichash_state state;

	crypto_generichash_init(&state, NULL, 0, GEO_SUM_BYTES);
	crypto_generichash_update(&state, data, at);
	crypto_generichash_update(&state, zeros, sizeof zeros);
	crypto_generichash_update(&state, data + at + GEO_SUM_BYTES, len - at - GEO_SUM_BYTES);
	crypto_generichash_final(&state, out, GEO_SUM_BYTES);
}

static int header_check(const uint8_t *data, size_t len, struct err *why)
{
	const struct geo_header *h = (const struct geo_header *)data;

	if (len < sizeof *h || ((uintptr_t)data & 7) != 0 || memcmp(h->magic, GEO_MAGIC, sizeof h->magic) != 0)
		return err_set(why, "this is no table of countries or autonomous systems");
	if (h->version != GEO_VERSION)
		return err_set(why, "the geo table has version %u; this program reads version %u", h->version,
			       GEO_VERSION);
	if (h->len != len || len - sizeof *h != (uint64_t)h->count4 * sizeof(struct geo_step4) +
							(uint64_t)h->count6 * sizeof(struct geo_step6))
		return err_set(why, "the geo table is cut short or has more bytes than it should");
	return 0;
}

static void locate(const uint8_t *data, struct policy_geo *g)
{
	const struct geo_header *h = (const struct geo_header *)data;

	*g = (struct policy_geo){.count4 = h->count4, .count6 = h->count6, .kind = (enum geo_kind)h->kind};
	g->steps4 = (const struct geo_step4 *)(data + sizeof *h);
	g->steps6 = (const struct geo_step6 *)(data + sizeof *h + g->count4 * sizeof(struct geo_step4));
}

static bool code_sound(enum geo_kind kind, uint32_t code)
{
	if (kind == GEO_ASN)
		return true;
	if (code > UINT16_MAX)
		return false;

	uint8_t a = (uint8_t)(code >> 8), b = (uint8_t)code;

	return code == 0 || (a >= 'A' && a <= 'Z' && b >= 'A' && b <= 'Z');
}

static bool steps_sound(const struct policy_geo *g)
{
	static const uint8_t zero[16];

	if ((g->kind != GEO_COUNTRY && g->kind != GEO_ASN) || g->count4 == 0 || g->count6 == 0 ||
	    g->steps4[0].from != 0 || memcmp(g->steps6[0].from, zero, 16) != 0)
		return false;
	for (size_t i = 0; i < g->count4; i++)
		if (!code_sound(g->kind, g->steps4[i].value) || (i > 0 && g->steps4[i].from <= g->steps4[i - 1].from))
			return false;
	for (size_t i = 0; i < g->count6; i++)
		if (!code_sound(g->kind, g->steps6[i].value) ||
		    (i > 0 && memcmp(g->steps6[i].from, g->steps6[i - 1].from, 16) <= 0))
			return false;
	return true;
}

int policy_geo_verify(const uint8_t *data, size_t len, struct err *why)
{
	uint8_t computed[GEO_SUM_BYTES];
	struct policy_geo g;

	if (header_check(data, len, why) != 0)
		return -1;
	sum(data, len, computed);
	locate(data, &g);
	if (memcmp(computed, ((const struct geo_header *)data)->sum, sizeof computed) != 0 || !steps_sound(&g))
		return err_set(why, "the geo table is damaged");
	return 0;
}

struct policy_geo *policy_geo_open(const uint8_t *data, size_t len, struct err *why)
{
	if (header_check(data, len, why) != 0)
		return NULL;
	struct policy_geo *g = malloc(sizeof *g);

	if (g == NULL) {
		err_set(why, "there is no memory left to open the geo table");
		return NULL;
	}
	locate(data, g);
	return g;
}

void policy_geo_close(struct policy_geo **geo)
{
	free(*geo);
	*geo = NULL;
}

bool policy_geo_is_asn(const struct policy_geo *geo)
{
	return geo->kind == GEO_ASN;
}

static uint32_t find4(const struct policy_geo *g, const struct addr *a)
{
	uint32_t n =
		(uint32_t)a->bytes[0] << 24 | (uint32_t)a->bytes[1] << 16 | (uint32_t)a->bytes[2] << 8 | a->bytes[3];
	size_t lo = 0, hi = g->count4;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (g->steps4[mid].from <= n)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo == 0 ? 0 : g->steps4[lo - 1].value;
}

static uint32_t find6(const struct policy_geo *g, const struct addr *a)
{
	size_t lo = 0, hi = g->count6;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (memcmp(g->steps6[mid].from, a->bytes, 16) <= 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo == 0 ? 0 : g->steps6[lo - 1].value;
}

uint32_t geo_value(const struct policy_geo *geo, const struct addr *a)
{
	if (geo->fixed)
		return geo->value;
	return a->family == ADDR_V4 ? find4(geo, a) : a->family == ADDR_V6 ? find6(geo, a) : 0;
}

bool policy_geo_country(const struct policy_geo *geo, const struct addr *a, char country[3])
{
	uint32_t code = geo->kind == GEO_ASN ? 0 : geo_value(geo, a);

	country[0] = (char)(code >> 8);
	country[1] = (char)code;
	country[2] = '\0';
	return code != 0;
}

uint32_t policy_geo_asn(const struct policy_geo *geo, const struct addr *a)
{
	return geo->kind == GEO_ASN ? geo_value(geo, a) : 0;
}

/* ---- the table in the making ---------------------------------------------------------------------------------------
 */

/* Country by position of a data record: databases share few hundred records among their million prefixes. */
struct known {
	uint32_t record; /* position + 1; 0 is a free place */
	uint32_t value;
};

#define KNOWN_PLACES 65536u /* a power of two; when most are taken, records are read again */

struct build {
	MMDB_s db;
	enum geo_kind kind;
	struct geo_step4 *steps4;
	struct geo_step6 *steps6;
	size_t count4, room4, count6, room6;
	struct known *known;
	size_t nknown;
	uint64_t visits;
	struct err *why;
};

/* One side of a node, yet to be looked at, and the address bits that lead to it. */
struct visit {
	uint64_t record;
	MMDB_entry_s entry; /* of a data record */
	uint8_t type;
	uint8_t depth;
	uint8_t bits[16];
};

static int out_of_memory(struct build *b)
{
	return err_set(b->why, "there is no memory left to read the database");
}

static int damaged(struct build *b, const char *what)
{
	return err_set(b->why, "the database is damaged: %s", what);
}

static int put_step4(struct build *b, uint32_t from, uint32_t value)
{
	if (b->count4 > 0 && b->steps4[b->count4 - 1].value == value)
		return 0;
	if (b->count4 > 0 && b->steps4[b->count4 - 1].from == from) {
		b->steps4[b->count4 - 1].value = value;
		return 0;
	}
	if (b->count4 == b->room4) {
		size_t room = b->room4 == 0 ? 1024 : b->room4 * 2;
		struct geo_step4 *grown = reallocarray(b->steps4, room, sizeof *grown);

		if (grown == NULL)
			return out_of_memory(b);
		b->steps4 = grown;
		b->room4 = room;
	}
	b->steps4[b->count4++] = (struct geo_step4){.from = from, .value = value};
	return 0;
}

static int put_step6(struct build *b, const uint8_t from[16], uint32_t value)
{
	if (b->count6 > 0 && b->steps6[b->count6 - 1].value == value)
		return 0;
	if (b->count6 == b->room6) {
		size_t room = b->room6 == 0 ? 1024 : b->room6 * 2;
		struct geo_step6 *grown = reallocarray(b->steps6, room, sizeof *grown);

		if (grown == NULL)
			return out_of_memory(b);
		b->steps6 = grown;
		b->room6 = room;
	}
	struct geo_step6 *s = &b->steps6[b->count6++];

	*s = (struct geo_step6){.value = value};
	memcpy(s->from, from, 16);
	return 0;
}

static bool take_code(MMDB_entry_s *entry, uint16_t *country, const char *const *path)
{
	MMDB_entry_data_s data;

	if (MMDB_aget_value(entry, &data, path) != MMDB_SUCCESS || !data.has_data ||
	    data.type != MMDB_DATA_TYPE_UTF8_STRING)
		return false;
	if (data.data_size != 2)
		return false;
	uint16_t code = (uint16_t)((uint8_t)data.utf8_string[0] << 8 | (uint8_t)data.utf8_string[1]);

	if (!code_sound(GEO_COUNTRY, code))
		return false;
	*country = code;
	return true;
}

/* Where the makers of databases keep the country. */
static uint16_t read_country(MMDB_entry_s *entry)
{
	static const char *const paths[][3] = {
		{"country", "iso_code", NULL},
		{"country", NULL},
		{"country_code", NULL},
		{"registered_country", "iso_code", NULL},
	};
	uint16_t country = 0;

	for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
		if (take_code(entry, &country, paths[i]))
			break;
	return country;
}

/* Where they keep the number of an autonomous system. */
static uint32_t read_asn(MMDB_entry_s *entry)
{
	static const char *const paths[][2] = {{"autonomous_system_number", NULL}, {"asn", NULL}};
	MMDB_entry_data_s data;

	for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
		if (MMDB_aget_value(entry, &data, paths[i]) == MMDB_SUCCESS && data.has_data &&
		    data.type == MMDB_DATA_TYPE_UINT32)
			return data.uint32;
	return 0;
}

static uint32_t record_value(struct build *b, MMDB_entry_s *entry)
{
	uint32_t key = entry->offset + 1, at = (key * 2654435761u) >> 16;

	for (; b->known[at].record != 0; at = (at + 1) & (KNOWN_PLACES - 1))
		if (b->known[at].record == key)
			return b->known[at].value;
	uint32_t value = b->kind == GEO_ASN ? read_asn(entry) : read_country(entry);

	if (key != 0 && b->nknown < KNOWN_PLACES / 2) {
		b->nknown++;
		b->known[at] = (struct known){.record = key, .value = value};
	}
	return value;
}

static bool in_v4_subtree(const struct build *b, const struct visit *v)
{
	static const uint8_t zero[12];

	return b->db.metadata.ip_version == 4 || (v->depth >= 96 && memcmp(v->bits, zero, 12) == 0);
}

/* The value of everything below v, which the tree does not divide further. */
static int put_leaf(struct build *b, const struct visit *v, uint32_t value)
{
	static const uint8_t zero[16], after_v4[16] = {[11] = 1};
	uint32_t v4 = 0;

	if (in_v4_subtree(b, v)) {
		const uint8_t *p = v->bits + (b->db.metadata.ip_version == 4 ? 0 : 12);

		v4 = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
		return put_step4(b, v4, value);
	}
	if (memcmp(v->bits, zero, 16) != 0)
		return put_step6(b, v->bits, value);
	/* A leaf above ::/96 holds IPv4 and more. */
	return put_step4(b, 0, value) != 0 ? -1 : put_step6(b, after_v4, value);
}

/* True for a second way to the IPv4 tree: databases hang it up again under ::ffff:0:0/96, 2002::/16 and 2001::/32.
 * Those forms are unfolded before a table is asked. */
static bool is_alias(const struct build *b, const struct visit *v)
{
	const MMDB_ipv4_start_node_s *v4 = &b->db.ipv4_start_node;

	return b->db.metadata.ip_version == 6 && v4->netmask == 96 && v->record == v4->node_value &&
	       !in_v4_subtree(b, v);
}

/* Pushes both sides of the node that v leads to, the left one on top. */
static int push_sides(struct build *b, struct visit *stack, size_t *top, const struct visit *v)
{
	MMDB_search_node_s node;
	struct visit left = *v, right;

	if (++b->visits > (uint64_t)b->db.metadata.node_count)
		return damaged(b, "its tree has a loop");
	if (v->depth >= b->db.depth)
		return damaged(b, "its tree is deeper than an address is long");
	if (v->record > UINT32_MAX || MMDB_read_node(&b->db, (uint32_t)v->record, &node) != MMDB_SUCCESS)
		return damaged(b, "a node of its tree cannot be read");
	left.depth++;
	right = left;
	right.bits[v->depth / 8] |= (uint8_t)(0x80u >> (v->depth % 8));
	left.type = node.left_record_type;
	left.record = node.left_record;
	left.entry = node.left_record_entry;
	right.type = node.right_record_type;
	right.record = node.right_record;
	right.entry = node.right_record_entry;
	stack[(*top)++] = right;
	stack[(*top)++] = left;
	return 0;
}

static int walk(struct build *b)
{
	static const uint8_t zero[16];
	/* Depth first, left before right: one side a level waits, and the depth is bounded. */
	struct visit stack[128 + 2] = {{.type = MMDB_RECORD_TYPE_SEARCH_NODE}};
	size_t top = 1;
	int rc = put_step4(b, 0, 0) != 0 ? -1 : put_step6(b, zero, 0);

	while (rc == 0 && top > 0) {
		struct visit v = stack[--top];

		switch (v.type) {
		case MMDB_RECORD_TYPE_SEARCH_NODE:
			rc = is_alias(b, &v) ? put_leaf(b, &v, 0) : push_sides(b, stack, &top, &v);
			break;
		case MMDB_RECORD_TYPE_EMPTY:
			rc = put_leaf(b, &v, 0);
			break;
		case MMDB_RECORD_TYPE_DATA:
			rc = put_leaf(b, &v, record_value(b, &v.entry));
			break;
		default:
			rc = damaged(b, "a record of its tree points nowhere");
		}
	}
	return rc;
}

/* A database of the other kind reads as one in which nobody is anywhere, and a rule that denies some would deny none. */
static int expect_values(struct build *b)
{
	bool any = false;

	for (size_t i = 0; i < b->count4 && !any; i++)
		any = b->steps4[i].value != 0;
	for (size_t i = 0; i < b->count6 && !any; i++)
		any = b->steps6[i].value != 0;
	if (any)
		return 0;
	return err_set(b->why, "the database tells the %s of no address: is it one of another kind?",
		       b->kind == GEO_ASN ? "autonomous system" : "country");
}

static int assemble(struct build *b, uint8_t **table, size_t *len)
{
	size_t bytes4 = b->count4 * sizeof *b->steps4, bytes6 = b->count6 * sizeof *b->steps6;
	struct geo_header h = {.magic = GEO_MAGIC,
			       .version = GEO_VERSION,
			       .kind = b->kind,
			       .len = sizeof h + bytes4 + bytes6,
			       .count4 = (uint32_t)b->count4,
			       .count6 = (uint32_t)b->count6};

	*len = h.len;
	*table = malloc(*len);
	if (*table == NULL)
		return out_of_memory(b);
	memcpy(*table, &h, sizeof h);
	memcpy(*table + sizeof h, b->steps4, bytes4);
	memcpy(*table + sizeof h + bytes4, b->steps6, bytes6);
	sum(*table, *len, h.sum);
	memcpy(*table, &h, sizeof h);
	return 0;
}

static int compile(enum geo_kind kind, const char *mmdb_path, uint8_t **table, size_t *len, struct err *why)
{
	struct build b = {.why = why, .kind = kind};
	int rc = MMDB_open(mmdb_path, MMDB_MODE_MMAP, &b.db);

	if (rc != MMDB_SUCCESS)
		return err_set(why, "the database %s cannot be opened: %s", mmdb_path, MMDB_strerror(rc));
	b.known = calloc(KNOWN_PLACES, sizeof b.known[0]);
	if (b.known == NULL)
		rc = out_of_memory(&b);
	else if (b.db.metadata.ip_version != 4 && b.db.metadata.ip_version != 6)
		rc = damaged(&b, "it is for no known version of IP");
	else
		rc = walk(&b);
	if (rc == 0)
		rc = expect_values(&b);
	if (rc == 0)
		rc = assemble(&b, table, len);
	free(b.known);
	free(b.steps4);
	free(b.steps6);
	MMDB_close(&b.db);
	return rc;
}

int policy_geo_compile(const char *mmdb_path, uint8_t **table, size_t *len, struct err *why)
{
	return compile(GEO_COUNTRY, mmdb_path, table, len, why);
}

int policy_asn_compile(const char *mmdb_path, uint8_t **table, size_t *len, struct err *why)
{
	return compile(GEO_ASN, mmdb_path, table, len, why);
}
