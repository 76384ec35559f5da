#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <unistd.h>

#include "admin/format.h"
#include "admin/rows.h"
#include "admin/times.h"
#include "schema/audit_json.h"

static struct err why;

static bool printable(const char *text)
{
	for (; *text != '\0'; text++)
		if (*text < 0x20 || *text > 0x7e)
			return false;
	return true;
}

static void test_safe(void **state)
{
	char in[256], out[2048], small[9];

	(void)state;
	for (int i = 0; i < 255; i++)
		in[i] = (char)(i + 1);
	in[255] = '\0';
	format_safe(in, out, sizeof out);
	assert_true(printable(out));
	assert_non_null(strstr(out, "\\x1b"));
	assert_non_null(strstr(out, "\\xe2"));
	assert_string_equal(format_safe("\xe2\x80\xae"
					"a\\x1b",
					out, sizeof out),
			    "\\xe2\\x80\\xaea\\x1b");
	assert_string_equal(format_safe("0123456789", small, sizeof small), "01234...");
	assert_string_equal(format_safe("\n\n\n", small, sizeof small), "\\x0a...");
	assert_string_equal(format_safe("12345", small, sizeof small), "12345");
}

static const char *csv(const char *text)
{
	static char out[2048];
	FILE *f = fmemopen(out, sizeof out, "w");

	format_csv_cell(f, text);
	fclose(f);
	return out;
}

static void test_plain(void **state)
{
	static const char *const plain[] = {"", "a b", "--user=ann", "\"<b>\\", "M\xc3\xbcnchen", "\xe6\x97\xa5"};
	static const char *const others[] = {"a\n", "\tb", "\x1b[31m", "a\x7f", "\xc2\x9b" "31m", "\xe2\x80\xae", "a\xe2\x80\x8b", "\xff", "\xc3", "\xed\xa0\x80"};

	(void)state;
	for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
		assert_true(format_is_plain(plain[i]));
	for (size_t i = 0; i < sizeof others / sizeof *others; i++)
		assert_false(format_is_plain(others[i]));
}

static void test_csv_cells(void **state)
{
	char byte[2] = "", expected[16];

	(void)state;
	assert_string_equal(csv(""), "\"\"");
	assert_string_equal(csv("a,b"), "\"a,b\"");
	assert_string_equal(csv("say \"x\""), "\"say \"\"x\"\"\"");
	assert_string_equal(csv("=HYPERLINK(1)"), "\"'=HYPERLINK(1)\"");
	assert_string_equal(csv("a=1"), "\"a=1\"");
	for (int i = 1; i < 256; i++) {
		byte[0] = (char)i;
		if (strchr("=+-@", i) != NULL)
			snprintf(expected, sizeof expected, "\"'%c\"", i);
		else if (i == '\t' || i == '\r')
			snprintf(expected, sizeof expected, "\"'\\x%02x\"", i);
		else if (i == '"')
			snprintf(expected, sizeof expected, "\"\"\"\"");
		else if (i < 0x20 || i > 0x7e)
			snprintf(expected, sizeof expected, "\"\\x%02x\"", i);
		else
			snprintf(expected, sizeof expected, "\"%c\"", i);
		assert_string_equal(csv(byte), expected);
	}
}

static void test_amounts(void **state)
{
	char buf[FORMAT_TEXT_MAX];

	(void)state;
	assert_string_equal(format_bytes(0, buf), "0 B");
	assert_string_equal(format_bytes(1023, buf), "1023 B");
	assert_string_equal(format_bytes(1536, buf), "1.5 KiB");
	assert_string_equal(format_bytes(1024 * 1024 - 1, buf), "1.0 MiB");
	assert_string_equal(format_bytes(UINT64_MAX, buf), "16.0 EiB");
	assert_string_equal(format_duration(12345, buf), "12 ms");
	assert_string_equal(format_duration(4200000, buf), "4.2 s");
	assert_string_equal(format_duration(INT64_C(184000000), buf), "3 min 4 s");
	assert_string_equal(format_duration(INT64_C(7500000000), buf), "2 h 5 min");
	assert_string_equal(format_duration(INT64_C(273600000000), buf), "3 d 4 h");
}

/* ---- rows ----------------------------------------------------------------------------------------------------------
 */

/* What the rows print for an event, captured from standard output. */
static char *printed(enum rows_format format, unsigned width, const json_t *row)
{
	struct rows *r;
	FILE *file = tmpfile();
	int saved = dup(STDOUT_FILENO);
	char *text;

	assert_non_null(file);
	fflush(stdout);
	dup2(fileno(file), STDOUT_FILENO);
	r = rows_new(format, width, false, NULL);
	rows_add(r, row);
	rows_end(r);
	rows_free(&r);
	fflush(stdout);
	dup2(saved, STDOUT_FILENO);
	close(saved);
	size_t len = (size_t)lseek(fileno(file), 0, SEEK_END);

	text = calloc(1, len + 1);
	assert_int_equal(pread(fileno(file), text, len, 0), (ssize_t)len);
	fclose(file);
	return text;
}

static unsigned lines(const char *text)
{
	unsigned n = 0;

	for (; *text != '\0'; text++)
		n += *text == '\n';
	return n;
}

static json_t *hostile_row(void)
{
	static struct audit_event e = {
		.kind = AUDIT_ENDED, .session = 5, .time_us = 1795635001123456, .bytes_down = 5000};

	for (int i = 0; i < 255; i++) {
		e.user[i] = e.rule[i] = e.reason[i] = (char)(i + 1);
		e.name[i % NAME_MAX_LEN] = (char)(i + 1);
	}
	strcpy(e.detail, "{\"a\":\"\\u001b[31m\\u202e,\\\"\"}");
	return audit_event_json(7, &e);
}

static void test_every_format_is_harmless(void **state)
{
	static const struct {
		enum rows_format format;
		unsigned width, lines;
	} cases[] = {
		{ROWS_TABLE, 0, 2}, {ROWS_TABLE, 80, 2}, {ROWS_TABLE, 200, 2}, {ROWS_CSV, 0, 2}, {ROWS_JSON, 0, 1}};
	json_t *row = hostile_row(),
	       *raw = json_pack("{s:s, s:s, s:s}", "user", "\x1b[2J\n\xe2\x80\xae", "name", "=1+1", "time", "\r\n");

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		for (int j = 0; j < 2; j++) {
			char *text = printed(cases[i].format, cases[i].width, j == 0 ? row : raw);

			assert_int_equal(lines(text), cases[i].lines);
			for (const char *at = text; *at != '\0'; at++)
				assert_true((*at >= 0x20 && *at <= 0x7e) || *at == '\n' ||
					    (*at == '\r' && at[1] == '\n' && cases[i].format == ROWS_CSV));
			free(text);
		}
	json_decref(row);
	json_decref(raw);
}

static void test_table_fits(void **state)
{
	json_t *row = hostile_row();
	char *text = printed(ROWS_TABLE, 80, row);

	(void)state;
	for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n"))
		assert_true(strlen(line) <= 80);
	free(text);
	json_decref(row);
}

static void test_csv_row(void **state)
{
	json_t *row = json_pack("{s:i, s:s, s:s, s:i}", "id", 7, "event", "open", "user", "-x", "port", 443);
	char *text = printed(ROWS_CSV, 0, row);

	(void)state;
	assert_string_equal(
		text, "id,time,event,verdict,session,client,client_port,listener,user,method,command,name,address,"
		      "port,rule,revision,reason,bytes_up,bytes_down,duration_us,detail\r\n"
		      "\"7\",\"\",\"open\",\"\",\"\",\"\",\"\",\"\",\"'-x\",\"\",\"\",\"\",\"\",\"443\",\"\",\"\","
		      "\"\",\"\",\"\",\"\",\"\"\r\n");
	free(text);
	json_decref(row);
}

/* ---- times ---------------------------------------------------------------------------------------------------------
 */

#define NOW INT64_C(1795635001000000) /* 2026-11-25 19:30:01 UTC */

static int64_t when(const char *text, bool end)
{
	int64_t us;

	if (time_parse(text, NOW, end, &us, &why) != 0)
		fail_msg("%s", why.text);
	return us;
}

static void test_times(void **state)
{
	(void)state;
	assert_true(when("90s", false) == NOW - 90 * INT64_C(1000000));
	assert_true(when("2h", false) == NOW - 7200 * INT64_C(1000000));
	assert_true(when("30d", true) == NOW - 30 * INT64_C(86400000000));
	assert_true(when("999999w", false) == 1);
	assert_true(when("2026-11-25 19:30:01Z", false) == NOW);
	assert_true(when("2026-11-25T19:30:01Z", true) == NOW);
	assert_true(when("2026-11-25 19:30Z", false) == NOW - 1000000);
	assert_true(when("1970-01-01Z", false) == 1);
	/* In whatever zone it was written. */
	assert_true(when("2026-11-25 20:30:01+01:00", false) == NOW);
	assert_true(when("2026-11-25T14:00:01-0530", false) == NOW);
	assert_true(when("2026-11-25+01:00", false) == when("2026-11-24 23:00Z", false));
	/* A date as an end includes its day. */
	assert_true(when("2026-11-25Z", true) - when("2026-11-25Z", false) == INT64_C(86400000000));
	assert_true(when("2024-12-31Z", true) == when("2025-01-01Z", false));
	/* Local: Berlin is an hour ahead in winter, and a day of 25 hours ends summer time. */
	assert_true(when("2026-11-25 20:30:01", false) == NOW);
	assert_true(when("2026-10-25", true) - when("2026-10-25", false) == 25 * INT64_C(3600000000));
}

static void test_times_refused(void **state)
{
	static const char *const wrong[] = {"",
					    "2",
					    "h",
					    "2 h",
					    "-2h",
					    "2026-02-29",
					    "2026-13-01",
					    "2026-11-31",
					    "2026-1-1",
					    "2026-11-25 24:00",
					    "yesterday",
					    "2026-11-25x",
					    "2026-11-25 19:30:60",
					    "1969-12-31",
					    "9999999h",
					    "2026-11-25 1:30",
					    "2026-11-25 19",
					    "2026-11-25 19:30+1",
					    "2026-11-25 19:30+15:00",
					    "2026-11-25 19:30+01:60",
					    "2026-11-25 19:30Zx"};
	int64_t us;

	(void)state;
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
		if (time_parse(wrong[i], NOW, false, &us, &why) == 0)
			fail_msg("\"%s\" was taken", wrong[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_safe),	   cmocka_unit_test(test_csv_cells),
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_amounts),	   cmocka_unit_test(test_every_format_is_harmless),
		cmocka_unit_test(test_table_fits), cmocka_unit_test(test_csv_row),
		cmocka_unit_test(test_times),	   cmocka_unit_test(test_times_refused),
	};

	setenv("TZ", "Europe/Berlin", 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
