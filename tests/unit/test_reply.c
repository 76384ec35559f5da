#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <errno.h>

#include "gatewayd/worker/reply.h"

/* RFC 1928 section 6: what a client can tell apart. */
static void codes_of_the_rfc(void **state)
{
	(void)state;
	assert_int_equal(reason_socks5(REASON_NONE), 0x00);
	assert_int_equal(reason_socks5(REASON_FAULT), 0x01);
	assert_int_equal(reason_socks5(REASON_AUDIT), 0x01);
	assert_int_equal(reason_socks5(REASON_POLICY), 0x02);
	assert_int_equal(reason_socks5(REASON_NET_UNREACHABLE), 0x03);
	assert_int_equal(reason_socks5(REASON_HOST_UNREACHABLE), 0x04);
	assert_int_equal(reason_socks5(REASON_NO_SUCH_NAME), 0x04);
	assert_int_equal(reason_socks5(REASON_REFUSED), 0x05);
	assert_int_equal(reason_socks5(REASON_TTL_EXPIRED), 0x06);
	assert_int_equal(reason_socks5(REASON_COMMAND), 0x07);
	assert_int_equal(reason_socks5(REASON_ADDRESS_TYPE), 0x08);
	assert_int_equal(reason_socks5(REASON_NO_METHOD), 0xff);
}

/* Only no reason is a success; the words in the audit tell every reason from every other. */
static void every_reason_has_a_code_and_a_word_of_its_own(void **state)
{
	(void)state;
	assert_string_equal(reason_word(REASON_NONE), "");
	for (unsigned i = REASON_NONE + 1; i < REASON_COUNT; i++) {
		uint8_t code = reason_socks5((enum reason)i);

		assert_true((code >= 0x01 && code <= 0x08) || code == 0xff);
		assert_true(reason_word((enum reason)i)[0] != '\0');
		for (unsigned k = REASON_NONE + 1; k < i; k++)
			assert_string_not_equal(reason_word((enum reason)i), reason_word((enum reason)k));
	}
}

static void errors_of_connect(void **state)
{
	(void)state;
	assert_int_equal(reason_of_errno(ECONNREFUSED), REASON_REFUSED);
	assert_int_equal(reason_of_errno(ENETUNREACH), REASON_NET_UNREACHABLE);
	assert_int_equal(reason_of_errno(ENETDOWN), REASON_NET_UNREACHABLE);
	assert_int_equal(reason_of_errno(EHOSTUNREACH), REASON_HOST_UNREACHABLE);
	assert_int_equal(reason_of_errno(EACCES), REASON_HOST_UNREACHABLE);
	assert_int_equal(reason_of_errno(ETIMEDOUT), REASON_CONNECT_TIMEOUT);
	assert_int_equal(reason_of_errno(EADDRNOTAVAIL), REASON_CONNECT_FAILED);
	assert_int_equal(reason_of_errno(0), REASON_CONNECT_FAILED);
	assert_int_equal(reason_of_errno(-1), REASON_CONNECT_FAILED);
}

static void of_several_failures_the_most_telling_is_kept(void **state)
{
	(void)state;
	assert_int_equal(reason_worse(REASON_NET_UNREACHABLE, REASON_REFUSED), REASON_REFUSED);
	assert_int_equal(reason_worse(REASON_REFUSED, REASON_NET_UNREACHABLE), REASON_REFUSED);
	assert_int_equal(reason_worse(REASON_NONE, REASON_CONNECT_FAILED), REASON_CONNECT_FAILED);
	assert_int_equal(reason_worse(REASON_CONNECT_TIMEOUT, REASON_HOST_UNREACHABLE), REASON_CONNECT_TIMEOUT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(codes_of_the_rfc),
		cmocka_unit_test(every_reason_has_a_code_and_a_word_of_its_own),
		cmocka_unit_test(errors_of_connect),
		cmocka_unit_test(of_several_failures_the_most_telling_is_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
