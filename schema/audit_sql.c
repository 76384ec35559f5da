#include "config.h"

#include "schema/audit_sql.h"

#include <ctype.h>
#include <sqlite3.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/text.h"
#include "schema/audit_detail.h"
#include "schema/audit_json.h"
#include "schema/db_vfs.h"

#define MEMORY_BYTES (256 * INT64_C(1024) * 1024)
/* Of one row, before escaping. */
#define ROW_BYTES (48 * 1024)
/* A page of events, and how long it may be looked for. */
#define PAGE_ROWS 64
#define PAGE_US 50000
/* Steps of SQLite's machine between two looks at the clock. */
#define LOOK_EVERY 100
/* Of one text: what a function does to it is one step, between two looks at the clock. */
#define TEXT_BYTES_MAX (64 * 1024)

const char audit_sql_columns[] =
	"id INTEGER, time TEXT, time_us INTEGER, event TEXT, verdict TEXT, session TEXT, client TEXT, client_port INTEGER, "
	"listener TEXT, user TEXT, method TEXT, command TEXT, name TEXT, address TEXT, port INTEGER, country TEXT, rule TEXT, "
	"revision INTEGER, reason TEXT, bytes_up INTEGER, bytes_down INTEGER, duration_us INTEGER, detail TEXT";

enum column {
	C_ID, C_TIME, C_TIME_US, C_EVENT, C_VERDICT, C_SESSION, C_CLIENT, C_CLIENT_PORT, C_LISTENER, C_USER, C_METHOD, C_COMMAND, C_NAME,
	C_ADDRESS, C_PORT, C_COUNTRY, C_RULE, C_REVISION, C_REASON, C_UP, C_DOWN, C_DURATION, C_DETAIL
};

struct audit_sql {
	struct audit_archive *archive;
	sqlite3 *db;
	sqlite3_stmt *stmt;
	int64_t deadline_us;
	unsigned seconds; /* that it may take */
	bool (*go_on)(void *arg);
	void *arg;
	uint64_t limit, rows;
	bool late, left, cut, ended;
};

/* ---- the table `event` ----------------------------------------------------------------------------------------------
 */

struct table {
	sqlite3_vtab base; /* first: SQLite's */
	struct audit_sql *sql;
};

struct cursor {
	sqlite3_vtab_cursor base; /* first: SQLite's */
	struct audit_query *query;
	bool more; /* pages after this one */
	size_t n, at;
	struct {
		uint64_t id;
		struct audit_event event;
	} rows[PAGE_ROWS];
};

static bool goes_on(struct audit_sql *s)
{
	s->late |= clock_mono_us() >= s->deadline_us;
	s->left |= s->go_on != NULL && !s->go_on(s->arg);
	return !s->late && !s->left;
}

static int table_connect(sqlite3 *db, void *arg, int argc, const char *const *argv, sqlite3_vtab **out, char **error)
{
	char sql[1024];
	struct table *t;
	int rc;

	(void)argc, (void)argv, (void)error;
	snprintf(sql, sizeof sql, "CREATE TABLE event (%s)", audit_sql_columns);
	rc = sqlite3_declare_vtab(db, sql);
	t = rc == SQLITE_OK ? sqlite3_malloc64(sizeof *t) : NULL;
	if (t == NULL)
		return rc == SQLITE_OK ? SQLITE_NOMEM : rc;
	memset(t, 0, sizeof *t);
	t->sql = arg;
	*out = &t->base;
	return SQLITE_OK;
}

static int table_disconnect(sqlite3_vtab *base)
{
	sqlite3_free(base);
	return SQLITE_OK;
}

/* What of a condition the query can make use of, as a letter; SQLite looks at each row all the same, so that a query may give
 * more than fits. */
static char usable(sqlite3_index_info *info, int at)
{
	const struct sqlite3_index_constraint *c = &info->aConstraint[at];
	static const struct {
		enum column column;
		int op;
		char letter;
	} known[] = {
		{C_ID, SQLITE_INDEX_CONSTRAINT_EQ, 'i'},       {C_SESSION, SQLITE_INDEX_CONSTRAINT_EQ, 'n'},
		{C_USER, SQLITE_INDEX_CONSTRAINT_EQ, 'w'},     {C_TIME_US, SQLITE_INDEX_CONSTRAINT_EQ, 'e'},
		{C_TIME_US, SQLITE_INDEX_CONSTRAINT_GE, 's'},  {C_TIME_US, SQLITE_INDEX_CONSTRAINT_GT, 's'},
		{C_TIME_US, SQLITE_INDEX_CONSTRAINT_LE, 'u'},  {C_TIME_US, SQLITE_INDEX_CONSTRAINT_LT, 'u'},
		{C_TIME, SQLITE_INDEX_CONSTRAINT_GE, 'S'},     {C_TIME, SQLITE_INDEX_CONSTRAINT_GT, 'S'},
		{C_TIME, SQLITE_INDEX_CONSTRAINT_LE, 'U'},     {C_TIME, SQLITE_INDEX_CONSTRAINT_LT, 'U'},
	};

	/* The query compares bytes: what is equal to another collation may differ in them. */
	if (!c->usable || strcmp(sqlite3_vtab_collation(info, at), "BINARY") != 0)
		return '\0';
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (c->iColumn == (int)known[i].column && c->op == known[i].op)
			return known[i].letter;
	return '\0';
}

/* Rows come by time, and by id among equal times. */
static bool order_fits(const sqlite3_index_info *info)
{
	bool descends = info->nOrderBy > 0 && info->aOrderBy[0].desc;

	if (info->nOrderBy < 1 || info->nOrderBy > 2 || (info->aOrderBy[0].iColumn != C_TIME_US && info->aOrderBy[0].iColumn != C_TIME))
		return false;
	return info->nOrderBy == 1 || (info->aOrderBy[1].iColumn == C_ID && (bool)info->aOrderBy[1].desc == descends);
}

static int table_best_index(sqlite3_vtab *base, sqlite3_index_info *info)
{
	char letters[16] = "";
	size_t n = 0;
	double cost = 10000000;

	(void)base;
	for (int i = 0; i < info->nConstraint && n + 1 < sizeof letters; i++) {
		char letter = usable(info, i);

		if (letter == '\0' || (letter == 'i' && strchr(letters, 'i') != NULL))
			continue;
		letters[n++] = letter;
		letters[n] = '\0';
		info->aConstraintUsage[i].argvIndex = (int)n;
		cost = letter == 'i' ? 1 : letter == 'n' ? 10 : letter == 'w' ? cost / 1000 : cost / 10;
	}
	/* By its id a row comes alone. */
	info->orderByConsumed = order_fits(info) && strchr(letters, 'i') == NULL;
	info->idxNum = info->orderByConsumed && !info->aOrderBy[0].desc;
	info->idxStr = sqlite3_mprintf("%s", letters);
	info->needToFreeIdxStr = 1;
	info->estimatedCost = cost < 1 ? 1 : cost;
	return info->idxStr == NULL ? SQLITE_NOMEM : SQLITE_OK;
}

static int cursor_open(sqlite3_vtab *base, sqlite3_vtab_cursor **out)
{
	struct cursor *c = sqlite3_malloc64(sizeof *c);

	(void)base;
	if (c == NULL)
		return SQLITE_NOMEM;
	memset(c, 0, offsetof(struct cursor, rows));
	*out = &c->base;
	return SQLITE_OK;
}

static int cursor_close(sqlite3_vtab_cursor *base)
{
	struct cursor *c = (struct cursor *)base;

	audit_query_free(&c->query);
	sqlite3_free(c);
	return SQLITE_OK;
}

static bool keep_row(uint64_t id, const struct audit_event *e, void *arg)
{
	struct cursor *c = arg;

	c->rows[c->n].id = id;
	/* The detail is large, and mostly short. */
	memcpy(&c->rows[c->n].event, e, offsetof(struct audit_event, detail) + strlen(e->detail) + 1);
	return ++c->n < PAGE_ROWS;
}

/* Until there is a row, or none any more. */
static int next_page(struct cursor *c)
{
	struct audit_sql *s = ((struct table *)c->base.pVtab)->sql;

	c->n = c->at = 0;
	while (c->more && c->n == 0) {
		if (!goes_on(s))
			return SQLITE_INTERRUPT;
		c->more = audit_query_page(c->query, PAGE_ROWS, PAGE_US, keep_row, c) == 1;
		/* The bound on memory is no damage of a segment. */
		if (strstr(audit_archive_damage(s->archive), "out of memory") != NULL)
			return SQLITE_NOMEM;
	}
	return SQLITE_OK;
}

/* The beginning of RFC 3339 in UTC; -1: it is none. */
static int64_t time_of(const char *text)
{
	struct tm tm = {.tm_mday = 1};
	const char *rest = text == NULL ? NULL : strptime(text, "%Y-%m-%d", &tm);

	if (rest == NULL)
		return -1;
	if (*rest == 'T' || *rest == ' ')
		strptime(rest + 1, "%H:%M:%S", &tm);
	return (int64_t)timegm(&tm) * 1000000;
}

static void narrow(struct audit_filter *f, char letter, sqlite3_value *value)
{
	const char *text = (const char *)sqlite3_value_text(value);
	int64_t number = sqlite3_value_int64(value), at = letter == 'S' || letter == 'U' ? time_of(text) : number;
	bool is_number = sqlite3_value_type(value) == SQLITE_INTEGER;

	switch (letter) {
	case 'i':
		if (is_number && number > 0)
			f->id = (uint64_t)number;
		break;
	case 'n':
		f->session = text == NULL ? 0 : audit_session_parse(text);
		break;
	case 'w':
		if (text != NULL && *text != '\0' && strlen(text) <= AUDIT_TEXT_MAX)
			strcpy(f->user, text);
		break;
	case 'e':
	case 's':
	case 'S':
		if ((letter == 'S' || is_number) && at > f->since_us && at < INT64_MAX / 2)
			f->since_us = at;
		if (letter != 'e')
			break;
		/* fall through */
	case 'u':
	case 'U':
		/* A day later for a text, which may be cut short. */
		at += letter == 'U' ? 86400 * INT64_C(1000000) : 1;
		if ((letter == 'U' || is_number) && at > 0 && at < INT64_MAX / 2 && (f->until_us == 0 || at < f->until_us))
			f->until_us = at;
		break;
	default:
		break;
	}
}

static int cursor_filter(sqlite3_vtab_cursor *base, int number, const char *letters, int argc, sqlite3_value **argv)
{
	struct cursor *c = (struct cursor *)base;
	static struct audit_filter f;
	struct err why;

	memset(&f, 0, sizeof f);
	f.oldest_first = number != 0;
	for (int i = 0; i < argc; i++)
		narrow(&f, letters[i], argv[i]);
	audit_query_free(&c->query);
	c->query = audit_query_new(((struct table *)base->pVtab)->sql->archive, &f, &why);
	if (c->query == NULL) {
		sqlite3_free(base->pVtab->zErrMsg);
		base->pVtab->zErrMsg = sqlite3_mprintf("%s", why.text);
		return SQLITE_ERROR;
	}
	c->more = true;
	return next_page(c);
}

static int cursor_next(sqlite3_vtab_cursor *base)
{
	struct cursor *c = (struct cursor *)base;

	return ++c->at < c->n ? SQLITE_OK : next_page(c);
}

static int cursor_eof(sqlite3_vtab_cursor *base)
{
	return ((struct cursor *)base)->at >= ((struct cursor *)base)->n;
}

static void give_text(sqlite3_context *ctx, const char *text)
{
	if (*text != '\0')
		sqlite3_result_text(ctx, text, -1, SQLITE_TRANSIENT);
}

static void give_number(sqlite3_context *ctx, uint64_t number)
{
	if (number != 0)
		sqlite3_result_int64(ctx, (int64_t)number);
}

static void give_address(sqlite3_context *ctx, const struct endpoint *ep)
{
	char text[ADDR_TEXT_MAX];

	if (ep->addr.family != ADDR_NONE)
		give_text(ctx, addr_format(&ep->addr, text));
}

static void give_counts(sqlite3_context *ctx, const struct audit_event *e, uint64_t number)
{
	if (audit_kind_tells_bytes(e->kind))
		sqlite3_result_int64(ctx, (int64_t)number);
}

/* NULL is what is not given. */
static int cursor_column(sqlite3_vtab_cursor *base, sqlite3_context *ctx, int column)
{
	const struct cursor *c = (const struct cursor *)base;
	const struct audit_event *e = &c->rows[c->at].event;
	const uint32_t bit = 1u << e->kind;
	char text[AUDIT_TIME_TEXT_MAX > AUDIT_SESSION_TEXT_MAX ? AUDIT_TIME_TEXT_MAX : AUDIT_SESSION_TEXT_MAX];

	switch ((enum column)column) {
	case C_ID:
		sqlite3_result_int64(ctx, (int64_t)c->rows[c->at].id);
		break;
	case C_TIME:
		give_text(ctx, audit_time_text(e->time_us, text));
		break;
	case C_TIME_US:
		sqlite3_result_int64(ctx, e->time_us);
		break;
	case C_EVENT:
		give_text(ctx, audit_kind_name(e->kind));
		break;
	case C_VERDICT:
		give_text(ctx, bit & AUDIT_KINDS_ALLOW ? "allow" : bit & AUDIT_KINDS_DENY ? "deny" : "");
		break;
	case C_SESSION:
		give_text(ctx, e->session == 0 ? "" : audit_session_text(e->session, text));
		break;
	case C_CLIENT:
		give_address(ctx, &e->client);
		break;
	case C_CLIENT_PORT:
		give_number(ctx, e->client.port);
		break;
	case C_LISTENER:
		give_text(ctx, e->listener);
		break;
	case C_USER:
		give_text(ctx, e->user);
		break;
	case C_METHOD:
		give_text(ctx, e->method);
		break;
	case C_COMMAND:
		give_text(ctx, e->command);
		break;
	case C_NAME:
		give_text(ctx, e->name);
		break;
	case C_ADDRESS:
		give_address(ctx, &e->address);
		break;
	case C_PORT:
		give_number(ctx, e->address.port);
		break;
	case C_COUNTRY:
		audit_detail_country(e->detail, strlen(e->detail), text);
		give_text(ctx, text);
		break;
	case C_RULE:
		give_text(ctx, e->rule);
		break;
	case C_REVISION:
		give_number(ctx, e->revision);
		break;
	case C_REASON:
		give_text(ctx, e->reason);
		break;
	case C_UP:
		give_counts(ctx, e, e->bytes_up);
		break;
	case C_DOWN:
		give_counts(ctx, e, e->bytes_down);
		break;
	case C_DURATION:
		give_counts(ctx, e, (uint64_t)e->duration_us);
		break;
	case C_DETAIL:
		give_text(ctx, e->detail);
		break;
	}
	return SQLITE_OK;
}

static int cursor_rowid(sqlite3_vtab_cursor *base, sqlite3_int64 *id)
{
	const struct cursor *c = (const struct cursor *)base;

	*id = (sqlite3_int64)c->rows[c->at].id;
	return SQLITE_OK;
}

/* No xCreate: the table is there by its name.  No xUpdate: it cannot be written. */
static const sqlite3_module module = {
	.xConnect = table_connect,
	.xBestIndex = table_best_index,
	.xDisconnect = table_disconnect,
	.xOpen = cursor_open,
	.xClose = cursor_close,
	.xFilter = cursor_filter,
	.xNext = cursor_next,
	.xEof = cursor_eof,
	.xColumn = cursor_column,
	.xRowid = cursor_rowid,
};

/* ---- what a statement may do ------------------------------------------------------------------------------------------
 */

static bool is_readable(const char *table)
{
	static const char *const tables[] = {"event", "json_each", "json_tree"};

	for (size_t i = 0; table != NULL && i < sizeof tables / sizeof *tables; i++)
		if (strcmp(tables[i], table) == 0)
			return true;
	return false;
}

/* What to cut off is a text as long as what it is cut from: each of its characters is looked for at each place, seconds in one
 * step.  With one argument they are SQLite's own. */
static void refuse_function(sqlite3_context *ctx, int argc, sqlite3_value **argv)
{
	(void)argc, (void)argv;
	sqlite3_result_error(ctx, "trim, ltrim and rtrim take one argument here", -1);
}

static int refuse_slow_functions(sqlite3 *db)
{
	static const char *const names[] = {"trim", "ltrim", "rtrim"};
	int rc = SQLITE_OK;

	for (size_t i = 0; rc == SQLITE_OK && i < sizeof names / sizeof *names; i++)
		rc = sqlite3_create_function_v2(db, names[i], 2, SQLITE_UTF8, NULL, refuse_function, NULL, NULL, NULL);
	return rc;
}

static int authorize(void *arg, int action, const char *a, const char *b, const char *schema, const char *inner)
{
	(void)arg, (void)schema, (void)inner;
	switch (action) {
	case SQLITE_SELECT:
	case SQLITE_RECURSIVE:
		return SQLITE_OK;
	case SQLITE_READ:
		/* No column of it: something that the statement itself names, or a table of which it reads nothing. */
		return is_readable(a) || (b != NULL && *b == '\0') ? SQLITE_OK : SQLITE_DENY;
	case SQLITE_FUNCTION:
		return b != NULL && sqlite3_stricmp(b, "load_extension") != 0 && sqlite3_stricmp(b, "fts3_tokenizer") != 0 ? SQLITE_OK
															   : SQLITE_DENY;
	default:
		return SQLITE_DENY;
	}
}

static int on_progress(void *arg)
{
	return !goes_on(arg);
}

static int fail(const struct audit_sql *s, struct err *why)
{
	if (s->late)
		return err_set(why, "the statement took more than %u s: ask for a shorter time (time_us, time)", s->seconds);
	if (s->db != NULL && sqlite3_errcode(s->db) == SQLITE_NOMEM)
		return err_set(why, "the statement takes more memory than %d MB: sort or group less at once", (int)(MEMORY_BYTES >> 20));
	if (s->db == NULL)
		return err_set(why, "SQL: out of memory");
	return err_set(why, "SQL: %.400s%s", sqlite3_errmsg(s->db),
		       strncmp(sqlite3_errmsg(s->db), "no such ", 8) == 0 ? " (the one table is event; gatewayctl audit sql --help)" : "");
}

static int confine(struct audit_sql *s)
{
	static const struct {
		int what, value;
	} limits[] = {
		{SQLITE_LIMIT_LENGTH, TEXT_BYTES_MAX},	 {SQLITE_LIMIT_SQL_LENGTH, 65536},    {SQLITE_LIMIT_COLUMN, 200},
		{SQLITE_LIMIT_EXPR_DEPTH, 100},		 {SQLITE_LIMIT_COMPOUND_SELECT, 50},  {SQLITE_LIMIT_FUNCTION_ARG, 100},
		{SQLITE_LIMIT_ATTACHED, 0},		 {SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 500}, {SQLITE_LIMIT_TRIGGER_DEPTH, 0},
		{SQLITE_LIMIT_WORKER_THREADS, 0},
	}, switches[] = {
		{SQLITE_DBCONFIG_DEFENSIVE, 1},	     {SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0}, {SQLITE_DBCONFIG_ENABLE_TRIGGER, 0},
		{SQLITE_DBCONFIG_ENABLE_VIEW, 0},    {SQLITE_DBCONFIG_DQS_DML, 0},	  {SQLITE_DBCONFIG_DQS_DDL, 0},
	};

	for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
		sqlite3_limit(s->db, limits[i].what, limits[i].value);
	for (size_t i = 0; i < sizeof switches / sizeof *switches; i++)
		if (sqlite3_db_config(s->db, switches[i].what, switches[i].value, NULL) != SQLITE_OK)
			return -1;
	if (sqlite3_exec(s->db, "PRAGMA temp_store=MEMORY; PRAGMA query_only=ON;", NULL, NULL, NULL) != SQLITE_OK ||
	    sqlite3_create_module(s->db, "event", &module, s) != SQLITE_OK || refuse_slow_functions(s->db) != SQLITE_OK)
		return -1;
	/* Tables tell what they look like when they are first met, which is no statement of the caller's: so let it be now. */
	if (sqlite3_exec(s->db, "SELECT 1 FROM event, json_each('[]'), json_tree('[]') LIMIT 0", NULL, NULL, NULL) != SQLITE_OK)
		return -1;
	/* Of the whole process: it is a reader, or somebody's own. */
	sqlite3_hard_heap_limit64(MEMORY_BYTES);
	sqlite3_progress_handler(s->db, LOOK_EVERY, on_progress, s);
	sqlite3_set_authorizer(s->db, authorize, s);
	return 0;
}

static int prepare(struct audit_sql *s, const char *sql, struct err *why)
{
	const char *tail = NULL;

	if (sqlite3_open_v2(":memory:", &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_MEMORY | SQLITE_OPEN_NOMUTEX, DB_VFS_NAME) !=
		    SQLITE_OK ||
	    confine(s) != 0 || sqlite3_prepare_v2(s->db, sql, -1, &s->stmt, &tail) != SQLITE_OK)
		return fail(s, why);
	while (*tail != '\0' && (isspace((unsigned char)*tail) || *tail == ';'))
		tail++;
	if (s->stmt == NULL || *tail != '\0' || !sqlite3_stmt_readonly(s->stmt) || sqlite3_column_count(s->stmt) == 0)
		return err_set(why, "SQL: it is to be one SELECT over the table event (%s)", "see gatewayctl audit sql --help");
	return 0;
}

struct audit_sql *audit_sql_new(struct audit_archive *archive, const char *sql, uint64_t limit, unsigned seconds, struct err *why)
{
	struct audit_sql *s = db_vfs_register() != 0 ? NULL : calloc(1, sizeof *s);

	if (s == NULL) {
		err_set(why, "out of memory");
		return NULL;
	}
	s->archive = archive;
	s->limit = limit;
	s->seconds = seconds;
	s->deadline_us = clock_mono_us() + (int64_t)seconds * 1000000;
	if (prepare(s, sql, why) != 0)
		audit_sql_free(&s);
	return s;
}

void audit_sql_free(struct audit_sql **sp)
{
	struct audit_sql *s = *sp;

	*sp = NULL;
	if (s == NULL)
		return;
	sqlite3_finalize(s->stmt);
	sqlite3_close(s->db);
	free(s);
}

void audit_sql_watch(struct audit_sql *s, bool (*go_on)(void *arg), void *arg)
{
	s->go_on = go_on;
	s->arg = arg;
}

/* ---- what it gives ----------------------------------------------------------------------------------------------------
 */

static json_t *text_json(const void *text, size_t len, size_t *room)
{
	size_t size = 4 * (len < *room ? len : *room) + 8;
	char *safe = malloc(size);
	json_t *value;

	if (safe == NULL)
		return json_null();
	value = json_string(text_escape(text, len, safe, size));
	*room -= len < *room ? len : *room;
	free(safe);
	return value;
}

static json_t *blob_json(const uint8_t *bytes, size_t len, size_t *room)
{
	static const char digits[] = "0123456789abcdef";
	char hex[2 * 256 + 8] = "x'";
	size_t n = 2;

	for (size_t i = 0; i < len && i < 256; i++) {
		hex[n++] = digits[bytes[i] >> 4];
		hex[n++] = digits[bytes[i] & 15];
	}
	strcpy(hex + n, len > 256 ? "...'" : "'");
	return text_json(hex, strlen(hex), room);
}

static json_t *value_json(sqlite3_stmt *stmt, int i, size_t *room)
{
	const void *bytes;

	switch (sqlite3_column_type(stmt, i)) {
	case SQLITE_INTEGER:
		return json_integer(sqlite3_column_int64(stmt, i));
	case SQLITE_FLOAT: {
		/* JSON has no infinity. */
		json_t *real = json_real(sqlite3_column_double(stmt, i));

		return real == NULL ? json_null() : real;
	}
	case SQLITE_TEXT:
		bytes = sqlite3_column_text(stmt, i);
		return bytes == NULL ? json_null() : text_json(bytes, (size_t)sqlite3_column_bytes(stmt, i), room);
	case SQLITE_BLOB:
		bytes = sqlite3_column_blob(stmt, i);
		return blob_json(bytes, bytes == NULL ? 0 : (size_t)sqlite3_column_bytes(stmt, i), room);
	default:
		return json_null();
	}
}

json_t *audit_sql_head(const struct audit_sql *s)
{
	json_t *names = json_array();
	size_t room = ROW_BYTES;

	for (int i = 0; i < sqlite3_column_count(s->stmt); i++) {
		const char *name = sqlite3_column_name(s->stmt, i);

		json_array_append_new(names, text_json(name == NULL ? "" : name, name == NULL ? 0 : strlen(name), &room));
	}
	return json_pack("{s:o}", "columns", names);
}

int audit_sql_step(struct audit_sql *s, json_t **row, struct err *why)
{
	size_t room = ROW_BYTES;
	int rc = s->ended ? SQLITE_DONE : sqlite3_step(s->stmt);
	json_t *values;

	if (rc == SQLITE_ROW && s->limit != 0 && s->rows == s->limit) {
		s->cut = s->ended = true;
		return 0;
	}
	s->ended = rc != SQLITE_ROW;
	if (rc == SQLITE_DONE)
		return 0;
	if (rc != SQLITE_ROW)
		return fail(s, why);
	values = json_array();
	for (int i = 0; i < sqlite3_column_count(s->stmt); i++)
		json_array_append_new(values, value_json(s->stmt, i, &room));
	*row = json_pack("{s:o}", "values", values);
	s->rows++;
	return 1;
}

uint64_t audit_sql_rows(const struct audit_sql *s)
{
	return s->rows;
}

bool audit_sql_cut(const struct audit_sql *s)
{
	return s->cut;
}
