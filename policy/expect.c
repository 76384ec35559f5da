/* The policy's own expectations, held against its image.  They never look at a country database: an address is in no
 * country unless the expectation says in which. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/decide.h"
#include "policy/diag.h"
#include "policy/geo_priv.h"
#include "policy/value.h"

#define DEFAULT_PORT 443

/* One expectation, read into a request. */
struct expectation {
	struct policy_request request;
	struct name name;
	const char **groups;
	struct addr *addresses;
	struct name *aliases;
	size_t naddresses, naliases;
	struct policy_geo geo, asn;
	const struct ast_clause *at, *by_rule;
	int64_t now;
	struct err why;
};

static const char *const *read_groups(const struct ast_clause *c, struct expectation *e)
{
	e->groups = calloc(c->values.count, sizeof e->groups[0]);
	if (e->groups == NULL)
		abort();
	for (const struct ast_value *v = c->values.first; v != NULL; v = v->next)
		e->groups[e->request.ngroups++] = v->text;
	return e->groups;
}

static int read_addresses(const struct ast_clause *c, struct expectation *e)
{
	e->addresses = calloc(c->values.count, sizeof e->addresses[0]);
	if (e->addresses == NULL)
		abort();
	for (const struct ast_value *v = c->values.first; v != NULL; v = v->next)
		if (value_address(v->text, &e->addresses[e->naddresses++], &e->why) != 0)
			return -1;
	return 0;
}

static int read_aliases(const struct ast_clause *c, struct expectation *e)
{
	struct addr address;

	e->aliases = calloc(c->values.count, sizeof e->aliases[0]);
	if (e->aliases == NULL)
		abort();
	for (const struct ast_value *v = c->values.first; v != NULL; v = v->next)
		if (value_target(v->text, &e->aliases[e->naliases++], &address, &e->why) != 0)
			return -1;
	return 0;
}

static int read_target(const struct ast_value *v, struct expectation *e)
{
	if (value_target(v->text, &e->name, &e->request.address, &e->why) != 0)
		return -1;
	if (e->name.len > 0)
		e->request.name = &e->name;
	return 0;
}

static int read_clause(const struct ast_clause *c, const struct policy_image *image, struct expectation *e)
{
	const struct ast_value *v = c->values.first;
	struct policy_request *r = &e->request;
	uint16_t high, country;

	switch (c->kind) {
	case AST_CLIENT:
		return value_address(v->text, &r->client, &e->why);
	case AST_LISTENER:
		r->listener = v->text;
		return 0;
	case AST_USER:
		r->user = v->text;
		return 0;
	case AST_GROUP:
		r->groups = read_groups(c, e);
		return 0;
	case AST_CLAIMED_USER:
		r->claimed_user = v->text;
		return 0;
	case AST_METHOD:
		return value_method(v->text, &r->method, &e->why);
	case AST_COMMAND:
		return value_command(v->text, &r->command, &e->why);
	case AST_PORT:
		return value_port(v->text, &r->port, &high, &e->why);
	case AST_TO:
		return read_target(v, e);
	case AST_RESOLVES:
		return read_addresses(c, e);
	case AST_ALIAS:
		return read_aliases(c, e);
	case AST_IN_COUNTRY:
		if (value_country(v->text, &country, &e->why) != 0)
			return -1;
		e->geo.value = country;
		return 0;
	case AST_IN_ASN:
		return value_asn(v->text, &e->asn.value, &e->why);
	case AST_AT:
		e->at = c;
		return policy_instant_parse(image, v->text, &e->now, &e->why);
	case AST_BY_RULE:
		e->by_rule = c;
		return 0;
	default:
		return 0;
	}
}

static int read_expectation(const struct ast_statement *s, const struct policy_image *image, struct expectation *e)
{
	*e = (struct expectation){.request = {.command = POLICY_CONNECT, .port = DEFAULT_PORT},
				  .geo = {.fixed = true},
				  .asn = {.fixed = true}};
	for (const struct ast_clause *c = s->clauses.first; c != NULL; c = c->next)
		if (read_clause(c, image, e) != 0)
			return -1;
	/* A user without a word about the method has given a password. */
	if (e->request.user != NULL && ast_clause_find(s, AST_METHOD) == NULL)
		e->request.method = POLICY_METHOD_PASSWORD;
	return 0;
}

static void clear(struct expectation *e)
{
	free(e->groups);
	free(e->addresses);
	free(e->aliases);
}

static void report(const struct policy_tree *t, const struct policy_image *image, const struct ast_statement *s,
		   const struct expectation *e, const struct policy_decision *d, bool used_time,
		   struct policy_diagnostics *diag)
{
	const char *rule = policy_rule_name(image, d->rule);
	bool allowed = d->verdict == POLICY_ALLOW;
	char text[256];

	if (used_time && e->at == NULL)
		diag_error(diag, t, "expect-needs-time", &s->at,
			   "the answer depends on the time (rule %s): say 'at \"YYYY-MM-DD HH:MM\"'", rule);
	else if (allowed != s->allow)
		diag_error(diag, t, "expect-failed", &s->at, "expected %s, but the policy says %s (%s)",
			   s->allow ? "allow" : "deny", allowed ? "allow" : "deny",
			   policy_decision_text(image, d, text, sizeof text));
	else if (e->by_rule != NULL && strcmp(e->by_rule->values.first->text, rule) != 0)
		diag_error(diag, t, "expect-other-rule", &e->by_rule->at,
			   "the verdict is as expected, but by rule %s (%s)", rule,
			   policy_decision_text(image, d, text, sizeof text));
}

size_t policy_expect(const struct policy_tree *t, const struct policy_image *image, struct policy_diagnostics *d)
{
	return policy_expect_reached(t, image, NULL, d);
}

size_t policy_expect_reached(const struct policy_tree *t, const struct policy_image *image, bool *reached,
			     struct policy_diagnostics *d)
{
	size_t count = 0;

	for (const struct ast_statement *s = t->first; s != NULL; s = s->next) {
		struct expectation e;
		struct decide_watch watch = {.nowhere = true};
		struct policy_decision decision;

		if (s->kind != AST_EXPECT)
			continue;
		count++;
		if (read_expectation(s, image, &e) == 0) {
			struct policy_context ctx = {.image = image, .geo = &e.geo, .asn = &e.asn, .now = e.now};

			decide_request(&ctx, &e.request, e.addresses, e.naddresses, e.aliases, e.naliases, &watch,
				       &decision);
			if (reached != NULL && decision.rule != POLICY_NO_RULE)
				reached[decision.rule] = true;
			report(t, image, s, &e, &decision, watch.used_time, d);
		} else {
			diag_error(d, t, "bad-value", &s->at, "%s", e.why.text);
		}
		clear(&e);
	}
	return count;
}
