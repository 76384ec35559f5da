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

#include "gatewayd/worker/hosts.h"

static struct hosts *hosts;

static void parse(const void *text, size_t len)
{
	uint8_t *block = malloc(len + 1); /* without a terminator */

	assert_non_null(block);
	memcpy(block, text, len);
	hosts_free(&hosts);
	hosts = hosts_parse(block, len);
	assert_non_null(hosts);
	free(block); /* the table keeps nothing of it */
}

static int clear(void **state)
{
	(void)state;
	hosts_free(&hosts);
	return 0;
}

/* The addresses of a name, separated by blanks. */
static const char *find(const char *text)
{
	static char out[512];
	struct addr found[8], unused;
	struct name name;
	const char *why;
	char one[ADDR_TEXT_MAX];

	assert_int_equal(name_canonical(text, strlen(text), &name, &unused, &why), NAME_IS_NAME);
	size_t n = hosts_find(hosts, &name, found, 8);

	out[0] = '\0';
	for (size_t i = 0; i < n && i < 8; i++) {
		strcat(out, i == 0 ? "" : " ");
		strcat(out, addr_format(&found[i], one));
	}
	return out;
}

static void parse_text(const char *text)
{
	parse(text, strlen(text));
}

static void names_and_aliases(void **state)
{
	(void)state;
	parse_text("127.0.0.1 localhost\n"
	      "::1\tlocalhost ip6-localhost\n"
	      "  192.0.2.7   Server.Example.COM. server\n"
	      "192.0.2.8 server # not this\n"
	      "# 192.0.2.9 server\n"
	      "192.0.2.10 last");
	assert_string_equal(find("localhost"), "127.0.0.1 ::1");
	assert_string_equal(find("ip6-localhost"), "::1");
	assert_string_equal(find("server.example.com"), "192.0.2.7");
	assert_string_equal(find("SERVER"), "192.0.2.7 192.0.2.8");
	assert_string_equal(find("last"), "192.0.2.10");
	assert_string_equal(find("this"), "");
	assert_string_equal(find("example.com"), "");
	assert_string_equal(find("serve"), "");
}

static void line_ends_and_comments(void **state)
{
	(void)state;
	parse_text("192.0.2.1 a\r\n192.0.2.2 b#c\n\n\n \t \n;192.0.2.3 d\n192.0.2.4 e");
	assert_string_equal(find("a"), "192.0.2.1");
	assert_string_equal(find("b"), "192.0.2.2");
	assert_string_equal(find("c"), "");
	assert_string_equal(find("d"), "");
	assert_string_equal(find("e"), "192.0.2.4");
}

static void senseless_lines_are_skipped(void **state)
{
	static const char nul[] = "192.0.2.1 a\0b c\n192.0.2.2 d\n";

	(void)state;
	parse_text("nonsense a\n192.0.2 a\n192.0.2.1\n192.0.2.1 1.2.3.4 a..b \xc3\xa4 ok\nfe80::1%eth0 a\n"
	      "1111111111111111111111111111111111111111111111111111111111 a\n192.0.2.3 fine\n");
	assert_string_equal(find("a"), "");
	assert_string_equal(find("ok"), "192.0.2.1");
	assert_string_equal(find("fine"), "192.0.2.3");
	parse(nul, sizeof nul - 1);
	assert_string_equal(find("a"), "");
	assert_string_equal(find("c"), "192.0.2.1");
	assert_string_equal(find("d"), "192.0.2.2");
}

static void a_mapped_address_is_folded(void **state)
{
	(void)state;
	parse_text("::ffff:10.0.0.1 a\n");
	assert_string_equal(find("a"), "10.0.0.1");
}

static void empty_tables(void **state)
{
	(void)state;
	parse_text("");
	assert_string_equal(find("a"), "");
	parse_text("\n");
	assert_string_equal(find("a"), "");
}

static void more_than_the_caller_takes_are_counted(void **state)
{
	char text[2000] = "", line[32];
	struct addr found[3];
	struct name name = {.len = 1, .text = "n"};

	(void)state;
	for (int i = 1; i <= 70; i++) {
		snprintf(line, sizeof line, "192.0.2.%d n\n", i);
		strcat(text, line);
	}
	parse_text(text);
	assert_int_equal(hosts_find(hosts, &name, found, 3), 70);
	assert_int_equal(found[2].bytes[3], 3);
	assert_int_equal(hosts_find(hosts, &name, found, 0), 70);
}

static void many_names_are_found(void **state)
{
	char *text = malloc(200000), line[64];
	size_t len = 0;

	(void)state;
	assert_non_null(text);
	for (int i = 0; i < 5000; i++)
		len += (size_t)sprintf(text + len, "10.%d.%d.1 host%d\n", i / 256, i % 256, i);
	parse(text, len);
	for (int i = 0; i < 5000; i += 7) {
		char want[32];

		snprintf(line, sizeof line, "host%d", i);
		snprintf(want, sizeof want, "10.%d.%d.1", i / 256, i % 256);
		assert_string_equal(find(line), want);
	}
	free(text);
}

/* ---- resolv.conf(5) --------------------------------------------------------------------------------------------------- */

static const char *servers(const char *text, size_t max)
{
	static char out[512];
	struct endpoint ep[8];
	char one[ENDPOINT_TEXT_MAX];
	size_t n = resolv_conf_servers((const uint8_t *)text, strlen(text), ep, max);

	assert_true(n <= max);
	out[0] = '\0';
	for (size_t i = 0; i < n; i++) {
		strcat(out, i == 0 ? "" : " ");
		strcat(out, endpoint_format(&ep[i], one));
	}
	return out;
}

static void nameserver_lines(void **state)
{
	(void)state;
	assert_string_equal(servers("# made by hand\nsearch example.com\nnameserver 192.0.2.53\n"
				    "nameserver\t2001:db8::53 # the other\noptions ndots:5\n",
				    8),
			    "192.0.2.53:53 [2001:db8::53]:53");
	assert_string_equal(servers("nameserver 192.0.2.53", 8), "192.0.2.53:53");
	assert_string_equal(servers("nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n", 2),
			    "192.0.2.1:53 192.0.2.2:53");
}

static void what_is_no_nameserver(void **state)
{
	(void)state;
	assert_string_equal(servers("", 8), "");
	assert_string_equal(servers("nameserver\nnameserver x\nnameservers 192.0.2.1\n;nameserver 192.0.2.2\n", 8), "");
	assert_string_equal(servers("domain nameserver 192.0.2.1\n", 8), "");
}

#define TEST(f) cmocka_unit_test_teardown(f, clear)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(names_and_aliases),   TEST(line_ends_and_comments),
		TEST(senseless_lines_are_skipped), TEST(a_mapped_address_is_folded),
		TEST(empty_tables),	   TEST(more_than_the_caller_takes_are_counted),
		TEST(many_names_are_found), TEST(nameserver_lines),
		TEST(what_is_no_nameserver),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
