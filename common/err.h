/* One line that says what is wrong, where, and what to do: filled in by whoever finds the fault, shown by whoever can
 * do something about it.  Always a complete sentence for people; code decides on return values, never on this text. */
#pragma once

struct err {
	char text[512];
};

/* Formats the text (truncating) and returns -1, so that a failing function can `return err_set(why, ...)`. */
int err_set(struct err *why, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same, followed by ": " and strerror(errno). */
int err_set_errno(struct err *why, const char *format, ...) __attribute__((format(printf, 2, 3)));
