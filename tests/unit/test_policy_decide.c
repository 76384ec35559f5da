#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/geo_priv.h"
#include "tests/unit/policy_fixture.h"

/* ---- one request against one policy --------------------------------------------------------------------------------
 */

struct ask {
	const char *policy;
	const char *to; /* name or address */
	const char *answers[4], *alias;
	const char *user, *group, *client, *claimed, *listener;
	enum policy_method method;
	uint16_t port;
	bool geo; /* an atlas where 192.0.2.0/24 is in DE and nothing else anywhere */
	int64_t now;
};

static const struct geo_step4 atlas4[] = {
	{.from = 0}, {.from = 0xc0000200, .value = 'D' << 8 | 'E'}, {.from = 0xc0000300}};
static const struct geo_step6 atlas6[] = {{.value = 0}};
static const struct policy_geo atlas = {.steps4 = atlas4, .count4 = 3, .steps6 = atlas6, .count6 = 1};

/* Decides as the gateway does: by name, then, if the name may be looked up, by each address.  *resolved tells whether
 * it was; the text of the decision goes into text. */
static enum policy_verdict decide(const struct ask *ask, bool *resolved, char text[256])
{
	struct fixture f;
	struct name name, alias;
	struct addr answers[4];
	const char *why;
	size_t n = 0;
	struct policy_decision d;

	fixture_open(&f, ask->policy);
	struct policy_context ctx = {.image = f.image, .geo = ask->geo ? &atlas : NULL, .now = ask->now};
	struct policy_request r = {.client = fixture_addr(ask->client),
				   .user = ask->user,
				   .claimed_user = ask->claimed,
				   .listener = ask->listener,
				   .groups = &ask->group,
				   .ngroups = ask->group != NULL,
				   .method = ask->method,
				   .command = POLICY_CONNECT,
				   .port = ask->port == 0 ? 443 : ask->port};

	*resolved = false;
	switch (name_canonical(ask->to, strlen(ask->to), &name, &r.address, &why)) {
	case NAME_IS_NAME:
		r.name = &name;
		policy_decide_name(&ctx, &r, &d);
		*resolved = d.verdict == POLICY_RESOLVE;
		if (!*resolved)
			break;
		for (; n < 4 && ask->answers[n] != NULL; n++)
			answers[n] = fixture_addr(ask->answers[n]);
		if (ask->alias != NULL)
			alias = fixture_name(ask->alias);
		policy_decide_answers(&ctx, &r, answers, n, &alias, ask->alias != NULL, NULL, &d);
		break;
	case NAME_IS_ADDRESS:
		policy_decide_address(&ctx, &r, &r.address, NULL, 0, &d);
		break;
	case NAME_REFUSED:
		fail_msg("%s", why);
	}
	policy_decision_text(f.image, &d, text, 256);
	fixture_close(&f);
	return d.verdict;
}

static void check(const struct ask *ask, bool resolved, enum policy_verdict verdict, const char *text)
{
	char said[256];
	bool looked;
	enum policy_verdict v = decide(ask, &looked, said);

	if (v != verdict || looked != resolved || strstr(said, text) == NULL)
		fail_msg("%s\n  to %s: verdict %d (%s), %slooked up", ask->policy, ask->to, v, said,
			 looked ? "" : "not ");
}

#define DENIED_BY_NAME(text, ...) check(&(struct ask){__VA_ARGS__}, false, POLICY_DENY, text)
#define DENIED(text, ...) check(&(struct ask){__VA_ARGS__}, true, POLICY_DENY, text)
#define ALLOWED(text, ...) check(&(struct ask){__VA_ARGS__}, true, POLICY_ALLOW, text)
#define LITERAL_DENIED(text, ...) check(&(struct ask){__VA_ARGS__}, false, POLICY_DENY, text)
#define LITERAL_ALLOWED(text, ...) check(&(struct ask){__VA_ARGS__}, false, POLICY_ALLOW, text)

/* ---- order and default ---------------------------------------------------------------------------------------------
 */

static void test_nothing_matches_is_deny(void **unused)
{
	(void)unused;
	DENIED_BY_NAME("no rule matched", .policy = "", .to = "example.com");
	LITERAL_DENIED("no rule matched", .policy = "", .to = "192.0.2.1");
	DENIED_BY_NAME("no rule matched", .policy = "rule a allow port 80", .to = "example.com");
}

static void test_first_match_decides(void **unused)
{
	(void)unused;
	LITERAL_ALLOWED("rule a", .policy = "rule a allow\nrule b deny", .to = "192.0.2.1");
	LITERAL_DENIED("rule b", .policy = "rule b deny\nrule a allow", .to = "192.0.2.1");
	LITERAL_ALLOWED("rule a", .policy = "rule b deny port 80\nrule a allow", .to = "192.0.2.1");
}

static void test_a_request_without_sense_is_denied(void **unused)
{
	struct fixture f;
	struct policy_decision d;
	struct addr none = {0}, odd = {.family = 1};
	struct policy_request r = {.command = POLICY_CONNECT};

	(void)unused;
	fixture_open(&f, "rule a allow");
	struct policy_context ctx = {.image = f.image};

	policy_decide_name(&ctx, &r, &d);
	assert_int_equal(d.verdict, POLICY_DENY);
	policy_decide_address(&ctx, &r, &none, NULL, 0, &d);
	assert_int_equal(d.verdict, POLICY_DENY);
	policy_decide_address(&ctx, &r, &odd, NULL, 0, &d);
	assert_int_equal(d.verdict, POLICY_DENY);
	policy_decide_answers(&ctx, &r, NULL, 0, NULL, 0, NULL, &d);
	assert_int_equal(d.verdict, POLICY_DENY);
	assert_int_equal(d.reason, POLICY_NO_ANSWER);
	r.command = (enum policy_command)200;
	r.method = (enum policy_method)200;
	fixture_close(&f);
	fixture_open(&f, "rule a allow command connect\nrule b allow method none");
	ctx.image = f.image;
	r.address = fixture_addr("192.0.2.1");
	policy_decide_address(&ctx, &r, &r.address, NULL, 0, &d);
	assert_int_equal(d.verdict, POLICY_DENY);
	fixture_close(&f);
}

/* ---- names ---------------------------------------------------------------------------------------------------------
 */

static void test_domains_match_whole_labels(void **unused)
{
	static const struct {
		const char *rule, *name;
		bool match;
	} cases[] = {
		{"example.com", "example.com", true},
		{"example.com", "www.example.com", false},
		{".example.com", "example.com", true},
		{".example.com", "www.example.com", true},
		{".example.com", "a.b.example.com", true},
		{".example.com", "evilexample.com", false},
		{".example.com", "example.com.evil", false},
		{"*.example.com", "example.com", false},
		{"*.example.com", "www.example.com", true},
		{"*.example.com", "evilexample.com", false},
		{"EXAMPLE.com.", "example.com", true},
		{".com", "example.com", true},
		{".com", "com", true},
		{"com", "example.com", false},
	};
	char policy[128];

	(void)unused;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		snprintf(policy, sizeof policy, "rule a allow to domain %s", cases[i].rule);
		if (cases[i].match)
			ALLOWED("rule a", .policy = policy, .to = cases[i].name, .answers = {"192.0.2.1"});
		else
			DENIED_BY_NAME("no rule", .policy = policy, .to = cases[i].name);
	}
}

static void test_a_regex_matches_the_whole_name(void **unused)
{
	(void)unused;
	ALLOWED("rule a", .policy = "rule a allow to regex \"example\\.com\"", .to = "example.com",
		.answers = {"192.0.2.1"});
	DENIED_BY_NAME("no rule", .policy = "rule a allow to regex \"example\\.com\"", .to = "example.com.evil.test");
	DENIED_BY_NAME("no rule", .policy = "rule a allow to regex \"example\\.com\"", .to = "www.example.com");
	DENIED_BY_NAME("no rule", .policy = "rule a allow to regex \"a|example\\.com\"", .to = "axb");
	ALLOWED("rule a", .policy = "rule a allow to regex \"EXAMPLE\\.com\"", .to = "example.com",
		.answers = {"192.0.2.1"});
}

static void test_a_regex_bomb_denies(void **unused)
{
	static const char bomb[] = "rule a allow to regex \"(a+)+\\.test\"\nrule b allow";
	static const char denying[] = "rule a deny to regex \"(x+x+)+[yz]\"\nrule b allow";
	static const char negated[] = "rule a allow not to regex \"(x+x+)+[yz]\"";
	static const char xs[] = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

	(void)unused;
	DENIED_BY_NAME("match limit", .policy = denying, .to = xs);
	DENIED_BY_NAME("match limit", .policy = negated, .to = xs);
	/* Only if all else in the rule holds. */
	ALLOWED("rule b", .policy = "rule a deny port 80 to regex \"(x+x+)+[yz]\"\nrule b allow", .to = xs,
		.answers = {"192.0.2.1"});
	ALLOWED("rule b", .policy = bomb, .to = "other.test", .answers = {"192.0.2.1"});
}

/* A match that reaches its limit takes a millisecond: a request pays for few of them, however often the name holds what
 * leads to a pattern and however many patterns there are. */
static void test_regex_bombs_are_met_once_and_few(void **unused)
{
	static const char often[] = "rule a deny to regex \".*aaaa(a+)+(a+)+(a+)+[yz]\"\nrule b allow";
	static const char many[] =
		"rule a deny to regex \"(x+x+)+[yz]\" \"(x+x+)+[yzw]\" \"(x+x+)+[yzv]\" \"(x+x+)+[yzu]\" "
		"\"(x+x+)+[yzt]\"\nrule b allow";
	static const char few[] =
		"rule a deny to regex \"(x+x+)+[yz]\" \"(x+x+)+[yzw]\" \"(x+x+)+[yzv]\" \"(x+x+)+[yzu]\"\n"
		"rule b allow";
	static const char as[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
	static const char xs[] = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

	(void)unused;
	DENIED_BY_NAME("match limit", .policy = often, .to = as);
	DENIED_BY_NAME("match limit", .policy = few, .to = xs);
	DENIED_BY_NAME("too many regular expressions", .policy = many, .to = xs);
}

static void test_a_denied_name_is_never_looked_up(void **unused)
{
	(void)unused;
	DENIED_BY_NAME("rule a", .policy = "rule a deny to domain .bad.test\nrule b allow to domain .good.test",
		       .to = "x.bad.test");
	DENIED_BY_NAME("no rule", .policy = "rule b allow to domain .good.test", .to = "secret.attacker.test");
	/* A deny rule by address may let it through to nothing. */
	DENIED_BY_NAME("no rule", .policy = "rule a deny to cidr 10.0.0.0/8", .to = "x.test");
	DENIED_BY_NAME("rule z", .policy = "rule a deny to cidr 10.0.0.0/8\nrule z deny", .to = "x.test");
	/* An allow rule that perhaps decides is worth a lookup, one behind a certain denial is not. */
	DENIED("rule z", .policy = "rule a allow to cidr 192.0.2.0/24\nrule z deny", .to = "x.test",
	       .answers = {"203.0.113.1"});
	DENIED_BY_NAME("rule z", .policy = "rule z deny by name\nrule a allow", .to = "x.test");
	/* A monitor rule never causes a lookup. */
	DENIED_BY_NAME("no rule", .policy = "rule a monitor allow to domain x.test", .to = "x.test");
	/* A denial by alias is only perhaps. */
	ALLOWED("rule b", .policy = "rule a deny to domain bad.test\nrule b allow", .to = "x.test",
		.answers = {"192.0.2.1"});
	DENIED_BY_NAME("no rule", .policy = "rule a deny to domain bad.test", .to = "x.test");
}

static void test_aliases_count_for_deny_rules_only(void **unused)
{
	static const char deny[] = "rule a deny to domain .bad.test\nrule b allow";
	static const char regex[] = "rule a deny to regex \".*bad\\.test\"\nrule b allow";
	static const char allow[] = "rule a allow to domain .good.test\nrule b allow to cidr 203.0.113.0/24";
	static const char negated[] = "rule a deny not to domain .good.test\nrule b allow";

	(void)unused;
	DENIED("rule a", .policy = deny, .to = "x.test", .alias = "cdn.bad.test", .answers = {"192.0.2.1"});
	DENIED("rule a", .policy = regex, .to = "x.test", .alias = "cdn.bad.test", .answers = {"192.0.2.1"});
	ALLOWED("rule b", .policy = deny, .to = "x.test", .alias = "cdn.other.test", .answers = {"192.0.2.1"});
	DENIED("no rule", .policy = allow, .to = "x.test", .alias = "www.good.test", .answers = {"192.0.2.1"});
	/* Neither does an alias lead out of a negated condition, nor into one. */
	DENIED_BY_NAME("rule a", .policy = negated, .to = "x.test", .alias = "www.good.test", .answers = {"192.0.2.1"});
	ALLOWED("rule b", .policy = negated, .to = "www.good.test", .alias = "x.cdn.test", .answers = {"192.0.2.1"});
}

/* ---- absent, unknown -----------------------------------------------------------------------------------------------
 */

static void test_absent_is_false_and_negated_true_in_deny_only(void **unused)
{
	static const struct {
		const char *condition, *to;
	} absent[] = {{"user ann", "192.0.2.1"},
		      {"group hr", "192.0.2.1"},
		      {"claimed-user ann", "192.0.2.1"},
		      {"listener main", "192.0.2.1"},
		      {"client 192.0.2.0/24", "192.0.2.1"},
		      {"to domain .test", "192.0.2.1"},
		      {"to regex \".*\"", "192.0.2.1"},
		      {"to country DE", "203.0.113.1"}};
	char policy[128];

	(void)unused;
	for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++) {
		snprintf(policy, sizeof policy, "rule a deny %s\nrule z allow", absent[i].condition);
		LITERAL_ALLOWED("rule z", .policy = policy, .to = absent[i].to, .geo = true);
		snprintf(policy, sizeof policy, "rule a deny not %s\nrule z allow", absent[i].condition);
		LITERAL_DENIED("rule a", .policy = policy, .to = absent[i].to, .geo = true);
		snprintf(policy, sizeof policy, "rule a allow %s", absent[i].condition);
		LITERAL_DENIED("no rule", .policy = policy, .to = absent[i].to, .geo = true);
		snprintf(policy, sizeof policy, "rule a allow not %s", absent[i].condition);
		LITERAL_DENIED("no rule", .policy = policy, .to = absent[i].to, .geo = true);
	}
}

static void test_a_user_without_groups_is_not_absent(void **unused)
{
	(void)unused;
	LITERAL_ALLOWED("rule a", .policy = "rule a allow not group hr", .to = "192.0.2.1", .user = "ann");
	LITERAL_DENIED("no rule", .policy = "rule a allow not group hr", .to = "192.0.2.1");
	LITERAL_DENIED("no rule", .policy = "rule a allow not group hr", .to = "192.0.2.1", .user = "ann",
		       .group = "hr");
	/* Groups without a user are nobody's. */
	LITERAL_DENIED("no rule", .policy = "rule a allow group hr", .to = "192.0.2.1", .group = "hr");
}

static void test_countries(void **unused)
{
	(void)unused;
	LITERAL_ALLOWED("rule a", .policy = "rule a allow to country de", .to = "192.0.2.1", .geo = true);
	LITERAL_DENIED("no rule", .policy = "rule a allow to country de", .to = "203.0.113.1", .geo = true);
	LITERAL_ALLOWED("rule a", .policy = "rule a allow to country unknown", .to = "203.0.113.1", .geo = true);
	LITERAL_ALLOWED("rule a", .policy = "rule a allow not to country unknown", .to = "192.0.2.1", .geo = true);
	LITERAL_DENIED("rule a", .policy = "rule a deny to country unknown FR\nrule z allow", .to = "203.0.113.1",
		       .geo = true);
	ALLOWED("rule a", .policy = "rule a allow to country DE", .to = "x.test", .answers = {"192.0.2.1"},
		.geo = true);
}

static void test_missing_country_data_denies(void **unused)
{
	(void)unused;
	LITERAL_DENIED("no sound country data", .policy = "rule a allow to country DE", .to = "192.0.2.1");
	LITERAL_DENIED("no sound country data", .policy = "rule a deny to country KP\nrule b allow", .to = "192.0.2.1");
	LITERAL_DENIED("no sound country data", .policy = "rule a deny not to country DE\nrule b allow",
		       .to = "192.0.2.1");
	LITERAL_ALLOWED("rule b", .policy = "rule a deny port 80 to country KP\nrule b allow", .to = "192.0.2.1");
	/* No address could be judged, so none is looked for. */
	DENIED_BY_NAME("no sound country data", .policy = "rule a allow to country DE", .to = "x.test");
	ALLOWED("rule b", .policy = "rule a deny to country KP to cidr 10.0.0.0/8\nrule b allow", .to = "x.test",
		.answers = {"192.0.2.1"});
}

/* ---- the guard -----------------------------------------------------------------------------------------------------
 */

static void test_guarded_addresses(void **unused)
{
	static const char *const guarded[] = {"0.0.0.0",
					      "0.1.2.3",
					      "10.0.0.1",
					      "100.64.0.1",
					      "100.127.255.255",
					      "127.0.0.1",
					      "127.255.255.254",
					      "169.254.169.254",
					      "172.16.0.1",
					      "172.31.255.255",
					      "192.168.0.1",
					      "224.0.0.1",
					      "239.1.2.3",
					      "240.0.0.1",
					      "255.255.255.255",
					      "100.100.100.200",
					      "168.63.129.16",
					      "192.0.0.192",
					      "::",
					      "::1",
					      "fc00::1",
					      "fdff::1",
					      "fe80::1",
					      "febf::1",
					      "fec0::1",
					      "ff02::1",
					      "fd00:ec2::254",
					      "::10.0.0.1",
					      "::8.8.8.8",
					      "::ffff:0:8.8.8.8",
					      "64:ff9b::8.8.8.8",
					      "64:ff9b:1::1",
					      "2002:808:808::",
					      "2001::1",
					      "2001:db8::5efe:8.8.8.8",
					      "2001:db8::200:5efe:8.8.8.8",
					      "::ffff:127.0.0.1",
					      "127.1",
					      "0x7f000001",
					      "017700000001"};
	static const char *const open[] = {"9.255.255.255", "11.0.0.0",	       "100.63.255.255",
					   "100.128.0.0",   "126.255.255.255", "128.0.0.0",
					   "169.253.0.1",   "172.15.0.1",      "172.32.0.1",
					   "192.167.0.1",   "192.169.0.1",     "223.255.255.255",
					   "192.0.2.1",	    "198.51.100.1",    "203.0.113.1",
					   "2001:db8::1",   "2001:1::1",       "2003::1",
					   "64:ff9b:2::1",  "fb00::1",	       "2001:db8::100:5efe:808:808"};

	(void)unused;
	for (size_t i = 0; i < sizeof guarded / sizeof guarded[0]; i++) {
		LITERAL_DENIED("address guard", .policy = "rule a allow", .to = guarded[i]);
		LITERAL_DENIED("address guard", .policy = "rule a allow to cidr 0.0.0.0/0 ::/0", .to = guarded[i]);
		LITERAL_DENIED("address guard", .policy = "rule a allow not to cidr 9.9.9.9", .to = guarded[i]);
	}
	for (size_t i = 0; i < sizeof open / sizeof open[0]; i++)
		LITERAL_ALLOWED("rule a", .policy = "rule a allow", .to = open[i]);
}

static void test_what_opens_the_guard(void **unused)
{
	(void)unused;
	LITERAL_ALLOWED("rule a", .policy = "rule a allow to cidr 10.0.0.0/8", .to = "10.1.2.3");
	LITERAL_ALLOWED("rule a", .policy = "rule a allow to cidr 10.1.2.3", .to = "10.1.2.3");
	LITERAL_ALLOWED("rule a", .policy = "rule a allow to cidr 10.1.2.0-10.1.2.9", .to = "10.1.2.3");
	LITERAL_ALLOWED("rule a", .policy = "rule a allow to cidr 0.0.0.0/0 10.0.0.0/8", .to = "10.1.2.3");
	LITERAL_ALLOWED("rule a", .policy = "rule a allow to cidr 127.0.0.1", .to = "127.0.0.1");
	LITERAL_ALLOWED("rule a", .policy = "rule a allow to cidr 64:ff9b::/96", .to = "64:ff9b::8.8.8.8");
	LITERAL_ALLOWED("rule a", .policy = "rule a allow to cidr 2001:db8::5efe:0:0/96",
			.to = "2001:db8::5efe:808:808");
	LITERAL_DENIED("guard", .policy = "rule a allow to cidr 9.0.0.0-11.0.0.0", .to = "10.1.2.3");
	LITERAL_DENIED("guard", .policy = "rule a allow to cidr 8.0.0.0/5", .to = "10.1.2.3");
	/* What another rule opens stays shut for this one. */
	LITERAL_DENIED("guard", .policy = "rule a allow\nrule b allow to cidr 10.0.0.0/8", .to = "10.1.2.3");
}

static void test_internal_opens_private_ranges_only(void **unused)
{
	static const char *const opened[] = {"10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fd12::1"};
	static const char *const shut[] = {
		"127.0.0.1", "169.254.169.254", "100.100.100.200", "fd00:ec2::254",	"168.63.129.16", "::1",
		"fe80::1",   "224.0.0.1",	"0.0.0.0",	   "64:ff9b::10.0.0.1", "fec0::1"};

	(void)unused;
	for (size_t i = 0; i < sizeof opened / sizeof opened[0]; i++)
		LITERAL_ALLOWED("rule a", .policy = "rule a allow internal", .to = opened[i]);
	for (size_t i = 0; i < sizeof shut / sizeof shut[0]; i++)
		LITERAL_DENIED("guard", .policy = "rule a allow internal", .to = shut[i]);
}

static void test_a_metadata_service_is_opened_by_itself_alone(void **unused)
{
	(void)unused;
	LITERAL_DENIED("metadata", .policy = "rule a allow to cidr 100.64.0.0/10", .to = "100.100.100.200");
	LITERAL_ALLOWED("rule a", .policy = "rule a allow to cidr 100.64.0.0/10", .to = "100.100.100.199");
	LITERAL_ALLOWED("rule a", .policy = "rule a allow to cidr 100.64.0.0/10", .to = "100.100.100.201");
	LITERAL_DENIED("metadata", .policy = "rule a allow to cidr fc00::/7", .to = "fd00:ec2::254");
	LITERAL_ALLOWED("rule a", .policy = "rule a allow to cidr 100.100.100.200", .to = "100.100.100.200");
	LITERAL_ALLOWED("rule a", .policy = "rule a allow to cidr 168.63.129.16/32", .to = "168.63.129.16");
}

static void test_own_listeners_stay_shut(void **unused)
{
	static const uint16_t ports[] = {1080};
	struct addr local[2] = {fixture_addr("192.0.2.1"), fixture_addr("10.0.0.1")};
	struct policy_request r = {.command = POLICY_CONNECT, .port = 1080, .address = local[0]};
	struct policy_decision d;
	struct fixture f;

	(void)unused;
	fixture_open(&f, "rule a allow to cidr 10.0.0.0/8 192.0.2.1");
	struct policy_context ctx = {
		.image = f.image, .local = local, .nlocal = 2, .own_ports = ports, .nown_ports = 1};

	for (int i = 0; i < 2; i++) {
		r.port = 1080;
		policy_decide_address(&ctx, &r, &local[i], NULL, 0, &d);
		assert_int_equal(d.verdict, POLICY_DENY);
		assert_int_equal(d.reason, POLICY_BY_GUARD);
		r.port = 1081;
		policy_decide_address(&ctx, &r, &local[i], NULL, 0, &d);
		assert_int_equal(d.verdict, POLICY_ALLOW);
	}
	fixture_close(&f);
}

static void test_embedded_addresses(void **unused)
{
	static const char *const forms[] = {
		"64:ff9b::192.0.2.1",	"2002:c000:201::",	   "2001:0:c000:201::",	  "2001::3fff:fdfe",
		"::192.0.2.1",		"2001:db8::5efe:c000:201", "::ffff:0:192.0.2.1",  "64:ff9b:1:c000:2:100::",
		"64:ff9b:1:c0:0:201::", "64:ff9b:1::c0:2:100:0",   "64:ff9b:1::192.0.2.1"};
	char policy[160];

	(void)unused;
	for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
		/* The rule that would open the guard for the outer address. */
		snprintf(policy, sizeof policy, "rule a deny to cidr 192.0.2.0/24\nrule b allow to cidr %s", forms[i]);
		LITERAL_DENIED("rule a", .policy = policy, .to = forms[i]);
		snprintf(policy, sizeof policy, "rule a deny to country DE\nrule b allow to cidr %s", forms[i]);
		LITERAL_DENIED("rule a", .policy = policy, .to = forms[i], .geo = true);
		/* An allow rule sees the outer address only, a negated condition every one. */
		LITERAL_DENIED("no rule", .policy = "rule a allow to cidr 192.0.2.0/24", .to = forms[i]);
		LITERAL_DENIED("no rule", .policy = "rule a allow not to cidr 192.0.2.0/24", .to = forms[i]);
		snprintf(policy, sizeof policy, "rule a deny not to cidr 192.0.2.0/24\nrule b allow to cidr %s",
			 forms[i]);
		LITERAL_ALLOWED("rule b", .policy = policy, .to = forms[i]);
	}
}

static void test_own_nat64_prefix(void **unused)
{
	static const char deny[] = "nat64-prefix 2001:db8:64::/96\nrule a deny to cidr 192.0.2.0/24\nrule b allow to "
				   "cidr 2001:db8:64::/96";

	(void)unused;
	LITERAL_DENIED("rule a", .policy = deny, .to = "2001:db8:64::192.0.2.1");
	LITERAL_ALLOWED("rule b", .policy = deny, .to = "2001:db8:64::203.0.113.1");
	LITERAL_DENIED("nat64-prefix", .policy = "nat64-prefix 2001:db8:64::/96\nrule a allow",
		       .to = "2001:db8:64::203.0.113.1");
	LITERAL_ALLOWED("rule a", .policy = "rule a allow", .to = "2001:db8:64::203.0.113.1");
}

/* ---- answers, monitors ---------------------------------------------------------------------------------------------
 */

static void test_mixed_answers(void **unused)
{
	static const char any[] = "rule a deny to cidr 203.0.113.0/24\nrule b allow";
	static const char all[] = "answers all\nrule a deny to cidr 203.0.113.0/24\nrule b allow";

	(void)unused;
	ALLOWED("rule b", .policy = any, .to = "x.test", .answers = {"203.0.113.1", "192.0.2.1"});
	DENIED("rule a", .policy = any, .to = "x.test", .answers = {"203.0.113.1", "203.0.113.2"});
	DENIED("answers all", .policy = all, .to = "x.test", .answers = {"192.0.2.1", "203.0.113.1"});
	ALLOWED("rule b", .policy = all, .to = "x.test", .answers = {"192.0.2.1", "192.0.2.2"});
	DENIED("no address", .policy = any, .to = "x.test");
	DENIED("guard", .policy = any, .to = "rebind.test", .answers = {"127.0.0.1"});
}

static void test_monitors_are_reported_and_decide_nothing(void **unused)
{
	struct policy_request r = {.command = POLICY_CONNECT, .port = 443, .address = fixture_addr("127.0.0.1")};
	char text[1024] = "rule m monitor deny\nrule g monitor allow\nrule never monitor allow port 80\nrule a allow "
			  "internal to cidr 127.0.0.1\n"
			  "rule late monitor deny";
	struct policy_decision d;
	struct fixture f;

	(void)unused;
	fixture_open(&f, text);
	struct policy_context ctx = {.image = f.image};

	policy_decide_address(&ctx, &r, &r.address, NULL, 0, &d);
	assert_int_equal(d.verdict, POLICY_ALLOW);
	assert_int_equal(d.nmonitors, 2);
	assert_string_equal(policy_rule_name(f.image, d.monitors[0].rule), "m");
	assert_int_equal(d.monitors[0].verdict, POLICY_DENY);
	assert_string_equal(policy_rule_name(f.image, d.monitors[1].rule), "g");
	assert_int_equal(d.monitors[1].verdict, POLICY_DENY); /* the guard would have refused */
	fixture_close(&f);
	text[0] = '\0';
	for (int i = 0; i < 20; i++)
		snprintf(text + strlen(text), sizeof text - strlen(text), "rule m%d monitor deny\n", i);
	fixture_open(&f, text);
	ctx.image = f.image;
	policy_decide_address(&ctx, &r, &r.address, NULL, 0, &d);
	assert_int_equal(d.nmonitors, POLICY_MONITORS_MAX);
	assert_int_equal(d.monitors_more, 20 - POLICY_MONITORS_MAX);
	fixture_close(&f);
}

static void test_what_a_rule_tells(void **unused)
{
	struct fixture f;
	struct addr source;
	char buf[ADDR_TEXT_MAX];

	(void)unused;
	fixture_open(&f, "rule r allow group hr \"it ops\" source 192.0.2.9 log alert owner me ticket T-1 comment \"a "
			 "b\"\nrule s deny group eng hr");
	source = policy_rule_source(f.image, 0);
	assert_string_equal(addr_format(&source, buf), "192.0.2.9");
	assert_int_equal(policy_rule_log(f.image, 0), POLICY_LOG_ALERT);
	assert_int_equal(policy_rule_log(f.image, 1), POLICY_LOG_INFO);
	assert_string_equal(policy_rule_owner(f.image, 0), "me");
	assert_string_equal(policy_rule_ticket(f.image, 0), "T-1");
	assert_string_equal(policy_rule_comment(f.image, 0), "a b");
	assert_string_equal(policy_rule_comment(f.image, 1), "");
	assert_string_equal(policy_rule_name(f.image, POLICY_NO_RULE), "default");
	assert_int_equal(policy_rule_source(f.image, 99).family, ADDR_NONE);
	assert_int_equal(policy_group_count(f.image), 3);
	assert_string_equal(policy_group_name(f.image, 0), "eng");
	assert_string_equal(policy_group_name(f.image, 1), "hr");
	assert_string_equal(policy_group_name(f.image, 2), "it ops");
	fixture_close(&f);
}

static void test_explain_tells_what_failed(void **unused)
{
	struct name name = fixture_name("x.test");
	struct addr answers[2] = {fixture_addr("10.0.0.1"), fixture_addr("192.0.2.1")};
	struct policy_request r = {.command = POLICY_CONNECT, .port = 443, .name = &name};
	struct policy_decision d;
	struct fixture f;
	char *text;

	(void)unused;
	fixture_open(&f, "window w { mon-fri 08:00-18:00 }\nrule a deny port 80\nrule c allow during w\nrule b deny");
	struct policy_context ctx = {.image = f.image, .now = fixture_time(2026, 11, 20, 10, 0)};

	text = policy_explain(&ctx, &r, answers, 2, NULL, 0, false, &d);
	assert_int_equal(d.verdict, POLICY_ALLOW);
	assert_non_null(strstr(text, "no: port 80"));
	assert_non_null(strstr(text, "window w is open until Fri 2026-11-20 18:00 UTC"));
	assert_non_null(strstr(text, "address guard: private 10.0.0.0/8"));
	free(text);
	text = policy_explain(&ctx, &r, answers, 2, NULL, 0, true, &d);
	assert_non_null(strstr(text, "\"verdict\": \"allow\""));
	free(text);
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_matches_is_deny),
		cmocka_unit_test(test_first_match_decides),
		cmocka_unit_test(test_a_request_without_sense_is_denied),
		cmocka_unit_test(test_domains_match_whole_labels),
		cmocka_unit_test(test_a_regex_matches_the_whole_name),
		cmocka_unit_test(test_a_regex_bomb_denies),
		cmocka_unit_test(test_regex_bombs_are_met_once_and_few),
		cmocka_unit_test(test_a_denied_name_is_never_looked_up),
		cmocka_unit_test(test_aliases_count_for_deny_rules_only),
		cmocka_unit_test(test_absent_is_false_and_negated_true_in_deny_only),
		cmocka_unit_test(test_a_user_without_groups_is_not_absent),
		cmocka_unit_test(test_countries),
		cmocka_unit_test(test_missing_country_data_denies),
		cmocka_unit_test(test_guarded_addresses),
		cmocka_unit_test(test_what_opens_the_guard),
		cmocka_unit_test(test_internal_opens_private_ranges_only),
		cmocka_unit_test(test_a_metadata_service_is_opened_by_itself_alone),
		cmocka_unit_test(test_own_listeners_stay_shut),
		cmocka_unit_test(test_embedded_addresses),
		cmocka_unit_test(test_own_nat64_prefix),
		cmocka_unit_test(test_mixed_answers),
		cmocka_unit_test(test_monitors_are_reported_and_decide_nothing),
		cmocka_unit_test(test_what_a_rule_tells),
		cmocka_unit_test(test_explain_tells_what_failed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
