#include "config.h"

#include "gatewayd/steering.h"

#include <jansson.h>
#include <string.h>

#include "schema/audit_json.h"

static const char *const orders[STEERING_ORDERS] = {
	[STEERING_BY_NOTHING] = "", [STEERING_BY_BYTES] = "bytes", [STEERING_BY_AGE] = "age", [STEERING_BY_RATE] = "rate"};

enum steering_order steering_order_parse(const char *text)
{
	for (unsigned i = STEERING_BY_BYTES; i < STEERING_ORDERS; i++)
		if (strcmp(orders[i], text) == 0)
			return (enum steering_order)i;
	return STEERING_ORDERS;
}

/* ---- messages ----------------------------------------------------------------------------------------------------------- */

void steering_put_ask(struct wire_writer *w, const struct steering_ask *ask)
{
	wire_put_u64(w, ask->job);
	wire_put_u8(w, (uint8_t)ask->op);
	wire_put_u8(w, (uint8_t)ask->order);
	wire_put_u32(w, ask->limit);
	wire_put_text(w, ask->filter);
	wire_put_text(w, ask->reason);
}

bool steering_get_ask(struct wire_reader *r, struct steering_ask *ask)
{
	ask->job = wire_get_u64(r);
	unsigned op = wire_get_u8(r), order = wire_get_u8(r);

	ask->limit = wire_get_u32(r);
	wire_get_text(r, ask->filter, sizeof ask->filter);
	wire_get_text(r, ask->reason, sizeof ask->reason);
	if (!wire_done(r) || op >= STEERING_OPS || order >= STEERING_ORDERS || ask->limit > STEERING_TOP_MAX)
		return false;
	ask->op = (enum steering_op)op;
	ask->order = (enum steering_order)order;
	return ask->op != STEERING_TOP || ask->limit > 0;
}

void steering_put_answer(struct wire_writer *w, const struct steering_answer *a)
{
	wire_put_u64(w, a->job);
	wire_put_u8(w, a->last);
	wire_put_u8(w, a->refused);
	wire_put_u16(w, a->rows);
	wire_put_u32(w, a->matched);
	wire_put_u64(w, a->bytes_up);
	wire_put_u64(w, a->bytes_down);
}

bool steering_get_answer(struct wire_reader *r, struct steering_answer *a)
{
	a->job = wire_get_u64(r);
	a->last = wire_get_bool(r);
	a->refused = wire_get_bool(r);
	a->rows = wire_get_u16(r);
	a->matched = wire_get_u32(r);
	a->bytes_up = wire_get_u64(r);
	a->bytes_down = wire_get_u64(r);
	return !r->bad;
}

void steering_put_row(struct wire_writer *w, const struct steering_row *row)
{
	wire_put_text(w, row->state);
	wire_put_text(w, row->claimed);
	wire_put_u64(w, (uint64_t)row->idle_us);
	wire_put_u64(w, row->rate);
	wire_put_u32(w, row->flows);
	wire_put_u64(w, row->datagrams_up);
	wire_put_u64(w, row->datagrams_down);
	wire_put_u8(w, row->inbound);
	wire_put_addr(w, &row->listens.addr);
	wire_put_u16(w, row->listens.port);
	wire_put_u32(w, row->strangers);
	audit_put_event(w, &row->event);
}

bool steering_get_row(struct wire_reader *r, struct steering_row *row)
{
	wire_get_text(r, row->state, sizeof row->state);
	wire_get_text(r, row->claimed, sizeof row->claimed);
	row->idle_us = (int64_t)wire_get_u64(r);
	row->rate = wire_get_u64(r);
	row->flows = wire_get_u32(r);
	row->datagrams_up = wire_get_u64(r);
	row->datagrams_down = wire_get_u64(r);
	row->inbound = wire_get_bool(r);
	wire_get_addr(r, &row->listens.addr);
	row->listens.port = wire_get_u16(r);
	row->strangers = wire_get_u32(r);
	return audit_get_event(r, &row->event);
}

/* ---- filters ------------------------------------------------------------------------------------------------------------ */

/* Whatever is not held against a session would match every one of them. */
static bool is_key(const char *key)
{
	static const char *const keys[] = {"user", "group",    "client",	"to",	"port",	    "country",
					   "rule", "revision", "session", "text", "since_us", "until_us"};

	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
		if (strcmp(keys[i], key) == 0)
			return true;
	return false;
}

int steering_filter(const char *json, struct audit_filter *out, struct err *why)
{
	json_t *object = json_loads(json, JSON_REJECT_DUPLICATES, NULL), *value;
	int rc = audit_filter_json(object, out, why);
	const char *key;

	if (rc == 0) {
		json_object_foreach(object, key, value) if (!is_key(key)) rc = -1;
		if (rc != 0)
			err_set(why, "sessions that live are found by user, client, to, port, group, country, rule, revision, session, text, "
				     "since and until");
	}
	json_decref(object);
	return rc;
}

static bool is_name(const struct audit_filter *f, const char *name)
{
	size_t len = strlen(name), wanted = strlen(f->to_name);
	bool exactly = strcmp(name, f->to_name) == 0;
	bool below = len > wanted + 1 && name[len - wanted - 1] == '.' && strcmp(name + len - wanted, f->to_name) == 0;

	return f->to == AUDIT_TO_NAME ? exactly : f->to == AUDIT_TO_BELOW ? below : exactly || below;
}

static bool is_to(const struct audit_filter *f, const struct steering_facts *x)
{
	if (f->to == AUDIT_TO_ANY)
		return true;
	if (f->to == AUDIT_TO_PREFIX)
		return x->address != NULL && x->address->family != ADDR_NONE && prefix_contains(&f->to_prefix, x->address);
	if (x->name != NULL && is_name(f, x->name))
		return true;
	for (size_t i = 0; i < x->naliases; i++)
		if (is_name(f, x->aliases[i].text))
			return true;
	return false;
}

static bool is_text(const char *wanted, const char *text)
{
	return wanted[0] == '\0' || (text != NULL && strcmp(wanted, text) == 0);
}

static bool has_text(const char *wanted, const struct steering_facts *x)
{
	const char *const texts[] = {x->user, x->rule, x->name, x->listener};

	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		if (texts[i] != NULL && strstr(texts[i], wanted) != NULL)
			return true;
	return wanted[0] == '\0';
}

static bool is_in_group(const struct audit_filter *f, const struct steering_facts *x)
{
	for (size_t i = 0; f->group[0] != '\0' && i < x->ngroups; i++)
		if (strcmp(f->group, x->groups[i]) == 0)
			return true;
	return f->group[0] == '\0';
}

static bool has_begun(const struct audit_filter *f, const struct steering_facts *x)
{
	return (f->since_us == 0 || (x->began_us != 0 && x->began_us >= f->since_us)) &&
	       (f->until_us == 0 || (x->began_us != 0 && x->began_us < f->until_us));
}

bool steering_matches(const struct audit_filter *f, const struct steering_facts *x)
{
	return (f->session == 0 || f->session == x->session) && (f->port == 0 || f->port == x->port) &&
	       (f->revision == 0 || f->revision == x->revision) && is_text(f->user, x->user) && is_text(f->rule, x->rule) &&
	       (f->client.addr.family == ADDR_NONE || (x->client != NULL && prefix_contains(&f->client, x->client))) && is_to(f, x) &&
	       is_in_group(f, x) && is_text(f->country, x->country) && has_begun(f, x) && has_text(f->text, x);
}
