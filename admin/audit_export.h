/* gatewayctl audit export: rows in a directory of their own, with a signed manifest; and how a receiver checks one. */
#pragma once

#include <jansson.h>

#include "admin/rows.h"

struct export_order {
	json_t *filter;
	enum rows_format format; /* ROWS_CSV or ROWS_JSON */
	const char *dir;	 /* the audit's; NULL: a running gatewayd */
	const char *output;	 /* a directory, to be made */
	const char *key;
	const char *columns; /* NULL: all */
};

/* An exit code. */
int audit_export(const struct export_order *o);
/* export --new-key, export --verify; argv[0] is "export". */
int audit_export_new_key(int argc, char **argv);
int audit_export_verify(int argc, char **argv);
