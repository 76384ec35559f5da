#include "config.h"

#include "admin/options.h"

#include <assert.h>
#include <getopt.h>
#include <stdio.h>

#include "admin/admin.h"

#define OPTION_FIRST 256 /* beyond any character */

int admin_misused(const char *usage)
{
	fputs(usage, stderr);
	return ADMIN_USAGE;
}

int admin_no_verb(const char *usage, int argc, char **argv)
{
	fputs(usage, stderr);
	return argc < 2 ? ADMIN_USAGE : admin_fail(ADMIN_USAGE, "%s has no verb \"%s\"", argv[0], argv[1]);
}

int admin_options(int argc, char **argv, const char *usage, const struct admin_option *options)
{
	struct option table[ADMIN_OPTIONS_MAX + 2] = {{"help", no_argument, NULL, 'h'}};
	size_t n = 0;
	int c;

	for (; options[n].name != NULL; n++) {
		assert(n < ADMIN_OPTIONS_MAX);
		table[n + 1] = (struct option){options[n].name, options[n].flag == NULL ? required_argument : no_argument, NULL,
					       OPTION_FIRST + (int)n};
	}
	optind = 0;
	while ((c = getopt_long(argc, argv, "h", table, NULL)) != -1) {
		if (c == 'h') {
			fputs(usage, stdout);
			return ADMIN_FINE;
		}
		if (c < OPTION_FIRST)
			return admin_misused(usage);
		if (options[c - OPTION_FIRST].flag != NULL)
			*options[c - OPTION_FIRST].flag = true;
		else
			*options[c - OPTION_FIRST].text = optarg;
	}
	return -1;
}
