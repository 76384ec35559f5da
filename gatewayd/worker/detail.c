/* What an event says beyond its columns:
 * {"candidates":[{"address":"..","rule":"..","country":"..","asn":1}],"groups":[".."],"monitors":[{"rule":"..","would":"deny"}]}
 * A name whose answer held other addresses than the candidates, or led over aliases: {"answers":[".."],"aliases":[".."]}.
 * Where the destination lies, as the tables of then had it: {"country":"..","asn":1}.
 * The end of an association, and of a BIND (its strangers), tells what it did not carry: {"dropped":{"fragments":3,"strangers":1},"icmp_errors":2}.
 * The end of a session of which no other row says that it was connected: {"connected":"2026-11-20T10:00:00.000000Z"}.
 * Only what is not empty is there. */
#include "config.h"

#include <jansson.h>
#include <string.h>

#include "common/log.h"
#include "common/text.h"
#include "gatewayd/worker/gss.h"
#include "gatewayd/worker/session.h"
#include "gatewayd/worker/socks4.h"
#include "gatewayd/worker/udp.h"
#include "gatewayd/worker/worker.h"
#include "schema/audit_json.h"

static void set_unless_empty(json_t *object, const char *key, json_t *list)
{
	if (json_array_size(list) > 0)
		json_object_set(object, key, list);
	json_decref(list);
}

/* Country and autonomous system, of an address that has them in a table. */
static void put_place(json_t *object, const struct worker *w, const struct addr *a)
{
	char country[3];
	uint32_t asn = a->family == ADDR_NONE || w->asn.geo == NULL ? 0 : policy_geo_asn(w->asn.geo, a);

	if (a->family != ADDR_NONE && w->geo.geo != NULL && policy_geo_country(w->geo.geo, a, country))
		json_object_set_new(object, "country", json_stringn(country, 2));
	if (asn != 0)
		json_object_set_new(object, "asn", json_integer(asn));
}

static json_t *candidates(const struct session *s, const struct policy_image *image)
{
	const struct setup *setup = s->setup;
	json_t *list = json_array();
	char text[ADDR_TEXT_MAX];

	for (size_t i = 0; i < setup->ncandidates; i++) {
		json_t *one = json_pack("{s:s,s:s}", "address", addr_format(&setup->candidates[i].address, text), "rule",
					policy_rule_name(image, setup->candidates[i].rule));

		put_place(one, s->worker, &setup->candidates[i].address);
		json_array_append_new(list, one);
	}
	return list;
}

/* What the name led to, so that the decision can be made again.  It is told once: what it points to lives no longer than that. */
static void put_answer(json_t *root, struct setup *setup)
{
	json_t *answers = json_array(), *aliases = json_array();
	char text[ADDR_TEXT_MAX];

	for (size_t i = 0; i < setup->told.naddresses && setup->told.naddresses != setup->ncandidates; i++)
		json_array_append_new(answers, json_string(addr_format(&setup->told.addresses[i], text)));
	for (size_t i = 0; i < setup->told.naliases; i++)
		json_array_append_new(aliases, json_string(setup->told.aliases[i].text));
	set_unless_empty(root, "answers", answers);
	set_unless_empty(root, "aliases", aliases);
	setup->told = (struct told_answer){0};
}

static json_t *groups(const struct group_list *groups)
{
	json_t *list = json_array();

	for (size_t i = 0; groups != NULL && i < groups->count; i++) {
		char safe[4 * AUTH_GROUP_NAME_MAX + 4];

		json_array_append_new(list, json_string(text_escape(groups->names[i], strlen(groups->names[i]), safe, sizeof safe)));
	}
	return list;
}

static json_t *monitors(const struct policy_image *image, const struct policy_decision *d)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < d->nmonitors; i++)
		json_array_append_new(list, json_pack("{s:s,s:s}", "rule", policy_rule_name(image, d->monitors[i].rule), "would",
						      d->monitors[i].verdict == POLICY_ALLOW ? "allow" : "deny"));
	return list;
}

static bool dump(const json_t *root, struct audit_event *e)
{
	size_t len = json_dumpb(root, e->detail, sizeof e->detail - 1, JSON_COMPACT);

	e->detail[len < sizeof e->detail ? len : 0] = '\0';
	return len < sizeof e->detail;
}

/* Whatever does not fit, the candidates do: 64 addresses and names of rules, of 63 bytes each. */
static void write_all(json_t *root, struct audit_event *e)
{
	if (json_object_size(root) > 0 && !dump(root, e)) {
		json_object_del(root, "monitors");
		json_object_del(root, "answers");
		json_object_del(root, "aliases");
		json_object_set_new(root, "groups", json_string("too many to tell"));
		if (!dump(root, e))
			log_error("the detail of a record is too long");
	}
	json_decref(root);
}

static void put_principal(json_t *root, const struct session *s)
{
	static const char *const protections[] = {"none", "integrity", "confidentiality"};

	if (gss_principal(s) == NULL)
		return;
	json_object_set_new(root, "principal", json_string(gss_principal(s)));
	json_object_set_new(root, "protection", json_string(protections[gss_protection(s)]));
}

/* ---- the usual grant, without a tree -------------------------------------------------------------------------------- */

/* What it has written so far; full: it did not fit, or needs an escape: the tree is to be made. */
struct plain {
	char *at, *end;
	bool full;
};

static void put(struct plain *p, const char *text, size_t len)
{
	if (len >= (size_t)(p->end - p->at))
		p->full = true;
	if (p->full)
		return;
	memcpy(p->at, text, len);
	p->at += len;
}

#define PUT(p, literal) put(p, literal, sizeof literal - 1)

static void put_quoted(struct plain *p, const char *text)
{
	size_t len = 0;

	for (; text[len] != '\0'; len++)
		if ((unsigned char)text[len] < 0x20 || (unsigned char)text[len] > 0x7e || text[len] == '"' || text[len] == '\\')
			p->full = true;
	PUT(p, "\"");
	put(p, text, len);
	PUT(p, "\"");
}

static bool is_usual(const struct session *s, const struct policy_decision *d)
{
	const struct setup *setup = s->setup;

	return setup->ncandidates > 0 && d->nmonitors == 0 && s->claimed == NULL && s->worker->geo.geo == NULL && s->worker->asn.geo == NULL &&
	       setup->told.naliases == 0 && (setup->told.naddresses == 0 || setup->told.naddresses == setup->ncandidates) &&
	       gss_principal(s) == NULL;
}

/* Candidates and groups, byte for byte as the tree would be written.  False: it is for the tree. */
static bool write_usual(const struct session *s, const struct policy_image *image, struct audit_event *e)
{
	struct plain p = {.at = e->detail, .end = e->detail + sizeof e->detail};
	const struct setup *setup = s->setup;
	char text[ADDR_TEXT_MAX];

	PUT(&p, "{\"candidates\":[");
	for (size_t i = 0; i < setup->ncandidates; i++) {
		if (i > 0)
			PUT(&p, ",");
		PUT(&p, "{\"address\":");
		put_quoted(&p, addr_format(&setup->candidates[i].address, text));
		PUT(&p, ",\"rule\":");
		put_quoted(&p, policy_rule_name(image, setup->candidates[i].rule));
		PUT(&p, "}");
	}
	PUT(&p, "]");
	for (size_t i = 0; s->groups != NULL && i < s->groups->count; i++) {
		if (i == 0)
			PUT(&p, ",\"groups\":[");
		else
			PUT(&p, ",");
		put_quoted(&p, s->groups->names[i]);
	}
	if (s->groups != NULL && s->groups->count > 0)
		PUT(&p, "]");
	PUT(&p, "}");
	*p.at = '\0';
	if (p.full)
		e->detail[0] = '\0';
	return !p.full;
}

void detail_write(const struct session *s, const struct policy_image *image, const struct policy_decision *d, struct audit_event *e)
{
	if (is_usual(s, d) && write_usual(s, image, e)) {
		s->setup->told = (struct told_answer){0};
		return;
	}
	json_t *root = json_object();
	char claimed[4 * SOCKS4_TEXT_MAX + 4];

	set_unless_empty(root, "candidates", candidates(s, image));
	set_unless_empty(root, "groups", groups(s->groups));
	put_principal(root, s);
	if (s->claimed != NULL)
		json_object_set_new(root, "claimed_user", json_string(text_escape(s->claimed, strlen(s->claimed), claimed, sizeof claimed)));
	set_unless_empty(root, "monitors", monitors(image, d));
	if (s->setup->ncandidates == 0)
		put_place(root, s->worker, &e->address.addr);
	put_answer(root, s->setup);
	write_all(root, e);
}

void detail_write_place(const struct session *s, struct audit_event *e)
{
	json_t *root;

	if (s->worker->geo.geo == NULL && s->worker->asn.geo == NULL)
		return;
	root = json_object();
	put_place(root, s->worker, &e->address.addr);
	write_all(root, e);
}

void detail_write_connected(const struct session *s, int64_t connected_us, struct audit_event *e)
{
	char time[AUDIT_TIME_TEXT_MAX];
	json_t *root;

	audit_time_text(connected_us, time);
	if (s->worker->geo.geo == NULL && s->worker->asn.geo == NULL) {
		struct plain p = {.at = e->detail, .end = e->detail + sizeof e->detail};

		PUT(&p, "{\"connected\":");
		put_quoted(&p, time);
		PUT(&p, "}");
		*p.at = '\0';
		return;
	}
	root = json_object();
	json_object_set_new(root, "connected", json_string(time));
	put_place(root, s->worker, &e->address.addr);
	write_all(root, e);
}

void detail_write_flow(const struct udp_flow *f, const struct policy_decision *d, struct audit_event *e)
{
	const struct association *a = f->association;
	json_t *root = json_object();

	set_unless_empty(root, "groups", groups(a->session->groups));
	put_principal(root, a->session);
	set_unless_empty(root, "monitors", monitors(a->session->worker->rules->image, d));
	put_place(root, a->session->worker, &e->address.addr);
	if (f->inbound)
		json_object_set_new(root, "opened_by", json_string("destination"));
	write_all(root, e);
}

static void set_unless_zero(json_t *object, const char *key, uint64_t count)
{
	if (count > 0)
		json_object_set_new(object, key, json_integer((json_int_t)count));
}

void detail_write_dropped(const struct udp_counts *c, struct audit_event *e)
{
	json_t *root = json_object(), *dropped = json_object();

	set_unless_zero(dropped, "fragments", c->fragments);
	set_unless_zero(dropped, "malformed", c->malformed);
	set_unless_zero(dropped, "strangers", c->strangers);
	set_unless_zero(dropped, "unsolicited", c->unsolicited);
	set_unless_zero(dropped, "denied", c->denied);
	set_unless_zero(dropped, "over_bounds", c->over_bounds);
	set_unless_zero(dropped, "unsent", c->unsent);
	if (json_object_size(dropped) > 0)
		json_object_set(root, "dropped", dropped);
	json_decref(dropped);
	set_unless_zero(root, "icmp_errors", c->icmp_errors);
	write_all(root, e);
}
