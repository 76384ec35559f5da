/* The options of a noun that has few: long ones, each a flag or a text, and --help. */
#pragma once

#include <stdbool.h>

struct admin_option {
	const char *name;
	bool *flag;	   /* set by it; or */
	const char **text; /* its argument */
};

/* Reads them, up to ADMIN_OPTIONS_MAX; options ends with an empty one.  -1: go on, with what is no option from argv[optind] on; else the
 * exit code, and the usage has been shown. */
#define ADMIN_OPTIONS_MAX 8
int admin_options(int argc, char **argv, const char *usage, const struct admin_option *options);
/* The usage, on standard error; ADMIN_USAGE. */
int admin_misused(const char *usage);
/* The same for a noun whose verb, argv[1], is none of its own or is missing. */
int admin_no_verb(const char *usage, int argc, char **argv);
