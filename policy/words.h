/* The reserved words of the language, and what a misspelt one was probably meant to be. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* The token of a reserved word, or 0. */
int words_token(const char *text, size_t len);
/* True for a word that begins a statement. */
bool words_begins_statement(int token);
/* The reserved word nearest to text, if near enough to be a slip; NULL otherwise.  Never text itself. */
const char *words_near(const char *text);
/* True if a and b differ by a slip: one edit, or two in words of five letters and more. */
bool words_similar(const char *a, const char *b);
/* True if text, written without quotes, is read back as the same single word. */
bool words_bare(const char *text);
