/* Work that takes long: a line on standard error says what it is at and for how long, where that is a terminal; and an interrupt ends it
 * with a word instead of in the middle.  Work that knows how far it is shows that itself, and only wants to know of interrupts. */
#pragma once

#include <stdbool.h>

/* From a second on, each second: "what: 5 s".  what is a constant.  Calls in a row replace each other. */
void progress_show(const char *what);
/* No more, and the line is clean.  Does nothing when nothing is shown. */
void progress_hide(void);

/* From now on an interrupt says this (a constant, without a newline) and ends the program with ADMIN_REFUSED, for what leaves nothing
 * behind; NULL: as it was before. */
void progress_guard(const char *said);

/* From now on whoever ends the program by SIGINT, SIGTERM or SIGHUP has it say this before (not copied; a line without its end, safe to
 * show), also after the word of a guard; NULL: as it was before.  Begun before a guard and ended after it. */
void progress_farewell(const char *said);

/* From now on an interrupt is only noted, for what looks now and then; until progress_unwatch(). */
void progress_watch(void);
bool progress_interrupted(void);
bool progress_watching(void);
/* While interrupts are noted: waits until there is something to read, or an end.  False: an interrupt came, which may as well have come
 * just before. */
bool progress_wait(int fd);
void progress_unwatch(void);
