#include "config.h"

#include "admin/progress.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "admin/admin.h"
#include "common/clock.h"

#define LINE_MAX_BYTES 200

static const char *volatile shown_what; /* NULL: nothing is shown */
static volatile sig_atomic_t line_stands;
static int64_t began_us;
static struct sigaction alarm_before;

static const char *volatile guard_said;
static bool guarded;
static struct sigaction guard_before;

static const int farewell_signals[] = {SIGINT, SIGTERM, SIGHUP};
#define FAREWELLS (sizeof farewell_signals / sizeof *farewell_signals)

static const char *volatile farewell_said;
static struct sigaction farewell_before[FAREWELLS];

static volatile sig_atomic_t interrupted;
static unsigned watching;
static struct sigaction watch_before;

/* What may be called from a handler of a signal is little: write(2), and our own. */
static size_t put(char *line, size_t used, const char *text)
{
	size_t len = strlen(text);

	if (len > LINE_MAX_BYTES - used)
		len = LINE_MAX_BYTES - used;
	memcpy(line + used, text, len);
	return used + len;
}

static size_t put_number(char *line, size_t used, uint64_t n)
{
	char digits[24], *at = digits + sizeof digits - 1;

	*at = '\0';
	do
		*--at = (char)('0' + n % 10);
	while ((n /= 10) > 0);
	return put(line, used, at);
}

static void write_out(const char *line, size_t len)
{
	/* A terminal that takes no more is no reason to stop. */
	if (write(STDERR_FILENO, line, len) < 0)
		return;
}

static void on_alarm(int sig)
{
	char line[LINE_MAX_BYTES];
	const char *what = shown_what;
	size_t used = 0;

	(void)sig;
	if (what == NULL)
		return;
	used = put(line, used, "\r");
	used = put(line, used, what);
	used = put(line, used, ": ");
	used = put_number(line, used, (uint64_t)((clock_mono_us() - began_us) / 1000000));
	used = put(line, used, " s\033[K");
	line_stands = 1;
	write_out(line, used);
}

void progress_show(const char *what)
{
	const struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
	const struct itimerval each_second = {.it_interval = {.tv_sec = 1}, .it_value = {.tv_sec = 1}};
	bool begun = shown_what != NULL;

	if (!isatty(STDERR_FILENO))
		return;
	if (!begun)
		began_us = clock_mono_us();
	shown_what = what;
	if (begun)
		return;
	sigaction(SIGALRM, &action, &alarm_before);
	setitimer(ITIMER_REAL, &each_second, NULL);
}

void progress_hide(void)
{
	if (shown_what == NULL)
		return;
	setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
	shown_what = NULL;
	sigaction(SIGALRM, &alarm_before, NULL);
	if (line_stands)
		write_out("\r\033[K", 4);
	line_stands = 0;
}

/* text may be longer than a line. */
static void say_last(const char *text)
{
	char line[LINE_MAX_BYTES];
	size_t used = 0;

	if (line_stands)
		used = put(line, used, "\r\033[K");
	line_stands = 0;
	used = put(line, used, "gatewayctl: ");
	write_out(line, used);
	write_out(text, strlen(text));
	write_out("\n", 1);
}

static void on_guarded(int sig)
{
	(void)sig;
	say_last(guard_said);
	if (farewell_said != NULL)
		say_last(farewell_said);
	_exit(ADMIN_REFUSED);
}

void progress_guard(const char *said)
{
	const struct sigaction action = {.sa_handler = on_guarded};

	if (said == NULL) {
		if (guarded)
			sigaction(SIGINT, &guard_before, NULL);
		guarded = false;
		return;
	}
	guard_said = said;
	if (!guarded)
		sigaction(SIGINT, &action, &guard_before);
	guarded = true;
}

/* It ends us all the same, once this is over. */
static void on_farewell(int sig)
{
	const struct sigaction action = {.sa_handler = SIG_DFL};

	say_last(farewell_said);
	sigaction(sig, &action, NULL);
	raise(sig);
}

void progress_farewell(const char *said)
{
	const struct sigaction action = {.sa_handler = on_farewell};

	if (said != NULL)
		farewell_said = said;
	for (size_t i = 0; i < FAREWELLS; i++)
		sigaction(farewell_signals[i], said != NULL ? &action : &farewell_before[i], said != NULL ? &farewell_before[i] : NULL);
	if (said == NULL)
		farewell_said = NULL;
}

static void on_interrupt(int sig)
{
	(void)sig;
	interrupted = 1;
}

/* The second one ends whatever does not look. */
void progress_watch(void)
{
	const struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};

	if (watching++ > 0)
		return;
	interrupted = 0;
	sigaction(SIGINT, &action, &watch_before);
}

bool progress_interrupted(void)
{
	return interrupted != 0;
}

bool progress_watching(void)
{
	return watching > 0;
}

bool progress_wait(int fd)
{
	struct pollfd one = {.fd = fd, .events = POLLIN};
	sigset_t interrupt, before;

	sigemptyset(&interrupt);
	sigaddset(&interrupt, SIGINT);
	/* Between the look and the wait none is let in. */
	sigprocmask(SIG_BLOCK, &interrupt, &before);
	while (!interrupted && ppoll(&one, 1, NULL, &before) < 0 && errno == EINTR)
		;
	sigprocmask(SIG_SETMASK, &before, NULL);
	return !interrupted;
}

void progress_unwatch(void)
{
	if (--watching == 0)
		sigaction(SIGINT, &watch_before, NULL);
}
