#include "config.h"

#include "admin/policy_help.h"

#include <stddef.h>
#include <string.h>

#define CHANGE_OPTIONS                                                                                                 \
	"  --dry-run         all but the change; show which live sessions would end\n"                                 \
	"  --strict          warnings refuse it\n"                                                                     \
	"  --if-revision N   only if this revision is in force\n"                                                       \
	"  --comment TEXT    why, for the log of revisions\n"                                                          \
	"  --yes             live sessions that it refuses may end; else you are asked\n"                          \
	"  --max-ended N     at most so many of them may end\n"                                                        \
	"  --confirm TIME    such as 5m: undone unless `gatewayctl policy confirm` comes\n"                            \
	"  --json            the result as a JSON object\n"

static const struct {
	const char *verb, *text;
} helps[] = {
	{"check",
	 "usage: gatewayctl policy check FILE [OPTION ...]\n"
	 "\n"
	 "Finds all errors of a policy in one run, runs its expectations, and warns of\n"
	 "what is sound but hardly meant.  No gateway is asked.\n"
	 "FILE may be - for standard input.\n"
	 "\n"
	 "  --strict          a warning refuses it too\n"
	 "  --geoip DB        a database of countries\n"
	 "  --groups FILE     groups that are known, as in group(5); else this machine's\n"
	 "  --json            the result as a JSON object\n"},
	{"fmt",
	 "usage: gatewayctl policy fmt FILE\n"
	 "\n"
	 "Prints a policy in canonical form, on standard output.  The meaning stays; so\n"
	 "do remarks.\n"},
	{"test",
	 "usage: gatewayctl policy test FILE [--json]\n"
	 "\n"
	 "Runs the expectations of a policy, and tells which rules none of them is decided\n"
	 "by.\n"},
	{"diff",
	 "usage: gatewayctl policy diff [--json] [--at \"YYYY-MM-DD HH:MM\"] OLD NEW\n"
	 "\n"
	 "Tells what two policies decide differently: one request for each pair of rules\n"
	 "that do.  A number is a revision of the gateway's store, anything else a file.\n"
	 "Exit code 1 if something differs.\n"
	 "\n"
	 "  --at TIME         decide at this time, not now\n"
	 "  --json            the differences as JSON\n"},
	{"explain",
	 "usage: gatewayctl policy explain [OPTION ...] NAME-OR-ADDRESS\n"
	 "\n"
	 "Tells what a policy says to one request and why, rule by rule.  Without --policy\n"
	 "or --revision it is the one in force.  Exit code 1 if it is denied.\n"
	 "\n"
	 "  --policy FILE, --revision N\n"
	 "  --user U, --group G ..., --claimed-user U, --client ADDRESS\n"
	 "  --listener NAME\n"
	 "  --command connect|bind|udp, --port N (443)\n"
	 "  --method none|password|gssapi|gssapi-integrity|gssapi-confidentiality|socks4\n"
	 "  --at \"YYYY-MM-DD HH:MM\"      on the policy's clock\n"
	 "  --resolves ADDRESS ..., --alias NAME ...    what the name leads to\n"
	 "  --geoip DB, --asn DB         countries and autonomous systems\n"
	 "  --json                       the same as a JSON object\n"},
	{"apply",
	 "usage: gatewayctl policy apply FILE|- [OPTION ...]\n"
	 "\n"
	 "Puts a policy into force, as a new revision.  The file, and those that it names,\n"
	 "are read with your rights; it is checked, tested by its expectations, stored,\n"
	 "and taken by all workers at once.  If anything fails, nothing changes.  Where\n"
	 "changes need approval, it takes effect when another administrator gives that.\n"
	 "`gatewayctl policy impact FILE` tells before what it would have decided\n"
	 "otherwise in the last days.\n"
	 "\n" CHANGE_OPTIONS},
	{"rollback",
	 "usage: gatewayctl policy rollback N [OPTION ...]\n"
	 "\n"
	 "Puts revision N into force again, as a new revision.\n"
	 "\n" CHANGE_OPTIONS},
	{"confirm",
	 "usage: gatewayctl policy confirm [--json] [N]\n"
	 "\n"
	 "Keeps a revision that was applied with --confirm: without this, what was before\n"
	 "returns.\n"},
	{"pending",
	 "usage: gatewayctl policy pending [--json]\n"
	 "\n"
	 "Lists the revisions that wait for a second administrator's approval, where\n"
	 "changes need one (policy-approval in gatewayd.conf): who proposed them, when, in\n"
	 "whose place, and when they expire.  `policy show`, `diff` and `impact` take\n"
	 "their numbers.\n"},
	{"approve",
	 "usage: gatewayctl policy approve N [OPTION ...]\n"
	 "\n"
	 "Puts revision N, which another administrator has proposed, into force.  It is\n"
	 "checked, compiled and tried against the live sessions anew.  Not if it is your\n"
	 "own, has expired, or another revision took effect since it was proposed.\n"
	 "\n"
	 "  --dry-run         all but the change; show which live sessions would end\n"
	 "  --strict          warnings refuse it\n"
	 "  --comment TEXT    why, for the log of revisions\n"
	 "  --yes             live sessions that it refuses may end; else you are asked\n"
	 "  --max-ended N     at most so many of them may end\n"
	 "  --confirm TIME    such as 5m: on trial, whether or not it was proposed so\n"
	 "  --json            the result as a JSON object\n"},
	{"reject",
	 "usage: gatewayctl policy reject N --reason TEXT [--json]\n"
	 "\n"
	 "Revision N, which waits for approval, never takes effect.  Its author withdraws\n"
	 "it in this way.\n"},
	{"log",
	 "usage: gatewayctl policy log [--limit N] [--json]\n"
	 "\n"
	 "Lists the revisions, newest first: when, by whom, from where and why.  The one\n"
	 "in force is starred.\n"
	 "\n"
	 "  --limit N         at most so many\n"
	 "  --json            as a JSON array\n"},
	{"show",
	 "usage: gatewayctl policy show [--json] [N]\n"
	 "\n"
	 "Shows the text of a revision, what is known of it and what its checks said;\n"
	 "without N, of the one in force.\n"},
	{"export",
	 "usage: gatewayctl policy export [-o DIR] [N]\n"
	 "\n"
	 "Writes the text of a revision to standard output, or it and the files that it\n"
	 "names into a directory.  Without N, of the one in force.\n"
	 "No file is written over.\n"},
};

const char *policy_help(const char *verb)
{
	for (size_t i = 0; i < sizeof helps / sizeof *helps; i++)
		if (strcmp(helps[i].verb, verb) == 0)
			return helps[i].text;
	return NULL;
}
