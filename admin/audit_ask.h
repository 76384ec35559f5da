/* One question to the audit: to a running gatewayd, or to a directory that is read here; both give the same lines
 * (schema/audit_answer.h). */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* One line of the answer, borrowed: -1 go on, otherwise an exit code. */
typedef int audit_take(const json_t *line, void *arg);

struct audit_question {
	json_t *request;  /* the caller's */
	const char *dir;  /* NULL: a running gatewayd */
	const char *purpose; /* what the audit is to say of it; NULL: nothing but who asked */
	bool quiet;	  /* no progress, even where standard error is a terminal */
	audit_take *take; /* called for all lines but progress and end */
	void *arg;
};

struct audit_end {
	int64_t rows, newest; /* rows that matched; the id of the newest row of all */
	bool came, more;      /* rows were cut at the limit */
};

/* An exit code, after a line on standard error if it is not 0.  Progress is shown when it takes more than a second.  An interrupt
 * ends it between two lines: what has been taken is whole, and the code is ADMIN_REFUSED. */
int audit_ask(const struct audit_question *q, struct audit_end *end);
