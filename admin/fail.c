#include "config.h"

#include "admin/admin.h"

#include <stdarg.h>
#include <stdio.h>

#include "admin/format.h"
#include "admin/progress.h"

int admin_fail(int code, const char *format, ...)
{
	char text[2048], safe[4096];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	progress_hide();
	fprintf(stderr, "gatewayctl: %s\n", format_safe(text, safe, sizeof safe));
	return code;
}
