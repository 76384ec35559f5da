#include "config.h"

#include "common/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/text.h"

static char identity[48] = "gatewayd";
static enum log_level threshold = LOG_INFO;
static int64_t burst_second;
static unsigned burst_lines;
static void (*on_error)(const char *message, void *arg);
static void *on_error_arg;

static const char *const level_names[] = {
	[LOG_ERROR] = "error",
	[LOG_WARNING] = "warning",
	[LOG_INFO] = "info",
	[LOG_DEBUG] = "debug",
};

void log_init(const char *who, enum log_level level)
{
	snprintf(identity, sizeof identity, "%s", who);
	threshold = level;
}

void log_set_level(enum log_level level)
{
	threshold = level;
}

enum log_level log_get_level(void)
{
	return threshold;
}

const char *log_level_name(enum log_level level)
{
	return level_names[level];
}

void log_on_error(void (*told)(const char *message, void *arg), void *arg)
{
	on_error = told;
	on_error_arg = arg;
}

bool log_level_parse(const char *text, enum log_level *level)
{
	for (size_t i = 0; i < sizeof level_names / sizeof *level_names; i++)
		if (strcmp(text, level_names[i]) == 0) {
			*level = (enum log_level)i;
			return true;
		}
	return false;
}

static void write_line(enum log_level level, const char *message)
{
	char safe[LOG_LINE_MAX - 128], line[LOG_LINE_MAX];
	int64_t now = clock_wall_us();
	time_t seconds = (time_t)(now / 1000000);
	struct tm tm;

	gmtime_r(&seconds, &tm);
	text_escape(message, strlen(message), safe, sizeof safe);
	int n = snprintf(line, sizeof line, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ %s %s: %s\n", tm.tm_year + 1900, tm.tm_mon + 1,
			 tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (int)(now / 1000 % 1000), identity,
			 level_names[level], safe);

	if (n > 0 && write(STDERR_FILENO, line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1) < 0) {
		/* Nobody left to tell. */
	}
}

/* False while this second's lines are used up. */
static bool within_burst(void)
{
	int64_t second = clock_mono_us() / 1000000;

	if (second != burst_second) {
		unsigned dropped = burst_lines > LOG_BURST ? burst_lines - LOG_BURST : 0;

		burst_second = second;
		burst_lines = 0;
		if (dropped > 0) {
			char note[64];

			snprintf(note, sizeof note, "%u log lines dropped: more than %d in a second", dropped, LOG_BURST);
			write_line(LOG_WARNING, note);
		}
	}
	return ++burst_lines <= LOG_BURST;
}

__attribute__((format(printf, 2, 0))) static void log_va(enum log_level level, const char *format, va_list ap)
{
	char message[LOG_LINE_MAX];
	int saved = errno;

	if (level > threshold || !within_burst())
		return;
	errno = saved;
	vsnprintf(message, sizeof message, format, ap);
	write_line(level, message);
	if (level == LOG_ERROR && on_error != NULL)
		on_error(message, on_error_arg);
	errno = saved;
}

#define DEFINE_VERB(name, level)                 \
	void name(const char *format, ...)       \
	{                                        \
		va_list ap;                      \
                                                 \
		va_start(ap, format);            \
		log_va(level, format, ap);       \
		va_end(ap);                      \
	}

DEFINE_VERB(log_error, LOG_ERROR)
DEFINE_VERB(log_warning, LOG_WARNING)
DEFINE_VERB(log_info, LOG_INFO)
DEFINE_VERB(log_debug, LOG_DEBUG)

void log_fatal(const char *format, ...)
{
	va_list ap;

	burst_lines = 0; /* the last line is never dropped */
	va_start(ap, format);
	log_va(LOG_ERROR, format, ap);
	va_end(ap);
	exit(EXIT_FATAL);
}
