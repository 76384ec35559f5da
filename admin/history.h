/* What was asked of the policy in the past, out of the audit: each request once, with how often it came. */
#pragma once

#include <jansson.h>

#include "admin/past.h"

struct history {
	const char *dir;		/* of an audit that is read here; NULL: a running gatewayd is asked */
	const char *user, *group;	/* NULL: of everybody */
	int64_t since_us, until_us;	/* 0: open */
	const int64_t *edges;		/* ascending seconds: requests on two sides of one are told apart */
	size_t nedges;
	/* p is a request that can be decided again. */
	void (*take)(const struct past *p, uint64_t count, void *arg);
	void *arg;
	/* What could not be taken, in events. */
	uint64_t refused_names, undecided;
};

#define HISTORY_EDGES_MAX 3000

/* An exit code. */
int history_read(struct history *h);

/* For --since and --until; -1 when it has said what is wrong. */
int history_time(const char *option, const char *text, bool end, int64_t *us);
