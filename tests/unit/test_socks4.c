#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "gatewayd/worker/front.h"
#include "gatewayd/worker/socks4.h"

static size_t used;
static struct request request;
static struct socks4_user user;
static struct front_refusal why;
static uint8_t *block; /* of the last read: results point into it */

static int clear(void **state)
{
	(void)state;
	free(block);
	block = NULL;
	return 0;
}

/* Reads from a block of exactly len bytes, so that a sanitizer sees a byte read behind it. */
static enum front_result read_exactly(const void *in, size_t len)
{
	clear(NULL);
	block = malloc(len + (len == 0));
	assert_non_null(block);
	memcpy(block, in, len);
	used = 0;
	memset(&why, 0, sizeof why);
	memset(&user, 0, sizeof user);
	memset(&request, 0xff, sizeof request);
	return socks4_read_request(block, len, &used, &request, &user, &why);
}

static void assert_needs_more_until(const void *in, size_t len)
{
	for (size_t part = 0; part < len; part++)
		assert_int_equal(read_exactly(in, part), FRONT_MORE);
}

static void assert_whole(const void *in, size_t len)
{
	uint8_t longer[600];

	assert_needs_more_until(in, len);
	assert_true(len + 2 <= sizeof longer);
	memcpy(longer, in, len);
	memcpy(longer + len, "\0x", 2); /* early data */
	assert_int_equal(read_exactly(longer, len + 2), FRONT_DONE);
	assert_int_equal(used, len);
	assert_int_equal(read_exactly(in, len), FRONT_DONE);
	assert_int_equal(used, len);
}

static void assert_refused(const void *in, size_t len, enum reason reason)
{
	assert_int_equal(read_exactly(in, len), FRONT_REFUSE);
	assert_int_equal(why.reason, reason);
	assert_non_null(why.detail);
}

/* VN CD DSTPORT DSTIP USERID NULL [NAME NULL] */
static size_t make(uint8_t *out, uint8_t command, const char *ip, const void *id, size_t id_len, const void *name, size_t name_len)
{
	size_t at = 8;

	memcpy(out, "\4\0\1\xbb", 4);
	out[1] = command;
	memcpy(out + 4, ip, 4);
	memcpy(out + at, id, id_len);
	at += id_len;
	out[at++] = '\0';
	if (name == NULL)
		return at;
	memcpy(out + at, name, name_len);
	at += name_len;
	out[at++] = '\0';
	return at;
}

static void connect_and_bind_by_address(void **state)
{
	uint8_t in[600];
	struct addr want = addr_v4(0xc0000201);

	(void)state;
	for (uint8_t command = 1; command <= 2; command++) {
		assert_whole(in, make(in, command, "\xc0\x00\x02\x01", "ann", 3, NULL, 0));
		assert_int_equal(request.command, command);
		assert_false(request.has_name);
		assert_true(addr_equal(&request.address, &want));
		assert_int_equal(request.port, 443);
		assert_int_equal(user.len, 3);
		assert_memory_equal(user.text, "ann", 3);
	}
}

static void ports_at_their_bounds(void **state)
{
	static const uint16_t ports[] = {0, 1, 255, 256, 65535};
	uint8_t in[600];

	(void)state;
	for (size_t i = 0; i < sizeof ports / sizeof *ports; i++) {
		size_t len = make(in, 1, "\x7f\x00\x00\x01", "", 0, NULL, 0);

		in[2] = (uint8_t)(ports[i] >> 8);
		in[3] = (uint8_t)ports[i];
		assert_whole(in, len);
		assert_int_equal(request.port, ports[i]);
		assert_int_equal(user.len, 0);
	}
}

static void a_user_id_at_its_bounds(void **state)
{
	uint8_t in[600];
	char id[300];

	(void)state;
	memset(id, 'u', sizeof id);
	for (size_t len = 0; len <= SOCKS4_TEXT_MAX; len++) {
		assert_int_equal(read_exactly(in, make(in, 1, "\x7f\x00\x00\x01", id, len, NULL, 0)), FRONT_DONE);
		assert_int_equal(user.len, len);
	}
	assert_whole(in, make(in, 1, "\x7f\x00\x00\x01", id, 255, NULL, 0));
	/* The byte too many refuses, whether its end ever comes or not. */
	size_t len = make(in, 1, "\x7f\x00\x00\x01", id, 256, NULL, 0);

	assert_needs_more_until(in, 8 + 255 + 1);
	assert_refused(in, 8 + 256, REASON_PROTOCOL);
	assert_refused(in, len, REASON_PROTOCOL);
}

static void names_at_their_bounds(void **state)
{
	uint8_t in[700];
	char name[300];

	(void)state;
	for (size_t i = 0; i < sizeof name; i++)
		name[i] = i % 50 == 49 ? '.' : 'a';
	assert_whole(in, make(in, 1, "\0\0\0\1", "", 0, "a", 1));
	assert_whole(in, make(in, 1, "\0\0\0\xff", "ann", 3, name, 253));
	assert_true(request.has_name);
	assert_int_equal(request.name.len, 253);
	assert_int_equal(request.address.family, ADDR_NONE);
	for (size_t n = 254; n <= 255; n++) {
		size_t len = make(in, 1, "\0\0\0\1", "u", 1, name, n);

		assert_needs_more_until(in, len);
		assert_refused(in, len, REASON_BAD_NAME);
		assert_int_equal(why.name_len, n);
	}
	assert_refused(in, make(in, 1, "\0\0\0\1", "u", 1, name, 256), REASON_PROTOCOL);
	assert_refused(in, make(in, 1, "\0\0\0\1", "u", 1, name, 256) - 1, REASON_PROTOCOL);
	assert_refused(in, make(in, 1, "\0\0\0\1", "u", 1, "", 0), REASON_BAD_NAME);
}

/* The user id of a refused name is known all the same: the record tells it. */
static void a_hostile_name_is_refused_with_its_bytes(void **state)
{
	static const char *const names[] = {"a b", "a..b", ".", "\xc3\xa4.example", "a\n", "a/b", "1.2.3.4.5", "[::1]"};
	uint8_t in[600];

	(void)state;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		assert_refused(in, make(in, 1, "\0\0\0\1", "ann", 3, names[i], strlen(names[i])), REASON_BAD_NAME);
		assert_int_equal(why.name_len, strlen(names[i]));
		assert_memory_equal(why.name, names[i], why.name_len);
		assert_int_equal(user.len, 3);
	}
}

static void an_address_sent_as_a_name_is_that_address(void **state)
{
	static const char *const spellings[] = {"127.0.0.1", "127.1", "0x7f.1", "2130706433", "::ffff:127.0.0.1"};
	struct addr want = addr_v4(0x7f000001);
	uint8_t in[600];

	(void)state;
	for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
		assert_whole(in, make(in, 1, "\0\0\0\1", "", 0, spellings[i], strlen(spellings[i])));
		assert_false(request.has_name);
		assert_true(addr_equal(&request.address, &want));
	}
}

/* 4a is 0.0.0.x with x not 0; its neighbours are addresses. */
static void only_0_0_0_x_announces_a_name(void **state)
{
	static const char *const addresses[] = {"\0\0\0\0", "\0\0\1\1", "\0\1\0\1", "\1\0\0\1", "\0\0\1\0", "\xff\xff\xff\xff"};
	uint8_t in[600];

	(void)state;
	for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++) {
		assert_whole(in, make(in, 1, addresses[i], "u", 1, NULL, 0));
		assert_false(request.has_name);
		assert_memory_equal(request.address.bytes, addresses[i], 4);
	}
	for (unsigned x = 1; x < 256; x++) {
		const char ip[4] = {0, 0, 0, (char)x};

		assert_int_equal(read_exactly(in, make(in, 2, ip, "u", 1, "host.test", 9)), FRONT_DONE);
		assert_true(request.has_name);
		assert_string_equal(request.name.text, "host.test");
	}
}

static void every_other_command_is_refused_once_it_is_whole(void **state)
{
	uint8_t in[600];

	(void)state;
	for (unsigned command = 0; command < 256; command++) {
		size_t len = make(in, (uint8_t)command, "\x7f\x00\x00\x01", "u", 1, NULL, 0);

		if (command == 1 || command == 2)
			continue;
		assert_needs_more_until(in, len);
		assert_refused(in, len, REASON_COMMAND);
	}
}

static void another_version_is_refused_at_its_first_byte(void **state)
{
	(void)state;
	for (unsigned version = 0; version < 256; version++) {
		uint8_t in[1] = {(uint8_t)version};

		if (version != 4)
			assert_refused(in, 1, REASON_PROTOCOL);
	}
}

static void replies(void **state)
{
	static const uint8_t granted[] = {0, 90, 0x04, 0x38, 192, 0, 2, 1}, rejected[] = {0, 91, 0, 0, 0, 0, 0, 0},
			     v6[] = {0, 90, 0x04, 0x38, 0, 0, 0, 0};
	struct endpoint bound = {.addr = addr_v4(0xc0000201), .port = 1080}, nowhere = {0};
	uint8_t out[FRONT_REPLY_MAX];

	(void)state;
	assert_int_equal(front_write_reply(PROTOCOL_SOCKS4, out, REASON_NONE, &bound), SOCKS4_REPLY_LEN);
	assert_memory_equal(out, granted, sizeof granted);
	for (unsigned reason = REASON_NONE + 1; reason < REASON_COUNT; reason++) {
		assert_int_equal(front_write_reply(PROTOCOL_SOCKS4, out, (enum reason)reason, &nowhere), SOCKS4_REPLY_LEN);
		assert_memory_equal(out, rejected, sizeof rejected);
	}
	assert_true(addr_parse("2001:db8::5", &bound.addr));
	assert_int_equal(socks4_write_reply(out, 90, &bound), SOCKS4_REPLY_LEN);
	assert_memory_equal(out, v6, sizeof v6);
}

/* What answers is the protocol that asked; before that is known nothing is said. */
static void replies_of_every_protocol(void **state)
{
	struct endpoint nowhere = {0};
	uint8_t out[FRONT_REPLY_MAX];

	(void)state;
	assert_int_equal(front_write_reply(PROTOCOL_UNKNOWN, out, REASON_PROTOCOL, &nowhere), 0);
	assert_int_equal(front_write_reply(PROTOCOL_SOCKS5, out, REASON_POLICY, &nowhere), 10);
	assert_memory_equal(out, "\5\2\0\1", 4);
}

#define TEST(f) cmocka_unit_test_teardown(f, clear)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(connect_and_bind_by_address),
		TEST(ports_at_their_bounds),
		TEST(a_user_id_at_its_bounds),
		TEST(names_at_their_bounds),
		TEST(a_hostile_name_is_refused_with_its_bytes),
		TEST(an_address_sent_as_a_name_is_that_address),
		TEST(only_0_0_0_x_announces_a_name),
		TEST(every_other_command_is_refused_once_it_is_whole),
		TEST(another_version_is_refused_at_its_first_byte),
		TEST(replies),
		TEST(replies_of_every_protocol),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
