/* A thin wrapper of SQLite: the settings that every store of ours has, migrations, and prepared statements with values
 * bound by type.  SQL is written as constants in schema/ and nowhere else; a value is never part of it.
 *
 * A database file may be hostile when it is opened offline: its schema is not trusted, views and triggers are off, and
 * an authorizer refuses whatever the store has not asked for. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

struct db;
struct db_stmt;

/* What statements may do to a table besides reading it. */
struct db_permit {
	const char *table;
	bool insert, update, delete;
};

struct db_options {
	const char *path;	       /* relative to the current directory, or absolute; opened as it stands */
	bool read_only;		       /* the file must exist and be current */
	int32_t application_id;	       /* in the file's header: whose it is */
	const char *const *migrations; /* NULL-terminated */
	const struct db_permit *permits;
	size_t npermits;
	unsigned busy_timeout_ms;
	size_t value_max_bytes; /* longest text or blob */
	bool manual_checkpoint; /* the caller calls db_checkpoint() */
	bool relaxed;		/* a commit does not wait for the disk */
};

/* For a process of one thread that sets no limit to SQLite's memory, before it opens anything: SQLite then takes no locks
 * and counts no bytes, which a process that writes a row after the other notices. */
void db_one_thread(void);

/* Opens, creating with mode 0600 where allowed, and migrates.  NULL with *why (which begins with the path). */
struct db *db_open(const struct db_options *options, struct err *why);
/* Finalizes statements that are still there. */
void db_close(struct db **db);

/* 0 or -1.  A write transaction takes its lock at once. */
int db_begin(struct db *db, struct err *why);
/* Several reads of one state; ends with db_rollback(). */
int db_begin_read(struct db *db, struct err *why);
int db_commit(struct db *db, struct err *why);
/* The last failure was for want of room on the disk. */
bool db_is_full(const struct db *db);
/* Never fails: after an error SQLite may have rolled back by itself. */
void db_rollback(struct db *db);

/* Changes with each commit, of ours and of others, that a transaction of ours has come to see. */
uint32_t db_version(const struct db *db);
/* Pages in the write-ahead log after the last commit. */
unsigned db_wal_pages(const struct db *db);
/* Moves what it can from the write-ahead log into the file without waiting for readers. */
int db_checkpoint(struct db *db, struct err *why);

int64_t db_last_rowid(const struct db *db);
/* How many rows the last statement that was to change some has changed. */
int db_changes(const struct db *db);

/* For a file that is written no more: runs sql (a constant; NULL: none), folds the log into the file and leaves it without
 * one, and closes.  -1 with *why if somebody else has it open, or it fails: it can be tried again. */
int db_finish(struct db **db, const char *sql, struct err *why);

/* sql is a constant.  The statement lives until db_finalize(), or db_close(). */
struct db_stmt *db_prepare(struct db *db, const char *sql, struct err *why);
void db_finalize(struct db_stmt **s);

/* Parameters are numbered from 1, columns from 0.  What is bound is borrowed until db_reset(); a failure to bind shows
 * in db_step(). */
void db_bind_i64(struct db_stmt *s, int at, int64_t value);
void db_bind_null(struct db_stmt *s, int at);
void db_bind_text(struct db_stmt *s, int at, const char *text);
/* Any bytes, as a text. */
void db_bind_text_len(struct db_stmt *s, int at, const char *text, size_t len);
void db_bind_blob(struct db_stmt *s, int at, const void *data, size_t len);

/* ---- rows from memory ----
 * Many rows are inserted in one statement by selecting them from a table that is none: it has the rows that were given last.
 * That costs two thirds of a statement a row. */

enum db_type { DB_NULL, DB_INTEGER, DB_TEXT, DB_BLOB, DB_OTHER };
/* What data points to is borrowed. */
struct db_value {
	enum db_type type;
	uint32_t len;
	union {
		int64_t number;
		const void *data;
	};
};

/* Makes the table for this handle, once; columns: their names, with commas between.  0 or -1.  It must be among the permits. */
int db_offer(struct db *db, const char *table, const char *columns, struct err *why);
/* Each row has as many values as there are columns.  They are borrowed until they are given anew. */
void db_give(struct db *db, const struct db_value *const *rows, size_t count);
/* As db_run(), of a statement that inserts all that was given: anything else fails. */
int db_insert_given(struct db_stmt *s, struct err *why);

enum db_step { DB_FAILED = -1, DB_DONE = 0, DB_ROW = 1 };
enum db_step db_step(struct db_stmt *s, struct err *why);
/* Ends the statement's transaction, if it was alone in it, and forgets what was bound. */
void db_reset(struct db_stmt *s);
/* Steps a statement that returns no row, and resets it: 0 or -1. */
int db_run(struct db_stmt *s, struct err *why);

enum db_type db_type(struct db_stmt *s, int at);
bool db_is_null(struct db_stmt *s, int at);
/* A value as it stands, in one look: many of them are read so.  data as db_bytes() gives it; DB_OTHER has none. */
struct db_cell {
	enum db_type type;
	int64_t number;
	const void *data;
	size_t len;
};
void db_read_cell(struct db_stmt *s, int at, struct db_cell *cell);
int64_t db_i64(struct db_stmt *s, int at);
/* Valid until the next step; "" with *len 0 when NULL.  Any bytes. */
const void *db_bytes(struct db_stmt *s, int at, size_t *len);
/* Copies up to the first NUL, cutting at size. */
void db_text(struct db_stmt *s, int at, char *buf, size_t size);
