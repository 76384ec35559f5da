#include "config.h"

#include "schema/db.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "schema/db_vfs.h"

/* What was written so lately may still be being made. */
#define YOUNG_S 10
#define SCHEMA_POLL_MS 5
#define SCHEMA_WAIT_MS 3000

struct db_stmt {
	LIST_ENTRY(db_stmt) next;
	struct db *db;
	sqlite3_stmt *stmt;
	int bind_rc; /* first failure to bind */
};

struct db {
	sqlite3 *handle;
	char path[256]; /* for messages */
	const struct db_permit *permits;
	size_t npermits;
	bool sealed; /* the authorizer is on */
	bool full;   /* the last failure was for want of room */
	unsigned wal_pages;
	LIST_HEAD(, db_stmt) stmts;
	const struct db_value *const *given; /* rows of the table of db_offer() */
	size_t ngiven;
	bool asked; /* for them */
	struct db_stmt *begin, *begin_read, *commit; /* made when they are needed first */
};

static int fail(struct db *db, const char *what, struct err *why)
{
	int code = sqlite3_system_errno(db->handle);

	db->full = false;
	/* The error number is that of the last system call that failed, perhaps long ago: only where it is the cause.
	 */
	switch (sqlite3_errcode(db->handle) & 0xff) {
	case SQLITE_IOERR:
	case SQLITE_CANTOPEN:
	case SQLITE_FULL:
		db->full = code == ENOSPC || code == EDQUOT || (sqlite3_errcode(db->handle) & 0xff) == SQLITE_FULL;
		if (code != 0)
			return err_set(why, "%s: cannot %s: %s (%s)", db->path, what, sqlite3_errmsg(db->handle),
				       strerror(code));
		break;
	default:
		break;
	}
	return err_set(why, "%s: cannot %s: %s", db->path, what, sqlite3_errmsg(db->handle));
}

/* ---- what statements may do ----------------------------------------------------------------------------------- */

static const struct db_permit *permit_of(const struct db *db, const char *table)
{
	for (size_t i = 0; i < db->npermits; i++)
		if (table != NULL && strcmp(db->permits[i].table, table) == 0)
			return &db->permits[i];
	return NULL;
}

static bool function_allowed(const char *name)
{
	static const char *const allowed[] = {"count", "max", "min", "length", "sum"};

	for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
		if (name != NULL && strcmp(allowed[i], name) == 0)
			return true;
	return false;
}

static int authorize(void *arg, int action, const char *a, const char *b, const char *schema, const char *inner)
{
	const struct db *db = arg;
	const struct db_permit *p = permit_of(db, a);
	bool ok = false;

	(void)schema;
	if (!db->sealed)
		return SQLITE_OK;
	switch (action) {
	case SQLITE_SELECT:
	case SQLITE_TRANSACTION:
		ok = true;
		break;
	case SQLITE_READ:
		ok = p != NULL;
		break;
	case SQLITE_INSERT:
		ok = p != NULL && p->insert;
		break;
	case SQLITE_UPDATE:
		ok = p != NULL && p->update;
		break;
	case SQLITE_DELETE:
		ok = p != NULL && p->delete;
		break;
	case SQLITE_FUNCTION:
		ok = function_allowed(b);
		break;
	default:
		break;
	}
	return ok && inner == NULL ? SQLITE_OK : SQLITE_DENY;
}

/* ---- the process ------------------------------------------------------------------------------------------------ */

void db_one_thread(void)
{
	/* Once SQLite has begun it refuses, and goes on as it is. */
	sqlite3_config(SQLITE_CONFIG_SINGLETHREAD);
	sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
}

/* ---- opening -------------------------------------------------------------------------------------------------- */

static int exec(struct db *db, const char *sql, const char *what, struct err *why)
{
	return sqlite3_exec(db->handle, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : fail(db, what, why);
}

/* The number that a PRAGMA or a SELECT of one value gives. */
static int number(struct db *db, const char *sql, int64_t *out, struct err *why)
{
	sqlite3_stmt *stmt = NULL;
	int rc = -1;

	if (sqlite3_prepare_v2(db->handle, sql, -1, &stmt, NULL) == SQLITE_OK && sqlite3_step(stmt) == SQLITE_ROW) {
		*out = sqlite3_column_int64(stmt, 0);
		rc = 0;
	} else {
		fail(db, "read its header", why);
	}
	sqlite3_finalize(stmt);
	return rc;
}

/* Creates the file, so that its mode is ours and not the umask's; SQLite gives its companions the same. */
static int create_private(const struct db_options *o, struct err *why)
{
	int fd = open(o->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, 0600);

	if (fd < 0)
		return err_set_errno(why, "%s: cannot open or create it", o->path);
	close(fd);
	return 0;
}

static int on_wal(void *arg, sqlite3 *handle, const char *name, int pages)
{
	struct db *db = arg;

	(void)handle, (void)name;
	db->wal_pages = (unsigned)pages;
	return SQLITE_OK;
}

static int configure(struct db *db, const struct db_options *o, struct err *why)
{
	static const struct {
		int option, value;
	} switches[] = {
		{SQLITE_DBCONFIG_DEFENSIVE, 1},	     {SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0},
		{SQLITE_DBCONFIG_ENABLE_TRIGGER, 0}, {SQLITE_DBCONFIG_ENABLE_VIEW, 0},
		{SQLITE_DBCONFIG_ENABLE_FKEY, 1},    {SQLITE_DBCONFIG_DQS_DML, 0},
		{SQLITE_DBCONFIG_DQS_DDL, 0},
	};

	for (size_t i = 0; i < sizeof switches / sizeof *switches; i++)
		if (sqlite3_db_config(db->handle, switches[i].option, switches[i].value, NULL) != SQLITE_OK)
			return fail(db, "be configured", why);
	sqlite3_busy_timeout(db->handle, (int)o->busy_timeout_ms);
	sqlite3_limit(db->handle, SQLITE_LIMIT_ATTACHED, 0);
	sqlite3_limit(db->handle, SQLITE_LIMIT_LENGTH, (int)o->value_max_bytes);
	if (exec(db, "PRAGMA cell_size_check=ON; PRAGMA temp_store=MEMORY; PRAGMA mmap_size=0;", "be configured",
		 why) != 0)
		return -1;
	if (o->read_only)
		return exec(db, "PRAGMA query_only=ON;", "be opened read-only", why);
	/* FULL: a commit is on stable storage when it returns, in WAL mode too. */
	if (exec(db, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA journal_size_limit=67108864;",
		 "be switched to write-ahead logging", why) != 0)
		return -1;
	if (o->relaxed && exec(db, "PRAGMA synchronous=NORMAL;", "be relaxed", why) != 0)
		return -1;
	if (o->manual_checkpoint)
		sqlite3_wal_hook(db->handle, on_wal, db);
	return 0;
}

static int migrate_one(struct db *db, const struct db_options *o, size_t from, struct err *why)
{
	char version[96];

	/* PRAGMA takes no parameter; these are our own numbers. */
	snprintf(version, sizeof version, "PRAGMA application_id=%d; PRAGMA user_version=%zu;", o->application_id,
		 from + 1);
	if (exec(db, "BEGIN IMMEDIATE", "begin its migration", why) != 0)
		return -1;
	if (exec(db, o->migrations[from], "be migrated", why) == 0 && exec(db, version, "be migrated", why) == 0 &&
	    exec(db, "COMMIT", "commit its migration", why) == 0)
		return 0;
	db_rollback(db);
	return -1;
}

/* Somebody may be making it at this moment, a step at a time: whoever reads waits for that as for a lock. */
static bool is_young(const char *path)
{
	struct timespec now;
	struct stat st;

	clock_gettime(CLOCK_REALTIME, &now);
	return stat(path, &st) == 0 && now.tv_sec - st.st_mtim.tv_sec <= YOUNG_S && st.st_mtim.tv_sec - now.tv_sec <= YOUNG_S;
}

static int wait_for_schema(struct db *db, const struct db_options *o, size_t known, int64_t *id, int64_t *version, struct err *why)
{
	static const struct timespec pause = {.tv_nsec = SCHEMA_POLL_MS * 1000000L};

	for (int waited_ms = 0; *version < (int64_t)known && waited_ms < SCHEMA_WAIT_MS && is_young(o->path); waited_ms += SCHEMA_POLL_MS) {
		nanosleep(&pause, NULL);
		if (number(db, "PRAGMA application_id", id, why) != 0 || number(db, "PRAGMA user_version", version, why) != 0)
			return -1;
	}
	return 0;
}

static int migrate(struct db *db, const struct db_options *o, struct err *why)
{
	int64_t version, id, tables;
	size_t known = 0;

	while (o->migrations[known] != NULL)
		known++;
	if (number(db, "PRAGMA application_id", &id, why) != 0 ||
	    number(db, "PRAGMA user_version", &version, why) != 0 ||
	    number(db, "SELECT count(*) FROM sqlite_schema", &tables, why) != 0 ||
	    (o->read_only && wait_for_schema(db, o, known, &id, &version, why) != 0))
		return -1;
	if (id != o->application_id && (id != 0 || version != 0 || tables != 0))
		return err_set(why, "%s: this is a database, but not the one that belongs here: move it away",
			       db->path);
	if (version < 0 || version > (int64_t)known)
		return err_set(why, "%s: it was written by a newer gatewayd (schema %lld, this one knows %zu)",
			       db->path, (long long)version, known);
	if (o->read_only && version < (int64_t)known)
		return err_set(why, "%s: its schema %lld is older than %zu: start gatewayd once to bring it up to date",
			       db->path, (long long)version, known);
	for (size_t i = (size_t)version; i < known; i++)
		if (migrate_one(db, o, i, why) != 0)
			return -1;
	return 0;
}

struct db *db_open(const struct db_options *o, struct err *why)
{
	int flags = SQLITE_OPEN_NOMUTEX | (o->read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE);
	struct db *db;

	if (db_vfs_register() != 0) {
		err_set(why, "%s: SQLite has no VFS for this system", o->path);
		return NULL;
	}
	if (!o->read_only && create_private(o, why) != 0)
		return NULL;
	db = calloc(1, sizeof *db);
	if (db == NULL) {
		err_set(why, "%s: out of memory", o->path);
		return NULL;
	}
	snprintf(db->path, sizeof db->path, "%s", o->path);
	db->permits = o->permits;
	db->npermits = o->npermits;
	LIST_INIT(&db->stmts);
	if (sqlite3_open_v2(o->path, &db->handle, flags, DB_VFS_NAME) != SQLITE_OK) {
		fail(db, "open it", why);
		db_close(&db);
		return NULL;
	}
	sqlite3_extended_result_codes(db->handle, 1);
	if (configure(db, o, why) != 0 || migrate(db, o, why) != 0) {
		db_close(&db);
		return NULL;
	}
	sqlite3_set_authorizer(db->handle, authorize, db);
	db->sealed = true;
	return db;
}

static void stmt_free(struct db_stmt *s)
{
	LIST_REMOVE(s, next);
	sqlite3_finalize(s->stmt);
	free(s);
}

void db_close(struct db **dbp)
{
	struct db *db = *dbp;

	*dbp = NULL;
	if (db == NULL)
		return;
	while (!LIST_EMPTY(&db->stmts))
		stmt_free(LIST_FIRST(&db->stmts));
	db->sealed = false;
	sqlite3_close(db->handle);
	free(db);
}

/* ---- transactions --------------------------------------------------------------------------------------------- */

/* As exec(), of what is said again and again: it is understood once. */
static int repeat(struct db *db, struct db_stmt **stmt, const char *sql, const char *what, struct err *why)
{
	int rc = 0;

	if (*stmt == NULL && (*stmt = db_prepare(db, sql, why)) == NULL)
		return -1;
	if (sqlite3_step((*stmt)->stmt) != SQLITE_DONE)
		rc = fail(db, what, why);
	sqlite3_reset((*stmt)->stmt);
	return rc;
}

int db_begin(struct db *db, struct err *why)
{
	return repeat(db, &db->begin, "BEGIN IMMEDIATE", "begin a transaction", why);
}

int db_begin_read(struct db *db, struct err *why)
{
	return repeat(db, &db->begin_read, "BEGIN", "begin to read", why);
}

int db_commit(struct db *db, struct err *why)
{
	return repeat(db, &db->commit, "COMMIT", "commit", why);
}

void db_rollback(struct db *db)
{
	if (!sqlite3_get_autocommit(db->handle))
		sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
}

bool db_is_full(const struct db *db)
{
	return db->full;
}

uint32_t db_version(const struct db *db)
{
	uint32_t version = 0;

	sqlite3_file_control(db->handle, "main", SQLITE_FCNTL_DATA_VERSION, &version);
	return version;
}

unsigned db_wal_pages(const struct db *db)
{
	return db->wal_pages;
}

int db_checkpoint(struct db *db, struct err *why)
{
	int left = 0, moved = 0;
	int rc = sqlite3_wal_checkpoint_v2(db->handle, NULL, SQLITE_CHECKPOINT_PASSIVE, &left, &moved);

	if (rc == SQLITE_BUSY)
		return 0;
	if (rc != SQLITE_OK)
		return fail(db, "checkpoint", why);
	db->wal_pages = left > moved ? (unsigned)(left - moved) : 0;
	return 0;
}

int db_finish(struct db **dbp, const char *sql, struct err *why)
{
	struct db *db = *dbp;
	int rc = 0;

	while (!LIST_EMPTY(&db->stmts))
		stmt_free(LIST_FIRST(&db->stmts));
	db->begin = db->begin_read = db->commit = NULL;
	db->sealed = false; /* what follows is our own */
	if (sql != NULL)
		rc = exec(db, sql, "be indexed", why);
	/* What SQLite answers, not whether it failed, tells that it kept the log because somebody reads. */
	if (rc == 0)
		rc = exec(db, "PRAGMA wal_checkpoint(TRUNCATE); PRAGMA journal_mode=DELETE;", "give up its log", why);
	db_close(dbp);
	return rc;
}

int db_changes(const struct db *db)
{
	return sqlite3_changes(db->handle);
}

int64_t db_last_rowid(const struct db *db)
{
	return sqlite3_last_insert_rowid(db->handle);
}

/* ---- statements ------------------------------------------------------------------------------------------------ */

struct db_stmt *db_prepare(struct db *db, const char *sql, struct err *why)
{
	struct db_stmt *s = calloc(1, sizeof *s);

	if (s == NULL) {
		err_set(why, "%s: out of memory", db->path);
		return NULL;
	}
	s->db = db;
	if (sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, &s->stmt, NULL) != SQLITE_OK) {
		fail(db, "prepare a statement", why);
		free(s);
		return NULL;
	}
	LIST_INSERT_HEAD(&db->stmts, s, next);
	return s;
}

void db_finalize(struct db_stmt **s)
{
	if (*s != NULL)
		stmt_free(*s);
	*s = NULL;
}

static void bound(struct db_stmt *s, int rc)
{
	if (s->bind_rc == SQLITE_OK)
		s->bind_rc = rc;
}

void db_bind_i64(struct db_stmt *s, int at, int64_t value)
{
	bound(s, sqlite3_bind_int64(s->stmt, at, value));
}

void db_bind_null(struct db_stmt *s, int at)
{
	bound(s, sqlite3_bind_null(s->stmt, at));
}

void db_bind_text(struct db_stmt *s, int at, const char *text)
{
	bound(s, sqlite3_bind_text(s->stmt, at, text, -1, SQLITE_STATIC));
}

void db_bind_text_len(struct db_stmt *s, int at, const char *text, size_t len)
{
	bound(s, sqlite3_bind_text64(s->stmt, at, text, len, SQLITE_STATIC, SQLITE_UTF8));
}

void db_bind_blob(struct db_stmt *s, int at, const void *data, size_t len)
{
	bound(s, sqlite3_bind_blob64(s->stmt, at, len == 0 ? "" : data, len, SQLITE_STATIC));
}

enum db_step db_step(struct db_stmt *s, struct err *why)
{
	if (s->bind_rc != SQLITE_OK) {
		err_set(why, "%s: cannot take a value: %s", s->db->path, sqlite3_errstr(s->bind_rc));
		return DB_FAILED;
	}
	switch (sqlite3_step(s->stmt)) {
	case SQLITE_ROW:
		return DB_ROW;
	case SQLITE_DONE:
		return DB_DONE;
	default:
		fail(s->db, sqlite3_stmt_readonly(s->stmt) ? "read" : "write", why);
		return DB_FAILED;
	}
}

void db_reset(struct db_stmt *s)
{
	sqlite3_reset(s->stmt);
	sqlite3_clear_bindings(s->stmt);
	s->bind_rc = SQLITE_OK;
}

int db_run(struct db_stmt *s, struct err *why)
{
	enum db_step rc = db_step(s, why);

	db_reset(s);
	return rc == DB_DONE ? 0 : -1;
}

/* ---- rows from memory ------------------------------------------------------------------------------------------
 * An eponymous virtual table: it is in no schema, and only what this handle says itself can name it. */

struct given_table {
	sqlite3_vtab base; /* first */
	struct db *db;
};

struct given_cursor {
	sqlite3_vtab_cursor base; /* first */
	struct db *db;
	size_t at;
};

struct offer {
	struct db *db;
	char declaration[512];
};

static int given_connect(sqlite3 *handle, void *arg, int argc, const char *const *argv, sqlite3_vtab **out, char **error)
{
	const struct offer *offer = arg;
	struct given_table *t = sqlite3_malloc(sizeof *t);
	int rc;

	(void)argc, (void)argv, (void)error;
	if (t == NULL)
		return SQLITE_NOMEM;
	*t = (struct given_table){.db = offer->db};
	rc = sqlite3_declare_vtab(handle, offer->declaration);
	if (rc == SQLITE_OK)
		rc = sqlite3_vtab_config(handle, SQLITE_VTAB_DIRECTONLY);
	if (rc != SQLITE_OK) {
		sqlite3_free(t);
		return rc;
	}
	*out = &t->base;
	return SQLITE_OK;
}

static int given_disconnect(sqlite3_vtab *table)
{
	sqlite3_free(table);
	return SQLITE_OK;
}

static int given_best_index(sqlite3_vtab *table, sqlite3_index_info *info)
{
	(void)table;
	info->estimatedCost = 1;
	return SQLITE_OK;
}

static int given_open(sqlite3_vtab *table, sqlite3_vtab_cursor **out)
{
	struct given_cursor *c = sqlite3_malloc(sizeof *c);

	if (c == NULL)
		return SQLITE_NOMEM;
	*c = (struct given_cursor){.db = ((struct given_table *)table)->db};
	*out = &c->base;
	return SQLITE_OK;
}

static int given_close(sqlite3_vtab_cursor *cursor)
{
	sqlite3_free(cursor);
	return SQLITE_OK;
}

static int given_filter(sqlite3_vtab_cursor *cursor, int index, const char *name, int argc, sqlite3_value **argv)
{
	(void)index, (void)name, (void)argc, (void)argv;
	((struct given_cursor *)cursor)->at = 0;
	((struct given_cursor *)cursor)->db->asked = true;
	return SQLITE_OK;
}

static int given_next(sqlite3_vtab_cursor *cursor)
{
	((struct given_cursor *)cursor)->at++;
	return SQLITE_OK;
}

static int given_eof(sqlite3_vtab_cursor *cursor)
{
	const struct given_cursor *c = (struct given_cursor *)cursor;

	return c->at >= c->db->ngiven;
}

static int given_column(sqlite3_vtab_cursor *cursor, sqlite3_context *out, int column)
{
	const struct given_cursor *c = (struct given_cursor *)cursor;
	const struct db_value *v = &c->db->given[c->at][column];

	switch (v->type) {
	case DB_NULL: /* which it is without a word */
		break;
	case DB_INTEGER:
		sqlite3_result_int64(out, v->number);
		break;
	case DB_TEXT:
		sqlite3_result_text64(out, v->data, v->len, SQLITE_STATIC, SQLITE_UTF8);
		break;
	case DB_BLOB:
		sqlite3_result_blob64(out, v->data, v->len, SQLITE_STATIC);
		break;
	default:
		return SQLITE_MISMATCH;
	}
	return SQLITE_OK;
}

static int given_rowid(sqlite3_vtab_cursor *cursor, sqlite3_int64 *out)
{
	*out = (sqlite3_int64)((struct given_cursor *)cursor)->at;
	return SQLITE_OK;
}

static const sqlite3_module given_module = {
	/* No xCreate: it cannot be made by a schema. */
	.xConnect = given_connect,
	.xDisconnect = given_disconnect,
	.xBestIndex = given_best_index,
	.xOpen = given_open,
	.xClose = given_close,
	.xFilter = given_filter,
	.xNext = given_next,
	.xEof = given_eof,
	.xColumn = given_column,
	.xRowid = given_rowid,
};

int db_offer(struct db *db, const char *table, const char *columns, struct err *why)
{
	struct offer *offer = malloc(sizeof *offer);
	char first[96];
	int rc;

	if (offer == NULL)
		return err_set(why, "%s: out of memory", db->path);
	offer->db = db;
	/* Both are constants. */
	if (snprintf(offer->declaration, sizeof offer->declaration, "CREATE TABLE given (%s)", columns) >=
		    (int)sizeof offer->declaration ||
	    snprintf(first, sizeof first, "SELECT 1 FROM %s", table) >= (int)sizeof first)
		abort();
	/* The offer is freed also when this fails. */
	if (sqlite3_create_module_v2(db->handle, table, &given_module, offer, free) != SQLITE_OK)
		return fail(db, "offer rows", why);
	/* It tells what it looks like when it is first met, which is no statement of a caller. */
	db->sealed = false;
	rc = exec(db, first, "offer rows", why);
	db->sealed = true;
	return rc;
}

void db_give(struct db *db, const struct db_value *const *rows, size_t count)
{
	db->given = rows;
	db->ngiven = count;
}

int db_insert_given(struct db_stmt *s, struct err *why)
{
	struct db *db = s->db;

	db->asked = false;
	if (db_run(s, why) != 0)
		return -1;
	/* A table of that name in the file would come before ours. */
	if (!db->asked || (size_t)sqlite3_changes(db->handle) != db->ngiven)
		return err_set(why, "%s: other rows were written than were given: somebody has changed its schema", db->path);
	return 0;
}

enum db_type db_type(struct db_stmt *s, int at)
{
	switch (sqlite3_column_type(s->stmt, at)) {
	case SQLITE_NULL:
		return DB_NULL;
	case SQLITE_INTEGER:
		return DB_INTEGER;
	case SQLITE_TEXT:
		return DB_TEXT;
	case SQLITE_BLOB:
		return DB_BLOB;
	default:
		return DB_OTHER;
	}
}

void db_read_cell(struct db_stmt *s, int at, struct db_cell *cell)
{
	sqlite3_value *value = sqlite3_column_value(s->stmt, at);

	switch (sqlite3_value_type(value)) {
	case SQLITE_NULL:
		cell->type = DB_NULL;
		return;
	case SQLITE_INTEGER:
		cell->type = DB_INTEGER;
		cell->number = sqlite3_value_int64(value);
		return;
	case SQLITE_TEXT:
		cell->type = DB_TEXT;
		break;
	case SQLITE_BLOB:
		cell->type = DB_BLOB;
		break;
	default:
		cell->type = DB_OTHER;
		break;
	}
	cell->data = sqlite3_value_blob(value);
	cell->len = cell->data == NULL ? 0 : (size_t)sqlite3_value_bytes(value);
	if (cell->data == NULL)
		cell->data = "";
}

bool db_is_null(struct db_stmt *s, int at)
{
	return sqlite3_column_type(s->stmt, at) == SQLITE_NULL;
}

int64_t db_i64(struct db_stmt *s, int at)
{
	return sqlite3_column_int64(s->stmt, at);
}

const void *db_bytes(struct db_stmt *s, int at, size_t *len)
{
	const void *data = sqlite3_column_blob(s->stmt, at);

	*len = data == NULL ? 0 : (size_t)sqlite3_column_bytes(s->stmt, at);
	return data == NULL ? "" : data;
}

void db_text(struct db_stmt *s, int at, char *buf, size_t size)
{
	size_t len;
	const void *data = db_bytes(s, at, &len);

	len = strnlen(data, len < size - 1 ? len : size - 1);
	memcpy(buf, data, len);
	buf[len] = '\0';
}
