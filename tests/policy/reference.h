/* The language's meaning once more, slow and obvious, over the parse tree: what the engine is held against.  Shares no
 * evaluation code with it; time zones come from the C library here. */
#pragma once

#include "policy/ast.h"

struct reference {
	const struct policy_tree *tree;
	const struct policy_request *request;
	int64_t now;
	const struct addr *local;
	size_t nlocal;
	const uint16_t *own_ports;
	size_t nown_ports;
	bool country_known; /* there is a sound country table */
	/* Two letters into country, or "" if the address has none. */
	void (*country_of)(const struct addr *a, char country[3]);
	bool asn_known;
	/* The number of its autonomous system, or 0. */
	unsigned (*asn_of)(const struct addr *a);
	const struct name *aliases;
	size_t naliases;
};

#define REFERENCE_MONITORS 256

struct reference_result {
	enum policy_verdict verdict;
	enum policy_reason reason;
	const char *rule; /* name, or "default" */
	const char *monitors[REFERENCE_MONITORS];
	enum policy_verdict monitor_verdicts[REFERENCE_MONITORS];
	size_t nmonitors;
};

void reference_by_name(const struct reference *r, struct reference_result *out);
void reference_by_address(const struct reference *r, const struct addr *address, struct reference_result *out);
void reference_whole(const struct reference *r, const struct addr *addresses, size_t n, struct reference_result *out);
