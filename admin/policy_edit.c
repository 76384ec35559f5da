/* gatewayctl policy edit: the policy in force in an editor, on a copy that nobody else can reach.  What comes back is checked; what
 * is wrong is shown, and the editor opened again, until it is right or given up. */
#include "config.h"

#include "admin/policy_edit.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "admin/admin.h"
#include "admin/change.h"
#include "admin/format.h"
#include "admin/impact.h"
#include "admin/progress.h"
#include "common/clock.h"

#define WORDS_MAX 32

static const char usage_text[] =
	"usage: gatewayctl policy edit [FILE]\n"
	"\n"
	"Opens the policy in force, or the file of it that is called FILE, in $VISUAL,\n"
	"else $EDITOR, else vi, on a private copy.  The result is checked and what is\n"
	"wrong is shown; then it can be edited again.  What it changes in meaning is\n"
	"shown, and it is applied when you say so.\n"
	"\n"
	"  --if-revision N         only if this revision is in force\n"
	"  --comment TEXT          why, for the log of revisions\n"
	"  --dry-run               check, and change nothing\n"
	"  --strict                warnings refuse the policy\n";

struct editing {
	struct change change;
	const struct ast_source *source; /* that is edited; NULL: the policy's own text */
	const char *name;
	const char *before;
	size_t before_len;
	char directory[256], path[600];
	bool keep; /* the copy, for whoever was refused */
};

static volatile sig_atomic_t interrupted;

static void on_signal(int sig)
{
	interrupted = sig;
}

static const int signals[] = {SIGINT, SIGTERM, SIGHUP};

static void block_signals(bool block)
{
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
		sigaddset(&set, signals[i]);
	sigprocmask(block ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL);
}

/* Ending early must not leave the copy behind: a question that is interrupted is a no.  They come in while a question waits, and at
 * no other time, so that none is lost before the wait begins; and while a change is ordered, see put_into_force(). */
static void hold_signals(bool hold)
{
	struct sigaction a = {.sa_handler = hold ? on_signal : SIG_DFL};

	for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
		sigaction(signals[i], &a, NULL);
	block_signals(hold);
}

/* ---- the copy ----------------------------------------------------------------------------------------------------------- */

static int make_copy(struct editing *e)
{
	const char *tmp = getenv("TMPDIR"), *slash = strrchr(e->name, '/');
	size_t written;
	int fd;

	snprintf(e->directory, sizeof e->directory, "%s/gatewayctl-XXXXXX", tmp != NULL && *tmp == '/' && strlen(tmp) < 200 ? tmp : "/tmp");
	if (mkdtemp(e->directory) == NULL) {
		int error = errno;

		e->directory[0] = '\0';
		return admin_fail(-1, "cannot make a directory for the copy: %s", strerror(error));
	}
	snprintf(e->path, sizeof e->path, "%s/%.300s", e->directory, slash == NULL ? e->name : slash + 1);
	fd = open(e->path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	FILE *out = fd < 0 ? NULL : fdopen(fd, "w");

	if (out == NULL)
		return admin_fail(-1, "cannot make %s: %s", e->path, strerror(errno));
	written = fwrite(e->before, 1, e->before_len, out);
	if (fclose(out) != 0 || written != e->before_len)
		return admin_fail(-1, "cannot write %s: %s", e->path, strerror(errno));
	return 0;
}

static void where_it_is(const struct editing *e, char *text, size_t size)
{
	snprintf(text, size, "what you wrote is in %s", e->path);
}

/* Editors leave more than their file behind. */
static void remove_copy(struct editing *e)
{
	char text[700];

	if (e->directory[0] == '\0')
		return;
	if (e->keep) {
		where_it_is(e, text, sizeof text);
		admin_fail(0, "%s", text);
		return;
	}
	unlink(e->path);
	if (rmdir(e->directory) != 0 && errno == ENOTEMPTY)
		admin_fail(0, "the editor left files in %s", e->directory);
}

/* ---- the editor --------------------------------------------------------------------------------------------------------- */

/* Words are parted by blanks, and nothing else has a meaning: no shell ever sees them. */
static size_t split(char *text, char *words[WORDS_MAX])
{
	size_t n = 0;

	for (char *word = strtok(text, " \t"); word != NULL && n < WORDS_MAX - 2; word = strtok(NULL, " \t"))
		words[n++] = word;
	return n;
}

static void forget_signals(void)
{
	const struct timespec now = {0};
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
		sigaddset(&set, signals[i]);
	while (sigtimedwait(&set, NULL, &now) > 0)
		;
	interrupted = 0;
}

static void run_editor(const char *path) __attribute__((noreturn));
static void run_editor(const char *path)
{
	const char *said = getenv("VISUAL");
	char *words[WORDS_MAX], *text;
	size_t n;

	hold_signals(false);
	if (said == NULL || said[strspn(said, " \t")] == '\0')
		said = getenv("EDITOR");
	if (said == NULL || said[strspn(said, " \t")] == '\0')
		said = "vi";
	text = strdup(said);
	n = text == NULL ? 0 : split(text, words);
	words[n] = (char *)(uintptr_t)path;
	words[n + 1] = NULL;
	if (n > 0)
		execvp(words[0], words);
	admin_fail(0, "cannot start the editor %s: %s", said, strerror(errno));
	_exit(127);
}

static int edit_copy(const struct editing *e)
{
	int status = -1;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0)
		run_editor(e->path);
	if (pid < 0)
		return admin_fail(-1, "cannot start the editor: %s", strerror(errno));
	/* An interrupt in the editor is the editor's: one that came to us as well is forgotten. */
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	forget_signals();
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return admin_fail(-1, "the editor did not end well; nothing was changed");
	return 0;
}

static int read_copy(const struct editing *e, char **text, size_t *len)
{
	struct err why;

	if (load_text(e->path, text, len, &why) != 0)
		return admin_fail(-1, "%s: %s; nothing was changed", e->path, why.text);
	if (memchr(*text, '\0', *len) != NULL) {
		free(*text);
		return admin_fail(-1, "%s holds a NUL byte; nothing was changed", e->path);
	}
	return 0;
}

/* ---- questions ---------------------------------------------------------------------------------------------------------- */

/* The next line of standard input, without its end; false if there is none, or a signal came.  Nothing is read ahead: others ask
 * questions too. */
static bool read_line(char *line, size_t size)
{
	struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
	sigset_t none;
	size_t len = 0;
	char c;

	sigemptyset(&none);
	for (;;) {
		if (ppoll(&in, 1, NULL, &none) < 0 && errno == EINTR && !interrupted)
			continue;
		if (interrupted || read(STDIN_FILENO, &c, 1) != 1)
			return false;
		if (c == '\n')
			break;
		if (len + 1 < size)
			line[len++] = c;
	}
	line[len] = '\0';
	return true;
}

/* One of the letters; 'q' when nobody answers. */
static char ask(const char *question, const char *letters)
{
	char line[64];

	for (int tries = 0; tries < 10 && !interrupted; tries++) {
		printf("%s ", question);
		fflush(stdout);
		if (!read_line(line, sizeof line))
			break;
		if (line[0] != '\0' && strchr(letters, line[0]) != NULL && line[1] == '\0')
			return line[0];
	}
	putchar('\n');
	return 'q';
}

/* What the new text decides otherwise.  False if it is no usable policy, and that has been said. */
static bool show_meaning(struct editing *e, const struct gathered *g)
{
	struct loaded before, after;
	bool usable;

	load_bundle(&e->change.base.bundle, &before);
	load_bundle(&(struct bundle){(struct bundle_file *)(uintptr_t)g->files, g->count}, &after);
	if (after.image != NULL) {
		policy_expect(after.tree, after.image, &after.diagnostics);
		policy_find(after.tree, after.image, clock_wall_us() / 1000000, &after.diagnostics);
	}
	print_diagnostics(&after.diagnostics, stdout);
	usable = after.image != NULL && after.diagnostics.errors == 0 &&
		 !(e->change.options.strict && after.diagnostics.warnings > 0);
	if (usable && before.image != NULL) {
		struct policy_context a = {.image = before.image, .now = clock_wall_us() / 1000000}, b = a;
		struct policy_differences count;

		b.image = after.image;
		char *text = policy_diff(&a, before.tree, &b, after.tree, false, &count);

		if (text != NULL)
			fputs(text, stdout);
		free(text);
		print_differences(&count);
	}
	loaded_clear(&before);
	loaded_clear(&after);
	if (usable)
		impact_preview(&(struct bundle){(struct bundle_file *)(uintptr_t)g->files, g->count});
	return usable;
}

/* ---- rounds ------------------------------------------------------------------------------------------------------------- */

/* Whoever is ended meanwhile leaves the copy, as one that is refused does, and says where it is. */
static int put_into_force(struct editing *e, struct gathered *g)
{
	char text[700], safe[4 * sizeof text];
	int code;

	where_it_is(e, text, sizeof text);
	progress_farewell(format_safe(text, safe, sizeof safe));
	block_signals(false);
	code = change_put(&e->change, g);
	block_signals(true);
	progress_farewell(NULL);
	return code;
}

/* -1 to edit again, otherwise the exit code. */
static int offer(struct editing *e)
{
	struct gathered *g = change_make(&e->change, false);
	bool usable = show_meaning(e, g);
	char answer;
	int code = -1;

	if (!usable)
		answer = ask("this cannot be applied: (e)dit again, (q)uit without a change?", "eq");
	else
		answer = ask("(a)pply, (e)dit again, (q)uit without a change?", "aeq");
	if (answer == 'a') {
		code = put_into_force(e, g);
		if (code != ADMIN_FINE && ask("(e)dit again, (q)uit?", "eq") == 'e')
			code = -1;
		e->keep = code != ADMIN_FINE;
	} else if (answer == 'q') {
		e->keep = false;
		code = admin_fail(ADMIN_REFUSED, "nothing was changed");
	}
	gathered_free(&g);
	return code;
}

static int run_rounds(struct editing *e)
{
	int code = -1;

	while (code < 0) {
		char *text;
		size_t len;

		if (edit_copy(e) != 0)
			return ADMIN_REFUSED;
		/* From here on somebody's work is in it, whatever the next round comes to. */
		e->keep = true;
		if (read_copy(e, &text, &len) != 0)
			return ADMIN_REFUSED;
		e->keep = len != e->before_len || memcmp(text, e->before, len) != 0;
		edit_clear(&e->change.edit);
		edit_init(&e->change.edit, e->change.tree);
		edit_all(&e->change.edit, e->source, text);
		if (len == e->before_len && memcmp(text, e->before, len) == 0) {
			printf("nothing was changed\n");
			code = ADMIN_FINE;
		} else {
			code = offer(e);
		}
		free(text);
	}
	return code;
}

static int find_file(struct editing *e, const char *name)
{
	const struct bundle *b = &e->change.base.bundle;

	e->name = b->files[0].name;
	e->before = b->files[0].text;
	e->before_len = b->files[0].len;
	if (name == NULL || strcmp(name, e->name) == 0)
		return 0;
	for (e->source = e->change.tree->sources; e->source != NULL; e->source = e->source->next)
		if (strcmp(e->source->name, name) == 0)
			break;
	if (e->source == NULL)
		return admin_fail(-1, "the policy in force names no file %s; `gatewayctl policy show` lists them", name);
	e->name = e->source->name;
	e->before = e->source->text;
	e->before_len = e->source->len;
	return 0;
}

int policy_edit(int argc, char **argv)
{
	static const struct option options[] = {REVISION_OPTIONS, {"help", no_argument, NULL, 256}, {NULL, 0, NULL, 0}};
	struct editing e = {0};
	int c, code;

	optind = 0;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 256 || c == 'j' || !revision_option(&e.change.options, c)) {
			fputs(usage_text, c == 256 ? stdout : stderr);
			return c == 256 ? ADMIN_FINE : ADMIN_USAGE;
		}
	}
	if (argc - optind > 1) {
		fputs(usage_text, stderr);
		return ADMIN_USAGE;
	}
	if (!isatty(STDIN_FILENO))
		return admin_fail(ADMIN_USAGE, "policy edit asks questions, and standard input is no terminal; policy apply does not");
	code = change_begin(&e.change);
	if (code == ADMIN_FINE && find_file(&e, optind < argc ? argv[optind] : NULL) != 0)
		code = ADMIN_REFUSED;
	if (code == ADMIN_FINE) {
		hold_signals(true);
		code = make_copy(&e) == 0 ? run_rounds(&e) : ADMIN_REFUSED;
		remove_copy(&e);
	}
	change_clear(&e.change);
	return code;
}
