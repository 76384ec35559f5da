/* The files that the audit is made of: audit-00000001.db, audit-00000002.db ... in the current directory, each a
 * segment of time. The last is the one that is written; the others never change again.  audit.db is what there was
 * before there were segments. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "schema/db.h"

#define AUDIT_SEGMENT_NAME_MAX 32
#define AUDIT_SEGMENTS_MAX 100000
/* The file of before. */
#define AUDIT_SINGLE_FILE "audit.db"

const char *audit_segment_name(uint32_t number, char buf[AUDIT_SEGMENT_NAME_MAX]);
/* Numbers of those that are there, ascending, malloc'd (the caller's); the count, or -1 with *why. */
int audit_segment_list(uint32_t **numbers, struct err *why);

enum audit_mode { AUDIT_WRITE, AUDIT_WRITE_RELAXED, AUDIT_READ };

struct db *audit_segment_open(const char *path, enum audit_mode mode, struct err *why);
/* True if it still has a write-ahead log of its own, so that reading it takes more than reading one file. */
bool audit_segment_has_log(const char *path);
/* Bytes of the file; 0 if it cannot be told. */
uint64_t audit_segment_bytes(const char *path);

/* Indexes that a segment gets when it is written no more. */
extern const char audit_segment_indexes[];
