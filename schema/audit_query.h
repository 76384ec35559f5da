/* Asking the audit: all its segments, as one table. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/addr.h"
#include "common/err.h"
#include "schema/audit_event.h"

enum audit_to {
	AUDIT_TO_ANY,
	AUDIT_TO_NAME,	 /* exactly it */
	AUDIT_TO_SUFFIX, /* ".x": x and all below */
	AUDIT_TO_BELOW,	 /* "*.x": below x only */
	AUDIT_TO_PREFIX, /* the destination address is in it */
};

/* All that is set must hold.  Zeroed: every event, newest first. */
struct audit_filter {
	int64_t since_us, until_us;    /* since <= time < until; 0: open */
	uint64_t session;	       /* 0: any */
	uint32_t kinds;		       /* bits 1 << enum audit_kind; 0: any */
	char user[AUDIT_TEXT_MAX + 1]; /* "": any */
	struct prefix client;	       /* ADDR_NONE: any */
	enum audit_to to;
	char to_name[AUDIT_TEXT_MAX + 1]; /* without the leading "." or "*." */
	struct prefix to_prefix;
	char rule[AUDIT_TEXT_MAX + 1];	/* "": any */
	char group[AUDIT_TEXT_MAX + 1]; /* that the user was in, as the row's detail tells; "": any */
	char text[AUDIT_TEXT_MAX + 1];	/* some text of the row holds it; "": any */
	char country[3];		/* of the destination, as the row's detail tells; "": any */
	uint32_t revision;		/* 0: any */
	uint16_t port;			/* of the destination; 0: any */
	uint64_t id;			/* of one row; 0: any */
	uint64_t after;			/* not 0: rows with a higher id only, in the order of ids */
	uint64_t limit;			/* rows; 0: all */
	bool oldest_first;
};

#define AUDIT_KINDS_ALLOW (1u << AUDIT_OPEN | 1u << AUDIT_FLOW)
#define AUDIT_KINDS_DENY (1u << AUDIT_DENIED | 1u << AUDIT_LOGIN_FAILED)

/* Reads "name", ".suffix", "*.below", an address or a prefix into the filter; -1 with *why. */
int audit_filter_to(struct audit_filter *f, const char *text, struct err *why);
/* "allow" or "deny"; -1 with *why. */
int audit_filter_verdict(struct audit_filter *f, const char *text, struct err *why);

struct db_stmt;
/* Does a row (of AUDIT_COLUMNS) hold all that is set?  after, limit and the order are none of its business. */
bool audit_filter_matches(const struct audit_filter *f, struct db_stmt *row);

/* e is borrowed.  False ends the page after this row.  It runs inside the read transaction: it must not wait. */
typedef bool audit_row(uint64_t id, const struct audit_event *e, void *arg);

struct audit_archive;
struct audit_query;

/* The segments in the current directory.  Those that have a log are opened at once, others when they are needed, as
 * plain files. NULL with *why. */
struct audit_archive *audit_archive_open(struct err *why);
void audit_archive_close(struct audit_archive **archive);
/* Segments that cannot be read, and why, as far as has been seen; "" if all can.  The rest is read all the same. */
const char *audit_archive_damage(const struct audit_archive *a);

struct audit_counts {
	uint64_t rows;
	int64_t oldest_us, newest_us; /* 0 when empty */
};
void audit_archive_counts(struct audit_archive *a, struct audit_counts *out);

/* Rows recorded after this call are not part of the answer.  The archive must outlive the query. */
struct audit_query *audit_query_new(struct audit_archive *a, const struct audit_filter *f, struct err *why);
/* The same for whoever sums up: rows in the order of recording, each with its time, kind, bytes, rule and detail alone, which are read
 * several times as fast.  A filter that looks at more than times, kinds and rules gets all columns, in the order of time. */
struct audit_query *audit_query_sums(struct audit_archive *a, const struct audit_filter *f, struct err *why);
void audit_query_free(struct audit_query **q);
/* One read transaction of at most max_rows rows and max_us microseconds: 1 there may be more, 0 that was all. */
int audit_query_page(struct audit_query *q, uint64_t max_rows, int64_t max_us, audit_row *row, void *arg);
/* Rows given so far. */
uint64_t audit_query_rows(const struct audit_query *q);
/* About how much of the way it has gone, in per mille. */
unsigned audit_query_progress(const struct audit_query *q);
/* The id of the newest row when the query began, whether it matches or not. */
uint64_t audit_query_newest(const struct audit_query *q);
/* True if the filter's limit ended the query: there may be more. */
bool audit_query_cut(const struct audit_query *q);
