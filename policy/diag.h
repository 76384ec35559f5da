/* Collecting errors and warnings with their places; every text that came from outside is made printable here. */
#pragma once

#include "policy/ast.h"

/* Bytes that diag_quote() needs at most. */
#define DIAG_QUOTE_MAX 200

void diag_add(struct policy_diagnostics *d, const struct policy_tree *t, enum policy_severity severity,
	      const char *code, const struct ast_place *at, const char *format, ...)
	__attribute__((format(printf, 6, 7)));
#define diag_error(d, t, code, at, ...) diag_add(d, t, POLICY_ERROR, code, at, __VA_ARGS__)
#define diag_warning(d, t, code, at, ...) diag_add(d, t, POLICY_WARNING, code, at, __VA_ARGS__)

/* Writes text with control bytes, invalid UTF-8 and direction marks as \xNN, shortened if long.  Returns buf. */
const char *diag_quote(const char *text, size_t len, char buf[DIAG_QUOTE_MAX]);
