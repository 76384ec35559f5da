/* policy/admit.c: a client is turned away only if no request of it could be allowed, whatever it asked for. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/policy_fixture.h"

static const struct {
	const char *policy, *client, *listener;
	bool may;
} cases[] = {
	/* a client condition */
	{"rule a allow client 10.0.0.0/8\n", "10.1.2.3", "main", true},
	{"rule a allow client 10.0.0.0/8\n", "11.1.2.3", "main", false},
	{"rule a allow client 10.0.0.0/8\n", "2001:db8::1", "main", false},
	{"rule a allow client 2001:db8::/32\n", "2001:db8::1", "main", true},
	{"rule a allow client 2001:db8::/32\n", "2001:db9::1", "main", false},
	{"rule a allow not client 10.0.0.0/8\n", "10.1.2.3", "main", false},
	{"rule a allow not client 10.0.0.0/8\n", "11.1.2.3", "main", true},
	{"rule a allow client 10.0.0.0/8 192.0.2.1/32\n", "192.0.2.1", "main", true},
	{"rule a allow client 10.0.0.0/8 192.0.2.1/32\n", "192.0.2.2", "main", false},
	{"set s cidr { 10.0.0.0/8 192.0.2.0/24 2001:db8::/32 }\nrule a allow client @s\n", "192.0.2.2", "main", true},
	{"set s cidr { 10.0.0.0/8 192.0.2.0/24 2001:db8::/32 }\nrule a allow client @s\n", "192.0.3.2", "main", false},
	/* what else a rule asks for might be so */
	{"rule a allow client 10.0.0.0/8 group staff to domain .example.com until 2020-01-01\n", "10.0.0.1", "main",
	 true},
	{"rule a allow group staff\n", "192.0.2.1", "main", true},
	/* rules in their order */
	{"rule d deny client 10.0.0.0/8\nrule a allow\n", "10.0.0.1", "main", false},
	{"rule d deny client 10.0.0.0/8\nrule a allow\n", "11.0.0.1", "main", true},
	{"rule a allow group staff\nrule d deny client 10.0.0.0/8\n", "10.0.0.1", "main", true},
	{"rule d deny client 10.0.0.0/8 to domain .example.com\nrule a allow\n", "10.0.0.1", "main", true},
	{"rule d deny not client 10.0.0.0/8\nrule a allow\n", "11.0.0.1", "main", false},
	{"rule m monitor allow client 11.0.0.0/8\nrule a allow client 10.0.0.0/8\n", "11.0.0.1", "main", false},
	{"rule m monitor deny client 10.0.0.0/8\nrule a allow client 10.0.0.0/8\n", "10.0.0.1", "main", true},
	/* listeners */
	{"rule a allow listener main client 10.0.0.0/8\nrule b allow listener other\n", "11.0.0.1", "main", false},
	{"rule a allow listener main client 10.0.0.0/8\nrule b allow listener other\n", "11.0.0.1", "other", true},
	{"rule a allow not listener main client 10.0.0.0/8\nrule b allow listener main\n", "11.0.0.1", "other", false},
	{"rule d deny listener main client 10.0.0.0/8\nrule a allow\n", "10.0.0.1", "other", true},
	/* who allows nobody anything wants to see what is asked for */
	{"default deny\n", "10.0.0.1", "main", true},
	{"rule d deny\nrule a allow\n", "10.0.0.1", "main", true},
	{"rule d deny client 10.0.0.0/8\n", "10.0.0.1", "main", true},
	{"rule a allow listener other\n", "10.0.0.1", "main", true},
};

static void each_case(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct addr client = fixture_addr(cases[i].client);
		struct fixture f;

		fixture_open(&f, cases[i].policy);
		if (policy_may_admit(f.image, &client, cases[i].listener) != cases[i].may)
			fail_msg("%s at %s: not %s by:\n%s", cases[i].client, cases[i].listener,
				 cases[i].may ? "admitted" : "refused", cases[i].policy);
		fixture_close(&f);
	}
}

/* Nobody who is turned away could have had anything: held against the decision itself. */
static void none_who_could_be_allowed(void **state)
{
	static const char *const clients[] = {"10.0.0.1", "11.0.0.1", "192.0.2.1", "2001:db8::1"},
				 *const listeners[] = {"main", "other"};
	static const char *const group = "staff";
	struct name name = fixture_name("www.example.com");
	struct addr to = fixture_addr("203.0.113.1");
	unsigned refused = 0, allowed = 0;

	(void)state;
	for (unsigned bits = 0; bits < 4 * 2 * 2 * 2 * 3; bits++)
		for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
			struct fixture f;
			unsigned b = bits;
			struct policy_request req = {.client = fixture_addr(clients[b % 4]), .port = 443};

			req.listener = listeners[(b /= 4) % 2];
			req.user = (b /= 2) % 2 ? "ann" : NULL;
			req.groups = &group;
			req.ngroups = req.user != NULL;
			if ((b /= 2) % 2)
				req.name = &name;
			else
				req.address = to;
			req.command = (enum policy_command)(1 + (b /= 2) % 3);
			fixture_open(&f, cases[i].policy);
			struct policy_context ctx = {.image = f.image, .now = fixture_time(2019, 5, 5, 12, 0)};
			struct policy_decision d;

			policy_decide_address(&ctx, &req, &to, NULL, 0, &d);
			bool may = policy_may_admit(f.image, &req.client, req.listener);

			if (d.verdict == POLICY_ALLOW && !may)
				fail_msg("%s at %s is allowed, but turned away by:\n%s", clients[bits % 4],
					 req.listener, cases[i].policy);
			refused += !may;
			allowed += d.verdict == POLICY_ALLOW;
			fixture_close(&f);
		}
	assert_true(refused > 100 && allowed > 100);
}

/* A policy of many rules, none of which is for this client: the search ends, and lets it in. */
static void a_long_search_ends(void **state)
{
	char *text = malloc(1000 * 64);
	size_t len = 0;
	struct addr client = fixture_addr("192.0.2.1");
	struct fixture f;

	(void)state;
	for (unsigned rules = 500; rules <= 1000; rules += 500) {
		for (unsigned i = rules - 500; i < rules; i++)
			len += (size_t)sprintf(text + len, "rule r%u allow client 10.%u.%u.0/24\n", i, i / 200,
					       i % 200);
		fixture_open(&f, text);
		assert_true(policy_may_admit(f.image, &client, "main") == (rules > 500));
		fixture_close(&f);
	}
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_case),
		cmocka_unit_test(none_who_could_be_allowed),
		cmocka_unit_test(a_long_search_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
