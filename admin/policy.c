/* gatewayctl policy: everything about a policy that needs no running gateway.  Reads files with the rights of whoever
 * calls. */
#include "config.h"

#include "admin/policy.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "policy/policy.h"

enum { EXIT_FINE = 0, EXIT_REFUSED = 1, EXIT_USAGE = 2 };

#define POLICY_BYTES_MAX ((size_t)64 << 20)
#define LIST_BYTES_MAX ((size_t)256 << 20)
#define LIST_MAX 64

static const char usage_text[] =
	"usage: gatewayctl policy check FILE [--json] [--strict] [--geoip DB]\n"
	"       gatewayctl policy fmt FILE\n"
	"       gatewayctl policy test FILE\n"
	"       gatewayctl policy diff [--json] [--at \"YYYY-MM-DD HH:MM\"] OLD NEW\n"
	"       gatewayctl policy explain --policy FILE [--user U] [--group G]... [--claimed-user U] [--client A]\n"
	"           [--listener L] [--command connect|bind|udp] [--method none|password|gssapi|socks4] [--port N]\n"
	"           [--at \"YYYY-MM-DD HH:MM\"] [--resolves A]... [--alias N]... [--geoip DB] [--asn DB]\n"
	"           [--json] NAME-OR-ADDRESS\n";

static int usage(void)
{
	fputs(usage_text, stderr);
	return EXIT_USAGE;
}

/* ---- a policy from a file ------------------------------------------------------------------------------------------
 */

struct loaded {
	struct policy_tree *tree;
	struct policy_diagnostics diagnostics;
	uint8_t *data, *geo_data, *asn_data;
	size_t len;
	struct policy_image *image;
	struct policy_geo *geo, *asn;
};

static void loaded_clear(struct loaded *l)
{
	policy_image_close(&l->image);
	policy_geo_close(&l->geo);
	policy_geo_close(&l->asn);
	policy_tree_free(l->tree);
	policy_diagnostics_free(&l->diagnostics);
	free(l->data);
	free(l->geo_data);
	free(l->asn_data);
}

static int complain(const char *path, const char *what)
{
	fprintf(stderr, "gatewayctl: %s: %s\n", path, what);
	return -1;
}

static int read_all(int fd, size_t max, char **text, size_t *len, struct err *why)
{
	size_t room = 0;
	ssize_t n;

	*text = NULL;
	*len = 0;
	for (;;) {
		if (room - *len < 65536) {
			room = room == 0 ? 65536 : room * 2;
			char *grown = realloc(*text, room);

			if (grown == NULL || *len > max) {
				free(grown == NULL ? *text : grown);
				return err_set(why, "the file is too large");
			}
			*text = grown;
		}
		n = read(fd, *text + *len, room - *len);
		if (n <= 0)
			break;
		*len += (size_t)n;
	}
	if (n == 0)
		return 0;
	err_set(why, "%s", strerror(errno));
	free(*text);
	return -1;
}

/* Reads the whole of a regular file or pipe ("-" is standard input). */
static int read_file(const char *path, char **text, size_t *len)
{
	int fd = strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	struct err why;
	struct stat st;

	if (fd < 0)
		return complain(path, strerror(errno));
	if (fstat(fd, &st) != 0 || S_ISDIR(st.st_mode) || S_ISBLK(st.st_mode) ||
	    (S_ISCHR(st.st_mode) && !isatty(fd) && strcmp(path, "-") != 0)) {
		close(fd);
		return complain(path, "this is no file with a policy");
	}
	int rc = read_all(fd, POLICY_BYTES_MAX, text, len, &why);

	close(fd);
	return rc == 0 ? 0 : complain(path, why.text);
}

/* Gives the policy the files it names: with the caller's rights, relative to the file that names them. */
static int provide(void *arg, const char *from, const char *path, char **bytes, size_t *len, char **name,
		   struct err *why)
{
	const char *slash = strrchr(from, '/');
	struct stat st;
	int rc;

	(void)arg;
	if (path[0] == '/' || slash == NULL)
		rc = asprintf(name, "%s", path);
	else
		rc = asprintf(name, "%.*s/%s", (int)(slash - from), from, path);
	if (rc < 0)
		return err_set(why, "there is no memory left");
	/* A pipe without a writer must not keep anybody waiting. */
	int fd = open(*name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	if (fd < 0)
		rc = err_set(why, "%s: %s", *name, strerror(errno));
	else if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
		rc = err_set(why, "%s is no regular file", *name);
	else
		rc = read_all(fd, LIST_BYTES_MAX, bytes, len, why);
	if (fd >= 0)
		close(fd);
	if (rc != 0)
		free(*name);
	return rc != 0 ? -1 : 0;
}

static int load_geo(const char *path, int (*compile)(const char *, uint8_t **, size_t *, struct err *), uint8_t **data,
		    struct policy_geo **geo)
{
	struct err why;
	size_t len;

	if (compile(path, data, &len, &why) != 0 || policy_geo_verify(*data, len, &why) != 0)
		return complain(path, why.text);
	*geo = policy_geo_open(*data, len, &why);
	return *geo == NULL ? complain(path, why.text) : 0;
}

/* Parses and checks; if that finds no error, makes and opens the image.  -1 only if there is no text to speak about. */
static int load(const char *path, const char *geoip, const char *asn, struct loaded *l)
{
	struct err why;
	char *text;
	size_t len;

	static const struct policy_provider provider = {.read = provide};

	*l = (struct loaded){0};
	if (read_file(path, &text, &len) != 0)
		return -1;
	l->tree = policy_parse_with(strcmp(path, "-") == 0 ? "standard input" : path, text, len, &provider,
				    &l->diagnostics);
	free(text);
	policy_check(l->tree, &l->diagnostics);
	if (geoip != NULL && load_geo(geoip, policy_geo_compile, &l->geo_data, &l->geo) != 0)
		return -1;
	if (asn != NULL && load_geo(asn, policy_asn_compile, &l->asn_data, &l->asn) != 0)
		return -1;
	if (l->diagnostics.errors > 0 || policy_compile(l->tree, &l->data, &l->len, &l->diagnostics) != 0)
		return 0;
	if (policy_image_verify(l->data, l->len, &why) != 0)
		return complain(path, why.text);
	l->image = policy_image_open(l->data, l->len, &why);
	return l->image == NULL ? complain(path, why.text) : 0;
}

static void print_diagnostics(const struct policy_diagnostics *d)
{
	for (size_t i = 0; i < d->count; i++) {
		char *text = policy_diagnostic_format(&d->items[i]);

		fputs(text, stdout);
		free(text);
	}
}

static json_t *diagnostics_json(const struct policy_diagnostics *d)
{
	json_t *list = json_array();

	for (size_t i = 0; i < d->count; i++) {
		const struct policy_diagnostic *item = &d->items[i];

		json_array_append_new(list, json_pack("{s:s, s:s, s:s*, s:i, s:i, s:s*}", "severity",
						      item->severity == POLICY_ERROR ? "error" : "warning", "code",
						      item->code, "file", item->file, "line", (int)item->line, "column",
						      (int)item->column, "message", item->message));
	}
	return list;
}

/* ---- check, test, fmt ----------------------------------------------------------------------------------------------
 */

struct options {
	bool json, strict;
	const char *geoip;
	const char *file;
};

/* Options of check, test and fmt; each takes one file. */
static int read_options(int argc, char **argv, const char *allowed, struct options *o)
{
	static const struct option options[] = {{"json", no_argument, NULL, 'j'},
						{"strict", no_argument, NULL, 's'},
						{"geoip", required_argument, NULL, 'g'},
						{NULL, 0, NULL, 0}};
	int c;

	*o = (struct options){0};
	optind = 1;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == '?' || strchr(allowed, c) == NULL)
			return -1;
		o->json |= c == 'j';
		o->strict |= c == 's';
		if (c == 'g')
			o->geoip = optarg;
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

		json_dumpf(root, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(root);
		return;
	}
	print_diagnostics(d);
	if (fine)
		printf("%s: %zu rules, %zu warnings: fine\n", o->file, policy_rule_count(l->image), d->warnings);
	else
		printf("%s: %zu errors, %zu warnings: refused\n", o->file, d->errors, d->warnings);
}

static bool group_known(const char *group, void *arg)
{
	(void)arg;
	return getgrnam(group) != NULL;
}

static int check(int argc, char **argv)
{
	struct options o;
	struct loaded l;
	int rc = EXIT_REFUSED;

	if (read_options(argc, argv, "jsg", &o) != 0)
		return usage();
	if (load(o.file, o.geoip, NULL, &l) == 0) {
		if (l.image != NULL) {
			policy_expect(l.tree, l.image, &l.diagnostics);
			policy_find(l.tree, l.image, clock_wall_us() / 1000000, &l.diagnostics);
			policy_find_groups(l.tree, l.image, group_known, NULL, &l.diagnostics);
		}
		bool fine = l.image != NULL && l.diagnostics.errors == 0 && !(o.strict && l.diagnostics.warnings > 0);

		print_result(&o, &l, fine);
		rc = fine ? EXIT_FINE : EXIT_REFUSED;
	}
	loaded_clear(&l);
	return rc;
}

/* The rules that no expectation is decided by; a monitor rule decides nothing. */
static void print_coverage(const struct options *o, const struct loaded *l, const bool *reached)
{
	size_t n = policy_rule_count(l->image), covered = 0, monitors = 0;

	for (size_t i = 0; reached != NULL && i < n; i++) {
		bool monitor = policy_rule_monitors(l->image, (uint32_t)i);

		covered += reached[i];
		monitors += monitor;
		if (!reached[i] && !monitor)
			printf("%s: no expectation reaches rule %s\n", o->file,
			       policy_rule_name(l->image, (uint32_t)i));
	}
	printf("%s: expectations reach %zu of %zu rules\n", o->file, covered, n - monitors);
}

static int test(int argc, char **argv)
{
	struct options o;
	struct loaded l;
	int rc = EXIT_REFUSED;

	if (read_options(argc, argv, "", &o) != 0)
		return usage();
	if (load(o.file, NULL, NULL, &l) == 0) {
		size_t before = l.diagnostics.errors;

		if (l.image != NULL) {
			bool *reached = calloc(policy_rule_count(l.image) + 1, sizeof reached[0]);
			size_t total = policy_expect_reached(l.tree, l.image, reached, &l.diagnostics);
			size_t failed = l.diagnostics.errors - before;

			print_diagnostics(&l.diagnostics);
			print_coverage(&o, &l, reached);
			free(reached);
			printf("%s: %zu expectations, %zu failed\n", o.file, total, failed);
			rc = failed == 0 ? EXIT_FINE : EXIT_REFUSED;
		} else {
			print_diagnostics(&l.diagnostics);
		}
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
	if (load(o.file, NULL, NULL, &l) == 0) {
		if (l.diagnostics.errors == 0) {
			char *text = policy_print(l.tree);

			fputs(text, stdout);
			free(text);
			rc = EXIT_FINE;
		} else {
			print_diagnostics(&l.diagnostics);
		}
	}
	loaded_clear(&l);
	return rc;
}

/* ---- explain -------------------------------------------------------------------------------------------------------
 */

/* The request on the command line, as text; words of the language are read by the policy library itself. */
struct question {
	const char *policy, *geoip, *asn, *at, *target;
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
	static const char *const methods[] = {"none", "password", "gssapi", "socks4", NULL};
	struct policy_request *r = &q->request;
	char *end;
	int index;

	switch (c) {
	case 'P':
		q->policy = value;
		return 0;
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
		{"policy", required_argument, NULL, 'P'},   {"user", required_argument, NULL, 'u'},
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
	optind = 1;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		if (take_option(q, c, optarg) != 0)
			return -1;
	if (optind + 1 != argc || q->policy == NULL)
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

static int answer(const struct question *q, const struct loaded *l)
{
	struct policy_context ctx = {.image = l->image, .geo = l->geo, .asn = l->asn, .now = clock_wall_us() / 1000000};
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
	fputs(text, stdout);
	free(text);
	if (d.verdict == POLICY_RESOLVE && !q->json)
		printf("(what its addresses bring is told with --resolves ADDRESS)\n");
	return d.verdict == POLICY_DENY ? EXIT_REFUSED : EXIT_FINE;
}

static int explain(int argc, char **argv)
{
	struct question *q = calloc(1, sizeof *q);
	struct loaded l;
	int rc = EXIT_REFUSED;

	if (q == NULL || read_question(argc, argv, q) != 0) {
		free(q);
		return usage();
	}
	if (load(q->policy, q->geoip, q->asn, &l) == 0) {
		if (l.image != NULL)
			rc = answer(q, &l);
		else
			print_diagnostics(&l.diagnostics);
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
	size_t count;

	b.image = after->image;
	if (at != NULL && policy_instant_parse(after->image, at, &a.now, &why) != 0) {
		fprintf(stderr, "gatewayctl: --at: %s\n", why.text);
		return EXIT_USAGE;
	}
	b.now = a.now;
	char *text = policy_diff(&a, &b, json, &count);

	if (text == NULL)
		return EXIT_REFUSED;
	fputs(text, stdout);
	free(text);
	if (!json)
		printf("%zu differences found\n", count);
	return count == 0 ? EXIT_FINE : EXIT_REFUSED;
}

/* Ends with 0 if nothing differs and 1 if something does, as diff(1). */
static int diff(int argc, char **argv)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, 'j'}, {"at", required_argument, NULL, 'a'}, {NULL, 0, NULL, 0}};
	struct loaded before, after = {0};
	const char *at = NULL;
	bool json = false;
	int c, rc = EXIT_USAGE;

	optind = 1;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == '?')
			return usage();
		json |= c == 'j';
		if (c == 'a')
			at = optarg;
	}
	if (optind + 2 != argc)
		return usage();
	if (load(argv[optind], NULL, NULL, &before) == 0 && load(argv[optind + 1], NULL, NULL, &after) == 0) {
		if (before.image != NULL && after.image != NULL) {
			rc = compare(at, json, &before, &after);
		} else {
			print_diagnostics(&before.diagnostics);
			print_diagnostics(&after.diagnostics);
		}
	}
	loaded_clear(&before);
	loaded_clear(&after);
	return rc;
}

int admin_policy(int argc, char **argv)
{
	static const struct {
		const char *word;
		int (*run)(int argc, char **argv);
	} verbs[] = {{"check", check}, {"fmt", fmt}, {"test", test}, {"diff", diff}, {"explain", explain}};

	for (size_t i = 0; argc >= 2 && i < sizeof verbs / sizeof verbs[0]; i++)
		if (strcmp(argv[1], verbs[i].word) == 0)
			return verbs[i].run(argc - 1, argv + 1);
	return usage();
}
