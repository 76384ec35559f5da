/* gatewayctl policy: the verbs that need no running gateway; revision.c has those that ask one.  Reads files with the rights
 * of whoever calls. */
#include "config.h"

#include "admin/policy.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "admin/impact.h"
#include "admin/options.h"
#include "admin/policy_edit.h"
#include "admin/policy_help.h"
#include "admin/policy_load.h"
#include "admin/revision.h"
#include "admin/suggest.h"
#include "common/clock.h"
#include "policy/ast.h"
#include "policy/policy.h"

enum { EXIT_FINE = 0, EXIT_REFUSED = 1, EXIT_USAGE = 2 };

#define LIST_MAX 64

static const char usage_text[] =
	"usage: gatewayctl policy check FILE                find errors, run expectations\n"
	"       gatewayctl policy test FILE                  only its expectations\n"
	"       gatewayctl policy fmt FILE                   in canonical form\n"
	"       gatewayctl policy diff OLD NEW               what they decide differently\n"
	"       gatewayctl policy explain NAME-OR-ADDRESS    what it says to a request\n"
	"       gatewayctl policy impact FILE|N              what would have differed\n"
	"       gatewayctl policy suggest                    rules for what was granted\n"
	"       gatewayctl policy apply FILE|-               put one into force\n"
	"       gatewayctl policy edit [FILE]                the same, in an editor\n"
	"       gatewayctl policy rollback N                 back to revision N\n"
	"       gatewayctl policy confirm [N]                keep what is on trial\n"
	"       gatewayctl policy pending                    what waits for approval\n"
	"       gatewayctl policy approve N                  put what waits into force\n"
	"       gatewayctl policy reject N --reason TEXT     or never\n"
	"       gatewayctl policy log                        the revisions\n"
	"       gatewayctl policy show [N]                   the text of one\n"
	"       gatewayctl policy export [-o DIR] [N]        the same, with its files\n"
	"\n"
	"gatewayctl policy VERB --help says more: its options, and what its exit codes\n"
	"tell.\n";

static int usage(void)
{
	fputs(usage_text, stderr);
	return EXIT_USAGE;
}

/* ---- check, test, fmt ----------------------------------------------------------------------------------------------
 */

struct options {
	bool json, strict;
	const char *geoip;
	const char *groups; /* a file of them; NULL: this machine's */
	const char *file;
};

/* Options of check, test and fmt; each takes one file. */
static int read_options(int argc, char **argv, const char *allowed, struct options *o)
{
	static const struct option options[] = {{"json", no_argument, NULL, 'j'},
						{"strict", no_argument, NULL, 's'},
						{"geoip", required_argument, NULL, 'g'},
						{"groups", required_argument, NULL, 'G'},
						{NULL, 0, NULL, 0}};
	int c;

	*o = (struct options){0};
	optind = 0; /* starts afresh: what is no option may stand anywhere */
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == '?' || strchr(allowed, c) == NULL)
			return -1;
		o->json |= c == 'j';
		o->strict |= c == 's';
		if (c == 'g')
			o->geoip = optarg;
		if (c == 'G')
			o->groups = optarg;
	}
	if (optind + 1 != argc)
		return -1;
	o->file = argv[optind];
	return 0;
}

static void print_result(const struct options *o, const struct loaded *l, bool fine)
{
	const struct policy_diagnostics *d = &l->diagnostics;

	if (o->json) {
		json_t *root = json_pack("{s:b, s:i, s:i, s:o}", "ok", fine, "errors", (int)d->errors, "warnings",
					 (int)d->warnings, "diagnostics", diagnostics_json(d));

		json_dumpf(root, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
		putchar('\n');
		json_decref(root);
		return;
	}
	print_diagnostics(d, stdout);
	if (fine)
		printf("%s: %zu rules, %zu warnings: fine\n", o->file, policy_rule_count(l->image), d->warnings);
	else
		printf("%s: %zu errors, %zu warnings: refused\n", o->file, d->errors, d->warnings);
}

static int check(int argc, char **argv)
{
	struct options o;
	struct loaded l;
	int rc = EXIT_REFUSED;

	if (read_options(argc, argv, "jsgG", &o) != 0)
		return usage();
	if (o.groups != NULL && access(o.groups, R_OK) != 0) {
		fprintf(stderr, "gatewayctl: %s: %s\n", o.groups, strerror(errno));
		return EXIT_REFUSED;
	}
	if (load_file(o.file, o.geoip, NULL, &l) == 0) {
		if (l.image != NULL) {
			policy_expect(l.tree, l.image, &l.diagnostics);
			policy_find(l.tree, l.image, clock_wall_us() / 1000000, &l.diagnostics);
			policy_find_groups(l.tree, group_is_known, (void *)(uintptr_t)o.groups, &l.diagnostics);
		}
		bool fine = l.image != NULL && l.diagnostics.errors == 0 && !(o.strict && l.diagnostics.warnings > 0);

		print_result(&o, &l, fine);
		rc = fine ? EXIT_FINE : EXIT_REFUSED;
	}
	loaded_clear(&l);
	return rc;
}

/* The rules that no expectation is decided by; a monitor rule decides nothing, and does not count. */
static json_t *uncovered(const struct loaded *l, const bool *reached, size_t *rules)
{
	json_t *names = json_array();

	*rules = 0;
	for (size_t i = 0; i < policy_rule_count(l->image); i++) {
		if (policy_rule_monitors(l->image, (uint32_t)i))
			continue;
		++*rules;
		if (!reached[i])
			json_array_append_new(names, json_string(policy_rule_name(l->image, (uint32_t)i)));
	}
	return names;
}

static void print_test(const struct options *o, const struct loaded *l, size_t total, size_t failed, size_t rules,
		       const json_t *missed)
{
	size_t i;
	json_t *name;

	if (o->json) {
		json_t *root = json_pack("{s:b, s:i, s:i, s:i, s:O, s:o}", "ok", failed == 0, "expectations", (int)total,
					 "failed", (int)failed, "rules", (int)rules, "unreached", missed, "diagnostics",
					 diagnostics_json(&l->diagnostics));

		json_dumpf(root, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
		putchar('\n');
		json_decref(root);
		return;
	}
	print_diagnostics(&l->diagnostics, stdout);
	json_array_foreach(missed, i, name)
		printf("%s: no expectation reaches rule %s\n", o->file, json_string_value(name));
	printf("%s: expectations reach %zu of %zu rules\n", o->file, rules - json_array_size(missed), rules);
	printf("%s: %zu expectations, %zu failed\n", o->file, total, failed);
}

static int run_expectations(const struct options *o, struct loaded *l)
{
	bool *reached = calloc(policy_rule_count(l->image) + 1, sizeof reached[0]);
	size_t before = l->diagnostics.errors, total, failed, rules;

	if (reached == NULL)
		return EXIT_REFUSED;
	total = policy_expect_reached(l->tree, l->image, reached, &l->diagnostics);
	failed = l->diagnostics.errors - before;
	json_t *missed = uncovered(l, reached, &rules);

	print_test(o, l, total, failed, rules, missed);
	json_decref(missed);
	free(reached);
	return failed == 0 ? EXIT_FINE : EXIT_REFUSED;
}

static int test(int argc, char **argv)
{
	struct options o;
	struct loaded l;
	int rc = EXIT_REFUSED;

	if (read_options(argc, argv, "j", &o) != 0)
		return usage();
	if (load_file(o.file, NULL, NULL, &l) == 0) {
		if (l.image != NULL)
			rc = run_expectations(&o, &l);
		else
			print_result(&o, &l, false);
	}
	loaded_clear(&l);
	return rc;
}

static int fmt(int argc, char **argv)
{
	struct options o;
	struct loaded l;
	int rc = EXIT_REFUSED;

	if (read_options(argc, argv, "", &o) != 0)
		return usage();
	if (load_file(o.file, NULL, NULL, &l) == 0) {
		if (l.diagnostics.errors == 0) {
			char *text = policy_print(l.tree);

			fputs(text, stdout);
			free(text);
			rc = EXIT_FINE;
		} else {
			print_diagnostics(&l.diagnostics, stdout);
		}
	}
	loaded_clear(&l);
	return rc;
}

/* ---- explain -------------------------------------------------------------------------------------------------------
 */

/* The request on the command line, as text; words of the language are read by the policy library itself. */
struct question {
	const char *policy; /* NULL: a revision of the store */
	uint32_t revision;  /* 0: the one in force */
	const char *geoip, *asn, *at, *target;
	struct policy_request request;
	bool method_said, json;
	const char *groups[LIST_MAX];
	struct name name, aliases[LIST_MAX];
	struct addr addresses[LIST_MAX];
	size_t naddresses, naliases;
};

static int wrong(const char *option, const char *value)
{
	fprintf(stderr, "gatewayctl: --%s cannot be '%s'\n", option, value);
	return -1;
}

static int choose(const char *option, const char *value, const char *const *words, int *index)
{
	for (int i = 0; words[i] != NULL; i++) {
		if (strcmp(words[i], value) == 0) {
			*index = i;
			return 0;
		}
	}
	return wrong(option, value);
}

static int take_alias(struct question *q, const char *value)
{
	struct addr address;
	const char *why;

	if (q->naliases == LIST_MAX ||
	    name_canonical(value, strlen(value), &q->aliases[q->naliases], &address, &why) != NAME_IS_NAME)
		return wrong("alias", value);
	q->naliases++;
	return 0;
}

static int take_option(struct question *q, int c, const char *value)
{
	static const char *const commands[] = {"connect", "bind", "udp", NULL};
	static const char *const methods[] = {"none", "password", "gssapi", "socks4", "gssapi-integrity", "gssapi-confidentiality", NULL};
	struct policy_request *r = &q->request;
	char *end;
	int index;

	switch (c) {
	case 'P':
		q->policy = value;
		return 0;
	case 'R':
		return revision_number(value, &q->revision) && q->revision > 0 ? 0 : wrong("revision", value);
	case 'u':
		r->user = value;
		return 0;
	case 'g':
		if (r->ngroups == LIST_MAX)
			return wrong("group", value);
		q->groups[r->ngroups++] = value;
		return 0;
	case 'U':
		r->claimed_user = value;
		return 0;
	case 'c':
		return addr_parse(value, &r->client) ? 0 : wrong("client", value);
	case 'l':
		r->listener = value;
		return 0;
	case 'C':
		if (choose("command", value, commands, &index) != 0)
			return -1;
		r->command = (enum policy_command)(POLICY_CONNECT + index);
		return 0;
	case 'm':
		if (choose("method", value, methods, &index) != 0)
			return -1;
		r->method = (enum policy_method)(POLICY_METHOD_NONE + index);
		q->method_said = true;
		return 0;
	case 'p': {
		unsigned long port = strtoul(value, &end, 10);

		if (*value < '0' || *value > '9' || *end != '\0' || port > 65535)
			return wrong("port", value);
		r->port = (uint16_t)port;
		return 0;
	}
	case 'a':
		q->at = value;
		return 0;
	case 'r':
		if (q->naddresses == LIST_MAX || !addr_parse(value, &q->addresses[q->naddresses]))
			return wrong("resolves", value);
		q->naddresses++;
		return 0;
	case 'A':
		return take_alias(q, value);
	case 'G':
		q->geoip = value;
		return 0;
	case 'S':
		q->asn = value;
		return 0;
	case 'j':
		q->json = true;
		return 0;
	default:
		return -1;
	}
}

static int read_question(int argc, char **argv, struct question *q)
{
	static const struct option options[] = {
		{"policy", required_argument, NULL, 'P'},   {"revision", required_argument, NULL, 'R'},
		{"user", required_argument, NULL, 'u'},
		{"group", required_argument, NULL, 'g'},    {"claimed-user", required_argument, NULL, 'U'},
		{"client", required_argument, NULL, 'c'},   {"listener", required_argument, NULL, 'l'},
		{"command", required_argument, NULL, 'C'},  {"method", required_argument, NULL, 'm'},
		{"port", required_argument, NULL, 'p'},	    {"at", required_argument, NULL, 'a'},
		{"resolves", required_argument, NULL, 'r'}, {"alias", required_argument, NULL, 'A'},
		{"geoip", required_argument, NULL, 'G'},    {"asn", required_argument, NULL, 'S'},
		{"json", no_argument, NULL, 'j'},	    {NULL, 0, NULL, 0}};
	const char *why = "";
	int c;

	q->request.command = POLICY_CONNECT;
	q->request.port = 443;
	q->request.groups = q->groups;
	optind = 0; /* starts afresh: what is no option may stand anywhere */
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		if (take_option(q, c, optarg) != 0)
			return -1;
	if (optind + 1 != argc || (q->policy != NULL && q->revision != 0))
		return -1;
	q->target = argv[optind];
	switch (name_canonical(q->target, strlen(q->target), &q->name, &q->request.address, &why)) {
	case NAME_REFUSED:
		fprintf(stderr, "gatewayctl: %s: %s\n", q->target, why);
		return -1;
	case NAME_IS_NAME:
		q->request.name = &q->name;
		break;
	case NAME_IS_ADDRESS:
		break;
	}
	if (q->request.user != NULL && !q->method_said)
		q->request.method = POLICY_METHOD_PASSWORD;
	return 0;
}

static bool is_disabled(const struct ast_statement *s)
{
	return s->kind == AST_RULE && !ast_is_rule(s);
}

/* An explanation is one of an image, which knows nothing of them. */
static void print_disabled(const struct policy_tree *t)
{
	for (const struct ast_statement *s = t->first; s != NULL; s = s->next)
		if (is_disabled(s))
			printf("(rule %s is disabled, and was not looked at)\n", s->name->text);
}

static void print_json(const char *explanation, const struct policy_tree *t)
{
	json_t *root = json_loads(explanation, 0, NULL), *disabled = json_array();

	for (const struct ast_statement *s = t->first; s != NULL; s = s->next)
		if (is_disabled(s))
			json_array_append_new(disabled, json_string(s->name->text));
	json_object_set_new(root, "disabled", disabled);
	json_dumpf(root, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
	putchar('\n');
	json_decref(root);
}

static int answer(const struct question *q, const struct loaded *l)
{
	struct policy_context ctx = {.image = l->image,
				     .geo = l->geo,
				     .asn = l->asn,
				     .now = clock_wall_us() / 1000000,
				     .local = l->local,
				     .nlocal = l->nlocal,
				     .own_ports = l->own_ports,
				     .nown_ports = l->nown_ports};
	struct policy_decision d;
	struct err why;

	if (q->at != NULL && policy_instant_parse(l->image, q->at, &ctx.now, &why) != 0) {
		fprintf(stderr, "gatewayctl: --at: %s\n", why.text);
		return EXIT_USAGE;
	}
	char *text =
		policy_explain(&ctx, &q->request, q->addresses, q->naddresses, q->aliases, q->naliases, q->json, &d);

	if (text == NULL)
		return EXIT_REFUSED;
	if (q->json) {
		print_json(text, l->tree);
	} else {
		fputs(text, stdout);
		print_disabled(l->tree);
	}
	free(text);
	if (d.verdict == POLICY_RESOLVE && !q->json)
		printf("(what its addresses bring is told with --resolves ADDRESS)\n");
	return d.verdict == POLICY_DENY ? EXIT_REFUSED : EXIT_FINE;
}

/* 0, or an exit code when it has said why. */
static int load_question(const struct question *q, struct loaded *l)
{
	int code = EXIT_FINE;

	if (q->policy != NULL)
		return load_file(q->policy, q->geoip, q->asn, l) == 0 ? EXIT_FINE : EXIT_REFUSED;
	code = load_revision(q->revision, l);
	return code != EXIT_FINE ? code : load_tables(q->geoip, q->asn, l) == 0 ? EXIT_FINE : EXIT_REFUSED;
}

static int explain(int argc, char **argv)
{
	struct question *q = calloc(1, sizeof *q);
	struct loaded l = {0};
	int rc;

	if (q == NULL || read_question(argc, argv, q) != 0) {
		free(q);
		return usage();
	}
	rc = load_question(q, &l);
	if (rc == EXIT_FINE && l.image != NULL)
		rc = answer(q, &l);
	else if (rc == EXIT_FINE) {
		print_diagnostics(&l.diagnostics, stdout);
		rc = EXIT_REFUSED;
	}
	loaded_clear(&l);
	free(q);
	return rc;
}

/* ---- diff ----------------------------------------------------------------------------------------------------------
 */

static int compare(const char *at, bool json, const struct loaded *before, const struct loaded *after)
{
	struct policy_context a = {.image = before->image, .now = clock_wall_us() / 1000000}, b = a;
	struct err why;
	struct policy_differences count;

	b.image = after->image;
	if (at != NULL && policy_instant_parse(after->image, at, &a.now, &why) != 0) {
		fprintf(stderr, "gatewayctl: --at: %s\n", why.text);
		return EXIT_USAGE;
	}
	b.now = a.now;
	char *text = policy_diff(&a, before->tree, &b, after->tree, json, &count);

	if (text == NULL)
		return EXIT_REFUSED;
	fputs(text, stdout);
	free(text);
	if (!json)
		print_differences(&count);
	return count.decided + count.said == 0 ? EXIT_FINE : EXIT_REFUSED;
}

/* A number is a revision of the store, anything else a file. */
static int load_either(const char *what, struct loaded *l)
{
	uint32_t id;

	if (revision_number(what, &id))
		return load_revision(id, l);
	return load_file(what, NULL, NULL, l) == 0 ? EXIT_FINE : EXIT_REFUSED;
}

/* Ends with 0 if nothing differs and 1 if something does, as diff(1). */
static int diff(int argc, char **argv)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, 'j'}, {"at", required_argument, NULL, 'a'}, {NULL, 0, NULL, 0}};
	struct loaded before = {0}, after = {0};
	const char *at = NULL;
	bool json = false;
	int c, rc = EXIT_USAGE;

	optind = 0; /* starts afresh: what is no option may stand anywhere */
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == '?')
			return usage();
		json |= c == 'j';
		if (c == 'a')
			at = optarg;
	}
	if (optind + 2 != argc)
		return usage();
	rc = load_either(argv[optind], &before);
	if (rc == EXIT_FINE)
		rc = load_either(argv[optind + 1], &after);
	if (rc == EXIT_FINE && before.image != NULL && after.image != NULL) {
		rc = compare(at, json, &before, &after);
	} else if (rc == EXIT_FINE) {
		print_diagnostics(&before.diagnostics, stdout);
		print_diagnostics(&after.diagnostics, stdout);
		rc = EXIT_REFUSED;
	}
	loaded_clear(&before);
	loaded_clear(&after);
	return rc;
}

/* Anywhere among the words: who asks for help does not want it to happen. */
static bool asks_for_help(int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
			return true;
	return false;
}

int admin_policy(int argc, char **argv)
{
	static const struct {
		const char *word;
		int (*run)(int argc, char **argv);
	} verbs[] = {{"check", check},
		     {"fmt", fmt},
		     {"test", test},
		     {"diff", diff},
		     {"explain", explain},
		     {"apply", revision_apply},
		     {"confirm", revision_confirm},
		     {"pending", revision_pending},
		     {"approve", revision_approve},
		     {"reject", revision_reject},
		     {"rollback", revision_rollback},
		     {"log", revision_log},
		     {"show", revision_show},
		     {"edit", policy_edit},
		     {"impact", policy_impact},
		     {"suggest", policy_suggest},
		     {"export", revision_export}};

	const char *help = argc >= 2 ? policy_help(argv[1]) : NULL;

	if (help != NULL && asks_for_help(argc - 1, argv + 1)) {
		fputs(help, stdout);
		return EXIT_FINE;
	}
	for (size_t i = 0; argc >= 2 && i < sizeof verbs / sizeof verbs[0]; i++)
		if (strcmp(argv[1], verbs[i].word) == 0)
			return verbs[i].run(argc - 1, argv + 1);
	if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		fputs(usage_text, stdout);
		return EXIT_FINE;
	}
	return admin_no_verb(usage_text, argc, argv);
}
