#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "gatewayd/worker/socks5.h"

/* Reads from a block of exactly len bytes, so that a sanitizer sees a byte read behind it. */
struct block {
	uint8_t *bytes;
	size_t len;
};

static struct block block_of(const void *data, size_t len)
{
	struct block b = {.bytes = malloc(len + (len == 0)), .len = len};

	assert_non_null(b.bytes);
	if (len > 0)
		memcpy(b.bytes, data, len);
	return b;
}

static size_t used;
static struct socks5_methods methods;
static struct socks5_login login;
static struct request request;
static struct front_refusal why;

enum reader { METHODS, LOGIN, REQUEST };

static enum front_result read_with(enum reader reader, const uint8_t *in, size_t len)
{
	used = 0;
	memset(&why, 0, sizeof why);
	switch (reader) {
	case METHODS:
		return socks5_read_methods(in, len, &used, &methods, &why);
	case LOGIN:
		return socks5_read_login(in, len, &used, &login, &why);
	case REQUEST:
		return socks5_read_request(in, len, &used, &request, &why);
	}
	abort();
}

/* A whole message: every shorter part of it needs more, and what follows it is left alone. */
static void assert_whole(enum reader reader, const uint8_t *message, size_t len)
{
	uint8_t longer[1024];

	for (size_t part = 0; part < len; part++) {
		struct block b = block_of(message, part);

		assert_int_equal(read_with(reader, b.bytes, b.len), FRONT_MORE);
		free(b.bytes);
	}
	assert_true(len + 3 <= sizeof longer);
	memcpy(longer, message, len);
	memcpy(longer + len, "\5\1\0", 3); /* early data */
	assert_int_equal(read_with(reader, longer, len + 3), FRONT_DONE);
	assert_int_equal(used, len);
	assert_int_equal(read_with(reader, message, len), FRONT_DONE);
	assert_int_equal(used, len);
}

static void assert_refused(enum reader reader, const uint8_t *message, size_t len, enum reason reason)
{
	assert_int_equal(read_with(reader, message, len), FRONT_REFUSE);
	assert_int_equal(why.reason, reason);
	assert_non_null(why.detail);
}

/* ---- RFC 1928 section 3 ------------------------------------------------------------------------------------------- */

static void rfc1928_3_methods_of_every_count(void **state)
{
	static const unsigned counts[] = {0, 1, 2, 254, 255};
	uint8_t in[257] = {5};

	(void)state;
	for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
		in[1] = (uint8_t)counts[i];
		for (unsigned k = 0; k < counts[i]; k++)
			in[2 + k] = (uint8_t)(255 - k);
		assert_whole(METHODS, in, 2 + counts[i]);
		assert_int_equal(methods.count, counts[i]);
		assert_ptr_equal(methods.codes, in + 2);
	}
}

static void rfc1928_3_another_version_is_refused_at_its_first_byte(void **state)
{
	(void)state;
	for (unsigned version = 0; version < 256; version++) {
		uint8_t in[3] = {(uint8_t)version, 1, 0};

		if (version == 5)
			continue;
		assert_refused(METHODS, in, 1, REASON_PROTOCOL);
		assert_refused(METHODS, in, 3, REASON_PROTOCOL);
	}
}

static void rfc1928_3_our_order_chooses(void **state)
{
	static const uint8_t offered[] = {0x00, 0x01, 0x02}, password_first[] = {0x02, 0x00}, none_first[] = {0x00, 0x02},
			     gssapi[] = {0x03};
	struct socks5_methods client = {.codes = offered, .count = 3};

	(void)state;
	assert_int_equal(socks5_choose_method(&client, password_first, 2), 0x02);
	assert_int_equal(socks5_choose_method(&client, none_first, 2), 0x00);
	assert_int_equal(socks5_choose_method(&client, gssapi, 1), 0xff);
	assert_int_equal(socks5_choose_method(&client, NULL, 0), 0xff);
	client.count = 1;
	assert_int_equal(socks5_choose_method(&client, password_first, 2), 0x00);
	assert_int_equal(socks5_choose_method(&client, password_first, 1), 0xff);
	client = (struct socks5_methods){0};
	assert_int_equal(socks5_choose_method(&client, none_first, 2), 0xff);
}

/* ---- RFC 1929 section 2 -------------------------------------------------------------------------------------------- */

static size_t make_login(uint8_t *out, size_t user_len, size_t password_len)
{
	out[0] = 1;
	out[1] = (uint8_t)user_len;
	memset(out + 2, 'u', user_len);
	out[2 + user_len] = (uint8_t)password_len;
	memset(out + 3 + user_len, 'p', password_len);
	return 3 + user_len + password_len;
}

static void rfc1929_2_lengths_at_their_bounds(void **state)
{
	static const size_t lengths[] = {0, 1, 254, 255};
	uint8_t in[513];

	(void)state;
	for (size_t i = 0; i < 4; i++)
		for (size_t k = 0; k < 4; k++) {
			size_t len = make_login(in, lengths[i], lengths[k]);

			assert_whole(LOGIN, in, len);
			assert_int_equal(login.user_len, lengths[i]);
			assert_int_equal(login.password_len, lengths[k]);
			assert_ptr_equal(login.user, in + 2);
			assert_ptr_equal(login.password, in + 3 + lengths[i]);
		}
}

static void rfc1929_2_another_version_is_refused(void **state)
{
	(void)state;
	for (unsigned version = 0; version < 256; version++) {
		uint8_t in[1] = {(uint8_t)version};

		if (version != 1)
			assert_refused(LOGIN, in, 1, REASON_PROTOCOL);
	}
}

/* ---- RFC 1928 section 4 -------------------------------------------------------------------------------------------- */

static void rfc1928_4_connect_to_ipv4(void **state)
{
	static const uint8_t in[] = {5, 1, 0, 1, 192, 0, 2, 1, 0x01, 0xbb};
	struct addr want = addr_v4(0xc0000201);

	(void)state;
	assert_whole(REQUEST, in, sizeof in);
	assert_int_equal(request.command, POLICY_CONNECT);
	assert_false(request.has_name);
	assert_true(addr_equal(&request.address, &want));
	assert_int_equal(request.port, 443);
}

static void rfc1928_4_connect_to_ipv6(void **state)
{
	static const uint8_t in[] = {5, 1, 0, 4, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0xff, 0xff};

	(void)state;
	assert_whole(REQUEST, in, sizeof in);
	assert_false(request.has_name);
	assert_int_equal(request.address.family, ADDR_V6);
	assert_memory_equal(request.address.bytes, in + 4, 16);
	assert_int_equal(request.port, 65535);
}

static void rfc1928_4_a_mapped_address_is_its_ipv4_address(void **state)
{
	static const uint8_t in[] = {5, 1, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1, 0, 80};
	struct addr want = addr_v4(0x0a000001);

	(void)state;
	assert_whole(REQUEST, in, sizeof in);
	assert_true(addr_equal(&request.address, &want));
}

static size_t make_name(uint8_t *out, const void *name, size_t len, uint16_t port)
{
	memcpy(out, "\5\1\0\3", 4);
	out[4] = (uint8_t)len;
	memcpy(out + 5, name, len);
	out[5 + len] = (uint8_t)(port >> 8);
	out[6 + len] = (uint8_t)port;
	return 7 + len;
}

static void rfc1928_5_a_name_is_canonical(void **state)
{
	uint8_t in[300];
	size_t len = make_name(in, "WWW.Example.COM.", 16, 80);

	(void)state;
	assert_whole(REQUEST, in, len);
	assert_true(request.has_name);
	assert_string_equal(request.name.text, "www.example.com");
	assert_int_equal(request.name.len, 15);
	assert_int_equal(request.address.family, ADDR_NONE);
	assert_int_equal(request.port, 80);
}

static void rfc1928_5_names_at_their_bounds(void **state)
{
	uint8_t in[300];
	char name[256];
	size_t len;

	(void)state;
	for (size_t i = 0; i < sizeof name; i++)
		name[i] = i % 50 == 49 ? '.' : 'a';
	assert_whole(REQUEST, in, make_name(in, "a", 1, 1));
	assert_whole(REQUEST, in, make_name(in, name, 253, 1));
	assert_int_equal(request.name.len, 253);
	name[253] = '.';
	assert_whole(REQUEST, in, make_name(in, name, 254, 1));
	assert_int_equal(request.name.len, 253);
	name[253] = 'a';
	for (size_t n = 254; n <= 255; n++) {
		len = make_name(in, name, n, 1);
		for (size_t part = 0; part < len; part++)
			assert_int_equal(read_with(REQUEST, in, part), FRONT_MORE);
		assert_refused(REQUEST, in, len, REASON_BAD_NAME);
	}
	assert_refused(REQUEST, in, make_name(in, "", 0, 1), REASON_BAD_NAME);
}

static void rfc1928_5_an_address_sent_as_a_name_is_that_address(void **state)
{
	static const char *const spellings[] = {"127.0.0.1", "127.1", "0x7f.1", "0177.0.0.1", "2130706433", "127.0.0.1."};
	struct addr want = addr_v4(0x7f000001);
	uint8_t in[300];

	(void)state;
	for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
		assert_whole(REQUEST, in, make_name(in, spellings[i], strlen(spellings[i]), 1));
		assert_false(request.has_name);
		assert_true(addr_equal(&request.address, &want));
	}
	assert_whole(REQUEST, in, make_name(in, "::ffff:127.0.0.1", 16, 1));
	assert_true(addr_equal(&request.address, &want));
}

static void rfc1928_5_a_hostile_name_is_refused_with_its_bytes(void **state)
{
	static const struct {
		const char *text;
		size_t len;
	} names[] = {{"localhost\0.example", 18}, {"a b", 3}, {"a..b", 4}, {".a", 2}, {".", 1},
		     {"\xc3\xa4.example", 10},	{"a\n", 2}, {"a/b", 3},	 {"1.2.3.4.5", 9}, {"[::1]", 5}};
	uint8_t in[300];

	(void)state;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		size_t len = make_name(in, names[i].text, names[i].len, 1);

		for (size_t part = 0; part < len; part++)
			assert_int_equal(read_with(REQUEST, in, part), FRONT_MORE);
		assert_refused(REQUEST, in, len, REASON_BAD_NAME);
		assert_ptr_equal(why.name, in + 5);
		assert_int_equal(why.name_len, names[i].len);
	}
}

static void rfc1928_4_three_commands_and_no_other(void **state)
{
	uint8_t in[] = {5, 1, 0, 1, 192, 0, 2, 1, 0, 80};

	(void)state;
	for (unsigned command = 0; command < 256; command++) {
		in[1] = (uint8_t)command;
		if (command >= 1 && command <= 3) { /* CONNECT, BIND, UDP ASSOCIATE: the listener decides */
			assert_whole(REQUEST, in, sizeof in);
			assert_int_equal(request.command, command);
			continue;
		}
		/* Only once the whole request is there: the reply must not race its rest. */
		assert_int_equal(read_with(REQUEST, in, sizeof in - 1), FRONT_MORE);
		assert_refused(REQUEST, in, sizeof in, REASON_COMMAND);
		assert_int_equal(reason_socks5(why.reason), 0x07);
	}
}

static void rfc1928_5_every_other_address_type_is_refused(void **state)
{
	uint8_t in[] = {5, 1, 0, 0, 9};

	(void)state;
	for (unsigned type = 0; type < 256; type++) {
		in[3] = (uint8_t)type;
		if (type == 1 || type == 3 || type == 4)
			continue;
		assert_refused(REQUEST, in, sizeof in, REASON_ADDRESS_TYPE);
		assert_int_equal(reason_socks5(why.reason), 0x08);
	}
}

static void rfc1928_4_another_version_is_refused(void **state)
{
	uint8_t in[] = {4, 1, 0, 1, 192, 0, 2, 1, 0, 80};

	(void)state;
	assert_refused(REQUEST, in, 1, REASON_PROTOCOL);
	assert_refused(REQUEST, in, sizeof in, REASON_PROTOCOL);
}

/* The reserved byte is not ours to judge: clients in the field send others than 0. */
static void rfc1928_4_the_reserved_byte_is_ignored(void **state)
{
	static const uint8_t in[] = {5, 1, 0xff, 1, 192, 0, 2, 1, 0, 0};

	(void)state;
	assert_whole(REQUEST, in, sizeof in);
	assert_int_equal(request.port, 0);
}

/* ---- RFC 1928 section 6 -------------------------------------------------------------------------------------------- */

static void rfc1928_6_replies(void **state)
{
	static const uint8_t v4[] = {5, 0, 0, 1, 192, 0, 2, 1, 0x04, 0x38}, none[] = {5, 2, 0, 1, 0, 0, 0, 0, 0, 0};
	struct endpoint bound = {.addr = addr_v4(0xc0000201), .port = 1080};
	uint8_t out[SOCKS5_REPLY_MAX];

	(void)state;
	assert_int_equal(socks5_write_reply(out, 0, &bound), sizeof v4);
	assert_memory_equal(out, v4, sizeof v4);
	assert_int_equal(socks5_write_reply(out, 2, &(struct endpoint){0}), sizeof none);
	assert_memory_equal(out, none, sizeof none);
	assert_true(addr_parse("2001:db8::5", &bound.addr));
	assert_int_equal(socks5_write_reply(out, 0, &bound), 22);
	assert_int_equal(out[3], 4);
	assert_memory_equal(out + 4, bound.addr.bytes, 16);
	assert_int_equal(out[20] << 8 | out[21], 1080);
}

/* ---- RFC 1928 section 7 -------------------------------------------------------------------------------------------- */

static enum front_result read_datagram(const uint8_t *in, size_t len)
{
	struct block b = block_of(in, len);
	enum front_result result;

	used = 0;
	memset(&why, 0, sizeof why);
	memset(&request, 0xff, sizeof request);
	result = socks5_read_datagram(b.bytes, b.len, &used, &request, &why);
	free(b.bytes);
	return result;
}

static void assert_dropped(const uint8_t *in, size_t len, enum reason reason)
{
	assert_int_equal(read_datagram(in, len), FRONT_REFUSE);
	assert_int_equal(why.reason, reason);
}

/* A datagram is whole or nothing: there is no "more" to wait for.  With its header and any data it is done. */
static void assert_datagram(const uint8_t *in, size_t header)
{
	uint8_t longer[400];

	for (size_t len = 0; len < header; len++)
		assert_dropped(in, len, REASON_PROTOCOL);
	memcpy(longer, in, header);
	memset(longer + header, 0xff, sizeof longer - header);
	assert_int_equal(read_datagram(longer, sizeof longer), FRONT_DONE);
	assert_int_equal(used, header);
	assert_int_equal(read_datagram(in, header), FRONT_DONE); /* no data at all is a datagram too */
	assert_int_equal(used, header);
	assert_int_equal(request.command, POLICY_UDP);
}

static void rfc1928_7_datagrams_to_addresses(void **state)
{
	static const uint8_t v4[] = {0, 0, 0, 1, 192, 0, 2, 1, 0, 53}, v4_bounds[] = {0, 0, 0, 1, 255, 255, 255, 255, 255, 255},
			     v6[] = {0, 0, 0, 4, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0};
	struct addr want = addr_v4(0xc0000201);

	(void)state;
	assert_datagram(v4, sizeof v4);
	assert_true(addr_equal(&request.address, &want));
	assert_int_equal(request.port, 53);
	assert_false(request.has_name);
	assert_datagram(v4_bounds, sizeof v4_bounds);
	assert_int_equal(request.port, 65535);
	assert_datagram(v6, sizeof v6);
	assert_int_equal(request.address.family, ADDR_V6);
	assert_memory_equal(request.address.bytes, v6 + 4, 16);
	assert_int_equal(request.port, 0);
}

/* Mapped addresses are the IPv4 address that they hold, here as in requests: policy must see one form. */
static void rfc1928_7_a_mapped_address_is_its_ipv4_address(void **state)
{
	static const uint8_t in[] = {0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1, 0, 53};
	struct addr want = addr_v4(0x7f000001);

	(void)state;
	assert_datagram(in, sizeof in);
	assert_true(addr_equal(&request.address, &want));
}

static void rfc1928_7_datagrams_to_names(void **state)
{
	uint8_t in[300];
	char name[256];
	size_t len;

	(void)state;
	for (size_t i = 0; i < sizeof name; i++)
		name[i] = i % 50 == 49 ? '.' : 'a';
	static const size_t lengths[] = {1, 2, 252, 253};

	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
		len = make_name(in, name, lengths[i], 53);
		memset(in, 0, 3);
		assert_datagram(in, len);
		assert_true(request.has_name);
		assert_int_equal(request.name.len, lengths[i]);
	}
	static const size_t bad[] = {0, 254, 255};

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		len = make_name(in, name, bad[i], 53);
		memset(in, 0, 3);
		assert_dropped(in, len, REASON_BAD_NAME);
	}
	len = make_name(in, "127.0.0.1", 9, 53);
	memset(in, 0, 3);
	assert_datagram(in, len);
	assert_false(request.has_name);
	assert_int_equal(request.address.family, ADDR_V4);
	len = make_name(in, "a\0b", 3, 53);
	memset(in, 0, 3);
	assert_dropped(in, len, REASON_BAD_NAME);
}

static void rfc1928_7_fragments_are_told_apart(void **state)
{
	uint8_t in[] = {0, 0, 0, 1, 192, 0, 2, 1, 0, 53, 'x'};

	(void)state;
	for (unsigned frag = 1; frag < 256; frag++) {
		in[2] = (uint8_t)frag;
		assert_dropped(in, sizeof in, REASON_FRAGMENT);
		assert_dropped(in, 3, REASON_FRAGMENT);
	}
}

static void rfc1928_7_reserved_bytes_and_types(void **state)
{
	uint8_t in[32] = {0, 0, 0, 1};

	(void)state;
	for (unsigned i = 1; i < 256; i++)
		for (int k = 0; k < 2; k++) {
			in[k] = (uint8_t)i;
			assert_dropped(in, sizeof in, REASON_PROTOCOL);
			in[k] = 0;
		}
	for (unsigned type = 0; type < 256; type++) {
		in[3] = (uint8_t)type;
		if (type != 1 && type != 3 && type != 4)
			assert_dropped(in, sizeof in, REASON_ADDRESS_TYPE);
	}
}

/* Every length from 0 to 22 of nothing but one byte: refused or done, never beyond its end. */
static void rfc1928_7_short_datagrams(void **state)
{
	uint8_t in[22];

	(void)state;
	for (unsigned byte = 0; byte < 256; byte++) {
		memset(in, (int)byte, sizeof in);
		for (size_t len = 0; len <= sizeof in; len++)
			assert_int_equal(read_datagram(in, len), FRONT_REFUSE);
	}
}

/* What is written is what is read. */
static void rfc1928_7_headers_round_trip(void **state)
{
	static const char *const addresses[] = {"0.0.0.0", "255.255.255.255", "192.0.2.1", "::", "2001:db8::5"};
	static const uint16_t ports[] = {0, 1, 256, 65535};
	uint8_t out[SOCKS5_UDP_HEADER_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++)
		for (size_t k = 0; k < sizeof ports / sizeof *ports; k++) {
			struct endpoint from = {.port = ports[k]};

			assert_true(addr_parse(addresses[i], &from.addr));
			size_t len = socks5_write_datagram(out, &from);

			assert_int_equal(len, from.addr.family == ADDR_V6 ? 22 : 10);
			assert_int_equal(read_datagram(out, len), FRONT_DONE);
			assert_int_equal(used, len);
			assert_true(addr_equal(&request.address, &from.addr));
			assert_int_equal(request.port, ports[k]);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rfc1928_3_methods_of_every_count),
		cmocka_unit_test(rfc1928_3_another_version_is_refused_at_its_first_byte),
		cmocka_unit_test(rfc1928_3_our_order_chooses),
		cmocka_unit_test(rfc1929_2_lengths_at_their_bounds),
		cmocka_unit_test(rfc1929_2_another_version_is_refused),
		cmocka_unit_test(rfc1928_4_connect_to_ipv4),
		cmocka_unit_test(rfc1928_4_connect_to_ipv6),
		cmocka_unit_test(rfc1928_4_a_mapped_address_is_its_ipv4_address),
		cmocka_unit_test(rfc1928_5_a_name_is_canonical),
		cmocka_unit_test(rfc1928_5_names_at_their_bounds),
		cmocka_unit_test(rfc1928_5_an_address_sent_as_a_name_is_that_address),
		cmocka_unit_test(rfc1928_5_a_hostile_name_is_refused_with_its_bytes),
		cmocka_unit_test(rfc1928_4_three_commands_and_no_other),
		cmocka_unit_test(rfc1928_5_every_other_address_type_is_refused),
		cmocka_unit_test(rfc1928_4_another_version_is_refused),
		cmocka_unit_test(rfc1928_4_the_reserved_byte_is_ignored),
		cmocka_unit_test(rfc1928_6_replies),
		cmocka_unit_test(rfc1928_7_datagrams_to_addresses),
		cmocka_unit_test(rfc1928_7_a_mapped_address_is_its_ipv4_address),
		cmocka_unit_test(rfc1928_7_datagrams_to_names),
		cmocka_unit_test(rfc1928_7_fragments_are_told_apart),
		cmocka_unit_test(rfc1928_7_reserved_bytes_and_types),
		cmocka_unit_test(rfc1928_7_short_datagrams),
		cmocka_unit_test(rfc1928_7_headers_round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
