/* The log: what operators read when something goes wrong.  Decisions belong to the audit, not here.
 *
 * One line is one write(2) to standard error: "2026-11-20T19:30:01.123Z worker/0 warning: ...".  Bytes that could move a
 * terminal or forge a line are written as \xNN.  Lines are cut at LOG_LINE_MAX; a process that logs more than
 * LOG_BURST lines in a second is silenced until the next, which says how many were dropped. */
#pragma once

#include <stdbool.h>

#define LOG_LINE_MAX 1024
#define LOG_BURST 200

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

/* who is copied (e.g. "worker/0"). */
void log_init(const char *who, enum log_level level);
/* From now on. */
void log_set_level(enum log_level level);
enum log_level log_get_level(void);
const char *log_level_name(enum log_level level);
/* Told of each error that is logged (message: as it was given), besides the log; NULL: nobody. */
void log_on_error(void (*told)(const char *message, void *arg), void *arg);
/* "error", "warning", "info", "debug"; false if it is none of them. */
bool log_level_parse(const char *text, enum log_level *level);

void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Logs an error and ends the process: its parent restarts it, or gives up where restarting cannot help. */
void log_fatal(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Exit codes that the supervisor understands. */
enum { EXIT_FATAL = 1, EXIT_USAGE = 2, EXIT_CONFIG = 78 };
