/* gatewayctl audit report: one page of a time, for the files. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libgen.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "admin/admin.h"
#include "admin/audit.h"
#include "admin/audit_ask.h"
#include "admin/audit_proofs.h"
#include "admin/format.h"
#include "admin/policy_load.h"
#include "admin/report.h"
#include "admin/revision.h"
#include "admin/times.h"
#include "common/clock.h"
#include "policy/ast.h"
#include "schema/audit_summary.h"
#include "schema/policy_store.h"

#define HOUR_US (3600 * INT64_C(1000000))
#define REVISIONS_MAX 1000
#define EXCEPTIONS_MAX 200
#define ANCHOR_FILES_MAX 64

static const char usage[] =
	"usage: gatewayctl audit report -o FILE [OPTION ...]\n"
	"\n"
	"Writes one page of HTML, for the files: whether the audit is what was recorded,\n"
	"sessions and bytes over time, who reached what, what was refused, changes of the\n"
	"policy, rules about to end, what administrators did.\n"
	"\n"
	"  -o, --output FILE  where to (-: standard output); mode 0600, replaced\n"
	"  --since TIME       from then (default 30d; see gatewayctl audit query --help)\n"
	"  --until TIME       before then (default: now)\n"
	"  --key FILE         the auditor's first key: the report says whether the audit\n"
	"                     is sound.  Reads --dir; may be repeated for a new chain\n"
	"  --anchor FILE      with --key: lines that hold anchors, a log say\n"
	"  --dir DIR          read the audit in DIR itself, and the policy beside it,\n"
	"                     without gatewayd (with --key alone, what is verified is in\n"
	"                     " ADMIN_AUDIT_DIR ")\n";

struct job {
	struct report report;
	const char *output, *dir;
	struct audit_proofs proofs;
	const char *anchors[ANCHOR_FILES_MAX];
	size_t nanchors;
};

/* ---- the audit ------------------------------------------------------------------------------------------------------
 */

static int take_part(const json_t *part, void *arg)
{
	struct report *r = arg;
	char buf[FORMAT_TEXT_MAX], of_buf[FORMAT_TEXT_MAX];
	const char *kind = format_member(part, "part", buf), *of = format_member(part, "of", of_buf);

	if (strcmp(kind, "totals") == 0 && r->totals == NULL)
		r->totals = json_deep_copy(part);
	else if (strcmp(kind, "series") == 0 && r->series == NULL)
		r->series = json_deep_copy(part);
	else if (strcmp(kind, "top") == 0)
		json_object_set_new(r->tops, of, json_deep_copy(part));
	else if (strcmp(kind, "list") == 0)
		json_object_set(r->more, of, json_object_get(part, "more"));
	else if (strcmp(kind, "row") == 0) {
		if (json_object_get(r->lists, of) == NULL)
			json_object_set_new(r->lists, of, json_array());
		json_array_append_new(json_object_get(r->lists, of), json_deep_copy(json_object_get(part, "row")));
	}
	return -1;
}

/* Steps that make some dozens of bars. */
static int64_t choose_step(int64_t span_us)
{
	static const int64_t hours[] = {1, 2, 6, 24, 7 * 24, 28 * 24};
	size_t i = 0;

	while (i + 1 < sizeof hours / sizeof *hours && span_us / (hours[i] * HOUR_US) > 100)
		i++;
	return hours[i] * HOUR_US;
}

static int gather_audit(struct job *job)
{
	struct report *r = &job->report;
	json_t *request = json_pack("{s:I, s:I, s:I}", "since_us", (json_int_t)r->since_us, "until_us", (json_int_t)r->until_us,
				    "report", (json_int_t)r->step_us);
	struct audit_question question = {.request = request, .dir = job->dir, .take = take_part, .arg = r};
	struct audit_end end;
	int code = audit_ask(&question, &end);

	json_decref(request);
	r->complete = code == ADMIN_FINE;
	/* Damage was told of; the rest is worth reporting, and says itself that it is not all. */
	if (end.came && r->totals != NULL && r->series != NULL)
		return ADMIN_FINE;
	return code != ADMIN_FINE ? code : admin_fail(ADMIN_REFUSED, "gatewayd cannot make reports; is it of the same version?");
}

/* ---- the policy -----------------------------------------------------------------------------------------------------
 */

static void add_exception(struct report *r, const struct policy_image *image, const struct ast_statement *rule,
			  const struct ast_clause *until)
{
	static const struct {
		const char *key;
		enum ast_clause_kind kind;
	} notes[] = {{"owner", AST_OWNER}, {"ticket", AST_TICKET}, {"comment", AST_COMMENT}};
	const struct ast_value *value = until->values.first;
	json_t *e = json_object();
	int64_t ends;
	struct err why;

	if (value == NULL || policy_instant_parse(image, value->text, &ends, &why) != 0) {
		json_decref(e);
		return;
	}
	/* A date includes its day. */
	ends = ends * 1000000 + (strlen(value->text) <= 10 ? 24 * HOUR_US : 0);
	json_object_set_new(e, "rule", json_string(rule->name == NULL ? "" : rule->name->text));
	json_object_set_new(e, "verdict", json_string(rule->monitor ? "monitor" : rule->allow ? "allow" : "deny"));
	json_object_set_new(e, "until", json_string(value->text));
	json_object_set_new(e, "ends_us", json_integer(ends));
	for (size_t i = 0; i < sizeof notes / sizeof *notes; i++) {
		const struct ast_clause *c = ast_clause_find(rule, notes[i].kind);

		if (c != NULL && c->values.first != NULL)
			json_object_set_new(e, notes[i].key, json_string(c->values.first->text));
	}
	size_t at = 0;

	while (at < json_array_size(r->exceptions) && format_number(json_array_get(r->exceptions, at), "ends_us") <= ends)
		at++;
	json_array_insert_new(r->exceptions, at, e);
}

static void find_exceptions(struct report *r, const struct loaded *l)
{
	r->exceptions = json_array();
	for (const struct ast_statement *s = l->tree->first; s != NULL; s = s->next) {
		const struct ast_clause *until = ast_is_rule(s) ? ast_clause_find(s, AST_UNTIL) : NULL;

		if (until != NULL && json_array_size(r->exceptions) < EXCEPTIONS_MAX)
			add_exception(r, l->image, s, until);
	}
}

static bool keep_revision(const struct policy_revision *rev, void *arg)
{
	json_t *e = json_pack("{s:I, s:I}", "revision", (json_int_t)rev->id, "time_us", (json_int_t)rev->time_us);

	json_object_set_new(e, "comment", json_string(rev->comment));
	json_array_append_new(arg, e);
	return true;
}

/* The store of policies lies beside the audit. */
static int stored_policy(struct job *job, struct loaded *l)
{
	struct report *r = &job->report;
	char path[4096];
	struct err why;
	struct policy_store *store;
	int code;

	audit_policy_path(job->dir, path, sizeof path);
	store = policy_store_open(path, true, &why);
	if (store == NULL)
		return admin_fail(ADMIN_REFUSED, "the report tells nothing of the policy: %s", why.text);
	r->revisions = json_array();
	policy_store_active(store, &r->active, &why);
	policy_store_list(store, 0, REVISIONS_MAX, keep_revision, r->revisions, &why);
	policy_store_close(&store);
	code = load_stored(path, r->active, l);
	return code;
}

static int live_policy(struct job *job, struct loaded *l)
{
	struct report *r = &job->report;
	const json_t *revision;
	size_t i;
	int code;

	r->revisions = revision_fetch_log(REVISIONS_MAX, &code);
	if (r->revisions == NULL)
		return code;
	json_array_foreach(r->revisions, i, revision) if (json_is_true(json_object_get(revision, "active"))) r->active =
		(uint32_t)format_number(revision, "revision");
	return load_revision(r->active, l);
}

/* Without it the rest is told all the same. */
static void gather_policy(struct job *job)
{
	struct loaded l = {0};
	int code = job->dir != NULL ? stored_policy(job, &l) : live_policy(job, &l);

	if (code == ADMIN_FINE && l.image != NULL && l.tree != NULL)
		find_exceptions(&job->report, &l);
	loaded_clear(&l);
}

/* ---- the page -------------------------------------------------------------------------------------------------------
 */

static int write_page(FILE *out, const char *page, size_t len, const char *path)
{
	bool fine = fwrite(page, 1, len, out) == len && fflush(out) == 0;

	fine = fine && (out == stdout || fsync(fileno(out)) == 0);
	if (out != stdout && fclose(out) != 0)
		fine = false;
	return fine ? ADMIN_FINE : admin_fail(ADMIN_REFUSED, "cannot write %s: %s", path, strerror(errno));
}

/* That the name stays, too. */
static int sync_directory(const char *path)
{
	char *copy = strdup(path);
	int fd, rc;

	if (copy == NULL)
		return -1;
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	rc = fd < 0 ? -1 : fsync(fd);
	free(copy);
	if (fd >= 0)
		close(fd);
	return rc;
}

/* Beside its place first, and on stable storage before it has its name, so that nobody files half a report. */
static int save(const char *path, const char *page, size_t len)
{
	char *aside = NULL;
	int fd, code;

	if (strcmp(path, "-") == 0)
		return write_page(stdout, page, len, "standard output");
	if (asprintf(&aside, "%s.XXXXXX", path) < 0)
		return admin_fail(ADMIN_REFUSED, "out of memory");
	fd = mkostemp(aside, O_CLOEXEC);
	FILE *out = fd < 0 ? NULL : fdopen(fd, "w");

	if (out == NULL) {
		code = admin_fail(ADMIN_REFUSED, "cannot make a file beside %s: %s", path, strerror(errno));
	} else {
		code = write_page(out, page, len, path);
		if (code == ADMIN_FINE && rename(aside, path) != 0)
			code = admin_fail(ADMIN_REFUSED, "cannot make %s: %s", path, strerror(errno));
		if (code != ADMIN_FINE)
			unlink(aside);
		else if (sync_directory(path) != 0)
			code = admin_fail(ADMIN_REFUSED, "cannot make sure that %s stays where it is: %s", path, strerror(errno));
	}
	free(aside);
	return code;
}

static int make(struct job *job)
{
	struct sigaction before;
	char *page = NULL;
	size_t len = 0;
	FILE *out;
	int code = gather_audit(job);

	if (code == ADMIN_FINE && job->proofs.nchains > 0)
		code = audit_integrity(&job->proofs, job->dir == NULL ? ADMIN_AUDIT_DIR : job->dir, &job->report);
	if (code != ADMIN_FINE)
		return code;
	gather_policy(job);
	out = open_memstream(&page, &len);
	if (out == NULL)
		return admin_fail(ADMIN_REFUSED, "out of memory");
	report_page(out, &job->report);
	if (ferror(out) != 0 || fclose(out) != 0)
		code = admin_fail(ADMIN_REFUSED, "out of memory");
	/* Made aside, and then in its place: no interrupt leaves the half of it. */
	sigaction(SIGINT, &(struct sigaction){.sa_handler = SIG_IGN}, &before);
	if (code == ADMIN_FINE)
		code = save(job->output, page, len);
	sigaction(SIGINT, &before, NULL);
	free(page);
	/* It is written all the same: what it says is what was found. */
	if (code == ADMIN_FINE && job->report.integrity == REPORT_BROKEN)
		code = admin_fail(ADMIN_REFUSED, "the audit is NOT what was recorded: the report says where it breaks");
	return code == ADMIN_FINE && !job->report.complete ? ADMIN_REFUSED : code;
}

static void introduce(struct report *r)
{
	const struct passwd *pw = getpwuid(getuid());

	if (gethostname(r->host, sizeof r->host - 1) != 0)
		strcpy(r->host, "gateway");
	if (pw == NULL)
		snprintf(r->maker, sizeof r->maker, "uid %u", (unsigned)getuid());
	else
		snprintf(r->maker, sizeof r->maker, "%s", pw->pw_name);
}

static int take_time(const char *option, bool end, int64_t *out)
{
	struct err why;

	return time_parse(optarg, clock_wall_us(), end, out, &why) == 0 ? -1
									: admin_fail(ADMIN_USAGE, "%s: %s", option, why.text);
}

/* An exit code, or -1 to go on. */
static int parse(struct job *job, int argc, char **argv)
{
	static const struct option options[] = {
		{"output", required_argument, NULL, 'o'}, {"since", required_argument, NULL, 's'},
		{"until", required_argument, NULL, 'u'},  {"key", required_argument, NULL, 'k'},
		{"anchor", required_argument, NULL, 'a'},
		{"dir", required_argument, NULL, 'd'},	  {"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	int c, code = -1;

	optind = 0;
	while (code < 0 && (c = getopt_long(argc, argv, "+ho:", options, NULL)) != -1)
		switch (c) {
		case 'o':
			job->output = optarg;
			break;
		case 's':
			code = take_time("--since", false, &job->report.since_us);
			break;
		case 'u':
			code = take_time("--until", true, &job->report.until_us);
			break;
		case 'k':
			code = audit_proofs_add_key(&job->proofs, optarg);
			break;
		case 'a':
			if (job->nanchors == ANCHOR_FILES_MAX)
				return admin_fail(ADMIN_USAGE, "--anchor: at most %d files", ANCHOR_FILES_MAX);
			job->anchors[job->nanchors++] = optarg;
			break;
		case 'd':
			job->dir = optarg;
			break;
		case 'h':
			fputs(usage, stdout);
			return ADMIN_FINE;
		default:
			fputs(usage, stderr);
			return ADMIN_USAGE;
		}
	if (code < 0 && optind < argc)
		code = admin_fail(ADMIN_USAGE, "\"%s\" is one word too many; see gatewayctl audit report --help", argv[optind]);
	if (code < 0 && job->output == NULL)
		code = admin_fail(ADMIN_USAGE, "-o FILE is missing: where the report is to be written");
	if (code < 0 && job->nanchors > 0 && job->proofs.nchains == 0)
		code = admin_fail(ADMIN_USAGE, "--anchor is for a report that verifies: --key FILE is missing");
	for (size_t i = 0; code < 0 && i < job->nanchors; i++)
		code = audit_proofs_add_anchors(&job->proofs, job->anchors[i]);
	if (code < 0 && job->report.until_us <= job->report.since_us)
		code = admin_fail(ADMIN_USAGE, "--until is not after --since");
	return code;
}

static void clear(struct report *r)
{
	json_decref(r->totals);
	json_decref(r->series);
	json_decref(r->tops);
	json_decref(r->lists);
	json_decref(r->more);
	json_decref(r->revisions);
	json_decref(r->exceptions);
	json_decref(r->findings);
}

int admin_audit_report(int argc, char **argv)
{
	int64_t now = clock_wall_us();
	struct job job = {.report = {.since_us = now - 30 * 24 * HOUR_US,
				     .until_us = now,
				     .made_us = now,
				     .source = "",
				     .tops = json_object(),
				     .lists = json_object(),
				     .more = json_object()}};
	int code = parse(&job, argc, argv);

	if (code < 0) {
		job.report.source = job.dir == NULL ? "" : job.dir;
		job.report.step_us = choose_step(job.report.until_us - job.report.since_us);
		introduce(&job.report);
		code = make(&job);
	}
	clear(&job.report);
	audit_proofs_clear(&job.proofs);
	return code;
}
