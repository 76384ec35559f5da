/* gatewayctl drain and gatewayctl log: the gateway as a whole. */
#include "config.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "admin/admin.h"
#include "admin/client.h"
#include "admin/format.h"
#include "admin/options.h"

/* ---- drain -------------------------------------------------------------------------------------------------------------- */

static const char drain_usage[] =
	"usage: gatewayctl drain [--undo] [--wait] [--json]\n"
	"\n"
	"Takes no new connections: clients are refused, and go elsewhere.  Sessions that\n"
	"live go on; says how many remain.  A start of the gateway takes connections\n"
	"again.\n"
	"\n"
	"  --undo  take connections again\n"
	"  --wait  until none remains; ended early, nothing else changes\n"
	"  --json  as one JSON object\n";

struct drain {
	bool undo, wait, json;
};

static int parse_drain(int argc, char **argv, struct drain *d)
{
	const struct admin_option options[] = {
		{"undo", &d->undo, NULL}, {"wait", &d->wait, NULL}, {"json", &d->json, NULL}, {NULL, NULL, NULL}};
	int code;

	*d = (struct drain){0};
	code = admin_options(argc, argv, drain_usage, options);
	if (code < 0 && (optind < argc || (d->undo && d->wait)))
		return admin_misused(drain_usage);
	return code;
}

struct remaining {
	int64_t sessions; /* that live; -1: nobody could say */
	int64_t silent;   /* workers that have not told theirs */
};

static struct remaining remaining(int *code)
{
	json_t *reply = client_ask(json_pack("{s:s}", "command", "status"), NULL, code);
	const json_t *status = json_object_get(reply, "status");
	struct remaining r = {-1, 0};

	if (reply != NULL)
		r = (struct remaining){format_number(json_object_get(status, "workers"), "sessions"),
				       format_number(status, "silent_workers")};
	json_decref(reply);
	return r;
}

static void print_remaining(const struct drain *d, const struct remaining *r)
{
	const char *verb = d->undo ? (r->sessions == 1 ? "lives" : "live") : r->sessions == 1 ? "remains" : "remain";

	if (d->json && r->silent > 0)
		printf("{\"draining\":%s,\"sessions\":%" PRId64 ",\"silent_workers\":%" PRId64 "}\n", d->undo ? "false" : "true",
		       r->sessions, r->silent);
	else if (d->json)
		printf("{\"draining\":%s,\"sessions\":%" PRId64 "}\n", d->undo ? "false" : "true", r->sessions);
	else
		printf("new connections are %s; %" PRId64 " session%s %s%s\n", d->undo ? "taken again" : "not taken any more",
		       r->sessions, r->sessions == 1 ? "" : "s", verb, r->silent > 0 ? ", besides those of workers that do not answer" : "");
}

/* A worker that does not answer may have sessions: only of all of them is none none. */
static int report(const struct drain *d)
{
	bool shows = d->wait && isatty(STDERR_FILENO);
	int code;
	struct remaining r = remaining(&code);

	while (d->wait && r.sessions >= 0 && (r.sessions > 0 || r.silent > 0)) {
		if (shows)
			fprintf(stderr, "\r%" PRId64 " sessions remain%s   ", r.sessions,
				r.silent > 0 ? ", a worker does not answer" : "");
		sleep(1);
		r = remaining(&code);
	}
	if (shows)
		fputc('\n', stderr);
	if (r.sessions < 0)
		return code;
	print_remaining(d, &r);
	return ADMIN_FINE;
}

int admin_drain(int argc, char **argv)
{
	struct drain d;
	int code = parse_drain(argc, argv, &d);
	json_t *reply;

	if (code >= 0)
		return code;
	reply = client_ask(json_pack("{s:s, s:b}", "command", "drain", "undo", (int)d.undo), NULL, &code);
	if (reply == NULL)
		return code;
	json_decref(reply);
	return report(&d);
}

/* ---- log ---------------------------------------------------------------------------------------------------------------- */

static const char log_usage[] =
	"usage: gatewayctl log level [error|warning|info|debug] [--json]\n"
	"\n"
	"Shows how much is logged, or changes it for all processes until the gateway\n"
	"starts again.\n"
	"\n"
	"  --json  the level as a JSON object\n";

static void print_level(const char *before, const char *level, const char *behind, bool json)
{
	char safe[64];

	format_safe(level, safe, sizeof safe);
	if (json)
		printf("{\"level\":\"%s\"}\n", safe);
	else
		printf("%s%s%s\n", before, safe, behind);
}

static int show_level(bool json)
{
	char buf[FORMAT_TEXT_MAX];
	int code;
	json_t *reply = client_ask(json_pack("{s:s}", "command", "status"), NULL, &code);

	if (reply == NULL)
		return code;
	print_level("", format_member(json_object_get(reply, "status"), "log_level", buf), "", json);
	json_decref(reply);
	return ADMIN_FINE;
}

static int set_level(const char *level, bool json)
{
	int code;
	json_t *reply = client_ask(json_pack("{s:s, s:s}", "command", "log-level", "level", level), NULL, &code);

	if (reply == NULL)
		return code;
	json_decref(reply);
	print_level("from now on, ", level, " and worse is logged", json);
	return ADMIN_FINE;
}

int admin_log(int argc, char **argv)
{
	bool json = false;
	const struct admin_option options[] = {{"json", &json, NULL}, {NULL, NULL, NULL}};
	int code = admin_options(argc, argv, log_usage, options);

	if (code >= 0)
		return code;
	argc -= optind;
	argv += optind;
	if (argc < 1 || argc > 2 || strcmp(argv[0], "level") != 0)
		return admin_misused(log_usage);
	return argc == 1 ? show_level(json) : set_level(argv[1], json);
}
