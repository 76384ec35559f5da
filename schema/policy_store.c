#include "config.h"

#include "schema/policy_store.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schema/db.h"
#include "schema/migrations.h"

#define APPLICATION_ID 0x6777706f /* "gwpo" */
#define BUSY_MS 2000

_Static_assert(POLICY_HASH_BYTES == crypto_generichash_BYTES, "the hash is libsodium's default");

struct policy_store {
	struct db *db;
	struct db_stmt *active, *find_content, *add_content, *add_revision, *activate, *add_import, *last_import, *get,
		*list, *text, *add_file, *files, *add_trial, *trial, *confirm, *add_proposal, *waiting, *add_verdict,
		*outdate, *last_verdicts, *judged_import;
};

static const struct db_permit permits[] = {
	{.table = "content", .insert = true},
	{.table = "revision", .insert = true},
	{.table = "activation", .insert = true},
	{.table = "import", .insert = true},
	{.table = "revision_file", .insert = true},
	{.table = "trial", .insert = true},
	{.table = "confirmation", .insert = true},
	{.table = "proposal", .insert = true},
	{.table = "verdict", .insert = true},
};

static const struct db_permit read_permits[] = {
	{.table = "content"}, {.table = "revision"}, {.table = "activation"}, {.table = "import"}, {.table = "revision_file"},
	{.table = "trial"}, {.table = "confirmation"}, {.table = "proposal"}, {.table = "verdict"}};

/* ---- opening --------------------------------------------------------------------------------------------------- */

#define REVISION_COLUMNS                                                                                               \
	"r.id, r.time, r.author_uid, r.author, r.source, r.comment, c.hash, length(c.text), r.checks, r.content, r.name, "      \
	"(SELECT count(*) FROM revision_file AS f WHERE f.revision = r.id), "                                          \
	"(SELECT sum(length(k.text)) FROM revision_file AS f JOIN content AS k ON k.id = f.content "       \
	"WHERE f.revision = r.id), t.until, k.time, k.author, "                                                     \
	"p.base, p.until, p.lasts, p.imported, v.verdict, v.time, v.author_uid, v.author, v.comment"
#define REVISION_FROM                                                                                                  \
	" FROM revision AS r JOIN content AS c ON c.id = r.content LEFT JOIN trial AS t ON t.revision = r.id "         \
	"LEFT JOIN confirmation AS k ON k.revision = r.id "                                                            \
	"LEFT JOIN proposal AS p ON p.revision = r.id LEFT JOIN verdict AS v ON v.revision = r.id "

enum { COL_ID, COL_TIME, COL_UID, COL_AUTHOR, COL_SOURCE, COL_COMMENT, COL_HASH, COL_LENGTH, COL_CHECKS, COL_CONTENT, COL_NAME,
       COL_FILES, COL_FILES_BYTES, COL_TRIAL_UNTIL, COL_CONFIRMED, COL_CONFIRMED_BY, COL_BASE, COL_PROPOSED_UNTIL,
       COL_PROPOSED_LASTS, COL_PROPOSED_IMPORT, COL_VERDICT, COL_VERDICT_TIME, COL_VERDICT_UID, COL_VERDICT_BY, COL_VERDICT_COMMENT };

static int prepare(struct policy_store *s, bool read_only, struct err *why)
{
	const struct {
		struct db_stmt **stmt;
		bool writes;
		const char *sql;
	} all[] = {
		{&s->active, false, "SELECT revision FROM activation ORDER BY id DESC LIMIT 1"},
		{&s->find_content, false, "SELECT id, text, hash FROM content WHERE hash = ?1"},
		{&s->get, false, "SELECT " REVISION_COLUMNS REVISION_FROM "WHERE r.id = ?1"},
		{&s->list, false,
		 "SELECT " REVISION_COLUMNS REVISION_FROM "WHERE r.id < ?1 ORDER BY r.id DESC LIMIT ?2"},
		{&s->text, false, "SELECT text, hash FROM content WHERE id = ?1"},
		{&s->last_import, false, "SELECT revision, hash, time FROM import ORDER BY id DESC LIMIT 1"},
		{&s->add_content, true, "INSERT INTO content (hash, text) VALUES (?1, ?2)"},
		{&s->add_revision, true,
		 "INSERT INTO revision (content, time, author_uid, author, source, comment, checks, name) "
		 "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"},
		{&s->add_file, true, "INSERT INTO revision_file (revision, position, name, content) VALUES (?1, ?2, ?3, ?4)"},
		{&s->files, false,
		 "SELECT f.name, c.text, c.hash FROM revision_file AS f JOIN content AS c ON c.id = f.content "
		 "WHERE f.revision = ?1 ORDER BY f.position"},
		{&s->activate, true, "INSERT INTO activation (revision, time, uid) VALUES (?1, ?2, ?3)"},
		{&s->add_trial, true, "INSERT INTO trial (revision, previous, until, lasts) VALUES (?1, ?2, ?3, ?4)"},
		{&s->trial, false,
		 "SELECT t.previous, t.until, t.lasts, CASE WHEN v.revision IS NULL THEN r.author_uid ELSE v.author_uid END, "
		 "CASE WHEN v.revision IS NULL THEN r.author ELSE v.author END "
		 "FROM trial AS t JOIN revision AS r ON r.id = t.revision LEFT JOIN verdict AS v ON v.revision = t.revision "
		 "WHERE t.revision = ?1 AND NOT EXISTS (SELECT 1 FROM confirmation AS k WHERE k.revision = t.revision)"},
		{&s->confirm, true, "INSERT INTO confirmation (revision, time, author_uid, author) VALUES (?1, ?2, ?3, ?4)"},
		{&s->add_proposal, true, "INSERT INTO proposal (revision, base, until, lasts, imported) VALUES (?1, ?2, ?3, ?4, ?5)"},
		{&s->waiting, false,
		 "SELECT p.revision, p.base, p.until, p.imported FROM proposal AS p "
		 "WHERE NOT EXISTS (SELECT 1 FROM verdict AS v WHERE v.revision = p.revision) ORDER BY p.revision LIMIT ?1"},
		{&s->add_verdict, true,
		 "INSERT INTO verdict (revision, verdict, time, author_uid, author, comment) VALUES (?1, ?2, ?3, ?4, ?5, ?6)"},
		{&s->outdate, true,
		 "INSERT INTO verdict (revision, verdict, time, author_uid, author, comment) "
		 "SELECT p.revision, '" POLICY_OUTDATED "', ?1, ?2, ?3, ?4 FROM proposal AS p "
		 "WHERE NOT EXISTS (SELECT 1 FROM verdict AS v WHERE v.revision = p.revision)"},
		{&s->last_verdicts, false,
		 "SELECT revision FROM verdict WHERE verdict <> '" POLICY_APPROVED "' "
		 "AND time = (SELECT max(time) FROM verdict WHERE time <= ?2) ORDER BY revision LIMIT ?1"},
		{&s->judged_import, false,
		 "SELECT v.revision, v.verdict FROM content AS c JOIN revision AS r ON r.content = c.id "
		 "JOIN proposal AS p ON p.revision = r.id JOIN verdict AS v ON v.revision = r.id "
		 "WHERE c.hash = ?1 AND p.imported = 1 AND v.verdict IN ('" POLICY_APPROVED "', '" POLICY_REJECTED "') "
		 "ORDER BY v.revision DESC LIMIT 1"},
		{&s->add_import, true, "INSERT INTO import (revision, hash, time) VALUES (?1, ?2, ?3)"},
	};

	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		if (!(read_only && all[i].writes) && (*all[i].stmt = db_prepare(s->db, all[i].sql, why)) == NULL)
			return -1;
	return 0;
}

struct policy_store *policy_store_open(const char *path, bool read_only, struct err *why)
{
	struct policy_store *s = calloc(1, sizeof *s);
	const struct db_options options = {
		.path = path,
		.read_only = read_only,
		.application_id = APPLICATION_ID,
		.migrations = schema_policy_migrations,
		.permits = read_only ? read_permits : permits,
		.npermits = sizeof permits / sizeof *permits,
		.busy_timeout_ms = BUSY_MS,
		.value_max_bytes = POLICY_LIST_MAX + 4096,
	};

	if (s == NULL || sodium_init() < 0) {
		err_set(why, "%s: out of memory", path);
		free(s);
		return NULL;
	}
	s->db = db_open(&options, why);
	if (s->db == NULL || prepare(s, read_only, why) != 0)
		policy_store_close(&s);
	return s;
}

void policy_store_close(struct policy_store **store)
{
	struct policy_store *s = *store;

	*store = NULL;
	if (s == NULL)
		return;
	db_close(&s->db);
	free(s);
}

int policy_store_settled(struct policy_store *s, struct err *why)
{
	if (db_begin(s->db, why) != 0)
		return -1;
	db_rollback(s->db);
	return 0;
}

void policy_store_hash(const void *text, size_t len, uint8_t hash[POLICY_HASH_BYTES])
{
	crypto_generichash(hash, POLICY_HASH_BYTES, text, len, NULL, 0);
}

/* ---- adding ---------------------------------------------------------------------------------------------------- */

int policy_store_active(struct policy_store *s, uint32_t *id, struct err *why)
{
	enum db_step rc = db_step(s->active, why);

	*id = rc == DB_ROW ? (uint32_t)db_i64(s->active, 0) : 0;
	db_reset(s->active);
	return rc == DB_FAILED ? -1 : 0;
}

/* True if the content in these columns is what was stored. */
static bool is_whole(struct db_stmt *s, int text_column, int hash_column)
{
	uint8_t hash[POLICY_HASH_BYTES];
	size_t len, hash_len;
	const void *text = db_bytes(s, text_column, &len), *stored = db_bytes(s, hash_column, &hash_len);

	policy_store_hash(text, len, hash);
	return hash_len == sizeof hash && memcmp(hash, stored, sizeof hash) == 0;
}

/* The id of this text's content, stored once however many revisions have it; -1 with *why. */
static int64_t content_id(struct policy_store *s, const char *text, size_t len, const uint8_t *hash, struct err *why)
{
	int64_t id = -1;

	db_bind_blob(s->find_content, 1, hash, POLICY_HASH_BYTES);
	enum db_step rc = db_step(s->find_content, why);

	if (rc == DB_ROW && is_whole(s->find_content, 1, 2))
		id = db_i64(s->find_content, 0);
	else if (rc == DB_ROW)
		err_set(why, "the store is damaged: it holds another text under the hash of this one");
	db_reset(s->find_content);
	if (rc != DB_DONE)
		return id;
	db_bind_blob(s->add_content, 1, hash, POLICY_HASH_BYTES);
	db_bind_blob(s->add_content, 2, text, len);
	return db_run(s->add_content, why) == 0 ? db_last_rowid(s->db) : -1;
}

static int add_revision(struct policy_store *s, const struct policy_new *n, int64_t content, uint32_t *id,
			struct err *why)
{
	db_bind_i64(s->add_revision, 1, content);
	db_bind_i64(s->add_revision, 2, n->time_us);
	db_bind_i64(s->add_revision, 3, n->author_uid);
	db_bind_text(s->add_revision, 4, n->author);
	db_bind_text(s->add_revision, 5, n->source);
	db_bind_text(s->add_revision, 6, n->comment == NULL ? "" : n->comment);
	db_bind_text(s->add_revision, 7, n->checks == NULL ? "" : n->checks);
	db_bind_text(s->add_revision, 8, n->name == NULL ? "" : n->name);
	if (db_run(s->add_revision, why) != 0)
		return -1;
	int64_t row = db_last_rowid(s->db);

	if (row > UINT32_MAX)
		return err_set(why, "the policy store holds all the revisions it can");
	*id = (uint32_t)row;
	return 0;
}

static int add_files(struct policy_store *s, const struct policy_new *n, uint32_t id, struct err *why)
{
	uint8_t hash[POLICY_HASH_BYTES];
	int64_t content;

	for (size_t i = 0; i < n->nfiles; i++) {
		const struct policy_file *f = &n->files[i];

		policy_store_hash(f->text, f->len, hash);
		content = content_id(s, f->text, f->len, hash, why);
		if (content < 0)
			return -1;
		db_bind_i64(s->add_file, 1, id);
		db_bind_i64(s->add_file, 2, (int64_t)i + 1);
		db_bind_text(s->add_file, 3, f->name);
		db_bind_i64(s->add_file, 4, content);
		if (db_run(s->add_file, why) != 0)
			return -1;
	}
	return 0;
}

/* 1, 0 or -1: whether this revision, the active one, is on trial. */
static int read_trial(struct policy_store *s, uint32_t active, struct policy_trial *out, struct err *why)
{
	*out = (struct policy_trial){.revision = active};
	db_bind_i64(s->trial, 1, active);
	enum db_step rc = db_step(s->trial, why);

	if (rc == DB_ROW) {
		out->previous = (uint32_t)db_i64(s->trial, 0);
		out->until_us = db_i64(s->trial, 1);
		out->lasts_us = db_i64(s->trial, 2);
		out->author_uid = (uint32_t)db_i64(s->trial, 3);
		db_text(s->trial, 4, out->author, sizeof out->author);
	}
	db_reset(s->trial);
	return rc == DB_FAILED ? -1 : rc == DB_ROW;
}

/* What returns is what ruled last without being on trial itself. */
static int add_trial(struct policy_store *s, uint32_t id, uint32_t active, int64_t time_us, int64_t lasts_us, struct err *why)
{
	struct policy_trial before;
	int rc;

	if (lasts_us == 0)
		return 0;
	if (active == 0)
		return err_set(why, "there is no revision yet that could return");
	rc = read_trial(s, active, &before, why);
	if (rc < 0)
		return -1;
	db_bind_i64(s->add_trial, 1, id);
	db_bind_i64(s->add_trial, 2, rc == 1 ? before.previous : active);
	db_bind_i64(s->add_trial, 3, time_us + lasts_us);
	db_bind_i64(s->add_trial, 4, lasts_us);
	return db_run(s->add_trial, why);
}

/* What waited was to take the place of another, and can never be approved any more. */
static int outdate(struct policy_store *s, uint32_t id, int64_t time_us, uint32_t uid, const char *author, struct err *why)
{
	char text[64];

	snprintf(text, sizeof text, "revision %u took effect", id);
	db_bind_i64(s->outdate, 1, time_us);
	db_bind_i64(s->outdate, 2, uid);
	db_bind_text(s->outdate, 3, author);
	db_bind_text(s->outdate, 4, text);
	return db_run(s->outdate, why);
}

/* imported: hash is that of the policy file's text. */
static int activate(struct policy_store *s, uint32_t id, int64_t time_us, uint32_t uid, const char *author, bool imported,
		    const uint8_t *hash, struct err *why)
{
	db_bind_i64(s->activate, 1, id);
	db_bind_i64(s->activate, 2, time_us);
	db_bind_i64(s->activate, 3, uid);
	if (db_run(s->activate, why) != 0 || outdate(s, id, time_us, uid, author, why) != 0)
		return -1;
	if (!imported)
		return 0;
	db_bind_i64(s->add_import, 1, id);
	db_bind_blob(s->add_import, 2, hash, POLICY_HASH_BYTES);
	db_bind_i64(s->add_import, 3, time_us);
	return db_run(s->add_import, why);
}

/* Nothing but its number and its texts: it decides nothing. */
static int propose(struct policy_store *s, const struct policy_new *n, uint32_t id, uint32_t active, struct err *why)
{
	struct policy_waiting waiting[POLICY_PENDING_MAX];
	size_t count;

	if (active == 0)
		return err_set(why, "there is no revision yet that it could take the place of");
	if (policy_store_waiting(s, waiting, &count, why) != 0)
		return -1;
	if (count == POLICY_PENDING_MAX)
		return err_set(why, "%d revisions wait for approval already: have some approved or rejected (gatewayctl policy pending)",
			       POLICY_PENDING_MAX);
	db_bind_i64(s->add_proposal, 1, id);
	db_bind_i64(s->add_proposal, 2, active);
	db_bind_i64(s->add_proposal, 3, n->proposed_until_us);
	db_bind_i64(s->add_proposal, 4, n->lasts_us);
	db_bind_i64(s->add_proposal, 5, n->imported);
	return db_run(s->add_proposal, why);
}

static int add_in_transaction(struct policy_store *s, const struct policy_new *n, uint32_t *id, struct err *why)
{
	uint8_t hash[POLICY_HASH_BYTES];
	uint32_t active;
	int64_t content;

	if (policy_store_active(s, &active, why) != 0)
		return -1;
	if (n->check_active && active != n->if_active) {
		*id = active;
		return 1;
	}
	policy_store_hash(n->text, n->len, hash);
	content = content_id(s, n->text, n->len, hash, why);
	if (content < 0 || add_revision(s, n, content, id, why) != 0 || add_files(s, n, *id, why) != 0)
		return -1;
	if (n->proposed_until_us != 0)
		return propose(s, n, *id, active, why);
	return add_trial(s, *id, active, n->time_us, n->lasts_us, why) != 0
		       ? -1
		       : activate(s, *id, n->time_us, n->author_uid, n->author, n->imported, hash, why);
}

static int check_bounds(const struct policy_new *n, struct err *why)
{
	if (n->len > POLICY_TEXT_MAX)
		return err_set(why, "the policy has %zu bytes; the store takes %u", n->len, POLICY_TEXT_MAX);
	if (n->nfiles > POLICY_FILES_MAX)
		return err_set(why, "the policy names %zu files; the store takes %d", n->nfiles, POLICY_FILES_MAX);
	for (size_t i = 0; i < n->nfiles; i++)
		if (n->files[i].len > POLICY_LIST_MAX)
			return err_set(why, "%s has %zu bytes; the store takes %u", n->files[i].name, n->files[i].len,
				       POLICY_LIST_MAX);
	if (n->comment != NULL && strlen(n->comment) > POLICY_COMMENT_MAX)
		return err_set(why, "the comment is longer than %d bytes", POLICY_COMMENT_MAX);
	if (n->checks != NULL && strlen(n->checks) > POLICY_CHECKS_MAX)
		return err_set(why, "the result of the checks is longer than %d bytes", POLICY_CHECKS_MAX);
	return 0;
}

int policy_store_add(struct policy_store *s, const struct policy_new *n, uint32_t *id, struct err *why)
{
	int rc;

	*id = 0;
	if (check_bounds(n, why) != 0)
		return -1;
	if (db_begin(s->db, why) != 0)
		return -1;
	rc = add_in_transaction(s, n, id, why);
	if (rc == 0)
		rc = db_commit(s->db, why);
	if (rc != 0)
		db_rollback(s->db);
	return rc;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

static void read_revision(struct db_stmt *s, struct policy_revision *r)
{
	size_t len;
	const void *hash = db_bytes(s, COL_HASH, &len);

	*r = (struct policy_revision){
		.id = (uint32_t)db_i64(s, COL_ID),
		.time_us = db_i64(s, COL_TIME),
		.author_uid = (uint32_t)db_i64(s, COL_UID),
		.len = (size_t)db_i64(s, COL_LENGTH),
	};
	if (len == POLICY_HASH_BYTES)
		memcpy(r->hash, hash, len);
	db_text(s, COL_AUTHOR, r->author, sizeof r->author);
	db_text(s, COL_SOURCE, r->source, sizeof r->source);
	db_text(s, COL_COMMENT, r->comment, sizeof r->comment);
	db_text(s, COL_NAME, r->name, sizeof r->name);
	r->nfiles = (uint32_t)db_i64(s, COL_FILES);
	r->files_bytes = (uint64_t)db_i64(s, COL_FILES_BYTES);
	r->trial_until_us = db_i64(s, COL_TRIAL_UNTIL);
	r->confirmed_us = db_i64(s, COL_CONFIRMED);
	db_text(s, COL_CONFIRMED_BY, r->confirmed_by, sizeof r->confirmed_by);
	r->base = (uint32_t)db_i64(s, COL_BASE);
	r->proposed_until_us = db_i64(s, COL_PROPOSED_UNTIL);
	r->proposed_lasts_us = db_i64(s, COL_PROPOSED_LASTS);
	r->proposed_import = db_i64(s, COL_PROPOSED_IMPORT) != 0;
	db_text(s, COL_VERDICT, r->verdict, sizeof r->verdict);
	r->verdict_us = db_i64(s, COL_VERDICT_TIME);
	r->verdict_uid = (uint32_t)db_i64(s, COL_VERDICT_UID);
	db_text(s, COL_VERDICT_BY, r->verdict_by, sizeof r->verdict_by);
	db_text(s, COL_VERDICT_COMMENT, r->verdict_comment, sizeof r->verdict_comment);
}

bool policy_revision_ruled(const struct policy_revision *r)
{
	return r->base == 0 || strcmp(r->verdict, POLICY_APPROVED) == 0;
}

/* A malloc'd, terminated copy of a column, or NULL. */
static char *copy_of(struct db_stmt *s, int column)
{
	size_t len;
	const void *data = db_bytes(s, column, &len);
	char *copy = malloc(len + 1);

	if (copy != NULL) {
		memcpy(copy, data, len);
		copy[len] = '\0';
	}
	return copy;
}

static int get_text(struct policy_store *s, int64_t content, char **text, struct err *why)
{
	db_bind_i64(s->text, 1, content);
	enum db_step rc = db_step(s->text, why);
	bool whole = rc == DB_ROW && is_whole(s->text, 0, 1);

	if (whole)
		*text = copy_of(s->text, 0);
	db_reset(s->text);
	if (rc == DB_FAILED)
		return -1;
	if (rc == DB_ROW && !whole)
		return err_set(why, "the store is damaged: the text of the revision is not what was stored");
	return *text == NULL
		       ? err_set(why, "the text of a revision cannot be read: out of memory, or the store is damaged")
		       : 0;
}

int policy_store_get(struct policy_store *s, uint32_t id, struct policy_revision *out, char **text, char **checks,
		     struct err *why)
{
	int64_t content = 0;

	if (text != NULL)
		*text = NULL;
	if (checks != NULL)
		*checks = NULL;
	db_bind_i64(s->get, 1, id);
	enum db_step rc = db_step(s->get, why);

	if (rc == DB_ROW) {
		read_revision(s->get, out);
		content = db_i64(s->get, COL_CONTENT);
		if (checks != NULL)
			*checks = copy_of(s->get, COL_CHECKS);
	}
	db_reset(s->get);
	if (rc != DB_ROW)
		return rc == DB_DONE ? 0 : -1;
	if (checks != NULL && *checks == NULL)
		return err_set(why, "out of memory");
	if (text != NULL && get_text(s, content, text, why) != 0) {
		if (checks != NULL) {
			free(*checks);
			*checks = NULL;
		}
		return -1;
	}
	return 1;
}

int policy_store_files(struct policy_store *s, uint32_t id, void (*file)(const struct policy_file *f, void *arg), void *arg,
		       struct err *why)
{
	char name[POLICY_NAME_MAX + 1];
	enum db_step rc;
	bool whole = true;

	db_bind_i64(s->files, 1, id);
	while ((rc = db_step(s->files, why)) == DB_ROW) {
		struct policy_file f = {.name = name};

		db_text(s->files, 0, name, sizeof name);
		whole = is_whole(s->files, 1, 2);
		if (!whole)
			break;
		f.text = db_bytes(s->files, 1, &f.len);
		file(&f, arg);
	}
	db_reset(s->files);
	if (!whole)
		return err_set(why, "the store is damaged: %.200s is not what was stored", name);
	return rc == DB_FAILED ? -1 : 0;
}

int policy_store_list(struct policy_store *s, uint32_t before, unsigned limit, policy_row *row, void *arg,
		      struct err *why)
{
	struct policy_revision r;
	enum db_step rc;

	db_bind_i64(s->list, 1, before == 0 ? INT64_MAX : before);
	db_bind_i64(s->list, 2, limit == 0 ? -1 : (int64_t)limit);
	while ((rc = db_step(s->list, why)) == DB_ROW) {
		read_revision(s->list, &r);
		if (!row(&r, arg))
			break;
	}
	db_reset(s->list);
	return rc == DB_FAILED ? -1 : 0;
}

int policy_store_import(struct policy_store *s, struct policy_import *out, struct err *why)
{
	enum db_step rc = db_step(s->last_import, why);

	*out = (struct policy_import){0};
	if (rc == DB_ROW) {
		size_t len;
		const void *hash = db_bytes(s->last_import, 1, &len);

		out->revision = (uint32_t)db_i64(s->last_import, 0);
		if (len == POLICY_HASH_BYTES)
			memcpy(out->hash, hash, len);
		out->time_us = db_i64(s->last_import, 2);
	}
	db_reset(s->last_import);
	return rc == DB_FAILED ? -1 : 0;
}

/* ---- trials ---------------------------------------------------------------------------------------------------- */

int policy_store_trial(struct policy_store *s, struct policy_trial *out, struct err *why)
{
	uint32_t active;

	*out = (struct policy_trial){0};
	if (policy_store_active(s, &active, why) != 0)
		return -1;
	return read_trial(s, active, out, why);
}

static int confirm_in_transaction(struct policy_store *s, uint32_t revision, int64_t time_us, uint32_t author_uid, const char *author,
				  struct err *why)
{
	struct policy_trial t;
	int rc = policy_store_trial(s, &t, why);

	if (rc != 1 || t.revision != revision)
		return rc < 0 ? -1 : 1;
	db_bind_i64(s->confirm, 1, revision);
	db_bind_i64(s->confirm, 2, time_us);
	db_bind_i64(s->confirm, 3, author_uid);
	db_bind_text(s->confirm, 4, author);
	return db_run(s->confirm, why);
}

int policy_store_confirm(struct policy_store *s, uint32_t revision, int64_t time_us, uint32_t author_uid, const char *author,
			 struct err *why)
{
	int rc;

	if (db_begin(s->db, why) != 0)
		return -1;
	rc = confirm_in_transaction(s, revision, time_us, author_uid, author, why);
	if (rc == 0)
		rc = db_commit(s->db, why);
	if (rc != 0)
		db_rollback(s->db);
	return rc;
}

/* ---- approvals ------------------------------------------------------------------------------------------------- */

int policy_store_waiting(struct policy_store *s, struct policy_waiting out[POLICY_PENDING_MAX], size_t *n, struct err *why)
{
	enum db_step rc;

	*n = 0;
	db_bind_i64(s->waiting, 1, POLICY_PENDING_MAX);
	while ((rc = db_step(s->waiting, why)) == DB_ROW && *n < POLICY_PENDING_MAX)
		out[(*n)++] = (struct policy_waiting){.revision = (uint32_t)db_i64(s->waiting, 0),
						      .base = (uint32_t)db_i64(s->waiting, 1),
						      .until_us = db_i64(s->waiting, 2),
						      .imported = db_i64(s->waiting, 3) != 0};
	db_reset(s->waiting);
	return rc == DB_FAILED ? -1 : 0;
}

static void say_outdated(const struct policy_revision *r, uint32_t active, struct err *why)
{
	err_set(why,
		"revision %u was proposed while revision %u was in force, and revision %u is now: `gatewayctl policy diff %u %u` "
		"tells what has changed; propose it again",
		r->id, r->base, active, r->base, active);
}

/* 0 with *out, 1 with *why: it does not wait; -1 with *why. */
static int read_pending(struct policy_store *s, uint32_t id, struct policy_revision *out, struct err *why)
{
	uint32_t active;
	int rc = policy_store_active(s, &active, why) != 0 ? -1 : policy_store_get(s, id, out, NULL, NULL, why);

	if (rc < 0)
		return -1;
	if (rc == 0)
		err_set(why, "there is no revision %u", id);
	else if (out->base == 0)
		err_set(why, "revision %u waits for nobody's approval: it was put into force when it was made", id);
	else if (strcmp(out->verdict, POLICY_EXPIRED) == 0)
		err_set(why, "revision %u has expired, since nobody approved it in time: propose it again", id);
	else if (strcmp(out->verdict, POLICY_OUTDATED) == 0)
		say_outdated(out, active, why);
	else if (out->verdict[0] != '\0')
		err_set(why, "revision %u has been %s already, by %s", id, out->verdict, out->verdict_by);
	else
		return 0;
	return 1;
}

int policy_store_approvable(struct policy_store *s, uint32_t id, uint32_t uid, int64_t now_us, struct policy_revision *out,
			    struct err *why)
{
	uint32_t active;
	int rc = read_pending(s, id, out, why);

	if (rc != 0)
		return rc;
	if (policy_store_active(s, &active, why) != 0)
		return -1;
	if (now_us >= out->proposed_until_us)
		err_set(why, "revision %u has expired, since nobody approved it in time: propose it again", id);
	else if (out->author_uid == uid)
		err_set(why, "revision %u was proposed by %s: it takes another administrator to approve it", id, out->author);
	else if (out->base != active)
		say_outdated(out, active, why);
	else
		return 0;
	return 1;
}

static int add_verdict(struct policy_store *s, const struct policy_judgement *v, const char *word, struct err *why)
{
	db_bind_i64(s->add_verdict, 1, v->revision);
	db_bind_text(s->add_verdict, 2, word);
	db_bind_i64(s->add_verdict, 3, v->time_us);
	db_bind_i64(s->add_verdict, 4, v->author_uid);
	db_bind_text(s->add_verdict, 5, v->author);
	db_bind_text(s->add_verdict, 6, v->comment == NULL ? "" : v->comment);
	return db_run(s->add_verdict, why);
}

static int approve_in_transaction(struct policy_store *s, const struct policy_judgement *v, struct policy_revision *r, struct err *why)
{
	int rc = policy_store_approvable(s, v->revision, v->author_uid, v->time_us, r, why);

	if (rc != 0)
		return rc;
	/* Its base is what is active. */
	if (add_verdict(s, v, POLICY_APPROVED, why) != 0 || add_trial(s, r->id, r->base, v->time_us, v->lasts_us, why) != 0)
		return -1;
	return activate(s, r->id, v->time_us, v->author_uid, v->author, r->proposed_import, r->hash, why);
}

static int decline_in_transaction(struct policy_store *s, const struct policy_judgement *v, struct policy_revision *r, struct err *why)
{
	int rc = read_pending(s, v->revision, r, why);

	return rc != 0 ? rc : add_verdict(s, v, v->verdict, why);
}

static int in_transaction(struct policy_store *s, const struct policy_judgement *v,
			  int (*run)(struct policy_store *, const struct policy_judgement *, struct policy_revision *, struct err *),
			  struct err *why)
{
	struct policy_revision *r = malloc(sizeof *r);
	int rc;

	if (r == NULL)
		return err_set(why, "out of memory");
	if (v->comment != NULL && strlen(v->comment) > POLICY_COMMENT_MAX)
		rc = err_set(why, "the comment is longer than %d bytes", POLICY_COMMENT_MAX);
	else
		rc = db_begin(s->db, why);
	if (rc == 0) {
		rc = run(s, v, r, why);
		if (rc == 0)
			rc = db_commit(s->db, why);
		if (rc != 0)
			db_rollback(s->db);
	}
	free(r);
	return rc;
}

int policy_store_approve(struct policy_store *s, const struct policy_judgement *v, struct err *why)
{
	return in_transaction(s, v, approve_in_transaction, why);
}

int policy_store_decline(struct policy_store *s, const struct policy_judgement *v, struct err *why)
{
	return in_transaction(s, v, decline_in_transaction, why);
}

/* One transaction for all of them, and none if there are none. */
int policy_store_expire(struct policy_store *s, int64_t now_us, uint32_t uid, const char *author, uint32_t out[POLICY_PENDING_MAX],
			size_t *n, struct err *why)
{
	struct policy_waiting waiting[POLICY_PENDING_MAX];
	struct policy_judgement over = {.time_us = now_us, .author_uid = uid, .author = author};
	size_t count, due = 0;
	int rc = 0;

	*n = 0;
	if (policy_store_waiting(s, waiting, &count, why) != 0)
		return -1;
	for (size_t i = 0; i < count; i++)
		if (waiting[i].until_us <= now_us)
			out[due++] = waiting[i].revision;
	if (due == 0)
		return 0;
	if (db_begin(s->db, why) != 0)
		return -1;
	for (size_t i = 0; i < due && rc == 0; i++) {
		over.revision = out[i];
		rc = add_verdict(s, &over, POLICY_EXPIRED, why);
	}
	if (rc == 0)
		rc = db_commit(s->db, why);
	if (rc == 0)
		*n = due;
	else
		db_rollback(s->db);
	return rc;
}

/* A clock that was set back a little since then changes nothing. */
#define CLOCK_SLACK_US (INT64_C(86400) * 1000000)

int policy_store_last_verdicts(struct policy_store *s, int64_t now_us, uint32_t out[POLICY_PENDING_MAX], size_t *n, struct err *why)
{
	enum db_step rc;

	*n = 0;
	db_bind_i64(s->last_verdicts, 1, POLICY_PENDING_MAX);
	db_bind_i64(s->last_verdicts, 2, now_us + CLOCK_SLACK_US);
	while ((rc = db_step(s->last_verdicts, why)) == DB_ROW && *n < POLICY_PENDING_MAX)
		out[(*n)++] = (uint32_t)db_i64(s->last_verdicts, 0);
	db_reset(s->last_verdicts);
	return rc == DB_FAILED ? -1 : 0;
}

int policy_store_rejected_import(struct policy_store *s, const uint8_t hash[POLICY_HASH_BYTES], uint32_t *id, struct err *why)
{
	char verdict[16];

	*id = 0;
	db_bind_blob(s->judged_import, 1, hash, POLICY_HASH_BYTES);
	enum db_step rc = db_step(s->judged_import, why);

	if (rc == DB_ROW) {
		db_text(s->judged_import, 1, verdict, sizeof verdict);
		*id = strcmp(verdict, POLICY_REJECTED) == 0 ? (uint32_t)db_i64(s->judged_import, 0) : 0;
	}
	db_reset(s->judged_import);
	return rc == DB_FAILED ? -1 : 0;
}
