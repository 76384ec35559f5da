/* Answers one query of the audit as JSON lines on a pipe.  The last line is {"end":true,"rows":N,"more":bool} ("more":
 * the limit ended it; "newest": the id of the newest row of all; "damage": segments that could not be read, if any) or {"error":"..."}. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/ipc.h"

struct reader;
struct event_base;

/* The answer is written, or nobody reads it. */
typedef void reader_done(void *arg);

/* The audit is the current directory, opened at once; that it cannot be is the answer to the query.  time_us and rows_max bound the
 * answer. */
struct reader *reader_new(int64_t time_us, uint64_t rows_max, reader_done *done, void *arg);
void reader_free(struct reader **r);
/* Takes the QUERY message and its pipe, and answers in the loop; false if it is no such message, or the second. */
bool reader_take(struct reader *r, struct event_base *base, struct ipc_message *m);
/* A query is being answered. */
bool reader_busy(const struct reader *r);
