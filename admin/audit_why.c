/* gatewayctl audit why: makes a past decision again, with the policy and the lists of then, and tells where it would be another. */
#include "config.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "admin/admin.h"
#include "admin/audit.h"
#include "admin/audit_ask.h"
#include "admin/format.h"
#include "admin/options.h"
#include "admin/past.h"
#include "admin/policy_load.h"
#include "policy/policy.h"
#include "schema/audit_event.h"

/* Decisions of one session that are told: an association has one for each destination. */
#define DECISIONS_MAX 200

static const char usage[] =
	"usage: gatewayctl audit why [OPTION ...] SESSION|ROW\n"
	"\n"
	"Decides again what was decided then: with the text and the lists of the revision\n"
	"that decided, at that time, by the same engine.\n"
	"SESSION looks like 0123-4567-89AB-C; ROW is the id of a row.\n"
	"Exit code 1 where the outcome differs.\n"
	"\n"
	"  --geoip DB   countries as this database has them today (without: what asks for\n"
	"               a country cannot be evaluated)\n"
	"  --asn DB     the same for autonomous systems\n"
	"  --json       what is told, as JSON\n"
	"  --dir DIR    read the audit in DIR itself, and the policy beside it, without\n"
	"               gatewayd\n";

struct job {
	const char *dir, *geoip, *asn, *target;
	bool json;
	uint64_t row; /* 0: a session is asked for */
	json_t *rows; /* the decisions */
	json_t *told; /* with --json */
	uint32_t loaded_revision;
	struct loaded loaded;
};

/* A decision as it was recorded, and what is told of it. */
struct telling {
	struct past past;
	json_t *notes;	     /* what cannot be as it was */
	json_t *differences; /* texts */
};

/* ---- reading a row --------------------------------------------------------------------------------------------------
 */

static void note(struct telling *t, const char *text)
{
	json_array_append_new(t->notes, json_string(text));
}

/* -1, or an exit code: this row is none that can be decided again. */
static int read_row(const json_t *row, struct telling *t)
{
	const char *why = past_read(row, &t->past);

	t->notes = json_array();
	t->differences = json_array();
	if (why != NULL)
		return admin_fail(ADMIN_REFUSED, "row %" PRId64 " %s", format_number(row, "id"), why);
	if (t->past.groups_cut)
		note(t, "the row could not hold all groups of the user: rules by group may differ");
	if (t->past.folded)
		note(t, "the row stands for a flood and keeps no groups: rules by group may differ");
	return -1;
}

static void clear(struct telling *t)
{
	json_decref(t->notes);
	json_decref(t->differences);
	free(t);
}

/* ---- deciding again -------------------------------------------------------------------------------------------------
 */

static void differ(struct telling *t, const char *what, const char *then, const char *now)
{
	char text[1200], a[400], b[400];

	snprintf(text, sizeof text, "%s: recorded %s, decided again %s", what, format_safe(then, a, sizeof a),
		 format_safe(now, b, sizeof b));
	json_array_append_new(t->differences, json_string(text));
}

/* What is as it was is told of the policy only: the rest can have changed since. */
static void compare_places(struct telling *t, const struct loaded *l)
{
	const json_t *candidates = json_object_get(t->past.detail, "candidates"), *one;
	char now[3], then_buf[FORMAT_TEXT_MAX], what[128], address[ADDR_TEXT_MAX];
	size_t i;

	for (size_t k = 0; l->geo != NULL && k < t->past.naddresses; k++)
		json_array_foreach(candidates, i, one)
		{
			const char *then = format_member(one, "country", then_buf), *text = json_string_value(json_object_get(one, "address"));

			addr_format(&t->past.addresses[k], address);
			if (*then == '\0' || text == NULL || strcmp(text, address) != 0)
				continue;
			if (!policy_geo_country(l->geo, &t->past.addresses[k], now))
				strcpy(now, "-");
			if (strcmp(then, now) == 0)
				continue;
			snprintf(what, sizeof what, "the country of %s was %.2s, and is %s in the database of today", address, then, now);
			note(t, what);
		}
}

static void compare_candidates(struct telling *t, const struct policy_context *ctx)
{
	struct policy_decision d;
	char what[128], address[ADDR_TEXT_MAX];

	for (size_t i = 0; i < t->past.naddresses; i++) {
		if (t->past.rules[i] == NULL)
			continue;
		policy_decide_address(ctx, &t->past.request, &t->past.addresses[i], t->past.aliases, t->past.naliases, &d);
		snprintf(what, sizeof what, "address %s", addr_format(&t->past.addresses[i], address));
		if (d.verdict != POLICY_ALLOW)
			differ(t, what, "allow", "deny");
		else if (strcmp(policy_rule_name(ctx->image, d.rule), t->past.rules[i]) != 0)
			differ(t, what, t->past.rules[i], policy_rule_name(ctx->image, d.rule));
	}
}

static bool was_allowed(const json_t *row)
{
	char buf[FORMAT_TEXT_MAX];

	return strcmp(format_member(row, "verdict", buf), "allow") == 0;
}

/* Some refusals are not the policy's: it may have allowed, or have had no word. */
static bool by_policy(const json_t *row)
{
	char buf[FORMAT_TEXT_MAX];

	return was_allowed(row) || strncmp(format_member(row, "reason", buf), "denied by policy", 16) == 0;
}

static void compare(struct telling *t, const struct policy_context *ctx, const struct policy_decision *d)
{
	char buf[FORMAT_TEXT_MAX];
	const char *rule = format_member(t->past.row, "rule", buf), *now = policy_rule_name(ctx->image, d->rule);
	bool allowed = d->verdict == POLICY_ALLOW;

	if (!by_policy(t->past.row)) {
		note(t, "it was not the policy that refused it: the reason says what did");
		return;
	}
	if (d->verdict == POLICY_RESOLVE)
		note(t, "the row tells no address of the name: what follows a lookup cannot be told");
	else if (allowed != was_allowed(t->past.row))
		differ(t, "verdict", was_allowed(t->past.row) ? "allow" : "deny", allowed ? "allow" : "deny");
	else if (!allowed && strcmp(rule, now) != 0)
		differ(t, "rule", rule, now);
	else if (allowed && json_object_get(t->past.detail, "candidates") == NULL && strcmp(rule, now) != 0)
		differ(t, "rule", rule, now);
	compare_candidates(t, ctx);
}

/* ---- telling --------------------------------------------------------------------------------------------------------
 */

static void print_facts(const struct telling *t)
{
	char a[1200], b[1200], c[FORMAT_TEXT_MAX], d[FORMAT_TEXT_MAX];
	const json_t *row = t->past.row;
	const char *name = format_member(row, "name", c), *user = format_member(row, "user", d);

	printf("row %" PRId64, format_number(row, "id"));
	if (json_object_get(row, "session") != NULL)
		printf(", session %s", format_safe(json_string_value(json_object_get(row, "session")), a, sizeof a));
	printf(", %s: %s\n", format_safe(format_member(row, "time", (char[FORMAT_TEXT_MAX]){0}), a, sizeof a),
	       format_safe(format_member(row, "event", (char[FORMAT_TEXT_MAX]){0}), b, sizeof b));
	printf("  %s", *user == '\0' ? "nobody" : format_safe(user, a, sizeof a));
	for (size_t i = 0; i < t->past.request.ngroups; i++)
		printf("%s%s%s", i == 0 ? " (" : ", ", format_safe(t->past.groups[i], a, sizeof a), i + 1 == t->past.request.ngroups ? ")" : "");
	printf(" from %s", format_safe(format_member(row, "client", (char[FORMAT_TEXT_MAX]){0}), a, sizeof a));
	printf(", %s to %s port %u\n", t->past.request.command == POLICY_BIND ? "bind" : t->past.request.command == POLICY_UDP ? "udp" : "connect",
	       format_safe(*name != '\0' ? name : format_member(row, "address", (char[FORMAT_TEXT_MAX]){0}), a, sizeof a),
	       (unsigned)t->past.request.port);
	printf("  recorded: %s by rule %s of revision %" PRId64, was_allowed(row) ? "allow" : "deny",
	       format_safe(format_member(row, "rule", (char[FORMAT_TEXT_MAX]){0}), a, sizeof a), format_number(row, "revision"));
	if (json_object_get(row, "reason") != NULL)
		printf(": %s", format_safe(json_string_value(json_object_get(row, "reason")), a, sizeof a));
	printf("\ndecided again, at that time:\n");
}

static void print_list(const char *word, const json_t *list)
{
	const json_t *text;
	char safe[2400];
	size_t i;

	json_array_foreach(list, i, text) printf("%s: %s\n", word, format_safe(json_string_value(text), safe, sizeof safe));
}

static void tell(struct job *job, struct telling *t, const char *explained)
{
	bool same = json_array_size(t->differences) == 0;

	if (job->json) {
		json_t *one = json_pack("{s:O, s:b, s:O, s:O}", "row", t->past.row, "same", (int)same, "differences", t->differences, "notes",
					t->notes);

		json_object_set_new(one, "explanation", json_loads(explained, 0, NULL));
		json_array_append_new(job->told, one);
		return;
	}
	print_facts(t);
	format_lines(stdout, explained);
	print_list("note", t->notes);
	print_list("DIFFERS", t->differences);
	if (same)
		printf("as recorded\n");
	putchar('\n');
}

static int decide_again(struct job *job, struct telling *t)
{
	const struct loaded *l = &job->loaded;
	struct policy_context ctx = {.image = l->image,
				     .geo = l->geo,
				     .asn = l->asn,
				     .now = t->past.seconds,
				     .local = l->local,
				     .nlocal = l->nlocal,
				     .own_ports = l->own_ports,
				     .nown_ports = l->nown_ports};
	struct policy_decision d;
	char *text = policy_explain(&ctx, &t->past.request, t->past.addresses, t->past.naddresses, t->past.aliases, t->past.naliases, job->json, &d);

	if (text == NULL)
		return admin_fail(ADMIN_REFUSED, "out of memory");
	if (l->geo == NULL || l->asn == NULL)
		note(t, l->geo == NULL ? "no --geoip: a condition on countries cannot be evaluated, as if their database were missing"
				       : "no --asn: a condition on autonomous systems cannot be evaluated, as if their database were missing");
	if (job->dir != NULL)
		note(t, "the gateway is not asked: its own addresses and ports are not known, which the address guard refuses");
	compare(t, &ctx, &d);
	compare_places(t, l);
	tell(job, t, text);
	free(text);
	return json_array_size(t->differences) == 0 ? ADMIN_FINE : ADMIN_REFUSED;
}

/* ---- the policy of then ---------------------------------------------------------------------------------------------
 */

static int load(struct job *job, uint32_t revision)
{
	struct loaded *l = &job->loaded;
	char path[4096];
	int code;

	if (l->image != NULL && job->loaded_revision == revision)
		return ADMIN_FINE;
	loaded_clear(l);
	if (revision == 0)
		return admin_fail(ADMIN_REFUSED, "no policy decided it: the row names no revision");
	if (job->dir != NULL)
		audit_policy_path(job->dir, path, sizeof path);
	code = job->dir != NULL ? load_stored(path, revision, l) : load_revision(revision, l);
	if (code == ADMIN_FINE && l->image == NULL) {
		print_diagnostics(&l->diagnostics, stderr);
		code = admin_fail(ADMIN_REFUSED, "revision %u cannot be compiled any more", revision);
	}
	if (code == ADMIN_FINE && load_tables(job->geoip, job->asn, l) != 0)
		code = ADMIN_REFUSED;
	job->loaded_revision = revision;
	return code;
}

static int explain_row(struct job *job, const json_t *row)
{
	struct telling *t = calloc(1, sizeof *t);
	int code = t == NULL ? admin_fail(ADMIN_REFUSED, "out of memory") : load(job, (uint32_t)format_number(row, "revision"));

	if (code == ADMIN_FINE)
		code = read_row(row, t);
	if (code < 0)
		code = decide_again(job, t);
	if (t != NULL)
		clear(t);
	return code;
}

/* ---- rows -----------------------------------------------------------------------------------------------------------
 */

static int take_row(const json_t *row, void *arg)
{
	static const char *const decisions[] = {"open", "denied", "flow"};
	struct job *job = arg;
	char buf[FORMAT_TEXT_MAX];
	const char *event = format_member(row, "event", buf);

	for (size_t i = 0; i < sizeof decisions / sizeof *decisions; i++)
		if (strcmp(event, decisions[i]) == 0 && json_array_size(job->rows) < DECISIONS_MAX)
			json_array_append_new(job->rows, json_deep_copy(row));
	return -1;
}

static int find_rows(struct job *job)
{
	json_t *request = json_pack("{s:s}", "order", "oldest");
	struct audit_question question = {.request = request, .dir = job->dir, .take = take_row, .arg = job};
	struct audit_end end;
	int code;

	if (job->row == 0)
		json_object_set_new(request, "session", json_string(job->target));
	else
		json_object_set_new(request, "id", json_integer((json_int_t)job->row));
	code = audit_ask(&question, &end);
	json_decref(request);
	if (code == ADMIN_FINE && json_array_size(job->rows) == 0)
		code = admin_fail(ADMIN_REFUSED, job->row == 0 ? "the audit has no decision of session %s"
								: "row %s is not there, or is no decision: those are open, denied and flow",
				  job->target);
	return code;
}

static int explain_all(struct job *job)
{
	int code = find_rows(job), worst = ADMIN_FINE;
	const json_t *row;
	size_t i;

	if (code != ADMIN_FINE)
		return code;
	json_array_foreach(job->rows, i, row)
	{
		char buf[FORMAT_TEXT_MAX];

		/* The grant of an association decides nothing: its flows do. */
		if (json_array_size(job->rows) > 1 && strcmp(format_member(row, "command", buf), "udp") == 0 &&
		    json_object_get(row, "name") == NULL && json_object_get(row, "address") == NULL)
			continue;
		code = explain_row(job, row);
		worst = code > worst ? code : worst;
	}
	if (job->json) {
		json_dumpf(job->told, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
		putchar('\n');
	}
	return worst;
}

/* An exit code, or -1 to go on. */
static int parse(struct job *job, int argc, char **argv)
{
	const struct admin_option options[] = {
		{"geoip", NULL, &job->geoip}, {"asn", NULL, &job->asn}, {"json", &job->json, NULL}, {"dir", NULL, &job->dir}, {NULL, NULL, NULL},
	};
	int code = admin_options(argc, argv, usage, options);

	if (code >= 0)
		return code;
	if (optind + 1 != argc)
		return admin_fail(ADMIN_USAGE, "one session or row is to be named; see gatewayctl audit why --help");
	job->target = argv[optind];
	if (audit_session_parse(job->target) != 0)
		return -1;
	if (strspn(job->target, "0123456789") != strlen(job->target) || strlen(job->target) > 18 ||
	    (job->row = strtoull(job->target, NULL, 10)) == 0)
		return admin_fail(ADMIN_USAGE, "\"%s\" is no session, which looks like 0123-4567-89AB-C, and no id of a row", job->target);
	return -1;
}

int admin_audit_why(int argc, char **argv)
{
	struct job job = {.rows = json_array(), .told = json_array()};
	int code = parse(&job, argc, argv);

	if (code < 0)
		code = explain_all(&job);
	loaded_clear(&job.loaded);
	json_decref(job.rows);
	json_decref(job.told);
	return code;
}
