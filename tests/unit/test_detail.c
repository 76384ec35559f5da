/* The detail of a grant has two writers: the usual one is put together as text, every other as a tree of JSON.  Whatever is granted, a
 * reader of the audit must not be able to tell which of them wrote it. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <jansson.h>

#include "gatewayd/worker/asked.h"
#include "gatewayd/worker/gss.h"
#include "gatewayd/worker/session.h"
#include "gatewayd/worker/worker.h"

#define GRANTS 20000
#define RULES 32
#define RULE_MAX 63
#define GROUPS_MAX AUTH_GROUPS_MAX

static struct worker w;
static struct session session;
static struct setup setup;
static char rule_names[RULES][RULE_MAX + 1];
static struct group_list *groups;
static char group_names[GROUPS_MAX][AUTH_GROUP_NAME_MAX + 1];
static size_t allocations; /* of jansson: whoever makes a tree needs some */

/* ---- what is absent ---------------------------------------------------------------------------------------------------- */

const char *policy_rule_name(const struct policy_image *image, uint32_t rule)
{
	(void)image;
	return rule_names[rule];
}

/* A table that knows nothing of any address: it makes a grant unusual, and adds not a byte to it. */
bool policy_geo_country(const struct policy_geo *geo, const struct addr *a, char country[3])
{
	(void)geo, (void)a, (void)country;
	return false;
}

uint32_t policy_geo_asn(const struct policy_geo *geo, const struct addr *a)
{
	(void)geo, (void)a;
	return 0;
}

const char *gss_principal(const struct session *s)
{
	(void)s;
	return NULL;
}

enum protection gss_protection(const struct session *s)
{
	(void)s;
	return (enum protection)0;
}

static void *counting_malloc(size_t size)
{
	allocations++;
	return malloc(size);
}

/* ---- grants -------------------------------------------------------------------------------------------------------------- */

static uint32_t seed = 1;

static uint32_t next(uint32_t below)
{
	seed = seed * 1664525u + 1013904223u;
	return (seed >> 8) % below;
}

/* odd: with bytes that need an escape in JSON, or in a log. */
static void fill_text(char *out, size_t most, bool odd)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_. /@$+#%&'";
	static const char *const odd_ones[] = {"\"", "\\", "\x01", "\n", "\x7f", "\xc3\xa4", "\xe2\x82\xac", "</"};
	size_t len = 1 + next((uint32_t)most);

	for (size_t i = 0; i < len; i++)
		out[i] = plain[next(sizeof plain - 1)];
	out[len] = '\0';
	if (odd) {
		const char *one = odd_ones[next(sizeof odd_ones / sizeof *odd_ones)];

		if (strlen(one) < len)
			memcpy(out + next((uint32_t)(len - strlen(one))), one, strlen(one));
	}
}

static struct addr random_address(void)
{
	struct addr a = {.family = next(2) ? ADDR_V4 : ADDR_V6};

	for (size_t i = 0; i < addr_len(&a); i++)
		a.bytes[i] = next(3) ? (uint8_t)next(256) : 0;
	return a;
}

static void make_grant(bool odd)
{
	size_t ngroups = next(4) == 0 ? 0 : next(next(8) ? 6 : GROUPS_MAX + 1), longest = next(8) ? 16 : AUTH_GROUP_NAME_MAX;

	for (size_t i = 0; i < RULES; i++)
		fill_text(rule_names[i], RULE_MAX, odd && next(8) == 0);
	setup.ncandidates = 1 + next(next(4) ? 3 : CANDIDATES_MAX);
	for (size_t i = 0; i < setup.ncandidates; i++)
		setup.candidates[i] = (struct candidate){.address = random_address(), .rule = next(RULES)};
	for (size_t i = 0; i < ngroups; i++) {
		fill_text(group_names[i], longest, odd && next(8) == 0);
		groups->names[i] = group_names[i];
	}
	groups->count = ngroups;
	session.groups = next(8) ? groups : NULL;
	/* An answer with as many addresses as there are candidates tells nothing new. */
	setup.told = (struct told_answer){.naddresses = next(2) ? setup.ncandidates : 0};
}

/* geo: makes it unusual. */
static const char *written(struct audit_event *e, void *geo)
{
	static struct policy_decision d;
	struct told_answer told = setup.told;

	memset(e->detail, 'x', sizeof e->detail);
	w.geo.geo = geo;
	detail_write(&session, NULL, &d, e);
	assert_int_equal(setup.told.naddresses, 0);
	setup.told = told;
	w.geo.geo = NULL;
	return e->detail;
}

static void test_both_write_the_same(void **state)
{
	static struct audit_event usual, tree;
	unsigned without_tree = 0, with_tree = 0;
	char some;

	(void)state;
	for (int i = 0; i < GRANTS; i++) {
		make_grant(next(3) == 0);
		allocations = 0;
		written(&usual, NULL);
		*(allocations == 0 ? &without_tree : &with_tree) += 1;
		allocations = 0;
		written(&tree, &some);
		assert_true(allocations > 0);
		assert_string_equal(usual.detail, tree.detail);
	}
	/* Each of the ways was gone, by many. */
	assert_true(without_tree > GRANTS / 4);
	assert_true(with_tree > GRANTS / 20);
}

/* The largest that there can be still fits, into both. */
static void test_the_largest(void **state)
{
	static struct audit_event usual, tree;
	char some;

	(void)state;
	memset(rule_names[0], 'r', RULE_MAX);
	rule_names[0][RULE_MAX] = '\0';
	setup.told = (struct told_answer){0};
	setup.ncandidates = CANDIDATES_MAX;
	for (size_t i = 0; i < CANDIDATES_MAX; i++) {
		setup.candidates[i] = (struct candidate){.address = {.family = ADDR_V6}};
		memset(setup.candidates[i].address.bytes, 0xab, 16);
	}
	for (size_t i = 0; i < GROUPS_MAX; i++) {
		memset(group_names[i], 'g', AUTH_GROUP_NAME_MAX);
		group_names[i][AUTH_GROUP_NAME_MAX] = '\0';
		groups->names[i] = group_names[i];
	}
	groups->count = GROUPS_MAX;
	session.groups = groups;
	allocations = 0;
	assert_true(strlen(written(&usual, NULL)) > CANDIDATES_MAX * (39 + RULE_MAX));
	assert_int_equal(allocations, 0);
	assert_string_equal(usual.detail, written(&tree, &some));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_both_write_the_same),
		cmocka_unit_test(test_the_largest),
	};
	int failed;

	json_set_alloc_funcs(counting_malloc, free);
	groups = calloc(1, sizeof *groups + GROUPS_MAX * sizeof *groups->names);
	session.worker = &w;
	session.setup = &setup;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	free(groups);
	return failed;
}
