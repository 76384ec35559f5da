#include "config.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>

#include "admin/admin.h"
#include "admin/client.h"
#include "admin/format.h"

static const char usage[] = "usage: gatewayctl reload [--force] [--strict]\n"
			    "\n"
			    "Reads the configured policy file again, checks and compiles it, and puts it into force.\n"
			    "A bad policy changes nothing.\n"
			    "\n"
			    "  --force   also when the active revision did not come from that file\n"
			    "  --strict  refuse a policy that has warnings\n";

struct options {
	bool force, strict;
};

static int parse(int argc, char **argv, struct options *o)
{
	static const struct option options[] = {
		{"force", no_argument, NULL, 'f'}, {"strict", no_argument, NULL, 's'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	int c;

	*o = (struct options){0};
	optind = 0;
	while ((c = getopt_long(argc, argv, "+h", options, NULL)) != -1)
		switch (c) {
		case 'f':
			o->force = true;
			break;
		case 's':
			o->strict = true;
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
	struct options o;
	int code = parse(argc, argv, &o);

	if (code >= 0)
		return code;
	json_t *reply = client_order(json_pack("{s:s, s:b, s:b}", "command", "reload", "force", (int)o.force, "strict",
					       (int)o.strict),
				     -1, &code);

	if (reply == NULL)
		return code;
	client_show_notes(reply);
	code = json_is_true(json_object_get(reply, "ok")) ? ADMIN_FINE : ADMIN_REFUSED;
	if (code == ADMIN_FINE)
		printf("policy revision %" PRId64 " is active\n", format_number(reply, "revision"));
	else
		client_show_refusal(reply);
	json_decref(reply);
	return code;
}
