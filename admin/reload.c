#include "config.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>

#include "admin/admin.h"
#include "admin/client.h"
#include "admin/format.h"

static const char usage[] = "usage: gatewayctl reload [--force]\n"
			    "\n"
			    "Reads the configured policy file again, checks and compiles it, and puts it into force.\n"
			    "A bad policy changes nothing.\n"
			    "\n"
			    "  --force   also when the active revision did not come from that file\n";

static int parse(int argc, char **argv, bool *force)
{
	static const struct option options[] = {
		{"force", no_argument, NULL, 'f'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	int c;

	*force = false;
	optind = 0;
	while ((c = getopt_long(argc, argv, "+h", options, NULL)) != -1)
		switch (c) {
		case 'f':
			*force = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return ADMIN_FINE;
		default:
			fputs(usage, stderr);
			return ADMIN_USAGE;
		}
	if (optind < argc) {
		fputs(usage, stderr);
		return ADMIN_USAGE;
	}
	return -1;
}

int admin_reload(int argc, char **argv)
{
	bool force;
	int code = parse(argc, argv, &force);

	if (code >= 0)
		return code;
	json_t *reply = client_ask(json_pack("{s:s, s:b}", "command", "reload", "force", (int)force), NULL, &code);
	const json_t *line;
	size_t i;

	if (reply == NULL)
		return code;
	json_array_foreach(json_object_get(reply, "warnings"), i, line) if (json_is_string(line))
		format_lines(stderr, json_string_value(line));
	printf("policy revision %" PRId64 " is active\n", format_number(reply, "revision"));
	json_decref(reply);
	return ADMIN_FINE;
}
