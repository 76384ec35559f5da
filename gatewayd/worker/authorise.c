/* Decide by name, resolve, decide by address: in this order, and never another. */
#include "config.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "gatewayd/worker/resolver.h"
#include "gatewayd/worker/gss.h"
#include "gatewayd/worker/recent.h"
#include "gatewayd/worker/session.h"
#include "gatewayd/worker/shared.h"
#include "gatewayd/worker/steer.h"
#include "gatewayd/worker/worker.h"

#define IMAGE_MAX (1024UL * 1024 * 1024)

struct policy_context authorise_context(const struct worker *w)
{
	return (struct policy_context){
		.image = w->rules->image,
		.geo = w->geo.geo,
		.asn = w->asn.geo,
		.now = clock_wall_us() / 1000000,
		.local = w->local,
		.nlocal = w->nlocal,
		.own_ports = w->own_ports,
		.nown_ports = w->nown_ports,
	};
}

enum policy_method authorise_method(const struct session *s)
{
	static const enum policy_method gssapi[] = {
		[PROTECTION_NONE] = POLICY_METHOD_GSSAPI,
		[PROTECTION_INTEGRITY] = POLICY_METHOD_GSSAPI_INTEGRITY,
		[PROTECTION_CONFIDENTIALITY] = POLICY_METHOD_GSSAPI_CONFIDENTIALITY,
	};

	if (s->gss != NULL)
		return gssapi[gss_protection(s)];
	if (s->protocol == PROTOCOL_SOCKS4)
		return POLICY_METHOD_SOCKS4;
	return s->user != NULL ? POLICY_METHOD_PASSWORD : POLICY_METHOD_NONE;
}

struct policy_request authorise_facts(const struct session *s, struct name *name)
{
	if (s->name != NULL)
		name->len = (uint8_t)snprintf(name->text, sizeof name->text, "%s", s->name);
	return (struct policy_request){
		.client = s->client.addr,
		.listener = s->listener->name,
		.user = s->user,
		.groups = s->groups == NULL ? NULL : s->groups->names,
		.ngroups = s->groups == NULL ? 0 : s->groups->count,
		.claimed_user = s->claimed,
		.method = authorise_method(s),
		.command = s->command,
		.name = s->name != NULL ? name : NULL,
		.port = s->port,
	};
}

/* The same while it is being set up. */
static struct policy_request facts(const struct session *s, struct name *name)
{
	struct policy_request req = authorise_facts(s, name);

	req.address = s->setup->request.address;
	return req;
}

void authorise_log(const struct session *s, const struct policy_decision *d, const char *destination, uint16_t port)
{
	const struct policy_image *image = s->worker->rules->image;
	enum policy_log level = policy_rule_log(image, d->rule);
	char client[ADDR_TEXT_MAX], id[AUDIT_SESSION_TEXT_MAX];

	recent_decided(s->worker, d);
	if (level < POLICY_LOG_NOTICE)
		return;
	(level == POLICY_LOG_NOTICE ? log_info : log_warning)(
		"%ssession %s: user %s at %s to %s port %u: %s by rule %s", level == POLICY_LOG_ALERT ? "ALERT: " : "",
		audit_session_text(s->id, id), s->user == NULL ? "-" : s->user, addr_format(&s->client.addr, client), destination,
		(unsigned)port, d->verdict == POLICY_ALLOW ? "allowed" : "denied", policy_rule_name(image, d->rule));
}

static void log_decision(const struct session *s, const struct policy_decision *d)
{
	char address[ADDR_TEXT_MAX] = "";

	/* Most are not told to the log. */
	if (s->name == NULL && policy_rule_log(s->worker->rules->image, d->rule) >= POLICY_LOG_NOTICE)
		addr_format(&s->address, address);
	authorise_log(s, d, s->name != NULL ? s->name : address, s->port);
}

void authorise_note_denial(struct session *s, const struct policy_decision *d)
{
	const struct ruleset *rules = s->worker->rules;

	shared_set(&s->rule, policy_rule_name(rules->image, d->rule));
	s->revision = rules->revision;
	log_decision(s, d);
}

void authorise_deny(struct session *s, const struct policy_decision *d)
{
	authorise_note_denial(s, d);
	session_deny(s, s->worker->rules->image, d);
}

/* Decides every address; those allowed become the candidates, in the order of the answer. */
static void decide_addresses(struct session *s, const struct addr *addresses, size_t n, const struct name *aliases,
			     size_t naliases)
{
	struct policy_context ctx = authorise_context(s->worker);
	struct name name;
	struct policy_request req = facts(s, &name);
	struct policy_decision each[ANSWER_ADDRESSES_MAX], whole;
	struct setup *setup = s->setup;

	policy_decide_answers(&ctx, &req, addresses, n, aliases, naliases, each, &whole);
	if (req.name != NULL)
		setup->told = (struct told_answer){addresses, aliases, n, naliases};
	if (whole.verdict != POLICY_ALLOW) {
		if (n > 0 && s->address.family == ADDR_NONE)
			s->address = addresses[0];
		authorise_deny(s, &whole);
		return;
	}
	if (req.name != NULL && answer_keep(&s->answer, addresses, n, aliases, naliases) != 0) {
		session_refuse(s, REASON_FAULT, "out of memory");
		return;
	}
	s->epoch = s->worker->live.epoch;
	const char *blocked = NULL, *why;

	for (size_t i = 0; i < n; i++) {
		why = each[i].verdict != POLICY_ALLOW ? NULL
		      : steer_blocked(s, s->name, &addresses[i], s->port, policy_rule_name(ctx.image, each[i].rule), aliases, naliases);
		if (why != NULL)
			blocked = why;
		else if (each[i].verdict == POLICY_ALLOW)
			setup->candidates[setup->ncandidates++] =
				(struct candidate){.address = addresses[i], .rule = each[i].rule};
	}
	if (setup->ncandidates == 0) {
		session_refuse(s, REASON_BLOCKED, blocked);
		return;
	}
	setup->rules = s->worker->rules;
	setup->rules->refs++;
	log_decision(s, &whole);
	grant_start(s, &whole);
}

static void on_answer(const struct answer *a, void *arg)
{
	struct session *s = arg;

	s->setup->lookup = NULL;
	evtimer_del(&s->timer);
	if (a->failure != REASON_NONE)
		session_refuse(s, a->failure, a->detail);
	else if (s->worker->rules == NULL)
		session_refuse(s, REASON_NO_POLICY, NULL);
	else
		decide_addresses(s, a->addresses, a->naddresses, a->aliases, a->naliases);
}

static void decide_name(struct session *s)
{
	struct policy_context ctx = authorise_context(s->worker);
	const struct config *config = s->worker->config;
	struct name name;
	struct policy_request req = facts(s, &name);
	struct policy_decision d;

	policy_decide_name(&ctx, &req, &d);
	if (d.verdict != POLICY_RESOLVE) {
		authorise_deny(s, &d);
		return;
	}
	session_set_state(s, SESSION_RESOLVING);
	/* c-ares bounds its tries; this only guards against a resolver that never calls back. */
	session_arm(s, ((int64_t)config->resolver_timeout_ms * config->resolver_tries * CONFIG_RESOLVERS_MAX + 5000) * 1000);
	s->setup->lookup = resolver_lookup(s->worker->resolver, &s->setup->request.name, on_answer, s);
	if (s->setup->lookup == NULL)
		session_refuse(s, REASON_FAULT, "out of memory");
}

/* A dotless name is completed before policy sees it. */
static bool complete_name(struct session *s)
{
	struct request *req = &s->setup->request;
	const char *domain = s->worker->config->search_domain;
	struct name whole;
	struct addr unused;
	const char *why;
	char text[2 * NAME_MAX_LEN + 2];

	if (domain[0] == '\0' || strchr(req->name.text, '.') != NULL)
		return true;
	int n = snprintf(text, sizeof text, "%s.%s", req->name.text, domain);

	if (name_canonical(text, (size_t)n, &whole, &unused, &why) != NAME_IS_NAME) {
		session_refuse(s, REASON_BAD_NAME, "too long with the search domain");
		return false;
	}
	req->name = whole;
	if (shared_set(&s->name, whole.text) != 0)
		session_refuse(s, REASON_FAULT, "out of memory");
	return s->name != NULL;
}

void authorise_peer(struct session *s, const struct addr *peer, struct policy_decision *d)
{
	struct policy_context ctx = authorise_context(s->worker);
	struct name name;
	struct policy_request req = facts(s, &name);

	/* DST.PORT stays the request's: only the address is news. */
	if (req.name == NULL)
		req.address = *peer;
	asked_again(&ctx, &req, s->answer, peer, true, d);
	log_decision(s, d);
}

static bool is_unspecified(const struct addr *a)
{
	static const uint8_t zero[16];

	return a->family != ADDR_NONE && memcmp(a->bytes, zero, sizeof zero) == 0;
}

void authorise_request(struct session *s)
{
	struct request *req = &s->setup->request;

	if (req->command == POLICY_BIND && !req->has_name && is_unspecified(&req->address)) {
		session_refuse(s, REASON_BIND_UNNAMED, NULL);
		return;
	}
	if (s->worker->rules == NULL)
		session_refuse(s, REASON_NO_POLICY, NULL);
	else if (req->has_name != (s->name != NULL))
		session_refuse(s, REASON_FAULT, "out of memory");
	else if (!req->has_name)
		decide_addresses(s, &req->address, 1, NULL, 0);
	else if (complete_name(s))
		decide_name(s);
}

/* ---- images ------------------------------------------------------------------------------------------------------ */

void ruleset_unref(struct ruleset **rules)
{
	struct ruleset *r = *rules;

	*rules = NULL;
	if (r == NULL || --r->refs > 0)
		return;
	policy_image_close(&r->image);
	sealed_unmap(&r->bytes);
	free(r);
}

struct ruleset *ruleset_open(int fd, uint32_t revision, struct err *why)
{
	struct ruleset *r = calloc(1, sizeof *r);

	if (r == NULL) {
		err_set(why, "out of memory for revision %u", revision);
		return NULL;
	}
	r->refs = 1;
	r->revision = revision;
	if (sealed_map(fd, IMAGE_MAX, &r->bytes, why) != 0 || (r->image = policy_image_open(r->bytes.data, r->bytes.len, why)) == NULL)
		ruleset_unref(&r);
	return r;
}

int authorise_take_image(struct worker *w, int fd, uint32_t revision, struct err *why)
{
	struct ruleset *r = ruleset_open(fd, revision, why);

	if (r == NULL)
		return -1;
	ruleset_unref(&w->rules);
	w->rules = r;
	live_changed(w);
	return 0;
}

int authorise_take_table(struct worker *w, struct table *table, int fd, struct err *why)
{
	struct sealed bytes;
	struct policy_geo *geo;

	if (sealed_map(fd, IMAGE_MAX, &bytes, why) != 0)
		return -1;
	geo = policy_geo_open(bytes.data, bytes.len, why);
	if (geo != NULL && policy_geo_is_asn(geo) != (table == &w->asn)) {
		policy_geo_close(&geo);
		err_set(why, "it is the other kind of table");
	}
	if (geo == NULL) {
		sealed_unmap(&bytes);
		return -1;
	}
	policy_geo_close(&table->geo);
	sealed_unmap(&table->bytes);
	*table = (struct table){.bytes = bytes, .geo = geo};
	live_changed(w);
	return 0;
}

/* ---- our own listeners -------------------------------------------------------------------------------------------------- */

bool authorise_take_local(struct worker *w, const struct ipc_message *m)
{
	struct wire_reader r = wire_reader_on(m->body, m->len);
	uint32_t count = wire_get_u32(&r);
	struct addr *local = count > m->len ? NULL : calloc(count + 1, sizeof *local);

	if (local == NULL)
		return false;
	for (uint32_t i = 0; i < count; i++)
		wire_get_addr(&r, &local[i]);
	if (!wire_done(&r)) {
		free(local);
		return false;
	}
	free(w->local);
	w->local = local;
	w->nlocal = count;
	live_changed(w);
	return true;
}

void authorise_learn_ports(struct worker *w)
{
	size_t ports = 0;

	for (size_t k = 0; k < w->config->nlisteners; k++)
		ports += w->config->listeners[k].naddresses;
	w->own_ports = calloc(ports, sizeof *w->own_ports);
	if (w->own_ports == NULL)
		log_fatal("out of memory for the listeners' ports");
	for (size_t k = 0; k < w->config->nlisteners; k++)
		for (size_t a = 0; a < w->config->listeners[k].naddresses; a++)
			w->own_ports[w->nown_ports++] = w->config->listeners[k].addresses[a].port;
}
