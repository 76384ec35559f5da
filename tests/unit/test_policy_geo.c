#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "policy/geo_priv.h"
#include "tests/unit/policy_fixture.h"

/* libmaxminddb 1.7 loses a block of memory when it refuses a file whose description is damaged; whoever compiles a
 * database is short-lived. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libmaxminddb";
}

static char directory[] = "/tmp/policy-geo-XXXXXX";
static char path4[64], path6[64], path_bad[64];

static int make(const char *path, const char *version)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		execlp("perl", "perl", POLICY_SOURCE_DIR "/tests/policy/make-mmdb.pl", path, version, (char *)NULL);
		_exit(127);
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0 ? 0 : -1;
}

static int setup(void **unused)
{
	(void)unused;
	if (mkdtemp(directory) == NULL)
		return -1;
	snprintf(path4, sizeof path4, "%s/4.mmdb", directory);
	snprintf(path6, sizeof path6, "%s/6.mmdb", directory);
	snprintf(path_bad, sizeof path_bad, "%s/bad.mmdb", directory);
	return make(path4, "4") != 0 || make(path6, "6") != 0;
}

static int teardown(void **unused)
{
	(void)unused;
	unlink(path4);
	unlink(path6);
	unlink(path_bad);
	return rmdir(directory);
}

struct table {
	uint8_t *data;
	size_t len;
	struct policy_geo *geo;
};

static void open_table(struct table *t, const char *path)
{
	struct err why;

	if (policy_geo_compile(path, &t->data, &t->len, &why) != 0 || policy_geo_verify(t->data, t->len, &why) != 0)
		fail_msg("%s", why.text);
	t->geo = policy_geo_open(t->data, t->len, &why);
	assert_non_null(t->geo);
}

static void close_table(struct table *t)
{
	policy_geo_close(&t->geo);
	free(t->data);
}

static void check(const struct table *t, const char *address, const char *country)
{
	struct addr a = fixture_addr(address);
	char found[3];
	bool has = policy_geo_country(t->geo, &a, found);

	if (has != (country[0] != '\0') || strcmp(found, country) != 0)
		fail_msg("%s is in '%s', not '%s'", address, found, country);
}

static void check_v4(const struct table *t)
{
	check(t, "0.0.0.0", "");
	check(t, "7.255.255.255", "");
	check(t, "8.0.0.0", "US");
	check(t, "8.255.255.255", "US");
	check(t, "9.0.0.0", "");
	check(t, "192.0.1.255", "");
	check(t, "192.0.2.0", "DE");
	check(t, "192.0.2.127", "DE");
	check(t, "192.0.2.128", "FR");
	check(t, "192.0.3.0", "");
	check(t, "203.0.113.63", "KP");
	check(t, "203.0.113.64", "CH");
	check(t, "203.0.113.128", "KP");
	check(t, "198.51.100.7", "US");
	check(t, "198.51.100.8", "");
	check(t, "255.255.255.254", "");
	check(t, "255.255.255.255", "ZZ");
	check(t, "::ffff:192.0.2.0", "DE");
}

static void test_ipv4_database(void **unused)
{
	struct table t;

	(void)unused;
	open_table(&t, path4);
	check_v4(&t);
	check(&t, "2001:db8::1", "");
	check(&t, "::1", "");
	close_table(&t);
}

static void test_ipv6_database(void **unused)
{
	struct table t;

	(void)unused;
	open_table(&t, path6);
	check_v4(&t);
	check(&t, "2001:db8::", "NL");
	check(&t, "2001:db8:0:ffff:ffff:ffff:ffff:ffff", "NL");
	check(&t, "2001:db8:1::1", "BE");
	check(&t, "2001:db8:2::", "NL");
	check(&t, "2001:db9::", "");
	check(&t, "2606:4700::1", "US");
	check(&t, "ffff:ffff::1", "XX");
	/* The aliases of the IPv4 tree are left out: those forms are unfolded before. */
	check(&t, "2002:c000:200::1", "");
	check(&t, "2001:0:c000:200::1", "");
	check(&t, "::192.0.2.1", "");
	close_table(&t);
}

static void test_a_path_of_proc(void **unused)
{
	int fd = open(path6, O_RDONLY | O_CLOEXEC);
	char path[64];
	struct table t;

	(void)unused;
	assert_true(fd >= 0);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	open_table(&t, path);
	check_v4(&t);
	close_table(&t);
	close(fd);
}

static void test_missing_and_foreign_files(void **unused)
{
	static const char *const paths[] = {"/nonexistent", "/dev/null", "/etc/passwd", "/tmp"};
	uint8_t *data;
	size_t len;
	struct err why;

	(void)unused;
	for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
		assert_int_equal(policy_geo_compile(paths[i], &data, &len, &why), -1);
		assert_non_null(strstr(why.text, paths[i]));
	}
}

static void test_a_database_of_another_kind(void **unused)
{
	uint8_t *data;
	size_t len;
	struct err why;

	(void)unused;
	assert_int_equal(policy_asn_compile(path6, &data, &len, &why), -1);
	assert_non_null(strstr(why.text, "another kind"));
}

static void write_file(const char *path, const char *bytes, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, len), len);
	close(fd);
}

/* Whatever stands in the file: an error, or a table that is sound. */
static void try_file(const char *bytes, size_t len)
{
	uint8_t *data;
	size_t n;
	struct err why;

	write_file(path_bad, bytes, len);
	if (policy_geo_compile(path_bad, &data, &n, &why) != 0)
		return;
	assert_int_equal(policy_geo_verify(data, n, &why), 0);
	free(data);
}

static void test_damaged_databases(void **unused)
{
	size_t len;
	char *file = fixture_read(path6, &len);

	(void)unused;
	for (size_t n = 0; n < len; n += 7)
		try_file(file, n);
	for (size_t n = 0; n < len; n++) {
		char was = file[n];

		file[n] = (char)(was ^ 0x40);
		try_file(file, len);
		file[n] = (char)0xff;
		try_file(file, len);
		file[n] = was;
	}
	/* A tree that is nothing but loops. */
	memset(file, 0, 300);
	try_file(file, len);
	free(file);
}

static void test_damaged_tables_are_refused(void **unused)
{
	struct table t;
	struct err why;

	(void)unused;
	open_table(&t, path6);
	for (size_t n = 0; n < t.len; n++) {
		uint8_t *cut = malloc(n > 0 ? n : 1);

		memcpy(cut, t.data, n);
		assert_int_equal(policy_geo_verify(cut, n, &why), -1);
		assert_null(policy_geo_open(cut, n, &why));
		free(cut);
		t.data[n] ^= 0x10;
		assert_int_equal(policy_geo_verify(t.data, t.len, &why), -1);
		t.data[n] ^= 0x10;
	}
	close_table(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ipv4_database),	  cmocka_unit_test(test_ipv6_database),
		cmocka_unit_test(test_a_path_of_proc),	  cmocka_unit_test(test_missing_and_foreign_files),
		cmocka_unit_test(test_a_database_of_another_kind),
		cmocka_unit_test(test_damaged_databases), cmocka_unit_test(test_damaged_tables_are_refused),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
