#include "config.h"

#include "admin/format.h"

#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static bool printable(unsigned char c)
{
	return c >= 0x20 && c <= 0x7e;
}

const char *format_safe(const char *text, char *out, size_t size)
{
	size_t used = 0;

	for (const unsigned char *in = (const unsigned char *)text; *in != '\0'; in++) {
		size_t need = printable(*in) ? 1 : 4;

		if (used + need + 4 > size) { /* room for "..." and the terminator */
			size_t dots = size - used - 1 < 3 ? size - used - 1 : 3;

			memcpy(out + used, "...", dots);
			used += dots;
			break;
		}
		if (need == 1)
			out[used] = (char)*in;
		else
			snprintf(out + used, 5, "\\x%02x", *in);
		used += need;
	}
	out[used] = '\0';
	return out;
}

/* The bytes of the character of UTF-8 that text begins with; 0 if it begins with none. */
static size_t decode(const unsigned char *text, size_t len, uint32_t *c)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t n = text[0] < 0x80 ? 1 : text[0] >> 5 == 6 ? 2 : text[0] >> 4 == 14 ? 3 : text[0] >> 3 == 30 ? 4 : 0;

	if (n == 0 || n > len)
		return 0;
	*c = n == 1 ? text[0] : text[0] & (0x7fu >> n);
	for (size_t i = 1; i < n; i++) {
		if (text[i] >> 6 != 2)
			return 0;
		*c = *c << 6 | (text[i] & 0x3f);
	}
	return *c < least[n] || *c > 0x10ffff || (*c >= 0xd800 && *c < 0xe000) ? 0 : n;
}

/* Controls move a terminal; what has no width, or turns the direction of writing, makes a rule look like another. */
static bool is_shown(uint32_t c)
{
	static const struct {
		uint32_t first, last;
	} hidden[] = {{0, 8}, {0xb, 0x1f}, {0x7f, 0x9f}, {0xad, 0xad}, {0x61c, 0x61c}, {0x180e, 0x180e}, {0x200b, 0x200f},
		      {0x2028, 0x202e}, {0x2060, 0x206f}, {0xfe00, 0xfe0f}, {0xfeff, 0xfeff}, {0xfff9, 0xfffb}, {0xe0000, 0xe0fff}};

	for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i++)
		if (c >= hidden[i].first && c <= hidden[i].last)
			return false;
	return true;
}

size_t format_shown(const char *text, size_t len)
{
	uint32_t c;
	size_t n = decode((const unsigned char *)text, len, &c);

	return n > 0 && is_shown(c) ? n : 0;
}

bool format_is_plain(const char *text)
{
	size_t len = strlen(text);

	for (size_t i = 0, n; i < len; i += n) {
		n = (unsigned char)text[i] < 0x20 ? 0 : format_shown(text + i, len - i);
		if (n == 0)
			return false;
	}
	return true;
}

void format_lines(FILE *out, const char *text)
{
	char line[1024], safe[4096];

	while (*text != '\0') {
		size_t len = strcspn(text, "\n");
		size_t kept = len < sizeof line - 1 ? len : sizeof line - 1;

		memcpy(line, text, kept);
		line[kept] = '\0';
		fprintf(out, "%s\n", format_safe(line, safe, sizeof safe));
		text += len + (text[len] == '\n');
	}
}

/* A spreadsheet takes a cell for a formula by its first character; blanks before it, and a quote, some leave out. */
static bool begins_formula(const char *text)
{
	text += strspn(text, " \"'");
	return *text != '\0' && strchr("=+-@\t\r", *text) != NULL;
}

void format_csv_cell(FILE *out, const char *text)
{
	putc('"', out);
	if (begins_formula(text))
		putc('\'', out);
	for (const unsigned char *in = (const unsigned char *)text; *in != '\0'; in++) {
		if (*in == '"')
			fputs("\"\"", out);
		else if (printable(*in) && !(*in == ';' && begins_formula((const char *)in + 1)))
			putc(*in, out);
		else
			fprintf(out, "\\x%02x", *in);
	}
	putc('"', out);
}

const char *format_bytes(uint64_t bytes, char buf[FORMAT_TEXT_MAX])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes;
	size_t unit = 0;

	/* 1023.95 would be shown as 1024.0. */
	while (value >= 1023.95 && unit + 1 < sizeof units / sizeof *units) {
		value /= 1024;
		unit++;
	}
	snprintf(buf, FORMAT_TEXT_MAX, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
	return buf;
}

const char *format_duration(int64_t us, char buf[FORMAT_TEXT_MAX])
{
	int64_t s = us / 1000000;

	if (us < 1000000)
		snprintf(buf, FORMAT_TEXT_MAX, "%" PRId64 " ms", us / 1000);
	else if (s < 60)
		snprintf(buf, FORMAT_TEXT_MAX, "%.1f s", (double)(us / 100000) / 10);
	else if (s < 3600)
		snprintf(buf, FORMAT_TEXT_MAX, "%" PRId64 " min %" PRId64 " s", s / 60, s % 60);
	else if (s < 86400)
		snprintf(buf, FORMAT_TEXT_MAX, "%" PRId64 " h %" PRId64 " min", s / 3600, s / 60 % 60);
	else
		snprintf(buf, FORMAT_TEXT_MAX, "%" PRId64 " d %" PRId64 " h", s / 86400, s / 3600 % 24);
	return buf;
}

const char *format_member(const json_t *object, const char *key, char buf[FORMAT_TEXT_MAX])
{
	const json_t *value = json_object_get(object, key);

	if (json_is_string(value))
		return json_string_value(value);
	buf[0] = '\0';
	if (json_is_integer(value))
		snprintf(buf, FORMAT_TEXT_MAX, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
	else if (json_is_real(value))
		snprintf(buf, FORMAT_TEXT_MAX, "%.15g", json_real_value(value));
	else if (json_is_boolean(value))
		snprintf(buf, FORMAT_TEXT_MAX, "%s", json_is_true(value) ? "yes" : "no");
	return buf;
}

int64_t format_number(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);

	return json_is_number(value) ? (int64_t)json_number_value(value) : 0;
}

unsigned format_terminal_width(void)
{
	struct winsize size;

	if (!isatty(STDOUT_FILENO))
		return 0;
	return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

static const char *text_of(const json_t *object, const char *key, char *out, size_t size)
{
	const char *text = json_string_value(json_object_get(object, key));

	return format_safe(text == NULL ? "" : text, out, size);
}

const char *format_author(const char *user, const char *login, char *out, size_t size)
{
	char name[64];

	format_safe(user, out, size);
	if (login[0] != '\0' && strlen(out) + sizeof name + 4 < size)
		snprintf(out + strlen(out), size - strlen(out), " (%s)", format_safe(login, name, sizeof name));
	return out;
}

void format_note(FILE *out, const json_t *note)
{
	char file[4200], text[2048], code[64], severity[32];
	int64_t line = format_number(note, "line"), caret = format_number(note, "caret"), len = format_number(note, "caret_len");

	text_of(note, "file", file, sizeof file);
	text_of(note, "severity", severity, sizeof severity);
	if (file[0] != '\0' && line > 0)
		fprintf(out, "%s:%" PRId64 ":%" PRId64 ": ", file, line, format_number(note, "column"));
	else if (file[0] != '\0')
		fprintf(out, "%s: ", file);
	fprintf(out, "%s: ", severity[0] == '\0' ? "warning" : severity);
	fprintf(out, "%s [%s]\n", text_of(note, "message", text, sizeof text), text_of(note, "code", code, sizeof code));
	if (*text_of(note, "excerpt", text, sizeof text) == '\0')
		return;
	fprintf(out, "    %s\n    ", text);
	for (int64_t i = 0; i < caret && i < 1000; i++)
		fputc(' ', out);
	for (int64_t i = 0; i < len && i < 1000; i++)
		fputc(i == 0 ? '^' : '~', out);
	fputc('\n', out);
}
