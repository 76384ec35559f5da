/* Flags and the choice of a role, nothing else. */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "gatewayd/check.h"
#include "gatewayd/child.h"
#include "gatewayd/conf.h"
#include "gatewayd/supervisor/supervisor.h"

#define DEFAULT_CONFIG "/etc/gatewayd/gatewayd.conf"

static const char usage[] =
	"usage: gatewayd [-n] [-c FILE]\n"
	"  -c FILE  configuration (default " DEFAULT_CONFIG ")\n"
	"  -n       check configuration and policy, and exit\n"
	"  -V       version\n"
	"  -h       this help\n"
	"gatewayd stays in the foreground; SIGTERM or Ctrl-C ends it, SIGHUP reloads the policy.\n";

/* The whole file as text; exits with a clear line if that cannot be. */
static char *read_config(const char *file)
{
	FILE *fp = fopen(file, "re");
	char *text = malloc(CONFIG_FILE_MAX + 1);
	size_t len;

	if (fp == NULL || text == NULL) {
		log_error("cannot read the configuration %s: %s", file, strerror(errno));
		exit(EXIT_CONFIG);
	}
	len = fread(text, 1, CONFIG_FILE_MAX + 1, fp);
	if (ferror(fp) || len > CONFIG_FILE_MAX || memchr(text, '\0', len) != NULL) {
		log_error("the configuration %s is no text file of at most %d bytes", file, CONFIG_FILE_MAX);
		exit(EXIT_CONFIG);
	}
	fclose(fp);
	text[len] = '\0';
	return text;
}

static const struct config *load_config(const char *file, char **text)
{
	char *errors, *rest, *line;
	const struct config *config;

	*text = read_config(file);
	config = config_parse(file, *text, &errors);
	if (config != NULL)
		return config;
	for (line = errors; line != NULL; line = rest) {
		rest = strchr(line, '\n');
		if (rest != NULL)
			*rest++ = '\0';
		log_error("%s", line);
	}
	exit(EXIT_CONFIG);
}

/* The supervisor execs this binary again for each role: --role=NAME --slot=N, with descriptors that only it can set up. */
static int run_role(const char *name, const char *slot)
{
	enum role role = role_parse(name);

	if (role == ROLE_COUNT || role == ROLE_SUPERVISOR || slot == NULL) {
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	return child_main(role, (uint16_t)strtoul(slot, NULL, 10));
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"role", required_argument, NULL, 'r'}, {"slot", required_argument, NULL, 's'}, {"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},    {NULL, 0, NULL, 0},
	};
	const char *file = DEFAULT_CONFIG, *role = NULL, *slot = NULL;
	bool check_only = false;
	char path[PATH_MAX];
	static char *text; /* lives, like the configuration, as long as the process */
	static const struct config *config;
	int c;

	while ((c = getopt_long(argc, argv, "c:nVh", options, NULL)) != -1)
		switch (c) {
		case 'c':
			file = optarg;
			break;
		case 'n':
			check_only = true;
			break;
		case 'r':
			role = optarg;
			break;
		case 's':
			slot = optarg;
			break;
		case 'V':
			puts("gatewayd " PACKAGE_VERSION);
			return 0;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			fputs(usage, stderr);
			return EXIT_USAGE;
		}
	if (role != NULL)
		return run_role(role, slot);
	if (optind != argc) {
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	clock_init();
	log_init("supervisor", LOG_INFO);
	prctl(PR_SET_NAME, "gatewayd");
	config = load_config(realpath(file, path) == NULL ? file : path, &text);

	log_init("supervisor", config->log_level);
	return check_only ? check_all(config) : supervisor_main(config, text);
}
