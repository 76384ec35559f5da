/* Sessions that live, for those who list them and those who watch them. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Asks (request: taken over) and calls each for every row, borrowed, until it says false; *end is the last line, the caller's, or
 * NULL.  An exit code. */
int session_ask(json_t *request, bool (*each)(const json_t *row, void *arg), void *arg, json_t **end);
/* The first limit by key ("bytes", "age", "rate") of all workers, as an array, the caller's as *end is. */
int session_sorted(json_t *filter, const char *key, int64_t limit, json_t **rows, json_t **end);
/* "user=ann" into a filter; an exit code, or -1 to go on. */
int session_filter_word(json_t *filter, const char *word);
/* "name:port", safe to show. */
const char *session_destination(const json_t *row, char *out, size_t size);
