/* What changes between two policies, by meaning: requests made of the values of every rule of both are decided by both.
 * Of the requests whose verdict differs, one is told for each pair of rules that decide them; and then what the two say differently. */
#include "config.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/decide.h"
#include "policy/diff_said.h"
#include "policy/guard.h"
#include "policy/sample.h"
#include "policy/window.h"

/* So that comparing ends soon, whatever the lists hold. */
#define DECISIONS_MAX 6000000
#define TOLD_MAX 1000
#define PEOPLE_MAX 24

struct diff {
	struct policy_context before, after;
	size_t decisions;
	json_t *told;
	struct pair {
		uint32_t before, after;
	} pairs[TOLD_MAX];
	size_t npairs;
	/* Who the first allow rules of both are for: what a rule says of a destination matters to them. */
	struct sample people[PEOPLE_MAX];
	size_t npeople;
};

static void judge(const struct policy_context *ctx, const struct sample *s, struct policy_decision *d)
{
	struct decide_watch watch = {.nowhere = !s->has_address};

	decide_request(ctx, &s->request, &s->address, s->has_address && s->request.name != NULL ? 1 : 0, NULL, 0,
		       &watch, d);
}

static bool new_pair(struct diff *f, uint32_t before, uint32_t after)
{
	for (size_t i = 0; i < f->npairs; i++)
		if (f->pairs[i].before == before && f->pairs[i].after == after)
			return false;
	if (f->npairs == TOLD_MAX)
		return false;
	f->pairs[f->npairs++] = (struct pair){before, after};
	return true;
}

static json_t *text_or_null(const char *text)
{
	json_t *j = text == NULL ? NULL : json_string(text);

	return j == NULL ? json_null() : j;
}

static json_t *side(const struct policy_context *ctx, const struct policy_decision *d)
{
	char text[256];

	return json_pack("{s:s, s:o, s:o}", "verdict", d->verdict == POLICY_ALLOW ? "allow" : "deny", "rule",
			 text_or_null(policy_rule_name(ctx->image, d->rule)), "text",
			 text_or_null(policy_decision_text(ctx->image, d, text, sizeof text)));
}

/* The request as an expectation would say it. */
static json_t *request_json(const struct diff *f, const struct sample *s)
{
	static const char *const commands[] = {"", "connect", "bind", "udp"};
	static const char *const methods[] = {"none", "password", "gssapi", "socks4", "gssapi-integrity", "gssapi-confidentiality"};
	const struct policy_request *r = &s->request;
	char client[ADDR_TEXT_MAX], address[ADDR_TEXT_MAX], at[80];
	json_t *o = json_object(), *groups = json_array();

	for (size_t i = 0; i < r->ngroups; i++)
		json_array_append_new(groups, text_or_null(r->groups[i]));
	explain_clock(f->after.image, 0, f->after.now, at, sizeof at);
	json_object_set_new(o, "user", text_or_null(r->user));
	json_object_set_new(o, "groups", groups);
	json_object_set_new(o, "claimed-user", text_or_null(r->claimed_user));
	json_object_set_new(o, "client", text_or_null(addr_format(&r->client, client)));
	json_object_set_new(o, "listener", text_or_null(r->listener));
	json_object_set_new(o, "method", json_string(methods[r->method]));
	json_object_set_new(o, "command", json_string(commands[r->command]));
	json_object_set_new(o, "to", text_or_null(r->name != NULL ? r->name->text : addr_format(&r->address, address)));
	json_object_set_new(o, "resolves",
			    text_or_null(r->name != NULL && s->has_address ? addr_format(&s->address, address) : NULL));
	json_object_set_new(o, "port", json_integer(r->port));
	json_object_set_new(o, "at", json_string(at));
	return o;
}

static void compare(struct diff *f, const struct sample *s)
{
	struct policy_decision before, after;

	if (f->decisions >= DECISIONS_MAX)
		return;
	f->decisions += 2;
	judge(&f->before, s, &before);
	judge(&f->after, s, &after);
	if (before.verdict == after.verdict || !new_pair(f, before.rule, after.rule))
		return;
	json_array_append_new(f->told, json_pack("{s:o, s:o, s:o}", "request", request_json(f, s), "before",
						 side(&f->before, &before), "after", side(&f->after, &after)));
}

/* The same request from somebody else, in another way. */
static void compare_kin(struct diff *f, const struct sample *s)
{
	struct sample kin = *s;

	compare(f, s);
	for (size_t i = 0; i < f->npeople && s->request.ngroups == 0; i++) {
		const struct sample *who = &f->people[i];

		memcpy(kin.groups, who->groups, sizeof kin.groups);
		kin.request.groups = kin.groups;
		kin.request.ngroups = who->request.ngroups;
		kin.request.user = who->request.user;
		kin.request.client = who->request.client;
		kin.request.port = who->request.port;
		if (s->request.name != NULL)
			kin.request.name = &kin.name;
		compare(f, &kin);
	}
	kin = *s;
	kin.request.groups = kin.groups;
	if (s->request.name != NULL)
		kin.request.name = &kin.name;
	kin.request.user = NULL;
	kin.request.ngroups = 0;
	kin.request.method = POLICY_METHOD_NONE;
	compare(f, &kin);
	if (s->request.name != NULL) {
		kin = *s;
		kin.request.groups = kin.groups;
		kin.request.name = NULL;
		kin.request.address = kin.address;
		compare(f, &kin);
	}
}

/* A moment at which the condition holds, not long from now; now itself if there is none, or no need. */
static int64_t moment_of(const struct policy_image *i, const struct img_pred *p, int64_t now)
{
	if (p->kind == PRED_FROM || p->kind == PRED_UNTIL) {
		int64_t at = *IMAGE_AT(i, SEC_INSTANT, int64_t, p->a.first);

		return p->kind == PRED_FROM ? (at > now ? at : now) : at > now ? now : at - 1;
	}
	for (uint32_t n = 0; p->kind == PRED_DURING && n < p->a.count; n++) {
		uint32_t window = *IMAGE_AT(i, SEC_INDEX, uint32_t, p->a.first + n);

		for (int64_t at = now; at < now + 8 * 86400; at += 900)
			if (window_state(i, window, at) == WINDOW_OPEN)
				return at;
	}
	return now;
}

static void compare_at(struct diff *f, const struct sample *s, int64_t now, int64_t then)
{
	f->before.now = f->after.now = now;
	compare_kin(f, s);
	if (then == now)
		return;
	f->before.now = f->after.now = then;
	compare_kin(f, s);
}

/* Every value of every condition of every rule, beside the first ones of the rule's others. */
static void compare_rules(struct diff *f, const struct policy_image *i, int64_t now)
{
	const struct img_rule *rules = image_section(i, SEC_RULE);
	const struct img_cond *conds = image_section(i, SEC_COND);
	const struct img_pred *preds = image_section(i, SEC_PRED);
	uint32_t n = image_count(i, SEC_RULE);
	struct sample s;

	for (uint32_t r = 0; r < n; r++) {
		int64_t then = now;

		for (uint32_t c = 0; c < rules[r].conds.count; c++)
			then = moment_of(i, &preds[conds[rules[r].conds.first + c].pred], then);
		sample_make(i, r, UINT32_MAX, 0, &s);
		compare_at(f, &s, now, then);
		for (uint32_t c = 0; c < rules[r].conds.count; c++) {
			const struct img_pred *p = &preds[conds[rules[r].conds.first + c].pred];
			uint32_t values = sample_values(p);

			for (uint32_t v = 0; v < values && f->decisions < DECISIONS_MAX; v++)
				if (sample_make(i, r, c, v, &s))
					compare_at(f, &s, now, then);
		}
	}
}

static void print_difference(FILE *out, const json_t *one)
{
	const json_t *r = json_object_get(one, "request"), *before = json_object_get(one, "before"),
		     *after = json_object_get(one, "after"), *group;
	static const char *const words[] = {"user",   "claimed-user", "client", "listener",
					    "method", "command",      "to",	"resolves"};
	size_t n;

	fprintf(out, "%s -> %s:", json_string_value(json_object_get(before, "verdict")),
		json_string_value(json_object_get(after, "verdict")));
	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
		const char *text = json_string_value(json_object_get(r, words[i]));

		if (text != NULL)
			fprintf(out, " %s %s", words[i], text);
		if (i == 0)
			json_array_foreach(json_object_get(r, "groups"), n, group)
				fprintf(out, " group %s", json_string_value(group));
	}
	fprintf(out, " port %d at \"%s\"\n    before: %s\n    after:  %s\n",
		(int)json_integer_value(json_object_get(r, "port")), json_string_value(json_object_get(r, "at")),
		json_string_value(json_object_get(before, "text")), json_string_value(json_object_get(after, "text")));
}

static void find_people(struct diff *f, const struct policy_image *i, size_t most)
{
	const struct img_rule *rules = image_section(i, SEC_RULE);

	for (uint32_t r = 0; r < image_count(i, SEC_RULE) && f->npeople < most; r++)
		if ((rules[r].flags & RULE_ALLOW) != 0)
			sample_make(i, r, UINT32_MAX, 0, &f->people[f->npeople++]);
}

static void print_said(FILE *out, const json_t *one)
{
	const char *before = json_string_value(json_object_get(one, "before")), *after = json_string_value(json_object_get(one, "after"));

	fprintf(out, "%s:\n    before: %s\n    after:  %s\n", json_string_value(json_object_get(one, "statement")),
		before == NULL ? "(not there)" : before, after == NULL ? "(not there)" : after);
}

static void print_all(FILE *out, const json_t *told, const json_t *said, size_t nsaid)
{
	size_t n;
	json_t *one;

	json_array_foreach ((json_t *)(uintptr_t)told, n, one)
		print_difference(out, one);
	json_array_foreach ((json_t *)(uintptr_t)said, n, one)
		print_said(out, one);
	if (nsaid > json_array_size(said))
		fprintf(out, "and %zu more statements that differ\n", nsaid - json_array_size(said));
}

char *policy_diff(const struct policy_context *before, const struct policy_tree *before_tree, const struct policy_context *after,
		  const struct policy_tree *after_tree, bool json, struct policy_differences *count)
{
	struct diff *f = calloc(1, sizeof *f);
	char *text = NULL;
	size_t len;
	json_t *said;
	FILE *out = f == NULL ? NULL : open_memstream(&text, &len);

	if (out == NULL) {
		free(f);
		return NULL;
	}
	f->before = *before;
	f->after = *after;
	f->told = json_array();
	find_people(f, before->image, PEOPLE_MAX / 2);
	find_people(f, after->image, PEOPLE_MAX);
	compare_rules(f, before->image, before->now);
	compare_rules(f, after->image, before->now);
	*count = (struct policy_differences){.decided = json_array_size(f->told)};
	said = before_tree == NULL ? json_array() : diff_said(before_tree, after_tree, &count->said);
	if (json) {
		json_array_extend(f->told, said);
		json_dumpf(f->told, out, JSON_INDENT(2));
		fputc('\n', out);
	} else {
		print_all(out, f->told, said, count->said);
	}
	json_decref(said);
	json_decref(f->told);
	free(f);
	return fclose(out) == 0 ? text : NULL;
}
