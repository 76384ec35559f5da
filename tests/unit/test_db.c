#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include <fcntl.h>
#include <grp.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "schema/db.h"
#include "tests/unit/scratch.h"

static const char *const one[] = {"CREATE TABLE t (a INTEGER PRIMARY KEY, b BLOB) STRICT;", NULL};
static const char *const two[] = {"CREATE TABLE t (a INTEGER PRIMARY KEY, b BLOB) STRICT;",
				  "CREATE TABLE u (a INTEGER); INSERT INTO u VALUES (5);", NULL};
static const char *const broken[] = {"CREATE TABLE t (a INTEGER PRIMARY KEY, b BLOB) STRICT;",
				     "CREATE TABLE u (a INTEGER); CREATE TABLE u (a INTEGER);", NULL};
static const struct db_permit permits[] = {{.table = "t", .insert = true}, {.table = "u"}};

static struct db_options options(const char *const *migrations)
{
	return (struct db_options){
		.path = "test.db",
		.application_id = 77,
		.migrations = migrations,
		.permits = permits,
		.npermits = 2,
		.busy_timeout_ms = 50,
		.value_max_bytes = 4096,
	};
}

static struct db *must_open(const char *const *migrations)
{
	struct db_options o = options(migrations);
	struct err why = {""};
	struct db *db = db_open(&o, &why);

	if (db == NULL)
		fail_msg("%s", why.text);
	return db;
}

static void must_not_open(const struct db_options *o, const char *because)
{
	struct err why = {""};

	assert_null(db_open(o, &why));
	if (strstr(why.text, because) == NULL)
		fail_msg("\"%s\" does not say \"%s\"", why.text, because);
}

static int64_t one_number(struct db *db, const char *sql)
{
	struct err why = {""};
	struct db_stmt *s = db_prepare(db, sql, &why);

	if (s == NULL || db_step(s, &why) != DB_ROW)
		fail_msg("%s", why.text);
	int64_t n = db_i64(s, 0);

	db_finalize(&s);
	return n;
}

static void raw(const char *sql)
{
	sqlite3 *handle;

	assert_int_equal(sqlite3_open("test.db", &handle), SQLITE_OK);
	assert_int_equal(sqlite3_exec(handle, sql, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(handle);
}

static void test_created_private(void **state)
{
	mode_t old = umask(0);
	struct db *db = must_open(one);
	struct stat st;

	(void)state;
	umask(old);
	assert_int_equal(stat("test.db", &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(stat("test.db-wal", &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	db_close(&db);
	assert_null(db);
}

static void test_migrations(void **state)
{
	struct db *db = must_open(one);
	struct db_options newer = options(two), older = options(one), bad = options(broken), wrong = options(two);

	(void)state;
	db_close(&db);
	newer.read_only = true;
	must_not_open(&newer, "older than 2");
	must_not_open(&bad, "migrated");
	/* The failed one left nothing behind. */
	db = must_open(two);
	assert_int_equal(one_number(db, "SELECT a FROM u"), 5);
	db_close(&db);
	db = must_open(two);
	assert_int_equal(one_number(db, "SELECT count(*) FROM u"), 1);
	db_close(&db);
	must_not_open(&older, "newer gatewayd");
	wrong.application_id = 78;
	must_not_open(&wrong, "not the one that belongs here");
}

static void test_refused_files(void **state)
{
	struct db_options o = options(one);
	struct err why;

	(void)state;
	o.read_only = true;
	must_not_open(&o, "cannot open it");
	o.read_only = false;
	assert_int_equal(symlink("elsewhere.db", "test.db"), 0);
	must_not_open(&o, "cannot open or create it");
	o.read_only = true;
	struct db *db = NULL;

	o.path = "elsewhere.db";
	o.read_only = false;
	db = db_open(&o, &why);
	assert_non_null(db);
	db_close(&db);
	o.path = "test.db";
	o.read_only = true;
	must_not_open(&o, "cannot");
	unlink("test.db");
	int fd = open("test.db", O_WRONLY | O_CREAT, 0600);

	for (int i = 0; i < 200; i++)
		assert_int_equal(write(fd, "This is no database at all. ", 28), 28);
	close(fd);
	o.read_only = false;
	must_not_open(&o, "test.db: cannot");
}

static void refused(struct db *db, const char *sql)
{
	struct err why = {""};

	assert_null(db_prepare(db, sql, &why));
	if (strstr(why.text, "not authorized") == NULL && strstr(why.text, "prohibited") == NULL)
		fail_msg("\"%s\" is no refusal of %s", why.text, sql);
}

static void test_authorizer(void **state)
{
	struct db *db = must_open(two);

	(void)state;
	refused(db, "UPDATE t SET b = NULL");
	refused(db, "DELETE FROM t");
	refused(db, "INSERT INTO u VALUES (1)");
	refused(db, "DROP TABLE t");
	refused(db, "CREATE TABLE v (a)");
	refused(db, "SELECT * FROM sqlite_schema");
	refused(db, "ATTACH 'other.db' AS other");
	refused(db, "PRAGMA journal_mode=OFF");
	refused(db, "SELECT load_extension('x')");
	assert_int_equal(one_number(db, "SELECT count(*) FROM t"), 0);
	db_close(&db);
}

static void test_hostile_schema(void **state)
{
	struct db *db = must_open(one);
	struct err why;

	(void)state;
	db_close(&db);
	raw("CREATE TRIGGER evil AFTER INSERT ON t BEGIN DELETE FROM t; END");
	db = must_open(one);
	struct db_stmt *s = db_prepare(db, "INSERT INTO t (b) VALUES (NULL)", &why);

	assert_non_null(s);
	assert_int_equal(db_run(s, &why), 0);
	assert_int_equal(one_number(db, "SELECT count(*) FROM t"), 1);
	db_close(&db);
}

static void test_binding(void **state)
{
	struct db *db = must_open(one);
	static char big[8192];
	struct err why;
	size_t len;

	(void)state;
	struct db_stmt *put = db_prepare(db, "INSERT INTO t (b) VALUES (?1)", &why);
	struct db_stmt *get = db_prepare(db, "SELECT b, a FROM t ORDER BY a DESC LIMIT 1", &why);

	db_bind_blob(put, 1, "a\0b\xff", 4);
	assert_int_equal(db_run(put, &why), 0);
	assert_int_equal(db_last_rowid(db), 1);
	assert_int_equal(db_step(get, &why), DB_ROW);
	const void *data = db_bytes(get, 0, &len);

	assert_int_equal(len, 4);
	assert_memory_equal(data, "a\0b\xff", 4);
	db_text(get, 0, big, 2);
	assert_string_equal(big, "a");
	db_reset(get);
	/* A value beyond the bound is refused, and the statement works again. */
	db_bind_blob(put, 1, big, sizeof big);
	assert_int_equal(db_run(put, &why), -1);
	db_bind_blob(put, 1, "", 0);
	assert_int_equal(db_run(put, &why), 0);
	assert_int_equal(db_step(get, &why), DB_ROW);
	assert_false(db_is_null(get, 0));
	db_reset(get);
	db_bind_null(put, 1);
	assert_int_equal(db_run(put, &why), 0);
	assert_int_equal(db_step(get, &why), DB_ROW);
	assert_true(db_is_null(get, 0));
	db_close(&db);
}

/* ---- rows from memory ---- */

static const struct db_value given_one[] = {{.type = DB_INTEGER, .number = 5}, {.type = DB_BLOB, .data = "a\0b", .len = 3}};
static const struct db_value given_two[] = {{.type = DB_INTEGER, .number = 6}, {.type = DB_NULL}};
static const struct db_value given_bad[] = {{.type = DB_INTEGER, .number = 7}, {.type = DB_OTHER}};
static const struct db_value *const given[] = {given_one, given_two, given_one, given_bad};

static struct db_stmt *must_offer(struct db *db)
{
	struct err why = {""};
	struct db_stmt *put = NULL;

	if (db_offer(db, "u", "a, b", &why) == 0)
		put = db_prepare(db, "INSERT INTO t (a, b) SELECT a, b FROM u", &why);
	if (put == NULL)
		fail_msg("%s", why.text);
	return put;
}

static void test_given_rows(void **state)
{
	struct db *db = must_open(one);
	struct db_stmt *put = must_offer(db);
	struct err why = {""};

	(void)state;
	db_give(db, given, 0);
	assert_int_equal(db_insert_given(put, &why), 0);
	db_give(db, given, 2);
	assert_int_equal(db_insert_given(put, &why), 0);
	assert_int_equal(one_number(db, "SELECT count(*) FROM t"), 2);
	assert_int_equal(one_number(db, "SELECT length(b) FROM t WHERE a = 5"), 3);
	assert_int_equal(one_number(db, "SELECT count(*) FROM t WHERE a = 6 AND b IS NULL"), 1);
	/* One that cannot be: there twice, or of no type. */
	assert_int_equal(db_insert_given(put, &why), -1);
	assert_non_null(strstr(why.text, "UNIQUE"));
	db_give(db, given + 3, 1);
	assert_int_equal(db_insert_given(put, &why), -1);
	refused(db, "DELETE FROM t");
	refused(db, "INSERT INTO u VALUES (1, 2)");
	db_close(&db);
}

static void test_a_table_in_place_of_given_rows(void **state)
{
	struct err why = {""};
	struct db *db;

	(void)state;
	db = must_open(one);
	db_close(&db);
	raw("CREATE TABLE u (a, b); INSERT INTO u VALUES (8, x'00'), (9, x'01')");
	db = must_open(one);
	struct db_stmt *put = must_offer(db);

	db_give(db, given, 2);
	assert_int_equal(db_insert_given(put, &why), -1);
	assert_non_null(strstr(why.text, "other rows were written"));
	db_close(&db);
}

static void test_transactions(void **state)
{
	struct db *db = must_open(one), *other = must_open(one);
	struct err why = {""};
	struct db_stmt *put = db_prepare(db, "INSERT INTO t (b) VALUES (NULL)", &why);

	(void)state;
	assert_int_equal(db_begin(db, &why), 0);
	assert_int_equal(db_run(put, &why), 0);
	db_rollback(db);
	db_rollback(db); /* twice does no harm */
	assert_int_equal(one_number(db, "SELECT count(*) FROM t"), 0);
	assert_int_equal(db_begin(db, &why), 0);
	assert_int_equal(db_run(put, &why), 0);
	/* Busy: another writer waits, then says so; readers go on. */
	assert_int_equal(db_begin(other, &why), -1);
	assert_non_null(strstr(why.text, "locked"));
	assert_int_equal(one_number(other, "SELECT count(*) FROM t"), 0);
	assert_int_equal(db_commit(db, &why), 0);
	assert_int_equal(db_begin(other, &why), 0);
	assert_int_equal(one_number(other, "SELECT count(*) FROM t"), 1);
	db_rollback(other);
	db_close(&db);
	db_close(&other);
}

static void test_checkpoint(void **state)
{
	struct db_options o = options(one);
	struct err why;

	(void)state;
	o.manual_checkpoint = true;
	struct db *db = db_open(&o, &why);

	assert_non_null(db);
	struct db_stmt *put = db_prepare(db, "INSERT INTO t (b) VALUES (?1)", &why);
	static char page[4000];

	for (int i = 0; i < 2000; i++) {
		db_bind_blob(put, 1, page, sizeof page);
		assert_int_equal(db_run(put, &why), 0);
	}
	assert_true(db_wal_pages(db) >= 2000);
	assert_int_equal(db_checkpoint(db, &why), 0);
	assert_int_equal(db_wal_pages(db), 0);
	db_close(&db);
}

/* In a child without privileges, below a directory that it may not enter: 0 if all works. */
static int use_below_closed_home(void)
{
	struct db_options o = options(one);
	struct err why = {""};
	char here[4096];
	struct stat st;

	if (getcwd(here, sizeof here) == NULL)
		return 1;
	if (setgroups(0, NULL) != 0 || setresgid(65534, 65534, 65534) != 0 || setresuid(65534, 65534, 65534) != 0)
		return 2;
	if (stat(here, &st) == 0)
		return 3; /* the test would prove nothing */
	struct db *db = db_open(&o, &why);
	struct db_stmt *put = db == NULL ? NULL : db_prepare(db, "INSERT INTO t (b) VALUES (NULL)", &why);

	if (put == NULL || db_run(put, &why) != 0) {
		fprintf(stderr, "%s\n", why.text);
		return 4;
	}
	o.read_only = true;
	struct db *reader = db_open(&o, &why);

	if (reader == NULL || one_number(reader, "SELECT count(*) FROM t") != 1)
		return 5;
	db_close(&reader);
	db_close(&db);
	reader = db_open(&o, &why);
	if (reader == NULL || one_number(reader, "SELECT count(*) FROM t") != 1) {
		fprintf(stderr, "%s\n", why.text);
		return 6;
	}
	db_close(&reader);
	return 0;
}

static void test_below_closed_home(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(mkdir("home", 0700), 0);
	assert_int_equal(mkdir("home/state", 0755), 0);
	assert_int_equal(mkdir("home/state/audit", 0700), 0);
	assert_int_equal(chown("home/state/audit", 65534, 65534), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(chdir("home/state/audit") != 0 ? 1 : use_below_closed_home());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* A reader that comes while it is made finds it complete. */
static void test_read_while_it_is_made(void **state)
{
	struct db_options reading = options(two);
	struct db *db = must_open(one);
	struct err why = {""};
	int status;
	pid_t pid;

	(void)state;
	db_close(&db);
	pid = fork();
	if (pid == 0) {
		db = must_open(two);
		db_close(&db);
		_exit(0);
	}
	reading.read_only = true;
	reading.busy_timeout_ms = 5000;
	db = db_open(&reading, &why);
	if (db == NULL)
		fail_msg("%s", why.text);
	assert_int_equal(one_number(db, "SELECT a FROM u"), 5);
	db_close(&db);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_enter, scratch_leave)
	const struct CMUnitTest tests[] = {
		TEST(test_read_while_it_is_made), TEST(test_created_private), TEST(test_migrations),     TEST(test_refused_files),
		TEST(test_authorizer),	    TEST(test_hostile_schema), TEST(test_binding),
		TEST(test_given_rows),	    TEST(test_a_table_in_place_of_given_rows),
		TEST(test_transactions),    TEST(test_checkpoint),     TEST(test_below_closed_home),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
