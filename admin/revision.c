#include "config.h"

#include "admin/revision.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <libsmartcols.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "admin/admin.h"
#include "admin/client.h"
#include "admin/format.h"
#include "admin/progress.h"
#include "admin/impact.h"
#include "admin/policy_load.h"

#define COMMENT_MAX 1023
#define CONFIRM_MAX_S (24 * 3600)

static const char usage_text[] =
	"usage: gatewayctl policy apply FILE|- [--dry-run] [--strict] [--if-revision N] [--comment TEXT] [--yes | --max-ended N]\n"
	"           [--confirm TIME] [--json]\n"
	"       gatewayctl policy rollback N [--dry-run] [--strict] [--if-revision N] [--comment TEXT] [--yes | --max-ended N]\n"
	"           [--confirm TIME] [--json]\n"
	"       gatewayctl policy confirm [--json] [N]\n"
	"       gatewayctl policy log [--limit N] [--json]\n"
	"       gatewayctl policy show [--json] [N]\n"
	"       gatewayctl policy export [-o DIR] [N]\n";

static int usage(void)
{
	fputs(usage_text, stderr);
	return ADMIN_USAGE;
}

struct options {
	struct revision_options change;
	bool json;
	uint32_t limit;
	const char *directory, *word;
};

/* "30s", "5m", "2h": up to a day. */
static bool read_time(const char *text, uint32_t *seconds)
{
	size_t digits = strspn(text, "0123456789");
	unsigned unit = text[digits] == 's' ? 1 : text[digits] == 'm' ? 60 : text[digits] == 'h' ? 3600 : 0;

	if (digits == 0 || digits > 5 || unit == 0 || text[digits + 1] != '\0')
		return false;
	*seconds = (uint32_t)strtoul(text, NULL, 10) * unit;
	return *seconds > 0 && *seconds <= CONFIRM_MAX_S;
}

bool revision_option(struct revision_options *o, int c)
{
	switch (c) {
	case 'j':
		o->json = true;
		return true;
	case 's':
		o->strict = true;
		return true;
	case 'd':
		o->dry_run = true;
		return true;
	case 'i':
		o->has_if = true;
		return revision_number(optarg, &o->if_revision);
	case 'c':
		o->comment = optarg;
		return strlen(optarg) <= COMMENT_MAX;
	case 'y':
		o->yes = true;
		return !o->has_max;
	case 'm':
		o->has_max = true;
		return revision_number(optarg, &o->max_ended) && !o->yes;
	case 'k':
		return read_time(optarg, &o->confirm_s);
	default:
		return false;
	}
}

static bool take(struct options *o, int c)
{
	switch (c) {
	case 'l':
		return revision_number(optarg, &o->limit);
	case 'o':
		o->directory = optarg;
		return true;
	default:
		o->json |= c == 'j';
		return revision_option(&o->change, c);
	}
}

/* allowed: letters of take().  words: how many stand besides, at least and at most. */
static int read_options(int argc, char **argv, const char *allowed, int at_least, struct options *o)
{
	static const struct option options[] = {REVISION_OPTIONS,
						{"limit", required_argument, NULL, 'l'},
						{"output", required_argument, NULL, 'o'},
						{NULL, 0, NULL, 0}};
	int c;

	*o = (struct options){0};
	optind = 0;
	while ((c = getopt_long(argc, argv, "o:", options, NULL)) != -1)
		if (c == '?' || strchr(allowed, c) == NULL || !take(o, c))
			return -1;
	if (argc - optind < at_least || argc - optind > 1)
		return -1;
	o->word = optind < argc ? argv[optind] : NULL;
	return 0;
}

/* ---- putting into force -------------------------------------------------------------------------------------------------
 */

/* NULL: the comment cannot be sent. */
static json_t *order(const char *command, const struct revision_options *o)
{
	json_t *request = json_pack("{s:s, s:b, s:b}", "command", command, "strict", (int)o->strict, "dry_run", (int)o->dry_run);

	if (o->has_if)
		json_object_set_new(request, "if_revision", json_integer(o->if_revision));
	json_object_set_new(request, "yes", json_boolean(o->yes));
	json_object_set_new(request, "confirm_s", json_integer(o->confirm_s));
	json_object_set_new(request, "max_ended", json_integer(o->max_ended));
	if (o->comment != NULL && json_object_set_new(request, "comment", json_string(o->comment)) != 0) {
		json_decref(request);
		return NULL;
	}
	return request;
}

static void print_json(json_t *value)
{
	json_dumpf(value, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
	putchar('\n');
}

/* ---- sessions that would end ---- */

static void add_session(struct libscols_table *table, const json_t *session)
{
	static const char *const keys[] = {"user", "client", "command", "destination", "rule"};
	struct libscols_line *line = scols_table_new_line(table, NULL);
	char buf[FORMAT_TEXT_MAX], safe[1100], text[1200];

	for (size_t c = 0; c < sizeof keys / sizeof *keys; c++) {
		const char *said = format_safe(format_member(session, keys[c], buf), safe, sizeof safe);

		if (strcmp(keys[c], "destination") == 0)
			snprintf(text, sizeof text, "%s port %" PRId64, said, format_number(session, "port"));
		else
			snprintf(text, sizeof text, "%s", *said == '\0' ? "-" : said);
		scols_line_set_data(line, c, text);
	}
}

static void print_sessions(const json_t *reply, FILE *out)
{
	static const char *const heads[] = {"USER", "CLIENT", "COMMAND", "DESTINATION", "REFUSED BY"};
	const json_t *sessions = json_object_get(reply, "sessions"), *session;
	int64_t more = format_number(reply, "ended") - (int64_t)json_array_size(sessions);
	struct libscols_table *table = json_array_size(sessions) == 0 ? NULL : scols_new_table();
	size_t i;

	if (table == NULL)
		return;
	fputs("live sessions that would end:\n", out);
	scols_table_set_stream(table, out);
	scols_table_enable_noencoding(table, 1); /* cells are safe already */
	for (size_t c = 0; c < sizeof heads / sizeof *heads; c++)
		scols_table_new_column(table, heads[c], 0.1, 0);
	json_array_foreach(sessions, i, session) add_session(table, session);
	scols_print_table(table);
	scols_unref_table(table);
	if (more > 0)
		fprintf(out, "and %" PRId64 " more\n", more);
}

/* As many as a request holds. */
static json_t *first_notes(const struct policy_diagnostics *d)
{
	json_t *notes = diagnostics_json(d);

	while (json_array_size(notes) > 20)
		json_array_remove(notes, json_array_size(notes) - 1);
	return notes;
}

/* True if whoever sits at the terminal says so. */
static bool is_agreed(int64_t ended)
{
	char answer[16];

	fprintf(stderr, "End %" PRId64 " live sessions? [y/N] ", ended);
	fflush(stderr);
	return fgets(answer, sizeof answer, stdin) != NULL && (strcmp(answer, "y\n") == 0 || strcmp(answer, "yes\n") == 0);
}

/* Whoever waits for it. */
static const char carried_out[] = "interrupted: it is ordered, and gatewayd carries it out all the same: see gatewayctl policy log";

/* The reply to an order.  Who can be asked is asked before sessions end: then it is ordered again, for the revision that was in
 * force and for so many sessions as were shown.  here: what was found on this machine, for the gateway to keep; NULL.  given: -1, or what goes
 * along. */
static json_t *put_order(const char *command, uint32_t revision, const struct revision_options *given_options,
			 const struct policy_diagnostics *here, int given, int *code)
{
	struct revision_options o = *given_options;
	bool can_ask = !o.yes && !o.has_max && !o.json && !o.dry_run && isatty(STDIN_FILENO) && isatty(STDERR_FILENO);
	json_t *request, *reply;

	for (;;) {
		request = order(command, &o);
		if (request == NULL) {
			*code = admin_fail(ADMIN_USAGE, "--comment: the text is no UTF-8");
			return NULL;
		}
		if (revision > 0)
			json_object_set_new(request, "revision", json_integer(revision));
		if (here != NULL)
			json_object_set_new(request, "found", first_notes(here));
		progress_show("gatewayd compiles the policy");
		reply = client_order(request, given, o.dry_run ? NULL : carried_out, code);
		progress_hide();
		if (reply == NULL || !can_ask || json_is_true(json_object_get(reply, "ok")) ||
		    !json_is_true(json_object_get(reply, "ends_too_many")))
			return reply;
		int64_t ended = format_number(reply, "ended"), active = format_number(reply, "revision");

		print_sessions(reply, stderr);
		if (ended > UINT32_MAX || !is_agreed(ended)) {
			json_object_del(reply, "sessions"); /* they have been shown */
			return reply;
		}
		o.max_ended = (uint32_t)ended;
		o.has_if = true;
		o.if_revision = (uint32_t)active;
		json_decref(reply);
	}
}

void revision_tell(const json_t *reply)
{
	int64_t revision = format_number(reply, "revision"), pending = format_number(reply, "pending");

	if (pending > 0)
		printf("policy revision %" PRId64 " waits for approval; revision %" PRId64 " stays active\n"
		       "another administrator puts it into force: gatewayctl policy approve %" PRId64 "\n",
		       pending, revision, pending);
	else
		printf("policy revision %" PRId64 " is active%s\n", revision,
		       format_number(reply, "confirm_s") > 0
			       ? " on trial: what was before returns unless `gatewayctl policy confirm` comes in time"
			       : "");
}

/* What became, or would become, of sessions that live. */
static void tell_ended(const json_t *reply, const struct revision_options *o)
{
	int64_t ended = format_number(reply, "ended");
	bool only_would = o->dry_run || json_object_get(reply, "pending") != NULL;

	if (only_would && json_object_get(reply, "sessions") != NULL) {
		print_sessions(reply, stdout);
		printf("%" PRId64 " live sessions would end\n", ended);
	} else if (ended > 0) {
		printf("%" PRId64 " live sessions end\n", ended);
	}
}

/* Tells what the gateway said to an order (taken over). */
static int finish(json_t *reply, const struct revision_options *o)
{
	bool ok = json_is_true(json_object_get(reply, "ok"));

	int64_t revision = format_number(reply, "revision"), warnings = format_number(reply, "warnings");

	if (o->json)
		print_json(reply);
	else
		client_show_notes(reply);
	if (!ok && !o->json) {
		if (json_is_true(json_object_get(reply, "ends_too_many")))
			print_sessions(reply, stderr);
		client_show_refusal(reply);
		if (json_is_true(json_object_get(reply, "ends_too_many")) && !o->has_max)
			admin_fail(0, "nothing was changed; --yes ends them, --max-ended N takes so many, --dry-run shows them");
	} else if (!o->json && o->dry_run)
		printf("it could be %s, with %" PRId64 " warnings; nothing was changed, revision %" PRId64 " is active\n",
		       json_is_true(json_object_get(reply, "needs_approval")) ? "proposed" : "applied", warnings, revision);
	else if (!o->json)
		revision_tell(reply);
	if (ok && !o->json)
		tell_ended(reply, o);
	json_decref(reply);
	return ok ? ADMIN_FINE : ADMIN_REFUSED;
}

/* What is found here, in the form of what the gateway says. */
static int refuse_here(const struct revision_options *o, const char *why, const struct policy_diagnostics *a,
		       const struct policy_diagnostics *b)
{
	json_t *notes = diagnostics_json(a), *more = diagnostics_json(b);

	json_array_extend(notes, more);
	json_decref(more);
	if (o->json) {
		json_t *reply = json_pack("{s:b, s:s, s:I, s:I, s:o}", "ok", 0, "error", why, "errors",
					  (json_int_t)(a->errors + b->errors), "warnings",
					  (json_int_t)(a->warnings + b->warnings), "diagnostics", notes);

		print_json(reply);
		json_decref(reply);
		return ADMIN_REFUSED;
	}
	json_decref(notes);
	print_diagnostics(a, stderr);
	print_diagnostics(b, stderr);
	return admin_fail(ADMIN_REFUSED, "refused: %s", why);
}

static int put(struct gathered *g, const struct revision_options *o, struct policy_diagnostics *groups)
{
	json_t *head, *reply;
	struct err why;
	int fd, code;

	if (g->diagnostics.errors > 0)
		return refuse_here(o, "the policy is not usable", &g->diagnostics, groups);
	head = client_ask(json_pack("{s:s}", "command", "policy-head"), NULL, &code);
	if (head == NULL)
		return code;
	/* Groups are those of this machine, unless the gateway was given a file of its own. */
	if (!json_is_true(json_object_get(head, "groups_file")))
		policy_find_groups(g->tree, group_is_known, NULL, groups);
	json_decref(head);
	if (o->strict && g->diagnostics.warnings + groups->warnings > 0)
		return refuse_here(o, "the policy has warnings, and --strict refuses those", &g->diagnostics, groups);
	fd = bundle_seal(&(struct bundle){g->files, g->count}, &why);
	if (fd < 0)
		return admin_fail(ADMIN_REFUSED, "%s", why.text);
	reply = put_order("policy-apply", 0, o, groups, fd, &code);
	close(fd);
	if (reply == NULL)
		return code;
	code = finish(reply, o);
	if (code == ADMIN_FINE && o->dry_run && !o->json)
		impact_preview(&(struct bundle){g->files, g->count});
	return code;
}

int revision_put(struct gathered *g, const struct revision_options *o)
{
	struct policy_diagnostics groups = {0};
	int code = put(g, o, &groups);

	policy_diagnostics_free(&groups);
	return code;
}

int revision_apply(int argc, char **argv)
{
	struct options o;
	struct gathered *g;
	int code;

	if (read_options(argc, argv, REVISION_LETTERS, 1, &o) != 0)
		return usage();
	g = gather(o.word);
	if (g == NULL)
		return ADMIN_REFUSED;
	code = revision_put(g, &o.change);
	gathered_free(&g);
	return code;
}

int revision_order(const char *command, uint32_t revision, const struct revision_options *o)
{
	int code;
	json_t *reply = put_order(command, revision, o, NULL, -1, &code);

	return reply == NULL ? code : finish(reply, o);
}

int revision_rollback(int argc, char **argv)
{
	struct options o;
	uint32_t id;

	if (read_options(argc, argv, REVISION_LETTERS, 1, &o) != 0 || !revision_number(o.word, &id) || id == 0)
		return usage();
	return revision_order("policy-rollback", id, &o.change);
}

int revision_confirm(int argc, char **argv)
{
	struct options o;
	json_t *request, *reply;
	uint32_t id = 0;
	int code;

	if (read_options(argc, argv, "j", 0, &o) != 0 || (o.word != NULL && !revision_number(o.word, &id)))
		return usage();
	request = json_pack("{s:s}", "command", "policy-confirm");
	if (o.word != NULL)
		json_object_set_new(request, "revision", json_integer(id));
	reply = client_ask(request, NULL, &code);
	if (reply == NULL)
		return code;
	if (o.json)
		print_json(reply);
	else
		printf("policy revision %" PRId64 " is confirmed\n", format_number(reply, "revision"));
	json_decref(reply);
	return ADMIN_FINE;
}

/* ---- looking ------------------------------------------------------------------------------------------------------------
 */

const char *revision_author(const json_t *description, char *out, size_t size)
{
	int64_t uid = format_number(description, "author_uid");
	char buf[FORMAT_TEXT_MAX];
	const char *said = format_member(description, "author", buf);
	const struct passwd *pw = strncmp(said, "uid ", 4) == 0 ? getpwuid((uid_t)uid) : NULL;

	return format_safe(pw != NULL ? pw->pw_name : said, out, size);
}

const char *revision_moment(const json_t *description, const char *key, char *out, size_t size)
{
	time_t seconds = (time_t)(format_number(description, key) / 1000000);
	struct tm tm;

	out[0] = '\0';
	if (localtime_r(&seconds, &tm) != NULL)
		strftime(out, size, "%Y-%m-%d %H:%M:%S", &tm);
	return out;
}

/* What became of its proposal; "": it was none. */
static const char *approval_state(const json_t *revision, char buf[FORMAT_TEXT_MAX])
{
	return format_member(json_object_get(revision, "approval"), "state", buf);
}

/* One that was approved took effect then. */
static const char *moment(const json_t *revision, char out[FORMAT_TEXT_MAX])
{
	char buf[FORMAT_TEXT_MAX];
	bool approved = strcmp(approval_state(revision, buf), "approved") == 0;

	return revision_moment(approved ? json_object_get(revision, "approval") : revision, "time_us", out, FORMAT_TEXT_MAX);
}

static void size_text(const json_t *revision, char *out, size_t size)
{
	char text[FORMAT_TEXT_MAX], lists[FORMAT_TEXT_MAX];
	int64_t files = format_number(revision, "files");

	format_bytes((uint64_t)format_number(revision, "bytes"), text);
	format_bytes((uint64_t)format_number(revision, "files_bytes"), lists);
	if (files == 0)
		snprintf(out, size, "%s", text);
	else
		snprintf(out, size, "%s + %s in %" PRId64 " files", text, lists, files);
}

/* Where it came from, and what became of its proposal and its trial. */
static const char *origin(const json_t *revision, char *out, size_t size)
{
	const json_t *trial = json_object_get(revision, "trial"), *approval = json_object_get(revision, "approval");
	char buf[FORMAT_TEXT_MAX], state_buf[FORMAT_TEXT_MAX], said[FORMAT_TEXT_MAX], who[300], whole[600];
	const char *state = format_member(trial, "state", state_buf), *became = approval_state(revision, said);
	bool by_somebody = approval != NULL && strcmp(became, "pending") != 0 && strcmp(became, "expired") != 0 &&
			   strcmp(became, "outdated") != 0;

	snprintf(whole, sizeof whole, "%s%s%s%s%s%s", format_member(revision, "source", buf), approval == NULL ? "" : ", ", became,
		 by_somebody ? " by " : "", by_somebody ? revision_author(approval, who, sizeof who) : "",
		 trial == NULL			       ? ""
		 : strcmp(state, "confirmed") == 0     ? ", confirmed"
		 : strcmp(state, "pending") == 0       ? ", on trial"
						       : ", not confirmed");
	return format_safe(whole, out, size);
}

static void add_line(struct libscols_table *table, const json_t *revision)
{
	struct libscols_line *line = scols_table_new_line(table, NULL);
	char text[1100], buf[FORMAT_TEXT_MAX];

	snprintf(text, sizeof text, "%" PRId64 "%s", format_number(revision, "revision"),
		 json_is_true(json_object_get(revision, "active")) ? "*" : "");
	scols_line_set_data(line, 0, text);
	scols_line_set_data(line, 1, moment(revision, buf));
	scols_line_set_data(line, 2, revision_author(revision, text, sizeof text));
	scols_line_set_data(line, 3, origin(revision, text, sizeof text));
	size_text(revision, text, sizeof text);
	scols_line_set_data(line, 4, text);
	scols_line_set_data(line, 5, format_safe(format_member(revision, "comment", buf), text, sizeof text));
}

static void print_log(const json_t *revisions)
{
	static const char *const heads[] = {"REVISION", "APPLIED", "BY", "FROM", "SIZE", "COMMENT"};
	struct libscols_table *table = scols_new_table();
	const json_t *revision;
	size_t i;

	if (table == NULL)
		return;
	scols_table_enable_noencoding(table, 1); /* cells are safe already */
	for (size_t c = 0; c < sizeof heads / sizeof *heads; c++)
		scols_table_new_column(table, heads[c], 0.1, c == 0 ? SCOLS_FL_RIGHT : 0);
	json_array_foreach(revisions, i, revision) add_line(table, revision);
	scols_print_table(table);
	scols_unref_table(table);
}

json_t *revision_fetch_pending(json_t **last, int *code)
{
	json_t *all = json_array(), *page;
	json_int_t after = 0;
	bool more = true;

	while (more) {
		const json_t *rows;

		page = client_ask(json_pack("{s:s, s:I}", "command", "policy-pending", "after", after), NULL, code);
		if (page == NULL) {
			json_decref(all);
			return NULL;
		}
		rows = json_object_get(page, "revisions");
		more = json_is_true(json_object_get(page, "more")) && json_array_size(rows) > 0;
		json_array_extend(all, (json_t *)(uintptr_t)rows);
		after = format_number(json_array_get(all, json_array_size(all) - 1), "revision");
		if (!more && last != NULL)
			*last = json_incref(page);
		json_decref(page);
	}
	return all;
}

/* Page by page, newest first, until there are `limit` (0: all). */
json_t *revision_fetch_log(uint32_t limit, int *code)
{
	json_t *all = json_array();
	json_int_t before = 0;
	bool more = true;

	while (more && (limit == 0 || json_array_size(all) < limit)) {
		size_t left = limit == 0 ? 0 : limit - json_array_size(all);
		json_t *page = client_ask(json_pack("{s:s, s:I, s:I}", "command", "policy-log", "before", before, "limit",
						    (json_int_t)left),
					  NULL, code);
		const json_t *rows = json_object_get(page, "revisions");

		if (page == NULL) {
			json_decref(all);
			return NULL;
		}
		more = json_is_true(json_object_get(page, "more")) && json_array_size(rows) > 0;
		json_array_extend(all, (json_t *)(uintptr_t)rows);
		before = format_number(json_array_get(all, json_array_size(all) - 1), "revision");
		json_decref(page);
	}
	return all;
}

int revision_log(int argc, char **argv)
{
	struct options o;
	json_t *revisions;
	int code = ADMIN_FINE;

	if (read_options(argc, argv, "jl", 0, &o) != 0 || o.word != NULL)
		return usage();
	revisions = revision_fetch_log(o.limit, &code);
	if (revisions == NULL)
		return code;
	if (o.json)
		print_json(revisions);
	else
		print_log(revisions);
	json_decref(revisions);
	return ADMIN_FINE;
}

/* The revision that is asked for; 0 is the one in force. */
static int read_which(const struct options *o, uint32_t *id)
{
	*id = 0;
	return o->word == NULL || (revision_number(o->word, id) && *id > 0) ? 0 : -1;
}

/* What comes from a store may hold any bytes. */
static void print_text(const char *text, size_t len)
{
	for (size_t i = 0, n; i < len; i += n == 0 ? 1 : n) {
		n = format_shown(text + i, len - i);
		if (n > 0)
			fwrite(text + i, 1, n, stdout);
		else
			printf("\\x%02x", (unsigned char)text[i]);
	}
	if (len > 0 && text[len - 1] != '\n')
		putchar('\n');
}

static void show_approval(const json_t *approval)
{
	char state_buf[FORMAT_TEXT_MAX], when[FORMAT_TEXT_MAX], said[FORMAT_TEXT_MAX], who[300], comment[1100];
	const char *state = format_member(approval, "state", state_buf);

	if (approval == NULL)
		return;
	if (strcmp(state, "pending") == 0) {
		printf("# waits for approval until %s, to take the place of revision %" PRId64 "\n",
		       revision_moment(approval, "until_us", when, sizeof when), format_number(approval, "base"));
		return;
	}
	format_safe(format_member(approval, "comment", said), comment, sizeof comment);
	printf("# %s %s by %s%s%s\n", state, revision_moment(approval, "time_us", when, sizeof when),
	       revision_author(approval, who, sizeof who), *comment == '\0' ? "" : ": ", comment);
}

static void show_text(const struct fetched *f)
{
	const json_t *revision = json_object_get(f->reply, "revision");
	char text[1100], buf[FORMAT_TEXT_MAX];
	const char *checks = json_string_value(json_object_get(f->reply, "checks"));

	printf("# revision %" PRId64 "%s, %s %s by %s (%s)\n", format_number(revision, "revision"),
	       json_is_true(json_object_get(revision, "active")) ? " (active)" : "",
	       json_object_get(revision, "approval") == NULL ? "applied" : "proposed",
	       revision_moment(revision, "time_us", buf, sizeof buf), revision_author(revision, text, sizeof text),
	       json_string_value(json_object_get(revision, "source")));
	show_approval(json_object_get(revision, "approval"));
	if (*format_member(revision, "comment", buf) != '\0')
		printf("# %s\n", format_safe(format_member(revision, "comment", buf), text, sizeof text));
	for (size_t i = 1; i < f->bundle.count; i++)
		printf("# with %s, %zu bytes\n", format_safe(f->bundle.files[i].name, text, sizeof text), f->bundle.files[i].len);
	while (checks != NULL && *checks != '\0') {
		size_t len = strcspn(checks, "\n");

		snprintf(text, sizeof text, "%.*s", (int)(len < 512 ? len : 512), checks);
		printf("# %s\n", format_safe(text, (char[1100]){0}, 1100));
		checks += len + (checks[len] == '\n');
	}
	print_text(f->bundle.files[0].text, f->bundle.files[0].len);
}

static json_t *show_json(const struct fetched *f)
{
	json_t *root = json_deep_copy(json_object_get(f->reply, "revision")), *files = json_array();

	json_object_set(root, "checks", json_object_get(f->reply, "checks"));
	for (size_t i = 0; i < f->bundle.count; i++) {
		const struct bundle_file *file = &f->bundle.files[i];
		json_t *one = json_pack("{s:I}", "bytes", (json_int_t)file->len);

		json_object_set_new(one, "name", json_string(file->name));
		if (i == 0)
			json_object_set_new(one, "text", json_stringn(file->text, file->len));
		json_array_append_new(files, one);
	}
	json_object_set_new(root, "files", files);
	return root;
}

int revision_show(int argc, char **argv)
{
	struct options o;
	struct fetched f;
	uint32_t id;
	int code;

	if (read_options(argc, argv, "j", 0, &o) != 0 || read_which(&o, &id) != 0)
		return usage();
	code = fetch_revision(id, &f);
	if (code != ADMIN_FINE)
		return code;
	if (o.json) {
		json_t *root = show_json(&f);

		print_json(root);
		json_decref(root);
	} else {
		show_text(&f);
	}
	fetched_clear(&f);
	return ADMIN_FINE;
}

/* ---- export -------------------------------------------------------------------------------------------------------------
 */

/* The next part of a path into buf; what is left, or NULL if it is too long. */
static const char *next_part(const char *path, char buf[256])
{
	size_t len = strcspn(path, "/");

	if (len >= 256)
		return NULL;
	memcpy(buf, path, len);
	buf[len] = '\0';
	return path + len + strspn(path + len, "/");
}

/* True if a path stays below where it starts, whatever directories there are. */
static bool stays_inside(const char *path)
{
	char part[256];
	int depth = 0;

	if (*path == '/')
		return false;
	while (*path != '\0') {
		path = next_part(path, part);
		if (path == NULL)
			return false;
		if (strcmp(part, "..") == 0)
			depth--;
		else if (strcmp(part, ".") != 0)
			depth++;
		if (depth < 0)
			return false;
	}
	return depth > 0;
}

/* Opens a new file below a directory, making the directories on the way; follows no link.  -1 with errno. */
static int create_below(int root, const char *path)
{
	char part[256];
	int at = dup(root), next;

	while (at >= 0) {
		path = next_part(path, part);
		if (path == NULL) {
			close(at);
			errno = ENAMETOOLONG;
			return -1;
		}
		if (*path == '\0') {
			next = openat(at, part, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
			close(at);
			return next;
		}
		if (mkdirat(at, part, 0777) != 0 && errno != EEXIST) {
			close(at);
			return -1;
		}
		next = openat(at, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		close(at);
		at = next;
	}
	return -1;
}

static int write_file(int root, const char *name, const struct bundle_file *f)
{
	int fd = create_below(root, name);
	FILE *out = fd < 0 ? NULL : fdopen(fd, "w");

	if (out == NULL)
		return admin_fail(-1, "cannot make %s: %s", name, strerror(errno));
	size_t written = fwrite(f->text, 1, f->len, out);

	if (fclose(out) != 0 || written != f->len)
		return admin_fail(-1, "cannot write %s: %s", name, strerror(errno));
	return 0;
}

/* Files keep their names, so that the policy finds them again; a name that leads elsewhere gets a place here. */
static int export_file(int root, const struct bundle_file *f, size_t number)
{
	const char *slash = strrchr(f->name, '/'), *base = slash == NULL ? f->name : slash + 1;
	char name[300];

	if (stays_inside(f->name))
		return write_file(root, f->name, f);
	if (number == 0)
		return write_file(root, base, f);
	snprintf(name, sizeof name, "outside/%zu-%.200s", number, base);
	admin_fail(0, "%s lies outside of the policy's directory: what it held is in %s", f->name, name);
	return write_file(root, name, f);
}

static int export_to(const char *directory, const struct bundle *b)
{
	int root, rc = 0;

	if (mkdir(directory, 0777) != 0 && errno != EEXIST)
		return admin_fail(ADMIN_REFUSED, "cannot make the directory %s: %s", directory, strerror(errno));
	root = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		return admin_fail(ADMIN_REFUSED, "cannot open the directory %s: %s", directory, strerror(errno));
	for (size_t i = 0; i < b->count && rc == 0; i++)
		rc = export_file(root, &b->files[i], i);
	close(root);
	return rc == 0 ? ADMIN_FINE : ADMIN_REFUSED;
}

int revision_export(int argc, char **argv)
{
	struct options o;
	struct fetched f;
	uint32_t id;
	int code;

	if (read_options(argc, argv, "o", 0, &o) != 0 || read_which(&o, &id) != 0)
		return usage();
	code = fetch_revision(id, &f);
	if (code != ADMIN_FINE)
		return code;
	if (o.directory != NULL)
		code = export_to(o.directory, &f.bundle);
	else if (f.bundle.count > 1)
		code = admin_fail(ADMIN_REFUSED, "the policy names %zu files: -o DIR says where they and its text shall be",
				  f.bundle.count - 1);
	else if (fwrite(f.bundle.files[0].text, 1, f.bundle.files[0].len, stdout) != f.bundle.files[0].len)
		code = ADMIN_REFUSED;
	fetched_clear(&f);
	return code;
}
