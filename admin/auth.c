#include "config.h"

#include <getopt.h>
#include <inttypes.h>
#include <libsmartcols.h>
#include <stdio.h>
#include <string.h>

#include "admin/admin.h"
#include "admin/client.h"
#include "admin/format.h"
#include "admin/options.h"

static const char usage[] =
	"usage: gatewayctl auth list [--json]\n"
	"       gatewayctl auth unlock [--client ADDRESS|PREFIX] [--user USER]\n"
	"       gatewayctl auth forget USER | --all\n"
	"\n"
	"list     shows who must wait after failed log-ins, and for how long\n"
	"unlock   forgives the failures of a client, of a user, or of a user from a\n"
	"         client; without either, of all\n"
	"forget   asks PAM again at the user's next log-in, instead of remembering\n";

struct words {
	const char *verb, *user, *client, *format;
	bool all;
};

static int parse(int argc, char **argv, struct words *w)
{
	bool json = false;

	*w = (struct words){.format = "table"};
	const struct admin_option options[] = {
		{"client", NULL, &w->client}, {"user", NULL, &w->user}, {"format", NULL, &w->format}, {"all", &w->all, NULL}, {"json", &json, NULL}, {0}};
	int code = admin_options(argc, argv, usage, options);

	if (code >= 0)
		return code;
	if (json)
		w->format = "json";
	w->verb = optind < argc ? argv[optind++] : "";
	bool list = strcmp(w->verb, "list") == 0, forget = strcmp(w->verb, "forget") == 0, unlock = strcmp(w->verb, "unlock") == 0;

	if (forget && optind < argc && w->user == NULL)
		w->user = argv[optind++];
	if (optind < argc || !(list || forget || unlock) || (list && (w->user != NULL || w->client != NULL)) ||
	    (forget && (w->client != NULL || (w->user == NULL) != w->all)) || (w->all && !forget) ||
	    (strcmp(w->format, "table") != 0 && strcmp(w->format, "json") != 0))
		return admin_misused(usage);
	return -1;
}

static void print_table(const json_t *reply)
{
	static const char *const titles[] = {"CLIENT", "USER", "FAILURES", "WAITS"};
	struct libscols_table *table = scols_new_table();
	const json_t *row;
	size_t i;

	for (i = 0; table != NULL && i < sizeof titles / sizeof *titles; i++)
		scols_table_new_column(table, titles[i], 0, i >= 2 ? SCOLS_FL_RIGHT : 0);
	json_array_foreach(json_object_get(reply, "throttled"), i, row) {
		struct libscols_line *line = table == NULL ? NULL : scols_table_new_line(table, NULL);
		char text[FORMAT_TEXT_MAX], safe[1200];

		if (line == NULL)
			break;
		scols_line_set_data(line, 0, format_safe(format_member(row, "client", text), safe, sizeof safe));
		const char *user = format_member(row, "user", text);

		scols_line_set_data(line, 1, user[0] == '\0' ? "(all)" : format_safe(user, safe, sizeof safe));
		scols_line_set_data(line, 2, format_member(row, "failures", text));
		int64_t wait_ms = format_number(row, "wait_ms");

		scols_line_set_data(line, 3, wait_ms == 0 ? "-" : format_duration(wait_ms * 1000, text));
	}
	if (table != NULL && json_array_size(json_object_get(reply, "throttled")) > 0)
		scols_print_table(table);
	scols_unref_table(table);
	if (format_number(reply, "left_off") > 0)
		printf("... and %" PRId64 " more\n", format_number(reply, "left_off"));
	const int64_t remembered = format_number(reply, "remembered");

	printf("%" PRId64 " log-in%s remembered\n", remembered, remembered == 1 ? " is" : "s are");
}

static void print(const struct words *w, json_t *reply)
{
	if (strcmp(w->format, "json") == 0) {
		json_object_del(reply, "ok");
		json_dumpf(reply, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_ENSURE_ASCII);
		putchar('\n');
	} else if (strcmp(w->verb, "list") == 0) {
		print_table(reply);
	} else if (strcmp(w->verb, "unlock") == 0) {
		printf("%" PRId64 " records of failed log-ins are forgiven\n", format_number(reply, "unlocked"));
	} else {
		printf("%" PRId64 " log-ins are forgotten\n", format_number(reply, "forgotten"));
	}
}

int admin_auth(int argc, char **argv)
{
	struct words w;
	int code = parse(argc, argv, &w);

	if (code >= 0)
		return code;
	json_t *request = json_pack("{s:s, s:s, s:s*, s:s*}", "command", "auth", "verb", w.verb, "user", w.user, "clients", w.client);
	json_t *reply;

	if (request == NULL)
		return admin_fail(ADMIN_USAGE, "a user name or address is no UTF-8 text");
	reply = client_ask(request, NULL, &code);
	if (reply == NULL)
		return code;
	print(&w, reply);
	json_decref(reply);
	return ADMIN_FINE;
}
