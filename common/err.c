#include "config.h"

#include "common/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *why, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(why->text, sizeof why->text, format, ap);
	va_end(ap);
	return -1;
}

int err_set_errno(struct err *why, const char *format, ...)
{
	int saved = errno;
	va_list ap;

	va_start(ap, format);
	int n = vsnprintf(why->text, sizeof why->text, format, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < sizeof why->text)
		snprintf(why->text + n, sizeof why->text - (size_t)n, ": %s", strerror(saved));
	errno = saved;
	return -1;
}
