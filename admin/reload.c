#include "config.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>

#include "admin/admin.h"
#include "admin/client.h"
#include "admin/format.h"
#include "admin/options.h"
#include "admin/revision.h"

static const char usage[] =
	"usage: gatewayctl reload [--force] [--strict] [--json]\n"
	"\n"
	"Reads the configured policy file again, checks and compiles it, and puts it into\n"
	"force, or proposes it where changes need a second administrator's approval.\n"
	"A bad policy changes nothing.\n"
	"\n"
	"  --force   also when the active revision did not come from that file\n"
	"  --strict  refuse a policy that has warnings\n"
	"  --json    the answer as one JSON object\n";

int admin_reload(int argc, char **argv)
{
	bool force = false, strict = false, json = false;
	int code = admin_options(argc, argv, usage, (struct admin_option[]){{"force", &force, NULL}, {"strict", &strict, NULL}, {"json", &json, NULL}, {0}});

	if (code >= 0)
		return code;
	if (optind < argc)
		return admin_misused(usage);
	json_t *reply = client_order(json_pack("{s:s, s:b, s:b}", "command", "reload", "force", (int)force, "strict", (int)strict), -1,
				     NULL, &code);

	if (reply == NULL)
		return code;
	if (!json)
		client_show_notes(reply);
	code = json_is_true(json_object_get(reply, "ok")) ? ADMIN_FINE : ADMIN_REFUSED;
	if (json) {
		json_dumpf(reply, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
		putchar('\n');
	} else if (code == ADMIN_FINE) {
		revision_tell(reply);
	} else {
		client_show_refusal(reply);
	}
	json_decref(reply);
	return code;
}
