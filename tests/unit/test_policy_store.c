#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <sodium.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include "schema/migrations.h"
#include "schema/policy_store.h"
#include "tests/unit/scratch.h"

static struct err why;

static struct policy_store *must_open(bool read_only)
{
	struct policy_store *s = policy_store_open("policy.db", read_only, &why);

	if (s == NULL)
		fail_msg("%s", why.text);
	return s;
}

static struct policy_new new_policy(const char *text)
{
	return (struct policy_new){.text = text,
				   .len = strlen(text),
				   .author_uid = 1000,
				   .author = "ann",
				   .source = "file",
				   .comment = "first",
				   .checks = "line 1: warning",
				   .time_us = 5000};
}

static uint32_t must_add(struct policy_store *s, const struct policy_new *n)
{
	uint32_t id;

	if (policy_store_add(s, n, &id, &why) != 0)
		fail_msg("%s", why.text);
	return id;
}

static uint32_t active(struct policy_store *s)
{
	uint32_t id;

	assert_int_equal(policy_store_active(s, &id, &why), 0);
	return id;
}

static void test_empty(void **state)
{
	struct policy_store *s = must_open(false);
	struct policy_revision r;
	struct policy_import import;

	(void)state;
	assert_int_equal(active(s), 0);
	assert_int_equal(policy_store_get(s, 1, &r, NULL, NULL, &why), 0);
	assert_int_equal(policy_store_import(s, &import, &why), 0);
	assert_int_equal(import.revision, 0);
	policy_store_close(&s);
	assert_null(s);
}

static void test_add_and_get(void **state)
{
	struct policy_store *s = must_open(false);
	struct policy_new n = new_policy("default deny\n");
	struct policy_revision r;
	uint8_t hash[POLICY_HASH_BYTES];
	char *text, *checks;
	struct stat st;

	(void)state;
	assert_int_equal(must_add(s, &n), 1);
	policy_store_close(&s);
	assert_int_equal(stat("policy.db", &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	s = must_open(true);
	assert_int_equal(active(s), 1);
	assert_int_equal(policy_store_get(s, 1, &r, &text, &checks, &why), 1);
	assert_string_equal(text, "default deny\n");
	assert_string_equal(checks, "line 1: warning");
	assert_string_equal(r.author, "ann");
	assert_string_equal(r.source, "file");
	assert_string_equal(r.comment, "first");
	assert_true(r.id == 1 && r.author_uid == 1000 && r.time_us == 5000 && r.len == n.len);
	policy_store_hash(n.text, n.len, hash);
	assert_memory_equal(r.hash, hash, sizeof hash);
	free(text);
	free(checks);
	/* A reader adds nothing. */
	policy_store_close(&s);
}

static void test_rollback_is_a_revision(void **state)
{
	struct policy_store *s = must_open(false);
	struct policy_new first = new_policy("default deny\n"), second = new_policy("default allow\n");
	struct policy_revision a, b;

	(void)state;
	must_add(s, &first);
	must_add(s, &second);
	first.source = "rollback";
	first.author = "bob \x1b[31m'; DROP TABLE revision; --";
	first.comment = NULL;
	first.checks = NULL;
	assert_int_equal(must_add(s, &first), 3);
	assert_int_equal(active(s), 3);
	assert_int_equal(policy_store_get(s, 1, &a, NULL, NULL, &why), 1);
	assert_int_equal(policy_store_get(s, 3, &b, NULL, NULL, &why), 1);
	assert_memory_equal(a.hash, b.hash, POLICY_HASH_BYTES);
	assert_string_equal(b.author, first.author);
	assert_string_equal(b.comment, "");
	policy_store_close(&s);
}

static void test_someone_was_faster(void **state)
{
	struct policy_store *s = must_open(false), *other = must_open(false);
	struct policy_new n = new_policy("default deny\n");
	uint32_t id;

	(void)state;
	n.check_active = true;
	n.if_active = 0;
	assert_int_equal(must_add(s, &n), 1);
	assert_int_equal(policy_store_add(other, &n, &id, &why), 1);
	assert_int_equal(id, 1);
	n.if_active = 1;
	assert_int_equal(must_add(other, &n), 2);
	assert_int_equal(policy_store_add(s, &n, &id, &why), 1);
	assert_int_equal(id, 2);
	assert_int_equal(active(s), 2);
	policy_store_close(&other);
	policy_store_close(&s);
}

static void test_imports(void **state)
{
	struct policy_store *s = must_open(false);
	struct policy_new n = new_policy("default deny\n");
	struct policy_import import;
	uint8_t hash[POLICY_HASH_BYTES];

	(void)state;
	n.imported = true;
	must_add(s, &n);
	struct policy_new other = new_policy("default allow\n");

	must_add(s, &other); /* not from the file: the import stays */
	policy_store_hash(n.text, n.len, hash);
	assert_int_equal(policy_store_import(s, &import, &why), 0);
	assert_int_equal(import.revision, 1);
	assert_int_equal(import.time_us, 5000);
	assert_memory_equal(import.hash, hash, sizeof hash);
	policy_store_close(&s);
}

static void on_file(const struct policy_file *f, void *arg)
{
	char *out = arg;

	snprintf(out + strlen(out), 256 - strlen(out), "%s=%.*s;", f->name, (int)f->len, f->text);
}

static int64_t count_contents(void)
{
	sqlite3 *handle;
	sqlite3_stmt *stmt;

	assert_int_equal(sqlite3_open("policy.db", &handle), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(handle, "SELECT count(*) FROM content", -1, &stmt, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
	int64_t count = sqlite3_column_int64(stmt, 0);

	sqlite3_finalize(stmt);
	sqlite3_close(handle);
	return count;
}

/* What a policy names is kept with it, and what has not changed is kept once. */
static void test_files_are_stored_once(void **state)
{
	struct policy_store *s = must_open(false);
	struct policy_new n = new_policy("include \"a\"\n");
	struct policy_file files[] = {{"lists/a", "x.example\n", 10}, {"lists/b", "x.example\n", 10}, {"c", "", 0}};
	struct policy_revision r;
	char out[256] = "";

	(void)state;
	n.name = "gateway.policy";
	n.files = files;
	n.nfiles = 3;
	assert_int_equal(must_add(s, &n), 1);
	assert_int_equal(count_contents(), 3);
	files[1].text = "y.example\n";
	assert_int_equal(must_add(s, &n), 2);
	assert_int_equal(count_contents(), 4);
	assert_int_equal(policy_store_get(s, 1, &r, NULL, NULL, &why), 1);
	assert_string_equal(r.name, "gateway.policy");
	assert_true(r.nfiles == 3 && r.files_bytes == 20);
	assert_int_equal(policy_store_files(s, 1, on_file, out, &why), 0);
	assert_string_equal(out, "lists/a=x.example\n;lists/b=x.example\n;c=;");
	out[0] = '\0';
	assert_int_equal(policy_store_files(s, 2, on_file, out, &why), 0);
	assert_string_equal(out, "lists/a=x.example\n;lists/b=y.example\n;c=;");
	n.nfiles = POLICY_FILES_MAX + 1;
	assert_int_equal(policy_store_add(s, &n, &(uint32_t){0}, &why), -1);
	policy_store_close(&s);
}

static bool on_revision(const struct policy_revision *r, void *arg)
{
	char *out = arg;

	snprintf(out + strlen(out), 64 - strlen(out), "%u ", r->id);
	return r->id != 4;
}

static void test_list(void **state)
{
	struct policy_store *s = must_open(false);
	char out[64] = "";

	(void)state;
	for (int i = 0; i < 6; i++) {
		struct policy_new n = new_policy("default deny\n");

		must_add(s, &n);
	}
	assert_int_equal(policy_store_list(s, 0, 2, on_revision, out, &why), 0);
	assert_string_equal(out, "6 5 ");
	assert_int_equal(policy_store_list(s, 4, 0, on_revision, out, &why), 0);
	assert_string_equal(out, "6 5 3 2 1 ");
	out[0] = '\0';
	assert_int_equal(policy_store_list(s, 0, 0, on_revision, out, &why), 0);
	assert_string_equal(out, "6 5 4 ");
	policy_store_close(&s);
}

static void test_bounds_and_bytes(void **state)
{
	struct policy_store *s = must_open(false);
	char *text, comment[POLICY_COMMENT_MAX + 2];
	struct policy_new n = new_policy("");
	struct policy_revision r;
	uint32_t id;

	(void)state;
	n.text = "a\0\xff";
	n.len = 3;
	must_add(s, &n);
	assert_int_equal(policy_store_get(s, 1, &r, &text, NULL, &why), 1);
	assert_int_equal(r.len, 3);
	assert_memory_equal(text, "a\0\xff", 4);
	free(text);
	n.len = 0;
	must_add(s, &n); /* an empty one, too */
	memset(comment, 'c', sizeof comment - 1);
	comment[sizeof comment - 1] = '\0';
	n.comment = comment;
	assert_int_equal(policy_store_add(s, &n, &id, &why), -1);
	n.comment = "";
	n.len = (size_t)POLICY_TEXT_MAX + 1;
	assert_int_equal(policy_store_add(s, &n, &id, &why), -1);
	assert_int_equal(active(s), 2);
	policy_store_close(&s);
}

/* A transaction that fails in its middle leaves the old revision active, and no trace. */
static void test_all_or_nothing(void **state)
{
	struct policy_store *s = must_open(false);
	struct policy_new n = new_policy("default deny\n");
	struct policy_revision r;
	sqlite3 *handle;
	uint32_t id;

	(void)state;
	must_add(s, &n);
	assert_int_equal(sqlite3_open("policy.db", &handle), SQLITE_OK);
	/* Two activations at one moment now fail, after the revision's own row was added. */
	assert_int_equal(sqlite3_exec(handle, "CREATE UNIQUE INDEX one_time ON activation (time)", NULL, NULL, NULL),
			 SQLITE_OK);
	sqlite3_close(handle);
	n.text = "default allow\n";
	n.len = strlen(n.text);
	assert_int_equal(policy_store_add(s, &n, &id, &why), -1);
	assert_int_equal(active(s), 1);
	assert_int_equal(policy_store_get(s, 2, &r, NULL, NULL, &why), 0);
	policy_store_close(&s);
}

static void edit(const char *sql)
{
	sqlite3 *handle;

	assert_int_equal(sqlite3_open("policy.db", &handle), SQLITE_OK);
	assert_int_equal(sqlite3_exec(handle, sql, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(handle);
}

/* What was changed behind the store's back is neither read nor built upon. */
static void test_damaged_texts_are_refused(void **state)
{
	struct policy_store *s = must_open(false);
	struct policy_new n = new_policy("rule ssh deny port 22\n");
	struct policy_file file = {"list", "x.example\n", 10};
	struct policy_revision r;
	char *text, out[256] = "";
	uint32_t id;

	(void)state;
	n.files = &file;
	n.nfiles = 1;
	must_add(s, &n);
	edit("UPDATE content SET text = CAST(replace(CAST(text AS TEXT), 'x.ex', 'y.ex') AS BLOB)");
	assert_int_equal(policy_store_get(s, 1, &r, &text, NULL, &why), 1);
	free(text);
	assert_int_equal(policy_store_files(s, 1, on_file, out, &why), -1);
	assert_non_null(strstr(why.text, "damaged"));
	assert_string_equal(out, "");
	edit("UPDATE content SET text = CAST(replace(CAST(text AS TEXT), 'deny', 'allow') AS BLOB)");
	assert_int_equal(policy_store_get(s, 1, &r, &text, NULL, &why), -1);
	assert_non_null(strstr(why.text, "damaged"));
	assert_int_equal(policy_store_add(s, &n, &id, &why), -1);
	assert_non_null(strstr(why.text, "damaged"));
	assert_int_equal(active(s), 1);
	policy_store_close(&s);
}

static void test_trials(void **state)
{
	struct policy_store *s = must_open(false);
	struct policy_new n = new_policy("one");
	struct policy_revision *r = malloc(sizeof *r);
	struct policy_trial t;
	uint32_t id;

	(void)state;
	n.lasts_us = 100;
	assert_int_equal(policy_store_add(s, &n, &id, &why), -1); /* nothing could return */
	assert_int_equal(active(s), 0);
	n.lasts_us = 0;
	assert_int_equal(must_add(s, &n), 1);
	assert_int_equal(policy_store_trial(s, &t, &why), 0);
	assert_int_equal(policy_store_confirm(s, 1, 6000, 7, "bob", &why), 1);
	n.text = "two";
	n.lasts_us = 100;
	assert_int_equal(must_add(s, &n), 2);
	assert_int_equal(policy_store_trial(s, &t, &why), 1);
	assert_true(t.revision == 2 && t.previous == 1 && t.until_us == 5100 && t.lasts_us == 100 && t.author_uid == 1000);
	assert_string_equal(t.author, "ann");
	/* What returns is what nobody tries. */
	n.text = "six";
	n.lasts_us = 200;
	assert_int_equal(must_add(s, &n), 3);
	assert_int_equal(policy_store_trial(s, &t, &why), 1);
	assert_true(t.revision == 3 && t.previous == 1 && t.until_us == 5200);
	assert_int_equal(policy_store_confirm(s, 2, 6000, 7, "bob", &why), 1);
	policy_store_close(&s);
	s = must_open(false);
	assert_int_equal(policy_store_trial(s, &t, &why), 1);
	assert_int_equal(policy_store_confirm(s, 3, 6000, 7, "bob", &why), 0);
	assert_int_equal(policy_store_confirm(s, 3, 6000, 7, "bob", &why), 1);
	assert_int_equal(policy_store_trial(s, &t, &why), 0);
	assert_int_equal(policy_store_get(s, 3, r, NULL, NULL, &why), 1);
	assert_true(r->trial_until_us == 5200 && r->confirmed_us == 6000);
	assert_string_equal(r->confirmed_by, "bob");
	assert_int_equal(policy_store_get(s, 2, r, NULL, NULL, &why), 1);
	assert_true(r->trial_until_us == 5100 && r->confirmed_us == 0);
	/* Confirmed, it is what returns. */
	assert_int_equal(must_add(s, &n), 4);
	assert_int_equal(policy_store_trial(s, &t, &why), 1);
	assert_int_equal(t.previous, 3);
	free(r);
	policy_store_close(&s);
}

/* ---- approvals -------------------------------------------------------------------------------------------------- */

static uint32_t must_propose(struct policy_store *s, const char *text, uint32_t uid)
{
	struct policy_new n = new_policy(text);

	n.author_uid = uid;
	n.proposed_until_us = 10000;
	return must_add(s, &n);
}

static struct policy_judgement verdict(uint32_t revision, uint32_t uid, const char *word)
{
	return (struct policy_judgement){
		.revision = revision, .verdict = word, .time_us = 7000, .author_uid = uid, .author = "bob", .comment = "seen"};
}

/* 1, for a reason that says so. */
static void refused(int rc, const char *reason)
{
	assert_int_equal(rc, 1);
	if (strstr(why.text, reason) == NULL)
		fail_msg("'%s' is not in: %s", reason, why.text);
}

static void test_a_proposal_takes_effect_when_another_approves(void **state)
{
	struct policy_store *s = must_open(false);
	struct policy_new n = new_policy("one");
	struct policy_revision *r = malloc(sizeof *r);
	struct policy_waiting waiting[POLICY_PENDING_MAX];
	struct policy_judgement v = verdict(2, 1000, NULL);
	struct policy_import import;
	struct policy_trial t;
	size_t count;
	uint32_t id;

	(void)state;
	n.proposed_until_us = 10000;
	assert_int_equal(policy_store_add(s, &n, &id, &why), -1); /* a first one has nobody who could wait */
	n.proposed_until_us = 0;
	assert_int_equal(must_add(s, &n), 1);
	n.text = "two";
	n.imported = true;
	n.lasts_us = 300;
	n.proposed_until_us = 10000;
	assert_int_equal(must_add(s, &n), 2);
	assert_int_equal(active(s), 1);
	assert_int_equal(policy_store_trial(s, &t, &why), 0);
	assert_int_equal(policy_store_import(s, &import, &why), 0);
	assert_int_equal(import.revision, 0);
	policy_store_close(&s); /* it outlives everything */
	s = must_open(false);
	assert_int_equal(active(s), 1);
	assert_int_equal(policy_store_waiting(s, waiting, &count, &why), 0);
	assert_true(count == 1 && waiting[0].revision == 2 && waiting[0].base == 1 && waiting[0].until_us == 10000 && waiting[0].imported);
	assert_int_equal(policy_store_get(s, 2, r, NULL, NULL, &why), 1);
	assert_true(!policy_revision_ruled(r) && r->base == 1 && r->proposed_lasts_us == 300);
	assert_string_equal(r->verdict, "");
	/* Whose it is may not. */
	refused(policy_store_approvable(s, 2, 1000, 7000, r, &why), "it takes another administrator");
	refused(policy_store_approve(s, &v, &why), "it takes another administrator");
	assert_int_equal(active(s), 1);
	v.author_uid = 7;
	v.lasts_us = 200;
	assert_int_equal(policy_store_approvable(s, 2, 7, 7000, r, &why), 0);
	assert_int_equal(policy_store_approve(s, &v, &why), 0);
	assert_int_equal(active(s), 2);
	assert_int_equal(policy_store_waiting(s, waiting, &count, &why), 0);
	assert_int_equal(count, 0);
	assert_int_equal(policy_store_trial(s, &t, &why), 1);
	assert_true(t.revision == 2 && t.previous == 1 && t.until_us == 7200 && t.lasts_us == 200 && t.author_uid == 7);
	assert_string_equal(t.author, "bob");
	assert_int_equal(policy_store_import(s, &import, &why), 0);
	assert_true(import.revision == 2 && import.time_us == 7000);
	assert_int_equal(policy_store_get(s, 2, r, NULL, NULL, &why), 1);
	assert_true(policy_revision_ruled(r) && r->verdict_us == 7000 && r->verdict_uid == 7 && r->author_uid == 1000);
	assert_string_equal(r->verdict, POLICY_APPROVED);
	assert_string_equal(r->verdict_by, "bob");
	assert_string_equal(r->verdict_comment, "seen");
	assert_memory_equal(import.hash, r->hash, sizeof import.hash);
	/* Once. */
	refused(policy_store_approve(s, &v, &why), "has been approved already, by bob");
	v.verdict = POLICY_REJECTED;
	refused(policy_store_decline(s, &v, &why), "has been approved already, by bob");
	free(r);
	policy_store_close(&s);
}

static void test_a_proposal_that_is_not_approved(void **state)
{
	struct policy_store *s = must_open(false), *other = must_open(false);
	struct policy_new n = new_policy("one");
	struct policy_judgement v;
	struct policy_revision *r = malloc(sizeof *r);
	uint32_t over[POLICY_PENDING_MAX];
	size_t count;

	(void)state;
	must_add(s, &n);
	for (uint32_t id = 2; id <= 6; id++)
		assert_int_equal(must_propose(s, "other", 1000), id);
	v = verdict(2, 7, POLICY_REJECTED);
	assert_int_equal(policy_store_decline(s, &v, &why), 0);
	refused(policy_store_decline(other, &v, &why), "has been rejected already");
	refused(policy_store_approve(other, &v, &why), "has been rejected already, by bob");
	v = verdict(3, 1000, POLICY_WITHDRAWN);
	assert_int_equal(policy_store_decline(s, &v, &why), 0);
	v.author_uid = 7;
	refused(policy_store_approve(other, &v, &why), "has been withdrawn already");
	/* Its time is over, whether or not somebody has said so. */
	v = verdict(4, 7, NULL);
	v.time_us = 10000;
	refused(policy_store_approve(other, &v, &why), "has expired");
	assert_int_equal(policy_store_expire(s, 9999, 0, "gatewayd", over, &count, &why), 0);
	assert_int_equal(count, 0);
	v = verdict(99, 7, POLICY_REJECTED);
	refused(policy_store_approve(s, &v, &why), "there is no revision 99");
	v.revision = 1;
	refused(policy_store_approve(s, &v, &why), "waits for nobody's approval");
	refused(policy_store_decline(s, &v, &why), "waits for nobody's approval");
	/* Another takes effect meanwhile: the first approval of two is the last for both. */
	assert_int_equal(policy_store_last_verdicts(s, 7001, over, &count, &why), 0);
	assert_true(count == 2 && over[0] == 2 && over[1] == 3);
	v = verdict(5, 7, NULL);
	v.time_us = 7001;
	assert_int_equal(policy_store_approve(other, &v, &why), 0);
	v.revision = 6;
	refused(policy_store_approve(s, &v, &why), "revision 5 is now");
	assert_non_null(strstr(why.text, "gatewayctl policy diff 1 5"));
	v.verdict = POLICY_REJECTED;
	refused(policy_store_decline(s, &v, &why), "revision 5 is now");
	assert_int_equal(active(s), 5);
	assert_int_equal(policy_store_last_verdicts(s, 7001, over, &count, &why), 0);
	assert_true(count == 2 && over[0] == 4 && over[1] == 6);
	assert_int_equal(policy_store_get(s, 6, r, NULL, NULL, &why), 1);
	assert_false(policy_revision_ruled(r));
	assert_true(r->verdict_uid == 7 && r->verdict_us == 7001);
	assert_string_equal(r->verdict, POLICY_OUTDATED);
	assert_string_equal(r->verdict_by, "bob");
	assert_string_equal(r->verdict_comment, "revision 5 took effect");
	assert_int_equal(must_propose(s, "other", 1000), 7);
	assert_int_equal(must_propose(s, "other", 1000), 8);
	assert_int_equal(policy_store_get(s, 2, r, NULL, NULL, &why), 1);
	assert_false(policy_revision_ruled(r));
	assert_int_equal(policy_store_expire(s, 10000, 0, "gatewayd", over, &count, &why), 0);
	assert_true(count == 2 && over[0] == 7 && over[1] == 8);
	v.revision = 7;
	refused(policy_store_approve(other, &v, &why), "has expired");
	/* What a wrong clock dated. */
	assert_int_equal(must_propose(s, "other", 1000), 9);
	v = verdict(9, 7, POLICY_REJECTED);
	v.time_us = INT64_MAX;
	assert_int_equal(policy_store_decline(s, &v, &why), 0);
	assert_int_equal(policy_store_last_verdicts(s, 7001, over, &count, &why), 0);
	assert_true(count == 2 && over[0] == 7 && over[1] == 8);
	assert_int_equal(policy_store_expire(other, 10000, 0, "gatewayd", over, &count, &why), 0);
	assert_int_equal(count, 0);
	free(r);
	policy_store_close(&other);
	policy_store_close(&s);
}

static void test_so_many_wait(void **state)
{
	struct policy_store *s = must_open(false);
	struct policy_new n = new_policy("one");
	struct policy_waiting waiting[POLICY_PENDING_MAX];
	struct policy_judgement v = verdict(2, 7, POLICY_REJECTED);
	size_t count;
	uint32_t id;

	(void)state;
	must_add(s, &n);
	for (int i = 0; i < POLICY_PENDING_MAX; i++)
		must_propose(s, "other", 1000);
	n.proposed_until_us = 10000;
	assert_int_equal(policy_store_add(s, &n, &id, &why), -1);
	assert_non_null(strstr(why.text, "32 revisions wait"));
	assert_int_equal(policy_store_waiting(s, waiting, &count, &why), 0);
	assert_true(count == POLICY_PENDING_MAX && waiting[0].revision == 2 && waiting[count - 1].revision == 33);
	assert_int_equal(policy_store_decline(s, &v, &why), 0);
	assert_int_equal(must_add(s, &n), 34);
	n.proposed_until_us = 0;
	assert_int_equal(must_add(s, &n), 35); /* who needs no approval waits for none */
	assert_int_equal(active(s), 35);
	/* What was for another takes nobody's place. */
	assert_int_equal(policy_store_waiting(s, waiting, &count, &why), 0);
	assert_int_equal(count, 0);
	assert_int_equal(must_propose(s, "other", 1000), 36);
	policy_store_close(&s);
}

static void test_a_file_that_was_rejected(void **state)
{
	struct policy_store *s = must_open(false);
	struct policy_new n = new_policy("one");
	struct policy_judgement v = verdict(2, 7, POLICY_REJECTED);
	uint8_t hash[POLICY_HASH_BYTES];
	uint32_t id;

	(void)state;
	must_add(s, &n);
	n.text = "other";
	n.len = strlen(n.text);
	n.proposed_until_us = 10000;
	n.imported = true;
	policy_store_hash(n.text, n.len, hash);
	assert_int_equal(must_add(s, &n), 2);
	n.imported = false;
	assert_int_equal(must_add(s, &n), 3);
	assert_int_equal(policy_store_rejected_import(s, hash, &id, &why), 0);
	assert_int_equal(id, 0);
	v.revision = 3; /* not the file's */
	assert_int_equal(policy_store_decline(s, &v, &why), 0);
	assert_int_equal(policy_store_rejected_import(s, hash, &id, &why), 0);
	assert_int_equal(id, 0);
	v.revision = 2;
	assert_int_equal(policy_store_decline(s, &v, &why), 0);
	assert_int_equal(policy_store_rejected_import(s, hash, &id, &why), 0);
	assert_int_equal(id, 2);
	/* Another look at it, with another end. */
	n.imported = true;
	assert_int_equal(must_add(s, &n), 4);
	v.revision = 4;
	assert_int_equal(policy_store_approve(s, &v, &why), 0);
	assert_int_equal(policy_store_rejected_import(s, hash, &id, &why), 0);
	assert_int_equal(id, 0);
	policy_store_close(&s);
}

/* A store as an earlier gatewayd left it, of which these migrations had run. */
static void open_older(size_t migrations)
{
	static const char old[] =
		"PRAGMA application_id=0x6777706f; PRAGMA user_version=%zu;"
		"INSERT INTO content VALUES (1, x'%s', CAST('default deny' AS BLOB));"
		"INSERT INTO revision (id, content, time, author_uid, author, source, comment, checks) "
		"VALUES (1, 1, 5000, 1000, 'ann', 'file', '', '');"
		"INSERT INTO activation VALUES (1, 1, 5000, 1000);";
	struct policy_store *s;
	struct policy_revision r;
	struct policy_new n = new_policy("rule a deny\n");
	struct policy_file file = {"l", "1", 1};
	struct policy_judgement v;
	sqlite3 *handle;
	uint8_t hash[POLICY_HASH_BYTES];
	char *text, out[256] = "", hex[2 * sizeof hash + 1], sql[1024];

	policy_store_hash("default deny", 12, hash);
	snprintf(sql, sizeof sql, old, migrations, sodium_bin2hex(hex, sizeof hex, hash, sizeof hash));
	assert_int_equal(sqlite3_open("policy.db", &handle), SQLITE_OK);
	for (size_t i = 0; i < migrations; i++)
		assert_int_equal(sqlite3_exec(handle, schema_policy_migrations[i], NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_exec(handle, sql, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(handle);
	s = must_open(false);
	assert_int_equal(policy_store_get(s, active(s), &r, &text, NULL, &why), 1);
	assert_string_equal(text, "default deny");
	assert_true(r.nfiles == 0 && r.name[0] == '\0');
	free(text);
	n.files = &file;
	n.nfiles = 1;
	assert_int_equal(must_add(s, &n), 2);
	assert_int_equal(policy_store_files(s, 2, on_file, out, &why), 0);
	assert_string_equal(out, "l=1;");
	assert_int_equal(must_propose(s, "rule b deny\n", 1000), 3);
	v = verdict(3, 7, NULL);
	assert_int_equal(policy_store_approve(s, &v, &why), 0);
	assert_int_equal(active(s), 3);
	policy_store_close(&s);
	assert_int_equal(unlink("policy.db"), 0);
}

static void test_older_stores(void **state)
{
	(void)state;
	open_older(1);
	open_older(2);
	open_older(3);
	assert_null(schema_policy_migrations[4]);
}

/* Another who is at a change may be about to commit it. */
static void test_settled(void **state)
{
	struct policy_store *s = must_open(false);
	sqlite3 *other;

	(void)state;
	assert_int_equal(policy_store_settled(s, &why), 0);
	assert_int_equal(sqlite3_open("policy.db", &other), SQLITE_OK);
	assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(policy_store_settled(s, &why), -1);
	assert_int_equal(sqlite3_exec(other, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(policy_store_settled(s, &why), 0);
	sqlite3_close(other);
	policy_store_close(&s);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_enter, scratch_leave)
	const struct CMUnitTest tests[] = {
		TEST(test_empty),
		TEST(test_add_and_get),
		TEST(test_rollback_is_a_revision),
		TEST(test_someone_was_faster),
		TEST(test_imports),
		TEST(test_trials),
		TEST(test_settled),
		TEST(test_files_are_stored_once),
		TEST(test_older_stores),
		TEST(test_a_proposal_takes_effect_when_another_approves),
		TEST(test_a_proposal_that_is_not_approved),
		TEST(test_so_many_wait),
		TEST(test_a_file_that_was_rejected),
		TEST(test_list),
		TEST(test_bounds_and_bytes),
		TEST(test_all_or_nothing),
		TEST(test_damaged_texts_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
