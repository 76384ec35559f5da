/* gatewayctl audit verify: reads the store itself, with the auditor's key; gatewayd never sees that. */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "admin/admin.h"
#include "admin/audit.h"
#include "admin/audit_proofs.h"
#include "admin/format.h"
#include "admin/progress.h"
#include "common/clock.h"
#include "schema/audit_json.h"
#include "schema/audit_verify.h"

/* Until then nobody wonders. */
#define PROGRESS_AFTER_US 1000000

static const char usage[] =
	"usage: gatewayctl audit verify --key FILE [OPTION ...]\n"
	"\n"
	"Reads the whole audit and says whether it is what was recorded.\n"
	"Exit code 1 if not.\n"
	"\n"
	"  --key FILE      the first key, as the first start wrote it (first.key); may be\n"
	"                  repeated if a new chain was begun\n"
	"  --dir DIR       where the audit lies (default " ADMIN_AUDIT_DIR ")\n"
	"  --anchor FILE   lines that hold anchors, a log say; may be repeated\n"
	"  --json          findings and summary as JSON lines\n";

struct job {
	const char *dir;
	bool json, show_progress;
	struct audit_proofs proofs;
	int64_t began_us;
	bool progress_shown;
	int64_t progress_us;
};

/* ---- what is said --------------------------------------------------------------------------------------------------
 */

static void clear_progress(struct job *job)
{
	if (job->progress_shown)
		fputs("\r\033[K", stderr);
	job->progress_shown = false;
}

static void on_finding(const char *text, void *arg)
{
	struct job *job = arg;
	char safe[2400];

	clear_progress(job);
	format_safe(text, safe, sizeof safe);
	if (job->json) {
		json_t *line = json_pack("{s:s}", "finding", safe);

		json_dumpf(line, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
		putchar('\n');
		json_decref(line);
	} else {
		printf("%s\n", safe);
	}
}

static void on_pruned(const char *text, void *arg)
{
	struct job *job = arg;
	char safe[700];

	if (job->json)
		return;
	clear_progress(job);
	format_safe(text, safe, sizeof safe);
	printf("pruned: %s\n", safe);
}

static bool on_progress(uint64_t rows, uint64_t of, void *arg)
{
	struct job *job = arg;
	int64_t now = clock_mono_us();

	if (!job->show_progress || now - job->began_us < PROGRESS_AFTER_US || now - job->progress_us < 100000)
		return !progress_interrupted();
	job->progress_us = now;
	job->progress_shown = true;
	fprintf(stderr, "\r%" PRIu64 " of about %" PRIu64 " rows (%u %%)\033[K", rows, of < rows ? rows : of,
		of == 0 || rows > of ? 100 : (unsigned)(100 * rows / of));
	fflush(stderr);
	return !progress_interrupted();
}

static void say_summary(const struct job *job, const struct audit_verified *v)
{
	char first[AUDIT_TIME_TEXT_MAX], last[AUDIT_TIME_TEXT_MAX], mac[2 * AUDIT_MAC_BYTES + 1];

	audit_time_text(v->first_us, first);
	audit_time_text(v->last_us, last);
	sodium_bin2hex(mac, sizeof mac, v->head.mac, AUDIT_MAC_BYTES);
	if (job->json) {
		json_t *line = json_pack("{s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:s, s:s}", "sound",
					 v->findings == 0, "findings", (json_int_t)v->findings, "segments",
					 (json_int_t)v->segments, "rows", (json_int_t)v->rows, "entries",
					 (json_int_t)v->entries, "epoch", (json_int_t)v->head.epoch, "anchors",
					 (json_int_t)v->anchors, "pruned", (json_int_t)v->pruned, "pruned_segments",
					 (json_int_t)v->pruned_segments, "orders", (json_int_t)v->orders, "first",
					 first, "last", last, "head", mac);

		json_dumpf(line, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
		putchar('\n');
		json_decref(line);
		return;
	}
	printf("%" PRIu64 " rows in %" PRIu64 " segments, %" PRIu64 " entries of the chain up to epoch %" PRIu64
	       ", %s to %s\n",
	       v->rows, v->segments, v->entries, v->head.epoch, first, last);
	if (v->pruned > 0 || v->pruned_segments > 0)
		printf("%" PRIu64 " rows are pruned, as the audit declares; segments up to %" PRIu64
		       " as a whole; %" PRIu64 " orders to prune are told of above\n",
		       v->pruned, v->pruned_segments, v->orders);
	if (job->proofs.nanchors > 0)
		printf("%" PRIu64 " of %zu anchors fit, %" PRIu64 " are of segments that are pruned\n", v->anchors,
		       job->proofs.nanchors, v->pruned_anchors);
	if (v->findings == 0)
		printf("The audit is what was recorded.\n");
	else
		printf("The audit is NOT what was recorded: %" PRIu64
		       " findings, the first break is the first line above.\n",
		       v->findings);
}

/* ---- what is read --------------------------------------------------------------------------------------------------
 */

/* An exit code, or -1 to go on.  Files are named relative to where we were started: they are read before we enter the
 * audit. */
static int parse(struct job *job, int argc, char **argv)
{
	static const struct option options[] = {
		{"key", required_argument, NULL, 'k'},	  {"dir", required_argument, NULL, 'd'},
		{"anchor", required_argument, NULL, 'a'}, {"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},	  {NULL, 0, NULL, 0},
	};
	const char **anchors = calloc((size_t)argc + 1, sizeof *anchors);
	size_t nfiles = 0;
	int c, code = anchors == NULL ? admin_fail(ADMIN_REFUSED, "out of memory") : -1;

	optind = 0;
	while (code < 0 && (c = getopt_long(argc, argv, "+h", options, NULL)) != -1)
		switch (c) {
		case 'k':
			code = audit_proofs_add_key(&job->proofs, optarg);
			break;
		case 'd':
			job->dir = optarg;
			break;
		case 'a':
			anchors[nfiles++] = optarg;
			break;
		case 'j':
			job->json = true;
			break;
		case 'h':
			fputs(usage, stdout);
			code = ADMIN_FINE;
			break;
		default:
			fputs(usage, stderr);
			code = ADMIN_USAGE;
		}
	if (code < 0 && optind < argc)
		code = admin_fail(ADMIN_USAGE, "\"%s\" is one word too many; see gatewayctl audit verify --help",
				  argv[optind]);
	if (code < 0 && job->proofs.nchains == 0)
		code = admin_fail(ADMIN_USAGE,
				  "--key FILE is missing: the first key of the audit, which the auditor keeps");
	for (size_t i = 0; code < 0 && i < nfiles; i++)
		code = audit_proofs_add_anchors(&job->proofs, anchors[i]);
	free(anchors);
	return code;
}

static int verify(struct job *job)
{
	struct audit_verify_options options = {
		.finding = on_finding,
		.pruned = on_pruned,
		.progress = on_progress,
		.arg = job,
	};
	struct audit_verified v;
	struct err why;

	audit_proofs_apply(&job->proofs, &options);
	if (chdir(job->dir) != 0)
		return admin_fail(ADMIN_REFUSED, "cannot enter %s: %s", job->dir, strerror(errno));
	progress_watch();
	int rc = audit_verify(&options, &v, &why);

	clear_progress(job);
	progress_unwatch();
	progress_guard(NULL);
	if (rc != 0 && progress_interrupted())
		return admin_fail(ADMIN_REFUSED, "interrupted: the audit was not read to its end");
	if (rc != 0)
		return admin_fail(ADMIN_REFUSED, "%s: %s", job->dir, why.text);
	say_summary(job, &v);
	return v.findings == 0 ? ADMIN_FINE : ADMIN_REFUSED;
}

int admin_audit_verify(int argc, char **argv)
{
	struct job job = {.dir = ADMIN_AUDIT_DIR, .began_us = clock_mono_us(), .show_progress = isatty(STDERR_FILENO)};
	int code;

	/* Keys and anchors may come from where they take long to come. */
	progress_guard("interrupted: the audit was not read");
	code = parse(&job, argc, argv);
	if (code < 0)
		code = verify(&job);
	progress_guard(NULL);
	audit_proofs_clear(&job.proofs);
	sodium_memzero(&job, sizeof job);
	return code;
}
