#include "config.h"

#include "admin/audit_ask.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "admin/admin.h"
#include "admin/client.h"
#include "admin/format.h"
#include "admin/progress.h"
#include "common/clock.h"
#include "schema/audit_answer.h"

#define LINE_MAX_BYTES (1024 * 1024)
/* Until then nobody wonders. */
#define PROGRESS_AFTER_US 1000000
#define PAGE_US 200000
#define BAR_WIDTH 30
#define ROWS_AT_A_TIME 65536 /* bytes; what a pipe holds */

struct asking {
	const struct audit_question *question;
	struct audit_end *end;
	int64_t began_us;
	bool shown; /* a bar stands on the terminal */
	int code;   /* -1: it goes on */
};

/* ---- progress ------------------------------------------------------------------------------------------------------
 */

static void clear_progress(struct asking *a)
{
	if (a->shown)
		fputs("\r\033[K", stderr);
	a->shown = false;
}

static void show_progress(struct asking *a, int64_t per_mille)
{
	char bar[BAR_WIDTH + 1];
	int full;

	if (clock_mono_us() - a->began_us < PROGRESS_AFTER_US || per_mille < 0 || per_mille > 1000)
		return;
	full = (int)(per_mille * BAR_WIDTH / 1000);
	memset(bar, '-', BAR_WIDTH);
	memset(bar, '#', (size_t)full);
	bar[BAR_WIDTH] = '\0';
	fprintf(stderr, "\rreading the audit [%s] %3d %%\033[K", bar, (int)(per_mille / 10));
	fflush(stderr);
	a->shown = true;
}

/* ---- lines --------------------------------------------------------------------------------------------------------
 */

static int say_damage(const json_t *line)
{
	char buf[FORMAT_TEXT_MAX];

	return admin_fail(ADMIN_REFUSED, "the answer is not complete, the rest of the audit was read: %s",
			  format_member(line, "damage", buf));
}

static int take_end(struct asking *a, const json_t *line)
{
	*a->end = (struct audit_end){.came = true,
				     .rows = format_number(line, "rows"),
				     .newest = format_number(line, "newest"),
				     .more = json_is_true(json_object_get(line, "more"))};
	return json_object_get(line, "damage") != NULL ? say_damage(line) : ADMIN_FINE;
}

static void take_line(struct asking *a, const json_t *line)
{
	const char *error = json_string_value(json_object_get(line, "error"));
	const json_t *progress = json_object_get(line, "progress");

	if (json_is_integer(progress)) {
		show_progress(a, json_integer_value(progress));
		return;
	}
	clear_progress(a);
	if (!json_is_object(line))
		a->code = admin_fail(ADMIN_REFUSED, "gatewayd sent a row that is no JSON");
	else if (error != NULL)
		a->code = admin_fail(ADMIN_REFUSED, "the answer is not complete: %s", error);
	else if (json_is_true(json_object_get(line, "end")))
		a->code = take_end(a, line);
	else
		a->code = a->question->take(line, a->question->arg);
}

/* ---- a running gatewayd ----------------------------------------------------------------------------------------------
 */

/* What the stream of rows reads from; see fopencookie(3). */
struct source {
	int fd;
	char bytes[ROWS_AT_A_TIME]; /* the stream's: where it makes its own, the C library minds no size */
};

static ssize_t read_rows(void *cookie, char *bytes, size_t size)
{
	const struct source *source = cookie;

	if (!progress_wait(source->fd)) {
		errno = EINTR;
		return -1;
	}
	return read(source->fd, bytes, size);
}

static int close_rows(void *cookie)
{
	const struct source *source = cookie;

	return close(source->fd);
}

/* An interrupt ends it wherever it comes.  NULL: no memory. */
static FILE *open_rows(struct source *source)
{
	FILE *rows = fopencookie(source, "r", (cookie_io_functions_t){.read = read_rows, .close = close_rows});

	if (rows != NULL)
		setvbuf(rows, source->bytes, _IOFBF, sizeof source->bytes);
	else
		close(source->fd);
	return rows;
}

static int ask_gatewayd(struct asking *a)
{
	struct source source;
	char *text = NULL;
	size_t size = 0;
	ssize_t n;
	int code;
	json_t *order = json_pack("{s:s, s:O}", "command", "audit-query", "filter", a->question->request);

	if (a->question->purpose != NULL)
		json_object_set_new(order, "purpose", json_string(a->question->purpose));
	json_t *reply = client_ask(order, &source.fd, &code);

	if (reply == NULL)
		return code;
	json_decref(reply);
	FILE *pipe = source.fd < 0 ? NULL : open_rows(&source);

	if (pipe == NULL)
		return admin_fail(ADMIN_REFUSED, "gatewayd agreed, but sent no rows");
	while (a->code < 0 && !progress_interrupted() && (n = getline(&text, &size, pipe)) > 0 && n <= LINE_MAX_BYTES) {
		json_t *line = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, NULL);

		take_line(a, line);
		json_decref(line);
	}
	if (a->code < 0 && !progress_interrupted())
		a->code = admin_fail(ADMIN_REFUSED, "the answer ended early: it is not complete");
	free(text);
	fclose(pipe);
	return a->code;
}

/* ---- a directory -----------------------------------------------------------------------------------------------------
 */

static bool on_line(json_t *line, void *arg)
{
	struct asking *a = arg;

	if (a->code < 0 && !progress_interrupted())
		take_line(a, line);
	json_decref(line);
	return a->code < 0 && !progress_interrupted();
}

static bool goes_on(void *arg)
{
	(void)arg;
	return !progress_interrupted();
}

static int read_here(struct asking *a)
{
	const char *dir = a->question->dir;
	struct audit_archive *archive = NULL;
	struct audit_answer *answer = NULL;
	struct err why;

	archive = audit_archive_open(&why);
	if (archive != NULL)
		answer = audit_answer_new(archive, a->question->request, &why);
	if (answer == NULL)
		a->code = admin_fail(ADMIN_REFUSED, "%s: %s", dir, why.text);
	else
		audit_answer_watch(answer, goes_on, NULL);
	while (a->code < 0 && !progress_interrupted() && audit_answer_page(answer, PAGE_US, on_line, a) == 1)
		;
	audit_answer_free(&answer);
	audit_archive_close(&archive);
	return a->code;
}

/* The store's files are opened in the current directory, see schema/db_vfs.h; afterwards it is what it was. */
static int read_directory(struct asking *a)
{
	int here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (chdir(a->question->dir) != 0)
		a->code = admin_fail(ADMIN_REFUSED, "cannot enter %s: %s", a->question->dir, strerror(errno));
	else
		read_here(a);
	if (here >= 0) {
		if (fchdir(here) != 0)
			a->code = admin_fail(ADMIN_REFUSED, "cannot go back to where we were: %s", strerror(errno));
		close(here);
	}
	return a->code;
}

int audit_ask(const struct audit_question *q, struct audit_end *end)
{
	struct asking a = {.question = q, .end = end, .began_us = clock_mono_us(), .code = -1};
	int code;

	*end = (struct audit_end){0};
	if (!q->quiet && isatty(STDERR_FILENO))
		json_object_set_new(q->request, "progress", json_true());
	progress_watch();
	code = q->dir != NULL ? read_directory(&a) : ask_gatewayd(&a);
	clear_progress(&a);
	if (progress_interrupted() && !end->came)
		code = admin_fail(ADMIN_REFUSED, "interrupted: what is shown is not all");
	progress_unwatch();
	return code;
}
