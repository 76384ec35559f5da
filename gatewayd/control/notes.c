/* What compiling a policy, or putting it into force, has to say: a JSON object each, which gatewayctl shows with its place, and
 * programs read by its code. */
#include "config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "gatewayd/control/internal.h"
#include "schema/policy_store.h"

/* Of a reply: with the rest of it, a datagram of the control socket holds it. */
#define REPLY_NOTES_BYTES 30000

json_t *note_text(const char *text, size_t len)
{
	json_t *s = json_stringn(text, len);

	return s != NULL ? s : json_string("(not UTF-8)");
}

void note_add(json_t *notes, const char *code, const char *format, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	json_array_append_new(notes, json_pack("{s:s,s:s,s:o}", "severity", "warning", "code", code, "message",
					       note_text(text, strlen(text))));
}

static const char *member(const json_t *note, const char *key)
{
	const char *text = json_string_value(json_object_get(note, key));

	return text == NULL ? "" : text;
}

const char *note_line(const json_t *note, char *buf, size_t size)
{
	const char *file = member(note, "file");
	long long line = json_integer_value(json_object_get(note, "line"));
	int n = 0;

	buf[0] = '\0';
	if (file[0] != '\0' && line > 0)
		n = snprintf(buf, size, "%s:%lld:%lld: ", file, line,
			     (long long)json_integer_value(json_object_get(note, "column")));
	else if (file[0] != '\0')
		n = snprintf(buf, size, "%s: ", file);
	if (file[0] != '\0' && n >= 0 && (size_t)n < size)
		snprintf(buf + n, size - (size_t)n, "%s: %s [%s]", member(note, "severity"), member(note, "message"),
			 member(note, "code"));
	else if (file[0] == '\0')
		snprintf(buf, size, "%s", member(note, "message"));
	return buf;
}

void control_log_notes(const json_t *notes)
{
	char line[NOTE_LINE_MAX];
	size_t i;
	json_t *note;

	json_array_foreach (notes, i, note) {
		log_warning("%s", note_line(note, line, sizeof line));
		if (member(note, "excerpt")[0] != '\0')
			log_warning("    %s", member(note, "excerpt"));
	}
}

char *notes_join(const json_t *notes)
{
	char *text = calloc(1, POLICY_CHECKS_MAX + 1), line[NOTE_LINE_MAX];
	size_t used = 0, i;
	json_t *note;

	json_array_foreach (notes, i, note) {
		size_t len = strlen(note_line(note, line, sizeof line));

		if (text == NULL || len + 1 > POLICY_CHECKS_MAX - used)
			break;
		memcpy(text + used, line, len);
		text[used + len] = '\n';
		used += len + 1;
	}
	return text;
}

json_t *notes_lines(const json_t *notes)
{
	char line[NOTE_LINE_MAX];
	json_t *lines = json_array(), *note;
	size_t i;

	json_array_foreach (notes, i, note)
		json_array_append_new(lines, json_string(note_line(note, line, sizeof line)));
	return lines;
}

json_t *notes_for_reply(const json_t *notes)
{
	json_t *shown = json_array(), *note;
	size_t i, used = 0;

	json_array_foreach (notes, i, note) {
		size_t size = json_dumpb(note, NULL, 0, JSON_COMPACT | JSON_ENSURE_ASCII) + 1;

		if (size > REPLY_NOTES_BYTES - used) {
			note_add(shown, "too-many", "%zu more are not shown", json_array_size(notes) - i);
			break;
		}
		used += size;
		json_array_append(shown, note);
	}
	return shown;
}
