/* gatewayctl policy impact: what was asked for in the last days, decided by another policy and by the one in force, with the same
 * engine, at the time at which it was asked. */
#include "config.h"

#include "admin/impact.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "admin/admin.h"
#include "admin/audit.h"
#include "admin/format.h"
#include "admin/history.h"
#include "admin/policy_load.h"
#include "admin/progress.h"
#include "common/clock.h"
#include "policy/decide.h"

#define DIFFERENCES_MAX 1000
#define USERS_MAX 10000
#define USERS_SHOWN 5
#define EXAMPLES_MAX 3
#define DAY_US INT64_C(86400000000)

static const char usage_text[] =
	"usage: gatewayctl policy impact FILE|N [OPTION ...]\n"
	"\n"
	"Decides again what the audit tells was asked for: by the policy in FILE (or\n"
	"revision N), and by the one in force, at the time at which it was asked.  What\n"
	"comes out differently is told, grouped by the rules that decide.\n"
	"Exit code 1 if anything does.\n"
	"\n"
	"  --before FILE|N  compare with this one instead of the one in force\n"
	"  --since TIME     30d unless said: 15m, 2h (ago), or YYYY-MM-DD[ HH:MM[:SS]]\n"
	"  --until TIME     before then\n"
	"  --user USER      only what this user asked for\n"
	"  --group GROUP    only what members of it asked for\n"
	"  --geoip DB       countries, as this database has them today; without, they\n"
	"                   cannot be evaluated\n"
	"  --asn DB         the same for autonomous systems\n"
	"  --dir DIR        read the audit in DIR, and the policy in force beside it,\n"
	"                   without gatewayd\n"
	"  --json           what is told, as a JSON object\n";

/* Requests that one pair of rules decides differently. */
struct difference {
	uint32_t before, after; /* rules */
	enum policy_reason before_reason, after_reason;
	bool allows; /* the new one */
	uint64_t count, kinds;
	json_t *users;	  /* name -> how many */
	bool users_more;
	json_t *examples;
};

struct impact {
	struct history history;
	struct loaded before, after;
	struct policy_context a, b;
	bool json;
	struct difference *differences[DIFFERENCES_MAX];
	size_t ndifferences;
	uint64_t requests, kinds, differ, beyond, other_rule;
	uint64_t folded, cut, assumed; /* decided with less than was known then */
};

/* ---- deciding ----------------------------------------------------------------------------------------------------------- */

/* What is not recorded of a name that was never looked up are its addresses: it stands for a public one in no set. */
static bool decide(const struct policy_context *ctx, const struct past *p, struct policy_decision *d)
{
	struct decide_watch watch = {.nowhere = p->naddresses == 0};

	decide_request(ctx, &p->request, p->addresses, p->naddresses, p->aliases, p->naliases, &watch, d);
	return p->naddresses == 0 && p->request.name != NULL && d->verdict == POLICY_ALLOW;
}

static struct difference *find(struct impact *i, const struct policy_decision *before, const struct policy_decision *after)
{
	struct difference *f;

	for (size_t k = 0; k < i->ndifferences; k++) {
		f = i->differences[k];
		if (f->before == before->rule && f->after == after->rule && f->before_reason == before->reason &&
		    f->after_reason == after->reason && f->allows == (after->verdict == POLICY_ALLOW))
			return f;
	}
	if (i->ndifferences == DIFFERENCES_MAX || (f = calloc(1, sizeof *f)) == NULL)
		return NULL;
	*f = (struct difference){.before = before->rule,
				 .after = after->rule,
				 .before_reason = before->reason,
				 .after_reason = after->reason,
				 .allows = after->verdict == POLICY_ALLOW,
				 .users = json_object(),
				 .examples = json_array()};
	i->differences[i->ndifferences++] = f;
	return f;
}

static void count_user(struct difference *f, const struct past *p, uint64_t count)
{
	const char *user = json_string_value(json_object_get(p->row, "user"));

	if (user == NULL)
		user = "-";
	if (json_object_size(f->users) >= USERS_MAX && json_object_get(f->users, user) == NULL) {
		f->users_more = true;
		return;
	}
	json_object_set_new(f->users, user, json_integer(json_integer_value(json_object_get(f->users, user)) + (json_int_t)count));
}

static void add_example(struct difference *f, const struct past *p, uint64_t count)
{
	static const char *const members[] = {"id", "session", "time", "client", "listener", "user", "method", "command", "name",
					      "address", "port"};
	json_t *one = json_object();

	for (size_t i = 0; i < sizeof members / sizeof *members; i++)
		if (json_object_get(p->row, members[i]) != NULL)
			json_object_set(one, members[i], json_object_get(p->row, members[i]));
	json_object_set_new(one, "count", json_integer((json_int_t)count));
	json_array_append_new(f->examples, one);
}

static void take(const struct past *p, uint64_t count, void *arg)
{
	struct impact *i = arg;
	struct policy_decision before, after;
	struct difference *f;
	bool assumed;

	i->a.now = i->b.now = p->seconds;
	assumed = decide(&i->a, p, &before);
	assumed |= decide(&i->b, p, &after);
	i->requests += count;
	i->kinds++;
	i->folded += p->folded ? count : 0;
	i->cut += p->groups_cut ? count : 0;
	i->assumed += assumed ? count : 0;
	if (before.verdict == after.verdict) {
		i->other_rule += strcmp(policy_rule_name(i->a.image, before.rule), policy_rule_name(i->b.image, after.rule)) != 0 ? count : 0;
		return;
	}
	i->differ += count;
	f = find(i, &before, &after);
	if (f == NULL) {
		i->beyond += count;
		return;
	}
	f->count += count;
	f->kinds++;
	count_user(f, p, count);
	if (json_array_size(f->examples) < EXAMPLES_MAX)
		add_example(f, p, count);
}

/* ---- telling ------------------------------------------------------------------------------------------------------------ */

static const char *side(const struct policy_context *ctx, uint32_t rule, enum policy_reason reason, char *out, size_t size)
{
	struct policy_decision d = {.rule = rule, .reason = reason, .detail = ""};

	return policy_decision_text(ctx->image, &d, out, size);
}

static int by_count(const void *a, const void *b)
{
	const struct difference *x = *(const struct difference *const *)a, *y = *(const struct difference *const *)b;

	/* Who loses something comes first. */
	if (x->allows != y->allows)
		return x->allows ? 1 : -1;
	return x->count < y->count ? 1 : x->count > y->count ? -1 : 0;
}

static void print_users(const struct difference *f)
{
	json_t *left = json_copy(f->users);
	size_t shown = 0;
	char safe[1200];

	printf("    users:");
	while (shown < USERS_SHOWN && json_object_size(left) > 0) {
		const char *name, *most = NULL;
		json_int_t count = -1;
		json_t *value;

		json_object_foreach(left, name, value)
		{
			if (json_integer_value(value) > count || (json_integer_value(value) == count && strcmp(name, most) < 0)) {
				most = name;
				count = json_integer_value(value);
			}
		}
		printf("%s %s (%" JSON_INTEGER_FORMAT ")", shown == 0 ? "" : ",", format_safe(most, safe, sizeof safe), count);
		json_object_del(left, most);
		shown++;
	}
	if (json_object_size(left) > 0)
		printf(" and %zu%s more", json_object_size(left), f->users_more ? " or" : "");
	putchar('\n');
	json_decref(left);
}

static const char *shown(const json_t *object, const char *key, char *out, size_t size)
{
	char buf[FORMAT_TEXT_MAX];

	return format_safe(format_member(object, key, buf), out, size);
}

static void print_example(const json_t *e)
{
	char user[1200], client[80], to[1200], time[80];
	const char *dest = json_object_get(e, "name") != NULL ? "name" : "address";

	printf("    e.g. %s from %s to %s port %" PRId64 " at %s", *shown(e, "user", user, sizeof user) != '\0' ? user : "nobody",
	       shown(e, "client", client, sizeof client), shown(e, dest, to, sizeof to), format_number(e, "port"),
	       shown(e, "time", time, sizeof time));
	if (json_object_get(e, "session") != NULL)
		printf(", session %s", shown(e, "session", user, sizeof user));
	putchar('\n');
}

static void print_difference(const struct impact *i, const struct difference *f)
{
	char a[256], b[256], safe_a[600], safe_b[600];
	const json_t *example;
	size_t k;

	printf("%" PRIu64 " would be %s: %s, now %s\n", f->count, f->allows ? "allowed" : "denied",
	       format_safe(side(&i->b, f->after, f->after_reason, b, sizeof b), safe_b, sizeof safe_b),
	       format_safe(side(&i->a, f->before, f->before_reason, a, sizeof a), safe_a, sizeof safe_a));
	print_users(f);
	json_array_foreach(f->examples, k, example) print_example(example);
}

/* The names of groups that only the new policy knows: nobody has asked who was in them. */
static json_t *new_groups(const struct impact *i)
{
	json_t *names = json_array();

	for (size_t n = 0; n < policy_group_count(i->b.image); n++) {
		const char *name = policy_group_name(i->b.image, n);
		bool known = false;

		for (size_t k = 0; k < policy_group_count(i->a.image) && !known; k++)
			known = strcmp(policy_group_name(i->a.image, k), name) == 0;
		if (!known)
			json_array_append_new(names, json_string(name));
	}
	return names;
}

/* True if a condition asks for a country or an autonomous system, and no table tells of it. */
static bool looks_at_places(const struct impact *i)
{
	const struct policy_image *images[] = {i->a.image, i->b.image};

	for (size_t n = 0; n < 2; n++)
		for (uint32_t k = 0; k < image_count(images[n], SEC_PRED); k++) {
			const struct img_pred *p = IMAGE_AT(images[n], SEC_PRED, struct img_pred, k);

			if ((p->kind == PRED_COUNTRY && i->a.geo == NULL) || (p->kind == PRED_ASN && i->a.asn == NULL))
				return true;
		}
	return false;
}

static void add_note(json_t *notes, uint64_t count, const char *text)
{
	char line[512];

	if (count == 0)
		return;
	snprintf(line, sizeof line, "%" PRIu64 " %s", count, text);
	json_array_append_new(notes, json_string(line));
}

/* What the answer rests on, where that is less than was known then. */
static json_t *notes_of(const struct impact *i)
{
	json_t *notes = json_array(), *groups = new_groups(i), *group;
	char line[600], safe[300];
	size_t k;

	add_note(notes, i->beyond, "differ by more pairs of rules than are told");
	add_note(notes, i->assumed, "are for names that were never looked up: they are taken to be public addresses in no set and no country");
	add_note(notes, i->folded, "were denied in a flood, whose record keeps no groups: they are decided as of users in none");
	add_note(notes, i->cut, "are of users in more groups than the record could hold: they are decided as of users in none");
	add_note(notes, i->history.refused_names, "cannot be decided again: they were refused before the policy was asked");
	add_note(notes, i->history.undecided, "are grants to associate, whose destinations are told by their flows");
	json_array_foreach(groups, k, group)
	{
		snprintf(line, sizeof line, "group '%s' is new to the policy: who was in it was not recorded, nobody is taken to be",
			 format_safe(json_string_value(group), safe, sizeof safe));
		json_array_append_new(notes, json_string(line));
	}
	json_decref(groups);
	if (looks_at_places(i))
		json_array_append_new(notes, json_string("without --geoip and --asn, conditions on countries and autonomous systems cannot be "
							 "evaluated: where all else in such a rule holds, it denies"));
	if (i->history.nedges == HISTORY_EDGES_MAX)
		json_array_append_new(notes, json_string("windows open and close too often in this time: some requests are decided at the "
							 "time of the first of their kind"));
	return notes;
}

static void print_text(struct impact *i, json_t *notes)
{
	const json_t *text;
	size_t k;

	for (size_t n = 0; n < i->ndifferences; n++)
		print_difference(i, i->differences[n]);
	printf("%" PRIu64 " requests of %" PRIu64 " kinds decided again: %" PRIu64 " differ", i->requests, i->kinds, i->differ);
	if (i->other_rule > 0)
		printf("; %" PRIu64 " have the same answer by another rule", i->other_rule);
	putchar('\n');
	json_array_foreach(notes, k, text) printf("note: %s\n", json_string_value(text));
}

static json_t *text_json(const char *text)
{
	json_t *j = json_string(text);

	return j == NULL ? json_string("") : j;
}

static void print_json(struct impact *i, json_t *notes)
{
	json_t *list = json_array(), *root;
	char a[256], b[256];

	for (size_t n = 0; n < i->ndifferences; n++) {
		const struct difference *f = i->differences[n];

		json_array_append_new(
			list, json_pack("{s:s, s:I, s:I, s:o, s:o, s:o, s:o, s:O, s:b, s:O}", "would_be", f->allows ? "allowed" : "denied", "count",
					(json_int_t)f->count, "kinds", (json_int_t)f->kinds, "before_rule",
					text_json(policy_rule_name(i->a.image, f->before)), "before",
					text_json(side(&i->a, f->before, f->before_reason, a, sizeof a)), "after_rule",
					text_json(policy_rule_name(i->b.image, f->after)), "after",
					text_json(side(&i->b, f->after, f->after_reason, b, sizeof b)), "users", f->users, "users_more",
					(int)f->users_more, "examples", f->examples));
	}
	root = json_pack("{s:I, s:I, s:I, s:I, s:o, s:O}", "requests", (json_int_t)i->requests, "kinds", (json_int_t)i->kinds, "differ",
			 (json_int_t)i->differ, "other_rule", (json_int_t)i->other_rule, "differences", list, "notes", notes);
	json_dumpf(root, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
	putchar('\n');
	json_decref(root);
}

/* ---- the two policies --------------------------------------------------------------------------------------------------- */

static int load_one(const struct impact *i, const char *what, struct loaded *l)
{
	char path[4096];
	uint32_t id = 0;
	int code;

	if (what != NULL && !revision_number(what, &id))
		code = load_file(what, NULL, NULL, l) == 0 ? ADMIN_FINE : ADMIN_REFUSED;
	else if (i->history.dir == NULL)
		code = load_revision(id, l);
	else {
		audit_policy_path(i->history.dir, path, sizeof path);
		code = load_stored(path, id, l);
	}
	if (code == ADMIN_FINE && l->image == NULL) {
		print_diagnostics(&l->diagnostics, stderr);
		code = admin_fail(ADMIN_REFUSED, "%s is no usable policy", what == NULL ? "the policy in force" : what);
	}
	return code;
}

static int by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

/* When time alone changes what one of the two decides: between two such moments, requests of a kind are one. */
static void find_edges(struct impact *i, int64_t *edges)
{
	const struct policy_image *images[] = {i->a.image, i->b.image};
	int64_t first = i->history.since_us / 1000000, last = clock_wall_us() / 1000000;
	size_t n = 0, kept = 0;

	for (size_t k = 0; k < 2; k++)
		for (int64_t at = policy_next_change(images[k], first); at <= last && n < (k + 1) * (HISTORY_EDGES_MAX / 2);
		     at = policy_next_change(images[k], at))
			edges[n++] = at;
	qsort(edges, n, sizeof *edges, by_value);
	for (size_t k = 0; k < n; k++)
		if (kept == 0 || edges[kept - 1] != edges[k])
			edges[kept++] = edges[k];
	i->history.edges = edges;
	i->history.nedges = kept;
}

/* When both policies are loaded. */
static int replay(struct impact *i)
{
	int64_t *edges = calloc(HISTORY_EDGES_MAX, sizeof *edges);
	int code;

	if (edges == NULL)
		abort();
	i->a = (struct policy_context){.image = i->before.image,
				       .geo = i->before.geo,
				       .asn = i->before.asn,
				       .local = i->before.local,
				       .nlocal = i->before.nlocal,
				       .own_ports = i->before.own_ports,
				       .nown_ports = i->before.nown_ports};
	i->b = i->a;
	i->b.image = i->after.image;
	find_edges(i, edges);
	i->history.take = take;
	i->history.arg = i;
	code = history_read(&i->history);
	free(edges);
	return code;
}

static void impact_free(struct impact *i)
{
	for (size_t n = 0; n < i->ndifferences; n++) {
		json_decref(i->differences[n]->users);
		json_decref(i->differences[n]->examples);
		free(i->differences[n]);
	}
	loaded_clear(&i->before);
	loaded_clear(&i->after);
	free(i);
}

static void print_preview(const struct impact *i)
{
	uint64_t denied = 0, allowed = 0;

	for (size_t n = 0; n < i->ndifferences; n++)
		*(i->differences[n]->allows ? &allowed : &denied) += i->differences[n]->count;
	if (denied + allowed == 0)
		printf("of %" PRIu64 " requests of the last day, none would be decided otherwise", i->requests);
	else
		printf("of %" PRIu64 " requests of the last day, %" PRIu64 " would be denied that are allowed now, and %" PRIu64 " the other way round",
		       i->requests, denied, allowed);
	puts(looks_at_places(i) ? " (countries and autonomous systems left aside)" : "");
}

void impact_preview(const struct bundle *b)
{
	struct impact *i = calloc(1, sizeof *i);

	if (i == NULL)
		abort();
	i->history.since_us = clock_wall_us() - DAY_US;
	if (load_bundle(b, &i->after) == 0 && i->after.image != NULL && load_revision(0, &i->before) == ADMIN_FINE &&
	    i->before.image != NULL && replay(i) == ADMIN_FINE)
		print_preview(i);
	else
		printf("what it would have decided otherwise in the last day cannot be told\n");
	impact_free(i);
}

static int run(struct impact *i, const char *before, const char *what, const char *geoip, const char *asn)
{
	json_t *notes;
	int code;

	progress_guard("interrupted: what it would change is not known");
	progress_show("compiling the policies");
	code = load_one(i, before, &i->before);
	if (code == ADMIN_FINE)
		code = load_one(i, what, &i->after);
	progress_hide();
	if (code == ADMIN_FINE && load_tables(geoip, asn, &i->before) != 0)
		code = ADMIN_REFUSED;
	if (code == ADMIN_FINE)
		code = replay(i);
	if (code == ADMIN_FINE) {
		qsort(i->differences, i->ndifferences, sizeof i->differences[0], by_count);
		notes = notes_of(i);
		if (i->json)
			print_json(i, notes);
		else
			print_text(i, notes);
		json_decref(notes);
		code = i->differ == 0 ? ADMIN_FINE : ADMIN_REFUSED;
	}
	return code;
}

int policy_impact(int argc, char **argv)
{
	static const struct option options[] = {
		{"since", required_argument, NULL, 's'}, {"until", required_argument, NULL, 'u'}, {"user", required_argument, NULL, 'U'},
		{"group", required_argument, NULL, 'G'}, {"geoip", required_argument, NULL, 'g'}, {"asn", required_argument, NULL, 'a'},
		{"dir", required_argument, NULL, 'd'},	 {"json", no_argument, NULL, 'j'},
		{"before", required_argument, NULL, 'b'}, {"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}};
	struct impact *i = calloc(1, sizeof *i);
	const char *geoip = NULL, *asn = NULL, *before = NULL;
	int c, code = -1;

	if (i == NULL)
		abort();
	i->history.since_us = clock_wall_us() - 30 * DAY_US;
	optind = 0;
	while (code < 0 && (c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (c == 's' || c == 'u')
			code = history_time(c == 's' ? "--since" : "--until", optarg, c == 'u',
					    c == 's' ? &i->history.since_us : &i->history.until_us) == 0 ? -1 : ADMIN_USAGE;
		else if (c == 'h' || c == '?') {
			fputs(usage_text, c == 'h' ? stdout : stderr);
			code = c == 'h' ? ADMIN_FINE : ADMIN_USAGE;
		}
		i->json |= c == 'j';
		i->history.user = c == 'U' ? optarg : i->history.user;
		i->history.group = c == 'G' ? optarg : i->history.group;
		i->history.dir = c == 'd' ? optarg : i->history.dir;
		before = c == 'b' ? optarg : before;
		geoip = c == 'g' ? optarg : geoip;
		asn = c == 'a' ? optarg : asn;
	}
	if (code < 0 && optind + 1 != argc) {
		fputs(usage_text, stderr);
		code = ADMIN_USAGE;
	}
	if (code < 0)
		code = run(i, before, argv[optind], geoip, asn);
	impact_free(i);
	return code;
}
