#include "config.h"

#include "tests/unit/policy_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void show(const struct policy_diagnostics *d)
{
	for (size_t i = 0; i < d->count; i++) {
		char *text = policy_diagnostic_format(&d->items[i]);

		print_message("%s", text);
		free(text);
	}
}

void fixture_check(struct fixture *f, const char *text, size_t len)
{
	*f = (struct fixture){0};
	f->tree = policy_parse("test", text, len, &f->diagnostics);
	assert_non_null(f->tree);
	policy_check(f->tree, &f->diagnostics);
}

void fixture_open(struct fixture *f, const char *text)
{
	struct err why;

	fixture_check(f, text, strlen(text));
	if (f->diagnostics.errors > 0)
		show(&f->diagnostics);
	assert_int_equal(f->diagnostics.errors, 0);
	assert_int_equal(policy_compile(f->tree, &f->data, &f->len, &f->diagnostics), 0);
	if (policy_image_verify(f->data, f->len, &why) != 0)
		fail_msg("%s", why.text);
	f->image = policy_image_open(f->data, f->len, &why);
	assert_non_null(f->image);
}

void fixture_close(struct fixture *f)
{
	policy_image_close(&f->image);
	policy_tree_free(f->tree);
	policy_diagnostics_free(&f->diagnostics);
	free(f->data);
	*f = (struct fixture){0};
}

struct addr fixture_addr(const char *text)
{
	struct addr a = {0};

	if (text != NULL && !addr_parse(text, &a))
		fail_msg("%s is no address", text);
	return a;
}

struct name fixture_name(const char *text)
{
	struct name n;
	struct addr a;
	const char *why;

	if (name_canonical(text, strlen(text), &n, &a, &why) != NAME_IS_NAME)
		fail_msg("%s is no name", text);
	return n;
}

int64_t fixture_time(int year, int month, int day, int hour, int minute)
{
	struct tm tm = {.tm_year = year - 1900, .tm_mon = month - 1, .tm_mday = day, .tm_hour = hour, .tm_min = minute};

	return timegm(&tm);
}

char *fixture_read(const char *path, size_t *len)
{
	FILE *f = fopen(path, "rb");
	char *text = malloc(1 << 20);

	if (f == NULL || text == NULL)
		fail_msg("%s cannot be read", path);
	*len = fread(text, 1, (1 << 20) - 1, f);
	text[*len] = '\0';
	fclose(f);
	return text;
}
