/* gatewayctl: reads the noun and hands the rest to its file. */
#include "config.h"

#include <getopt.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "admin/admin.h"
#include "admin/client.h"
#include "admin/complete.h"
#include "admin/format.h"
#include "admin/policy.h"
#include "common/clock.h"
#include "policy/words.h"

static const struct noun {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
} nouns[] = {
	{"status", admin_status, "processes, policy, sessions and the health of the audit"},
	{"reload", admin_reload, "put the configured policy file into force"},
	{"policy", admin_policy, "check a policy, explain a decision, put one into force, undo it"},
	{"rule", admin_rule, "list, add, move, replace, remove, enable and disable rules"},
	{"set", admin_set, "show and change its sets: values that rules name together"},
	{"window", admin_window, "show and change its windows: times that rules name"},
	{"session", admin_session, "the sessions that live: list, show, end, block"},
	{"top", admin_top, "the same on a whole screen, with rates, denials and rules"},
	{"drain", admin_drain, "take no new connections, and say what remains; undo that"},
	{"log", admin_log, "show and change how much is logged"},
	{"auth", admin_auth, "who must wait after failed log-ins; unlock, forget log-ins"},
	{"audit", admin_audit, "ask who reached what, when, and by which rule"},
};

static void usage(FILE *out)
{
	fputs("usage: gatewayctl [--socket PATH] NOUN ...\n\n", out);
	for (size_t i = 0; i < sizeof nouns / sizeof *nouns; i++)
		fprintf(out, "  %-8s %s\n", nouns[i].name, nouns[i].help);
	fputs("\ngatewayctl NOUN --help says more.\n"
	      "Exit codes: 0 fine, 1 refused, 2 usage, 3 gatewayd is unreachable.\n"
	      "The control socket is --socket, else $GATEWAYD_SOCKET, else\n" CLIENT_SOCKET_DEFAULT ".\n",
	      out);
}

static int run(int argc, char **argv)
{
	if (strcmp(argv[0], "complete") == 0)
		return admin_complete(argc, argv, run);
	for (size_t i = 0; i < sizeof nouns / sizeof *nouns; i++)
		if (strcmp(nouns[i].name, argv[0]) == 0)
			return nouns[i].run(argc, argv);
	usage(stderr);
	for (size_t i = 0; i < sizeof nouns / sizeof *nouns; i++)
		if (words_similar(nouns[i].name, argv[0]))
			return admin_fail(ADMIN_USAGE, "there is no noun \"%s\"; did you mean %s?", argv[0], nouns[i].name);
	return admin_fail(ADMIN_USAGE, "there is no noun \"%s\"", argv[0]);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"socket", required_argument, NULL, 's'},
						{"help", no_argument, NULL, 'h'},
						{"version", no_argument, NULL, 'V'},
						{NULL, 0, NULL, 0}};
	int c, code;

	setlocale(LC_TIME, "");
	signal(SIGPIPE, SIG_DFL); /* gatewayctl ... | head ends quietly */
	clock_init();
	/* getopt(3) repeats what it does not know as it is. */
	for (int i = 1; i < argc; i++)
		if (!format_is_plain(argv[i]))
			opterr = 0;
	while ((c = getopt_long(argc, argv, "+h", options, NULL)) != -1)
		switch (c) {
		case 's':
			client_set_socket(optarg);
			break;
		case 'h':
			usage(stdout);
			return ADMIN_FINE;
		case 'V':
			puts("gatewayctl " PACKAGE_VERSION);
			return ADMIN_FINE;
		default:
			usage(stderr);
			return ADMIN_USAGE;
		}
	if (optind == argc) {
		usage(stderr);
		return ADMIN_USAGE;
	}
	code = run(argc - optind, argv + optind);
	if (fflush(stdout) != 0 || ferror(stdout))
		return admin_fail(ADMIN_REFUSED, "cannot write all of the output");
	return code;
}
