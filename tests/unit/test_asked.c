#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gatewayd/worker/asked.h"
#include "gatewayd/worker/resolver.h"
#include "tests/unit/policy_fixture.h"

static uint64_t chance = 11;

static unsigned below(unsigned n)
{
	chance = chance * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(chance >> 33) % n;
}

#define PICK(list) ((list)[below(sizeof(list) / sizeof *(list))])

static void write_policy(char *text, size_t size)
{
	static const char *const conditions[] = {"to cidr 192.0.2.0/30", "to cidr 198.51.100.0/24", "to domain .cdn.example", "to domain www.example",
						 "by name", "by address", "group a", "group b c", "not group b", "user ann", "port 443",
						 "not to domain .example", "during w", "command bind", "to regex \"w+\\..*\"", "method password",
						 "claimed-user x", "listener main", "client 10.0.0.0/8"};
	size_t used = (size_t)snprintf(text, size, "%swindow w { mon-fri 08:00-18:00 }\n", below(2) ? "answers all\n" : "");

	for (unsigned n = 0, rules = 1 + below(8); n < rules; n++) {
		used += (size_t)snprintf(text + used, size - used, "rule r%u %s", n, below(3) ? "allow" : "deny");
		for (unsigned k = below(3); k > 0; k--)
			used += (size_t)snprintf(text + used, size - used, " %s", PICK(conditions));
		used += (size_t)snprintf(text + used, size - used, "\n");
	}
}

/* As a request that comes now goes: by name first, then each address. */
static void ask(const struct policy_context *ctx, const struct policy_request *req, const struct addr *addresses, size_t n,
		const struct name *aliases, size_t naliases, size_t used, struct policy_decision *d)
{
	struct policy_decision each[ANSWER_ADDRESSES_MAX], whole;

	if (req->name != NULL) {
		policy_decide_name(ctx, req, d);
		if (d->verdict == POLICY_DENY)
			return;
	}
	policy_decide_answers(ctx, req, addresses, n, aliases, naliases, each, &whole);
	*d = policy_answers_all(ctx->image) && whole.verdict == POLICY_DENY ? whole : each[used];
}

static void check_one(const struct policy_context *ctx, struct group_lists *lists)
{
	static const char *const addresses_text[] = {"192.0.2.1", "192.0.2.9", "198.51.100.3", "203.0.113.5", "127.0.0.1"};
	static const char *const names[] = {"www.example", "a.cdn.example", "other.test"};
	static const char *const users[] = {NULL, "ann", "bob"};
	char groups[4][AUTH_GROUP_NAME_MAX + 1] = {"a", "b", "c", "d"};
	struct addr addresses[4];
	struct name name = fixture_name(PICK(names)), aliases[2];
	size_t n = 1, naliases = 0;
	struct policy_request req = {.client = fixture_addr("10.1.1.1"), .listener = "main", .user = PICK(users), .port = 443,
				     .method = below(2) ? POLICY_METHOD_PASSWORD : POLICY_METHOD_SOCKS4, .command = 1 + below(2),
				     .claimed_user = below(2) ? "x" : NULL};
	unsigned first = below(4), count = req.user == NULL ? 0 : below(5 - first);
	struct group_list *list = groups_get(lists, (const void *)&groups[first], count);
	struct kept_answer *kept;
	struct policy_decision fresh, again;

	if (below(3) > 0) {
		req.name = &name;
		n = 1 + below(4);
		naliases = below(3);
	}
	for (size_t i = 0; i < n; i++)
		addresses[i] = fixture_addr(PICK(addresses_text));
	for (size_t i = 0; i < naliases; i++)
		aliases[i] = fixture_name(PICK(names));
	if (req.name == NULL)
		req.address = addresses[0];
	assert_int_equal(answer_keep(&kept, addresses, n, aliases, naliases), 0);
	assert_true((kept == NULL) == (n == 1 && naliases == 0));
	req.groups = list->names;
	req.ngroups = list->count;
	for (size_t used = 0; used < n; used++) {
		ask(ctx, &req, addresses, n, aliases, naliases, used, &fresh);
		asked_again(ctx, &req, kept, &addresses[used], true, &again);
		assert_int_equal(fresh.verdict == POLICY_ALLOW, again.verdict == POLICY_ALLOW);
		assert_int_equal(fresh.rule, again.rule);
		assert_int_equal(fresh.reason, again.reason);
	}
	answer_forget(&kept);
	groups_put(&list);
}

static void test_the_same_request_gets_the_same_answer(void **unused)
{
	static struct group_lists lists;
	char text[4096];

	(void)unused;
	for (int i = 0; i < 400; i++) {
		struct fixture f;

		write_policy(text, sizeof text);
		fixture_open(&f, text);
		for (int k = 0; k < 100; k++) {
			struct policy_context ctx = {.image = f.image, .now = fixture_time(2026, 11, 20, 7 + (int)below(12), 30)};

			check_one(&ctx, &lists);
		}
		fixture_close(&f);
	}
}

static void test_groups_are_held_once(void **unused)
{
	static struct group_lists lists;
	char one[2][AUTH_GROUP_NAME_MAX + 1] = {"a", "bc"}, other[2][AUTH_GROUP_NAME_MAX + 1] = {"ab", "c"};
	struct group_list *a = groups_get(&lists, (const void *)one, 2), *b = groups_get(&lists, (const void *)one, 2);
	struct group_list *c = groups_get(&lists, (const void *)other, 2);

	(void)unused;
	assert_ptr_equal(a, b);
	assert_ptr_not_equal(a, c);
	assert_string_equal(c->names[1], "c");
	groups_put(&a);
	assert_string_equal(b->names[1], "bc");
	groups_put(&b);
	groups_put(&c);
	assert_null(b);
	for (size_t i = 0; i < GROUP_BUCKETS; i++)
		assert_true(LIST_EMPTY(&lists.buckets[i]));
}

static void test_what_an_answer_takes(void **unused)
{
	struct addr addresses[ANSWER_ADDRESSES_MAX];
	struct name aliases[ANSWER_ALIASES_MAX];
	struct kept_answer *kept;

	(void)unused;
	for (size_t i = 0; i < ANSWER_ADDRESSES_MAX; i++)
		addresses[i] = addr_v4(0xc0000200u + (uint32_t)i);
	for (size_t i = 0; i < ANSWER_ALIASES_MAX; i++) {
		memset(aliases[i].text, 'x', NAME_MAX_LEN);
		aliases[i].text[NAME_MAX_LEN] = '\0';
		aliases[i].len = NAME_MAX_LEN;
	}
	assert_int_equal(answer_keep(&kept, addresses, 1, NULL, 0), 0);
	assert_int_equal(answer_bytes(kept), 0);
	assert_int_equal(answer_keep(&kept, addresses, 2, NULL, 0), 0);
	assert_int_equal(answer_bytes(kept), 8 + 2 * 17);
	answer_forget(&kept);
	assert_int_equal(answer_keep(&kept, addresses, ANSWER_ADDRESSES_MAX, aliases, ANSWER_ALIASES_MAX), 0);
	assert_int_equal(answer_bytes(kept), 8 + 64 * 17 + 16 * 254);
	answer_forget(&kept);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_same_request_gets_the_same_answer),
		cmocka_unit_test(test_groups_are_held_once),
		cmocka_unit_test(test_what_an_answer_takes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
