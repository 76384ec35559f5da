/* Text and pictures of a page that is filed: nothing in it can be anything but text, whatever it holds. */
#pragma once

#include <stdio.h>

/* Writes UTF-8 text with & < > " ' as references; bytes that belong to no character, controls, characters without width and those
 * that turn the direction of writing as \xNN.  It may stand between tags and in quoted attributes. */
void html_text(FILE *out, const char *text);
/* The format is a constant; every %s in it is escaped as above.  Only %s and %% are known. */
void html_print(FILE *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
