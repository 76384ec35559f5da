/* Showing values to people and to other programs.  Names, users and rules come from clients: nothing that they hold may
 * move a terminal, run in a spreadsheet or break a line. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Writes every byte outside printable ASCII as \xNN, and cuts with "..." where out is full.  The backslash stays: what
 * comes from the daemon is escaped already (common/text.h), and a second time must change nothing.  Returns out. */
const char *format_safe(const char *text, char *out, size_t size);

/* The bytes of the character of UTF-8 that text (of len > 0 bytes) begins with, if it may be shown as it is; 0 if its first byte
 * belongs to none, to a control (a line end and a tab are none), to what has no width, or to what turns the direction of writing. */
size_t format_shown(const char *text, size_t len);
/* True if all of it may be shown as it is, in one line: whoever reads it reads what it is. */
bool format_is_plain(const char *text);

/* Writes a text of one or more lines, each made safe and ended by a newline. */
void format_lines(FILE *out, const char *text);

/* A warning or error of the gateway, or another note of it, with the line that it is about and a caret. */
void format_note(FILE *out, const json_t *note);

/* One CSV cell (RFC 4180), always quoted and safe.  A cell that a spreadsheet would take for a formula (it begins with
 * = + - @, a tab or a carriage return, blanks and quotes before it left out) gets a single quote before it; and a semicolon before
 * such a character is escaped, since half of the world's spreadsheets end a cell at it. */
void format_csv_cell(FILE *out, const char *text);

#define FORMAT_TEXT_MAX 64
/* "0 B", "1.5 KiB", "3.2 GiB" */
const char *format_bytes(uint64_t bytes, char buf[FORMAT_TEXT_MAX]);
/* "12 ms", "4.2 s", "3 min 4 s", "2 h 5 min", "3 d 4 h" */
const char *format_duration(int64_t us, char buf[FORMAT_TEXT_MAX]);

/* The text of a member as it is to be shown: strings as they are, numbers in digits; "" when it is not there. */
const char *format_member(const json_t *object, const char *key, char buf[FORMAT_TEXT_MAX]);
int64_t format_number(const json_t *object, const char *key);

/* "uid 1000 (ann)": who the kernel said it was, and what the gateway's host called that one then; login may be "".  Safe. */
const char *format_author(const char *user, const char *login, char *out, size_t size);

/* Characters that a line of standard output has; 0 when it is no terminal. */
unsigned format_terminal_width(void);
