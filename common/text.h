/* Making hostile bytes harmless to show. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Copies len bytes of text into out (size bytes, always terminated), writing control bytes, DEL, backslash and bytes
 * above 0x7e as \xNN.  Cuts with "..." where it does not fit.  Returns out. */
const char *text_escape(const void *text, size_t len, char *out, size_t size);

/* What is shown on terminals for ever: no control characters, be they of one byte or, in UTF-8, of two. */
bool text_is_plain(const char *text);
