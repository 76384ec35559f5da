/* gatewayctl policy pending | approve | reject: where a change of the policy takes two administrators. */
#include "config.h"

#include <getopt.h>
#include <inttypes.h>
#include <libsmartcols.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/admin.h"
#include "admin/client.h"
#include "admin/format.h"
#include "admin/policy_load.h"
#include "admin/revision.h"

static const char usage_text[] =
	"usage: gatewayctl policy pending [--json]\n"
	"       gatewayctl policy approve N [--comment TEXT] [--yes | --max-ended N] [--confirm TIME] [--dry-run] [--strict] [--json]\n"
	"       gatewayctl policy reject N --reason TEXT [--json]\n";

static int usage(void)
{
	fputs(usage_text, stderr);
	return ADMIN_USAGE;
}

static void print_json(json_t *value)
{
	json_dumpf(value, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
	putchar('\n');
}

/* ---- pending ------------------------------------------------------------------------------------------------------------ */

static void add_line(struct libscols_table *table, const json_t *revision, int64_t active)
{
	const json_t *approval = json_object_get(revision, "approval");
	struct libscols_line *line = scols_table_new_line(table, NULL);
	char text[1100], buf[FORMAT_TEXT_MAX];

	snprintf(text, sizeof text, "%" PRId64, format_number(revision, "revision"));
	scols_line_set_data(line, 0, text);
	scols_line_set_data(line, 1, revision_moment(revision, "time_us", buf, sizeof buf));
	scols_line_set_data(line, 2, revision_author(revision, text, sizeof text));
	scols_line_set_data(line, 3, format_safe(format_member(revision, "source", buf), text, sizeof text));
	snprintf(text, sizeof text, "%" PRId64 "%s", format_number(approval, "base"),
		 format_number(approval, "base") == active ? "" : " (no longer active)");
	scols_line_set_data(line, 4, text);
	scols_line_set_data(line, 5, revision_moment(approval, "until_us", buf, sizeof buf));
	scols_line_set_data(line, 6, format_safe(format_member(revision, "comment", buf), text, sizeof text));
}

static void print_pending(const json_t *revisions, const json_t *reply)
{
	static const char *const heads[] = {"REVISION", "PROPOSED", "BY", "FROM", "IN PLACE OF", "EXPIRES", "COMMENT"};
	struct libscols_table *table = json_array_size(revisions) == 0 ? NULL : scols_new_table();
	const json_t *revision;
	size_t i;

	if (json_array_size(revisions) == 0)
		puts(json_is_true(json_object_get(reply, "required"))
			     ? "no revision waits for approval"
			     : "no revision waits for approval; changes need none here (policy-approval in gatewayd.conf)");
	if (table == NULL)
		return;
	scols_table_enable_noencoding(table, 1); /* cells are safe already */
	for (size_t c = 0; c < sizeof heads / sizeof *heads; c++)
		scols_table_new_column(table, heads[c], 0.1, c == 0 ? SCOLS_FL_RIGHT : 0);
	json_array_foreach(revisions, i, revision) add_line(table, revision, format_number(reply, "revision"));
	scols_print_table(table);
	scols_unref_table(table);
}

int revision_pending(int argc, char **argv)
{
	static const struct option options[] = {{"json", no_argument, NULL, 'j'}, {NULL, 0, NULL, 0}};
	json_t *revisions, *reply = NULL;
	bool json = false;
	int c, code = ADMIN_FINE;

	optind = 0;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c != 'j')
			return usage();
		json = true;
	}
	if (optind < argc)
		return usage();
	revisions = revision_fetch_pending(&reply, &code);
	if (revisions == NULL)
		return code;
	if (json)
		print_json(revisions);
	else
		print_pending(revisions, reply);
	json_decref(revisions);
	json_decref(reply);
	return ADMIN_FINE;
}

/* ---- approve, reject ---------------------------------------------------------------------------------------------------- */

int revision_approve(int argc, char **argv)
{
	static const struct option options[] = {REVISION_OPTIONS, {NULL, 0, NULL, 0}};
	struct revision_options o = {0};
	uint32_t id;
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		if (c == 'i' || !revision_option(&o, c))
			return usage();
	if (argc - optind != 1 || !revision_number(argv[optind], &id) || id == 0)
		return usage();
	return revision_order("policy-approve", id, &o);
}

int revision_reject(int argc, char **argv)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, 'j'}, {"reason", required_argument, NULL, 'r'}, {NULL, 0, NULL, 0}};
	const char *reason = NULL;
	bool json = false;
	json_t *request, *reply;
	char buf[FORMAT_TEXT_MAX];
	uint32_t id;
	int c, code;

	optind = 0;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c != 'j' && c != 'r')
			return usage();
		json |= c == 'j';
		if (c == 'r')
			reason = optarg;
	}
	if (argc - optind != 1 || !revision_number(argv[optind], &id) || id == 0 || reason == NULL)
		return usage();
	request = json_pack("{s:s, s:I}", "command", "policy-reject", "revision", (json_int_t)id);
	if (json_object_set_new(request, "reason", json_string(reason)) != 0) {
		json_decref(request);
		return admin_fail(ADMIN_USAGE, "the reason is no UTF-8");
	}
	reply = client_ask(request, NULL, &code);
	if (reply == NULL)
		return code;
	if (json)
		print_json(reply);
	else
		printf("policy revision %" PRId64 " is %s\n", format_number(reply, "revision"),
		       strcmp(format_member(reply, "state", buf), "withdrawn") == 0 ? "withdrawn" : "rejected");
	json_decref(reply);
	return ADMIN_FINE;
}
