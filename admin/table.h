/* A list of objects, for people as a table, for programs as JSON. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct table_column {
	const char *head, *member;
	int flags; /* SCOLS_FL_ of libsmartcols */
};

/* Prints them and lets go of them.  What could mislead at a terminal is escaped. */
void table_list(json_t *objects, const struct table_column *columns, size_t n, bool json);
