#include "config.h"

#include "admin/html.h"

#include <assert.h>
#include <stdarg.h>
#include <string.h>

#include "admin/format.h"

static void put(FILE *out, const char *text, size_t n)
{
	switch (*text) {
	case '&':
		fputs("&amp;", out);
		break;
	case '<':
		fputs("&lt;", out);
		break;
	case '>':
		fputs("&gt;", out);
		break;
	case '"':
		fputs("&quot;", out);
		break;
	case '\'':
		fputs("&#39;", out);
		break;
	default:
		fwrite(text, 1, n, out);
	}
}

void html_text(FILE *out, const char *text)
{
	size_t len = strlen(text);

	for (size_t i = 0, n; i < len; i += n == 0 ? 1 : n) {
		n = format_shown(text + i, len - i);
		if (n > 0)
			put(out, text + i, n);
		else
			fprintf(out, "\\x%02x", (unsigned char)text[i]);
	}
}

void html_print(FILE *out, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	for (; *format != '\0'; format++) {
		if (*format != '%') {
			putc(*format, out);
			continue;
		}
		format++;
		assert(*format == 's' || *format == '%');
		if (*format == 's')
			html_text(out, va_arg(ap, const char *));
		else
			putc('%', out);
	}
	va_end(ap);
}
