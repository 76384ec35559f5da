#include "config.h"

#include "common/addr.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <arpa/inet.h>
#include <cmocka.h>
#include <string.h>

static struct addr parsed(const char *text)
{
	struct addr a;

	assert_true(addr_parse(text, &a));
	return a;
}

static void test_text_round_trips(void **unused)
{
	static const char *const texts[] = {
		"0.0.0.0", "255.255.255.255", "192.0.2.1", "::", "::1", "2001:db8::1", "fe80::1:2"};
	char buf[ADDR_TEXT_MAX];

	(void)unused;
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
		struct addr a = parsed(texts[i]);

		assert_string_equal(addr_format(&a, buf), texts[i]);
	}
}

static void test_only_strict_text_is_an_address(void **unused)
{
	static const char *const texts[] = {"",		 "1",	      "1.2.3",	      "1.2.3.4.5", "01.2.3.4",
					    "0x1.2.3.4", "1.2.3.256", "1.2.3.4 ",     " 1.2.3.4",  "[::1]",
					    ":::",	 "1::2::3",   "fe80::1%eth0", "::12345"};
	struct addr a;

	(void)unused;
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
		assert_false(addr_parse(texts[i], &a));
}

static void test_mapped_is_its_ipv4_address(void **unused)
{
	struct addr mapped = parsed("::ffff:192.0.2.1"), v4 = parsed("192.0.2.1");
	uint8_t bytes[16] = {[10] = 0xff, 0xff, 192, 0, 2, 1};
	struct addr made = addr_v6(bytes);

	(void)unused;
	assert_int_equal(mapped.family, ADDR_V4);
	assert_true(addr_equal(&mapped, &v4));
	assert_true(addr_equal(&made, &v4));
	assert_int_equal(addr_len(&made), 4);
	assert_int_equal(addr_bits(&made), 32);
}

static void test_other_embedding_forms_are_not_folded(void **unused)
{
	(void)unused;
	assert_int_equal(parsed("::192.0.2.1").family, ADDR_V6);
	assert_int_equal(parsed("64:ff9b::192.0.2.1").family, ADDR_V6);
	assert_int_equal(parsed("::fffe:192.0.2.1").family, ADDR_V6);
}

static void test_order(void **unused)
{
	static const char *const ascending[] = {"0.0.0.0", "10.0.0.1", "10.0.0.2",  "255.255.255.255",
						"::",	   "::1",      "2001:db8::"};

	(void)unused;
	for (size_t i = 0; i < sizeof ascending / sizeof ascending[0]; i++) {
		for (size_t j = 0; j < sizeof ascending / sizeof ascending[0]; j++) {
			struct addr a = parsed(ascending[i]), b = parsed(ascending[j]);
			int order = addr_compare(&a, &b);

			assert_int_equal(order < 0, i < j);
			assert_int_equal(order > 0, i > j);
		}
	}
}

static void test_prefixes(void **unused)
{
	static const struct {
		const char *prefix, *address;
		bool in;
	} cases[] = {
		{"10.0.0.0/8", "10.255.255.255", true},
		{"10.0.0.0/8", "11.0.0.0", false},
		{"0.0.0.0/0", "255.0.0.1", true},
		{"0.0.0.0/0", "::1", false},
		{"192.0.2.128/25", "192.0.2.127", false},
		{"192.0.2.128/25", "192.0.2.129", true},
		{"192.0.2.1", "192.0.2.1", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"2001:db8::/33", "2001:db8:7fff::1", true},
		{"2001:db8::/33", "2001:db8:8000::1", false},
		{"::/0", "2001:db8::1", true},
		{"::/0", "1.2.3.4", false},
		{"::ffff:10.0.0.0/104", "10.1.2.3", true},
		{"::ffff:10.0.0.0/104", "11.1.2.3", false},
	};
	bool host_bits;

	(void)unused;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct addr a = parsed(cases[i].address);
		struct prefix p;

		assert_true(prefix_parse(cases[i].prefix, &p, &host_bits));
		assert_int_equal(prefix_contains(&p, &a), cases[i].in);
	}
}

static void test_prefix_faults(void **unused)
{
	static const char *const texts[] = {"10.0.0.0/33",  "::/129", "10.0.0.0/", "10.0.0.0/-1",
					    "10.0.0.0/08x", "/8",     "10/8",	   "::ffff:10.0.0.0/95"};
	struct prefix p;
	bool host_bits;

	(void)unused;
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
		assert_false(prefix_parse(texts[i], &p, &host_bits));
		assert_false(host_bits);
	}
	assert_false(prefix_parse("10.0.0.1/8", &p, &host_bits));
	assert_true(host_bits);
	assert_false(prefix_parse("2001:db8::1/64", &p, &host_bits));
	assert_true(host_bits);
}

static void test_prefix_covers(void **unused)
{
	struct prefix wide, narrow, other;
	char buf[PREFIX_TEXT_MAX];
	bool host_bits;

	(void)unused;
	assert_true(prefix_parse("10.0.0.0/8", &wide, &host_bits));
	assert_true(prefix_parse("10.1.0.0/16", &narrow, &host_bits));
	assert_true(prefix_parse("11.0.0.0/16", &other, &host_bits));
	assert_true(prefix_covers(&wide, &narrow));
	assert_true(prefix_covers(&wide, &wide));
	assert_false(prefix_covers(&narrow, &wide));
	assert_false(prefix_covers(&wide, &other));
	assert_string_equal(prefix_format(&narrow, buf), "10.1.0.0/16");
}

static void test_endpoints(void **unused)
{
	static const char *const fine[] = {"192.0.2.1:80", "[2001:db8::1]:65535", "0.0.0.0:0"};
	static const char *const faulty[] = {
		"192.0.2.1", "192.0.2.1:", "192.0.2.1:65536", "2001:db8::1:80", "[192.0.2.1]:80", "[2001:db8::1]",
		"[::1]80",   ":80",	   "192.0.2.1:+80",   "192.0.2.1:8 0",	"[]:80"};
	char buf[ENDPOINT_TEXT_MAX];
	struct endpoint ep;

	(void)unused;
	for (size_t i = 0; i < sizeof fine / sizeof fine[0]; i++) {
		assert_true(endpoint_parse(fine[i], &ep));
		assert_string_equal(endpoint_format(&ep, buf), fine[i]);
	}
	for (size_t i = 0; i < sizeof faulty / sizeof faulty[0]; i++)
		assert_false(endpoint_parse(faulty[i], &ep));
}

static void test_sockaddrs(void **unused)
{
	static const char *const texts[] = {"192.0.2.1:80", "[2001:db8::1]:443"};
	struct sockaddr_storage ss;
	struct endpoint ep, back;
	struct sockaddr_in6 mapped = {.sin6_family = AF_INET6};

	(void)unused;
	for (size_t i = 0; i < 2; i++) {
		assert_true(endpoint_parse(texts[i], &ep));
		socklen_t len = endpoint_to_sockaddr(&ep, &ss);

		assert_true(endpoint_from_sockaddr((struct sockaddr *)&ss, len, &back));
		assert_true(addr_equal(&ep.addr, &back.addr));
		assert_int_equal(ep.port, back.port);
		assert_false(endpoint_from_sockaddr((struct sockaddr *)&ss, len - 1, &back));
	}
	inet_pton(AF_INET6, "::ffff:192.0.2.1", &mapped.sin6_addr);
	assert_true(endpoint_from_sockaddr((struct sockaddr *)&mapped, sizeof mapped, &back));
	assert_int_equal(back.addr.family, ADDR_V4);
	ss.ss_family = AF_UNIX;
	assert_false(endpoint_from_sockaddr((struct sockaddr *)&ss, sizeof ss, &back));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text_round_trips),
		cmocka_unit_test(test_only_strict_text_is_an_address),
		cmocka_unit_test(test_mapped_is_its_ipv4_address),
		cmocka_unit_test(test_other_embedding_forms_are_not_folded),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_prefixes),
		cmocka_unit_test(test_prefix_faults),
		cmocka_unit_test(test_prefix_covers),
		cmocka_unit_test(test_endpoints),
		cmocka_unit_test(test_sockaddrs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
